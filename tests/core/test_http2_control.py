"""What concerns the connection: PING and keepalive, settings in flight, windows that grow, priorities, and the budget of
frames that bring nothing forward."""

from typing import Final

import pytest

from calamint import core
from calamint.core import http2
from calamint.core.errors import LocalProtocolError
from calamint.core.events import (
    ConnectionClosed,
    DataReceived,
    PingAcknowledged,
    RequestFailed,
    ResponseEnded,
)
from calamint.core.exchange import SETTINGS, Clocks, Settings
from calamint.core.http2_state import CLOSED, DRAINING, OPEN, HTTP2Connection
from calamint.core.streams import find_stream
from calamint.core.value import INFINITY, NEVER
from tests.core import http2_peer as wire
from tests.core.test_http2_state import ORIGIN, get, slots, start

OK: Final = b"\x88"
FOREVER: Final = Clocks(None, None, None, None)


def failure(conn: HTTP2Connection, data: bytes, now: float = 0.0) -> tuple[int, str]:
    """The error code and the words of the connection error that this is."""
    conn, out, events = http2.receive(conn, data, now)
    last = events[-1]
    assert isinstance(last, ConnectionClosed) and last.failure is not None
    assert wire.parse(out)[-1].kind == wire.GOAWAY
    return last.failure.code, last.failure.message


# ping


@pytest.mark.rfc("9113-6.7-1")
def test_ping_is_answered_with_the_seconds_that_it_took() -> None:
    """RFC 9113 §6.7."""
    conn, peer = start()
    conn, data = http2.ping(conn, 1.0)
    assert data == wire.ping(bytes(8))
    assert http2.ping(conn, 1.5)[1] == b"", "one at a time is in flight"
    conn, out, events = http2.receive(conn, wire.ping(bytes(8), ack=True), 3.0)
    assert (out, events) == (b"", [PingAcknowledged(bytes(8), 2.0)])
    assert http2.ping(conn, 4.0)[1] == wire.ping(bytes(7) + b"\x01")


def test_a_ping_that_is_not_answered_condemns_the_connection() -> None:
    conn, _ = start()
    conn, _ = http2.ping(get(conn, 0.0, 1, FOREVER), 1.0)
    assert http2.next_timeout(conn) == 11.0
    conn, _, events = http2.handle_timeout(conn, 11.0)
    assert isinstance(events[0], RequestFailed) and events[0].failure.kind == "ReadTimeout"
    assert (conn.status, http2.ping(conn, 12.0)) == (CLOSED, (conn, b""))


def test_http1_has_neither_ping_nor_settings_nor_windows_nor_priorities() -> None:
    conn, _ = core.connect("http/1.1", ORIGIN, SETTINGS, 0.0)
    with pytest.raises(LocalProtocolError, match="no PING"):
        core.ping(conn, 0.0)
    with pytest.raises(LocalProtocolError, match="no SETTINGS"):
        core.put_settings(conn, SETTINGS, 0.0)
    assert core.grow_window(conn, 1, 10, 0.0) == (conn, b"")
    assert core.prioritize(conn, 1, 3, False, 0.0) == (conn, b"")


# keepalive


def keeping(interval: float | None = 30.0, now: float = 0.0) -> HTTP2Connection:
    return get(start(settings=Settings(keepalive=interval), now=now)[0], now, 1, FOREVER)


def test_silence_while_requests_wait_is_met_with_a_ping() -> None:
    conn = keeping()
    assert http2.next_timeout(conn) == 30.0
    conn, out, _ = http2.handle_timeout(conn, 30.0)
    assert out == wire.ping(bytes(8))
    assert http2.next_timeout(conn) == 40.0
    conn, _, events = http2.handle_timeout(conn, 40.0)
    assert isinstance(events[0], RequestFailed)
    assert "no answer to a PING for 10.00 s" in events[0].failure.message


def test_within_one_silence_the_next_ping_comes_late() -> None:
    """Servers count more than one in five minutes without data as abuse."""
    conn = keeping()
    conn, _, _ = http2.handle_timeout(conn, 30.0)
    conn, _, _ = http2.receive(conn, wire.ping(bytes(8), ack=True) + wire.ping(), 31.0)
    conn, out, _ = http2.handle_timeout(conn, 329.9)
    assert (out, http2.next_timeout(conn)) == (b"", 330.0)
    conn, out, _ = http2.handle_timeout(conn, 330.0)
    assert out == wire.ping(bytes(7) + b"\x01")


def test_what_the_peer_says_breaks_the_silence() -> None:
    conn = keeping()
    conn, _, _ = http2.handle_timeout(conn, 30.0)
    conn, _, _ = http2.receive(conn, wire.ping(bytes(8), ack=True), 31.0)
    conn, _, _ = http2.receive(conn, wire.headers_frame(1, OK), 50.0)
    assert http2.next_timeout(conn) <= 80.0
    conn, out, _ = http2.handle_timeout(conn, 79.9)
    assert (out, http2.next_timeout(conn)) == (b"", 80.0)
    assert http2.handle_timeout(conn, 80.0)[1] == wire.ping(bytes(7) + b"\x01")


def test_silence_counts_from_when_a_request_waits() -> None:
    conn, _ = start(settings=SETTINGS)
    assert http2.next_timeout(conn) == INFINITY
    conn = get(conn, 1000.0, 1, FOREVER)
    assert http2.next_timeout(conn) == 1030.0
    conn, out, _ = http2.handle_timeout(conn, 1029.0)
    assert out == b""
    conn, _, _ = http2.receive(conn, wire.headers_frame(1, OK, end=True), 1029.5)
    assert http2.handle_timeout(conn, 1100.0)[1] == b"", "nobody waits"


def test_a_keepalive_of_more_than_five_minutes_is_not_shortened() -> None:
    conn, out, _ = http2.handle_timeout(keeping(400.0), 400.0)
    conn, _, _ = http2.receive(conn, wire.ping(bytes(8), ack=True), 401.0)
    assert (len(out), http2.next_timeout(http2.handle_timeout(conn, 410.0)[0])) == (17, 800.0)


def test_keepalive_off() -> None:
    assert http2.next_timeout(keeping(None)) == INFINITY


# settings in flight


def test_new_settings_are_announced_where_they_differ() -> None:
    conn, peer = start()
    conn, data = http2.put_settings(conn, Settings(stream_window=70_000, keepalive=None), 1.0)
    assert data == wire.settings((wire.INITIAL_WINDOW_SIZE, 70_000))
    same, data = http2.put_settings(conn, Settings(stream_window=70_000, keepalive=None), 1.0)
    assert (data, same.control.pending) == (b"", conn.control.pending)
    conn, data = http2.put_settings(
        conn, Settings(header_table_size=0, max_frame_size=20_000, max_field_section=9), 1.0
    )
    assert data == wire.settings((1, 0), (4, 2 << 20), (5, 20_000), (6, 9))
    assert http2.put_settings(http2.close(conn, 1.0)[0], SETTINGS, 2.0)[1] == b""


@pytest.mark.rfc("9113-6.9.3-1")
def test_the_laxer_settings_hold_until_the_acknowledgement() -> None:
    """§6.5.3: what was sent before the peer had applied them is within the old ones."""
    conn, _ = start(settings=Settings(stream_window=100_000, keepalive=None))
    conn = get(conn, 0.0, 2)
    conn, _ = http2.put_settings(conn, Settings(stream_window=40_000, max_frame_size=20_000, keepalive=None), 1.0)
    frame = wire.data_frame(1, bytes(16_384))
    conn, _, _ = http2.receive(conn, wire.headers_frame(1, OK) + wire.headers_frame(3, OK) + frame * 4, 1.0)
    assert [stream.ref for stream in core.snapshot(conn, 1.0).requests] == [1, 3]
    conn, _, _ = http2.receive(conn, wire.data_frame(3, bytes(20_000)), 1.0)
    assert conn.status == OPEN, "the larger frames are taken at once"
    conn, _, _ = http2.receive(conn, wire.settings_ack(), 2.0)
    first, second = (find_stream(conn.streams, ref) for ref in (1, 3))
    assert first is not None and first.recv_window == 100_000 - 4 * 16_384 - 60_000
    assert second is not None and second.recv_window == 20_000
    conn, _, events = http2.receive(conn, wire.data_frame(3, bytes(20_000)) + wire.data_frame(3, b"x"), 3.0)
    assert isinstance(events[-1], RequestFailed) and events[-1].failure.code == wire.FLOW_CONTROL_ERROR


@pytest.mark.rfc("9113-6.5.3-5")
def test_two_changes_in_flight() -> None:
    conn, _ = start(settings=Settings(stream_window=1000, keepalive=None))
    conn = get(conn)
    for window in (5000, 2000):
        conn, _ = http2.put_settings(conn, Settings(stream_window=window, keepalive=None), 1.0)
    assert conn.setup.settings.stream_window == 5000
    conn, _, _ = http2.receive(conn, wire.settings_ack(), 1.0)
    assert conn.setup.settings.stream_window == 5000
    conn, _, _ = http2.receive(conn, wire.settings_ack(), 1.0)
    assert (conn.setup.settings.stream_window, conn.control.acknowledged.stream_window) == (2000, 2000)
    stream = find_stream(conn.streams, 1)
    assert stream is not None and stream.recv_window == 2000


@pytest.mark.fault("B5")
def test_a_full_stream_is_credited_when_its_window_shrinks() -> None:
    """What was not worth an update before is one now, or nothing would ever come again."""
    conn, _ = start(settings=Settings(stream_window=100_000, keepalive=None))
    conn, _, _ = http2.receive(get(conn), wire.headers_frame(1, OK) + wire.data_frame(1, bytes(16_000)), 0.0)
    conn, out, _ = http2.consume(conn, 1, 16_000, 0.0)
    assert out == b""
    conn, _ = http2.put_settings(conn, Settings(stream_window=1000, keepalive=None), 0.0)
    conn, out, _ = http2.receive(conn, wire.settings_ack(), 0.0)
    assert out == wire.window_update(1, 16_000)
    stream = find_stream(conn.streams, 1)
    assert stream is not None and stream.recv_window == 1000


@pytest.mark.rfc("9113-4.3.1-2")
def test_a_smaller_table_has_to_be_acknowledged_by_the_next_block() -> None:
    """§4.3.1, RFC 7541 §4.2."""
    conn = get(start()[0])
    conn, data = http2.put_settings(conn, Settings(header_table_size=10, keepalive=None), 0.0)
    assert data == wire.settings((1, 10))
    assert http2.receive(conn, wire.headers_frame(1, OK), 0.0)[0].status == OPEN
    conn, _, _ = http2.receive(conn, wire.settings_ack(), 0.0)
    assert failure(conn, wire.headers_frame(1, OK))[0] == wire.COMPRESSION_ERROR
    assert http2.receive(conn, wire.headers_frame(1, b"\x2a" + OK), 0.0)[0].status == OPEN
    larger, _ = http2.put_settings(conn, Settings(header_table_size=8192, keepalive=None), 0.0)
    assert larger.decoder.limit == 8192, "the laxer one: the peer may use it at once"


def test_a_connection_window_that_grows_is_told_at_once() -> None:
    conn, peer = start(settings=Settings(connection_window=100_000, keepalive=None))
    conn, data = http2.put_settings(conn, Settings(connection_window=150_000, keepalive=None), 0.0)
    assert (data, conn.recv_window) == (wire.window_update(0, 50_000), 150_000)
    conn, data = http2.put_settings(conn, Settings(connection_window=100_000, keepalive=None), 0.0)
    assert (data, conn.recv_window) == (b"", 150_000)


def test_an_acknowledgement_that_nobody_asked_for_is_charged_and_ignored() -> None:
    conn, _ = start()
    conn, out, events = http2.receive(conn, wire.settings_ack() * 3, 0.0)
    assert (conn.status, out, events, conn.spent) == (OPEN, b"", [], 4.0)


def test_push_is_decided_at_the_beginning() -> None:
    with pytest.raises(LocalProtocolError, match="beginning"):
        http2.put_settings(start()[0], Settings(max_pushes=1), 0.0)


# grow_window


def test_a_stream_may_be_given_a_larger_window() -> None:
    conn, peer = start(settings=Settings(stream_window=1000, keepalive=None))
    conn = get(conn)
    conn, data = http2.grow_window(conn, 1, 5000, 0.0)
    assert data == wire.window_update(1, 4000)
    assert http2.grow_window(conn, 1, 5000, 0.0) == (conn, b"")
    assert http2.grow_window(conn, 1, 4999, 0.0) == (conn, b"")
    conn, _, _ = http2.receive(conn, wire.headers_frame(1, OK) + wire.data_frame(1, bytes(5000)), 0.0)
    conn, out, _ = http2.consume(conn, 1, 5000, 0.0)
    assert out == wire.window_update(1, 5000), "it stays as large"
    assert http2.grow_window(conn, 3, 9000, 0.0) == (conn, b"")


@pytest.mark.parametrize("size", [-1, 2**31])
@pytest.mark.rfc("9113-6.9-7")
def test_a_window_that_no_stream_may_have(size: int) -> None:
    """§6.9.1."""
    with pytest.raises(LocalProtocolError, match="allowed are 0 to 2"):
        http2.grow_window(get(start()[0]), 1, size, 0.0)


# prioritize


@pytest.mark.rfc("9218-7.1-1")
def test_priority_update() -> None:
    """RFC 9218 §7.1: type 0x10 on stream 0, the stream, and a Priority field value."""
    conn = get(start()[0], 0.0, 2)
    assert core.prioritize(conn, 3, 1, False, 0.0)[1] == wire.frame(0x10, 0, 0, b"\0\0\0\x03u=1")
    assert core.prioritize(conn, 1, 7, True, 0.0)[1] == wire.frame(0x10, 0, 0, b"\0\0\0\x01u=7, i")
    assert core.prioritize(conn, 5, 7, True, 0.0) == (conn, b"")
    for urgency in (-1, 8):
        with pytest.raises(LocalProtocolError, match="allowed are 0 to 7"):
            core.prioritize(conn, 1, urgency, False, 0.0)


@pytest.mark.rfc("9218-7.1-6")
def test_priority_update_from_a_server() -> None:
    """RFC 9218 §7.1: "If a client receives a PRIORITY_UPDATE frame, it MUST respond with a connection error"."""
    code, words = failure(get(start()[0]), wire.frame(0x10, 0, 0, b"\0\0\0\x01u=1"))
    assert (code, "PRIORITY_UPDATE" in words) == (wire.PROTOCOL_ERROR, True)


@pytest.mark.parametrize("value", [2, 2**32 - 1])
@pytest.mark.rfc("9218-2.1-1")
def test_no_rfc7540_priorities_is_0_or_1(value: int) -> None:
    """RFC 9218 §2.1."""
    assert failure(start()[0], wire.settings((9, value)))[0] == wire.PROTOCOL_ERROR
    assert http2.receive(start()[0], wire.settings((9, 0)), 0.0)[0].status == OPEN


# the budget (RFC 9113 §10.5)

EMPTY: Final[dict[str, bytes]] = {
    "PING": wire.ping(),
    "an answer to no PING": wire.ping(ack=True),
    "SETTINGS": wire.settings(),
    "an acknowledgement of no SETTINGS": wire.settings_ack(),
    "PRIORITY": wire.priority(1),
    "an unknown type": wire.frame(0x7F, 0, 0, b"x" * 100),
    "empty DATA": wire.data_frame(1),
    "padding only": wire.data_frame(1, padding=100),
    "empty DATA on a stream that is over": wire.data_frame(3),
    "interim responses": wire.headers_frame(1, wire.literal(b":status", b"103")),
    "HEADERS on a stream that is over": wire.headers_frame(3, OK),
    "RST_STREAM on a stream that is over": wire.rst_stream(3, 0),
    "WINDOW_UPDATE": wire.window_update(0, 1),
    "WINDOW_UPDATE of a stream": wire.window_update(1, 1),
    "WINDOW_UPDATE of a stream that is over": wire.window_update(3, 1),
    "GOAWAY": wire.goaway(2**31 - 1),
}


def busy(head: bool) -> HTTP2Connection:
    """Request 1 waits, request 3 is over and answered, and the budget is whole."""
    conn = get(start()[0], 0.0, 2, FOREVER)
    data = wire.headers_frame(3, OK, end=True)
    if head:
        data += wire.headers_frame(1, OK)
    return http2.receive(conn, data, 0.0)[0]


@pytest.mark.parametrize("name", EMPTY)
def test_both_sides_of_the_budget(name: str) -> None:
    """A thousand at once are taken, and one more ends the connection with ENHANCE_YOUR_CALM, however they are cut."""
    frame = EMPTY[name]
    conn = busy("DATA" in name or name == "padding only")
    assert conn.spent == 0.0
    full, _, _ = http2.receive(conn, frame * 1000, 0.0)
    assert (full.status, full.spent) == (DRAINING if name == "GOAWAY" else OPEN, 1000.0)
    code, words = failure(full, frame)
    assert code == wire.ENHANCE_YOUR_CALM
    assert "allowed are 1000 at once and 10 a second" in words


def test_the_budget_is_the_same_however_the_frames_are_cut() -> None:
    conn = busy(True)
    for piece in wire.cuts(wire.ping() * 1000, 1000):
        conn, _, _ = http2.receive(conn, piece, 0.0)
    assert (conn.status, conn.spent) == (OPEN, 1000.0)
    assert failure(conn, wire.ping())[0] == wire.ENHANCE_YOUR_CALM


def test_the_budget_regains_with_time() -> None:
    conn = busy(True)
    conn, _, _ = http2.receive(conn, wire.ping() * 1000, 0.0)
    conn, _, _ = http2.receive(conn, wire.ping() * 10, 1.0)
    assert conn.spent == 1000.0
    assert failure(conn, wire.ping(), 1.0)[0] == wire.ENHANCE_YOUR_CALM
    conn, _, _ = http2.receive(conn, wire.ping(), 500.0)
    assert conn.spent == 1.0


def test_the_budget_regains_with_content() -> None:
    """One frame for 128 bytes, in either direction; a final head makes it whole."""
    conn = busy(True)
    conn, _, _ = http2.receive(conn, wire.ping() * 1000 + wire.data_frame(1, bytes(1280)), 0.0)
    assert conn.spent == 990.0
    conn, data, ref = http2.request(conn, "POST", "/", (), bytes(12_800), 0.0)
    assert conn.spent == 990.0 - 2.0 - 100.0
    conn, _, _ = http2.receive(conn, wire.headers_frame(ref, OK), 0.0)
    assert conn.spent == 0.0


def test_what_may_be_saved_up_is_bounded() -> None:
    conn, _ = start((wire.INITIAL_WINDOW_SIZE, 2**31 - 1), settings=Settings(keepalive=None, output_budget=2**31 - 1))
    conn, _, _ = http2.receive(conn, wire.window_update(0, 2**31 - 1 - 65_535), 0.0)
    conn, _, _ = http2.request(conn, "POST", "/", (), bytes(20 << 20), 0.0)
    assert conn.spent == -131_072.0


@pytest.mark.fault("A9")
def test_frames_of_streams_that_we_reset_are_on_their_way_and_no_attack() -> None:
    """DATA is never charged, and each reset allows for the rest of what a response has."""
    conn = get(start()[0], 0.0, 100, FOREVER)
    conn, _, _ = http2.receive(conn, wire.headers_frame(1, OK), 0.0)
    for ref in range(1, 201, 2):
        conn, _, _ = http2.cancel(conn, ref, 0.0)
    assert (slots(conn)[0], conn.spent) == (0, -400.0)
    late = wire.headers_frame(3, OK) + wire.data_frame(3, b"x" * 50) * 5000
    conn, _, _ = http2.receive(conn, late, 0.0)
    assert (conn.status, conn.spent) == (OPEN, -399.0)


def test_a_download_among_pings_goes_on() -> None:
    conn = busy(True)
    for _ in range(3000):
        conn, _, events = http2.receive(conn, wire.ping() + wire.data_frame(1, bytes(200)), 0.0)
        conn, _, _ = http2.consume(conn, 1, 200, 0.0)
        assert events == [DataReceived(1, bytes(200))]
    assert http2.receive(conn, wire.data_frame(1, end=True), 0.0)[2] == [ResponseEnded(1)]


# flush with bytes that have not left


def test_content_that_crawls_is_no_timeout_while_bytes_move() -> None:
    """The kernel takes a little now and then: `write` is about progress, and what it took makes room for more."""
    conn, _ = start(settings=Settings(keepalive=None, output_budget=1000), now=0.0)
    conn, data, ref = http2.request(conn, "POST", "/", (), bytes(3000), 0.0)
    assert (conn.unflushed, core.queued(conn, ref)) == (3000, 0)
    conn, _ = http2.send_data(http2.request(conn, "POST", "/", (), None, 0.0, end=False)[0], ref + 2, bytes(500), 0.0)
    assert core.queued(conn, ref + 2) == 500
    same, out, _ = http2.flush(conn, 10.0, unsent=conn.written)
    assert (out, same.unflushed, same.flushed) == (b"", 3000, (0, NEVER, True)), "nothing has moved"
    conn, _, _ = http2.flush(conn, 50.0, unsent=2000)
    assert conn.unflushed == 2000
    conn, _, events = http2.handle_timeout(conn, 100.0)
    assert events == []
    conn, out, _ = http2.flush(conn, 105.0, unsent=900)
    assert out == wire.data_frame(ref + 2, bytes(500))
    assert core.queued(conn, ref + 2) == 0


def test_a_request_whose_end_has_not_left_is_not_waiting_for_its_head() -> None:
    conn, _ = start()
    conn, data, ref = http2.request(conn, "POST", "/", (), bytes(3000), 0.0)
    conn, _, _ = http2.flush(conn, 50.0, unsent=10)
    assert core.snapshot(conn, 50.0).requests[0].clock == "write"
    conn, _, events = http2.handle_timeout(conn, 60.0)
    assert (events, http2.next_timeout(conn)) == ([], 110.0)
    conn, _, _ = http2.flush(conn, 100.0)
    assert core.snapshot(conn, 100.0).requests[0].clock == "head"
    stuck = http2.flush(conn, 100.0)[0]
    assert stuck is conn


def test_content_that_does_not_leave_is_a_write_timeout() -> None:
    conn, _ = start()
    conn, _, ref = http2.request(conn, "POST", "/", (), bytes(3000), 0.0)
    conn, _, (failed,) = http2.handle_timeout(conn, 60.0)
    assert isinstance(failed, RequestFailed) and failed.failure.kind == "WriteTimeout"
    assert "the end of its content, none moved for 60.00 s" in failed.failure.message


# What an independent reader found


def test_bytes_that_come_show_life_while_a_ping_is_in_flight() -> None:
    """The answer cannot come within a frame of the peer's own: DATA that drips, frames that follow each other."""
    conn, _ = start(settings=Settings(keepalive=None))
    conn, _, _ = http2.receive(get(conn, 0.0, 1, FOREVER), wire.headers_frame(1, OK), 0.0)
    conn, _ = http2.ping(conn, 0.0)
    data = wire.data_frame(1, bytes(16_384))
    for second in range(1, 40):
        conn, _, _ = http2.receive(conn, data[second * 100 - 100 : second * 100], float(second))
        conn, _, events = http2.handle_timeout(conn, float(second))
        assert events == []
    assert http2.handle_timeout(conn, 49.0)[0].status == CLOSED


def test_a_ping_that_waits_in_our_own_output_has_not_been_asked() -> None:
    conn, _ = start(settings=Settings(keepalive=None))
    conn, _, _ = http2.request(conn, "POST", "/", (), bytes(60_000), 0.0, clocks=FOREVER)
    conn, _ = http2.ping(conn, 0.0)
    for second in range(1, 30):
        conn, _, _ = http2.flush(conn, float(second), unsent=conn.written - second * 100)
        conn, _, events = http2.handle_timeout(conn, float(second))
        assert events == []
    assert http2.handle_timeout(conn, 39.0)[0].status == CLOSED


def test_an_end_without_content_needs_no_window() -> None:
    """§6.9: "Frames with zero length with the END_STREAM flag set … MAY be sent if there is no available space"."""
    conn, _ = start(settings=Settings(stream_window=32_768, keepalive=None))
    conn, _, _ = http2.receive(get(conn), wire.headers_frame(1, OK) + wire.data_frame(1, bytes(16_384)) * 2, 0.0)
    conn, _ = http2.put_settings(conn, Settings(stream_window=16_384, keepalive=None), 0.0)
    conn, _, events = http2.receive(conn, wire.settings_ack() + wire.data_frame(1, end=True), 0.0)
    assert events == [ResponseEnded(1)]


def test_settings_that_only_we_know_are_not_undone_by_an_acknowledgement() -> None:
    conn, _ = http2.connect(ORIGIN, SETTINGS, 0.0)
    ours = Settings(keepalive=5.0, output_budget=1000, max_fields=7)
    conn, data = http2.put_settings(conn, ours, 0.0)
    assert data == b""
    conn, _, _ = http2.receive(conn, wire.settings() + wire.settings_ack(), 0.0)
    assert conn.setup.settings == ours


def test_our_own_limit_of_streams_can_be_changed() -> None:
    conn, _ = start((wire.MAX_CONCURRENT_STREAMS, 50))
    for most, room in ((1, 1), (80, 50), (20, 20)):
        conn, _ = http2.put_settings(conn, Settings(max_streams=most, keepalive=None), 0.0)
        assert http2.capacity(conn) == room


def test_no_window_of_ours_goes_above_what_is_allowed() -> None:
    """§6.9.1."""
    conn = get(start(settings=Settings(connection_window=16 << 20, keepalive=None))[0])
    conn, _ = http2.put_settings(conn, Settings(connection_window=65_535, keepalive=None), 0.0)
    conn, data = http2.put_settings(conn, Settings(connection_window=2**31 - 1, keepalive=None), 0.0)
    assert data == wire.window_update(0, 2**31 - 1 - (16 << 20))
    conn, _ = http2.grow_window(conn, 1, 2**31 - 1, 0.0)
    with pytest.raises(LocalProtocolError, match="lifts stream 1 above"):
        http2.put_settings(conn, Settings(stream_window=4 << 20, keepalive=None), 0.0)


def test_a_window_that_grows_while_a_lower_one_is_in_flight() -> None:
    conn = get(start(settings=Settings(stream_window=100_000, keepalive=None))[0])
    conn, _ = http2.put_settings(conn, Settings(stream_window=60_000, keepalive=None), 0.0)
    conn, data = http2.grow_window(conn, 1, 90_000, 0.0)
    assert data == wire.window_update(1, 30_000)
    conn, _, _ = http2.receive(conn, wire.settings_ack(), 0.0)
    stream = find_stream(conn.streams, 1)
    assert stream is not None and stream.recv_window == 90_000


def test_a_second_100_holds_no_clock_up() -> None:
    conn, _ = start((wire.INITIAL_WINDOW_SIZE, 0))
    conn, _, _ = http2.request(conn, "POST", "/", ((b"expect", b"100-continue"),), b"x", 0.0)
    again = wire.headers_frame(1, wire.literal(b":status", b"100"))
    conn, _, _ = http2.receive(conn, again, 1.0)
    conn, _, _ = http2.receive(conn, again, 50.0)
    conn, _, events = http2.handle_timeout(conn, 61.0)
    assert isinstance(events[0], RequestFailed) and events[0].failure.kind == "WriteTimeout"


def test_window_updates_that_content_waits_for_are_no_attack() -> None:
    conn, _ = start((wire.INITIAL_WINDOW_SIZE, 0))
    conn, _, _ = http2.request(conn, "POST", "/", (), bytes(20_000), 0.0)
    conn, _, _ = http2.receive(conn, wire.window_update(1, 10) * 1500, 0.0)
    assert (conn.status, core.queued(conn, 1)) == (OPEN, 5000)


@pytest.mark.parametrize("reset", [True, False])
def test_pushes_that_come_to_nothing_are_charged(reset: bool) -> None:
    conn = get(start(settings=Settings(max_pushes=2, keepalive=None))[0], 0.0, 1, FOREVER)
    promise = wire.literals((b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"a.test"), (b":path", b"/"))
    data = b""
    for ref in range(2, 1100, 2):
        end = wire.rst_stream(ref, 8) if reset else wire.headers_frame(ref, wire.literal(b"x", b"y"))
        data += wire.push_promise(1, ref, promise) + end
    assert failure(conn, data)[0] == wire.ENHANCE_YOUR_CALM


def test_what_is_remembered_was_allowed_by_the_limits_of_now() -> None:
    """Law 1: a copy of the value knows nothing of it."""
    conn, peer = start()
    fields = ((":status", "200"), ("x-long", "y" * 300))
    for _ in range(4):
        conn = get(conn)
        ref = conn.next_ref - 2
        conn, _, _ = http2.receive(conn, wire.headers_frame(ref, peer.block_of(*fields), end=True), 0.0)
    conn, _ = http2.put_settings(conn, Settings(max_field_section=300, keepalive=None), 0.0)
    conn, _, _ = http2.receive(get(conn), wire.settings_ack(), 0.0)
    _, _, events = http2.receive(conn, wire.headers_frame(conn.next_ref - 2, peer.block_of(*fields)), 0.0)
    assert isinstance(events[0], RequestFailed)


def test_a_stream_that_had_an_answer_was_processed() -> None:
    """§8.7: REFUSED_STREAM is for a stream that was closed before any processing."""
    conn, _, _ = http2.receive(get(start()[0]), wire.headers_frame(1, OK), 0.0)
    _, _, (failed,) = http2.receive(conn, wire.rst_stream(1, wire.REFUSED_STREAM), 0.0)
    assert isinstance(failed, RequestFailed) and not failed.failure.unprocessed
