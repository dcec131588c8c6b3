"""The servers themselves: every route that `servers` promises is fetched over every way to reach it."""

import hashlib
import http.client
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import h2.config
import h2.connection
import h2.events
import pytest

from tests import servers
from tests.servers import LARGE_SIZE, MEDIUM_SIZE, SMALL, PrivateCa, Server, large_sha256, medium_sha256
from tests.servers.fixtures import run
from tests.servers.process import start

pytestmark = pytest.mark.server

TIMEOUT = 30.0
WINDOW = 2**24
# Ways to reach a server: the key in its urls, and what ALPN is to choose.
WAYS = {"http1": ("http1", None), "h1-tls": ("https", "http/1.1"), "h2-tls": ("https", "h2"), "h2c": ("h2c", None)}
OFFERED = [(name, way) for name in ("nginx", "apache", "node", "h2o", "haproxy", "hypercorn") for way in WAYS]
OFFERED += [("nghttpd", "h2-tls"), ("nghttpd", "h2c")]
PROGRAMMED = [pair for pair in OFFERED if pair[0] != "nghttpd"]
BODY = bytes(range(256)) * 1024  # more than the default flow-control windows


@dataclass
class Answer:
    """What came back."""

    status: int = 0
    fields: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.body).hexdigest()


@dataclass
class Target:
    """A server and the way to reach it."""

    server: Server
    way: str
    ca: PrivateCa

    def connect(self) -> socket.socket:
        """A connection on which ALPN chose as wanted."""
        key, alpn = WAYS[self.way]
        url = urlsplit(self.server.urls[key])
        plain = socket.create_connection((url.hostname, url.port), timeout=TIMEOUT)
        if alpn is None:
            return plain
        secure = self.ca.client_context(alpn).wrap_socket(plain, server_hostname=url.hostname)
        assert secure.selected_alpn_protocol() == alpn
        return secure

    def fetch(self, path: str, method: str = "GET", body: bytes | None = None) -> Answer:
        """One request on a connection of its own."""
        with self.connect() as connection:
            if self.way.startswith("h2"):
                return fetch_h2(connection, method, path, body)
            return fetch_http1(connection, method, path, body)


@pytest.fixture
def target(request: pytest.FixtureRequest, private_ca: PrivateCa) -> Target:
    name, way = request.param
    return Target(request.getfixturevalue(name), way, private_ca)


def fetch_http1(connection: socket.socket, method: str, path: str, body: bytes | None) -> Answer:
    client = http.client.HTTPConnection("localhost")
    client.sock = connection
    client.request(method, path, body)
    response = client.getresponse()
    fields = {name.lower(): value for name, value in response.getheaders()}
    return Answer(response.status, fields, response.read())


def fetch_h2(connection: socket.socket, method: str, path: str, body: bytes | None) -> Answer:
    engine = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
    engine.initiate_connection()
    engine.increment_flow_control_window(WINDOW)
    fields = [(":method", method), (":scheme", "http"), (":authority", "localhost"), (":path", path)]
    engine.send_headers(1, fields, end_stream=body is None)
    answer, collected, rest = Answer(), bytearray(), memoryview(body or b"")
    while True:
        if body is not None:
            rest = send_some(engine, rest)
        connection.sendall(engine.data_to_send())
        received = connection.recv(2**18)
        assert received, "the server closed the connection"
        if take(engine, engine.receive_data(received), answer, collected) and not rest:
            answer.body = bytes(collected)
            return answer


def send_some(engine: h2.connection.H2Connection, rest: memoryview) -> memoryview:
    """Send what flow control lets through; returns what is left."""
    while rest and (room := min(engine.local_flow_control_window(1), engine.max_outbound_frame_size)):
        part, rest = rest[:room], rest[room:]
        engine.send_data(1, part.tobytes(), end_stream=not rest)
    return rest


def take(engine: h2.connection.H2Connection, events: list[h2.events.Event], answer: Answer, body: bytearray) -> bool:
    """Note events; True at the end of the answer."""
    for event in events:
        if isinstance(event, h2.events.ResponseReceived):
            fields = {str(name): str(value) for name, value in event.headers}
            answer.status = int(fields.pop(":status"))
            answer.fields = fields
        elif isinstance(event, h2.events.DataReceived):
            body += event.data
            engine.acknowledge_received_data(event.flow_controlled_length, 1)
        elif isinstance(event, h2.events.StreamEnded):
            return True
        else:
            assert not isinstance(event, h2.events.StreamReset | h2.events.ConnectionTerminated), event
    return False


@pytest.mark.parametrize("target", OFFERED, indirect=True)
def test_files(target: Target) -> None:
    answer = target.fetch("/small")
    assert (answer.status, answer.body) == (200, SMALL)
    # nghttpd knows content types by file extension alone.
    assert answer.fields.get("content-type") == (None if target.server.name == "nghttpd" else "text/plain")
    answer = target.fetch("/small", "HEAD")
    assert (answer.status, answer.body, answer.fields["content-length"]) == (200, b"", str(len(SMALL)))
    answer = target.fetch("/medium")
    assert (answer.status, answer.sha256, answer.fields["content-length"]) == (200, medium_sha256(), str(MEDIUM_SIZE))
    assert target.fetch("/absent").status == 404


@pytest.mark.slow
@pytest.mark.parametrize("target", [pair for pair in OFFERED if pair[1] == "http1"], indirect=True)
def test_large(target: Target) -> None:
    answer = target.fetch("/large")
    assert (answer.status, len(answer.body), answer.sha256) == (200, LARGE_SIZE, large_sha256())


@pytest.mark.parametrize("target", PROGRAMMED, indirect=True)
def test_upload_and_echo(target: Target) -> None:
    sha256 = hashlib.sha256(BODY).hexdigest()
    answer = target.fetch("/upload", "POST", BODY)
    assert answer.fields["content-type"] == "application/json"
    assert json.loads(answer.body) == {"bytes": len(BODY), "sha256": sha256}
    answer = target.fetch("/echo", "POST", BODY)
    assert (answer.body, answer.fields["x-sha256"]) == (BODY, sha256)


@pytest.mark.parametrize("target", [pair for pair in OFFERED if pair[0] == "nghttpd"], indirect=True)
def test_nghttpd_echoes_any_upload(target: Target) -> None:
    answer = target.fetch("/echo", "POST", BODY)
    assert (answer.status, answer.body) == (200, BODY)


@pytest.mark.parametrize("target", PROGRAMMED, indirect=True)
def test_programmed_routes(target: Target) -> None:
    for status in (204, 304):
        answer = target.fetch(f"/status/{status}")
        assert (answer.status, answer.body) == (status, b"")
    answer = target.fetch("/chunked")
    assert (answer.sha256, "content-length" in answer.fields) == (medium_sha256(), False)
    assert (answer.fields.get("transfer-encoding") == "chunked") == (not target.way.startswith("h2"))
    started = time.monotonic()
    assert target.fetch("/slow?ms=60").status == 200
    assert time.monotonic() - started >= 0.06


@pytest.mark.parametrize("target", PROGRAMMED, indirect=True)
def test_unique_fields_differ_in_every_response(target: Target) -> None:
    answers = [target.fetch("/unique").fields for _ in range(5)]
    for name in ("x-request-id", "x-trace", "etag"):
        assert len({fields[name] for fields in answers}) == 5


@pytest.mark.parametrize("way", WAYS)
def test_never_stays_silent(node: Server, private_ca: PrivateCa, way: str) -> None:
    with Target(node, way, private_ca).connect() as connection:
        connection.settimeout(0.2)
        with pytest.raises(TimeoutError):
            if way.startswith("h2"):
                fetch_h2(connection, "GET", "/never", None)
            else:
                fetch_http1(connection, "GET", "/never", None)


def test_until_close(node: Server, private_ca: PrivateCa) -> None:
    with Target(node, "http1", private_ca).connect() as connection:
        connection.sendall(b"GET /until-close HTTP/1.1\r\nHost: localhost\r\n\r\n")
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    assert received == b"HTTP/1.0 200 OK\r\ncontent-type: text/plain\r\n\r\nuntil close\n"
    assert Target(node, "h2c", private_ca).fetch("/until-close").status == 404


def test_nginx_unix_socket(nginx: Server) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(TIMEOUT)
        connection.connect(str(nginx.unix_socket))
        answer = fetch_http1(connection, "GET", "/small", None)
    assert (answer.status, answer.body) == (200, SMALL)


@pytest.mark.parametrize("only", ["h2", "http/1.1"])
@pytest.mark.parametrize("name", ["nginx", "apache", "node", "nghttpd", "h2o", "haproxy", "hypercorn"])
def test_alpn(request: pytest.FixtureRequest, private_ca: PrivateCa, name: str, only: str) -> None:
    server: Server = request.getfixturevalue(name)
    url = urlsplit(server.urls["https"])
    context = private_ca.client_context(only)
    with (
        socket.create_connection((url.hostname, url.port), timeout=TIMEOUT) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as secure,
    ):
        assert secure.selected_alpn_protocol() == (only if only in server.alpn else None)


def test_stopped_with_all_its_processes(tmp_path: Path, large_file: Path, private_ca: PrivateCa, node: Server) -> None:
    with servers.nginx(tmp_path, large_file.parent, private_ca, node) as server:
        group = server.pid
        assert os.getpgid(group) == group
        assert server.log_file.exists()
    with pytest.raises(ProcessLookupError):
        os.killpg(group, 0)


def test_missing_program_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(servers.MissingServer, match="Debian package nghttp2-server"):
        servers.find_binary("no-such-program", "nghttp2-server")


@pytest.mark.parametrize(("ci", "outcome"), [("true", pytest.fail.Exception), ("", pytest.skip.Exception)])
def test_missing_program_fails_in_ci(monkeypatch: pytest.MonkeyPatch, ci: str, outcome: type[Exception]) -> None:
    @contextmanager
    def absent() -> Iterator[Server]:
        yield Server("absent", {}, Path(), Path(servers.find_binary("no-such-program", "no-such-package")), (0,))

    monkeypatch.setenv("CI", ci)
    with pytest.raises(outcome, match="Debian package no-such-package"):
        next(run(absent()))


def test_server_that_exits_at_start_is_tried_again(tmp_path: Path) -> None:
    log_file = tmp_path / "log"
    commands = [["sh", "-c", "echo $0; exit 1", "port is taken"], ["sleep", "60"]]
    with ExitStack() as stack:
        process, _ = start(stack, 0, lambda _: commands.pop(0), log_file, lambda: not commands)
        assert process.args == ["sleep", "60"]
    assert process.returncode is not None
    with ExitStack() as stack, pytest.raises(servers.StartError, match="port is taken"):
        start(stack, 1, lambda _: ["sh", "-c", "echo $0; exit 1", "port is taken"], log_file, lambda: True)
