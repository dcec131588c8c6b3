"""The verbs of an HTTP/2 connection: requests, output, windows, clocks; and whole exchanges with `h2` as the server."""

import math
from collections.abc import Callable
from typing import Final

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    PingAckReceived,
    RequestReceived,
    StreamEnded,
    StreamReset,
)
from h2.events import (
    DataReceived as ServerDataReceived,
)
from h2.events import (
    Event as ServerEvent,
)
from h2.events import (
    TrailersReceived as ServerTrailersReceived,
)
from h2.settings import SettingCodes

from calamint.core import http2
from calamint.core.errors import Failure, LocalProtocolError
from calamint.core.events import (
    ConnectionClosed,
    DataReceived,
    Event,
    GoAwayReceived,
    InterimReceived,
    RequestFailed,
    ResponseEnded,
    ResponseReceived,
    TrailersReceived,
    WindowOpened,
)
from calamint.core.exchange import CLOCKS, SETTINGS, Clocks, Settings
from calamint.core.http2_state import CLOSED, HTTP2Connection
from calamint.core.value import INFINITY, Fields
from tests.core import http2_peer as wire
from tests.core.test_http2_state import MANY, ORIGIN, altered, get, live, start

OK: Final = b"\x88"  # `:status: 200` by its static index


def sent(data: bytes) -> list[tuple[int, int]]:
    """The DATA of an output: stream and size of each frame."""
    return [(item.ref, len(item.payload)) for item in wire.parse(data) if item.kind == wire.DATA]


def frames_of(data: bytes) -> list[tuple[int, int, int]]:
    """The type, the flags and the stream of each frame of an output."""
    return [(item.kind, item.flags, item.ref) for item in wire.parse(data)]


# connect


@pytest.mark.rfc("9113-3.4-1", "9113-6.5-1", "9113-6.5-6", "9218-2.1-2")
def test_the_preface_by_default() -> None:
    """RFC 9113 §3.4: the magic octets and "a SETTINGS frame"; §8.4: no push; 9218 §2.1; our connection window (§6.9.2)."""
    conn, data = http2.connect(ORIGIN, SETTINGS, 7.0)
    settings = wire.settings((2, 0), (4, 2_097_152), (6, 65_536), (9, 1))
    assert data == wire.CLIENT_PREFACE + settings + wire.window_update(0, 16_777_216 - 65_535)
    assert (conn.now, conn.written, conn.live, http2.capacity(conn)) == (7.0, len(data), 0, 100)
    assert http2.next_timeout(conn) == INFINITY


@pytest.mark.parametrize(
    ("settings", "pairs"),
    [
        (Settings(header_table_size=4096), ((2, 0), (4, 2_097_152), (6, 65_536), (9, 1))),
        (Settings(header_table_size=0), ((2, 0), (1, 0), (4, 2_097_152), (6, 65_536), (9, 1))),
        (Settings(header_table_size=65_536), ((2, 0), (1, 65_536), (4, 2_097_152), (6, 65_536), (9, 1))),
        (Settings(max_frame_size=16_385), ((2, 0), (4, 2_097_152), (5, 16_385), (6, 65_536), (9, 1))),
        (Settings(max_pushes=7), ((2, 1), (3, 7), (4, 2_097_152), (6, 65_536), (9, 1))),
        (Settings(stream_window=1, max_field_section=2), ((2, 0), (4, 1), (6, 2), (9, 1))),
    ],
)
@pytest.mark.rfc("9113-6.5-2", "9113-6.5.2-7")
def test_the_preface_says_what_differs(settings: Settings, pairs: tuple[wire.Setting, ...]) -> None:
    """§6.5.2."""
    data = http2.connect(ORIGIN, settings, 0.0)[1]
    assert data.startswith(wire.CLIENT_PREFACE + wire.settings(*pairs))
    assert wire.Peer(data).announced == dict(pairs)


@pytest.mark.parametrize(("window", "increment"), [(65_535, 0), (65_536, 1), (2**31 - 1, 2**31 - 65_536)])
@pytest.mark.rfc("9113-5.2.1-2", "9113-6.9.2-4")
def test_the_connections_window_is_announced_where_it_is_larger(window: int, increment: int) -> None:
    """§6.9.2: "the initial value for the connection window is 65,535 octets" and only WINDOW_UPDATE changes it."""
    conn, data = http2.connect(ORIGIN, Settings(connection_window=window), 0.0)
    assert wire.Peer(data).sends[0] == window == conn.recv_window
    assert data.endswith(wire.window_update(0, increment)) == (increment > 0)


# request


def asked(method: str = "GET", target: str = "/", fields: Fields = (), content: bytes | None = None) -> list[wire.Pair]:
    """The field section of a request as the `hpack` package reads it."""
    conn, peer = start()
    peer.take(http2.request(conn, method, target, fields, content, 0.0)[1])
    return list(peer.requests[1].fields)


@pytest.mark.rfc("9113-8.3-3", "9113-8.3-5", "9113-8.3.1-1", "9113-8.3.1-6")
def test_the_control_data_of_a_request() -> None:
    """§8.3.1: ":method", ":scheme", ":path", one each, and ":authority"; §8.3: before all fields."""
    assert asked("PATCH", "/a?b=c", ((b"accept", b"*/*"),)) == [
        *((b":method", b"PATCH"), (b":scheme", b"https"), (b":authority", b"a.test"), (b":path", b"/a?b=c")),
        (b"accept", b"*/*"),
    ]


@pytest.mark.rfc("9113-8.2-1")
def test_names_are_lowered() -> None:
    """§8.2: "Field names MUST be converted to lowercase when constructing an HTTP/2 message"."""
    assert asked(fields=((b"X-Long-Name", b"Value"), (b"TE", b"Trailers")))[4:] == [
        (b"x-long-name", b"Value"),
        (b"te", b"Trailers"),
    ]


@pytest.mark.parametrize("name", [b"host", b"Host"])
@pytest.mark.rfc("9113-8.3.1-2")
def test_host_becomes_the_authority(name: bytes) -> None:
    """§8.3.1: a client "MUST NOT generate a request with a Host header field that differs from the ":authority"."""
    assert asked(fields=((b"a", b"b"), (name, b"other.test:8443"), (b"c", b"d"))) == [
        *((b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"other.test:8443"), (b":path", b"/")),
        *((b"a", b"b"), (b"c", b"d")),
    ]


@pytest.mark.parametrize(
    ("content", "fields", "expected"),
    [
        (None, (), []),
        (b"", (), [(b"content-length", b"0")]),
        (b"hello", (), [(b"content-length", b"5")]),
        (b"hello", ((b"Content-Length", b"5"),), [(b"content-length", b"5")]),
        (None, ((b"content-length", b"0"),), [(b"content-length", b"0")]),
        (b"", ((b"content-length", b"0"),), [(b"content-length", b"0")]),
        (b"x" * 200, (), [(b"content-length", b"200")]),
    ],
)
@pytest.mark.rfc("9110-8.6-1")
def test_the_length_of_content_is_said_where_it_is_known(
    content: bytes | None, fields: Fields, expected: list[wire.Pair]
) -> None:
    """RFC 9110 §8.6: a user agent SHOULD send it; §8.1.1: it equals the sum of the DATA frames."""
    assert asked("POST", "/", fields, content)[4:] == expected
    conn, peer = start()
    for ref in (1, 3, 5, 7):
        conn, data, _ = http2.request(conn, "POST", "/", fields, content, 0.0)
        peer.take(data)
        assert list(peer.requests[ref].fields[4:]) == expected, "however often it recurs"


def test_content_left_open_has_no_length() -> None:
    conn, peer = start()
    peer.take(http2.request(conn, "POST", "/", (), b"begun", 0.0, end=False)[1])
    assert [name for name, _ in peer.requests[1].fields[4:]] == []
    assert not peer.requests[1].ended


@pytest.mark.parametrize(("content", "flags"), [(None, 5), (b"", 5), (b"x", 4)])
@pytest.mark.rfc("9113-8.1-1")
def test_end_stream_is_on_the_head_where_no_content_follows(content: bytes | None, flags: int) -> None:
    """§8.1: "The last frame in the sequence bears an END_STREAM flag"."""
    frames = wire.parse(http2.request(start()[0], "POST", "/", (), content, 0.0)[1])
    assert frames[0].flags == flags
    assert [item.flags & wire.END_STREAM for item in frames] == [0] * (len(frames) - 1) + [1]


@pytest.mark.rfc("9113-5.1.1-1", "9113-5.1.1-2")
def test_streams_are_odd_and_rise() -> None:
    """§5.1.1: from 1; "numerically greater than all streams" opened before."""
    conn, _ = start()
    refs = []
    for _ in range(5):
        conn, data, ref = http2.request(conn, "GET", "/", (), None, 0.0)
        assert wire.kinds(data) == [(wire.HEADERS, ref)]
        refs.append(ref)
    assert refs == [1, 3, 5, 7, 9]


@pytest.mark.parametrize("limit", [16_384, 16_385, 40_000])
@pytest.mark.parametrize("size", [10_000, 16_384, 32_768, 100_000])
@pytest.mark.rfc("9113-4.1-1", "9113-4.3-1", "9113-6.2-2", "9113-6.10-1", "9113-8.1-2")
def test_a_large_head_goes_out_in_frames_that_the_peer_takes(limit: int, size: int) -> None:
    """§4.2, §6.10: HEADERS and CONTINUATION, none above the peer's MAX_FRAME_SIZE; END_HEADERS on the last only."""
    conn, peer = start((wire.MAX_FRAME_SIZE, limit))
    frames = peer.take(http2.request(conn, "GET", "/", ((b"x", b"~" * size),), None, 0.0)[1])
    assert peer.requests[1].fields[-1] == (b"x", b"~" * size)
    assert [item.kind for item in frames] == [wire.HEADERS] + [wire.CONTINUATION] * (len(frames) - 1)
    assert [item.flags & wire.END_HEADERS for item in frames] == [0] * (len(frames) - 1) + [wire.END_HEADERS]
    assert frames[0].flags & wire.END_STREAM
    assert [len(item.payload) for item in frames[:-1]] == [limit] * (len(frames) - 1)
    assert size // limit < len(frames) <= size // limit + 2


@pytest.mark.rfc("9113-4.1-1")
def test_a_head_of_exactly_one_frame() -> None:
    """§4.2: both sides of the peer's MAX_FRAME_SIZE."""
    conn, _ = start()
    sizes = {}
    for length in range(16_384 - 60, 16_384):
        frames = wire.parse(http2.request(conn, "GET", "/", ((b"x", b"~" * length),), None, 0.0)[1])
        sizes[sum([len(item.payload) for item in frames])] = len(frames)
    assert (sizes[16_383], sizes[16_384], sizes[16_385]) == (1, 1, 2)


REFUSED: Final[dict[str, tuple[str, str, Fields, bytes | None, str]]] = {
    "method": ("G T", "/", (), None, r"the method 'G T' is not a token \(RFC 9110 §9.1\)"),
    "empty method": ("", "/", (), None, r"the method '' is not a token"),
    "method with a new line": ("GET\n", "/", (), None, r"the method 'GET\\n' is not a token"),
    "target with a space": ("GET", "/a b", (), None, r"the target '/a b' must be printable ASCII"),
    "target with a new line": ("GET", "/a\r\n", (), None, r"the target '/a\\r\\n' must be printable ASCII"),
    "target with a fragment": ("GET", "/a#b", (), None, r"the target '/a#b' must be printable ASCII"),
    "empty target": ("GET", "", (), None, r"the target '' must be printable ASCII"),
    "target outside of ASCII": ("GET", "/ä", (), None, r"the target '/ä' must be printable ASCII"),
    "name": ("GET", "/", ((b"a b", b""),), None, r"the field name b'a b' is not a token \(RFC 9110 §5.1\)"),
    "empty name": ("GET", "/", ((b"", b""),), None, r"the field name b'' is not a token"),
    "pseudo-header field": ("GET", "/", ((b":path", b"/"),), None, r"the field name b':path' is not a token"),
    "CR": ("GET", "/", ((b"a", b"b\r"),), None, r"the value of b'a' has a CR, LF or NUL \(RFC 9110 §5.5\)"),
    "LF": ("GET", "/", ((b"a", b"b\nc"),), None, r"the value of b'a' has a CR, LF or NUL"),
    "NUL": ("GET", "/", ((b"a", b"\0"),), None, r"the value of b'a' has a CR, LF or NUL"),
    "space first": ("GET", "/", ((b"a", b" b"),), None, r"the value of b'a' begins or ends with white space"),
    "tab last": ("GET", "/", ((b"a", b"b\t"),), None, r"the value of b'a' begins or ends with white space"),
    "two hosts": (
        *("GET", "/", ((b"host", b"a"), (b"Host", b"b")), None),
        r"two host fields that differ: b'a' and b'b' \(RFC 9110 §7.2\)",
    ),
    "te": ("GET", "/", ((b"te", b"gzip"),), None, r"the field b'te' has no meaning in HTTP/2 \(RFC 9113 §8.2.2\)"),
    **{
        name.decode(): (
            "GET",
            "/",
            ((name, b"x"),),
            None,
            f"the field b'{name.decode().lower()}' has no meaning in HTTP/2",
        )
        for name in (b"Connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade")
    },
    "more content than declared": (
        *("POST", "/", ((b"content-length", b"4"),), b"hello"),
        r"5 bytes where its content-length leaves 4 \(RFC 9110 §8.6\)",
    ),
    "less content than declared": (
        *("POST", "/", ((b"content-length", b"6"),), b"hello"),
        r"5 bytes where its content-length leaves 6 \(RFC 9110 §8.6\)",
    ),
    "two lengths": (
        *("POST", "/", ((b"content-length", b"5"), (b"content-length", b"6")), b"hello"),
        r"content-length b'6' is not one number \(RFC 9110 §8.6\)",
    ),
    "length that is none": (
        "POST",
        "/",
        ((b"content-length", b"x"),),
        b"hello",
        r"content-length b'x' is not one number",
    ),
    "length that is none, no content": ("GET", "/", ((b"content-length", b"x"),), None, r"content-length b'x'"),
    "two lengths, no content": (
        "GET",
        "/",
        ((b"content-length", b"0"), (b"content-length", b"1")),
        None,
        r"content-length",
    ),
    "length without content": ("POST", "/", ((b"content-length", b"5"),), None, r"content-length"),
    "length with empty content": ("POST", "/", ((b"content-length", b"5"),), b"", r"content-length"),
    "target that is no path": ("GET", "path", (), None, r"the target 'path'"),
    "asterisk without OPTIONS": ("GET", "*", (), None, r"the target '\*'"),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.rfc(
    "9113-8.2.1-1",
    "9113-8.2.1-2",
    "9113-8.2.1-3",
    "9113-8.2.1-4",
    "9113-8.2.2-1",
    "9113-8.2.2-3",
    "9113-8.3-1",
    "9113-8.3.1-4",
    "9113-8.1-8",
    "9110-8.6-4",
)
def test_what_may_not_be_sent_is_refused(name: str) -> None:
    """§8.1.1, §8.2, §8.3.1; DESIGN §3, law 6: the value is as it was and no byte leaves."""
    method, target, fields, content, message = REFUSED[name]
    conn, peer = start()
    peer.take(http2.request(conn, "GET", "/", (), None, 0.0)[1])
    conn, _, _ = http2.request(conn, "GET", "/", (), None, 0.0)
    before = repr(conn)
    for _ in range(2):
        with pytest.raises(LocalProtocolError, match=f"^{message}"):
            http2.request(conn, method, target, fields, content, 1.0)
    assert repr(conn) == before
    conn, data, ref = http2.request(conn, "GET", "/", ((b"x", b"y"),), None, 1.0)
    peer.take(data)
    assert (ref, peer.requests[3].fields[-1]) == (3, (b"x", b"y"))


@pytest.mark.rfc("9113-8.3.1-5")
def test_options_for_the_server() -> None:
    """§8.3.1: "an OPTIONS request … that does not include a path component … MUST include a ":path" … of "*"."""
    assert asked("OPTIONS", "*")[3] == (b":path", b"*")


def test_requests_that_recur_are_encoded_alike_and_right() -> None:
    """What is remembered of heads must not be seen: not with another path, method or field, and no secret is kept."""
    conn, peer = start(settings=MANY)
    plain: Fields = ((b"user-agent", b"test"), (b"accept", b"*/*"))
    secret: Fields = (*plain, (b"authorization", b"hunter2"))
    for _ in range(4):
        for method in ("GET", "POST"):
            for path in ("/", "/a", "/b"):
                for fields in (plain, secret):
                    content = b"x" if method == "POST" else None
                    conn, data, ref = http2.request(conn, method, path, fields, content, 0.0)
                    peer.take(data)
                    expected = (
                        *((b":method", method.encode()), (b":scheme", b"https"), (b":authority", b"a.test")),
                        *((b":path", path.encode()), *fields),
                        *([(b"content-length", b"1")] if content else []),
                    )
                    assert peer.requests[ref].fields == expected
    assert b"hunter2" not in b"".join([block for pair in conn.encoder.around.values() for block in pair])
    assert b"hunter2" not in b"".join(conn.encoder.blocks.values())
    assert (b"authorization", b"hunter2") not in conn.encoder.indices


def test_many_different_requests_are_encoded_as_well_as_the_first() -> None:
    """What is remembered is bounded."""
    conn, peer = start(settings=Settings(keepalive=None, max_streams=10_000))
    for number in range(3000):
        fields = ((b"user-agent", b"test"), (b"x", b"%d" % (number % 600)))
        conn, data, ref = http2.request(conn, "GET", f"/{number % 700}", fields, None, 0.0)
        peer.take(data)
        assert peer.requests[ref].fields[3:] == ((b":path", b"/%d" % (number % 700)), *fields)
        assert len(conn.encoder.blocks) <= 256
        assert len(conn.encoder.around) <= 256


# send_data


def upload(
    conn: HTTP2Connection, peer: wire.Peer, content: bytes | None = None, end: bool = False, fields: Fields = ()
) -> HTTP2Connection:
    conn, data, _ = http2.request(conn, "PUT", "/", fields, content, 0.0, end=end)
    peer.take(data)
    return conn


@pytest.mark.rfc("9113-8.1-1")
def test_content_in_pieces() -> None:
    """§8.1: HEADERS, DATA, END_STREAM on the last frame."""
    conn, peer = start()
    conn = upload(conn, peer)
    conn, data = http2.send_data(conn, 1, b"hello, ", 1.0)
    assert data == wire.data_frame(1, b"hello, ")
    conn, data = http2.send_data(conn, 1, b"", 1.0)
    assert data == b""
    conn, data = http2.send_data(conn, 1, b"world", 1.0, end=True)
    assert data == wire.data_frame(1, b"world", end=True)
    assert http2.snapshot(conn, 1.0).requests[0].state == "half-closed (local), awaiting the response"


@pytest.mark.rfc("9113-8.1-1")
def test_an_end_without_content() -> None:
    """§6.1: an empty DATA frame with END_STREAM."""
    conn, peer = start()
    _, data = http2.send_data(upload(conn, peer, b"all"), 1, b"", 1.0, end=True)
    assert data == wire.data_frame(1, end=True)


@pytest.mark.fault("B4")
def test_an_end_needs_no_window() -> None:
    """§6.9.1: "Frames with zero length with the END_STREAM flag set … MAY be sent if there is no available space"."""
    conn, peer = start((wire.INITIAL_WINDOW_SIZE, 5))
    conn = upload(conn, peer, b"hello")
    conn, _, _ = http2.receive(conn, peer.announce((wire.INITIAL_WINDOW_SIZE, 0)), 0.5)
    conn = altered(conn, send_window=0)
    assert http2.snapshot(conn, 1.0).requests[0].send_window == -5
    assert http2.send_data(conn, 1, b"", 1.0, end=True)[1] == wire.data_frame(1, end=True)


@pytest.mark.parametrize("content", [b"", b"hello"])
@pytest.mark.rfc("9113-8.1-1")
def test_trailers_end_the_content(content: bytes) -> None:
    """§8.1: a trailer section, "with END_STREAM"; names lowered."""
    conn, peer = start()
    conn, data = http2.send_data(upload(conn, peer), 1, content, 1.0, trailers=((b"X-Sum", b"5"), (b"y", b"z")))
    peer.take(data)
    assert peer.requests[1].content == content
    assert peer.requests[1].trailers == ((b"x-sum", b"5"), (b"y", b"z"))
    assert [kind for kind, _, _ in frames_of(data)] == ([wire.DATA] if content else []) + [wire.HEADERS]
    with pytest.raises(LocalProtocolError, match=r"^the content of request 1 has been ended$"):
        http2.send_data(conn, 1, b"", 1.0)


@pytest.mark.rfc("9113-8.1-1")
def test_trailers_wait_behind_the_content() -> None:
    """§8.1: "after the content", when the windows have let it all go."""
    conn, peer = start((wire.INITIAL_WINDOW_SIZE, 3))
    conn, data = http2.send_data(upload(conn, peer), 1, b"hello", 1.0, trailers=((b"x", b"y"),))
    peer.take(data)
    assert wire.kinds(data) == [(wire.DATA, 1)]
    conn, data, events = http2.receive(conn, peer.widen(1, 2), 1.0)
    peer.take(data)
    assert wire.kinds(data) == [(wire.DATA, 1), (wire.HEADERS, 1)]
    assert (peer.requests[1].content, peer.requests[1].trailers) == (b"hello", ((b"x", b"y"),))
    assert events == [], "nothing more is welcome"


@pytest.mark.parametrize(
    "name",
    ["authorization", "content-encoding", "content-length", "content-range", "content-type", "Host", "te", "trailer"],
)
@pytest.mark.rfc("9110-6.5.1-1")
def test_what_may_not_stand_in_trailers(name: str) -> None:
    """RFC 9110 §6.5.1: fields for framing, routing, authentication or content format."""
    conn, peer = start()
    conn = upload(conn, peer)
    message = f"^the field b'{name}' may not stand in trailers \\(RFC 9110 §6.5.1\\)$"
    with pytest.raises(LocalProtocolError, match=message):
        http2.send_data(conn, 1, b"x", 1.0, trailers=((b"ok", b"1"), (name.encode(), b"1")))
    assert http2.send_data(conn, 1, b"x", 1.0, end=True)[1] == wire.data_frame(1, b"x", end=True)


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ((b":status", b"200"), "the field name b':status' is not a token"),
        ((b"x", b"\n"), "the value of b'x' has a CR, LF or NUL"),
        ((b"transfer-encoding", b"chunked"), "the field b'transfer-encoding' may not stand in trailers"),
        ((b"connection", b"close"), "the field b'connection' may not stand in trailers"),
    ],
)
@pytest.mark.rfc("9113-8.1-4")
def test_malformed_trailers_are_refused(field: wire.Pair, message: str) -> None:
    """§8.1: "Trailers MUST NOT include pseudo-header fields"; §8.2."""
    conn, peer = start()
    with pytest.raises(LocalProtocolError, match=message):
        http2.send_data(upload(conn, peer), 1, b"", 1.0, trailers=(field,))


@pytest.mark.rfc("9110-8.6-4")
def test_content_as_long_as_declared() -> None:
    """§8.1.1: the sum of the DATA frames equals content-length."""
    conn, peer = start()
    conn = upload(conn, peer, b"he", fields=((b"content-length", b"5"),))
    conn, _ = http2.send_data(conn, 1, b"l", 1.0)
    before = conn
    for content, end, trailers in (
        *((b"lo!", False, ()), (b"lo!", True, ()), (b"l", True, ()), (b"", True, ())),
        *((b"l", False, ((b"x", b"y"),)), (b"", False, ((b"x", b"y"),))),
    ):
        message = f"^{len(content)} bytes where its content-length leaves 2 \\(RFC 9110 §8.6\\)$"
        with pytest.raises(LocalProtocolError, match=message):
            http2.send_data(conn, 1, content, 1.0, end=end, trailers=trailers)
    assert conn == before
    one, data = http2.send_data(conn, 1, b"lo", 1.0, end=True)
    assert data == wire.data_frame(1, b"lo", end=True)
    two, _ = http2.send_data(conn, 1, b"lo", 1.0)
    with pytest.raises(LocalProtocolError, match=r"^1 bytes where its content-length leaves 0 \(RFC 9110 §8.6\)$"):
        http2.send_data(two, 1, b"!", 1.0)
    assert http2.send_data(two, 1, b"", 1.0, trailers=((b"x", b"y"),))[1] != b""
    assert http2.send_data(two, 1, b"", 1.0, end=True)[1] == wire.data_frame(1, end=True)


@pytest.mark.rfc("9113-5.1-5", "9113-6.1-6")
def test_content_after_its_end() -> None:
    """§5.1: half-closed (local): no more than WINDOW_UPDATE, PRIORITY and RST_STREAM."""
    conn, peer = start((wire.INITIAL_WINDOW_SIZE, 1))
    conn = upload(conn, peer, b"all", end=True)
    conn = upload(conn, peer)
    conn, _ = http2.send_data(conn, 3, b"all", 0.0, end=True)
    conn = get(conn)
    for ref in (1, 3, 5):
        with pytest.raises(LocalProtocolError, match=f"^the content of request {ref} has been ended$"):
            http2.send_data(conn, ref, b"", 1.0)


@pytest.mark.parametrize("ref", [-1, 0, 1, 2, 5])
def test_content_for_a_request_that_is_over(ref: int) -> None:
    conn = http2.cancel(get(start()[0], 0.0, 2), 1, 1.0)[0]
    with pytest.raises(LocalProtocolError, match=f"^request {ref} is over: its content is not wanted any more$"):
        http2.send_data(conn, ref, b"x", 1.0)


def test_small_pieces_that_wait_are_joined() -> None:
    """Content that waits costs no more for having come in pieces."""
    conn, peer = start((wire.INITIAL_WINDOW_SIZE, 0))
    conn = upload(conn, peer)
    whole = b""
    for number in range(200):
        piece = bytes((number,)) * (number % 7 * 100)
        whole += piece
        conn, data = http2.send_data(conn, 1, piece, 1.0)
        assert data == b""
    conn, _ = http2.send_data(conn, 1, b"", 1.0, end=True)
    conn, data, _ = http2.receive(conn, peer.announce((wire.INITIAL_WINDOW_SIZE, 65_535)), 1.0)
    peer.take(data)
    assert peer.requests[1].content == whole
    assert peer.requests[1].ended
    assert len(sent(data)) <= len(whole) // 8_192 + 1


# Output: windows, budget, turns


@pytest.mark.rfc("9113-5.2.1-1", "9113-6.9.1-1")
def test_a_window_stops_content_and_never_more_is_sent() -> None:
    """§6.9.1: "The sender MUST NOT send a flow-controlled frame with a length that exceeds the space available"."""
    conn, peer = start((wire.INITIAL_WINDOW_SIZE, 10))
    conn, data, _ = http2.request(conn, "PUT", "/", (), b"x" * 100, 0.0)
    assert sent(data) == [(1, 10)]
    peer.take(data)
    conn, data, _ = http2.receive(conn, peer.widen(1, 1), 0.0)
    assert sent(data) == [(1, 1)]
    peer.take(data)
    conn, data, _ = http2.receive(conn, peer.widen(1, 89), 0.0)
    assert data == wire.data_frame(1, b"x" * 89, end=True)


@pytest.mark.rfc("9113-4.1-1")
def test_a_frame_is_no_larger_than_the_peer_takes() -> None:
    """§4.2; its MAX_FRAME_SIZE may rise and fall."""
    conn, peer = start((wire.INITIAL_WINDOW_SIZE, 0))
    conn = upload(conn, peer, b"x" * 60_000, end=True)
    conn, _, _ = http2.receive(conn, peer.announce((wire.MAX_FRAME_SIZE, 20_000)), 0.0)
    conn, data, _ = http2.receive(conn, wire.settings((wire.INITIAL_WINDOW_SIZE, 40_001)), 0.0)
    assert sent(data) == [(1, 20_000), (1, 20_000), (1, 1)]
    conn, _, _ = http2.receive(conn, wire.settings((wire.MAX_FRAME_SIZE, 16_384)), 0.0)
    conn, data, _ = http2.receive(conn, wire.window_update(1, 60_000), 0.0)
    assert sent(data) == [(1, 16_384), (1, 3615)]


def test_a_frame_is_no_larger_than_fair() -> None:
    """Whatever the peer takes, its siblings' turn comes after 64 KiB."""
    conn, peer = start((wire.MAX_FRAME_SIZE, 2**24 - 1), (wire.INITIAL_WINDOW_SIZE, 2**31 - 1))
    conn, _, _ = http2.receive(conn, wire.window_update(0, 2**30), 0.0)
    data = http2.request(conn, "PUT", "/", (), b"x" * 131_073, 0.0)[1]
    assert sent(data) == [(1, 65_536), (1, 65_536), (1, 1)]


def test_uploads_take_turns_a_frame_each() -> None:
    """§5.2.2: fairness is ours to keep; a small one is not held up by large ones."""
    conn, peer = start((wire.INITIAL_WINDOW_SIZE, 0))
    for size in (50_000, 100, 40_000):
        conn = upload(conn, peer, b"x" * size, end=True)
    conn, data, _ = http2.receive(conn, peer.announce((wire.INITIAL_WINDOW_SIZE, 60_000)) + peer.widen(0, 100_000), 0.0)
    peer.take(data)
    assert [ref for ref, _ in sent(data)] == [1, 3, 5, 1, 5, 1, 5, 1]
    assert all([peer.requests[ref].ended for ref in (1, 3, 5)])


def test_turns_go_on_where_they_stopped() -> None:
    conn, peer = start((wire.INITIAL_WINDOW_SIZE, 0), settings=Settings(keepalive=None, output_budget=1))
    for _ in range(3):
        conn = upload(conn, peer, b"x" * 40_000, end=True)
    conn, data, _ = http2.receive(
        conn, wire.settings((wire.INITIAL_WINDOW_SIZE, 60_000)) + wire.window_update(0, 10**6), 0.0
    )
    order = [ref for ref, _ in sent(data)]
    for _ in range(8):
        conn, data, _ = http2.flush(conn, 0.0)
        order += [ref for ref, _ in sent(data)]
    assert order == [1, 3, 5] * 3
    assert conn.ready == ()


@pytest.mark.fault("B13")
def test_a_stream_without_window_does_not_hold_up_its_siblings() -> None:
    """§5.2: windows are of streams."""
    conn, peer = start((wire.INITIAL_WINDOW_SIZE, 10))
    conn = upload(conn, peer, b"x" * 11, end=True)
    conn, data, _ = http2.request(conn, "PUT", "/", (), b"y" * 10, 0.0)
    assert data.endswith(wire.data_frame(3, b"y" * 10, end=True))
    assert conn.ready == ()
    assert live(conn) == [1, 3]


def test_those_that_wait_for_the_connection_keep_their_turn() -> None:
    """§6.9.1: one window for all."""
    conn, peer = start()
    conn = upload(conn, peer, b"x" * 65_535, end=True)
    for _ in range(3):
        conn = upload(conn, peer, b"x" * 10, end=True)
    assert conn.send_window == 0
    conn, data, _ = http2.receive(conn, peer.widen(0, 25), 0.0)
    assert sent(data) == [(3, 10), (5, 10), (7, 5)]
    conn, data, _ = http2.receive(conn, peer.widen(0, 1), 0.0)
    assert data == wire.data_frame(7, b"x")
    conn, data, _ = http2.receive(conn, peer.widen(0, 4), 0.0)
    assert data == wire.data_frame(7, b"x" * 4, end=True)


def test_frames_that_open_no_window_touch_no_upload() -> None:
    """DESIGN §3, law 7: work is linear in the bytes received, whatever the number of open streams."""
    conn, peer = start((wire.INITIAL_WINDOW_SIZE, 2**20))
    for _ in range(3):
        conn = upload(conn, peer, b"x" * 65_535, end=True)
    assert conn.send_window == 0
    later, data, _ = http2.receive(conn, wire.ping(), 1.0)
    assert data == wire.ping(ack=True)
    assert later.streams is conn.streams, "a stream that nothing happened to was copied"


def test_a_stream_whose_own_window_is_shut_too_waits_for_both() -> None:
    conn, peer = start((wire.INITIAL_WINDOW_SIZE, 65_535))
    conn = upload(conn, peer, b"x" * 65_536, end=True)
    conn, data, _ = http2.receive(conn, peer.widen(0, 10), 0.0)
    assert data == b""
    conn, data, _ = http2.receive(conn, peer.widen(1, 10), 0.0)
    assert data == wire.data_frame(1, b"x", end=True)


@pytest.mark.parametrize(
    ("budget", "frames"), [(1, 1), (16_384, 1), (16_385, 2), (32_768, 2), (32_769, 3), (50_001, 4), (2**31 - 1, 4)]
)
def test_content_goes_out_while_less_than_the_budget_is_unflushed(budget: int, frames: int) -> None:
    """DESIGN §2: both sides of the budget; the frame that reaches it is the last."""
    conn, _ = start(settings=Settings(keepalive=None, output_budget=budget))
    conn, data, _ = http2.request(conn, "PUT", "/", (), b"x" * 50_000, 0.0)
    assert len(sent(data)) == frames
    assert conn.unflushed == sum([size for _, size in sent(data)]) == min(50_000, frames * 16_384)


def test_flush_hands_out_the_rest() -> None:
    conn, _ = start(settings=Settings(keepalive=None, output_budget=20_000))
    conn, data, _ = http2.request(conn, "PUT", "/", (), b"x" * 50_000, 0.0, end=False)
    assert sent(data) == [(1, 16_384), (1, 16_384)]
    assert http2.receive(conn, wire.ping(), 0.5)[1] == wire.ping(ack=True), "control frames do not wait"
    again, data = http2.send_data(conn, 1, b"y", 0.5)
    assert data == b""
    conn, data, events = http2.flush(again, 1.0)
    assert (sent(data), events) == ([(1, 16_384), (1, 848), (1, 1)], [WindowOpened(1)])
    assert conn.unflushed == 17_233
    conn, data, events = http2.flush(conn, 1.0)
    assert (data, events, conn.unflushed) == (b"", [], 0)
    assert http2.flush(conn, 2.0) == (conn, b"", [])


@pytest.mark.rfc("9113-5.2.1-3", "9113-6.7-3")
def test_heads_and_control_frames_go_out_above_the_budget() -> None:
    """DESIGN §2: "A verb hands out heads and control frames at once"."""
    conn, peer = start(settings=Settings(keepalive=None, output_budget=1))
    conn = upload(conn, peer, b"x" * 50_000, end=True)
    conn, data, _ = http2.request(conn, "PUT", "/", (), b"y", 0.0)
    assert wire.kinds(data) == [(wire.HEADERS, 3)]
    conn, data, _ = http2.receive(conn, wire.ping() + wire.settings(), 0.0)
    assert wire.kinds(data) == [(wire.PING, 0), (wire.SETTINGS, 0)]
    conn, data, _ = http2.cancel(conn, 1, 0.0)
    assert data == wire.rst_stream(1, wire.CANCEL)
    conn, data, _ = http2.flush(conn, 0.0)
    assert data == wire.data_frame(3, b"y", end=True)


def test_an_end_or_trailers_wait_their_turn_behind_the_budget() -> None:
    conn, peer = start(settings=Settings(keepalive=None, output_budget=1))
    conn = upload(conn, peer, b"x" * 10)
    for trailers in ((), ((b"x", b"y"),)):
        one, data = http2.send_data(conn, 1, b"", 0.0, end=True, trailers=trailers)
        assert data == b""
        with pytest.raises(LocalProtocolError, match="has been ended"):
            http2.send_data(one, 1, b"", 0.0)
        one, data, events = http2.flush(one, 0.0)
        assert wire.kinds(data) == [(wire.HEADERS if trailers else wire.DATA, 1)]
        assert (events, one.ready) == ([], ())


@pytest.mark.fault("B15")
def test_nothing_to_send_waits_for_no_turn() -> None:
    """DESIGN §3, law 4: an index names what it is about, and nothing else."""
    conn, peer = start(settings=Settings(keepalive=None, output_budget=1))
    conn = upload(conn, peer, b"x")
    conn, data = http2.send_data(conn, 1, b"", 0.0)
    assert (data, conn.ready) == (b"", ())


def test_the_output_is_counted() -> None:
    """Each stream keeps the offset of its head: `written` is all that was handed out."""
    conn, first = http2.connect(ORIGIN, SETTINGS, 0.0)
    total = len(first)
    conn, data, _ = http2.receive(conn, wire.settings() + wire.ping(), 0.0)
    total += len(data)
    conn, data, _ = http2.request(conn, "PUT", "/", (), b"hello", 0.0, end=False)
    total += len(data)
    conn, data = http2.send_data(conn, 1, b"x", 0.0)
    total += len(data)
    conn, data, _ = http2.cancel(conn, 1, 0.0)
    total += len(data)
    assert conn.written == total
    conn, data, _ = http2.close(conn, 0.0)
    assert conn.written == total + len(data)


def test_window_opened_tells_when_more_is_welcome() -> None:
    """Once for content that waited; not where the content is ended."""
    conn, peer = start((wire.INITIAL_WINDOW_SIZE, 0))
    conn = upload(conn, peer, b"open")
    conn = upload(conn, peer, b"ended", end=True)
    conn, _, events = http2.receive(conn, wire.settings((wire.INITIAL_WINDOW_SIZE, 100)), 0.0)
    assert events[1:] == [WindowOpened(1)]
    conn, _, events = http2.receive(conn, wire.window_update(1, 100) + wire.window_update(0, 100), 0.0)
    assert events == []


# consume


def reading(content: bytes = b"x" * 600, window: int = 1000) -> HTTP2Connection:
    """A response whose content waits unread."""
    conn = get(start(settings=Settings(keepalive=None, stream_window=window))[0], 0.0, 2)
    return http2.receive(conn, wire.headers_frame(1, OK) + wire.data_frame(1, content), 1.0)[0]


@pytest.mark.fault("B10")
@pytest.mark.rfc("9113-6.9-7", "9113-6.9.1-4")
def test_the_stream_is_credited_for_what_was_read_at_half_its_window() -> None:
    """§6.9; DESIGN §3, law 8: both sides of the threshold."""
    conn, data, events = http2.consume(reading(), 1, 499, 2.0)
    assert (data, events) == (b"", [])
    assert http2.snapshot(conn, 2.0).requests[0].unread == 101
    assert http2.snapshot(conn, 2.0).requests[0].recv_window == 400
    conn, data, _ = http2.consume(conn, 1, 1, 2.0)
    assert data == wire.window_update(1, 500)
    assert http2.snapshot(conn, 2.0).requests[0].recv_window == 900
    conn, data, _ = http2.consume(conn, 1, 100, 2.0)
    assert data == b""


def test_padding_is_credited_with_what_was_read() -> None:
    """§6.1: "The entire DATA frame payload is included in flow control"."""
    conn = get(start(settings=Settings(keepalive=None, stream_window=1000))[0])
    conn, _, _ = http2.receive(conn, wire.headers_frame(1, OK) + wire.data_frame(1, b"x" * 400, padding=99), 1.0)
    conn, data, _ = http2.consume(conn, 1, 399, 2.0)
    assert data == b""
    conn, data, _ = http2.consume(conn, 1, 1, 2.0)
    assert data == wire.window_update(1, 500)


@pytest.mark.fault("B8")
@pytest.mark.parametrize("window", [1, 2, 3])
def test_a_tiny_window_is_credited_too(window: int) -> None:
    conn = reading(b"x" * window, window)
    data = b""
    for _ in range(window):
        conn, more, _ = http2.consume(conn, 1, 1, 2.0)
        data += more
    given = sum([int.from_bytes(item.payload, "big") for item in wire.parse(data)])
    assert http2.snapshot(conn, 2.0).requests[0].recv_window == given > 0


@pytest.mark.fault("B16")
@pytest.mark.rfc("9113-6.9-7")
def test_reading_nothing_gives_nothing() -> None:
    """No increment of 0."""
    assert http2.consume(reading(), 1, 0, 2.0)[1:] == (b"", [])


@pytest.mark.parametrize("size", [-1, 601, 10**9])
def test_more_than_there_is_cannot_be_read(size: int) -> None:
    conn = reading()
    with pytest.raises(LocalProtocolError, match=f"^{size} bytes consumed of request 1, 600 were unread$"):
        http2.consume(conn, 1, size, 2.0)
    assert conn == reading()


@pytest.mark.parametrize("ref", [0, 1, 2, 5, 99])
def test_reading_a_request_that_is_over_is_nothing(ref: int) -> None:
    """DESIGN §3, law 8: a no-op; a stream that is gone gets no credit of its own (§5.1)."""
    conn, _, _ = http2.cancel(reading(), 1, 1.0)
    assert http2.consume(conn, ref, 600, 2.0) == (conn, b"", [])


@pytest.mark.fault("B9")
def test_a_sibling_is_not_stopped_by_content_unread() -> None:
    """DESIGN §6: the connection is credited on arrival."""
    conn, data = http2.connect(ORIGIN, Settings(stream_window=65_535, connection_window=65_535), 0.0)
    peer = wire.Peer(data)
    conn, _, _ = http2.receive(conn, peer.announce() + wire.settings_ack(), 0.0)
    for _ in range(5):
        conn, data, _ = http2.request(conn, "GET", "/", (), None, 0.0)
        peer.take(data)
    for ref in (1, 3, 5, 7, 9):
        conn, data, _ = http2.receive(conn, peer.head(ref), 0.0)
        while peer.room(ref):
            conn, data, _ = http2.receive(conn, peer.data(ref, b"x" * min(16_384, peer.room(ref))), 0.0)
            peer.take(data)
    assert [request.unread for request in http2.snapshot(conn, 0.0).requests] == [65_535] * 5


# cancel


@pytest.mark.fault("A1")
@pytest.mark.rfc("9113-5.4.2-1", "9113-5.4.2-3")
def test_a_cancelled_request_is_reset_in_the_same_call() -> None:
    """§5.4.2, §7: CANCEL; DESIGN §3, law 4."""
    conn = reading()
    conn, data, events = http2.cancel(conn, 1, 2.0)
    assert data == wire.rst_stream(1, wire.CANCEL)
    assert events == [RequestFailed(1, Failure("StreamClosed", -1, "GET /: cancelled by its caller", 1))]
    assert (live(conn), http2.capacity(conn)) == ([3], 99)
    assert http2.cancel(conn, 1, 3.0) == (conn, b"", [])


@pytest.mark.parametrize("ref", [-1, 0, 2, 5, 2**31])
def test_cancelling_what_is_not_there_is_nothing(ref: int) -> None:
    conn = reading()
    assert http2.cancel(conn, ref, 2.0) == (conn, b"", [])


@pytest.mark.fault("A1")
def test_ten_requests_given_up_leave_ten_slots() -> None:
    """What all of this began with."""
    conn, peer = start((wire.MAX_CONCURRENT_STREAMS, 10))
    for _ in range(10):
        conn, data, _ = http2.request(conn, "GET", "/", (), None, 0.0, deadline=0.05)
        peer.take(data)
    conn, _, _ = http2.receive(conn, wire.ping(), 0.01)
    conn, data, events = http2.handle_timeout(conn, 0.05)
    peer.take(data)
    assert len(events) == 10
    assert list(peer.resets.values()) == [wire.CANCEL] * 10
    assert (http2.capacity(conn), peer.active) == (10, set())
    conn, data, ref = http2.request(conn, "GET", "/", (), None, 0.1)
    peer.take(data)
    assert http2.receive(conn, peer.head(ref, end=True), 0.2)[2][-1] == ResponseEnded(ref)


@pytest.mark.fault("A17")
def test_normal_requests_are_never_reset() -> None:
    """No superfluous RST_STREAM."""
    conn, peer = start()
    for _ in range(300):
        conn, data, ref = http2.request(conn, "GET", "/", (), None, 0.0)
        peer.take(data)
        conn, data, _ = http2.receive(conn, peer.head(ref) + peer.data(ref, b"x", end=True), 0.0)
        peer.take(data)
    assert (peer.resets, conn.live) == ({}, 0)


# Clocks

Story = Callable[[Clocks, float], HTTP2Connection]


def asking(clocks: Clocks, deadline: float, end: bool = True, content: bytes | None = None) -> HTTP2Connection:
    """Request 1 at 1.0, between siblings that have no clocks."""
    conn, _ = start((wire.INITIAL_WINDOW_SIZE, 1000))
    off = Clocks(None, None, None, None)
    conn, _, _ = http2.request(conn, "PUT", "/", (), content, 1.0, end=end, deadline=deadline, clocks=clocks)
    return get(conn, 1.0, 2, off)


def at(conn: HTTP2Connection, now: float, *data: bytes) -> HTTP2Connection:
    return http2.receive(conn, b"".join(data), now)[0]


def left(conn: HTTP2Connection) -> HTTP2Connection:
    """All of the output is in the kernel."""
    return http2.flush(conn, conn.now)[0]


def answered(clocks: Clocks, deadline: float) -> HTTP2Connection:
    return at(asking(clocks, deadline), 2.0, wire.headers_frame(1, OK))


def half_read(clocks: Clocks, deadline: float) -> HTTP2Connection:
    conn = at(answered(clocks, deadline), 3.0, wire.data_frame(1, b"hello"))
    return http2.consume(conn, 1, 2, 4.0)[0]


INTERIM: Final = wire.headers_frame(1, wire.literal(b":status", b"103"))

# name of the clock, what happened, when it runs out (with 60 s, or 600 s for the reader), and what is said
CLOCK_STORIES: Final[dict[str, tuple[str, Story, float, str, str]]] = {
    "head after the request": (
        *("head", lambda clocks, deadline: asking(clocks, deadline), 61.0),
        *("ReadTimeout", "PUT /: no response head for 60.00 s (head=60)"),
    ),
    "head after the last content": (
        "head",
        lambda clocks, deadline: left(http2.send_data(asking(clocks, deadline, end=False), 1, b"x", 5.0, end=True)[0]),
        *(65.0, "ReadTimeout", "PUT /: no response head for 60.00 s (head=60)"),
    ),
    "head after content that waited": (
        "head",
        lambda clocks, deadline: left(at(asking(clocks, deadline, content=b"x" * 1001), 9.0, wire.window_update(1, 1))),
        *(69.0, "ReadTimeout", "PUT /: no response head for 60.00 s (head=60)"),
    ),
    "head after an interim response": (
        *("head", lambda clocks, deadline: at(asking(clocks, deadline), 31.0, INTERIM), 91.0),
        *("ReadTimeout", "PUT /: no response head for 60.00 s (head=60)"),
    ),
    "idle after the head": ("idle", answered, 62.0, "ReadTimeout", "PUT /: 60.00 s of silence (idle=60)"),
    "idle after content was read": (
        "idle",
        lambda clocks, deadline: http2.consume(half_read(clocks, deadline), 1, 3, 7.0)[0],
        *(67.0, "ReadTimeout", "PUT /: 60.00 s of silence (idle=60)"),
    ),
    "reader after content came": (
        *("reader", lambda clocks, deadline: at(answered(clocks, deadline), 3.0, wire.data_frame(1, b"hello")), 603.0),
        *("ReadTimeout", "PUT /: 5 bytes of content wait unread; read or cancel the response (reader=600)"),
    ),
    "reader after some was read": (
        *("reader", half_read, 604.0, "ReadTimeout"),
        "PUT /: 3 bytes of content wait unread; read or cancel the response (reader=600)",
    ),
    "reader although more comes": (
        *("reader", lambda clocks, deadline: at(half_read(clocks, deadline), 500.0, wire.data_frame(1, b"!")), 604.0),
        *("ReadTimeout", "PUT /: 4 bytes of content wait unread; read or cancel the response (reader=600)"),
    ),
    "reader of content left open": (
        *("reader", lambda clocks, deadline: asking(clocks, deadline, end=False), 601.0),
        *("ReadTimeout", "PUT /: its content was left open; end it or cancel the request (reader=600)"),
    ),
    "reader of content left open after some": (
        *(
            "reader",
            lambda clocks, deadline: http2.send_data(asking(clocks, deadline, end=False), 1, b"x", 5.0)[0],
            605.0,
        ),
        *("ReadTimeout", "PUT /: its content was left open; end it or cancel the request (reader=600)"),
    ),
    "reader of content left open after the head": (
        "reader",
        lambda clocks, deadline: at(asking(clocks, deadline, end=False), 8.0, wire.headers_frame(1, OK)),
        *(608.0, "ReadTimeout", "PUT /: its content was left open; end it or cancel the request (reader=600)"),
    ),
    "write from the beginning": (
        *("write", lambda clocks, deadline: asking(clocks, deadline, content=b"x" * 1005), 61.0),
        *("WriteTimeout", "PUT /: 5 bytes of content unsent, none moved for 60.00 s (write=60)"),
    ),
    "write after some moved": (
        "write",
        lambda clocks, deadline: at(asking(clocks, deadline, content=b"x" * 1005), 40.0, wire.window_update(1, 2)),
        *(100.0, "WriteTimeout", "PUT /: 3 bytes of content unsent, none moved for 60.00 s (write=60)"),
    ),
    "write although more was given": (
        "write",
        lambda clocks, deadline: http2.send_data(
            asking(clocks, deadline, end=False, content=b"x" * 1005), 1, b"more", 50.0
        )[0],
        *(61.0, "WriteTimeout", "PUT /: 9 bytes of content unsent, none moved for 60.00 s (write=60)"),
    ),
}
FAR: Final = 100_000.0


def expire(conn: HTTP2Connection, due: float) -> Failure:
    """Checks that request 1 fails at `due` and not before, and that nothing else does. Returns why."""
    assert http2.next_timeout(conn) <= due
    conn, data, events = http2.handle_timeout(conn, math.nextafter(due, 0.0))
    assert (data, events, live(conn)) == (b"", [], [1, 3, 5])
    assert http2.next_timeout(conn) == due
    conn, data, events = http2.handle_timeout(conn, due)
    (event,) = events
    assert isinstance(event, RequestFailed)
    assert (event.ref, live(conn)) == (1, [3, 5])
    assert wire.parse(data)[0] == wire.parse(wire.rst_stream(1, wire.CANCEL))[0]
    return event.failure


@pytest.mark.fault("A16", "F5")
@pytest.mark.parametrize("name", CLOCK_STORIES)
def test_a_clock_ends_its_request_at_its_very_moment(name: str) -> None:
    """DESIGN §6: the clocks of a request, a peer that forgot the stream: siblings are untouched."""
    clock, story, due, kind, message = CLOCK_STORIES[name]
    assert expire(story(CLOCKS, INFINITY), due) == Failure(kind, -1, message, 1, clock=clock)


@pytest.mark.parametrize("name", CLOCK_STORIES)
def test_a_clock_that_is_off_ends_nothing(name: str) -> None:
    """`None` turns it off; the others are off here as well."""
    conn = CLOCK_STORIES[name][1](Clocks(None, None, None, None), INFINITY)
    conn, data, events = http2.handle_timeout(conn, FAR)
    assert (data, events, live(conn)) == (b"", [], [1, 3, 5])
    assert http2.next_timeout(conn) == INFINITY


@pytest.mark.parametrize("name", CLOCK_STORIES)
def test_only_the_clock_that_is_meant_runs(name: str) -> None:
    clock, story, due, kind, message = CLOCK_STORIES[name]
    limits = {"head": 60.0, "idle": 60.0, "write": 60.0, "reader": 600.0}
    only = Clocks(*[limits[each] if each == clock else None for each in Clocks.__match_args__])
    assert expire(story(only, INFINITY), due) == Failure(kind, -1, message, 1, clock=clock)
    others = Clocks(*[None if clock == each else 1e9 for each in Clocks.__match_args__])
    conn, _, events = http2.handle_timeout(story(others, INFINITY), FAR)
    assert (events, live(conn)) == ([], [1, 3, 5])


@pytest.mark.fault("H1")
@pytest.mark.parametrize("name", CLOCK_STORIES)
def test_total_ends_it_whatever_runs(name: str) -> None:
    """DESIGN §3, law 5: "`total` ends the rest"."""
    _, story, due, _, _ = CLOCK_STORIES[name]
    deadline = due - 0.5
    for clocks in (CLOCKS, Clocks(None, None, None, None)):
        failure = expire(story(clocks, deadline), deadline)
        age = f"its deadline (total) came {deadline - 1:.2f} s after it was sent"
        assert failure.kind == "DeadlineExceeded"
        assert failure.message.startswith(f"PUT /: {age}, ")
        assert failure.message.endswith("; to bound silence instead of the whole, set the idle clock")


def test_what_is_said_of_the_peer_at_the_deadline() -> None:
    advice = "to bound silence instead of the whole, set the idle clock"
    message = f"PUT /: its deadline (total) came 4.00 s after it was sent, the peer never answered; {advice}"
    assert expire(asking(CLOCKS, 5.0), 5.0) == Failure("DeadlineExceeded", -1, message, 1, clock="total")
    conn = at(asking(CLOCKS, 5.0), 4.5, wire.headers_frame(1, OK))
    message = (
        f"PUT /: its deadline (total) came 4.00 s after it was sent, the peer was last heard of 0.50 s ago; {advice}"
    )
    assert expire(conn, 5.0) == Failure("DeadlineExceeded", -1, message, 1, clock="total")


def read_all(conn: HTTP2Connection, now: float) -> HTTP2Connection:
    return http2.consume(conn, 1, 1000, now)[0]


def grow(conn: HTTP2Connection, now: float) -> HTTP2Connection:
    return http2.grow_window(conn, 1, 2000, now)[0]


def announce_more(conn: HTTP2Connection, now: float) -> HTTP2Connection:
    return http2.put_settings(conn, Settings(stream_window=2000, keepalive=None), now)[0]


@pytest.mark.parametrize("window", [1000, 70_000], ids=["the peer's window is shut", "the kernel takes nothing"])
@pytest.mark.parametrize("resume", [read_all, grow, announce_more])
def test_while_our_reader_holds_the_peer_up_the_write_clock_does_not_run(
    resume: Callable[[HTTP2Connection, float], HTTP2Connection], window: int
) -> None:
    """DESIGN §3, law 5: "No limit blames the peer for time in which we were the one to move". Then it begins anew."""
    mine = Settings(stream_window=1000, keepalive=None, output_budget=500)
    conn, _ = start((wire.INITIAL_WINDOW_SIZE, window), settings=mine)
    clocks = Clocks(None, None, 60.0, 600.0)
    conn, _, _ = http2.request(conn, "PUT", "/", (), bytes(70_000), 0.0, clocks=clocks)
    if window == 1000:
        conn = left(conn)
    conn = at(conn, 1.0, wire.headers_frame(1, OK), wire.data_frame(1, bytes(1000)))
    conn, _, events = http2.handle_timeout(conn, 100.0)
    assert events == []
    conn = resume(conn, 101.0)
    assert http2.next_timeout(conn) <= 161.0
    conn, _, events = http2.handle_timeout(conn, 160.9)
    assert events == []
    conn, _, events = http2.handle_timeout(conn, 161.0)
    assert isinstance(events[0], RequestFailed) and events[0].failure.clock == "write"


def test_a_deadline_that_has_passed_ends_it_at_once() -> None:
    conn = asking(CLOCKS, 0.5)
    assert http2.next_timeout(conn) <= 0.5
    assert [type(event) for event in http2.handle_timeout(conn, 1.0)[2]] == [RequestFailed]


@pytest.mark.parametrize("clock", ["reader is off", "reader is later than the deadline"])
def test_idle_does_not_blame_the_peer_while_our_content_is_left_open(clock: str) -> None:
    """DESIGN §3, law 5: "No limit blames the peer for time in which we were the one to move"."""
    clocks = Clocks(reader=None) if clock == "reader is off" else CLOCKS
    deadline = INFINITY if clock == "reader is off" else 300.0
    conn = at(asking(clocks, deadline, end=False), 2.0, wire.headers_frame(1, OK))
    _, data, events = http2.handle_timeout(conn, 100.0)
    assert (data, events) == (b"", [])


def slow(clocks: Clocks, seconds: tuple[float, ...]) -> HTTP2Connection:
    """An upload, left open, whose head was answered at once; a frame of it leaves at each of these moments."""
    conn, _ = start(settings=Settings(keepalive=None, output_budget=1))
    content = b"x" * (16_384 * (len(seconds) + 1))
    conn, _, _ = http2.request(conn, "PUT", "/", (), content, 0.0, end=False, clocks=clocks)
    for now in seconds:
        conn, data, _ = http2.flush(conn, now)
        assert len(sent(data)) == 1
    return conn


def test_the_reader_is_not_blamed_for_the_time_in_which_its_content_was_on_its_way() -> None:
    """DESIGN §6: `write` runs while content is unsent; `reader` only from then on."""
    conn = slow(Clocks(write=50.0, reader=100.0), (40.0, 80.0, 120.0))
    _, data, events = http2.handle_timeout(conn, 120.0)
    assert (data, events) == (b"", [])
    _, _, events = http2.handle_timeout(conn, 220.0)
    assert [type(event) for event in events] == [RequestFailed]


def test_the_wake_up_is_not_late_after_a_slow_upload() -> None:
    """DESIGN §5: "Wake-ups may be early, never late"."""
    conn = slow(Clocks(write=50.0, reader=100.0), (40.0, 80.0, 120.0))
    for seconds in (120.0, 150.0, 220.0):
        _, _, events = http2.handle_timeout(altered(conn, wake=-INFINITY), seconds)
        if events:
            assert http2.next_timeout(conn) <= seconds


def test_idle_does_not_blame_the_peer_while_our_content_moves() -> None:
    """DESIGN §3, law 5: an early head, and then minutes of upload, each of them with progress."""
    conn, _ = start(settings=Settings(keepalive=None, output_budget=1))
    conn, _, _ = http2.request(conn, "PUT", "/", (), b"x" * 16_384 * 4, 0.0)
    conn = at(conn, 1.0, wire.headers_frame(1, OK))
    for now in (30.0, 60.0, 90.0):
        conn, data, _ = http2.flush(conn, now)
        assert len(sent(data)) == 1
        conn, data, events = http2.handle_timeout(conn, now + 1.0)
        assert (data, events) == (b"", [])
    conn, _, events = http2.handle_timeout(conn, math.nextafter(150.0, 0.0))
    assert events == []
    conn, _, events = http2.handle_timeout(conn, 150.0)
    assert [type(event) for event in events] == [RequestFailed]


def test_one_wake_up_ends_all_that_are_due() -> None:
    conn, _ = start()
    for deadline in (5.0, 3.0, 9.0, 3.0):
        conn, _, _ = http2.request(conn, "GET", "/", (), None, 0.0, deadline=deadline)
    conn, _, _ = http2.receive(conn, wire.ping(), 0.0)
    conn, _, events = http2.handle_timeout(conn, 4.0)
    assert [event.ref for event in events if isinstance(event, RequestFailed)] == [3, 7]
    assert http2.next_timeout(conn) == 5.0
    conn, _, events = http2.handle_timeout(conn, 1000.0)
    assert [event.ref for event in events if isinstance(event, RequestFailed)] == [1, 5]
    assert http2.next_timeout(conn) == INFINITY


def test_a_wake_up_before_its_time_is_harmless() -> None:
    conn = asking(CLOCKS, INFINITY)
    assert http2.handle_timeout(conn, 1.0) == (conn, b"", [])
    assert http2.handle_timeout(conn, -1e9) == (conn, b"", [])


def test_a_timeout_that_finds_nothing_due_sleeps_longer() -> None:
    conn = at(asking(CLOCKS, INFINITY), 30.0, INTERIM)
    assert http2.next_timeout(conn) <= 61.0
    conn, data, events = http2.handle_timeout(conn, 61.0)
    assert (data, events, http2.next_timeout(conn)) == (b"", [], 90.0)
    conn = at(conn, 65.0, wire.headers_frame(1, OK))
    assert http2.next_timeout(conn) <= 125.0


def test_a_clock_of_a_later_state_may_be_shorter() -> None:
    """The wake-up is set for whatever may run next."""
    clocks = Clocks(head=60.0, idle=1.0)
    conn = at(asking(clocks, INFINITY), 30.0, INTERIM)
    conn, _, _ = http2.handle_timeout(conn, 50.0)
    assert http2.next_timeout(conn) == 90.0
    conn = at(conn, 60.0, wire.headers_frame(1, OK))
    assert expire(conn, 61.0) == Failure("ReadTimeout", -1, "PUT /: 1.00 s of silence (idle=1)", 1, clock="idle")


# snapshot


def test_a_snapshot_says_where_everything_stands() -> None:
    conn, peer = start(
        (wire.INITIAL_WINDOW_SIZE, 8),
        (wire.MAX_CONCURRENT_STREAMS, 5),
        settings=Settings(keepalive=None, stream_window=100),
    )
    for content in (None, b"hello, world"):
        conn, data, _ = http2.request(conn, "PUT", f"/{len(content or b'')}", (), content, 1.0)
        peer.take(data)
    conn = at(conn, 2.0, peer.head(1), peer.data(1, b"abc"))
    conn, data, _ = http2.request(conn, "GET", "/last", (), None, 3.0, deadline=10.0)
    conn, _, _ = http2.cancel(conn, 5, 3.5)
    snapshot = http2.snapshot(conn, 4.0)
    assert (snapshot.protocol, snapshot.origin, snapshot.status) == ("HTTP/2", "https://a.test", "open")
    assert (snapshot.limit, snapshot.capacity, snapshot.unsent, snapshot.unconfirmed) == (5, 2, (), (5,))
    assert (snapshot.silence, snapshot.ping) == (2.0, 0.5)
    assert (snapshot.send_window, snapshot.recv_window) == (65_527, 16_777_213)
    assert (snapshot.unflushed, snapshot.written) == (8, conn.written)
    first, second = snapshot.requests
    assert (first.ref, first.method, first.target, first.status) == (1, "PUT", "/0", 200)
    assert (first.state, first.waits_for) == (
        "half-closed (local), receiving the response",
        "its reader: content unread",
    )
    assert (first.age, first.silence, first.clock, first.left) == (3.0, 2.0, "reader", 598.0)
    assert (first.received, first.unread, first.recv_window, first.send_window) == (3, 3, 97, 8)
    assert (second.ref, second.sent, second.queued, second.send_window) == (3, 8, 4, 0)
    assert (second.state, second.clock, second.left) == ("open, awaiting the response", "write", 57.0)
    assert (second.age, second.silence) == (3.0, 3.0)
    assert http2.snapshot(conn, 4.0) == snapshot


def test_content_that_waits_for_the_peer_says_so() -> None:
    """The window was shut in the very call in which the last content moved."""
    for windows in ((5, 10**6), (10**6, 5)):
        conn, _ = start((wire.INITIAL_WINDOW_SIZE, windows[0]))
        conn = altered(conn, send_window=windows[1])
        conn, _, _ = http2.request(conn, "PUT", "/", (), b"x" * 10, 1.0)
        assert http2.snapshot(conn, 2.0).requests[0].waits_for == "the peer's window"


def test_content_that_waits_for_our_socket_says_so() -> None:
    conn, _ = start(settings=Settings(keepalive=None, output_budget=1))
    conn, _, _ = http2.request(conn, "PUT", "/", (), b"x" * 20_000, 1.0)
    assert http2.snapshot(conn, 2.0).requests[0].waits_for == "room in the output"
    conn, _ = start((wire.INITIAL_WINDOW_SIZE, 0), settings=Settings(keepalive=None, output_budget=1))
    conn, _, _ = http2.request(conn, "PUT", "/", (), b"x" * 40_000, 1.0)
    assert http2.snapshot(conn, 2.0).requests[0].waits_for == "the peer's window"
    conn = at(conn, 3.0, wire.window_update(1, 50_000))
    assert http2.snapshot(conn, 4.0).requests[0].waits_for == "room in the output"


def test_who_has_to_move_now() -> None:
    conn, _ = start()
    conn, _, _ = http2.request(conn, "PUT", "/", (), None, 1.0, end=False)
    assert http2.snapshot(conn, 2.0).requests[0].waits_for == "its caller: content left open"
    conn, _ = http2.send_data(conn, 1, b"", 2.0, end=True)
    assert http2.snapshot(conn, 2.0).requests[0].waits_for == "the response's head"
    conn = at(conn, 3.0, wire.headers_frame(1, OK))
    assert http2.snapshot(conn, 3.0).requests[0].waits_for == "the rest of the response"
    conn = at(conn, 3.0, wire.data_frame(1, b"x"))
    assert http2.snapshot(conn, 3.0).requests[0].waits_for == "its reader: content unread"


def test_a_snapshot_in_words() -> None:
    assert http2.snapshot(http2.connect(ORIGIN, SETTINGS, 0.0)[0], 1.0).describe() == (
        "HTTP/2 to https://a.test, open: 0 of 100 slots taken, the peer was never heard of, no PING in flight"
    )
    conn = get(start(settings=MANY)[0], 0.0, 502)
    conn, _, _ = http2.receive(conn, wire.settings_ack(), 0.5)
    for ref in range(1, 1003, 2):
        conn, _, _ = http2.cancel(conn, ref, 1.0)
    conn, _, _ = http2.request(conn, "GET", "/x", (), None, 2.0, clocks=Clocks(None, None, None, None))
    conn, _, _ = http2.cancel(conn, 1005, 2.0)
    conn, _, _ = http2.request(conn, "GET", "/y", (), None, 3.0, clocks=Clocks(None, None, None, None))
    assert http2.snapshot(conn, 4.0).describe() == "\n".join(
        [
            "HTTP/2 to https://a.test, open: 3 of 1000 slots taken, the peer silent for 3.50 s, "
            "a PING unanswered for 2.00 s",
            "   1003 GET /: half-closed (local), awaiting the response; waits for the response's head; "
            "age 4.00 s, silent 4.00 s; head runs out in 56.00 s",
            "   1007 GET /y: half-closed (local), awaiting the response; waits for the response's head; "
            "age 1.00 s, silent 1.00 s; no clock runs",
            "   1005 reset; the peer has shown no life since it was opened",
        ]
    )


def test_a_snapshot_of_the_pacers_queue_in_words() -> None:
    conn = get(start(settings=MANY)[0], 0.0, 501)
    for ref in range(1, 1003, 2):
        conn, _, _ = http2.cancel(conn, ref, 1.0)
    lines = http2.snapshot(conn, 1.0).describe().split("\n")
    assert lines[0].startswith("HTTP/2 to https://a.test, open: 501 of 1000 slots taken, the peer silent for 1.00 s, ")
    assert lines[1] == "   1001 failed; its RST_STREAM waits for the pacer"
    assert lines[2] == "      1 reset; the peer has shown no life since it was opened"
    assert len(lines) == 502


def test_a_snapshot_after_the_end() -> None:
    conn, _, _ = http2.close(get(start()[0]), 1.0)
    shown = http2.snapshot(conn, 2.0)
    assert (shown.status, shown.requests, shown.capacity) == ("closed", (), 0)
    assert shown.describe().startswith("HTTP/2 to https://a.test, closed: 0 of 100 slots taken, the peer silent for ")


# Whole exchanges, with h2 as the server


class Served:
    """A connection and `h2` as its server, with nothing between them; the socket is flushed at once."""

    def __init__(self, settings: Settings = SETTINGS, announced: dict[int, int] | None = None) -> None:
        self.server = H2Connection(H2Configuration(client_side=False, header_encoding=False))
        self.conn, data = http2.connect(ORIGIN, settings, 0.0)
        self.seen: list[ServerEvent] = []
        self.events: list[Event] = []
        self.server.initiate_connection()
        self.pass_on(data)
        if announced is not None:
            self.announce(announced)

    def announce(self, pairs: dict[int, int]) -> None:
        self.server.update_settings({SettingCodes(name): value for name, value in pairs.items()})
        self.pass_on(b"")

    def pass_on(self, data: bytes) -> None:
        """What the client put out goes to the server, and back, until both are quiet."""
        while True:
            seen = self.server.receive_data(data) if data else []
            for event in seen:
                if isinstance(event, ServerDataReceived) and event.flow_controlled_length:
                    self.server.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            self.seen += seen
            self.conn, data, events = http2.receive(self.conn, self.server.data_to_send(), 0.0)
            self.conn, more, opened = http2.flush(self.conn, 0.0)
            self.events += events + opened
            data += more
            if not data:
                return

    def request(self, method: str, fields: Fields = (), content: bytes | None = None, end: bool = True) -> int:
        self.conn, data, ref = http2.request(self.conn, method, "/", fields, content, 0.0, end=end)
        self.pass_on(data)
        return ref

    def send(self, ref: int, content: bytes, end: bool = False, trailers: Fields = ()) -> None:
        self.conn, data = http2.send_data(self.conn, ref, content, 0.0, end=end, trailers=trailers)
        self.pass_on(data)

    def respond(self, ref: int, fields: Fields = ((b":status", b"200"),), end: bool = False) -> None:
        self.server.send_headers(ref, fields, end_stream=end)
        self.pass_on(b"")

    def respond_with(self, ref: int, content: bytes, end: bool = True) -> None:
        """All of this content, as the windows allow; the client reads it at once."""
        size = 0
        while size < len(content):
            room = min(self.server.local_flow_control_window(ref), self.server.max_outbound_frame_size)
            assert room > 0, "the client gave no credit"
            self.server.send_data(ref, content[size : size + room])
            size += room
            before = len(self.events)
            self.pass_on(b"")
            for event in self.events[before:]:
                if isinstance(event, DataReceived):
                    self.conn, data, _ = http2.consume(self.conn, ref, len(event.data), 0.0)
                    self.pass_on(data)
        if end:
            self.server.end_stream(ref)
            self.pass_on(b"")

    def content(self, ref: int) -> bytes:
        """What the client received."""
        return b"".join([event.data for event in self.events if isinstance(event, DataReceived) and event.ref == ref])

    def uploaded(self, ref: int) -> bytes:
        """What the server received."""
        return b"".join([e.data or b"" for e in self.seen if isinstance(e, ServerDataReceived) and e.stream_id == ref])


def test_h2_a_request_and_its_response() -> None:
    served = Served()
    ref = served.request("GET", ((b"Accept", b"*/*"), (b"cookie", b"a=b"), (b"host", b"other.test")))
    (request,) = [event for event in served.seen if isinstance(event, RequestReceived)]
    assert [(bytes(name), bytes(value)) for name, value in request.headers or []] == [
        *((b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"other.test"), (b":path", b"/")),
        *((b"accept", b"*/*"), (b"cookie", b"a=b")),
    ]
    served.respond(ref, ((b":status", b"200"), (b"content-length", b"5")))
    served.respond_with(ref, b"hello")
    assert served.events[1:] == [
        ResponseReceived(1, 200, ((b"content-length", b"5"),)),
        DataReceived(1, b"hello"),
        ResponseEnded(1),
    ]
    assert served.server.open_inbound_streams == served.conn.live == 0


@pytest.mark.parametrize("window", [1, 10, 65_535, 2**20])
def test_h2_a_large_upload(window: int) -> None:
    """§6.9: h2 counts what it is sent against its windows."""
    served = Served(announced={SettingCodes.INITIAL_WINDOW_SIZE: window})
    content = bytes(range(256)) * (4 * min(window, 4000))
    ref = served.request("POST", (), content)
    assert served.uploaded(ref) == content
    assert [type(event) for event in served.seen][-1] is StreamEnded
    served.respond(ref, end=True)
    assert served.events[-1] == ResponseEnded(ref)


@pytest.mark.parametrize("window", [100, 65_535, 2**21])
def test_h2_a_large_download(window: int) -> None:
    """§6.9: the credit that we give is what h2 needs."""
    served = Served(Settings(stream_window=window, connection_window=65_535))
    content = bytes(range(256)) * (20 * min(window, 2000) // 256 + 1)
    ref = served.request("GET")
    served.respond(ref)
    served.respond_with(ref, content)
    assert served.content(ref) == content
    assert served.events[-1] == ResponseEnded(ref)
    assert served.server.outbound_flow_control_window == served.conn.recv_window


@pytest.mark.fault("G13")
def test_h2_trailers_both_ways() -> None:
    """§8.1."""
    served = Served()
    ref = served.request("POST", (), b"hel", end=False)
    served.send(ref, b"lo", trailers=((b"x-sum", b"5"),))
    (trailers,) = [event for event in served.seen if isinstance(event, ServerTrailersReceived)]
    assert [(bytes(name), bytes(value)) for name, value in trailers.headers or []] == [(b"x-sum", b"5")]
    assert served.uploaded(ref) == b"hello"
    served.respond(ref)
    served.respond_with(ref, b"abc", end=False)
    served.respond(ref, ((b"x-sum", b"3"),), end=True)
    assert served.events[-2:] == [TrailersReceived(ref, ((b"x-sum", b"3"),)), ResponseEnded(ref)]


def test_h2_interim_responses_and_head() -> None:
    """§8.1; RFC 9110 §9.3.2."""
    served = Served()
    ref = served.request("HEAD")
    served.respond(ref, ((b":status", b"103"), (b"link", b"</a>")))
    served.respond(ref, ((b":status", b"100"),))
    served.respond(ref, ((b":status", b"200"), (b"content-length", b"99")), end=True)
    assert served.events[1:] == [
        InterimReceived(ref, 103, ((b"link", b"</a>"),)),
        InterimReceived(ref, 100, ()),
        ResponseReceived(ref, 200, ((b"content-length", b"99"),)),
        ResponseEnded(ref),
    ]


def test_h2_padding() -> None:
    """§6.1."""
    served = Served(Settings(stream_window=10_000))
    ref = served.request("GET")
    served.respond(ref)
    for _ in range(100):
        served.server.send_data(ref, b"x" * 300, pad_length=200)
        served.pass_on(b"")
        served.conn, data, _ = http2.consume(served.conn, ref, 300, 0.0)
        served.pass_on(data)
    served.server.send_data(ref, b"", end_stream=True, pad_length=0)
    served.pass_on(b"")
    assert served.content(ref) == b"x" * 30_000
    assert served.events[-1] == ResponseEnded(ref)


@pytest.mark.fault("A10")
def test_h2_a_cancelled_request() -> None:
    """§5.4.2: the sibling finishes."""
    served = Served()
    one, two = served.request("GET"), served.request("GET")
    served.conn, data, _ = http2.cancel(served.conn, one, 0.0)
    served.pass_on(data)
    (reset,) = [event for event in served.seen if isinstance(event, StreamReset)]
    assert (reset.stream_id, reset.error_code) == (one, ErrorCodes.CANCEL)
    assert any([isinstance(event, PingAckReceived) for event in served.seen]) is False
    served.respond(two, end=True)
    assert served.events[-1] == ResponseEnded(two)
    assert served.conn.control.unconfirmed == {}
    assert served.server.open_inbound_streams == 0


def test_h2_a_request_reset_by_the_server() -> None:
    """§6.4, §8.7."""
    served = Served()
    ref = served.request("POST", (), b"x", end=False)
    served.server.reset_stream(ref, ErrorCodes.REFUSED_STREAM)
    served.pass_on(b"")
    message = "POST /: the peer reset stream 1 [REFUSED_STREAM]"
    assert served.events[-1] == RequestFailed(ref, Failure("StreamReset", 7, message, ref, True))


@pytest.mark.rfc("9113-6.5.3-1", "9113-6.9.2-2")
def test_h2_settings_in_mid_flight() -> None:
    """§6.5.3, §6.9.2: windows, frame size, table size and limit change under running uploads."""
    served = Served(announced={SettingCodes.INITIAL_WINDOW_SIZE: 1000})
    refs = [served.request("POST", ((b"x-recurs", b"value"),), b"begun", end=False) for _ in range(3)]
    content = b""
    for window, frame, table in ((0, 16_384, 0), (70_000, 20_000, 4096), (5, 16_384, 50), (100_000, 2**24 - 1, 65_536)):
        served.announce(
            {
                SettingCodes.INITIAL_WINDOW_SIZE: window,
                SettingCodes.MAX_FRAME_SIZE: frame,
                SettingCodes.HEADER_TABLE_SIZE: table,
                SettingCodes.MAX_CONCURRENT_STREAMS: 3 + table % 3,
            }
        )
        piece = bytes((window % 256,)) * 3000
        content += piece
        for ref in refs:
            served.send(ref, piece)
    for ref in refs:
        served.send(ref, b"", end=True)
        assert served.uploaded(ref) == b"begun" + content
        served.respond(ref, end=True)
    assert [event for event in served.events if isinstance(event, RequestFailed)] == []
    assert served.conn.live == 0


@pytest.mark.parametrize("size", [0, 64, 4096, 65_536])
@pytest.mark.rfc("9113-6.5.2-1", "7541-4.2-1")
def test_h2_header_tables_of_any_size(size: int) -> None:
    """§4.3.1: h2 keeps to the size that we announced, and we to the size that it announced."""
    served = Served(Settings(header_table_size=size), {SettingCodes.HEADER_TABLE_SIZE: size})
    for number in range(50):
        fields = ((b"x-same", b"same"), (b"x-%d" % (number % 9), b"%d" % number), (b"x-long", b"v" * 200))
        ref = served.request("GET", fields)
        request = served.seen[-2]
        assert isinstance(request, RequestReceived)
        assert [(bytes(name), bytes(value)) for name, value in request.headers or []][4:] == list(fields)
        served.respond(ref, ((b":status", b"200"), *fields), end=True)
        assert served.events[-2:] == [ResponseReceived(ref, 200, fields), ResponseEnded(ref)]


@pytest.mark.rfc("9113-4.3-1")
def test_h2_large_heads_both_ways() -> None:
    """§6.10: CONTINUATION."""
    served = Served()
    fields = tuple([(b"x-%d" % number, b"~" * 500) for number in range(60)])
    ref = served.request("GET", fields)
    (request,) = [event for event in served.seen if isinstance(event, RequestReceived)]
    assert [(bytes(name), bytes(value)) for name, value in request.headers or []][4:] == list(fields)
    served.respond(ref, ((b":status", b"200"), *fields), end=True)
    assert served.events[-2:] == [ResponseReceived(ref, 200, fields), ResponseEnded(ref)]


@pytest.mark.fault("G6")
@pytest.mark.rfc("9113-8.1-7")
def test_h2_an_early_response_wins() -> None:
    """§8.1: the response is kept, the rest of the upload is not sent."""
    served = Served(announced={SettingCodes.INITIAL_WINDOW_SIZE: 0})
    ref = served.request("POST", (), b"x" * 100_000)
    served.respond(ref, ((b":status", b"413"),))
    served.respond_with(ref, b"too large")
    assert served.events[-3:] == [ResponseReceived(ref, 413, ()), DataReceived(ref, b"too large"), ResponseEnded(ref)]
    (reset,) = [event for event in served.seen if isinstance(event, StreamReset)]
    assert reset.error_code == ErrorCodes.CANCEL
    assert served.server.open_inbound_streams == served.conn.live == 0


def test_h2_goaway() -> None:
    """§6.8."""
    served = Served()
    served.request("GET")
    served.server.close_connection(ErrorCodes.ENHANCE_YOUR_CALM, b"calm", 0)
    served.pass_on(b"")
    message = "GET /: the peer said GOAWAY [ENHANCE_YOUR_CALM] before it acted on it"
    assert served.events[-2:] == [
        GoAwayReceived(0, 11, b"calm"),
        RequestFailed(1, Failure("ConnectionTerminated", 11, message, 1, True, 0)),
    ]
    served.conn, events = http2.closed(served.conn, 1.0, clean=True)
    assert events == [ConnectionClosed(None)]
    assert served.conn.status == CLOSED


def test_h2_our_goaway() -> None:
    """§6.8."""
    served = Served()
    served.request("GET")
    _, data, _ = http2.close(served.conn, 1.0)
    (event,) = served.server.receive_data(data)
    assert isinstance(event, ConnectionTerminated)
    assert (event.error_code, event.last_stream_id) == (ErrorCodes.NO_ERROR, 0)


def test_h2_a_hundred_requests_at_once() -> None:
    """§5.1.2: h2 refuses the first stream above the limit that it announced."""
    served = Served(MANY, {SettingCodes.MAX_CONCURRENT_STREAMS: 100})
    for turn in range(3):
        refs = [served.request("POST", ((b"x-turn", b"%d" % turn),), b"%d" % number) for number in range(100)]
        assert http2.capacity(served.conn) == 0
        for ref in refs[::-1]:
            served.respond(ref)
        for number, ref in enumerate(refs):
            served.respond_with(ref, b"%d" % number * 10)
            assert served.uploaded(ref) == b"%d" % number
            assert served.content(ref) == b"%d" % number * 10
        assert served.conn.live == served.server.open_inbound_streams == 0
