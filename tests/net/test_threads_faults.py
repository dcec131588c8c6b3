"""Faults that other clients have had, and what the pool for threads does instead; each test bears the name of its row."""

import random
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest

import calamint
from calamint import core
from calamint.core.errors import CANCEL, HTTP_1_1_REQUIRED
from calamint.testing import (
    Action,
    Request,
    ScriptedPeer,
    answer,
    close,
    delay,
    drip,
    forget,
    goaway,
    refuse,
    reset,
    stop_reading,
)
from tests.net.pool_help import at_rest, fetch, in_threads, nothing_left
from tests.net.test_tls import server_context
from tests.net.thread_server import LIMIT, ThreadServer, read_head
from tests.servers import PrivateCa

PROTOCOLS = [pytest.param(True, id="http1"), pytest.param(False, id="h2")]


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    with nothing_left():
        yield


def stuck_or_not(request: Request) -> Action:
    """No answer to /stuck, and its own target to all others."""
    return forget() if request.target == "/stuck" else answer(content=request.target.encode())


# A: streams


def test_A1_ten_requests_that_time_out_leave_ten_slots() -> None:
    """Each is reset, once; and the connection is the same."""
    with ScriptedPeer(stuck_or_not, max_streams=10) as peer, calamint.Pool(http1=False) as pool:
        with ExitStack() as stack:
            calls = [stack.enter_context(pool.request("GET", f"{peer.url}/stuck", timeout=0.05)) for _ in range(10)]
            for call in calls:
                with pytest.raises(calamint.DeadlineExceeded):
                    call.response()
        assert fetch(pool, f"{peer.url}/after") == b"/after"
        report = peer.wait_for(lambda report: len(report.resets) == 10)
        assert {code for _, _, code in report.resets} == {CANCEL}
        assert (report.connections, report.streams_open, report.refused) == (1, 0, 0)
        at_rest(pool)


@pytest.mark.parametrize("stage", ["dialling", "waiting", "sent", "content"])
def test_A2_a_request_is_cancelled_at_each_stage(stage: str) -> None:
    """The one slot is free again."""

    def script(request: Request) -> Action:
        return drip(b"content", every=0.02, end=False) if request.target == "/drip" else answer()

    limits = calamint.Limits(max_connections=1)
    with ScriptedPeer(script, max_streams=1) as peer, calamint.Pool(http1=False, limits=limits) as pool:
        if stage != "dialling":
            assert fetch(pool, peer.url) == b"ok"
        before = pool.request("GET", f"{peer.url}/drip") if stage == "waiting" else None
        call = pool.request("GET", f"{peer.url}/drip")
        if stage == "content":
            while not isinstance(call.receive(), core.DataReceived):
                pass
        call.cancel()
        if before is not None:
            before.cancel()
        assert fetch(pool, peer.url) == b"ok"
        report = peer.wait_for(lambda report: not report.streams_open)
        assert report.refused == 0
        assert report.connections <= 2  # one whose only slot is taken by a reset that nobody confirmed may give way
        at_rest(pool)


def test_A7_a_dead_peer_is_fed_no_more_requests_than_it_has_slots() -> None:
    """Its resets stay counted, since it shows no life: the next request gets another connection."""

    def script(request: Request) -> Action:
        return stop_reading() if request.connection == 0 and request.number else answer()

    with ScriptedPeer(script, max_streams=5) as peer, calamint.Pool(http1=False) as pool:
        assert fetch(pool, peer.url) == b"ok"
        for _ in range(5):
            with pytest.raises(calamint.TimeoutException):
                fetch(pool, peer.url, timeout=0.02)
        assert fetch(pool, peer.url) == b"ok"
        assert pool.stats().dials == 2


@pytest.mark.slow
def test_D1_a_peer_that_is_gone_is_found_out_by_a_PING() -> None:
    """A7's end as well: its connection is closed, 10 s after the PING that nobody answers."""
    settings = calamint.Settings(keepalive=0.2)
    with (
        ScriptedPeer(lambda request: answer() if request.connection else stop_reading()) as peer,
        calamint.Pool(http1=False, settings=settings) as pool,
    ):
        began = time.monotonic()
        with pytest.raises(calamint.ReadTimeout, match="no answer to a PING"):
            pool.request("POST", peer.url).response()
        assert 10.0 < time.monotonic() - began < 12.0
        assert fetch(pool, peer.url) == b"ok"
        assert pool.stats().connections == 1


def test_A15_a_time_limit_ends_one_request_of_ten() -> None:
    """Its siblings finish on the same connection."""

    def script(request: Request) -> Action:
        return forget() if request.target == "/stuck" else drip(bytes(10), every=0.02)

    with ScriptedPeer(script) as peer, calamint.Pool(http1=False) as pool:

        def run(number: int) -> None:
            if number:
                assert fetch(pool, peer.url) == bytes(10)
                return
            with pytest.raises(calamint.DeadlineExceeded):
                fetch(pool, f"{peer.url}/stuck", timeout=0.1)

        in_threads(10, run)
        report = peer.wait_for(lambda report: report.resets)
        assert (report.connections, len(report.resets)) == (1, 1)
        at_rest(pool)


# D: dead and shared connections


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_D6_a_server_that_closes_as_we_write(method: str) -> None:
    """On a connection that has served: GET is sent once more, on a fresh one; POST fails, and says what was seen."""

    with ScriptedPeer([answer(), close(), answer(content=b"again")]) as peer, calamint.Pool() as pool:
        assert fetch(pool, peer.url) == b"ok"
        if method == "GET":
            assert fetch(pool, peer.url) == b"again"
            assert pool.stats().replays == 1
        else:
            with pytest.raises(calamint.ReadError, match="before the response came") as caught:
                fetch(pool, peer.url, "POST")
            assert (caught.value.unprocessed, caught.value.attempts) == (False, 1)
        assert [request.method for request in peer.report.requests] == ["GET", *[method] * (1 + (method == "GET"))]


def churn_of_expiry(rounds: int) -> None:
    """Requests as the connection's time is over: none fails."""
    limits = calamint.Limits(keepalive_expiry=0.002)
    source = random.Random(9)
    with ScriptedPeer() as peer, calamint.Pool(limits=limits) as pool:

        def run(number: int) -> None:
            pause = threading.Event()
            for _ in range(rounds):
                assert fetch(pool, peer.url) == b"ok"
                pause.wait(source.uniform(0.001, 0.003))

        in_threads(4, run, 60.0)
        assert pool.stats().failures == 0
        assert pool.stats().dials > rounds // 20


def test_D9_a_connection_that_is_used_as_it_expires() -> None:
    churn_of_expiry(50)


@pytest.mark.slow
def test_D9_a_connection_that_is_used_as_it_expires_often() -> None:
    churn_of_expiry(5000)


def test_D16_the_server_says_how_long_it_keeps_an_idle_connection() -> None:
    """With `Keep-Alive: timeout=0`, not at all."""
    with ScriptedPeer([answer(fields=((b"keep-alive", b"timeout=0"),))]) as peer, calamint.Pool() as pool:
        assert [fetch(pool, peer.url) for _ in range(3)] == [b"ok"] * 3
        assert peer.report.connections == 3
        assert pool.stats().connections == 0


@pytest.mark.slow
def test_D16_a_connection_is_not_used_after_the_time_that_its_server_gave_it() -> None:
    with ScriptedPeer([answer(fields=((b"keep-alive", b"timeout=1"),))]) as peer, calamint.Pool() as pool:
        assert [fetch(pool, peer.url) for _ in range(2)] == [b"ok"] * 2
        assert peer.report.connections == 1
        threading.Event().wait(1.05)
        assert fetch(pool, peer.url) == b"ok"
        assert peer.report.connections == 2


# E: GOAWAY, refusals, what is sent again


def test_E1_what_was_accepted_before_a_GOAWAY_is_answered() -> None:
    """And then the connection is closed, by us."""
    with ScriptedPeer([goaway(then=delay(0.1, answer(content=b"late")))]) as peer, calamint.Pool(http1=False) as pool:
        assert fetch(pool, peer.url) == b"late"
        peer.wait_for(lambda report: not report.connections_open)
        assert pool.stats().replays == 0
        assert pool.stats().connections == 0


def test_E2_what_a_GOAWAY_leaves_out_is_sent_again() -> None:
    """Three POSTs, each acted on once, by the second connection, with its own content."""

    def script(request: Request) -> Action:
        if request.connection or request.target == "/warm":
            return answer(content=request.content)
        return goaway(last=1) if request.content == b"2" else forget()

    with ScriptedPeer(script) as peer, calamint.Pool(http1=False) as pool:
        assert fetch(pool, f"{peer.url}/warm") == b""
        calls = [pool.request("POST", peer.url, content=str(number)) for number in range(3)]
        assert [call.response().content for call in calls] == [b"0", b"1", b"2"]
        again = [it for it in peer.report.requests if it.connection == 1]
        assert sorted([(it.content, it.complete) for it in again]) == [(b"0", True), (b"1", True), (b"2", True)]
        assert pool.stats().replays == 3


def test_E3_content_is_sent_again_whole_or_not_at_all() -> None:
    """Bytes that were given whole are; what came in pieces is not, and the failure says that nobody acted on it."""
    content = bytes(range(256)) * 100
    for whole in (True, False):
        with ScriptedPeer([answer(), goaway(last=1, early=True), answer()]) as peer, calamint.Pool(http1=False) as pool:
            assert fetch(pool, peer.url) == b"ok"
            call = pool.request("POST", peer.url, content=content, end=whole)
            if whole:
                assert call.response().content == b"ok"
                last = peer.report.requests[-1]
                assert (last.connection, last.content) == (1, content)
            else:
                with pytest.raises(calamint.ConnectionTerminated) as caught:
                    call.response()
                assert (caught.value.unprocessed, caught.value.attempts) == (True, 1)
                assert peer.report.connections == 1


def test_E5_a_request_that_is_always_refused_is_sent_twice() -> None:
    with ScriptedPeer([refuse()]) as peer, calamint.Pool(http1=False) as pool:
        with pytest.raises(calamint.StreamReset, match="REFUSED_STREAM") as caught:
            fetch(pool, peer.url)
        assert (caught.value.attempts, caught.value.unprocessed) == (2, True)
        assert len(peer.report.requests) == 2


def test_E6_a_request_that_is_refused_once_is_sent_again() -> None:
    """Whatever its method; and not where the caller says so."""
    with ScriptedPeer([refuse(), answer(), refuse()]) as peer, calamint.Pool(http1=False) as pool:
        assert fetch(pool, peer.url, "POST") == b"ok"
        with pytest.raises(calamint.StreamReset):
            pool.request("GET", peer.url, replay=False).response()
        assert len(peer.report.requests) == 3


def test_E9_a_server_that_wants_HTTP_1_gets_it_from_then_on(private_ca: PrivateCa) -> None:
    def script(request: Request) -> Action:
        return reset(HTTP_1_1_REQUIRED) if request.stream_id else answer()

    context = server_context(private_ca)
    with ScriptedPeer(script, tls=context) as peer, calamint.Pool(verify=str(private_ca.ca_file)) as pool:
        with pool.request("GET", peer.url) as call:
            assert call.response().status == 200
            assert call.protocol == "http/1.1"
        assert fetch(pool, peer.url) == b"ok"
        assert [bool(request.stream_id) for request in peer.report.requests] == [True, False, False]
        assert peer.report.connections == 2


# F: slots


def churn(http1: bool, seconds: float) -> None:
    """20 threads whose requests have limits of 0 to 3 ms, over 10 slots; then 10 at once are served."""
    limits = calamint.Limits(max_connections=10 if http1 else 1)

    def script(request: Request) -> Action:
        return delay(0.002 if request.target == "/churn" else 0.05, answer())

    with ScriptedPeer(script, max_streams=10) as peer, calamint.Pool(http1=http1, limits=limits) as pool:
        until = time.monotonic() + seconds

        def run(number: int) -> None:
            source = random.Random(number)
            while time.monotonic() < until:
                with suppress(calamint.TimeoutException):
                    fetch(pool, f"{peer.url}/churn", timeout=source.uniform(0, 0.003))

        in_threads(20, run, seconds + LIMIT)
        began = time.monotonic()
        in_threads(10, lambda number: fetch(pool, peer.url))
        assert time.monotonic() - began < 3.0  # a SYN may have been lost in the churn
        stats = pool.stats()
        assert stats.failures > 20
        assert (stats.running, stats.waiting) == (0, 0)
        assert stats.connections + stats.dialling <= 10


@pytest.mark.parametrize("http1", PROTOCOLS)
def test_F1_no_slot_is_lost_in_a_churn(http1: bool) -> None:
    churn(http1, 0.2)


@pytest.mark.slow
@pytest.mark.parametrize("http1", PROTOCOLS)
def test_F1_no_slot_is_lost_in_a_long_churn(http1: bool) -> None:
    churn(http1, 4.0)


@pytest.mark.parametrize("http1", PROTOCOLS)
def test_F4_responses_that_nobody_reads_hold_no_slot(http1: bool) -> None:
    """20 times 429 with content, and an exception in the caller's block."""
    limits = calamint.Limits(max_connections=1)
    script = [*[answer(429, content=bytes(300_000))] * 20, answer()]
    settings = calamint.Settings(stream_window=65_535)
    with (
        ScriptedPeer(script, max_streams=1) as peer,
        calamint.Pool(http1=http1, limits=limits, settings=settings) as pool,
    ):
        for _ in range(20):
            with pytest.raises(ZeroDivisionError), pool.request("GET", peer.url) as call:
                head = call.receive()
                assert isinstance(head, core.ResponseReceived) and head.status == 429
                raise ZeroDivisionError
        assert fetch(pool, peer.url) == b"ok"
        at_rest(pool)


def test_F5a_a_limit_fires_although_a_sibling_is_busy() -> None:
    def script(request: Request) -> Action:
        return drip(bytes(25), every=0.01) if request.target == "/busy" else forget()

    with ScriptedPeer(script) as peer, calamint.Pool(http1=False) as pool:
        with pool.request("GET", f"{peer.url}/busy") as busy:
            assert isinstance(busy.receive(), core.ResponseReceived)
            began = time.monotonic()
            with pytest.raises(calamint.ReadTimeout):
                pool.request("GET", peer.url, clocks=calamint.Clocks(head=0.1)).response()
            assert 0.1 <= time.monotonic() - began < 0.35
            while not busy.is_over:
                busy.receive()


def test_F5b_a_limit_ends_no_quiet_sibling() -> None:
    def script(request: Request) -> Action:
        return delay(0.15, answer()) if request.target == "/quiet" else forget()

    with ScriptedPeer(script) as peer, calamint.Pool(http1=False) as pool:

        def run(number: int) -> None:
            if number:
                assert fetch(pool, f"{peer.url}/quiet") == b"ok"
                return
            with pytest.raises(calamint.ReadTimeout):
                pool.request("GET", peer.url, clocks=calamint.Clocks(head=0.05)).response()

        in_threads(2, run)
        assert peer.report.connections == 1


def test_F6_a_PoolTimeout_says_who_holds_the_slots() -> None:
    limits = calamint.Limits(max_connections=2)
    with ScriptedPeer([forget()]) as peer, calamint.Pool(limits=limits) as pool, ExitStack() as stack:
        for number in range(2):
            stack.enter_context(pool.request("GET", f"{peer.url}/holder/{number}"))
        with pytest.raises(calamint.PoolTimeout, match=r"2 taken by: .*GET /holder/0 for .*GET /holder/1") as caught:
            pool.request("GET", peer.url, pool=0.1).response()
        assert caught.value.unprocessed
        assert isinstance(caught.value.snapshot, calamint.core.pool_state.PoolSnapshot)


# H: one limit for all


@pytest.mark.parametrize("http1", PROTOCOLS)
def test_H1_a_limit_covers_content_that_drips(http1: bool) -> None:
    limits = calamint.Limits(max_connections=1)

    def script(request: Request) -> Action:
        return answer() if request.target == "/after" else drip(bytes(100), every=0.05)

    with ScriptedPeer(script) as peer, calamint.Pool(http1=http1, limits=limits) as pool:
        began = time.monotonic()
        with pytest.raises(calamint.DeadlineExceeded):
            fetch(pool, peer.url, timeout=0.2)
        assert 0.2 <= time.monotonic() - began < 1.0
        assert fetch(pool, f"{peer.url}/after") == b"ok"


# Tunnels


def test_a_tunnel_ends_one_side_at_a_time() -> None:
    """101 on HTTP/1.1: our end is the end of our half of the connection, and what comes after it is read."""

    def handle(sock: socket.socket) -> None:
        assert b"upgrade: shout" in read_head(sock)
        sock.sendall(b"HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: shout\r\n\r\nwelcome ")
        heard = b""
        while data := sock.recv(65_536):
            heard += data
        sock.sendall(heard.upper())

    headers = {"connection": "upgrade", "upgrade": "shout"}
    with ThreadServer(handle) as server, calamint.Pool() as pool, pool.request("GET", server.url, headers) as call:
        said = b""
        while not isinstance(event := call.receive(), core.ResponseEnded):
            if isinstance(event, core.Upgraded):
                assert call.send_data(b"hello ")
                call.send_data(b"there", end=True)  # its response may be there already
            said += event.data if isinstance(event, core.DataReceived) else b""
        assert said == b"welcome HELLO THERE"
        assert pool.stats().connections == 0


@pytest.mark.parametrize("http1", PROTOCOLS)
def test_CONNECT_makes_a_tunnel_in_the_pool(http1: bool) -> None:
    def handle(sock: socket.socket) -> None:
        assert read_head(sock).startswith(b"CONNECT inner.test:80 HTTP/1.1")
        sock.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while data := sock.recv(65_536):
            sock.sendall(data)

    with ExitStack() as stack:
        if http1:
            url = stack.enter_context(ThreadServer(handle)).url
        else:
            url = stack.enter_context(ScriptedPeer([answer(early=True)])).url
        pool = stack.enter_context(calamint.Pool(http1=http1))
        proxy = calamint.core.url.parse_url(url)
        through = calamint.core.url.URL(proxy.origin, "inner.test:80", "", "")
        call = stack.enter_context(pool.request("CONNECT", through, end=False))
        assert isinstance(call.receive(), core.ResponseReceived)
        assert isinstance(call.receive(), core.Upgraded)
        if http1:
            call.send_data(b"ping", end=True)  # its response may be there already
            data = call.receive()
            assert isinstance(data, core.DataReceived) and data.data == b"ping"
            assert isinstance(call.receive(), core.ResponseEnded)
