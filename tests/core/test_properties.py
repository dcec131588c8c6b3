"""The laws of the design as properties of an HTTP/2 connection, against a peer that keeps its own books.

1 purity, 2 any split, 3 one ending, 4 no leak, 5 silence ends every request, 6 the peer never raises.
"""

import pickle
from collections.abc import Callable
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from calamint.core import http2
from calamint.core.errors import LocalProtocolError
from calamint.core.events import (
    ConnectionClosed,
    DataReceived,
    Event,
    GoAwayReceived,
    InterimReceived,
    PingAcknowledged,
    RequestFailed,
    ResponseEnded,
    ResponseReceived,
    SettingsReceived,
    TrailersReceived,
    WindowOpened,
)
from calamint.core.exchange import CLOCKS, SETTINGS, Clocks, Settings
from calamint.core.http2_state import CLOSED, OPEN, Control, HTTP2Connection
from calamint.core.streams import LEAF, all_streams, find_stream
from calamint.core.value import INFINITY, NEVER, Fields
from tests.core import http2_peer as wire
from tests.core.test_http2_state import ORIGIN, altered

Step = tuple[HTTP2Connection, bytes, list[Event]]
Verb = Callable[[HTTP2Connection], Step]


class Stories:
    """Law 3: per request interim heads, a head, data, trailers, and exactly one ending, after which nothing follows."""

    def __init__(self) -> None:
        self.places: dict[int, int] = {}  # 0 nothing yet, 1 interim, 2 head, 3 data, 4 trailers
        self.over: set[int] = set()
        self.closed = False

    def tell(self, events: list[Event]) -> None:
        for event in events:
            assert not self.closed, "an event after ConnectionClosed"
            if isinstance(event, ConnectionClosed):
                self.closed = True
            elif isinstance(event, RequestFailed):
                assert event.failure.ref == event.ref
                self.end(event.ref)
            elif isinstance(event, ResponseEnded):
                assert self.places[event.ref] >= 2, "an end without a head"
                self.end(event.ref)
            elif isinstance(event, InterimReceived):
                self.step(event.ref, (0, 1), 1)
            elif isinstance(event, ResponseReceived):
                self.step(event.ref, (0, 1), 2)
            elif isinstance(event, DataReceived):
                assert event.data, "an empty piece"
                self.step(event.ref, (2, 3), 3)
            elif isinstance(event, TrailersReceived):
                self.step(event.ref, (2, 3), 4)
            elif isinstance(event, WindowOpened):
                self.step(event.ref, (0, 1, 2, 3), self.places.get(event.ref, 0))
            else:
                assert isinstance(event, SettingsReceived | PingAcknowledged | GoAwayReceived)

    def step(self, ref: int, allowed: tuple[int, ...], place: int) -> None:
        assert ref not in self.over, "an event after the ending"
        assert self.places.get(ref, 0) in allowed
        self.places[ref] = place

    def end(self, ref: int) -> None:
        assert ref not in self.over, "a second ending"
        self.over.add(ref)


def check_slots(conn: HTTP2Connection) -> None:
    """Law 4: each stream in exactly one place, the slots their sum, and every index about streams that are live."""
    streams = all_streams(conn.streams)
    refs = [stream.ref for stream in streams]
    assert refs == sorted(refs)
    assert conn.live == len(refs) == sum([len(leaf) for leaf in conn.streams.values()])
    for number, leaf in conn.streams.items():
        assert leaf, "an empty leaf"
        assert all([ref >> LEAF == number and stream.ref == ref for ref, stream in leaf.items()])
    unsent, unconfirmed = set(conn.control.unsent), set(conn.control.unconfirmed)
    assert len(set(refs) | unsent | unconfirmed) == len(refs) + len(unsent) + len(unconfirmed)
    used = len(refs) + len(unsent) + len(unconfirmed)
    assert http2.capacity(conn) == (max(0, conn.peer.limit - used) if conn.status == OPEN else 0)
    assert len(set(conn.ready)) == len(conn.ready)
    for ref in conn.ready:
        stream = find_stream(conn.streams, ref)
        assert stream is not None
        assert stream.upload is not None
        assert stream.upload.queued or stream.upload.ending, "ready, and nothing to send"
    for stream in streams:
        assert 1 <= stream.state <= 4, "open or half-closed (local)"
        assert stream.ref & 1 and stream.ref < conn.next_ref
        assert 0 <= stream.unread <= stream.received
        assert stream.recv_window + stream.credit + stream.unread <= conn.setup.settings.stream_window
    if conn.status == CLOSED:
        assert (used, conn.ready, conn.wake, conn.buffer, conn.partial) == (0, (), INFINITY, b"", None)


CLOCK_SETS: Final = (CLOCKS, Clocks(5.0, 3.0, 4.0, 20.0), Clocks(0.5, None, 2.0, 1.0), Clocks(7.0, 1.0, None, 6.0))
SIZES: Final = (0, 1, 5, 300, 5000, 20_000)
SECONDS: Final = (0.0, 0.001, 0.1, 1.0, 2.999, 9.99, 10.0, 35.0, 60.0, 700.0)
OPTIONS: Final = (
    Settings(stream_window=20_000, connection_window=65_535, max_streams=8, first_streams=2),
    Settings(stream_window=30_000, connection_window=100_000, output_budget=1),
    Settings(stream_window=65_535, connection_window=65_535, output_budget=20_000, header_table_size=0),
    Settings(stream_window=1000, header_table_size=200),
)
ANNOUNCED: Final = (
    (),
    ((wire.MAX_CONCURRENT_STREAMS, 3),),
    ((wire.INITIAL_WINDOW_SIZE, 0), (wire.MAX_CONCURRENT_STREAMS, 1000)),
    ((wire.INITIAL_WINDOW_SIZE, 400), (wire.HEADER_TABLE_SIZE, 0)),
    ((wire.INITIAL_WINDOW_SIZE, 70_000), (wire.MAX_FRAME_SIZE, 20_000), (wire.HEADER_TABLE_SIZE, 100)),
    ((wire.MAX_CONCURRENT_STREAMS, 0),),
    ((wire.MAX_CONCURRENT_STREAMS, 6), (wire.HEADER_TABLE_SIZE, 4096)),
)
# What is a head, or an error of the stream where there was one; and what is an error always, or nothing at all.
HEADS: Final[tuple[Callable[[int], bytes], ...]] = (
    lambda ref: wire.headers_frame(ref, b"\x88"),
    lambda ref: wire.headers_frame(ref, wire.literals((b":status", b"200"), (b"content-length", b"7"))),
    lambda ref: wire.headers_frame(ref, wire.literal(b":status", b"204"), done=False) + wire.continuation(ref, b""),
)
STRAYS: Final[tuple[Callable[[int], bytes], ...]] = (
    lambda ref: wire.headers_frame(ref, b""),
    lambda ref: wire.headers_frame(ref, wire.literal(b"X", b"y")),
    lambda ref: wire.headers_frame(ref, wire.literal(b":status", b"100"), end=True),
    lambda ref: wire.window_update(ref, 0),
    lambda ref: wire.window_update(ref, 2**31 - 1) * 2,
    lambda ref: wire.frame(wire.PRIORITY, 0, ref, b"1234"),
    lambda ref: wire.priority(ref),
    lambda ref: wire.frame(0x55, 0xFF, ref, b"unknown"),
)
FATAL: Final = (
    wire.data_frame(0, b"x"),
    wire.headers_frame(2, b"\x88"),
    wire.headers_frame(1, b"\xff\xff\xff\xff\xff"),
    wire.rst_stream(2**31 - 1, 0),
    wire.settings((wire.MAX_FRAME_SIZE, 1)),
    wire.window_update(0, 0),
    wire.push_promise(1, 2, b""),
    wire.frame(wire.PING, 0, 0, b"short"),
    wire.headers_frame(1, b"", done=False) + wire.ping(),
    wire.continuation(1, b""),
    b"\xff" * 20,
)
picks = st.integers(0, 1000)
cuts = st.sampled_from((0, 0, 0, 1, 5, 9, 12))
rarely = st.integers(0, 15)


class World(RuleBasedStateMachine):
    """A connection, its peer, a clock, and what is on its way from the peer; every rule is one verb or a few frames."""

    @initialize(
        options=st.sampled_from(OPTIONS), announced=st.sampled_from(ANNOUNCED), now=st.sampled_from((0.0, 0.1, 1e6))
    )
    def open(self, options: Settings, announced: tuple[wire.Setting, ...], now: float) -> None:
        self.options, self.announced, self.now = options, announced, now
        conn, data = http2.connect(ORIGIN, options, now)
        # A pacer that has let most of its burst go, so that few resets are enough to meet it.
        self.conn = altered(conn, control=Control({}, {}, settings_at=now, tokens=3.0, tokens_at=now))
        self.peer = wire.Peer(data)
        self.stories = Stories()
        self.pending = b""
        self.headed: set[int] = set()
        self.pings = 0
        self.deliver(self.peer.announce(*announced) + wire.settings_ack(), 0)

    # what is done and what is checked

    def act(self, verb: Verb) -> bool:
        """One verb; False where it was the caller's mistake."""
        try:
            conn, data, events = verb(self.conn)
        except LocalProtocolError:
            self.check()
            return False
        self.conn = conn
        self.peer.take(data)
        self.stories.tell(events)
        self.check()
        if conn.status == CLOSED:
            assert self.stories.closed
            self.open(self.options, self.announced, self.now)
        return True

    def check(self) -> None:
        """After every verb."""

    def deliver(self, data: bytes, kept: int) -> None:
        """The peer's bytes arrive, but for the last `kept` of them."""
        data = self.pending + data
        place = max(0, len(data) - kept)
        self.pending = data[place:]
        self.act(lambda conn: http2.receive(conn, data[:place], self.now))

    def choose(self, refs: list[int], pick: int) -> int:
        """One of these, most often the last, or one that is not there."""
        return refs[-1 - pick % len(refs)] if refs and pick % 16 else (pick // 16) * 2 + 1

    def known(self, headed: bool) -> list[int]:
        """Streams on which the peer may still send, with or without a head sent."""
        refs = [ref for ref in self.peer.requests if ref not in self.peer.done and ref not in self.peer.resets]
        return [ref for ref in refs if (ref in self.headed) == headed]

    # the caller

    @rule(size=st.sampled_from((None, *SIZES)), end=st.booleans(), pick=picks)
    def request(self, size: int | None, end: bool, pick: int) -> None:
        room = http2.capacity(self.conn)
        content = None if size is None else bytes(size)
        fields: Fields = ((b"x-number", b"%d" % (pick % 5)), (b"x-long", b"v" * (pick % 3 * 100)))[: pick % 3]
        clocks = CLOCK_SETS[pick % len(CLOCK_SETS)]
        deadline = self.now + SECONDS[pick % len(SECONDS)] if pick % 4 == 0 else INFINITY
        method = ("GET", "HEAD", "POST")[pick % 3]
        before = self.conn.next_ref

        def verb(conn: HTTP2Connection) -> Step:
            later, data, ref = http2.request(conn, method, "/", fields, content, self.now, end, deadline, clocks)
            assert ref == before
            return later, data, []

        assert self.act(verb) == (room > 0)

    @rule(pick=picks, size=st.sampled_from(SIZES), end=st.booleans(), trailers=st.booleans())
    def send_data(self, pick: int, size: int, end: bool, trailers: bool) -> None:
        refs = [ref for ref, request in self.peer.requests.items() if not request.ended]
        ref, fields = self.choose(refs, pick), ((b"x-sum", b"%d" % size),) if trailers and end else ()

        def verb(conn: HTTP2Connection) -> Step:
            return *http2.send_data(conn, ref, bytes(size), self.now, end, fields), []

        self.act(verb)

    @rule(pick=picks)
    def cancel(self, pick: int) -> None:
        ref = self.choose(list(self.peer.requests), pick)
        self.act(lambda conn: http2.cancel(conn, ref, self.now))

    @rule(pick=picks, part=st.sampled_from((0, 1, 2, 3)))
    def consume(self, pick: int, part: int) -> None:
        ref = self.choose(sorted(self.headed), pick)
        stream = find_stream(self.conn.streams, ref)
        size = 0 if stream is None else stream.unread * part // 2  # once more than there is
        self.act(lambda conn: http2.consume(conn, ref, size, self.now))

    @rule()
    def flush(self) -> None:
        self.act(lambda conn: http2.flush(conn, self.now))

    @rule(seconds=st.sampled_from(SECONDS))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.act(lambda conn: http2.handle_timeout(conn, self.now))

    @rule(pick=rarely, lost=st.sampled_from((0, 1, 50, 10**9)))
    def transport_ends(self, pick: int, lost: int) -> None:
        def verb(conn: HTTP2Connection) -> Step:
            later, events = http2.closed(conn, self.now, lost)
            return later, b"", events

        if pick == 15:
            self.act(verb)

    @rule(pick=rarely)
    def close(self, pick: int) -> None:
        if pick == 15:
            self.act(lambda conn: http2.close(conn, self.now))

    # the peer, by the rules

    @rule(pick=picks, status=st.sampled_from((100, 103, 200, 200, 200, 204, 404)), end=st.booleans(), kept=cuts)
    def head_comes(self, pick: int, status: int, end: bool, kept: int) -> None:
        refs = self.known(False)
        if refs:
            ref = refs[pick % len(refs)]
            fields = (("x-number", str(pick % 7)), ("server", "test"))[: pick % 3]
            if status >= 200:
                self.headed.add(ref)
            self.deliver(self.peer.head(ref, status, *fields, end=end and status >= 200), kept)

    @rule(
        pick=picks,
        size=st.sampled_from(SIZES),
        padding=st.sampled_from((None, None, 0, 200)),
        end=st.booleans(),
        kept=cuts,
    )
    def data_comes(self, pick: int, size: int, padding: int | None, end: bool, kept: int) -> None:
        refs = self.known(True)
        if refs:
            ref = refs[pick % len(refs)]
            room = self.peer.room(ref) - (0 if padding is None else padding + 1)
            if room >= 0:
                content = bytes((pick % 256,)) * min(size, room, 16_000)
                self.deliver(self.peer.data(ref, content, end, padding), kept)

    @rule(pick=picks, kept=cuts)
    def trailers_come(self, pick: int, kept: int) -> None:
        refs = self.known(True)
        if refs:
            self.deliver(self.peer.fields(refs[pick % len(refs)], ("x-sum", str(pick % 9)), end=True), kept)

    @rule(pick=picks, code=st.sampled_from((0, 1, 7, 8, 99)), kept=cuts)
    def reset_comes(self, pick: int, code: int, kept: int) -> None:
        refs = self.known(False) + self.known(True)
        if refs:
            self.deliver(self.peer.reset(refs[pick % len(refs)], code), kept)

    @rule(pick=picks, size=st.sampled_from((1, 100, 16_384, 100_000)), whole=st.booleans(), kept=cuts)
    def window_opens(self, pick: int, size: int, whole: bool, kept: int) -> None:
        refs = self.known(False) + self.known(True)
        ref = 0 if whole or not refs else refs[pick % len(refs)]
        if self.peer.receives[ref] + size < 2**30:
            self.deliver(self.peer.widen(ref, size), kept)

    @rule(announced=st.sampled_from(ANNOUNCED), kept=cuts)
    def settings_come(self, announced: tuple[wire.Setting, ...], kept: int) -> None:
        self.deliver(self.peer.announce(*announced), kept)

    @rule(kept=cuts)
    def ping_comes(self, kept: int) -> None:
        self.deliver(wire.ping(), kept)

    @rule()
    def pings_are_answered(self) -> None:
        data = b"".join([wire.ping(payload, ack=True) for payload in self.peer.pings])
        self.peer.pings.clear()
        self.deliver(data, 0)

    @rule(pick=rarely, last=picks)
    def goaway_comes(self, pick: int, last: int) -> None:
        if pick == 15:
            last %= self.conn.next_ref + 2
            self.peer.active -= {ref for ref in self.peer.active if ref > last}
            self.peer.done |= {ref for ref in self.peer.requests if ref > last}
            self.deliver(wire.goaway(last), 0)

    # the peer, against the rules, or too late

    @rule(
        pick=picks, size=st.sampled_from(SIZES), padding=st.sampled_from((None, 0, 100)), end=st.booleans(), kept=cuts
    )
    def late_data_comes(self, pick: int, size: int, padding: int | None, end: bool, kept: int) -> None:
        refs = [ref for ref in self.peer.requests if ref not in self.known(True)]
        if refs:
            ref = refs[pick % len(refs)]
            room = self.peer.sends[0] - 300
            self.deliver(self.peer.data(ref, bytes(max(0, min(size, room, 16_000))), end, padding), kept)

    @rule(pick=picks, kept=cuts)
    def late_head_comes(self, pick: int, kept: int) -> None:
        refs = [ref for ref in self.peer.requests if ref in self.peer.done or ref in self.peer.resets]
        if refs:
            block = self.peer.block_of((":status", "200"), ("x-late", str(pick % 5)))
            self.deliver(wire.headers_frame(refs[pick % len(refs)], block), kept)

    @rule(pick=picks, head=st.sampled_from(HEADS), kept=cuts)
    def any_head_comes(self, pick: int, head: Callable[[int], bytes], kept: int) -> None:
        refs = self.known(False) + self.known(True)
        if refs:
            self.headed.add(refs[pick % len(refs)])
            self.deliver(head(refs[pick % len(refs)]), kept)

    @rule(pick=picks, stray=st.sampled_from(STRAYS), kept=cuts)
    def stray_frame_comes(self, pick: int, stray: Callable[[int], bytes], kept: int) -> None:
        refs = self.known(False) + self.known(True)
        if refs:
            self.deliver(stray(refs[pick % len(refs)]), kept)

    @rule(pick=rarely, data=st.sampled_from(FATAL))
    def fatal_frame_comes(self, pick: int, data: bytes) -> None:
        if pick == 15:
            self.deliver(data, 0)


class Books(World):
    """Laws 3 and 4: our books are the peer's books."""

    def check(self) -> None:
        conn, peer = self.conn, self.peer
        check_slots(conn)
        if conn.status == CLOSED:
            assert set(peer.requests) == self.stories.over
            return
        live = {stream.ref for stream in all_streams(conn.streams)}
        assert live == set(peer.requests) - self.stories.over
        assert peer.active <= live | set(conn.control.unsent), "a slot that the peer counts and we do not"
        if self.pending:
            return
        assert conn.buffer == b"" and conn.partial is None and conn.control.block is None
        assert live == peer.active - set(conn.control.unsent)
        assert (conn.recv_window, conn.send_window) == (peer.sends[0], peer.receives[0])
        for stream in all_streams(conn.streams):
            assert stream.recv_window == peer.sends[stream.ref]
            assert stream.send_window + conn.peer.initial_window == peer.receives[stream.ref]
        half = (self.options.connection_window + 1) // 2
        assert self.options.connection_window - half < conn.recv_window <= self.options.connection_window
        assert conn.decoder.entries[::-1] == tuple(peer.encoder.header_table.dynamic_entries)


class Pure(World):
    """Law 1: the same value and arguments give the same result, and the value is as it was."""

    def act(self, verb: Verb) -> bool:
        before = self.conn
        saved = pickle.dumps(before)
        first = self.outcome(verb, before)
        assert pickle.loads(saved) == before, "the old value was changed"
        assert self.outcome(verb, before) == first
        assert self.outcome(verb, pickle.loads(saved)) == first
        return super().act(verb)

    def outcome(self, verb: Verb, conn: HTTP2Connection) -> Step | str:
        try:
            return verb(conn)
        except LocalProtocolError as error:
            return str(error)


class Time(World):
    """Law 5: no wake-up is late, and silence ends whatever has its clocks."""

    def check(self) -> None:
        conn = self.conn
        wake = http2.next_timeout(conn)
        for stream in all_streams(conn.streams):
            assert wake <= stream.due(), stream.running_clock()
        if conn.control.unsent:
            assert wake < conn.now + 1.0, "the pacer lets 30 a second go"
        if conn.control.ping_at > NEVER and conn.status != CLOSED:
            assert wake <= conn.control.ping_at + 10.0

    def teardown(self) -> None:
        steps = 0
        conn = self.conn
        while http2.next_timeout(conn) < INFINITY:
            now = max(self.now, http2.next_timeout(conn))
            conn, _, events = http2.handle_timeout(conn, now)
            self.stories.tell(events)
            steps += 1
            assert steps < 1000, "time stands still"
        assert (conn.control.unsent, conn.control.unconfirmed) == ({}, {})
        for stream in all_streams(conn.streams):
            clocks = stream.clocks
            assert INFINITY in (clocks.head, clocks.idle, clocks.write, clocks.reader), "a request that nobody ends"
            assert stream.due() == INFINITY


QUICK: Final = settings(max_examples=40, stateful_step_count=40, deadline=None)
LONG: Final = settings(max_examples=1500, stateful_step_count=100, deadline=None)

TestBooks = Books.TestCase
TestBooks.settings = QUICK
TestPure = Pure.TestCase
TestPure.settings = QUICK
TestTime = Time.TestCase
TestTime.settings = QUICK
