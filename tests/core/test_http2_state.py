"""The connection as a value; the three places of a slot; GOAWAY, limits, and how a connection ends."""

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any, Final

import pytest

from calamint.core import http2, http2_state
from calamint.core.errors import AtCapacity, Failure, LocalProtocolError
from calamint.core.events import (
    ConnectionClosed,
    Event,
    GoAwayReceived,
    PingAcknowledged,
    RequestFailed,
    ResponseEnded,
    ResponseReceived,
    SettingsReceived,
)
from calamint.core.exchange import CLOCKS, SETTINGS, Clocks, Settings
from calamint.core.http2_state import CLOSED, DRAINING, OPEN, HTTP2Connection, Peer
from calamint.core.streams import find_stream
from calamint.core.url import Origin
from calamint.core.value import INFINITY, NEVER, Fields
from tests.core import http2_peer as wire

COMPILED: Final = not (http2_state.__file__ or "").endswith(".py")
ORIGIN: Final = Origin("https", "a.test", 443)
MANY: Final = Settings(max_streams=1000, first_streams=1000, keepalive=None)
QUIET: Final = Settings(keepalive=None)  # no PING of its own: the clocks are looked at one by one
LAST: Final = 2**31 - 1


def start(*pairs: wire.Setting, settings: Settings = QUIET, now: float = 0.0) -> tuple[HTTP2Connection, wire.Peer]:
    """A connection and its peer; each has the other's SETTINGS."""
    conn, data = http2.connect(ORIGIN, settings, now)
    peer = wire.Peer(data)
    conn, data, _ = http2.receive(conn, peer.announce(*pairs) + wire.settings_ack(), now)
    peer.take(data)
    return conn, peer


def get(conn: HTTP2Connection, now: float = 0.0, count: int = 1, clocks: Clocks = CLOCKS) -> HTTP2Connection:
    """The connection after that many GETs."""
    for _ in range(count):
        conn, _, _ = http2.request(conn, "GET", "/", (), None, now, clocks=clocks)
    return conn


def cancel_all(conn: HTTP2Connection, refs: range, now: float) -> tuple[HTTP2Connection, bytes]:
    """The connection after these were cancelled, and its output."""
    parts = []
    for ref in refs:
        conn, data, _ = http2.cancel(conn, ref, now)
        parts.append(data)
    return conn, b"".join(parts)


def altered(conn: HTTP2Connection, **changes: object) -> HTTP2Connection:
    """The same value but for these fields: a life too long to be lived in a test."""
    parts: list[Any] = [changes.get(name, getattr(conn, name)) for name in conn.__match_args__]
    return HTTP2Connection(*parts)


def live(conn: HTTP2Connection) -> list[int]:
    return [request.ref for request in http2.snapshot(conn, conn.now).requests]


def slots(conn: HTTP2Connection) -> tuple[int, list[int], list[int]]:
    """How many are live, which are unsent, which unconfirmed."""
    return conn.live, list(conn.control.unsent), list(conn.control.unconfirmed)


# A value in every interesting state


def fresh() -> HTTP2Connection:
    return http2.connect(ORIGIN, SETTINGS, 0.0)[0]


def waiting() -> HTTP2Connection:
    return get(start()[0], 1.0, 3)


def uploading() -> HTTP2Connection:
    """Content that a window stops, content that the other window stops, trailers, and content left open."""
    conn, _ = start()
    conn, _, _ = http2.request(conn, "PUT", "/1", ((b"content-length", b"65535"),), b"x" * 65_535, 1.0)
    conn, _, _ = http2.request(conn, "PUT", "/2", (), b"hello", 1.0)
    conn, _, _ = http2.request(conn, "PUT", "/3", (), b"secret", 1.0, end=False)
    conn, _ = http2.send_data(conn, 5, b"tail", 2.0, trailers=((b"cookie", b"hunter2"),))
    conn, _, _ = http2.request(conn, "PUT", "/4", (), None, 1.0, end=False)
    return conn


def receiving() -> HTTP2Connection:
    conn, peer = start()
    conn = get(conn, 1.0, 2)
    first = peer.head(1, 200, ("server", "test"), ("set-cookie", "hunter2")) + wire.data_frame(1, b"hello")
    return http2.receive(conn, first, 2.0)[0]


def half_a_header() -> HTTP2Connection:
    return http2.receive(get(start()[0]), wire.ping()[:8], 1.0)[0]


def half_a_head() -> HTTP2Connection:
    block = wire.literals((b":status", b"200"), (b"set-cookie", b"hunter2"), (b"server", b"test"))
    return http2.receive(get(start()[0]), wire.headers_frame(1, block)[:-1], 1.0)[0]


def within_a_block() -> HTTP2Connection:
    block = wire.literals((b":status", b"200"), (b"set-cookie", b"hunter2"))
    return http2.receive(get(start()[0]), wire.headers_frame(1, block, done=False), 1.0)[0]


def within_data() -> HTTP2Connection:
    conn, peer = start()
    conn = get(conn)
    return http2.receive(conn, peer.head(1) + wire.data_frame(1, b"hello", padding=9)[:-10], 1.0)[0]


def unconfirmed() -> HTTP2Connection:
    return http2.cancel(get(start()[0]), 1, 1.0)[0]


def unsent() -> HTTP2Connection:
    return cancel_all(get(start(settings=MANY)[0], 0.0, 503), range(1, 1006, 2), 1.0)[0]


def draining() -> HTTP2Connection:
    return http2.receive(get(start()[0], 0.0, 2), wire.goaway(1, 2, b"bye"), 1.0)[0]


def over() -> HTTP2Connection:
    return http2.close(waiting(), 2.0)[0]


STATES: Final[dict[str, Callable[[], HTTP2Connection]]] = {
    state.__name__: state
    for state in (
        *(fresh, waiting, uploading, receiving, half_a_header, half_a_head, within_a_block, within_data),
        *(unconfirmed, unsent, draining, over),
    )
}
in_every_state = pytest.mark.parametrize("name", STATES)


@in_every_state
def test_pickled_it_is_equal_and_goes_on_alike(name: str) -> None:
    conn = STATES[name]()
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        again = pickle.loads(pickle.dumps(conn, protocol))
        assert again == conn
        assert repr(again) == repr(conn)
        assert http2.receive(again, wire.settings(), 3.0) == http2.receive(conn, wire.settings(), 3.0)
        assert http2.flush(again, 3.0) == http2.flush(conn, 3.0)
        assert http2.close(again, 3.0) == http2.close(conn, 3.0)


@in_every_state
def test_copied_it_is_equal(name: str) -> None:
    conn = STATES[name]()
    assert copy.copy(conn) == conn
    assert copy.deepcopy(conn) == conn


@in_every_state
def test_it_equals_no_other_state(name: str) -> None:
    conn = STATES[name]()
    assert [other for other, make in STATES.items() if make() == conn] == [name]
    assert conn != name


@in_every_state
def test_it_has_no_hash(name: str) -> None:
    """It holds dicts; who wants to use it as a key means something else."""
    with pytest.raises(TypeError, match="unhashable"):
        hash(STATES[name]())


@in_every_state
def test_its_repr_names_the_fields_and_hides_secrets(name: str) -> None:
    shown = repr(STATES[name]())
    assert shown.startswith("HTTP2Connection(setup=Setup(origin=Origin(scheme='https', host='a.test', port=443), ")
    for part in HTTP2Connection.__match_args__:
        assert f"{part}=" in shown
    assert "hunter2" not in shown


@pytest.mark.skipif(not COMPILED, reason="interpreted, Final is only mypy's word")
@in_every_state
def test_its_fields_cannot_be_assigned(name: str) -> None:
    conn = STATES[name]()
    for part in conn.__match_args__:
        with pytest.raises(AttributeError):
            setattr(conn, part, getattr(conn, part))


@pytest.mark.skipif(not COMPILED, reason="interpreted, types are only mypy's word")
def test_wrong_types_are_refused() -> None:
    conn: Any = waiting()
    for wrong in (bytearray(b"x"), memoryview(b"x"), "x"):
        with pytest.raises(TypeError):
            http2.receive(conn, wrong, 1.0)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        http2.cancel(conn, "1", 1.0)  # type: ignore[arg-type]


def test_a_draft_cannot_write_the_record_of_another() -> None:
    """Two verbs on one value, as in a fork: neither sees what the other did."""
    conn, peer = start()
    conn = get(conn)
    one, _, _ = http2.receive(conn, wire.headers_frame(1, peer.block_of((":status", "200"))), 1.0)
    two, _, _ = http2.receive(conn, wire.headers_frame(1, wire.literals((b":status", b"404"))), 1.0)
    assert [http2.snapshot(item, 1.0).requests[0].status for item in (conn, one, two)] == [0, 200, 404]


def test_cancel_leaves_the_old_value_as_it_was() -> None:
    """DESIGN §3, law 1."""
    conn = waiting()
    before = pickle.dumps(conn)
    http2.cancel(conn, 3, 2.0)
    assert pickle.loads(before) == conn


def test_a_timeout_leaves_the_old_value_as_it_was() -> None:
    """DESIGN §3, law 1."""
    conn = waiting()
    before = pickle.dumps(conn)
    http2.handle_timeout(conn, 100.0)
    assert pickle.loads(before) == conn


@pytest.mark.parametrize(
    "data",
    [wire.frame(wire.PRIORITY, 0, 1, b"1234"), wire.headers_frame(1, wire.literals((b":status", b"20")))],
    ids=["PRIORITY", "HEADERS"],
)
def test_a_stream_error_leaves_the_old_value_as_it_was(data: bytes) -> None:
    """DESIGN §3, law 1; RFC 9113 §5.4.2."""
    conn = waiting()
    before = pickle.dumps(conn)
    _, out, _ = http2.receive(conn, data, 2.0)
    assert wire.kinds(out) == [(wire.RST_STREAM, 1)]
    assert pickle.loads(before) == conn


def test_the_old_value_goes_on_after_a_cancellation_was_tried_on_it() -> None:
    """DESIGN §2: "The old value is never changed: it can be kept, compared, pickled and forked"."""
    conn = get(start()[0])
    http2.cancel(conn, 1, 1.0)
    conn, _, events = http2.receive(conn, wire.headers_frame(1, b"\x88", end=True), 2.0)
    assert events == [ResponseReceived(1, 200, ()), ResponseEnded(1)]
    assert conn.live == 0


def test_peer_settings_replaced_one_at_a_time() -> None:
    peer = Peer(False, 7)
    assert peer.replace() == Peer(True, 7, 65_535, 16_384, LAST)
    assert peer.replace(limit=0) == Peer(True, 0, 65_535, 16_384, LAST)
    assert peer.replace(initial_window=0) == Peer(True, 7, 0, 16_384, LAST)
    assert peer.replace(max_frame_size=16_385) == Peer(True, 7, 65_535, 16_385, LAST)
    assert peer.replace(max_field_section=0) == Peer(True, 7, 65_535, 16_384, 0)


def test_time_does_not_go_back() -> None:
    """DESIGN §2: the core uses max(now, last now)."""
    conn, _ = start(now=5.0)
    conn = get(conn, 3.0)
    assert conn.now == 5.0
    assert http2.snapshot(conn, 5.0).requests[0].age == 0.0
    assert http2.next_timeout(conn) == 65.0


def test_a_clock_that_went_back_hides_no_timeout() -> None:
    """DESIGN §2: the core uses max(now, last now), here too."""
    conn = get(start()[0])
    conn, _, _ = http2.receive(conn, wire.ping(), 70.0)
    _, _, events = http2.handle_timeout(conn, 50.0)
    assert [type(event) for event in events] == [RequestFailed]


# Live: the map of streams


@pytest.mark.parametrize("count", [1, 32, 33, 100])
def test_streams_enter_and_leave_in_any_order(count: int) -> None:
    """RFC 9113 §5.1.1: "Streams initiated by a client MUST use odd-numbered stream identifiers"."""
    conn, peer = start(settings=MANY)
    conn = get(conn, 0.0, count)
    refs = list(range(1, 2 * count, 2))
    assert live(conn) == refs
    while refs:
        ref = refs.pop(len(refs) // 2)
        conn, _, events = http2.receive(conn, wire.headers_frame(ref, b"\x88", end=True), 1.0)
        assert events == [ResponseReceived(ref, 200, ()), ResponseEnded(ref)]
        assert live(conn) == refs
        assert conn.live == len(refs)
    assert conn.streams == {}


def test_a_leaf_that_became_empty_is_used_again_in_the_same_call() -> None:
    conn = get(start()[0], 0.0, 2)
    both = wire.headers_frame(1, b"\x88") + wire.headers_frame(3, b"\x88")
    conn, _, _ = http2.receive(conn, both + wire.data_frame(1, end=True) + wire.data_frame(3, end=True), 1.0)
    assert (conn.live, conn.streams) == (0, {})
    conn = get(conn)
    assert live(conn) == [5]


@pytest.mark.fault("C6")
@pytest.mark.rfc("9113-5.1.1-4")
def test_the_last_stream_id_is_used_and_none_after_it() -> None:
    """RFC 9113 §5.1.1: "Stream identifiers cannot be reused"."""
    conn = altered(start()[0], next_ref=LAST - 2)
    assert (http2.capacity(conn), http2.is_draining(conn)) == (2, False)
    conn, _, _ = http2.request(conn, "GET", "/", (), None, 0.0)
    assert (http2.capacity(conn), http2.is_draining(conn)) == (1, False)
    conn, data, ref = http2.request(conn, "GET", "/", (), None, 0.0)
    assert ref == LAST
    assert wire.kinds(data) == [(wire.HEADERS, LAST)]
    assert (http2.capacity(conn), http2.is_draining(conn)) == (0, True)
    with pytest.raises(LocalProtocolError, match="stream id"):
        http2.request(conn, "GET", "/", (), None, 0.0)
    conn, _, events = http2.receive(conn, wire.headers_frame(LAST, b"\x88", end=True), 1.0)
    assert events[-1] == ResponseEnded(LAST)
    full = altered(start((wire.MAX_CONCURRENT_STREAMS, 0))[0], next_ref=LAST)
    with pytest.raises(AtCapacity, match="no slot is free: 0 allowed"):
        http2.request(full, "GET", "/", (), None, 0.0)


# Limits on streams


@pytest.mark.rfc("9113-5.1.2-1")
def test_capacity_is_the_limit_less_the_slots_in_use() -> None:
    """RFC 9113 §5.1.2: "Endpoints MUST NOT exceed the limit set by their peer"."""
    conn, _ = start((wire.MAX_CONCURRENT_STREAMS, 3))
    assert http2.capacity(conn) == 3
    conn = get(conn, 0.0, 3)
    assert http2.capacity(conn) == 0
    message = "no slot is free: 3 allowed, 3 live, 0 unsent, 0 unconfirmed"
    with pytest.raises(AtCapacity, match=f"^{message}$"):
        http2.request(conn, "GET", "/", (), None, 0.0)


@pytest.mark.rfc("9113-5.1.2-1", "9113-6.5.2-5")
def test_the_limit_goes_down_to_none_and_up_again() -> None:
    """RFC 9113 §5.1.2: an endpoint that lowers it below the open streams "can either close streams … or allow" them."""
    conn, peer = start((wire.MAX_CONCURRENT_STREAMS, 1000), settings=MANY)
    conn = get(conn, 0.0, 4)
    assert http2.capacity(conn) == 996
    for limit, room in ((1, 0), (0, 0), (1000, 996)):
        conn, out, events = http2.receive(conn, peer.announce((wire.MAX_CONCURRENT_STREAMS, limit)), 1.0)
        peer.take(out)
        assert events == [SettingsReceived(((wire.MAX_CONCURRENT_STREAMS, limit),))]
        assert conn.live == 4
        assert http2.capacity(conn) == room
        if not room:
            with pytest.raises(AtCapacity, match=f"no slot is free: {limit} allowed, 4 live"):
                http2.request(conn, "GET", "/", (), None, 1.0)
    for ref in (1, 3, 5, 7):
        conn, _, events = http2.receive(conn, wire.headers_frame(ref, b"\x88", end=True), 2.0)
        assert events[-1] == ResponseEnded(ref)
    assert http2.capacity(conn) == 1000


@pytest.mark.fault("C1")
@pytest.mark.rfc("9113-5.1.2-1", "9113-6.5.3-1")
def test_a_limit_below_the_streams_in_flight_frees_no_slot_until_enough_have_ended() -> None:
    """The limit is a number compared at open time."""
    conn = get(start()[0], 0.0, 3)
    conn, _, _ = http2.receive(conn, wire.settings((wire.MAX_CONCURRENT_STREAMS, 2)), 0.0)
    rooms = []
    for ref in (1, 3, 5):
        conn, _, _ = http2.receive(conn, wire.headers_frame(ref, b"\x88", end=True), 0.0)
        rooms.append(http2.capacity(conn))
    assert rooms == [0, 1, 2]


def test_our_own_limit_holds_where_the_peers_is_higher_or_not_given() -> None:
    ours = Settings(max_streams=5, first_streams=3)
    assert http2.capacity(start(settings=ours)[0]) == 5
    assert http2.capacity(start((wire.MAX_CONCURRENT_STREAMS, 6), settings=ours)[0]) == 5
    assert http2.capacity(start((wire.MAX_CONCURRENT_STREAMS, 4), settings=ours)[0]) == 4
    assert http2.capacity(start((wire.MAX_CONCURRENT_STREAMS, LAST + 1), settings=ours)[0]) == 5


def test_streams_before_the_peers_settings() -> None:
    """RFC 9113 §3.4: "clients are permitted to send additional frames … immediately after the client preface"."""
    conn, data = http2.connect(ORIGIN, Settings(max_streams=5, first_streams=3), 0.0)
    assert http2.capacity(conn) == 3
    conn = get(conn, 0.0, 3)
    with pytest.raises(AtCapacity, match="3 allowed, 3 live"):
        http2.request(conn, "GET", "/", (), None, 0.0)
    conn, _, _ = http2.receive(conn, wire.settings(), 0.0)
    assert http2.capacity(conn) == 2
    conn, _, _ = http2.receive(conn, wire.settings((wire.MAX_CONCURRENT_STREAMS, 1)), 0.0)
    assert http2.capacity(conn) == 0
    conn, _, _ = http2.receive(conn, wire.settings(), 0.0)
    assert http2.capacity(conn) == 0, "a setting that is not repeated stays as it was"


def test_fewer_in_all_than_before_the_settings() -> None:
    assert http2.capacity(http2.connect(ORIGIN, Settings(max_streams=2, first_streams=3), 0.0)[0]) == 2


# Unconfirmed: reset, and the peer has shown no life since the head left


@pytest.mark.fault("A7")
def test_a_reset_in_silence_keeps_its_slot_and_asks_for_a_sign_of_life() -> None:
    """DESIGN §6; Go #59690: a dead peer must not be fed request after request."""
    conn, _ = start((wire.MAX_CONCURRENT_STREAMS, 2))
    conn = get(conn, 1.0)
    conn, out, events = http2.cancel(conn, 1, 2.0)
    assert out == wire.rst_stream(1, wire.CANCEL) + wire.ping(bytes(8))
    assert events == [RequestFailed(1, Failure("StreamClosed", -1, "GET /: cancelled by its caller", 1))]
    assert slots(conn) == (0, [], [1])
    assert http2.capacity(conn) == 1
    conn = get(conn, 2.0)
    message = "no slot is free: 2 allowed, 1 live, 0 unsent, 1 unconfirmed"
    with pytest.raises(AtCapacity, match=f"^{message}$"):
        http2.request(conn, "GET", "/", (), None, 2.0)


SIGNS: Final = {
    "DATA": wire.data_frame(1, b"late"),
    "HEADERS": wire.headers_frame(1, b"\x88"),
    "PRIORITY": wire.priority(1),
    "RST_STREAM": wire.rst_stream(1, wire.NO_ERROR),
    "SETTINGS": wire.settings(),
    "SETTINGS ACK": wire.settings_ack(),
    "PING": wire.ping(),
    "PING ACK": wire.ping(bytes(8), ack=True),
    "another PING's ACK": wire.ping(b"\0\0\0\0\0\0\0\1", ack=True),
    "GOAWAY": wire.goaway(1),
    "GOAWAY below it": wire.goaway(0),
    "WINDOW_UPDATE": wire.window_update(0, 1),
    "unknown": wire.frame(0x77, 0xFF, 1, b"?"),
}


@pytest.mark.parametrize("name", SIGNS)
def test_any_frame_frees_the_slot(name: str) -> None:
    conn = http2.cancel(get(start()[0], 1.0), 1, 2.0)[0]
    conn, _, _ = http2.receive(conn, SIGNS[name], 3.0)
    assert slots(conn) == (0, [], [])


def test_one_frame_frees_all() -> None:
    conn, out = cancel_all(get(start()[0], 1.0, 3), range(1, 6, 2), 2.0)
    assert slots(conn) == (0, [], [1, 3, 5])
    assert wire.kinds(out) == [(wire.RST_STREAM, 1), (wire.PING, 0), (wire.RST_STREAM, 3), (wire.RST_STREAM, 5)]
    conn, _, _ = http2.receive(conn, wire.settings(), 3.0)
    assert http2.capacity(conn) == 100


def test_half_a_frame_frees_nothing() -> None:
    conn = http2.cancel(get(start()[0], 1.0), 1, 2.0)[0]
    conn, _, _ = http2.receive(conn, wire.settings()[:-1], 3.0)
    assert slots(conn) == (0, [], [1])


@pytest.mark.fault("A8")
def test_a_frame_between_head_and_reset_is_life_enough() -> None:
    """No PING where a frame for a stream has come since that request began."""
    conn = get(start()[0], 1.0, 2)
    conn, _, _ = http2.receive(conn, wire.settings(), 1.5)
    conn, out, _ = http2.cancel(conn, 1, 2.0)
    assert out == wire.rst_stream(1, wire.CANCEL)
    assert slots(conn) == (1, [], [])
    conn = get(conn, 2.0)
    conn, out, _ = http2.cancel(conn, 5, 2.0)
    assert wire.kinds(out) == [(wire.RST_STREAM, 5), (wire.PING, 0)]
    assert slots(conn) == (1, [], [5])


@pytest.mark.rfc("9113-6.7-1")
def test_an_answered_ping_tells_its_time_and_the_next_is_another() -> None:
    """RFC 9113 §6.7: the ACK has "an identical frame payload"."""
    conn = http2.cancel(get(start()[0], 1.0), 1, 2.0)[0]
    conn, _, events = http2.receive(conn, wire.ping(bytes(8), ack=True), 2.25)
    assert events == [PingAcknowledged(bytes(8), 0.25)]
    assert http2.snapshot(conn, 3.0).ping is None
    conn, _, events = http2.receive(conn, wire.ping(bytes(8), ack=True), 2.5)
    assert events == [], "nothing is in flight"
    conn, out, _ = http2.cancel(get(conn, 3.0), 3, 3.0)
    assert out == wire.rst_stream(3, wire.CANCEL) + wire.ping(b"\0\0\0\0\0\0\0\1")
    conn, _, events = http2.receive(conn, wire.ping(bytes(8), ack=True), 3.5)
    assert events == []
    assert http2.snapshot(conn, 4.0).ping == 1.0


def test_a_peer_that_answers_no_ping_is_condemned_at_ten_seconds() -> None:
    """DESIGN §6: "no ACK in 10 s condemns the connection"."""
    conn = http2.cancel(get(start()[0], 1.0, 2), 1, 2.0)[0]
    assert http2.next_timeout(conn) == 12.0
    early = math.nextafter(12.0, 0.0)
    assert http2.handle_timeout(conn, early) == (conn, b"", [])
    conn, out, events = http2.handle_timeout(conn, 12.0)
    message = "the peer is gone: no answer to a PING for 10.00 s (allowed are 10)"
    assert out == b""
    assert events == [
        RequestFailed(3, Failure("ReadTimeout", -1, message, 3, clock="ping")),
        ConnectionClosed(Failure("ReadTimeout", -1, message, clock="ping")),
    ]
    assert slots(conn) == (0, [], [])
    assert (conn.status, http2.capacity(conn), http2.next_timeout(conn)) == (CLOSED, 0, INFINITY)


def test_frames_without_the_answer_save_it_as_long_as_they_come() -> None:
    """What comes shows life: the answer may be behind it. Ten seconds after the last of it the peer is gone."""
    conn = http2.cancel(get(start()[0], 1.0), 1, 2.0)[0]
    conn, _, _ = http2.receive(conn, wire.settings(), 11.0)
    conn, _, events = http2.handle_timeout(conn, 12.0)
    assert (events, http2.next_timeout(conn)) == ([], 21.0)
    conn, _, events = http2.handle_timeout(conn, 21.0)
    assert [type(event) for event in events] == [ConnectionClosed]


def test_an_answer_in_the_last_moment_saves_it() -> None:
    conn = http2.cancel(get(start()[0], 1.0, 2), 1, 2.0)[0]
    conn, _, _ = http2.receive(conn, wire.ping(bytes(8), ack=True), math.nextafter(12.0, 0.0))
    conn, out, events = http2.handle_timeout(conn, 12.0)
    assert (conn.status, out, events) == (OPEN, b"", [])
    assert http2.next_timeout(conn) == 61.0


def test_other_clocks_wait_behind_a_ping_in_flight() -> None:
    """A wake-up for a request does not take the PING's away."""
    conn = get(start()[0], 0.0, 2, Clocks(head=5.0))
    conn, _, _ = http2.cancel(conn, 1, 1.0)
    conn, _, events = http2.handle_timeout(conn, 5.0)
    assert [type(event) for event in events] == [RequestFailed]
    assert http2.next_timeout(conn) == 11.0


# Unsent: failed for the caller, the RST_STREAM waits for the pacer


def crowd(count: int = 503, now: float = 0.0) -> tuple[HTTP2Connection, wire.Peer]:
    """That many requests, and one frame since: their resets need no confirmation."""
    conn, peer = start(settings=MANY, now=now)
    for _ in range(count):
        conn, out, _ = http2.request(conn, "GET", "/", (), None, now)
        peer.take(out)
    return http2.receive(conn, wire.settings_ack(), now)[0], peer


@pytest.mark.fault("I7")
def test_resets_above_the_burst_wait_and_keep_their_slots() -> None:
    """DESIGN §6: a burst of 500."""
    conn, peer = crowd()
    conn, out = cancel_all(conn, range(1, 1000, 2), 0.0)
    peer.take(out)
    assert len(peer.resets) == 500
    assert slots(conn) == (3, [], [])
    assert http2.capacity(conn) == 997
    conn, out, events = http2.cancel(conn, 1001, 0.0)
    assert out == b""
    assert events == [RequestFailed(1001, Failure("StreamClosed", -1, "GET /: cancelled by its caller", 1001))]
    assert slots(conn) == (2, [1001], [])
    assert http2.capacity(conn) == 997
    assert http2.next_timeout(conn) == pytest.approx(1 / 30)


@pytest.mark.fault("A6")
def test_a_slot_is_free_no_earlier_than_its_reset_is_in_the_output() -> None:
    conn, _ = crowd()
    conn, _ = cancel_all(conn, range(1, 1006, 2), 0.0)
    conn, _, _ = http2.receive(conn, wire.settings((wire.MAX_CONCURRENT_STREAMS, 3)), 0.0)
    assert http2.capacity(conn) == 0
    with pytest.raises(AtCapacity, match="3 allowed, 0 live, 3 unsent, 0 unconfirmed"):
        http2.request(conn, "GET", "/", (), None, 0.0)
    conn, out, events = http2.handle_timeout(conn, 0.05)
    assert out == wire.rst_stream(1001, wire.CANCEL)
    assert events == []
    assert http2.capacity(conn) == 1


def test_thirty_a_second_after_the_burst_the_oldest_first() -> None:
    """DESIGN §6: then 30 a second per connection."""
    conn, peer = crowd(600)
    conn, out = cancel_all(conn, range(1, 1200, 2), 0.0)
    peer.take(out)
    assert len(conn.control.unsent) == 100
    counts = []
    for now in (0.5, 1.0, 2.0, 10.0):
        conn, out, _ = http2.handle_timeout(conn, now + 1e-6)
        peer.take(out)
        counts.append(len(peer.resets) - 500)
    assert counts == [15, 30, 60, 100]
    assert list(peer.resets) == list(range(1, 1200, 2))
    assert (http2.next_timeout(conn), http2.capacity(conn)) == (INFINITY, 1000)


def test_the_burst_is_earned_again_but_never_more() -> None:
    conn, peer = crowd(1000)
    conn, out = cancel_all(conn, range(1, 1000, 2), 0.0)
    peer.take(out)
    conn, _, _ = http2.receive(conn, wire.settings_ack(), 30.0)
    conn, out = cancel_all(conn, range(1001, 2000, 2), 1000.0)
    peer.take(out)
    assert slots(conn) == (0, [], [])
    conn = get(conn, 1000.0)
    conn, out, _ = http2.cancel(conn, 2001, 1000.0)
    assert out == b""
    assert slots(conn) == (0, [2001], [])


@pytest.mark.parametrize("now", [0.0, 0.1, 100_000.123])
def test_a_wake_up_of_the_pacer_sends_something(now: float) -> None:
    """A clock read with as many digits as `next_timeout` has must not stand still there for ever."""
    conn, _ = crowd(600, now)
    conn, _ = cancel_all(conn, range(1, 1200, 2), now)
    steps = 0
    while conn.control.unsent and steps < 200:
        conn, _, _ = http2.handle_timeout(conn, http2.next_timeout(conn))
        steps += 1
    assert conn.control.unsent == {}


def test_an_unsent_reset_in_silence_becomes_unconfirmed_when_it_leaves() -> None:
    conn, peer = start(settings=MANY)
    conn = get(conn, 0.0, 502)
    conn, _, _ = http2.receive(conn, wire.settings_ack(), 0.0)
    conn, _ = cancel_all(conn, range(1, 1000, 2), 0.0)
    conn = get(conn, 0.0)
    conn, _ = cancel_all(conn, range(1001, 1006, 2), 0.0)
    assert slots(conn) == (0, [1001, 1003, 1005], [])
    conn, out, _ = http2.handle_timeout(conn, 1.0)
    assert wire.kinds(out)[-2:] == [(wire.RST_STREAM, 1005), (wire.PING, 0)]
    assert slots(conn) == (0, [], [1005])
    assert http2.next_timeout(conn) == 11.0


@pytest.mark.rfc("9113-5.1-8", "9113-6.4-2", "9113-6.9-5")
def test_late_frames_for_an_unsent_stream_are_ignored_and_its_data_credited() -> None:
    """RFC 9113 §5.1: what comes after our reset is processed minimally; here the reset has not even left."""
    conn, peer = crowd(501)
    conn, _ = cancel_all(conn, range(1, 1003, 2), 0.0)
    late = peer.head(1001, 200, ("x", "y")) + peer.data(1001, b"late") + wire.window_update(1001, 5)
    conn, out, events = http2.receive(conn, late, 0.0)
    assert (out, events) == (b"", [])
    assert slots(conn) == (0, [1001], [])
    assert conn.recv_window == SETTINGS.connection_window - 4


@pytest.mark.fault("A17")
@pytest.mark.parametrize("ending", [wire.rst_stream(1001, wire.NO_ERROR), wire.headers_frame(1001, b"\x88", end=True)])
@pytest.mark.rfc("9113-5.1-7", "9113-6.4-1")
def test_nothing_is_sent_on_an_unsent_stream_that_the_peer_has_closed(ending: bytes) -> None:
    """RFC 9113 §5.1: "An endpoint MUST NOT send frames other than PRIORITY on a closed stream"."""
    conn, _ = crowd(501)
    conn, _ = cancel_all(conn, range(1, 1003, 2), 0.0)
    conn, _, _ = http2.receive(conn, ending, 0.0)
    conn, out, _ = http2.handle_timeout(conn, 1.0)
    assert out == b""
    assert slots(conn) == (0, [], [])


@pytest.mark.parametrize("again", [wire.data_frame(1003, end=True), wire.headers_frame(1003, b"", end=True)])
def test_a_stream_whose_content_is_open_is_reset_however_often_the_peer_ends_it(again: bytes) -> None:
    """RFC 9113 §5.1: half-closed (remote) counts for the limit until our side is closed too: the RST_STREAM must go."""
    conn, peer = crowd(501)
    conn, out, _ = http2.request(conn, "PUT", "/", (), b"begun", 0.0, end=False)
    peer.take(out)
    conn, _ = cancel_all(conn, range(1, 1000, 2), 0.0)
    conn, _, events = http2.receive(conn, wire.headers_frame(1003, b"\x88", end=True), 0.0)
    assert events[-1] == ResponseEnded(1003)
    assert slots(conn) == (1, [1003], [])
    conn, _, _ = http2.receive(conn, again, 0.0)
    assert slots(conn) == (1, [1003], [])
    assert http2.handle_timeout(conn, 1.0)[1] == wire.rst_stream(1003, wire.CANCEL)


# GOAWAY


@pytest.mark.rfc("9113-6.8-2", "9113-8.7-1")
def test_goaway_ends_what_the_peer_will_not_act_on_and_nothing_else() -> None:
    """RFC 9113 §6.8: streams above the last id "can be retried"; the others "might" have been acted on and go on."""
    conn = get(start()[0], 0.0, 3)
    conn, out, events = http2.receive(conn, wire.goaway(1, 11, b"calm down"), 1.0)
    message = "GET /: the peer said GOAWAY [ENHANCE_YOUR_CALM] before it acted on it"
    assert out == b""
    assert events == [
        GoAwayReceived(1, 11, b"calm down"),
        RequestFailed(3, Failure("ConnectionTerminated", 11, message, 3, True, 1)),
        RequestFailed(5, Failure("ConnectionTerminated", 11, message, 5, True, 1)),
    ]
    assert (conn.status, http2.capacity(conn), live(conn)) == (DRAINING, 0, [1])
    conn, _, events = http2.receive(conn, wire.headers_frame(1, b"\x88", end=True), 2.0)
    assert events == [ResponseReceived(1, 200, ()), ResponseEnded(1)]
    assert (conn.status, conn.live) == (DRAINING, 0)


@pytest.mark.rfc("9113-6.8-1")
def test_no_new_request_after_goaway() -> None:
    """RFC 9113 §6.8: "Receivers of a GOAWAY frame MUST NOT open additional streams on the connection"."""
    conn, _, _ = http2.receive(start()[0], wire.goaway(LAST), 1.0)
    with pytest.raises(LocalProtocolError, match=r"^the connection is draining: it takes no new requests$"):
        http2.request(conn, "GET", "/", (), None, 1.0)


@pytest.mark.fault("E2")
def test_goaway_that_acted_on_nothing() -> None:
    """A last id of 0 is a number like any other."""
    conn, _, events = http2.receive(get(start()[0]), wire.goaway(0), 1.0)
    assert [event.failure.unprocessed for event in events if isinstance(event, RequestFailed)] == [True]
    assert (conn.status, conn.live) == (DRAINING, 0)


@pytest.mark.rfc("9113-4.1-6")
def test_the_reserved_bit_of_the_last_id_is_ignored() -> None:
    """RFC 9113 §6.8, §4.1."""
    _, _, events = http2.receive(start()[0], wire.goaway(2**31 + 5), 1.0)
    assert events == [GoAwayReceived(5, 0, b"")]


@pytest.mark.fault("E4")
def test_the_last_id_may_fall() -> None:
    """RFC 9113 §6.8: "the last stream identifier … might be lower"."""
    conn = get(start()[0], 0.0, 2)
    conn, _, events = http2.receive(conn, wire.goaway(LAST) + wire.goaway(LAST), 1.0)
    assert events == [GoAwayReceived(LAST, 0, b""), GoAwayReceived(LAST, 0, b"")]
    assert live(conn) == [1, 3]
    conn, _, events = http2.receive(conn, wire.goaway(1), 1.0)
    assert [type(event) for event in events] == [GoAwayReceived, RequestFailed]
    assert live(conn) == [1]


@pytest.mark.fault("E4")
def test_the_last_id_may_not_rise() -> None:
    """RFC 9113 §6.8: "Endpoints MUST NOT increase the value they send in the last stream identifier"."""
    conn, out, events = http2.receive(get(start()[0]), wire.goaway(1) + wire.goaway(3), 1.0)
    message = "GOAWAY raises its last stream id to 3 (§6.8) [PROTOCOL_ERROR]"
    assert out == wire.goaway(0, wire.PROTOCOL_ERROR)
    assert events[-1] == ConnectionClosed(Failure("RemoteProtocolError", 1, message))


@pytest.mark.rfc("9113-6.8-2")
def test_an_upload_goes_on_after_goaway() -> None:
    """RFC 9113 §6.8: frames for streams up to the last id are still due; "WINDOW_UPDATE" among them."""
    conn, peer = start((wire.INITIAL_WINDOW_SIZE, 3))
    conn, out, _ = http2.request(conn, "PUT", "/", (), b"hello", 0.0)
    peer.take(out)
    conn, out, _ = http2.receive(conn, wire.goaway(1) + peer.widen(1, 10), 1.0)
    peer.take(out)
    assert peer.requests[1].content == b"hello"
    assert peer.requests[1].ended


def test_goaway_frees_the_slots_of_resets_above_it() -> None:
    conn, _ = crowd(503)
    conn, _ = cancel_all(conn, range(1, 1006, 2), 0.0)
    conn, _, _ = http2.receive(conn, wire.goaway(1003), 0.0)
    assert slots(conn) == (0, [1001, 1003], [])
    conn, out, _ = http2.handle_timeout(conn, 1.0)
    assert wire.kinds(out) == [(wire.RST_STREAM, 1001), (wire.RST_STREAM, 1003)]


# The end of a connection


def ended(conn: HTTP2Connection, events: list[Event]) -> Failure | None:
    """Checks that the connection is over and empty; returns why."""
    assert (conn.status, slots(conn), conn.streams, conn.ready) == (CLOSED, (0, [], []), {}, ())
    assert (conn.buffer, conn.partial, conn.control.block) == (b"", None, None)
    assert (http2.next_timeout(conn), http2.capacity(conn)) == (INFINITY, 0)
    assert isinstance(events[-1], ConnectionClosed)
    return events[-1].failure


@in_every_state
@pytest.mark.rfc("9113-5.4.1-3", "9113-6.8-3")
def test_each_state_can_be_closed_by_us(name: str) -> None:
    """RFC 9113 §6.8: GOAWAY, with the highest id of a stream that the peer opened: none."""
    before = STATES[name]()
    conn, out, events = http2.close(before, 9.0)
    failure = Failure("StreamClosed", -1, "the connection was closed by this side")
    if before.status == CLOSED:
        assert (conn, out, events) == (before, b"", [])
        return
    assert out == wire.goaway(0, wire.NO_ERROR)
    assert ended(conn, events) == failure
    assert events[:-1] == [
        RequestFailed(ref, Failure("StreamClosed", -1, failure.message, ref)) for ref in live(before)
    ]


@in_every_state
@pytest.mark.rfc("9113-5.4.3-1", "9113-8.7-3")
def test_each_state_can_lose_its_transport(name: str) -> None:
    before = STATES[name]()
    conn, events = http2.closed(before, 9.0)
    if before.status == CLOSED:
        assert (conn, events) == (before, [])
        return
    message = "the connection broke before the response was complete"
    assert events[:-1] == [RequestFailed(ref, Failure("ReadError", -1, message, ref)) for ref in live(before)]
    assert ended(conn, events) == (Failure("ReadError", -1, message) if live(before) else None)


@in_every_state
@pytest.mark.rfc("9113-5.4.1-1", "9113-5.4.1-2")
def test_each_state_can_end_in_a_connection_error(name: str) -> None:
    """RFC 9113 §5.4.1: "An endpoint that encounters a connection error SHOULD first send a GOAWAY frame"."""
    before = STATES[name]()
    conn, out, events = http2.receive(before, b"\xff" * 60, 9.0)
    if before.status == CLOSED:
        assert (conn, out, events) == (before, b"", [])
        return
    failure = ended(conn, events)
    assert failure is not None
    assert wire.parse(out)[-1] == wire.parse(wire.goaway(0, failure.code))[0]
    assert [event.ref for event in events if isinstance(event, RequestFailed)] == live(before)


def test_a_clean_end_is_told_from_a_broken_one() -> None:
    _, events = http2.closed(waiting(), 2.0, clean=True)
    message = "the peer closed the connection before the response was complete"
    assert events[-1] == ConnectionClosed(Failure("ReadError", -1, message))


def test_a_broken_end_says_how_it_broke_where_that_is_known() -> None:
    for clean, what in ((True, "the peer closed the connection"), (False, "the connection broke")):
        _, events = http2.closed(waiting(), 2.0, clean=clean, reason="ECONNRESET")
        message = f"{what} before the response was complete (ECONNRESET)"
        assert events[-1] == ConnectionClosed(Failure("ReadError", -1, message))


def test_what_never_left_is_unprocessed() -> None:
    """RFC 9113 §8.7; DESIGN §3, law 9: each stream keeps the output offset at which its head ends."""
    conn, _ = start()
    sizes = []
    for _ in range(3):
        conn, data, _ = http2.request(conn, "GET", "/", (), None, 1.0)
        sizes.append(len(data))
    for lost, expected in (
        (0, [False, False, False]),
        (1, [False, False, True]),
        (sizes[2], [False, False, True]),
        (sizes[2] + 1, [False, True, True]),
        (sizes[2] + sizes[1] + 1, [True, True, True]),
        (conn.written, [True, True, True]),
    ):
        _, events = http2.closed(conn, 2.0, unsent=lost)
        assert [event.failure.unprocessed for event in events if isinstance(event, RequestFailed)] == expected, lost


def test_content_that_never_left_says_nothing_about_its_head() -> None:
    conn, _ = start()
    conn, data, _ = http2.request(conn, "PUT", "/", (), b"hello", 1.0)
    tail = len(wire.data_frame(1, b"hello"))
    for lost, unprocessed in ((tail, False), (tail + 1, True)):
        _, events = http2.closed(conn, 2.0, unsent=lost)
        assert [event.failure.unprocessed for event in events if isinstance(event, RequestFailed)] == [unprocessed]


@pytest.mark.parametrize("how", ["closed", "close", "terminated", "condemned"])
def test_what_left_is_not_called_unprocessed_after_two_gibibytes(how: str) -> None:
    """DESIGN §3, law 9: only what the peer provably never acted on may be replayed."""
    conn = altered(start()[0], written=2**31)
    conn = get(conn, 1.0)
    if how == "closed":
        events = http2.closed(conn, 2.0)[1]
    elif how == "close":
        events = http2.close(conn, 2.0)[2]
    elif how == "terminated":
        events = http2.receive(conn, wire.data_frame(0), 2.0)[2]
    else:
        conn = http2.cancel(get(conn, 1.0), 3, 1.0)[0]
        events = http2.handle_timeout(conn, 11.0)[2]
    assert [event.failure.unprocessed for event in events if isinstance(event, RequestFailed)] == [False]


@pytest.mark.rfc("9113-5.4.1-2")
def test_one_end_only() -> None:
    """DESIGN §3, law 3."""
    conn, _, events = http2.close(waiting(), 2.0)
    assert sum([isinstance(event, ConnectionClosed) for event in events]) == 1
    assert http2.closed(conn, 3.0) == (conn, [])
    assert http2.close(conn, 3.0) == (conn, b"", [])
    assert http2.receive(conn, wire.headers_frame(1, b"\x88", end=True), 3.0) == (conn, b"", [])
    assert http2.handle_timeout(conn, 1e9) == (conn, b"", [])
    assert http2.cancel(conn, 1, 3.0) == (conn, b"", [])
    assert http2.consume(conn, 1, 0, 3.0) == (conn, b"", [])
    assert http2.flush(conn, 3.0) == (conn, b"", [])
    with pytest.raises(LocalProtocolError, match=r"^the connection is closed: it takes no new requests$"):
        http2.request(conn, "GET", "/", (), None, 3.0)
    with pytest.raises(LocalProtocolError, match=r"^request 1 is over: its content is not wanted any more$"):
        http2.send_data(conn, 1, b"", 3.0)


@pytest.mark.fault("A13")
def test_a_failed_request_takes_its_queued_content_with_it() -> None:
    """DESIGN §3, law 4."""
    conn = uploading()
    assert conn.ready != ()
    for ref in (1, 3, 5, 7):
        conn, _, events = http2.receive(conn, wire.rst_stream(ref, wire.INTERNAL_ERROR), 3.0)
        assert [type(event) for event in events] == [RequestFailed]
        assert ref not in conn.ready
        assert find_stream(conn.streams, ref) is None
    assert (conn.live, conn.ready) == (0, ())
    assert http2.receive(conn, wire.window_update(0, 1_000_000), 4.0)[1] == b""


def test_nothing_has_been_heard_in_the_beginning() -> None:
    conn = fresh()
    assert (conn.heard_at, conn.frames, conn.peer.known) == (NEVER, 0, False)
    none: Fields = ()
    assert http2.request(conn, "GET", "/", none, None, 1.0)[2] == 1
