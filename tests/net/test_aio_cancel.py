"""Cancellation at every point at which a task can wait: afterwards every slot is usable, and nothing is left.

A scenario is run once to count its suspensions, then once for each of them, cancelled there.
"""

from collections.abc import Iterator

import pytest

from calamint.core.events import DataReceived, ResponseEnded
from calamint.net.aio import Pool
from calamint.testing import Action, Request, ScriptedPeer, answer, drip
from tests import servers
from tests.net.aio_run import LOOPS, ONE, WAYS, Place, cancelled_after, cancelled_at, fetch, nothing_left, wait_for

PIECE = bytes(range(256)) * 160  # 40 KiB
CONTENT = PIECE * 4


@pytest.fixture(autouse=True)
def no_descriptor_is_left() -> Iterator[None]:
    with nothing_left():
        yield


@pytest.fixture(params=LOOPS)
def loop(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=WAYS)
def place(request: pytest.FixtureRequest, loop: str, private_ca: servers.PrivateCa) -> Place:
    return Place(loop, request.param, private_ca)


def script(request: Request) -> Action:
    """Content for a GET, what was uploaded for a POST."""
    if request.method == "POST":
        return answer(content=request.content)
    return drip(CONTENT, len(PIECE), 0.001) if request.target == "/drip" else answer(content=b"hello")


async def everything(pool: Pool, url: str) -> None:
    """A connection made, a response whole, one in pieces, an upload that has to wait for windows, and the end of the pool."""
    async with pool.request("GET", f"{url}/") as call:
        assert (await call.response()).content == b"hello"
    async with pool.request("GET", f"{url}/drip") as call:
        content = b""
        while (event := await call.receive()) is not None:
            content += event.data if isinstance(event, DataReceived) else b""
        assert content == CONTENT
    async with pool.request("POST", f"{url}/up", end=False) as call:
        for _ in range(4):
            assert await call.send_data(PIECE)
        await call.send_data(b"", end=True)
        events = await call.receive_all()
        while not isinstance(events[-1], ResponseEnded):
            events += await call.receive_all()
        assert b"".join([event.data for event in events if isinstance(event, DataReceived)]) == CONTENT
    await pool.aclose()


async def check_after(place: Place, peer: ScriptedPeer, pool: Pool) -> None:
    """Every slot is usable, the peer has no stream of ours, and then nothing is left at all."""
    if not pool._closed:
        assert await fetch(pool, peer.url) == b"hello"
        await wait_for(peer, lambda report: not report.streams_open)
        stats = pool.stats()
        assert stats.running == stats.waiting == 0
        assert stats.connections <= 1
    await pool.aclose()
    assert pool.snapshot().describe() == "no connections"
    assert not (await wait_for(peer, lambda report: not report.connections_open)).protocol_errors


async def cancel_everywhere(place: Place, late: bool) -> int:
    """The scenario, cancelled at each of its suspensions; how many there were."""
    point, count = 0, 0
    while point <= count:
        with place.peer(script, initial_window=20_000) as peer:
            pool = place.pool(ONE)
            count = max(count, await cancelled_at(everything(pool, peer.url), point, late))
            await check_after(place, peer, pool)
        point += 1
    return count


async def cancel_after_any_turn(place: Place, step: int) -> int:
    """The scenario, cancelled after one turn of the loop, two, …; how often that came before its end."""
    turns = 1
    running = True
    while running:
        with place.peer(script, initial_window=20_000) as peer:
            pool = place.pool(ONE)
            running = await cancelled_after(everything(pool, peer.url), turns)
            await check_after(place, peer, pool)
        turns += step
    return turns


@pytest.mark.parametrize("late", [False, True])
def test_F1_A2_cancelled_at_every_point(place: Place, late: bool) -> None:
    assert place.run(cancel_everywhere(place, late)) >= 5


@pytest.mark.slow
def test_F1_A2_cancelled_after_any_turn(place: Place) -> None:
    assert place.run(cancel_after_any_turn(place, 1)) > 20
