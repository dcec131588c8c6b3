"""python -m tests.soak: both pools under random faults; see CONTRIBUTING.md, "The soak"."""

import argparse
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import SystemRandom
from typing import IO, Any, Final

from tests.servers.site import PrivateCa
from tests.soak.judge import SHORTEST, Measure, Sample, Trend, trend
from tests.soak.plans import CONNECTIONS, DOMAIN, OUTCOMES
from tests.soak.plot import draw

CALLERS: Final = {"threads": 24, "asyncio": 48}
PATIENCE: Final = 150.0  # seconds that a client may take to come to rest
MEASURES: Final = (
    Measure("memory", "memory", "MiB", 2**-20, 8.0, 16.0),
    Measure("descriptors", "descriptors", "", 1.0, 4.0, 2.0 * CONNECTIONS),
    Measure("threads", "threads", "", 1.0, 2.0, 12.0),
    Measure("tasks", "tasks", "", 1.0, 4.0, 32.0),
)
"""What has to be flat, and within which bounds: see CONTRIBUTING.md, which argues them."""

Message = dict[str, Any]  # JSON


@dataclass
class Client:
    """A client process, and what it has said."""

    driver: str
    process: "subprocess.Popen[str]"
    samples: list[Sample] = field(default_factory=list)
    rests: bool = False
    ended: bool = False
    found: Message = field(default_factory=dict)
    pools: list[str] = field(default_factory=list)

    def tell(self, words: str) -> None:
        """A line on its standard input, if it still listens."""
        tell(self.process, words)


def tell(process: "subprocess.Popen[str]", words: str) -> None:
    assert process.stdin is not None
    try:
        process.stdin.write(words + "\n")
        process.stdin.flush()
    except BrokenPipeError:
        pass  # it is gone, and its end is noticed elsewhere


def start(stack: ExitStack, module: str, *arguments: str) -> "subprocess.Popen[str]":
    """A process of the soak, out of the reach of the terminal's Ctrl-C, which is for us to pass on; killed at the end."""
    command = [sys.executable, "-m", f"tests.soak.{module}", *arguments]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "MALLOC_ARENA_MAX": "2"},  # or glibc has heaps for every few threads, which fill one by one
    )
    stack.enter_context(process)
    stack.callback(process.kill)
    return process


def listen(name: str, output: IO[str] | None, said: "queue.SimpleQueue[tuple[str, Message]]") -> None:
    """Every line of a process, and that there are no more."""
    assert output is not None
    for line in output:
        said.put((name, json.loads(line)))
    said.put((name, {"gone": True}))


class Soak:
    """One run: a server, a client for each driver, and what they say."""

    def __init__(self, options: argparse.Namespace, show: Callable[[float, str], None]) -> None:
        self.options = options
        self.seconds = options.minutes * 60.0
        self.show = show
        self.said: queue.SimpleQueue[tuple[str, Message]] = queue.SimpleQueue()
        self.clients: dict[str, Client] = {}
        self.server: subprocess.Popen[str] | None = None
        self.seen: Message = {}  # by the server
        self.interrupted = False
        self.problems: list[str] = []

    def run(self) -> None:
        """All of it. A KeyboardInterrupt ends it early, with its report; a second one at once."""
        with ExitStack() as stack:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soak-")))
            ca = make_certificates(directory)
            files = ("--certificate", str(ca.cert_file), "--key", str(ca.key_file))
            self.server = start(stack, "server", "--seed", str(self.options.seed), *files)
            assert self.server.stdout is not None
            ports = json.loads(self.server.stdout.readline())
            self.listen("server", self.server)
            for driver in ("threads", "asyncio") if self.options.driver == "both" else (self.options.driver,):
                self.clients[driver] = Client(driver, self.start_client(stack, driver, ports, ca))
                self.listen(driver, self.clients[driver].process)
            try:
                self.follow()
            except KeyboardInterrupt:
                self.interrupted = True
                for client in self.clients.values():
                    client.tell("stop")
                self.follow()
            assert self.server.stdin is not None
            self.server.stdin.close()
            while "gone" not in self.seen:
                self.hear(PATIENCE)

    def start_client(
        self, stack: ExitStack, driver: str, ports: dict[str, int], ca: PrivateCa
    ) -> "subprocess.Popen[str]":
        options = self.options
        rate = options.rate / (2 if options.driver == "both" else 1)
        return start(
            stack, "client", "--driver", driver, "--ports", json.dumps(ports), "--ca", str(ca.ca_file),
            "--seed", f"{options.seed} {driver}", "--callers", str(CALLERS[driver]), "--rate", str(rate),
            "--seconds", str(self.seconds),
        )  # fmt: skip

    def listen(self, name: str, process: "subprocess.Popen[str]") -> None:
        threading.Thread(target=listen, args=(name, process.stdout, self.said), name=name, daemon=True).start()

    def follow(self) -> None:
        """Until every client has ended."""
        last = time.monotonic() + PATIENCE + (0.0 if self.interrupted else self.seconds)
        while not all([client.ended for client in self.clients.values()]):
            if time.monotonic() > last:
                stuck = [name for name, client in self.clients.items() if not client.ended]
                self.problems.append(f"did not come to its end: {', '.join(stuck)}")
                return
            self.hear(1.0)
            self.show(*self.progress())

    def hear(self, seconds: float) -> None:
        """The next message."""
        try:
            name, message = self.said.get(timeout=seconds)
        except queue.Empty:
            return
        if name == "server":
            self.seen |= message
            if "kind" in message:
                for client in self.clients.values():
                    client.tell("rest")
            return
        client = self.clients[name]
        if "sample" in message:
            client.samples.append(message["sample"])
        elif "pools" in message:
            client.pools = message["pools"]
        elif "end" in message:
            client.found = message["end"]
            client.ended = True
        elif "gone" in message and not client.ended:
            client.ended = client.rests = True
            self.problems.append(f"{name}: the client process ended with code {client.process.wait()}")
        client.rests = client.rests or "resting" in message
        if self.server is not None and all([each.rests for each in self.clients.values()]) and "asked" not in self.seen:
            self.seen["asked"] = True
            tell(self.server, "kind")

    def progress(self) -> tuple[float, str]:
        """How far it is, and the latest numbers in words."""
        words = []
        for name, client in self.clients.items():
            if client.samples:
                last = client.samples[-1]
                done = sum([last[outcome] for outcome in OUTCOMES])
                words.append(f"{name} {done:,.0f} requests, {last['memory'] / 2**20:.1f} MiB")
        times = [client.samples[-1]["time"] for client in self.clients.values() if client.samples]
        return min(times, default=0.0), "; ".join(words)

    def trends(self) -> dict[str, list[Trend]]:
        """What is judged; nothing where the run was too short for that."""
        judged: dict[str, list[Trend]] = {}
        for name, client in self.clients.items():
            if client.samples and client.samples[-1]["time"] >= SHORTEST:
                judged[name] = [trend(client.samples, it) for it in MEASURES if it.key != "tasks" or name == "asyncio"]
        return judged

    def complaints(self) -> list[str]:
        """All that is wrong."""
        found = [*self.problems, *[f"the server: {crime}" for crime in self.seen.get("crimes", ())]]
        for name, client in self.clients.items():
            found += [f"{name}: {words}" for words in client.found.get("violations", ())]
            if more := client.found.get("more"):
                found.append(f"{name}: {more} more of that kind")
        for name, trends in self.trends().items():
            found += [f"{name}: {words}" for each in trends if (words := each.complaint())]
        return found


def make_certificates(directory: Path) -> PrivateCa:
    """For every name of the server's domain."""
    ca = PrivateCa(directory)
    certificate = ca.authority.issue_cert(f"*{DOMAIN}")
    certificate.private_key_pem.write_to_path(str(ca.key_file))
    ca.cert_file.write_bytes(b"".join([blob.bytes() for blob in certificate.cert_chain_pems]))
    return ca


def progress(seconds: float) -> tuple[Callable[[float, str], None], Callable[[], None]]:
    """A bar where there is a terminal, a line at once and every half a minute elsewhere; and what ends it."""
    if sys.stdout.isatty():
        try:
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
        except ImportError:
            pass
        else:
            bar = Progress(BarColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
            task = bar.add_task("", total=seconds)
            bar.start()
            return lambda done, words: bar.update(task, completed=done, description=words), bar.stop
    due = 0.0

    def show(done: float, words: str) -> None:
        nonlocal due
        if words and time.monotonic() >= due:
            due = time.monotonic() + 30.0
            say(f"{done:.0f} of {seconds:.0f} s: {words}")

    return show, lambda: None


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def report(soak: Soak, complaints: list[str]) -> None:
    """What was done, what was measured, and what is wrong."""
    for name, client in soak.clients.items():
        totals = client.found.get("totals", {})
        counts = ", ".join([f"{count:,} {outcome}" for outcome, count in totals.items()])
        say(f"{name}: {sum(totals.values()):,} requests: {counts}")
        failures = ", ".join([f"{kind} {count:,}" for kind, count in client.found.get("failures", {}).items()])
        say(f"    errors: {failures}; calls dropped unclosed: {client.found.get('dropped', 0):,}")
        for pool in client.pools:
            say(f"    {pool}")
        for each in soak.trends().get(name, ()):
            say(f"    {each.describe()}")
        if client.samples:
            say(f"    the sampler was late by {max([it['lag'] for it in client.samples]):.3f} s at most")
    counts = soak.seen.get("counts", {})
    say(f"server: {', '.join([f'{name} {count:,}' for name, count in sorted(counts.items())])}")
    if not soak.trends():
        say(f"nothing was judged but the end: less than {SHORTEST:.0f} s of samples")
    for words in complaints:
        say(f"NOT WELL: {words}")
    verdict = f"FAILED, {len(complaints)} complaints" if complaints else "all is at rest, and flat"
    say(f"soak: {verdict}{' (interrupted)' if soak.interrupted else ''}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument(
        "--minutes", type=float, default=2.0, help="how long; what comes to rest then takes a little more"
    )
    parser.add_argument("--driver", choices=("threads", "asyncio", "both"), default="both")
    parser.add_argument("--seed", type=int, help="of everything; drawn and printed where it is not given")
    parser.add_argument("--rate", type=float, default=160.0, help="requests a second, of all drivers together")
    parser.add_argument("--svg", metavar="FILE", help="a picture of the run")
    parser.add_argument("--json", metavar="FILE", help="all samples")
    options = parser.parse_args()
    if options.seed is None:
        options.seed = SystemRandom().getrandbits(32)
    say(f"seed {options.seed}")
    show, stop = progress(options.minutes * 60.0)
    soak = Soak(options, show)
    try:
        soak.run()
    finally:
        stop()
    complaints = soak.complaints()
    report(soak, complaints)
    runs = {name: client.samples for name, client in soak.clients.items() if len(client.samples) > 2}
    if options.json:
        Path(options.json).write_text(json.dumps(runs), encoding="utf-8")
    if options.svg and runs:
        total = sum([sum(client.found.get("totals", {}).values()) for client in soak.clients.values()])
        sub = f"{total:,} requests against a server that misbehaves at random; seed {options.seed}"
        python = f"Python {sys.version_info[0]}.{sys.version_info[1]}, {os.uname().sysname if hasattr(os, 'uname') else os.name}"
        words = "flat, and at rest in the end" if not complaints else "NOT WELL"
        picture = draw(runs, soak.trends(), f"A soak of {options.minutes:g} minutes: {words}", f"{sub}; {python}")
        Path(options.svg).write_text(picture, encoding="utf-8")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
