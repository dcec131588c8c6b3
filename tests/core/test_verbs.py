"""One set of verbs over both protocols: each says of a connection what its protocol's own verb says."""

import pytest

from calamint import core
from calamint.core import http1, http2
from calamint.core.errors import LocalProtocolError, UnsupportedProtocol
from calamint.core.exchange import SETTINGS
from calamint.core.http1_state import HTTP1Connection
from calamint.core.http2_state import HTTP2Connection

ORIGIN = core.Origin("http", "localhost", 8080)
FIELDS = ((b"accept", b"*/*"),)
HTTP1_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
# SETTINGS; HEADERS with :status 200, END_HEADERS; DATA with END_STREAM
HTTP2_ANSWER = b"\0\0\0\4\0\0\0\0\0" + b"\0\0\1\1\4\0\0\0\1\x88" + b"\0\0\5\0\1\0\0\0\1hello"
ANSWERS = {"h2": HTTP2_ANSWER, "http/1.1": HTTP1_ANSWER}
MACHINES = {"h2": http2, "http/1.1": http1}
both = pytest.mark.parametrize("protocol", ["h2", "http/1.1"])


@both
def test_a_request_and_its_response(protocol: str) -> None:
    conn, data = core.connect(protocol, ORIGIN, SETTINGS, 0.0)
    assert (conn, data) == MACHINES[protocol].connect(ORIGIN, SETTINGS, 0.0)
    assert core.protocol(conn) == protocol
    assert core.capacity(conn) == (100 if protocol == "h2" else 1)
    conn, _, ref = core.request(conn, "GET", "/", FIELDS, None, 1.0, deadline=9.0)
    assert (ref, core.in_flight(conn), core.is_live(conn, ref), core.queued(conn, ref)) == (1, 1, True, 0)
    assert core.next_timeout(conn) == 9.0
    assert core.snapshot(conn, 1.0).requests[0].target == "/"
    assert core.wants_read(conn)
    conn, _, events = core.receive(conn, ANSWERS[protocol], 2.0)
    assert [type(event) for event in events if not isinstance(event, core.SettingsReceived)] == [
        core.ResponseReceived,
        core.DataReceived,
        core.ResponseEnded,
    ]
    assert (core.in_flight(conn), core.is_live(conn, ref), core.queued(conn, ref)) == (0, False, 0)
    assert core.consume(conn, ref, 5, 2.0) == (conn, b"", [])
    assert not core.is_closed(conn)


@both
def test_content_that_waits(protocol: str) -> None:
    conn, _ = core.connect(protocol, ORIGIN, core.Settings(output_budget=1), 0.0)
    conn, first, ref = core.request(conn, "POST", "/", FIELDS, b"x" * 100_000, 0.0, end=False)
    assert core.queued(conn, ref) > 0
    conn, _ = core.send_data(conn, ref, b"y", 0.0, end=True)
    conn, more, _ = core.flush(conn, 0.0)
    assert first
    assert more
    with pytest.raises(LocalProtocolError, match="ended"):
        core.send_data(conn, ref, b"z", 0.0)


@both
def test_what_ends_a_request(protocol: str) -> None:
    conn, _ = core.connect(protocol, ORIGIN, SETTINGS, 0.0)
    conn, data, ref = core.request(conn, "GET", "/", FIELDS, None, 0.0, deadline=5.0)
    endings = {
        "StreamClosed": core.cancel(conn, ref, 1.0)[2],
        "DeadlineExceeded": core.handle_timeout(conn, 5.0)[2],
        "ReadError": core.closed(conn, 1.0, reason="a reason")[1],
    }
    for kind, events in endings.items():
        failed = [event for event in events if isinstance(event, core.RequestFailed)]
        assert [(event.ref, event.failure.kind) for event in failed] == [(ref, kind)]
    assert "a reason" in str(endings["ReadError"])
    unsent = [event for event in core.closed(conn, 1.0, len(data))[1] if isinstance(event, core.RequestFailed)]
    assert unsent[0].failure.unprocessed
    ended, _, _ = core.close(conn, 1.0)
    assert core.is_closed(ended)
    assert not core.is_closed(conn)


@both
def test_a_protocol_is_a_kind_of_value(protocol: str) -> None:
    conn, _ = core.connect(protocol, ORIGIN)
    assert isinstance(conn, HTTP2Connection if protocol == "h2" else HTTP1Connection)


def test_another_protocol_is_refused() -> None:
    with pytest.raises(UnsupportedProtocol, match="'h3' is not h2 or http/1.1"):
        core.connect("h3", ORIGIN)


def test_content_unread_stops_the_reading_of_http1() -> None:
    """HTTP/2 has windows for it."""
    conn, _ = core.connect("http/1.1", ORIGIN, core.Settings(stream_window=5), 0.0)
    conn, _, ref = core.request(conn, "GET", "/", FIELDS, None, 0.0)
    conn, _, _ = core.receive(conn, HTTP1_ANSWER.replace(b"5", b"6"), 0.0)
    assert not core.wants_read(conn)
    conn, _, _ = core.consume(conn, ref, 1, 0.0)
    assert core.wants_read(conn)


@pytest.mark.parametrize("protocol", ["h2", "http/1.1"])
def test_a_connection_drains_once_it_is_closed(protocol: str) -> None:
    conn, _ = core.connect(protocol, ORIGIN, SETTINGS, 0.0)
    assert core.is_draining(conn) is False
    assert core.is_draining(core.close(conn, 0.0)[0]) is True
