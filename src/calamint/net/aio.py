"""The pool for asyncio. What it does in the event loop that it is used in, its `Desk` does: see `aio_desk`."""

import asyncio
import time
import warnings
from collections.abc import Sequence
from types import TracebackType
from typing import Final

from calamint.core import pool as core
from calamint.core import pool_view
from calamint.core.errors import LocalProtocolError, TransportError, UnsupportedProtocol, to_exception
from calamint.core.events import DataReceived, Event, RequestFailed
from calamint.core.exchange import CLOCKS, SETTINGS, Clocks, Settings
from calamint.core.pool_state import LIMITS, Limits, PoolSnapshot, Stats
from calamint.core.pool_state import Pool as CorePool
from calamint.core.url import URL
from calamint.core.value import INFINITY
from calamint.net.aio_desk import Desk, Inbox
from calamint.net.dial import Resolver, SocketOption, look_up, read_url
from calamint.net.extra import extra
from calamint.net.proxy import Proxy, as_sent
from calamint.net.response import Headers, Response, assemble, to_fields
from calamint.net.route import Route, Routes
from calamint.net.tls import Cert, Verify
from calamint.net.trace import Tracer, is_wanted

KNOWN_URLS: Final = 1024  # that a pool has read, and need not read again


class Call:
    """A request under way, as `Pool.request` gives it: for one task at a time to read, and perhaps another one to send.

    `async with` it: what is not over when the block is left is cancelled. Content counts as consumed when it is taken.
    `words`: what a warning calls it.
    """

    def __init__(self, desk: Desk, inbox: Inbox, words: str) -> None:
        self._desk = desk
        self._inbox = inbox
        self.words = words

    def __repr__(self) -> str:
        return f"<Call {self._inbox.ticket}: {self.words}{', over' if self._inbox.over else ''}>"

    @property
    def ticket(self) -> int:
        """Its number in the pool, as reports and snapshots name it."""
        return self._inbox.ticket

    @property
    def protocol(self) -> str:
        """ "h2" or "http/1.1"; empty while it waits for a connection."""
        return self._inbox.protocol or pool_view.protocol(self._desk.pool, self._inbox.ticket)

    @property
    def is_over(self) -> bool:
        """Whether its last event has come, if not been taken."""
        return self._inbox.over

    @property
    def is_dialling(self) -> bool:
        """Whether it waits for a connection that is being made."""
        return pool_view.is_dialling(self._desk.pool, self._inbox.ticket)

    def extra(self, name: str) -> object:
        """Something about its connection, None where it has none yet or any more: see `calamint.net.extra`."""
        desk = self._desk
        link = self._inbox.link or desk.links.get(pool_view.connection(desk.pool, self._inbox.ticket))
        return None if link is None else extra(link.sock, link.tls, name)

    async def start(self) -> str:
        """Waits until it has a connection, or is over; what it is spoken in then, or nothing."""
        inbox = self._inbox
        while not (inbox.over or inbox.events or self.protocol):
            self._desk.starters.add(inbox)
            try:
                await self._next()
            finally:
                self._desk.starters.discard(inbox)
        return self.protocol

    async def receive(self) -> Event | None:
        """The next event of this request; None when the last one has been taken.

        Raises what has failed the request, every time that it is asked: a TransportError, or StreamClosed where this side
        has ended it. Cancelled while it waits, it has taken nothing.
        """
        inbox = self._inbox
        while not inbox.events:
            if inbox.over:
                self._check()
                return None
            await self._next()
        event = inbox.events.popleft()
        if isinstance(event, DataReceived):
            self._consume(len(event.data))
        return event

    async def receive_all(self) -> list[Event]:
        """The events that are there, or the next that come; none when the last one has been taken. Raises as `receive`."""
        inbox = self._inbox
        while not inbox.events:
            if inbox.over:
                self._check()
                return []
            await self._next()
        return self.receive_ready()

    def receive_ready(self) -> list[Event]:
        """The events that are there, perhaps none: it never waits."""
        inbox = self._inbox
        events = list(inbox.events)
        inbox.events.clear()
        if inbox.unread or inbox.ahead:
            self._consume(inbox.unread + inbox.ahead)
        return events

    async def response(self) -> Response:
        """The whole response. A tunnel, which a 101 or the 2xx of a CONNECT opens, has no end of its own: take its events
        instead. Raises what has failed it; cancelled while it waits, it has taken nothing."""
        inbox = self._inbox
        while not inbox.over:
            if inbox.unread:  # more may come, though the events stay here
                inbox.ahead += inbox.unread
                self._credit(inbox.unread)
            else:
                await self._next()
        self._check()
        response = assemble(inbox.events)
        inbox.events.clear()
        return response

    async def send_data(self, data: bytes, *, end: bool = False, trailers: Headers = ()) -> bool:
        """More of the request's content; False when the request is over, and its events say how.

        Returns when all of it has been handed to the connection, which keeps no more than the output budget back, or, so
        that peers may answer while they read, when half a window of the response is unread. Cancelled while it waits, it
        has given the data all the same. Raises LocalProtocolError.
        """
        inbox, desk = self._inbox, self._desk
        fields = to_fields(trailers)
        if inbox.over:
            return False
        if inbox.writer is not None:
            raise RuntimeError("another task is sending content of this request")
        waiter = desk.future()
        desk.act(core.send_data(desk.pool, inbox.ticket, data, time.monotonic(), end, fields))
        while not desk.may_go_on(inbox):
            inbox.writer = waiter
            desk.writers.add(inbox)
            try:
                await waiter
            finally:
                desk.writers.discard(inbox)
                inbox.writer = None
            waiter = desk.future()
        return not inbox.over

    def cancel(self) -> None:
        """The caller wants no more of it, and what has come is thrown away. Never waits; a no-op when it is over."""
        inbox = self._inbox
        if inbox.over:
            return
        inbox.events.clear()
        inbox.unread = inbox.ahead = 0
        if self._desk.is_here():
            self._desk.act(core.cancel(self._desk.pool, inbox.ticket, time.monotonic()))
        else:
            self._desk.drop(inbox.ticket)

    async def __aenter__(self) -> "Call":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()

    def __del__(self) -> None:
        if not self._inbox.over:
            self._desk.drop(self._inbox.ticket)
            warnings.warn(f"a request was dropped unclosed: {self.words}", ResourceWarning, stacklevel=2, source=self)

    def _next(self) -> "asyncio.Future[None]":
        """What is done when something comes."""
        inbox = self._inbox
        if inbox.reader is not None and not inbox.reader.done():
            raise RuntimeError("another task is waiting for this request")
        inbox.reader = self._desk.future()
        return inbox.reader

    def _consume(self, size: int) -> None:
        """Content has been taken from the inbox."""
        inbox = self._inbox
        early = min(size, inbox.ahead)
        inbox.ahead -= early
        if size > early:
            self._credit(size - early)

    def _credit(self, size: int) -> None:
        """Unread content counts as consumed."""
        inbox = self._inbox
        inbox.unread -= size
        if not inbox.over:
            self._desk.act(core.consume(self._desk.pool, inbox.ticket, size, time.monotonic()))

    def _check(self) -> None:
        """Raises what has failed the request, if something has."""
        action = self._inbox.failure
        if action is not None and isinstance(action.event, RequestFailed):
            error = to_exception(action.event.failure)
            if isinstance(error, TransportError):
                error.attempts = action.attempts
                error.snapshot = action.snapshot
            raise error


class Pool:
    """Connections of all origins, for the tasks of one event loop at a time.

    `limits`: how many connections there may be. `settings`: of each. `http1`, `http2`: what may be spoken; https asks by
    ALPN, http is HTTP/1.1, or HTTP/2 by prior knowledge with `http1=False` (RFC 9113 §3.3). `verify` and `cert`: see
    `calamint.net.tls.make_context`. `resolver`: from host and port to addresses, as socket.getaddrinfo gives them; it may
    block. `uds`: a Unix domain socket to connect to instead. `local_address`: of this host, to connect from.
    `socket_options`: for socket.setsockopt, before each socket is connected. `tracer`: is told what happens. Raises
    UnsupportedProtocol.

    `async with` it, or `await aclose()`. Used in another event loop, or in a forked process, it begins anew, with a
    warning in the log, and the calls of before fail.
    """

    def __init__(
        self,
        *,
        limits: Limits = LIMITS,
        settings: Settings = SETTINGS,
        http1: bool = True,
        http2: bool = True,
        verify: Verify = True,
        cert: Cert | None = None,
        resolver: Resolver = look_up,
        uds: str | None = None,
        local_address: str | None = None,
        socket_options: Sequence[SocketOption] = (),
        tracer: Tracer | None = None,
    ) -> None:
        self._limits = limits
        self._settings = settings
        protocols = tuple([name for name, allowed in (("h2", http2), ("http/1.1", http1)) if allowed])
        if not protocols:
            raise UnsupportedProtocol("http1=False and http2=False leave no protocol")
        self._route = Route(verify, cert, resolver, uds, local_address, socket_options=tuple(socket_options))
        self._protocols = {"https": protocols, "http": protocols[-1:]}
        self._tracer = tracer
        self._urls: dict[str, URL] = {}
        self._desk: Desk | None = None
        self._closed = False
        CorePool(limits, settings)  # raises what is wrong with them

    def request(
        self,
        method: str,
        url: str | URL,
        headers: Headers = (),
        content: bytes | str | None = None,
        *,
        end: bool = True,
        timeout: float | None = None,
        clocks: Clocks = CLOCKS,
        pool: float | None = 30.0,
        connect: float | None = 10.0,
        replay: bool = True,
        protocol: str = "",
        proxy: Proxy | None = None,
        server_hostname: str | None = None,
        only_http1: bool = False,
    ) -> Call:
        """A request, which goes out as soon as a connection has room for it. Never waits.

        `content`: all of it, or its beginning with `end=False` and `send_data` for the rest. `timeout`: seconds in all,
        None for no limit; silence is bounded by `clocks`. `pool`: seconds that it may wait for a slot; `connect`: for a
        connection that it needs. `replay`: whether it may be sent once more where the peer did not act on it. `protocol`:
        of an extended CONNECT (RFC 8441). `proxy`: to be reached through it; `connect` is for all of the way.
        `server_hostname`: the name in the certificate, if not the URL's host. `only_http1`: HTTP/2 is not asked for, since it
        has no upgrades (RFC 9113 §8.6). A URL value may have any target, such as that of a CONNECT.
        Raises LocalProtocolError, InvalidURL, UnsupportedProtocol, ValueError for a proxy where there is `uds`, and
        RuntimeError where no asyncio event loop runs; then nothing has changed.
        """
        here = self._desk
        if here is None or not here.is_here():
            here = self._begin()
        where = self._read(url)
        data = content.encode() if isinstance(content, str) else content
        if data is not None and not isinstance(data, bytes):
            raise TypeError(f"content is {type(data).__name__}, not bytes or str")
        target, fields = as_sent(proxy, where, to_fields(headers))
        key = here.routes.aim(where.origin, proxy, server_hostname, only_http1, here.pool.sites)
        now = time.monotonic()
        deadline = INFINITY if timeout is None else now + timeout
        here.pool.traced = is_wanted(self._tracer)
        ticket, actions = core.submit(
            here.pool, key, method, target, fields, data, now, end, deadline, clocks, pool, connect,
            replay, protocol,
        )  # fmt: skip
        inbox = Inbox(ticket)
        here.inboxes[ticket] = inbox
        here.act(actions)
        return Call(here, inbox, f"{method} {target}")

    def snapshot(self) -> PoolSnapshot:
        """Every connection, stream, waiting request and dial at this moment."""
        return pool_view.snapshot(self._core(), time.monotonic())

    def stats(self) -> Stats:
        """Numbers, at no cost."""
        return pool_view.stats(self._core(), time.monotonic())

    async def aclose(self, grace: float = 0.0) -> None:
        """Takes no new requests from now on; what waits fails, what runs has `grace` seconds to end, and is reset then.

        Returns when every socket is closed, which takes no answer of any peer. Cancelled, it has closed the pool all the
        same. More than once is no mistake.
        """
        self._closed = True
        here = self._desk
        if here is None or here.ended:
            return
        if here.is_here():
            await here.close(grace)
        else:
            self._desk = None
            here.leave()

    async def __aenter__(self) -> "Pool":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def _core(self) -> CorePool:
        """The core's pool, or an empty one."""
        return CorePool(self._limits, self._settings) if self._desk is None else self._desk.pool

    def _begin(self) -> Desk:
        """A desk for the loop that runs here; one of another loop is left."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise RuntimeError(
                "no asyncio event loop is running here: calamint works in asyncio and uvloop, and not in trio"
            ) from None
        if self._closed:
            raise LocalProtocolError("the pool is closed: it takes no new requests")
        if self._desk is not None:
            self._desk.leave()
        routes = Routes(self._route, self._protocols)
        self._desk = Desk(loop, CorePool(self._limits, self._settings), routes, self._tracer)
        return self._desk

    def _read(self, url: str | URL) -> URL:
        """The URL, read before or now. Raises InvalidURL, UnsupportedProtocol."""
        if not isinstance(url, str):
            return url
        known = self._urls.get(url)
        if known is None:
            known = read_url(url)
            if len(self._urls) >= KNOWN_URLS:
                self._urls = {}
            self._urls[url] = known
        return known
