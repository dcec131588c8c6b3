"""What can be seen of a pool: its snapshot, its numbers, and what it tells of as it happens."""

from typing import Final

from calamint.core import verbs
from calamint.core.errors import ENHANCE_YOUR_CALM, Failure
from calamint.core.events import ConnectionClosed, Event, GoAwayReceived, RequestFailed
from calamint.core.http2_state import HTTP2Connection
from calamint.core.pool_state import (
    GOAWAYS,
    H1,
    RESETS_RECEIVED,
    RESETS_SENT,
    STALLS,
    Dial,
    Held,
    Job,
    Key,
    Pool,
    PoolSnapshot,
    Report,
    Stats,
    Waiting,
)
from calamint.core.value import INFINITY

SHOWN: Final = 10  # of those who hold slots, in a message


def name(key: Key) -> str:
    """The origin, as in a URL."""
    return f"{key.origin.scheme}://{key.origin.authority()}"


def snapshot(pool: Pool, now: float) -> PoolSnapshot:
    """Every connection, stream, waiting request and dial at this moment."""
    return PoolSnapshot(
        tuple([verbs.snapshot(held.value, now) for held in pool.held.values()]),
        tuple(
            [
                Waiting(job.ticket, job.method, job.target, name(job.key), now - job.since)
                for job in pool.waiting.values()
            ]
        ),
        tuple([(name(dial.key), dial.deadline - now) for dial in pool.dials.values()]),
    )


def stats(pool: Pool, now: float) -> Stats:
    """Numbers, whatever the size of the pool."""
    waiting = len(pool.waiting)
    oldest = now - next(iter(pool.waiting.values())).since if waiting else 0.0
    running = len(pool.jobs) - waiting
    timeouts = tuple(pool.timeouts.items())
    return Stats(len(pool.held), len(pool.idle), len(pool.dials), running, waiting, oldest, timeouts, *pool.counts)


def queued(pool: Pool, ticket: int) -> int:
    """Bytes of this request's content that wait, for a slot, a window or the socket; 0 when it is over."""
    job = pool.jobs.get(ticket)
    if job is None:
        return 0
    if not job.id:
        return sum([len(data) for data, _, _ in job.given])
    return verbs.queued(pool.held[job.id].value, job.ref)


def protocol(pool: Pool, ticket: int) -> str:
    """What this request is spoken in, as ALPN names it; empty while it waits and when it is over."""
    job = pool.jobs.get(ticket)
    return verbs.protocol(pool.held[job.id].value) if job is not None and job.id else ""


def connection(pool: Pool, ticket: int) -> int:
    """The connection that this request runs on; 0 while it waits and when it is over."""
    job = pool.jobs.get(ticket)
    return 0 if job is None else job.id


def is_unsent(pool: Pool, id: int, unsent: int) -> bool:
    """Whether of the request on this HTTP/1.1 connection, which has served others, some of the head is unsent yet.

    `unsent`: bytes of the connection's output that have not left.
    """
    held = pool.held.get(id)
    if held is None or not held.served or isinstance(held.value, HTTP2Connection):
        return False
    requests = held.value.requests
    return bool(requests) and requests[-1].head_offset > held.value.written - unsent


def is_dialling(pool: Pool, ticket: int) -> bool:
    """Whether this request waits for a connection that is being made."""
    job = pool.jobs.get(ticket)
    return job is not None and not job.id and bool(pool.sites[job.key].dials)


def carriers(pool: Pool) -> dict[int, Dial]:
    """The dials that waiting requests may hope for, by ticket: for all of a key, or, over HTTP/1.1, each for one."""
    found: dict[int, Dial] = {}
    for key in {dial.key for dial in pool.dials.values()}:
        site = pool.sites[key]
        dials = [pool.dials[id] for id in sorted(site.dials)]
        if site.speaks == H1:
            found.update(zip(site.waiting, dials, strict=False))
        else:
            found.update(dict.fromkeys(site.waiting, dials[0]))
    return found


def due(pool: Pool, job: Job, dial: Dial | None) -> float:
    """When a request that waits has waited long enough; while a connection is made for it, its `connect` clock runs instead.

    Where each dial is for one request, because HTTP/1.1 is spoken, the limit of the dial is that of its request.
    """
    if dial is None:
        return job.until
    shared = pool.sites[job.key].speaks != H1
    return min(job.deadline, max(job.since, dial.since) + job.connect if shared else INFINITY)


def holders(pool: Pool, key: Key, now: float) -> str:
    """In words: who holds the slots that a request with this key waits for, or the places that its dial would need."""
    jobs = [job for held in pool.sites[key].held.values() for job in held.jobs.values()]
    who = [f"{job.method} {job.target} for {now - job.since:.2f} s" for job in jobs]
    if len(pool.held) + len(pool.dials) >= pool.limits.max_connections:
        who += [f"a connection to {name(held.key)}" for held in pool.held.values() if held.key != key]
        who += [f"a dial to {name(dial.key)} for {now - dial.since:.2f} s" for dial in pool.dials.values()]
    return f"{len(who)} taken by: {'; '.join(who[:SHOWN]) or 'nobody: no connection has room'}"


def count_output(pool: Pool, held: Held) -> None:
    """Resets that went out, and content that began to wait for the peer's window, since this was last looked at."""
    value = held.value
    if not isinstance(value, HTTP2Connection):
        return
    control = value.control
    if control.resets != held.resets:
        sent = control.resets - held.resets
        pool.counts[RESETS_SENT] += sent
        held.resets = control.resets
        if pool.traced:
            pool.out.append(Report("reset", name(held.key), held.id, 0, f"{sent} RST_STREAM sent"))
    if control.stalls != held.stalls:
        pool.counts[STALLS] += control.stalls - held.stalls
        held.stalls = control.stalls
        if pool.traced:
            pool.out.append(Report("stall", name(held.key), held.id, 0, "content waits for the peer's window"))


def tell_connection(pool: Pool, held: Held, event: Event) -> None:
    """Something happened to a connection, or to a request that is over for its caller."""
    if isinstance(event, GoAwayReceived):
        tell_goaway(pool, held, event)
    elif isinstance(event, ConnectionClosed):
        tell_closed(pool, held, event)


def tell_goaway(pool: Pool, held: Held, event: GoAwayReceived) -> None:
    """The peer ends the connection (RFC 9113 §6.8); where we were too eager (§10.5), its origin gets fewer PINGs."""
    pool.counts[GOAWAYS] += 1
    if event.code == ENHANCE_YOUR_CALM:
        pool.sites[held.key].keepalive *= 2
    text = f"GOAWAY, last stream {event.last_stream_id}, {event.debug!r}"
    pool.out.append(Report("goaway", name(held.key), held.id, 0, text, event.code))


def tell_closed(pool: Pool, held: Held, event: ConnectionClosed) -> None:
    """A connection is over; where its peer broke HTTP, or is gone, that is worth a warning."""
    failure = event.failure
    if failure is not None and (failure.kind == "RemoteProtocolError" or failure.clock == "ping"):
        pool.out.append(Report("condemned", name(held.key), held.id, 0, failure.message, failure.code))


def tell_failure(pool: Pool, job: Job, failure: Failure, now: float) -> None:
    """An attempt has failed: a clock of its own, or the peer's reset."""
    if failure.clock:
        pool.timeouts[failure.clock] = pool.timeouts.get(failure.clock, 0) + 1
        if pool.traced:
            text, seconds = failure.message, now - job.asked_at
            pool.out.append(Report("timeout", name(job.key), job.id, job.ticket, text, -1, seconds))
    elif failure.kind == "StreamReset":
        pool.counts[RESETS_RECEIVED] += 1
        if pool.traced:
            pool.out.append(Report("reset", name(job.key), job.id, job.ticket, failure.message, failure.code))


def tell_end(pool: Pool, job: Job, event: Event, now: float) -> None:
    """A request is over."""
    if pool.traced:
        if isinstance(event, RequestFailed):
            text, code = event.failure.message, -1
        else:
            text, code = f"{job.method} {job.target}: {job.status}", job.status
        pool.out.append(Report("request", name(job.key), job.id, job.ticket, text, code, now - job.asked_at))


def tell_replay(pool: Pool, job: Job, failure: Failure, now: float) -> None:
    """A request goes out once more."""
    if pool.traced:
        text = f"{job.method} {job.target} is sent once more, after: {failure.message}"
        pool.out.append(Report("replay", name(job.key), job.id, job.ticket, text, failure.code, now - job.asked_at))


def tell_dial(pool: Pool, dial: Dial, outcome: str, now: float) -> None:
    """A dial is over: the protocol that it came through with, or why it failed."""
    if pool.traced:
        pool.out.append(Report("dial", name(dial.key), dial.id, 0, outcome, -1, now - dial.since))
