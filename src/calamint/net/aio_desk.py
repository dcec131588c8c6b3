"""A pool in one asyncio event loop: it carries out what the core says, and tells it what happens.

Callbacks and one timer; a task for each attempt to connect, and none for a connection or a request.
"""

import asyncio
import os
import socket
import time
import weakref
from collections import deque
from collections.abc import AsyncGenerator, Coroutine
from contextlib import suppress
from typing import Final, TypeVar

from calamint.core import pool as core
from calamint.core import pool_view
from calamint.core.errors import Failure
from calamint.core.events import DataReceived, Event, RequestFailed, ResponseEnded, ResponseReceived, WindowOpened
from calamint.core.pool_state import Action, Deliver, Dial, Pool, Report, Shut, Write
from calamint.core.value import INFINITY
from calamint.net.aio_link import Approach, Link
from calamint.net.dial import LONGEST
from calamint.net.handshake import to_failure
from calamint.net.route import Routes
from calamint.net.tls import make_buffer
from calamint.net.trace import Tracer, logger, tell

T = TypeVar("T")

FORKED: Final = "the process was forked: a pool's connections stay with the process that made them"
MOVED: Final = "the pool is used in another event loop now: its connections stay with the one that made them"

graves: Final[list["Desk"]] = []
"""Of a process that was forked: transports that must not be closed, since that would reach into the parent's selector, and
must not be collected, since asyncio would warn of what is not closed."""


class Inbox:
    """What has come for one request, and who waits for it."""

    __slots__ = ("ticket", "events", "unread", "ahead", "over", "failure", "protocol", "link", "reader", "writer")

    def __init__(self, ticket: int) -> None:
        self.ticket = ticket
        self.events: deque[Event] = deque()
        self.unread = 0  # bytes of content among them that do not count as consumed
        self.ahead = 0  # bytes of content among them, the first, that do already
        self.over = False
        self.failure: Deliver | None = None
        self.protocol = ""
        self.link: Link | None = None  # that its response came from
        self.reader: asyncio.Future[None] | None = None
        self.writer: asyncio.Future[None] | None = None

    def wake(self) -> None:
        """Whoever waits looks again."""
        for waiter in (self.reader, self.writer):
            if waiter is not None and not waiter.done():
                waiter.set_result(None)

    def fail(self, failure: Deliver) -> None:
        """The request is over, without its end."""
        self.failure = failure
        self.over = True
        self.wake()


class Desk:
    """The pool in one event loop: it carries out what the core says, and tells it what happens."""

    def __init__(self, loop: asyncio.AbstractEventLoop, pool: Pool, routes: Routes, tracer: Tracer | None) -> None:
        self.loop = loop
        self.pid = os.getpid()
        self.pool = pool
        self.routes = routes
        self.tracer = tracer
        self.view = memoryview(make_buffer())
        self.links: dict[int, Link] = {}  # until their sockets are closed
        self.dials: dict[int, Approach] = {}
        self.tasks: set[asyncio.Task[object]] = set()
        self.sockets: set[socket.socket] = set()
        self.inboxes: dict[int, Inbox] = {}  # of requests that are not over
        self.paused: set[Link] = set()
        self.unwritten: deque[Link] = deque()  # those that write when the loop comes to `flush`
        self.writers: set[Inbox] = set()  # those with somebody who waits until content has gone out
        self.starters: set[Inbox] = set()  # those with somebody who waits until there is a connection
        self.dropped: deque[int] = deque()
        self.timer: asyncio.TimerHandle | None = None
        self.armed = INFINITY  # when it fires
        self.speaker: Link | None = None  # whose events are being delivered
        self.closing = False
        self.ended = False  # nothing is left, and nothing comes
        self.resting: list[asyncio.Future[None]] = []  # who waits for that
        self.guarded = True
        self.guard = guard(weakref.ref(self))
        with suppress(StopIteration):
            self.guard.asend(None).send(None)  # the loop knows it from here on

    # What the core says

    def act(self, actions: list[Action]) -> None:
        """Carries out what a verb gave; what is to be told is told at the end, since a tracer may make requests."""
        reports: list[Report] = []
        for action in actions:
            if isinstance(action, Deliver):
                self.deliver(action)
            elif isinstance(action, Write):
                self.links[action.id].put(action.data)
            elif isinstance(action, Shut):
                self.shut(action.id)
            elif isinstance(action, Dial):
                self.dials[action.id] = approach = Approach(self, action, self.routes.of(action.key))
                approach.task.add_done_callback(lambda task, id=action.id: self.dialled(id, task))  # type: ignore[misc]  # default
            else:
                reports.append(action)
        if self.paused or self.writers or self.starters:
            self.look_again()
        if self.pool.wake < self.armed:
            self.arm()
        for report in reports:
            tell(self.tracer, report)

    def deliver(self, action: Deliver) -> None:
        """An event, for the inbox of its request."""
        inbox = self.inboxes.get(action.ticket)
        event = action.event
        if inbox is None:
            return
        if isinstance(event, DataReceived):
            inbox.unread += len(event.data)
        elif isinstance(event, ResponseReceived) and self.speaker is not None:
            inbox.protocol = self.speaker.protocol
            inbox.link = self.speaker
        elif isinstance(event, ResponseEnded):
            del self.inboxes[action.ticket]
            inbox.events.append(event)
            inbox.over = True
            inbox.wake()
            return
        elif isinstance(event, RequestFailed):
            del self.inboxes[action.ticket]
            inbox.fail(action)
            return
        elif isinstance(event, WindowOpened):  # that one is for the writer, who looks himself
            return
        inbox.events.append(event)
        waiter = inbox.reader
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def shut(self, id: int) -> None:
        """A connection or a dial is over for the pool."""
        link = self.links.get(id)
        if link is not None:
            self.keep_session(link)
            self.paused.discard(link)
            link.end()
        elif id in self.dials:
            self.dials[id].task.cancel()

    def look_again(self) -> None:
        """At those that wait for something which no event tells."""
        for link in list(self.paused):
            if core.wants_read(self.pool, link.id):
                self.paused.discard(link)
                link.resume()
        for inbox in self.writers:
            if self.may_go_on(inbox) and inbox.writer is not None and not inbox.writer.done():
                inbox.writer.set_result(None)
        for inbox in self.starters:
            if pool_view.protocol(self.pool, inbox.ticket):
                inbox.wake()

    def may_go_on(self, inbox: Inbox) -> bool:
        """Whether more content of a request is welcome."""
        unread = inbox.unread > self.pool.settings.stream_window // 2
        return inbox.over or unread or not pool_view.queued(self.pool, inbox.ticket)

    def spawn(self, work: Coroutine[None, None, T]) -> "asyncio.Task[T]":
        """A task of the pool's."""
        task = self.loop.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.finished)
        return task

    def finished(self, task: "asyncio.Task[T]") -> None:
        """A task is over."""
        self.tasks.discard(task)
        if not task.cancelled():
            task.exception()  # its dial tells
        self.look_at_rest()

    def arm(self) -> None:
        """The timer fires at the pool's next timeout, or earlier."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        self.armed = INFINITY
        if self.pool.wake < INFINITY and not self.ended:
            now = time.monotonic()
            seconds = min(max(0.001, self.pool.wake - now), LONGEST)  # no loop is more precise than that
            self.armed = now + seconds
            self.timer = self.loop.call_later(seconds, self.tick)

    def schedule(self, link: Link) -> None:
        """This link writes soon, one call of the loop's for all that are to write by then."""
        if not self.unwritten:
            self.loop.call_soon(self.flush)
        self.unwritten.append(link)

    def flush(self) -> None:
        """Those that are to write do."""
        links, self.unwritten = self.unwritten, deque()
        try:
            while links:
                links.popleft().flush()
        finally:
            if links:  # an interrupt: they still are to write
                self.unwritten.extendleft(reversed(links))
                self.loop.call_soon(self.flush)

    # What it is told

    def tick(self) -> None:
        """The timer has fired: a clock may have run out. What has come by then has been read."""
        self.timer = None
        self.armed = INFINITY
        now = time.monotonic()
        if now >= self.pool.wake:
            for link in list(self.links.values()):
                if link.blocked and not link.over:  # what has left meanwhile is progress
                    self.act(core.flushed(self.pool, link.id, now, link.unsent()))
            for approach in list(self.dials.values()):
                if approach.dial.deadline <= now:
                    self.act(core.dial_failed(self.pool, approach.dial.id, approach.overdue(), now))
            self.act(core.handle_timeout(self.pool, now))
        self.arm()

    def dialled(self, id: int, task: "asyncio.Task[None]") -> None:
        """A dial is over; a connection that came of it has been entered."""
        del self.dials[id]
        if task.cancelled():
            failure = Failure("ConnectError", -1, "the attempt to connect was cancelled", 0, True)
            self.act(core.dial_failed(self.pool, id, failure, time.monotonic()))
        elif (error := task.exception()) is not None:
            self.act(core.dial_failed(self.pool, id, to_failure(error), time.monotonic()))

    def enter(self, link: Link) -> None:
        """A dial has come through."""
        self.links[link.id] = link
        self.act(core.connected(self.pool, link.id, link.protocol, time.monotonic()))

    def received(self, link: Link, data: bytes) -> None:
        """Something came. Where a response has ended, those who are woken may have the next request: all leave together."""
        if link.fresh:
            link.fresh = False
            self.keep_session(link)
        self.speaker = link
        running = len(self.inboxes)
        actions = core.received(self.pool, link.id, data, time.monotonic())
        if actions:
            self.act(actions)
            if len(self.inboxes) < running and not link.over:
                link.schedule()
        if not link.over and not core.wants_read(self.pool, link.id):
            self.paused.add(link)
            link.pause()

    def begins(self, link: Link) -> bool:
        """Whether what it is to write is a request, on a connection over HTTP/1.1 that has served others."""
        return link.protocol != "h2" and pool_view.is_unsent(self.pool, link.id, link.unsent())

    def flushed(self, link: Link) -> None:
        """The kernel has taken something."""
        unsent = link.unsent()
        self.act(core.flushed(self.pool, link.id, time.monotonic(), unsent))
        if not unsent and not link.out and not link.over and core.wants_shutdown(self.pool, link.id):
            link.say_end()

    def lost(self, link: Link, clean: bool, reason: str) -> None:
        """Nothing more comes: the connection is over."""
        unsent = sum([len(data) for data in link.out])
        self.speaker = link
        self.act(core.closed(self.pool, link.id, time.monotonic(), unsent, clean, reason))

    def gone(self, link: Link) -> None:
        """Its socket is closed."""
        self.links.pop(link.id, None)
        self.paused.discard(link)
        self.sockets.discard(link.sock)
        self.look_at_rest()

    def keep_session(self, link: Link) -> None:
        """For the next TLS handshake with the same origin."""
        if link.tls is not None:
            key = link.dial.key
            self.routes.of(key).keep_session(key.origin, link.dial.protocols, link.tls)

    # Its end

    async def close(self, grace: float) -> None:
        """Ends everything, and waits until it has."""
        self.closing = True
        self.act(core.close(self.pool, time.monotonic(), grace))
        self.look_at_rest()
        while not self.ended:
            waiter = self.future()
            self.resting.append(waiter)
            await waiter

    def look_at_rest(self) -> None:
        """Whether that is all."""
        if not self.closing or self.ended or self.links or self.tasks:
            return
        self.ended = True
        self.arm()
        for waiter in self.resting:
            if not waiter.done():
                waiter.set_result(None)
        if self.guarded:
            self.guarded = False
            with suppress(StopIteration):
                self.guard.aclose().send(None)

    def is_here(self) -> bool:
        """Whether this is the loop that it belongs to, in the same process."""
        try:
            return asyncio.get_running_loop() is self.loop and os.getpid() == self.pid
        except RuntimeError:
            return False

    def future(self) -> asyncio.Future[None]:
        """For somebody who waits. Raises RuntimeError in another event loop."""
        if not self.is_here():
            raise RuntimeError(FORKED if os.getpid() != self.pid else "this request belongs to another event loop")
        return self.loop.create_future()

    def drop(self, ticket: int) -> None:
        """Nobody wants this request any more. May be called at any time, in any thread."""
        self.dropped.append(ticket)
        if os.getpid() == self.pid:
            with suppress(RuntimeError):  # its loop is closed, and so are its connections
                self.loop.call_soon_threadsafe(self.drain)

    def drain(self) -> None:
        """Cancels what was dropped."""
        while self.dropped:
            self.act(core.cancel(self.pool, self.dropped.popleft(), time.monotonic()))

    def leave(self) -> None:
        """From somewhere else: this desk is not used any more. No byte is written where that could be another's."""
        if os.getpid() != self.pid:
            logger.warning("%s", FORKED)
            graves.append(self)
            self.abandon(FORKED)
        else:
            logger.warning("%s", MOVED)
            if self.loop.is_closed():
                for link in self.links.values():
                    with suppress(RuntimeError):  # of the closed loop
                        link.transport.abort()
                self.abandon(MOVED)
            else:
                self.loop.call_soon_threadsafe(self.bury)

    def abandon(self, words: str) -> None:
        """What is left of it, without its loop."""
        for sock in self.sockets:
            sock.close()
        self.fail_all(words)

    def bury(self) -> None:
        """In its own loop: everything ends."""
        self.fail_all(MOVED)
        self.closing = True
        self.act(core.close(self.pool, time.monotonic()))
        self.look_at_rest()

    def fail_all(self, words: str) -> None:
        """All requests are over."""
        for ticket, inbox in self.inboxes.items():
            inbox.fail(Deliver(ticket, RequestFailed(0, Failure("ReadError", -1, words)), 1))
        self.inboxes = {}


async def guard(ref: "weakref.ref[Desk]") -> AsyncGenerator[None, None]:
    """What an event loop ends before it closes (`shutdown_asyncgens`): with it, a desk that nobody has closed."""
    try:
        yield
    finally:
        desk = ref()
        if desk is not None and desk.guarded:
            desk.guarded = False
            await desk.close(0.0)
