"""The scripted peer, driven by other people's clients: h2 and h11 in memory and with virtual time, http.client and raw sockets."""

import hashlib
import http.client
import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h11
import pytest
import trustme
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from hpack import Encoder

from calamint import testing
from calamint.core import frames, http2
from calamint.core.errors import CANCEL, NO_ERROR, PROTOCOL_ERROR, REFUSED_STREAM
from calamint.core.events import DataReceived, ResponseEnded, ResponseReceived
from calamint.core.exchange import Settings
from calamint.core.url import Origin
from calamint.core.value import INFINITY
from calamint.testing import (
    Action,
    Journal,
    Options,
    PeerConnection,
    Request,
    Script,
    ScriptedPeer,
    answer,
    close,
    delay,
    drip,
    forget,
    garbage,
    goaway,
    refuse,
    reset,
    stop_reading,
)

GET = ((":method", "GET"), (":scheme", "http"), (":authority", "test"), (":path", "/"))
POST = ((":method", "POST"), *GET[1:])


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


# What a script says


def test_the_nth_request_gets_the_nth_action_and_the_last_one_repeats() -> None:
    journal = Journal()
    script = [answer(content=b"0"), answer(content=b"1"), answer(404, content=b"2")]
    first, second = H2(script, journal=journal), H11(script, journal=journal)
    refs = [first.request()]
    second.request()
    refs += [first.request(), first.request()]
    assert [first.content(ref) for ref in refs] == [b"0", b"2", b"2"]
    assert first.status(refs[1]) == b"404"
    assert second.response()[2] == b"1"
    assert [(it.number, it.connection, it.stream_id) for it in journal.report().requests] == [
        (0, 0, 1),
        (1, 1, 0),
        (2, 0, 3),
        (3, 0, 5),
    ]


def test_without_a_script_everything_is_answered() -> None:
    pair = H2()
    ref = pair.request()
    assert (pair.status(ref), pair.content(ref), pair.ended(ref)) == (b"200", b"ok", True)


def test_a_function_sees_the_request() -> None:
    seen: list[Request] = []

    def script(request: Request) -> Action:
        seen.append(request)
        return answer(content=request.content.upper())

    pair = H2(script)
    ref = pair.request((*POST, ("x-a", "1")), b"hello")
    assert pair.content(ref) == b"HELLO"
    assert [it.complete for it in seen] == [False, True]  # at the head, and with the content
    fields = ((b"x-a", b"1"),)
    assert seen[1] == Request(0, 0, 1, "POST", "/", "test", fields, b"hello", True)
    old = H11(script)
    old.request("POST", (("Content-Length", "5"), ("X-A", "1")), b"hello")
    assert old.response()[2] == b"HELLO"
    assert seen[3].fields == ((b"Host", b"test"), (b"Content-Length", b"5"), (b"X-A", b"1"))
    assert (seen[3].stream_id, seen[3].authority, seen[3].method) == (0, "test", "POST")


def test_what_a_function_raises_is_kept_and_answered_with_500() -> None:
    pair = H2(lambda request: [][request.number])
    ref = pair.request()
    assert pair.status(ref) == b"500"
    assert b"IndexError" in pair.content(ref)
    (error,) = pair.report.script_errors
    assert isinstance(error, IndexError)
    assert isinstance(H2_with_nonsense().script_errors[0], TypeError)


def H2_with_nonsense() -> testing.Report:
    pair = H2(lambda request: "no action")  # type: ignore[arg-type,return-value]
    pair.request()
    return pair.report


def test_actions_are_values() -> None:
    assert delay(1, answer() + close()) == delay(1, answer() + close())
    assert hash(drip(b"abc")) == hash(drip(b"abc"))
    assert (answer(early=True) + close()).early
    with pytest.raises(ValueError, match="piece=0"):
        drip(b"abc", piece=0)


# answer


def test_answer() -> None:
    action = answer(
        201, ((b"x-a", b"1"),), b"hello", trailers=((b"x-t", b"2"),), interim=((103, ((b"link", b"</a>"),)), (102, ()))
    )
    pair = H2([action])
    ref = pair.request()
    names = [type(event).__name__ for event in pair.events]
    assert names[-6:] == [
        "InformationalResponseReceived",
        "InformationalResponseReceived",
        "ResponseReceived",
        "DataReceived",
        "TrailersReceived",
        "StreamEnded",
    ]
    assert pair.content(ref) == b"hello"
    assert pair.peer.open_streams == 0

    old = H11([action])
    old.request()
    early, processing, head, data, end = old.events()
    assert isinstance(early, h11.InformationalResponse) and isinstance(processing, h11.InformationalResponse)
    assert early.status_code == 103 and list(early.headers) == [(b"link", b"</a>")]
    assert isinstance(head, h11.Response) and head.status_code == 201
    assert list(head.headers) == [(b"x-a", b"1"), (b"transfer-encoding", b"chunked")]
    assert isinstance(data, h11.Data) and data.data == b"hello"
    assert isinstance(end, h11.EndOfMessage) and list(end.headers) == [(b"x-t", b"2")]
    assert old.peer.open_streams == 0 and not old.peer.is_closed


@pytest.mark.parametrize(("method", "action"), [("HEAD", answer()), ("GET", answer(204)), ("GET", answer(304))])
def test_responses_without_content(method: str, action: Action) -> None:
    pair = H2([action])
    ref = pair.request(((":method", method), *GET[1:]))
    assert pair.content(ref) == b"" and pair.ended(ref)
    old = H11([action])
    old.request(method)
    status, fields, content, complete = old.response()
    assert content == b"" and complete and not old.peer.is_closed
    assert fields == ({b"content-length": b"2"} if method == "HEAD" else {})
    old.client.start_next_cycle()
    old.request(method)
    assert old.response()[0] == status


def test_the_length_is_the_scripts_own_if_it_says_so() -> None:
    action = answer(fields=((b"content-length", b"9"),), content=b"short")
    pair = H2([action])
    with pytest.raises(h2.exceptions.InvalidBodyLengthError):
        pair.request()
    old = H11([action])
    old.request()
    assert old.response()[1:] == ({b"content-length": b"9"}, b"short", False)


# delay, forget, drip


def test_delay() -> None:
    pair = H2([delay(0.5, delay(0.25, answer()))])
    pair.now = 10.0
    ref = pair.request()
    assert pair.peer.next_timeout() == 10.5
    pair.wait(10.49)
    assert not pair.ended(ref)
    pair.wait(10.6)  # late, and the second delay begins where the first one was due
    assert pair.peer.next_timeout() == 10.75
    pair.wait(10.75)
    assert pair.ended(ref) and pair.peer.next_timeout() == INFINITY

    old = H11([delay(0.5, answer())])
    old.request()
    assert old.events() == [] and old.peer.next_timeout() == 0.5
    old.wait(0.5)
    assert old.response()[2:] == (b"ok", True)


def test_forget() -> None:
    pair = H2([forget()])
    ref = pair.request()
    pair.client.ping(b"12345678")
    pair.client.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 1000})
    pair.wait(1000.0)
    assert pair.peer.next_timeout() == INFINITY
    assert pair.seen(h2.events.PingAckReceived) and len(pair.seen(h2.events.SettingsAcknowledged)) == 2
    assert pair.peer.open_streams == 1 and pair.report.pings == 1
    pair.client.reset_stream(ref, ErrorCodes.CANCEL)
    pair.exchange()
    assert pair.peer.open_streams == 0
    assert pair.report.resets == ((0, 1, CANCEL),)
    assert pair.report.protocol_errors == ()

    old = H11([forget()])
    old.request("POST", (("Content-Length", "2"),), b"hi")
    old.wait(1000.0)
    assert old.received == b"" and old.report.requests[0].complete and old.report.streams_open == 1


def test_a_reset_ends_the_program() -> None:
    pair = H2([delay(1.0, answer())])
    pair.client.reset_stream(pair.request())
    pair.exchange()
    assert pair.peer.next_timeout() == INFINITY
    before = pair.received
    pair.wait(2.0)
    assert pair.received == before


def test_drip() -> None:
    pair = H2([drip(b"abcde", piece=2, every=0.5, status=203)])
    ref = pair.request()
    assert pair.content(ref) == b"ab" and pair.status(ref) == b"203" and pair.peer.next_timeout() == 0.5
    pair.wait(0.5)
    assert pair.content(ref) == b"abcd" and not pair.ended(ref)
    pair.wait(1.0)
    assert pair.content(ref) == b"abcde" and pair.ended(ref)

    late = H2([drip(b"abcde", every=0.5, end=False)])
    ref = late.request()
    late.wait(100.0)
    assert late.content(ref) == b"abcde" and not late.ended(ref)
    assert late.peer.open_streams == 1 and late.peer.next_timeout() == INFINITY

    old = H11([drip(b"abc", piece=2, every=0.5)])
    old.request()
    assert old.received.endswith(b"2\r\nab\r\n")
    old.wait(0.5)
    assert old.response()[2:] == (b"abc", True)

    endless = H11([drip(b"abc", piece=3, end=False)])
    endless.request(fields=(("Connection", "close"),))
    assert endless.response()[2:] == (b"abc", False) and not endless.peer.is_closed


# reset, refuse, goaway


@pytest.mark.parametrize(
    ("action", "content", "head"),
    [(reset(9), b"", False), (reset(9, head=True), b"", True), (reset(9, after=b"half"), b"half", True)],
)
def test_reset(action: Action, content: bytes, head: bool) -> None:
    pair = H2([action])
    ref = pair.request()
    assert (pair.reset(ref), pair.content(ref)) == (9, content)
    assert bool(pair.seen(h2.events.ResponseReceived)) == head
    assert pair.peer.open_streams == 0 and not pair.peer.is_closed
    again = pair.request()
    assert pair.reset(again) == 9

    old = H11([action])
    old.request()
    assert old.peer.is_closed and old.report.connections_open == 0
    if head:
        with pytest.raises(h11.RemoteProtocolError, match="peer closed connection"):
            old.events()
    assert (b"HTTP/1.1 200 OK" in old.received) == head and content in old.received


def test_refuse() -> None:
    pair = H2([refuse(), answer()])
    assert pair.reset(pair.request()) == REFUSED_STREAM
    assert pair.ended(pair.request())
    assert pair.report.refused == 0  # that counts the slots
    old = H11([refuse()])
    old.request()
    assert old.received == b"" and old.peer.is_closed


def test_a_reset_after_the_answer() -> None:
    """RFC 9113 §8.1: the server answers early, and resets with NO_ERROR so that the client stops its content."""
    pair = H2([answer(413, early=True) + reset(NO_ERROR)])
    ref = pair.request(POST, b"some", end=False)
    assert (pair.status(ref), pair.ended(ref), pair.reset(ref)) == (b"413", True, NO_ERROR)
    assert pair.report.protocol_errors == ()


def test_goaway_lets_this_stream_and_those_before_it_finish() -> None:
    pair = H2([delay(1.0, answer()), goaway(then=delay(0.5, answer()), debug=b"bye")])
    first = pair.request()
    second = pair.request()
    goodbye = pair.terminated()
    assert goodbye is not None
    assert (goodbye.error_code, goodbye.last_stream_id, goodbye.additional_data) == (NO_ERROR, second, b"bye")
    pair.wait(0.5)
    assert not pair.peer.is_closed
    raw = frames.encode_head(5, Encoder().encode(list(GET)), True, 16_384)
    assert pair.peer.receive(raw, 0.5) == b""  # dropped
    assert len(pair.report.requests) == 2 and pair.peer.open_streams == 1
    data = pair.peer.handle_timeout(1.0)
    assert data and pair.peer.is_closed
    assert (first, second) == (1, 3)


def test_goaway_drops_the_streams_above_its_last_id() -> None:
    pair = H2([forget(), goaway(last=1)])
    pair.request()
    pair.request()
    goodbye = pair.terminated()
    assert goodbye is not None and goodbye.last_stream_id == 1
    assert pair.peer.open_streams == 1 and not pair.peer.is_closed
    pair.peer.receive(frames.encode_reset(1, CANCEL), 0.0)
    assert pair.peer.is_closed


def test_goaway_with_an_error_code_ends_the_connection_after_this_program() -> None:
    pair = H2([forget(), goaway(PROTOCOL_ERROR, last=0)])
    pair.request()
    pair.request()
    goodbye = pair.terminated()
    assert goodbye is not None and goodbye.error_code == PROTOCOL_ERROR
    assert pair.peer.is_closed and pair.report.streams_open == 0

    gentle = H2([goaway(PROTOCOL_ERROR, then=delay(1.0, answer()))])
    ref = gentle.request()
    assert not gentle.peer.is_closed
    data = gentle.peer.handle_timeout(1.0)
    assert gentle.peer.is_closed and ref == 1 and len(data) > 2 * frames.HEADER_SIZE


def test_goaway_that_announces_the_end_takes_new_requests_still() -> None:
    pair = H2([goaway(last=2**31 - 1, then=answer())])
    pair.request()
    block = Encoder().encode(list(GET))
    assert pair.peer.receive(frames.encode_head(3, block, True, 16_384), 0.0)
    assert len(pair.report.requests) == 2 and not pair.peer.is_closed


def test_goaway_on_http1_is_connection_close() -> None:
    old = H11([goaway(then=answer())])
    old.request()
    assert old.peer.is_closed
    assert old.response() == (200, {b"content-length": b"2", b"connection": b"close"}, b"ok", True)
    bare = H11([goaway()])
    bare.request()
    assert bare.received == b"" and bare.peer.is_closed
    stuck = H11([goaway(then=drip(b"abc", piece=3, end=False))])
    stuck.request()
    assert stuck.response()[2:] == (b"abc", False) and not stuck.peer.is_closed


# stop_reading, close, garbage


def test_stop_reading() -> None:
    pair = H2([stop_reading()])
    ref = pair.request(POST, b"x" * 40_000, end=False)
    assert not pair.peer.is_reading and not pair.peer.is_closed
    assert pair.seen(h2.events.WindowUpdated) == []  # more than half of the window, and no credit
    pair.client.ping(b"12345678")
    pair.exchange()
    assert pair.seen(h2.events.PingAckReceived) == []
    assert pair.peer.open_streams == 1 and ref == 1
    assert pair.report.requests[0].length == 0

    speaking = H2([stop_reading(then=delay(0.5, answer()))])
    ref = speaking.request()
    speaking.wait(0.5)
    assert speaking.ended(ref) and not speaking.peer.is_reading

    old = H11([stop_reading()])
    old.request("POST", (("Content-Length", "5"),), b"hello")
    assert not old.peer.is_reading and old.report.requests[0].length == 0


def test_close() -> None:
    pair = H2([close()])
    ref = pair.request()
    assert pair.peer.is_closed and not pair.peer.is_aborted and not pair.ended(ref) and pair.reset(ref) is None
    assert pair.peer.receive(b"anything", 0.0) == b"" and pair.peer.next_timeout() == INFINITY
    half = H2([close(after=b"half")])
    ref = half.request()
    assert half.content(ref) == b"half" and half.peer.is_closed
    assert half.report.connections_open == 0 and half.report.connections == 1

    old = H11([close(after=b"half", fields=((b"content-length", b"8"),), abort=True)])
    old.request()
    assert old.peer.is_closed and old.peer.is_aborted and old.received.endswith(b"content-length: 8\r\n\r\nhalf")
    polite = H11([answer() + close()])
    polite.request()
    assert polite.response()[2:] == (b"ok", True) and polite.peer.is_closed


def test_garbage() -> None:
    pair = H2([garbage(frames.encode_window_update(0, 0))])
    with pytest.raises(h2.exceptions.ProtocolError):
        pair.request()
    old = H11([garbage(b"nonsense\r\n\r\n")])
    old.request()
    with pytest.raises(h11.RemoteProtocolError):
        old.events()
    ping = H2([garbage(frames.encode_ping(b"abcdefgh", 0)) + answer()])
    ref = ping.request()
    assert ping.seen(h2.events.PingReceived) and ping.ended(ref)
    assert ping.report.protocol_errors == () and ping.report.pings == 0  # what came back was an ACK


# early


def test_early() -> None:
    pair = H2([answer(early=True), answer()])
    ref = pair.request(POST, b"some", end=False)
    assert pair.ended(ref) and pair.peer.open_streams == 1  # the client has not ended it
    pair.client.send_data(ref, b"rest", end_stream=True)
    pair.exchange()
    assert pair.peer.open_streams == 0 and pair.report.requests[0].content == b"somerest"
    waits = pair.request(POST, b"some", end=False)
    assert not pair.ended(waits)
    pair.client.end_stream(waits)
    pair.exchange()
    assert pair.ended(waits)

    old = H11([answer(early=True)])
    old.request("POST", (("Content-Length", "8"),), b"some", end=False)
    assert old.response()[2:] == (b"ok", True)
    old.give(old.peer.receive(b"rest", 0.0))
    assert old.report.requests[0].content == b"somerest" and not old.peer.is_closed and old.peer.open_streams == 0


def test_a_function_may_be_early() -> None:
    calls: list[bool] = []

    def script(request: Request) -> Action:
        calls.append(request.complete)
        return answer(403, early=True)

    pair = H2(script)
    ref = pair.request(POST, b"some", end=False)
    pair.client.end_stream(ref)
    pair.exchange()
    assert pair.status(ref) == b"403" and calls == [False]


def test_expect_100_continue() -> None:
    pair = H2()
    ref = pair.request((*POST, ("expect", "100-continue")), end=False)
    assert pair.seen(h2.events.InformationalResponseReceived)
    pair.client.send_data(ref, b"hi", end_stream=True)
    pair.exchange()
    assert pair.ended(ref)
    old = H11()
    old.request("POST", (("Expect", "100-continue"), ("Content-Length", "2")), end=False)
    assert old.received == b"HTTP/1.1 100 Continue\r\n\r\n"
    refusing = H11([answer(417, early=True)])
    refusing.request("POST", (("Expect", "100-continue"), ("Content-Length", "2")), end=False)
    assert refusing.received.startswith(b"HTTP/1.1 417")


# HTTP/2: windows, slots, tables


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
    value = os.urandom(30_000).hex()
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


def test_nothing_depends_on_how_the_input_is_cut() -> None:
    def script(request: Request) -> Action:
        return [answer(trailers=((b"x-t", b"1"),)), drip(b"abc", every=1.0), stop_reading(early=False)][request.number]

    for http1 in (False, True):
        if http1:
            head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
            data = (head + b"3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nX-T: 1\r\n\r\n") * 3
        else:
            encoder = Encoder()
            data = frames.PREFACE + frames.encode_settings(())
            for ref in (1, 3, 5):
                data += frames.encode_head(ref, encoder.encode(list(POST)), False, 10)
                data += frames.encode_header(3, frames.DATA, frames.END_STREAM, ref) + b"abc"
        data += b"never read"
        whole, cut = PeerConnection(script), PeerConnection(script)
        expected = whole.receive(data, 0.0)
        pieces = b"".join([cut.receive(data[place : place + 1], 0.0) for place in range(len(data))])
        for now in (1.0, 2.0):
            expected += whole.handle_timeout(now)
            pieces += cut.handle_timeout(now)
        assert sorted(pieces) == sorted(expected)
        before, after = whole.journal.report(), cut.journal.report()
        assert before.requests == after.requests and before.streams_open == after.streams_open
        assert (before.protocol_errors, after.protocol_errors) == ((), ())


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
    client.receive_data(peer.receive(frames.PREFACE + frames.encode_settings(()) + data, 0.0))
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
    out = peer.receive(frames.PREFACE + frames.encode_settings(()) + data, 0.0)
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
    peer.receive(frames.PREFACE + frames.encode_settings(()) + head, 0.0)
    peer.receive(frame(frames.DATA, frames.END_STREAM, 1, content), 0.0)
    assert said in peer.journal.report().protocol_errors[0]


def test_the_connections_window_is_checked() -> None:
    peer = PeerConnection([forget()], Options(credit=False, initial_window=10**6))
    data = frames.PREFACE + frames.encode_settings(()) + OPEN + frame(frames.DATA, 0, 1, b"x" * 16_384) * 4
    peer.receive(data, 0.0)
    assert "1 bytes above the connection's window" in peer.journal.report().protocol_errors[0] and peer.is_closed


def test_our_settings_bind_the_client_once_it_has_acknowledged_them() -> None:
    start = frames.PREFACE + frames.encode_settings(())
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
    peer.receive(frames.PREFACE + frames.encode_settings(()) + late, 0.0)
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
    peer.receive(frames.PREFACE + frames.encode_settings(()) + ignored + frames.encode_goaway(0, 2, b"bye"), 0.0)
    report = peer.journal.report()
    assert report.protocol_errors == () and report.goaways == ((0, 0, 2),) and not peer.is_closed


def test_priorities_and_tunnels_are_understood() -> None:
    fields = ((":method", "CONNECT"), (":authority", "a:1"))
    block = Encoder().encode(list(fields))
    peer = PeerConnection([forget()])
    head = frame(frames.HEADERS, 0x4 | 0x8 | 0x20, 1, b"\x02\0\0\0\0\x10" + block + b"\0\0")
    peer.receive(frames.PREFACE + frames.encode_settings(()) + head, 0.0)
    (seen,) = peer.journal.report().requests
    assert (seen.method, seen.target, seen.authority) == ("CONNECT", "a:1", "a:1")
    assert peer.journal.report().protocol_errors == ()


def test_alpn_settled_what_is_spoken() -> None:
    peer = PeerConnection(protocol="h2")
    out = peer.receive(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", 0.0)
    assert peer.is_closed and frames.encode_goaway(0, 1, b"")[9:17] in out
    assert "the preface is b'GET" in peer.journal.report().protocol_errors[0]
    old = PeerConnection(protocol="http/1.1")
    assert old.receive(frames.PREFACE, 0.0).startswith(b"HTTP/1.1 400 ")
    first = PeerConnection()
    assert first.receive(frames.PREFACE + frames.encode_ping(b"12345678", 0), 0.0) and first.is_closed
    assert "the first frame is PING" in first.journal.report().protocol_errors[0]


# HTTP/1.1


def test_pipelined_requests_are_answered_in_turn() -> None:
    peer = PeerConnection([delay(1.0, answer(content=b"first")), answer(content=b"second")])
    request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    assert peer.receive(request + b"\r\n" + request, 0.0) == b""
    assert len(peer.journal.report().requests) == 1
    out = peer.handle_timeout(1.0)
    assert out.index(b"first") < out.index(b"second") and peer.journal.report().streams_peak == 1


def test_chunked_content_and_trailers() -> None:
    old = H11(lambda request: answer(content=request.content))
    old.request("POST", (("Transfer-Encoding", "chunked"),), b"hello", end=False)
    old.give(old.peer.receive(b"A;ext=1\r\n, and more\r\n0\r\nX-T: 1\r\n\r\n", 0.0))
    assert old.received.endswith(b"hello, and more")
    assert old.report.requests[0].trailers == ((b"X-T", b"1"),)


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_the_clients_connection_close(version: bytes) -> None:
    peer = PeerConnection()
    fields = b"Host: a\r\nConnection: close\r\n" if version == b"1.1" else b""
    out = peer.receive(b"GET / HTTP/%s\r\n%s\r\n" % (version, fields), 0.0)
    assert b"connection: close\r\n" in out and out.endswith(b"\r\n\r\nok") and peer.is_closed


def test_http_1_0_gets_no_chunks() -> None:
    peer = PeerConnection([drip(b"abc", piece=3), drip(b"abc", piece=3)])
    out = peer.receive(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", 0.0)
    assert b"transfer-encoding" not in out and out.endswith(b"\r\n\r\nabc") and peer.is_closed


def test_forget_with_connection_close_stays_open() -> None:
    peer = PeerConnection([forget()])
    assert peer.receive(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 0.0) == b""
    assert not peer.is_closed and peer.open_streams == 1
    peer.closed(1.0)
    assert peer.is_closed and peer.journal.report().streams_open == 0


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"GET /\r\n\r\n", "the request line b'GET /'"),
        (b"GET / HTTP/2.0\r\n\r\n", "the request line"),
        (b"GET / HTTP/1.1\r\n\r\n", "0 Host fields"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "2 Host fields"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nbad name: 1\r\n\r\n", "the field line b'bad name: 1'"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n", "the field line b' folded'"),
        (b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", "the field line"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n", "Content-Length [b'x']"),
        (
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "Content-Length [b'1', b'2']",
        ),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "Transfer-Encoding"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", "Transfer-Encoding [b'gzip']"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", "the chunk line b'xyz'"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n", "after the data of a chunk"),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 300_000, "a head of more than"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;" + b"x" * 300_000, "a line of more than"),
    ],
)
def test_malformed_requests(data: bytes, said: str) -> None:
    peer = PeerConnection([forget()])
    assert peer.receive(data, 0.0).startswith(b"HTTP/1.1 400 Bad Request\r\n") and peer.is_closed
    assert said in peer.journal.report().protocol_errors[0]


# Against calamint's own client, as the docstring has it


def test_in_memory_with_calamint() -> None:
    peer = PeerConnection([delay(0.5, answer(content=b"late"))])
    conn, data = http2.connect(Origin("http", "localhost", 80), Settings(), now=0.0)
    conn, more, ref = http2.request(conn, "GET", "/", (), None, now=0.0)
    conn, data, events = http2.receive(conn, peer.receive(data + more, now=0.0), now=0.0)
    assert peer.next_timeout() == 0.5
    peer.receive(data, now=0.0)
    conn, data, events = http2.receive(conn, peer.handle_timeout(now=0.5), now=0.5)
    assert [type(event) for event in events] == [ResponseReceived, DataReceived, ResponseEnded]
    report = peer.journal.report()
    assert report.requests[0].target == "/" and report.protocol_errors == () and ref == 1


# On sockets


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def connect(peer: ScriptedPeer) -> socket.socket:
    return socket.create_connection((peer.host, peer.port), timeout=10)


def converse(
    sock: socket.socket, client: h2.connection.H2Connection, done: Callable[[list[h2.events.Event]], bool]
) -> list[h2.events.Event]:
    """Talk until the events satisfy `done`, or the peer closes."""
    events: list[h2.events.Event] = []
    while not done(events):
        sock.sendall(client.data_to_send())
        data = sock.recv(65_536)
        if not data:
            break
        events += client.receive_data(data)
    sock.sendall(client.data_to_send())
    return events


def has(kind: type[h2.events.Event]) -> Callable[[list[h2.events.Event]], bool]:
    return lambda events: any([isinstance(event, kind) for event in events])


def test_http1_over_a_socket() -> None:
    with ScriptedPeer([answer(content=b"one"), delay(0.01, drip(b"two", every=0.01)), close(after=b"three")]) as peer:
        assert peer.url == f"http://127.0.0.1:{peer.port}"
        client = http.client.HTTPConnection("127.0.0.1", peer.port, timeout=10)
        client.request("GET", "/one")
        assert client.getresponse().read() == b"one"
        client.request("POST", "/two", body=b"x" * 200_000)
        assert client.getresponse().read() == b"two"
        client.request("GET", "/three")
        with pytest.raises(http.client.IncompleteRead):
            client.getresponse().read()
        client.close()
        report = peer.wait_for(lambda report: report.connections_open == 0)
        assert [(it.method, it.target, it.length) for it in report.requests] == [
            ("GET", "/one", 0),
            ("POST", "/two", 200_000),
            ("GET", "/three", 0),
        ]
        assert report.requests[1].sha256 == hashlib.sha256(b"x" * 200_000).hexdigest()
        assert report.connections == 1 and report.bytes_in > 200_000 and report.bytes_out > 300
        assert report.protocol_errors == ()


def test_http2_over_a_socket() -> None:
    with ScriptedPeer([forget(), delay(0.01, answer(content=b"x" * 40_000))], max_streams=2) as peer:
        with connect(peer) as sock:
            client = h2.connection.H2Connection()
            client.initiate_connection()
            client.send_headers(1, list(GET), end_stream=True)
            client.send_headers(3, list(GET), end_stream=True)
            events = converse(sock, client, has(h2.events.StreamEnded))
            assert sum([len(it.data) for it in events if isinstance(it, h2.events.DataReceived)]) == 40_000
            assert peer.report.streams_open == 1 and peer.report.connections_open == 1
            client.reset_stream(1, ErrorCodes.CANCEL)
            sock.sendall(client.data_to_send())
            report = peer.wait_for(lambda report: report.resets)
            assert report.resets == ((0, 1, CANCEL),) and report.streams_open == 0 and report.streams_peak == 2
        assert peer.wait_for(lambda report: report.connections_open == 0).protocol_errors == ()


@pytest.mark.parametrize("protocol", ["h2", "http/1.1"])
def test_tls(protocol: str) -> None:
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(server)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    context.set_alpn_protocols([protocol])
    content = os.urandom(300_000)
    with ScriptedPeer(lambda request: answer(content=content) + close(), tls=server) as peer:
        assert peer.url.startswith("https://")
        with connect(peer) as plain, context.wrap_socket(plain, server_hostname="localhost") as sock:
            assert sock.selected_alpn_protocol() == protocol
            if protocol == "h2":
                client = h2.connection.H2Connection()
                client.initiate_connection()
                client.increment_flow_control_window(10**6)
                client.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 10**6})
                client.send_headers(1, list(GET), end_stream=True)
                events = converse(sock, client, has(h2.events.StreamEnded))
                received = b"".join([it.data for it in events if isinstance(it, h2.events.DataReceived)])
            else:
                sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                with sock.makefile("rb") as file:
                    received = file.read().partition(b"\r\n\r\n")[2]
            assert received == content
            assert sock.recv(100) == b""  # and a close_notify: else this would raise
        assert peer.wait_for(lambda report: report.connections_open == 0).connections == 1


def test_a_failed_handshake_is_in_the_report() -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("localhost").configure_cert(server)
    with ScriptedPeer(tls=server) as peer, connect(peer) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        report = peer.wait_for(lambda report: report.protocol_errors)
        assert report.protocol_errors[0].startswith("TLS handshake: ") and report.connections == 0


def test_close_is_an_orderly_end_and_abort_is_not() -> None:
    with ScriptedPeer([answer(early=True) + close(early=True), close(abort=True)]) as peer:
        with connect(peer) as sock:
            # What the peer does not read must not make its kernel send a RST that overtakes the answer.
            sock.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n" + b"x" * 50_000)
            peer.wait_for(lambda report: report.connections_open == 0)
            sock.sendall(b"x" * 50_000)
            with sock.makefile("rb") as file:
                assert file.read().endswith(b"ok")
        with connect(peer) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            with pytest.raises(ConnectionResetError):
                sock.recv(100)


def test_stop_reading_fills_the_clients_socket() -> None:
    with ScriptedPeer([stop_reading(), answer()]) as peer:
        with connect(peer) as sock, connect(peer) as other:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            sock.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n")
            before = peer.wait_for(lambda report: report.requests).bytes_in
            sock.setblocking(False)
            with pytest.raises(BlockingIOError):
                for _ in range(10_000):
                    sock.send(b"x" * 100_000)
            other.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")  # the others are served, and the thread does not spin
            assert other.recv(1000).endswith(b"ok")
            assert peer.report.bytes_in - before < 100
            assert peer.report.requests[0].length == 0


def test_many_connections_at_once() -> None:
    with ScriptedPeer([forget()]) as peer:
        socks = [connect(peer) for _ in range(30)]
        for sock in socks:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        report = peer.wait_for(lambda report: report.streams_open == 30)
        assert report.connections == report.connections_open == 30
        for sock in socks[:10]:
            sock.close()
        assert peer.wait_for(lambda report: report.connections_open == 20).streams_open == 20
        for sock in socks:
            sock.close()


def test_leaving_closes_everything() -> None:
    peer = ScriptedPeer([forget()])
    with peer:
        sock = connect(peer)
        sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        peer.wait_for(lambda report: report.requests)
    with sock:
        assert sock.recv(100) == b""
    peer.close()  # again
    assert peer.report.requests and peer.report.connections_open == 0
    with pytest.raises(ConnectionRefusedError):
        connect(peer)


def test_what_the_script_raised_is_raised_at_the_end() -> None:
    def script(request: Request) -> Action:
        raise LookupError("no such request")

    with pytest.raises(LookupError, match="no such request"):
        with ScriptedPeer(script) as peer, connect(peer) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert sock.recv(100).startswith(b"HTTP/1.1 500")
    with pytest.raises(ZeroDivisionError):  # but it does not hide what went wrong in the test
        with ScriptedPeer(script) as peer, connect(peer) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            sock.recv(100)
            raise ZeroDivisionError


def test_waiting_in_vain() -> None:
    with ScriptedPeer() as peer:
        with pytest.raises(TimeoutError, match=r"not within 0.01 s: Report\(connections=0"):
            peer.wait_for(lambda report: report.requests, 0.01)


def test_the_pytest_fixture(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import http.client, threading\n"
        "from calamint.testing import answer\n"
        "def test_it(scripted_peer):\n"
        "    peers = [scripted_peer([answer(status)], max_streams=1) for status in (201, 202)]\n"
        "    for peer, status in zip(peers, (201, 202)):\n"
        "        client = http.client.HTTPConnection('127.0.0.1', peer.port)\n"
        "        client.request('GET', '/')\n"
        "        assert client.getresponse().status == status\n"
        "        client.close()\n"
        "def test_they_are_gone():\n"
        "    assert threading.active_count() == 1\n"
    )
    command = [
        sys.executable,
        "-W",
        "error",
        "-m",
        "pytest",
        "-q",
        "-p",
        "calamint.testing.plugin",
        "-p",
        "no:cacheprovider",
    ]
    env = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run([*command, str(tmp_path)], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert "2 passed" in done.stdout, done.stdout + done.stderr
