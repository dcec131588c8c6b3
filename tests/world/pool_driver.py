"""A driver of the pool on virtual time: it dials, writes, shuts and delivers as the pool says, and keeps books of its own.

It asks the pool for nothing but its actions; what it reads there (`sync`) it compares with what it has seen itself.
"""

from collections import Counter
from collections.abc import Callable
from heapq import heappush
from operator import itemgetter
from random import Random

from calamint.core import pool as desk
from calamint.core.errors import Failure
from calamint.core.events import Event, RequestFailed, ResponseEnded
from calamint.core.http2_state import HTTP2Connection
from calamint.core.pool_state import H1, Action, Deliver, Dial, Held, Key, Limits, Pool, Shut, Write
from calamint.core.url import Origin
from tests.world import pool_laws
from tests.world.caller import Result, brief, forget_caches, may_seem_gone
from tests.world.laws import Violation
from tests.world.link import Clock
from tests.world.plans import INFINITY
from tests.world.pool_line import Asked, Attempt, Dialled, Line
from tests.world.pool_script import Place, PoolScript

from calamint import core  # isort: skip

Verb = Callable[..., list[Action]]
NOTHING: list[Action] = []


class Driver:
    """Lines, dials and requests by their numbers; `PoolWorld` (pool_world.py) moves the clock and plays the callers."""

    def __init__(self, script: PoolScript, tracing: bool = False) -> None:
        forget_caches()
        self.script = script
        scene = script.scene
        self.clock = Clock()
        self.begin = self.clock.now
        self.result = Result(script.name, script.seed)
        self.tracing = tracing
        self.limits = Limits(**scene.limits)  # type: ignore[arg-type]  # drawn by name
        self.settings = core.Settings(**scene.settings)
        self.pool = Pool(self.limits, self.settings)
        self.places: dict[Key, Place] = {}
        for number, place in enumerate(scene.places):
            scheme = "http" if place.protocols == (H1,) else "https"
            origin = Origin(scheme, "model.test", 8000 + number)
            self.places[Key(origin, protocols=place.protocols)] = place
        self.keys = list(self.places)
        self.agenda: list[tuple[float, int, str, Asked | Dialled | Line | None, int]] = []
        self.count = 0
        self.lines: dict[int, Line] = {}
        self.gone: list[Line] = []
        self.dials: dict[int, Dialled] = {}
        self.asked: dict[int, Asked] = {}  # by ticket
        self.by_key: dict[int, Asked] = {}
        self.running: dict[int, Asked] = {}
        self.waiting: dict[int, Asked] = {}  # since the longest time first
        self.shuts: Counter[int] = Counter()
        self.counts: Counter[str] = Counter()
        self.failed: dict[Key, tuple[float, str]] = {}  # when a dial failed last, and how
        self.demands: set[Key] = set()  # HTTP_1_1_REQUIRED was said there
        self.closing_at = INFINITY
        self.changed: set[Line] = set()
        self.seems_gone = may_seem_gone(script)

    def trace(self, line: str) -> None:
        self.result.trace.append(f"{self.clock.now - self.begin:10.4f}  {line}")

    def later(self, time: float, what: str, who: Asked | Dialled | Line | None, size: int = 0) -> None:
        self.count += 1
        heappush(self.agenda, (time, self.count, what, who, size))

    # --- verbs and actions

    def call(self, what: str, verb: Verb, *args: object) -> None:
        """A verb of the pool that gives actions; they are carried out."""
        try:
            actions = verb(self.pool, *args)
        except Exception as error:
            raise Violation("never raises", f"{what}: {error!r}") from error
        self.act(what, actions)

    def act(self, what: str, actions: list[Action]) -> None:
        if self.tracing and (actions or what[0] != "f"):
            self.trace(f"{what} → {[tell(action) for action in actions]}")
        for action in actions:
            if isinstance(action, Deliver):
                pool_laws.check_attempts(self, action)
                self.deliver(action.ticket, action.event)
            elif isinstance(action, Write):
                line = self.lines.get(action.id)
                if line is None:
                    raise Violation("shut", f"a Write to connection {action.id}, which is not open")
                line.put_out(action.data)
            elif isinstance(action, Dial):
                self.dial(action)
            elif isinstance(action, Shut):
                self.shut(action.id)
        self.sync()

    def dial(self, action: Dial) -> None:
        pool_laws.check_dial(self, action)
        scene = self.script.scene
        dice = Random(self.script.seed * 1_000_033 + action.id)
        self.counts["dials"] += 1
        luck, delay, late = dice.random(), dice.choice(scene.dial_times), dice.random() < scene.dial_late
        if luck < scene.dial_fails:
            outcome = "fail"
        elif luck < scene.dial_fails + scene.dial_hangs:
            outcome, delay = "hang", delay + action.deadline - self.clock.now if late else INFINITY
            if action.deadline == INFINITY:  # but the system gives up, some time
                outcome, delay = "fail", 130.0
        else:
            outcome = self.answer(action, dice)
        others = [dial for dial in self.dials.values() if dial.action.key == action.key]
        dial = Dialled(action, outcome, late, self.pool.sites[action.key].speaks == H1 or bool(others))
        self.dials[action.id] = dial
        if delay < INFINITY:
            self.later(self.clock.now + delay, "dialled", dial)

    def answer(self, action: Dial, dice: Random) -> str:
        """What ALPN says: what the place speaks, or now and then something else that was offered."""
        place = self.places[action.key]
        speaks = dice.choice(action.protocols) if dice.random() < place.fickle else place.speaks
        return speaks if speaks in action.protocols else action.protocols[-1]

    def dialled(self, dial: Dialled) -> None:
        """A dial has come to its end."""
        id, now = dial.action.id, self.clock.now
        failure = Failure("ConnectError", -1, "nobody listens there")
        dial.reported = True
        if dial.outcome == "hang":
            dial.outcome = self.answer(dial.action, Random(id))
        if dial.given_up:
            if dial.late and dial.outcome == "fail":
                pool_laws.check_late(self, id, desk.dial_failed(self.pool, id, failure, now), [])
            elif dial.late:
                pool_laws.check_late(self, id, desk.connected(self.pool, id, dial.outcome, now), [Shut(id)])
        elif dial.outcome == "fail":
            self.failed[dial.action.key] = (now, failure.kind)
            self.call(f"dial_failed {id}", desk.dial_failed, id, failure, now)
        else:
            del self.dials[id]
            self.meet(dial)

    def meet(self, dial: Dialled) -> None:
        """A new connection, with a link and a server of its own."""
        scene, id = self.script.scene, dial.action.id
        dice = Random(self.script.seed * 1_000_081 + id)
        self.result.lives += 1
        line = Line(dial, self.clock, scene.habits, scene.up, scene.down, dice)
        line.widest = self.settings.connection_window
        line.may_seem_gone = self.seems_gone
        line.expiry = self.limits.keepalive_expiry
        line.conn, _ = core.connect(dial.outcome, dial.action.key.origin)  # until the pool's own is seen
        self.lines[id] = line
        self.call(f"connected {id} {dial.outcome}", desk.connected, id, dial.outcome, self.clock.now)
        line.pull()

    def shut(self, id: int) -> None:
        """The pool is done with a connection or a dial."""
        self.shuts[id] += 1
        line, dial = self.lines.pop(id, None), self.dials.pop(id, None)
        if self.shuts[id] > 1 or (line is None and dial is None):
            raise Violation("shut", f"Shut {id}, number {self.shuts[id]}, of what is not open")
        if dial is not None:
            pool_laws.check_given_up(self, dial)
            dial.given_up = True
        if line is not None:
            if line.conn.status != 2:
                line.closing = True
            for asked in list(line.active.values()):
                self.left(line, asked)
            line.write_last()
            self.enlist(line)
            if line.model.violations:
                raise Violation("server", line.model.violations[0])
            self.gone.append(line)
            self.changed.discard(line)
            if id % 3 == 0:  # the driver had not heard of it yet
                pool_laws.check_late(self, id, desk.received(self.pool, id, b"late", self.clock.now), [])
                pool_laws.check_late(self, id, desk.flushed(self.pool, id, self.clock.now), [])
                pool_laws.check_late(self, id, desk.closed(self.pool, id, self.clock.now), [])

    # --- what happened to requests

    def deliver(self, ticket: int, event: Event) -> None:
        asked = self.asked.get(ticket)
        if asked is None or asked.over:
            raise Violation("one ending", f"request {ticket} is over, or never was: {event}")
        if isinstance(event, RequestFailed):
            pool_laws.check_failed(self, asked, event.failure)
            self.end(asked, event.failure.kind, event.failure.unprocessed)
        else:
            line = asked.line
            if line is None or event_ref(event) != asked.ref:
                raise Violation("truth", f"request {ticket} runs as {asked.ref}, and hears {event}")
            self.hear(line, asked, event)
            if isinstance(event, ResponseEnded):
                line.answered += 1
                self.end(asked, "ended", False)

    def hear(self, line: Line, asked: Asked, event: Event) -> None:
        """Not the end: for the callers' side."""

    def end(self, asked: Asked, outcome: str, unprocessed: bool) -> None:
        asked.over = True
        line = asked.line
        if line is not None:
            del line.active[asked.ref]
            line.touched.add(asked.ref)
            if outcome in ("StreamClosed", "ReadTimeout", "WriteTimeout", "DeadlineExceeded"):
                line.reset.append(asked)
            self.emptied(line)
        self.running.pop(asked.ticket, None)
        if self.waiting.pop(asked.ticket, None):
            pool_laws.loosen(self, asked.key)
        self.counts["failures"] += outcome != "ended"
        self.result.outcomes[outcome + (" (unprocessed)" if unprocessed else "")] += 1
        if unprocessed:
            for attempt in asked.attempts:
                attempt.line.suspects = True

    def left(self, line: Line, asked: Asked) -> None:
        """It no longer runs there and has not ended: it is to be tried again."""
        del line.active[asked.ref]
        line.touched.add(asked.ref)
        excuse = pool_laws.check_replay(self, line, asked)
        asked.given_up.append((line, excuse))
        line.suspects = line.suspects or not excuse
        for attempt in asked.attempts:
            if attempt.line is line:
                attempt.excuse = attempt.excuse or excuse
        self.counts["replays"] += 1
        del self.running[asked.ticket]
        asked.wait(self.clock.now)
        self.await_slot(asked)
        self.emptied(line)

    def await_slot(self, asked: Asked) -> None:
        self.waiting[asked.ticket] = asked

    def emptied(self, line: Line) -> None:
        """When nothing runs on it, it is idle; some servers do not wait for long then."""
        if line.active or line.idle_since < INFINITY:
            return
        line.idle_since = self.clock.now
        if self.script.scene.tires and line.id % 2:
            times = self.script.scene.tires
            self.later(self.clock.now + times[line.id // 2 % len(times)], "tire", line, line.known)

    def sync(self) -> None:
        """What runs where, by the connections' own values; only those that changed are looked at."""
        held = self.pool.held
        if len(held) != len(self.lines):
            raise Violation("shut", f"open are {sorted(self.lines)}, the pool has {sorted(held)}")
        fresh: list[tuple[Line, Held]] = []
        retired: list[Line] = []
        for id, line in self.lines.items():
            record = held.get(id)
            if record is None:
                raise Violation("shut", f"connection {id} left the pool without Shut")
            if record.value is not line.conn:
                line.conn = record.value
                fresh.append((line, record))
            if record.retired and not line.retired:
                retired.append(line)
        for line, record in fresh:
            self.changed.add(line)
            for ref in [ref for ref in line.active if ref not in record.jobs]:
                self.left(line, line.active[ref])
        starts: list[tuple[int, int, Line]] = []
        for line, record in fresh:
            if len(record.jobs) != len(line.active):
                starts += [(job.ticket, ref, line) for ref, job in record.jobs.items() if ref not in line.active]
        for ticket, ref, line in sorted(starts, key=itemgetter(0)):
            self.started(line, ref, ticket)
        for line in retired:
            pool_laws.check_retired(self, line)

    def started(self, line: Line, ref: int, ticket: int) -> None:
        asked = self.asked.get(ticket)
        if asked is None or ticket not in self.waiting:
            raise Violation("one ending", f"request {ticket} goes out, and does not wait")
        pool_laws.check_start(self, line, asked)
        now = self.clock.now
        del self.waiting[ticket]
        pool_laws.loosen(self, asked.key)
        self.running[ticket] = asked
        asked.line, asked.ref, asked.starts = line, ref, asked.starts + 1
        asked.issued_at = asked.active_at = now
        if isinstance(line.conn, HTTP2Connection):
            asked.frames = line.conn.frames
        line.active[ref] = asked
        line.touched.add(ref)
        line.idle_since = INFINITY
        line.heard_of_last = 0

    # --- the links

    def push(self, line: Line) -> None:
        """Write what the link takes; once all is taken, say so, and write what comes then."""
        now = self.clock.now
        for _ in range(10_000):
            while line.outbox:
                room = line.up.room
                if room <= 0:
                    if len(line.outbox) != line.unsent:
                        line.unsent = len(line.outbox)
                        self.call(f"flushed {line.id}", desk.flushed, line.id, now, line.unsent)
                    return
                del line.outbox[: line.up.write(bytes(line.outbox[:room]), now)]
                line.emptied_at = now
            if not line.must_flush:
                return
            line.must_flush = False
            line.unsent = 0
            self.call(f"flushed {line.id}", desk.flushed, line.id, now)
            if line.id not in self.lines:
                return
        raise Violation("progress", "flushed has output for ever")

    def enlist(self, line: Line) -> None:
        """Requests that a server has newly got, for the ledger of what was done how often."""
        for served in line.newly_asked():
            asked = self.by_key.get(served.key)
            if asked is None:
                raise Violation("server", f"a request that nobody made: {served}")
            attempt = Attempt(line, served)
            attempt.excuse = next((excuse for before, excuse in asked.given_up if before is line), "")
            asked.attempts.append(attempt)
            pool_laws.check_attempt(asked, attempt)

    def end_of_link(self, line: Line) -> None:
        """Its end shows: what did not leave never will."""
        clean, unsent = not line.down.broken, len(line.outbox)
        line.lost = True
        line.never_left = unsent
        line.outbox.clear()
        what = f"closed {line.id} clean={clean} unsent={unsent}"
        self.call(what, desk.closed, line.id, self.clock.now, unsent, clean)
        if line.id in self.lines:
            raise Violation("shut", f"the link of connection {line.id} ended, and the pool keeps it")


def event_ref(event: Event) -> int:
    ref: int = getattr(event, "ref", 0)
    return ref


def tell(action: Action) -> str:
    """An action in a few words."""
    if isinstance(action, Deliver):
        return f"{action.ticket}: {brief(action.event)}"
    if isinstance(action, Write):
        return f"Write {action.id} {len(action.data)}"
    if isinstance(action, Dial):
        return f"Dial {action.id} {action.key.origin.authority()} {'/'.join(action.protocols)}"
    return f"{type(action).__name__} {getattr(action, 'id', '')}"
