"""What bounds a request that waits: its place in the queue has one clock, and the connection made for it another."""

import pytest

from calamint.core import pool as desk
from calamint.core import pool_view
from calamint.core.pool_state import Limits
from tests.core import http2_peer as wire
from tests.core.test_pool import PLAIN, A, B, World


def hold(world: World) -> int:
    """One HTTP/1.1 connection with a request on it, so that the place is known to speak that."""
    world.submit(PLAIN)
    return world.connect("http/1.1")


@pytest.mark.fault("F6")
def test_a_dial_is_not_charged_to_the_queue() -> None:
    world = World()
    ticket = world.submit(queue=1.0, connect=10.0)
    world.pass_time(1.0)
    world.pass_time(9.999)
    assert ticket not in world.events
    world.answer(world.connect())
    assert world.ended(ticket)


@pytest.mark.fault("F6")
def test_a_dial_that_serves_others_ends_those_whose_time_in_the_queue_is_over() -> None:
    world = World(Limits(max_per_origin=1), announced=1)
    first, late, patient = world.submit(queue=1.0), world.submit(queue=1.0), world.submit(queue=5.0)
    world.pass_time(3.0)
    world.connect()
    assert late not in world.events and desk.next_timeout(world.pool) <= 3.0
    world.pass_time(3.0)
    failure = world.failure(late)
    assert (failure.kind, first in world.events, patient in world.events) == ("PoolTimeout", False, False)
    assert failure.message == "GET /: 3.00 s in the queue for a slot (pool=1), 1 taken by: GET / for 0.00 s"
    world.pass_time(4.999)
    assert patient not in world.events
    world.pass_time(5.0)
    assert world.failure(patient).kind == "PoolTimeout"


@pytest.mark.fault("F6")
def test_a_dial_that_fails_beside_others_leaves_the_queue_s_clock_running() -> None:
    world = World(announced=1)
    world.submit()
    world.connect()
    ticket = world.submit(queue=0.5)
    world.pass_time(2.0)
    assert ticket not in world.events
    world.fail()
    world.pass_time(2.0)
    assert world.failure(ticket).kind == "PoolTimeout"


def test_a_request_that_joins_a_dial_is_bound_by_its_own_limit() -> None:
    world = World()
    patient = world.submit(connect=10.0)
    world.pass_time(1.0)
    hasty = world.submit(connect=2.0)
    assert desk.next_timeout(world.pool) == 3.0
    world.pass_time(2.999)
    assert hasty not in world.events
    world.pass_time(3.0)
    failure = world.failure(hasty)
    assert (failure.kind, failure.clock, failure.unprocessed) == ("ConnectTimeout", "connect", True)
    assert failure.message == "GET /: no connection to https://a.test after 2.00 s (connect=2)"
    assert patient not in world.events and len(world.dials) == 1 and not world.shut


def test_one_that_waits_already_is_bound_by_its_own_limit_too() -> None:
    """It waits for a slot at first; its limit for a connection begins when one is made."""
    world = World(Limits(max_connections=1))
    world.submit(B)
    other = world.connect()
    hasty = [world.submit(connect=2.0), world.submit(connect=1.0)]
    world.pass_time(4.0)
    assert not world.dials
    world.answer(other)
    assert len(world.dials) == 1 and desk.next_timeout(world.pool) == 5.0
    world.pass_time(5.0)
    assert (hasty[0] in world.events, world.failure(hasty[1]).kind) == (False, "ConnectTimeout")
    world.pass_time(6.0)
    assert world.failure(hasty[0]).message == "GET /: no connection to https://a.test after 2.00 s (connect=2)"


def test_over_http_1_1_a_dial_is_for_one() -> None:
    """Whoever has no dial of its own waits in the queue, and is told of the dial in its way."""
    world = World(Limits(max_connections=2))
    hold(world)
    first, second = world.submit(PLAIN, queue=1.0), world.submit(PLAIN, queue=1.0)
    assert len(world.dials) == 1
    world.pass_time(0.999)
    assert second not in world.events
    world.pass_time(1.0)
    assert first not in world.events
    assert world.failure(second).message == (
        "GET /: 1.00 s in the queue for a slot (pool=1), 2 taken by: GET / for 1.00 s; a dial to http://c.test for 1.00 s"
    )
    world.connect("http/1.1")
    assert not pool_view.stats(world.pool, 1.0).waiting


def test_a_deadline_does_not_stand_still() -> None:
    for key, protocol in ((A, "h2"), (PLAIN, "http/1.1")):
        world = World()
        world.submit(key)
        world.connect(protocol)
        if protocol == "h2":
            world = World()
        ticket = world.submit(key, deadline=2.0, queue=1.0)
        assert len(world.dials) == 1
        world.pass_time(1.999)
        assert ticket not in world.events
        world.pass_time(2.0)
        assert world.failure(ticket).kind == "DeadlineExceeded"


def test_a_deadline_names_what_was_allowed_in_all() -> None:
    """And not what was left of it when there was a slot at last."""
    world = World()
    ticket = world.submit(deadline=0.3)
    world.now = 0.1
    world.connect()
    world.pass_time(0.3)
    message = world.failure(ticket).message
    assert message.startswith("GET /: its deadline (total) came 0.20 s after it was sent, ") and message.endswith(
        "; total=0.3"
    )
    world.submit(deadline=0.1 + 0.5)
    world.submit(B, deadline=0.7)
    world.pass_time(0.7)
    assert world.failure(3).message == "GET /: 0.40 s in the queue for a slot until its deadline; total=0.4"


def test_a_deadline_leaves_its_dial_to_the_next() -> None:
    """Whose time in the queue was over before, and at the same moment is not, since a connection is made for it."""
    world = World()
    hold(world)
    first = world.submit(PLAIN, connect=1.0, deadline=1.0)
    second = world.submit(PLAIN, connect=5.0, queue=0.0)
    world.pass_time(1.0)
    assert (world.failure(first).kind, second in world.events, len(world.shut)) == ("DeadlineExceeded", False, 1)
    world.dials.pop(0)
    world.connect("http/1.1")
    assert second not in world.events and not pool_view.stats(world.pool, 1.0).waiting


def test_the_connections_of_others_are_named_where_they_take_the_last_place() -> None:
    world = World(Limits(max_connections=2))
    world.submit(B)
    world.connect()
    world.submit(PLAIN, connect=100.0)
    ticket = world.submit(queue=2.0)
    world.pass_time(2.0)
    assert world.failure(ticket).message == (
        "GET /: 2.00 s in the queue for a slot (pool=2), "
        "2 taken by: a connection to https://b.test; a dial to http://c.test for 2.00 s"
    )


def test_where_nobody_has_a_slot() -> None:
    world = World(Limits(max_per_origin=1))
    world.act(desk.cancel(world.pool, world.submit(), 0.0))
    id = world.connect(greet=False)
    world.receive(id, world.peers[id].announce((wire.MAX_CONCURRENT_STREAMS, 0)))
    ticket = world.submit(queue=2.0)
    world.pass_time(2.0)
    assert world.failure(ticket).message.endswith("0 taken by: nobody: no connection has room")


# A dial for which nobody waits any more


@pytest.mark.fault("F1")
@pytest.mark.parametrize("connect", [None, 600.0])
def test_a_dial_that_nobody_waits_for_gives_its_place_back(connect: float | None) -> None:
    """Whatever its limit was: else a peer that is silent would hold the place for ever."""
    world = World(Limits(max_connections=1))
    world.pass_time(1.0)
    ticket = world.submit(connect=connect)  # type: ignore[arg-type]  # None for no limit
    other = world.submit(B, queue=None)  # type: ignore[arg-type]  # the same
    world.pass_time(3.0)
    world.act(desk.cancel(world.pool, ticket, 3.0))
    assert desk.next_timeout(world.pool) == 13.0
    world.pass_time(12.999)
    assert world.shut == []
    world.pass_time(13.0)
    assert world.shut == [world.dials.pop(0).id]
    world.answer(world.connect())
    assert world.ended(other)


def test_of_several_dials_over_http_1_1_those_that_are_too_many_have_an_end() -> None:
    world = World()
    hold(world)
    tickets = [world.submit(PLAIN, connect=600.0) for _ in range(3)]
    world.act(desk.cancel(world.pool, tickets[0], 0.0))
    world.pass_time(10.0)
    assert world.shut == [world.dials[2].id]
    assert tickets[1] not in world.events and tickets[2] not in world.events


def test_a_short_limit_of_a_dial_stays_when_nobody_waits() -> None:
    world = World()
    world.act(desk.cancel(world.pool, world.submit(connect=5.0), 0.0))
    world.pass_time(4.999)
    assert world.shut == []
    world.pass_time(5.0)
    assert world.shut == [1] and not world.pool.sites
