"""The HTTP/1.1 machine: its verbs by example, its laws as properties, and the same bytes given to h11.

Every verb in this file is called twice with the same arguments, and its input is compared with a copy made before (law 1).
"""

import pickle
import re
from collections.abc import Callable
from typing import Final, TypeVar, final

import h11
import hypothesis
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from calamint.core import http1, http1_state
from calamint.core.errors import AtCapacity, Failure, LocalProtocolError
from calamint.core.events import (
    ConnectionClosed,
    DataReceived,
    Event,
    GoAwayReceived,
    InterimReceived,
    PingAcknowledged,
    RequestFailed,
    ResponseEnded,
    ResponseReceived,
    SettingsReceived,
    TrailersReceived,
    WindowOpened,
)
from calamint.core.exchange import (
    CLOCKS,
    LOCAL_AWAITING,
    LOCAL_RECEIVING,
    OPEN_RECEIVING,
    SETTINGS,
    Clocks,
    Exchange,
    Settings,
)
from calamint.core.http1_state import HTTP1Connection
from calamint.core.url import Origin
from calamint.core.value import INFINITY, NEVER, Fields

ORIGIN: Final = Origin("http", "example.org", 80)
GET: Final = b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n"
POST: Final = b"POST / HTTP/1.1\r\nHost: example.org\r\n"
OK: Final = b"HTTP/1.1 200 OK\r\n"
HELLO: Final = OK + b"Content-Length: 5\r\n\r\nhello"
SIZED: Final = ((b"content-length", b"5"),)
CHUNKED: Final = OK + b"Transfer-Encoding: chunked\r\n\r\n"
CODED: Final = ((b"transfer-encoding", b"chunked"),)
FOREVER: Final = Clocks(None, None, None, None)

T = TypeVar("T")


def pure(verb: Callable[..., T], conn: HTTP1Connection, *arguments: object) -> T:
    """Law 1: "Same value and same arguments: same result. The input value is unchanged." Also where it raises."""
    before = pickle.dumps(conn)
    try:
        first = verb(conn, *arguments)
    except LocalProtocolError as wrong:
        assert pickle.loads(before) == conn
        with pytest.raises(LocalProtocolError, match=re.escape(str(wrong))):
            verb(conn, *arguments)
        raise
    assert verb(conn, *arguments) == first
    assert pickle.loads(before) == conn
    return first


@final
class Client:
    """A connection with all that came of it, and what must hold after each verb."""

    def __init__(self, settings: Settings = SETTINGS, origin: Origin = ORIGIN) -> None:
        self.now = 100.0
        self.conn, self.out = http1.connect(origin, settings, self.now)
        self.events: list[Event] = []
        self.began: list[int] = []

    def request(
        self,
        method: str = "GET",
        target: str = "/",
        fields: Fields = (),
        content: bytes | None = None,
        end: bool = True,
        deadline: float = INFINITY,
        clocks: Clocks = CLOCKS,
    ) -> bytes:
        arguments = (method, target, fields, content, self.now, end, deadline, clocks)
        self.conn, data, ref = pure(http1.request, self.conn, *arguments)
        self.began.append(ref)
        self.keep([], data)
        return data

    def send(self, data: bytes, end: bool = False, trailers: Fields = ()) -> bytes:
        self.conn, out = pure(http1.send_data, self.conn, self.ref, data, self.now, end, trailers)
        self.keep([], out)
        return out

    def receive(self, data: bytes) -> list[Event]:
        self.conn, out, events = pure(http1.receive, self.conn, data, self.now)
        assert out == b""
        return self.keep(events)

    def consume(self, size: int) -> list[Event]:
        self.conn, out, events = pure(http1.consume, self.conn, self.ref, size, self.now)
        return self.keep(events, out)

    def cancel(self) -> list[Event]:
        self.conn, out, events = pure(http1.cancel, self.conn, self.ref, self.now)
        return self.keep(events, out)

    def flush(self) -> tuple[bytes, list[Event]]:
        self.conn, out, events = pure(http1.flush, self.conn, self.now)
        return out, self.keep(events, out)

    def time_out(self, seconds: float = 0.0) -> list[Event]:
        self.now += seconds
        self.conn, out, events = pure(http1.handle_timeout, self.conn, self.now)
        return self.keep(events, out)

    def close(self) -> list[Event]:
        self.conn, out, events = pure(http1.close, self.conn, self.now)
        return self.keep(events, out)

    def closed(self, clean: bool = False, unsent: int = 0, reason: str = "") -> list[Event]:
        self.conn, events = pure(http1.closed, self.conn, self.now, unsent, clean, reason)
        return self.keep(events)

    @property
    def ref(self) -> int:
        return self.began[-1] if self.began else 1

    @property
    def record(self) -> Exchange:
        (record,) = self.conn.requests
        return record

    @property
    def is_open(self) -> bool:
        return self.conn.status == http1_state.OPEN

    def keep(self, events: list[Event], out: bytes = b"") -> list[Event]:
        conn = self.conn
        self.out += out
        self.events += events
        assert conn.written == len(self.out)
        assert conn.unflushed < conn.setup.settings.output_budget + 65_536
        assert http1.capacity(conn) == (self.is_open and not conn.requests)
        assert http1.next_timeout(conn) == conn.wake
        assert http1.wants_read(conn) is all([one.unread < conn.setup.settings.stream_window for one in conn.requests])
        assert ConnectionClosed not in [type(event) for event in self.events[:-1]]
        if not self.is_open:
            assert isinstance(self.events[-1], ConnectionClosed)
            assert (conn.requests, conn.buffer, conn.left, conn.wake) == ((), b"", 0, INFINITY)
        for record in conn.requests:
            assert conn.wake <= record.running_clock()[0]  # law 5: wake-ups may be early, never late
        check_order(self.events, [one for one in self.began if one not in [record.ref for record in conn.requests]])
        return events


def check_order(events: list[Event], over: list[int]) -> None:
    """Law 3: each request that is over ended once, in order; and each response came in the order of its parts."""
    ends: list[int] = []
    ranks: dict[int, int] = {}
    for event in events:
        assert not isinstance(event, PingAcknowledged | SettingsReceived | GoAwayReceived)
        if isinstance(event, ConnectionClosed | WindowOpened):
            continue
        assert not ends or event.ref > ends[-1]
        rank = {InterimReceived: 0, ResponseReceived: 1, DataReceived: 2, TrailersReceived: 3}.get(type(event), 4)
        before = ranks.get(event.ref, 0)
        assert rank > before or rank == before in (0, 2)
        assert before > 0 or rank in (0, 1) or isinstance(event, RequestFailed)
        ranks[event.ref] = rank
        if rank == 4:
            ends.append(event.ref)
    assert ends == over


def joined(events: list[Event]) -> list[Event]:
    """The events with neighbouring pieces of data made one (law 2)."""
    result: list[Event] = []
    for event in events:
        last = result[-1] if result else None
        if isinstance(event, DataReceived) and isinstance(last, DataReceived) and last.ref == event.ref:
            result[-1] = DataReceived(event.ref, last.data + event.data)
        else:
            result.append(event)
    return result


def broken(events: list[Event], kind: str = "RemoteProtocolError", unprocessed: bool = False) -> str:
    """The message of a failure that ended the request and the connection."""
    failed, ended = events[-2:]
    assert isinstance(failed, RequestFailed)
    assert isinstance(ended, ConnectionClosed)
    message = failed.failure.message
    lost = kind == "ReadError" and unprocessed
    clock = failed.failure.clock
    assert (f"({clock}" in message) if kind.endswith("Timeout") or kind == "DeadlineExceeded" else not clock
    assert failed.failure == Failure("WriteError" if lost else kind, -1, message, failed.ref, unprocessed, clock=clock)
    assert message.endswith("; the request had not left") == lost
    message = message.removesuffix("; the request had not left")
    assert ended.failure == Failure(kind, -1, message, clock=clock)
    return message


def replay(
    data: bytes, size: int, method: str = "GET", clean: bool | None = None, settings: Settings = SETTINGS
) -> tuple[list[Event], HTTP1Connection]:
    """What becomes of these bytes after a request, in pieces of this size, and of the connection."""
    conn, _ = http1.connect(ORIGIN, settings, 0.0)
    conn, _, ref = http1.request(conn, method, "/", (), None, 0.0)
    events: list[Event] = []
    for start in range(0, len(data), size):
        conn, out, happened = http1.receive(conn, data[start : start + size], 1.0)
        assert out == b""
        events += happened
    if clean is not None:
        conn, happened = http1.closed(conn, 2.0, 0, clean)
        events += happened
    check_order(events, [] if conn.requests else [ref])
    return joined(events), conn


def answered(
    data: bytes, method: str = "GET", clean: bool | None = None, settings: Settings = SETTINGS, pieces: int = 7
) -> list[Event]:
    """What becomes of these bytes after a request: all at once, in pieces, and one by one, which must say the same (law 2)."""
    whole = replay(data, 1_000_000, method, clean, settings)
    assert replay(data, pieces, method, clean, settings) == whole
    assert replay(data, 1, method, clean, settings) == whole
    client = Client(settings)
    client.request(method)
    client.receive(data)
    if clean is not None:
        client.closed(clean)
    assert joined(client.events) == whole[0]
    return whole[0]


# Sending


@pytest.mark.rfc("9112-2.2-4", "9112-3-1", "9110-8.6-2")
def test_a_request_without_content() -> None:
    client = Client()
    assert client.request() == GET
    assert client.conn.requests[0].state == LOCAL_AWAITING
    record = client.record
    assert record.sent_at == record.opened_at == 100.0
    assert (record.upload, record.expected, record.status, record.received, record.unread) == (None, -1, 0, 0, 0)
    assert client.record.head_offset == len(GET)
    assert client.receive(HELLO)[-1] == ResponseEnded(1)
    assert client.request("HEAD", "/x?y", ((b"A", b"b"),)) == b"HEAD /x?y HTTP/1.1\r\nHost: example.org\r\nA: b\r\n\r\n"
    assert client.ref == 2
    assert client.record.head_offset == len(client.out)


@pytest.mark.rfc("9112-3.2-3")
def test_authority() -> None:
    client = Client(origin=Origin("https", "::1", 8443))
    assert client.request() == b"GET / HTTP/1.1\r\nHost: [::1]:8443\r\n\r\n"


@pytest.mark.rfc("9112-2.2-5", "9112-6.3-10", "9112-6.3-11", "9110-8.6-1", "9110-8.6-4")
def test_content_of_known_length() -> None:
    for content in (b"", b"hello"):
        client = Client()
        assert client.request("POST", content=content) == POST + b"Content-Length: %d\r\n\r\n%b" % (
            len(content),
            content,
        )
        assert client.record.sent_at == 100.0
        with pytest.raises(LocalProtocolError, match="has been ended"):
            client.send(b"x")
    client = Client()
    assert client.request("POST", fields=SIZED, content=b"he", end=False) == POST + b"content-length: 5\r\n\r\nhe"
    for data, end in ((b"four", False), (b"a", True), (b"four", True)):
        with pytest.raises(LocalProtocolError, match=r"bytes where its content-length leaves 3 \(RFC 9110 §8.6\)"):
            client.send(data, end)
    with pytest.raises(LocalProtocolError, match="no place for trailers"):
        client.send(b"llo", trailers=((b"a", b"b"),))
    assert client.record.sent_at == NEVER
    assert client.send(b"llo", end=True) == b"llo"
    assert client.record.sent_at == 100.0
    for content_or_none, fields in ((None, SIZED), (b"", SIZED), (b"six", SIZED), (b"x", ((b"content-length", b"0"),))):
        with pytest.raises(LocalProtocolError, match="content-length leaves"):
            Client().request("POST", fields=fields, content=content_or_none)
    client = Client()
    assert client.request(fields=((b"content-length", b"0"),), end=False) == GET[:-2] + b"content-length: 0\r\n\r\n"
    assert client.record.sent_at == NEVER
    assert client.send(b"", end=True) == b""
    assert Client().request(fields=((b"content-length", b"0"),)) == GET[:-2] + b"content-length: 0\r\n\r\n"


@pytest.mark.rfc("9112-6-1", "9112-6.3-11")
def test_content_in_chunks() -> None:
    client = Client()
    head = POST + b"Transfer-Encoding: chunked\r\n\r\n"
    assert client.request("POST", end=False) == head
    assert client.send(b"") == b""
    assert client.send(b"hello") == b"5\r\nhello\r\n"
    assert client.send(b"x" * 65_537) == b"10000\r\n" + b"x" * 65_536 + b"\r\n1\r\nx\r\n"
    assert client.send(b"end", end=True) == b"3\r\nend\r\n0\r\n\r\n"
    with pytest.raises(LocalProtocolError, match="the content of request 1 has been ended"):
        client.send(b"", end=True)
    client.receive(HELLO)
    with pytest.raises(LocalProtocolError, match="request 1 is over"):
        client.send(b"x")
    assert client.request("POST", content=b"ab", end=False) == head + b"2\r\nab\r\n"
    trailers = ((b"Digest", b"x"), (b"b", b""))
    assert client.send(b"", trailers=trailers) == b"0\r\nDigest: x\r\nb: \r\n\r\n"
    client = Client()
    coded = POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n"
    fields = ((b"Transfer-Encoding", b"gzip, chunked"),)
    assert client.request("POST", fields=fields, content=b"abc") == coded + b"3\r\nabc\r\n0\r\n\r\n"
    assert Client().request("POST", fields=fields) == coded + b"0\r\n\r\n"


@pytest.mark.parametrize("name", [b"Content-Length", b"host", b"TE", b"transfer-encoding", b"Connection", b"trailer"])
@pytest.mark.rfc("9110-6.5.1-1")
def test_trailers_that_are_refused(name: bytes) -> None:
    client = Client()
    client.request("POST", end=False)
    with pytest.raises(LocalProtocolError, match=r"may not stand in trailers \(RFC 9110 §6.5.1\)"):
        client.send(b"x", trailers=((b"a", b"b"), (name, b"x")))
    with pytest.raises(LocalProtocolError, match="CR, LF or NUL"):
        client.send(b"x", trailers=((b"a", b"b\r\nc: d"),))
    assert client.send(b"", end=True) == b"0\r\n\r\n"


@pytest.mark.rfc("9112-2.2-2")
def test_what_may_not_be_sent_leaves_the_value_as_it_was() -> None:
    client = Client()
    for method, target, fields in (
        *(("GET /", "/", ()), ("CONNECT", "example.org", ()), ("GET", "", ()), ("GET", "/ HTTP/1.1\r\n\r\n", ())),
        *(("GET", "/", ((b"a\r\n", b"b"),)), ("GET", "/", ((b"a", b"b\n"),)), ("GET", "/", ((b"host", b"a\0"),))),
    ):
        with pytest.raises(LocalProtocolError):
            client.request(method, target, fields)
    assert client.out == b""
    client.request()
    with pytest.raises(AtCapacity, match="request 1 is outstanding, 1 allowed at once"):
        client.request()
    client.close()
    with pytest.raises(LocalProtocolError, match="the connection is closed: it takes no new requests"):
        client.request()


def test_content_waits_while_the_output_is_full() -> None:
    """At most a piece more than the budget is handed out and unflushed; what waits comes with `flush`."""
    client = Client(Settings(output_budget=100_000))
    client.request("POST", end=False)
    client.flush()
    sent = client.send(b"x" * 300_000)
    assert (sent.count(b"x"), client.conn.unflushed) == (131_072, 131_072)
    assert client.record.upload is not None and client.record.upload.queued == 168_928
    assert client.record.waits_for() == "room in the output"
    client.now += 1
    out, events = client.flush()
    assert (out.count(b"x"), events) == (131_072, [])
    assert client.record.upload.moved_at == 101.0
    out, events = client.flush()
    assert (out.count(b"x"), events) == (37_856, [WindowOpened(1)])
    out, events = client.flush()
    assert (out, events, client.conn.unflushed) == (b"", [], 0)
    assert client.flush() == (b"", [])
    client.send(b"y" * 300_000, end=True)
    assert client.flush()[0].count(b"y") == 131_072
    assert client.record.sent_at == NEVER
    out, events = client.flush()
    assert out.endswith(b"yy\r\n0\r\n\r\n") and events == []
    assert client.record.sent_at == 101.0
    client.receive(HELLO)
    client.request()
    assert client.flush() == (b"", [])


def test_what_is_not_said() -> None:
    """Content is left open, the end of the transport was not orderly, and all had left before it."""
    conn, _ = http1.connect(ORIGIN, SETTINGS, 0.0)
    conn, _, ref = http1.request(conn, "POST", "/", (), b"a", 0.0, False)
    conn, _ = http1.send_data(conn, ref, b"b", 0.0)
    conn, data = http1.send_data(conn, ref, b"c", 0.0, True)
    assert data == b"1\r\nc\r\n0\r\n\r\n"
    assert "the connection broke before" in broken(http1.closed(conn, 0.0)[1], "ReadError", False)


def test_the_last_content_of_one_request_may_be_unflushed_when_the_next_begins() -> None:
    client = Client()
    client.request("POST", content=b"abc")
    assert client.conn.unflushed == 3
    client.receive(HELLO)
    client.request("POST", end=False)
    assert client.flush() == (b"", [])
    assert client.conn.unflushed == 0


# Receiving


@pytest.mark.rfc("9112-9.2-2", "9112-9.3-1")
def test_responses_one_after_another() -> None:
    client = Client()
    for ref in (1, 2, 3):
        client.now += 1
        client.request()
        head = ResponseReceived(ref, 200, SIZED, b"OK")
        assert client.receive(HELLO) == [head, DataReceived(ref, b"hello"), ResponseEnded(ref)]
        assert client.conn.heard_at == client.now
    assert client.is_open
    assert client.receive(b"") == []


@pytest.mark.rfc("9112-6.3-1", "9110-6.4.1-1")
def test_head_in_pieces() -> None:
    expected = [ResponseReceived(1, 200, SIZED, b"OK"), DataReceived(1, b"hello"), ResponseEnded(1)]
    assert answered(HELLO) == expected
    for method, status in (("HEAD", b"200 OK"), ("GET", b"204 No Content"), ("GET", b"304 Not Modified")):
        for fields in (b"", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n"):
            events = answered(b"HTTP/1.1 " + status + b"\r\n" + fields + b"\r\n", method)
            assert [type(event) for event in events] == [ResponseReceived, ResponseEnded]
    assert answered(OK + b"Content-Length: 0\r\n\r\n")[-1] == ResponseEnded(1)
    assert answered(b"HTTP/1.1 200\r\nA: \xe9\r\n b\r\ncontent-length: 0\r\n\r\n")[0] == ResponseReceived(
        1, 200, ((b"a", b"\xe9 b"), (b"content-length", b"0")), b""
    )


def test_content_is_delivered_as_it_arrives() -> None:
    client = Client()
    client.request()
    head = ResponseReceived(1, 200, CODED, b"OK")
    assert client.receive(CHUNKED + b"fffffffffffffff\r\nabc") == [head, DataReceived(1, b"abc")]
    assert client.receive(b"de") == [DataReceived(1, b"de")]
    assert (client.conn.buffer, client.record.received, client.record.state) == (b"", 5, LOCAL_RECEIVING)
    assert client.record.expected == -1
    client = Client()
    client.request()
    client.receive(CHUNKED + b"5\r\nhello\r\n")
    assert client.conn.buffer == b""
    assert client.receive(b"3\r\nabc\r\n2\r\nde\r\n") == [DataReceived(1, b"abcde")]  # what comes at once is one piece
    client = Client()
    client.request()
    assert client.receive(OK + b"Content-Length: 10\r\n\r\nabc")[1] == DataReceived(1, b"abc")
    assert client.receive(b"de") == [DataReceived(1, b"de")]
    assert (client.record.expected, client.record.unread) == (5, 5)
    assert client.receive(b"fghij") == [DataReceived(1, b"fghij"), ResponseEnded(1)]


@pytest.mark.rfc(
    "9112-6.1-1",
    "9112-6.3-4",
    "9112-7.1-1",
    "9112-7.1.1-1",
    "9112-7.1.2-1",
    "9112-7.1.2-2",
    "9112-7.1.3-1",
    "9110-6.5.1-2",
)
def test_chunks_and_trailers() -> None:
    chunks = b'3\r\nabc\r\n00a;x="y"\r\ndefghijklm\r\n0;z\r\n'
    head = ResponseReceived(1, 200, CODED, b"OK")
    data = DataReceived(1, b"abcdefghijklm")
    assert answered(CHUNKED + chunks + b"\r\n") == [head, data, ResponseEnded(1)]
    trailers = TrailersReceived(1, ((b"a", b"b c"), (b"content-length", b"x")))
    trailed = CHUNKED + chunks + b"A: b\r\n\tc\r\nContent-Length: x\r\n\r\n"
    assert answered(trailed) == [head, data, trailers, ResponseEnded(1)]
    coded = OK + b"Transfer-Encoding: gzip\r\nTransfer-Encoding: x, chunked\r\n\r\n"
    assert answered(coded + chunks + b"\r\n")[1:] == [data, ResponseEnded(1)]


@pytest.mark.fault("G2")
@pytest.mark.rfc("9110-15.2-1", "9110-15.2-2")
def test_interim_responses() -> None:
    client = Client()
    client.request()
    client.now += 1
    assert client.receive(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n") == [
        InterimReceived(1, 103, ((b"link", b"</a>"),))
    ]
    assert client.record.interim_at == 101.0
    assert client.receive(b"HTTP/1.1 199 x\r\n\r\n") == [InterimReceived(1, 199, ())]
    interim = b"HTTP/1.1 100 Continue\r\n\r\n"
    events = answered(interim * 16 + HELLO)
    assert events[:16] == [InterimReceived(1, 100, ())] * 16
    assert [type(event) for event in events[16:]] == [ResponseReceived, DataReceived, ResponseEnded]
    events = answered(interim * 17 + HELLO)
    assert broken(events) == "interim responses above our limit: allowed are 16 (RFC 9110 §15.2)"
    assert len(events) == 18
    client = Client()
    for _ in range(3):  # the limit is of one request
        client.request()
        assert client.receive(interim * 10 + HELLO)[-1] == ResponseEnded(client.ref)
    assert "no upgrade was asked for" in broken(answered(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\nabc"))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"HTTP/1.1 200 OK\n\nhello", r"is not of the form"),
        (b"\r\n" + HELLO, r"begins with b'', not with HTTP/1. \(RFC 9112 §2.3\)"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", r"begins with b'SSH-2.0'"),
        (b"\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0\x64", r"begins with b'\\x00\\x00\\x12\\x04"),
        (b"HTTP/1.1 200 OK\r\nA : b\r\n\r\n", r"is not a token"),
        (b"HTTP/1.1 200 OK\r\nA: b\nC: d\r\n\r\n", r"a bare LF"),
        (b"HTTP/1.1 200 OK\r\n a: b\r\n\r\n", r"a folded line after b'the status line'"),
        (OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", r"is not one number"),
        (OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", r"together with content-length"),
        (
            CHUNKED + b"5\r\nhello0\r\n\r\n",
            r"^b'0\\r' after a chunk's data, where a CRLF must stand \(RFC 9112 §7.1\)$",
        ),
        (CHUNKED + b"5\r\nhello\n0\r\n\r\n", r"after a chunk's data"),
        (CHUNKED + b"+5\r\nhello\r\n0\r\n\r\n", r"1 to 16 hex digits, extensions, CRLF"),
        (CHUNKED + b"5\nhello\r\n0\r\n\r\n", r"the chunk-size line b'5\\n' is not of the form"),
        (CHUNKED + b"0\r\nA: b\nc\r\n\r\n", r"a bare LF"),
    ],
)
@pytest.mark.rfc("9112-6.3-3", "9112-6.3-6", "9112-8-1")
def test_what_breaks_http_ends_the_request_and_the_connection(data: bytes, words: str) -> None:
    """Law 6."""
    assert re.search(words, broken(answered(data)))


def test_what_came_before_the_fault_is_kept() -> None:
    events = answered(CHUNKED + b"3\r\nabc\r\nx\r\n")
    assert events[:2] == [ResponseReceived(1, 200, CODED, b"OK"), DataReceived(1, b"abc")]
    assert len(events) == 4


@pytest.mark.fault("G9")
def test_chunk_line_limit() -> None:
    """256 bytes without the CRLF; one byte more is seen before the line ends."""
    assert isinstance(answered(CHUNKED + b"5;" + b"a" * 254 + b"\r\n")[-1], ResponseReceived)
    for line in (b"5;" + b"a" * 256, b"5;" + b"a" * 255 + b"\r\n", b"0" * 1000, b"0" * 1_000_000):
        events, _ = replay(CHUNKED + line, 300 if len(line) > 1000 else 1)
        assert broken(events) == "a chunk-size line above our limit: allowed are 256 bytes (RFC 9112 §7.1)"


@pytest.mark.fault("G9")
@pytest.mark.parametrize("start", [OK, CHUNKED + b"0\r\n"])
def test_section_limits(start: bytes) -> None:
    """The same verdict whether the end of the section has come or not, and of a byte at a time (law 2)."""
    for lines, allowed in (
        (b"x: " + b"y" * 1959 + b"\r\n", True),  # 1964 bytes, and 32 for the field
        (b"x: " + b"y" * 1964 + b"\r\n", False),
        (b"x: " + b"y" * 3000, False),
        (b"x: " + b" " * 3000, False),
        (b"x: y\r\n" * 8, True),
        (b"x: y\r\n" * 9, False),
    ):
        settings = Settings(max_field_section=2000, max_fields=8)
        events = answered(start + lines + b"\r\n", "HEAD" if start == OK else "GET", settings=settings)
        if allowed:
            assert events[-1] == ResponseEnded(1)
        else:
            words = "a field section above our limits: allowed are 2000 bytes (32 a field) and 8 fields"
            assert broken(events) == words


def test_a_section_above_the_limit_is_seen_before_it_ends() -> None:
    """As soon as no end could make it smaller: a CR may be the first of its last four bytes."""
    for start in (OK, CHUNKED + b"0\r\n"):
        client = Client(Settings(max_field_section=2000))
        client.request()
        client.receive(start + b"x" * 2001)
        assert client.conn.requests
        assert "allowed are 2000 bytes" in broken(client.receive(b"x"))


@pytest.mark.fault("G9")
def test_status_line_limit() -> None:
    for end in (b"", b"\r\n\r\n"):
        assert "allowed are 8192 bytes" in broken(answered(OK[:13] + b"x" * 9000 + end, pieces=100))
    assert answered(OK[:13] + b"x" * 8179 + b"\r\n\r\n", "HEAD", pieces=100)[-1] == ResponseEnded(1)


@pytest.mark.fault("G10")
def test_work_is_linear_in_the_bytes_received() -> None:
    """A head and trailers of 20 KiB, and 20 KiB of small chunks, each a byte at a time: none is searched from its start."""
    field = b"x: " + b"y" * 1000 + b"\r\n"
    chunks = b"1\r\nx\r\n" * 3_400 + b"0\r\n"
    events, _ = replay(CHUNKED[:-2] + field * 20 + b"\r\n" + chunks + field * 20 + b"\r\n", 1)
    assert events[-1] == ResponseEnded(1)


# Ends


@pytest.mark.rfc("9112-6.3-13", "9112-9.2-3", "9112-9.2-4")
def test_bytes_that_nobody_asked_for_condemn_the_connection() -> None:
    """RFC 9112 §9.2; also in one read with the response before, and whatever they are."""
    unasked = Failure("RemoteProtocolError", -1, "the peer sent bytes while no request was outstanding (RFC 9112 §9.2)")
    for extra in (b"x", b"\r\n", HELLO):
        for data in (HELLO, CHUNKED + b"0\r\n\r\n", CHUNKED + b"0\r\nA: b\r\n\r\n", b"HTTP/1.1 204\r\n\r\n"):
            assert answered(data + extra)[-2:] == [ResponseEnded(1), ConnectionClosed(unasked)]
        client = Client()
        assert client.receive(extra) == [ConnectionClosed(unasked)]
        assert client.receive(extra) == []
        client = Client()
        client.request()
        client.receive(HELLO)
        assert client.receive(extra) == [ConnectionClosed(unasked)]


@pytest.mark.parametrize(
    ("fields", "data"),
    [
        (((b"Connection", b"close"),), HELLO),
        ((), OK + b"Connection: close\r\nContent-Length: 5\r\n\r\nhello"),
        ((), CHUNKED[:-2] + b"connection: x, Close\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
        ((), b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello"),
        ((), b"HTTP/1.1 103 x\r\nConnection: close\r\n\r\n" + HELLO),
    ],
)
@pytest.mark.rfc("9112-9.6-2", "9112-9.6-3")
def test_a_connection_that_ends_with_its_response(fields: Fields, data: bytes) -> None:
    """§9.3, §9.6; and then nothing that comes is looked at."""
    client = Client()
    client.request(fields=fields)
    assert client.receive(data + b"more")[-2:] == [ResponseEnded(1), ConnectionClosed(None)]
    assert client.closed() == []
    client = Client()
    client.request()
    kept = b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 5\r\n\r\nhello"
    assert client.receive(kept)[-1] == ResponseEnded(1)
    assert client.is_open


@pytest.mark.rfc("9112-6.3-5", "9112-6.3-9", "9112-8-4")
def test_a_response_that_ends_with_the_connection() -> None:
    """§6.3, §8: complete if the end was orderly; also where a coding other than chunked is the last."""
    for head in (OK + b"\r\n", OK + b"Transfer-Encoding: chunked, gzip\r\n\r\n", b"HTTP/1.0 200 OK\r\n\r\n"):
        events = answered(head + b"abc\r\n\r\ndef", pieces=9, clean=True)
        assert events[1:] == [DataReceived(1, b"abc\r\n\r\ndef"), ResponseEnded(1), ConnectionClosed(None)]
        assert answered(head, clean=True)[1:] == [ResponseEnded(1), ConnectionClosed(None)]
        message = broken(answered(head + b"abc", clean=False), "ReadError")
        assert message == "the connection broke within content that only an orderly end completes (RFC 9112 §8)"


@pytest.mark.fault("G5")
@pytest.mark.parametrize(
    ("data", "where"),
    [
        (b"", "before the response came"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", "before the response came"),
        (b"HTTP", "within the head of the response"),
        (OK + b"Content-Length: 5\r\n", "within the head of the response"),
        (OK + b"Content-Length: 5\r\n\r\n", "5 bytes short of its content-length"),
        (HELLO[:-1], "1 bytes short of its content-length"),
        (CHUNKED, "before the end of the last chunk and its trailers"),
        (CHUNKED + b"5", "before the end of the last chunk and its trailers"),
        (CHUNKED + b"5\r\n", "5 bytes short of a chunk, and before the last one"),
        (CHUNKED + b"5\r\nhel", "2 bytes short of a chunk, and before the last one"),
        (CHUNKED + b"5\r\nhello", "before the end of the last chunk and its trailers"),
        (CHUNKED + b"5\r\nhello\r\n0\r\n", "before the end of the last chunk and its trailers"),
        (CHUNKED + b"5\r\nhello\r\n0\r\nA: b\r\n", "before the end of the last chunk and its trailers"),
    ],
)
@pytest.mark.rfc("9112-6.3-8", "9112-8-1", "9112-8-2", "9112-8-3")
def test_a_response_cut_short(data: bytes, where: str) -> None:
    for clean, how in ((True, "the peer closed the connection"), (False, "the connection broke")):
        assert broken(answered(data, clean=clean), "ReadError") == f"{how} {where} (RFC 9112 §8)"


@pytest.mark.rfc("9112-9.5-2")
def test_the_end_of_the_transport() -> None:
    client = Client()
    assert client.closed() == [ConnectionClosed(None)]
    assert client.closed() == []
    for unsent, unprocessed in ((0, False), (1, True), (len(GET), True)):
        client = Client()
        client.request()
        assert "(RFC 9112 §8; reset)" in broken(client.closed(True, unsent, "reset"), "ReadError", unprocessed)
    client = Client()
    client.request("POST", content=b"abc")
    assert "before the response came" in broken(client.closed(unsent=3), "ReadError", False)
    client = Client()
    client.request("POST", content=b"abc")
    broken(client.closed(unsent=4), "ReadError", True)


@pytest.mark.rfc("9112-9.5-3")
def test_a_response_before_the_content_is_sent() -> None:
    """The response wins: unsent content is dropped and the connection closes after it; if it is sent by then, it stays."""
    for data in (HELLO, HELLO[:-1], OK + b"Content-Length: 0\r\n\r\n", CHUNKED + b"0\r\n\r\n"):
        client = Client(Settings(output_budget=1))
        client.request("POST", content=b"x" * 200_000, end=False)
        client.receive(data)
        if data == HELLO[:-1]:
            assert client.record.state == OPEN_RECEIVING
            client.flush()
            client.receive(HELLO[-1:])
        assert client.events[-2:] == [ResponseEnded(1), ConnectionClosed(None)]
        with pytest.raises(LocalProtocolError, match="is over"):
            client.send(b"x")
        assert client.flush() == (b"", [])
    client = Client()
    client.request("POST", end=False)
    client.receive(HELLO[:-1])
    client.send(b"abc", end=True)
    assert client.record.state == LOCAL_RECEIVING
    assert client.receive(HELLO[-1:]) == [DataReceived(1, b"o"), ResponseEnded(1)]
    assert client.is_open


@pytest.mark.rfc("9112-9.3-4")
def test_cancel_and_close() -> None:
    client = Client()
    assert client.cancel() == []
    client.request("GET", "/a")
    assert broken(client.cancel(), "StreamClosed") == "GET /a: cancelled by its caller"
    assert client.cancel() == client.close() == client.receive(HELLO) == client.time_out(1000) == []
    client = Client()
    client.request()
    assert broken(client.close(), "StreamClosed") == "the connection was closed by this side"
    assert Client().close() == [ConnectionClosed(Failure("StreamClosed", -1, "the connection was closed by this side"))]


@pytest.mark.fault("B10")
def test_backpressure() -> None:
    """Law 8: the driver stops to read when a window of content waits unread."""
    client = Client(Settings(stream_window=10))
    client.request()
    client.receive(OK + b"Content-Length: 100\r\n\r\n123456789")
    assert http1.wants_read(client.conn)
    client.receive(b"0")
    assert not http1.wants_read(client.conn)
    for size in (-1, 11):
        with pytest.raises(LocalProtocolError, match=f"{size} bytes consumed of request 1, 10 were unread"):
            client.consume(size)
    client.now += 1
    assert client.consume(0) == client.consume(4) == []
    assert http1.wants_read(client.conn)
    assert (client.record.unread, client.record.received, client.record.reader_at) == (6, 10, 101.0)
    client.receive(b"x" * 90)
    assert client.consume(96) == []
    client.request()
    assert pure(http1.consume, client.conn, 1, 10, client.now) == (client.conn, b"", [])


# Clocks


def test_milestones() -> None:
    client = Client()
    client.request("POST", end=False)
    times: list[float] = []
    for data in (HELLO[:20], HELLO[20:-5], b"h", b"e", b"l"):
        client.now += 1
        times.append(client.now)
        client.receive(data)
    record = client.record
    assert (record.opened_at, record.sent_at, record.interim_at) == (100.0, NEVER, NEVER)
    assert (record.head_at, record.first_data_at, record.last_data_at) == (times[1], times[2], times[4])
    assert (record.status, record.unread_at, record.reader_at) == (200, times[2], NEVER)
    client.consume(3)
    assert client.record.reader_at == times[4]
    client.now += 1
    client.receive(b"l")
    assert (client.record.unread_at, client.record.first_data_at) == (client.now, times[2])
    client.send(b"abc")
    assert client.record.reader_at == client.now
    client.now = 0.0  # a clock that goes back is not followed
    client.send(b"", end=True)
    assert client.record.sent_at == 106.0


@pytest.mark.parametrize(
    ("clocks", "data", "end", "seconds", "kind", "words"),
    [
        (Clocks(), b"", True, 60, "ReadTimeout", "(head=60)"),
        (Clocks(head=5), b"HTTP/1.1 200 O", True, 5, "ReadTimeout", "(head=5)"),
        (Clocks(), HELLO[:-5], True, 60, "ReadTimeout", "(idle=60)"),
        (Clocks(), HELLO[:-1], True, 600, "ReadTimeout", "4 bytes of content"),
        (Clocks(), b"", False, 600, "ReadTimeout", "(reader=600)"),
        (Clocks(write=7), b"", False, 7, "WriteTimeout", "(write=7)"),
    ],
)
@pytest.mark.rfc("9112-9.5-1")
def test_clocks(clocks: Clocks, data: bytes, end: bool, seconds: float, kind: str, words: str) -> None:
    client = Client(Settings(output_budget=1))
    if end:
        client.request("GET", "/a", clocks=clocks)
    else:
        client.request("POST", "/a", content=b"x" * (65_537 if clocks.write < 60 else 1), end=False, clocks=clocks)
    client.receive(data)
    assert client.time_out(seconds - 0.25) == []
    assert http1.next_timeout(client.conn) == 100.0 + seconds
    assert words in broken(client.time_out(0.25), kind)
    assert client.time_out(1) == []


def test_deadline_and_clocks_that_are_off() -> None:
    client = Client()
    client.request(deadline=105.0, clocks=FOREVER)
    assert http1.next_timeout(client.conn) == 105.0
    assert client.time_out(4) == []
    client.receive(HELLO[:-1])
    assert "(total) came 5" in broken(client.time_out(1), "DeadlineExceeded")
    client = Client()
    client.request(clocks=FOREVER)
    assert http1.next_timeout(client.conn) == INFINITY
    client.receive(HELLO)
    client.request()
    client.receive(HELLO)
    client.request(clocks=FOREVER)
    assert client.time_out(59) == []
    assert http1.next_timeout(client.conn) == 160.0  # early, never late: nothing is done at completion
    assert client.time_out(1) == []
    assert http1.next_timeout(client.conn) == INFINITY


def test_a_wake_up_comes_nearer_when_another_clock_runs() -> None:
    """While our content is open it is our turn; once it is ended, the peer has a minute."""
    client = Client()
    client.request("POST", end=False)
    assert client.time_out(60) == []
    assert http1.next_timeout(client.conn) == 700.0
    client.send(b"", end=True)
    assert http1.next_timeout(client.conn) == 220.0
    assert "head=60" in broken(client.time_out(60), "ReadTimeout")


def test_snapshot() -> None:
    client = Client(origin=Origin("https", "example.org", 8443))
    shot = pure(http1.snapshot, client.conn, client.now)
    assert (shot.protocol, shot.origin, shot.status) == ("HTTP/1.1", "https://example.org:8443", "open")
    assert (shot.limit, shot.capacity, shot.silence, shot.ping, shot.send_window) == (1, 1, INFINITY, None, None)
    client.request("POST", "/a", content=b"abc")
    client.receive(HELLO[:-1])
    shot = pure(http1.snapshot, client.conn, client.now + 2)
    (request,) = shot.requests
    assert (request.ref, request.unread, request.sent, request.recv_window, request.silence) == (1, 4, 3, None, 2.0)
    assert (shot.capacity, shot.silence, shot.unflushed, shot.written) == (0, 2.0, 3, len(client.out))
    assert "HTTP/1.1 to https://example.org:8443, open: 1 of 1 slots taken" in shot.describe()
    client.close()
    assert http1.snapshot(client.conn, client.now).status == "closed"


# Laws

PLAIN: Final = (
    b"Server: x|A:|a:\tb \t|Set-Cookie: a=1|X: y\r\n z|X: \x0b\xe9|Connection: close|Connection: Keep-Alive, x"
)
ODD: Final = (
    b"A : b|A|Content-Length: 3, 3|Content-Length: 5|Content-Length: 0|Content-Length: 05|Content-Length: 5\r\n 5|"
    b"Transfer-Encoding: chunked|Transfer-Encoding: Chunked|Transfer-Encoding: gzip|Connection:\r\n close"
)
FIRST: Final = (
    b"HTTP/1.1 200 OK|HTTP/1.1 200 OK|HTTP/1.1 200 OK|HTTP/1.1 100 Continue|HTTP/1.1 103 x|HTTP/1.1 101 x|HTTP/1.1 204 x|"
    b"HTTP/1.1 304|HTTP/1.1 404 |HTTP/1.0 200 OK|HTTP/1.0 404 x\xe9|HTTP/1.3 200 x|HTTP/2.0 200 x|HTTP/1.1 20 x|HTTP/1.1 200 \x01"
)
# A framing field and content that goes with it, or nearly so.
FRAMED: Final = (
    b"Content-Length: 5\r\n\r\nhello|Content-Length: 3, 3\r\n\r\nabc|Content-Length: 0\r\n\r\n|Content-Length: 10\r\n\r\nhello|"
    b"Server: x\r\n\r\nuntil it closes|Transfer-Encoding: gzip\r\n\r\nhello|Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n|"
    b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n|Transfer-Encoding: Chunked\r\n\r\n0\r\n\r\n|"
    b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA\r\n0123456789\r\n00\r\n\r\n|"
    b"Transfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nA: b\r\nB:\r\n c\r\n\r\n|"
    b"Transfer-Encoding: chunked\r\n\r\n5;\r\nhello\r\n0\r\n\r\n|Transfer-Encoding: chunked\r\n\r\n5\r\nhello0\r\n\r\n|"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 1, 2\r\n\r\n|Transfer-Encoding: chunked\r\n\r\n0\r\nA b\r\n\r\n"
)
JUNK: Final = b"\r|\n|\r\n|\0| |\t|:|;|,|0|5|x|chunked|\x0b|\xff|\r\n\r\n"


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """Responses: most of them good, some odd, with a few bytes changed now and then."""
    lines = draw(st.lists(st.sampled_from(PLAIN.split(b"|")), max_size=2))
    data = b""
    if draw(st.sampled_from([False, False, True])):
        odd = draw(st.lists(st.sampled_from(ODD.split(b"|")), max_size=2))
        data = b"\r\n".join([draw(st.sampled_from(FIRST.split(b"|"))), *lines, *odd, b"", b""])
    if not data or draw(st.booleans()):
        data += b"\r\n".join(
            [draw(st.sampled_from(FIRST.split(b"|")[:4])), *lines, draw(st.sampled_from(FRAMED.split(b"|")))]
        )
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 1, 2]))):
        start = draw(st.integers(0, len(data)))
        stop = min(len(data), start + draw(st.sampled_from([0, 0, 1, 1, 2, 20])))
        changed = draw(st.sampled_from([b"", data[start:stop] * 2, *JUNK.split(b"|")]))
        data = data[:start] + changed + data[stop:]
    return data


METHODS: Final = st.sampled_from(["GET", "GET", "GET", "HEAD", "POST"])


@given(
    messages() | st.binary(max_size=50),
    st.lists(st.integers(0, 200), max_size=6),
    METHODS,
    st.sampled_from([None, True, False]),
)
@pytest.mark.rfc("9112-2.2-1")
def test_any_split_gives_the_same(data: bytes, places: list[int], method: str, clean: bool | None) -> None:
    """Law 2, and law 6: whatever comes, nothing is raised."""
    whole = answered(data, method, clean)
    cuts = [0, *sorted([min(place, len(data)) for place in places]), len(data)]
    client = Client()
    client.request(method)
    for start, stop in zip(cuts, cuts[1:], strict=False):
        client.receive(data[start:stop])
    if clean is not None:
        client.closed(clean)
    assert joined(client.events) == whole


@given(messages(), METHODS)
def test_what_is_remembered_changes_nothing(data: bytes, method: str) -> None:
    """The memos are caches: with limits below what they keep, nothing is remembered, and nothing else differs."""
    settings = Settings(max_field_section=4000, max_fields=60)
    assert [replay(data, 1000, method)[0] for _ in range(3)] == [replay(data, 1000, method, settings=settings)[0]] * 3


STEPS: Final = st.one_of(
    st.tuples(st.just("receive"), messages()),
    st.tuples(
        st.just("receive"), st.sampled_from([HELLO, HELLO[:30], HELLO[30:], CHUNKED, b"5\r\nhello\r\n", b"0\r\n\r\n"])
    ),
    st.tuples(st.just("request"), st.sampled_from([b"", b"open", b"content", b"close"])),
    st.tuples(st.just("send"), st.sampled_from([b"", b"abc", b"x" * 70_000, b"end", b"trailers"])),
    st.tuples(
        st.sampled_from(["consume", "consume", "flush", "flush", "wait", "cancel", "close", "closed", "clean"]),
        st.just(b""),
    ),
)


@given(st.lists(STEPS, max_size=12), st.sampled_from([SETTINGS, Settings(output_budget=1, stream_window=5)]))
def test_whatever_is_done_each_request_ends_once(steps: list[tuple[str, bytes]], settings: Settings) -> None:
    """Laws 1, 3, 5, 6, 8: what `Client` and `check_order` hold after every step, until the end."""
    client = Client(settings)
    for name, data in [("request", b""), *steps]:
        client.now += 0.5
        try:
            take_step(client, name, data)
        except LocalProtocolError:
            pass
    client.close()
    assert client.out.count(b"HTTP/1.1\r\n") == len(client.began)


def take_step(client: Client, name: str, data: bytes) -> None:
    if name == "receive":
        client.receive(data)
    elif name == "request" and data:
        content = data if data == b"content" else None
        client.request(
            "POST", fields=((b"Connection", data),), content=content, end=data != b"open", deadline=client.now + 90
        )
    elif name == "request":
        client.request()
    elif name == "send":
        client.send(data, data == b"end", ((b"a", b"b"),) if data == b"trailers" else ())
    elif name == "consume" and client.conn.requests:
        client.consume((client.record.unread + 1) // 2)
    elif name == "flush":
        client.flush()
    elif name == "wait":
        client.time_out(33.0)
    elif name == "cancel":
        client.cancel()
    elif name == "close":
        client.close()
    elif name in ("closed", "clean"):
        client.closed(name == "clean", len(client.out) % 3)


# The same bytes, given to h11

Outcome = tuple[list[tuple[object, ...]], str]
"""The parts of the response, and "kept", "closed" or what went wrong."""

# What we refuse and h11 takes: a pattern that is in the bytes wherever this happens, and our reason.
STRICTER: Final = (
    (rb"(?<!\r)\n", "a bare LF ends a line: §2.2 only allows to take it"),
    (rb"HTTP/[^1]", "no other major version has this form (§2.3)"),
    (rb"HTTP/1.\d \d{3} [^\r\n]*[\x01-\x08\x0e-\x1f\x7f]", "no control characters in a reason (§4)"),
    (rb"(?i)(-length|-encoding|connection)[^\r\n]*(\r\n[ \t][^\r\n]*)*\r\n[ \t]", "no fold where framing is said"),
    (rb"(?is)-encoding.*content-length|content-length.*-encoding", "both: ought to be handled as an error (§6.3)"),
    (rb"(?is)HTTP/1.0.*transfer-encoding", "its framing is faulty (§6.1)"),
    (rb"\r\n[0-9A-Fa-f]+([ \t]+|[ \t]*;[^\n]*)\r\n", "extensions and white space outside of the grammar (§7.1.1)"),
    (rb"\r\n[0-9A-Fa-f]{17}|\d{20}", "a size above 64 bits, or digits that nobody needs"),
)
# What we take and h11 refuses.
LAXER: Final = (
    (rb"[\x0b\x0c]", "other CTL MAY be retained in values (RFC 9110 §5.5); h11 does so with all but these two"),
    (rb"(?i)transfer-encoding:(?![ \t]*chunked[ \t]*\r\n)", "other codings are passed on (§6.3); h11 knows none"),
    (rb"(?is)transfer-encoding:.*transfer-encoding:", "a list may stand in several fields (RFC 9110 §5.3)"),
    (rb"(?is)\r\n0[^\r\n]*\r\n(.*\r\n)?content-length:", "in trailers it says nothing about framing (RFC 9110 §6.5.1)"),
)


def by_us(method: str, data: bytes) -> Outcome:
    conn, _ = http1.connect(ORIGIN, SETTINGS, 0.0)
    conn, _, ref = http1.request(conn, method, "/", (), None, 0.0)
    conn, _, events = http1.receive(conn, data, 0.0)
    fate = "kept"
    if ResponseEnded(ref) not in events or events[-1] == ConnectionClosed(None):
        fate = "closed"
        conn, more = http1.closed(conn, 0.0, 0, True)
        events = events + more
    parts: list[tuple[object, ...]] = []
    for event in joined(events):
        if isinstance(event, InterimReceived):
            parts.append((event.status, event.fields))
        elif isinstance(event, ResponseReceived):
            parts.append((event.status, event.fields, event.reason))
        elif isinstance(event, DataReceived):
            parts.append((event.data,))
        elif isinstance(event, TrailersReceived):
            parts.append((event.fields,))
        elif isinstance(event, RequestFailed):
            return parts, event.failure.message
    assert ResponseEnded(ref) in events
    return parts, fate


def by_h11(method: str, data: bytes) -> Outcome:
    theirs = h11.Connection(h11.CLIENT)
    theirs.send(h11.Request(method=method, target="/", headers=[("Host", "example.org"), ("Content-Length", "0")]))
    theirs.send(h11.EndOfMessage())
    theirs.receive_data(data)
    parts: list[tuple[object, ...]] = []
    content = b""
    waited = False
    while True:
        try:
            event = theirs.next_event()
            if event is h11.NEED_DATA:
                assert not waited
                waited = True
                theirs.receive_data(b"")
                continue
        except h11.RemoteProtocolError as wrong:
            return parts + ([(content,)] if content else []), f"refused: {wrong}"
        if isinstance(event, h11.InformationalResponse):
            parts.append((event.status_code, tuple(event.headers)))
        elif isinstance(event, h11.Response):
            parts.append((event.status_code, tuple(event.headers), event.reason))
        elif isinstance(event, h11.Data):
            content += event.data
        else:
            assert isinstance(event, h11.EndOfMessage)
            parts += [(content,)] if content else []
            parts += [(tuple(event.headers),)] if list(event.headers) else []
            return parts, "kept" if theirs.their_state is h11.DONE and not waited else "closed"


def plain(parts: list[tuple[object, ...]]) -> str:
    """What does not count: the case of transfer-encoding's value, and white space where a line was folded."""
    return re.sub(r"( |\\t)+", " ", repr(parts)).replace("Chunked", "chunked")


@given(messages(), METHODS)
@example(b"HTTP/1.1 200 OK\r\nX-Folded: a \r\n\t b\r\nContent-Length: 0\r\n\r\n", "GET")
@hypothesis.settings(max_examples=300)
@pytest.mark.rfc("9112-7.1.3-1")
def test_h11_says_the_same_or_there_is_a_reason(data: bytes, method: str) -> None:
    """Each disagreement is one of those that are listed, and has its reason there."""
    (ours, fate), (theirs, their_fate) = by_us(method, data), by_h11(method, data)
    we_take, they_take = fate in ("kept", "closed"), their_fate in ("kept", "closed")
    if we_take and they_take:
        assert plain(ours) == plain(theirs)
        if fate == "kept":  # Connection: keep-alive means nothing to h11 (§9.3)
            assert their_fate == "kept" or b"HTTP/1.0" in data
        else:  # nor does it look at the Connection of an interim response
            assert their_fate == "closed" or len(ours[0]) == 2
    elif we_take != they_take:
        reasons = [reason for pattern, reason in (LAXER if we_take else STRICTER) if re.search(pattern, data)]
        assert reasons, (fate, their_fate)


EMPTY: Final = b"Content-Length: 0\r\n\r\n"
REFUSED_HERE: Final = (
    *(b"HTTP/1.1 200 OK\nContent-Length: 0\n\n", b"HTTP/2.0 200 OK\r\n" + EMPTY, b"HTTP/1.1 200 O\x01K\r\n" + EMPTY),
    *(OK + b"Content-Length: 0\r\n \r\n\r\n", CHUNKED[:-2] + b"Content-Length: 5\r\n\r\n0\r\n\r\n"),
    b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    *(CHUNKED + b"0 \r\n\r\n", CHUNKED + b"0;\r\n\r\n", CHUNKED + b"0" * 20 + b"\r\n\r\n"),
)
REFUSED_THERE: Final = (
    *(OK + b"X: \x0b\r\n" + EMPTY, OK + b"Transfer-Encoding: gzip\r\n\r\n"),
    OK + b"Transfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    CHUNKED + b"0\r\nContent-Length: 1, 2\r\n\r\n",
)


@pytest.mark.parametrize("data", REFUSED_HERE + REFUSED_THERE)
@pytest.mark.rfc("9112-4-1")
def test_where_h11_disagrees(data: bytes) -> None:
    """The disagreements one by one: if h11 changes its mind, its line in the list goes."""
    take = data in REFUSED_THERE
    fates = (by_us("GET", data)[1], by_h11("GET", data)[1])
    assert [fate in ("kept", "closed") for fate in fates] == [take, not take]
    assert [reason for pattern, reason in (LAXER if take else STRICTER) if re.search(pattern, data)]


ANYTHING: Final = st.text(st.characters(max_codepoint=0x120), max_size=8)
NAMES: Final = st.sampled_from(b"A|x-y|Host|host|Content-Length|Transfer-Encoding|Connection".split(b"|"))
VALUES: Final = st.sampled_from(b"b|5|0|chunked|gzip, chunked|close|example.org|a\r\nb: c".split(b"|"))
REQUEST_FIELDS: Final = st.tuples(NAMES | st.binary(max_size=4), VALUES | st.binary(max_size=6))


@given(
    st.sampled_from(["GET", "POST", "PUT"]) | ANYTHING,
    st.sampled_from(["/", "/a?b=c", "*"]) | ANYTHING,
    st.lists(REQUEST_FIELDS, max_size=3).map(tuple),
    st.sampled_from([None, b"", b"hello"]),
    st.lists(st.binary(max_size=9), max_size=3) | st.none(),
    st.sampled_from([(), ((b"Digest", b"x"),), ((b"a", b"b\r\n"),)]),
)
def test_whatever_is_passed_is_one_request_or_refused(
    method: str, target: str, fields: Fields, content: bytes | None, more: list[bytes] | None, trailers: Fields
) -> None:
    """Nothing that a caller passes puts a second message on the wire: h11, as a server, reads exactly what was meant."""
    client = Client()
    try:
        client.request(method, target, fields, content, more is None)
        for piece in more or ():
            client.send(piece)
        if more is not None:
            client.send(b"", end=True, trailers=trailers)
    except LocalProtocolError:
        if not client.began:
            assert client.out == b""
        return
    server = h11.Connection(h11.SERVER)
    server.receive_data(client.out)
    try:
        head = server.next_event()
    except h11.RemoteProtocolError as wrong:
        # h11 does not know other codings, several fields of them, nor two control characters.
        assert b"ransfer-" in client.out or re.search(rb"[\x0b\x0c]", client.out), wrong
        return
    assert isinstance(head, h11.Request)
    assert (head.method, head.target, head.http_version) == (method.encode(), target.encode(), b"1.1")
    hosts = [value for name, value in fields if name.lower() == b"host"]
    assert [value for name, value in head.headers if name == b"host"] == [*hosts, b"example.org"][:1]
    for name, value in fields:
        assert (name.lower(), value) in list(head.headers)
    received = b""
    while isinstance(event := server.next_event(), h11.Data):
        received += event.data
    assert received == (content or b"") + b"".join(more or ())
    assert isinstance(event, h11.EndOfMessage)
    ending = () if more is None else trailers
    assert list(event.headers) == [(name.lower(), value) for name, value in ending]
    assert server.trailing_data[0] == b""


# Pipelining, by option of the bare core (§9.3.2)


def piped(*methods: str, most: int = 3, now: float = 100.0) -> HTTP1Connection:
    """A connection with these requests outstanding."""
    conn, _ = http1.connect(ORIGIN, Settings(pipeline=most), now)
    for method in methods:
        conn, _, _ = http1.request(conn, method, "/", (), None, now)
    return conn


def test_requests_are_answered_in_their_order() -> None:
    conn = piped("GET", "HEAD", "GET")
    assert http1.capacity(conn) == 0
    sized = OK + b"Content-Length: 5\r\n\r\n"
    for data in (
        (HELLO + sized + HELLO,),
        (HELLO, sized, HELLO),
        tuple([b"%c" % byte for byte in HELLO + sized + HELLO]),
    ):
        seen, later = list[Event](), conn
        for piece in data:
            later, _, events = http1.receive(later, piece, 101.0)
            seen += events
        assert [event.ref for event in seen if isinstance(event, ResponseEnded)] == [1, 2, 3]
        assert b"".join([event.data for event in seen if isinstance(event, DataReceived)]) == b"hellohello"
        assert (http1.capacity(later), http1.is_draining(later)) == (3, False)


@pytest.mark.parametrize(
    ("methods", "room"), [((), 3), (("GET",), 2), (("PUT", "DELETE"), 1), (("POST",), 0), (("GET", "PATCH"), 0)]
)
def test_nothing_is_pipelined_after_what_is_not_idempotent(methods: tuple[str, ...], room: int) -> None:
    """§9.3.2: "a client SHOULD NOT pipeline requests after a non-idempotent method"."""
    conn = piped(*methods)
    assert http1.capacity(conn) == room
    if not room:
        with pytest.raises(AtCapacity, match=f"request {len(methods)} is outstanding, 3 allowed at once"):
            http1.request(conn, "GET", "/", (), None, 100.0)


def test_nothing_is_pipelined_after_content_that_is_not_complete_or_a_request_that_closes() -> None:
    conn, _, ref = http1.request(piped(), "PUT", "/", (), None, 100.0, end=False)
    assert http1.capacity(conn) == 0
    conn, _ = http1.send_data(conn, ref, b"x", 100.0, end=True)
    assert http1.capacity(conn) == 2
    for fields in (((b"Connection", b"close"),), ((b"Connection", b"upgrade"), (b"Upgrade", b"x"))):
        last, _, _ = http1.request(conn, "GET", "/", fields, None, 100.0)
        assert (http1.capacity(last), http1.is_draining(last)) == (0, len(fields) == 1)
        with pytest.raises(AtCapacity, match="no slot is free"):
            http1.request(last, "GET", "/", (), None, 100.0)


def test_a_request_that_ends_early_takes_those_behind_it_along() -> None:
    """Each has an ending of its own, and says which one was the reason."""
    conn = piped("GET", "GET")
    for later, _, events in (http1.cancel(conn, 1, 101.0), http1.handle_timeout(conn, 160.0)):
        first, second, end = events
        assert isinstance(first, RequestFailed) and first.failure.kind in ("StreamClosed", "ReadTimeout")
        assert isinstance(second, RequestFailed) and second.failure.kind == "ReadError"
        assert "since request 1 ended early" in second.failure.message
        assert isinstance(end, ConnectionClosed)
        assert http1.is_draining(later)


def test_a_response_that_closes_fails_those_behind_it() -> None:
    _, _, events = http1.receive(piped("GET", "GET"), OK + b"Connection: close\r\nContent-Length: 0\r\n\r\n", 101.0)
    assert events[1] == ResponseEnded(1)
    assert isinstance(events[2], RequestFailed) and "closed with the response to request 1" in events[2].failure.message


def test_what_is_behind_a_response_that_ends_with_the_connection_may_never_have_left() -> None:
    """Then nobody acted on it, and it may be sent again (law 9)."""
    conn = piped("GET", "GET")
    conn, _, _ = http1.receive(conn, b"HTTP/1.1 200 OK\r\n\r\nall", 101.0)
    for unsent, kind in ((0, "ReadError"), (1, "WriteError")):
        _, events = http1.closed(conn, 102.0, unsent=unsent, clean=True)
        assert events[0] == ResponseEnded(1)
        assert isinstance(events[1], RequestFailed)
        assert (events[1].failure.kind, events[1].failure.unprocessed) == (kind, unsent > 0)


def test_the_clock_of_a_request_begins_with_its_turn() -> None:
    """Until then it is not its own peer's silence; `total` runs all the time."""
    conn = piped("GET", "GET")
    conn, _, _ = http1.request(conn, "GET", "/", (), None, 100.0, deadline=300.0)
    conn, _, _ = http1.receive(conn, HELLO, 159.0)
    assert http1.next_timeout(http1.handle_timeout(conn, 160.0)[0]) == 219.0
    conn, _, events = http1.handle_timeout(conn, 219.0)
    assert isinstance(events[0], RequestFailed) and "no response head for 60.00 s" in events[0].failure.message
    late = piped("GET")
    late, _, _ = http1.request(late, "GET", "/", (), None, 100.0, deadline=110.0)
    _, _, events = http1.handle_timeout(late, 110.0)
    assert isinstance(events[1], RequestFailed) and events[1].failure.kind == "DeadlineExceeded"


def test_while_our_reader_holds_the_peer_up_the_write_clock_does_not_run() -> None:
    """Law 5: what is unread keeps the peer from going on, and then nobody blames it for what of ours does not move."""
    conn, _ = http1.connect(ORIGIN, Settings(output_budget=1000), 100.0)
    clocks = Clocks(None, None, 60.0, 600.0)
    conn, _, ref = http1.request(conn, "POST", "/", (), bytes(70_000), 100.0, clocks=clocks)
    conn, _, _ = http1.receive(conn, OK + b"Content-Length: 9\r\n\r\nhello", 101.0)
    conn, _, events = http1.handle_timeout(conn, 200.0)
    assert events == []
    conn, _, _ = http1.consume(conn, ref, 5, 201.0)
    assert http1.next_timeout(conn) <= 261.0
    conn, _, events = http1.handle_timeout(conn, 260.9)
    assert events == []
    conn, _, events = http1.handle_timeout(conn, 261.0)
    assert isinstance(events[0], RequestFailed) and events[0].failure.clock == "write"


def test_content_that_crawls_over_http1() -> None:
    """The kernel takes a little now and then: what it took makes room, and `head` begins when the last of it has left."""
    conn, _ = http1.connect(ORIGIN, Settings(output_budget=1000), 100.0)
    conn, data, ref = http1.request(conn, "POST", "/", (), bytes(70_000), 100.0)
    same, out, _ = http1.flush(conn, 110.0, unsent=conn.written)
    assert (out, same.unflushed, same.flushed) == (b"", 65_536, (0, NEVER, True)), "nothing has moved"
    conn, out, _ = http1.flush(conn, 150.0, unsent=2000)
    assert (out, conn.unflushed) == (b"", 2000)
    conn, _, events = http1.handle_timeout(conn, 200.0)
    assert events == []
    conn, out, _ = http1.flush(conn, 205.0, unsent=500)
    assert out == bytes(70_000 - 65_536)
    conn, _, _ = http1.flush(conn, 255.0, unsent=10)
    conn, _, events = http1.handle_timeout(conn, 300.0)
    assert events == []
    conn, _, _ = http1.flush(conn, 300.0)
    opened, _ = http1.connect(ORIGIN, SETTINGS, 100.0)
    opened, _, _ = http1.request(opened, "POST", "/", (), b"abc", 100.0, end=False)
    opened, out, _ = http1.flush(opened, 101.0, unsent=1)
    assert (out, opened.requests[0].sent_at) == (b"", NEVER), "its end is not even given"
    conn, _, events = http1.handle_timeout(conn, 359.9)
    assert (events, http1.next_timeout(conn)) == ([], 360.0)
    conn, _, events = http1.handle_timeout(conn, 360.0)
    assert isinstance(events[0], RequestFailed) and events[0].failure.kind == "ReadTimeout"


def test_who_asks_for_trailers_need_not_know_the_protocol() -> None:
    """RFC 9110 §10.1.4: TE stands in Connection too, and over HTTP/2 neither may."""
    fields = ((b"TE", b"trailers"),)
    assert Client().request(fields=fields).endswith(b"TE: trailers\r\nConnection: TE\r\n\r\n")
    said = (*fields, (b"Connection", b"close, te"))
    assert Client().request(fields=said).endswith(b"TE: trailers\r\nConnection: close, te\r\n\r\n")


def test_a_server_of_http_1_0_is_sent_no_chunks() -> None:
    """§6.1; a declared length is what it understands."""
    client = Client()
    client.request()
    client.receive(b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n")
    with pytest.raises(LocalProtocolError, match="declare a content-length"):
        client.request("POST", end=False)
    assert client.request("POST", fields=((b"content-length", b"3"),), content=b"abc").endswith(b"\r\n\r\nabc")


def test_the_turn_of_a_request_whose_content_is_not_complete() -> None:
    """Its clocks are asked then, and it has not been sent; found by the world."""
    conn = piped("GET")
    clocks = Clocks(reader=30.0)
    conn, _, ref = http1.request(conn, "PUT", "/", (), b"a", 110.0, end=False, clocks=clocks)
    conn, _, _ = http1.receive(conn, HELLO, 139.0)
    assert (conn.requests[0].sent_at, http1.next_timeout(conn)) == (NEVER, 140.0)
