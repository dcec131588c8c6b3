"""What a caller gives as a request's content and parameters, as it goes on the wire. Without I/O, but for a file's own."""

import io
import os
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Collection,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from json import dumps
from typing import Final, NamedTuple, Protocol, TypeGuard
from urllib.parse import parse_qs, urlencode

from calamint.core.errors import StreamConsumed
from calamint.core.value import Fields

FILE_PIECE: Final = 64 * 1024


class Readable(Protocol):
    """A file that was opened for bytes, or what can be read like one."""

    def read(self, size: int, /) -> bytes: ...


class Seekable(Readable, Protocol):
    """One that can go to another place."""

    def tell(self) -> int: ...
    def seek(self, offset: int, whence: int = 0, /) -> int: ...


# Not by isinstance: temporary files, among others, have their methods by __getattr__, which that does not see.
def is_readable(content: object) -> TypeGuard[Readable]:
    return hasattr(content, "read")


def is_seekable(file: Readable) -> TypeGuard[Seekable]:
    return hasattr(file, "seek") and hasattr(file, "tell")


BytesLike = bytes | bytearray | memoryview
RequestContent = str | BytesLike | Readable | Iterable[BytesLike] | AsyncIterable[BytesLike]
Primitive = str | int | float | None
Form = Mapping[str, Primitive | Sequence[Primitive]]
Params = str | bytes | Form | Sequence[tuple[str, Primitive]]


class Pieces:
    """Content from an iterable; `replayable` where it can be iterated again, as a list can and a generator cannot."""

    def __init__(self, source: Iterable[BytesLike]) -> None:
        if isinstance(source, Sequence):
            for piece in source:
                as_bytes(piece)
        self.source = source
        self.replayable = not isinstance(source, Iterator)
        self.begun = False

    def __iter__(self) -> Generator[bytes, None, None]:
        begin(self)
        try:
            for piece in self.source:
                yield as_bytes(piece)
        finally:
            if isinstance(self.source, Generator):
                self.source.close()


class AsyncPieces:
    """Content from an asynchronous iterable; `replayable` where it can be iterated again, as a generator cannot."""

    def __init__(self, source: AsyncIterable[BytesLike]) -> None:
        self.source = source
        self.replayable = not isinstance(source, AsyncIterator)
        self.begun = False

    async def __aiter__(self) -> AsyncGenerator[bytes, None]:
        begin(self)
        try:
            async for piece in self.source:
                yield as_bytes(piece)
        finally:
            if isinstance(self.source, AsyncGenerator):
                await self.source.aclose()


class FilePieces:
    """Content from where a file stands now to its end, in pieces of 64 KiB; `replayable` where the file can go back.

    `length`: bytes, or None where the file does not tell. What is appended while it is sent stays out.
    """

    def __init__(self, file: Readable) -> None:
        if isinstance(file, io.TextIOBase):
            raise TypeError("content is a file that was opened as text: open it with mode 'rb'")
        self.file = file
        self.begun = False
        self.place, self.length = measure(file)
        self.replayable = self.place is not None

    def __iter__(self) -> Generator[bytes, None, None]:
        begin(self)
        if self.place is not None and is_seekable(self.file):
            self.file.seek(self.place)
        left = self.length
        while left is None or left > 0:
            piece = as_bytes(self.file.read(FILE_PIECE if left is None else min(left, FILE_PIECE)))
            if not piece:
                return
            left = None if left is None else left - len(piece)
            yield piece


def measure(file: Readable) -> tuple[int | None, int | None]:
    """Where a file stands and how many bytes follow; None for what it cannot tell."""
    if not is_seekable(file):
        return None, None
    try:
        place = file.tell()
        length = max(0, file.seek(0, os.SEEK_END) - place)
        file.seek(place)
        if not length and file.read(1):  # a device, or a file of /proc: its end says nothing
            file.seek(place)
            return place, None
    except OSError:  # a pipe; io.UnsupportedOperation is one, too
        return None, None
    return place, length


def begin(pieces: Pieces | AsyncPieces | FilePieces) -> None:
    """Raises StreamConsumed where the content has been iterated and cannot be again."""
    if pieces.begun and not pieces.replayable:
        raise StreamConsumed(
            "the content came from a generator or a stream and has been sent: it cannot be sent again; "
            "give bytes, a list, or a file that can seek"
        )
    pieces.begun = True


def as_bytes(piece: object) -> bytes:
    """A piece of content; what can still change is copied. Raises TypeError for text and all else."""
    if isinstance(piece, bytes):
        return piece
    if isinstance(piece, bytearray | memoryview):
        return bytes(piece)
    raise TypeError(f"a piece of content is of type {type(piece).__name__}: give bytes, text by its encode()")


class Content(NamedTuple):
    """What goes on the wire: fields to add, and the content, as a whole, in parts, or, with neither, none.

    The content-length of `whole` is not among the fields: it is counted where it is sent.
    """

    fields: Fields
    whole: bytes | None
    parts: Pieces | AsyncPieces | FilePieces | None


def encode_content(
    content: RequestContent | None = None,
    data: Form | None = None,
    json: object = None,
    given: Collection[bytes] = (),
) -> Content:
    """The content of a request. `given`: the names of the caller's own fields, in lower case; they are not added.

    `content`: bytes or text (UTF-8) or a file or pieces of bytes, as they are. `data`: a form, whose lists repeat their name.
    `json`: whatever the json module encodes; for a JSON null write content="null". An empty form is no content. Raises
    TypeError for more than one of them and for what is none of this, ValueError for NaN and text that is no Unicode.
    """
    named = [("content", content is not None), ("data", data is not None), ("json", json is not None)]
    names = [name for name, is_given in named if is_given]
    if len(names) > 1:
        raise TypeError(f"{' and '.join(names)} are given: a request has one content, so give one of them")
    if data is not None:
        return encode_form(data, given)
    if json is not None:
        text = dumps(json, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        return Content(field(b"content-type", b"application/json", given), text.encode(), None)
    if isinstance(content, str):
        return Content((), content.encode(), None)
    if content is None or isinstance(content, BytesLike):
        return Content((), None if content is None else bytes(content), None)
    return encode_parts(content, given)


def encode_form(data: Form, given: Collection[bytes]) -> Content:
    """A form as application/x-www-form-urlencoded."""
    if not isinstance(data, Mapping):
        raise TypeError(
            f"data is of type {type(data).__name__}: give a mapping of a form's fields, or all else as content"
        )
    if not data:
        return Content((), None, None)
    whole = urlencode(list_pairs(group(data))).encode("ascii")
    return Content(field(b"content-type", b"application/x-www-form-urlencoded", given), whole, None)


def encode_parts(
    content: Readable | Iterable[BytesLike] | AsyncIterable[BytesLike], given: Collection[bytes]
) -> Content:
    """Content in parts; its length where a file tells it."""
    if isinstance(content, AsyncIterable):
        return Content((), None, AsyncPieces(content))
    if is_readable(content):
        pieces = FilePieces(content)
        length = b"" if pieces.length is None else b"%d" % pieces.length
        return Content(field(b"content-length", length, given) if length else (), None, pieces)
    if isinstance(content, Iterable) and not isinstance(content, Mapping):
        return Content((), None, Pieces(content))
    raise TypeError(
        f"content is of type {type(content).__name__}: give bytes, text, a file or pieces of bytes; a form as data=, "
        "what becomes JSON as json="
    )


def field(name: bytes, value: bytes, given: Collection[bytes]) -> Fields:
    return () if name in given else ((name, value),)


def encode_params(params: Params | None) -> str:
    """Parameters as a query, without its "?": names and values percent-encoded as in a form, a space as "+".

    True, False and None become "true", "false" and ""; lists repeat their name; equal names stand together. A str, or
    bytes in ASCII, is a query already and is read as one. Raises TypeError for values that have no such form.
    """
    return merge_params(None, params)


def merge_params(params: Params | None, others: Params | None) -> str:
    """Both as one query, without its "?". Where a name is in both, the values of `others` take the place of the first ones."""
    return urlencode(list_pairs(group(params) | group(others)))


def group(params: Params | None) -> dict[str, list[str]]:
    """The values of each name; none is one, too: merged, it takes those of another place away."""
    if params is None:
        return {}
    if not isinstance(params, Mapping | Sequence):
        raise TypeError(f"parameters are of type {type(params).__name__}: give a mapping, a list of pairs, or a query")
    if isinstance(params, str | bytes):
        return parse_qs(params if isinstance(params, str) else params.decode("ascii"), keep_blank_values=True)
    if isinstance(params, Mapping):
        return {
            str(name): [as_text(name, item) for item in (value if isinstance(value, list | tuple) else (value,))]
            for name, value in params.items()
        }
    groups: dict[str, list[str]] = {}
    for name, value in params:
        groups.setdefault(str(name), []).append(as_text(name, value))
    return groups


def as_text(name: str, value: object) -> str:
    """A parameter's value. Raises TypeError for what would only show its repr."""
    if isinstance(value, BytesLike | Mapping | list | tuple | set | frozenset):
        raise TypeError(
            f"the value of {name!r} is of type {type(value).__name__}: give text, a number, or a list of them"
        )
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def list_pairs(groups: dict[str, list[str]]) -> list[tuple[str, str]]:
    return [(name, value) for name, values in groups.items() for value in values]
