"""From a URL to a connected socket: lookups, addresses in turn, the connect limit, Unix domain sockets, sockets given."""

import errno
import os
import select
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import calamint
from calamint.core.value import INFINITY
from calamint.net.dial import Dialer, Race, interleave, open_tcp, open_unix, resolve
from calamint.testing import ScriptedPeer
from tests.net.thread_server import LIMIT, ThreadServer, full_listener, read_head

linux = pytest.mark.skipif(sys.platform != "linux", reason="how full queues answer differs between systems")
Address = tuple[int, int, int, str, tuple[str, int]]


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def tcp(host: str, port: int, family: int = socket.AF_INET) -> Address:
    return (family, socket.SOCK_STREAM, 0, "", (host, port))


def closed_port() -> int:
    """A port of this host on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def descriptors() -> int:
    """How many this process has open."""
    return len(os.listdir("/proc/self/fd"))


def fetch(connection: calamint.Connection) -> bytes:
    with connection:
        return connection.response(connection.request("GET", "/")).content


# Lookups


def test_a_resolver_of_the_callers_own() -> None:
    """It is asked for names, in lower case, and never for what is an address."""
    asked: list[tuple[str, int]] = []
    with ScriptedPeer() as peer:

        def resolver(host: str, port: int) -> list[Address]:
            asked.append((host, port))
            return [tcp("127.0.0.1", peer.port)]

        assert fetch(calamint.connect("http://Example.com", resolver=resolver)) == b"ok"
        assert fetch(calamint.connect(f"http://example.com:{peer.port}/x", resolver=resolver)) == b"ok"
        assert fetch(calamint.connect(peer.url, resolver=resolver)) == b"ok"
        assert [item.authority for item in peer.report.requests] == [
            "example.com",
            f"example.com:{peer.port}",
            f"127.0.0.1:{peer.port}",
        ]
    assert asked == [("example.com", 80), ("example.com", peer.port)]


def test_a_lookup_that_hangs_is_left_behind_at_the_limit() -> None:
    go_on = threading.Event()

    def resolver(host: str, port: int) -> list[Address]:
        go_on.wait(LIMIT)
        return []

    before = set(threading.enumerate())
    began = time.monotonic()
    try:
        with pytest.raises(
            calamint.ConnectTimeout, match="no address for slow.example within the connect limit"
        ) as caught:
            calamint.connect("http://slow.example", timeout=0.2, resolver=resolver)
        assert 0.2 <= time.monotonic() - began < 5.0
        assert caught.value.unprocessed
        left = [thread for thread in set(threading.enumerate()) - before if thread.name == "calamint-resolve"]
        assert [thread.daemon for thread in left] == [True]  # the one allowed leftover: it holds up no process
    finally:
        go_on.set()
    for thread in left:
        thread.join(LIMIT)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "Name or service not known"),
        (UnicodeError("label too long"), "label too long"),
        (ValueError("not today"), "not today"),
    ],
)
def test_a_lookup_that_fails(error: Exception, words: str) -> None:
    def resolver(host: str, port: int) -> list[Address]:
        raise error

    with pytest.raises(calamint.ConnectError, match=f"no address for no.example: {words}") as caught:
        calamint.connect("http://no.example", resolver=resolver)
    assert caught.value.unprocessed
    assert caught.value.__cause__ is error


def test_the_systems_resolver() -> None:
    """`localhost` is a name; a label above 63 characters is none, and getaddrinfo raises UnicodeError for it."""
    found = open_tcp_to_localhost()
    assert found in ("127.0.0.1", "::1")
    with pytest.raises(calamint.ConnectError, match="no address for x{64}.example: .*(too long|not known)"):
        calamint.connect(f"http://{'x' * 64}.example")


def open_tcp_to_localhost() -> str:
    with ScriptedPeer() as peer:
        with open_tcp("localhost", peer.port, time.monotonic() + LIMIT) as sock:
            address: str = sock.getpeername()[0]
            return address


def test_no_address_at_all() -> None:
    with pytest.raises(calamint.ConnectError, match="could not connect to no.example port 80: it has no address"):
        calamint.connect("http://no.example", resolver=lambda host, port: [])


def test_addresses_need_no_thread() -> None:
    def never(host: str, port: int) -> list[Address]:
        raise AssertionError("an address was looked up")

    for host in ("127.0.0.1", "::1"):
        [first, *_] = resolve(host, 80, time.monotonic() + LIMIT, never)
        assert first[4][0] == host


# Addresses


def test_a_zone_is_what_the_system_calls_it() -> None:
    """In a URL its % is written %25; the loopback interface is number 1."""
    found = resolve("fe80::1%251", 80, time.monotonic() + LIMIT, lambda host, port: [])
    assert found[0][4][-1] == 1


def test_refused() -> None:
    port = closed_port()
    with pytest.raises(calamint.ConnectError, match=f"could not connect to 127.0.0.1 port {port}: .*refused") as caught:
        calamint.connect(f"http://127.0.0.1:{port}")
    assert caught.value.unprocessed
    assert not isinstance(caught.value, calamint.ConnectTimeout)


def test_the_next_address_is_tried() -> None:
    """After one that refuses, and one of a family that the system does not have."""
    with ScriptedPeer() as peer:
        addresses = [tcp("nowhere", 1, family=99), tcp("127.0.0.1", closed_port()), tcp("127.0.0.1", peer.port)]
        assert fetch(calamint.connect("http://three.example", resolver=lambda host, port: addresses)) == b"ok"


@pytest.mark.fault("H2")
@linux
def test_a_dead_address_does_not_take_all_of_the_time() -> None:
    """Two of them, of which each costs 250 ms and no more, and none of their sockets is left."""
    before = descriptors()
    with ScriptedPeer() as peer, full_listener() as one, full_listener() as other:
        addresses = [tcp(*one), tcp(*other), tcp("127.0.0.1", peer.port)]
        began = time.monotonic()
        connection = calamint.connect("http://three.example", timeout=5.0, resolver=lambda host, port: addresses)
        assert 0.5 <= time.monotonic() - began < 1.0
        assert fetch(connection) == b"ok"
    assert descriptors() == before


def test_an_attempt_that_is_late_still_wins() -> None:
    """The stagger begins the next attempt and ends none (RFC 8305 §5)."""
    with ScriptedPeer() as peer:
        dialer = Dialer(Race("two.example", 80, [tcp("127.0.0.1", peer.port), tcp("127.0.0.1", peer.port)]))
        assert dialer.step(0.0) is None
        assert dialer.step(0.25) is None
        first, second = dialer.sockets
        select.select([], [first], [], LIMIT)
        won = dialer.step(1.0, [first])
        assert won is first and second.fileno() == -1 and not dialer.sockets
        won.close()


def test_a_socket_that_was_ready_for_somebody_else_is_passed_over() -> None:
    """Threads may see the same one ready, and the first of them takes what came of it; found by the soak."""
    places = [tcp("127.0.0.1", closed_port()), tcp("127.0.0.1", closed_port())]
    dialer = Dialer(Race("two.example", 80, places))
    assert dialer.step(0.0) is None and dialer.step(0.25) is None
    first, second = dialer.sockets
    select.select([], [first], [], LIMIT)
    assert dialer.step(0.3, [first]) is None
    assert dialer.step(0.3, [first]) is None and list(dialer.sockets) == [second]
    dialer.close()


@linux
def test_a_socket_that_is_taken_for_ready_has_not_won() -> None:
    """A selector may tell of a descriptor that another thread has closed meanwhile, and whose number a new one has got."""
    with full_listener() as dead, ScriptedPeer() as peer:
        race = Race("localhost", 1, [tcp(*dead), tcp("127.0.0.1", peer.port)])
        dialer = Dialer(race)
        assert dialer.step(0.0) is None
        (stuck,) = dialer.sockets
        assert dialer.step(0.0, [stuck]) is None and list(dialer.sockets) == [stuck]
        assert dialer.step(1.0) is None
        fresh = list(dialer.sockets)[1]
        assert select.select([], [fresh], [], LIMIT)[1]
        won = dialer.step(1.0, [stuck, fresh])
        assert won is fresh and stuck.fileno() == -1 and dialer.sockets == {}
        won.close()


def test_the_families_take_turns() -> None:
    """That of the first address begins (RFC 8305 §4)."""
    places = ["6a", "6b", "6c", "4a"]
    six, four = socket.AF_INET6, socket.AF_INET
    addresses = [tcp(place, 1, six if place[0] == "6" else four) for place in places]
    assert [address[4][0] for address in interleave(addresses)] == ["6a", "4a", "6b", "6c"]
    assert interleave([]) == []


def test_the_next_attempt_begins_in_time_or_at_once_after_a_failure() -> None:
    race = Race("three.example", 80, [tcp("127.0.0.1", port) for port in (1, 2, 3)])
    first = race.begin(10.0)
    assert first == tcp("127.0.0.1", 1) and race.next_timeout() == 10.25
    assert race.begin(10.2) is None
    assert race.begin(10.25) == tcp("127.0.0.1", 2)
    race.lose(first, OSError(errno.ECONNREFUSED, "Connect call failed (…)"))  # as an event loop says it
    assert race.begin(10.26) == tcp("127.0.0.1", 3) and race.next_timeout() == INFINITY
    race.lose(tcp("127.0.0.1", 2), OSError("without a number"))
    assert race.begin(99.0) is None
    with pytest.raises(calamint.ConnectError, match="Connection refused; .*: without a number; .*: gone"):
        race.lose(tcp("127.0.0.1", 3), OSError(0, "gone"))


def test_a_local_address() -> None:
    with ScriptedPeer() as peer:
        with open_tcp("127.0.0.1", peer.port, time.monotonic() + LIMIT, local_address="127.0.0.2") as sock:
            assert sock.getsockname()[0] == "127.0.0.2"
        with pytest.raises(calamint.ConnectError, match="127.0.0.1: "):
            open_tcp("127.0.0.1", peer.port, time.monotonic() + LIMIT, local_address="192.0.2.1")


def test_every_failure_is_named() -> None:
    addresses = [tcp("127.0.0.1", closed_port()), tcp("127.0.0.2", closed_port())]
    with pytest.raises(calamint.ConnectError, match="127.0.0.1: Connection refused; 127.0.0.2: Connection refused"):
        calamint.connect("http://two.example", resolver=lambda host, port: addresses)


@linux
def test_the_limit_of_tcp() -> None:
    with full_listener() as (host, port):
        began = time.monotonic()
        with pytest.raises(calamint.ConnectTimeout, match="no answer .within the connect limit.") as caught:
            calamint.connect(f"http://{host}:{port}", timeout=0.2)
        assert 0.2 <= time.monotonic() - began < 5.0
    assert caught.value.unprocessed


def test_no_limit() -> None:
    with ScriptedPeer() as peer:
        assert fetch(calamint.connect(peer.url, timeout=None)) == b"ok"


def test_options_of_the_socket() -> None:
    with ScriptedPeer() as peer, open_tcp("127.0.0.1", peer.port, time.monotonic() + LIMIT) as sock:
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        if hasattr(socket, "TCP_KEEPIDLE"):
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 60


def test_a_socket_that_does_not_take_its_options() -> None:
    """UDP's does not: it is closed, and the next address is tried."""
    with ScriptedPeer() as peer:
        udp: Address = (socket.AF_INET, socket.SOCK_DGRAM, 0, "", ("127.0.0.1", peer.port))
        before = descriptors()
        with pytest.raises(
            calamint.ConnectError, match="could not connect to name.test port 1: 127.0.0.1: .+"
        ) as caught:
            open_tcp("name.test", 1, time.monotonic() + LIMIT, lambda host, port: [udp])
        assert caught.value.unprocessed and descriptors() == before
        sock = open_tcp("name.test", 1, time.monotonic() + LIMIT, lambda host, port: [udp, tcp("127.0.0.1", peer.port)])
        assert sock.type == socket.SOCK_STREAM
        sock.close()


# Other sockets


def answer_once(sock: socket.socket) -> None:
    assert read_head(sock).startswith(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
    sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nunix")


def test_a_unix_domain_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with ThreadServer(answer_once, path=path):
        assert fetch(calamint.connect("http://localhost", uds=path)) == b"unix"


def test_a_unix_domain_socket_that_is_not_there(tmp_path: Path) -> None:
    path = str(tmp_path / "absent")
    with pytest.raises(calamint.ConnectError, match=f"could not connect to {path}: No such file") as caught:
        calamint.connect("http://localhost", uds=path)
    assert caught.value.unprocessed
    with pytest.raises(calamint.ConnectError, match="AF_UNIX path too long"):
        calamint.connect("http://localhost", uds="x" * 200)


@linux
def test_a_unix_domain_socket_whose_queue_is_full(tmp_path: Path) -> None:
    """Linux refuses at once instead of waiting; the error says so, within the limit."""
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(0)
        with open_unix(path, time.monotonic() + LIMIT):
            with pytest.raises(calamint.ConnectError, match="could not connect to .*unavailable"):
                calamint.connect("http://localhost", uds=path, timeout=0.2)


def test_a_socket_that_is_there() -> None:
    with ScriptedPeer() as peer:
        sock = socket.create_connection((peer.host, peer.port), timeout=LIMIT)
        assert fetch(calamint.connect("http://elsewhere.example", sock=sock)) == b"ok"
        assert sock.fileno() == -1  # it belonged to the connection
        assert peer.report.requests[0].authority == "elsewhere.example"


def test_a_socket_of_another_kind() -> None:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with pytest.raises(calamint.ConnectError, match="the socket that was given is of no use: .+") as caught:
        calamint.connect("http://localhost", sock=sock)
    assert caught.value.unprocessed and sock.fileno() == -1


def test_a_pair_of_sockets() -> None:
    here, there = socket.socketpair()
    with there, calamint.connect("http://localhost", sock=here) as connection:
        ref = connection.request("GET", "/")
        assert there.recv(100).startswith(b"GET / HTTP/1.1\r\n")
        there.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
        assert connection.response(ref).status == 204


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("localhost", calamint.InvalidURL),
        ("http://", calamint.InvalidURL),
        ("http://localhost:99999", calamint.InvalidURL),
        ("ftp://localhost", calamint.UnsupportedProtocol),
        ("http://\u2260.\u00ad", calamint.InvalidURL),
    ],
)
def test_what_is_no_url(url: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        calamint.connect(url)
