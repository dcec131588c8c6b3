"""The caller's side of the world: verbs, what comes of them, and a caller who reads, sends, cancels as its script says."""

import pickle
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from random import Random

from calamint import core
from calamint.core import http1_parse, http2_head
from calamint.core.errors import CalamintError, LocalProtocolError
from calamint.core.http2_state import HTTP2Connection
from calamint.core.verbs import find as core_find
from tests.world import laws
from tests.world.laws import Violation
from tests.world.link import Clock, Pipe
from tests.world.model_http1 import Http1Model
from tests.world.model_http2 import Http2Model
from tests.world.plans import INFINITY, pattern
from tests.world.script import Ask, Fields, Op, Script

Verb = Callable[..., tuple[core.Connection, bytes, list[core.Event]]]

ORIGIN = core.Origin("https", "model.test", 443)
TWICE = 53  # every so many verbs are called twice
PICKLED = 211  # and now and then the value goes through its pickle


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
        "frames",
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
        self.frames = -1  # that had come over HTTP/2 when it was sent
        self.cancelled = False


def forget_caches() -> None:
    """Caches of pure functions, for all connections: the verdict on a seed must not depend on the worlds before it."""
    for cache in (http2_head.blocks, http2_head.old_blocks, http1_parse.heads, http1_parse.old_heads):
        cache.clear()
    for asked in (http1_parse.wholes, http1_parse.requests, http1_parse.old_requests):
        asked.clear()


def may_seem_gone(script: Script) -> bool:
    """Whether a server may be silent for so long that a PING finds it gone, without an end of the link."""
    scene = script.scene
    slow = min(scene.up.bandwidth, scene.down.bandwidth) < 1e6 or scene.habits.ack_pause > 1
    acts = {op.name for op in script.ops if op.kind == "act"}
    return bool(slow or scene.faults or scene.habits.withhold or "stop_reading" in acts)


def shape(request: Request) -> tuple[str, Fields, bytes | None, bool]:
    """How it is asked for, but for its target: method, fields, the content that goes with its head, whether that is all."""
    ask = request.ask
    if ask.style == "tunnel":
        return "CONNECT", ask.fields, None, False
    if ask.style == "upgrade":
        return "GET", (*ask.fields, (b"connection", b"upgrade"), (b"upgrade", b"echo")), None, True
    if ask.method not in ("POST", "PUT", "PATCH"):
        return ask.method, ask.fields, None, True
    fields = ask.fields
    if ask.style == "declared":
        fields = (*fields, (b"content-length", str(ask.size).encode()))
    if ask.expect and ask.size:
        fields = (*fields, (b"expect", b"100-continue"))
    end = ask.style == "whole" or (ask.style == "declared" and not ask.size)
    request.given = ask.size if end else ask.size // ask.pieces
    request.pieces = 1
    return ask.method, fields, pattern(ask.key, 0, request.given), end


def next_piece(request: Request) -> tuple[bytes, bool, Fields]:
    """The next piece of content, whether it is the last, and the trailers that end it."""
    ask = request.ask
    last = request.pieces == ask.pieces
    size = ask.size - request.given if last else ask.size // ask.pieces
    data = pattern(ask.key, request.given, size)
    request.pieces += 1
    request.given += size
    return data, last, ((b"x-sum", str(ask.size).encode()),) if last and ask.style == "trailers" else ()


class Caller:
    """Uses one connection value after another; `World` (world.py) moves the clock, the link and the server."""

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
        self.reset: list[Request] = []  # by this side, since the last check
        self.may_seem_gone = may_seem_gone(script)
        self.alone = scene.protocol != "h2" and self.settings.pipeline == 1  # all output is of one request
        self.stuck = 0
        self.barren = 0  # connections in a row that took no request
        self.protocol = scene.protocol
        forget_caches()

    def meet(self) -> None:
        """A new connection, link and server; nothing of the one before stays."""
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
        self.budget = self.settings.output_budget  # the largest since the output was within it
        self.heard = 0  # bytes that the client had before those that it is reading
        self.buried = False
        self.closing = False  # this side wanted the end
        self.lost = False  # the link ended, or will not deliver what was sent
        self.cut_off = False  # bytes were lost
        self.received_at = self.sent_at = self.met_at = now
        self.emptied_at = now  # output last left
        self.reset.clear()
        conn, out = core.connect(scene.protocol, ORIGIN, self.settings, now)
        self.conn: core.Connection = conn
        self.put_out(out)

    # --- verbs

    def put_out(self, out: bytes) -> None:
        if out:
            self.outbox += out
            self.must_flush = True
            self.sent_at = self.clock.now
            self.model.note_sent(len(out), self.down.delivered, self.heard, self.clock.now)

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
        if outcome in ("StreamClosed", "ReadTimeout", "WriteTimeout", "DeadlineExceeded"):
            self.reset.append(request)
        self.result.outcomes[outcome] += 1

    # --- what the caller does

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
        target, protocol = f"/{ask.key}", ""
        method, fields, content, end = shape(request)
        if self.protocol != "h2":
            fields = tuple([pair for pair in fields if pair[0] != b"te"])
        if ask.style == "tunnel":
            conn = self.conn
            if isinstance(conn, HTTP2Connection) and conn.peer.connects and ask.key % 2:
                protocol = "websocket"
            else:
                target = f"host{ask.key}.test:443"
        clocks = core.Clocks(*ask.clocks)
        verb = core.request
        args = (method, target, fields, content, now, end, request.deadline, clocks, protocol)
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
        request.frames = value.frames if isinstance(value, HTTP2Connection) else -1
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
        data, last, trailers = next_piece(request)
        try:
            value, out = core.send_data(self.conn, ref, data, now, last and not trailers, trailers)
        except CalamintError as error:
            raise Violation("never raises", f"send_data {ref}: {error!r}") from error
        request.active_at = now
        self.conn = value
        self.put_out(out)
        if self.tracing:
            self.trace(f"send_data {ref} {len(data)} end={last} → {len(out)} bytes")
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
                if self.protocol != "h2":
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


def brief(event: core.Event) -> str:
    name = type(event).__name__
    ref = getattr(event, "ref", "")
    if isinstance(event, core.DataReceived):
        return f"{name} {ref} {len(event.data)}"
    if isinstance(event, core.RequestFailed):
        return f"{name} {ref} {event.failure.kind} {event.failure.message[:80]}"
    return f"{name} {ref}".strip()
