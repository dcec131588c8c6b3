"""Requests and responses of both clients, against a scripted peer."""

import asyncio
import gzip
import io
import json
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

import calamint
from calamint import CodingLimits, Timeout
from calamint.core.errors import CANCEL
from calamint.testing import Action, Request, ScriptedPeer, answer, close, delay, drip, forget, refuse
from tests.client.faces import KINDS, open_face
from tests.net.test_tls import server_context
from tests.net.thread_server import ThreadServer, no_answer, read_head
from tests.servers import PrivateCa

USER: Final = "Basic dXNlcjpodXNo"  # user, hush


def seen_fields(peer: ScriptedPeer, number: int = -1) -> dict[str, str]:
    """The fields of a request that came, by names in lower case."""
    return {name.decode().lower(): value.decode() for name, value in peer.report.requests[number].fields}


def echo(request: Request) -> Action:
    return answer(content=request.content)


# What is sent


@pytest.mark.parametrize("method", ["get", "options", "head", "post", "put", "patch", "delete"])
def test_every_method(method: str) -> None:
    """Of both clients, and without one."""

    async def work() -> None:
        async with calamint.AsyncClient(base_url=peer.url, trust_env=False) as client:
            assert (await getattr(client, method)("/a", params={"x": 1})).status_code == 200

    with ScriptedPeer() as peer:
        with calamint.Client(base_url=peer.url, trust_env=False) as client:
            assert getattr(client, method)("/a", params={"x": 1}).status_code == 200
        asyncio.run(work())
        assert getattr(calamint, method)(f"{peer.url}/a", params={"x": 1}, trust_env=False).status_code == 200
        assert [(seen.method, seen.target) for seen in peer.report.requests] == [(method.upper(), "/a?x=1")] * 3


def test_without_a_client() -> None:
    """Everything that belongs to the client and to the request is passed on."""
    with ScriptedPeer(echo) as peer:
        for method in ("post", "put", "patch"):
            response = getattr(calamint, method)(peer.url, json=[1], headers={"X": "1"}, auth=("user", "hush"))
            assert response.json() == [1]
        with calamint.stream("POST", peer.url, content=iter([b"a", b"b"]), trust_env=False) as response:
            assert list(response.iter_raw()) == [b"ab"]
        assert [seen_fields(peer, number).get("authorization") for number in range(4)] == [USER, USER, USER, None]
        assert peer.wait_for(lambda report: not report.connections_open)


@pytest.mark.parametrize(
    ("options", "content", "kind_of"),
    [
        ({"content": b"bytes"}, b"bytes", None),
        ({"content": "é"}, "é".encode(), None),
        ({"content": [b"a", bytearray(b"b"), b"", memoryview(b"c")]}, b"abc", None),
        ({"content": io.BytesIO(b"file")}, b"file", None),
        ({"data": {"a": ["1", 2], "b": "é"}}, b"a=1&a=2&b=%C3%A9", "application/x-www-form-urlencoded"),
        ({"json": {"a": None}}, b'{"a":null}', "application/json"),
        ({"json": 1, "headers": {"content-type": "application/x"}}, b"1", "application/x"),
        ({}, b"", None),
        ({"data": {}}, b"", None),
    ],
)
def test_content_of_every_kind(kind: str, way: str, options: Any, content: bytes, kind_of: str | None) -> None:
    with ScriptedPeer(echo) as peer, open_face(kind, way) as face:
        if isinstance(file := options.get("content"), io.BytesIO):
            file.seek(0)
        response = face.request("POST", peer.url, **options)
        assert response.content == content
        fields = seen_fields(peer)
        assert fields.get("content-type") == kind_of
        in_pieces = isinstance(options.get("content"), list)
        assert fields.get("content-length") == (None if in_pieces else str(len(content)))
        assert ("transfer-encoding" in fields) == (in_pieces and way == "http1")


@pytest.mark.parametrize("method", ["GET", "DELETE", "OPTIONS", "HEAD"])
def test_no_content_and_no_word_of_it(kind: str, way: str, method: str) -> None:
    """RFC 9110 §8.6; POST, PUT and PATCH say that there is none."""
    with ScriptedPeer() as peer, open_face(kind, way) as face:
        face.request(method, peer.url)
        assert "content-length" not in seen_fields(peer)


@pytest.mark.parametrize("pieces", [[b"abc"], [b"abcd", b"e"], [b"abcdef"]])
def test_a_generator_with_a_length(kind: str, way: str, pieces: list[bytes]) -> None:
    """Its content is held against it."""
    with ScriptedPeer(echo) as peer, open_face(kind, way) as face:
        options: Any = {"content": face.upload(pieces), "headers": {"Content-Length": "5"}}
        if len(b"".join(pieces)) == 5:
            assert face.request("POST", peer.url, **options).content == b"abcde"
            assert "transfer-encoding" not in seen_fields(peer)
        else:
            with pytest.raises(calamint.LocalProtocolError, match="content-length"):
                face.request("POST", peer.url, **options)
        assert face.request("GET", peer.url).status_code == 200


def test_fields_of_the_client_and_of_the_request(kind: str, way: str) -> None:
    with ScriptedPeer() as peer, open_face(kind, way, headers={"X": "client", "Y": "client"}) as face:
        face.request("GET", peer.url, headers=[("x", "one"), ("X", "two"), ("Accept", "text/plain")])
        fields = [(name.decode().lower(), value.decode()) for name, value in peer.report.requests[0].fields]
        assert [value for name, value in fields if name == "x"] == ["one", "two"]
        assert dict(fields)["y"] == "client" and dict(fields)["accept"] == "text/plain"
        assert dict(fields)["user-agent"].startswith("calamint/") and "gzip" in dict(fields)["accept-encoding"]


def test_fields_of_the_client_can_be_set() -> None:
    client = calamint.Client(transport=calamint.MockTransport(lambda request: calamint.Response(200)))
    client.headers = calamint.Headers({"X": "1"})
    assert client.build_request("GET", "http://h").headers["x"] == "1"
    assert client.headers["user-agent"].startswith("calamint/")
    client.headers["X"] = "2"
    assert client.build_request("GET", "http://h").headers["x"] == "2"


@pytest.mark.parametrize("bad", ["a\r\nx-evil: 1", "a\nb", "a\0b"])
def test_a_value_that_would_be_another_field(kind: str, way: str, bad: str) -> None:
    with ScriptedPeer() as peer, open_face(kind, way) as face:
        for options in ({"headers": {"X": bad}}, {"headers": {bad: "X"}}, {"extensions": {"target": bad.encode()}}):
            with pytest.raises(calamint.LocalProtocolError):
                face.request("GET", peer.url, **options)
        with pytest.raises(calamint.LocalProtocolError):
            face.request(f"GET {bad}", peer.url)
        assert not peer.report.requests


# Credentials


def test_whose_credentials(kind: str) -> None:
    """Those of the call, of the URL, of the request's field, of the client, in this order."""
    other = ("other", "hush")
    with ScriptedPeer() as peer, open_face(kind, auth=("user", "hush")) as face:
        with_user = peer.url.replace("://", "://user:hush@")
        for expected, url, options in (
            (USER, peer.url, {}),
            ("Bearer x", peer.url, {"headers": {"Authorization": "Bearer x"}}),
            (USER, with_user, {"headers": {"Authorization": "Bearer x"}}),
            ("Basic b3RoZXI6aHVzaA==", with_user, {"auth": other}),
            (None, with_user, {"auth": None}),
            ("Basic w6k6w6k=", peer.url, {"auth": ("é", "é".encode())}),
        ):
            response = face.request("GET", url, **options)
            assert seen_fields(peer).get("authorization") == expected
            assert peer.report.requests[-1].authority == peer.url.removeprefix("http://")
            assert response.url == f"{peer.url}/"


@pytest.mark.parametrize(
    ("auth", "error"),
    [
        ("user", TypeError),
        (("a",), TypeError),
        (("a", 1), TypeError),
        (lambda r: r, TypeError),
        (("a:b", "c"), ValueError),
    ],
)
def test_credentials_that_cannot_be(kind: str, auth: Any, error: type[Exception]) -> None:
    with open_face(kind) as face, pytest.raises(error):
        face.request("GET", "http://127.0.0.1:9/", auth=auth)


def test_a_password_is_said_to_nobody_else(kind: str, way: str, caplog: pytest.LogCaptureFixture) -> None:
    """Not in the log, nor in errors, nor in the request that they have."""
    caplog.set_level(logging.DEBUG, "calamint")
    with ScriptedPeer([answer(404), close()]) as peer, open_face(kind, way, retries=0) as face:
        url = peer.url.replace("://", "://user:hush@")
        with pytest.raises(calamint.HTTPStatusError) as status:
            face.request("GET", url).raise_for_status()
        with pytest.raises(calamint.TransportError) as failed:
            face.request("GET", url)
        assert isinstance(failed.value.request, calamint.Request)
        shown = [str(status.value), repr(status.value.request), str(status.value.request.url), str(failed.value)]
        assert "hush" not in "".join([*shown, repr(failed.value.request), str(failed.value.request.url), caplog.text])
        assert caplog.records


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("method", "fields", "extensions", "head"),
    [
        (
            "GET",
            {"Connection": "Upgrade", "Upgrade": "x"},
            {},
            b"101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x",
        ),
        ("CONNECT", {}, {"target": b"one.test:443"}, b"200 Established"),
    ],
)
def test_a_tunnel_is_a_response_without_content(
    kind: str, method: str, fields: dict[str, str], extensions: dict[str, object], head: bytes, stream: bool
) -> None:
    """Nobody could speak through it, and its end, which is no clock's business, is not waited for."""

    def handle(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(b"HTTP/1.1 " + head + b"\r\n\r\nmore")
        no_answer(sock)

    with ThreadServer(handle) as server, open_face(kind) as face:
        request = face.build_request(method, server.url, headers=fields, extensions=extensions)
        response = face.send(request, stream=stream)
        assert response.status_code == int(head[:3])
        if stream:
            assert next(face.pieces(response, "raw")) == b"more"
            face.shut(response)
        assert response.is_closed and response.elapsed
        assert stream or response.content == b""
        assert face.pool.stats().running == 0


def test_an_upgrade_that_the_server_does_not_want(kind: str) -> None:
    with ScriptedPeer([answer(content=b"plain")]) as peer, open_face(kind) as face:
        response = face.request("GET", peer.url, headers={"Connection": "upgrade", "upgrade": "x"})
        assert (response.status_code, response.content) == (200, b"plain")
        assert face.request("GET", peer.url).content == b"plain" and peer.report.connections == 1


# Time


def test_a_plain_number_is_for_all_of_it(kind: str, way: str) -> None:
    """The response comes all the time, and is cut; the error says which limit that was. Its request goes with it."""
    with ScriptedPeer([drip(bytes(100), 1, 0.03)]) as peer, open_face(kind, way, timeout=60) as face:
        began = time.monotonic()
        with pytest.raises(
            calamint.DeadlineExceeded, match=r"s after it was sent.* timeout=0\.25 is for all of a request"
        ) as caught:
            face.request("GET", peer.url, timeout=0.25)
        assert 0.2 < time.monotonic() - began < 5
        assert isinstance(caught.value.request, calamint.Request) and caught.value.request.method == "GET"
        with face.stream("GET", peer.url, timeout=0.25) as response:
            with pytest.raises(calamint.DeadlineExceeded, match=r"timeout=0\.25 ") as caught:
                face.read(response)
        assert caught.value.request is response.request
        peer.wait_for(lambda report: not report.streams_open)


@pytest.mark.parametrize(
    ("timeout", "error"),
    [
        (Timeout(head=0.05), calamint.ReadTimeout),
        (Timeout(read=0.05), calamint.ReadTimeout),
        (Timeout(0.05), calamint.DeadlineExceeded),
        (0.05, calamint.DeadlineExceeded),
    ],
)
def test_limits_of_every_kind(kind: str, timeout: Any, error: type[Exception]) -> None:
    """For the client, for one request, and among its extensions."""
    with ScriptedPeer([forget()]) as peer:
        with open_face(kind, timeout=timeout) as face, pytest.raises(error):
            face.request("GET", peer.url)
        with open_face(kind) as face:
            with pytest.raises(error):
                face.request("GET", peer.url, timeout=timeout)
            with pytest.raises(error):
                face.request("GET", peer.url, extensions={"timeout": timeout})


def test_a_timeout_as_httpx_has_it_among_extensions(kind: str) -> None:
    with ScriptedPeer([forget()]) as peer, open_face(kind) as face:
        with pytest.raises(calamint.ReadTimeout, match=r"head=0\.05"):
            extensions = {"timeout": {"connect": 5.0, "read": 0.05, "write": None, "pool": 5.0}}
            face.request("GET", peer.url, extensions=extensions)


@pytest.mark.parametrize("bad", [(5, 10), "5", -1, float("nan"), object()])
def test_a_timeout_that_is_none(kind: str, bad: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        KINDS[kind](timeout=bad)
    with open_face(kind) as face:
        for options in ({"timeout": bad}, {"extensions": {"timeout": bad}}):
            with pytest.raises((TypeError, ValueError)):
                face.request("GET", "http://127.0.0.1:9", **options)


@pytest.mark.parametrize("timeout", [0, 1e-9])
def test_no_time_at_all(kind: str, timeout: float) -> None:
    """Nothing is sent, and no redirects are blamed that there were not."""
    with ScriptedPeer() as peer, open_face(kind) as face:
        with pytest.raises(calamint.DeadlineExceeded, match="over before it was sent; timeout=") as caught:
            face.request("GET", peer.url, timeout=timeout)
        assert caught.value.unprocessed and not peer.report.connections


def test_no_limit_at_all(kind: str) -> None:
    with ScriptedPeer([delay(0.05, answer())]) as peer, open_face(kind, timeout=0.01) as face:
        assert face.request("GET", peer.url, timeout=None).status_code == 200


# What comes


def test_interim_responses_and_trailers(kind: str, way: str) -> None:
    hints = ((103, ((b"link", b"</a>"),)), (102, ()))
    trailers = ((b"x-sum", b"1"), (b"x-sum", b"2"))
    with (
        ScriptedPeer([answer(content=b"data", interim=hints, trailers=trailers)]) as peer,
        open_face(kind, way) as face,
    ):
        response = face.request("GET", peer.url)
        assert [(each.status, each.fields) for each in response.interim] == list(hints)
        assert response.trailers.get_list("X-Sum") == ["1", "2"]
        with face.stream("GET", peer.url) as response:
            assert [each.status for each in response.interim] == [103, 102] and not response.trailers
            assert face.read(response) == b"data"
            assert response.trailers["x-sum"] == "1, 2"


def test_what_a_response_knows(kind: str, way: str) -> None:
    content = gzip.compress(b"hello" * 100)
    fields = ((b"content-encoding", b"gzip"), (b"x", b"1"), (b"x", b"2"))
    with ScriptedPeer([answer(201, fields, content)]) as peer, open_face(kind, way) as face:
        for response in (face.request("GET", peer.url), face.send(face.build_request("GET", peer.url), stream=True)):
            assert face.read(response) == b"hello" * 100
            assert response.num_bytes_downloaded == len(content) and 0 < response.elapsed.total_seconds() < 10
            assert (response.status_code, response.reason_phrase) == (201, "Created")
            assert response.http_version == ("HTTP/2" if way == "h2" else "HTTP/1.1")
            assert response.headers.get_list("x") == ["1", "2"] and response.request.url == response.url
            assert set(response.extensions) == {"http_version", "stream_id" if way == "h2" else "reason_phrase"}
        head = face.request("HEAD", peer.url)
        assert head.content == b"" and head.headers["content-encoding"] == "gzip"


def test_the_clients_own_default_encoding(kind: str) -> None:
    with ScriptedPeer([answer(content=b"\xe9")]) as peer, open_face(kind, default_encoding="latin-1") as face:
        assert face.request("GET", peer.url).text == "é"


@pytest.mark.parametrize("coding", ["", "gzip"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_total_bounds_what_is_read(kind: str, way: str, coding: str, stream: bool) -> None:
    """Also where the whole was asked for: what is above it is not even waited for."""
    content = os.urandom(8_000_000)
    fields = ((b"content-encoding", b"gzip"),) if coding else ()
    data = gzip.compress(content, 0) if coding else content
    with ScriptedPeer(
        lambda r: answer(200, fields, data if r.target == "/large" else gzip.compress(b"ok", mtime=0))
    ) as peer:
        with open_face(kind, way, coding_limits=CodingLimits(total=100_000)) as face:
            with pytest.raises(calamint.DecodingError, match="total=100000") as caught:
                face.read(face.send(face.build_request("GET", f"{peer.url}/large"), stream=stream))
            assert isinstance(caught.value.request, calamint.Request)
            peer.wait_for(lambda report: not report.streams_open)
            response = face.request("GET", f"{peer.url}/small")
            assert response.content in (b"ok", gzip.compress(b"ok", mtime=0)) and response.elapsed


def test_a_broken_coding_names_its_request(kind: str) -> None:
    with ScriptedPeer([answer(200, ((b"content-encoding", b"gzip"),), b"nonsense")]) as peer, open_face(kind) as face:
        request = face.build_request("GET", peer.url)
        with pytest.raises(calamint.DecodingError, match="gzip") as caught:
            face.send(request)
        assert caught.value.request is request
        with face.stream("GET", peer.url) as response:
            assert list(face.pieces(response, "raw")) == [b"nonsense"]


# Extensions


def test_another_target(kind: str, way: str) -> None:
    with ScriptedPeer() as peer, open_face(kind, way) as face:
        face.request("OPTIONS", f"{peer.url}/x", extensions={"target": b"*"})
        assert peer.report.requests[0].target == "*"
        with pytest.raises(TypeError, match="target"):
            face.request("GET", peer.url, extensions={"target": "*"})
        with pytest.raises(TypeError, match="sni_hostname"):
            face.request("GET", peer.url, extensions={"sni_hostname": b"h"})
        face.request("GET", f"{peer.url}/x", extensions={"trace": print})
        assert peer.report.requests[1].target == "/x"


def test_another_name_in_the_certificate(kind: str, private_ca: PrivateCa) -> None:
    """It is the one that counts; it goes along with a redirect to the same origin, and to no other one."""
    context = server_context(private_ca)
    names: list[str | None] = []
    context.sni_callback = lambda sock, name, other: names.append(name)
    script = [answer(302, ((b"location", b"/there"),)), answer()]
    with ScriptedPeer(script, tls=context) as peer:
        with open_face(kind, verify=str(private_ca.ca_file), follow_redirects=True) as face:
            response = face.request("GET", peer.url, extensions={"sni_hostname": "localhost"})
            assert response.status_code == 200 and response.request.extensions == {"sni_hostname": "localhost"}
            with pytest.raises(calamint.ConnectError):
                face.request("GET", peer.url, extensions={"sni_hostname": "another.example"})
        assert names[0] == "localhost" and peer.report.requests[1].target == "/there"
    handler = calamint.MockTransport(lambda request: calamint.Response(302, headers={"location": "https://b.example/"}))
    with open_face(kind, transport=handler) as face:
        response = face.request("GET", "https://a.example/", extensions={"sni_hostname": "localhost"})
        assert response.next_request is not None and not response.next_request.extensions


def test_a_target_is_for_one_request(kind: str) -> None:
    script = [answer(302, ((b"location", b"/there"),)), answer()]
    with ScriptedPeer(script) as peer, open_face(kind, follow_redirects=True) as face:
        face.request("GET", f"{peer.url}/here", extensions={"target": b"/other"})
        assert [seen.target for seen in peer.report.requests] == ["/other", "/there"]


# Ends


def test_a_closed_client(kind: str) -> None:
    with ScriptedPeer() as peer:
        with open_face(kind) as face:
            assert face.request("GET", peer.url).status_code == 200
        client: Any = KINDS[kind](trust_env=False)
        client.close()
        if kind == "Client":
            client.close()
            blocking = client.client
            assert blocking.is_closed
            with pytest.raises(RuntimeError, match="the client is closed"):
                client.request("GET", peer.url)
            with pytest.raises(RuntimeError, match="cannot be opened again"), blocking:
                pass
        else:
            with pytest.raises(RuntimeError, match="the client is closed"):
                asyncio.run(client.client.get(peer.url))
            with pytest.raises(RuntimeError, match="cannot be opened again"):
                asyncio.run(client.client.__aenter__())
            asyncio.run(client.client.aclose())
        assert peer.wait_for(lambda report: not report.connections_open).connections == 1


def test_options_that_cannot_be(kind: str) -> None:
    for options, error in (
        ({"retries": 2}, ValueError),
        ({"http1": False, "http2": False}, calamint.UnsupportedProtocol),
        ({"proxy": "ftp://x"}, calamint.InvalidURL),
        ({"proxy": {"http://": "http://127.0.0.1"}}, TypeError),
        ({"proxy": calamint.URL("http://127.0.0.1")}, TypeError),
        ({"headers": {"X": 1}}, TypeError),
    ):
        with pytest.raises(error):
            KINDS[kind](**options)


@pytest.mark.parametrize("retries", [0, 1])
def test_retries(kind: str, retries: int) -> None:
    """What the peer provably did not act on is sent once more, unless the caller says no."""
    with ScriptedPeer([refuse(), answer()]) as peer, open_face(kind, "h2", retries=retries) as face:
        if retries:
            assert face.request("POST", peer.url, content=b"x").status_code == 200
        else:
            with pytest.raises(calamint.StreamReset) as caught:
                face.request("POST", peer.url, content=b"x")
            assert caught.value.unprocessed and isinstance(caught.value.request, calamint.Request)
        assert len(peer.report.requests) == 1 + retries


def test_the_environment_is_asked_for_proxies_of_the_network(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And only there: not beside a transport or a Unix domain socket, nor against the caller's will."""
    monkeypatch.setenv("http_proxy", "ftp://nowhere")
    with pytest.raises(calamint.InvalidURL, match="http_proxy in the environment"):
        KINDS[kind]()
    for options in ({"trust_env": False}, {"transport": object()}, {"uds": "/x"}, {"proxy": "http://127.0.0.1:9"}):
        options = {"trust_env": True, **options}
        assert KINDS[kind](**options) is not None


def test_a_unix_domain_socket(kind: str, tmp_path: Path) -> None:
    def serve(listener: socket.socket) -> None:
        sock, _ = listener.accept()
        with sock:
            while b"\r\n\r\n" not in sock.recv(65_536):
                pass
            sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        listener.listen()
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        with open_face(kind, uds=str(tmp_path / "socket")) as face:
            assert face.request("GET", "http://whoever.example/").content == b"ok"
        thread.join()


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGINT interrupts, also where whoever runs the tests in the background has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_leaves_the_client_usable(kind: str, way: str) -> None:
    """Ctrl-C while a response is waited for: its stream is reset, and the next request works."""
    main = threading.main_thread().ident
    assert main is not None

    def act(request: Request) -> Action:
        if request.target == "/wait":
            signal.pthread_kill(main, signal.SIGINT)
            return forget()
        return answer()

    with ScriptedPeer(act) as peer, open_face(kind, way) as face:
        for stream in (False, True):
            with pytest.raises(KeyboardInterrupt):
                face.send(face.build_request("GET", f"{peer.url}/wait"), stream=stream)
            assert face.request("GET", peer.url).status_code == 200
        report = peer.wait_for(lambda report: not report.streams_open)
        assert face.pool.stats().running == face.pool.stats().waiting == 0
        if way == "h2" and report.connections == 1:
            assert [code for _, _, code in report.resets] == [CANCEL] * 2


def test_threads_share_a_client(way: str) -> None:
    failures: list[BaseException] = []

    def run(number: int) -> None:
        try:
            for count in range(10):
                content = b"%d %d" % (number, count)
                with face.stream("POST", peer.url, content=content) as response:
                    assert response.read() == content
        except BaseException as error:
            failures.append(error)

    with ScriptedPeer(echo) as peer, open_face("Client", way) as face:
        threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert not failures and len(peer.report.requests) == 80


def test_one_client_in_two_event_loops() -> None:
    async def work(client: calamint.AsyncClient) -> int:
        return (await client.get(peer.url)).status_code

    async def end(client: calamint.AsyncClient) -> None:
        await client.aclose()

    with ScriptedPeer() as peer:
        client = calamint.AsyncClient(trust_env=False)
        assert [asyncio.run(work(client)) for _ in range(2)] == [200, 200]
        asyncio.run(end(client))


# Transports


def test_a_function_answers() -> None:
    """Its request has been read; it may be a coroutine function for asyncio; a response may be streamed."""

    def handle(request: calamint.Request) -> calamint.Response:
        return calamint.Response(200, content=request.content, headers={"X": request.method})

    async def handle_later(request: calamint.Request) -> calamint.Response:
        await asyncio.sleep(0)
        return handle(request)

    async def work(handler: Callable[[calamint.Request], Any]) -> bytes:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"later"

        async with calamint.AsyncClient(transport=calamint.MockTransport(handler)) as client:
            response = await client.post("http://h/", content=pieces())
            assert response.headers["x"] == "POST" and response.elapsed.total_seconds() >= 0
            async with client.stream("GET", "http://h/") as response:
                assert await response.aread() == b""
            return (await client.post("http://h/", content=iter([b"now"]))).content

    with calamint.Client(transport=calamint.MockTransport(handle)) as client:
        assert client.post("http://h/", content=iter([b"a", b"b"])).content == b"ab"
        with client.stream("GET", "http://h/") as response:
            assert response.read() == b"" and response.elapsed.total_seconds() >= 0
    for handler in (handle, handle_later):
        assert asyncio.run(work(handler)) == b"now"


def test_a_function_that_gives_no_response(kind: str) -> None:
    async def late(request: calamint.Request) -> None:
        return None

    for handler in (lambda request: None, late):
        transport = calamint.MockTransport(handler)  # type: ignore[arg-type]  # that is the point
        with open_face(kind, transport=transport) as face, pytest.raises(TypeError, match="not a Response"):
            face.request("GET", "http://h/")


def test_a_transport_of_ones_own(kind: str) -> None:
    """Its errors get their request, what it streams is read, and it ends with the client."""

    class Pieces:
        def __iter__(self) -> Any:
            return iter([b"a", b"b"])

        def close(self) -> None:
            ends.append("pieces")

    class Later:
        async def __aiter__(self) -> AsyncIterator[bytes]:
            for piece in (b"a", b"b"):
                yield piece

        async def aclose(self) -> None:
            ends.append("pieces")

    class Own(calamint.BaseTransport, calamint.AsyncBaseTransport):
        def handle_request(self, request: calamint.Request) -> calamint.Response:
            if request.url.path == "/fail":
                raise calamint.ReadError("gone")
            return calamint.Response(200, stream=Pieces())

        async def handle_async_request(self, request: calamint.Request) -> calamint.Response:
            return calamint.Response(200, stream=Later()) if self.handle_request(request) else calamint.Response(500)

        def close(self) -> None:
            ends.append("transport")

        async def aclose(self) -> None:
            ends.append("transport")

    ends: list[str] = []
    with open_face(kind, transport=Own()) as face:
        response = face.request("GET", "http://h/")
        assert response.content == b"ab" and response.elapsed and ends == ["pieces"]
        with face.stream("GET", "http://h/") as response:
            assert b"".join(face.pieces(response, "bytes")) == b"ab"
        with pytest.raises(calamint.ReadError) as caught:
            face.request("GET", "http://h/fail")
        assert isinstance(caught.value.request, calamint.Request)
    assert ends == ["pieces", "pieces", "transport"]
    bare = calamint.BaseTransport() if kind == "Client" else calamint.AsyncBaseTransport()
    with open_face(kind, transport=bare) as face, pytest.raises(NotImplementedError, match="has a method"):
        face.request("GET", "http://h/")


def test_json_of_a_response(kind: str) -> None:
    with ScriptedPeer(echo) as peer, open_face(kind) as face:
        assert face.request("POST", peer.url, json={"name": "thyme"}).json()["name"] == "thyme"
        with pytest.raises(json.JSONDecodeError):
            face.request("POST", peer.url, content=b"{").json()
