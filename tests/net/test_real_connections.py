"""What happens to a connection as a whole, against real servers: its orderly end, push, pipelining, PING, SETTINGS, priority."""

import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import calamint
from calamint import core
from calamint.net.response import is_end
from tests import servers
from tests.net.live import FULL, Loop, Way, settle, ways

pytestmark = pytest.mark.server

HTTP2 = ways([*FULL, "nghttpd"], "h2")
PIPELINE = ways(FULL, "http/1.1")
COMPRESSION_ERROR = 9
CLEAR = (("h2c", "h2"), ("http1", "http/1.1"))
# How each is told to finish what runs and go. hypercorn and h2o end for good, the others start anew or wait.
ORDERLY = {
    "nginx": signal.SIGHUP,
    "apache": signal.SIGUSR1,
    "haproxy": signal.SIGUSR1,
    "h2o": signal.SIGTERM,
    "hypercorn": signal.SIGTERM,
}


@pytest.fixture
def own(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    large_file: Path,
    private_ca: servers.PrivateCa,
    node: servers.Server,
) -> Iterator[servers.Server]:
    """A server of this test's own, parametrised with its name: it may be told to go."""
    docroot, name = large_file.parent, request.param
    request.getfixturevalue(name)  # where it is not installed, this says so
    context = {
        "nginx": lambda: servers.nginx(tmp_path, docroot, private_ca, node),
        "apache": lambda: servers.apache(tmp_path, docroot, private_ca, node),
        "haproxy": lambda: servers.haproxy(tmp_path, private_ca, node),
        "h2o": lambda: servers.h2o(tmp_path, docroot, private_ca, node),
        "hypercorn": lambda: servers.hypercorn(tmp_path, docroot, private_ca),
        "nghttpd": lambda: servers.nghttpd(tmp_path, docroot, private_ca, "--push=/small=/medium"),
    }[name]()
    with context as server:
        yield server


def first_data(connection: calamint.Connection) -> list[core.Event]:
    """Events until the first content has come."""
    events: list[core.Event] = []
    while not any(isinstance(event, core.DataReceived) for event in events):
        events += connection.receive(20)
    return events


def content(events: list[core.Event], ref: int) -> bytes:
    return b"".join([event.data for event in events if isinstance(event, core.DataReceived) and event.ref == ref])


@pytest.mark.parametrize("own", list(ORDERLY), indirect=True)
def test_orderly_end(own: servers.Server) -> None:
    """The server is told to finish while a response is under way: the response completes, and then there is no slot."""
    with ExitStack() as stack:
        connections = [stack.enter_context(Way(own, *pair).dial()) for pair in CLEAR]
        begun = []
        for connection in connections:
            ref = connection.request("GET", "/drip?ms=300")
            begun.append((ref, first_data(connection)))
        os.kill(own.pid, ORDERLY[own.name])
        for connection, (ref, events) in zip(connections, begun, strict=True):
            events += connection.events()
            assert content(events, ref) == b"drip drop\n"
            assert core.ResponseEnded(ref) in events
            while connection.protocol == "h2" and connection.capacity:  # h2o and HAProxy keep an idle HTTP/1.1 one
                assert connection.receive(20), "no GOAWAY"


@pytest.mark.parametrize("way", [("nginx", "h2c", "h2"), ("nginx", "http1", "http/1.1")], indirect=True, ids="-".join)
def test_the_last_request(
    way: Way, tmp_path: Path, large_file: Path, private_ca: servers.PrivateCa, node: servers.Server
) -> None:
    """nginx takes so many requests and says with the last that there will be no more: GOAWAY, or `connection: close`."""
    with (
        servers.nginx(tmp_path, large_file.parent, private_ca, node, keepalive_requests=3) as server,
        Way(server, way.key, way.protocol).dial() as connection,
    ):
        for _ in range(3):
            assert connection.response(connection.request("GET", "/small")).content == servers.SMALL
        while connection.capacity:
            assert connection.receive(20), "it does not go"
        with pytest.raises((calamint.CloseError, calamint.LocalProtocolError)):
            connection.request("GET", "/small")


def test_nghttpd_is_stopped(tmp_path: Path, large_file: Path, private_ca: servers.PrivateCa) -> None:
    """It goes without a word: what runs fails, all of it, and at once."""
    with (
        servers.nghttpd(tmp_path, large_file.parent, private_ca) as server,
        Way(server, "h2c", "h2").dial() as connection,
    ):
        refs = [connection.request("POST", "/echo", end=False) for _ in range(3)]
        connection.send_data(refs[0], b"x")
        os.kill(server.pid, signal.SIGKILL)
        for ref in refs:
            with pytest.raises(calamint.NetworkError):
                connection.response(ref)
        assert connection.is_closed


@pytest.mark.parametrize("way", ways(["node"], "h2"), indirect=True, ids="-".join)
def test_goaway_lets_streams_finish(way: Way) -> None:
    """After GOAWAY (RFC 9113 §6.8) what runs completes, and no request is taken."""
    with way.dial() as connection:
        slow = connection.request("GET", "/slow?ms=100")
        leaving = connection.request("GET", "/goaway?ms=50")
        assert connection.response(leaving).content == b"bye\n"
        assert connection.capacity == 0
        assert connection.response(slow).content == b"slow\n"


@pytest.mark.parametrize("code", [0, 11])
@pytest.mark.parametrize("way", ways(["node"], "h2"), indirect=True, ids="-".join)
def test_goaway_names_the_last(way: Way, code: int) -> None:
    """Streams above the last one named were not processed, whatever the code; those below go on."""
    with way.dial() as connection:
        slow = connection.request("GET", "/slow?ms=100")
        with connection.cork():
            leaving = connection.request("GET", f"/goaway?ms=50&code={code}")
            late = connection.request("GET", "/never")
        with pytest.raises(calamint.ConnectionTerminated) as caught:
            connection.response(late)
        assert (caught.value.unprocessed, caught.value.code, caught.value.last_stream_id) == (True, code, leaving)
        assert connection.response(leaving).content == b"bye\n"
        assert connection.response(slow).content == b"slow\n"


@pytest.mark.parametrize("way", HTTP2, indirect=True, ids="-".join)
def test_ping(way: Way) -> None:
    """There and back, with nothing else to do and beside a response."""
    with way.loop() as loop:
        loop.round_trip()
        ref = loop.request("GET", "/medium")
        loop.round_trip()
        loop.until(core.ResponseEnded, ref)
        assert len(loop.received(ref)) == servers.MEDIUM_SIZE
        times = [event.seconds for event in loop.events if isinstance(event, core.PingAcknowledged)]
        assert len(times) == 2
        assert all(0 < seconds < 10 for seconds in times)


@pytest.mark.parametrize("way", HTTP2, indirect=True, ids="-".join)
def test_put_settings(way: Way) -> None:
    """A larger window, once acknowledged, is good for the streams that are there too (RFC 9113 §6.9.2)."""
    with way.loop(core.Settings(stream_window=1000), reading=False) as loop:
        ref = loop.request("GET", "/medium")
        assert len(loop.content(ref, 1000)) == 1000
        loop.round_trip()
        assert len(loop.received(ref)) == 1000
        loop.put(*core.put_settings(loop.value, core.Settings(stream_window=2**21), time.monotonic()))
        loop.until(core.ResponseEnded, ref)
        assert len(loop.received(ref)) == servers.MEDIUM_SIZE
        loop.round_trip()


@pytest.mark.parametrize("way", HTTP2, indirect=True, ids="-".join)
def test_smaller_settings(way: Way) -> None:
    """The other way round: the server keeps to it, and nothing that it had sent before is held against it."""
    with way.loop(reading=False) as loop:
        before = loop.request("GET", "/medium")
        loop.put(*core.put_settings(loop.value, core.Settings(stream_window=20_000), time.monotonic()))
        loop.round_trip()
        after = loop.request("GET", "/medium")
        loop.content(after, 20_000)
        loop.round_trip()
        assert len(loop.received(after)) == 20_000
        for ref in (before, after):
            loop.reading = True
            loop.put(*core.consume(loop.value, ref, len(loop.received(ref)), time.monotonic()))
            loop.until(core.ResponseEnded, ref)
            assert len(loop.received(ref)) == servers.MEDIUM_SIZE


@pytest.mark.parametrize("way", [way for way in HTTP2 if way[0] != "h2o"], indirect=True, ids="-".join)
def test_smaller_table(way: Way) -> None:
    """The server's HPACK encoder follows, and says so at the beginning of the next field block (RFC 9113 §4.3.1)."""
    with way.loop() as loop:
        for size in (0, 100, 4096, 0):
            loop.until(core.ResponseEnded, loop.request("GET", "/small"))
            loop.put(*core.put_settings(loop.value, core.Settings(header_table_size=size), time.monotonic()))
            loop.round_trip()
        ref = loop.request("GET", "/small")
        loop.until(core.ResponseEnded, ref)
        assert loop.received(ref) == servers.SMALL


@pytest.mark.parametrize("way", ways(["h2o"], "h2"), indirect=True, ids="-".join)
def test_smaller_table_is_not_followed(way: Way) -> None:
    """h2o 2.2 never says that its table has changed: "MUST treat […] as a connection error" (RFC 9113 §4.3.1)."""
    with way.loop() as loop:
        loop.until(core.ResponseEnded, loop.request("GET", "/small"))
        loop.put(*core.put_settings(loop.value, core.Settings(header_table_size=0), time.monotonic()))
        loop.round_trip()
        failure = loop.until(core.RequestFailed, loop.request("GET", "/small")).failure
        assert (failure.kind, failure.code, failure.unprocessed) == ("RemoteProtocolError", COMPRESSION_ERROR, False)


@pytest.mark.parametrize("way", HTTP2, indirect=True, ids="-".join)
def test_grow_window(way: Way) -> None:
    """One stream's window, grown by WINDOW_UPDATE; nghttp2 does not send END_STREAM at a window of 0."""
    with way.loop(core.Settings(stream_window=1000), reading=False) as loop:
        ref = loop.request("GET", "/medium")
        loop.content(ref, 1000)
        loop.put(*core.grow_window(loop.value, ref, servers.MEDIUM_SIZE + 1, time.monotonic()))
        loop.until(core.ResponseEnded, ref)
        assert len(loop.received(ref)) == servers.MEDIUM_SIZE


@pytest.mark.parametrize("way", HTTP2, indirect=True, ids="-".join)
def test_prioritize(way: Way) -> None:
    """PRIORITY_UPDATE (RFC 9218 §7.1) is taken, or ignored as an unknown frame (RFC 9113 §4.1)."""
    with way.loop() as loop:
        refs = [loop.request("GET", "/medium") for _ in range(2)]
        for urgency, ref in zip((7, 0), refs, strict=True):
            loop.put(*core.prioritize(loop.value, ref, urgency, True, time.monotonic()))
        for ref in refs:
            loop.until(core.ResponseEnded, ref)
            assert len(loop.received(ref)) == servers.MEDIUM_SIZE
        loop.round_trip()


@pytest.mark.parametrize("way", PIPELINE, indirect=True, ids="-".join)
def test_pipeline(way: Way) -> None:
    """Requests go out before their answers come, which come in order (RFC 9112 §9.3.2)."""
    with way.dial(core.Settings(pipeline=8)) as connection:
        for _ in range(3):
            with connection.cork():
                refs = [connection.request("GET", path) for path in ("/small", "/medium", "/unique", "/absent") * 2]
            assert connection.capacity == 0
            responses = [connection.response(ref) for ref in refs]
            assert [response.status for response in responses] == [200, 200, 200, 404] * 2
            sizes = [len(response.content) for response in responses[:3]]
            assert sizes == [len(servers.SMALL), servers.MEDIUM_SIZE, len(b"unique\n")]
        settle(connection)


@pytest.mark.parametrize("way", [("nginx", "http1", "http/1.1")], indirect=True, ids="-".join)
def test_pipeline_is_cut(
    way: Way, tmp_path: Path, large_file: Path, private_ca: servers.PrivateCa, node: servers.Server
) -> None:
    """The server says `connection: close` in the midst of it: what comes after that fails (RFC 9112 §9.3.2)."""
    with (
        servers.nginx(tmp_path, large_file.parent, private_ca, node, keepalive_requests=3) as server,
        Way(server, way.key, way.protocol).dial(core.Settings(pipeline=8)) as connection,
    ):
        with connection.cork():
            refs = [connection.request("GET", "/small") for _ in range(5)]
        for ref in refs[:3]:
            assert connection.response(ref).content == servers.SMALL
        for ref in refs[3:]:
            with pytest.raises(calamint.ReadError, match="closed with the response to request 3"):
                connection.response(ref)
        assert connection.is_closed


@pytest.mark.parametrize("way", ways(FULL, "h2"), indirect=True, ids="-".join)
def test_keepalive(way: Way) -> None:
    """A PING goes out while a response is awaited in silence, and its answer keeps the connection."""
    with way.dial(core.Settings(keepalive=0.05)) as connection:
        ref = connection.request("GET", "/slow?ms=300")
        events = list(connection.events())
        assert len([event for event in events if isinstance(event, core.PingAcknowledged)]) == 1
        assert content(events, ref) == b"slow\n"
        settle(connection)


def pushed(connection: calamint.Connection, path: str) -> tuple[list[core.Event], list[core.PushPromised]]:
    """All that comes of a request, and what was promised."""
    connection.request("GET", path)
    events = list(connection.events())
    return events, [event for event in events if isinstance(event, core.PushPromised)]


@pytest.mark.parametrize("way", ways(["node", "h2o", "hypercorn", "apache"], "h2"), indirect=True, ids="-".join)
def test_push(way: Way) -> None:
    """A promise, and its response on a stream of the server's (RFC 9113 §8.4)."""
    with way.dial(core.Settings(max_pushes=4)) as connection:
        events, promises = pushed(connection, "/push?path=/small")
        assert [(promise.method, promise.target, promise.ref) for promise in promises] == [("GET", "/small", 1)]
        assert content(events, promises[0].promised) == servers.SMALL
        assert isinstance(events[-1], core.ResponseEnded)
        assert connection.response(connection.request("GET", "/small")).content == servers.SMALL
        settle(connection)


@pytest.mark.parametrize("own", ["nghttpd"], indirect=True)
def test_nghttpd_pushes(own: servers.Server) -> None:
    """A large one, beside the response."""
    with Way(own, "h2c", "h2").dial(core.Settings(max_pushes=1)) as connection:
        events, promises = pushed(connection, "/small")
        assert [promise.target for promise in promises] == ["/medium"]
        assert len(content(events, promises[0].promised)) == servers.MEDIUM_SIZE
        settle(connection)


@pytest.mark.parametrize("way", ways(["node"], "h2"), indirect=True, ids="-".join)
def test_pushes_above_the_limit(way: Way) -> None:
    """They are refused, and the others come."""
    with way.dial(core.Settings(max_pushes=2)) as connection:
        events, promises = pushed(connection, "/push?path=/medium&path=/medium&path=/medium&path=/medium")
        assert len(promises) == 2
        for promise in promises:
            assert len(content(events, promise.promised)) == servers.MEDIUM_SIZE
        assert connection.response(connection.request("GET", "/small")).content == servers.SMALL
        settle(connection)


@pytest.mark.parametrize("way", ways(["node"], "h2"), indirect=True, ids="-".join)
def test_push_is_cancelled(way: Way) -> None:
    """Those that nobody wants are reset (RFC 9113 §8.4.2), and the rest goes on."""
    with way.dial(core.Settings(max_pushes=4)) as connection:
        ref = connection.request("GET", "/push?path=/large&path=/never&path=/small")
        events: list[core.Event] = []
        while len(promises := [event for event in events if isinstance(event, core.PushPromised)]) < 3:
            events += connection.receive(20)
        for promise in promises[:2]:
            connection.cancel(promise.promised)
        events += connection.events()
        assert content(events, ref) == b"push\n"
        assert content(events, promises[2].promised) == servers.SMALL
        assert connection.response(connection.request("GET", "/small")).content == servers.SMALL
        settle(connection)


@pytest.mark.parametrize("way", ways(["node", "h2o", "hypercorn", "apache"], "h2"), indirect=True, ids="-".join)
def test_no_push_unless_allowed(way: Way) -> None:
    """ENABLE_PUSH=0 (RFC 9113 §6.5.2) is kept to."""
    with way.dial() as connection:
        events, promises = pushed(connection, "/push?path=/small")
        assert promises == []
        assert isinstance(events[-1], core.ResponseEnded)
        settle(connection)


def act(loop: Loop, source: random.Random, sent: dict[int, bytes], tables: tuple[int, ...], verbs: str) -> None:
    """One step of the mixture: a request, or something that must not disturb the others."""
    now = time.monotonic()
    live = [ref for ref in sent if core.is_live(loop.value, ref)]
    choice = source.choice(verbs if live else "r")
    if choice == "r" and core.capacity(loop.value):
        sent[loop.request("GET", source.choice(["/small", "/medium"]))] = b""
    elif choice == "u" and core.capacity(loop.value):
        body = source.randbytes(source.randrange(1, 40_000))
        value, data, ref = core.request(loop.value, "POST", "/echo", (), body[:1000], now, end=False)
        loop.put(value, data)
        loop.send(ref, body[1000:], end=True)
        sent[ref] = body
    elif choice == "c":
        loop.put(*core.cancel(loop.value, source.choice(live), now))
    elif choice == "g":
        loop.put(*core.grow_window(loop.value, source.choice(live), source.randrange(1, 2**21), now))
    elif choice == "o":
        loop.put(*core.prioritize(loop.value, source.choice(live), source.randrange(8), source.random() < 0.5, now))
    elif choice == "s":
        window, table, frame = source.choice([5000, 2**16, 2**21]), source.choice(tables), source.choice([2**14, 2**16])
        settings = core.Settings(stream_window=window, header_table_size=table, max_frame_size=frame)
        loop.put(*core.put_settings(loop.value, settings, now))
    elif choice == "P":
        loop.put(*core.ping(loop.value, now))
    elif choice == "W" and live:
        loop.turn()


def is_resigned(failure: core.Failure) -> bool:
    """Node.js, when it is busy, sends all of the content and then RST_STREAM(NO_ERROR) in the place of END_STREAM."""
    return failure.kind == "StreamReset" and failure.code == 0


@pytest.mark.parametrize("way", [way for way in HTTP2 if way[1] == "h2c"], indirect=True, ids="-".join)
def test_mixture(way: Way) -> None:
    """Requests, uploads, cancels, PINGs, settings and priorities in an order of chance: each request ends once, and right."""
    source = random.Random(1)
    sizes = (len(servers.SMALL), servers.MEDIUM_SIZE)
    # h2o does not follow, and hypercorn's encoder announces each of several changes, where two are allowed.
    tables = (4096,) if way.server.name in ("h2o", "hypercorn") else (0, 200, 4096)
    # Apache: where a stream is reset while its response waits to be sent, a callback of its own fails (AH10509 in its log) and
    # it ends the connection, with the library's code for that, 0xfffffc7a, in GOAWAY.
    verbs = "rrrruugosPW" + ("" if way.server.name == "apache" else "c")
    sent: dict[int, bytes] = {}
    with way.loop() as loop:
        for _ in range(300):
            act(loop, source, sent, tables, verbs)
        while core.in_flight(loop.value):
            loop.turn()
        for ref, body in sent.items():
            ends = [event for event in loop.events if is_end(event, ref)]
            assert len(ends) == 1
            complete = loop.received(ref) == body if body else len(loop.received(ref)) in sizes
            if isinstance(ends[0], core.RequestFailed) and not (complete and is_resigned(ends[0].failure)):
                assert ends[0].failure.message.endswith("cancelled by its caller")
            else:
                assert complete
        loop.round_trip()
        snapshot = core.snapshot(loop.value, time.monotonic())
        assert snapshot.requests == snapshot.unconfirmed == snapshot.unsent == ()
