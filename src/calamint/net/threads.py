"""A pool of connections for threads: requests of many threads share them, and no thread is run for it.

One lock guards the core's pool and all sockets. Whoever waits first leads: without the lock it waits in one selector for
all, then takes the lock, reads, lets the clocks run, writes, and puts what came into the boxes of those who asked for it;
when it has what it came for it leaves the lead to another who waits. Between calls nothing happens.

What is changed under the lock is marked. A mark that is found there later was left by an interrupt, a signal's exception
between two lines: then nothing of it can be trusted, and the pool starts over with nothing. A signal's handler that has come
there itself cannot use the pool, and is told so; anywhere else it can.
"""

import os
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Final, final
from weakref import WeakSet

from calamint import core
from calamint.core import pool_view
from calamint.core.errors import TransportError, UnsupportedProtocol, to_exception
from calamint.core.exchange import CLOCKS, SETTINGS, Clocks, Settings
from calamint.core.pool_state import LIMITS, Limits, PoolSnapshot, Stats
from calamint.core.pool_state import Pool as CorePool
from calamint.core.url import URL
from calamint.core.value import INFINITY, Fields
from calamint.net.dial import Resolver, SocketOption, look_up, read_url
from calamint.net.extra import extra
from calamint.net.hub import Box, Hub, Ready
from calamint.net.proxy import Proxy, as_sent
from calamint.net.response import Headers, Response, assemble, to_fields
from calamint.net.route import Route, Routes
from calamint.net.tls import Cert, Verify
from calamint.net.trace import Tracer, is_wanted, logger, tell
from calamint.net.wire import Wire

INTERRUPTED: Final = "an interrupt (a signal?) came between bytes and their record: the pool started over"
REENTERED: Final = (
    "the pool was interrupted in the middle of a change, by a signal's handler or a finalizer in the same thread: from there "
    "it cannot be used"
)
FORKED: Final = "the process was forked: its connections belong to the parent"
KNOWN_URLS: Final = 512  # whose parts a pool remembers

pools: "Final[WeakSet[Pool]]" = WeakSet()


@final
class Pool:
    """Connections to any number of origins, shared by threads.

    `limits`: see `calamint.Limits`; `settings`: those of each connection. `http1`, `http2`: what may be spoken; https asks by
    ALPN, http is HTTP/1.1, or HTTP/2 by prior knowledge with `http1=False` (RFC 9113 §3.3). `verify` and `cert`: see
    `calamint.net.tls.make_context`. `resolver`: from host and port to addresses, as socket.getaddrinfo gives them. `uds`: a
    Unix domain socket to connect to instead of the host; `local_address`: of this host, to connect from. `socket_options`:
    for socket.setsockopt, before each socket is connected. `tracer`: whom to tell what happens. Raises UnsupportedProtocol
    where no protocol is allowed.

    After a fork the child's pool starts with nothing, and so does one in which an interrupt has left things half done.
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
        if not http1 and not http2:
            raise UnsupportedProtocol("http1=False and http2=False leave no protocol")
        self._limits = limits
        self._settings = settings
        both = ("h2", "http/1.1") if http1 and http2 else ("http/1.1",) if http1 else ("h2",)
        self._route = Route(verify, cert, resolver, uds, local_address, socket_options=tuple(socket_options))
        self._protocols: dict[str, tuple[str, ...]] = {"https": both, "http": both[-1:]}
        self._tracer = tracer
        self._lock = threading.RLock()  # never entered twice, but it knows its owner
        self._closed = False
        self._stranger = 0  # in a forked child, until somebody was told: the process that made it
        self._urls: dict[str, URL] = {}
        self._hub = self._make_hub()
        pools.add(self)

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
    ) -> "Call":
        """A request, sent at once or as soon as a connection has room for it; never waits. What it says comes from the call.

        `content`: all of it, or its beginning with `end=False` and `send_data` for the rest. Seconds, None for no limit:
        `timeout` in all, `pool` in the queue for a slot, `connect` for DNS, TCP and TLS; silence is bounded by `clocks`.
        `replay`: what was not processed may be sent once more. `protocol`: of an extended CONNECT (RFC 8441), "" for none.
        `proxy`: to be reached through it; `connect` is for all of the way. `server_hostname`: the name in the certificate, if
        not the URL's host. `only_http1`: HTTP/2 is not asked for, since it has no upgrades (RFC 9113 §8.6). Raises
        LocalProtocolError, InvalidURL, UnsupportedProtocol, and ValueError for a proxy where there is `uds`; then nothing has
        changed.
        """
        self._check()
        where = self._read(url)
        data = content.encode() if isinstance(content, str) else content
        if data is not None and not isinstance(data, bytes):
            raise TypeError(f"content is {type(data).__name__}, not bytes or str")
        target, fields = as_sent(proxy, where, to_fields(headers))
        if self._stranger:
            self._say_forked()
        box = Box(self._hub)
        call = Call(self, box, f"{method} {target}")
        try:
            with self._lock:
                now = time.monotonic()
                hub = self._enter()
                box.hub = hub
                key = hub.routes.aim(where.origin, proxy, server_hostname, only_http1, hub.core.sites)
                hub.core.traced = is_wanted(self._tracer)
                hub.marked = True
                until = INFINITY if timeout is None else now + timeout
                hub.submit(
                    box, key, method, target, fields, data, end, until, clocks, pool, connect, replay, protocol, now
                )
                hub.settle()
                hub.marked = False
            if hub.reports:
                self._tell(hub)
            return call
        except BaseException:
            call.cancel()
            raise

    def snapshot(self) -> PoolSnapshot:
        """Every connection, request and dial at this moment; `print(pool.snapshot().describe())` says who waits for what."""
        self._check()
        with self._lock:
            return pool_view.snapshot(self._enter().core, time.monotonic())

    def stats(self) -> Stats:
        """Numbers at this moment, at no cost."""
        self._check()
        with self._lock:
            return pool_view.stats(self._enter().core, time.monotonic())

    def close(self, grace: float = 0.0) -> None:
        """Takes nothing new, lets what runs end for `grace` seconds, and resets the rest. Waits for no peer but in that time.
        May be called again, with less time for what still runs."""
        self._check()
        box = Box(self._hub)
        with self._lock:
            hub = self._enter()
            box.hub = hub
            self._closed = True
            hub.marked = True
            hub.close(time.monotonic(), grace)
            hub.settle()
            hub.marked = False
        self._tell(hub)
        self._wait(box, lambda: hub.gone or not hub.core.held, True)

    def __enter__(self) -> "Pool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # What calls do

    def _send_data(self, box: Box, data: bytes, end: bool, trailers: Fields, timeout: float | None) -> bool:
        """See `Call.send_data`."""
        self._check()
        with self._lock:
            hub = self._enter()
            if box.over:
                return False
            hub.marked = True
            hub.send_data(box, data, end, trailers, time.monotonic())
            hub.settle()
            hub.marked = False
            waits = hub.queued(box) > 0
        self._tell(hub)
        if waits:
            most = self._settings.stream_window // 2

            def may_go_on() -> bool:
                return box.over or box.unread > most or not hub.queued(box)

            until = INFINITY if timeout is None else time.monotonic() + timeout
            self._wait(Box(hub), may_go_on, True, until)  # another thread may read
            with self._lock:
                if timeout is not None and not may_go_on():
                    raise TimeoutError(f"content has not left within {timeout} seconds")
        return not box.over

    def _consume(self, box: Box, size: int) -> None:
        """Content of the box counts as read."""
        self._check()
        with self._lock:
            hub = self._enter()
            if box.over:
                return
            hub.marked = True
            hub.consume(box, size, time.monotonic())
            hub.settle()
            hub.marked = False
        self._tell(hub)

    def _cancel(self, box: Box) -> bool:
        """The request of the box is over, and what has come of it is not wanted. Whether that waits for the pool's next turn:
        the garbage collector may come here, by way of a generator that it ends, while this very thread holds the lock."""
        if self._is_inside():
            box.hub.drop(box)
            return True
        with self._lock:
            hub = self._enter()
            hub.marked = True
            hub.cancel(box, time.monotonic())
            hub.settle()
            hub.marked = False
        self._tell(hub)
        return False

    def _protocol(self, box: Box) -> str:
        """What the request of the box is spoken in, as far as that is known."""
        self._check()
        with self._lock:
            return "" if box.over else pool_view.protocol(self._enter().core, box.ticket)

    def _is_dialling(self, box: Box) -> bool:
        """Whether the request of the box waits for a connection that is being made."""
        self._check()
        with self._lock:
            return not box.over and pool_view.is_dialling(self._enter().core, box.ticket)

    def _wire(self, box: Box) -> Wire | None:
        """What the request of the box runs on."""
        self._check()
        with self._lock:
            hub = self._enter()
            channel = None if box.over else hub.channels.get(pool_view.connection(hub.core, box.ticket))
            return None if channel is None else channel.wire

    def _start(self, box: Box) -> None:
        """Waits until the request of the box has a connection, or is over."""
        hub = box.hub
        self._wait(box, lambda: box.over or bool(pool_view.protocol(hub.core, box.ticket)), True)

    def _wait(
        self, box: Box, condition: Callable[[], bool], more: bool = False, until: float = INFINITY, takes: bool = False
    ) -> None:
        """Waits until the condition is true, or it is late: as the leader, or until the leader says so. `more`: it is about
        more than what comes into the box. `takes`: content that is there then counts as read."""
        self._check()
        hub = box.hub
        ready: Ready | None = None
        waits = True
        try:
            while waits:
                seconds = 0.0
                sleeper: threading.Lock | None = None
                with self._lock:
                    self._enter()
                    now = time.monotonic()
                    hub.marked = not hub.gone
                    if hub.leader is box:
                        hub.asleep = False
                    if ready is not None and not hub.gone:
                        hub.turn(ready, now)
                    waits = not condition() and now < until
                    if not waits:
                        if takes and box.unread and not box.over:
                            hub.consume(box, box.unread, now)
                        hub.leave(box)
                    hub.settle()
                    if not waits:
                        ready = None
                    elif hub.leader in (None, box) or hub.leader.thread == threading.get_ident():
                        ready = []
                        seconds = min(hub.lead(box, condition if more else None, now), until - now)
                    else:
                        ready = None
                        sleeper = hub.follow(box, condition if more else None)
                    hub.marked = False
                if hub.reports:
                    self._tell(hub)
                elif sleeper is not None:
                    woken = sleeper.acquire(timeout=-1 if until == INFINITY else max(0.0, until - time.monotonic()))
                    waits = not woken or hub.leader is box or more or not condition()
                elif ready is not None:
                    ready = hub.select(seconds)
        except BaseException:
            self._leave(box)
            raise

    def _leave(self, box: Box) -> None:
        """An interrupt has ended a wait."""
        try:
            self._go(box)
        except BaseException:  # and another one its end
            self._go(box)
            raise

    def _go(self, box: Box) -> None:
        with self._lock:
            self._enter()
            box.hub.leave(box)
            box.hub.settle()

    def _is_inside(self) -> bool:
        """Whether this very thread holds the lock, further up its stack."""
        return self._lock._is_owned()  # type: ignore[attr-defined, no-any-return]  # typeshed leaves it out; threading.Condition lives on it

    def _check(self) -> None:
        """Before the lock is taken: raises RuntimeError where this would be the second time."""
        if self._is_inside():
            raise RuntimeError(REENTERED)

    # Under the lock

    def _enter(self) -> Hub:
        """What the pool works with; a new one where an interrupt has left the old one half changed."""
        hub = self._hub
        if hub.marked:
            hub.scrap("ReadError", INTERRUPTED)
            self._start_over()
            hub.marked = False
        return self._hub

    def _start_over(self) -> None:
        """With nothing; closed, if it was."""
        hub = self._make_hub()
        if self._closed:
            hub.close(time.monotonic(), 0.0)
        self._hub = hub

    def _make_hub(self) -> Hub:
        """One with nothing."""
        return Hub(CorePool(self._limits, self._settings), Routes(self._route, self._protocols))

    # Without it

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

    def _tell(self, hub: Hub) -> None:
        """Reports go out while nothing is locked."""
        with suppress(IndexError):  # another thread may have told it
            while hub.reports:
                tell(self._tracer, hub.reports.popleft())

    def _say_forked(self) -> None:
        """Once in a process that is not the one that made the pool."""
        maker, self._stranger = self._stranger, 0
        logger.warning("a pool of process %d is used in its fork %d, where it starts with nothing", maker, os.getpid())

    def _begin_in_child(self) -> None:
        """In a forked child, before anything else runs there: descriptors are closed, and nothing is said to any peer."""
        self._lock = threading.RLock()
        hub = self._hub
        hub.leader = None  # no other thread has come along
        hub.below.clear()
        hub.scrap("ReadError", FORKED)
        self._stranger = self._stranger or os.getppid()
        self._start_over()


@final
class Call:
    """One request under way: what comes of it, one thread at a time. Leaving `with call:` cancels what is not over.

    Content counts as consumed when its event is taken; what is not taken holds up no other request. `words`: what a warning
    calls it.
    """

    __slots__ = ("_pool", "_box", "_left", "words")

    def __init__(self, pool: Pool, box: Box, words: str) -> None:
        self._pool = pool
        self._box = box
        self._left = False  # by its caller, and the pool will see to it
        self.words = words

    @property
    def ticket(self) -> int:
        """Its number in the pool."""
        return self._box.ticket

    @property
    def protocol(self) -> str:
        """ "h2" or "http/1.1"; empty while it waits for a connection."""
        return self._box.protocol or self._pool._protocol(self._box)

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come, though there may be something to take."""
        return self._box.over

    @property
    def is_dialling(self) -> bool:
        """Whether it waits for a connection that is being made."""
        return self._pool._is_dialling(self._box)

    def extra(self, name: str) -> object:
        """Something about its connection, None where it has none yet or any more: see `calamint.net.extra`."""
        wire = self._box.wire or self._pool._wire(self._box)
        return None if wire is None else extra(wire.sock, wire.tls, name)

    def start(self) -> str:
        """Waits until it has a connection, or is over; what it is spoken in then, or nothing."""
        self._pool._start(self._box)
        return self.protocol

    def receive(self, timeout: float | None = None) -> core.Event | None:
        """The next event; None after ResponseEnded. Raises what failed the request, once all that came before is taken, and
        TimeoutError when nothing has come for `timeout` seconds: the request goes on."""
        until = INFINITY if timeout is None else time.monotonic() + timeout
        box = self._box
        while True:
            over = box.over  # to be looked at first: events come before it
            events = box.events
            if events:
                event = events[0]
                if not over and isinstance(event, core.DataReceived):
                    self._pool._consume(box, len(event.data))
                if events is box.events:  # or it was cancelled meanwhile
                    del events[0]
                    return event
            elif over:
                self._end()
                return None
            elif time.monotonic() >= until:
                raise TimeoutError(f"nothing has come for {timeout} seconds")
            else:
                self._pool._wait(box, box.is_stirred, until=until)

    def receive_all(self) -> list[core.Event]:
        """The events that are there, or the next that come; none after ResponseEnded. Raises as `receive` does."""
        box = self._box
        while True:
            over = box.over
            if events := self.receive_ready():
                return events
            if over:
                self._end()
                return []
            self._pool._wait(box, box.is_stirred, takes=True)

    def receive_ready(self) -> list[core.Event]:
        """The events that are there, perhaps none: it never waits."""
        box = self._box
        while events := box.events:
            if box.unread and not box.over:
                self._pool._consume(box, box.unread)
            if events is box.events:  # or it was cancelled meanwhile
                taken = events[:]
                del events[: len(taken)]
                return taken
        return []

    def response(self) -> Response:
        """All of it. A tunnel, which a 101 or the 2xx of a CONNECT opens, has no end of its own: take its events instead.
        Raises what failed the request, and StreamClosed where some of it has been taken as events."""
        box = self._box
        while not box.over:
            self._pool._wait(box, box.is_due, takes=True)
        self._end()
        events, box.events = box.events, []
        return assemble(events)

    def send_data(
        self, data: bytes, *, end: bool = False, trailers: Headers = (), timeout: float | None = None
    ) -> bool:
        """More of the request's content; False where the request is over, and its events say how.

        Returns when no more than the output budget waits; reading goes on meanwhile. It does not wait either while half a
        window of the response is unread: the peer may go on only after the reader does. Raises LocalProtocolError, and
        TimeoutError when it has waited for `timeout` seconds: the data is given all the same, and the request goes on.
        """
        return self._pool._send_data(self._box, data, end, to_fields(trailers), timeout)

    def cancel(self) -> None:
        """It is not wanted any more: RST_STREAM on HTTP/2; on HTTP/1.1 the connection ends. Never waits. A no-op when over."""
        if not self._box.over:
            self._left = self._pool._cancel(self._box)

    def __enter__(self) -> "Call":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()

    def __del__(self) -> None:
        """Takes no lock, since it may run anywhere: the pool cancels the request on its next turn."""
        box: Box | None = getattr(self, "_box", None)  # none where `__init__` was interrupted
        if box is not None and box.ticket and not box.over and not self._left:
            box.hub.drop(box)
            warnings.warn(f"a request was dropped unclosed: {self.words}", ResourceWarning, 2, self)

    def _end(self) -> None:
        """Raises what failed it, each time a fresh exception."""
        failed = self._box.failed
        if failed is not None:
            assert isinstance(failed.event, core.RequestFailed)
            error = to_exception(failed.event.failure)
            if isinstance(error, TransportError):
                error.attempts = failed.attempts
                error.snapshot = failed.snapshot
            raise error


def begin_in_child() -> None:
    """After a fork, in the child."""
    for pool in list(pools):
        pool._begin_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=begin_in_child)
