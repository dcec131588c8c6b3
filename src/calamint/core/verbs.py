"""One set of verbs over HTTP/1.1 and HTTP/2.

A verb takes a connection and gives back the next one, the bytes to write, and what happened; the old value is never
changed. `now` is any clock that does not go back, in seconds; `ref` names a request on its connection. What the peer does
never raises; what breaks HTTP on this side raises LocalProtocolError, and then the value is as it was and no byte leaves.
"""

from calamint.core import http1, http2
from calamint.core.errors import LocalProtocolError, UnsupportedProtocol
from calamint.core.events import Event
from calamint.core.exchange import CLOCKS, SETTINGS, Clocks, Exchange, Settings
from calamint.core.http1_state import HTTP1Connection
from calamint.core.http2_state import CLOSED, HTTP2Connection
from calamint.core.snapshot import Snapshot
from calamint.core.streams import find_stream
from calamint.core.url import Origin
from calamint.core.value import INFINITY, Fields

Connection = HTTP1Connection | HTTP2Connection
Step = tuple[Connection, bytes, list[Event]]


def connect(protocol: str, origin: Origin, settings: Settings = SETTINGS, now: float = 0.0) -> tuple[Connection, bytes]:
    """A new connection and what it sends first; `protocol` as ALPN names it: "h2" or "http/1.1" (RFC 7301)."""
    if protocol == "h2":
        return http2.connect(origin, settings, now)
    if protocol == "http/1.1":
        return http1.connect(origin, settings, now)
    raise UnsupportedProtocol(f"the protocol {protocol!r} is not h2 or http/1.1")


def request(
    conn: Connection,
    method: str,
    target: str,
    fields: Fields,
    content: bytes | None,
    now: float,
    end: bool = True,
    deadline: float = INFINITY,
    clocks: Clocks = CLOCKS,
    protocol: str = "",
) -> tuple[Connection, bytes, int]:
    """Sends a request; gives back the next value, the bytes to write, and the request's ref.

    `content`: all of it, or its beginning where `end` is False and `send_data` brings the rest; None for none.
    `deadline`: when it must be over, as a time of the same clock as `now`. Raises AtCapacity where `capacity` is 0, and
    LocalProtocolError for what may not be sent (RFC 9110 §5, §9.1; RFC 9112 §3; RFC 9113 §8.3).

    The method CONNECT, with a host and a port as its target, asks for a tunnel (RFC 9110 §9.3.6), and over HTTP/2 with
    `protocol` for another protocol, with a path as its target (RFC 8441); over HTTP/1.1 the fields `upgrade` and
    `connection: upgrade` do that (RFC 9110 §7.8). `Upgraded` says that it is made; what is given before that waits.
    Content of a request with `expect: 100-continue` waits for 100 (Continue), or `clocks.expect` (RFC 9110 §10.1.1).
    """
    if isinstance(conn, HTTP2Connection):
        return http2.request(conn, method, target, fields, content, now, end, deadline, clocks, protocol)
    if protocol:
        raise LocalProtocolError("HTTP/1.1 has no extended CONNECT: ask for an upgrade (RFC 9110 §7.8)")
    return http1.request(conn, method, target, fields, content, now, end, deadline, clocks)


def send_data(
    conn: Connection, ref: int, data: bytes, now: float, end: bool = False, trailers: Fields = ()
) -> tuple[Connection, bytes]:
    """More of a request's content; `end` or `trailers` end it. What windows and the output do not take yet waits in the value.

    Raises LocalProtocolError where the request is over, its content is ended, or its content-length says otherwise.
    """
    if isinstance(conn, HTTP2Connection):
        return http2.send_data(conn, ref, data, now, end, trailers)
    return http1.send_data(conn, ref, data, now, end, trailers)


def receive(conn: Connection, data: bytes, now: float) -> Step:
    """Takes the bytes that arrived. Never raises for what they say."""
    if isinstance(conn, HTTP2Connection):
        return http2.receive(conn, data, now)
    return http1.receive(conn, data, now)


def consume(conn: Connection, ref: int, size: int, now: float) -> Step:
    """The reader took `size` bytes of content: more may come. A no-op when the request is over."""
    if isinstance(conn, HTTP2Connection):
        return http2.consume(conn, ref, size, now)
    return http1.consume(conn, ref, size, now)


def cancel(conn: Connection, ref: int, now: float) -> Step:
    """The caller wants no more of it: RST_STREAM on HTTP/2, the end of the connection on HTTP/1.1. A no-op when it is over."""
    if isinstance(conn, HTTP2Connection):
        return http2.cancel(conn, ref, now)
    return http1.cancel(conn, ref, now)


def flush(conn: Connection, now: float, unsent: int = 0) -> Step:
    """All that was handed out, but for the last `unsent` bytes, is in the kernel: what is next?

    To be called after each write, and at once also where the kernel took nothing: else what waits there counts as sent.
    """
    if isinstance(conn, HTTP2Connection):
        return http2.flush(conn, now, unsent)
    return http1.flush(conn, now, unsent)


def ping(conn: Connection, now: float) -> tuple[Connection, bytes]:
    """A PING, unless one is in flight; `PingAcknowledged` tells the seconds until its answer (RFC 9113 §6.7).

    A peer that does not answer within 10 s is gone: the connection ends. Raises LocalProtocolError over HTTP/1.1.
    """
    if isinstance(conn, HTTP2Connection):
        return http2.ping(conn, now)
    raise LocalProtocolError("HTTP/1.1 has no PING")


def put_settings(conn: Connection, settings: Settings, now: float) -> tuple[Connection, bytes]:
    """New settings of ours for a connection that is open: windows, table and frame sizes, limits (RFC 9113 §6.5).

    Until the peer acknowledges them the laxer of old and new is enforced. Whether it may push is said once, at the
    beginning: raises LocalProtocolError for a change of that, and over HTTP/1.1, which has no settings.
    """
    if isinstance(conn, HTTP2Connection):
        return http2.put_settings(conn, settings, now)
    raise LocalProtocolError("HTTP/1.1 has no SETTINGS")


def grow_window(conn: Connection, ref: int, size: int, now: float) -> tuple[Connection, bytes]:
    """This response may come `size` bytes ahead of its reader from now on, if it might not before (RFC 9113 §6.9).

    A no-op when the request is over, and over HTTP/1.1. Raises LocalProtocolError for more than 2^31-1.
    """
    if isinstance(conn, HTTP2Connection):
        return http2.grow_window(conn, ref, size, now)
    return conn, b""


def prioritize(conn: Connection, ref: int, urgency: int, incremental: bool, now: float) -> tuple[Connection, bytes]:
    """Asks the peer for another order (RFC 9218 §7.1): `urgency` from 0, first, to 7; `incremental` where pieces are useful.

    A no-op when the request is over, and over HTTP/1.1. Raises LocalProtocolError for another urgency.
    """
    if not 0 <= urgency <= 7:
        raise LocalProtocolError(f"urgency={urgency}: allowed are 0 to 7 (RFC 9218 §4.1)")
    if isinstance(conn, HTTP2Connection):
        return http2.prioritize(conn, ref, urgency, incremental, now)
    return conn, b""


def handle_timeout(conn: Connection, now: float) -> Step:
    """Ends the requests whose clock has run out; to be called at `next_timeout`, and harmless earlier."""
    if isinstance(conn, HTTP2Connection):
        return http2.handle_timeout(conn, now)
    return http1.handle_timeout(conn, now)


def next_timeout(conn: Connection) -> float:
    """When `handle_timeout` has to be called, as a time of the same clock as `now`; infinity for never."""
    return conn.wake


def close(conn: Connection, now: float) -> Step:
    """We end it: GOAWAY on HTTP/2; whatever runs fails. A no-op when it is closed."""
    if isinstance(conn, HTTP2Connection):
        return http2.close(conn, now)
    return http1.close(conn, now)


def closed(
    conn: Connection, now: float, unsent: int = 0, clean: bool = False, reason: str = ""
) -> tuple[Connection, list[Event]]:
    """The transport ended; the last `unsent` bytes of the output never left.

    `clean` after an orderly end, `reason` in words after another. Requests whose head never left fail with
    WriteError, unprocessed (RFC 9113 §8.7), the others with ReadError; an HTTP/1.1 response that is read until the
    connection closes is complete if that was orderly.
    """
    if isinstance(conn, HTTP2Connection):
        return http2.closed(conn, now, unsent, clean, reason)
    return http1.closed(conn, now, unsent, clean, reason)


def capacity(conn: Connection) -> int:
    """How many more requests may be sent now."""
    if isinstance(conn, HTTP2Connection):
        return http2.capacity(conn)
    return http1.capacity(conn)


def is_draining(conn: Connection) -> bool:
    """Whether it will never take a new request again: it is closed or about to be, or its stream ids are used up."""
    if isinstance(conn, HTTP2Connection):
        return http2.is_draining(conn)
    return http1.is_draining(conn)


def wants_read(conn: Connection) -> bool:
    """Whether a driver should read: not while content of an HTTP/1.1 response waits unread up to the stream window."""
    return isinstance(conn, HTTP2Connection) or http1.wants_read(conn)


def wants_shutdown(conn: Connection) -> bool:
    """Whether a driver should shut down its side of the transport once all is written: our end of an HTTP/1.1 tunnel."""
    return not isinstance(conn, HTTP2Connection) and http1.wants_shutdown(conn)


def protocol(conn: Connection) -> str:
    """As ALPN names it: "h2" or "http/1.1"."""
    return "h2" if isinstance(conn, HTTP2Connection) else "http/1.1"


def is_closed(conn: Connection) -> bool:
    """Whether nothing more can be sent or received."""
    return conn.status == CLOSED


def in_flight(conn: Connection) -> int:
    """How many requests have not ended."""
    return conn.live if isinstance(conn, HTTP2Connection) else len(conn.requests)


def is_live(conn: Connection, ref: int) -> bool:
    """Whether this request has not ended."""
    return find(conn, ref) is not None


def queued(conn: Connection, ref: int) -> int:
    """Bytes of this request's content that wait in the value; 0 when it is over."""
    exchange = find(conn, ref)
    return 0 if exchange is None or exchange.upload is None else exchange.upload.queued


def find(conn: Connection, ref: int) -> Exchange | None:
    """This request's record, or None when it is over."""
    if isinstance(conn, HTTP2Connection):
        return find_stream(conn.streams, ref)
    return http1.find(conn, ref)


def snapshot(conn: Connection, now: float) -> Snapshot:
    """The connection at this moment: requests, slots, windows, silence. `describe()` puts it into words."""
    if isinstance(conn, HTTP2Connection):
        return http2.snapshot(conn, now)
    return http1.snapshot(conn, now)
