"""RFC 9113 §3.4 to §8.3, as it binds a client: what the peer sends, frame by frame, and what becomes of it."""

import math
from typing import Final

import pytest

from calamint.core import http2, http2_head
from calamint.core.errors import Failure, error_name
from calamint.core.events import (
    ConnectionClosed,
    DataReceived,
    Event,
    GoAwayReceived,
    InterimReceived,
    RequestFailed,
    ResponseEnded,
    ResponseReceived,
    SettingsReceived,
    TrailersReceived,
    WindowOpened,
)
from calamint.core.exchange import SETTINGS, Settings
from calamint.core.http2_state import CLOSED, OPEN, HTTP2Connection
from tests.core import http2_peer as wire
from tests.core.test_http2_state import MANY, ORIGIN, altered, get, live, slots, start

LIMIT: Final = 16_384  # SETTINGS_MAX_FRAME_SIZE by default
OK: Final = b"\x88"  # `:status: 200` by its static index


def after(conn: HTTP2Connection, *data: bytes, now: float = 1.0) -> list[Event]:
    """What this brings."""
    return http2.receive(conn, b"".join(data), now)[2]


def terminated(conn: HTTP2Connection, data: bytes, code: int, message: str) -> list[Event]:
    """Checks for a connection error (§5.4.1): GOAWAY, every request failed, none of them unprocessed. Returns the rest."""
    refs = live(conn)
    conn, out, events = http2.receive(conn, data, 1.0)
    message = f"{message} [{error_name(code)}]"
    assert events[-1] == ConnectionClosed(Failure("RemoteProtocolError", code, message))
    failed = [RequestFailed(ref, Failure("RemoteProtocolError", code, message, ref)) for ref in refs]
    assert events[-1 - len(refs) : -1] == failed
    assert out.endswith(wire.goaway(0, code))
    assert (conn.status, slots(conn)) == (CLOSED, (0, [], []))
    return events[: -1 - len(refs)]


def faulted(conn: HTTP2Connection, data: bytes, code: int, message: str) -> list[Event]:
    """Checks for an error of stream 1 (§5.4.2): one RST_STREAM, one failed request, its sibling unhurt. Returns the rest."""
    others = [ref for ref in live(conn) if ref != 1]
    conn, out, events = http2.receive(conn, data, 1.0)
    assert events[-1] == RequestFailed(1, Failure("RemoteProtocolError", code, f"{message} [{error_name(code)}]", 1))
    assert out == wire.rst_stream(1, code)
    assert conn.status == OPEN
    assert live(conn) == others
    return events[:-1]


def pair() -> HTTP2Connection:
    """A connection with two GETs that wait for their responses."""
    return get(start()[0], 0.0, 2)


def upload(conn: HTTP2Connection, content: bytes = b"", end: bool = False) -> HTTP2Connection:
    """The connection after a PUT whose content is left open."""
    return http2.request(conn, "PUT", "/", (), content, 0.0, end=end)[0]


# §3.4 Connection preface

NOT_SETTINGS: Final = {
    "DATA": wire.data_frame(1, b"x"),
    "HEADERS": wire.headers_frame(1, OK),
    "PRIORITY": wire.priority(1),
    "RST_STREAM": wire.rst_stream(1, 0),
    "SETTINGS": wire.settings_ack(),
    "PUSH_PROMISE": wire.push_promise(1, 2, OK),
    "PING": wire.ping(),
    "GOAWAY": wire.goaway(0),
    "WINDOW_UPDATE": wire.window_update(0, 1),
    "CONTINUATION": wire.continuation(1, OK),
    "frame type 0xa": wire.frame(0xA),
    "frame type 0xff": wire.frame(0xFF, 0xFF, 1, b"x" * LIMIT),
}


@pytest.mark.parametrize("name", NOT_SETTINGS)
@pytest.mark.rfc("9113-3.4-2")
def test_the_first_frame_is_settings(name: str) -> None:
    """§3.4: "The server connection preface … MUST be the first frame"; an invalid one is a PROTOCOL_ERROR."""
    conn = get(http2.connect(ORIGIN, SETTINGS, 0.0)[0])
    message = f"the first frame is {name}, not SETTINGS (RFC 9113 §3.4)"
    for data in (NOT_SETTINGS[name], NOT_SETTINGS[name][:9]):
        assert terminated(conn, data, wire.PROTOCOL_ERROR, message) == []


@pytest.mark.parametrize("size", [9, 15, 40, 200])
@pytest.mark.rfc("9113-3.4-2")
def test_a_peer_that_speaks_http1_is_named(size: int) -> None:
    """§3.4: an invalid preface indicates "a peer that is not using HTTP/2"."""
    answer = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n" + b"x" * 200
    events = after(http2.connect(ORIGIN, SETTINGS, 0.0)[0], answer[:size])
    assert isinstance(events[-1], ConnectionClosed)
    failure = events[-1].failure
    assert failure is not None
    assert failure.code == wire.PROTOCOL_ERROR
    assert failure.message.startswith("the peer answers in HTTP/1: b'HTTP/1.1 ")
    assert failure.message.endswith("' [PROTOCOL_ERROR]")
    assert len(failure.message) < 120


def test_what_is_said_of_http1_does_not_depend_on_the_cut() -> None:
    """DESIGN §3, law 2: the same bytes cut in any way give the same events."""
    conn, _ = http2.connect(ORIGIN, SETTINGS, 0.0)
    answer = b"HTTP/1.1 400 Bad Request\r\n\r\n"
    for size in (9, 10, 20):
        assert after(conn, answer[:size]) == after(conn, answer)


@pytest.mark.parametrize("pairs", [(), ((wire.MAX_CONCURRENT_STREAMS, 7),)], ids=["empty", "one"])
@pytest.mark.rfc("9113-3.4-3")
def test_the_servers_preface(pairs: tuple[wire.Setting, ...]) -> None:
    """§3.4: "a potentially empty SETTINGS frame", which MUST be acknowledged."""
    conn, out, events = http2.receive(http2.connect(ORIGIN, SETTINGS, 0.0)[0], wire.settings(*pairs), 1.0)
    assert out == wire.settings_ack()
    assert events == [SettingsReceived(pairs)]
    assert conn.peer.known


def test_a_frame_header_that_is_not_complete_says_nothing() -> None:
    conn = http2.connect(ORIGIN, SETTINGS, 0.0)[0]
    for size in range(9):
        conn_after, out, events = http2.receive(conn, b"HTTP/1.1 400"[:size], 1.0)
        assert (conn_after.status, out, events) == (OPEN, b"", [])


# §4.1 Frame format


@pytest.mark.parametrize("kind", [0xA, 0xC, 0xF, 0x11, 0x7F, 0xFF])
@pytest.mark.rfc("9113-4.1-2", "9113-5.5-2")
def test_unknown_frames_are_ignored(kind: int) -> None:
    """§4.1: "Implementations MUST ignore and discard frames of unknown types"; §5.5: anywhere, in any state."""
    conn, out, events = http2.receive(
        pair(), wire.frame(kind, 0xFF, 0) + wire.frame(kind, 0, 1, b"x" * LIMIT) + wire.frame(kind, 0, 99), 1.0
    )
    assert (conn.status, out, events, live(conn)) == (OPEN, b"", [], [1, 3])


@pytest.mark.parametrize(
    ("data", "count"),
    [
        (wire.headers_frame(1, OK), 1),
        (wire.headers_frame(1, OK) + wire.data_frame(1, b"x"), 2),
        (wire.settings(), 1),
        (wire.window_update(1, 5), 0),
        (wire.ping(), 0),
    ],
)
@pytest.mark.rfc("9113-4.1-3", "9113-4.1-6")
def test_the_reserved_bit_and_unknown_flags_are_ignored(data: bytes, count: int) -> None:
    """§4.1: the reserved bit "MUST be ignored when receiving"; so must flags without meaning for the frame type."""
    unknown = {wire.DATA: 0xF6, wire.HEADERS: 0xD2, wire.SETTINGS: 0xFE, wire.WINDOW_UPDATE: 0xFF, wire.PING: 0xFE}
    marked = b"".join(
        [
            wire.frame(item.kind, item.flags | unknown[item.kind], item.ref | 2**31, item.payload)
            for item in wire.parse(data)
        ]
    )
    conn = pair()
    assert http2.receive(conn, marked, 1.0) == http2.receive(conn, data, 1.0)
    assert len(after(conn, data)) == count


@pytest.mark.rfc("9113-4.1-6")
def test_the_reserved_bit_of_an_increment_is_ignored() -> None:
    """§6.9: "Reserved … MUST be ignored when receiving"."""
    conn = pair()
    assert http2.receive(conn, wire.window_update(0, 2**31 + 5), 1.0)[0].send_window == 65_540
    assert (
        http2.receive(conn, wire.window_update(1, 2**31 + 5), 1.0)[0]
        == (http2.receive(conn, wire.window_update(1, 5), 1.0)[0])
    )


# §4.2 Frame size

KINDS: Final = (
    *("DATA", "HEADERS", "PRIORITY", "RST_STREAM", "SETTINGS", "PUSH_PROMISE", "PING", "GOAWAY", "WINDOW_UPDATE"),
    *("CONTINUATION", "frame type 0xa"),
)


@pytest.mark.parametrize("kind", range(11))
@pytest.mark.parametrize("limit", [LIMIT, LIMIT + 1, 2**24 - 2])
@pytest.mark.rfc("9113-4.2-2", "9113-4.2-3")
def test_no_frame_is_larger_than_we_announced(kind: int, limit: int) -> None:
    """§4.2: "MUST send an error code of FRAME_SIZE_ERROR if a frame exceeds the size defined in … MAX_FRAME_SIZE"."""
    conn = get(start(settings=Settings(keepalive=None, max_frame_size=limit))[0])
    data = wire.frame(kind, 0, 1, length=limit + 1)
    message = f"{KINDS[kind]} of {limit + 1} bytes, allowed are {limit} (§4.2)"
    assert terminated(conn, data, wire.FRAME_SIZE_ERROR, message) == []
    assert http2.receive(conn, wire.frame(kind, 0, 1, length=limit), 1.0)[0].status == OPEN


@pytest.mark.rfc("9113-4.2-1")
def test_a_frame_as_large_as_allowed_is_taken() -> None:
    """§4.2: "All implementations MUST be capable of receiving … frames up to 2^14 octets in length"."""
    conn = pair()
    conn, _, events = http2.receive(conn, wire.headers_frame(1, OK) + wire.data_frame(1, b"x" * LIMIT), 1.0)
    assert events == [ResponseReceived(1, 200, ()), DataReceived(1, b"x" * LIMIT)]
    block = OK + wire.literal(b"a", b"b") * 5
    padded = wire.frame(wire.HEADERS, wire.END_HEADERS | wire.PADDED, 3, bytes((255,)) + block + bytes(255))
    assert len(after(conn, padded)) == 1


@pytest.mark.parametrize("size", [0, 1, 3, 5, 16])
@pytest.mark.parametrize("kind", [wire.RST_STREAM, wire.WINDOW_UPDATE])
@pytest.mark.rfc("9113-4.2-2", "9113-6.4-6", "9113-6.9-6")
def test_frames_of_four_octets(kind: int, size: int) -> None:
    """§6.4, §6.9: any other length "MUST be treated as a connection error … of type FRAME_SIZE_ERROR"."""
    message = f"{KINDS[kind]} of {size} bytes, allowed are 4"
    assert terminated(pair(), wire.frame(kind, 0, 1, bytes(size)), wire.FRAME_SIZE_ERROR, message) == []
    assert terminated(pair(), wire.frame(kind, 0, 99, bytes(size)), wire.FRAME_SIZE_ERROR, message) == []


@pytest.mark.parametrize("flags", [wire.PADDED, wire.PADDED | wire.END_STREAM])
@pytest.mark.rfc("9113-4.2-2")
def test_data_without_its_pad_length(flags: int) -> None:
    """§4.2: FRAME_SIZE_ERROR where a frame "is too small to contain mandatory frame data", here the Pad Length (§6.1)."""
    conn, _, _ = http2.receive(pair(), wire.headers_frame(1, OK), 1.0)
    _, out, _ = http2.receive(conn, wire.frame(wire.DATA, flags, 1), 1.0)
    assert out == wire.goaway(0, wire.FRAME_SIZE_ERROR)


@pytest.mark.rfc("9113-4.2-2", "9113-4.2-3")
def test_headers_without_their_pad_length() -> None:
    """§4.2, §6.2: likewise."""
    data = wire.frame(wire.HEADERS, wire.PADDED | wire.END_HEADERS, 1)
    assert terminated(pair(), data, wire.FRAME_SIZE_ERROR, "HEADERS too short for its Pad Length (§4.2)") == []


# §4.3 Field section compression


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (wire.data_frame(1, b"x"), "DATA"),
        (wire.headers_frame(1, OK), "HEADERS"),
        (wire.priority(1), "PRIORITY"),
        (wire.rst_stream(1, 0), "RST_STREAM"),
        (wire.settings(), "SETTINGS"),
        (wire.push_promise(1, 2, OK), "PUSH_PROMISE"),
        (wire.ping(), "PING"),
        (wire.goaway(0), "GOAWAY"),
        (wire.window_update(1, 1), "WINDOW_UPDATE"),
        (wire.continuation(3, OK), "CONTINUATION"),
        (wire.continuation(0, OK), "CONTINUATION"),
        (wire.frame(0x42, 0, 1), "frame type 0x42"),
    ],
)
@pytest.mark.parametrize("before", [b"", wire.continuation(1, b"", done=False)], ids=["HEADERS", "CONTINUATION"])
@pytest.mark.rfc("9113-5.5-3", "9113-6.2-3", "9113-6.10-2", "9113-6.10-3")
def test_a_field_block_is_contiguous(before: bytes, data: bytes, name: str) -> None:
    """§4.3, §5.5, §6.10: any other frame within it is a connection error PROTOCOL_ERROR, extensions included."""
    conn, _, _ = http2.receive(pair(), wire.headers_frame(1, OK, done=False) + before, 1.0)
    message = f"{name} within a field block (§4.3, §6.10)"
    assert terminated(conn, data, wire.PROTOCOL_ERROR, message) == []
    assert terminated(conn, data[:9], wire.PROTOCOL_ERROR, message) == []


BROKEN: Final = {
    "within a field": (b"\x88\x40\x01a\x05bb", "the field block ends within a field"),
    "index 0": (b"\x88\x80", "field index 0 is not in the table (§2.3.3)"),
    "index beyond the table": (b"\xbe", "field index 62 is not in the table (§2.3.3)"),
    "table size above ours": (
        b"\x3f\xe2\x1f\x88",
        "1 table size updates, the last to 4097: allowed are two, of at most 4096 (§4.2)",
    ),
    "table size in the middle": (b"\x88\x20", "a table size update after the beginning of a block (§4.2)"),
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("ref", [1, 3, 5], ids=["live", "sibling", "reset"])
@pytest.mark.rfc("9113-4.3-2")
def test_a_block_that_cannot_be_decoded_ends_the_connection(name: str, ref: int) -> None:
    """§4.3: "A receiver MUST terminate the connection with a connection error … of type COMPRESSION_ERROR"."""
    conn = get(start()[0], 0.0, 3)
    conn, _, _ = http2.cancel(conn, 5, 0.0)
    block, message = BROKEN[name]
    assert terminated(conn, wire.headers_frame(ref, block), wire.COMPRESSION_ERROR, message) == []


@pytest.mark.fault("C9")
@pytest.mark.rfc("9113-4.3.1-2")
def test_a_lowered_table_size_is_followed_by_an_update() -> None:
    """§4.3.1: a block after the ACK of a lower size MUST begin with a size update, or it is a COMPRESSION_ERROR."""
    conn = get(start(settings=Settings(keepalive=None, header_table_size=100))[0])
    assert after(conn, wire.headers_frame(1, b"\x3f\x45" + OK)) == [ResponseReceived(1, 200, ())]
    _, out, _ = http2.receive(conn, wire.headers_frame(1, OK), 1.0)
    assert out == wire.goaway(0, wire.COMPRESSION_ERROR)


@pytest.mark.parametrize("size", [0, 40, 100, 4096, 10_000, 65_536])
@pytest.mark.rfc("9113-6.5-2", "7541-6.3-3")
def test_the_peers_encoder_may_use_the_table_that_we_announced(size: int) -> None:
    """§4.3.1, §6.5.2: HEADER_TABLE_SIZE."""
    conn, data = http2.connect(ORIGIN, Settings(header_table_size=size, max_streams=1000), 0.0)
    peer = wire.Peer(data)
    conn, _, _ = http2.receive(conn, peer.announce() + wire.settings_ack(), 0.0)
    assert peer.announced.get(wire.HEADER_TABLE_SIZE, 4096) == size
    for number in range(60):
        conn, out, ref = http2.request(conn, "GET", "/", (), None, 0.0)
        peer.take(out)
        fields = (("x-number", str(number % 7)), ("x-long", "v" * (number % 5) * 50), ("server", "test"))
        events = after(conn, wire.frame(0x77) + (data := peer.head(ref, 200, *fields, end=True)))
        expected = tuple([(name.encode(), value.encode()) for name, value in fields])
        assert events == [ResponseReceived(ref, 200, expected), ResponseEnded(ref)]
        conn, _, _ = http2.receive(conn, data, 0.0)
        assert conn.decoder.entries[::-1] == tuple(peer.encoder.header_table.dynamic_entries)


@pytest.mark.fault("C11")
@pytest.mark.rfc("9113-4.3-3", "9113-5.1-8", "9113-5.4.2-2")
def test_the_tables_stay_in_step_for_streams_that_are_gone() -> None:
    """§4.3, §5.1: field blocks of dead streams are decoded."""
    conn, peer = start()
    for _ in range(5):
        conn, out, _ = http2.request(conn, "GET", "/", (), None, 0.0)
        peer.take(out)
    conn, out, _ = http2.cancel(conn, 1, 0.0)
    peer.take(out)
    conn, _, events = http2.receive(conn, peer.head(1, 200, ("x-dead", "1"), end=True), 1.0)
    assert events == []
    conn, _, events = http2.receive(conn, wire.rst_stream(3, 8) + peer.head(3, 404, ("x-dead", "2")), 1.0)
    assert [type(event) for event in events] == [RequestFailed]
    conn, _, _ = http2.receive(conn, peer.head(5, 200, ("x-dead", "3"), end=True), 1.0)
    assert after(conn, peer.fields(5, ("x-dead", "4"), end=True)) == []
    conn, _, _ = http2.receive(conn, wire.headers_frame(5, peer.block_of(("x-dead", "5")), end=True), 1.0)
    bad = wire.headers_frame(7, peer.block_of((":status", "200"), ("X-Dead", "6")))
    conn, _, events = http2.receive(conn, bad, 1.0)
    assert [type(event) for event in events] == [RequestFailed]


@pytest.mark.rfc("9113-4.3-3")
def test_a_sibling_may_refer_to_what_a_dead_stream_brought() -> None:
    """§4.3: the decoder's table belongs to the connection."""
    conn, peer = start()
    for _ in range(2):
        conn, out, _ = http2.request(conn, "GET", "/", (), None, 0.0)
        peer.take(out)
    conn, out, _ = http2.cancel(conn, 1, 0.0)
    peer.take(out)
    conn, _, _ = http2.receive(conn, peer.head(1, 200, ("x-dead", "1")), 1.0)
    reference = peer.head(3, 200, ("x-dead", "1"))
    assert len(reference) == 11, "two indices"
    assert after(conn, reference) == [ResponseReceived(3, 200, ((b"x-dead", b"1"),))]


@pytest.mark.rfc("9113-4.3-3")
def test_a_section_above_our_limit_fails_its_request_and_keeps_the_tables() -> None:
    """§10.5.1; §4.3: what is refused is still decoded."""
    conn, peer = start(settings=Settings(keepalive=None, max_field_section=200))
    for _ in range(2):
        conn, out, _ = http2.request(conn, "GET", "/", (), None, 0.0)
        peer.take(out)
    data = peer.head(1, 200, ("x-first", "1"), ("x-large", "v" * 200), ("x-last", "2"))
    conn, out, events = http2.receive(conn, data, 1.0)
    assert out == wire.rst_stream(1, wire.PROTOCOL_ERROR)
    assert [type(event) for event in events] == [RequestFailed]
    data = peer.head(3, 200, ("x-first", "1"), ("x-last", "2"))
    assert len(data) == 9 + 3, "indices"
    assert after(conn, data) == [ResponseReceived(3, 200, ((b"x-first", b"1"), (b"x-last", b"2")))]


@pytest.mark.rfc("9113-6.5.2-9")
def test_a_section_of_exactly_our_limits_is_taken() -> None:
    """§6.5.2: the size of a section is that of its names and values, and 32 for each field."""
    conn = get(start(settings=Settings(keepalive=None, max_field_section=200, max_fields=4))[0])
    room = 200 - len(b":status200") - 4 * 32 - 3
    fields = ((b":status", b"200"), (b"a", b"v" * room), (b"b", b""), (b"c", b""))
    assert len(after(conn, wire.headers_frame(1, wire.literals(*fields)))) == 1
    message = "malformed response: a field section above our limits: allowed are 200 bytes in 4 fields (§8.1.1)"
    for more in ((*fields[:3], (b"c", b"v")), (*fields[:1], (b"a", b""), *fields[2:], (b"d", b""))):
        data = wire.headers_frame(1, wire.literals(*more))
        assert faulted(conn, data, wire.PROTOCOL_ERROR, message) == []


def test_blocks_that_recur_say_the_same_every_time() -> None:
    """What is remembered of blocks must not be seen: not in other tables, not under other limits, not in the content."""
    block = wire.literals((b":status", b"200"), (b"content-length", b"5"), (b"server", b"recurs"))
    indexed = b"\x88\x40\x0fx-recurs-by-key\x01v"
    strict = Settings(max_fields=2)
    for _ in range(4):
        one = get(start()[0], 0.0, 2)
        assert after(one, wire.headers_frame(1, block), wire.data_frame(1, b"hello", end=True))[-1] == ResponseEnded(1)
        assert len(after(one, wire.headers_frame(1, block), wire.data_frame(1, b"hi", end=True))) == 3
        two, _, events = http2.receive(one, wire.headers_frame(1, indexed), 1.0)
        assert events == [ResponseReceived(1, 200, ((b"x-recurs-by-key", b"v"),))]
        assert after(two, wire.headers_frame(3, b"\x88\xbe")) == [
            ResponseReceived(3, 200, ((b"x-recurs-by-key", b"v"),))
        ]
        assert after(two, wire.headers_frame(3, b"\x88\xbe")) == after(two, wire.headers_frame(3, b"\x88\xbe"))
        few = get(start(settings=strict)[0])
        assert [type(event) for event in after(few, wire.headers_frame(1, block))] == [RequestFailed]
        small = get(start(settings=Settings(keepalive=None, header_table_size=0))[0])
        small, _, _ = http2.receive(small, wire.headers_frame(1, b"\x20" + indexed), 1.0)
        assert small.decoder.entries == ()


def test_many_different_blocks_are_read_as_well_as_the_first() -> None:
    """What is remembered is bounded; what falls out is read again."""
    conn = get(start()[0])
    for _ in range(3):
        for number in range(1200):
            value = b"%d" % number
            block = wire.literals((b":status", b"200"), (b"x-many", value))
            assert after(conn, wire.headers_frame(1, block)) == [ResponseReceived(1, 200, ((b"x-many", value),))]
    assert len(http2_head.blocks) <= 512
    assert len(http2_head.old_blocks) <= 512


def test_many_blocks_with_references_are_read_as_well_as_the_first() -> None:
    conn = get(start()[0], 0.0, 2)
    conn, _, _ = http2.receive(conn, wire.headers_frame(1, b"\x88\x40\x01x\x01v"), 1.0)
    for _ in range(3):
        for number in range(600):
            value = b"%d" % number
            block = b"\x88\xbe" + wire.literals((b"y", value))
            expected = ResponseReceived(3, 200, ((b"x", b"v"), (b"y", value)))
            assert after(conn, wire.headers_frame(3, block)) == [expected]
    assert len(conn.decoder.memo) <= 512


# §5.1 Stream states

FRAMES: Final = {
    "DATA": (wire.DATA, b"x", "receive DATA"),
    "HEADERS": (wire.HEADERS, OK, "receive HEADERS with 2xx"),
    "interim HEADERS": (wire.HEADERS, wire.literals((b":status", b"103")), "receive interim HEADERS"),
    "trailers": (wire.HEADERS, wire.literals((b"x", b"y")), "receive trailers"),
    "malformed HEADERS": (wire.HEADERS, wire.literals((b"X", b"y")), "receive trailers"),
    "RST_STREAM": (wire.RST_STREAM, bytes(4), "receive RST_STREAM"),
    "WINDOW_UPDATE": (wire.WINDOW_UPDATE, b"\0\0\0\1", "receive WINDOW_UPDATE"),
}


@pytest.mark.parametrize("name", FRAMES)
@pytest.mark.parametrize("ref", [2, 5, 6, 2**31 - 1, 2**31 - 2])
@pytest.mark.rfc("9113-5.1-10", "9113-5.1-1", "9113-5.1-2", "9113-5.1.1-3", "9113-6.4-5")
def test_an_idle_stream_has_nothing_to_say(name: str, ref: int) -> None:
    """§5.1: "Receiving any frame other than HEADERS or PRIORITY on a stream in this state MUST be treated as a
    connection error"; §5.1.1: HEADERS on a stream that only we may open, or that a push would need, likewise."""
    kind, payload, what = FRAMES[name]
    message = f"{what} on stream {ref}, which is idle (RFC 9113 §5.1)"
    assert terminated(pair(), wire.frame(kind, wire.END_HEADERS, ref, payload), wire.PROTOCOL_ERROR, message) == []


@pytest.mark.fault("A11")
@pytest.mark.parametrize("how", ["reset by us", "reset by the peer", "ended", "failed", "timed out"])
@pytest.mark.parametrize("name", FRAMES)
@pytest.mark.rfc("9113-5.1-8", "9113-5.1-11", "9113-5.4.2-2", "9113-6.4-2", "9113-6.9-4")
def test_a_closed_stream_is_not_heard_any_more(how: str, name: str) -> None:
    """§5.1: "An endpoint MUST minimally process and then discard any frames it receives in this state": no answer."""
    conn = get(start()[0], 0.0, 2)
    if how == "reset by us":
        conn = http2.cancel(conn, 1, 0.5)[0]
    elif how == "timed out":
        conn = http2.handle_timeout(get(start()[0], -60.0), 60.0)[0]
        conn = get(conn, 60.0)
    else:
        endings = {
            "reset by the peer": wire.rst_stream(1, 2),
            "ended": wire.headers_frame(1, OK, end=True),
            "failed": wire.data_frame(1, b"x"),
        }
        conn = http2.receive(conn, endings[how], 0.5)[0]
    kind, payload, _ = FRAMES[name]
    for flags in (0, wire.END_STREAM):
        data = wire.frame(kind, wire.END_HEADERS | flags, 1, payload) * 50
        conn, out, events = http2.receive(conn, data, 1.0)
        assert (conn.status, out, events) == (OPEN, b"", [])
        assert live(conn) == [3]


@pytest.mark.rfc("9113-6.3-3")
def test_priority_is_allowed_on_any_stream() -> None:
    """§5.1: PRIORITY "in the 'idle' state … closed state" too; §5.3.2: deprecated, and ignored."""
    conn = http2.cancel(pair(), 3, 0.5)[0]
    data = b"".join([wire.priority(ref) for ref in (1, 2, 3, 4, 5, 2**31 - 1)])
    conn, out, events = http2.receive(conn, data, 1.0)
    assert (conn.status, out, events, live(conn)) == (OPEN, b"", [], [1])


@pytest.mark.rfc("9113-5.1-7")
def test_half_closed_remote_is_over_for_us() -> None:
    """§5.1: after the peer's END_STREAM our content is not wanted; §8.1: the stream is reset, the response kept."""
    conn = upload(get(start()[0]), b"hello")
    conn, out, events = http2.receive(conn, wire.headers_frame(3, OK) + wire.data_frame(3, b"no", end=True), 1.0)
    assert out == wire.rst_stream(3, wire.CANCEL)
    assert events == [ResponseReceived(3, 200, ()), DataReceived(3, b"no"), ResponseEnded(3)]
    assert slots(conn) == (1, [], [])


# §5.4 Error handling


@pytest.mark.rfc("9113-5.4-1", "9113-5.4-2")
def test_what_came_before_a_connection_error_is_kept() -> None:
    """§5.4.1; DESIGN §3, law 6: "events decoded before it are kept"."""
    conn = pair()
    before = wire.headers_frame(1, OK, end=True) + wire.headers_frame(3, OK) + wire.data_frame(3, b"x") + wire.ping()
    conn, out, events = http2.receive(conn, before + wire.data_frame(0) + wire.ping(), 1.0)
    message = "DATA on stream 0 (§6.1) [PROTOCOL_ERROR]"
    assert events == [
        *(ResponseReceived(1, 200, ()), ResponseEnded(1), ResponseReceived(3, 200, ()), DataReceived(3, b"x")),
        RequestFailed(3, Failure("RemoteProtocolError", 1, message, 3)),
        ConnectionClosed(Failure("RemoteProtocolError", 1, message)),
    ]
    assert out == wire.ping(ack=True) + wire.goaway(0, wire.PROTOCOL_ERROR)
    assert conn.status == CLOSED


@pytest.mark.fault("A15")
@pytest.mark.rfc("9113-5.4.2-1")
def test_a_stream_error_ends_one_request() -> None:
    """§5.4.2."""
    conn, peer = start()
    conn, out, _ = http2.request(conn, "GET", "/", (), None, 0.0)
    peer.take(out)
    conn, out, _ = http2.request(conn, "GET", "/", (), None, 0.0)
    peer.take(out)
    conn, out, events = http2.receive(conn, wire.data_frame(1, b"x") + peer.head(3, end=True), 1.0)
    assert wire.kinds(out) == [(wire.RST_STREAM, 1)]
    assert [type(event) for event in events] == [RequestFailed, ResponseReceived, ResponseEnded]
    assert conn.live == 0


@pytest.mark.rfc("9113-5.4.2-4", "9113-6.4-1")
def test_no_reset_answers_a_reset() -> None:
    """§5.4.2: "To avoid looping, an endpoint MUST NOT send a RST_STREAM in response to a RST_STREAM frame"."""
    conn = upload(pair(), b"x" * 100_000)
    for ref in (1, 5, 1, 5):
        conn, out, _ = http2.receive(conn, wire.rst_stream(ref, wire.INTERNAL_ERROR), 1.0)
        assert wire.RST_STREAM not in [item.kind for item in wire.parse(out)]
    assert live(conn) == [3]


@pytest.mark.rfc("9113-5.4-1", "9113-5.4.2-3")
def test_one_reset_for_many_faults() -> None:
    """§5.4.2: "An endpoint SHOULD NOT send more than one RST_STREAM frame for any stream"."""
    message = "malformed response: receive DATA on stream 1, which is half-closed (local), awaiting the response"
    assert faulted(pair(), wire.data_frame(1, b"x") * 20, wire.PROTOCOL_ERROR, f"{message} (RFC 9113 §8.1)") == []


# §5.5 is with §4.1 and §4.3


# §6.1 DATA


@pytest.mark.rfc("9113-6.1-2")
def test_data_on_stream_0() -> None:
    """§6.1: "MUST respond with a connection error … of type PROTOCOL_ERROR"."""
    assert terminated(pair(), wire.data_frame(0, b"x"), wire.PROTOCOL_ERROR, "DATA on stream 0 (§6.1)") == []


@pytest.mark.parametrize("length", [1, 2, 100, 255])
@pytest.mark.rfc("9113-6.1-5")
def test_padding_as_long_as_the_payload(length: int) -> None:
    """§6.1: "If the length of the padding is the length of the frame payload or greater": PROTOCOL_ERROR."""
    conn, _, _ = http2.receive(pair(), wire.headers_frame(1, OK), 0.5)
    message = "DATA whose padding is as long as its payload (§6.1)"
    for padding in {length, 255}:
        data = wire.frame(wire.DATA, wire.PADDED, 1, bytes((padding,)) + bytes(length - 1))
        assert terminated(conn, data, wire.PROTOCOL_ERROR, message) == []
    data = wire.frame(wire.DATA, wire.PADDED, 1, bytes((length - 1,)) + bytes(length - 1))
    assert after(conn, data) == []


@pytest.mark.parametrize("padding", [0, 1, 255])
@pytest.mark.parametrize("content", [b"", b"hello"])
@pytest.mark.parametrize("size", [1, 2, 3, 9, 10, 1000])
def test_padding_is_taken_off_however_it_is_cut(padding: int, content: bytes, size: int) -> None:
    """§6.1: content without its padding, and END_STREAM only with the last octet."""
    conn, _, _ = http2.receive(pair(), wire.headers_frame(1, OK), 0.5)
    data = wire.data_frame(1, content, end=True, padding=padding)
    events: list[Event] = []
    for piece in wire.cuts(data, size):
        assert ResponseEnded(1) not in events
        conn, _, more = http2.receive(conn, piece, 1.0)
        events += more
    assert b"".join([event.data for event in events if isinstance(event, DataReceived)]) == content
    assert events[-1] == ResponseEnded(1)
    assert live(conn) == [3]


@pytest.mark.fault("G11")
def test_data_is_delivered_as_it_arrives() -> None:
    """Nothing waits for the end of a frame."""
    conn, _, _ = http2.receive(pair(), wire.headers_frame(1, OK), 0.5)
    data = wire.data_frame(1, b"0123456789") + wire.ping()
    seen: list[bytes] = []
    for place in range(len(data)):
        conn, _, events = http2.receive(conn, data[place : place + 1], 1.0)
        seen += [event.data for event in events if isinstance(event, DataReceived)]
    assert seen == [b"%d" % digit for digit in range(10)]


def test_a_stream_that_ends_within_a_frame_is_not_heard_of_again() -> None:
    """§5.1, after our reset in the middle of its DATA; the sibling's frame behind it is found."""
    conn, _, _ = http2.receive(pair(), wire.headers_frame(1, OK), 0.5)
    data = wire.data_frame(1, b"hello", end=True, padding=5)
    conn, _, events = http2.receive(conn, data[:12], 1.0)
    assert events == [DataReceived(1, b"he")]
    conn, _, _ = http2.cancel(conn, 1, 1.0)
    conn, out, events = http2.receive(conn, data[12:] + wire.headers_frame(3, OK), 1.0)
    assert (out, events) == (b"", [ResponseReceived(3, 200, ())])


def test_an_empty_data_frame_is_no_event() -> None:
    conn, _, _ = http2.receive(pair(), wire.headers_frame(1, OK), 0.5)
    conn, out, events = http2.receive(conn, wire.data_frame(1) + wire.data_frame(1, padding=0), 1.0)
    assert (out, events) == (b"", [])
    assert after(conn, wire.data_frame(1, end=True)) == [ResponseEnded(1)]


# §6.2 HEADERS


@pytest.mark.rfc("9113-6.2-4")
def test_headers_on_stream_0() -> None:
    """§6.2: connection error PROTOCOL_ERROR."""
    message = "HEADERS on stream 0 (§6.2)"
    assert terminated(pair(), wire.headers_frame(0, OK), wire.PROTOCOL_ERROR, message) == []


@pytest.mark.parametrize("flags", [0, wire.PRIORITY_FLAG, wire.PADDED, wire.PADDED | wire.PRIORITY_FLAG])
@pytest.mark.parametrize("padding", [0, 1, 255])
@pytest.mark.parametrize("done", [True, False])
def test_padding_and_priority_are_taken_off(flags: int, padding: int, done: bool) -> None:
    """§6.2: both are fields of the frame, not of the field block."""
    payload = (bytes(5) if flags & wire.PRIORITY_FLAG else b"") + OK
    if flags & wire.PADDED:
        payload = bytes((padding,)) + payload + bytes(padding)
    data = wire.frame(wire.HEADERS, flags | (wire.END_HEADERS if done else 0), 1, payload)
    rest = b"" if done else wire.continuation(1, wire.literal(b"x", b"y"))
    expected = ResponseReceived(1, 200, () if done else ((b"x", b"y"),))
    assert after(pair(), data, rest) == [expected]


@pytest.mark.parametrize("size", [1, 2, 10])
@pytest.mark.rfc("9113-6.2-5")
def test_padding_of_headers_as_long_as_the_payload(size: int) -> None:
    """§6.2: "Padding that exceeds the size remaining for the field block fragment MUST be treated as a PROTOCOL_ERROR"."""
    data = wire.frame(wire.HEADERS, wire.PADDED | wire.END_HEADERS, 1, bytes((size,)) + bytes(size - 1))
    message = f"HEADERS: padding of {size} in a payload of {size} bytes (§6.1)"
    assert terminated(pair(), data, wire.PROTOCOL_ERROR, message) == []
    data = wire.frame(wire.HEADERS, wire.PADDED | wire.END_HEADERS, 1, bytes((size,)) + OK + bytes(size))
    assert after(pair(), data) == [ResponseReceived(1, 200, ())]


@pytest.mark.parametrize("size", [0, 4])
@pytest.mark.rfc("9113-4.2-2", "9113-4.2-3")
def test_headers_too_short_for_their_priority(size: int) -> None:
    """§4.2: too small to contain mandatory frame data."""
    data = wire.frame(wire.HEADERS, wire.PRIORITY_FLAG | wire.END_HEADERS, 1, bytes(size))
    assert terminated(pair(), data, wire.FRAME_SIZE_ERROR, "HEADERS too short for its priority (§6.2)") == []
    padded = wire.frame(wire.HEADERS, wire.PADDED | wire.PRIORITY_FLAG | wire.END_HEADERS, 1, bytes((3,)) + bytes(7))
    message = "HEADERS whose padding reaches into its priority (§6.2)"
    assert terminated(pair(), padded, wire.PROTOCOL_ERROR, message) == []
    enough = wire.frame(wire.HEADERS, wire.PRIORITY_FLAG, 1, bytes(5)) + wire.continuation(1, OK)
    assert after(pair(), enough) == [ResponseReceived(1, 200, ())]


@pytest.mark.parametrize("count", [1, 2, 10])
@pytest.mark.rfc("9113-6.2-6")
def test_end_stream_on_headers_counts_when_the_block_is_complete(count: int) -> None:
    """§6.2: "A HEADERS frame with the END_STREAM flag set … can be followed by CONTINUATION frames"."""
    conn, _, events = http2.receive(pair(), wire.headers_frame(1, OK, end=True, done=False), 1.0)
    assert events == []
    data = b"".join([wire.continuation(1, b"", done=number == count) for number in range(1, count + 1)])
    assert after(conn, data) == [ResponseReceived(1, 200, ()), ResponseEnded(1)]


# §6.3 PRIORITY


@pytest.mark.rfc("9113-6.3-1")
def test_priority_on_stream_0() -> None:
    """§6.3: connection error PROTOCOL_ERROR."""
    assert terminated(pair(), wire.priority(0), wire.PROTOCOL_ERROR, "PRIORITY on stream 0 (§6.3)") == []


@pytest.mark.parametrize("size", [0, 4, 6])
@pytest.mark.rfc("9113-6.3-2")
def test_priority_of_another_size(size: int) -> None:
    """§6.3: "a length other than 5 octets MUST be treated as a stream error … of type FRAME_SIZE_ERROR"."""
    data = wire.frame(wire.PRIORITY, 0, 1, bytes(size))
    message = f"PRIORITY of {size} bytes, allowed are 5 (§6.3)"
    assert faulted(pair(), data, wire.FRAME_SIZE_ERROR, message) == []
    for ref in (2, 5):
        conn, out, events = http2.receive(pair(), wire.frame(wire.PRIORITY, 0, ref, bytes(size)), 1.0)
        assert (conn.status, out, events) == (OPEN, b"", [])


# §6.4 RST_STREAM


@pytest.mark.rfc("9113-6.4-3")
def test_rst_stream_on_stream_0() -> None:
    """§6.4: connection error PROTOCOL_ERROR."""
    assert terminated(pair(), wire.rst_stream(0, 0), wire.PROTOCOL_ERROR, "RST_STREAM on stream 0 (§6.4)") == []


@pytest.mark.parametrize(
    ("code", "name"),
    [
        *((0, "NO_ERROR"), (1, "PROTOCOL_ERROR"), (7, "REFUSED_STREAM"), (8, "CANCEL"), (13, "HTTP_1_1_REQUIRED")),
        *((14, "error code 0xe"), (2**32 - 1, "error code 0xffffffff")),
    ],
)
@pytest.mark.rfc("9113-7-1", "9113-8.7-2", "9113-8.7-3")
def test_a_reset_by_the_peer_fails_the_request(code: int, name: str) -> None:
    """§6.4; §7: unknown codes have no special meaning; §8.7: only REFUSED_STREAM says that nothing was done."""
    conn, out, events = http2.receive(pair(), wire.rst_stream(1, code), 1.0)
    failure = Failure("StreamReset", code, f"GET /: the peer reset stream 1 [{name}]", 1, code == wire.REFUSED_STREAM)
    assert (out, events) == (b"", [RequestFailed(1, failure)])
    assert (conn.status, live(conn), http2.capacity(conn)) == (OPEN, [3], 99)


@pytest.mark.fault("G6")
@pytest.mark.rfc("9113-8.1-7")
def test_a_complete_response_wins_over_a_later_reset() -> None:
    """§8.1: "Clients MUST NOT discard responses as a result of receiving such a RST_STREAM"."""
    conn = upload(start()[0], b"x" * 100_000)
    head = wire.headers_frame(1, wire.literals((b":status", b"413")))
    data = head + wire.data_frame(1, b"too large", end=True) + wire.rst_stream(1, wire.NO_ERROR)
    expected = [ResponseReceived(1, 413, ()), DataReceived(1, b"too large"), ResponseEnded(1)]
    for size in (len(data), 1):
        events: list[Event] = []
        each = conn
        for piece in wire.cuts(data, size):
            each, _, more = http2.receive(each, piece, 1.0)
            events += more
        joined = b"".join([event.data for event in events if isinstance(event, DataReceived)])
        assert [event for event in events if not isinstance(event, DataReceived)] == [expected[0], expected[2]]
        assert joined == b"too large"


# §6.5 SETTINGS


@pytest.mark.parametrize("ref", [1, 3, 5])
@pytest.mark.rfc("9113-6.5-7")
def test_settings_on_a_stream(ref: int) -> None:
    """§6.5: "MUST respond with a connection error … of type PROTOCOL_ERROR"."""
    message = f"SETTINGS on stream {ref} (§6.5)"
    for flags in (0, wire.ACK):
        assert terminated(pair(), wire.frame(wire.SETTINGS, flags, ref), wire.PROTOCOL_ERROR, message) == []


@pytest.mark.parametrize("size", [1, 5, 7, 11])
@pytest.mark.rfc("9113-6.5-8", "9113-6.5-9", "9113-4.2-3")
def test_settings_of_another_size(size: int) -> None:
    """§6.5: "a length other than a multiple of 6 octets": FRAME_SIZE_ERROR."""
    message = f"SETTINGS of {size} bytes, allowed are multiples of 6"
    assert terminated(pair(), wire.frame(wire.SETTINGS, 0, 0, bytes(size)), wire.FRAME_SIZE_ERROR, message) == []


@pytest.mark.parametrize("size", [1, 6])
@pytest.mark.rfc("9113-6.5-5")
def test_an_ack_with_content(size: int) -> None:
    """§6.5: "a field value other than 0 for the length": FRAME_SIZE_ERROR."""
    message = f"SETTINGS with ACK and {size} bytes (§6.5)"
    data = wire.frame(wire.SETTINGS, wire.ACK, 0, bytes(size))
    assert terminated(pair(), data, wire.FRAME_SIZE_ERROR, message) == []


@pytest.mark.rfc("9113-6.5.3-5")
def test_an_ack_is_taken_in_silence() -> None:
    """§6.5.3; one that answers nothing, too."""
    conn, out, events = http2.receive(pair(), wire.settings_ack() * 2, 1.0)
    assert (conn.status, out, events) == (OPEN, b"", [])


@pytest.mark.rfc("9113-6.5-4", "9113-6.5.3-4")
def test_each_settings_is_acknowledged_at_once() -> None:
    """§6.5.3: "the recipient MUST immediately emit a SETTINGS frame with the ACK flag set"."""
    conn, out, events = http2.receive(pair(), wire.settings() + wire.settings((6, 100)) + wire.settings(), 1.0)
    assert out == wire.settings_ack() * 3
    assert events == [SettingsReceived(()), SettingsReceived(((6, 100),)), SettingsReceived(())]
    assert conn.peer.max_field_section == 100


@pytest.mark.rfc("9113-6.5-3", "9113-6.5.3-2")
def test_settings_are_applied_in_their_order() -> None:
    """§6.5.3: "the values … MUST be processed in the order they appear"; the last of a name stands."""
    pairs = ((4, 1), (5, 20_000), (4, 100), (3, 9), (5, 30_000), (3, 8), (6, 5), (4, 77))
    conn, _, events = http2.receive(pair(), wire.settings(*pairs), 1.0)
    peer = conn.peer
    assert (peer.limit, peer.initial_window, peer.max_frame_size, peer.max_field_section) == (8, 77, 30_000, 5)
    assert events == [SettingsReceived(pairs)]


@pytest.mark.parametrize("name", [0, 7, 9, 10, 0xFFFF])
@pytest.mark.rfc("9113-5.5-1", "9113-6.5.2-10", "9113-6.5.3-3")
def test_unknown_settings_are_ignored(name: int) -> None:
    """§6.5.2: "An endpoint that receives a SETTINGS frame with any unknown or unsupported identifier MUST ignore"."""
    conn = pair()
    later, out, events = http2.receive(conn, wire.settings((name, 1)), 1.0)
    assert (later.peer, out) == (conn.peer, wire.settings_ack())
    assert events == [SettingsReceived(((name, 1),))]


REFUSED: Final = [
    (wire.ENABLE_PUSH, 1, 1, "a server's ENABLE_PUSH=1, allowed is 0 (§6.5.2)"),
    (wire.ENABLE_PUSH, 2, 1, "a server's ENABLE_PUSH=2, allowed is 0 (§6.5.2)"),
    (wire.INITIAL_WINDOW_SIZE, 2**31, 3, "INITIAL_WINDOW_SIZE=2147483648, allowed are 2^31-1 (§6.5.2)"),
    (wire.INITIAL_WINDOW_SIZE, 2**32 - 1, 3, "INITIAL_WINDOW_SIZE=4294967295, allowed are 2^31-1 (§6.5.2)"),
    (wire.MAX_FRAME_SIZE, 0, 1, "MAX_FRAME_SIZE=0, allowed are 16384 to 16777215 (§6.5.2)"),
    (wire.MAX_FRAME_SIZE, 16_383, 1, "MAX_FRAME_SIZE=16383, allowed are 16384 to 16777215 (§6.5.2)"),
    (wire.MAX_FRAME_SIZE, 2**24, 1, "MAX_FRAME_SIZE=16777216, allowed are 16384 to 16777215 (§6.5.2)"),
]


@pytest.mark.fault("C7", "C10")
@pytest.mark.parametrize(("name", "value", "code", "message"), REFUSED)
@pytest.mark.rfc("9113-6.5.2-3", "9113-6.5.2-4", "9113-6.5.2-6", "9113-6.5.2-8")
def test_settings_out_of_range(name: int, value: int, code: int, message: str) -> None:
    """§6.5.2: each with its own connection error. It is not acknowledged."""
    conn = upload(start()[0], b"x" * 100_000)
    assert terminated(conn, wire.settings((3, 5), (name, value)), code, message) == []
    assert wire.settings_ack() not in http2.receive(conn, wire.settings((name, value)), 1.0)[1]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (1, 0),
        (1, 2**32 - 1),
        (2, 0),
        (3, 0),
        (3, 2**32 - 1),
        (4, 0),
        (4, 2**31 - 1),
        (5, 16_384),
        (5, 2**24 - 1),
        (6, 0),
    ],
)
def test_settings_at_the_ends_of_their_range(name: int, value: int) -> None:
    """§6.5.2."""
    conn, out, events = http2.receive(pair(), wire.settings((name, value)), 1.0)
    assert (conn.status, out) == (OPEN, wire.settings_ack())
    assert events == [SettingsReceived(((name, value),))]


@pytest.mark.fault("C9")
@pytest.mark.rfc("9113-4.3.1-1", "9113-6.5.2-1", "7541-4.2-2", "7541-4.2-3", "7541-6.3-1")
def test_our_encoder_follows_the_peers_table_size() -> None:
    """§4.3.1; RFC 7541 §4.2: a change is announced by the next block, the smallest size first; `hpack` checks it."""
    conn, peer = start(settings=MANY)
    for sizes in ((), (0,), (4096,), (100,), (50, 4096), (0, 0), (65_536,), (30, 200)):
        for size in sizes:
            conn, out, _ = http2.receive(conn, peer.announce((wire.HEADER_TABLE_SIZE, size)), 1.0)
            peer.take(out)
        for number in range(4):
            fields = ((b"x-same", b"value"), (b"x-number", b"%d" % number))
            conn, out, ref = http2.request(conn, "GET", f"/{number}", fields, None, 1.0)
            peer.take(out)
            assert peer.requests[ref].fields[-2:] == fields
            assert peer.requests[ref].fields[3] == (b":path", b"/%d" % number)


# §6.6 PUSH_PROMISE


@pytest.mark.parametrize("ref", [0, 1, 2, 5])
@pytest.mark.rfc("9113-6.5.2-2", "9113-6.6-3")
def test_a_push_is_refused(ref: int) -> None:
    """§6.6, §8.4: we said ENABLE_PUSH=0; "MUST treat the receipt of a PUSH_PROMISE frame as a connection error"."""
    message = f"PUSH_PROMISE on stream {ref} although push is off (§8.4)"
    assert terminated(pair(), wire.push_promise(ref, 2, OK), wire.PROTOCOL_ERROR, message) == []


# §6.7 PING


@pytest.mark.rfc("9113-6.7-2")
def test_a_ping_is_answered_with_the_same_payload() -> None:
    """§6.7: "MUST send a PING frame with the ACK flag set in response, with an identical frame payload"."""
    conn, out, events = http2.receive(pair(), wire.ping(b"abcdefgh") + wire.ping(bytes(8)), 1.0)
    assert out == wire.ping(b"abcdefgh", ack=True) + wire.ping(bytes(8), ack=True)
    assert events == []


@pytest.mark.rfc("9113-6.7-4")
def test_an_ack_is_not_answered() -> None:
    """§6.7: "MUST NOT respond to PING frames containing this flag"."""
    _, out, events = http2.receive(pair(), wire.ping(b"abcdefgh", ack=True), 1.0)
    assert (out, events) == (b"", [])


@pytest.mark.rfc("9113-6.7-5")
def test_ping_on_a_stream() -> None:
    """§6.7: connection error PROTOCOL_ERROR."""
    data = wire.frame(wire.PING, 0, 1, bytes(8))
    assert terminated(pair(), data, wire.PROTOCOL_ERROR, "PING on stream 1 (§6.7)") == []


@pytest.mark.parametrize("size", [0, 7, 9])
@pytest.mark.parametrize("flags", [0, wire.ACK])
@pytest.mark.rfc("9113-6.7-6")
def test_ping_of_another_size(size: int, flags: int) -> None:
    """§6.7: FRAME_SIZE_ERROR."""
    data = wire.frame(wire.PING, flags, 0, bytes(size))
    message = f"PING of {size} bytes, allowed are 8 (§6.7)"
    assert terminated(pair(), data, wire.FRAME_SIZE_ERROR, message) == []


# §6.8 GOAWAY: see also test_http2_state.py


@pytest.mark.rfc("9113-6.8-4")
def test_goaway_on_a_stream() -> None:
    """§6.8: connection error PROTOCOL_ERROR."""
    data = wire.frame(wire.GOAWAY, 0, 1, bytes(8))
    assert terminated(pair(), data, wire.PROTOCOL_ERROR, "GOAWAY on stream 1 (§6.8)") == []


@pytest.mark.parametrize("size", [0, 4, 7])
@pytest.mark.rfc("9113-4.2-2", "9113-4.2-3")
def test_goaway_too_short(size: int) -> None:
    """§4.2: too small to contain mandatory frame data."""
    message = f"GOAWAY of {size} bytes, allowed are 8 or more (§6.8)"
    assert terminated(pair(), wire.frame(wire.GOAWAY, 0, 0, bytes(size)), wire.FRAME_SIZE_ERROR, message) == []


@pytest.mark.parametrize("code", [0, 11, 14, 2**32 - 1])
@pytest.mark.rfc("9113-7-1")
def test_goaway_with_any_code(code: int) -> None:
    """§7: unknown codes have no special meaning."""
    conn, _, events = http2.receive(pair(), wire.goaway(3, code, b"debug"), 1.0)
    assert events == [GoAwayReceived(3, code, b"debug")]
    assert live(conn) == [1, 3]


# §6.9 WINDOW_UPDATE; §5.2


@pytest.mark.rfc("9113-6.9-2", "9113-6.9-3")
def test_an_increment_of_0() -> None:
    """§6.9: a stream error PROTOCOL_ERROR; for the connection's window a connection error."""
    assert faulted(pair(), wire.window_update(1, 0), wire.PROTOCOL_ERROR, "WINDOW_UPDATE of 0 (§6.9)") == []
    message = "WINDOW_UPDATE of 0 for the connection (§6.9)"
    assert terminated(pair(), wire.window_update(0, 0), wire.PROTOCOL_ERROR, message) == []


@pytest.mark.fault("B7")
@pytest.mark.rfc("9113-6.9.1-2", "9113-6.9.1-3")
def test_a_stream_window_above_its_maximum() -> None:
    """§6.9.1: "it MUST terminate either the stream or the connection": RST_STREAM with FLOW_CONTROL_ERROR."""
    room = wire.MAX_WINDOW - 65_535
    conn, _, events = http2.receive(pair(), wire.window_update(1, room), 1.0)
    assert events == []
    assert http2.snapshot(conn, 1.0).requests[0].send_window == wire.MAX_WINDOW
    message = "the stream's window above 2^31-1 (§6.9.1)"
    assert faulted(conn, wire.window_update(1, 1), wire.FLOW_CONTROL_ERROR, message) == []
    assert faulted(pair(), wire.window_update(1, room + 1), wire.FLOW_CONTROL_ERROR, message) == []


@pytest.mark.rfc("9113-6.9-3", "9113-6.9.1-2", "9113-6.9.1-3")
def test_the_connections_window_above_its_maximum() -> None:
    """§6.9.1: GOAWAY with FLOW_CONTROL_ERROR."""
    room = wire.MAX_WINDOW - 65_535
    conn, _, events = http2.receive(pair(), wire.window_update(0, room), 1.0)
    assert (events, conn.send_window) == ([], wire.MAX_WINDOW)
    message = "the connection's window above 2^31-1 (§6.9.1)"
    assert terminated(conn, wire.window_update(0, 1), wire.FLOW_CONTROL_ERROR, message) == []


@pytest.mark.rfc("9113-6.9.2-5")
def test_a_settings_that_lifts_a_stream_window_above_its_maximum() -> None:
    """§6.9.2: "any flow-control window to exceed the maximum size": connection error FLOW_CONTROL_ERROR."""
    conn, _, _ = http2.receive(pair(), wire.window_update(3, 10), 1.0)
    largest = wire.MAX_WINDOW - 10
    later, _, _ = http2.receive(conn, wire.settings((wire.INITIAL_WINDOW_SIZE, largest)), 1.0)
    assert later.status == OPEN
    message = "the window of stream 3 above 2^31-1 (§6.9.2)"
    data = wire.settings((wire.INITIAL_WINDOW_SIZE, largest + 1))
    assert terminated(conn, data, wire.FLOW_CONTROL_ERROR, message) == []


def test_a_window_that_was_used_has_room_again() -> None:
    """§6.9.1: the window counts, not the sum of the increments."""
    conn = upload(start()[0], b"x" * 1000)
    conn, _, _ = http2.receive(conn, wire.window_update(1, wire.MAX_WINDOW - 64_535), 1.0)
    assert http2.snapshot(conn, 1.0).requests[0].send_window == wire.MAX_WINDOW


def sent(data: bytes, ref: int = 1) -> int:
    """How much content an output has for this stream."""
    return sum([len(item.payload) for item in wire.parse(data) if item.kind == wire.DATA and item.ref == ref])


@pytest.mark.fault("B3")
@pytest.mark.rfc("9113-6.9.2-3")
def test_a_window_that_became_negative_is_respected() -> None:
    """§6.9.2: "A sender MUST track the negative flow-control window and MUST NOT send … until" it is positive."""
    conn, peer = start()
    conn, out, _ = http2.request(conn, "PUT", "/", (), b"x" * 100_000, 0.0)
    peer.take(out + http2.flush(conn, 0.0)[1])
    conn, _, _ = http2.flush(conn, 0.0)
    conn, out, _ = http2.receive(conn, peer.announce((wire.INITIAL_WINDOW_SIZE, 1000)) + peer.widen(0, 100_000), 1.0)
    peer.take(out)
    assert http2.snapshot(conn, 1.0).requests[0].send_window == 1000 - 65_535
    for _ in range(40):
        conn, out, _ = http2.receive(conn, peer.widen(1, 1000), 1.0)
        assert out == b""
    conn, out, _ = http2.receive(conn, peer.widen(1, 24_535), 1.0)
    assert (out, http2.snapshot(conn, 1.0).requests[0].send_window) == (b"", 0)
    conn, out, _ = http2.receive(conn, peer.widen(1, 1), 1.0)
    peer.take(out)
    assert out == wire.data_frame(1, b"x")
    conn, out, _ = http2.receive(conn, peer.announce((wire.INITIAL_WINDOW_SIZE, 1001)), 1.0)
    assert out == wire.settings_ack() + wire.data_frame(1, b"x")
    peer.take(out)
    conn, out, _ = http2.receive(conn, peer.announce((wire.INITIAL_WINDOW_SIZE, 100_000)), 1.0)
    peer.take(out)
    assert peer.requests[1].content == b"x" * 100_000
    assert peer.requests[1].ended


@pytest.mark.fault("B6")
@pytest.mark.rfc("9113-6.9.2-2", "9113-6.9.2-4")
def test_settings_change_streams_and_not_the_connection() -> None:
    """§6.9.2: "A SETTINGS frame cannot alter the connection flow-control window"."""
    conn = upload(pair(), b"x" * 10)
    conn, _, _ = http2.receive(conn, wire.window_update(1, 7) + wire.settings((wire.INITIAL_WINDOW_SIZE, 1000)), 1.0)
    snapshot = http2.snapshot(conn, 1.0)
    assert [request.send_window for request in snapshot.requests] == [1007, 1000, 990]
    assert snapshot.send_window == 65_525
    conn = get(conn, 1.0)
    assert http2.snapshot(conn, 1.0).requests[3].send_window == 1000


@pytest.mark.fault("B11")
def test_a_connection_window_wakes_those_that_wait_for_it() -> None:
    """§6.9: whoever waits goes on with the batch that brings the credit."""
    conn, peer = start()
    for _ in range(3):
        conn, out, _ = http2.request(conn, "PUT", "/", (), b"x" * 40_000, 0.0)
        peer.take(out)
    assert [len(peer.requests[ref].content) for ref in (1, 3, 5)] == [40_000, 25_535, 0]
    conn, out, events = http2.receive(conn, peer.widen(0, 54_465), 1.0)
    peer.take(out)
    assert [peer.requests[ref].ended for ref in (1, 3, 5)] == [True, True, True]
    assert conn.send_window == 0
    assert events == []


@pytest.mark.rfc("9113-6.9-4")
def test_an_update_for_a_stream_without_content_changes_its_window_only() -> None:
    conn = pair()
    conn, out, events = http2.receive(conn, wire.window_update(1, 5), 1.0)
    assert (out, events) == (b"", [])
    assert http2.snapshot(conn, 1.0).requests[0].send_window == 65_540


def test_an_update_is_a_sign_of_life() -> None:
    """DESIGN §6: "no content, fields or window came"."""
    conn, _, _ = http2.receive(upload(start()[0]), wire.window_update(1, 5), 7.0)
    assert http2.snapshot(conn, 10.0).requests[0].silence == 3.0


@pytest.mark.fault("B15")
def test_an_update_while_nothing_waits_sends_nothing() -> None:
    conn = upload(start()[0])
    conn, out, events = http2.receive(conn, wire.window_update(1, 5) + wire.window_update(0, 5), 1.0)
    assert (out, events) == (b"", [])


def test_content_that_waited_and_left_is_told() -> None:
    conn, _ = start((wire.INITIAL_WINDOW_SIZE, 3))
    conn = upload(conn, b"hello")
    conn, out, events = http2.receive(conn, wire.window_update(1, 1), 1.0)
    assert (out, events) == (wire.data_frame(1, b"l"), [])
    conn, out, events = http2.receive(conn, wire.window_update(1, 1), 1.0)
    assert (out, events) == (wire.data_frame(1, b"o"), [WindowOpened(1)])


# §6.9 from the other side: what we give


def test_data_above_the_connections_window() -> None:
    """§6.9.1: a receiver MAY end the connection with FLOW_CONTROL_ERROR. Both sides of the limit."""
    conn = altered(get(start()[0]), recv_window=10)
    conn, _, _ = http2.receive(conn, wire.headers_frame(1, OK), 1.0)
    assert after(conn, wire.data_frame(1, b"x" * 10)) == [DataReceived(1, b"x" * 10)]
    message = "1 bytes above the connection's window (§6.9)"
    assert terminated(conn, wire.data_frame(1, b"x" * 11), wire.FLOW_CONTROL_ERROR, message) == []
    assert terminated(conn, wire.data_frame(1, b"", padding=10), wire.FLOW_CONTROL_ERROR, message) == []


@pytest.mark.parametrize("padding", [None, 0, 100])
@pytest.mark.rfc("9113-6.1-4")
def test_data_above_a_streams_window(padding: int | None) -> None:
    """§6.9.1: RST_STREAM with FLOW_CONTROL_ERROR; padding counts (§6.1). Both sides of the limit."""
    extra = 0 if padding is None else padding + 1
    conn = get(start(settings=Settings(keepalive=None, stream_window=1000))[0], 0.0, 2)
    conn, _, _ = http2.receive(conn, wire.headers_frame(1, OK) + wire.data_frame(1, b"x" * 400), 1.0)
    fits = b"x" * (600 - extra)
    assert after(conn, wire.data_frame(1, fits, padding=padding)) == [DataReceived(1, fits)]
    message = "1 bytes above its window (§6.9)"
    assert faulted(conn, wire.data_frame(1, fits + b"x", padding=padding), wire.FLOW_CONTROL_ERROR, message) == []


def test_the_connection_is_credited_on_arrival_at_half_its_window() -> None:
    """§6.9; DESIGN §6: four unread downloads must not stop the fifth."""
    conn, _ = start(settings=Settings(keepalive=None, stream_window=65_535, connection_window=65_535))
    conn, _, _ = http2.receive(get(conn, 0.0, 5), wire.headers_frame(1, OK) + wire.headers_frame(3, OK), 1.0)
    conn, out, _ = http2.receive(conn, wire.data_frame(1, b"x" * 16_384), 1.0)
    conn, out, _ = http2.receive(conn, wire.data_frame(3, b"x" * 16_383), 1.0)
    assert (out, conn.recv_window) == (b"", 32_768)
    conn, out, _ = http2.receive(conn, wire.data_frame(3, b"x"), 1.0)
    assert out == wire.window_update(0, 32_768)
    assert conn.recv_window == 65_535


DEAD: Final = {
    "cancelled": 1,
    "never answered": 3,
    "ended": 5,
    "reset by the peer": 7,
    "live": 9,
}


@pytest.mark.fault("B1")
@pytest.mark.parametrize("name", DEAD)
@pytest.mark.parametrize("padding", [None, 200])
@pytest.mark.rfc("9113-6.9-5")
def test_every_byte_is_credited_to_the_connection_once(name: str, padding: int | None) -> None:
    """§6.9: streams dead or alive, padding included; ten times the window passes."""
    conn, data = http2.connect(ORIGIN, Settings(stream_window=2**31 - 1, connection_window=65_535), 0.0)
    peer = wire.Peer(data)
    conn, _, _ = http2.receive(conn, peer.announce() + wire.settings_ack(), 0.0)
    for _ in range(5):
        conn, out, _ = http2.request(conn, "GET", "/", (), None, 0.0)
        peer.take(out)
    conn, out, _ = http2.cancel(conn, 1, 0.0)
    peer.take(out)
    conn, _, _ = http2.receive(conn, wire.rst_stream(7, 8) + peer.head(5, end=True) + peer.head(9), 0.0)
    ref = DEAD[name]
    for _ in range(65):
        conn, out, _ = http2.receive(conn, peer.data(ref, b"x" * 10_000, padding=padding), 1.0)
        peer.take(out)
        assert conn.recv_window == peer.sends[0]
        assert 32_767 < peer.sends[0] <= 65_535
    assert set(peer.credit) >= {0, ref}
    assert sum([peer.credit[number] for number in peer.credit if number]) == 0, "nothing was consumed"


def test_a_stream_whose_window_padding_alone_has_used_is_opened_again() -> None:
    """§6.9: padding is flow-controlled (§6.1), and no reader will ever give it back."""
    conn, peer = start(settings=Settings(keepalive=None, stream_window=1000))
    conn, out, _ = http2.request(conn, "GET", "/", (), None, 0.0)
    peer.take(out)
    conn, _, _ = http2.receive(conn, peer.head(1), 1.0)
    for _ in range(20):
        assert peer.room(1) >= 256, "the peer is stuck, and nothing is unread"
        conn, out, _ = http2.receive(conn, peer.data(1, b"", padding=255), 1.0)
        peer.take(out)
    assert conn.live == 1


@pytest.mark.rfc("9113-5.1-7")
def test_a_stream_that_ends_is_not_credited_for_its_padding() -> None:
    """§5.1: "An endpoint MUST NOT send frames other than PRIORITY on a closed stream"."""
    conn = get(start(settings=Settings(keepalive=None, stream_window=300))[0])
    conn, _, _ = http2.receive(conn, wire.headers_frame(1, OK), 1.0)
    conn, out, events = http2.receive(conn, wire.data_frame(1, b"x", end=True, padding=255), 1.0)
    assert (out, events) == (b"", [DataReceived(1, b"x"), ResponseEnded(1)])


# §6.10 CONTINUATION


@pytest.mark.rfc("9113-6.10-3", "9113-6.10-4")
def test_continuation_without_headers() -> None:
    """§6.10: connection error PROTOCOL_ERROR; after END_HEADERS as well."""
    message = "CONTINUATION without HEADERS (§6.10)"
    assert terminated(pair(), wire.continuation(1, OK), wire.PROTOCOL_ERROR, message) == []
    assert terminated(pair(), wire.continuation(0, OK), wire.PROTOCOL_ERROR, message) == []
    data = wire.headers_frame(1, OK) + wire.continuation(1, b"")
    assert terminated(pair(), data, wire.PROTOCOL_ERROR, message) == [ResponseReceived(1, 200, ())]
    data = wire.headers_frame(1, b"", done=False) + wire.continuation(1, OK) + wire.continuation(1, b"")
    assert terminated(pair(), data, wire.PROTOCOL_ERROR, message) == [ResponseReceived(1, 200, ())]


@pytest.mark.parametrize("size", [1, 2, 7])
@pytest.mark.rfc("9113-4.3-2")
def test_a_block_in_fragments(size: int) -> None:
    """§4.3: "concatenating" them; a field may be cut anywhere."""
    fields = ((b":status", b"200"), (b"server", b"test"), (b"x", b"y" * 20))
    first, *rest = wire.cuts(wire.literals(*fields), size)
    data = wire.headers_frame(1, first, done=False)
    for number, piece in enumerate(rest, 1):
        data += wire.continuation(1, piece, done=number == len(rest))
    if len(rest) < 64:
        assert after(pair(), data) == [ResponseReceived(1, 200, fields[1:])]
    else:
        assert [type(event) for event in after(pair(), data)] == [RequestFailed, RequestFailed, ConnectionClosed]


@pytest.mark.fault("I1")
@pytest.mark.parametrize("fragment", [b"", b"\x88"], ids=["empty", "one byte"])
def test_a_block_in_too_many_fragments(fragment: bytes) -> None:
    """§10.5.1: a limit on the count, the empty ones counted. Both sides of it."""
    block = wire.headers_frame(1, wire.literals((b":status", b"200")), done=False)
    more = wire.continuation(1, wire.literals((b"x", b"")) if fragment else b"", done=False)
    conn, out, events = http2.receive(pair(), block + more * 62, 1.0)
    assert (conn.status, out, events) == (OPEN, b"", [])
    last = after(conn, wire.continuation(1, b""))
    assert last == [ResponseReceived(1, 200, ((b"x", b""),) * 62 if fragment else ())]
    conn, _, _ = http2.receive(conn, more, 1.0)
    size = 13 + (63 * 4 if fragment else 0)
    message = f"a field block of {size} bytes in 65 frames: allowed are 65536 in 64 (§10.5.1)"
    for done in (True, False):
        assert terminated(conn, wire.continuation(1, b"", done), wire.ENHANCE_YOUR_CALM, message) == []


def test_a_block_of_too_many_bytes() -> None:
    """§10.5.1: a limit on the bytes that are kept of a block. Both sides of it."""
    conn = get(start(settings=Settings(keepalive=None, max_field_section=1000))[0])
    conn, _, _ = http2.receive(conn, wire.headers_frame(1, OK + wire.literal(b"x", b"v" * 100), done=False), 1.0)
    rest = 1000 - len(OK + wire.literal(b"x", b"v" * 100))
    fits = wire.continuation(1, b"\x82" * rest, done=False)
    conn_after, _, events = http2.receive(conn, fits, 1.0)
    assert (conn_after.status, events) == (OPEN, [])
    message = "a field block of 1001 bytes in 2 frames: allowed are 1000 in 64 (§10.5.1)"
    data = wire.continuation(1, b"\x82" * (rest + 1))
    assert terminated(conn, data, wire.ENHANCE_YOUR_CALM, message) == []


# §8.1 Message framing


@pytest.mark.rfc("9113-8.1-3")
def test_a_whole_response_in_all_its_parts() -> None:
    """§8.1: interim heads, a final head, content, trailers."""
    conn, peer = start()
    conn, out, _ = http2.request(conn, "GET", "/", (), None, 0.0)
    peer.take(out)
    data = (
        peer.head(1, 103, ("link", "</x>"))
        + peer.head(1, 100)
        + peer.head(1, 200, ("server", "test"))
        + peer.data(1, b"hel")
        + peer.data(1, b"lo", padding=3)
        + peer.fields(1, ("x-checksum", "5"), end=True)
    )
    assert after(conn, data) == [
        InterimReceived(1, 103, ((b"link", b"</x>"),)),
        InterimReceived(1, 100, ()),
        ResponseReceived(1, 200, ((b"server", b"test"),)),
        DataReceived(1, b"hello"),
        TrailersReceived(1, ((b"x-checksum", b"5"),)),
        ResponseEnded(1),
    ]


def test_content_that_comes_at_once_is_one_event() -> None:
    """A server may cut content as fine as it likes: the reader gets what came together as one piece, siblings apart."""
    conn, peer = start()
    for _ in range(2):
        conn, out, _ = http2.request(conn, "GET", "/", (), None, 0.0)
        peer.take(out)
    conn, _, _ = http2.receive(conn, peer.head(1, 200) + peer.head(3, 200), 1.0)
    pieces = peer.data(1, b"a") + peer.data(1, b"b") + peer.data(3, b"c") + peer.data(1, b"d") + peer.data(1, b"e")
    conn, _, events = http2.receive(conn, pieces, 1.0)
    assert events == [DataReceived(1, b"ab"), DataReceived(3, b"c"), DataReceived(1, b"de")]
    assert after(conn, peer.data(1, b"f") + peer.data(3, b"g")) == [DataReceived(1, b"f"), DataReceived(3, b"g")]


HALF: Final = "half-closed (local)"
MISPLACED: Final = {
    "DATA before the head": (b"", wire.data_frame(1, b"x"), "receive DATA", "awaiting"),
    "empty DATA before the head": (b"", wire.data_frame(1), "receive DATA", "awaiting"),
    "END_STREAM before the head": (b"", wire.data_frame(1, end=True), "receive DATA", "awaiting"),
    "trailers before the head": (
        b"",
        wire.headers_frame(1, wire.literal(b"x", b"y"), end=True),
        "receive trailers",
        "awaiting",
    ),
    "an empty block for a head": (b"", wire.headers_frame(1, b"", end=True), "receive trailers", "awaiting"),
    "DATA after an interim head": (
        wire.headers_frame(1, wire.literal(b":status", b"103")),
        wire.data_frame(1, b"x"),
        "receive DATA",
        "awaiting",
    ),
    "a second final head": (
        wire.headers_frame(1, OK),
        wire.headers_frame(1, OK),
        "receive HEADERS with 2xx",
        "receiving",
    ),
    "an interim head after the final one": (
        wire.headers_frame(1, OK),
        wire.headers_frame(1, wire.literal(b":status", b"103")),
        "receive interim HEADERS",
        "receiving",
    ),
}


@pytest.mark.parametrize("name", MISPLACED)
@pytest.mark.rfc("9113-8.1-6", "9113-8.3.2-1", "9113-8.1.1-3", "9113-8.1.1-4")
def test_a_response_out_of_order_is_malformed(name: str) -> None:
    """§8.1: "An endpoint that receives a HEADERS frame … in any other case … MUST treat" it as malformed."""
    before, data, what, state = MISPLACED[name]
    conn, _, _ = http2.receive(pair(), before, 1.0)
    message = f"malformed response: {what} on stream 1, which is {HALF}, {state} the response (RFC 9113 §8.1)"
    assert faulted(conn, data, wire.PROTOCOL_ERROR, message) == []
    one, _, _ = http2.receive(upload(start()[0]), before, 1.0)
    message = f"malformed response: {what} on stream 1, which is open, {state} the response (RFC 9113 §8.1)"
    assert faulted(one, data, wire.PROTOCOL_ERROR, message) == []


@pytest.mark.fault("G2")
@pytest.mark.parametrize("status", [b"100", b"103", b"199"])
@pytest.mark.rfc("9113-8.1-3")
def test_an_interim_response_does_not_end_the_stream(status: bytes) -> None:
    """§8.1: "A HEADERS frame with the END_STREAM flag set that carries an informational status code is malformed"."""
    data = wire.headers_frame(1, wire.literal(b":status", status), end=True)
    message = f"malformed response: receive END_STREAM on stream 1, which is {HALF}, awaiting the response"
    events = faulted(pair(), data, wire.PROTOCOL_ERROR, f"{message} (RFC 9113 §8.1)")
    assert events == [InterimReceived(1, int(status), ())]


@pytest.mark.rfc("9113-8.1-6")
def test_trailers_that_do_not_end_the_stream() -> None:
    """§8.1: a trailer section "starting with a HEADERS frame … with END_STREAM"."""
    conn, _, _ = http2.receive(pair(), wire.headers_frame(1, OK), 1.0)
    data = wire.headers_frame(1, wire.literal(b"x", b"y"))
    message = "malformed response: trailers without END_STREAM (§8.1)"
    assert faulted(conn, data, wire.PROTOCOL_ERROR, message) == []


def test_empty_trailers() -> None:
    """§8.1: a field section may be empty."""
    conn, _, _ = http2.receive(pair(), wire.headers_frame(1, OK), 1.0)
    assert after(conn, wire.headers_frame(1, b"", end=True)) == [TrailersReceived(1, ()), ResponseEnded(1)]


def test_an_early_response_ends_the_upload() -> None:
    """§8.1: a complete response before the request was is legal; DESIGN §8: RST_STREAM(CANCEL), queued content dropped."""
    conn, peer = start()
    conn, out, _ = http2.request(conn, "PUT", "/", (), b"x" * 100_000, 0.0)
    peer.take(out)
    conn, out, events = http2.receive(conn, peer.head(1, 413) + peer.data(1, b"no", end=True) + peer.widen(1, 9), 1.0)
    peer.take(out)
    assert out == wire.rst_stream(1, wire.CANCEL)
    assert events == [ResponseReceived(1, 413, ()), DataReceived(1, b"no"), ResponseEnded(1)]
    assert (conn.live, conn.ready, peer.active) == (0, (), set())


def test_a_response_may_come_before_the_end_of_the_request() -> None:
    """§8.1: "A server can send a complete response prior to the client sending an entire request", or a part of it."""
    conn, peer = start()
    conn, out, _ = http2.request(conn, "PUT", "/", (), b"a", 0.0, end=False)
    peer.take(out)
    conn, out, events = http2.receive(conn, peer.head(1) + peer.data(1, b"x"), 1.0)
    assert (out, events) == (b"", [ResponseReceived(1, 200, ()), DataReceived(1, b"x")])
    conn, out = http2.send_data(conn, 1, b"b", 2.0, end=True)
    peer.take(out)
    assert (peer.requests[1].content, peer.requests[1].ended) == (b"ab", True)
    conn, out, events = http2.receive(conn, peer.data(1, b"y", end=True), 3.0)
    assert (out, events) == (b"", [DataReceived(1, b"y"), ResponseEnded(1)])
    assert peer.active == set()


# §8.1.1 Malformed messages: content-length


def lengthy(length: int | bytes, status: bytes = b"200") -> bytes:
    """HEADERS of a response with this content-length."""
    value = length if isinstance(length, bytes) else b"%d" % length
    return wire.headers_frame(1, wire.literals((b":status", status), (b"content-length", value)))


@pytest.mark.parametrize(
    "parts",
    [
        (wire.data_frame(1, b"hello", end=True),),
        (wire.data_frame(1, b"hel"), wire.data_frame(1, b"lo", end=True)),
        (wire.data_frame(1, b"hello", padding=9), wire.data_frame(1, end=True)),
        (wire.data_frame(1), wire.data_frame(1, b"hello"), wire.headers_frame(1, b"", end=True)),
    ],
    ids=["one", "two", "padded", "trailers"],
)
def test_content_as_long_as_declared(parts: tuple[bytes, ...]) -> None:
    """§8.1.1: "the sum of the DATA frame payload lengths that form the content, excluding padding"."""
    events = after(pair(), lengthy(5), *parts)
    assert b"".join([event.data for event in events if isinstance(event, DataReceived)]) == b"hello"
    assert events[-1] == ResponseEnded(1)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ((wire.data_frame(1, b"hell", end=True, padding=9),), "1 bytes short of its content-length (§8.1.1)"),
        ((wire.data_frame(1, b"hell", end=True),), "1 bytes short of its content-length (§8.1.1)"),
        ((wire.data_frame(1, end=True),), "5 bytes short of its content-length (§8.1.1)"),
        ((wire.headers_frame(1, b"", end=True),), "5 bytes short of its content-length (§8.1.1)"),
        ((wire.data_frame(1, b"hello!"),), "1 bytes above its content-length (§8.1.1)"),
        ((wire.data_frame(1, b"hello"), wire.data_frame(1, b"yes")), "3 bytes above its content-length (§8.1.1)"),
        ((wire.data_frame(1, b"hello!")[:9],), "1 bytes above its content-length (§8.1.1)"),
        ((wire.data_frame(1, b"hello!", padding=3)[:10],), "1 bytes above its content-length (§8.1.1)"),
    ],
)
@pytest.mark.rfc("9113-8.1.1-1", "9113-8.1.1-3")
def test_content_that_is_not_as_long_as_declared(parts: tuple[bytes, ...], message: str) -> None:
    """§8.1.1: "malformed if the value … does not equal the sum of the DATA frame payload lengths"."""
    data = lengthy(5) + b"".join(parts)
    for cut in (0, len(data) - 1):
        conn, _, _ = http2.receive(pair(), data[:cut], 1.0)
        if conn.live == 2:
            faulted(conn, data[cut:], wire.PROTOCOL_ERROR, message)


def test_a_declared_length_and_no_content() -> None:
    """§8.1.1."""
    block = wire.literals((b":status", b"200"), (b"content-length", b"1"))
    message = "1 bytes short of its content-length (§8.1.1)"
    events = faulted(pair(), wire.headers_frame(1, block, end=True), wire.PROTOCOL_ERROR, message)
    assert events == [ResponseReceived(1, 200, ((b"content-length", b"1"),))]


@pytest.mark.fault("G8")
@pytest.mark.parametrize(
    "value", [b"", b"+5", b"-1", b"5 5", b"5,5", b"0x5", b"5_0", b"\xb2", b"5.0", b"1" * 20, b"five"]
)
@pytest.mark.rfc("9110-8.6-5")
def test_a_length_that_is_not_a_number(value: bytes) -> None:
    """RFC 9110 §8.6; §8.1.1: malformed."""
    message = f"malformed response: content-length {value!r} is not one number (§8.1.1)"
    assert faulted(pair(), lengthy(value), wire.PROTOCOL_ERROR, message) == []


@pytest.mark.rfc("9110-8.6-5")
def test_lengths_that_differ() -> None:
    """RFC 9110 §8.6: identical ones are one, others are malformed."""
    two = [(b":status", b"200"), (b"content-length", b"5"), (b"content-length", b"5")]
    assert len(after(pair(), wire.headers_frame(1, wire.literals(*two)))) == 1
    two[2] = (b"content-length", b"6")
    message = "malformed response: content-length b'6' is not one number (§8.1.1)"
    assert faulted(pair(), wire.headers_frame(1, wire.literals(*two)), wire.PROTOCOL_ERROR, message) == []


@pytest.mark.fault("G4")
@pytest.mark.parametrize(
    ("method", "status"), [("HEAD", b"200"), ("HEAD", b"404"), ("GET", b"204"), ("GET", b"304"), ("HEAD", b"304")]
)
@pytest.mark.rfc("9113-8.1.1-2", "9110-6.4.1-1", "9110-6-1")
def test_responses_that_have_no_content_whatever_their_length_says(method: str, status: bytes) -> None:
    """§8.1.1: "a non-zero content-length … even though no content is included" for HEAD, 204 and 304."""
    conn, _, _ = http2.request(start()[0], method, "/", (), None, 0.0)
    head = wire.literals((b":status", status), (b"content-length", b"5"))
    expected = ResponseReceived(1, int(status), ((b"content-length", b"5"),))
    assert after(conn, wire.headers_frame(1, head, end=True)) == [expected, ResponseEnded(1)]
    assert after(conn, wire.headers_frame(1, head), wire.data_frame(1, end=True)) == [expected, ResponseEnded(1)]
    conn, _, _ = http2.receive(conn, wire.headers_frame(1, head), 1.0)
    faulted(conn, wire.data_frame(1, b"hello"), wire.PROTOCOL_ERROR, "5 bytes above its content-length (§8.1.1)")


@pytest.mark.parametrize("status", [b"200", b"205", b"404", b"500", b"599", b"999"])
def test_other_responses_may_have_content(status: bytes) -> None:
    head = wire.headers_frame(1, wire.literals((b":status", status)))
    events = after(pair(), head, wire.data_frame(1, b"hello", end=True))
    assert events == [ResponseReceived(1, int(status), ()), DataReceived(1, b"hello"), ResponseEnded(1)]


def test_the_length_of_an_interim_response_means_nothing() -> None:
    interim = wire.headers_frame(1, wire.literals((b":status", b"103"), (b"content-length", b"5")))
    assert after(pair(), interim, wire.headers_frame(1, OK, end=True))[-1] == ResponseEnded(1)


# §8.2 HTTP fields, §8.3 control data

BAD_FIELDS: Final = [
    ((b"X", b"y"), "the field name b'X' is not allowed in an HTTP/2 response"),
    ((b"xY", b"y"), "the field name b'xY' is not allowed in an HTTP/2 response"),
    ((b"", b"y"), "the field name b'' is not allowed in an HTTP/2 response"),
    ((b"a b", b"y"), "the field name b'a b' is not allowed in an HTTP/2 response"),
    ((b"a\n", b"y"), "the field name b'a\\n' is not allowed in an HTTP/2 response"),
    ((b"a\x7f", b"y"), "the field name b'a\\x7f' is not allowed in an HTTP/2 response"),
    ((b"\xe4", b"y"), "the field name b'\\xe4' is not allowed in an HTTP/2 response"),
    ((b"a:", b"y"), "the field name b'a:' is not allowed in an HTTP/2 response"),
    ((b":path", b"/"), "the field name b':path' is not allowed in an HTTP/2 response"),
    ((b":status", b"200"), "the field name b':status' is not allowed in an HTTP/2 response"),
    ((b":unknown", b"x"), "the field name b':unknown' is not allowed in an HTTP/2 response"),
    ((b"connection", b"close"), "the field name b'connection' is not allowed in an HTTP/2 response"),
    ((b"proxy-connection", b"x"), "the field name b'proxy-connection' is not allowed in an HTTP/2 response"),
    ((b"keep-alive", b"x"), "the field name b'keep-alive' is not allowed in an HTTP/2 response"),
    ((b"transfer-encoding", b"x"), "the field name b'transfer-encoding' is not allowed in an HTTP/2 response"),
    ((b"upgrade", b"h2c"), "the field name b'upgrade' is not allowed in an HTTP/2 response"),
    *[
        ((b"a", value), "the value of b'a' has a CR, LF, NUL, or white space at its ends")
        for value in (b"\0", b"a\rb", b"a\nb", b" a", b"a ", b"\ta", b"a\t", b" ", b"\t", b"a\n", b"\nb")
    ],
]


@pytest.mark.parametrize(("field", "fault"), BAD_FIELDS)
@pytest.mark.parametrize("place", ["first", "last", "trailers", "interim"])
@pytest.mark.rfc(
    "9113-8.2.1-1",
    "9113-8.2.1-2",
    "9113-8.2.1-3",
    "9113-8.2.1-4",
    "9113-8.2.1-5",
    "9113-8.2.1-6",
    "9113-8.2.2-2",
    "9113-8.3-2",
    "9113-8.3-6",
    "9113-8.1.1-4",
)
def test_a_field_that_makes_a_response_malformed(field: wire.Pair, fault: str, place: str) -> None:
    """§8.2.1, §8.2.2, §8.3: "MUST be treated as malformed", wherever it stands."""
    conn, good = pair(), (b"x", b"y")
    fields: tuple[wire.Pair, ...] = {
        "first": ((b":status", b"200"), field, good),
        "last": ((b":status", b"200"), good, field),
        "trailers": (good, field),
        "interim": ((b":status", b"103"), field),
    }[place]
    if place == "trailers":
        conn, _, _ = http2.receive(conn, wire.headers_frame(1, OK), 0.5)
    data = wire.headers_frame(1, wire.literals(*fields), end=place == "trailers")
    assert faulted(conn, data, wire.PROTOCOL_ERROR, f"malformed response: {fault} (§8.1.1)") == []


@pytest.mark.parametrize("value", [b"", b"a b", b"a\tb", b"a  b", b"\x80\xff", b"\x01\x1f\x7f", b"=;,\"'"])
def test_values_that_are_allowed(value: bytes) -> None:
    """§8.2.1: only CR, LF, NUL and white space at the ends are named; everything else passes as it is."""
    block = wire.literals((b":status", b"200"), (b"a", value), (b"b", value))
    assert after(pair(), wire.headers_frame(1, block)) == [ResponseReceived(1, 200, ((b"a", value), (b"b", value)))]


@pytest.mark.parametrize(
    "value", [b"", b"20", b"2000", b"099", b"000", b"2x0", b"+20", b" 20", b"20 ", b"\xb2\xb2\xb2"]
)
@pytest.mark.rfc("9113-8.3-2", "9113-8.3.2-1")
def test_a_status_that_is_none(value: bytes) -> None:
    """§8.3.2; RFC 9110 §15: three digits, the first from 1."""
    data = wire.headers_frame(1, wire.literals((b":status", value)))
    message = f"malformed response: :status {value!r} is not three digits from 100 (§8.1.1)"
    assert faulted(pair(), data, wire.PROTOCOL_ERROR, message) == []


@pytest.mark.rfc("9113-8.3-4")
def test_a_status_after_a_field() -> None:
    """§8.3: "All pseudo-header fields MUST appear in a field block before all regular field lines"."""
    data = wire.headers_frame(1, wire.literals((b"x", b"y"), (b":status", b"200")))
    message = "malformed response: the field name b':status' is not allowed in an HTTP/2 response (§8.1.1)"
    assert faulted(pair(), data, wire.PROTOCOL_ERROR, message) == []


@pytest.mark.fault("G13")
@pytest.mark.parametrize("status", [b"200", b"100"])
@pytest.mark.rfc("9113-8.1-5")
def test_a_status_in_trailers(status: bytes) -> None:
    """§8.1: "Trailers MUST NOT include pseudo-header fields"."""
    conn, _, _ = http2.receive(pair(), wire.headers_frame(1, OK), 0.5)
    data = wire.headers_frame(1, wire.literals((b":status", status)), end=True)
    what = "2xx" if status == b"200" else "100"
    message = f"malformed response: receive HEADERS with {what} on stream 1, which is {HALF}, receiving the response"
    assert faulted(conn, data, wire.PROTOCOL_ERROR, f"{message} (RFC 9113 §8.1)") == []


@pytest.mark.rfc("9113-8.1.1-3", "9113-8.1.1-4")
def test_a_malformed_response_in_the_middle_of_an_upload() -> None:
    """§8.1.1: a stream error; the content that waits is dropped with it."""
    conn = upload(start()[0], b"x" * 100_000)
    data = wire.headers_frame(1, wire.literals((b":status", b"2")))
    message = "malformed response: :status b'2' is not three digits from 100 (§8.1.1)"
    assert faulted(conn, data, wire.PROTOCOL_ERROR, message) == []
    conn, _, _ = http2.receive(conn, data, 1.0)
    assert (conn.ready, conn.live) == ((), 0)


# Cuts


def test_any_frame_may_be_cut_anywhere() -> None:
    """DESIGN §3, law 2, one byte at a time; tests/core/test_properties.py does the rest."""
    conn, peer = start(settings=Settings(keepalive=None, connection_window=65_535, stream_window=50))
    conn, out, _ = http2.request(conn, "GET", "/", (), None, 0.0)
    peer.take(out)
    conn, out, _ = http2.request(conn, "GET", "/", (), None, 0.0)
    peer.take(out)
    data = (
        peer.announce((3, 7))
        + peer.head(1, 103, ("x", "y"))
        + wire.ping()
        + wire.headers_frame(1, peer.block_of((":status", "200")), done=False)
        + wire.continuation(1, wire.literal(b"a", b"b"))
        + peer.data(1, b"hello", padding=9)
        + wire.window_update(3, 10)
        + wire.frame(0x33, 1, 1, b"?????")
        + peer.fields(1, ("t", "u"), end=True)
        + wire.rst_stream(3, wire.REFUSED_STREAM)
        + wire.goaway(3, 0, b"bye")
    )
    whole, out, events = http2.receive(conn, data, 1.0)
    outs: list[bytes] = []
    pieces: list[Event] = []
    for place in range(len(data)):
        conn, more, each = http2.receive(conn, data[place : place + 1], 1.0)
        outs.append(more)
        pieces += each
    assert conn == whole
    assert b"".join(outs) == out
    joined = b"".join([event.data for event in pieces if isinstance(event, DataReceived)])
    assert joined == b"hello"
    assert [event for event in pieces if not isinstance(event, DataReceived)] == [
        event for event in events if not isinstance(event, DataReceived)
    ]
    assert math.isfinite(conn.heard_at)


def test_nothing_is_nothing() -> None:
    conn = pair()
    assert http2.receive(conn, b"", 0.0) == (conn, b"", [])


@pytest.mark.parametrize(
    ("code", "head", "content", "complete"),
    [
        (wire.NO_ERROR, OK + wire.literal(b"content-length", b"5"), b"hello", True),
        (wire.NO_ERROR, wire.literal(b":status", b"204"), b"", True),
        (wire.NO_ERROR, OK + wire.literal(b"content-length", b"5"), b"hell", False),
        (wire.NO_ERROR, OK, b"hello", False),
        (wire.CANCEL, OK + wire.literal(b"content-length", b"5"), b"hello", False),
    ],
)
def test_all_of_the_declared_content_and_a_reset_without_error(
    code: int, head: bytes, content: bytes, complete: bool
) -> None:
    """§8.1: NO_ERROR asks us to stop sending "without discarding the response"; some servers send it in place of END_STREAM."""
    conn, _, _ = http2.receive(pair(), wire.headers_frame(1, head) + (wire.data_frame(1, content)), 0.5)
    conn, out, events = http2.receive(conn, wire.rst_stream(1, code), 1.0)
    assert (out, live(conn), isinstance(events[-1], ResponseEnded)) == (b"", [3], complete)
