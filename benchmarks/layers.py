"""Where the CPU time of a request goes: the engine, the pool, its driver and the client, each on the same recorded bytes.

    python -m benchmarks.layers [--repeat N] [--recording NAME ...] [--profile LAYER]

HTTP/2, 100 requests at once. Engine and pool run in memory, as in `micro`. The asyncio driver and `AsyncClient` read the
same bytes from a socket, and so does, for scale, a bare asyncio protocol that only counts them: what it takes is the price
of the socket and the event loop, and is in the two rows below it. Another process
sends a round when it has got all of its requests; the first round, which connects, is not counted.
"""

import argparse
import asyncio
import cProfile
import gc
import multiprocessing
import pstats
import socket
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final

from benchmarks.micro import Recording, check, forget, load, request_fields
from calamint import AsyncClient
from calamint.core import pool as core_pool
from calamint.core import verbs
from calamint.core.events import DataReceived, ResponseEnded, ResponseReceived
from calamint.core.exchange import Settings
from calamint.core.pool_state import LIMITS, Deliver, Dial, Key, Write
from calamint.core.pool_state import Pool as CorePool
from calamint.core.url import Origin
from calamint.net.aio import Pool

HEADERS: Final = 1  # the type of a frame, RFC 9113 §6.2
PREFACE_SIZE: Final = 24
FRAME_HEADER: Final = 9
READ_SIZE: Final = 256 * 1024
FIELDS: Final = tuple([(name.encode(), value.encode()) for name, value in request_fields("/")[4:]])

Layer = Callable[[Recording, int], float]


def run_engine(recording: Recording, port: int) -> float:
    """`request`, `receive` and `consume` of a connection."""
    forget()
    conn, _ = verbs.connect("h2", Origin("http", "localhost", 8080), Settings(), 0.0)
    responses = body = ended = 0
    started = 0.0
    for chunks in recording.rounds:
        for _ in range(recording.requests_per_round):
            conn, data, _ = verbs.request(conn, "GET", recording.path, FIELDS, None, time.monotonic())
        conn, data, _ = verbs.flush(conn, time.monotonic())
        for chunk in chunks:
            conn, data, events = verbs.receive(conn, chunk, time.monotonic())
            for event in events:
                if isinstance(event, DataReceived):
                    body += len(event.data)
                    conn, data, _ = verbs.consume(conn, event.ref, len(event.data), time.monotonic())
                elif isinstance(event, ResponseReceived):
                    responses += 1
                elif isinstance(event, ResponseEnded):
                    ended += 1
        started = started or time.process_time()
    seconds = time.process_time() - started
    check(recording, responses, body, ended)
    return seconds / (recording.requests - recording.requests_per_round)


def run_pool(recording: Recording, port: int) -> float:
    """The same through the core's pool, and a loop over its actions."""
    forget()
    pool = CorePool(LIMITS, Settings())
    key = Key(Origin("http", "localhost", 8080), "", ("h2",))
    id = responses = body = ended = 0
    started = 0.0
    for chunks in recording.rounds:
        for _ in range(recording.requests_per_round):
            _, actions = core_pool.submit(pool, key, "GET", recording.path, FIELDS, None, time.monotonic())
            for action in actions:
                if isinstance(action, Dial):
                    id = action.id
                    core_pool.connected(pool, id, "h2", time.monotonic())
        core_pool.flushed(pool, id, time.monotonic())
        for chunk in chunks:
            written = 0
            for action in core_pool.received(pool, id, chunk, time.monotonic()):
                if isinstance(action, Write):
                    written += len(action.data)
                elif isinstance(action, Deliver):
                    event = action.event
                    if isinstance(event, DataReceived):
                        body += len(event.data)
                    elif isinstance(event, ResponseReceived):
                        responses += 1
                    elif isinstance(event, ResponseEnded):
                        ended += 1
            if written:
                core_pool.flushed(pool, id, time.monotonic())
        started = started or time.process_time()
    seconds = time.process_time() - started
    check(recording, responses, body, ended)
    return seconds / (recording.requests - recording.requests_per_round)


class Counter(asyncio.Protocol):
    """Counts what comes, and writes the next round's requests when a round is complete."""

    def __init__(self, recording: Recording, done: "asyncio.Future[None]") -> None:
        self.sizes = [sum(map(len, chunks)) for chunks in recording.rounds]
        # Of the usual size, and good enough for who counts frames.
        self.output = (b"\0\0\x0c" + bytes((HEADERS, 5)) + b"\0\0\0\1" + bytes(12)) * recording.requests_per_round
        self.done = done
        self.started = 0.0
        self.transport: asyncio.WriteTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self.transport = transport
        self.transport.write(bytes(PREFACE_SIZE) + self.output)

    def data_received(self, data: bytes) -> None:
        self.sizes[0] -= len(data)
        if self.sizes[0]:
            return
        del self.sizes[0]
        self.started = self.started or time.process_time()
        if self.sizes:
            self.transport.write(self.output)
        else:
            self.done.set_result(None)


def run_socket(recording: Recording, port: int) -> float:
    """The bytes alone."""

    async def run() -> float:
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        counter = Counter(recording, done)
        transport, _ = await loop.create_connection(lambda: counter, "127.0.0.1", port)
        await done
        seconds = time.process_time() - counter.started
        transport.close()
        return seconds / (recording.requests - recording.requests_per_round)

    return asyncio.run(run())


async def run_rounds(recording: Recording, one: Callable[[], Awaitable[tuple[int, int]]]) -> float:
    """As many tasks as a round has requests; each makes the next when its last is over. `one`: its status, bytes of content."""
    count = recording.requests_per_round
    answers = await asyncio.gather(*[one() for _ in range(count)])

    async def work() -> None:
        for _ in recording.rounds[1:]:
            answers.append(await one())

    started = time.process_time()
    await asyncio.gather(*[work() for _ in range(count)])
    seconds = time.process_time() - started
    responses = len([status for status, _ in answers if status == 200])
    check(recording, responses, sum([size for _, size in answers]), responses)
    return seconds / (recording.requests - count)


def run_driver(recording: Recording, port: int) -> float:
    """The pool for asyncio."""
    forget()
    url = f"http://127.0.0.1:{port}{recording.path}"

    async def run() -> float:
        async with Pool(http1=False) as pool:

            async def one() -> tuple[int, int]:
                response = await pool.request("GET", url, FIELDS).response()
                return response.status, len(response.content)

            return await run_rounds(recording, one)

    return asyncio.run(run())


def run_client(recording: Recording, port: int) -> float:
    """`AsyncClient`."""
    forget()
    url = f"http://127.0.0.1:{port}{recording.path}"

    async def run() -> float:
        async with AsyncClient(http1=False) as client:

            async def one() -> tuple[int, int]:
                response = await client.get(url)
                return response.status_code, len(response.content)

            return await run_rounds(recording, one)

    return asyncio.run(run())


# The price of the socket and the event loop is in those that come after it.
LAYERS: dict[str, Layer] = {
    "engine": run_engine,
    "pool": run_pool,
    "socket": run_socket,
    "driver": run_driver,
    "client": run_client,
}


def serve(listener: socket.socket, name: str) -> None:
    """One connection after the other."""
    recording = load(name)
    while True:
        sock, _ = listener.accept()
        with sock, suppress(OSError):  # the client may close at any time
            replay(sock, recording)
            while sock.recv(READ_SIZE):
                pass


def replay(sock: socket.socket, recording: Recording) -> None:
    """Sends each round when all of its requests have come."""
    left = b""
    sock.recv(PREFACE_SIZE, socket.MSG_WAITALL)
    for chunks in recording.rounds:
        wanted = recording.requests_per_round
        while wanted:
            data = sock.recv(READ_SIZE)
            if not data:
                return
            count, left = count_requests(left + data)
            wanted -= count
        sock.sendall(b"".join(chunks))


def count_requests(data: bytes) -> tuple[int, bytes]:
    """How many HEADERS frames there are, and the beginning of a frame that has not come whole."""
    count = place = 0
    while len(data) >= place + FRAME_HEADER:
        end = place + FRAME_HEADER + int.from_bytes(data[place : place + 3])
        if end > len(data):
            break
        count += data[place + 3] == HEADERS
        place = end
    return count, data[place:]


@contextmanager
def replaying(name: str) -> Iterator[int]:
    """The port of a process that replays a recording."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        process = multiprocessing.Process(target=serve, args=(listener, name), daemon=True)
        process.start()
        try:
            yield listener.getsockname()[1]
        finally:
            process.terminate()
            process.join()


def table(name: str, samples: dict[str, list[float]]) -> str:
    """Microseconds per request, and how much of it is a layer's own: the median over the turns."""

    def own(layer: str, *others: str) -> float:
        turns = zip(samples[layer], *[samples[other] for other in others], strict=True)
        middle: float = statistics.median([turn[0] - sum(turn[1:]) for turn in turns])
        return middle * 1e6

    medians = {layer: statistics.median(values) * 1e6 for layer, values in samples.items()}
    added = {
        "engine": medians["engine"],
        "pool": own("pool", "engine"),
        "socket": medians["socket"],
        "driver": own("driver", "pool", "socket"),
        "client": own("client", "driver"),
    }
    lines = [f"{name}:", f"  {'layer':<10}{'median us':>12}{'its own us':>12}"]
    lines += [f"  {layer:<10}{medians[layer]:>12.1f}{added[layer]:>12.1f}" for layer in samples]
    lines.append(f"  pool and client: {added['pool'] + added['client']:.1f} us of their own, at most 10 wanted")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures every layer in turns, or profiles one."""
    parser = argparse.ArgumentParser(description="CPU time per request of each layer on the same bytes.")
    parser.add_argument("--recording", action="append", help="default: nghttpd-repeated and nginx-unique")
    parser.add_argument("--repeat", type=int, default=21, help="turns (default: %(default)s)")
    parser.add_argument("--profile", choices=LAYERS, help="the calls of this layer instead, by their own time")
    options = parser.parse_args(arguments)
    for name in options.recording or ["nghttpd-repeated", "nginx-unique"]:
        recording = load(name)
        with replaying(name) as port:
            if options.profile:
                profile = cProfile.Profile()
                for _ in range(options.repeat):
                    profile.runcall(LAYERS[options.profile], recording, port)
                pstats.Stats(profile).sort_stats("tottime").print_stats(45)
                continue
            samples: dict[str, list[float]] = {layer: [] for layer in LAYERS}
            for _ in range(options.repeat):
                for layer, run in LAYERS.items():
                    gc.collect()
                    samples[layer].append(run(recording, port))
        sys.stdout.write(table(name, samples))


if __name__ == "__main__":
    main()
