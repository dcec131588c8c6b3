"""Content that is held back: CONNECT and its tunnel, other protocols (RFC 8441, 101), and `expect: 100-continue`."""

import pickle
from typing import Final

import pytest

from calamint import core
from calamint.core.errors import LocalProtocolError
from calamint.core.events import (
    ConnectionClosed,
    DataReceived,
    Event,
    InterimReceived,
    RequestFailed,
    ResponseEnded,
    ResponseReceived,
    TrailersReceived,
    Upgraded,
    WindowOpened,
)
from calamint.core.value import INFINITY, Fields
from tests.core import http2_peer as wire

ORIGIN: Final = core.Origin("https", "a.test", 443)
CONNECT_HEAD: Final = b"CONNECT b.test:22 HTTP/1.1\r\nHost: b.test:22\r\n"
EXPECT: Final = ((b"expect", b"100-continue"),)
UPGRADE: Final = ((b"Connection", b"keep-alive, Upgrade"), (b"Upgrade", b"websocket"))
QUIET: Final = core.Settings(keepalive=None)


class Client:
    """A connection of either protocol, with what it put out since it was last asked."""

    def __init__(self, protocol: str, *announced: wire.Setting, settings: core.Settings = QUIET) -> None:
        self.conn, data = core.connect(protocol, ORIGIN, settings, 0.0)
        self.now = 0.0
        self.out = b""
        if protocol == "h2":
            self.peer = wire.Peer(data)
            self.receive(self.peer.announce(*announced) + wire.settings_ack())
            self.take()

    def take(self) -> bytes:
        data, self.out = self.out, b""
        return data

    def request(
        self, method: str, target: str, fields: Fields = (), content: bytes | None = None, **more: object
    ) -> int:
        arguments = (method, target, fields, content, self.now)
        self.conn, data, ref = core.request(self.conn, *arguments, **more)  # type: ignore[arg-type]  # keywords as they come
        self.out += data
        return ref

    def send(self, ref: int, data: bytes, end: bool = False, trailers: Fields = ()) -> None:
        self.conn, out = core.send_data(self.conn, ref, data, self.now, end, trailers)
        self.out += out

    def receive(self, *data: bytes) -> list[Event]:
        before = pickle.dumps(self.conn)
        self.conn, out, events = core.receive(self.conn, b"".join(data), self.now)
        again = core.receive(pickle.loads(before), b"".join(data), self.now)
        assert again == (self.conn, out, events)
        self.out += out
        return events

    def pass_time(self, now: float) -> list[Event]:
        self.now = now
        self.conn, out, events = core.handle_timeout(self.conn, now)
        self.out += out
        return events


def request_fields(client: Client, ref: int) -> list[wire.Pair]:
    client.peer.take(client.take())
    return list(client.peer.requests[ref].fields)


# CONNECT over HTTP/2 (RFC 9113 §8.5)


def tunnel(*, end: bool = False) -> tuple[Client, int]:
    client = Client("h2")
    ref = client.request("CONNECT", "b.test:22", end=end)
    assert wire.kinds(client.take()) == [(wire.HEADERS, ref)]
    assert client.receive(wire.headers_frame(ref, b"\x88")) == [ResponseReceived(ref, 200, ()), Upgraded(ref)]
    return client, ref


@pytest.mark.rfc("9113-8.5-1")
def test_connect_has_neither_scheme_nor_path() -> None:
    """§8.5: "The ":scheme" and ":path" pseudo-header fields MUST be omitted"; END_STREAM is not set."""
    client = Client("h2")
    ref = client.request("CONNECT", "b.test:22", ((b"user-agent", b"x"), (b"host", b"b.test:22")), end=False)
    fields = request_fields(client, ref)
    assert fields == [(b":method", b"CONNECT"), (b":authority", b"b.test:22"), (b"user-agent", b"x")]
    assert not client.peer.requests[ref].ended


@pytest.mark.rfc("9110-9.3.6-3")
def test_what_goes_through_the_tunnel_waits_until_it_is_made() -> None:
    client = Client("h2")
    ref = client.request("CONNECT", "b.test:22", end=False)
    client.take()
    client.send(ref, b"hello")
    assert (client.take(), core.queued(client.conn, ref)) == (b"", 5)
    assert core.snapshot(client.conn, 0.0).requests[0].waits_for == "the tunnel"
    assert client.receive(wire.window_update(ref, 1)) == []
    assert client.take() == b""
    events = client.receive(wire.headers_frame(ref, b"\x88"))
    assert events == [ResponseReceived(ref, 200, ()), Upgraded(ref), WindowOpened(ref)]
    assert client.take() == wire.data_frame(ref, b"hello")
    assert core.snapshot(client.conn, 0.0).requests[0].waits_for == "either end of the tunnel"


@pytest.mark.rfc("9110-9.3.6-2")
def test_a_tunnel_carries_bytes_both_ways_and_ignores_content_length() -> None:
    """RFC 9110 §9.3.6: "A client MUST ignore any Content-Length or Transfer-Encoding header fields"."""
    client = Client("h2")
    ref = client.request("CONNECT", "b.test:22", end=False)
    client.take()
    client.receive(wire.headers_frame(ref, b"\x88" + wire.literal(b"content-length", b"0")))
    assert client.receive(wire.data_frame(ref, b"SSH-2.0")) == [DataReceived(ref, b"SSH-2.0")]
    client.send(ref, b"ping")
    assert client.take() == wire.data_frame(ref, b"ping")
    client.conn, out, _ = core.consume(client.conn, ref, 7, 0.0)
    assert out == b""
    assert client.receive(wire.data_frame(ref, b"more", end=True)) == [DataReceived(ref, b"more"), ResponseEnded(ref)]
    assert client.take() == wire.data_frame(ref, end=True), "END_STREAM for END_STREAM, as FIN for FIN"
    assert core.in_flight(client.conn) == 0


def test_our_end_of_a_tunnel_leaves_the_other_half_open() -> None:
    client, ref = tunnel()
    client.send(ref, b"bye", end=True)
    assert client.take() == wire.data_frame(ref, b"bye", end=True)
    assert client.receive(wire.data_frame(ref, b"x")) == [DataReceived(ref, b"x")]
    assert client.receive(wire.data_frame(ref, end=True)) == [ResponseEnded(ref)]
    assert client.take() == b""


def test_a_tunnel_that_only_receives() -> None:
    client = Client("h2")
    ref = client.request("CONNECT", "b.test:22")
    assert wire.kinds(client.take()) == [(wire.HEADERS, ref)]
    client.receive(wire.headers_frame(ref, b"\x88"))
    assert client.take() == wire.data_frame(ref, end=True)
    with pytest.raises(LocalProtocolError, match="has been ended"):
        client.send(ref, b"x")
    assert client.receive(wire.data_frame(ref, b"x", end=True)) == [DataReceived(ref, b"x"), ResponseEnded(ref)]


def test_the_peers_end_drops_what_did_not_fit() -> None:
    client = Client("h2", (wire.INITIAL_WINDOW_SIZE, 1))
    ref = client.request("CONNECT", "b.test:22", end=False)
    client.receive(wire.headers_frame(ref, b"\x88"))
    client.send(ref, b"ab")
    client.take()
    assert client.receive(wire.data_frame(ref, end=True)) == [ResponseEnded(ref)]
    assert client.take() == wire.rst_stream(ref, wire.CANCEL)


@pytest.mark.rfc("9110-9.3.6-4")
def test_a_tunnel_that_is_refused_is_a_response_like_others() -> None:
    client = Client("h2")
    ref = client.request("CONNECT", "b.test:22", end=False)
    client.send(ref, b"hello")
    client.take()
    assert client.receive(wire.headers_frame(ref, wire.literal(b":status", b"407"))) == [ResponseReceived(ref, 407, ())]
    assert core.queued(client.conn, ref) == 0
    client.send(ref, b"more")  # it is not wanted, and not kept
    assert (client.take(), core.queued(client.conn, ref)) == (b"", 0)
    assert client.receive(wire.data_frame(ref, b"no", end=True)) == [DataReceived(ref, b"no"), ResponseEnded(ref)]
    assert client.take() == wire.rst_stream(ref, wire.CANCEL)


@pytest.mark.parametrize("ended", [False, True])
@pytest.mark.rfc("9113-8.5-4")
def test_headers_in_a_tunnel_are_a_stream_error(ended: bool) -> None:
    """§8.5: "Frame types other than DATA or stream management frames MUST be treated as a stream error"."""
    client, ref = tunnel()
    if ended:
        client.send(ref, b"", end=True)
    client.take()
    (failed,) = client.receive(wire.headers_frame(ref, wire.literal(b"x", b"y"), end=True))
    assert isinstance(failed, RequestFailed) and failed.failure.code == wire.PROTOCOL_ERROR
    assert client.take() == wire.rst_stream(ref, wire.PROTOCOL_ERROR)


@pytest.mark.parametrize("interim", [b"100", b"103"])
def test_an_interim_response_makes_no_tunnel(interim: bytes) -> None:
    client = Client("h2")
    ref = client.request("CONNECT", "b.test:22", end=False)
    client.send(ref, b"x")
    client.take()
    assert client.receive(wire.headers_frame(ref, wire.literal(b":status", interim))) == [
        InterimReceived(ref, int(interim), ())
    ]
    assert client.take() == b""


# What CONNECT may not be, alike over both protocols


@pytest.mark.parametrize("protocol", ["h2", "http/1.1"])
@pytest.mark.parametrize(
    ("target", "fields", "content", "match"),
    [
        ("/", (), None, "must be a host and a port"),
        ("b.test", (), None, "must be a host and a port"),
        ("b.test:22/", (), None, "must be a host and a port"),
        ("u@b.test:22", (), None, "must be a host and a port"),
        ("b.test:22\r\n", (), None, "printable ASCII"),
        ("b.test:22", (), b"", "has no content"),
        ("b.test:22", (), b"x", "has no content"),
        ("b.test:22", ((b"content-length", b"1"),), None, "has no content"),
        ("b.test:22", EXPECT, None, "has no content"),
        ("b.test:22", ((b"host", b"c.test:22"),), None, "is not the target"),
    ],
)
@pytest.mark.rfc("9110-9.3.6-1", "9110-9.3.6-3", "9112-3.2.3-1")
def test_what_connect_may_not_be(protocol: str, target: str, fields: Fields, content: bytes | None, match: str) -> None:
    client = Client(protocol)
    before = client.conn
    with pytest.raises(LocalProtocolError, match=match):
        client.request("CONNECT", target, fields, content, end=False)
    assert (client.conn, client.out) == (before, b"")


@pytest.mark.parametrize("protocol", ["h2", "http/1.1"])
@pytest.mark.rfc("9113-8.5-3")
def test_a_tunnel_has_no_trailers(protocol: str) -> None:
    client = Client(protocol)
    ref = client.request("CONNECT", "[::1]:22", end=False)
    with pytest.raises(LocalProtocolError, match="trailers"):
        client.send(ref, b"", trailers=((b"a", b"b"),))


# Extended CONNECT (RFC 8441)


@pytest.mark.rfc("8441-4-1", "8441-4-2")
def test_extended_connect() -> None:
    """RFC 8441 §4: ":scheme" and ":path" stand, ":protocol" too, and ":authority" is the origin."""
    client = Client("h2", (8, 1))
    ref = client.request("CONNECT", "/chat?x", ((b"sec-websocket-version", b"13"),), end=False, protocol="websocket")
    assert request_fields(client, ref) == [
        *((b":method", b"CONNECT"), (b":protocol", b"websocket"), (b":scheme", b"https"), (b":authority", b"a.test")),
        *((b":path", b"/chat?x"), (b"sec-websocket-version", b"13")),
    ]
    assert client.receive(wire.headers_frame(ref, b"\x88")) == [ResponseReceived(ref, 200, ()), Upgraded(ref)]


@pytest.mark.parametrize("announced", [(), ((8, 0),)])
@pytest.mark.rfc("8441-3-3")
def test_extended_connect_needs_the_peers_word(announced: tuple[wire.Setting, ...]) -> None:
    """RFC 8441 §3: without ENABLE_CONNECT_PROTOCOL=1 a client must not send it."""
    client = Client("h2", *announced)
    with pytest.raises(LocalProtocolError, match="does not take the extended CONNECT"):
        client.request("CONNECT", "/chat", end=False, protocol="websocket")


def test_what_extended_connect_may_not_be() -> None:
    client = Client("h2", (8, 1))
    with pytest.raises(LocalProtocolError, match="goes with the method CONNECT"):
        client.request("GET", "/chat", protocol="websocket")
    with pytest.raises(LocalProtocolError, match="not a token"):
        client.request("CONNECT", "/chat", protocol="web socket", end=False)
    with pytest.raises(LocalProtocolError, match="begins with"):
        client.request("CONNECT", "b.test:22", protocol="websocket", end=False)
    with pytest.raises(LocalProtocolError, match="ask for an upgrade"):
        Client("http/1.1").request("CONNECT", "/chat", protocol="websocket", end=False)


@pytest.mark.parametrize(("first", "second"), [(2, 1), (1, 0), (0, 2), (1, 2)])
@pytest.mark.rfc("8441-3-1", "8441-3-2")
def test_a_change_of_enable_connect_protocol(first: int, second: int) -> None:
    """RFC 8441 §3: the value is 0 or 1; "A sender MUST NOT send … 0 after previously sending a value of 1"."""
    client = Client("h2")
    events = client.receive(wire.settings((8, first)), wire.settings((8, second)))
    closed = events[-1]
    assert isinstance(closed, ConnectionClosed) and closed.failure is not None
    assert closed.failure.code == wire.PROTOCOL_ERROR
    assert "ENABLE_CONNECT_PROTOCOL" in closed.failure.message


def test_enable_connect_protocol_may_be_said_again() -> None:
    client = Client("h2", (8, 0), (8, 1), (8, 1))
    client.receive(wire.settings((8, 1)))
    assert core.is_closed(client.conn) is False


# CONNECT and other protocols over HTTP/1.1


@pytest.mark.rfc("9112-3.2.3-1", "9112-6.3-2")
def test_connect_over_http1() -> None:
    """RFC 9112 §3.2.3: authority-form; RFC 9110 §9.3.6: any 2xx makes the tunnel, framing fields are ignored."""
    client = Client("http/1.1")
    ref = client.request("CONNECT", "b.test:22", end=False)
    assert client.take() == CONNECT_HEAD + b"\r\n"
    client.send(ref, b"hello")
    assert client.take() == b""
    head = b"HTTP/1.1 201 Fine\r\nContent-Length: +3\r\nTransfer-Encoding: chunked, x\r\n\r\n"
    events = client.receive(head + b"SSH-2.0 and more")
    assert events[1:] == [Upgraded(ref), WindowOpened(ref), DataReceived(ref, b"SSH-2.0 and more")]
    assert client.take() == b"hello"
    client.send(ref, b"raw")
    assert client.take() == b"raw"
    assert (core.is_draining(client.conn), core.capacity(client.conn)) == (True, 0)
    _, events = core.closed(client.conn, 1.0, clean=True)
    assert events == [ResponseEnded(ref), ConnectionClosed(None)]
    _, events = core.closed(client.conn, 1.0, clean=False)
    assert isinstance(events[0], RequestFailed) and events[0].failure.kind == "ReadError"


def test_our_end_of_a_tunnel_over_http1() -> None:
    client = Client("http/1.1")
    ref = client.request("CONNECT", "b.test:22", end=False)
    client.receive(b"HTTP/1.1 200 OK\r\n\r\n")
    client.send(ref, b"x", end=True)
    assert client.take().endswith(b"\r\n\r\nx")
    assert core.wants_shutdown(client.conn)
    assert client.receive(b"y") == [DataReceived(ref, b"y")]
    with pytest.raises(LocalProtocolError, match="has been ended"):
        client.send(ref, b"z")


@pytest.mark.parametrize("whole", [True, False])
def test_a_refused_tunnel_over_http1_leaves_the_connection(whole: bool) -> None:
    client = Client("http/1.1")
    ref = client.request("CONNECT", "b.test:22", end=False)
    client.send(ref, b"hello")
    client.take()
    data = b"HTTP/1.1 407 No\r\nContent-Length: 2\r\n\r\nno"
    events = client.receive(data) if whole else client.receive(data[:-1]) + client.receive(data[-1:])
    assert events[-1] == ResponseEnded(ref)
    assert (client.take(), core.capacity(client.conn)) == (b"", 1)


@pytest.mark.fault("G3")
@pytest.mark.rfc("9110-7.8-2")
def test_an_upgrade_and_the_bytes_that_followed() -> None:
    """RFC 9110 §7.8: after 101 the connection speaks the other protocol: what came with it is not lost."""
    client = Client("http/1.1")
    ref = client.request("GET", "/chat", UPGRADE)
    client.take()
    events = client.receive(b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n\x81\x00")
    assert isinstance(events[0], ResponseReceived) and events[0].status == 101
    assert events[1:] == [Upgraded(ref), DataReceived(ref, b"\x81\x00")]
    client.send(ref, b"\x81\x01a")
    assert client.take() == b"\x81\x01a"


@pytest.mark.rfc("9110-7.8-2")
def test_content_of_an_upgrade_goes_before_the_other_protocol() -> None:
    """RFC 9110 §7.8: the upgraded protocol begins after the request is sent completely."""
    client = Client("http/1.1", settings=core.Settings(output_budget=1))
    ref = client.request("POST", "/chat", UPGRADE, b"a" * 70_000)
    assert len(client.take()) < 66_000
    client.receive(b"HTTP/1.1 101 Switching\r\n\r\n")
    client.send(ref, b"raw")
    client.conn, data, _ = core.flush(client.conn, 0.0)
    client.conn, more, _ = core.flush(client.conn, 0.0)
    assert data + more == b"a" * (70_000 - 65_536) + b"raw"


def test_an_upgrade_that_is_declined_is_answered_in_http1() -> None:
    """RFC 9110 §7.8: "A server MAY ignore a received Upgrade header field"; the connection stays as it was."""
    client = Client("http/1.1")
    ref = client.request("GET", "/chat", UPGRADE)
    assert (core.capacity(client.conn), core.is_draining(client.conn)) == (0, False)
    assert client.receive(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")[-1] == ResponseEnded(ref)
    assert (core.capacity(client.conn), core.is_draining(client.conn)) == (1, False)
    client.request("GET", "/")
    assert isinstance(client.receive(b"HTTP/1.1 101 Late\r\n\r\n")[-1], ConnectionClosed)


def test_what_an_upgrade_may_not_be() -> None:
    client = Client("http/1.1")
    with pytest.raises(LocalProtocolError, match="content may not be left open"):
        client.request("POST", "/", UPGRADE, end=False)
    with pytest.raises(LocalProtocolError, match="content may not be left open"):
        client.request("POST", "/", (*UPGRADE, (b"transfer-encoding", b"chunked")), b"x")
    with pytest.raises(LocalProtocolError, match="in connection"):
        client.request("GET", "/", ((b"upgrade", b"websocket"),))
    ref = client.request("GET", "/")
    (failed, _) = client.receive(b"HTTP/1.1 101 Switching\r\n\r\n")[-2:]
    assert isinstance(failed, RequestFailed) and failed.ref == ref
    assert "no upgrade was asked for" in failed.failure.message


# Expect: 100-continue (RFC 9110 §10.1.1), alike over both protocols


def interim(protocol: str, ref: int, status: int) -> bytes:
    if protocol == "h2":
        return wire.headers_frame(ref, wire.literal(b":status", b"%d" % status))
    return b"HTTP/1.1 %d X\r\n\r\n" % status


def expecting(protocol: str, content: bytes = b"hello", **more: object) -> tuple[Client, int]:
    client = Client(protocol)
    ref = client.request("POST", "/", EXPECT, content, **more)
    if protocol == "h2":
        assert wire.kinds(client.take()) == [(wire.HEADERS, ref)]
    else:
        assert client.take().endswith(b"expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(content))
    assert core.snapshot(client.conn, 0.0).requests[0].waits_for == "100 (Continue)"
    return client, ref


def whole(protocol: str, ref: int, content: bytes) -> bytes:
    return wire.data_frame(ref, content, end=True) if protocol == "h2" else content


@pytest.mark.parametrize("protocol", ["h2", "http/1.1"])
@pytest.mark.rfc("9110-10.1.1-2")
def test_content_waits_for_100(protocol: str) -> None:
    client, ref = expecting(protocol)
    assert client.receive(interim(protocol, ref, 103)) == [InterimReceived(ref, 103, ())]
    assert client.take() == b""
    assert client.receive(interim(protocol, ref, 100))[0] == InterimReceived(ref, 100, ())
    assert client.take() == whole(protocol, ref, b"hello")
    assert client.receive(interim(protocol, ref, 100)) == [InterimReceived(ref, 100, ())]
    assert client.take() == b""


@pytest.mark.parametrize("protocol", ["h2", "http/1.1"])
@pytest.mark.rfc("9110-10.1.1-3")
def test_content_does_not_wait_forever(protocol: str) -> None:
    """ "A client that sends a 100-continue expectation is not required to wait for any specific length of time"."""
    client, ref = expecting(protocol, clocks=core.Clocks(expect=2.0))
    assert core.next_timeout(client.conn) == 2.0
    assert client.pass_time(1.99) == []
    assert client.take() == b""
    assert client.pass_time(2.0) == []
    assert client.take() == whole(protocol, ref, b"hello")
    client.conn, _, _ = core.flush(client.conn, 2.0)
    assert core.next_timeout(client.conn) <= 62.0


@pytest.mark.parametrize("protocol", ["h2", "http/1.1"])
def test_without_a_limit_on_it_the_head_is_waited_for(protocol: str) -> None:
    client, ref = expecting(protocol, clocks=core.Clocks(expect=None, head=5.0))
    (failed, *_) = client.pass_time(5.0)
    assert isinstance(failed, RequestFailed) and failed.failure.kind == "ReadTimeout"
    assert "no response head for 5.00 s" in failed.failure.message


@pytest.mark.fault("G1")
@pytest.mark.parametrize("protocol", ["h2", "http/1.1"])
def test_a_final_answer_instead_of_100(protocol: str) -> None:
    """The content is not sent; over HTTP/1.1 it is still owed, and so the connection ends."""
    client, ref = expecting(protocol)
    if protocol == "h2":
        head = wire.headers_frame(ref, wire.literal(b":status", b"417"))
        rest = wire.data_frame(ref, b"no", end=True)
    else:
        head, rest = b"HTTP/1.1 417 No\r\nContent-Length: 2\r\n\r\n", b"no"
    (answer,) = client.receive(head)
    assert isinstance(answer, ResponseReceived) and answer.status == 417
    assert core.queued(client.conn, ref) == 0
    assert client.receive(rest)[:2] == [DataReceived(ref, b"no"), ResponseEnded(ref)]
    assert client.take() == (wire.rst_stream(ref, wire.CANCEL) if protocol == "h2" else b"")
    assert core.is_closed(client.conn) == (protocol == "http/1.1")


def test_content_that_is_left_open_waits_for_100_too() -> None:
    client = Client("http/1.1")
    ref = client.request("POST", "/", EXPECT, end=False)
    assert client.take().endswith(b"Transfer-Encoding: chunked\r\n\r\n")
    client.send(ref, b"ab")
    client.send(ref, b"", trailers=((b"x", b"y"),))
    assert client.take() == b""
    client.receive(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert client.take() == b"2\r\nab\r\n0\r\nx: y\r\n\r\n"


def test_more_content_after_a_refusal_over_http1_is_dropped() -> None:
    client = Client("http/1.1")
    ref = client.request("POST", "/", EXPECT, end=False)
    client.take()
    client.receive(b"HTTP/1.1 401 No\r\nContent-Length: 2\r\n\r\nn")
    client.send(ref, b"ab")
    assert (client.take(), core.queued(client.conn, ref)) == (b"", 0)
    assert client.receive(b"o")[-1] == ConnectionClosed(None)


@pytest.mark.parametrize("protocol", ["h2", "http/1.1"])
@pytest.mark.parametrize("content", [None, b""])
@pytest.mark.rfc("9110-10.1.1-1")
def test_an_expectation_without_content(protocol: str, content: bytes | None) -> None:
    """ "A client MUST NOT generate a 100-continue expectation in a request that does not include content"."""
    with pytest.raises(LocalProtocolError, match="without content"):
        Client(protocol).request("POST", "/", EXPECT, content)


@pytest.mark.parametrize("protocol", ["h2", "http/1.1"])
def test_another_expectation_holds_nothing_back(protocol: str) -> None:
    client = Client(protocol)
    client.request("POST", "/", ((b"expect", b"200-ok"),), b"hello")
    assert client.take().endswith(b"hello")


# Clocks


def answered(protocol: str, ref: int) -> bytes:
    return wire.headers_frame(ref, b"\x88") if protocol == "h2" else b"HTTP/1.1 200 OK\r\n\r\n"


@pytest.mark.parametrize("protocol", ["h2", "http/1.1"])
def test_a_tunnel_has_no_silence_but_a_head_and_a_total(protocol: str) -> None:
    """ "a CONNECT's 2xx or a 101 ends `head` and `idle`"."""
    client = Client(protocol)
    ref = client.request("CONNECT", "b.test:22", end=False, deadline=9000.0)
    assert core.next_timeout(client.conn) == 60.0
    client.receive(answered(protocol, ref))
    assert client.pass_time(60.0) == []
    assert core.next_timeout(client.conn) == 9000.0
    (failed, *_) = client.pass_time(9000.0)
    assert isinstance(failed, RequestFailed) and failed.failure.kind == "DeadlineExceeded"


@pytest.mark.parametrize("protocol", ["h2", "http/1.1"])
@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [(False, "ReadTimeout", "no response head"), (True, "ReadTimeout", "wait unread")],
)
def test_the_clocks_of_a_tunnel(protocol: str, answer: bool, kind: str, words: str) -> None:
    client = Client(protocol)
    ref = client.request("CONNECT", "b.test:22", end=False)
    if answer:
        client.receive(answered(protocol, ref))
        client.receive(wire.data_frame(ref, b"x") if protocol == "h2" else b"x")
    events = client.pass_time(60.0)
    if answer:
        assert events == []
        events = client.pass_time(600.0)
    (failed, *_) = events
    assert isinstance(failed, RequestFailed) and failed.failure.kind == kind
    assert words in failed.failure.message


def test_what_a_tunnel_does_not_take_runs_into_the_write_clock() -> None:
    client = Client("h2", (wire.INITIAL_WINDOW_SIZE, 1))
    ref = client.request("CONNECT", "b.test:22", end=False)
    client.receive(wire.headers_frame(ref, b"\x88"))
    client.send(ref, b"ab")
    (failed,) = client.pass_time(60.0)
    assert isinstance(failed, RequestFailed) and failed.failure.kind == "WriteTimeout"


def test_trailers_and_interim_heads_keep_their_order_around_a_tunnel() -> None:
    """An extended CONNECT that is refused may have trailers like any response."""
    client = Client("h2", (8, 1))
    ref = client.request("CONNECT", "/", end=False, protocol="websocket")
    client.receive(wire.headers_frame(ref, wire.literal(b":status", b"501")))
    events = client.receive(wire.headers_frame(ref, wire.literal(b"x", b"y"), end=True))
    assert events == [TrailersReceived(ref, ((b"x", b"y"),)), ResponseEnded(ref)]
    assert core.next_timeout(client.conn) == INFINITY or core.in_flight(client.conn) == 0


def test_the_end_of_another_response_does_not_forget_an_upgrade() -> None:
    """What goes behind a request for another protocol would be read as that protocol."""
    client = Client("http/1.1", settings=core.Settings(pipeline=5))
    client.request("GET", "/")
    client.request("GET", "/chat", UPGRADE)
    client.receive(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert core.capacity(client.conn) == 0
