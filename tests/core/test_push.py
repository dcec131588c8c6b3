"""Server push, by option of the bare core (RFC 9113 §8.4): what is promised, refused, malformed, and what it may cost."""

from typing import Final

import pytest

from calamint import core
from calamint.core import http2
from calamint.core.errors import LocalProtocolError
from calamint.core.events import (
    ConnectionClosed,
    DataReceived,
    InterimReceived,
    PushPromised,
    RequestFailed,
    ResponseEnded,
    ResponseReceived,
)
from calamint.core.exchange import CLOCKS, Settings
from calamint.core.http2_state import OPEN, HTTP2Connection
from calamint.core.value import Fields
from tests.core import http2_peer as wire
from tests.core.test_http2_state import get, slots, start

OK: Final = b"\x88"
ASKED: Final[Fields] = ((b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"a.test"), (b":path", b"/style"))
PROMISE: Final = wire.literals(*ASKED, (b"accept", b"text/css"))
PROMISED: Final = PushPromised(1, 2, "GET", "/style", ((b"accept", b"text/css"),))


def pushed(limit: int = 2) -> HTTP2Connection:
    """A connection that takes pushes, with requests 1 and 3."""
    return get(start(settings=Settings(max_pushes=limit, keepalive=None))[0], 0.0, 2)


def ended(conn: HTTP2Connection, data: bytes) -> tuple[int, str]:
    _, out, events = http2.receive(conn, data, 0.0)
    last = events[-1]
    assert isinstance(last, ConnectionClosed) and last.failure is not None
    return last.failure.code, last.failure.message


@pytest.mark.rfc("9113-8.4.2-3")
def test_a_push_and_its_response() -> None:
    conn, out, events = http2.receive(pushed(), wire.push_promise(1, 2, PROMISE), 1.0)
    assert (out, events) == (b"", [PROMISED])
    assert (core.capacity(conn), core.in_flight(conn)) == (98, 3), "it takes no slot of ours"
    assert core.snapshot(conn, 1.0).requests[-1].state == "reserved (remote)"
    interim = wire.headers_frame(2, wire.literal(b":status", b"103"))
    conn, out, events = http2.receive(conn, interim + wire.headers_frame(2, OK) + wire.data_frame(2, b"a{}"), 2.0)
    assert events == [InterimReceived(2, 103, ()), ResponseReceived(2, 200, ()), DataReceived(2, b"a{}")]
    conn, out, _ = http2.consume(conn, 2, 3, 2.0)
    conn, out, events = http2.receive(conn, wire.data_frame(2, end=True), 3.0)
    assert (out, events) == (b"", [ResponseEnded(2)])
    assert (conn.control.pushes, conn.control.last_push, core.in_flight(conn)) == ((), 2, 2)
    conn, out, _ = http2.close(conn, 4.0)
    assert out == wire.goaway(2), "the last stream of theirs that we took"


@pytest.mark.rfc("9113-6.6-1")
def test_a_promise_in_pieces() -> None:
    data = wire.frame(wire.PUSH_PROMISE, 0, 1, b"\0\0\0\2" + PROMISE[:10]) + wire.continuation(1, PROMISE[10:])
    assert http2.receive(pushed(), data, 0.0)[2] == [PROMISED]
    padded = wire.frame(wire.PUSH_PROMISE, wire.END_HEADERS | wire.PADDED, 1, b"\3\0\0\0\2" + PROMISE + bytes(3))
    assert http2.receive(pushed(), padded, 0.0)[2] == [PROMISED]


@pytest.mark.rfc("9113-6.5.2-2", "9113-6.6-3")
def test_push_is_off_unless_it_is_asked_for() -> None:
    """§8.4: with ENABLE_PUSH=0 "MUST treat the receipt of a PUSH_PROMISE frame as a connection error"."""
    assert ended(get(start()[0]), wire.push_promise(1, 2, PROMISE))[0] == wire.PROTOCOL_ERROR


@pytest.mark.parametrize(
    ("frame", "code", "words"),
    [
        (wire.push_promise(0, 2, PROMISE), wire.PROTOCOL_ERROR, "none of ours"),
        (wire.push_promise(2, 4, PROMISE), wire.PROTOCOL_ERROR, "none of ours"),
        (wire.push_promise(5, 2, PROMISE), wire.PROTOCOL_ERROR, "which is idle"),
        (wire.push_promise(1, 0, PROMISE), wire.PROTOCOL_ERROR, "promises stream 0"),
        (wire.push_promise(1, 3, PROMISE), wire.PROTOCOL_ERROR, "promises stream 3"),
        (wire.push_promise(1, 2, PROMISE) * 2, wire.PROTOCOL_ERROR, "promises stream 2"),
        (wire.push_promise(1, 4, PROMISE) + wire.push_promise(1, 2, PROMISE), wire.PROTOCOL_ERROR, "promises stream 2"),
        (wire.frame(wire.PUSH_PROMISE, 4, 1, bytes(3)), wire.FRAME_SIZE_ERROR, "too short"),
        (wire.push_promise(1, 2, b"\xff"), wire.COMPRESSION_ERROR, "ends within"),
        (wire.push_promise(1, 2, PROMISE) + wire.data_frame(2, b"x"), wire.PROTOCOL_ERROR, "reserved"),
        (wire.push_promise(1, 2, PROMISE) + wire.window_update(2, 1), wire.PROTOCOL_ERROR, "reserved"),
        (wire.headers_frame(2, OK), wire.PROTOCOL_ERROR, "which is idle"),
    ],
)
@pytest.mark.rfc("9113-6.6-2", "9113-6.6-4", "9113-6.6-6")
def test_promises_that_end_the_connection(frame: bytes, code: int, words: str) -> None:
    """§5.1, §5.1.1, §6.6."""
    seen, message = ended(pushed(), frame)
    assert (seen, words in message) == (code, True), message


def block(**changes: bytes | None) -> bytes:
    """The promise with these pseudo-fields changed or, for None, left out."""
    fields = [(name, changes.get(name[1:].decode(), value)) for name, value in ASKED]
    return wire.literals(*[(name, value) for name, value in fields if value is not None])


@pytest.mark.parametrize(
    "promise",
    [
        block(method=b"POST"),
        block(method=b"TRACE"),
        block(method=None),
        block(scheme=None),
        block(scheme=b"http"),
        block(authority=None),
        block(authority=b"b.test"),
        block(path=None),
        block(path=b""),
        block(path=b"style"),
        block(path=b"/\x7f"),
        block() + wire.literal(b":path", b"/"),
        wire.literal(b"accept", b"x") + block(),
        block() + wire.literal(b":status", b"200"),
        block() + wire.literal(b"Accept", b"x"),
        block() + wire.literal(b"connection", b"close"),
        block() + wire.literal(b"content-length", b"5"),
        block() + wire.literal(b"x", b"y" * 100) * 700,
        OK,
    ],
)
@pytest.mark.rfc("9113-8.4-1", "9113-8.4-2", "9113-8.4.1-1")
def test_a_malformed_promise_is_a_stream_error(promise: bytes) -> None:
    """§8.4.1: what is not safe, not cacheable, has content, or is for another origin: PROTOCOL_ERROR on the promised stream."""
    parts = wire.cuts(promise, 16_000)
    data = wire.frame(wire.PUSH_PROMISE, wire.END_HEADERS if len(parts) == 1 else 0, 1, b"\0\0\0\2" + parts[0])
    for number, part in enumerate(parts[1:], 2):
        data += wire.continuation(1, part, number == len(parts))
    if len(promise) > 65_000:
        assert ended(pushed(), data)[0] == wire.ENHANCE_YOUR_CALM
        return
    conn, out, events = http2.receive(pushed(), data, 0.0)
    assert (conn.status, out, events) == (OPEN, wire.rst_stream(2, wire.PROTOCOL_ERROR), [])
    assert http2.receive(conn, wire.headers_frame(2, OK), 0.0)[1:] == (b"", []), "late frames of it are ignored"


def test_a_section_above_our_limit_is_refused() -> None:
    conn = get(start(settings=Settings(max_pushes=1, max_fields=4, keepalive=None))[0])
    conn, out, events = http2.receive(conn, wire.push_promise(1, 2, PROMISE), 0.0)
    assert (out, events) == (wire.rst_stream(2, wire.PROTOCOL_ERROR), [])


@pytest.mark.rfc("9113-5.1.2-2")
def test_both_sides_of_the_limit() -> None:
    """§5.1.2: reserved streams do not count for the peer, so the limit is kept at the promise; the next one is refused."""
    data = b"".join([wire.push_promise(1, number, PROMISE) for number in (2, 4, 6)])
    conn, out, events = http2.receive(pushed(2), data, 0.0)
    assert [event.promised for event in events if isinstance(event, PushPromised)] == [2, 4]
    assert out == wire.rst_stream(6, wire.REFUSED_STREAM)
    conn, out, events = http2.receive(conn, wire.headers_frame(2, OK, end=True) + wire.push_promise(3, 8, PROMISE), 0.0)
    assert (out, [type(event) for event in events][-1]) == (b"", PushPromised)
    assert conn.control.pushes == (4, 8)


@pytest.mark.fault("C11")
@pytest.mark.rfc("9113-6.6-5", "9113-5.1-9")
def test_promises_on_a_stream_that_we_reset_are_refused_and_the_tables_stay_in_step() -> None:
    """§6.6: it "might have been created before the RST_STREAM frame is received"."""
    conn, _, _ = http2.cancel(pushed(), 1, 0.0)
    block = b"\x40\x01x\x01y"  # goes into the table
    conn, out, events = http2.receive(conn, wire.push_promise(1, 2, PROMISE + block), 0.0)
    assert (out, events) == (wire.rst_stream(2, wire.REFUSED_STREAM), [])
    _, _, events = http2.receive(conn, wire.headers_frame(3, OK + b"\xbe"), 0.0)
    assert events == [ResponseReceived(3, 200, ((b"x", b"y"),))]


@pytest.mark.fault("I2")
def test_a_flood_of_promises_is_bounded() -> None:
    data = b"".join([wire.push_promise(1, number, block()) for number in range(2, 2 * 1000, 2)])
    conn, out, _ = http2.receive(pushed(2), data, 0.0)
    assert (conn.status, conn.spent, conn.live, len(wire.parse(out))) == (OPEN, 1000.0, 4, 997), (
        "SETTINGS was one, and two were taken"
    )
    assert ended(conn, wire.push_promise(1, 3000, block()))[0] == wire.ENHANCE_YOUR_CALM


@pytest.mark.parametrize("how", ["cancel", "reset by the peer", "malformed", "timeout"])
def test_a_push_that_fails_leaves_no_trace(how: str) -> None:
    conn, _, _ = http2.receive(pushed(), wire.push_promise(1, 2, PROMISE), 0.0)
    if how == "cancel":
        conn, out, events = http2.cancel(conn, 2, 1.0)
        assert out == wire.rst_stream(2, wire.CANCEL)
    elif how == "reset by the peer":
        conn, out, events = http2.receive(conn, wire.rst_stream(2, wire.CANCEL), 1.0)
        assert out == b""
    elif how == "malformed":
        conn, out, events = http2.receive(conn, wire.headers_frame(2, wire.literal(b"x", b"y")), 1.0)
        assert out == wire.rst_stream(2, wire.PROTOCOL_ERROR)
    else:
        conn, out, events = http2.handle_timeout(conn, CLOCKS.head)
        assert out.endswith(wire.rst_stream(2, wire.CANCEL))
    failed = events[-1]
    assert isinstance(failed, RequestFailed) and failed.ref == 2
    assert (conn.control.pushes, slots(conn)[1:] if how != "timeout" else ([], [])) == ((), ([], []))
    assert http2.receive(conn, wire.headers_frame(2, OK), 61.0)[2] == []


def test_goaway_says_nothing_about_pushes() -> None:
    """§6.8: its stream id is one of ours."""
    conn, _, _ = http2.receive(pushed(), wire.push_promise(1, 4, PROMISE) + wire.goaway(1), 0.0)
    assert [request.ref for request in core.snapshot(conn, 0.0).requests] == [1, 4]


def test_a_push_takes_no_content() -> None:
    conn, _, _ = http2.receive(pushed(), wire.push_promise(1, 2, PROMISE), 0.0)
    with pytest.raises(LocalProtocolError, match="has been ended"):
        http2.send_data(conn, 2, b"x", 0.0)
