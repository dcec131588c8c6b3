"""How the tests of the asyncio pool run: in both event loops, in debug mode, and with nothing left behind."""

import asyncio
import importlib.util
import os
import ssl
from collections.abc import Callable, Coroutine, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest

from calamint.core.exchange import SETTINGS, Settings
from calamint.core.pool_state import LIMITS, Limits
from calamint.net.aio import Call, Pool
from calamint.net.trace import Tracer
from calamint.testing import Report, Script, ScriptedPeer
from tests import servers

T = TypeVar("T")
LIMIT = 10.0  # seconds that anything here may take
ONE = Limits(max_connections=1)
HAS_UVLOOP = importlib.util.find_spec("uvloop") is not None
UVLOOP = pytest.mark.skipif(not HAS_UVLOOP, reason="uvloop is not installed")
LOOPS = ["asyncio", pytest.param("uvloop", marks=(UVLOOP, pytest.mark.slow))]
PLACES = [
    ("asyncio", "tls"),  # HTTP/2 by ALPN
    pytest.param(("uvloop", "http1"), marks=UVLOOP),
    pytest.param(("asyncio", "http1"), marks=pytest.mark.slow),
    pytest.param(("asyncio", "h2"), marks=pytest.mark.slow),
    pytest.param(("uvloop", "h2"), marks=(UVLOOP, pytest.mark.slow)),
    pytest.param(("uvloop", "tls"), marks=(UVLOOP, pytest.mark.slow)),
]
DESCRIPTORS = Path("/proc/self/fd")


def new_loop(name: str) -> asyncio.AbstractEventLoop:
    """An event loop of this kind."""
    if name == "uvloop":
        import uvloop

        return uvloop.new_event_loop()
    return asyncio.new_event_loop()


@dataclass(frozen=True)
class Place:
    """An event loop, a way to speak HTTP, and who signs the servers' certificates."""

    loop: str
    way: str
    ca: servers.PrivateCa

    def run(self, work: Coroutine[None, None, T], debug: bool = True, closed: bool = True) -> T:
        """In a loop of its own; no task of it is left, nor a timer, where it closes its pools."""
        with asyncio.Runner(debug=debug, loop_factory=lambda: new_loop(self.loop)) as runner:
            return runner.run(bounded(work) if closed else work)

    def server_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.ca.cert_file, self.ca.key_file)
        return context

    def peer(self, script: Script = (), **options: int | None) -> ScriptedPeer:
        """A server that speaks this way."""
        tls = self.server_context() if self.way.startswith("tls") else None
        return ScriptedPeer(script, tls=tls, **options)  # type: ignore[arg-type]  # numbers, all of those used here

    def pool(
        self,
        limits: Limits = LIMITS,
        settings: Settings = SETTINGS,
        tracer: Tracer | None = None,
        uds: str | None = None,
    ) -> Pool:
        """A client that speaks this way."""
        http1, http2 = self.way in ("http1", "tls1"), self.way in ("h2", "tls")
        verify = str(self.ca.ca_file)
        return Pool(limits=limits, settings=settings, http1=http1, http2=http2, verify=verify, tracer=tracer, uds=uds)


async def bounded(work: Coroutine[None, None, T]) -> T:
    """The work, and that no task or timer is left of it."""
    async with asyncio.timeout(3 * LIMIT):
        result = await work
    assert asyncio.all_tasks() == {asyncio.current_task()}
    timers = getattr(asyncio.get_running_loop(), "_scheduled", ())  # uvloop does not show them
    assert not [handle for handle in timers if not handle.cancelled()]
    return result


async def wait_for(peer: ScriptedPeer, condition: Callable[[Report], object], seconds: float = LIMIT) -> Report:
    """As `ScriptedPeer.wait_for`, without stopping the loop."""
    return await asyncio.to_thread(peer.wait_for, condition, seconds)


async def until(condition: Callable[[], object], seconds: float = LIMIT) -> None:
    """Until it is true, looked at every millisecond or so."""
    for _ in range(int(seconds * 1000)):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise TimeoutError


async def fetch(pool: Pool, url: str, method: str = "GET", content: bytes | None = None) -> bytes:
    """The content of a response that is a success."""
    async with pool.request(method, url, content=content) as call:
        response = await call.response()
    assert response.status == 200, response
    return response.content


async def start(call: Call) -> None:
    """Waits for the head of a response."""
    await call.receive()


def count_descriptors() -> int:
    return len(os.listdir(DESCRIPTORS)) if DESCRIPTORS.exists() else 0


class CancelledAt:
    """Awaits some work, and cancels its task at its so-many-th suspension: at once, or (`late`) when what it waits for is
    there, in the very turn in which it would go on. `count` says how many suspensions there were."""

    def __init__(self, work: Coroutine[object, None, T], point: int, late: bool = False) -> None:
        self.work = work
        self.point = point
        self.late = late
        self.count = 0

    def __await__(self) -> Generator[object, None, None]:
        thrown: BaseException | None = None
        while True:
            try:
                waits_for = self.work.send(None) if thrown is None else self.work.throw(thrown)
            except StopIteration:
                return
            thrown = None
            self.count += 1
            if self.count == self.point:
                self.strike(waits_for)
            try:
                yield waits_for
            except BaseException as error:
                thrown = error

    def strike(self, waits_for: object) -> None:
        """Cancels."""
        task = asyncio.current_task()
        assert task is not None
        if self.late and isinstance(waits_for, asyncio.Future):
            waits_for.add_done_callback(lambda _: task.cancel())
        else:
            task.cancel()


async def cancelled_at(work: Coroutine[object, None, T], point: int, late: bool = False) -> int:
    """Runs it in a task that is cancelled there; how many suspensions there were."""
    stepper = CancelledAt(work, point, late)

    async def run() -> None:
        await stepper

    task = asyncio.ensure_future(run())
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()
    return stepper.count


async def cancelled_after(work: Coroutine[object, None, T], turns: int) -> bool:
    """Runs it in a task that is cancelled after so many turns of the loop; whether it was not over before."""
    task = asyncio.ensure_future(keep(work))
    for _ in range(turns):
        await asyncio.sleep(0)
    running = task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()
    return running


async def keep(work: Coroutine[object, None, T]) -> T:
    """The same, begun in any case, so that it is never a coroutine that nobody has awaited."""
    return await work
