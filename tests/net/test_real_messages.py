"""What a message can have beside a head and content, against real servers: trailers, interim responses, an early end."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from calamint import core
from tests import servers
from tests.net.live import FULL, Way, settle, ways

pytestmark = pytest.mark.server

# nginx, h2o, and Apache over HTTP/1.1 drop what node sent; hypercorn sends trailers over HTTP/2 alone.
RESPONSE_TRAILERS = [*ways(["node", "haproxy"]), *ways(["apache", "hypercorn"], "h2")]
# h2o drops what node sent, nginx 1.22 breaks it over HTTP/2; hypercorn has it over HTTP/2 alone.
EARLY_HINTS = [*ways(["node", "haproxy", "apache"]), *ways(["hypercorn"], "h2"), *ways(["nginx"], "http/1.1")]
NEVER_100 = ways(["nginx", "h2o", "hypercorn"], "h2")  # neither does RFC 9110 §10.1.1 ask that of them
SAYS_100 = [way for way in ways([*FULL, "nghttpd"]) if way not in NEVER_100]
BODY = bytes(range(256)) * 200
PIECE, PIECES = b"x" * 65536, 64


@pytest.mark.parametrize("way", RESPONSE_TRAILERS, indirect=True, ids="-".join)
def test_response_trailers(way: Way) -> None:
    """They come after the content, and the next response is found."""
    fields = {"te": "trailers"} | ({"connection": "te"} if way.protocol == "http/1.1" else {})  # RFC 9110 §10.1.4
    with way.dial() as connection:
        for _ in range(2):
            response = connection.response(connection.request("GET", "/trailers", fields))
            assert (response.status, response.content) == (200, b"trailers\n")
            assert response.trailers == ((b"x-checksum", b"1234"),)
        settle(connection)


def test_nghttpd_trailers(tmp_path: Path, large_file: Path, private_ca: servers.PrivateCa) -> None:
    """The same of nghttpd, which sends them with every response."""
    with (
        servers.nghttpd(tmp_path, large_file.parent, private_ca, "--trailer=x-checksum: 1234") as server,
        Way(server, "h2c", "h2").dial() as connection,
    ):
        response = connection.response(connection.request("GET", "/medium"))
        assert (len(response.content), response.trailers) == (servers.MEDIUM_SIZE, ((b"x-checksum", b"1234"),))


@pytest.mark.parametrize("way", ways(["node", "haproxy"]), indirect=True, ids="-".join)
def test_request_trailers(way: Way) -> None:
    """They go out after the content: in the last chunk's trailer section (RFC 9112 §7.1.2), or as HEADERS."""
    with way.dial() as connection:
        ref = connection.request("POST", "/trailers", {"trailer": "x-sum"}, end=False)
        connection.send_data(ref, b"content")
        connection.send_data(ref, b"", trailers={"x-sum": "7", "x-more": "a b"})
        assert json.loads(connection.response(ref).content) == {"x-sum": "7", "x-more": "a b"}
        settle(connection)


@pytest.mark.parametrize("way", EARLY_HINTS, indirect=True, ids="-".join)
def test_early_hints(way: Way) -> None:
    """A 103 (RFC 8297) before the response."""
    with way.dial() as connection:
        response = connection.response(connection.request("GET", "/early-hints"))
        assert (response.status, response.content) == (200, b"hinted\n")
        assert [event.status for event in response.interim] == [103]
        assert (b"link", b"</small>; rel=preload") in response.interim[0].fields
        settle(connection)


@pytest.mark.parametrize("way", SAYS_100, indirect=True, ids="-".join)
def test_expect(way: Way) -> None:
    """The content waits for 100 (Continue), which comes, and then all of it goes."""
    with way.dial() as connection:
        fields, clocks = {"expect": "100-continue"}, core.Clocks(expect=None)
        response = connection.response(connection.request("POST", "/echo", fields, BODY, timeout=20, clocks=clocks))
        assert (response.status, response.content) == (200, BODY)
        assert [event.status for event in response.interim] == [100]
        settle(connection)


@pytest.mark.parametrize("way", NEVER_100, indirect=True, ids="-".join)
def test_expect_is_not_answered(way: Way) -> None:
    """Where no 100 comes the content goes after a while (RFC 9110 §10.1.1)."""
    with way.dial() as connection:
        fields, clocks = {"expect": "100-continue"}, core.Clocks(expect=0.05)
        response = connection.response(connection.request("POST", "/echo", fields, BODY, timeout=20, clocks=clocks))
        assert (response.status, response.content) == (200, BODY)
        assert response.interim == []
        settle(connection)


@pytest.mark.parametrize(
    "way", [*ways(["node", "nginx", "haproxy"]), *ways(["apache"], "http/1.1")], indirect=True, ids="-".join
)
def test_expect_is_refused(way: Way) -> None:
    """A final response instead of the 100: none of the content leaves."""
    sent: list[bytes] = []
    with way.dial(tap=lambda direction, data: sent.append(data) if direction == ">" else None) as connection:
        fields, clocks = {"expect": "100-continue"}, core.Clocks(expect=None)
        response = connection.response(connection.request("POST", "/limited", fields, BODY, timeout=20, clocks=clocks))
        assert (response.status, response.interim) == (413, [])
        assert BODY[:64] not in b"".join(sent)
        if way.protocol == "h2":
            assert connection.response(connection.request("GET", "/small")).content == servers.SMALL
            settle(connection)


@pytest.mark.parametrize("way", SAYS_100, indirect=True, ids="-".join)
def test_expect_with_content_that_comes_later(way: Way) -> None:
    """What is given in pieces waits as well, and what is given after the 100 does not."""
    with way.dial() as connection:
        ref = connection.request(
            "POST",
            "/echo",
            {"expect": "100-continue"},
            b"first ",
            end=False,
            timeout=20,
            clocks=core.Clocks(expect=None),
        )
        events: list[core.Event] = []
        while not (interim := [event for event in events if isinstance(event, core.InterimReceived)]):
            events += connection.receive(20)
        assert (interim[0].ref, interim[0].status) == (ref, 100)
        connection.send_data(ref, b"second ")
        connection.send_data(ref, b"third", end=True)
        assert connection.response(ref).content == b"first second third"
        settle(connection)


@pytest.fixture(scope="module")
def small_h2o(
    tmp_path_factory: pytest.TempPathFactory,
    large_file: Path,
    private_ca: servers.PrivateCa,
    node: servers.Server,
    h2o: servers.Server,
) -> Iterator[servers.Server]:
    """h2o has one limit for all of its routes."""
    directory = tmp_path_factory.mktemp("small-h2o")
    with servers.h2o(directory, large_file.parent, private_ca, node, body_limit=servers.BODY_LIMIT) as server:
        yield server


# Over HTTP/2 Apache has no limit, h2o resets the stream, and hypercorn breaks when content comes after the response.
REFUSED = [*ways(["nginx", "node", "haproxy"]), *ways(["apache", "small_h2o", "hypercorn"], "http/1.1")]


@pytest.mark.parametrize("way", REFUSED, indirect=True, ids="-".join)
def test_content_too_large(way: Way) -> None:
    """A 413 while content is going out is a response, not a failure (RFC 9113 §8.1, RFC 9112 §9.3)."""
    upload_too_much(way, {"content-length": str(PIECES * len(PIECE))})


# HAProxy's rule looks at content-length alone.
@pytest.mark.parametrize("way", [way for way in REFUSED if way[0] != "haproxy"], indirect=True, ids="-".join)
def test_content_of_unknown_length_too_large(way: Way) -> None:
    """The same where the server finds out only when it comes."""
    upload_too_much(way, {})


def upload_too_much(way: Way, fields: dict[str, str]) -> None:
    """An upload above the limit, in pieces; the connection goes on if it is HTTP/2."""
    with way.dial() as connection:
        path = "/upload" if way.server.name == "h2o" else "/limited"
        ref = connection.request("POST", path, fields, end=False)
        for number in range(PIECES):
            if not connection.send_data(ref, PIECE, end=number == PIECES - 1):
                break
        assert connection.response(ref).status == 413
        if way.protocol == "h2":
            assert connection.response(connection.request("GET", "/small")).content == servers.SMALL
            settle(connection)
