"""`calamint demo`: the numbers of both runs, what is shown, and the exit code."""

import importlib.util
import io
import re
import sys
from dataclasses import replace

import pytest
from rich.console import Console

from calamint.cli import demo
from calamint.cli.demo import PlainScreen, Plan, RichScreen, Run

# Of 24 requests the 8th, the 16th and the 24th are forgotten: the careless client is stuck when it has sent 16.
SMALL = Plan(requests=24, streams=2, patience=0.3, stuck=0.4)


def numbers(run: Run) -> tuple[int, ...]:
    never_sent = run.wanted - run.sent
    return run.wanted, run.answered, run.gave_up, never_sent, run.resets, run.leaked, run.connections


def test_both_runs_and_what_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.show(SMALL, PlainScreen()) == 0
    out = capsys.readouterr().out
    rows = {line[:32].strip(): line[32:].split() for line in out.splitlines()}
    assert rows["requests wanted"] == ["24", "24"]
    assert rows["answered"] == ["14", "21"]
    assert rows["given up after 0.3 s"] == ["2", "3"]
    assert rows["never sent for want of a slot"] == ["8", "0"]
    assert rows["RST_STREAM seen by the server"] == ["0", "3"]
    assert rows["slots leaked, of 2"] == ["2", "0"]
    assert rows["connections"] == ["1", "1"]
    assert "careless  [xx]" in out and "calamint  [##]" in out and "calamint  [..]" in out
    for words in (
        "2 of 2 slots taken",
        "no PING in flight",
        "GET /7: half-closed (local)",
        "waits for",
        "age",
        "silent",
    ):
        assert words in out
    assert "calamint leaked no slot" in out and "\x1b" not in out


@pytest.mark.slow
def test_over_tls() -> None:
    pytest.importorskip("trustme")
    seen: list[tuple[int, int, int]] = []
    careless, careful = demo.play(replace(SMALL, tls=True), lambda run: seen.append(run.bar()))
    assert numbers(careless) == (24, 14, 2, 8, 0, 2, 1)
    assert numbers(careful) == (24, 21, 3, 0, 3, 0, 1)
    assert (0, 2, 0) in seen and all([sum(bar) == 2 for bar in seen])
    assert careless.snapshot is not None and len(careless.snapshot.requests) == 2
    assert careful.snapshot is not None and careful.snapshot.requests == ()


def test_a_run_that_does_not_finish_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.show(replace(SMALL, limit=0.1), PlainScreen()) == 1
    assert "calamint leaked 0 slots and sent" in capsys.readouterr().out


def test_a_leak_is_a_failure(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run("calamint", 24, 2, 0.0, sent=24, leaked=1)
    monkeypatch.setattr(demo, "play", lambda plan, watch: (run, run))
    assert demo.show(SMALL, PlainScreen()) == 1
    assert "calamint leaked 1 slots" in capsys.readouterr().out


@pytest.mark.parametrize("colours", [True, False])
def test_live_bars(colours: bool) -> None:
    file = io.StringIO()
    console = Console(
        file=file, force_terminal=True, width=110, color_system="standard", no_color=not colours, _environ={}
    )
    screen = RichScreen(console)
    run = Run("careless", 400, 20, 0.0, seconds=1.5, sent=100, answered=90, gave_up=4, waiting={1: 2.0}, taken=5)
    screen.watch(run)
    run.taken = 20
    run.over = True
    screen.watch(run)
    screen.close()
    screen.show_table([("answered", "1", "2"), ("slots leaked, of 20", "20", "0")])
    screen.say("[bold]done", "bold red")
    out = file.getvalue()
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out)
    cells = screen.cells
    assert f"{cells[0]}{cells[1] * 4}{cells[2] * 15}  " in plain
    assert f"{cells[0]}{cells[1] * 19}  " in plain and "[bold]done" in plain
    assert ("\x1b[32m" in out, "31m" in out) == (colours, colours)


def test_a_snapshot_of_many_requests_is_cut() -> None:
    careless, _ = demo.play(Plan(requests=8, streams=8, forgets=1, patience=0.1, stuck=0.1), lambda run: None)
    assert careless.snapshot is not None
    lines = demo.describe(careless.snapshot)
    assert len(lines) == 7 and lines[-1] == "  … and 3 more like these"


def test_the_command_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert demo.parse([]) == Plan()
    assert demo.parse(["--tls", "--requests", "8", "--streams", "3"]) == Plan(8, 3, tls=True)
    with pytest.raises(SystemExit, match="0"):
        demo.run(["--help"])
    assert "usage: calamint demo" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        demo.run(["--streams", "0"])
    assert "--streams" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "trustme", None)
    assert importlib.util.find_spec("trustme") is None
    assert demo.run(["--tls"]) == 2
    assert "pip install 'calamint[tls-demo]'" in capsys.readouterr().err


def test_through_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.run(["--requests", "3", "--streams", "2"]) == 0
    assert "2 streams at once" in capsys.readouterr().out


def test_output_that_cannot_be_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", out)
    PlainScreen().say("… and 3 more")
    out.seek(0)
    assert out.read() == "? and 3 more\n"
