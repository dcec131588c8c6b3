"""RFC 9113 §8: what this side says. A request's field block, its content as windows and the output allow, its settings.

Output is handed out in order: heads and control frames at once, content while less than `output_budget` bytes of it are
unflushed. The rest waits in its stream's record, in turn, behind nothing that matters more.
"""

from collections import deque
from typing import Final

from calamint.core import frames, hpack
from calamint.core.errors import LocalProtocolError
from calamint.core.events import WindowOpened
from calamint.core.exchange import REFUSED, Exchange, Upload, may_send
from calamint.core.fields import check_method, check_target, check_trailers, expects_continue, find_length, for_http2
from calamint.core.http2_state import CALM_BYTES, CALM_FRAME, CALM_SAVED, Draft
from calamint.core.streams import COLUMNS, GRID, LEAF, SEND_END
from calamint.core.value import SECRET_FIELDS, Fields

HEAD_MEMO: Final = 256
MAX_FRAME: Final = 65_536  # we send no larger DATA, whatever the peer takes: its turn comes sooner


def encode_request(draft: Draft, method: str, target: str, fields: Fields, content: bytes | None, end: bool) -> bytes:
    """The request's field block (§8.3.1). What recurs is remembered with the table: the block, or what is around the path."""
    table = draft.encoder
    key = (method, target, fields)
    block = table.blocks.get(key, hpack.MARK)
    declared = -1  # what is remembered declares no length, and expects nothing
    if not block:
        check_target(method, target)
        before, after = encode_around(draft, method, fields)
        block = before + hpack.encode_path(target.encode("ascii")) + after
        declared = find_length(fields)
        if end and not content and (declared > 0 or expects_continue(fields)):
            what = f"content-length {declared}" if declared > 0 else "expect: 100-continue"
            raise LocalProtocolError(f"{what} without content (RFC 9110 §8.6, §10.1.1)")
        if declared < 0 and draft.encoder is table and (method, fields) in table.around:
            if len(table.blocks) >= HEAD_MEMO:
                table.blocks = {}
            table.blocks[key] = block if key in table.blocks else hpack.MARK
    if content is not None and end and declared < 0:
        block += hpack.encode_literal(0x00, 0x0F, 28, b"content-length", b"%d" % len(content))
    return block


def encode_connect(
    draft: Draft, method: str, target: str, fields: Fields, content: bytes | None, protocol: str
) -> bytes:
    """The field block of a CONNECT: without scheme and path (§8.5), or, with a protocol, the extended one (RFC 8441 §4)."""
    if method != "CONNECT":
        raise LocalProtocolError(f"protocol={protocol!r} goes with the method CONNECT, not {method} (RFC 8441 §4)")
    if content is not None or find_length(fields) >= 0 or expects_continue(fields):
        raise LocalProtocolError("CONNECT has no content: what goes through the tunnel comes later (RFC 9110 §9.3.6)")
    name: Fields = ((b":method", b"CONNECT"),)
    if not protocol:
        check_target(method, target)
        authority, kept = for_http2(fields, target.encode("ascii"))
        if authority != target.encode("ascii"):
            raise LocalProtocolError(f"host {authority!r} is not the target {target!r} of CONNECT (RFC 9110 §7.2)")
        first: Fields = (*name, (b":authority", authority))
    else:
        if not draft.peer.connects:
            raise LocalProtocolError(
                "the peer does not take the extended CONNECT, or has not said so yet (RFC 8441 §3)"
            )
        check_method(protocol)
        check_target("GET", target)
        authority, kept = for_http2(fields, draft.setup.authority)
        place: Fields = (
            (b":scheme", draft.setup.scheme),
            (b":authority", authority),
            (b":path", target.encode("ascii")),
        )
        first = (*name, (b":protocol", protocol.encode("ascii")), *place)
    draft.encoder, block = hpack.encode(draft.encoder, (*first, *kept))
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
    if draft.encoder is table and is_memorable(kept):
        if len(table.around) >= HEAD_MEMO:
            table.around = {}
        table.around[(method, fields)] = (before, after)
    return before, after


def is_memorable(fields: Fields) -> bool:
    """Whether these fields may be remembered: no secrets, and nothing that has to be checked each time."""
    for name, _ in fields:
        if name in SECRET_FIELDS or name == b"expect" or name == b"content-length":
            return False
    return True


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
        if stream.method == "CONNECT":
            raise LocalProtocolError("a tunnel has no trailers (RFC 9113 §8.5)")
        upload.trailers = for_http2(trailers, b"")[1]
    upload.add(data, draft.now)
    upload.ending = end or bool(trailers)
    stream.reader_at = draft.now
    if stream.state == REFUSED:
        upload.drop()
    elif may_send(stream) and (upload.queued or upload.ending):
        draft.make_ready(stream.ref)


def pump(draft: Draft) -> None:
    """Hand out content, a frame of each stream in turn, while the windows and the output budget allow (§5.2)."""
    budget = draft.setup.settings.output_budget
    if not draft.ready or draft.unflushed >= budget:
        return
    frame = min(draft.peer.max_frame_size, MAX_FRAME)
    written = draft.written + sum([len(part) for part in draft.out])
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
                if not upload.is_shut():
                    upload.shut_at = draft.now
                    draft.own_control().stalls += 1
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
        written += send_piece(draft, stream, upload, piece)
        if piece:
            upload.end = written
            draft.spent = max(CALM_SAVED, draft.spent - CALM_FRAME - len(piece) / CALM_BYTES)
    draft.ready = (*held, *turn)


def send_piece(draft: Draft, stream: Exchange, upload: Upload, piece: bytes) -> int:
    """One DATA frame, or what ends the content: END_STREAM needs no window, and trailers are a field block (§6.1, §8.1).
    Returns how many bytes that takes."""
    size = 0
    done = upload.ending and not upload.queued
    ends = done and not upload.trailers
    if piece or ends:
        flags = frames.END_STREAM if ends else 0
        draft.out.append(frames.encode_header(len(piece), frames.DATA, flags, stream.ref))
        draft.out.append(piece)
        size = frames.HEADER_SIZE + len(piece)
    if done and upload.trailers:
        draft.encoder, block = hpack.encode(draft.encoder, upload.trailers)
        head = frames.encode_head(stream.ref, block, True, draft.peer.max_frame_size)
        draft.out.append(head)
        size += len(head)
    if done:
        stream.state = GRID[stream.state * COLUMNS + SEND_END]
        stream.sent_at = draft.now
    elif piece and not upload.queued:
        draft.events.append(WindowOpened(stream.ref))
    return size
