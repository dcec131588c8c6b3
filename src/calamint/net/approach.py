"""A dial without waiting: from an origin to a connected socket, through one handshake after the other, in steps."""

import socket
from collections.abc import Callable, Iterable
from selectors import EVENT_READ, EVENT_WRITE

from calamint.core.errors import Failure
from calamint.core.pool_state import Dial
from calamint.core.value import INFINITY
from calamint.net.dial import LONGEST, Answer, Dialer, Race, begin_lookup, found, open_unix
from calamint.net.handshake import Layers, Refused
from calamint.net.route import Route
from calamint.net.tls import READ_SIZE, TLSPipe


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
        self.layers: Layers | None = None
        self.tls: TLSPipe | None = None
        self.out = b""  # what the kernel has not taken of the handshakes

    def begin(self, now: float, tell: "Callable[[Approach, Answer], None]") -> None:
        """Asks for the addresses; `tell` gets them, at once or in another thread. A Unix domain socket has none."""
        if self.route.uds is not None:
            self.sock = open_unix(self.route.uds, min(self.dial.deadline, now + LONGEST), self.route.socket_options)
            self.sock.setblocking(False)
        else:
            host, port = self.route.address(self.origin)
            begin_lookup(host, port, self.route.resolver, lambda answer: tell(self, answer))
        self.begun = True

    def hear(self, answer: Answer) -> None:
        """The addresses of the host, or why there are none."""
        host, port = self.route.address(self.origin)
        race = Race(host, port, found(host, answer))
        self.dialer = Dialer(race, self.route.local_address, self.route.socket_options)

    def step(self, now: float, ready: Iterable[socket.socket] = ()) -> bool:
        """Goes on as far as that needs no waiting; whether HTTP can begin. Raises Refused, and ConnectError."""
        if self.sock is None:
            if self.dialer is None:
                return False
            self.sock = self.dialer.step(now, ready)
            if self.sock is None:
                return False
        if self.layers is None:
            self.layers = self.route.layers(self.origin, self.dial.protocols)
            self.out = self.layers.start(now)
        try:
            return self.shake(self.sock, self.layers, now)
        except OSError as error:
            raise Refused(self.layers.broken(str(error.strerror or error))) from error

    def shake(self, sock: socket.socket, layers: Layers, now: float) -> bool:
        """What comes before HTTP; whether it is done."""
        while True:
            if self.out:
                try:
                    self.out = self.out[sock.send(self.out) :]
                except BlockingIOError:
                    pass
            if layers.failure is not None:
                raise Refused(layers.failure)
            if layers.done:
                self.tls = layers.pipe
                return True
            try:
                data = sock.recv(READ_SIZE)
            except BlockingIOError:
                return False
            self.out += layers.feed(data, now)

    def leftover(self) -> bytes:
        """What has come of the connection already."""
        return b"" if self.layers is None else self.layers.leftover

    def protocol(self) -> str:
        """What is spoken from here on, when `step` says that HTTP can begin. Raises as `Route.spoken` does."""
        assert self.layers is not None
        return self.route.spoken(self.origin, self.dial.protocols, self.layers)

    def wants(self) -> dict[socket.socket, int]:
        """The sockets to watch, and what for: events of a selector."""
        if self.sock is not None:
            return {self.sock: EVENT_READ | EVENT_WRITE if self.out else EVENT_READ}
        return {} if self.dialer is None else dict.fromkeys(self.dialer.sockets, EVENT_WRITE)

    def next_timeout(self) -> float:
        """When `step` has something to do although no socket has; INFINITY for never."""
        return INFINITY if self.dialer is None or self.sock is not None else self.dialer.race.next_timeout()

    def overdue(self) -> Failure:
        """What to say when its time is over."""
        race = None if self.dialer is None else self.dialer.race
        return self.route.overdue(self.origin, race, self.layers)

    def close(self) -> None:
        """Gives it up."""
        if self.dialer is not None:
            self.dialer.close()
        if self.sock is not None:
            self.sock.close()
