"""What an idle connection costs in memory, in the pools of both clients.

    python -m benchmarks.connections [--connections N]

Node.js answers `/slow` after a while, so that every request gets an HTTP/1.1 connection of its own; then all are idle. Each
client runs in a process of its own, and what is measured is how far its resident memory has grown with them, without what
a first connection and its request have left behind; TLS keeps most of its state inside OpenSSL.
"""

import asyncio
import gc
import resource
from pathlib import Path

from calamint import AsyncClient, Client, Limits

HELD_BACK_MS = 3000
PAGE = resource.getpagesize()


def resident() -> int:
    """Bytes of this process in memory."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def open_all(url: str, ca_file: str, count: int) -> int:
    """Bytes that the pool's connections of `Client` take."""
    limits = Limits(max_connections=count, max_keepalive_connections=count)
    with Client(http2=False, verify=ca_file, limits=limits) as client:
        client.get(f"{url}/small")
        before = resident()
        calls = [client.pool.request("GET", f"{url}/slow?ms={HELD_BACK_MS}") for _ in range(count)]
        for call in calls:
            call.response()
        del calls, call
        idle = client.pool.stats().idle
        after = resident()
    return check(idle, count, after - before)


def open_all_async(url: str, ca_file: str, count: int) -> int:
    """The same of `AsyncClient`."""

    async def run() -> int:
        limits = Limits(max_connections=count, max_keepalive_connections=count)
        async with AsyncClient(http2=False, verify=ca_file, limits=limits) as client:
            await client.get(f"{url}/small")
            before = resident()
            calls = [client.pool.request("GET", f"{url}/slow?ms={HELD_BACK_MS}") for _ in range(count)]
            for call in calls:
                await call.response()
            del calls, call
            idle = client.pool.stats().idle
            after = resident()
        return check(idle, count, after - before)

    return asyncio.run(run())
