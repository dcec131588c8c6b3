"""Other people's clients, h2 and h11, joined to a peer in memory; what both protocols' tests share."""

import h2.config
import h2.connection
import h2.events
import h11
import hyperframe.frame
from hpack import Encoder

from calamint import testing
from calamint.core import frames
from calamint.testing import (
    Journal,
    Options,
    PeerConnection,
    Script,
)

GET = ((":method", "GET"), (":scheme", "http"), (":authority", "test"), (":path", "/"))
POST = ((":method", "POST"), *GET[1:])


START = frames.PREFACE + frames.encode_settings(())


def request_on(ref: int, head: tuple[tuple[str, str], ...] = GET) -> bytes:
    """A complete request, made by hand."""
    return frames.encode_head(ref, Encoder().encode(list(head)), True, 16_384)


def parse(data: bytes) -> list[hyperframe.frame.Frame]:
    """The frames that the peer sent, as hyperframe reads them."""
    found: list[hyperframe.frame.Frame] = []
    while data:
        frame, length = hyperframe.frame.Frame.parse_frame_header(memoryview(data[:9]))
        frame.parse_body(memoryview(data[9 : 9 + length]))
        data = data[9 + length :]
        found.append(frame)
    return found


class H2:
    """A client of h2 and a peer, joined in memory; `now` is whatever the test says."""

    def __init__(self, script: Script = (), options: Options | None = None, journal: Journal | None = None) -> None:
        self.peer = PeerConnection(script, options or Options(), 0.0, journal)
        self.client = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding=None))
        self.client.initiate_connection()
        self.now = 0.0
        self.events: list[h2.events.Event] = []
        self.received = b""

    def request(self, head: tuple[tuple[str, str], ...] = GET, content: bytes | None = None, end: bool = True) -> int:
        """A request whose content, if any, fits into the windows."""
        ref = self.client.get_next_available_stream_id()
        self.client.send_headers(ref, list(head), end_stream=end and content is None)
        if content is not None:
            self.client.send_data(ref, content, end_stream=end)
        self.exchange()
        return ref

    def upload(self, ref: int, content: bytes) -> int:
        """As much of the content as the windows allow, again and again; how much has left."""
        sent = 0
        while sent < len(content):
            size = min(
                self.client.local_flow_control_window(ref), self.client.max_outbound_frame_size, len(content) - sent
            )
            if size <= 0:
                return sent
            self.client.send_data(ref, content[sent : sent + size], end_stream=sent + size == len(content))
            sent += size
            self.exchange()
        return sent

    def exchange(self) -> None:
        """Both sides talk until both are silent."""
        data = self.peer.handle_timeout(self.now)
        while True:
            if data:
                self.received += data
                self.events += self.client.receive_data(data)
            out = self.client.data_to_send()
            if not out:
                return
            data = self.peer.receive(out, self.now)

    def wait(self, now: float) -> None:
        """It is later."""
        self.now = now
        self.exchange()

    def seen(self, kind: type[h2.events.Event]) -> list[str]:
        return [type(event).__name__ for event in self.events if isinstance(event, kind)]

    def status(self, ref: int) -> bytes:
        (event,) = [it for it in self.events if isinstance(it, h2.events.ResponseReceived) and it.stream_id == ref]
        return dict(event.headers or [])[b":status"]

    def content(self, ref: int) -> bytes:
        pieces = [it for it in self.events if isinstance(it, h2.events.DataReceived) and it.stream_id == ref]
        return b"".join([piece.data for piece in pieces])

    def ended(self, ref: int) -> bool:
        return any([isinstance(it, h2.events.StreamEnded) and it.stream_id == ref for it in self.events])

    def reset(self, ref: int) -> int | None:
        codes = [it.error_code for it in self.events if isinstance(it, h2.events.StreamReset) and it.stream_id == ref]
        return None if not codes else int(codes[0] or 0)

    def terminated(self) -> h2.events.ConnectionTerminated | None:
        found = [it for it in self.events if isinstance(it, h2.events.ConnectionTerminated)]
        return found[0] if found else None

    @property
    def report(self) -> testing.Report:
        return self.peer.journal.report()


class H11:
    """A client of h11 and a peer, joined in memory."""

    def __init__(self, script: Script = (), journal: Journal | None = None) -> None:
        self.peer = PeerConnection(script, now=0.0, journal=journal)
        self.client = h11.Connection(h11.CLIENT)
        self.now = 0.0
        self.received = b""

    def request(
        self, method: str = "GET", fields: tuple[tuple[str, str], ...] = (), content: bytes = b"", end: bool = True
    ) -> None:
        head = [("Host", "test"), *fields]
        data = self.client.send(h11.Request(method=method, target="/", headers=head)) or b""
        if content:
            data += self.client.send(h11.Data(data=content)) or b""
        if end:
            data += self.client.send(h11.EndOfMessage()) or b""
        self.give(self.peer.receive(data, self.now))

    def give(self, data: bytes) -> None:
        self.received += data
        if data:
            self.client.receive_data(data)
        if self.peer.is_closed:
            self.client.receive_data(b"")

    def wait(self, now: float) -> None:
        self.now = now
        self.give(self.peer.handle_timeout(now))

    def events(self) -> list[h11.Event]:
        """What has come since, up to where nothing more can come."""
        found: list[h11.Event] = []
        while True:
            event = self.client.next_event()
            if event is h11.NEED_DATA or event is h11.PAUSED:
                return found
            assert not isinstance(event, type)
            found.append(event)
            if isinstance(event, h11.ConnectionClosed):
                return found

    def response(self) -> tuple[int, dict[bytes, bytes], bytes, bool]:
        """The final response: its status, its fields, its content so far, and whether it is complete."""
        events = self.events()
        (head,) = [event for event in events if isinstance(event, h11.Response)]
        content = b"".join([bytes(event.data) for event in events if isinstance(event, h11.Data)])
        complete = any([isinstance(event, h11.EndOfMessage) for event in events])
        return head.status_code, dict(head.headers), content, complete

    @property
    def report(self) -> testing.Report:
        return self.peer.journal.report()
