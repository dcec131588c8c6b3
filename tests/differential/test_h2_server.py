"""HTTP/2: a server of the `h2` package as the peer of our connection, over random turns of both, with bytes on their way.

`h2` raises for whatever a client must not send. What it did and what we were told must be the same, and the other way.
"""

from typing import Final

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived as TheirData
from h2.events import RequestReceived, SettingsAcknowledged, StreamEnded, StreamReset
from h2.events import TrailersReceived as TheirTrailers
from h2.settings import SettingCodes
from hypothesis import given, settings
from hypothesis import strategies as st

from calamint.core import http2
from calamint.core.errors import LocalProtocolError
from calamint.core.events import (
    ConnectionClosed,
    DataReceived,
    Event,
    InterimReceived,
    RequestFailed,
    ResponseEnded,
    ResponseReceived,
    TrailersReceived,
    WindowOpened,
)
from calamint.core.exchange import Settings
from calamint.core.streams import find_stream
from calamint.core.url import Origin
from calamint.core.value import Fields
from tests.core.http2_peer import CLIENT_PREFACE, frame, parse
from tests.core.test_properties import joined

ORIGIN: Final = Origin("http", "localhost", 8080)
OPTIONS: Final = (
    Settings(stream_window=1000, connection_window=65_535),
    Settings(header_table_size=0, output_budget=1),
    Settings(header_table_size=60_000, max_frame_size=20_000, output_budget=20_000),
    Settings(),
)
CHANGES: Final[tuple[dict[SettingCodes | int, int], ...]] = (
    {SettingCodes.INITIAL_WINDOW_SIZE: 0},
    {SettingCodes.INITIAL_WINDOW_SIZE: 50},
    {SettingCodes.INITIAL_WINDOW_SIZE: 70_000, SettingCodes.MAX_FRAME_SIZE: 30_000},
    {SettingCodes.HEADER_TABLE_SIZE: 0},
    {SettingCodes.HEADER_TABLE_SIZE: 100, SettingCodes.MAX_CONCURRENT_STREAMS: 3},
    {SettingCodes.HEADER_TABLE_SIZE: 65_536, SettingCodes.MAX_CONCURRENT_STREAMS: 100},
)
FIELDS: Final[tuple[Fields, ...]] = (
    (),
    ((b"x-number", b"1"),),
    ((b"x-number", b"2"), (b"cookie", b"a=b"), (b"x-long", b"v" * 200)),
    ((b"authorization", b"secret"), (b"accept", b"*/*")),
)
SIZES: Final = (0, 1, 40, 3000, 40_000)

turns = st.lists(
    st.tuples(
        st.sampled_from(
            "request request request send cancel consume head head head interim data data data trailers reset "
            "settings ping credit flush to_server to_client".split()
        ),
        st.integers(0, 199),
        st.sampled_from((False, False, True)),
        st.sampled_from((True, True, False)),
    ),
    min_size=30,
    max_size=80,
)


class Pair:
    """Our connection and their server; what each did, and what the other was told."""

    def __init__(self, options: Settings) -> None:
        self.conn, data = http2.connect(ORIGIN, options, 0.0)
        self.server = H2Connection(H2Configuration(client_side=False, header_encoding=None))
        self.server.initiate_connection()
        self.up, self.down = data, b""  # on their way
        self.sent: dict[int, tuple[Fields, bytes, Fields, bool]] = {}  # by us: fields, content, trailers, ended
        self.seen: dict[int, tuple[Fields, bytes, Fields, bool]] = {}  # by them
        self.said: dict[int, list[Event]] = {}  # by them, as we should hear it
        self.heard: dict[int, list[Event]] = {}  # by us
        self.owed: dict[int, int] = {}  # bytes of content that the server has not given back
        self.reset: set[int] = set()  # by us or them
        self.cancelled: set[int] = set()
        self.acknowledged = False  # what the server announced last

    # what is on its way

    def to_server(self) -> None:
        """A frame at a time: h2 would judge the next ones by the SETTINGS that held before the call."""
        data, self.up = self.up, b""
        frames = [data[: len(CLIENT_PREFACE)]] if data.startswith(CLIENT_PREFACE) else []
        frames += [frame(*item) for item in parse(data[len(b"".join(frames)) :])]
        for event in [event for item in frames for event in self.server.receive_data(item)]:
            if isinstance(event, RequestReceived):
                assert event.headers is not None
                fields = tuple([(bytes(name), bytes(value)) for name, value in event.headers])
                self.seen[event.stream_id] = (fields, b"", (), False)
                self.said[event.stream_id] = []
            elif isinstance(event, SettingsAcknowledged):
                self.acknowledged = True
            elif isinstance(event, StreamReset):
                self.reset.add(event.stream_id)
            elif isinstance(event, TheirData | TheirTrailers | StreamEnded):
                self.take(event)

    def take(self, event: TheirData | TheirTrailers | StreamEnded) -> None:
        ref = event.stream_id
        assert ref is not None
        fields, content, trailers, ended = self.seen[ref]
        if isinstance(event, TheirData):
            content += event.data
            self.owed[ref] = self.owed.get(ref, 0) + event.flow_controlled_length
        elif isinstance(event, TheirTrailers):
            assert event.headers is not None
            trailers = tuple([(bytes(name), bytes(value)) for name, value in event.headers])
        else:
            ended = True
        self.seen[ref] = (fields, content, trailers, ended)

    def to_client(self) -> None:
        data, self.down = self.down + self.server.data_to_send(), b""
        self.conn, out, events = http2.receive(self.conn, data, 0.0)
        self.up += out
        self.hear(events)

    def hear(self, events: list[Event]) -> None:
        for event in events:
            assert not isinstance(event, ConnectionClosed), event
            if ref := getattr(event, "ref", 0):
                self.heard[ref].append(event)

    # our turns

    def request(self, pick: int, flag: bool) -> None:
        method = ("GET", "HEAD", "POST")[pick % 3]
        fields = FIELDS[pick % len(FIELDS)]
        content = None if pick % 5 == 0 else bytes((pick,)) * SIZES[pick % len(SIZES)]
        try:
            self.conn, out, ref = http2.request(self.conn, method, f"/{pick % 7}", fields, content, 0.0, flag)
        except LocalProtocolError:
            assert http2.capacity(self.conn) == 0
            return
        self.up += out
        pseudo = ((b":method", method.encode()), (b":scheme", b"http"), (b":authority", b"localhost:8080"))
        length = ((b"content-length", b"%d" % len(content)),) if content is not None and flag else ()
        self.sent[ref] = ((*pseudo, (b":path", b"/%d" % (pick % 7)), *fields, *length), content or b"", (), flag)
        self.heard[ref] = []

    def ours(self, pick: int) -> int:
        """One of our requests, ended or not."""
        refs = list(self.sent)
        return refs[-1 - pick % len(refs)] if refs else 0

    def send(self, pick: int, flag: bool) -> None:
        ref, data = self.ours(pick), bytes((pick,)) * SIZES[pick % len(SIZES)]
        trailers: Fields = ((b"x-sum", b"%d" % pick),) if flag and pick % 2 else ()
        try:
            self.conn, out = http2.send_data(self.conn, ref, data, 0.0, flag, trailers)
        except LocalProtocolError:
            return
        self.up += out
        fields, content, _, _ = self.sent[ref]
        self.sent[ref] = (fields, content + data, trailers, flag)

    def cancel(self, pick: int) -> None:
        ref = self.ours(pick)
        if find_stream(self.conn.streams, ref) is not None:
            self.conn, out, events = http2.cancel(self.conn, ref, 0.0)
            self.up += out
            self.cancelled.add(ref)
            assert [type(event) for event in events] == [RequestFailed]

    def consume(self, pick: int) -> None:
        ref = self.ours(pick)
        stream = find_stream(self.conn.streams, ref)
        if stream is not None:
            self.conn, out, _ = http2.consume(self.conn, ref, stream.unread, 0.0)
            self.up += out

    def flush(self) -> None:
        self.conn, out, _ = http2.flush(self.conn, 0.0)
        self.up += out

    # their turns

    def theirs(self, pick: int, kinds: tuple[type[Event], ...]) -> int:
        """A stream on which the server may go on, and whose last event is of one of these kinds."""
        refs = []
        for ref, said in self.said.items():
            last = type(said[-1]) if said else InterimReceived
            if ref not in self.reset and last in kinds:
                refs.append(ref)
        return refs[pick % len(refs)] if refs else 0

    def respond(self, what: str, pick: int, flag: bool) -> None:
        ref = self.theirs(pick, (InterimReceived,) if what in ("head", "interim") else (ResponseReceived, DataReceived))
        if not ref:
            return
        if what == "interim":
            self.head(ref, (100, 103)[pick % 2], pick, False)
        elif what == "head":
            self.head(ref, (200, 404, 599)[pick % 3], pick, flag)
        elif what == "data":
            size = min(SIZES[pick % len(SIZES)], self.server.local_flow_control_window(ref), 16_000)
            if (b":method", b"HEAD") in self.seen[ref][0]:
                size = 0
            padding = 3 if pick % 4 == 0 and size > 4 else None
            size -= 0 if padding is None else 4
            self.server.send_data(ref, bytes((pick,)) * size, flag, padding)
            self.tell(ref, DataReceived(ref, bytes((pick,)) * size) if size else None, flag)
        else:
            self.server.send_headers(ref, [(b"x-sum", b"%d" % pick)], end_stream=True)
            self.tell(ref, TrailersReceived(ref, ((b"x-sum", b"%d" % pick),)), True)

    def head(self, ref: int, status: int, pick: int, end: bool) -> None:
        fields = FIELDS[pick % len(FIELDS)]
        self.server.send_headers(ref, [(b":status", b"%d" % status), *fields], end_stream=end)
        if status < 200:
            self.tell(ref, InterimReceived(ref, status, fields), False)
        else:
            self.tell(ref, ResponseReceived(ref, status, fields), end)

    def tell(self, ref: int, event: Event | None, end: bool) -> None:
        said = self.said[ref]
        if event is not None:
            said.append(event)
        if end:
            said.append(ResponseEnded(ref))

    def abort(self, pick: int) -> None:
        ref = self.theirs(pick, (InterimReceived, ResponseReceived, DataReceived))
        if ref:
            self.server.reset_stream(ref, ErrorCodes.INTERNAL_ERROR)
            self.reset.add(ref)
            self.said[ref].append(RequestFailed)  # type: ignore[arg-type]  # a kind, which stands for any such event

    def announce(self, change: dict[SettingCodes | int, int]) -> None:
        """One SETTINGS at a time: h2 takes an ACK for that of everything which it has announced since (RFC 9113 §6.5.3)."""
        if self.acknowledged:
            self.server.update_settings(change)
            self.acknowledged = False

    def credit(self) -> None:
        for ref, size in self.owed.items():
            self.server.acknowledge_received_data(size, ref)
        self.owed = {}

    def turn(self, what: str, pick: int, flag: bool) -> None:
        match what:
            case "request":
                self.request(pick, flag)
            case "send":
                self.send(pick, flag)
            case "cancel":
                self.cancel(pick)
            case "consume":
                self.consume(pick)
            case "flush":
                self.flush()
            case "reset":
                self.abort(pick)
            case "settings":
                self.announce(CHANGES[pick % len(CHANGES)])
            case "ping":
                self.server.ping(b"%08d" % pick)
            case "credit":
                self.credit()
            case "to_server":
                self.to_server()
            case "to_client":
                self.to_client()
            case _:
                self.respond(what, pick, flag)

    def settle(self) -> None:
        """All that is on its way arrives, every window is opened, until nobody has anything to say."""
        opened = False
        for _ in range(200):
            self.to_server()
            if self.acknowledged and not opened:
                self.announce({SettingCodes.INITIAL_WINDOW_SIZE: 65_535})
                opened = True
            self.credit()
            for ref in self.sent:
                stream = find_stream(self.conn.streams, ref)
                if stream is not None:
                    self.conn, out, _ = http2.consume(self.conn, ref, stream.unread, 0.0)
                    self.up += out
            self.to_client()
            self.flush()
            if opened and self.acknowledged and not self.up:
                return
        raise AssertionError("they never stop")

    def check(self) -> None:
        """After all has arrived."""
        assert list(self.seen) == list(self.sent)
        for ref, sent in self.sent.items():
            seen, said = self.seen[ref], self.said[ref]
            heard = joined([event for event in self.heard[ref] if not isinstance(event, RequestFailed | WindowOpened)])
            assert sorted(seen[0]) == sorted(sent[0]), "another request"
            assert sent[1].startswith(seen[1]), "other content"
            if ref not in self.reset:
                assert seen == (seen[0], *sent[1:]), "content is missing"
            told = joined([event for event in said if isinstance(event, Event)])
            if ref in self.cancelled:
                assert b"".join(map(pieces, told)).startswith(b"".join(map(pieces, heard)))
            else:
                assert heard == told
        assert self.conn.decoder.entries[::-1] == tuple(
            [(bytes(name), bytes(value)) for name, value in self.server.encoder.header_table.dynamic_entries]
        )


def pieces(event: Event) -> bytes:
    """An event in bytes, so that one story can be the beginning of another."""
    return event.data if isinstance(event, DataReceived) else repr(event).encode()


def play(options: Settings, story: list[tuple[str, int, bool, bool]]) -> Pair:
    pair = Pair(options)
    pair.to_server()
    pair.to_client()
    for what, pick, flag, arrives in story:
        pair.turn(what, pick, flag)
        pair.down += pair.server.data_to_send()
        if arrives:
            pair.to_server()
            pair.to_client()
    pair.settle()
    pair.check()
    return pair


@given(options=st.sampled_from(OPTIONS), story=turns)
@settings(max_examples=100, deadline=None)
def test_a_server_of_h2_and_we_understand_each_other(
    options: Settings, story: list[tuple[str, int, bool, bool]]
) -> None:
    play(options, story)


@pytest.mark.slow
@pytest.mark.timeout(300)
@given(options=st.sampled_from(OPTIONS), story=turns)
@settings(max_examples=150, deadline=None)
def test_the_same_for_longer(options: Settings, story: list[tuple[str, int, bool, bool]]) -> None:
    play(options, story)


def test_a_story_that_has_all_of_it() -> None:
    """So that a mistake in this file cannot leave the others without anything to compare."""
    story = [
        ("request", 12, True, True),
        ("request", 13, False, True),
        ("send", 12, True, True),
        ("interim", 0, False, True),
    ]
    story += [("head", 1, False, True), ("head", 1, False, True), ("data", 3, False, True), ("trailers", 5, True, True)]
    story += [("data", 8, True, True), ("request", 7, True, True), ("cancel", 0, True, True)]
    pair = play(Settings(), story)
    kinds = {type(event) for said in pair.heard.values() for event in said}
    assert {InterimReceived, ResponseReceived, DataReceived, TrailersReceived, ResponseEnded} <= kinds
    assert [seen[3] for seen in pair.seen.values()] == [True, True, True]
    assert pair.cancelled == {5}
