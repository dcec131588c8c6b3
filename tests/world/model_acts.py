"""Misbehaviour by name, on the whole connection: what a script tells an HTTP/2 model server to do at some moment."""

from collections.abc import Callable

from tests.world import model_frames as f
from tests.world.model_http2 import Http2Model

Act = Callable[[Http2Model, int, float], None]


# --- within the RFC: the client has to cope, and the connection lives


def settings_concurrent(model: Http2Model, value: int, now: float) -> None:
    model.announce({f.MAX_CONCURRENT: value})


def settings_window(model: Http2Model, value: int, now: float) -> None:
    """Kept below where windows granted so far would pass 2^31-1 (RFC 9113 §6.9.2)."""
    model.announce({f.INITIAL_WINDOW: value})


def settings_table(model: Http2Model, value: int, now: float) -> None:
    model.announce({f.TABLE_SIZE: value})


def settings_frame(model: Http2Model, value: int, now: float) -> None:
    model.announce({f.MAX_FRAME: max(16384, value)})


def settings_several(model: Http2Model, value: int, now: float) -> None:
    """Some at once, one of them unknown (RFC 9113 §6.5.2: to be ignored), one twice."""
    model.announce({f.TABLE_SIZE: value % 5000, 0x0A0A: value, f.INITIAL_WINDOW: value % 200_000})
    model.announce({})
    model.announce({f.TABLE_SIZE: 4096})


def ping(model: Http2Model, value: int, now: float) -> None:
    for number in range(max(1, value)):
        payload = (len(model.pings) * 1000 + number).to_bytes(8, "big")
        model.pings.append(payload)
        model.emit(f.frame(f.PING, 0, 0, payload))


def unknown(model: Http2Model, value: int, now: float) -> None:
    for number in range(max(1, value)):
        model.emit(f.frame(0x20 + number % 50, number & 0xFF, number % 3, bytes(number % 300)))


def priority(model: Http2Model, value: int, now: float) -> None:
    for number in range(max(1, value)):
        model.emit(f.frame(f.PRIORITY, 0, 1 + 2 * (number % 50), bytes(5)))


def goaway_warn(model: Http2Model, value: int, now: float) -> None:
    """The first of two (RFC 9113 §6.8): no new streams, and every one so far will be handled."""
    if model.goaway_last is None:
        model.goaway_last = f.MAX_WINDOW
        model.emit(f.goaway(f.MAX_WINDOW, f.NO_ERROR))
        model.goaway_at = model.put


def goaway(model: Http2Model, value: int, now: float) -> None:
    """With an odd `value` the streams that nothing was done for yet will not be handled (those above the last id)."""
    last = model.last_id
    if value % 2:
        last = max((number for number, each in model.streams.items() if each.served.acted and number % 2), default=0)
    if model.goaway_last is not None:
        last = min(last, model.goaway_last)
    for number in [number for number in model.live if number > last and number % 2]:
        model.live.pop(number).ignored = True
    model.emit(f.goaway(last, f.NO_ERROR, b"bye"))
    model.goaway_last = last
    if model.goaway_at < 0:
        model.goaway_at = model.put


def goaway_error(model: Http2Model, value: int, now: float) -> None:
    """An error GOAWAY, and the end of the connection."""
    model.emit(f.goaway(model.last_id, f.INTERNAL_ERROR, b"oops"))
    model.goaway_last = model.last_id
    model.goaway_at = model.put
    model.crimes.append("error GOAWAY")
    model.closing = True


def reset_some(model: Http2Model, value: int, now: float) -> None:
    for stream in list(model.live.values())[: max(1, value)]:
        if not stream.pushed and stream.server_open:
            code = value % 14
            model.reset(stream, f.CANCEL if code == f.REFUSED_STREAM and stream.served.acted else code, now)


def forget_some(model: Http2Model, value: int, now: float) -> None:
    """A handler dies: nothing more comes on these streams."""
    for stream in list(model.live.values())[: max(1, value)]:
        stream.forgotten = True


def forget_all(model: Http2Model, value: int, now: float) -> None:
    model.forgotten = True


def remember(model: Http2Model, value: int, now: float) -> None:
    model.forgotten = False


def stop_reading(model: Http2Model, value: int, now: float) -> None:
    model.reading = False
    model.later(now + value, "read")


def extra_window(model: Http2Model, value: int, now: float) -> None:
    """Credit that nobody asked for, as far as it may go."""
    if model.receive_window + value <= f.MAX_WINDOW:
        model.receive_window += value
        model.emit(f.window_update(0, value))
    for stream in model.live.values():
        if stream.client_open and not stream.pushed and stream.receive_window + value < 2**29:
            stream.receive_window += value
            model.emit(f.window_update(stream.id, value))


def close(model: Http2Model, value: int, now: float) -> None:
    """The end of the connection without a word."""
    model.crimes.append("closed")
    model.closing = True


# --- against the RFC: the connection may end, and every request with it


def _crime(name: str, data: Callable[[Http2Model, int], bytes]) -> Act:
    def act(model: Http2Model, value: int, now: float) -> None:
        model.crimes.append(name)
        model.emit(data(model, value))

    return act


def _idle(model: Http2Model) -> int:
    return (model.last_id | 1) + 1000


def _settings(key: int, value: int) -> bytes:
    return f.frame(f.SETTINGS, 0, 0, f.encode_settings({key: value}))


CRIMES: dict[str, Act] = {
    "data_on_idle": _crime("DATA on an idle stream", lambda m, v: f.frame(f.DATA, 0, _idle(m), b"x")),
    "head_on_idle": _crime("HEADERS on an idle stream", lambda m, v: f.frame(f.HEADERS, 5, _idle(m), b"\x88")),
    "reset_on_idle": _crime("RST_STREAM on an idle stream", lambda m, v: f.rst_stream(_idle(m), 8)),
    "window_on_idle": _crime("WINDOW_UPDATE on an idle stream", lambda m, v: f.window_update(_idle(m), 8)),
    "data_on_zero": _crime("DATA on stream 0", lambda m, v: f.frame(f.DATA, 0, 0, b"x")),
    "head_on_even": _crime("HEADERS on a stream never promised", lambda m, v: f.frame(f.HEADERS, 5, 1000, b"\x88")),
    "window_zero": _crime("WINDOW_UPDATE of 0", lambda m, v: f.window_update(0, 0)),
    "window_over": _crime("the connection window overflows", lambda m, v: f.window_update(0, f.MAX_WINDOW) * 2),
    "big_frame": _crime("a frame too large", lambda m, v: f.frame(f.DATA, 0, 1, bytes(m.client[f.MAX_FRAME] + 1))),
    "short_ping": _crime("PING of 7 bytes", lambda m, v: f.frame(f.PING, 0, 0, bytes(7))),
    "short_reset": _crime("RST_STREAM of 3 bytes", lambda m, v: f.frame(f.RST_STREAM, 0, 1, bytes(3))),
    "odd_settings": _crime("SETTINGS of 7 bytes", lambda m, v: f.frame(f.SETTINGS, 0, 0, bytes(7))),
    "ack_with_payload": _crime("SETTINGS ACK with a payload", lambda m, v: f.frame(f.SETTINGS, 1, 0, bytes(6))),
    "bad_window": _crime("INITIAL_WINDOW_SIZE of 2^31", lambda m, v: _settings(f.INITIAL_WINDOW, 2**31)),
    "bad_frame_size": _crime("MAX_FRAME_SIZE of 100", lambda m, v: _settings(f.MAX_FRAME, 100)),
    "bad_push": _crime("ENABLE_PUSH of a server", lambda m, v: _settings(f.ENABLE_PUSH, 1)),
    "lone_continuation": _crime("CONTINUATION alone", lambda m, v: f.frame(f.CONTINUATION, 4, 1, b"\x88")),
    "broken_block": _crime(
        "a frame inside a field block", lambda m, v: f.frame(f.HEADERS, 0, 1, b"\x88") + f.frame(f.PING, 0, 0, bytes(8))
    ),
    "bad_hpack": _crime(
        "a block that does not decode", lambda m, v: f.frame(f.HEADERS, 4, max(1, m.last_id), b"\xff" * 9)
    ),
    "table_over": _crime(
        "a table larger than allowed", lambda m, v: f.frame(f.HEADERS, 4, max(1, m.last_id), b"\x3f\xe1\xff\x03\x88")
    ),
    "promise": _crime(
        "PUSH_PROMISE on stream 0", lambda m, v: f.frame(f.PUSH_PROMISE, 4, 0, b"\0\0\0\x02\x82\x84\x87\x41\x01a")
    ),
    "goaway_up": _crime("a last id that rises", lambda m, v: f.goaway(1, 0) + f.goaway(7, 0)),
    "text": _crime("not HTTP/2 at all", lambda m, v: b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n"),
    "garbage": _crime("any bytes", lambda m, v: m.rng.randbytes(9 + v % 500)),
}


def _flood(name: str, data: Callable[[Http2Model], bytes]) -> Act:
    """So much of something that means nothing that no client should go on with it."""

    def act(model: Http2Model, value: int, now: float) -> None:
        model.crimes.append(f"a flood of {name}")
        model.flooded += 2500
        model.emit(data(model) * 2500)

    return act


def _closed(model: Http2Model) -> int:
    """A stream that is over, if there is one, or any that was opened."""
    return next((number for number in model.streams if number % 2 and number not in model.live), max(1, model.last_id))


FLOODS: dict[str, Act] = {
    "flood_ping": _flood("PING", lambda m: f.frame(f.PING, 0, 0, bytes(8))),
    "flood_settings": _flood("SETTINGS", lambda m: f.frame(f.SETTINGS, 0, 0)),
    "flood_window": _flood("WINDOW_UPDATE", lambda m: f.window_update(0, 1)),
    "flood_unknown": _flood("unknown frames", lambda m: f.frame(0xEE, 0, 0)),
    "flood_priority": _flood("PRIORITY", lambda m: f.frame(f.PRIORITY, 0, 1, bytes(5))),
    "flood_reset": _flood("RST_STREAM", lambda m: f.rst_stream(_closed(m), 8)),
    "flood_data": _flood("empty DATA", lambda m: f.frame(f.DATA, 0, _closed(m))),
    "flood_heads": _flood("HEADERS", lambda m: f.frame(f.HEADERS, 4, _closed(m), b"\x88")),
    "flood_interim": _flood("103", lambda m: f.frame(f.HEADERS, 4, max(1, m.last_id), b"\x08\x03103")),
    "flood_goaway": _flood("GOAWAY", lambda m: f.goaway(f.MAX_WINDOW, 0)),
}
CRIMES.update(FLOODS)

KIND: dict[str, Act] = {
    "settings_concurrent": settings_concurrent,
    "settings_window": settings_window,
    "settings_table": settings_table,
    "settings_frame": settings_frame,
    "settings_several": settings_several,
    "ping": ping,
    "unknown": unknown,
    "priority": priority,
    "extra_window": extra_window,
}

ROUGH: dict[str, Act] = {
    "goaway_warn": goaway_warn,
    "goaway": goaway,
    "goaway_error": goaway_error,
    "reset_some": reset_some,
    "forget_some": forget_some,
    "forget_all": forget_all,
    "remember": remember,
    "stop_reading": stop_reading,
    "close": close,
}


def misbehave(model: Http2Model, name: str, value: int, now: float) -> None:
    act = KIND.get(name) or ROUGH.get(name) or CRIMES[name]
    act(model, value, now)
