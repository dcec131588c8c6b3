"""`Connection` against real servers: HTTP/1.1, h2 over TLS with a private CA, and h2c."""

import hashlib
import json
from collections.abc import Iterator

import pytest

import calamint
from calamint import core
from tests import servers
from tests.net.live import FULL, Way, settle, ways

pytestmark = pytest.mark.server

WAYS = ways([*FULL, "nghttpd"])
ECHO = ways(FULL)
HTTP2 = ways([*FULL, "nghttpd"], "h2")
# 100 MiB take about a second: mostly over TLS, and not through HTTP/2 in Python.
LARGE = [
    *[(name, "https", "h2") for name in ("nginx", "apache", "node", "h2o", "haproxy")],
    *[(name, "https", "http/1.1") for name in ("apache", "h2o")],
    *[(name, "http1", "http/1.1") for name in ("nginx", "node", "hypercorn")],
]
PIECE = 256 * 1024


@pytest.fixture
def connection(way: Way) -> Iterator[calamint.Connection]:
    """The connection of a parametrised way."""
    with way.dial() as conn:
        assert conn.protocol == way.protocol
        yield conn


@pytest.mark.parametrize("way", WAYS, indirect=True, ids="-".join)
def test_get(connection: calamint.Connection) -> None:
    """A small response, and another on the same connection."""
    for _ in range(2):
        response = connection.response(connection.request("GET", "/small"))
        assert (response.status, response.content) == (200, servers.SMALL)
        assert response.get("Content-Length") == "5"
    settle(connection)


@pytest.mark.parametrize("way", WAYS, indirect=True, ids="-".join)
def test_head(connection: calamint.Connection) -> None:
    """A HEAD's length is not waited for (RFC 9110 §9.3.2)."""
    response = connection.response(connection.request("HEAD", "/small"))
    assert (response.status, response.content, response.get("content-length")) == (200, b"", "5")
    assert connection.response(connection.request("GET", "/small")).content == servers.SMALL


@pytest.mark.parametrize("way", ECHO, indirect=True, ids="-".join)
@pytest.mark.parametrize("status", [204, 304])
def test_no_content(connection: calamint.Connection, status: int) -> None:
    """204 and 304 have no content, and the next response is found (RFC 9112 §6.3)."""
    response = connection.response(connection.request("GET", f"/status/{status}"))
    assert (response.status, response.content) == (status, b"")
    assert connection.response(connection.request("GET", "/small")).content == servers.SMALL


@pytest.mark.parametrize("way", ECHO, indirect=True, ids="-".join)
def test_post(connection: calamint.Connection) -> None:
    """Content goes out whole, and comes back."""
    content = bytes(range(256)) * 100
    response = connection.response(connection.request("POST", "/echo", {"content-type": "x/y"}, content))
    assert (response.status, response.content) == (200, content)
    assert response.get("x-sha256") == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("way", ECHO, indirect=True, ids="-".join)
def test_post_in_pieces(connection: calamint.Connection) -> None:
    """Content of unknown length: chunked on HTTP/1.1 (RFC 9112 §7.1), DATA on HTTP/2."""
    ref = connection.request("POST", "/upload", end=False)
    for piece in (b"first ", b"", b"second", b" third"):
        connection.send_data(ref, piece)
    connection.send_data(ref, b".", end=True)
    answer = json.loads(connection.response(ref).content)
    assert answer == {"bytes": 19, "sha256": hashlib.sha256(b"first second third.").hexdigest()}
    settle(connection)


@pytest.mark.parametrize("way", ECHO, indirect=True, ids="-".join)
def test_chunked(connection: calamint.Connection) -> None:
    """A response without a length."""
    response = connection.response(connection.request("GET", "/chunked"))
    assert (response.status, len(response.content)) == (200, servers.MEDIUM_SIZE)
    assert response.get("content-length") is None


@pytest.mark.slow
@pytest.mark.parametrize("way", [*LARGE, ("nghttpd", "https", "h2")], indirect=True, ids="-".join)
def test_large_download(connection: calamint.Connection) -> None:
    """100 MiB, as they come."""
    connection.request("GET", "/large")
    digest = hashlib.sha256()
    size = 0
    for event in connection.events():
        assert not isinstance(event, core.RequestFailed), event
        if isinstance(event, core.DataReceived):
            digest.update(event.data)
            size += len(event.data)
    assert size == servers.LARGE_SIZE
    assert digest.hexdigest() == servers.large_sha256()
    settle(connection)


@pytest.mark.slow
@pytest.mark.parametrize("way", LARGE, indirect=True, ids="-".join)
def test_large_upload(connection: calamint.Connection) -> None:
    """100 MiB in pieces; no more of them wait in the value than its budget and the peer's windows allow."""
    digest = hashlib.sha256()
    ref = connection.request("POST", "/upload", {"content-length": str(servers.LARGE_SIZE)}, end=False)
    for number in range(servers.LARGE_SIZE // PIECE):
        piece = number.to_bytes(4, "big") * (PIECE // 4)
        digest.update(piece)
        connection.send_data(ref, piece, end=(number + 1) * PIECE == servers.LARGE_SIZE)
    answer = json.loads(connection.response(ref).content)
    assert answer == {"bytes": servers.LARGE_SIZE, "sha256": digest.hexdigest()}
    settle(connection)


@pytest.mark.parametrize(
    "way", [way for way in HTTP2 if way[:2] != ("hypercorn", "https")], indirect=True, ids="-".join
)
def test_many_at_once(connection: calamint.Connection) -> None:
    """100 streams on one connection, in ten rounds."""
    for _ in range(10):
        with connection.cork():
            refs = [connection.request("GET", "/small") for _ in range(100)]
        assert connection.snapshot().capacity == 0
        for ref in reversed(refs):
            assert connection.response(ref).content == servers.SMALL
    settle(connection)


def test_more_than_the_server_allows(node: servers.Server) -> None:
    """A request above the limit is refused here, before a byte leaves, and the value is as it was."""
    with Way(node, "h2c", "h2").dial() as connection:
        for _ in range(100):
            connection.request("GET", "/never")
        before = connection.value
        with pytest.raises(calamint.AtCapacity, match="100 allowed, 100 live"):
            connection.request("GET", "/small")
        assert connection.value is before


def test_deadline_frees_the_slot(node: servers.Server) -> None:
    """A request that is never answered ends at its deadline; its stream is reset, and its siblings go on."""
    with Way(node, "h2c", "h2").dial() as connection:
        lost = connection.request("GET", "/never", timeout=0.2)
        slow = connection.request("GET", "/slow?ms=400")
        with pytest.raises(calamint.DeadlineExceeded, match=r"\(total\) came 0.2"):
            connection.response(lost)
        assert connection.response(slow).status == 200
        settle(connection)
        assert connection.capacity == 100


def test_cancel(node: servers.Server) -> None:
    """A download that is given up is reset, and what still comes of it is dropped."""
    with Way(node, "h2c", "h2").dial() as connection:
        ref = connection.request("GET", "/large")
        while not any(isinstance(event, core.DataReceived) for event in connection.receive()):
            pass
        connection.cancel(ref)
        assert connection.response(connection.request("GET", "/small")).content == servers.SMALL
        settle(connection)
        with pytest.raises(calamint.StreamClosed):
            connection.response(ref)


def test_until_close(node: servers.Server) -> None:
    """A response that ends with the connection (RFC 9112 §6.3)."""
    with Way(node, "http1", "http/1.1").dial() as connection:
        response = connection.response(connection.request("GET", "/until-close"))
        assert response.status == 200
        assert response.content
        assert connection.is_closed


def test_unix_socket(nginx: servers.Server) -> None:
    """HTTP/1.1 over a Unix domain socket."""
    with calamint.connect("http://localhost", uds=str(nginx.unix_socket)) as connection:
        assert connection.response(connection.request("GET", "/small")).content == servers.SMALL
