"""`calamint.connect` through a proxy."""

import socket
import time
from pathlib import Path

import pytest

import calamint
from calamint.core.errors import ProxyError
from calamint.net.proxy import Proxy
from calamint.testing import ScriptedPeer, answer
from tests.net.proxied import BASIC, ESTABLISHED, PASSWORD, USER, Handler, LoopProxy, refuses, socks
from tests.net.test_proxied import greets
from tests.net.test_proxied_faults import SILENT, TLS_WITH_PROXY, answers_early, answers_with_tls, limit_of
from tests.net.test_tls import server_context
from tests.net.thread_server import ThreadServer
from tests.servers import PrivateCa

AUTH = (USER, PASSWORD)


def fetch(connection: calamint.Connection, target: str = "/a") -> bytes:
    response = connection.response(connection.request("GET", target, {"x-a": "1"}))
    assert response.status == 200
    return response.content


@pytest.mark.parametrize("secure", [False, True])
def test_http_is_forwarded(private_ca: PrivateCa, secure: bool) -> None:
    """Requests are written as to the origin, and go out in absolute form, with what is for the proxy."""
    with ScriptedPeer(tls=server_context(private_ca) if secure else None) as peer:
        proxy = Proxy(peer.url, auth=AUTH, ssl=private_ca.ca_file)
        for http1 in (True, False):
            with calamint.connect("http://one.test:81", proxy=proxy, http1=http1) as connection:
                assert (connection.protocol, fetch(connection), fetch(connection)) == ("http/1.1", b"ok", b"ok")
        for seen in peer.report.requests:
            assert (seen.target, seen.authority) == ("http://one.test:81/a", "one.test:81")
            assert BASIC.partition(b": ")[2] in [value for _, value in seen.fields]
        assert peer.report.connections == 2


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("http2", [False, True])
def test_H8_https_goes_through_a_tunnel(private_ca: PrivateCa, secure: bool, http2: bool) -> None:
    content = bytes(100_000)
    taps: list[bytes] = []
    tls = server_context(private_ca)
    with ScriptedPeer([answer(content=content)], tls=tls) as peer, LoopProxy(tls=tls if secure else None) as loop:
        proxy = Proxy(loop.url(), auth=AUTH, ssl=private_ca.ca_file)
        with calamint.connect(
            f"https://localhost:{peer.port}",
            verify=private_ca.ca_file,
            http2=http2,
            proxy=proxy,
            tap=lambda mark, data: taps.append(data),
        ) as connection:
            assert connection.protocol == ("h2" if http2 else "http/1.1")
            assert fetch(connection) == content
        assert loop.heads[0].count(BASIC) == 1 and BASIC not in b"".join(taps)
        assert peer.report.requests[0].target == "/a"


def test_socks_and_what_comes_with_its_reply() -> None:
    """The origin's SETTINGS are heard, though nothing more comes before the request."""
    with ThreadServer(greets) as server, LoopProxy(socks(AUTH, behind=True)) as loop:
        url = loop.url("socks5").replace("//", f"//{USER}:{PASSWORD}@")
        heard: list[bytes] = []
        with calamint.connect(
            f"http://name.test:{server.port}",
            http1=False,
            proxy=url,
            tap=lambda mark, data: heard.append(data) if mark == "<" else None,
        ) as connection:
            assert heard == [bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])]
            assert connection.response(connection.request("GET", "/")).status == 200


@pytest.mark.parametrize("secure", [False, True])
def test_D8_what_comes_over_http1_before_it_is_asked_for(private_ca: PrivateCa, secure: bool) -> None:
    handle = answers_with_tls(server_context(private_ca)) if secure else answers_early
    with LoopProxy(handle) as loop:
        url, proxy = (f"https://localhost:{loop.port}", None) if secure else ("http://name.test", loop.url("socks5"))
        with pytest.raises(calamint.RemoteProtocolError, match=r"sent 40 bytes before .*: b'HTTP/1.1 200") as caught:
            calamint.connect(url, proxy=proxy, verify=private_ca.ca_file)
        assert caught.value.unprocessed


def test_a_socket_of_the_callers_own_leads_to_the_proxy(private_ca: PrivateCa) -> None:
    with ScriptedPeer(tls=server_context(private_ca)) as peer, LoopProxy() as loop:
        sock = socket.create_connection(("127.0.0.1", loop.port))
        url = f"https://localhost:{peer.port}"
        with calamint.connect(url, verify=private_ca.ca_file, sock=sock, proxy=loop.url()) as connection:
            assert fetch(connection) == b"ok"
        assert loop.connections == 1 and sock.fileno() == -1


def test_refusals() -> None:
    with LoopProxy(refuses(b"HTTP/1.1 407 No\r\nproxy-authenticate: Basic\r\n\r\n")) as loop:
        with pytest.raises(ProxyError, match="no tunnel to one.test:443: the proxy refuses: 407 No") as caught:
            calamint.connect("https://one.test", proxy=loop.url())
    assert caught.value.unprocessed
    assert (caught.value.status, caught.value.fields) == (407, ((b"proxy-authenticate", b"Basic"),))
    with (
        LoopProxy(socks(code=5)) as loop,
        pytest.raises(ProxyError, match="through the SOCKS proxy: the proxy refuses"),
    ):
        calamint.connect("https://one.test", proxy=loop.url("socks5"))
    with LoopProxy(refuses(ESTABLISHED[:-2])) as loop, pytest.raises(ProxyError, match="no tunnel to one.test:443"):
        calamint.connect("https://one.test", proxy=loop.url())


@pytest.mark.parametrize("row", SILENT, ids=range(len(SILENT)))
def test_each_stage_is_under_one_limit(private_ca: PrivateCa, row: tuple[str, bool, Handler, str]) -> None:
    scheme, secure, handle, words = row
    with LoopProxy(handle, server_context(private_ca) if secure else None) as loop:
        limit = limit_of(row)
        began = time.monotonic()
        with pytest.raises(calamint.ConnectTimeout) as caught:
            proxy = loop.proxy(scheme, trust=private_ca.ca_file)
            calamint.connect("https://localhost:4433", proxy=proxy, timeout=limit)
        assert limit <= time.monotonic() - began < limit + 1
        assert str(caught.value) == f"{words.replace('PORT', str(loop.port))} within the connect limit"


def test_whom_a_proxy_is_taken_to_be(private_ca: PrivateCa) -> None:
    with LoopProxy(tls=server_context(private_ca)) as loop:
        with pytest.raises(calamint.ConnectError, match=f"{TLS_WITH_PROXY}{loop.port}: .*CERTIFICATE_VERIFY_FAILED"):
            calamint.connect("https://one.test", verify=False, proxy=loop.url())


def test_what_contradicts_itself(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="uds= and proxy="):
        calamint.connect("http://one.test", uds=str(tmp_path), proxy="http://localhost:1")
    with pytest.raises(calamint.InvalidURL, match="no host that can be told to a SOCKS proxy"):
        calamint.connect(f"http://{'.'.join(['a' * 60] * 5)}", proxy="socks5://localhost:1")
    with pytest.raises(calamint.InvalidURL, match="the scheme 'ftp' is none of a proxy"):
        calamint.connect("http://one.test", proxy="ftp://localhost")
