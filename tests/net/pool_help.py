"""What the tests of the pool for threads share: threads that must succeed, and that nothing is left."""

import gc
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import calamint
from calamint.core.value import Fields
from tests.net.thread_server import LIMIT


@contextmanager
def nothing_left() -> Iterator[None]:
    """No thread and no descriptor more than before, of what was made inside."""
    threads, files = set(threading.enumerate()), descriptors()
    yield
    if descriptors() > files:
        gc.collect()  # it takes a tenth of a second, and so only where it may help
    assert set(threading.enumerate()) <= threads
    assert descriptors() <= files


def descriptors() -> int:
    """How many are open; 0 where the system does not say."""
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


def in_threads(count: int, run: Callable[[int], object], seconds: float = LIMIT) -> None:
    """`run(number)` in so many threads at once; raises what any of them raised."""
    failures: list[BaseException] = []

    def guarded(number: int) -> None:
        try:
            run(number)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(number,), name="pool-user") for number in range(count)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    stuck = [thread for thread in threads if thread.is_alive()]
    if failures:
        raise failures[0]
    assert not stuck, f"{len(stuck)} of {count} threads did not end"


def wait_until(condition: Callable[[], object], seconds: float = LIMIT) -> None:
    """Until it is true; fails when it is not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not become true in time"
        threading.Event().wait(0.001)


def fetch(pool: calamint.Pool, url: str, method: str = "GET", headers: Fields = (), timeout: float = LIMIT) -> bytes:
    """The content of a 200."""
    with pool.request(method, url, headers, timeout=timeout) as call:
        response = call.response()
    assert response.status == 200, response
    return response.content


def at_rest(pool: calamint.Pool) -> None:
    """Nobody runs, waits or dials, and no slot is taken."""
    stats = pool.stats()
    assert (stats.running, stats.waiting, stats.dialling) == (0, 0, 0), pool.snapshot().describe()
    for connection in pool.snapshot().connections:
        assert connection.requests == connection.unsent == ()
