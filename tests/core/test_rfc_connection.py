"""What the RFCs ask of a connection as a whole, where no other file holds it; through the public verbs, the peer by hand."""

from typing import Final

import pytest

from calamint import core
from calamint.core import hpack
from calamint.core.errors import LocalProtocolError
from calamint.core.hpack import DecoderTable
from calamint.core.value import Fields
from tests.core import http2_peer as wire

ORIGIN: Final = core.Origin("https", "a.test", 443)
OK: Final = b"\x88"  # `:status: 200` by its static index
PRIORITY_UPDATE: Final = 0x10
HELLO: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


def start(*pairs: wire.Setting, settings: core.Settings | None = None) -> core.Connection:
    """An HTTP/2 connection; each side has the other's SETTINGS."""
    conn, _ = core.connect("h2", ORIGIN, settings or core.Settings())
    return core.receive(conn, wire.settings(*pairs) + wire.settings_ack(), 0.0)[0]


def get(conn: core.Connection, count: int = 1) -> core.Connection:
    for _ in range(count):
        conn, _, _ = core.request(conn, "GET", "/", (), None, 0.0)
    return conn


def http1(settings: core.Settings | None = None) -> core.Connection:
    return core.connect("http/1.1", ORIGIN, settings or core.Settings())[0]


# What we send, RFC 9113 §4.1 and §6

FLAGS: Final = {
    wire.DATA: wire.END_STREAM,
    wire.HEADERS: wire.END_STREAM | wire.END_HEADERS,
    wire.RST_STREAM: 0,
    wire.SETTINGS: wire.ACK,
    wire.PING: wire.ACK,
    wire.GOAWAY: 0,
    wire.WINDOW_UPDATE: 0,
    wire.CONTINUATION: wire.END_HEADERS,
    PRIORITY_UPDATE: 0,
}
CONNECTION_KINDS: Final = (wire.SETTINGS, wire.PING, wire.GOAWAY, PRIORITY_UPDATE)


def everything() -> bytes:
    """An output that has a frame of every type that a client sends."""
    conn, preface = core.connect("h2", ORIGIN, core.Settings(stream_window=1000))
    assert preface.startswith(wire.CLIENT_PREFACE)
    conn, answer, _ = core.receive(conn, wire.settings() + wire.settings_ack() + wire.ping(), 0.0)
    out = [preface[len(wire.CLIENT_PREFACE) :], answer]
    conn, data, _ = core.request(conn, "PUT", "/", ((b"x", b"~" * 40_000),), b"hello", 0.0, end=False)
    out.append(data)
    conn, data = core.send_data(conn, 1, b"more", 0.0, trailers=((b"x", b"y"),))
    out.append(data)
    conn, data, _ = core.request(conn, "GET", "/", (), None, 0.0)
    out.append(data)
    conn, data = core.prioritize(conn, 3, 7, False, 0.0)
    out.append(data)
    conn, _, _ = core.receive(conn, wire.headers_frame(3, OK) + wire.data_frame(3, b"x" * 900), 0.0)
    out += [core.consume(conn, 3, 900, 0.0)[1], core.cancel(conn, 1, 0.0)[1], core.close(conn, 0.0)[1]]
    conn, data = core.put_settings(conn, core.Settings(stream_window=2000), 0.0)
    out.append(data)
    conn, data = core.ping(conn, 0.0)
    out.append(data)
    return b"".join(out)


@pytest.mark.rfc("9113-4.1-4", "9113-4.1-5", "9113-6.5-6", "9113-6.7-1", "9113-8.4.1-2")
def test_no_frame_of_ours_has_what_has_no_meaning() -> None:
    """§4.1: unused flags and the reserved bit, which `wire.parse` looks at; §6: what is of the connection is on stream 0."""
    frames = wire.parse(everything())
    assert {item.kind for item in frames} == set(FLAGS), "and no PUSH_PROMISE, no PRIORITY"
    for item in frames:
        assert item.flags & ~FLAGS[item.kind] == 0, item
        if item.kind != wire.WINDOW_UPDATE:
            assert (item.ref == 0) == (item.kind in CONNECTION_KINDS), item
        if item.kind == wire.PING:
            assert len(item.payload) == 8


# Flow control, RFC 9113 §5.2 and §6.9


@pytest.mark.rfc("9113-5.2.2-1")
def test_http2_is_read_whatever_waits_unread() -> None:
    """§5.2.2: "Endpoints MUST read and process HTTP/2 frames … as soon as data is available"."""
    conn = get(start(settings=core.Settings(stream_window=1000)))
    conn, _, _ = core.receive(conn, wire.headers_frame(1, OK) + wire.data_frame(1, b"x" * 1000), 1.0)
    assert core.wants_read(conn)
    upload, _, _ = core.request(conn, "PUT", "/", (), b"x" * 1_000_000, 1.0)
    assert core.queued(upload, 3) > 0
    assert core.wants_read(upload)


@pytest.mark.rfc("9113-6.9-1", "9113-5.2.1-3")
def test_frames_that_are_exempt_are_taken_when_a_window_is_used_up() -> None:
    conn = get(start(settings=core.Settings(stream_window=10)), 2)
    conn, _, _ = core.receive(conn, wire.headers_frame(1, OK) + wire.data_frame(1, b"x" * 10), 1.0)
    data = wire.ping() + wire.settings() + wire.headers_frame(1, wire.literal(b"x", b"y"), end=True)
    conn, out, events = core.receive(conn, data, 2.0)
    assert wire.kinds(out) == [(wire.PING, 0), (wire.SETTINGS, 0)]
    assert core.TrailersReceived(1, ((b"x", b"y"),)) in events
    assert core.ResponseEnded(1) in events


@pytest.mark.rfc("9113-6.9.2-1", "9113-5.2.1-2")
def test_before_the_peers_settings_the_default_window_holds() -> None:
    """§6.9.2: "an endpoint can only use the default initial window size" until SETTINGS and WINDOW_UPDATE say more."""
    conn, _ = core.connect("h2", ORIGIN)
    conn, out, _ = core.request(conn, "PUT", "/", (), b"x" * 100_000, 0.0)
    assert sum([len(item.payload) for item in wire.parse(out) if item.kind == wire.DATA]) == 65_535
    conn, out, _ = core.receive(conn, wire.settings((wire.INITIAL_WINDOW_SIZE, 200_000)), 1.0)
    assert wire.kinds(out) == [(wire.SETTINGS, 0)], "the connection's window is as it was"
    conn, out, _ = core.receive(conn, wire.window_update(0, 100_000), 2.0)
    assert sum([len(item.payload) for item in wire.parse(out) if item.kind == wire.DATA]) == 34_465


@pytest.mark.rfc("9113-6.9.3-1", "9113-6.5.3-5")
def test_a_window_that_we_reduced_is_not_enforced_before_the_peer_knows() -> None:
    """§6.9.3: "the receiver MUST be prepared to receive data that exceeds this window size"; §6.5.3: the ACK ends that."""
    conn = get(start(settings=core.Settings(stream_window=1000)))
    conn, _, _ = core.receive(conn, wire.headers_frame(1, OK), 1.0)
    conn, out = core.put_settings(conn, core.Settings(stream_window=100), 1.0)
    assert out == wire.settings((wire.INITIAL_WINDOW_SIZE, 100))
    taken, out, events = core.receive(conn, wire.data_frame(1, b"x" * 1000), 2.0)
    assert events == [core.DataReceived(1, b"x" * 1000)]
    known, _, _ = core.receive(conn, wire.settings_ack(), 2.0)
    _, out, events = core.receive(known, wire.data_frame(1, b"x" * 100), 3.0)
    assert events == [core.DataReceived(1, b"x" * 100)]
    _, out, events = core.receive(known, wire.data_frame(1, b"x" * 101), 3.0)
    assert wire.rst_stream(1, wire.FLOW_CONTROL_ERROR) in out


@pytest.mark.rfc("9113-6.5.3-5")
def test_an_ack_is_for_the_oldest_settings() -> None:
    """§6.5.3: "the values from the oldest unacknowledged SETTINGS frame"."""
    conn = get(start(settings=core.Settings(max_frame_size=40_000)))
    conn, _, _ = core.receive(conn, wire.headers_frame(1, OK), 1.0)
    for size in (30_000, 20_000):
        conn, out = core.put_settings(conn, core.Settings(max_frame_size=size), 1.0)
        assert out == wire.settings((wire.MAX_FRAME_SIZE, size))
    for allowed in (40_000, 30_000, 20_000):
        _, out, events = core.receive(conn, wire.data_frame(1, b"x" * allowed), 2.0)
        assert events == [core.DataReceived(1, b"x" * allowed)]
        assert core.is_closed(core.receive(conn, wire.data_frame(1, b"x" * (allowed + 1)), 2.0)[0])
        conn, _, _ = core.receive(conn, wire.settings_ack(), 2.0)


# Priorities, RFC 9218 §2.1 and §7.1


@pytest.mark.rfc("9218-7-1", "9218-7.1-1", "9218-7.1-2", "9218-7.1-3")
@pytest.mark.parametrize("incremental", [False, True])
def test_a_priority_update(incremental: bool) -> None:
    """RFC 9218 §7: "a complete set of all priority parameters": what is left out has its default, as for `i`."""
    conn = get(start(), 2)
    for urgency in range(8):
        conn, out = core.prioritize(conn, 3, urgency, incremental, 1.0)
        (item,) = wire.parse(out)
        value = b"u=%d, i" % urgency if incremental else b"u=%d" % urgency
        assert item == wire.Frame(PRIORITY_UPDATE, 0, 0, b"\0\0\0\x03" + value)
    for urgency in (-1, 8):
        with pytest.raises(LocalProtocolError, match="urgency"):
            core.prioritize(conn, 3, urgency, incremental, 1.0)


@pytest.mark.rfc("9218-7.1-3", "9218-7.1-4", "9218-7.1-5")
def test_only_a_request_that_runs_is_prioritized() -> None:
    """RFC 9218 §7.1: no idle stream, so that none counts, and no pushed one; none from which nothing can come any more."""
    conn = get(start(settings=core.Settings(max_pushes=1)), 2)
    conn, _, _ = core.receive(conn, wire.headers_frame(1, OK, end=True), 1.0)
    for ref in (0, 1, 2, 5, 2**31 - 1):
        assert core.prioritize(conn, ref, 3, False, 1.0) == (conn, b"")
    conn1 = http1()
    assert core.prioritize(conn1, 1, 3, False, 1.0) == (conn1, b"")
    block = wire.literals((b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"a.test"), (b":path", b"/"))
    conn, _, _ = core.receive(conn, wire.push_promise(3, 2, block), 1.0)
    assert wire.parse(core.prioritize(conn, 2, 3, False, 1.0)[1])[0].payload == b"\0\0\0\x02u=3"


@pytest.mark.rfc("9218-7.1-6")
@pytest.mark.parametrize("ref", [0, 1])
def test_a_priority_update_from_the_server(ref: int) -> None:
    """RFC 9218 §7.1: "If a client receives a PRIORITY_UPDATE frame, it MUST respond with a connection error"."""
    conn, out, _ = core.receive(get(start()), wire.frame(PRIORITY_UPDATE, 0, ref, b"\0\0\0\x01u=1"), 1.0)
    assert out == wire.goaway(0, wire.PROTOCOL_ERROR)
    assert core.is_closed(conn)


@pytest.mark.rfc("9218-2.1-1")
@pytest.mark.parametrize("value", [2, 2**32 - 1])
def test_priorities_are_off_or_on(value: int) -> None:
    """RFC 9218 §2.1: "Any value other than 0 or 1 MUST be treated as a connection error"."""
    assert core.receive(start(), wire.settings((wire.NO_RFC7540_PRIORITIES, value)), 1.0)[1] == wire.goaway(0, 1)
    for allowed in (0, 1):
        conn, out, _ = core.receive(start(), wire.settings((wire.NO_RFC7540_PRIORITIES, allowed)), 1.0)
        assert out == wire.settings_ack()


@pytest.mark.rfc("9218-2.1-3", "9218-2.1-2")
def test_priorities_are_spoken_of_once() -> None:
    """RFC 9218 §2.1: in the first SETTINGS, and "Senders MUST NOT change" it."""
    conn, data = core.connect("h2", ORIGIN)
    assert wire.Peer(data).announced[wire.NO_RFC7540_PRIORITIES] == 1
    other = core.Settings(stream_window=7, max_frame_size=20_000, header_table_size=0, max_field_section=1000)
    _, out = core.put_settings(conn, other, 1.0)
    named = [int.from_bytes(wire.parse(out)[0].payload[start : start + 2], "big") for start in range(0, 24, 6)]
    assert sorted(named) == [1, 4, 5, 6]


# HPACK


@pytest.mark.rfc("7541-2.3.2-2")
def test_an_entry_may_stand_twice_in_the_table() -> None:
    """RFC 7541 §2.3.2: "duplicate entries MUST NOT be treated as an error by a decoder"."""
    block = hpack.decode(DecoderTable(), b"\x40\x01a\x01b" * 2 + b"\xbe\xbf", 1000, 10)
    assert block.fields == ((b"a", b"b"),) * 4
    assert block.table.entries == ((b"a", b"b"),) * 2


# HTTP/1.1


@pytest.mark.rfc("9112-3.2.4-1")
def test_options_of_the_server_on_http1() -> None:
    assert core.request(http1(), "OPTIONS", "*", (), None, 0.0)[1].startswith(b"OPTIONS * HTTP/1.1\r\n")
    for method in ("GET", "options"):
        with pytest.raises(LocalProtocolError):
            core.request(http1(), method, "*", (), None, 0.0)


@pytest.mark.rfc("9112-4-2")
@pytest.mark.parametrize("reason", [b"", b"OK", b"404 Not Found", b"HTTP/1.1 500 x", b"\xff\xfe\t~"])
def test_the_reason_says_nothing(reason: bytes) -> None:
    """RFC 9112 §4: "A client SHOULD ignore the reason-phrase content"."""
    conn = get(http1())
    conn, _, events = core.receive(conn, b"HTTP/1.1 204 " + reason + b"\r\n\r\n", 1.0)
    assert events == [core.ResponseReceived(1, 204, (), reason), core.ResponseEnded(1)]
    assert not core.is_closed(conn)


@pytest.mark.rfc("9112-6.1-4", "9112-6.3-12", "9112-6.3-10")
@pytest.mark.parametrize("content", [None, b"", b"hello"])
def test_no_chunks_where_the_length_is_known(content: bytes | None) -> None:
    """RFC 9112 §6.3: chunks are for whoever "knows the server will handle HTTP/1.1": the caller, who leaves content open."""
    _, data, _ = core.request(http1(), "POST", "/", (), content, 0.0)
    assert b"transfer-encoding" not in data.lower()
    assert (b"\r\nContent-Length: " in data) == (content is not None)


@pytest.mark.rfc("9112-6.1-4", "9112-6.3-12")
def test_no_chunks_for_a_server_of_http_1_0() -> None:
    """RFC 9112 §6.1: such knowledge comes "by remembering the version of a prior received response"."""
    kept = b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n"
    conn, _, _ = core.receive(get(http1()), kept, 1.0)
    with pytest.raises(LocalProtocolError):
        core.request(conn, "POST", "/", (), b"begun", 2.0, end=False)


@pytest.mark.rfc("9112-7.4-1")
@pytest.mark.parametrize("value", [b"chunked", b"trailers, Chunked", b"gzip;q=0.5, chunked;q=0"])
def test_te_does_not_name_chunked(value: bytes) -> None:
    """RFC 9112 §7.4: "A client MUST NOT send the chunked transfer coding name in TE"."""
    fields: Fields = ((b"te", value), (b"connection", b"te"))
    with pytest.raises(LocalProtocolError):
        core.request(http1(), "GET", "/", fields, None, 0.0)


@pytest.mark.rfc("9112-9.2-1", "9112-9.2-2", "9112-9.3-1")
def test_pipelined_responses_belong_to_their_requests_in_order() -> None:
    """RFC 9112 §9.2: a list of them, each response to the first that has no final one."""
    conn = get(http1(core.Settings(pipeline=3)), 3)
    assert core.capacity(conn) == 0
    interim = b"HTTP/1.1 103 x\r\n\r\n"
    conn, _, events = core.receive(conn, interim + HELLO + interim + interim + HELLO + HELLO[:-5], 1.0)
    refs = [getattr(event, "ref", 0) for event in events]
    kinds = [type(event) for event in events]
    one = [core.ResponseReceived, core.DataReceived, core.ResponseEnded]
    assert kinds == [core.InterimReceived, *one, core.InterimReceived, core.InterimReceived, *one, one[0]]
    assert refs == [1] * 4 + [2] * 5 + [3]
    conn, _, events = core.receive(conn, b"hello", 1.0)
    assert events == [core.DataReceived(3, b"hello"), core.ResponseEnded(3)]
    assert core.capacity(conn) == 3


@pytest.mark.rfc("9112-9.3.2-1")
@pytest.mark.parametrize("method", ["POST", "PATCH", "CONNECT", "post", "X"])
def test_nothing_is_pipelined_after_what_is_not_idempotent(method: str) -> None:
    """RFC 9112 §9.3.2: "SHOULD NOT pipeline requests after a non-idempotent method"."""
    conn = http1(core.Settings(pipeline=3))
    target = "b.test:1" if method == "CONNECT" else "/"
    conn, _, _ = core.request(get(conn), method, target, (), None, 0.0)
    assert core.capacity(conn) == 0
    with pytest.raises(LocalProtocolError):
        get(conn)
    for idempotent in ("GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE"):
        other, _, _ = core.request(http1(core.Settings(pipeline=3)), idempotent, "/", (), None, 0.0)
        assert core.capacity(other) == 2


@pytest.mark.rfc("9112-9.6-1")
def test_nothing_is_sent_after_our_close() -> None:
    conn, _, _ = core.request(http1(core.Settings(pipeline=3)), "GET", "/", ((b"connection", b"x, Close"),), None, 0.0)
    assert core.capacity(conn) == 0
    assert core.is_draining(conn)
    with pytest.raises(LocalProtocolError):
        get(conn)


@pytest.mark.rfc("9112-9.6-3", "9112-9.6-4", "9112-9.6-2")
def test_what_is_pipelined_behind_a_close_has_no_answer() -> None:
    """RFC 9112 §9.6: "the client SHOULD NOT assume that they will be processed"; nor that they were not."""
    conn = get(http1(core.Settings(pipeline=3)), 3)
    closing = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    conn, _, events = core.receive(conn, HELLO + closing + HELLO, 1.0)
    failed = [event for event in events if isinstance(event, core.RequestFailed)]
    assert [(event.ref, event.failure.unprocessed) for event in failed] == [(3, False)]
    assert [event.ref for event in events if isinstance(event, core.ResponseEnded)] == [1, 2]
    assert core.is_closed(conn)


@pytest.mark.rfc("9112-9.8-1", "9112-6.3-13")
@pytest.mark.parametrize(
    "response", [HELLO, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"]
)
def test_what_is_complete_stays_so_after_an_end_without_closure_alert(response: bytes) -> None:
    """RFC 9112 §9.8: "SHOULD treat as completed" what came whole by its length or its last chunk."""
    conn, _, events = core.receive(get(http1()), response, 1.0)
    assert events[-1] == core.ResponseEnded(1)
    conn, events = core.closed(conn, 2.0, clean=False)
    assert events == [core.ConnectionClosed(None)]


# Where an RFC leaves a choice: see docs/choices.md


def test_padding_is_not_looked_at() -> None:
    """RFC 9113 §6.1: a receiver "is not obligated to verify padding"."""
    data = bytes((3,)) + b"hello" + b"\xff\x00\x7f"
    conn, _, _ = core.receive(get(start()), wire.headers_frame(1, OK), 1.0)
    conn, out, events = core.receive(conn, wire.frame(wire.DATA, wire.PADDED, 1, data), 2.0)
    assert (out, events) == (b"", [core.DataReceived(1, b"hello")])


def test_the_peers_limit_of_fields_is_the_peers_to_hold() -> None:
    """RFC 9113 §6.5.2: an "advisory setting"; what is above it goes out, and the peer's answer tells."""
    conn = start((wire.MAX_HEADER_LIST_SIZE, 10))
    _, out, _ = core.request(conn, "GET", "/", ((b"x", b"~" * 100),), None, 1.0)
    assert wire.kinds(out) == [(wire.HEADERS, 1)]


@pytest.mark.parametrize("ending", [wire.headers_frame(1, OK, end=True), wire.rst_stream(1, wire.CANCEL)])
def test_a_promise_on_a_stream_that_is_over_is_refused(ending: bytes) -> None:
    """RFC 9113 §5.1: an endpoint can process minimally "for all streams that are in the 'closed' state", as after a reset."""
    conn, _, _ = core.receive(get(start(settings=core.Settings(max_pushes=1)), 2), ending, 1.0)
    block = wire.literals((b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"a.test"), (b":path", b"/"))
    conn, out, events = core.receive(conn, wire.push_promise(1, 2, block), 2.0)
    assert (out, events) == (wire.rst_stream(2, wire.REFUSED_STREAM), [])


def test_cookies_go_out_as_they_are_given() -> None:
    """RFC 9113 §8.2.3: they "MAY be split"; several may be given, too."""
    for fields in (((b"cookie", b"a=b; c=d"),), ((b"cookie", b"a=b"), (b"cookie", b"c=d"))):
        conn, data = core.connect("h2", ORIGIN)
        peer = wire.Peer(data)
        peer.take(core.request(conn, "GET", "/", fields, None, 0.0)[1])
        assert peer.requests[1].fields[4:] == fields
