"""RFC 7541: header compression for HTTP/2, as immutable tables.

`decode` and `encode` take a table and give back the next one. Entries are the (name, value) pairs themselves, the oldest
first. What a table remembers in `memo` is a pure function of the table and the key, and stays out of equality and pickle.
"""

from typing import ClassVar, Final, final

from calamint.core import huffman
from calamint.core.errors import COMPRESSION_ERROR, ConnectionFault
from calamint.core.value import SECRET_FIELDS, Fields, Value

Field = tuple[bytes, bytes]

STATIC_TEXT: Final = """\
:authority|:method GET|:method POST|:path /|:path /index.html|:scheme http|:scheme https|:status 200|:status 204|\
:status 206|:status 304|:status 400|:status 404|:status 500|accept-charset|accept-encoding gzip, deflate|\
accept-language|accept-ranges|accept|access-control-allow-origin|age|allow|authorization|cache-control|\
content-disposition|content-encoding|content-language|content-length|content-location|content-range|content-type|\
cookie|date|etag|expect|expires|from|host|if-match|if-modified-since|if-none-match|if-range|if-unmodified-since|\
last-modified|link|location|max-forwards|proxy-authenticate|proxy-authorization|range|referer|refresh|retry-after|\
server|set-cookie|strict-transport-security|transfer-encoding|user-agent|vary|via|www-authenticate"""


def read_static() -> list[Field]:
    """Appendix A: entry 1 stands at index 1."""
    table: list[Field] = [(b"", b"")]
    for line in STATIC_TEXT.split("|"):
        name, _, value = line.partition(" ")
        table.append((name.encode(), value.encode()))
    return table


STATIC: Final[list[Field]] = read_static()
STATIC_FIELDS: Final[dict[Field, int]] = {field: index for index, field in enumerate(STATIC) if index}
STATIC_NAMES: Final[dict[bytes, int]] = {STATIC[index][0]: index for index in range(61, 0, -1)}
FIRST_DYNAMIC: Final = 62
ENTRY_OVERHEAD: Final = 32  # §4.1
MAX_ENCODER_TABLE: Final = 4096  # whatever the peer offers
MAX_INTEGER: Final = 2**32 - 1

MEMO_SIZE: Final = 1024
MARK: Final = b""  # not in a memo, or in it as: seen once

# What recurs, as it stands on the wire, where it is no secret and does not refer to the dynamic table: the beginning of a
# literal up to its value → its name, and a whole literal → its field. The latter has two generations: the older is dropped
# when the younger is full.
names: dict[bytes, bytes] = {}
literals: dict[bytes, Field] = {}
old_literals: dict[bytes, Field] = {}
MARK_FIELD: Final[Field] = (
    b"",
    b"",
)  # not in the memo, or in it as: seen once. No `is`: compiled tuples have no identity
UPDATES: Final = frozenset([bytes((number,)) for number in range(0x20, 0x40)])  # how a table size update begins (§6.3)


@final
class DecoderTable(Value):
    """What the peer's encoder may refer to (§2.3.2). `limit` is the largest size that our SETTINGS allow."""

    __match_args__: ClassVar[tuple[str, ...]] = ("entries", "size", "max_size", "limit", "must_update")
    __slots__ = ("memo", *__match_args__)

    def __init__(
        self,
        entries: tuple[Field, ...] = (),
        size: int = 0,
        max_size: int = 4096,
        limit: int = 4096,
        must_update: bool = False,
    ) -> None:
        self.entries: Final = entries
        self.size: Final = size
        self.max_size: Final = max_size
        self.limit: Final = limit
        self.must_update: Final = must_update
        self.memo: dict[bytes, object] = {}  # block → what its reader made of it, where it changes nothing


@final
class Block(Value):
    """A decoded field block. `inserted`: entries that went into the table; `dynamic`: it referred to the table;
    `secret`: it must not be remembered; `oversize`: it went over a limit, and its fields were dropped."""

    __match_args__: ClassVar[tuple[str, ...]] = ("fields", "table", "inserted", "dynamic", "secret", "oversize")
    __slots__ = __match_args__

    def __init__(
        self,
        fields: Fields,
        table: DecoderTable,
        inserted: tuple[Field, ...],
        dynamic: bool,
        secret: bool,
        oversize: bool,
    ) -> None:
        self.fields: Final = fields
        self.table: Final = table
        self.inserted: Final = inserted
        self.dynamic: Final = dynamic
        self.secret: Final = secret
        self.oversize: Final = oversize


def decode(table: DecoderTable, data: bytes, max_section: int, max_fields: int) -> Block:
    """A whole field block. Over a limit it is still decoded, since the table must stay in step, but nothing is kept.

    Raises ConnectionFault(COMPRESSION_ERROR): after a block that cannot be decoded the tables differ (RFC 9113 §4.3).
    """
    try:
        return decode_block(table, data, max_section, max_fields)
    except IndexError:
        raise ConnectionFault(COMPRESSION_ERROR, "the field block ends within a field") from None


def decode_block(table: DecoderTable, data: bytes, max_section: int, max_fields: int) -> Block:
    """See `decode`. Raises IndexError where the block is cut short."""
    pos, size, max_size = 0, table.size, table.max_size
    alive = list(table.entries)
    if table.must_update or data[:1] in UPDATES:
        smallest, max_size, pos = decode_updates(table, data)
        size = evict(alive, size, smallest)
    fields: list[Field] = []
    inserted: list[Field] = []
    dynamic = secret = False
    section, end = 0, len(data)
    while pos < end:
        if section > max_section:
            fields.clear()  # one octet may stand for 4 KiB: what will be dropped is not gathered
        byte = data[pos]
        if byte >= 0x80:  # §6.1
            index, pos = (byte & 0x7F, pos + 1) if byte < 0xFF else decode_integer(data, pos + 1, 0x7F)
            if 0 < index < FIRST_DYNAMIC:
                field = STATIC[index]
            else:
                size = evict(alive, size, max_size)
                field, dynamic = lookup(alive, index), True
                secret = secret or field[0] in SECRET_FIELDS
            fields.append(field)
            section += len(field[0]) + len(field[1]) + ENTRY_OVERHEAD
            continue
        # `names` and `literals` know it by its octets where its index and lengths, of one octet each, say where they end.
        start = pos + 1
        if byte == 0x40 or byte & 0xEF == 0:
            start += 1 + (data[start] & 0x7F)
        stop = start + 1 + (data[start] & 0x7F) if start < end else end
        raw = data[pos:stop]
        field = literals.get(raw, MARK_FIELD)
        if not field[0]:
            name = names.get(data[pos:start], MARK)
            if name and data[start] & 0x7F != 0x7F and stop <= end:
                value = data[start + 1 : stop]
                field = (name, huffman.decode(value) if data[start] >= 0x80 else value)
                remember_literal(raw, field)
            else:
                size = evict(alive, size, max_size)
                field, index, stop = decode_literal(data, pos, byte, alive)
                dynamic = dynamic or index >= FIRST_DYNAMIC
                hidden = byte & 0xF0 == 0x10 or field[0] in SECRET_FIELDS
                secret = secret or hidden
                if not hidden and data[start] & 0x7F == stop - start - 1:
                    remember_name(data[pos:start], index, field[0])
        pos = stop
        fields.append(field)
        cost = len(field[0]) + len(field[1]) + ENTRY_OVERHEAD
        section += cost
        if byte >= 0x40:  # §6.2.1: literal with incremental indexing
            alive.append(field)
            inserted.append(field)
            size += cost
    if inserted or len(alive) != len(table.entries) or max_size != table.max_size or table.must_update:
        size = evict(alive, size, max_size)
        table = DecoderTable(tuple(alive), size, max_size, table.limit)
    oversize = section > max_section or len(fields) > max_fields
    return Block(() if oversize else tuple(fields), table, tuple(inserted), dynamic, secret, oversize)


def evict(alive: list[Field], size: int, max_size: int) -> int:
    """The oldest entries leave until the rest fits (§4.3, §4.4); an entry larger than the table empties it. The new size.

    Done where the table is looked at, and not for each insertion: what is left is the same, since entries leave in order.
    """
    gone = 0
    while size > max_size:
        field = alive[gone]
        size -= len(field[0]) + len(field[1]) + ENTRY_OVERHEAD
        gone += 1
    if gone:
        del alive[:gone]
    return size


def decode_literal(data: bytes, pos: int, byte: int, alive: list[Field]) -> tuple[Field, int, int]:
    """A literal field, the index of its name or 0, and where it ends (§6.2)."""
    if 0x20 <= byte < 0x40:
        raise ConnectionFault(COMPRESSION_ERROR, "a table size update after the beginning of a block (§4.2)")
    prefix = 0x3F if byte >= 0x40 else 0x0F
    index = byte & prefix
    pos += 1
    if index == prefix:
        index, pos = decode_integer(data, pos, prefix)
    if index == 0:
        name, pos = decode_string(data, pos)
    else:
        name = STATIC[index][0] if index < FIRST_DYNAMIC else lookup(alive, index)[0]
    value, pos = decode_string(data, pos)
    return (name, value), index, pos


def remember_name(raw: bytes, index: int, name: bytes) -> None:
    """The beginning of a literal is remembered at once, if it refers to no entry and its lengths are of one octet each."""
    global names
    prefix = 0x3F if raw[0] >= 0x40 else 0x0F
    if index >= FIRST_DYNAMIC or raw[0] & prefix == prefix or (len(raw) > 1 and raw[1] & 0x7F == 0x7F):
        return
    if len(names) >= MEMO_SIZE:
        names = {}
    names[raw] = name


def remember_literal(raw: bytes, field: Field) -> None:
    """A literal is remembered once it recurs."""
    global literals, old_literals
    if len(literals) >= MEMO_SIZE:
        old_literals = literals
        literals = {}
    literals[raw] = field if raw in literals or raw in old_literals else MARK_FIELD


def allow(table: DecoderTable, limit: int) -> DecoderTable:
    """The table once our HEADER_TABLE_SIZE is acknowledged: if that is smaller, the next block has to say so (§4.2)."""
    return DecoderTable(table.entries, table.size, table.max_size, limit, limit < table.max_size)


def insert(table: DecoderTable, inserted: tuple[Field, ...]) -> DecoderTable:
    """The table after these insertions (§4.4)."""
    if not inserted:
        return table
    alive = [*table.entries, *inserted]
    size = table.size
    for field in inserted:
        size += len(field[0]) + len(field[1]) + ENTRY_OVERHEAD
    size = evict(alive, size, table.max_size)
    return DecoderTable(tuple(alive), size, table.max_size, table.limit)


def lookup(alive: list[Field], index: int) -> Field:
    """The dynamic table's entry (§2.3.3): the newest has the lowest index."""
    place = index - FIRST_DYNAMIC + 1
    if place <= 0 or place > len(alive):
        raise ConnectionFault(COMPRESSION_ERROR, f"field index {index} is not in the table (§2.3.3)")
    return alive[-place]


def decode_updates(table: DecoderTable, data: bytes) -> tuple[int, int, int]:
    """The size updates that open a block: the smallest size and the last one, and where they end (§4.2, §6.3)."""
    smallest = table.max_size
    last = table.max_size
    pos = 0
    updates = 0
    while pos < len(data) and 0x20 <= data[pos] < 0x40:
        last = data[pos] & 0x1F
        pos += 1
        if last == 0x1F:
            last, pos = decode_integer(data, pos, 0x1F)
        updates += 1
        if last > table.limit or updates > 2:
            seen = f"{updates} table size updates, the last to {last}"
            raise ConnectionFault(COMPRESSION_ERROR, f"{seen}: allowed are two, of at most {table.limit} (§4.2)")
        smallest = min(smallest, last)
    if table.must_update and not updates:
        raise ConnectionFault(COMPRESSION_ERROR, "no table size update after a smaller size was acknowledged (§4.2)")
    return smallest, last, pos


def decode_integer(data: bytes, pos: int, prefix: int) -> tuple[int, int]:
    """An integer whose prefix is all ones, and where it ends (§5.1). At most 32 bits in at most five octets."""
    number = prefix
    shift = 0
    while True:
        byte = data[pos]
        pos += 1
        number += (byte & 0x7F) << shift
        if number > MAX_INTEGER or shift > 28:
            raise ConnectionFault(COMPRESSION_ERROR, "an integer of more than 32 bits (§5.1)")
        if byte < 0x80:
            return number, pos
        shift += 7


def decode_string(data: bytes, pos: int) -> tuple[bytes, int]:
    """A string literal, and where it ends (§5.2)."""
    byte = data[pos]
    length = byte & 0x7F
    pos += 1
    if length == 0x7F:
        length, pos = decode_integer(data, pos, 0x7F)
    end = pos + length
    if end > len(data):
        raise IndexError
    raw = data[pos:end]
    return (huffman.decode(raw) if byte >= 0x80 else raw), end


@final
class EncoderTable(Value):
    """What our blocks may refer to. It is filled while there is room and never evicts; a change of size empties it.

    `indices`: field → how many entries went in before it; `names`: the names among them. `updates`: the sizes that the
    next block must announce first (§4.2). What it remembers are `blocks` and `around`, by request.
    """

    __match_args__: ClassVar[tuple[str, ...]] = ("indices", "names", "size", "max_size", "updates")
    __slots__ = ("blocks", "around", *__match_args__)

    def __init__(
        self,
        indices: dict[Field, int],
        names: dict[bytes, int],
        size: int = 0,
        max_size: int = 4096,
        updates: tuple[int, ...] = (),
    ) -> None:
        self.indices: Final = indices
        self.names: Final = names
        self.size: Final = size
        self.max_size: Final = max_size
        self.updates: Final = updates
        self.blocks: dict[tuple[str, str, Fields], bytes] = {}
        self.around: dict[tuple[str, Fields], tuple[bytes, bytes]] = {}


def resize(table: EncoderTable, limit: int) -> EncoderTable:
    """The table after the peer's HEADER_TABLE_SIZE: empty if that changes its size, announced by the next block."""
    max_size = min(limit, MAX_ENCODER_TABLE)
    if max_size == table.max_size:
        return table
    return EncoderTable({}, {}, 0, max_size, (0, max_size))


def encode(table: EncoderTable, fields: Fields) -> tuple[EncoderTable, bytes]:
    """A field block, or a part of one.

    A field goes into the table where it first occurs and there is room. A name that is there with another value is one
    that changes every time: it goes unindexed, as what is long does. Secrets are never indexed (§7.1.3). Huffman coding is
    for what is sent once; what is sent every time goes raw, which costs bytes and saves time.
    """
    parts = [encode_integer(size, 0x1F, 0x20) for size in table.updates]
    indices = table.indices
    names = table.names
    size = table.size
    for field in fields:
        name, value = field
        ordinal = indices.get(field, -1)
        static = STATIC_FIELDS.get(field, 0)
        if static:
            parts.append(encode_integer(static, 0x7F, 0x80))
        elif ordinal >= 0:
            parts.append(encode_integer(FIRST_DYNAMIC + len(indices) - 1 - ordinal, 0x7F, 0x80))
        else:
            index = STATIC_NAMES.get(name, 0)
            if not index and name in names:
                index = FIRST_DYNAMIC + len(indices) - 1 - names[name]
            cost = len(name) + len(value) + ENTRY_OVERHEAD
            if name in SECRET_FIELDS:
                parts.append(encode_literal(0x10, 0x0F, index, name, value))
            elif name in names or size + cost > table.max_size or cost * 4 > MAX_ENCODER_TABLE:
                parts.append(encode_literal(0x00, 0x0F, index, name, value))
            else:
                parts.append(encode_literal(0x40, 0x3F, index, name, value))
                if indices is table.indices:
                    indices = indices.copy()
                    names = names.copy()
                names[name] = len(indices)
                indices[field] = len(indices)
                size += cost
    if indices is not table.indices or table.updates:
        table = EncoderTable(indices, names, size, table.max_size)
    return table, b"".join(parts)


def encode_integer(number: int, prefix: int, pattern: int) -> bytes:
    """An integer after the bits of `pattern` (§5.1)."""
    if number < prefix:
        return bytes((pattern | number,))
    out = [pattern | prefix]
    number -= prefix
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def encode_literal(pattern: int, prefix: int, index: int, name: bytes, value: bytes) -> bytes:
    """A literal (§6.2), its name by index if that is not 0; Huffman-coded where it goes into the table and that is shorter."""
    start = encode_integer(index, prefix, pattern)
    if index == 0:
        start += encode_string(name, True)
    return start + encode_string(value, pattern == 0x40)


def encode_path(path: bytes) -> bytes:
    """`:path` by its static name, unindexed: it changes every time."""
    if path == b"/":
        return b"\x84"
    size = len(path)
    return (bytes((4, size)) if size < 0x7F else b"\x04" + encode_integer(size, 0x7F, 0x00)) + path


def encode_string(data: bytes, once: bool) -> bytes:
    """A string literal (§5.2)."""
    if once:
        coded = huffman.encode(data)
        if len(coded) < len(data):
            return encode_integer(len(coded), 0x7F, 0x80) + coded
    return encode_integer(len(data), 0x7F, 0x00) + data
