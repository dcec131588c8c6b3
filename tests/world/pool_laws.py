"""What must hold of a pool after every step: against the driver's own books, and against the ledgers of the model servers.

The laws of one connection (laws.py) hold for each of a pool's as well; these are about all of them.
"""

from collections import Counter
from typing import TYPE_CHECKING, Final

from calamint.core import pool as desk
from calamint.core import pool_view, verbs
from calamint.core.errors import Failure
from calamint.core.events import RequestFailed
from calamint.core.http2_state import HTTP2Connection
from calamint.core.pool_state import H1, Action, Deliver, Dial, Key, Pool, Site
from tests.world import laws
from tests.world.laws import TICK, Violation
from tests.world.model_frames import ENHANCE_YOUR_CALM, REFUSED_STREAM
from tests.world.model_http2 import Http2Model
from tests.world.plans import INFINITY
from tests.world.pool_line import IDEMPOTENT, Asked, Attempt, Dialled, Line

if TYPE_CHECKING:
    from tests.world.pool_driver import Driver

POOL_LAWS: Final = {
    "stranded": "nobody waits while a slot is free, or while a connection could be dialled",
    "order": "of those who wait for the same key, who asked first goes first",
    "timer": "whatever is due has a wake-up that is not too late, and none that comes again at once",
    "once": "what a server acted on goes out again only where law 9 of the design allows it, and twice at most",
    "limits": "connections, dials, idle and old connections stay within the limits",
    "shut": "each connection and each dial gets one Shut, and nothing after it",
    "stats": "the pool's numbers are those that the driver counts",
    "mistake": "a wrong call raises and changes nothing",
}

ABANDONED = 10.0  # seconds that a dial has at most once nobody waits for it
SURPLUS = 1.0  # seconds for which one idle connection too many may stay
RETRY = 1.0  # seconds that may pass after a dial that failed until the next
HTTP_1_1_REQUIRED = ENHANCE_YOUR_CALM + 2


# --- after every step


def check_step(world: "Driver") -> None:
    check_numbers(world)
    check_waiting(world)
    check_dials(world)
    check_time(world)
    for line in world.changed:
        check_line(world, line)
    world.changed.clear()


def check_numbers(world: "Driver") -> None:
    """Laws of limits and stats."""
    pool, limits, lines = world.pool, world.limits, world.lines
    if len(lines) + len(world.dials) > limits.max_connections:
        raise Violation("limits", f"{len(lines)} connections and {len(world.dials)} dials")
    idle = [line for line in lines.values() if not line.active]
    spare = limits.max_keepalive_connections
    lasting = [line for line in idle if not spare or world.clock.now > line.idle_since + SURPLUS + TICK]
    if len(lasting) > spare:
        raise Violation("limits", f"{len(lasting)} connections are idle")
    per_key: dict[int, int] = {}
    for line in lines.values():
        if line.protocol == "h2" and not line.wild and not line.retired and line.conn.status == 0:
            number = line.key.origin.port
            per_key[number] = per_key.get(number, 0) + 1
            if per_key[number] > limits.max_per_origin:
                raise Violation("limits", f"{per_key[number]} HTTP/2 connections to {line.key.origin.authority()}")
    now, counts = world.clock.now, world.counts
    oldest = now - next(iter(world.waiting.values())).since if world.waiting else 0.0
    stats = pool_view.stats(pool, now)
    for name, seen in (
        ("connections", len(lines)),
        ("idle", len(idle)),
        ("dialling", len(world.dials)),
        ("running", len(world.running)),
        ("waiting", len(world.waiting)),
        ("requests", counts["requests"]),
        ("dials", counts["dials"]),
        ("replays", counts["replays"]),
        ("failures", counts["failures"]),
    ):
        if getattr(stats, name) != seen:
            raise Violation("stats", f"{name}: {getattr(stats, name)}, counted were {seen}")
    if abs(stats.oldest_wait - oldest) > TICK:
        raise Violation("stats", f"oldest_wait: {stats.oldest_wait}, measured was {oldest}")
    if pool.waiting.keys() != world.waiting.keys():
        raise Violation("stats", f"waiting are {sorted(world.waiting)}, by the pool {sorted(pool.waiting)}")


def check_waiting(world: "Driver") -> None:
    """Nobody waits in vain."""
    if not world.waiting:
        return
    pool, now = world.pool, world.clock.now
    total = len(world.lines) + len(world.dials)
    idle = any([not line.active for line in world.lines.values()])
    room = total < world.limits.max_connections or idle
    for key, site in pool.sites.items():
        if not site.waiting:
            continue
        usable = 0
        for line in world.lines.values():
            if line.key == key and not line.retired and not verbs.is_draining(line.conn):
                usable += 1
                if verbs.capacity(line.conn) > 0:
                    raise Violation("stranded", f"{len(site.waiting)} wait, connection {line.id} has a free slot")
        if not room or not wants_dial(world, site, usable):
            continue
        who = f"{len(site.waiting)} wait for {key.origin.authority()}"
        again_at = world.failed.get(key, (-INFINITY, ""))[0] + RETRY
        if pool.wake > max(now, again_at) + TICK:  # else the timer is on its way, and will bring it to light
            raise Violation("stranded" if now > again_at else "timer", f"{who}, and could have a connection")


def wants_dial(world: "Driver", site: Site, usable: int) -> bool:
    dials = sum([dial.action.key == site.key for dial in world.dials.values()])
    if site.speaks == H1:
        return dials < len(site.waiting)
    return not dials and usable < world.limits.max_per_origin


def check_time(world: "Driver") -> None:
    """Everything that will be due has a wake-up, and nothing is overdue."""
    now, wake = world.clock.now, desk.next_timeout(world.pool)
    carried = carriers(world)
    for ticket, asked in world.waiting.items():
        at = end(world, asked, carried.get(ticket))
        if wake > max(at, now) + TICK:  # it may be over all of a sudden: when what was dialled for it serves another
            raise Violation("timer", f"request {ticket} waits until {at}, the timer is set to {wake}")
    due = [(dial.until, f"dial {dial.action.id}") for dial in world.dials.values()]
    for line in world.lines.values():
        due.append((line.conn.wake, f"connection {line.id}"))
        if line.idle_since < INFINITY:
            due.append((line.idle_since + line.expiry, f"idle connection {line.id}"))
            due.append((line.met_at + world.limits.max_age, f"old idle connection {line.id}"))
    if world.closing_at < INFINITY and world.lines:
        due.append((world.closing_at, "the end of the grace"))
    if not due:
        return
    first, what = min(due)
    if wake > first + TICK:
        raise Violation("timer", f"{what} is due at {first}, the timer is set to {wake}")
    if now > first + TICK:
        raise Violation("timer", f"{what} was due at {first}, {now - first:.6f} s ago")


def carriers(world: "Driver") -> dict[int, Dialled]:
    """The dials that those who wait may hope for, by ticket: over HTTP/1.1 that of the place in the queue, else any."""
    found: dict[int, Dialled] = {}
    for key in {dial.action.key for dial in world.dials.values()}:
        dials = [dial for dial in world.dials.values() if dial.action.key == key]
        tickets = sorted([ticket for ticket, asked in world.waiting.items() if asked.key == key])
        one_each = world.pool.sites[key].speaks == H1
        found.update(zip(tickets, dials if one_each else dials[:1] * len(tickets), strict=False))
    return found


def end(world: "Driver", asked: Asked, dial: Dialled | None) -> float:
    """When its waiting is over: its time in the queue does not end it while a connection is made for it."""
    return asked.until if dial is None else min(asked.deadline, patience(world, asked, dial))


def patience(world: "Driver", asked: Asked, dial: Dialled) -> float:
    """How long it waits for this dial; over HTTP/1.1 the dial's own deadline is all."""
    limit = asked.pool_ask.connect
    if limit is None or world.pool.sites[asked.key].speaks == H1:
        return INFINITY
    return max(asked.since, dial.action.since) + limit


def check_dials(world: "Driver") -> None:
    """Dials for which nobody waits have an end."""
    waiting = Counter([asked.key for asked in world.waiting.values()])
    for dial in world.dials.values():
        waiting[dial.action.key] -= 1
        if waiting[dial.action.key] < 0:
            dial.until = min(dial.until, world.clock.now + ABANDONED)


def loosen(world: "Driver", key: Key) -> None:
    """Somebody has left the queue: dials of this key may have been for nobody, if only for a moment."""
    for dial in world.dials.values():
        if dial.action.key == key:
            dial.loose = min(dial.loose, world.clock.now + ABANDONED)


def check_line(world: "Driver", line: Line) -> None:
    """One connection, by the laws of one, against its server."""
    record = world.pool.held[line.id]
    if record.jobs.keys() != line.active.keys() or verbs.in_flight(line.conn) != len(line.active):
        raise Violation("slots", f"connection {line.id}: {sorted(line.active)} run, the pool has {sorted(record.jobs)}")
    over = line.retired or verbs.is_draining(line.conn)
    if over and not line.active and world.pool.wake > world.clock.now:
        raise Violation("limits", f"connection {line.id} takes no requests and has none, and is kept")
    laws.check_step(line, line.touched)
    line.touched.clear()
    line.looks += 1
    if line.looks % 20 == 0:
        laws.check_all(line)
    elif isinstance(line.conn, HTTP2Connection):
        laws.check_peer(line, line.conn)


def check_retired(world: "Driver", line: Line) -> None:
    """It takes no more requests, though it could: there is a reason."""
    line.retired = True
    old = world.clock.now >= line.met_at + world.limits.max_age - TICK
    burdened = isinstance(line.conn, HTTP2Connection) and bool(line.conn.control.unsent)
    if not (old or burdened or (line.key in world.demands and line.protocol == "h2")):
        raise Violation("limits", f"connection {line.id} takes no more requests, and why?")


# --- dials


def check_dial(world: "Driver", action: Dial) -> None:
    """Whether this dial may be, and somebody needs it."""
    site = world.pool.sites[action.key]
    others = [dial for dial in world.dials.values() if dial.action.key == action.key]
    held = [each for each in world.pool.held.values() if each.key == action.key]
    usable = [each for each in held if not each.retired and not verbs.is_draining(each.value)]
    if action.id in world.lines or action.id in world.dials or action.id in world.shuts:
        raise Violation("limits", f"dial {action.id} has the number of another")
    if site.speaks != H1 and others:
        raise Violation("limits", f"two dials at once to {action.key.origin.authority()}, which may speak HTTP/2")
    if action.key in world.demands and "h2" in action.protocols and H1 in action.protocols:
        raise Violation(
            "once", f"{action.key.origin.authority()} has asked for HTTP/1.1, offered is {action.protocols}"
        )
    if site.speaks != H1 and len(usable) >= world.limits.max_per_origin:
        raise Violation("limits", f"{len(usable)} connections to {action.key.origin.authority()} and another dial")


def check_given_up(world: "Driver", dial: Dialled) -> None:
    """The pool ends a dial: because it failed, at its deadline, or because the pool is closed."""
    if dial.reported:
        return
    if world.clock.now >= min(dial.action.deadline, dial.loose) - TICK:
        world.failed[dial.action.key] = (world.clock.now, "ConnectTimeout")
    elif world.closing_at == INFINITY:
        raise Violation("limits", f"dial {dial.action.id} was given up before its deadline")


def check_late(world: "Driver", id: int, actions: list[Action], expected: list[Action]) -> None:
    """A report about what is gone changes nothing."""
    if actions != expected:
        raise Violation("shut", f"a late report about {id} → {actions}, expected {expected}")


# --- a request goes out, and again


def check_start(world: "Driver", line: Line, asked: Asked) -> None:
    now = world.clock.now
    if line.key != asked.key:
        raise Violation("truth", f"request {asked.ticket} goes to {line.key.origin.authority()}, not to its own origin")
    if any([ticket < asked.ticket and other.key == asked.key for ticket, other in world.waiting.items()]):
        raise Violation("order", f"request {asked.ticket} goes before one that asked earlier")
    if now > line.met_at + world.limits.max_age + TICK:
        raise Violation("limits", f"a request on connection {line.id}, {now - line.met_at:.3f} s old")
    if line.retired:
        raise Violation("limits", f"a request on connection {line.id}, which is retired")
    if line.idle_since < INFINITY and now > line.idle_since + line.expiry + TICK:
        raise Violation("limits", f"a request on connection {line.id}, idle for {now - line.idle_since:.3f} s")
    conn = line.conn
    if isinstance(conn, HTTP2Connection) and 2 * len(conn.control.unsent) > conn.peer.limit > 0:
        raise Violation("limits", f"a request on connection {line.id}, which is burdened with resets")
    if any([excuse == "http1" for _, excuse in asked.given_up]) and line.protocol == "h2":
        raise Violation("once", f"request {asked.ticket} has to go over HTTP/1.1, and goes over HTTP/2")
    if asked.starts >= 2:
        raise Violation("once", f"request {asked.ticket} goes out for the third time")


def check_replay(world: "Driver", line: Line, asked: Asked) -> str:
    """It is to be tried again; what allows that, if the server may have acted on it."""
    what = f"request {asked.ticket} is tried again"
    if not asked.pool_ask.replay or world.closing_at < INFINITY or asked.cancelled:
        raise Violation("once", f"{what}, and nobody wants that")
    if asked.starts >= 2:
        raise Violation("once", f"{what} a second time")
    if asked.ask.style not in ("whole", "upgrade") and not (asked.ask.style == "declared" and not asked.ask.size):
        raise Violation("once", f"{what}, and its content was not kept")
    if asked.events:
        raise Violation("once", f"{what} after its caller heard of an answer")
    served = line.model.requests.get(asked.ask.key)
    if served is not None and served.code == HTTP_1_1_REQUIRED and H1 in line.key.protocols:
        world.demands.add(line.key)
        return "http1"
    reused = line.protocol == H1 and line.answered > 0 and (line.down.broken or line.down.finished)
    if reused and asked.ask.method in IDEMPOTENT and not line.heard_of_last:
        return "reused"
    model = line.model
    if isinstance(model, Http2Model) and model.crimes:
        return ""  # it may have said anything
    refused = served is not None and served.code == REFUSED_STREAM
    excluded = isinstance(model, Http2Model) and model.goaway_last is not None and asked.ref > model.goaway_last
    if not (refused or excluded or line.never_left):
        raise Violation("once", f"{what}, and nothing says that it was not processed")
    if served is not None and served.acted:
        raise Violation("once", f"{what}, and the server acted on it: {served}")
    return ""


def check_attempt(asked: Asked, attempt: Attempt) -> None:
    """A server has the head of a request."""
    if attempt.line.key != asked.key:
        raise Violation("truth", f"request {asked.ticket} came to another origin")
    if len(asked.attempts) > (2 if asked.pool_ask.replay else 1):
        raise Violation("once", f"request {asked.ticket} came {len(asked.attempts)} times")
    method = "CONNECT" if asked.ask.style == "tunnel" else "GET" if asked.ask.style == "upgrade" else asked.ask.method
    if attempt.served.method != method:
        raise Violation("truth", f"request {asked.ticket} is {method}, {attempt.served.method} came")


def check_acts(asked: Asked) -> None:
    """What the servers did about it, when nothing more will come of it."""
    acted = [each for each in asked.attempts if each.served.acted and not each.excuse and not lies(each)]
    if len(acted) > 1 or (acted and acted[0].line is not asked.line):
        raise Violation("once", f"servers acted {len(acted)} times on request {asked.ticket}, and without excuse")
    for attempt in asked.attempts:
        served = attempt.served
        if asked.ask.style in ("tunnel", "upgrade", "open") or asked.ask.method not in ("POST", "PUT", "PATCH"):
            continue
        if served.complete and served.received != asked.ask.size:
            raise Violation(
                "truth", f"request {asked.ticket} came whole with {served.received} of {asked.ask.size} bytes"
            )


def lies(attempt: Attempt) -> bool:
    """Whether its server's word about what it did not process is worth nothing."""
    return isinstance(attempt.line.model, Http2Model) and bool(attempt.line.model.crimes)


# --- a request fails


def check_attempts(world: "Driver", action: Deliver) -> None:
    """How often it was sent, as the failure tells."""
    asked = world.asked.get(action.ticket)
    if asked is not None and isinstance(action.event, RequestFailed) and action.attempts != asked.starts:
        raise Violation("truth", f"request {action.ticket} went out {asked.starts} times, told is {action.attempts}")


def check_failed(world: "Driver", asked: Asked, failure: Failure) -> None:
    line, now = asked.line, world.clock.now
    if failure.code == HTTP_1_1_REQUIRED and H1 in asked.key.protocols and not asked.events:
        world.demands.add(asked.key)
    if failure.unprocessed:
        if any([excuse and not line.never_left for line, excuse in asked.given_up]):
            raise Violation("unprocessed", f"of request {asked.ticket}'s first attempt nobody knows: {failure}")
        for attempt in asked.attempts:
            if attempt.served.acted and not lies(attempt):
                raise Violation("unprocessed", f"request {asked.ticket} was acted on: {failure}")
    if failure.kind == "LocalProtocolError":
        raise Violation("cause", f"request {asked.ticket} was in order: {failure}")
    if failure.kind == "StreamClosed" and not asked.cancelled and world.closing_at == INFINITY:
        raise Violation("cause", f"request {asked.ticket} was not cancelled: {failure}")
    if line is not None and failure.ref == asked.ref:
        if failure.kind == "StreamClosed" and not asked.cancelled and now < world.closing_at - TICK:
            raise Violation("cause", f"request {asked.ticket} had time left: {failure}")
        if line.id not in world.pool.held and (asked.cancelled or now >= world.closing_at - TICK):
            line.closing = True
        try:
            laws.check_failed(line, asked, failure, False)
        except Violation:
            if line.id in world.pool.held:
                raise
            laws.check_failed(line, asked, failure, True)  # perhaps it failed with its connection
        return
    if failure.kind == "PoolTimeout":
        queue = asked.pool_ask.queue
        if queue is None or now < asked.since + queue - TICK:
            raise Violation("cause", f"request {asked.ticket} has waited for {now - asked.since:.6f} s: {failure}")
        if asked.ticket in carriers(world):
            raise Violation("cause", f"a connection is being made for request {asked.ticket}: {failure}")
    elif failure.kind == "DeadlineExceeded":
        if now < asked.deadline - TICK:
            raise Violation("cause", f"request {asked.ticket} has {asked.deadline - now:.6f} s left: {failure}")
    elif failure.kind == "ConnectTimeout" and is_impatient(world, asked):
        return
    elif failure.kind in ("ConnectError", "ConnectTimeout"):
        if world.failed.get(asked.key, (0.0, "")) != (now, failure.kind) and not dial_is_due(world, asked):
            raise Violation("cause", f"request {asked.ticket}: no dial failed now: {failure}")
        if any([other.key == asked.key for other in world.lines.values()]):
            raise Violation("cause", f"request {asked.ticket} fails with a dial, and there is a connection: {failure}")
    elif failure.kind != "StreamClosed":
        raise Violation("cause", f"request {asked.ticket} waited: {failure}")


def is_impatient(world: "Driver", asked: Asked) -> bool:
    """Its own limit for a dial that it shares has run out."""
    dial = carriers(world).get(asked.ticket)
    return dial is not None and patience(world, asked, dial) <= world.clock.now + TICK


def dial_is_due(world: "Driver", asked: Asked) -> bool:
    return any([dial.action.key == asked.key and dial.until <= world.clock.now for dial in world.dials.values()])


# --- at the end


def check_rest(world: "Driver") -> None:
    """Everything has ended, and all timers have run."""
    pool = world.pool
    if pool.jobs or pool.waiting or pool.dials or world.dials or world.running or world.waiting:
        raise Violation("rest", f"jobs {sorted(pool.jobs)}, dials {sorted(pool.dials)}")
    for site in pool.sites.values():
        if site.waiting or site.dials or not (site.held or has_learnt(pool, site)):
            raise Violation("rest", f"a site is left: {site.key}")
    if pool.idle.keys() != pool.held.keys():
        raise Violation("rest", f"idle are {sorted(pool.idle)} of {sorted(pool.held)}")
    for asked in world.asked.values():
        if not asked.over:
            raise Violation("one ending", f"request {asked.ticket} has not ended")
        check_acts(asked)


def has_learnt(pool: Pool, site: Site) -> bool:
    """Whether there is something about its origin to remember: HTTP_1_1_REQUIRED, or a keepalive that was too eager."""
    return site.only_http1 or site.keepalive != pool.settings.keepalive


def check_closed(world: "Driver") -> None:
    """Nothing is left of a pool that is closed."""
    pool = world.pool
    check_rest(world)
    if pool.held or world.lines or pool.idle or not all([has_learnt(pool, site) for site in pool.sites.values()]):
        raise Violation("rest", f"after close: connections {sorted(pool.held)}, sites {list(pool.sites)}")
    if pool.out or pool.freed:
        raise Violation("rest", f"after close: actions that nobody got: {pool.out}")
    wrong = [id for id in range(1, pool.next_id) if world.shuts[id] != 1]
    if wrong:
        raise Violation("shut", f"no Shut, or two, for {wrong}")
