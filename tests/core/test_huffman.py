"""The Huffman code: RFC 7541 §5.2 and Appendix B, against the hpack package."""

from collections.abc import Callable
from typing import Final

import pytest
from hpack.exceptions import HPACKDecodingError
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hpack.huffman_table import decode_huffman
from hypothesis import given
from hypothesis import strategies as st

import calamint.core.value
from calamint.core import huffman
from calamint.core.errors import COMPRESSION_ERROR, ConnectionFault

COMPILED: Final = not (calamint.core.value.__file__ or "").endswith(".py")
THEIRS: Final = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH)
EOS: Final = "1" * 30  # Appendix B, symbol 256


def bits(text: bytes) -> str:
    """The code of each octet, without padding."""
    return "".join([f"{REQUEST_CODES[byte]:0{REQUEST_CODES_LENGTH[byte]}b}" for byte in text])


def pack(row: str) -> bytes:
    """Whole octets of 0s and 1s."""
    assert len(row) % 8 == 0
    return int(f"1{row}", 2).to_bytes(len(row) // 8 + 1, "big")[1:]


def fails(data: bytes) -> None:
    with pytest.raises(ConnectionFault) as caught:
        huffman.decode(data)
    assert caught.value.code == COMPRESSION_ERROR
    assert "padding" in caught.value.reason
    assert "EOS" in caught.value.reason
    assert "at most 7" in caught.value.reason


@pytest.mark.rfc("7541-5.2-1")
def test_codes_are_those_of_appendix_b() -> None:
    assert list(huffman.LENGTHS) == list(REQUEST_CODES_LENGTH)
    assert list(huffman.CODES) == list(REQUEST_CODES)
    assert f"{huffman.CODES[huffman.EOS]:b}" == EOS


def test_every_single_octet_both_ways() -> None:
    for number in range(256):
        byte = bytes((number,))
        coded = huffman.encode(byte)
        assert coded == THEIRS.encode(byte)
        assert huffman.decode(coded) == byte
        assert decode_huffman(coded) == byte


def test_every_pair_of_octets() -> None:
    """Every symbol in every position within an octet."""
    for first in range(256):
        text = bytes([number for second in range(256) for number in (first, second)])
        assert huffman.decode(THEIRS.encode(text)) == text


@pytest.mark.parametrize(
    ("text", "coded"),
    [
        (b"", ""),
        (b"www.example.com", "f1e3c2e5f23a6ba0ab90f4ff"),
        (b"no-cache", "a8eb10649cbf"),
        (b"custom-key", "25a849e95ba97d7f"),
        (b"custom-value", "25a849e95bb8e8b4bf"),
        (b"302", "6402"),
        (b"private", "aec3771a4b"),
        (b"Mon, 21 Oct 2013 20:13:21 GMT", "d07abe941054d444a8200595040b8166e082a62d1bff"),
        (b"https://www.example.com", "9d29ad171863c78f0b97c8e9ae82ae43d3"),
        (b"gzip", "9bd9ab"),
        (
            b"foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
            "94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
        ),
    ],
)
def test_the_strings_of_appendix_c(text: bytes, coded: str) -> None:
    """RFC 7541 Appendix C.4 and C.6."""
    assert huffman.encode(text) == bytes.fromhex(coded)
    assert huffman.decode(bytes.fromhex(coded)) == text


@given(st.binary(max_size=200) | st.text("abcdefghij /:;=.0123456789é", max_size=200).map(str.encode))
def test_strings_both_ways(text: bytes) -> None:
    coded = huffman.encode(text)
    assert coded == THEIRS.encode(text)
    assert huffman.decode(coded) == text
    assert decode_huffman(coded) == text


@given(
    st.binary(max_size=40)
    | st.lists(st.sampled_from([b"\xff", b"\x00", b"\xfe", b"a", b"\xf8"]), max_size=8).map(b"".join)
)
def test_any_octets_are_judged_alike(data: bytes) -> None:
    try:
        expected: bytes | None = decode_huffman(data)
    except HPACKDecodingError:
        expected = None
    for _ in range(2):  # steps that are made, steps that are known
        if expected is None:
            fails(data)
        else:
            assert huffman.decode(data) == expected


@pytest.mark.parametrize("padding", range(8))
@pytest.mark.rfc("7541-5.2-2")
def test_padding_of_each_length(padding: int) -> None:
    """§5.2: the most significant bits of EOS, fewer than eight of them."""
    text = next(b"a" * count for count in range(1, 9) if -5 * count % 8 == padding)
    row = bits(text)
    assert huffman.decode(pack(row + "1" * padding)) == text
    assert huffman.encode(text) == pack(row + "1" * padding)


@pytest.mark.parametrize("padding", range(1, 8))
@pytest.mark.rfc("7541-5.2-3")
def test_padding_with_a_zero_in_it(padding: int) -> None:
    """§5.2: "A padding not corresponding to the most significant bits of the code for the EOS symbol MUST be treated as
    a decoding error"."""
    text = next(b"a" * count for count in range(1, 9) if -5 * count % 8 == padding)
    seen = 0
    for number in range(2**padding - 1):
        ending = f"{number:0{padding}b}"
        if not any([ending.startswith(bits(bytes((byte,)))) for byte in range(256)]):  # or it begins with a symbol
            fails(pack(bits(text) + ending))
            seen += 1
    assert seen >= 1


@pytest.mark.parametrize("padding", range(8))
@pytest.mark.rfc("7541-5.2-2")
def test_padding_of_eight_bits_or_more(padding: int) -> None:
    """§5.2: "A padding strictly longer than 7 bits MUST be treated as a decoding error"."""
    text = next(b"a" * count for count in range(1, 9) if -5 * count % 8 == padding)
    for more in (8, 16):
        fails(pack(bits(text) + "1" * (padding + more)))
    fails(b"\xff")


@pytest.mark.parametrize("text", [b"", b"a", b"ab", b"abc", b"abcdefgh"])
@pytest.mark.parametrize("after", ["", "11", "1111111", bits(b"a"), bits(b"abc"), EOS])
@pytest.mark.rfc("7541-5.2-4")
def test_eos_inside_a_string(text: bytes, after: str) -> None:
    """§5.2: "A Huffman-encoded string literal containing the EOS symbol MUST be treated as a decoding error"."""
    row = bits(text) + EOS + after
    fails(pack(row + "1" * (-len(row) % 8)))
    fails(pack(row + "1" * (-len(row) % 8)) + huffman.encode(b"good again"))


def test_a_string_cut_within_a_symbol() -> None:
    """Where the rest looks like padding nobody can tell."""
    coded = huffman.encode(b"\x00\x01\x02")  # 13, 23 and 28 bits, 64 in all; the codes of the last two begin with 1s
    assert (huffman.decode(coded[:2]), huffman.decode(coded[:5])) == (b"\x00", b"\x00\x01")
    for end in (1, 3, 4, 6, 7):
        fails(coded[:end])


@pytest.mark.skipif(not COMPILED, reason="interpreted, types are only mypy's word")
def test_compiled_code_takes_bytes_only() -> None:
    decode: Callable[..., object] = huffman.decode
    for data in (bytearray(b"a"), memoryview(b"a"), "a"):
        with pytest.raises(TypeError):
            decode(data)
