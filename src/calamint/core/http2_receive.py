"""RFC 9113 §6: what arrives. One `recv_*` per frame type, in the order of the RFC.

A handler raises StreamFault or ConnectionFault, the RFC's two kinds of error; what it did before that stays in the draft.
Every threshold is tested per frame, never per call: the same bytes give the same events however they are cut.
"""

from typing import Final

from calamint.core import flow, frames
from calamint.core.errors import (
    CANCEL,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    NO_ERROR,
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
    PushPromised,
    ResponseEnded,
    ResponseReceived,
    SettingsReceived,
    TrailersReceived,
    Upgraded,
)
from calamint.core.exchange import (
    CONNECTING,
    EXPECTING,
    OPEN_AWAITING,
    REFUSED,
    REMOTE,
    RESERVED,
    TUNNEL,
    Exchange,
    may_send,
)
from calamint.core.fields import BAD_LENGTH, Head
from calamint.core.frames import DATA, END_HEADERS, END_STREAM, HEADER_SIZE, HEADERS, PADDED, PRIORITY_FLAG
from calamint.core.http2_head import decode_head, decode_promise
from calamint.core.http2_settings import acknowledge, apply_setting
from calamint.core.http2_state import CALM_BYTES, DRAINING, LAST_REF, Draft
from calamint.core.streams import (
    COLUMNS,
    GRID,
    IGNORE,
    RECV_CONTINUE,
    RECV_DATA,
    RECV_END,
    RECV_FINAL,
    RECV_INTERIM,
    RECV_PROMISE,
    RECV_RESET,
    RECV_SUCCESS,
    RECV_TRAILERS,
    RECV_WINDOW,
    all_streams,
    find_stream,
)
from calamint.core.value import NEVER

CONTINUATION_LIMIT: Final = 64  # fragments of one field block, the empty ones counted


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
            draft.fault(fault)
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
        recv_push_promise(draft, flags, ref, payload)
    elif kind == frames.PRIORITY:
        recv_priority(draft, ref, payload)
    elif kind == frames.PRIORITY_UPDATE:
        raise ConnectionFault(PROTOCOL_ERROR, "PRIORITY_UPDATE from a server (RFC 9218 §7.1)")
    else:
        draft.charge()  # "Implementations MUST ignore and discard frames of unknown types" (§4.1, §5.5)


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
    if left == 0 and not flags & END_STREAM:
        draft.charge()
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
            if length and stream.recv_window < 0:  # "a frame … of length zero" may end it all the same (§6.9)
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
        draft.fault(fault)
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
                draft.fault(fault)
    return pos + skipped


def deliver(draft: Draft, stream: Exchange, piece: bytes) -> None:
    """A piece of content; an empty one is nothing."""
    if not piece:
        return
    stream.note_content(len(piece), draft.now)
    if draft.spent > 0.0:
        draft.spent = max(0.0, draft.spent - len(piece) / CALM_BYTES)
    if draft.events:
        last = draft.events[-1]
        if isinstance(last, DataReceived) and last.ref == stream.ref:
            draft.cut = True
    draft.events.append(DataReceived(stream.ref, piece))


def recv_end(draft: Draft, stream: Exchange) -> None:
    """END_STREAM: the response is complete, or it is malformed. If our content is not, it is dropped and the stream reset;
    a tunnel that has taken all is ended on our side too (§8.5)."""
    ref = stream.ref
    if stream.expected > 0:
        raise StreamFault(ref, PROTOCOL_ERROR, f"{stream.expected} bytes short of its content-length (§8.1.1)")
    before = stream.state
    state = GRID[before * COLUMNS + RECV_END]
    if state >= IGNORE:
        draft.judge(ref, before, state, RECV_END)
    stream.state = state
    draft.events.append(ResponseEnded(ref))
    if state == REMOTE:
        if before == TUNNEL and stream.upload is not None and not stream.upload.queued:
            draft.out.append(frames.encode_header(0, DATA, END_STREAM, ref))
            draft.leave(stream)
        else:
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
        draft.own_control().block = (ref, flags, payload, 1, 0)


def recv_block(draft: Draft, flags: int, ref: int, block: bytes) -> None:
    """A complete field block: decoded whatever becomes of its stream, so that the tables stay in step (§4.3)."""
    head = decode_head(draft, block)
    status = head.status
    held = False
    if head.fault and not is_excused(find_stream(draft.streams, ref), head):
        raise StreamFault(ref, PROTOCOL_ERROR, f"malformed response: {head.fault} (§8.1.1)")
    if status >= 200:
        stream = draft.find(ref, RECV_SUCCESS if status < 300 else RECV_FINAL)
    elif status:
        draft.charge()
        before = find_stream(draft.streams, ref)
        held = before is not None and before.state == EXPECTING
        stream = draft.find(ref, RECV_CONTINUE if status == 100 else RECV_INTERIM)
    else:
        stream = draft.find(ref, RECV_TRAILERS)
    if stream is None:
        draft.charge()
        if flags & END_STREAM:
            draft.forget(ref, False)
        return
    if status >= 200:
        stream.status = status
        stream.head_at = draft.now
        stream.expected = 0 if head.bare or stream.method == "HEAD" else head.length
        if draft.spent > 0.0 and ref & 1:
            draft.spent = 0.0
        draft.events.append(ResponseReceived(ref, status, head.fields))
        if stream.state == TUNNEL or stream.state == REFUSED:
            answer(draft, stream)
    elif status:
        stream.interim_at = draft.now
        draft.events.append(InterimReceived(ref, status, head.fields))
        if held and stream.state == OPEN_AWAITING:
            draft.release(stream)
    else:
        if not flags & END_STREAM:
            raise StreamFault(ref, PROTOCOL_ERROR, "malformed response: trailers without END_STREAM (§8.1)")
        draft.events.append(TrailersReceived(ref, head.fields))
    if flags & END_STREAM:
        recv_end(draft, stream)


def is_excused(stream: Exchange | None, head: Head) -> bool:
    """Whether what is wrong does not matter: the stream is over, or it is the length in a 2xx to CONNECT (RFC 9110 §9.3.6)."""
    if stream is None:
        return True
    return stream.state == CONNECTING and head.length == BAD_LENGTH and 200 <= head.status < 300


def answer(draft: Draft, stream: Exchange) -> None:
    """The final head came while our content was held back: the tunnel is made (§8.5), or the content is not wanted."""
    upload = stream.upload
    assert upload is not None  # or there was nothing to hold back
    if stream.state == TUNNEL:
        stream.expected = -1  # "ignore any Content-Length" (RFC 9110 §9.3.6)
        draft.events.append(Upgraded(stream.ref))
        draft.release(stream)
    else:
        upload.drop()


# §6.3 PRIORITY


def recv_priority(draft: Draft, ref: int, payload: bytes) -> None:
    """Deprecated (§5.3.2): checked and ignored, on a stream in any state."""
    draft.charge()
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
    if stream is not None and code == NO_ERROR and stream.head_at > NEVER and stream.expected == 0:
        draft.leave(stream)  # all of its declared content has come: only END_STREAM is missing, and nothing is lost
        draft.events.append(ResponseEnded(ref))
    elif stream is not None:
        message = f"{stream.method} {stream.target}: the peer reset stream {ref} [{error_name(code)}]"
        refused = code == REFUSED_STREAM and stream.head_at == NEVER
        draft.fail(stream, Failure("StreamReset", code, message, ref, refused))
        if not ref & 1:
            draft.charge()
    else:
        draft.charge()
        draft.forget(ref, True)


# §6.5 SETTINGS


def recv_settings(draft: Draft, flags: int, ref: int, payload: bytes) -> None:
    """Validated and applied in their order, then acknowledged, in one output (§6.5.3)."""
    if ref != 0:
        raise ConnectionFault(PROTOCOL_ERROR, f"SETTINGS on stream {ref} (§6.5)")
    if flags & frames.ACK:
        if payload:
            raise ConnectionFault(FRAME_SIZE_ERROR, f"SETTINGS with ACK and {len(payload)} bytes (§6.5)")
        acknowledge(draft)
        return
    draft.charge()
    settings = frames.decode_settings(payload)
    if not draft.peer.known:
        draft.peer = draft.peer.replace(limit=draft.setup.settings.max_streams)
    before = draft.peer.initial_window
    for name, number in settings:
        apply_setting(draft, name, number)
    highest = max([number for name, number in settings if name == frames.INITIAL_WINDOW_SIZE], default=0)
    if highest > before:  # once for all of them: work is not multiplied by what they say
        draft.reopen_windows(highest)
    draft.out.append(frames.encode_settings_ack())
    draft.events.append(SettingsReceived(settings))


# §6.6 PUSH_PROMISE


def recv_push_promise(draft: Draft, flags: int, ref: int, payload: bytes) -> None:
    """The peer promises a response that nobody asked for, or begins to."""
    if not draft.setup.settings.max_pushes:
        # We said ENABLE_PUSH=0: "MUST treat the receipt of a PUSH_PROMISE frame as a connection error" (§8.4).
        raise ConnectionFault(PROTOCOL_ERROR, f"PUSH_PROMISE on stream {ref} although push is off (§8.4)")
    if not ref & 1:
        raise ConnectionFault(PROTOCOL_ERROR, f"PUSH_PROMISE on stream {ref}, which is none of ours (§6.6)")
    payload = frames.strip_padding(frames.PUSH_PROMISE, flags, payload)
    if len(payload) < 4:
        raise ConnectionFault(FRAME_SIZE_ERROR, "PUSH_PROMISE too short for its stream id (§6.6)")
    promised = int.from_bytes(payload[:4], "big") & LAST_REF
    control = draft.own_control()
    if promised & 1 or promised <= control.last_push:
        raise ConnectionFault(PROTOCOL_ERROR, f"PUSH_PROMISE promises stream {promised} (§5.1.1, §6.6)")
    control.last_push = promised
    if flags & END_HEADERS:
        recv_promise(draft, ref, promised, payload[4:])
    else:
        control.block = (ref, flags, payload[4:], 1, promised)


def recv_promise(draft: Draft, ref: int, promised: int, block: bytes) -> None:
    """A promise, complete: its stream is reserved (§5.1), or refused above our limit, or malformed (§8.4.1)."""
    promise = decode_promise(draft, block)
    parent = draft.find(ref, RECV_PROMISE)  # closed: it "might have been created before the RST_STREAM" came (§6.6)
    if promise.fault or parent is None or len(draft.control.pushes) >= draft.setup.settings.max_pushes:
        draft.charge()
        draft.out.append(frames.encode_reset(promised, PROTOCOL_ERROR if promise.fault else REFUSED_STREAM))
        draft.own_control().resets += 1
        return
    draft.charge()
    now = draft.now
    stream = Exchange(
        promised,
        promise.method,
        promise.target,
        RESERVED,
        parent.clocks,
        parent.deadline,
        0,
        None,
        -1,
        0,
        0,
        0,
        now,
        now,
    )
    stream.recv_window = draft.setup.settings.stream_window
    stream.owner = draft.owner
    draft.put(promised, stream)
    draft.wake = min(draft.wake, now + parent.clocks.shortest)
    draft.events.append(PushPromised(ref, promised, promise.method, promise.target, promise.fields))


# §6.7 PING


def recv_ping(draft: Draft, flags: int, ref: int, payload: bytes) -> None:
    """Answered at once; an answer to ours tells the time it took."""
    if ref != 0:
        raise ConnectionFault(PROTOCOL_ERROR, f"PING on stream {ref} (§6.7)")
    if len(payload) != 8:
        raise ConnectionFault(FRAME_SIZE_ERROR, f"PING of {len(payload)} bytes, allowed are 8 (§6.7)")
    control = draft.own_control()
    if control.quiet == draft.frames - 1:
        control.quiet = draft.frames  # a PING does not break the silence that keepalive is about
    if not flags & frames.ACK:
        draft.charge()
        draft.out.append(frames.encode_ping(payload, frames.ACK))
    elif control.ping_at > NEVER and payload == (control.pings - 1).to_bytes(8, "big"):
        draft.events.append(PingAcknowledged(payload, draft.now - control.ping_at))
        control.ping_at = NEVER
    else:
        draft.charge()


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
    draft.charge()
    control.goaway = (last, code)
    draft.status = DRAINING
    draft.events.append(GoAwayReceived(last, code, payload[8:]))
    for stream in all_streams(draft.streams):
        if stream.ref > last and stream.ref & 1:  # it says nothing about streams that the peer opened
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
    waiting = find_stream(draft.streams, ref)
    if not (draft.ready if waiting is None or waiting.upload is None else waiting.upload.queued):
        draft.charge()  # nothing waits for it
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
        if upload.queued and may_send(stream):
            draft.make_ready(ref)


# §6.10 CONTINUATION


def recv_continuation(draft: Draft, flags: int, ref: int, payload: bytes) -> None:
    """More of a field block, within limits on its bytes and on its fragments, the empty ones counted."""
    control = draft.own_control()
    block = control.block
    if block is None:
        raise ConnectionFault(PROTOCOL_ERROR, "CONTINUATION without HEADERS (§6.10)")
    _, first_flags, fragments, count, promised = block
    size = len(fragments) + len(payload)
    limit = draft.setup.settings.max_field_section
    if size > limit or count >= CONTINUATION_LIMIT:
        seen = f"a field block of {size} bytes in {count + 1} frames"
        raise ConnectionFault(ENHANCE_YOUR_CALM, f"{seen}: allowed are {limit} in {CONTINUATION_LIMIT} (§10.5.1)")
    if not flags & END_HEADERS:
        control.block = (ref, first_flags, fragments + payload, count + 1, promised)
        return
    control.block = None
    if promised:
        recv_promise(draft, ref, promised, fragments + payload)
    else:
        recv_block(draft, first_flags, ref, fragments + payload)
