"""CPU time of clients per request, end to end on loopback, and against other clients, in one run.

    python -m benchmarks.clients [--scenario NAME ...] [--peers NAME ...] [--repeat N] [--smoke]

Each client runs in a process of its own (`peers`), each peer in a virtual environment of its own under build/peers, which
is made when it is missing, of the Python that runs this. Servers have one processor and clients another, where there are
two. The clients take turns, so that a slower machine for a while is the same for all, and a ratio is the median of the
turns. What is measured is the CPU time of the client's process, user and system, without imports and connecting.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.peers import Job
from tests import servers

ROOT = Path(__file__).parent.parent
VENVS = ROOT / "build" / "peers"
PEERS = {"pycurl": "pycurl", "wreq": "wreq", "aiohttp": "aiohttp", "httpx2": "httpx2[http2]", "httpx": "httpx[http2]"}
OURS = "calamint"
FLOOR = "bare"  # no client, but the standard library: see `peers.run_bare`
SLOW = ("httpx", "httpx2")  # who take a tenth of the requests
GIB = 1024 * 1024 * 1024
UNIQUE = b"unique\n"


@dataclass(frozen=True)
class Target:
    """What `client` is to stay below: `ratio` times what the client `of` takes, the best of the peers if it is empty."""

    client: str
    ratio: float
    of: str = ""


@dataclass(frozen=True)
class Scenario:
    """`count` requests a turn, `parallel` at once, over TLS or not."""

    words: str
    server: str
    url: str
    path: str
    size: int
    h2: bool
    parallel: int
    count: int
    clients: tuple[str, ...]
    targets: tuple[Target, ...]
    streamed: bool = False


MULTIPLEXED = ("calamint-async", "pycurl", "wreq-async", "httpx2-async", "httpx-async")
BEST = (Target("calamint-async", 0.9),)
DOWNLOADERS = ("calamint", "calamint-async", FLOOR, "pycurl", "wreq", "wreq-async", "httpx2", "httpx")
NO_SLOWER = (Target("calamint", 1.15, "pycurl"), Target("calamint-async", 1.15, "pycurl"))
SCENARIOS = {
    "h2-nghttpd": Scenario(
        "HTTP/2 over TLS, 100 at once, GET of 5 bytes, nghttpd",
        *("nghttpd", "https", "/small", len(servers.SMALL), True, 100, 10_000, MULTIPLEXED, BEST),
    ),
    "h2-nginx": Scenario(
        "HTTP/2 over TLS, 100 at once, GET of 5 bytes, nginx",
        *("nginx", "https", "/small", len(servers.SMALL), True, 100, 10_000, MULTIPLEXED, BEST),
    ),
    "h2-unique": Scenario(
        "HTTP/2 over TLS, 100 at once, three fields that differ in every response, nginx",
        *("nginx", "https", "/unique", len(UNIQUE), True, 100, 10_000, MULTIPLEXED),
        (Target("calamint-async", 1.5),),
    ),
    "h1-sequential": Scenario(
        "HTTP/1.1, one after the other, GET of 5 bytes, nginx",
        *("nginx", "http1", "/small", len(servers.SMALL), False, 0, 5_000),
        ("calamint", "pycurl", "wreq", "httpx2", "httpx"),
        (Target("calamint", 0.85, "pycurl"),),
    ),
    "h1-50": Scenario(
        "HTTP/1.1, 50 connections, GET of 5 bytes, nginx",
        *("nginx", "http1", "/small", len(servers.SMALL), False, 50, 10_000),
        ("calamint-async", "pycurl", "wreq-async", "aiohttp-async", "httpx2-async", "httpx-async"),
        (Target("calamint-async", 0.9, "wreq-async"),),
    ),
    "h1-gib": Scenario(
        *("HTTP/1.1, 1 GiB, nginx", "nginx", "http1", "/gib", GIB, False, 0, 1, DOWNLOADERS, NO_SLOWER, True)
    ),
    "h2-gib": Scenario(
        *("HTTP/2 over TLS, 1 GiB, nginx", "nginx", "https", "/gib", GIB, True, 0, 1, DOWNLOADERS, NO_SLOWER, True)
    ),
}


def peer_of(client: str) -> str:
    """The package that a client is of."""
    return client.removesuffix("-async")


def interpreter(peer: str) -> Path:
    """The Python of a peer's virtual environment, which is made if need be. Raises CalledProcessError."""
    if peer in (OURS, FLOOR):
        return Path(sys.executable)
    python = VENVS / peer / "bin" / "python"
    if not (VENVS / peer / "made").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(VENVS / peer)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", PEERS[peer]], check=True)
        (VENVS / peer / "made").touch()
    return python


class Runner:
    """A client in its process."""

    def __init__(self, stack: ExitStack, job: Job) -> None:
        self.job = job
        script = str(Path(__file__).with_name("peers.py"))
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src") if peer_of(job.client) == OURS else ""}
        self.process = subprocess.Popen(
            [str(interpreter(peer_of(job.client))), script, json.dumps(asdict(job))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        stack.enter_context(self.process)
        stack.callback(self.process.kill)

    def turn(self, count: int) -> float:
        """CPU seconds per request of so many requests."""
        count = max(1, count // 10) if peer_of(self.job.client) in SLOW else count
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{count}\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise AssertionError(f"{self.job.client} ended with {self.process.wait()}")
        return float(answer) / count


@contextmanager
def running_servers() -> Iterator[dict[str, servers.Server]]:
    """nginx and nghttpd, with a file of 1 GiB beside those of the tests."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        root = Path(name)
        root.chmod(0o755)
        docroot = servers.write_docroot(root / "docroot")
        with (docroot / "gib").open("wb") as file:
            file.truncate(GIB)
        (docroot / "gib").chmod(0o644)
        ca = servers.PrivateCa(root)
        places = {name: root / name for name in ("node", "nginx", "nghttpd")}
        for place in places.values():
            place.mkdir()
        node = stack.enter_context(servers.node(places["node"], docroot, ca))
        yield {
            "nginx": stack.enter_context(servers.nginx(places["nginx"], docroot, ca, node)),
            "nghttpd": stack.enter_context(servers.nghttpd(places["nghttpd"], docroot, ca)),
        }


def measure(
    scenario: Scenario, server: servers.Server, peers: Sequence[str], repeat: int, count: int, core: int
) -> dict[str, list[float]]:
    """CPU seconds per request of each client, turn by turn."""
    clients = [client for client in scenario.clients if peer_of(client) in (OURS, FLOOR, *peers)]
    url, ca_file = server.urls[scenario.url] + scenario.path, str(server.ca_file)
    with ExitStack() as stack:
        runners: dict[str, Runner] = {}
        for client in clients:
            job = Job(client, url, scenario.h2, ca_file, scenario.parallel, scenario.size, scenario.streamed, core)
            runners[client] = Runner(stack, job)
        samples: dict[str, list[float]] = {client: [] for client in clients}
        for runner in runners.values():
            runner.turn(min(count, 10 * max(2, scenario.parallel)))
        for _ in range(repeat):
            for client, runner in runners.items():
                samples[client].append(runner.turn(count))
    return samples


def ratio(samples: dict[str, list[float]], client: str, other: str) -> float:
    """The median over the turns."""
    return statistics.median([ours / theirs for ours, theirs in zip(samples[client], samples[other], strict=True)])


def best_peer(samples: dict[str, list[float]]) -> str:
    """The one that takes least, empty where there are none."""
    peers = [client for client in samples if peer_of(client) not in (OURS, FLOOR)]
    return min(peers, key=lambda client: statistics.median(samples[client]), default="")


def table(scenario: Scenario, samples: dict[str, list[float]], count: int) -> str:
    """Microseconds per request, what each of ours takes as a multiple of that, and what came of the targets."""
    best = best_peer(samples)
    ours = [client for client in samples if peer_of(client) == OURS]
    turns = len(samples[ours[0]])
    lines = [f"{scenario.words}: {count} requests a turn, {turns} turns, load {os.getloadavg()[0]:.1f}"]
    lines.append(f"  {'client':<16}{'median us':>12}" + "".join([f"{client + ' / it':>22}" for client in ours]))
    for client, values in samples.items():
        shown = "".join([f"{ratio(samples, each, client):>22.3f}" for each in ours])
        lines.append(f"  {client:<16}{statistics.median(values) * 1e6:>12.1f}{shown}")
    for target in scenario.targets:
        other = target.of or best
        if target.client in samples and other in samples:
            reached = ratio(samples, target.client, other)
            verdict = "reached" if reached <= target.ratio else "missed"
            lines.append(f"  {target.client} / {other}: {reached:.2f}, at most {target.ratio:.2f} wanted: {verdict}")
    return "\n".join(lines) + "\n"


def place_servers() -> int:
    """Keeps this process, and so the servers that it starts, on one processor; says which is left for clients, -1 for any."""
    if not hasattr(os, "sched_setaffinity"):
        return -1
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        return -1
    os.sched_setaffinity(0, {cores[0]})
    return cores[1]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures the scenarios that are asked for and prints a table for each."""
    parser = argparse.ArgumentParser(description="CPU time of clients per request, in turns.")
    parser.add_argument("--scenario", action="append", choices=SCENARIOS, help="default: all; may be given again")
    parser.add_argument("--peers", nargs="*", default=list(PEERS), choices=PEERS, help="default: all")
    parser.add_argument("--repeat", type=int, default=9, help="turns of each client (default: %(default)s)")
    parser.add_argument("--smoke", action="store_true", help="a short run of calamint alone, without the large files")
    options = parser.parse_args(arguments)
    peers = [] if options.smoke else options.peers
    core = place_servers()
    sys.stdout.write(
        f"Python {platform.python_version()} for all, {os.cpu_count()} processors, load {os.getloadavg()}\n"
    )
    for peer in peers:
        interpreter(peer)
    with running_servers() as found:
        for name in options.scenario or SCENARIOS:
            scenario = SCENARIOS[name]
            if options.smoke and scenario.streamed:
                continue
            count = max(1, scenario.count // 50) if options.smoke else scenario.count
            samples = measure(
                scenario, found[scenario.server], peers, 1 if options.smoke else options.repeat, count, core
            )
            sys.stdout.write(table(scenario, samples, count))
            sys.stdout.flush()


if __name__ == "__main__":
    main()
