"""Addresses at which nobody is: silent, unreachable, and behind a route that swallows everything.

They are those of a network namespace, which lives as long as one process does: nothing of this host's network is touched.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.net.dead_addresses import CONNECT, SILENT

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
SETUP = """
ip link set lo up
ip link add v0 type veth peer name v1
ip link set v0 arp off
ip addr add 192.0.2.1/24 dev v0
ip addr add 2001:db8::1/64 dev v0 nodad
ip addr add fe80::1/64 dev v0 nodad
ip link set v0 up
ip link set v1 up
ip route add unreachable 203.0.113.0/24
ip route add blackhole 198.51.100.0/24
"""
MARGIN = 1.0  # seconds that a busy machine may take for what takes no time


def inside(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Runs a command in a namespace of its own, with this host's interpreter and files."""
    script = f'set -e\n{SETUP}exec "$@"\n'
    words = ["unshare", "--net", "sh", "-c", script, "sh", *arguments]
    return subprocess.run(words, capture_output=True, timeout=60, cwd=ROOT)


def links() -> str:
    """The network of this host, as far as it has names."""
    shown = [subprocess.run(["ip", *words], capture_output=True) for words in (["-o", "link"], ["route"], ["netns"])]
    return "\n".join([" ".join(done.stdout.decode().split()) for done in shown])


@pytest.fixture(scope="module")
def namespace() -> Iterator[None]:
    """Namespaces can be made; and after that this host's network is as it was."""
    for tool in ("unshare", "ip"):
        if shutil.which(tool) is None:
            pytest.skip(f"no network namespaces: {tool} is not installed")
    done = inside("true")
    if done.returncode:
        pytest.skip(f"no network namespaces here: {done.stderr.decode().strip()}")
    before = links()
    yield
    assert links() == before


Outcome = tuple[str, float]


@pytest.fixture(scope="module")
def found(namespace: None) -> dict[str, dict[str, Outcome]]:
    """What came of each dial, by each way to make one."""
    done = inside(sys.executable, "-W", "error", "-m", "tests.net.dead_addresses")
    assert (done.returncode, done.stderr) == (0, b""), done.stderr.decode()
    seen = json.loads(done.stdout)
    assert seen["authorities"] == ["[fe80::1", "one.test"]  # a zone is nobody else's business
    assert seen["left"] <= 0
    outcomes: dict[str, dict[str, Outcome]] = seen["outcomes"]
    return outcomes


WAYS = ["by_client", "by_async_client", "by_connection"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["silent", "silent6", "silent proxy"])
def test_silence_takes_the_limit_and_no_longer(found: dict[str, dict[str, Outcome]], way: str, kind: str) -> None:
    words, seconds = found[way][kind]
    assert words.startswith("ConnectTimeout: ") and "no answer" in words and "within the connect limit" in words
    assert CONNECT <= seconds < CONNECT + MARGIN
    if kind != "silent6":
        assert f"could not connect to {SILENT} port" in words


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("kind", "reason"), [("unreachable", "No route to host"), ("blackhole", "Invalid argument")])
def test_what_the_system_knows_is_told_at_once(
    found: dict[str, dict[str, Outcome]], way: str, kind: str, reason: str
) -> None:
    words, seconds = found[way][kind]
    assert words.startswith("ConnectError: ") and words.endswith(reason)
    assert seconds < MARGIN


@pytest.mark.parametrize("way", WAYS)
def test_H2_dead_addresses_are_gone_around(found: dict[str, dict[str, Outcome]], way: str) -> None:
    """A quarter of a second for each that is silent, nothing for those that are known to be dead; for a proxy's as well."""
    for kind, stagger in (("around", 0.5), ("around at once", 0.0), ("around to a proxy", 0.25)):
        words, seconds = found[way][kind]
        assert words == "ok"
        assert stagger <= seconds < stagger + MARGIN


@pytest.mark.parametrize("way", WAYS)
def test_H4_a_zone_says_which_link(found: dict[str, dict[str, Outcome]], way: str) -> None:
    """Of an origin, and of a proxy."""
    assert found[way]["zone"][0] == found[way]["zone of a proxy"][0] == "ok"


def test_the_command(namespace: None) -> None:
    for proxy in ((), ("-x", f"{SILENT}:3128")):
        done = inside(sys.executable, "-m", "calamint", "--connect-timeout", "0.3", *proxy, f"http://{SILENT}/")
        assert done.returncode == 28
        assert b"no answer (within the connect limit)" in done.stderr
