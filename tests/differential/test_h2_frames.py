"""HTTP/2: frames of a server, right and wrong, for our connection and for a client of the `h2` package.

After each frame: is it a connection error, a stream error and of which stream, or fine, and what was told? They are compared
up to the first error of either.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived as TheirData
from h2.events import InformationalResponseReceived, StreamEnded, StreamReset
from h2.events import ResponseReceived as TheirHead
from h2.events import TrailersReceived as TheirTrailers
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes
from hypothesis import given, settings

from calamint.core import http2
from calamint.core.events import (
    ConnectionClosed,
    DataReceived,
    InterimReceived,
    RequestFailed,
    ResponseEnded,
    ResponseReceived,
    TrailersReceived,
)
from calamint.core.exchange import Settings
from calamint.core.http2_state import CLOSED
from calamint.core.url import Origin
from tests.core.http2_peer import (
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    MAX_WINDOW,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    WINDOW_UPDATE,
    Frame,
    data_frame,
    frame,
    goaway,
    headers_frame,
    literals,
    parse,
    rst_stream,
    settings_ack,
)
from tests.core.http2_peer import settings as settings_frame
from tests.differential.differences import Difference, explain
from tests.differential.h2_frames import Choice, Maker, changes, choices, mutate

FINE: Final = "fine"
STREAM: Final = "stream error"
CONNECTION: Final = "connection error"
METHODS: Final = ("GET", "POST", "HEAD", "GET")  # of the streams 1, 3, 5, 7; the content of the second is left open


class Verdict(NamedTuple):
    """What a frame was, in the eyes of a client: FINE, STREAM or CONNECTION, of which stream, and what it said."""

    kind: str
    ref: int
    told: tuple[object, ...]
    why: str


class Ours:
    """Our connection."""

    def __init__(self) -> None:
        options = Settings(stream_window=65_535, connection_window=65_535)
        self.conn, _ = http2.connect(Origin("https", "localhost", 443), options, 0.0)
        for method in METHODS:
            self.conn, _, _ = http2.request(self.conn, method, "/", (), None, 0.0, method != "POST")

    def take(self, data: bytes) -> Verdict:
        self.conn, out, events = http2.receive(self.conn, data, 0.0)
        told: list[object] = []
        why = ""
        for event in events:
            if isinstance(event, InterimReceived | ResponseReceived):
                told.append((event.ref, event.status, event.fields))
            elif isinstance(event, TrailersReceived):
                told.append((event.ref, 0, event.fields))
            elif isinstance(event, DataReceived):
                told.append((event.ref, event.data))
            elif isinstance(event, ResponseEnded):
                told.append((event.ref, "ended"))
            elif isinstance(event, RequestFailed):
                why = event.failure.message
                if event.failure.kind == "StreamReset":
                    told.append((event.ref, "reset", event.failure.code))
        frames = parse(out)
        if self.conn.status == CLOSED:
            assert frames[-1].kind == GOAWAY
            last = events[-1]
            assert isinstance(last, ConnectionClosed) and last.failure is not None
            return Verdict(CONNECTION, 0, tuple(told), last.failure.message)
        ended = [event.ref for event in events if isinstance(event, ResponseEnded)]
        resets = [item.ref for item in frames if item.kind == RST_STREAM and item.ref not in ended]
        return Verdict(STREAM if resets else FINE, resets[0] if resets else 0, tuple(told), why)


class Theirs:
    """A client of h2."""

    def __init__(self) -> None:
        self.conn = H2Connection(H2Configuration(client_side=True, header_encoding=None))
        self.conn.local_settings.update({SettingCodes.ENABLE_PUSH: 0})
        self.conn.local_settings.acknowledge()
        self.conn.initiate_connection()
        for number, method in enumerate(METHODS):
            fields = [(":method", method), (":scheme", "https"), (":authority", "localhost"), (":path", "/")]
            self.conn.send_headers(2 * number + 1, fields, end_stream=method != "POST")
        self.conn.data_to_send()

    def take(self, data: bytes) -> Verdict:
        try:
            events = self.conn.receive_data(data)
        except ProtocolError as error:
            return Verdict(CONNECTION, 0, (), f"{type(error).__name__}: {error}")
        told: list[object] = []
        for event in events:
            if isinstance(event, InformationalResponseReceived | TheirHead | TheirTrailers):
                assert event.headers is not None
                fields = tuple([(bytes(name), bytes(value)) for name, value in event.headers])
                has_status = bool(fields) and fields[0][0] == b":status"
                status = fields[0][1] if has_status else b"0"
                rest = fields[1:] if has_status else fields
                told.append((event.stream_id, int(status) if status.isdigit() else status, rest))
            elif isinstance(event, TheirData) and event.data:
                told.append((event.stream_id, bytes(event.data)))
            elif isinstance(event, StreamEnded):
                told.append((event.stream_id, "ended"))
            elif isinstance(event, StreamReset) and event.remote_reset:
                told.append((event.stream_id, "reset", event.error_code))
        resets = [item.ref for item in parse(self.conn.data_to_send()) if item.kind == RST_STREAM]
        return Verdict(STREAM if resets else FINE, resets[0] if resets else 0, tuple(told), "")


class Case(NamedTuple):
    """A frame, the ones before it, and two verdicts that differ."""

    before: tuple[bytes, ...]
    frame: Frame
    ours: Verdict
    theirs: Verdict

    def is_(self, ours: str, theirs: str, kind: int = -1) -> bool:
        return self.ours.kind == ours and self.theirs.kind == theirs and kind in (-1, self.frame.kind)

    def earlier(self, kind: int, flags: int = 0, ref: int = 0) -> bool:
        """Whether such a frame came before."""
        return any([data[3] == kind and data[4] & flags == flags and ref_of(data) == ref for data in self.before])

    def was_closed(self) -> bool:
        """Whether the server has ended or reset this stream, or given it up by a GOAWAY; a head in several frames ends it
        with the first of them."""
        ref = self.frame.ref
        given_up = [data for data in self.before if data[3] == GOAWAY and int.from_bytes(data[9:13], "big") < ref]
        ends = ((DATA, END_STREAM), (HEADERS, END_STREAM), (RST_STREAM, 0))
        return bool(given_up) or any([self.earlier(kind, flags, ref) for kind, flags in ends])


def ref_of(data: bytes) -> int:
    """The stream of a frame; the reserved bit says nothing (RFC 9113 §4.1)."""
    return int.from_bytes(data[5:9], "big") & MAX_WINDOW


HEAD: Final = b"\x88"
ALTSVC: Final = 10
PRIORITY_UPDATE: Final = 16
DIFFERENCES: Final[tuple[Difference[Case], ...]] = (
    Difference(
        "h2 ends the connection for a stream error",
        "RFC 9113 §5.4.1: an endpoint may treat a stream error as a connection error",
        lambda case: case.is_(STREAM, CONNECTION),
        data_frame(1, b"hello"),
    ),
    Difference(
        "a frame after GOAWAY",
        "RFC 9113 §6.8: streams up to the last id go on to their end; h2 takes nothing more",
        lambda case: (
            case.is_(FINE, CONNECTION) and case.earlier(GOAWAY) and "Invalid input ConnectionInputs" in case.theirs.why
        ),
        goaway(7) + headers_frame(1, HEAD),
    ),
    Difference(
        "a raised last id in a second GOAWAY",
        "RFC 9113 §6.8: endpoints must not increase it",
        lambda case: case.is_(CONNECTION, FINE, GOAWAY) and "raises its last stream id" in case.ours.why,
        goaway(1) + goaway(5),
    ),
    Difference(
        "RST_STREAM on an idle stream",
        "RFC 9113 §6.4: it must be a connection error",
        lambda case: case.is_(CONNECTION, FINE, RST_STREAM) and (case.frame.ref % 2 == 0 or case.frame.ref > 7),
        rst_stream(9, 0),
    ),
    Difference(
        "a stream that depends on itself",
        "RFC 9113 §5.3.2: priority signals are deprecated; what a server says with them is ignored",
        lambda case: case.is_(FINE, CONNECTION) and "may not depend on itself" in case.theirs.why,
        frame(PRIORITY, 0, 1, b"\0\0\0\1\x0f"),
    ),
    Difference(
        "PRIORITY of another length on a stream that is not there",
        "RFC 9113 §6.3: a stream error, but there is no stream to reset, and idle ones must not be (§6.4)",
        lambda case: (
            case.is_(FINE, CONNECTION, PRIORITY) and len(case.frame.payload) != 5 and case.frame.ref not in (1, 3, 5, 7)
        ),
        frame(PRIORITY, 0, 9, b"1234"),
    ),
    Difference(
        "a frame on a closed stream",
        "RFC 9113 §5.1: minimal processing, and nothing is answered, for all streams that are closed",
        lambda case: case.ours.kind == FINE and not case.ours.told and case.was_closed(),
        headers_frame(1, HEAD, end=True) + data_frame(1, b"late"),
    ),
    Difference(
        "a content-length that is not one number, in a response to HEAD",
        "RFC 9110 §8.6, RFC 9113 §8.1.1: it is invalid, and such a response malformed; h2 does not look at it after HEAD",
        lambda case: case.is_(STREAM, FINE) and case.frame.ref == 5 and "is not one number" in case.ours.why,
        headers_frame(5, HEAD + b"\x5c\x013\x5c\x016"),
    ),
    Difference(
        "RST_STREAM with NO_ERROR after all that was declared",
        "RFC 9113 §8.1: a server may reset so once its response is complete; here only END_STREAM is missing, and no content",
        lambda case: (
            case.is_(FINE, FINE, RST_STREAM)
            and case.frame.payload == bytes(4)
            and case.ours.told == ((case.frame.ref, "ended"),)
        ),
        headers_frame(1, b"\x8b") + rst_stream(1, 0),
    ),
    Difference(
        "PRIORITY_UPDATE from a server",
        "RFC 9218 §7.1: it must be a connection error; h2 does not know the frame",
        lambda case: case.is_(CONNECTION, FINE, PRIORITY_UPDATE),
        frame(PRIORITY_UPDATE, 0, 0, b"\0\0\0\1u=1"),
    ),
    Difference(
        "te in a response",
        "RFC 9113 §8.2.2: it is excepted in requests only, and so malformed; h2 takes `trailers` in responses too",
        lambda case: case.is_(STREAM, FINE) and "the field name b'te'" in case.ours.why,
        headers_frame(1, HEAD + literals((b"te", b"trailers"))),
    ),
    Difference(
        "the beginning of a PUSH_PROMISE",
        "RFC 9113 §8.4: its receipt is a connection error where push is off; h2 waits for the rest of its field block",
        lambda case: case.is_(CONNECTION, FINE, PUSH_PROMISE) and not case.frame.flags & END_HEADERS,
        frame(PUSH_PROMISE, 0, 1, b"\0\0\0\2"),
    ),
    Difference(
        "ALTSVC that is cut short",
        "RFC 9113 §5.5: frames of unknown types are ignored; RFC 7838 §4 is unknown to us",
        lambda case: case.is_(FINE, CONNECTION, ALTSVC),
        frame(ALTSVC, 0, 1, b"\xff\0"),
    ),
    Difference(
        "the reserved bit of a WINDOW_UPDATE",
        "RFC 9113 §6.9: it must be ignored when receiving",
        lambda case: case.is_(FINE, CONNECTION, WINDOW_UPDATE) and case.frame.payload[0] & 0x80 != 0,
        frame(WINDOW_UPDATE, 0, 1, b"\x80\0\0\1"),
    ),
    Difference(
        "no content where a content-length says some",
        "RFC 9113 §8.1.1: malformed, if the lengths of DATA do not add up to it",
        lambda case: case.is_(STREAM, FINE) and "short of its content-length" in case.ours.why,
        headers_frame(1, HEAD + b"\x5c\x015", end=True),
    ),
    Difference(
        "content where a response has none",
        "RFC 9113 §8.1.1: only the other way round is a response to HEAD, a 204 or a 304 not malformed",
        lambda case: case.is_(STREAM, FINE, DATA) and "above its content-length" in case.ours.why,
        headers_frame(1, b"\x89") + data_frame(1, b"x"),
    ),
    Difference(
        "a status that is not three digits from 100, or is 101",
        "RFC 9113 §8.3.2, §8.6: the status code of HTTP, which has three digits, and 101 is not used here",
        lambda case: (
            case.is_(STREAM, FINE) and ("is not three digits" in case.ours.why or "101 has no" in case.ours.why)
        ),
        headers_frame(1, literals((b":status", b"abc"))),
    ),
)


def compare(frames: Sequence[bytes]) -> Case | None:
    """The first frame about which they disagree, if there is one before the first error."""
    ours, theirs = Ours(), Theirs()
    for place, data in enumerate(frames):
        one, other = ours.take(data), theirs.take(data)
        if one[:3] != other[:3] and (one.kind != CONNECTION or other.kind != CONNECTION):
            return Case(tuple(frames[:place]), Frame(data[3], data[4], ref_of(data), data[9:]), one, other)
        if one.kind != FINE:
            return None
    return None


def check(chosen: list[Choice], changed: list[tuple[int, int, int]]) -> None:
    maker = Maker()
    made = mutate([frame for choice in chosen for frame in maker.make(choice)], changed)
    case = compare([settings_frame(), settings_ack(), *made])
    if case is not None:
        explain(case, DIFFERENCES)


@pytest.mark.parametrize("difference", DIFFERENCES, ids=lambda difference: difference.name)
def test_every_difference_exists(difference: Difference[Case]) -> None:
    case = compare([settings_frame(), *[frame(*item) for item in parse(difference.example)]])
    assert case is not None
    assert explain(case, DIFFERENCES) == difference.name


@given(chosen=choices, changed=changes)
@settings(max_examples=400, deadline=None)
def test_h2_judges_the_same(chosen: list[Choice], changed: list[tuple[int, int, int]]) -> None:
    check(chosen, changed)


@pytest.mark.slow
@pytest.mark.timeout(300)
@given(chosen=choices, changed=changes)
@settings(max_examples=1500, deadline=None)
def test_h2_judges_the_same_for_longer(chosen: list[Choice], changed: list[tuple[int, int, int]]) -> None:
    check(chosen, changed)


def test_frames_that_both_take() -> None:
    """So that a mistake in this file cannot leave the others without anything to compare."""
    ours, theirs = Ours(), Theirs()
    maker = Maker()
    told: list[object] = []
    for choice in (
        ("head", 1, 1),
        ("body", 1, 4),
        ("trailers", 1, 1),
        ("head", 3, 14),
        ("reset", 3, 8),
        ("ping", 0, 2),
    ):
        for data in [settings_frame(), *maker.make(choice)] if not told else maker.make(choice):
            one, other = ours.take(data), theirs.take(data)
            assert one[:3] == other[:3]
            assert one.kind == FINE
            told += one.told
    assert len(told) == 6
