"""A connection, its caller and its clock, driven by the fuzzer's bytes, with what must hold after every verb.

What is checked, by the laws of the design: any split of what arrives gives the same (2), one ending and nothing after it
(3), no leak (4), no wake-up that is late or comes again at once (5), nothing raised for what the peer did (6), and bounds
on what is kept and on what is answered (7). Frames are made by hand, heads are bytes: no code under test makes them.
"""

import pickle
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from calamint import core
from calamint.core.errors import LocalProtocolError
from calamint.core.events import ConnectionClosed, Event, PushPromised, RequestFailed, Upgraded, WindowOpened
from calamint.core.exchange import EXPECTING, TUNNEL
from calamint.core.http2_state import HTTP2Connection
from calamint.core.streams import LEAF, all_streams, find_stream
from calamint.core.value import Fields
from tests.core import http2_peer as wire
from tests.core.test_properties import Stories, joined

Item = TypeVar("Item")

ORIGIN: Final = core.Origin("http", "localhost", 8080)
CLOCKS: Final = core.Clocks(5.0, 3.0, 4.0, 20.0)
SECONDS: Final = (0.0, 0.001, 0.5, 2.99, 3.0, 5.0, 10.0, 30.0, 61.0, 700.0)
METHODS: Final = ("GET", "HEAD", "POST", "OPTIONS", "CONNECT", "websocket")  # the last for the extended CONNECT
FIELDS: Final[tuple[Fields, ...]] = (
    (),
    ((b"x-number", b"1"),),
    ((b"accept", b"*/*"), (b"authorization", b"secret")),
    ((b"content-length", b"3"),),
    ((b"expect", b"100-continue"),),
    ((b"connection", b"upgrade"), (b"upgrade", b"websocket")),
)
OTHERS: Final = (
    core.Settings(stream_window=100, connection_window=65_535, max_frame_size=20_000),
    core.Settings(stream_window=100_000, header_table_size=0, max_field_section=200, max_fields=4),
    core.Settings(max_pushes=1, keepalive=None),
)
CUTS: Final = 48  # an input is not cut more often, so that a run takes a millisecond and not a second
KEPT: Final = 20_000  # bytes of a pickled connection without content, buffers and requests
ANSWERED: Final = 4  # bytes written for a byte received, without content
SPARE: Final = 4096


class Source:
    """Choices, read from the fuzzer's bytes in their order; zeros once they are used up."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.pos = 0

    def more(self) -> bool:
        return self.pos < len(self.data)

    def byte(self) -> int:
        self.pos += 1
        return self.data[self.pos - 1] if self.pos <= len(self.data) else 0

    def take(self, size: int) -> bytes:
        self.pos += size
        return self.data[self.pos - size : self.pos]

    def pick(self, items: Sequence[Item]) -> Item:
        return items[self.byte() % len(items)]


class Tale(Stories):
    """Also of tunnels, which are made right after a head, and of promises."""

    def tell(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, Upgraded):
                assert self.places[event.ref] == 2 and event.ref not in self.over
            elif isinstance(event, PushPromised):
                assert event.promised not in self.places and event.promised % 2 == 0
            else:
                super().tell([event])


class World:
    """One connection of either protocol and its caller."""

    def __init__(self, protocol: str, settings: core.Settings, source: Source) -> None:
        self.source = source
        self.settings = settings
        self.now = 0.0
        self.conn, self.output = core.connect(protocol, ORIGIN, settings, 0.0)
        self.stories = Tale()
        self.refs: list[int] = []
        self.cut = 1 + source.byte() % 16
        self.largest = settings.stream_window  # no stream's window is above this

    # what is done

    def receive(self, data: bytes) -> None:
        """These bytes arrive: at once, and from the same value in pieces."""
        before, size, waits = self.conn, len(data), self.content_waits()
        pieces = before
        parts: list[Event] = []
        written = 0
        ends = [*range(self.cut, size, self.cut)][:CUTS]
        for start, end in zip([0, *ends], [*ends, size], strict=True):
            pieces, out, events = core.receive(pieces, data[start:end], self.now)
            written += len(out)
            parts += events
        queued = sum([core.queued(before, ref) for ref in self.refs])
        whole, out, events = core.receive(before, data, self.now)
        assert len(out) <= ANSWERED * size + SPARE + 2 * queued, f"{len(out)} bytes written for {size}"
        if waits:
            assert gists(parts) == gists(events)
            same(pieces, whole, ("status", "peer", "decoder", "live", "recv_window", "frames", "buffer", "partial"))
        else:
            assert joined(parts) == joined(events)
            assert written == len(out)
            names = set(whole.__match_args__) - {
                "wake",
                "spent",
            }  # early; and what we send, call by call, gives back of it
            if core.is_closed(whole):
                names.discard("heard_at")
            same(pieces, whole, sorted(names))
        self.note((whole, out, events))

    def content_waits(self) -> bool:
        """Whether content or its end waits in the value, or may be released: when it leaves depends on the cut."""
        for ref in self.refs:
            record = core.verbs.find(self.conn, ref)
            if record is not None and record.upload is not None:
                is_open = EXPECTING <= record.state <= TUNNEL
                if record.upload.queued or (record.upload.ending and is_open):
                    return True
        return False

    def call(self, verb: Callable[[], core.verbs.Step]) -> None:
        """One verb of the caller: a mistake of theirs changes nothing, and is the only thing that is raised."""
        before, saved = self.conn, pickle.dumps(self.conn)
        try:
            step = verb()
        except LocalProtocolError as error:
            assert str(error)
            assert pickle.loads(saved) == before, "a verb that raised changed its value"
            return
        self.note(step)

    def request(self) -> None:
        source = self.source
        method, fields = source.pick(METHODS), source.pick(FIELDS)
        shape = source.byte()
        content = (None, b"", b"abc", bytes(70_000))[shape % 4]
        end = bool(shape & 4)
        deadline = self.now + (float("inf"), 7.0)[shape >> 3 & 1]
        target, protocol = "/", ""
        if method == "CONNECT":
            target, content = "localhost:1", None
        elif method == "websocket":
            method, protocol, content = "CONNECT", "websocket", None

        def verb() -> core.verbs.Step:
            conn, out, ref = core.request(
                self.conn, method, target, fields, content, self.now, end, deadline, CLOCKS, protocol
            )
            assert ref not in self.refs, "a ref comes twice"
            self.refs.append(ref)
            return conn, out, []

        self.call(verb)

    def send_data(self) -> None:
        ref, shape = self.ref(), self.source.byte()
        data = (b"", b"xyz", bytes(20_000))[shape % 3]
        trailers: Fields = ((b"x-sum", b"1"),) if shape & 8 else ()

        def verb() -> core.verbs.Step:
            conn, out = core.send_data(self.conn, ref, data, self.now, bool(shape & 4), trailers)
            return conn, out, []

        self.call(verb)

    def ref(self) -> int:
        """A request, or now and then one that never was."""
        number = self.source.byte()
        return self.refs[number % len(self.refs)] if self.refs and number < 250 else number

    def consume(self) -> None:
        ref, share = self.ref(), self.source.byte()
        record = core.verbs.find(self.conn, ref)
        size = 0 if record is None else record.unread * (share % 5) // 4
        self.call(lambda: core.consume(self.conn, ref, size, self.now))

    def cancel(self) -> None:
        ref = self.ref()
        self.call(lambda: core.cancel(self.conn, ref, self.now))

    def flush(self) -> None:
        unsent = (0, 0, 0, 5, 10_000)[self.source.byte() % 5]
        self.call(lambda: core.flush(self.conn, self.now, min(unsent, self.conn.written)))

    def rare(self) -> None:
        """What a caller does now and then."""
        what = self.source.byte() % 8
        if what == 0:
            self.cancel()
        elif what == 1:
            self.end()
        elif what <= 3:
            self.call(lambda: (*core.ping(self.conn, self.now), []))
        elif what <= 5:
            settings = self.source.pick(OTHERS)
            self.largest += settings.stream_window
            self.call(lambda: (*core.put_settings(self.conn, settings, self.now), []))
        elif what == 6:
            ref, size = self.ref(), self.source.pick((0, 1000, 500_000))
            self.largest += size
            self.call(lambda: (*core.grow_window(self.conn, ref, size, self.now), []))
        else:
            ref, urgency = self.ref(), self.source.byte() % 9
            self.call(lambda: (*core.prioritize(self.conn, ref, urgency, urgency > 4, self.now), []))

    def time(self) -> None:
        """Time passes, and the driver comes when it was told to, or too late."""
        self.now += self.source.pick(SECONDS)
        self.call(lambda: core.handle_timeout(self.conn, self.now))
        assert core.next_timeout(self.conn) > self.now, "time stands still"

    def end(self) -> None:
        """The transport ends, or we end it."""
        shape = self.source.byte()
        if shape % 3 == 2:
            self.call(lambda: core.close(self.conn, self.now))
            return
        conn, events = core.closed(self.conn, self.now, (shape >> 2) * 8, shape % 3 == 1)
        self.note((conn, b"", events))
        assert core.is_closed(self.conn)

    # what must hold

    def note(self, step: core.verbs.Step) -> None:
        """After every verb."""
        self.conn, out, events = step
        self.output += out
        self.stories.tell(events)
        for event in events:
            assert getattr(event, "ref", 0) in (0, *self.refs), "an event of a request that never was"
            if isinstance(event, PushPromised):
                self.refs.append(event.promised)
            if isinstance(event, RequestFailed | ConnectionClosed) and event.failure is not None:
                assert event.failure.message
        conn = self.conn
        live = [ref for ref in self.refs if ref not in self.stories.over]
        assert [ref for ref in self.refs if core.is_live(conn, ref)] == live
        assert core.in_flight(conn) == len(live)
        assert core.is_closed(conn) == self.stories.closed
        for place, ref in enumerate(live):
            record = core.verbs.find(conn, ref)
            assert record is not None
            due, clock = record.running_clock(conn.flushed)
            if place and clock != "write" and not isinstance(conn, HTTP2Connection):
                due = record.deadline  # its turn has not come
            assert core.next_timeout(conn) <= due, f"a late wake-up for {clock}"
        if isinstance(conn, HTTP2Connection):
            assert wire.parse(out[24:] if out.startswith(wire.CLIENT_PREFACE) else out) is not None
            check_places(conn, self.largest)
        self.bounded()

    def bounded(self) -> None:
        """Law 7: what a peer can make us keep."""
        conn, settings = self.conn, self.settings
        assert len(conn.buffer) <= max(settings.max_frame_size, 20_000, settings.max_field_section) + 16
        if isinstance(conn, HTTP2Connection):
            block = conn.control.block
            assert block is None or len(block[2]) <= max(settings.max_field_section, 65_536) + 20_000
            assert conn.decoder.size <= conn.decoder.max_size <= max(4096, settings.header_table_size)
            assert len(conn.control.pushes) <= max(settings.max_pushes, 1)

    def finish(self) -> None:
        """The end of every run: each request has ended once, and a closed connection stays closed."""
        waiting = [core.verbs.find(self.conn, ref) for ref in self.refs if core.queued(self.conn, ref)]
        content = sum([len(part) for record in waiting if record and record.upload for part in record.upload.queue])
        kept = len(pickle.dumps(self.conn)) - content - len(self.conn.buffer)
        assert kept <= KEPT + 1000 * len(self.refs) + 65_536, f"{kept} bytes are kept"
        assert core.snapshot(self.conn, self.now).describe()
        if not core.is_closed(self.conn):
            conn, events = core.closed(self.conn, self.now)
            self.note((conn, b"", events))
        assert sorted(self.refs) == sorted(self.stories.over), "a request without an ending"
        later = self.now + 1000.0
        over = self.conn
        for step in (core.receive(over, b"HTTP/1.1 200 OK\r\n\r\n", later), core.handle_timeout(over, later)):
            assert step == (over, b"", []), "a closed connection woke up"
        assert core.flush(over, later)[2] == core.closed(over, later)[1] == core.close(over, later)[2] == []
        assert core.next_timeout(over) == float("inf") and core.capacity(over) == 0 and core.is_draining(over)


def check_places(conn: HTTP2Connection, largest: int) -> None:
    """Law 4: each stream is in one place, the slots are their sum, and every index is about streams that are live."""
    streams, control = all_streams(conn.streams), conn.control
    refs = [stream.ref for stream in streams]
    assert (
        conn.live
        == len(refs)
        == len({*refs, *control.unsent, *control.unconfirmed}) - len(control.unsent) - len(control.unconfirmed)
    )
    for number, leaf in conn.streams.items():
        assert leaf and all([ref >> LEAF == number and stream.ref == ref for ref, stream in leaf.items()])
    assert sorted(control.pushes) == [ref for ref in refs if ref % 2 == 0]
    used = len(refs) - len(control.pushes) + len(control.unsent) + len(control.unconfirmed)
    assert core.capacity(conn) == (0 if core.is_draining(conn) else max(0, conn.peer.limit - used))
    assert len(set(conn.ready)) == len(conn.ready)
    for ref in conn.ready:
        stream = find_stream(conn.streams, ref)
        assert stream is not None and stream.upload is not None
        assert stream.upload.queued or stream.upload.ending, "ready, and nothing to send"
    for stream in streams:
        assert 0 <= stream.unread <= stream.received
        assert stream.recv_window + stream.credit + stream.unread <= largest
        assert stream.ref % 2 == 0 or stream.ref < conn.next_ref
    if core.is_closed(conn):
        assert (used, conn.live, conn.ready, conn.buffer, conn.partial) == (0, 0, (), b"", None)


def same(one: core.Connection, other: core.Connection, names: Sequence[str]) -> None:
    """These parts of two values are equal."""
    for name in names:
        if hasattr(other, name):
            assert getattr(one, name) == getattr(other, name), f"{name} depends on how the bytes were cut"


def gists(events: list[Event]) -> list[tuple[str, object]]:
    """What happened, without messages and without what depends on when content leaves, request by request."""
    parts: list[tuple[str, object]] = []
    kept = [event for event in events if not isinstance(event, WindowOpened)]
    for event in joined(sorted(kept, key=lambda event: getattr(event, "ref", 0))):
        if isinstance(event, RequestFailed):
            parts.append((event.failure.kind, (event.ref, event.failure.code, event.failure.unprocessed)))
        elif isinstance(event, ConnectionClosed):
            parts.append(("closed", None if event.failure is None else event.failure.code))
        else:
            parts.append((type(event).__name__, event))
    return parts
