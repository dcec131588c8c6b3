"""RFC 9113 §5.1 as a table, and the map of streams by their id.

Everything that decides a stream's next state stands in `GRID`: state × what happens → next state, or a verdict. A closed
stream is looked up under how it closed; where that is forgotten the verdict is the same, because "an endpoint can perform
this minimal processing for all streams that are in the 'closed' state": field blocks are decoded, DATA is counted against
the connection's window, and nothing is answered.
"""

from typing import Final

from calamint.core.exchange import (
    CONNECTING,
    ENDED,
    EXPECTING,
    LOCAL_AWAITING,
    LOCAL_RECEIVING,
    OPEN_AWAITING,
    OPEN_RECEIVING,
    REFUSED,
    REMOTE,
    RESET_BY_PEER,
    RESET_BY_US,
    TUNNEL,
    TUNNEL_LOCAL,
    Exchange,
)

# What happens: the columns.
SEND_HEAD: Final = 0
SEND_EXPECT: Final = 1
SEND_CONNECT: Final = 2
SEND_END: Final = 3
SEND_RESET: Final = 4
RECV_PROMISE: Final = 5
RECV_CONTINUE: Final = 6
RECV_INTERIM: Final = 7
RECV_SUCCESS: Final = 8
RECV_FINAL: Final = 9
RECV_DATA: Final = 10
RECV_TRAILERS: Final = 11
RECV_END: Final = 12
RECV_RESET: Final = 13
RECV_WINDOW: Final = 14
COLUMNS: Final = 15

COLUMN_NAMES: Final = (
    "send HEADERS",
    "send HEADERS that expect 100",
    "send HEADERS of CONNECT",
    "send END_STREAM",
    "send RST_STREAM",
    "receive PUSH_PROMISE",
    "receive HEADERS with 100",
    "receive interim HEADERS",
    "receive HEADERS with 2xx",
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
EX: Final = EXPECTING
CO: Final = CONNECTING
OA: Final = OPEN_AWAITING
OR: Final = OPEN_RECEIVING
RF: Final = REFUSED
TU: Final = TUNNEL
LA: Final = LOCAL_AWAITING
LR: Final = LOCAL_RECEIVING
TL: Final = TUNNEL_LOCAL
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
    # send                      receive
    # head exp. con. end reset  prom. 100 int. 2xx final data trail. end reset window
    OA,    EX,  CO,  mi, mi,    il,   il, il,  il, il,   il,  il,    il, il,   il,  # IDLE
    mi,    mi,  mi,  mi, BU,    EX,   OA, EX,  RF, RF,   ma,  ma,    ma, BP,   EX,  # EXPECTING
    mi,    mi,  mi,  mi, BU,    CO,   CO, CO,  TU, RF,   ma,  ma,    ma, BP,   CO,  # CONNECTING
    mi,    mi,  mi,  LA, BU,    OA,   OA, OA,  OR, OR,   ma,  ma,    ma, BP,   OA,  # OPEN_AWAITING
    mi,    mi,  mi,  LR, BU,    OR,   ma, ma,  ma, ma,   OR,  OR,    RE, BP,   OR,  # OPEN_RECEIVING
    mi,    mi,  mi,  mi, BU,    RF,   ma, ma,  ma, ma,   RF,  RF,    RE, BP,   RF,  # REFUSED
    mi,    mi,  mi,  TL, BU,    ma,   ma, ma,  ma, ma,   TU,  ma,    RE, BP,   TU,  # TUNNEL
    mi,    mi,  mi,  mi, BU,    LA,   LA, LA,  LR, LR,   ma,  ma,    ma, BP,   LA,  # LOCAL_AWAITING
    mi,    mi,  mi,  mi, BU,    LR,   ma, ma,  ma, ma,   LR,  LR,    EN, BP,   LR,  # LOCAL_RECEIVING
    mi,    mi,  mi,  mi, BU,    ma,   ma, ma,  ma, ma,   TL,  ma,    EN, BP,   TL,  # TUNNEL_LOCAL
    mi,    mi,  mi,  mi, BU,    il,   LA, LA,  LR, LR,   il,  ma,    ma, BP,   il,  # RESERVED
    mi,    mi,  mi,  EN, BU,    il,   cl, cl,  cl, cl,   cl,  cl,    cl, BP,   RE,  # REMOTE
    mi,    mi,  mi,  mi, mi,    ig,   ig, ig,  ig, ig,   ig,  ig,    ig, ig,   ig,  # ENDED
    mi,    mi,  mi,  mi, mi,    ig,   ig, ig,  ig, ig,   ig,  ig,    ig, ig,   ig,  # RESET_BY_US
    mi,    mi,  mi,  mi, mi,    ig,   ig, ig,  ig, ig,   ig,  ig,    ig, ig,   ig,  # RESET_BY_PEER
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
