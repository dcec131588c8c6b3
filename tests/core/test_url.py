"""Origins and request targets: RFC 3986, RFC 9110 §4, RFC 9112 §3."""

import ipaddress
import string
from typing import Final
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from calamint.core.errors import CalamintError, InvalidURL, UnsupportedProtocol
from calamint.core.url import URL, Origin, parse_url, quote

UNRESERVED: Final = string.ascii_letters + string.digits + "-._~"
SUB_DELIMS: Final = "!$&'()*+,;="
PCHAR: Final = UNRESERVED + SUB_DELIMS + ":@"  # and percent-encoded octets (RFC 3986 §3.3)
TARGET: Final = PCHAR + "/?"
HEX: Final = st.integers(0, 255).map(lambda number: f"%{number:02X}")

NAMES: Final = st.text(UNRESERVED + SUB_DELIMS, min_size=1, max_size=12)
ADDRESSES: Final = st.ip_addresses(v=6).map(lambda address: f"[{address}]")
USERINFO: Final = st.lists(st.sampled_from(UNRESERVED + SUB_DELIMS + ":") | HEX, max_size=6).map("".join)
PATHS: Final = st.lists(st.sampled_from(PCHAR + "/") | HEX, max_size=8).map("".join).map(lambda path: f"/{path}")
QUERIES: Final = st.lists(st.sampled_from(TARGET) | HEX, max_size=8).map("".join)


@given(
    scheme=st.sampled_from(["http", "https", "HTTP", "Https"]),
    userinfo=st.none() | USERINFO,
    host=NAMES | ADDRESSES | st.ip_addresses(v=4).map(str),
    port=st.none() | st.just("") | st.integers(0, 65_535).map(str),
    path=st.just("") | PATHS,
    query=st.none() | QUERIES,
    fragment=st.none() | QUERIES,
)
def test_parts_are_those_that_the_standard_library_sees(
    scheme: str,
    userinfo: str | None,
    host: str,
    port: str | None,
    path: str,
    query: str | None,
    fragment: str | None,
) -> None:
    """RFC 3986 §3: scheme ":" "//" [ userinfo "@" ] host [ ":" port ] path [ "?" query ] [ "#" fragment ]."""
    text = f"{scheme}://"
    text += "" if userinfo is None else f"{userinfo}@"
    text += host
    text += "" if port is None else f":{port}"
    text += path
    text += "" if query is None else f"?{query}"
    text += "" if fragment is None else f"#{fragment}"
    url = parse_url(text)
    theirs = urlsplit(text)
    assert url.origin.scheme == theirs.scheme == scheme.lower()
    assert url.origin.host == theirs.hostname
    assert url.origin.port == (theirs.port if theirs.port is not None else {"http": 80, "https": 443}[theirs.scheme])
    assert url.userinfo == (userinfo or "")
    assert url.fragment == theirs.fragment == (fragment or "")
    target = (theirs.path or "/") + ("" if query is None else f"?{theirs.query}")
    assert url.target == target


@pytest.mark.parametrize(
    ("text", "origin", "target"),
    [
        ("http://a", Origin("http", "a", 80), "/"),
        ("https://a", Origin("https", "a", 443), "/"),
        ("http://a:", Origin("http", "a", 80), "/"),
        ("http://a:0/", Origin("http", "a", 0), "/"),
        ("http://a:65535/", Origin("http", "a", 65_535), "/"),
        ("http://a:00080/", Origin("http", "a", 80), "/"),
        ("HTTPS://EXAMPLE.org:443/A", Origin("https", "example.org", 443), "/A"),
        ("http://a?", Origin("http", "a", 80), "/?"),
        ("http://a?b=/c", Origin("http", "a", 80), "/?b=/c"),
        ("http://a/b?c?d", Origin("http", "a", 80), "/b?c?d"),
        ("http://a/b//c/../d/.", Origin("http", "a", 80), "/b//c/../d/."),
        ("http://a#b/c?d", Origin("http", "a", 80), "/"),
        ("http://u:p@a@b/", Origin("http", "b", 80), "/"),
        ("http://a/u@b:c", Origin("http", "a", 80), "/u@b:c"),
        ("http://127.0.0.1:8080/", Origin("http", "127.0.0.1", 8080), "/"),
        ("http://[::1]", Origin("http", "::1", 80), "/"),
        ("http://[::1]:", Origin("http", "::1", 80), "/"),
        ("http://[::FFFF:1.2.3.4]:8080/x", Origin("http", "::ffff:1.2.3.4", 8080), "/x"),
        ("http://a_b.example./", Origin("http", "a_b.example.", 80), "/"),
        ("http://xn--bcher-kva.example/", Origin("http", "xn--bcher-kva.example", 80), "/"),
    ],
)
@pytest.mark.rfc("9112-3.2.1-2", "9113-8.3.1-4")
def test_examples(text: str, origin: Origin, target: str) -> None:
    url = parse_url(text)
    assert (url.origin, url.target) == (origin, target)


@pytest.mark.rfc("9112-3.2.1-1", "9112-3.2-3")
def test_fragment_and_userinfo_stay_out_of_the_target() -> None:
    """RFC 9110 §7.1: the fragment is for the client; §4.2.4: userinfo is not part of the target."""
    url = parse_url("https://me:pass@a/b?c#d")
    assert url == URL(Origin("https", "a", 443), "/b?c", "me:pass", "d")


@pytest.mark.parametrize(
    ("text", "kind", "parts"),
    [
        ("example.org/a", InvalidURL, ("'example.org/a' has no scheme", "http://… or https://…")),
        ("", InvalidURL, ("'' has no scheme",)),
        ("http:/a", InvalidURL, ("'http:/a' has no scheme",)),
        ("mailto:a@b", InvalidURL, ("has no scheme",)),
        ("ftp://a", UnsupportedProtocol, ("'ftp://a'", "the scheme 'ftp'", "not http or https")),
        ("WS://a", UnsupportedProtocol, ("the scheme 'ws'",)),
        ("//a", InvalidURL, ("'//a' has no scheme",)),
        ("://a", UnsupportedProtocol, ("the scheme ''",)),
        (" http://a", UnsupportedProtocol, ("the scheme ' http'",)),
        ("http://", InvalidURL, ("'http://' has no host",)),
        ("http:///a", InvalidURL, ("'http:///a' has no host",)),
        ("http://?a", InvalidURL, ("has no host",)),
        ("http://#a", InvalidURL, ("has no host",)),
        ("http://:80/", InvalidURL, ("has no host",)),
        ("http://me@/", InvalidURL, ("has no host",)),
        ("http://a:65536/", InvalidURL, ("the port '65536'", "from 0 to 65535")),
        ("http://a:000080/", InvalidURL, ("the port '000080'",)),
        ("http://a:-1/", InvalidURL, ("the port '-1'",)),
        ("http://a:+1/", InvalidURL, ("the port '+1'",)),
        ("http://a: 1/", InvalidURL, ("the port ' 1'",)),
        ("http://a:1_0/", InvalidURL, ("the port '1_0'",)),
        ("http://a:٣/", InvalidURL, ("the port",)),
        ("http://a:²/", InvalidURL, ("the port",)),
        ("http://a:b/", InvalidURL, ("the port 'b'",)),
        ("http://a:1:2/", InvalidURL, ("the port '1:2'",)),
        ("http://::1/", InvalidURL, ("the port ':1'",)),
        ("http://[::1/", InvalidURL, ("'[::1'", "not an IPv6 address in brackets")),
        ("http://[]/", InvalidURL, ("'[]'", "not an IPv6 address in brackets")),
        ("http://[a]/", InvalidURL, ("'[a]'", "not an IPv6 address in brackets")),
        ("http://[::1]x/", InvalidURL, ("'[::1]x'", "not an IPv6 address in brackets")),
        ("http://[::1]:x/", InvalidURL, ("the port 'x'",)),
    ],
)
def test_what_is_no_url(text: str, kind: type[CalamintError], parts: tuple[str, ...]) -> None:
    with pytest.raises(kind) as caught:
        parse_url(text)
    for part in parts:
        assert part in str(caught.value)


def test_a_host_has_only_the_characters_of_a_name() -> None:
    """RFC 3986 §3.2.2: reg-name = *( unreserved / pct-encoded / sub-delims )."""
    for number in (*range(0x20), *range(0x7F, 0xA1), *b' "<>\\^`{|}[]'):
        character = chr(number)
        for host in (f"a{character}b", f"a{character}", f"{character}b"):
            if host != "[b":
                with pytest.raises(InvalidURL, match="the host .* has characters that no host has"):
                    parse_url(f"http://{host}/")
    for character in UNRESERVED + SUB_DELIMS:
        assert parse_url(f"http://a{character}b/").origin.host == f"a{character}b".lower()


@pytest.mark.parametrize("host", ["a%b c", 'a%"', "a%41[", "a%]", "%", "a%zz", "a%<script>", "a%41 "])
def test_a_percent_sign_opens_no_door(host: str) -> None:
    """RFC 3986 §2.1: pct-encoded = "%" HEXDIG HEXDIG, and what follows it is a host still."""
    with pytest.raises(InvalidURL):
        parse_url(f"http://{host}/")


@pytest.mark.parametrize("host", ["bücher.example", "例え.jp", "\u212aelvin.example", "ａ.example", "a\u3002b"])
def test_a_host_that_is_not_ascii_is_refused(host: str) -> None:
    """Hosts arrive as A-labels; KELVIN SIGN would even become another host, since its lower case is "k"."""
    with pytest.raises(InvalidURL):
        parse_url(f"http://{host}/")


IPV6_TEXT: Final = st.lists(
    st.sampled_from([":", "::", "0", "1", "ffff", "G", "00000", "1.2.3.4", "256.1.1.1", "01.2.3.4", "1.2.3", "."]),
    max_size=17,
).map("".join)


@given(IPV6_TEXT | st.text("0123abF:.", max_size=24) | st.ip_addresses(v=6).map(lambda address: address.exploded))
@example("1.2.3.4::")
@example("1:2:3:4:5:6:7::")
@example("1:2:3:4:5:6:7:8::")
@example("::1.2.3.4:5")
@example("::1.2.3.4")
@example("::256.2.3.4")
@example("1:2:3:4:5:6:1.2.3.4")
@example("1:2:3:4:5:6:7:1.2.3.4")
def test_brackets_hold_an_ipv6_address(host: str) -> None:
    """RFC 3986 §3.2.2: IP-literal = "[" ( IPv6address / IPvFuture ) "]", where ipaddress is the judge."""
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        with pytest.raises(InvalidURL, match="is not an IPv6 address in brackets"):
            parse_url(f"http://[{host}]/")
    else:
        assert parse_url(f"http://[{host}]/").origin.host == host.lower()


@pytest.mark.parametrize("zone", ["", "a b", "a/b", "a]", "a%", "é", "<"])
def test_a_zone_is_a_name(zone: str) -> None:
    """RFC 6874 §2: ZoneID = 1*( unreserved / pct-encoded )."""
    with pytest.raises(InvalidURL):
        parse_url(f"http://[fe80::1%{zone}]/")


def test_a_zone_keeps_its_case() -> None:
    """Interfaces have names in which case counts; the address has none."""
    for zone in ("%25Ethernet0", "%Ethernet0"):
        assert parse_url(f"http://[FE80::1{zone}]/").origin.host == f"fe80::1{zone}"


def test_a_zone_never_leaves_this_host() -> None:
    """RFC 6874 §4: "An HTTP client … MUST remove any ZoneID attached to an outgoing URI"."""
    for host in ("fe80::1%25eth0", "fe80::1%eth0"):
        assert Origin("http", host, 80).authority() == "[fe80::1]"
        assert Origin("http", host, 8080).authority() == "[fe80::1]:8080"


def test_a_host_that_is_made_ascii() -> None:
    """By the client, through IDNA; what comes back is checked like any other."""
    seen: list[str] = []

    def to_ascii(host: str) -> str:
        seen.append(host)
        return {"bücher.example": "XN--bcher-kva.example", "bad.é": "bad host", "none.é": ""}[host]

    assert parse_url("http://bücher.example:81/é", to_ascii).origin == Origin("http", "xn--bcher-kva.example", 81)
    assert parse_url("http://plain.example/", to_ascii).origin.host == "plain.example"
    assert parse_url("http://[::1]/", to_ascii).origin.host == "::1"
    for host in ("bad.é", "none.é"):
        with pytest.raises(InvalidURL):
            parse_url(f"http://{host}/", to_ascii)
    assert seen == ["bücher.example", "bad.é", "none.é"]


def test_repr_hides_the_userinfo() -> None:
    shown = repr(parse_url("https://me:hunter2@a/b#c"))
    assert shown.startswith("URL(origin=Origin(scheme='https', host='a', port=443), target='/b', userinfo=")
    assert "hunter2" not in shown
    assert shown.endswith("fragment='c')")


def test_a_backslash_is_no_part_of_an_authority() -> None:
    """WHATWG ends the host at it, RFC 3986 §3.2.1 knows no such userinfo: two readers would see two hosts."""
    with pytest.raises(InvalidURL):
        parse_url("http://good.example\\@evil.example/")


@pytest.mark.parametrize("text", ["http://me:hunter2/x@a/", "http://me:hunter2#@a/", "https://me:hunter2?@a"])
def test_a_password_that_ends_the_authority_is_not_shown(text: str) -> None:
    with pytest.raises(InvalidURL, match="in credentials write %2F for /") as caught:
        parse_url(text)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["http://", "ftp://", ""])
@pytest.mark.parametrize("tail", ["a b/", "/", ":x/", "[::1/", "a:99999/"])
def test_an_error_never_shows_the_password(scheme: str, tail: str) -> None:
    """RFC 3986 §3.2.1: "should not render as clear text any data after the first colon … within a userinfo"."""
    with pytest.raises((InvalidURL, UnsupportedProtocol)) as caught:
        parse_url(f"{scheme}me:hunter2@{tail}")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("origin", "authority"),
    [
        (Origin("http", "a", 80), "a"),
        (Origin("http", "a", 443), "a:443"),
        (Origin("https", "a", 443), "a"),
        (Origin("https", "a", 80), "a:80"),
        (Origin("https", "::1", 443), "[::1]"),
        (Origin("https", "::1", 8443), "[::1]:8443"),
        (Origin("other", "a", 80), "a:80"),
    ],
)
def test_authority_says_the_port_only_where_it_is_not_the_schemes_own(origin: Origin, authority: str) -> None:
    """RFC 9110 §7.2, §4.2.1, §4.2.2."""
    assert origin.authority() == authority


@given(st.ip_addresses() | NAMES, st.sampled_from(["http", "https"]), st.integers(0, 65_535))
def test_authority_reads_back(host: object, scheme: str, port: int) -> None:
    origin = Origin(scheme, str(host).lower(), port)
    assert parse_url(f"{scheme}://{origin.authority()}").origin == origin


@pytest.mark.parametrize(
    ("given_target", "quoted"),
    [
        ("/", "/"),
        ("/a%20b%2f%zz", "/a%20b%2f%25zz"),
        ("/a b", "/a%20b"),
        ('/"<>\\^`{|}', "/%22%3C%3E%5C%5E%60%7B%7C%7D"),
        ("/é€😀", "/%C3%A9%E2%82%AC%F0%9F%98%80"),
        ("/\r\n\0\x7f\t", "/%0D%0A%00%7F%09"),
        ("/\xa0\xad", "/%C2%A0%C2%AD"),
        ("/a%20é", "/a%20%C3%A9"),
        ("/?a=[1]&b=100%", "/?a=%5B1%5D&b=100%25"),
    ],
)
def test_what_may_not_stand_in_a_target_is_encoded_and_what_is_encoded_stays(given_target: str, quoted: str) -> None:
    """RFC 3986 §2.1 and §2.4: never encode or decode the same string more than once; a lone "%" must become "%25"."""
    assert quote(given_target) == quoted


def test_a_lone_surrogate_does_no_harm() -> None:
    assert quote("/\ud800") == "/%ED%A0%80"


@given(st.text(max_size=12))
def test_a_target_is_what_the_grammar_allows(text: str) -> None:
    """RFC 3986 §3.3 and §3.4: pchar, "/", "?", and "%" only before two hex digits."""
    target = parse_url(f"http://a/{text}").target
    assert set(target) <= set(TARGET + "%")
    for piece in target.split("%")[1:]:
        assert len(piece) >= 2
        assert set(piece[:2]) <= set(string.hexdigits)
    assert quote(target) == target


@given(st.text(st.characters(exclude_characters="%#", exclude_categories=["Cs"]), max_size=12))
def test_a_target_decodes_to_what_was_written(text: str) -> None:
    assert unquote(parse_url(f"http://a/{text}").target) == f"/{text}"


def test_other_schemes_where_they_are_asked_for() -> None:
    ports = {"http": 80, "socks5": 1080}
    assert parse_url("SOCKS5://a.test", ports=ports).origin == Origin("socks5", "a.test", 1080)
    assert parse_url("socks5://a.test:80", ports=ports).origin == Origin("socks5", "a.test", 80)
    with pytest.raises(UnsupportedProtocol, match="the scheme 'https' is not http or socks5"):
        parse_url("https://a.test", ports=ports)
    with pytest.raises(UnsupportedProtocol, match="the scheme 'socks5' is not http or https"):
        parse_url("socks5://a.test")
