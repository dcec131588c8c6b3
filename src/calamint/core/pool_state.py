"""What a pool consists of, what it asks of its driver, and what it shows: data, and no decisions. See `core.pool`."""

from typing import ClassVar, Final, final

from calamint.core import verbs
from calamint.core.errors import Failure
from calamint.core.events import Event, RequestFailed
from calamint.core.exchange import SETTINGS, Clocks, Settings, check_range, check_seconds
from calamint.core.fields import check_fields, check_method, check_target, find_length
from calamint.core.snapshot import Snapshot
from calamint.core.url import Origin
from calamint.core.value import INFINITY, NEVER, Fields, Value

H1: Final = "http/1.1"


@final
class Limits(Value):
    """How many connections there may be, and for how long an idle one is kept. Times in seconds, None for no limit."""

    __match_args__: ClassVar[tuple[str, ...]] = tuple(
        "max_connections max_per_origin max_keepalive_connections keepalive_expiry max_age".split()
    )
    __slots__ = __match_args__

    def __init__(
        self,
        max_connections: int = 100,
        max_per_origin: int = 10,
        max_keepalive_connections: int = 20,
        keepalive_expiry: float | None = 60.0,
        max_age: float | None = None,
    ) -> None:
        check_range("max_connections", max_connections, 1, 2**31 - 1)
        check_range("max_per_origin", max_per_origin, 1, 2**31 - 1)
        check_range("max_keepalive_connections", max_keepalive_connections, 0, 2**31 - 1)
        self.max_connections: Final = max_connections
        self.max_per_origin: Final = max_per_origin  # HTTP/2 connections; those of HTTP/1.1 share max_connections
        self.max_keepalive_connections: Final = max_keepalive_connections
        self.keepalive_expiry: Final = check_seconds("keepalive_expiry", keepalive_expiry)
        self.max_age: Final = check_seconds("max_age", max_age)


LIMITS: Final = Limits()


@final
class Key(Value):
    """What a connection may be shared by: the origin, and all that affects trust or identity, as the driver names it.

    `protocols`: those that may be spoken, as ALPN names them, the best first.
    """

    __match_args__: ClassVar[tuple[str, ...]] = ("origin", "trust", "protocols")
    __slots__ = ("hashed", *__match_args__)

    def __init__(self, origin: Origin, trust: str = "", protocols: tuple[str, ...] = ("h2", H1)) -> None:
        self.origin: Final = origin
        self.trust: Final = trust
        self.protocols: Final = protocols
        self.hashed: Final = hash((origin, trust, protocols))  # once: a request asks for it many times

    def __hash__(self) -> int:
        return self.hashed


# Actions: what a driver has to do, in their order


@final
class Dial(Value):
    """Connect, until `deadline`, and say `connected` or `dial_failed`."""

    __slots__ = ("id", "key", "protocols", "deadline", "since")
    __match_args__: ClassVar[tuple[str, ...]] = ("id", "key", "protocols", "deadline", "since")

    def __init__(self, id: int, key: Key, protocols: tuple[str, ...], deadline: float, since: float = 0.0) -> None:
        self.id: Final = id
        self.key: Final = key
        self.protocols: Final = protocols
        self.deadline: Final = deadline
        self.since: Final = since


@final
class Write(Value):
    """Write these bytes to a connection, after those before them, and say `flushed` when the kernel has them."""

    __slots__ = ("id", "data")
    __match_args__: ClassVar[tuple[str, ...]] = ("id", "data")

    def __init__(self, id: int, data: bytes) -> None:
        self.id: Final = id
        self.data: Final = data


@final
class Shut(Value):
    """The connection, or the dial, is over for the pool: write what is left, as far as that needs no waiting, and close."""

    __slots__ = ("id",)
    __match_args__: ClassVar[tuple[str, ...]] = ("id",)

    def __init__(self, id: int) -> None:
        self.id: Final = id


@final
class Deliver(Value):
    """Something happened to the request with this ticket.

    `attempts`: how often it was sent, where it has failed. `snapshot`: what there was before, where no slot came free, and
    with the first failure on a connection.
    """

    __slots__ = ("ticket", "event", "attempts", "snapshot")
    __match_args__: ClassVar[tuple[str, ...]] = ("ticket", "event", "attempts", "snapshot")

    def __init__(
        self, ticket: int, event: Event, attempts: int = 0, snapshot: "Snapshot | PoolSnapshot | None" = None
    ) -> None:
        self.ticket: Final = ticket
        self.event: Final = event
        self.attempts: Final = attempts
        self.snapshot: Final = snapshot


@final
class Report(Value):
    """Something worth telling to a log, a trace or a metric. What `kind` means:

    "request": it has ended, `seconds` after it was submitted. "dial": a connection was made, or not, after `seconds`.
    "reset": a stream was reset, by us or, with a ticket, by the peer. "goaway": the peer ends the connection. "replay": a
    request goes out once more. "timeout": a clock has run out. "stall": content of ours waits for the peer's window.
    "condemned": we have ended a connection, because its peer broke HTTP or is gone.
    `id`: the connection or the dial, or 0; `ticket`: the request, or 0; `code`: of HTTP/2, or the status of a response,
    or -1; `text`: in words.
    """

    __slots__ = ("kind", "origin", "id", "ticket", "text", "code", "seconds")
    __match_args__: ClassVar[tuple[str, ...]] = ("kind", "origin", "id", "ticket", "text", "code", "seconds")

    def __init__(
        self, kind: str, origin: str, id: int, ticket: int, text: str, code: int = -1, seconds: float = 0.0
    ) -> None:
        self.kind: Final = kind
        self.origin: Final = origin
        self.id: Final = id
        self.ticket: Final = ticket
        self.text: Final = text
        self.code: Final = code
        self.seconds: Final = seconds


Action = Dial | Write | Shut | Deliver | Report


@final
class Waiting(Value):
    """A request that waits for a slot, for how many seconds by now, in a snapshot."""

    __slots__ = ("ticket", "method", "target", "origin", "seconds")
    __match_args__: ClassVar[tuple[str, ...]] = ("ticket", "method", "target", "origin", "seconds")

    def __init__(self, ticket: int, method: str, target: str, origin: str, seconds: float) -> None:
        self.ticket: Final = ticket
        self.method: Final = method
        self.target: Final = target
        self.origin: Final = origin
        self.seconds: Final = seconds


@final
class PoolSnapshot(Value):
    """Every connection with its requests, every request that waits, every dial (its origin, and seconds until it ends)."""

    __slots__ = ("connections", "waiting", "dials")
    __match_args__: ClassVar[tuple[str, ...]] = ("connections", "waiting", "dials")

    def __init__(
        self, connections: tuple[Snapshot, ...], waiting: tuple[Waiting, ...], dials: tuple[tuple[str, float], ...]
    ) -> None:
        self.connections: Final = connections
        self.waiting: Final = waiting
        self.dials: Final = dials

    def describe(self) -> str:
        """In words: who holds what, and who waits."""
        lines = [connection.describe() for connection in self.connections]
        lines += [f"being dialled: {origin}, {left:.2f} s left" for origin, left in self.dials]
        lines += [
            f"waiting for {item.seconds:.2f} s: {item.method} {item.origin}{item.target}" for item in self.waiting
        ]
        return "\n".join(lines) or "no connections"


@final
class Stats(Value):
    """Numbers at one moment, at no cost: what there is, and how often what has happened since the pool was made."""

    __match_args__: ClassVar[tuple[str, ...]] = tuple(
        (
            "connections idle dialling running waiting oldest_wait timeouts requests dials replays failures "
            "goaways resets_sent resets_received stalls"
        ).split()
    )
    __slots__ = __match_args__

    def __init__(
        self,
        connections: int,
        idle: int,
        dialling: int,
        running: int,
        waiting: int,
        oldest_wait: float,
        timeouts: tuple[tuple[str, int], ...],
        requests: int,
        dials: int,
        replays: int,
        failures: int,
        goaways: int,
        resets_sent: int,
        resets_received: int,
        stalls: int,
    ) -> None:
        self.connections: Final = connections
        self.idle: Final = idle  # of them
        self.dialling: Final = dialling
        self.running: Final = running  # requests that have a slot
        self.waiting: Final = waiting
        self.oldest_wait: Final = oldest_wait  # seconds; 0 where nobody waits
        self.timeouts: Final = timeouts  # how many attempts each clock has ended, by its name
        self.requests: Final = requests
        self.dials: Final = dials
        self.replays: Final = replays
        self.failures: Final = failures
        self.goaways: Final = goaways  # received
        self.resets_sent: Final = resets_sent
        self.resets_received: Final = resets_received
        self.stalls: Final = stalls  # how often content began to wait for a peer's window


@final
class Job:
    """One request: what was asked, and where it stands. With `id` 0 it waits for a slot."""

    __slots__ = (
        "ticket", "key", "method", "target", "fields", "content", "end", "deadline", "clocks", "protocol", "connect",
        "queue", "asked_at", "since", "until", "replay", "attempts", "acted", "id", "ref", "given", "heard", "status",
    )  # fmt: skip

    def __init__(
        self,
        ticket: int,
        key: Key,
        method: str,
        target: str,
        fields: Fields,
        content: bytes | None,
        end: bool,
        deadline: float,
        clocks: Clocks,
        protocol: str,
        connect: float,
        queue: float,
        replay: bool,
        now: float,
    ) -> None:
        self.ticket: Final = ticket
        self.key: Final = key
        self.method: Final = method
        self.target: Final = target
        self.fields: Final = fields
        self.content: Final = content
        self.end: Final = end
        self.deadline: Final = deadline
        self.clocks: Final = clocks
        self.protocol: Final = protocol
        self.connect: Final = connect  # seconds for a dial that it needs
        self.queue: Final = queue  # seconds that it may wait for a slot
        self.replay: Final = replay
        self.asked_at: Final = now
        self.since: float = now  # it has waited, or run, since then
        self.until: float = min(deadline, now + queue)
        self.attempts: int = 0
        self.acted: bool = False  # the peer of an attempt that failed may have acted on it
        self.id: int = 0
        self.ref: int = 0
        self.given: list[tuple[bytes, bool, Fields]] = []  # content that came while it waits
        self.heard: bool = False  # its peer has answered, if only with an interim response
        self.status: int = 0  # of the final response


def as_known(job: Job, event: RequestFailed) -> RequestFailed:
    """What is known of the request, and not of its last attempt alone: whether one before may have been processed, and what
    it was allowed in all."""
    failure = event.failure
    unprocessed = failure.unprocessed and not job.acted
    message = failure.message
    if failure.clock == "total":
        message += f"; total={round(job.deadline - job.asked_at, 3):.10g}"
    elif unprocessed == failure.unprocessed:
        return event
    kind, code, ref, last = failure.kind, failure.code, failure.ref, failure.last_stream_id
    return RequestFailed(event.ref, Failure(kind, code, message, ref, unprocessed, last, failure.clock))


@final
class Held:
    """One connection: its value, and whose requests run on it."""

    __slots__ = (
        "id", "key", "value", "jobs", "born", "idle_at", "expiry", "served", "retired", "failed", "resets", "stalls",
    )  # fmt: skip

    def __init__(self, id: int, key: Key, value: verbs.Connection, expiry: float, now: float) -> None:
        self.id: Final = id
        self.key: Final = key
        self.value: verbs.Connection = value
        self.jobs: dict[int, Job] = {}
        self.born: Final = now
        self.idle_at: float = INFINITY  # since when nothing runs on it; INFINITY while something does
        self.expiry: float = expiry  # seconds for which it is kept idle
        self.served: int = 0  # requests that have ended with a response
        self.retired: bool = False  # it takes no new requests, for a reason of ours
        self.failed: bool = False  # a request has failed on it
        self.resets: int = 0  # those of its value, as they were counted last
        self.stalls: int = 0


@final
class Site:
    """All connections, dials and waiting requests of one key."""

    __slots__ = ("key", "held", "free", "waiting", "dials", "retry_at", "speaks", "only_http1", "keepalive")

    def __init__(self, key: Key, keepalive: float) -> None:
        self.key: Final = key
        self.held: dict[int, Held] = {}
        self.free: dict[int, Held] = {}  # those with a free slot, as `settle` saw it; the latest is taken first
        self.waiting: dict[int, Job] = {}  # by ticket, the oldest first
        self.dials: set[int] = set()
        self.retry_at: float = NEVER  # no dial before this
        self.speaks: str = key.protocols[0] if len(key.protocols) == 1 else ""  # what it has spoken last
        self.only_http1: bool = False  # it has asked for HTTP/1.1 (HTTP_1_1_REQUIRED)
        self.keepalive: float = keepalive


@final
class Pool:
    """All of it. Nobody but the verbs of `core.pool` writes to it. Settings are those of each connection."""

    __slots__ = (
        "limits", "settings", "sites", "held", "jobs", "waiting", "dials", "idle", "next_id", "next_ticket", "wake",
        "closing_at", "counts", "timeouts", "freed", "traced", "out",
    )  # fmt: skip

    def __init__(self, limits: Limits = LIMITS, settings: Settings = SETTINGS) -> None:
        check_range("pipeline", settings.pipeline, 1, 1)  # "pipelining exists in the bare core only", and push too
        check_range("max_pushes", settings.max_pushes, 0, 0)
        self.limits: Final = limits
        self.settings: Final = settings
        self.sites: dict[Key, Site] = {}
        self.held: dict[int, Held] = {}
        self.jobs: dict[int, Job] = {}  # that have not ended
        self.waiting: dict[int, Job] = {}  # those of them without a slot, the oldest first
        self.dials: dict[int, Dial] = {}
        self.idle: dict[int, Held] = {}  # the longest idle first
        self.next_id: int = 1
        self.next_ticket: int = 1
        self.wake: float = INFINITY  # nothing is due before this
        self.closing_at: float = INFINITY  # when what still runs will be reset; INFINITY while the pool is open
        self.counts: list[int] = [0] * 8  # see their places below
        self.timeouts: dict[str, int] = {}  # by the clock's name
        self.freed: bool = False  # a connection or a dial is gone: somebody may dial in its place
        self.traced: bool = False  # whether anybody wants to be told more than what is wrong
        self.out: list[Action] = []


# Places in `counts`.
REQUESTS: Final = 0
DIALS: Final = 1
REPLAYS: Final = 2
FAILURES: Final = 3
GOAWAYS: Final = 4
RESETS_SENT: Final = 5
RESETS_RECEIVED: Final = 6
STALLS: Final = 7


def check(method: str, target: str, fields: Fields, protocol: str, key: Key) -> None:
    """Raises LocalProtocolError for what no connection would take, before anything waits."""
    check_method(method)
    check_target("GET" if protocol else method, target, key.protocols == (H1,))
    check_fields(fields)
    find_length(fields)


def keeping(settings: Settings, keepalive: float) -> Settings:
    """The same settings with this keepalive."""
    if keepalive == settings.keepalive:
        return settings
    parts = [getattr(settings, name) for name in settings.__match_args__]
    parts[settings.__match_args__.index("keepalive")] = keepalive
    return Settings(*parts)
