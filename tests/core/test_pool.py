"""The pool: which connection carries which request, who waits, who dials, what is tried again.

A driver in memory carries out the actions: a dial is answered by the test, bytes go to a peer of `http2_peer` or, over
HTTP/1.1, into a list. After every verb the books are compared (`check_books`).
"""

import sys
from types import FrameType
from typing import Final

import pytest

from calamint.core import pool as desk
from calamint.core import pool_view, verbs
from calamint.core.errors import Failure, LocalProtocolError
from calamint.core.events import DataReceived, Event, RequestFailed, ResponseEnded, ResponseReceived
from calamint.core.exchange import Clocks, Settings
from calamint.core.http2_state import HTTP2Connection
from calamint.core.pool_state import Action, Deliver, Dial, Key, Limits, Pool, PoolSnapshot, Report, Shut
from calamint.core.snapshot import Snapshot
from calamint.core.url import Origin
from calamint.core.value import INFINITY, Fields
from tests.core import http2_peer as wire
from tests.core.test_http2_state import LAST, altered

A: Final = Key(Origin("https", "a.test", 443))
B: Final = Key(Origin("https", "b.test", 443))
PLAIN: Final = Key(Origin("http", "c.test", 80), protocols=("http/1.1",))
HELLO: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


def check_books(pool: Pool, now: float) -> None:
    """Nothing is in two places, nothing in none, and nobody waits while a slot is free."""
    running = {job.ticket for held in pool.held.values() for job in held.jobs.values()}
    assert not running & set(pool.waiting)
    assert running | set(pool.waiting) == set(pool.jobs)
    assert sorted(ticket for site in pool.sites.values() for ticket in site.waiting) == sorted(pool.waiting)
    for key, site in pool.sites.items():
        assert {id for id, held in pool.held.items() if held.key == key} == set(site.held)
        assert {id for id, dial in pool.dials.items() if dial.key == key} == site.dials
        assert not (site.waiting and site.free), "somebody waits while a slot is free"
        learnt = site.only_http1 or site.keepalive != pool.settings.keepalive
        assert site.held or site.dials or site.waiting or learnt
    for id, held in pool.held.items():
        assert not verbs.is_closed(held.value)
        assert verbs.in_flight(held.value) == len(held.jobs)
        assert all([verbs.is_live(held.value, ref) and job.id == id for ref, job in held.jobs.items()])
        room = 0 if held.retired else verbs.capacity(held.value)
        assert (id in pool.sites[held.key].free) == (room > 0)
        assert (id in pool.idle) == (not held.jobs)
        assert pool.wake <= verbs.next_timeout(held.value)
    for job in pool.waiting.values():
        assert pool.wake <= max(now, job.deadline if pool.sites[job.key].dials else job.until)
    assert len(pool.held) + len(pool.dials) <= pool.limits.max_connections


class World:
    """A pool, its driver in memory, and peers that answer when the test says so."""

    def __init__(self, limits: Limits | None = None, settings: Settings | None = None, announced: int = 100) -> None:
        self.pool = Pool(limits or Limits(), settings or Settings(keepalive=None, first_streams=min(100, announced)))
        self.now = 0.0
        self.announced = announced
        self.dials: list[Dial] = []
        self.shut: list[int] = []
        self.peers: dict[int, wire.Peer] = {}
        self.lines: dict[int, bytes] = {}  # what went out over HTTP/1.1
        self.events: dict[int, list[Event]] = {}
        self.reports: list[Report] = []
        self.seen: dict[int, Snapshot | PoolSnapshot | None] = {}  # what was delivered with the end of each
        self.attempts: dict[int, int] = {}

    def act(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Dial):
                self.dials.append(action)
            elif isinstance(action, Shut):
                self.shut.append(action.id)
            elif isinstance(action, Report):
                self.reports.append(action)
            elif isinstance(action, Deliver):
                self.events.setdefault(action.ticket, []).append(action.event)
                self.seen[action.ticket] = action.snapshot
                self.attempts[action.ticket] = action.attempts
            elif action.id in self.lines:
                self.lines[action.id] += action.data
            elif action.id in self.peers:
                self.peers[action.id].take(action.data)
            elif action.data.startswith(wire.CLIENT_PREFACE):
                self.peers[action.id] = wire.Peer(action.data)
            else:
                self.lines[action.id] = action.data
        check_books(self.pool, self.now)

    def submit(
        self, key: Key = A, method: str = "GET", fields: Fields = (), content: bytes | None = None, **more: float
    ) -> int:
        end = more.pop("end", True)
        replay = bool(more.pop("replay", True))
        ticket, actions = desk.submit(
            self.pool,
            key,
            method,
            "/",
            fields,
            content,
            self.now,
            bool(end),
            replay=replay,
            **more,  # type: ignore[arg-type]  # floats by name
        )
        self.act(actions)
        return ticket

    def connect(self, protocol: str = "h2", greet: bool = True) -> int:
        """The oldest dial comes through."""
        id = self.dials.pop(0).id
        self.act(desk.connected(self.pool, id, protocol, self.now))
        if protocol == "h2" and greet:
            self.receive(
                id, self.peers[id].announce((wire.MAX_CONCURRENT_STREAMS, self.announced)) + wire.settings_ack()
            )
        return id

    def receive(self, id: int, data: bytes) -> None:
        self.act(desk.received(self.pool, id, data, self.now))

    def answer(self, id: int, ref: int = 1) -> None:
        self.receive(
            id, HELLO if id in self.lines else self.peers[id].head(ref) + self.peers[id].data(ref, b"hello", end=True)
        )

    def pass_time(self, now: float) -> None:
        self.now = now
        self.act(desk.handle_timeout(self.pool, now))

    def fail(self, kind: str = "ConnectError") -> None:
        """The oldest dial fails."""
        self.act(desk.dial_failed(self.pool, self.dials.pop(0).id, Failure(kind, -1, "refused"), self.now))

    def ended(self, ticket: int) -> bool:
        return isinstance(self.events[ticket][-1], ResponseEnded)

    def describe(self, ticket: int) -> str:
        """What was delivered with its end, in words."""
        seen = self.seen[ticket]
        assert seen is not None
        return seen.describe()

    def failure(self, ticket: int) -> Failure:
        event = self.events[ticket][-1]
        assert isinstance(event, RequestFailed)
        return event.failure

    def running(self) -> dict[int, int]:
        """How many requests run on each connection."""
        return {id: len(held.jobs) for id, held in self.pool.held.items()}


# One connection for many


def test_a_cold_origin_is_dialled_once_and_all_share_what_comes() -> None:
    world = World()
    tickets = [world.submit() for _ in range(50)]
    assert len(world.dials) == 1
    id = world.connect()
    assert world.running() == {id: 50}
    for ref in range(1, 101, 2):
        world.answer(id, ref)
    assert all([world.ended(ticket) for ticket in tickets])
    assert (world.running(), world.dials, world.shut) == ({id: 0}, [], [])
    stats = pool_view.stats(world.pool, 0.0)
    assert (stats.connections, stats.running, stats.waiting, stats.requests, stats.dials) == (1, 0, 0, 50, 1)


def test_the_events_of_a_request_come_under_its_ticket() -> None:
    world = World()
    ticket = world.submit()
    world.answer(world.connect())
    assert world.events[ticket] == [ResponseReceived(1, 200, ()), DataReceived(1, b"hello"), ResponseEnded(1)]


@pytest.mark.fault("H5")
def test_origins_and_trust_share_nothing() -> None:
    world = World()
    for key in (A, B, Key(A.origin, "no verification"), PLAIN):
        world.submit(key)
    assert [dial.key for dial in world.dials] == [A, B, Key(A.origin, "no verification"), PLAIN]


@pytest.mark.fault("C5")
def test_another_connection_where_somebody_waits_and_none_has_a_slot() -> None:
    """One dial at a time, and FIFO."""
    world = World(announced=2)
    tickets = [world.submit() for _ in range(6)]
    first = world.connect()
    assert (world.running(), len(world.dials)) == ({first: 2}, 1)
    second = world.connect()
    assert world.running() == {first: 2, second: 2}
    third = world.connect()
    assert (world.running(), world.dials) == ({first: 2, second: 2, third: 2}, [])
    assert sorted(world.events) == []
    world.answer(first, 1)
    assert world.ended(tickets[0])


def test_no_more_connections_to_an_origin_than_allowed() -> None:
    world = World(Limits(max_per_origin=1), announced=1)
    tickets = [world.submit() for _ in range(3)]
    id = world.connect()
    assert (world.dials, len(world.pool.waiting)) == ([], 2)
    for place, ref in enumerate((1, 3, 5)):
        world.answer(id, ref)
        assert world.ended(tickets[place])


def test_http1_dials_for_each_that_waits_once_it_is_known() -> None:
    world = World()
    for _ in range(3):
        world.submit(PLAIN)
    assert len(world.dials) == 3
    ids = [world.connect("http/1.1") for _ in range(3)]
    assert world.running() == dict.fromkeys(ids, 1)
    world.submit(PLAIN)
    world.answer(ids[1])
    assert (world.running()[ids[1]], len(world.dials)) == (1, 1), "whoever waits takes what is free first"


def test_a_cold_https_origin_that_speaks_http1_is_dialled_for_the_others_after_its_answer() -> None:
    world = World()
    for _ in range(3):
        world.submit()
    assert len(world.dials) == 1
    world.connect("http/1.1")
    assert len(world.dials) == 2


# Limits, and what gives way


def test_the_connection_that_is_idle_for_the_longest_gives_way() -> None:
    world = World(Limits(max_connections=2))
    for key in (A, B):
        world.submit(key)
        world.answer(world.connect())
        world.now += 1.0
    world.submit(PLAIN)
    assert (world.shut, [dial.key for dial in world.dials]) == ([1], [PLAIN])
    world.submit(Key(PLAIN.origin, "other"))
    assert world.shut == [1, 2]


def test_whoever_cannot_dial_waits_until_something_is_gone() -> None:
    world = World(Limits(max_connections=1))
    first = world.submit(A)
    second = world.submit(B)
    id = world.connect()
    assert (len(world.dials), world.running()) == (0, {id: 1})
    world.answer(id)
    assert world.ended(first)
    assert (world.shut, [dial.key for dial in world.dials]) == ([id], [B])
    world.answer(world.connect())
    assert world.ended(second)


def test_no_more_idle_connections_than_allowed() -> None:
    world = World(Limits(max_keepalive_connections=1))
    for key in (A, B):
        world.submit(key)
        world.answer(world.connect())
    assert (world.shut, list(world.pool.idle), desk.next_timeout(world.pool)) == ([], [1, 2], 1.0)
    world.pass_time(0.9)
    assert world.shut == []
    world.pass_time(1.0)
    assert (world.shut, list(world.pool.idle)) == ([1], [2])
    none = World(Limits(max_keepalive_connections=0))
    ticket = none.submit()
    none.answer(none.connect())
    assert (none.ended(ticket), none.shut) == (True, [1])


def test_an_idle_connection_is_kept_for_its_time() -> None:
    world = World()
    world.submit()
    world.answer(world.connect())
    world.pass_time(10.0)
    assert desk.next_timeout(world.pool) == 60.0
    world.pass_time(59.9)
    assert world.shut == []
    world.pass_time(60.0)
    assert (world.shut, world.peers[1].goaways, world.pool.sites) == ([1], [(0, 0)], {})


@pytest.mark.fault("D16")
def test_keep_alive_says_how_long_it_is_kept() -> None:
    world = World()
    world.submit(PLAIN)
    id = world.connect("http/1.1")
    world.receive(id, b"HTTP/1.1 200 OK\r\nKeep-Alive: max=5, timeout=3\r\nContent-Length: 0\r\n\r\n")
    assert desk.next_timeout(world.pool) == 3.0
    world.pass_time(3.0)
    assert world.shut == [id]


def test_a_keep_alive_that_says_nothing_changes_nothing() -> None:
    world = World()
    world.submit(PLAIN)
    id = world.connect("http/1.1")
    world.receive(id, b"HTTP/1.1 200 OK\r\nKeep-Alive: timeout=x\r\nContent-Length: 0\r\n\r\n")
    world.pass_time(30.0)
    assert desk.next_timeout(world.pool) == 60.0


def test_a_connection_of_age_takes_no_more_and_ends_with_its_last_request() -> None:
    world = World(Limits(max_age=10.0))
    first = world.submit()
    id = world.connect()
    world.pass_time(10.0)
    assert (world.shut, world.running()) == ([], {id: 1})
    world.submit()
    assert len(world.dials) == 1
    world.answer(id)
    assert (world.ended(first), world.shut) == (True, [id])


# Dials belong to the pool


@pytest.mark.fault("F1")
def test_a_request_that_is_cancelled_leaves_its_dial() -> None:
    """What was dialled for it serves the next."""
    world = World(Limits(max_connections=1))
    ticket = world.submit()
    world.act(desk.cancel(world.pool, ticket, 0.0))
    assert world.failure(ticket).kind == "StreamClosed"
    assert pool_view.snapshot(world.pool, 1.0).dials == (("https://a.test", 9.0),)
    second = world.submit()
    assert len(world.dials) == 1
    world.answer(world.connect())
    assert world.ended(second)


def test_a_dial_that_fails_fails_all_that_wait_where_there_is_nothing_else() -> None:
    world = World()
    tickets = [world.submit() for _ in range(3)]
    world.fail()
    for ticket in tickets:
        failure = world.failure(ticket)
        assert (failure.kind, failure.unprocessed) == ("ConnectError", True)
    assert (world.pool.sites, world.dials, pool_view.stats(world.pool, 0.0).failures) == ({}, [], 3)


def test_a_dial_that_fails_beside_a_connection_is_tried_again_a_second_later() -> None:
    world = World(announced=1)
    world.submit()
    id = world.connect()
    second = world.submit()
    world.fail()
    assert (second in world.events, world.dials) == (False, [])
    world.pass_time(0.9)
    assert world.dials == []
    world.pass_time(1.0)
    assert len(world.dials) == 1
    world.answer(id)
    world.answer(id, 3)
    assert world.ended(second)


def test_a_dial_that_takes_too_long_for_one_fails_none_that_allows_more() -> None:
    """Theirs is another dial: no limit of one request ends another."""
    world = World()
    hasty, patient = world.submit(connect=1.0), world.submit(connect=5.0)
    first = world.dials.pop(0)
    world.pass_time(1.0)
    assert (world.failure(hasty).kind, world.shut, patient in world.events) == ("ConnectTimeout", [first.id], False)
    assert [(dial.since, dial.deadline) for dial in world.dials] == [(1.0, 6.0)]
    world.pass_time(6.0)
    assert world.failure(patient).clock == "connect" and not world.pool.sites


@pytest.mark.fault("D4")
def test_a_keepalive_that_was_too_eager_is_remembered() -> None:
    """DESIGN §6: doubled per origin on ENHANCE_YOUR_CALM, also once nothing of the origin is left."""
    world = World(settings=Settings(keepalive=30.0))
    world.submit()
    id = world.connect()
    world.receive(id, wire.goaway(1, wire.ENHANCE_YOUR_CALM, b"too_many_pings"))
    world.act(desk.closed(world.pool, id, 0.0))
    world.submit()
    again = world.connect()
    assert world.pool.held[again].value.setup.settings.keepalive == 60.0


def test_what_was_learnt_is_kept_of_so_many_origins() -> None:
    """However many there are, as where each request has a proxy of its own."""
    world = World(settings=Settings(keepalive=30.0))
    keys = [Key(Origin("https", f"{number}.test", 443)) for number in range(desk.REMEMBERED + 20)]
    for key in keys:
        world.submit(key)
        id = world.connect()
        world.receive(id, wire.goaway(1, wire.ENHANCE_YOUR_CALM, b"too_many_pings"))
        world.act(desk.closed(world.pool, id, 0.0))
    assert list(world.pool.sites) == keys[: desk.REMEMBERED]


def test_a_dial_that_takes_too_long() -> None:
    world = World()
    ticket = world.submit(connect=5.0)
    assert desk.next_timeout(world.pool) == 5.0
    world.pass_time(5.0)
    assert (world.failure(ticket).kind, world.shut) == ("ConnectTimeout", [1])
    world.act(desk.connected(world.pool, 1, "h2", 6.0))
    assert world.shut == [1, 1]
    world.act(desk.dial_failed(world.pool, 1, Failure("ConnectError", -1, "late"), 6.0))


def test_the_absolute_form_is_for_http_1_1_alone() -> None:
    world = World()
    _, actions = desk.submit(world.pool, PLAIN, "GET", "http://a.test/", (), None, 0.0)
    assert any([isinstance(action, Dial) for action in actions])
    with pytest.raises(LocalProtocolError, match="must be a path"):
        desk.submit(world.pool, A, "GET", "http://a.test/", (), None, 0.0)


def test_what_a_proxy_answered_reaches_all_that_waited_for_the_dial() -> None:
    world = World()
    tickets = [world.submit(), world.submit()]
    fields = ((b"proxy-authenticate", b"Basic"),)
    refusal = Failure("ProxyError", -1, "refused", 0, True, -1, "", 407, fields)
    world.act(desk.dial_failed(world.pool, world.dials.pop(0).id, refusal, 0.0))
    for ticket in tickets:
        event = world.events[ticket][-1]
        assert isinstance(event, RequestFailed)
        assert (event.failure.kind, event.failure.status, event.failure.fields) == ("ProxyError", 407, fields)


# Waiting


@pytest.mark.fault("F6")
def test_the_queue_has_a_clock_and_says_who_holds_the_slots() -> None:
    world = World(Limits(max_per_origin=1), announced=1)
    world.submit()
    world.connect()
    ticket = world.submit(queue=2.0)
    world.pass_time(2.0)
    failure = world.failure(ticket)
    assert (failure.kind, failure.unprocessed) == ("PoolTimeout", True)
    assert failure.message == "GET /: 2.00 s in the queue for a slot (pool=2), 1 taken by: GET / for 2.00 s"


def test_a_deadline_ends_a_request_that_waits() -> None:
    world = World()
    ticket = world.submit(deadline=1.0)
    world.pass_time(1.0)
    assert world.failure(ticket).kind == "DeadlineExceeded"


@pytest.mark.fault("C1", "C2", "C4")
def test_a_limit_that_falls_and_rises_wakes_those_who_wait() -> None:
    world = World(Limits(max_per_origin=1), announced=2)
    tickets = [world.submit() for _ in range(4)]
    id = world.connect()
    world.receive(id, world.peers[id].announce((wire.MAX_CONCURRENT_STREAMS, 0)))
    world.answer(id, 1)
    world.answer(id, 3)
    assert world.running() == {id: 0}
    world.receive(id, world.peers[id].announce((wire.MAX_CONCURRENT_STREAMS, 1)))
    assert world.running() == {id: 1}
    world.receive(id, world.peers[id].announce((wire.MAX_CONCURRENT_STREAMS, 1000)))
    assert world.running() == {id: 2}
    assert [world.ended(ticket) for ticket in tickets[:2]] == [True, True]


def test_content_waits_with_its_request() -> None:
    world = World()
    ticket = world.submit(method="POST", end=False)
    world.act(desk.send_data(world.pool, ticket, b"hel", 0.0))
    world.act(desk.send_data(world.pool, ticket, b"lo", 0.0, trailers=((b"x", b"y"),)))
    with pytest.raises(LocalProtocolError, match="has been ended"):
        desk.send_data(world.pool, ticket, b"!", 0.0)
    id = world.connect()
    request = world.peers[id].requests[1]
    assert (request.content, request.trailers, request.ended) == (b"hello", ((b"x", b"y"),), True)
    running = world.submit(method="POST", end=False)
    world.act(desk.send_data(world.pool, running, b"now", 0.0, end=True))
    assert world.peers[id].requests[3].content == b"now"
    world.answer(id, 3)
    with pytest.raises(LocalProtocolError, match="is over"):
        desk.send_data(world.pool, running, b"x", 0.0)


def test_cancel_and_consume_reach_the_connection() -> None:
    world = World(settings=Settings(stream_window=8, keepalive=None))
    ticket = world.submit()
    id = world.connect()
    world.receive(id, world.peers[id].head(1) + world.peers[id].data(1, b"hello"))
    assert desk.wants_read(world.pool, id)
    world.act(desk.consume(world.pool, ticket, 5, 0.0))
    assert world.peers[id].credit[1] == 5
    world.act(desk.cancel(world.pool, ticket, 0.0))
    assert (world.failure(ticket).kind, world.peers[id].resets) == ("StreamClosed", {1: wire.CANCEL})
    assert [*desk.consume(world.pool, ticket, 0, 0.0), *desk.cancel(world.pool, ticket, 0.0)] == []
    assert not desk.wants_read(world.pool, 99)
    assert [*desk.received(world.pool, 99, b"x", 0.0), *desk.flushed(world.pool, 99, 0.0)] == []
    assert desk.closed(world.pool, 99, 0.0) == []


def test_our_end_of_a_tunnel_ends_our_side_of_the_transport() -> None:
    """Of an HTTP/1.1 connection, and of nothing else."""
    world = World()
    ticket = world.submit(PLAIN, fields=((b"upgrade", b"chat"), (b"connection", b"upgrade")))
    id = world.connect("http/1.1")
    world.receive(id, b"HTTP/1.1 101 Switching\r\nUpgrade: chat\r\nConnection: upgrade\r\n\r\n")
    assert not desk.wants_shutdown(world.pool, id)
    world.act(desk.send_data(world.pool, ticket, b"bye", 0.0, end=True))
    assert desk.wants_shutdown(world.pool, id)
    assert not desk.wants_shutdown(world.pool, 99)


def test_a_limit_that_is_no_time_leaves_nothing_behind() -> None:
    world = World()
    with pytest.raises(ValueError, match="queue=-1.0: allowed are seconds from 0"):
        world.submit(queue=-1.0)
    with pytest.raises(ValueError, match="connect=-1.0: allowed are seconds from 0"):
        world.submit(connect=-1.0)
    assert world.pool.sites == {}


def test_what_is_flushed_makes_room() -> None:
    world = World(settings=Settings(output_budget=1, keepalive=None))
    world.submit()
    id = world.connect()
    ticket = world.submit(method="POST", content=bytes(20_000))
    assert len(world.peers[id].requests[3].content) == 16_384
    world.act(desk.flushed(world.pool, id, 0.0))
    assert world.peers[id].requests[3].ended
    assert ticket in world.pool.jobs


def test_where_nothing_waited_a_flush_changes_nothing() -> None:
    world = World()
    world.submit()
    id = world.connect()
    value, wake = world.pool.held[id].value, world.pool.wake
    assert desk.flushed(world.pool, id, 1.0) == []
    assert world.pool.held[id].value is value
    assert world.pool.wake == wake


# Tried again (law 9)


@pytest.mark.fault("E2", "E6")
def test_what_was_not_processed_goes_out_once_more() -> None:
    """GOAWAY below it, or REFUSED_STREAM, whatever the method, its content with it."""
    world = World()
    tickets = [world.submit(method="POST", content=b"abc") for _ in range(3)]
    id = world.connect()
    world.receive(id, world.peers[id].leave(1) + wire.rst_stream(1, wire.REFUSED_STREAM))
    second = world.connect()
    assert world.shut == [id]
    assert [world.peers[second].requests[ref].content for ref in (1, 3, 5)] == [b"abc"] * 3
    for ref in (1, 3, 5):
        world.answer(second, ref)
    assert all([world.ended(ticket) for ticket in tickets])
    assert (pool_view.stats(world.pool, 0.0).replays, pool_view.stats(world.pool, 0.0).goaways) == (3, 1)


@pytest.mark.fault("E5")
def test_two_attempts_and_no_more() -> None:
    world = World()
    ticket = world.submit()
    id = world.connect()
    world.receive(id, wire.rst_stream(1, wire.REFUSED_STREAM))
    world.receive(id, wire.rst_stream(3, wire.REFUSED_STREAM))
    assert (world.failure(ticket).code, world.failure(ticket).unprocessed) == (wire.REFUSED_STREAM, True)


def test_replay_off() -> None:
    world = World()
    ticket = world.submit(replay=False)
    world.receive(world.connect(), wire.rst_stream(1, wire.REFUSED_STREAM))
    assert world.failure(ticket).unprocessed


@pytest.mark.fault("E3")
def test_content_that_was_streamed_cannot_be_sent_again() -> None:
    world = World()
    ticket = world.submit(method="POST", end=False)
    world.receive(world.connect(), wire.rst_stream(1, wire.REFUSED_STREAM))
    assert world.failure(ticket).unprocessed


def test_no_replay_after_an_error_goaway_on_a_fresh_connection() -> None:
    world = World()
    ticket = world.submit()
    id = world.connect()
    world.receive(id, wire.goaway(0, wire.INTERNAL_ERROR))
    assert (world.failure(ticket).kind, world.shut) == ("ConnectionTerminated", [id])
    used = World()
    used.submit()
    id = used.connect()
    used.answer(id)
    again = used.submit()
    used.receive(id, wire.goaway(1, wire.INTERNAL_ERROR))
    used.answer(used.connect())
    assert used.ended(again)


@pytest.mark.fault("D6")
def test_a_reused_http1_connection_that_closes_without_a_word() -> None:
    """What is idempotent is tried again on a fresh connection, and only there."""
    world = World()
    for method, again in (("GET", True), ("POST", False)):
        world.submit(PLAIN)
        id = world.connect("http/1.1")
        world.answer(id)
        ticket = world.submit(PLAIN, method)
        world.act(desk.closed(world.pool, id, 0.0, clean=True))
        assert len(world.dials) == again
        if again:
            fresh = world.connect("http/1.1")
            world.act(desk.closed(world.pool, fresh, 0.0, clean=True))
        assert world.failure(ticket).kind == "ReadError"


def test_a_closed_connection_that_had_begun_to_answer_is_not_tried_again() -> None:
    world = World()
    world.submit(PLAIN)
    id = world.connect("http/1.1")
    world.answer(id)
    ticket = world.submit(PLAIN)
    world.receive(id, b"HTTP/1.1 20")
    world.act(desk.closed(world.pool, id, 0.0, clean=True))
    assert world.failure(ticket).kind == "ReadError"


def test_a_request_that_never_left_goes_out_again() -> None:
    world = World()
    ticket = world.submit(PLAIN, "POST", content=b"abc")
    id = world.connect("http/1.1")
    world.act(desk.closed(world.pool, id, 0.0, unsent=len(world.lines[id])))
    world.answer(world.connect("http/1.1"))
    assert world.ended(ticket)


@pytest.mark.fault("E9")
def test_a_server_that_asks_for_http1_gets_it_from_then_on() -> None:
    world = World()
    ticket = world.submit()
    id = world.connect()
    world.receive(id, wire.rst_stream(1, 0xD))
    assert (world.shut, world.dials[0].protocols) == ([id], ("http/1.1",))
    second = world.connect("http/1.1")
    world.answer(second)
    assert world.ended(ticket)
    world.act(desk.closed(world.pool, second, 0.0, clean=True))
    world.submit()
    assert world.dials[0].protocols == ("http/1.1",)
    only = World()
    ticket = only.submit(Key(A.origin, protocols=("h2",)))
    only.receive(only.connect(), wire.rst_stream(1, 0xD))
    assert only.failure(ticket).code == 0xD


@pytest.mark.parametrize("heard", [False, True])
def test_http_1_1_is_remembered_also_where_nothing_is_sent_again(heard: bool) -> None:
    """But not where a response had begun: then the code makes no sense."""
    world = World()
    ticket = world.submit(replay=False)
    id = world.connect()
    if heard:
        world.receive(id, world.peers[id].head(1))
    world.receive(id, wire.rst_stream(1, 0xD))
    assert world.failure(ticket).code == 0xD
    world.submit()
    assert [dial.protocols for dial in world.dials] == ([] if heard else [("http/1.1",)])


@pytest.mark.fault("D4")
def test_enhance_your_calm_doubles_the_keepalive() -> None:
    world = World(settings=Settings(keepalive=30.0))
    world.submit()
    id = world.connect()
    world.answer(id)
    world.submit()
    world.receive(id, wire.goaway(3, 11))
    world.submit()
    second = world.pool.held[world.connect()].value
    assert isinstance(second, HTTP2Connection) and second.setup.keepalive == 60.0


# Draining, burdened


@pytest.mark.fault("D5", "E1")
def test_a_draining_connection_is_left_at_once_and_closes_with_its_last_stream() -> None:
    world = World()
    first = world.submit()
    id = world.connect()
    world.receive(id, world.peers[id].leave(1))
    world.submit()
    assert (len(world.dials), world.shut) == (1, [])
    world.answer(id)
    assert (world.ended(first), world.shut) == (True, [id])


def unsent(world: World, id: int) -> int:
    """Streams that are reset, and whose RST_STREAM waits for the pacer."""
    value = world.pool.held[id].value
    assert isinstance(value, HTTP2Connection)
    return len(value.control.unsent)


@pytest.mark.fault("I7")
def test_a_connection_burdened_with_resets_is_drained() -> None:
    """More than half of its slots are taken by streams whose RST_STREAM waits for the pacer: another one is opened."""
    settings = Settings(max_streams=520, first_streams=520, keepalive=None)
    world = World(settings=settings, announced=520)
    tickets = [world.submit() for _ in range(520)]
    id = world.connect()
    for _ in range(2):
        for ticket in tickets[:260]:
            world.act(desk.cancel(world.pool, ticket, 0.0))
        del tickets[:260]
        tickets += [world.submit() for _ in range(520 - len(tickets) - unsent(world, id))]
    while unsent(world, id) < 260:
        world.act(desk.cancel(world.pool, tickets.pop(), 0.0))
    assert not world.pool.held[id].retired
    world.act(desk.cancel(world.pool, tickets.pop(), 0.0))
    assert (unsent(world, id), world.pool.held[id].retired) == (261, True)
    world.submit()
    assert len(world.dials) == 1


def test_A14_C6_the_last_stream_ids_cost_no_slot() -> None:
    """What follows goes to another connection, and this one ends with its last stream."""
    world = World()
    first = world.submit()
    id = world.connect()
    world.answer(id)
    value = world.pool.held[id].value
    assert isinstance(value, HTTP2Connection)
    world.pool.held[id].value = altered(value, next_ref=LAST - 2)
    tickets = [world.submit() for _ in range(3)]
    assert (world.running(), len(world.dials)) == ({id: 2}, 1)
    other = world.connect()
    assert world.running() == {id: 2, other: 1}
    world.answer(other)
    world.answer(id, LAST - 2)
    assert id not in world.shut
    world.answer(id, LAST)
    assert all([world.ended(ticket) for ticket in (first, *tickets)])
    assert (world.shut, world.running()) == ([id], {other: 0})


# The end


def test_close_lets_what_runs_end_within_its_grace() -> None:
    world = World(Limits(max_per_origin=1), announced=1)
    first = world.submit()
    id = world.connect()
    second = world.submit()
    third = world.submit(B)
    world.act(desk.close(world.pool, 0.0, grace=5.0))
    assert world.failure(second).kind == world.failure(third).kind == "StreamClosed"
    assert (first in world.events, world.pool.dials) == (False, {})
    with pytest.raises(LocalProtocolError, match="is closing"):
        desk.submit(world.pool, A, "GET", "/", (), None, 0.0)
    world.answer(id)
    assert (world.ended(first), id in world.shut, world.pool.held) == (True, True, {})


def test_close_resets_what_is_left() -> None:
    world = World()
    ticket = world.submit()
    id = world.connect()
    world.submit(PLAIN)
    world.answer(world.connect("http/1.1"))
    world.act(desk.close(world.pool, 0.0, grace=5.0))
    assert desk.next_timeout(world.pool) == 5.0
    world.pass_time(5.0)
    assert (world.failure(ticket).kind, world.pool.held) == ("StreamClosed", {})
    assert world.peers[id].goaways == [(0, 0)]


def test_close_at_once() -> None:
    world = World()
    ticket = world.submit()
    world.connect()
    world.act(desk.close(world.pool, 0.0))
    assert (world.failure(ticket).kind, world.pool.held) == ("StreamClosed", {})
    world.pass_time(60.0)
    assert desk.next_timeout(world.pool) == INFINITY


# What may not be sent, and what can be seen


def test_a_callers_mistake_raises_and_changes_nothing() -> None:
    world = World()
    for method, fields in (("GET /", ()), ("GET", ((b"a b", b"c"),)), ("GET", ((b"content-length", b"x"),))):
        with pytest.raises(LocalProtocolError):
            desk.submit(world.pool, A, method, "/", fields, None, 0.0)
    assert (world.pool.jobs, world.pool.next_ticket) == ({}, 1)
    world.submit()
    world.connect()
    with pytest.raises(LocalProtocolError, match="no meaning in HTTP/2"):
        desk.submit(world.pool, A, "GET", "/", ((b"connection", b"close"),), None, 0.0)
    check_books(world.pool, world.now)


def test_what_the_protocol_does_not_take_fails_once_it_is_known() -> None:
    world = World()
    bad = world.submit(fields=((b"connection", b"close"),))
    good = world.submit()
    id = world.connect()
    assert (world.failure(bad).kind, world.running()) == ("LocalProtocolError", {id: 1})
    world.answer(id)
    assert world.ended(good)


@pytest.mark.parametrize("settings", [Settings(pipeline=2), Settings(max_pushes=1)])
def test_a_pool_neither_pipelines_nor_takes_pushes(settings: Settings) -> None:
    with pytest.raises(ValueError, match="allowed are"):
        Pool(Limits(), settings)


def test_a_timeout_that_comes_early_does_nothing() -> None:
    world = World()
    world.submit()
    assert desk.handle_timeout(world.pool, 1.0) == []
    world.pass_time(10.0)
    assert desk.next_timeout(world.pool) == INFINITY


def test_a_connection_that_becomes_idle_by_a_timeout_may_send_another_away() -> None:
    world = World(Limits(max_keepalive_connections=1))
    late = world.submit(A, deadline=20.0)
    world.connect()
    world.submit(B)
    second = world.connect()
    world.answer(second)
    world.receive(1, wire.ping())
    world.pass_time(20.0)
    assert world.failure(late).kind == "DeadlineExceeded"
    assert (world.shut, list(world.pool.idle)) == ([second], [1])


def test_a_dial_that_nobody_needs_any_more_may_fail() -> None:
    world = World(announced=1)
    world.submit()
    world.connect()
    ticket = world.submit()
    world.act(desk.cancel(world.pool, ticket, 0.0))
    world.fail()
    assert (world.dials, world.running()) == ([], {1: 1})


def test_a_read_of_nothing_changes_nothing() -> None:
    world = World()
    ticket = world.submit(PLAIN)
    id = world.connect("http/1.1")
    before = world.pool.held[id].value
    world.receive(id, b"")
    assert world.pool.held[id].value is before
    world.receive(id, b"HTTP/1.1 103 Early\r\n\r\n")
    world.act(desk.closed(world.pool, id, 0.0, clean=True))
    assert [type(event).__name__ for event in world.events[ticket]] == ["InterimReceived", "RequestFailed"]


@pytest.mark.parametrize("limits", [Limits(keepalive_expiry=0.4), Limits(keepalive_expiry=None, max_age=0.4)])
def test_a_timer_that_is_on_time_finds_what_is_due(limits: Limits) -> None:
    """Where a sum of floats is rounded up, `now - since` is less than what was added to `since`."""
    world = World(limits)
    world.pass_time(1001.0001)
    assert world.now + 0.4 - world.now < 0.4
    world.submit()
    world.answer(world.connect())
    world.pass_time(desk.next_timeout(world.pool))
    assert world.shut == [1] and desk.next_timeout(world.pool) > world.now


def test_the_end_of_the_grace_is_not_forgotten_when_something_else_is_due_before() -> None:
    world = World()
    short, long = world.submit(deadline=2.0), world.submit()
    world.connect()
    world.act(desk.close(world.pool, 0.0, grace=5.0))
    world.pass_time(2.0)
    assert (world.failure(short).kind, long in world.events) == ("DeadlineExceeded", False)
    world.pass_time(desk.next_timeout(world.pool))
    assert (world.now, world.failure(long).kind, world.pool.held) == (5.0, "StreamClosed", {})


def test_the_next_try_comes_also_where_no_connection_is_left() -> None:
    """A dial fails while another connection serves; that one ends before the next dial is due."""
    world = World(announced=1)
    world.submit(deadline=0.5)
    ticket = world.submit()
    first = world.connect()
    world.fail()
    world.act(desk.closed(world.pool, first, 0.25))
    assert (world.dials, list(world.pool.waiting)) == ([], [ticket])
    world.submit(B, deadline=0.5)
    world.pass_time(0.5)  # another timer does not unset this one
    del world.dials[:]
    assert desk.next_timeout(world.pool) == 1.0
    world.pass_time(1.0)
    world.answer(world.connect())
    assert world.ended(ticket)


def test_a_connection_that_sends_another_away_expires_in_its_turn() -> None:
    world = World(Limits(max_keepalive_connections=1))
    world.submit(PLAIN)
    world.answer(world.connect("http/1.1"))
    world.submit(Key(PLAIN.origin, "another", PLAIN.protocols))
    id = world.connect("http/1.1")
    world.receive(id, b"HTTP/1.1 204 No Content\r\nKeep-Alive: timeout=5\r\n\r\n")
    world.pass_time(1.0)
    assert (world.shut, list(world.pool.idle)) == ([1], [2])
    world.pass_time(desk.next_timeout(world.pool))
    assert (world.now, world.shut) == (5.0, [1, 2])


def test_a_request_that_is_tried_again_has_waited_since_then() -> None:
    world = World(Limits(max_per_origin=1), announced=1)
    world.submit(queue=2.0)
    id = world.connect()
    world.now = 50.0
    world.receive(id, world.peers[id].announce((wire.MAX_CONCURRENT_STREAMS, 0)) + wire.rst_stream(1, 7))
    assert pool_view.stats(world.pool, 51.0).oldest_wait == 1.0
    world.pass_time(52.0)
    assert world.failure(1).message.startswith("GET /: 2.00 s in the queue for a slot (pool=2)")


def test_what_is_flushed_arms_the_timer() -> None:
    """The `head` clock begins when the end of the request leaves, and is shorter than the `write` clock before."""
    world = World()
    clocks = Clocks(head=1.0, idle=60.0, write=60.0)
    arguments = (PLAIN, "POST", "/", (), bytes(300_000), 0.0)
    world.act(desk.submit(world.pool, *arguments, clocks=clocks)[1])
    id = world.connect("http/1.1")
    world.pass_time(desk.next_timeout(world.pool))
    world.pass_time(20.0)
    world.act(desk.flushed(world.pool, id, 20.0, 1000))
    world.act(desk.flushed(world.pool, id, 20.0))
    assert desk.next_timeout(world.pool) == 21.0


@pytest.mark.parametrize("queue", [-1.0, 1.0])
def test_seconds_that_are_none_raise_and_change_nothing(queue: float) -> None:
    world = World()
    with pytest.raises(ValueError, match="queue=-1" if queue < 0 else "connect=-1"):
        world.submit(queue=queue, connect=-1.0)
    assert (world.pool.sites, world.pool.jobs) == ({}, {})


def test_those_that_are_tried_again_keep_their_order() -> None:
    world = World(Limits(max_per_origin=1), announced=3)
    tickets = [world.submit() for _ in range(5)]
    id = world.connect()
    world.receive(id, world.peers[id].leave(0))
    assert list(next(iter(world.pool.sites.values())).waiting) == tickets
    second = world.connect()
    assert [job.ticket for job in world.pool.held[second].jobs.values()] == tickets[:3]


def test_a_connection_that_comes_through_for_nobody_gives_way_at_once() -> None:
    world = World(Limits(max_connections=1))
    ticket = world.submit(A)
    waits = world.submit(B)
    world.act(desk.cancel(world.pool, ticket, 0.0))
    world.connect()
    assert (world.shut, [dial.key for dial in world.dials]) == ([1], [B])
    world.answer(world.connect())
    assert world.ended(waits)


def test_what_a_first_attempt_may_have_done_is_not_unprocessed_after_the_second() -> None:
    """The first left on a reused HTTP/1.1 connection, which closed; the second had no connection, or never left."""
    for second in ("no connection", "never left"):
        world = World()
        world.submit(PLAIN)
        id = world.connect("http/1.1")
        world.answer(id)
        ticket = world.submit(PLAIN)
        world.act(desk.closed(world.pool, id, 0.0, clean=True))
        if second == "no connection":
            world.fail()
        else:
            id = world.connect("http/1.1")
            world.act(desk.closed(world.pool, id, 0.0, unsent=len(world.lines[id])))
        failure = world.failure(ticket)
        assert (failure.kind, failure.unprocessed) == (
            ("ConnectError", False) if second == "no connection" else ("WriteError", False)
        )


def test_http1_required_holds_for_all_connections_of_the_origin() -> None:
    """Neither another HTTP/2 connection with a free slot takes the request, nor one that was being dialled."""
    world = World(announced=1)
    ticket, other, third = [world.submit() for _ in range(3)]
    first, second = world.connect(), world.connect()
    world.act(desk.cancel(world.pool, third, 0.0))
    world.answer(second)
    world.receive(first, wire.rst_stream(1, 0xD))
    assert (world.ended(other), world.shut, ticket in world.events) == (True, [first], False)
    world.pass_time(desk.next_timeout(world.pool))
    third = world.connect()  # it was dialled before
    assert (world.now, world.shut, world.running()) == (0.0, [first, second, third], {})
    assert world.dials[0].protocols == ("http/1.1",)
    world.answer(world.connect("http/1.1"))
    assert world.ended(ticket)


@pytest.mark.parametrize("key", [A, PLAIN])
def test_a_cancelled_request_was_sent_once_and_is_not_sent_again(key: Key) -> None:
    world = World()
    ticket = world.submit(key)
    world.connect("h2" if key is A else "http/1.1")
    actions = desk.cancel(world.pool, ticket, 0.0)
    world.act(actions)
    (told,) = [action for action in actions if isinstance(action, Deliver)]
    assert (told.attempts, world.failure(ticket).kind, world.pool.jobs) == (1, "StreamClosed", {})


# Size


def count_calls(idle: int) -> int:
    """How many functions a request calls, and its response, beside so many idle connections of its origin."""
    pool = Pool(Limits(max_connections=20_000, max_keepalive_connections=20_000), Settings(keepalive=None))
    for _ in range(idle):
        _, actions = desk.submit(pool, PLAIN, "GET", "/", (), None, 0.0)
        (dial,) = [action for action in actions if isinstance(action, Dial)]
        desk.connected(pool, dial.id, "http/1.1", 0.0)
    for id in list(pool.held):
        desk.received(pool, id, HELLO, 0.0)
    assert len(pool.idle) == idle
    calls = [0]

    def count(frame: FrameType, event: str, argument: object) -> None:
        calls[0] += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        ticket, _ = desk.submit(pool, PLAIN, "GET", "/", (), None, 1.0)
        desk.received(pool, pool.jobs[ticket].id, HELLO, 1.0)
    finally:
        sys.setprofile(None)
    assert not pool.jobs and len(pool.idle) == idle
    return calls[0]


@pytest.mark.fault("D15")
def test_a_request_costs_the_same_beside_10_000_idle_connections() -> None:
    count_calls(10)  # what is remembered between requests is there
    assert count_calls(10_000) == count_calls(10)
