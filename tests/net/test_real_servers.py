"""`Connection` against real servers: HTTP/1.1, h2 over TLS with a private CA, and h2c."""

import hashlib
import json
from collections.abc import Iterator

import pytest

import calamint
from calamint import core
from tests import servers

pytestmark = pytest.mark.server

# server, key of its url, protocol that we ask for
WAYS = [
    (name, key, protocol)
    for name in ("nginx", "apache", "node", "h2o", "haproxy", "hypercorn")
    for key, protocol in (("http1", "http/1.1"), ("https", "http/1.1"), ("https", "h2"), ("h2c", "h2"))
] + [("nghttpd", "https", "h2"), ("nghttpd", "h2c", "h2")]
ECHO = [way for way in WAYS if way[0] != "nghttpd"]
HTTP2 = [way for way in WAYS if way[2] == "h2"]
PIECE = 256 * 1024


def dial(server: servers.Server, key: str, protocol: str) -> calamint.Connection:
    """A connection to a server, of the protocol asked for."""
    verify = str(server.ca_file) if key == "https" else True
    return calamint.connect(
        server.urls[key].replace("127.0.0.1", "localhost"),
        http1=protocol != "h2",
        http2=protocol == "h2",
        verify=verify,
    )


@pytest.fixture
def connection(request: pytest.FixtureRequest) -> Iterator[calamint.Connection]:
    """The connection of a parametrised way."""
    name, key, protocol = request.param
    with dial(request.getfixturevalue(name), key, protocol) as conn:
        assert conn.protocol == protocol
        yield conn


def settle(conn: calamint.Connection) -> core.Snapshot:
    """The snapshot after all requests are over: no slot is taken, and nothing waits."""
    snapshot = conn.snapshot()
    assert snapshot.requests == snapshot.unsent == snapshot.unconfirmed == ()
    assert snapshot.unflushed == 0
    return snapshot


@pytest.mark.parametrize("connection", WAYS, indirect=True, ids="-".join)
def test_get(connection: calamint.Connection) -> None:
    """A small response, and another on the same connection."""
    for _ in range(2):
        response = connection.response(connection.request("GET", "/small"))
        assert (response.status, response.content) == (200, servers.SMALL)
        assert response.get("Content-Length") == "5"
    settle(connection)


@pytest.mark.parametrize("connection", WAYS, indirect=True, ids="-".join)
def test_head(connection: calamint.Connection) -> None:
    """A HEAD's length is not waited for (RFC 9110 §9.3.2)."""
    response = connection.response(connection.request("HEAD", "/small"))
    assert (response.status, response.content, response.get("content-length")) == (200, b"", "5")
    assert connection.response(connection.request("GET", "/small")).content == servers.SMALL


@pytest.mark.parametrize("connection", ECHO, indirect=True, ids="-".join)
@pytest.mark.parametrize("status", [204, 304])
def test_no_content(connection: calamint.Connection, status: int) -> None:
    """204 and 304 have no content, and the next response is found (RFC 9112 §6.3)."""
    response = connection.response(connection.request("GET", f"/status/{status}"))
    assert (response.status, response.content) == (status, b"")
    assert connection.response(connection.request("GET", "/small")).content == servers.SMALL


@pytest.mark.parametrize("connection", ECHO, indirect=True, ids="-".join)
def test_post(connection: calamint.Connection) -> None:
    """Content goes out whole, and comes back."""
    content = bytes(range(256)) * 100
    response = connection.response(connection.request("POST", "/echo", {"content-type": "x/y"}, content))
    assert (response.status, response.content) == (200, content)
    assert response.get("x-sha256") == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("connection", ECHO, indirect=True, ids="-".join)
def test_post_in_pieces(connection: calamint.Connection) -> None:
    """Content of unknown length: chunked on HTTP/1.1 (RFC 9112 §7.1), DATA on HTTP/2."""
    ref = connection.request("POST", "/upload", end=False)
    for piece in (b"first ", b"", b"second", b" third"):
        connection.send_data(ref, piece)
    connection.send_data(ref, b".", end=True)
    answer = json.loads(connection.response(ref).content)
    assert answer == {"bytes": 19, "sha256": hashlib.sha256(b"first second third.").hexdigest()}
    settle(connection)


@pytest.mark.parametrize("connection", ECHO, indirect=True, ids="-".join)
def test_chunked(connection: calamint.Connection) -> None:
    """A response without a length."""
    response = connection.response(connection.request("GET", "/chunked"))
    assert (response.status, len(response.content)) == (200, servers.MEDIUM_SIZE)
    assert response.get("content-length") is None


@pytest.mark.slow
@pytest.mark.parametrize("connection", WAYS, indirect=True, ids="-".join)
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
@pytest.mark.parametrize("connection", ECHO, indirect=True, ids="-".join)
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


@pytest.mark.parametrize("connection", HTTP2, indirect=True, ids="-".join)
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
    with dial(node, "h2c", "h2") as connection:
        for _ in range(100):
            connection.request("GET", "/never")
        before = connection.value
        with pytest.raises(calamint.AtCapacity, match="100 allowed, 100 live"):
            connection.request("GET", "/small")
        assert connection.value is before


def test_deadline_frees_the_slot(node: servers.Server) -> None:
    """A request that is never answered ends at its deadline; its stream is reset, and its siblings go on."""
    with dial(node, "h2c", "h2") as connection:
        lost = connection.request("GET", "/never", timeout=0.2)
        slow = connection.request("GET", "/slow?ms=400")
        with pytest.raises(calamint.DeadlineExceeded, match=r"total=0.2\)"):
            connection.response(lost)
        assert connection.response(slow).status == 200
        settle(connection)
        assert connection.capacity == 100


def test_cancel(node: servers.Server) -> None:
    """A download that is given up is reset, and what still comes of it is dropped."""
    with dial(node, "h2c", "h2") as connection:
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
    with dial(node, "http1", "http/1.1") as connection:
        response = connection.response(connection.request("GET", "/until-close"))
        assert response.status == 200
        assert response.content
        assert connection.is_closed


def test_unix_socket(nginx: servers.Server) -> None:
    """HTTP/1.1 over a Unix domain socket."""
    with calamint.connect("http://localhost", uds=str(nginx.unix_socket)) as connection:
        assert connection.response(connection.request("GET", "/small")).content == servers.SMALL
