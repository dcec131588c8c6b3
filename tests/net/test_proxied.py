"""Requests through proxies, in both pools: what is forwarded, what goes through tunnels, and what is told to whom."""

import socket
import ssl
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest

import calamint
from calamint.net.dial import Address
from calamint.net.proxy import Proxy
from calamint.testing import ScriptedPeer, answer, close
from tests.net.proxied import (
    BASIC,
    OK,
    ONE,
    PASSWORD,
    USER,
    LoopProxy,
    Make,
    socks,
    to_port,
    tunnels,
)
from tests.net.test_tls import server_context
from tests.net.thread_server import ThreadServer, read_head
from tests.servers import PrivateCa

pytestmark = pytest.mark.usefixtures("nothing_left")
AUTH = (USER, PASSWORD)
SECRET = b"Basic"  # none of it is in any other field here


# Forwarded


@pytest.mark.parametrize("secure", [False, True])
def test_http_is_forwarded(make: Make, private_ca: PrivateCa, secure: bool) -> None:
    """In absolute form, with the origin's Host; several origins share the connection (RFC 9112 §3.2.2)."""
    tls = server_context(private_ca) if secure else None
    with ScriptedPeer([answer(content=b"ok")], tls=tls) as peer, make() as driver:
        proxy = Proxy(peer.url, auth=AUTH, headers={"X-For": "the proxy"}, ssl=private_ca.ca_file)
        for url in ("http://one.test/a?b", "http://two.test:8080", "http://[2001:db8::1]:81/c"):
            assert driver.fetch(url, proxy) == b"ok"
        assert driver.request("http://one.test/", proxy, "POST", content=b"content").content == b"ok"
        seen = peer.report.requests
    assert [item.target for item in seen] == [
        "http://one.test/a?b",
        "http://two.test:8080/",
        "http://[2001:db8::1]:81/c",
        "http://one.test/",
    ]
    assert [item.authority for item in seen] == ["one.test", "two.test:8080", "[2001:db8::1]:81", "one.test"]
    assert {item.connection for item in seen} == {0}
    for item in seen:
        fields = [(name.lower(), value) for name, value in item.fields]
        assert fields.count((b"proxy-authorization", BASIC.partition(b": ")[2])) == 1
        assert (b"x-for", b"the proxy") in fields
    assert seen[3].content == b"content"


def test_an_absolute_form_of_the_server_as_a_whole(make: Make) -> None:
    """RFC 9112 §3.2.4: what the proxy sends on as `OPTIONS *` comes to it without a path."""
    url = calamint.core.url.URL(calamint.core.Origin("http", "one.test", 80), "*", "", "")
    with ScriptedPeer() as peer, make() as driver:
        assert driver.request(url, Proxy(peer.url), "OPTIONS").content == b"ok"
        assert peer.report.requests[0].target == "http://one.test"


def test_a_refusal_of_what_is_forwarded_is_a_response(make: Make) -> None:
    """A 407 for the request itself is the caller's to read, as a 403 or a 502 is."""
    with ScriptedPeer(lambda request: answer(int(request.target[-3:]))) as peer, make() as driver:
        for status in (407, 403, 502):
            assert driver.request(f"http://one.test/{status}", Proxy(peer.url)).status == status


def close_silently(sock: socket.socket) -> None:
    """An answer of HTTP/1.1, and then the end: what tinyproxy does."""
    assert read_head(sock).startswith((b"GET http://one.test/", b"POST http://one.test/"))
    sock.sendall(OK)


def test_a_proxy_that_closes_after_each_response_without_saying_so(make: Make) -> None:
    """Whichever comes first, the end or the next request: a GET is answered, and a POST too, or its failure is typed."""
    with ThreadServer(close_silently, connections=4) as server, make(limits=ONE) as driver:
        for _ in range(4):
            assert driver.fetch("http://one.test/", Proxy(server.url)) == b"ok"


def test_a_forward_connection_that_breaks_under_a_request(make: Make) -> None:
    """RFC 9110 §9.2.2: a GET is sent once more, on another connection, and a POST is not."""
    script = [answer(), close(), answer(content=b"again"), answer(), close(), answer(content=b"never")]
    with ScriptedPeer(script) as peer, make(limits=ONE) as driver:
        proxy = Proxy(peer.url)
        assert driver.fetch("http://one.test/", proxy) == b"ok"
        assert driver.fetch("http://one.test/", proxy) == b"again"
        assert driver.fetch("http://two.test/", proxy) == b"ok"
        with pytest.raises(calamint.ReadError) as caught:
            driver.request("http://two.test/", proxy, "POST", content=b"once")
        assert not caught.value.unprocessed and caught.value.attempts == 1
        assert len([seen for seen in peer.report.requests if seen.method == "POST"]) == 1


# Tunnels


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("http2", [False, True])
def test_H8_https_goes_through_a_tunnel(make: Make, private_ca: PrivateCa, secure: bool, http2: bool) -> None:
    """TLS in a tunnel, and TLS in TLS. What is for the proxy stays there, and what is for the origin goes nowhere else."""
    tls = server_context(private_ca) if secure else None
    content = bytes(range(256)) * 800
    with (
        ScriptedPeer(lambda request: answer(content=request.content), tls=server_context(private_ca)) as peer,
        LoopProxy(tls=tls) as loop,
        make(http2=http2) as driver,
    ):
        proxy = Proxy(loop.url(), auth=AUTH, headers={"X-For": "the proxy"}, ssl=private_ca.ca_file)
        for _ in range(2):
            fields = ((b"X-For-The", b"origin"),)
            response = driver.request(f"https://localhost:{peer.port}/up", proxy, "POST", fields, content)
            assert response.content == content
        seen = peer.report.requests
        assert len(loop.heads) == 1
        head, _, rest = loop.heads[0].partition(b"\r\n\r\n")
        assert head.split(b"\r\n") == [
            f"CONNECT localhost:{peer.port} HTTP/1.1".encode(),
            f"Host: localhost:{peer.port}".encode(),
            b"X-For: the proxy",
            BASIC,
        ]
        assert rest == b"" and b"X-For" not in loop.carried
    for item in seen:
        assert item.target == "/up" and (item.stream_id > 0) is http2
        names = {name.lower() for name, _ in item.fields}
        assert b"x-for-the" in names and not {b"proxy-authorization", b"x-for"} & names


@pytest.mark.parametrize("auth", [None, AUTH])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_socks(make: Make, private_ca: PrivateCa, auth: tuple[str, str] | None, scheme: str) -> None:
    """Names are looked up by the proxy, whatever our own resolver would say; in the clear nothing is in absolute form."""
    tls = server_context(private_ca, "name.test", "127.0.0.1", "::1") if scheme == "https" else None
    with ScriptedPeer(tls=tls) as peer, LoopProxy(socks(auth)) as loop, make() as driver:
        proxy = loop.proxy("socks5", auth)
        for host in ("name.test", "127.0.0.1"):
            assert driver.fetch(f"{scheme}://{host}:{peer.port}/a", proxy) == b"ok"
        assert loop.heads == [f"{host}:{peer.port}".encode() for host in ("name.test", "127.0.0.1")]
        assert SECRET not in loop.carried
        assert {item.target for item in peer.report.requests} == {"/a"}


def test_http2_by_prior_knowledge_needs_a_way_that_is_no_forwarding(make: Make) -> None:
    """Through SOCKS it is spoken with the origin; a proxy that is asked itself is asked in HTTP/1.1."""
    with ScriptedPeer() as peer, LoopProxy(socks()) as loop, make(http1=False) as driver:
        assert driver.fetch(f"http://name.test:{peer.port}/", loop.proxy("socks5")) == b"ok"
        assert driver.fetch("http://name.test/", Proxy(peer.url)) == b"ok"
        assert [item.stream_id for item in peer.report.requests] == [1, 0]


def greets(far: socket.socket) -> None:
    """An HTTP/2 server whose SETTINGS come before anything else does."""
    far.sendall(bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
    data = b""
    while b"\x01\x25\x00\x00\x00\x01" not in data and b"\x01\x05\x00\x00\x00\x01" not in data:
        data += far.recv(65_536)
    far.sendall(bytes([0, 0, 1, 1, 5, 0, 0, 0, 1, 0x88]))
    while far.recv(65_536):
        pass


def test_G3_what_comes_in_one_piece_with_the_proxys_reply(make: Make) -> None:
    """It is the origin's, and the first that the connection hears."""
    with ThreadServer(greets) as server, LoopProxy(socks(behind=True)) as loop, make(http1=False) as driver:
        response = driver.request(f"http://name.test:{server.port}/", loop.proxy("socks5"))
        assert (response.status, response.content) == (200, b"")
        # Its SETTINGS were there before the head went out: nobody had to wait for them.
        assert driver.snapshot().connections[0].requests == ()


def test_G3_what_comes_behind_a_200_goes_to_tls(make: Make, private_ca: PrivateCa) -> None:
    """It is no TLS here, and so there is none with the origin."""
    handle = tunnels(behind=b"220 mail.test ESMTP\r\n")
    with ScriptedPeer() as peer, LoopProxy(handle) as loop, make() as driver:
        error = driver.refuse(f"https://localhost:{peer.port}/", loop.proxy())
        assert isinstance(error, calamint.ConnectError) and "no TLS with localhost" in str(error)
        assert error.unprocessed


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("secure", [False, True])
def test_a_session_is_resumed_through_a_proxy(
    make: Make, private_ca: PrivateCa, version: ssl.TLSVersion, secure: bool
) -> None:
    resumed: list[bool | None] = []

    def handle(sock: socket.socket) -> None:
        assert isinstance(sock, ssl.SSLSocket)
        resumed.append(sock.session_reused)
        read_head(sock)
        sock.sendall(OK.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))

    context = server_context(private_ca)
    context.minimum_version = context.maximum_version = version
    tls = server_context(private_ca) if secure else None
    with ThreadServer(handle, context, connections=3) as server, LoopProxy(tls=tls) as loop, make() as driver:
        for _ in range(3):
            assert driver.fetch(server.url, loop.proxy(trust=private_ca.ca_file)) == b"ok"
    assert resumed == [False, True, True]


@pytest.mark.parametrize("secure", [False, True])
def test_a_tunnel_that_is_half_closed_by_the_origin(make: Make, private_ca: PrivateCa, secure: bool) -> None:
    """A response that ends with the connection: with close_notify it is whole, without it is cut off, in any tunnel."""

    def handle(sock: socket.socket) -> None:
        assert isinstance(sock, ssl.SSLSocket)
        target = read_head(sock).split(b" ")[1]
        sock.sendall(b"HTTP/1.1 200 OK\r\n\r\nuntil the end")
        if target == b"/whole":
            with suppress(OSError):  # the client may say nothing more
                sock.unwrap()
        else:
            sock.shutdown(socket.SHUT_WR)

    tls = server_context(private_ca) if secure else None
    context = server_context(private_ca)
    with ThreadServer(handle, context, connections=2) as server, LoopProxy(tls=tls) as loop, make() as driver:
        proxy = loop.proxy(trust=private_ca.ca_file)
        assert driver.fetch(f"{server.url}/whole", proxy) == b"until the end"
        error = driver.refuse(f"{server.url}/cut", proxy)
        assert isinstance(error, calamint.ReadError) and "close_notify" in str(error)


def test_H4_hosts_as_a_proxy_hears_them(make: Make, private_ca: PrivateCa) -> None:
    """IDNA hosts as A-labels; a trailing dot stays, but in the name for TLS; an address keeps its brackets and loses its zone."""
    hosts = {
        "bücher.test": "xn--bcher-kva.test",
        "name.test.": "name.test.",
        "[::1]": "[::1]",
        "[::1%25lo]": "[::1]",
    }
    names = ("xn--bcher-kva.test", "name.test", "::1")
    with (
        ScriptedPeer(tls=server_context(private_ca, *names)) as peer,
        LoopProxy(tunnels(port=peer.port)) as loop,
        ScriptedPeer() as forward,
        make() as driver,
    ):
        for host, told in hosts.items():
            assert driver.fetch(f"https://{host}:4433/", loop.proxy()) == b"ok"
            assert loop.heads[-1].startswith(f"CONNECT {told}:4433 HTTP/1.1\r\nHost: {told}:4433\r\n".encode())
            assert driver.fetch(f"http://{host}:8080/", Proxy(forward.url)) == b"ok"
            seen = forward.report.requests[-1]
            assert (seen.target, seen.authority) == (f"http://{told}:8080/", f"{told}:8080")


# Keys


def test_H7_a_tunnel_and_what_is_forwarded_share_nothing(make: Make, private_ca: PrivateCa) -> None:
    """Two keys, though the proxy and even the authority are the same; and a third one for what needs no proxy."""
    tls = server_context(private_ca)
    with ScriptedPeer(tls=tls) as peer, ScriptedPeer() as clear, LoopProxy() as loop, make() as driver:
        for _ in range(2):
            assert driver.fetch(f"https://localhost:{peer.port}/", loop.proxy()) == b"ok"
            assert driver.fetch(f"http://localhost:{peer.port}/", loop.proxy()) == b"ok"
            assert driver.fetch(clear.url) == b"ok"
        assert loop.connections == 2 and driver.stats().connections == 3
        assert [head.split(b" ")[0] for head in loop.heads] == [b"CONNECT", b"GET", b"GET"]


def test_H5_nothing_is_shared_across_proxies_credentials_and_trust(make: Make, private_ca: PrivateCa) -> None:
    """A connection is used again where all of it is the same, in whatever words, and only there."""
    tls = server_context(private_ca)
    with ScriptedPeer(tls=tls) as peer, LoopProxy() as one, LoopProxy() as two, make() as driver:
        url = f"https://localhost:{peer.port}/"
        ways = [
            None,
            one.proxy(),
            two.proxy(),
            one.proxy(auth=AUTH),
            one.proxy(auth=(USER, "other")),
            Proxy(one.url(), headers={"X-A": "1"}),
            one.proxy(trust=False),
        ]
        for number, way in enumerate(ways, 1):
            assert driver.fetch(url, way) == b"ok"
            assert driver.stats().connections == number
        same = [None, one.proxy(), Proxy(one.url() + "/path"), Proxy(one.url().replace("//", "//me:secret@"))]
        for way in same:
            assert driver.fetch(url, way) == b"ok"
        assert driver.stats().connections == len(ways) == peer.report.connections
        assert (one.connections, two.connections) == (5, 1)


def test_H5_whom_a_proxy_is_taken_to_be(make: Make, private_ca: PrivateCa) -> None:
    """One that nobody vouches for is refused, though an origin behind it would be trusted, and though another `Proxy` has
    just been careless about it; and the other way round."""
    tls = server_context(private_ca)
    with ScriptedPeer(tls=tls) as peer, LoopProxy(tls=server_context(private_ca)) as loop:
        url = f"https://localhost:{peer.port}/"
        with make() as driver:
            assert driver.fetch(url, loop.proxy(trust=False)) == b"ok"
            error = driver.refuse(url, loop.proxy())
            assert isinstance(error, calamint.ConnectError) and error.unprocessed
            assert f"no TLS with the proxy localhost:{loop.port}: [SSL: CERTIFICATE_VERIFY_FAILED]" in str(error)
            error = driver.refuse("http://one.test/", loop.proxy())
            assert isinstance(error, calamint.ConnectError) and "CERTIFICATE_VERIFY_FAILED" in str(error)
        with make(verify=True) as driver:
            error = driver.refuse(url, loop.proxy(trust=private_ca.ca_file))
            assert isinstance(error, calamint.ConnectError)
            assert f"no TLS with localhost:{peer.port}: [SSL: CERTIFICATE_VERIFY_FAILED]" in str(error)
        assert len(peer.report.requests) == 1


# Where we connect from, and to


def test_a_local_address(make: Make, private_ca: PrivateCa) -> None:
    """It is what the proxy sees."""
    seen: list[str] = []

    def handle(proxy: LoopProxy, sock: socket.socket) -> None:
        seen.append(sock.getpeername()[0])
        tunnels()(proxy, sock)

    with LoopProxy(handle) as loop, make(local_address="127.0.0.2") as driver:
        assert driver.fetch("http://one.test/", loop.proxy()) == b"ok"
    assert seen == ["127.0.0.2"]


def test_the_resolver_is_asked_for_the_proxy_alone(make: Make, private_ca: PrivateCa) -> None:
    """The origin's name is the proxy's to look up."""
    asked: list[str] = []

    with ScriptedPeer(tls=server_context(private_ca, "name.test")) as peer, LoopProxy(tunnels()) as loop:

        def resolver(host: str, port: int) -> Sequence[Address]:
            asked.append(host)
            return to_port(loop.port)(host, port)

        with make(resolver=resolver) as driver:
            assert driver.fetch(f"https://name.test:{peer.port}/", Proxy("http://proxy.test:3128")) == b"ok"
    assert asked == ["proxy.test"]


def test_a_unix_domain_socket_and_a_proxy_contradict_each_other(make: Make, tmp_path: Path) -> None:
    """Both say where to connect to; nothing is sent."""
    with ScriptedPeer() as peer, make(uds=str(tmp_path / "socket")) as driver:
        with pytest.raises(ValueError, match="uds= and proxy="):
            driver.request("http://one.test/", Proxy(peer.url))
        assert peer.report.connections == 0


def test_a_proxy_by_an_ipv6_address(make: Make) -> None:
    with ScriptedPeer(host="::1") as peer, make() as driver:
        for url in (peer.url, peer.url.replace("]", "%251]")):
            assert driver.fetch("http://one.test/", Proxy(url)) == b"ok"
        assert peer.report.connections == 2
