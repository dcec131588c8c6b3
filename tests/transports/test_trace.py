"""The extension `trace` of httpx and httpx2: httpcore's names, in httpcore's order."""

import socket
import ssl
from pathlib import Path
from typing import Any

import pytest

import calamint
from calamint.testing import ScriptedPeer, answer, close
from tests import servers
from tests.net.pool_help import at_rest
from tests.net.proxied import LoopProxy, socks
from tests.net.test_tls import server_context
from tests.net.thread_server import ThreadServer
from tests.transports.kit import Kit
from tests.transports.test_httpx import echo, say_ok, ways

KEEP = (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
TRACE = (
    "connection.connect_tcp connection.start_tls http2.send_connection_init http2.send_request_headers "
    "http2.send_request_body http2.receive_response_headers http2.receive_response_body http2.response_closed"
).split()


def test_trace(kit: Kit, private_ca: servers.PrivateCa) -> None:
    """httpcore's names, in its order; a connection that is there already is not made."""
    seen: list[tuple[str, dict[str, Any]]] = []
    options = {"extensions": {"trace": kit.tracer(seen)}}
    with ScriptedPeer(echo, tls=server_context(private_ca)) as peer:
        with kit.client(verify=str(private_ca.ca_file)) as client:
            client.request("POST", peer.url, content=kit.pieces(b"a", b"b"), **options)
            names = [name for name, _ in seen]
            settings = [
                names.pop(names.index(f"http2.receive_remote_settings.{end}")) for end in ("started", "complete")
            ]
            assert [name for name, _ in seen[11:13]] == settings  # within receive_response_headers
            assert names == [f"{name}.{end}" for name in TRACE for end in ("started", "complete")]
            told = dict(seen)
            assert told["connection.connect_tcp.started"]["host"] == "127.0.0.1"
            assert told["connection.connect_tcp.started"]["port"] == peer.port
            assert isinstance(
                told["connection.start_tls.complete"]["return_value"].get_extra_info("ssl_object"), ssl.SSLObject
            )
            assert told["http2.send_request_headers.started"]["request"].method == b"POST"
            request = told["http2.send_request_body.started"]["request"]
            assert isinstance(request, kit.network.Request)
            assert dict(request.headers)[b"Transfer-Encoding"] == b"chunked" and request.url.target == b"/"
            assert told["http2.receive_response_headers.complete"]["return_value"][0] == 200
            seen.clear()
            client.request("POST", peer.url, content=b"x", **options)
            names = [name for name, _ in seen]
            assert names == [f"{name}.{end}" for name in TRACE[3:] for end in ("started", "complete")]
    with ScriptedPeer([answer(content=b"x")]) as peer, kit.client(**ways(False)) as client:
        seen.clear()
        client.get(peer.url, **options)
        head = dict(seen)["http11.receive_response_headers.complete"]["return_value"]
        assert head == (b"HTTP/1.1", 200, b"OK", [(b"content-length", b"1")])


def test_trace_of_what_fails(kit: Kit) -> None:
    seen: list[tuple[str, dict[str, Any]]] = []
    options = {"extensions": {"trace": kit.tracer(seen)}}
    with kit.client() as client, pytest.raises(kit.library.ConnectError):
        client.get("http://nowhere.invalid/", **options)
    assert [name for name, _ in seen][:2] == ["connection.connect_tcp.started", "connection.connect_tcp.failed"]
    assert isinstance(seen[1][1]["exception"], calamint.ConnectError)
    seen.clear()
    with ScriptedPeer([close(after=b"half", head=True)]) as peer, kit.client(**ways(True)) as client:
        with pytest.raises(kit.library.TransportError):
            client.get(peer.url, **options)
        assert [name for name, _ in seen][-4:-2] == [
            "http2.receive_response_body.started",
            "http2.receive_response_body.failed",
        ]


def test_a_trace_of_the_wrong_kind(kit: Kit) -> None:
    seen: list[tuple[str, dict[str, Any]]] = []
    other = Kit(kit.name, not kit.asynchronous)
    with ScriptedPeer() as peer, kit.client() as client:
        client.get(peer.url)
        with pytest.raises(TypeError, match="coroutine function"):
            client.get(peer.url, extensions={"trace": other.tracer(seen)})
        with pytest.raises(TypeError, match="cannot be called"):
            client.get(peer.url, extensions={"trace": 1})
        at_rest(client.pool)


def begun(seen: list[tuple[str, dict[str, Any]]]) -> list[str]:
    """The steps that have to do with the connection."""
    names = [name.removesuffix(".started") for name, _ in seen if name.endswith(".started")]
    return [name for name in names if not name.startswith(("http11", "http2"))]


def test_trace_of_a_unix_domain_socket(kit: Kit, tmp_path: Path) -> None:
    seen: list[tuple[str, dict[str, Any]]] = []
    path = str(tmp_path / "socket")
    with ThreadServer(say_ok, path=path), kit.client(uds=path, socket_options=[KEEP]) as client:
        client.get("http://anywhere.test/", extensions={"trace": kit.tracer(seen), "timeout": {"connect": 5.0}})
    assert begun(seen) == ["connection.connect_unix_socket"]
    assert seen[0][1] == {"path": path, "timeout": 5.0, "socket_options": (KEEP,)}


def test_trace_of_a_socks_proxy(kit: Kit, private_ca: servers.PrivateCa) -> None:
    seen: list[tuple[str, dict[str, Any]]] = []
    with ScriptedPeer(tls=server_context(private_ca)) as peer, LoopProxy(socks(("me", "secret"))) as proxy:
        url = f"socks5://me:secret@127.0.0.1:{proxy.port}"
        with kit.client(proxy=url, verify=str(private_ca.ca_file), local_address="127.0.0.1") as client:
            assert client.get(peer.url, extensions={"trace": kit.tracer(seen)}).status_code == 200
    assert begun(seen) == ["socks.connect_tcp", "socks.setup_socks5_connection", "socks.start_tls"]
    told = dict(seen)
    assert (told["socks.connect_tcp.started"]["port"], told["socks.connect_tcp.started"]["local_address"]) == (
        proxy.port,
        "127.0.0.1",
    )
    asked = told["socks.setup_socks5_connection.started"]
    assert (asked["host"], asked["port"], asked["auth"]) == ("127.0.0.1", peer.port, ("me", "secret"))


def test_trace_of_a_tunnel(kit: Kit, private_ca: servers.PrivateCa) -> None:
    """TLS with the proxy, and inside of it with the origin."""
    seen: list[tuple[str, dict[str, Any]]] = []
    context = server_context(private_ca)
    context.set_alpn_protocols(["http/1.1"])
    with ScriptedPeer(tls=server_context(private_ca)) as peer, LoopProxy(tls=context) as proxy:
        through = proxy.proxy(trust=str(private_ca.ca_file))
        with kit.client(proxy=through, verify=str(private_ca.ca_file)) as client:
            assert client.get(peer.url, extensions={"trace": kit.tracer(seen)}).status_code == 200
    assert begun(seen) == ["connection.connect_tcp", "connection.start_tls", "proxy.start_tls"]
    told = dict(seen)
    assert told["connection.connect_tcp.started"]["port"] == proxy.port
    assert told["connection.start_tls.started"]["server_hostname"] == "localhost"
    assert told["proxy.start_tls.started"]["server_hostname"] == "127.0.0.1"
