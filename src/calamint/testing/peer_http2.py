"""RFC 9113 from a server's side, by hand: what the client does is checked, counted and written down.

A mistake of the client is treated as the RFC says, and is in the journal. A program may make any mistake that it likes.
"""

from collections import deque
from typing import Final, final

from calamint.core import frames, hpack
from calamint.core.errors import (
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    NO_ERROR,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    STREAM_CLOSED,
    ConnectionFault,
    StreamFault,
    error_name,
)
from calamint.core.hpack import DecoderTable, EncoderTable
from calamint.core.value import Fields
from calamint.testing.machine import Exchange, Machine, Options
from calamint.testing.report import Journal, Seen
from calamint.testing.script import Close, Data, GoAway, Head, Script

LAST_STREAM: Final = 2**31 - 1
MAX_WINDOW: Final = 2**31 - 1
DEFAULT_WINDOW: Final = 65_535
MAX_SECTION: Final = 1024 * 1024
MAX_FIELDS: Final = 10_000
NO_ROOM: Final = frozenset(
    {b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"}
)  # §8.2.2

# How a stream was closed.
ENDED: Final = "ended"
RESET_BY_PEER: Final = "reset by the server"
RESET_BY_CLIENT: Final = "reset by the client"
DROPPED: Final = "above the last stream id of a GOAWAY"


class Stream(Exchange):
    """A request with its stream's windows."""

    def __init__(self, seen: Seen, expected: int) -> None:
        super().__init__(seen)
        self.expected = expected  # bytes of content still to come by its content-length, or -1
        self.window = 0  # what we may send, relative to the client's INITIAL_WINDOW_SIZE
        self.taken = 0  # bytes that the client has sent, less those that it got back
        self.credit = 0  # not given back yet


@final
class Http2(Machine):
    """An HTTP/2 connection. Open streams are those in `streams`; how the others were closed is in `closed`."""

    def __init__(self, script: Script, options: Options, journal: Journal, number: int) -> None:
        super().__init__(script, options, journal, number)
        self.streams: dict[int, Stream] = {}
        self.queued: dict[int, Stream] = {}  # those whose content waits
        self.closed: dict[int, str] = {}
        self.last_ref = 0
        self.accepted = LAST_STREAM  # the last stream that our GOAWAY, if any, lets through
        self.buffer = b""
        self.pos = 0
        self.block: tuple[int, int, bytes] | None = None  # a field block that is not complete: stream, flags, fragments
        self.begun = False  # the client's SETTINGS are here
        self.acknowledged = False  # ours are in force
        self.encoder = EncoderTable({}, {})
        self.decoder = DecoderTable((), 0, 4096, max(4096, options.header_table_size))
        self.client_window = DEFAULT_WINDOW  # the client's INITIAL_WINDOW_SIZE
        self.client_frame = 16_384  # and its MAX_FRAME_SIZE
        self.window = DEFAULT_WINDOW  # what we may send on all streams together
        self.granted = max(DEFAULT_WINDOW, options.connection_window)  # what the client may
        self.taken = 0
        self.credit = 0
        self.send_preface()

    def send_preface(self) -> None:
        """SETTINGS, and the connection's window (§3.4)."""
        options = self.options
        pairs = [(frames.INITIAL_WINDOW_SIZE, options.initial_window), (frames.MAX_FRAME_SIZE, options.max_frame_size)]
        if options.max_streams is not None:
            pairs.insert(0, (frames.MAX_CONCURRENT_STREAMS, options.max_streams))
        if options.header_table_size != 4096:
            pairs.append((frames.HEADER_TABLE_SIZE, options.header_table_size))
        self.out.append(frames.encode_settings((*pairs, *options.settings)))
        if self.granted > DEFAULT_WINDOW:
            self.out.append(frames.encode_window_update(0, self.granted - DEFAULT_WINDOW))

    def count(self) -> int:
        """How many streams are open."""
        return len(self.streams)

    def receive(self, data: bytes) -> None:
        """Takes what arrived."""
        self.buffer += data

    def run(self) -> None:
        """Does everything that is due: reads, plays the programs, hands out content."""
        try:
            while self.is_reading and self.read():
                self.work()  # after each frame, so that nothing depends on how the input was cut
        except ConnectionFault as fault:
            self.blame(f"{fault.reason} [{error_name(fault.code)}]")
            self.out.append(frames.encode_goaway(self.last_ref, fault.code, fault.reason.encode()))
            self.close()
        self.buffer = self.buffer[self.pos :]
        self.pos = 0
        self.work()
        if self.accepted < LAST_STREAM and not self.streams and not self.programs and not self.is_closed:
            self.close()

    def work(self) -> None:
        """Plays the programs and hands out content, as far as either goes now."""
        while not self.is_closed and (self.play_all() or self.pump()):
            pass

    def close(self, abort: bool = False) -> None:
        """Nothing more is read or sent."""
        super().close(abort)
        self.streams.clear()
        self.queued.clear()

    # What arrives

    def read(self) -> bool:
        """The next frame (§4.1); whether there was one."""
        if len(self.buffer) - self.pos < frames.HEADER_SIZE:
            return False
        high, low, kind, flags, ref = frames.HEADER.unpack_from(self.buffer, self.pos)
        length = high << 8 | low
        ref &= LAST_STREAM
        name = frames.frame_name(kind)
        if not self.begun and (kind != frames.SETTINGS or flags & frames.ACK):
            raise ConnectionFault(PROTOCOL_ERROR, f"the first frame is {name}, not SETTINGS (§3.4)")
        if length > max(16_384, self.options.max_frame_size):
            raise ConnectionFault(FRAME_SIZE_ERROR, f"{name} of {length} bytes (§4.2)")
        if self.block is not None and (kind != frames.CONTINUATION or ref != self.block[0]):
            raise ConnectionFault(PROTOCOL_ERROR, f"{name} within a field block (§6.10)")
        start = self.pos + frames.HEADER_SIZE
        if len(self.buffer) < start + length:
            return False
        self.pos = start + length
        try:
            self.recv_frame(kind, flags, ref, self.buffer[start : self.pos])
        except StreamFault as fault:
            self.blame(f"{fault.reason} [{error_name(fault.code)}]")
            self.reset(fault.ref, fault.code)
        return True

    def recv_frame(self, kind: int, flags: int, ref: int, payload: bytes) -> None:
        """Any frame, complete."""
        on_stream = kind in (frames.DATA, frames.HEADERS, frames.PRIORITY, frames.RST_STREAM, frames.CONTINUATION)
        on_connection = kind in (frames.SETTINGS, frames.PING, frames.GOAWAY)
        if (on_stream and ref == 0) or (on_connection and ref != 0):
            raise ConnectionFault(PROTOCOL_ERROR, f"{frames.frame_name(kind)} on stream {ref} (§6)")
        match kind:
            case frames.DATA:
                self.recv_data(flags, ref, payload)
            case frames.HEADERS:
                self.recv_headers(flags, ref, payload)
            case frames.PRIORITY:
                if len(payload) != 5:
                    raise ConnectionFault(FRAME_SIZE_ERROR, f"PRIORITY of {len(payload)} bytes (§6.3)")
            case frames.RST_STREAM:
                self.recv_rst_stream(ref, payload)
            case frames.SETTINGS:
                self.recv_settings(flags, payload)
            case frames.PUSH_PROMISE:
                raise ConnectionFault(PROTOCOL_ERROR, "PUSH_PROMISE from a client (§8.4)")
            case frames.PING:
                self.recv_ping(flags, payload)
            case frames.GOAWAY:
                self.recv_goaway(payload)
            case frames.WINDOW_UPDATE:
                self.recv_window_update(ref, payload)
            case frames.CONTINUATION:
                self.recv_continuation(flags, ref, payload)

    def find(self, ref: int, kind: int) -> Stream | None:
        """The open stream that a frame is about; None where the frame is late, and nothing is done about it (§5.1)."""
        stream = self.streams.get(ref)
        if stream is not None:
            return stream
        what = f"{frames.frame_name(kind)} on stream {ref}, which is "
        if ref > self.last_ref or not ref & 1:
            raise ConnectionFault(PROTOCOL_ERROR, f"{what}idle (§5.1)")
        how = self.closed.get(ref, "skipped")
        late = how == ENDED and kind in (frames.WINDOW_UPDATE, frames.RST_STREAM)
        if how == RESET_BY_CLIENT:
            self.blame(f"{what}{how} (§5.1)")
        elif how not in (RESET_BY_PEER, DROPPED) and not late:
            raise ConnectionFault(STREAM_CLOSED, f"{what}{how} (§5.1)")
        return None

    def recv_data(self, flags: int, ref: int, payload: bytes) -> None:
        """§6.1. The connection's window is charged and credited whatever becomes of the stream."""
        size = len(payload)
        content = frames.strip_padding(frames.DATA, flags, payload)
        self.taken += size
        if self.taken > self.granted:
            raise ConnectionFault(
                FLOW_CONTROL_ERROR, f"{self.taken - self.granted} bytes above the connection's window (§6.9)"
            )
        self.credit += size
        if self.options.credit and self.credit * 2 >= self.granted:
            self.out.append(frames.encode_window_update(0, self.credit))
            self.taken -= self.credit
            self.credit = 0
        stream = self.find(ref, frames.DATA)
        if stream is None:
            return
        if stream.seen.complete:
            raise StreamFault(ref, STREAM_CLOSED, f"DATA on stream {ref} after END_STREAM (§5.1)")
        stream.taken += size
        initial = self.options.initial_window
        allowed = initial if self.acknowledged else max(DEFAULT_WINDOW, initial)
        if stream.taken > allowed:
            raise StreamFault(
                ref, FLOW_CONTROL_ERROR, f"{stream.taken - allowed} bytes above the window of stream {ref} (§6.9)"
            )
        stream.seen.add(content)
        if stream.expected >= 0:
            stream.expected -= len(content)
            if stream.expected < 0:
                raise StreamFault(ref, PROTOCOL_ERROR, f"{-stream.expected} bytes above the content-length (§8.1.1)")
        stream.credit += size
        if flags & frames.END_STREAM:
            self.end_request(stream)
        elif self.options.credit and stream.credit and stream.credit * 2 >= initial:
            self.out.append(frames.encode_window_update(ref, stream.credit))
            stream.taken -= stream.credit
            stream.credit = 0

    def end_request(self, stream: Stream) -> None:
        """END_STREAM: the request is complete."""
        ref = stream.seen.stream_id
        if stream.expected > 0:
            raise StreamFault(ref, PROTOCOL_ERROR, f"{stream.expected} bytes short of the content-length (§8.1.1)")
        self.complete(stream)
        stream.seen.finish()
        self.settle(stream)

    def recv_headers(self, flags: int, ref: int, payload: bytes) -> None:
        """§6.2. A field block, or its beginning."""
        payload = frames.strip_padding(frames.HEADERS, flags, payload)
        if flags & frames.PRIORITY_FLAG:
            if len(payload) < 5:
                raise ConnectionFault(FRAME_SIZE_ERROR, "HEADERS too short for its priority (§6.2)")
            payload = payload[5:]
        if flags & frames.END_HEADERS:
            self.recv_block(flags, ref, payload)
        else:
            self.block = (ref, flags, payload)

    def recv_continuation(self, flags: int, ref: int, payload: bytes) -> None:
        """§6.10. More of a field block."""
        if self.block is None:
            raise ConnectionFault(PROTOCOL_ERROR, "CONTINUATION without HEADERS (§6.10)")
        _, first_flags, fragments = self.block
        self.block = None
        if flags & frames.END_HEADERS:
            self.recv_block(first_flags, ref, fragments + payload)
        else:
            self.block = (ref, first_flags, fragments + payload)

    def recv_block(self, flags: int, ref: int, block: bytes) -> None:
        """A complete field block: of a new request, or trailers. It is decoded in any case (§4.3)."""
        decoded = hpack.decode(self.decoder, block, MAX_SECTION, MAX_FIELDS)
        self.decoder = decoded.table
        if ref <= self.last_ref:
            stream = self.find(ref, frames.HEADERS)
            if stream is not None:
                self.recv_trailers(stream, flags, decoded.fields)
            return
        if not ref & 1:
            raise ConnectionFault(PROTOCOL_ERROR, f"a client's request on stream {ref} (§5.1.1)")
        self.last_ref = ref
        if ref > self.accepted:
            self.closed[ref] = DROPPED
        elif self.options.max_streams is not None and len(self.streams) >= self.options.max_streams:
            self.journal.refused += 1
            if self.acknowledged:
                self.blame(f"stream {ref} is the {len(self.streams) + 1}th at once (§5.1.2)")
            self.reset(ref, REFUSED_STREAM)
        else:
            self.recv_request(flags, ref, decoded.fields)

    def recv_request(self, flags: int, ref: int, section: Fields) -> None:
        """A request's head (§8.3.1)."""
        pseudo, fields, fault = read_section(section)
        if fault:
            raise StreamFault(ref, PROTOCOL_ERROR, f"malformed request on stream {ref}: {fault}")
        method = pseudo[b":method"].decode("latin-1")
        target = pseudo.get(b":path", pseudo.get(b":authority", b"")).decode("latin-1")
        lengths = [value for name, value in fields if name == b"content-length"]
        if len(lengths) > 1 or not all([value.isdigit() for value in lengths]):
            raise StreamFault(ref, PROTOCOL_ERROR, f"content-length {lengths!r} (§8.1.1)")
        ends = bool(flags & frames.END_STREAM)
        authority = pseudo.get(b":authority", b"").decode("latin-1")
        seen = self.journal.see(self.number, ref, method, target, authority, fields, ends)
        stream = Stream(seen, int(lengths[0]) if lengths else -1)
        self.streams[ref] = stream
        self.journal.streams_peak = max(self.journal.streams_peak, len(self.streams))
        if ends and stream.expected > 0:
            raise StreamFault(ref, PROTOCOL_ERROR, f"no content where the content-length is {stream.expected} (§8.1.1)")
        self.begin(stream)

    def recv_trailers(self, stream: Stream, flags: int, section: Fields) -> None:
        """A field block after the head (§8.1)."""
        ref = stream.seen.stream_id
        if stream.seen.complete:
            raise StreamFault(ref, STREAM_CLOSED, f"HEADERS on stream {ref} after END_STREAM (§5.1)")
        if not flags & frames.END_STREAM or any([name.startswith(b":") for name, _ in section]):
            raise StreamFault(ref, PROTOCOL_ERROR, f"malformed trailers on stream {ref} (§8.1)")
        stream.seen.trailers = section
        self.end_request(stream)

    def recv_rst_stream(self, ref: int, payload: bytes) -> None:
        """§6.4. The stream is closed, what was queued for it is dropped, and its program is over."""
        code = frames.decode_long(payload, frames.RST_STREAM)
        stream = self.find(ref, frames.RST_STREAM)
        self.journal.resets.append((self.number, ref, code))
        if stream is not None:
            self.drop(stream, RESET_BY_CLIENT)

    def recv_settings(self, flags: int, payload: bytes) -> None:
        """§6.5. Applied, then acknowledged."""
        if flags & frames.ACK:
            if payload:
                raise ConnectionFault(FRAME_SIZE_ERROR, f"SETTINGS with ACK and {len(payload)} bytes (§6.5)")
            if not self.acknowledged and self.options.header_table_size < 4096:
                table = self.decoder
                limit = self.options.header_table_size
                self.decoder = DecoderTable(table.entries, table.size, table.max_size, limit, must_update=True)
            self.acknowledged = True
            return
        self.begun = True
        pairs = frames.decode_settings(payload)
        for name, number in pairs:
            self.apply_setting(name, number)
        self.journal.settings.append((self.number, pairs))
        self.out.append(frames.encode_settings_ack())

    def apply_setting(self, name: int, number: int) -> None:
        """One of the client's settings (§6.5.2)."""
        if name == frames.HEADER_TABLE_SIZE:
            self.encoder = hpack.resize(self.encoder, number)
        elif name == frames.ENABLE_PUSH and number > 1:
            raise ConnectionFault(PROTOCOL_ERROR, f"ENABLE_PUSH={number} (§6.5.2)")
        elif name == frames.INITIAL_WINDOW_SIZE:
            if number > MAX_WINDOW:
                raise ConnectionFault(FLOW_CONTROL_ERROR, f"INITIAL_WINDOW_SIZE={number} (§6.5.2)")
            self.client_window = number
            if any([stream.window + number > MAX_WINDOW for stream in self.streams.values()]):
                raise ConnectionFault(
                    FLOW_CONTROL_ERROR, f"INITIAL_WINDOW_SIZE={number} with a window above 2^31-1 (§6.9.2)"
                )
        elif name == frames.MAX_FRAME_SIZE:
            if not 16_384 <= number < 2**24:
                raise ConnectionFault(PROTOCOL_ERROR, f"MAX_FRAME_SIZE={number} (§6.5.2)")
            self.client_frame = number

    def recv_ping(self, flags: int, payload: bytes) -> None:
        """§6.7. Answered at once."""
        if len(payload) != 8:
            raise ConnectionFault(FRAME_SIZE_ERROR, f"PING of {len(payload)} bytes (§6.7)")
        if not flags & frames.ACK:
            self.journal.pings += 1
            self.out.append(frames.encode_ping(payload, frames.ACK))

    def recv_goaway(self, payload: bytes) -> None:
        """§6.8. The client is going to leave; it closes the connection itself."""
        if len(payload) < 8:
            raise ConnectionFault(FRAME_SIZE_ERROR, f"GOAWAY of {len(payload)} bytes (§6.8)")
        last, code = frames.TWO_LONGS.unpack_from(payload)
        self.journal.goaways.append((self.number, last & LAST_STREAM, code))

    def recv_window_update(self, ref: int, payload: bytes) -> None:
        """§6.9. The client takes more of our content."""
        increment = frames.decode_long(payload, frames.WINDOW_UPDATE) & LAST_STREAM
        self.journal.window_updates.append((self.number, ref, increment))
        code = FLOW_CONTROL_ERROR if increment else PROTOCOL_ERROR
        if ref == 0:
            self.window += increment
            if increment == 0 or self.window > MAX_WINDOW:
                raise ConnectionFault(code, f"WINDOW_UPDATE of {increment} for the connection (§6.9)")
            return
        stream = self.find(ref, frames.WINDOW_UPDATE)
        if stream is not None:
            stream.window += increment
            if increment == 0 or stream.window + self.client_window > MAX_WINDOW:
                raise StreamFault(ref, code, f"WINDOW_UPDATE of {increment} on stream {ref} (§6.9)")

    # What leaves

    def send_head(self, exchange: Exchange, head: Head) -> None:
        """HEADERS (§6.2), and CONTINUATION where the client takes no frame that large."""
        ref = exchange.seen.stream_id
        if ref not in self.streams:
            return
        fields = ((b":status", b"%d" % head.status), *head.fields)
        if head.length is not None and b"content-length" not in [name.lower() for name, _ in head.fields]:
            fields += ((b"content-length", b"%d" % head.length),)
        if head.status >= 200:
            exchange.begun = True
            exchange.silent = exchange.silent or head.status in (204, 304)
        self.encoder, block = hpack.encode(self.encoder, fields)
        self.out.append(frames.encode_head(ref, block, head.end, self.client_frame))
        if head.end:
            self.end_response(exchange)

    def send_data(self, exchange: Exchange, data: Data) -> None:
        """Content, which waits for its turn and for the client's windows."""
        stream = self.streams.get(exchange.seen.stream_id)
        if stream is not None and (data.content or data.end):
            stream.waiting = data
            stream.since = self.now
            stream.offset = 0
            self.queued[stream.seen.stream_id] = stream

    def pump(self) -> bool:
        """Hands out content as windows allow, a frame of each stream in turn (§5.2); whether a program may go on."""
        through = False
        turn = deque(self.queued.values())
        while turn:
            stream = turn.popleft()
            data = stream.waiting
            if data is None:
                continue
            left = len(data.content) - stream.offset
            size = min(left, self.client_frame, self.client_window + stream.window, self.window) if left else 0
            if left and size <= 0:
                continue
            self.send_piece(stream, data, size)
            if stream.waiting is None:
                through = True
            else:
                turn.append(stream)
        return through

    def send_piece(self, stream: Stream, data: Data, size: int) -> None:
        """A DATA frame (§6.1)."""
        piece = data.content[stream.offset : stream.offset + size]
        stream.offset += size
        stream.window -= size
        self.window -= size
        done = stream.offset == len(data.content)
        flags = frames.END_STREAM if done and data.end else 0
        self.out.append(frames.encode_header(size, frames.DATA, flags, stream.seen.stream_id) + piece)
        if done:
            self.unqueue(stream)
            if self.now > stream.since:  # what comes next is counted from here
                stream.at = self.now
            if data.end:
                self.end_response(stream)

    def unqueue(self, stream: Stream) -> None:
        """None of its content waits any more."""
        stream.waiting = None
        self.queued.pop(stream.seen.stream_id, None)

    def send_trailers(self, exchange: Exchange, fields: Fields) -> None:
        """A field block that ends the response (§8.1)."""
        ref = exchange.seen.stream_id
        if ref in self.streams:
            self.encoder, block = hpack.encode(self.encoder, fields)
            self.out.append(frames.encode_head(ref, block, True, self.client_frame))
            self.end_response(exchange)

    def send_reset(self, exchange: Exchange, code: int) -> None:
        """RST_STREAM (§6.4), also after the end, as §8.1 has it; but never in answer to the client's own."""
        if self.closed.get(exchange.seen.stream_id) != RESET_BY_CLIENT:
            self.reset(exchange.seen.stream_id, code)

    def reset(self, ref: int, code: int) -> None:
        """RST_STREAM on any stream that the client opened. What still comes on it is late, and no mistake."""
        self.out.append(frames.encode_reset(ref, code))
        stream = self.streams.get(ref)
        if stream is not None:
            self.unqueue(stream)
            stream.answered = True
            stream.seen.finish()
            del self.streams[ref]
        self.closed[ref] = RESET_BY_PEER

    def send_goaway(self, exchange: Exchange, step: GoAway) -> None:
        """GOAWAY (§6.8), and with an error code the end of the connection. Streams above its last id are dropped."""
        self.accepted = exchange.seen.stream_id if step.last is None else step.last
        self.out.append(frames.encode_goaway(self.accepted, step.code, step.debug))
        if step.code != NO_ERROR:
            exchange.steps.append(Close())
        for ref in [ref for ref in self.streams if ref > self.accepted]:
            self.drop(self.streams[ref], DROPPED)

    def end_response(self, exchange: Exchange) -> None:
        """END_STREAM has been sent."""
        exchange.answered = True
        self.settle(exchange)

    def settle(self, exchange: Exchange) -> None:
        """The stream is closed once both sides have ended (§5.1)."""
        ref = exchange.seen.stream_id
        if exchange.answered and exchange.seen.complete and ref in self.streams:
            del self.streams[ref]
            self.closed[ref] = ENDED

    def drop(self, stream: Stream, how: str) -> None:
        """The stream is over at once, with its program and what was queued for it."""
        ref = stream.seen.stream_id
        del self.streams[ref]
        self.closed[ref] = how
        self.unqueue(stream)
        stream.steps.clear()
        stream.seen.finish()
        self.programs.pop(stream.seen.number, None)


def read_section(section: Fields) -> tuple[dict[bytes, bytes], Fields, str]:
    """A request's pseudo-header fields, its fields, and what is malformed about them, if anything (§8.2, §8.3)."""
    pseudo: dict[bytes, bytes] = {}
    fields: list[tuple[bytes, bytes]] = []
    fault = ""
    for name, value in section:
        if name.startswith(b":"):
            if fields or name in pseudo or name not in (b":method", b":scheme", b":authority", b":path", b":protocol"):
                fault = fault or f"the field {name!r} (§8.3)"
            pseudo[name] = value
            continue
        if name != name.lower() or not name or value != value.strip(b" \t") or set(value) & {0, 10, 13}:
            fault = fault or f"the field {name!r} (§8.2.1)"
        if name in NO_ROOM or (name == b"te" and value != b"trailers"):
            fault = fault or f"the field {name!r} (§8.2.2)"
        fields.append((name, value))
    tunnel = pseudo.get(b":method") == b"CONNECT" and b":protocol" not in pseudo
    needed = {b":method", b":authority"} if tunnel else {b":method", b":scheme", b":path"}
    if not needed <= set(pseudo) or (tunnel and pseudo.keys() & {b":scheme", b":path"}):
        fault = fault or f"the pseudo-header fields are {sorted(pseudo)!r} (§8.3.1)"
    return pseudo, tuple(fields), fault
