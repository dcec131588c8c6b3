"""RFC 9113: the verbs of an HTTP/2 connection. Each makes a draft, writes it, and finishes it."""

from typing import Final

from calamint.core import frames, hpack
from calamint.core.errors import CANCEL, NO_ERROR, AtCapacity, ConnectionFault, Failure, LocalProtocolError
from calamint.core.events import Event, RequestFailed
from calamint.core.exchange import (
    CLOCKS,
    EXPECTING,
    IDLE,
    Clocks,
    Exchange,
    Settings,
    Upload,
    laxer,
)
from calamint.core.fields import expects_continue, find_length
from calamint.core.flow import DEFAULT_WINDOW, overflows
from calamint.core.hpack import DecoderTable, EncoderTable
from calamint.core.http2_receive import recv_bytes
from calamint.core.http2_send import encode_connect, encode_request, give, pump
from calamint.core.http2_settings import DEFAULTS, announce
from calamint.core.http2_state import (
    CLOSED,
    LAST_REF,
    OPEN,
    PING_AGAIN,
    PING_LIMIT,
    STATUS_NAMES,
    Control,
    Draft,
    HTTP2Connection,
    Peer,
    Setup,
)
from calamint.core.snapshot import Snapshot, snap_request
from calamint.core.streams import (
    COLUMNS,
    GRID,
    LEAF,
    RECV_CONTINUE,
    SEND_CONNECT,
    SEND_END,
    SEND_EXPECT,
    SEND_HEAD,
    all_streams,
    find_stream,
)
from calamint.core.url import Origin
from calamint.core.value import INFINITY, NEVER, Fields

OPENED: Final = GRID[IDLE * COLUMNS + SEND_HEAD]
OPENED_AND_ENDED: Final = GRID[OPENED * COLUMNS + SEND_END]

Step = tuple[HTTP2Connection, bytes, list[Event]]


def connect(origin: Origin, settings: Settings, now: float) -> tuple[HTTP2Connection, bytes]:
    """A new connection, and its preface: SETTINGS and the connection's window (RFC 9113 §3.4)."""
    announced = announce(settings, DEFAULTS, [(frames.ENABLE_PUSH, int(settings.max_pushes > 0))])
    data = frames.PREFACE + frames.encode_settings((*announced, (frames.NO_RFC7540_PRIORITIES, 1)))
    if settings.connection_window > DEFAULT_WINDOW:
        data += frames.encode_window_update(0, settings.connection_window - DEFAULT_WINDOW)
    conn = HTTP2Connection(
        Setup(origin, settings),
        OPEN,
        Peer(False, min(settings.max_streams, settings.first_streams)),
        Control({}, {}, acknowledged=settings, pending=(settings,)),
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
        0.0,
        len(data),
        0,
        (0, NEVER, False),
        now,
        NEVER,
        INFINITY,
    )
    return conn, data


def capacity(conn: HTTP2Connection) -> int:
    """How many more requests may be sent now: the limit (§5.1.2) less the slots in use, the sum of three lengths."""
    if is_draining(conn):
        return 0
    return max(0, min(conn.peer.limit - taken(conn), (LAST_REF - conn.next_ref) // 2 + 1))


def taken(conn: HTTP2Connection) -> int:
    """Slots in use: streams that we opened and that are somewhere."""
    control = conn.control
    return conn.live - len(control.pushes) + len(control.unsent) + len(control.unconfirmed)


def is_draining(conn: HTTP2Connection) -> bool:
    """Whether it will never take a new request again: GOAWAY, or every stream id is used up (§5.1.1)."""
    return conn.status != OPEN or conn.next_ref > LAST_REF


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
    protocol: str = "",
) -> tuple[HTTP2Connection, bytes, int]:
    """Sends a request's head, and its content as windows allow (§8.1). See `verbs.request`."""
    if taken(conn) >= conn.peer.limit or conn.status != OPEN or conn.next_ref > LAST_REF:
        refuse(conn)
    draft = Draft(conn, now)
    ref = draft.next_ref
    done = end and not content
    state = OPENED_AND_ENDED if done else OPENED
    if method == "CONNECT" or protocol:
        block = encode_connect(draft, method, target, fields, content, protocol)
        state = GRID[IDLE * COLUMNS + SEND_CONNECT]
        done = False
    else:
        block = encode_request(draft, method, target, fields, content, end)
        if not done and expects_continue(fields):
            state = GRID[IDLE * COLUMNS + SEND_EXPECT]
    head = frames.encode_head(ref, block, done, draft.peer.max_frame_size)
    draft.out.append(head)
    offset = draft.written + len(head)
    upload = None if done else Upload(left=find_length(fields))
    sent_at = NEVER if state == OPENED or state == EXPECTING else draft.now
    stream = Exchange(ref, method, target, state, clocks, deadline, offset, upload, -1, 0, 0, 0, draft.now, sent_at)
    stream.recv_window = draft.setup.settings.stream_window
    stream.mark = draft.frames
    stream.owner = draft.owner
    draft.next_ref = ref + 2
    draft.put(ref, stream)
    keepalive = draft.setup.keepalive
    wake = draft.now + (clocks.shortest if clocks.shortest < keepalive else keepalive)
    draft.wake = min(draft.wake, wake, deadline)
    if not done:
        if state == EXPECTING:
            draft.wake = min(draft.wake, draft.now + clocks.expect)
        if content or (end and state != OPENED):
            give(draft, stream, content or b"", end, ())
        pump(draft)
    next_conn, data, _ = draft.finish()
    return next_conn, data, ref


def refuse(conn: HTTP2Connection) -> None:
    """Raises what tells a caller why there is no slot."""
    if conn.status != OPEN:
        raise LocalProtocolError(f"the connection is {STATUS_NAMES[conn.status]}: it takes no new requests")
    if conn.next_ref > LAST_REF:
        raise LocalProtocolError("every stream id of the connection has been used (RFC 9113 §5.1.1)")
    live = conn.live - len(conn.control.pushes)
    used = f"{live} live, {len(conn.control.unsent)} unsent, {len(conn.control.unconfirmed)} unconfirmed"
    raise AtCapacity(f"no slot is free: {conn.peer.limit} allowed, {used}")


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
    if draft.frames != conn.frames or conn.partial is not None:
        draft.regain()
    if draft.frames != conn.frames:
        if draft.control.unconfirmed:  # any frame shows life
            draft.own_control().unconfirmed = {}
        quiet = draft.control.quiet
        if quiet >= 0 and quiet != draft.frames:  # the silence is broken: the next keepalive comes sooner
            draft.own_control().quiet = -1
            draft.wake = min(draft.wake, draft.now + draft.setup.settings.keepalive)
    if draft.send_window > 0 or draft.ready != conn.ready:  # else nothing that waits can go
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
    held = stream.is_held()
    stream.unread -= size
    stream.credit += size
    stream.reader_at = draft.now
    draft.give_credit(stream)
    stream.resume(held, draft.now)
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


def flush(conn: HTTP2Connection, now: float, unsent: int = 0) -> Step:
    """All that was handed out, but for the last `unsent` bytes, is in the kernel: what is next?"""
    if not conn.unflushed and not conn.ready:
        return conn, b"", []
    draft = Draft(conn, now)
    flushed = conn.written - unsent
    before, at, held = conn.flushed
    draft.flushed = (max(flushed, before), draft.now if flushed > before else at, unsent > 0)
    if flushed > before:
        draft.unflushed = min(draft.unflushed, unsent)
    if unsent or held:  # whose end had not left was not sent until now: its `head` begins here
        for stream in all_streams(draft.streams):
            end = stream.head_offset if stream.upload is None else max(stream.head_offset, stream.upload.end)
            if stream.sent_at > NEVER and end > before:
                draft.own(stream).sent_at = draft.now
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
        # Bytes that come show life, and what waits in our own output has not been asked yet.
        asked_at = max(control.ping_at, draft.heard_at, draft.flushed[1])
        if asked_at + PING_LIMIT <= draft.now:
            waited = f"no answer to a PING for {draft.now - control.ping_at:.2f} s (allowed are {PING_LIMIT:g})"
            draft.end(Failure("ReadTimeout", -1, f"the peer is gone: {waited}", 0, False, -1, "ping"), 0)
            return draft.finish()
        draft.wake = asked_at + PING_LIMIT
    for stream in all_streams(draft.streams):
        due, clock = stream.running_clock(draft.flushed)
        if due <= draft.now and clock == "expect":
            stream = draft.own(stream)
            stream.state = GRID[stream.state * COLUMNS + RECV_CONTINUE]
            draft.release(stream)
            due, clock = stream.running_clock(draft.flushed)
        if due > draft.now:
            draft.wake = min(draft.wake, due)
        else:
            draft.reset(stream, CANCEL)
            draft.events.append(RequestFailed(stream.ref, stream.overdue(draft.now, draft.flushed)))
    if draft.control.unsent:
        draft.pace_resets()
    keep_alive(draft)
    pump(draft)
    return draft.finish()


def keep_alive(draft: Draft) -> None:
    """A PING after some silence while requests wait, and within one silence not soon another (§6.7)."""
    interval = draft.setup.settings.keepalive
    if not draft.live or interval == INFINITY:
        return
    if draft.control.quiet >= 0:
        due = draft.control.kept_at + max(interval, PING_AGAIN)
    else:
        due = max(draft.heard_at, all_streams(draft.streams)[0].opened_at) + interval
    if due <= draft.now:
        draft.ping()
        control = draft.own_control()
        control.kept_at = draft.now
        control.quiet = draft.frames
        due = draft.now + max(interval, PING_AGAIN)
    draft.wake = min(draft.wake, due)


def ping(conn: HTTP2Connection, now: float) -> tuple[HTTP2Connection, bytes]:
    """A PING (§6.7), unless one is in flight. See `verbs.ping`."""
    if conn.status == CLOSED:
        return conn, b""
    draft = Draft(conn, now)
    draft.ping()
    next_conn, data, _ = draft.finish()
    return next_conn, data


def put_settings(conn: HTTP2Connection, settings: Settings, now: float) -> tuple[HTTP2Connection, bytes]:
    """New settings of ours, announced where they differ (§6.5); until they are acknowledged the laxer ones are enforced."""
    if conn.status == CLOSED:
        return conn, b""
    draft = Draft(conn, now)
    control = draft.own_control()
    known = control.pending[-1] if control.pending else control.acknowledged
    if bool(settings.max_pushes) != bool(known.max_pushes):
        raise LocalProtocolError("whether the peer may push is said at the beginning of a connection")
    pairs = announce(settings, known, [])
    if pairs:
        draft.out.append(frames.encode_settings(pairs))
        control.pending = (*control.pending, settings)
    elif control.pending:
        control.pending = (*control.pending[:-1], settings)
    else:
        control.acknowledged = settings
    before = draft.setup.settings
    for stream in all_streams(draft.streams):
        if overflows(stream.recv_window, settings.stream_window - before.stream_window):
            raise LocalProtocolError(
                f"stream_window={settings.stream_window} lifts stream {stream.ref} above 2^31-1 (§6.9.2)"
            )
    if settings.max_streams != before.max_streams and draft.peer.known:
        draft.peer = draft.peer.replace(limit=min(draft.peer.offered, settings.max_streams))
    draft.enforce(laxer(before, settings) if control.pending else settings)
    if draft.setup.settings.header_table_size > draft.decoder.limit:
        draft.decoder = hpack.allow(draft.decoder, settings.header_table_size)
    growth = settings.connection_window - draft.recv_window
    if settings.connection_window > before.connection_window and growth > 0:  # at once; it shrinks as it is used
        draft.out.append(frames.encode_window_update(0, growth))
        draft.recv_window += growth
    draft.wake = min(draft.wake, draft.now + settings.keepalive)
    next_conn, data, _ = draft.finish()
    return next_conn, data


def grow_window(conn: HTTP2Connection, ref: int, size: int, now: float) -> tuple[HTTP2Connection, bytes]:
    """The stream may send `size` bytes ahead of its reader from now on (§6.9). See `verbs.grow_window`."""
    stream = find_stream(conn.streams, ref)
    if not 0 <= size <= LAST_REF:
        raise LocalProtocolError(f"a window of {size} bytes: allowed are 0 to 2^31-1 (§6.9.1)")
    pending = conn.control.pending
    lost = max(0, conn.setup.settings.stream_window - pending[-1].stream_window) if pending else 0  # with the next ACK
    if stream is None or stream.recv_window + stream.unread + stream.credit - lost >= size:
        return conn, b""
    draft = Draft(conn, now)
    stream = draft.own(stream)
    growth = min(size + lost - stream.recv_window - stream.unread - stream.credit, LAST_REF - stream.recv_window)
    held = stream.is_held()
    stream.recv_window += growth
    stream.resume(held, draft.now)
    draft.out.append(frames.encode_window_update(ref, growth))
    next_conn, data, _ = draft.finish()
    return next_conn, data


def prioritize(
    conn: HTTP2Connection, ref: int, urgency: int, incremental: bool, now: float
) -> tuple[HTTP2Connection, bytes]:
    """PRIORITY_UPDATE for a request (RFC 9218 §7.1). See `verbs.prioritize`."""
    if find_stream(conn.streams, ref) is None:
        return conn, b""
    draft = Draft(conn, now)
    draft.out.append(frames.encode_priority_update(ref, b"u=%d, i" % urgency if incremental else b"u=%d" % urgency))
    next_conn, data, _ = draft.finish()
    return next_conn, data


def close(conn: HTTP2Connection, now: float) -> Step:
    """We end it: GOAWAY, and whatever runs fails (§6.8). A no-op when it is closed."""
    if conn.status == CLOSED:
        return conn, b"", []
    draft = Draft(conn, now)
    draft.out.append(frames.encode_goaway(draft.control.last_push, NO_ERROR, b""))
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
        snap_request(item, now, item.send_window + initial, item.recv_window, conn.flushed)
        for item in all_streams(conn.streams)
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
