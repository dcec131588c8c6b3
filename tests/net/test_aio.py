"""The asyncio pool: what a caller does, what it gets back, and what it is told."""

import asyncio
import contextlib
import gc
import socket
import ssl
import struct
import sys
import threading
import time
import warnings
from pathlib import Path

import pytest

import calamint
from calamint.core import frames
from calamint.core.errors import NO_ERROR
from calamint.core.events import (
    DataReceived,
    Event,
    InterimReceived,
    ResponseEnded,
    ResponseReceived,
    TrailersReceived,
    Upgraded,
)
from calamint.core.exchange import Settings
from calamint.core.pool_state import Report
from calamint.core.url import URL, Origin
from calamint.net.aio import Pool
from calamint.net.dial import Address
from calamint.net.trace import Tracer
from calamint.testing import ScriptedPeer, answer, close, delay, drip, forget
from tests import servers
from tests.net.aio_run import LIMIT, ONE, Place, fetch, until, wait_for
from tests.net.thread_server import ThreadServer, no_answer, read_head

pytestmark = pytest.mark.usefixtures("nothing_left")
MUCH = bytes(8_000_000)


@pytest.fixture
def http1(loop: str, private_ca: servers.PrivateCa) -> Place:
    return Place(loop, "http1", private_ca)


@pytest.fixture
def tls1(loop: str, private_ca: servers.PrivateCa) -> Place:
    return Place(loop, "tls1", private_ca)


@pytest.fixture
def h2c(loop: str, private_ca: servers.PrivateCa) -> Place:
    return Place(loop, "h2", private_ca)


def names(events: list[Event]) -> list[str]:
    return [type(event).__name__ for event in events]


# A call


def test_events_come_in_their_order_and_then_nothing(place: Place) -> None:
    async def work() -> None:
        async with place.pool() as pool, pool.request("GET", peer.url) as call:
            assert (call.ticket, call.protocol, call.is_over) == (1, "", False)
            events: list[Event] = []
            while (event := await call.receive()) is not None:
                events.append(event)
                assert call.protocol == ("http/1.1" if place.way == "http1" else "h2")
            kinds = [InterimReceived, ResponseReceived, DataReceived, TrailersReceived, ResponseEnded]
            assert [kind for kind in kinds if any([isinstance(event, kind) for event in events])] == kinds
            assert isinstance(events[-1], ResponseEnded)
            assert call.is_over and await call.receive() is None and await call.receive_all() == []
            assert repr(call) == "<Call 1: GET /, over>"
            with pytest.raises(calamint.StreamClosed, match="has been taken"):
                await call.response()

    with place.peer([answer(content=b"hello", trailers=((b"a", b"b"),), interim=[(103, ())])]) as peer:
        place.run(work())


def test_a_whole_response(place: Place) -> None:
    async def work() -> None:
        async with place.pool() as pool:
            call = pool.request("POST", f"{peer.url}/path?query", {"x-a": "å"}, "text")
            response = await call.response()
            assert (response.status, response.content, response.get("x-b")) == (201, b"hello", "c")
            assert response.trailers == ((b"a", b"b"),)

    with place.peer([answer(201, ((b"x-b", b"c"),), b"hello", ((b"a", b"b"),))]) as peer:
        place.run(work())
        (seen,) = peer.report.requests
    assert (seen.method, seen.target, seen.content) == ("POST", "/path?query", b"text")
    assert (b"x-a", b"\xe5") in seen.fields


def test_what_failed_a_request_is_raised_after_what_came_and_raised_again(place: Place) -> None:
    """Each time a fresh exception, with what the pool knows."""

    async def work() -> None:
        async with place.pool() as pool, pool.request("POST", peer.url) as call:
            await until(lambda: call.is_over)
            assert isinstance(await call.receive(), ResponseReceived)
            assert isinstance(await call.receive(), DataReceived)
            errors: list[calamint.TransportError] = []
            for again in (call.receive, call.receive, call.receive_all, call.response):
                with pytest.raises(calamint.ReadError) as caught:
                    await again()
                errors.append(caught.value)
            assert len({id(error) for error in errors}) == 4
            assert errors[0].attempts == 1 and isinstance(errors[0].snapshot, calamint.core.Snapshot)
            assert not await call.send_data(b"")

    with place.peer([close(after=b"half")]) as peer:
        place.run(work())


def test_one_task_reads_and_one_sends(h2c: Place) -> None:
    """A second reader, or sender, is a mistake; neither harms the first."""

    async def work() -> None:
        async with h2c.pool() as pool, pool.request("POST", peer.url, end=False) as call:
            reader = asyncio.create_task(call.response())
            sender = asyncio.create_task(call.send_data(MUCH))
            await asyncio.sleep(0)
            with pytest.raises(RuntimeError, match="another task is waiting"):
                await call.receive()
            with pytest.raises(RuntimeError, match="another task is sending"):
                await call.send_data(b"")
            assert await sender
            await call.send_data(b"", end=True)
            assert (await reader).content == b"ok"

    with h2c.peer() as peer:
        h2c.run(work(), debug=False)


def test_content_given_while_it_waits_for_a_slot(place: Place) -> None:
    """`send_data` waits with its request, and returns when the content is on its way."""

    async def work() -> None:
        async with place.pool(ONE, Settings(max_streams=1, first_streams=1)) as pool:
            holder = asyncio.create_task(fetch(pool, f"{peer.url}/hold"))
            await wait_for(peer, lambda report: report.requests)
            async with pool.request("POST", peer.url, end=False) as call:
                assert call.protocol == ""
                assert await call.send_data(b"waited ")
                assert holder.done() or pool.stats().waiting == 0
                await call.send_data(b"long", trailers=() if place.way == "http1" else {"a": "b"}, end=True)
                assert (await call.response()).content == b"waited long"
            await holder

    with place.peer(lambda r: delay(0.1, answer()) if r.target == "/hold" else answer(content=r.content)) as peer:
        place.run(work())


def test_cancel(place: Place) -> None:
    """While it waits, while it runs, and when it is over; what had come is thrown away."""

    async def work() -> None:
        async with place.pool(ONE, Settings(max_streams=1, first_streams=1)) as pool:
            running = pool.request("GET", f"{peer.url}/stop")
            waiting = pool.request("GET", peer.url)
            await until(lambda: pool.stats().running == 1)
            waiting.cancel()
            with pytest.raises(calamint.StreamClosed, match="while it waited for a slot"):
                await waiting.receive()
            await running.receive()
            running.cancel()
            running.cancel()
            with pytest.raises(calamint.StreamClosed):
                await running.receive_all()
            assert await fetch(pool, peer.url) == b"ok"

    with place.peer(lambda r: drip(b"ab", 1, 60.0) if r.target == "/stop" else answer()) as peer:
        place.run(work())
        assert [seen.target for seen in peer.report.requests] == ["/stop", "/"]


def test_a_call_that_is_dropped_is_cancelled_and_said_to_be(place: Place) -> None:
    async def work() -> None:
        async with place.pool(ONE, Settings(max_streams=1, first_streams=1)) as pool:
            pool.request("GET", f"{peer.url}/first")  # dropped at once
            call = pool.request("GET", f"{peer.url}/never")
            await until(lambda: pool.stats().running == 1)
            del call
            gc.collect()
            assert await fetch(pool, peer.url) == b"ok"

    with (
        warnings.catch_warnings(record=True) as caught,
        place.peer(lambda r: answer() if r.target == "/" else forget()) as peer,
    ):
        warnings.simplefilter("always")
        place.run(work())
        assert not peer.report.streams_open
    words = [str(each.message) for each in caught if issubclass(each.category, ResourceWarning)]
    assert words == [f"a request was dropped unclosed: GET /{name}" for name in ("first", "never")]


# A pool


def test_mistakes_change_nothing(place: Place) -> None:
    async def work() -> None:
        pool = place.pool()
        for method, url, error in (
            ("GET", "no-url", calamint.InvalidURL),
            ("GET", "ftp://a.test/", calamint.UnsupportedProtocol),
            ("GE T", peer.url, calamint.LocalProtocolError),
            ("GET", peer.url, calamint.LocalProtocolError),
        ):
            fields = {"a": "b\nc"} if method == "GET" and url == peer.url else {}
            with pytest.raises(error):
                pool.request(method, url, fields)
        with pytest.raises(ValueError, match="pool=-1|queue=-1"):
            pool.request("GET", peer.url, pool=-1.0)
        assert pool.stats().requests == 0 and pool.snapshot().describe() == "no connections"
        await pool.aclose()
        with pytest.raises(calamint.LocalProtocolError, match="the pool is clos"):
            pool.request("GET", peer.url)
        await pool.aclose()

    with place.peer() as peer:
        place.run(work())
        assert peer.report.connections == 0
    with pytest.raises(calamint.UnsupportedProtocol, match="leave no protocol"):
        Pool(http1=False, http2=False)
    with pytest.raises(ValueError, match="max_pushes"):
        Pool(settings=Settings(max_pushes=1))


def test_no_loop_another_loop_another_kind_of_loop(http1: Place) -> None:
    pool = http1.pool()
    assert pool.stats().connections == 0
    with pytest.raises(RuntimeError, match="no asyncio event loop is running here"):
        pool.request("GET", "http://a.test")
    coroutine = pool.aclose()  # of a pool that was never used: driven by hand, as another kind of loop would
    with pytest.raises(StopIteration):
        coroutine.send(None)

    async def elsewhere(call: calamint.AsyncCall) -> None:
        with pytest.raises(RuntimeError, match="this request belongs to another event loop"):
            await call.receive()
        call.cancel()

    async def work() -> None:
        async with http1.pool() as pool:
            call = pool.request("GET", peer.url)
            await asyncio.to_thread(lambda: http1.run(elsewhere(call)))
            with pytest.raises(calamint.StreamClosed):
                await call.receive()

    with http1.peer([forget()]) as peer:
        http1.run(work())


def test_a_pool_that_was_never_used_and_one_that_waits(place: Place) -> None:
    """Neither holds anything up when it ends; a request that waits fails."""

    async def work() -> None:
        await place.pool().aclose()
        async with place.pool() as pool:
            call = pool.request("GET", peer.url)
        with pytest.raises(calamint.StreamClosed, match="the pool was closed"):
            await call.response()

    with place.peer() as peer:
        place.run(work())


def test_what_a_tracer_is_told_and_may_do(place: Place) -> None:
    """One that makes a request in the middle of it all harms nobody, nor does one that raises."""
    told: list[Report] = []
    more: list[calamint.AsyncCall] = []

    def listen(report: Report) -> None:
        told.append(report)
        if report.kind == "request" and len(more) < 3:
            more.append(pool.request("GET", peer.url))
        if report.kind == "dial":
            raise ZeroDivisionError

    pool = place.pool(tracer=Tracer(request=listen, dial=listen, timeout=listen))

    async def work() -> None:
        async with pool:
            results = await asyncio.gather(*[fetch(pool, peer.url) for _ in range(5)])
            assert results == [b"ok"] * 5
            assert [(await call.response()).content for call in more] == [b"ok"] * 3
            with pytest.raises(calamint.DeadlineExceeded):
                await pool.request("GET", f"{peer.url}/never", timeout=0.05).response()

    with place.peer(lambda r: forget() if r.target == "/never" else answer()) as peer:
        place.run(work())
        assert not peer.report.protocol_errors
    kinds = [report.kind for report in told]
    assert kinds.count("request") == 9 and kinds.count("timeout") == 1 and "dial" in kinds


def test_requests_of_one_turn_leave_together(h2c: Place) -> None:
    """A hundred of them are one write: the server's first read after the preface has them all."""
    reads: list[int] = []

    def handle(sock: socket.socket) -> None:
        data = sock.recv(262_144)
        while data.count(b"/together") < 100:
            reads.append(len(data))
            piece = sock.recv(262_144)
            assert piece
            data += piece

    async def work(url: str) -> None:
        settings = Settings(header_table_size=0)
        async with h2c.pool(ONE, settings) as pool:
            calls = [pool.request("GET", f"{url}/together") for _ in range(100)]
            with pytest.raises(calamint.ReadError):
                await calls[0].response()

    with ThreadServer(handle) as server:
        h2c.run(work(server.url))
    assert len(reads) <= 2


# Sockets


def test_a_unix_socket(loop: str, private_ca: servers.PrivateCa, tmp_path: Path) -> None:
    place = Place(loop, "http1", private_ca)
    path = str(tmp_path / "socket")

    def handle(sock: socket.socket) -> None:
        assert b"host: somewhere.test\r\n" in read_head(sock).lower()
        sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        no_answer(sock)

    async def work() -> None:
        async with place.pool(uds=path) as pool:
            assert await fetch(pool, "http://somewhere.test/") == b"ok"
        async with place.pool(uds=f"{path}.none") as pool:
            with pytest.raises(calamint.ConnectError, match="No such file"):
                await fetch(pool, "http://somewhere.test/")

    with ThreadServer(handle, path=path):
        place.run(work())


def test_why_no_connection_was_made(http1: Place) -> None:
    """No address, nobody who listens, an address of ours that is none, a certificate's file that is not there."""

    def resolver(host: str, port: int) -> list[Address]:
        if host == "strange.test":
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ())]
        raise OSError(2, "not known here")

    async def work() -> None:
        with socket.create_server(("127.0.0.1", 0)) as closed:
            port = closed.getsockname()[1]
        async with Pool(resolver=resolver) as pool:
            with pytest.raises(calamint.ConnectError, match="no address for a.test: not known here"):
                await fetch(pool, "http://a.test")
            with pytest.raises(
                calamint.ConnectError, match=f"127.0.0.1 port {port}: 127.0.0.1: .*refused|Connect call failed"
            ):
                await fetch(pool, f"http://127.0.0.1:{port}")
            with pytest.raises(calamint.ConnectError, match="ValueError|TypeError|IndexError"):
                await fetch(pool, "http://strange.test")
        async with Pool(local_address="192.0.2.1") as pool:
            with pytest.raises(calamint.ConnectError, match="could not connect"):
                await fetch(pool, peer.url)
        async with Pool(local_address="127.0.0.1") as pool:
            assert await fetch(pool, peer.url) == b"ok"
        async with Pool(verify="/nowhere/ca.pem") as pool:
            with pytest.raises(calamint.ConnectError, match="/nowhere/ca.pem"):
                await fetch(pool, peer.url.replace("http", "https"))

    with http1.peer() as peer:
        http1.run(work())


def test_the_name_in_a_certificate_and_what_was_agreed(loop: str, private_ca: servers.PrivateCa) -> None:
    """A host that is no name for a certificate; a server that speaks only what was not asked for; one that ends at once."""
    place = Place(loop, "tls", private_ca)

    def resolver(host: str, port: int) -> list[Address]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    async def work(url: str) -> None:
        async with Pool(verify=False, resolver=resolver) as pool:
            with pytest.raises(calamint.ConnectError, match="is no name for a certificate"):
                await fetch(pool, f"https://{'a' * 64}.{'b' * 300}.test:{peer.port}")
        async with Pool(verify=str(private_ca.ca_file), http1=False) as pool:
            with pytest.raises(calamint.ConnectError, match="the server speaks http/1.1 where h2 was asked for"):
                await fetch(pool, peer.url)
            with pytest.raises(calamint.ConnectError, match="TLS"):
                await fetch(pool, url.replace("http", "https"))

    context = place.server_context()
    named = ScriptedPeer(tls=context, alpn=("http/1.1",))
    with named as peer, ThreadServer(lambda sock: None) as server:
        place.run(work(server.url))


def test_a_response_that_ends_with_its_connection(loop: str, private_ca: servers.PrivateCa) -> None:
    """Complete after an orderly end: FIN, or close_notify with TLS. Not after a reset, nor where close_notify lacks."""

    async def work(url: str, way: str, whole: bool) -> None:
        async with Place(loop, way, private_ca).pool() as pool:
            call = pool.request("POST", url)
            if whole:
                assert (await call.response()).content == b"content"
            else:
                with pytest.raises(calamint.ReadError):
                    await call.response()

    def handle(sock: socket.socket, ending: str) -> None:
        read_head(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\n\r\ncontent")
        if ending == "close_notify" and isinstance(sock, ssl.SSLSocket):
            with contextlib.suppress(OSError):
                sock.settimeout(0.2)
                sock.unwrap()
        if ending == "reset":
            time.sleep(0.05)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    for way, ending, whole in (
        ("http1", "", True),
        ("http1", "reset", False),
        ("tls1", "", False),
        ("tls1", "close_notify", True),
        ("tls1", "reset", False),
    ):
        place = Place(loop, way, private_ca)
        tls = place.server_context() if way == "tls1" else None
        with ThreadServer(lambda sock, ending=ending: handle(sock, ending), tls) as server:  # type: ignore[misc]  # default
            place.run(work(server.url, way, whole))


@pytest.mark.skipif(sys.platform != "linux", reason="what had come before a TCP RST may be lost elsewhere")
@pytest.mark.parametrize("way", ["http1", "tls1"])
def test_a_response_that_came_before_a_write_broke(loop: str, way: str, private_ca: servers.PrivateCa) -> None:
    """413, and then the server goes with a TCP RST; we learn of that by writing, and read all the same what it said."""
    place = Place(loop, way, private_ca)
    go_on, gone = threading.Event(), threading.Event()

    def handle(sock: socket.socket) -> None:
        read_head(sock)
        assert go_on.wait(LIMIT)  # then there is content that is not read: the end is a RST
        sock.setsockopt(
            socket.IPPROTO_TCP, socket.TCP_NODELAY, 1
        )  # or what waits to be sent may go with the connection
        sock.sendall(b"HTTP/1.1 413 Too Much\r\ncontent-length: 3\r\nconnection: close\r\n\r\nbig")
        sock.close()
        gone.set()

    async def work(url: str) -> None:
        async with place.pool() as pool, pool.request("POST", url, end=False) as call:
            await until(lambda: pool.stats().connections)
            await call.send_data(bytes(50_000))
            await asyncio.sleep(0.01)  # it has left
            go_on.set()
            assert gone.wait(LIMIT)  # the event loop stands still meanwhile, so that nothing is read
            await call.send_data(b"more")
            response = await call.response()
            assert (response.status, response.content) == (413, b"big")

    with ThreadServer(handle, place.server_context() if way == "tls1" else None) as server:
        place.run(work(server.url), debug=False)


@pytest.mark.parametrize("way", ["http1", "tls1"])
@pytest.mark.parametrize("kind", ["CONNECT", "upgrade"])
def test_a_tunnel_half_closed_by_us(loop: str, way: str, kind: str, private_ca: servers.PrivateCa) -> None:
    """What goes in comes back until we end our side; what the other side says then is heard, to its end."""
    place = Place(loop, way, private_ca)

    def handle(sock: socket.socket) -> None:
        head = read_head(sock)
        assert head.startswith(b"CONNECT far.test:22 HTTP/1.1\r\n" if kind == "CONNECT" else b"GET /chat HTTP/1.1\r\n")
        if kind == "CONNECT":
            sock.sendall(b"HTTP/1.1 200 OK\r\n\r\nhello ")
        else:
            sock.sendall(b"HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\nhello ")
        while data := sock.recv(65_536):
            sock.sendall(data)
        sock.sendall(b"bye")
        if isinstance(sock, ssl.SSLSocket):
            with contextlib.suppress(OSError):
                sock.unwrap()

    async def work(url: str) -> None:
        scheme, host, port = url.replace("://", ":").split(":")
        place_ = URL(Origin(scheme, host, int(port)), "far.test:22" if kind == "CONNECT" else "/chat", "", "")
        fields = {} if kind == "CONNECT" else {"connection": "upgrade", "upgrade": "echo"}
        async with place.pool() as pool:
            method = "CONNECT" if kind == "CONNECT" else "GET"
            async with pool.request(method, place_, fields, end=kind != "CONNECT") as call:
                assert isinstance(await call.receive(), ResponseReceived)
                assert isinstance(await call.receive(), Upgraded)
                assert await call.send_data(b"and ")
                await call.send_data(b"again ", end=True)
                content = b""
                while (event := await call.receive()) is not None:
                    content += event.data if isinstance(event, DataReceived) else b""
                assert content == b"hello and again bye"

    tls = place.server_context() if way == "tls1" else None
    with ThreadServer(handle, tls) as server:
        place.run(work(server.url))


def test_much_content_in_the_clear(http1: Place) -> None:
    """It comes another way than a little does, and what follows it does not: a response, the end of a connection, a reset."""
    content = bytes(range(256)) * 20_000

    def handle(sock: socket.socket) -> None:
        for head in (b"Content-Length: %d\r\n" % len(content), b""):
            read_head(sock)
            sock.sendall(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n" + content)

    def handle_aborted(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9000000\r\n\r\n" + content)
        assert go_on.wait(LIMIT)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    async def work(url: str) -> None:
        async with http1.pool() as pool:
            for _ in range(2):  # the second ends with the connection
                response = await pool.request("GET", url).response()
                assert response.content == content

    async def work_aborted(url: str) -> None:
        async with http1.pool() as pool, pool.request("GET", url) as call:
            got = 0
            while got < len(content):
                event = await call.receive()
                got += len(event.data) if isinstance(event, DataReceived) else 0
            go_on.set()
            with pytest.raises(calamint.ReadError):
                await call.receive()

    go_on = threading.Event()
    with ThreadServer(handle) as server:
        http1.run(work(server.url))
    with ThreadServer(handle_aborted) as server:
        http1.run(work_aborted(server.url))


def test_much_through_a_tunnel_both_ways(http1: Place) -> None:
    """What goes in comes back, while neither side waits for the other."""
    content = bytes(range(256)) * 20_000

    def handle(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(b"HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n")
        while data := sock.recv(1_000_000):
            sock.sendall(data)

    async def work(url: str) -> None:
        async with http1.pool() as pool, pool.request("GET", url, {"connection": "upgrade", "upgrade": "echo"}) as call:
            assert isinstance(await call.receive(), ResponseReceived)
            assert isinstance(await call.receive(), Upgraded)
            sending = asyncio.create_task(call.send_data(content, end=True))
            got = b""
            while (event := await call.receive()) is not None:
                got += event.data if isinstance(event, DataReceived) else b""
            assert got == content
            await sending

    with ThreadServer(handle) as server:
        http1.run(work(server.url))


def test_what_never_left_was_not_processed(h2c: Place) -> None:
    """The peer takes no more bytes, and goes: what the kernel had not taken fails as unprocessed, by the book."""
    go_on = threading.Event()

    def handle(sock: socket.socket) -> None:
        sock.sendall(
            frames.encode_settings(((frames.INITIAL_WINDOW_SIZE, 2**24),)) + frames.encode_window_update(0, 2**24)
        )
        sock.recv(1024)
        assert go_on.wait(LIMIT)

    async def work(url: str) -> None:
        async with h2c.pool(ONE, Settings(output_budget=2**24)) as pool:
            stuck = pool.request("POST", url, content=MUCH)
            await until(lambda: pool._desk is not None and any([link.blocked for link in pool._desk.links.values()]))
            late = [pool.request("POST", url, replay=False) for _ in range(3)]
            await asyncio.sleep(0.01)
            go_on.set()
            with pytest.raises(calamint.NetworkError) as caught:
                await stuck.response()
            assert not caught.value.unprocessed
            for call in late:
                with pytest.raises(calamint.WriteError) as caught:
                    await call.response()
                assert caught.value.unprocessed

    with ThreadServer(handle, buffer=4096) as server:
        h2c.run(work(server.url), debug=False)


def test_the_words_of_goodbye_leave_with_the_pool(h2c: Place) -> None:
    """GOAWAY is on its way when `aclose` returns, and the resets of what ran."""

    async def work() -> None:
        async with h2c.pool() as pool:
            call = pool.request("GET", peer.url)
            await wait_for(peer, lambda report: report.requests)
        with pytest.raises(calamint.StreamClosed):
            await call.response()

    with h2c.peer([forget()]) as peer:
        h2c.run(work())
        report = peer.wait_for(lambda report: not report.connections_open)
    assert report.goaways == ((0, 0, NO_ERROR),)
