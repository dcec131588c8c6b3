"""What is no HTTP any more, and what waits for a word of the peer: CONNECT, extended CONNECT, Upgrade, Expect.

RFC 9110 §7.8, §9.3.6, §10.1.1, RFC 9112 §6.3, RFC 9113 §8.5 and RFC 8441, through the public verbs; the peer is made by hand.
"""

from typing import Final

import pytest
from hpack import Decoder

from calamint import core
from calamint.core.errors import LocalProtocolError
from calamint.core.value import Fields
from tests.core import http2_peer as wire

PROXY: Final = core.Origin("http", "proxy.test", 8080)
SERVER: Final = core.Origin("https", "a.test", 443)
OK: Final = b"\x88"  # `:status: 200` by its static index
ESTABLISHED: Final = b"HTTP/1.1 200 Connection established\r\n\r\n"
UPGRADE: Final[Fields] = ((b"connection", b"Upgrade"), (b"upgrade", b"websocket"))
EXPECT: Final[Fields] = ((b"expect", b"100-continue"),)
both = pytest.mark.parametrize("protocol", ["h2", "http/1.1"])


def connect(protocol: str, *pairs: wire.Setting, origin: core.Origin = PROXY) -> core.Connection:
    """A connection; over HTTP/2 each has the other's SETTINGS."""
    conn, _ = core.connect(protocol, origin)
    if protocol == "h2":
        conn, _, _ = core.receive(conn, wire.settings(*pairs) + wire.settings_ack(), 0.0)
    return conn


def tunnel(protocol: str, end: bool = False) -> core.Connection:
    """A connection with a tunnel: request 1."""
    conn, _, _ = core.request(connect(protocol), "CONNECT", "b.test:443", (), None, 0.0, end=end)
    conn, _, events = core.receive(conn, wire.headers_frame(1, OK) if protocol == "h2" else ESTABLISHED, 1.0)
    assert [type(event) for event in events] == [core.ResponseReceived, core.Upgraded]
    return conn


def section(data: bytes) -> list[wire.Pair]:
    """The fields of the first HEADERS of an output, by the `hpack` package."""
    item = wire.parse(data)[0]
    assert (item.kind, item.flags & wire.END_HEADERS) == (wire.HEADERS, wire.END_HEADERS)
    return [(bytes(name), bytes(value)) for name, value in Decoder().decode(item.payload, raw=True)]


def content(events: list[core.Event]) -> bytes:
    return b"".join([event.data for event in events if isinstance(event, core.DataReceived)])


# CONNECT: the request


@pytest.mark.rfc("9113-8.5-1", "9113-8.5-2")
@pytest.mark.parametrize("fields", [(), ((b"Host", b"b.test:443"),)])
def test_connect_on_http2_has_no_scheme_and_no_path(fields: Fields) -> None:
    _, data, ref = core.request(connect("h2"), "CONNECT", "b.test:443", fields, None, 0.0, end=False)
    assert section(data) == [(b":method", b"CONNECT"), (b":authority", b"b.test:443")]
    assert [(item.kind, item.flags, item.ref) for item in wire.parse(data)] == [(wire.HEADERS, wire.END_HEADERS, ref)]


@pytest.mark.rfc("9112-3.2.3-1", "9112-3.2-3", "9110-9.3.6-3")
def test_connect_on_http1_is_its_target_and_host() -> None:
    _, data, _ = core.request(connect("http/1.1"), "CONNECT", "[::1]:443", (), None, 0.0, end=False)
    assert data == b"CONNECT [::1]:443 HTTP/1.1\r\nHost: [::1]:443\r\n\r\n"


@pytest.mark.rfc("9110-9.3.6-1", "9112-3.2.3-1")
@both
@pytest.mark.parametrize(
    "target", ["b.test", "b.test:", "https://b.test:443", "b.test:443/", "/", "*", "u@b.test:443", ""]
)
def test_the_target_of_connect_is_a_host_and_a_port(protocol: str, target: str) -> None:
    """RFC 9110 §9.3.6: "a client MUST send the port number even if" the URI leaves it out."""
    with pytest.raises(LocalProtocolError):
        core.request(connect(protocol), "CONNECT", target, (), None, 0.0, end=False)


@pytest.mark.rfc("9113-8.3.1-2", "9112-3.2-3")
@both
def test_connect_has_the_host_of_its_target(protocol: str) -> None:
    with pytest.raises(LocalProtocolError, match="host .* is not the target"):
        core.request(connect(protocol), "CONNECT", "b.test:443", ((b"host", b"c.test"),), None, 0.0, end=False)


@pytest.mark.rfc("9110-9.3.6-3")
@both
@pytest.mark.parametrize(
    ("fields", "data"), [((), b"x"), ((), b""), (((b"content-length", b"0"),), None), (EXPECT, None)]
)
def test_connect_has_no_content(protocol: str, fields: Fields, data: bytes | None) -> None:
    with pytest.raises(LocalProtocolError, match="CONNECT has no content"):
        core.request(connect(protocol), "CONNECT", "b.test:443", fields, data, 0.0, end=False)


# CONNECT: the tunnel


@pytest.mark.rfc("9110-9.3.6-3", "9110-6.4.1-2", "9113-8.5-3")
@both
def test_what_is_given_before_the_tunnel_is_made_goes_through_it(protocol: str) -> None:
    conn, _, ref = core.request(connect(protocol), "CONNECT", "b.test:443", (), None, 0.0, end=False)
    conn, out = core.send_data(conn, ref, b"hello", 0.5)
    assert out == b""
    head = wire.headers_frame(1, OK) if protocol == "h2" else ESTABLISHED
    conn, out, events = core.receive(conn, head, 1.0)
    assert out == (wire.data_frame(1, b"hello") if protocol == "h2" else b"hello")
    assert core.Upgraded(ref) in events
    conn, out = core.send_data(conn, ref, b"more", 1.5, end=True)
    assert out == (wire.data_frame(1, b"more", end=True) if protocol == "h2" else b"more")


@pytest.mark.rfc("9110-6.4.1-2", "9112-6.3-2")
def test_what_follows_the_head_on_http1_is_the_tunnel() -> None:
    """RFC 9112 §6.3: "a tunnel immediately after the empty line", also where that comes in the same read."""
    conn, _, ref = core.request(connect("http/1.1"), "CONNECT", "b.test:443", (), None, 0.0, end=False)
    conn, _, events = core.receive(conn, ESTABLISHED + b"HTTP/1.1 500 no head\r\n\r\n", 1.0)
    assert [type(event) for event in events] == [core.ResponseReceived, core.Upgraded, core.DataReceived]
    assert content(events) == b"HTTP/1.1 500 no head\r\n\r\n"
    conn, events = core.closed(conn, 2.0, clean=True)
    assert events == [core.ResponseEnded(ref), core.ConnectionClosed(None)]


FRAMING: Final = {
    "length": (b"content-length: 2",),
    "chunked": (b"transfer-encoding: chunked",),
    "both": (b"content-length: 2", b"transfer-encoding: chunked"),
    "no length": (b"content-length: two",),
    "two lengths": (b"content-length: 2", b"content-length: 3"),
    "no coding": (b"transfer-encoding: ,",),
}


@pytest.mark.rfc("9112-6.3-2", "9110-9.3.6-2")
@pytest.mark.parametrize("name", FRAMING)
def test_the_framing_of_a_2xx_to_connect_is_ignored_on_http1(name: str) -> None:
    """RFC 9112 §6.3: "A client MUST ignore any Content-Length or Transfer-Encoding header fields received in such a message"."""
    lines = FRAMING[name]
    conn, _, _ = core.request(connect("http/1.1"), "CONNECT", "b.test:443", (), None, 0.0, end=False)
    head = b"HTTP/1.1 200 OK\r\n" + b"".join([line + b"\r\n" for line in lines]) + b"\r\n"
    conn, _, events = core.receive(conn, head + b"hello", 1.0)
    assert [type(event) for event in events] == [core.ResponseReceived, core.Upgraded, core.DataReceived]
    assert content(events) == b"hello"
    assert not core.is_closed(conn)


@pytest.mark.rfc("9110-9.3.6-2")
@pytest.mark.parametrize(
    "value",
    [
        b"2",
        b"two",
    ],
)
def test_the_length_of_a_2xx_to_connect_is_ignored_on_http2(value: bytes) -> None:
    conn, _, _ = core.request(connect("h2"), "CONNECT", "b.test:443", (), None, 0.0, end=False)
    head = wire.headers_frame(1, wire.literals((b":status", b"200"), (b"content-length", value)))
    conn, out, events = core.receive(conn, head + wire.data_frame(1, b"hello"), 1.0)
    assert (out, content(events)) == (b"", b"hello")
    conn, _, events = core.receive(conn, wire.data_frame(1, b"!", end=True), 2.0)
    assert events == [core.DataReceived(1, b"!"), core.ResponseEnded(1)]


@pytest.mark.rfc("9110-9.3.6-4")
@both
def test_another_answer_makes_no_tunnel(protocol: str) -> None:
    """RFC 9110 §9.3.6: "Any response other than a successful response indicates that the tunnel has not yet been formed"."""
    conn, _, ref = core.request(connect(protocol), "CONNECT", "b.test:443", (), None, 0.0, end=False)
    conn, _ = core.send_data(conn, ref, b"secret", 0.5)
    if protocol == "h2":
        head = wire.headers_frame(1, wire.literals((b":status", b"407"), (b"content-length", b"2")))
        conn, out, events = core.receive(conn, head + wire.data_frame(1, b"no", end=True), 1.0)
        assert wire.kinds(out) == [(wire.RST_STREAM, 1)], "our side of the stream was open"
    else:
        conn, out, events = core.receive(conn, b"HTTP/1.1 407 x\r\nContent-Length: 2\r\n\r\nno", 1.0)
        assert out == b""
    assert b"secret" not in out
    assert [type(event) for event in events] == [core.ResponseReceived, core.DataReceived, core.ResponseEnded]
    assert content(events) == b"no"
    assert not core.is_closed(conn)


@pytest.mark.rfc("9113-8.5-4")
@pytest.mark.parametrize(
    "data",
    [
        wire.headers_frame(1, wire.literal(b"x", b"y"), end=True),
        wire.headers_frame(1, wire.literal(b"x", b"y")),
        wire.headers_frame(1, OK),
        wire.headers_frame(1, wire.literal(b":status", b"103")),
    ],
    ids=["trailers", "fields", "a second head", "an interim head"],
)
def test_a_tunnel_has_no_fields(data: bytes) -> None:
    """RFC 9113 §8.5: other frames "MUST be treated as a stream error … if received"."""
    for end in (False, True):
        conn, out, events = core.receive(tunnel("h2", end), data, 2.0)
        assert out == wire.rst_stream(1, wire.PROTOCOL_ERROR)
        assert [type(event) for event in events] == [core.RequestFailed]
        assert not core.is_closed(conn)


@pytest.mark.rfc("9113-8.5-4")
def test_a_tunnel_has_no_pushes() -> None:
    """RFC 9113 §8.5: frames other than DATA and stream management are a stream error on a connected stream."""
    conn, _ = core.connect("h2", SERVER, core.Settings(max_pushes=1))
    conn, _, _ = core.receive(conn, wire.settings() + wire.settings_ack(), 0.0)
    conn, _, ref = core.request(conn, "CONNECT", "b.test:443", (), None, 0.0, end=False)
    conn, _, _ = core.receive(conn, wire.headers_frame(1, OK), 1.0)
    block = wire.literals((b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"a.test"), (b":path", b"/"))
    conn, out, events = core.receive(conn, wire.push_promise(ref, 2, block), 2.0)
    assert wire.rst_stream(ref, wire.PROTOCOL_ERROR) in out
    assert core.RequestFailed in [type(event) for event in events]


@pytest.mark.rfc("9113-8.5-3")
@both
def test_nothing_but_data_goes_into_a_tunnel(protocol: str) -> None:
    with pytest.raises(LocalProtocolError):
        core.send_data(tunnel(protocol), 1, b"x", 2.0, trailers=((b"x", b"y"),))


@pytest.mark.rfc("9113-8.5-5")
def test_a_tunnel_that_the_peer_ends_is_ended() -> None:
    """RFC 9113 §8.5: "A client is expected to send a DATA frame with the END_STREAM flag set after receiving" one."""
    conn, out, events = core.receive(tunnel("h2"), wire.data_frame(1, b"bye", end=True), 2.0)
    assert out == wire.data_frame(1, end=True)
    assert events == [core.DataReceived(1, b"bye"), core.ResponseEnded(1)]
    assert core.in_flight(conn) == 0
    conn, out, events = core.receive(tunnel("h2", end=True), wire.data_frame(1, b"bye", end=True), 2.0)
    assert (out, events) == (b"", [core.DataReceived(1, b"bye"), core.ResponseEnded(1)]), "ours had ended before"


@pytest.mark.rfc("8441-5-4")
def test_a_tunnel_that_is_given_up_is_reset_with_cancel() -> None:
    conn, out, _ = core.cancel(tunnel("h2"), 1, 2.0)
    assert wire.parse(out)[0] == wire.parse(wire.rst_stream(1, wire.CANCEL))[0]
    assert core.in_flight(conn) == 0


@pytest.mark.rfc("9113-5.2.1-1", "9113-6.9.1-1")
def test_windows_hold_in_a_tunnel() -> None:
    """RFC 9113 §8.5: it is a stream like any other; §6.9.1."""
    conn = connect("h2", (wire.INITIAL_WINDOW_SIZE, 3))
    conn, _, ref = core.request(conn, "CONNECT", "b.test:443", (), None, 0.0, end=False)
    conn, _, _ = core.receive(conn, wire.headers_frame(1, OK), 1.0)
    conn, out = core.send_data(conn, ref, b"hello", 1.0)
    assert out == wire.data_frame(1, b"hel")
    conn, out, _ = core.receive(conn, wire.window_update(1, 5), 2.0)
    assert out == wire.data_frame(1, b"lo")


# Extended CONNECT: RFC 8441


@pytest.mark.rfc("8441-4-1", "8441-4-2", "8441-5-1", "8441-5-2", "9113-5.5-4")
@pytest.mark.parametrize("scheme", ["https", "http"])
def test_the_extended_connect(scheme: str) -> None:
    """RFC 8441 §4: with scheme, path and the origin as authority."""
    conn = connect("h2", (8, 1), origin=core.Origin(scheme, "a.test", 8000))
    fields = ((b"sec-websocket-version", b"13"),)
    conn, data, ref = core.request(conn, "CONNECT", "/chat?a", fields, None, 0.0, end=False, protocol="websocket")
    expected = {
        *((b":method", b"CONNECT"), (b":protocol", b"websocket"), (b":scheme", scheme.encode())),
        *((b":authority", b"a.test:8000"), (b":path", b"/chat?a")),
    }
    seen = section(data)
    assert set(seen[:5]) == expected
    assert seen[5:] == list(fields)
    conn, out, events = core.receive(conn, wire.headers_frame(1, OK), 1.0)
    assert events == [core.ResponseReceived(ref, 200, ()), core.Upgraded(ref)]
    conn, out = core.send_data(conn, ref, b"frame", 2.0, end=True)
    assert out == wire.data_frame(1, b"frame", end=True)


@pytest.mark.rfc("8441-3-3", "9113-5.5-4")
def test_the_extended_connect_waits_for_the_peers_word() -> None:
    """RFC 8441 §3: "Upon receipt of SETTINGS_ENABLE_CONNECT_PROTOCOL with a value of 1, a client MAY use" it."""
    unsaid, _ = core.connect("h2", SERVER)
    for conn in (unsaid, connect("h2"), connect("h2", (8, 0)), connect("http/1.1")):
        with pytest.raises(LocalProtocolError, match="extended CONNECT"):
            core.request(conn, "CONNECT", "/chat", (), None, 0.0, end=False, protocol="websocket")


@pytest.mark.rfc("8441-3-1", "8441-3-2")
@pytest.mark.parametrize("values", [(2,), (2**32 - 1,), (1, 0), (0, 1, 0)])
def test_values_that_the_peer_may_not_say(values: tuple[int, ...]) -> None:
    """RFC 8441 §3: "MUST be 0 or 1"; "MUST NOT send … 0 after previously sending a value of 1"."""
    conn = connect("h2")
    for value in values:
        conn, out, _ = core.receive(conn, wire.settings((8, value)), 1.0)
    assert out == wire.goaway(0, wire.PROTOCOL_ERROR)
    assert core.is_closed(conn)


@pytest.mark.rfc("8441-5-3", "9113-8.2.2-1")
@pytest.mark.parametrize("field", UPGRADE)
def test_the_extended_connect_has_no_upgrade(field: wire.Pair) -> None:
    with pytest.raises(LocalProtocolError, match="has no meaning in HTTP/2"):
        core.request(connect("h2", (8, 1)), "CONNECT", "/", (field,), None, 0.0, end=False, protocol="websocket")


# Upgrade: RFC 9110 §7.8


@pytest.mark.rfc("9110-7.8-1", "9110-7.8-2")
def test_an_upgrade_and_what_comes_after_it() -> None:
    conn, data, ref = core.request(connect("http/1.1"), "GET", "/chat", UPGRADE, None, 0.0)
    assert data == b"GET /chat HTTP/1.1\r\nHost: proxy.test:8080\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n"
    with pytest.raises(LocalProtocolError):
        core.send_data(conn, ref, b"too early", 0.5)
    conn, out, events = core.receive(conn, b"HTTP/1.1 101 x\r\nUpgrade: websocket\r\n\r\n\x81\x02hi", 1.0)
    assert events == [
        core.ResponseReceived(ref, 101, ((b"upgrade", b"websocket"),), b"x"),
        core.Upgraded(ref),
        core.DataReceived(ref, b"\x81\x02hi"),
    ]
    conn, out = core.send_data(conn, ref, b"\x81\x02yo", 2.0)
    assert out == b"\x81\x02yo"


@pytest.mark.rfc("9110-7.8-1", "9112-7.4-2")
@pytest.mark.parametrize("name", [b"upgrade", b"TE"])
@pytest.mark.parametrize("options", [(), ((b"connection", b"close"),), ((b"connection", b"upgrades, tea"),)])
def test_what_concerns_one_hop_is_named_in_connection(name: bytes, options: Fields) -> None:
    """RFC 9110 §7.8: "A sender of Upgrade MUST also send an 'Upgrade' connection option"; RFC 9112 §7.4 likewise for TE,
    where it is added, since over HTTP/2 it may not stand and so a caller cannot always say it."""
    if name == b"TE":
        head = core.request(connect("http/1.1"), "GET", "/", ((name, b"trailers"), *options), None, 0.0)[1]
        assert head.endswith(b"\r\nConnection: TE\r\n\r\n")
    else:
        with pytest.raises(LocalProtocolError, match="in connection"):
            core.request(connect("http/1.1"), "GET", "/", ((name, b"trailers"), *options), None, 0.0)
    fields = ((name, b"trailers"), *options, (b"Connection", b"x, " + name.upper()))
    assert core.request(connect("http/1.1"), "GET", "/", fields, None, 0.0)[1].count(name + b": trailers") == 1


@pytest.mark.rfc("9110-7.8-2")
def test_an_upgrade_does_not_begin_in_the_middle_of_a_request() -> None:
    with pytest.raises(LocalProtocolError, match="complete"):
        core.request(connect("http/1.1"), "POST", "/", UPGRADE, b"begun", 0.0, end=False)
    conn, data, ref = core.request(connect("http/1.1"), "POST", "/", UPGRADE, b"all", 0.0)
    assert data.endswith(b"\r\n\r\nall")
    conn, _, events = core.receive(conn, b"HTTP/1.1 101 x\r\n\r\n", 1.0)
    assert core.send_data(conn, ref, b"new", 2.0)[1] == b"new"


@pytest.mark.rfc("9113-8.6-1")
def test_101_is_no_response_of_http2() -> None:
    """RFC 9113 §8.6: "HTTP/2 does not support the 101 (Switching Protocols) informational status code"."""
    conn, _, ref = core.request(connect("h2"), "GET", "/", (), None, 0.0)
    conn, out, events = core.receive(conn, wire.headers_frame(1, wire.literal(b":status", b"101")), 1.0)
    assert out == wire.rst_stream(1, wire.PROTOCOL_ERROR)
    assert [type(event) for event in events] == [core.RequestFailed]


@pytest.mark.rfc("9110-7.8-2")
def test_101_that_nobody_asked_for_ends_the_connection() -> None:
    conn, _, _ = core.request(connect("http/1.1"), "GET", "/", (), None, 0.0)
    conn, _, events = core.receive(conn, b"HTTP/1.1 101 x\r\nUpgrade: x\r\n\r\n", 1.0)
    assert core.is_closed(conn)
    assert core.Upgraded not in [type(event) for event in events]


# Expect: RFC 9110 §10.1.1


def interim(protocol: str, status: int) -> bytes:
    if protocol == "h2":
        return wire.headers_frame(1, wire.literal(b":status", b"%d" % status))
    return b"HTTP/1.1 %d x\r\n\r\n" % status


@pytest.mark.rfc("9110-10.1.1-2")
@both
@pytest.mark.parametrize("end", [True, False])
def test_content_waits_for_100_where_the_request_says_so(protocol: str, end: bool) -> None:
    conn, data, ref = core.request(connect(protocol), "PUT", "/", EXPECT, b"hello", 0.0, end=end)
    assert b"hello" not in data
    if protocol == "h2":
        assert (b"expect", b"100-continue") in section(data)
        assert not wire.parse(data)[0].flags & wire.END_STREAM
    else:
        assert b"expect: 100-continue\r\n" in data
    conn, out, _ = core.receive(conn, interim(protocol, 103), 0.5)
    assert out == b"", "another interim response says nothing"
    conn, out, events = core.receive(conn, interim(protocol, 100), 0.6)
    assert b"hello" in out
    assert events[0] == core.InterimReceived(ref, 100, ())
    without, data, _ = core.request(connect(protocol), "PUT", "/", (), b"hello", 0.0, end=end)
    assert b"hello" in data, "whoever waits says so"


@pytest.mark.rfc("9110-10.1.1-3")
@both
def test_content_does_not_wait_for_ever(protocol: str) -> None:
    """RFC 9110 §10.1.1: "SHOULD NOT wait for an indefinite period"; one second by default."""
    conn, _, _ = core.request(connect(protocol), "PUT", "/", EXPECT, b"hello", 5.0)
    assert core.next_timeout(conn) == 6.0
    conn, out, events = core.handle_timeout(conn, 6.0)
    assert b"hello" in out
    assert core.RequestFailed not in [type(event) for event in events]


@pytest.mark.rfc("9110-10.1.1-1")
@both
@pytest.mark.parametrize("data", [None, b""])
@pytest.mark.parametrize("value", [b"100-continue", b"100-Continue"])
def test_nothing_is_expected_without_content(protocol: str, data: bytes | None, value: bytes) -> None:
    """RFC 9110 §10.1.1: "MUST NOT generate a 100-continue expectation in a request that does not include content"."""
    with pytest.raises(LocalProtocolError, match="expect"):
        core.request(connect(protocol), "PUT", "/", ((b"Expect", value),), data, 0.0)


@both
def test_content_that_is_refused_is_not_sent(protocol: str) -> None:
    """RFC 9110 §10.1.1: a final status instead of 100; the rest is dropped, and HTTP/1.1 cannot go on after that."""
    conn, _, ref = core.request(connect(protocol), "PUT", "/", EXPECT, b"hello", 0.0)
    if protocol == "h2":
        answer = wire.headers_frame(1, wire.literal(b":status", b"417"), end=True)
    else:
        answer = b"HTTP/1.1 417 x\r\nContent-Length: 0\r\n\r\n"
    conn, out, events = core.receive(conn, answer, 0.5)
    assert b"hello" not in out
    assert core.ResponseEnded(ref) in events
    assert core.is_closed(conn) == (protocol == "http/1.1")
    if protocol == "h2":
        assert wire.kinds(out) == [(wire.RST_STREAM, 1)]
