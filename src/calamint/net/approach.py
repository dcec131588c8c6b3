"""A dial without waiting: from an origin to a connected socket, through one handshake after the other, in steps."""

import socket
import ssl
from collections.abc import Callable, Iterable
from selectors import EVENT_READ, EVENT_WRITE
from typing import Protocol

from calamint.core.errors import ConnectError
from calamint.core.pool_state import Dial
from calamint.core.value import INFINITY
from calamint.net.dial import LONGEST, Answer, Dialer, Race, begin_lookup, found, open_unix
from calamint.net.route import Route
from calamint.net.tls import READ_SIZE, TLSPipe
from calamint.net.wire import say


class Handshake(Protocol):
    """One stage of a dial, without I/O: what came in goes to `feed`, nothing at its end; what has to go out is `sealed`."""

    def feed(self, data: bytes, /) -> None: ...

    def sealed(self) -> bytes: ...

    def handshake(self) -> bool:
        """Goes on; True when it is done. Raises ConnectError or ssl.SSLError, then `sealed` holds the last words."""
        ...


class Approach:
    """A dial under way. Its owner watches what `wants` says, and calls `step` then and at `next_timeout`.

    All of it raises ConnectError where the dial has failed; `close` is the owner's then, too.
    """

    def __init__(self, dial: Dial, route: Route) -> None:
        self.dial = dial
        self.route = route
        self.origin = dial.key.origin
        self.begun = False  # answers come from another thread from now on
        self.dialer: Dialer | None = None
        self.sock: socket.socket | None = None  # connected
        self.stages: list[Handshake] = []
        self.tls: TLSPipe | None = None
        self.out = b""  # what the kernel has not taken of the handshakes

    def begin(self, now: float, tell: "Callable[[Approach, Answer], None]") -> None:
        """Asks for the addresses; `tell` gets them, at once or in another thread. A Unix domain socket has none."""
        if self.route.uds is not None:
            self.sock = open_unix(self.route.uds, min(self.dial.deadline, now + LONGEST))
            self.sock.setblocking(False)
            self.enter()
        else:
            host, port = self.origin.host, self.origin.port
            begin_lookup(host, port, self.route.resolver, lambda answer: tell(self, answer))
        self.begun = True

    def hear(self, answer: Answer) -> None:
        """The addresses of the host, or why there are none."""
        addresses = found(self.origin.host, answer)
        self.dialer = Dialer(Race(self.origin.host, self.origin.port, addresses), self.route.local_address)

    def enter(self) -> None:
        """Connected: what comes before HTTP begins."""
        if self.origin.scheme == "https":
            host = self.origin.host
            try:
                self.tls = self.route.start_tls(self.origin, self.dial.protocols)
            except ValueError as error:
                raise ConnectError(f"{host!r} is no name for a certificate: {error}", unprocessed=True) from None
            except (OSError, TypeError) as error:
                raise ConnectError(f"no TLS with {host}: {error}", unprocessed=True) from error
            self.stages.append(self.tls)

    def step(self, now: float, ready: Iterable[socket.socket] = ()) -> bool:
        """Goes on as far as that needs no waiting; whether HTTP can begin."""
        if self.sock is None:
            if self.dialer is None:
                return False
            self.sock = self.dialer.step(now, ready)
            if self.sock is None:
                return False
            self.enter()
        host = self.origin.host
        try:
            return self.shake(self.sock)
        except ssl.SSLError as error:
            say(self.sock, self.stages[0].sealed())  # the alert
            raise ConnectError(f"no TLS with {host}: {error.strerror or error}", unprocessed=True) from error
        except OSError as error:
            what = error.strerror or error
            raise ConnectError(f"the connection broke in the TLS handshake: {what}", unprocessed=True) from error

    def shake(self, sock: socket.socket) -> bool:
        """The handshakes, one after the other; whether all are done."""
        while self.stages:
            stage = self.stages[0]
            done = stage.handshake()
            self.out += stage.sealed()
            if self.out:
                try:
                    self.out = self.out[sock.send(self.out) :]
                except BlockingIOError:
                    pass
            if done:
                del self.stages[0]
                continue
            try:
                data = sock.recv(READ_SIZE)
            except BlockingIOError:
                return False
            stage.feed(data)
        return True

    def protocol(self) -> str:
        """What is spoken from here on. Raises ConnectError where it is not what was asked for."""
        wanted = self.dial.protocols
        if self.tls is None:
            return wanted[0]
        chosen = self.tls.object.selected_alpn_protocol() or "http/1.1"
        if chosen not in wanted:
            what = f"the server speaks {chosen} where {' or '.join(wanted)} was asked for"
            raise ConnectError(what, unprocessed=True)
        return chosen

    def wants(self) -> dict[socket.socket, int]:
        """The sockets to watch, and what for: events of a selector."""
        if self.sock is not None:
            return {self.sock: EVENT_READ | EVENT_WRITE if self.out else EVENT_READ}
        return {} if self.dialer is None else dict.fromkeys(self.dialer.sockets, EVENT_WRITE)

    def next_timeout(self) -> float:
        """When `step` has something to do although no socket has; INFINITY for never."""
        return INFINITY if self.dialer is None or self.sock is not None else self.dialer.race.next_timeout()

    def close(self) -> None:
        """Gives it up."""
        if self.dialer is not None:
            self.dialer.close()
        if self.sock is not None:
            self.sock.close()
