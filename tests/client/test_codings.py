"""Content codings: RFC 9110 §8.4.1. The judges are the compressors of zlib, brotli and zstd."""

import gzip
import json
import os
import pickle
import random
import subprocess
import sys
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Final

import brotli
import brotlicffi
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calamint.client import codings
from calamint.client.codings import LIMITS, Brotli, CodingLimits, Decoder, Stage, decoder_for, supported
from calamint.core.errors import DecodingError

ZSTD: Final = import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")
KIB: Final = 1024
MIB: Final = 1024 * 1024
PIECE: Final = 16 * KIB
NO_LIMITS: Final = CodingLimits(total=None, ratio=None)
SOURCE: Final = str(Path(codings.__file__).parents[2])


def deflate(data: bytes, wbits: int = -15, level: int = 9) -> bytes:
    packer = zlib.compressobj(level, zlib.DEFLATED, wbits)
    return packer.compress(data) + packer.flush()


def quick_brotli(data: bytes) -> bytes:
    packed = brotli.compress(data, quality=3)
    assert isinstance(packed, bytes)
    return packed


def zstd(data: bytes) -> bytes:
    packed = ZSTD.compress(data)
    assert isinstance(packed, bytes)
    return packed


def skippable(data: bytes) -> bytes:
    """RFC 8878 §3.1.2: a frame without content."""
    return b"\x50\x2a\x4d\x18" + len(data).to_bytes(4, "little") + data


def twice(pack: Callable[[bytes], bytes], data: bytes) -> bytes:
    """The content in two members or frames."""
    half = len(data) // 2
    return pack(data[:half]) + pack(data[half:])


CODERS: Final[dict[str, tuple[str, Callable[[bytes], bytes]]]] = {
    "gzip": ("gzip", gzip.compress),
    "two members": ("x-gzip", partial(twice, gzip.compress)),
    "deflate": ("deflate", zlib.compress),
    "bare deflate": ("deflate", deflate),
    "br": ("br", brotli.compress),
    "zstd": ("zstd", zstd),
    "two frames": ("zstd", lambda data: skippable(b"note") + twice(zstd, data)),
    "identity": ("identity", bytes),
    "none": ("", bytes),
    "gzip, gzip": ("gzip, gzip", lambda data: gzip.compress(gzip.compress(data))),
    "br, gzip": ("br, gzip", lambda data: gzip.compress(brotli.compress(data))),
    "deflate, zstd": ("deflate, zstd", lambda data: zstd(deflate(data))),
    "zstd, br": ("zstd, br", lambda data: brotli.compress(zstd(data))),
}
CODED: Final = [name for name in CODERS if name not in ("identity", "none")]
SENTENCE: Final = b"It is the same sentence again and again, again and again, with an end that differs: %d\n"
TEXT: Final = b"".join([SENTENCE % number for number in range(40)])
CONTENT: Final = st.one_of(
    st.binary(max_size=300),
    st.builds(lambda data, times: data * times, st.binary(max_size=20), st.integers(0, 5000)),
    st.lists(st.binary(max_size=200), max_size=8).map(lambda parts: b"".join(parts + parts + parts)),
)


def drain(decoder: Decoder, pieces: Iterable[bytes], limit: int | None = None) -> bytes:
    """All of the content, taken after each piece that is fed."""
    parts: list[bytes] = []
    for piece in pieces:
        decoder.feed(piece)
        while part := decoder.take(limit):
            assert len(part) <= decoder.limits.step
            assert limit is None or len(part) <= limit
            parts.append(part)
    decoder.end()
    return b"".join(parts)


def decode(field: str, data: bytes, limits: CodingLimits = NO_LIMITS) -> bytes:
    return drain(decoder_for(field, limits), [data])


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    ends = sorted({place % (len(data) + 1) for place in places})
    return [data[start:end] for start, end in zip([0, *ends], [*ends, len(data)], strict=True)]


@pytest.mark.parametrize("name", CODERS)
@given(
    content=CONTENT,
    places=st.lists(st.integers(0, 10**6), max_size=12),
    step=st.one_of(st.integers(1, 50), st.integers(1, 100_000)),
    limit=st.one_of(st.none(), st.integers(1, 40_000)),
)
def test_any_split_and_any_step_give_the_same(
    name: str, content: bytes, places: list[int], step: int, limit: int | None
) -> None:
    field, encode = CODERS[name]
    coded = encode(content)
    step = max(step, len(content) // 2000)
    limit = None if limit is None else max(limit, len(content) // 2000)
    assert drain(decoder_for(field, CodingLimits(step=step, ratio=None)), cut(coded, places), limit) == content
    assert drain(decoder_for(field, NO_LIMITS), [coded[place : place + 1] for place in range(len(coded))]) == content


@pytest.mark.parametrize("name", CODERS)
def test_what_is_fed_waits_until_it_is_taken(name: str) -> None:
    field, encode = CODERS[name]
    decoder = decoder_for(field, CodingLimits(step=100))
    coded = encode(TEXT)
    for place in range(0, len(coded), 7):
        decoder.feed(coded[place : place + 7])
    assert decoder.received == 0
    decoder.feed(b"")
    assert drain(decoder, []) == b""
    assert drain(decoder, [b""]) == TEXT


@pytest.mark.parametrize("name", CODED)
def test_no_content_is_no_error_whatever_its_coding(name: str) -> None:
    """RFC 9110 §8.4: the field stands in the response to HEAD, too, and in a 304."""
    assert decode(CODERS[name][0], b"") == b""


@pytest.mark.parametrize("name", CODED)
def test_empty_content_that_was_coded(name: str) -> None:
    field, encode = CODERS[name]
    assert decode(field, encode(b"")) == b""


@pytest.mark.parametrize("name", CODED)
def test_content_that_ends_too_early_at_every_byte(name: str) -> None:
    field, encode = CODERS[name]
    coded = encode(TEXT)
    whole_without = {
        len(gzip.compress(TEXT[: len(TEXT) // 2])) + more for more in (0, 1)
    }  # a member, and a byte of padding
    frames = {len(skippable(b"note")), len(skippable(b"note")) + len(zstd(TEXT[: len(TEXT) // 2]))}
    ends: set[int] = {"two members": whole_without, "two frames": frames}.get(name, set())
    for size in range(1, len(coded)):
        if size in ends:
            assert TEXT.startswith(decode(field, coded[:size]))
            continue
        with pytest.raises(DecodingError, match=rf"{size} bytes arrived, which decode to \d+, and more were to come"):
            decode(field, coded[:size])


@pytest.mark.parametrize("name", CODED)
def test_any_bit_that_is_flipped_gives_nothing_but_decoding_errors(name: str) -> None:
    field, encode = CODERS[name]
    content = TEXT[:300]
    coded = encode(content)
    verdicts: list[bool] = []
    for place in range(8 * len(coded)):
        broken = bytearray(coded)
        broken[place // 8] ^= 1 << place % 8
        try:
            verdicts.append(decode(field, bytes(broken)) == content)
        except DecodingError:
            verdicts.append(False)
    assert not all(verdicts)


@pytest.mark.parametrize("name", CODED)
@given(data=st.binary(min_size=1, max_size=200), place=st.integers(0, 200))
def test_any_bytes_are_decoded_or_refused_however_they_are_split(name: str, data: bytes, place: int) -> None:
    field, encode = CODERS[name]
    for broken in (data, encode(TEXT)[:-place] + data, encode(data)[: place + 1] + data):
        outcomes = [outcome(field, pieces) for pieces in ([broken], [broken[i : i + 1] for i in range(len(broken))])]
        assert outcomes[0] == outcomes[1]


def outcome(field: str, pieces: Iterable[bytes], limits: CodingLimits = LIMITS) -> bytes | None:
    """The content, or None where it is refused."""
    try:
        return drain(decoder_for(field, limits), pieces)
    except DecodingError as error:
        assert len(str(error)) < 300
        return None


@pytest.mark.parametrize("field", ["gzip", "deflate", "br", "zstd"])
def test_content_that_was_never_coded_is_named(field: str) -> None:
    with pytest.raises(DecodingError, match=f"the content is not what its coding {field} says: "):
        decode(field, b"\xff<html>no coding at all</html>" * 10)


# The field


def test_codings_are_undone_from_the_last_to_the_first() -> None:
    """RFC 9110 §8.4: "listed in the order in which they were applied"."""
    assert decode("br, gzip", gzip.compress(brotli.compress(TEXT))) == TEXT
    with pytest.raises(DecodingError):
        decode("br, gzip", brotli.compress(gzip.compress(TEXT)))


@pytest.mark.parametrize("field", ["GZIP", "X-Gzip", " gzip\t", "identity, gzip", ",gzip ,, identity,", "gzip,"])
def test_how_a_field_may_be_written(field: str) -> None:
    """RFC 9110 §8.4.1: "case-insensitive"; §8.4.1.3 x-gzip; §5.6.1.2 empty elements."""
    decoder = decoder_for(field)
    assert decoder.codings == ("gzip",)
    assert drain(decoder, [gzip.compress(TEXT)]) == TEXT


@pytest.mark.parametrize(
    "field", ["compress", "utf-8", "gzip;q=1", "aws-chunked, gzip", "gzip, none", "\xff", "br gzip"]
)
def test_content_with_an_unknown_coding_passes_as_it_is(field: str) -> None:
    """Never half of its codings: what comes is the content, or what arrived."""
    decoder = decoder_for(field)
    assert decoder.codings == ()
    assert drain(decoder, [gzip.compress(TEXT)]) == gzip.compress(TEXT)


def test_two_codings_are_undone_and_three_are_not() -> None:
    assert decoder_for("gzip, identity, br").codings == ("gzip", "br")
    with pytest.raises(DecodingError, match="'gzip, br, unknown' has 3 codings, and at most 2 are undone"):
        decoder_for("gzip, br, unknown")


def test_a_thousand_codings_cost_nothing() -> None:
    start = time.process_time()
    with pytest.raises(DecodingError, match="1000 codings") as caught:
        decoder_for(", ".join(["gzip"] * 1000))
    assert len(str(caught.value)) < 250
    assert time.process_time() - start < 0.1


def test_what_is_supported() -> None:
    assert supported() == "gzip, deflate, br, zstd"


def alone(code: str, *folders: Path) -> str:
    """What this prints where only these folders, calamint and the standard library can be imported."""
    path = [*map(str, folders), SOURCE]
    line = f"import sys; sys.path[:0] = {path!r}; from calamint.client.codings import decoder_for, supported; {code}"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", line], capture_output=True, text=True, check=True)
    return done.stdout.strip()


BESIDE: Final = pytest.mark.skipif(
    os.environ.get("CALAMINT_BUILD") == "compiled",
    reason="the wheel stands in the folder of the packages that are to be missing",
)
BUILT_IN: Final = "gzip, deflate, zstd" if sys.version_info >= (3, 14) else "gzip, deflate"


@BESIDE
def test_a_coding_whose_package_is_not_installed_is_unknown() -> None:
    assert alone("print(supported())") == BUILT_IN
    assert alone("print(decoder_for('br').codings, decoder_for('br, gzip').codings)") == "() ()"


@BESIDE
def test_a_brotli_that_cannot_limit_its_output_is_not_used(tmp_path: Path) -> None:
    """Before 1.2 it had no `output_buffer_limit`, and before that came `can_accept_more_data`."""
    (tmp_path / "brotli.py").write_text("class Decompressor:\n    def process(self, data): raise AssertionError\n")
    assert alone("print(supported())", tmp_path) == BUILT_IN


# Brotli


@pytest.mark.parametrize("package", [brotli, brotlicffi], ids=["brotli", "brotlicffi"])
@given(
    content=CONTENT,
    places=st.lists(st.integers(0, 10**6), max_size=6),
    step=st.sampled_from([100, 5000, 32_752, 32_768, 65_536, 65_537, 200_000]),
)
def test_both_packages_of_brotli(package: ModuleType, content: bytes, places: list[int], step: int) -> None:
    limits = CodingLimits(step=step, ratio=None)
    decoder = Decoder(("br",), [Stage("br", (partial(Brotli, package.Decompressor), package.error))], limits)
    assert drain(decoder, cut(brotli.compress(content), places)) == content


@pytest.mark.parametrize("package", [brotli, brotlicffi], ids=["brotli", "brotlicffi"])
@pytest.mark.parametrize("together", [True, False])
def test_what_follows_the_end_of_br_is_an_error(package: ModuleType, together: bool) -> None:
    stage = Stage("br", (partial(Brotli, package.Decompressor), package.error))
    coded = brotli.compress(TEXT)
    pieces = [coded + coded] if together else [coded, coded]
    with pytest.raises(DecodingError, match="coding br"):
        drain(Decoder(("br",), [stage], NO_LIMITS), pieces)


# What follows the end


@pytest.mark.parametrize("tail", [b"\0", b"\0" * 1000, b"\r\n", b"\x1f", b"\x1f\x8a", b"\0\0" + gzip.compress(TEXT)])
@pytest.mark.parametrize("name", ["gzip", "deflate", "bare deflate"])
def test_what_follows_the_end_of_gzip_and_deflate_is_ignored(name: str, tail: bytes) -> None:
    field, encode = CODERS[name]
    coded = encode(TEXT) + tail
    for size in (1, 2, len(encode(TEXT)), len(coded)):
        assert drain(decoder_for(field), [coded[place : place + size] for place in range(0, len(coded), size)]) == TEXT


def test_another_member_is_not_padding() -> None:
    """RFC 1952 §2.2: "a series of members"; one that begins and is broken is not ignored."""
    assert decode("gzip", gzip.compress(b"a") + gzip.compress(b"b") + gzip.compress(b"c")) == b"abc"
    with pytest.raises(DecodingError, match="and more were to come"):
        decode("gzip", gzip.compress(b"a") + b"\x1f\x8b")
    with pytest.raises(DecodingError, match="coding gzip says"):
        decode("gzip", gzip.compress(b"a") + b"\x1f\x8b\xff\xff")


def test_what_follows_the_end_of_zstd_is_another_frame_or_an_error() -> None:
    """RFC 8878 §3.1: "one or more frames"."""
    assert decode("zstd", zstd(b"a") + skippable(b"") + zstd(b"") + zstd(b"b")) == b"ab"
    with pytest.raises(DecodingError, match="coding zstd says"):
        decode("zstd", zstd(b"a") + b"garbage")
    with pytest.raises(DecodingError, match="and more were to come"):
        decode("zstd", zstd(b"a") + zstd(b"b")[:1])


def test_garbage_without_end_costs_nothing_but_its_bytes() -> None:
    decoder = decoder_for("gzip")
    decoder.feed(gzip.compress(b"content"))
    assert decoder.take() == b"content"
    start = time.process_time()
    for _ in range(100):
        decoder.feed(bytes(MIB))
        assert decoder.take() == b""
    assert time.process_time() - start < 2
    decoder.end()


@pytest.mark.parametrize(
    ("field", "member"), [("gzip", gzip.compress(b"", mtime=0)), ("zstd", zstd(b"")), ("zstd", skippable(b""))]
)
def test_members_without_content_cost_their_bytes_and_no_more(field: str, member: bytes) -> None:
    start = time.process_time()
    assert decode(field, member * 20_000) == b""
    assert time.process_time() - start < 5


@given(data=st.binary(max_size=200), level=st.integers(0, 9), times=st.integers(1, 500))
def test_bare_deflate_is_never_taken_for_the_zlib_format(data: bytes, level: int, times: int) -> None:
    """RFC 1950 §2.2: "a multiple of 31"."""
    content = data * times
    assert decode("deflate", deflate(content, level=level)) == content
    assert decode("deflate", deflate(content, wbits=15, level=level)) == content
    assert decode("deflate", deflate(content, wbits=9, level=level)) == content


def test_deflate_with_a_dictionary_that_nobody_has() -> None:
    packer = zlib.compressobj(zdict=b"words")
    with pytest.raises(DecodingError, match="coding deflate says"):
        decode("deflate", packer.compress(b"words") + packer.flush())


def test_a_window_of_zstd_above_8_mib_is_refused() -> None:
    """RFC 9659 §3: no encoder may ask for it."""
    parameter = ZSTD.CompressionParameter
    for window, allowed in ((23, True), (24, False)):
        packer = ZSTD.ZstdCompressor(options={parameter.window_log: window})
        coded = packer.compress(bytes(17 * MIB)) + packer.flush()
        if allowed:
            assert len(decode("zstd", coded)) == 17 * MIB
        else:
            with pytest.raises(DecodingError, match="too much memory"):
                decode("zstd", coded)


# Limits


def bomb(field: str) -> tuple[bytes, int]:
    """Zeros, 10 GB of them where they can be made in an instant, as bytes that are fed a number of times."""
    hundred = bytes(100_000_000)
    if field == "gzip":
        return deflate(hundred, 31), 100
    return (zstd(hundred), 100) if field == "zstd" else (quick_brotli(hundred), 1)


@pytest.mark.fault("G12")
@pytest.mark.parametrize("field", ["gzip", "br", "zstd"])
def test_a_bomb_stays_within_memory_and_ends_when_the_caller_stops(field: str) -> None:
    part, times = bomb(field)
    limits = CodingLimits(ratio=None)
    start = time.process_time()
    tracemalloc.start()
    try:
        decoder = decoder_for(field, limits)
        for _ in range(times):
            decoder.feed(part)  # the same bytes: what waits takes no memory of its own
        taken = 0
        while taken < 64 * MIB:
            piece = decoder.take()
            assert 0 < len(piece) <= limits.step
            assert piece.count(0) == len(piece)
            taken += len(piece)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 * MIB
    assert time.process_time() - start < 20


@pytest.mark.parametrize(("field", "encode"), [("br", quick_brotli), ("zstd", zstd)])
def test_the_ratio_stops_what_gzip_could_not_be(field: str, encode: Callable[[bytes], bytes]) -> None:
    coded = encode(bytes(64 * MIB))
    decoder = decoder_for(field)
    decoder.feed(coded)
    taken = 0
    with pytest.raises(DecodingError, match=r"allowed are 1100 to 1 \(CodingLimits\(ratio=1100\)\); raise `ratio`"):
        while piece := decoder.take():
            taken += len(piece)
    assert 17 * MIB <= taken <= 1100 * PIECE
    assert len(decode(field, coded)) == 64 * MIB


def test_gzip_is_never_stopped_by_the_ratio() -> None:
    """It cannot exceed 1032 to 1."""
    coded = deflate(bytes(40 * MIB), 31)
    assert 1020 < 40 * MIB / len(coded) < 1032
    decoder = decoder_for("gzip")
    decoder.feed(coded)
    taken = 0
    while piece := decoder.take():
        taken += len(piece)
    decoder.end()
    assert taken == 40 * MIB


@pytest.mark.parametrize("name", ["gzip", "deflate", "br", "zstd", "gzip, gzip", "br, gzip"])
@pytest.mark.parametrize("step", [1000, 256 * KIB])
def test_both_sides_of_the_ratio(name: str, step: int) -> None:
    field, encode = CODERS[name]
    limits = CodingLimits(step=step, ratio=10)
    assert len(decode(field, encode(bytes(10 * PIECE)), limits)) == 10 * PIECE
    with pytest.raises(DecodingError, match="allowed are 10 to 1"):
        decode(field, encode(bytes(10 * PIECE + 1)), limits)


@pytest.mark.parametrize("before", [0, 60, 110, 193])
def test_the_ratio_counts_every_16_kib_of_input_that_has_begun(before: int) -> None:
    """So however it is split the verdict is the same, also where what swells stands on both sides of a border."""
    noise = deflate(random.Random(1).randbytes(PIECE - before - 23), 31, level=0)
    assert len(noise) == PIECE - before
    coded = noise + deflate(bytes(10 * PIECE), 31)
    allowed = [least_ratio(coded, size) for size in (1, 100, 1000, 3000, PIECE, 2 * PIECE)]
    assert len(set(allowed)) == 1
    assert 5 < allowed[0] < 12


def least_ratio(coded: bytes, size: int) -> int:
    """The ratio that gzip content in pieces of this size needs."""
    pieces = [coded[place : place + size] for place in range(0, len(coded), size)]
    return min([ratio for ratio in range(1, 20) if outcome("gzip", pieces, CodingLimits(ratio=ratio)) is not None])


def test_the_ratio_holds_between_two_codings() -> None:
    """Much that becomes nothing in the end is work, too."""
    coded = quick_brotli(skippable(bytes(64 * MIB)) + zstd(b"content"))
    with pytest.raises(DecodingError, match=r"decode to \d+ and more \(zstd, br\): allowed are 1100 to 1"):
        decode("zstd, br", coded, CodingLimits())
    assert decode("zstd, br", coded) == b"content"


@pytest.mark.parametrize("name", CODERS)
@pytest.mark.parametrize("step", [7, 256 * KIB])
def test_both_sides_of_the_total(name: str, step: int) -> None:
    field, encode = CODERS[name]
    assert decode(field, encode(TEXT), CodingLimits(step=step, total=len(TEXT))) == TEXT
    with pytest.raises(DecodingError, match=rf"more than {len(TEXT) - 1} bytes of content .* raise `total`"):
        decode(field, encode(TEXT), CodingLimits(step=step, total=len(TEXT) - 1))


def test_a_total_of_nothing() -> None:
    assert decode("gzip", gzip.compress(b""), CodingLimits(total=0)) == b""
    with pytest.raises(DecodingError):
        decode("gzip", gzip.compress(b"a"), CodingLimits(total=0))


@pytest.mark.parametrize(
    "make",
    [lambda: CodingLimits(step=0), lambda: CodingLimits(total=-1), lambda: CodingLimits(ratio=0)],
    ids=["step", "total", "ratio"],
)
def test_limits_are_positive(make: Callable[[], CodingLimits]) -> None:
    with pytest.raises(ValueError, match="a limit is positive"):
        make()
    assert (CodingLimits(step=1, total=0, ratio=1).step, CodingLimits().total) == (1, None)


def test_limits_are_a_value() -> None:
    assert pickle.loads(pickle.dumps(CodingLimits(total=5))) == CodingLimits(total=5) != CodingLimits()


def test_what_the_default_ratio_leaves_alone() -> None:
    """ "Content in which anything varies stays below 600 to 1 with each of them": rows that differ in a number."""
    rows = [{"id": number, "name": "example", "active": True, "tags": []} for number in range(5000)]
    content = json.dumps(rows).encode()
    for _, encode in (CODERS[name] for name in ("gzip", "deflate", "br", "zstd")):
        assert len(content) / len(encode(content)) < 600
