"""Frames and field blocks of the model server, written from RFC 9113 §4 and §6 and RFC 7541 Appendix A alone."""

from functools import lru_cache
from struct import Struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
PRIORITY_UPDATE = 0x10
NAMES = {
    DATA: "DATA",
    HEADERS: "HEADERS",
    PRIORITY: "PRIORITY",
    RST_STREAM: "RST_STREAM",
    SETTINGS: "SETTINGS",
    PUSH_PROMISE: "PUSH_PROMISE",
    PING: "PING",
    GOAWAY: "GOAWAY",
    WINDOW_UPDATE: "WINDOW_UPDATE",
    CONTINUATION: "CONTINUATION",
    PRIORITY_UPDATE: "PRIORITY_UPDATE",
}

END_STREAM = ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
PRIORITY_FLAG = 0x20

(
    TABLE_SIZE,
    ENABLE_PUSH,
    MAX_CONCURRENT,
    INITIAL_WINDOW,
    MAX_FRAME,
    MAX_FIELDS,
) = range(1, 7)
ENABLE_CONNECT = 8
NO_PRIORITIES = 9

NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR, SETTINGS_TIMEOUT, STREAM_CLOSED, FRAME_SIZE_ERROR = range(
    7
)
REFUSED_STREAM, CANCEL, COMPRESSION_ERROR, CONNECT_ERROR, ENHANCE_YOUR_CALM = range(7, 12)

MAX_WINDOW = 2**31 - 1

_HEAD = Struct(">BHBBL")
_U32 = Struct(">L")
_SETTING = Struct(">HL")

Fields = tuple[tuple[bytes, bytes], ...]


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    size = len(payload)
    return _HEAD.pack(size >> 16, size & 0xFFFF, kind, flags, stream) + payload


def parse_head(data: bytearray, offset: int) -> tuple[int, int, int, int]:
    """(payload size, type, flags, stream)"""
    high, low, kind, flags, stream = _HEAD.unpack_from(data, offset)
    return high << 16 | low, kind, flags, stream & MAX_WINDOW


def u32(payload: bytes, offset: int = 0) -> int:
    value: int = _U32.unpack_from(payload, offset)[0]
    return value


def encode_settings(values: dict[int, int]) -> bytes:
    return b"".join([_SETTING.pack(key, value) for key, value in values.items()])


def parse_settings(payload: bytes) -> list[tuple[int, int]]:
    return list(_SETTING.iter_unpack(payload))


def window_update(stream: int, size: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream, _U32.pack(size))


def rst_stream(stream: int, code: int) -> bytes:
    return frame(RST_STREAM, 0, stream, _U32.pack(code))


def goaway(last: int, code: int, debug: bytes = b"") -> bytes:
    return frame(GOAWAY, 0, 0, _U32.pack(last) + _U32.pack(code) + debug)


def _string(value: bytes) -> bytes:
    size = len(value)
    if size < 127:
        return bytes((size,)) + value
    size -= 127
    out = bytearray(b"\x7f")
    while size >= 128:
        out.append(size & 127 | 128)
        size >>= 7
    out.append(size)
    return bytes(out) + value


_STATUS = {b"200": 8, b"204": 9, b"206": 10, b"304": 11, b"400": 12, b"404": 13, b"500": 14}


@lru_cache(maxsize=4096)
def plain_block(fields: Fields) -> bytes:
    """A field block that neither uses nor changes the dynamic table: literals without indexing (RFC 7541 §6.2.2)."""
    out = []
    for name, value in fields:
        if name == b":status" and value in _STATUS:
            out.append(bytes((0x80 | _STATUS[value],)))
        else:
            out.append(b"\x00" + _string(name) + _string(value))
    return b"".join(out)


def size_updates(block: bytes) -> list[int]:
    """The dynamic table size updates at the beginning of a block (RFC 7541 §6.3)."""
    sizes, at = [], 0
    while at < len(block) and block[at] & 0xE0 == 0x20:
        size, at = block[at] & 0x1F, at + 1
        shift = 0
        while size >= 31 and at < len(block):
            size += (block[at] & 127) << shift
            shift += 7
            at += 1
            if not block[at - 1] & 128:
                break
        sizes.append(size)
    return sizes


def block_frames(kind: int, flags: int, stream: int, block: bytes, split: int, most: int, prefix: bytes = b"") -> bytes:
    """HEADERS or PUSH_PROMISE, with CONTINUATION frames of `split` bytes (at most `most`) where that is not 0."""
    size = min(split, most) if split else most
    if len(prefix) + len(block) <= size:
        return frame(kind, flags | END_HEADERS, stream, prefix + block)
    size = max(size, len(block) // 8 + 1)  # a block in a handful of frames: many would be a flood
    out = [frame(kind, flags, stream, prefix + block[:size])]
    for start in range(size, len(block), size):
        last = END_HEADERS if start + size >= len(block) else 0
        out.append(frame(CONTINUATION, last, stream, block[start : start + size]))
    if len(block) <= size:
        out.append(frame(CONTINUATION, END_HEADERS, stream))
    return b"".join(out)
