"""Snapshots: a connection at one moment, in numbers and in words."""

from typing import Final

from calamint.core.exchange import (
    CLOCKS,
    LOCAL_AWAITING,
    LOCAL_RECEIVING,
    OPEN_AWAITING,
    STATE_NAMES,
    Clocks,
    Exchange,
    Upload,
)
from calamint.core.snapshot import RequestSnapshot, Snapshot, snap_request
from calamint.core.value import INFINITY

OFF: Final = Clocks(None, None, None, None)


def request(
    ref: int, target: str, state: str, waits_for: str, age: float, silence: float, clock: str, left: float
) -> RequestSnapshot:
    """A GET of which nothing has come."""
    return RequestSnapshot(
        ref,
        "GET",
        target,
        state,
        waits_for,
        age,
        silence,
        clock,
        left,
        0,
        0,
        0,
        0,
        0,
        send_window=65_535,
        recv_window=1000,
    )


def test_a_request_that_waits_for_its_head() -> None:
    item = Exchange(3, "GET", "/a", LOCAL_AWAITING, CLOCKS, INFINITY, 0, None, -1, 0, 0, 0, 100.0, 101.0)
    expected = request(3, "/a", STATE_NAMES[LOCAL_AWAITING], "the response's head", 11.0, 11.0, "head", 50.0)
    assert snap_request(item, 111.0, 65_535, 1000) == expected


def test_a_request_whose_content_arrives() -> None:
    item = Exchange(
        *(5, "POST", "/b", LOCAL_RECEIVING, CLOCKS, 150.0, 0, Upload(sent=77), 40, 201, 60, 20, 100.0, 102.0),
        head_at=104.0,
        last_data_at=108.0,
        unread_at=108.0,
    )
    assert snap_request(item, 111.0, None, None) == RequestSnapshot(
        ref=5,
        method="POST",
        target="/b",
        state=STATE_NAMES[LOCAL_RECEIVING],
        waits_for="its reader: content unread",
        age=11.0,
        silence=3.0,
        clock="total",
        left=39.0,
        status=201,
        received=60,
        unread=20,
        sent=77,
        queued=0,
        send_window=None,
        recv_window=None,
    )


def test_a_request_whose_content_waits() -> None:
    upload = Upload((b"abcdef",), 2, 4, False, (), -1, 9, 101.0, 109.0)
    item = Exchange(7, "PUT", "/c", OPEN_AWAITING, OFF, INFINITY, 0, upload, -1, 0, 0, 0, 100.0, 101.0)
    snap = snap_request(item, 111.0, 0, 9)
    assert (snap.waits_for, snap.sent, snap.queued) == ("the peer's window", 9, 4)
    assert (snap.clock, snap.left) == ("total", INFINITY)


def test_an_overdue_request_has_less_than_nothing_left() -> None:
    item = Exchange(3, "GET", "/a", LOCAL_AWAITING, CLOCKS, INFINITY, 0, None, -1, 0, 0, 0, 100.0, 101.0)
    assert snap_request(item, 163.5, 0, 0).left == -2.5


def test_in_words() -> None:
    waiting = request(1, "/slow", "awaiting the response", "the response's head", 12.25, 6.0, "head", 47.75)
    endless = request(
        12_345, "/b", "receiving the response", "its caller: content left open", 1.0, 0.5, "total", INFINITY
    )
    snapshot = Snapshot(
        protocol="HTTP/2",
        origin="https://example.org",
        status="open",
        requests=(waiting, endless),
        unsent=(5, 7),
        unconfirmed=(9,),
        limit=100,
        capacity=95,
        silence=0.25,
        ping=1.5,
        send_window=65_535,
        recv_window=1000,
        unflushed=0,
        written=999,
    )
    assert snapshot.describe().split("\n") == [
        "HTTP/2 to https://example.org, open: 5 of 100 slots taken, the peer silent for 0.25 s, a PING unanswered for 1.50 s",
        "      1 GET /slow: awaiting the response; waits for the response's head; "
        "age 12.25 s, silent 6.00 s; head runs out in 47.75 s",
        "  12345 GET /b: receiving the response; waits for its caller: content left open; "
        "age 1.00 s, silent 0.50 s; no clock runs",
        "      5 failed; its RST_STREAM waits for the pacer",
        "      7 failed; its RST_STREAM waits for the pacer",
        "      9 reset; the peer has shown no life since it was opened",
    ]


def test_in_words_where_nothing_has_happened() -> None:
    snapshot = Snapshot("HTTP/1.1", "http://a", "closed", (), (), (), 1, 0, INFINITY, None, None, None, 0, 0)
    expected = "HTTP/1.1 to http://a, closed: 0 of 1 slots taken, the peer was never heard of, no PING in flight"
    assert snapshot.describe() == expected
