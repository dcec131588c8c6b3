"""What a pool's driver and its callers know: a request with its ticket, a dial, and a connection with the link and the model
server behind it."""

from random import Random

from calamint import core
from calamint.core.pool_state import Dial, Key
from tests.world.caller import Request
from tests.world.link import Clock, Path, Pipe
from tests.world.model_http1 import Http1Model
from tests.world.model_http2 import Http2Model
from tests.world.plans import INFINITY, Habits, Served
from tests.world.pool_script import PoolAsk

# Methods that a server may get twice without harm (RFC 9110 §9.2.2).
IDEMPOTENT = frozenset(("GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"))


class Attempt:
    """The head of a request at a model server."""

    __slots__ = ("excuse", "line", "served")

    def __init__(self, line: "Line", served: Served) -> None:
        self.line = line
        self.served = served
        self.excuse = ""  # why it was tried again although this server may have acted on it


class Asked(Request):
    """A request of the pool: it waits, or runs on `line`, or is over."""

    __slots__ = ("attempts", "given_up", "key", "line", "over", "pool_ask", "since", "starts", "ticket", "until")

    def __init__(self, ask: PoolAsk, key: Key, now: float) -> None:
        super().__init__(ask, now, 0)
        self.pool_ask = ask
        self.key = key
        self.ticket = 0
        self.line: Line | None = None
        self.over = False
        self.since = now
        self.until = 0.0
        self.starts = 0  # how often it went out
        self.attempts: list[Attempt] = []  # that reached a server
        self.given_up: list[tuple[Line, str]] = []  # where it ran before, and what allowed another try
        self.wait(now)

    def wait(self, now: float) -> None:
        """It waits for a slot, from now on."""
        queue = self.pool_ask.queue
        self.line = None
        self.ref = 0
        self.since = now
        self.until = min(self.deadline, now + (INFINITY if queue is None else queue))


class Dialled:
    """A dial, and what becomes of it."""

    __slots__ = ("action", "given_up", "late", "loose", "outcome", "reported", "until", "wild")

    def __init__(self, action: Dial, outcome: str, late: bool, wild: bool) -> None:
        self.action = action
        self.outcome = outcome  # the protocol; fail; hang
        self.late = late  # it says so even when the pool has given it up
        self.wild = wild  # one of several at once
        self.given_up = False
        self.reported = False
        self.until = action.deadline  # when the pool has to give it up
        self.loose = INFINITY  # from when on the pool may, since somebody who waited for it has left


class Line:
    """A connection as its driver holds it. What laws.py asks of one who holds a connection has the same names here."""

    def __init__(self, dial: Dialled, clock: Clock, habits: Habits, up: Path, down: Path, dice: Random) -> None:
        now = clock.now
        self.id = dial.action.id
        self.key = dial.action.key
        self.protocol = dial.outcome
        self.wild = dial.wild
        self.clock = clock
        self.model: Http2Model | Http1Model
        self.model = Http2Model(dice, habits, now) if self.protocol == "h2" else Http1Model(dice, habits, now)
        self.up, self.down = Pipe(up, Random(dice.getrandbits(30))), Pipe(down, Random(dice.getrandbits(30)))
        self.conn: core.Connection
        self.active: dict[int, Asked] = {}
        self.touched: set[int] = set()
        self.reset: list[Request] = []
        self.outbox = bytearray()
        self.must_flush = False
        self.unsent = 0
        self.widest = 0
        self.budget = 0
        self.heard = 0
        self.closing = False  # this side wanted the end
        self.lost = False
        self.cut_off = False
        self.received_at = self.sent_at = self.met_at = self.emptied_at = now
        self.may_seem_gone = False
        self.alone = self.protocol != "h2"
        self.looks = 0
        self.known = 0  # requests at the server that the world has seen
        self.never_left = 0  # bytes of our output, when the link ended
        self.heard_of_last = 0  # bytes that came since the last request went out
        self.answered = 0
        self.suspects = False  # requests that the server must not have acted on
        self.idle_since = now
        self.expiry = INFINITY
        self.retired = False

    def put_out(self, out: bytes) -> None:
        self.outbox += out
        self.must_flush = True
        self.sent_at = self.clock.now
        self.model.note_sent(len(out), self.down.delivered, self.heard, self.clock.now)

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

    def die(self) -> None:
        self.up.die()
        self.down.die()
        self.lost = self.cut_off = True

    def write_last(self) -> None:
        """The socket is closed: what goes out without waiting does, and the server has what was on its way, and goes on."""
        now, model = self.clock.now, self.model
        if self.up.broken or self.up.dead:
            return
        self.up.write(bytes(self.outbox), now)
        while not self.up.empty:
            now = max(now, self.up.next_arrival())
            model.receive(self.up.read(now, 1 << 20), now)
        model.end(now)
        if self.suspects:
            for _ in range(200):
                if model.next_timeout() == INFINITY:
                    break
                model.tick(model.next_timeout())
                model.take(1 << 20)

    def newly_asked(self) -> list[Served]:
        """Requests that the server has got since the last time."""
        model = self.model
        if isinstance(model, Http2Model):
            if len(model.streams) == self.known:
                return []
            fresh = [stream.served for stream in list(model.streams.values())[self.known :]]
            self.known = len(model.streams)
            return fresh
        fresh = list(model.requests.values())[self.known :]
        self.known = len(model.requests)
        return fresh

    def next_step(self, wants_read: bool) -> tuple[float, str]:
        """What is due first on this link and at this server."""
        best, step = INFINITY, ""
        if wants_read:
            best, step = self.down.next_arrival(), "receive"
        if self.model.reading:
            time = self.up.next_arrival()
            if time < best:
                best, step = time, "serve"
        time = self.model.next_timeout()
        if time < best:
            best, step = time, "tick"
        if best > self.clock.now:
            time = self.clock.now if self.down.broken else self.down.end_arrival()
            if time < best:
                best, step = time, "end"
        return best, step
