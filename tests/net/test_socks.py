"""SOCKS by hand: every message of RFC 1928 and RFC 1929 as bytes, cut in any way."""

import subprocess
import sys
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calamint.core.errors import Failure, InvalidURL
from calamint.net.socks import Socks

AUTH: Final = ("me", "secret")
ANONYMOUS: Final = b"\x05\x00"  # the server's choice of a method
PASSWORD: Final = b"\x05\x02"
GRANTED: Final = b"\x01\x00"  # RFC 1929 §2
BOUND: Final = b"\x05\x00\x00\x01\x7f\x00\x00\x01\x04\x38"  # succeeded; bound to 127.0.0.1:1080
ASKED: Final = b"\x05\x01\x00\x03\x06a.test\x01\xbb"  # CONNECT to a name, port 443


def begin(auth: tuple[str, str] | None = None, host: str = "a.test", port: int = 443) -> tuple[Socks, bytes]:
    stage = Socks(host, port, auth)
    return stage, stage.start(0.0)


def hear(*pieces: bytes, auth: tuple[str, str] | None = None) -> tuple[bool, bytes, bytes, Failure | None]:
    """What comes of these pieces: done, left over, said, and failure. What comes behind the end is left over as well."""
    stage, _ = begin(auth)
    said, behind = b"", b""
    for piece in pieces:
        if stage.done:
            behind += piece
        elif stage.failure is None and piece:
            said += stage.feed(piece, 0.0)
    return stage.done, stage.leftover + behind, said, stage.failure


def fault(*pieces: bytes, auth: tuple[str, str] | None = None) -> str:
    done, behind, _, failure = hear(*pieces, auth=auth)
    assert not done and not behind and failure is not None
    assert (failure.kind, failure.unprocessed, failure.status) == ("ProxyError", True, 0)
    assert failure.message.startswith("no connection to a.test:443 through the SOCKS proxy: ")
    return failure.message


# What is said


def test_the_ways_to_authenticate() -> None:
    """RFC 1928 §3: version, how many, and which: none, and with credentials those of RFC 1929 as well."""
    assert begin()[1] == b"\x05\x01\x00"
    assert begin(AUTH)[1] == b"\x05\x02\x00\x02"


def test_without_credentials() -> None:
    assert hear(ANONYMOUS, BOUND) == (True, b"", ASKED, None)


def test_with_credentials() -> None:
    said = b"\x01\x02me\x06secret" + ASKED
    assert hear(PASSWORD, GRANTED, BOUND, auth=AUTH) == (True, b"", said, None)


def test_with_credentials_that_nobody_asks_for() -> None:
    assert hear(ANONYMOUS, BOUND, auth=AUTH) == (True, b"", ASKED, None)


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("a.test", b"\x03\x06a.test"),
        ("a.test.", b"\x03\x07a.test."),
        ("xn--bcher-kva.test", b"\x03\x12xn--bcher-kva.test"),
        ("192.0.2.1", b"\x01\xc0\x00\x02\x01"),
        ("2001:db8::1", b"\x04\x20\x01\x0d\xb8" + bytes(11) + b"\x01"),
        ("fe80::1%25eth0", b"\x04\xfe\x80" + bytes(13) + b"\x01"),
        (".".join(["a" * 63] * 3 + ["b" * 61]), b"\x03\xfd" + ".".join(["a" * 63] * 3 + ["b" * 61]).encode()),
    ],
)
def test_the_host_is_told_as_a_name_or_an_address(host: str, address: bytes) -> None:
    stage, _ = begin(host=host, port=8080)
    assert stage.feed(ANONYMOUS, 0.0) == b"\x05\x01\x00" + address + b"\x1f\x90"


@pytest.mark.parametrize("host", ["a" * 64 + ".test", "a..test", ".".join(["a" * 63] * 4 + ["b"])])
def test_a_host_that_cannot_be_told(host: str) -> None:
    with pytest.raises(InvalidURL, match="no host that can be told to a SOCKS proxy"):
        Socks(host, 443, None)


# What is heard


@pytest.mark.parametrize(
    "bound",
    [
        BOUND,
        b"\x05\x00\x00\x04" + bytes(16) + b"\x00\x00",
        b"\x05\x00\x00\x03\x09localhost\x00\x50",
        b"\x05\x00\x00\x03\x00\x00\x50",
        b"\x05\x00\x00\x03\xff" + b"a" * 255 + b"\x00\x50",
    ],
)
def test_where_it_was_bound_may_be_said_in_any_way_and_what_is_behind_is_the_origins(bound: bytes) -> None:
    assert hear(ANONYMOUS + bound) == (True, b"", ASKED, None)
    assert hear(ANONYMOUS + bound + b"\x16\x03\x01") == (True, b"\x16\x03\x01", ASKED, None)
    stage, _ = begin()
    stage.feed(ANONYMOUS + bound[:-1], 0.0)
    assert not stage.done and stage.failure is None


@pytest.mark.parametrize(
    ("code", "what"),
    [
        (1, "General SOCKS server failure"),
        (2, "Connection not allowed by ruleset"),
        (3, "Network unreachable"),
        (4, "Host unreachable"),
        (5, "Connection refused by destination host"),
        (6, "TTL expired"),
        (7, "Command not supported"),
        (8, "Address type not supported"),
        (9, "Invalid reply code"),
    ],
)
def test_a_refusal_is_known_by_its_code(code: int, what: str) -> None:
    assert f"the proxy refuses: {what}" in fault(ANONYMOUS, b"\x05" + bytes([code]) + b"\x00")


def test_other_refusals() -> None:
    assert "No acceptable authentication methods" in fault(b"\x05\xff")
    assert "Unexpected SOCKS authentication method" in fault(PASSWORD)
    assert "Unexpected SOCKS authentication method" in fault(b"\x05\x01", auth=AUTH)
    assert "Username and password authentication failure" in fault(PASSWORD, b"\x01\x01", auth=AUTH)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "Unexpected SOCKS version number"),
        (b"\x05\x7f", "Invalid authentication method"),
        (ANONYMOUS + b"\x04\x00\x00", "Unexpected SOCKS version number"),
        (ANONYMOUS + b"\x05\x00\x01\x01", "The reserved byte"),
        (ANONYMOUS + b"\x05\x00\x00\x02\x00", "Invalid address type"),
        (ANONYMOUS + b"\x05\x00\x00\x03\x01\xff\x00\x50", "the proxy's reply is malformed"),
    ],
)
def test_what_is_malformed_is_the_proxys_fault(data: bytes, what: str) -> None:
    assert what in fault(data)


@pytest.mark.parametrize("data", [b"", b"\x05", ANONYMOUS, ANONYMOUS + BOUND[:-1]])
def test_a_proxy_that_closes(data: bytes) -> None:
    stage, _ = begin()
    if data:
        stage.feed(data, 0.0)
    assert stage.feed(b"", 0.0) == b""
    assert stage.failure is not None
    assert stage.failure.message.endswith("the proxy closed the connection before it had answered")


STORIES: Final = (
    (None, ANONYMOUS + BOUND + b"\x16\x03\x01"),
    (AUTH, PASSWORD + GRANTED + b"\x05\x00\x00\x03\x09localhost\x00\x50hello"),
    (AUTH, PASSWORD + b"\x01\x01\x00"),
    (None, ANONYMOUS + b"\x05\x02\x00\x01\x00\x00\x00\x00\x00\x00"),
    (None, ANONYMOUS + b"\x05\x00\x00\x02\x00\x00"),
    (None, ANONYMOUS + b"\x05\x00\x00\x03\x01\xff\x00\x50"),
    (None, b"HTTP/1.1 400 Bad Request\r\n\r\n"),
)


@given(story=st.sampled_from(STORIES), cuts=st.lists(st.integers(0, 30), max_size=8))
def test_any_split_of_the_bytes_says_the_same(story: tuple[tuple[str, str] | None, bytes], cuts: list[int]) -> None:
    auth, data = story
    places = [0, *sorted([min(cut, len(data)) for cut in cuts]), len(data)]
    pieces = [data[start:end] for start, end in zip(places, places[1:], strict=False)]
    assert hear(*pieces, auth=auth) == hear(data, auth=auth)


@given(data=st.binary(max_size=60), auth=st.sampled_from([None, AUTH]))
def test_the_proxy_never_raises(data: bytes, auth: tuple[str, str] | None) -> None:
    for story in (data, ANONYMOUS + data, PASSWORD + GRANTED + data, ANONYMOUS + b"\x05\x00\x00" + data):
        done, behind, _, failure = hear(story, auth=auth)
        assert not (done and failure)
        assert done or not behind


def test_without_the_package_a_proxy_says_what_to_install() -> None:
    """In another process, in which no package but the standard library and calamint can be found."""
    code = "\n".join(
        [
            "import sys, calamint, idna, importlib.util",
            "from calamint.net import environment, proxy",
            "sys.path[:] = [path for path in sys.path if 'site-packages' not in path]",
            "proxy.Proxy('http://proxy.test')",
            "for make in (lambda: proxy.Proxy('socks5://proxy.test'),",
            "             lambda: environment.proxies_from_environment({'ALL_PROXY': 'socks5h://proxy.test'})):",
            "    try:",
            "        make()",
            "    except ImportError as error:",
            "        print(error)",
        ]
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (
        done.stdout.splitlines() == ["SOCKS proxies need the package python-socks: pip install 'calamint[socks]'"] * 2
    )
