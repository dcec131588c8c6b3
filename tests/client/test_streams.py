"""Content in pieces, both ways, and responses that nobody closes: through both clients."""

import asyncio
import gc
import os
import re
import socket
import time
import tracemalloc
import warnings
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

import calamint
from calamint import Limits, Settings
from calamint.core.errors import CANCEL
from calamint.testing import Action, Request, ScriptedPeer, answer, drip, forget, reset, stop_reading
from tests.client.faces import Blocking, Face, open_face
from tests.net.test_sync import TEN_MB, Echo, echo_http1
from tests.net.thread_server import ThreadServer

ONE: Final = Limits(max_connections=1)
PIECE: Final = bytes(100_000)


class Counted:
    """So many pieces of content, and how many of them have been asked for."""

    def __init__(self, most: int, piece: bytes = PIECE, fails: bool = False) -> None:
        self.most = most
        self.piece = piece
        self.fails = fails
        self.asked = 0

    def __iter__(self) -> Iterator[bytes]:
        while self.asked < self.most:
            self.asked += 1
            yield self.piece
        if self.fails:
            raise ZeroDivisionError


# Downloads


@pytest.mark.parametrize("form", ["raw", "bytes", "text", "lines"])
def test_a_response_in_pieces(kind: str, way: str, form: str) -> None:
    with ScriptedPeer([drip(b"one\ntwo\r\nthree", 2, 0.001)]) as peer, open_face(kind, way) as face:
        with face.stream("GET", peer.url) as response:
            pieces = list(face.pieces(response, form))
            assert response.is_closed and response.elapsed
        if form == "lines":
            assert pieces == ["one", "two", "three"]
        else:
            nothing: Any = b"" if form in ("raw", "bytes") else ""
            assert nothing.join(pieces) in (b"one\ntwo\r\nthree", "one\ntwo\r\nthree") and len(pieces) > 1
        with face.stream("GET", peer.url) as response:
            if form != "lines":
                assert [len(piece) for piece in face.pieces(response, form, 6)] == [6, 6, 2]


def test_what_nobody_reads_is_not_sent(kind: str, way: str) -> None:
    """One response holds its window, and a little more of what was read at once; then the peer waits."""
    window = 200_000
    with ScriptedPeer([answer(content=bytes(TEN_MB))]) as peer:
        with open_face(kind, way, settings=Settings(stream_window=window)) as face:
            with face.stream("GET", peer.url) as response:
                pieces = face.pieces(response, "raw")
                got = sum([len(next(pieces)) for _ in range(3)])
                held = face.pool.snapshot().connections[0].requests[0].unread
                assert held <= window + 256 * 1024
                assert got + sum([len(piece) for piece in pieces]) == TEN_MB


def test_a_stream_that_is_left(kind: str, way: str) -> None:
    """After its head, in the middle, by an exception: it is reset, and the connection, where it can be, used again."""

    class Left(Exception):
        pass

    with ScriptedPeer(lambda r: drip(b"abcd", 1, 60.0, end=False) if r.target == "/drip" else answer()) as peer:
        with open_face(kind, way, limits=ONE) as face:
            for how in ("head", "middle", "exception"):
                with pytest.raises(Left), face.stream("GET", f"{peer.url}/drip") as response:
                    if how != "head":
                        assert next(face.pieces(response, "bytes")) == b"a"
                    if how == "exception":
                        raise Left
                    face.shut(response)
                    raise Left
                assert response.is_closed
                with pytest.raises((calamint.StreamClosed, calamint.StreamConsumed)):
                    face.read(response)
            assert face.request("GET", peer.url).status_code == 200
            report = peer.wait_for(lambda report: not report.streams_open)
        assert [code for _, _, code in report.resets] == ([CANCEL] * 3 if way == "h2" else [])
        assert report.connections == (1 if way == "h2" else 4)


def test_a_failure_in_the_middle_of_a_stream(kind: str) -> None:
    """The reset of the peer is raised where it is read, with its request; what came before it is given first."""
    with ScriptedPeer([reset(2, after=b"some")]) as peer, open_face(kind, "h2") as face:
        with face.stream("GET", peer.url) as response:
            pieces = face.pieces(response, "bytes")
            assert next(pieces) == b"some"
            with pytest.raises(calamint.StreamReset) as caught:
                next(pieces)
        assert caught.value.request is response.request and caught.value.code == 2


# Responses that nobody closes


def drop(face: Face, url: str, read: bool) -> list[str]:
    """What is said when a response is dropped unclosed, with or without an iterator that is not at its end."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        response = face.send(face.build_request("GET", url), stream=True)
        if read:
            assert isinstance(face, Blocking)
            pieces = response.iter_bytes()
            assert next(pieces)
            del pieces
        del response
        gc.collect()
    return [str(warning.message) for warning in caught if issubclass(warning.category, ResourceWarning)]


@pytest.mark.parametrize("read", [False, True])
def test_F4_a_response_that_is_dropped(kind: str, way: str, read: bool) -> None:
    """It is reset, and one warning says where it was made: here."""
    if read and kind == "AsyncClient":
        pytest.skip("an asynchronous iterator belongs to its event loop, which ends it")
    with ScriptedPeer(lambda r: drip(b"abcd", 1, 60.0, end=False) if r.target == "/drip" else answer()) as peer:
        with open_face(kind, way, limits=ONE) as face:
            [words] = drop(face, f"{peer.url}/drip", read)
            place = re.fullmatch(r"a request was dropped unclosed: GET /drip, streamed at (.*):(\d+)", words)
            assert place is not None
            line = Path(place[1]).read_text(encoding="utf-8").splitlines()[int(place[2]) - 1]
            assert "self.client.send(request" in line or "return await work" in line
            assert face.request("GET", peer.url).status_code == 200
            assert len(peer.wait_for(lambda report: not report.streams_open).resets) == (1 if way == "h2" else 0)


class Holder:
    """Refers to itself, so that only the garbage collector ends it, and what it holds."""

    def __init__(self, lines: Iterator[bytes]) -> None:
        self.lines = lines
        self.itself = self


def test_the_collector_ends_a_stream_at_any_time(way: str) -> None:
    """Also while the thread in which it runs holds the pool's lock: a generator that it ends closes a response."""

    def pieces() -> Iterator[bytes]:
        with client.stream("GET", f"{peer.url}/drip") as response:
            yield from response.iter_bytes()

    thresholds = gc.get_threshold()
    with ScriptedPeer(lambda r: drip(b"abcd", 1, 60.0, end=False) if r.target == "/drip" else answer()) as peer:
        with open_face("Client", way) as face:
            assert isinstance(face, Blocking)
            client = face.client
            try:
                for number in range(60):
                    gc.disable()
                    lines = pieces()
                    assert next(lines) == b"a"
                    holder = Holder(lines)
                    del lines, holder
                    gc.set_threshold(1 + 5 * number % 150, 1, 1)
                    gc.enable()
                    assert client.get(peer.url).status_code == 200
            finally:
                gc.set_threshold(*thresholds)
                gc.enable()
            gc.collect()
            assert client.get(peer.url).status_code == 200
            peer.wait_for(lambda report: not report.streams_open)


def test_the_place_is_the_callers() -> None:
    """The line of the program, not one of ours or of contextlib."""

    async def work() -> None:
        await client.send(client.build_request("GET", f"{peer.url}/drip"), stream=True)

    with ScriptedPeer([drip(b"abcd", 1, 60.0, end=False)]) as peer:
        for name in ("Client", "AsyncClient"):
            with warnings.catch_warnings(record=True) as caught, open_face(name) as face:
                warnings.simplefilter("always")
                client: Any = face.client  # type: ignore[attr-defined]  # both have it
                if name == "Client":
                    client.send(client.build_request("GET", f"{peer.url}/drip"), stream=True)
                else:
                    face.run(work())  # type: ignore[attr-defined]  # this one has it
                gc.collect()
            messages = [str(warning.message) for warning in caught if "dropped unclosed" in str(warning.message)]
            assert len(messages) == 1 and f"streamed at {__file__}:" in messages[0], messages


def test_a_response_that_is_whole_is_no_loss(kind: str) -> None:
    """All of it has come, though nobody has read it: there is nothing to reset."""
    with ScriptedPeer() as peer, open_face(kind, "h2") as face:
        response = face.send(face.build_request("GET", peer.url), stream=True)
        face.request("GET", peer.url)  # and so the end of the other one has come
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            del response
            gc.collect()
        assert not peer.report.resets


# Uploads


def test_an_upload_waits_for_the_peer(kind: str, way: str) -> None:
    """To one that does not read: only so much is asked for, and the limit for it ends it."""
    content = Counted(1000)
    closed: list[bool] = []
    with ScriptedPeer([stop_reading()]) as peer, open_face(kind, way) as face:
        with pytest.raises(calamint.WriteTimeout) as caught:
            face.request("POST", peer.url, content=face.upload(content, closed), timeout=calamint.Timeout(write=0.2))
        assert caught.value.request is not None
    assert content.asked < 200 and closed == [True]


@pytest.fixture
def traced() -> Iterator[None]:
    """What is allocated is counted."""
    gc.collect()
    tracemalloc.start()
    yield
    tracemalloc.stop()


class Small(Echo):
    """An echo with the library's small windows."""


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("stream", [False, True])
def test_ten_megabytes_there_and_back(kind: str, way: str, stream: bool) -> None:
    """A server that does not read while it writes. Nothing piles up here but windows and buffers, whatever the kernel keeps."""
    piece = os.urandom(65_536)
    content = Counted(TEN_MB // len(piece), piece)
    handle = Small().handle if way == "h2" else echo_http1
    fields = {"content-length": str(TEN_MB)}
    with ThreadServer(handle, buffer=16_384) as server:
        settings = Settings(stream_window=65_535)
        with open_face(kind, way, settings=settings) as face:
            request = face.build_request("POST", server.url, content=face.upload(content), headers=fields)
            response = face.send(request, stream=stream)
            if stream:
                size = 0
                for part in face.pieces(response, "bytes"):
                    size += len(part)
                assert size == TEN_MB and tracemalloc.get_traced_memory()[1] < 5_000_000
            else:
                assert response.content == piece * content.most


def test_what_makes_the_content_raises(kind: str, way: str) -> None:
    """Its own error comes out, the server sees a reset, and the slot is free."""
    with ScriptedPeer() as peer, open_face(kind, way, limits=ONE) as face:
        for stream in (False, True):
            with pytest.raises(ZeroDivisionError):
                request = face.build_request("POST", peer.url, content=face.upload(Counted(2, fails=True)))
                face.send(request, stream=stream)
            assert face.request("GET", peer.url).status_code == 200
        report = peer.wait_for(lambda report: not report.streams_open)
        assert [seen.complete for seen in report.requests] == [False, True] * 2
        assert len(report.resets) == (2 if way == "h2" else 0)


@pytest.mark.parametrize("bad", ["text", 5, None])
def test_a_piece_of_another_kind(kind: str, bad: Any) -> None:
    with ScriptedPeer() as peer, open_face(kind, "h2") as face:
        closed: list[bool] = []
        with pytest.raises(TypeError, match="a piece of content is of type"):
            face.request("POST", peer.url, content=face.upload([b"a", bad], closed))
        assert closed == [True]
        peer.wait_for(lambda report: not report.streams_open)


def test_a_client_for_threads_takes_nothing_asynchronous() -> None:
    """And says so before anything is sent."""

    async def pieces() -> AsyncIterator[bytes]:
        yield b"never"

    with ScriptedPeer() as peer, open_face("Client") as face:
        with pytest.raises(TypeError, match="use AsyncClient"):
            face.request("POST", peer.url, content=pieces())
        assert peer.report.connections == 0


def test_a_client_for_asyncio_takes_both() -> None:
    with ScriptedPeer(lambda r: answer(content=r.content)) as peer, open_face("AsyncClient", "h2") as face:
        for content in (face.upload([b"a", b"b"]), iter([b"a", b"b"]), [b"a", b"b"]):
            assert face.request("POST", peer.url, content=content).content == b"ab"


def test_the_same_generator_twice(kind: str) -> None:
    """A request can be sent again only where its content is still there."""
    with ScriptedPeer(lambda r: answer(content=r.content)) as peer, open_face(kind) as face:
        request = face.build_request("POST", peer.url, content=face.upload([b"a"]))
        assert face.send(request).content == b"a"
        with pytest.raises(calamint.StreamConsumed):
            face.send(request)
        request = face.build_request("POST", peer.url, content=[b"a"])
        assert [face.send(request).content for _ in range(2)] == [b"a", b"a"]


def test_closed_while_content_still_goes_out(kind: str) -> None:
    """The response has begun, and its caller leaves: the generator is closed, too, and the peer sees a reset."""
    closed: list[bool] = []

    def act(request: Request) -> Action:
        return drip(b"ab", 1, 60.0, end=False, early=True)

    with ScriptedPeer(act) as peer, open_face(kind, "h2") as face:
        with face.stream("POST", peer.url, content=face.upload(Counted(10_000), closed)) as response:
            assert response.status_code == 200 and not closed
        assert closed == [True]
        assert len(peer.wait_for(lambda report: not report.streams_open).resets) == 1


def test_closed_by_another_task() -> None:
    """While the reader waits for more of the content to be made: both end, with an error for the reader."""
    begun, waits, never = asyncio.Event(), asyncio.Event(), asyncio.Event()
    closed: list[bool] = []

    async def content() -> AsyncIterator[bytes]:
        try:
            while not begun.is_set():
                yield b"some"
                await asyncio.sleep(0.001)
            waits.set()
            await never.wait()
            yield b"more"
        finally:
            closed.append(True)

    async def work(client: calamint.AsyncClient) -> None:
        async with client.stream("POST", peer.url, content=content()) as response:
            begun.set()
            reader = asyncio.create_task(response.aread())
            await waits.wait()
            await response.aclose()
            never.set()
            with pytest.raises(calamint.StreamClosed):
                await reader
        assert closed == [True]

    with ScriptedPeer([drip(b"ab", 1, 60.0, end=False, early=True)]) as peer, open_face("AsyncClient", "h2") as face:
        face.run(work(face.client))  # type: ignore[attr-defined]  # this one has both


def test_a_forgetful_peer_and_a_deadline_for_an_upload(kind: str, way: str) -> None:
    with ScriptedPeer([forget()]) as peer, open_face(kind, way) as face:
        with pytest.raises(calamint.DeadlineExceeded, match=r"timeout=0\.2 "):
            face.request("POST", peer.url, content=face.upload([b"a"]), timeout=0.2)
        peer.wait_for(lambda report: not report.streams_open)


@pytest.mark.parametrize("whole", [True, False])
def test_a_deadline_while_the_content_is_waited_for(way: str, whole: bool) -> None:
    """A plain number is the limit for all of it, also where what makes the content is what it waits for."""
    closed: list[bool] = []

    async def content() -> AsyncIterator[bytes]:
        try:
            yield b"a"
            await asyncio.Event().wait()
        finally:
            closed.append(True)

    async def work(client: calamint.AsyncClient) -> None:
        request = client.build_request("POST", peer.url, content=content(), timeout=0.3)
        began = time.monotonic()
        with pytest.raises(calamint.DeadlineExceeded, match=r"; timeout=0\.3 is") as caught:
            response = await client.send(request, stream=not whole)
            await response.aread()
        assert 0.2 < time.monotonic() - began < 5 and caught.value.request is request and closed == [True]

    script = [forget()] if whole else [drip(b"ab", 1, 60.0, end=False, early=True)]
    with ScriptedPeer(script) as peer, open_face("AsyncClient", way) as face:
        face.run(work(face.client))  # type: ignore[attr-defined]  # this one has both
        peer.wait_for(lambda report: not report.streams_open)


def test_a_stream_is_reset_before_what_makes_its_content_has_ended() -> None:
    """A task that is cancelled while the peer's window is shut: the slot is free, however long a generator takes to end."""
    ended = asyncio.Event()
    closed: list[bool] = []

    async def content() -> AsyncIterator[bytes]:
        try:
            while True:
                yield PIECE
        finally:
            await ended.wait()
            closed.append(True)

    async def work(client: calamint.AsyncClient) -> None:
        task = asyncio.create_task(client.post(peer.url, content=content()))
        await asyncio.to_thread(peer.wait_for, lambda report: report.bytes_in > 65_535)
        task.cancel()
        await asyncio.to_thread(peer.wait_for, lambda report: report.resets)
        assert not closed and client.pool.stats().running == 0
        ended.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert closed == [True]

    with ScriptedPeer([forget()], credit=False) as peer, open_face("AsyncClient", "h2") as face:
        face.run(work(face.client))  # type: ignore[attr-defined]  # this one has both


def test_a_response_that_came_before_the_deadline_wins(way: str) -> None:
    """Though nobody looked at it before, since more content was waited for."""

    async def content() -> AsyncIterator[bytes]:
        yield b"a"
        await asyncio.Event().wait()

    with ScriptedPeer([answer(413, early=True)]) as peer, open_face("AsyncClient", way) as face:
        assert face.request("POST", peer.url, content=content(), timeout=0.5).status_code == 413


def test_a_limit_of_what_makes_the_content_is_its_own(way: str) -> None:
    async def content() -> AsyncIterator[bytes]:
        async with asyncio.timeout(0.05):
            yield b"a"
            await asyncio.Event().wait()

    with ScriptedPeer([forget()]) as peer, open_face("AsyncClient", way) as face:
        with pytest.raises(TimeoutError) as caught:
            face.request("POST", peer.url, content=content(), timeout=10)
        assert not isinstance(caught.value, calamint.CalamintError)
        peer.wait_for(lambda report: not report.streams_open)


def test_a_peer_that_closes_while_content_goes_out(kind: str) -> None:
    """Without an answer: an error, with the request; and nothing is replayed, since a generator cannot."""

    def handle(sock: socket.socket) -> None:
        sock.recv(1000)

    with ThreadServer(handle) as server, open_face(kind) as face:
        with pytest.raises(calamint.NetworkError) as caught:
            face.request("POST", server.url, content=face.upload(Counted(1000)))
        assert isinstance(caught.value.request, calamint.Request)
