"""What the fuzzers and the comparisons found, each by its smallest form."""

import sys
from types import FrameType

import pytest

from calamint import core
from tests.core import http2_peer as wire

ORIGIN = core.Origin("http", "localhost", 8080)
EXPECT = ((b"expect", b"100-continue"),)


@pytest.mark.parametrize("protocol", ["h2", "http/1.1"])
@pytest.mark.parametrize(("late", "kind"), [(1.0, ""), (5.0, ""), (8.0, "DeadlineExceeded")])
def test_a_late_call_does_not_pass_over_the_deadline_of_content_that_it_releases(
    protocol: str, late: float, kind: str
) -> None:
    """Law 5: when `expect` has run out the other clocks run, and perhaps have run out as well."""
    conn, _ = core.connect(protocol, ORIGIN)
    conn, _, _ = core.request(conn, "POST", "/", EXPECT, b"abc", 0.0, end=False, deadline=7.0)
    conn, _, events = core.handle_timeout(conn, late)
    failures = [event.failure.kind for event in events if isinstance(event, core.RequestFailed)]
    assert failures == ([kind] if kind else [])
    assert core.next_timeout(conn) <= 7.0 or not core.in_flight(conn)


@pytest.mark.parametrize("protocol", ["h2", "http/1.1"])
def test_a_late_call_does_not_pass_over_the_reader_of_content_that_it_releases(protocol: str) -> None:
    """Law 5: the next wake-up is not later than the clock that runs after `expect`."""
    clocks = core.Clocks(head=None, idle=None, write=None, reader=20.0)
    conn, _ = core.connect(protocol, ORIGIN)
    conn, _, ref = core.request(conn, "POST", "/", EXPECT, None, 0.0, end=False, clocks=clocks)
    conn, _, _ = core.handle_timeout(conn, 19.0)
    record = core.verbs.find(conn, ref)
    assert record is None or core.next_timeout(conn) <= record.running_clock()[0]


def test_a_frame_that_costs_nothing_does_not_take_the_budgets_time_away() -> None:
    """Laws 2 and 7: ten frames a second are regained, whether the frames that come then come in one call or in two."""
    conn, _ = core.connect("h2", ORIGIN)
    conn, _, _ = core.request(conn, "GET", "/", (), None, 0.0)
    conn, _, _ = core.receive(conn, wire.settings() + wire.headers_frame(1, b"\x88") + wire.ping() * 1000, 0.0)
    data = wire.data_frame(1, b"x")
    at_once, _, _ = core.receive(conn, data + wire.ping() * 9, 1.0)
    assert not core.is_closed(at_once)
    conn, _, _ = core.receive(conn, data, 1.0)
    conn, _, _ = core.receive(conn, wire.ping() * 9, 1.0)
    assert not core.is_closed(conn)


def test_a_connection_that_is_over_is_the_same_however_its_last_bytes_were_cut() -> None:
    """Law 2: also where a frame broke the silence that keepalive is about, and the one behind it ended the connection."""
    conn, _ = core.connect("h2", ORIGIN, core.Settings(keepalive=1.0))
    conn, _, _ = core.request(conn, "GET", "/", (), None, 0.0)
    conn, _, _ = core.receive(conn, wire.settings(), 0.0)
    conn, out, _ = core.handle_timeout(conn, 1.0)
    assert wire.parse(out)[0].kind == wire.PING
    good, bad = wire.headers_frame(1, b"\x88"), wire.window_update(0, 0)
    once, _, _ = core.receive(conn, good + bad, 1.5)
    twice, _, _ = core.receive(core.receive(conn, good, 1.5)[0], bad, 1.5)
    assert core.is_closed(once)
    assert [getattr(once, name) for name in once.__match_args__ if name != "wake"] == [
        getattr(twice, name) for name in once.__match_args__ if name != "wake"
    ]


def test_settings_cost_the_same_whatever_the_number_of_open_streams() -> None:
    """Law 7: in one SETTINGS the initial window can rise 1365 times; each stream is looked at once for all of them."""
    calls = [count_calls(requests, "find_stream all_streams overflows".split()) for requests in (10, 80)]
    assert calls[1] - calls[0] <= 70


def count_calls(requests: int, names: list[str]) -> int:
    """How often functions of these names are called for one such frame."""
    conn, _ = core.connect("h2", ORIGIN)
    for _ in range(requests):
        conn, _, _ = core.request(conn, "GET", "/", (), None, 0.0)
    data = wire.settings(*[(wire.INITIAL_WINDOW_SIZE, number % 2) for number in range(100)])
    calls = [0]

    def profile(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_name in names:
            calls[0] += 1

    sys.setprofile(profile)
    try:
        core.receive(conn, data, 0.0)
    finally:
        sys.setprofile(None)
    return calls[0]


def test_te_in_a_response_over_http2_is_malformed() -> None:
    """RFC 9113 §8.2.2: TE is excepted from connection-specific fields in requests only. Found by comparison with h2."""
    conn, _ = core.connect("h2", ORIGIN)
    conn, _, ref = core.request(conn, "GET", "/", (), None, 0.0)
    block = b"\x88" + wire.literals((b"te", b"gzip"))
    conn, _, events = core.receive(conn, wire.settings() + wire.headers_frame(ref, block), 0.0)
    assert [event.ref for event in events if isinstance(event, core.RequestFailed)] == [ref]
