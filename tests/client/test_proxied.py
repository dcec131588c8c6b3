"""Both clients through proxies: by `proxy=`, and by what the environment says, in processes of their own."""

import asyncio
import json
import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TypedDict

import pytest

import calamint
from calamint.core.errors import ProxyError
from calamint.net.dial import Resolver, look_up
from calamint.testing import ScriptedPeer, answer
from tests.net.proxied import BASIC, OK, PASSWORD, USER, LoopProxy, refuses, socks, to_port, tunnels
from tests.net.test_tls import server_context
from tests.net.thread_server import LIMIT, ThreadServer, read_head
from tests.servers import SMALL, PrivateCa, Server

TIMEOUT = 30.0
PROXY_FIELD = (b"proxy-authorization", BASIC.partition(b": ")[2])


class Options(TypedDict, total=False):
    """Those of both clients that matter here."""

    proxy: str | calamint.Proxy | None
    verify: str
    trust_env: bool
    follow_redirects: bool
    resolver: Resolver
    uds: str | None
    local_address: str | None
    headers: dict[str, str]
    transport: calamint.MockTransport


def get(kind: str, urls: Sequence[str], options: Options, method: str = "GET") -> list[calamint.Response]:
    """The responses to requests, one after the other, by one client of this kind."""
    if kind == "Client":
        with calamint.Client(timeout=LIMIT, **options) as client:
            return [client.request(method, url) for url in urls]

    async def work() -> list[calamint.Response]:
        async with calamint.AsyncClient(timeout=LIMIT, **options) as client:
            return [await client.request(method, url) for url in urls]

    return asyncio.run(work())


@pytest.fixture(params=["Client", "AsyncClient"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# By `proxy=`


def test_http_and_https(kind: str, private_ca: PrivateCa) -> None:
    """One URL with credentials for both: what is forwarded, and a tunnel; the origin hears nothing of them."""
    with ScriptedPeer(tls=server_context(private_ca)) as peer, LoopProxy() as loop:
        proxy = loop.url().replace("//", f"//{USER}:{PASSWORD}@")
        options: Options = {"proxy": proxy, "verify": str(private_ca.ca_file), "trust_env": False}
        first, second = get(kind, ["http://one.test/a", f"https://localhost:{peer.port}/b"], options)
        assert (first.content, second.content) == (b"ok", b"ok")
        assert (first.http_version, second.http_version) == ("HTTP/1.1", "HTTP/2")
        forwarded, connect = loop.heads
        assert forwarded.startswith(b"GET http://one.test/a HTTP/1.1\r\nHost: one.test\r\n")
        assert connect.startswith(b"CONNECT localhost:")
        assert forwarded.count(BASIC) == connect.count(BASIC) == 1
        assert PROXY_FIELD[0] not in [name.lower() for name, _ in peer.report.requests[0].fields]


def test_H7_a_refusal_of_a_tunnel_and_of_a_request(kind: str) -> None:
    """A tunnel's is a ProxyError with status, fields and the request; what is forwarded has a response."""
    reply = (
        b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=x\r\ncontent-length: 0\r\n\r\n"
    )
    with LoopProxy(refuses(reply)) as loop:
        options: Options = {"proxy": loop.url(), "trust_env": False}
        (response,) = get(kind, ["http://one.test/"], options)
        assert (response.status_code, response.headers["proxy-authenticate"]) == (407, "Basic realm=x")
        with pytest.raises(calamint.ProxyError) as caught:
            get(kind, ["https://one.test/"], options)
    error = caught.value
    assert error.status == 407 and (b"proxy-authenticate", b"Basic realm=x") in error.fields
    assert error.unprocessed and error.request is not None
    assert str(error) == (
        "GET /: no tunnel to one.test:443: the proxy refuses: 407 Proxy Authentication Required"
        f"; credentials for it are written http://user:password@proxy; through the proxy {loop.url()}"
    )
    again = pickle.loads(pickle.dumps(error))
    assert isinstance(again, ProxyError) and (again.status, again.fields) == (407, error.fields)


@pytest.mark.parametrize("scheme", ["http", "https", "socks5"])
def test_a_proxy_that_is_not_there_is_named(kind: str, scheme: str) -> None:
    """It may be one of the environment, of which nobody thinks; and its password is not shown."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    proxy = f"{scheme}://me:pa55word@127.0.0.1:{port}"
    for url in ("http://one.test/", "https://one.test/"):
        with pytest.raises(calamint.ConnectError) as caught:
            get(kind, [url], {"proxy": proxy, "trust_env": False})
        words = f"could not connect to 127.0.0.1 port {port}: "
        assert words in str(caught.value) and "pa55word" not in str(caught.value)
        assert str(caught.value).endswith(f"; through the proxy {scheme}://127.0.0.1:{port}")
        assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_no_proxy_is_named_where_none_is_asked(kind: str) -> None:
    """A transport has its own way; and what breaks later is no matter of the proxy's."""

    def handle(request: calamint.Request) -> calamint.Response:
        raise calamint.ConnectError("its own words")

    options: Options = {"transport": calamint.MockTransport(handle), "proxy": "http://127.0.0.1:1"}
    with pytest.raises(calamint.ConnectError) as caught:
        get(kind, ["http://one.test/"], options)
    assert str(caught.value) == "its own words"


def test_socks_with_and_without_credentials(kind: str, private_ca: PrivateCa) -> None:
    with ScriptedPeer(tls=server_context(private_ca, "name.test")) as peer, ScriptedPeer() as clear:
        for auth, userinfo in ((None, ""), ((USER, PASSWORD), f"{USER}:{PASSWORD}@")):
            with LoopProxy(socks(auth)) as loop:
                proxy = loop.url("socks5").replace("//", f"//{userinfo}")
                options: Options = {"proxy": proxy, "verify": str(private_ca.ca_file), "trust_env": False}
                urls = [f"https://name.test:{peer.port}/", f"http://name.test:{clear.port}/"]
                assert [response.content for response in get(kind, urls, options)] == [b"ok", b"ok"]
        with LoopProxy(socks((USER, PASSWORD))) as loop, pytest.raises(ProxyError, match="authentication"):
            get(kind, ["https://one.test/"], {"proxy": loop.url("socks5"), "trust_env": False})


def test_G15_redirects_between_what_is_forwarded_and_tunnels(kind: str, private_ca: PrivateCa) -> None:
    """From http to https and back: each hop goes its way, and no origin hears of the proxy's credentials."""
    script = [answer(302, ((b"location", b"http://one.test/end"),))]
    with ScriptedPeer(script, tls=server_context(private_ca)) as peer:
        place = f"https://localhost:{peer.port}/on".encode()

        def forward(head: bytes) -> bytes:
            return (
                OK if b"/end " in head else b"HTTP/1.1 302 Found\r\nlocation: %b\r\ncontent-length: 0\r\n\r\n" % place
            )

        with LoopProxy(tunnels(forward=forward)) as loop:
            options: Options = {"verify": str(private_ca.ca_file), "trust_env": False, "follow_redirects": True}
            options["proxy"] = calamint.Proxy(loop.url(), auth=(USER, PASSWORD))
            (response,) = get(kind, ["http://one.test/begin"], options)
            assert response.content == b"ok" and len(response.history) == 2
            lines = [head.partition(b"\r\n")[0].split(b" ")[:2] for head in loop.heads]
            assert lines[0] == [b"GET", b"http://one.test/begin"] and lines[2] == [b"GET", b"http://one.test/end"]
            assert lines[1] == [b"CONNECT", f"localhost:{peer.port}".encode()]
            assert [head.count(BASIC) for head in loop.heads] == [1, 1, 1]
        (seen,) = peer.report.requests
        assert seen.target == "/on" and PROXY_FIELD[0] not in [name.lower() for name, _ in seen.fields]


def test_a_unix_domain_socket_and_a_proxy_contradict_each_other(kind: str, tmp_path: Path) -> None:
    """Said when the client is made, by which nothing is sent."""
    with pytest.raises(ValueError, match="uds= and proxy="):
        get(kind, [], {"uds": str(tmp_path / "socket"), "proxy": "http://localhost:3128"})


def test_a_local_address(kind: str) -> None:
    seen: list[str] = []

    def handle(proxy: LoopProxy, sock: socket.socket) -> None:
        seen.append(sock.getpeername()[0])
        tunnels()(proxy, sock)

    with LoopProxy(handle) as loop:
        options: Options = {"proxy": loop.url(), "local_address": "127.0.0.2", "trust_env": False}
        assert get(kind, ["http://one.test/"], options)[0].content == b"ok"
    assert seen == ["127.0.0.2"]


HOSTS = {  # as it is written: as Host says it, as SNI says it
    "bücher.test": ("xn--bcher-kva.test", "xn--bcher-kva.test"),
    "BÜCHER.test": ("xn--bcher-kva.test", "xn--bcher-kva.test"),
    "name.test.": ("name.test.", "name.test"),
    "NAME.test": ("name.test", "name.test"),
    "127.0.0.1": ("127.0.0.1", None),
    "[::1]": ("[::1]", None),
    "[::1%251]": ("[::1]", None),
}


@pytest.mark.parametrize("proxied", [False, True])
def test_H4_hosts(kind: str, private_ca: PrivateCa, proxied: bool) -> None:
    """A trailing dot stays in Host and is not in SNI; addresses are never in SNI, and zones in neither; IDNA gives A-labels."""
    names: list[str | None] = []
    context = server_context(private_ca, "xn--bcher-kva.test", "name.test", "127.0.0.1", "::1")
    context.sni_callback = lambda sock, name, _: names.append(name)
    with ScriptedPeer([answer()], tls=context) as peer, LoopProxy(tunnels(port=peer.port)) as loop:
        options: Options = {"verify": str(private_ca.ca_file), "trust_env": False, "resolver": to_port(peer.port)}
        if proxied:
            options["proxy"] = loop.url()
            options["resolver"] = look_up
        for host, (authority, sni) in HOSTS.items():
            if not proxied and host.startswith("["):
                continue  # an address is not looked up, and the peer has another one
            with ExitStack() as stack:
                stack.callback(names.clear)
                url = f"https://{host}:{peer.port}/"
                assert get(kind, [url], options)[0].content == b"ok"
                assert peer.report.requests[-1].authority == f"{authority}:{peer.port}"
                assert names == [sni]


# By the environment


PROGRAM = """
import asyncio, json, sys
import calamint
options, urls = json.loads(sys.argv[1]), sys.argv[2:]
found = []
def note(get):
    try:
        response = get()
        found.append([response.status_code, response.text])
    except Exception as error:
        found.append([type(error).__name__, str(error)])
async def work():
    async with calamint.AsyncClient(**options) as client:
        for url in urls:
            try:
                response = await client.get(url)
                found.append([response.status_code, response.text])
            except Exception as error:
                found.append([type(error).__name__, str(error)])
try:
    with calamint.Client(**options) as client:
        for url in urls:
            note(lambda: client.get(url))
    asyncio.run(work())
    note(lambda: calamint.get(urls[0], **{k: v for k, v in options.items() if k in ("proxy", "trust_env", "verify")}))
except Exception as error:
    found = [type(error).__name__, str(error)]
print(json.dumps(found))
"""
OURS = (
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "request_method",
    "ssl_cert_file",
    "ssl_cert_dir",
    "sslkeylogfile",
)

Found = list[list[object]]


def run(urls: Sequence[str], environ: dict[str, str], **options: object) -> Found:
    """What both clients, and `calamint.get`, say to these URLs in a process with these variables and none like them."""
    clean = {name: value for name, value in os.environ.items() if name.lower() not in OURS} | environ
    arguments = [sys.executable, "-W", "error", "-c", PROGRAM, json.dumps({"timeout": 10, **options}), *urls]
    done = subprocess.run(arguments, capture_output=True, timeout=TIMEOUT, env=clean)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stderr == b"", done.stderr.decode()
    found: Found = json.loads(done.stdout)
    return found


def thrice(*each: list[object]) -> Found:
    """By the one client, by the other, and the first by `calamint.get`."""
    return [*each, *each, each[0]]


def test_each_scheme_has_its_proxy(private_ca: PrivateCa) -> None:
    """In both cases of letters; ALL_PROXY for what has none."""
    with (
        ScriptedPeer([answer(content=b"by one")]) as one,
        ScriptedPeer([answer(content=b"by two")]) as two,
        ScriptedPeer([answer(content=b"secure")], tls=server_context(private_ca)) as peer,
        LoopProxy() as loop,
    ):
        ca = {"SSL_CERT_FILE": str(private_ca.ca_file)}
        secure = f"https://localhost:{peer.port}/"
        environ = {"HTTP_PROXY": one.url, "HTTPS_PROXY": loop.url(), "ALL_PROXY": two.url}
        assert run(["http://x.test/", secure], environ | ca) == thrice([200, "by one"], [200, "secure"])
        assert loop.connections == 2  # one for each client
        environ = {"http_proxy": two.url, "HTTP_PROXY": one.url, "https_proxy": ""}
        assert run(["http://x.test/", secure], environ | ca) == thrice([200, "by two"], [200, "secure"])
        assert loop.connections == 2
        environ = {"all_proxy": f"{USER}:{PASSWORD}@" + one.url.removeprefix("http://")}
        assert run(["http://x.test/"], environ) == thrice([200, "by one"])
        assert PROXY_FIELD in [(name.lower(), value) for name, value in one.report.requests[-1].fields]


def test_trust_env_and_proxy_win_over_the_environment() -> None:
    with ScriptedPeer([answer(content=b"env")]) as env, ScriptedPeer([answer(content=b"given")]) as given:
        with ScriptedPeer([answer(content=b"direct")]) as direct:
            environ = {"HTTP_PROXY": env.url, "NO_PROXY": ""}
            assert run([direct.url], environ) == thrice([200, "env"])
            assert run([direct.url], environ, trust_env=False) == thrice([200, "direct"])
            assert run([direct.url], environ | {"NO_PROXY": "*"}, proxy=given.url) == thrice([200, "given"])
            assert run([direct.url], environ, proxy=given.url, trust_env=False) == thrice([200, "given"])


def test_no_proxy() -> None:
    """By name, by what it ends in, by address, by network, and by port."""
    with ScriptedPeer([answer(content=b"env")]) as env, ScriptedPeer([answer(content=b"direct")]) as direct:
        local = direct.url.replace("127.0.0.1", "localhost")
        for words, url, expected in (
            ("localhost", local, "direct"),
            ("localhost", direct.url, "env"),
            ("127.0.0.0/8", direct.url, "direct"),
            (f"127.0.0.1:{direct.port}", direct.url, "direct"),
            (f"127.0.0.1:{direct.port + 1}", direct.url, "env"),
            ("*", direct.url, "direct"),
            ("other.test, .localhost", local, "direct"),
        ):
            environ = {"ALL_PROXY": env.url, "NO_PROXY": words}
            assert run([url], environ) == thrice([200, expected]), words


def test_a_cgi_program_is_not_told_its_proxy_by_a_request() -> None:
    with ScriptedPeer([answer(content=b"env")]) as env, ScriptedPeer([answer(content=b"direct")]) as direct:
        environ = {"HTTP_PROXY": env.url, "REQUEST_METHOD": "GET"}
        assert run([direct.url], environ) == thrice([200, "direct"])


def test_a_value_that_is_no_proxy_is_named() -> None:
    """When the client is made; its password is not shown."""
    found = run(["http://x.test/"], {"HTTPS_PROXY": "ftp://me:secret@host"})
    assert str(found[0]) == "InvalidURL" and "HTTPS_PROXY in the environment" in str(found[1])
    assert "secret" not in str(found)


def test_where_trust_comes_from(private_ca: PrivateCa, tmp_path: Path) -> None:
    """SSL_CERT_FILE and SSL_CERT_DIR replace the system's store, for origins and for proxies; `verify=` says something else."""
    tls = server_context(private_ca)
    with ScriptedPeer([answer(content=b"ok")], tls=tls) as peer, LoopProxy(tls=server_context(private_ca)) as loop:
        url = f"https://localhost:{peer.port}/"
        for environ in ({}, {"HTTPS_PROXY": loop.url()}):
            failure = run([url], environ)
            assert {item[0] for item in failure} == {"ConnectError"}
            assert all(["CERTIFICATE_VERIFY_FAILED" in str(item[1]) for item in failure])
            assert run([url], environ | {"SSL_CERT_FILE": str(private_ca.ca_file)}) == thrice([200, "ok"])
        directory = tmp_path / "certificates"
        directory.mkdir()
        pem = private_ca.ca_file.read_bytes()
        hashed = subprocess.run(
            ["openssl", "x509", "-hash", "-noout", "-in", str(private_ca.ca_file)], capture_output=True, check=True
        )
        (directory / f"{hashed.stdout.decode().strip()}.0").write_bytes(pem)
        assert run([url], {"SSL_CERT_DIR": str(directory)}) == thrice([200, "ok"])
        absent = {"SSL_CERT_FILE": str(tmp_path / "absent.pem")}
        assert {item[0] for item in run([url], absent)} == {"ConnectError"}
        assert run([url], absent, verify=str(private_ca.ca_file)) == thrice([200, "ok"])


def test_secrets_for_a_debugger(private_ca: PrivateCa, tmp_path: Path) -> None:
    """SSLKEYLOGFILE: both handshakes, of the proxy and of the origin."""
    log = tmp_path / "keys"
    with ScriptedPeer(tls=server_context(private_ca)) as peer, LoopProxy(tls=server_context(private_ca)) as loop:
        url = f"https://localhost:{peer.port}/"
        environ = {"SSL_CERT_FILE": str(private_ca.ca_file), "SSLKEYLOGFILE": str(log)}
        run([url], environ)
        direct = {
            line.split()[1] for line in log.read_text().splitlines() if line.startswith("CLIENT_TRAFFIC_SECRET_0")
        }
        assert len(direct) == 3
        log.unlink()
        run([url], environ | {"HTTPS_PROXY": loop.url()})
        both = {line.split()[1] for line in log.read_text().splitlines() if line.startswith("CLIENT_TRAFFIC_SECRET_0")}
        assert len(both) == 6


def test_a_unix_domain_socket_needs_no_proxy(tmp_path: Path) -> None:
    """What the environment says is for hosts: it does not reach for a socket."""
    path = str(tmp_path / "socket")

    def handle(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nlocal")

    with ThreadServer(handle, path=path, connections=2), ScriptedPeer([answer(content=b"env")]) as env:
        found = run(["http://x.test/"], {"HTTP_PROXY": env.url}, uds=path)
    assert found == [[200, "local"], [200, "local"], [200, "env"]]  # the last one has no socket


# Real proxies


@pytest.mark.server
@pytest.mark.parametrize("key", ["http", "https", "socks5"])
@pytest.mark.parametrize("name", ["squid", "tinyproxy", "microsocks"])
def test_real_proxies(request: pytest.FixtureRequest, kind: str, node: Server, name: str, key: str) -> None:
    server: Server = request.getfixturevalue(name)
    if key not in server.urls:
        pytest.skip("it does not speak that")
    urls = [node.urls[scheme].replace("127.0.0.1", "localhost") + "/small" for scheme in ("http1", "https")]
    proxy = calamint.Proxy(server.urls[key], auth=(USER, PASSWORD), ssl=server.ca_file)
    options: Options = {"proxy": proxy, "verify": str(node.ca_file), "trust_env": False}
    assert [response.content for response in get(kind, urls * 2, options)] == [SMALL] * 4
    wrong = calamint.Proxy(server.urls[key], auth=(USER, "wrong"), ssl=server.ca_file)
    with pytest.raises(ProxyError) as caught:
        get(kind, urls[1:], {"proxy": wrong, "verify": str(node.ca_file), "trust_env": False})
    assert caught.value.status in ((None,) if key == "socks5" else (401, 407))
