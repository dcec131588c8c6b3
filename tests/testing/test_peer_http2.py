"""The peer's HTTP/2: windows, slots and tables, against h2; and what it says about clients that break the rules."""

import hashlib
import os

import h2.connection
import h2.events
import pytest
from h2.settings import SettingCodes
from hpack import Encoder

from calamint.core import frames
from calamint.core.errors import CANCEL, REFUSED_STREAM
from calamint.core.value import INFINITY
from calamint.testing import (
    Options,
    PeerConnection,
    answer,
    drip,
    forget,
    reset,
)
from tests.testing.clients import GET, H2, POST, START


def test_content_waits_for_the_clients_windows() -> None:
    pair = H2([answer(content=b"a" * 50_000), answer(content=b"b" * 50_000)])
    pair.client.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 20_000})
    refs = [pair.request(), pair.request()]
    assert [len(pair.content(ref)) for ref in refs] == [20_000, 20_000]
    pair.client.increment_flow_control_window(20_000, refs[0])
    pair.exchange()
    assert [len(pair.content(ref)) for ref in refs] == [40_000, 20_000]
    pair.client.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 30_000})
    pair.exchange()
    # Both streams may have 10,000 more; the connection's 65,535 let through only some of it, a frame of each in turn.
    lengths = [len(pair.content(ref)) for ref in refs]
    assert sum(lengths) == 65_535 and min(lengths[0] - 40_000, lengths[1] - 20_000) >= 0
    pair.client.increment_flow_control_window(100_000)
    pair.client.increment_flow_control_window(100_000, refs[1])
    pair.exchange()
    assert [pair.ended(ref) for ref in refs] == [True, True]
    assert pair.content(refs[0]) == b"a" * 50_000 and pair.content(refs[1]) == b"b" * 50_000
    assert (0, refs[0], 20_000) in pair.report.window_updates


def test_frames_are_no_larger_than_the_client_takes_and_streams_take_turns() -> None:
    pair = H2([answer(content=b"a" * 32_000), answer(content=b"b" * 16_000)])
    pair.client.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 0})
    refs = [pair.request(), pair.request()]
    pair.client.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 65_535})
    pair.exchange()
    pieces = [(it.stream_id, len(it.data)) for it in pair.events if isinstance(it, h2.events.DataReceived)]
    assert pieces == [(refs[0], 16_384), (refs[1], 16_000), (refs[0], 15_616)]

    large = H2([answer(content=b"a" * 60_000)])
    large.client.update_settings({SettingCodes.MAX_FRAME_SIZE: 65_536})
    large.exchange()
    ref = large.request()
    assert [len(it.data) for it in large.events if isinstance(it, h2.events.DataReceived)] == [60_000]
    assert large.ended(ref)


def test_a_lowered_window_may_be_negative() -> None:
    pair = H2([answer(content=b"a" * 30_000)])
    pair.client.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 20_000})
    ref = pair.request()
    pair.client.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 5_000})
    pair.exchange()
    pair.client.increment_flow_control_window(15_000, ref)
    pair.exchange()
    assert len(pair.content(ref)) == 20_000
    pair.client.increment_flow_control_window(10_000, ref)
    pair.exchange()
    assert pair.ended(ref)


def test_a_reset_drops_what_was_queued() -> None:
    pair = H2([answer(content=b"a" * 100_000), answer(content=b"b" * 100)])
    first = pair.request()
    assert len(pair.content(first)) == 65_535
    second = pair.request()
    pair.client.reset_stream(first)
    pair.client.increment_flow_control_window(100_000)
    pair.exchange()
    assert len(pair.content(first)) == 65_535 and pair.content(second) == b"b" * 100
    assert pair.report.streams_open == 0


def test_a_drip_waits_for_the_window_too() -> None:
    pair = H2([drip(b"abcdef", piece=3, every=1.0)])
    pair.client.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 2})
    ref = pair.request()
    assert pair.content(ref) == b"ab" and pair.peer.next_timeout() == INFINITY
    pair.wait(5.0)
    pair.client.increment_flow_control_window(100, ref)
    pair.exchange()
    assert pair.content(ref) == b"abc" and pair.peer.next_timeout() == 6.0
    pair.wait(6.0)
    assert pair.ended(ref)


def test_trailers_follow_content_that_had_to_wait() -> None:
    pair = H2([answer(content=b"a" * 70_000, trailers=((b"x-t", b"1"),))])
    ref = pair.request()
    assert not pair.seen(h2.events.TrailersReceived)
    pair.client.increment_flow_control_window(10_000)
    pair.client.increment_flow_control_window(10_000, ref)
    pair.exchange()
    assert pair.seen(h2.events.TrailersReceived) and len(pair.content(ref)) == 70_000


@pytest.mark.parametrize(
    "options", [Options(), Options(initial_window=1000, connection_window=200_000), Options(initial_window=10**6)]
)
def test_content_is_credited(options: Options) -> None:
    content = os.urandom(300_000)
    pair = H2(lambda request: answer(content=hashlib.sha256(request.content).digest()), options)
    pair.exchange()
    ref = pair.client.get_next_available_stream_id()
    pair.client.send_headers(ref, list(POST))
    assert pair.upload(ref, content) == len(content)
    assert pair.content(ref) == hashlib.sha256(content).digest()
    (seen,) = pair.report.requests
    assert (seen.length, seen.sha256, seen.complete) == (300_000, hashlib.sha256(content).hexdigest(), True)
    assert seen.content == content[:65_536]
    assert pair.report.protocol_errors == ()


def test_without_credit_content_gets_stuck() -> None:
    pair = H2(options=Options(initial_window=1000, credit=False))
    pair.exchange()
    ref = pair.client.get_next_available_stream_id()
    pair.client.send_headers(ref, list(POST))
    assert pair.upload(ref, b"x" * 5000) == 1000
    assert pair.report.requests[0].length == 1000 and not pair.report.requests[0].complete


def test_padding_is_credited_and_left_out() -> None:
    pair = H2(lambda request: answer(content=request.content))
    ref = pair.client.get_next_available_stream_id()
    pair.client.send_headers(ref, list(POST))
    for _ in range(400):
        pair.client.send_data(ref, b"x", pad_length=255)
        pair.exchange()
    pair.client.end_stream(ref)
    pair.exchange()
    assert pair.content(ref) == b"x" * 400


def test_the_clients_trailers() -> None:
    pair = H2(lambda request: answer(content=request.content))
    ref = pair.request(POST, b"hello", end=False)
    pair.client.send_headers(ref, [("x-t", "1")], end_stream=True)
    pair.exchange()
    assert pair.content(ref) == b"hello"
    (seen,) = pair.report.requests
    assert seen.trailers == ((b"x-t", b"1"),) and seen.complete and pair.report.protocol_errors == ()


def test_what_it_announces() -> None:
    pair = H2(options=Options(20, 1000, 100_000, 20_000, 0, settings=((0x8, 1),)))
    pair.exchange()
    announced = pair.client.remote_settings
    assert announced.max_concurrent_streams == 20
    assert announced.initial_window_size == 1000
    assert announced.max_frame_size == 20_000
    assert announced.header_table_size == 0
    assert announced.enable_connect_protocol
    assert pair.client.outbound_flow_control_window == 100_000
    assert pair.report.settings[0][0] == 0 and (frames.ENABLE_PUSH, 1) in pair.report.settings[0][1]


@pytest.mark.parametrize("size", [0, 100, 4096, 65_536])
def test_field_tables_of_any_size(size: int) -> None:
    pair = H2(lambda request: answer(fields=request.fields), Options(header_table_size=size))
    pair.client.update_settings({SettingCodes.HEADER_TABLE_SIZE: size})
    for number in range(20):
        fields = [("x-same", "value"), ("x-other", f"{number % 3}"), ("authorization", "secret")]
        ref = pair.request((*GET, *fields))
        (event,) = [it for it in pair.events if isinstance(it, h2.events.ResponseReceived) and it.stream_id == ref]
        assert [(name.encode(), value.encode()) for name, value in fields] == list(event.headers or [])[1:4]
    assert pair.report.protocol_errors == ()


def test_large_field_sections_both_ways() -> None:
    value = os.urandom(9_000).hex()  # more than a frame
    pair = H2(lambda request: answer(fields=request.fields))
    pair.client.local_settings.max_header_list_size = 10**6
    pair.client.decoder.max_header_list_size = 10**6
    ref = pair.request((*GET, ("x-large", value)))
    (event,) = [it for it in pair.events if isinstance(it, h2.events.ResponseReceived) and it.stream_id == ref]
    assert dict(event.headers or [])[b"x-large"] == value.encode()


def test_streams_above_the_limit_are_refused_and_counted() -> None:
    pair = H2([forget()], Options(max_streams=2))
    refs: list[int] = []
    for _ in range(3):  # before the client knows the limit: no mistake
        refs.append(pair.client.get_next_available_stream_id())
        pair.client.send_headers(refs[-1], list(GET), end_stream=True)
    pair.exchange()
    assert [pair.reset(ref) for ref in refs] == [None, None, REFUSED_STREAM]
    report = pair.report
    assert (report.refused, report.streams_open, report.streams_peak, len(report.requests)) == (1, 2, 2, 2)
    assert report.protocol_errors == ()
    block = Encoder().encode(list(GET))
    assert pair.peer.receive(frames.encode_head(7, block, True, 16_384), 0.0) == frames.encode_reset(7, REFUSED_STREAM)
    assert pair.report.refused == 2
    assert pair.report.protocol_errors == ("connection 0: stream 7 is the 3th at once (§5.1.2)",)
    pair.client.reset_stream(refs[0])
    pair.exchange()
    assert pair.report.streams_open == 1
    assert pair.peer.receive(frames.encode_head(9, block, True, 16_384), 0.0) == b""
    assert pair.report.streams_open == 2 and pair.report.refused == 2


def test_no_limit() -> None:
    pair = H2([forget()], Options(max_streams=None))
    for _ in range(150):
        pair.request()
    assert pair.report.streams_open == 150 and pair.report.refused == 0


# What clients do wrong

HEAD = Encoder().encode(list(POST))
OPEN = frames.encode_head(1, HEAD, False, 16_384)
ENDED = frames.encode_head(1, HEAD, True, 16_384)


def head_of(*fields: tuple[str, str]) -> bytes:
    return frames.encode_head(1, Encoder().encode(list(fields)), True, 16_384)


def frame(kind: int, flags: int, ref: int, payload: bytes) -> bytes:
    return frames.encode_header(len(payload), kind, flags, ref) + payload


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (frame(frames.DATA, 0, 1, b"x"), "DATA on stream 1, which is idle"),
        (frame(frames.DATA, 0, 0, b"x"), "DATA on stream 0"),
        (frame(frames.HEADERS, 4, 2, HEAD), "a client's request on stream 2"),
        (frame(frames.HEADERS, 4, 3, HEAD) + OPEN, "HEADERS on stream 1, which is skipped"),
        (frame(frames.HEADERS, 4 | 0x20, 1, b"abc"), "HEADERS too short"),
        (frame(frames.HEADERS, 4, 1, b"\xff\xff\xff\xff\xff\xff\xff"), "COMPRESSION_ERROR"),
        (frame(frames.HEADERS, 0, 1, HEAD) + frames.encode_ping(b"12345678", 0), "PING within a field block"),
        (frame(frames.CONTINUATION, 4, 1, HEAD), "CONTINUATION without HEADERS"),
        (frame(frames.PRIORITY, 0, 1, b"abcd"), "PRIORITY of 4 bytes"),
        (frame(frames.RST_STREAM, 0, 1, b"abcd"), "RST_STREAM on stream 1, which is idle"),
        (OPEN + frame(frames.RST_STREAM, 0, 1, b"abc"), "RST_STREAM of 3 bytes"),
        (frame(frames.SETTINGS, 1, 0, b"abcdef"), "SETTINGS with ACK and 6 bytes"),
        (frame(frames.SETTINGS, 0, 0, b"abcde"), "SETTINGS of 5 bytes"),
        (frame(frames.SETTINGS, 0, 1, b""), "SETTINGS on stream 1"),
        (frames.encode_settings(((frames.ENABLE_PUSH, 2),)), "ENABLE_PUSH=2"),
        (frames.encode_settings(((frames.INITIAL_WINDOW_SIZE, 2**31),)), "INITIAL_WINDOW_SIZE"),
        (frames.encode_settings(((frames.MAX_FRAME_SIZE, 16_383),)), "MAX_FRAME_SIZE=16383"),
        (frame(frames.PUSH_PROMISE, 4, 1, b"abcd" + HEAD), "PUSH_PROMISE from a client"),
        (frame(frames.PING, 0, 0, b"abc"), "PING of 3 bytes"),
        (frame(frames.GOAWAY, 0, 0, b"abc"), "GOAWAY of 3 bytes"),
        (frames.encode_window_update(0, 0), "WINDOW_UPDATE of 0 for the connection"),
        (frames.encode_window_update(0, 2**31 - 1), "FLOW_CONTROL_ERROR"),
        (frames.encode_window_update(1, 1), "WINDOW_UPDATE on stream 1, which is idle"),
        (frame(frames.DATA, 0, 1, b"x" * 16_385), "DATA of 16385 bytes"),
        (OPEN + frame(frames.DATA, 8, 1, b"\x05abc"), "padding"),
        (
            OPEN + frames.encode_window_update(1, 2**30) + frames.encode_settings(((4, 2**31 - 1),)),
            "with a window above 2^31-1",
        ),
        (ENDED * 2, "HEADERS on stream 1, which is ended"),
    ],
)
def test_connection_errors(data: bytes, said: str) -> None:
    peer = PeerConnection([answer()])
    client = h2.connection.H2Connection()
    client.initiate_connection()
    client.send_headers(1, list(GET))
    client.receive_data(peer.receive(START + data, 0.0))
    assert peer.is_closed and client.state_machine.state == h2.connection.ConnectionState.CLOSED
    (error,) = peer.journal.report().protocol_errors
    assert said in error


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (head_of(*GET[:3]), "pseudo-header fields are"),
        (head_of(*GET, (":path", "/")), "the field b':path'"),
        (head_of(("x", "y"), *GET), "the field b':method'"),
        (head_of(*GET, (":status", "200")), "the field b':status'"),
        (head_of(*GET, ("X-Upper", "1")), "the field b'X-Upper'"),
        (head_of(*GET, ("x", " space")), "the field b'x' (§8.2.1)"),
        (head_of(*GET, ("connection", "close")), "the field b'connection' (§8.2.2)"),
        (head_of(*GET, ("te", "gzip")), "the field b'te' (§8.2.2)"),
        (head_of((":method", "CONNECT"), (":authority", "a:1"), (":path", "/")), "pseudo-header fields are"),
        (head_of(*GET, ("content-length", "x")), "content-length [b'x']"),
        (head_of(*GET, ("content-length", "3")), "no content where the content-length is 3"),
        (ENDED + frame(frames.DATA, 0, 1, b"x"), "DATA on stream 1 after END_STREAM"),
        (ENDED + frames.encode_head(1, HEAD, True, 16_384), "HEADERS on stream 1 after END_STREAM"),
        (OPEN + frames.encode_head(1, HEAD, True, 16_384), "malformed trailers on stream 1"),
        (OPEN + frames.encode_window_update(1, 0), "WINDOW_UPDATE of 0 on stream 1"),
        (OPEN + frames.encode_window_update(1, 2**31 - 1), "WINDOW_UPDATE of 2147483647 on stream 1"),
        (OPEN + frame(frames.DATA, 0, 1, b"x" * 16_384) * 5, "above the window of stream 1"),
    ],
)
def test_stream_errors(data: bytes, said: str) -> None:
    peer = PeerConnection([forget()], Options(credit=False, connection_window=200_000))
    out = peer.receive(START + data, 0.0)
    (error,) = peer.journal.report().protocol_errors
    assert said in error
    assert not peer.is_closed and peer.open_streams == 0
    assert out[-13:-4] == frames.encode_header(4, frames.RST_STREAM, 0, 1)


@pytest.mark.parametrize(
    ("content", "said"), [(b"xxxx", "1 bytes above the content-length"), (b"xx", "1 bytes short of the content-length")]
)
def test_content_length_is_checked(content: bytes, said: str) -> None:
    peer = PeerConnection([forget()])
    head = frames.encode_head(1, Encoder().encode([*POST, ("content-length", "3")]), False, 16_384)
    peer.receive(START + head, 0.0)
    peer.receive(frame(frames.DATA, frames.END_STREAM, 1, content), 0.0)
    assert said in peer.journal.report().protocol_errors[0]


def test_the_connections_window_is_checked() -> None:
    peer = PeerConnection([forget()], Options(credit=False, initial_window=10**6))
    data = START + OPEN + frame(frames.DATA, 0, 1, b"x" * 16_384) * 4
    peer.receive(data, 0.0)
    assert "1 bytes above the connection's window" in peer.journal.report().protocol_errors[0] and peer.is_closed


def test_our_settings_bind_the_client_once_it_has_acknowledged_them() -> None:
    start = START
    for acknowledged in (False, True):
        peer = PeerConnection([forget()], Options(initial_window=10, header_table_size=0))
        peer.receive(start + (frames.encode_settings_ack() if acknowledged else b"") + b"", 0.0)
        peer.receive(
            frames.encode_head(1, b"\x20" + HEAD.replace(b"\x44", b"\x04") if acknowledged else HEAD, False, 99), 0
        )
        if acknowledged:
            peer.journal.protocol_errors.clear()
        peer.receive(frame(frames.DATA, 0, 1, b"x" * 11), 0.0)
        assert len(peer.journal.report().protocol_errors) == acknowledged
    peer = PeerConnection([forget()], Options(header_table_size=0))
    peer.receive(start + frames.encode_settings_ack() + OPEN, 0.0)
    assert "no table size update" in peer.journal.report().protocol_errors[0]


def test_late_frames_are_no_mistake_but_frames_after_ones_own_reset_are() -> None:
    late = OPEN + frame(frames.DATA, 0, 1, b"x") + frames.encode_window_update(1, 1) + frames.encode_reset(1, CANCEL)
    peer = PeerConnection([reset(CANCEL, early=True), answer()])
    peer.receive(START + late, 0.0)
    assert peer.journal.report().protocol_errors == ()
    assert peer.journal.report().resets == ((0, 1, CANCEL),)
    after_end = (
        frames.encode_head(3, HEAD, True, 16_384) + frames.encode_window_update(3, 1) + frames.encode_reset(3, 0)
    )
    peer.receive(after_end, 0.0)
    assert peer.journal.report().protocol_errors == () and not peer.is_closed
    own = frames.encode_head(5, HEAD, False, 16_384) + frames.encode_reset(5, CANCEL) + frame(frames.DATA, 0, 5, b"x")
    peer.receive(own, 0.0)
    assert peer.journal.report().protocol_errors == (
        "connection 0: DATA on stream 5, which is reset by the client (§5.1)",
    )


def test_what_is_ignored() -> None:
    peer = PeerConnection()
    ignored = (
        frame(0xFA, 0, 7, b"grease") + frame(frames.PRIORITY, 0, 9, b"abcde") + frames.encode_settings(((0xFA, 1),))
    )
    peer.receive(START + ignored + frames.encode_goaway(0, 2, b"bye"), 0.0)
    report = peer.journal.report()
    assert report.protocol_errors == () and report.goaways == ((0, 0, 2),) and not peer.is_closed


def test_priorities_and_tunnels_are_understood() -> None:
    fields = ((":method", "CONNECT"), (":authority", "a:1"))
    block = Encoder().encode(list(fields))
    peer = PeerConnection([forget()])
    head = frame(frames.HEADERS, 0x4 | 0x8 | 0x20, 1, b"\x02\0\0\0\0\x10" + block + b"\0\0")
    peer.receive(START + head, 0.0)
    (seen,) = peer.journal.report().requests
    assert (seen.method, seen.target, seen.authority) == ("CONNECT", "a:1", "a:1")
    assert peer.journal.report().protocol_errors == ()
