"""HTTP/1.1 at the server of a soak: what h11 does right, and what it is made to do wrong."""

import asyncio
from contextlib import suppress

import h11

from tests.soak.fates import Gone
from tests.soak.server_http2 import Wire


class Request:
    """A request, and what is answered."""

    def __init__(self, side: "Http1", event: h11.Request) -> None:
        self.side = side
        self.method = event.method.decode()
        self.target = event.target.decode()
        fields = {name: value for name, value in event.headers}
        self.authority = fields.get(b"host", b"").decode()
        self.expects = b"expect" in fields
        self.received = 0
        self.complete = asyncio.Event()
        self.pause = 0.0  # seconds for which nothing more is read, after each piece
        self.started = False  # the final head has left

    async def content(self) -> int:
        if self.expects and not self.complete.is_set():
            await self.head(100, {})
        await self.complete.wait()
        return self.received

    async def head(self, status: int, fields: dict[str, str], end: bool = False) -> None:
        pairs = list(fields.items())
        if status < 200:
            self.side.send(h11.InformationalResponse(status_code=status, headers=pairs))
            return
        self.started = True
        if end:
            pairs.append(("content-length", "0"))
        self.side.send(h11.Response(status_code=status, headers=pairs))
        if end:
            self.side.send(h11.EndOfMessage())

    async def data(self, data: bytes) -> None:
        if self.method == "HEAD":  # its response is over with the head
            raise Gone
        await self.side.wire.writable.wait()
        self.side.send(h11.Data(data=data))

    async def end(self, trailers: dict[str, str]) -> None:
        self.side.send(h11.EndOfMessage(headers=[] if self.method == "HEAD" else list(trailers.items())))

    def reset(self, code: int) -> None:
        """It has no such thing: the connection ends, unless the response is complete."""
        if self.side.conn.our_state is not h11.DONE:
            self.close(code == 0x2)

    def goaway(self, code: int, behind: int) -> None:
        """It says so with its next response, or ends at once."""
        if behind:
            self.close(False)
            raise Gone
        self.side.last = True

    def close(self, abort: bool) -> None:
        self.side.gone = True
        self.side.wire.transport.abort() if abort else self.side.wire.transport.close()

    def half_close(self) -> None:
        self.side.gone = True
        self.side.wire.half_close()

    def garbage(self, data: bytes) -> None:
        self.side.wire.write(data)

    def stall(self, seconds: float) -> None:
        self.side.pause(seconds)

    def change(self, streams: int, window: int, seconds: float) -> None:
        """It has no settings."""

    def read_slowly(self, seconds: float) -> None:
        self.pause = seconds


class Http1:
    """One connection."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.conn = h11.Connection(h11.SERVER, max_incomplete_event_size=100_000)
        self.request: Request | None = None
        self.task: asyncio.Task[None] | None = None
        self.gone = False  # nothing more is sent
        self.last = False  # the next response is the last one

    def receive(self, data: bytes) -> None:
        """What came."""
        if self.gone:
            return
        try:
            self.conn.receive_data(data)
            self.take()
        except h11.RemoteProtocolError as error:
            self.gone = True
            asked = "before any request" if self.request is None else f"{self.request.method} {self.request.target}"
            states = f"{self.conn.their_state}, {self.conn.our_state}"
            self.wire.blame(f"HTTP/1.1: {error}, {asked}, {states}, {data[:60]!r}")

    def take(self) -> None:
        """Every event that is there."""
        while not self.gone:
            event = self.conn.next_event()
            if isinstance(event, h11.Request):
                self.request = Request(self, event)
                self.task = self.wire.start(self.request)
                self.task.add_done_callback(lambda _: self.finished())
            elif isinstance(event, h11.Data) and self.request is not None:
                self.request.received += len(event.data)
                if self.request.pause:
                    self.pause(self.request.pause)
            elif isinstance(event, h11.EndOfMessage) and self.request is not None:
                self.request.complete.set()
                self.finished()
            else:  # NEED_DATA, PAUSED, ConnectionClosed
                return

    def finished(self) -> None:
        """Its fate is over, or all of its content is here: where both are, the next request may come."""
        if self.gone or self.task is None or not self.task.done():
            return
        if self.conn.our_state is h11.MUST_CLOSE or (self.conn.our_state is h11.DONE and self.last):
            self.gone = True
            self.wire.transport.close()
        elif self.conn.our_state is h11.DONE and self.conn.their_state is h11.DONE:
            self.conn.start_next_cycle()
            self.task = self.request = None
            with suppress(h11.RemoteProtocolError):
                self.take()

    def send(self, event: h11.Event) -> None:
        """Raises Gone."""
        if self.gone:
            raise Gone
        if isinstance(event, h11.Response) and self.last:
            event = h11.Response(status_code=event.status_code, headers=[*event.headers, (b"connection", b"close")])
        try:
            data = self.conn.send(event)
        except h11.LocalProtocolError:  # such as the rest of what was broken off
            self.gone = True
            self.wire.transport.abort()
            raise Gone from None
        if data:
            self.wire.write(data)

    def pause(self, seconds: float) -> None:
        """Nothing is read for so long."""
        self.wire.transport.pause_reading()
        asyncio.get_running_loop().call_later(seconds, self.mend)

    def mend(self) -> None:
        """Reads on."""
        if not self.wire.transport.is_closing():
            self.wire.transport.resume_reading()

    def lost(self) -> None:
        """The connection is no more."""
        self.gone = True
        if self.task is not None:
            self.task.cancel()
