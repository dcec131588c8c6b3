"""The world: one client connection after another, the model server, the link, the caller, and a clock that only this moves.

The value is used as a driver uses it: receive; write what came out; `flush` once all is in the link's send buffer;
`handle_timeout` at `next_timeout`; `closed` when the link ends.
"""

import traceback
from random import Random

from calamint import core
from calamint.core.http2_state import HTTP2Connection
from tests.world import laws, model_acts, model_http1
from tests.world.caller import Caller, Result, brief
from tests.world.laws import Violation
from tests.world.model_frames import NAMES
from tests.world.model_http1 import Http1Model
from tests.world.model_http2 import Http2Model
from tests.world.plans import INFINITY
from tests.world.script import Op, Script

HORIZON = 10_000.0  # seconds, in which everything with a clock is over
MOST_STEPS = 300_000
STUCK = 40_000  # steps in which time stands still
RECUT = 31  # every so many bytes received are cut differently as well


class World(Caller):
    def __init__(self, script: Script, tracing: bool = False) -> None:
        super().__init__(script, tracing)
        self.moved = (0, 0)
        self.start_life()

    # --- a connection's life

    def start_life(self) -> None:
        self.meet()
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

    # --- the link

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
                self.emptied_at = now
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

    # --- time

    def run(self) -> Result:
        try:
            self.go_on(self.begin + HORIZON)
            self.settle()
        except Violation as violation:
            self.result.law, self.result.text = violation.law, violation.text
        except Exception as error:
            if "calamint" not in traceback.extract_tb(error.__traceback__)[-1].filename:
                raise  # a mistake of the world
            self.result.law, self.result.text = "never raises", repr(error)
        self.result.virtual = self.clock.now - self.begin
        return self.result

    def movement(self) -> tuple[int, int]:
        """Requests that have ended, and bytes of content that have moved for those that have not."""
        snapshot = core.snapshot(self.conn, self.clock.now)
        return sum(self.result.outcomes.values()), sum([item.sent + item.received for item in snapshot.requests])

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
            if self.result.steps % MOST_STEPS == 0:  # content may crawl, an octet at a time, but something has to move
                moved, self.moved = self.moved, self.movement()
                self.stuck += STUCK if moved == self.moved else 0
            if self.stuck > STUCK:
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
        conn = self.conn
        if self.result.steps % (50 if conn.status == 0 else 5) == 0:  # what drains is soon over
            laws.check_all(self)
        if isinstance(conn, HTTP2Connection) and conn.status == 1 and not conn.live and not conn.control.unsent:
            self.closing = True
            self.call("close", core.close, self.clock.now)

    def settle(self) -> None:
        """At the end: whoever still runs must have been allowed to; cancelled, they leave both ledgers at rest."""
        while True:
            for request in list(self.active.values()):
                if (
                    request.ref not in self.active
                ):  # it went with the one before it, in whose turn its clocks stood still
                    continue
                moved_at = max(request.active_at, self.received_at, self.sent_at)  # a byte at a time may take for ever
                clocks = INFINITY if request.upgraded else moved_at + request.longest
                if self.clock.now > min(request.deadline, clocks):
                    raise Violation("silence", f"request {request.ref} never ends, its clocks are {request.ask.clocks}")
                request.cancelled = self.closing = True
                self.call("cancel", core.cancel, request.ref, self.clock.now)
            self.push()
            self.closing = False
            self.go_on(self.clock.now + HORIZON)
            if not self.active:  # those that waited for a slot may have no clocks either
                break
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
