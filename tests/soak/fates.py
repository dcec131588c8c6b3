"""What becomes of a request at the server of a soak: the fates, and how often each is drawn.

A target is /tag/number/size or /hold/group/count. Whatever the fate, a complete response with status 200 has so many bytes, all
of them the last byte of the number, and says the target: that is how a client knows an answer to be its own.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, Protocol

PIECE: Final = 16_000
REASONS: Final = (0x0, 0x1, 0x2, 0x5, 0x8, 0xB, 0xD)  # codes that a reset is drawn from (RFC 9113 §7)
CALM: Final = 0xB
REFUSED: Final = 0x7


class Gone(Exception):
    """The stream or the connection is over: there is nobody to answer."""


class Owner(Protocol):
    """What a fate needs of the server."""

    @property
    def dice(self) -> random.Random: ...
    @property
    def kind(self) -> bool: ...
    @property
    def counts(self) -> Counter[str]: ...

    async def gather(self, group: str, size: int) -> None: ...


class Exchange(Protocol):
    """A request, and what can be done about it in either protocol."""

    method: str
    target: str
    authority: str

    async def content(self) -> int: ...  # reads all of it; how many bytes there were
    async def head(self, status: int, fields: dict[str, str], end: bool = False) -> None: ...
    async def data(self, data: bytes) -> None: ...
    async def end(self, trailers: dict[str, str]) -> None: ...
    def reset(self, code: int) -> None: ...
    def goaway(self, code: int, behind: int) -> None: ...  # this many streams before this one is the last one
    def close(self, abort: bool) -> None: ...
    def half_close(self) -> None: ...
    def garbage(self, data: bytes) -> None: ...
    def stall(self, seconds: float) -> None: ...  # nothing is read, and nothing that needs reading is answered
    def change(self, streams: int, window: int, seconds: float) -> None: ...  # other limits for a while
    def read_slowly(self, seconds: float) -> None: ...


UNASKED: Final = "/unasked"
Fate = Callable[[Owner, Exchange], Awaitable[None]]


async def live(town: Owner, exchange: Exchange) -> None:
    """The life of a request."""
    with suppress(Gone):
        if exchange.target.startswith("/hold/"):
            _, _, group, count = exchange.target.split("/")
            await town.gather(group, int(count))
            await answer(town, exchange)
            return
        name = "answer" if town.kind else town.dice.choices(NAMES, WEIGHTS)[0]
        town.counts[name] += 1
        await FATES[name][1](town, exchange)


def content_of(target: str) -> bytes:
    """What a complete response to this target has in it."""
    _, kind, number, size = target.split("/")
    return b"held" if kind == "hold" else bytes([int(number) & 255]) * int(size)


async def answer(town: Owner, exchange: Exchange, pause: float = 0.0, trailers: bool = False) -> None:
    """What was asked for."""
    received = await exchange.content()
    data = content_of(exchange.target)
    fields = {"x-target": exchange.target, "x-received": str(received), "server": "soak"}
    if not trailers:
        fields["content-length"] = str(len(data))
    if town.dice.random() < 0.1:
        fields["x-unique"] = f"{town.dice.getrandbits(64):x}"
    await exchange.head(200, fields)
    if exchange.method != "HEAD":
        for start in range(0, len(data), PIECE):
            if pause:
                await asyncio.sleep(pause)
            await exchange.data(data[start : start + PIECE])
    await exchange.end({"x-sum": "1"} if trailers else {})


async def slow(town: Owner, exchange: Exchange) -> None:
    await asyncio.sleep(town.dice.expovariate(5))
    await answer(town, exchange, town.dice.uniform(0.01, 0.2))


async def trailing(town: Owner, exchange: Exchange) -> None:
    await answer(town, exchange, trailers=True)


async def interim(town: Owner, exchange: Exchange) -> None:
    for _ in range(town.dice.randint(1, 4)):
        await exchange.head(103, {"link": "</style.css>"})
    await answer(town, exchange)


async def forget(town: Owner, exchange: Exchange) -> None:
    """Neither an end nor a reset."""


async def half(town: Owner, exchange: Exchange) -> None:
    """The beginning of a response, and no more."""
    await exchange.head(200, {"x-target": exchange.target})
    await exchange.data(b"half")


async def broken(town: Owner, exchange: Exchange) -> None:
    await half(town, exchange)
    exchange.reset(town.dice.choice(REASONS))


async def reset(town: Owner, exchange: Exchange) -> None:
    code = town.dice.choice(REASONS)
    exchange.reset(
        code if code != 0xD or exchange.authority.startswith("new") else 0x2
    )  # who asks for HTTP/1.1 gets it


async def refuse(town: Owner, exchange: Exchange) -> None:
    exchange.reset(REFUSED)


async def early(town: Owner, exchange: Exchange) -> None:
    """A response that does not wait for the content."""
    await exchange.head(413, {"x-target": exchange.target}, end=True)
    exchange.reset(0)


async def goaway(town: Owner, exchange: Exchange) -> None:
    exchange.goaway(0, 0)
    await answer(town, exchange, 0.01)


async def goaway_behind(town: Owner, exchange: Exchange) -> None:
    exchange.goaway(0, town.dice.randint(1, 3))


async def calm(town: Owner, exchange: Exchange) -> None:
    exchange.goaway(CALM, 0)
    await asyncio.sleep(0.05)
    exchange.close(False)


async def close(town: Owner, exchange: Exchange) -> None:
    exchange.close(False)


async def abort(town: Owner, exchange: Exchange) -> None:
    if town.dice.random() < 0.5:
        await half(town, exchange)
    exchange.close(True)


async def truncate(town: Owner, exchange: Exchange) -> None:
    await exchange.head(200, {"x-target": exchange.target, "content-length": "1000"})
    await exchange.data(b"less")
    exchange.close(False)


async def half_close(town: Owner, exchange: Exchange) -> None:
    """Our end is shut, and the client's is not."""
    await half(town, exchange)
    exchange.half_close()


async def garbage(town: Owner, exchange: Exchange) -> None:
    exchange.garbage(town.dice.randbytes(town.dice.randint(1, 60)))


async def unasked(town: Owner, exchange: Exchange) -> None:
    """A response, and after it, with the end of the connection, what nobody has asked for, and which says so.

    Over HTTP/1.1 nothing tells it from an answer to a request that left before it came (RFC 9112 §9.2).
    """
    await answer(town, exchange)
    exchange.garbage(b"HTTP/1.1 200 OK\r\nx-target: %b\r\ncontent-length: 5\r\n\r\nnever" % UNASKED.encode())
    exchange.close(False)


async def stall(town: Owner, exchange: Exchange) -> None:
    exchange.stall(town.dice.choice([0.2, 1.0, 12.0]))
    await answer(town, exchange)


async def limits(town: Owner, exchange: Exchange) -> None:
    streams = town.dice.choice([0, 1, 2, 5, 40])
    window = town.dice.choice([0, 1, 1000, 65_535, 200_000])
    exchange.change(streams, window, town.dice.uniform(0.05, 1.0))
    await answer(town, exchange)


async def slow_reader(town: Owner, exchange: Exchange) -> None:
    exchange.read_slowly(town.dice.uniform(0.05, 0.4))
    await answer(town, exchange)


FATES: Final[dict[str, tuple[float, Fate]]] = {
    "answer": (60, answer),
    "slow": (7, slow),
    "trailers": (3, trailing),
    "interim": (3, interim),
    "forgotten": (3, forget),
    "half": (2, half),
    "broken off": (2, broken),
    "reset": (3, reset),
    "refused": (3, refuse),
    "early": (3, early),
    "GOAWAY": (1.5, goaway),
    "GOAWAY, not processed": (1, goaway_behind),
    "GOAWAY, calm": (0.3, calm),
    "closed": (1.5, close),
    "aborted": (1, abort),
    "truncated": (1, truncate),
    "half-closed": (0.7, half_close),
    "garbage": (0.5, garbage),
    "unasked": (0.5, unasked),
    "stalled": (0.5, stall),
    "limits": (2, limits),
    "slow reader": (2, slow_reader),
}
NAMES: Final = list(FATES)
WEIGHTS: Final = [weight for weight, _ in FATES.values()]
