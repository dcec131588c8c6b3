"""`Connection`: what a caller does, what it gets back, and what it is told, over both protocols."""

import contextlib
import pickle
import select
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import h2.config
import h2.connection
import h2.events
import pytest

import calamint
from calamint import core
from calamint.core import frames
from calamint.net.response import Headers
from calamint.testing import (
    Action,
    Request,
    ScriptedPeer,
    answer,
    close,
    delay,
    drip,
    forget,
    reset,
    stop_reading,
)
from calamint.testing.script import Head
from tests.net.thread_server import LIMIT, ThreadServer, no_answer, paired, read_head

PROTOCOLS = [pytest.param("http/1.1", id="http1"), "h2"]
PIECE = 256 * 1024
TEN_MB = 40 * PIECE
MB_8 = bytes(8_000_000)
HEADERS: tuple[Headers, ...] = (
    {"X-A": "å", "x-b": "€"},
    [("X-A", "å"), (b"x-b", "€".encode())],
    [(b"X-A", b"\xe5"), ("x-b", "€")],
)


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def dial(
    peer: ScriptedPeer | ThreadServer, protocol: str, settings: calamint.Settings | None = None
) -> calamint.Connection:
    return calamint.connect(peer.url, http1=protocol != "h2", settings=settings or calamint.Settings())


def echo(request: Request) -> Action:
    return answer(content=request.content)


def in_pair(protocol: str = "http/1.1") -> tuple[calamint.Connection, socket.socket]:
    """A connection over a pair of sockets, and the peer's end: what is done when is the test's to say."""
    here, there = socket.socketpair()
    there.settimeout(LIMIT)
    connection = calamint.connect("http://localhost", sock=here, http1=protocol != "h2")
    if protocol == "h2":
        there.recv(65_536)  # the preface
    return connection, there


def nothing_came(sock: socket.socket) -> bool:
    sock.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        return not sock.recv(65_536)
    sock.settimeout(LIMIT)
    return True


def kinds(events: Sequence[core.Event]) -> list[str]:
    return [type(event).__name__ for event in events]


def answer_head(ref: int) -> bytes:
    """A response head by hand: 200, not the end."""
    return frames.encode_header(1, frames.HEADERS, frames.END_HEADERS, ref) + b"\x88"


def answer_data(ref: int, data: bytes, end: bool = False) -> bytes:
    return frames.encode_header(len(data), frames.DATA, frames.END_STREAM if end else 0, ref) + data


# Requests and responses


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_responses_in_any_order(protocol: str) -> None:
    """Interim responses and trailers belong to the response; fields are found in any case of letters."""
    trailers = ((b"x-sum", b"1"),)
    script = [answer(content=b"content", trailers=trailers, interim=[(103, ((b"link", b"</style>"),))])]
    with ScriptedPeer(script) as peer, dial(peer, protocol) as connection:
        response = connection.response(connection.request("GET", "/"))
        assert (response.status, response.content, response.trailers) == (200, b"content", trailers)
        assert response.reason == (b"OK" if protocol == "http/1.1" else b"")
        assert [(it.status, it.fields) for it in response.interim] == [(103, ((b"link", b"</style>"),))]
        assert (response.get("CONTENT-LENGTH", "none"), response.get("x-none")) == ("none", None)
        assert repr(response) == f"<Response 200, {len(response.fields)} fields, 7 bytes>"


def test_the_second_response_before_the_first() -> None:
    def script(request: Request) -> Action:
        return delay(0.05, answer(content=b"slow")) if request.target == "/slow" else answer(content=b"quick")

    with ScriptedPeer(script) as peer, dial(peer, "h2") as connection:
        refs = [connection.request("GET", target) for target in ("/slow", "/quick", "/slow")]
        assert [connection.response(ref).content for ref in (refs[1], refs[2], refs[0])] == [b"quick", b"slow", b"slow"]
        for ref in refs:
            with pytest.raises(calamint.StreamClosed, match=f"request {ref} is over, and its events have been taken"):
                connection.response(ref)


def test_the_second_response_on_a_pipeline_before_the_first() -> None:
    """The content of the first is in its way, more than may wait unread: it is kept, and nobody waits for a clock."""
    here, there = socket.socketpair()
    with there, calamint.connect("http://localhost", sock=here, settings=core.Settings(1000, pipeline=2)) as connection:
        refs = [connection.request("GET", "/") for _ in range(2)]
        there.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + bytes(5000))
        there.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecond")
        assert connection.response(refs[1]).content == b"second"
        assert connection.response(refs[0]).content == bytes(5000)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_fields_and_content_of_every_kind(protocol: str) -> None:
    with ScriptedPeer(echo) as peer, dial(peer, protocol) as connection:
        for headers in HEADERS:
            response = connection.response(connection.request("POST", "/", headers, "Grüße"))
            assert response.content == "Grüße".encode()
            fields = dict(peer.report.requests[-1].fields)
            assert {name.lower(): value for name, value in fields.items() if name.lower() in (b"x-a", b"x-b")} == {
                b"x-a": b"\xe5",
                b"x-b": "€".encode(),
            }


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_trailers_of_our_own(protocol: str) -> None:
    with ScriptedPeer(echo) as peer, dial(peer, protocol) as connection:
        ref = connection.request("POST", "/", end=False)
        assert connection.send_data(ref, b"content")
        assert connection.send_data(ref, b"", trailers={"x-sum": "7"})
        assert connection.response(ref).content == b"content"
        assert peer.report.requests[0].trailers == ((b"x-sum", b"7"),)


def test_a_response_of_which_the_head_was_taken() -> None:
    """What is left of it is not passed off as a response."""
    connection, there = in_pair()
    with there, connection:
        ref = connection.request("GET", "/")
        there.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n")
        assert kinds(connection.receive(LIMIT)) == ["ResponseReceived"]
        there.sendall(b"hello")
        with pytest.raises(calamint.StreamClosed, match="has been taken as events"):
            connection.response(ref)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_our_mistakes_leave_the_connection_as_it_was(protocol: str) -> None:
    """Those that break HTTP, and those that break Python."""
    with ScriptedPeer() as peer, dial(peer, protocol) as connection:
        for arguments, error in (
            (("G ET", "/"), calamint.LocalProtocolError),
            (("GET", "/ /"), calamint.LocalProtocolError),
            (("GET", "/", {"bad name": "x"}), calamint.LocalProtocolError),
            (("GET", "/", {"x": "a\r\nb: c"}), calamint.LocalProtocolError),
            (("POST", "/", {"content-length": "3"}, b"four"), calamint.LocalProtocolError),
            (("GET", "/", {"x": 1}), Exception),
            (("GET", "/", (), 7), Exception),
            ((5, "/"), Exception),
        ):
            before = connection.value
            with pytest.raises(error):
                connection.request(*arguments)
            assert connection.value is before
        ref = connection.request("POST", "/", {"content-length": "4"}, end=False)
        with pytest.raises(calamint.LocalProtocolError, match="content-length leaves 4"):
            connection.send_data(ref, b"too long")
        assert connection.send_data(ref, b"four", end=True)
        with pytest.raises(calamint.LocalProtocolError, match="has been ended"):
            connection.send_data(ref, b"more")
        assert connection.response(ref).status == 200
        with pytest.raises(calamint.LocalProtocolError, match=f"request {ref} is over"):
            connection.send_data(ref, b"more")
        assert connection.response(connection.request("GET", "/")).content == b"ok"
        assert peer.report.protocol_errors == ()


def test_one_request_more_than_there_are_slots() -> None:
    with ScriptedPeer([forget(), answer()]) as peer, dial(peer, "http/1.1") as connection:
        assert connection.capacity == 1
        connection.request("GET", "/")
        assert connection.capacity == 0
        with pytest.raises(calamint.AtCapacity):
            connection.request("GET", "/")


def test_the_value_can_be_kept() -> None:
    with ScriptedPeer() as peer, dial(peer, "h2") as connection:
        before = connection.value
        connection.response(connection.request("GET", "/"))
        assert before != connection.value
        assert pickle.loads(pickle.dumps(connection.value)) == connection.value
        assert connection.snapshot().describe()


# Events


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_receive_gives_up_at_its_time(protocol: str) -> None:
    connection, there = in_pair(protocol)
    with there, connection:
        connection.request("GET", "/")
        there.recv(65_536)
        for timeout in (0.0, 0.1, -1.0):
            began = time.monotonic()
            assert connection.receive(timeout) == []
            assert timeout <= time.monotonic() - began < timeout + 5.0 + abs(timeout)
        there.sendall(b"HTTP/1.1 204 No Content\r\n\r\n" if protocol == "http/1.1" else answer_data(1, b""))
        assert connection.receive(LIMIT)


def test_requests_made_within_a_loop_over_events() -> None:
    """They belong to the same loop."""
    with ScriptedPeer(lambda request: answer(content=request.target.encode())) as peer, dial(peer, "h2") as connection:
        connection.request("GET", "/1")
        got: list[bytes] = []
        for event in connection.events():
            if isinstance(event, core.DataReceived):
                got.append(event.data)
                if len(got) < 4:
                    connection.request("GET", f"/{len(got) + 1}")
        assert got == [b"/1", b"/2", b"/3", b"/4"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_events_end_with_the_last_request(protocol: str) -> None:
    with ScriptedPeer([drip(b"drops", piece=1, every=0.005), reset(2)]) as peer, dial(peer, protocol) as connection:
        connection.request("GET", "/")
        events = [event for event in connection.events() if not isinstance(event, core.SettingsReceived)]
        pieces = [event.data for event in events if isinstance(event, core.DataReceived)]
        assert b"".join(pieces) == b"drops"
        assert kinds(events) == ["ResponseReceived", *["DataReceived"] * len(pieces), "ResponseEnded"]
        assert list(connection.events()) == []
        connection.request("GET", "/")
        assert kinds(list(connection.events()))[0] == "RequestFailed"
        assert list(connection.events()) == []


def test_a_loop_over_events_that_is_left_loses_nothing() -> None:
    """Neither events nor window credit: what the loop did not get to is there for the next call."""
    content = bytes(range(256)) * 1024  # four windows
    settings = calamint.Settings(stream_window=65_536, connection_window=65_536)
    with ScriptedPeer([answer(content=content)]) as peer, dial(peer, "h2", settings) as connection:
        for _ in range(8):
            ref = connection.request("GET", "/")
            parts: list[bytes] = []
            while sum(map(len, parts)) < len(content):
                for event in connection.events():
                    if isinstance(event, core.DataReceived):
                        parts.append(event.data)
                        break
            assert b"".join(parts) == content
            assert kinds(connection.receive(LIMIT)) == ["ResponseEnded"]
            with pytest.raises(calamint.StreamClosed):
                connection.response(ref)


def test_a_response_leaves_the_events_of_others() -> None:
    with ScriptedPeer([answer(content=b"1"), answer(content=b"2")]) as peer, dial(peer, "h2") as connection:
        first, second = connection.request("GET", "/1"), connection.request("GET", "/2")
        assert connection.response(second).content == b"2"
        others = [event for event in connection.receive(LIMIT) if getattr(event, "ref", None) == first]
        assert kinds(others) == ["ResponseReceived", "DataReceived", "ResponseEnded"]


def test_a_response_larger_than_its_window() -> None:
    """Credit is given as the reader takes content, whichever way it takes it."""
    settings = calamint.Settings(stream_window=65_536, connection_window=65_536)
    content = bytes(range(256)) * 4096
    with ScriptedPeer([answer(content=content)]) as peer, dial(peer, "h2", settings) as connection:
        assert connection.response(connection.request("GET", "/")).content == content
        connection.request("GET", "/")
        events = list(connection.events())
        assert b"".join([event.data for event in events if isinstance(event, core.DataReceived)]) == content
        connection.request("GET", "/")
        size = 0
        while size < len(content):
            size += sum(
                [len(event.data) for event in connection.receive(LIMIT) if isinstance(event, core.DataReceived)]
            )
        assert size == len(content)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_deadline(protocol: str) -> None:
    with ScriptedPeer([forget()]) as peer, dial(peer, protocol) as connection:
        began = time.monotonic()
        ref = connection.request("GET", "/", timeout=0.1)
        assert connection.next_timeout() == pytest.approx(began + 0.1, abs=0.5)
        with pytest.raises(calamint.DeadlineExceeded, match=r"\(total\) came 0.1"):
            connection.response(ref)
        assert 0.1 <= time.monotonic() - began < 5.0
        assert connection.is_closed is (protocol == "http/1.1")


def test_cancel_on_http2() -> None:
    with ScriptedPeer([forget(), answer()]) as peer, dial(peer, "h2") as connection:
        ref = connection.request("GET", "/")
        connection.cancel(ref)
        connection.cancel(ref)
        assert connection.response(connection.request("GET", "/")).content == b"ok"
        assert peer.wait_for(lambda report: report.resets).resets == ((0, ref, 8),)
        with pytest.raises(calamint.StreamClosed):
            connection.response(ref)


def test_cancel_on_http1() -> None:
    """Nothing else tells the peer to stop: the connection ends, and its socket with it."""
    with ScriptedPeer([forget()]) as peer, dial(peer, "http/1.1") as connection:
        ref = connection.request("GET", "/")
        connection.cancel(ref)
        assert connection.is_closed
        assert connection.fileno() == -1
        connection.cancel(ref)
        peer.wait_for(lambda report: report.connections == 1 and not report.connections_open)
        with pytest.raises(calamint.CloseError, match="cancelled by its caller"):
            connection.request("GET", "/")


# Cork


def test_cork() -> None:
    connection, there = in_pair("h2")
    with there, connection:
        with connection.cork():
            refs = [connection.request("GET", "/") for _ in range(3)]
            with connection.cork():
                connection.request("POST", "/", content=b"content")
            assert nothing_came(there)
            assert connection.wants_write
        data = there.recv(65_536)
        assert not connection.wants_write
        found = []
        while data:
            high, low, kind, _, ref = frames.HEADER.unpack_from(data)
            found.append((kind, ref))
            data = data[frames.HEADER_SIZE + (high << 8 | low) :]
        assert found == [*[(frames.HEADERS, ref) for ref in refs], (frames.HEADERS, 7), (frames.DATA, 7)]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_whoever_waits_lifts_the_cork(protocol: str) -> None:
    with ScriptedPeer() as peer, dial(peer, protocol) as connection, connection.cork():
        assert connection.response(connection.request("GET", "/")).content == b"ok"
        ref = connection.request("POST", "/", end=False)
        assert connection.send_data(ref, MB_8, end=True)
        assert connection.response(ref).content == b"ok"


def test_a_cork_does_not_hide_what_ended_it() -> None:
    with ScriptedPeer() as peer, dial(peer, "h2") as connection:
        with pytest.raises(ValueError, match="mine"), connection.cork():
            ref = connection.request("GET", "/")
            raise ValueError("mine")
        assert connection.response(ref).content == b"ok"


# The end


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_close(protocol: str) -> None:
    with ScriptedPeer([forget()]) as peer:
        with dial(peer, protocol) as connection:
            ref = connection.request("GET", "/")
            peer.wait_for(lambda report: report.requests)
            connection.close()
            assert (connection.is_closed, connection.capacity, connection.fileno()) == (True, 0, -1)
            assert (connection.next_timeout(), connection.wants_write) == (None, False)
            connection.close()
        assert connection.is_closed
        with pytest.raises(calamint.CloseError, match="closed by this side") as caught:
            connection.request("GET", "/")
        assert caught.value.unprocessed  # it may be sent again elsewhere
        assert not connection.send_data(ref, b"x")  # its end, which nobody has taken, says why
        connection.cancel(99)
        peer.wait_for(lambda report: not report.connections_open)
        assert [code for _, _, code in peer.report.goaways] == ([0] if protocol == "h2" else [])


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_is_left_when_it_is_over(protocol: str) -> None:
    """Its events are still to be had; after the last of them, waiting for more is a mistake, and no endless loop."""
    with ScriptedPeer([forget()]) as peer, dial(peer, protocol) as connection:
        ref = connection.request("GET", "/")
        connection.close()
        with pytest.raises(calamint.StreamClosed, match="closed by this side"):
            connection.response(ref)
        assert kinds([event for event in connection.receive() if getattr(event, "ref", 0) != 0]) == []
        with pytest.raises(calamint.CloseError):
            connection.receive()
        assert list(connection.events()) == []
        assert connection.on_readable() == connection.on_writable() == connection.on_timeout() == []


def test_close_does_not_send_what_was_held_back() -> None:
    """A request that the caller was told has failed must not reach the server after all."""
    connection, there = in_pair()
    with there:
        with connection.cork():
            connection.request("POST", "/pay", content=b"100")
            connection.close()
        assert there.recv(65_536) == b""


def test_D8_an_answer_before_the_request_is_none() -> None:
    """RFC 9112 §9.2: two responses to one request, the second one on its own, before the next request."""
    go_on = threading.Event()
    heard: list[bytes] = []

    def handle(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\none")
        assert go_on.wait(LIMIT)
        sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\ntwo")
        heard.append(sock.recv(65_536))

    with ThreadServer(handle) as server, calamint.connect(server.url) as connection:
        assert connection.response(connection.request("GET", "/1")).content == b"one"
        go_on.set()
        assert select.select([connection], [], [], LIMIT)[0]
        with pytest.raises(calamint.CloseError, match="while no request was outstanding") as caught:
            connection.request("GET", "/2")
        assert caught.value.unprocessed
    assert heard == [b""]


def test_a_connection_that_its_server_has_closed_takes_no_request() -> None:
    def handle(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\none")

    with ThreadServer(handle) as server, calamint.connect(server.url) as connection:
        assert connection.response(connection.request("POST", "/1")).content == b"one"
        assert select.select([connection], [], [], LIMIT)[0]
        with pytest.raises(calamint.CloseError, match="the peer closed it") as caught:
            connection.request("POST", "/2")
        assert caught.value.unprocessed


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_peer_closes_in_the_middle(protocol: str) -> None:
    fields = ((b"content-length", b"10"),)
    with ScriptedPeer([close(after=b"12345", fields=fields)]) as peer, dial(peer, protocol) as connection:
        ref = connection.request("GET", "/")
        words = "5 bytes short of its content-length" if protocol == "http/1.1" else "before the response was complete"
        with pytest.raises(calamint.ReadError, match=f"the peer closed the connection .*{words}") as caught:
            connection.response(ref)
        assert not caught.value.unprocessed
        assert connection.is_closed


def test_the_peer_closes_in_the_middle_of_a_chunk() -> None:
    connection, there = in_pair()
    with connection:
        ref = connection.request("GET", "/")
        there.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nA\r\n1234567")
        there.close()
        with pytest.raises(calamint.ReadError, match="3 bytes short of a chunk"):
            connection.response(ref)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_peer_resets_the_connection(protocol: str) -> None:
    with ScriptedPeer([close(abort=True)]) as peer, dial(peer, protocol) as connection:
        with pytest.raises(calamint.ReadError, match="Connection reset by peer"):
            connection.response(connection.request("GET", "/"))


@pytest.mark.parametrize(
    ("protocol", "said", "words"),
    [
        ("h2", b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n", "the peer answers in HTTP/1"),
        ("h2", b"<html>nonsense</html>\r\n", "the first frame is .* not SETTINGS"),
        ("http/1.1", frames.encode_settings(()) + frames.encode_goaway(0, 1, b""), "not with HTTP/1."),
        ("http/1.1", b"SSH-2.0-OpenSSH\r\n", "not with HTTP/1."),
    ],
)
@pytest.mark.rfc("9113-5.4.1-2")
def test_a_server_that_speaks_something_else(protocol: str, said: bytes, words: str) -> None:
    def handle(sock: socket.socket) -> None:
        sock.recv(65_536)
        sock.sendall(said)
        with contextlib.suppress(OSError):
            no_answer(sock)

    with ThreadServer(handle) as server, dial(server, protocol) as connection:
        with pytest.raises(calamint.RemoteProtocolError, match=words):
            connection.response(connection.request("GET", "/"))
        assert connection.is_closed


# Sending content


class Echo:
    """An HTTP/2 server of the library h2, in a thread: sends every piece of content back as it comes, and reads nothing
    while it writes."""

    def __init__(self) -> None:
        self.engine = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding=None))
        self.waiting: dict[int, bytearray] = {}
        self.ended: set[int] = set()

    def handle(self, sock: socket.socket) -> None:
        self.engine.initiate_connection()
        sock.sendall(self.engine.data_to_send())
        while data := sock.recv(65_536):
            for event in self.engine.receive_data(data):
                self.take(event)
            self.pump()
            with contextlib.suppress(BrokenPipeError):  # the client has all, and goes
                sock.sendall(self.engine.data_to_send())

    def take(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.RequestReceived) and event.stream_id is not None:
            self.engine.send_headers(event.stream_id, [(":status", "200")])
            self.waiting[event.stream_id] = bytearray()
        elif isinstance(event, h2.events.DataReceived) and event.stream_id is not None and event.data is not None:
            self.waiting[event.stream_id] += event.data
        elif isinstance(event, h2.events.StreamEnded) and event.stream_id is not None:
            self.ended.add(event.stream_id)

    def pump(self) -> None:
        for ref, data in list(self.waiting.items()):
            while data and (
                room := min(self.engine.local_flow_control_window(ref), self.engine.max_outbound_frame_size)
            ):
                piece = bytes(data[:room])
                del data[:room]
                self.engine.send_data(ref, piece)
                self.engine.acknowledge_received_data(len(piece), ref)  # no credit before it has gone back
            if not data and ref in self.ended:
                self.engine.end_stream(ref)
                del self.waiting[ref]


def echo_http1(sock: socket.socket) -> None:
    """The same over HTTP/1.1, for content of 10 MB."""
    head, _, data = read_head(sock).partition(b"\r\n\r\n")
    assert f"content-length: {TEN_MB}".encode() in head.lower()
    sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % TEN_MB + data)
    left = TEN_MB - len(data)
    while left:
        data = sock.recv(65_536)
        left -= len(data)
        sock.sendall(data)
    no_answer(sock)


@pytest.mark.parametrize("way", ["at once", "in pieces", "read between"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_ten_megabytes_sent_back_through_small_buffers(protocol: str, way: str) -> None:
    """The server does not read while it writes: whoever writes without reading is stuck. Nor must both wait for the reader."""
    content = b"".join([number.to_bytes(4, "big") for number in range(TEN_MB // 4)])
    handle = Echo().handle if protocol == "h2" else echo_http1
    with paired(handle, 16_384) as sock:
        with calamint.connect("http://localhost", sock=sock, http1=protocol != "h2") as connection:
            fields = {"content-length": str(TEN_MB)}
            got: list[bytes] = []
            if way == "at once":
                ref = connection.request("POST", "/", fields, content)
            else:
                ref = connection.request("POST", "/", fields, end=False)
                for at in range(0, TEN_MB, PIECE):
                    assert connection.send_data(ref, content[at : at + PIECE], end=at + PIECE == TEN_MB)
                    if way == "read between":
                        events = connection.receive(0.0)
                        got += [event.data for event in events if isinstance(event, core.DataReceived)]
            if way == "read between":
                got += [event.data for event in connection.events() if isinstance(event, core.DataReceived)]
                assert b"".join(got) == content
            else:
                assert connection.response(ref).content == content


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_send_data_waits_for_the_peer(protocol: str) -> None:
    """No more than the output budget and the peer's windows wait here when it returns."""
    with ScriptedPeer(echo) as peer, dial(peer, protocol) as connection:
        ref = connection.request("POST", "/", end=False)
        for _ in range(20):
            assert connection.send_data(ref, bytes(PIECE))
            assert connection.snapshot().requests[0].queued == 0
            assert connection.snapshot().unflushed < PIECE + 65_536  # the last piece may go over the budget
        connection.send_data(ref, b"", end=True)
        assert len(connection.response(ref).content) == 20 * PIECE


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_server_that_does_not_read(protocol: str) -> None:
    """The write clock ends it; what the server says meanwhile is heard."""
    script = [stop_reading(then=Action((Head(103),)))]
    clocks = calamint.Clocks(write=0.2)
    with ScriptedPeer(script) as peer, dial(peer, protocol) as connection:
        began = time.monotonic()
        ref = connection.request("POST", "/", end=False, clocks=clocks)
        assert not connection.send_data(ref, MB_8)
        assert 0.2 <= time.monotonic() - began < 3.0
        mine = [event for event in connection.receive(0.0) if getattr(event, "ref", 0) == ref]
        assert kinds(mine) == ["InterimReceived", "RequestFailed"]
        failure = mine[1].failure if isinstance(mine[1], core.RequestFailed) else None
        assert failure is not None and failure.kind == "WriteTimeout"
        assert "none moved for 0.2" in failure.message and "(write=0.2)" in failure.message
        assert connection.is_closed is (protocol == "http/1.1")


@pytest.mark.fault("G6")
def test_an_early_answer_ends_the_upload_on_http2() -> None:
    """RFC 9113 §8.1: a complete response and RST_STREAM(NO_ERROR); the response counts."""
    script = [answer(413, content=b"too much", early=True) + reset(0), answer()]
    with ScriptedPeer(script, initial_window=1000) as peer, dial(peer, "h2") as connection:
        ref = connection.request("POST", "/", end=False)
        sent = 0
        while connection.send_data(ref, bytes(PIECE)):
            sent += 1
            assert sent < 100
        assert not connection.send_data(ref, b"the end", end=True)
        response = connection.response(ref)
        assert (response.status, response.content) == (413, b"too much")
        assert connection.response(connection.request("GET", "/")).content == b"ok"


@pytest.mark.fault("G7")
@pytest.mark.parametrize("framing", ["content-length: 8\r\n", "transfer-encoding: chunked\r\n"])
@pytest.mark.parametrize("given", ["at once", "in pieces"])
@pytest.mark.rfc("9112-9.5-3")
def test_an_early_answer_and_a_reset_on_http1(given: str, framing: str) -> None:
    """The server answers before it has read the content, and closes: its kernel sends RST, and our writes fail. What it
    said before is read all the same."""
    content = b"8\r\ntoo much\r\n0\r\n\r\n" if "chunked" in framing else b"too much"

    def handle(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(b"HTTP/1.1 413 Content Too Large\r\nconnection: close\r\n%s\r\n%s" % (framing.encode(), content))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")

    with ThreadServer(handle) as server, dial(server, "http/1.1") as connection:
        if given == "at once":
            ref = connection.request("POST", "/", content=MB_8)
        else:
            ref = connection.request("POST", "/", end=False)
            sent = 0
            while connection.send_data(ref, bytes(PIECE)):
                sent += 1
                assert sent < 1000
        response = connection.response(ref)
        assert (response.status, response.content) == (413, b"too much")
        assert connection.is_closed


@pytest.mark.rfc("9112-8-4")
def test_content_that_only_the_end_completes_is_not_complete_after_a_reset() -> None:
    def handle(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\n\r\nperhaps not all")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")

    with ThreadServer(handle) as server, dial(server, "http/1.1") as connection:
        ref = connection.request("POST", "/", end=False)
        while connection.send_data(ref, bytes(PIECE)):
            pass
        with pytest.raises(calamint.ReadError, match="within content that only an orderly end completes"):
            connection.response(ref)


def test_a_request_ends_while_others_send() -> None:
    """The end of one wakes whoever sends its content, and nobody else."""

    def script(request: Request) -> Action:
        return reset(2, early=True) if request.target == "/reset" else answer(content=request.content)

    with ScriptedPeer(script) as peer, dial(peer, "h2") as connection:
        good, bad = connection.request("POST", "/good", end=False), connection.request("POST", "/reset", end=False)
        while connection.send_data(bad, bytes(PIECE)):
            pass
        assert connection.send_data(good, b"content", end=True)
        assert connection.response(good).content == b"content"
        with pytest.raises(calamint.StreamReset) as caught:
            connection.response(bad)
        assert (caught.value.code, caught.value.ref) == (2, bad)


# In a selector loop of the caller's own


def drive(
    connections: dict[calamint.Connection, list[core.Event]],
    done: Callable[[list[core.Event]], bool],
    limit: float = LIMIT,
) -> None:
    """The loop that the documentation shows: until every connection's events satisfy `done`."""
    end = time.monotonic() + limit
    with selectors.DefaultSelector() as selector:
        for connection in connections:
            selector.register(connection, selectors.EVENT_READ)
        while not all([done(events) for events in connections.values()]):
            assert time.monotonic() < end, connections
            live = [connection for connection in connections if not connection.is_closed]
            for connection in live:
                write = selectors.EVENT_WRITE if connection.wants_write else 0
                selector.modify(connection, selectors.EVENT_READ | write)
            wake = min([it.next_timeout() or end for it in live], default=end)
            for key, mask in selector.select(max(0.0, min(wake, end) - time.monotonic())):
                connection = key.fileobj  # type: ignore[assignment]
                if mask & selectors.EVENT_READ:
                    connections[connection] += connection.on_readable()
                if mask & selectors.EVENT_WRITE:
                    connections[connection] += connection.on_writable()
            for connection in live:
                when = connection.next_timeout()
                if when is not None and when <= time.monotonic():
                    connections[connection] += connection.on_timeout()
                if connection.is_closed:
                    selector.unregister(connection)


def has_ended(events: list[core.Event]) -> bool:
    return any([isinstance(event, core.ResponseEnded | core.RequestFailed) for event in events])


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_many_connections_in_one_loop(protocol: str) -> None:
    content = bytes(range(256)) * 2048
    with ScriptedPeer(echo) as peer, contextlib.ExitStack() as stack:
        connections: dict[calamint.Connection, list[core.Event]] = {}
        for _ in range(5):
            connection = stack.enter_context(dial(peer, protocol))
            connections[connection] = []
            connection.request("POST", "/", content=content)
        drive(connections, has_ended)
        for events in connections.values():
            assert b"".join([event.data for event in events if isinstance(event, core.DataReceived)]) == content


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_clocks_in_a_loop(protocol: str) -> None:
    with ScriptedPeer([forget()]) as peer, dial(peer, protocol) as connection:
        events: list[core.Event] = []
        began = time.monotonic()
        connection.request("GET", "/", timeout=0.1)
        drive({connection: events}, has_ended)
        assert 0.1 <= time.monotonic() - began < 5.0
        [failed] = [event for event in events if isinstance(event, core.RequestFailed)]
        assert failed.failure.kind == "DeadlineExceeded"


def test_what_a_loop_asks() -> None:
    connection, there = in_pair()
    with there, connection:
        assert (connection.wants_write, connection.next_timeout(), connection.on_timeout()) == (False, None, [])
        connection.request("POST", "/", content=MB_8)
        assert connection.wants_write
        assert connection.on_writable() == []
        while connection.wants_write:
            there.recv(1_000_000)
            connection.on_writable()
        there.sendall(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n")
        assert kinds(connection.on_readable()) == ["ResponseReceived", "ResponseEnded", "ConnectionClosed"]
        assert (connection.fileno(), connection.on_readable()) == (-1, [])


def test_the_tap_sees_everything_in_its_order() -> None:
    seen: list[tuple[str, bytes]] = []
    with ScriptedPeer() as peer:
        with calamint.connect(peer.url, tap=lambda mark, data: seen.append((mark, data))) as connection:
            connection.response(connection.request("GET", "/"))
    assert [mark for mark, _ in seen] == [">", ">", "<"]
    assert seen[1][1].startswith(b"GET / HTTP/1.1\r\n")
    assert seen[2][1].endswith(b"\r\n\r\nok")
