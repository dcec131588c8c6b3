"""A proxy as a caller names it: what is taken, what is shown, and what two of them may share."""

import base64
import ssl
from pathlib import Path
from typing import Any, Final

import pytest

from calamint.core.errors import InvalidURL
from calamint.core.fields import check_target
from calamint.core.url import Origin
from calamint.net.proxy import Proxy, absolute_form
from calamint.net.response import Headers
from tests.servers import PrivateCa

SECRET: Final = "pa55word"


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("http://proxy.test", Origin("http", "proxy.test", 80)),
        ("HTTP://Proxy.Test:3128/", Origin("http", "proxy.test", 3128)),
        ("https://proxy.test", Origin("https", "proxy.test", 443)),
        ("https://[::1]:8443/ignored?too#this", Origin("https", "::1", 8443)),
        ("socks5://proxy.test", Origin("socks5", "proxy.test", 1080)),
        ("socks5h://192.0.2.1:80", Origin("socks5h", "192.0.2.1", 80)),
        ("http://bücher.test", Origin("http", "xn--bcher-kva.test", 80)),
    ],
)
def test_where_it_is(url: str, origin: Origin) -> None:
    proxy = Proxy(url)
    assert proxy.origin == origin
    assert proxy.is_socks == url.startswith("socks")
    assert (proxy.auth, proxy.fields) == (None, ())


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("ftp://proxy.test", "the scheme 'ftp' is none of a proxy: there are http, https, socks5, socks5h"),
        (f"socks4://me:{SECRET}@proxy.test", "the scheme 'socks4' is none of a proxy"),
        ("proxy.test:3128", "has no scheme"),
        ("http://", "has no host"),
        ("http://proxy.test:65536", "'65536' is not a number from 0 to 65535"),
        (f"http://me:{SECRET}@proxy.test:x", "not the URL of a proxy: 'http://…@proxy.test:x'"),
        (
            f"http://me:{SECRET}/@proxy.test",
            "not the URL of a proxy: 'http://…@proxy.test'; in its credentials write %40",
        ),
        (f"http://me:{SECRET}#1@proxy.test", "'http://…@proxy.test'"),
        (f"http://{SECRET}:%ff@proxy.test", "the credentials in the proxy's URL are not UTF-8"),
    ],
)
def test_what_is_no_url_of_a_proxy(url: str, what: str) -> None:
    with pytest.raises(InvalidURL) as caught:
        Proxy(url)
    assert what in str(caught.value)
    assert SECRET not in str(caught.value)


# Credentials


@pytest.mark.parametrize(
    ("url", "auth", "credentials"),
    [
        ("http://me:secret@proxy.test", None, b"me:secret"),
        ("http://me%40a.test:s%3Ae%2Fcret@proxy.test", None, b"me@a.test:s:e/cret"),
        ("http://me@proxy.test", None, b"me:"),
        ("http://:secret@proxy.test", None, b":secret"),
        ("https://m%C3%BC:%E2%82%AC@proxy.test", None, "mü:€".encode()),
        ("http://proxy.test", ("me", "se:cret"), b"me:se:cret"),
        ("http://proxy.test", ("", ""), b":"),
    ],
)
def test_basic_credentials(url: str, auth: tuple[str, str] | None, credentials: bytes) -> None:
    """RFC 7617 §2: user-id, a colon and the password, in base64."""
    ((name, value),) = Proxy(url, auth=auth).fields
    assert (name, value[:6]) == (b"Proxy-Authorization", b"Basic ")
    assert base64.b64decode(value[6:], validate=True) == credentials


def test_credentials_of_socks_are_no_field() -> None:
    proxy = Proxy("socks5://me:s%3Acret@proxy.test")
    assert (proxy.auth, proxy.fields) == (("me", "s:cret"), ())


@pytest.mark.parametrize(
    ("url", "auth", "what"),
    [
        (f"http://me:{SECRET}@proxy.test", ("me", SECRET), "both in the proxy's URL and in auth="),
        ("http://proxy.test", (f"{SECRET}:", ""), "a colon in the user's name"),
        ("http://proxy.test", ("me", f"{SECRET}\n"), "a control character"),
        ("http://proxy.test", (f"{SECRET}\x7f", ""), "a control character"),
        ("http://proxy.test", ("me", f"{SECRET}\ud800"), "characters that UTF-8 has not"),
        ("socks5://proxy.test", (SECRET, ""), "allowed are 1 to 255 ASCII characters"),
        ("socks5://proxy.test", ("", SECRET), "allowed are 1 to 255 ASCII characters"),
        ("socks5://proxy.test", ("me", f"{SECRET}é"), "allowed are 1 to 255 ASCII characters"),
        ("socks5://proxy.test", ("me", SECRET * 32), "allowed are 1 to 255 ASCII characters"),
    ],
)
def test_credentials_that_cannot_be_said(url: str, auth: tuple[str, str], what: str) -> None:
    with pytest.raises(ValueError, match=what) as caught:
        Proxy(url, auth=auth)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("auth", [f"me:{SECRET}", ["me", SECRET], ("me",), ("me", SECRET.encode()), ("me", SECRET, "")])
def test_credentials_that_are_no_pair(auth: Any) -> None:
    """Text has letters, the first two of which would be a pair, too."""
    with pytest.raises(TypeError, match="give a pair of user and password") as caught:
        Proxy("http://proxy.test", auth=auth)
    assert SECRET not in str(caught.value)


def test_a_url_that_is_no_text() -> None:
    bad: Any = None
    with pytest.raises(TypeError, match="the URL of a proxy is of type NoneType: give text"):
        Proxy(bad)


def test_the_longest_credentials_of_socks() -> None:
    assert Proxy("socks5://proxy.test", auth=("u" * 255, "p" * 255)).auth == ("u" * 255, "p" * 255)


# Fields


def test_fields_go_before_the_credentials() -> None:
    headers: Headers = {"X-Team": "7", "User-Agent": "test"}
    assert Proxy("http://proxy.test", headers=headers).fields == ((b"X-Team", b"7"), (b"User-Agent", b"test"))
    names = [name for name, _ in Proxy("http://me:x@proxy.test", headers=headers).fields]
    assert names == [b"X-Team", b"User-Agent", b"Proxy-Authorization"]


@pytest.mark.parametrize(
    ("url", "headers", "what"),
    [
        ("socks5://proxy.test", {"X": "y"}, "headers for a SOCKS proxy"),
        ("http://proxy.test", {"Host": "a.test"}, "the field host is not for a proxy alone"),
        ("http://proxy.test", {"Content-Length": "0"}, "the field content-length is not for a proxy alone"),
        ("http://proxy.test", {"Connection": "close"}, "the field connection is not for a proxy alone"),
        ("http://proxy.test", {"X": "a\r\nY: b"}, "has a CR, LF or NUL"),
        ("http://proxy.test", {"X Y": "b"}, "not a token"),
        ("http://me:x@proxy.test", {"proxy-authorization": "Bearer x"}, "write them once"),
    ],
)
def test_fields_that_cannot_be_said(url: str, headers: Headers, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        Proxy(url, headers=headers)


def test_other_credentials_than_basic() -> None:
    headers = {"Proxy-Authorization": f"Bearer {SECRET}"}
    proxy = Proxy("http://proxy.test", headers=headers)
    assert proxy.fields == ((b"Proxy-Authorization", f"Bearer {SECRET}".encode()),)
    assert repr(proxy) == "Proxy('http://proxy.test', headers: Proxy-Authorization)"


# What is shown, and what is shared


def test_no_secret_is_shown() -> None:
    proxy = Proxy(f"http://me:{SECRET}@proxy.test:3128", headers={"X-Token": SECRET})
    assert repr(proxy) == "Proxy('http://proxy.test:3128', auth=('me', '********'), headers: X-Token)"
    assert proxy.url == "http://proxy.test:3128"
    for shown in (repr(proxy), proxy.key, proxy.url):
        assert SECRET not in shown and base64.b64encode(f"me:{SECRET}".encode()).decode() not in shown
    assert repr(Proxy("socks5://[::1]")) == "Proxy('socks5://[::1]:1080')"


def test_the_same_words_make_the_same_key() -> None:
    one = Proxy("http://me:x@proxy.test:80", headers={"A": "b"})
    two = Proxy("http://PROXY.test/", auth=("me", "x"), headers=[("A", "b")])
    assert one == two and hash(one) == hash(two) and one.key == two.key
    assert one.key.startswith("http://proxy.test ")
    assert one != one.key


def test_all_that_affects_trust_or_identity_makes_another_key(tmp_path: Path) -> None:
    own = ssl.create_default_context()
    proxies = [
        Proxy("http://proxy.test"),
        Proxy("http://proxy.test:3128"),
        Proxy("https://proxy.test"),
        Proxy("socks5://proxy.test"),
        Proxy("http://other.test"),
        Proxy("http://me@proxy.test"),
        Proxy("http://you@proxy.test"),
        Proxy("http://me:x@proxy.test"),
        Proxy("http://proxy.test", headers={"A": "b"}),
        Proxy("http://proxy.test", headers={"A": "c"}),
        Proxy("https://proxy.test", ssl=False),
        Proxy("https://proxy.test", ssl="True"),
        Proxy("https://proxy.test", ssl=tmp_path),
        Proxy("https://proxy.test", ssl=own),
        Proxy("https://proxy.test", ssl=own),
    ]
    assert len({proxy.key for proxy in proxies}) == len(set(proxies)) == len(proxies)
    assert Proxy("https://proxy.test", ssl=str(tmp_path)) == Proxy("https://proxy.test", ssl=tmp_path)


@pytest.mark.parametrize("url", ["http://proxy.test", "https://proxy.test", "socks5://proxy.test"])
def test_requests_for_http_are_forwarded_and_everything_else_is_tunnelled(url: str) -> None:
    proxy = Proxy(url)
    assert proxy.forwards(Origin("http", "a.test", 8080)) is not proxy.is_socks
    assert not proxy.forwards(Origin("https", "a.test", 80))


@pytest.mark.parametrize(
    ("origin", "target", "absolute"),
    [
        (Origin("http", "a.test", 80), "/x?y", "http://a.test/x?y"),
        (Origin("http", "::1", 8080), "/", "http://[::1]:8080/"),
        (Origin("http", "fe80::1%25eth0", 80), "/", "http://[fe80::1]/"),
        (Origin("http", "a.test", 80), "*", "http://a.test"),
    ],
)
def test_the_target_of_a_request_that_is_forwarded(origin: Origin, target: str, absolute: str) -> None:
    assert absolute_form(origin, target) == absolute
    check_target("OPTIONS", absolute, True)


# TLS with it


def test_tls_asks_for_http_1_1_whatever_the_context_was_used_for(private_ca: PrivateCa) -> None:
    own = private_ca.client_context("h2")
    for proxy in (Proxy("https://localhost.", ssl=own), Proxy("https://localhost.", ssl=private_ca.ca_file)):
        for _ in range(2):
            own.set_alpn_protocols(["h2"])
            tls = proxy.start_tls()
            assert not tls.handshake()
            hello = tls.sealed()
            assert b"\x08http/1.1" in hello and b"\x02h2" not in hello
            assert b"\x00\x09localhost" in hello and b"localhost." not in hello


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    proxy = Proxy("https://proxy.test", ssl=tmp_path / "absent.pem")
    with pytest.raises(OSError, match="absent.pem"):
        proxy.start_tls()
