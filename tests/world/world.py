"""The world: one client connection after another, the model server, the link, the caller, and a clock that only this moves.

The value is used as a driver uses it: receive; write what came out; `flush` once all is in the link's send buffer;
`handle_timeout` at `next_timeout`; `closed` when the link ends.
"""

import pickle
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from random import Random

from calamint import core
from calamint.core import http2_head
from calamint.core.errors import CalamintError, LocalProtocolError
from calamint.core.http2_state import HTTP2Connection
from calamint.core.verbs import find as core_find
from tests.world import laws, model_acts, model_http1
from tests.world.laws import Violation
from tests.world.link import Clock, Pipe
from tests.world.model_frames import NAMES
from tests.world.model_http1 import Http1Model
from tests.world.model_http2 import Http2Model
from tests.world.plans import INFINITY, pattern
from tests.world.script import Ask, Op, Script

Verb = Callable[..., tuple[core.Connection, bytes, list[core.Event]]]

ORIGIN = core.Origin("https", "model.test", 443)
HORIZON = 10_000.0  # seconds, in which everything with a clock is over
MOST_STEPS = 300_000
STUCK = 40_000  # steps in which time stands still
TWICE = 53  # every so many verbs are called twice
RECUT = 31  # every so many bytes received are cut differently as well
PICKLED = 211


@dataclass(slots=True)
class Result:
    name: str
    seed: int
    requests: int = 0
    steps: int = 0
    virtual: float = 0.0
    lives: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    frames: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    law: str = ""
    text: str = ""
    trace: list[str] = field(default_factory=list)


class Request:
    """What the caller knows of a request."""

    __slots__ = (
        "active_at",
        "ask",
        "cancelled",
        "deadline",
        "events",
        "gave",
        "given",
        "grown",
        "interims",
        "issued_at",
        "life",
        "limits",
        "longest",
        "pieces",
        "received",
        "ref",
        "shortest",
        "status",
        "trailers",
        "unread",
        "upgraded",
    )

    def __init__(self, ask: Ask, now: float, life: int) -> None:
        self.ask = ask
        self.ref = 0
        self.life = life
        self.issued_at = self.active_at = now
        self.deadline = now + ask.timeout
        self.limits = tuple([INFINITY if limit is None else limit for limit in ask.clocks])
        self.longest, self.shortest = max(self.limits), min(self.limits)
        if ask.expect:
            self.longest += 1.0  # in which the content is held back
        self.status = 0
        self.received = 0
        self.unread = 0
        self.gave = False  # something back to the window
        self.given = 0  # of its own content
        self.grown = 0  # its receive window, by the caller's wish
        self.upgraded = False
        self.pieces = 0
        self.interims = 0
        self.trailers: tuple[tuple[bytes, bytes], ...] = ()
        self.events = 0
        self.cancelled = False


class World:
    def __init__(self, script: Script, tracing: bool = False) -> None:
        self.script = script
        scene = script.scene
        self.rng = Random(script.seed * 31 + 5)
        self.clock = Clock()
        self.result = Result(script.name, script.seed)
        self.tracing = tracing
        self.waiting: deque[Ask] = deque()
        self.ops = deque(script.ops)
        self.begin = self.clock.now
        self.settings = core.Settings(**scene.settings)
        self.verbs = 0
        self.agenda: list[tuple[float, int, str, Request, int]] = []
        self.count = 0
        self.active: dict[int, Request] = {}
        self.touched: set[int] = set()
        slow = min(scene.up.bandwidth, scene.down.bandwidth) < 1e6 or scene.habits.ack_pause > 1
        acts = {op.name for op in script.ops if op.kind == "act"}
        self.may_seem_gone = bool(slow or scene.faults or scene.habits.withhold or "stop_reading" in acts)
        self.stuck = 0
        self.barren = 0  # connections in a row that took no request
        # Caches of pure functions, for all connections: the verdict on a seed must not depend on the worlds before it.
        http2_head.blocks.clear()
        http2_head.old_blocks.clear()
        self.start_life()

    # --- a connection's life

    def start_life(self) -> None:
        scene, now = self.script.scene, self.clock.now
        self.result.lives += 1
        dice = Random(self.script.seed * 1_000_081 + self.result.lives)
        self.model: Http2Model | Http1Model
        if scene.protocol == "h2":
            self.model = Http2Model(dice, scene.habits, now)
        else:
            self.model = Http1Model(dice, scene.habits, now)
        self.up, self.down = (
            Pipe(scene.up, Random(dice.getrandbits(30))),
            Pipe(scene.down, Random(dice.getrandbits(30))),
        )
        self.outbox = bytearray()
        self.must_flush = False
        self.unsent = 0
        self.widest = self.settings.connection_window
        self.heard = 0  # bytes that the client had before those that it is reading
        self.buried = False
        self.closing = False  # this side wanted the end
        self.lost = False  # the link ended, or will not deliver what was sent
        self.cut_off = False  # bytes were lost
        self.received_at = self.sent_at = now
        conn, out = core.connect(scene.protocol, ORIGIN, self.settings, now)
        self.conn: core.Connection = conn
        self.put_out(out)
        self.push()
        self.pull()

    def end_life(self) -> None:
        """The core has closed the connection: what is in the output still leaves, and the socket is closed."""
        laws.check_closed(self)
        model = self.model
        if not self.lost and not self.down.finished:
            now = self.clock.now
            while self.outbox or not self.up.empty:
                size = self.up.write(bytes(self.outbox[:65536]), now)
                del self.outbox[:size]
                if not size and self.up.empty:
                    break
                now = max(now, self.up.next_arrival())
                model.receive(self.up.read(now, 1 << 20), now)
            model.end(now)
        if model.violations:
            raise Violation("server", model.violations[0])
        self.count_frames()
        self.buried = True
        self.barren = 0 if self.model.requests else self.barren + 1
        if self.barren > 3:
            self.waiting.clear()  # nobody there will ever take them

    def count_frames(self) -> None:
        for way, counts in (("<", self.model.sent), (">", self.model.received)):
            for kind, count in counts.items():
                name = NAMES.get(kind, "unknown") if isinstance(kind, int) else kind
                self.result.frames[f"{way} {name}"] += count

    # --- the client's side of the link

    def put_out(self, out: bytes) -> None:
        if out:
            self.outbox += out
            self.must_flush = True
            self.sent_at = self.clock.now
            self.model.note_sent(len(out), self.down.delivered, self.heard, self.clock.now)

    def push(self) -> None:
        """Write what the link takes; once all is taken, say so, and write what comes then."""
        now = self.clock.now
        for _ in range(10_000):
            while self.outbox:
                room = self.up.room
                if room <= 0:
                    self.flush_some(now)
                    return
                del self.outbox[: self.up.write(bytes(self.outbox[:room]), now)]
            if not self.must_flush:
                return
            self.must_flush = False
            self.unsent = 0
            self.call("flush", core.flush, now)
            self.react()
        raise Violation("progress", "flush has output for ever")

    def flush_some(self, now: float) -> None:
        """Not all fits: the rest waits outside of the link."""
        unsent = len(self.outbox)
        if unsent != self.unsent:
            self.unsent = unsent
            self.call("flush", core.flush, now, unsent)
            self.react()

    def pull(self) -> None:
        """What the server has to say goes on its way."""
        model, down = self.model, self.down
        if down.finished or down.broken:
            return
        while True:
            room = down.room
            data = model.take(room) if room > 0 else b""
            if not data:
                break
            down.write(data, self.clock.now)
        if isinstance(model, Http1Model) and model.broken:
            self.break_link()
        elif model.closing and not model.out and room > 0:
            down.finish(self.clock.now)

    def break_link(self) -> None:
        self.up.break_()
        self.down.break_()
        self.lost = self.cut_off = True

    # --- verbs

    def call(self, name: str, verb: Verb, *args: object) -> None:
        """A verb that gives a value, output and events; now and then twice, or on a pickle of the value."""
        conn = self.conn
        self.verbs += 1
        again = self.verbs % TWICE == 0
        before = b""
        if again:
            before = pickle.dumps(conn)
        if self.verbs % PICKLED == 0:
            twin = pickle.loads(pickle.dumps(conn))
            if twin != conn:
                raise Violation("pickle", f"before {name}")
            conn = twin
        try:
            step = verb(conn, *args)
            if again:
                laws.check_same(before, conn, step, verb(conn, *args))
        except Violation:
            raise
        except Exception as error:
            raise Violation("never raises", f"{name}: {error!r}") from error
        self.conn = step[0]
        self.put_out(step[1])
        if self.tracing:
            self.trace(f"{name} → {len(step[1])} bytes, {[brief(event) for event in step[2]]}")
        if step[2]:
            self.take_events(step[2])

    def trace(self, line: str) -> None:
        self.result.trace.append(f"{self.clock.now - self.begin:10.4f}  {line}")

    def take_events(self, events: list[core.Event]) -> None:
        closes = isinstance(events[-1], core.ConnectionClosed)
        now = self.clock.now
        for event in events:
            ref = getattr(event, "ref", None)
            if ref is None:
                continue
            request = self.active.get(ref)
            if request is None:
                raise Violation("one ending", f"after its end: {event}")
            self.touched.add(ref)
            request.events += 1
            if not isinstance(event, (core.RequestFailed, core.PushPromised)):
                request.active_at = now
            if isinstance(event, core.DataReceived):
                laws.check_content(self, request, event.data)
                request.received += len(event.data)
                request.unread += len(event.data)
                self.read(request, len(event.data))
            elif isinstance(event, core.ResponseReceived):
                laws.check_head(self, request, event.status, event.fields)
                request.status = event.status
            elif isinstance(event, core.Upgraded):
                request.upgraded = True
            elif isinstance(event, core.PushPromised):
                self.promise(request, event)
            elif isinstance(event, core.InterimReceived):
                request.interims += 1
            elif isinstance(event, core.TrailersReceived):
                request.trailers = event.fields
            elif isinstance(event, core.WindowOpened):
                if not request.ask.pause:
                    self.later(now, "piece", request)
            elif isinstance(event, core.ResponseEnded):
                laws.check_ended(self, request)
                self.over(request, "ended")
                continue
            elif isinstance(event, core.RequestFailed):
                laws.check_failed(self, request, event.failure, closes)
                self.over(request, event.failure.kind + (" (unprocessed)" if event.failure.unprocessed else ""))
                continue
            if request.ask.cancel == "events" and request.events > request.ask.cancel_after:
                self.later(now, "cancel", request)

    def promise(self, parent: Request, event: core.PushPromised) -> None:
        ask = Ask(int(event.target[1:]), event.method, clocks=parent.ask.clocks, timeout=0.0, cancel="")
        pushed = Request(ask, self.clock.now, self.result.lives)
        pushed.ref, pushed.deadline = event.promised, parent.deadline
        ask.reader, ask.cancel = parent.ask.reader, "events" if ask.key % 5 == 0 else ""
        if pushed.ref in self.active or pushed.ref % 2:
            raise Violation("index", f"stream {pushed.ref} was promised twice")
        self.active[pushed.ref] = pushed
        self.touched.add(pushed.ref)
        self.result.faults["push"] += 1

    def over(self, request: Request, outcome: str) -> None:
        del self.active[request.ref]
        self.result.outcomes[outcome] += 1

    # --- the caller

    def later(self, time: float, what: str, request: Request, size: int = 0) -> None:
        self.count += 1
        heappush(self.agenda, (time, self.count, what, request, size))

    def read(self, request: Request, size: int) -> None:
        reader = request.ask.reader
        if reader == "eager":
            self.later(self.clock.now, "read", request, size)
        elif reader == "slow":
            self.later(self.clock.now + request.ask.reader_pause, "read", request, size)
        elif reader == "half" and request.received < 5000:
            self.later(self.clock.now, "read", request, size // 2)

    def issue(self, ask: Ask) -> None:
        now = self.clock.now
        request = Request(ask, now, self.result.lives)
        method, target, fields, protocol = ask.method, f"/{ask.key}", ask.fields, ""
        if self.script.scene.protocol != "h2":
            fields = tuple([pair for pair in fields if pair[0] != b"te"])
        content: bytes | None = None
        end = True
        if ask.style == "tunnel":
            method, end = "CONNECT", False
            conn = self.conn
            if isinstance(conn, HTTP2Connection) and conn.peer.connects and ask.key % 2:
                protocol = "websocket"
            else:
                target = f"host{ask.key}.test:443"
        elif ask.style == "upgrade":
            method, fields = "GET", (*fields, (b"connection", b"upgrade"), (b"upgrade", b"echo"))
        elif ask.method in ("POST", "PUT", "PATCH"):
            if ask.style == "declared":
                fields = (*fields, (b"content-length", str(ask.size).encode()))
            if ask.expect and ask.size:
                fields = (*fields, (b"expect", b"100-continue"))
            end = ask.style == "whole" or (ask.style == "declared" and not ask.size)
            first = ask.size if end else ask.size // ask.pieces
            content = pattern(ask.key, 0, first)
            request.given = first
            request.pieces = 1
        clocks = core.Clocks(*ask.clocks)
        verb = core.request
        args = (method, target, fields, content, now, end, request.deadline, clocks)
        if protocol:
            args = (*args, protocol)  # type: ignore[assignment]
        try:
            value, out, ref = verb(self.conn, *args)
            self.verbs += 1
            if self.verbs % TWICE == 0 and verb(self.conn, *args) != (value, out, ref):
                raise Violation("purity", "request gave two results")
        except CalamintError as error:
            raise Violation("never raises", f"request {ask}: {error!r}") from error
        if ref in self.active:
            raise Violation("index", f"ref {ref} was given twice")
        request.ref = ref
        self.conn = value
        self.active[ref] = request
        self.touched.add(ref)
        self.result.requests += 1
        self.put_out(out)
        if self.tracing:
            self.trace(f"request {ref} = /{ask.key} {ask.method} {ask.style} {ask.size} → {len(out)} bytes")
        if not end and ask.style not in ("open", "upgrade"):
            if ask.pause:
                self.later(now + ask.pause, "piece", request)
            elif not core.queued(value, ref):
                self.later(now, "piece", request)
        if ask.cancel == "now":
            self.later(now, "cancel", request)
        elif ask.cancel == "time":
            self.later(now + ask.cancel_after, "cancel", request)

    def send_piece(self, request: Request) -> None:
        """The next piece of content, or its end."""
        ask, ref, now = request.ask, request.ref, self.clock.now
        if ask.style == "open" or request.pieces > max(1, ask.pieces):
            return
        last = request.pieces == ask.pieces
        size = ask.size - request.given if last else ask.size // ask.pieces
        data = pattern(ask.key, request.given, size)
        trailers = ((b"x-sum", str(ask.size).encode()),) if last and ask.style == "trailers" else ()
        request.pieces += 1
        try:
            value, out = core.send_data(self.conn, ref, data, now, last and not trailers, trailers)
        except CalamintError as error:
            raise Violation("never raises", f"send_data {ref}: {error!r}") from error
        request.given += size
        request.active_at = now
        self.conn = value
        self.put_out(out)
        if self.tracing:
            self.trace(f"send_data {ref} {size} end={last} → {len(out)} bytes")
        if not last:
            if ask.pause:
                self.later(now + ask.pause, "piece", request)
            elif not core.queued(value, ref):
                self.later(now, "piece", request)

    def react(self) -> None:
        """What the caller does at once."""
        now = self.clock.now
        while self.agenda and self.agenda[0][0] <= now:
            _, _, what, request, size = heappop(self.agenda)
            if request.life != self.result.lives or request.ref not in self.active:
                continue
            self.touched.add(request.ref)
            if what == "read":
                request.unread -= size
                request.active_at = now
                request.gave = True
                self.call("consume", core.consume, request.ref, size, now)
            elif what == "cancel":
                request.cancelled = True
                if self.script.scene.protocol != "h2":
                    self.closing = True
                self.call("cancel", core.cancel, request.ref, now)
                if request.ref in self.active:
                    raise Violation("one ending", f"request {request.ref} was cancelled and goes on")
            else:
                self.send_piece(request)

    def admit(self) -> None:
        """Requests that wait go out while there are slots."""
        while self.waiting and core.capacity(self.conn) > 0:
            self.issue(self.waiting.popleft())
        if self.waiting and self.verbs % 97 == 0:
            conn = self.conn
            try:
                core.request(conn, "GET", "/99999999", (), None, self.clock.now)
            except LocalProtocolError:
                return
            raise Violation("slots", "capacity is 0 and a request was taken")

    # --- what the script says

    def perform(self, op: Op) -> None:
        now = self.clock.now
        if self.tracing:
            self.trace(f"* {op.kind} {op.name} {op.value if op.ask is None else op.ask.key}")
        if op.kind == "request" and op.ask is not None:
            self.waiting.append(op.ask)
            return
        self.result.faults[op.name or op.kind] += 1
        if op.kind == "act":
            if isinstance(self.model, Http2Model):
                model_acts.misbehave(self.model, op.name, int(op.value), now)
            else:
                model_http1.misbehave(self.model, op.name, int(op.value), now)
            self.pull()
        elif op.kind == "stall_up":
            self.up.stall(now + op.value)
        elif op.kind == "stall_down":
            self.down.stall(now + op.value)
        elif op.kind == "die":
            self.up.die()
            self.down.die()
            self.lost = self.cut_off = True
        elif op.kind == "break":
            self.break_link()
        elif op.kind in ("end", "half"):
            self.lost = True
            self.cut_off = self.cut_off or bool(self.model.out)
            self.down.finish(now)
        elif op.kind == "close":
            self.closing = True
            self.call("close", core.close, now)
        elif isinstance(self.conn, HTTP2Connection):
            self.use(op, now)

    def use(self, op: Op, now: float) -> None:
        """What else a caller of HTTP/2 may do."""
        conn = self.conn
        ref = next(iter(self.active), 0)
        try:
            if op.kind == "ping":
                value, out = core.ping(conn, now)
            elif op.kind == "prioritize":
                value, out = core.prioritize(conn, ref, int(op.value) % 8, op.value > 3, now)
            elif op.kind == "grow_window":
                value, out = core.grow_window(conn, ref, int(op.value), now)
                before, after = core_find(conn, ref), core_find(value, ref)
                if before is not None and after is not None:
                    self.active[ref].grown += after.recv_window - before.recv_window
            else:
                settings = dict(self.script.scene.settings)
                settings[op.name] = int(op.value)
                new = core.Settings(**settings)
                value, out = core.put_settings(conn, new, now)
                self.widest = max(self.widest, new.connection_window)
        except CalamintError as error:
            raise Violation("never raises", f"{op.kind}: {error!r}") from error
        self.conn = value
        self.put_out(out)

    # --- time

    def run(self) -> Result:
        try:
            self.go_on(self.begin + HORIZON)
            self.settle()
        except Violation as violation:
            self.result.law, self.result.text = violation.law, violation.text
        self.result.virtual = self.clock.now - self.begin
        return self.result

    def go_on(self, until: float) -> None:
        """Until nothing is due any more, or, where keepalive and requests without clocks go on for ever, until then."""
        while True:
            time, step = self.next_step()
            if time == INFINITY or time > until:
                return
            if time > self.clock.now:
                self.clock.advance(time)
                self.stuck = 0
            self.stuck += 1
            self.result.steps += 1
            if self.stuck > STUCK or self.result.steps > MOST_STEPS:
                raise Violation("progress", f"time stands still at {time}: {step}")
            self.do(step)
            self.react()
            self.admit()
            self.react()
            self.push()
            self.check()

    def next_step(self) -> tuple[float, str]:
        """What is due first. Of what is due at the same time, the dice choose between two orders."""
        best, step = INFINITY, ""
        if not self.buried:
            best, step = self.down.next_arrival(), "receive"
            if best < INFINITY and not core.wants_read(self.conn):
                best = INFINITY
            time = self.up.next_arrival()
            if time < best and self.model.reading:
                best, step = time, "serve"
            time = self.model.next_timeout()
            if time < best or (time == best and self.stuck & 1):
                best, step = time, "tick"
            time = core.next_timeout(self.conn)
            if time < best:
                best, step = time, "timeout"
        if self.agenda and self.agenda[0][0] < best:
            best, step = self.agenda[0][0], "react"
        if self.ops:
            time = self.begin + self.ops[0].time
            if time <= best or time <= self.clock.now:
                best, step = time, "perform"
        if best == INFINITY or best > self.clock.now:
            time = self.now_due()
            if time < best:
                best, step = time, "end"
        return max(best, self.clock.now) if best < INFINITY else best, step

    def now_due(self) -> float:
        """When the end of the link shows."""
        if core.is_closed(self.conn):
            return INFINITY if self.buried and not self.waiting else self.clock.now
        if self.down.broken:
            return self.clock.now
        return self.down.end_arrival()

    def do(self, step: str) -> None:
        now = self.clock.now
        if step == "receive":
            self.client_reads(now)
        elif step == "serve":
            data = self.up.read(now, 262_144)
            self.model.receive(data, now)
            self.pull()
        elif step == "tick":
            self.model.tick(now)
            self.pull()
        elif step == "timeout":
            wake = core.next_timeout(self.conn)
            if self.script.scene.protocol != "h2":
                self.closing = True  # whatever runs out ends the connection
            self.call("handle_timeout", core.handle_timeout, now)
            if core.next_timeout(self.conn) <= wake and now >= wake and not core.is_closed(self.conn):
                raise Violation("silence", f"handle_timeout at {now} left the timer at {core.next_timeout(self.conn)}")
            self.closing = self.closing and core.is_closed(self.conn)
        elif step == "perform":
            self.perform(self.ops.popleft())
        elif step == "end":
            self.end(now)

    def client_reads(self, now: float) -> None:
        data = self.down.read(now, 262_144)
        old = self.conn
        self.received_at = now
        split = self.verbs % RECUT == 0 and 1 < len(data) < 3000
        if split:
            dice = Random(self.rng.getrandbits(30))
            events: list[core.Event] = core.receive(old, data, now)[2]
            whole = core.receive(old, data, now)[0]
            laws.check_split(old, data, now, dice, whole, events)
        self.call(f"receive {len(data)}" if self.tracing else "receive", core.receive, data, now)
        self.heard = self.down.delivered
        self.pull()

    def end(self, now: float) -> None:
        """The link ended, or the client closed it."""
        if core.is_closed(self.conn):
            if not self.buried:
                self.end_life()
            if self.waiting:
                self.start_life()
            return
        clean = not self.down.broken
        unsent = len(self.outbox)
        self.lost = self.lost or self.down.broken
        ended = self.model.closing
        try:
            conn, events = core.closed(self.conn, now, unsent=unsent, clean=clean)
        except Exception as error:
            raise Violation("never raises", f"closed: {error!r}") from error
        self.conn = conn
        if self.tracing:
            self.trace(f"closed clean={clean} {ended} → {[brief(event) for event in events]}")
        self.take_events(events)
        if not core.is_closed(conn):
            raise Violation("one ending", "the link ended and the connection is not closed")
        self.outbox.clear()
        self.up.die()
        self.down.die()
        self.lost = True

    # --- the laws

    def check(self) -> None:
        if self.touched or self.model.violations or self.result.steps % 8 == 0:
            laws.check_step(self, self.touched)
            self.touched.clear()
        if self.result.steps % 50 == 0:
            laws.check_all(self)
        conn = self.conn
        if isinstance(conn, HTTP2Connection) and conn.status == 1 and not conn.live and not conn.control.unsent:
            self.closing = True
            self.call("close", core.close, self.clock.now)

    def settle(self) -> None:
        """At the end: whoever still runs must have been allowed to; cancelled, they leave both ledgers at rest."""
        for request in list(self.active.values()):
            if request.deadline < INFINITY or (request.longest < INFINITY and not request.upgraded):
                raise Violation("silence", f"request {request.ref} never ends, its clocks are {request.ask.clocks}")
            if request.ref in self.active:
                request.cancelled = self.closing = True
                self.call("cancel", core.cancel, request.ref, self.clock.now)
        self.push()
        self.closing = False
        self.go_on(self.clock.now + HORIZON)
        if self.waiting and not self.nowhere():
            raise Violation("progress", f"{len(self.waiting)} requests wait, capacity is {core.capacity(self.conn)}")
        laws.check_rest(self)
        if not self.buried:
            self.closing = True
            self.call("close", core.close, self.clock.now)
            self.end_life()

    def nowhere(self) -> bool:
        """Whether the server takes nobody, by its own word or by its silence."""
        if self.cut_off or core.is_closed(self.conn) or not isinstance(self.conn, HTTP2Connection):
            return True
        return self.conn.peer.limit == 0 or bool(self.conn.control.unconfirmed)


def brief(event: core.Event) -> str:
    name = type(event).__name__
    ref = getattr(event, "ref", "")
    if isinstance(event, core.DataReceived):
        return f"{name} {ref} {len(event.data)}"
    if isinstance(event, core.RequestFailed):
        return f"{name} {ref} {event.failure.kind} {event.failure.message[:80]}"
    return f"{name} {ref}".strip()
