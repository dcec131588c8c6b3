"""Callers in threads, with `calamint.Pool`."""

import heapq
import itertools
import threading
import time
from collections.abc import Callable
from contextlib import suppress
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


class Canceller(threading.Thread):
    """Cancels calls of other threads, each at its time."""

    def __init__(self) -> None:
        super().__init__(name="canceller")
        self.condition = threading.Condition()
        self.numbers = itertools.count()
        self.queue: list[tuple[float, int, calamint.Call]] = []
        self.ended = False

    def at(self, seconds: float, call: calamint.Call) -> None:
        with self.condition:
            heapq.heappush(self.queue, (time.monotonic() + seconds, next(self.numbers), call))
            self.condition.notify()

    def end(self) -> None:
        with self.condition:
            self.ended = True
            self.condition.notify()
        self.join()

    def run(self) -> None:
        while True:
            with self.condition:
                if self.ended and not self.queue:
                    return
                wait = self.queue[0][0] - time.monotonic() if self.queue else None
                if wait is None or wait > 0:
                    self.condition.wait(wait)
                    continue
                call = heapq.heappop(self.queue)[2]
            call.cancel()
            del call  # or it lives until the next one


class Caller(threading.Thread):
    """One request after the other."""

    def __init__(
        self,
        planner: Planner,
        pools: tuple[calamint.Pool, calamint.Pool],
        canceller: Canceller,
        tally: Tally,
        pace: float,
        stop: threading.Event,
    ) -> None:
        super().__init__(name="caller")
        self.planner = planner
        self.pools = pools
        self.canceller = canceller
        self.tally = tally
        self.counts = tally.new_counts()
        self.pace = pace  # requests per second
        self.stop = stop

    def run(self) -> None:
        while not self.stop.wait(self.planner.dice.expovariate(self.pace)):
            plan = self.planner.draw()
            try:
                self.counts[self.carry_out(plan)] += 1
            except calamint.TimeoutException as error:
                self.counts["timed out"] += 1
                self.tally.failures[type(error).__name__] += 1
            except calamint.TransportError as error:
                self.counts["failed"] += 1
                self.tally.failures[type(error).__name__] += 1
            except calamint.StreamClosed as error:
                self.counts["left"] += 1
                if plan.conduct != "cancel":
                    self.tally.violation(f"{plan}: {error!r}")
            except Exception as error:
                self.tally.violation(f"{plan}: {error!r}")

    def carry_out(self, plan: Plan) -> str:
        """A plan; how its request has ended."""
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
            self.stop.wait(plan.after)
            self.tally.dropped += 1
            return "left"
        with call:
            if plan.conduct == "cancel":
                self.canceller.at(plan.after, call)
            for number in range(plan.pieces):
                if not call.send_data(bytes(PIECE), end=number == plan.pieces - 1 and not plan.abandons):
                    break
            if plan.conduct in ("whole", "cancel"):
                response = call.response()
            else:
                events: list[Event] = []
                while (event := call.receive()) is not None:
                    events.append(event)
                    if len(events) > 1:
                        continue
                    if plan.conduct == "head" and not call.is_over:
                        return "left"
                    if plan.conduct == "pause":
                        self.stop.wait(plan.after)
                response = assemble(events)
        if wrong := check(plan, response.status, response.get("x-target", "") or "", response.content):
            self.tally.violation(wrong)
        return "answered"


def nudge(pool: calamint.Pool, url: str) -> None:
    """Time passes for a pool of threads when somebody calls."""
    with suppress(calamint.TransportError):
        pool.request("GET", url, timeout=2.0, pool=0.5, connect=0.5).response()


def hold(pool: calamint.Pool, url: str, count: int) -> str:
    """So many requests that are answered only when all of them are there at once; what is wrong, or nothing."""
    calls = [pool.request("GET", f"{url}/hold/threads{count}/{count}", timeout=20.0) for _ in range(count)]
    try:
        if all([call.response().content == b"held" for call in calls]):
            return ""
        return f"not all of {count} requests at once were answered by {url}"
    except calamint.CalamintError as error:
        seen = pool.snapshot().describe()
        return f"not all {count} slots for {url} can be used: {error}\n{seen}"
    finally:
        for call in calls:
            call.cancel()


def wait_for(condition: Callable[[], bool], seconds: float) -> None:
    """Until it is true, or the time is over."""
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        threading.Event().wait(0.02)


def run(
    ports: dict[str, int], ca: str, seed: str, callers: int, rate: float, seconds: float, tally: Tally, told: Commands
) -> None:
    """The whole life of two pools."""
    files, threads = descriptors(), threading.active_count()

    resolver = Resolver(seed)

    def make(prior: bool) -> calamint.Pool:
        return calamint.Pool(http1=not prior, limits=LIMITS, settings=SETTINGS, verify=ca, resolver=resolver)

    pools = (make(False), make(True))
    canceller = Canceller()
    canceller.start()
    crowd = [
        Caller(Planner(f"{seed} {number}", ports), pools, canceller, tally, rate / callers, told.stop)
        for number in range(callers)
    ]
    for caller in crowd:
        caller.start()
    last, due = time.monotonic() + seconds, time.monotonic()
    while not told.stop.wait(max(0.0, due - time.monotonic())) and time.monotonic() < last:
        tally.sample(0, max(0.0, time.monotonic() - due), [pool.stats() for pool in pools])
        due += 1.0
    told.stop.set()
    for caller in crowd:
        caller.join()
    canceller.end()
    del caller, crowd, canceller
    say({"resting": True})
    told.rest.wait()
    resolver.kind = True
    urls = {name: f"http{'s' * name.startswith('tls')}://soak.soak.test:{port}" for name, port in ports.items()}
    for pool, url in zip(pools, (urls["http1"], urls["h2c"]), strict=True):

        def at_rest(pool: calamint.Pool = pool, url: str = url) -> bool:
            nudge(pool, f"{url}/soak/1/1")
            return not restless(pool.snapshot(), pool.stats())

        wait_for(at_rest, REST)
        if words := restless(pool.snapshot(), pool.stats()):
            tally.violation(f"a pool did not come to rest: {words}")
    for pool, origin, count in (
        (pools[0], "http1", CONNECTIONS),
        (pools[0], "tls", PER_ORIGIN * STREAMS),
        (pools[1], "h2c", PER_ORIGIN * STREAMS),
    ):
        if wrong := hold(pool, urls[origin], count):
            tally.violation(wrong)
    for pool in pools:
        pool.close()
        if pool.stats().connections or restless(pool.snapshot(), pool.stats()):
            tally.violation(f"closed, and yet: {pool.snapshot().describe()}")
    say({"pools": [repr(pool.stats()) for pool in pools]})
    del pool, pools, at_rest
    wait_for(lambda: threading.active_count() <= threads, 5.0)
    if left := [thread.name for thread in threading.enumerate()][threads:]:
        tally.violation(f"threads are left: {', '.join(left)}")
    if left := survivors():
        tally.violation(f"objects are left: {', '.join(left)}")
    if descriptors() > files:
        tally.violation(f"{descriptors() - files} descriptors are left")
