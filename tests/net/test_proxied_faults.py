"""Proxies that refuse, close, say nonsense or nothing, at each stage of the way and in both pools: what is told, and that
no slot is lost."""

import socket
import ssl
import threading
import time
from contextlib import suppress

import pytest

import calamint
from calamint.core.errors import ProxyError
from calamint.net.dial import Address
from calamint.net.proxy import Proxy
from calamint.testing import ScriptedPeer
from tests.net.proxied import (
    ESTABLISHED,
    OK,
    ONE,
    PASSWORD,
    USER,
    Handler,
    LoopProxy,
    Make,
    read_head,
    refuses,
    socks,
    take,
    tunnels,
)
from tests.net.test_tls import server_context
from tests.net.thread_server import full_listener
from tests.servers import PrivateCa

pytestmark = pytest.mark.usefixtures("nothing_left")
AUTH = (USER, PASSWORD)
GARBAGE = b"\x00\xff garbage \r\n\r\n"
SHORT = 0.15  # seconds: a connect limit that runs out
ORIGIN = "https://localhost:4433/"


# Refusals


@pytest.mark.parametrize("status", [400, 401, 403, 404, 407, 429, 500, 502, 503, 504, 301])
def test_H7_a_refused_tunnel(make: Make, status: int) -> None:
    """A ProxyError with the proxy's status and fields; its content, which may never end, is not waited for."""
    reply = f"HTTP/1.1 {status} Because\r\nProxy-Authenticate: Basic realm=x\r\nContent-Length: 1000000\r\n\r\nsome"
    with LoopProxy(refuses(reply.encode())) as loop, make(limits=ONE) as driver:
        for _ in range(2):
            error = driver.refuse(ORIGIN, loop.proxy())
            assert isinstance(error, ProxyError) and error.unprocessed
            assert error.status == status
            assert (b"Proxy-Authenticate", b"Basic realm=x") in [(n.title(), value) for n, value in error.fields]
            advice = "; credentials for it are written http://user:password@proxy" if status == 407 else ""
            assert str(error) == f"GET /: no tunnel to localhost:4433: the proxy refuses: {status} Because{advice}"
        assert loop.connections == 2


def test_H7_interim_responses_before_a_tunnel(make: Make, private_ca: PrivateCa) -> None:
    handle = tunnels(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: <x>\r\n\r\n" + ESTABLISHED)
    with ScriptedPeer(tls=server_context(private_ca)) as peer, LoopProxy(handle) as loop, make() as driver:
        assert driver.fetch(f"https://localhost:{peer.port}/", loop.proxy()) == b"ok"


def test_a_tunnels_response_has_no_content_whatever_it_says(make: Make, private_ca: PrivateCa) -> None:
    """RFC 9110 §9.3.6: a 2xx to CONNECT has none, and its Content-Length and Transfer-Encoding are ignored."""
    for field in (b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Content-Length: 5\r\n" * 2):
        handle = tunnels(b"HTTP/1.0 201 Made\r\n" + field + b"\r\n")
        with ScriptedPeer(tls=server_context(private_ca)) as peer, LoopProxy(handle) as loop, make() as driver:
            assert driver.fetch(f"https://localhost:{peer.port}/", loop.proxy()) == b"ok"


def test_wrong_credentials_for_socks(make: Make) -> None:
    with LoopProxy(socks(AUTH)) as loop, make(limits=ONE) as driver:
        for auth, words in (((USER, "wrong"), "authentication failure"), (None, "No acceptable authentication")):
            error = driver.refuse(ORIGIN, loop.proxy("socks5", auth))
            assert isinstance(error, ProxyError) and error.unprocessed and error.status is None
            assert "no connection to localhost:4433 through the SOCKS proxy" in str(error) and words in str(error)
            assert PASSWORD not in str(error) and "wrong" not in str(error)


@pytest.mark.parametrize("code", [1, 2, 3, 4, 5, 6, 7, 8, 255])
def test_socks_refuses(make: Make, code: int) -> None:
    with LoopProxy(socks(code=code)) as loop, make(limits=ONE) as driver:
        error = driver.refuse(ORIGIN, loop.proxy("socks5"))
        assert isinstance(error, ProxyError) and error.unprocessed
        assert "no connection to localhost:4433 through the SOCKS proxy: the proxy re" in str(error)


# Ends and nonsense at each stage: before anything is read, in the place of what would come, and in the middle of it


def closes(proxy: LoopProxy, sock: socket.socket) -> None:
    """Reads something, and ends."""
    sock.recv(65_536)


def resets(proxy: LoopProxy, sock: socket.socket) -> None:
    """Reads something, and ends with a TCP RST."""
    sock.recv(65_536)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1, 0, 0, 0, 0, 0, 0, 0]))


def babbles(proxy: LoopProxy, sock: socket.socket) -> None:
    """Reads something, and says what is no answer to it."""
    sock.recv(65_536)
    sock.sendall(GARBAGE)
    with suppress(OSError):
        sock.recv(65_536)


def stammers(words: bytes) -> Handler:
    """Says this much, and ends."""

    def handle(proxy: LoopProxy, sock: socket.socket) -> None:
        sock.recv(65_536)
        sock.sendall(words)

    return handle


def inside(then: Handler) -> Handler:
    """The tunnel is made, and ends here."""

    def handle(proxy: LoopProxy, sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(ESTABLISHED)
        then(proxy, sock)

    return handle


def socks_inside(then: Handler) -> Handler:
    """The same for SOCKS."""

    def handle(proxy: LoopProxy, sock: socket.socket) -> None:
        take(sock, take(sock, 2)[1])
        sock.sendall(b"\5\0")
        sock.recv(65_536)
        sock.sendall(bytes([5, 0, 0, 1]) + bytes(6))
        then(proxy, sock)

    return handle


TLS_WITH_PROXY = "no TLS with the proxy localhost:"
TUNNEL = "no tunnel to localhost:4433: "
SOCKS = "no connection to localhost:4433 through the SOCKS proxy: "
TLS = "no TLS with localhost:4433: "
BROKEN = [
    # how the proxy is named, whether it takes TLS off, what it does then, what is said
    *[("https", False, each, calamint.ConnectError, TLS_WITH_PROXY) for each in (closes, resets, babbles)],
    *[("http", False, each, ProxyError, TUNNEL) for each in (closes, resets, babbles, stammers(ESTABLISHED[:-2]))],
    *[("https", True, each, ProxyError, TUNNEL) for each in (closes, resets, babbles, stammers(ESTABLISHED[:-2]))],
    *[("socks5", False, each, ProxyError, SOCKS) for each in (closes, resets, babbles, stammers(b"\5"))],
    *[("http", False, inside(each), calamint.ConnectError, TLS) for each in (closes, resets, babbles)],
    *[("https", True, inside(each), calamint.ConnectError, TLS) for each in (closes, resets, babbles)],
    *[("socks5", False, socks_inside(each), calamint.ConnectError, TLS) for each in (closes, resets, babbles)],
]


@pytest.mark.parametrize("row", BROKEN, ids=range(len(BROKEN)))
def test_F7_each_stage_breaks_and_no_slot_is_lost(
    make: Make, private_ca: PrivateCa, row: tuple[str, bool, Handler, type[calamint.TransportError], str]
) -> None:
    """Five tries with one slot: five times the stage's own error, and never a PoolTimeout."""
    scheme, secure, handle, kind, words = row
    with LoopProxy(handle, server_context(private_ca) if secure else None) as loop, make(limits=ONE) as driver:
        for _ in range(5):
            error = driver.refuse(ORIGIN, loop.proxy(scheme, trust=private_ca.ca_file))
            assert type(error) is kind and error.unprocessed, error
            assert f"GET /: {words}" in str(error)
        assert loop.connections == 5
        stats = driver.stats()
        assert (stats.connections, stats.dials) == (0, 5)


def test_F7_a_certificate_that_is_refused_inside_a_tunnel(make: Make, private_ca: PrivateCa) -> None:
    """The catalogue's own case: the tunnel is there, its TLS is not; the proxy sees each tunnel end."""
    tls = server_context(private_ca, "elsewhere.test")
    with ScriptedPeer(tls=tls) as peer, LoopProxy() as loop, make(limits=ONE) as driver:
        for _ in range(5):
            error = driver.refuse(f"https://localhost:{peer.port}/", loop.proxy())
            assert type(error) is calamint.ConnectError and "CERTIFICATE_VERIFY_FAILED" in str(error)
        assert (loop.connections, driver.stats().connections) == (5, 0)
        deadline = time.monotonic() + 5
        while loop.open and time.monotonic() < deadline:
            time.sleep(0.001)
        assert loop.open == 0


def test_a_protocol_that_was_not_asked_for(make: Make, private_ca: PrivateCa) -> None:
    tls = server_context(private_ca)
    with ScriptedPeer(tls=tls, alpn=("http/1.1",)) as peer, LoopProxy() as loop, make(http1=False) as driver:
        error = driver.refuse(f"https://localhost:{peer.port}/", loop.proxy())
        assert type(error) is calamint.ConnectError
        assert "where h2 was asked for" in str(error)


def answers_early(proxy: LoopProxy, sock: socket.socket) -> None:
    """SOCKS, and an answer in one piece with its reply; then what was asked, if anything was."""
    take(sock, take(sock, 2)[1])
    sock.sendall(b"\5\0")
    sock.recv(65_536)
    sock.sendall(bytes([5, 0, 0, 1]) + bytes(6) + OK)
    while data := sock.recv(65_536):
        proxy.carried += data


def answers_with_tls(context: ssl.SSLContext) -> Handler:
    """TLS 1.2, and an answer in one piece with the end of its handshake; then what was asked, if anything was."""
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # where the server is the one who ends the handshake

    def handle(proxy: LoopProxy, sock: socket.socket) -> None:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(incoming, outgoing, server_side=True)
        done = False
        while not done:
            incoming.write(sock.recv(65_536))
            try:
                tls.do_handshake()
            except ssl.SSLWantReadError:
                sock.sendall(outgoing.read())
            else:
                done = True
        tls.write(OK)
        sock.sendall(outgoing.read())
        while data := sock.recv(65_536):
            incoming.write(data)
            with suppress(ssl.SSLError):
                proxy.carried += tls.read()

    return handle


EARLY = "the peer sent 40 bytes before it was asked for anything (RFC 9112 §9.2): b'HTTP/1.1 200 OK"


def test_D8_an_answer_with_the_reply_of_socks_is_none(make: Make) -> None:
    """What comes over HTTP/1.1 before the request has left is no response to it, and the request is not sent."""
    with LoopProxy(answers_early) as loop, make(limits=ONE) as driver:
        for _ in range(3):
            error = driver.refuse("http://name.test/", loop.proxy("socks5"))
            assert type(error) is calamint.RemoteProtocolError and error.unprocessed, error
            assert EARLY in str(error)
        assert (driver.stats().connections, driver.stats().dials) == (0, 3)
    assert not loop.carried


def test_D8_an_answer_with_the_end_of_a_handshake_is_none(make: Make, private_ca: PrivateCa) -> None:
    """The same for TLS, with an origin and no proxy."""
    with LoopProxy(answers_with_tls(server_context(private_ca))) as loop, make(limits=ONE) as driver:
        for _ in range(3):
            error = driver.refuse(f"https://localhost:{loop.port}/", None)
            assert type(error) is calamint.RemoteProtocolError and error.unprocessed, error
            assert EARLY in str(error)
        assert (driver.stats().connections, driver.stats().dials) == (0, 3)
    assert not loop.carried


def test_a_host_that_no_proxy_can_be_told(make: Make) -> None:
    """SOCKS counts the bytes of a name in one octet."""
    host = ".".join(["a" * 60] * 5)
    with LoopProxy(socks()) as loop, make(limits=ONE) as driver:
        for _ in range(2):
            with pytest.raises(calamint.InvalidURL, match="is no host that can be told to a SOCKS proxy"):
                driver.request(f"http://{host}/", loop.proxy("socks5"))
        assert loop.heads == []


def test_nobody_listens(make: Make) -> None:
    """The proxy's address is named, since that is where nobody is."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        with make(limits=ONE) as driver:
            for scheme in ("http", "https", "socks5"):
                error = driver.refuse(ORIGIN, Proxy(f"{scheme}://127.0.0.1:{port}"))
                assert type(error) is calamint.ConnectError and error.unprocessed
                assert f"could not connect to 127.0.0.1 port {port}: 127.0.0.1: Connection refused" in str(error)


def test_a_socket_that_does_not_take_its_options(make: Make) -> None:
    """UDP's does not: it is closed, the next address is tried, and the last failure is the dial's."""
    addresses: list[Address] = [(socket.AF_INET, socket.SOCK_DGRAM, 0, "", ("127.0.0.1", 9))]
    with ScriptedPeer() as peer, make(limits=ONE, resolver=lambda host, port: addresses) as driver:
        error = driver.refuse("http://name.test/", None)
        assert type(error) is calamint.ConnectError and error.unprocessed
        assert "could not connect to name.test port 80: 127.0.0.1: " in str(error)
        addresses.append((socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", peer.port)))
        assert driver.fetch("http://name.test/") == b"ok"


@pytest.mark.parametrize("answer", [None, [("127.0.0.1", 80)]], ids=str)
def test_a_resolver_whose_answer_is_none(make: Make, answer: list[Address]) -> None:
    """It fails the dial, and nothing else."""
    with ScriptedPeer() as peer, make(resolver=lambda host, port: answer) as driver:
        assert driver.fetch(peer.url) == b"ok"
        error = driver.refuse("http://name.test/", None)
        assert type(error) is calamint.ConnectError and error.unprocessed
        assert "no address for name.test: " in str(error)
        assert driver.fetch(peer.url) == b"ok" and peer.report.connections == 1


def test_a_proxy_without_an_address(make: Make) -> None:
    def resolver(host: str, port: int) -> list[calamint.net.dial.Address]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with make(resolver=resolver) as driver:
        error = driver.refuse(ORIGIN, Proxy("http://proxy.test:3128"))
        assert type(error) is calamint.ConnectError and "no address for proxy.test: Name or service" in str(error)


# Silence at each stage, under the limit for all of the way


def is_silent(proxy: LoopProxy, sock: socket.socket) -> None:
    """Reads, and says nothing."""
    with suppress(OSError):
        while sock.recv(65_536):
            pass


def says_and_is_silent(words: bytes) -> Handler:
    def handle(proxy: LoopProxy, sock: socket.socket) -> None:
        sock.recv(65_536)
        sock.sendall(words)
        is_silent(proxy, sock)

    return handle


SILENT = [
    ("https", False, is_silent, TLS_WITH_PROXY + "PORT"),
    ("http", False, is_silent, "no tunnel to localhost:4433"),
    ("http", False, says_and_is_silent(ESTABLISHED[:-2]), "no tunnel to localhost:4433"),
    ("http", False, says_and_is_silent(b"HTTP/1.1 100 Continue\r\n\r\n"), "no tunnel to localhost:4433"),
    ("https", True, is_silent, "no tunnel to localhost:4433"),
    ("socks5", False, is_silent, "no connection to localhost:4433 through the SOCKS proxy"),
    ("socks5", False, says_and_is_silent(b"\5\0"), "no connection to localhost:4433 through the SOCKS proxy"),
    ("http", False, inside(is_silent), "no TLS with localhost:4433"),
    ("https", True, inside(is_silent), "no TLS with localhost:4433"),
    ("socks5", False, socks_inside(is_silent), "no TLS with localhost:4433"),
]


def limit_of(row: tuple[str, bool, Handler, str]) -> float:
    """Seconds: enough for what has to be done before the silence, on a busy machine."""
    return SHORT if row[2] is is_silent and not row[1] else 0.5


@pytest.mark.parametrize("row", SILENT, ids=range(len(SILENT)))
def test_H7_each_stage_is_under_the_connect_limit(
    make: Make, private_ca: PrivateCa, row: tuple[str, bool, Handler, str]
) -> None:
    """The error names what was waited for, and the slot is free again."""
    scheme, secure, handle, words = row
    with LoopProxy(handle, server_context(private_ca) if secure else None) as loop, make(limits=ONE) as driver:
        limit = limit_of(row)
        for _ in range(2 if limit == SHORT else 1):
            began = time.monotonic()
            error = driver.refuse(ORIGIN, loop.proxy(scheme, trust=private_ca.ca_file), connect=limit)
            assert limit <= time.monotonic() - began < limit + 1
            assert type(error) is calamint.ConnectTimeout and error.unprocessed
            assert str(error) == f"GET /: {words.replace('PORT', str(loop.port))} within the connect limit"
        assert driver.stats().connections == 0


def test_a_proxy_that_drips_does_not_stretch_the_limit(make: Make) -> None:
    """It is for all of the way, whatever comes meanwhile."""

    def drips(proxy: LoopProxy, sock: socket.socket) -> None:
        sock.recv(65_536)
        sock.settimeout(0.02)
        for byte in b"HTTP/1.1 200 OK\r\nx-long: " + b"x" * 1000:
            sock.sendall(bytes([byte]))
            with suppress(TimeoutError):
                if not sock.recv(1):
                    return

    with LoopProxy(drips) as loop, make() as driver:
        began = time.monotonic()
        assert type(driver.refuse(ORIGIN, loop.proxy(), connect=SHORT)) is calamint.ConnectTimeout
        assert time.monotonic() - began < SHORT + 1


def test_a_dead_address_of_a_proxy(make: Make) -> None:
    """No answer to a SYN: the error says where to, and that none came."""
    with full_listener() as (host, port), make(limits=ONE) as driver:
        error = driver.refuse(ORIGIN, Proxy(f"http://{host}:{port}"), connect=SHORT)
        assert type(error) is calamint.ConnectTimeout
        assert str(error) == f"GET /: could not connect to {host} port {port}: no answer, within the connect limit"


def test_a_lookup_of_a_proxy_that_hangs(make: Make) -> None:
    go_on = threading.Event()

    def resolver(host: str, port: int) -> list[calamint.net.dial.Address]:
        go_on.wait(5)
        return []

    with make(resolver=resolver, limits=ONE) as driver:
        error = driver.refuse(ORIGIN, Proxy("http://proxy.test:3128"), connect=SHORT)
        go_on.set()
        assert type(error) is calamint.ConnectTimeout
        assert str(error) == "GET /: no address for proxy.test within the connect limit"


def test_a_dial_through_a_proxy_belongs_to_the_pool(make: Make) -> None:
    """A request that waits for it no longer leaves it; the next waits for the same one, as long as that may take."""
    with LoopProxy(is_silent) as loop, make(limits=ONE) as driver:
        with pytest.raises(calamint.DeadlineExceeded) as caught:
            driver.request(ORIGIN, loop.proxy(), timeout=SHORT, connect=3 * SHORT)
        assert caught.value.unprocessed and driver.stats().dialling == 1
        began = time.monotonic()
        error = driver.refuse(ORIGIN, loop.proxy(), connect=3 * SHORT)
        assert type(error) is calamint.ConnectTimeout and time.monotonic() - began < 2.5 * SHORT
        assert loop.connections == 1


def test_a_wrong_turn_does_not_spoil_the_next(make: Make, private_ca: PrivateCa) -> None:
    """After any failure the same pool, and the same slot, serve."""
    tls = server_context(private_ca)
    with ScriptedPeer(tls=tls) as peer, LoopProxy() as good, make(limits=ONE) as driver:
        url = f"https://localhost:{peer.port}/"
        for scheme, secure, handle, _, _ in BROKEN:
            with LoopProxy(handle, server_context(private_ca) if secure else None) as loop:
                driver.refuse(url, loop.proxy(scheme, trust=private_ca.ca_file))
            assert driver.fetch(url, good.proxy()) == b"ok"
        assert driver.stats().connections == 1
