"""Where two readers may disagree, and why: the classes of difference are data, and everything outside of them is a bug.

A class says for which cases it holds, as narrowly as a case can tell. Each has an example that is run, so that a class
which no longer exists does not stay behind.
"""

from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

Case = TypeVar("Case")


class Difference(NamedTuple, Generic[Case]):
    """One class. `why`: what decides it, with its section; `holds`: whether a case is of it; `example`: an input that is."""

    name: str
    why: str
    holds: Callable[[Case], bool]
    example: bytes


def explain(case: Case, known: Sequence[Difference[Case]]) -> str:
    """The name of the first class that this disagreement is of. Fails where it is of none."""
    for difference in known:
        if difference.holds(case):
            return difference.name
    raise AssertionError(f"a disagreement of no known class: {case}")
