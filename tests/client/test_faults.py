"""What other clients failed at, each through both of ours; the names begin with those of the failures."""

import asyncio
import pickle
import re
import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.settings
import pytest

import calamint
from calamint import Limits, Settings, Timeout
from calamint.core import frames
from calamint.core.errors import CANCEL
from calamint.testing import (
    Action,
    Options,
    PeerConnection,
    Request,
    ScriptedPeer,
    answer,
    delay,
    drip,
    forget,
    garbage,
    goaway,
    reset,
    stop_reading,
)
from tests.client.faces import Asynchronous, Job, open_face
from tests.net.thread_server import LIMIT, ThreadServer, no_answer

ONE = Limits(max_connections=1)


def statuses(results: list[calamint.Response | Exception]) -> list[int | str]:
    """The status of each, or the name of what was raised."""
    return [each.status_code if isinstance(each, calamint.Response) else type(each).__name__ for each in results]


def never_or(action: Action) -> Any:
    """No answer for /never, this one for all else."""
    return lambda request: forget() if request.target == "/never" else action


def test_A1_ten_deadlines_on_ten_slots(kind: str) -> None:
    """Each is reset, and the next requests go out on the same connection."""
    with ScriptedPeer(never_or(answer()), max_streams=10) as peer, open_face(kind, "h2", limits=ONE) as face:
        jobs: list[Job] = [(f"{peer.url}/never", {"timeout": 0.1})] * 10
        assert statuses(face.together(jobs)) == ["DeadlineExceeded"] * 10
        assert [face.request("GET", peer.url).status_code for _ in range(3)] == [200] * 3
        report = peer.wait_for(lambda report: not report.streams_open)
        assert report.connections == 1 and [code for _, _, code in report.resets] == [CANCEL] * 10
        assert not report.refused and face.pool.stats().running == 0


@pytest.mark.parametrize("stage", ["head", "content"])
def test_A2_ten_that_are_left(kind: str, stage: str) -> None:
    """By whoever has their head, or some of their content: no slot is lost."""
    script = never_or(drip(b"ab", 1, 60.0, end=False))
    with ScriptedPeer(lambda r: answer() if r.target == "/ok" else script(r), max_streams=10) as peer:
        with open_face(kind, "h2", limits=ONE) as face:
            for _ in range(10):
                with face.stream("GET", f"{peer.url}/drip") as response:
                    if stage == "content":
                        assert next(face.pieces(response, "raw")) == b"a"
            assert face.request("GET", f"{peer.url}/ok").status_code == 200
            report = peer.wait_for(lambda report: not report.streams_open)
            assert report.connections == 1 and len(report.resets) == 10


def test_A2_ten_tasks_that_are_cancelled() -> None:
    async def work(client: calamint.AsyncClient) -> None:
        tasks = [asyncio.create_task(client.get(f"{peer.url}/never")) for _ in range(10)]
        await asyncio.to_thread(peer.wait_for, lambda report: report.streams_open == 10)
        for task in tasks:
            task.cancel()
        assert all(
            isinstance(each, asyncio.CancelledError) for each in await asyncio.gather(*tasks, return_exceptions=True)
        )
        assert [(await client.get(peer.url)).status_code for _ in range(3)] == [200] * 3

    with ScriptedPeer(never_or(answer()), max_streams=10) as peer, open_face("AsyncClient", "h2", limits=ONE) as face:
        assert isinstance(face, Asynchronous)
        face.run(work(face.client))
        report = peer.wait_for(lambda report: not report.streams_open)
        assert report.connections == 1 and len(report.resets) == 10


def test_B2_content_that_nobody_reads(kind: str) -> None:
    """More of it than all windows, though only the heads are looked at; then one is read whole."""
    settings = Settings(stream_window=100_000, connection_window=200_000)
    with ScriptedPeer(lambda r: answer(content=bytes(1_000_000 if r.target == "/whole" else 60_000))) as peer:
        with open_face(kind, "h2", limits=ONE, settings=settings) as face:
            for _ in range(40):
                with face.stream("GET", f"{peer.url}/skip") as response:
                    assert response.status_code == 200
            assert len(face.request("GET", f"{peer.url}/whole").content) == 1_000_000
            assert peer.report.connections == 1


class Grudging:
    """An HTTP/2 server of the library h2, which counts. When a window is full it lowers all of them below what has been sent,
    credits less than that, and looks that nothing comes; then it lets all of it through."""

    def __init__(self) -> None:
        self.engine = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        self.length = 0
        self.early = 0  # bytes that came while there was no room

    def handle(self, sock: socket.socket) -> None:
        self.engine.initiate_connection()
        sock.sendall(self.engine.data_to_send())
        while self.length < 65_535:
            self.take(sock)
        self.engine.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 1000})
        for _ in range(40):  # still negative
            self.engine.increment_flow_control_window(100, 1)
        self.engine.increment_flow_control_window(2**20)
        self.engine.ping(bytes(8))
        sock.sendall(self.engine.data_to_send())
        before = self.length
        while not any([isinstance(event, h2.events.PingAckReceived) for event in self.take(sock)]):
            pass
        self.early = self.length - before
        self.engine.increment_flow_control_window(2**20, 1)
        sock.sendall(self.engine.data_to_send())
        while not any([isinstance(event, h2.events.StreamEnded) for event in self.take(sock)]):
            pass
        self.engine.send_headers(1, [(":status", "200")], end_stream=True)
        sock.sendall(self.engine.data_to_send())
        no_answer(sock)

    def take(self, sock: socket.socket) -> list[h2.events.Event]:
        """What comes next."""
        events = self.engine.receive_data(sock.recv(65_536))
        self.length += sum([len(each.data or b"") for each in events if isinstance(each, h2.events.DataReceived)])
        return events


def test_B3_a_send_window_below_zero(kind: str) -> None:
    grudging = Grudging()
    with ThreadServer(grudging.handle) as server, open_face(kind, "h2", limits=ONE) as face:
        assert face.request("POST", server.url, content=face.upload([bytes(50_000)] * 4)).status_code == 200
    assert (grudging.early, grudging.length) == (0, 200_000)


def limit(streams: int) -> Action:
    """SETTINGS with another MAX_CONCURRENT_STREAMS."""
    return garbage(frames.encode_settings(((frames.MAX_CONCURRENT_STREAMS, streams),)))


def test_C1_fewer_streams_than_are_open(kind: str) -> None:
    """The four of them end, and what comes later waits for its turn."""

    def act(request: Request) -> Action:
        return delay(0.05, limit(1) + answer()) if request.number == 0 else delay(0.1, answer())

    with ScriptedPeer(act, max_streams=None) as peer:
        with open_face(kind, "h2", limits=ONE, settings=Settings(first_streams=4)) as face:
            assert statuses(face.together([(peer.url, {})] * 8)) == [200] * 8
        assert peer.report.connections == 1 and not peer.report.refused


def test_C2_no_streams_for_a_while(kind: str) -> None:
    """Zero is a limit like any other: who comes meanwhile waits, as long as the connection is in use."""

    def act(request: Request) -> Action:
        if request.number == 0:
            return delay(0.05, limit(0) + answer()) + delay(0.1, limit(10))
        return delay(0.1, answer())

    with ScriptedPeer(act, max_streams=None) as peer:
        with open_face(kind, "h2", limits=ONE, settings=Settings(first_streams=4)) as face:
            assert statuses(face.together([(peer.url, {})] * 8)) == [200] * 8
        assert peer.report.connections == 1 and not peer.report.refused


def test_C2_no_streams_and_nothing_in_flight(kind: str) -> None:
    """Then another connection is made, though one is all that there may be."""
    script = [limit(0) + answer(), answer()]
    with ScriptedPeer(script, max_streams=None) as peer, open_face(kind, "h2", limits=ONE) as face:
        assert [face.request("GET", peer.url).status_code for _ in range(3)] == [200] * 3
        assert peer.report.connections == 2


class Belated:
    """An HTTP/2 server that takes two streams at once and says so late, when so many have come and no more come."""

    def __init__(self, expected: int) -> None:
        self.peer = PeerConnection(lambda request: delay(1.0, answer()), Options(max_streams=2))
        self.expected = expected
        self.early = 0  # streams that came before its SETTINGS

    def handle(self, sock: socket.socket) -> None:
        held = b""
        with suppress(TimeoutError):
            while True:
                report = self.peer.journal.report()
                self.early = report.streams_open + report.refused
                sock.settimeout(LIMIT if self.early < self.expected else 0.2)
                held += self.peer.receive(sock.recv(65_536), 0.0)
        sock.sendall(held)
        sock.settimeout(LIMIT)
        while data := sock.recv(65_536):  # from here on time runs, and each is answered
            sock.sendall(self.peer.receive(data, self.peer.now + 1.0))
            sock.sendall(self.peer.handle_timeout(self.peer.now + 1.0))


@pytest.mark.parametrize("first", [1, 2, 3, 7])
def test_C3_before_settings_no_more_than_a_number(kind: str, first: int) -> None:
    """It can be set, and what the server refuses of it is sent again."""
    server = Belated(first)
    with (
        ThreadServer(server.handle) as place,
        open_face(kind, "h2", limits=ONE, settings=Settings(first_streams=first)) as face,
    ):
        assert statuses(face.together([(place.url, {})] * 12)) == [200] * 12
        assert face.pool.stats().replays == max(0, first - 2)
    report = server.peer.journal.report()
    assert server.early == first and report.refused == max(0, first - 2)
    assert len(report.requests) == 12 and not report.protocol_errors


def test_C3_the_number_is_a_hundred() -> None:
    """RFC 9113 §6.5.2 wants no server to allow less."""
    assert Settings().first_streams == 100


def test_E1_a_graceful_goaway(kind: str) -> None:
    """What the peer accepted it also answers, later; and the next request goes elsewhere."""
    with (
        ScriptedPeer([goaway(then=delay(0.1, answer(content=b"late"))), answer()]) as peer,
        open_face(kind, "h2") as face,
    ):
        assert face.request("GET", peer.url).content == b"late"
        assert face.request("GET", peer.url).status_code == 200
        assert peer.wait_for(lambda report: report.connections_open == 1).connections == 2


@pytest.mark.parametrize("retries", [0, 1])
def test_E2_a_goaway_that_accepts_nothing(kind: str, retries: int) -> None:
    """Three POSTs are not processed: each goes out once more, and is served once. Unless the caller wants none of that."""

    def act(request: Request) -> Action:
        first = request.connection == 0
        return goaway(last=0) if first and request.number else answer(content=request.content)

    def script(request: Request) -> Action:
        return answer() if request.target == "/first" else act(request)

    with ScriptedPeer(script) as peer, open_face(kind, "h2", limits=ONE, retries=retries) as face:
        assert face.request("GET", f"{peer.url}/first").status_code == 200
        jobs: list[Job] = [(f"{peer.url}/{name}", {"content": name.encode()}) for name in "abc"]
        if retries:
            results = face.together(jobs)
            assert [each.content for each in results if isinstance(each, calamint.Response)] == [b"a", b"b", b"c"]
            served = [seen.target for seen in peer.report.requests if seen.connection == 1]
            assert sorted(served) == ["/a", "/b", "/c"] and peer.report.connections == 2
        else:
            with pytest.raises(calamint.ConnectionTerminated) as caught:
                face.request("POST", f"{peer.url}/a", content=b"a")
            assert caught.value.unprocessed


def test_F1_a_churn_of_short_deadlines(kind: str, way: str) -> None:
    """They end in every possible state; afterwards all ten slots are there."""
    with ScriptedPeer(lambda r: forget() if r.target == "/hold" else delay(0.001, answer()), max_streams=10) as peer:
        with open_face(kind, way, limits=Limits(max_connections=10), settings=Settings(first_streams=10)) as face:
            for round in range(6):
                jobs: list[Job] = [
                    (peer.url, {"timeout": 0.0003 * (number % 13) + round / 5000}) for number in range(30)
                ]
                assert set(statuses(face.together(jobs))) <= {200, "DeadlineExceeded"}
            jobs = [(f"{peer.url}/hold", {"timeout": 0.6})] * 10
            assert statuses(face.together(jobs)) == ["DeadlineExceeded"] * 10
            held = [seen for seen in peer.report.requests if seen.target == "/hold"]
            assert len(held) == 10 and not peer.report.refused
            assert face.request("GET", peer.url).status_code == 200
            assert face.pool.stats().running == face.pool.stats().waiting == 0


def test_F5a_a_limit_beside_a_busy_sibling(kind: str) -> None:
    """It fires in its time, although something comes on the connection all the time."""
    with ScriptedPeer(never_or(drip(bytes(40), 1, 0.02))) as peer, open_face(kind, "h2", limits=ONE) as face:
        jobs: list[Job] = [(peer.url, {}), (f"{peer.url}/never", {"timeout": Timeout(read=0.3)})]
        busy, error = face.together(jobs)
        assert isinstance(busy, calamint.Response) and busy.elapsed.total_seconds() > 0.7
        assert isinstance(error, calamint.ReadTimeout)
        waited = re.search(r"no response head for ([\d.]+) s", str(error))
        assert waited is not None and 0.3 <= float(waited[1]) < 0.7


def test_F5b_a_limit_beside_a_quiet_sibling(kind: str) -> None:
    """It ends one request: the other one, quiet as well, gets its response."""
    script = never_or(delay(0.5, answer(content=b"late")))
    with ScriptedPeer(script) as peer, open_face(kind, "h2", limits=ONE) as face:
        jobs: list[Job] = [(peer.url, {"timeout": 5}), (f"{peer.url}/never", {"timeout": Timeout(read=0.1)})]
        assert statuses(face.together(jobs)) == [200, "ReadTimeout"]
        assert peer.report.connections == 1 and len(peer.report.resets) == 1


@pytest.mark.parametrize("stream", [False, True])
def test_G6_an_early_response_wins(kind: str, way: str, stream: bool) -> None:
    """413 while content goes out, to a peer that reads no more of it; over HTTP/2 with an RST_STREAM after it."""
    refusal = answer(413, content=b"too much")
    if way == "h2":
        refusal += reset(0)
    closed: list[bool] = []
    asked: list[int] = []

    def pieces() -> Iterator[bytes]:
        for number in range(400):
            asked.append(number)
            yield bytes(100_000)

    with ScriptedPeer([stop_reading(refusal)]) as peer, open_face(kind, way) as face:
        request = face.build_request("POST", peer.url, content=face.upload(pieces(), closed), timeout=10)
        response = face.send(request, stream=stream)
        assert (response.status_code, face.read(response)) == (413, b"too much")
        assert closed == [True] and len(asked) < 300


def test_G6_an_error_that_is_not_over_is_seen_as_a_stream(kind: str, way: str) -> None:
    """Its head is there between pieces of content, and neither its end nor ours has to come: the caller leaves."""
    closed: list[bool] = []
    script = [drip(b"ab", 1, 60.0, 413, end=False, early=True)]
    with ScriptedPeer(script) as peer, open_face(kind, way) as face:
        content = face.upload([bytes(100_000)] * 400, closed)
        with face.stream("POST", peer.url, content=content) as response:
            assert response.status_code == 413 and not closed
        assert closed == [True]


def test_G16_there_is_no_cookie_jar(kind: str, way: str) -> None:
    """A cookie is for whoever reads it: neither the next request, nor a redirect, nor what is pickled has it."""

    def act(request: Request) -> Action:
        fields = [(b"set-cookie", b"id=1; Path=/; Secure"), (b"set-cookie", b"other=2; Domain=localhost")]
        return answer(302 if request.target == "/first" else 200, (*fields, (b"location", b"/second")))

    with ScriptedPeer(act) as peer, open_face(kind, way, follow_redirects=True) as face:
        response = face.request("GET", f"{peer.url}/first")
        assert face.request("GET", f"{peer.url}/third").status_code == 200
        assert response.headers.get_list("set-cookie") == ["id=1; Path=/; Secure", "other=2; Domain=localhost"]
        again = pickle.loads(pickle.dumps(response))
        assert face.send(again.request).status_code == 200
        seen = peer.report.requests
        assert [each.target for each in seen] == ["/first", "/second", "/third", "/second"]
        assert not [name for each in seen for name, _ in each.fields if name.lower() == b"cookie"]
        own = face.request("GET", peer.url, headers={"Cookie": "mine=3"})  # what the caller says is sent, and not kept
        assert own.request.headers["cookie"] == "mine=3"
        face.request("GET", peer.url)
        sent = [[value for name, value in each.fields if name.lower() == b"cookie"] for each in peer.report.requests]
        assert sent[-2:] == [[b"mine=3"], []]
