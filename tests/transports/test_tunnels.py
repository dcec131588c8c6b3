"""Bytes that are no HTTP: what httpx and httpx2 get as `network_stream` of a 101 or of a CONNECT, WebSockets over it."""

import hashlib
import socket
import ssl
import struct
import threading
from base64 import b64encode

import pytest

from tests import servers
from tests.net.pool_help import at_rest
from tests.net.test_tls import server_context
from tests.net.thread_server import LIMIT, Handler, ThreadServer, read_head
from tests.transports.kit import Kit

BIG = bytes(range(256)) * 2000
MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 §1.3
UPGRADE = {"Connection": "Upgrade", "Upgrade": "echo"}


def echo(sock: socket.socket) -> None:
    """Everything back, until the client ends."""
    while data := sock.recv(65_536):
        sock.sendall(data)


def receive(sock: socket.socket) -> bytes:
    """What comes, nothing when the client has ended in whatever way."""
    try:
        return sock.recv(65_536)
    except ConnectionError:
        return b""


def upgrading(first: bytes = b"", then: Handler = echo) -> Handler:
    """101 (Switching Protocols), with the first words of the other protocol in the same piece."""

    def handle(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n" + first)
        then(sock)

    return handle


def connecting(then: Handler) -> Handler:
    """200 to CONNECT."""

    def handle(sock: socket.socket) -> None:
        assert read_head(sock).startswith(b"CONNECT inner.example:443 HTTP/1.1\r\n")
        sock.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        then(sock)

    return handle


def test_an_upgrade(kit: Kit) -> None:
    with ThreadServer(upgrading(b"welcome")) as server, kit.client() as client:
        streamed = client.begin("GET", server.url, headers=UPGRADE)
        stream = streamed.response.extensions["network_stream"]
        assert streamed.response.status_code == 101
        assert stream.get_extra_info("server_addr") == ("127.0.0.1", server.port)
        assert client.run(stream.read(3)) + client.run(stream.read(100)) == b"welcome"
        client.run(stream.write(BIG))
        got = b""
        while len(got) < len(BIG):
            got += client.run(stream.read(10_000))
        assert got == BIG
        with pytest.raises(kit.network.ReadTimeout):
            client.run(stream.read(1, timeout=0.05))
        client.run(stream.write(b"still here"))
        assert client.run(stream.read(100, timeout=LIMIT)) == b"still here"
        assert streamed.next() == b""  # it has no content
        client.run(stream.aclose() if kit.asynchronous else stream.close())
        with pytest.raises(kit.network.ReadError):
            client.run(stream.read(1))
        with pytest.raises(kit.network.WriteError):
            client.run(stream.write(b"x"))
        streamed.close()
        at_rest(client.pool)


def test_a_tunnel_that_is_not_read(kit: Kit) -> None:
    """A write ends by its own limit, and the tunnel goes on; by the request's, and it is over."""
    read = threading.Event()

    def slow(sock: socket.socket) -> None:
        read.wait(LIMIT)
        while receive(sock):
            pass

    with ThreadServer(upgrading(then=slow)) as server, kit.client() as client:
        streamed = client.begin("GET", server.url, headers=UPGRADE)
        stream = streamed.response.extensions["network_stream"]
        with pytest.raises(kit.network.WriteTimeout):
            client.run(stream.write(bytes(20_000_000), timeout=0.2))
        read.set()
        client.run(stream.write(b"x", timeout=LIMIT))
        streamed.close()
    read.clear()
    with ThreadServer(upgrading(then=slow)) as server, kit.client() as client:
        streamed = client.begin("GET", server.url, headers=UPGRADE, timeout=kit.library.Timeout(LIMIT, write=0.2))
        stream = streamed.response.extensions["network_stream"]
        with pytest.raises(kit.network.WriteError, match="the tunnel has ended"):
            client.run(stream.write(bytes(20_000_000), timeout=LIMIT))
        with pytest.raises(kit.network.ReadError, match="write=0.2"):
            client.run(stream.read(1))
        read.set()
        streamed.close()
        at_rest(client.pool)


def test_a_tunnel_that_the_other_end_ends(kit: Kit) -> None:
    with ThreadServer(upgrading(b"bye", lambda sock: None)) as server, kit.client() as client:
        streamed = client.begin("GET", server.url, headers=UPGRADE)
        stream = streamed.response.extensions["network_stream"]
        assert client.run(stream.read(100)) == b"bye"
        assert client.run(stream.read(100)) == b""
        streamed.close()
        at_rest(client.pool)


def test_an_upgrade_where_http2_would_be_spoken(kit: Kit, private_ca: servers.PrivateCa) -> None:
    """HTTP/2 has no upgrades (RFC 9113 §8.6): it is not asked for then."""
    context = server_context(private_ca)
    context.set_alpn_protocols(["h2", "http/1.1"])
    with ThreadServer(upgrading(b"x"), context) as server, kit.client(verify=str(private_ca.ca_file)) as client:
        streamed = client.begin("GET", server.url, headers=UPGRADE)
        stream = streamed.response.extensions["network_stream"]
        assert stream.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
        assert client.run(stream.read(1)) == b"x"
        streamed.close()


def secure(context: ssl.SSLContext) -> Handler:
    """TLS inside, and an echo in it."""

    def handle(sock: socket.socket) -> None:
        with context.wrap_socket(sock, server_side=True) as inner:
            echo(inner)

    return handle


def test_tls_inside_a_tunnel(kit: Kit, private_ca: servers.PrivateCa) -> None:
    context = server_context(private_ca)
    trusting = ssl.create_default_context(cafile=private_ca.ca_file)
    with ThreadServer(connecting(secure(context))) as server, kit.client() as client:
        streamed = client.begin("CONNECT", server.url, extensions={"target": b"inner.example:443"})
        outer = streamed.response.extensions["network_stream"]
        assert streamed.response.status_code == 200
        stream = client.run(outer.start_tls(trusting, "localhost", timeout=LIMIT))
        assert stream.get_extra_info("ssl_object").version().startswith("TLS")
        client.run(stream.write(BIG))
        got = b""
        while len(got) < len(BIG):
            got += client.run(stream.read(10_000, timeout=LIMIT))
        assert got == BIG
        with pytest.raises(RuntimeError, match="TLS inside TLS"):
            client.run(stream.start_tls(trusting, "localhost"))
        streamed.close()
        at_rest(client.pool)


def test_tls_inside_a_tunnel_that_is_not_made(kit: Kit, private_ca: servers.PrivateCa) -> None:
    """Another name in the certificate; a peer that says nothing."""
    trusting = ssl.create_default_context(cafile=private_ca.ca_file)

    def refused(sock: socket.socket) -> None:
        with pytest.raises(ssl.SSLError):
            secure(server_context(private_ca))(sock)

    for then, kind in ((refused, "ConnectError"), (lambda sock: sock.recv(65_536) and sock.recv(1), "ConnectTimeout")):
        with ThreadServer(connecting(then)) as server, kit.client() as client:
            streamed = client.begin("CONNECT", server.url, extensions={"target": b"inner.example:443"})
            outer = streamed.response.extensions["network_stream"]
            with pytest.raises(getattr(kit.network, kind)):
                client.run(outer.start_tls(trusting, "other.example", timeout=0.2))
            streamed.close()


def websocket(sock: socket.socket) -> None:
    """A WebSocket that says back what it hears: text, unmasked (RFC 6455 §5)."""
    head = read_head(sock)
    key = next(line.split(b": ")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key"))
    accept = b64encode(hashlib.sha1(key + MAGIC).digest())
    sock.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: %b\r\n\r\n" % accept
    )
    data = b""
    while piece := receive(sock):
        data += piece
        while len(data) >= 6:
            code, size = data[0] & 15, data[1] & 127
            begin = 2
            if size == 126:
                size, begin = struct.unpack(">H", data[2:4])[0], 4
            if len(data) < begin + 4 + size:
                break
            mask = data[begin : begin + 4]
            content = bytes(byte ^ mask[place % 4] for place, byte in enumerate(data[begin + 4 : begin + 4 + size]))
            data = data[begin + 4 + size :]
            length = bytes([size]) if size < 126 else b"\x7e" + struct.pack(">H", size)
            sock.sendall(bytes([0x80 | code]) + length + content)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_websockets_of_httpx2(asynchronous: bool) -> None:
    """Its own WebSocket client over our transport: a thread or a task reads while another one writes."""
    kit = Kit("httpx2", asynchronous)
    with ThreadServer(websocket) as server, kit.client() as client:
        url = server.url.replace("http://", "ws://")
        if asynchronous:

            async def talk() -> list[str]:
                async with client.client.websocket(url) as session:
                    await session.send_text("hello")
                    await session.send_text("x" * 40_000)
                    return [await session.receive_text(timeout=LIMIT) for _ in range(2)]

            assert client.run(talk()) == ["hello", "x" * 40_000]
        else:
            with client.client.websocket(url) as session:
                session.send_text("hello")
                session.send_text("x" * 40_000)
                assert [session.receive_text(timeout=LIMIT) for _ in range(2)] == ["hello", "x" * 40_000]
        at_rest(client.pool)
