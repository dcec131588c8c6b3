"""Cancellation at every point at which a task can wait: afterwards every slot is usable, and nothing is left.

A scenario is run once to count its suspensions, then once for each of them, cancelled there.
"""

import asyncio
import random
import socket
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from hashlib import sha256
from typing import TypeVar

import pytest

import calamint
from calamint import AsyncCall
from calamint.core.errors import CANCEL
from calamint.core.events import DataReceived, ResponseEnded, ResponseReceived
from calamint.core.exchange import Settings
from calamint.core.pool_state import Limits, Report
from calamint.net.aio import Pool
from calamint.net.trace import Tracer
from calamint.testing import Action, Request, ScriptedPeer, answer, delay, drip, forget
from calamint.testing.script import Drip, Head, Wait
from tests import servers
from tests.net.aio_run import (
    LIMIT,
    ONE,
    Place,
    cancelled_after,
    cancelled_at,
    fetch,
    until,
    wait_for,
)
from tests.net.thread_server import ThreadServer, no_answer, read_head

T = TypeVar("T")

pytestmark = pytest.mark.usefixtures("nothing_left")
PIECE = bytes(range(256)) * 160  # 40 KiB
CONTENT = PIECE * 4
MUCH = PIECE * 200  # 8 MB: more than the buffers of any kernel hold


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


async def churn(pool: Pool, url: str, seconds: float) -> None:
    """Requests with 0 to 3 ms of time, which they run out of in every possible way."""
    ends, chance = time.monotonic() + seconds, random.Random(7)

    async def one() -> None:
        while time.monotonic() < ends:
            limit = chance.random() * 0.003
            try:
                if chance.random() < 0.5:
                    async with asyncio.timeout(limit), pool.request("GET", url) as call:
                        await call.response()
                else:
                    async with pool.request("GET", url, timeout=limit) as call:
                        await call.response()
            except (TimeoutError, calamint.DeadlineExceeded):
                pass

    await asyncio.gather(*[one() for _ in range(20)])


@pytest.mark.parametrize("seconds", [0.3, pytest.param(4.0, marks=pytest.mark.slow)])
def test_F1_no_slot_is_lost_in_a_churn(place: Place, seconds: float) -> None:
    """All ten are usable afterwards: ten requests are at the server at once."""

    def act(request: Request) -> Action:
        return forget() if request.target == "/hold" else delay(0.001, answer())

    async def work() -> None:
        async with place.pool(Limits(max_connections=10), Settings(first_streams=10)) as pool:
            await churn(pool, f"{peer.url}/", seconds)
            calls = [pool.request("GET", f"{peer.url}/hold") for _ in range(10)]
            held = await wait_for(peer, lambda report: report.streams_open == 10)
            assert len([seen for seen in held.requests if seen.target == "/hold"]) == 10
            for call in calls:
                call.cancel()
            assert await fetch(pool, peer.url) == b"ok"

    with place.peer(act, max_streams=10) as peer:
        place.run(work(), debug=False)
        assert not peer.report.refused and not peer.report.protocol_errors


@pytest.mark.parametrize("late", [False, True])
def test_F2_the_one_that_is_being_woken_is_cancelled(place: Place, late: bool) -> None:
    """One slot, three who wait for it: when the first of them gives up just as it is his turn, the others get theirs."""

    async def wait_and_fetch(pool: Pool) -> bytes:
        return await fetch(pool, f"{peer.url}/")

    async def work() -> None:
        async with place.pool(ONE, Settings(max_streams=1, first_streams=1)) as pool:
            holder = asyncio.create_task(fetch(pool, f"{peer.url}/first"))
            await wait_for(peer, lambda report: report.streams_open == 1)
            first = asyncio.create_task(cancelled_at(wait_and_fetch(pool), 1, late))
            others = [asyncio.create_task(wait_and_fetch(pool)) for _ in range(2)]
            assert await holder == b"ok"
            assert await first >= 1
            assert [await other for other in others] == [b"ok", b"ok"]

    with place.peer(lambda request: delay(0.05, answer()), max_streams=1) as peer:
        place.run(work())


def test_A1_deadlines_free_their_slots(place: Place) -> None:
    """Ten requests that are never answered, on all ten slots; then one that is, on the same connection."""
    if place.way == "http1":
        pytest.skip("HTTP/1.1 has no streams to reset")

    async def work() -> None:
        async with place.pool(ONE) as pool:
            calls = [pool.request("GET", f"{peer.url}/never", timeout=0.05) for _ in range(10)]
            for call in calls:
                with pytest.raises(calamint.DeadlineExceeded):
                    await call.response()
            assert await fetch(pool, peer.url) == b"ok"
            assert pool.stats().running == 0

    with place.peer(lambda request: forget() if request.target == "/never" else answer(), max_streams=10) as peer:
        place.run(work())
        report = peer.report
    assert report.connections == 1
    assert [code for _, _, code in report.resets] == [CANCEL] * 10
    assert not report.streams_open and not report.refused


def test_A4_a_response_that_stops_is_left(place: Place) -> None:
    """The head and some content have come, and then nothing more: what is left of the request is nothing."""

    async def work() -> None:
        async with place.pool(ONE) as pool:
            async with pool.request("GET", f"{peer.url}/stop") as call:
                assert isinstance(await call.receive(), ResponseReceived)
            assert call.is_over
            assert not [each for conn in pool.snapshot().connections for each in conn.requests]
            with pytest.raises(calamint.StreamClosed, match="cancelled by its caller"):
                await call.receive()
            assert await fetch(pool, peer.url) == b"ok"
            await wait_for(peer, lambda report: not report.streams_open)

    def act(request: Request) -> Action:
        return drip(b"abc", 1, 60.0, end=False) if request.target == "/stop" else answer()

    with place.peer(act) as peer:
        place.run(work())


def test_A5_what_makes_the_content_raises(place: Place) -> None:
    """The caller gets his own error, the server a reset, and the slot is free."""

    async def produce(call: AsyncCall) -> None:
        await call.send_data(PIECE)
        raise ZeroDivisionError

    async def work() -> None:
        async with place.pool(ONE) as pool:
            with pytest.raises(ZeroDivisionError):
                async with pool.request("POST", peer.url, end=False) as call:
                    await produce(call)
            await wait_for(peer, lambda report: report.requests and not report.streams_open)
            assert await fetch(pool, peer.url) == b"ok"

    with place.peer() as peer:
        place.run(work())
        report = peer.report
    if place.way != "http1":
        assert len(report.resets) == 1 and report.connections == 1
    assert [seen.complete for seen in report.requests] == [False, True]


def test_cancelled_while_it_waits_a_call_loses_nothing(loop: str, private_ca: servers.PrivateCa) -> None:
    """`receive`, `receive_all`, `response` and `send_data` can all be asked again."""

    async def give_up(ask: Callable[[], Coroutine[None, None, T]]) -> T:
        """Asks, gives up at once, as long as there is nothing that would come of it, and asks again."""
        task = asyncio.create_task(ask())
        await asyncio.sleep(0)
        task.cancel()
        with suppress(asyncio.CancelledError):
            return await task
        gave_up.append(ask.__name__)
        return await ask()

    async def work() -> None:
        async with place.pool(ONE) as pool, pool.request("GET", peer.url) as call:
            assert isinstance(await call.receive(), ResponseReceived)
            content = b""
            for _ in range(3):
                event = await give_up(call.receive)
                assert isinstance(event, DataReceived)
                content += event.data
                for event in await give_up(call.receive_all):
                    assert isinstance(event, DataReceived)
                    content += event.data
            async with pool.request("GET", f"{peer.url}/whole") as other:
                for _ in range(4):
                    task = asyncio.create_task(other.response())
                    await asyncio.sleep(0)
                    task.cancel()
                    with pytest.raises(asyncio.CancelledError):
                        await task
                assert (await other.response()).content == b"0123456789"
            while (event := await call.receive()) is not None:
                content += event.data if isinstance(event, DataReceived) else b""
            assert content == b"0123456789"

    gave_up: list[str] = []
    place = Place(loop, "tls", private_ca)
    with place.peer([Action((Head(200), Wait(0.03), Drip(b"0123456789", 1, 0.03, True)))]) as peer:
        place.run(work())
    assert {"receive", "receive_all"} <= set(gave_up)


@pytest.mark.parametrize("way", ["http1", "tls1"])
def test_send_data_cancelled_while_it_waits(loop: str, way: str, private_ca: servers.PrivateCa) -> None:
    """Its data goes out all the same, once, and the next may follow."""
    place = Place(loop, way, private_ca)
    go_on = threading.Event()
    digest = sha256()

    def handle(sock: socket.socket) -> None:
        head, _, data = read_head(sock).partition(b"\r\n\r\n")
        assert f"content-length: {len(MUCH) + 3}".encode() in head
        assert go_on.wait(LIMIT)
        left = len(MUCH) + 3
        while left:
            digest.update(data)
            left -= len(data)
            data = sock.recv(65_536) if left else b""
        sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        no_answer(sock)

    async def work(url: str) -> None:
        fields = {"content-length": str(len(MUCH) + 3)}
        async with place.pool(ONE) as pool, pool.request("POST", url, fields, end=False) as call:
            await until(lambda: pool.stats().running == 1)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await call.send_data(MUCH)
            assert pool.snapshot().connections[0].requests[0].queued > 0
            go_on.set()
            await call.send_data(b"end", end=True)  # its response may be there already
            assert (await call.response()).content == b"ok"

    tls = place.server_context() if way == "tls1" else None
    with ThreadServer(handle, tls, buffer=16_384) as server:
        place.run(work(server.url))
    assert digest.digest() == sha256(MUCH + b"end").digest()


def test_a_dial_that_is_cancelled_from_outside_has_failed(place: Place) -> None:
    """Whoever cancels all tasks there are cancels it too; the pool is usable afterwards."""

    async def work() -> None:
        async with place.pool(ONE) as pool:
            before = asyncio.all_tasks()
            call = pool.request("GET", peer.url)
            for task in asyncio.all_tasks():
                if task not in before:
                    task.cancel()
            with pytest.raises(calamint.ConnectError, match="the attempt to connect was cancelled"):
                await call.response()
            assert await fetch(pool, peer.url) == b"ok"

    with place.peer() as peer:
        place.run(work())


def test_an_interrupt_in_a_turn_of_writes(private_ca: servers.PrivateCa) -> None:
    """It comes while one connection writes: another one, which was to write in the same turn, still does."""
    place = Place("asyncio", "h2", private_ca)
    calls: list[AsyncCall] = []

    def interrupt(report: Report) -> None:
        raise KeyboardInterrupt

    async def warm_up(*urls: str) -> None:
        assert [await fetch(pool, url) for url in urls] == [b"ok", b"ok"]

    async def begin(stalls: str, goes_on: str) -> None:
        calls.append(pool.request("POST", stalls, content=bytes(100_000)))  # more than the peer's window
        calls.append(pool.request("GET", goes_on))
        await asyncio.get_running_loop().create_future()  # in which the interrupt comes

    with place.peer() as first, place.peer() as other, asyncio.Runner() as runner:
        pool = place.pool(settings=Settings(output_budget=16_384), tracer=Tracer(stall=interrupt))
        runner.run(warm_up(first.url, other.url))
        with pytest.raises(KeyboardInterrupt):
            runner.run(begin(first.url, other.url))
        assert runner.run(calls[1].response()).status == 200
        calls[0].cancel()
        runner.run(pool.aclose())
