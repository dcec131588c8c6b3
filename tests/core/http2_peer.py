"""The other end of an HTTP/2 connection, for tests: frames made by hand with struct, HPACK by the `hpack` package.

It shares no code with calamint: what both get wrong in the same way would pass unseen.
"""

import struct
from typing import Final, NamedTuple

from hpack import Decoder, Encoder

DATA: Final = 0
HEADERS: Final = 1
PRIORITY: Final = 2
RST_STREAM: Final = 3
SETTINGS: Final = 4
PUSH_PROMISE: Final = 5
PING: Final = 6
GOAWAY: Final = 7
WINDOW_UPDATE: Final = 8
CONTINUATION: Final = 9

ACK: Final = 0x01
END_STREAM: Final = 0x01
END_HEADERS: Final = 0x04
PADDED: Final = 0x08
PRIORITY_FLAG: Final = 0x20

HEADER_TABLE_SIZE: Final = 1
ENABLE_PUSH: Final = 2
MAX_CONCURRENT_STREAMS: Final = 3
INITIAL_WINDOW_SIZE: Final = 4
MAX_FRAME_SIZE: Final = 5
MAX_HEADER_LIST_SIZE: Final = 6
NO_RFC7540_PRIORITIES: Final = 9

NO_ERROR: Final = 0
PROTOCOL_ERROR: Final = 1
INTERNAL_ERROR: Final = 2
FLOW_CONTROL_ERROR: Final = 3
STREAM_CLOSED: Final = 5
FRAME_SIZE_ERROR: Final = 6
REFUSED_STREAM: Final = 7
CANCEL: Final = 8
COMPRESSION_ERROR: Final = 9
ENHANCE_YOUR_CALM: Final = 11

CLIENT_PREFACE: Final = bytes.fromhex("505249202a20485454502f322e300d0a0d0a534d0d0a0d0a")  # §3.4
MAX_WINDOW: Final = 2**31 - 1

Pair = tuple[bytes, bytes]
Setting = tuple[int, int]


class Frame(NamedTuple):
    """One frame as it stands on the wire (RFC 9113 §4.1)."""

    kind: int
    flags: int
    ref: int
    payload: bytes


def frame(kind: int, flags: int = 0, ref: int = 0, payload: bytes = b"", length: int | None = None) -> bytes:
    """A frame; `length` where its header is to lie about it."""
    size = len(payload) if length is None else length
    return struct.pack(">I", size)[1:] + struct.pack(">BBI", kind, flags, ref) + payload


def parse(data: bytes) -> list[Frame]:
    """The frames of an output, all of which must be complete."""
    frames: list[Frame] = []
    while data:
        assert len(data) >= 9, f"{len(data)} bytes are no frame header"
        size = int.from_bytes(data[:3], "big")
        kind, flags, ref = struct.unpack(">BBI", data[3:9])
        assert len(data) >= 9 + size, f"a frame of {size} bytes is cut short"
        assert ref < 2**31, "the reserved bit is set"
        frames.append(Frame(kind, flags, ref, data[9 : 9 + size]))
        data = data[9 + size :]
    return frames


def kinds(data: bytes) -> list[tuple[int, int]]:
    """The type and the stream of each frame of an output."""
    return [(item.kind, item.ref) for item in parse(data)]


def data_frame(ref: int, content: bytes = b"", end: bool = False, padding: int | None = None) -> bytes:
    """DATA; with a Pad Length and that much padding where `padding` is not None."""
    flags = END_STREAM if end else 0
    if padding is None:
        return frame(DATA, flags, ref, content)
    return frame(DATA, flags | PADDED, ref, bytes((padding,)) + content + bytes(padding))


def headers_frame(ref: int, block: bytes, end: bool = False, done: bool = True) -> bytes:
    """HEADERS with this block; `done` for END_HEADERS."""
    return frame(HEADERS, (END_STREAM if end else 0) | (END_HEADERS if done else 0), ref, block)


def continuation(ref: int, block: bytes, done: bool = True) -> bytes:
    return frame(CONTINUATION, END_HEADERS if done else 0, ref, block)


def priority(ref: int) -> bytes:
    return frame(PRIORITY, 0, ref, struct.pack(">IB", 0, 15))


def rst_stream(ref: int, code: int) -> bytes:
    return frame(RST_STREAM, 0, ref, struct.pack(">I", code))


def settings(*pairs: Setting) -> bytes:
    return frame(SETTINGS, 0, 0, b"".join([struct.pack(">HI", name, value) for name, value in pairs]))


def settings_ack() -> bytes:
    return frame(SETTINGS, ACK)


def push_promise(ref: int, promised: int, block: bytes) -> bytes:
    return frame(PUSH_PROMISE, END_HEADERS, ref, struct.pack(">I", promised) + block)


def ping(payload: bytes = b"12345678", ack: bool = False) -> bytes:
    return frame(PING, ACK if ack else 0, 0, payload)


def goaway(last: int, code: int = NO_ERROR, debug: bytes = b"") -> bytes:
    return frame(GOAWAY, 0, 0, struct.pack(">II", last, code) + debug)


def window_update(ref: int, increment: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, ref, struct.pack(">I", increment))


def literal(name: bytes, value: bytes) -> bytes:
    """A field without indexing and without Huffman coding (RFC 7541 §6.2.2): for what `hpack` would rather not encode."""
    assert len(name) < 127 and len(value) < 127
    return b"\x00" + bytes((len(name),)) + name + bytes((len(value),)) + value


def literals(*fields: Pair) -> bytes:
    """A field block that touches no table."""
    return b"".join([literal(name, value) for name, value in fields])


def cuts(data: bytes, size: int) -> list[bytes]:
    """The bytes in pieces of this size."""
    return [data[start : start + size] for start in range(0, len(data), size)]


class Request(NamedTuple):
    """A request as the peer has it so far."""

    fields: tuple[Pair, ...]
    content: bytes
    trailers: tuple[Pair, ...]
    ended: bool


class Peer:
    """A server that keeps the books: what it was sent, what it may send, and whether a rule was broken.

    It reads all that the client puts out, in order, and fails on the first frame that RFC 9113 forbids to a client. What
    it announces counts from the client's acknowledgement on (§6.5.3).
    """

    def __init__(self, preface: bytes = b"") -> None:
        self.encoder = Encoder()
        self.decoder = Decoder(max_header_list_size=2**20)
        self.limit = MAX_WINDOW
        self.initial = 65_535  # of the client's content on each stream
        self.frame_size = 16_384
        self.pending: list[tuple[Setting, ...]] = []  # announced and not acknowledged
        self.announced: dict[int, int] = {}  # the client's settings
        self.requests: dict[int, Request] = {}
        self.done: set[int] = set()  # streams that this side has ended or reset
        self.resets: dict[int, int] = {}  # stream → code, by the client
        self.active: set[int] = set()  # streams that count for the limit (§5.1.2)
        self.most = 0  # of them at once
        self.highest = 0
        self.last = MAX_WINDOW  # what it said in a GOAWAY: above this it acts on nothing
        self.pings: list[bytes] = []
        self.goaways: list[tuple[int, int]] = []
        self.receives = {0: 65_535}  # what the client may still send, by stream; 0 is the connection
        self.sends = {0: 65_535}  # what this side may still send
        self.sent = {0: 0}  # flow-controlled bytes, by stream
        self.credit = {0: 0}  # what the client gave back, by stream
        self.block: tuple[int, int, bytes] | None = None
        assert preface[: len(CLIENT_PREFACE)] == CLIENT_PREFACE
        first = self.take(preface[len(CLIENT_PREFACE) :])[0]
        assert (first.kind, first.flags) == (SETTINGS, 0), "SETTINGS come first (§3.4)"

    # what it reads

    def take(self, data: bytes) -> list[Frame]:
        """Reads an output of the client."""
        frames = parse(data)
        for item in frames:
            if self.block is not None:
                assert (item.kind, item.ref) == (CONTINUATION, self.block[0]), "a field block is contiguous (§4.3)"
            assert len(item.payload) <= self.frame_size, "above our MAX_FRAME_SIZE (§4.2)"
            self.take_frame(item)
        return frames

    def take_frame(self, item: Frame) -> None:
        kind, flags, ref, payload = item
        if kind == DATA:
            self.take_data(ref, payload, bool(flags & END_STREAM))
        elif kind == HEADERS:
            self.block = (ref, flags, b"")
            self.take_fragment(flags, payload)
        elif kind == CONTINUATION:
            self.take_fragment(flags, payload)
        elif kind == RST_STREAM:
            assert ref in self.requests, "RST_STREAM on an idle stream (§6.4)"
            assert ref not in self.resets, "a second RST_STREAM (§5.4.2)"
            self.resets[ref] = int.from_bytes(payload, "big")
            self.active.discard(ref)
        elif kind == SETTINGS:
            self.take_settings(flags, ref, payload)
        elif kind == PING:
            assert (ref, len(payload)) == (0, 8)
            if not flags & ACK:
                self.pings.append(payload)
        elif kind == GOAWAY:
            assert ref == 0
            last, code = struct.unpack(">II", payload[:8])
            self.goaways.append((last, code))
        else:
            assert kind == WINDOW_UPDATE, f"a client does not send frames of type {kind}"
            assert ref not in self.resets, "WINDOW_UPDATE after RST_STREAM (§5.1)"
            increment = int.from_bytes(payload, "big")
            assert 1 <= increment <= MAX_WINDOW, "an increment of 0 (§6.9)"
            self.sends[ref] += increment
            self.credit[ref] += increment
            assert self.sends[ref] <= MAX_WINDOW, "a window above 2^31-1 (§6.9.1)"

    def take_settings(self, flags: int, ref: int, payload: bytes) -> None:
        assert ref == 0
        if flags & ACK:
            assert payload == b""
            for name, value in self.pending.pop(0):
                self.apply(name, value)
            return
        for start in range(0, len(payload), 6):
            name, value = struct.unpack(">HI", payload[start : start + 6])
            self.announced[name] = value
            if name == HEADER_TABLE_SIZE:
                self.encoder.header_table_size = value

    def apply(self, name: int, value: int) -> None:
        """A setting of this side, acknowledged."""
        if name == MAX_CONCURRENT_STREAMS:
            self.limit = value
        elif name == INITIAL_WINDOW_SIZE:
            for ref in self.requests:
                self.receives[ref] += value - self.initial
            self.initial = value
        elif name == MAX_FRAME_SIZE:
            self.frame_size = value
        elif name == HEADER_TABLE_SIZE:
            self.decoder.max_allowed_table_size = value

    def take_fragment(self, flags: int, payload: bytes) -> None:
        assert self.block is not None
        ref, first, fragments = self.block
        self.block = (ref, first, fragments + payload)
        if flags & END_HEADERS:
            self.block = None
            self.take_block(ref, fragments + payload, bool(first & END_STREAM))

    def take_block(self, ref: int, block: bytes, end: bool) -> None:
        fields = tuple([(bytes(name), bytes(value)) for name, value in self.decoder.decode(block, raw=True)])
        known = self.requests.get(ref)
        if known is None:
            assert ref & 1 and ref > self.highest, "a client's streams are odd and rise (§5.1.1)"
            self.highest = ref
            self.requests[ref] = Request(fields, b"", (), end)
            self.receives[ref] = self.initial
            self.sends[ref] = self.announced.get(INITIAL_WINDOW_SIZE, 65_535)
            self.sent[ref] = self.credit[ref] = 0
            if ref > self.last:
                self.done.add(ref)
                return
            self.active.add(ref)
            self.most = max(self.most, len(self.active))
            assert len(self.active) <= self.limit, "above our MAX_CONCURRENT_STREAMS (§5.1.2)"
            return
        assert not known.ended and ref not in self.resets, "HEADERS after the end (§5.1)"
        assert end, "trailers end the stream (§8.1)"
        self.requests[ref] = Request(known.fields, known.content, fields, True)
        self.settle(ref)

    def take_data(self, ref: int, payload: bytes, end: bool) -> None:
        known = self.requests[ref]
        assert not known.ended and ref not in self.resets, "DATA after the end (§5.1)"
        self.receives[0] -= len(payload)
        self.receives[ref] -= len(payload)
        if payload:
            assert self.receives[0] >= 0 and self.receives[ref] >= 0, "above a window (§6.9)"
        self.requests[ref] = Request(known.fields, known.content + payload, (), end)
        self.settle(ref)

    def settle(self, ref: int) -> None:
        """A stream that both sides have ended does not count any more."""
        if ref in self.done and self.requests[ref].ended:
            self.active.discard(ref)

    # what it sends

    def announce(self, *pairs: Setting) -> bytes:
        """SETTINGS."""
        self.pending.append(pairs)
        return settings(*pairs)

    def block_of(self, *fields: tuple[str, str]) -> bytes:
        """A field block, by the `hpack` package."""
        return self.encoder.encode(fields)

    def head(self, ref: int, status: int = 200, *fields: tuple[str, str], end: bool = False) -> bytes:
        """HEADERS of a response."""
        return self.fields(ref, (":status", str(status)), *fields, end=end)

    def fields(self, ref: int, *fields: tuple[str, str], end: bool = False) -> bytes:
        """HEADERS with any fields."""
        self.finish(ref, end)
        return headers_frame(ref, self.block_of(*fields), end)

    def data(self, ref: int, content: bytes = b"", end: bool = False, padding: int | None = None) -> bytes:
        """DATA, charged to the windows."""
        size = len(content) + (0 if padding is None else padding + 1)
        for number in (0, ref):
            self.sends[number] -= size
            self.sent[number] += size
        self.finish(ref, end)
        return data_frame(ref, content, end, padding)

    def room(self, ref: int) -> int:
        """How many flow-controlled bytes it may send on this stream (§6.9.1)."""
        return min(self.sends[0], self.sends[ref])

    def reset(self, ref: int, code: int = INTERNAL_ERROR) -> bytes:
        """RST_STREAM."""
        self.done.add(ref)
        self.active.discard(ref)
        return rst_stream(ref, code)

    def leave(self, last: int, code: int = NO_ERROR) -> bytes:
        """GOAWAY."""
        self.last = last
        above = {ref for ref in self.requests if ref > last}
        self.done |= above
        self.active -= above
        return goaway(last, code)

    def widen(self, ref: int, increment: int) -> bytes:
        """WINDOW_UPDATE."""
        self.receives[ref] += increment
        return window_update(ref, increment)

    def finish(self, ref: int, end: bool) -> None:
        if end:
            self.done.add(ref)
            self.settle(ref)
