"""Server push as it binds a client: RFC 9113 §5.1, §6.6, §8.4, through the public verbs; the peer is made by hand."""

from typing import Final

import pytest

from calamint import core
from calamint.core.errors import LocalProtocolError
from tests.core import http2_peer as wire

ORIGIN: Final = core.Origin("https", "a.test", 443)
OK: Final = b"\x88"  # `:status: 200` by its static index
GET: Final[tuple[wire.Pair, ...]] = (
    *((b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"a.test"), (b":path", b"/style.css")),
    (b"accept", b"*/*"),
)
BLOCK: Final = wire.literals(*GET)


def asked(pushes: int = 2) -> core.Connection:
    """A connection that takes pushes, with two requests that wait for their responses."""
    conn, _ = core.connect("h2", ORIGIN, core.Settings(max_pushes=pushes))
    conn, _, _ = core.receive(conn, wire.settings() + wire.settings_ack(), 0.0)
    for _ in range(2):
        conn, _, _ = core.request(conn, "GET", "/", (), None, 0.0)
    return conn


def promised(conn: core.Connection, promised: int = 2, ref: int = 1) -> core.Connection:
    conn, out, events = core.receive(conn, wire.push_promise(ref, promised, BLOCK), 1.0)
    assert out == b""
    assert events == [core.PushPromised(ref, promised, "GET", "/style.css", GET[4:])]
    return conn


def ends(conn: core.Connection, data: bytes, code: int = wire.PROTOCOL_ERROR) -> None:
    """Checks for a connection error (§5.4.1)."""
    conn, out, events = core.receive(conn, data, 2.0)
    last = wire.parse(out)[-1]
    assert (last.kind, int.from_bytes(last.payload[4:8], "big")) == (wire.GOAWAY, code)
    assert core.is_closed(conn)
    assert isinstance(events[-1], core.ConnectionClosed)


def refuses(conn: core.Connection, data: bytes, ref: int, code: int) -> core.Connection:
    """Checks that this stream, and no other, is reset."""
    before = core.in_flight(conn)
    conn, out, events = core.receive(conn, data, 2.0)
    assert out == wire.rst_stream(ref, code)
    assert core.PushPromised not in [type(event) for event in events]
    assert not core.is_closed(conn)
    assert core.in_flight(conn) == before
    return conn


@pytest.mark.rfc("9113-8.4.2-3", "9113-5.1-4")
def test_a_pushed_response_in_all_its_parts() -> None:
    """§8.4.2: "the same sequence of frames as that defined in Section 8.1", on the promised stream."""
    data = (
        wire.headers_frame(2, wire.literal(b":status", b"103"))
        + wire.headers_frame(2, OK)
        + wire.data_frame(2, b"body")
        + wire.headers_frame(2, wire.literal(b"x", b"y"), end=True)
    )
    conn, out, events = core.receive(promised(asked()), data, 2.0)
    assert (out, core.in_flight(conn)) == (b"", 2)
    assert events == [
        core.InterimReceived(2, 103, ()),
        core.ResponseReceived(2, 200, ()),
        core.DataReceived(2, b"body"),
        core.TrailersReceived(2, ((b"x", b"y"),)),
        core.ResponseEnded(2),
    ]


@pytest.mark.rfc("9113-8.4.2-3")
@pytest.mark.parametrize(
    "data",
    [
        wire.headers_frame(2, wire.literal(b"x", b"y"), end=True),
        wire.headers_frame(2, wire.literal(b":status", b"103"), end=True),
        wire.headers_frame(2, wire.literals((b":status", b"200"), (b"X", b"y"))),
        wire.headers_frame(2, OK) + wire.headers_frame(2, OK),
    ],
    ids=["no status", "only an interim head", "a bad name", "two heads"],
)
def test_a_pushed_response_that_is_malformed(data: bytes) -> None:
    conn, out, events = core.receive(promised(asked()), data, 2.0)
    assert out == wire.rst_stream(2, wire.PROTOCOL_ERROR)
    assert isinstance(events[-1], core.RequestFailed)
    assert (events[-1].ref, core.in_flight(conn)) == (2, 2)


@pytest.mark.rfc("9113-5.1-4")
@pytest.mark.parametrize(
    "data",
    [wire.data_frame(2, b"x"), wire.window_update(2, 1), wire.push_promise(2, 4, BLOCK)],
    ids=["DATA", "WINDOW_UPDATE", "PUSH_PROMISE"],
)
def test_what_may_not_come_on_a_reserved_stream(data: bytes) -> None:
    """§5.1: "any type of frame other than HEADERS, RST_STREAM, or PRIORITY … MUST be treated as a connection error"."""
    ends(promised(asked()), data)


@pytest.mark.rfc("9113-5.1-4")
def test_what_may_come_on_a_reserved_stream() -> None:
    conn = promised(asked())
    later, out, events = core.receive(conn, wire.priority(2), 2.0)
    assert (out, events, core.in_flight(later)) == (b"", [], 3)
    later, out, events = core.receive(conn, wire.rst_stream(2, wire.CANCEL), 2.0)
    assert [type(event) for event in events] == [core.RequestFailed]
    assert (out, core.in_flight(later)) == (b"", 2)


@pytest.mark.rfc("9113-5.1-11")
def test_an_interim_head_opens_a_pushed_stream() -> None:
    """§5.1: any HEADERS make it half-closed (local), where "an endpoint can receive any type of frame"."""
    head = wire.headers_frame(2, wire.literal(b":status", b"103"))
    conn, out, events = core.receive(promised(asked()), head + wire.window_update(2, 1), 2.0)
    assert not core.is_closed(conn)


@pytest.mark.rfc("9113-5.1-3", "9113-8.4.1-2")
def test_nothing_but_a_reset_and_credit_is_sent_on_a_pushed_stream() -> None:
    """§5.1, reserved (remote): RST_STREAM, WINDOW_UPDATE and PRIORITY only."""
    conn = promised(asked())
    with pytest.raises(LocalProtocolError):
        core.send_data(conn, 2, b"x", 2.0)
    _, out = core.grow_window(conn, 2, 2**24, 2.0)
    assert wire.kinds(out) == [(wire.WINDOW_UPDATE, 2)]
    conn, out, events = core.cancel(conn, 2, 2.0)
    assert out == wire.rst_stream(2, wire.CANCEL)
    assert core.in_flight(conn) == 2


@pytest.mark.rfc("9113-5.1-7", "9113-8.4.2-3")
def test_a_pushed_stream_that_is_given_up_is_not_heard_any_more() -> None:
    conn, _, _ = core.cancel(promised(asked()), 2, 2.0)
    late = wire.headers_frame(2, OK) + wire.data_frame(2, b"late", end=True)
    conn, out, events = core.receive(conn, late, 3.0)
    assert (out, events) == (b"", [])


@pytest.mark.rfc("9113-5.1.2-2")
def test_pushes_above_our_limit_are_refused() -> None:
    """§5.1.2: REFUSED_STREAM, so that they may be asked for; §8.7: a slot is free again when one has ended."""
    conn = promised(promised(asked(2), 2), 4)
    conn = refuses(conn, wire.push_promise(3, 6, BLOCK), 6, wire.REFUSED_STREAM)
    conn, _, _ = core.receive(conn, wire.headers_frame(6, OK, end=True) + wire.headers_frame(2, OK, end=True), 3.0)
    promised(conn, 8, 3)


@pytest.mark.rfc("9113-5.1.2-2", "9113-6.5.2-2")
def test_what_is_announced_of_pushes() -> None:
    for pushes, expected in ((0, (0, None)), (7, (1, 7))):
        _, data = core.connect("h2", ORIGIN, core.Settings(max_pushes=pushes))
        announced = wire.Peer(data).announced
        assert (announced[wire.ENABLE_PUSH], announced.get(wire.MAX_CONCURRENT_STREAMS)) == expected


@pytest.mark.rfc("9113-6.6-2", "9113-6.6-4")
@pytest.mark.parametrize("ref", [0, 2, 4, 5, 2**31 - 1])
def test_a_promise_on_a_stream_that_is_not_ours_or_idle(ref: int) -> None:
    """§6.6: "a stream that is neither 'open' nor 'half-closed (local)'": connection error PROTOCOL_ERROR; stream 0, too."""
    ends(promised(asked()), wire.push_promise(ref, 6, BLOCK))


@pytest.mark.rfc("9113-6.6-4")
def test_a_promise_while_our_content_is_open() -> None:
    conn = asked()
    conn, _, ref = core.request(conn, "PUT", "/", (), b"x", 0.0, end=False)
    promised(conn, 2, ref)


@pytest.mark.rfc("9113-6.6-5", "9113-5.1-9", "9113-4.3-3")
def test_a_promise_on_a_stream_that_was_reset_is_refused_and_its_stream_known() -> None:
    """§6.6: who sent RST_STREAM "MUST handle PUSH_PROMISE frames that might have been created before"; §5.1: the promised
    stream is reserved all the same, and the block is decoded."""
    conn, _, _ = core.cancel(asked(), 1, 1.0)
    indexed = b"\x40\x06x-from\x04push"
    conn = refuses(conn, wire.push_promise(1, 2, BLOCK + indexed), 2, wire.REFUSED_STREAM)
    conn, out, events = core.receive(conn, wire.headers_frame(2, OK, end=True), 3.0)
    assert (out, events) == (b"", []), "no idle stream"
    _, _, events = core.receive(conn, wire.headers_frame(3, OK + b"\xbe", end=True), 4.0)
    assert events[0] == core.ResponseReceived(3, 200, ((b"x-from", b"push"),))
    ends(conn, wire.push_promise(3, 2, BLOCK))


@pytest.mark.rfc("9113-6.6-6", "9113-5.1.1-3")
@pytest.mark.parametrize("number", [0, 1, 3, 5, 99])
def test_a_promise_of_a_stream_that_is_not_the_servers(number: int) -> None:
    """§6.6: "an illegal stream identifier": connection error PROTOCOL_ERROR."""
    ends(asked(), wire.push_promise(1, number, BLOCK))


@pytest.mark.rfc("9113-6.6-6", "9113-5.1.1-3")
@pytest.mark.parametrize("number", [2, 4, 6])
def test_a_promise_of_a_stream_that_is_not_idle(number: int) -> None:
    """§5.1.1: greater than all that the peer has reserved; those below are closed."""
    ends(promised(asked(), 6), wire.push_promise(1, number, BLOCK))


@pytest.mark.rfc("9113-5.1-2")
@pytest.mark.parametrize("data", [wire.headers_frame(4, OK), wire.data_frame(4, b"x"), wire.rst_stream(4, 8)])
def test_a_stream_that_was_not_promised_is_idle(data: bytes) -> None:
    ends(promised(asked()), data)


@pytest.mark.rfc("9113-6.6-7", "9113-4.2-2", "9113-4.2-3")
def test_the_sizes_of_a_promise() -> None:
    """§6.6: padding as long as the payload is a PROTOCOL_ERROR; §4.2: too small is a FRAME_SIZE_ERROR."""
    payload = b"\0\0\0\x02" + BLOCK
    flags = wire.END_HEADERS | wire.PADDED
    good = wire.frame(wire.PUSH_PROMISE, flags, 1, bytes((9,)) + payload + bytes(9))
    _, _, events = core.receive(asked(), good, 1.0)
    assert events == [core.PushPromised(1, 2, "GET", "/style.css", GET[4:])]
    for padding in (4, 255):
        ends(asked(), wire.frame(wire.PUSH_PROMISE, flags, 1, bytes((padding,)) + bytes(3)))
    for size in range(4):
        ends(asked(), wire.frame(wire.PUSH_PROMISE, wire.END_HEADERS, 1, bytes(size)), wire.FRAME_SIZE_ERROR)
        padded = bytes((9,)) + bytes(size) + bytes(9)
        ends(asked(), wire.frame(wire.PUSH_PROMISE, flags, 1, padded), wire.FRAME_SIZE_ERROR)


@pytest.mark.rfc("9113-6.6-1")
@pytest.mark.parametrize(
    "data",
    [wire.data_frame(1, b"x"), wire.ping(), wire.continuation(3, b""), wire.headers_frame(1, OK), wire.frame(0x77)],
)
def test_a_promise_is_contiguous(data: bytes) -> None:
    """§6.6: anything but CONTINUATION after a PUSH_PROMISE without END_HEADERS is a connection error PROTOCOL_ERROR."""
    first = wire.frame(wire.PUSH_PROMISE, 0, 1, b"\0\0\0\x02" + BLOCK[:9])
    conn, out, events = core.receive(asked(), first, 1.0)
    assert (out, events) == (b"", [])
    _, _, events = core.receive(conn, wire.continuation(1, BLOCK[9:]), 2.0)
    assert events == [core.PushPromised(1, 2, "GET", "/style.css", GET[4:])]
    ends(conn, data)


def without(name: bytes) -> bytes:
    return wire.literals(*[field for field in GET if field[0] != name])


def with_value(name: bytes, value: bytes) -> bytes:
    return wire.literals(*[(field[0], value if field[0] == name else field[1]) for field in GET])


@pytest.mark.rfc("9113-8.4-1", "9113-8.4.1-1")
@pytest.mark.parametrize("method", [b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"get", b"SAFE", b""])
def test_a_promise_that_is_not_safe_and_cacheable(method: bytes) -> None:
    """§8.4: reset with PROTOCOL_ERROR, also where "the client does not recognize a newly defined method as being safe"."""
    refuses(asked(), wire.push_promise(1, 2, with_value(b":method", method)), 2, wire.PROTOCOL_ERROR)


@pytest.mark.rfc("9113-8.4-1")
def test_a_promise_with_content() -> None:
    """§8.4: "or that indicates the presence of request content"."""
    block = BLOCK + wire.literal(b"content-length", b"1")
    refuses(asked(), wire.push_promise(1, 2, block), 2, wire.PROTOCOL_ERROR)
    promised(core.receive(asked(), wire.priority(1), 1.0)[0])
    head = with_value(b":method", b"HEAD") + wire.literal(b"content-length", b"0")
    _, _, events = core.receive(asked(), wire.push_promise(1, 2, head), 1.0)
    assert isinstance(events[0], core.PushPromised)


@pytest.mark.rfc("9113-8.4-2", "9113-8.4.2-2")
@pytest.mark.parametrize("authority", [b"b.test", b"a.test:8443", b"u@a.test", b"a.test.", b""])
def test_a_promise_for_another_authority(authority: bytes) -> None:
    """§8.4: "for which the server is not authoritative": a stream error PROTOCOL_ERROR."""
    refuses(asked(), wire.push_promise(1, 2, with_value(b":authority", authority)), 2, wire.PROTOCOL_ERROR)
    refuses(asked(), wire.push_promise(1, 2, with_value(b":scheme", b"http")), 2, wire.PROTOCOL_ERROR)


@pytest.mark.rfc("9113-8.4.1-1")
@pytest.mark.parametrize(
    "block",
    [
        *[without(name) for name in (b":method", b":scheme", b":authority", b":path")],
        BLOCK + wire.literal(b":path", b"/"),
        wire.literal(b":path", b"/") + BLOCK,
        wire.literals(GET[4], *GET[:4]),
        BLOCK + wire.literal(b":status", b"200"),
        BLOCK + wire.literal(b":protocol", b"x"),
        BLOCK + wire.literal(b"X", b"y"),
        BLOCK + wire.literal(b"x", b"y\n"),
        BLOCK + wire.literal(b"connection", b"close"),
        BLOCK + wire.literal(b"content-length", b"x"),
        b"",
        with_value(b":path", b""),
        with_value(b":path", b"style.css"),
        with_value(b":path", b"*"),
        with_value(b":path", b"/\0"),
        with_value(b":path", b"/\xe9"),
        with_value(b":path", b"/a b"),
        with_value(b":path", b"/a#b"),
    ],
)
def test_a_promise_that_is_no_request(block: bytes) -> None:
    """§8.4.1: no "complete and valid set of header fields": an error of the promised stream, PROTOCOL_ERROR."""
    conn = refuses(asked(), wire.push_promise(1, 2, block), 2, wire.PROTOCOL_ERROR)
    conn, out, events = core.receive(conn, wire.headers_frame(2, OK, end=True), 3.0)
    assert (out, events) == (b"", [])


@pytest.mark.rfc("9113-4.3-2")
def test_a_promise_that_cannot_be_decoded_ends_the_connection() -> None:
    ends(asked(), wire.push_promise(1, 2, b"\x80"), wire.COMPRESSION_ERROR)


@pytest.mark.rfc("9113-5.4.1-1")
def test_our_goaway_names_the_last_push() -> None:
    """§6.8: "the highest-numbered stream identifier for which the sender … might have taken some action"."""
    for conn, last in ((asked(), 0), (promised(promised(asked(), 2), 6), 6)):
        assert core.close(conn, 2.0)[1] == wire.goaway(last, wire.NO_ERROR)
        assert core.receive(conn, wire.data_frame(0), 2.0)[1] == wire.goaway(last, wire.PROTOCOL_ERROR)
