"""Many worlds from one seed: run, counted, shown; and what is done with a violation: minimised, told with its command."""

import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from random import Random

from tests.world.caller import Result
from tests.world.pool_script import POOL_SCENARIOS, PoolScript, draw_pool_script
from tests.world.pool_world import PoolWorld
from tests.world.script import SCENARIOS, Script, draw_script
from tests.world.world import World

# A round: every scenario at least once, and those from which the most is learned for their time more often.
ROUND = (
    *SCENARIOS,
    "mixed",
    "unkind",
    "settings",
    "late",
    "goaway",
    "readers",
    "mixed",
    "broken",
    "http1_unkind",
    "silent",
)
POOL_ROUND = (*POOL_SCENARIOS, *[name for name in POOL_SCENARIOS if name != "pool_burden"] * 5)  # it is large
BATCH = 8  # worlds that a process runs at a time
MINIMISE_SECONDS = 20.0


def worlds(seed: int, scenario: str = "", rounds: tuple[str, ...] = ROUND) -> Iterator[tuple[str, int]]:
    """(scenario, seed) of one world after another."""
    dice = Random(seed)
    while True:
        for name in rounds if not scenario else (scenario,):
            yield name, dice.getrandbits(40)


def run_world(name: str, seed: int, keep: frozenset[int] | None = None, tracing: bool = False) -> Result:
    """One world; `keep`: only these operations of its script."""
    script = kept(draw(name, seed), keep)
    if isinstance(script, PoolScript):
        return PoolWorld(script, tracing).run()
    return World(script, tracing).run()


def draw(name: str, seed: int) -> Script:
    return draw_pool_script(name, seed) if name in POOL_SCENARIOS else draw_script(name, seed)


def kept(script: Script, keep: frozenset[int] | None) -> Script:
    if keep is not None:
        script.ops = [op for number, op in enumerate(script.ops) if number in keep]
    return script


def run_batch(batch: list[tuple[str, int]]) -> list[Result]:
    results = []
    for name, seed in batch:
        results.append(run_world(name, seed))
        if results[-1].law:
            break
    return results


# --- a violation


def minimise(name: str, seed: int, law: str) -> frozenset[int]:
    """The fewest operations that still break the same law, by leaving out ever smaller parts (delta debugging)."""
    until = time.monotonic() + MINIMISE_SECONDS
    ops = list(range(len(draw(name, seed).ops)))
    size = max(1, len(ops) // 2)
    while size:
        start, left_out = 0, False
        while start < len(ops) and time.monotonic() < until:
            candidate = ops[:start] + ops[start + size :]
            if run_world(name, seed, frozenset(candidate)).law == law:
                ops, left_out = candidate, True
            else:
                start += size
        if time.monotonic() >= until:
            break
        if not left_out or size > 1:
            size //= 2
    return frozenset(ops)


def encode_keep(keep: frozenset[int]) -> str:
    """3,5-8"""
    parts: list[list[int]] = []
    for number in sorted(keep):
        if parts and parts[-1][1] == number - 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join([str(low) if low == high else f"{low}-{high}" for low, high in parts])


def decode_keep(text: str) -> frozenset[int]:
    keep: set[int] = set()
    for part in text.split(",") if text else ():
        low, _, high = part.partition("-")
        keep.update(range(int(low), int(high or low) + 1))
    return frozenset(keep)


def describe(result: Result, print_line: Callable[[str], None]) -> None:
    """What a violation says: the law, the seed, the step, the smallest script, and how to see it again."""
    print_line(f"VIOLATION of the law of {result.law!r} in {result.name}, seed {result.seed}, step {result.steps}")
    print_line(f"  {result.text}")
    keep = minimise(result.name, result.seed, result.law)
    script = kept(draw(result.name, result.seed), keep)
    print_line(f"  its smallest script has {len(script.ops)} operations:")
    for op in script.ops:
        said = f"{op.kind} {op.name} {op.ask if op.ask is not None else op.value}"
        said = re.sub(r"(.)\1{19,}", r"\1…", said)  # long values
        print_line(f"    {op.time:8.4f} s  {said[:400]}")
    print_line(f"  again: python -m tests.world --replay {result.name}:{result.seed}:{encode_keep(keep)}")


# --- many worlds


@dataclass(slots=True)
class Total:
    requests: int = 0
    worlds: int = 0
    lives: int = 0
    steps: int = 0
    virtual: float = 0.0
    outcomes: Counter[str] = field(default_factory=Counter)
    frames: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    violations: list[Result] = field(default_factory=list)

    def add(self, result: Result) -> None:
        self.requests += result.requests
        self.worlds += 1
        self.lives += result.lives
        self.steps += result.steps
        self.virtual += result.virtual
        self.outcomes += result.outcomes
        self.frames += result.frames
        self.faults += result.faults
        if result.law:
            self.violations.append(result)

    def lines(self, seconds: float) -> list[str]:
        def counts(counter: Counter[str]) -> str:
            return ", ".join(
                [f"{name} {count:,}" for name, count in sorted(counter.items(), key=lambda item: -item[1])]
            )

        return [
            f"{self.requests:,} requests in {self.worlds:,} worlds, {self.lives:,} connections, {self.steps:,} steps",
            f"outcomes: {counts(self.outcomes)}",
            f"frames and messages: {counts(self.frames)}",
            f"faults: {counts(self.faults)}",
            f"virtual time {self.virtual:,.0f} s, real time {seconds:.1f} s: {self.requests / seconds:,.0f} requests a second",
            f"violations: {len(self.violations)}",
        ]


Show = Callable[[Total], None]


def run_many(requests: int, seed: int, scenario: str, jobs: int, show: Show, rounds: tuple[str, ...] = ROUND) -> Total:
    """As many worlds as make so many requests, until one breaks a law."""
    total, source = Total(), worlds(seed, scenario, rounds)
    if jobs <= 1:
        while total.requests < requests and not total.violations:
            total.add(run_world(*next(source)))
            show(total)
        return total
    with ProcessPoolExecutor(jobs) as pool:
        running: set[Future[list[Result]]] = set()
        while total.requests < requests and not total.violations:
            while len(running) < jobs * 2:
                running.add(pool.submit(run_batch, [next(source) for _ in range(BATCH)]))
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                for result in future.result():
                    total.add(result)
            show(total)
        for future in running:
            future.cancel()
    return total


def progress(requests: int) -> tuple[Show, Callable[[], None]]:
    """A bar where there is a terminal, plain lines elsewhere; and what ends it."""
    if sys.stdout.isatty():
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("requests"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        bar = Progress(*columns)
        task = bar.add_task("requests", total=requests)
        bar.start()
        return lambda total: bar.update(task, completed=min(total.requests, requests)), bar.stop
    last = time.monotonic()

    def show(total: Total) -> None:
        nonlocal last
        if time.monotonic() - last >= 10:
            last = time.monotonic()
            sys.stdout.write(f"{total.requests:,} of {requests:,} requests, {len(total.violations)} violations\n")
            sys.stdout.flush()

    return show, lambda: None
