"""CONNECT, extended CONNECT and Upgrade against real servers, with the verbs over a socket."""

import time

import pytest
from wsproto.connection import Connection as WebSocket
from wsproto.connection import ConnectionState, ConnectionType
from wsproto.events import CloseConnection, TextMessage

from calamint import core
from calamint.core.value import Fields
from tests.net.live import FULL, Loop, Way, ways

pytestmark = pytest.mark.server

# The key and its answer are those of RFC 6455 §1.3.
KEY, ACCEPT = b"dGhlIHNhbXBsZSBub25jZQ==", b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
VERSION = (b"sec-websocket-version", b"13")
WEBSOCKET: Fields = ((b"connection", b"upgrade"), (b"upgrade", b"websocket"), (b"sec-websocket-key", KEY), VERSION)
ECHO: Fields = ((b"connection", b"upgrade"), (b"upgrade", b"echo"))
TUNNELS = ways(["node", "haproxy"])
# h2o 2.2, nginx and nghttpd do not have RFC 8441.
EXTENDED = ways(["node", "haproxy", "apache", "hypercorn"], "h2")


def chat(loop: Loop, ref: int) -> None:
    """Two messages there and back, then the closing handshake, all by wsproto."""
    websocket = WebSocket(ConnectionType.CLIENT)
    for text in ("hello", "x" * 100):
        before = len(loop.received(ref))
        loop.send(ref, websocket.send(TextMessage(data=text)))
        websocket.receive_data(loop.content(ref, before + 2 + len(text))[before:])
        assert [event.data for event in websocket.events() if isinstance(event, TextMessage)] == [text]
    before = len(loop.received(ref))
    loop.send(ref, websocket.send(CloseConnection(code=1000)))
    websocket.receive_data(loop.content(ref, before + 4)[before:])
    assert [event.code for event in websocket.events() if isinstance(event, CloseConnection)] == [1000]
    assert websocket.state is ConnectionState.CLOSED


@pytest.mark.parametrize("way", TUNNELS, indirect=True, ids="-".join)
def test_connect(way: Way) -> None:
    """A tunnel: what goes in, before and after the answer, comes back (RFC 9110 §9.3.6, RFC 9113 §8.5)."""
    with way.loop() as loop:
        ref = loop.request("CONNECT", "echo:1", end=False)
        loop.send(ref, b"early ")
        assert loop.until(core.ResponseReceived, ref).status == 200
        loop.until(core.Upgraded, ref)
        loop.send(ref, b"hello")
        assert loop.content(ref, 11) == b"early hello"
        loop.send(ref, bytes(100_000))
        assert len(loop.content(ref, 100_011)) == 100_011


@pytest.mark.parametrize("way", TUNNELS, indirect=True, ids="-".join)
def test_much_through_a_tunnel(way: Way) -> None:
    """8 MiB there and back, through `calamint.connect`: no more of it waits than windows and budgets allow."""
    piece, count = bytes(range(256)) * 256, 128
    with way.dial() as connection:
        ref = connection.request("CONNECT", "echo:1", end=False)
        received = bytearray()

        def take(timeout: float) -> None:
            for event in connection.receive(timeout):
                assert not isinstance(event, core.RequestFailed | core.ResponseEnded), event
                received.extend(event.data if isinstance(event, core.DataReceived) else b"")

        for _ in range(count):
            assert connection.send_data(ref, piece)
            take(0)
        while len(received) < len(piece) * count:
            take(20)
        assert received == piece * count
        connection.cancel(ref)
        assert connection.is_closed == (way.protocol == "http/1.1")


@pytest.mark.parametrize("way", TUNNELS, indirect=True, ids="-".join)
def test_deadline_of_a_tunnel(way: Way) -> None:
    """It is the whole request's, a tunnel's too; the clocks for silence are not (RFC 9110 §9.3.6)."""
    with way.dial() as connection:
        clocks = core.Clocks(head=0.1, idle=0.1)
        ref = connection.request("CONNECT", "echo:1", end=False, timeout=0.5, clocks=clocks)
        events = list(connection.events())
        assert core.Upgraded(ref) in events
        failures = [event.failure.kind for event in events if isinstance(event, core.RequestFailed)]
        assert failures == ["DeadlineExceeded"]


@pytest.mark.parametrize("way", ways(["node", "haproxy"], "h2"), indirect=True, ids="-".join)
def test_connect_ends_on_both_sides(way: Way) -> None:
    """END_STREAM goes through, and comes back; the connection goes on."""
    with way.loop() as loop:
        ref = loop.request("CONNECT", "echo:1", end=False)
        loop.until(core.Upgraded, ref)
        loop.send(ref, b"bye", end=True)
        loop.until(core.ResponseEnded, ref)
        assert loop.received(ref) == b"bye"
        assert loop.until(core.ResponseReceived, loop.request("GET", "/small")).status == 200


@pytest.mark.parametrize("way", TUNNELS, indirect=True, ids="-".join)
def test_peer_ends_the_tunnel(way: Way) -> None:
    """What it said before arrives, and then the request is over, in order."""
    with way.dial() as connection:
        ref = connection.request("CONNECT", "bye:1", end=False, timeout=20)
        events = list(connection.events())
        assert b"".join([event.data for event in events if isinstance(event, core.DataReceived)]) == b"bye"
        assert core.ResponseEnded(ref) in events
        assert not any(isinstance(event, core.RequestFailed) for event in events)


@pytest.mark.parametrize(
    "way", [(name, "http1", "http/1.1") for name in ("node", "haproxy")], indirect=True, ids="-".join
)
def test_our_end_of_the_tunnel(way: Way) -> None:
    """`end` ends our side of it, which the other side sees: it ends too, instead of waiting for more."""
    with way.dial() as connection:
        ref = connection.request("CONNECT", "echo:1", end=False, timeout=2)
        connection.send_data(ref, b"bye", end=True)
        events = list(connection.events())
        assert b"".join([event.data for event in events if isinstance(event, core.DataReceived)]) == b"bye"
        assert core.ResponseEnded(ref) in events


@pytest.mark.parametrize("way", TUNNELS, indirect=True, ids="-".join)
def test_connect_is_refused(way: Way) -> None:
    """Any other final status is a response like others; what waited for the tunnel is dropped."""
    with way.loop() as loop:
        ref = loop.request("CONNECT", "elsewhere:1", end=False)
        loop.send(ref, b"never sent")
        assert loop.until(core.ResponseReceived, ref).status == 403
        loop.until(core.ResponseEnded, ref)
        assert loop.received(ref) == b"no"
        assert loop.count(core.Upgraded) == 0
        assert not core.is_live(loop.value, ref)


@pytest.mark.parametrize("way", ways(["node"], "http/1.1"), indirect=True, ids="-".join)
def test_upgrade(way: Way) -> None:
    """To a protocol that only these two know (RFC 9110 §7.8)."""
    with way.loop() as loop:
        ref = loop.request("GET", "/", ECHO)
        head = loop.until(core.ResponseReceived, ref)
        assert (head.status, (b"upgrade", b"echo") in head.fields) == (101, True)
        loop.until(core.Upgraded, ref)
        loop.send(ref, b"hello")
        assert loop.content(ref, 5) == b"hello"


@pytest.mark.parametrize("way", ways(FULL, "http/1.1"), indirect=True, ids="-".join)
def test_websocket_by_upgrade(way: Way) -> None:
    """A WebSocket over HTTP/1.1 (RFC 6455 §4), after another request on the same connection."""
    with way.loop() as loop:
        loop.until(core.ResponseEnded, loop.request("GET", "/small"))
        ref = loop.request("GET", "/chat", WEBSOCKET)
        head = loop.until(core.ResponseReceived, ref)
        names = {name.lower(): value for name, value in head.fields}
        assert (head.status, names[b"sec-websocket-accept"]) == (101, ACCEPT)
        loop.until(core.Upgraded, ref)
        chat(loop, ref)
        loop.until(core.ResponseEnded, ref)  # the server closes first (RFC 6455 §7.1.1)
        assert core.is_closed(loop.value)


@pytest.mark.parametrize("way", ways(["nginx", "apache"], "http/1.1"), indirect=True, ids="-".join)
def test_upgrade_is_not_taken(way: Way) -> None:
    """A server may answer as if nothing had been asked, and the connection goes on (RFC 9110 §7.8); h2o ends it."""
    with way.loop() as loop:
        ref = loop.request("GET", "/small", ECHO)
        assert loop.until(core.ResponseReceived, ref).status == 200
        loop.until(core.ResponseEnded, ref)
        assert loop.received(ref) == b"hello"
        assert loop.count(core.Upgraded) == 0
        loop.until(core.ResponseEnded, loop.request("GET", "/small"))


@pytest.mark.parametrize("way", EXTENDED, indirect=True, ids="-".join)
def test_websocket_by_extended_connect(way: Way) -> None:
    """A WebSocket on a stream (RFC 8441 §4), and a request beside it."""
    with way.loop() as loop:
        ref = loop.request("CONNECT", "/chat", (VERSION,), end=False, protocol="websocket")
        assert loop.until(core.ResponseReceived, ref).status == 200
        loop.until(core.Upgraded, ref)
        other = loop.request("GET", "/small")
        chat(loop, ref)
        loop.until(core.ResponseEnded, other)
        assert loop.received(other) == b"hello"


@pytest.mark.parametrize("way", ways(["node", "haproxy"], "h2"), indirect=True, ids="-".join)
def test_websocket_ends_its_stream(way: Way) -> None:
    """After the closing handshake node ends the stream, and its slot is free."""
    with way.loop() as loop:
        ref = loop.request("CONNECT", "/chat", (VERSION,), end=False, protocol="websocket")
        loop.until(core.Upgraded, ref)
        chat(loop, ref)
        loop.until(core.ResponseEnded, ref)
        assert core.in_flight(loop.value) == 0


@pytest.mark.parametrize("way", ways(["apache", "hypercorn"], "h2"), indirect=True, ids="-".join)
def test_websocket_is_cancelled(way: Way) -> None:
    """These leave the stream open after the closing handshake: what ends it is RST_STREAM, and the connection goes on."""
    with way.loop() as loop:
        ref = loop.request("CONNECT", "/chat", (VERSION,), end=False, protocol="websocket")
        loop.until(core.Upgraded, ref)
        chat(loop, ref)
        loop.put(*core.cancel(loop.value, ref, time.monotonic()))
        assert core.in_flight(loop.value) == 0
        other = loop.request("GET", "/small")
        loop.until(core.ResponseEnded, other)
        assert loop.received(other) == b"hello"
