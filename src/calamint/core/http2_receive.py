"""RFC 9113 §6: what arrives. One `recv_*` per frame type, in the order of the RFC.

A handler raises StreamFault or ConnectionFault, the RFC's two kinds of error; what it did before that stays in the draft.
Every threshold is tested per frame, never per call: the same bytes give the same events however they are cut.
"""

from typing import Final

from calamint.core import flow, frames, hpack
from calamint.core.errors import (
    CANCEL,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    ConnectionFault,
    Failure,
    StreamFault,
    error_name,
)
from calamint.core.events import (
    DataReceived,
    GoAwayReceived,
    InterimReceived,
    PingAcknowledged,
    RequestFailed,
    ResponseEnded,
    ResponseReceived,
    SettingsReceived,
    TrailersReceived,
)
from calamint.core.exchange import REMOTE, Exchange
from calamint.core.fields import Head, read_head
from calamint.core.frames import DATA, END_HEADERS, END_STREAM, HEADER_SIZE, HEADERS, PADDED, PRIORITY_FLAG
from calamint.core.http2_state import DRAINING, LAST_REF, MEMO_FIELDS, Draft
from calamint.core.streams import (
    COLUMNS,
    GRID,
    IGNORE,
    RECV_DATA,
    RECV_END,
    RECV_FINAL,
    RECV_INTERIM,
    RECV_RESET,
    RECV_TRAILERS,
    RECV_WINDOW,
    all_streams,
    find_stream,
)
from calamint.core.value import NEVER

CONTINUATION_LIMIT: Final = 64  # fragments of one field block, the empty ones counted
BLOCK_MEMO: Final = 512
BLOCK_SIZE: Final = 2048  # longer blocks are not remembered

# Block without reference to the dynamic table → what it says and what it inserts. Two generations.
blocks: dict[bytes, tuple[Head, tuple[hpack.Field, ...]]] = {}
old_blocks: dict[bytes, tuple[Head, tuple[hpack.Field, ...]]] = {}
UNSEEN: Final = Head(0, (), -1, "not seen")
SEEN: Final = Head(0, (), -1, "seen once")
UNKNOWN: Final[tuple[Head, tuple[hpack.Field, ...]]] = (UNSEEN, ())


def recv_bytes(draft: Draft, data: bytes) -> None:
    """Every frame that is complete, and the DATA that has come of one that is not (§4.1)."""
    pos = 0
    if draft.partial is not None:
        pos = recv_data_rest(draft, draft.partial, data, 0)
    elif draft.buffer:
        data = draft.buffer + data
    end = len(data)
    limit = draft.setup.settings.max_frame_size
    checked = draft.frames == 0 or draft.control.block is not None  # not just any frame may come
    unpack = frames.HEADER.unpack_from
    while end - pos >= HEADER_SIZE:
        high: int
        low: int
        kind: int
        flags: int
        ref: int
        high, low, kind, flags, ref = unpack(data, pos)
        length = high << 8 | low
        ref &= LAST_REF  # "the reserved bit MUST be ignored when receiving" (§4.1)
        if checked or length > limit:
            check_header(draft, data, length, kind, flags, ref)
        start = pos + HEADER_SIZE
        if kind == DATA:
            if flags & PADDED and length and end == start:
                break  # the Pad Length comes first
            draft.frames += 1
            pos = recv_data(draft, data, start, length, flags, ref)
            continue
        if end - start < length:
            break
        pos = start + length
        draft.frames += 1
        try:
            if kind == HEADERS:
                recv_headers(draft, flags, ref, data[start:pos])
            else:
                recv_frame(draft, kind, flags, ref, data[start:pos])
        except StreamFault as fault:
            fault_stream(draft, fault)
        checked = draft.control.block is not None
    draft.buffer = data[pos:] if draft.partial is None and pos < end else b""


def check_header(draft: Draft, data: bytes, length: int, kind: int, flags: int, ref: int) -> None:
    """What may be refused from the nine octets of the frame header alone."""
    if draft.frames == 0 and (kind != frames.SETTINGS or flags & frames.ACK):
        if data.startswith(b"HTTP/"):
            raise ConnectionFault(PROTOCOL_ERROR, f"the peer answers in HTTP/1: {data[:9]!r}")
        raise ConnectionFault(
            PROTOCOL_ERROR, f"the first frame is {frames.frame_name(kind)}, not SETTINGS (RFC 9113 §3.4)"
        )
    if length > draft.setup.settings.max_frame_size:
        allowed = draft.setup.settings.max_frame_size
        raise ConnectionFault(
            FRAME_SIZE_ERROR, f"{frames.frame_name(kind)} of {length} bytes, allowed are {allowed} (§4.2)"
        )
    block = draft.control.block
    if block is not None and (kind != frames.CONTINUATION or ref != block[0]):
        raise ConnectionFault(PROTOCOL_ERROR, f"{frames.frame_name(kind)} within a field block (§4.3, §6.10)")


def fault_stream(draft: Draft, fault: StreamFault) -> None:
    """A stream error (§5.4.2): the request fails and its stream is reset; its siblings are untouched."""
    stream = find_stream(draft.streams, fault.ref)
    if stream is not None:
        failure = Failure("RemoteProtocolError", fault.code, f"{fault.reason} [{error_name(fault.code)}]", fault.ref)
        draft.reset(stream, fault.code)
        draft.events.append(RequestFailed(fault.ref, failure))


def recv_frame(draft: Draft, kind: int, flags: int, ref: int, payload: bytes) -> None:
    """Any frame but DATA and HEADERS, complete."""
    if kind == frames.WINDOW_UPDATE:
        recv_window_update(draft, ref, payload)
    elif kind == frames.RST_STREAM:
        recv_rst_stream(draft, ref, payload)
    elif kind == frames.SETTINGS:
        recv_settings(draft, flags, ref, payload)
    elif kind == frames.PING:
        recv_ping(draft, flags, ref, payload)
    elif kind == frames.GOAWAY:
        recv_goaway(draft, ref, payload)
    elif kind == frames.CONTINUATION:
        recv_continuation(draft, flags, ref, payload)
    elif kind == frames.PUSH_PROMISE:
        recv_push_promise(draft, ref)
    elif kind == frames.PRIORITY:
        recv_priority(ref, payload)
    # "Implementations MUST ignore and discard frames of unknown types" (§4.1, §5.5)


# §6.1 DATA


def recv_data(draft: Draft, data: bytes, start: int, length: int, flags: int, ref: int) -> int:
    """The beginning of a DATA frame, or all of it. Returns where in `data` the next frame begins.

    Windows are charged here, for the whole frame, padding included; the connection's is credited here too, whatever
    becomes of the stream, so that it cannot leak (§5.2, §6.9.1).
    """
    if ref == 0:
        raise ConnectionFault(PROTOCOL_ERROR, "DATA on stream 0 (§6.1)")
    padding = 0
    left = length
    if flags & PADDED:
        if length == 0:
            raise ConnectionFault(FRAME_SIZE_ERROR, "DATA too short for its Pad Length (§4.2)")
        if data[start] >= length:
            raise ConnectionFault(PROTOCOL_ERROR, "DATA whose padding is as long as its payload (§6.1)")
        padding = data[start]
        left = length - 1 - padding
        start += 1
    window = draft.recv_window - length
    if window < 0:
        raise ConnectionFault(FLOW_CONTROL_ERROR, f"{-window} bytes above the connection's window (§6.9)")
    credit = draft.setup.settings.connection_window - window
    if credit >= window:  # half of it has been used
        draft.out.append(frames.encode_window_update(0, credit))
        window += credit
    draft.recv_window = window
    stream: Exchange | None = None
    try:
        stream = draft.find(ref, RECV_DATA)
        if stream is not None:
            stream.recv_window -= length
            stream.credit += length - left  # padding is nobody's to read
            if stream.recv_window < 0:
                raise StreamFault(ref, FLOW_CONTROL_ERROR, f"{-stream.recv_window} bytes above its window (§6.9)")
            if stream.expected >= 0:
                stream.expected -= left
                if stream.expected < 0:
                    above = f"{-stream.expected} bytes above its content-length (§8.1.1)"
                    raise StreamFault(ref, PROTOCOL_ERROR, above)
            if left != length and not flags & END_STREAM:
                draft.give_credit(stream)
        elif flags & END_STREAM:
            draft.forget(ref, False)
        if padding == 0 and len(data) - start >= left:
            if stream is not None:
                deliver(draft, stream, data[start : start + left])
                if flags & END_STREAM:
                    recv_end(draft, stream)
            return start + left
    except StreamFault as fault:
        fault_stream(draft, fault)
    return recv_data_rest(draft, (ref, left, padding, flags & END_STREAM), data, start)


def recv_data_rest(draft: Draft, partial: tuple[int, int, int, int], data: bytes, pos: int) -> int:
    """What has come of a DATA frame that is not complete: delivered as it arrives, in pieces."""
    ref, left, padding, end = partial
    piece = data[pos : pos + left]
    pos += len(piece)
    left -= len(piece)
    skipped = min(padding, len(data) - pos) if left == 0 else 0
    padding -= skipped
    complete = left == 0 and padding == 0
    draft.partial = None if complete else (ref, left, padding, end)
    stream = find_stream(draft.streams, ref)
    if stream is not None:
        stream = draft.own(stream)
        deliver(draft, stream, piece)
        if end and complete:
            try:
                recv_end(draft, stream)
            except StreamFault as fault:
                fault_stream(draft, fault)
    return pos + skipped


def deliver(draft: Draft, stream: Exchange, piece: bytes) -> None:
    """A piece of content; an empty one is nothing."""
    if not piece:
        return
    now = draft.now
    if not stream.received:
        stream.first_data_at = now
    if not stream.unread:
        stream.unread_at = now
    stream.last_data_at = now
    stream.received += len(piece)
    stream.unread += len(piece)
    draft.events.append(DataReceived(stream.ref, piece))


def recv_end(draft: Draft, stream: Exchange) -> None:
    """END_STREAM: the response is complete, or it is malformed. If our content is not, it is dropped and the stream reset."""
    ref = stream.ref
    if stream.expected > 0:
        raise StreamFault(ref, PROTOCOL_ERROR, f"{stream.expected} bytes short of its content-length (§8.1.1)")
    state = GRID[stream.state * COLUMNS + RECV_END]
    if state >= IGNORE:
        draft.judge(ref, stream.state, state, RECV_END)
    stream.state = state
    draft.events.append(ResponseEnded(ref))
    if state == REMOTE:
        draft.reset(stream, CANCEL)
    else:
        draft.put(ref, None)


# §6.2 HEADERS


def recv_headers(draft: Draft, flags: int, ref: int, payload: bytes) -> None:
    """A field block, or its beginning."""
    if ref == 0:
        raise ConnectionFault(PROTOCOL_ERROR, "HEADERS on stream 0 (§6.2)")
    if flags & (PADDED | PRIORITY_FLAG):
        if flags & PRIORITY_FLAG and len(payload) < (6 if flags & PADDED else 5):
            raise ConnectionFault(FRAME_SIZE_ERROR, "HEADERS too short for its priority (§6.2)")
        payload = frames.strip_padding(HEADERS, flags, payload)
        if flags & PRIORITY_FLAG:
            if len(payload) < 5:
                raise ConnectionFault(PROTOCOL_ERROR, "HEADERS whose padding reaches into its priority (§6.2)")
            payload = payload[5:]
    if flags & END_HEADERS:
        recv_block(draft, flags, ref, payload)
    else:
        draft.own_control().block = (ref, flags, payload, 1)


def recv_block(draft: Draft, flags: int, ref: int, block: bytes) -> None:
    """A complete field block: decoded whatever becomes of its stream, so that the tables stay in step (§4.3)."""
    head = decode_head(draft, block)
    status = head.status
    if head.fault and find_stream(draft.streams, ref) is not None:
        raise StreamFault(ref, PROTOCOL_ERROR, f"malformed response: {head.fault} (§8.1.1)")
    if status >= 200:
        stream = draft.find(ref, RECV_FINAL)
    else:
        stream = draft.find(ref, RECV_INTERIM if status else RECV_TRAILERS)
    if stream is None:
        if flags & END_STREAM:
            draft.forget(ref, False)
        return
    if status >= 200:
        stream.status = status
        stream.head_at = draft.now
        stream.expected = 0 if head.bare or stream.method == "HEAD" else head.length
        draft.events.append(ResponseReceived(ref, status, head.fields))
    elif status:
        stream.interim_at = draft.now
        draft.events.append(InterimReceived(ref, status, head.fields))
    else:
        if not flags & END_STREAM:
            raise StreamFault(ref, PROTOCOL_ERROR, "malformed response: trailers without END_STREAM (§8.1)")
        draft.events.append(TrailersReceived(ref, head.fields))
    if flags & END_STREAM:
        recv_end(draft, stream)


def decode_head(draft: Draft, block: bytes) -> Head:
    """What a field block says. Blocks that recur are remembered: with the table they refer to, or for all connections."""
    global blocks, old_blocks
    table = draft.decoder
    found = table.memo.get(block)
    if isinstance(found, Head) and found is not SEEN:
        return found
    known = blocks.get(block, UNKNOWN)
    if known[0] is UNSEEN:
        known = old_blocks.get(block, UNKNOWN)
    if known[0].status and draft.setup.remembers and not table.must_update:
        draft.decoder = hpack.insert(table, known[1])
        return known[0]
    settings = draft.setup.settings
    decoded = hpack.decode(table, block, settings.max_field_section, settings.max_fields)
    draft.decoder = decoded.table
    if decoded.oversize:
        allowed = f"allowed are {settings.max_field_section} bytes in {settings.max_fields} fields"
        return Head(0, (), -1, f"a field section above our limits: {allowed}")
    head = read_head(decoded.fields)
    if head.fault or decoded.secret or len(block) > BLOCK_SIZE or not head.status:
        return head
    if decoded.dynamic:
        if decoded.table is table:
            if len(table.memo) >= BLOCK_MEMO:
                table.memo = {}
            table.memo[block] = SEEN if found is None else head
    elif draft.setup.remembers and len(head.fields) < MEMO_FIELDS and not 0x20 <= block[0] < 0x40:  # no size update
        if len(blocks) >= BLOCK_MEMO:
            old_blocks = blocks
            blocks = {}
        blocks[block] = (SEEN, ()) if known[0] is UNSEEN else (head, decoded.inserted)
    return head


# §6.3 PRIORITY


def recv_priority(ref: int, payload: bytes) -> None:
    """Deprecated (§5.3.2): checked and ignored, on a stream in any state."""
    if ref == 0:
        raise ConnectionFault(PROTOCOL_ERROR, "PRIORITY on stream 0 (§6.3)")
    if len(payload) != 5:
        raise StreamFault(ref, FRAME_SIZE_ERROR, f"PRIORITY of {len(payload)} bytes, allowed are 5 (§6.3)")


# §6.4 RST_STREAM


def recv_rst_stream(draft: Draft, ref: int, payload: bytes) -> None:
    """The peer ends the stream; REFUSED_STREAM says that it did not act on it (§8.7). Nothing is sent in answer."""
    if ref == 0:
        raise ConnectionFault(PROTOCOL_ERROR, "RST_STREAM on stream 0 (§6.4)")
    code = frames.decode_long(payload, frames.RST_STREAM)
    stream = draft.find(ref, RECV_RESET)
    if stream is not None:
        message = f"{stream.method} {stream.target}: the peer reset stream {ref} [{error_name(code)}]"
        draft.fail(stream, Failure("StreamReset", code, message, ref, code == REFUSED_STREAM))
    else:
        draft.forget(ref, True)


# §6.5 SETTINGS


def recv_settings(draft: Draft, flags: int, ref: int, payload: bytes) -> None:
    """Validated and applied in their order, then acknowledged, in one output (§6.5.3)."""
    if ref != 0:
        raise ConnectionFault(PROTOCOL_ERROR, f"SETTINGS on stream {ref} (§6.5)")
    if flags & frames.ACK:
        if payload:
            raise ConnectionFault(FRAME_SIZE_ERROR, f"SETTINGS with ACK and {len(payload)} bytes (§6.5)")
        control = draft.own_control()
        if control.settings_at > NEVER and draft.decoder.limit != draft.setup.settings.header_table_size:
            draft.decoder = hpack.allow(draft.decoder, draft.setup.settings.header_table_size)
        control.settings_at = NEVER
        return
    settings = frames.decode_settings(payload)
    if not draft.peer.known:
        draft.peer = draft.peer.replace(True, limit=draft.setup.settings.max_streams)
    for name, number in settings:
        apply_setting(draft, name, number)
    draft.out.append(frames.encode_settings_ack())
    draft.events.append(SettingsReceived(settings))


def apply_setting(draft: Draft, name: int, number: int) -> None:
    """One of the peer's settings (§6.5.2); unknown ones are ignored."""
    peer = draft.peer
    if name == frames.HEADER_TABLE_SIZE:
        draft.encoder = hpack.resize(draft.encoder, number)
    elif name == frames.ENABLE_PUSH:
        if number != 0:
            raise ConnectionFault(PROTOCOL_ERROR, f"a server's ENABLE_PUSH={number}, allowed is 0 (§6.5.2)")
    elif name == frames.MAX_CONCURRENT_STREAMS:
        draft.peer = peer.replace(True, limit=min(number, draft.setup.settings.max_streams))
    elif name == frames.INITIAL_WINDOW_SIZE:
        if number > flow.MAX_WINDOW:
            raise ConnectionFault(FLOW_CONTROL_ERROR, f"INITIAL_WINDOW_SIZE={number}, allowed are 2^31-1 (§6.5.2)")
        draft.peer = peer.replace(True, initial_window=number)
        if number > peer.initial_window:
            reopen_windows(draft)
    elif name == frames.MAX_FRAME_SIZE:
        if not 16_384 <= number <= 2**24 - 1:
            raise ConnectionFault(PROTOCOL_ERROR, f"MAX_FRAME_SIZE={number}, allowed are 16384 to 16777215 (§6.5.2)")
        draft.peer = peer.replace(True, max_frame_size=number)
    elif name == frames.MAX_HEADER_LIST_SIZE:
        draft.peer = peer.replace(True, max_field_section=number)


def reopen_windows(draft: Draft) -> None:
    """INITIAL_WINDOW_SIZE rose: streams that waited for their window go on (§6.9.2)."""
    for stream in all_streams(draft.streams):
        if flow.overflows(stream.send_window, draft.peer.initial_window):
            raise ConnectionFault(FLOW_CONTROL_ERROR, f"the window of stream {stream.ref} above 2^31-1 (§6.9.2)")
        if stream.upload is not None and stream.upload.queued:
            draft.make_ready(stream.ref)


# §6.6 PUSH_PROMISE


def recv_push_promise(draft: Draft, ref: int) -> None:
    """We said ENABLE_PUSH=0: "MUST treat the receipt of a PUSH_PROMISE frame as a connection error" (§8.4)."""
    raise ConnectionFault(PROTOCOL_ERROR, f"PUSH_PROMISE on stream {ref} although push is off (§8.4)")


# §6.7 PING


def recv_ping(draft: Draft, flags: int, ref: int, payload: bytes) -> None:
    """Answered at once; an answer to ours tells the time it took."""
    if ref != 0:
        raise ConnectionFault(PROTOCOL_ERROR, f"PING on stream {ref} (§6.7)")
    if len(payload) != 8:
        raise ConnectionFault(FRAME_SIZE_ERROR, f"PING of {len(payload)} bytes, allowed are 8 (§6.7)")
    if not flags & frames.ACK:
        draft.out.append(frames.encode_ping(payload, frames.ACK))
        return
    control = draft.own_control()
    if control.ping_at > NEVER and payload == (control.pings - 1).to_bytes(8, "big"):
        draft.events.append(PingAcknowledged(payload, draft.now - control.ping_at))
        control.ping_at = NEVER


# §6.8 GOAWAY


def recv_goaway(draft: Draft, ref: int, payload: bytes) -> None:
    """The peer takes no new requests: those above its last id were not processed, the others go on to their end."""
    if ref != 0:
        raise ConnectionFault(PROTOCOL_ERROR, f"GOAWAY on stream {ref} (§6.8)")
    if len(payload) < 8:
        raise ConnectionFault(FRAME_SIZE_ERROR, f"GOAWAY of {len(payload)} bytes, allowed are 8 or more (§6.8)")
    last: int
    code: int
    last, code = frames.TWO_LONGS.unpack_from(payload)
    last &= LAST_REF
    control = draft.own_control()
    if last > control.goaway[0]:
        raise ConnectionFault(PROTOCOL_ERROR, f"GOAWAY raises its last stream id to {last} (§6.8)")
    control.goaway = (last, code)
    draft.status = DRAINING
    draft.events.append(GoAwayReceived(last, code, payload[8:]))
    for stream in all_streams(draft.streams):
        if stream.ref > last:
            message = (
                f"{stream.method} {stream.target}: the peer said GOAWAY [{error_name(code)}] before it acted on it"
            )
            draft.fail(stream, Failure("ConnectionTerminated", code, message, stream.ref, True, last))
    for stray in [ref for ref in control.unsent if ref > last]:
        del control.unsent[stray]
    for stray in [ref for ref in control.unconfirmed if ref > last]:
        del control.unconfirmed[stray]


# §6.9 WINDOW_UPDATE


def recv_window_update(draft: Draft, ref: int, payload: bytes) -> None:
    """The peer takes more of our content."""
    increment = frames.decode_long(payload, frames.WINDOW_UPDATE) & LAST_REF
    if ref == 0:
        if increment == 0:
            raise ConnectionFault(PROTOCOL_ERROR, "WINDOW_UPDATE of 0 for the connection (§6.9)")
        if flow.overflows(draft.send_window, increment):
            raise ConnectionFault(FLOW_CONTROL_ERROR, "the connection's window above 2^31-1 (§6.9.1)")
        draft.send_window += increment
        return
    stream = draft.find(ref, RECV_WINDOW)
    if stream is None:
        return
    if increment == 0:
        raise StreamFault(ref, PROTOCOL_ERROR, "WINDOW_UPDATE of 0 (§6.9)")
    if flow.overflows(stream.send_window + draft.peer.initial_window, increment):
        raise StreamFault(ref, FLOW_CONTROL_ERROR, "the stream's window above 2^31-1 (§6.9.1)")
    stream.send_window += increment
    upload = stream.upload
    if upload is not None:
        upload.reopened_at = draft.now
        if upload.queued:
            draft.make_ready(ref)


# §6.10 CONTINUATION


def recv_continuation(draft: Draft, flags: int, ref: int, payload: bytes) -> None:
    """More of a field block, within limits on its bytes and on its fragments, the empty ones counted."""
    control = draft.own_control()
    block = control.block
    if block is None:
        raise ConnectionFault(PROTOCOL_ERROR, "CONTINUATION without HEADERS (§6.10)")
    _, first_flags, fragments, count = block
    size = len(fragments) + len(payload)
    limit = draft.setup.settings.max_field_section
    if size > limit or count >= CONTINUATION_LIMIT:
        seen = f"a field block of {size} bytes in {count + 1} frames"
        raise ConnectionFault(ENHANCE_YOUR_CALM, f"{seen}: allowed are {limit} in {CONTINUATION_LIMIT} (§10.5.1)")
    if flags & END_HEADERS:
        control.block = None
        recv_block(draft, first_flags, ref, fragments + payload)
    else:
        control.block = (ref, first_flags, fragments + payload, count + 1)
