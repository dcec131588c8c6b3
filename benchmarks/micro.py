"""CPU time per request of HTTP/2 engines in memory, fed with what real servers sent (see `record.py`).

    python -m benchmarks.micro [--repeat N] [--rounds N] [--recording NAME ...]

No sockets and no event loop: each engine makes the requests of a round, then takes the recorded chunks of that round
as its connection would read them. An engine is a function that replays a recording once and returns CPU seconds per
request; add it to ``ENGINES`` and the table shows its ratio to the first one.
"""

import argparse
import base64
import functools
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, ResponseReceived, StreamEnded
from h2.settings import SettingCodes, Settings

from calamint.core import hpack, http2, http2_head
from calamint.core.events import DataReceived as CoreData
from calamint.core.events import ResponseEnded as CoreEnded
from calamint.core.events import ResponseReceived as CoreResponse
from calamint.core.exchange import Settings as CoreSettings
from calamint.core.url import Origin

RECORDED = Path(__file__).with_name("recorded")
READ = 16 * 1024
STREAM_WINDOW = 2 * 1024 * 1024
CONNECTION_WINDOW = 16 * 1024 * 1024
DEFAULT_WINDOW = 65535


@dataclass(frozen=True)
class Recording:
    """The bytes that a server sent on one connection, as read, by rounds of concurrent GETs on streams 1, 3, 5, ...

    The first round begins with the server's SETTINGS and its acknowledgement of the client's.
    """

    name: str
    server: str
    version: str
    scenario: str
    path: str
    requests_per_round: int
    rounds: tuple[tuple[bytes, ...], ...]

    @property
    def requests(self) -> int:
        """How many requests the whole recording answers."""
        return self.requests_per_round * len(self.rounds)


Engine = Callable[[Recording], float]


def load(name: str) -> Recording:
    """Read ``recorded/<name>.json``, each round cut into reads of READ bytes: how it was cut when it was recorded says
    more about the recorder than about a client that has something to do between two reads."""
    index = json.loads((RECORDED / f"{name}.json").read_text())
    rounds = tuple(cut(b"".join(base64.b64decode(chunk) for chunk in chunks)) for chunks in index.pop("rounds"))
    return Recording(name=name, rounds=rounds, **index)


def cut(data: bytes) -> tuple[bytes, ...]:
    """The same bytes in reads of READ bytes."""
    return tuple(data[start : start + READ] for start in range(0, len(data), READ))


def save(recording: Recording) -> Path:
    """Write ``recorded/<name>.json``."""
    index: dict[str, object] = {
        name: getattr(recording, name) for name in ("server", "version", "scenario", "path", "requests_per_round")
    }
    index["rounds"] = [[base64.b64encode(chunk).decode() for chunk in chunks] for chunks in recording.rounds]
    path = RECORDED / f"{recording.name}.json"
    path.write_text(json.dumps(index, indent=0) + "\n")
    return path


def request_fields(path: str) -> list[tuple[str, str]]:
    """The header fields of every request: what an HTTP client sends when told nothing but a URL."""
    return [
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", "localhost:8080"),
        (":path", path),
        ("user-agent", "calamint/0.1.0"),
        ("accept", "*/*"),
        ("accept-encoding", "gzip, deflate, br, zstd"),
    ]


def h2_connection(validate: bool) -> H2Connection:
    """A client connection of the ``h2`` package whose preface has been sent."""
    connection = H2Connection(H2Configuration(client_side=True, validate_inbound_headers=validate))
    values = {SettingCodes.ENABLE_PUSH: 0, SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW}
    connection.local_settings = Settings(client=True, initial_values=values)
    connection.initiate_connection()
    connection.increment_flow_control_window(CONNECTION_WINDOW - DEFAULT_WINDOW)
    connection.data_to_send()
    return connection


def run_h2(recording: Recording, validate: bool = True) -> float:
    """Replay a recording into the ``h2`` package: CPU seconds per request, without setting up the connection."""
    connection = h2_connection(validate)
    fields = request_fields(recording.path)
    stream_id = 1
    responses = body = ended = 0
    started = time.process_time()
    for chunks in recording.rounds:
        for _ in range(recording.requests_per_round):
            connection.send_headers(stream_id, fields, end_stream=True)
            stream_id += 2
        connection.data_to_send()
        for chunk in chunks:
            for event in connection.receive_data(chunk):
                if isinstance(event, DataReceived):
                    body += len(event.data)
                    connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, ResponseReceived):
                    responses += 1
                elif isinstance(event, StreamEnded):
                    ended += 1
            connection.data_to_send()
    seconds = time.process_time() - started
    check(recording, responses, body, ended)
    return seconds / recording.requests


def run_calamint(recording: Recording) -> float:
    """Replay a recording into calamint's core: the same work through `request`, `receive` and `consume`.

    What the core remembers for the whole process is forgotten first: what is unique in a recording must be new to it.
    """
    forget()
    settings = CoreSettings(stream_window=STREAM_WINDOW, connection_window=CONNECTION_WINDOW)
    conn, _ = http2.connect(Origin("http", "localhost", 8080), settings, 0.0)
    fields = tuple([(name.encode(), value.encode()) for name, value in request_fields(recording.path)[4:]])
    responses = body = ended = 0
    started = time.process_time()
    now = 0.0
    for chunks in recording.rounds:
        out: list[bytes] = []
        for _ in range(recording.requests_per_round):
            now += 1e-6
            conn, data, _ = http2.request(conn, "GET", recording.path, fields, None, now)
            out.append(data)
        b"".join(out)
        for chunk in chunks:
            now += 1e-6
            conn, data, happened = http2.receive(conn, chunk, now)
            for event in happened:
                if isinstance(event, CoreData):
                    body += len(event.data)
                    conn, data, _ = http2.consume(conn, event.ref, len(event.data), now)
                elif isinstance(event, CoreResponse):
                    responses += 1
                elif isinstance(event, CoreEnded):
                    ended += 1
    seconds = time.process_time() - started
    check(recording, responses, body, ended)
    return seconds / recording.requests


def forget() -> None:
    """Empty the caches of blocks and strings that all connections share."""
    http2_head.blocks = http2_head.old_blocks = {}
    hpack.names = {}
    hpack.literals = hpack.old_literals = {}


def check(recording: Recording, responses: int, body: int, ended: int) -> None:
    """An engine that skipped some work must not look fast."""
    if not (responses == ended == recording.requests and body >= recording.requests):
        raise AssertionError(f"{recording.name}: {responses} responses, {body} bytes, {ended} streams ended")


# The first engine is what the others are compared to. httpcore runs h2 without the check of inbound header fields.
ENGINES: dict[str, Engine] = {
    "h2": run_h2,
    "h2-unchecked": functools.partial(run_h2, validate=False),
    "calamint": run_calamint,
}


def measure(recording: Recording, repeat: int) -> dict[str, list[float]]:
    """Samples of each engine, taken in turns so that a slower machine for a while is the same for all."""
    samples: dict[str, list[float]] = {name: [] for name in ENGINES}
    for _ in range(repeat):
        for name, engine in ENGINES.items():
            gc.collect()
            samples[name].append(engine(recording))
    return samples


def table(recording: Recording, samples: dict[str, list[float]]) -> str:
    """Microseconds per request; a ratio over 1 is faster than the first engine.

    The ratios are of the best runs, and the median over the turns of measure(): the latter holds also where the clock
    of the processor changes between turns.
    """
    chunks = sum(map(len, recording.rounds))
    size = sum(len(chunk) for round_ in recording.rounds for chunk in round_)
    lines = [
        f"{recording.name} ({recording.server} {recording.version}, GET {recording.path}): "
        f"{recording.requests} requests, {size} bytes in {chunks} chunks",
        f"  {'engine':<14}{'best us':>10}{'median us':>11}{'x best':>8}{'x turns':>9}",
    ]
    base = next(iter(samples.values()))
    for name, values in samples.items():
        best, median = min(values), statistics.median(values)
        turns = statistics.median(first / other for first, other in zip(base, values, strict=True))
        lines.append(f"  {name:<14}{best * 1e6:>10.1f}{median * 1e6:>11.1f}{min(base) / best:>8.2f}{turns:>9.2f}")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every engine on every recording asked for."""
    names = sorted(path.stem for path in RECORDED.glob("*.json"))
    parser = argparse.ArgumentParser(description="CPU time per request of HTTP/2 engines in memory.")
    parser.add_argument("--rounds", type=int, help="replay only the first ROUNDS rounds of each recording")
    parser.add_argument("--repeat", type=int, default=15, help="runs of each engine (default: %(default)s)")
    parser.add_argument("--smoke", action="store_true", help="one short run of each, to see that it works")
    parser.add_argument("--recording", action="append", choices=names, help="default: all; may be given again")
    options = parser.parse_args(arguments)
    if options.smoke:
        options.rounds, options.repeat = 1, 1
    for name in options.recording or names:
        recording = load(name)
        recording = replace(recording, rounds=recording.rounds[: options.rounds])
        sys.stdout.write(table(recording, measure(recording, options.repeat)))


if __name__ == "__main__":
    main()
