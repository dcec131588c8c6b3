"""Run in a network namespace by test_dead_addresses: dials to where nobody is, timed, as JSON on stdout."""

import asyncio
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Sequence

import calamint
from calamint.core.errors import CalamintError
from calamint.net.dial import Address, Resolver, look_up
from calamint.testing import ScriptedPeer

CONNECT = 0.3  # seconds
SILENT = "192.0.2.9"  # on a link whose other end is deaf
SILENT6 = "2001:db8::9"
UNREACHABLE = "203.0.113.1"  # by a route that says so
BLACKHOLE = "198.51.100.1"  # by one that says nothing

Outcome = tuple[str, float]
Get = Callable[[str, str | None, Resolver], bytes]


def by_client(url: str, proxy: str | None, resolver: Resolver) -> bytes:
    timeout = calamint.Timeout(connect=CONNECT if resolver is look_up else 5.0)
    with calamint.Client(proxy=proxy, resolver=resolver, timeout=timeout, trust_env=False) as client:
        return client.get(url).content


def by_async_client(url: str, proxy: str | None, resolver: Resolver) -> bytes:
    async def work() -> bytes:
        timeout = calamint.Timeout(connect=CONNECT if resolver is look_up else 5.0)
        async with calamint.AsyncClient(proxy=proxy, resolver=resolver, timeout=timeout, trust_env=False) as client:
            return (await client.get(url)).content

    return asyncio.run(work())


def by_connection(url: str, proxy: str | None, resolver: Resolver) -> bytes:
    timeout = CONNECT if resolver is look_up else 5.0
    with calamint.connect(url, proxy=proxy, resolver=resolver, timeout=timeout) as connection:
        return connection.response(connection.request("GET", "/")).content


def timed(get: Get, url: str, proxy: str | None = None, resolver: Resolver = look_up) -> Outcome:
    """What came of it, and after how many seconds."""
    began = time.monotonic()
    try:
        words = get(url, proxy, resolver).decode()
    except CalamintError as error:
        words = f"{type(error).__name__}: {error}"
    return words, time.monotonic() - began


def of(*hosts: str) -> Resolver:
    """A resolver that gives these addresses."""

    def resolver(host: str, port: int) -> Sequence[Address]:
        found: list[Address] = []
        for each in hosts:
            found += socket.getaddrinfo(each, port, type=socket.SOCK_STREAM)
        return found

    return resolver


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def main() -> None:
    outcomes: dict[str, dict[str, Outcome]] = {}
    with ScriptedPeer() as peer, ScriptedPeer(host="::") as link:
        zoned = f"http://[fe80::1%25v0]:{link.port}"
        asyncio.run(asyncio.sleep(0))  # the first loop opens what stays open
        before = descriptors()
        for get in (by_client, by_async_client, by_connection):
            good = f"http://somewhere.test:{peer.port}/"
            outcomes[get.__name__] = {
                "silent": timed(get, f"http://{SILENT}/"),
                "silent6": timed(get, f"http://[{SILENT6}]/"),
                "unreachable": timed(get, f"http://{UNREACHABLE}/"),
                "blackhole": timed(get, f"http://{BLACKHOLE}/"),
                "silent proxy": timed(get, "https://one.test/", f"http://{SILENT}:3128"),
                "around": timed(get, good, None, of(SILENT6, SILENT, UNREACHABLE, "127.0.0.1")),
                "around at once": timed(get, good, None, of(UNREACHABLE, BLACKHOLE, "127.0.0.1")),
                "around to a proxy": timed(get, "http://one.test/", good, of(SILENT, "127.0.0.1")),
                "zone": timed(get, zoned),
                "zone of a proxy": timed(get, "http://one.test/", zoned),
            }
        authorities = sorted({seen.authority.partition("]")[0] for seen in link.report.requests})
        left = descriptors() - before - peer.report.connections_open - link.report.connections_open
    json.dump({"outcomes": outcomes, "authorities": authorities, "left": left}, sys.stdout)


if __name__ == "__main__":
    main()
