"""Fixtures for the tests of the transports."""

import pytest

from tests.transports.kit import Kit

KITS = [("httpx", False), ("httpx", True), ("httpx2", False), ("httpx2", True)]


@pytest.fixture(params=KITS, ids=[f"{name}-{'async' if way else 'sync'}" for name, way in KITS])
def kit(request: pytest.FixtureRequest) -> Kit:
    """Each library's each client."""
    name, way = request.param
    return Kit(name, way)


@pytest.fixture(params=[False, True], ids=["http1", "h2"])
def h2(request: pytest.FixtureRequest) -> bool:
    """Whether HTTP/2 is spoken."""
    return bool(request.param)
