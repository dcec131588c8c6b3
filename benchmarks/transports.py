"""CPU time of the client per request: httpx2, httpx and requests as shipped, and over calamint, in one run.

    python -m benchmarks.transports [--requests N] [--repeat N] [--library NAME]

nginx serves `/small` and the 1 MiB of `/medium` on loopback; over https both sides are told to trust its certificate. The two
take turns in each scenario, so that a slower machine for a while is the same for both. What is measured is the process's own CPU
time, user and system; the ratio is the median of the turns'.
"""

import argparse
import asyncio
import gc
import importlib
import ssl
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import requests as requests_library

from calamint.transports.requests import Adapter
from tests import servers

CONTENT = {"/small": len(servers.SMALL), "/medium": servers.MEDIUM_SIZE}

Run = Callable[[bool, int], float]


class Site:
    """Where the server is, and whom to trust."""

    def __init__(self, urls: dict[str, str], ca: str) -> None:
        self.urls = {key: url.replace("127.0.0.1", "localhost") for key, url in urls.items()}
        self.ca = ca

    def blocking(self, name: str, ours: bool, http2: bool) -> Any:
        """A blocking client."""
        library = importlib.import_module(name)
        verify = ssl.create_default_context(cafile=self.ca)
        if ours:
            module = importlib.import_module(f"calamint.transports.{name}")
            return library.Client(transport=module.Transport(verify=verify, http2=http2))
        return library.Client(verify=verify, http2=http2, trust_env=False)

    def asynchronous(self, name: str, ours: bool, http2: bool, most: int) -> Any:
        """An asynchronous client with so many connections at most."""
        library = importlib.import_module(name)
        verify = ssl.create_default_context(cafile=self.ca)
        limits = library.Limits(max_connections=most, max_keepalive_connections=most)
        if ours:
            module = importlib.import_module(f"calamint.transports.{name}")
            return library.AsyncClient(transport=module.AsyncTransport(verify=verify, http2=http2, limits=limits))
        return library.AsyncClient(verify=verify, http2=http2, limits=limits, trust_env=False)


def sequential(client: Any, url: str, number: int, path: str = "/small") -> float:
    """CPU seconds per request, one after the other."""
    check(client.get(url + path), path)
    started = time.process_time()
    for _ in range(number):
        check(client.get(url + path), path)
    return (time.process_time() - started) / number


async def concurrent(client: Any, url: str, number: int, width: int, path: str = "/small") -> float:
    """CPU seconds per request, so many at once."""
    async with client:

        async def work(times: int) -> None:
            for _ in range(times):
                check(await client.get(url + path), path)

        await asyncio.gather(*[work(1) for _ in range(width)])
        started = time.process_time()
        await asyncio.gather(*[work(number // width) for _ in range(width)])
        return (time.process_time() - started) / (number // width * width)


def check(response: Any, path: str) -> None:
    """All of it came."""
    if response.status_code != 200 or len(response.content) != CONTENT[path]:
        raise AssertionError(f"{response.status_code}, {len(response.content)} bytes")


def scenarios(site: Site, name: str) -> dict[str, Run]:
    """What is run for httpx and httpx2."""
    plain, secure = site.urls["http1"], site.urls["https"]

    def blocking(url: str, http2: bool, share: int = 1, path: str = "/small") -> Run:
        def run(ours: bool, number: int) -> float:
            with site.blocking(name, ours, http2) as client:
                return sequential(client, url, max(10, number // share), path)

        return run

    def asynchronous(url: str, http2: bool, width: int, most: int, share: int = 1, path: str = "/small") -> Run:
        def run(ours: bool, number: int) -> float:
            client = site.asynchronous(name, ours, http2, most)
            return asyncio.run(concurrent(client, url, max(width, number // share), width, path))

        return run

    return {
        "HTTP/1.1, one by one, blocking": blocking(plain, False),
        "HTTP/1.1 in TLS, one by one, blocking": blocking(secure, False),
        "HTTP/1.1, one by one, asyncio": asynchronous(plain, False, 1, 1),
        "HTTP/1.1, 50 at once, asyncio": asynchronous(plain, False, 50, 50),
        "HTTP/2, one by one, blocking": blocking(secure, True),
        "HTTP/2, one by one, asyncio": asynchronous(secure, True, 1, 1),
        "HTTP/2, 100 streams, asyncio": asynchronous(secure, True, 100, 1),
        "HTTP/1.1, 1 MiB, blocking": blocking(plain, False, 20, "/medium"),
        "HTTP/2, 1 MiB, 10 streams, asyncio": asynchronous(secure, True, 10, 1, 20, "/medium"),
    }


def of_requests(site: Site) -> dict[str, Run]:
    """What is run for requests, which has no HTTP/2 of its own."""

    def blocking(url: str, share: int = 1, path: str = "/small") -> Run:
        def run(ours: bool, number: int) -> float:
            with requests_library.Session() as session:
                session.trust_env = False
                session.verify = site.ca
                if ours:
                    session.mount("http://", adapter := Adapter())
                    session.mount("https://", adapter)
                return sequential(session, url, max(10, number // share), path)

        return run

    return {
        "HTTP/1.1, one by one": blocking(site.urls["http1"]),
        "TLS, one by one (HTTP/1.1 against HTTP/2)": blocking(site.urls["https"]),
        "HTTP/1.1, 1 MiB": blocking(site.urls["http1"], 20, "/medium"),
    }


def measure(title: str, runs: dict[str, Run], number: int, repeat: int) -> None:
    """The table of one library."""
    sys.stdout.write(f"\n{title}, {number} requests a run, microseconds of CPU a request\n")
    sys.stdout.write(f"  {'':<42}{'as shipped':>11}{'over calamint':>15}{'ratio':>7}\n")
    for what, run in runs.items():
        samples: dict[bool, list[float]] = {False: [], True: []}
        for _ in range(repeat):
            for ours in (False, True):
                gc.collect()
                samples[ours].append(run(ours, number))
        ratio = statistics.median([mine / theirs for theirs, mine in zip(samples[False], samples[True], strict=True)])
        theirs, mine = [statistics.median(samples[ours]) * 1e6 for ours in (False, True)]
        sys.stdout.write(f"  {what:<42}{theirs:>11.0f}{mine:>15.0f}{ratio:>7.2f}\n")
        sys.stdout.flush()


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, and prints the tables."""
    parser = argparse.ArgumentParser(description="CPU time of the client per request, over calamint and without.")
    parser.add_argument("--requests", type=int, default=2000, help="in each run (default: %(default)s)")
    parser.add_argument("--repeat", type=int, default=5, help="runs of each client (default: %(default)s)")
    parser.add_argument("--library", choices=("httpx2", "httpx", "requests"), action="append", help="(default: all)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        root = Path(name)
        root.chmod(0o755)
        docroot = servers.write_docroot(root)
        places = [root / "node", root / "nginx"]
        for place in places:
            place.mkdir()
        ca = servers.PrivateCa(root)
        node = stack.enter_context(servers.node(places[0], docroot, ca))
        nginx = stack.enter_context(servers.nginx(places[1], docroot, ca, node))
        site = Site(nginx.urls, str(ca.ca_file))
        for library in options.library or ("httpx2", "httpx", "requests"):
            runs = of_requests(site) if library == "requests" else scenarios(site, library)
            measure(library, runs, options.requests, options.repeat)


if __name__ == "__main__":
    main()
