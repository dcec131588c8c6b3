"""From a host to a connected socket, under one deadline: what both drivers know about addresses."""

import ipaddress
import queue
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from calamint.core.errors import ConnectError, ConnectTimeout, InvalidURL
from calamint.core.url import URL, parse_url

Address = tuple[int, int, int, str, tuple[int | str, ...] | tuple[int, bytes]]  # as socket.getaddrinfo gives them
Resolver = Callable[[str, int], Sequence[Address]]
"""From host and port to addresses: may block, is called in a thread of its own, and never for what is an address."""

INTERNET: Final = (socket.AF_INET, socket.AF_INET6)
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


def resolve(host: str, port: int, deadline: float, resolver: Resolver) -> Sequence[Address]:
    """The host's addresses. A lookup cannot be interrupted: one that takes too long is left to a daemon thread."""
    answers: queue.SimpleQueue[Sequence[Address] | Exception] = queue.SimpleQueue()
    host = host.replace("%25", "%")  # how a URL writes the % before an IPv6 zone
    if is_address(host):
        ask(look_up, host, port, answers)
    else:
        arguments = (resolver, host, port, answers)
        threading.Thread(target=ask, args=arguments, daemon=True, name="calamint-resolve").start()
    try:
        answer = answers.get(timeout=max(0.0, deadline - time.monotonic()))
    except queue.Empty:
        raise ConnectTimeout(f"no address for {host} within the connect limit", unprocessed=True) from None
    if isinstance(answer, Exception):
        what = getattr(answer, "strerror", None) or answer
        raise ConnectError(f"no address for {host}: {what}", unprocessed=True) from answer
    return answer


def is_address(host: str) -> bool:
    """Whether a host needs no lookup."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def look_up(host: str, port: int) -> Sequence[Address]:
    """The system's answer."""
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)


def ask(resolver: Resolver, host: str, port: int, answers: "queue.SimpleQueue[Sequence[Address] | Exception]") -> None:
    """The resolver's answer, or what it raised, put into the queue."""
    try:
        answers.put(resolver(host, port))
    except Exception as error:  # UnicodeError too: a label that is empty or too long
        answers.put(error)


def open_tcp(host: str, port: int, deadline: float, resolver: Resolver = look_up) -> socket.socket:
    """A socket connected to the first of the host's addresses that answers; no dead one takes all of the time."""
    addresses = resolve(host, port, deadline, resolver)
    failures: list[str] = []
    for place, (family, kind, protocol, _, address) in enumerate(addresses):
        left = deadline - time.monotonic()
        try:
            return dial(socket.socket(family, kind, protocol), address, left / (len(addresses) - place))
        except OSError as error:  # of socket.socket() too: the system may not have the family
            what = "no answer" if isinstance(error, TimeoutError) else error.strerror or error
            failures.append(f"{address[0]}: {what}")
    tried = f"could not connect to {host} port {port}: {'; '.join(failures) or 'it has no address'}"
    if time.monotonic() >= deadline:
        raise ConnectTimeout(f"{tried} (within the connect limit)", unprocessed=True)
    raise ConnectError(tried, unprocessed=True)


def dial(sock: socket.socket, address: tuple[object, ...] | str, seconds: float) -> socket.socket:
    """The socket, connected; closed if that fails."""
    try:
        sock.settimeout(max(0.001, seconds))
        sock.connect(address)
        if sock.family in INTERNET:
            set_options(sock)
    except BaseException:
        sock.close()
        raise
    return sock


def open_unix(path: str, deadline: float) -> socket.socket:
    """A socket connected to a Unix domain socket. One whose queue is full refuses at once: it cannot be waited for."""
    if not hasattr(socket, "AF_UNIX"):
        raise ConnectError("this system has no Unix domain sockets", unprocessed=True)
    try:
        return dial(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM), path, deadline - time.monotonic())
    except OSError as error:
        raise ConnectError(f"could not connect to {path}: {error.strerror or error}", unprocessed=True) from error


def set_options(sock: socket.socket) -> None:
    """No delay of small writes; TCP keepalive, so that a quiet connection is kept by what stands between."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, number in KEEPALIVE:
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), number)
