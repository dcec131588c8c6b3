"""Frames: RFC 9113 §4 and §6, against the hyperframe package."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import pytest
from h2.settings import SettingCodes
from hyperframe import frame as theirs
from hypothesis import given
from hypothesis import strategies as st

from calamint.core import frames
from calamint.core.errors import FRAME_SIZE_ERROR, PROTOCOL_ERROR, ConnectionFault

REFS: Final = st.integers(1, 2**31 - 1)
LONGS: Final = st.integers(0, 2**32 - 1)


def read(data: bytes) -> list[theirs.Frame]:
    """All of these octets as frames."""
    found: list[theirs.Frame] = []
    while data:
        frame, length = theirs.Frame.parse_frame_header(memoryview(data[:9]))
        frame.parse_body(memoryview(data[9 : 9 + length]))
        assert len(data) >= 9 + length
        found.append(frame)
        data = data[9 + length :]
    return found


@contextmanager
def refused(code: int, *parts: str) -> Iterator[None]:
    """A connection error with this code, whose reason says all of these."""
    with pytest.raises(ConnectionFault) as caught:
        yield
    assert caught.value.code == code
    for part in parts:
        assert part in caught.value.reason


def test_preface() -> None:
    """§3.4: "0x505249202a20485454502f322e300d0a0d0a534d0d0a0d0a"."""
    assert frames.PREFACE.hex() == "505249202a20485454502f322e300d0a0d0a534d0d0a0d0a"


def test_types_have_the_numbers_and_names_of_the_rfc() -> None:
    """§6, §11.2."""
    for kind, name in enumerate(frames.FRAME_NAMES):
        frame = theirs.FRAMES[kind]
        assert getattr(frames, name) == frame.type == kind
        assert frame.__name__.lower() == f"{name.replace('_', '').lower()}frame"
        assert frames.frame_name(kind) == name
    assert frames.frame_name(9) == "CONTINUATION"
    assert frames.frame_name(10) == "frame type 0xa"
    assert frames.frame_name(16) == "PRIORITY_UPDATE"
    assert frames.frame_name(255) == "frame type 0xff"


def test_flags_are_those_of_the_rfc() -> None:
    """§6.1, §6.2, §6.5, §6.7."""
    ours = {
        "ACK": frames.ACK,
        "END_STREAM": frames.END_STREAM,
        "END_HEADERS": frames.END_HEADERS,
        "PADDED": frames.PADDED,
        "PRIORITY": frames.PRIORITY_FLAG,
    }
    for frame in theirs.FRAMES.values():
        for flag in frame.defined_flags:
            assert ours[flag.name] == flag.bit


def test_settings_have_the_numbers_of_the_rfc() -> None:
    """§6.5.2; RFC 8441 §3; RFC 9218 §2.1."""
    for code, name in frames.SETTING_NAMES.items():
        assert getattr(frames, name) == code
        if name != "NO_RFC7540_PRIORITIES":  # h2 has no name for it
            assert SettingCodes(code).name == name
    assert frames.NO_RFC7540_PRIORITIES == 9
    assert set(frames.SETTING_NAMES) == {*SettingCodes, 9}


@given(st.integers(0, 2**24 - 1), st.integers(0, 255), st.integers(0, 255), st.integers(0, 2**31 - 1))
def test_header(length: int, kind: int, flags: int, ref: int) -> None:
    """§4.1: Length (24), Type (8), Flags (8), Reserved (1), Stream Identifier (31)."""
    data = frames.encode_header(length, kind, flags, ref)
    assert data == length.to_bytes(3, "big") + bytes((kind, flags)) + ref.to_bytes(4, "big")
    assert len(data) == frames.HEADER_SIZE
    assert frames.HEADER.unpack(data) == (length >> 8, length & 255, kind, flags, ref)


@pytest.mark.parametrize("end", [False, True])
@pytest.mark.parametrize(
    ("size", "sizes"),
    [
        (0, [0]),
        (1, [1]),
        (99, [99]),
        (100, [100]),
        (101, [100, 1]),
        (199, [100, 99]),
        (200, [100, 100]),
        (201, [100, 100, 1]),
        (300, [100, 100, 100]),
    ],
)
def test_head_is_cut_at_the_peers_frame_size(size: int, sizes: list[int], end: bool) -> None:
    """§4.3: HEADERS, then CONTINUATION; END_STREAM on the first, END_HEADERS on the last."""
    block = bytes([number % 251 for number in range(size)])
    found = read(frames.encode_head(7, block, end, 100))
    assert [type(frame) for frame in found] == [theirs.HeadersFrame] + [theirs.ContinuationFrame] * (len(sizes) - 1)
    pieces = [frame.data for frame in found if isinstance(frame, theirs.HeadersFrame | theirs.ContinuationFrame)]
    assert [len(piece) for piece in pieces] == sizes
    assert b"".join(pieces) == block
    for place, frame in enumerate(found):
        flags = {"END_STREAM"} if end and place == 0 else set()
        assert set(frame.flags) == flags | ({"END_HEADERS"} if place == len(found) - 1 else set())
        assert frame.stream_id == 7


@given(st.binary(max_size=70), st.integers(1, 80), st.booleans(), REFS)
def test_head_of_any_size(block: bytes, limit: int, end: bool, ref: int) -> None:
    found = read(frames.encode_head(ref, block, end, limit))
    pieces = [frame.data for frame in found if isinstance(frame, theirs.HeadersFrame | theirs.ContinuationFrame)]
    assert b"".join(pieces) == block
    assert len(pieces) == len(found) == max(1, -(-len(block) // limit))
    assert max([len(piece) for piece in pieces]) <= limit


def test_head_of_the_largest_frame() -> None:
    """§4.2: 2^24-1 octets, 24 bits of length."""
    limit = 2**24 - 1
    data = frames.encode_head(1, bytes(limit + 1), False, limit)
    assert data[:9] == b"\xff\xff\xff\x01\x00\x00\x00\x00\x01"
    assert data[9 + limit : 18 + limit] == b"\x00\x00\x01\x09\x04\x00\x00\x00\x01"
    assert len(data) == limit + 1 + 18


@given(REFS, LONGS)
def test_reset(ref: int, code: int) -> None:
    """§6.4."""
    (frame,) = read(frames.encode_reset(ref, code))
    assert isinstance(frame, theirs.RstStreamFrame)
    assert (frame.stream_id, frame.error_code, set(frame.flags)) == (ref, code, set())
    assert frames.encode_reset(ref, code) == frame.serialize()


@given(st.lists(st.tuples(st.integers(0, 2**16 - 1), LONGS), max_size=6))
def test_settings_both_ways(pairs: list[tuple[int, int]]) -> None:
    """§6.5.1; order and duplicates count, since "the value … is the last one"."""
    data = frames.encode_settings(tuple(pairs))
    (frame,) = read(data)
    assert isinstance(frame, theirs.SettingsFrame)
    assert frame.settings == dict(pairs)
    assert (frame.stream_id, set(frame.flags)) == (0, set())
    assert frames.decode_settings(data[9:]) == tuple(pairs)


def test_settings_acknowledged() -> None:
    """§6.5: "a length of 0" with ACK."""
    assert frames.encode_settings_ack() == theirs.SettingsFrame(0, flags=["ACK"]).serialize()


@pytest.mark.parametrize("size", [1, 5, 7, 11, 13])
def test_settings_of_a_wrong_size(size: int) -> None:
    """§6.5: "A SETTINGS frame with a length other than a multiple of 6 octets" is FRAME_SIZE_ERROR."""
    with refused(FRAME_SIZE_ERROR, f"SETTINGS of {size} bytes", "multiples of 6"):
        frames.decode_settings(bytes(size))
    assert frames.decode_settings(bytes(size // 6 * 6)) == ((0, 0),) * (size // 6)


@given(st.binary(min_size=8, max_size=8), st.booleans())
def test_ping(payload: bytes, ack: bool) -> None:
    """§6.7."""
    flags = frames.ACK if ack else 0
    frame = theirs.PingFrame(0, payload, flags=["ACK"] if ack else [])
    assert frames.encode_ping(payload, flags) == frame.serialize()


@given(st.integers(0, 2**31 - 1), LONGS, st.binary(max_size=40))
def test_goaway(last: int, code: int, debug: bytes) -> None:
    """§6.8."""
    frame = theirs.GoAwayFrame(0, last, code, debug)
    assert frames.encode_goaway(last, code, debug) == frame.serialize()


@given(st.integers(0, 2**31 - 1), st.integers(1, 2**31 - 1))
def test_window_update(ref: int, increment: int) -> None:
    """§6.9."""
    frame = theirs.WindowUpdateFrame(ref, increment)
    data = frames.encode_window_update(ref, increment)
    assert data == frame.serialize()
    assert frames.decode_long(data[9:], frames.WINDOW_UPDATE) == increment


@given(LONGS)
def test_long(number: int) -> None:
    assert frames.decode_long(struct.pack(">L", number), frames.RST_STREAM) == number


@pytest.mark.parametrize("size", [0, 3, 5, 8])
@pytest.mark.parametrize("kind", [frames.RST_STREAM, frames.WINDOW_UPDATE])
def test_long_of_a_wrong_size(kind: int, size: int) -> None:
    """§6.4, §6.9: "a length other than 4 octets MUST be treated as a connection error of type FRAME_SIZE_ERROR"."""
    with refused(FRAME_SIZE_ERROR, f"{frames.FRAME_NAMES[kind]} of {size} bytes", "allowed are 4"):
        frames.decode_long(bytes(size), kind)


@given(st.binary(max_size=40), st.integers(0, 255))
def test_padding_both_ways(content: bytes, padding: int) -> None:
    """§6.1, §6.2."""
    data = theirs.DataFrame(1, content, pad_length=padding, flags=["PADDED"]).serialize()
    assert frames.strip_padding(frames.DATA, data[4], data[9:]) == content
    assert frames.strip_padding(frames.DATA, data[4] & ~frames.PADDED, data[9:]) == data[9:]


@pytest.mark.parametrize("kind", [frames.DATA, frames.HEADERS])
def test_padding_both_sides_of_the_limit(kind: int) -> None:
    """§6.1: "the length of the frame payload or greater … MUST be treated as a connection error"."""
    for size in (1, 2, 10):
        assert frames.strip_padding(kind, frames.PADDED, bytes((size - 1,)) + bytes(size - 1)) == b""
        for padding in (size, size + 1, 255):
            with refused(PROTOCOL_ERROR, frames.FRAME_NAMES[kind], "padding"):
                frames.strip_padding(kind, frames.PADDED, bytes((padding,)) + bytes(size - 1))


def test_too_much_padding_is_reported_with_its_numbers() -> None:
    with refused(PROTOCOL_ERROR, "DATA", "77", "10"):
        frames.strip_padding(frames.DATA, frames.PADDED, b"\x4d" + bytes(9))


def test_no_room_for_the_pad_length() -> None:
    """§4.2: FRAME_SIZE_ERROR if a frame "is too small to contain mandatory frame data"."""
    with refused(FRAME_SIZE_ERROR, "HEADERS"):
        frames.strip_padding(frames.HEADERS, frames.PADDED, b"")
