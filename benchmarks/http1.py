"""CPU time per request of HTTP/1.1 engines in memory: calamint's core against the `h11` package, in one run.

    python -m benchmarks.http1 [--requests N] [--repeat N]

One GET after the other on one connection; each response has ten fields and five bytes of content, and three of the fields
may differ every time.
"""

import argparse
import gc
import statistics
import sys
import time
from collections.abc import Callable, Sequence

import h11

from calamint.core import http1
from calamint.core.events import ResponseEnded
from calamint.core.exchange import SETTINGS
from calamint.core.url import Origin

FIELDS = ((b"user-agent", b"calamint/0.1.0"), (b"accept", b"*/*"), (b"accept-encoding", b"gzip, deflate, br, zstd"))
HEAD = (
    b"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Mon, 23 Nov 2026 08:32:51 GMT\r\nContent-Type: text/plain\r\n"
    b"Content-Length: 5\r\nConnection: keep-alive\r\nCache-Control: no-cache\r\nVary: Accept-Encoding\r\n"
)
RECURRING = b"X-Request-Id: 0\r\nX-Trace: 0\r\nETag: 0\r\n"

Engine = Callable[[list[bytes]], float]


def make_responses(count: int, unique: bool) -> list[bytes]:
    """The bytes of `count` responses."""
    fields = [
        b'X-Request-Id: %032x\r\nX-Trace: %d-1\r\nETag: "%x-5"\r\n' % (number * 2654435761, number, number * 40503)
        for number in range(count)
    ]
    return [HEAD + (part if unique else RECURRING) + b"\r\nhello" for part in fields]


def run_h11(responses: list[bytes]) -> float:
    """CPU seconds per request of the `h11` package."""
    connection = h11.Connection(h11.CLIENT)
    fields = [(b"Host", b"localhost:8080"), *FIELDS]
    started = time.process_time()
    for response in responses:
        connection.send(h11.Request(method=b"GET", target=b"/small", headers=fields))
        connection.send(h11.EndOfMessage())
        connection.receive_data(response)
        while not isinstance(connection.next_event(), h11.EndOfMessage):
            pass
        connection.start_next_cycle()
    return (time.process_time() - started) / len(responses)


def run_calamint(responses: list[bytes]) -> float:
    """CPU seconds per request of calamint's core."""
    conn, _ = http1.connect(Origin("http", "localhost", 8080), SETTINGS, 0.0)
    now = 0.0
    started = time.process_time()
    for response in responses:
        now += 1e-6
        conn, _, ref = http1.request(conn, "GET", "/small", FIELDS, None, now)
        conn, _, events = http1.receive(conn, response, now)
        if events[-1] != ResponseEnded(ref):
            raise AssertionError(events)
    return (time.process_time() - started) / len(responses)


ENGINES: dict[str, Engine] = {"h11": run_h11, "calamint": run_calamint}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures both, on responses that recur and on those that do not."""
    parser = argparse.ArgumentParser(description="CPU time per request of HTTP/1.1 engines in memory.")
    parser.add_argument("--requests", type=int, default=2000, help="in each run (default: %(default)s)")
    parser.add_argument("--repeat", type=int, default=9, help="runs of each engine (default: %(default)s)")
    options = parser.parse_args(arguments)
    for name, unique in (("heads recur", False), ("three fields differ", True)):
        samples: dict[str, list[float]] = {engine: [] for engine in ENGINES}
        for turn in range(options.repeat):
            responses = make_responses(options.requests * (turn + 1), unique)[-options.requests :]
            for engine, run in ENGINES.items():
                gc.collect()
                samples[engine].append(run(responses))
        base = samples["h11"]
        for engine, values in samples.items():
            ratio = statistics.median(theirs / ours for theirs, ours in zip(base, values, strict=True))
            sys.stdout.write(f"{name:<22}{engine:<10}{min(values) * 1e6:>8.1f} us {ratio:>7.2f} x\n")


if __name__ == "__main__":
    main()
