"""What must hold after every step, at every full check, at rest, and at the end of each request. The oracle is the model server.

A law that does not hold raises `Violation` with the law's name; the world adds seed, step and script.
"""

import pickle
from random import Random
from typing import TYPE_CHECKING, Final, TypeAlias

from calamint import core
from calamint.core import streams as core_streams
from calamint.core.exchange import Exchange, may_send
from calamint.core.http1_state import HTTP1Connection
from calamint.core.http2_state import HTTP2Connection
from tests.world.model_frames import DATA, MAX_CONCURRENT, NO_ERROR, RST_STREAM
from tests.world.model_http2 import Http2Model
from tests.world.plans import INFINITY, pattern

if TYPE_CHECKING:
    from tests.world.caller import Caller, Request
    from tests.world.pool_line import Line

    Side: TypeAlias = Caller | Line  # who holds a connection: a caller alone with it, or a pool's driver

LAWS: Final = {
    "slots": "slots = live + unsent + unconfirmed, and the live ones are those that have not ended",
    "peer's count": "no stream counts at the server that holds no slot here, and none here that the server has closed",
    "windows": "both sides agree on every window, and unread content accounts for the rest",
    "one ending": "each request ends once, and nothing follows",
    "truth": "status, fields, content and trailers are those that the server sent, and a whole response was sent whole",
    "cause": "a request fails for a reason of its own, or with its connection",
    "silence": "every request ends within its clocks, and the timer is never late",
    "index": "nothing stands in an index that should be gone",
    "bounded": "what the value holds stays within its limits",
    "purity": "the same value and arguments give the same result, and the value stays as it was",
    "any split": "the same bytes cut in another way give the same events and the same value",
    "pickle": "a value comes back from its pickle as it was",
    "never raises": "no verb raises for what the peer did",
    "unprocessed": "unprocessed requests have not been acted on",
    "rest": "with no request in flight both ledgers are at rest, and credit has come back",
    "server": "what the client sends is within the RFC",
    "progress": "the world comes to an end",
}


class Violation(Exception):
    def __init__(self, law: str, text: str) -> None:
        super().__init__(f"{law}: {text}")
        self.law = law
        self.text = text


TICK = 1e-6  # clocks are compared with that much tolerance: sums of floats


# --- after every step


def check_step(world: "Side", touched: set[int]) -> None:
    conn = world.conn
    if world.model.violations:
        raise Violation("server", world.model.violations[0])
    if isinstance(conn, HTTP2Connection):
        if conn.live != len(world.active):
            raise Violation("slots", f"live is {conn.live}, {len(world.active)} requests have not ended")
        free = max(0, conn.peer.limit - slots(conn))
        if conn.status == 0 and core.capacity(conn) != free:
            raise Violation("slots", f"capacity {core.capacity(conn)}, {free} slots are free")
        frame = conn.setup.settings.max_frame_size
        if len(conn.buffer) > frame + 9:
            raise Violation("bounded", f"{len(conn.buffer)} bytes wait for a frame of at most {frame}")
        for request in world.reset:
            waits = conn.control.unsent.keys() | conn.control.unconfirmed.keys()
            if conn.status != 2 and conn.frames == request.frames and request.ref not in waits:
                raise Violation(
                    "slots", f"stream {request.ref} was reset before the peer showed life, and holds no slot"
                )
        world.reset.clear()
        for ref in touched:
            if ref in world.active:
                check_stream(world, conn, ref)
            elif core_streams.find_stream(conn.streams, ref) is not None:
                raise Violation("index", f"request {ref} has ended and stands among the streams")
    else:
        if len(conn.requests) != len(world.active):
            raise Violation("slots", f"{len(conn.requests)} requests stand there, {len(world.active)} have not ended")
        if len(conn.requests) > conn.setup.settings.pipeline:
            raise Violation(
                "slots", f"{len(conn.requests)} requests at once, allowed are {conn.setup.settings.pipeline}"
            )
        for place, record in enumerate(conn.requests):
            asked = world.active.get(record.ref)
            check_time(world, asked, record, place)
            if asked is not None and record.unread != asked.unread:
                raise Violation(
                    "windows", f"request {record.ref}: unread {record.unread}, its reader holds {asked.unread}"
                )
            if record.unread > conn.setup.settings.stream_window + 262_144:
                raise Violation("bounded", f"request {record.ref}: {record.unread} bytes unread")
        section = conn.setup.settings.max_field_section
        if len(conn.buffer) > section + 70_000:
            raise Violation("bounded", f"{len(conn.buffer)} bytes wait")


def slots(conn: HTTP2Connection) -> int:
    control = conn.control
    return conn.live - len(control.pushes) + len(control.unsent) + len(control.unconfirmed)


def check_stream(world: "Side", conn: HTTP2Connection, ref: int) -> None:
    stream = core_streams.find_stream(conn.streams, ref)
    if stream is None:
        raise Violation("index", f"request {ref} has not ended and is not among the streams")
    if stream.ref != ref:
        raise Violation("index", f"under {ref} stands {stream.ref}")
    request = world.active[ref]
    size = conn.setup.settings.stream_window + request.grown
    left = conn.partial[1] if conn.partial is not None and conn.partial[0] == ref else 0
    if stream.recv_window + stream.credit + stream.unread + left != size:
        parts = f"{stream.recv_window} + credit {stream.credit} + unread {stream.unread} + to come {left}"
        raise Violation("windows", f"stream {ref}: {parts} is not {size}")
    if stream.unread != request.unread:
        raise Violation("windows", f"stream {ref}: unread {stream.unread}, the reader holds {request.unread}")
    upload = stream.upload
    if upload is not None and upload.queued > request.given - upload.sent:
        raise Violation("truth", f"stream {ref}: {request.given} given, {upload.sent} sent, {upload.queued} queued")
    if upload is not None and upload.queued and ref not in conn.ready and may_send(stream):
        if stream.send_window + conn.peer.initial_window > 0:
            raise Violation("progress", f"stream {ref} has content and a window, and is not ready")
    check_time(world, request, stream)


def check_time(world: "Side", request: "Request | None", record: Exchange, place: int = 0) -> None:
    """`place`: in an HTTP/1.1 pipeline; behind the first only the deadline runs."""
    conn = world.conn
    if request is None:
        raise Violation("index", f"request {record.ref} has ended and stands there")
    due = record.running_clock(conn.flushed)[0] if place == 0 else record.deadline
    if conn.wake > due + TICK:
        raise Violation("silence", f"request {record.ref} is due at {due}, the timer is set to {conn.wake}")
    now = world.clock.now
    if now > request.deadline + TICK:
        raise Violation("silence", f"request {record.ref} goes on {now - request.deadline:.6f} s after its deadline")
    if place or request.upgraded:
        return
    active_at = max(request.active_at, record.sent_at)
    if record.upload is not None and (record.upload.queued or not record.upload.ending or world.outbox):
        active_at = max(active_at, world.received_at, world.sent_at, conn.flushed[1])
    if now > active_at + request.longest + TICK:
        silence = f"{now - active_at:.3f} s of silence, its longest clock is {request.longest}"
        raise Violation("silence", f"request {record.ref} goes on after {silence}")


# --- every fifty steps


def check_all(world: "Side") -> None:
    conn = world.conn
    if isinstance(conn, HTTP1Connection):
        return
    refs: set[int] = set()
    count = 0
    for number, leaf in conn.streams.items():
        if not leaf:
            raise Violation("index", f"leaf {number} of the streams is empty")
        refs.update(leaf)
        count += len(leaf)
    if refs != world.active.keys() or count != len(refs):
        raise Violation("index", f"streams {sorted(refs ^ world.active.keys())} stand on one side only")
    control = conn.control
    for name, index in (("unsent", control.unsent), ("unconfirmed", control.unconfirmed)):
        if refs & index.keys():
            raise Violation("index", f"{sorted(refs & index.keys())} live and {name}")
    if control.unsent.keys() & control.unconfirmed.keys():
        raise Violation("index", "unsent and unconfirmed at once")
    if not refs.issuperset(conn.ready) or len(set(conn.ready)) != len(conn.ready):
        raise Violation("index", f"ready names {sorted(set(conn.ready) - refs)}, or one twice")
    for ref in refs:
        check_stream(world, conn, ref)
    settings = conn.setup.settings
    if conn.unflushed <= settings.output_budget or settings.output_budget > world.budget:
        world.budget = settings.output_budget
    if conn.unflushed > world.budget + 65_536:
        raise Violation("bounded", f"{conn.unflushed} bytes unflushed")
    if control.block is not None and len(control.block[2]) > settings.max_field_section + settings.max_frame_size:
        raise Violation("bounded", f"a field block of {len(control.block[2])} bytes")
    if not 0 <= conn.recv_window <= world.widest:
        raise Violation("windows", f"the connection's receive window is {conn.recv_window}")
    if conn.status == 0 and conn.partial is None and conn.recv_window * 2 <= settings.connection_window:
        raise Violation("windows", f"the connection's receive window is {conn.recv_window}, and no credit was given")
    memos = max(len(conn.encoder.blocks), len(conn.encoder.around), len(conn.decoder.memo))
    if memos > 520:
        raise Violation("bounded", f"a memo of {memos} entries")
    check_peer(world, conn)


def check_peer(world: "Side", conn: HTTP2Connection) -> None:
    """The two ledgers, as far as nothing on the way can explain a difference."""
    model = world.model
    if not isinstance(model, Http2Model) or conn.status == 2 or model.crimes or world.cut_off:
        return
    if world.outbox or world.up.held or not world.up.empty:
        return
    taken = slots(conn)
    own = [number for number, stream in model.live.items() if not stream.pushed]
    if len(own) > taken:
        raise Violation("peer's count", f"{len(own)} streams count at the server, {taken} slots are taken here")
    known = world.active.keys() | conn.control.unsent.keys() | conn.control.unconfirmed.keys()
    leaked = [number for number in own if number not in known]
    if leaked:
        raise Violation("peer's count", f"streams {leaked[:5]} count at the server and hold no slot here")
    if world.down.held or not world.down.empty or model.out:
        return
    gone = [ref for ref in world.active if ref not in model.live]
    if gone:
        raise Violation(
            "peer's count", f"requests {gone[:5]} have not ended here, their streams are over at the server"
        )
    check_windows(world, conn, model)


def check_windows(world: "Side", conn: HTTP2Connection, model: Http2Model) -> None:
    if conn.partial is not None or conn.buffer:
        raise Violation("windows", "nothing is on the way, and a frame is not complete")
    if conn.recv_window != model.send_window:
        raise Violation("windows", f"the connection takes {conn.recv_window}, the server may send {model.send_window}")
    if conn.send_window != model.receive_window:
        raise Violation(
            "windows", f"the connection may send {conn.send_window}, the server takes {model.receive_window}"
        )
    if model.unacknowledged or conn.control.pending:
        return
    limit = min(model.ours.get(MAX_CONCURRENT, INFINITY), conn.setup.settings.max_streams)
    if conn.peer.known and conn.peer.limit != limit:
        raise Violation("slots", f"the limit is {conn.peer.limit}, the server allows {limit}")
    for ref in world.active:
        stream, theirs = core_streams.find_stream(conn.streams, ref), model.live[ref]
        if stream is None:
            raise Violation("index", f"request {ref} is not among the streams")
        if stream.recv_window != theirs.send_window:
            raise Violation(
                "windows", f"stream {ref} takes {stream.recv_window}, the server may send {theirs.send_window}"
            )
        if stream.recv_window <= 0 and not stream.unread and stream.status:
            raise Violation("progress", f"stream {ref} takes nothing more, though everything was read")
        mine = stream.send_window + conn.peer.initial_window
        if stream.upload is not None and mine != theirs.receive_window and theirs.client_open:
            raise Violation("windows", f"stream {ref} may send {mine}, the server takes {theirs.receive_window}")


# --- with no request in flight, and nothing on the way


def check_rest(world: "Side") -> None:
    conn, model = world.conn, world.model
    check_all(world)
    if isinstance(conn, HTTP1Connection):
        if conn.status == 0 and (conn.buffer or conn.reading or conn.left):
            raise Violation("rest", "between two responses something is left over")
        return
    if conn.status == 2 or not isinstance(model, Http2Model) or world.cut_off:
        return
    check_flood(world, model)
    if model.crimes:
        return
    if conn.live or conn.streams or conn.ready or conn.control.unsent:
        raise Violation("rest", f"live {conn.live}, ready {conn.ready}, unsent {list(conn.control.unsent)}")
    if not model.habits.withhold and conn.control.unconfirmed:
        raise Violation("rest", f"unconfirmed {list(conn.control.unconfirmed)}, and the peer lives")
    due = model.unsettled(world.clock.now)
    if due:
        raise Violation("rest", "; ".join(due))
    if conn.status == 0 and not conn.control.unconfirmed and core.capacity(conn) != conn.peer.limit:
        raise Violation("rest", f"{core.capacity(conn)} of {conn.peer.limit} slots are free")


def check_flood(world: "Side", model: Http2Model) -> None:
    """A peer that sent more than the budget for frames without progress is cut off."""
    content = sum([served.received + served.sent for served in model.requests.values()])
    regained = (
        10 * (world.clock.now - world.met_at)
        + content / 128
        + 2 * model.received[DATA]
        + 4 * model.received[RST_STREAM]
    )
    if model.flooded > 1000 + regained + len(model.requests) * 10:
        raise Violation("bounded", f"{model.flooded} frames that bring nothing forward, and the connection goes on")


# --- the end of a connection


def check_closed(world: "Side") -> None:
    conn = world.conn
    if world.active:
        raise Violation("one ending", f"the connection is closed, requests {sorted(world.active)[:5]} have not ended")
    if core.capacity(conn) or core.in_flight(conn) or core.next_timeout(conn) != INFINITY or conn.buffer:
        raise Violation("index", "a closed connection has capacity, requests, a timer or bytes")
    if isinstance(conn, HTTP2Connection) and (conn.streams or conn.control.unsent or conn.control.unconfirmed):
        raise Violation("index", "a closed connection has streams")
    for step in (
        core.receive(conn, b"\0\0\0\4\0\0\0\0\0", world.clock.now),
        core.handle_timeout(conn, world.clock.now),
    ):
        if step[1] or step[2]:
            raise Violation("one ending", f"a closed connection says {step[1]!r} {step[2]}")


# --- the end of a request


def check_head(world: "Side", request: "Request", status: int, fields: tuple[tuple[bytes, bytes], ...]) -> None:
    if request.status:
        raise Violation("truth", f"request {request.ref} has two heads")
    if world.model.crimes:
        return
    served = world.model.requests.get(request.ask.key)
    if served is None or served.status != status:
        raise Violation("truth", f"request {request.ref} got {status}, {served} was sent")
    sent = tuple([pair for pair in served.fields if pair[0] != b":status"])
    if fields != sent and not served.crime:
        raise Violation("truth", f"request {request.ref} got {fields}, sent were {sent}")


def check_content(world: "Side", request: "Request", data: bytes) -> None:
    if not request.status:
        raise Violation("truth", f"request {request.ref} has content before its head")
    if data != pattern(request.ask.key, request.received, len(data)) and not world.model.crimes:
        served = world.model.requests.get(request.ask.key)
        if served is None or not served.crime:
            raise Violation("truth", f"request {request.ref}: content differs at {request.received}")


def check_ended(world: "Side", request: "Request") -> None:
    if world.model.crimes or (world.lost and world.protocol != "h2"):  # an end may complete a response
        return
    served = world.model.requests.get(request.ask.key)
    if served is not None and served.code == NO_ERROR and (b"content-length", b"%d" % served.sent) in served.fields:
        return  # all that was declared had come, and the rest of the stream was cut off without an error
    if served is None or not served.ended or served.crime:
        raise Violation("truth", f"request {request.ref} has a whole response, {served} was sent")
    seen = (request.status, request.received, request.trailers)
    if seen != (served.status, served.sent, served.trailers):
        raise Violation("truth", f"request {request.ref}: {seen} came, sent were {served}")
    if request.interims != served.interims:
        raise Violation("truth", f"request {request.ref}: {request.interims} interim responses, {served.interims} sent")


def check_failed(world: "Side", request: "Request", failure: core.Failure, with_connection: bool) -> None:
    model = world.model
    served = model.requests.get(request.ask.key)
    lied = bool(model.crimes) and failure.kind in ("ConnectionTerminated", "StreamReset")
    if failure.unprocessed and served is not None and served.acted and not lied:
        raise Violation("unprocessed", f"request {request.ref} failed as unprocessed, and was acted on: {failure}")
    if model.crimes or world.lost:
        return
    sized = request.ask.size > 0 and request.ask.style in ("whole", "declared") and not request.ask.expect
    if "no response head" in failure.message and sized and world.alone:  # the core watches content leave, not heads
        early = world.emptied_at + request.limits[0] - world.clock.now
        if early > TICK and failure.ref == request.ref:
            raise Violation(
                "cause", f"request {request.ref}: {early:.3f} s of the head clock ran before it had left: {failure}"
            )
    if with_connection:
        if not (world.closing or model.closing or (failure.kind == "ReadTimeout" and world.may_seem_gone)):
            if world.protocol == "h2" or failure.kind not in (
                "ReadTimeout",
                "WriteTimeout",
                "DeadlineExceeded",
            ):
                if served is None or not served.crime:
                    raise Violation("cause", f"the connection ended, and why? {failure}")
        return
    kind, now = failure.kind, world.clock.now
    if kind == "StreamClosed":
        if not request.cancelled:
            raise Violation("cause", f"request {request.ref} was not cancelled: {failure}")
    elif kind == "DeadlineExceeded":
        if now < request.deadline - TICK:
            raise Violation("cause", f"request {request.ref} failed {request.deadline - now:.6f} s early: {failure}")
    elif kind in ("ReadTimeout", "WriteTimeout"):
        check_timeout(request, now, failure)
    elif kind == "StreamReset":
        if served is None or served.code != failure.code:
            raise Violation("cause", f"request {request.ref}: {failure}, sent was {served}")
    elif kind == "ConnectionTerminated":
        if not isinstance(model, Http2Model) or model.goaway_last is None or request.ref <= model.goaway_last:
            raise Violation("cause", f"request {request.ref}: {failure}, and no GOAWAY excludes it")
    elif served is None or not served.crime:
        raise Violation("cause", f"request {request.ref} failed, and nothing was wrong: {failure}")


def check_timeout(request: "Request", now: float, failure: core.Failure) -> None:
    if now < request.issued_at + request.shortest - TICK:
        raise Violation(
            "cause", f"request {request.ref} failed {now - request.issued_at:.6f} s after it was sent: {failure}"
        )
    if failure.kind == "WriteTimeout" and not request.ask.size:
        raise Violation("cause", f"request {request.ref} has no content: {failure}")
    if request.ask.style == "whole" and not request.ask.size and not request.unread and not request.gave:
        head, idle = request.limits[0], request.limits[1]
        allowed = idle if request.status else head
        if now < request.active_at + allowed - TICK:
            early = request.active_at + allowed - now
            raise Violation("cause", f"request {request.ref} failed {early:.6f} s early: {failure}")


# --- the same again


def check_same(before: bytes, value: core.Connection, first: object, second: object) -> None:
    """`before` is the pickle of the value from before the verb; `first` and `second` what it gave."""
    if first != second:
        raise Violation("purity", "the same verb on the same value gave two results")
    if pickle.loads(before) != value:
        raise Violation("purity", "a verb changed the value that it was given")


def joined(events: list[core.Event]) -> list[core.Event | tuple[int, bytes]]:
    """Events with the pieces of data joined, without those that say that there is room."""
    result: list[core.Event | tuple[int, bytes]] = []
    for event in events:
        if isinstance(event, core.DataReceived):
            last = result[-1] if result else None
            if isinstance(last, tuple) and last[0] == event.ref:
                result[-1] = (event.ref, last[1] + event.data)
            else:
                result.append((event.ref, event.data))
        elif not isinstance(event, core.WindowOpened):
            result.append(event)
    return result


def check_split(
    old: core.Connection, data: bytes, now: float, rng: Random, whole: core.Connection, said: list[core.Event]
) -> None:
    """Feed the same bytes in pieces, and compare."""
    conn, events, at = old, [], 0
    while at < len(data):
        size = rng.choice((1, 2, 3, 9, 10, 100, 5000))
        conn, _, happened = core.receive(conn, data[at : at + size], now)
        events += happened
        at += size
    if joined(events) != joined(said):
        raise Violation("any split", f"events {joined(events)} against {joined(said)}")
    if isinstance(conn, HTTP2Connection) and isinstance(whole, HTTP2Connection):
        # Whether trailers that wait leave before the response has ended, and so enter the table, is seen once a call.
        waits = isinstance(old, HTTP2Connection) and any(
            [item.upload is not None and item.upload.trailers for item in core_streams.all_streams(old.streams)]
        )
        same_http2(conn, whole, not waits)
    elif conn != whole:
        raise Violation("any split", f"{conn} against {whole}")


def same_http2(one: HTTP2Connection, two: HTTP2Connection, encoders: bool) -> None:
    """`encoders`: whether the tables of what we send have to be the same."""
    for name in (
        "status",
        "peer",
        "live",
        "next_ref",
        *(["encoder"] if encoders else []),
        "decoder",
        "recv_window",
        "buffer",
        "partial",
        "frames",
    ):
        if getattr(one, name) != getattr(two, name):
            raise Violation("any split", f"{name}: {getattr(one, name)} against {getattr(two, name)}")
    # Not the pacer: whether content that waits leaves before the response has ended, and so whether a reset is needed,
    # is seen once a call.
    for name in ("goaway", "block", "acknowledged", "pending", "pushes", "last_push", "kept_at"):
        if getattr(one.control, name) != getattr(two.control, name):
            raise Violation("any split", f"{name}: {one.control} against {two.control}")
    for mine, theirs in zip(core_streams.all_streams(one.streams), core_streams.all_streams(two.streams), strict=True):
        for name in (
            "ref",
            "status",
            "received",
            "unread",
            "recv_window",
            "credit",
            "expected",
            "head_at",
            "last_data_at",
        ):
            if getattr(mine, name) != getattr(theirs, name):
                raise Violation("any split", f"{name} of {mine} against {theirs}")
