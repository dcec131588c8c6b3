"""The world itself: every scenario a few times, the kept seeds, and that it is what it claims: deterministic, and not blind."""

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.world.report import decode_keep, describe, encode_keep, minimise, run_many, run_world, worlds
from tests.world.sabotage import MUTATIONS, PACKAGE, Mutation, mutate, run
from tests.world.script import SCENARIOS, draw_script
from tests.world.seeds import SEEDS

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_no_law_is_broken(scenario: str) -> None:
    for seed in (1, 2):
        result = run_world(scenario, seed)
        assert not result.law, f"{result.law}: {result.text}; python -m tests.world --replay {scenario}:{seed}"
        assert result.requests > 0 and sum(result.outcomes.values()) >= result.requests


@pytest.mark.parametrize(("scenario", "seed", "story"), SEEDS, ids=[f"{name}-{seed}" for name, seed, _ in SEEDS])
def test_a_past_finding_stays_mended(scenario: str, seed: int, story: str) -> None:
    result = run_world(scenario, seed)
    assert not result.law, f"again: {story}: {result.law}: {result.text}"


def test_a_world_is_a_function_of_its_seed() -> None:
    for scenario, seed in (("mixed", 3), ("http1_link", 5), ("whole", 8)):
        first = run_world(scenario, seed, tracing=True)
        run_world("storm", 1)
        assert run_world(scenario, seed, tracing=True) == first
        assert run_world(scenario, seed + 1) != first


def test_a_whole_run_is_a_function_of_its_seed() -> None:
    source, again = worlds(7), worlds(7)
    assert [next(source) for _ in range(40)] == [next(again) for _ in range(40)]
    assert {name for name, _ in [next(source) for _ in range(60)]} == set(SCENARIOS)
    total = run_many(200, 7, "http1", 2, lambda total: None)
    assert total.requests >= 200 and not total.violations


def test_leaving_operations_out_changes_nothing_in_the_others() -> None:
    ops = draw_script("mixed", 4).ops
    keep = frozenset(range(0, len(ops), 2))
    assert decode_keep(encode_keep(keep)) == keep
    assert (
        decode_keep(encode_keep(frozenset({3, 4, 5, 9}))) == {3, 4, 5, 9}
        and encode_keep(frozenset({3, 4, 5, 9})) == "3-5,9"
    )
    assert not run_world("mixed", 4, keep).law


@pytest.mark.parametrize("mutation", MUTATIONS, ids=[mutation.name for mutation in MUTATIONS])
def test_a_mutation_still_finds_its_text(mutation: Mutation) -> None:
    assert (PACKAGE / "core" / mutation.module).read_text().count(mutation.old) == 1
    assert mutation.new != mutation.old


def test_a_mutation_without_its_text_is_an_error() -> None:
    nothing = Mutation("nothing", "flow.py", "this stands nowhere", "")
    with tempfile.TemporaryDirectory() as directory, pytest.raises(ValueError, match="0 times"):
        mutate(nothing, directory)


@pytest.mark.slow
def test_some_mutations_are_caught_and_the_package_is_not() -> None:
    for name in (
        "a cancelled stream is not reset",
        "a deadline does not arm the timer",
        "SETTINGS are not acknowledged",
    ):
        (mutation,) = [each for each in MUTATIONS if each.name == name]
        assert run(mutation, 1, mutation.within).law != "-"
    assert run(None, 1, 500).law == "-"


@pytest.mark.slow
def test_a_violation_is_minimised_and_replayed() -> None:
    (mutation,) = [each for each in MUTATIONS if each.name == "a cancelled stream stays live"]
    with tempfile.TemporaryDirectory() as directory:
        mutate(mutation, directory)
        code = "import sys, runpy; sys.path.insert(0, sys.argv.pop(1)); runpy.run_module('tests.world', run_name='__main__')"
        command = [sys.executable, "-c", code, directory, "--source", directory]
        told = subprocess.run(
            [*command, "--requests", "50", "--seed", "1"], cwd=ROOT, capture_output=True, text=True, timeout=100
        )
        assert told.returncode == 1, told.stderr
        assert "VIOLATION of the law of 'slots'" in told.stdout and "violations: 1" in told.stdout
        replay = told.stdout.strip().rsplit("--replay ", 1)[1]
        assert 1 <= told.stdout.count(" s  ") <= 6, "a handful of operations is enough"
        again = subprocess.run([*command, "--replay", replay], cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert again.returncode == 1 and "VIOLATION of the law of 'slots'" in again.stdout


def test_without_a_violation_the_smallest_script_is_whole() -> None:
    ops = draw_script("calm", 1).ops
    assert minimise("calm", 1, "slots") == frozenset(range(len(ops)))
    lines: list[str] = []
    result = run_world("calm", 1)
    result.law, result.text = "slots", "nothing, in truth"
    describe(result, lines.append)
    assert lines[0].startswith("VIOLATION") and lines[-1].endswith(f"--replay calm:1:0-{len(ops) - 1}")


def test_the_command_counts_and_exits_with_0() -> None:
    command = [sys.executable, "-m", "tests.world", "--requests", "60", "--seed", "3", "--scenario", "calm"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "seed 3" and "requests in 2 worlds" in lines[1] and lines[-1] == "violations: 0"
    assert any(line.startswith("outcomes: ended ") for line in lines)
    replayed = subprocess.run(
        [sys.executable, "-m", "tests.world", "--replay", "calm:3:0-4"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert replayed.returncode == 0 and "request 1 = " in replayed.stdout
