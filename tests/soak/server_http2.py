"""HTTP/2 at the server of a soak: what h2 does right, and what it is made to do wrong."""

import asyncio
import struct
from typing import Final, Protocol

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings
import h2.stream
import h2.windows
from h2.settings import SettingCodes

from tests.soak.fates import Exchange, Gone

STREAMS: Final = 10
WINDOW: Final = 65_535


class Window(h2.windows.WindowManager):
    """h2 refuses an empty DATA frame while a window is below 0; RFC 9113 §6.9 allows it where it ends the stream."""

    def window_consumed(self, size: int) -> None:
        if size:
            super().window_consumed(size)


vars(h2.stream)["WindowManager"] = Window  # what h2 makes windows of, in this process


class Wire(Protocol):
    """What a side needs of its connection."""

    transport: asyncio.Transport
    writable: asyncio.Event

    def start(self, exchange: Exchange) -> asyncio.Task[None]: ...
    def write(self, data: bytes) -> None: ...
    def half_close(self) -> None: ...
    def blame(self, words: str) -> None: ...


class Stream:
    """A request on a stream."""

    def __init__(self, side: "Http2", id: int, fields: dict[str, str]) -> None:
        self.side = side
        self.id = id
        self.method = fields[":method"]
        self.target = fields[":path"]
        self.authority = fields[":authority"]
        self.received = 0
        self.complete = asyncio.Event()
        self.over = False  # reset, by either side
        self.pause = 0.0  # seconds before what came counts as read
        self.task: asyncio.Task[None] | None = None

    async def content(self) -> int:
        await self.complete.wait()
        return self.received

    async def head(self, status: int, fields: dict[str, str], end: bool = False) -> None:
        self.check()
        self.side.conn.send_headers(self.id, [(":status", str(status)), *fields.items()], end_stream=end)
        self.side.flush()

    async def data(self, data: bytes) -> None:
        while data:
            self.check()
            room = min(self.side.conn.local_flow_control_window(self.id), self.side.conn.max_outbound_frame_size)
            if room <= 0 or not self.side.wire.writable.is_set():
                await self.side.wait()
                continue
            self.side.conn.send_data(self.id, data[:room])
            self.side.flush()
            data = data[room:]

    async def end(self, trailers: dict[str, str]) -> None:
        self.check()
        if trailers:
            self.side.conn.send_headers(self.id, list(trailers.items()), end_stream=True)
        else:
            self.side.conn.end_stream(self.id)
        self.side.flush()

    def check(self) -> None:
        """Raises Gone."""
        if self.over or self.side.gone:
            raise Gone

    def reset(self, code: int) -> None:
        self.check()
        self.over = True
        try:
            self.side.conn.reset_stream(self.id, code)
        except h2.exceptions.StreamClosedError:
            return  # both sides had ended it
        self.side.flush()

    def goaway(self, code: int, behind: int) -> None:
        """By hand: h2 would refuse what comes after it."""
        last = max(0, self.id - 2 * behind)
        if self.side.last <= last:  # one that we have sent said as much or less
            last = self.side.last
        self.side.last = last
        self.side.wire.write(struct.pack(">IBIII", 8 << 8 | 7, 0, 0, last, code))
        for stream in list(self.side.streams.values()):
            if stream.id > last and stream.task is not None and stream is not self:
                stream.task.cancel()
        if self.id > last:
            raise Gone

    def close(self, abort: bool) -> None:
        self.side.gone = True
        self.side.wire.transport.abort() if abort else self.side.wire.transport.close()

    def half_close(self) -> None:
        self.side.gone = True
        self.side.wire.half_close()

    def garbage(self, data: bytes) -> None:
        self.side.wire.write(data)

    def stall(self, seconds: float) -> None:
        self.side.stall(seconds)

    def change(self, streams: int, window: int, seconds: float) -> None:
        self.side.settings(streams, window)
        asyncio.get_running_loop().call_later(seconds, self.side.settings, STREAMS, WINDOW)

    def read_slowly(self, seconds: float) -> None:
        self.pause = seconds


class Http2:
    """One connection."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.conn = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="latin-1"))
        self.conn.local_settings = h2.settings.Settings(
            client=False,
            initial_values={
                SettingCodes.MAX_CONCURRENT_STREAMS: STREAMS,
                SettingCodes.INITIAL_WINDOW_SIZE: WINDOW,
                SettingCodes.MAX_HEADER_LIST_SIZE: 65_536,
            },
        )
        self.streams: dict[int, Stream] = {}
        self.last = 2**31 - 1  # of a GOAWAY
        self.gone = False  # nothing more is sent
        self.stalled = False
        self.acknowledged = False
        self.waiters: list[asyncio.Future[None]] = []
        self.conn.initiate_connection()
        self.flush()

    def receive(self, data: bytes) -> None:
        """What came."""
        try:
            events = self.conn.receive_data(data)
        except h2.exceptions.ProtocolError as error:
            if not self.gone:
                self.gone = True
                self.wire.blame(f"HTTP/2: {type(error).__name__}: {error}")
            return
        for event in events:
            self.take(event)
        self.flush()
        self.wake()

    def take(self, event: h2.events.Event) -> None:
        """One thing that happened."""
        if isinstance(event, h2.events.RequestReceived):
            id = event.stream_id
            if id > self.last or self.gone:
                return  # the client hears, or will hear, that it was not processed
            stream = Stream(self, id, {str(name): str(value) for name, value in event.headers})
            self.streams[id] = stream
            stream.task = self.wire.start(stream)
            stream.task.add_done_callback(lambda _: self.finished(stream))
        elif isinstance(event, h2.events.DataReceived):
            self.take_data(event.stream_id, len(event.data), event.flow_controlled_length)
        elif isinstance(event, h2.events.StreamEnded | h2.events.StreamReset):
            stream_or_none = self.streams.get(event.stream_id)
            if stream_or_none is not None and isinstance(event, h2.events.StreamEnded):
                stream_or_none.complete.set()
            elif stream_or_none is not None and stream_or_none.task is not None:
                stream_or_none.over = True
                stream_or_none.task.cancel()
        elif isinstance(event, h2.events.SettingsAcknowledged):
            self.acknowledged = True
        elif isinstance(event, h2.events.ConnectionTerminated):
            self.gone = True
            self.wire.transport.close()

    def take_data(self, id: int, size: int, charged: int) -> None:
        """Content; it counts as read at once, or later."""
        stream = self.streams.get(id)
        if stream is not None:
            stream.received += size
        if charged and stream is not None and stream.pause:
            asyncio.get_running_loop().call_later(stream.pause, self.credit, id, charged)
        elif charged:
            self.credit(id, charged)

    def credit(self, id: int, size: int) -> None:
        if not self.gone:
            try:
                self.conn.acknowledge_received_data(size, id)
            except h2.exceptions.ProtocolError:
                return  # the stream is no more, and its bytes count as read already
            self.flush()

    def finished(self, stream: Stream) -> None:
        """Its fate is over; a stream that was forgotten stays open."""
        self.streams.pop(stream.id, None)

    def flush(self) -> None:
        data = self.conn.data_to_send()
        if data and not self.gone:
            self.wire.write(data)

    def settings(self, streams: int, window: int) -> None:
        """Other ones; not before the first are acknowledged, since h2 would take that for the acknowledgement of these."""
        if self.acknowledged and not self.gone:
            self.conn.update_settings(
                {SettingCodes.MAX_CONCURRENT_STREAMS: streams, SettingCodes.INITIAL_WINDOW_SIZE: window}
            )
            self.flush()

    def stall(self, seconds: float) -> None:
        """Nothing is read."""
        self.wire.transport.pause_reading()
        self.stalled = True
        asyncio.get_running_loop().call_later(seconds, self.resume)

    def resume(self) -> None:
        if self.stalled and not self.wire.transport.is_closing():
            self.stalled = False
            self.wire.transport.resume_reading()

    def mend(self) -> None:
        """Misbehaves no more."""
        self.resume()
        self.settings(STREAMS, WINDOW)

    async def wait(self) -> None:
        """Until something has come, or can leave."""
        if not self.wire.writable.is_set():
            await self.wire.writable.wait()
            return
        waiter = asyncio.get_running_loop().create_future()
        self.waiters.append(waiter)
        await waiter

    def wake(self) -> None:
        waiters, self.waiters = self.waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def lost(self) -> None:
        """The connection is no more."""
        self.gone = True
        for stream in list(self.streams.values()):
            if stream.task is not None:
                stream.task.cancel()
