"""RFC 9113 §4 and §6: the frame header, one `encode_*` per frame type, flags and settings."""

from struct import Struct
from typing import Final

from calamint.core.errors import FRAME_SIZE_ERROR, PROTOCOL_ERROR, ConnectionFault

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"  # §3.4

# §6, in its order
DATA: Final = 0x0
HEADERS: Final = 0x1
PRIORITY: Final = 0x2
RST_STREAM: Final = 0x3
SETTINGS: Final = 0x4
PUSH_PROMISE: Final = 0x5
PING: Final = 0x6
GOAWAY: Final = 0x7
WINDOW_UPDATE: Final = 0x8
CONTINUATION: Final = 0x9
PRIORITY_UPDATE: Final = 0x10  # RFC 9218 §7.1

FRAME_NAMES: Final = (
    "DATA",
    "HEADERS",
    "PRIORITY",
    "RST_STREAM",
    "SETTINGS",
    "PUSH_PROMISE",
    "PING",
    "GOAWAY",
    "WINDOW_UPDATE",
    "CONTINUATION",
)

ACK: Final = 0x1
END_STREAM: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
PRIORITY_FLAG: Final = 0x20

# §6.5.2, RFC 8441 §3, RFC 9218 §2.1
HEADER_TABLE_SIZE: Final = 0x1
ENABLE_PUSH: Final = 0x2
MAX_CONCURRENT_STREAMS: Final = 0x3
INITIAL_WINDOW_SIZE: Final = 0x4
MAX_FRAME_SIZE: Final = 0x5
MAX_HEADER_LIST_SIZE: Final = 0x6
ENABLE_CONNECT_PROTOCOL: Final = 0x8
NO_RFC7540_PRIORITIES: Final = 0x9

SETTING_NAMES: Final[dict[int, str]] = {
    HEADER_TABLE_SIZE: "HEADER_TABLE_SIZE",
    ENABLE_PUSH: "ENABLE_PUSH",
    MAX_CONCURRENT_STREAMS: "MAX_CONCURRENT_STREAMS",
    INITIAL_WINDOW_SIZE: "INITIAL_WINDOW_SIZE",
    MAX_FRAME_SIZE: "MAX_FRAME_SIZE",
    MAX_HEADER_LIST_SIZE: "MAX_HEADER_LIST_SIZE",
    ENABLE_CONNECT_PROTOCOL: "ENABLE_CONNECT_PROTOCOL",
    NO_RFC7540_PRIORITIES: "NO_RFC7540_PRIORITIES",
}

HEADER_SIZE: Final = 9
HEADER: Final = Struct(">HBBBL")  # the 24 bits of the length as 16 and 8
LONG: Final = Struct(">L")
TWO_LONGS: Final = Struct(">LL")
SETTING: Final = Struct(">HL")


def frame_name(kind: int) -> str:
    """The name of a frame type, or its number."""
    if kind == PRIORITY_UPDATE:
        return "PRIORITY_UPDATE"
    return FRAME_NAMES[kind] if kind < len(FRAME_NAMES) else f"frame type 0x{kind:x}"


def encode_header(length: int, kind: int, flags: int, ref: int) -> bytes:
    """The nine octets in front of every frame (§4.1)."""
    return HEADER.pack(length >> 8, length & 0xFF, kind, flags, ref)


def encode_head(ref: int, block: bytes, end: bool, limit: int) -> bytes:
    """A field block as HEADERS and as many CONTINUATION as `limit`, the peer's MAX_FRAME_SIZE, asks for (§6.2, §6.10)."""
    flags = END_STREAM if end else 0
    size = len(block)
    if size <= limit:
        return HEADER.pack(size >> 8, size & 0xFF, HEADERS, flags | END_HEADERS, ref) + block
    parts = [encode_header(limit, HEADERS, flags, ref), block[:limit]]
    for start in range(limit, size, limit):
        piece = block[start : start + limit]
        last = END_HEADERS if start + limit >= size else 0
        parts.append(encode_header(len(piece), CONTINUATION, last, ref))
        parts.append(piece)
    return b"".join(parts)


def encode_reset(ref: int, code: int) -> bytes:
    """RST_STREAM (§6.4)."""
    return encode_header(4, RST_STREAM, 0, ref) + LONG.pack(code)


def encode_settings(settings: tuple[tuple[int, int], ...]) -> bytes:
    """SETTINGS (§6.5)."""
    payload = b"".join([SETTING.pack(name, number) for name, number in settings])
    return encode_header(len(payload), SETTINGS, 0, 0) + payload


def encode_settings_ack() -> bytes:
    """SETTINGS with ACK (§6.5.3)."""
    return encode_header(0, SETTINGS, ACK, 0)


def encode_ping(payload: bytes, flags: int) -> bytes:
    """PING of eight octets (§6.7)."""
    return encode_header(8, PING, flags, 0) + payload


def encode_priority_update(ref: int, priority: bytes) -> bytes:
    """PRIORITY_UPDATE: the stream, and its Priority field value (RFC 9218 §7.1)."""
    return encode_header(4 + len(priority), PRIORITY_UPDATE, 0, 0) + LONG.pack(ref) + priority


def encode_goaway(last_stream_id: int, code: int, debug: bytes) -> bytes:
    """GOAWAY (§6.8)."""
    return encode_header(8 + len(debug), GOAWAY, 0, 0) + TWO_LONGS.pack(last_stream_id, code) + debug


def encode_window_update(ref: int, increment: int) -> bytes:
    """WINDOW_UPDATE (§6.9)."""
    return encode_header(4, WINDOW_UPDATE, 0, ref) + LONG.pack(increment)


def decode_long(payload: bytes, kind: int) -> int:
    """The 31 or 32 bits that are a RST_STREAM's or WINDOW_UPDATE's whole payload (§6.4, §6.9)."""
    if len(payload) != 4:
        raise ConnectionFault(FRAME_SIZE_ERROR, f"{frame_name(kind)} of {len(payload)} bytes, allowed are 4")
    number: int = LONG.unpack(payload)[0]
    return number


def decode_settings(payload: bytes) -> tuple[tuple[int, int], ...]:
    """The (identifier, value) pairs of a SETTINGS in their order (§6.5.1)."""
    if len(payload) % 6:
        raise ConnectionFault(FRAME_SIZE_ERROR, f"SETTINGS of {len(payload)} bytes, allowed are multiples of 6")
    pairs: list[tuple[int, int]] = []
    for start in range(0, len(payload), 6):
        name: int
        number: int
        name, number = SETTING.unpack_from(payload, start)
        pairs.append((name, number))
    return tuple(pairs)


def strip_padding(kind: int, flags: int, payload: bytes) -> bytes:
    """The payload without its padding: "the total number of padding octets is determined by the Pad Length" (§6.1)."""
    if not flags & PADDED:
        return payload
    if not payload:
        raise ConnectionFault(FRAME_SIZE_ERROR, f"{frame_name(kind)} too short for its Pad Length (§4.2)")
    if payload[0] >= len(payload):
        seen = f"padding of {payload[0]} in a payload of {len(payload)} bytes"
        raise ConnectionFault(PROTOCOL_ERROR, f"{frame_name(kind)}: {seen} (§6.1)")
    return payload[1 : len(payload) - payload[0]]
