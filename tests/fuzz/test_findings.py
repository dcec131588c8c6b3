"""What the fuzzers found, each by its smallest form."""

import pytest

from calamint import core

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
