"""How a pool for threads makes its connections: lookups, races, TLS, and what it says when that fails."""

import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from selectors import DefaultSelector

import pytest

import calamint
from calamint.core.errors import Failure
from calamint.core.pool_state import Dial, Key
from calamint.core.url import Origin
from calamint.core.value import INFINITY
from calamint.net.approach import Approach
from calamint.net.dial import Address
from calamint.net.handshake import Layers, Refused
from calamint.net.route import Route
from calamint.net.tls import TLSPipe
from calamint.testing import ScriptedPeer, answer
from tests.net.pool_help import at_rest, descriptors, fetch, in_threads, nothing_left, wait_until
from tests.net.test_tls import OK, serve_one, server_context
from tests.net.thread_server import LIMIT, ThreadServer, full_listener, no_answer, read_head
from tests.servers import PrivateCa


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    with nothing_left():
        yield


def address(port: int, host: str = "127.0.0.1") -> Address:
    return (socket.AF_INET, socket.SOCK_STREAM, 0, "", (host, port))


def to_loopback(host: str, port: int) -> Sequence[Address]:
    """A resolver for which every name is this host."""
    return [address(port)]


ONE = calamint.Limits(max_connections=1)


# Addresses


def test_H2_dead_addresses_cost_a_part_of_a_second() -> None:
    """Two that answer nothing, and one that does."""
    with full_listener() as (_, dead), full_listener() as (_, silent), ScriptedPeer() as peer:

        def resolver(host: str, port: int) -> Sequence[Address]:
            return [address(dead), address(silent), address(port)]

        before = descriptors()
        with calamint.Pool(resolver=resolver) as pool:
            began = time.monotonic()
            assert fetch(pool, f"http://somewhere.test:{peer.port}") == b"ok"
            assert 0.4 < time.monotonic() - began < 1.0
            assert descriptors() <= before + 6  # the connection, two ends of the bell, the selector, what the peer has
        wait_until(lambda: descriptors() <= before + 1)


@pytest.mark.parametrize("limit", ["connect", "timeout"])
def test_H3_a_lookup_that_hangs_holds_nobody(limit: str) -> None:
    """Neither the caller nor the slot; what it finds later is not used."""
    go_on = threading.Event()

    def resolver(host: str, port: int) -> Sequence[Address]:
        if host == "slow.test":
            assert go_on.wait(LIMIT)
        return [address(port)]

    with ScriptedPeer() as peer, calamint.Pool(resolver=resolver, limits=ONE) as pool:
        began = time.monotonic()
        wanted = calamint.ConnectTimeout if limit == "connect" else calamint.DeadlineExceeded
        limits = {limit: 0.1}
        with pytest.raises(wanted) as caught:
            pool.request("GET", f"http://slow.test:{peer.port}", **limits).response()  # type: ignore[arg-type]  # by name
        assert caught.value.unprocessed
        assert time.monotonic() - began < 0.5
        if limit == "timeout":  # its dial belongs to the pool, which ends it in its own time
            pool.close()
            go_on.set()
        else:
            assert fetch(pool, f"http://fast.test:{peer.port}") == b"ok"
            go_on.set()
            wait_until(lambda: [it for it in threading.enumerate() if it.name == "calamint-resolve"] == [])
            assert fetch(pool, f"http://fast.test:{peer.port}") == b"ok"
            at_rest(pool)
            assert peer.report.connections == 1
    wait_until(lambda: [it for it in threading.enumerate() if it.name == "calamint-resolve"] == [])


def test_a_name_without_addresses() -> None:
    def resolver(host: str, port: int) -> Sequence[Address]:
        raise OSError(0, "there is no such name")

    with calamint.Pool(resolver=resolver) as pool:
        for _ in range(2):
            with pytest.raises(calamint.ConnectError, match="no address for nowhere.test: there is no such name"):
                pool.request("GET", "http://nowhere.test/").response()
        at_rest(pool)
        assert pool.stats().dials == 2


def test_F3_a_dial_that_fails_leaves_nothing() -> None:
    """A queue that is full, with one slot in all; then another origin, and the same one again."""
    with full_listener() as (host, port), ScriptedPeer() as peer, calamint.Pool(limits=ONE) as pool:
        for _ in range(2):
            with pytest.raises(calamint.ConnectTimeout, match="within the connect limit"):
                pool.request("GET", f"http://{host}:{port}", connect=0.05).response()
            assert fetch(pool, peer.url) == b"ok"
        with pytest.raises(calamint.ConnectError, match="Connection refused"):
            pool.request("GET", "http://127.0.0.1:1/").response()
        at_rest(pool)


def test_F3_a_dial_without_a_descriptor_fails_and_the_next_one_does_not() -> None:
    """Whatever it is that takes the last one: the bell, the selector, or the socket."""
    resource = pytest.importorskip("resource")  # not on Windows
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ScriptedPeer() as peer, calamint.Pool() as pool, ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        highest = max([int(name) for name in os.listdir("/proc/self/fd")])
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 8, hard))
        fill: list[socket.socket] = []
        with suppress(OSError):
            while True:
                fill.append(stack.enter_context(socket.socket()))
        fill.pop().close()
        for stage in ((None, None), (socket.socket, None), (socket.socket, DefaultSelector)):
            with pytest.raises(calamint.ConnectError, match="Too many open files") as caught:
                pool.request("GET", peer.url).response()
            assert caught.value.unprocessed
            at_rest(pool)
            made = [None if it is None else type(it) for it in (pool._hub.bell, pool._hub.selector)]
            assert made == list(stage)
            fill.pop().close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert fetch(pool, peer.url) == b"ok"


def test_a_dial_goes_on_for_others_when_its_request_is_cancelled() -> None:
    with ScriptedPeer() as peer, calamint.Pool(resolver=to_loopback, limits=ONE) as pool:
        url = f"http://somewhere.test:{peer.port}"
        first = pool.request("GET", url)
        second = pool.request("GET", url)
        first.cancel()
        assert second.response().content == b"ok"
        assert (pool.stats().dials, peer.report.connections) == (1, 1)


def test_a_unix_domain_socket(tmp_path: Path) -> None:
    """For any host; one that is not there is a ConnectError."""
    path = str(tmp_path / "socket")
    with ThreadServer(serve_one, path=path), calamint.Pool(uds=path) as pool:
        assert pool.request("GET", "http://anywhere.test/", connect=None).response().content == b"ok"
    with calamint.Pool(uds=str(tmp_path / "none")) as pool:
        with pytest.raises(calamint.ConnectError, match="could not connect to .*none"):
            pool.request("GET", "http://anywhere.test/").response()
        at_rest(pool)


def test_a_local_address() -> None:
    seen: list[str] = []

    def handle(sock: socket.socket) -> None:
        seen.append(sock.getpeername()[0])
        serve_one(sock)

    with ThreadServer(handle) as server, calamint.Pool(local_address="127.0.0.1") as pool:
        assert fetch(pool, server.url) == b"ok"
    assert seen == ["127.0.0.1"]
    with calamint.Pool(local_address="192.0.2.1") as pool:
        with pytest.raises(calamint.ConnectError, match="could not connect"):
            pool.request("GET", "http://127.0.0.1:1/").response()


# TLS


def test_F7_a_handshake_that_fails_leaves_no_slot_taken(private_ca: PrivateCa) -> None:
    """Five times on one slot: five ConnectErrors that say why, and no PoolTimeout."""
    with (
        ThreadServer(no_answer, tls=server_context(private_ca), connections=5) as server,
        calamint.Pool(limits=ONE) as pool,
    ):
        for _ in range(5):
            with pytest.raises(calamint.ConnectError, match="no TLS with 127.0.0.1:[0-9]+: .*certificate") as caught:
                pool.request("GET", server.url, pool=1.0).response()
            assert caught.value.unprocessed
        at_rest(pool)
    assert ["ALERT" in str(error).upper() for error in server.refused] == [True] * 5  # we say why we leave


def test_a_server_that_speaks_no_TLS() -> None:
    """Or ends in the middle."""

    def garbage(sock: socket.socket) -> None:
        sock.recv(1000)
        sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        with suppress(OSError):
            no_answer(sock)

    def end(sock: socket.socket) -> None:
        sock.recv(1000)

    for handle in (garbage, end):
        with ThreadServer(handle) as server, calamint.Pool() as pool:
            with pytest.raises(calamint.ConnectError, match="no TLS with 127.0.0.1"):
                pool.request("GET", server.url.replace("http", "https")).response()


def test_a_handshake_is_bounded_by_the_connect_limit() -> None:
    with ThreadServer(no_answer) as server, calamint.Pool(limits=ONE) as pool:
        with pytest.raises(calamint.ConnectTimeout):
            pool.request("GET", server.url.replace("http", "https"), connect=0.1).response()
        at_rest(pool)


def test_the_server_s_choice_is_one_that_was_asked_for(private_ca: PrivateCa) -> None:
    """No answer by ALPN is HTTP/1.1; anything else is an error."""
    ca = str(private_ca.ca_file)
    with ThreadServer(serve_one, tls=server_context(private_ca)) as server, calamint.Pool(verify=ca) as pool:
        with pool.request("GET", server.url) as call:
            assert call.response().content == b"ok"
            assert call.protocol == "http/1.1"
    with ThreadServer(no_answer, tls=server_context(private_ca)) as server:
        with calamint.Pool(verify=ca, http1=False) as pool:
            with pytest.raises(calamint.ConnectError, match="the server speaks http/1.1 where h2 was asked for"):
                pool.request("GET", server.url).response()


def test_what_comes_with_the_end_of_the_handshake(private_ca: PrivateCa) -> None:
    """The server's SETTINGS, mostly; and both protocols over TLS, from many threads on a cold pool."""
    ca = str(private_ca.ca_file)
    for http2 in (True, False):
        limits = calamint.Limits(max_connections=3)
        with ScriptedPeer([answer(content=bytes(100_000))], tls=server_context(private_ca), max_streams=10) as peer:
            with calamint.Pool(verify=ca, http2=http2, limits=limits) as pool:
                in_threads(8, lambda number, pool=pool, peer=peer: fetch(pool, peer.url))  # type: ignore[misc]
                assert peer.report.connections == 1 if http2 else peer.report.connections <= 3
                assert peer.report.refused == 0


def test_settings_in_one_piece_with_the_end_of_the_handshake(private_ca: PrivateCa) -> None:
    """Nothing comes after them that would say that there is something to read, until they are acknowledged."""
    context = server_context(private_ca, alpn=("h2",))
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # where the server has the last word

    def handle(sock: socket.socket) -> None:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(incoming, outgoing, server_side=True)
        done = False
        while not done:
            incoming.write(sock.recv(65_536))
            try:
                tls.do_handshake()
                tls.write(bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
                done = True
            except ssl.SSLWantReadError:
                pass
            sock.sendall(outgoing.read())
        heard = b""
        while bytes([0, 0, 0, 4, 1, 0, 0, 0, 0]) not in heard:
            incoming.write(sock.recv(65_536))
            with suppress(ssl.SSLWantReadError):
                while True:  # each record
                    heard += tls.read()
        tls.write(bytes([0, 0, 1, 1, 5, 0, 0, 0, 1, 0x88]))
        sock.sendall(outgoing.read())
        with suppress(OSError):
            no_answer(sock)

    with ThreadServer(handle) as server, calamint.Pool(verify=str(private_ca.ca_file)) as pool:
        assert fetch(pool, server.url.replace("http", "https"), "POST") == b""


def test_files_that_cannot_be_read_are_named(private_ca: PrivateCa, tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("nothing")
    with ScriptedPeer(tls=server_context(private_ca)) as peer:
        for options in ({"verify": str(tmp_path / "none.pem")}, {"verify": str(empty)}, {"cert": str(empty)}):
            with calamint.Pool(**options) as pool:  # type: ignore[arg-type]  # by name
                for _ in range(2):
                    with pytest.raises(calamint.ConnectError, match="none.pem|empty.pem"):
                        pool.request("GET", peer.url).response()
                at_rest(pool)
        with calamint.Pool(verify=5) as pool:  # type: ignore[arg-type]  # that is what is tested
            with pytest.raises(calamint.ConnectError, match="verify=5: write"):
                pool.request("GET", peer.url).response()


def test_a_host_that_is_no_name_for_a_certificate(private_ca: PrivateCa) -> None:
    with ScriptedPeer(tls=server_context(private_ca)) as peer, calamint.Pool(resolver=to_loopback) as pool:
        with pytest.raises(calamint.ConnectError, match="is no name for a certificate"):
            pool.request("GET", f"https://.test:{peer.port}/").response()


def test_H4_a_trailing_dot(private_ca: PrivateCa) -> None:
    """It stays in Host, and is not in the name that TLS asks for."""
    ca = str(private_ca.ca_file)
    with ScriptedPeer(tls=server_context(private_ca)) as peer:
        with calamint.Pool(verify=ca, resolver=to_loopback) as pool:
            assert fetch(pool, f"https://localhost.:{peer.port}/") == b"ok"
        assert peer.report.requests[0].authority == f"localhost.:{peer.port}"


def test_H5_whom_one_pool_trusts_another_need_not(private_ca: PrivateCa) -> None:
    """A connection that nobody vouched for is used by its own pool only: the second handshakes, and refuses."""
    with ScriptedPeer(tls=server_context(private_ca)) as peer:
        with calamint.Pool(verify=False) as careless, calamint.Pool() as careful:
            assert fetch(careless, peer.url) == b"ok"
            with pytest.raises(calamint.ConnectError, match="certificate"):
                careful.request("GET", peer.url).response()
            assert fetch(careless, peer.url) == b"ok"
        assert len(peer.report.requests) == 2


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_second_connection_resumes_the_session(private_ca: PrivateCa, version: ssl.TLSVersion) -> None:
    """As the server sees it."""
    resumed: list[bool | None] = []

    def handle(sock: socket.socket) -> None:
        assert isinstance(sock, ssl.SSLSocket)
        resumed.append(sock.session_reused)
        read_head(sock)
        sock.sendall(OK.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))

    context = server_context(private_ca)
    context.minimum_version = context.maximum_version = version
    with ThreadServer(handle, tls=context, connections=3) as server:
        with calamint.Pool(verify=str(private_ca.ca_file)) as pool:
            for _ in range(3):
                assert fetch(pool, server.url) == b"ok"
    assert resumed == [False, True, True]


# A dial without a pool


class Greeting:
    """A stage that says much, and waits for a welcome."""

    what = "greeting"
    kind = "ConnectError"
    cause: Exception | None = None
    pipe: TLSPipe | None = None

    def __init__(self, size: int) -> None:
        self.size = size
        self.heard = b""
        self.done = False
        self.leftover = b""
        self.failure: Failure | None = None

    def start(self, now: float) -> bytes:
        return b"hello\n" + bytes(self.size)

    def feed(self, data: bytes, now: float) -> bytes:
        self.heard += data
        self.done = self.heard == b"welcome\n"
        if not data:
            self.failure = Failure(self.kind, -1, "the peer ended within the greeting")
        return b""


def approach_to(here: socket.socket) -> Approach:
    """A dial that has come as far as a connected socket."""
    dial = Dial(1, Key(Origin("http", "somewhere.test", 80), protocols=("http/1.1",)), ("http/1.1",), INFINITY)
    approach = Approach(dial, Route())
    here.setblocking(False)
    approach.sock = here
    return approach


def test_handshakes_follow_one_another() -> None:
    """One that is done makes room for the next; what the kernel does not take is sent when it does."""
    here, there = socket.socketpair()
    with here, there:
        approach = approach_to(here)
        size = 4_000_000
        approach.layers = Layers([Greeting(0), Greeting(size)])
        approach.out = approach.layers.start(0.0)
        assert not approach.step(0.0)
        assert there.recv(100) == b"hello\n"
        assert not approach.out
        there.sendall(b"welcome\n")
        assert not approach.step(0.0)
        left = size + 6
        while left:
            assert bool(approach.out) == (approach.wants() != {here: 1})
            left -= len(there.recv(1_000_000))
            assert not approach.step(0.0)
        there.sendall(b"welcome\n")
        assert approach.step(0.0)
        assert (approach.tls, approach.protocol(), approach.next_timeout()) == (None, "http/1.1", INFINITY)


def test_a_peer_that_ends_within_a_handshake() -> None:
    here, there = socket.socketpair()
    with here:
        approach = approach_to(here)
        approach.layers = Layers([Greeting(0)])
        approach.out = approach.layers.start(0.0)
        assert not approach.step(0.0)
        assert there.recv(100) == b"hello\n"
        there.close()
        with pytest.raises(Refused, match="within the greeting"):
            approach.step(0.0)
        approach.close()
        assert here.fileno() == -1
