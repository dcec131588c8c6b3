"""Floods: what a hostile server may send without end, as data, for the tests and for `benchmarks.floods`."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from calamint import core
from calamint.core.events import ConnectionClosed, DataReceived
from tests.core import http2_peer as wire

ORIGIN: Final = core.Origin("http", "localhost", 8080)
STARTED: Final = wire.settings() + wire.settings_ack()
HEAD: Final = wire.headers_frame(1, b"\x88")
STREAMS: Final = 20  # requests of the floods that are about closed streams


class Flood(NamedTuple):
    """`before` comes once, then `unit` again and again. `allowed`: units that are taken, None where there is no end, as
    there is progress; `words`: what is said then. `requests`: how many GETs are waiting, of which `cancelled` are gone."""

    name: str
    protocol: str
    before: bytes
    unit: bytes
    allowed: int | None
    words: str = ""
    requests: int = 1
    cancelled: int = 0
    settings: core.Settings = core.Settings()


CALM: Final = "bring nothing forward"
BLOCK: Final = "allowed are 65536 in 64"
SECTION: Final = "field section above our limits"
CHUNK: Final = "chunk-size line above our limit"
UNENDED: Final = STARTED + wire.headers_frame(1, b"", done=False)
TABLE: Final = b"\x40\x01x\x7f\xa1\x1e" + b"v" * 4000  # an entry of 4033 bytes: one octet refers to it
BOMB: Final = wire.headers_frame(1, b"\x88" + TABLE + b"\xbe" * 12_000)  # 48 MB of fields
PUSH: Final = wire.push_promise(1, 2, b"\x82\x86\x84")
TWO: Final = wire.settings((wire.MAX_CONCURRENT_STREAMS, 100), (wire.HEADER_TABLE_SIZE, 0))
RISING: Final = wire.settings(*[(wire.INITIAL_WINDOW_SIZE, number % 2) for number in range(2730)])
OK: Final = b"HTTP/1.1 200 OK\r\n"
CHUNKED: Final = OK + b"Transfer-Encoding: chunked\r\n\r\n"
# Of the budget of 1000 the first SETTINGS takes one, a final head gives all back, and a stream that we reset gives four.
ALL: Final = 1000
REST: Final = 999
GONE: Final = REST + 4 * STREAMS

# fmt: off
HTTP2: Final = (
    Flood("CONTINUATION of 1 byte", "h2", UNENDED, wire.continuation(1, b"\x88", done=False), 63, BLOCK),
    Flood("CONTINUATION, empty", "h2", UNENDED, wire.continuation(1, b"", done=False), 63, BLOCK),
    Flood("CONTINUATION of 16 KiB", "h2", UNENDED, wire.continuation(1, bytes(16_384), done=False), 4, BLOCK),
    Flood("PUSH_PROMISE, push off", "h2", STARTED, PUSH, 0, "although push is off"),
    Flood("PUSH_PROMISE, twice the same", "h2", STARTED, PUSH, 1, "promises stream 2", settings=core.Settings(max_pushes=1)),
    Flood("PING", "h2", STARTED, wire.ping(), REST, CALM),
    Flood("PING with ACK", "h2", STARTED, wire.ping(ack=True), REST, CALM),
    Flood("SETTINGS", "h2", STARTED, TWO, REST, CALM),
    Flood("SETTINGS, empty", "h2", STARTED, wire.settings(), REST, CALM),
    Flood("SETTINGS with ACK", "h2", STARTED, wire.settings_ack(), REST, CALM),
    Flood("SETTINGS that move windows", "h2", STARTED, RISING, REST, CALM, requests=100),
    Flood("DATA, empty", "h2", STARTED + HEAD, wire.data_frame(1), ALL, CALM),
    Flood("DATA of padding only", "h2", STARTED + HEAD, wire.data_frame(1, b"", False, 255), ALL, CALM),
    Flood("DATA of 1 byte", "h2", STARTED + HEAD, wire.data_frame(1, b"x"), None),
    Flood("DATA of 1 byte, padded", "h2", STARTED + HEAD, wire.data_frame(1, b"x", False, 255), None),
    Flood("DATA on a stream that we reset", "h2", STARTED, wire.data_frame(1, b"x" * 100), None, "", STREAMS, STREAMS),
    Flood("HPACK bomb", "h2", STARTED, BOMB, REST + 4 + 1, CALM),  # the first resets its stream
    Flood("HEADERS on closed streams", "h2", STARTED, HEAD, GONE, CALM, STREAMS, STREAMS),
    Flood("trailers on closed streams", "h2", STARTED, wire.headers_frame(1, b"\x0f\0\0", True), GONE, CALM, STREAMS, STREAMS),
    Flood("WINDOW_UPDATE of 1", "h2", STARTED, wire.window_update(0, 1), REST, CALM),
    Flood("WINDOW_UPDATE of 1 on a stream", "h2", STARTED, wire.window_update(1, 1), REST, CALM),
    Flood("PRIORITY", "h2", STARTED, wire.priority(1), REST, CALM),
    Flood("RST_STREAM on closed streams", "h2", STARTED, wire.rst_stream(1, 8), GONE, CALM, STREAMS, STREAMS),
    Flood("GOAWAY", "h2", STARTED, wire.goaway(2**31 - 1), REST, CALM),
    Flood("unknown frames", "h2", STARTED, wire.frame(0x55, 0, 1, b"hello"), REST, CALM),
    Flood("103 over HTTP/2", "h2", STARTED, wire.headers_frame(1, b"\x48\x03103"), REST, CALM),
)
HTTP1: Final = (
    Flood("a status line", "http/1.1", b"HTTP/1.1 200 ", b"a", 8180, "status line above our limit"),
    Flood("a header line", "http/1.1", OK, b"a", 65_537, SECTION),
    Flood("a header section", "http/1.1", OK, b"a:b\r\n", 13_107, SECTION),
    Flood("a folded line", "http/1.1", OK + b"a:b\r\n", b" c\r\n", 16_383, SECTION),
    Flood("103 over HTTP/1.1", "http/1.1", b"", b"HTTP/1.1 103\r\n\r\n", 16, "allowed are 16"),
    Flood("digits of a chunk size", "http/1.1", CHUNKED, b"0", 257, CHUNK),
    Flood("chunk extensions", "http/1.1", CHUNKED + b"1", b";a", 128, CHUNK),
    Flood("a trailer line", "http/1.1", CHUNKED + b"0\r\n", b"a", 65_537, SECTION),
    Flood("a trailer section", "http/1.1", CHUNKED + b"0\r\n", b"a:b\r\n", 13_107, SECTION),
    Flood("chunks of 1 byte", "http/1.1", CHUNKED, b"1\r\nx\r\n", None),
)
# fmt: on
FLOODS: Final = (*HTTP2, *HTTP1)


def begin(flood: Flood) -> core.Connection:
    """The connection right before the first unit."""
    conn, _ = core.connect(flood.protocol, ORIGIN, flood.settings, 0.0)
    for _ in range(flood.requests):
        conn, _, _ = core.request(conn, "GET", "/", (), None, 0.0)
    conn = feed(conn, [flood.before])[0]
    for number in range(flood.cancelled):
        conn, _, _ = core.cancel(conn, 2 * number + 1, 0.0)
    return conn


def feed(conn: core.Connection, pieces: Sequence[bytes]) -> tuple[core.Connection, int, str]:
    """These pieces arrive at one time, read at once: the connection, the bytes of the pieces that were taken whole, and
    why it ended then, or ""."""
    taken = 0
    for piece in pieces:
        conn, _, events = core.receive(conn, piece, 0.0)
        for event in events:
            if isinstance(event, ConnectionClosed):
                return conn, taken, "" if event.failure is None else event.failure.message
            if isinstance(event, DataReceived):
                conn, _, _ = core.consume(conn, event.ref, len(event.data), 0.0)
        taken += len(piece)
    return conn, taken, ""
