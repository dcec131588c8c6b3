"""Callers in tasks, with `calamint.AsyncPool`."""

import asyncio
import gc
import time
from typing import Final

import calamint
from calamint.core.events import Event
from calamint.net.response import assemble
from tests.soak.plans import (
    CLOCKS,
    CONNECTIONS,
    LIMITS,
    PER_ORIGIN,
    SETTINGS,
    STREAMS,
    Plan,
    Planner,
    Resolver,
    check,
)
from tests.soak.watch import Commands, Tally, descriptors, restless, say, survivors

PIECE: Final = 20_000
REST: Final = 30.0  # seconds in which everything has come to rest: a PING that nobody answers takes 10


class Caller:
    """One request after the other."""

    def __init__(
        self,
        planner: Planner,
        pools: tuple[calamint.AsyncPool, calamint.AsyncPool],
        tally: Tally,
        pace: float,
        stop: asyncio.Event,
    ) -> None:
        self.planner = planner
        self.pools = pools
        self.tally = tally
        self.counts = tally.new_counts()
        self.pace = pace  # requests per second
        self.stop = stop

    async def run(self) -> None:
        while not self.stop.is_set():
            await asyncio.sleep(self.planner.dice.expovariate(self.pace))
            plan = self.planner.draw()
            try:
                self.counts[await self.begin(plan)] += 1
            except calamint.TimeoutException as error:
                self.counts["timed out"] += 1
                self.tally.failures[type(error).__name__] += 1
            except calamint.TransportError as error:
                self.counts["failed"] += 1
                self.tally.failures[type(error).__name__] += 1
            except Exception as error:
                self.tally.violation(f"{plan}: {error!r}")

    async def begin(self, plan: Plan) -> str:
        """A plan; how its request has ended. Its task is cancelled where it says so."""
        if plan.conduct != "cancel":
            return await self.carry_out(plan)
        task = asyncio.create_task(self.carry_out(plan))
        await asyncio.wait([task], timeout=plan.after)
        task.cancel()
        await asyncio.wait([task])
        return "left" if task.cancelled() else task.result()

    async def carry_out(self, plan: Plan) -> str:
        """All of it."""
        call = self.pools[plan.prior].request(
            plan.method,
            plan.url,
            plan.headers,
            plan.content,
            end=not plan.pieces,
            timeout=plan.timeout,
            clocks=CLOCKS,
            pool=2.0,
            connect=1.0,
        )
        if plan.conduct == "drop":
            await asyncio.sleep(plan.after)
            self.tally.dropped += 1
            return "left"
        async with call:
            for number in range(plan.pieces):
                if not await call.send_data(bytes(PIECE), end=number == plan.pieces - 1 and not plan.abandons):
                    break
            if plan.conduct in ("whole", "cancel"):
                response = await call.response()
            else:
                events: list[Event] = []
                while (event := await call.receive()) is not None:
                    events.append(event)
                    if len(events) > 1:
                        continue
                    if plan.conduct == "head" and not call.is_over:
                        return "left"
                    if plan.conduct == "pause":
                        await asyncio.sleep(plan.after)
                response = assemble(events)
        if wrong := check(plan, response.status, response.get("x-target", "") or "", response.content):
            self.tally.violation(wrong)
        return "answered"


async def hold(pool: calamint.AsyncPool, url: str, count: int) -> str:
    """So many requests that are answered only when all of them are there at once; what is wrong, or nothing."""
    calls = [pool.request("GET", f"{url}/hold/aio{count}/{count}", timeout=20.0) for _ in range(count)]
    try:
        if all([(await call.response()).content == b"held" for call in calls]):
            return ""
        return f"not all of {count} requests at once were answered by {url}"
    except calamint.CalamintError as error:
        seen = pool.snapshot().describe()
        return f"not all {count} slots for {url} can be used: {error}\n{seen}"
    finally:
        for call in calls:
            call.cancel()


async def sample(tally: Tally, pools: tuple[calamint.AsyncPool, calamint.AsyncPool], last: float) -> None:
    """Once a second; how late the loop is, is the lag."""
    due = time.monotonic()
    while due < last:
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        late = max(0.0, time.monotonic() - due)
        tally.sample(len(asyncio.all_tasks()), late, [pool.stats() for pool in pools])
        due += 1.0


async def finish(ports: dict[str, int], pools: tuple[calamint.AsyncPool, calamint.AsyncPool], tally: Tally) -> None:
    """Rest, all slots, and the end."""
    urls = {name: f"http{'s' * name.startswith('tls')}://soak.soak.test:{port}" for name, port in ports.items()}
    for pool in pools:
        for _ in range(int(REST / 0.02)):
            if not restless(pool.snapshot(), pool.stats()):
                break
            await asyncio.sleep(0.02)
        if words := restless(pool.snapshot(), pool.stats()):
            tally.violation(f"a pool did not come to rest: {words}")
    for pool, origin, count in (
        (pools[0], "http1", CONNECTIONS),
        (pools[0], "tls", PER_ORIGIN * STREAMS),
        (pools[1], "h2c", PER_ORIGIN * STREAMS),
    ):
        if wrong := await hold(pool, urls[origin], count):
            tally.violation(wrong)
    for pool in pools:
        await pool.aclose()
        if pool.stats().connections or restless(pool.snapshot(), pool.stats()):
            tally.violation(f"closed, and yet: {pool.snapshot().describe()}")
    say({"pools": [repr(pool.stats()) for pool in pools]})


async def live(
    ports: dict[str, int], ca: str, seed: str, callers: int, rate: float, seconds: float, tally: Tally, told: Commands
) -> None:
    """The whole life of two pools."""
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: tally.violation(f"asyncio: {context}"))
    files = descriptors()
    stop, rest = asyncio.Event(), asyncio.Event()

    resolver = Resolver(seed)

    def make(prior: bool) -> calamint.AsyncPool:
        return calamint.AsyncPool(http1=not prior, limits=LIMITS, settings=SETTINGS, verify=ca, resolver=resolver)

    pools = (make(False), make(True))
    told.when(told.stop, lambda: loop.call_soon_threadsafe(stop.set))
    told.when(told.rest, lambda: loop.call_soon_threadsafe(rest.set))
    crowd = [
        asyncio.create_task(Caller(Planner(f"{seed} {number}", ports), pools, tally, rate / callers, stop).run())
        for number in range(callers)
    ]
    sampler = asyncio.create_task(sample(tally, pools, time.monotonic() + seconds))
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait([sampler, stopped], return_when=asyncio.FIRST_COMPLETED)
    stop.set()
    sampler.cancel()
    await asyncio.wait([*crowd, sampler, stopped])
    del crowd, sampler, stopped
    say({"resting": True})
    await rest.wait()
    resolver.kind = True
    await finish(ports, pools, tally)
    del pools
    gc.collect()  # what was dropped in the end may still want to be said in this loop
    await asyncio.sleep(0.1)
    if left := asyncio.all_tasks() - {asyncio.current_task()}:
        tally.violation(f"tasks are left: {left}")
    timers = getattr(loop, "_scheduled", ())  # uvloop does not show them
    if waiting := [timer for timer in timers if not timer.cancelled()]:
        tally.violation(f"timers are left: {waiting}")
    if left_over := survivors():
        tally.violation(f"objects are left: {', '.join(left_over)}")
    if descriptors() > files:
        tally.violation(f"{descriptors() - files} descriptors are left")
