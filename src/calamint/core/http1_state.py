"""HTTP1Connection, the value; Draft, the one place where a verb writes (RFC 9112).

Requests are answered in their order (§9.3.2), so their records stand in a tuple and what arrives is about the first.
Whatever ends a request early ends the connection: nothing else tells the peer to stop.
"""

from typing import ClassVar, Final, final

from calamint.core import events, http1_parse
from calamint.core.errors import Failure
from calamint.core.exchange import (
    LOCAL_AWAITING,
    LOCAL_RECEIVING,
    OPEN_AWAITING,
    OPEN_RECEIVING,
    TUNNEL,
    TUNNEL_LOCAL,
    Exchange,
    Settings,
    Upload,
    may_send,
)
from calamint.core.http1_parse import CRLF
from calamint.core.url import Origin
from calamint.core.value import INFINITY, Value

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
# "A client can assume" these to have the same effect when they are repeated (RFC 9110 §9.2.2).
IDEMPOTENT: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
# What END_STREAM is to HTTP/2: our content is complete.
ENDED_BY_US: Final[dict[int, int]] = {
    OPEN_AWAITING: LOCAL_AWAITING,
    OPEN_RECEIVING: LOCAL_RECEIVING,
    TUNNEL: TUNNEL_LOCAL,
}
# What a connection consists of, and its draft.
PARTS: Final = (
    "setup", "status", "requests", "next_ref", "last_ref", "upgrade_ref", "reading", "left", "interims", "buffer",
    "written", "unflushed", "flushed", "now", "heard_at", "wake",
)  # fmt: skip


@final
class Setup(Value):
    """What hardly changes in a connection's life; `chunks`: whether the peer takes them, which HTTP/1.0 does not."""

    __slots__ = ("origin", "settings", "chunks", "host")
    __match_args__: ClassVar[tuple[str, ...]] = ("origin", "settings", "chunks")

    def __init__(self, origin: Origin, settings: Settings, chunks: bool = True) -> None:
        self.origin: Final = origin
        self.settings: Final = settings
        self.chunks: Final = chunks
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
        upgrade_ref: int,
        reading: int,
        left: int,
        interims: int,
        buffer: bytes,
        written: int,
        unflushed: int,
        flushed: tuple[int, float, bool],
        now: float,
        heard_at: float,
        wake: float,
    ) -> None:
        self.setup: Final = setup
        self.status: Final = status
        self.requests: Final = requests  # outstanding, in the order in which they were sent
        self.next_ref: Final = next_ref
        self.last_ref: Final = last_ref  # the connection ends with the response to this request; 0 for none
        self.upgrade_ref: Final = upgrade_ref  # this request asked for another protocol; 0 for none
        self.reading: Final = reading
        self.left: Final = left  # bytes still to come of a chunk
        self.interims: Final = interims  # interim responses to the first request
        self.buffer: Final = buffer  # the beginning of a head, a trailer section or a line; its end is not in it
        self.written: Final = written  # bytes handed out
        self.unflushed: Final = unflushed  # bytes of content among them that are not in the kernel yet
        # bytes of the output that were in the kernel when content last went there; when that was, or NEVER; whether some
        # were held back
        self.flushed: Final = flushed
        self.now: Final = now
        self.heard_at: Final = heard_at  # a byte last came, or NEVER
        self.wake: Final = wake  # no clock runs out before this


Step = tuple[HTTP1Connection, bytes, list[events.Event]]


@final
class Draft:
    """One verb's working copy: made by the verb, finished by it, never seen outside."""

    __slots__ = ("owner", "out", "events", "cut", *PARTS)

    def __init__(self, conn: HTTP1Connection, now: float) -> None:
        self.owner: object = object()
        self.out: list[bytes] = []
        self.events: list[events.Event] = []
        self.cut: bool = False  # content that came at once is more than one event
        self.setup: Setup = conn.setup
        self.status: int = conn.status
        self.requests: tuple[Exchange, ...] = conn.requests
        self.next_ref: int = conn.next_ref
        self.last_ref: int = conn.last_ref
        self.upgrade_ref: int = conn.upgrade_ref
        self.reading: int = conn.reading
        self.left: int = conn.left
        self.interims: int = conn.interims
        self.buffer: bytes = conn.buffer
        self.written: int = conn.written
        self.unflushed: int = conn.unflushed
        self.flushed: tuple[int, float, bool] = conn.flushed
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
            self.upgrade_ref,
            self.reading,
            self.left,
            self.interims,
            self.buffer,
            self.written + len(data),
            self.unflushed,
            self.flushed,
            self.now,
            self.heard_at,
            self.wake,
        )
        return conn, data, events.join_data(self.events) if self.cut else self.events

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

    def fail(self, kind: str, message: str, sent: int, ref: int = 0, clock: str = "") -> None:
        """The connection ends and every request fails, because of the one that is named, if one is, and of its clock; those
        whose head ends after `sent` in the output never left."""
        for record in self.requests:
            unprocessed = record.head_offset > sent
            why, words, which = kind, message, clock
            if ref and record.ref != ref:
                why, which = "ReadError", ""
                words = f"the connection closed, since request {ref} ended early: {message}"
            elif unprocessed and kind == "ReadError":
                why, words = "WriteError", f"{message}; the request had not left"
            failure = Failure(why, -1, words, record.ref, unprocessed, -1, which)
            self.events.append(events.RequestFailed(record.ref, failure))
        self.end(Failure(kind, -1, message, clock=clock))

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

    def pump(self, record: Exchange, upload: Upload) -> None:
        """Hand out content while the output budget allows, in chunks where no length was declared (RFC 9112 §7.1), and
        then its end; into a tunnel as it is."""
        if not may_send(record):
            return
        tunnel = record.state == TUNNEL
        chunked = upload.left < 0 and not tunnel
        waiting = upload.queued
        while upload.queued and self.unflushed < self.setup.settings.output_budget:
            piece = upload.take(MAX_PIECE, self.now)
            self.unflushed += len(piece)
            self.out += (b"%x\r\n" % len(piece), piece, CRLF) if chunked else (piece,)
        if waiting:
            upload.end = self.written + sum([len(part) for part in self.out])
        if upload.queued:
            return
        if upload.ending:
            if chunked:
                self.out += [b"0\r\n", *[b"%b: %b\r\n" % field for field in upload.trailers], CRLF]
            record.state = ENDED_BY_US[record.state]
            record.sent_at = self.now
        elif waiting:
            self.events.append(events.WindowOpened(record.ref))

    def release(self, record: Exchange) -> None:
        """Content that was held back may go: its state says so now."""
        if record.upload is not None and (record.upload.queued or record.upload.ending):
            record.upload.moved_at = self.now
            self.pump(record, record.upload)
