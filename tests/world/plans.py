"""What the model servers do: habits (chances, per server) and plans (what happens to one request), drawn from a seed; and
what they know of a request and of a stream."""

from dataclasses import dataclass, field
from random import Random

INFINITY = float("inf")

SPAN = 1 << 16
_ONCE = Random(2026).randbytes(SPAN)
_PATTERN = _ONCE * 6  # content is a slice of this, so that every piece can be checked wherever it was cut


def pattern(key: int, start: int, size: int) -> bytes:
    """The content that belongs to a request: `size` bytes from position `start`."""
    begin = (key * 7919 + start) % SPAN
    if begin + size <= len(_PATTERN):
        return _PATTERN[begin : begin + size]
    return (_ONCE * (size // SPAN + 2))[begin : begin + size]


def request_key(target: str) -> int | None:
    """The number of a request from its target: /7, /7?x=y, host7.test:443."""
    name = target[1:] if target.startswith("/") else target.removeprefix("host")
    digits = name.split("?", 1)[0].split(".", 1)[0]
    return int(digits) if digits.isascii() and digits.isdigit() else None


@dataclass(slots=True)
class Habits:
    """How a model server behaves. Chances are between 0 and 1; times in seconds."""

    # per request
    forget: float = 0.0  # nothing more comes on the stream, from some point on
    reset: float = 0.0  # RST_STREAM at some point; over HTTP/1.1 the connection dies there
    refuse: float = 0.0  # REFUSED_STREAM before anything was done
    malformed: float = 0.0  # a stream error of RFC 9113 §8.1.1, or bytes that are not HTTP/1.1
    early: float = 0.0  # answers before the request has ended
    drip: float = 0.0  # content in small pieces with pauses
    interim: float = 0.0  # 1xx first
    trailers: float = 0.0
    padding: float = 0.0
    dynamic: float = 0.3  # field blocks that use and change the dynamic table
    split: float = 0.0  # blocks in CONTINUATION
    late: float = 0.0  # goes on for a while on a stream that the client has reset
    after: float = 0.0  # frames on a stream after its end: WINDOW_UPDATE, RST_STREAM, PRIORITY
    push: float = 0.0
    close: float = 0.0  # HTTP/1.1: `connection: close`
    delay: float = 0.02  # of an answer, at most
    long_delay: float = 0.0  # chance of one that outlasts most clocks
    sizes: tuple[int, ...] = (0, 1, 100, 2000, 20000)
    # the connection
    credit: str = "eager"  # eager, lazy (at half a window), tiny (a piece at a time), slow (after a pause), never
    credit_pause: float = 0.5
    ack_pause: float = 0.0  # before SETTINGS and PING of the client are acknowledged
    withhold: frozenset[str] = frozenset()  # of: settings, settings_ack, ping_ack
    settings: dict[int, int] = field(default_factory=dict)  # the first SETTINGS
    settings_pause: float = 0.0  # before the first SETTINGS are sent
    requests_per_connection: int = 0  # HTTP/1.1: closes after so many; 0 for never
    keep_alive: int = 0  # HTTP/1.1: what it says of how long it keeps an idle connection; 0 for nothing


POINTS = ("start", "interim", "head", "content")
CODES = (0x0, 0x1, 0x2, 0x5, 0x8, 0xA, 0xB, 0xD, 0xFFFF)


@dataclass(slots=True)
class Plan:
    """What happens to one request. With `then` set, that happens at the point `at` (content: after `stop` bytes)."""

    delay: float
    status: int
    size: int
    early: bool
    piece: int  # bytes at a time; 0 for as many as fit
    pause: float  # between the pieces
    interim: int
    trailers: bool
    stated: bool  # content-length
    padding: int
    dynamic: bool
    split: int  # bytes of a block in each frame; 0 for all in one
    late: bool
    after: bool
    push: int
    close: bool
    at: str = ""
    then: str = ""  # "", forget, reset, refuse, malformed
    stop: int = 0
    code: int = 0
    fault: int = 0  # which way of being malformed
    continue_: str = "send"  # what an `expect: 100-continue` gets: send, ignore, refuse


def draw_plan(seed: int, key: int, habits: Habits) -> Plan:
    """The same for the same seed and request, whatever else happens in the world."""
    rng = Random(seed * 1_000_003 + key)
    chance = rng.random
    h = habits
    delay = chance() * h.delay
    if h.long_delay and chance() < h.long_delay:
        delay = 200.0
    size = rng.choice(h.sizes)
    if size > 3:
        size = int(size * (0.5 + chance()))
    plan = Plan(
        delay=delay,
        status=200,
        size=size,
        early=chance() < h.early,
        piece=0,
        pause=0.0,
        interim=0,
        trailers=chance() < h.trailers,
        stated=chance() < 0.5,
        padding=0,
        dynamic=chance() < h.dynamic,
        split=0,
        late=chance() < h.late,
        after=chance() < h.after,
        push=0,
        close=chance() < h.close,
    )
    if chance() < 0.08:
        plan.status = rng.choice((204, 304, 404, 500, 413))
        if plan.status in (204, 304):
            plan.size, plan.trailers = 0, False
            plan.stated = plan.stated and plan.status == 304
    if chance() < h.drip:
        plan.piece = max(rng.choice((1, 10, 500, 5000)), size // 40)
        plan.pause = rng.choice((0.001, 0.05, 0.7))
    if chance() < h.interim:
        plan.interim = rng.choice((1, 1, 2, 5))
    if chance() < h.padding:
        plan.padding = rng.choice((0, 1, 7, 255))
    if chance() < h.split:
        plan.split = rng.choice((1, 3, 20, 100))
    if chance() < h.push:
        plan.push = rng.choice((1, 1, 2))
    plan.continue_ = rng.choice(("send", "send", "ignore", "refuse"))
    _draw_fault(plan, rng, h)
    return plan


def _draw_fault(plan: Plan, rng: Random, habits: Habits) -> None:
    luck = rng.random()
    for then, share in (
        ("forget", habits.forget),
        ("reset", habits.reset),
        ("refuse", habits.refuse),
        ("malformed", habits.malformed),
    ):
        if luck < share:
            plan.then = then
            break
        luck -= share
    plan.at = rng.choice(POINTS)
    plan.stop = rng.randrange(plan.size) if plan.size else 0
    plan.code = rng.choice(CODES)
    plan.fault = rng.randrange(1000)


@dataclass(slots=True)
class Served:
    """What a model server knows of one request, for the laws of the world."""

    key: int
    stream: int
    method: str
    at: float  # when its head was complete
    acted: bool = False  # something was, or may have been, done for it
    received: int = 0  # bytes of its content
    complete: bool = False  # the request came whole
    aborted: int | None = None  # the client's RST_STREAM: the code
    interims: int = 0  # 1xx sent
    status: int = 0  # of the final head that was sent
    fields: tuple[tuple[bytes, bytes], ...] = ()
    sent: int = 0  # bytes of content sent
    trailers: tuple[tuple[bytes, bytes], ...] = ()
    ended: bool = False  # the response was sent whole
    code: int | None = None  # the RST_STREAM that was sent
    crime: str = ""  # what was wrong in the response, if something was
    tunnel: bool = False
    plan: Plan | None = None


class Stream:
    """One stream, as the server knows it."""

    __slots__ = (
        "actions",
        "client_open",
        "credit_due",
        "expected",
        "forgotten",
        "head_sent",
        "id",
        "ignored",
        "left",
        "over_at",
        "pushed",
        "receive_window",
        "reset_by",
        "send_window",
        "served",
        "server_open",
        "stated",
    )

    def __init__(self, number: int, served: Served, send_window: int, receive_window: int) -> None:
        self.id = number
        self.served = served
        self.client_open = True
        self.server_open = True
        self.reset_by = ""  # client, server
        self.over_at = -1  # our END_STREAM or RST_STREAM ends at this position of our output
        self.ignored = False  # above the last id of our GOAWAY
        self.pushed = False
        self.send_window = send_window
        self.receive_window = receive_window
        self.credit_due = 0
        self.expected: int | None = None  # content-length
        self.head_sent = False
        self.forgotten = False  # nothing more will come on it
        self.left = 0  # content to be sent now
        self.stated = -1
        self.actions = 0  # scheduled for it and not yet done

    @property
    def open(self) -> bool:
        return not self.reset_by and (self.client_open or self.server_open) and not self.ignored
