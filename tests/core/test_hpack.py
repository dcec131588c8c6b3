"""HPACK: RFC 7541, against its Appendix C, the stories of http2jp/hpack-test-case, and the hpack package both ways."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest
from hpack import Decoder, Encoder
from hpack.hpack import encode_integer
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hpack.table import HeaderTable
from hypothesis import given
from hypothesis import strategies as st

import calamint.core.value
from calamint.core import hpack
from calamint.core.errors import COMPRESSION_ERROR, ConnectionFault
from calamint.core.hpack import Block, DecoderTable, EncoderTable, Field, allow, decode, encode, insert, resize
from calamint.core.value import SECRET_FIELDS, Fields

COMPILED: Final = not (calamint.core.value.__file__ or "").endswith(".py")
STORIES: Final = sorted(Path(__file__).parents[1].joinpath("vectors", "hpack").rglob("story_*.json"))
HUFFMAN: Final = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH)
PLENTY: Final = 2**31 - 1

NAMES: Final = st.sampled_from(
    [
        *(
            b":status",
            b":path",
            b"server",
            b"content-type",
            b"cache-control",
            b"x-a",
            b"x-b",
            b"x-long-name-of-a-field",
        ),
        *sorted(SECRET_FIELDS),
    ]
)
VALUES: Final = st.sampled_from([b"", b"200", b"/", b"a", b"b", b"gzip, deflate", b"x" * 40, b"\xff" * 60]) | st.binary(
    max_size=30
)
SECTIONS: Final = st.lists(st.tuples(NAMES, VALUES), max_size=8)


def read(table: DecoderTable, data: bytes) -> Block:
    return decode(table, data, PLENTY, PLENTY)


def literal(pattern: int, name: bytes, value: bytes, coded: bool = False) -> bytes:
    """A literal with a new name, put together by hand."""
    if coded:
        value = HUFFMAN.encode(value)
    sizes = encode_integer(len(name), 7), encode_integer(len(value), 7)
    sizes[1][0] |= 0x80 * coded
    return bytes((pattern,)) + sizes[0] + name + sizes[1] + value


@contextmanager
def refused(*parts: str) -> Iterator[None]:
    """COMPRESSION_ERROR, with all of these in its reason."""
    with pytest.raises(ConnectionFault) as caught:
        yield
    assert caught.value.code == COMPRESSION_ERROR
    for part in parts:
        assert part in caught.value.reason


# Appendix C, by hand


@pytest.mark.parametrize(
    ("number", "prefix", "coded"),
    [
        (10, 0x1F, "0a"),  # C.1.1
        (1337, 0x1F, "1f9a0a"),  # C.1.2
        (42, 0xFF, "2a"),  # C.1.3
        (30, 0x1F, "1e"),
        (31, 0x1F, "1f00"),
        (158, 0x1F, "1f7f"),
        (159, 0x1F, "1f8001"),
        (126, 0x7F, "7e"),
        (127, 0x7F, "7f00"),
        (2**32 - 1, 0x7F, "7f80ffffff0f"),
    ],
)
@pytest.mark.rfc("7541-5.1-1")
def test_integers(number: int, prefix: int, coded: str) -> None:
    data = bytes.fromhex(coded)
    assert hpack.encode_integer(number, prefix, 0) == data
    if len(data) > 1:
        assert hpack.decode_integer(data + b"\xff", 1, prefix) == (number, len(data))


@pytest.mark.parametrize(
    ("wire", "field", "size"),
    [
        ("400a637573746f6d2d6b65790d637573746f6d2d686561646572", (b"custom-key", b"custom-header"), 55),  # C.2.1
        ("040c2f73616d706c652f70617468", (b":path", b"/sample/path"), 0),  # C.2.2
        ("100870617373776f726406736563726574", (b"password", b"secret"), 0),  # C.2.3
        ("82", (b":method", b"GET"), 0),  # C.2.4
    ],
)
@pytest.mark.rfc("7541-6.2.1-1", "7541-6.2.2-1", "7541-6.2.3-2")
def test_appendix_c2(wire: str, field: Field, size: int) -> None:
    block = read(DecoderTable(), bytes.fromhex(wire))
    assert block.fields == (field,)
    assert block.table.size == size
    assert block.table.entries == ((field,) if size else ())


AUTHORITY: Final = (b":authority", b"www.example.com")
NO_CACHE: Final = (b"cache-control", b"no-cache")
CUSTOM: Final = (b"custom-key", b"custom-value")
REQUESTS: Final[list[tuple[Fields, Fields, int]]] = [  # fields, entries (the oldest first), size: C.3 and C.4
    (((b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), AUTHORITY), (AUTHORITY,), 57),
    (
        ((b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), AUTHORITY, NO_CACHE),
        (AUTHORITY, NO_CACHE),
        110,
    ),
    (
        ((b":method", b"GET"), (b":scheme", b"https"), (b":path", b"/index.html"), AUTHORITY, CUSTOM),
        (AUTHORITY, NO_CACHE, CUSTOM),
        164,
    ),
]
FOUND: Final = (b":status", b"302")
REDIRECT: Final = (b":status", b"307")
PRIVATE: Final = (b"cache-control", b"private")
DATE: Final = (b"date", b"Mon, 21 Oct 2013 20:13:21 GMT")
LATER: Final = (b"date", b"Mon, 21 Oct 2013 20:13:22 GMT")
LOCATION: Final = (b"location", b"https://www.example.com")
GZIP: Final = (b"content-encoding", b"gzip")
COOKIE: Final = (b"set-cookie", b"foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1")
RESPONSES: Final[list[tuple[Fields, Fields, int]]] = [  # C.5 and C.6, a table of 256
    ((FOUND, PRIVATE, DATE, LOCATION), (FOUND, PRIVATE, DATE, LOCATION), 222),
    ((REDIRECT, PRIVATE, DATE, LOCATION), (PRIVATE, DATE, LOCATION, REDIRECT), 222),
    (((b":status", b"200"), PRIVATE, LATER, LOCATION, GZIP, COOKIE), (LATER, GZIP, COOKIE), 215),
]


@pytest.mark.parametrize(
    ("max_size", "expected", "wires"),
    [
        (
            4096,
            REQUESTS,
            [  # C.3
                "828684410f7777772e6578616d706c652e636f6d",
                "828684be58086e6f2d6361636865",
                "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
            ],
        ),
        (
            4096,
            REQUESTS,
            [  # C.4
                "828684418cf1e3c2e5f23a6ba0ab90f4ff",
                "828684be5886a8eb10649cbf",
                "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
            ],
        ),
        (
            256,
            RESPONSES,
            [  # C.5
                "4803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a323120474d54"
                "6e1768747470733a2f2f7777772e6578616d706c652e636f6d",
                "4803333037c1c0bf",
                "88c1611d4d6f6e2c203231204f637420323031332032303a31333a323220474d54c05a04677a69707738666f6f3d"
                "4153444a4b48514b425a584f5157454f50495541585157454f49553b206d61782d6167653d333630303b20766572"
                "73696f6e3d31",
            ],
        ),
        (
            256,
            RESPONSES,
            [  # C.6
                "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff"
                "6e919d29ad171863c78f0b97c8e9ae82ae43d3",
                "4883640effc1c0bf",
                "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335dfdf"
                "cd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
            ],
        ),
    ],
)
@pytest.mark.rfc("7541-2.3.2-1", "7541-3.2-1", "7541-4.1-1", "7541-5.2-1")
def test_appendix_c3_to_c6(max_size: int, expected: list[tuple[Fields, Fields, int]], wires: list[str]) -> None:
    table = DecoderTable((), 0, max_size, max_size)
    for (fields, entries, size), wire in zip(expected, wires, strict=True):
        block = read(table, bytes.fromhex(wire))
        assert block.fields == fields
        assert (block.table.entries, block.table.size) == (entries, size)
        table = block.table


@pytest.mark.rfc("7541-2.3.1-1")
def test_static_table_is_appendix_a() -> None:
    theirs = [(bytes(name), bytes(value)) for name, value in HeaderTable.STATIC_TABLE]
    assert hpack.STATIC[1:] == theirs
    assert len(theirs) == 61 == hpack.FIRST_DYNAMIC - 1
    for index, field in enumerate(theirs, 1):
        block = read(DecoderTable(), bytes((0x80 | index,)))
        assert (block.fields, block.dynamic, block.inserted) == ((field,), False, ())


# The stories


@pytest.mark.parametrize("path", STORIES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_story(path: Path) -> None:
    """Decoded, then encoded again by us and decoded by the hpack package and by ourselves."""
    table = DecoderTable()
    ours, again, theirs = EncoderTable({}, {}), DecoderTable(), Decoder()
    for case in json.loads(path.read_text("utf-8"))["cases"]:
        fields = tuple([(name.encode(), value.encode()) for item in case["headers"] for name, value in item.items()])
        block = read(table, bytes.fromhex(case["wire"]))
        assert block.fields == fields
        assert block.table.max_size == case.get("header_table_size", table.max_size)
        table = block.table
        ours, data = encode(ours, fields)
        assert tuple(theirs.decode(data, raw=True)) == fields
        block = read(again, data)
        assert block.fields == fields
        again = block.table


def test_stories_are_here() -> None:
    assert len(STORIES) == 42


# Decoding what the hpack package encodes


SIZES: Final[st.SearchStrategy[list[int]]] = st.lists(
    st.integers(0, 200) | st.integers(0, 4096), max_size=2, unique=True
).map(sorted)


@given(st.lists(st.tuples(SIZES, SECTIONS, st.booleans(), st.booleans()), max_size=8))
@pytest.mark.rfc("7541-2.1-1", "7541-3.2-1")
def test_decode_what_they_encode(blocks: list[tuple[list[int], list[Field], bool, bool]]) -> None:
    """§4.2: between two blocks the size may change, the smallest and the final one are signalled."""
    theirs = Encoder()
    table = DecoderTable()
    for sizes, section, coded, sensitive in blocks:
        for size in sizes:
            if size != theirs.header_table_size:
                theirs.header_table_size = size
        data = theirs.encode([(name, value, sensitive) for name, value in section], huffman=coded)
        block, again, once_more = [read(table, data) for _ in range(3)]  # nothing known, seen once, remembered
        assert block == again == once_more
        assert block.fields == tuple(section)
        assert not block.oversize
        table = block.table
        assert table.max_size == theirs.header_table_size
        assert list(table.entries) == list(reversed(theirs.header_table.dynamic_entries))
        assert table.size == sum([len(name) + len(value) + 32 for name, value in table.entries]) <= table.max_size


@given(
    st.binary(max_size=60)
    | st.lists(
        st.sampled_from(
            [b"\x82", b"\xbe", b"\xbf", b"\x41\x01a", b"\x40\x01a\x01b", b"\x10\x01a\x01b", b"\x20", b"\x3f\x01"]
        )
        | st.binary(min_size=1, max_size=2),
        max_size=8,
    ).map(b"".join)
)
def test_any_octets_give_fields_or_a_compression_error(data: bytes) -> None:
    """RFC 9113 §4.3: and what we take, the hpack package reads alike."""
    try:
        block = read(DecoderTable(), data)
    except ConnectionFault as fault:
        assert fault.code == COMPRESSION_ERROR
        assert fault.reason
        return
    assert block.fields == tuple(Decoder(PLENTY).decode(data, raw=True))


@given(SECTIONS, st.booleans())
def test_a_block_cut_short(section: list[Field], coded: bool) -> None:
    data = Encoder().encode(section, huffman=coded)
    for end in range(len(data)):
        try:
            fields = read(DecoderTable(), data[:end]).fields
        except ConnectionFault as fault:
            assert (fault.code, fault.reason) == (COMPRESSION_ERROR, "the field block ends within a field")
        else:
            assert fields == tuple(section[: len(fields)])
            assert len(fields) < len(section)


# Limits while decoding


@pytest.mark.fault("I5")
def test_section_limit_both_sides() -> None:
    """RFC 9113 §6.5.2: name, value, and 32 for each field."""
    data = b"\x82" + literal(0x00, b"x-a", b"12345") + literal(0x40, b"x-b", b"")
    size = 7 + 3 + 32 + 3 + 5 + 32 + 3 + 0 + 32
    exact = decode(DecoderTable(), data, size, 3)
    assert (len(exact.fields), exact.oversize) == (3, False)
    above = decode(DecoderTable(), data, size - 1, 3)
    assert (above.fields, above.oversize) == ((), True)
    assert above.table == exact.table
    assert above.inserted == exact.inserted == ((b"x-b", b""),)


@pytest.mark.fault("I5")
def test_fields_limit_both_sides() -> None:
    data = b"\x82\x86\x84" + literal(0x40, b"x-b", b"")
    exact = decode(DecoderTable(), data, PLENTY, 4)
    assert (len(exact.fields), exact.oversize) == (4, False)
    above = decode(DecoderTable(), data, PLENTY, 3)
    assert (above.fields, above.oversize) == ((), True)
    assert above.table == exact.table


@given(SECTIONS, SECTIONS, st.integers(0, 300), st.integers(0, 8))
def test_over_a_limit_the_table_stays_in_step(first: list[Field], second: list[Field], size: int, fields: int) -> None:
    """§4.3 of RFC 9113: a block that is refused must still be decoded."""
    theirs = Encoder()
    data = theirs.encode(first)
    limited, free = decode(DecoderTable(), data, size, fields), read(DecoderTable(), data)
    total = sum([len(name) + len(value) + 32 for name, value in first])
    assert limited.oversize == (total > size or len(first) > fields)
    assert limited.fields == (() if limited.oversize else tuple(first))
    assert limited.table == free.table
    assert read(limited.table, theirs.encode(second)).fields == tuple(second)


def test_once_over_a_limit_always_over_it() -> None:
    data = literal(0x00, b"long", b"x" * 100) + b"\x82"
    assert decode(DecoderTable(), data, 100, 10).oversize
    assert decode(DecoderTable(), b"\x82" + data, 100, 10).oversize


# Table size updates: §4.2, §6.3


@pytest.mark.fault("C9")
@pytest.mark.rfc("7541-6.3-2")
def test_an_update_up_to_our_limit() -> None:
    table = DecoderTable((), 0, 100, 200)
    assert read(table, b"\x3f\xa9\x01").table == DecoderTable((), 0, 200, 200)  # 200
    with refused("1 table size updates, the last to 201", "allowed are two, of at most 200"):
        read(table, b"\x3f\xaa\x01")


@pytest.mark.rfc("7541-4.2-3")
def test_at_most_two_updates() -> None:
    """§4.2: "resulting in at most two dynamic table size updates"."""
    assert read(DecoderTable(), b"\x20\x3e").table.max_size == 30
    with refused("3 table size updates", "allowed are two"):
        read(DecoderTable(), b"\x20\x20\x20")


@pytest.mark.parametrize(
    "field", [b"\x82", literal(0x40, b"a", b"b"), literal(0x00, b"a", b"b"), literal(0x10, b"a", b"b")]
)
@pytest.mark.parametrize("update", [b"\x20", b"\x3e", b"\x3f\x00", b"\x2f\x82", b"\x3f"])
@pytest.mark.rfc("7541-4.2-2")
def test_no_update_after_a_field(field: bytes, update: bytes) -> None:
    """§4.2: "MUST occur at the beginning of the first header block following the change"."""
    with refused("size update after the beginning of a block"):
        read(DecoderTable(), field + update)
    with refused("size update after the beginning of a block"):
        read(DecoderTable(), b"\x20" + field + update + b"\x82")


@pytest.mark.rfc("9113-4.3.1-2")
def test_a_lowered_size_must_be_announced() -> None:
    """RFC 9113 §4.3.1: "the first field block … MUST begin with a Dynamic Table Size Update instruction"."""
    table = DecoderTable((), 0, 100, 100, True)
    for data in (b"\x82", b""):
        with refused("no table size update", "after a smaller size was acknowledged"):
            read(table, data)
    assert read(table, b"\x20\x82").table == DecoderTable((), 0, 0, 100, False)
    assert read(table, b"\x3f\x45\x82").table == DecoderTable((), 0, 100, 100, False)


@pytest.mark.rfc("7541-6.3-3")
def test_what_our_settings_allow_once_acknowledged() -> None:
    """RFC 9113 §6.5.3, §4.3.1: a smaller size takes effect with an update, a larger one may be used from now on."""
    table = DecoderTable(((b"a", b"1"),), 34, 4096, 4096)
    assert allow(table, 4096) == table
    assert allow(table, 4097) == DecoderTable(table.entries, 34, 4096, 4097, False)
    lowered = allow(table, 4095)
    assert lowered == DecoderTable(table.entries, 34, 4096, 4095, True)
    assert read(lowered, b"\x3f\xe0\x1f\xbe").table == DecoderTable(table.entries, 34, 4095, 4095, False)
    with refused("1 table size updates, the last to 4096", "at most 4095"):
        read(lowered, b"\x3f\xe1\x1f\xbe")
    with refused("no table size update"):
        read(lowered, b"\xbe")
    assert read(allow(table, 0), b"\x20").table == DecoderTable((), 0, 0, 0, False)


@pytest.mark.rfc("7541-4.3-1")
def test_an_update_evicts() -> None:
    """§4.3: the oldest go until the size is at most the new maximum."""
    entries = ((b"a", b"1"), (b"b", b"2"), (b"c", b"3"))  # 34 each
    table = DecoderTable(entries, 102, 4096)
    assert read(table, b"\x3f\x47").table == DecoderTable(entries, 102, 102, 4096)
    assert read(table, b"\x3f\x46").table == DecoderTable(entries[1:], 68, 101, 4096)
    assert read(table, b"\x3f\x25").table == DecoderTable(entries[1:], 68, 68, 4096)
    assert read(table, b"\x3f\x24").table == DecoderTable(entries[2:], 34, 67, 4096)
    assert read(table, b"\x3f\x02").table == DecoderTable((), 0, 33, 4096)
    assert read(table, b"\x20").table == DecoderTable((), 0, 0, 4096)


@pytest.mark.rfc("7541-4.3-1")
def test_the_smallest_of_two_updates_evicts() -> None:
    """§4.2: "the smallest maximum table size that occurs in that interval MUST be signaled"."""
    table = DecoderTable(((b"a", b"1"), (b"b", b"2")), 68, 4096)
    assert read(table, b"\x20\x3f\xe1\x1f").table == DecoderTable((), 0, 4096, 4096)
    assert read(table, b"\x3f\x0f\x3f\xe1\x1f").table == DecoderTable(((b"b", b"2"),), 34, 4096, 4096)
    with refused("field index 62"):
        read(table, b"\x20\x3f\xe1\x1f\xbe")


# Integers and strings: §5


@pytest.mark.rfc("7541-5.1-2", "7541-7.4-1")
def test_integers_of_32_bits_both_sides() -> None:
    """§5.1: "Integer encodings that exceed implementation limits … MUST be treated as decoding errors"."""
    with refused("field index 4294967295 is not in the table"):
        read(DecoderTable(), b"\xff\x80\xff\xff\xff\x0f")
    with refused("an integer of more than 32 bits"):
        read(DecoderTable(), b"\xff\x81\xff\xff\xff\x0f")
    with refused("an integer of more than 32 bits"):
        read(DecoderTable(), b"\xff" + b"\xff" * 100)


@pytest.mark.rfc("7541-5.1-2", "7541-7.4-1")
def test_integers_of_five_octets_both_sides() -> None:
    """Zeros in front are legal, but not without end."""
    assert hpack.decode_integer(b"\x81\x80\x80\x80\x00", 0, 0x7F) == (128, 5)
    with refused("an integer of more than 32 bits"):
        hpack.decode_integer(b"\x81\x80\x80\x80\x80\x00", 0, 0x7F)


@pytest.mark.parametrize(
    "data", [b"\xff", b"\x7f", b"\x0f", b"\x1f", b"\x3f", b"\xff\x80", b"\x00\x7f", b"\x00\xff\x80"]
)
def test_an_integer_cut_short(data: bytes) -> None:
    with refused("ends within a field"):
        read(DecoderTable(), data)


@pytest.mark.rfc("7541-7.4-1")
def test_a_string_longer_than_the_block() -> None:
    assert read(DecoderTable(), b"\x00\x01a\x02bc").fields == ((b"a", b"bc"),)
    for data in (
        b"\x00\x01a\x03bc",
        b"\x00\x05ab",
        b"\x00\x01a",
        b"\x00",
        b"\x01",
        b"\x00\x01a\xff\xff\xff\xff\xff\x07",
    ):
        with refused("ends within a field"):
            read(DecoderTable(), data)


@pytest.mark.parametrize("size", [126, 127, 128, 254, 255, 256, 300, 16_511, 16_512])
@pytest.mark.rfc("7541-5.2-1")
def test_strings_of_every_length_of_length(size: int) -> None:
    for value in (b"a" * size, b"\x00" * size):
        data = hpack.encode_literal(0x40, 0x3F, 0, b"x", value) + hpack.encode_literal(0x00, 0x0F, 0, value, b"")
        assert read(DecoderTable(), data).fields == ((b"x", value), (value, b""))
        assert tuple(Decoder(PLENTY).decode(data, raw=True)) == ((b"x", value), (value, b""))


@pytest.mark.rfc("7541-5.2-2")
def test_bad_huffman_coding_in_a_name_or_a_value() -> None:
    """§5.2; the fault is that of the whole block."""
    for data in (b"\x00\x81\xff\x00", b"\x00\x01a\x81\xff", b"\x10\x01a\x81\xff", b"\x00\x84\xff\xff\xff\xff\x00"):
        with refused("Huffman"):
            read(DecoderTable(), data)


# The dynamic table: §2.3.3, §4


@pytest.mark.rfc("7541-2.3.3-1", "7541-6.1-1")
def test_indices_both_sides() -> None:
    """§2.3.3: "Indices strictly greater than the sum of the lengths of both tables MUST be treated as a decoding error"."""
    table = DecoderTable(((b"old", b"1"), (b"new", b"2")), 72)
    assert read(table, b"\xbe\xbf").fields == ((b"new", b"2"), (b"old", b"1"))
    assert read(table, b"\x0f\x2f\x01x\x0f\x30\x01y").fields == ((b"new", b"x"), (b"old", b"y"))
    assert read(table, b"\xbd").fields == ((b"www-authenticate", b""),)
    for data, index in (
        (b"\xc0", 64),
        (b"\x0f\x31\x01x", 64),
        (b"\x7f\x01\x01x", 64),
        (b"\x80", 0),
        (b"\xff\x00", 127),
    ):
        with refused(f"field index {index} is not in the table"):
            read(table, data)
    with refused("field index 62"):
        read(DecoderTable(), b"\xbe")


def test_what_a_block_says_of_itself() -> None:
    table = DecoderTable(((b"old", b"1"),), 36)
    for data, inserted, dynamic, secret in (
        (b"\x82", (), False, False),
        (b"\xbe", (), True, False),
        (literal(0x00, b"a", b"b"), (), False, False),
        (literal(0x40, b"a", b"b"), ((b"a", b"b"),), False, False),
        (b"\x7e\x01x", ((b"old", b"x"),), True, False),
        (b"\x0f\x2f\x01x", (), True, False),
        (literal(0x10, b"a", b"b"), (), False, True),
        (b"\x1f\x2f\x01x", (), True, True),
        (literal(0x00, b"set-cookie", b"b"), (), False, True),
        (literal(0x40, b"cookie", b"b") + b"\x82", ((b"cookie", b"b"),), False, True),
        (b"\x0f\x28\x01b", (), False, True),  # set-cookie by its static name
    ):
        block = read(table, data)
        assert (block.inserted, block.dynamic, block.secret) == (inserted, dynamic, secret)


def test_a_secret_by_reference_is_a_secret() -> None:
    """Block: "`secret`: it must not be remembered"; the table may hold it, what a reader makes of the block may not."""
    for name in sorted(SECRET_FIELDS):
        table = read(DecoderTable(), literal(0x40, name, b"hunter2")).table
        assert read(table, b"\x88\xbe").fields == ((b":status", b"200"), (name, b"hunter2"))
        assert read(table, b"\x88\xbe").secret


def test_a_block_that_changes_nothing_gives_back_its_table() -> None:
    """What is remembered with the table stays remembered."""
    table = DecoderTable(((b"old", b"1"),), 36)
    for data in (b"", b"\x82\xbe", literal(0x00, b"a", b"b"), literal(0x10, b"a", b"b"), b"\x3f\xe1\x1f"):
        assert read(table, data).table is table
    assert read(table, literal(0x40, b"a", b"b")).table is not table


@pytest.mark.rfc("7541-4.4-1")
def test_eviction_takes_the_oldest() -> None:
    """§4.4."""
    table = DecoderTable((), 0, 100)
    for letter in (b"a", b"b", b"c", b"d"):
        table = read(table, literal(0x40, letter, b"1")).table
    assert table == DecoderTable(((b"c", b"1"), (b"d", b"1")), 68, 100)


@pytest.mark.rfc("7541-4.4-1")
def test_entry_larger_than_the_table_empties_it() -> None:
    """§4.4: "It is not an error to attempt to add an entry that is larger than the maximum size"."""
    table = DecoderTable(((b"a", b"1"), (b"b", b"2")), 68, 68)
    fits = read(table, literal(0x40, b"c", b"x" * 35))
    assert fits.table == DecoderTable(((b"c", b"x" * 35),), 68, 68)
    above = read(table, literal(0x40, b"c", b"x" * 36))
    assert above.table == DecoderTable((), 0, 68)
    assert above.fields == ((b"c", b"x" * 36),)
    assert read(table, literal(0x40, b"c", b"x" * 36) + literal(0x40, b"d", b"")).table.entries == ((b"d", b""),)


@pytest.mark.rfc("7541-4.4-2")
def test_a_name_from_an_entry_that_is_evicted_by_it() -> None:
    """§4.4: "A new entry can reference the name of an entry in the dynamic table that will be evicted"."""
    table = DecoderTable(((b"name", b"1"),), 37, 40)
    block = read(table, b"\x7e\x01" + b"2")
    assert block.fields == ((b"name", b"2"),)
    assert block.table == DecoderTable(((b"name", b"2"),), 37, 40)


@given(st.integers(0, 200), SECTIONS, st.lists(SECTIONS, max_size=3))
def test_insert_is_what_decoding_does(max_size: int, before: list[Field], blocks: list[list[Field]]) -> None:
    """So a block that refers to nothing can be remembered by what it inserts."""
    table = insert(DecoderTable((), 0, max_size), tuple(before))
    for section in blocks:
        data = b"".join([literal(0x40, name, value, len(value) % 2 == 0) for name, value in section])
        block = read(table, data)
        assert (block.inserted, block.dynamic) == (tuple(section), False)
        assert insert(table, block.inserted) == block.table
        kept: list[Field] = [*table.entries, *section]
        while sum([len(name) + len(value) + 32 for name, value in kept]) > max_size:
            del kept[0]
        assert block.table.entries == tuple(kept)
        table = block.table


def test_inserting_nothing_changes_nothing() -> None:
    table = DecoderTable(((b"a", b"1"),), 34)
    assert insert(table, ()) is table
    assert insert(table, ((b"b", b"2"),)) == DecoderTable(((b"a", b"1"), (b"b", b"2")), 68)
    assert insert(table, ((b"b", b"x" * 4096),)) == DecoderTable((), 0)
    assert table == DecoderTable(((b"a", b"1"),), 34)


# What is remembered


def memos() -> list[dict[bytes, bytes] | dict[bytes, Field]]:
    """All that is remembered for the whole process: names, and literals in two generations."""
    return [hpack.names, hpack.literals, hpack.old_literals]


def remembered() -> set[bytes]:
    """Every string in what the memos would answer."""
    found: set[bytes] = set()
    for memo in memos():
        for item in memo.values():
            found.update([item] if isinstance(item, bytes) else item)
    return found


@pytest.mark.parametrize("coded", [False, True])
def test_memos_are_bounded(coded: bool) -> None:
    """10,000 distinct names and values, each twice."""
    for number in range(10_000):
        name, value = b"name-%d" % number, b"value-%d" % number
        data = hpack.encode_integer(0, 0x3F, 0x40) + literal(0, HUFFMAN.encode(name), value, coded)[1:]
        data = data[:1] + bytes((data[1] | 0x80,)) + data[2:]
        for _ in range(2):
            assert read(DecoderTable(), data).fields == ((name, value),)
        assert max([len(memo) for memo in memos()]) <= hpack.MEMO_SIZE
    assert b"name-9999" in remembered()
    assert b"name-0" not in remembered()


def test_a_string_is_remembered_when_it_recurs() -> None:
    """And the answer is the same before, then and after."""
    name, value = b"x-recurring-name", b"a value that recurs"
    for pattern in (0x00, 0x40):
        data = bytes((pattern, 0x80 | len(HUFFMAN.encode(name)))) + HUFFMAN.encode(name)
        data += literal(0, b"", value, True)[2:]
        for _ in range(4):
            assert read(DecoderTable(), data).fields == ((name, value),)
    assert name in remembered()


def test_what_comes_once_is_not_remembered() -> None:
    value = b"only once in this test, and nowhere else"
    assert read(DecoderTable(), literal(0x40, b"x-a", value, True)).fields == ((b"x-a", value),)
    assert value not in remembered()


def test_what_is_remembered_survives_one_generation() -> None:
    data = literal(0x00, b"x-survivor", b"a string of an older generation", True)
    for _ in range(2):
        read(DecoderTable(), data)
    for number in range(hpack.MEMO_SIZE):
        read(DecoderTable(), literal(0x00, b"x-a", b"filler %d" % number, True))
    for _ in range(2):
        assert read(DecoderTable(), data).fields == ((b"x-survivor", b"a string of an older generation"),)
    assert b"x-survivor" in remembered()


def test_long_strings_are_not_remembered() -> None:
    """What has a length of two octets; the code of X has eight bits, so that these have the length of their octets."""
    for size in (126, 127, 128, 300, 5000):
        name = b"X" * size
        data = b"\x40" + hpack.encode_integer(size, 0x7F, 0x80) + HUFFMAN.encode(name) + literal(0, b"", name, True)[2:]
        for _ in range(3):
            assert read(DecoderTable(), data).fields == ((name, name),)
        assert (name in remembered()) == (size < 127)
    assert max([len(key) for memo in memos() for key in memo]) == 2 + 126 + 1 + 126


def test_a_literal_whose_index_has_two_octets_teaches_nothing_wrong() -> None:
    """Static index 28 is 0F 0D; read as if it had one octet, 0D would be the length of exactly the rest."""
    data = b"\x0f\x0d\x0c123456789012"
    for _ in range(3):
        assert read(DecoderTable(), data).fields == ((b"content-length", b"123456789012"),)
    assert read(DecoderTable(), b"\x0f\x0e\x01x").fields == ((b"content-location", b"x"),)


def test_a_literal_that_looks_shorter_than_it_is() -> None:
    """Its name has 127 octets; read as if the length had one octet, a length would stand at the end of the name."""
    field = (b"n" * 126 + b"\x7f", b"v" * 126)
    data = literal(0x40, *field)
    for _ in range(3):
        assert read(DecoderTable(), data + b"\x82").fields == (field, (b":method", b"GET"))


@pytest.mark.parametrize("name", sorted(SECRET_FIELDS))
@pytest.mark.parametrize("coded", [False, True])
def test_secrets_are_not_remembered(name: bytes, coded: bool) -> None:
    """Neither what is sent under such a name, however it is sent, nor what the peer sends as never indexed."""
    value = b"the secret of " + name
    index = hpack.STATIC_NAMES[name]
    for pattern in (0x00, 0x10, 0x40):
        prefix = 0x3F if pattern == 0x40 else 0x0F
        by_index = hpack.encode_integer(index, prefix, pattern) + literal(0, b"", value, coded)[2:]
        for data in (literal(pattern, name, value, coded), by_index):
            for _ in range(3):
                assert read(DecoderTable(), data).fields == ((name, value),)
    for _ in range(3):
        read(DecoderTable(), literal(0x10, b"x-token", value, coded))
    assert value not in remembered()
    raw = HUFFMAN.encode(value) if coded else value
    assert not [key for memo in memos() for key in memo if raw in key]


def test_the_empty_string_huffman_coded() -> None:
    for _ in range(3):
        assert read(DecoderTable(), b"\x00\x80\x80").fields == ((b"", b""),)


# Work


@pytest.mark.fault("G10")
def test_work_is_linear_in_the_block() -> None:
    """Insertions of two octets, then references of one: 16 KiB take milliseconds, or seconds if each looks at all others."""
    data = b"\x41\x00" * 4096 + b"\xbe" * 8192
    began = time.process_time()
    block = decode(DecoderTable(), data, 65_536, 128)
    assert time.process_time() - began < 2.0
    assert block.oversize
    assert len(block.table.entries) == 4096 // 42


# Encoding: the policy of EncoderTable


def fresh(max_size: int = 4096) -> EncoderTable:
    return EncoderTable({}, {}, 0, max_size)


@given(st.lists(st.tuples(st.none() | st.integers(0, 300) | st.integers(0, 70_000), SECTIONS), max_size=10))
@pytest.mark.rfc("7541-2.1-1", "7541-4.2-1", "7541-6.2.1-1", "7541-6.2.2-1")
def test_they_decode_what_we_encode(blocks: list[tuple[int | None, list[Field]]]) -> None:
    """Whatever the peer's HEADER_TABLE_SIZE, and however often it changes between two blocks."""
    ours, again, theirs = fresh(), DecoderTable((), 0, 4096, 70_000), Decoder()
    for size, section in blocks:
        if size is not None:
            ours = resize(ours, size)
            theirs.max_allowed_table_size = size
        before = (dict(ours.indices), dict(ours.names), ours.size)
        after, data = encode(ours, tuple(section))
        assert (ours.indices, ours.names, ours.size) == before
        ours = after
        if data:  # an empty block says nothing, and so announces nothing
            assert tuple(theirs.decode(data, raw=True)) == tuple(section)
        block = read(again, data)
        assert block.fields == tuple(section)
        again = block.table
        assert again.entries == tuple(ours.indices)
        assert (again.size, again.max_size) == (ours.size, ours.max_size)
        assert ours.size <= ours.max_size <= 4096
        assert not set(ours.names) & SECRET_FIELDS


@given(SECTIONS, SECTIONS, st.booleans())
def test_a_block_may_be_encoded_in_parts(first: list[Field], second: list[Field], resized: bool) -> None:
    table = resize(fresh(), 150) if resized else fresh()
    whole, data = encode(table, (*first, *second))
    middle, before = encode(table, tuple(first))
    end, after = encode(middle, tuple(second))
    assert before + after == data
    assert end == whole


def test_a_field_goes_into_the_table_where_it_first_occurs() -> None:
    table, first = encode(fresh(), ((b"x-a", b"1"),))
    assert first == b"\x40\x03x-a\x011"
    assert (table.indices, table.names, table.size) == ({(b"x-a", b"1"): 0}, {b"x-a": 0}, 36)
    again, second = encode(table, ((b"x-a", b"1"),))
    assert second == b"\xbe"
    assert again is table
    table, both = encode(table, ((b"x-b", b"1"), (b"x-b", b"1"), (b"x-a", b"1")))
    assert both.endswith(b"\xbe\xbf")
    assert list(table.indices) == [(b"x-a", b"1"), (b"x-b", b"1")]


def test_a_name_that_changes_its_value_goes_unindexed() -> None:
    table, _ = encode(fresh(), ((b"x-a", b"1"), (b"etag", b"1")))
    assert encode(table, ((b"x-a", b"2"),)) == (table, b"\x0f\x30\x012")
    assert encode(table, ((b"etag", b"2"),)) == (table, b"\x0f\x13\x012")
    assert encode(table, ((b"x-a", b"1"),)) == (table, b"\xbf")


def test_static_entries_are_never_inserted() -> None:
    for index, field in enumerate(hpack.STATIC[1:], 1):
        table, data = encode(fresh(), (field,))
        assert data == bytes((0x80 | index,))
        assert table == fresh()


def test_what_is_long_goes_unindexed() -> None:
    """A quarter of the table, both sides."""
    table, data = encode(fresh(), ((b"x-a", b"v" * (1024 - 32 - 3)),))
    assert (data[0], table.size) == (0x40, 1024)
    table, data = encode(fresh(), ((b"x-a", b"v" * (1024 - 32 - 3 + 1)),))
    assert (data[0], table) == (0x00, fresh())


@pytest.mark.rfc("7541-4.1-1")
def test_the_table_is_filled_while_there_is_room_and_never_evicts() -> None:
    """Both sides of the last octet."""
    table, _ = encode(fresh(100), ((b"a", b"1"),))
    full, data = encode(table, ((b"b", b"v" * 33),))
    assert (data[0], full.size) == (0x40, 100)
    above, data = encode(table, ((b"b", b"v" * 34),))
    assert (data[0], above) == (0x00, table)
    still, data = encode(full, ((b"c", b""), (b"a", b"1"), (b"b", b"v" * 33)))
    assert still is full
    assert data[0] == 0x00
    assert data.endswith(b"\xbf\xbe")


@pytest.mark.parametrize("name", sorted(SECRET_FIELDS))
@pytest.mark.rfc("7541-6.2.3-1")
def test_secrets_are_never_indexed(name: bytes) -> None:
    """§7.1.3: "encoded as never-indexed literals"."""
    table = fresh()
    after, data = encode(table, ((name, b"hunter2"), (name, b"hunter2")))
    assert after is table
    assert data == 2 * (hpack.encode_integer(hpack.STATIC_NAMES[name], 0x0F, 0x10) + b"\x07hunter2")
    assert tuple([field.indexable for field in Decoder().decode(data, raw=True)]) == (False, False)


def test_huffman_coding_only_where_it_goes_into_the_table_and_is_shorter() -> None:
    assert hpack.encode_string(b"aaaaaaaa", True) == b"\x85" + HUFFMAN.encode(b"aaaaaaaa")
    assert hpack.encode_string(b"aaaaaaaa", False) == b"\x08aaaaaaaa"
    assert hpack.encode_string(b"a", True) == b"\x01a"  # five bits are an octet too
    assert hpack.encode_string(b"\x00", True) == b"\x01\x00"
    assert hpack.encode_string(b"", True) == b"\x00"
    name = hpack.encode_string(b"x-a", True)
    assert hpack.encode_literal(0x40, 0x3F, 0, b"x-a", b"0000") == b"\x40" + name + b"\x83" + HUFFMAN.encode(b"0000")
    assert hpack.encode_literal(0x00, 0x0F, 0, b"x-a", b"0000") == b"\x00" + name + b"\x040000"
    assert hpack.encode_literal(0x10, 0x0F, 0, b"x-a", b"0000") == b"\x10" + name + b"\x040000"
    assert hpack.encode_literal(0x00, 0x0F, 15, b"x-a", b"0") == b"\x0f\x00\x010"


@pytest.mark.rfc("7541-4.2-2", "7541-4.2-3", "7541-6.3-1")
def test_a_change_of_size_empties_the_table_and_is_announced() -> None:
    table, _ = encode(fresh(), ((b"x-a", b"1"),))
    assert resize(table, 4096) is table
    assert resize(table, 70_000) is table
    smaller = resize(table, 100)
    assert smaller == EncoderTable({}, {}, 0, 100, (0, 100))
    assert resize(smaller, 100) is smaller
    back = resize(smaller, 5000)
    assert back == EncoderTable({}, {}, 0, 4096, (0, 4096))
    after, data = encode(smaller, ((b":method", b"GET"),))
    assert data == b"\x20\x3f\x45\x82"
    assert after == fresh(100)
    assert encode(after, ((b":method", b"GET"),)) == (after, b"\x82")
    assert encode(back, ()) == (fresh(), b"\x20\x3f\xe1\x1f")


def test_no_table_at_all() -> None:
    """A peer may set HEADER_TABLE_SIZE to 0."""
    table, data = encode(resize(fresh(), 0), ((b"x-a", b"1"), (b"x-a", b"1")))
    assert table == fresh(0)
    theirs = Decoder()
    theirs.max_allowed_table_size = 0
    assert tuple(theirs.decode(data, raw=True)) == ((b"x-a", b"1"), (b"x-a", b"1"))


@pytest.mark.parametrize("size", [1, 2, 126, 127, 128, 300])
def test_a_path_goes_raw_and_unindexed(size: int) -> None:
    """It changes every time."""
    path = b"/" * size
    data = hpack.encode_path(path)
    assert data == (b"\x84" if size == 1 else hpack.encode_literal(0x00, 0x0F, 4, b":path", path))
    block = read(DecoderTable(), data)
    assert (block.fields, block.table) == (((b":path", path),), DecoderTable())


@pytest.mark.skipif(not COMPILED, reason="interpreted, types are only mypy's word")
def test_compiled_code_takes_bytes_only() -> None:
    call: Callable[..., object] = decode
    for data in (bytearray(b"\x82"), memoryview(b"\x82"), "\x82"):
        with pytest.raises(TypeError):
            call(DecoderTable(), data, PLENTY, PLENTY)
