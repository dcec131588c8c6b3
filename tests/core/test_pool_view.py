"""What is seen of a pool: its snapshot, its numbers, and what it tells of, to those who asked and to all."""

from calamint.core import pool as desk
from calamint.core import pool_view
from calamint.core.exchange import Clocks, Settings
from calamint.core.pool_state import Limits, Report
from tests.core import http2_peer as wire
from tests.core.test_pool import PLAIN, A, B, World


def traced(limits: Limits | None = None, announced: int = 100) -> World:
    world = World(limits, announced=announced)
    world.pool.traced = True
    return world


def told(world: World, kind: str) -> list[Report]:
    return [report for report in world.reports if report.kind == kind]


def test_the_snapshot_shows_everything() -> None:
    world = World(Limits(max_per_origin=1), announced=1)
    assert pool_view.snapshot(world.pool, 0.0).describe() == "no connections"
    world.submit()
    world.connect()
    world.submit()
    world.submit(B)
    shown = pool_view.snapshot(world.pool, 2.0)
    assert [item.origin for item in shown.waiting] == ["https://a.test", "https://b.test"]
    text = shown.describe()
    assert "HTTP/2 to https://a.test, open: 1 of 1 slots taken" in text
    assert "being dialled: https://b.test, 8.00 s left" in text
    assert "waiting for 2.00 s: GET https://a.test/" in text
    assert pool_view.stats(world.pool, 2.0).oldest_wait == 2.0


def test_what_waits_is_counted_before_and_after_it_has_a_slot() -> None:
    world = World()
    ticket = world.submit(method="POST", end=False)
    assert (pool_view.queued(world.pool, ticket), pool_view.protocol(world.pool, ticket)) == (0, "")
    world.act(desk.send_data(world.pool, ticket, bytes(70_000), 0.0))
    assert pool_view.queued(world.pool, ticket) == 70_000
    world.connect()
    assert pool_view.queued(world.pool, ticket) == 70_000 - 65_535  # the peer's first window
    assert pool_view.protocol(world.pool, ticket) == "h2"
    world.act(desk.cancel(world.pool, ticket, 0.0))
    assert (pool_view.queued(world.pool, ticket), pool_view.protocol(world.pool, ticket)) == (0, "")


def test_a_request_and_its_dial_are_told_of_when_they_are_over() -> None:
    world = traced()
    ticket = world.submit()
    world.now = 1.5
    id = world.connect()
    world.now = 2.0
    world.answer(id)
    assert world.reports == [
        Report("dial", "https://a.test", id, 0, "h2", -1, 1.5),
        Report("request", "https://a.test", id, ticket, "GET /: 200", 200, 2.0),
    ]
    world.submit(B)
    world.now = 3.0
    world.fail()
    assert told(world, "dial")[1:] == [Report("dial", "https://b.test", id + 1, 0, "refused", -1, 1.0)]
    assert told(world, "request")[1:] == [Report("request", "https://b.test", 0, ticket + 1, "GET /: refused", -1, 1.0)]


def test_nobody_is_told_who_did_not_ask_but_everything_is_counted() -> None:
    world = World(announced=2)
    first, second = world.submit(), world.submit()
    id = world.connect()
    world.receive(id, wire.rst_stream(1, wire.INTERNAL_ERROR))
    world.act(desk.cancel(world.pool, second, 0.0))
    assert world.failure(first).kind == "StreamReset"
    stats = pool_view.stats(world.pool, 0.0)
    assert (world.reports, stats.resets_received, stats.resets_sent, stats.failures) == ([], 1, 1, 2)
    assert (stats.connections, stats.idle, stats.running) == (1, 1, 0)


def test_resets_are_told_of_in_both_directions() -> None:
    world = traced()
    first, second, third = world.submit(), world.submit(), world.submit()
    id = world.connect()
    world.receive(id, wire.rst_stream(1, wire.INTERNAL_ERROR))
    world.act(desk.cancel(world.pool, second, 0.0))
    world.act(desk.cancel(world.pool, third, 0.0))
    got, *sent = told(world, "reset")
    assert (got.id, got.ticket, got.code) == (id, first, wire.INTERNAL_ERROR)
    assert sent == [Report("reset", "https://a.test", id, 0, "1 RST_STREAM sent")] * 2


def test_a_goaway_is_told_of_to_all() -> None:
    world = World()
    world.submit()
    id = world.connect()
    world.receive(id, wire.goaway(1, wire.ENHANCE_YOUR_CALM, b"too_many_pings"))
    text = "GOAWAY, last stream 1, b'too_many_pings'"
    assert world.reports[0] == Report("goaway", "https://a.test", id, 0, text, wire.ENHANCE_YOUR_CALM)
    assert pool_view.stats(world.pool, 0.0).goaways == 1


def test_a_replay_is_told_of() -> None:
    world = traced()
    ticket = world.submit()
    id = world.connect()
    world.receive(id, wire.rst_stream(1, wire.REFUSED_STREAM))
    (report,) = told(world, "replay")
    assert (report.ticket, report.code) == (ticket, wire.REFUSED_STREAM)
    assert report.text.startswith("GET / is sent once more, after: ")


def test_a_timeout_is_told_of_and_counted_under_its_clock() -> None:
    world = traced(Limits(max_per_origin=1), announced=1)
    world.submit(clocks=Clocks(head=5.0))  # type: ignore[arg-type]  # the one that is no float
    world.connect()
    late = world.submit(queue=1.0)
    world.pass_time(1.0)
    assert (world.failure(late).kind, world.failure(late).clock) == ("PoolTimeout", "pool")
    world.pass_time(5.0)
    assert [(report.ticket, report.seconds) for report in told(world, "timeout")] == [(2, 1.0), (1, 5.0)]
    assert pool_view.stats(world.pool, 5.0).timeouts == (("pool", 1), ("head", 1))


def test_a_window_that_stops_content_is_told_of_and_counted() -> None:
    world = traced()
    world.submit(method="POST", content=bytes(70_000))
    id = world.connect()
    assert told(world, "stall") == [Report("stall", "https://a.test", id, 0, "content waits for the peer's window")]
    assert pool_view.stats(world.pool, 0.0).stalls == 1


def test_a_connection_that_we_condemn_is_told_of_to_all() -> None:
    world = World()
    world.submit()
    id = world.connect()
    world.receive(id, wire.frame(wire.DATA, 0, 0, b"x"))
    (report,) = world.reports
    assert (report.kind, report.id, report.code) == ("condemned", id, wire.PROTOCOL_ERROR)
    gone = World(settings=Settings(keepalive=1.0))
    gone.submit()
    id = gone.connect()
    gone.pass_time(1.0)
    gone.pass_time(11.0)
    (report,) = gone.reports
    assert (report.kind, report.id) == ("condemned", id) and "no answer to a PING" in report.text
    assert pool_view.stats(gone.pool, 0.0).timeouts == (("ping", 1),)


def test_an_end_in_order_is_not_worth_a_warning() -> None:
    for protocol in ("h2", "http/1.1"):
        world = World()
        world.submit(PLAIN if protocol == "http/1.1" else A)
        id = world.connect(protocol)
        world.answer(id)
        world.act(desk.closed(world.pool, id, 0.0, clean=True))
        assert (world.reports, world.shut) == ([], [id])


def test_with_the_first_failure_on_a_connection_goes_what_there_was_before() -> None:
    """And with each PoolTimeout, since it asks who holds the slots; not with what the caller has cancelled."""
    world = World(Limits(max_per_origin=1), announced=3)
    tickets = [world.submit() for _ in range(3)]
    id = world.connect()
    world.act(desk.cancel(world.pool, tickets[0], 0.0))
    world.receive(id, world.peers[id].reset(3) + world.peers[id].reset(5))
    assert [world.seen[ticket] is not None for ticket in tickets] == [False, True, False]
    assert "2 of 3 slots taken" in world.describe(tickets[1])
    assert world.attempts[tickets[1]] == 1
    held = [world.submit() for _ in range(3)]
    late = world.submit(queue=1.0)
    world.pass_time(1.0)
    assert len(held) == 3 and world.attempts[late] == 0
    assert "3 of 3 slots taken" in world.describe(late) and "waiting for 1.00 s: GET" in world.describe(late)


def test_where_a_request_runs_and_whether_it_waits_for_a_dial() -> None:
    world = World()
    ticket = world.submit()
    assert (pool_view.connection(world.pool, ticket), pool_view.is_dialling(world.pool, ticket)) == (0, True)
    id = world.connect()
    assert (pool_view.connection(world.pool, ticket), pool_view.is_dialling(world.pool, ticket)) == (id, False)
    world.answer(id)
    assert (pool_view.connection(world.pool, ticket), pool_view.is_dialling(world.pool, ticket)) == (0, False)
