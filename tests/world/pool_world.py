"""The world of a pool: its callers, its driver, many links and model servers, and a clock that only this moves."""

import traceback
from collections import deque
from collections.abc import Callable
from heapq import heappop

from calamint import core
from calamint.core import pool as desk
from calamint.core import verbs
from calamint.core.errors import CalamintError, LocalProtocolError
from calamint.core.events import (
    DataReceived,
    Event,
    InterimReceived,
    ResponseEnded,
    ResponseReceived,
    TrailersReceived,
    Upgraded,
    WindowOpened,
)
from tests.world import laws, model_acts, model_http1, pool_laws
from tests.world.caller import Result, next_piece, shape
from tests.world.laws import Violation
from tests.world.model_frames import NAMES
from tests.world.model_http2 import Http2Model
from tests.world.plans import INFINITY
from tests.world.pool_driver import Driver
from tests.world.pool_line import Asked, Dialled, Line
from tests.world.pool_script import PoolAsk, PoolScript
from tests.world.script import Op

HORIZON = 10_000.0  # seconds, in which everything with a clock is over
STUCK = 40_000  # steps in which time stands still


class PoolWorld(Driver):
    def __init__(self, script: PoolScript, tracing: bool = False) -> None:
        super().__init__(script, tracing)
        self.ops = deque(script.ops)
        self.stuck = 0
        self.again = 0  # so often the timer was due again at once

    # --- callers

    def submit(self, ask: PoolAsk) -> None:
        now, key = self.clock.now, self.keys[ask.place % len(self.keys)]
        asked = Asked(ask, key, now)
        method, fields, content, end = shape(asked)
        target = f"host{ask.key}.test:443" if ask.style == "tunnel" else f"/{ask.key}"
        args = (method, target, fields, content, now, end, asked.deadline, core.Clocks(*ask.clocks), ask.queue)
        if self.closing_at < INFINITY:
            self.must_raise("closing", desk.submit, key, *args)
            return
        try:
            ticket, actions = desk.submit(self.pool, key, *args, ask.connect, ask.replay)
        except CalamintError as error:
            raise Violation("never raises", f"submit {ask}: {error!r}") from error
        asked.ticket = ticket
        if ticket in self.asked:
            raise Violation("one ending", f"ticket {ticket} was given twice")
        self.asked[ticket] = self.by_key[ask.key] = asked
        self.await_slot(asked)
        self.result.requests += 1
        self.counts["requests"] += 1
        self.act(f"submit {ticket} = /{ask.key} {method} {ask.style} {ask.size} to {key.origin.port}", actions)
        if not end and ask.style != "open":
            self.later(now + ask.pause, "piece", asked)
        if ask.cancel == "now":
            self.later(now, "cancel", asked)
        elif ask.cancel == "time":
            self.later(now + ask.cancel_after, "cancel", asked)

    def send_piece(self, asked: Asked) -> None:
        """The next piece of content, or its end, whether it waits or runs."""
        ask, now = asked.ask, self.clock.now
        if asked.over or asked.pieces > max(1, ask.pieces):
            return
        data, last, trailers = next_piece(asked)
        asked.active_at = now
        what = f"send_data {asked.ticket} {len(data)} end={last}"
        self.call(what, desk.send_data, asked.ticket, data, now, last and not trailers, trailers)
        if last or asked.over:
            return
        if ask.pause:
            self.later(now + ask.pause, "piece", asked)
        elif asked.line is None or not verbs.queued(asked.line.conn, asked.ref):
            self.later(now, "piece", asked)

    def hear(self, line: Line, asked: Asked, event: Event) -> None:
        asked.active_at = self.clock.now
        asked.events += not isinstance(event, WindowOpened)
        line.touched.add(asked.ref)
        if isinstance(event, DataReceived):
            laws.check_content(line, asked, event.data)
            asked.received += len(event.data)
            asked.unread += len(event.data)
            self.read(asked, len(event.data))
        elif isinstance(event, ResponseReceived):
            laws.check_head(line, asked, event.status, event.fields)
            asked.status = event.status
            if any([name == b"keep-alive" for name, _ in event.fields]) and not line.model.crimes:
                line.expiry = min(self.limits.keepalive_expiry, float(self.script.scene.habits.keep_alive))
        elif isinstance(event, InterimReceived):
            asked.interims += 1
        elif isinstance(event, Upgraded):
            asked.upgraded = True
        elif isinstance(event, TrailersReceived):
            asked.trailers = event.fields
        elif isinstance(event, WindowOpened):
            if not asked.ask.pause:
                self.later(self.clock.now, "piece", asked)
        elif isinstance(event, ResponseEnded):
            laws.check_ended(line, asked)
        if asked.ask.cancel == "events" and asked.events > asked.ask.cancel_after:
            self.later(self.clock.now, "cancel", asked)

    def read(self, asked: Asked, size: int) -> None:
        reader = asked.ask.reader
        if reader == "eager":
            self.later(self.clock.now, "read", asked, size)
        elif reader == "slow":
            self.later(self.clock.now + asked.ask.reader_pause, "read", asked, size)
        elif reader == "half" and asked.received < 5000:
            self.later(self.clock.now, "read", asked, size // 2)

    def react(self) -> None:
        """What is due by now of what callers, dials and servers were to do."""
        now = self.clock.now
        while self.agenda and self.agenda[0][0] <= now:
            _, _, what, who, size = heappop(self.agenda)
            if isinstance(who, Dialled):
                self.dialled(who)
            elif isinstance(who, Line):
                self.tire(who, size)
            elif who is not None:
                self.use(what, who, size)

    def use(self, what: str, asked: Asked, size: int) -> None:
        now, line = self.clock.now, asked.line
        if line is not None:
            line.touched.add(asked.ref)
        if what == "read":
            if not asked.over:
                asked.unread -= size
                asked.active_at = now
                asked.gave = True
            self.call(f"consume {asked.ticket} {size}", desk.consume, asked.ticket, size, now)
        elif what == "cancel":
            if not asked.over:
                asked.cancelled = True
            self.call(f"cancel {asked.ticket}", desk.cancel, asked.ticket, now)
            if not asked.over:
                raise Violation("one ending", f"request {asked.ticket} was cancelled and goes on")
        else:
            self.send_piece(asked)

    def tire(self, line: Line, known: int) -> None:
        """The server ends a connection on which it has had nothing to do."""
        model = line.model
        if line.id not in self.lines or model.closing or any([not each.ended for each in model.requests.values()]):
            return
        if isinstance(model, Http2Model):
            model_acts.goaway(model, 0, self.clock.now)
        model.closing = True
        self.result.faults["tired"] += 1
        line.pull()

    # --- mistakes

    def must_raise(self, what: str, verb: Callable[..., object], *args: object) -> None:
        """A call that is wrong raises, and nothing has changed."""
        before = self.fingerprint()
        try:
            verb(self.pool, *args)
        except (LocalProtocolError, ValueError) as error:
            if isinstance(error, ValueError) and what not in ("queue", "connect"):
                raise Violation("mistake", f"{what}: {error!r}") from error
            if self.fingerprint() != before:
                raise Violation("mistake", f"{what}: {error!r}, and something has changed") from error
            return
        except Exception as error:
            raise Violation("mistake", f"{what}: {error!r}") from error
        raise Violation("mistake", f"{what} was taken")

    def fingerprint(self) -> tuple[object, ...]:
        pool = self.pool
        sites = [(key, list(site.waiting), list(site.free), sorted(site.dials)) for key, site in pool.sites.items()]
        jobs = [(ticket, job.id, job.ref, len(job.given)) for ticket, job in pool.jobs.items()]
        values = [id(held.value) for held in pool.held.values()]
        return sites, jobs, values, list(pool.counts), pool.wake, pool.next_id, pool.next_ticket, len(pool.out)

    def err(self, name: str) -> None:
        now, key = self.clock.now, self.keys[0]
        good = (key, "GET", "/0", (), None, now)
        if name == "method":
            self.must_raise(name, desk.submit, key, "GET /", "/0", (), None, now)
        elif name == "target":
            self.must_raise(name, desk.submit, key, "GET", "a b", (), None, now)
        elif name == "field":
            self.must_raise(name, desk.submit, key, "GET", "/0", ((b"a b", b"c"),), None, now)
        elif name == "length":
            self.must_raise(name, desk.submit, key, "POST", "/0", ((b"content-length", b"x"),), b"x", now)
        elif name == "queue" and self.closing_at == INFINITY:
            self.must_raise(name, desk.submit, *good, True, INFINITY, core.Clocks(), -1.0)
        elif name == "connect" and self.closing_at == INFINITY:
            self.must_raise(name, desk.submit, *good, True, INFINITY, core.Clocks(), 1.0, -1.0)
        elif name == "over":
            for asked in [asked for asked in self.asked.values() if asked.over][:3]:
                self.must_raise(name, desk.send_data, asked.ticket, b"more", now)
        elif name == "twice":
            for asked in [*self.waiting.values(), *self.running.values()]:
                if asked.ask.style == "whole":
                    self.must_raise(name, desk.send_data, asked.ticket, b"more", now)
        elif name == "consume":
            for asked in self.running.values():
                self.must_raise(name, desk.consume, asked.ticket, asked.unread + 1, now)

    # --- what the script says

    def perform(self, op: Op) -> None:
        now = self.clock.now
        if isinstance(op.ask, PoolAsk):
            self.submit(op.ask)
            return
        if self.tracing:
            self.trace(f"* {op.kind} {op.name} {op.value}")
        self.result.faults[op.name or op.kind] += 1
        if op.kind == "mistake":
            self.err(op.name)
        elif op.kind == "close":
            self.close(op.value)
        elif op.kind == "open":
            for line in self.lines.values():
                if isinstance(line.model, Http2Model):
                    model_acts.misbehave(line.model, "settings_concurrent", int(op.value), now)
                    line.pull()
        elif self.lines:
            lines = list(self.lines.values())
            line = lines[int(op.time * 1e6) % len(lines)]
            if op.name == "restart":
                for each in [each for each in lines if each.key == line.key]:
                    self.misbehave(each, "goaway" if isinstance(each.model, Http2Model) else "close", 1)
            elif op.kind == "act":
                self.misbehave(line, op.name, int(op.value))
            else:
                self.damage(line, op)

    def misbehave(self, line: Line, name: str, value: int) -> None:
        if not isinstance(line.model, Http2Model):
            model_http1.misbehave(line.model, name, value, self.clock.now)
        elif name not in ("unasked", "break"):
            model_acts.misbehave(line.model, name, value, self.clock.now)
        line.pull()

    def damage(self, line: Line, op: Op) -> None:
        now = self.clock.now
        if op.kind == "stall_up":
            line.up.stall(now + op.value)
        elif op.kind == "stall_down":
            line.down.stall(now + op.value)
        elif op.kind == "die":
            line.die()
        elif op.kind == "break":
            line.break_link()
        else:
            line.lost = True
            line.cut_off = line.cut_off or bool(line.model.out)
            line.down.finish(now)

    def close(self, grace: float) -> None:
        self.closing_at = min(self.closing_at, self.clock.now + grace)
        self.call(f"close {grace}", desk.close, self.clock.now, grace)
        if self.waiting or self.dials:
            raise Violation("rest", f"after close {sorted(self.waiting)} wait, {sorted(self.dials)} are dialled")

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
        for line in [*self.gone, *self.lines.values()]:
            for way, counts in (("<", line.model.sent), (">", line.model.received)):
                for kind, count in counts.items():
                    name = NAMES.get(kind, "unknown") if isinstance(kind, int) else kind
                    self.result.frames[f"{way} {name}"] += count
        return self.result

    def go_on(self, until: float) -> None:
        """Until nothing is due any more, or, where keepalive and requests without clocks go on for ever, until then."""
        while True:
            time, step, line = self.next_step()
            if time == INFINITY or time > until:
                return
            if time > self.clock.now:
                self.clock.advance(time)
                self.stuck = 0
            self.stuck += 1
            self.result.steps += 1
            if self.stuck > STUCK:
                raise Violation("progress", f"time stands still at {time}: {step}")
            self.do(step, line)
            self.react()
            for each in list(self.lines.values()):
                if each.must_flush or each.outbox:
                    self.push(each)
            pool_laws.check_step(self)

    def next_step(self) -> tuple[float, str, Line | None]:
        """What is due first. Of what is due at the same time, the pool's timer comes first or last in turn."""
        best, step, whose = INFINITY, "", None
        for line in self.lines.values():
            time, what = line.next_step(desk.wants_read(self.pool, line.id))
            if time < best:
                best, step, whose = time, what, line
        wake = desk.next_timeout(self.pool)
        if wake < best or (wake <= max(best, self.clock.now) < INFINITY and self.stuck & 1):
            best, step, whose = wake, "timeout", None
        if self.agenda and self.agenda[0][0] < best:
            best, step, whose = self.agenda[0][0], "react", None
        if self.ops and self.begin + self.ops[0].time <= max(best, self.clock.now):
            best, step, whose = self.begin + self.ops[0].time, "perform", None
        return max(best, self.clock.now) if best < INFINITY else best, step, whose

    def do(self, step: str, line: Line | None) -> None:
        now = self.clock.now
        if step == "perform":
            self.perform(self.ops.popleft())
        elif step == "timeout":
            self.call("handle_timeout", desk.handle_timeout, now)
            self.again = self.again + 1 if desk.next_timeout(self.pool) <= now else 0
            if self.again > 2:  # a dial that it has just begun may be due at once
                raise Violation("timer", f"handle_timeout at {now} left the timer at {desk.next_timeout(self.pool)}")
        elif line is None:
            return  # `react` comes next
        elif step == "receive":
            data = line.down.read(now, 262_144)
            line.received_at = now
            line.heard_of_last += len(data)
            self.call(f"received {line.id} {len(data)}", desk.received, line.id, data, now)
            line.heard = line.down.delivered
            line.pull()
        elif step == "serve":
            line.model.receive(line.up.read(now, 262_144), now)
            self.enlist(line)
            self.changed.add(line)
            line.pull()
        elif step == "tick":
            line.model.tick(now)
            self.changed.add(line)
            line.pull()
        else:
            self.end_of_link(line)

    def settle(self) -> None:
        """At the end: whoever still runs must have been allowed to. Then the pool is closed, and nothing is left."""
        while self.running or self.waiting:
            for asked in [*self.running.values(), *self.waiting.values()]:
                if self.clock.now > min(asked.deadline, self.patience(asked)):
                    raise Violation(
                        "one ending", f"request {asked.ticket} never ends, its clocks are {asked.ask.clocks}"
                    )
                if not asked.over:
                    asked.cancelled = True
                    self.call(f"cancel {asked.ticket}", desk.cancel, asked.ticket, self.clock.now)
            self.go_on(self.clock.now + HORIZON)
        pool_laws.check_rest(self)
        for line in self.lines.values():
            if not line.lost:
                laws.check_rest(line)
        if self.closing_at == INFINITY:
            self.close(0.0)
        self.must_raise("closing", desk.submit, self.keys[0], "GET", "/0", (), None, self.clock.now)
        self.go_on(self.clock.now + HORIZON)
        pool_laws.check_closed(self)

    def patience(self, asked: Asked) -> float:
        """When a request has to be over that runs, or waits, and hears nothing."""
        line = asked.line
        if line is None:
            return pool_laws.end(self, asked, pool_laws.carriers(self).get(asked.ticket))
        if asked.upgraded:
            return INFINITY
        return max(asked.active_at, line.received_at, line.sent_at) + asked.longest
