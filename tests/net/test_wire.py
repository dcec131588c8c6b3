"""What stands between a socket and the core: waiting, and what counts as sent when the transport breaks."""

import select
import socket
import ssl
import threading
import time
from collections.abc import Iterator

import pytest

import calamint
from calamint import core
from calamint.core import frames
from calamint.net.handshake import Layers, Secure
from calamint.net.tls import TLSPipe, make_context
from calamint.net.wire import BULK, HAS_POLL, Waiter, Wire
from calamint.net.wire import shake_hands as handshake
from tests.net.thread_server import LIMIT, ThreadServer
from tests.servers import PrivateCa

WAITS = [pytest.param(True, marks=pytest.mark.skipif(not HAS_POLL, reason="no poll here")), False]


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    here, there = socket.socketpair()
    with here, there:
        here.setblocking(False)
        yield here, there


def fill(sock: socket.socket) -> None:
    """Writes until the socket takes no more."""
    try:
        while True:
            sock.send(bytes(65_536))
    except BlockingIOError:
        pass


def server_context(ca: PrivateCa) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(ca.cert_file, ca.key_file)
    return context


# Waiting: with poll, and without it, as on Windows


@pytest.mark.parametrize("poll", WAITS)
def test_waiting(pair: tuple[socket.socket, socket.socket], poll: bool) -> None:
    here, there = pair
    waiter = Waiter(here, poll)
    assert waiter.wait(True, True, 0.0) == (False, True)
    assert waiter.wait(True, False, 0.0) == (False, False)
    there.send(b"x")
    assert waiter.wait(True, True, LIMIT) == (True, True)
    assert waiter.wait(False, True, LIMIT) == (False, True)
    assert here.recv(1) == b"x"
    fill(here)
    began = time.monotonic()
    assert waiter.wait(True, True, 0.05) == (False, False)
    assert 0.05 <= time.monotonic() - began < 5.0
    there.send(b"x")
    assert waiter.wait(True, True, LIMIT) == (True, False)


@pytest.mark.parametrize("poll", WAITS)
def test_an_end_wakes_whoever_waits_for_it(pair: tuple[socket.socket, socket.socket], poll: bool) -> None:
    here, there = pair
    there.close()
    waiter = Waiter(here, poll)
    assert waiter.wait(True, False, LIMIT) == (True, False)
    assert waiter.wait(True, True, LIMIT) == (True, True)
    assert here.recv(1) == b""


@pytest.mark.parametrize("poll", WAITS)
def test_what_was_not_asked_for_is_not_said(pair: tuple[socket.socket, socket.socket], poll: bool) -> None:
    """A driver that must not read is not told to, not even at the end."""
    here, there = pair
    there.send(b"x")
    there.close()
    assert Waiter(here, poll).wait(False, False, 0.01) == (False, False)


@pytest.mark.parametrize("poll", WAITS)
def test_waiting_until_something_comes(pair: tuple[socket.socket, socket.socket], poll: bool) -> None:
    here, there = pair
    timer = threading.Timer(0.05, there.send, (b"x",))
    began = time.monotonic()
    timer.start()
    assert Waiter(here, poll).wait(True, False, LIMIT) == (True, False)
    assert time.monotonic() - began < 5.0
    timer.join()


def test_a_negative_time_is_none() -> None:
    here, there = socket.socketpair()
    with here, there:
        for poll in (HAS_POLL, False):
            assert Waiter(here, poll).wait(True, False, -1.0) == (False, False)


# Sending in the clear


def test_what_the_kernel_takes(pair: tuple[socket.socket, socket.socket]) -> None:
    here, there = pair
    wire = Wire(here, None)
    data = bytes(range(256)) * 40_000
    sent = wire.send(data)
    assert 0 < sent < len(data)
    assert wire.send(data[sent:]) == 0
    got = b""
    while len(got) < sent:
        got += there.recv(65_536)
    assert got == data[:sent]
    assert wire.send(b"") == 0
    assert not wire.deaf


def test_reading_in_the_clear(pair: tuple[socket.socket, socket.socket]) -> None:
    here, there = pair
    wire = Wire(here, None)
    assert (wire.receive(), wire.ended) == (b"", False)
    there.send(b"hello")
    assert (wire.receive(), wire.ended) == (b"hello", False)
    there.close()
    assert (wire.receive(), wire.ended, wire.clean) == (b"", True, True)
    assert wire.send(b"more") == 0
    assert wire.deaf


def test_reading_much_in_the_clear(pair: tuple[socket.socket, socket.socket]) -> None:
    """It is read another way than a little is, which must say the same of what follows: nothing yet, a little, the end."""
    here, there = pair
    wire = Wire(here, None)
    for _ in range(2):
        for size in (BULK - 1, BULK, BULK + 1):
            there.sendall(bytes(size))
            assert (wire.receive(), wire.bulk, wire.ended) == (bytes(size), size >= BULK, False)
    assert (wire.receive(), wire.bulk, wire.ended) == (b"", False, False)
    for last in (b"a little", bytes(BULK)):
        there.sendall(bytes(BULK))
        assert len(wire.receive()) == BULK
        there.sendall(last)
        assert (wire.receive(), wire.ended) == (last, False)
    there.close()
    assert (wire.receive(), wire.ended, wire.clean) == (b"", True, True)


def abort(sock: socket.socket) -> None:
    """Closes it with a TCP RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    sock.close()


def until_reset(sock: socket.socket) -> None:
    """Waits until the peer's RST is here."""
    poll = select.poll()
    poll.register(sock, 0)
    assert poll.poll(LIMIT * 1000)


@pytest.mark.skipif(not HAS_POLL, reason="no poll here")
def test_an_end_after_a_reset_is_not_clean() -> None:
    """The kernel tells of a reset once. If a send is told, the next read sees what looks like an orderly end."""
    with ThreadServer(lambda sock: abort_after(sock, b"said before")) as server:
        sock = socket.create_connection(("127.0.0.1", server.port))
        until_reset(sock)
    with sock:
        wire = Wire(sock, None)
        assert wire.send(b"x") == 0
        assert (wire.deaf, wire.reason) == (True, "Connection reset by peer")
        assert wire.receive() == b"said before"
        assert (wire.receive(), wire.ended, wire.clean) == (b"", True, False)


def abort_after(sock: socket.socket, data: bytes) -> None:
    sock.sendall(data)
    abort(sock)


# Sending over TLS: what has not left is known to the byte, not counted twice


def shake_hands(sock: socket.socket, ca: PrivateCa) -> Wire:
    layers = Layers([Secure(TLSPipe(make_context(str(ca.ca_file)), "localhost"), "localhost", "")])
    handshake(sock, layers, time.monotonic() + LIMIT)
    return Wire(sock, layers.pipe)


def test_what_is_sealed_and_has_not_left(private_ca: PrivateCa) -> None:
    content = bytes(range(256)) * 20_000
    received = bytearray()
    read_on = threading.Event()

    def handle(sock: socket.socket) -> None:
        assert read_on.wait(LIMIT)
        while len(received) < len(content):
            received.extend(sock.recv(65_536))
        sock.sendall(b"thanks")

    with ThreadServer(handle, server_context(private_ca), buffer=8192) as server:
        sock = socket.create_connection(("127.0.0.1", server.port))
        wire = shake_hands(sock, private_ca)
        sent = wire.send(content)
        assert 0 < sent < len(content)
        while more := wire.send(content[sent:]):  # loopback may make room a moment later
            sent += more
        assert wire.sealed and sent < len(content)  # a second piece is not sealed before the first has left
        assert wire.held in (0, 65_536)  # no byte of it has left, or some have: nothing in between
        read_on.set()
        waiter = Waiter(sock)
        while sent < len(content) or wire.sealed:
            assert waiter.wait(False, True, LIMIT) == (False, True)
            sent += wire.send(content[sent:])
        assert wire.held == 0
        while not (answer := wire.receive()):
            assert waiter.wait(True, False, LIMIT) == (True, False)
        assert answer == b"thanks"
        wire.close()
    assert bytes(received) == content


@pytest.mark.skipif(not HAS_POLL, reason="no poll here")
@pytest.mark.parametrize("over_tls", [False, True])
def test_a_request_that_left_is_not_unprocessed(private_ca: PrivateCa, over_tls: bool) -> None:
    """The peer took the first request and resets. The second, larger, never leaves: it alone may be sent again."""
    context = server_context(private_ca) if over_tls else None
    if context is not None:
        context.set_alpn_protocols(["h2"])
    taken = threading.Event()

    def handle(sock: socket.socket) -> None:
        data = b""
        while b"\x01\x05\x00\x00\x00\x01" not in data:  # the HEADERS of stream 1
            data += sock.recv(65_536)
        taken.set()
        abort(sock)

    with ThreadServer(handle, context) as server:
        connection = calamint.connect(server.url, verify=private_ca.ca_file, http1=False)
        first = connection.request("GET", "/first")
        assert taken.wait(LIMIT)
    with connection:
        poll = select.poll()
        poll.register(connection, 0)
        assert poll.poll(LIMIT * 1000)
        second = connection.request("POST", "/second", content=bytes(20_000))
        failures = {it.ref: it.failure for it in connection.events() if isinstance(it, core.RequestFailed)}
    assert {ref: failure.unprocessed for ref, failure in failures.items()} == {first: False, second: True}
    assert {ref: failure.kind for ref, failure in failures.items()} == {first: "ReadError", second: "WriteError"}


@pytest.mark.parametrize("over_tls", [False, True])
def test_requests_behind_content_that_does_not_leave(private_ca: PrivateCa, over_tls: bool) -> None:
    """The first request fills all buffers; the head of the second stays here, and the peer provably never saw it."""
    context = server_context(private_ca) if over_tls else None
    if context is not None:
        context.set_alpn_protocols(["h2"])
    filled = threading.Event()

    def handle(sock: socket.socket) -> None:
        windows = frames.encode_settings(((frames.INITIAL_WINDOW_SIZE, 2**31 - 1),))
        sock.sendall(windows + frames.encode_window_update(0, 2**30))
        assert filled.wait(LIMIT)
        abort(sock)

    with ThreadServer(handle, context, buffer=8192) as server:
        with calamint.connect(server.url, verify=private_ca.ca_file, http1=False) as connection:
            assert isinstance(connection.receive(LIMIT)[0], core.SettingsReceived)
            first = connection.request("POST", "/", content=bytes(8_000_000))
            second = connection.request("GET", "/second")
            assert connection.wants_write
            filled.set()
            failures = {it.ref: it.failure for it in connection.events() if isinstance(it, core.RequestFailed)}
    assert {ref: failure.unprocessed for ref, failure in failures.items()} == {first: False, second: True}


def test_last_words_do_not_wait(private_ca: PrivateCa) -> None:
    """A wire that holds ciphertext back closes without close_notify, and at once."""
    done = threading.Event()

    def handle(sock: socket.socket) -> None:
        assert done.wait(LIMIT)

    with ThreadServer(handle, server_context(private_ca), buffer=8192) as server:
        wire = shake_hands(socket.create_connection(("127.0.0.1", server.port)), private_ca)
        wire.send(bytes(8_000_000))
        assert wire.sealed
        began = time.monotonic()
        wire.close()
        assert time.monotonic() - began < 5.0
        assert wire.sock.fileno() == -1
        done.set()


def test_a_pipe_that_cannot_seal_is_deaf() -> None:
    """Whatever the ssl module raises: the wire says that nothing more can be sent, and keeps what it has."""
    here, there = socket.socketpair()
    with here, there:
        wire = Wire(here, TLSPipe(make_context(False), "localhost"))
        wire.tls.incoming.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")  # type: ignore[union-attr]
        assert wire.send(b"too early") == 0
        assert wire.deaf and not wire.held
