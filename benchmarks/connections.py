"""What an idle HTTP/1.1 connection costs in memory, in the pools of both clients.

    python -m benchmarks.connections [--connections N]

Node.js answers `/slow` after a while, so that every request gets a connection of its own; then all of them are idle. Each
client runs in a new process. "resident" is how far that has grown with the connections, without what a first one has left
behind, "Python" what tracemalloc saw of it; the rest of it is OpenSSL's, and what the allocators keep. Linux only.
"""

import argparse
import asyncio
import gc
import multiprocessing
import resource
import sys
import tempfile
import tracemalloc
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from calamint import AsyncClient, Client, Limits
from tests import servers

HELD_BACK_MS: Final = 3000
TARGET_KIB: Final = 10.0
Job = tuple[str, str, int, bool]  # URL, CA certificates, number of connections, whether to trace Python's allocations


def used(traced: bool) -> int:
    """Bytes of this process in memory, or those that Python has allocated."""
    gc.collect()
    if traced:
        return tracemalloc.get_traced_memory()[0]
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def run_client(job: Job) -> float:
    """KiB for each connection of `Client`."""
    url, ca_file, count, traced = job
    limits = Limits(max_connections=count + 1, max_keepalive_connections=count + 1)
    with Client(http2=False, verify=ca_file, limits=limits) as client:
        client.get(f"{url}/small")
        before = used(traced)
        for call in [client.pool.request("GET", f"{url}/slow?ms={HELD_BACK_MS}") for _ in range(count)]:
            call.response()
        return judge(used(traced) - before, client.pool.stats().idle, count)


async def run_async_client(job: Job) -> float:
    """KiB for each connection of `AsyncClient`."""
    url, ca_file, count, traced = job
    limits = Limits(max_connections=count + 1, max_keepalive_connections=count + 1)
    async with AsyncClient(http2=False, verify=ca_file, limits=limits) as client:
        await client.get(f"{url}/small")
        before = used(traced)
        for call in [client.pool.request("GET", f"{url}/slow?ms={HELD_BACK_MS}") for _ in range(count)]:
            await call.response()
        return judge(used(traced) - before, client.pool.stats().idle, count)


def judge(size: int, idle: int, count: int) -> float:
    """KiB for each connection, if there are as many as there should be."""
    if not count - 1 <= idle <= count + 1:
        raise AssertionError(f"{idle} connections are idle, not {count}")
    return size / idle / 1024


def run(job: Job) -> float:
    """`Client`, in a process of its own."""
    if job[3]:
        tracemalloc.start()
    return run_client(job)


def run_async(job: Job) -> float:
    """`AsyncClient`, in a process of its own."""
    if job[3]:
        tracemalloc.start()
    return asyncio.run(run_async_client(job))


CLIENTS: dict[str, Callable[[Job], float]] = {"Client": run, "AsyncClient": run_async}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures both clients, in the clear and over TLS, and prints the table."""
    parser = argparse.ArgumentParser(description="Memory of idle connections.")
    parser.add_argument("--connections", type=int, default=500, help="how many (default: %(default)s)")
    options = parser.parse_args(arguments)
    count = options.connections
    sys.stdout.write(f"{count} idle connections: KiB for each, at most {TARGET_KIB:g} wanted\n")
    sys.stdout.write(f"  {'client':<14}{'scheme':<8}{'resident':>10}{'Python':>10}\n")
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        root = Path(name)
        root.chmod(0o755)
        docroot, ca = servers.write_docroot(root / "docroot"), servers.PrivateCa(root)
        server = stack.enter_context(servers.node(root, docroot, ca))
        for client, measure in CLIENTS.items():
            for scheme in ("http1", "https"):
                kib: list[float] = []
                for traced in (False, True):
                    with multiprocessing.get_context("spawn").Pool(1) as process:
                        job = (server.urls[scheme], str(ca.ca_file), count, traced)
                        kib.append(process.apply(measure, (job,)))
                word = "http" if scheme == "http1" else scheme
                sys.stdout.write(f"  {client:<14}{word:<8}{kib[0]:>10.1f}{kib[1]:>10.1f}\n")


if __name__ == "__main__":
    main()
