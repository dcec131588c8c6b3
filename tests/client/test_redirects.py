"""Redirects (RFC 9110 §15.4): methods, content, credentials, limits. Both clients, over a transport that is a function."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import httpx
import pytest

import calamint
from calamint import Request, Response
from calamint.testing import Request as Seen
from calamint.testing import ScriptedPeer, answer, delay, drip
from tests.client.faces import Face, open_face

Handler = Callable[[Request], Response]
SECRETS: Final = {"Authorization": "hush", "Cookie": "hush", "Proxy-Authorization": "hush", "Proxy-Thing": "hush"}


@contextmanager
def over(kind: str, handler: Handler, **options: Any) -> Iterator[Face]:
    """A client whose requests a function answers."""
    options = {"follow_redirects": True, **options}
    with open_face(kind, transport=calamint.MockTransport(handler), **options) as face:
        yield face


def leads(*chain: str, status: int = 302) -> tuple[Handler, list[Request]]:
    """A handler that sends whoever comes along this chain; and the requests that came."""
    seen: list[Request] = []

    def handle(request: Request) -> Response:
        seen.append(request)
        if len(seen) <= len(chain):
            return Response(status, headers={"Location": chain[len(seen) - 1]})
        return Response(200, content=b"there")

    return handle, seen


# RFC 9110 §15.4.2–§15.4.9: POST may become GET with 301 and 302, everything but HEAD does with 303, nothing with 307 and 308.
MATRIX: Final = [
    *[(301, method, "GET" if method == "POST" else method) for method in ("GET", "HEAD", "POST", "PUT", "DELETE")],
    *[(302, method, "GET" if method == "POST" else method) for method in ("GET", "HEAD", "POST", "PUT", "DELETE")],
    *[(303, method, "HEAD" if method == "HEAD" else "GET") for method in ("GET", "HEAD", "POST", "PUT", "DELETE")],
    *[(status, method, method) for status in (307, 308) for method in ("GET", "HEAD", "POST", "PUT", "DELETE")],
]


@pytest.mark.parametrize(("status", "method", "expected"), MATRIX)
def test_the_method_and_the_content(kind: str, status: int, method: str, expected: str) -> None:
    handle, seen = leads("/there", status=status)
    fields = {"X": "1", "Content-Language": "en"}
    with over(kind, handle) as face:
        content = b"data" if method in ("POST", "PUT") else None
        response = face.request(method, "http://a.example/here", content=content, headers=fields)
    assert [request.method for request in seen] == [method, expected]
    assert seen[1].content == (content or b"" if method == expected else b"")
    assert ("content-language" in seen[1].headers) == (method == expected) and seen[1].headers["x"] == "1"
    assert response.url == "http://a.example/there" and [each.status_code for each in response.history] == [status]
    assert response.history[0].url == "http://a.example/here" and response.request is seen[1]


def test_json_leaves_no_trace_when_post_becomes_get(kind: str) -> None:
    handle, seen = leads("/there")
    with over(kind, handle) as face:
        face.request("POST", "http://a.example/", json={"a": 1})
    assert "content-type" not in seen[1].headers and "content-length" not in seen[1].headers


@pytest.mark.parametrize("status", [300, 304, 305, 306])
def test_what_is_no_redirect(kind: str, status: int) -> None:
    handle, _ = leads("/there", status=status)
    with over(kind, handle) as face:
        response = face.request("GET", "http://a.example/")
    assert response.status_code == status and response.next_request is None and not response.history


def test_a_redirect_without_a_location_is_a_response(kind: str) -> None:
    with over(kind, lambda request: Response(302)) as face:
        assert face.request("GET", "http://a.example/").status_code == 302


def test_not_followed_it_says_where_it_leads(kind: str) -> None:
    """By default, and for one request against the client's own option."""
    handle, seen = leads("/one", "/two")
    with over(kind, handle, follow_redirects=False) as face:
        response = face.request("POST", "http://a.example/", content=b"x")
        assert response.status_code == 302 and response.next_request is not None
        assert response.next_request.method == "GET" and response.next_request.url == "http://a.example/one"
        response = face.send(response.next_request, follow_redirects=True)
        assert (response.status_code, len(seen)) == (200, 3)
    handle, seen = leads("/one")
    with over(kind, handle) as face:
        assert face.request("GET", "http://a.example/", follow_redirects=False).status_code == 302


# Credentials


@pytest.mark.parametrize(
    "other",
    [
        "https://a.example/",
        "http://b.example/",
        "http://a.example:81/",
        "http://sub.a.example/",
        "//b.example/x",
        "http://A.example./",
    ],
)
def test_G15_credentials_stay_at_their_origin(kind: str, other: str) -> None:
    """All of them, however often each is there; and they do not come back, even where the chain does."""
    handle, seen = leads("/same", other, "/still", "http://a.example/back")
    fields = [*SECRETS.items(), ("cookie", "hush"), ("X-Api", "kept"), ("Host", "virtual.example")]
    with over(kind, handle) as face:
        face.request("GET", "http://a.example/", headers=fields)
    assert len(seen) == 5
    for request in seen[:2]:
        assert request.headers.get_list("cookie") == ["hush", "hush"] and request.headers["authorization"] == "hush"
        assert request.headers["host"] == "virtual.example"
    for request in seen[2:]:
        assert "hush" not in str(request.headers.raw) and "host" not in request.headers
        assert request.headers["x-api"] == "kept"


@pytest.mark.parametrize("how", ["url", "call", "client"])
def test_G15_basic_credentials_do_not_come_back_either(kind: str, how: str) -> None:
    """A → B → B → A: whoever is sent back to A comes as nobody."""
    handle, seen = leads("http://b.example/", "/b", "http://a.example/")
    client = {"auth": ("user", "hush")} if how == "client" else {}
    call = {"auth": ("user", "hush")} if how == "call" else {}
    with over(kind, handle, **client) as face:
        response = face.request("GET", "http://user:hush@a.example/" if how == "url" else "http://a.example/", **call)
    assert seen[0].headers["authorization"] == "Basic dXNlcjpodXNo"
    assert all("authorization" not in request.headers for request in seen[1:])
    assert response.history[0].url == "http://a.example/"  # without its password, wherever it is shown


def test_credentials_of_a_location_are_not_used(kind: str) -> None:
    """They are the server's."""
    handle, seen = leads("http://user:hush@a.example/x")
    with over(kind, handle) as face:
        face.request("GET", "http://a.example/")
    assert seen[1].url == "http://a.example/x" and "authorization" not in seen[1].headers


# Where it leads


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("", "http://a.example/dir/page?q=1#frag"),
        ("?x", "http://a.example/dir/page?x#frag"),
        ("x", "http://a.example/dir/x#frag"),
        ("/x#other", "http://a.example/x#other"),
        ("/é", "http://a.example/%C3%A9#frag"),
        ("/a b", "http://a.example/a%20b#frag"),
        ("//b.example", "http://b.example/#frag"),
        ("http://b.example?x", "http://b.example/?x#frag"),
        ("HTTP://B.Example/", "http://b.example/#frag"),
    ],
)
def test_where_a_location_leads(kind: str, location: str, expected: str) -> None:
    handle, seen = leads(location)
    with over(kind, handle) as face:
        face.request("GET", "http://a.example/dir/page?q=1#frag")
    assert str(seen[1].url) == expected


def test_a_location_of_any_bytes(kind: str) -> None:
    """UTF-8 where it is that, else Latin-1."""
    for value in ("/é".encode(), b"/\xe9"):
        seen: list[Request] = []

        def handle(request: Request, value: bytes = value, seen: list[Request] = seen) -> Response:
            seen.append(request)
            return Response(302, headers=[(b"Location", value)]) if len(seen) == 1 else Response(200)

        with over(kind, handle) as face:
            face.request("GET", "http://a.example/")
        assert seen[1].url.target == "/%C3%A9"


@pytest.mark.parametrize(
    "location",
    [
        "ftp://a.example/",
        "javascript:alert(1)",
        "http://[::1",
        "http://a b/",
        "http://h:99999",
        "mailto:x@y",
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_location_that_leads_nowhere(kind: str, location: str, stream: bool) -> None:
    """An error for whoever follows; for whoever does not, a response like any other."""
    handle, seen = leads(location)
    with over(kind, handle) as face:
        request = face.build_request("GET", "http://a.example/")
        with pytest.raises(calamint.RemoteProtocolError, match="leads nowhere") as caught:
            face.send(request, stream=stream)
        assert caught.value.request is request
        response = face.request("GET", "http://a.example/", follow_redirects=False)
        assert response.status_code == 200 and len(seen) == 2
    handle, _ = leads(location)
    with over(kind, handle, follow_redirects=False) as face:
        assert face.request("GET", "http://a.example/").next_request is None


def test_two_locations(kind: str) -> None:
    """Twice the same is one place, anything else none."""
    for other, status in (("/x", 200), ("/y", 0)):
        seen: list[Request] = []

        def handle(request: Request, other: str = other, seen: list[Request] = seen) -> Response:
            seen.append(request)
            return Response(302, headers=[("Location", "/x"), ("Location", other)] if len(seen) == 1 else [])

        with over(kind, handle) as face:
            if status:
                assert face.request("GET", "http://a.example/").url == "http://a.example/x"
            else:
                with pytest.raises(calamint.RemoteProtocolError, match="leads to 2 places"):
                    face.request("GET", "http://a.example/")


# How far


@pytest.mark.parametrize("most", [0, 1, 20])
def test_max_redirects(kind: str, most: int) -> None:
    """As many as it says are followed, and not one more; httpx counts alike."""
    for length in (most, most + 1):
        handle, seen = leads(*["/next"] * length)
        other: list[int] = []

        def theirs(request: httpx.Request, length: int = length, other: list[int] = other) -> httpx.Response:
            other.append(1)
            return httpx.Response(302, headers={"Location": "/next"}) if len(other) <= length else httpx.Response(200)

        with (
            over(kind, handle, max_redirects=most) as face,
            httpx.Client(transport=httpx.MockTransport(theirs), max_redirects=most, follow_redirects=True) as judge,
        ):
            if length == most:
                assert len(face.request("GET", "http://a.example/").history) == most
                judge.get("http://a.example/")
            else:
                with pytest.raises(calamint.TooManyRedirects, match=f"max_redirects={most}") as caught:
                    face.request("GET", "http://a.example/")
                assert isinstance(caught.value.request, Request)
                with pytest.raises(httpx.TooManyRedirects):
                    judge.get("http://a.example/")
        assert len(seen) == most + 1


@pytest.mark.parametrize(
    ("status", "once", "length"), [(307, True, None), (308, False, 2), (303, True, 0), (302, False, 0), (301, True, 0)]
)
def test_content_that_cannot_be_sent_again(kind: str, way: str, status: int, once: bool, length: int | None) -> None:
    """A generator's, where the method stays; that of a list can."""
    with ScriptedPeer([answer(status, ((b"location", b"/there"),)), answer()]) as peer:
        with open_face(kind, way, follow_redirects=True) as face:
            content: Any = face.upload([b"a", b"b"]) if once else [b"a", b"b"]
            if length is None:
                with pytest.raises(calamint.StreamConsumed, match="asks for the content again"):
                    face.request("POST", peer.url, content=content)
            else:
                assert face.request("POST", peer.url, content=content).status_code == 200
                assert [seen.length for seen in peer.report.requests] == [2, length]


# On the wire


def test_a_redirect_uses_its_connection_again(kind: str, way: str) -> None:
    """As a whole and as a stream, whose short content is read for that; a long one is not."""

    def act(request: Seen) -> Any:
        if request.target == "/there":
            return answer(content=b"there")
        size = 10_000_000 if request.target == "/long" else 100
        return answer(302, ((b"location", b"/there"),), content=bytes(size))

    with ScriptedPeer(act) as peer, open_face(kind, way, follow_redirects=True) as face:
        assert face.request("GET", f"{peer.url}/").content == b"there"
        with face.stream("GET", f"{peer.url}/") as response:
            assert face.read(response) == b"there" and response.history[0].is_closed
            assert response.history[0].content == bytes(100)  # as in httpx
        assert peer.report.connections == 1
        with face.stream("GET", f"{peer.url}/long") as response:
            assert face.read(response) == b"there"
            with pytest.raises(calamint.ResponseNotRead):
                assert response.history[0].content
        report = peer.report
        assert report.connections == (1 if way == "h2" else 2) and len(report.resets) == (1 if way == "h2" else 0)
        assert report.bytes_out < 9_000_000 or way == "http1"  # there the peer has given all of it to its socket


def test_the_total_is_for_all_of_a_chain(kind: str, way: str) -> None:
    """Each of the redirects would be in time, all of them are not; and the error says what was allowed for them."""
    with ScriptedPeer([delay(0.15, answer(302, ((b"location", b"/next"),)))]) as peer:
        with open_face(kind, way, follow_redirects=True, timeout=0.4) as face:
            with pytest.raises(calamint.DeadlineExceeded, match=r"timeout=0\.4 is for all of a request") as caught:
                face.request("GET", peer.url)
            assert isinstance(caught.value.request, Request)
        assert 2 <= len(peer.report.requests) <= 3


def test_a_redirect_whose_content_never_ends_is_over_with_the_deadline(kind: str, way: str) -> None:
    with ScriptedPeer([drip(b"ab", 1, 60.0, 302, ((b"location", b"/there"),), end=False)]) as peer:
        with open_face(kind, way, follow_redirects=True) as face:
            for stream in (False, True):
                with pytest.raises(calamint.DeadlineExceeded, match=r"timeout=0\.2 "):
                    face.send(face.build_request("GET", peer.url, timeout=0.2), stream=stream)
            peer.wait_for(lambda report: not report.streams_open)
