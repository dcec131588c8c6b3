"""A connected socket, with TLS on it or not: bytes out and in without waiting, and waiting for the one or the other."""

import select
import socket
import ssl
import time
from typing import Final

from calamint.core.errors import to_exception
from calamint.net.dial import LONGEST
from calamint.net.handshake import Layers
from calamint.net.tls import READ_SIZE, TLSPipe, make_buffer

SEAL_SIZE: Final = 64 * 1024  # plaintext encrypted at a time: what has not left is known to that grain
BULK: Final = 32 * 1024  # bytes read at once: where so many come, more will
HAS_POLL: Final = hasattr(select, "poll")  # not on Windows


UNASKED: Final = "something came before the request had left, which is no answer to it (RFC 9112 §9.2)"


def has_come(sock: socket.socket) -> bool:
    """Whether there is anything to read, an end or an error included."""
    try:
        sock.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


class Waiter:
    """Waits for one socket."""

    def __init__(self, sock: socket.socket, poll: bool = HAS_POLL) -> None:
        self.sock = sock
        self.mask = 0
        self.poll: select.poll | None = select.poll() if poll else None
        if self.poll is not None:
            self.poll.register(sock, 0)

    def wait(self, reading: bool, writing: bool, timeout: float) -> tuple[bool, bool]:
        """Until the socket can be read or written as asked, or `timeout` seconds have passed; says which."""
        timeout = min(max(0.0, timeout), LONGEST)
        if self.poll is None:
            readable, writable, broken = select.select(
                [self.sock] * reading, [self.sock] * writing, [self.sock], timeout
            )
            return reading and bool(readable or broken), writing and bool(writable or broken)
        mask = (select.POLLIN if reading else 0) | (select.POLLOUT if writing else 0)
        if mask != self.mask:
            self.poll.modify(self.sock, mask)
            self.mask = mask
        ready = self.poll.poll(int(timeout * 1000) + 1 if timeout else 0)
        if not ready:
            return False, False
        seen = ready[0][1]
        ended = seen & ~(select.POLLIN | select.POLLOUT)
        return reading and bool(seen & select.POLLIN or ended), writing and bool(seen & select.POLLOUT or ended)


class Wire:
    """Takes bytes of the core's output, gives bytes for its input. `buffer`: one for several wires, if not one of its own."""

    def __init__(self, sock: socket.socket, tls: TLSPipe | None, buffer: bytearray | None = None) -> None:
        self.sock = sock
        self.tls = tls
        self.buffer = make_buffer() if buffer is None else buffer
        self.view = memoryview(self.buffer)
        self.bulk = False  # much came last time
        self.sealed = b""  # ciphertext that the kernel has not taken
        self.held = 0  # plaintext of it of which no byte has left
        self.shut = False  # we have said that nothing more comes
        self.deaf = False  # the peer takes no more bytes; what it sent before can still be read
        self.ended = False  # nothing more can be read
        self.clean = False  # … because the peer ended its side in an orderly way
        self.reason = ""  # … or why else; a send may have learnt it first, and then an end of what comes proves nothing
        sock.setblocking(False)

    def send(self, data: bytes) -> int:
        """Writes without waiting; returns how much of `data` it has taken. Where that breaks, it is deaf."""
        taken = 0
        try:
            if self.tls is None:
                return self.sock.send(data) if data else 0
            while self.sealed or taken < len(data):
                if not self.sealed:
                    self.held = self.tls.seal(data[taken : taken + SEAL_SIZE])
                    taken += self.held
                    self.sealed = self.tls.sealed()
                self.sealed = self.sealed[self.sock.send(self.sealed) :]
                self.held = 0
        except (BlockingIOError, ssl.SSLWantReadError):
            pass
        except OSError as error:
            self.deaf = True
            if not isinstance(error, BrokenPipeError):  # that one says: the peer's end had come before
                self.reason = error.strerror or str(error)
        return taken

    def shut_down(self) -> None:
        """Nothing more will be written: says so, once all that was has left (close_notify, FIN)."""
        if self.shut or self.deaf or self.sealed:
            return
        self.shut = True
        try:
            if self.tls is not None:
                self.tls.end()
                self.sealed = self.tls.sealed()
                self.send(b"")
            else:
                self.sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            self.deaf = True
            self.reason = error.strerror or str(error)

    def receive(self) -> bytes:
        """What there is; see `ended` where it is nothing. Raises OSError."""
        if self.bulk:
            return self.receive_bulk()
        try:
            size = self.sock.recv_into(self.buffer)
        except BlockingIOError:
            size = -1
        if self.tls is None:
            self.ended = size == 0
            self.clean = self.ended and not self.reason
            self.bulk = size >= BULK
            return bytes(self.view[:size]) if size > 0 else b""
        if size >= 0:
            self.tls.feed(self.view[:size])
        data = self.tls.open()
        self.sealed += self.tls.sealed()  # key updates and such
        self.ended = self.tls.ended
        self.clean = self.tls.clean
        self.reason = self.tls.reason or self.reason
        return data

    def receive_bulk(self) -> bytes:
        """As `receive`, without TLS: into a new object, which costs more where little comes, and a copy less where much does."""
        self.bulk = False
        try:
            data = self.sock.recv(READ_SIZE)
        except BlockingIOError:
            return b""
        self.bulk = len(data) >= BULK
        self.ended = not data
        self.clean = self.ended and not self.reason
        return data

    def close(self) -> None:
        """Says what can be said without waiting, and closes."""
        try:
            if self.tls is not None and not self.sealed and not self.deaf:
                self.tls.end()
                self.sock.send(self.tls.sealed())
        except OSError:
            pass
        finally:
            self.sock.close()


def shake_hands(sock: socket.socket, layers: Layers, deadline: float) -> None:
    """All that comes before HTTP on a connected socket. Raises ConnectError, ConnectTimeout, ProxyError."""
    cause: Exception | None = None
    try:
        out = layers.start(time.monotonic())
        while layers.failure is None:
            if out:
                sock.settimeout(left(deadline))
                sock.sendall(out)
            if layers.done:
                return
            sock.settimeout(left(deadline))
            out = layers.feed(sock.recv(READ_SIZE), time.monotonic())
        say(sock, out)
        failure, cause = layers.failure, layers.cause
    except TimeoutError:
        failure = layers.overdue()
    except OSError as error:
        failure, cause = layers.broken(str(error.strerror or error)), error
    raise to_exception(failure) from cause


def left(deadline: float) -> float:
    """Seconds until then, as a socket's timeout. Raises TimeoutError when they are over."""
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise TimeoutError
    return min(LONGEST, seconds)


def say(sock: socket.socket, data: bytes) -> None:
    """Last words: sent if the kernel takes them at once."""
    try:
        sock.setblocking(False)
        sock.send(data)
    except OSError:
        pass
