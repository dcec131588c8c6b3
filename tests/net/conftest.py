"""Fixtures for the tests of the drivers."""

import gc
from collections.abc import Iterator

import pytest

from tests import servers
from tests.net.aio_run import HAS_UVLOOP, LOOPS, PLACES, Place, count_descriptors, new_loop
from tests.net.live import Way
from tests.net.proxied import Make


@pytest.fixture
def way(request: pytest.FixtureRequest) -> Way:
    """A server and the way to it, parametrised with what `live.ways` gives."""
    name, key, protocol = request.param
    return Way(request.getfixturevalue(name), key, protocol)


@pytest.fixture(params=LOOPS)
def loop(request: pytest.FixtureRequest) -> str:
    """Each kind of event loop, by its name."""
    return str(request.param)


@pytest.fixture(params=PLACES, ids="-".join)
def place(request: pytest.FixtureRequest, private_ca: servers.PrivateCa) -> Place:
    """Event loops with ways to speak HTTP; all combinations where slow tests run."""
    loop, way = request.param
    return Place(loop, way, private_ca)


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """No descriptor is left when this is over, and what the collector finds raises no warning."""
    for name in ("asyncio", "uvloop"):  # the first loop opens what stays open
        if name == "asyncio" or HAS_UVLOOP:
            new_loop(name).close()
    gc.collect()
    gc.freeze()  # what is there already need not be looked through again
    before = count_descriptors()
    yield
    gc.collect()
    assert count_descriptors() == before


@pytest.fixture(params=["threads", *LOOPS])
def make(request: pytest.FixtureRequest, private_ca: servers.PrivateCa) -> Make:
    """Makes pools: of threads, and of each kind of event loop."""
    return Make(request.param, private_ca)
