"""The Huffman code of RFC 7541 §5.2 and Appendix B.

The code is canonical: among symbols of one length, codes ascend with the symbol. So the lengths say everything.
Decoding walks from row to row, one octet a step; a step is made when a string first needs it.
"""

from typing import Final

from calamint.core.errors import COMPRESSION_ERROR, ConnectionFault

# fmt: off
LENGTHS: Final = bytes((
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7,
    7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21,
    23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24,
    21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
))  # fmt: on
EOS: Final = 256
FAILED: Final = 256  # the tree has 256 inner nodes, numbered from 0: these two are free
UNKNOWN: Final = 257

Row = list[tuple["Row", bytes]]
"""A state's steps: for each octet the next state's row, and what was decoded; at ENDING whether a string may end here."""

ENDING: Final = 256


def assign_codes() -> list[int]:
    """Each symbol's code, from the lengths."""
    codes = [0] * 257
    code = 0
    for length in range(5, 31):
        for symbol in range(257):
            if LENGTHS[symbol] == length:
                codes[symbol] = code
                code += 1
        code <<= 1
    return codes


def grow_tree(codes: list[int]) -> list[int]:
    """The code as a tree: `tree[node * 2 + bit]` is the next inner node, or -1 - symbol at a leaf."""
    tree = [0, 0]
    for symbol in range(257):
        node = 0
        length = LENGTHS[symbol]
        for shift in range(length - 1, 0, -1):
            place = node * 2 + (codes[symbol] >> shift & 1)
            if tree[place] == 0:
                tree[place] = len(tree) // 2
                tree.extend([0, 0])
            node = tree[place]
        tree[node * 2 + (codes[symbol] & 1)] = -1 - symbol
    return tree


def make_rows(tree: list[int]) -> list[Row]:
    """One row for each state, and two more: FAILED, after EOS, and UNKNOWN, where every step leads that is not made yet."""
    rows: list[Row] = [[] for _ in range(UNKNOWN + 1)]
    unmade = (rows[UNKNOWN], b"")
    for row in rows:
        row.extend([unmade] * 256)
        row.append((row, b""))
    rows[FAILED][:ENDING] = [(rows[FAILED], b"")] * 256
    node = 0
    for _ in range(8):  # "padding strictly longer than 7 bits MUST be treated as a decoding error" (§5.2)
        rows[node][ENDING] = (rows[node], b"1")
        node = tree[node * 2 + 1]
    return rows


CODES: Final = assign_codes()
TREE: Final = grow_tree(CODES)
ROWS: Final = make_rows(TREE)
NEXT: Final[dict[int, int]] = {}  # state << 8 | octet → the next state, for every step that is made
MISSES: Final = [0] * (FAILED + 1)  # steps of this row that were made one by one
MAX_MISSES: Final = 8  # then all of them are


def make_steps(data: bytes) -> None:
    """The steps that decoding this string takes, as far as they are not made; a row that often lacks one is made whole."""
    state = 0
    for byte in data:
        place = state << 8 | byte
        if place not in NEXT:
            MISSES[state] += 1
            for octet in range(256) if MISSES[state] > MAX_MISSES else (byte,):
                make_step(state, octet)
        state = NEXT[place]


def make_step(state: int, byte: int) -> None:
    """From this state through this octet."""
    node = state
    out = b""
    for shift in range(7, -1, -1):
        if node != FAILED:
            node = TREE[node * 2 + (byte >> shift & 1)]
            if node == -1 - EOS:  # "MUST be treated as a decoding error" (§5.2)
                node = FAILED
            elif node < 0:
                out += bytes((-1 - node,))
                node = 0
    ROWS[state][byte] = (ROWS[node], out)
    NEXT[state << 8 | byte] = node


def decode(data: bytes) -> bytes:
    """The string that these octets stand for."""
    row = ROWS[0]
    parts: list[bytes] = []
    for byte in data:
        row, piece = row[byte]
        parts.append(piece)
    if row is ROWS[UNKNOWN]:
        make_steps(data)
        return decode(data)
    if not row[ENDING][1]:
        raise ConnectionFault(COMPRESSION_ERROR, "Huffman padding is not the most significant bits of EOS, at most 7")
    return b"".join(parts)


def encode(data: bytes) -> bytes:
    """The string's octets, padded with the first bits of EOS."""
    bits = 0
    size = 0
    for byte in data:
        length = LENGTHS[byte]
        bits = bits << length | CODES[byte]
        size += length
    padding = -size % 8
    return (bits << padding | (1 << padding) - 1).to_bytes((size + padding) // 8, "big")
