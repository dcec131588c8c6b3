"""Requests and responses as callers see them, for both clients."""

import codecs
import json as jsonlib
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping
from datetime import timedelta
from http import HTTPStatus
from typing import Any, Final, Protocol, final

from calamint.client.codings import LIMITS, CodingLimits, Decoder, decoder_for
from calamint.client.content import AsyncPieces, Content, Form, Params, Pieces, RequestContent, encode_content
from calamint.client.errors import HTTPStatusError
from calamint.client.headers import Headers, HeadersInit
from calamint.client.pieces import Cutter, Lines
from calamint.client.urls import URL
from calamint.core.errors import DecodingError, ResponseNotRead, StreamClosed, StreamConsumed
from calamint.core.events import InterimReceived
from calamint.core.value import Fields

REASONS: Final = {int(status): status.phrase for status in HTTPStatus}
REDIRECTS: Final = frozenset((301, 302, 303, 307, 308))  # RFC 9110 §15.4, of those that say where
NO_CHARSETS: Final = frozenset(("idna", "punycode", "raw-unicode-escape", "unicode-escape"))
"""Python's codecs from bytes to text that no content is coded with. Punycode takes time in the square of the content's length."""


@final
class Request:
    """A request, to be sent by a client: `client.build_request(…)` makes one with what the client adds.

    `content`: bytes, text, a file or pieces of bytes; `data`: a form; `json`: whatever the json module encodes. `params`
    are appended to the query. `extensions`: "timeout" (seconds, a Timeout, or a dict as httpx has it), "target" (bytes:
    what the request line says instead of the URL's path and query), and "sni_hostname" (the name in the server's
    certificate). A pickled request has only what is plain of them, and no content that comes in pieces. Raises InvalidURL,
    UnsupportedProtocol, TypeError for content of another kind.
    """

    def __init__(
        self,
        method: str,
        url: str | URL,
        *,
        params: Params | None = None,
        headers: HeadersInit | None = None,
        content: RequestContent | None = None,
        data: Form | None = None,
        json: object = None,
        extensions: Mapping[str, object] | None = None,
    ) -> None:
        self.method = method.upper()
        self.url = url if isinstance(url, URL) and params is None else URL(url, params)
        self.headers = Headers(headers)
        self.extensions: dict[str, object] = {} if extensions is None else dict(extensions)
        if content is None and data is None and json is None:
            self.body = EMPTY if self.method in WITH_CONTENT else NOTHING
        else:
            self.body = encode_content(content, data, json, [name.lower() for name, _ in self.headers.raw])
            if self.body == NOTHING and self.method in WITH_CONTENT:
                self.body = EMPTY
            if self.body.fields:
                self.headers.update(self.body.fields)

    @property
    def content(self) -> bytes:
        """All of the content. Raises StreamConsumed where it comes in pieces and was not `read`."""
        if self.body.parts is not None:
            raise StreamConsumed("the content comes in pieces while it is sent: `read()` it to have it as a whole")
        return self.body.whole or b""

    def read(self) -> bytes:
        """All of the content, to which its pieces are joined. Raises StreamConsumed where they are gone."""
        parts = self.body.parts
        if isinstance(parts, AsyncPieces):
            raise RuntimeError("the content of this request comes from an asynchronous iterable: use `aread`")
        if parts is not None:
            self.body = Content(self.body.fields, b"".join(parts), None)
        return self.content

    async def aread(self) -> bytes:
        """As `read`."""
        if isinstance(self.body.parts, AsyncPieces):
            whole = b"".join([piece async for piece in self.body.parts])
            self.body = Content(self.body.fields, whole, None)
        return self.read()

    def __getstate__(self) -> dict[str, object]:
        body = self.body
        if body.parts is not None:
            gone = Pieces(iter(()))
            gone.begun = True  # whoever sends it hears that it is
            body = Content(body.fields, None, gone)
        return {**self.__dict__, "extensions": only_plain(self.extensions), "body": body}

    def __repr__(self) -> str:
        return f"<Request({self.method!r}, {str(self.url.bare())!r})>"


NOTHING: Final = Content((), None, None)
EMPTY: Final = Content((), b"", None)
WITH_CONTENT: Final = frozenset(
    ("POST", "PUT", "PATCH")
)  # methods that say so, too, where there is none (RFC 9110 §8.6)


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
    before it (RFC 9110 §15.2). `trailers`: the fields that came after its content, once that has been read. A response that
    is dropped unclosed gives its slot back, with a ResourceWarning that says where it was made. Iterated over and left in the
    middle, it is still open: `close` it, or use `client.stream(…)`, which does. Pickled, it has what had been read.
    """

    # What most responses never change stands here: it costs nothing to make then.
    next_request: Request | None = None
    interim: tuple[InterimReceived, ...] = ()
    num_bytes_downloaded = 0
    _raw: bytes | None = None  # all of the content as it came, until it is decoded
    _content: bytes | None = None
    _text: str | None = None
    _encoding: str | None = None
    _trailers: Headers | None = None
    _elapsed: float | None = None
    _began: float | None = None

    def __init__(
        self,
        status_code: int,
        *,
        headers: HeadersInit | None = None,
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
        self.default_encoding = default_encoding
        self.stream = stream
        self.is_closed = stream is None
        self.is_stream_consumed = stream is None
        self._headers: Headers | Fields = () if headers is None else Headers(headers)  # fields: names in lower case
        self._request = request
        self._coding_limits = coding_limits
        if stream is None:
            self._raw = b""
            if content is not None or text is not None or html is not None or json is not None:
                self._make(content, text, html, json)

    def _make(self, content: bytes | str | None, text: str | None, html: str | None, json: object) -> None:
        """The content that whoever makes a response gives it."""
        kind = ""
        if text is not None:
            kind, data = "text/plain; charset=utf-8", text.encode()
        elif html is not None:
            kind, data = "text/html; charset=utf-8", html.encode()
        elif json is not None:
            dumped = jsonlib.dumps(json, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
            kind, data = "application/json", dumped.encode()
        elif isinstance(content, str | bytes):
            data = content.encode() if isinstance(content, str) else content
        else:
            raise TypeError(f"content is of type {type(content).__name__}: give bytes or text, or pieces as stream=")
        if kind and "content-type" not in self.headers:
            self.headers["content-type"] = kind
        if "content-length" not in self.headers and "transfer-encoding" not in self.headers:
            self.headers["content-length"] = str(len(data))
        self._raw = data
        self.num_bytes_downloaded = len(data)

    # The head

    @property
    def headers(self) -> Headers:
        """The header fields."""
        if isinstance(self._headers, tuple):  # asked in this way round, which costs less where it is one
            self._headers = Headers(self._headers)
        return self._headers

    @property
    def trailers(self) -> Headers:
        """The fields that came after its content."""
        if self._trailers is None:
            self._trailers = Headers()
        return self._trailers

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
        """From the sending of the request to the end of the response. Raises RuntimeError before that, or without either."""
        if self._elapsed is None:
            raise RuntimeError("`elapsed` is known once the response of a client has been read or closed")
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
        """Itself where the status is 2xx. Raises HTTPStatusError for any other, and RuntimeError without a request."""
        request = self.request
        if self.is_success:
            return self
        kind = {1: "Informational response", 3: "Redirect response", 4: "Client error", 5: "Server error"}
        what = kind.get(self.status_code // 100, "Invalid status code")
        words = f"{what} '{self.status_code} {self.reason_phrase}' for url '{request.url.bare()}'"
        if self.has_redirect_location:
            words += f"\nRedirect location: '{self.headers['location']}'"
        raise HTTPStatusError(words, request, self)

    def __getstate__(self) -> dict[str, object]:
        gone = {"stream": None, "is_closed": True, "_began": None}
        return {**self.__dict__, **gone, "extensions": only_plain(self.extensions)}

    def __repr__(self) -> str:
        return f"<Response [{self.status_code} {self.reason_phrase}]>"

    # The content, once it is here

    @property
    def content(self) -> bytes:
        """All of the content, its codings undone. Raises ResponseNotRead before `read`, and DecodingError."""
        if self._content is None:
            if self._raw is None:
                if self.is_stream_consumed:
                    raise ResponseNotRead("the content was iterated over, and so is not kept: `read()` keeps it")
                if self.is_closed:
                    raise ResponseNotRead("the response was closed before its content was read: call `read()` before")
                raise ResponseNotRead("the content is still to come: call `read()`, or iterate over it")
            decoder = self._decoder()
            content = self._raw if decoder is None else b"".join(undo(decoder, self._raw))
            if decoder is not None:
                decoder.end()
            self._content, self._raw = content, None
        return self._content

    @property
    def text(self) -> str:
        """The content as text; what its encoding does not know is replaced."""
        if self._text is None:
            self._text = self.content.decode(self.encoding or "utf-8", "replace")
        return self._text

    def json(self, **options: Any) -> Any:  # both are those of json.loads
        """The content as JSON says it; `options` go to json.loads. Raises ValueError where it is no JSON."""
        return jsonlib.loads(self.content, **options)

    @property
    def charset_encoding(self) -> str | None:
        """What content-type says, if it does."""
        for part in self.headers.get("content-type", "").split(";")[1:]:
            name, _, value = part.strip().partition("=")
            if name.strip().lower() == "charset":
                return value.strip().strip("\"'").lower() or None
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

    @property
    def _is_here(self) -> bool:
        """Whether there is nothing to wait for."""
        return self._content is not None or self._raw is not None

    def _decoder(self) -> Decoder | None:
        """What undoes its codings and holds its limits, if it has any."""
        total = self._coding_limits.total
        if isinstance(self._headers, tuple):
            found = [value for name, value in self._headers if name == b"content-encoding"]
            codings = b", ".join(found).decode("latin-1") if found else ""
        else:
            codings = self._headers.get("content-encoding", "")
        if not codings and total is None:
            return None
        decoder = decoder_for(codings, self._coding_limits)
        return decoder if decoder.codings or total is not None else None

    def _text_decoder(self) -> codecs.IncrementalDecoder:
        return codecs.getincrementaldecoder(self.encoding or "utf-8")("replace")

    # The content as it comes

    def read(self) -> bytes:
        """All of the content. Raises what failed the request, and DecodingError."""
        if not self._is_here:
            self._content = b"".join(self.iter_bytes())
        return self.content

    def iter_raw(self, chunk_size: int | None = None) -> Iterator[bytes]:
        """The content as it came, in pieces of `chunk_size` bytes, or as they came."""
        cutter = Cutter(chunk_size, b"")
        for piece in self._pieces():
            for part in cutter.feed(piece):
                yield part
        for part in cutter.flush():
            yield part

    def iter_bytes(self, chunk_size: int | None = None) -> Iterator[bytes]:
        """The content, its codings undone, in pieces of `chunk_size` bytes, or as they came."""
        cutter = Cutter(chunk_size, b"")
        if self._is_here:
            for part in cutter.feed(self.content):
                yield part
        else:
            try:
                decoder = self._decoder()
                for piece in self._pieces():
                    for decoded in undo(decoder, piece):
                        for part in cutter.feed(decoded):
                            yield part
                if decoder is not None:
                    decoder.end()
            except DecodingError as error:
                error.request = self._request
                self.close()
                raise
        for part in cutter.flush():
            yield part

    def iter_text(self, chunk_size: int | None = None) -> Iterator[str]:
        """The content as text, in pieces of `chunk_size` characters, or as they came."""
        cutter = Cutter(chunk_size, "")
        decoder = self._text_decoder()
        for piece in self.iter_bytes():
            for part in cutter.feed(decoder.decode(piece)):
                yield part
        for part in [*cutter.feed(decoder.decode(b"", True)), *cutter.flush()]:
            yield part

    def iter_lines(self) -> Iterator[str]:
        """The content line by line, without their ends."""
        lines = Lines()
        for piece in self.iter_text():
            for line in lines.feed(piece):
                yield line
        for line in lines.flush():
            yield line

    def _pieces(self) -> Iterator[bytes]:
        """The pieces of the stream, which is closed when they end."""
        stream = self._begin_reading()
        if not isinstance(stream, Iterable):
            raise RuntimeError("this response belongs to an AsyncClient: use `aread` or an `aiter_…`")
        self.is_stream_consumed = True
        try:
            for piece in stream:
                self.num_bytes_downloaded += len(piece)
                yield piece
        except GeneratorExit:  # left in the middle: whoever has the response closes it
            raise
        except BaseException:
            self.close()
            raise
        self.close()

    async def aread(self) -> bytes:
        """As `read`."""
        if not self._is_here:
            self._content = b"".join([piece async for piece in self.aiter_bytes()])
        return self.content

    async def aiter_raw(self, chunk_size: int | None = None) -> AsyncIterator[bytes]:
        """As `iter_raw`."""
        cutter = Cutter(chunk_size, b"")
        async for piece in self._apieces():
            for part in cutter.feed(piece):
                yield part
        for part in cutter.flush():
            yield part

    async def aiter_bytes(self, chunk_size: int | None = None) -> AsyncIterator[bytes]:
        """As `iter_bytes`."""
        cutter = Cutter(chunk_size, b"")
        if self._is_here:
            for part in cutter.feed(self.content):
                yield part
        else:
            try:
                decoder = self._decoder()
                async for piece in self._apieces():
                    for decoded in undo(decoder, piece):
                        for part in cutter.feed(decoded):
                            yield part
                if decoder is not None:
                    decoder.end()
            except DecodingError as error:
                error.request = self._request
                await self.aclose()
                raise
        for part in cutter.flush():
            yield part

    async def aiter_text(self, chunk_size: int | None = None) -> AsyncIterator[str]:
        """As `iter_text`."""
        cutter = Cutter(chunk_size, "")
        decoder = self._text_decoder()
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

    async def _apieces(self) -> AsyncIterator[bytes]:
        """As `_pieces`."""
        stream = self._begin_reading()
        if not isinstance(stream, AsyncIterable):
            raise RuntimeError("this response belongs to a Client: use `read` or an `iter_…`")
        self.is_stream_consumed = True
        try:
            async for piece in stream:
                self.num_bytes_downloaded += len(piece)
                yield piece
        except GeneratorExit:
            raise
        except BaseException:
            await self.aclose()
            raise
        await self.aclose()

    def _begin_reading(self) -> SyncStream | AsyncStream | None:
        """The stream, which can be read once."""
        if self.is_stream_consumed:
            raise StreamConsumed("the content has been read already: as a stream it can be read once")
        if self.is_closed:
            raise StreamClosed("the response is closed: what was not read is gone")
        return self.stream

    def close(self) -> None:
        """What has not come is not wanted any more, and its slot is free. A no-op when it is closed."""
        if not self.is_closed and self.stream is not None:
            if isinstance(self.stream, AsyncIterable):
                raise RuntimeError("this response belongs to an AsyncClient: use `aclose`")
            self._finish()
            self.stream.close()

    async def aclose(self) -> None:
        """As `close`. It waits for no peer."""
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


def undo(decoder: Decoder | None, data: bytes) -> Iterator[bytes]:
    """What a piece of content decodes to, step by step."""
    if decoder is None:
        yield data
    else:
        decoder.feed(data)
        while piece := decoder.take():
            yield piece


def only_plain(extensions: Mapping[str, object]) -> dict[str, object]:
    """Of the extensions, what can be pickled for certain."""
    return {name: value for name, value in extensions.items() if isinstance(value, bytes | str | int | float)}


def is_known(encoding: str) -> bool:
    """Whether it is a charset, and Python can decode text with it."""
    try:
        b"a".decode(encoding, "replace")  # not b"": for that no codec is asked
        return codecs.lookup(encoding).name.replace("_", "-") not in NO_CHARSETS
    except (LookupError, ValueError):
        return False
