"""What a client process of a soak measures of itself, counts, and holds against the pool."""

import gc
import json
import logging
import os
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final, TextIO

from calamint.core.pool_state import PoolSnapshot, Stats
from tests.soak.plans import OUTCOMES

# What must be gone when a pool is: everything that is made for one request, one connection, or one life of a pool.
MORTAL: Final = frozenset(
    (
        "Call Box Inbox Job Held Site Channel Wire Link Approach Layers Race Dialer TLSPipe Hub Desk Pool Exchange Upload "
        "HTTP1Connection HTTP2Connection Deliver RequestFailed ResponseReceived DataReceived PoolSnapshot Response"
    ).split()
)
KEPT: Final = 10  # violations that are told in full


def descriptors() -> int:
    """How many are open; 0 where the system does not say."""
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


def memory() -> int:
    """Resident bytes; 0 where the system does not say."""
    if not os.path.exists("/proc/self/statm"):
        return 0
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def say(words: object) -> None:
    """A line for the process that started this one."""
    sys.stdout.write(json.dumps(words) + "\n")
    sys.stdout.flush()


class Tally(logging.Handler):
    """What the callers of one process count; each of them has a `counts` of its own."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.began = time.monotonic()
        self.of_callers: list[dict[str, int]] = []
        self.violations: list[str] = []
        self.dropped = 0  # calls, unclosed
        self.warned = 0  # of them
        self.logged: Counter[str] = Counter()  # warnings in the log, by their kind
        self.failures: Counter[str] = Counter()

    def new_counts(self) -> dict[str, int]:
        """For one caller."""
        counts = dict.fromkeys(OUTCOMES, 0)
        self.of_callers.append(counts)
        return counts

    def totals(self) -> dict[str, int]:
        """Requests that are over, by their outcome."""
        return {name: sum([counts[name] for counts in self.of_callers]) for name in OUTCOMES}

    def violation(self, words: str) -> None:
        """Something that must not be."""
        self.violations.append(words)

    def emit(self, record: logging.LogRecord) -> None:
        """What calamint or asyncio logs: a connection that was condemned is the server's doing, an error is ours."""
        if record.levelno >= logging.ERROR:
            self.violation(f"logged: {record.getMessage()}")
        else:
            self.logged[record.getMessage().partition(":")[0]] += 1

    def listen(self) -> None:
        """Takes every warning, everything logged, and what nobody else catches."""
        logging.basicConfig(handlers=[self], level=logging.WARNING)
        warnings.simplefilter("always")
        warnings.showwarning = self.take_warning
        sys.unraisablehook = lambda it: self.violation(f"unraisable: {it.exc_value!r} in {it.object!r}")
        threading.excepthook = lambda it: self.violation(f"a thread raised {it.exc_value!r}")

    def take_warning(
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        """A call that was dropped unclosed says so; nothing else has a reason to warn."""
        if category is ResourceWarning and "dropped unclosed" in str(message):
            self.warned += 1
        else:
            self.violation(f"{category.__name__}: {message} ({filename}:{lineno})")

    def sample(self, tasks: int, lag: float, stats: Iterable[Stats]) -> None:
        """The numbers of this moment, for the process that started this one."""
        all_stats = list(stats)
        say(
            {
                "sample": {
                    "time": time.monotonic() - self.began,
                    "memory": memory(),
                    "descriptors": descriptors(),
                    "threads": threading.active_count(),
                    "tasks": tasks,
                    "lag": lag,
                    "connections": sum([each.connections for each in all_stats]),
                    "running": sum([each.running for each in all_stats]),
                    "waiting": sum([each.waiting for each in all_stats]),
                    **self.totals(),
                }
            }
        )


class Commands:
    """What the process that started this one says: `stop`, then `rest`. If it is gone, all of it is said."""

    def __init__(self) -> None:
        self.stop: Final = threading.Event()
        self.rest: Final = threading.Event()
        self.calls: dict[threading.Event, list[Callable[[], object]]] = {}
        self.lock: Final = threading.Lock()
        self.thread: Final = threading.Thread(target=self.read, name="commands", daemon=True)
        self.thread.start()

    def read(self) -> None:
        for line in sys.stdin:
            self.hear(self.rest if line.strip() == "rest" else self.stop)
        self.hear(self.stop)
        self.hear(self.rest)

    def hear(self, event: threading.Event) -> None:
        """It was said."""
        with self.lock:
            if not event.is_set():
                event.set()
                for call in self.calls.get(event, ()):
                    call()

    def when(self, event: threading.Event, call: Callable[[], object]) -> None:
        """Calls when it is said; at once if it was."""
        with self.lock:
            self.calls.setdefault(event, []).append(call)
            if event.is_set():
                call()


def restless(snapshot: PoolSnapshot, stats: Stats) -> str:
    """What a pool still does, in words, or nothing."""
    busy = stats.running or stats.waiting or stats.dialling
    slots = [
        each for each in snapshot.connections if each.requests or each.unsent or each.unconfirmed or each.unflushed
    ]
    return snapshot.describe() if busy or slots else ""


def survivors() -> list[str]:
    """Objects of a pool that are still there although no pool is."""
    gc.collect()
    found = Counter(
        [
            type(it).__qualname__
            for it in gc.get_objects()
            if type(it).__module__.startswith("calamint.") and type(it).__name__ in MORTAL
        ]
    )
    return [f"{count} × {name}" for name, count in sorted(found.items())]
