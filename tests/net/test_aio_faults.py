"""What other clients failed at, one promise a test: flow control, settings, dead peers, ends of connections, replays."""

import asyncio
import gc
import os
import select
import socket
import ssl
import subprocess
import sys
import threading
import time
from contextlib import suppress

import h2.events
import pytest

import calamint
from calamint import AsyncCall
from calamint.core import frames
from calamint.core.errors import HTTP_1_1_REQUIRED, REFUSED_STREAM
from calamint.core.events import DataReceived, ResponseReceived
from calamint.core.exchange import Clocks, Settings
from calamint.core.pool_state import Limits, PoolSnapshot
from calamint.net.aio import Pool
from calamint.net.aio_desk import MOVED
from calamint.net.dial import Address
from calamint.testing import (
    Action,
    Request,
    answer,
    close,
    delay,
    drip,
    forget,
    garbage,
    goaway,
    refuse,
    reset,
    stop_reading,
)
from tests import servers
from tests.net.aio_run import LIMIT, ONE, Place, cancelled_at, fetch, new_loop, until, wait_for
from tests.net.test_sync import Echo, echo_http1
from tests.net.thread_server import ThreadServer, full_listener, no_answer, read_head

pytestmark = pytest.mark.usefixtures("nothing_left")
TEN_MB = 40 * 256 * 1024


@pytest.fixture
def h2c(loop: str, private_ca: servers.PrivateCa) -> Place:
    return Place(loop, "h2", private_ca)


@pytest.fixture
def http1(loop: str, private_ca: servers.PrivateCa) -> Place:
    return Place(loop, "http1", private_ca)


# A: streams


@pytest.mark.parametrize("whole", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_A7_a_corpse_is_fed_no_more_than_its_slots(h2c: Place, whole: bool) -> None:
    """Resets to a peer that shows no life keep their slots: then another connection is made, and the first one condemned."""

    async def work() -> None:
        async with h2c.pool(Limits(max_connections=2)) as pool:
            assert await fetch(pool, peer.url) == b"ok"
            failed = 0
            for call in [pool.request("GET", f"{peer.url}/dead", timeout=0.05) for _ in range(30)]:
                try:
                    await call.response()
                except calamint.DeadlineExceeded:
                    failed += 1
            assert failed >= 10
            assert await fetch(pool, peer.url) == b"ok"
            assert pool.stats().connections == 2
            if whole:  # nothing comes within 10 s after the PING
                await until(lambda: pool.stats().connections == 1, 15.0)
                assert await fetch(pool, peer.url) == b"ok"

    def act(request: Request) -> Action:
        return stop_reading() if request.connection == 0 and request.target == "/dead" else answer()

    with h2c.peer(act, max_streams=10) as peer:
        h2c.run(work())
        assert len([seen for seen in peer.report.requests if seen.connection == 0]) <= 11


def test_A15_a_time_out_ends_one_request(h2c: Place) -> None:
    """Its nine siblings finish, on the same connection."""

    async def work() -> None:
        async with h2c.pool(ONE) as pool:
            await fetch(pool, f"{peer.url}/first")
            siblings = [asyncio.create_task(fetch(pool, peer.url)) for _ in range(9)]
            with pytest.raises(calamint.DeadlineExceeded):
                await pool.request("GET", f"{peer.url}/never", timeout=0.05).response()
            assert [await sibling for sibling in siblings] == [b"0123456789"] * 9

    scripts = {"/first": answer(), "/never": forget(), "/": drip(b"0123456789", 1, 0.015)}
    with h2c.peer(lambda request: scripts[request.target]) as peer:
        h2c.run(work())
        report = peer.report
    assert report.connections == 1 and len(report.resets) == 1


def test_A16_a_server_that_forgets_the_stream(h2c: Place) -> None:
    """Head and a piece, then nothing, though PINGs are answered: `idle` ends it, and the connection is kept."""

    async def work() -> None:
        async with h2c.pool(ONE, Settings(keepalive=0.05)) as pool:
            with pytest.raises(calamint.ReadTimeout, match="idle=0.2"):
                await pool.request("GET", f"{peer.url}/forget", clocks=Clocks(idle=0.2)).response()
            assert await fetch(pool, peer.url) == b"ok"

    with h2c.peer(lambda r: drip(b"ab", 1, 60.0, end=False) if r.target == "/forget" else answer()) as peer:
        h2c.run(work())
        report = peer.report
    assert report.connections == 1 and report.pings >= 1 and not report.streams_open


# B: flow control


def test_B2_content_that_nobody_reads_leaks_no_window(h2c: Place) -> None:
    """Fifty responses of which only the head is read, many times the connection's window; then one is read whole."""

    async def work() -> None:
        settings = Settings(stream_window=100_000, connection_window=200_000)
        async with h2c.pool(ONE, settings) as pool:
            for _ in range(50):
                async with pool.request("GET", f"{peer.url}/skip") as call:
                    assert isinstance(await call.receive(), ResponseReceived)
            assert len(await fetch(pool, f"{peer.url}/whole")) == 1_000_000

    with h2c.peer(lambda r: answer(content=bytes(1_000_000 if r.target == "/whole" else 60_000))) as peer:
        h2c.run(work(), debug=False)
        assert peer.report.connections == 1


def test_B9_unread_responses_do_not_starve_the_others(h2c: Place) -> None:
    """12 that nobody reads and 80 that are read, on one connection whose window is smaller than theirs together."""

    async def work() -> None:
        settings = Settings(stream_window=65_535, connection_window=256 * 1024)
        async with h2c.pool(ONE, settings) as pool:
            unread = [pool.request("GET", peer.url) for _ in range(12)]
            for call in unread:
                assert isinstance(await call.receive(), ResponseReceived)
            for content in await asyncio.gather(*[fetch(pool, peer.url) for _ in range(80)]):
                assert len(content) == 100_000
            for call in unread:  # and they can still be read
                events = [event for event in await call.receive_all() if isinstance(event, DataReceived)]
                assert sum([len(event.data) for event in events]) <= 65_535
                call.cancel()

    with h2c.peer([answer(content=bytes(100_000))]) as peer:
        h2c.run(work(), debug=False)
        assert peer.report.connections == 1


def test_B9_http1_is_not_read_beyond_its_window(http1: Place) -> None:
    """What nobody reads stays with the server, and the rest comes when somebody does."""
    window = 200_000

    async def work() -> None:
        async with http1.pool(ONE, Settings(stream_window=window)) as pool, pool.request("GET", peer.url) as call:
            await call.receive()
            await until(lambda: pool.snapshot().connections[0].requests[0].unread >= window)
            for _ in range(100):
                await asyncio.sleep(0)
            assert pool.snapshot().connections[0].requests[0].unread < window + 256 * 1024
            assert len(await rest(call)) == TEN_MB

    with http1.peer([answer(content=bytes(TEN_MB))]) as peer:
        http1.run(work(), debug=False)


async def rest(call: AsyncCall) -> bytes:
    """The content that has not been taken."""
    parts: list[bytes] = []
    while events := await call.receive_all():
        parts += [event.data for event in events if isinstance(event, DataReceived)]
    return b"".join(parts)


class Stingy(Echo):
    """Gives no credit for the connection's window until a request without content asks for it, and then all at once."""

    def take(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.RequestReceived) and event.stream_id is not None:
            if event.stream_ended is not None:
                self.engine.increment_flow_control_window(2**24)
            else:
                self.engine.increment_flow_control_window(2**24, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded) and event.stream_id is not None:
            self.engine.send_headers(event.stream_id, [(":status", "200")], end_stream=True)


def test_B11_uploads_wait_for_a_condition(h2c: Place) -> None:
    """Eight of them wait for the connection's window; the peer opens it once, and is silent then: all go on."""

    async def upload(pool: Pool, url: str) -> int:
        async with pool.request("POST", url, end=False) as call:
            for _ in range(4):
                assert await call.send_data(bytes(50_000))
            await call.send_data(b"", end=True)
            return (await call.response()).status

    async def work(url: str) -> None:
        async with h2c.pool(ONE) as pool:
            uploads = [asyncio.create_task(upload(pool, url)) for _ in range(8)]
            await until(lambda: pool.stats().stalls >= 1)
            assert not [task for task in uploads if task.done()]
            assert await fetch(pool, url) == b""
            assert [await task for task in uploads] == [200] * 8

    with ThreadServer(Stingy().handle) as server:
        h2c.run(work(server.url))


def test_B12_an_early_answer_wakes_the_one_who_sends(place: Place) -> None:
    """413 while most of the content waits: `send_data` says so, and the response is there."""

    async def work() -> None:
        async with place.pool(ONE) as pool, pool.request("POST", peer.url, end=False) as call:
            sent = 0
            while await call.send_data(bytes(500_000)):
                sent += 1
                assert sent < 100
            assert (await call.response()).status == 413
            assert not await call.send_data(b"more")

    action = answer(413, content=b"too much", early=True)
    with place.peer([action + close() if place.way == "http1" else action], initial_window=65_535, credit=0) as peer:
        place.run(work())


@pytest.mark.parametrize(
    ("protocol", "way"),
    [
        ("http1", "tasks"),
        ("h2", "pieces"),
        *[pytest.param("http1", way, marks=pytest.mark.slow) for way in ("pieces", "whole")],
        *[pytest.param("h2", way, marks=pytest.mark.slow) for way in ("tasks", "whole")],
    ],
)
def test_B14_ten_megabytes_sent_back_through_small_buffers(
    loop: str, protocol: str, way: str, private_ca: servers.PrivateCa
) -> None:
    """The server does not read while it writes: whoever writes without reading is stuck."""
    place = Place(loop, protocol, private_ca)
    content = b"".join([number.to_bytes(4, "big") for number in range(TEN_MB // 4)])

    async def send(call: AsyncCall) -> None:
        for at in range(0, TEN_MB, 256 * 1024):
            last = at + 256 * 1024 >= TEN_MB  # and with it the response may have come already
            assert await call.send_data(content[at : at + 256 * 1024]) or last
        await call.send_data(b"", end=True)

    async def work(url: str) -> None:
        fields = {"content-length": str(TEN_MB)}
        async with place.pool(ONE) as pool:
            if way == "whole":
                assert (await pool.request("POST", url, fields, content).response()).content == content
                return
            async with pool.request("POST", url, fields, end=False) as call:
                if way == "tasks":
                    task = asyncio.create_task(send(call))
                    assert await rest(call) == content
                    await task
                else:
                    await send(call)
                    assert (await call.response()).content == content

    with ThreadServer(Echo().handle if protocol == "h2" else echo_http1, buffer=16_384) as server:
        place.run(work(server.url), debug=False)


@pytest.mark.slow
def test_slow_progress_is_progress(http1: Place) -> None:
    """A peer that takes the content slowly is not taken for one that takes none: what has left is looked at in time."""

    def handle(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        left = 160_000
        data = read_head(sock).partition(b"\r\n\r\n")[2]
        while left := left - len(data):
            time.sleep(0.05)
            data = sock.recv(4096)
        sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        no_answer(sock)

    async def work(url: str) -> None:
        async with http1.pool(ONE) as pool:
            await fetch(pool, url)
            assert pool._desk is not None
            (link,) = pool._desk.links.values()
            link.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
            call = pool.request("POST", url, content=bytes(160_000), clocks=Clocks(write=0.5))
            assert (await call.response()).status == 200

    with ThreadServer(handle, buffer=4096) as server:
        http1.run(work(server.url), debug=False)


# C: settings and slots


def test_C1_C2_limits_that_change(h2c: Place) -> None:
    """Lowered below what is in flight, to nothing, and raised again: whoever waits gets his turn."""

    async def work() -> None:
        async with h2c.pool(ONE, Settings(first_streams=4)) as pool:
            first = [asyncio.create_task(fetch(pool, f"{peer.url}/first")) for _ in range(4)]
            later = [asyncio.create_task(fetch(pool, f"{peer.url}/later")) for _ in range(4)]
            assert [await task for task in first + later] == [b"ok"] * 8
            assert pool.stats().connections == 1

    def limit(streams: int) -> Action:
        return garbage(frames.encode_settings(((frames.MAX_CONCURRENT_STREAMS, streams),)))

    def act(request: Request) -> Action:
        if request.number == 0:
            return delay(0.05, limit(0) + answer()) + delay(0.1, limit(10))
        return delay(0.1, answer())

    with h2c.peer(act, max_streams=None) as peer:
        h2c.run(work())
        assert not peer.report.refused


def test_C5_a_full_connection_is_followed_by_another(h2c: Place) -> None:
    """Two connections with one stream each: the third request waits, and is served."""

    async def work() -> None:
        limits = Limits(max_connections=2, max_per_origin=2)
        async with h2c.pool(limits, Settings(first_streams=1)) as pool:
            tasks = [asyncio.create_task(fetch(pool, peer.url)) for _ in range(3)]
            await wait_for(peer, lambda report: report.streams_open == 2)
            assert pool.stats().waiting == 1 and pool.stats().connections == 2
            assert [await task for task in tasks] == [b"ok"] * 3

    with h2c.peer([delay(0.1, answer())], max_streams=1) as peer:
        h2c.run(work())
        assert peer.report.connections == 2 and peer.report.streams_peak == 1


# D: dead, idle and shared connections


@pytest.mark.slow
def test_D1_a_peer_that_is_gone_is_found_by_ping(h2c: Place) -> None:
    """It stops reading, and so writing: the PING is not answered, and the next request goes elsewhere."""

    async def work() -> None:
        async with h2c.pool(ONE, Settings(keepalive=0.1)) as pool:
            began = time.monotonic()
            with pytest.raises(calamint.ReadTimeout, match="no answer to a PING"):
                await pool.request("POST", f"{peer.url}/gone").response()
            assert 10.0 <= time.monotonic() - began < 12.0
            assert await fetch(pool, peer.url) == b"ok"

    with h2c.peer(lambda request: stop_reading() if request.target == "/gone" else answer()) as peer:
        h2c.run(work(), debug=False)


def test_D3_a_long_silence_is_bridged_by_ping(h2c: Place) -> None:
    """What stands between sees frames, though the response takes its time."""

    async def work() -> None:
        async with h2c.pool(ONE, Settings(keepalive=0.05)) as pool:
            assert await fetch(pool, peer.url) == b"ok"

    with h2c.peer([delay(0.3, answer())]) as peer:
        h2c.run(work())
        assert peer.report.pings == 1  # and within one silence not soon another


def test_D5_a_connection_that_is_ending_is_replaced(h2c: Place) -> None:
    """GOAWAY on an idle connection: it is closed, and the next request makes another."""

    async def work() -> None:
        async with h2c.pool(ONE) as pool:
            assert await fetch(pool, peer.url) == b"ok"
            await until(lambda: pool.stats().connections == 0)
            assert await fetch(pool, peer.url) == b"ok"

    with h2c.peer([answer() + delay(0.05, goaway()), answer()]) as peer:
        h2c.run(work())
        assert peer.report.connections == 2


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_D6_a_connection_that_closes_under_the_second_request(http1: Place, method: str) -> None:
    """A GET is sent once more, on a fresh connection; a POST is not, and its error says why."""

    async def work() -> None:
        async with http1.pool(ONE) as pool:
            assert await fetch(pool, peer.url) == b"ok"
            if method == "GET":
                assert await fetch(pool, f"{peer.url}/second") == b"ok"
            else:
                with pytest.raises(
                    calamint.ReadError, match="closed the connection before the response came"
                ) as caught:
                    await fetch(pool, f"{peer.url}/second", "POST", b"once")
                assert caught.value.attempts == 1 and not caught.value.unprocessed

    with http1.peer([answer(), close(), answer()]) as peer:
        http1.run(work())
        assert len(peer.report.requests) == (3 if method == "GET" else 2)


@pytest.mark.parametrize("pause", [0.0, 0.01, 0.1])
def test_D8_a_second_response_is_nobodys(http1: Place, pause: float) -> None:
    """Two responses to one request, in one piece or not: what is too much ends the connection."""
    one = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b"

    def handle(sock: socket.socket) -> None:
        read_head(sock)
        first, second = one % (4, b"mine"), one % (6, b"forged")
        sock.sendall(first if pause else first + second)
        time.sleep(pause)
        if pause:
            sock.sendall(second)
        with suppress(OSError):
            no_answer(sock)

    async def work(url: str) -> None:
        async with http1.pool(ONE) as pool:
            assert await fetch(pool, url) == b"mine"
            await until(lambda: pool.stats().connections == 0)
            assert await fetch(pool, url) == b"mine"
            await until(lambda: pool.stats().connections == 0)

    with ThreadServer(handle, connections=2) as server:
        http1.run(work(server.url))


@pytest.mark.parametrize("what", [b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged", b""], ids=["bytes", "end"])
def test_D8_what_has_come_before_a_request_left_is_no_answer(http1: Place, what: bytes) -> None:
    """It is there before the loop has had a turn to see it: the request, a POST, goes out elsewhere, and only there."""
    go_on = threading.Event()
    heads: list[bytes] = []

    def handle(sock: socket.socket) -> None:
        heads.append(read_head(sock).split()[1])
        sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nmine")
        if len(heads) == 1:
            assert go_on.wait(LIMIT)
            if what:
                sock.sendall(what)
            else:
                sock.shutdown(socket.SHUT_WR)
        with suppress(OSError):
            no_answer(sock)

    async def work(url: str) -> None:
        async with http1.pool(ONE) as pool:
            assert await fetch(pool, f"{url}/first") == b"mine"
            assert pool._desk is not None
            (link,) = pool._desk.links.values()
            go_on.set()
            assert select.select([link.sock], [], [], LIMIT)[0]  # the loop does not run meanwhile
            assert await fetch(pool, f"{url}/second", "POST", b"once") == b"mine"
            stats = pool.stats()
            assert (stats.dials, stats.replays, stats.connections) == (2, 1, 1)

    with ThreadServer(handle, connections=2) as server:
        http1.run(work(server.url))
    assert heads == [b"/first", b"/second"]


@pytest.mark.parametrize("seconds", [0.3, pytest.param(3.0, marks=pytest.mark.slow)])
def test_D9_requests_come_as_connections_expire(place: Place, seconds: float) -> None:
    """Idle connections are closed after a moment, just when the next request may come: none fails."""

    async def one(pool: Pool, ends: float) -> int:
        count = 0
        while time.monotonic() < ends:
            assert await fetch(pool, peer.url) == b"ok"
            count += 1
            await asyncio.sleep(0.001 + 0.0001 * (count % 20))
        return count

    async def work() -> None:
        async with place.pool(Limits(max_connections=4, keepalive_expiry=0.002)) as pool:
            ends = time.monotonic() + seconds
            assert sum(await asyncio.gather(*[one(pool, ends) for _ in range(4)])) > 20

    with place.peer() as peer:
        place.run(work(), debug=False)
        assert peer.report.connections > 4


@pytest.mark.parametrize("cancelled", [False, True])
def test_D10_aclose_waits_for_nobody(loop: str, private_ca: servers.PrivateCa, cancelled: bool) -> None:
    """A TLS server that never answers close_notify, a request under way: it takes no 200 ms, nor does one that is cancelled."""
    place = Place(loop, "tls1", private_ca)
    done = threading.Event()

    def handle(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
        assert done.wait(LIMIT)  # and nothing is read, or said

    async def work(url: str) -> None:
        pool = place.pool(ONE)
        call = pool.request("GET", url)
        await call.receive()
        began = time.monotonic()
        if cancelled:
            await cancelled_at(pool.aclose(), 1)
            with pytest.raises(calamint.LocalProtocolError, match="the pool is clos"):
                pool.request("GET", url)
        await pool.aclose()
        assert time.monotonic() - began < 0.2
        await pool.aclose()
        with pytest.raises(calamint.StreamClosed):
            await call.response()

    with ThreadServer(handle, place.server_context()) as server:
        place.run(work(server.url))
        done.set()


def test_D10_grace(place: Place) -> None:
    """What runs may end, nothing new is taken, and what has not ended by then is reset."""

    async def work() -> None:
        async with place.pool(Limits(max_connections=2)) as pool:
            quick = asyncio.create_task(fetch(pool, f"{peer.url}/quick"))
            never = pool.request("GET", f"{peer.url}/never")
            await wait_for(peer, lambda report: len(report.requests) == 2)
            began = time.monotonic()
            closing = asyncio.create_task(pool.aclose(0.3))
            assert await quick == b"ok"
            with pytest.raises(calamint.StreamClosed):
                await never.response()
            await closing
            assert 0.29 <= time.monotonic() - began < 1.0

    with place.peer(lambda r: forget() if r.target == "/never" else delay(0.1, answer())) as peer:
        place.run(work())


FORK = """
import asyncio, logging, os, sys
import calamint
logging.basicConfig(stream=sys.stdout, format="%(levelname)s %(message)s", level=logging.WARNING)

async def several(who):
    for number in range(20):
        response = await pool.request("GET", f"{url}/{who}/{number}").response()
        assert response.content == f"/{who}/{number}".encode(), (who, number, response.content)

async def warm():
    await several("before")
    call = pool.request("GET", url + "/never")
    child = os.fork()
    if not child:
        async def again():
            await several("child")
            try:
                await call.response()
            except calamint.ReadError as error:
                print(error)
            await pool.aclose()
        asyncio.run(again())
        sys.stdout.flush()
        os._exit(0)
    await several("parent")
    assert os.waitpid(child, 0)[1] == 0
    await several("parent")
    call.cancel()
    print(pool.stats().dials)
    await pool.aclose()

url, http1 = sys.argv[1], sys.argv[2] == "http1"
pool = calamint.AsyncPool(http1=http1)
asyncio.run(warm())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("protocol", ["http1", "h2"])
def test_D11_after_a_fork_both_are_answered(protocol: str, private_ca: servers.PrivateCa) -> None:
    """The child begins with an empty pool, and writes no byte to what it has inherited; the parent notices nothing."""
    place = Place("asyncio", protocol, private_ca)

    def act(request: Request) -> Action:
        return forget() if request.target == "/never" else answer(content=request.target.encode())

    with place.peer(act) as peer:
        command = [sys.executable, "-W", "error", "-c", FORK, peer.url, protocol]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        report = peer.report
    assert done.returncode == 0 and not done.stderr, done.stderr
    words = "the process was forked: a pool's connections stay with the process that made them"
    assert done.stdout.splitlines() == [f"WARNING {words}", words, "2" if protocol == "http1" else "1"]
    assert report.connections == (3 if protocol == "http1" else 2)
    assert not report.protocol_errors
    assert len(report.requests) == 81


def test_D12_one_pool_in_two_loops(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    """Both work, and one warning says that connections were left. What ran in the first one has failed."""
    pool = place.pool(ONE)
    calls: list[AsyncCall] = []

    async def work() -> None:
        assert await fetch(pool, peer.url) == b"ok"
        calls.append(pool.request("GET", f"{peer.url}/never"))

    async def last() -> None:
        with pytest.raises(calamint.StreamClosed):
            await calls[0].response()
        calls[1].cancel()
        await pool.aclose()

    with place.peer(lambda r: forget() if r.target == "/never" else answer()) as peer:
        place.run(work(), closed=False)
        assert not caplog.records
        place.run(work(), closed=False)
        place.run(last())
    assert [record.message for record in caplog.records] == [MOVED]
    assert peer.report.connections == 2


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # of the loop, about its transports
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_D12_the_first_loop_was_closed_without_ado(loop: str, private_ca: servers.PrivateCa) -> None:
    """`loop.close()` and nothing else: the sockets are closed when the pool is used again."""
    place = Place(loop, "http1", private_ca)
    pool = place.pool()

    async def first() -> AsyncCall:
        assert await fetch(pool, peer.url) == b"ok"
        return pool.request("GET", f"{peer.url}/never")

    async def second() -> None:
        assert await fetch(pool, peer.url) == b"ok"
        assert (await wait_for(peer, lambda report: report.connections_open == 1)).connections == 2
        with pytest.raises(calamint.ReadError, match="another event loop now"):
            await call.response()
        await pool.aclose()

    with place.peer(lambda r: forget() if r.target == "/never" else answer()) as peer:
        events = new_loop(loop)
        call = events.run_until_complete(first())
        events.close()
        place.run(second())
        gc.collect()


def test_D12_two_loops_in_two_threads(http1: Place) -> None:
    """The first one still runs: it closes its own connections when it hears of it, and its calls fail."""
    pool = http1.pool()
    moved = threading.Event()

    async def first() -> None:
        assert await fetch(pool, peer.url) == b"ok"
        call = pool.request("GET", f"{peer.url}/never")
        other = threading.Thread(target=lambda: http1.run(second()))
        other.start()
        with pytest.raises(calamint.ReadError, match="another event loop now"):
            await call.response()
        await asyncio.to_thread(other.join, LIMIT)
        assert moved.is_set()

    async def second() -> None:
        assert await fetch(pool, peer.url) == b"ok"
        await wait_for(peer, lambda report: report.connections_open == 1)
        await pool.aclose()
        moved.set()

    with http1.peer(lambda r: forget() if r.target == "/never" else answer()) as peer:
        http1.run(first())


def test_D14_waiting_costs_nothing(place: Place) -> None:
    """No loop spins while there is nothing to do."""

    async def work() -> None:
        async with place.pool(ONE) as pool:
            assert await fetch(pool, peer.url) == b"ok"
            call = pool.request("GET", f"{peer.url}/never", timeout=0.2)
            used = time.thread_time()
            with pytest.raises(calamint.DeadlineExceeded):
                await call.response()
            assert time.thread_time() - used < 0.02

    with place.peer(lambda r: forget() if r.target == "/never" else answer()) as peer:
        place.run(work(), debug=False)


def test_D14_the_loop_stays_quick(place: Place) -> None:
    """Nothing that the pool does keeps other tasks waiting: their lag under load is some milliseconds."""
    lags: list[float] = []

    async def watch() -> None:
        while True:
            began = time.perf_counter()
            await asyncio.sleep(0)
            lags.append(time.perf_counter() - began)

    async def work() -> None:
        async with place.pool(Limits(max_connections=20)) as pool:
            watcher = asyncio.create_task(watch())
            for _ in range(3):
                await asyncio.gather(*[fetch(pool, peer.url) for _ in range(50)])
            watcher.cancel()
            await asyncio.wait([watcher])

    with place.peer([answer(content=bytes(20_000))]) as peer:
        place.run(work(), debug=False)
    lags.sort()
    assert lags[len(lags) * 99 // 100] < 0.05


# E: ends of connections, and what is tried again


def test_E1_a_graceful_goaway_lets_streams_end(h2c: Place) -> None:
    """The response comes after GOAWAY, and then the connection is closed by us."""

    async def work() -> None:
        async with h2c.pool(ONE) as pool:
            assert await fetch(pool, peer.url) == b"late"
            await until(lambda: pool.stats().connections == 0)

    with h2c.peer([goaway(then=delay(0.1, answer(content=b"late")))]) as peer:
        h2c.run(work())
        assert len(peer.report.requests) == 1


def test_E2_what_was_not_processed_is_sent_again(h2c: Place) -> None:
    """GOAWAY before any of three POSTs: each is served once, by the second connection, with its content."""

    async def work() -> None:
        async with h2c.pool(Limits(max_connections=2)) as pool:
            assert await fetch(pool, peer.url) == b"/"
            calls = [pool.request("POST", f"{peer.url}/{n}", content=b"%d" % n) for n in range(3)]
            assert [(await call.response()).content for call in calls] == [b"/0", b"/1", b"/2"]
            assert pool.stats().replays == 3

    def act(request: Request) -> Action:
        if request.connection == 0 and request.number:
            return goaway(last=1, early=True)
        return answer(content=request.target.encode())

    with h2c.peer(act) as peer:
        h2c.run(work())
        served = [seen for seen in peer.report.requests if seen.connection == 1]
    assert sorted([(seen.target, seen.content) for seen in served]) == [("/0", b"0"), ("/1", b"1"), ("/2", b"2")]


def test_E5_E6_refused_streams(h2c: Place) -> None:
    """Refused once, it is sent again; refused always, it is not sent for ever."""

    async def work() -> None:
        async with h2c.pool(ONE) as pool:
            assert await fetch(pool, f"{peer.url}/once", "POST", b"content") == b"ok"
            with pytest.raises(calamint.StreamReset) as caught:
                await pool.request("GET", f"{peer.url}/always").response()
            assert caught.value.code == REFUSED_STREAM
            assert caught.value.unprocessed and caught.value.attempts == 2
            with pytest.raises(calamint.StreamReset) as caught:
                await pool.request("GET", f"{peer.url}/always", replay=False).response()
            assert caught.value.attempts == 1

    def act(request: Request) -> Action:
        return refuse() if request.target == "/always" or request.number == 0 else answer()

    with h2c.peer(act) as peer:
        h2c.run(work())
        assert [seen.target for seen in peer.report.requests] == ["/once"] * 2 + ["/always"] * 3


def test_E9_http11_required_is_remembered(loop: str, private_ca: servers.PrivateCa) -> None:
    """The origin is spoken to in HTTP/1.1 from then on."""
    place = Place(loop, "tls", private_ca)

    async def work() -> None:
        async with Pool(verify=str(private_ca.ca_file)) as pool:
            for _ in range(2):
                async with pool.request("GET", peer.url) as call:
                    assert (await call.response()).content == b"ok"
                    assert call.protocol == "http/1.1"

    with place.peer(lambda r: reset(HTTP_1_1_REQUIRED) if r.stream_id else answer()) as peer:
        place.run(work())
        assert peer.report.connections == 2 and len(peer.report.requests) == 3


# F: the pool


def test_F3_a_dial_that_failed_leaves_no_entry(http1: Place) -> None:
    """One slot, and a host that does not answer: the slot is free when the limit is over."""

    async def work(dead: str) -> None:
        async with http1.pool(ONE) as pool:
            for _ in range(2):
                with pytest.raises(calamint.ConnectTimeout, match="within the connect limit"):
                    await pool.request("GET", dead, connect=0.05).response()
            assert await fetch(pool, peer.url) == b"ok"

    with full_listener() as (host, port), http1.peer() as peer:
        http1.run(work(f"http://{host}:{port}"))


def test_F4_responses_that_are_left_open(place: Place) -> None:
    """Twenty errors, each left with an exception and its content unread: the slot is free every time."""

    async def work() -> None:
        async with place.pool(ONE) as pool:
            for _ in range(20):
                with pytest.raises(ZeroDivisionError):
                    async with pool.request("GET", f"{peer.url}/busy") as call:
                        head = await call.receive()
                        assert isinstance(head, ResponseReceived) and head.status == 429
                        raise ZeroDivisionError
            assert await fetch(pool, peer.url) == b"ok"

    with place.peer(lambda r: drip(bytes(100), 10, 5.0, 429) if r.target == "/busy" else answer()) as peer:
        place.run(work())


def test_F5_time_belongs_to_the_request(h2c: Place) -> None:
    """A busy sibling does not put off a clock, and a clock that runs out leaves a quiet sibling alone."""

    async def work() -> None:
        async with h2c.pool(ONE) as pool:
            busy = asyncio.create_task(fetch(pool, f"{peer.url}/busy"))
            quiet = asyncio.create_task(fetch(pool, f"{peer.url}/quiet"))
            await asyncio.sleep(0)
            began = time.monotonic()
            with pytest.raises(calamint.ReadTimeout):
                await pool.request("GET", f"{peer.url}/never", clocks=Clocks(head=0.15)).response()
            assert 0.14 <= time.monotonic() - began < 0.25
            assert await quiet == b"ok" and await busy == bytes(60)

    scripts = {"/busy": drip(bytes(60), 1, 0.005), "/quiet": delay(0.3, answer()), "/never": forget()}
    with h2c.peer(lambda request: scripts[request.target]) as peer:
        h2c.run(work())
        assert peer.report.connections == 1


def test_F6_who_holds_the_slots(http1: Place) -> None:
    """PoolTimeout says, in words and with a snapshot."""

    async def work() -> None:
        async with http1.pool(Limits(max_connections=10)) as pool:
            holders = [pool.request("GET", f"{peer.url}/hold/{number}") for number in range(10)]
            await wait_for(peer, lambda report: report.streams_open == 10)
            with pytest.raises(calamint.PoolTimeout) as caught:
                await pool.request("GET", peer.url, pool=0.05).response()
            assert "(pool=0.05), 10 taken by: " in str(caught.value)
            assert all([f"GET /hold/{number} for" in str(caught.value) for number in range(10)])
            assert isinstance(caught.value.snapshot, PoolSnapshot) and len(caught.value.snapshot.connections) == 10
            assert caught.value.unprocessed
            for call in holders:
                call.cancel()

    with http1.peer([forget()]) as peer:
        http1.run(work())


def test_F7_handshakes_that_fail_keep_no_slot(loop: str, private_ca: servers.PrivateCa) -> None:
    """A certificate that is not trusted, one slot: five requests, five ConnectErrors that say why."""
    place = Place(loop, "tls", private_ca)

    async def work() -> None:
        async with Pool(limits=ONE) as pool:
            for _ in range(5):
                with pytest.raises(calamint.ConnectError, match="certificate verify failed") as caught:
                    await pool.request("GET", peer.url, pool=1.0).response()
                assert caught.value.unprocessed and not isinstance(caught.value, calamint.PoolTimeout)

    with place.peer() as peer:
        place.run(work())


# H: dialling


def test_H1_one_limit_for_all_of_it(place: Place) -> None:
    """A server that drips: over at 0.3 s, and the slot is free."""

    async def work() -> None:
        async with place.pool(ONE) as pool:
            began = time.monotonic()
            with pytest.raises(calamint.DeadlineExceeded, match="after it was sent"):
                await pool.request("GET", f"{peer.url}/drip", timeout=0.3).response()
            assert 0.29 <= time.monotonic() - began < 0.5
            assert await fetch(pool, peer.url) == b"ok"

    with place.peer(lambda r: drip(bytes(100), 1, 0.09) if r.target == "/drip" else answer()) as peer:
        place.run(work())


def test_H2_two_dead_addresses_before_a_good_one(http1: Place) -> None:
    """They are tried in turn and given up when the good one has answered, and leave no descriptor."""

    async def work(dead: tuple[str, int]) -> None:
        def resolver(host: str, port: int) -> list[Address]:
            places = [dead, dead, ("127.0.0.1", peer.port)]
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", place) for place in places]

        async with Pool(limits=ONE, resolver=resolver) as pool:
            began = time.monotonic()
            assert await fetch(pool, "http://somewhere.test") == b"ok"
            assert 0.45 <= time.monotonic() - began < 1.0

    with full_listener() as dead, http1.peer() as peer:
        http1.run(work(dead))


def test_H3_a_lookup_that_takes_too_long(http1: Place) -> None:
    """Its thread is left to itself; neither the loop nor a slot waits for it, nor does its late answer harm anybody."""
    asked = threading.Event()
    go_on = threading.Event()
    over = threading.Event()

    def resolver(host: str, port: int) -> list[Address]:
        asked.set()
        assert go_on.wait(LIMIT)
        over.set()
        return []

    async def work() -> None:
        async with Pool(limits=Limits(max_connections=2), resolver=resolver) as pool:
            with pytest.raises(calamint.ConnectTimeout):
                await pool.request("GET", "http://slow.test", connect=0.05).response()
            with pytest.raises(calamint.DeadlineExceeded):
                await pool.request("GET", "http://slow.test", timeout=0.05).response()
            assert await fetch(pool, peer.url) == b"ok"  # an address needs no lookup

    with http1.peer() as peer:
        http1.run(work())
        assert asked.is_set()
        go_on.set()
        assert over.wait(LIMIT)
    for thread in threading.enumerate():
        if thread.name == "calamint-resolve":
            thread.join(LIMIT)


def test_H5_trust_is_not_shared(loop: str, private_ca: servers.PrivateCa) -> None:
    """A pool that checks nothing and one that does: the second makes its own handshake, and fails."""
    place = Place(loop, "tls", private_ca)

    async def work() -> None:
        async with Pool(verify=False) as careless, Pool() as careful:
            assert await fetch(careless, peer.url) == b"ok"
            with pytest.raises(calamint.ConnectError, match="certificate verify failed"):
                await fetch(careful, peer.url)

    with place.peer() as peer:
        place.run(work())


def test_sessions_are_resumed(loop: str, private_ca: servers.PrivateCa) -> None:
    """The second handshake with a server is an abbreviated one (RFC 8446 §2.2), where Python can keep sessions."""
    place = Place(loop, "tls1", private_ca)
    resumed: list[bool | None] = []

    def handle(sock: socket.socket) -> None:
        assert isinstance(sock, ssl.SSLSocket)
        resumed.append(sock.session_reused)
        read_head(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok")

    async def work(url: str) -> None:
        async with place.pool() as pool:
            for _ in range(3):
                assert await fetch(pool, url) == b"ok"

    with ThreadServer(handle, place.server_context(), connections=3) as server:
        place.run(work(server.url))
    assert resumed == [False, True, True]
