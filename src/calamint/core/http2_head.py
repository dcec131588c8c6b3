"""What a field block says (RFC 9113 §4.3, §8.3): decoded, read, and remembered where it recurs."""

from typing import Final

from calamint.core import hpack
from calamint.core.fields import Head, Promise, read_head, read_promise
from calamint.core.http2_state import MEMO_FIELDS, Draft

BLOCK_MEMO: Final = 512
BLOCK_SIZE: Final = 2048  # longer blocks are not remembered

# Block without reference to the dynamic table → what it says and what it inserts. Two generations.
blocks: dict[bytes, tuple[Head, tuple[hpack.Field, ...]]] = {}
old_blocks: dict[bytes, tuple[Head, tuple[hpack.Field, ...]]] = {}
UNSEEN: Final = Head(0, (), -1, "not seen")
SEEN: Final = Head(0, (), -1, "seen once")
UNKNOWN: Final[tuple[Head, tuple[hpack.Field, ...]]] = (UNSEEN, ())


def decode_head(draft: Draft, block: bytes) -> Head:
    """What a field block says. Blocks that recur are remembered: with the table they refer to, or for all connections."""
    global blocks, old_blocks
    table = draft.decoder
    found = table.memo.get(block)
    if isinstance(found, Head) and found is not SEEN:
        return found
    known = blocks.get(block, UNKNOWN)
    if known[0] is UNSEEN:
        known = old_blocks.get(block, UNKNOWN)
    if known[0].status and draft.setup.remembers and not table.must_update:
        draft.decoder = hpack.insert(table, known[1])
        return known[0]
    settings = draft.setup.settings
    decoded = hpack.decode(table, block, settings.max_field_section, settings.max_fields)
    draft.decoder = decoded.table
    if decoded.oversize:
        return Head(0, (), -1, oversize(draft))
    head = read_head(decoded.fields)
    if head.fault or decoded.secret or len(block) > BLOCK_SIZE or not head.status:
        return head
    if decoded.dynamic:
        if decoded.table is table:
            if len(table.memo) >= BLOCK_MEMO:
                table.memo = {}
            table.memo[block] = SEEN if found is None else head
    elif draft.setup.remembers and len(head.fields) < MEMO_FIELDS and not 0x20 <= block[0] < 0x40:  # no size update
        if len(blocks) >= BLOCK_MEMO:
            old_blocks = blocks
            blocks = {}
        blocks[block] = (SEEN, ()) if known[0] is UNSEEN else (head, decoded.inserted)
    return head


def decode_promise(draft: Draft, block: bytes) -> Promise:
    """The request that a PUSH_PROMISE makes for us (§8.4.1)."""
    settings = draft.setup.settings
    decoded = hpack.decode(draft.decoder, block, settings.max_field_section, settings.max_fields)
    draft.decoder = decoded.table
    if decoded.oversize:
        return Promise("", "", (), oversize(draft))
    return read_promise(decoded.fields, draft.setup.scheme, draft.setup.authority)


def oversize(draft: Draft) -> str:
    """Why a field section is refused that was decoded for the table's sake alone."""
    settings = draft.setup.settings
    allowed = f"allowed are {settings.max_field_section} bytes in {settings.max_fields} fields"
    return f"a field section above our limits: {allowed}"
