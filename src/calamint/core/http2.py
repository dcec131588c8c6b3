"""RFC 9113: the verbs of an HTTP/2 connection. Each makes a draft, writes it, and finishes it.

Output is handed out in order: heads and control frames at once, content while less than `output_budget` bytes of it are
unflushed. The rest waits in its stream's record, in turn, behind nothing that matters more.
"""

from collections import deque
from typing import Final

from calamint.core import frames, hpack
from calamint.core.errors import CANCEL, NO_ERROR, AtCapacity, ConnectionFault, Failure, LocalProtocolError
from calamint.core.events import Event, RequestFailed, WindowOpened
from calamint.core.exchange import CLOCKS, IDLE, Clocks, Exchange, Settings, Upload
from calamint.core.fields import check_method, check_target, check_trailers, find_length, for_http2
from calamint.core.flow import DEFAULT_WINDOW
from calamint.core.hpack import DecoderTable, EncoderTable
from calamint.core.http2_receive import recv_bytes
from calamint.core.http2_state import (
    CLOSED,
    LAST_REF,
    OPEN,
    PING_LIMIT,
    STATUS_NAMES,
    Control,
    Draft,
    HTTP2Connection,
    Peer,
    Setup,
)
from calamint.core.snapshot import Snapshot, snap_request
from calamint.core.streams import COLUMNS, GRID, LEAF, SEND_END, SEND_HEAD, all_streams, find_stream
from calamint.core.url import Origin
from calamint.core.value import INFINITY, NEVER, SECRET_FIELDS, Fields

HEAD_MEMO: Final = 256
MAX_FRAME: Final = 65_536  # we send no larger DATA, whatever the peer takes: its turn comes sooner

OPENED: Final = GRID[IDLE * COLUMNS + SEND_HEAD]
OPENED_AND_ENDED: Final = GRID[OPENED * COLUMNS + SEND_END]

Step = tuple[HTTP2Connection, bytes, list[Event]]


def connect(origin: Origin, settings: Settings, now: float) -> tuple[HTTP2Connection, bytes]:
    """A new connection, and its preface: SETTINGS and the connection's window (RFC 9113 §3.4)."""
    announced = [
        (frames.ENABLE_PUSH, 0),
        (frames.INITIAL_WINDOW_SIZE, settings.stream_window),
        (frames.MAX_HEADER_LIST_SIZE, settings.max_field_section),
        (frames.NO_RFC7540_PRIORITIES, 1),
    ]
    if settings.header_table_size != 4096:
        announced.insert(0, (frames.HEADER_TABLE_SIZE, settings.header_table_size))
    if settings.max_frame_size != 16_384:
        announced.append((frames.MAX_FRAME_SIZE, settings.max_frame_size))
    data = frames.PREFACE + frames.encode_settings(tuple(announced))
    if settings.connection_window > DEFAULT_WINDOW:
        data += frames.encode_window_update(0, settings.connection_window - DEFAULT_WINDOW)
    conn = HTTP2Connection(
        Setup(origin, settings),
        OPEN,
        Peer(False, min(settings.max_streams, settings.first_streams)),
        Control({}, {}, settings_at=now),
        {},
        0,
        1,
        (),
        EncoderTable({}, {}),
        DecoderTable((), 0, 4096, max(4096, settings.header_table_size)),  # until our SETTINGS are acknowledged
        DEFAULT_WINDOW,
        settings.connection_window,
        b"",
        None,
        0,
        len(data),
        0,
        now,
        NEVER,
        INFINITY,
    )
    return conn, data


def capacity(conn: HTTP2Connection) -> int:
    """How many more requests may be sent now: the limit (§5.1.2) less the slots in use, the sum of three lengths."""
    if conn.status != OPEN or conn.next_ref > LAST_REF:
        return 0
    control = conn.control
    free = conn.peer.limit - conn.live - len(control.unsent) - len(control.unconfirmed)
    return free if free > 0 else 0


def request(
    conn: HTTP2Connection,
    method: str,
    target: str,
    fields: Fields,
    content: bytes | None,
    now: float,
    end: bool = True,
    deadline: float = INFINITY,
    clocks: Clocks = CLOCKS,
) -> tuple[HTTP2Connection, bytes, int]:
    """Sends a request's head, and its content as windows allow (§8.1). See `verbs.request`."""
    control = conn.control
    taken = conn.live + len(control.unsent) + len(control.unconfirmed)
    if taken >= conn.peer.limit or conn.status != OPEN or conn.next_ref > LAST_REF:
        refuse(conn)
    draft = Draft(conn, now)
    ref = draft.next_ref
    block = encode_request(draft, method, target, fields, content, end)
    done = end and not content
    head = frames.encode_head(ref, block, done, draft.peer.max_frame_size)
    draft.out.append(head)
    stream = Exchange(
        ref,
        method,
        target,
        OPENED_AND_ENDED if done else OPENED,
        clocks,
        deadline,
        draft.written + len(head),
        None if done else Upload(left=find_length(fields)),
        -1,
        0,
        0,
        0,
        draft.now,
        draft.now if done else NEVER,
    )
    stream.recv_window = draft.setup.settings.stream_window
    stream.mark = draft.frames
    stream.owner = draft.owner
    draft.next_ref = ref + 2
    draft.put(ref, stream)
    wake = draft.now + clocks.shortest
    if deadline < wake:
        wake = deadline
    if wake < draft.wake:
        draft.wake = wake
    if not done:
        if content:
            give(draft, stream, content, end, ())
        pump(draft)
    next_conn, data, _ = draft.finish()
    return next_conn, data, ref


def refuse(conn: HTTP2Connection) -> None:
    """Raises what tells a caller why there is no slot."""
    if conn.status != OPEN:
        raise LocalProtocolError(f"the connection is {STATUS_NAMES[conn.status]}: it takes no new requests")
    if conn.next_ref > LAST_REF:
        raise LocalProtocolError("every stream id of the connection has been used (RFC 9113 §5.1.1)")
    used = f"{conn.live} live, {len(conn.control.unsent)} unsent, {len(conn.control.unconfirmed)} unconfirmed"
    raise AtCapacity(f"no slot is free: {conn.peer.limit} allowed, {used}")


def encode_request(draft: Draft, method: str, target: str, fields: Fields, content: bytes | None, end: bool) -> bytes:
    """The request's field block (§8.3.1). What recurs is remembered with the table: the block, or what is around the path."""
    table = draft.encoder
    key = (method, target, fields)
    block = table.blocks.get(key, hpack.MARK)
    declared = -1  # what is remembered declares no length
    if not block:
        check_target(method, target)
        before, after = encode_around(draft, method, fields)
        block = before + hpack.encode_path(target.encode("ascii")) + after
        declared = find_length(fields)
        if end and not content and declared > 0:
            raise LocalProtocolError(f"content-length {declared} without content (RFC 9110 §8.6)")
        if declared < 0 and draft.encoder is table and (method, fields) in table.around:
            if len(table.blocks) >= HEAD_MEMO:
                table.blocks = {}
            table.blocks[key] = block if key in table.blocks else hpack.MARK
    if content is not None and end and declared < 0:
        block += hpack.encode_literal(0x00, 0x0F, 28, b"content-length", b"%d" % len(content))
    return block


def encode_around(draft: Draft, method: str, fields: Fields) -> tuple[bytes, bytes]:
    """A request's field block before its path and after it, checked."""
    table = draft.encoder
    around = table.around.get((method, fields))
    if around is not None:
        return around
    check_method(method)
    authority, kept = for_http2(fields, draft.setup.authority)
    first: Fields = ((b":method", method.encode()), (b":scheme", draft.setup.scheme), (b":authority", authority))
    draft.encoder, before = hpack.encode(table, first)
    draft.encoder, after = hpack.encode(draft.encoder, kept)
    if draft.encoder is table and not has_secret(kept):
        if len(table.around) >= HEAD_MEMO:
            table.around = {}
        table.around[(method, fields)] = (before, after)
    return before, after


def has_secret(fields: Fields) -> bool:
    """Whether these fields must not be remembered."""
    for name, _ in fields:
        if name in SECRET_FIELDS:
            return True
    return False


def send_data(
    conn: HTTP2Connection, ref: int, data: bytes, now: float, end: bool = False, trailers: Fields = ()
) -> tuple[HTTP2Connection, bytes]:
    """More of a request's content. See `verbs.send_data`."""
    stream = find_stream(conn.streams, ref)
    if stream is None:
        raise LocalProtocolError(f"request {ref} is over: its content is not wanted any more")
    if stream.upload is None or stream.upload.ending:
        raise LocalProtocolError(f"the content of request {ref} has been ended")
    draft = Draft(conn, now)
    give(draft, draft.own(stream), data, end, trailers)
    pump(draft)
    next_conn, out, _ = draft.finish()
    return next_conn, out


def give(draft: Draft, stream: Exchange, data: bytes, end: bool, trailers: Fields) -> None:
    """Content, and perhaps its end, that now waits in the stream's record. Raises if it breaks the declared length."""
    upload = stream.upload
    assert upload is not None  # its content is open
    if upload.left >= 0:
        if len(data) > upload.left or (len(data) < upload.left and (end or trailers)):
            raise LocalProtocolError(f"{len(data)} bytes where its content-length leaves {upload.left} (RFC 9110 §8.6)")
        upload.left -= len(data)
    if trailers:
        check_trailers(trailers)
        upload.trailers = for_http2(trailers, b"")[1]
    upload.add(data, draft.now)
    upload.ending = end or bool(trailers)
    stream.reader_at = draft.now
    if upload.queued or upload.ending:
        draft.make_ready(stream.ref)


def pump(draft: Draft) -> None:
    """Hand out content, a frame of each stream in turn, while the windows and the output budget allow (§5.2)."""
    budget = draft.setup.settings.output_budget
    if not draft.ready or draft.unflushed >= budget:
        return
    frame = min(draft.peer.max_frame_size, MAX_FRAME)
    turn = deque(draft.ready)
    held: list[int] = []  # those that only the connection's window stops
    while turn and draft.unflushed < budget:
        ref = turn.popleft()
        stream = draft.own(draft.streams[ref >> LEAF][ref])  # `ready` names live streams only
        upload = stream.upload
        assert upload is not None  # … whose content waits
        if upload.queued:
            room = min(frame, stream.send_window + draft.peer.initial_window, draft.send_window)
            if room <= 0:
                upload.shut_at = draft.now
                if draft.send_window <= 0 < stream.send_window + draft.peer.initial_window:
                    held.append(ref)
                continue  # its own window is shut: a WINDOW_UPDATE makes it ready again
            piece = upload.take(room, draft.now)
            stream.send_window -= len(piece)
            draft.send_window -= len(piece)
            draft.unflushed += len(piece)
        else:
            piece = b""
        if upload.queued:
            turn.append(ref)
        send_piece(draft, stream, upload, piece)
    draft.ready = (*held, *turn)


def send_piece(draft: Draft, stream: Exchange, upload: Upload, piece: bytes) -> None:
    """One DATA frame, or what ends the content: END_STREAM needs no window, and trailers are a field block (§6.1, §8.1)."""
    done = upload.ending and not upload.queued
    ends = done and not upload.trailers
    if piece or ends:
        flags = frames.END_STREAM if ends else 0
        draft.out.append(frames.encode_header(len(piece), frames.DATA, flags, stream.ref))
        draft.out.append(piece)
    if done and upload.trailers:
        draft.encoder, block = hpack.encode(draft.encoder, upload.trailers)
        draft.out.append(frames.encode_head(stream.ref, block, True, draft.peer.max_frame_size))
    if done:
        stream.state = GRID[stream.state * COLUMNS + SEND_END]
        stream.sent_at = draft.now
    elif piece and not upload.queued:
        draft.events.append(WindowOpened(stream.ref))


def receive(conn: HTTP2Connection, data: bytes, now: float) -> Step:
    """Takes what arrived. Never raises for what the peer did: a stream error ends one request, a connection error all (§5.4)."""
    if conn.status == CLOSED:
        return conn, b"", []
    draft = Draft(conn, now)
    try:
        recv_bytes(draft, data)
    except ConnectionFault as fault:
        draft.terminate(fault.code, fault.reason)
        return draft.finish()
    if draft.frames != conn.frames:
        draft.heard_at = draft.now
        if draft.control.unconfirmed:  # any frame shows life
            draft.own_control().unconfirmed = {}
    if draft.send_window > 0:  # else nothing that waits can go: an end without content has gone when it was given
        pump(draft)
    return draft.finish()


def consume(conn: HTTP2Connection, ref: int, size: int, now: float) -> Step:
    """The reader took `size` bytes of content: window credit, at half a window (§6.9). A no-op when the request is over."""
    leaf = conn.streams.get(ref >> LEAF)
    if leaf is None or ref not in leaf:
        return conn, b"", []
    stream = leaf[ref]
    if not 0 <= size <= stream.unread:
        raise LocalProtocolError(f"{size} bytes consumed of request {ref}, {stream.unread} were unread")
    draft = Draft(conn, now)
    stream = draft.own(stream)
    stream.unread -= size
    stream.credit += size
    stream.reader_at = draft.now
    draft.give_credit(stream)
    return draft.finish()


def cancel(conn: HTTP2Connection, ref: int, now: float) -> Step:
    """The caller wants no more of it: the stream is reset and its slot is free (§5.4.2). A no-op when the request is over."""
    stream = find_stream(conn.streams, ref)
    if stream is None:
        return conn, b"", []
    draft = Draft(conn, now)
    draft.reset(stream, CANCEL)
    failure = Failure("StreamClosed", -1, f"{stream.method} {stream.target}: cancelled by its caller", ref)
    draft.events.append(RequestFailed(ref, failure))
    return draft.finish()


def flush(conn: HTTP2Connection, now: float) -> Step:
    """All that was handed out is in the kernel: what is next?"""
    if not conn.unflushed and not conn.ready:
        return conn, b"", []
    draft = Draft(conn, now)
    draft.unflushed = 0
    pump(draft)
    return draft.finish()


def next_timeout(conn: HTTP2Connection) -> float:
    """When `handle_timeout` has to be called; never too late. INFINITY for never."""
    return conn.wake


def handle_timeout(conn: HTTP2Connection, now: float) -> Step:
    """Ends the requests whose clock has run out, sends the resets that waited, condemns a peer that answers no PING."""
    if max(now, conn.now) < conn.wake or conn.status == CLOSED:
        return conn, b"", []
    draft = Draft(conn, now)
    draft.wake = INFINITY
    control = draft.control
    if control.ping_at > NEVER:
        if control.ping_at + PING_LIMIT <= draft.now:
            waited = f"no answer to a PING for {draft.now - control.ping_at:.2f} s (allowed are {PING_LIMIT:g})"
            draft.end(Failure("ReadTimeout", -1, f"the peer is gone: {waited}"), 0)
            return draft.finish()
        draft.wake = control.ping_at + PING_LIMIT
    for stream in all_streams(draft.streams):
        due = stream.due()
        if due <= draft.now:
            failure = stream.overdue(draft.now)
            draft.reset(stream, CANCEL)
            draft.events.append(RequestFailed(stream.ref, failure))
        elif due < draft.wake:
            draft.wake = due
    if draft.control.unsent:
        draft.pace_resets()
    return draft.finish()


def close(conn: HTTP2Connection, now: float) -> Step:
    """We end it: GOAWAY, and whatever runs fails (§6.8). A no-op when it is closed."""
    if conn.status == CLOSED:
        return conn, b"", []
    draft = Draft(conn, now)
    draft.out.append(frames.encode_goaway(0, NO_ERROR, b""))
    draft.end(Failure("StreamClosed", -1, "the connection was closed by this side"), 0)
    return draft.finish()


def closed(
    conn: HTTP2Connection, now: float, unsent: int = 0, clean: bool = False, reason: str = ""
) -> tuple[HTTP2Connection, list[Event]]:
    """The transport ended and the last `unsent` bytes of the output never left: whatever runs fails."""
    if conn.status == CLOSED:
        return conn, []
    draft = Draft(conn, now)
    failure = None
    if conn.live:
        what = "the peer closed the connection" if clean else "the connection broke"
        detail = f" ({reason})" if reason else ""
        failure = Failure("ReadError", -1, f"{what} before the response was complete{detail}")
    draft.end(failure, unsent)
    next_conn, _, events = draft.finish()
    return next_conn, events


def snapshot(conn: HTTP2Connection, now: float) -> Snapshot:
    """The connection at this moment."""
    initial = conn.peer.initial_window
    requests = [
        snap_request(item, now, item.send_window + initial, item.recv_window) for item in all_streams(conn.streams)
    ]
    control = conn.control
    return Snapshot(
        "HTTP/2",
        f"{conn.setup.origin.scheme}://{conn.setup.origin.authority()}",
        STATUS_NAMES[conn.status],
        tuple(requests),
        tuple(control.unsent),
        tuple(control.unconfirmed),
        conn.peer.limit,
        capacity(conn),
        now - conn.heard_at,
        None if control.ping_at == NEVER else now - control.ping_at,
        conn.send_window,
        conn.recv_window,
        conn.unflushed,
        conn.written,
    )
