"""RFC 9112: the verbs of an HTTP/1.1 connection. Each makes a draft, writes it, and finishes it."""

from calamint.core import http1_parse
from calamint.core.errors import AtCapacity, ConnectionFault, LocalProtocolError
from calamint.core.events import Event
from calamint.core.exchange import (
    CLOCKS,
    CONNECTING,
    EXPECTING,
    LOCAL_AWAITING,
    LOCAL_RECEIVING,
    OPEN_AWAITING,
    REFUSED,
    TUNNEL,
    TUNNEL_LOCAL,
    Clocks,
    Exchange,
    Settings,
    Upload,
)
from calamint.core.fields import check_trailers
from calamint.core.http1_receive import recv_bytes, recv_end
from calamint.core.http1_state import (
    CHUNK_DATA,
    CLOSED,
    FIELD_LINES,
    IDEMPOTENT,
    OPEN,
    SIZED,
    STATUS_LINE,
    STATUS_NAMES,
    UNTIL_CLOSE,
    Draft,
    HTTP1Connection,
    Setup,
    Step,
)
from calamint.core.snapshot import Snapshot, snap_request
from calamint.core.url import Origin
from calamint.core.value import INFINITY, NEVER, Fields


def connect(origin: Origin, settings: Settings, now: float) -> tuple[HTTP1Connection, bytes]:
    """A new connection; nothing goes before its first request."""
    setup = Setup(origin, settings)
    conn = HTTP1Connection(
        setup, OPEN, (), 1, 0, 0, STATUS_LINE, 0, 0, b"", 0, 0, (0, NEVER, False), now, NEVER, INFINITY
    )
    return conn, b""


def capacity(conn: HTTP1Connection) -> int:
    """How many more requests may be sent now: as many as settings let be outstanding (§9.3.2), but none after one that is
    not idempotent, whose content is not complete, or that the connection ends with."""
    if is_draining(conn) or conn.upgrade_ref:
        return 0
    if conn.requests:
        last = conn.requests[-1]
        if last.method not in IDEMPOTENT or (last.state != LOCAL_AWAITING and last.state != LOCAL_RECEIVING):
            return 0
    return max(0, conn.setup.settings.pipeline - len(conn.requests))


def is_draining(conn: HTTP1Connection) -> bool:
    """Whether it will never take a new request again."""
    return conn.status != OPEN or conn.last_ref > 0


def wants_shutdown(conn: HTTP1Connection) -> bool:
    """Whether nothing follows what was handed out: our end of a tunnel is the end of our half of the connection."""
    return len(conn.requests) == 1 and conn.requests[0].state == TUNNEL_LOCAL


def wants_read(conn: HTTP1Connection) -> bool:
    """Whether a driver should read now: HTTP/1.1 has no other brake than not to, once a window of content waits unread."""
    return not conn.requests or conn.requests[0].unread < conn.setup.settings.stream_window


def find(conn: HTTP1Connection, ref: int) -> Exchange | None:
    """The outstanding request with this ordinal, or None."""
    for record in conn.requests:
        if record.ref == ref:
            return record
    return None


def request(
    conn: HTTP1Connection,
    method: str,
    target: str,
    fields: Fields,
    content: bytes | None,
    now: float,
    end: bool = True,
    deadline: float = INFINITY,
    clocks: Clocks = CLOCKS,
) -> tuple[HTTP1Connection, bytes, int]:
    """Sends a request's head, and its content as the output budget allows (§3, §6). See `verbs.request`."""
    if (conn.requests or conn.status != OPEN or conn.last_ref) and not capacity(conn):
        refuse(conn)
    size = -1 if content is None else len(content)
    head, length, around = http1_parse.encode_request(method, target, conn.setup.host, fields, size, end)
    if length < 0 and not conn.setup.chunks:
        # "MUST NOT send a request containing Transfer-Encoding unless it knows the server will handle HTTP/1.1" (§6.1)
        raise LocalProtocolError(
            "the peer speaks HTTP/1.0, which has no chunks: declare a content-length (RFC 9112 §6.1)"
        )
    draft = Draft(conn, now)
    ref = draft.next_ref
    draft.next_ref = ref + 1
    draft.out.append(head)
    if around.closes:
        draft.last_ref = ref
    if around.upgrades:
        draft.upgrade_ref = ref
    offset = draft.written + len(head)
    record = Exchange(
        ref, method, target, LOCAL_AWAITING, clocks, deadline, offset, None, -1, 0, 0, 0, draft.now, draft.now
    )
    record.owner = draft.owner
    draft.requests = (*draft.requests, record)
    wake = draft.now + clocks.shortest
    if deadline < wake:
        wake = deadline
    if wake < draft.wake:
        draft.wake = wake
    if method == "CONNECT":
        record.state = CONNECTING
        record.upload = Upload(ending=end)
    elif content or length or not end:
        record.state = OPEN_AWAITING
        record.sent_at = NEVER
        if around.expects:
            record.state = EXPECTING
            draft.wake = min(draft.wake, draft.now + clocks.expect)
        upload = Upload(left=length)
        record.upload = upload
        if content or end:
            give(record, upload, content or b"", draft.now, end, ())
        draft.pump(record, upload)
    next_conn, data, _ = draft.finish()
    return next_conn, data, ref


def refuse(conn: HTTP1Connection) -> None:
    """Raises what tells a caller why there is no slot."""
    if conn.status != OPEN:
        raise LocalProtocolError(f"the connection is {STATUS_NAMES[conn.status]}: it takes no new requests")
    outstanding = f"request {conn.requests[-1].ref} is outstanding" if conn.requests else "its last request is over"
    allowed = conn.setup.settings.pipeline
    raise AtCapacity(f"no slot is free: {outstanding}, {allowed} allowed at once, if they are idempotent and complete")


def send_data(
    conn: HTTP1Connection, ref: int, data: bytes, now: float, end: bool = False, trailers: Fields = ()
) -> tuple[HTTP1Connection, bytes]:
    """More of a request's content. See `verbs.send_data`."""
    record = find(conn, ref)
    if record is None:
        raise LocalProtocolError(f"request {ref} is over: its content is not wanted any more")
    draft = Draft(conn, now)
    record = draft.own(record)
    upload = record.upload
    if upload is None or upload.ending:
        raise LocalProtocolError(f"the content of request {ref} has been ended")
    give(record, upload, data, draft.now, end, trailers)
    record.reader_at = draft.now
    draft.pump(record, upload)
    next_conn, out, _ = draft.finish()
    return next_conn, out


def give(record: Exchange, upload: Upload, data: bytes, now: float, end: bool, trailers: Fields) -> None:
    """Content, and perhaps its end, that now waits in the record. Raises if it breaks the declared length."""
    if upload.left >= 0:
        if len(data) > upload.left or (len(data) < upload.left and (end or trailers)):
            raise LocalProtocolError(f"{len(data)} bytes where its content-length leaves {upload.left} (RFC 9110 §8.6)")
        upload.left -= len(data)
    if trailers:
        if upload.left >= 0 or record.method == "CONNECT" or record.state == TUNNEL:
            raise LocalProtocolError("there is no place for trailers where content is not chunked (RFC 9112 §7.1.2)")
        check_trailers(trailers)
        upload.trailers = trailers
    upload.add(data, now)
    upload.ending = end or bool(trailers)
    if record.state == REFUSED:
        upload.drop()


def receive(conn: HTTP1Connection, data: bytes, now: float) -> Step:
    """Takes what arrived. Never raises for what the peer did: what breaks HTTP ends the request and the connection."""
    if conn.status == CLOSED or not data:
        return conn, b"", []
    draft = Draft(conn, now)
    draft.heard_at = draft.now
    try:
        recv_bytes(draft, data)
    except ConnectionFault as broken:
        draft.fail("RemoteProtocolError", broken.reason, draft.written)
    return draft.finish()


def consume(conn: HTTP1Connection, ref: int, size: int, now: float) -> Step:
    """The reader took `size` bytes of content: see `wants_read`. A no-op when the request is over."""
    record = find(conn, ref)
    if record is None:
        return conn, b"", []
    if not 0 <= size <= record.unread:
        raise LocalProtocolError(f"{size} bytes consumed of request {ref}, {record.unread} were unread")
    draft = Draft(conn, now)
    record = draft.own(record)
    held = record.is_held()
    record.unread -= size
    record.reader_at = draft.now
    record.resume(held, draft.now)
    return draft.finish()


def cancel(conn: HTTP1Connection, ref: int, now: float) -> Step:
    """The caller wants no more of it: the connection closes. A no-op when the request is over."""
    record = find(conn, ref)
    if record is None:
        return conn, b"", []
    draft = Draft(conn, now)
    draft.fail("StreamClosed", f"{record.method} {record.target}: cancelled by its caller", draft.written, ref)
    return draft.finish()


def flush(conn: HTTP1Connection, now: float, unsent: int = 0) -> Step:
    """All that was handed out, but for the last `unsent` bytes, is in the kernel: what is next?"""
    if not conn.unflushed:  # and then nothing waits
        return conn, b"", []
    draft = Draft(conn, now)
    flushed = conn.written - unsent
    before, at, _ = conn.flushed
    draft.flushed = (max(flushed, before), draft.now if flushed > before else at, unsent > 0)
    if flushed > before:
        draft.unflushed = min(draft.unflushed, unsent)
    for record in draft.requests:
        upload = record.upload
        if (upload is not None and (upload.queued or upload.end > before)) or record.head_offset > before:
            owned = draft.own(record)
            if owned.upload is not None and owned.upload.queued:
                draft.pump(owned, owned.upload)
            elif owned.sent_at > NEVER:  # its end had not left until now: its `head` begins here
                owned.sent_at = draft.now
    return draft.finish()


def next_timeout(conn: HTTP1Connection) -> float:
    """When `handle_timeout` has to be called; never too late. INFINITY for never."""
    return conn.wake


def handle_timeout(conn: HTTP1Connection, now: float) -> Step:
    """Ends the request whose clock has run out, and the connection with it."""
    if max(now, conn.now) < conn.wake or conn.status == CLOSED:
        return conn, b"", []
    draft = Draft(conn, now)
    draft.wake = INFINITY
    for place, record in enumerate(draft.requests):
        due, clock = record.running_clock(draft.flushed)
        if place and clock != "write":  # its turn has not come
            due, clock = record.deadline, "total"
        if due <= draft.now and clock == "expect":
            record = draft.own(record)
            record.state = OPEN_AWAITING
            draft.release(record)
            due, clock = record.running_clock(draft.flushed)
        if due > draft.now:
            draft.wake = min(draft.wake, due)
        else:
            failure = record.overdue(draft.now, draft.flushed)
            draft.fail(failure.kind, failure.message, draft.written, record.ref, failure.clock)
            break
    return draft.finish()


def close(conn: HTTP1Connection, now: float) -> Step:
    """We end it, and whatever runs fails. A no-op when it is closed."""
    if conn.status == CLOSED:
        return conn, b"", []
    draft = Draft(conn, now)
    draft.fail("StreamClosed", "the connection was closed by this side", draft.written)
    return draft.finish()


def closed(
    conn: HTTP1Connection, now: float, unsent: int = 0, clean: bool = False, reason: str = ""
) -> tuple[HTTP1Connection, list[Event]]:
    """The transport ended and the last `unsent` bytes of the output never left: whatever runs fails, but for a response
    that only this ends, if the end was orderly (§8)."""
    if conn.status == CLOSED:
        return conn, []
    draft = Draft(conn, now)
    if clean and conn.reading == UNTIL_CLOSE:
        recv_end(draft, conn.requests[0], unsent)
    elif conn.requests:
        how = "the peer closed the connection" if clean else "the connection broke"
        detail = f"; {reason}" if reason else ""
        draft.fail("ReadError", f"{how} {missing(conn)} (RFC 9112 §8{detail})", conn.written - unsent)
    else:
        draft.end(None)
    next_conn, _, happened = draft.finish()
    return next_conn, happened


def missing(conn: HTTP1Connection) -> str:
    """What a response lacks that the end of the connection left incomplete (§8)."""
    reading = conn.reading
    if reading == SIZED:
        return f"{conn.requests[0].expected} bytes short of its content-length"
    if reading == CHUNK_DATA:
        return f"{conn.left} bytes short of a chunk, and before the last one"
    if reading == UNTIL_CLOSE:
        return "within content that only an orderly end completes"
    if reading != STATUS_LINE and reading != FIELD_LINES:
        return "before the end of the last chunk and its trailers"
    return "within the head of the response" if conn.buffer else "before the response came"


def snapshot(conn: HTTP1Connection, now: float) -> Snapshot:
    """The connection at this moment."""
    origin = f"{conn.setup.origin.scheme}://{conn.setup.origin.authority()}"
    status = STATUS_NAMES[conn.status]
    requests = tuple([snap_request(record, now, None, None, conn.flushed) for record in conn.requests])
    silence = now - conn.heard_at
    free = capacity(conn)
    sent = conn.written
    limit = conn.setup.settings.pipeline
    return Snapshot(
        "HTTP/1.1", origin, status, requests, (), (), limit, free, silence, None, None, None, conn.unflushed, sent
    )
