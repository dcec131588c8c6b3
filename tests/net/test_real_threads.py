"""The pool for threads against real servers: many threads at once, connections that the server ends, large content."""

import hashlib
import re
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import calamint
from calamint import core
from tests import servers
from tests.net.live import Way, ways
from tests.net.pool_help import at_rest, in_threads, nothing_left, wait_until

pytestmark = pytest.mark.server

SECONDS = 90.0


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    with nothing_left():
        yield


def open_pool(way: Way, limits: calamint.Limits | None = None) -> calamint.Pool:
    """One that reaches the server this way."""
    http2 = way.protocol == "h2"
    verify = str(way.server.ca_file) if way.key == "https" else True
    return calamint.Pool(http1=not http2, http2=http2, verify=verify, limits=limits or calamint.Limits())


def test_D13_40_threads_on_one_connection(nghttpd: servers.Server) -> None:
    """2,000 requests each; every response is its own request's content."""
    with calamint.Pool(http1=False, limits=calamint.Limits(max_per_origin=1)) as pool:
        url = nghttpd.urls["h2c"] + "/echo"

        def run(number: int) -> None:
            for place in range(2000):
                content = b"%d of %d" % (place, number)
                with pool.request("POST", url, content=content) as call:
                    assert call.response().content == content

        in_threads(40, run, SECONDS)
        stats = pool.stats()
        assert (stats.requests, stats.failures, stats.dials) == (80_000, 0, 1)
        at_rest(pool)


def test_D13_40_threads_on_ten_connections(nginx: servers.Server) -> None:
    """Over HTTP/1.1; every response is delivered once, as its number says."""
    limits = calamint.Limits(max_connections=10)
    seen: list[set[str | None]] = [set() for _ in range(40)]
    with calamint.Pool(limits=limits) as pool:

        def run(number: int) -> None:
            for _ in range(2000):
                with pool.request("GET", nginx.urls["http1"] + "/unique") as call:
                    response = call.response()
                    assert response.content == b"unique\n"
                    seen[number].add(response.get("x-request-id"))

        in_threads(40, run, SECONDS)
        assert len(set.union(*seen)) == 80_000
        stats = pool.stats()
        assert (stats.failures, stats.dials, stats.connections) == (0, 10, 10)


@pytest.mark.parametrize("protocol", ["h2c", "http1"])
def test_E8_connections_that_end_after_100_requests(
    protocol: str, tmp_path: Path, large_file: Path, private_ca: servers.PrivateCa, node: servers.Server
) -> None:
    """5,000 requests of 50 threads: all are answered, and each was executed exactly once."""
    log = tmp_path / "access.log"
    with servers.nginx(tmp_path, large_file.parent, private_ca, node, 100, log) as server:
        with calamint.Pool(http1=protocol == "http1", limits=calamint.Limits(max_connections=10)) as pool:

            def run(number: int) -> None:
                for place in range(100):
                    with pool.request("GET", f"{server.urls[protocol]}/small?{number}-{place}") as call:
                        assert call.response().content == servers.SMALL

            in_threads(50, run, SECONDS)
            assert pool.stats().dials >= 50
            assert pool.stats().failures == 0
            at_rest(pool)
        wait_until(lambda: log.read_text().count("\n") >= 5000)
        executed = Counter(re.findall(r"/small\?([\d-]+) HTTP/[\d.]+\" 200", log.read_text()))
        assert (len(executed), set(executed.values())) == (5000, {1})


@pytest.mark.parametrize("way", ways(["nginx", "node"]), indirect=True, ids=str)
def test_large_content_both_ways(way: Way, large_file: Path) -> None:
    """From several threads at once, over each protocol."""
    content = large_file.with_name("medium").read_bytes()
    with open_pool(way) as pool:

        def run(number: int) -> None:
            if number % 2:
                digest = hashlib.sha256()
                with pool.request("GET", f"{way.url}/medium") as call:
                    while events := call.receive_all():
                        for event in events:
                            digest.update(event.data if isinstance(event, core.DataReceived) else b"")
                assert digest.hexdigest() == servers.medium_sha256()
                return
            with pool.request("POST", f"{way.url}/upload", end=False) as call:
                for at in range(0, len(content), 65_536):
                    last = at + 65_536 >= len(content)  # and with it the response may have come already
                    assert call.send_data(content[at : at + 65_536], end=last) or last
                assert servers.medium_sha256().encode() in call.response().content

        in_threads(6, run, SECONDS)
        at_rest(pool)


@pytest.mark.parametrize("way", ways(["nginx", "nghttpd"], "h2"), indirect=True, ids=str)
def test_B9_unread_responses_stop_nobody(way: Way) -> None:
    """12 of 100 MiB that nobody reads, and 80 that are read, on one connection."""
    with open_pool(way, calamint.Limits(max_per_origin=1)) as pool:
        unread = [pool.request("GET", f"{way.url}/large") for _ in range(12)]
        for call in unread:
            assert isinstance(call.receive(), core.ResponseReceived)

        def run(number: int) -> None:
            for _ in range(10):
                with pool.request("GET", f"{way.url}/medium") as call:
                    assert len(call.response().content) == servers.MEDIUM_SIZE

        in_threads(8, run, SECONDS)
        assert max([call._box.unread for call in unread]) <= 2 * 1024 * 1024
        assert pool.stats().connections == 1
        for call in unread:
            call.cancel()
        with pool.request("GET", f"{way.url}/small") as call:
            assert call.response().content == servers.SMALL
        at_rest(pool)


def test_A1_requests_that_time_out_free_their_slots(node: servers.Server) -> None:
    """More of them than the server allows at once."""
    with calamint.Pool(http1=False, limits=calamint.Limits(max_per_origin=1)) as pool:

        def run(number: int) -> None:
            for _ in range(10):
                with pytest.raises(calamint.DeadlineExceeded):
                    pool.request("GET", f"{node.urls['h2c']}/slow?ms=60000", timeout=0.05).response()

        in_threads(40, run, SECONDS)
        with pool.request("GET", f"{node.urls['h2c']}/small") as call:
            assert call.response().content == servers.SMALL
        assert (pool.stats().dials, dict(pool.stats().timeouts)) == (1, {"total": 400})
        assert threading.active_count() < 40
