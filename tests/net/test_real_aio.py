"""The asyncio pool against real servers and proxies: connections that the server ends, large content, windows, tunnels."""

import asyncio
import hashlib
import re
from collections import Counter
from pathlib import Path

import pytest

import calamint
from calamint.core.events import DataReceived, ResponseReceived
from calamint.core.pool_state import Limits
from calamint.net.aio import Pool
from calamint.net.proxy import Proxy
from tests import servers
from tests.net.aio_run import LOOPS, Place, fetch, until
from tests.net.live import Way, ways
from tests.servers.proxies import PASSWORD, USER

pytestmark = [pytest.mark.server, pytest.mark.usefixtures("nothing_left")]


@pytest.fixture(params=LOOPS)
def loop(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def open_pool(way: Way, limits: Limits | None = None) -> Pool:
    """One that reaches the server this way."""
    http2 = way.protocol == "h2"
    verify = str(way.server.ca_file) if way.key == "https" else True
    return Pool(http1=not http2, http2=http2, verify=verify, limits=limits or Limits())


@pytest.mark.parametrize("protocol", ["h2c", "http1"])
def test_E8_connections_that_end_after_100_requests(
    loop: str, protocol: str, tmp_path: Path, large_file: Path, private_ca: servers.PrivateCa, node: servers.Server
) -> None:
    """5,000 requests, 50 at a time: all are answered, and each was executed exactly once."""
    log = tmp_path / "access.log"

    async def run(pool: Pool, url: str, number: int) -> None:
        for place in range(100):
            assert await fetch(pool, f"{url}/small?{number}-{place}") == servers.SMALL

    async def work(url: str) -> None:
        async with Pool(http1=protocol == "http1", limits=Limits(max_connections=10)) as pool:
            await asyncio.gather(*[run(pool, url, number) for number in range(50)])
            stats = pool.stats()
            assert stats.dials >= 50 and stats.failures == 0
            await until(lambda: log.read_text().count("\n") >= 5000)

    with servers.nginx(tmp_path, large_file.parent, private_ca, node, 100, log) as server:
        Place(loop, "", private_ca).run(work(server.urls[protocol]), debug=False)
        executed = Counter(re.findall(r"/small\?([\d-]+) HTTP/[\d.]+\" 200", log.read_text()))
    assert (len(executed), set(executed.values())) == (5000, {1})


@pytest.mark.parametrize("way", ways(["nginx", "node"]), indirect=True, ids=str)
def test_large_content_both_ways(loop: str, way: Way, large_file: Path, private_ca: servers.PrivateCa) -> None:
    """Several at once, over each protocol."""
    content = large_file.with_name("medium").read_bytes()

    async def down(pool: Pool) -> None:
        digest = hashlib.sha256()
        async with pool.request("GET", f"{way.url}/medium") as call:
            while events := await call.receive_all():
                for event in events:
                    digest.update(event.data if isinstance(event, DataReceived) else b"")
        assert digest.hexdigest() == servers.medium_sha256()

    async def up(pool: Pool) -> None:
        async with pool.request("POST", f"{way.url}/upload", end=False) as call:
            for at in range(0, len(content), 65_536):
                assert await call.send_data(content[at : at + 65_536])
            await call.send_data(b"", end=True)
            assert servers.medium_sha256().encode() in (await call.response()).content

    async def work() -> None:
        async with open_pool(way) as pool:
            await asyncio.gather(*[down(pool) for _ in range(3)], *[up(pool) for _ in range(3)])
            assert pool.stats().running == 0

    Place(loop, "", private_ca).run(work(), debug=False)


@pytest.mark.parametrize("way", ways(["nginx", "nghttpd"], "h2"), indirect=True, ids=str)
def test_B9_unread_responses_stop_nobody(loop: str, way: Way, private_ca: servers.PrivateCa) -> None:
    """12 of 100 MiB that nobody reads, and 80 that are read, on one connection."""

    async def work() -> None:
        async with open_pool(way, Limits(max_per_origin=1)) as pool:
            unread = [pool.request("GET", f"{way.url}/large") for _ in range(12)]
            for call in unread:
                assert isinstance(await call.receive(), ResponseReceived)
            for content in await asyncio.gather(*[fetch(pool, f"{way.url}/medium") for _ in range(80)]):
                assert len(content) == servers.MEDIUM_SIZE
            assert max([call._inbox.unread for call in unread]) <= 2 * 1024 * 1024
            assert pool.stats().connections == 1
            for call in unread:
                call.cancel()
            assert await fetch(pool, f"{way.url}/small") == servers.SMALL

    Place(loop, "", private_ca).run(work(), debug=False)


def test_a_hundred_at_once_on_one_connection(loop: str, nghttpd: servers.Server, private_ca: servers.PrivateCa) -> None:
    """Every response is its own request's content."""

    async def run(pool: Pool, number: int) -> None:
        for place in range(50):
            content = b"%d of %d" % (place, number)
            assert await fetch(pool, nghttpd.urls["https"] + "/echo", "POST", content) == content

    async def work() -> None:
        async with Pool(verify=str(nghttpd.ca_file), limits=Limits(max_per_origin=1)) as pool:
            await asyncio.gather(*[run(pool, number) for number in range(100)])
            stats = pool.stats()
            assert (stats.requests, stats.failures, stats.dials) == (5000, 0, 1)

    Place(loop, "", private_ca).run(work(), debug=False)


@pytest.mark.parametrize("key", ["http", "https"])
def test_through_a_proxy(
    loop: str, key: str, squid: servers.Server, node: servers.Server, private_ca: servers.PrivateCa
) -> None:
    """Tunnels for https, in TLS or not; what is http goes to the proxy itself; and its word where it refuses."""
    proxy = Proxy(squid.urls[key], auth=(USER, PASSWORD), ssl=squid.ca_file)
    wrong = Proxy(squid.urls[key], auth=(USER, "wrong"), ssl=squid.ca_file)
    urls = {name: node.urls[name].replace("127.0.0.1", "localhost") for name in ("http1", "https")}

    async def work() -> None:
        async with Pool(verify=str(node.ca_file)) as pool:
            for name, protocol in (("https", "h2"), ("http1", "http/1.1"), ("https", "h2")):
                async with pool.request("GET", f"{urls[name]}/medium", proxy=proxy) as call:
                    response = await call.response()
                    assert (response.status, len(response.content)) == (200, servers.MEDIUM_SIZE)
                    assert call.protocol == protocol
                    assert ("squid" in (response.get("via") or "")) is (name == "http1")
            assert pool.stats().dials == 2
            with pytest.raises(calamint.ProxyError) as caught:
                await pool.request("GET", f"{urls['https']}/small", proxy=wrong).response()
            assert caught.value.unprocessed

    Place(loop, "", private_ca).run(work(), debug=False)
