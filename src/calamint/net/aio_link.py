"""One connection on an asyncio event loop: how it is made, and its bytes out and in. It knows nothing of HTTP.

Sockets are connected and handshakes made with `loop.sock_*`, which every kind of loop has; then a transport takes the
socket over, and callbacks do the rest: no task runs for a connection.
"""

import asyncio
import socket
import ssl
import time
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from typing import Final, Protocol, TypeVar, cast

from calamint.core.errors import Failure
from calamint.core.pool_state import Dial
from calamint.core.value import INFINITY
from calamint.net.dial import (
    INTERNET,
    LONGEST,
    Address,
    Answer,
    Race,
    Resolver,
    begin_lookup,
    found,
    open_unix,
    set_options,
)
from calamint.net.handshake import Layers, Refused
from calamint.net.route import Route
from calamint.net.tls import TLSPipe
from calamint.net.wire import BULK, SEAL_SIZE, UNASKED, has_come, say

T = TypeVar("T")

HANDSHAKE_SIZE: Final = 16 * 1024  # bytes read at a time in a handshake


class Owner(Protocol):
    """Whom a link tells what happens, whose buffer it reads into, and to whom all sockets and tasks belong."""

    loop: asyncio.AbstractEventLoop
    view: memoryview
    sockets: set[socket.socket]

    def spawn(self, work: Coroutine[None, None, T]) -> asyncio.Task[T]: ...
    def schedule(self, link: "Link") -> None: ...
    def enter(self, link: "Link") -> None: ...
    def received(self, link: "Link", data: bytes) -> None: ...
    def flushed(self, link: "Link") -> None: ...
    def lost(self, link: "Link", clean: bool, reason: str) -> None: ...
    def gone(self, link: "Link") -> None: ...
    def begins(self, link: "Link") -> bool: ...


class Link(asyncio.BufferedProtocol):
    """A connected socket, with TLS on it or not. What is put into it in one turn of the loop leaves in one write.

    The transport keeps nothing back that the kernel does not refuse, so what waits, here or there, is what has not left.
    """

    __slots__ = (
        "owner", "dial", "id", "sock", "tls", "protocol", "leftover", "transport", "made", "fresh", "out", "scheduled", "blocked",
        "split", "paused", "shut", "over", "reason",
    )  # fmt: skip

    def __init__(
        self, owner: Owner, dial: Dial, sock: socket.socket, tls: TLSPipe | None, protocol: str, leftover: bytes
    ) -> None:
        """`leftover`: what has come of the connection already."""
        self.owner = owner
        self.dial = dial
        self.id = dial.id
        self.sock = sock
        self.tls = tls
        self.protocol = protocol
        self.leftover = leftover
        self.transport: asyncio.Transport
        self.made = False  # it has its transport, which closes the socket
        self.fresh = True  # nothing has been received
        self.out: list[bytes] = []  # what the transport has not been given
        self.scheduled = False  # `flush` runs, or will in this turn or the next
        self.split = False  # a piece of what was put in has left
        self.blocked = False  # the kernel takes no more for now
        self.paused = False  # nothing is read for now
        self.shut = False  # we have said that nothing more comes
        self.over = False  # its owner has heard of its end, or has ended it
        self.reason = ""  # why it broke

    # What its owner does

    def put(self, data: bytes) -> None:
        """More to write."""
        self.out.append(data)
        self.schedule()

    def schedule(self) -> None:
        """Writes soon: after those that are to run before, who may put in more."""
        if not self.scheduled and not self.blocked:
            self.scheduled = True
            self.owner.schedule(self)

    def unsent(self) -> int:
        """Bytes that the kernel has not taken, as far as is known; with TLS a few more."""
        waiting = sum([len(data) for data in self.out]) if self.out else 0
        return waiting + self.transport.get_write_buffer_size()

    def flush(self) -> None:
        """Writes as long as the kernel takes all, and the owner has more: no request after what is no answer to it."""
        self.scheduled = True
        if self.out and not self.split and not self.over and self.owner.begins(self) and has_come(self.sock):
            self.owner.lost(self, False, UNASKED)
        while self.out and not self.blocked and not self.over and not self.transport.is_closing():
            self.write()
            self.owner.flushed(self)
        self.scheduled = False

    def write(self) -> None:
        """Gives the transport a piece: what has left of that is not known if the connection breaks, of the rest it is."""
        data = self.out[0] if len(self.out) == 1 else b"".join(self.out)
        piece = data if len(data) <= SEAL_SIZE else data[:SEAL_SIZE]
        if self.tls is not None:
            try:
                piece = piece[: self.tls.seal(piece)]
            except ssl.SSLError as error:
                self.reason = str(error.strerror or error)
                self.transport.abort()
                return
        self.split = len(piece) < len(data)
        self.out = [data[len(piece) :]] if self.split else []
        self.transport.write(piece if self.tls is None else self.tls.sealed())
        if self.transport.is_closing():  # it broke, and the piece has not left
            self.out.insert(0, piece)

    def say_end(self) -> None:
        """Nothing more will be written, and all that was has left: says so (close_notify, FIN)."""
        if self.shut or self.transport.is_closing():
            return
        self.shut = True
        if self.tls is not None:
            self.tls.end()
            self.transport.write(self.tls.sealed())
        else:
            self.transport.write_eof()

    def pause(self) -> None:
        """Reads no more for now."""
        if not self.paused and not self.transport.is_closing():
            self.paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        """Reads on."""
        if self.paused and not self.transport.is_closing():
            self.paused = False
            self.transport.resume_reading()

    def end(self) -> None:
        """Writes what is left, as far as that needs no waiting, and closes."""
        self.over = True
        transport = self.transport
        if not self.blocked and not transport.is_closing():
            data = b"".join(self.out)
            if self.tls is not None and not self.shut:
                with suppress(ssl.SSLError):
                    self.tls.seal(data)
                self.tls.end()
                data = self.tls.sealed()
            if data and not self.shut:
                transport.write(data)
        self.out = []
        if transport.get_write_buffer_size():
            transport.abort()
        else:
            transport.close()

    # What the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # what it is like; uvloop's is no subclass
        self.made = True
        self.transport.set_write_buffer_limits(0)  # so that all that waits there is what the kernel has refused
        self.owner.enter(self)
        if self.leftover and not self.over:
            self.owner.received(self, self.leftover)
        if self.tls is not None and not self.over:
            self.take(self.tls)  # what came with the end of the handshake

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.owner.view

    def buffer_updated(self, nbytes: int) -> None:
        if self.over:
            return
        if self.tls is None:
            data = bytes(self.owner.view[:nbytes])
            if nbytes >= BULK and not self.transport.is_closing():
                self.transport.set_protocol(Flood(self))
            self.owner.received(self, data)
        else:
            self.tls.feed(self.owner.view[:nbytes])
            self.take(self.tls)

    def take(self, tls: TLSPipe) -> None:
        """All the plaintext that has come, and perhaps the end."""
        data = tls.open()
        if (sealed := tls.sealed()) and not self.transport.is_closing():  # key updates and such
            self.transport.write(sealed)
        if data:
            self.owner.received(self, data)
        if tls.ended and not self.over:
            self.owner.lost(self, tls.clean, tls.reason)

    def eof_received(self) -> bool:
        if not self.over:
            self.finish(True)
        return False

    def finish(self, clean: bool) -> None:
        """Nothing more can be read."""
        if self.tls is not None:
            self.tls.feed(b"")
            self.take(self.tls)
        else:
            self.owner.lost(self, clean, self.reason)

    def pause_writing(self) -> None:
        self.blocked = True

    def resume_writing(self) -> None:
        self.blocked = False
        if not self.over:
            self.owner.flushed(self)
            self.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.over:
            # A broken pipe says that the peer's end had come before, and so may have its response.
            broken = None if isinstance(exc, BrokenPipeError) else exc or OSError(0, "its transport was closed")
            self.drain()
            if broken is not None and not self.over:
                self.owner.lost(self, False, self.reason or getattr(broken, "strerror", None) or str(broken))
            elif not self.over:
                self.finish(True)
        self.owner.gone(self)

    def cut(self) -> None:
        """Its transport was closed as soon as it was made, which not every event loop tells."""
        self.blocked = True  # and none takes more
        if not self.over:
            self.owner.lost(self, False, "its transport was closed")
        self.owner.gone(self)

    def drain(self) -> None:
        """What had come before it broke: the transport gives that up, and has not closed the socket yet."""
        try:
            while not self.over and (size := self.sock.recv_into(self.owner.view)):
                self.buffer_updated(size)
        except OSError:
            pass


class Flood(asyncio.Protocol):
    """Stands in for a link without TLS while much comes: its transport reads into new objects then, and not into the buffer,
    from which all would be copied."""

    def __init__(self, link: Link) -> None:
        self.link = link

    def data_received(self, data: bytes) -> None:
        link = self.link
        if len(data) < BULK and not link.transport.is_closing():
            link.transport.set_protocol(link)
        if not link.over:
            link.owner.received(link, data)

    def eof_received(self) -> bool:
        return self.link.eof_received()

    def pause_writing(self) -> None:
        self.link.pause_writing()

    def resume_writing(self) -> None:
        self.link.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self.link.connection_lost(exc)


class Approach:
    """A dial under way, in a task of its owner's."""

    def __init__(self, owner: Owner, dial: Dial, route: Route) -> None:
        self.owner = owner
        self.dial = dial
        self.route = route
        self.race: Race | None = None
        self.layers: Layers | None = None
        self.task = owner.spawn(self.run())

    def overdue(self) -> Failure:
        """What to say when its time is over."""
        return self.route.overdue(self.dial.key.origin, self.race, self.layers)

    async def run(self) -> None:
        """Makes the connection, and gives it to its owner. Raises Refused, ConnectError, RemoteProtocolError."""
        owner, dial, route = self.owner, self.dial, self.route
        loop, origin = owner.loop, dial.key.origin
        if route.uds is not None:
            sock = open_unix(route.uds, time.monotonic() + LONGEST, route.socket_options)  # which does not wait
            sock.setblocking(False)
            owner.sockets.add(sock)
        else:
            host, port = route.address(origin)
            self.race = Race(host, port, await look_up(loop, host, port, route.resolver))
            sock = await open_tcp(owner, self.race, route)
        try:
            self.layers = layers = route.layers(origin, dial.protocols)
            await shake_hands(loop, sock, layers)
            protocol = route.spoken(origin, dial.protocols, layers)
        except BaseException:
            discard(owner, sock)
            raise
        await hand_over(owner, Link(owner, dial, sock, layers.pipe, protocol, layers.leftover))


async def shake_hands(loop: asyncio.AbstractEventLoop, sock: socket.socket, layers: Layers) -> None:
    """Everything that comes before HTTP on a connected socket. Raises Refused, when the last words are said."""
    try:
        out = layers.start(time.monotonic())
        while layers.failure is None:
            if out:
                await loop.sock_sendall(sock, out)
            if layers.done:
                return
            out = layers.feed(await loop.sock_recv(sock, HANDSHAKE_SIZE), time.monotonic())
    except OSError as error:
        raise Refused(layers.broken(str(error.strerror or error))) from error
    say(sock, out)
    raise Refused(layers.failure)


async def hand_over(owner: Owner, link: Link) -> None:
    """A transport takes the socket over, and closes it; where there will be none, nobody does."""
    try:
        if link.sock.family in INTERNET:
            await owner.loop.create_connection(lambda: link, sock=link.sock)
        else:
            await owner.loop.create_unix_connection(lambda: link, sock=link.sock)
    except BaseException:
        if link.made:
            link.cut()
        else:
            discard(owner, link.sock)
        raise


def discard(owner: Owner, sock: socket.socket) -> None:
    """The socket is not wanted any more."""
    owner.sockets.discard(sock)
    sock.close()


async def look_up(loop: asyncio.AbstractEventLoop, host: str, port: int, resolver: Resolver) -> Sequence[Address]:
    """The host's addresses. Raises ConnectError where there are none."""
    waiter: asyncio.Future[Answer] = loop.create_future()

    def tell(answer: Answer) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, waiter, answer)

    begin_lookup(host, port, resolver, tell)
    return found(host, await waiter)


def settle(waiter: asyncio.Future[Answer], answer: Answer) -> None:
    """The answer to who waits for it, if somebody still does."""
    if not waiter.done():
        waiter.set_result(answer)


async def open_tcp(owner: Owner, race: Race, route: Route) -> socket.socket:
    """A socket connected to the address that answers first (RFC 8305), the others closed. Raises ConnectError."""
    attempts: dict[asyncio.Task[socket.socket], Address] = {}
    try:
        while True:
            now = time.monotonic()
            while (address := race.begin(now)) is not None:
                attempts[owner.spawn(attempt(owner, address, route))] = address
            race.check()
            until = race.next_timeout()
            timeout = None if until == INFINITY else max(0.0, until - now)
            done, _ = await asyncio.wait(attempts, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                error = task.exception()
                if error is None:
                    sock = task.result()
                    del attempts[task]
                    return sock
                if not isinstance(error, OSError):
                    raise error
                race.lose(attempts.pop(task), error)
    finally:
        for task in attempts:
            task.cancel()
            task.add_done_callback(lambda task: undo(owner, task))


async def attempt(owner: Owner, address: Address, route: Route) -> socket.socket:
    """One address of a race."""
    family, kind, protocol, _, place = address
    sock = socket.socket(family, kind, protocol)
    owner.sockets.add(sock)
    try:
        sock.setblocking(False)
        set_options(sock, route.socket_options)
        if route.local_address is not None:
            sock.bind((route.local_address, 0))
        await owner.loop.sock_connect(sock, place)
    except BaseException:
        discard(owner, sock)
        raise
    return sock


def undo(owner: Owner, task: "asyncio.Task[socket.socket]") -> None:
    """An attempt that came too late."""
    if not task.cancelled() and task.exception() is None:
        discard(owner, task.result())
