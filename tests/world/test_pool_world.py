"""The world of a pool: every scenario, the kept seeds, and that it is what it claims: deterministic, and not blind."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.world.pool_sabotage import POOL_MUTATIONS
from tests.world.pool_script import MISTAKES, POOL_SCENARIOS, draw_pool_script
from tests.world.pool_world import PoolWorld
from tests.world.report import POOL_ROUND, run_many, run_world, worlds
from tests.world.sabotage import PACKAGE, Mutation, run
from tests.world.seeds import POOL_SEEDS

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("scenario", POOL_SCENARIOS)
def test_no_law_is_broken(scenario: str) -> None:
    result = run_world(scenario, 1)
    assert not result.law, f"{result.law}: {result.text}; python -m tests.world --replay {scenario}:1"
    assert result.requests > 0 and sum(result.outcomes.values()) == result.requests


@pytest.mark.parametrize(
    ("scenario", "seed", "story"), POOL_SEEDS, ids=[f"{name}-{seed}" for name, seed, _ in POOL_SEEDS]
)
def test_a_past_finding_stays_mended(scenario: str, seed: int, story: str) -> None:
    result = run_world(scenario, seed)
    assert not result.law, f"again: {story}: {result.law}: {result.text}"


def test_a_pools_world_is_a_function_of_its_seed() -> None:
    for scenario, seed in (("pool_all", 3), ("pool_http1", 5)):
        first = run_world(scenario, seed, tracing=True)
        run_world("pool_tight", 1)
        assert run_world(scenario, seed, tracing=True) == first
        assert run_world(scenario, seed + 1) != first


def test_all_that_may_happen_happens() -> None:
    source = worlds(7, "", POOL_ROUND)
    assert {name for name, _ in [next(source) for _ in range(len(POOL_ROUND))]} == set(POOL_SCENARIOS)
    total = run_many(600, 7, "", 1, lambda total: None, POOL_ROUND)
    assert total.requests >= 600 and not total.violations
    for outcome in ("ended", "StreamClosed", "DeadlineExceeded", "PoolTimeout (unprocessed)", "ReadError"):
        assert total.outcomes[outcome], f"no request ended as {outcome}"


def test_every_mistake_is_made_and_changes_nothing() -> None:
    world = PoolWorld(draw_pool_script("pool_calm", 2))
    while world.ops and not (world.running and world.waiting):
        world.perform(world.ops.popleft())
    for name in MISTAKES:
        world.err(name)
    assert not world.run().law


@pytest.mark.parametrize("mutation", POOL_MUTATIONS, ids=[mutation.name for mutation in POOL_MUTATIONS])
def test_a_mutation_still_finds_its_text(mutation: Mutation) -> None:
    assert (PACKAGE / "core" / mutation.module).read_text().count(mutation.old) == 1
    assert mutation.new != mutation.old


@pytest.mark.slow
def test_some_mutations_are_caught_and_the_package_is_not() -> None:
    for name in (
        "a slot that is freed is offered to nobody",
        "what was processed is tried again",
        "the queue is a stack",
    ):
        (mutation,) = [each for each in POOL_MUTATIONS if each.name == name]
        assert run(mutation, 1, mutation.within, "--pool").law != "-"
    assert run(None, 1, 2000, "--pool").law == "-"


@pytest.mark.slow
def test_the_command_counts_and_replays() -> None:
    command = [sys.executable, "-m", "tests.world", "--pool", "--requests", "60", "--seed", "3"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[0] == "seed 3" and done.stdout.splitlines()[-1] == "violations: 0"
    again = [sys.executable, "-m", "tests.world", "--replay", "pool_calm:3:0-4"]
    replayed = subprocess.run(again, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert replayed.returncode == 0 and "submit 1 = " in replayed.stdout
