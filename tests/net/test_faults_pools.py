"""Faults that other clients have had, through both pools alike: what `test_threads_faults` and `test_aio_faults` leave."""

import asyncio
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TypedDict

import pytest

import calamint
from calamint.core.pool_state import Stats
from calamint.testing import Action, Request, ScriptedPeer, answer, delay, forget, goaway, reset, stop_reading
from tests.net.pool_help import nothing_left
from tests.net.test_tls import server_context
from tests.net.thread_server import LIMIT, ThreadServer
from tests.servers import PrivateCa

Outcome = calamint.TransportError | calamint.StreamClosed | bytes


class Options(TypedDict, total=False):
    """Those of both pools that matter here."""

    http1: bool
    limits: calamint.Limits
    settings: calamint.Settings
    verify: str


@dataclass(frozen=True)
class Ask:
    """A request, and what its caller does: `leaves` so many seconds after, `after` those before it are over."""

    url: str
    method: str = "GET"
    content: bytes | None = None
    timeout: float | None = LIMIT
    clocks: calamint.Clocks = calamint.Clocks()
    replay: bool = True
    leaves: float | None = None
    after: float | None = None


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    with nothing_left():
        yield


@pytest.fixture(params=["threads", "asyncio"])
def driver(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def run(driver: str, asks: Sequence[Ask], options: Options) -> tuple[list[Outcome], Stats]:
    """All of them at once, but for those that come `after`: how each ends, and the pool's numbers when it is at rest."""
    return run_threads(asks, options) if driver == "threads" else asyncio.run(run_asyncio(asks, options))


def run_threads(asks: Sequence[Ask], options: Options) -> tuple[list[Outcome], Stats]:
    outcomes: list[Outcome] = []
    calls: list[calamint.Call] = []

    def finish(call: calamint.Call) -> Outcome:
        try:
            return call.response().content
        except (calamint.TransportError, calamint.StreamClosed) as error:
            return error

    with calamint.Pool(**options) as pool:
        for ask in asks:
            if ask.after is not None:
                outcomes += [finish(call) for call in calls[len(outcomes) :]]
                threading.Event().wait(ask.after)
            arguments = {"timeout": ask.timeout, "clocks": ask.clocks, "replay": ask.replay}
            call = pool.request(ask.method, ask.url, (), ask.content, **arguments)  # type: ignore[arg-type]  # by name
            calls.append(call)
            if ask.leaves is not None:
                threading.Event().wait(ask.leaves)
                call.cancel()
        outcomes += [finish(call) for call in calls[len(outcomes) :]]
        return outcomes, rested(pool)


async def run_asyncio(asks: Sequence[Ask], options: Options) -> tuple[list[Outcome], Stats]:
    tasks: list[asyncio.Task[Outcome]] = []

    async def carry_out(ask: Ask) -> Outcome:
        try:
            async with (
                asyncio.timeout(ask.leaves),
                pool.request(
                    ask.method,
                    ask.url,
                    content=ask.content,
                    timeout=ask.timeout,
                    clocks=ask.clocks,
                    replay=ask.replay,
                ) as call,
            ):
                return (await call.response()).content
        except TimeoutError as error:
            return error if isinstance(error, calamint.TransportError) else calamint.StreamClosed("left")
        except (calamint.TransportError, calamint.StreamClosed) as error:
            return error

    async with calamint.AsyncPool(**options) as pool:
        for ask in asks:
            if ask.after is not None:
                await asyncio.wait(tasks)
                await asyncio.sleep(ask.after)
            tasks.append(asyncio.create_task(carry_out(ask)))
        outcomes = [await task for task in tasks]
        return outcomes, rested(pool)


def rested(pool: calamint.Pool | calamint.AsyncPool) -> Stats:
    """The numbers of a pool in which nobody runs or waits, and no stream waits for its reset."""
    stats = pool.stats()
    assert (stats.running, stats.waiting) == (0, 0), pool.snapshot().describe()
    assert all([it.requests == it.unsent == () for it in pool.snapshot().connections]), pool.snapshot().describe()
    return stats


# A: streams


def test_A3_a_burst_far_above_the_limit(driver: str) -> None:
    """2,000 requests, a third of which is left at random, to a server that takes 50 streams: then all 50 can be used."""
    dice = random.Random(3)
    gate = threading.Event()

    def script(request: Request) -> Action:
        if request.target == "/last" and len({it.number for it in peer.report.requests if it.target == "/last"}) >= 50:
            gate.set()
        return delay(0.05, answer()) if request.target == "/last" else delay(dice.random() / 100, answer())

    settings = calamint.Settings(first_streams=50)
    options: Options = {"http1": False, "limits": calamint.Limits(max_connections=1), "settings": settings}
    with ScriptedPeer(script, max_streams=50) as peer:
        leaves = [dice.choice([None, None, 0.0]) for _ in range(2000)]
        asks = [Ask(peer.url, leaves=each) for each in leaves]
        asks += [Ask(f"{peer.url}/last", after=0.0 if not number else None) for number in range(50)]
        outcomes, stats = run(driver, asks, options)
        assert outcomes.count(b"ok") >= leaves.count(None) + 50
        assert [it for it, ask in zip(outcomes, asks, strict=True) if ask.leaves is None and it != b"ok"] == []
        assert stats.connections == 1
        report = peer.wait_for(lambda report: not report.streams_open)
        assert (report.connections, report.refused) == (1, 0)
        assert report.streams_peak == 50


def test_A12_the_server_resets_every_upload(driver: str) -> None:
    """100 of 100, whose content is larger than the window: each is over, with nothing queued, and its slot is free."""

    def script(request: Request) -> Action:
        return reset(0x2, early=True) if request.method == "POST" else answer()

    with ScriptedPeer(script, max_streams=10) as peer:
        asks = [Ask(peer.url, "POST", bytes(100_000)) for _ in range(100)]
        settings = calamint.Settings(first_streams=10)
        limits = calamint.Limits(max_connections=1)
        outcomes, stats = run(
            driver,
            [*asks, Ask(peer.url, after=0.0)],
            {"http1": False, "limits": limits, "settings": settings},
        )
        assert all([isinstance(it, calamint.StreamReset) for it in outcomes[:100]]), outcomes
        assert outcomes[100] == b"ok"
        assert (stats.resets_received, stats.connections) == (100, 1)
        report = peer.wait_for(lambda report: not report.streams_open)
        assert (report.connections, report.refused) == (1, 0)


# D: dead and idle connections


@pytest.mark.slow
def test_D2_a_peer_that_takes_no_PING_is_found_out_as_well(driver: str) -> None:
    """It reads nothing, and the socket is full of content: the PING cannot leave, and its clock runs all the same."""
    settings = calamint.Settings(keepalive=0.2)
    clocks = calamint.Clocks(head=None, idle=None, write=None)

    def script(request: Request) -> Action:
        return answer() if request.connection else stop_reading()

    with ScriptedPeer(script, initial_window=2**31 - 1, connection_window=2**30) as peer:
        ask = Ask(peer.url, "POST", bytes(64 * 1024 * 1024), timeout=30.0, clocks=clocks)
        began = time.monotonic()
        outcomes, stats = run(driver, [ask, Ask(peer.url, after=0.0)], {"http1": False, "settings": settings})
        assert isinstance(outcomes[0], calamint.ReadTimeout) and "PING" in str(outcomes[0])
        assert 10.0 < time.monotonic() - began < 14.0
        assert outcomes[1] == b"ok"
        assert (stats.dials, stats.connections) == (2, 1)


@pytest.mark.parametrize("http1", [pytest.param(True, id="http1"), pytest.param(False, id="h2")])
def test_D7_a_connection_that_was_idle_for_longer_than_the_clocks(driver: str, http1: bool) -> None:
    """No clock runs while nothing is asked: the next request has all of its time."""
    clocks = calamint.Clocks(head=0.15, idle=0.15, write=0.15, reader=0.15)
    with ScriptedPeer(lambda request: delay(0.05, answer())) as peer:
        asks = [Ask(peer.url, clocks=clocks, after=after) for after in (None, 0.2, 0.2)]
        outcomes, stats = run(driver, asks, {"http1": http1})
        assert outcomes == [b"ok"] * 3
        assert (stats.dials, stats.timeouts) == (1, ())


# E: what is sent again


@pytest.mark.parametrize("replay", [True, False])
def test_E7_nothing_is_sent_twice_where_the_caller_says_so(driver: str, replay: bool) -> None:
    """The server acts on three POSTs, and says that it has not: a last id may lie."""

    def script(request: Request) -> Action:
        if request.connection or request.target == "/warm":
            return answer()
        return goaway(last=1) if request.content == b"2" else forget()

    with ScriptedPeer(script) as peer:
        asks = [Ask(peer.url, "POST", str(number).encode(), replay=replay) for number in range(3)]
        warm = Ask(f"{peer.url}/warm")
        outcomes, stats = run(driver, [warm, replace(asks[0], after=0.0), *asks[1:]], {"http1": False})
        posts = [request for request in peer.report.requests if request.method == "POST"]
        if replay:
            assert outcomes == [b"ok"] * 4
            assert (len(posts), stats.replays) == (6, 3)
        else:
            assert outcomes[0] == b"ok"
            for it in outcomes[1:]:
                assert isinstance(it, calamint.ConnectionTerminated) and it.unprocessed and it.attempts == 1
            assert (len(posts), stats.replays, peer.report.connections) == (3, 0, 1)


# H: connecting


def records(data: bytes) -> list[int]:
    """The types of the TLS records in it (RFC 8446 §5.1), of those that are whole."""
    kinds: list[int] = []
    while len(data) >= 5 and len(data) >= 5 + int.from_bytes(data[3:5], "big"):
        kinds.append(data[0])
        data = data[5 + int.from_bytes(data[3:5], "big") :]
    return kinds


HANDSHAKE, EARLY_DATA = 22, b"\x00\x2a"


def extensions(hello: bytes) -> list[bytes]:
    """The types of a ClientHello's extensions (RFC 8446 §4.1.2), in its record."""
    place = 5 + 4 + 2 + 32
    place += 1 + hello[place]
    place += 2 + int.from_bytes(hello[place : place + 2], "big")
    place += 1 + hello[place]
    place += 2
    found: list[bytes] = []
    while place < len(hello):
        found.append(hello[place : place + 2])
        place += 4 + int.from_bytes(hello[place + 2 : place + 4], "big")
    return found


def test_H6_nothing_of_HTTP_goes_out_before_the_handshake(driver: str, private_ca: PrivateCa) -> None:
    """A warm pool, which could resume: what comes first is one ClientHello without early data, and nothing follows it."""
    context = server_context(private_ca)
    context.set_alpn_protocols(["http/1.1"])
    seen = b""

    def handle(sock: socket.socket) -> None:
        nonlocal seen
        if seen == b"":
            with context.wrap_socket(sock, server_side=True) as tls:
                tls.recv(65_536)
                tls.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok")
                seen = b"warm"
            return
        seen = b""
        while data := sock.recv(65_536):
            seen += data

    with ThreadServer(handle, connections=2) as server:
        url = server.url.replace("http:", "https:")
        asks = [Ask(url), Ask(url, "POST", b"secret", timeout=0.3, after=0.0)]
        outcomes, _ = run(driver, asks, {"verify": str(private_ca.ca_file)})
        assert outcomes[0] == b"ok" and isinstance(outcomes[1], calamint.DeadlineExceeded)
    assert records(seen) == [HANDSHAKE]
    assert EARLY_DATA not in extensions(seen)


def test_H6_a_server_that_is_not_verified_is_sent_nothing(driver: str, private_ca: PrivateCa) -> None:
    """Its certificate comes from nobody that we know: not a byte of the request is sent to it."""
    received: list[bytes] = []

    def handle(sock: socket.socket) -> None:
        tls = server_context(private_ca).wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        with tls, suppress(ssl.SSLError):
            tls.do_handshake()
            received.append(tls.recv(65_536))

    with ThreadServer(handle) as server:
        url = server.url.replace("http:", "https:")
        outcomes, _ = run(driver, [Ask(url, "POST", b"secret")], {})
        assert isinstance(outcomes[0], calamint.ConnectError) and "certificate" in str(outcomes[0])
    assert received in ([], [b""])


# C and I


def test_C8_a_peer_that_closes_before_its_SETTINGS(driver: str) -> None:
    """Whoever waits hears of it at once."""

    def handle(sock: socket.socket) -> None:
        sock.recv(65_536)

    with ThreadServer(handle, connections=2) as server:
        began = time.monotonic()
        outcomes, _ = run(driver, [Ask(server.url, "POST", b"")], {"http1": False})
        assert isinstance(outcomes[0], calamint.NetworkError)
        assert time.monotonic() - began < LIMIT / 2
        run(driver, [Ask(server.url, "POST", b"")], {"http1": False})


@pytest.mark.parametrize("http1", [pytest.param(True, id="http1"), pytest.param(False, id="h2")])
@pytest.mark.parametrize("limit", ["head", "timeout"])
def test_I8_a_head_that_comes_a_byte_at_a_time(driver: str, http1: bool, limit: str) -> None:
    """Bytes that complete no head are no progress: the clock runs on."""
    over = threading.Event()
    with ThreadServer(drip(HEADS[http1], over)) as server:
        clocks = calamint.Clocks(head=0.3) if limit == "head" else calamint.Clocks()
        ask = Ask(server.url, "POST", b"", timeout=None if limit == "head" else 0.3, clocks=clocks)
        began = time.monotonic()
        outcomes, _ = run(driver, [ask], {"http1": http1})
        assert isinstance(outcomes[0], calamint.TimeoutException)
        assert 0.29 < time.monotonic() - began < 2.0
        over.set()


HEADS = {
    True: b"HTTP/1.1 200 OK\r\nserver: " + b"slow" * 5000,
    False: b"\0\0\0\4\0\0\0\0\0" + b"\0\x40\0\1\4\0\0\0\1\x88" + bytes(16_383),  # SETTINGS, and a large HEADERS frame
}


def drip(data: bytes, over: threading.Event) -> Callable[[socket.socket], None]:
    """A server that sends this, a byte every 20 ms."""

    def handle(sock: socket.socket) -> None:
        sock.recv(65_536)
        with suppress(OSError):
            for place in range(len(data)):
                sock.sendall(data[place : place + 1])
                if over.wait(0.02):
                    return

    return handle
