"""python -m tests.world: see CONTRIBUTING.md, "The world"."""

import argparse
import sys
import time
from random import SystemRandom

import calamint
from tests.world.pool_sabotage import POOL_MUTATIONS
from tests.world.pool_script import POOL_SCENARIOS
from tests.world.report import POOL_ROUND, ROUND, Total, decode_keep, describe, progress, run_many, run_world
from tests.world.sabotage import MUTATIONS, sabotage
from tests.world.script import SCENARIOS
from tests.world.seeds import POOL_SEEDS, SEEDS


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def replay(text: str) -> int:
    """One world again, with everything that happened in it."""
    name, seed, *keep = text.split(":")
    result = run_world(name, int(seed), decode_keep(keep[0]) if keep and keep[0] else None, tracing=True)
    for line in result.trace:
        say(line)
    if result.law:
        say(f"VIOLATION of the law of {result.law!r}, step {result.steps}: {result.text}")
        return 1
    say(f"no law was broken: {dict(result.outcomes)}")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.world", description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000, help="how many, over all worlds")
    parser.add_argument("--seed", type=int, help="of everything; drawn and printed where it is not given")
    parser.add_argument(
        "--scenario", choices=sorted([*SCENARIOS, *POOL_SCENARIOS]), default="", help="worlds of this kind only"
    )
    parser.add_argument("--pool", action="store_true", help="worlds of a pool")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--replay", metavar="SCENARIO:SEED[:KEEP]", help="one world, with its trace")
    parser.add_argument("--kept", action="store_true", help="the kept seeds of past findings first")
    parser.add_argument("--sabotage", action="store_true", help="mutations of core/ that the world has to notice")
    parser.add_argument("--terse", action="store_true", help="one line at the end, and nothing minimised")
    parser.add_argument("--source", help="the directory that calamint has to come from")
    options = parser.parse_args()
    if options.source and not calamint.__file__.startswith(options.source):
        parser.error(f"calamint comes from {calamint.__file__}")
    if options.replay:
        return replay(options.replay)
    seed = SystemRandom().getrandbits(32) if options.seed is None else options.seed
    if options.sabotage:
        mutations, flags = (POOL_MUTATIONS, ["--pool"]) if options.pool else (MUTATIONS, [])
        return sabotage(seed if options.seed is not None else 1, options.jobs, say, mutations, *flags)
    rounds, seeds = (POOL_ROUND, POOL_SEEDS) if options.pool else (ROUND, SEEDS)
    begin = time.perf_counter()
    kept = Total()
    for name, kept_seed, _ in seeds if options.kept else ():
        kept.add(run_world(name, kept_seed))
    if options.terse:
        total = run_many(options.requests, seed, options.scenario, options.jobs, lambda total: None, rounds)
        law = total.violations[0].law if total.violations else "-"
        say(f"{total.requests} {law}")
        return 1 if total.violations else 0
    say(f"seed {seed}")
    show, stop = progress(options.requests)
    total = run_many(options.requests, seed, options.scenario, options.jobs, show, rounds)
    stop()
    total.violations += kept.violations
    for line in total.lines(time.perf_counter() - begin):
        say(line)
    for result in total.violations[:5]:
        describe(result, say)
    return 1 if total.violations else 0


if __name__ == "__main__":
    sys.exit(main())
