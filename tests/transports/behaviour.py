"""How clients of httpx and httpx2 behave on HTTP/2, with their own transport and with ours: a row a question, a column a client.

    python -m tests.transports.behaviour [httpx] [httpx2]

Every cell is measured against a server on loopback. The exit code is 1 if a cell of ours is not what it should be.
"""

import argparse
import asyncio
import contextlib
import socket
import struct
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, NamedTuple

import h2.config
import h2.connection
import h2.events

from calamint.core.errors import NO_ERROR
from calamint.testing import (
    Action,
    Report,
    Request,
    ScriptedPeer,
    answer,
    delay,
    drip,
    forget,
    garbage,
    goaway,
    refuse,
    reset,
)
from tests.net.thread_server import LIMIT, ThreadServer
from tests.transports.kit import Kit

LARGE = 20 * 1024 * 1024
WINDOW = 2 * 1024 * 1024
DATA, HEADERS, WINDOW_UPDATE = 0, 1, 8
END_STREAM, END_HEADERS = 1, 4


class Cell(NamedTuple):
    """What was seen, and whether that is right."""

    text: str
    right: bool


class Subject(NamedTuple):
    """A client under test: a library, over its own transport or over ours."""

    name: str
    ours: bool

    @property
    def title(self) -> str:
        return f"{self.name} over calamint" if self.ours else f"{self.name} as shipped"

    def open(self, timeout: float = 2.0) -> Any:
        """A client that speaks HTTP/2 without being asked."""
        kit = Kit(self.name, True)
        if self.ours:
            return kit.library.AsyncClient(transport=kit.transport(http1=False), timeout=timeout)
        return kit.library.AsyncClient(http1=False, http2=True, timeout=timeout)

    def total(self, seconds: float) -> dict[str, object]:
        """The options of a request that may take so long in all, as far as the client knows such a thing."""
        return {"extensions": {"timeout": {"total": seconds, "read": seconds}}} if self.ours else {"timeout": seconds}


async def seen(peer: ScriptedPeer, condition: Callable[[Report], object], seconds: float = 1.0) -> bool:
    """Whether the server sees it in time."""
    try:
        await asyncio.to_thread(peer.wait_for, condition, seconds)
    except TimeoutError:
        return False
    return True


async def attempt(work: Awaitable[Any]) -> Any:
    """A response, or what was raised."""
    try:
        return await work
    except Exception as error:
        return error


def told(result: Any) -> str:
    """In a word."""
    return type(result).__name__ if isinstance(result, Exception) else f"{result.status_code}"


def is_ok(result: Any, size: int = 2) -> bool:
    return not isinstance(result, Exception) and result.status_code == 200 and len(result.content) == size


def yes(value: bool, wanted: bool = True) -> Cell:
    return Cell("yes" if value else "no", value is wanted)


def frame(kind: int, flags: int, stream: int, data: bytes) -> bytes:
    """RFC 9113 §4.1."""
    return struct.pack(">I", len(data))[1:] + struct.pack(">BBI", kind, flags, stream) + data


async def cancelled(subject: Subject) -> Cell:
    with ScriptedPeer([forget()]) as peer:
        async with subject.open() as client:
            task = asyncio.create_task(client.get(peer.url))
            assert await seen(peer, lambda report: report.streams_open)
            task.cancel()
            await asyncio.wait([task])
            return yes(await seen(peer, lambda report: report.resets))


async def ten_cancelled(subject: Subject) -> Cell:
    def script(request: Request) -> Action:
        return forget() if request.target == "/silent" else answer()

    with ScriptedPeer(script, max_streams=10) as peer:
        async with subject.open() as client:
            tasks = [asyncio.create_task(client.get(f"{peer.url}/silent")) for _ in range(10)]
            assert await seen(peer, lambda report: report.streams_open == 10)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            result = await attempt(client.get(peer.url))
            return Cell(told(result), is_ok(result) and peer.report.connections == 1)


async def abandoned(subject: Subject) -> Cell:
    with ScriptedPeer([answer(content=bytes(LARGE))]) as peer:
        async with subject.open() as client:
            async with client.stream("GET", peer.url) as response:
                await take(response, 100_000)
            return yes(await seen(peer, lambda report: report.resets))


async def take(response: Any, size: int) -> None:
    """So much of the content."""
    async for piece in response.aiter_raw(16_384):
        size -= len(piece)
        if size <= 0:
            return


async def after_abandoned(subject: Subject) -> Cell:
    def script(request: Request) -> Action:
        return answer(content=bytes(LARGE if request.target == "/large" else 100_000))

    with ScriptedPeer(script) as peer:
        async with subject.open() as client:
            async with client.stream("GET", f"{peer.url}/large") as response:
                await take(response, 100_000)
            result = await attempt(client.get(peer.url))
            return Cell(told(result), is_ok(result, 100_000) and peer.report.connections == 1)


async def unread(subject: Subject) -> Cell:
    with ScriptedPeer([answer(content=bytes(64 * 1024 * 1024))]) as peer:
        async with subject.open() as client:
            async with client.stream("GET", peer.url):
                await seen(peer, lambda report: False, 1.0)
                size = peer.report.bytes_out
    return Cell(f"{size / 1e6:.1f} MB", size < 1.1 * WINDOW)


async def graceful_goaway(subject: Subject) -> Cell:
    with ScriptedPeer([goaway(NO_ERROR, then=delay(0.2, answer()))]) as peer:
        async with subject.open() as client:
            result = await attempt(client.get(peer.url))
    return Cell(told(result), is_ok(result))


async def goaway_below(subject: Subject) -> Cell:
    with ScriptedPeer([goaway(NO_ERROR, last=0), answer()]) as peer:
        async with subject.open() as client:
            result = await attempt(client.post(peer.url, content=b"x"))
    return Cell(told(result), is_ok(result))


async def refused(subject: Subject) -> Cell:
    with ScriptedPeer([refuse(), answer()]) as peer:
        async with subject.open() as client:
            result = await attempt(client.post(peer.url, content=b"x"))
    return Cell(told(result), is_ok(result))


async def short_content(subject: Subject) -> Cell:
    with ScriptedPeer([answer(fields=((b"content-length", b"10"),), content=b"short")]) as peer:
        async with subject.open() as client:
            result = await attempt(client.get(peer.url))
    return Cell(told(result), isinstance(result, Kit(subject.name, True).library.TransportError))


async def field_bomb(subject: Subject) -> Cell:
    """A literal of 4,000 bytes that goes into the table (RFC 7541 §6.2.1), and 2,000 references to it."""
    literal = b"\x40\x01a" + b"\x7f" + bytes([(4000 - 127) & 127 | 128, (4000 - 127) >> 7]) + b"x" * 4000
    block = b"\x88" + literal + b"\xbe" * 2000
    with ScriptedPeer([garbage(frame(HEADERS, END_STREAM | END_HEADERS, 1, block))]) as peer:
        async with subject.open() as client:
            result = await attempt(client.get(peer.url))
    return Cell(told(result), isinstance(result, Kit(subject.name, True).library.TransportError))


async def late_window_update(subject: Subject) -> Cell:
    late = garbage(frame(WINDOW_UPDATE, 0, 1, struct.pack(">I", 1)))
    with ScriptedPeer([answer() + late, answer()]) as peer:
        async with subject.open() as client:
            await client.get(peer.url)
            result = await attempt(client.get(peer.url))
            return Cell(told(result), is_ok(result) and peer.report.connections == 1)


class Pinging:
    """A server that asks after its response, while nothing runs, whether anybody is there."""

    def __init__(self) -> None:
        self.answered = threading.Event()
        self.over = threading.Event()

    def handle(self, sock: socket.socket) -> None:
        conn = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        conn.initiate_connection()
        sock.sendall(conn.data_to_send())
        with contextlib.suppress(ConnectionError):
            while data := sock.recv(65_536):
                for event in conn.receive_data(data):
                    if isinstance(event, h2.events.RequestReceived):
                        conn.send_headers(event.stream_id, [(":status", "200")])
                        conn.send_data(event.stream_id, b"ok", end_stream=True)
                        sock.sendall(conn.data_to_send())
                        self.over.wait(LIMIT)  # the client has all of the response
                        conn.ping(b"calamint")
                    elif isinstance(event, h2.events.PingAckReceived):
                        self.answered.set()
                sock.sendall(conn.data_to_send())


async def ping_when_idle(subject: Subject) -> Cell:
    server = Pinging()
    with ThreadServer(server.handle) as place:
        async with subject.open() as client:
            assert is_ok(await client.get(place.url))
            server.over.set()
            return yes(await asyncio.to_thread(server.answered.wait, 1.0))


async def injected_field(subject: Subject) -> Cell:
    with ScriptedPeer() as peer:
        async with subject.open() as client:
            await attempt(client.get(peer.url, headers={"x": "a\r\nx-evil: 1"}))
        return yes(bool(peer.report.requests or peer.report.protocol_errors), False)  # the server refuses it


async def total(subject: Subject) -> Cell:
    with ScriptedPeer([drip(bytes(40), 1, 0.1)]) as peer:
        async with subject.open() as client:
            began = time.monotonic()
            await attempt(client.get(peer.url, **subject.total(1.0)))
            took = time.monotonic() - began
    return Cell(f"{took:.1f} s", took < 1.5)


async def early_answer(subject: Subject) -> Cell:
    """413, its end, and RST_STREAM(NO_ERROR) while content is still being sent (RFC 9113 §8.1)."""
    action = answer(413, content=b"no", early=True) + reset(NO_ERROR)

    async def content() -> AsyncIterator[bytes]:
        for _ in range(400):
            yield bytes(100_000)

    with ScriptedPeer([action], credit=False) as peer:
        async with subject.open() as client:
            result = await attempt(client.put(peer.url, content=content()))
    return Cell(told(result), not isinstance(result, Exception) and result.status_code == 413)


async def busy_sibling(subject: Subject) -> Cell:
    """A read timeout of 0.3 s while another stream of the connection is lively."""

    def script(request: Request) -> Action:
        return forget() if request.target == "/silent" else drip(bytes(30), 1, 0.05)

    with ScriptedPeer(script) as peer:
        async with subject.open() as client:
            lively = asyncio.create_task(attempt(client.get(peer.url)))
            assert await seen(peer, lambda report: report.streams_open)
            began = time.monotonic()
            await attempt(client.get(f"{peer.url}/silent", timeout=0.3))
            took = time.monotonic() - began
            result = await lively
    return Cell(f"{took:.1f} s, sibling {told(result)}", took < 0.6 and is_ok(result, 30))


ROWS: dict[str, Callable[[Subject], Awaitable[Cell]]] = {
    "a task is cancelled before the head: is RST_STREAM sent?": cancelled,
    "ten are cancelled where ten streams are allowed: the next one": ten_cancelled,
    "a response is left after 100 kB: is RST_STREAM sent?": abandoned,
    "a response of 20 MiB is left: the next one on the client": after_abandoned,
    "what comes in a second while nobody reads": unread,
    "GOAWAY(NO_ERROR) that names the running stream: its response": graceful_goaway,
    "GOAWAY, the request above the last stream: sent again?": goaway_below,
    "REFUSED_STREAM: sent again?": refused,
    "content-length 10 and 5 bytes: an error of the library's": short_content,
    "8 MB of fields in 6 kB of HPACK: refused": field_bomb,
    "WINDOW_UPDATE after END_STREAM: the next one": late_window_update,
    "is a PING answered while no request runs?": ping_when_idle,
    "does a field with CR LF reach the wire?": injected_field,
    "4 s of drops, and 1 s allowed in all": total,
    "413 while 40 MB are being sent": early_answer,
    "a read timeout of 0.3 s beside a lively stream": busy_sibling,
}


def measure(names: Sequence[str], ours_only: bool = False) -> tuple[list[Subject], dict[str, list[Cell]]]:
    """The table."""
    subjects = [Subject(name, ours) for name in names for ours in ((True,) if ours_only else (False, True))]

    async def cell(question: Callable[[Subject], Awaitable[Cell]], subject: Subject) -> Cell:
        async with asyncio.timeout(3 * LIMIT):
            return await question(subject)

    table = {what: [asyncio.run(cell(row, subject)) for subject in subjects] for what, row in ROWS.items()}
    return subjects, table


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="LIBRARY", help="httpx, httpx2 (default: httpx2)")
    names = parser.parse_args(arguments).names or ["httpx2"]
    if unknown := set(names) - {"httpx", "httpx2"}:
        parser.error(f"no such library: {', '.join(sorted(unknown))}")
    subjects, table = measure(names)
    sys.stdout.write(f"| |{''.join([f' {subject.title} |' for subject in subjects])}\n|---{'|---' * len(subjects)}|\n")
    wrong = 0
    for what, cells in table.items():
        shown = [f" {cell.text if cell.right else f'**{cell.text}**'} |" for cell in cells]
        sys.stdout.write(f"| {what} |{''.join(shown)}\n")
        wrong += sum([not cell.right for subject, cell in zip(subjects, cells, strict=True) if subject.ours])
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
