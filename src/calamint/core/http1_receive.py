"""RFC 9112 §4 to §7: what arrives. A head, content in its framing, trailers, and what follows from their end."""

from typing import Final

from calamint.core import events, http1_parse
from calamint.core.exchange import (
    CONNECTING,
    EXPECTING,
    LOCAL_AWAITING,
    LOCAL_RECEIVING,
    OPEN_AWAITING,
    OPEN_RECEIVING,
    REFUSED,
    TUNNEL,
    Exchange,
    Upload,
)
from calamint.core.http1_parse import CRLF, fault
from calamint.core.http1_state import (
    CHUNK_DATA,
    CHUNK_END,
    CHUNK_LINE,
    CHUNK_SIZE,
    EMPTY_LINE,
    FIELD_LINES,
    INTERIM_LIMIT,
    OPEN,
    SIZED,
    STATUS_LINE,
    TRAILERS,
    UNTIL_CLOSE,
    Draft,
    Setup,
)
from calamint.core.value import NEVER

# What the head of the final response makes of a state.
ANSWERED: Final[dict[int, int]] = {
    EXPECTING: REFUSED,
    CONNECTING: REFUSED,
    OPEN_AWAITING: OPEN_RECEIVING,
    LOCAL_AWAITING: LOCAL_RECEIVING,
}


def recv_bytes(draft: Draft, data: bytes) -> None:
    """Takes all that is complete, and content that is not. A byte is looked at once, or a few times in a short line."""
    searched = 0
    if draft.buffer:
        searched = max(0, len(draft.buffer) - 3)  # no empty line begins there
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
    record = draft.requests[0]
    connects = record.state == CONNECTING
    head = http1_parse.decode_head(data[: cut + 2], settings.max_field_section, settings.max_fields, connects)
    start = cut + len(EMPTY_LINE)
    draft.reading = STATUS_LINE
    if not head.minor and draft.setup.chunks:
        draft.setup = Setup(draft.setup.origin, settings, False)
    if head.closes:
        draft.last_ref = record.ref
    if head.status < 200 and head.status != 101:
        recv_interim(draft, draft.own(record), head)
        return start
    draft.interims = 0
    draft.events.append(events.ResponseReceived(record.ref, head.status, head.fields, head.reason))
    if head.status == 101 or (connects and head.status < 300):
        recv_upgrade(draft, draft.own(record), head)
        return start
    framing = http1_parse.body_framing(record.method, head)
    if 0 <= framing <= len(data) - start:  # all of it is here, and nobody will look at the record again
        if framing:
            draft.events.append(events.DataReceived(record.ref, data[start : start + framing]))
        recv_end(draft, record)
        return start + framing
    record = draft.own(record)
    record.state = ANSWERED[record.state]
    if record.state == REFUSED and record.upload is not None:
        record.upload.drop()
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
    draft.interims += 1
    if draft.interims > INTERIM_LIMIT:
        raise fault(f"interim responses above our limit: allowed are {INTERIM_LIMIT} (RFC 9110 §15.2)")
    record.interim_at = draft.now
    draft.events.append(events.InterimReceived(record.ref, head.status, head.fields))
    if head.status == 100 and record.state == EXPECTING:
        record.state = OPEN_AWAITING
        draft.release(record)


def recv_upgrade(draft: Draft, record: Exchange, head: http1_parse.ResponseHead) -> None:
    """101 to a request that asked for it (RFC 9110 §7.8), or 2xx to CONNECT (§9.3.6): what follows is a tunnel, which ends
    with the connection; "a client MUST ignore any Content-Length or Transfer-Encoding"."""
    if head.status == 101 and record.ref != draft.upgrade_ref:
        raise fault("101 (Switching Protocols) although no upgrade was asked for (RFC 9110 §15.2.2)")
    record.state = TUNNEL
    record.status = head.status
    record.head_at = draft.now
    draft.reading = UNTIL_CLOSE
    draft.last_ref = record.ref
    draft.events.append(events.Upgraded(record.ref))
    if record.upload is None:
        record.upload = Upload()
    elif head.status == 101:  # the request was complete, and what is left of it goes first
        record.upload.ending = False
        record.upload.left = -1
    draft.release(record)


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
    record.note_content(len(piece), draft.now)
    if draft.events and isinstance(draft.events[-1], events.DataReceived):
        draft.cut = True
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


def recv_end(draft: Draft, record: Exchange, unsent: int = 0) -> None:
    """The response is complete. If our content is not, it is dropped and the connection closes: its rest is still owed.

    `unsent`: how many bytes of the output never left, where that is known."""
    draft.events.append(events.ResponseEnded(record.ref))
    draft.requests = draft.requests[1:]
    draft.reading = STATUS_LINE
    if record.ref == draft.upgrade_ref:
        draft.upgrade_ref = 0  # it is over: "a server MAY ignore a received Upgrade header field" (RFC 9110 §7.8)
    owed = EXPECTING <= record.state <= TUNNEL and record.method != "CONNECT"  # a CONNECT that is refused owes nothing
    if record.ref == draft.last_ref or owed:
        if draft.requests:
            draft.fail(
                "ReadError", f"the connection closed with the response to request {record.ref}", draft.written - unsent
            )
        else:
            draft.end(None)
    elif draft.requests:
        following = draft.own(draft.requests[0])  # its turn comes only now: its clocks begin here
        if following.sent_at > NEVER:
            following.sent_at = draft.now
        draft.wake = min(draft.wake, following.running_clock(draft.flushed)[0])
