"""Every cell of the grid of stream states, against the sentence of RFC 9113 that decides it.

The table below was written from the RFC, seen from a client. A column is what one frame, or one flag of it, does; END_STREAM
is a step of its own, after the frame that bears it. Where the RFC says MAY, the reason says so.
"""

from typing import Final, NamedTuple

import pytest

from calamint.core import streams
from calamint.core.exchange import (
    CONNECTING,
    ENDED,
    EXPECTING,
    IDLE,
    LOCAL_AWAITING,
    LOCAL_RECEIVING,
    OPEN_AWAITING,
    OPEN_RECEIVING,
    REFUSED,
    REMOTE,
    RESERVED,
    RESET_BY_PEER,
    RESET_BY_US,
    STATE_NAMES,
    TUNNEL,
    TUNNEL_LOCAL,
)
from calamint.core.streams import (
    CLOSED,
    IGNORE,
    ILLEGAL,
    MALFORMED,
    MISUSE,
    RECV_CONTINUE,
    RECV_DATA,
    RECV_END,
    RECV_FINAL,
    RECV_INTERIM,
    RECV_PROMISE,
    RECV_RESET,
    RECV_SUCCESS,
    RECV_TRAILERS,
    RECV_WINDOW,
    SEND_CONNECT,
    SEND_END,
    SEND_EXPECT,
    SEND_HEAD,
    SEND_RESET,
)

STATES: Final = (
    *(IDLE, EXPECTING, CONNECTING, OPEN_AWAITING, OPEN_RECEIVING, REFUSED, TUNNEL, LOCAL_AWAITING, LOCAL_RECEIVING),
    *(TUNNEL_LOCAL, RESERVED, REMOTE, ENDED, RESET_BY_US, RESET_BY_PEER),
)
COLUMNS: Final = (
    *(SEND_HEAD, SEND_EXPECT, SEND_CONNECT, SEND_END, SEND_RESET),
    *(RECV_PROMISE, RECV_CONTINUE, RECV_INTERIM, RECV_SUCCESS, RECV_FINAL),
    *(RECV_DATA, RECV_TRAILERS, RECV_END, RECV_RESET, RECV_WINDOW),
)
RECEIVED: Final = COLUMNS[5:]
VERDICTS: Final = (IGNORE, MALFORMED, CLOSED, ILLEGAL, MISUSE)
OVER: Final = (ENDED, RESET_BY_US, RESET_BY_PEER)


class Cell(NamedTuple):
    """What the grid must say, and the section of RFC 9113 with the reason."""

    state: int
    column: int
    expected: int
    section: str
    reason: str


# The reasons that decide more than one cell.
ONE_HEAD = "8.1", "one exchange consumes the stream: a second request head needs a second stream"
DONE_SENDING = "5.1", "half-closed (local) sends nothing but WINDOW_UPDATE, PRIORITY and RST_STREAM"
NOT_IDLE = "5.1", "in idle, any frame but HEADERS and PRIORITY is a connection error PROTOCOL_ERROR"
NOT_OURS = "5.1.1", "HEADERS with a stream identifier that nobody expects is a connection error PROTOCOL_ERROR"
MAY_RESET = "5.1", "from here either side can send RST_STREAM and the stream is closed at once"
MAY_BE_RESET = "6.4", "RST_STREAM received ends the stream, and none goes back"
WINDOW = "6.9", "a WINDOW_UPDATE moves a window, not the stream"
DATA_FIRST = "8.1", "a response begins with HEADERS: content before the final head is malformed"
NO_STATUS = "8.3.2", "a section without :status before the final head is no response: malformed"
INTERIM_END = "8.1", "END_STREAM on an informational response is malformed"
INTERIM = "8.1", "any number of informational heads precede the final one"
FINAL = "8.1", "the final head, once"
SECOND_HEAD = "8.1", "after the final head only trailers may follow, and they have no :status: malformed"
CONTENT = "8.1", "content follows the final head"
TRAILERS = "8.1", "trailers follow the content; END_STREAM comes with them as a step of its own"
AFTER_END = "5.1", "half-closed (remote) gets WINDOW_UPDATE, PRIORITY and RST_STREAM; else stream error STREAM_CLOSED"
NO_MORE = "5.1", "nothing but PRIORITY is sent on a closed stream"
LATE = "5.1", "an endpoint can do the minimal processing, and then discard, for every closed stream (MAY)"
UNDERWAY = "5.1", "who sent RST_STREAM must process minimally, and discard, whatever was on its way"
CROSSED = "5.1", "a WINDOW_UPDATE or RST_STREAM may arrive before the peer knows that the stream is closed"
PROMISE = "6.6", "PUSH_PROMISE comes on a stream that is open or half-closed (local)"
NO_PROMISE = "6.6", "on a stream that is neither open nor half-closed (local) it is a connection error PROTOCOL_ERROR"
LATE_PROMISE = "6.6", "who sent RST_STREAM must handle a PUSH_PROMISE made before it came: it is refused"
HELD = "RFC 9110 10.1.1", "content is held back until the peer has answered: its end cannot be sent"
HELD_TUNNEL = "RFC 9110 9.3.6", "nothing goes through a tunnel before the peer has made it"
NOT_WANTED = "RFC 9110 10.1.1", "a final status instead of 100: the content is not wanted"
NO_HTTP = "8.5", "in a tunnel, frames other than DATA and stream management are a stream error PROTOCOL_ERROR"
RESERVED_ONLY = (
    "5.1",
    "in reserved (remote), anything but HEADERS, RST_STREAM, PRIORITY is a connection error PROTOCOL_ERROR",
)
NOT_OPENED_BY_US = "5.1", "in reserved (remote) we send nothing but RST_STREAM, WINDOW_UPDATE and PRIORITY"
NO_ECHO = "5.4.2", "no RST_STREAM in response to RST_STREAM; the rest is discarded like on any closed stream (MAY)"


def row(state: int, *cells: tuple[int, tuple[str, str]]) -> list[Cell]:
    """One state's cells, in the order of the columns."""
    return [Cell(state, column, cell[0], *cell[1]) for column, cell in zip(COLUMNS, cells, strict=True)]


TABLE: Final = [
    *row(
        IDLE,
        (OPEN_AWAITING, ("5.1", "sending HEADERS opens the stream")),
        (EXPECTING, ("RFC 9110 10.1.1", "sending HEADERS opens the stream, and content waits for 100")),
        (CONNECTING, ("8.5", "sending HEADERS opens the stream, and the tunnel waits for a 2xx")),
        (MISUSE, ("8.1", "END_STREAM stands on HEADERS or DATA: there is none yet")),
        (MISUSE, ("6.4", "RST_STREAM must not be sent for an idle stream")),
        (ILLEGAL, NO_PROMISE),
        *[(ILLEGAL, NOT_OURS)] * 4,
        (ILLEGAL, NOT_IDLE),
        (ILLEGAL, NOT_OURS),
        (ILLEGAL, NOT_IDLE),
        (ILLEGAL, ("6.4", "RST_STREAM for an idle stream is a connection error PROTOCOL_ERROR")),
        (ILLEGAL, NOT_IDLE),
    ),
    *row(
        EXPECTING,
        *[(MISUSE, ONE_HEAD)] * 3,
        (MISUSE, HELD),
        (RESET_BY_US, MAY_RESET),
        (EXPECTING, PROMISE),
        (OPEN_AWAITING, ("RFC 9110 10.1.1", "100 (Continue): the content may go")),
        (EXPECTING, INTERIM),
        *[(REFUSED, NOT_WANTED)] * 2,
        (MALFORMED, DATA_FIRST),
        (MALFORMED, NO_STATUS),
        (MALFORMED, INTERIM_END),
        (RESET_BY_PEER, MAY_BE_RESET),
        (EXPECTING, WINDOW),
    ),
    *row(
        CONNECTING,
        *[(MISUSE, ONE_HEAD)] * 3,
        (MISUSE, HELD_TUNNEL),
        (RESET_BY_US, MAY_RESET),
        (CONNECTING, PROMISE),
        *[(CONNECTING, INTERIM)] * 2,
        (TUNNEL, ("8.5", "a 2xx makes the tunnel: DATA from here on is what goes through it")),
        (REFUSED, ("RFC 9110 9.3.6", "any other final response: no tunnel has been formed")),
        (MALFORMED, DATA_FIRST),
        (MALFORMED, NO_STATUS),
        (MALFORMED, INTERIM_END),
        (RESET_BY_PEER, MAY_BE_RESET),
        (CONNECTING, WINDOW),
    ),
    *row(
        OPEN_AWAITING,
        *[(MISUSE, ONE_HEAD)] * 3,
        (LOCAL_AWAITING, ("5.1", "END_STREAM sent on an open stream makes it half-closed (local)")),
        (RESET_BY_US, MAY_RESET),
        (OPEN_AWAITING, PROMISE),
        *[(OPEN_AWAITING, INTERIM)] * 2,
        *[(OPEN_RECEIVING, FINAL)] * 2,
        (MALFORMED, DATA_FIRST),
        (MALFORMED, NO_STATUS),
        (MALFORMED, INTERIM_END),
        (RESET_BY_PEER, MAY_BE_RESET),
        (OPEN_AWAITING, WINDOW),
    ),
    *row(
        OPEN_RECEIVING,
        *[(MISUSE, ONE_HEAD)] * 3,
        (LOCAL_RECEIVING, ("5.1", "END_STREAM sent on an open stream makes it half-closed (local)")),
        (RESET_BY_US, MAY_RESET),
        (OPEN_RECEIVING, PROMISE),
        *[(MALFORMED, SECOND_HEAD)] * 4,
        (OPEN_RECEIVING, CONTENT),
        (OPEN_RECEIVING, TRAILERS),
        (REMOTE, ("5.1", "END_STREAM received on an open stream makes it half-closed (remote)")),
        (RESET_BY_PEER, MAY_BE_RESET),
        (OPEN_RECEIVING, WINDOW),
    ),
    *row(
        REFUSED,
        *[(MISUSE, ONE_HEAD)] * 3,
        (MISUSE, NOT_WANTED),
        (RESET_BY_US, MAY_RESET),
        (REFUSED, PROMISE),
        *[(MALFORMED, SECOND_HEAD)] * 4,
        (REFUSED, CONTENT),
        (REFUSED, TRAILERS),
        (REMOTE, ("5.1", "END_STREAM received on an open stream makes it half-closed (remote)")),
        (RESET_BY_PEER, MAY_BE_RESET),
        (REFUSED, WINDOW),
    ),
    *row(
        TUNNEL,
        *[(MISUSE, ONE_HEAD)] * 3,
        (TUNNEL_LOCAL, ("8.5", "END_STREAM is what FIN is to TCP: our half is closed")),
        (RESET_BY_US, MAY_RESET),
        (MALFORMED, NO_HTTP),
        *[(MALFORMED, SECOND_HEAD)] * 4,
        (TUNNEL, ("8.5", "DATA is what goes through the tunnel")),
        (MALFORMED, NO_HTTP),
        (REMOTE, ("5.1", "END_STREAM received on an open stream makes it half-closed (remote)")),
        (RESET_BY_PEER, MAY_BE_RESET),
        (TUNNEL, WINDOW),
    ),
    *row(
        LOCAL_AWAITING,
        *[(MISUSE, DONE_SENDING)] * 3,
        (MISUSE, DONE_SENDING),
        (RESET_BY_US, MAY_RESET),
        (LOCAL_AWAITING, PROMISE),
        *[(LOCAL_AWAITING, INTERIM)] * 2,
        *[(LOCAL_RECEIVING, FINAL)] * 2,
        (MALFORMED, DATA_FIRST),
        (MALFORMED, NO_STATUS),
        (MALFORMED, INTERIM_END),
        (RESET_BY_PEER, MAY_BE_RESET),
        (LOCAL_AWAITING, WINDOW),
    ),
    *row(
        LOCAL_RECEIVING,
        *[(MISUSE, DONE_SENDING)] * 3,
        (MISUSE, DONE_SENDING),
        (RESET_BY_US, MAY_RESET),
        (LOCAL_RECEIVING, PROMISE),
        *[(MALFORMED, SECOND_HEAD)] * 4,
        (LOCAL_RECEIVING, CONTENT),
        (LOCAL_RECEIVING, TRAILERS),
        (ENDED, ("5.1", "END_STREAM received in half-closed (local) closes the stream")),
        (RESET_BY_PEER, MAY_BE_RESET),
        (LOCAL_RECEIVING, WINDOW),
    ),
    *row(
        TUNNEL_LOCAL,
        *[(MISUSE, DONE_SENDING)] * 3,
        (MISUSE, DONE_SENDING),
        (RESET_BY_US, MAY_RESET),
        (MALFORMED, NO_HTTP),
        *[(MALFORMED, SECOND_HEAD)] * 4,
        (TUNNEL_LOCAL, ("8.5", "DATA is what goes through the tunnel")),
        (MALFORMED, NO_HTTP),
        (ENDED, ("5.1", "END_STREAM received in half-closed (local) closes the stream")),
        (RESET_BY_PEER, MAY_BE_RESET),
        (TUNNEL_LOCAL, WINDOW),
    ),
    *row(
        RESERVED,
        *[(MISUSE, NOT_OPENED_BY_US)] * 4,
        (RESET_BY_US, MAY_RESET),
        (ILLEGAL, ("6.6", "a PUSH_PROMISE on a stream that the peer opened is a connection error PROTOCOL_ERROR")),
        *[(LOCAL_AWAITING, ("5.1", "any HEADERS make a reserved (remote) stream half-closed (local)"))] * 2,
        *[(LOCAL_RECEIVING, ("5.1", "HEADERS make a reserved (remote) stream half-closed (local)"))] * 2,
        (ILLEGAL, RESERVED_ONLY),
        (MALFORMED, NO_STATUS),
        (MALFORMED, INTERIM_END),
        (RESET_BY_PEER, MAY_BE_RESET),
        (ILLEGAL, RESERVED_ONLY),
    ),
    *row(
        REMOTE,
        *[(MISUSE, ONE_HEAD)] * 3,
        (ENDED, ("5.1", "END_STREAM sent in half-closed (remote) closes the stream")),
        (RESET_BY_US, MAY_RESET),
        (ILLEGAL, NO_PROMISE),
        *[(CLOSED, AFTER_END)] * 7,
        (RESET_BY_PEER, MAY_BE_RESET),
        (REMOTE, WINDOW),
    ),
    *row(ENDED, *[(MISUSE, NO_MORE)] * 5, (IGNORE, LATE_PROMISE), *[(IGNORE, LATE)] * 7, *[(IGNORE, CROSSED)] * 2),
    *row(
        RESET_BY_US,
        *[(MISUSE, NO_MORE)] * 5,
        (IGNORE, LATE_PROMISE),
        *[(IGNORE, UNDERWAY)] * 7,
        *[(IGNORE, CROSSED)] * 2,
    ),
    *row(
        RESET_BY_PEER,
        *[(MISUSE, NO_MORE)] * 5,
        (IGNORE, LATE_PROMISE),
        *[(IGNORE, NO_ECHO)] * 7,
        *[(IGNORE, CROSSED)] * 2,
    ),
]


def look_up(state: int, column: int) -> int:
    return streams.GRID[state * streams.COLUMNS + column]


@pytest.mark.parametrize(
    "cell", TABLE, ids=lambda cell: f"{STATE_NAMES[cell.state]}: {streams.COLUMN_NAMES[cell.column]}"
)
@pytest.mark.rfc(
    "9113-5.1-1",
    "9113-5.1-2",
    "9113-5.1-3",
    "9113-5.1-4",
    "9113-5.1-5",
    "9113-5.1-6",
    "9113-5.1-7",
    "9113-6.1-3",
    "9113-6.1-6",
    "9113-6.4-4",
)
def test_cell(cell: Cell) -> None:
    assert look_up(cell.state, cell.column) == cell.expected, f"RFC 9113 §{cell.section}: {cell.reason}"


def test_no_cell_is_untested() -> None:
    assert [(cell.state, cell.column) for cell in TABLE] == [(state, column) for state in STATES for column in COLUMNS]
    assert len(TABLE) == len(streams.GRID) == len(STATE_NAMES) * streams.COLUMNS
    assert [COLUMNS.index(column) for column in sorted(COLUMNS)] == list(range(streams.COLUMNS))


def test_a_cell_is_a_state_or_a_verdict_and_never_both() -> None:
    assert not set(STATES) & set(VERDICTS)
    assert set(streams.GRID) <= {*STATES, *VERDICTS}
    assert all([verdict >= IGNORE for verdict in VERDICTS])
    assert all([state < IGNORE for state in STATES])
    assert set(VERDICTS) <= set(streams.GRID)


def test_names_stand_for_what_they_say() -> None:
    assert len(STATE_NAMES) == len(STATES)
    assert len(streams.COLUMN_NAMES) == len(set(streams.COLUMN_NAMES)) == streams.COLUMNS
    for column in COLUMNS:
        word = "receive " if column in RECEIVED else "send "
        assert streams.COLUMN_NAMES[column].startswith(word)


def test_our_own_mistakes_are_never_the_peers_and_the_other_way_round() -> None:
    """Only a call of ours can be misuse, and a call of ours is nothing else but a step or misuse."""
    for state in STATES:
        for column in COLUMNS:
            verdict = look_up(state, column)
            if column in RECEIVED:
                assert verdict != MISUSE
            else:
                assert verdict == MISUSE or verdict in STATES


def test_every_state_is_reached_and_the_closed_ones_are_never_left() -> None:
    reached = {IDLE, RESERVED}  # a promise on another stream reserves one (§5.1)
    for _ in STATES:
        reached |= {look_up(state, column) for state in reached for column in COLUMNS} & set(STATES)
    assert reached == set(STATES)
    for state in OVER:
        assert not {look_up(state, column) for column in COLUMNS} & set(STATES)
    assert IDLE not in streams.GRID


def test_a_stream_ends_only_when_both_sides_have() -> None:
    """§5.1: END_STREAM in both directions, or RST_STREAM in one."""
    ways = {(state, column) for state in STATES for column in COLUMNS if look_up(state, column) == ENDED}
    assert ways == {(LOCAL_RECEIVING, RECV_END), (TUNNEL_LOCAL, RECV_END), (REMOTE, SEND_END)}


def test_a_reset_always_closes_an_open_stream() -> None:
    """§6.4: "The RST_STREAM frame fully terminates the referenced stream"."""
    for state in STATES:
        if state != IDLE and state not in OVER:
            assert (look_up(state, SEND_RESET), look_up(state, RECV_RESET)) == (RESET_BY_US, RESET_BY_PEER)


def test_a_forgotten_stream_is_judged_like_each_closed_one() -> None:
    """So nothing depends on how long closed streams are remembered."""
    for column in COLUMNS:
        assert len({look_up(state, column) for state in OVER}) == 1
