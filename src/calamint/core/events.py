"""Events: what happened, in the past tense, one small value each.

Per request, in this order: any number of `InterimReceived`, one `ResponseReceived`, perhaps `Upgraded`, any number of
`DataReceived`, at most one `TrailersReceived`, and exactly one `ResponseEnded` or `RequestFailed`, after which nothing follows.
"""

from typing import ClassVar, Final, final

from calamint.core.errors import Failure
from calamint.core.value import Fields, Value


@final
class InterimReceived(Value):
    """An interim response (1xx, RFC 9110 §15.2): the final one is still to come."""

    __slots__ = ("ref", "status", "fields")
    __match_args__: ClassVar[tuple[str, ...]] = ("ref", "status", "fields")

    def __init__(self, ref: int, status: int, fields: Fields) -> None:
        self.ref: Final = ref
        self.status: Final = status
        self.fields: Final = fields


@final
class ResponseReceived(Value):
    """The head of the final response: status code, header fields, and on HTTP/1.1 the reason phrase."""

    __slots__ = ("ref", "status", "fields", "reason")
    __match_args__: ClassVar[tuple[str, ...]] = ("ref", "status", "fields", "reason")

    def __init__(self, ref: int, status: int, fields: Fields, reason: bytes = b"") -> None:
        self.ref: Final = ref
        self.status: Final = status
        self.fields: Final = fields
        self.reason: Final = reason


@final
class DataReceived(Value):
    """A piece of the response's content, as it arrived; give its length back with `consume` once it is read."""

    __slots__ = ("ref", "data")
    __match_args__: ClassVar[tuple[str, ...]] = ("ref", "data")

    def __init__(self, ref: int, data: bytes) -> None:
        self.ref: Final = ref
        self.data: Final = data


@final
class TrailersReceived(Value):
    """The trailer fields, after the content (RFC 9110 §6.5)."""

    __slots__ = ("ref", "fields")
    __match_args__: ClassVar[tuple[str, ...]] = ("ref", "fields")

    def __init__(self, ref: int, fields: Fields) -> None:
        self.ref: Final = ref
        self.fields: Final = fields


@final
class ResponseEnded(Value):
    """The response is complete: the request is over."""

    __slots__ = ("ref",)
    __match_args__: ClassVar[tuple[str, ...]] = ("ref",)

    def __init__(self, ref: int) -> None:
        self.ref: Final = ref


@final
class RequestFailed(Value):
    """The request is over without a complete response."""

    __slots__ = ("ref", "failure")
    __match_args__: ClassVar[tuple[str, ...]] = ("ref", "failure")

    def __init__(self, ref: int, failure: Failure) -> None:
        self.ref: Final = ref
        self.failure: Final = failure


@final
class Upgraded(Value):
    """The response has made a tunnel of the exchange: a 2xx to CONNECT (RFC 9110 §9.3.6), or 101 (§7.8).

    From here on `DataReceived` is what comes through it, and what `send_data` is given goes in as it is.
    """

    __slots__ = ("ref",)
    __match_args__: ClassVar[tuple[str, ...]] = ("ref",)

    def __init__(self, ref: int) -> None:
        self.ref: Final = ref


@final
class PushPromised(Value):
    """The peer will answer a request that it made up for us (RFC 9113 §8.4): the answer comes under the ref `promised`."""

    __slots__ = ("ref", "promised", "method", "target", "fields")
    __match_args__: ClassVar[tuple[str, ...]] = ("ref", "promised", "method", "target", "fields")

    def __init__(self, ref: int, promised: int, method: str, target: str, fields: Fields) -> None:
        self.ref: Final = ref
        self.promised: Final = promised
        self.method: Final = method
        self.target: Final = target
        self.fields: Final = fields


@final
class WindowOpened(Value):
    """All content that waited in the value for this request has been handed out: more is welcome."""

    __slots__ = ("ref",)
    __match_args__: ClassVar[tuple[str, ...]] = ("ref",)

    def __init__(self, ref: int) -> None:
        self.ref: Final = ref


@final
class PingAcknowledged(Value):
    """The peer answered our PING `seconds` after it was handed out (RFC 9113 §6.7)."""

    __slots__ = ("payload", "seconds")
    __match_args__: ClassVar[tuple[str, ...]] = ("payload", "seconds")

    def __init__(self, payload: bytes, seconds: float) -> None:
        self.payload: Final = payload
        self.seconds: Final = seconds


@final
class SettingsReceived(Value):
    """The peer's SETTINGS, applied: (identifier, value) pairs in their order (RFC 9113 §6.5)."""

    __slots__ = ("settings",)
    __match_args__: ClassVar[tuple[str, ...]] = ("settings",)

    def __init__(self, settings: tuple[tuple[int, int], ...]) -> None:
        self.settings: Final = settings


@final
class GoAwayReceived(Value):
    """The peer takes no new requests here and may have acted on those up to `last_stream_id` (RFC 9113 §6.8)."""

    __slots__ = ("last_stream_id", "code", "debug")
    __match_args__: ClassVar[tuple[str, ...]] = ("last_stream_id", "code", "debug")

    def __init__(self, last_stream_id: int, code: int, debug: bytes) -> None:
        self.last_stream_id: Final = last_stream_id
        self.code: Final = code
        self.debug: Final = debug


@final
class ConnectionClosed(Value):
    """Nothing more can be sent or received; `failure` says why, None after an orderly end."""

    __slots__ = ("failure",)
    __match_args__: ClassVar[tuple[str, ...]] = ("failure",)

    def __init__(self, failure: Failure | None) -> None:
        self.failure: Final = failure


Event = (
    InterimReceived
    | ResponseReceived
    | DataReceived
    | TrailersReceived
    | ResponseEnded
    | RequestFailed
    | Upgraded
    | PushPromised
    | WindowOpened
    | PingAcknowledged
    | SettingsReceived
    | GoAwayReceived
    | ConnectionClosed
)


def join_data(happened: list[Event]) -> list[Event]:
    """The same events, but that pieces of one content which follow each other are one: whoever reads pays for each."""
    joined: list[Event] = []
    pieces: list[bytes] = []
    ref = 0
    for event in happened:
        if pieces and not (isinstance(event, DataReceived) and event.ref == ref):
            joined.append(DataReceived(ref, b"".join(pieces)))
            pieces = []
        if isinstance(event, DataReceived):
            ref = event.ref
            pieces.append(event.data)
        else:
            joined.append(event)
    if pieces:
        joined.append(DataReceived(ref, b"".join(pieces)))
    return joined
