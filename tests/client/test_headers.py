"""Header fields as callers have them. httpx.Headers is the judge of what both have."""

import pickle
from collections.abc import Callable
from typing import Any, Final

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calamint import Headers

NAMES: Final = st.sampled_from(["a", "A", "b", "B-c", "b-C", "Set-Cookie"])
VALUES: Final = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=5) | st.sampled_from(
    ["x, y", ",", ""]
)
PAIRS: Final = st.lists(st.tuples(NAMES, VALUES), max_size=6)
CHANGES: Final = st.lists(
    st.one_of(
        st.tuples(st.just("set"), NAMES, VALUES),
        st.tuples(st.just("delete"), NAMES),
        st.tuples(st.just("update"), PAIRS),
        st.tuples(st.just("default"), NAMES, VALUES),
        st.tuples(st.just("pop"), NAMES),
    ),
    max_size=6,
)


def change(headers: Any, what: tuple[Any, ...]) -> object:
    """One of the changes; what came of it."""
    if what[0] == "set":
        headers[what[1]] = what[2]
        return None
    if what[0] == "update":
        return headers.update(what[1])
    if what[0] == "default":
        return headers.setdefault(what[1], what[2])
    if what[0] == "pop":
        return headers.pop(what[1], "none")
    try:
        del headers[what[1]]
    except KeyError:
        return "no such field"
    return None


@given(PAIRS, CHANGES)
def test_it_is_what_httpx_has(pairs: list[tuple[str, str]], changes: list[tuple[Any, ...]]) -> None:
    ours, theirs = Headers(pairs), httpx.Headers(pairs)
    for what in changes:
        assert change(ours, what) == change(theirs, what)
    assert ours.raw == theirs.raw
    assert ours.multi_items() == theirs.multi_items()
    assert list(ours.items()) == list(theirs.items())
    assert (list(ours), list(ours.values())) == (list(theirs), list(theirs.values()))
    assert len(ours) == len(list(ours))  # httpx counts the fields, and so has a mapping with more items than keys
    for name in ("a", "B", "b-c", "set-cookie", "absent"):
        assert (name in ours) == (name in theirs)
        assert ours.get(name, "none") == theirs.get(name, "none")
        for split in (False, True):
            assert ours.get_list(name, split) == theirs.get_list(name, split)


@given(PAIRS, PAIRS)
def test_equality_is_httpxs(one: list[tuple[str, str]], other: list[tuple[str, str]]) -> None:
    assert (Headers(one) == Headers(other)) == (httpx.Headers(one) == httpx.Headers(other))
    assert (Headers(one) == dict(other)) == (httpx.Headers(one) == dict(other))


def test_values_are_text_of_utf8_or_latin1() -> None:
    headers = Headers([(b"A", "é".encode()), (b"B", b"\xe9"), ("C", "é"), ("D", "€")])
    assert [headers[name] for name in "abcd"] == ["é", "é", "é", "€"]
    assert headers.raw[2:] == [(b"C", b"\xe9"), (b"D", "€".encode())]


@pytest.mark.parametrize("bad", [{"a": 1}, {"a": None}, [("a", 1)], [(1, "a")]])
def test_neither_text_nor_bytes(bad: Any) -> None:
    with pytest.raises(TypeError, match="names and values are text or bytes"):
        Headers(bad)
    with pytest.raises(TypeError):
        Headers().update(bad)


def test_a_value_that_is_set_is_looked_at() -> None:
    headers: Any = Headers()
    wrong: list[Callable[[], object]] = [lambda: headers.add("a", 1), lambda: headers.__setitem__("a", 1)]
    for each in wrong:
        with pytest.raises(TypeError, match="types str: int"):
            each()
    assert len(headers) == 0


def test_a_copy_is_another_one_and_an_argument_is_not_changed() -> None:
    headers = Headers({"A": "1"})
    for other in (headers.copy(), Headers(headers), pickle.loads(pickle.dumps(headers))):
        assert other == headers
        other.add("a", "2")
        assert other.get_list("A") == ["1", "2"] and other["a"] == "1, 2"
    assert headers.raw == [(b"A", b"1")]
    assert headers != "A: 1"
    with pytest.raises(KeyError):
        headers["b"]


def test_secrets_are_not_shown() -> None:
    text = repr(Headers({"Authorization": "hush", "Cookie": "hush", "Proxy-Authorization": "hush", "X": "seen"}))
    assert "hush" not in text and "seen" in text
    assert "hush" not in repr(Headers([(b"Set-Cookie", b"hush")]))
