"""From a host to a connected socket, under one deadline: what both drivers know about addresses."""

import ipaddress
import os
import queue
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from calamint.core.errors import ConnectError, ConnectTimeout, InvalidURL
from calamint.core.url import URL, parse_url
from calamint.core.value import INFINITY, NEVER

Address = tuple[int, int, int, str, tuple[int | str, ...] | tuple[int, bytes]]  # as socket.getaddrinfo gives them
Resolver = Callable[[str, int], Sequence[Address]]
"""From host and port to addresses: may block, is called in a thread of its own, and never for what is an address."""

SocketOption = tuple[int, int, int | bytes] | tuple[int, int, None, int]
"""What socket.setsockopt is called with."""

Answer = Sequence[Address] | Exception

LONGEST: Final = 3600.0  # seconds that a driver waits at a time
STAGGER: Final = 0.25  # seconds: the "Connection Attempt Delay" of RFC 8305 §5
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
    """The host's addresses. Raises ConnectTimeout at `deadline`, and ConnectError where there are none."""
    answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()
    begin_lookup(host, port, resolver, answers.put)
    try:
        answer = answers.get(timeout=max(0.0, deadline - time.monotonic()))
    except queue.Empty:
        raise ConnectTimeout(f"no address for {host} within the connect limit", unprocessed=True) from None
    return found(host, answer)


def begin_lookup(host: str, port: int, resolver: Resolver, tell: Callable[[Answer], None]) -> None:
    """Asks for the host's addresses; `tell` gets them, or what went wrong, at once or in a daemon thread. A lookup cannot
    be interrupted: one that takes too long is left to that thread."""
    host = host.replace("%25", "%")  # how a URL writes the % before an IPv6 zone
    if is_address(host):
        ask(look_up, host, port, tell)
    else:
        arguments = (resolver, host, port, tell)
        threading.Thread(target=ask, args=arguments, daemon=True, name="calamint-resolve").start()


def found(host: str, answer: Answer) -> Sequence[Address]:
    """The addresses of an answer. Raises ConnectError where it is none."""
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


def ask(resolver: Resolver, host: str, port: int, tell: Callable[[Answer], None]) -> None:
    """Tells the resolver's answer, or what it raised."""
    answer: Answer
    try:
        answer = [(family, kind, number, name, place) for family, kind, number, name, place in resolver(host, port)]
    except Exception as error:  # UnicodeError too: a label that is empty or too long; and what is no list of addresses
        answer = error
    tell(answer)


def interleave(addresses: Iterable[Address]) -> list[Address]:
    """The addresses with their families in turn, that of the first one first (RFC 8305 §4)."""
    families: dict[int, deque[Address]] = {}
    for address in addresses:
        families.setdefault(address[0], deque()).append(address)
    order: list[Address] = []
    while families:
        for family, rest in list(families.items()):
            order.append(rest.popleft())
            if not rest:
                del families[family]
    return order


class Race:
    """Attempts at the addresses of a host: the next one begins 250 ms after the last, or as soon as that has failed, and
    none is given up for another (RFC 8305 §5). What runs and what has lost its driver says."""

    def __init__(self, host: str, port: int, addresses: Iterable[Address]) -> None:
        self.what = f"{host} port {port}"
        self.waiting = deque(interleave(addresses))
        self.running = 0
        self.next_at = NEVER  # no other attempt begins before
        self.failures: list[str] = []

    def begin(self, now: float) -> Address | None:
        """An address to try now, counted as running; None for none yet."""
        if not self.waiting or (self.running and now < self.next_at):
            return None
        self.running += 1
        self.next_at = now + STAGGER
        return self.waiting.popleft()

    def lose(self, address: Address, error: OSError) -> None:
        """An attempt has failed: another one may begin at once. Raises ConnectError where it was the last."""
        self.running -= 1
        self.next_at = NEVER
        self.failures.append(f"{address[4][0]!s}: {reason(error)}")
        self.check()

    def check(self) -> None:
        """Raises ConnectError where nothing runs and nothing is left to be tried."""
        if not self.running and not self.waiting:
            raise ConnectError(self.tried(), unprocessed=True)

    def tried(self) -> str:
        """In words, what came of it."""
        what = "; ".join(self.failures) or ("no answer" if self.running else "it has no address")
        return f"could not connect to {self.what}: {what}"

    def next_timeout(self) -> float:
        """When `begin` may have another address to try; INFINITY for never."""
        return self.next_at if self.waiting else INFINITY


def reason(error: OSError) -> str:
    """Why an attempt has failed, in the system's words: event loops have others, which say where to it was."""
    own = error.errno if getattr(error, "winerror", None) is None else None
    return os.strerror(own) if own else error.strerror or str(error)


class Dialer:
    """A race run on sockets that do not block. Its caller watches `sockets` for becoming writable, and calls `step` then and
    at `next_timeout`."""

    def __init__(self, race: Race, local_address: str | None = None, options: Iterable[SocketOption] = ()) -> None:
        self.race = race
        self.local_address = local_address
        self.options = options
        self.sockets: dict[socket.socket, Address] = {}

    def step(self, now: float, ready: Iterable[socket.socket] = ()) -> socket.socket | None:
        """Goes on; the socket that has won, the others closed, or None while none has. Raises ConnectError when all have lost."""
        try:
            for sock in ready:
                if sock not in self.sockets:  # another thread has been here since it was seen to be ready
                    continue
                address = self.sockets.pop(sock)
                if error := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    sock.close()
                    self.race.lose(address, OSError(error, os.strerror(error)))
                elif not is_connected(sock):  # what was ready was another one, which had its number before
                    self.sockets[sock] = address
                else:
                    return self.win(sock)
            while (following := self.race.begin(now)) is not None:
                if (won := self.open(following)) is not None:
                    return self.win(won)
            self.race.check()
        except BaseException:
            self.close()
            raise
        return None

    def open(self, address: Address) -> socket.socket | None:
        """Begins an attempt; its socket if it has won at once."""
        family, kind, protocol, _, place = address
        sock: socket.socket | None = None
        try:
            sock = socket.socket(family, kind, protocol)
            sock.setblocking(False)
            set_options(sock, self.options)
            if self.local_address is not None:
                sock.bind((self.local_address, 0))
            sock.connect(place)
        except BlockingIOError:
            assert sock is not None
            self.sockets[sock] = address
            return None
        except OSError as error:  # of socket.socket() too: the system may not have the family
            if sock is not None:
                sock.close()
            self.race.lose(address, error)
            return None
        return sock

    def win(self, sock: socket.socket) -> socket.socket:
        """This one is it: those that still run are closed."""
        self.close()
        return sock

    def close(self) -> None:
        """Gives up all that runs."""
        for sock in self.sockets:
            sock.close()
        self.sockets = {}


def open_tcp(
    host: str, port: int, deadline: float, resolver: Resolver = look_up, local_address: str | None = None
) -> socket.socket:
    """A socket connected to the address of the host that answers first (RFC 8305). Raises ConnectTimeout, ConnectError."""
    race = Race(host, port, resolve(host, port, deadline, resolver))
    dialer = Dialer(race, local_address)
    try:
        won = dialer.step(time.monotonic())
        with selectors.DefaultSelector() as selector:
            while won is None:
                now = time.monotonic()
                if now >= deadline:
                    raise ConnectTimeout(f"{race.tried()} (within the connect limit)", unprocessed=True)
                for sock in dialer.sockets:
                    if sock not in selector.get_map():
                        selector.register(sock, selectors.EVENT_WRITE)
                until = min(deadline, race.next_timeout(), now + LONGEST)
                ready = [key.fileobj for key, _ in selector.select(max(0.0, until - now))]
                sockets = [sock for sock in dialer.sockets if sock in ready]
                for sock in sockets:
                    selector.unregister(sock)
                won = dialer.step(time.monotonic(), sockets)
    except BaseException:
        dialer.close()
        raise
    return won


def open_unix(path: str, deadline: float, options: Iterable[SocketOption] = ()) -> socket.socket:
    """A socket connected to a Unix domain socket. One whose queue is full refuses at once: it cannot be waited for."""
    if not hasattr(socket, "AF_UNIX"):
        raise ConnectError("this system has no Unix domain sockets", unprocessed=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        set_options(sock, options)
        sock.settimeout(max(0.001, deadline - time.monotonic()))
        sock.connect(path)
    except BaseException as error:
        sock.close()
        if isinstance(error, OSError):
            what = f"could not connect to {path}: {error.strerror or error}"
            raise ConnectError(what, unprocessed=True) from error
        raise
    return sock


def is_connected(sock: socket.socket) -> bool:
    """Whether its connection has been made."""
    try:
        sock.getpeername()
    except OSError:
        return False
    return True


def set_options(sock: socket.socket, options: Iterable[SocketOption] = ()) -> None:
    """No delay of small writes; TCP keepalive, so that a quiet connection is kept by what stands between; and then
    `options`, which have the last word. Raises OSError for one that the system does not take."""
    if sock.family in INTERNET:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, number in KEEPALIVE:
            if hasattr(socket, name):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), number)
    for option in options:
        sock.setsockopt(*option)
