"""An HTTP/2 server of raw frames (RFC 9113): it does what it is told for each request, keeps count, and judges nothing."""

import socket
import struct
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final

import hpack

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
ACK = END_STREAM = 1
END_HEADERS: Final = 4
MAX_CONCURRENT_STREAMS: Final = 3
INITIAL_WINDOW_SIZE: Final = 4
LIMIT: Final = 10.0

Act = Callable[["Connection", int, str], None]
"""What is done for a request: on this connection, with this stream, for this path."""


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame (§4.1)."""
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


class Connection:
    """One connection of a client, in a thread of its own."""

    def __init__(self, peer: "Peer", sock: socket.socket, number: int) -> None:
        self.peer = peer
        self.sock = sock
        self.number = number
        self.encoder = hpack.Encoder()
        self.decoder = hpack.Decoder(max_header_list_size=2**20)
        self.out: list[bytes] = [frame(SETTINGS, 0, 0, peer.settings)]
        self.windows: dict[int, int] = {0: 65_535}  # to send in, by stream; 0 is the connection's
        self.initial = 65_535
        self.left: dict[int, int] = {}  # bytes of content that are still to be sent, by stream
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.reads = True
        self.settings: dict[int, int] = {}
        self.acknowledged = 0  # of our PINGs

    # What a script may do

    def head(self, stream: int, *fields: tuple[str, str], status: int = 200, end: bool = False) -> None:
        """HEADERS of a response."""
        block = self.encoder.encode([(":status", str(status)), *fields])
        self.out.append(frame(HEADERS, END_HEADERS | (END_STREAM if end else 0), stream, block))

    def content(self, stream: int, size: int) -> None:
        """So many bytes of content, and the end, as windows allow."""
        self.left[stream] = self.left.get(stream, 0) + size

    def answer(self, stream: int, size: int = 2) -> None:
        """A whole response."""
        self.head(stream, ("content-length", str(size)))
        self.content(stream, size)

    def send(self, kind: int, flags: int, stream: int, payload: bytes = b"") -> None:
        self.out.append(frame(kind, flags, stream, payload))

    def goaway(self, last: int, code: int = 0) -> None:
        self.send(GOAWAY, 0, 0, struct.pack(">II", last, code))

    def reset(self, stream: int, code: int) -> None:
        self.send(RST_STREAM, 0, stream, struct.pack(">I", code))

    def later(self, seconds: float, what: Callable[[], None]) -> None:
        """Something to be done then."""
        self.timers.append((time.monotonic() + seconds, what))

    def close(self) -> None:
        """The end of the connection."""
        self.flush()
        self.sock.shutdown(socket.SHUT_RDWR)

    # The thread

    def run(self) -> None:
        """Until the client ends."""
        try:
            data = b""
            while len(data) < len(PREFACE):
                data += self.sock.recv(65_536)
            assert data.startswith(PREFACE)
            data = data[len(PREFACE) :]
            while True:
                with self.peer.changed:
                    data = self.take(data)
                    self.tick()
                    self.pump()
                    self.peer.changed.notify_all()
                self.flush()
                self.sock.settimeout(0.01)
                try:
                    if not self.reads:
                        time.sleep(0.01)  # a tick of its own clock, where it may not wait for what comes
                        continue
                    if not (more := self.sock.recv(262_144)):
                        return
                    data += more
                except TimeoutError:
                    pass
        except OSError:  # the client has gone
            pass

    def take(self, data: bytes) -> bytes:
        """All frames that are whole; the rest."""
        while len(data) >= 9 and len(data) >= (end := 9 + int.from_bytes(data[:3], "big")):
            self.recv(data[3], data[4], int.from_bytes(data[5:9], "big") & 0x7FFFFFFF, data[9:end])
            data = data[end:]
        return data

    def recv(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        """A frame."""
        if kind == SETTINGS and not flags & ACK:
            for at in range(0, len(payload), 6):
                name, value = struct.unpack_from(">HI", payload, at)
                self.settings[name] = value
                if name == INITIAL_WINDOW_SIZE:
                    self.windows = {
                        key: item + (value - self.initial if key else 0) for key, item in self.windows.items()
                    }
                    self.initial = value
            self.send(SETTINGS, ACK, 0)
        elif kind == PING and flags & ACK:
            self.acknowledged += 1
        elif kind == PING:
            self.send(PING, ACK, 0, payload)
        elif kind == WINDOW_UPDATE:
            self.windows[stream] = self.windows.get(stream, self.initial) + int.from_bytes(payload, "big")
        elif kind == RST_STREAM:
            self.peer.resets.append((stream, int.from_bytes(payload, "big")))
            self.left.pop(stream, None)
        elif kind == HEADERS:
            self.windows.setdefault(stream, self.initial)
            fields = [(str(name), str(value)) for name, value in self.decoder.decode(payload)]
            path = dict(fields).get(":path", "")
            self.peer.requests.append((self.number, stream, path, fields))
            self.peer.act(self, stream, path)
        elif kind == DATA and payload:
            self.peer.received += len(payload)
            credit = struct.pack(">I", len(payload))
            self.out += [frame(WINDOW_UPDATE, 0, 0, credit)]
            if not flags & END_STREAM:
                self.out += [frame(WINDOW_UPDATE, 0, stream, credit)]

    def tick(self) -> None:
        """What is due."""
        now = time.monotonic()
        due = [what for at, what in self.timers if at <= now]
        self.timers = [(at, what) for at, what in self.timers if at > now]
        for what in due:
            what()

    def pump(self) -> None:
        """Content, as windows allow, a frame of each in turn; not more at a time than a socket may hold."""
        budget = 1_000_000
        moved = True
        while moved and budget > 0:
            moved = False
            for stream, left in list(self.left.items()):
                size = min(left, 16_384, self.windows[0], self.windows[stream])
                if size > 0 or left == 0:
                    end = size == left
                    self.out.append(frame(DATA, END_STREAM if end else 0, stream, bytes(size)))
                    self.windows[0] -= size
                    self.windows[stream] -= size
                    self.left[stream] -= size
                    self.peer.sent += size
                    budget -= size
                    moved = True
                    if end:
                        del self.left[stream]

    def flush(self) -> None:
        out, self.out = b"".join(self.out), []
        self.sock.settimeout(LIMIT)
        self.sock.sendall(out)


class Peer:
    """The server: `act` is called for each request, in the thread of its connection."""

    def __init__(self, act: Act, streams: int | None = None) -> None:
        """`streams`: SETTINGS_MAX_CONCURRENT_STREAMS, which is said and not enforced."""
        self.act = act
        self.settings = b"" if streams is None else struct.pack(">HI", MAX_CONCURRENT_STREAMS, streams)
        self.changed = threading.Condition()
        self.connections: list[Connection] = []
        self.requests: list[tuple[int, int, str, list[tuple[str, str]]]] = []
        self.resets: list[tuple[int, int]] = []
        self.received = 0  # bytes of content
        self.sent = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.threads = [threading.Thread(target=self.accept, name="raw-peer")]

    def accept(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:  # it is over
                return
            connection = Connection(self, sock, len(self.connections))
            thread = threading.Thread(target=connection.run, name="raw-connection")
            self.connections.append(connection)
            self.threads.append(thread)
            thread.start()

    def wait(self, condition: Callable[[], object], seconds: float = LIMIT) -> bool:
        """Whether it becomes true in this time."""
        with self.changed:
            return bool(self.changed.wait_for(condition, seconds))

    def paths(self, path: str) -> int:
        """How many requests came for it."""
        return len([each for each in self.requests if each[2] == path])

    def __enter__(self) -> "Peer":
        self.threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for connection in self.connections:
            try:
                connection.sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        for thread in self.threads:
            thread.join(LIMIT)
        for connection in self.connections:
            connection.sock.close()
