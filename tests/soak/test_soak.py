"""A few seconds of the soak, and how it judges and draws."""

import math
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.soak.judge import Measure, Sample, fit, trend
from tests.soak.plans import Plan, check
from tests.soak.plot import draw, rates, thin, ticks

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "tests.soak"]
LIMIT = 100.0


def test_some_seconds(tmp_path: Path) -> None:
    """Everything is given back; and the picture is one."""
    picture = tmp_path / "soak.svg"
    command = [*COMMAND, "--minutes", "0.05", "--svg", str(picture)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "soak: all is at rest, and flat"
    for driver in ("threads", "asyncio"):
        found = re.search(rf"^{driver}: ([\d,]+) requests: [1-9]", done.stdout, re.MULTILINE)
        assert found is not None and int(found[1].replace(",", "")) > 50
    assert "A soak of 0.05 minutes" in "".join(ElementTree.parse(picture).getroot().itertext())


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="there is no SIGINT to send here")
def test_an_interrupt_ends_it_in_order() -> None:
    before = signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a process begun in the background has it ignored
    try:
        interrupt()
    finally:
        signal.signal(signal.SIGINT, before)


def interrupt() -> None:
    command = [*COMMAND, "--minutes", "5", "--driver", "asyncio", "--seed", "7"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "seed 7\n"
        assert re.match(r"\d of 300 s: asyncio", process.stdout.readline())
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=LIMIT)
    assert (process.returncode, errors) == (0, "")
    assert out.splitlines()[-1] == "soak: all is at rest, and flat (interrupted)"


# What is flat


MEASURE = Measure("memory", "memory", "MiB", 2**-20, 4.0, 12.0)


def samples(*megabytes: float) -> list[Sample]:
    """One a minute."""
    return [{"time": 60.0 * minute, "memory": value * 2**20} for minute, value in enumerate(megabytes)]


def test_a_line_is_fitted() -> None:
    assert fit([(0, 1), (1, 3), (2, 5)]) == (1, 2)
    assert fit([(1, 4), (1, 6)]) == (5, 0)
    start, slope = fit([(0, 0), (1, 3), (2, 0)])
    assert (start, slope) == (1, 0)


def test_the_warm_up_is_not_judged() -> None:
    found = trend(samples(20, 50, 60, 60, 60, 60, 60), MEASURE)
    assert (found.begin, found.end, found.per_minute, found.spread) == (120, 360, 0, 0)
    assert found.complaint() == ""
    assert found.describe() == "memory: 60 → 60 MiB (+0 MiB a minute), within 0"


@pytest.mark.parametrize(("step", "complains"), [(0.99, False), (1.01, True), (-3.0, False)])
def test_what_rises_is_not_flat(step: float, complains: bool) -> None:
    """By 4 MiB in the four minutes that are judged; falling is no leak."""
    found = trend(samples(0, 0, *[60 + step * minute for minute in range(5)]), MEASURE)
    assert math.isclose(found.per_minute, step)
    assert bool(found.complaint()) == complains
    if complains:
        assert found.complaint() == "memory rises by 1.01 MiB a minute, 4.04 in all (allowed: 4)"


@pytest.mark.parametrize(("peak", "complains"), [(11.9, False), (12.1, True)])
def test_what_swings_is_not_flat(peak: float, complains: bool) -> None:
    found = trend(samples(0, 0, 60, 60, 60 + peak, 60, 60), MEASURE)
    words = f"memory varies by {peak:.3g} MiB (allowed: 12)"
    assert found.complaint() == (words if complains else "")


# The picture


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 50, [0, 10, 20, 30, 40, 50]),
        (42.2, 47.9, [42, 44, 46, 48]),
        (0, 0.3, [0, 0.1, 0.2, 0.3]),
        (0, 7, [0, 2, 4, 6, 8]),
    ],
)
def test_ticks_are_round_and_hold_everything(low: float, high: float, expected: list[float]) -> None:
    assert [round(it, 9) for it in ticks(low, high)] == expected


def test_many_samples_become_bands() -> None:
    """No spike is lost."""
    bands = thin([(second, 100.0 if second == 500 else 1.0) for second in range(1800)])
    assert len(bands) == 225
    assert max([high for _, _, _, high in bands]) == 100.0
    assert thin([(1.0, 2.0)]) == [(1.0, 2.0, 2.0, 2.0)]


def test_rates_are_of_what_is_counted() -> None:
    counted: list[Sample] = [{"time": 0, "failed": 0}, {"time": 1, "failed": 5}, {"time": 3, "failed": 9}]
    assert rates(counted, "failed") == [(1, 5), (3, 2)]


def test_a_picture_of_two_drivers() -> None:
    run: list[Sample] = [
        {
            "time": second,
            "memory": 50 * 2**20,
            "descriptors": 20,
            "threads": 3,
            "tasks": 50,
            "answered": 10 * second,
            "left": second,
            "timed out": second,
            "failed": 0,
        }
        for second in range(600)
    ]
    found = [trend(run, MEASURE)]
    text = draw({"threads": run, "asyncio": run}, {"threads": found, "asyncio": found}, "A <soak>", "& more")
    words = list(ElementTree.fromstring(text).itertext())
    for expected in (
        "A <soak>",
        "& more",
        "MiB",
        "descriptors",
        "a second",
        "answered",
        "timed out",
        "+0 MiB a minute",
    ):
        assert expected in words, expected
    assert any(["minutes since the start" in it for it in words])
    assert text.count("<polyline") == 2 + 2 + 3


# What a caller holds against a response


def test_a_response_of_somebody_else_is_noticed() -> None:
    plan = Plan(False, "GET", "http://soak/soak/12/3", "/soak/12/3", (), None, 0, False, None, "whole", 0.0)
    assert check(plan, 200, "/soak/12/3", b"\x0c\x0c\x0c") == ""
    assert check(plan, 413, "/soak/12/3", b"") == ""
    assert check(plan, 200, "/unasked", b"never") == ""
    assert "was answered with /soak/13/3" in check(plan, 200, "/soak/13/3", b"\x0d\x0d\x0d")
    assert "nothing that says a target" in check(plan, 200, "", b"")
    assert "200 with 2 bytes, not the 3" in check(plan, 200, "/soak/12/3", b"\x0c\x0c")
    assert "200 with 3 bytes, not the 3" in check(plan, 200, "/soak/12/3", b"\x0c\x0c\x0d")
