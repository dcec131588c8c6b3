"""Ctrl-C at any moment: while waiting it costs nothing; between bytes and their record it costs the connection. What it never
leads to is a request sent twice, one called unprocessed that was not, or a response that is not the one sent."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import CodeType, FrameType
from typing import Any

import pytest

import calamint
from calamint import core
from calamint.net import sync, wire
from calamint.testing import Action, Request, ScriptedPeer, answer
from tests.net.thread_server import LIMIT, ThreadServer, no_answer, read_head

CONTENT = bytes(range(256)) * 1200  # above the output budget, and above the first windows of HTTP/2
PROTOCOLS = [pytest.param("http/1.1", id="http1"), "h2"]


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


@pytest.fixture(autouse=True)
def sigint_raises() -> Iterator[None]:
    """As in a program that was started from a terminal; in the background of a shell the signal is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


# A real signal, while it waits


def interrupt_soon() -> threading.Timer:
    """SIGINT for this thread, when it is most likely waiting. If it is not, the call is interrupted all the same."""
    timer = threading.Timer(0.1, signal.pthread_kill, (threading.get_ident(), signal.SIGINT))
    timer.start()
    return timer


@pytest.mark.skipif(os.name == "nt", reason="no pthread_kill here")
@pytest.mark.parametrize("call", ["receive", "response", "events"])
def test_a_signal_while_waiting(call: str) -> None:
    """Nothing has moved: the same call, made again, gives everything, what had come before the signal included."""
    go_on = threading.Event()

    def handle(sock: object) -> None:
        assert hasattr(sock, "sendall")
        read_head(sock)  # type: ignore[arg-type]
        sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nfirst")
        assert go_on.wait(LIMIT)
        sock.sendall(b"later")
        no_answer(sock)  # type: ignore[arg-type]

    with ThreadServer(handle) as server, calamint.connect(server.url) as connection:
        ref = connection.request("GET", "/")
        events: list[core.Event] = []
        if call == "receive":
            while not any([isinstance(event, core.DataReceived) for event in events]):
                events += connection.receive(LIMIT)
        timer = interrupt_soon()
        with pytest.raises(KeyboardInterrupt):
            if call == "receive":
                connection.receive(LIMIT)
            elif call == "events":
                events.extend(connection.events())
            else:
                connection.response(ref)
        timer.join()
        assert not connection.is_closed
        go_on.set()
        if call == "response":
            assert connection.response(ref).content == b"firstlater"
        else:
            events.extend(connection.events())
            assert b"".join([event.data for event in events if isinstance(event, core.DataReceived)]) == b"firstlater"


def test_what_an_interrupted_response_had_taken_is_not_lost_to_events() -> None:
    """Nor is it to `receive`."""
    settings = calamint.Settings(stream_window=65_535)  # so that it takes many turns
    for way in ("events", "receive"):
        script = [answer(content=CONTENT)]
        with ScriptedPeer(script) as peer, calamint.connect(peer.url, http1=False, settings=settings) as connection:
            ref = connection.request("GET", "/")
            with pytest.raises(KeyboardInterrupt):
                interrupted(lambda ref=ref: connection.response(ref), "_wait", 4)  # type: ignore[misc]
            assert not connection.is_closed
            events = [*connection.receive(LIMIT)] if way == "receive" else []
            events += connection.events()
            assert b"".join([event.data for event in events if isinstance(event, core.DataReceived)]) == CONTENT
            assert isinstance(events[-1], core.ResponseEnded)


# Any line of the driver


OURS = {sync.__file__, wire.__file__}
Place = tuple[str, int, int]
"""A file, a line in it, and which time it is executed."""


def is_ours(code: CodeType) -> bool:
    return code.co_filename in OURS


def traced(run: Callable[[], object], visit: Callable[[FrameType], None]) -> None:
    """Calls `visit` before each line of the driver that `run` executes."""

    def local(frame: FrameType, event: str, argument: object) -> Any:
        if event == "line":
            visit(frame)
        return local

    def enter(frame: FrameType, event: str, argument: object) -> Any:
        return local if is_ours(frame.f_code) else None

    before = sys.gettrace()
    sys.settrace(enter)
    try:
        run()
    finally:
        sys.settrace(before)


def interrupted(run: Callable[[], object], function: str, times: int) -> None:
    """Runs it, with KeyboardInterrupt before the first line of the driver's function in its so-many-th call."""
    calls = [0]

    def visit(frame: FrameType) -> None:
        if frame.f_code.co_name == function and frame.f_lineno == frame.f_code.co_firstlineno + 2:
            calls[0] += 1
            if calls[0] == times:
                raise KeyboardInterrupt

    traced(run, visit)


class Scenario:
    """An upload that is sent back and a download, on a fresh connection; and what may be said of it after an interrupt."""

    def __init__(self, peer: ScriptedPeer, protocol: str, number: int) -> None:
        self.connection = calamint.connect(peer.url, http1=protocol != "h2")
        self.peer = peer
        self.name = f"/{number}"
        self.names = {1: "echo", 3: "cancelled", 5: "small"} if protocol == "h2" else {1: "echo", 2: "small"}
        self.unprocessed: list[str] = []

    def run(self) -> None:
        """What is interrupted."""
        connection = self.connection
        for ref, name in self.names.items():
            target = f"{self.name}/{name}"
            assert connection.request("POST" if name == "echo" else "GET", target, end=name != "echo") == ref
            if name == "cancelled":
                connection.cancel(ref)
                continue
            for at in range(0, len(CONTENT) if name == "echo" else 0, 100_000):
                connection.send_data(ref, CONTENT[at : at + 100_000], end=at + 100_000 >= len(CONTENT))
            self.fetch(ref)

    def fetch(self, ref: int) -> None:
        """The response to this request, and nothing else."""
        response = self.connection.response(ref)
        content = CONTENT if self.names[ref] == "echo" else b"small"
        assert (response.status, response.content) == (200, content), (ref, response)

    def check(self) -> None:
        """Whatever is asked of the connection now is refused, or right; and so is what it says of its requests."""
        with self.connection as connection:
            trusted = not connection._marked
            for ref in self.names:
                if [it for it in connection.snapshot().requests if it.ref == ref and it.state.startswith("open")]:
                    connection.cancel(ref)  # its content was never ended
                else:
                    self.try_to_fetch(ref)
            if connection.capacity:
                try:
                    ref = connection.request("GET", f"{self.name}/after", timeout=LIMIT)
                    self.names[ref] = "after"
                    self.fetch(ref)
                except calamint.CloseError:
                    assert not trusted
        self.check_server()

    def try_to_fetch(self, ref: int) -> None:
        try:
            self.fetch(ref)
        except calamint.TransportError as error:
            if error.unprocessed:
                self.unprocessed.append(self.names[ref])
        except calamint.StreamClosed:
            pass

    def check_server(self) -> None:
        """Each request came at most once, as it was meant, and none of which it was said that it never came."""
        report = self.peer.wait_for(lambda report: not report.connections_open)
        seen = [it for it in report.requests if it.target.startswith(f"{self.name}/")]
        names = [it.target.removeprefix(f"{self.name}/") for it in seen]
        assert len(names) == len(set(names)), names
        assert not set(self.unprocessed) & set(names)
        assert all([CONTENT.startswith(it.content) for it in seen])


def places(peer: ScriptedPeer, protocol: str) -> list[Place]:
    """Every line of the driver that the scenario executes: the first time, one in the middle, and the last."""
    counts: dict[tuple[str, int], int] = {}

    def visit(frame: FrameType) -> None:
        place = (frame.f_code.co_filename, frame.f_lineno)
        counts[place] = counts.get(place, 0) + 1

    scenario = Scenario(peer, protocol, 0)
    traced(scenario.run, visit)
    scenario.check()
    return [(*place, time) for place, count in counts.items() for time in sorted({1, (count + 1) // 2, count})]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_interrupt_before_any_line(protocol: str) -> None:
    """Each line once: afterwards the connection refuses everything, or all that it says is right."""

    def script(request: Request) -> Action:
        return answer(content=request.content if request.target.endswith("/echo") else b"small")

    with ScriptedPeer(script) as peer:
        found = places(peer, protocol)
        assert len(found) > 100
        condemned = 0
        for number, (file, line, time) in enumerate(found, 1):
            left = [time]

            def visit(frame: FrameType, file: str = file, line: int = line, left: list[int] = left) -> None:
                if frame.f_lineno == line and frame.f_code.co_filename == file:
                    left[0] -= 1
                    if left[0] == 0:
                        raise KeyboardInterrupt

            scenario = Scenario(peer, protocol, number)
            try:
                traced(scenario.run, visit)
            except KeyboardInterrupt:
                condemned += scenario.connection._marked
            scenario.check()
        assert 10 < condemned < len(found) // 2
        assert peer.report.protocol_errors == ()
