"""The laws of the design as properties of an HTTP/2 connection, against a peer that keeps its own books.

1 purity, 2 any split, 3 one ending, 4 no leak, 5 silence ends every request, 6 the peer never raises.
"""

import pickle
from collections.abc import Callable
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

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
from calamint.core.exchange import CLOCKS, EXPECTING, RESERVED, SETTINGS, Clocks, Settings
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
        assert EXPECTING <= stream.state <= RESERVED, "open or half-closed (local)"
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
BEGINNINGS: Final = (0.0, 0.1, 1e6)
ACTIONS: Final = (
    *("request", "request", "request", "request", "send_data", "send_data", "cancel", "consume", "consume", "flush"),
    *(
        "time",
        "end",
        "head",
        "head",
        "head",
        "data",
        "data",
        "data",
        "trailers",
        "reset",
        "window",
        "window",
        "settings",
    ),
    *("ping", "pong", "goaway", "late", "late head", "any head", "stray", "wide window"),
)


class World(RuleBasedStateMachine):
    """A connection, its peer, a clock, and what is on its way from the peer.

    There is one rule for all that can happen, since Hypothesis would leave out most of many in each of its runs.
    """

    @initialize(options=st.sampled_from(OPTIONS), announced=st.sampled_from(ANNOUNCED), now=st.sampled_from(BEGINNINGS))
    def open(self, options: Settings, announced: tuple[wire.Setting, ...], now: float) -> None:
        self.options, self.announced, self.now = options, announced, now
        conn, data = http2.connect(ORIGIN, options, now)
        # A pacer that has let most of its burst go, so that few resets are enough to meet it.
        self.conn = altered(conn, control=Control({}, {}, pending=(options,), tokens=1.5, tokens_at=now))
        self.peer = wire.Peer(data)
        self.stories = Stories()
        self.pending = b""
        self.headed: set[int] = set()
        self.deliver(self.peer.announce(*announced) + wire.settings_ack(), 0)

    @rule(
        what=st.sampled_from(ACTIONS),
        pick=st.integers(0, 999),
        size=st.sampled_from(SIZES),
        flag=st.booleans(),
        kept=st.sampled_from((0, 0, 0, 1, 5, 9, 12)),
    )
    def turn(self, what: str, pick: int, size: int, flag: bool, kept: int) -> None:
        """One verb of the caller, or a few frames of the peer of which the last `kept` bytes are still on their way."""
        match what:
            case "request":
                self.request(pick, size, flag)
            case "send_data":
                self.send_data(pick, size, flag)
            case "cancel":
                ref = self.choose(list(self.peer.requests), pick)
                self.act(lambda conn: http2.cancel(conn, ref, self.now))
            case "consume":
                self.consume(pick)
            case "flush":
                self.act(lambda conn: http2.flush(conn, self.now))
            case "time":
                self.act(lambda conn: http2.flush(conn, self.now, conn.written - conn.flushed[0]))  # no more has left
                self.now += SECONDS[pick % len(SECONDS)]
                self.act(lambda conn: http2.handle_timeout(conn, self.now))
            case "end":
                self.end(pick)
            case _:
                self.deliver(self.frames(what, pick, size, flag), kept)

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

    # the caller

    def choose(self, refs: list[int], pick: int) -> int:
        """One of these, the latest first, or now and then one that is not there."""
        return refs[-1 - pick // 16 % len(refs)] if refs and pick % 16 else pick // 16

    def request(self, pick: int, size: int, end: bool) -> None:
        room = http2.capacity(self.conn)
        content = None if pick % 2 else bytes(size)
        fields: Fields = ((b"x-number", b"%d" % (pick % 5)), (b"x-long", b"v" * (pick % 3 * 100)))[: pick % 3]
        clocks = CLOCK_SETS[pick % len(CLOCK_SETS)]
        deadline = self.now + SECONDS[pick % len(SECONDS)] if pick % 7 == 0 else INFINITY
        method = ("GET", "HEAD", "POST")[pick % 3]
        before = self.conn.next_ref

        def verb(conn: HTTP2Connection) -> Step:
            later, data, ref = http2.request(conn, method, "/", fields, content, self.now, end, deadline, clocks)
            assert ref == before
            return later, data, []

        assert self.act(verb) == (room > 0)

    def send_data(self, pick: int, size: int, end: bool) -> None:
        refs = [ref for ref, request in self.peer.requests.items() if not request.ended]
        ref, trailers = self.choose(refs, pick), ((b"x-sum", b"%d" % size),) if end and pick % 3 == 0 else ()

        def verb(conn: HTTP2Connection) -> Step:
            return *http2.send_data(conn, ref, bytes(size), self.now, end, trailers), []

        self.act(verb)

    def consume(self, pick: int) -> None:
        ref = self.choose(sorted(self.headed), pick)
        stream = find_stream(self.conn.streams, ref)
        size = 0 if stream is None else stream.unread * (pick % 4) // 2  # now and then more than there is
        self.act(lambda conn: http2.consume(conn, ref, size, self.now))

    def end(self, pick: int) -> None:
        def verb(conn: HTTP2Connection) -> Step:
            later, events = http2.closed(conn, self.now, pick % 5 * 100)
            return later, b"", events

        if pick % 30 == 0:
            self.act(verb)
        elif pick % 30 == 1:
            self.act(lambda conn: http2.close(conn, self.now))
        elif pick % 30 == 2:
            self.deliver(FATAL[pick // 30 % len(FATAL)], 0)

    # the peer

    def known(self, headed: bool) -> list[int]:
        """Streams on which the peer may still send, with or without a head sent."""
        refs = [ref for ref in self.peer.requests if ref not in self.peer.done and ref not in self.peer.resets]
        return [ref for ref in refs if (ref in self.headed) == headed]

    def frames(self, what: str, pick: int, size: int, flag: bool) -> bytes:
        """What the peer sends; nothing where it has no stream for it."""
        match what:
            case "settings":
                return self.peer.announce(*ANNOUNCED[pick % len(ANNOUNCED)])
            case "ping":
                return wire.ping()
            case "pong":
                payloads, self.peer.pings = self.peer.pings, []
                return b"".join([wire.ping(payload, ack=True) for payload in payloads])
            case "goaway":
                return self.peer.leave(pick % (self.conn.next_ref + 2)) if pick % 12 == 0 else b""
        new, begun = self.known(False), self.known(True)
        gone = [ref for ref in self.peer.requests if ref not in new and ref not in begun]
        refs = {"head": new, "data": begun, "trailers": begun, "late": gone + new, "late head": gone}.get(
            what, new + begun
        )
        if not refs:
            return b""
        ref = refs[pick % len(refs)]
        match what:
            case "head":
                return self.head(ref, pick, flag)
            case "data":
                return self.data(ref, pick, min(size, self.peer.room(ref), 16_000), flag)
            case "late":
                return self.data(ref, pick, min(size, self.peer.sends[0], 16_000), flag)
            case "trailers":
                return self.peer.fields(ref, ("x-sum", str(pick % 9)), end=True)
            case "late head":
                return wire.headers_frame(ref, self.peer.block_of((":status", "200"), ("x-late", str(pick % 5))))
            case "reset":
                return self.peer.reset(ref, pick % 15)
            case "window":
                return self.peer.widen(0 if flag else ref, size + 1)
            case "wide window":  # one increment too large, where nothing that is on its way can make room for it
                sure = self.peer.requests[ref].ended and self.peer.receives[ref] > 0 and not self.peer.pending
                return wire.window_update(ref, 2**31 - 1) if sure else b""
            case "any head":
                self.headed.add(ref)
                return HEADS[pick % len(HEADS)](ref)
        assert what == "stray"
        data = STRAYS[pick % len(STRAYS)](ref)
        first = wire.parse(data)[0]
        self.peer.finish(ref, first.kind == wire.HEADERS and bool(first.flags & wire.END_STREAM))
        return data

    def head(self, ref: int, pick: int, end: bool) -> bytes:
        status = (100, 103, 200, 200, 200, 204, 404)[pick % 7]
        fields = (("x-number", str(pick % 7)), ("server", "test"))[: pick % 3]
        if status < 200:
            return self.peer.head(ref, status, *fields)
        self.headed.add(ref)
        return self.peer.head(ref, status, *fields, end=end)

    def data(self, ref: int, pick: int, size: int, end: bool) -> bytes:
        padding = (None, None, 0, 200)[pick % 4]
        size -= 0 if padding is None else padding + 1
        return b"" if size < 0 else self.peer.data(ref, bytes((pick % 256,)) * size, end, padding)


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
            assert wake <= stream.running_clock(conn.flushed)[0], stream.running_clock(conn.flushed)
        if conn.control.unsent:
            assert wake < conn.now + 1.0, "the pacer lets 30 a second go"
        if conn.control.ping_at > NEVER and conn.status != CLOSED:
            shown = max(conn.control.ping_at, conn.heard_at, conn.flushed[1])  # any life is an answer's worth
            assert wake <= shown + 10.0

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
            assert stream.running_clock()[0] == INFINITY


QUICK: Final = settings(max_examples=150, stateful_step_count=60)
LONG: Final = settings(max_examples=500, stateful_step_count=100)

TestBooks = Books.TestCase
TestBooks.settings = QUICK
TestPure = Pure.TestCase
TestPure.settings = QUICK
TestTime = Time.TestCase
TestTime.settings = QUICK


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("machine", [Books, Pure, Time])
def test_the_same_for_longer(machine: type[World]) -> None:
    """Laws 1, 3, 4 and 5: raises where one of them does not hold."""
    run_state_machine_as_test(machine, settings=LONG)
    assert machine is not World


# Law 2: any split


Scene = tuple[HTTP2Connection, wire.Peer]


def scene(queued: bool) -> Scene:
    """Requests of every kind on one connection: waiting, receiving, uploading, cancelled; content that waits if `queued`."""
    conn, data = http2.connect(ORIGIN, Settings(stream_window=5000, connection_window=65_535), 0.0)
    peer = wire.Peer(data)
    pairs = ((wire.INITIAL_WINDOW_SIZE, 100),) if queued else ()
    conn, data, _ = http2.receive(conn, peer.announce(*pairs) + wire.settings_ack(), 0.0)
    peer.take(data)
    for number in range(5):
        end = number != 2
        conn, data, _ = http2.request(conn, "GET", "/", (), bytes(number * 60), 0.0, end)
        peer.take(data)
    conn, data, _ = http2.cancel(conn, 7, 0.0)
    peer.take(data)
    conn, _, _ = http2.receive(conn, peer.head(3) + peer.data(3, b"begun"), 0.0)
    return conn, peer


SCENES: Final = {queued: pickle.dumps(scene(queued)[0]) for queued in (False, True)}


def pieces_of(peer: wire.Peer, kind: int, ref: int, size: int) -> bytes:
    """Some frames, legal or not as it happens."""
    block = peer.block_of((":status", str(100 + size % 300)), ("x-number", str(size % 5)), ("server", "test"))
    return (
        lambda: wire.headers_frame(ref, block, end=size % 5 == 0),
        lambda: wire.headers_frame(ref, block[: size % 9], done=False) + wire.continuation(ref, block[size % 9 :]),
        lambda: wire.headers_frame(ref, b"\x88\x5c\x02" + b"%02d" % (size % 90), end=size % 7 == 0),
        lambda: wire.headers_frame(ref, b"\x88"),
        lambda: wire.headers_frame(ref, peer.block_of(("x-sum", str(size))), end=True),
        lambda: wire.data_frame(ref, bytes(size % 1000), end=size % 3 == 0),
        lambda: wire.data_frame(ref, bytes(size % 50), padding=size % 256),
        lambda: wire.data_frame(ref, bytes(size % 6000), end=size % 2 == 0, padding=size % 256),
        lambda: wire.window_update(ref, size),
        lambda: wire.window_update(0, size * 100_000),
        lambda: wire.rst_stream(ref, size % 15),
        lambda: wire.settings((size % 8, size * 40)),
        lambda: wire.settings((wire.INITIAL_WINDOW_SIZE, size)) + wire.settings_ack(),
        lambda: wire.ping(bytes(8), ack=size % 2 == 0),
        lambda: wire.goaway(size % 12, size % 15, b"debug"),
        lambda: wire.priority(ref),
        lambda: wire.frame(size % 256, size % 251, ref, bytes(size % 100)),
        lambda: bytes((size % 256,)) * (size % 13),
    )[kind]()


@st.composite
def server_bytes(draw: st.DrawFn, queued: bool) -> bytes:
    """What a server may send there: frames of every type, most of them legal, and then perhaps a few bytes changed."""
    _, peer = scene(queued)
    chosen = draw(
        st.lists(
            st.tuples(st.integers(0, 17), st.sampled_from((1, 1, 3, 3, 5, 9, 7, 0, 2, 11)), st.integers(0, 20_000)),
            max_size=12,
        )
    )
    data = b"".join([pieces_of(peer, *each) for each in chosen])
    for place, change, byte in draw(
        st.lists(st.tuples(st.integers(0, 9999), st.sampled_from("-+="), st.integers(0, 255)), max_size=2)
    ):
        at = place % (len(data) + 1)
        data = data[:at] + (b"" if change == "-" else bytes((byte,))) + data[at + (change != "+") :]
    return data


def received(conn: HTTP2Connection, pieces: list[bytes]) -> Step:
    """The value after these, with all output and all events."""
    outs: list[bytes] = []
    events: list[Event] = []
    for piece in pieces:
        conn, data, more = http2.receive(conn, piece, 1.0)
        outs.append(data)
        events += more
    return conn, b"".join(outs), events


def joined(events: list[Event]) -> list[Event]:
    """The same with neighbouring pieces of data joined."""
    whole: list[Event] = []
    for event in events:
        last = whole[-1] if whole else None
        if isinstance(event, DataReceived) and isinstance(last, DataReceived) and last.ref == event.ref:
            whole[-1] = DataReceived(event.ref, last.data + event.data)
        else:
            whole.append(event)
    return whole


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """The bytes, cut there."""
    ends = sorted([place % (len(data) + 1) for place in places])
    return [data[start:end] for start, end in zip([0, *ends], [*ends, len(data)], strict=True)]


splits = st.one_of(
    st.integers(1, 20).map(lambda size: list(range(0, 100_000, size))), st.lists(st.integers(0, 100_000), max_size=6)
)


@given(data=server_bytes(False), split=splits)
def test_any_split_gives_the_same(data: bytes, split: list[int]) -> None:
    """Law 2: events, output, streams, settings, tables, windows, verdict; all of the value but for when it last heard."""
    conn = pickle.loads(SCENES[False])
    whole, out, events = received(conn, [data])
    places = [place for place in split if place <= len(data)]
    pieces, more, parts = received(pickle.loads(SCENES[False]), cut(data, places))
    assert joined(parts) == joined(events)
    assert more == out
    assert pieces == (whole if whole.status != CLOSED else altered(whole, heard_at=pieces.heard_at))
    check_slots(whole)
    Stories().tell([event for event in events if getattr(event, "ref", 0) != 3])


def gist(events: list[Event], ref: int) -> list[tuple[str, object]]:
    """What happened to one request, without its messages, and without what depends on the time of our output."""
    parts: list[tuple[str, object]] = []
    for event in joined([event for event in events if getattr(event, "ref", -1) == ref]):
        if isinstance(event, RequestFailed):
            parts.append((event.failure.kind, (event.failure.code, event.failure.unprocessed)))
        elif not isinstance(event, WindowOpened):
            parts.append((type(event).__name__, event))
    return parts


@given(data=server_bytes(True), split=splits)
def test_any_split_gives_the_same_while_content_waits(data: bytes, split: list[int]) -> None:
    """Law 2, as far as it goes there: how much content has left when a frame comes depends on the cut."""
    whole, _, events = received(pickle.loads(SCENES[True]), [data])
    places = [place for place in split if place <= len(data)]
    pieces, _, parts = received(pickle.loads(SCENES[True]), cut(data, places))
    for ref in (1, 3, 5, 7, 9):
        assert gist(parts, ref) == gist(events, ref)
    for name in ("status", "peer", "decoder", "live", "recv_window", "frames", "buffer", "partial", "next_ref"):
        assert getattr(pieces, name) == getattr(whole, name), name
    assert [stream.ref for stream in all_streams(pieces.streams)] == [
        stream.ref for stream in all_streams(whole.streams)
    ]
    check_slots(pieces)


# Law 6: the peer never raises, and our own mistakes change nothing


@given(data=st.binary(max_size=200), begun=st.booleans())
def test_any_bytes_are_taken(data: bytes, begun: bool) -> None:
    """Law 6: random bytes, before and after the preface."""
    conn = pickle.loads(SCENES[True]) if begun else http2.connect(ORIGIN, SETTINGS, 0.0)[0]
    after, out, events = http2.receive(conn, data, 1.0)
    assert wire.parse(out) is not None
    check_slots(after)
    if after.status == CLOSED:
        assert isinstance(events[-1], ConnectionClosed)
        assert wire.parse(out)[-1].kind == wire.GOAWAY


loose_frames = st.lists(
    st.builds(
        wire.frame,
        st.integers(0, 11),
        st.integers(0, 255),
        st.sampled_from((0, 1, 3, 5, 7, 9, 2, 11, 2**31 - 1, 2**32 - 1)),
        st.one_of(st.binary(max_size=40), st.just(bytes(4)), st.just(b"\x88"), st.just(bytes(8))),
        st.one_of(st.none(), st.none(), st.none(), st.integers(0, 20_000)),
    ),
    max_size=8,
)


@given(frames=loose_frames, queued=st.booleans())
def test_any_frames_are_taken(frames: list[bytes], queued: bool) -> None:
    """Law 6: every type, any flags, any stream, any payload, headers that lie about their length."""
    conn = pickle.loads(SCENES[queued])
    for each in frames:
        conn, out, _ = http2.receive(conn, each, 1.0)
        assert wire.parse(out) is not None
        check_slots(conn)
    conn, _, events = http2.close(conn, 2.0)
    check_slots(conn)
    assert conn.status == CLOSED


tokens = st.text(st.characters(max_codepoint=300), max_size=5)
some_bytes = st.one_of(st.binary(max_size=6), st.sampled_from((b"", b"5", b"te", b"Host", b"content-length", b":path")))
some_fields = st.lists(st.tuples(some_bytes, some_bytes), max_size=3).map(tuple)
numbers = st.one_of(st.integers(-2, 12), st.sampled_from((2**31, -(2**40), 2**63)))


@given(
    queued=st.booleans(),
    method=st.one_of(st.sampled_from(("GET", "POST")), tokens),
    target=st.one_of(st.just("/"), tokens),
    fields=some_fields,
    content=st.one_of(st.none(), st.binary(max_size=7)),
    ref=numbers,
    size=numbers,
    end=st.booleans(),
    now=st.floats(-1e9, 1e9),
)
def test_only_the_callers_mistake_raises_and_it_changes_nothing(
    queued: bool,
    method: str,
    target: str,
    fields: Fields,
    content: bytes | None,
    ref: int,
    size: int,
    end: bool,
    now: float,
) -> None:
    """Law 6: LocalProtocolError and nothing else ever leaves a verb; what is sent is right."""
    conn = pickle.loads(SCENES[queued])
    _, peer = scene(queued)

    def request(conn: HTTP2Connection) -> Step:
        later, data, _ = http2.request(conn, method, target, fields, content, now, end)
        return later, data, []

    def send_data(conn: HTTP2Connection) -> Step:
        return *http2.send_data(conn, ref, content or b"", now, end, fields), []

    verbs: tuple[Verb, ...] = (
        *(
            request,
            send_data,
            lambda conn: http2.consume(conn, ref, size, now),
            lambda conn: http2.cancel(conn, ref, now),
        ),
        *(lambda conn: http2.flush(conn, now), lambda conn: http2.handle_timeout(conn, now)),
    )
    for verb in verbs:
        saved = pickle.dumps(conn)
        try:
            conn, data, _ = verb(conn)
        except LocalProtocolError as error:
            assert pickle.loads(saved) == conn
            assert str(error)
        else:
            peer.take(data)
        check_slots(conn)
