"""CPU time of the client per request, end to end on loopback: `Connection` against pycurl, in one run.

    python -m benchmarks.loopback [--requests N] [--repeat N]

nghttpd serves `/small` over h2c; each client keeps 100 streams at once on one connection. The clients take turns, so that
a slower machine for a while is the same for both. What is measured is the process's own CPU time, user and system.
"""

import argparse
import gc
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pycurl

import calamint
from calamint import core
from tests import servers

STREAMS = 100
FIELDS = {"user-agent": "calamint/0.1.0", "accept": "*/*"}

Client = Callable[[str, int], float]


def run_calamint(url: str, requests: int) -> float:
    """CPU seconds per request of a `Connection`: as one response ends, the next request begins."""
    with calamint.connect(url, http1=False) as connection:
        connection.response(connection.request("GET", "/small", FIELDS))
        started = time.process_time()
        begun = ended = size = 0
        with connection.cork():
            while begun < STREAMS:
                connection.request("GET", "/small", FIELDS)
                begun += 1
        while ended < requests:
            events = connection.receive()
            with connection.cork():
                for event in events:
                    if isinstance(event, core.DataReceived):
                        size += len(event.data)
                    elif isinstance(event, core.ResponseEnded):
                        ended += 1
                        if begun < requests:
                            connection.request("GET", "/small", FIELDS)
                            begun += 1
                    elif isinstance(event, core.RequestFailed):
                        raise AssertionError(event)
        seconds = time.process_time() - started
    if size != requests * len(servers.SMALL):
        raise AssertionError(f"{size} bytes")
    return seconds / requests


def run_pycurl(url: str, requests: int) -> float:
    """CPU seconds per request of pycurl's multi interface: 100 easy handles, used again and again."""
    multi = pycurl.CurlMulti()
    multi.setopt(pycurl.M_PIPELINING, pycurl.PIPE_MULTIPLEX)
    multi.setopt(pycurl.M_MAX_HOST_CONNECTIONS, 1)
    size = 0

    def write(data: bytes) -> None:
        nonlocal size
        size += len(data)

    handles = []
    for _ in range(STREAMS):
        easy = pycurl.Curl()
        easy.setopt(pycurl.URL, f"{url}/small")
        easy.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE)
        easy.setopt(pycurl.PIPEWAIT, 1)
        easy.setopt(pycurl.USERAGENT, FIELDS["user-agent"])
        easy.setopt(pycurl.WRITEFUNCTION, write)
        handles.append(easy)
    first = handles[0]
    multi.add_handle(first)
    drive(multi, 1)
    multi.remove_handle(first)
    size = 0
    started = time.process_time()
    begun = ended = 0
    for easy in handles:
        multi.add_handle(easy)
        begun += 1
    while ended < requests:
        multi.perform()
        _, done, failed = multi.info_read()
        if failed:
            raise AssertionError(failed)
        for easy in done:
            multi.remove_handle(easy)
            ended += 1
            if begun < requests:
                multi.add_handle(easy)
                begun += 1
        if not done:
            multi.select(1.0)
    seconds = time.process_time() - started
    if size != requests * len(servers.SMALL):
        raise AssertionError(f"{size} bytes")
    return seconds / requests


def drive(multi: pycurl.CurlMulti, running: int) -> None:
    """Until nothing runs."""
    while running:
        _, running = multi.perform()
        multi.select(0.1)


CLIENTS: dict[str, Client] = {"pycurl": run_pycurl, "calamint": run_calamint}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures both and prints the table."""
    parser = argparse.ArgumentParser(description="CPU time of the client per request, against pycurl.")
    parser.add_argument("--requests", type=int, default=20_000, help="in each run (default: %(default)s)")
    parser.add_argument("--repeat", type=int, default=7, help="runs of each client (default: %(default)s)")
    options = parser.parse_args(arguments)
    samples: dict[str, list[float]] = {name: [] for name in CLIENTS}
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o755)
        docroot = servers.write_docroot(root)
        logs = root / "nghttpd"
        logs.mkdir()
        with servers.nghttpd(logs, docroot, servers.PrivateCa(root)) as server:
            for _ in range(options.repeat):
                for client, run in CLIENTS.items():
                    gc.collect()
                    samples[client].append(run(server.urls["h2c"], options.requests))
    base = samples["pycurl"]
    sys.stdout.write(f"nghttpd, h2c, {STREAMS} streams on one connection, {options.requests} requests a run\n")
    sys.stdout.write(f"  {'client':<12}{'best us':>9}{'median us':>11}{'of pycurl':>11}\n")
    for client, values in samples.items():
        ratio = statistics.median(ours / theirs for ours, theirs in zip(values, base, strict=True))
        sys.stdout.write(
            f"  {client:<12}{min(values) * 1e6:>9.1f}{statistics.median(values) * 1e6:>11.1f}{ratio:>11.2f}\n"
        )


if __name__ == "__main__":
    main()
