"""RFC 9112: HTTP1Connection, the value; Draft, the one place where a verb writes; and the verbs of HTTP/1.1.

Requests are answered in their order (§9.3.2), so their records stand in a tuple and what arrives is about the first; one
at a time is let in so far. Whatever ends a request early ends the connection: nothing else tells the peer to stop.
"""

from typing import ClassVar, Final, final

from calamint.core import events, http1_parse
from calamint.core.errors import AtCapacity, ConnectionFault, Failure, LocalProtocolError
from calamint.core.exchange import (
    CLOCKS,
    LOCAL_AWAITING,
    LOCAL_RECEIVING,
    OPEN_AWAITING,
    OPEN_RECEIVING,
    Clocks,
    Exchange,
    Settings,
    Upload,
)
from calamint.core.fields import check_trailers
from calamint.core.http1_parse import CRLF, fault
from calamint.core.snapshot import Snapshot, snap_request
from calamint.core.url import Origin
from calamint.core.value import INFINITY, NEVER, Fields, Value

# The status of a connection, by the numbers of HTTP/2.
OPEN: Final = 0
CLOSED: Final = 2
STATUS_NAMES: Final = ("open", "draining", "closed")

# What the next byte belongs to. What has been read of a head or of trailers ends with the empty line.
STATUS_LINE: Final = 0
FIELD_LINES: Final = 1
SIZED: Final = 2
CHUNK_SIZE: Final = 3
CHUNK_DATA: Final = 4
CHUNK_END: Final = 5
TRAILERS: Final = 6
UNTIL_CLOSE: Final = 7

EMPTY_LINE: Final = b"\r\n\r\n"
INTERIM_LIMIT: Final = 16  # interim responses to one request
CHUNK_LINE: Final = http1_parse.CHUNK_LIMIT + len(CRLF)
MAX_PIECE: Final = 65_536  # we send no larger chunk
# What a connection consists of, and its draft.
PARTS: Final = (
    "setup", "status", "requests", "next_ref", "last_ref", "reading", "left", "interims", "buffer", "written", "unflushed",
    "now", "heard_at", "wake",
)  # fmt: skip


@final
class Setup(Value):
    """What does not change in a connection's life."""

    __slots__ = ("origin", "settings", "host")
    __match_args__: ClassVar[tuple[str, ...]] = ("origin", "settings")

    def __init__(self, origin: Origin, settings: Settings) -> None:
        self.origin: Final = origin
        self.settings: Final = settings
        self.host: Final = origin.authority().encode("ascii")


@final
class HTTP1Connection(Value):
    """An HTTP/1.1 connection: never changed, so it can be kept, compared, pickled and forked."""

    __slots__ = PARTS
    __match_args__: ClassVar[tuple[str, ...]] = PARTS

    def __init__(
        self,
        setup: Setup,
        status: int,
        requests: tuple[Exchange, ...],
        next_ref: int,
        last_ref: int,
        reading: int,
        left: int,
        interims: int,
        buffer: bytes,
        written: int,
        unflushed: int,
        now: float,
        heard_at: float,
        wake: float,
    ) -> None:
        self.setup: Final = setup
        self.status: Final = status
        self.requests: Final = requests  # outstanding, in the order in which they were sent
        self.next_ref: Final = next_ref
        self.last_ref: Final = last_ref  # the connection ends with the response to this request; 0 for none
        self.reading: Final = reading
        self.left: Final = left  # bytes still to come of a chunk
        self.interims: Final = interims  # interim responses to the first request
        self.buffer: Final = buffer  # the beginning of a head, a trailer section or a line; its end is not in it
        self.written: Final = written  # bytes handed out
        self.unflushed: Final = unflushed  # bytes of content among them that are not in the kernel yet
        self.now: Final = now
        self.heard_at: Final = heard_at  # a byte last came, or NEVER
        self.wake: Final = wake  # no clock runs out before this


Step = tuple[HTTP1Connection, bytes, list[events.Event]]


@final
class Draft:
    """One verb's working copy: made by the verb, finished by it, never seen outside."""

    __slots__ = ("owner", "out", "events", *PARTS)

    def __init__(self, conn: HTTP1Connection, now: float) -> None:
        self.owner: object = object()
        self.out: list[bytes] = []
        self.events: list[events.Event] = []
        self.setup: Setup = conn.setup
        self.status: int = conn.status
        self.requests: tuple[Exchange, ...] = conn.requests
        self.next_ref: int = conn.next_ref
        self.last_ref: int = conn.last_ref
        self.reading: int = conn.reading
        self.left: int = conn.left
        self.interims: int = conn.interims
        self.buffer: bytes = conn.buffer
        self.written: int = conn.written
        self.unflushed: int = conn.unflushed
        self.now: float = now if now > conn.now else conn.now
        self.heard_at: float = conn.heard_at
        self.wake: float = conn.wake

    def finish(self) -> Step:
        """The next value, the bytes to write, and what happened."""
        data = b"".join(self.out)
        conn = HTTP1Connection(
            self.setup,
            self.status,
            self.requests,
            self.next_ref,
            self.last_ref,
            self.reading,
            self.left,
            self.interims,
            self.buffer,
            self.written + len(data),
            self.unflushed,
            self.now,
            self.heard_at,
            self.wake,
        )
        return conn, data, self.events

    def own(self, record: Exchange) -> Exchange:
        """The request's record, to be written by this draft: copied once."""
        if record.owner is self.owner:
            return record
        twin = record.copy(self.owner)
        self.requests = tuple([twin if item is record else item for item in self.requests])
        wake = self.now + record.clocks.shortest  # whatever happens to it now, no clock of its own runs out before
        if wake < self.wake:
            self.wake = wake
        return twin

    def fail(self, kind: str, message: str, sent: int) -> None:
        """The connection ends and every request fails; those whose head ends after `sent` in the output never left."""
        for record in self.requests:
            failure = Failure(kind, -1, message, record.ref, record.head_offset > sent)
            self.events.append(events.RequestFailed(record.ref, failure))
        self.end(Failure(kind, -1, message))

    def end(self, failure: Failure | None) -> None:
        """Nothing more can be sent or received, and nothing of what was is kept."""
        self.requests = ()
        self.status = CLOSED
        self.reading = STATUS_LINE
        self.left = 0
        self.interims = 0
        self.buffer = b""
        self.wake = INFINITY
        self.events.append(events.ConnectionClosed(failure))


def connect(origin: Origin, settings: Settings, now: float) -> tuple[HTTP1Connection, bytes]:
    """A new connection; nothing goes before its first request."""
    setup = Setup(origin, settings)
    return HTTP1Connection(setup, OPEN, (), 1, 0, STATUS_LINE, 0, 0, b"", 0, 0, now, NEVER, INFINITY), b""


def capacity(conn: HTTP1Connection) -> int:
    """How many more requests may be sent now: one, while none is outstanding."""
    return 0 if conn.status != OPEN or conn.requests else 1


def wants_read(conn: HTTP1Connection) -> bool:
    """Whether a driver should read now: HTTP/1.1 has no other brake than not to, once a window of content waits unread."""
    return not conn.requests or conn.requests[0].unread < conn.setup.settings.stream_window


def find(conn: HTTP1Connection, ref: int) -> Exchange | None:
    """The outstanding request with this ordinal, or None."""
    for record in conn.requests:
        if record.ref == ref:
            return record
    return None


# Sending


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
    if conn.status != OPEN:
        raise LocalProtocolError(f"the connection is {STATUS_NAMES[conn.status]}: it takes no new requests")
    if conn.requests:
        raise AtCapacity(f"no slot is free: request {conn.requests[0].ref} is outstanding, and one is allowed")
    size = -1 if content is None else len(content)
    head, length, closes = http1_parse.encode_request(method, target, conn.setup.host, fields, size, end)
    draft = Draft(conn, now)
    ref = draft.next_ref
    draft.next_ref = ref + 1
    draft.out.append(head)
    if closes:
        draft.last_ref = ref
    offset = draft.written + len(head)
    record = Exchange(
        ref, method, target, LOCAL_AWAITING, clocks, deadline, offset, None, -1, 0, 0, 0, draft.now, draft.now
    )
    record.owner = draft.owner
    draft.requests = (*draft.requests, record)
    draft.wake = min(draft.wake, deadline, draft.now + clocks.shortest)
    if content or length or not end:
        record.state = OPEN_AWAITING
        record.sent_at = NEVER
        upload = Upload(left=length)
        record.upload = upload
        if content or end:
            give(upload, content or b"", draft.now, end, ())
        pump(draft, record, upload)
    next_conn, data, _ = draft.finish()
    return next_conn, data, ref


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
    give(upload, data, draft.now, end, trailers)
    record.reader_at = draft.now
    pump(draft, record, upload)
    next_conn, out, _ = draft.finish()
    return next_conn, out


def give(upload: Upload, data: bytes, now: float, end: bool, trailers: Fields) -> None:
    """Content, and perhaps its end, that now waits in the record. Raises if it breaks the declared length."""
    if upload.left >= 0:
        if len(data) > upload.left or (len(data) < upload.left and (end or trailers)):
            raise LocalProtocolError(f"{len(data)} bytes where its content-length leaves {upload.left} (RFC 9110 §8.6)")
        upload.left -= len(data)
    if trailers:
        if upload.left >= 0:
            raise LocalProtocolError("there is no place for trailers where content is not chunked (RFC 9112 §7.1.2)")
        check_trailers(trailers)
        upload.trailers = trailers
    upload.add(data, now)
    upload.ending = end or bool(trailers)


def pump(draft: Draft, record: Exchange, upload: Upload) -> None:
    """Hand out content while the output budget allows, in chunks where no length was declared (§7.1), and then its end."""
    chunked = upload.left < 0
    waiting = upload.queued
    while upload.queued and draft.unflushed < draft.setup.settings.output_budget:
        piece = upload.take(MAX_PIECE, draft.now)
        draft.unflushed += len(piece)
        draft.out += (b"%x\r\n" % len(piece), piece, CRLF) if chunked else (piece,)
    if upload.queued:
        return
    if upload.ending:
        if chunked:
            draft.out += [b"0\r\n", *[b"%b: %b\r\n" % field for field in upload.trailers], CRLF]
        record.state = LOCAL_AWAITING if record.state == OPEN_AWAITING else LOCAL_RECEIVING
        record.sent_at = draft.now
    elif waiting:
        draft.events.append(events.WindowOpened(record.ref))


# Receiving


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


def recv_bytes(draft: Draft, data: bytes) -> None:
    """Takes all that is complete, and content that is not. A byte is looked at once, or a few times in a short line."""
    searched = max(0, len(draft.buffer) - 3)  # no empty line begins there
    if draft.buffer:
        data = draft.buffer + data
    pos = 0
    size = len(data)
    while pos < size and draft.status == OPEN:
        if not draft.requests:
            # "the client MUST NOT consider that data to be a valid response; the client SHOULD close" (§9.2). Nor are
            # empty lines before a status line passed over: that is a server's part (§2.2).
            raise fault("the peer sent bytes while no request was outstanding (RFC 9112 §9.2)")
        reading = draft.reading
        if reading == STATUS_LINE or reading == FIELD_LINES:
            taken = recv_head(draft, data[pos:], searched)
        elif reading == TRAILERS:
            taken = recv_trailers(draft, data[pos:], searched)
        elif reading == CHUNK_SIZE or reading == CHUNK_END:
            taken = recv_chunk_line(draft, data[pos : pos + CHUNK_LINE])
        else:
            taken = recv_data(draft, data, pos)
        if not taken:
            break
        pos += taken
        searched = 0
    if draft.status == OPEN:
        draft.buffer = data[pos:]


def recv_head(draft: Draft, data: bytes, searched: int) -> int:
    """A head (§2.1) and what follows from it. Returns how many bytes it took: none while it is incomplete."""
    settings = draft.setup.settings
    cut = data.find(EMPTY_LINE, searched)
    if cut < 0:
        if draft.reading == STATUS_LINE and http1_parse.check_status_line(data, searched):
            draft.reading = FIELD_LINES
        if draft.reading == FIELD_LINES:
            size = len(data) - data.find(b"\n") - 2  # at least; the LF is not far, it ends the status line
            http1_parse.check_section(size, 0, settings.max_field_section, settings.max_fields)
        return 0
    head = http1_parse.decode_head(data[: cut + 2], settings.max_field_section, settings.max_fields)
    record = draft.requests[0]
    start = cut + len(EMPTY_LINE)
    draft.reading = STATUS_LINE
    if head.closes:
        draft.last_ref = record.ref
    if head.status < 200:
        recv_interim(draft, draft.own(record), head)
        return start
    draft.interims = 0
    draft.events.append(events.ResponseReceived(record.ref, head.status, head.fields, head.reason))
    framing = http1_parse.body_framing(record.method, head)
    if 0 <= framing <= len(data) - start:  # all of it is here, and nobody will look at the record again
        if framing:
            draft.events.append(events.DataReceived(record.ref, data[start : start + framing]))
        recv_end(draft, record)
        return start + framing
    record = draft.own(record)
    record.state = LOCAL_RECEIVING if record.state == LOCAL_AWAITING else OPEN_RECEIVING
    record.status = head.status
    record.head_at = draft.now
    if framing == http1_parse.IN_CHUNKS:
        draft.reading = CHUNK_SIZE
    elif framing == http1_parse.WITH_CONNECTION:
        draft.reading = UNTIL_CLOSE
        draft.last_ref = record.ref
    else:
        draft.reading = SIZED
        record.expected = framing
    return start


def recv_interim(draft: Draft, record: Exchange, head: http1_parse.ResponseHead) -> None:
    """An interim response (RFC 9110 §15.2): the final one is still to come."""
    if head.status == 101:
        raise fault("101 (Switching Protocols) although no upgrade was asked for (RFC 9110 §15.2.2)")
    draft.interims += 1
    if draft.interims > INTERIM_LIMIT:
        raise fault(f"interim responses above our limit: allowed are {INTERIM_LIMIT} (RFC 9110 §15.2)")
    record.interim_at = draft.now
    draft.events.append(events.InterimReceived(record.ref, head.status, head.fields))


def recv_data(draft: Draft, data: bytes, pos: int) -> int:
    """A piece of content, as much as has come (§6.3). Returns how many bytes that is."""
    record = draft.own(draft.requests[0])
    reading = draft.reading
    if reading == SIZED:
        piece = data[pos : pos + record.expected]
        record.expected -= len(piece)
    elif reading == CHUNK_DATA:
        piece = data[pos : pos + draft.left]
        draft.left -= len(piece)
        if not draft.left:
            draft.reading = CHUNK_END
    else:
        piece = data[pos:]
    now = draft.now
    if not record.received:
        record.first_data_at = now
    if not record.unread:
        record.unread_at = now
    record.last_data_at = now
    record.received += len(piece)
    record.unread += len(piece)
    draft.events.append(events.DataReceived(record.ref, piece))
    if reading == SIZED and not record.expected:
        recv_end(draft, record)
    return len(piece)


def recv_chunk_line(draft: Draft, data: bytes) -> int:
    """A chunk-size line, or the CRLF after a chunk's data (§7.1). Returns its length, or 0 while it is incomplete."""
    if draft.reading == CHUNK_END:
        if len(data) < 2:
            return 0
        if not data.startswith(CRLF):
            raise fault(f"{data[:2]!r} after a chunk's data, where a CRLF must stand (RFC 9112 §7.1)")
        draft.reading = CHUNK_SIZE
        return 2
    size = data.find(b"\n") + 1
    if size:
        draft.left = http1_parse.decode_chunk_size(data[:size])
        draft.reading = CHUNK_DATA if draft.left else TRAILERS
    elif len(data) == CHUNK_LINE:
        raise fault(f"a chunk-size line above our limit: allowed are {http1_parse.CHUNK_LIMIT} bytes (RFC 9112 §7.1)")
    return size


def recv_trailers(draft: Draft, data: bytes, searched: int) -> int:
    """The trailer section, mostly empty, and the end of the content with it (§7.1.2). Returns how many bytes it took."""
    settings = draft.setup.settings
    record = draft.requests[0]
    if data.startswith(CRLF):
        recv_end(draft, record)
        return 2
    cut = data.find(EMPTY_LINE, searched)
    if cut < 0:
        http1_parse.check_section(len(data) - 1, 0, settings.max_field_section, settings.max_fields)
        return 0
    fields = http1_parse.decode_fields(data[: cut + 2], settings.max_field_section, settings.max_fields)
    draft.events.append(events.TrailersReceived(record.ref, fields))
    recv_end(draft, record)
    return cut + 4


def recv_end(draft: Draft, record: Exchange) -> None:
    """The response is complete. If our content is not, it is dropped and the connection closes: its rest is still owed."""
    draft.events.append(events.ResponseEnded(record.ref))
    draft.requests = draft.requests[1:]
    draft.reading = STATUS_LINE
    if record.ref == draft.last_ref or record.state == OPEN_AWAITING or record.state == OPEN_RECEIVING:
        draft.end(None)


def consume(conn: HTTP1Connection, ref: int, size: int, now: float) -> Step:
    """The reader took `size` bytes of content: see `wants_read`. A no-op when the request is over."""
    record = find(conn, ref)
    if record is None:
        return conn, b"", []
    if not 0 <= size <= record.unread:
        raise LocalProtocolError(f"{size} bytes consumed of request {ref}, {record.unread} were unread")
    draft = Draft(conn, now)
    record = draft.own(record)
    record.unread -= size
    record.reader_at = draft.now
    return draft.finish()


def cancel(conn: HTTP1Connection, ref: int, now: float) -> Step:
    """The caller wants no more of it: the connection closes. A no-op when the request is over."""
    record = find(conn, ref)
    if record is None:
        return conn, b"", []
    draft = Draft(conn, now)
    draft.fail("StreamClosed", f"{record.method} {record.target}: cancelled by its caller", draft.written)
    return draft.finish()


def flush(conn: HTTP1Connection, now: float) -> Step:
    """All that was handed out is in the kernel: what is next?"""
    if not conn.unflushed:  # and then nothing waits
        return conn, b"", []
    draft = Draft(conn, now)
    draft.unflushed = 0
    for record in draft.requests:
        owned = draft.own(record)
        if owned.upload is not None and owned.upload.queued:
            pump(draft, owned, owned.upload)
    return draft.finish()


def next_timeout(conn: HTTP1Connection) -> float:
    """When `handle_timeout` has to be called; never too late. INFINITY for never."""
    return conn.wake


def handle_timeout(conn: HTTP1Connection, now: float) -> Step:
    """Ends the request whose clock has run out, and the connection with it."""
    if now < conn.wake or conn.status == CLOSED:
        return conn, b"", []
    draft = Draft(conn, now)
    draft.wake = INFINITY
    for record in draft.requests:
        due = record.due()
        if due <= draft.now:
            failure = record.overdue(draft.now)
            draft.fail(failure.kind, failure.message, draft.written)
            break
        draft.wake = min(draft.wake, due)
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
) -> tuple[HTTP1Connection, list[events.Event]]:
    """The transport ended and the last `unsent` bytes of the output never left: whatever runs fails, but for a response
    that only this ends, if the end was orderly (§8)."""
    if conn.status == CLOSED:
        return conn, []
    draft = Draft(conn, now)
    if clean and conn.reading == UNTIL_CLOSE:
        recv_end(draft, conn.requests[0])
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
    requests = tuple([snap_request(record, now, None, None) for record in conn.requests])
    silence = now - conn.heard_at
    free = capacity(conn)
    sent = conn.written
    return Snapshot(
        "HTTP/1.1", origin, status, requests, (), (), 1, free, silence, None, None, None, conn.unflushed, sent
    )
