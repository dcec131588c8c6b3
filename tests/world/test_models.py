"""The model servers against clients written by others: h2 and h11. Then against bytes that break the RFC."""

from random import Random

import h2.config
import h2.connection
import h2.events
import h2.settings
import h11
import pytest
from hpack import Encoder

from tests.world import model_frames as f
from tests.world.link import Clock, Path, Pipe
from tests.world.model_acts import KIND, misbehave
from tests.world.model_http1 import Http1Model
from tests.world.model_http2 import Http2Model
from tests.world.plans import Habits, pattern, request_key

KIND_HABITS = Habits(
    early=0.1,
    drip=0.2,
    interim=0.2,
    trailers=0.2,
    padding=0.2,
    dynamic=0.5,
    split=0.2,
    after=0.2,
    sizes=(0, 1, 300, 70000),
)


class H2Client:
    """h2, which credits all that it receives, and the model, with nothing between them but a clock."""

    def __init__(self, model: Http2Model) -> None:
        self.model = model
        self.clock = Clock()
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding=None))
        self.h2.initiate_connection()
        self.events: list[h2.events.Event] = []
        self.waiting: dict[int, tuple[int, int]] = {}  # stream: (key, content sent), with content still to be sent
        self.sizes: dict[int, int] = {}

    def request(self, key: int, size: int = 0, **fields: str) -> int:
        stream = self.h2.get_next_available_stream_id()
        head = [
            (":method", "POST" if size else "GET"),
            (":scheme", "https"),
            (":authority", "a.test"),
            (":path", f"/{key}"),
        ]
        head += [(name.replace("_", "-"), value) for name, value in fields.items()]
        self.h2.send_headers(stream, head, end_stream=not size)
        if size:
            self.waiting[stream], self.sizes[stream] = (key, 0), size
        return stream

    def _upload(self) -> None:
        for stream, (key, sent) in list(self.waiting.items()):
            size = self.sizes[stream]
            while sent < size:
                room = min(self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size, size - sent)
                if room <= 0:
                    break
                self.h2.send_data(stream, pattern(key, sent, room), end_stream=sent + room == size)
                sent += room
            self.waiting[stream] = (key, sent)
            if sent == size:
                del self.waiting[stream]

    def run(self, seconds: float = 600.0) -> list[h2.events.Event]:
        """Until nothing moves for a while."""
        end = self.clock.now + seconds
        seen = len(self.events)
        while True:
            self._upload()
            data = self.h2.data_to_send()
            if data:
                self.model.receive(data, self.clock.now)
            out = self.model.take(1 << 20)
            if out:
                for event in self.h2.receive_data(out):
                    self.events.append(event)
                    if isinstance(event, h2.events.DataReceived) and event.flow_controlled_length:
                        self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                    if isinstance(event, (h2.events.StreamReset, h2.events.StreamEnded)):
                        self.waiting.pop(event.stream_id, None)
            elif not data:
                following = self.model.next_timeout()
                if following > end:
                    return self.events[seen:]
                self.clock.advance(following)
                self.model.tick(self.clock.now)


@pytest.mark.parametrize("credit", ["eager", "lazy", "tiny", "slow"])
@pytest.mark.parametrize("seed", range(2))
def test_an_http2_model_serves_h2(seed: int, credit: str) -> None:
    KIND_HABITS.credit = credit
    model = Http2Model(Random(seed), KIND_HABITS)
    client = H2Client(model)
    streams: dict[int, int] = {}
    for key in range(30):
        size = (0, 0, 100, 100_000)[key % 4]
        streams[client.request(key, size)] = key
        if key % 7 == 0:
            for name in KIND:
                value = {
                    "settings_window": 70_000 - 2000 * key,
                    "settings_several": 30_000,
                    "settings_concurrent": 99,
                }.get(name, 5)
                misbehave(model, name, value, client.clock.now)
            client.run(0.01)
    events = client.run()
    assert model.violations == []
    assert model.unsettled(client.clock.now) == []
    received: dict[int, bytes] = dict.fromkeys(streams, b"")
    for event in client.events:
        if isinstance(event, h2.events.DataReceived):
            received[event.stream_id] += event.data
    for stream, key in streams.items():
        served = model.requests[key]
        assert served.acted and served.ended, served
        assert received[stream] == pattern(key, 0, served.sent)
    assert {event.stream_id for event in client.events if isinstance(event, h2.events.StreamEnded)} == set(streams)
    assert len(model.live) == 0
    assert model.receive_window - model.credit_due == client.h2.outbound_flow_control_window - model.credit_due
    assert events


def test_a_model_refuses_resets_and_forgets() -> None:
    model = Http2Model(Random(1), Habits(refuse=0.3, reset=0.3, forget=0.3))
    client = H2Client(model)
    streams = {client.request(key): key for key in range(60)}
    events = client.run()
    resets = {event.stream_id: event.error_code for event in events if isinstance(event, h2.events.StreamReset)}
    for stream, key in streams.items():
        served = model.requests[key]
        assert served.code == resets.get(stream)
        if served.code == f.REFUSED_STREAM:
            assert not served.acted
    assert f.REFUSED_STREAM in resets.values() and len(set(resets.values())) > 3
    forgotten = [number for number, stream in model.streams.items() if stream.open]
    assert forgotten and set(forgotten) == set(model.live)
    for number in forgotten:
        client.h2.reset_stream(number, 8)
    client.run()
    assert not model.live and model.violations == []
    assert all(served.aborted is None or served.aborted == 8 for served in model.requests.values())


def _raw(*frames: bytes, settings: dict[int, int] | None = None) -> Http2Model:
    model = Http2Model(Random(1), Habits(settings=settings or {}, credit="slow"))
    ack = f.frame(f.SETTINGS, f.ACK, 0)
    model.receive(f.PREFACE + f.frame(f.SETTINGS, 0, 0) + ack + b"".join(frames), 1.0)
    return model


def _request(number: int, key: int, *extra: tuple[str, str], flags: int = 5) -> bytes:
    block = Encoder().encode(
        [(":method", "GET"), (":scheme", "http"), (":path", f"/{key}"), (":authority", "a"), *extra]
    )
    return f.frame(f.HEADERS, flags, number, block)


GOOD = _request(1, 1)
OFFENCES = {
    "no preface": lambda: _only(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"),
    "not SETTINGS": lambda: _only(f.PREFACE + f.frame(f.PING, 0, 0, bytes(8))),
    "overruns the stream window": lambda: _raw(_request(1, 1, flags=4), *[_content(1, n) for n in range(5)]),
    "overruns the connection window": lambda: _raw(_request(1, 1, flags=4), *[_content(1, n) for n in range(5)]),
    "idle stream": lambda: _raw(f.frame(f.DATA, 0, 5, b"x")),
    "has ended": lambda: _raw(GOOD, f.frame(f.DATA, 0, 1, b"x")),
    "that the client has reset": lambda: _raw(_request(1, 1, flags=4), f.rst_stream(1, 8), f.frame(f.DATA, 0, 1, b"x")),
    "second RST_STREAM": lambda: _raw(GOOD, f.rst_stream(1, 8), f.rst_stream(1, 8)),
    "nothing was wrong": lambda: _raw(GOOD, f.rst_stream(1, 1)),
    "GOAWAY with code 1": lambda: _raw(f.goaway(0, 1)),
    "2 streams at once": lambda: _raw(GOOD, _request(3, 3), settings={f.MAX_CONCURRENT: 1}),
    "WINDOW_UPDATE of 0": lambda: _raw(f.window_update(0, 0)),
    "overflows the connection": lambda: _raw(f.window_update(0, f.MAX_WINDOW)),
    "does not decode": lambda: _raw(f.frame(f.HEADERS, 5, 1, b"\xff\xff\xff\xff")),
    "no table size update": lambda: _raw(GOOD, settings={f.TABLE_SIZE: 0}),
    "field name": lambda: _raw(_request(1, 1, ("connection", "close"))),
    "pseudo-fields": lambda: _raw(_request(1, 1, (":sort", "x"))),
    "content-length 5": lambda: _raw(_request(1, 1, ("content-length", "5"))),
    "came twice": lambda: _raw(GOOD, _request(3, 1)),
    "open stream": lambda: _raw(_request(5, 1), _request(3, 2)),
    "none is due": lambda: _raw(f.frame(f.SETTINGS, f.ACK, 0)),
    "was not due": lambda: _raw(f.frame(f.PING, f.ACK, 0, bytes(8))),
    "inside a field block": lambda: _raw(_request(1, 1, flags=1), f.frame(f.PING, 0, 0, bytes(8))),
    "setting 2": lambda: _raw(f.frame(f.SETTINGS, 0, 0, f.encode_settings({2: 7}))),
    "empty DATA": lambda: _raw(_request(1, 1, flags=4), f.frame(f.DATA, 0, 1)),
    "content differs": lambda: _raw(_request(1, 1, flags=4), f.frame(f.DATA, 0, 1, b"x")),
    "more resets": lambda: _raw(*[_request(n, n) + f.rst_stream(n, 8) for n in range(1, 1010, 2)]),
    "of 7 bytes": lambda: _raw(f.frame(f.PING, 0, 0, bytes(7))),
    "16385 bytes": lambda: _raw(f.frame(0xAA, 0, 0, bytes(16385))),
}


def _only(data: bytes) -> Http2Model:
    model = Http2Model(Random(1), Habits())
    model.receive(data, 1.0)
    return model


def _content(key: int, number: int) -> bytes:
    return f.frame(f.DATA, 0, 1, pattern(key, number * 16000, 16000))


@pytest.mark.parametrize("offence", OFFENCES)
def test_an_offence_is_noticed(offence: str) -> None:
    model = OFFENCES[offence]()
    assert any(offence in violation for violation in model.violations), model.violations


def test_what_a_client_knows_decides_whether_a_reset_is_one_too_many() -> None:
    for delivered, violations in ((0, 0), (10_000, 1)):
        model = Http2Model(Random(1), Habits())
        start = f.PREFACE + f.frame(f.SETTINGS, 0, 0) + f.frame(f.SETTINGS, f.ACK, 0) + GOOD
        model.note_sent(len(start), 0, 0, 1.0)
        model.receive(start, 1.0)
        model.tick(2.0)
        assert model.take(1 << 20) and model.requests[1].ended
        reset = f.rst_stream(1, f.CANCEL)
        model.note_sent(len(reset), delivered, delivered, 2.0)
        model.receive(reset, 3.0)
        assert len(model.violations) == violations, model.violations


@pytest.mark.parametrize("seed", range(8))
def test_an_http1_model_serves_h11(seed: int) -> None:
    habits = Habits(drip=0.2, interim=0.2, trailers=0.3, padding=0.3, close=0.1, sizes=(0, 1, 300, 70000))
    model, client = Http1Model(Random(seed), habits), h11.Connection(h11.CLIENT)
    now = 1.0
    for key in range(20):
        size = (0, 100, 100_000)[key % 3]
        framing = ("content-length", str(size)) if key % 2 else ("transfer-encoding", "chunked")
        fields = [("host", "a.test")] + ([framing] if size else [])
        data = client.send(h11.Request(method="POST" if size else "GET", target=f"/{key}", headers=fields)) or b""
        data += client.send(h11.Data(data=pattern(key, 0, size))) if size else b""
        data += client.send(h11.EndOfMessage()) or b""
        model.receive(data[:1000], now)
        model.receive(data[1000:], now)
        content = b""
        while True:
            event = client.next_event()
            if isinstance(event, h11.Data):
                content += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                break
            elif event is h11.NEED_DATA:
                out = model.take(5000)
                if not out and not model.closing:
                    now = model.next_timeout()
                    assert now < 1e9, "the model forgot"
                    model.tick(now)
                elif out or model.closing:
                    client.receive_data(out)
        served = model.requests[key]
        assert served.ended and served.complete and served.received == size
        assert content == pattern(key, 0, served.sent)
        if client.our_state is h11.MUST_CLOSE or model.closing:
            break
        client.start_next_cycle()
    assert model.violations == []


def test_a_pipe_cuts_and_joins_and_loses_nothing() -> None:
    rng = Random(3)
    for _ in range(50):
        pipe = Pipe(Path(latency=0.1, bandwidth=1000.0, capacity=500, cut=0.5, largest=50), rng)
        sent, got, now = rng.randbytes(3000), b"", 0.0
        at = 0
        while len(got) < len(sent):
            at += pipe.write(sent[at : at + rng.randint(1, 200)], now)
            if rng.random() < 0.1:
                pipe.stall(now + 1.0)
            now = max(now, pipe.next_arrival())
            got += pipe.read(now, 300)
            assert 0 <= pipe.held <= 500
        assert got == sent
        assert now > 3.1, "bandwidth and latency"
        pipe.finish(now)
        assert pipe.end_arrival() < now + 2


def test_a_dead_pipe_swallows_and_a_target_names_its_request() -> None:
    pipe = Pipe(Path(capacity=100), Random(1))
    pipe.die()
    assert pipe.write(bytes(200), 0.0) == 100
    assert pipe.write(bytes(200), 0.0) == 0 and pipe.next_arrival() > 1e9
    assert [request_key(target) for target in ("/7", "/8?x=1", "host9.test:443", "*", "/")] == [7, 8, 9, None, None]
