"""Every flood ends where it must: so many units are taken and not one more, in whatever pieces they come (law 7).

What has no end makes progress: there nothing grows.
"""

import pickle

import pytest

from calamint import core
from calamint.core.http2_state import HTTP2Connection
from tests.core import http2_peer as wire
from tests.core.floods import FLOODS, HTTP1, Flood, begin, feed

# These cost milliseconds for each of their units.
HEAVY = ("HPACK bomb", "SETTINGS that move windows")
ENDLESS = [flood for flood in FLOODS if flood.allowed is None]
ENDING = [
    pytest.param(flood, flood.allowed, marks=[pytest.mark.slow] if flood.name in HEAVY else [])
    for flood in FLOODS
    if flood.allowed is not None
]


def name_of(item: object) -> str:
    return item.name if isinstance(item, Flood) else ""


@pytest.mark.fault("I1", "I3", "I4", "I6")
@pytest.mark.parametrize(("flood", "allowed"), ENDING, ids=name_of)
def test_so_many_and_not_one_more(flood: Flood, allowed: int) -> None:
    """One unit at a time."""
    conn, taken, words = feed(begin(flood), [flood.unit] * allowed)
    assert (taken, words) == (allowed * len(flood.unit), "")
    assert not core.is_closed(conn)
    conn, taken, words = feed(conn, [flood.unit])
    assert flood.words in words and core.is_closed(conn)
    assert (taken, conn.buffer) == (0, b"")


@pytest.mark.parametrize(("flood", "allowed"), [item for item in ENDING if not item.marks], ids=name_of)
def test_all_at_once_is_the_same(flood: Flood, allowed: int) -> None:
    """Up to the limit in one piece, and one unit above it in another (law 2)."""
    assert not core.is_closed(feed(begin(flood), [flood.unit * allowed])[0])
    conn, _, words = feed(begin(flood), [flood.unit * (allowed + 1)])
    assert core.is_closed(conn) and flood.words in words


@pytest.mark.parametrize("flood", HTTP1, ids=name_of)
def test_a_byte_at_a_time_is_the_same(flood: Flood) -> None:
    """What is above the limit is seen with the byte that is above it, or with the end of its line at the latest."""
    allowed = 1000 if flood.allowed is None else flood.allowed
    data = flood.unit * (allowed + 1)
    conn, taken, words = feed(begin(flood), wire.cuts(data, 1))
    if flood.allowed is None:
        assert not core.is_closed(conn)
        return
    assert flood.words in words
    assert allowed * len(flood.unit) <= taken < len(data)


@pytest.mark.parametrize("flood", ENDLESS, ids=name_of)
def test_what_makes_progress_goes_on_and_nothing_grows(flood: Flood) -> None:
    conn = feed(begin(flood), [flood.unit * 100])[0]
    before = len(pickle.dumps(conn))
    conn, _, words = feed(conn, [flood.unit * 100] * 100)
    assert (words, core.is_closed(conn)) == ("", False)
    assert len(pickle.dumps(conn)) <= before + 100


@pytest.mark.fault("I3")
@pytest.mark.parametrize("flood", [flood for flood in FLOODS if flood.protocol == "h2"], ids=name_of)
def test_what_is_written_for_it_is_bounded(flood: Flood) -> None:
    """An answer is no longer than its question, but for one reset, one GOAWAY and window credit."""
    conn = begin(flood)
    data = flood.unit * (5 if flood.name in HEAVY else 500)
    _, out, _ = core.receive(conn, data, 0.0)
    assert len(out) <= len(data) + 200


@pytest.mark.fault("I5")
def test_the_table_is_decoded_and_nothing_of_a_bomb_is_kept() -> None:
    """The block says 48 MB of fields: they are dropped while it is decoded, and the stream is reset."""
    flood = next(flood for flood in FLOODS if flood.name == "HPACK bomb")
    conn, out, events = core.receive(begin(flood), flood.unit, 0.0)
    assert [type(event).__name__ for event in events] == ["RequestFailed"]
    assert wire.RST_STREAM in [kind for kind, _ in wire.kinds(out)]
    assert isinstance(conn, HTTP2Connection) and len(conn.decoder.entries) == 1
    assert len(pickle.dumps(conn)) < 10_000


def test_the_budget_regains_with_time() -> None:
    """Ten a second."""
    flood = next(flood for flood in FLOODS if flood.name == "PING")
    conn, _, _ = feed(begin(flood), [flood.unit] * 999)
    conn, out, _ = core.receive(conn, flood.unit * 10, 1.0)
    assert len(out) == 10 * len(flood.unit) and not core.is_closed(conn)
    conn, _, _ = core.receive(conn, flood.unit, 1.0)
    assert core.is_closed(conn)
