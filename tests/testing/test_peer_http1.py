"""The peer's HTTP/1.1, against h11 and by hand."""

import pytest

from calamint.testing import (
    PeerConnection,
    answer,
    delay,
    drip,
    forget,
)
from tests.testing.clients import H11


def test_pipelined_requests_are_answered_in_turn() -> None:
    peer = PeerConnection([delay(1.0, answer(content=b"first")), answer(content=b"second")])
    request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    assert peer.receive(request + b"\r\n" + request, 0.0) == b""
    assert len(peer.journal.report().requests) == 1
    out = peer.handle_timeout(1.0)
    assert out.index(b"first") < out.index(b"second") and peer.journal.report().streams_peak == 1


def test_chunked_content_and_trailers() -> None:
    old = H11(lambda request: answer(content=request.content))
    old.request("POST", (("Transfer-Encoding", "chunked"),), b"hello", end=False)
    old.give(old.peer.receive(b"A;ext=1\r\n, and more\r\n0\r\nX-T: 1\r\n\r\n", 0.0))
    assert old.received.endswith(b"hello, and more")
    assert old.report.requests[0].trailers == ((b"X-T", b"1"),)


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_the_clients_connection_close(version: bytes) -> None:
    peer = PeerConnection()
    fields = b"Host: a\r\nConnection: close\r\n" if version == b"1.1" else b""
    out = peer.receive(b"GET / HTTP/%s\r\n%s\r\n" % (version, fields), 0.0)
    assert b"connection: close\r\n" in out and out.endswith(b"\r\n\r\nok") and peer.is_closed


def test_http_1_0_gets_no_chunks() -> None:
    peer = PeerConnection([drip(b"abc", piece=3), drip(b"abc", piece=3)])
    out = peer.receive(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", 0.0)
    assert b"transfer-encoding" not in out and out.endswith(b"\r\n\r\nabc") and peer.is_closed


def test_forget_with_connection_close_stays_open() -> None:
    peer = PeerConnection([forget()])
    assert peer.receive(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 0.0) == b""
    assert not peer.is_closed and peer.open_streams == 1
    peer.closed(1.0)
    assert peer.is_closed and peer.journal.report().streams_open == 0


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"GET /\r\n\r\n", "the request line b'GET /'"),
        (b"GET / HTTP/2.0\r\n\r\n", "the request line"),
        (b"GET / HTTP/1.1\r\n\r\n", "0 Host fields"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "2 Host fields"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nbad name: 1\r\n\r\n", "the field line b'bad name: 1'"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n", "the field line b' folded'"),
        (b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", "the field line"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n", "Content-Length [b'x']"),
        (
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "Content-Length [b'1', b'2']",
        ),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "Transfer-Encoding"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", "Transfer-Encoding [b'gzip']"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", "the chunk line b'xyz'"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n", "after the data of a chunk"),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 300_000, "a head of more than"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;" + b"x" * 300_000, "a line of more than"),
    ],
)
def test_malformed_requests(data: bytes, said: str) -> None:
    peer = PeerConnection([forget()])
    assert peer.receive(data, 0.0).startswith(b"HTTP/1.1 400 Bad Request\r\n") and peer.is_closed
    assert said in peer.journal.report().protocol_errors[0]
