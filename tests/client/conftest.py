"""Fixtures for the tests of the clients."""

import pytest

from tests.client.faces import KINDS, WAYS


@pytest.fixture(params=list(KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    """Each client, by its name."""
    return str(request.param)


@pytest.fixture(params=list(WAYS))
def way(request: pytest.FixtureRequest) -> str:
    """Each protocol."""
    return str(request.param)
