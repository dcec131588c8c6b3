"""What idle streams cost the one that is active: CPU time per request on a connection alone, and beside many that wait.

    python -m benchmarks.idle [--idle N] [--requests N] [--repeat N]

Each request is a GET whose head and five bytes of content come in one read; the idle streams have sent their request and wait.
"""

import argparse
import gc
import statistics
import struct
import sys
import time
from collections.abc import Sequence

from calamint.core import http2
from calamint.core.events import ResponseEnded
from calamint.core.exchange import Settings
from calamint.core.url import Origin

FIELDS = ((b"user-agent", b"calamint/0.1.0"), (b"accept", b"*/*"))
MANY = 100_000


def frame(kind: int, flags: int, ref: int, payload: bytes) -> bytes:
    """A frame as the server sends it (RFC 9113 §4.1)."""
    return struct.pack(">HBBBL", len(payload) >> 8, len(payload) & 0xFF, kind, flags, ref) + payload


def run(idle: int, requests: int) -> float:
    """CPU seconds per request beside that many idle streams."""
    conn, _ = http2.connect(Origin("http", "localhost", 8080), Settings(max_streams=MANY, first_streams=MANY), 0.0)
    conn, _, _ = http2.receive(conn, frame(4, 0, 0, b"") + frame(4, 1, 0, b""), 0.0)
    for _ in range(idle):
        conn, _, _ = http2.request(conn, "GET", "/wait", FIELDS, None, 0.0)
    now = 1.0
    gc.collect()
    started = time.process_time()
    for _ in range(requests):
        now += 1e-6
        conn, _, ref = http2.request(conn, "GET", "/small", FIELDS, None, now)
        conn, _, events = http2.receive(conn, frame(1, 4, ref, b"\x88") + frame(0, 1, ref, b"hello"), now)
        if events[-1] != ResponseEnded(ref):
            raise AssertionError(events)
    return (time.process_time() - started) / requests


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures both in turns."""
    parser = argparse.ArgumentParser(description="What idle streams cost the one that is active.")
    parser.add_argument("--idle", type=int, default=1000, help="idle streams (default: %(default)s)")
    parser.add_argument("--requests", type=int, default=5000, help="in each run (default: %(default)s)")
    parser.add_argument("--repeat", type=int, default=7, help="runs of each (default: %(default)s)")
    options = parser.parse_args(arguments)
    alone, beside = list[float](), list[float]()
    for _ in range(options.repeat):
        alone.append(run(0, options.requests))
        beside.append(run(options.idle, options.requests))
    ratio = statistics.median(many / one for many, one in zip(beside, alone, strict=True))
    sys.stdout.write(f"alone {min(alone) * 1e6:8.1f} us\n")
    sys.stdout.write(f"beside {options.idle:,} idle streams {min(beside) * 1e6:8.1f} us {ratio:7.2f} x\n")


if __name__ == "__main__":
    main()
