"""The ledger of an HTTP/2 model server: what the client did, by RFC 9113, with every offence recorded.

It was written from the RFC, and shares nothing with the client. `Http2Model` (model_http2.py) adds what it answers.
"""

from collections import Counter, deque
from heapq import heappop, heappush
from random import Random

from hpack import Decoder, Encoder, HPACKError

from tests.world import model_frames as f
from tests.world.plans import INFINITY, Habits, Served, Stream, pattern, request_key

_HOP = {b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"}
_LENGTHS = {f.PRIORITY: 5, f.RST_STREAM: 4, f.PING: 8, f.WINDOW_UPDATE: 4}
_ON_STREAM = {f.DATA, f.HEADERS, f.PRIORITY, f.RST_STREAM, f.CONTINUATION}
_ON_CONNECTION = {f.SETTINGS, f.PING, f.GOAWAY, f.PRIORITY_UPDATE}


class Ledger:
    """Receives, judges and keeps account. Times are virtual; positions count bytes since the connection began."""

    def __init__(self, rng: Random, habits: Habits) -> None:
        self.rng = rng
        self.seed = rng.getrandbits(30)
        self.habits = habits
        self.violations: list[str] = []
        self.crimes: list[str] = []  # ours, of the kind that ends a connection
        self.streams: dict[int, Stream] = {}  # all, for ever
        self.live: dict[int, Stream] = {}  # those that count
        self.requests: dict[int, Served] = {}
        self.last_id = 0
        self.received = Counter[int]()  # frames by type
        self.sent = Counter[int]()
        self.out = bytearray()
        self.put = 0  # position of the end of `out`
        self.reading = True
        self.closing = False  # wants to close once `out` is gone
        self.client_goaway: int | None = None
        self.client_ended = False
        self.flooded = 0  # frames that brought nothing forward, in floods
        # windows: what we may send, and what the client may send
        self.send_window = 65535
        self.receive_window = 65535
        self.credit_due = 0
        self.client = {f.TABLE_SIZE: 4096, f.ENABLE_PUSH: 1, f.INITIAL_WINDOW: 65535, f.MAX_FRAME: 16384}
        self.ours = {f.TABLE_SIZE: 4096, f.INITIAL_WINDOW: 65535, f.MAX_FRAME: 16384}  # acknowledged
        self.unacknowledged: deque[dict[int, int]] = deque()
        self.acks_due: deque[tuple[float, bytes]] = deque()
        self.settings_sent = False
        self.client_settings = 0
        self.pings: deque[bytes] = deque()  # ours, unanswered
        self.ping_answered_at = -1.0  # the position of the answer to the client's last PING
        self.decoder = Decoder()
        self.encoder = Encoder()
        self._table_floor = INFINITY
        self.goaway_last: int | None = None
        self.goaway_at = -1
        self._input = bytearray()
        self._position = 0  # of the client's bytes
        self._preface = False
        self._block: bytearray | None = None
        self._block_stream = 0
        self._block_ends = False
        self._marks: deque[tuple[int, int, int, float]] = deque()
        self._noted = 0
        self._known = -1  # how many of our bytes the client had when it made this frame
        self._known_before = -1  # and how many before the last that it was given
        self._made = 0.0  # when it made it
        self.now = 0.0
        self._reset_tokens = 500.0
        self._reset_time = 0.0
        self._agenda: list[tuple[float, int, str, int]] = []
        self._agenda_count = 0

    # --- what the world tells

    def note_sent(self, size: int, delivered: int, before: int, now: float) -> None:
        """The client just made `size` bytes, having been given `delivered` bytes of ours, `before` of them earlier."""
        self._noted += size
        self._marks.append((self._noted, delivered, before, now))

    def end(self, now: float) -> None:
        """The client's half of the connection ended."""
        self.client_ended = True
        self.closing = True

    def complain(self, what: str, stream: int = 0) -> None:
        """An offence of the client's; after one of ours that ends connections nothing counts."""
        if not self.crimes:
            self.violations.append(f"{what} (stream {stream})" if stream else what)

    # --- time

    def later(self, time: float, action: str, stream: int = 0) -> None:
        self._agenda_count += 1
        heappush(self._agenda, (time, self._agenda_count, action, stream))
        if stream in self.streams:
            self.streams[stream].actions += 1

    def next_timeout(self) -> float:
        return self._agenda[0][0] if self._agenda else INFINITY

    def tick(self, now: float) -> None:
        self.now = now
        while self._agenda and self._agenda[0][0] <= now:
            _, _, action, number = heappop(self._agenda)
            if number in self.streams:
                self.streams[number].actions -= 1
            self.act(action, number, now)

    def act(self, action: str, number: int, now: float) -> None:
        """Something that was scheduled is due."""
        if action == "credit":
            if number:
                self._credit_stream(self.streams[number])
            else:
                self._credit_connection()
        elif action == "ack":
            while self.acks_due and self.acks_due[0][0] <= now:
                self._acknowledge_now(self.acks_due.popleft()[1])

    # --- output

    def emit(self, data: bytes) -> None:
        """One frame or several, whole."""
        self.sent[data[3]] += 1
        self.out += data
        self.put += len(data)

    # --- input

    def receive(self, data: bytes, now: float) -> None:
        self.now = now
        self._input += data
        if not self._preface:
            if len(self._input) < len(f.PREFACE):
                return
            if not self._input.startswith(f.PREFACE):
                self.complain(f"no preface but {bytes(self._input[:30])!r}")
                self.closing = True
                return
            del self._input[: len(f.PREFACE)]
            self._position += len(f.PREFACE)
            self._preface = True
        offset = 0
        buffer = self._input
        available = len(buffer)
        while available - offset >= 9:
            size, kind, flags, stream = f.parse_head(buffer, offset)
            if size > self.ours[f.MAX_FRAME]:
                self.complain(f"frame of {size} bytes, SETTINGS_MAX_FRAME_SIZE {self.ours[f.MAX_FRAME]}", stream)
            if available - offset < 9 + size:
                break
            payload = bytes(buffer[offset + 9 : offset + 9 + size])
            offset += 9 + size
            self._position += 9 + size
            self._find_mark(now)
            self.received[kind] += 1
            self._judge(kind, flags, stream, payload, now)
        del buffer[:offset]

    def _find_mark(self, now: float) -> None:
        marks = self._marks
        while marks and marks[0][0] < self._position:
            marks.popleft()
        if marks:
            _, self._known, self._known_before, self._made = marks[0]
        else:
            self._known, self._known_before, self._made = -1, -1, now

    def _judge(self, kind: int, flags: int, stream: int, payload: bytes, now: float) -> None:
        if self.client_settings == 0 and kind != f.SETTINGS:
            self.complain(f"the first frame is {f.NAMES.get(kind, kind)}, not SETTINGS")
        if self._block is not None and (kind != f.CONTINUATION or stream != self._block_stream):
            self.complain(f"{f.NAMES.get(kind, kind)} inside a field block", stream)
        expected = _LENGTHS.get(kind)
        if expected is not None and len(payload) != expected:
            self.complain(f"{f.NAMES[kind]} of {len(payload)} bytes", stream)
            return
        if (kind in _ON_STREAM and stream == 0) or (kind in _ON_CONNECTION and stream != 0):
            self.complain(f"{f.NAMES[kind]} on stream {stream}")
            return
        match kind:
            case f.DATA:
                self._data(flags, stream, payload, now)
            case f.HEADERS:
                self._headers(flags, stream, payload, now)
            case f.CONTINUATION:
                self._continuation(flags, payload, now)
            case f.RST_STREAM:
                self._rst_stream(stream, f.u32(payload), now)
            case f.SETTINGS:
                self._settings(flags, payload, now)
            case f.PING:
                self._ping(flags, payload, now)
            case f.GOAWAY:
                self._goaway(payload)
            case f.WINDOW_UPDATE:
                self._window_update(stream, f.u32(payload) & f.MAX_WINDOW)
            case f.PUSH_PROMISE:
                self.complain("PUSH_PROMISE from a client", stream)
            case f.PRIORITY_UPDATE:
                if len(payload) < 4 or not f.u32(payload):
                    self.complain("PRIORITY_UPDATE without a stream")

    def _data(self, flags: int, number: int, payload: bytes, now: float) -> None:
        size = len(payload)
        self.receive_window -= size
        if self.receive_window < 0:
            self.complain(f"DATA of {size} overruns the connection window by {-self.receive_window}", number)
        content = payload
        if flags & f.PADDED:
            if not size or payload[0] >= size:
                self.complain("padding as long as the frame", number)
                return
            content = payload[1 : size - payload[0]]
        stream = self.streams.get(number)
        self._owe_connection(size, now)
        if stream is None or stream.pushed:
            self.complain("DATA on an idle stream" if stream is None else "DATA on a pushed stream", number)
            return
        if stream.reset_by == "client" or not stream.client_open:
            self.complain(f"DATA on a stream that the client has {'reset' if stream.reset_by else 'ended'}", number)
            return
        if stream.reset_by == "server" and 0 <= stream.over_at <= self._known:
            self.complain("DATA on a stream of which the client knows that it was reset", number)
        stream.receive_window -= size
        if stream.receive_window < 0 and size and not stream.reset_by:
            self.complain(f"DATA of {size} overruns the stream window by {-stream.receive_window}", number)
        if not size and not flags & f.END_STREAM:
            self.complain("empty DATA without END_STREAM", number)
        served = stream.served
        if content != pattern(served.key, served.received, len(content)):
            self.complain(f"content differs from what was given, at {served.received}", number)
        served.received += len(content)
        if flags & f.END_STREAM:
            self._client_ends(stream, now)
        elif size and not stream.reset_by:
            self._owe_stream(stream, size, now)
        self.on_content(stream, now)

    def _client_ends(self, stream: Stream, now: float) -> None:
        stream.client_open = False
        served = stream.served
        if stream.expected is not None and stream.expected != served.received:
            self.complain(f"content-length {stream.expected}, content {served.received}", stream.id)
        served.complete = True
        self._forget_if_over(stream)
        if not stream.reset_by and not stream.ignored and not stream.forgotten:
            self.on_end(stream, now)

    def _headers(self, flags: int, number: int, payload: bytes, now: float) -> None:
        if flags & f.PADDED:
            payload = payload[1 : len(payload) - payload[0]]
        if flags & f.PRIORITY_FLAG:
            if f.u32(payload) & f.MAX_WINDOW == number:
                self.complain("a stream that depends on itself", number)
            payload = payload[5:]
        self._block_ends = bool(flags & f.END_STREAM)
        if flags & f.END_HEADERS:
            self._fields(number, payload, now)
        else:
            self._block, self._block_stream = bytearray(payload), number

    def _continuation(self, flags: int, payload: bytes, now: float) -> None:
        if self._block is None:
            self.complain("CONTINUATION without HEADERS")
            return
        self._block += payload
        if flags & f.END_HEADERS:
            block, self._block = bytes(self._block), None
            self._fields(self._block_stream, block, now)

    def _decode(self, number: int, block: bytes) -> list[tuple[bytes, bytes]] | None:
        if self._table_floor < self.decoder.header_table_size:
            if min(f.size_updates(block), default=INFINITY) > self._table_floor:
                self.complain(f"no table size update to {self._table_floor} (RFC 7541 §4.2)", number)
        self._table_floor = INFINITY
        try:
            return [(bytes(name), bytes(value)) for name, value in self.decoder.decode(block, raw=True)]
        except (HPACKError, IndexError) as error:
            self.complain(f"a field block that does not decode: {error!r}", number)
            return None

    def _fields(self, number: int, block: bytes, now: float) -> None:
        fields = self._decode(number, block)
        if fields is None:
            return
        stream = self.streams.get(number)
        if stream is not None:
            self._trailers(stream, fields, now)
            return
        if number % 2 == 0 or number <= self.last_id:
            self.complain(f"HEADERS open stream {number} after {self.last_id}")
            return
        self.last_id = number
        if 0 <= self.goaway_at <= self._known:
            self.complain("a stream opened after GOAWAY was received", number)
        key = self._judge_request(number, fields)
        method = next((value for name, value in fields if name == b":method"), b"").decode()
        served = Served(-1 if key is None else key, number, method, now)
        stream = Stream(number, served, self.client[f.INITIAL_WINDOW], self.ours[f.INITIAL_WINDOW])
        self.streams[number] = stream
        before = self.requests.get(served.key)
        if before is not None and (before.code != f.REFUSED_STREAM or before.acted):  # else it may come again (§8.7)
            self.complain(f"request {served.key} came twice", number)
        self.requests[served.key] = served
        for name, value in fields:
            if name == b"content-length":
                stream.expected = int(value)
        served.tunnel = method == "CONNECT"
        if self.goaway_last is not None and number > self.goaway_last:
            stream.ignored = True
        else:
            self.live[number] = stream
            most = self.ours.get(f.MAX_CONCURRENT)
            counted = sum(not each.pushed for each in self.live.values()) if most is not None else 0
            if most is not None and counted > most:
                self.complain(f"{counted} streams at once, acknowledged were {most}", number)
        if not stream.ignored:
            self.on_request(stream, fields, now)
        if self._block_ends:
            self._client_ends(stream, now)

    def _trailers(self, stream: Stream, fields: list[tuple[bytes, bytes]], now: float) -> None:
        number = stream.id
        if stream.reset_by == "client" or not stream.client_open or stream.pushed:
            self.complain("HEADERS on a stream that the client has ended", number)
            return
        if stream.reset_by == "server" and 0 <= stream.over_at <= self._known:
            self.complain("HEADERS on a stream of which the client knows that it was reset", number)
        if not self._block_ends:
            self.complain("trailers without END_STREAM", number)
        if any(name.startswith(b":") for name, _ in fields):
            self.complain("pseudo-field in trailers", number)
        self._client_ends(stream, now)

    def _judge_request(self, number: int, fields: list[tuple[bytes, bytes]]) -> int | None:
        """RFC 9113 §8.2 and §8.3. Returns the key of the request."""
        pseudo: dict[bytes, bytes] = {}
        regular = False
        host = None
        for name, value in fields:
            if name.startswith(b":"):
                if regular:
                    self.complain(f"{name!r} after regular fields", number)
                if name in pseudo:
                    self.complain(f"{name!r} twice", number)
                pseudo[name] = value
                continue
            regular = True
            if name != name.lower() or not name or name in _HOP or any(byte in name for byte in b"\r\n\0 :"):
                self.complain(f"field name {name!r}", number)
            if any(byte in value for byte in b"\r\n\0") or value != value.strip(b" \t"):
                self.complain(f"field value {value!r}", number)
            if name == b"te" and value != b"trailers":
                self.complain("te other than trailers", number)
            if name == b"host":
                host = value
        self._judge_pseudo(number, pseudo, host)
        if pseudo.get(b":method") == b"CONNECT" and b":protocol" not in pseudo:
            return request_key(pseudo.get(b":authority", b"").decode())
        return request_key(pseudo.get(b":path", b"").decode())

    def _judge_pseudo(self, number: int, pseudo: dict[bytes, bytes], host: bytes | None) -> None:
        allowed = {b":method", b":scheme", b":path", b":authority"}
        required = {b":method", b":scheme", b":path"}
        if pseudo.get(b":method") == b"CONNECT":
            if b":protocol" in pseudo:
                allowed.add(b":protocol")
                if not self.ours.get(f.ENABLE_CONNECT):
                    self.complain(":protocol without SETTINGS_ENABLE_CONNECT_PROTOCOL", number)
            else:
                required = allowed = {b":method", b":authority"}
        if pseudo.keys() - allowed or required - pseudo.keys():
            self.complain(f"pseudo-fields {sorted(pseudo)}", number)
        path = pseudo.get(b":path", b"/")
        if not path.startswith(b"/") and not (path == b"*" and pseudo.get(b":method") == b"OPTIONS"):
            self.complain(f":path {path!r}", number)
        if host is not None and host != pseudo.get(b":authority", host):
            self.complain("host differs from :authority", number)

    def _rst_stream(self, number: int, code: int, now: float) -> None:
        stream = self.streams.get(number)
        if stream is None:
            self.complain("RST_STREAM on an idle stream", number)
            return
        if stream.served.aborted is not None:
            self.complain("a second RST_STREAM", number)
        elif (0 <= stream.over_at <= self._known_before and not stream.client_open) or (
            # not where something else came together with our RST_STREAM: it may have answered that
            0 <= stream.over_at <= self._known
            and stream.reset_by == "server"
            and stream.server_open
            and not stream.served.crime
            and not stream.pushed
        ):
            self.complain(
                f"RST_STREAM on a stream that the client knows to be over ({stream.reset_by or 'ended'})", number
            )
        elapsed = max(0.0, self._made - self._reset_time)
        self._reset_tokens = min(500.0, self._reset_tokens + elapsed * 30) - 1
        self._reset_time = max(self._made, self._reset_time)
        if self._reset_tokens < -0.01:
            self.complain("more resets than 500 and 30 a second", number)
        if code not in (f.CANCEL, f.NO_ERROR, f.REFUSED_STREAM) and not stream.served.crime and not self.crimes:
            self.complain(f"RST_STREAM with code {code}, and nothing was wrong", number)
        stream.served.aborted = code
        was_open = not stream.reset_by
        if was_open:
            stream.reset_by = "client"
            stream.client_open = False
            self.live.pop(number, None)
            if not stream.ignored:
                self.on_reset(stream, now)

    def _settings(self, flags: int, payload: bytes, now: float) -> None:
        if flags & f.ACK:
            if payload or not self.unacknowledged:
                self.complain("SETTINGS ACK with a payload" if payload else "SETTINGS ACK, and none is due")
                return
            self._apply_ours(self.unacknowledged.popleft(), now)
            return
        self.client_settings += 1
        if len(payload) % 6:
            self.complain(f"SETTINGS of {len(payload)} bytes")
            return
        for key, value in f.parse_settings(payload):
            if (
                (key in (f.ENABLE_PUSH, f.ENABLE_CONNECT, f.NO_PRIORITIES) and value > 1)
                or (key == f.INITIAL_WINDOW and value > f.MAX_WINDOW)
                or (key == f.MAX_FRAME and not 16384 <= value <= 2**24 - 1)
            ):
                self.complain(f"setting {key} = {value}")
            if key == f.INITIAL_WINDOW:
                for stream in self.live.values():
                    stream.send_window += value - self.client[key]
            if key == f.TABLE_SIZE:
                self.encoder.header_table_size = min(value, 4096)
                changes = self.encoder.table_size_changes
                if len(changes) > 1:  # told are the smallest and the last (RFC 7541 §4.2)
                    changes[:] = sorted({min(changes), changes[-1]})
                self.encoder.header_table.resized = bool(changes)  # hpack forgets it when the last change was none
            self.client[key] = value
        if "settings_ack" not in self.habits.withhold:
            self._acknowledge(f.frame(f.SETTINGS, f.ACK, 0), now)
        self.on_window(now)

    def _acknowledge(self, data: bytes, now: float) -> None:
        if self.habits.ack_pause or self.acks_due:
            self.acks_due.append((now + self.habits.ack_pause, data))
            self.later(now + self.habits.ack_pause, "ack")
        else:
            self._acknowledge_now(data)

    def _acknowledge_now(self, data: bytes) -> None:
        self.emit(data)
        if data[3] == f.PING:
            self.ping_answered_at = self.put

    def _apply_ours(self, values: dict[int, int], now: float) -> None:
        for key, value in values.items():
            if key == f.INITIAL_WINDOW:
                for stream in self.streams.values():
                    stream.receive_window += value - self.ours[key]
            if key == f.TABLE_SIZE:
                self._table_floor = min(self._table_floor, value)
                self.decoder.max_allowed_table_size = value
            self.ours[key] = value

    def _ping(self, flags: int, payload: bytes, now: float) -> None:
        if not flags & f.ACK:
            if self.ping_answered_at > self._known >= 0:
                self.complain("a second PING before the first was answered")
            self.ping_answered_at = INFINITY
            if "ping_ack" not in self.habits.withhold:
                self._acknowledge(f.frame(f.PING, f.ACK, 0, payload), now)
        elif not self.pings or self.pings.popleft() != payload:
            self.complain("a PING ACK that was not due, or is not the next")

    def _goaway(self, payload: bytes) -> None:
        if len(payload) < 8:
            self.complain("GOAWAY too short")
            return
        code = f.u32(payload, 4)
        self.client_goaway = code
        if code and not self.crimes and not any(served.crime for served in self.requests.values()):
            self.complain(f"GOAWAY with code {code} and {payload[8:]!r}, and nothing was wrong")
        self.closing = True

    def _window_update(self, number: int, size: int) -> None:
        if size == 0:
            self.complain("WINDOW_UPDATE of 0", number)
            return
        if number == 0:
            self.send_window += size
            if self.send_window > f.MAX_WINDOW:
                self.complain("WINDOW_UPDATE overflows the connection window")
        else:
            stream = self.streams.get(number)
            if stream is None:
                self.complain("WINDOW_UPDATE on an idle stream", number)
                return
            if stream.reset_by == "client":
                self.complain("WINDOW_UPDATE on a stream that the client has reset", number)
            elif 0 <= stream.over_at <= self._known_before:
                self.complain("WINDOW_UPDATE on a stream that the client knows to be over", number)
            stream.send_window += size
            if stream.send_window > f.MAX_WINDOW:
                self.complain("WINDOW_UPDATE overflows the stream window", number)
        self.on_window(self.now)

    # --- credit for what the client sends

    def _owe_connection(self, size: int, now: float) -> None:
        habit = self.habits.credit
        self.credit_due += size
        if habit == "eager" or (habit in ("lazy", "tiny", "never") and self.credit_due >= 30000):
            self._credit_connection()
        elif habit == "slow":
            self.later(now + self.habits.credit_pause, "credit")

    def _owe_stream(self, stream: Stream, size: int, now: float) -> None:
        habit = self.habits.credit
        stream.credit_due += size
        if habit in ("eager", "tiny") or (habit == "lazy" and stream.receive_window * 2 <= self.ours[f.INITIAL_WINDOW]):
            self._credit_stream(stream)
        elif habit == "slow":
            self.later(now + self.habits.credit_pause, "credit", stream.id)

    def _credit_connection(self) -> None:
        if self.credit_due:
            size, self.credit_due = self.credit_due, 0
            self.receive_window += size
            self.emit(f.window_update(0, size))

    def _credit_stream(self, stream: Stream) -> None:
        if stream.credit_due and stream.open and stream.client_open:
            size, stream.credit_due = stream.credit_due, 0
            stream.receive_window += size
            if self.habits.credit == "tiny" and size > 2:
                self.emit(f.window_update(stream.id, 1))
                size -= 1
            self.emit(f.window_update(stream.id, size))

    # --- the end of a stream

    def _forget_if_over(self, stream: Stream) -> None:
        if stream.reset_by or not (stream.client_open or stream.server_open):
            self.live.pop(stream.id, None)

    # --- what the answering half does with it

    def on_request(self, stream: Stream, fields: list[tuple[bytes, bytes]], now: float) -> None: ...

    def on_content(self, stream: Stream, now: float) -> None: ...

    def on_end(self, stream: Stream, now: float) -> None: ...

    def on_reset(self, stream: Stream, now: float) -> None: ...

    def on_window(self, now: float) -> None: ...
