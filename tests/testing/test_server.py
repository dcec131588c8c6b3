"""The peer on sockets, against h2, http.client and raw sockets; and the pytest fixture."""

import hashlib
import http.client
import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import h2.connection
import h2.events
import pytest
import trustme
from h2.errors import ErrorCodes
from h2.settings import SettingCodes

from calamint import testing
from calamint.core.errors import CANCEL
from calamint.testing import (
    Action,
    Request,
    ScriptedPeer,
    answer,
    close,
    delay,
    drip,
    forget,
    stop_reading,
)
from tests.testing.clients import GET


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def connect(peer: ScriptedPeer) -> socket.socket:
    return socket.create_connection((peer.host, peer.port), timeout=10)


def converse(
    sock: socket.socket, client: h2.connection.H2Connection, done: Callable[[list[h2.events.Event]], bool]
) -> list[h2.events.Event]:
    """Talk until the events satisfy `done`, or the peer closes."""
    events: list[h2.events.Event] = []
    while not done(events):
        sock.sendall(client.data_to_send())
        data = sock.recv(65_536)
        if not data:
            break
        events += client.receive_data(data)
    sock.sendall(client.data_to_send())
    return events


def has(kind: type[h2.events.Event]) -> Callable[[list[h2.events.Event]], bool]:
    return lambda events: any([isinstance(event, kind) for event in events])


def test_http1_over_a_socket() -> None:
    with ScriptedPeer([answer(content=b"one"), delay(0.01, drip(b"two", every=0.01)), close(after=b"three")]) as peer:
        assert peer.url == f"http://127.0.0.1:{peer.port}"
        client = http.client.HTTPConnection("127.0.0.1", peer.port, timeout=10)
        client.request("GET", "/one")
        assert client.getresponse().read() == b"one"
        client.request("POST", "/two", body=b"x" * 200_000)
        assert client.getresponse().read() == b"two"
        client.request("GET", "/three")
        with pytest.raises(http.client.IncompleteRead):
            client.getresponse().read()
        client.close()
        report = peer.wait_for(lambda report: report.connections_open == 0)
        assert [(it.method, it.target, it.length) for it in report.requests] == [
            ("GET", "/one", 0),
            ("POST", "/two", 200_000),
            ("GET", "/three", 0),
        ]
        assert report.requests[1].sha256 == hashlib.sha256(b"x" * 200_000).hexdigest()
        assert report.connections == 1 and report.bytes_in > 200_000 and report.bytes_out > 100
        assert report.protocol_errors == ()


def test_http2_over_a_socket() -> None:
    with ScriptedPeer([forget(), delay(0.01, answer(content=b"x" * 40_000))], max_streams=2) as peer:
        with connect(peer) as sock:
            client = h2.connection.H2Connection()
            client.initiate_connection()
            client.send_headers(1, list(GET), end_stream=True)
            client.send_headers(3, list(GET), end_stream=True)
            events = converse(sock, client, has(h2.events.StreamEnded))
            assert sum([len(it.data) for it in events if isinstance(it, h2.events.DataReceived)]) == 40_000
            assert peer.report.streams_open == 1 and peer.report.connections_open == 1
            client.reset_stream(1, ErrorCodes.CANCEL)
            sock.sendall(client.data_to_send())
            report = peer.wait_for(lambda report: report.resets)
            assert report.resets == ((0, 1, CANCEL),) and report.streams_open == 0 and report.streams_peak == 2
        assert peer.wait_for(lambda report: report.connections_open == 0).protocol_errors == ()


@pytest.mark.parametrize("protocol", ["h2", "http/1.1"])
def test_tls(protocol: str) -> None:
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(server)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    context.set_alpn_protocols([protocol])
    content = os.urandom(300_000)
    with ScriptedPeer(lambda request: answer(content=content) + close(), tls=server) as peer:
        assert peer.url.startswith("https://")
        with connect(peer) as plain, context.wrap_socket(plain, server_hostname="localhost") as sock:
            assert sock.selected_alpn_protocol() == protocol
            if protocol == "h2":
                client = h2.connection.H2Connection()
                client.initiate_connection()
                client.increment_flow_control_window(10**6)
                client.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 10**6})
                client.send_headers(1, list(GET), end_stream=True)
                events = converse(sock, client, has(h2.events.StreamEnded))
                received = b"".join([it.data for it in events if isinstance(it, h2.events.DataReceived)])
            else:
                sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                with sock.makefile("rb") as file:
                    received = file.read().partition(b"\r\n\r\n")[2]
            assert received == content
            assert sock.recv(100) == b""  # and a close_notify: else this would raise
        assert peer.wait_for(lambda report: report.connections_open == 0).connections == 1


def test_a_failed_handshake_is_in_the_report() -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("localhost").configure_cert(server)
    with ScriptedPeer(tls=server) as peer, connect(peer) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        report = peer.wait_for(lambda report: report.protocol_errors)
        assert report.protocol_errors[0].startswith("TLS handshake: ") and report.connections == 0


def test_close_is_an_orderly_end_and_abort_is_not() -> None:
    with ScriptedPeer([answer(early=True) + close(early=True), close(abort=True)]) as peer:
        with connect(peer) as sock:
            # What the peer does not read must not make its kernel send a RST that overtakes the answer.
            sock.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n" + b"x" * 50_000)
            peer.wait_for(lambda report: report.connections_open == 0)
            sock.sendall(b"x" * 50_000)
            with sock.makefile("rb") as file:
                assert file.read().endswith(b"ok")
        with connect(peer) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            with pytest.raises(ConnectionResetError):
                sock.recv(100)


def test_stop_reading_fills_the_clients_socket() -> None:
    with ScriptedPeer([stop_reading(), answer()]) as peer:
        with connect(peer) as sock, connect(peer) as other:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            sock.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n")
            before = peer.wait_for(lambda report: report.requests).bytes_in
            sock.setblocking(False)
            with pytest.raises(BlockingIOError):
                for _ in range(10_000):
                    sock.send(b"x" * 100_000)
            other.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")  # the others are served, and the thread does not spin
            assert other.recv(1000).endswith(b"ok")
            assert peer.report.bytes_in - before < 100
            assert peer.report.requests[0].length == 0


def test_a_client_that_reads_slowly() -> None:
    content = b"x" * 10_000_000
    with ScriptedPeer([answer(content=content)]) as peer, connect(peer) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        peer.wait_for(lambda report: report.bytes_out > len(content))  # more than the kernel takes
        sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        peer.wait_for(lambda report: report.bytes_out > 2 * len(content))
        sock.shutdown(socket.SHUT_WR)
        assert peer.wait_for(lambda report: report.connections_open == 0)
        with sock.makefile("rb") as file:
            assert file.read().count(b"x") == 2 * len(content)  # what was on its way has come


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
def test_ipv6() -> None:
    with ScriptedPeer(host="::1") as peer, connect(peer) as sock:
        assert peer.url == f"http://[::1]:{peer.port}"
        sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert sock.recv(1000).endswith(b"ok")


def test_many_connections_at_once() -> None:
    with ScriptedPeer([forget()]) as peer:
        socks = [connect(peer) for _ in range(30)]
        for sock in socks:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        report = peer.wait_for(lambda report: report.streams_open == 30)
        assert report.connections == report.connections_open == 30
        for sock in socks[:10]:
            sock.close()
        assert peer.wait_for(lambda report: report.connections_open == 20).streams_open == 20
        for sock in socks:
            sock.close()


def test_leaving_closes_everything() -> None:
    peer = ScriptedPeer([forget()])
    with peer:
        sock = connect(peer)
        sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        peer.wait_for(lambda report: report.requests)
    with sock:
        assert sock.recv(100) == b""
    peer.close()  # again
    assert peer.report.requests and peer.report.connections_open == 0
    with pytest.raises(ConnectionRefusedError):
        connect(peer)


def test_what_the_script_raised_is_raised_at_the_end() -> None:
    def script(request: Request) -> Action:
        raise LookupError("no such request")

    with pytest.raises(LookupError, match="no such request"):
        with ScriptedPeer(script) as peer, connect(peer) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert sock.recv(100).startswith(b"HTTP/1.1 500")
    with pytest.raises(ZeroDivisionError):  # but it does not hide what went wrong in the test
        with ScriptedPeer(script) as peer, connect(peer) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            sock.recv(100)
            raise ZeroDivisionError


def test_a_script_that_ends_the_thread() -> None:
    def script(request: Request) -> Action:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        with ScriptedPeer(script) as peer, connect(peer) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert sock.recv(100) == b""
            with pytest.raises(TimeoutError):
                peer.wait_for(lambda report: report.bytes_out)


def test_waiting_in_vain() -> None:
    with ScriptedPeer() as peer:
        with pytest.raises(TimeoutError, match=r"not within 0.01 s: Report\(connections=0"):
            peer.wait_for(lambda report: report.requests, 0.01)


def test_the_pytest_fixture(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import http.client, threading\n"
        "from calamint.testing import answer\n"
        "def test_it(scripted_peer):\n"
        "    peers = [scripted_peer([answer(status)], max_streams=1) for status in (201, 202)]\n"
        "    for peer, status in zip(peers, (201, 202)):\n"
        "        client = http.client.HTTPConnection('127.0.0.1', peer.port)\n"
        "        client.request('GET', '/')\n"
        "        assert client.getresponse().status == status\n"
        "        client.close()\n"
        "def test_they_are_gone():\n"
        "    assert threading.active_count() == 1\n"
    )
    command = [
        sys.executable,
        "-W",
        "error",
        "-m",
        "pytest",
        "-q",
        "-p",
        "calamint.testing.plugin",
        "-p",
        "no:cacheprovider",
    ]
    env = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run([*command, str(tmp_path)], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert "2 passed" in done.stdout, done.stdout + done.stderr


def test_the_plugin_is_cheap_and_all_names_are_there() -> None:
    code = "import sys, calamint.testing.plugin as plugin; print(*[name for name in sys.modules if 'calamint' in name])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == {"calamint", "calamint.testing", "calamint.testing.plugin"}
    homes = [name for names in testing.HOMES.values() for name in names.split()]
    assert sorted(homes) == sorted(testing.__all__) == dir(testing)
    assert all([getattr(testing, name) is not None for name in testing.__all__])
    assert not hasattr(testing, "nothing")
