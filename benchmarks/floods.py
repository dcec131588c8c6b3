"""What a hostile server can make us do: each flood of `tests/core/floods.py`, until it ends or a megabyte has come.

    python -m benchmarks.floods [--bytes N] [--only WORDS]

For each: how many bytes were taken before the connection ended, the most memory that was in use at once, CPU time for a
quarter, half and all of what is taken, whether that grows as the bytes do, and the verdict. HTTP/2 floods come 64 KiB at a time,
HTTP/1.1 floods a byte at a time too. No time passes while they come, and content is read at once.
"""

import argparse
import gc
import sys
import time
import tracemalloc
from collections.abc import Sequence
from typing import NamedTuple

from tests.core.floods import FLOODS, Flood, begin, feed
from tests.core.http2_peer import cuts

PIECE = 64 * 1024
NOISE = 5e-4  # seconds: shorter times say nothing about how they grow
LINEAR = 6.0  # four times the bytes may take so many times the seconds
COLUMNS = f"{'flood':<34}{'pieces':>8}{'taken':>10}{'peak KiB':>10}{'1/4 ms':>9}{'1/2 ms':>9}{'all ms':>9}  growth   verdict\n"


class Outcome(NamedTuple):
    """What came of a flood."""

    taken: int
    peak: int
    seconds: tuple[float, float, float]
    verdict: str

    def growth(self) -> str:
        """How the time grows where it can be told: for four times the bytes."""
        first, _, last = self.seconds
        if first < NOISE:
            return "-"
        return "linear" if last <= LINEAR * first else f"x{last / first:.0f}"


def make_pieces(flood: Flood, size: int, piece: int) -> list[bytes]:
    """So many bytes of it, but whole units."""
    return cuts(flood.unit * max(1, size // len(flood.unit)), piece)


def time_flood(flood: Flood, pieces: Sequence[bytes]) -> float:
    """CPU seconds."""
    conn = begin(flood)
    gc.collect()
    started = time.process_time()
    feed(conn, pieces)
    return time.process_time() - started


def find_end(flood: Flood, pieces: Sequence[bytes]) -> tuple[int, str]:
    """How many bytes were taken, to the unit, and why it ended."""
    conn = begin(flood)
    before = 0
    for piece in pieces:
        after, taken, words = feed(conn, [piece])
        if words:
            # In the piece in which it ends: one unit at a time, or what is left of one.
            rest = -before % len(flood.unit)
            _, taken, _ = feed(conn, [piece[:rest], *cuts(piece[rest:], len(flood.unit))])
            return before + taken, words
        conn = after
        before += taken
    return before, ""


def measure(flood: Flood, size: int, piece: int) -> Outcome:
    """One flood, in pieces of this size."""
    pieces = make_pieces(flood, size, piece)
    taken, words = find_end(flood, pieces)
    conn = begin(flood)
    gc.collect()
    tracemalloc.start()
    feed(conn, pieces)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    reached = taken if words else size  # what comes after the end costs nothing
    parts = [make_pieces(flood, reached // share, piece) for share in (4, 2, 1)]
    first, second, last = [time_flood(flood, part) for part in parts]
    return Outcome(taken, peak, (first, second, last), words or "goes on")


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs them all, or those whose name has some words in it."""
    parser = argparse.ArgumentParser(description="What a hostile server can make us do.")
    parser.add_argument("--bytes", type=int, default=2**20, help="of each flood (default: %(default)s)")
    parser.add_argument("--only", default="", help="floods with these words in their names")
    options = parser.parse_args(arguments)
    sys.stdout.write(COLUMNS)
    for flood in FLOODS:
        if options.only not in flood.name:
            continue
        for piece in (PIECE,) if flood.protocol == "h2" else (PIECE, 1):
            outcome = measure(flood, options.bytes, piece)
            times = "".join([f"{seconds * 1e3:>9.1f}" for seconds in outcome.seconds])
            sizes = f"{'1 B' if piece == 1 else '64 KiB':>8}{outcome.taken:>10}{outcome.peak / 1024:>10.0f}"
            sys.stdout.write(f"{flood.name:<34}{sizes}{times}  {outcome.growth():<8} {outcome.verdict[:70]}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
