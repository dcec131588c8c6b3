"""Which connection carries which request: the one mutable object of the core, and still without I/O, clock or lock.

A pool holds the only reference to each connection value, so nothing is counted twice: what is free follows from the values
(`refresh`). A driver calls these verbs under its own lock, with the time, and carries out the actions that come back. A dial
belongs to the pool and never to the request that asked for it; a request that waits has no slot, and one that has a slot is
known to its connection.
"""

from typing import Final

from calamint.core import verbs
from calamint.core.errors import HTTP_1_1_REQUIRED, NO_ERROR, Failure, LocalProtocolError
from calamint.core.events import Event, InterimReceived, RequestFailed, ResponseEnded, ResponseReceived
from calamint.core.exchange import CLOCKS, Clocks, check_seconds
from calamint.core.fields import find_keepalive
from calamint.core.http1_state import IDEMPOTENT
from calamint.core.http2_state import HTTP2Connection
from calamint.core.pool_state import (
    DIALS,
    FAILURES,
    H1,
    REPLAYS,
    REQUESTS,
    Action,
    Deliver,
    Dial,
    Held,
    Job,
    Key,
    Pool,
    PoolSnapshot,
    Shut,
    Site,
    Write,
    as_known,
    check,
    keeping,
)
from calamint.core.pool_view import (
    carriers,
    count_output,
    due,
    holders,
    name,
    snapshot,
    tell_connection,
    tell_dial,
    tell_end,
    tell_failure,
    tell_replay,
)
from calamint.core.snapshot import Snapshot
from calamint.core.value import INFINITY, Fields

ATTEMPTS: Final = 2  # a request that was not processed is tried once more, and no more
ABANDONED: Final = 10.0  # seconds that a dial has at most when nobody waits for it any more
SURPLUS: Final = 1.0  # seconds that an idle connection above max_keepalive_connections is kept: a burst may want it
REMEMBERED: Final = 256  # origins, those in use included, above which nothing learnt is kept
RETRY: Final = 1.0  # seconds after a dial that failed until the next, where other connections serve meanwhile


def finish(pool: Pool, now: float) -> list[Action]:
    """The end of every verb: whoever was kept from dialling by what is gone now may; the actions since the last."""
    while pool.freed:
        pool.freed = False
        served: set[Key] = set()
        for job in list(pool.waiting.values()):
            if job.key not in served:
                served.add(job.key)
                serve(pool, pool.sites[job.key], now)
    actions = pool.out
    pool.out = []
    return actions


# What a caller does


def submit(
    pool: Pool,
    key: Key,
    method: str,
    target: str,
    fields: Fields,
    content: bytes | None,
    now: float,
    end: bool = True,
    deadline: float = INFINITY,
    clocks: Clocks = CLOCKS,
    queue: float | None = 30.0,
    connect: float | None = 10.0,
    replay: bool = True,
    protocol: str = "",
) -> tuple[int, list[Action]]:
    """A request, on a connection that has room or as soon as one has; its ticket, and what to do now.

    `deadline`: when it must be over; `queue`: seconds that it may wait for a slot, except that it is not given up while a
    connection is made for it; `connect`: seconds for a dial that it causes or joins. The rest as in `verbs.request`. Raises
    LocalProtocolError for what may not be sent, and ValueError for seconds that are none; then nothing has changed.
    """
    if pool.closing_at < INFINITY:
        raise LocalProtocolError("the pool is closing: it takes no new requests")
    waits, dials = check_seconds("queue", queue), check_seconds("connect", connect)
    site = pool.sites.get(key)
    if site is None or not site.free:  # or the connection checks it
        check(method, target, fields, protocol, key)
    if site is None:
        site = Site(key, pool.settings.keepalive)
        pool.sites[key] = site
    ticket = pool.next_ticket
    job = Job(ticket, key, method, target, fields, content, end, deadline, clocks, protocol, dials, waits, replay, now)
    if not site.waiting and site.free:
        start(pool, next(reversed(site.free.values())), job, now)
    else:
        wait(pool, site, job)
        serve(pool, site, now)
    pool.next_ticket = ticket + 1
    pool.jobs[ticket] = job
    pool.counts[REQUESTS] += 1
    return ticket, finish(pool, now)


def send_data(
    pool: Pool, ticket: int, data: bytes, now: float, end: bool = False, trailers: Fields = ()
) -> list[Action]:
    """More of a request's content; it waits with the request. See `verbs.send_data`."""
    job = pool.jobs.get(ticket)
    if job is None:
        raise LocalProtocolError(f"request {ticket} is over: its content is not wanted any more")
    if not job.id:
        if job.end or (job.given and job.given[-1][1]):
            raise LocalProtocolError(f"the content of request {ticket} has been ended")
        job.given.append((data, end or bool(trailers), trailers))
        return []
    held = pool.held[job.id]
    held.value, out = verbs.send_data(held.value, job.ref, data, now, end, trailers)
    write(pool, held, out)
    pool.wake = min(pool.wake, verbs.next_timeout(held.value))
    return finish(pool, now)


def consume(pool: Pool, ticket: int, size: int, now: float) -> list[Action]:
    """The reader took `size` bytes. A no-op when the request is over."""
    job = pool.jobs.get(ticket)
    if job is not None and job.id:
        held = pool.held[job.id]
        held.value, out, _ = verbs.consume(held.value, job.ref, size, now)  # to which nothing happens, nor to its slots
        write(pool, held, out)
        pool.wake = min(pool.wake, held.value.wake)
    return finish(pool, now)


def cancel(pool: Pool, ticket: int, now: float) -> list[Action]:
    """The caller wants no more of it. A no-op when the request is over."""
    job = pool.jobs.get(ticket)
    if job is not None and job.id:
        held = pool.held[job.id]
        step(pool, held, verbs.cancel(held.value, job.ref, now), now)
    elif job is not None:
        words = f"{job.method} {job.target}: cancelled by its caller, while it waited for a slot"
        fail(pool, job, Failure("StreamClosed", -1, words), now)
    return finish(pool, now)


def close(pool: Pool, now: float, grace: float = 0.0) -> list[Action]:
    """Takes nothing new; what waits fails, what runs has `grace` seconds to end, and is reset then."""
    pool.closing_at = min(pool.closing_at, now + grace)
    for job in list(pool.waiting.values()):
        fail(pool, job, Failure("StreamClosed", -1, f"{job.method} {job.target}: the pool was closed"), now)
    for dial in list(pool.dials.values()):
        forget(pool, dial)
    for held in list(pool.held.values()):
        settle(pool, held, now)
    pool.wake = min(pool.wake, pool.closing_at)
    actions = finish(pool, now)
    return [*actions, *handle_timeout(pool, now)]


# What a driver reports


def connected(pool: Pool, id: int, protocol: str, now: float) -> list[Action]:
    """A dial has come through, and the peer speaks this."""
    dial = pool.dials.get(id)
    if dial is None:
        return [Shut(id)]
    site = pool.sites[dial.key]
    value, data = verbs.connect(protocol, dial.key.origin, keeping(pool.settings, site.keepalive), now)
    del pool.dials[id]
    site.dials.discard(id)
    site.speaks = protocol
    held = Held(id, dial.key, value, pool.limits.keepalive_expiry, now)
    tell_dial(pool, dial, protocol, now)
    pool.held[id] = held
    site.held[id] = held
    write(pool, held, data)
    settle(pool, held, now)
    if site.waiting:  # whom it did not serve, and whose time in the queue may be over
        pool.wake = min(pool.wake, now)
    return finish(pool, now)


def dial_failed(pool: Pool, id: int, failure: Failure, now: float) -> list[Action]:
    """A dial has failed. Where its key has nothing else, all that wait for it fail with it."""
    dial = pool.dials.get(id)
    if dial is not None:
        give_up(pool, dial, failure, now)
    return finish(pool, now)


def give_up(pool: Pool, dial: Dial, failure: Failure, now: float) -> None:
    """A dial is over without a connection."""
    site = forget(pool, dial)
    tell_dial(pool, dial, failure.message, now)
    if not site.held and not site.dials:
        for job in list(site.waiting.values()):
            if failure.clock and dial.since + job.connect > dial.deadline:
                continue  # it allows more time than the one that was dialled for: another dial
            words = f"{job.method} {job.target}: {failure.message}"
            more = (failure.status, failure.fields)
            fail(pool, job, Failure(failure.kind, failure.code, words, 0, True, -1, failure.clock, *more), now)
    elif site.waiting:  # they wait for what there is, and for another try, which is not made at once
        site.retry_at = now + RETRY
        pool.wake = min(pool.wake, now)  # nobody is carried by this dial any more


def forget(pool: Pool, dial: Dial) -> Site:
    """The dial is no longer the pool's; its site."""
    del pool.dials[dial.id]
    site = pool.sites[dial.key]
    site.dials.discard(dial.id)
    pool.out.append(Shut(dial.id))
    pool.freed = True
    tidy(pool, site)
    return site


def received(pool: Pool, id: int, data: bytes, now: float) -> list[Action]:
    """What arrived on a connection."""
    held = pool.held.get(id)
    if held is not None:
        step(pool, held, verbs.receive(held.value, data, now), now)
    return finish(pool, now)


def flushed(pool: Pool, id: int, now: float, unsent: int = 0) -> list[Action]:
    """The kernel has all that was to be written to this connection, but for the last `unsent` bytes."""
    held = pool.held.get(id)
    if held is not None:
        before = held.value
        held.value, out, events = verbs.flush(before, now, unsent)
        if held.value is not before:
            write(pool, held, out)
            report(pool, held, before, events, now)
            pool.wake = min(pool.wake, held.value.wake)
    return finish(pool, now)


def closed(pool: Pool, id: int, now: float, unsent: int = 0, clean: bool = False, reason: str = "") -> list[Action]:
    """The transport ended, and the last `unsent` bytes never left."""
    held = pool.held.get(id)
    if held is not None:
        before = held.value
        held.value, events = verbs.closed(before, now, unsent, clean, reason)
        report(pool, held, before, events, now, not before.buffer)
        settle(pool, held, now)
    return finish(pool, now)


def wants_read(pool: Pool, id: int) -> bool:
    """Whether a driver should read from this connection now."""
    held = pool.held.get(id)
    return held is not None and verbs.wants_read(held.value)


def wants_shutdown(pool: Pool, id: int) -> bool:
    """Whether a driver should shut down its side of this connection once all is written: our end of an HTTP/1.1 tunnel."""
    held = pool.held.get(id)
    return held is not None and verbs.wants_shutdown(held.value)


def next_timeout(pool: Pool) -> float:
    """When `handle_timeout` has to be called, as a time of the same clock as `now`; INFINITY for never."""
    return pool.wake


def handle_timeout(pool: Pool, now: float) -> list[Action]:
    """Ends what has taken too long: requests that run or wait, dials, idle connections; harmless when it comes early."""
    if now < pool.wake:
        return []
    for dial in list(pool.dials.values()):
        if dial.deadline <= now:
            allowed = round(dial.deadline - dial.since, 3)
            what = f"no connection to {name(dial.key)} after {now - dial.since:.2f} s (connect={allowed:.10g})"
            give_up(pool, dial, Failure("ConnectTimeout", -1, what, 0, True, -1, "connect"), now)
    pool.wake = INFINITY if pool.closing_at <= now else pool.closing_at
    for job in [job for job in pool.waiting.values() if job.deadline <= now]:  # first: others have their dials then
        expire(pool, job, None, now)
    carried = carriers(pool)
    pool.wake = min([pool.wake, *[dial.deadline for dial in pool.dials.values()]])
    for job in list(pool.waiting.values()):
        until = due(pool, job, carried.get(job.ticket))
        if until <= now:
            expire(pool, job, carried.get(job.ticket), now)
        else:
            pool.wake = min(pool.wake, until)
    for held in list(pool.held.values()):
        if held.id in pool.held:  # it may have had to give way meanwhile
            before = held.value
            held.value, out, events = verbs.handle_timeout(before, now)
            write(pool, held, out)
            report(pool, held, before, events, now)
            settle(pool, held, now)
            if pool.closing_at <= now and held.id in pool.held:
                shut(pool, held, now)
    pool.freed = True  # a site that has no connection may be due for its next dial
    return finish(pool, now)


def expire(pool: Pool, job: Job, carrier: Dial | None, now: float) -> None:
    """A request has waited long enough: PoolTimeout says who holds the slots."""
    what, waited = f"{job.method} {job.target}", now - job.since
    if job.deadline <= now:
        words = f"{what}: {waited:.2f} s in the queue for a slot until its deadline"
        fail(pool, job, Failure("DeadlineExceeded", -1, words, 0, True, -1, "total"), now)
    elif carrier is not None:
        waited = now - max(job.since, carrier.since)
        words = f"{what}: no connection to {name(job.key)} after {waited:.2f} s (connect={job.connect:.10g})"
        fail(pool, job, Failure("ConnectTimeout", -1, words, 0, True, -1, "connect"), now)
    else:
        words = f"{what}: {waited:.2f} s in the queue for a slot (pool={job.queue:.10g}), {holders(pool, job.key, now)}"
        fail(pool, job, Failure("PoolTimeout", -1, words, 0, True, -1, "pool"), now, snapshot(pool, now))


# What the pool decides


def wait(pool: Pool, site: Site, job: Job, again: bool = False) -> None:
    """The request waits for a slot: whoever asked first goes first, also `again`, when it is tried once more."""
    job.id = 0
    site.waiting[job.ticket] = job
    if again:
        site.waiting = dict(sorted(site.waiting.items()))
        pool.wake = min(pool.wake, job.since)  # one behind it may have no dial any more
    pool.waiting[job.ticket] = job
    pool.wake = min(pool.wake, job.until, job.since + job.connect if site.dials else INFINITY)


def start(pool: Pool, held: Held, job: Job, now: float) -> None:
    """The request goes out on this connection, with what it was given so far. Raises LocalProtocolError."""
    value, out, ref = verbs.request(
        held.value,
        job.method,
        job.target,
        job.fields,
        job.content,
        now,
        job.end,
        job.deadline,
        job.clocks,
        job.protocol,
    )
    for data, end, trailers in job.given:
        value, more = verbs.send_data(value, ref, data, now, end, trailers)
        out += more
    held.value = value
    held.jobs[ref] = job
    job.id = held.id
    job.ref = ref
    job.attempts += 1
    job.since = now
    write(pool, held, out)
    refresh(pool, held)


def serve(pool: Pool, site: Site, now: float) -> None:
    """Whoever waits and can be served is: no request waits while a slot is free. Then dial, if somebody still waits."""
    while site.waiting and site.free:
        job = next(iter(site.waiting.values()))
        unqueue(pool, site, job, now)
        try:
            start(pool, next(reversed(site.free.values())), job, now)
        except LocalProtocolError as mistake:  # this protocol does not take it
            end(pool, job, RequestFailed(job.ref, Failure("LocalProtocolError", -1, str(mistake), job.ref)), now)
    while site.waiting and wants_dial(pool, site, now) and make_room(pool, site, now):
        job = list(site.waiting.values())[len(site.dials) if site.speaks == H1 else 0]  # the one that it is for
        protocols = (H1,) if site.only_http1 else site.key.protocols
        dial = Dial(pool.next_id, site.key, protocols, now + job.connect, now)
        pool.next_id += 1
        pool.dials[dial.id] = dial
        site.dials.add(dial.id)
        pool.counts[DIALS] += 1
        pool.wake = min(pool.wake, dial.deadline)
        if site.speaks != H1:  # it is for all of them
            pool.wake = min(pool.wake, now + min([job.connect for job in site.waiting.values()]))
        pool.out.append(dial)


def wants_dial(pool: Pool, site: Site, now: float) -> bool:
    """Whether another connection would serve somebody: one dial at a time, but one for each where HTTP/1.1 is spoken."""
    if now < site.retry_at:
        pool.wake = min(pool.wake, site.retry_at)
        return False
    if site.speaks == H1:
        return len(site.dials) < len(site.waiting)
    usable = [held for held in site.held.values() if not held.retired and not verbs.is_draining(held.value)]
    return not site.dials and len(usable) < pool.limits.max_per_origin


def make_room(pool: Pool, site: Site, now: float) -> bool:
    """Whether another connection is allowed; the one that is idle for the longest gives way."""
    if len(pool.held) + len(pool.dials) >= pool.limits.max_connections and pool.idle:
        shut(pool, next(iter(pool.idle.values())), now)
    return len(pool.held) + len(pool.dials) < pool.limits.max_connections


def step(pool: Pool, held: Held, result: verbs.Step, now: float) -> None:
    """A verb's result: the next value, what it puts out, and what happened."""
    if result[0] is held.value:
        return
    before = held.value
    held.value, out, events = result
    write(pool, held, out)
    report(pool, held, before, events, now)
    settle(pool, held, now)


def report(
    pool: Pool, held: Held, before: verbs.Connection, events: list[Event], now: float, silent: bool = False
) -> None:
    """What happened on a connection, to whom it happened; with its first failure goes what there was before."""
    for event in events:
        ref: int = getattr(event, "ref", 0)
        job = held.jobs.get(ref)
        if job is None:
            tell_connection(pool, held, event)
            continue
        if isinstance(event, RequestFailed):
            del held.jobs[ref]
            tell_failure(pool, job, event.failure, now)
            if may_replay(pool, held, job, event.failure, silent):
                pool.counts[REPLAYS] += 1
                tell_replay(pool, job, event.failure, now)
                job.acted = job.acted or not event.failure.unprocessed
                job.since = now
                job.until = min(job.deadline, now + job.queue)
                wait(pool, pool.sites[held.key], job, True)
            elif held.failed or event.failure.kind == "StreamClosed":
                end(pool, job, as_known(job, event), now)
            else:
                held.failed = True
                end(pool, job, as_known(job, event), now, verbs.snapshot(before, now))
            continue
        if isinstance(event, ResponseEnded):
            del held.jobs[ref]
            held.served += 1
            end(pool, job, event, now)
            continue
        if isinstance(event, ResponseReceived):
            job.heard = True
            job.status = event.status
            said = -1 if isinstance(held.value, HTTP2Connection) else find_keepalive(event.fields)
            if said >= 0:
                held.expiry = min(pool.limits.keepalive_expiry, said)
        elif isinstance(event, InterimReceived):
            job.heard = True
        pool.out.append(Deliver(job.ticket, event))


def may_replay(pool: Pool, held: Held, job: Job, failure: Failure, silent: bool) -> bool:
    """Whether it may be sent once more (DESIGN, law 9): only what can be sent again as it was, and only once."""
    site = pool.sites[held.key]
    demanded = failure.code == HTTP_1_1_REQUIRED and H1 in held.key.protocols and not job.heard
    if demanded:
        site.only_http1 = True
        for other in site.held.values():
            refresh(pool, other)
        pool.wake = min(pool.wake, held.value.now)  # those that are idle go at once
    if not job.replay or job.attempts >= ATTEMPTS or not job.end or job.heard or pool.closing_at < INFINITY:
        return False
    if demanded:
        return True
    if failure.unprocessed:  # but not for ever with a peer that ends each new connection with an error
        return failure.code <= NO_ERROR or failure.kind != "ConnectionTerminated" or held.served > 0
    reused = held.served > 0 and not isinstance(held.value, HTTP2Connection)
    return reused and silent and failure.kind == "ReadError" and job.method in IDEMPOTENT


def refresh(pool: Pool, held: Held) -> bool:
    """What follows from a connection's value for those who look for a slot; whether it takes no new requests any more."""
    value = held.value
    site = pool.sites[held.key]
    if isinstance(value, HTTP2Connection):
        if site.only_http1 or 2 * len(value.control.unsent) > value.peer.limit > 0:
            held.retired = True  # or its slots are taken by resets that have to wait
    over = False
    if not held.retired and verbs.capacity(value) > 0:  # which it has not where it is draining
        site.free[held.id] = held
    else:
        over = held.retired or verbs.is_draining(value)
        site.free.pop(held.id, None)
    if verbs.in_flight(value):
        held.idle_at = INFINITY
        pool.idle.pop(held.id, None)
    if value.wake < pool.wake:
        pool.wake = value.wake
    return over


def settle(pool: Pool, held: Held, now: float) -> None:
    """After anything that changed a connection: its slots go to those who wait, and where nobody does, it is idle or over."""
    site = pool.sites[held.key]
    if verbs.is_closed(held.value):
        drop(pool, held)
        return
    if not held.retired:
        old_at = held.born + pool.limits.max_age  # in the very sum that the timer is set to: now is not before it
        held.retired = old_at <= now
        pool.wake = min(pool.wake, INFINITY if held.retired else old_at)
    over = refresh(pool, held)
    serve(pool, site, now)
    if held.id not in pool.held or verbs.in_flight(held.value):
        return
    if held.idle_at == INFINITY:
        held.idle_at = now
        pool.freed = True  # it may give way to somebody's dial
    pool.idle[held.id] = held
    if over or pool.closing_at < INFINITY or held.idle_at + held.expiry <= now:
        shut(pool, held, now)
        return
    pool.wake = min(pool.wake, held.idle_at + held.expiry)
    if len(pool.idle) > pool.limits.max_keepalive_connections:
        oldest = next(iter(pool.idle.values()))
        if pool.limits.max_keepalive_connections and now < oldest.idle_at + SURPLUS:
            pool.wake = min(pool.wake, oldest.idle_at + SURPLUS)
        else:
            shut(pool, oldest, now)


def shut(pool: Pool, held: Held, now: float) -> None:
    """We end a connection, and whatever runs on it."""
    before = held.value
    held.value, out, events = verbs.close(before, now)
    write(pool, held, out)
    report(pool, held, before, events, now)
    drop(pool, held)


def drop(pool: Pool, held: Held) -> None:
    """A connection is over: it leaves every index."""
    site = pool.sites[held.key]
    del pool.held[held.id]
    del site.held[held.id]
    site.free.pop(held.id, None)
    pool.idle.pop(held.id, None)
    pool.out.append(Shut(held.id))
    pool.freed = True
    tidy(pool, site)


def tidy(pool: Pool, site: Site) -> None:
    """A site of which nothing is left is forgotten, unless it has taught us something, and not too many others have."""
    learnt = (site.only_http1 or site.keepalive != pool.settings.keepalive) and len(pool.sites) <= REMEMBERED
    if not (site.held or site.dials or site.waiting or learnt):
        pool.sites.pop(site.key, None)


def write(pool: Pool, held: Held, data: bytes) -> None:
    """Bytes for a connection."""
    if data:
        pool.out.append(Write(held.id, data))
        count_output(pool, held)


def unqueue(pool: Pool, site: Site, job: Job, now: float) -> None:
    """The request no longer waits; a dial for which nobody waits any more does not hold its place for ever."""
    del site.waiting[job.ticket]
    del pool.waiting[job.ticket]
    for id in sorted(site.dials)[len(site.waiting) :]:
        dial = pool.dials[id]
        if dial.deadline > now + ABANDONED:
            pool.dials[id] = Dial(id, dial.key, dial.protocols, now + ABANDONED, dial.since)
            pool.wake = min(pool.wake, now + ABANDONED)
    tidy(pool, site)


def fail(pool: Pool, job: Job, failure: Failure, now: float, seen: PoolSnapshot | None = None) -> None:
    """A request that waits ends: nobody acted on it, unless it waits to be tried again."""
    unqueue(pool, pool.sites[job.key], job, now)
    tell_failure(pool, job, failure, now)
    end(pool, job, as_known(job, RequestFailed(0, failure)), now, seen)


def end(pool: Pool, job: Job, event: Event, now: float, seen: Snapshot | PoolSnapshot | None = None) -> None:
    """The request is over, with this event."""
    tell_end(pool, job, event, now)
    pool.jobs.pop(job.ticket, None)
    if isinstance(event, RequestFailed):
        pool.counts[FAILURES] += 1
    pool.out.append(Deliver(job.ticket, event, job.attempts, seen))
