"""One request and its response, alike in both protocols: settings, clocks, and the record with its milestones.

The record answers two questions for every request: which clock runs now (`due`), and what it waits for (`waits_for`).
No clock blames the peer for time in which we were the one to move.
"""

from typing import ClassVar, Final, final

from calamint.core.errors import Failure
from calamint.core.value import INFINITY, NEVER, Fields, Value

# Where an exchange stands: the states of RFC 9113 §5.1 with their progress. HTTP/1.1 uses the same words.
IDLE: Final = 0  # no head has been sent
EXPECTING: Final = 1  # open: our content is held back until 100 (Continue), RFC 9110 §10.1.1
CONNECTING: Final = 2  # open: CONNECT has been sent, what goes through the tunnel is held back until it is made
OPEN_AWAITING: Final = 3  # open: our content is not ended, no final head yet
OPEN_RECEIVING: Final = 4  # open: our content is not ended, the final head is here
REFUSED: Final = 5  # open: the final head came while our content was held back, which nobody wants any more
TUNNEL: Final = 6  # open: what comes and goes is no HTTP (RFC 9110 §9.3.6, §7.8)
LOCAL_AWAITING: Final = 7  # half-closed (local): we are done, no final head yet
LOCAL_RECEIVING: Final = 8  # half-closed (local), the final head is here
TUNNEL_LOCAL: Final = 9  # half-closed (local): a tunnel that we have ended
RESERVED: Final = 10  # reserved (remote): promised by the peer, no final head yet
REMOTE: Final = 11  # half-closed (remote): the response is complete, our content is not
ENDED: Final = 12  # closed: both sides are complete
RESET_BY_US: Final = 13  # closed by our reset
RESET_BY_PEER: Final = 14  # closed by the peer's reset

STATE_NAMES: Final = (
    "idle",
    "open, content held back until 100 (Continue)",
    "open, awaiting the tunnel",
    "open, awaiting the response",
    "open, receiving the response",
    "open, receiving the response, content refused",
    "open, a tunnel",
    "half-closed (local), awaiting the response",
    "half-closed (local), receiving the response",
    "half-closed (local), a tunnel",
    "reserved (remote)",
    "half-closed (remote)",
    "ended",
    "reset by us",
    "reset by the peer",
)


@final
class Clocks(Value):
    """How long, in seconds, a request may be silent; None turns a clock off.

    `head`: from the last byte of the request to the final head, begun again by an interim response. `idle`: in which we
    waited and no content, fields or window came. `write`: without progress while content is unsent. `reader`: in which
    content waits unread, or our own content is left open: then this side is to blame. `expect`: for 100 (Continue) to a
    request that expects it; then its content goes out all the same (RFC 9110 §10.1.1). In a tunnel neither `head` nor
    `idle` runs.
    """

    __match_args__: ClassVar[tuple[str, ...]] = ("head", "idle", "write", "reader", "expect")
    __slots__ = ("shortest", *__match_args__)

    def __init__(
        self,
        head: float | None = 60.0,
        idle: float | None = 60.0,
        write: float | None = 60.0,
        reader: float | None = 600.0,
        expect: float | None = 1.0,
    ) -> None:
        self.head: Final = check_seconds("head", head)
        self.idle: Final = check_seconds("idle", idle)
        self.write: Final = check_seconds("write", write)
        self.reader: Final = check_seconds("reader", reader)
        self.expect: Final = check_seconds("expect", expect)
        self.shortest: Final = min(self.head, self.idle, self.write, self.reader)  # of those that begin again


def check_seconds(name: str, seconds: float | None) -> float:
    """INFINITY for None; raises ValueError for what is no time."""
    if seconds is None:
        return INFINITY
    if not seconds >= 0:  # NaN as well: nothing is earlier than that
        raise ValueError(f"{name}={seconds}: allowed are seconds from 0, or None for no limit")
    return seconds


CLOCKS: Final = Clocks()


@final
class Settings(Value):
    """What this side allows and announces; the same for both protocols where both have it. Sizes in bytes.

    `stream_window` and `connection_window`: receive windows (RFC 9113 §5.2). `max_frame_size`: the largest frame that we
    accept. `max_field_section`: a decoded section, 32 more per field (RFC 9113 §6.5.2); `max_fields`: fields in it.
    `max_streams`: requests at once, or the peer's limit if that is lower; `first_streams`: before its SETTINGS came.
    `output_budget`: content that is handed out and not yet flushed. `keepalive`: seconds of silence while requests wait,
    then a PING (RFC 9113 §6.7), None for never. `max_pushes`: pushed streams at once, 0 for no push (RFC 9113 §8.4).
    `pipeline`: requests outstanding at once on HTTP/1.1 (RFC 9112 §9.3.2).
    """

    __match_args__: ClassVar[tuple[str, ...]] = tuple(
        (
            "stream_window connection_window max_frame_size header_table_size max_field_section max_fields "
            "max_streams first_streams output_budget keepalive max_pushes pipeline"
        ).split()
    )
    __slots__ = __match_args__

    def __init__(
        self,
        stream_window: int = 2 * 1024 * 1024,
        connection_window: int = 16 * 1024 * 1024,
        max_frame_size: int = 16_384,
        header_table_size: int = 4096,
        max_field_section: int = 64 * 1024,
        max_fields: int = 128,
        max_streams: int = 100,
        first_streams: int = 100,
        output_budget: int = 256 * 1024,
        keepalive: float | None = 30.0,
        max_pushes: int = 0,
        pipeline: int = 1,
    ) -> None:
        check_range("stream_window", stream_window, 1, 2**31 - 1)
        check_range("connection_window", connection_window, 65_535, 2**31 - 1)
        check_range("max_frame_size", max_frame_size, 16_384, 2**24 - 1)
        check_range("header_table_size", header_table_size, 0, 65_536)
        check_range("max_field_section", max_field_section, 1, 2**31 - 1)
        check_range("max_fields", max_fields, 1, 2**31 - 1)
        check_range("max_streams", max_streams, 1, 2**31 - 1)
        check_range("first_streams", first_streams, 1, 2**31 - 1)
        check_range("output_budget", output_budget, 1, 2**31 - 1)
        check_range("max_pushes", max_pushes, 0, 2**31 - 1)
        check_range("pipeline", pipeline, 1, 1000)
        self.stream_window: Final = stream_window
        self.connection_window: Final = connection_window
        self.max_frame_size: Final = max_frame_size
        self.header_table_size: Final = header_table_size
        self.max_field_section: Final = max_field_section
        self.max_fields: Final = max_fields
        self.max_streams: Final = max_streams
        self.first_streams: Final = first_streams
        self.output_budget: Final = output_budget
        self.keepalive: Final = check_seconds("keepalive", keepalive)
        self.max_pushes: Final = max_pushes
        self.pipeline: Final = pipeline


def check_range(name: str, value: int, low: int, high: int) -> None:
    """Raises ValueError, naming the option, the value and what is allowed."""
    if not low <= value <= high:
        raise ValueError(f"{name}={value}: allowed are {low} to {high}")


SETTINGS: Final = Settings()


def laxer(old: Settings, new: Settings) -> Settings:
    """`new`, but for what the peer may still do by `old`: what holds until `new` is acknowledged (RFC 9113 §6.5.3)."""
    return Settings(
        max(old.stream_window, new.stream_window),
        new.connection_window,
        max(old.max_frame_size, new.max_frame_size),
        max(old.header_table_size, new.header_table_size),
        max(old.max_field_section, new.max_field_section),
        new.max_fields,
        new.max_streams,
        new.first_streams,
        new.output_budget,
        new.keepalive,
        new.max_pushes,
        new.pipeline,
    )


@final
class Upload(Value):
    """A request's own content: what waits in the value, and the milestones of sending it. Mutable like its exchange."""

    __match_args__: ClassVar[tuple[str, ...]] = tuple(
        "queue taken queued ending trailers left sent moved_at shut_at reopened_at end".split()
    )
    __slots__ = __match_args__

    def __init__(
        self,
        queue: tuple[bytes, ...] = (),
        taken: int = 0,
        queued: int = 0,
        ending: bool = False,
        trailers: Fields = (),
        left: int = -1,
        sent: int = 0,
        moved_at: float = NEVER,
        shut_at: float = NEVER,
        reopened_at: float = NEVER,
        end: int = 0,
    ) -> None:
        self.queue: tuple[bytes, ...] = queue
        self.taken: int = taken  # bytes of queue[0] that have been handed out
        self.queued: int = queued  # bytes that wait
        self.ending: bool = ending  # nothing comes after what waits
        self.trailers: Fields = trailers
        self.left: int = left  # bytes still owed by the declared content-length, or -1
        self.sent: int = sent  # bytes handed out
        self.moved_at: float = moved_at  # content last moved, or began to wait
        self.shut_at: float = shut_at  # the peer's window last stopped us
        self.reopened_at: float = reopened_at  # the peer last opened the stream's window
        self.end: int = end  # where the content that was handed out ends in the connection's output

    def copy(self) -> "Upload":
        """The same, to be changed by another draft."""
        return Upload(
            self.queue,
            self.taken,
            self.queued,
            self.ending,
            self.trailers,
            self.left,
            self.sent,
            self.moved_at,
            self.shut_at,
            self.reopened_at,
            self.end,
        )

    def add(self, data: bytes, now: float) -> None:
        """Let content wait; small pieces are joined, so that many of them cost no more than a few."""
        data = bytes(data)  # the same object, unless somebody handed over what can change
        if not self.queued:
            self.moved_at = now
        if self.queue and len(self.queue[-1]) + len(data) <= 16_384:
            self.queue = (*self.queue[:-1], self.queue[-1] + data)
        elif data:
            self.queue = (*self.queue, data)
        self.queued += len(data)

    def drop(self) -> None:
        """What waits is not wanted any more."""
        self.queue = ()
        self.taken = 0
        self.queued = 0
        self.trailers = ()

    def is_shut(self) -> bool:
        """Whether content waits for the peer's window, and not for room in the output."""
        return self.shut_at > NEVER and self.shut_at >= max(self.moved_at, self.reopened_at)

    def take(self, limit: int, now: float) -> bytes:
        """The next piece of at most `limit` bytes; it counts as handed out."""
        first = self.queue[0]
        piece = first[self.taken : self.taken + limit] if self.taken or len(first) > limit else first
        self.taken += len(piece)
        if self.taken == len(first):
            self.queue = self.queue[1:]
            self.taken = 0
        self.queued -= len(piece)
        self.sent += len(piece)
        self.moved_at = now
        return piece


@final
class Exchange(Value):
    """One request's record: its state, what is still expected, its milestones (one time each, or NEVER).

    Mutable while a draft owns it: `owner` is that draft's token and stays out of equality and pickle. Once the verb is
    over nobody has the token, and so nobody may write; the next verb that has to makes a copy.
    """

    __match_args__: ClassVar[tuple[str, ...]] = tuple(
        (
            "ref method target state clocks deadline head_offset upload expected status received unread opened_at "
            "sent_at interim_at head_at first_data_at last_data_at unread_at reader_at send_window recv_window "
            "credit mark"
        ).split()
    )
    __slots__ = ("owner", *__match_args__)

    def __init__(
        self,
        ref: int,
        method: str,
        target: str,
        state: int,
        clocks: Clocks,
        deadline: float,
        head_offset: int,
        upload: Upload | None,
        expected: int,
        status: int,
        received: int,
        unread: int,
        opened_at: float,
        sent_at: float,
        interim_at: float = NEVER,
        head_at: float = NEVER,
        first_data_at: float = NEVER,
        last_data_at: float = NEVER,
        unread_at: float = NEVER,
        reader_at: float = NEVER,
        send_window: int = 0,
        recv_window: int = 0,
        credit: int = 0,
        mark: int = 0,
    ) -> None:
        self.owner: object | None = None
        self.ref: int = ref
        self.method: str = method
        self.target: str = target
        self.state: int = state
        self.clocks: Clocks = clocks
        self.deadline: float = deadline  # `total`: when the request must be over
        self.head_offset: int = head_offset  # where its head ends in the connection's output
        self.upload: Upload | None = upload
        self.expected: int = expected  # bytes of content still to come by its content-length, or -1
        self.status: int = status  # of the final response
        self.received: int = received  # bytes of content
        self.unread: int = unread  # bytes of content that the reader has not given back
        self.opened_at: float = opened_at  # the head was handed out
        self.sent_at: float = sent_at  # the last byte of the request was handed out
        self.interim_at: float = interim_at
        self.head_at: float = head_at
        self.first_data_at: float = first_data_at
        self.last_data_at: float = last_data_at
        self.unread_at: float = unread_at  # content began to wait for the reader
        self.reader_at: float = reader_at  # the caller last did something about it
        # HTTP/2 only:
        self.send_window: int = send_window  # relative to the peer's INITIAL_WINDOW_SIZE: a SETTINGS costs nothing here
        self.recv_window: int = recv_window  # what the peer may still send
        self.credit: int = credit  # consumed, and not yet given back to the peer
        self.mark: int = mark  # frames that the connection had received when the head was handed out

    def copy(self, owner: object) -> "Exchange":
        """The same, owned by another draft."""
        twin = Exchange(
            self.ref,
            self.method,
            self.target,
            self.state,
            self.clocks,
            self.deadline,
            self.head_offset,
            self.upload,
            self.expected,
            self.status,
            self.received,
            self.unread,
            self.opened_at,
            self.sent_at,
            self.interim_at,
            self.head_at,
            self.first_data_at,
            self.last_data_at,
            self.unread_at,
            self.reader_at,
            self.send_window,
            self.recv_window,
            self.credit,
            self.mark,
        )
        if self.upload is not None:
            twin.upload = self.upload.copy()
        twin.owner = owner
        return twin

    def note_content(self, size: int, now: float) -> None:
        """A piece of the response's content, which is not empty, has come."""
        if not self.received:
            self.first_data_at = now
        if not self.unread:
            self.unread_at = now
        self.last_data_at = now
        self.received += size
        self.unread += size

    def is_held(self) -> bool:
        """Whether the peer cannot go on before our reader does."""
        return self.unread > 0 and self.recv_window <= 0

    def resume(self, was_held: bool, now: float) -> None:
        """It is the peer's turn again, if it was not before: for what of ours did not move meanwhile nobody blames it."""
        upload = self.upload
        if was_held and upload is not None and not self.is_held():
            if upload.is_shut():
                upload.shut_at = now
            upload.moved_at = now

    def heard_at(self) -> float:
        """When the peer last did anything about this request, or NEVER."""
        reopened_at = NEVER if self.upload is None else self.upload.reopened_at
        return max(self.interim_at, self.head_at, self.last_data_at, reopened_at)

    def idle_since(self) -> float:
        """When anything last moved, in either direction: since then we wait, if nothing is unread."""
        moved_at = self.sent_at if self.upload is None else max(self.sent_at, self.upload.moved_at)
        return max(self.heard_at(), self.reader_at, moved_at)

    def running_clock(self, flushed: tuple[int, float, bool] = (0, NEVER, False)) -> tuple[float, str]:
        """The clock that runs now: when it runs out, and its name. Where two run, the earlier one.

        `flushed`: where in the connection's output the kernel is, and when it last took content.
        """
        state = self.state
        upload = self.upload
        clocks = self.clocks
        due = self.deadline
        name = "total"
        sending = False
        at = INFINITY
        clock = ""
        if state == OPEN_AWAITING or state == OPEN_RECEIVING or state == TUNNEL:
            if upload is not None and upload.queued:
                sending = True
                if not self.is_held():
                    at = max(upload.moved_at, upload.shut_at if upload.is_shut() else flushed[1]) + clocks.write
                    clock = "write"
            elif state != TUNNEL:  # we owe content: no clock blames the peer since all that we gave has gone
                at = max(self.opened_at, self.idle_since()) + clocks.reader
                clock = "reader"
        elif state == LOCAL_AWAITING or state == CONNECTING or state == RESERVED:
            if state == LOCAL_AWAITING and upload is not None and upload.end > flushed[0]:  # its end has not left
                at = max(self.sent_at, flushed[1]) + clocks.write
                clock = "write"
            else:  # while its head is held back, `head` has not begun
                held_at = flushed[1] if flushed[2] and self.head_offset > flushed[0] else NEVER
                at = max(self.sent_at, self.interim_at, held_at) + clocks.head
                clock = "head"
        elif state == EXPECTING:
            at = self.opened_at + clocks.expect
            clock = "expect"
            if max(self.opened_at, self.interim_at) + clocks.head < at:
                at = max(self.opened_at, self.interim_at) + clocks.head
                clock = "head"
        if at < due:
            due = at
            name = clock
        if state == OPEN_RECEIVING or state == LOCAL_RECEIVING or REFUSED <= state <= TUNNEL or state == TUNNEL_LOCAL:
            if self.unread:
                if max(self.unread_at, self.reader_at) + clocks.reader < due:
                    due = max(self.unread_at, self.reader_at) + clocks.reader
                    name = "reader"
            elif (state == OPEN_RECEIVING and sending) or state == LOCAL_RECEIVING or state == REFUSED:
                if self.idle_since() + clocks.idle < due:
                    due = self.idle_since() + clocks.idle
                    name = "idle"
        return due, name

    def overdue(self, now: float, flushed: tuple[int, float, bool] = (0, NEVER, False)) -> Failure:
        """What to say when the running clock has run out: what was seen, what was allowed, what to do."""
        name = self.running_clock(flushed)[1]
        heard = self.heard_at()
        kind = "ReadTimeout"
        if name == "total":
            kind = "DeadlineExceeded"
            last = f"the peer was last heard of {now - heard:.2f} s ago" if heard > NEVER else "the peer never answered"
            advice = "to bound silence instead of the whole, set the idle clock"
            text = f"its deadline (total) came {now - self.opened_at:.2f} s after it was sent, {last}; {advice}"
        elif name == "write" and self.upload is not None:
            kind = "WriteTimeout"
            stuck = f"{self.upload.queued} bytes of content unsent" if self.upload.queued else "the end of its content"
            text = f"{stuck}, none moved for {now - self.upload.moved_at:.2f} s (write={self.clocks.write:.10g})"
        elif name == "head":
            waited = now - max(self.opened_at, self.sent_at, self.interim_at)
            text = f"no response head for {waited:.2f} s (head={self.clocks.head:.10g})"
        elif name == "idle":
            text = f"{now - self.idle_since():.2f} s of silence (idle={self.clocks.idle:.10g})"
        else:
            unread = f"{self.unread} bytes of content wait unread; read or cancel the response"
            ours = unread if self.unread else "its content was left open; end it or cancel the request"
            text = f"{ours} (reader={self.clocks.reader:.10g})"
        return Failure(kind, -1, f"{self.method} {self.target}: {text}", self.ref, False, -1, name)

    def waits_for(self) -> str:
        """In words: who has to move now, and how."""
        state = self.state
        upload = self.upload
        if state == EXPECTING:
            return "100 (Continue)"
        if state == CONNECTING:
            return "the tunnel"
        if upload is not None and upload.queued:
            return "the peer's window" if upload.is_shut() else "room in the output"
        if state == OPEN_AWAITING or state == OPEN_RECEIVING:
            return "its caller: content left open"
        if self.unread:
            return "its reader: content unread"
        if state == TUNNEL or state == TUNNEL_LOCAL:
            return "either end of the tunnel"
        return "the response's head" if state == LOCAL_AWAITING or state == RESERVED else "the rest of the response"


def may_send(exchange: Exchange) -> bool:
    """Whether content that waits may go out, as far as its state says."""
    state = exchange.state
    return state == OPEN_AWAITING or state == OPEN_RECEIVING or state == TUNNEL
