"""What a pool for threads works with: the core's pool, a selector over all sockets and dials, and what came of each request.

It has no lock: whoever calls it holds the lock of the pool it belongs to, but for `select`, `tell_answer` and `drop`.
"""

import socket
import threading
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from selectors import EVENT_READ, EVENT_WRITE, BaseSelector, DefaultSelector, SelectorKey
from typing import Final, final

from calamint import core
from calamint.core import pool
from calamint.core.errors import CalamintError, ConnectError, Failure, LocalProtocolError
from calamint.core.exchange import Clocks
from calamint.core.pool_state import Action, Deliver, Dial, Key, Report, Shut, Site, Write
from calamint.core.pool_state import Pool as CorePool
from calamint.core.pool_view import queued
from calamint.core.value import INFINITY, Fields
from calamint.net.approach import Approach
from calamint.net.dial import LONGEST, Answer
from calamint.net.handshake import to_failure
from calamint.net.route import Routes
from calamint.net.tls import READ_SIZE, make_buffer
from calamint.net.wire import Wire

FRESH: Final = 0.001  # seconds for which an idle HTTP/2 connection is not looked at before it is used again

Ready = list[tuple[SelectorKey, int]]


@final
class Box:
    """What has come of one request and has not been taken, or (without a ticket) nothing but somebody who waits."""

    __slots__ = ("hub", "ticket", "events", "unread", "over", "failed", "protocol", "wire", "thread")

    def __init__(self, hub: "Hub") -> None:
        self.hub = hub
        self.ticket = 0
        self.events: list[core.Event] = []
        self.unread = 0  # bytes of content in `events` that do not count as consumed
        self.over = False
        self.failed: Deliver | None = None  # what ended it, if that was no response
        self.protocol = ""
        self.wire: Wire | None = None  # what its response came from
        self.thread = 0  # that waits, or has waited last

    def is_stirred(self) -> bool:
        """Whether there is something to take."""
        return bool(self.events) or self.over

    def is_due(self) -> bool:
        """Whether there is content to be consumed, or all is there."""
        return self.unread > 0 or self.over


@final
class Channel:
    """A connection's socket, and what has to be written to it."""

    __slots__ = ("id", "wire", "protocol", "dial", "out", "events", "young")

    def __init__(self, dial: Dial, wire: Wire, protocol: str) -> None:
        self.id: Final = dial.id
        self.wire: Final = wire
        self.protocol: Final = protocol
        self.dial: Final = dial
        self.out = b""
        self.events = 0  # that the selector watches for
        self.young = wire.tls is not None  # nothing has come yet


@final
class Hub:
    """One life of a pool: it ends with `close`, in a forked child, or when an interrupt has come between bytes and their
    record. `marked` says that something is being changed: whoever finds that mark left behind has found such an interrupt."""

    def __init__(self, core_pool: CorePool, routes: Routes) -> None:
        self.core: Final = core_pool
        self.routes: Final = routes
        self.marked = False
        self.gone = False
        self.channels: Final[dict[int, Channel]] = {}
        self.paused: Final[set[Channel]] = set()  # those that are not read from until somebody consumes
        self.dials: Final[dict[int, Approach]] = {}
        self.answers: Final[deque[tuple[Approach, Answer]]] = deque()  # of lookups, from their threads
        self.boxes: Final[dict[int, Box]] = {}
        self.dropped: Final[deque[Box]] = deque()  # by calls that nobody holds any more
        self.reports: Final[deque[Report]] = deque()
        self.todo: Final[deque[Action]] = deque()  # what the core has asked for and is not done yet
        self.busy = False  # somebody is at it
        self.speaker: Channel | None = None  # whose events are being delivered
        self.buffer: Final = make_buffer()
        self.selector: BaseSelector | None = None
        self.bell: socket.socket | None = None  # wakes who waits in the selector
        self.alarm: socket.socket | None = None  # its other end
        self.rung = False
        # Who waits: the leader in the selector, for all; the others each on a lock of their own.
        self.leader: Box | None = None
        self.below: Final[list[Box]] = []  # whose lead a handler or a tracer in the same thread has interrupted
        self.asleep = False  # it is in the selector
        self.wakes_at = INFINITY  # … until then
        self.changed = False  # something that it waits for is new to it
        self.followers: Final[dict[Box, threading.Lock]] = {}
        self.conditions: Final[dict[Box, Callable[[], bool]]] = {}  # of those who wait for more than events

    # What callers do

    def submit(
        self,
        box: Box,
        key: Key,
        method: str,
        target: str,
        fields: Fields,
        content: bytes | None,
        end: bool,
        deadline: float,
        clocks: Clocks,
        queue: float | None,
        connect: float | None,
        replay: bool,
        protocol: str,
        now: float,
    ) -> None:
        """A request; before it, what is due by now, and what an idle connection that it would get has to say. The caller's
        mistake takes the mark away: nothing has changed."""
        if self.dropped:
            self.drain(now)
        if now >= self.core.wake and self.selector is not None:  # what has come may be what a clock waits for
            self.turn([item for item in self.selector.select(0) if item[0].data is not None], now)
        site = self.core.sites.get(key)
        if site is not None and site.free:
            self.look(site, now)
        try:
            box.ticket, actions = pool.submit(
                self.core,
                key,
                method,
                target,
                fields,
                content,
                now,
                end,
                deadline,
                clocks,
                queue,
                connect,
                replay,
                protocol,
            )
        except (LocalProtocolError, ValueError):
            self.marked = False
            raise
        self.boxes[box.ticket] = box
        self.carry_out(actions, now)

    def send_data(self, box: Box, data: bytes, end: bool, trailers: Fields, now: float) -> None:
        """More of a request's content. As with `submit`, a mistake takes the mark away."""
        try:
            actions = pool.send_data(self.core, box.ticket, data, now, end, trailers)
        except LocalProtocolError:
            self.marked = False
            raise
        self.carry_out(actions, now)

    def queued(self, box: Box) -> int:
        """Bytes of its content that wait."""
        return queued(self.core, box.ticket)

    def consume(self, box: Box, size: int, now: float) -> None:
        """Content in the box, `size` bytes of it at most, counts as read."""
        size = min(size, box.unread)
        box.unread -= size
        self.carry_out(pool.consume(self.core, box.ticket, size, now), now)

    def cancel(self, box: Box, now: float) -> None:
        """The request is not wanted any more. A no-op when it is over."""
        if self.boxes.get(box.ticket) is box:
            self.carry_out(pool.cancel(self.core, box.ticket, now), now)
            box.events = []  # another one, for who takes from the old one at this moment
            box.unread = 0

    def close(self, now: float, grace: float) -> None:
        """See `core.pool.close`."""
        self.carry_out(pool.close(self.core, now, grace), now)

    def drop(self, box: Box) -> None:
        """Nobody holds its call any more: the next turn cancels it. From anywhere, without the lock."""
        self.dropped.append(box)
        self.knock()

    def drain(self, now: float) -> None:
        """Cancels what was dropped."""
        while self.dropped:
            self.cancel(self.dropped.popleft(), now)

    # The turn: read, let the clocks run, write what came out, deliver

    def turn(self, ready: Ready, now: float) -> None:
        """What the selector saw, what lookups have found, and what is due."""
        for key, events in ready:
            place = key.data
            if isinstance(place, Channel):
                if events & EVENT_READ and place.id in self.channels:
                    self.read(place, now)
                if events & EVENT_WRITE and place.id in self.channels:
                    self.write(place, now)
            elif isinstance(place, Approach):
                assert isinstance(key.fileobj, socket.socket)
                self.go_on(place, now, [key.fileobj])
            else:
                self.hush()
        if self.dials or self.answers:
            self.take_answers(now)
            for approach in list(self.dials.values()):
                if approach.dial.deadline <= now:
                    self.carry_out(pool.dial_failed(self.core, approach.dial.id, approach.overdue(), now), now)
                elif approach.next_timeout() <= now:
                    self.go_on(approach, now)
        if now >= self.core.wake:
            self.carry_out(pool.handle_timeout(self.core, now), now)
        if self.dropped:
            self.drain(now)

    def look(self, site: Site, now: float) -> None:
        """Reads from the idle connection that the next request would get: it may have been closed, or say what it should not.
        Whatever came over HTTP/1.1 is no answer to a request that has not been sent."""
        while site.free:
            held = next(reversed(site.free.values()))
            channel = self.channels[held.id]
            if now - held.idle_at < (FRESH if channel.protocol == "h2" else 0.0):  # or it is not idle
                return
            self.read(channel, now)
            if held.id in site.free:
                return

    def read(self, channel: Channel, now: float) -> None:
        """One read of the socket, and one `received`."""
        wire = channel.wire
        try:
            data = wire.receive()
        except OSError as error:
            self.lose(channel, now, False, error.strerror or str(error))
            return
        if data:
            if channel.young and wire.tls is not None:
                channel.young = False
                key = channel.dial.key
                self.routes.of(key).keep_session(key.origin, channel.dial.protocols, wire.tls)
            self.speaker = channel
            self.carry_out(pool.received(self.core, channel.id, data, now), now)
        if channel.id not in self.channels:
            return
        if wire.ended:
            self.lose(channel, now, wire.clean, wire.reason)
        elif wire.sealed:  # TLS has something to say
            self.write(channel, now)
        elif data and channel.id not in self.core.idle:
            self.watch(channel)

    def lose(self, channel: Channel, now: float, clean: bool, reason: str) -> None:
        """The transport ended."""
        unsent = len(channel.out) + channel.wire.held
        channel.wire.deaf = True
        self.carry_out(pool.closed(self.core, channel.id, now, unsent, clean, reason), now)

    def write(self, channel: Channel, now: float) -> None:
        """Writes what the kernel takes."""
        wire = channel.wire
        if (channel.out or wire.sealed) and not wire.deaf:
            channel.out = channel.out[wire.send(channel.out) :]
        left = len(channel.out) + len(wire.sealed)
        actions = pool.flushed(self.core, channel.id, now, left)
        if not left and not actions and pool.wants_shutdown(self.core, channel.id):
            wire.shut_down()
        if bool(channel.out or wire.sealed) != (channel.events >= EVENT_WRITE):
            self.watch(channel)
        if actions:
            self.carry_out(actions, now)

    def carry_out(self, actions: list[Action], now: float) -> None:
        """What the core asks for, and what follows from that: all of it in the order in which the core asked, whoever asks
        for more meanwhile."""
        todo = self.todo
        todo.extend(actions)
        if self.busy or not todo:
            return
        self.busy = True
        written: list[Channel] = []
        while todo:
            while todo:
                action = todo.popleft()
                if isinstance(action, Deliver):
                    self.deliver(action)
                elif isinstance(action, Write):
                    channel = self.channels[action.id]
                    channel.out += action.data
                    if channel not in written:
                        written.append(channel)
                elif isinstance(action, Report):
                    self.reports.append(action)
                elif isinstance(action, Shut):
                    self.shut(action.id)
                else:
                    self.dial(action, now)
            while written:
                channel = written.pop()
                if channel.id in self.channels:
                    self.write(channel, now)
        self.busy = False

    def deliver(self, action: Deliver) -> None:
        """Something happened to a request."""
        box = self.boxes.get(action.ticket)
        if box is None:
            return
        event = action.event
        if isinstance(event, core.RequestFailed):
            box.failed = action
            self.finish(box)
        else:
            box.events.append(event)
            if isinstance(event, core.DataReceived):
                box.unread += len(event.data)
            elif isinstance(event, core.ResponseEnded):
                self.finish(box)
            elif isinstance(event, core.ResponseReceived) and self.speaker is not None:
                box.protocol = self.speaker.protocol
                box.wire = self.speaker.wire
        if box is self.leader:
            self.changed = True
        elif self.followers:
            self.wake(box)

    def finish(self, box: Box) -> None:
        """Nothing follows."""
        del self.boxes[box.ticket]
        box.over = True

    def shut(self, id: int) -> None:
        """A connection or a dial is over: its last words are sent if they can be."""
        channel = self.channels.get(id)
        if channel is not None:
            self.paused.discard(channel)
            if self.selector is not None and channel.events:
                self.selector.unregister(channel.wire.sock)
                channel.events = 0
            if channel.out and not channel.wire.deaf:
                channel.wire.send(channel.out)
            channel.wire.close()
            del self.channels[id]  # what is not closed can be found
            self.changed = True
        elif id in self.dials:
            approach = self.dials[id]
            self.unwatch(approach)
            approach.close()
            del self.dials[id]

    def watch(self, channel: Channel) -> None:
        """Lets the selector watch for what the connection waits for, if that has changed."""
        wire = channel.wire
        reads = pool.wants_read(self.core, channel.id)
        events = EVENT_READ if reads else 0
        if (channel.out or wire.sealed) and not wire.deaf:
            events |= EVENT_WRITE
        if events == channel.events or self.selector is None or channel.id not in self.channels:
            return
        if not events:
            self.selector.unregister(wire.sock)
        elif channel.events:
            self.selector.modify(wire.sock, events, channel)
        else:
            self.selector.register(wire.sock, events, channel)
        channel.events = events
        self.changed = True
        if reads:
            self.paused.discard(channel)
        else:
            self.paused.add(channel)

    # Dials

    def dial(self, dial: Dial, now: float) -> None:
        """Begins one."""
        approach = Approach(dial, self.routes.of(dial.key))
        self.dials[dial.id] = approach
        try:
            if self.selector is None:
                self.open()
            approach.begin(now, self.tell_answer)
        except CalamintError as error:
            self.fail(approach, error, now)
        except OSError as error:  # too many descriptors
            words = f"could not connect to {dial.key.origin.authority()}: {error.strerror or error}"
            self.fail(approach, ConnectError(words), now)
        else:
            self.take_answers(now)
            if approach.sock is not None:
                self.go_on(approach, now)

    def open(self, selector: BaseSelector | None = None) -> None:
        """The selector, the system's best if no other, and what wakes who waits in it."""
        if self.alarm is None:
            self.alarm, self.bell = socket.socketpair()
            self.alarm.setblocking(False)
            self.bell.setblocking(False)
        selector = DefaultSelector() if selector is None else selector
        selector.register(self.alarm, EVENT_READ)
        self.selector = selector

    def tell_answer(self, approach: Approach, answer: Answer) -> None:
        """A lookup is over; in its own thread, without the lock, or at once."""
        self.answers.append((approach, answer))
        if approach.begun:
            self.knock()

    def take_answers(self, now: float) -> None:
        """Goes on with the dials whose lookups are over."""
        while self.answers:
            approach, answer = self.answers.popleft()
            if self.dials.get(approach.dial.id) is approach:
                try:
                    approach.hear(answer)
                except CalamintError as error:
                    self.fail(approach, error, now)
                else:
                    self.go_on(approach, now)

    def go_on(self, approach: Approach, now: float, ready: Iterable[socket.socket] = ()) -> None:
        """The next steps of a dial."""
        if self.dials.get(approach.dial.id) is not approach:
            return
        self.unwatch(approach)  # it may close some of its sockets
        try:
            protocol = approach.protocol() if approach.step(now, ready) else ""
        except CalamintError as error:
            self.fail(approach, error, now)
            return
        if not protocol:
            self.watch_dial(approach)
            return
        assert approach.sock is not None
        wire = Wire(approach.sock, approach.tls, self.buffer)
        wire.sealed = approach.out
        channel = Channel(approach.dial, wire, protocol)
        self.channels[channel.id] = channel
        del self.dials[channel.id]
        self.carry_out(pool.connected(self.core, channel.id, protocol, now), now)
        if channel.id in self.channels:
            self.watch(channel)
            if approach.leftover():
                self.speaker = channel
                self.carry_out(pool.received(self.core, channel.id, approach.leftover(), now), now)
        if channel.id in self.channels and wire.tls is not None:
            self.read(channel, now)  # what came with the end of the handshake

    def fail(self, approach: Approach, error: CalamintError, now: float) -> None:
        """The dial has failed."""
        self.carry_out(pool.dial_failed(self.core, approach.dial.id, to_failure(error), now), now)

    def watch_dial(self, approach: Approach) -> None:
        """Lets the selector watch the sockets of a dial."""
        assert self.selector is not None
        for sock, events in approach.wants().items():
            self.selector.register(sock, events, approach)
        self.changed = True

    def unwatch(self, approach: Approach) -> None:
        """… and not any more."""
        for sock in approach.wants():
            if self.selector is not None and sock in self.selector.get_map():
                self.selector.unregister(sock)

    # Who waits

    def lead(self, box: Box, condition: Callable[[], bool] | None, now: float) -> float:
        """This one waits for all from now on; for how many seconds."""
        if self.selector is None:
            self.open()
        if condition is not None:
            self.conditions[box] = condition
        if self.leader is not None and self.leader is not box:
            self.below.append(self.leader)
        self.leader = box
        box.thread = threading.get_ident()
        self.asleep = True
        self.changed = False
        self.wakes_at = min(self.core.wake, now + LONGEST)
        for approach in self.dials.values():
            self.wakes_at = min(self.wakes_at, approach.next_timeout())
        return max(0.0, self.wakes_at - now)

    def select(self, seconds: float) -> Ready:
        """Waits. Without the lock."""
        assert self.selector is not None
        try:
            return self.selector.select(seconds)
        except OSError:  # where a system has select() alone, another thread has closed one of its sockets
            return []

    def follow(self, box: Box, condition: Callable[[], bool] | None) -> threading.Lock:
        """This one waits until it is woken: what to wait on."""
        lock = threading.Lock()
        lock.acquire()
        self.followers[box] = lock
        box.thread = threading.get_ident()
        if condition is not None:
            self.conditions[box] = condition
        return lock

    def wake(self, box: Box) -> None:
        """Who waits for it, if anybody does, has got something, or is to lead."""
        lock = self.followers.pop(box, None)
        if lock is not None:
            self.conditions.pop(box, None)
            lock.release()
        elif box is self.leader:
            self.changed = True

    def leave(self, box: Box) -> None:
        """This one waits no longer: if it led, another one does. The newest of them, since of two in one thread it is the
        one that can."""
        self.conditions.pop(box, None)
        self.followers.pop(box, None)
        if self.leader is box:
            self.asleep = bool(self.below)
            if self.below:
                self.leader = self.below.pop()
                self.ring()  # it does not know what has changed
            else:
                self.leader = next(reversed(self.followers), None)
                if self.leader is not None:
                    self.wake(self.leader)
        if self.leader is None and (self.gone or (self.core.closing_at < INFINITY and not self.channels)):
            self.dispose()

    def settle(self) -> None:
        """The end of everything that is done under the lock: whoever waits for what is true now is told."""
        if self.gone:
            return
        if self.conditions:
            for box, condition in list(self.conditions.items()):
                if condition():
                    self.wake(box)
        if self.paused:
            for channel in list(self.paused):
                self.watch(channel)
        if self.asleep and (self.changed or self.core.wake < self.wakes_at):
            self.changed = False
            self.wakes_at = self.core.wake
            self.ring()

    def ring(self) -> None:
        """Wakes who waits in the selector, now or next."""
        if self.bell is not None and not self.rung:
            self.rung = True
            with suppress(BlockingIOError):  # it is full of lookups, and so it is heard
                self.bell.send(b"\0")

    def knock(self) -> None:
        """The same from anywhere, without the lock."""
        if self.bell is not None:
            with suppress(OSError):  # it is full, or the pool is closed
                self.bell.send(b"\0")

    def hush(self) -> None:
        """The bell has been heard."""
        assert self.alarm is not None
        self.rung = False
        with suppress(BlockingIOError):
            self.alarm.recv(READ_SIZE)

    # The end

    def scrap(self, kind: str, words: str) -> None:
        """All of it is over, in whatever state it is: descriptors are closed and nothing is written. May be repeated."""
        for channel in list(self.channels.values()):
            channel.wire.sock.close()
        for approach in list(self.dials.values()):
            approach.close()
        for ticket, box in list(self.boxes.items()):
            box.events = []
            box.failed = Deliver(ticket, core.RequestFailed(0, Failure(kind, -1, words)), 1)
            box.over = True
        self.gone = True  # the leader hears it from its box, and so do the others, one after the other
        if self.leader is None or not self.asleep:
            self.dispose()
        else:
            self.ring()

    def dispose(self) -> None:
        """Gives back the selector."""
        for each in (self.selector, self.alarm, self.bell):
            if each is not None:
                each.close()
        self.selector = None
