"""Fixtures for the tests of the drivers."""

import pytest

from tests.net.live import Way


@pytest.fixture
def way(request: pytest.FixtureRequest) -> Way:
    """A server and the way to it, parametrised with what `live.ways` gives."""
    name, key, protocol = request.param
    return Way(request.getfixturevalue(name), key, protocol)
