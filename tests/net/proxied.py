"""What the tests of the way through proxies share: a proxy on loopback that does as it is told, and both pools behind one
set of methods."""

import asyncio
import base64
import contextlib
import selectors
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, TypedDict
from urllib.parse import urlsplit

from calamint.core.errors import CalamintError
from calamint.core.pool_state import LIMITS, Limits, PoolSnapshot, Stats
from calamint.core.url import URL
from calamint.core.value import Fields
from calamint.net.aio import Pool as AsyncPool
from calamint.net.dial import Address, Resolver, look_up
from calamint.net.proxy import Proxy
from calamint.net.response import Response
from calamint.net.threads import Pool as ThreadPool
from calamint.net.tls import Verify
from tests.net.aio_run import bounded, new_loop
from tests.net.thread_server import LIMIT
from tests.servers import PrivateCa

ESTABLISHED: Final = b"HTTP/1.1 200 Connection established\r\n\r\n"
USER: Final = "me"
PASSWORD: Final = "secret"
BASIC: Final = b"Proxy-Authorization: Basic " + base64.b64encode(b"me:secret")
OK: Final = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
ONE: Final = Limits(max_connections=1)


class Options(TypedDict, total=False):
    """What both pools take."""

    limits: Limits
    http1: bool
    http2: bool
    verify: Verify
    resolver: Resolver
    uds: str | None
    local_address: str | None


class Driver:
    """A pool, for a thread that waits for each answer."""

    def request(
        self,
        url: str | URL,
        proxy: Proxy | None,
        method: str = "GET",
        headers: Fields = (),
        content: bytes | None = None,
        connect: float | None = LIMIT,
        timeout: float | None = LIMIT,
        replay: bool = True,
    ) -> Response:
        """All of a response."""
        raise NotImplementedError

    def stats(self) -> Stats:
        raise NotImplementedError

    def snapshot(self) -> PoolSnapshot:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError

    def fetch(self, url: str, proxy: Proxy | None = None) -> bytes:
        """The content of a 200."""
        response = self.request(url, proxy)
        assert response.status == 200, response
        return response.content

    def refuse(self, url: str, proxy: Proxy | None, connect: float = LIMIT) -> CalamintError:
        """What a request fails of."""
        try:
            response = self.request(url, proxy, connect=connect)
        except CalamintError as error:
            return error
        raise AssertionError(f"no failure, but {response}")

    def __enter__(self) -> "Driver":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                stats = self.stats()
                assert (stats.running, stats.waiting, stats.dialling) == (0, 0, 0), self.snapshot().describe()
        finally:
            self.close()


class Threads(Driver):
    """The pool for threads."""

    def __init__(self, options: Options) -> None:
        self.pool = ThreadPool(**options)

    def request(
        self,
        url: str | URL,
        proxy: Proxy | None,
        method: str = "GET",
        headers: Fields = (),
        content: bytes | None = None,
        connect: float | None = LIMIT,
        timeout: float | None = LIMIT,
        replay: bool = True,
    ) -> Response:
        with self.pool.request(
            method, url, headers, content, connect=connect, timeout=timeout, replay=replay, proxy=proxy
        ) as call:
            return call.response()

    def stats(self) -> Stats:
        return self.pool.stats()

    def snapshot(self) -> PoolSnapshot:
        return self.pool.snapshot()

    def close(self) -> None:
        self.pool.close()


class Aio(Driver):
    """The pool for asyncio, in a loop of its own that runs while there is something to wait for."""

    def __init__(self, loop: str, options: Options) -> None:
        self.runner = asyncio.Runner(debug=True, loop_factory=lambda: new_loop(loop))
        self.pool = AsyncPool(**options)

    def request(
        self,
        url: str | URL,
        proxy: Proxy | None,
        method: str = "GET",
        headers: Fields = (),
        content: bytes | None = None,
        connect: float | None = LIMIT,
        timeout: float | None = LIMIT,
        replay: bool = True,
    ) -> Response:
        async def work() -> Response:
            async with self.pool.request(
                method, url, headers, content, connect=connect, timeout=timeout, replay=replay, proxy=proxy
            ) as call:
                return await call.response()

        return self.runner.run(work())

    def stats(self) -> Stats:
        return self.pool.stats()

    def snapshot(self) -> PoolSnapshot:
        return self.pool.snapshot()

    def close(self) -> None:
        try:
            self.runner.run(bounded(self.pool.aclose()))
        finally:
            self.runner.close()


class Make:
    """Makes pools of one kind: "threads", or the name of an event loop."""

    def __init__(self, kind: str, ca: PrivateCa) -> None:
        self.kind = kind
        self.ca = ca

    def __call__(
        self,
        *,
        limits: Limits = LIMITS,
        http1: bool = True,
        http2: bool = True,
        verify: Verify | None = None,
        resolver: Resolver = look_up,
        uds: str | None = None,
        local_address: str | None = None,
    ) -> Driver:
        options: Options = {"limits": limits, "http1": http1, "http2": http2, "resolver": resolver, "uds": uds}
        options["local_address"] = local_address
        options["verify"] = self.ca.ca_file if verify is None else verify
        return Threads(options) if self.kind == "threads" else Aio(self.kind, options)


class Gone(Exception):
    """The client has closed its end."""


Handler = Callable[["LoopProxy", socket.socket], None]


class LoopProxy:
    """A proxy on loopback: each of its connections is one call of `handle`, in a thread of its own.

    `tls`: what it answers TLS with. `heads`: the requests that it has read; `carried`: what has gone through its tunnels to
    their far ends. Leaving the block ends all of it, and raises what `handle` raised, if that is no OSError.
    """

    def __init__(self, handle: Handler | None = None, tls: ssl.SSLContext | None = None) -> None:
        self.handle: Handler = tunnels() if handle is None else handle
        self.tls = tls
        self.heads: list[bytes] = []
        self.carried = bytearray()
        self.connections = 0
        self.open = 0
        self.failures: list[BaseException] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.sockets: list[socket.socket] = []
        self.threads: list[threading.Thread] = []
        self.accepting = threading.Thread(target=self.accept, name="loop-proxy")

    def url(self, scheme: str = "") -> str:
        return f"{scheme or ('http' if self.tls is None else 'https')}://localhost:{self.port}"

    def proxy(self, scheme: str = "", auth: tuple[str, str] | None = None, trust: Verify = True) -> Proxy:
        """The proxy as a client names it."""
        return Proxy(self.url(scheme), auth=auth, ssl=trust)

    def accept(self) -> None:
        """The thread that listens."""
        with contextlib.suppress(OSError):  # the listener is closed
            while True:
                sock, _ = self.listener.accept()
                sock.settimeout(LIMIT)
                self.sockets.append(sock)
                self.connections += 1
                thread = threading.Thread(target=self.serve, args=[sock], name="loop-proxy-connection")
                self.threads.append(thread)
                thread.start()

    def serve(self, sock: socket.socket) -> None:
        """One connection."""
        self.open += 1
        try:
            if self.tls is not None:
                sock = self.tls.wrap_socket(sock, server_side=True)
                self.sockets.append(sock)
            self.handle(self, sock)
        except (OSError, Gone):
            pass
        except BaseException as error:
            self.failures.append(error)
        finally:
            self.open -= 1
            sock.close()

    def __enter__(self) -> "LoopProxy":
        self.accepting.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for sock in (self.listener, *self.sockets):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self.accepting.join(LIMIT)
        for thread in self.threads:
            thread.join(LIMIT)
        for sock in (self.listener, *self.sockets):
            sock.close()
        if error is None:
            assert not [thread for thread in self.threads if thread.is_alive()]
            if self.failures:
                raise self.failures[0]


def tunnels(
    reply: bytes = ESTABLISHED, behind: bytes = b"", port: int = 0, forward: Callable[[bytes], bytes] = lambda head: OK
) -> Handler:
    """Makes a tunnel for each CONNECT, to where that says or to this port here; says `behind` in one piece with its reply.
    Other requests it answers itself, with what `forward` makes of their heads."""

    def handle(proxy: LoopProxy, sock: socket.socket) -> None:
        while True:
            head = read_head(sock)
            proxy.heads.append(head)
            method, target, _ = head.split(b" ", 2)
            if method == b"CONNECT":
                break
            sock.sendall(forward(head))
        host, _, digits = target.decode().rpartition(":")
        with socket.create_connection(("127.0.0.1", port) if port else (loopback(host), int(digits)), LIMIT) as far:
            sock.sendall(reply + behind)
            relay(proxy, sock, far)

    return handle


def refuses(reply: bytes) -> Handler:
    """Answers a request so, and ends."""

    def handle(proxy: LoopProxy, sock: socket.socket) -> None:
        proxy.heads.append(read_head(sock))
        sock.sendall(reply)

    return handle


def socks(auth: tuple[str, str] | None = None, code: int = 0, behind: bool = False) -> Handler:
    """SOCKS version 5 (RFC 1928, RFC 1929); with another `code` than 0 it grants nothing. `behind`: what the far end says by
    itself comes in one piece with the reply."""

    def handle(proxy: LoopProxy, sock: socket.socket) -> None:
        version, count = take(sock, 2)
        methods = take(sock, count)
        assert version == 5
        method = 0 if auth is None else 2
        sock.sendall(bytes([5, method if method in methods else 0xFF]))
        if method not in methods:
            return
        if auth is not None:
            name = take(sock, take(sock, 2)[1])
            password = take(sock, take(sock, 1)[0])
            right = (name.decode(), password.decode()) == auth
            sock.sendall(bytes([1, 0 if right else 1]))
            if not right:
                return
        kind = take(sock, 4)[3]
        raw = take(sock, {1: 4, 4: 16}[kind]) if kind != 3 else take(sock, take(sock, 1)[0])
        host = raw.decode() if kind == 3 else socket.inet_ntop(socket.AF_INET6 if kind == 4 else socket.AF_INET, raw)
        port = int.from_bytes(take(sock, 2), "big")
        proxy.heads.append(f"{host}:{port}".encode())
        reply = bytes([5, code, 0, 1]) + bytes(6)
        if code:
            sock.sendall(reply)
            return
        with socket.create_connection((loopback(host), port), LIMIT) as far:
            sock.sendall(reply + (far.recv(65_536) if behind else b""))
            relay(proxy, sock, far)

    return handle


def read_head(sock: socket.socket) -> bytes:
    """A request's head."""
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        data += take(sock, 1)
    return data


def loopback(host: str) -> str:
    """Every name ends on this host."""
    return host.strip("[]") if host[:1].isdigit() or ":" in host else "127.0.0.1"


def take(sock: socket.socket, size: int) -> bytes:
    """So many bytes."""
    data = b""
    while len(data) < size:
        piece = sock.recv(size - len(data))
        if not piece:
            raise Gone
        data += piece
    return data


def relay(proxy: LoopProxy, near: socket.socket, far: socket.socket) -> None:
    """What comes from the one end goes to the other, and so does an end, until both have come."""
    with selectors.DefaultSelector() as selector:
        for sock in (near, far):
            selector.register(sock, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select(LIMIT):
                sock, other = (near, far) if key.fileobj is near else (far, near)
                pieces = [sock.recv(65_536)]
                while isinstance(sock, ssl.SSLSocket) and sock.pending():
                    pieces.append(sock.recv(65_536))
                data = b"".join(pieces)
                if sock is near:
                    proxy.carried += data
                if data:
                    other.sendall(data)
                else:
                    selector.unregister(sock)
                    if isinstance(other, ssl.SSLSocket):
                        return  # its end is the end of both ways
                    other.shutdown(socket.SHUT_WR)


def to_port(port: int) -> Resolver:
    """A resolver for which every name is this port of this host."""

    def resolver(host: str, _: int) -> Sequence[Address]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", port))]

    return resolver


def port_of(url: str) -> int:
    port = urlsplit(url).port
    assert port is not None
    return port
