"""HTTP2Connection, the value; Draft, the one place where a verb writes; `put()`, the one way of a stream in and out.

A stream that we opened is in exactly one place: `streams` (live: the caller can still hear of it), `unsent` (failed for the
caller, its RST_STREAM waits for the pacer), `unconfirmed` (reset, and the peer has shown no life since it was opened), or
nowhere. Slots in use are the sum of the three lengths, never a count kept beside them.
"""

from typing import ClassVar, Final, final

from calamint.core import frames
from calamint.core.errors import (
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    NO_ERROR,
    PROTOCOL_ERROR,
    STREAM_CLOSED,
    ConnectionFault,
    Failure,
    StreamFault,
    error_name,
)
from calamint.core.events import ConnectionClosed, Event, RequestFailed, join_data
from calamint.core.exchange import (
    EXPECTING,
    IDLE,
    REMOTE,
    RESET_BY_US,
    SETTINGS,
    STATE_NAMES,
    TUNNEL,
    Exchange,
    Settings,
    may_send,
)
from calamint.core.flow import is_due, overflows
from calamint.core.hpack import DecoderTable, EncoderTable
from calamint.core.streams import (
    COLUMN_NAMES,
    COLUMNS,
    GRID,
    IGNORE,
    ILLEGAL,
    LEAF,
    MALFORMED,
    Leaves,
    all_streams,
    find_stream,
)
from calamint.core.url import Origin
from calamint.core.value import INFINITY, NEVER, Value

OPEN: Final = 0
DRAINING: Final = 1  # the peer takes no new requests (GOAWAY), those that it took go on
CLOSED: Final = 2

STATUS_NAMES: Final = ("open", "draining", "closed")

LAST_REF: Final = 2**31 - 1
NO_STREAMS: Final[dict[int, Exchange]] = {}
MEMO_SECTION: Final = 16 * 1024
MEMO_FIELDS: Final = 64
PING_LIMIT: Final = 10.0  # seconds for the peer to answer a PING of ours
PING_AGAIN: Final = 300.0  # seconds until the next keepalive within one silence: servers count more than that as abuse
RESET_BURST: Final = 500.0  # RST_STREAM that may go out at once, and then a second:
ONE_TOKEN: Final = 0.999  # a wake-up for a token finds it, whatever the rounding
RESET_RATE: Final = 30.0  # servers allow about 33 a second since CVE-2023-44487

# The budget of frames that bring nothing forward (RFC 9113 §10.5). It regains with time and with whatever does.
CALM_BURST: Final = 1000.0  # at once
CALM_RATE: Final = 10.0  # a second
CALM_BYTES: Final = 128.0  # bytes of content, in either direction, that allow one more
CALM_FRAME: Final = 2.0  # for each DATA frame of ours: a WINDOW_UPDATE for its stream and one for the connection
CALM_RESET: Final = 4.0  # frames that may be on their way for a stream that we reset
CALM_SAVED: Final = -131_072.0  # what may be saved up, by sending


@final
class Peer(Value):
    """The peer's SETTINGS as they stand (RFC 9113 §6.5.2); `known` once the first has come; `limit`: requests at once;
    `connects`: whether it takes the extended CONNECT (RFC 8441 §3)."""

    __match_args__: ClassVar[tuple[str, ...]] = tuple(
        "known limit initial_window max_frame_size max_field_section connects offered".split()
    )
    __slots__ = __match_args__

    def __init__(
        self,
        known: bool,
        limit: int,
        initial_window: int = 65_535,
        max_frame_size: int = 16_384,
        max_field_section: int = LAST_REF,
        connects: bool = False,
        offered: int = LAST_REF,
    ) -> None:
        self.known: Final = known
        self.limit: Final = limit
        self.initial_window: Final = initial_window
        self.max_frame_size: Final = max_frame_size
        self.max_field_section: Final = max_field_section
        self.connects: Final = connects
        self.offered: Final = offered  # its MAX_CONCURRENT_STREAMS, of which `limit` is what we use

    def replace(
        self,
        limit: int = -1,
        initial_window: int = -1,
        max_frame_size: int = -1,
        max_field_section: int = -1,
        connects: bool = False,
        offered: int = -1,
    ) -> "Peer":
        """The same but for what is given, and known."""
        return Peer(
            True,
            self.limit if limit < 0 else limit,
            self.initial_window if initial_window < 0 else initial_window,
            self.max_frame_size if max_frame_size < 0 else max_frame_size,
            self.max_field_section if max_field_section < 0 else max_field_section,
            self.connects or connects,
            self.offered if offered < 0 else offered,
        )


@final
class Setup(Value):
    """What hardly changes in a connection's life. `settings`: ours, as they are enforced."""

    __match_args__: ClassVar[tuple[str, ...]] = ("origin", "settings")
    __slots__ = ("scheme", "authority", "keepalive", "remembers", *__match_args__)

    def __init__(self, origin: Origin, settings: Settings) -> None:
        self.origin: Final = origin
        self.settings: Final = settings
        self.scheme: Final = origin.scheme.encode("ascii")
        self.authority: Final = origin.authority().encode("ascii")
        self.keepalive: Final = settings.keepalive
        # What is remembered of blocks for all connections is of at most this size.
        self.remembers: Final = settings.max_field_section >= MEMO_SECTION and settings.max_fields >= MEMO_FIELDS


@final
class Control(Value):
    """What rarely changes: slots that wait, PING, GOAWAY, a field block that is not complete, the pacer of resets, pushes.

    Mutable while a draft owns it, like a stream's record.
    """

    __match_args__: ClassVar[tuple[str, ...]] = tuple(
        (
            "unsent unconfirmed ping_at pings kept_at quiet goaway block tokens tokens_at acknowledged pending pushes "
            "last_push resets stalls"
        ).split()
    )
    __slots__ = ("owner", *__match_args__)

    def __init__(
        self,
        unsent: dict[int, tuple[int, int, bool]],
        unconfirmed: dict[int, float],
        ping_at: float = NEVER,
        pings: int = 0,
        kept_at: float = NEVER,
        quiet: int = -1,
        goaway: tuple[int, int] = (LAST_REF, NO_ERROR),
        block: tuple[int, int, bytes, int, int] | None = None,
        tokens: float = RESET_BURST,
        tokens_at: float = NEVER,
        acknowledged: Settings = SETTINGS,
        pending: tuple[Settings, ...] = (),
        pushes: tuple[int, ...] = (),
        last_push: int = 0,
        resets: int = 0,
        stalls: int = 0,
    ) -> None:
        self.owner: object | None = None
        # stream → error code, its mark, whether our side is open
        self.unsent: dict[int, tuple[int, int, bool]] = unsent
        self.unconfirmed: dict[int, float] = unconfirmed  # stream → when its reset was handed out
        self.ping_at: float = ping_at  # when the PING in flight was handed out, or NEVER
        self.pings: int = pings  # PINGs of ours so far
        self.kept_at: float = kept_at  # when the last keepalive was handed out
        self.quiet: int = quiet  # frames that had come by then, PINGs since then among them; -1: the silence was broken
        self.goaway: tuple[int, int] = goaway  # the peer's last stream id and error code
        # stream, flags, fragments so far, how many, the stream that it promises or 0
        self.block: tuple[int, int, bytes, int, int] | None = block
        self.tokens: float = tokens  # RST_STREAM that may go out at once, as of tokens_at
        self.tokens_at: float = tokens_at
        self.acknowledged: Settings = acknowledged  # ours, as the peer knows them
        self.pending: tuple[Settings, ...] = pending  # announced since, and not acknowledged
        self.pushes: tuple[int, ...] = pushes  # live streams that the peer opened: they take no slot of ours
        self.last_push: int = last_push  # the highest of their ids so far
        self.resets: int = resets  # RST_STREAM handed out so far
        self.stalls: int = stalls  # how often content of ours began to wait for the peer's window

    def copy(self, owner: object) -> "Control":
        """The same, owned by another draft."""
        twin = Control(
            self.unsent.copy(),
            self.unconfirmed.copy(),
            self.ping_at,
            self.pings,
            self.kept_at,
            self.quiet,
            self.goaway,
            self.block,
            self.tokens,
            self.tokens_at,
            self.acknowledged,
            self.pending,
            self.pushes,
            self.last_push,
            self.resets,
            self.stalls,
        )
        twin.owner = owner
        return twin


@final
class HTTP2Connection(Value):
    """An HTTP/2 connection: never changed, so it can be kept, compared, pickled and forked."""

    __match_args__: ClassVar[tuple[str, ...]] = tuple(
        (
            "setup status peer control streams live next_ref ready encoder decoder send_window recv_window buffer "
            "partial frames spent written unflushed flushed now heard_at wake"
        ).split()
    )
    __slots__ = __match_args__

    def __init__(
        self,
        setup: Setup,
        status: int,
        peer: Peer,
        control: Control,
        streams: Leaves,
        live: int,
        next_ref: int,
        ready: tuple[int, ...],
        encoder: EncoderTable,
        decoder: DecoderTable,
        send_window: int,
        recv_window: int,
        buffer: bytes,
        partial: tuple[int, int, int, int] | None,
        frames: int,
        spent: float,
        written: int,
        unflushed: int,
        flushed: tuple[int, float, bool],
        now: float,
        heard_at: float,
        wake: float,
    ) -> None:
        self.setup: Final = setup
        self.status: Final = status
        self.peer: Final = peer
        self.control: Final = control
        self.streams: Final = streams
        self.live: Final = live  # how many they are: `put` alone changes it
        self.next_ref: Final = next_ref
        self.ready: Final = ready  # streams whose content waits, but not for their own window; in turn
        self.encoder: Final = encoder
        self.decoder: Final = decoder
        self.send_window: Final = send_window
        self.recv_window: Final = recv_window
        self.buffer: Final = buffer  # the beginning of a frame
        self.partial: Final = partial  # a DATA frame not complete: stream, content left, padding left, flags
        self.frames: Final = frames  # received
        self.spent: Final = spent  # of the budget of frames that bring nothing forward, as of heard_at
        self.written: Final = written  # bytes handed out
        self.unflushed: Final = unflushed  # bytes of content among them that are not in the kernel yet
        # bytes of the output that were in the kernel when content last went there; when that was, or NEVER; whether some
        # were held back
        self.flushed: Final = flushed
        self.now: Final = now
        self.heard_at: Final = heard_at  # a frame last came, or NEVER
        self.wake: Final = wake  # no clock runs out before this


@final
class Draft:
    """One verb's working copy: made by the verb, finished by it, never seen outside."""

    __slots__ = ("owner", "out", "events", "cut", "leaves", *HTTP2Connection.__match_args__)

    def __init__(self, conn: HTTP2Connection, now: float) -> None:
        self.owner: object = object()
        self.out: list[bytes] = []
        self.events: list[Event] = []
        self.cut: bool = False  # content that came at once is more than one event
        self.setup: Setup = conn.setup
        self.status: int = conn.status
        self.peer: Peer = conn.peer
        self.control: Control = conn.control
        self.streams: Leaves = conn.streams
        self.live: int = conn.live
        self.leaves: set[int] | None = None  # those that this draft has copied
        self.next_ref: int = conn.next_ref
        self.ready: tuple[int, ...] = conn.ready
        self.encoder: EncoderTable = conn.encoder
        self.decoder: DecoderTable = conn.decoder
        self.send_window: int = conn.send_window
        self.recv_window: int = conn.recv_window
        self.buffer: bytes = conn.buffer
        self.partial: tuple[int, int, int, int] | None = conn.partial
        self.frames: int = conn.frames
        self.spent: float = conn.spent
        self.written: int = conn.written
        self.unflushed: int = conn.unflushed
        self.flushed: tuple[int, float, bool] = conn.flushed
        self.now: float = now if now > conn.now else conn.now
        self.heard_at: float = conn.heard_at
        self.wake: float = conn.wake

    def finish(self) -> tuple[HTTP2Connection, bytes, list[Event]]:
        """The next value, the bytes to write, and what happened."""
        data = b"".join(self.out)
        conn = HTTP2Connection(
            self.setup,
            self.status,
            self.peer,
            self.control,
            self.streams,
            self.live,
            self.next_ref,
            self.ready,
            self.encoder,
            self.decoder,
            self.send_window,
            self.recv_window,
            self.buffer,
            self.partial,
            self.frames,
            self.spent,
            self.written + len(data),
            self.unflushed,
            self.flushed,
            self.now,
            self.heard_at,
            self.wake,
        )
        return conn, data, join_data(self.events) if self.cut else self.events

    def put(self, ref: int, stream: Exchange | None) -> None:
        """The stream enters, is replaced by its copy, or (None) leaves: the only way in and out of the map."""
        number = ref >> LEAF
        if self.leaves is None:
            self.leaves = set()
            self.streams = self.streams.copy()
        if number in self.leaves:
            leaf = self.streams[number]
        else:
            self.leaves.add(number)
            leaf = self.streams.get(number, NO_STREAMS).copy()
            self.streams[number] = leaf
        before = len(leaf)
        if stream is not None:
            leaf[ref] = stream
            self.live += len(leaf) - before
            if not ref & 1 and len(leaf) != before:
                self.own_control().pushes += (ref,)
        else:
            del leaf[ref]
            self.live -= 1
            if not ref & 1:
                self.own_control().pushes = tuple([push for push in self.control.pushes if push != ref])
            if before == 1:
                del self.streams[number]
                self.leaves.discard(number)

    def own(self, stream: Exchange) -> Exchange:
        """The stream's record, to be written by this draft: copied once."""
        owner = self.owner
        if stream.owner is owner:
            return stream
        twin = stream.copy(owner)
        self.put(stream.ref, twin)
        wake = self.now + stream.clocks.shortest  # whatever happens to it now, no clock of its own runs out before
        if wake < self.wake:
            self.wake = wake
        return twin

    def find(self, ref: int, column: int) -> Exchange | None:
        """The stream that a frame is about, its state advanced; None where the grid says: ignore (RFC 9113 §5.1)."""
        leaf = self.streams.get(ref >> LEAF)
        stream = None if leaf is None else leaf.get(ref)
        if stream is None:
            state = IDLE if ref >= (self.next_ref if ref & 1 else self.control.last_push + 1) else RESET_BY_US
            self.judge(ref, state, GRID[state * COLUMNS + column], column)
            return None
        if stream.owner is not self.owner:
            stream = self.own(stream)
        state = GRID[stream.state * COLUMNS + column]
        if state >= IGNORE:
            self.judge(ref, stream.state, state, column)
        stream.state = state
        return stream

    def judge(self, ref: int, state: int, verdict: int, column: int) -> None:
        """What the grid says where there is no next state. Returns only for: ignore."""
        what = f"{COLUMN_NAMES[column]} on stream {ref}, which is {STATE_NAMES[state]}"
        if verdict == ILLEGAL:
            raise ConnectionFault(PROTOCOL_ERROR, f"{what} (RFC 9113 §5.1)")
        if verdict != IGNORE:
            malformed = verdict == MALFORMED
            reason = f"malformed response: {what} (RFC 9113 §8.1)" if malformed else f"{what} (RFC 9113 §5.1)"
            raise StreamFault(ref, PROTOCOL_ERROR if malformed else STREAM_CLOSED, reason)

    def leave(self, stream: Exchange) -> None:
        """The request is over: its stream leaves the map with its queued content, in this very call."""
        self.put(stream.ref, None)
        if stream.upload is not None and stream.ref in self.ready:
            self.ready = tuple([ref for ref in self.ready if ref != stream.ref])

    def fail(self, stream: Exchange, failure: Failure) -> None:
        """The request ends with this failure, and nothing is sent for it."""
        self.leave(stream)
        self.events.append(RequestFailed(stream.ref, failure))

    def fault(self, fault: StreamFault) -> None:
        """A stream error (RFC 9113 §5.4.2): the request fails and its stream is reset; its siblings are untouched."""
        stream = find_stream(self.streams, fault.ref)
        if stream is not None:
            failure = Failure(
                "RemoteProtocolError", fault.code, f"{fault.reason} [{error_name(fault.code)}]", fault.ref
            )
            self.reset(stream, fault.code)
            self.events.append(RequestFailed(fault.ref, failure))
            if not fault.ref & 1:
                self.charge()

    def make_ready(self, ref: int) -> None:
        """The stream's content waits for its turn, no longer for its own window."""
        if ref not in self.ready:
            self.ready = (*self.ready, ref)

    def release(self, stream: Exchange) -> None:
        """Content that was held back may go: its state says so now."""
        upload = stream.upload
        if upload is not None and (upload.queued or upload.ending):
            upload.moved_at = self.now
            self.make_ready(stream.ref)

    def enforce(self, settings: Settings) -> None:
        """From here on these settings of ours hold; INITIAL_WINDOW_SIZE moves the window of every stream (RFC 9113 §6.9.2)."""
        before = self.setup.settings
        change = settings.stream_window - before.stream_window
        self.setup = Setup(self.setup.origin, settings)
        if (settings.max_field_section, settings.max_fields) != (before.max_field_section, before.max_fields):
            table = self.decoder  # what it remembers was allowed by the old limits
            self.decoder = DecoderTable(table.entries, table.size, table.max_size, table.limit, table.must_update)
        if change:
            for stream in all_streams(self.streams):
                own = self.own(stream)
                held = own.is_held()
                own.recv_window += change
                self.give_credit(own)  # what was not worth an update may be one now
                own.resume(held, self.now)

    def reopen_windows(self, highest: int) -> None:
        """INITIAL_WINDOW_SIZE rose, for a moment to `highest`: streams that waited for their window go on (RFC 9113 §6.9.2)."""
        for stream in all_streams(self.streams):
            if overflows(stream.send_window, highest):
                raise ConnectionFault(FLOW_CONTROL_ERROR, f"the window of stream {stream.ref} above 2^31-1 (§6.9.2)")
            if stream.upload is not None and stream.upload.queued and may_send(stream):
                self.make_ready(stream.ref)

    def own_control(self) -> Control:
        """The control record, to be written by this draft: copied once."""
        if self.control.owner is not self.owner:
            self.control = self.control.copy(self.owner)
        return self.control

    def reset(self, stream: Exchange, code: int) -> None:
        """The stream leaves `live` and is reset: now, or when the pacer lets it. Exactly one RST_STREAM per stream."""
        self.leave(stream)
        ref = stream.ref
        if not ref & 1:  # it takes no slot, and how many there are is limited
            self.out.append(frames.encode_reset(ref, code))
            self.own_control().resets += 1
            return
        ours_open = EXPECTING <= stream.state <= TUNNEL or stream.state == REMOTE
        self.own_control().unsent[ref] = (code, stream.mark, ours_open)
        self.pace_resets()

    def pace_resets(self) -> None:
        """Hand out the RST_STREAMs that the pacer allows now: a slot is free no earlier than its reset is in the output."""
        control = self.own_control()
        earned = max(0.0, self.now - control.tokens_at) * RESET_RATE
        control.tokens = min(RESET_BURST, control.tokens + earned)
        control.tokens_at = self.now
        for ref, (code, mark, _) in list(control.unsent.items()):
            if control.tokens < ONE_TOKEN:
                self.wake = min(self.wake, self.now + (1.0 - control.tokens) / RESET_RATE)
                return
            control.tokens -= 1.0
            control.resets += 1
            del control.unsent[ref]
            self.out.append(frames.encode_reset(ref, code))
            self.spent = max(CALM_SAVED, self.spent - CALM_RESET)
            if mark == self.frames:  # no frame has come since its HEADERS left: is anybody there?
                control.unconfirmed[ref] = self.now
                self.ping()

    def give_credit(self, stream: Exchange) -> None:
        """WINDOW_UPDATE for the stream, once half of its window has been consumed, by its reader or by padding (§6.9)."""
        if is_due(stream.credit, self.setup.settings.stream_window):
            self.out.append(frames.encode_window_update(stream.ref, stream.credit))
            stream.recv_window += stream.credit
            stream.credit = 0

    def forget(self, ref: int, both: bool) -> None:
        """The peer has closed its side, or `both`, of a stream whose RST_STREAM waits: once it is closed, none is sent (§5.1)."""
        if ref in self.control.unsent:
            ours_open = self.control.unsent[ref][2]
            if both or not ours_open:
                del self.own_control().unsent[ref]

    def regain(self) -> None:
        """A frame has come, so time that has passed since the one before it counts for the budget."""
        if self.spent > 0.0:
            self.spent = max(0.0, self.spent - (self.now - self.heard_at) * CALM_RATE)
        self.heard_at = self.now

    def charge(self) -> None:
        """A frame that brings nothing forward: so many are allowed, and then it is an attack (RFC 9113 §10.5)."""
        self.regain()
        self.spent += 1.0
        if self.spent > CALM_BURST:
            allowed = f"allowed are {CALM_BURST:g} at once and {CALM_RATE:g} a second"
            raise ConnectionFault(ENHANCE_YOUR_CALM, f"too many frames that bring nothing forward: {allowed} (§10.5)")

    def ping(self) -> None:
        """A PING of ours, to learn whether the peer lives (§6.7), unless one is in flight."""
        control = self.own_control()
        if control.ping_at == NEVER:
            self.out.append(frames.encode_ping(control.pings.to_bytes(8, "big"), 0))
            control.ping_at = self.now
            control.pings += 1
            self.wake = min(self.wake, self.now + PING_LIMIT)

    def terminate(self, code: int, reason: str) -> None:
        """A connection error (§5.4.1): GOAWAY, and every request fails."""
        self.out.append(frames.encode_goaway(self.control.last_push, code, b""))
        self.end(Failure("RemoteProtocolError", code, f"{reason} [{error_name(code)}]"), 0)

    def end(self, failure: Failure | None, unsent: int) -> None:
        """The connection is over: every request fails; those whose head ends in the last `unsent` bytes never left."""
        sent = self.written + sum([len(data) for data in self.out]) - unsent
        for stream in all_streams(self.streams):
            unprocessed = stream.head_offset > sent
            kind, code, message, clock = (
                ("ReadError", -1, "", "")
                if failure is None
                else (failure.kind, failure.code, failure.message, failure.clock)
            )
            if unprocessed and kind == "ReadError":
                kind, message = "WriteError", f"{message}; the request had not left"
            self.leave(stream)
            self.events.append(
                RequestFailed(stream.ref, Failure(kind, code, message, stream.ref, unprocessed, -1, clock))
            )
        control = self.own_control()
        control.unsent = {}
        control.unconfirmed = {}
        control.block = None
        control.pending = ()
        control.quiet = -1
        self.status = CLOSED
        self.buffer = b""
        self.partial = None
        self.wake = INFINITY
        self.events.append(ConnectionClosed(failure))
