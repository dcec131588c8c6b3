"""URLs as callers write them, and how a client's `base_url` and parameters come to them."""

import pickle
from typing import Any

import httpx
import pytest

import calamint
from calamint import URL, Client, InvalidURL


@pytest.fixture
def quiet() -> Client:
    """A client that is asked for nothing but its requests."""
    return Client(transport=calamint.MockTransport(lambda request: calamint.Response(200)))


def test_parts() -> None:
    url = URL("https://user:p%40ss@Example.com:8443/a%20b?x=1&y=2#end")
    assert (url.scheme, url.host, url.port, url.netloc) == ("https", "example.com", 8443, "example.com:8443")
    assert (url.path, url.query, url.target, url.fragment) == ("/a b", "x=1&y=2", "/a%20b?x=1&y=2", "end")
    assert (url.username, url.password) == ("user", "p@ss")
    assert str(url) == "https://user:p%40ss@example.com:8443/a%20b?x=1&y=2#end"
    assert url == str(url) and url == URL(str(url)) and hash(url) == hash(URL(str(url))) and url != 5
    assert pickle.loads(pickle.dumps(url)) == url
    assert URL("http://example.com:80").port is None


def test_a_password_is_not_shown() -> None:
    url = URL("https://user:hush@example.com/")
    assert repr(url) == "URL('https://user:********@example.com/')"
    assert str(url.bare()) == "https://example.com/" and url.bare().bare() == url.bare()
    assert "hush" not in repr(calamint.Request("GET", url))


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("/x", "https://example.com/x"),
        ("x", "https://example.com/a/x"),
        ("?q", "https://example.com/a/b?q"),
        ("#f", "https://example.com/a/b?q=1#f"),
        ("", "https://example.com/a/b?q=1#old"),
        ("//other.example/x", "https://other.example/x#old"),
        ("http://other.example", "http://other.example/#old"),
        ("../../x", "https://example.com/x#old"),
        ("/é?ü", "https://example.com/%C3%A9?%C3%BC#old"),
        ("/a b", "https://example.com/a%20b"),
    ],
)
def test_join(reference: str, expected: str) -> None:
    """RFC 3986 §5; credentials stay behind, and a fragment goes along where there is no other (RFC 9110 §10.2.2)."""
    joined = URL("https://user:hush@example.com/a/b?q=1#old").join(reference)
    assert str(joined).removesuffix("#old") == expected.removesuffix("#old")
    assert joined.fragment == ("f" if reference == "#f" else "old")


@pytest.mark.parametrize("reference", ["http://[::1", "http://[x]/", "http://", "https://a b/", "http://h:99999/"])
def test_a_reference_that_leads_nowhere(reference: str) -> None:
    with pytest.raises(InvalidURL):
        URL("https://example.com/").join(reference)


@pytest.mark.parametrize(
    ("base", "url", "expected"),
    [
        ("https://h", "/x", "https://h/x"),
        ("https://h/", "x", "https://h/x"),
        ("https://h/api", "/x", "https://h/api/x"),
        ("https://h/api/", "x?q=1#f", "https://h/api/x?q=1#f"),
        ("https://h/api", "", "https://h/api"),
        ("https://h/api", "?q=1", "https://h/api?q=1"),
        ("https://h/api", "http://other/x", "http://other/x"),
        ("https://h/api", "//other/x", "https://h/api/other/x"),
        ("https://h/api", "/x?to=http://other", "https://h/api/x?to=http://other"),
        ("https://h/api", "/save/http://other/x", "https://h/api/save/http://other/x"),
        ("https://h/api", "save/http://other/x", "https://h/api/save/http://other/x"),
        ("https://h/api", "x#http://other", "https://h/api/x#http://other"),
        ("", "http://other", "http://other/"),
    ],
)
def test_base_url(base: str, url: str, expected: str) -> None:
    client = Client(base_url=base, transport=calamint.MockTransport(lambda request: calamint.Response(200)))
    assert client.build_request("GET", url).url == expected
    assert client.base_url == base


@pytest.mark.parametrize("base", ["https://h?q=1", "https://h#f", "https://h/#", "https://h/?", "/x"])
def test_a_base_that_cannot_be_one(base: str) -> None:
    with pytest.raises(InvalidURL):
        Client(base_url=base)


def test_without_a_base_a_path_is_no_url(quiet: Client) -> None:
    with pytest.raises(InvalidURL, match="has no scheme"):
        quiet.get("/x")


@pytest.mark.parametrize("bad", [5, None, b"http://h", httpx.URL("http://h")])
@pytest.mark.parametrize("base", ["", "http://h"])
def test_what_is_no_url_by_its_type(base: str, bad: Any) -> None:
    transport = calamint.MockTransport(lambda request: calamint.Response(200))
    with Client(base_url=base, transport=transport) as client:
        for ask in (client.get, URL, lambda url: calamint.Request("GET", url)):
            with pytest.raises(TypeError, match=f"a URL is of type {type(bad).__name__}: give text, or a calamint.URL"):
                ask(bad)


def test_params_are_appended(quiet: Client) -> None:
    """As with requests: what the URL says stays. Where the client and the call have the same name, the call's counts."""
    quiet.params = {"key": "1", "both": "client"}
    assert quiet.build_request("GET", "http://h/x?a=1#f").url == "http://h/x?a=1&key=1&both=client#f"
    request = quiet.build_request("GET", "http://h/x?a=1", params={"both": ["call", "twice"], "a": 2})
    assert request.url.query == "a=1&key=1&both=call&both=twice&a=2"
    quiet.params = None
    assert quiet.build_request("GET", "http://h/x", params={}).url == "http://h/x"
    assert quiet.build_request("GET", URL("http://h/x"), params={"q": "é &"}).url == "http://h/x?q=%C3%A9+%26"
    assert calamint.Request("GET", "http://h/?a", params="b=1").url == "http://h/?a&b=1"


def test_many_urls_are_not_all_remembered(quiet: Client) -> None:
    for number in range(1100):
        assert quiet.build_request("GET", f"http://h/{number}").url == f"http://h/{number}"
    assert len(quiet._urls) <= 512
