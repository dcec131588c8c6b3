"""Stages on the way to an origin: TLS with a proxy, a tunnel, TLS inside TLS. The other ends are those of the ssl module."""

import socket
import ssl
import time
from collections.abc import Callable
from typing import Final, Protocol

import pytest

from calamint.core.url import Origin
from calamint.net.handshake import Connect, Layers, Nested, Secure, Stage, stages
from calamint.net.proxy import Proxy
from calamint.net.socks import Socks
from calamint.net.tls import TLSPipe
from calamint.net.wire import Waiter, Wire
from tests.net.thread_server import LIMIT, paired, read_head
from tests.servers import PrivateCa

ORIGIN: Final = Origin("https", "localhost", 443)
ESTABLISHED: Final = b"HTTP/1.1 200 Connection established\r\n\r\n"
REFUSED: Final = b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\n\r\n"
BIG: Final = bytes(range(256)) * 2048
BUFFER: Final = 16 * 1024

Shaken = tuple[Layers, Wire]


class Below(Protocol):
    """What carries the records of a server's TLS: a socket, or another server's TLS."""

    def recv(self, size: int, /) -> bytes: ...

    def sendall(self, data: bytes, /) -> object: ...


class ServerTLS:
    """The server's end of a TLS, by the ssl module; its records are carried by a socket, or by another one of these."""

    def __init__(self, below: Below, context: ssl.SSLContext) -> None:
        self.below = below
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.object = context.wrap_bio(self.incoming, self.outgoing, server_side=True)
        self.run(self.object.do_handshake)

    def run(self, step: Callable[[], object]) -> None:
        """Until it is done. What it has said last is in `outgoing` then, until `flush`."""
        while True:
            try:
                step()
            except ssl.SSLWantReadError:
                self.flush()
                if records := self.below.recv(65_536):
                    self.incoming.write(records)
                else:
                    self.incoming.write_eof()
            except ssl.SSLError:
                self.flush()
                raise
            else:
                return

    def flush(self) -> None:
        if records := self.outgoing.read():
            self.below.sendall(records)

    def recv(self, size: int, /) -> bytes:
        """Some plaintext; nothing after a close_notify."""
        parts: list[bytes] = []
        try:
            self.run(lambda: parts.append(self.object.read(size)))
        except ssl.SSLZeroReturnError:
            pass
        return b"".join(parts)

    def sendall(self, data: bytes, /) -> None:
        self.object.write(data)
        self.flush()

    def end(self) -> None:
        """Its close_notify, which stays in `outgoing`."""
        with pytest.raises(ssl.SSLWantReadError):
            self.object.unwrap()


def server_context(ca: PrivateCa, *alpn: str, tls12: bool = False) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(ca.cert_file, ca.key_file)
    context.set_alpn_protocols(list(alpn))
    if tls12:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context


def secure_proxy(ca: PrivateCa, trusted: bool = True) -> Proxy:
    return Proxy("https://me:secret@localhost:8443", ssl=ca.ca_file if trusted else True)


def origin_tls(ca: PrivateCa, name: str = "localhost") -> TLSPipe:
    return TLSPipe(ca.client_context("h2", "http/1.1"), name)


def shake(sock: socket.socket, layers: Layers, size: int = 65_536) -> None:
    """Runs the handshakes on a socket, `size` bytes at a time."""
    sock.sendall(layers.start(time.monotonic()))
    while not layers.done and layers.failure is None:
        sock.sendall(layers.feed(sock.recv(size), time.monotonic()))


def exchange(wire: Wire, data: bytes, size: int) -> bytes:
    """Sends and receives until so many bytes have come, or the other end has ended."""
    received = b""
    waiter = Waiter(wire.sock)
    deadline = time.monotonic() + LIMIT
    while (data or len(received) < size) and not wire.ended:
        assert time.monotonic() < deadline
        data = data[wire.send(data) :]
        waiter.wait(True, bool(data) or bool(wire.sealed), 1.0)
        received += wire.receive()
    return received


def accept_tunnel(sock: socket.socket, ca: PrivateCa) -> ServerTLS:
    """The proxy: its TLS, and the tunnel made."""
    outer = ServerTLS(sock, server_context(ca, "h2", "http/1.1"))
    assert outer.object.selected_alpn_protocol() == "http/1.1"
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += outer.recv(65_536)
    assert head.startswith(b"CONNECT localhost:443 HTTP/1.1\r\nHost: localhost:443\r\nProxy-Authorization: Basic ")
    outer.sendall(ESTABLISHED)
    return outer


def in_memory(ca: PrivateCa) -> tuple[TLSPipe, TLSPipe]:
    """The two ends of a TLS whose handshake is done; the server's end is a pipe as well."""
    client, server = origin_tls(ca), origin_tls(ca)
    server.object = server_context(ca).wrap_bio(server.incoming, server.outgoing, server_side=True)
    done = False
    while not done:
        done = client.handshake()
        server.feed(client.sealed())
        if server.handshake():
            break
        client.feed(server.sealed())
    return client, server


def through(ca: PrivateCa, name: str = "localhost") -> Layers:
    """TLS with the origin, in a tunnel, in TLS with the proxy."""
    return Layers(stages(secure_proxy(ca), ORIGIN, origin_tls(ca, name)))


# TLS in TLS


@pytest.mark.fault("H8")
@pytest.mark.parametrize("size", [1, 100, 65_536])
def test_tls_inside_tls_carries_content_both_ways(private_ca: PrivateCa, size: int) -> None:
    def echo(sock: socket.socket) -> None:
        outer = accept_tunnel(sock, private_ca)
        inner = ServerTLS(outer, server_context(private_ca, "h2"))
        left = len(BIG)
        while left:
            data = inner.recv(65_536)
            left -= len(data)
            inner.sendall(data)
        assert inner.recv(100) == b""  # close_notify
        assert outer.recv(100) == b""  # and that of the lower one
        assert sock.recv(100) == b""

    with paired(echo, BUFFER) as sock:
        layers = through(private_ca)
        shake(sock, layers, size)
        assert layers.done and layers.failure is None and layers.leftover == b""
        assert isinstance(layers.pipe, Nested)
        assert layers.pipe.object.selected_alpn_protocol() == "h2"
        wire = Wire(sock, layers.pipe)
        assert exchange(wire, BIG, len(BIG)) == BIG
        assert not wire.ended
        wire.close()


def test_what_the_origin_says_first_is_left_over(private_ca: PrivateCa) -> None:
    """In TLS 1.2 the server's Finished is the last word of the handshake, and content may come in the same segment."""

    def greet(sock: socket.socket) -> None:
        inner = ServerTLS(accept_tunnel(sock, private_ca), server_context(private_ca, tls12=True))
        inner.sendall(b"220 hello")
        assert inner.recv(100) == b"bye"

    with paired(greet, BUFFER) as sock:
        layers = through(private_ca)
        shake(sock, layers)
        assert layers.done and layers.leftover == b"220 hello"
        assert exchange(Wire(sock, layers.pipe), b"bye", 0) == b""


def test_bytes_wait_for_a_lower_tls_that_cannot_take_them_yet(private_ca: PrivateCa) -> None:
    """Until its handshake is done, for one; none is lost, and their order stays."""
    above, upper = in_memory(private_ca)
    below = origin_tls(private_ca)
    pipe = Nested(below, above)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    lower = server_context(private_ca).wrap_bio(incoming, outgoing, server_side=True)
    assert pipe.seal(b"hello, ") == 7
    incoming.write(pipe.sealed())  # a ClientHello
    assert pipe.seal(b"origin") == 6
    with pytest.raises(ssl.SSLWantReadError):
        lower.do_handshake()
    below.feed(outgoing.read())
    assert below.handshake()
    incoming.write(pipe.sealed())
    lower.do_handshake()
    upper.feed(lower.read(65_536))
    assert upper.open() == b"hello, origin"


def ending(private_ca: PrivateCa, close: Callable[[ServerTLS, ServerTLS], None]) -> tuple[bytes, Wire]:
    """What is read, with an origin and a proxy that end like this after a few words."""

    def serve(sock: socket.socket) -> None:
        outer = accept_tunnel(sock, private_ca)
        inner = ServerTLS(outer, server_context(private_ca))
        inner.object.write(b"the end")
        close(inner, outer)
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(65_536):
            pass

    with paired(serve, BUFFER) as sock:
        layers = through(private_ca)
        shake(sock, layers)
        wire = Wire(sock, layers.pipe)
        return layers.leftover + exchange(wire, b"", 1000), wire


def close_both_at_once(inner: ServerTLS, outer: ServerTLS) -> None:
    inner.end()
    outer.object.write(inner.outgoing.read())
    outer.end()
    outer.flush()


def close_upper(inner: ServerTLS, outer: ServerTLS) -> None:
    inner.end()
    inner.flush()


def close_lower(inner: ServerTLS, outer: ServerTLS) -> None:
    inner.flush()
    outer.end()
    outer.flush()


def close_neither(inner: ServerTLS, outer: ServerTLS) -> None:
    inner.flush()


def break_lower(inner: ServerTLS, outer: ServerTLS) -> None:
    inner.flush()
    outer.below.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))


def break_upper(inner: ServerTLS, outer: ServerTLS) -> None:
    inner.flush()
    outer.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))


@pytest.mark.parametrize(
    ("close", "reason"),
    [
        (close_both_at_once, ""),
        (close_upper, ""),
        (close_lower, "no close_notify"),
        (close_neither, "no close_notify"),
        (break_lower, "bad record mac"),
        (break_upper, "bad record mac"),
    ],
)
def test_only_the_origins_own_word_is_an_orderly_end(
    private_ca: PrivateCa, close: Callable[[ServerTLS, ServerTLS], None], reason: str
) -> None:
    data, wire = ending(private_ca, close)
    assert data == b"the end"
    assert wire.ended and wire.clean is not bool(reason)
    assert reason in wire.reason and bool(wire.reason) is bool(reason)


def test_a_lower_tls_that_we_have_ended_takes_nothing_more(private_ca: PrivateCa) -> None:
    above, _ = in_memory(private_ca)
    below, _ = in_memory(private_ca)
    pipe = Nested(below, above)
    below.end()
    assert pipe.seal(b"hello") == 5
    with pytest.raises(ssl.SSLError, match="shutdown"):
        pipe.sealed()


# Every stage can fail


def test_a_proxy_that_is_not_trusted(private_ca: PrivateCa) -> None:
    def serve(sock: socket.socket) -> None:
        with pytest.raises(ssl.SSLError, match="unknown ca"):
            ServerTLS(sock, server_context(private_ca))

    with paired(serve, BUFFER) as sock:
        layers = Layers(stages(secure_proxy(private_ca, trusted=False), ORIGIN, origin_tls(private_ca)))
        shake(sock, layers)
    failure = layers.failure
    assert failure is not None and (failure.kind, failure.unprocessed) == ("ConnectError", True)
    assert failure.message.startswith("no TLS with the proxy localhost:8443: [SSL: CERTIFICATE_VERIFY_FAILED]")
    assert 'trusted with Proxy(…, ssl="ca.pem"), by the command with --proxy-cacert' in failure.message


def test_a_refusal_inside_tls(private_ca: PrivateCa) -> None:
    def serve(sock: socket.socket) -> None:
        outer = ServerTLS(sock, server_context(private_ca))
        assert outer.recv(65_536).startswith(b"CONNECT localhost:443 ")
        outer.sendall(REFUSED)

    with paired(serve, BUFFER) as sock:
        layers = through(private_ca)
        shake(sock, layers)
    failure = layers.failure
    assert failure is not None and (failure.kind, failure.status) == ("ProxyError", 407)
    assert failure.fields == ((b"proxy-authenticate", b"Basic"),)


def test_an_origin_that_is_not_who_it_should_be_is_told_so_through_both(private_ca: PrivateCa) -> None:
    """The alert of the upper TLS goes out in a record of the lower one."""

    def serve(sock: socket.socket) -> None:
        outer = accept_tunnel(sock, private_ca)
        with pytest.raises(ssl.SSLError, match="bad certificate"):
            ServerTLS(outer, server_context(private_ca))

    with paired(serve, BUFFER) as sock:
        layers = through(private_ca, "other.test")
        shake(sock, layers)
    failure = layers.failure
    assert failure is not None and failure.kind == "ConnectError"
    assert failure.message.startswith("no TLS with localhost: ") and "mismatch" in failure.message


@pytest.mark.parametrize("polite", [True, False])
@pytest.mark.parametrize(
    ("answer", "kind", "what"),
    [
        (b"", "ProxyError", "no tunnel to localhost:443: the peer closed the connection before the response came"),
        (b"HTTP/1.1 200", "ProxyError", "no tunnel to localhost:443: the peer closed the connection within the head"),
        (ESTABLISHED, "ConnectError", "no TLS with localhost: the other end closed the connection"),
    ],
)
def test_a_proxy_that_closes_on_the_way(
    private_ca: PrivateCa, polite: bool, answer: bytes, kind: str, what: str
) -> None:
    def serve(sock: socket.socket) -> None:
        outer = ServerTLS(sock, server_context(private_ca))
        assert outer.recv(65_536)
        outer.object.write(answer)
        if polite:
            outer.end()
        outer.flush()
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(65_536):
            pass

    with paired(serve, BUFFER) as sock:
        layers = through(private_ca)
        shake(sock, layers)
    assert layers.failure is not None and layers.failure.kind == kind
    assert layers.failure.message.startswith(what)


def test_a_proxy_that_closes_in_its_own_tls(private_ca: PrivateCa) -> None:
    layers = through(private_ca)
    assert layers.start(0.0)
    assert layers.feed(b"", 0.0) == b""
    assert layers.failure is not None and layers.failure.kind == "ConnectError"
    assert layers.failure.message == "no TLS with the proxy localhost:8443: the other end closed the connection"


def test_what_came_behind_a_stage_is_for_the_next_one(private_ca: PrivateCa) -> None:
    """An origin that refuses before it is asked: its alert (RFC 8446 §6.2) is in the segment with the proxy's answer."""
    layers = Layers(stages(Proxy("http://proxy.test"), ORIGIN, origin_tls(private_ca)))
    layers.start(0.0)
    assert layers.feed(ESTABLISHED + b"\x15\x03\x03\x00\x02\x02\x28", 0.0).startswith(b"\x16\x03\x01")
    assert layers.failure is not None and layers.failure.kind == "ConnectError"
    assert "handshake failure" in layers.failure.message


def test_a_proxy_that_says_goodbye_with_the_last_word_of_its_handshake(private_ca: PrivateCa) -> None:
    """One segment, as TLS 1.2 allows it: Finished and close_notify."""

    def serve(sock: socket.socket) -> None:
        outer = ServerTLS(sock, server_context(private_ca, tls12=True))
        outer.end()
        outer.flush()
        assert sock.recv(100) == b""

    with paired(serve, BUFFER) as sock:
        layers = through(private_ca)
        shake(sock, layers)
        sock.shutdown(socket.SHUT_WR)
    assert layers.failure is not None and layers.failure.kind == "ProxyError"
    assert "the peer closed the connection before the response came" in layers.failure.message


def test_time_and_a_broken_transport_are_the_running_stages(private_ca: PrivateCa) -> None:
    def told(layers: Layers) -> list[tuple[str, str]]:
        failures = [layers.overdue(), layers.broken("Connection reset by peer")]
        assert [failure.unprocessed for failure in failures] == [True, True]
        assert [failure.clock for failure in failures] == ["connect", ""]
        return [(failure.kind, failure.message) for failure in failures]

    assert told(through(private_ca)) == [
        ("ConnectTimeout", "no TLS with the proxy localhost:8443 within the connect limit"),
        ("ConnectError", "no TLS with the proxy localhost:8443: the connection broke: Connection reset by peer"),
    ]
    layers = Layers(stages(Proxy("http://proxy.test"), ORIGIN, origin_tls(private_ca)))
    assert told(layers) == [
        ("ConnectTimeout", "no tunnel to localhost:443 within the connect limit"),
        ("ProxyError", "no tunnel to localhost:443: the connection broke: Connection reset by peer"),
    ]
    layers.start(0.0)
    layers.feed(ESTABLISHED, 0.0)
    assert told(layers)[1] == (
        "ConnectError",
        "no TLS with localhost: the connection broke: Connection reset by peer",
    )
    assert told(Layers([]))[0] == ("ConnectTimeout", "no connection within the connect limit")


# Other ways


def test_nothing_stands_between() -> None:
    layers = Layers(stages(None, Origin("http", "a.test", 80), None))
    assert layers.start(0.0) == b""
    assert layers.done and layers.pipe is None and layers.leftover == b"" and layers.failure is None


def test_tls_alone_is_one_pipe(private_ca: PrivateCa) -> None:
    def serve(sock: socket.socket) -> None:
        server = ServerTLS(sock, server_context(private_ca, "h2"))
        server.sendall(server.recv(100))

    with paired(serve, BUFFER) as sock:
        tls = origin_tls(private_ca)
        layers = Layers(stages(None, ORIGIN, tls))
        shake(sock, layers)
        assert layers.done and layers.pipe is tls
        assert exchange(Wire(sock, layers.pipe), b"hello", 5) == b"hello"


@pytest.mark.parametrize("url", ["http://proxy.test", "socks5://proxy.test"])
def test_tls_through_a_proxy_in_the_clear_is_one_pipe(private_ca: PrivateCa, url: str) -> None:
    def serve(sock: socket.socket) -> None:
        if url.startswith("socks"):
            assert sock.recv(3) == b"\x05\x01\x00"
            sock.sendall(b"\x05\x00")
            assert sock.recv(100) == b"\x05\x01\x00\x03\x09localhost\x01\xbb"
            sock.sendall(b"\x05\x00\x00\x01" + bytes(6))
        else:
            assert read_head(sock) == b"CONNECT localhost:443 HTTP/1.1\r\nHost: localhost:443\r\n\r\n"
            sock.sendall(ESTABLISHED)
        server = ServerTLS(sock, server_context(private_ca, "h2"))
        server.sendall(server.recv(100))

    with paired(serve, BUFFER) as sock:
        tls = origin_tls(private_ca)
        layers = Layers(stages(Proxy(url), ORIGIN, tls))
        shake(sock, layers, 1)
        assert layers.done and layers.pipe is tls
        assert exchange(Wire(sock, layers.pipe), b"hello", 5) == b"hello"


def test_without_tls_what_came_behind_is_left_over() -> None:
    layers = Layers(stages(Proxy("socks5://proxy.test"), Origin("http", "a.test", 80), None))
    assert layers.start(0.0) == b"\x05\x01\x00"
    assert layers.feed(b"\x05", 0.0) == b""
    assert layers.feed(b"\x00", 0.0) == b"\x05\x01\x00\x03\x06a.test\x00\x50"
    assert layers.feed(b"\x05\x00\x00\x01" + bytes(6) + b"hello", 0.0) == b""
    assert layers.done and layers.pipe is None and layers.leftover == b"hello"


@pytest.mark.parametrize(
    ("url", "scheme", "kinds"),
    [
        ("http://proxy.test", "http", []),
        ("http://proxy.test", "https", [Connect, Secure]),
        ("https://proxy.test", "http", [Secure]),
        ("https://proxy.test", "https", [Secure, Connect, Secure]),
        ("socks5://proxy.test", "http", [Socks]),
        ("socks5h://proxy.test", "https", [Socks, Secure]),
    ],
)
def test_which_stages(private_ca: PrivateCa, url: str, scheme: str, kinds: list[type[Stage]]) -> None:
    tls = origin_tls(private_ca) if scheme == "https" else None
    found = stages(Proxy(url), Origin(scheme, "localhost", 8000), tls)
    assert [type(stage) for stage in found] == kinds
    assert len({stage.what for stage in found}) == len(kinds)
