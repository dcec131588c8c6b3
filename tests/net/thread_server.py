"""A server that is one function in a thread: for socket options, TLS versions, and bytes by hand."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from types import TracebackType
from typing import Final

LIMIT: Final = 10.0  # seconds that anything here may take

Handler = Callable[[socket.socket], None]


def no_answer(sock: socket.socket) -> None:
    """Reads until the client ends."""
    while sock.recv(65_536):
        pass


def read_head(sock: socket.socket) -> bytes:
    """An HTTP/1.1 request's head, and what came with it."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = sock.recv(65_536)
        assert piece, "the client ended before its request did"
        data += piece
    return data


class ThreadServer:
    """Accepts so many connections, one after the other, and runs `handle` on each; what it raises comes out at the end.

    With `tls`, a server's context, the handshake is done before; `refused` holds those that failed. `buffer` is the size of
    the socket's buffers. `path` makes it a Unix domain socket.
    """

    def __init__(
        self,
        handle: Handler,
        tls: ssl.SSLContext | None = None,
        connections: int = 1,
        buffer: int = 0,
        path: str = "",
        host: str = "127.0.0.1",
    ) -> None:
        self.handle = handle
        self.tls = tls
        self.connections = connections
        self.host = host
        self.refused: list[OSError] = []
        self.failure: BaseException | None = None
        if path:
            self.listener = socket.socket(socket.AF_UNIX)
            self.listener.bind(path)
            self.listener.listen()
        else:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            self.listener = socket.create_server((host, 0), family=family)
        if buffer:
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
        self.listener.settimeout(LIMIT)
        self.port: int = 0 if path else self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self.run, name="thread-server")

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'http' if self.tls is None else 'https'}://{host}:{self.port}"

    def run(self) -> None:
        """The thread."""
        try:
            for _ in range(self.connections):
                with ExitStack() as stack:
                    sock = stack.enter_context(self.listener.accept()[0])
                    sock.settimeout(LIMIT)
                    if self.tls is not None:
                        try:
                            sock = stack.enter_context(self.tls.wrap_socket(sock, server_side=True))
                        except OSError as error:
                            self.refused.append(error)
                            continue
                    self.handle(sock)
        except BaseException as error:
            self.failure = error

    def __enter__(self) -> "ThreadServer":
        self.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            with contextlib.suppress(OSError):
                self.listener.shutdown(socket.SHUT_RDWR)  # accept() returns
        self.thread.join(LIMIT)
        self.listener.close()
        if error is None:
            assert not self.thread.is_alive(), "the server's thread did not end"
            if self.failure is not None:
                raise self.failure


@contextlib.contextmanager
def paired(handle: Handler, buffer: int) -> Iterator[socket.socket]:
    """The client's end of a pair of sockets with small buffers; `handle` runs on the other end, in a thread."""
    here, there = socket.socketpair()
    failures: list[BaseException] = []

    def run() -> None:
        try:
            handle(there)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run, name="paired-server")
    with here, there:
        for sock in (here, there):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
            sock.settimeout(LIMIT)
        thread.start()
        try:
            yield here
        finally:
            with contextlib.suppress(OSError):
                here.shutdown(socket.SHUT_RDWR)
            thread.join(LIMIT)
    assert not failures, failures
    assert not thread.is_alive(), "the server's thread did not end"


@contextlib.contextmanager
def full_listener() -> Iterator[tuple[str, int]]:
    """The address of a listener that takes no more connections: a SYN to it is not answered."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        address: tuple[str, int] = listener.getsockname()
        for _ in range(3):  # more than a backlog of 0 lets in
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(address)
        yield address
