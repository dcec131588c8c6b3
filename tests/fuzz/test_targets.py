"""Every fuzz target on its corpus, and on examples of Hypothesis: what `python -m fuzz` does for longer."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz.__main__ import NAMES
from fuzz.targets import TARGETS

CORPUS = Path(__file__).parents[2] / "fuzz" / "corpus"


@pytest.mark.parametrize("name", NAMES)
def test_the_corpus(name: str) -> None:
    seeds = sorted((CORPUS / name).iterdir())
    assert 10 <= len(seeds) <= 150
    for seed in seeds:
        TARGETS[name](seed.read_bytes())


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=150))
def test_any_bytes(name: str, data: bytes) -> None:
    TARGETS[name](data)


def test_the_targets_have_names() -> None:
    assert tuple(TARGETS) == NAMES
