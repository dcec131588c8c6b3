"""The pool under whatever happens: submits, cancels, dials that come, fail or never end, limits that move, GOAWAY, resets,
refusals, connections that break, time. After every step the books agree, and each request ends exactly once.
"""

from typing import Final

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calamint.core import pool as desk
from calamint.core import verbs
from calamint.core.events import RequestFailed, ResponseEnded
from calamint.core.exchange import Clocks, Settings
from calamint.core.http2_state import HTTP2Connection
from calamint.core.pool_state import Limits
from calamint.core.value import INFINITY
from tests.core import http2_peer as wire
from tests.core.test_pool import HELLO, PLAIN, A, B, World

KEYS: Final = (A, A, A, B, PLAIN)
SECONDS: Final = (0.0, 0.001, 0.5, 1.0, 3.0, 11.0, 40.0)
LIMITS: Final = (
    Limits(),
    Limits(max_connections=1),
    Limits(max_connections=3, max_per_origin=2, max_keepalive_connections=1, keepalive_expiry=2.0),
    Limits(max_per_origin=1, max_age=20.0),
)
ACTIONS: Final = (
    *(
        "submit",
        "submit",
        "submit",
        "connect",
        "connect",
        "refuse dial",
        "answer",
        "answer",
        "answer",
        "cancel",
        "time",
    ),
    *("limit", "goaway", "reset", "refused", "http1 required", "break", "late", "send", "consume", "flush"),
)


class Life:
    """A world, and what is done to it by name and number."""

    def __init__(self, limits: Limits, announced: int) -> None:
        self.world = World(limits, Settings(keepalive=None, first_streams=announced), announced)
        self.tickets: list[int] = []

    def turn(self, what: str, pick: int) -> None:
        world = self.world
        held = list(world.pool.held.values())
        if what == "submit":
            self.submit(pick)
        elif what == "connect" and world.dials:
            self.connect(pick)
        elif what == "refuse dial" and world.dials:
            world.fail()
        elif what == "time":
            world.pass_time(world.now + SECONDS[pick % len(SECONDS)])
        elif what == "late":  # reports about what is gone
            world.act(desk.connected(world.pool, 10_000 + pick, "h2", world.now))
            world.act(desk.closed(world.pool, 10_000 + pick, world.now))
        elif what in ("cancel", "send", "consume") and self.tickets:
            self.call(what, self.tickets[pick % len(self.tickets)], pick)
        elif held:
            self.peer(what, held[pick % len(held)].id, pick)

    def submit(self, pick: int) -> None:
        method = ("GET", "POST", "PUT")[pick % 3]
        content = b"abc" if pick % 2 else None
        deadline = self.world.now + 15.0 if pick % 5 == 0 else INFINITY
        clocks = Clocks(head=8.0) if pick % 7 == 0 else Clocks()
        arguments = (KEYS[pick % len(KEYS)], method, "/", (), content, self.world.now)
        ticket, actions = desk.submit(
            self.world.pool, *arguments, pick % 4 > 0, deadline, clocks, 20.0, 5.0, pick % 6 > 0
        )
        self.tickets.append(ticket)
        self.world.act(actions)

    def connect(self, pick: int) -> None:
        key = self.world.dials[0].key
        if self.world.dials[0].id in self.world.pool.dials:
            http1 = key == PLAIN or self.world.dials[0].protocols == ("http/1.1",) or pick % 5 == 0
            self.world.connect("http/1.1" if http1 else "h2", greet=False)
            if not http1:
                newest = max(self.world.peers)
                if newest in self.world.pool.held:
                    announced = (wire.MAX_CONCURRENT_STREAMS, self.world.announced)
                    self.world.receive(newest, self.world.peers[newest].announce(announced) + wire.settings_ack())
        else:
            self.world.dials.pop(0)

    def call(self, what: str, ticket: int, pick: int) -> None:
        world = self.world
        job = world.pool.jobs.get(ticket)
        if what == "cancel":
            world.act(desk.cancel(world.pool, ticket, world.now))
        elif what == "consume":
            world.act(desk.consume(world.pool, ticket, 0, world.now))
        elif job is not None and not job.end and not (job.given and job.given[-1][1]):
            value = world.pool.held[job.id].value if job.id else None
            record = None if value is None else verbs.find(value, job.ref)
            if value is None or (record is not None and record.upload is not None and not record.upload.ending):
                world.act(desk.send_data(world.pool, ticket, b"more", world.now, end=pick % 2 == 0))

    def peer(self, what: str, id: int, pick: int) -> None:
        """The other end of this connection does something."""
        world = self.world
        value = world.pool.held[id].value
        refs = list(world.pool.held[id].jobs)
        if what == "flush":
            world.act(desk.flushed(world.pool, id, world.now))
        elif what == "break":
            world.act(desk.closed(world.pool, id, world.now, unsent=pick % 300, clean=pick % 2 == 0))
        elif not isinstance(value, HTTP2Connection):
            if refs and what == "answer":
                world.receive(id, HELLO)
        elif id in world.peers:
            self.frames(what, id, refs, pick)

    def frames(self, what: str, id: int, refs: list[int], pick: int) -> None:
        world, peer = self.world, self.world.peers[id]
        if what == "limit":
            world.receive(id, peer.announce((wire.MAX_CONCURRENT_STREAMS, pick % 4)))
        elif what == "goaway":
            world.receive(
                id, wire.goaway(min([ref for ref in refs if ref % 4 == 3], default=0), (0, 0, 2, 11)[pick % 4])
            )
        elif refs and what in ("reset", "refused", "http1 required", "answer"):
            ref = refs[pick % len(refs)]
            codes = {"reset": wire.INTERNAL_ERROR, "refused": wire.REFUSED_STREAM, "http1 required": 0xD}
            peer.active.discard(ref)  # it keeps its books, and this is behind its back
            if what in codes:
                world.receive(id, wire.rst_stream(ref, codes[what]))
            else:
                world.receive(id, wire.headers_frame(ref, b"\x88") + wire.data_frame(ref, b"hello", end=True))

    def end(self) -> None:
        """Time passes with nobody answering: everything is over, and nothing is left."""
        world = self.world
        for _ in range(200):
            if not world.pool.jobs:
                break
            world.pass_time(max(world.now, desk.next_timeout(world.pool)))
        assert not world.pool.jobs, "a request that never ends"
        for ticket in self.tickets:
            endings = [event for event in world.events[ticket] if isinstance(event, ResponseEnded | RequestFailed)]
            assert len(endings) == 1 and endings[0] is world.events[ticket][-1]
        world.act(desk.close(world.pool, world.now))
        assert (world.pool.held, world.pool.dials, world.pool.idle, world.pool.waiting) == ({}, {}, {}, {})


STEPS: Final = st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 999)), max_size=60)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(STEPS, st.sampled_from(LIMITS), st.sampled_from((1, 2, 5, 100)))
def test_the_books_agree_and_every_request_ends_once(
    steps: list[tuple[str, int]], limits: Limits, announced: int
) -> None:
    life = Life(limits, announced)
    for what, pick in steps:
        life.turn(what, pick)
    life.end()
