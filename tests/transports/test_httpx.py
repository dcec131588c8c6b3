"""httpx and httpx2 over our transports: requests, responses, errors, what is told, and that nothing is left."""

import asyncio
import gc
import socket
import ssl
import struct
import threading
import warnings
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import calamint
from calamint.core.errors import CANCEL, NO_ERROR
from calamint.testing import (
    Action,
    Request,
    ScriptedPeer,
    answer,
    close,
    drip,
    forget,
    garbage,
    goaway,
    reset,
)
from calamint.transports.shared import to_library
from tests import servers
from tests.net.aio_run import LOOPS, cancelled_at, new_loop
from tests.net.pool_help import at_rest, in_threads
from tests.net.test_tls import server_context
from tests.net.thread_server import ThreadServer, no_answer, read_head
from tests.transports.kit import LIMIT, Kit

BIG = 200_000


def ways(h2: bool) -> dict[str, bool]:
    return {"http1": not h2, "http2": h2}


def echo(request: Request) -> Action:
    """The content of the request."""
    return answer(content=request.content)


def say_ok(sock: socket.socket) -> None:
    """One response, until the client ends."""
    read_head(sock)
    sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
    no_answer(sock)


def test_a_response(kit: Kit, h2: bool) -> None:
    fields = ((b"content-type", b"text/plain"), (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2"))
    interim = ((103, ((b"link", b"</style>"),)),)
    script = [answer(201, fields, b"hello", trailers=((b"digest", b"x"),), interim=interim)]
    with ScriptedPeer(script) as peer, kit.client(**ways(h2)) as client:
        response = client.get(f"{peer.url}/path?q=1", headers={"X-One": "1"})
        assert (response.status_code, response.content, response.text) == (201, b"hello", "hello")
        assert response.headers["content-type"] == "text/plain"
        assert response.headers.get_list("set-cookie") == ["a=1", "b=2"]
        assert dict(client.client.cookies) == {"a": "1", "b": "2"}
        assert response.http_version == ("HTTP/2" if h2 else "HTTP/1.1")
        assert response.extensions["trailers"] == [(b"digest", b"x")]
        assert response.extensions["interim"] == [(103, [(b"link", b"</style>")])]
        assert response.reason_phrase == "Created"
        assert response.elapsed.total_seconds() < 5
        assert response.extensions.get("stream_id") == (1 if h2 else None)
        assert ("reason_phrase" in response.extensions) is not h2
        assert client.get(peer.url).request.headers["cookie"] == "a=1; b=2"
        (request, _) = peer.report.requests
        assert (request.method, request.target, request.authority) == ("GET", "/path?q=1", f"127.0.0.1:{peer.port}")
        assert (b"x-one", b"1") in [(name.lower(), value) for name, value in request.fields]
        at_rest(client.pool)


@pytest.mark.parametrize(
    ("options", "length"),
    [
        ({"content": b"abc"}, b"3"),
        ({"json": {"a": 1}}, b"7"),
        ({"data": {"a": "1"}}, b"3"),
        ({"files": {"f": b"x" * BIG}}, None),
        ({}, b"0"),
    ],
    ids=["content", "json", "data", "files", "none"],
)
def test_content_of_a_request(kit: Kit, h2: bool, options: dict[str, Any], length: bytes | None) -> None:
    with ScriptedPeer(echo) as peer, kit.client(**ways(h2)) as client:
        response = client.request("POST", peer.url, **options)
        (request,) = peer.report.requests
        sent = {name.lower(): value for name, value in request.fields}
        assert sent[b"content-length"] == (length or str(len(response.content)).encode())
        assert b"transfer-encoding" not in sent
        assert request.length == len(response.content)
        assert response.content.startswith(b"--") or response.content == response.request.content


def test_content_in_pieces(kit: Kit, h2: bool) -> None:
    pieces = (b"one", b"", b"x" * BIG, b"two")
    with ScriptedPeer(echo) as peer, kit.client(**ways(h2)) as client:
        response = client.request("PUT", peer.url, content=kit.pieces(*pieces))
        assert response.content == b"".join(pieces)
        names = {name.lower() for name, _ in peer.report.requests[0].fields}
        assert (b"transfer-encoding" in names) is not h2
        known = client.request("PUT", peer.url, content=kit.pieces(b"abc"), headers={"content-length": "3"})
        assert known.content == b"abc"


def test_content_of_the_wrong_kind(kit: Kit) -> None:
    other = Kit(kit.name, not kit.asynchronous)
    with ScriptedPeer() as peer, kit.client() as client:
        request = kit.library.Request("PUT", peer.url, content=other.pieces(b"x"))
        handle = client.transport.handle_async_request if kit.asynchronous else client.transport.handle_request
        with pytest.raises(RuntimeError, match="iterable: use the"):
            client.run(handle(request))
        assert client.get(peer.url).status_code == 200
        assert len(peer.report.requests) == 1


def test_fields_of_the_connection_stay_on_http1(kit: Kit, private_ca: servers.PrivateCa) -> None:
    """What libraries send that do not know what will be spoken (RFC 9113 §8.2.2); `te: trailers` may go everywhere."""
    fields = {"Connection": "keep-alive", "TE": "gzip", "Proxy-Connection": "keep-alive"}
    with (
        ScriptedPeer() as plain,
        ScriptedPeer(tls=server_context(private_ca)) as secure,
        kit.client(verify=str(private_ca.ca_file)) as client,
    ):
        assert client.get(plain.url, headers=fields).http_version == "HTTP/1.1"
        kept = {name.lower(): value for name, value in plain.report.requests[0].fields}
        assert (kept[b"te"], kept[b"proxy-connection"]) == (b"gzip", b"keep-alive")
        assert client.get(secure.url, headers=fields).http_version == "HTTP/2"
        assert client.get(secure.url, headers={"te": "trailers"}).http_version == "HTTP/2"
        first, second = [{name for name, _ in request.fields} for request in secure.report.requests]
        assert not {b"connection", b"te", b"proxy-connection"} & first
        assert b"te" in second


def test_redirects_are_theirs(kit: Kit, h2: bool) -> None:
    script = [answer(302, ((b"location", b"/next"),)), answer(content=b"there")]
    with ScriptedPeer(script) as peer, kit.client(**ways(h2)) as client:
        response = client.get(peer.url, follow_redirects=True)
        assert (response.content, len(response.history)) == (b"there", 1)
        assert peer.report.connections == 1


ERRORS: list[tuple[Action, bool | None, str, str]] = [
    (reset(CANCEL), True, "RemoteProtocolError", "StreamReset"),
    (goaway(2, last=0), True, "RemoteProtocolError", "ConnectionTerminated"),
    (garbage(b"\0\0\0\1\0\0\0\0\0"), True, "RemoteProtocolError", "RemoteProtocolError"),
    (garbage(b"SSH-2.0\r\n"), False, "RemoteProtocolError", "RemoteProtocolError"),
    (close(), None, "ReadError", "ReadError"),
    (forget(), None, "ReadTimeout", "ReadTimeout"),
]


@pytest.mark.parametrize(("action", "over_h2", "theirs", "ours"), ERRORS)
def test_errors(kit: Kit, action: Action, over_h2: bool | None, theirs: str, ours: str) -> None:
    """Their classes, the request attached, ours as the cause."""
    for h2 in (False, True) if over_h2 is None else (over_h2,):
        with ScriptedPeer([action]) as peer, kit.client(**ways(h2)) as client:
            with pytest.raises(getattr(kit.library, theirs)) as caught:
                client.request("POST", peer.url, timeout=0.2, content=b"x")
            assert type(caught.value) is getattr(kit.library, theirs)
            assert caught.value.request.method == "POST"
            assert isinstance(caught.value.__cause__, getattr(calamint, ours))
            at_rest(client.pool)


@pytest.mark.parametrize("name", ["httpx", "httpx2"])
def test_every_error_has_a_class_there(name: str) -> None:
    """Those that a request may fail with, and their parents."""
    library = Kit(name, True).library
    request = library.Request("GET", "http://host/")
    kinds = {getattr(calamint, kind) for kind in calamint.__all__ if isinstance(getattr(calamint, kind), type)}
    failures = {kind for kind in kinds if issubclass(kind, calamint.TransportError | calamint.LocalProtocolError)}
    assert len(failures) > 15
    for kind in failures:
        error = to_library(kind("words"), library, request)
        assert isinstance(error, library.TransportError) and error.request is request


def test_errors_in_the_content(kit: Kit, h2: bool) -> None:
    with ScriptedPeer([close(after=b"half")]) as peer, kit.client(**ways(h2)) as client:
        with pytest.raises(kit.library.TransportError) as caught:
            client.get(peer.url)
        assert caught.value.request.url == peer.url
        streamed = client.begin("GET", peer.url)
        assert streamed.next() == b"half"
        with pytest.raises(kit.library.TransportError) as caught:
            streamed.next()
        assert caught.value.request.url == peer.url
        at_rest(client.pool)


def test_what_cannot_be_requested(kit: Kit) -> None:
    library = kit.library
    with ScriptedPeer() as peer, kit.client() as client:
        with pytest.raises(library.UnsupportedProtocol, match="'ftp' is not http"):
            client.get("ftp://host/")
        with pytest.raises(library.LocalProtocolError) as caught:
            client.get(peer.url, headers={"x": "a\r\nb: c"})
        assert caught.value.request.url == peer.url
        with pytest.raises(library.LocalProtocolError, match="other characters"):
            client.get(peer.url, extensions={"target": "/é".encode()})
        with pytest.raises(TypeError, match="'target'"):
            client.get(peer.url, extensions={"target": "/x"})
        with pytest.raises(library.ConnectError, match="no host has"):
            client.get("http://a b/")
        assert peer.report.requests == ()
        with pytest.raises(library.ConnectError, match="no address for nowhere.invalid"):
            client.get("http://nowhere.invalid/")


def test_a_response_that_is_closed_early(kit: Kit, h2: bool) -> None:
    """Its stream is reset, and its slot is free; on HTTP/1.1 the connection ends."""
    with ScriptedPeer([drip(bytes(50), 5, 0.01, end=False)], max_streams=1) as peer, kit.client(**ways(h2)) as client:
        for number in range(3):
            streamed = client.begin("GET", peer.url)
            assert streamed.next() == bytes(5)
            streamed.close()
            at_rest(client.pool)
            seen = number + 1
            if h2:
                report = peer.wait_for(lambda report, seen=seen: len(report.resets) == seen)  # type: ignore[misc]  # default
                assert report.resets[-1][2] == CANCEL and report.connections == 1
            else:
                peer.wait_for(lambda report: report.connections_open == 0)
        assert peer.wait_for(lambda report: report.streams_open == 0).refused == 0


@pytest.mark.slow
def test_a_response_that_is_dropped(kit: Kit) -> None:
    """Where the library does not close it, there is a warning; in any case its stream is reset with the pool's next turn."""
    script = [drip(bytes(50), 5, 0.01, end=False), answer()]
    with ScriptedPeer(script, max_streams=1) as peer, kit.client(**ways(True)) as client:
        streamed = client.begin("GET", peer.url)
        assert streamed.next() == bytes(5)
        if kit.asynchronous:
            client.run(streamed.pieces.aclose())
        del streamed
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "a request was dropped unclosed: GET /", ResourceWarning)
            for _ in range(3):  # an event loop learns of what was collected when it runs, and gives up more
                gc.collect()
                assert client.get(peer.url).content == b"ok"
        report = peer.wait_for(lambda report: report.resets and not report.streams_open)
        assert [code for _, _, code in report.resets] == [CANCEL]
        at_rest(client.pool)


def test_a_response_that_nobody_reads_stops_its_sender(kit: Kit) -> None:
    """No more than its window is taken in, and other responses are not held up."""
    size = 3 * 1024 * 1024
    script = [answer(content=bytes(size)), answer(content=b"next")]
    settings = calamint.Settings(stream_window=100_000)
    with ScriptedPeer(script) as peer, kit.client(settings=settings, **ways(True)) as client:
        streamed = client.begin("GET", peer.url)
        assert client.get(peer.url).content == b"next"
        assert peer.report.bytes_out < 150_000
        total = 0
        while piece := streamed.next():
            total += len(piece)
        assert total == size
        at_rest(client.pool)


def test_content_that_fails(kit: Kit, h2: bool) -> None:
    """What the caller's own iterable raises comes out as it is, and the peer learns that no more comes."""
    with ScriptedPeer(echo) as peer, kit.client(**ways(h2)) as client:
        with pytest.raises(ZeroDivisionError):
            client.request("PUT", peer.url, content=kit.pieces(b"x" * 10, error=ZeroDivisionError()))
        at_rest(client.pool)
        peer.wait_for(lambda report: report.resets if h2 else not report.connections_open)
        assert client.get(peer.url).status_code == 200


def test_a_response_before_the_content_is_sent(kit: Kit, h2: bool) -> None:
    """The rest of the content is not asked for, and the response is not lost."""
    asked = [0]
    script = [answer(413, content=b"too much", early=True)]
    with ScriptedPeer(script) as peer, kit.client(**ways(h2)) as client:

        def count() -> None:
            asked[0] += 1

        pieces = [bytes(100_000)] * 400
        response = client.request("PUT", peer.url, content=kit.pieces(*pieces, after=count))
        assert (response.status_code, response.content) == (413, b"too much")
        assert asked == [0]
        at_rest(client.pool)


def test_content_that_is_not_asked_for_is_closed(h2: bool) -> None:
    """A generator's own end runs before the response is handed out, and not when the collector finds it. (httpx has another
    generator around it, which it does not close.)"""
    kit = Kit("httpx2", True)
    ended: list[bool] = []

    async def content() -> AsyncIterator[bytes]:
        try:
            for _ in range(400):
                yield bytes(100_000)
        finally:
            ended.append(True)

    pieces = content()
    with ScriptedPeer([answer(413, early=True)]) as peer, kit.client(**ways(h2)) as client:
        assert client.request("PUT", peer.url, content=pieces).status_code == 413
        assert ended == [True]


def test_what_was_not_processed_is_sent_once_more(kit: Kit) -> None:
    script = [goaway(NO_ERROR, last=0), answer(content=b"second")]
    with ScriptedPeer(script) as peer, kit.client(**ways(True)) as client:
        assert client.request("POST", peer.url, content=b"x").content == b"second"
        assert peer.report.connections == 2
    with ScriptedPeer(script) as peer, kit.client(retries=0, **ways(True)) as client:
        with pytest.raises(kit.library.RemoteProtocolError) as caught:
            client.request("POST", peer.url, content=b"x")
        assert isinstance(caught.value.__cause__, calamint.TransportError) and caught.value.__cause__.unprocessed


def test_options_that_say_nothing(kit: Kit) -> None:
    with pytest.raises(ValueError, match="retries=3"):
        kit.transport(retries=3)
    with pytest.raises(OSError, match="nowhere.pem"):
        kit.transport(verify="/nowhere.pem")
    with pytest.raises(OSError, match="nowhere.pem"):
        kit.transport(cert=("/nowhere.pem", "/nowhere.key"))
    with pytest.raises(calamint.UnsupportedProtocol):
        kit.transport(http1=False, http2=False)
    with pytest.raises(calamint.InvalidURL):
        kit.transport(proxy="nonsense://proxy")
    with pytest.raises(ValueError, match="choose one"):
        kit.transport(proxy="http://proxy.example", uds="/run/socket")


def test_options_of_sockets(kit: Kit, tmp_path: Path) -> None:
    """They have the last word; one that the system does not take is an address that does not answer."""
    keep = (socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    with ScriptedPeer() as peer:
        for options, kept in ((None, True), ([(*keep, 0)], False), ([(*keep, struct.pack("i", 0))], False)):
            with kit.client(socket_options=options) as client:
                sock = client.get(peer.url).extensions["network_stream"].get_extra_info("socket")
                assert bool(sock.getsockopt(*keep)) is kept
        with kit.client(socket_options=[(12345, 1, 1)]) as client:
            with pytest.raises(kit.library.ConnectError, match="could not connect to 127.0.0.1 port"):
                client.get(peer.url)
            at_rest(client.pool)
    path = str(tmp_path / "socket")
    with ThreadServer(say_ok, path=path), kit.client(uds=path, socket_options=[(*keep, 1)]) as client:
        streamed = client.begin("GET", "http://anywhere.test/")
        assert streamed.response.extensions["network_stream"].get_extra_info("socket").getsockopt(*keep)
        streamed.close()
    path = str(tmp_path / "other")
    with ThreadServer(say_ok, path=path, connections=0), kit.client(uds=path, socket_options=[(12345, 1, 1)]) as client:
        with pytest.raises(kit.library.ConnectError, match="could not connect"):
            client.get("http://anywhere.test/")


def test_a_unix_domain_socket_has_no_proxies(kit: Kit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the environment says."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    path = str(tmp_path / "socket")
    with ThreadServer(say_ok, path=path), kit.client(uds=path) as client:
        assert client.get("http://anywhere.test/").content == b"ok"


@pytest.mark.parametrize("name", ["httpx", "httpx2"])
def test_another_kind_of_event_loop(name: str) -> None:
    """trio, say, runs coroutines as this does: by hand. What they need is said, and nothing has begun."""
    kit = Kit(name, True)
    client = kit.library.AsyncClient(transport=kit.transport())
    with pytest.raises(RuntimeError, match="calamint works in asyncio and uvloop, and not in trio"):
        client.get("http://127.0.0.1:1/").send(None)
    with pytest.raises(StopIteration):
        client.aclose().send(None)


def test_limits_of_the_library(kit: Kit) -> None:
    """Theirs and ours; None is no limit there."""
    transport = kit.transport(limits=kit.library.Limits(max_connections=7, max_keepalive_connections=None))
    limits = transport.pool._limits
    assert (limits.max_connections, limits.max_keepalive_connections, limits.keepalive_expiry) == (7, 2**31 - 1, 5.0)
    assert kit.transport(limits=kit.library.Limits()).pool._limits.max_connections == 2**31 - 1
    ours = calamint.Limits(max_connections=3)
    assert kit.transport(limits=ours).pool._limits is ours
    assert kit.transport().pool._limits == calamint.Limits()


def test_what_the_connection_tells(kit: Kit, private_ca: servers.PrivateCa) -> None:
    with (
        ScriptedPeer(tls=server_context(private_ca)) as secure,
        ScriptedPeer() as plain,
        kit.client(verify=str(private_ca.ca_file)) as client,
    ):
        tells = client.get(secure.url).extensions["network_stream"].get_extra_info
        assert isinstance(tells("ssl_object"), ssl.SSLObject)
        assert tells("ssl_object").selected_alpn_protocol() == "h2"
        assert tells("server_addr") == ("127.0.0.1", secure.port)
        assert tells("client_addr") == tells("socket").getsockname()
        assert (tells("is_readable"), tells("nonsense")) == (False, None)
        stream = client.get(plain.url).extensions["network_stream"]
        assert stream.get_extra_info("ssl_object") is None
        with pytest.raises(RuntimeError, match="no tunnel"):
            client.run(stream.read(1))
        with pytest.raises(RuntimeError, match="no tunnel"):
            client.run(stream.write(b"x"))
    assert (tells("is_readable"), tells("server_addr")) == (True, None)


def test_sni_hostname(kit: Kit, private_ca: servers.PrivateCa) -> None:
    """The name in the certificate may be another one than in the URL, and connections are not shared then."""
    names: list[str | None] = []
    context = server_context(private_ca)
    context.sni_callback = lambda sock, name, context: names.append(name)
    with ScriptedPeer(tls=context) as peer, kit.client(verify=str(private_ca.ca_file)) as client:
        assert client.get(peer.url).status_code == 200
        assert client.get(peer.url, extensions={"sni_hostname": "localhost"}).status_code == 200
        assert client.get(peer.url, extensions={"sni_hostname": b"localhost"}).status_code == 200
        assert (peer.report.connections, names[-1]) == (2, "localhost")
        with pytest.raises(kit.library.ConnectError, match="other.example"):
            client.get(peer.url, extensions={"sni_hostname": "other.example"})


def test_target(kit: Kit, h2: bool) -> None:
    with ScriptedPeer() as peer, kit.client(**ways(h2)) as client:
        client.request("OPTIONS", peer.url, extensions={"target": b"*"})
        assert peer.report.requests[0].target == "*"


def test_threads_and_event_loops(kit: Kit) -> None:
    """A transport may be shared by threads; an asynchronous one serves one event loop after the other."""
    before = set(threading.enumerate())
    with ScriptedPeer() as peer:
        if kit.asynchronous:
            transport = kit.transport(**ways(True))

            async def run() -> None:
                client = kit.library.AsyncClient(transport=transport)
                assert {it.status_code for it in await asyncio.gather(*[client.get(peer.url) for _ in range(20)])} == {
                    200
                }

            asyncio.run(run())
            asyncio.run(run())
        else:
            with kit.client(**ways(True)) as client:
                in_threads(8, lambda number: [client.get(peer.url).raise_for_status() for _ in range(20)])
                assert peer.report.connections == 1
                at_rest(client.pool)
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("name", ["httpx", "httpx2"])
def test_cancelled_at_every_await(name: str, loop: str, h2: bool) -> None:
    """Wherever a task is cancelled, at once or when what it waits for is there: no slot is lost, and the next one is served."""
    kit = Kit(name, True)
    limits = calamint.Limits(max_connections=1)
    script = [drip(b"0123456789", 5, 0.005)]

    async def ask(client: Any, url: str) -> None:
        response = await client.put(url, content=kit.pieces(b"a", b"b"))
        assert response.content == b"0123456789"

    async def main(peer: ScriptedPeer) -> None:
        for late in (False, True):
            point = 0
            while True:
                point += 1
                transport = kit.transport(limits=limits, **ways(h2))
                async with kit.library.AsyncClient(transport=transport, timeout=LIMIT) as client:
                    suspensions = await cancelled_at(ask(client, peer.url), point, late)
                    await ask(client, peer.url)
                    at_rest(transport.pool)
                if suspensions < point:
                    break
            assert point > 3

    with ScriptedPeer(script, max_streams=1) as peer, asyncio.Runner(loop_factory=lambda: new_loop(loop)) as runner:
        runner.run(main(peer))
        assert peer.wait_for(lambda report: report.streams_open == 0).refused == 0


@pytest.mark.parametrize("name", ["httpx", "httpx2"])
def test_cancelled_tasks_leave_no_stream(name: str) -> None:
    """Ten requests that are given up where ten streams are allowed, and the next one is answered on the same connection."""
    kit = Kit(name, True)

    def script(request: Request) -> Action:
        return answer() if request.target == "/" else forget()

    with ScriptedPeer(script, max_streams=10) as peer, kit.client(**ways(True)) as client:

        async def give_up() -> None:
            tasks = [asyncio.create_task(client.client.get(f"{peer.url}/{number}")) for number in range(10)]
            await asyncio.to_thread(peer.wait_for, lambda report: report.streams_open == 10)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            assert all([task.cancelled() for task in tasks])

        client.run(give_up())
        assert client.get(peer.url).content == b"ok"
        report = peer.wait_for(lambda report: report.streams_open == 0)
        assert [code for _, _, code in report.resets] == [CANCEL] * 10
        assert report.connections == 1
        at_rest(client.pool)
