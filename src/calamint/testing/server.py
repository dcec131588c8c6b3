"""The peer on a socket: one thread that accepts, reads, writes and keeps the time for all connections.

It makes no decisions: those are in the machines. One lock guards the journal and the connections; it is held while a
batch of events is worked off, and `report` and `wait_for` take it too.
"""

import selectors
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Final, final

from calamint.core.value import INFINITY
from calamint.testing.machine import Options
from calamint.testing.peer import PeerConnection
from calamint.testing.report import Journal, Report
from calamint.testing.script import Script

READ_SIZE: Final = 64 * 1024
LINGER_SECONDS: Final = 1.0  # for a client to see our end before a TCP RST could overtake it
STOP_SECONDS: Final = 10.0
WAITS: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


@final
class Link:
    """A socket, its connection once the TLS handshake is over, and what has still to be written."""

    def __init__(self, sock: socket.socket, conn: PeerConnection | None) -> None:
        self.sock: Final = sock
        self.conn = conn
        self.outbox = bytearray()
        self.events = 0  # that the selector watches for
        self.ended = False  # the client's end is shut
        self.gone_at = INFINITY  # ours is: the socket is closed then, if the client does not do it before


@final
class ScriptedPeer:
    """A server on loopback that does what its script says, for each request.

        with ScriptedPeer([answer(), forget()], max_streams=2) as peer:
            …                                        # a client talks to peer.url
            assert peer.wait_for(lambda report: report.resets, 5.0).streams_open == 0

    It speaks HTTP/1.1, and HTTP/2 to those who begin with its preface. With `tls`, a server's SSLContext, it offers
    `alpn`. Leaving the block ends its thread and all connections, and raises what the script raised, if anything.
    """

    def __init__(
        self,
        script: Script = (),
        *,
        max_streams: int | None = 100,
        initial_window: int = 65_535,
        connection_window: int = 65_535,
        max_frame_size: int = 16_384,
        header_table_size: int = 4096,
        credit: bool = True,
        settings: tuple[tuple[int, int], ...] = (),
        tls: ssl.SSLContext | None = None,
        alpn: tuple[str, ...] = ("h2", "http/1.1"),
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.script: Final = script
        self.options: Final = Options(
            max_streams, initial_window, connection_window, max_frame_size, header_table_size, credit, settings
        )
        self.host: Final = host
        self.port = port
        self.tls: Final = tls
        if tls is not None:
            tls.set_alpn_protocols(list(alpn))
        self.journal: Final = Journal()
        self.changed: Final = threading.Condition()
        self.stopping = False
        self.failure: BaseException | None = None  # of the thread itself
        self.links: Final[set[Link]] = set()
        self.selector: selectors.BaseSelector | None = None
        self.listener: socket.socket | None = None
        self.alarm: socket.socket | None = None  # wakes the thread
        self.thread: threading.Thread | None = None

    # The caller's side

    @property
    def url(self) -> str:
        """Scheme, host and port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'http' if self.tls is None else 'https'}://{host}:{self.port}"

    @property
    def report(self) -> Report:
        """What it has seen so far: a snapshot that does not change, to be taken at any time from any thread."""
        with self.changed:
            return self.journal.report()

    def wait_for(self, condition: Callable[[Report], object], seconds: float = 10.0) -> Report:
        """The first report of which the condition is true; TimeoutError, with the last one, if none comes in time."""
        deadline = time.monotonic() + seconds
        with self.changed:
            while not condition(report := self.journal.report()):
                left = deadline - time.monotonic()
                if left <= 0 or self.stopping or self.failure is not None:
                    raise TimeoutError(f"not within {seconds:g} s: {report}")
                self.changed.wait(left)
            return report

    def __enter__(self) -> "ScriptedPeer":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if error is None:
            for mistake in (self.failure, *self.journal.script_errors):
                if mistake is not None:
                    raise mistake

    def start(self) -> None:
        """Listens, and starts the thread."""
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        self.listener = socket.create_server((self.host, self.port), family=family, backlog=128)
        self.listener.setblocking(False)
        self.port = self.listener.getsockname()[1]
        self.alarm, bell = socket.socketpair()
        bell.setblocking(False)
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.listener, selectors.EVENT_READ)
        self.selector.register(bell, selectors.EVENT_READ)
        arguments = (self.selector, self.listener, bell)
        self.thread = threading.Thread(target=self.serve, args=arguments, name="calamint-scripted-peer", daemon=True)
        self.thread.start()

    def close(self) -> None:
        """Ends the thread and closes every socket. More than once is no mistake."""
        with self.changed:
            self.stopping = True
            self.changed.notify_all()
        if self.alarm is not None:
            self.alarm.close()  # the other end becomes readable
            self.alarm = None
        if self.thread is not None and self.thread is not threading.current_thread():
            self.thread.join(STOP_SECONDS)
            if self.thread.is_alive():
                raise TimeoutError(f"the peer's thread did not end within {STOP_SECONDS:g} s: does the script block?")
            self.thread = None

    # The thread's side

    def serve(self, selector: selectors.BaseSelector, listener: socket.socket, bell: socket.socket) -> None:
        """The thread."""
        try:
            while not self.stopping:
                self.turn(selector, listener)
        except BaseException as error:
            self.failure = error
        finally:
            with self.changed:
                for link in list(self.links):
                    self.drop(link)
                self.changed.notify_all()
            selector.close()
            listener.close()
            bell.close()

    def turn(self, selector: selectors.BaseSelector, listener: socket.socket) -> None:
        """Waits for what comes next, a timer or a socket, and does it."""
        with self.changed:
            wake = min([self.wake(link) for link in self.links], default=INFINITY)
        timeout = None if wake == INFINITY else max(0.0, wake - time.monotonic())
        ready = selector.select(timeout)
        with self.changed:
            for key, events in ready:
                if key.fileobj is listener:
                    self.accept(listener)
                elif isinstance(key.data, Link):
                    self.handle(key.data, events)
            now = time.monotonic()
            for link in [link for link in self.links if self.wake(link) <= now]:
                self.handle(link, 0)
            self.changed.notify_all()

    def wake(self, link: Link) -> float:
        """When something is due on this link."""
        return link.gone_at if link.conn is None or link.conn.is_closed else link.conn.next_timeout()

    def accept(self, listener: socket.socket) -> None:
        """Another connection."""
        with suppress(OSError), ExitStack() as stack:  # OSError: it was gone before we came
            sock = stack.enter_context(listener.accept()[0])
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.tls is None:
                link = Link(sock, PeerConnection(self.script, self.options, time.monotonic(), self.journal))
            else:
                link = Link(self.tls.wrap_socket(sock, server_side=True, do_handshake_on_connect=False), None)
            stack.pop_all()
            self.links.add(link)
            self.handle(link, 0)

    def handle(self, link: Link, events: int) -> None:
        """Everything that can be done on this link now."""
        try:
            watch = self.shake_hands(link) if link.conn is None else self.move(link, link.conn, events)
        except OSError as error:  # the client is gone, or the handshake failed
            if link.conn is None:
                self.journal.protocol_errors.append(f"TLS handshake: {error}")
            self.drop(link)
        else:
            self.watch(link, watch)

    def shake_hands(self, link: Link) -> int:
        """The TLS handshake; then there is a connection. Returns what to watch for."""
        if not isinstance(link.sock, ssl.SSLSocket):
            return 0
        try:
            link.sock.do_handshake()
        except ssl.SSLWantReadError:
            return selectors.EVENT_READ
        except ssl.SSLWantWriteError:
            return selectors.EVENT_WRITE
        protocol = link.sock.selected_alpn_protocol()
        link.conn = PeerConnection(self.script, self.options, time.monotonic(), self.journal, protocol)
        return self.move(link, link.conn, selectors.EVENT_READ)

    def move(self, link: Link, conn: PeerConnection, events: int) -> int:
        """Reads, keeps the time, writes. Returns what to watch for, -1 where the link is over."""
        now = time.monotonic()
        if now >= link.gone_at:
            return -1
        if events & selectors.EVENT_READ:
            self.read(link, conn)
        if conn.next_timeout() <= now:
            link.outbox += conn.handle_timeout(now)
        while link.outbox:
            try:
                sent = link.sock.send(link.outbox[:READ_SIZE])
            except WAITS:
                break
            del link.outbox[:sent]
        if conn.is_closed and not link.outbox:
            if conn.is_aborted:
                link.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            if conn.is_aborted or link.ended:
                return -1
            if link.gone_at == INFINITY:
                self.shut(link)
                link.gone_at = now + LINGER_SECONDS
        wants_read = not link.ended and (conn.is_reading or link.gone_at < INFINITY)
        return selectors.EVENT_READ * wants_read | selectors.EVENT_WRITE * bool(link.outbox)

    def read(self, link: Link, conn: PeerConnection) -> None:
        """What has arrived. After our end it is thrown away; after the client's, what is on its way to it still leaves."""
        more = True
        while more:
            try:
                data = link.sock.recv(READ_SIZE)
            except WAITS:
                return
            if data:
                link.outbox += conn.receive(data, time.monotonic())
            else:
                link.ended = True
                conn.closed(time.monotonic())
            more = bool(data) and conn.is_reading and isinstance(link.sock, ssl.SSLSocket)  # which may hold some back

    def shut(self, link: Link) -> None:
        """Our end of the connection: the client reads what is on its way, and then that this is all."""
        with suppress(OSError):
            if isinstance(link.sock, ssl.SSLSocket):
                link.sock.unwrap()  # close_notify; the client's own is not waited for
        with suppress(OSError):
            link.sock.shutdown(socket.SHUT_WR)

    def watch(self, link: Link, events: int) -> None:
        """Tells the selector what to watch for; -1: the link is over."""
        if events < 0:
            self.drop(link)
        elif self.selector is not None and events != link.events:
            if not link.events:
                self.selector.register(link.sock, events, link)
            elif not events:
                self.selector.unregister(link.sock)
            else:
                self.selector.modify(link.sock, events, link)
            link.events = events

    def drop(self, link: Link) -> None:
        """The socket is closed, and with it the connection."""
        self.links.discard(link)
        if link.events and self.selector is not None:
            self.selector.unregister(link.sock)
        link.events = 0
        if link.conn is not None:
            link.conn.closed(time.monotonic())
        link.sock.close()
