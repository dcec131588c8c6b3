"""One connection of the peer without I/O: bytes in, bytes out, and time as an argument.

In memory, with the caller's clock and with calamint's own verbs for a client:

    peer = PeerConnection([delay(0.5, answer(content=b"late"))])
    conn, data = http2.connect(Origin("http", "localhost", 80), Settings(), now=0.0)
    conn, more, ref = http2.request(conn, "GET", "/", (), None, now=0.0)
    conn, data, events = http2.receive(conn, peer.receive(data + more, now=0.0), now=0.0)
    assert peer.next_timeout() == 0.5
    conn, data, events = http2.receive(conn, peer.handle_timeout(now=0.5), now=0.5)  # … the response
    assert peer.journal.report().requests[0].target == "/"
"""

from typing import Final, final

from calamint.core.frames import PREFACE
from calamint.core.value import INFINITY
from calamint.testing.machine import OPTIONS, Machine, Options
from calamint.testing.peer_http1 import Http1
from calamint.testing.peer_http2 import Http2
from calamint.testing.report import Journal
from calamint.testing.script import Script


@final
class PeerConnection:
    """A server's side of one connection. It speaks what the first bytes ask for, or what ALPN settled (`protocol`).

    `journal` is shared by the connections of one server: it numbers them and their requests, and gives reports.
    """

    def __init__(
        self,
        script: Script = (),
        options: Options = OPTIONS,
        now: float = 0.0,
        journal: Journal | None = None,
        protocol: str | None = None,
    ) -> None:
        self.script: Final = script
        self.options: Final = options
        self.journal: Final = Journal() if journal is None else journal
        self.number: Final = self.journal.enter(self.count)
        self.now = now
        self.protocol = protocol  # "h2" or "http/1.1"; None until it is known
        self.machine: Machine | None = None
        self.preface = b""  # of the client, as far as it has come
        self.is_closed = False
        self.is_aborted = False

    def count(self) -> int:
        """How many streams are open."""
        return 0 if self.machine is None or self.is_closed else self.machine.count()

    @property
    def open_streams(self) -> int:
        """How many streams are open; on HTTP/1.1, requests that are not answered."""
        return self.count()

    @property
    def is_reading(self) -> bool:
        """Whether more bytes would be taken: not after `stop_reading()`, nor when it is closed."""
        return not self.is_closed and (self.machine is None or self.machine.is_reading)

    def receive(self, data: bytes, now: float) -> bytes:
        """Takes what arrived and gives back what is to be sent. What arrives while nothing is read is lost."""
        if not self.is_reading:
            return b""
        self.journal.bytes_in += len(data)
        if self.machine is None:
            data = self.preface + data
            self.preface = b""
            if not self.recognise(data):
                self.preface = data
                return b""
            data = data.removeprefix(PREFACE) if self.protocol == "h2" else data
        return self.turn(data, now)

    def recognise(self, data: bytes) -> bool:
        """Whether these first bytes say, or agree with, which protocol it is (RFC 9113 §3.3, §3.4)."""
        if PREFACE.startswith(data[: len(PREFACE)]) and self.protocol != "http/1.1":
            if len(data) < len(PREFACE):
                return False
            self.protocol = "h2"
        elif self.protocol == "h2":
            self.journal.blame(self.number, f"the preface is {data[: len(PREFACE)]!r} (RFC 9113 §3.4)")
        else:
            self.protocol = "http/1.1"
        kind = Http2 if self.protocol == "h2" else Http1
        self.machine = kind(self.script, self.options, self.journal, self.number)
        return True

    def next_timeout(self) -> float:
        """When `handle_timeout` has to be called; infinity for never."""
        return INFINITY if self.machine is None else self.machine.next_timeout()

    def handle_timeout(self, now: float) -> bytes:
        """Does what is due by now and gives back what is to be sent."""
        return self.turn(b"", now)

    def turn(self, data: bytes, now: float) -> bytes:
        """What arrived and what is due, done."""
        self.now = max(self.now, now)
        machine = self.machine
        if machine is None or self.is_closed:
            return b""
        machine.now = self.now
        if data:
            machine.receive(data)
        machine.run()
        out = b"".join(machine.out)
        machine.out.clear()
        self.journal.bytes_out += len(out)
        if machine.is_closed:
            self.end(machine.is_aborted)
        return out

    def closed(self, now: float) -> None:
        """The client has closed the transport: every stream is over."""
        self.now = max(self.now, now)
        self.end(False)

    def end(self, aborted: bool) -> None:
        """The connection is over."""
        self.is_closed = True
        self.is_aborted = aborted
        self.journal.open.pop(self.number, None)
        if self.machine is not None:
            self.machine.close()
