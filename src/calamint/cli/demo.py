"""`calamint demo`: how an HTTP/2 connection loses its slots, and how it does not.

A scripted peer on loopback allows 20 streams at once and forgets one request in eight. The same client runs twice, request
for request. First careless: it gives up after half a second and tells nobody, as in Mint #450, until every slot is taken.
Then with calamint's deadline, which is one argument: the request that is given up is reset, and its slot is free.
"""

import argparse
import importlib.util
import socket
import ssl
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol, final

from calamint.core import http2
from calamint.core.events import RequestFailed, ResponseEnded
from calamint.core.exchange import Clocks, Settings
from calamint.core.snapshot import Snapshot
from calamint.core.url import Origin
from calamint.core.value import INFINITY
from calamint.testing import Action, Request, ScriptedPeer, answer, delay, forget

if TYPE_CHECKING:
    from rich.console import Console

NO_CLOCKS: Final = Clocks(None, None, None, None)
REFRESH: Final = 0.05  # seconds between two pictures
SHOWN_REQUESTS: Final = 5  # of a snapshot

CARELESS: Final = "careless"
CAREFUL: Final = "calamint"


@final
@dataclass(frozen=True, slots=True)
class Plan:
    """What is done. The times are in seconds."""

    requests: int = 400
    streams: int = 20
    forgets: int = 8  # one request in so many
    patience: float = 0.5  # then a caller gives up
    stuck: float = 1.5  # without a free slot, then the whole client does
    limit: float = 6.5  # of one run, whatever happens
    tls: bool = False

    def script(self, request: Request) -> Action:
        """What the server does depends on the request's number alone, so that both runs meet the same server."""
        number = int(request.target.removeprefix("/"))
        if number % self.forgets == self.forgets - 1:
            return forget()
        return delay(self.patience * (8 + 2 * (number % 7)) / 100, answer())


@final
@dataclass(slots=True)
class Run:
    """One client's run, while it lasts and after it."""

    name: str
    wanted: int
    slots: int
    began: float
    seconds: float = 0.0
    sent: int = 0
    answered: int = 0
    gave_up: int = 0
    waiting: dict[int, float] = field(default_factory=dict)  # request → when its caller gives up
    taken: int = 0  # slots
    bytes_out: int = 0
    snapshot: Snapshot | None = None
    over: bool = False
    # What the server says about it:
    resets: int = 0
    leaked: int = 0
    connections: int = 0

    def bar(self) -> tuple[int, int, int]:
        """How many slots are taken for a caller that waits, taken for nobody, and free."""
        used = min(len(self.waiting), self.taken)
        return used, self.taken - used, max(0, self.slots - self.taken)

    def line(self) -> str:
        """The numbers so far."""
        return (
            f"{self.seconds:4.1f} s  sent {self.sent}/{self.wanted}, answered {self.answered}, gave up {self.gave_up}"
        )


Watch = Callable[[Run], None]


def drive(sock: socket.socket, origin: Origin, plan: Plan, run: Run, deadline: float, watch: Watch) -> None:
    """The client, the same in both runs but for `deadline`: how many seconds the connection gives a request, or INFINITY."""
    now = free_at = run.began
    settings = Settings(max_streams=plan.streams, first_streams=plan.streams)
    conn, data = http2.connect(origin, settings, now)
    while (run.sent < plan.requests or run.waiting) and now - free_at < plan.stuck and run.seconds < plan.limit:
        while run.sent < plan.requests and http2.capacity(conn) > 0:
            target = f"/{run.sent}"
            conn, more, ref = http2.request(
                conn, "GET", target, (), None, now, deadline=now + deadline, clocks=NO_CLOCKS
            )
            data += more
            run.sent += 1
            run.waiting[ref] = now + plan.patience

        run.bytes_out += len(data)
        sock.settimeout(plan.limit)
        sock.sendall(data)
        conn, data, events = http2.flush(conn, now)
        wake = min(http2.next_timeout(conn), now + REFRESH, *run.waiting.values())
        received = receive(sock, wake - now)

        now = time.monotonic()
        if received:
            conn, more, arrived = http2.receive(conn, received, now)
            data, events = data + more, events + arrived
        conn, more, overdue = http2.handle_timeout(conn, now)
        data += more
        for event in events + overdue:
            if isinstance(event, ResponseEnded) and run.waiting.pop(event.ref, 0.0):
                run.answered += 1
            elif isinstance(event, RequestFailed) and run.waiting.pop(event.ref, 0.0):
                run.gave_up += 1
        for ref in [ref for ref, until in run.waiting.items() if until <= now]:
            del run.waiting[ref]  # its caller walks away, and tells nobody
            run.gave_up += 1

        run.seconds = now - run.began
        run.taken = plan.streams - http2.capacity(conn)
        free_at = now if http2.capacity(conn) else free_at
        watch(run)
    run.bytes_out += len(data)
    sock.sendall(data)
    run.snapshot = http2.snapshot(conn, now)


def receive(sock: socket.socket, seconds: float) -> bytes:
    """What arrives within this time, or nothing."""
    sock.settimeout(max(0.001, seconds))
    try:
        data = sock.recv(65_536)
    except TimeoutError:
        return b""
    if not data:
        raise ConnectionResetError("the server closed the connection")
    return data


def run_client(
    name: str, deadline: float, peer: ScriptedPeer, client: ssl.SSLContext | None, plan: Plan, watch: Watch
) -> Run:
    """One run on a connection of its own, and what the server says about it while the connection is still open."""
    before = peer.report
    with ExitStack() as stack:
        sock = stack.enter_context(socket.create_connection((peer.host, peer.port), timeout=plan.limit))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if client is not None:
            sock = stack.enter_context(client.wrap_socket(sock, server_hostname="localhost"))
        run = Run(name, plan.requests, plan.streams, time.monotonic())
        origin = Origin("http" if client is None else "https", "localhost", peer.port)
        drive(sock, origin, plan, run, deadline, watch)
        run.over = True
        watch(run)
        report = peer.wait_for(lambda report: report.bytes_in >= before.bytes_in + run.bytes_out)
    run.resets = len(report.resets) - len(before.resets)
    run.leaked = max(0, report.streams_open - len(run.waiting))
    run.connections = report.connections - before.connections
    peer.wait_for(lambda report: report.connections_open == 0)
    return run


def play(plan: Plan, watch: Watch) -> tuple[Run, Run]:
    """Both runs, one after the other, on the same server."""
    server, client = make_tls() if plan.tls else (None, None)
    with ScriptedPeer(plan.script, max_streams=plan.streams, tls=server) as peer:
        careless = run_client(CARELESS, INFINITY, peer, client, plan, watch)
        careful = run_client(CAREFUL, plan.patience, peer, client, plan, watch)
    return careless, careful


def make_tls() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's context with a certificate for localhost, and a client's that trusts it. Needs trustme."""
    import trustme

    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(server)
    client = ssl.create_default_context()
    client.set_alpn_protocols(["h2"])
    authority.configure_trust(client)
    return server, client


def table(plan: Plan, careless: Run, careful: Run) -> list[tuple[str, str, str]]:
    """The two runs side by side."""
    runs = (careless, careful)
    rows: list[tuple[str, list[int]]] = [
        ("requests wanted", [run.wanted for run in runs]),
        ("answered", [run.answered for run in runs]),
        (f"given up after {plan.patience:g} s", [run.gave_up for run in runs]),
        ("never sent for want of a slot", [run.wanted - run.sent for run in runs]),
        ("RST_STREAM seen by the server", [run.resets for run in runs]),
        (f"slots leaked, of {plan.streams}", [run.leaked for run in runs]),
        ("connections", [run.connections for run in runs]),
    ]
    lines = [(label, str(left), str(right)) for label, (left, right) in rows]
    return [*lines, ("seconds", f"{careless.seconds:.1f}", f"{careful.seconds:.1f}")]


def describe(snapshot: Snapshot) -> list[str]:
    """A snapshot in words, of its requests the first few."""
    lines = snapshot.describe().splitlines()
    more = len(lines) - 1 - SHOWN_REQUESTS
    return lines if more <= 1 else [*lines[: 1 + SHOWN_REQUESTS], f"  … and {more} more like these"]


class Screen(Protocol):
    """Where it is shown."""

    def say(self, text: str, style: str = "") -> None:
        """A line."""

    def watch(self, run: Run) -> None:
        """The picture has changed."""

    def close(self) -> None:
        """The runs are over."""

    def show_table(self, rows: list[tuple[str, str, str]]) -> None:
        """The result."""


@final
class PlainScreen:
    """Lines of text: for files, pipes, and terminals without rich."""

    def __init__(self) -> None:
        self.next_line: dict[str, float] = {}

    def say(self, text: str, style: str = "") -> None:
        """A line."""
        encoding = sys.stdout.encoding or "utf-8"
        print(text.encode(encoding, "replace").decode(encoding), flush=True)

    def watch(self, run: Run) -> None:
        """A line twice a second, and one at the end."""
        if run.over or run.seconds >= self.next_line.get(run.name, 0.0):
            self.next_line[run.name] = run.seconds + 0.5
            used, lost, free = run.bar()
            self.say(f"{run.name:<9} [{'#' * used}{'x' * lost}{'.' * free}] {run.line()}")

    def close(self) -> None:
        """Nothing to tidy up."""

    def show_table(self, rows: list[tuple[str, str, str]]) -> None:
        """Three columns."""
        for label, left, right in [("", CARELESS, CAREFUL), *rows]:
            self.say(f"{label:<32}{left:>10}{right:>10}")


@final
class RichScreen:
    """Live bars and colours, on a terminal, with rich. It leaves colours out where NO_COLOR says so."""

    def __init__(self, console: "Console") -> None:
        from rich.live import Live

        self.console: Final = console
        self.cells: Final = "■×·" if console.encoding.startswith("utf") else "#x."
        self.live: Final = Live(console=console, auto_refresh=False)
        self.live.start()
        self.runs: dict[str, Run] = {}
        self.next_picture = 0.0

    def say(self, text: str, style: str = "") -> None:
        """A line."""
        self.console.print(text, style=style or None, markup=False, highlight=False, soft_wrap=True)

    def watch(self, run: Run) -> None:
        """A picture twenty times a second, and one at the end."""
        self.runs[run.name] = run
        now = run.began + run.seconds
        if run.over or now >= self.next_picture:
            self.next_picture = now + REFRESH
            self.draw()

    def draw(self) -> None:
        """A cell for each slot: taken, taken for nobody, free."""
        from rich.text import Text

        taken, nobody, free = self.cells
        picture = Text()
        for each in self.runs.values():
            bar = each.bar()
            picture.append(f"{each.name:<9} ")
            picture.append(taken * bar[0], "green").append(nobody * bar[1], "bold red").append(free * bar[2], "dim")
            picture.append(f"  {each.line()}\n")
        picture.append(taken, "green").append(" in use  ").append(nobody, "bold red").append(" taken for nobody  ")
        picture.append(free, "dim").append(" free")
        self.live.update(picture, refresh=True)

    def close(self) -> None:
        """The last picture stays."""
        self.live.stop()

    def show_table(self, rows: list[tuple[str, str, str]]) -> None:
        """Three columns."""
        from rich.table import Table

        shown = Table("", box=None)
        shown.add_column(CARELESS, justify="right")
        shown.add_column(CAREFUL, justify="right")
        for label, left, right in rows:
            bad = label.startswith(("slots", "never")) and (left != "0", right != "0")
            styles = ["bold red" if each else "bold green" for each in bad] if bad else ["", ""]
            shown.add_row(
                label,
                *[f"[{style}]{text}" if style else text for text, style in zip((left, right), styles, strict=True)],
            )
        self.console.print(shown)


def open_screen() -> Screen:
    """Live bars on a terminal with rich, else lines."""
    if sys.stdout.isatty():
        try:
            from rich.console import Console
        except ImportError:
            return PlainScreen()
        console = Console()
        if not console.is_dumb_terminal:
            return RichScreen(console)
    return PlainScreen()


def show(plan: Plan, screen: Screen) -> int:
    """The whole demonstration; 0 if the second run leaked nothing."""
    screen.say(f"A server on loopback: {plan.streams} streams at once, it forgets one request in {plan.forgets}.")
    screen.say(f"{plan.requests} requests, all on one connection; their callers give up after {plan.patience:g} s.")
    screen.say(
        f'"{CARELESS}" tells nobody; "{CAREFUL}" passes deadline=now + {plan.patience:g}. All else is the same.\n'
    )
    try:
        careless, careful = play(plan, screen.watch)
    finally:
        screen.close()
    screen.say("")
    screen.show_table(table(plan, careless, careful))
    if careless.snapshot is not None:
        screen.say("\nThe first connection when it was stuck, from its snapshot:", "bold")
        for line in describe(careless.snapshot):
            screen.say(line)
    if careful.leaked or careful.sent < careful.wanted:
        screen.say(
            f"\ncalamint leaked {careful.leaked} slots and sent {careful.sent} of {careful.wanted} requests.",
            "bold red",
        )
        return 1
    screen.say(
        "\ncalamint leaked no slot: each request that was given up was reset, and its slot used again.", "bold green"
    )
    return 0


def parse(arguments: list[str]) -> Plan:
    """The command line. Exits with 2 where it is wrong, with 0 after --help."""
    default = Plan()
    parser = argparse.ArgumentParser(
        prog="calamint demo",
        description="Shows how an HTTP/2 connection loses its slots to requests that were given up, and how it does not: "
        "two runs against a server on loopback that forgets some of its requests. Takes less than 15 seconds.",
        epilog="The exit code is 0 if the run with calamint's deadline leaked nothing.",
    )
    parser.add_argument("--tls", action="store_true", help="over TLS (needs the extra tls-demo)")
    parser.add_argument(
        "--requests", type=positive, default=default.requests, help="in each run (default: %(default)s)"
    )
    parser.add_argument("--streams", type=positive, default=default.streams, help="slots (default: %(default)s)")
    options = parser.parse_args(arguments)
    return Plan(options.requests, options.streams, tls=options.tls)


def positive(text: str) -> int:
    """A number from 1."""
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def run(arguments: list[str]) -> int:
    """`calamint demo` with these arguments; returns the exit code."""
    plan = parse(arguments)
    if plan.tls and importlib.util.find_spec("trustme") is None:
        reason = "calamint demo --tls makes its certificates with trustme: pip install 'calamint[tls-demo]'"
        print(reason, file=sys.stderr)
        return 2
    try:
        return show(plan, open_screen())
    except KeyboardInterrupt:
        return 130
