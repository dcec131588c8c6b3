"""The examples run as they stand."""

import subprocess
import sys
from pathlib import Path

import pytest

from calamint.testing import ScriptedPeer, answer, reset
from tests import servers

EXAMPLES = Path(__file__).parents[2] / "examples"
LIMIT = 60.0


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", str(EXAMPLES / "selector_loop.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)


@pytest.mark.server
@pytest.mark.parametrize("key", ["http1", "h2c"])
def test_fifty_connections(nginx: servers.Server, key: str) -> None:
    """Each gets the whole of its file, in one thread."""
    urls = [f"{nginx.urls[key]}/{name}" for name in ("small", "medium?x=1", "absent")]
    done = run("--connections", "50", *(["--http2"] if key == "h2c" else []), *urls)
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.split() for line in done.stdout.splitlines()]
    assert len(lines) == 50
    for number, (status, size) in enumerate(lines):
        if number % 3 == 2:
            assert status == "404"
        else:
            assert (status, int(size)) == ("200", servers.MEDIUM_SIZE if number % 3 else len(servers.SMALL))


def test_a_failure_is_said() -> None:
    with ScriptedPeer([answer(content=b"four"), reset(2), answer(content=b"four")]) as peer:
        done = run("--connections", "3", "--http2", peer.url)
    assert (done.returncode, done.stderr) == (1, "")
    lines = sorted(done.stdout.splitlines())
    assert lines[:2] == ["200 4", "200 4"]
    assert "INTERNAL_ERROR" in lines[2]
