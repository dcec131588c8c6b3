"""RFC 9113 §5.1 as a table, and the map of streams by their id.

Everything that decides a stream's next state stands in `GRID`: state × what happens → next state, or a verdict. A closed
stream is looked up under how it closed; where that is forgotten the verdict is the same, because "an endpoint can perform
this minimal processing for all streams that are in the 'closed' state": field blocks are decoded, DATA is counted against
the connection's window, and nothing is answered.
"""

from typing import Final

from calamint.core.exchange import (
    ENDED,
    LOCAL_AWAITING,
    LOCAL_RECEIVING,
    OPEN_AWAITING,
    OPEN_RECEIVING,
    REMOTE,
    RESET_BY_PEER,
    RESET_BY_US,
    Exchange,
)

# What happens: the columns.
SEND_HEAD: Final = 0
SEND_END: Final = 1
SEND_RESET: Final = 2
RECV_INTERIM: Final = 3
RECV_FINAL: Final = 4
RECV_DATA: Final = 5
RECV_TRAILERS: Final = 6
RECV_END: Final = 7
RECV_RESET: Final = 8
RECV_WINDOW: Final = 9
COLUMNS: Final = 10

COLUMN_NAMES: Final = (
    "send HEADERS",
    "send END_STREAM",
    "send RST_STREAM",
    "receive interim HEADERS",
    "receive final HEADERS",
    "receive DATA",
    "receive trailers",
    "receive END_STREAM",
    "receive RST_STREAM",
    "receive WINDOW_UPDATE",
)

# Verdicts, where there is no next state.
IGNORE: Final = 0x10  # process minimally, then discard
MALFORMED: Final = 0x11  # stream error PROTOCOL_ERROR (§8.1.1)
CLOSED: Final = 0x12  # stream error STREAM_CLOSED
ILLEGAL: Final = 0x13  # connection error PROTOCOL_ERROR
MISUSE: Final = 0x14  # our own mistake: raised, and no byte leaves

# The same in two letters each, so that the table is one.
OA: Final = OPEN_AWAITING
OR: Final = OPEN_RECEIVING
LA: Final = LOCAL_AWAITING
LR: Final = LOCAL_RECEIVING
RE: Final = REMOTE
EN: Final = ENDED
BU: Final = RESET_BY_US
BP: Final = RESET_BY_PEER
ig: Final = IGNORE
ma: Final = MALFORMED
cl: Final = CLOSED
il: Final = ILLEGAL
mi: Final = MISUSE

# fmt: off
GRID: Final = bytes((
    # send              receive
    # head end reset    interim final data trailers end reset window
    OA,    mi, mi,      il,     il,   il,  il,      il, il,   il,  # IDLE
    mi,    LA, BU,      OA,     OR,   ma,  ma,      ma, BP,   OA,  # OPEN_AWAITING
    mi,    LR, BU,      ma,     ma,   OR,  OR,      RE, BP,   OR,  # OPEN_RECEIVING
    mi,    mi, BU,      LA,     LR,   ma,  ma,      ma, BP,   LA,  # LOCAL_AWAITING
    mi,    mi, BU,      ma,     ma,   LR,  LR,      EN, BP,   LR,  # LOCAL_RECEIVING
    mi,    EN, BU,      cl,     cl,   cl,  cl,      cl, BP,   RE,  # REMOTE
    mi,    mi, mi,      ig,     ig,   ig,  ig,      ig, ig,   ig,  # ENDED
    mi,    mi, mi,      ig,     ig,   ig,  ig,      ig, ig,   ig,  # RESET_BY_US
    mi,    mi, mi,      ig,     ig,   ig,  ig,      ig, ig,   ig,  # RESET_BY_PEER
))  # fmt: on


# The map of streams: leaf number → stream id → stream. A verb copies the map of leaves, and of the leaves those it
# writes to, so that a call costs the same beside a thousand idle streams; `Draft.put` is the only one that writes.
Leaves = dict[int, dict[int, Exchange]]
LEAF: Final = 6  # a leaf is `id >> 6`, 32 streams: their ids are odd


def find_stream(leaves: Leaves, ref: int) -> Exchange | None:
    """The stream with this id, or None."""
    leaf = leaves.get(ref >> LEAF)
    return None if leaf is None else leaf.get(ref)


def all_streams(leaves: Leaves) -> list[Exchange]:
    """Every stream, the oldest first."""
    return [stream for number in sorted(leaves) for stream in leaves[number].values()]
