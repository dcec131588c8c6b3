"""A tunnel through a proxy that is being made: what is said, what is heard, and h11 as the judge of what is sent."""

import pickle
from typing import Final

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calamint.core import tunnel
from calamint.core.errors import Failure, LocalProtocolError, ProxyError, to_exception
from calamint.core.value import Fields

ESTABLISHED: Final = b"HTTP/1.1 200 Connection established\r\n\r\n"
INTERIM: Final = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
REFUSED: Final = (
    b"HTTP/1.1 407 Proxy Authentication Required\r\n"
    b'Proxy-Authenticate: Basic realm="here"\r\nContent-Length: 1000000\r\n\r\n<html>'
)
CREDENTIALS: Final = ((b"Proxy-Authorization", b"Basic bWU6c2VjcmV0"), (b"X-Team", b"7"))

Outcome = tuple[bool, bytes, Failure | None]


def begin(host: str = "a.test", port: int = 443, fields: Fields = ()) -> tuple[tunnel.Tunnel, bytes]:
    return tunnel.begin(host, port, fields, 1.0)


def hear(*pieces: bytes) -> Outcome:
    """What comes of these pieces; those behind the end of the handshake go through the tunnel, or nowhere."""
    value, _ = begin()
    done, through, failure = False, b"", None
    for piece in pieces:
        if done:
            through += piece
        elif failure is None:
            before = pickle.dumps(value)
            following, done, through, failure = tunnel.receive(value, piece, 2.0)
            assert pickle.dumps(value) == before
            assert tunnel.receive(value, piece, 2.0) == (following, done, through, failure)
            value = following
    return done, through, failure


def fault(*pieces: bytes) -> str:
    """The message of a handshake that fails without an answer that could be read."""
    done, through, failure = hear(*pieces)
    assert not done and not through and failure is not None
    assert (failure.kind, failure.unprocessed, failure.ref, failure.status, failure.fields) == (
        *("ProxyError", True, 0),
        *(0, ()),
    )
    assert failure.message.startswith("no tunnel to a.test:443: ")
    return failure.message


# What is sent


@pytest.mark.rfc("9110-9.3.6-1")
@pytest.mark.parametrize(
    ("host", "port", "target"),
    [
        ("a.test", 443, "a.test:443"),
        ("a.test", 80, "a.test:80"),
        ("a.test.", 443, "a.test.:443"),
        ("192.0.2.1", 8443, "192.0.2.1:8443"),
        ("::1", 443, "[::1]:443"),
        ("fe80::1%25eth0", 443, "[fe80::1]:443"),
        ("xn--bcher-kva.test", 65_535, "xn--bcher-kva.test:65535"),
    ],
)
def test_the_request_names_host_and_port(host: str, port: int, target: str) -> None:
    """RFC 9112 §3.2.3: "only the host and port number of the tunnel destination", and brackets for IPv6 (RFC 3986 §3.2.2)."""
    value, data = begin(host, port)
    assert data == f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode()
    assert value.target == target
    assert begin(host, port) == (value, data)


def test_the_fields_go_to_the_proxy_as_h11_reads_it() -> None:
    _, data = begin("::1", 443, CREDENTIALS)
    proxy = h11.Connection(h11.SERVER)
    proxy.receive_data(data)
    request = proxy.next_event()
    assert isinstance(request, h11.Request)
    assert (request.method, request.target) == (b"CONNECT", b"[::1]:443")
    lowered = [(name.lower(), value) for name, value in CREDENTIALS]
    assert list(request.headers) == [(b"host", b"[::1]:443"), *lowered]
    assert isinstance(proxy.next_event(), h11.EndOfMessage)
    assert proxy.next_event() is h11.PAUSED
    assert proxy.trailing_data == (b"", False)


@pytest.mark.parametrize(
    "fields",
    [
        ((b"X", b"a\r\nb: c"),),
        ((b"a b", b"c"),),
        ((b"Host", b"b.test:443"),),
        ((b"Content-Length", b"5"),),
        ((b"Connection", b"upgrade"), (b"Upgrade", b"websocket")),
    ],
)
def test_fields_that_may_not_stand_there_are_the_callers_mistake(fields: Fields) -> None:
    with pytest.raises(LocalProtocolError):
        begin(fields=fields)


@pytest.mark.parametrize("host", ["a.test\r\nX: y", "a test", "a.test/", "a@b.test", ""])
def test_a_host_cannot_end_the_request_line(host: str) -> None:
    with pytest.raises(LocalProtocolError):
        begin(host)


# What is heard


def test_it_is_made() -> None:
    assert hear(ESTABLISHED) == (True, b"", None)


@pytest.mark.parametrize("status", [200, 201, 299])
def test_any_2xx_makes_it(status: int) -> None:
    """RFC 9110 §9.3.6: "Any 2xx (Successful) response indicates"."""
    assert hear(b"HTTP/1.1 %d \r\n\r\n" % status) == (True, b"", None)


def test_a_proxy_of_http_1_0_makes_it() -> None:
    assert hear(b"HTTP/1.0 200 OK\r\nProxy-agent: test\r\n\r\n") == (True, b"", None)


def test_what_came_behind_the_head_came_through_the_tunnel() -> None:
    assert hear(ESTABLISHED + b"\x16\x03\x01") == (True, b"\x16\x03\x01", None)


@pytest.mark.rfc("9110-9.3.6-2")
def test_content_length_and_transfer_encoding_say_nothing() -> None:
    """RFC 9110 §9.3.6: "A client MUST ignore any Content-Length or Transfer-Encoding header fields"."""
    for field in (b"Content-Length: 2", b"Transfer-Encoding: chunked"):
        assert hear(b"HTTP/1.1 200 OK\r\n" + field + b"\r\n\r\nabcdef") == (True, b"abcdef", None)


def test_interim_responses_are_passed_over_up_to_a_limit() -> None:
    assert hear(INTERIM * 16 + ESTABLISHED) == (True, b"", None)
    assert "interim responses above our limit" in fault(INTERIM * 17 + ESTABLISHED)


def test_a_refusal_tells_status_reason_and_fields_and_its_content_is_not_waited_for() -> None:
    done, through, failure = hear(REFUSED)
    assert not done and not through and failure is not None
    assert failure.message == (
        "no tunnel to a.test:443: the proxy refuses: 407 Proxy Authentication Required"
        "; credentials for it are written http://user:password@proxy"
    )
    assert (failure.kind, failure.status, failure.unprocessed) == ("ProxyError", 407, True)
    assert failure.fields == ((b"proxy-authenticate", b'Basic realm="here"'), (b"content-length", b"1000000"))
    error = to_exception(failure)
    assert isinstance(error, ProxyError)
    assert (error.status, error.fields, error.unprocessed) == (407, failure.fields, True)


@pytest.mark.rfc("9110-9.3.6-4")
@pytest.mark.parametrize("status", [101, 300, 302, 403, 502, 999])
def test_everything_else_refuses_it(status: int) -> None:
    _, _, failure = hear(b"HTTP/1.1 %d\r\nTransfer-Encoding: chunked\r\n\r\nno chunk\r\n" % status)
    assert failure is not None
    assert failure.message == f"no tunnel to a.test:443: the proxy refuses: {status}"
    assert failure.status == status


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"SSH-2.0-OpenSSH", "begins with b'SSH-2.0', not with HTTP/1."),
        (b"HTTP/1.1 2000 OK\r\n\r\n", "the status line"),
        (b"HTTP/1.1 200 OK\nX: y\n\n", "the status line"),
        (b"HTTP/1.1 200 OK\r\nX : y\r\n\r\n", "field"),
        (b"HTTP/1.1 200 " + b"x" * 10_000, "a status line above our limit"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000, "a field section above our limits"),
    ],
)
def test_what_is_malformed_is_the_proxys_fault(data: bytes, what: str) -> None:
    assert what in fault(data)


def test_both_sides_of_the_limit_of_its_field_section() -> None:
    """64 KiB, each field counted with 32 bytes more."""
    room = 64 * 1024 - 32 - len(b"X: \r\n")
    assert hear(b"HTTP/1.1 200 OK\r\nX: " + b"y" * room + b"\r\n\r\n") == (True, b"", None)
    fault(b"HTTP/1.1 200 OK\r\nX: " + b"y" * (room + 1) + b"\r\n\r\n")


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "the peer closed the connection before the response came"),
        (b"HTTP/1.1 200 O", "the peer closed the connection within the head of the response"),
        (INTERIM, "the peer closed the connection before the response came"),
    ],
)
def test_a_proxy_that_closes_before_it_answers(data: bytes, what: str) -> None:
    value, _ = begin()
    value, done, _, failure = tunnel.receive(value, data, 2.0)
    assert not done and failure is None
    ended = tunnel.ended(value, 3.0)
    assert (ended.kind, ended.unprocessed) == ("ProxyError", True)
    assert ended.message.startswith(f"no tunnel to a.test:443: {what}")


STORIES: Final = (
    ESTABLISHED + b"\x16\x03\x01\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
    INTERIM + ESTABLISHED,
    INTERIM * 17 + ESTABLISHED,
    REFUSED,
    b"HTTP/1.1 502 Bad Gateway\r\nTransfer-Encoding: chunked\r\n\r\nno chunk\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\n\r\nabc",
    b"HTTP/1.1 200 OK\r\nX : y\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    b"SSH-2.0-OpenSSH\r\n",
)


@given(story=st.sampled_from(STORIES), cuts=st.lists(st.integers(0, 400), max_size=12))
def test_any_split_of_the_bytes_says_the_same(story: bytes, cuts: list[int]) -> None:
    places = [0, *sorted([min(cut, len(story)) for cut in cuts]), len(story)]
    pieces = [story[start:end] for start, end in zip(places, places[1:], strict=False)]
    assert b"".join(pieces) == story
    assert hear(*pieces) == hear(story)


@given(data=st.binary(max_size=200))
def test_the_proxy_never_raises(data: bytes) -> None:
    for story in (data, b"HTTP/1.1 " + data, ESTABLISHED[:-2] + data):
        done, through, failure = hear(story)
        assert not (done and failure)
        assert done or not through
