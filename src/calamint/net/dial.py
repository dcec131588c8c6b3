"""From a host to a connected socket, under one deadline: what both drivers know about addresses."""

import ipaddress
import queue
import select
import socket
import threading
import time
from typing import Final

from calamint.core.errors import ConnectError, ConnectTimeout, InvalidURL
from calamint.core.url import URL, parse_url

Address = tuple[int, int, int, tuple[object, ...]]  # family, type, protocol, socket address

LONGEST: Final = 3600.0  # seconds that a driver waits at a time
KEEPALIVE: Final = (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 60), ("TCP_KEEPCNT", 5))


def read_url(text: str) -> URL:
    """The URL, its host as A-labels where it has other characters than ASCII."""
    return parse_url(text, to_ascii)


def to_ascii(host: str) -> str:
    """A domain name's A-labels (RFC 5891, with the mapping of UTS 46)."""
    import idna

    try:
        return idna.encode(host, uts46=True).decode("ascii")
    except idna.IDNAError as error:
        raise InvalidURL(f"the host {host!r} is not a domain name: {error}") from None


def resolve(host: str, port: int, deadline: float) -> list[Address]:
    """The host's addresses. A lookup cannot be interrupted: one that takes too long is left to a daemon thread."""
    answers: queue.SimpleQueue[list[Address] | OSError] = queue.SimpleQueue()
    if is_address(host):
        look_up(host, port, answers)
    else:
        threading.Thread(target=look_up, args=(host, port, answers), daemon=True, name="calamint-resolve").start()
    try:
        answer = answers.get(timeout=max(0.0, deadline - time.monotonic()))
    except queue.Empty:
        raise ConnectTimeout(f"no address for {host} within the connect limit") from None
    if isinstance(answer, OSError):
        raise ConnectError(f"no address for {host}: {answer.strerror or answer}", unprocessed=True) from answer
    return answer


def is_address(host: str) -> bool:
    """Whether a host needs no lookup."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def look_up(host: str, port: int, answers: "queue.SimpleQueue[list[Address] | OSError]") -> None:
    """getaddrinfo, its answer or its error put into the queue."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        answers.put([(int(family), int(kind), protocol, address) for family, kind, protocol, _, address in found])
    except OSError as error:
        answers.put(error)
    except UnicodeError as error:  # a label that is empty or too long
        answers.put(OSError(str(error)))


def open_tcp(host: str, port: int, deadline: float) -> socket.socket:
    """A socket connected to the first of the host's addresses that answers; no dead one takes all of the time."""
    addresses = resolve(host, port, deadline)
    failures: list[str] = []
    for place, (family, kind, protocol, address) in enumerate(addresses):
        left = deadline - time.monotonic()
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(max(0.001, left / (len(addresses) - place)))
            sock.connect(address)
        except OSError as error:
            sock.close()
            failures.append(
                f"{address[0]}: {'no answer' if isinstance(error, TimeoutError) else error.strerror or error}"
            )
        except BaseException:
            sock.close()
            raise
        else:
            set_options(sock)
            return sock
    tried = f"could not connect to {host} port {port}: {'; '.join(failures)}"
    if time.monotonic() >= deadline:
        raise ConnectTimeout(f"{tried} (within the connect limit)", unprocessed=True)
    raise ConnectError(tried, unprocessed=True)


def open_unix(path: str, deadline: float) -> socket.socket:
    """A socket connected to a Unix domain socket."""
    if not hasattr(socket, "AF_UNIX"):
        raise ConnectError("this system has no Unix domain sockets")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(max(0.001, deadline - time.monotonic()))
        sock.connect(path)
    except OSError as error:
        sock.close()
        raise ConnectError(f"could not connect to {path}: {error.strerror or error}", unprocessed=True) from error
    except BaseException:
        sock.close()
        raise
    return sock


def set_options(sock: socket.socket) -> None:
    """No delay of small writes; TCP keepalive, so that a quiet connection is kept by what stands between."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, number in KEEPALIVE:
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), number)


class Waiter:
    """Waits for one socket."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.mask = 0
        if hasattr(select, "poll"):
            self.poll = select.poll()
            self.poll.register(sock, 0)

    def wait(self, reading: bool, writing: bool, timeout: float) -> tuple[bool, bool]:
        """Until the socket can be read or written as asked, or `timeout` seconds have passed; says which."""
        timeout = min(max(0.0, timeout), LONGEST)
        if not hasattr(select, "poll"):
            readable, writable, broken = select.select(
                [self.sock] * reading, [self.sock] * writing, [self.sock], timeout
            )
            return bool(readable or broken), bool(writable or broken)
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
