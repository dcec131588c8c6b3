"""The map of streams: what `Draft.put` writes and `find_stream` and `all_streams` read, against a plain dict."""

import pickle
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calamint.core import http2, streams
from calamint.core.exchange import CLOCKS, LOCAL_AWAITING, SETTINGS, Exchange
from calamint.core.http2_state import Draft, HTTP2Connection
from calamint.core.streams import all_streams, find_stream
from calamint.core.url import Origin

EMPTY: Final = http2.connect(Origin("https", "a", 443), SETTINGS, 0.0)[0]
LEAF_SIZE: Final = 1 << streams.LEAF  # in ids


def stream(ref: int, target: str = "/") -> Exchange:
    return Exchange(ref, "GET", target, LOCAL_AWAITING, CLOCKS, 9.0, 0, None, -1, 0, 0, 0, 1.0, 1.0)


def opened(*refs: int) -> HTTP2Connection:
    return put(EMPTY, *[(ref, stream(ref)) for ref in refs])


def check(conn: HTTP2Connection, model: dict[int, Exchange]) -> None:
    """The map says what the model says, and only that; its size is right, and no leaf is empty."""
    assert conn.live == len(model)
    assert all_streams(conn.streams) == [model[ref] for ref in sorted(model)]
    for ref, item in model.items():
        assert find_stream(conn.streams, ref) is item
    for ref in (0, 1, 2, LEAF_SIZE - 1, LEAF_SIZE, LEAF_SIZE + 1, 2**31 - 1, *[ref + 2 for ref in model]):
        assert find_stream(conn.streams, ref) is model.get(ref)
    assert all(conn.streams.values())
    for number, leaf in conn.streams.items():
        assert {ref >> streams.LEAF for ref in leaf} == {number}


def test_an_empty_map() -> None:
    check(EMPTY, {})
    assert EMPTY.streams == {}


def test_both_sides_of_a_leaf() -> None:
    refs = (1, LEAF_SIZE - 1, LEAF_SIZE + 1, 2 * LEAF_SIZE - 1, 2 * LEAF_SIZE + 1, 2**31 - 1)
    conn = opened(*refs)
    check(conn, {ref: stream_of(conn, ref) for ref in refs})
    assert [len(leaf) for _, leaf in sorted(conn.streams.items())] == [2, 2, 1, 1]


def stream_of(conn: HTTP2Connection, ref: int) -> Exchange:
    found = find_stream(conn.streams, ref)
    assert found is not None
    return found


def put(conn: HTTP2Connection, *changes: tuple[int, Exchange | None]) -> HTTP2Connection:
    draft = Draft(conn, 0.0)
    for ref, item in changes:
        draft.put(ref, item)
    return draft.finish()[0]


def test_the_last_stream_of_a_leaf_takes_the_leaf_away() -> None:
    conn = opened(1, LEAF_SIZE + 1)
    assert list(put(conn, (1, None)).streams) == [1]
    back = put(conn, (1, None), (3, stream(3)), (LEAF_SIZE + 1, None))
    assert list(back.streams) == [0]
    check(put(back, (3, None)), {})


def test_what_is_not_there_cannot_leave() -> None:
    draft = Draft(opened(1), 0.0)
    for ref in (3, LEAF_SIZE + 1):
        with pytest.raises(KeyError):
            draft.put(ref, None)
    assert draft.live == 1


def test_only_the_leaves_that_are_written_are_copied() -> None:
    """So a call costs the same beside a thousand idle streams."""
    conn = opened(*range(1, 10 * LEAF_SIZE, 2))
    draft = Draft(conn, 0.0)
    draft.put(5 * LEAF_SIZE + 1, None)
    after = draft.finish()[0]
    shared = [number for number, leaf in after.streams.items() if leaf is conn.streams[number]]
    assert shared == [0, 1, 2, 3, 4, 6, 7, 8, 9]


def test_a_verb_that_writes_no_stream_shares_the_map() -> None:
    conn = opened(1)
    assert Draft(conn, 0.0).finish()[0].streams is conn.streams


# A verb: the streams that enter (by how far their id is from the last one), are replaced, or leave (by their place).
ENTER: Final = st.tuples(st.just("enter"), st.integers(1, LEAF_SIZE))
REPLACE: Final = st.tuples(st.just("replace"), st.integers(0, 1000))
LEAVE: Final = st.tuples(st.just("leave"), st.integers(0, 1000))
VERBS: Final = st.lists(st.lists(ENTER | ENTER | REPLACE | LEAVE, max_size=6), max_size=12)


@given(VERBS, st.integers(0, 100))
def test_map_against_a_dict(verbs: list[list[tuple[str, int]]], branch: int) -> None:
    """Every value that ever was stays as it was, and any of them can be gone on from."""
    history: list[tuple[HTTP2Connection, dict[int, Exchange]]] = [(EMPTY, {})]
    for turn, verb in enumerate(verbs):
        conn, model = history[-1 if turn != branch % len(verbs) else branch % len(history)]
        model = model.copy()
        draft = Draft(conn, 0.0)
        for what, number in verb:
            if what == "enter":
                ref = max(model, default=-1) + 2 * number
                model[ref] = stream(ref)
            elif model:
                ref = sorted(model)[number % len(model)]
                if what == "leave":
                    del model[ref]
                else:
                    model[ref] = stream(ref, f"/{turn}")
            else:
                continue
            draft.put(ref, model.get(ref))
        history.append((draft.finish()[0], model))
    for conn, model in history:
        check(conn, model)


@given(st.sets(st.integers(0, 200).map(lambda number: number * 2 + 1), max_size=40))
def test_pickled_maps_are_equal_and_in_order(refs: set[int]) -> None:
    conn = opened(*sorted(refs))
    again = pickle.loads(pickle.dumps(conn))
    assert again == conn
    assert all_streams(again.streams) == all_streams(conn.streams)
    assert [item.ref for item in all_streams(again.streams)] == sorted(refs)


def test_equality_does_not_depend_on_how_it_came_about() -> None:
    conn = opened(1, 3, LEAF_SIZE + 1)
    assert put(conn, (LEAF_SIZE + 1, None), (5, stream(5)), (3, None)) == opened(1, 5)
