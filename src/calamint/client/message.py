"""Requests and responses as callers see them, for both clients."""

import codecs
import json as jsonlib
import time
import warnings
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping
from datetime import timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, Protocol, final

from calamint.client.codings import LIMITS, CodingLimits, Decoder, decoder_for
from calamint.client.content import Content, Form, Params, RequestContent, encode_content
from calamint.client.headers import Headers
from calamint.client.urls import URL
from calamint.core.errors import HTTPStatusError, ResponseNotRead, StreamClosed, StreamConsumed
from calamint.core.value import Fields

if TYPE_CHECKING:
    from calamint.core.events import InterimReceived

REASONS: Final = {int(status): status.phrase for status in HTTPStatus}
REDIRECTS: Final = frozenset((301, 302, 303, 307, 308))  # RFC 9110 §15.4, of those that say where
LINE_ENDS: Final = "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"  # where str.splitlines() splits


@final
class Request:
    """A request, to be sent by a client: `client.build_request(…)` makes one with what the client adds.

    `content`: bytes, text, a file or pieces of bytes; `data`: a form; `json`: whatever the json module encodes. Raises
    InvalidURL, UnsupportedProtocol, TypeError for content of another kind.
    """

    def __init__(
        self,
        method: str,
        url: str | URL,
        *,
        params: Params | None = None,
        headers: "Headers | Mapping[str, str] | Iterable[tuple[str | bytes, str | bytes]] | None" = None,
        content: RequestContent | None = None,
        data: Form | None = None,
        json: object = None,
        extensions: Mapping[str, object] | None = None,
    ) -> None:
        self.method = method.upper()
        self.url = url if isinstance(url, URL) and params is None else URL(url, params)
        self.headers = headers if isinstance(headers, Headers) else Headers(headers)
        self.extensions: dict[str, object] = {} if extensions is None else dict(extensions)
        if content is None and data is None and json is None:
            self.body = NOTHING
        else:
            self.body = encode_content(content, data, json, [name.lower() for name, _ in self.headers.raw])
            if self.body.fields:
                self.headers.merge(self.body.fields)

    @property
    def content(self) -> bytes:
        """All of the content, where it is there as bytes. Raises StreamConsumed where it comes in pieces."""
        if self.body.parts is not None:
            raise StreamConsumed("the content comes in pieces while it is sent: it is not there as a whole")
        return self.body.whole or b""

    def __repr__(self) -> str:
        return f"<Request({self.method!r}, {str(self.url)!r})>" if not self.url.password else f"<Request {self.url!r}>"


NOTHING: Final = Content((), None, None)


class SyncStream(Protocol):
    """Content that arrives, for a Response: pieces as they came, coded as they are."""

    def __iter__(self) -> Iterator[bytes]: ...
    def close(self) -> None: ...


class AsyncStream(Protocol):
    """The same for asyncio."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...
    async def aclose(self) -> None: ...


class Response:
    """A response: its head is here, and its content unless it is streamed; then `read`, an `iter_…` or `close` is next.

    `extensions`: "http_version", "reason_phrase" and "stream_id" as httpx has them. `interim`: the responses that came
    before it (RFC 9110 §15.2). A response that is dropped unclosed gives its slot back, with a ResourceWarning.
    """

    def __init__(
        self,
        status_code: int,
        *,
        headers: "Headers | Mapping[str, str] | Iterable[tuple[str | bytes, str | bytes]] | None" = None,
        content: bytes | str | None = None,
        text: str | None = None,
        html: str | None = None,
        json: object = None,
        stream: SyncStream | AsyncStream | None = None,
        request: Request | None = None,
        extensions: Mapping[str, object] | None = None,
        history: "list[Response] | None" = None,
        default_encoding: str | Callable[[bytes], str] = "utf-8",
        coding_limits: CodingLimits = LIMITS,
    ) -> None:
        self.status_code = status_code
        self.extensions: dict[str, object] = {} if extensions is None else dict(extensions)
        self.history: list[Response] = [] if history is None else history
        self.next_request: Request | None = None
        self.default_encoding = default_encoding
        self.interim: tuple[InterimReceived, ...] = ()
        self.trailers = Headers()
        self.stream = stream
        self.is_closed = stream is None
        self.is_stream_consumed = False
        self.num_bytes_downloaded = 0
        self._headers: Headers | Fields = (
            () if headers is None else Headers(headers)
        )  # fields have their names in lower case
        self._request = request
        self._coding_limits = coding_limits
        self._raw: bytes | None = None  # all of the content, as it came
        self._content: bytes | None = None
        self._text: str | None = None
        self._encoding: str | None = None
        self._elapsed: float | None = None
        self._began: float | None = None
        if stream is None:
            self._make(content, text, html, json)

    def _make(self, content: bytes | str | None, text: str | None, html: str | None, json: object) -> None:
        """The content that whoever makes a response gives it."""
        given: tuple[str, bytes] | None = None
        if text is not None:
            given = ("text/plain; charset=utf-8", text.encode())
        elif html is not None:
            given = ("text/html; charset=utf-8", html.encode())
        elif json is not None:
            dumped = jsonlib.dumps(json, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
            given = ("application/json", dumped.encode())
        elif content is not None:
            given = ("", content.encode() if isinstance(content, str) else content)
        if given is not None:
            kind, data = given
            if kind and "content-type" not in self.headers:
                self.headers["content-type"] = kind
            if "content-length" not in self.headers and "transfer-encoding" not in self.headers:
                self.headers["content-length"] = str(len(data))
            self._raw = data
            self.num_bytes_downloaded = len(data)
        else:
            self._raw = b""

    # The head

    @property
    def headers(self) -> Headers:
        """The header fields."""
        if not isinstance(self._headers, Headers):
            self._headers = Headers(self._headers)
        return self._headers

    @property
    def request(self) -> Request:
        """What it answers. Raises RuntimeError where nobody said."""
        if self._request is None:
            raise RuntimeError("this response was made without its request: give it request=")
        return self._request

    @request.setter
    def request(self, request: Request) -> None:
        self._request = request

    @property
    def url(self) -> URL:
        """Where it came from, after redirects."""
        return self.request.url

    @property
    def http_version(self) -> str:
        """ "HTTP/1.1" or "HTTP/2"."""
        version = self.extensions.get("http_version", b"HTTP/1.1")
        return version.decode("ascii") if isinstance(version, bytes) else str(version)

    @property
    def reason_phrase(self) -> str:
        """What HTTP/1.1 said beside the status code, or what the status code means."""
        said = self.extensions.get("reason_phrase")
        return said.decode("latin-1") if isinstance(said, bytes) and said else REASONS.get(self.status_code, "")

    @property
    def elapsed(self) -> timedelta:
        """From the sending of the request to the end of the response. Raises RuntimeError before that."""
        if self._elapsed is None:
            raise RuntimeError("`elapsed` is known once the response has been read or closed")
        return timedelta(seconds=self._elapsed)

    @property
    def is_informational(self) -> bool:
        return 100 <= self.status_code < 200

    @property
    def is_success(self) -> bool:
        return 200 <= self.status_code < 300

    @property
    def is_redirect(self) -> bool:
        return 300 <= self.status_code < 400

    @property
    def is_client_error(self) -> bool:
        return 400 <= self.status_code < 500

    @property
    def is_server_error(self) -> bool:
        return 500 <= self.status_code < 600

    @property
    def is_error(self) -> bool:
        return 400 <= self.status_code < 600

    @property
    def has_redirect_location(self) -> bool:
        """Whether it sends the client elsewhere (RFC 9110 §15.4)."""
        return self.status_code in REDIRECTS and "location" in self.headers

    def raise_for_status(self) -> "Response":
        """Itself where the status is 2xx. Raises HTTPStatusError for any other."""
        if self.is_success:
            return self
        kind = {1: "Informational response", 3: "Redirect response", 4: "Client error", 5: "Server error"}
        what = kind.get(self.status_code // 100, "Invalid status code")
        words = f"{what} '{self.status_code} {self.reason_phrase}' for url '{self.url}'"
        if self.has_redirect_location:
            words += f"\nRedirect location: '{self.headers['location']}'"
        raise HTTPStatusError(words, request=self.request, response=self)

    def __repr__(self) -> str:
        return f"<Response [{self.status_code} {self.reason_phrase}]>"

    # The content, once it is here

    @property
    def content(self) -> bytes:
        """All of the content, its codings undone. Raises ResponseNotRead before `read`, and DecodingError."""
        if self._content is None:
            if self._raw is None:
                raise ResponseNotRead("the content is still to come: call `read()`, or iterate over it")
            self._content = self._decode_all(self._raw)
        return self._content

    @property
    def text(self) -> str:
        """The content as text; what its encoding does not know is replaced."""
        if self._text is None:
            self._text = self.content.decode(self.encoding or "utf-8", "replace")
        return self._text

    def json(self, **options: object) -> object:
        """The content as JSON says it; `options` go to json.loads."""
        return jsonlib.loads(self.content, **options)  # type: ignore[arg-type]  # they are json's to judge

    @property
    def charset_encoding(self) -> str | None:
        """What content-type says, if it does."""
        for part in self.headers.get("content-type", "").split(";")[1:]:
            name, _, value = part.strip().partition("=")
            if name.strip().lower() == "charset":
                return value.strip().strip("\"'") or None
        return None

    @property
    def encoding(self) -> str | None:
        """What `text` is decoded with: content-type's charset, where Python knows it, or the default. May be set before."""
        if self._encoding is None:
            said = self.charset_encoding
            if said is not None and is_known(said):
                self._encoding = said
            elif isinstance(self.default_encoding, str):
                self._encoding = self.default_encoding
            elif self._content is not None or self._raw is not None:
                self._encoding = self.default_encoding(self.content)
        return self._encoding

    @encoding.setter
    def encoding(self, value: str) -> None:
        if self._text is not None:
            raise ValueError("`text` has been decoded: set the encoding before it is asked for")
        self._encoding = value

    def _decode_all(self, data: bytes) -> bytes:
        """Whole content, with its codings undone."""
        decoder = self._decoder()
        return data if decoder is None else b"".join(finish(decoder, data))

    def _decoder(self) -> Decoder | None:
        """What undoes its codings, if it has any."""
        if isinstance(self._headers, Headers):
            codings = self._headers.get("content-encoding", "")
        else:
            found = [value for name, value in self._headers if name == b"content-encoding"]
            codings = b", ".join(found).decode("latin-1")
        decoder = decoder_for(codings, self._coding_limits) if codings else None
        return decoder if decoder is not None and decoder.codings else None

    # The content as it comes

    def read(self) -> bytes:
        """All of the content. Raises what failed the request, and DecodingError."""
        if self._content is None and self._raw is None:
            self._content = b"".join(self.iter_bytes())
        return self.content

    async def aread(self) -> bytes:
        """As `read`."""
        if self._content is None and self._raw is None:
            self._content = b"".join([piece async for piece in self.aiter_bytes()])
        return self.content

    def iter_raw(self, chunk_size: int | None = None) -> Iterator[bytes]:
        """The content as it came, in pieces of `chunk_size` bytes, or as they came."""
        cutter = Cutter(chunk_size)
        for piece in self._pieces():
            yield from cutter.feed(piece)
        yield from cutter.flush()

    def iter_bytes(self, chunk_size: int | None = None) -> Iterator[bytes]:
        """The content, its codings undone, in pieces of `chunk_size` bytes, or as they came."""
        cutter = Cutter(chunk_size)
        if self._content is not None or self._raw is not None:
            yield from cutter.feed(self.content)
        else:
            decoder = self._decoder()
            for piece in self._pieces():
                for part in (piece,) if decoder is None else feed(decoder, piece):
                    yield from cutter.feed(part)
            if decoder is not None:
                decoder.end()
        yield from cutter.flush()

    def iter_text(self, chunk_size: int | None = None) -> Iterator[str]:
        """The content as text, in pieces of `chunk_size` characters, or as they came."""
        decoder = self._text_decoder()
        cutter = TextCutter(chunk_size)
        for piece in self.iter_bytes():
            yield from cutter.feed(decoder.decode(piece))
        yield from cutter.feed(decoder.decode(b"", True))
        yield from cutter.flush()

    def iter_lines(self) -> Iterator[str]:
        """The content line by line, without their ends."""
        lines = Lines()
        for piece in self.iter_text():
            yield from lines.feed(piece)
        yield from lines.flush()

    async def aiter_raw(self, chunk_size: int | None = None) -> AsyncIterator[bytes]:
        """As `iter_raw`."""
        cutter = Cutter(chunk_size)
        async for piece in self._apieces():
            for part in cutter.feed(piece):
                yield part
        for part in cutter.flush():
            yield part

    async def aiter_bytes(self, chunk_size: int | None = None) -> AsyncIterator[bytes]:
        """As `iter_bytes`."""
        cutter = Cutter(chunk_size)
        if self._content is not None or self._raw is not None:
            for part in cutter.feed(self.content):
                yield part
        else:
            decoder = self._decoder()
            async for piece in self._apieces():
                for part in (piece,) if decoder is None else feed(decoder, piece):
                    for cut in cutter.feed(part):
                        yield cut
            if decoder is not None:
                decoder.end()
        for part in cutter.flush():
            yield part

    async def aiter_text(self, chunk_size: int | None = None) -> AsyncIterator[str]:
        """As `iter_text`."""
        decoder = self._text_decoder()
        cutter = TextCutter(chunk_size)
        async for piece in self.aiter_bytes():
            for part in cutter.feed(decoder.decode(piece)):
                yield part
        for part in [*cutter.feed(decoder.decode(b"", True)), *cutter.flush()]:
            yield part

    async def aiter_lines(self) -> AsyncIterator[str]:
        """As `iter_lines`."""
        lines = Lines()
        async for piece in self.aiter_text():
            for line in lines.feed(piece):
                yield line
        for line in lines.flush():
            yield line

    def _text_decoder(self) -> codecs.IncrementalDecoder:
        return codecs.getincrementaldecoder(self.encoding or "utf-8")("replace")

    def _begin_reading(self) -> SyncStream | AsyncStream:
        """The stream, which can be read once."""
        if self.is_stream_consumed:
            raise StreamConsumed("the content has been read as a stream already, and is not kept")
        if self.stream is None or self.is_closed:
            raise StreamClosed("the response is closed: what was not read is gone")
        self.is_stream_consumed = True
        return self.stream

    def _pieces(self) -> Iterator[bytes]:
        """The pieces of the stream; it is closed when they end, or are left."""
        stream = self._begin_reading()
        if not isinstance(stream, Iterable):
            raise RuntimeError("this response belongs to an AsyncClient: use `aread` or an `aiter_…`")
        try:
            for piece in stream:
                self.num_bytes_downloaded += len(piece)
                yield piece
        finally:
            self.close()

    async def _apieces(self) -> AsyncIterator[bytes]:
        stream = self._begin_reading()
        if not isinstance(stream, AsyncIterable):
            raise RuntimeError("this response belongs to a Client: use `read` or an `iter_…`")
        try:
            async for piece in stream:
                self.num_bytes_downloaded += len(piece)
                yield piece
        finally:
            await self.aclose()

    def close(self) -> None:
        """What has not come is not wanted any more, and its slot is free. A no-op when it is closed."""
        if not self.is_closed and self.stream is not None:
            if isinstance(self.stream, AsyncIterable):
                raise RuntimeError("this response belongs to an AsyncClient: use `aclose`")
            self._finish()
            self.stream.close()

    async def aclose(self) -> None:
        """As `close`. It never waits."""
        if not self.is_closed and self.stream is not None:
            if not isinstance(self.stream, AsyncIterable):
                raise RuntimeError("this response belongs to a Client: use `close`")
            self._finish()
            await self.stream.aclose()

    def _finish(self) -> None:
        """It is over."""
        self.is_closed = True
        if self._began is not None:
            self._elapsed = time.perf_counter() - self._began


class Cutter:
    """Bytes in pieces of one size, or as they come."""

    def __init__(self, size: int | None) -> None:
        if size is not None and size < 1:
            raise ValueError(f"chunk_size={size}: it is at least 1, or None for pieces as they come")
        self.size = size
        self.kept: list[bytes] = []
        self.length = 0

    def feed(self, data: bytes) -> Iterable[bytes]:
        if self.size is None:
            return (data,) if data else ()
        self.kept.append(data)
        self.length += len(data)
        if self.length < self.size:
            return ()
        whole = b"".join(self.kept)
        end = self.length - self.length % self.size
        self.kept = [whole[end:]]
        self.length -= end
        return [whole[start : start + self.size] for start in range(0, end, self.size)]

    def flush(self) -> Iterable[bytes]:
        return (b"".join(self.kept),) if self.length else ()


class TextCutter:
    """The same for text."""

    def __init__(self, size: int | None) -> None:
        Cutter(size)  # raises ValueError
        self.size = size
        self.kept = ""

    def feed(self, text: str) -> Iterable[str]:
        if self.size is None:
            return (text,) if text else ()
        whole = self.kept + text
        end = len(whole) - len(whole) % self.size
        self.kept = whole[end:]
        return [whole[start : start + self.size] for start in range(0, end, self.size)]

    def flush(self) -> Iterable[str]:
        return (self.kept,) if self.kept else ()


class Lines:
    """Lines out of pieces of text, as str.splitlines() has them."""

    def __init__(self) -> None:
        self.kept: list[str] = []
        self.after_cr = False

    def feed(self, text: str) -> list[str]:
        if self.after_cr:
            text, self.after_cr = "\r" + text, False
        if text.endswith("\r"):  # perhaps half of a CR LF
            text, self.after_cr = text[:-1], True
        if not text:
            return []
        lines = text.splitlines()
        open_end = text[-1] not in LINE_ENDS
        if len(lines) == 1 and open_end:
            self.kept.append(lines[0])
            return []
        lines[0] = "".join(self.kept) + lines[0]
        self.kept = [lines.pop()] if open_end else []
        return lines

    def flush(self) -> list[str]:
        if not self.kept and not self.after_cr:
            return []
        return ["".join(self.kept)]


def feed(decoder: Decoder, data: bytes) -> Iterator[bytes]:
    """What a piece of coded content decodes to, step by step."""
    decoder.feed(data)
    while piece := decoder.take():
        yield piece


def finish(decoder: Decoder, data: bytes) -> Iterator[bytes]:
    """What whole coded content decodes to."""
    yield from feed(decoder, data)
    decoder.end()


def is_known(encoding: str) -> bool:
    """Whether Python can decode text with it."""
    try:
        b"".decode(encoding)
    except (LookupError, ValueError):
        return False
    return True


def warn_unclosed(what: str, source: object) -> None:
    """A response was dropped unclosed."""
    warnings.warn(what, ResourceWarning, stacklevel=2, source=source)
