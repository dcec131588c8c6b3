"""Content codings (RFC 9110 §8.4.1), undone a piece at a time: bounded in memory, whatever the peer sends, and without I/O.

decoder = decoder_for("gzip")
decoder.feed(data)                     # for each piece of content that arrives
while piece := decoder.take(): …       # until it needs more
decoder.end()                          # when all has arrived and was taken
"""

import sys
import zlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from importlib import import_module
from typing import Final, Protocol, final

from calamint.core.errors import DecodingError

MAX_CODINGS: Final = 2
PIECE: Final = 16 * 1024
"""Bytes of input at a time, and the unit in which the input is counted where its ratio to the output is limited."""

SHOWN: Final = 80  # characters of a peer's field that a message repeats
ALIASES: Final = {"x-gzip": "gzip"}  # RFC 9110 §8.4.1.3
NAMES: Final = ("gzip", "deflate", "br", "zstd")
GZIP_MAGIC: Final = b"\x1f\x8b"  # RFC 1952 §2.3.1
ZSTD_WINDOW_LOG: Final = 23  # 8 MiB: an encoder may not ask a decoder for more (RFC 9659 §3)
BROTLI_OUTPUT: Final = 64 * 1024  # asked for at a time; up to half more may come


@final
@dataclass(frozen=True, slots=True)
class CodingLimits:
    """What a coded content may come to.

    `step`: bytes of output at a time. `total`: bytes of output in all, or None for any number. `ratio`: bytes of output for
    each byte of input, of which every 16 KiB that has begun counts in full; or None. gzip and deflate never exceed 1032
    to 1 (RFC 1951: 258 bytes for two bits), so by default the ratio stops none of them, and leaves br and zstd, which
    reach 32,000 and 500,000 to 1, no more than gzip has. The first 17 MiB are free. Content in which anything varies
    stays below 600 to 1 with each of them. Raises ValueError for a limit that is not positive.
    """

    step: int = 256 * 1024
    total: int | None = None
    ratio: int | None = 1100

    def __post_init__(self) -> None:
        if self.step < 1 or (self.total is not None and self.total < 0) or (self.ratio is not None and self.ratio < 1):
            raise ValueError(f"{self}: a limit is positive, or None for no limit")


LIMITS: Final = CodingLimits()


class Decompressor(Protocol):
    """One member or frame: what `compression.zstd.ZstdDecompressor` is."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


class Inflate:
    """zlib's decompressor in that shape."""

    def __init__(self, wbits: int) -> None:
        self.raw = zlib.decompressobj(wbits)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self.raw.eof

    @property
    def unused_data(self) -> bytes:
        return self.raw.unused_data

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        output = self.raw.decompress(self.raw.unconsumed_tail or data, max_length)
        # Output that was cut short may go on although all input has been read: the rest stands in the window.
        self.needs_input = len(output) < max_length and not self.raw.unconsumed_tail
        return output


class RawBrotli(Protocol):
    """The decompressor of the packages brotli and brotlicffi."""

    def process(self, data: bytes, *, output_buffer_limit: int) -> bytes: ...
    def is_finished(self) -> bool: ...


class Brotli:
    """It in that shape, but that more than `max_length` may come; and what follows the end is an error, never unused."""

    unused_data = b""

    def __init__(self, make: Callable[[], RawBrotli]) -> None:
        self.raw = make()
        self.eof = False
        self.needs_input = True

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        limit = min(max_length, BROTLI_OUTPUT)
        output = self.raw.process(data, output_buffer_limit=limit)
        # `can_accept_more_data` of brotli 1.2 is true, too, where output is still waiting inside.
        self.needs_input = len(output) < limit
        self.eof = self.needs_input and self.raw.is_finished()
        return output


Opener = tuple[Callable[[], Decompressor], type[Exception]]
"""What begins a member or frame, and what is raised where it is broken."""


@cache
def find_opener(name: str) -> Opener | None:
    """How this coding is undone; None where it is unknown, or the package for it is not installed."""
    if name in ("gzip", "deflate"):
        return partial(Inflate, zlib.MAX_WBITS | 16 if name == "gzip" else zlib.MAX_WBITS), zlib.error
    if name == "br":
        return find_brotli()
    return find_zstd() if name == "zstd" else None


def find_brotli() -> Opener | None:
    for package in ("brotli", "brotlicffi"):
        try:
            module = import_module(package)
        except ImportError:
            continue
        if hasattr(module.Decompressor, "can_accept_more_data"):  # since 1.2, and with it the limit of the output
            return partial(Brotli, module.Decompressor), module.error
    return None


def find_zstd() -> Opener | None:
    try:
        module = import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")
    except ImportError:
        return None
    options = {module.DecompressionParameter.window_log_max: ZSTD_WINDOW_LOG}
    return partial(module.ZstdDecompressor, options=options), module.ZstdError


def supported() -> str:
    """What accept-encoding says: the codings that can be undone here, br and zstd where a package for them is installed."""
    return ", ".join([name for name in NAMES if find_opener(name)])


class Stage:
    """One coding of a content: its members (gzip) or frames (zstd), one after the other."""

    def __init__(self, name: str, opener: Opener) -> None:
        self.name = name
        self.open, self.error = opener
        self.member: Decompressor | None = None
        self.rest = b""  # came after a member, or is too little to begin one with
        self.complete = False  # a member has ended
        self.over = False  # what comes is ignored
        self.produced = 0

    @property
    def unfinished(self) -> bool:
        """Whether more has to come; content that has not begun is empty."""
        return self.member is not None or (bool(self.rest) and not self.complete)

    def decode(self, data: bytes, limit: int) -> bytes:
        """About `limit` bytes of output, or b"" where it needs more input. Then, and only then, `data` may be given."""
        data, self.rest = self.rest + data, b""
        while data or (self.member is not None and not self.member.needs_input):
            member = self.begin(data) if self.member is None else self.member
            if member is None:
                return b""
            try:
                output = member.decompress(data, limit)
            except self.error as error:
                raise DecodingError(f"the content is not what its coding {self.name} says: {error}") from None
            data, self.member = b"", member
            if member.eof:
                data, self.member, self.complete = member.unused_data, None, True
            if output:
                self.produced += len(output)
                self.rest = data
                return output
        return b""

    def begin(self, data: bytes) -> Decompressor | None:
        """What undoes the member that begins with these bytes; None where they are too few, or are to be ignored.

        Another gzip member goes on with the content (RFC 1952 §2.2), another frame of zstd too (RFC 8878 §3.1). Whatever
        else follows the end of gzip or deflate, padding mostly, is ignored, as gzip itself ignores it. After the end of
        br or zstd it is an error, as it is for their own tools.
        """
        if self.over:
            return None
        if len(data) < 2 and self.name in ("gzip", "deflate"):
            self.rest = data
            return None
        if self.complete and (self.name == "deflate" or (self.name == "gzip" and data[:2] != GZIP_MAGIC)):
            self.over = True
            return None
        if self.complete and self.name == "br":
            raise DecodingError("the content goes on after the end of its coding br")
        if self.name == "deflate" and not has_zlib_header(data):
            return Inflate(-zlib.MAX_WBITS)
        return self.open()


def has_zlib_header(data: bytes) -> bool:
    """Whether "deflate" is what it should be (RFC 9110 §8.4.1.2), or comes without the zlib format, as some send it.

    No encoder begins bare deflate with these two bytes (RFC 1950 §2.2): a stored block whose padding is not zero.
    """
    return data[0] & 0x0F == 8 and (data[0] << 8 | data[1]) % 31 == 0


class Decoder:
    """Takes content as it arrives and gives back what it was before it was coded. For one content; not to be shared.

    `codings`: what it undoes, in the order of the field; empty where content passes as it is. After a DecodingError it
    is of no more use.
    """

    def __init__(self, codings: tuple[str, ...], stages: list[Stage], limits: CodingLimits) -> None:
        self.codings: Final = codings
        self.limits: Final = limits
        self.stages = stages
        self.waiting = deque[bytes]()
        self.start = 0  # of what waits in waiting[0]
        self.received = 0  # bytes of input that were looked at
        self.produced = 0
        self.output = b""
        self.taken = 0  # of the output

    def feed(self, data: bytes) -> None:
        """Content that arrived. Nothing is decoded before it is asked for: what is fed waits, and so is bounded by the caller."""
        if data:
            self.waiting.append(data)

    def take(self, limit: int | None = None) -> bytes:
        """The next output: at most `limits.step` bytes of it, and at most `limit`; b"" where more has to be fed first.

        Raises DecodingError where content is not what its codings say, or more than the limits allow.
        """
        if self.taken == len(self.output):
            self.output, self.taken = self.pull(len(self.stages)), 0
            self.produced += len(self.output)
            if self.limits.total is not None and self.produced > self.limits.total:
                raise DecodingError(
                    f"more than {self.limits.total} bytes of content (CodingLimits(total={self.limits.total})), decoded "
                    f"from {self.received}: raise `total`, or None for no limit, if you trust the server"
                )
        most = self.limits.step if limit is None else min(limit, self.limits.step)
        piece = self.output[self.taken : self.taken + most]
        self.taken += len(piece)
        return piece

    def pull(self, depth: int) -> bytes:
        """Output of the first `depth` stages, or b"" where more has to be fed first."""
        if not depth:
            return self.next_input()
        stage = self.stages[depth - 1]
        output = stage.decode(b"", self.limits.step)
        while not output:
            data = self.pull(depth - 1)
            if not data:
                return b""
            output = stage.decode(data, self.limits.step)
        self.check_ratio(stage)
        return output

    def next_input(self) -> bytes:
        """What was fed, in pieces of at most PIECE: so what a decompressor keeps for later, and copies each time, is small.

        No piece reaches beyond a multiple of PIECE. So how often the ratio is looked at, and with which counts, does not
        depend on how the content was cut on its way.
        """
        if not self.waiting:
            return b""
        data = self.waiting[0]
        if not self.stages:
            self.received += len(data)
            return self.waiting.popleft()
        end = self.start + PIECE - self.received % PIECE
        piece = data[self.start : end]
        self.start = end
        if end >= len(data):
            self.waiting.popleft()
            self.start = 0
        self.received += len(piece)
        return piece

    def check_ratio(self, stage: Stage) -> None:
        """Raises where too much came out of too little, be it between two codings."""
        ratio = self.limits.ratio
        if ratio is not None and stage.produced > ratio * PIECE * -(-self.received // PIECE):
            raise DecodingError(
                f"{self.received} bytes of content decode to {stage.produced} and more ({', '.join(self.codings)}): allowed "
                f"are {ratio} to 1 (CodingLimits(ratio={ratio})); raise `ratio`, or None for no limit, if you trust the server"
            )

    def end(self) -> None:
        """All of the content was fed, and take() has given b"". Raises DecodingError where its coding has not ended.

        No content at all is no error, whatever its coding: that of a HEAD request's response, or of a 204 or 304.
        """
        for stage in self.stages:
            if stage.unfinished:
                raise DecodingError(
                    f"the content ended inside its coding {stage.name}: {self.received} bytes arrived, which decode to "
                    f"{self.produced}, and more were to come"
                )


def decoder_for(content_encoding: str, limits: CodingLimits = LIMITS) -> Decoder:
    """A decoder for content with this content-encoding, a field value such as "gzip", "br, gzip" or "".

    Codings are undone from the last to the first (RFC 9110 §8.4). Where one of them is unknown, or its package is not
    installed, content passes as it is: what is undone is undone in full. Raises DecodingError for more than two codings.
    """
    names = [name.strip(" \t").lower() for name in content_encoding.split(",")]
    codings = tuple([ALIASES.get(name, name) for name in names if name not in ("", "identity")])
    if len(codings) > MAX_CODINGS:
        shown = content_encoding if len(content_encoding) <= SHOWN else content_encoding[:SHOWN] + "…"
        raise DecodingError(
            f"content-encoding {shown!r} has {len(codings)} codings, and at most {MAX_CODINGS} are undone: read the "
            "content as it arrived"
        )
    stages: list[Stage] = []
    for name in reversed(codings):
        opener = find_opener(name)
        if opener is None:
            return Decoder((), [], limits)
        stages.append(Stage(name, opener))
    return Decoder(codings, stages, limits)
