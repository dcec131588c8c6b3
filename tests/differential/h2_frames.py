"""What a server may send and what it must not, in frames made by `hyperframe` and blocks made by `hpack`, for two clients.

A stream of frames is made of choices, so that it can be made again for each client, and then mutated in its bytes.
"""

from typing import Final

from hpack import Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    PushPromiseFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from hypothesis import strategies as st

REFS: Final = (1, 1, 1, 3, 3, 5, 7, 0, 2, 9)  # 1, 3, 5 and 7 are requests; 9 is idle, 2 could only be pushed
Choice = tuple[str, int, int]

HEADS: Final[tuple[tuple[tuple[str, str], ...], ...]] = (
    *((((":status", "200"), ("server", "test")),) * 3),
    ((":status", "200"), ("content-length", "5")),
    ((":status", "204"),),
    ((":status", "304"), ("content-length", "5")),
    ((":status", "100"),),
    ((":status", "103"), ("link", "</x>")),
    (("x-sum", "1"),),
    ((":status", "200"), (":status", "200")),
    ((":status", "200"), (":path", "/")),
    (("server", "test"), (":status", "200")),
    ((":status", "101"),),
    ((":status", "2000"),),
    ((":status", "abc"),),
    ((":status", "200"), ("connection", "close")),
    ((":status", "200"), ("transfer-encoding", "chunked")),
    ((":status", "200"), ("X-Upper", "a")),
    ((":status", "200"), ("x-edge", " a")),
    ((":status", "200"), ("x-line", "a\r\nb")),
    ((":status", "200"), ("x nul", "a")),
    ((":status", "200"), ("content-length", "x")),
    ((":status", "200"), ("content-length", "5"), ("content-length", "6")),
    ((":status", "200"), ("te", "trailers")),
    (),
)
KINDS: Final = (
    "head head head head body body body body trailers split ping settings ack window reset goaway priority push unknown "
    "odd continuation"
).split()

choices = st.lists(
    st.tuples(st.sampled_from(KINDS), st.sampled_from(REFS), st.integers(0, 999)), min_size=1, max_size=9
)


class Maker:
    """Frames by choice; one encoder for all of them, as a server has."""

    def __init__(self) -> None:
        self.encoder = Encoder()

    def make(self, choice: Choice) -> list[bytes]:
        """One frame, or a head in two."""
        kind, ref, pick = choice
        flags = ["END_STREAM"] if pick % 3 == 0 else []
        if kind in ("head", "trailers"):
            fields = HEADS[pick % 8 if pick % 5 else pick // 5 % len(HEADS)] if kind == "head" else HEADS[8]
            flags = ["END_STREAM"] if kind == "trailers" and pick % 9 else flags
            return [raw(HeadersFrame(1, self.encoder.encode(fields), flags=["END_HEADERS", *flags]), ref)]
        if kind == "split":
            block = self.encoder.encode(HEADS[pick % 4])
            place = pick % (len(block) + 1)
            first = raw(HeadersFrame(1, block[:place], flags=flags), ref)
            return [first, raw(ContinuationFrame(1, block[place:], flags=["END_HEADERS"]), ref)]
        if kind == "body":
            size = (0, 1, 5, 5, 100, 16_384, 16_385)[pick % 7 if pick % 11 else 6]
            padded = ["PADDED"] if pick % 13 == 0 else []
            return [
                raw(DataFrame(1, bytes(size), flags=[*flags, *padded], pad_length=pick % 256 if padded else 0), ref)
            ]
        return [self.rare(kind, ref, pick)]

    def rare(self, kind: str, ref: int, pick: int) -> bytes:
        """Any other frame; mostly on the stream where it belongs."""
        zero = 0 if pick % 7 else ref
        match kind:
            case "ping":
                return raw(PingFrame(0, b"%08d" % pick, flags=["ACK"] if pick % 2 else []), zero)
            case "settings":
                name, value = ((1, 0), (3, 5), (4, 100), (4, 2**31), (5, 20_000), (5, 100), (6, 10), (2, 1), (99, 1))[
                    pick % 9
                ]
                return raw(SettingsFrame(0, {name: value}), zero)
            case "ack":
                return raw(SettingsFrame(0, flags=["ACK"]), zero)
            case "window":
                data = raw(WindowUpdateFrame(0, (1, 100, 2**31 - 1, 70_000)[pick % 4]), ref)
                return data if pick % 9 else data[:-4] + bytes(4)
            case "reset":
                return raw(RstStreamFrame(1, pick % 15), ref)
            case "goaway":
                return raw(GoAwayFrame(0, (0, 1, 5, 2**31 - 1)[pick % 4], pick % 15, b"debug"), zero)
            case "priority":
                return raw(PriorityFrame(1, depends_on=(0, 11, ref)[pick % 3], stream_weight=15), ref)
            case "push":
                return raw(PushPromiseFrame(1, 2, self.encoder.encode(HEADS[8]), flags=["END_HEADERS"]), ref)
            case "continuation":
                return raw(ContinuationFrame(1, b"", flags=["END_HEADERS"]), ref)
            case "unknown":
                return (5).to_bytes(3, "big") + bytes((0x55, pick % 256)) + ref.to_bytes(4, "big") + b"hello"
        size = (0, 3, 4, 5, 7, 8, 9)[pick % 7]  # a payload of another length than its type has
        return size.to_bytes(3, "big") + bytes((pick % 10, pick % 256 & 0xD6)) + ref.to_bytes(4, "big") + bytes(size)


def raw(frame: Frame, ref: int) -> bytes:
    """As it stands on the wire, on any stream: hyperframe makes none on a stream where its type has no place."""
    data = frame.serialize()
    return data[:5] + ref.to_bytes(4, "big") + data[9:]


Change = tuple[int, int, int]
changes: st.SearchStrategy[list[Change]] = st.one_of(
    st.just([]),
    st.lists(st.tuples(st.integers(0, 9999), st.integers(0, 9999), st.integers(0, 255)), min_size=1, max_size=3),
)


def mutate(frames: list[bytes], changed: list[Change]) -> list[bytes]:
    """Single bytes of single frames changed, but for the three of their lengths."""
    frames = frames.copy()
    for which, place, byte in changed:
        frame = bytearray(frames[which % len(frames)])
        frame[3 + place % (len(frame) - 3)] = byte
        frames[which % len(frames)] = bytes(frame)
    return frames
