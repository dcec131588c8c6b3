"""The server of a soak: a process that listens on loopback and misbehaves at random, from a seed, on what h2 and h11 do right.

Its first line says the ports, as JSON. It takes commands on its standard input: `kind` ends all misbehaviour and is
answered with `kind` when that is done; the end of the input ends the process, which then says what it has seen.
"""

import argparse
import asyncio
import json
import logging
import random
import socket
import ssl
import sys
from collections import Counter
from collections.abc import Coroutine
from contextlib import suppress
from typing import Final

from tests.soak.fates import Exchange, live
from tests.soak.server_http1 import Http1
from tests.soak.server_http2 import Http2

ORIGINS: Final = ("http1", "h2c", "tls", "tls1", "flaky")  # and two more, where HTTP is not spoken: "mute", "closed"
MUTE: Final = ("silent", "closed", "garbage", "late garbage")


class Town:
    """What all connections share: the dice, what was seen, and who waits for whom."""

    def __init__(self, seed: int) -> None:
        self.dice: Final = random.Random(seed)
        self.kind = False
        self.counts: Final[Counter[str]] = Counter()
        self.crimes: Final[list[str]] = []  # what clients did against the RFCs
        self.fronts: Final[set[Front]] = set()
        self.tasks: Final[set[asyncio.Task[None]]] = set()
        self.held: Final[dict[str, asyncio.Event]] = {}  # requests that are answered when enough of them are here
        self.holding: Final[Counter[str]] = Counter()

    def spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    def blame(self, words: str) -> None:
        """A client broke HTTP."""
        self.counts["crimes"] += 1
        if len(self.crimes) < 20:
            self.crimes.append(words)

    def mend(self) -> None:
        """From now on it behaves."""
        self.kind = True
        for front in self.fronts:
            front.side.mend()

    async def gather(self, group: str, size: int) -> None:
        """Until so many requests of a group are here at once."""
        event = self.held.setdefault(group, asyncio.Event())
        self.holding[group] += 1
        if self.holding[group] == size:
            event.set()
        try:
            await event.wait()
        finally:
            self.holding[group] -= 1


class Front(asyncio.Protocol):
    """One accepted connection: bytes for the protocol that is spoken on it."""

    def __init__(self, town: Town, origin: str) -> None:
        self.town = town
        self.origin = origin
        self.transport: asyncio.Transport
        self.side: Http1 | Http2
        self.writable = asyncio.Event()
        self.writable.set()
        self.shut = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.town.fronts.add(self)
        self.town.counts["connections"] += 1
        tls = transport.get_extra_info("ssl_object")
        two = self.origin == "h2c" or (tls is not None and tls.selected_alpn_protocol() == "h2")
        self.side = Http2(self) if two else Http1(self)

    def data_received(self, data: bytes) -> None:
        self.side.receive(data)

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.town.fronts.discard(self)
        self.writable.set()
        self.side.lost()

    # What a side asks for

    def start(self, exchange: Exchange) -> asyncio.Task[None]:
        """A request has begun."""
        self.town.counts["requests"] += 1
        return self.town.spawn(live(self.town, exchange))

    def write(self, data: bytes) -> None:
        if not self.shut and not self.transport.is_closing():
            self.transport.write(data)

    def half_close(self) -> None:
        """Our end is shut; with TLS, which has no such thing here, the connection is."""
        self.shut = True
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()

    def blame(self, words: str) -> None:
        self.town.blame(f"{self.origin}: {words}")
        self.transport.abort()


class Mute(asyncio.Protocol):
    """What accepts connections and speaks no HTTP."""

    def __init__(self, town: Town) -> None:
        self.town = town

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        way = self.town.dice.choice(MUTE)
        self.town.counts[f"mute: {way}"] += 1
        loop = asyncio.get_running_loop()
        if way == "closed":
            transport.abort() if self.town.dice.random() < 0.5 else transport.close()
        elif way == "garbage":
            transport.write(self.town.dice.randbytes(40))
        elif way == "late garbage":
            loop.call_later(0.1, transport.write, b"\x16\x03\x01 no, this is nothing\r\n\r\n")
        loop.call_later(2.0, transport.abort)


async def flicker(town: Town, server: asyncio.Server, port: int) -> None:
    """A listener that is away for a moment every few seconds: connections are refused then."""
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(town.dice.uniform(0.5, 3.0))
        if town.kind:
            return
        server.close()
        await asyncio.sleep(town.dice.uniform(0.05, 0.5))
        server = await loop.create_server(lambda: Front(town, "flaky"), "127.0.0.1", port, reuse_address=True)


async def command(town: Town) -> None:
    """Until the input ends."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        if line.strip() == b"kind":
            town.mend()
            say({"kind": True})


def say(words: object) -> None:
    sys.stdout.write(json.dumps(words) + "\n")
    sys.stdout.flush()


async def serve(seed: int, certificate: str, key: str) -> None:
    """All of it."""
    town = Town(seed)
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: town.blame(f"the server itself failed: {context}"))
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # it warns of every write to what is closed
    ports: dict[str, int] = {}
    for origin in ORIGINS:
        context = None
        if origin.startswith("tls"):
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate, key)
            context.set_alpn_protocols(["h2", "http/1.1"] if origin == "tls" else ["http/1.1"])
        server = await loop.create_server(
            lambda origin=origin: Front(town, origin),
            "127.0.0.1",
            0,
            ssl=context,
            backlog=500,
        )
        ports[origin] = server.sockets[0].getsockname()[1]
        if origin == "flaky":
            town.spawn(flicker(town, server, ports[origin]))
    mute = await loop.create_server(lambda: Mute(town), "127.0.0.1", 0)
    ports["mute"] = mute.sockets[0].getsockname()[1]
    with socket.socket() as closed:  # bound, and not listening: whoever connects is refused
        closed.bind(("127.0.0.1", 0))
        ports["closed"] = closed.getsockname()[1]
        say(ports)
        await command(town)
    say({"counts": dict(town.counts), "crimes": town.crimes})


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.soak.server", description=__doc__)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--certificate", required=True)
    parser.add_argument("--key", required=True)
    options = parser.parse_args()
    with suppress(KeyboardInterrupt):
        asyncio.run(serve(options.seed, options.certificate, options.key))


if __name__ == "__main__":
    main()
