"""requests over our adapter."""

import gzip
import io
import pickle
import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import urllib3

import calamint
from calamint.core.errors import CANCEL, NO_ERROR
from calamint.testing import (
    Action,
    Request,
    ScriptedPeer,
    answer,
    close,
    delay,
    drip,
    forget,
    garbage,
    goaway,
    reset,
)
from calamint.transports.requests import Adapter, Content
from tests import servers
from tests.net.pool_help import at_rest, in_threads
from tests.net.test_tls import server_context

LIMIT = 10.0


@pytest.fixture
def session(h2: bool) -> Iterator[requests.Session]:
    """A session over an adapter, with HTTP/2 or without."""
    with open_session(http1=not h2, http2=h2) as session:
        yield session


def open_session(**options: Any) -> requests.Session:
    session = requests.Session()
    session.trust_env = False
    adapter = Adapter(**options)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    return session


def pool_of(session: requests.Session) -> calamint.Pool:
    adapter = session.get_adapter("http://")
    assert isinstance(adapter, Adapter)
    (pool,) = adapter.pools.values()
    return pool


def echo(request: Request) -> Action:
    return answer(content=request.content)


def test_a_response(session: requests.Session, h2: bool) -> None:
    fields = (
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"set-cookie", b"a=1; Path=/"),
        (b"set-cookie", b"b=2"),
        (b"x-two", b"1"),
        (b"x-two", b"2"),
    )
    with ScriptedPeer([answer(201, fields, "é".encode()), answer()]) as peer:
        response = session.get(f"{peer.url}/path?q=1", timeout=LIMIT)
        assert (response.status_code, response.text, response.encoding) == (201, "é", "utf-8")
        assert response.reason == ("" if h2 else "Created")
        assert (response.headers["X-Two"], response.headers["content-type"]) == ("1, 2", "text/plain; charset=utf-8")
        assert response.url == f"{peer.url}/path?q=1"
        assert response.raw.version == (20 if h2 else 11)
        assert response.cookies.get_dict() == session.cookies.get_dict() == {"a": "1", "b": "2"}
        assert response.elapsed.total_seconds() < LIMIT
        session.get(peer.url, timeout=LIMIT)
        first, second = peer.report.requests
        assert first.target == "/path?q=1"
        assert (b"a=1; b=2") in [value for name, value in second.fields if name.lower() == b"cookie"]
        assert peer.report.connections == 1
    at_rest(pool_of(session))


@pytest.mark.parametrize(
    ("data", "sent"),
    [
        (b"bytes", b"bytes"),
        ("text é", "text é".encode()),
        ({"a": "1"}, b"a=1"),
        (io.BytesIO(b"x" * 200_000), b"x" * 200_000),
        (io.StringIO("text"), b"text"),
        (iter([b"one", b"", "two"]), b"onetwo"),
        (None, b""),
    ],
    ids=["bytes", "str", "form", "file", "text file", "pieces", "none"],
)
@pytest.mark.parametrize("http2", [False, True])
def test_content_of_a_request(data: Any, sent: bytes, http2: bool) -> None:
    if hasattr(data, "seek"):
        data.seek(0)
    elif isinstance(data, Iterator):
        data = iter([b"one", b"", "two"])
    with ScriptedPeer(echo) as peer, open_session(http1=not http2, http2=http2) as session:
        assert session.post(peer.url, data=data, timeout=LIMIT).content == sent
        names = {name.lower() for name, _ in peer.report.requests[0].fields}
        assert (b"content-length" in names) is not isinstance(data, Iterator) or isinstance(data, io.IOBase)


def test_what_is_decoded(session: requests.Session) -> None:
    packed = gzip.compress(b"hello" * 1000)
    with ScriptedPeer([answer(fields=((b"content-encoding", b"gzip"),), content=packed)]) as peer:
        assert session.get(peer.url, timeout=LIMIT).content == b"hello" * 1000
        response = session.get(peer.url, timeout=LIMIT, stream=True)
        assert response.raw.read() == packed
        response = session.get(peer.url, timeout=LIMIT, stream=True)
        assert b"".join(response.iter_content(7)) == b"hello" * 1000
        response = session.get(peer.url, timeout=LIMIT, stream=True)
        assert b"".join(response.raw.stream(11, decode_content=True)) == b"hello" * 1000
    broken = answer(fields=((b"content-encoding", b"gzip"),), content=b"no gzip")
    with ScriptedPeer([broken]) as peer, pytest.raises(requests.exceptions.ContentDecodingError):
        session.get(peer.url, timeout=LIMIT)


def test_events_come_when_they_come(session: requests.Session) -> None:
    """No piece waits for the next one, however many bytes a reader asks for."""
    with ScriptedPeer([drip(b"data: 1\n\ndata: 2\n\n", 9, 0.05, end=False)]) as peer:
        with session.get(peer.url, timeout=LIMIT, stream=True) as response:
            lines = response.iter_lines(chunk_size=512)
            assert next(lines) == b"data: 1"
        peer.wait_for(lambda report: report.streams_open == 0)
    at_rest(pool_of(session))


def test_a_response_that_is_closed_early(session: requests.Session, h2: bool) -> None:
    with ScriptedPeer([drip(bytes(50), 5, 0.01, end=False)], max_streams=1) as peer:
        for number in range(3):
            with session.get(peer.url, timeout=LIMIT, stream=True) as response:
                assert response.raw.read(5) == bytes(5)
            at_rest(pool_of(session))
            if h2:
                peer.wait_for(lambda report, seen=number + 1: len(report.resets) == seen)  # type: ignore[misc]  # default
        report = peer.wait_for(lambda report: report.streams_open == 0)
        assert [code for _, _, code in report.resets] == ([CANCEL] * 3 if h2 else [])
        assert report.connections == (1 if h2 else 3)


ERRORS = [
    (reset(CANCEL), True, requests.ConnectionError, calamint.StreamReset),
    (goaway(2, last=0), True, requests.ConnectionError, calamint.ConnectionTerminated),
    (garbage(b"SSH-2.0\r\n"), False, requests.ConnectionError, calamint.RemoteProtocolError),
    (close(), None, requests.ConnectionError, calamint.ReadError),
    (forget(), None, requests.ReadTimeout, calamint.ReadTimeout),
]


@pytest.mark.parametrize(("action", "over_h2", "theirs", "ours"), ERRORS)
def test_errors(action: Action, over_h2: bool | None, theirs: type[Exception], ours: type[Exception]) -> None:
    for http2 in (False, True) if over_h2 is None else (over_h2,):
        with ScriptedPeer([action]) as peer, open_session(http1=not http2, http2=http2) as session:
            with pytest.raises(theirs) as caught:
                session.post(peer.url, data=b"x", timeout=(LIMIT, 0.2))
            assert type(caught.value) is theirs
            assert isinstance(caught.value, requests.RequestException)
            assert caught.value.request is not None and caught.value.request.method == "POST"
            assert isinstance(caught.value.__cause__, ours)
            at_rest(pool_of(session))


def test_errors_in_the_content(session: requests.Session) -> None:
    with ScriptedPeer([close(after=b"half")]) as peer, pytest.raises(requests.exceptions.ChunkedEncodingError):
        session.get(peer.url, timeout=LIMIT)
    with ScriptedPeer([drip(b"ab", 1, 0.01, end=False)]) as peer, pytest.raises(requests.ConnectionError):
        session.get(peer.url, timeout=(LIMIT, 0.2))
    for pool in session.get_adapter("http://").pools.values():  # type: ignore[attr-defined]  # ours has them
        at_rest(pool)


def test_what_cannot_be_requested() -> None:
    with open_session() as session:
        with pytest.raises(requests.ConnectionError, match="no address for nowhere.invalid"):
            session.get("http://nowhere.invalid/")
        with pytest.raises(requests.exceptions.InvalidSchema):
            Adapter().send(requests.Request("GET", "ftp://host/").prepare())
        with pytest.raises(requests.exceptions.InvalidHeader):
            prepared = requests.Request("GET", "http://host/").prepare()
            prepared.headers["a b"] = "1"
            Adapter().send(prepared)
        with pytest.raises(ValueError, match=r"\(connect, read\)"):
            session.get("http://host/", timeout=(1, 2, 3))  # type: ignore[arg-type]  # three of two
        with pytest.raises(ValueError, match="int, float or None"):
            session.get("http://host/", timeout="soon")  # type: ignore[arg-type]  # no number
        with pytest.raises(OSError, match="nowhere.pem"):
            session.get("https://host/", verify="/nowhere.pem")
        with pytest.raises(OSError, match="nowhere.pem"):
            session.get("https://host/", cert=("/nowhere.pem", "/nowhere.key"))
    with ScriptedPeer() as peer, open_session() as session:
        assert session.get(peer.url, cert="/nowhere.pem", timeout=LIMIT).content == b"ok"  # nobody asks for it
    with pytest.raises(ValueError, match="retries=2"):
        Adapter(retries=2)
    with pytest.raises(calamint.UnsupportedProtocol):
        Adapter(http1=False, http2=False)


def test_trust_goes_with_each_request(private_ca: servers.PrivateCa) -> None:
    """A connection that was made without a look at the certificate serves nobody who wants one."""
    with ScriptedPeer(tls=server_context(private_ca)) as peer, open_session() as session:
        assert session.get(peer.url, verify=False, timeout=LIMIT).status_code == 200
        with pytest.raises(requests.exceptions.SSLError, match="certificate"):
            session.get(peer.url, timeout=LIMIT)
        assert session.get(peer.url, verify=str(private_ca.ca_file), timeout=LIMIT).raw.version == 20
        assert session.get(peer.url, verify=False, timeout=LIMIT).status_code == 200
        report = peer.report
        assert [item.connection for item in report.requests] == [0, 1, 0]
        assert report.protocol_errors  # of the handshake in between


def test_limits() -> None:
    with ScriptedPeer([delay(0.3, answer())]) as peer, open_session(total=0.1) as session:
        began = time.monotonic()
        with pytest.raises(requests.ReadTimeout, match="total") as caught:
            session.get(peer.url)
        assert isinstance(caught.value.__cause__, calamint.DeadlineExceeded)
        assert time.monotonic() - began < 0.3
    with ScriptedPeer([delay(0.3, answer())]) as peer, open_session() as session:
        timeout: Any = urllib3.Timeout(connect=LIMIT, read=LIMIT)  # taken, if not by their types
        assert session.get(peer.url, timeout=timeout).content == b"ok"
        with pytest.raises(requests.ReadTimeout):
            session.get(peer.url, timeout=0.1)
        assert session.get(peer.url).content == b"ok"

    def slow(host: str, port: int) -> list[Any]:
        time.sleep(0.5)
        return []

    with open_session(resolver=slow) as session, pytest.raises(requests.ConnectTimeout):
        session.get("http://somewhere.example/", timeout=(0.1, LIMIT))


def test_proxies() -> None:
    """As the session says with each request: forwarded where the origin has no TLS, credentials in the URL."""
    with ScriptedPeer([answer(content=b"proxied")]) as proxy, open_session() as session:
        url = proxy.url.replace("http://", "http://user:secret@")
        for named in (url, url.removeprefix("http://")):
            response = session.get("http://origin.example/x", proxies={"http": named}, timeout=LIMIT)
            assert response.content == b"proxied"
        seen = proxy.report.requests[0]
        assert (seen.target, seen.authority) == ("http://origin.example/x", "origin.example")
        assert (b"proxy-authorization", b"Basic dXNlcjpzZWNyZXQ=") in [(name.lower(), it) for name, it in seen.fields]
        assert proxy.report.connections == 1
    with ScriptedPeer([answer(407)]) as proxy, open_session() as session:
        with pytest.raises(requests.exceptions.ProxyError, match="407"):
            session.get("https://origin.example/", proxies={"https": proxy.url}, timeout=LIMIT)


def test_what_was_not_processed_is_sent_once_more() -> None:
    with ScriptedPeer([goaway(NO_ERROR, last=0), answer(content=b"second")]) as peer:
        with open_session(http1=False) as session:
            assert session.post(peer.url, data=b"x", timeout=LIMIT).content == b"second"
    with ScriptedPeer([goaway(NO_ERROR, last=0), answer(content=b"second")]) as peer:
        with open_session(http1=False, retries=0) as session, pytest.raises(requests.ConnectionError):
            session.post(peer.url, data=b"x", timeout=LIMIT)


def test_content_that_fails(session: requests.Session) -> None:
    def failing() -> Iterator[bytes]:
        yield b"x"
        raise ZeroDivisionError

    with ScriptedPeer(echo) as peer:
        with pytest.raises(ZeroDivisionError):
            session.post(peer.url, data=failing(), timeout=LIMIT)
        peer.wait_for(lambda report: report.streams_open == 0 or report.connections_open == 0)
        at_rest(pool_of(session))
        assert session.get(peer.url, timeout=LIMIT).status_code == 200


def test_threads_and_a_closed_adapter() -> None:
    with ScriptedPeer() as peer:
        adapter = Adapter(http1=False)

        def run(number: int) -> None:
            with requests.Session() as session:
                session.trust_env = False
                session.mount("http://", adapter)
                for _ in range(10):
                    assert session.get(peer.url, timeout=LIMIT).content == b"ok"
                session.adapters.clear()  # or it would be closed

        in_threads(8, run)
        assert peer.report.connections == 1
        adapter.close()
        peer.wait_for(lambda report: report.connections_open == 0)
        assert adapter.send(requests.Request("GET", peer.url).prepare()).content == b"ok"
        copy = pickle.loads(pickle.dumps(adapter))
        assert copy.send(requests.Request("GET", peer.url).prepare()).raw.version == 20
        adapter.close()
        copy.close()


def test_a_response_outlives_its_session() -> None:
    """Closing a session does not take the content away that is still to be read."""
    with ScriptedPeer([drip(b"0123456789", 1, 0.01)]) as peer:
        with open_session() as session:
            response = session.get(peer.url, timeout=LIMIT, stream=True)
            pool = pool_of(session)
        assert peer.report.connections_open == 1
        assert response.content == b"0123456789"
        peer.wait_for(lambda report: report.connections_open == 0)
        assert pool.stats().connections == 0


def test_proxies_that_are_none() -> None:
    with open_session() as session:
        for url in ("http:/host:3128", "http://:8080", "https://", "ftp://host"):
            with pytest.raises(requests.exceptions.InvalidProxyURL):
                session.get("http://host/", proxies={"http": url})
        with pytest.raises(requests.exceptions.ProxyError, match="nowhere.invalid"):
            session.get("http://host/", proxies={"http": "nowhere.invalid"}, timeout=LIMIT)


def test_content_as_a_file(session: requests.Session) -> None:
    with ScriptedPeer([answer(content=b"0123456789")]) as peer:
        response = session.get(peer.url, timeout=LIMIT, stream=True)
        file = response.raw._fp
        assert isinstance(file, Content) and file.readable()
        buffer = bytearray(3)
        assert (file.readinto(buffer), bytes(buffer), file.read(4), file.read(0)) == (3, b"012", b"3456", b"")
        assert (file.read(), file.read1(), file.closed) == (b"789", b"", True)
