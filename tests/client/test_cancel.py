"""AsyncClient, cancelled at every point at which a task of its can wait: all slots are usable, and nothing is left.

A scenario is run once to count its suspensions, then once for each of them, cancelled there: at once, or in the very turn
in which it would have gone on.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Final

import pytest

import calamint
from calamint import Limits, Settings
from calamint.testing import Action, Request, ScriptedPeer, answer, drip
from tests.client.faces import LIMIT
from tests.net.aio_run import LOOPS, bounded, cancelled_at, new_loop, wait_for

PIECE: Final = bytes(30_000)
CONTENT: Final = bytes(range(256)) * 100
LOCATION: Final = ((b"location", b"/"),)


def script(request: Request) -> Action:
    """Content for each path; what was uploaded comes back."""
    if request.method == "POST":
        return answer(content=request.content)
    if request.target == "/redirect":
        return answer(302, LOCATION, content=b"elsewhere")
    return drip(CONTENT, 8000, 0.001) if request.target == "/drip" else answer(content=b"hello")


async def pieces() -> AsyncIterator[bytes]:
    """Content that takes its time."""
    for _ in range(4):
        await asyncio.sleep(0)
        yield PIECE


async def get(client: calamint.AsyncClient) -> None:
    assert (await client.get("/")).content == b"hello"


async def redirected(client: calamint.AsyncClient) -> None:
    assert (await client.get("/redirect")).content == b"hello"
    async with client.stream("GET", "/redirect") as response:
        assert await response.aread() == b"hello"


async def streamed(client: calamint.AsyncClient) -> None:
    async with client.stream("GET", "/drip") as response:
        assert b"".join([piece async for piece in response.aiter_bytes()]) == CONTENT
    async with client.stream("GET", "/drip") as response:
        assert await anext(response.aiter_raw())


async def uploaded(client: calamint.AsyncClient) -> None:
    assert len((await client.post("/up", content=pieces())).content) == 120_000
    async with client.stream("POST", "/up", content=[PIECE] * 4) as response:
        assert len(await response.aread()) == 120_000


async def limited(client: calamint.AsyncClient) -> None:
    async with asyncio.timeout(LIMIT):
        request = client.build_request("POST", "/up", content=PIECE)
        assert (await client.send(request)).content == PIECE


async def ended(client: calamint.AsyncClient) -> None:
    async with client:
        assert (await client.get("/")).content == b"hello"


SCENARIOS: Final = {each.__name__: each for each in (get, redirected, streamed, uploaded, limited, ended)}


async def cancel_everywhere(name: str, way: str, late: bool) -> int:
    """The scenario, cancelled at each of its suspensions; how many there were."""
    point, count = 0, 0
    while point <= count:
        with ScriptedPeer(script, initial_window=20_000) as peer:
            client = calamint.AsyncClient(
                base_url=peer.url,
                trust_env=False,
                follow_redirects=True,
                limits=Limits(max_connections=1),
                settings=Settings(max_streams=2, first_streams=2),
                coding_limits=calamint.CodingLimits(total=1_000_000 if late else None),
                http1=way == "http1",
                http2=way == "h2",
            )
            work: Coroutine[object, None, None] = SCENARIOS[name](client)
            count = max(count, await cancelled_at(work, point, late))
            await check_after(client, peer)
        point += 1
    return count


async def check_after(client: calamint.AsyncClient, peer: ScriptedPeer) -> None:
    """Both slots are usable at once, the peer has no stream of ours; and then nothing is left at all."""
    if not client.is_closed:
        responses = await asyncio.gather(client.get("/"), client.get("/"))
        assert [response.content for response in responses] == [b"hello"] * 2
        await wait_for(peer, lambda report: not report.streams_open)
        assert client.pool.stats().running == client.pool.stats().waiting == 0
    await client.aclose()
    assert client.pool.snapshot().describe() == "no connections"
    report = await wait_for(peer, lambda report: not report.connections_open)
    assert not report.protocol_errors and not report.refused


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("name", list(SCENARIOS))
def test_F1_A2_cancelled_at_every_point(name: str, way: str, late: bool, loop: str) -> None:
    with asyncio.Runner(debug=True, loop_factory=lambda: new_loop(loop)) as runner:
        assert runner.run(bounded(cancel_everywhere(name, way, late))) >= 1
