"""Fixtures for the tests of the transports."""

import pytest

from tests.transports.kit import Kit

KITS = [
    pytest.param((name, way), id=f"{name}-{'async' if way else 'sync'}", marks=marks)
    for name, marks in (("httpx2", ()), ("httpx", pytest.mark.slow))
    for way in (False, True)
]


@pytest.fixture(params=KITS)
def kit(request: pytest.FixtureRequest) -> Kit:
    """Each library's each client. The libraries differ in their names alone, so that one is enough for who is in haste."""
    name, way = request.param
    return Kit(name, way)


@pytest.fixture(params=[False, True], ids=["http1", "h2"])
def h2(request: pytest.FixtureRequest) -> bool:
    """Whether HTTP/2 is spoken."""
    return bool(request.param)
