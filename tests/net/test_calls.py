"""What calls of both pools tell and do besides events: waiting for a connection or for so long, and what is below it."""

import asyncio
import socket
import ssl
import threading
import time

import pytest

import calamint
from calamint.core.pool_state import Key
from calamint.core.url import Origin
from calamint.net import aio
from calamint.net.dial import Address, look_up
from calamint.net.route import KNOWN, Route, Routes
from calamint.testing import Action, Request, ScriptedPeer, answer, delay, drip, forget
from tests import servers
from tests.net.pool_help import at_rest, nothing_left, wait_until
from tests.net.test_tls import server_context
from tests.net.thread_server import LIMIT, ThreadServer, read_head

ONE = calamint.Limits(max_connections=1)
SIZE = 12_000_000  # more than a socket takes


class Gate:
    """A resolver that answers when it is opened."""

    def __init__(self) -> None:
        self.open = threading.Event()

    def __call__(self, host: str, port: int) -> list[Address]:
        self.open.wait(LIMIT)
        return list(look_up("127.0.0.1", port))


def test_a_call_waits_for_its_connection() -> None:
    gate = Gate()
    with nothing_left(), ScriptedPeer([forget()]) as peer, calamint.Pool(http1=False, resolver=gate) as pool:
        with pool.request("GET", f"http://localhost:{peer.port}/") as call:
            assert call.is_dialling and call.protocol == "" and call.extra("socket") is None
            opener = threading.Timer(0.05, gate.open.set)
            opener.start()
            assert call.start() == "h2"
            opener.join()
            assert not call.is_dialling and not call.is_over
            assert call.extra("server_addr") == ("127.0.0.1", peer.port)  # though no head has come
        assert call.start() == ""
        with pool.request("GET", "http://localhost:1/") as call:
            assert call.start() == ""
            with pytest.raises(calamint.ConnectError):
                call.receive()


def test_a_call_for_asyncio_waits_for_its_connection() -> None:
    async def main() -> None:
        gate = Gate()
        async with aio.Pool(http1=False, resolver=gate) as pool:
            async with pool.request("GET", f"http://localhost:{peer.port}/") as call:
                assert call.is_dialling and call.protocol == "" and call.extra("socket") is None
                asyncio.get_running_loop().call_later(0.05, gate.open.set)
                assert await call.start() == "h2"
                assert not call.is_dialling and not call.is_over
                assert call.extra("server_addr") == ("127.0.0.1", peer.port)
            assert await call.start() == ""
            async with pool.request("GET", f"http://localhost:{peer.port}/slot") as call:
                assert await call.start() == "h2"  # at once
            async with pool.request("GET", "http://localhost:1/") as call:
                assert await call.start() == ""
                with pytest.raises(calamint.ConnectError):
                    await call.receive()

    with ScriptedPeer([forget()]) as peer:
        asyncio.run(main())


def test_who_waits_for_a_slot_does_not_dial() -> None:
    script = [drip(bytes(30), 1, 0.01), answer()]
    with ScriptedPeer(script) as peer, calamint.Pool(limits=ONE, http2=False) as pool:
        first = pool.request("GET", peer.url)
        assert first.start() == "http/1.1"
        with pool.request("GET", peer.url) as second:
            assert (second.is_dialling, second.protocol) == (False, "")
            reader = threading.Thread(target=first.response)
            reader.start()
            assert second.start() == "http/1.1"
            reader.join(LIMIT)
            assert second.response().status == 200
        at_rest(pool)


def test_a_call_cancelled_while_it_waits_to_start() -> None:
    """Nobody is left among those who wait."""

    async def main() -> None:
        async with aio.Pool(http1=False, resolver=Gate()) as pool:
            async with pool.request("GET", f"http://localhost:{peer.port}/") as call:
                task = asyncio.create_task(call.start())
                await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait([task])
                assert task.cancelled() and pool._desk is not None and not pool._desk.starters
            waiting = asyncio.create_task(pool.request("GET", f"http://localhost:{peer.port}/").start())
            await asyncio.sleep(0)
        assert await waiting == ""  # the pool was closed

    with ScriptedPeer() as peer:
        asyncio.run(main())


@pytest.mark.parametrize("http2", [False, True])
def test_receive_waits_no_longer_than_it_is_told(http2: bool) -> None:
    with ScriptedPeer([delay(0.3, answer())]) as peer, calamint.Pool(http1=not http2, http2=http2) as pool:
        with pool.request("GET", peer.url) as call:
            began = time.monotonic()
            with pytest.raises(TimeoutError):
                call.receive(0.05)
            with pytest.raises(TimeoutError):
                call.receive(0.0)
            assert 0.05 <= time.monotonic() - began < 0.3
            assert isinstance(call.receive(LIMIT), calamint.core.ResponseReceived)
        at_rest(pool)
        assert (pool._hub.leader, pool._hub.followers) == (None, {})


def test_a_follower_waits_no_longer_than_it_is_told() -> None:
    """Another thread leads, for longer."""
    with ScriptedPeer([forget()]) as peer, calamint.Pool(http1=False) as pool:
        with pool.request("GET", peer.url) as long, pool.request("GET", peer.url) as short:
            leader = threading.Thread(target=lambda: pytest.raises(TimeoutError, long.receive, 0.5))
            leader.start()
            wait_until(lambda: pool._hub.asleep)
            began = time.monotonic()
            with pytest.raises(TimeoutError):
                short.receive(0.1)
            assert 0.1 <= time.monotonic() - began < 0.4
            assert pool._hub.followers == {}
            leader.join(LIMIT)
        at_rest(pool)


def test_one_thread_reads_a_tunnel_and_another_one_writes() -> None:
    """More than any window holds, both ways at once, while a third thread leads: neither of the two waits for the other."""
    gate = threading.Event()

    def echo(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
        gate.wait(LIMIT)
        while data := sock.recv(65_536):
            sock.sendall(data)

    sizes: list[int] = []

    def read(call: calamint.Call) -> None:
        while sum(sizes) < SIZE:
            event = call.receive()
            sizes.append(len(event.data) if isinstance(event, calamint.core.DataReceived) else 0)

    with nothing_left(), ThreadServer(echo, buffer=10_000) as server, ScriptedPeer([forget()]) as peer:
        with calamint.Pool() as pool, pool.request("GET", peer.url) as other:
            fields = {"connection": "upgrade", "upgrade": "echo"}
            with pool.request("GET", server.url, fields, timeout=3 * LIMIT) as call:
                assert isinstance(call.receive(), calamint.core.ResponseReceived)
                threads = [
                    threading.Thread(target=lambda: pytest.raises(calamint.StreamClosed, other.receive)),
                    threading.Thread(target=read, args=(call,)),
                    threading.Thread(
                        target=lambda: [call.send_data(bytes(1_000_000)) for _ in range(SIZE // 1_000_000)]
                    ),
                ]
                threads[0].start()
                wait_until(lambda: pool._hub.asleep)
                for thread in threads[1:]:
                    thread.start()
                wait_until(lambda: len(pool._hub.followers) == 2)
                gate.set()
                for thread in threads[1:]:
                    thread.join(LIMIT)
                assert not any([thread.is_alive() for thread in threads[1:]])
            other.cancel()
            threads[0].join(LIMIT)
            at_rest(pool)


def test_http1_alone_where_both_may_be_spoken(private_ca: servers.PrivateCa) -> None:
    """Connections that are made for it are not shared with those who may have HTTP/2."""
    with ScriptedPeer(tls=server_context(private_ca)) as peer, calamint.Pool(verify=str(private_ca.ca_file)) as pool:
        spoken = []
        for only_http1 in (False, True, False, True):
            with pool.request("GET", peer.url, only_http1=only_http1) as call:
                assert call.response().status == 200
                spoken.append(call.protocol)
        assert spoken == ["h2", "http/1.1"] * 2
        assert peer.report.connections == 2


def test_another_name_in_the_certificate(private_ca: servers.PrivateCa) -> None:
    with ScriptedPeer(tls=server_context(private_ca)) as peer, calamint.Pool(verify=str(private_ca.ca_file)) as pool:
        with pool.request("GET", peer.url, server_hostname="localhost") as call:
            assert call.response().status == 200
            assert isinstance(call.extra("ssl_object"), ssl.SSLObject)
        with pool.request("GET", peer.url, server_hostname="other.example") as call:
            with pytest.raises(calamint.ConnectError, match="other.example"):
                call.response()
        with pool.request("GET", peer.url) as call:
            assert call.response().status == 200
        assert peer.report.connections == 2


def test_ways_are_kept() -> None:
    """The same name is the same way; through a proxy it is another one. All of them trust the same."""
    routes = Routes(Route(), {"https": ("h2", "http/1.1"), "http": ("h2",)})
    origin, plain = Origin("https", "host", 443), Origin("http", "host", 80)
    proxy = calamint.Proxy("http://proxy")
    keys = [
        routes.aim(origin, via, name, only, ())
        for via in (None, proxy)
        for name in (None, "n")
        for only in (False, True)
    ]
    assert len(set(keys)) == 8
    assert keys[0].protocols == ("h2", "http/1.1") and keys[1].protocols == ("http/1.1",)
    assert routes.aim(plain, None, None, True, ()).protocols == ("h2",)  # it may not be spoken
    assert routes.aim(origin, proxy, "n", False, ()) is keys[6]
    assert routes.of(keys[2]).server_hostname == "n" and routes.of(keys[6]).proxy is proxy
    assert routes.of(keys[0]) is routes.own and routes.of(keys[2]) is routes.of(keys[3])
    contexts = {id(routes.of(key).start_tls(origin, key.protocols).object.context) for key in keys}
    assert len(contexts) == 2  # one for each list of protocols


def test_ways_that_nobody_uses_are_forgotten() -> None:
    """However many there were; those that are used stay, however many these are."""
    routes = Routes(Route(), {"https": ("http/1.1",), "http": ("http/1.1",)})
    origin = Origin("https", "host", 443)
    used: list[Key] = []
    for number in range(10 * KNOWN):
        key = routes.aim(origin, None, f"n{number}", False, used)
        assert routes.of(key).server_hostname == f"n{number}"
        if number < 3 * KNOWN and number % 2:
            used.append(key)
        assert len(routes.named) <= max(KNOWN, 2 * len(used)) + 1
    assert [routes.aim(origin, None, f"n{number}", False, used) for number in range(1, 3 * KNOWN, 2)] == used
    assert routes.aim(origin, None, "n0", False, used).trust not in {key.trust for key in used}
    assert routes.of(routes.aim(origin, None, None, False, used)) is routes.own


def forwards(request: Request) -> Action:
    """Answers what is to be forwarded, and nothing else."""
    return answer() if request.target.startswith("http://") else forget()


def test_each_request_has_a_proxy_of_its_own() -> None:
    """One that waits keeps its way, whoever comes after it; those that are over leave nothing."""
    with ScriptedPeer(forwards) as peer, calamint.Pool(limits=ONE) as pool:
        with pool.request("GET", peer.url) as first:
            waiting = pool.request("GET", "http://host/", proxy=calamint.Proxy(peer.url, auth=("me", "secret")))
            for number in range(2 * KNOWN):
                pool.request("GET", "http://host/", proxy=calamint.Proxy(peer.url, auth=(f"u{number}", "p"))).cancel()
                assert len(pool._hub.routes.named) <= KNOWN + 1
            first.cancel()
            assert waiting.response().content == b"ok"
        assert peer.report.requests[-1].target == "http://host/"


def test_each_request_of_a_task_has_a_proxy_of_its_own() -> None:
    async def work(url: str) -> None:
        async with aio.Pool(limits=ONE) as pool, pool.request("GET", url) as first:
            waiting = pool.request("GET", "http://host/", proxy=calamint.Proxy(url, auth=("me", "secret")))
            for number in range(2 * KNOWN):
                pool.request("GET", "http://host/", proxy=calamint.Proxy(url, auth=(f"u{number}", "p"))).cancel()
                assert pool._desk is not None and len(pool._desk.routes.named) <= KNOWN + 1
            first.cancel()
            assert (await waiting.response()).content == b"ok"

    with ScriptedPeer(forwards) as peer:
        asyncio.run(work(peer.url))
        assert peer.report.requests[-1].target == "http://host/"
