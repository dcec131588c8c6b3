"""What the environment says about proxies, against what curl and Python's own clients make of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calamint.core.errors import InvalidURL, UnsupportedProtocol
from calamint.core.url import Origin
from calamint.net.dial import read_url
from calamint.net.environment import Bypass, ProxyMap, proxies_from_environment
from calamint.net.proxy import Proxy

A = "http://a.proxy:1"
B = "http://b.proxy:2"
C = "http://c.proxy:3"


def chosen(environ: dict[str, str], url: str) -> str:
    """The proxy for this URL, or an empty string."""
    proxy = proxies_from_environment(environ).choose(url)
    return "" if proxy is None else proxy.url


# Which proxy


@pytest.mark.parametrize(
    ("environ", "http", "https"),
    [
        ({}, "", ""),
        ({"HTTP_PROXY": A}, A, ""),
        ({"http_proxy": A}, A, ""),
        ({"HTTPS_PROXY": B}, "", B),
        ({"https_proxy": B}, "", B),
        ({"ALL_PROXY": C}, C, C),
        ({"all_proxy": C}, C, C),
        ({"all_proxy": C, "HTTP_PROXY": A}, A, C),
        ({"ALL_PROXY": C, "https_proxy": B}, C, B),
        ({"http_proxy": A, "HTTP_PROXY": B}, A, ""),
        ({"https_proxy": A, "HTTPS_PROXY": B}, "", A),
        ({"all_proxy": A, "ALL_PROXY": B}, A, A),
        ({"http_proxy": "", "HTTP_PROXY": B}, "", ""),
        ({"https_proxy": " ", "ALL_PROXY": C}, C, C),
        ({"HTTP_PROXY": A, "REQUEST_METHOD": "GET"}, "", ""),
        ({"HTTP_PROXY": A, "REQUEST_METHOD": "GET", "ALL_PROXY": C}, C, C),
        ({"http_proxy": A, "REQUEST_METHOD": "GET"}, A, ""),
        ({"HTTPS_PROXY": B, "REQUEST_METHOD": "GET"}, "", B),
        ({"Http_Proxy": A}, "", ""),
        ({"HTTP_PROXY": "a.proxy:1"}, A, ""),
        ({"HTTP_PROXY": " me:secret@a.proxy:1/ "}, A, ""),
        ({"HTTPS_PROXY": "socks5://s.proxy"}, "", "socks5://s.proxy:1080"),
        ({"FTP_PROXY": A}, "", ""),
    ],
)
def test_which_variable_says_it(environ: dict[str, str], http: str, https: str) -> None:
    assert chosen(environ, "http://x.test/") == http
    assert chosen(environ, "https://x.test/") == https


def test_credentials_are_read() -> None:
    proxy = proxies_from_environment({"HTTP_PROXY": "me:s%40cret@a.proxy:1"}).choose("http://x.test")
    assert proxy is not None and proxy.auth == ("me", "s@cret")


@pytest.mark.parametrize("name", ["http_proxy", "HTTPS_PROXY", "all_proxy"])
@pytest.mark.parametrize("value", ["me:pa55word@:1", "http://", "gopher://me:pa55word@a", "me:pa55%0aword@a", "a b"])
def test_a_value_that_is_no_proxy_is_named(name: str, value: str) -> None:
    with pytest.raises(InvalidURL, match=f"^{name} in the environment: ") as caught:
        proxies_from_environment({name: value})
    assert "pa55" not in str(caught.value)


def test_a_map_of_ones_own_takes_urls_and_their_parts() -> None:
    proxy = Proxy(A)
    chooser = ProxyMap({"http": proxy}, "x.test")
    assert chooser.choose("http://y.test/") is proxy
    assert chooser.choose(read_url("http://y.test/")) is proxy
    assert chooser.choose("http://x.test/") is None
    assert chooser.choose("https://y.test/") is None
    with pytest.raises(UnsupportedProtocol):
        chooser.choose("ftp://y.test/")
    with pytest.raises(InvalidURL):
        chooser.choose("y.test")


def test_no_proxy_in_both_cases_of_letters() -> None:
    for environ in ({"NO_PROXY": "x.test"}, {"no_proxy": "x.test"}, {"no_proxy": "x.test", "NO_PROXY": "y.test"}):
        assert chosen({"ALL_PROXY": A, **environ}, "http://x.test") == ""
        assert chosen({"ALL_PROXY": A, **environ}, "http://y.test") == A
    assert chosen({"ALL_PROXY": A, "no_proxy": "", "NO_PROXY": "x.test"}, "http://x.test") == A


# Which origins need none


@pytest.mark.parametrize(
    ("entry", "covered", "not_covered"),
    [
        ("*", ["http://x.test", "https://192.0.2.1", "http://[::1]"], []),
        ("a.b, *", ["http://x.test"], []),
        ("", [], ["http://x.test"]),
        (" , ,", [], ["http://x.test"]),
        ("x.test", ["http://x.test", "http://a.x.test:99", "http://X.TEST"], ["http://ax.test", "http://x.test.a"]),
        (".x.test", ["http://x.test", "http://a.x.test"], ["http://ax.test"]),
        ("*.x.test", ["http://x.test", "http://a.b.x.test"], ["http://ax.test"]),
        ("X.Test.", ["http://x.test", "http://a.x.test."], ["http://test"]),
        ("x.test", ["http://x.test."], []),
        ("y.test,x.test", ["http://x.test", "http://y.test"], []),
        (" y.test\t x.test\n", ["http://x.test", "http://y.test"], []),
        ("test", ["http://x.test", "http://test"], ["http://atest"]),
        ("x.test:8080", ["http://x.test:8080", "https://a.x.test:8080"], ["http://x.test", "http://x.test:80"]),
        ("x.test:80", ["http://x.test"], ["https://x.test"]),
        ("x.test:443", ["https://x.test"], ["http://x.test"]),
        ("bücher.test", ["http://bücher.test", "http://xn--bcher-kva.test"], ["http://bucher.test"]),
        ("xn--bcher-kva.test", ["http://BÜCHER.test"], []),
        ("localhost", ["http://localhost:3000", "http://a.localhost"], ["http://127.0.0.1", "http://[::1]"]),
        ("192.0.2.1", ["http://192.0.2.1:99"], ["http://192.0.2.10", "http://1.192.0.2.1.test"]),
        ("192.0.2.1:80", ["http://192.0.2.1"], ["https://192.0.2.1"]),
        ("2.1", [], ["http://192.0.2.1"]),
        (".1", [], ["http://192.0.2.1"]),
        ("192.0.2.0/24", ["http://192.0.2.0", "http://192.0.2.255"], ["http://192.0.3.0", "http://192.0.1.255"]),
        ("192.0.2.77/24", ["http://192.0.2.1"], ["http://192.0.3.1"]),
        ("192.0.2.0/255.255.255.0", ["http://192.0.2.1"], ["http://192.0.3.1"]),
        ("192.0.2.0/24:80", ["http://192.0.2.1"], ["https://192.0.2.1"]),
        ("192.0.2.0/32", ["http://192.0.2.0"], ["http://192.0.2.1"]),
        ("0.0.0.0/0", ["http://192.0.2.0"], ["http://[::1]", "http://x.test"]),
        ("::1", ["http://[::1]:8080", "http://[0:0:0:0:0:0:0:1]"], ["http://[::2]"]),
        ("[::1]", ["http://[::1]:8080"], ["http://[::2]"]),
        ("[::1]:443", ["https://[::1]"], ["http://[::1]"]),
        ("2001:db8::/32", ["http://[2001:db8:ffff::1]"], ["http://[2001:db9::]"]),
        ("[2001:db8::]/32", [], ["http://[2001:db8::1]"]),
        ("[2001:db8::/32]:80", ["http://[2001:db8::1]"], ["https://[2001:db8::1]"]),
        ("fe80::1%eth0", ["http://[fe80::1%25eth1]"], ["http://[fe80::2]"]),
        ("fe80::/10", ["http://[fe80::1%25eth1]"], ["http://[::1]"]),
        ("192.0.2.0/33", [], ["http://192.0.2.0"]),
        ("x.test:", [], ["http://x.test"]),
        ("x.test:http", [], ["http://x.test"]),
        (":80", [], ["http://x.test"]),
        (".", [], ["http://x.test"]),
        ("http://x.test", [], ["http://x.test"]),
        ("ü" * 70, [], ["http://x.test"]),
        ("192.0.2.*", [], ["http://192.0.2.0"]),
    ],
)
def test_no_proxy(entry: str, covered: list[str], not_covered: list[str]) -> None:
    bypass = Bypass(entry)
    assert [url for url in covered + not_covered if bypass.covers(read_url(url).origin)] == covered


@given(text=st.text(max_size=60), host=st.text("abcxyz.:[]%*0123456789ü", max_size=12), port=st.integers(0, 65_535))
def test_nothing_in_no_proxy_raises(text: str, host: str, port: int) -> None:
    for entry in (text, host, f"{host}:{port}", f"[{host}]:{port}", f"{text},{host}/{port}"):
        covers = Bypass(entry).covers(Origin("http", "x.test", port))
        assert not covers or "test" in entry or "*" in entry


@given(
    labels=st.lists(st.text("abc", min_size=1, max_size=3), min_size=2, max_size=5),
    cut=st.integers(0, 5),
    port=st.integers(1, 65_535),
)
def test_a_name_covers_itself_and_all_below_it(labels: list[str], cut: int, port: int) -> None:
    host, suffix = ".".join(labels), ".".join(labels[min(cut, len(labels) - 1) :])
    origin = Origin("http", host, port)
    for dot in ("", ".", "*."):
        assert Bypass(f"{dot}{suffix}").covers(origin)
        assert Bypass(f"{dot}{suffix}:{port}").covers(origin)
        assert not Bypass(f"{dot}x{suffix}").covers(origin)
        assert not Bypass(f"{dot}{suffix}:{port - 1}").covers(origin)
