"""What goes wrong: the exceptions that callers catch, the failures that events carry, the error codes of HTTP/2.

What the peer does never raises in the core: it becomes a `Failure`, a value inside an event, and a driver makes a fresh
exception of it with `to_exception`. What the caller does wrong raises `LocalProtocolError` and changes nothing.
"""

from typing import ClassVar, Final, Protocol, final

from calamint.core.value import Fields, Value

# RFC 9113 §7
NO_ERROR: Final = 0x0
PROTOCOL_ERROR: Final = 0x1
INTERNAL_ERROR: Final = 0x2
FLOW_CONTROL_ERROR: Final = 0x3
SETTINGS_TIMEOUT: Final = 0x4
STREAM_CLOSED: Final = 0x5
FRAME_SIZE_ERROR: Final = 0x6
REFUSED_STREAM: Final = 0x7
CANCEL: Final = 0x8
COMPRESSION_ERROR: Final = 0x9
CONNECT_ERROR: Final = 0xA
ENHANCE_YOUR_CALM: Final = 0xB
INADEQUATE_SECURITY: Final = 0xC
HTTP_1_1_REQUIRED: Final = 0xD

ERROR_NAMES: Final = (
    "NO_ERROR",
    "PROTOCOL_ERROR",
    "INTERNAL_ERROR",
    "FLOW_CONTROL_ERROR",
    "SETTINGS_TIMEOUT",
    "STREAM_CLOSED",
    "FRAME_SIZE_ERROR",
    "REFUSED_STREAM",
    "CANCEL",
    "COMPRESSION_ERROR",
    "CONNECT_ERROR",
    "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY",
    "HTTP_1_1_REQUIRED",
)


def error_name(code: int) -> str:
    """The name of an HTTP/2 error code; unknown codes have no special meaning and are shown in hex (RFC 9113 §7)."""
    return ERROR_NAMES[code] if 0 <= code < len(ERROR_NAMES) else f"error code {code:#x}"


class Asked(Protocol):
    """A client's request, as an error shows it."""

    @property
    def method(self) -> str: ...
    @property
    def url(self) -> object: ...  # its text is the URL


class Described(Protocol):
    """A snapshot, of a connection or of a pool."""

    def describe(self) -> str: ...


class CalamintError(Exception):
    """Everything that calamint raises on purpose."""


class LocalProtocolError(CalamintError):
    """Your call breaks HTTP: nothing was sent and your value is as it was."""


class AtCapacity(LocalProtocolError):
    """The connection has no free slot for another request now; `capacity` said so."""


class InvalidURL(CalamintError):
    """The text is not a URL that can be requested."""


class UnsupportedProtocol(CalamintError):
    """The URL's scheme, or what the peer negotiated, is not one that calamint speaks."""


class StreamError(CalamintError):
    """A response was used in a way that its state does not allow."""


class StreamClosed(StreamError):
    """The request was cancelled, or its connection closed, by this side."""


class StreamConsumed(StreamError):
    """The content has been read, or sent, and is not kept: it cannot be had a second time."""


class ResponseNotRead(StreamError):
    """The content of a streamed response was asked for before it was read."""


class TooManyRedirects(CalamintError):
    """One redirect led to another, more often than is followed. `request`: a client's that was to be next, or None."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.request: Asked | None = None

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), self.args, {"request": self.request}


class DecodingError(CalamintError):
    """The content is not what its content-encoding says, or comes to more than is allowed. `request`: a client's, or None."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.request: Asked | None = None

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), self.args, {"request": self.request}


class TransportError(CalamintError):
    """A request failed on its way: the one to catch and retry.

    `unprocessed`: the peer provably never acted on it (RFC 9113 §8.7). `ref`: the request on its connection, or None.
    `attempts`: how often it was tried. `code`: the HTTP/2 error code, or None. `last_stream_id`: what a GOAWAY said, or -1.
    `snapshot`: the connection then, or None. `request`: a client's, or None.
    """

    def __init__(
        self, message: str, unprocessed: bool = False, ref: int | None = None, code: int | None = None
    ) -> None:
        super().__init__(message, unprocessed, ref, code)
        self.message: str = message
        self.unprocessed: bool = unprocessed
        self.ref: int | None = ref
        self.code: int | None = code
        self.attempts: int = 1
        self.last_stream_id: int = -1
        self.snapshot: Described | None = None
        self.request: Asked | None = None

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[object, ...]:
        state: dict[str, object] = {"attempts": self.attempts, "last_stream_id": self.last_stream_id}
        state |= {"snapshot": self.snapshot, "request": self.request}
        return type(self), (self.message, self.unprocessed, self.ref, self.code), state


class TimeoutException(TransportError):
    """One of the request's clocks ran out."""


class ConnectTimeout(TimeoutException):
    """DNS, TCP, TLS and the proxy together took longer than `connect` seconds."""


class ReadTimeout(TimeoutException):
    """The peer was silent for `head` or `idle` seconds, or the reader for `reader` seconds."""


class WriteTimeout(TimeoutException):
    """No content left for `write` seconds although there was some to send."""


class PoolTimeout(TimeoutException):
    """No slot became free for `pool` seconds."""


class DeadlineExceeded(TimeoutException):
    """The request took longer than `total` seconds in all."""


class NetworkError(TransportError):
    """The transport failed."""


class ConnectError(NetworkError):
    """The connection could not be made."""


class ReadError(NetworkError):
    """The connection ended before the response did."""


class WriteError(NetworkError):
    """The connection ended before the request had left."""


class CloseError(NetworkError):
    """The connection could not be closed in an orderly way."""


class RemoteProtocolError(TransportError):
    """The peer broke HTTP."""


class StreamReset(RemoteProtocolError):
    """The peer reset the stream (RST_STREAM); `code` says why."""


class ConnectionTerminated(RemoteProtocolError):
    """The peer ended the connection (GOAWAY): `code` says why; it did not act on requests above `last_stream_id`."""


class ProxyError(TransportError):
    """The proxy refused or broke the tunnel. `status` and `fields`: of its response, None and nothing where none came."""

    def __init__(
        self, message: str, unprocessed: bool = False, ref: int | None = None, code: int | None = None
    ) -> None:
        super().__init__(message, unprocessed, ref, code)
        self.status: int | None = None
        self.fields: Fields = ()

    def __reduce__(self) -> tuple[object, ...]:
        state: dict[str, object] = {"attempts": self.attempts, "last_stream_id": self.last_stream_id}
        state |= {"snapshot": self.snapshot, "request": self.request, "status": self.status, "fields": self.fields}
        return type(self), (self.message, self.unprocessed, self.ref, self.code), state


EXCEPTIONS: Final[dict[str, type[TransportError]]] = {
    "ConnectTimeout": ConnectTimeout,
    "ReadTimeout": ReadTimeout,
    "WriteTimeout": WriteTimeout,
    "PoolTimeout": PoolTimeout,
    "DeadlineExceeded": DeadlineExceeded,
    "ConnectError": ConnectError,
    "ReadError": ReadError,
    "WriteError": WriteError,
    "CloseError": CloseError,
    "RemoteProtocolError": RemoteProtocolError,
    "StreamReset": StreamReset,
    "ConnectionTerminated": ConnectionTerminated,
    "ProxyError": ProxyError,
}


@final
class Failure(Value):
    """Why a request or a connection failed: a value, so that it can be kept, compared, pickled and replayed.

    `kind` is the name of the exception that a driver raises for it, `code` the HTTP/2 error code or -1, `ref` the
    request or 0 for a connection, `unprocessed` whether the peer provably never acted on it (RFC 9113 §8.7),
    `last_stream_id` what a GOAWAY said, or -1; `clock` the name of the one that ran out, if one did; `status` and `fields`
    those of the response with which a proxy refused a tunnel, 0 and nothing in all other cases.
    """

    __match_args__: ClassVar[tuple[str, ...]] = tuple(
        "kind code message ref unprocessed last_stream_id clock status fields".split()
    )
    __slots__ = __match_args__

    def __init__(
        self,
        kind: str,
        code: int,
        message: str,
        ref: int = 0,
        unprocessed: bool = False,
        last_stream_id: int = -1,
        clock: str = "",
        status: int = 0,
        fields: Fields = (),
    ) -> None:
        self.kind: Final = kind
        self.code: Final = code
        self.message: Final = message
        self.ref: Final = ref
        self.unprocessed: Final = unprocessed
        self.last_stream_id: Final = last_stream_id
        self.clock: Final = clock
        self.status: Final = status
        self.fields: Final = fields


def to_exception(failure: Failure) -> CalamintError:
    """A fresh exception for a failure; `StreamClosed` where this side ended the request itself."""
    if failure.kind == "StreamClosed":
        return StreamClosed(failure.message)
    if failure.kind == "LocalProtocolError":
        return LocalProtocolError(failure.message)
    code = None if failure.code < 0 else failure.code
    error = EXCEPTIONS[failure.kind](failure.message, failure.unprocessed, failure.ref or None, code)
    error.last_stream_id = failure.last_stream_id
    if isinstance(error, ProxyError):
        error.status = failure.status or None
        error.fields = failure.fields
    return error


class ConnectionFault(Exception):
    """Private to the core: the RFC's connection error (RFC 9113 §5.4.1), caught in one place, never seen outside."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code: int = code
        self.reason: str = reason


class StreamFault(Exception):
    """Private to the core: the RFC's stream error (RFC 9113 §5.4.2), caught in one place, never seen outside."""

    def __init__(self, ref: int, code: int, reason: str) -> None:
        super().__init__(ref, code, reason)
        self.ref: int = ref
        self.code: int = code
        self.reason: str = reason
