"""HPACK: our encoder and decoder against those of the `hpack` package, over many blocks that share their tables."""

from typing import Final, NamedTuple

import pytest
from hpack import Decoder, Encoder, HPACKError
from hypothesis import given, settings
from hypothesis import strategies as st

from calamint.core import hpack
from calamint.core.errors import ConnectionFault
from calamint.core.value import Fields
from tests.differential.differences import Difference, explain

LARGE: Final = 2**24  # neither side stops at a limit
NAMES: Final = (
    *(b":status", b":path", b":method", b"content-type", b"server", b"x-request-id", b"set-cookie", b"authorization"),
    *(b"cookie", b"accept", b"x", b"x-" + b"long" * 40),
)
VALUES: Final = (
    b"",
    b"200",
    b"GET",
    b"/",
    b"text/html",
    b"a",
    b"b",
    b"c=d",
    bytes(range(256)),
    b"long " * 30,
    b"q" * 4100,
)
SIZES: Final = (4096, 0, 40, 100, 300, 1000, 65_536)

fields = st.lists(
    st.tuples(
        st.one_of(st.sampled_from(NAMES), st.binary(max_size=6)),
        st.one_of(
            st.sampled_from(VALUES), st.integers(0, 20).map(lambda number: b"%d" % number), st.binary(max_size=9)
        ),
    ),
    max_size=8,
).map(tuple)
Step = tuple[int | None, Fields, bool]
steps = st.lists(
    st.tuples(st.one_of(st.none(), st.none(), st.none(), st.sampled_from(SIZES)), fields, st.booleans()), max_size=12
)


def their_entries(decoder: Decoder) -> tuple[tuple[bytes, bytes], ...]:
    """Their dynamic table, the oldest first as ours."""
    return tuple([(bytes(name), bytes(value)) for name, value in decoder.header_table.dynamic_entries])[::-1]


def plain(decoded: object) -> Fields:
    assert isinstance(decoded, list)
    return tuple([(bytes(name), bytes(value)) for name, value in decoded])


@given(steps=steps)
@settings(max_examples=150, deadline=None)
def test_they_decode_what_we_encode(steps: list[Step]) -> None:
    check_encoder(steps)


@given(steps=steps)
@settings(max_examples=150, deadline=None)
def test_we_decode_what_they_encode(steps: list[Step]) -> None:
    check_decoder(steps)


@pytest.mark.slow
@pytest.mark.timeout(300)
@given(steps=steps)
@settings(max_examples=400, deadline=None)
def test_both_ways_for_longer(steps: list[Step]) -> None:
    check_encoder(steps)
    check_decoder(steps)


def check_encoder(steps: list[Step]) -> None:
    """Each step may change their SETTINGS_HEADER_TABLE_SIZE, and is a block."""
    table = hpack.EncoderTable({}, {})
    decoder = Decoder(LARGE)
    for size, section, _ in steps:
        if size is not None:
            table = hpack.resize(table, size)
            decoder.max_allowed_table_size = size
        table, block = hpack.encode(table, section)
        assert plain(decoder.decode(block, raw=True)) == section
        entries = their_entries(decoder)
        assert set(entries) == set(table.indices) and decoder.header_table_size == table.max_size
        assert [table.indices[entry] for entry in entries] == list(range(len(entries)))
        assert not any([name in (b"authorization", b"cookie", b"set-cookie") for name, _ in entries]), "a secret"


def check_decoder(steps: list[Step]) -> None:
    """Each step may change our SETTINGS_HEADER_TABLE_SIZE, and is a block, with Huffman coding or without."""
    table = hpack.DecoderTable()
    encoder = Encoder()
    decoder = Decoder(LARGE)
    for size, section, coded in steps:
        if size is not None:
            encoder.header_table_size = size
            table = hpack.allow(table, size)
            decoder.max_allowed_table_size = size
        block = encoder.encode(section, huffman=coded)
        decoded = hpack.decode(table, block, LARGE, LARGE)
        assert decoded.fields == section == plain(decoder.decode(block, raw=True))
        table = decoded.table
        assert table.entries == their_entries(decoder)
        assert table.max_size == decoder.header_table_size


# Mutated blocks


class Case(NamedTuple):
    """A block and what two decoders made of it: fields and table, or why not."""

    block: bytes
    ours: tuple[Fields, Fields] | str
    theirs: tuple[Fields, Fields] | str

    def we_refuse(self, words: str) -> bool:
        return isinstance(self.ours, str) and not isinstance(self.theirs, str) and words in self.ours

    def updates(self) -> int:
        """How many table size updates begin the block; each in as many octets as it takes."""
        count = pos = 0
        while self.block[pos : pos + 1] and self.block[pos] & 0xE0 == 0x20:
            count += 1
            longer = self.block[pos] == 0x3F
            pos += 1
            while longer and self.block[pos : pos + 1]:
                longer = self.block[pos] >= 0x80
                pos += 1
        return count


DIFFERENCES: Final[tuple[Difference[Case], ...]] = (
    Difference(
        "more than two table size updates",
        "RFC 7541 §4.2: two say everything, the smallest size and the last; ours allows no more",
        lambda case: case.we_refuse("table size updates") and case.updates() > 2,
        b"\x20\x20\x20\x88",
    ),
)


def differs(case: Case) -> bool:
    return case.ours != case.theirs and not (isinstance(case.ours, str) and isinstance(case.theirs, str))


def compare(table: hpack.DecoderTable, decoder: Decoder, block: bytes) -> tuple[Case, hpack.DecoderTable]:
    """One block for both."""
    ours: tuple[Fields, Fields] | str
    theirs: tuple[Fields, Fields] | str
    after = table
    try:
        decoded = hpack.decode(table, block, LARGE, LARGE)
        after = decoded.table
        ours = (decoded.fields, after.entries)
    except ConnectionFault as fault:
        ours = fault.reason
    try:
        theirs = (plain(decoder.decode(block, raw=True)), their_entries(decoder))
    except HPACKError as error:
        theirs = f"{type(error).__name__}: {error}"
    return Case(block, ours, theirs), after


@st.composite
def mutated(draw: st.DrawFn, block: bytes) -> bytes:
    """The block with some bytes changed, or bytes of its own."""
    for _ in range(draw(st.sampled_from((0, 0, 1, 1, 2, 5)))):
        place = draw(st.integers(0, len(block)))
        byte = bytes(
            (draw(st.one_of(st.integers(0, 255), st.sampled_from((0, 0x20, 0x3F, 0x40, 0x7F, 0x80, 0xBE, 0xFF)))),)
        )
        how = draw(st.integers(0, 2))
        block = block[:place] + (b"" if how == 0 else byte) + block[place + (how != 1) :]
    return block


def check_mutated(data: st.DataObject) -> None:
    """Blocks one after the other, as long as both take them."""
    table = hpack.DecoderTable()
    encoder = Encoder()
    decoder = Decoder(LARGE)
    for size, section, coded in data.draw(steps):
        if size is not None:
            encoder.header_table_size = size
            table = hpack.allow(table, size)
            decoder.max_allowed_table_size = size
        case, table = compare(table, decoder, data.draw(mutated(encoder.encode(section, huffman=coded))))
        if differs(case):
            explain(case, DIFFERENCES)
        if isinstance(case.ours, str) or isinstance(case.theirs, str):
            return


@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_both_take_the_same_blocks(data: st.DataObject) -> None:
    check_mutated(data)


@pytest.mark.slow
@pytest.mark.timeout(300)
@given(data=st.data())
@settings(max_examples=800, deadline=None)
def test_both_take_the_same_blocks_for_longer(data: st.DataObject) -> None:
    check_mutated(data)


@given(block=st.binary(max_size=60), limit=st.sampled_from(SIZES))
@settings(max_examples=1000, deadline=None)
def test_both_take_the_same_bytes(block: bytes, limit: int) -> None:
    decoder = Decoder(LARGE)
    decoder.max_allowed_table_size = max(4096, limit)
    case, _ = compare(hpack.DecoderTable(limit=max(4096, limit)), decoder, block)
    if differs(case):
        explain(case, DIFFERENCES)


def test_more_updates_than_two_are_refused_by_us_alone() -> None:
    case, _ = compare(hpack.DecoderTable(), Decoder(LARGE), DIFFERENCES[0].example)
    assert differs(case)
    assert explain(case, DIFFERENCES) == DIFFERENCES[0].name


def test_both_refuse_a_block_that_does_not_announce_the_smaller_size() -> None:
    """RFC 9113 §4.3.1."""
    decoder = Decoder(LARGE)
    decoder.max_allowed_table_size = 100
    case, _ = compare(hpack.allow(hpack.DecoderTable(), 100), decoder, b"\x88")
    assert isinstance(case.ours, str) and isinstance(case.theirs, str)
