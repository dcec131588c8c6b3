"""The proxies themselves: what `proxies` promises, by sockets and bytes alone."""

import base64
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from urllib.parse import urlsplit

import pytest

from tests.servers import SMALL, PrivateCa, Server
from tests.servers.proxies import PASSWORD, USER

pytestmark = pytest.mark.server

TIMEOUT = 30.0
WAYS = [("squid", "http"), ("squid", "https"), ("squid", "open"), ("tinyproxy", "http"), ("tinyproxy", "https")]
CREDENTIALS = f"Proxy-Authorization: Basic {base64.b64encode(f'{USER}:{PASSWORD}'.encode()).decode()}\r\n"
WRONG = f"Proxy-Authorization: Basic {base64.b64encode(f'{USER}:{PASSWORD}!'.encode()).decode()}\r\n"


@contextmanager
def connected(proxy: Server, key: str, ca: PrivateCa) -> Iterator[socket.socket]:
    url = urlsplit(proxy.urls[key])
    with ExitStack() as stack:
        sock = stack.enter_context(socket.create_connection((url.hostname, url.port), TIMEOUT))
        if url.scheme == "https":
            sock = stack.enter_context(ca.client_context("http/1.1").wrap_socket(sock, server_hostname=url.hostname))
        yield sock


def read_until(sock: socket.socket, end: bytes) -> bytes:
    data = b""
    while end not in data:
        piece = sock.recv(65_536)
        assert piece, data
        data += piece
    return data


def ask(sock: socket.socket, head: str) -> tuple[int, bytes]:
    """Status and head of the answer, and what came behind it."""
    sock.sendall(f"{head}\r\n".encode())
    data = read_until(sock, b"\r\n\r\n")
    return int(data[9:12]), data


@pytest.fixture
def proxy(request: pytest.FixtureRequest) -> tuple[Server, str]:
    name, key = request.param
    return request.getfixturevalue(name), key


@pytest.mark.parametrize("proxy", WAYS, indirect=True)
def test_requests_are_forwarded(proxy: tuple[Server, str], private_ca: PrivateCa, node: Server) -> None:
    host = node.urls["http1"].removeprefix("http://")
    request = f"GET http://{host}/small HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n"
    with connected(*proxy, private_ca) as sock:
        status, data = ask(sock, request + CREDENTIALS)
        assert status == 200
        assert data.endswith(SMALL) or read_until(sock, SMALL)


@pytest.mark.parametrize("proxy", WAYS, indirect=True)
def test_tunnels_are_made(proxy: tuple[Server, str], private_ca: PrivateCa, node: Server) -> None:
    host = node.urls["http1"].removeprefix("http://")
    with connected(*proxy, private_ca) as sock:
        status, data = ask(sock, f"CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n{CREDENTIALS}")
        assert status == 200 and data.endswith(b"\r\n\r\n")
        status, data = ask(sock, f"GET /small HTTP/1.1\r\nHost: {host}\r\n")
        assert status == 200
        assert data.endswith(SMALL) or read_until(sock, SMALL)


@pytest.mark.parametrize("proxy", [way for way in WAYS if way[1] != "open"], indirect=True)
@pytest.mark.parametrize("credentials", ["", WRONG])
def test_nobody_else_is_let_in(
    proxy: tuple[Server, str], private_ca: PrivateCa, node: Server, credentials: str
) -> None:
    host = node.urls["http1"].removeprefix("http://")
    for request in (f"CONNECT {host} HTTP/1.1\r\n", f"GET http://{host}/small HTTP/1.1\r\n"):
        with connected(*proxy, private_ca) as sock:
            status, data = ask(sock, f"{request}Host: {host}\r\n{credentials}")
            # tinyproxy says 401 to wrong ones, and to none at all 407
            assert status in (401, 407)
            assert status == 407 or proxy[0].name == "tinyproxy"
            assert b"authenticate: basic realm=" in data.lower()


def test_squid_lets_everybody_in_where_it_says_so(squid: Server, private_ca: PrivateCa, node: Server) -> None:
    host = node.urls["http1"].removeprefix("http://")
    with connected(squid, "open", private_ca) as sock:
        assert ask(sock, f"CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n")[0] == 200


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_microsocks(microsocks: Server, private_ca: PrivateCa, node: Server, host: str) -> None:
    port = urlsplit(node.urls["http1"]).port
    assert port is not None
    with connected(microsocks, "socks5", private_ca) as sock:
        sock.sendall(b"\x05\x02\x00\x02")
        assert sock.recv(2) == b"\x05\x02"
        sock.sendall(b"\x01%c%b%c%b" % (len(USER), USER.encode(), len(PASSWORD), PASSWORD.encode()))
        assert sock.recv(2) == b"\x01\x00"
        address = b"\x01" + socket.inet_aton(host) if host[0].isdigit() else b"\x03%c%b" % (len(host), host.encode())
        sock.sendall(b"\x05\x01\x00" + address + port.to_bytes(2, "big"))
        assert sock.recv(10)[:4] == b"\x05\x00\x00\x01"
        status, data = ask(sock, f"GET /small HTTP/1.1\r\nHost: {host}:{port}\r\n")
        assert status == 200
        assert data.endswith(SMALL) or read_until(sock, SMALL)


def test_microsocks_lets_nobody_else_in(microsocks: Server, private_ca: PrivateCa) -> None:
    with connected(microsocks, "socks5", private_ca) as sock:
        sock.sendall(b"\x05\x01\x00")
        assert sock.recv(2) == b"\x05\xff"
    with connected(microsocks, "socks5", private_ca) as sock:
        sock.sendall(b"\x05\x01\x02")
        assert sock.recv(2) == b"\x05\x02"
        sock.sendall(b"\x01\x02me\x05wrong")
        assert sock.recv(2)[1]  # 0 would be "granted"
        assert sock.recv(1) == b""


def test_their_certificate_is_the_authoritys(squid: Server, tinyproxy: Server, private_ca: PrivateCa) -> None:
    for server in (squid, tinyproxy):
        with connected(server, "https", private_ca) as sock:
            assert isinstance(sock, ssl.SSLSocket)
            assert sock.selected_alpn_protocol() == ("http/1.1" if server.alpn else None)
