"""What a script says and what the peer then does, in both protocols: h2 and h11 in memory, in virtual time."""

import h2.events
import h2.exceptions
import h11
import hyperframe.frame
import pytest
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from hpack import Encoder

from calamint.core import frames, http2
from calamint.core.errors import CANCEL, NO_ERROR, PROTOCOL_ERROR, REFUSED_STREAM
from calamint.core.events import DataReceived, ResponseEnded, ResponseReceived
from calamint.core.exchange import Settings
from calamint.core.url import Origin
from calamint.core.value import INFINITY
from calamint.testing import (
    Action,
    Journal,
    PeerConnection,
    Request,
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
from tests.testing.clients import GET, H2, H11, POST, START, parse, request_on

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
    nonsense = H2(lambda request: "no action")  # type: ignore[arg-type,return-value]
    assert nonsense.status(nonsense.request()) == b"500"
    assert isinstance(nonsense.report.script_errors[0], TypeError)


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
    peer = PeerConnection([delay(1.0, answer()), goaway(then=delay(0.5, answer()), debug=b"bye")])
    *_, goodbye = parse(peer.receive(START + request_on(1) + request_on(3), 0.0))
    assert isinstance(goodbye, hyperframe.frame.GoAwayFrame)
    assert (goodbye.error_code, goodbye.last_stream_id, goodbye.additional_data) == (NO_ERROR, 3, b"bye")
    assert [it.stream_id for it in parse(peer.handle_timeout(0.5))] == [3, 3]
    assert not peer.is_closed
    assert peer.receive(request_on(5), 0.5) == b""  # dropped
    assert len(peer.journal.report().requests) == 2 and peer.open_streams == 1
    assert [it.stream_id for it in parse(peer.handle_timeout(1.0))] == [1, 1]
    assert peer.is_closed and peer.journal.report().protocol_errors == ()


def test_goaway_drops_the_streams_above_its_last_id() -> None:
    peer = PeerConnection([forget(), goaway(last=1)])
    *_, goodbye = parse(peer.receive(START + request_on(1) + request_on(3), 0.0))
    assert isinstance(goodbye, hyperframe.frame.GoAwayFrame) and goodbye.last_stream_id == 1
    assert peer.open_streams == 1 and not peer.is_closed
    peer.receive(frames.encode_reset(1, CANCEL), 0.0)
    assert peer.is_closed


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
    peer = PeerConnection([goaway(last=2**31 - 1, then=answer())])
    peer.receive(START + request_on(1), 0.0)
    assert [it.stream_id for it in parse(peer.receive(request_on(3), 0.0))] == [0, 3, 3]
    assert len(peer.journal.report().requests) == 2 and not peer.is_closed


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
    ref = pair.request(POST, b"x" * 16_000, end=False)
    assert not pair.peer.is_reading and not pair.peer.is_closed
    for _ in range(3):
        pair.client.send_data(ref, b"x" * 16_000)
        pair.exchange()
    assert pair.seen(h2.events.WindowUpdated) == []  # almost all of the window, and no credit
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
