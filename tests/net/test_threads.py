"""The pool for threads as its callers meet it: calls and their events, what is shared, who waits, what is told, and the end."""

import gc
import logging
import os
import select
import socket
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from selectors import SelectSelector
from types import FrameType

import pytest

import calamint
from calamint import core
from calamint.core.pool_state import Report
from calamint.core.url import parse_url
from calamint.net import hub, threads
from calamint.testing import (
    Action,
    Request,
    ScriptedPeer,
    answer,
    close,
    delay,
    drip,
    forget,
    garbage,
    goaway,
    refuse,
    stop_reading,
)
from tests.net.pool_help import at_rest, descriptors, fetch, in_threads, nothing_left, wait_until
from tests.net.test_tls import server_context
from tests.net.thread_server import LIMIT, ThreadServer, no_answer, read_head
from tests.servers import PrivateCa

HELLO = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"
PROTOCOLS = [pytest.param(True, id="http1"), pytest.param(False, id="h2")]
LARGE = bytes(range(256)) * 4096  # 1 MiB


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    with nothing_left():
        yield


def by_target(request: Request) -> Action:
    """Its own target."""
    return answer(content=request.target.encode())


def echo(request: Request) -> Action:
    return answer(content=request.content)


# Calls


@pytest.mark.parametrize("http1", PROTOCOLS)
def test_events_come_one_by_one_or_together(http1: bool) -> None:
    with ScriptedPeer([answer(content=b"hello")]) as peer, calamint.Pool(http1=http1) as pool:
        with pool.request("GET", peer.url) as call:
            events = [call.receive(), call.receive(), call.receive()]
            assert [type(event).__name__ for event in events] == ["ResponseReceived", "DataReceived", "ResponseEnded"]
            assert (call.receive(), call.receive_all(), call.is_over) == (None, [], True)
            assert call.protocol == ("http/1.1" if http1 else "h2")
        with pool.request("GET", peer.url) as call:
            together: list[core.Event] = []
            while not call.is_over:
                together += call.receive_all()
            together += call.receive_all()
            assert [type(event).__name__ for event in together if not isinstance(event, core.ResponseReceived)] == [
                "DataReceived",
                "ResponseEnded",
            ]
        assert [pool.request("GET", peer.url).response().content for _ in range(3)] == [b"hello"] * 3
        assert call.ticket == 2
        assert peer.report.connections == 1
        at_rest(pool)


@pytest.mark.parametrize("http1", PROTOCOLS)
@pytest.mark.parametrize("taken", ["receive", "receive_all", "response"])
def test_content_above_the_windows(http1: bool, taken: str) -> None:
    """It comes whole, since what is taken counts as consumed; and no more comes ahead than the stream window."""
    settings = calamint.Settings(stream_window=65_535)
    with (
        ScriptedPeer([answer(content=LARGE)]) as peer,
        calamint.Pool(http1=http1, settings=settings) as pool,
        pool.request("GET", peer.url) as call,
    ):
        parts: list[bytes] = []
        if taken == "response":
            parts.append(call.response().content)
        while taken == "receive" and (event := call.receive()) is not None:
            parts += [event.data] if isinstance(event, core.DataReceived) else []
        while taken == "receive_all" and (events := call.receive_all()):
            parts += [each.data for each in events if isinstance(each, core.DataReceived)]
        assert b"".join(parts) == LARGE
        at_rest(pool)


@pytest.mark.parametrize("http1", PROTOCOLS)
def test_an_upload_is_sent_while_its_answer_comes(http1: bool) -> None:
    with (
        ScriptedPeer(echo) as peer,
        calamint.Pool(http1=http1) as pool,
        pool.request("POST", peer.url, end=False) as call,
    ):
        for at in range(0, len(LARGE), 100_000):
            assert call.send_data(LARGE[at : at + 100_000])
        call.send_data(b"", end=True)  # its response may be there already
        assert call.response().content == LARGE
        assert not call.send_data(b"more")


def test_content_given_while_it_waits_for_a_connection() -> None:
    """It is sent with the request; the giver waits until a connection has taken it, or half a window is unread."""
    go = threading.Event()

    def resolver(host: str, port: int) -> list[tuple[int, int, int, str, tuple[str, int]]]:
        assert go.wait(LIMIT)
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", port))]

    with ScriptedPeer(echo) as peer, calamint.Pool(http1=False, resolver=resolver) as pool:
        url = f"http://somewhere.test:{peer.port}"
        with pool.request("POST", url, end=False, content="begin ") as call:
            assert (call.protocol, pool.stats().waiting, pool.stats().dialling) == ("", 1, 1)
            opener = threading.Timer(0.05, go.set)
            opener.start()
            call.send_data(b"end", end=True)  # its response may be there already
            assert go.is_set()
            assert call.protocol == "h2"
            assert call.response().content == b"begin end"
            opener.join()


def test_a_sender_who_follows_is_told_that_its_content_has_left() -> None:
    """When its request gets a connection, although nothing has come for it."""
    go = threading.Event()

    def resolver(host: str, port: int) -> list[tuple[int, int, int, str, tuple[str, int]]]:
        assert go.wait(LIMIT)
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", port))]

    with ScriptedPeer([forget()]) as peer, calamint.Pool(http1=False, resolver=resolver) as pool:
        leading = pool.request("GET", peer.url)
        call = pool.request("POST", f"http://somewhere.test:{peer.port}", end=False)

        def run(number: int) -> None:
            if number == 0:
                with pytest.raises(calamint.StreamClosed):
                    leading.response()
                return
            wait_until(lambda: pool._hub.asleep)
            if number == 1:
                assert call.send_data(b"content")
                leading.cancel()
            else:
                wait_until(lambda: pool._hub.followers)
                go.set()

        in_threads(3, run)
        call.cancel()


def test_a_sender_does_not_wait_for_who_does_not_read() -> None:
    """An answer that nobody takes keeps the peer from reading more: the call returns, so that it can be taken."""
    size = 16_000_000

    def handle(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size + bytes(size))
        with suppress(OSError):
            no_answer(sock)

    settings = calamint.Settings(stream_window=65_535)
    with (
        ThreadServer(handle) as server,
        calamint.Pool(settings=settings) as pool,
        pool.request("POST", server.url, end=False) as call,
    ):
        assert call.send_data(bytes(size))
        assert len(call.response().content) == size


@pytest.mark.parametrize("whole", [True, False])
def test_an_upload_of_which_the_kernel_takes_a_part_at_a_time(whole: bool) -> None:
    """The rest is written as the socket becomes writable, with nothing to read all the while."""
    size = 16_000_000

    def handle(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(HELLO)
        head, _, content = read_head(sock).partition(b"\r\n\r\n")
        assert b"content-length: %d" % size in head.lower()
        left = size - len(content)
        while left:
            left -= len(sock.recv(1_000_000))
        sock.sendall(HELLO)
        no_answer(sock)

    with ThreadServer(handle) as server, calamint.Pool() as pool:
        assert fetch(pool, server.url) == b"hello"
        headers = {"content-length": str(size)}
        with pool.request("POST", server.url, headers, bytes(size) if whole else None, end=whole) as call:
            if not whole:
                call.send_data(bytes(size), end=True)  # its response may be there already
            assert call.response().content == b"hello"


@pytest.mark.parametrize("http1", PROTOCOLS)
def test_a_failure_is_raised_after_what_came_before_it_and_each_time(http1: bool) -> None:
    with ScriptedPeer([close(after=b"half")]) as peer, calamint.Pool(http1=http1) as pool:
        call = pool.request("POST", peer.url)
        assert isinstance(call.receive(), core.ResponseReceived)
        assert isinstance(event := call.receive(), core.DataReceived) and event.data == b"half"
        failures: list[calamint.ReadError] = []
        for ask in (call.receive, call.receive_all, call.response):
            with pytest.raises(calamint.ReadError) as caught:
                ask()
            failures.append(caught.value)
        assert failures[0] is not failures[1]
        assert [failure.attempts for failure in failures] == [1, 1, 1]
        assert isinstance(failures[0].snapshot, core.Snapshot)
        assert call.is_over


def test_a_cancelled_call_is_over() -> None:
    with ScriptedPeer([drip(b"content", every=0.01, end=False)]) as peer, calamint.Pool(http1=False) as pool:
        call = pool.request("GET", peer.url)
        assert isinstance(call.receive(), core.ResponseReceived)
        call.cancel()
        call.cancel()
        for ask in (call.receive, call.response):
            with pytest.raises(calamint.StreamClosed, match="cancelled by its caller"):
                ask()
        assert peer.wait_for(lambda report: report.resets).streams_open == 0
        at_rest(pool)


def test_another_thread_may_cancel_a_call_that_is_waited_for() -> None:
    """Whether who waits for it leads or follows."""
    with ScriptedPeer([forget()]) as peer, calamint.Pool(http1=False) as pool:
        calls = [pool.request("GET", peer.url) for _ in range(3)]

        def wait(number: int) -> None:
            with pytest.raises(calamint.StreamClosed):
                calls[number].response()

        def cancel() -> None:
            wait_until(lambda: len(pool._hub.followers) == 2)
            for call in calls:
                call.cancel()

        canceller = threading.Thread(target=cancel)
        canceller.start()
        in_threads(3, wait)
        canceller.join()
        at_rest(pool)


def test_a_response_that_was_begun_as_events_is_none() -> None:
    with ScriptedPeer() as peer, calamint.Pool() as pool:
        call = pool.request("GET", peer.url)
        call.receive()
        with pytest.raises(calamint.StreamClosed, match="taken as events"):
            call.response()


def test_the_caller_s_mistakes_change_nothing() -> None:
    with ScriptedPeer() as peer, calamint.Pool() as pool:
        for wrong in ({"method": "G T"}, {"headers": {"a b": "c"}}, {"url": f"{peer.url}/", "protocol": "x"}):
            arguments: dict[str, object] = {"method": "GET", "url": peer.url, **wrong}
            for _ in range(2):  # with and without a connection
                with pytest.raises(calamint.LocalProtocolError):
                    pool.request(**arguments).response()  # type: ignore[arg-type]  # by name
                assert fetch(pool, peer.url) == b"ok"
        with pytest.raises(ValueError, match="pool=-1|queue=-1"):
            pool.request("GET", peer.url, pool=-1)
        with pytest.raises(TypeError, match="content is int"):
            pool.request("GET", peer.url, content=5)  # type: ignore[arg-type]  # that is what is tested
        with pytest.raises(calamint.InvalidURL):
            pool.request("GET", "nonsense")
        with pytest.raises(calamint.UnsupportedProtocol):
            pool.request("GET", "ftp://localhost/")
        with pool.request("POST", peer.url, {"content-length": "2"}, end=False) as call:
            with pytest.raises(calamint.LocalProtocolError, match="content-length leaves 2"):
                call.send_data(b"three")
            call.send_data(b"tw", end=True)  # its response may be there already
            assert call.response().status == 200
        assert peer.report.connections == 1
        at_rest(pool)
    with pytest.raises(calamint.UnsupportedProtocol, match="leave no protocol"):
        calamint.Pool(http1=False, http2=False)


def test_a_url_may_be_given_parsed_and_not_all_are_remembered() -> None:
    with ScriptedPeer(by_target) as peer, calamint.Pool() as pool:
        for number in (1, 1, 2):
            assert fetch(pool, f"{peer.url}/{number}") == b"/%d" % number
        with pool.request("GET", parse_url(f"{peer.url}/parsed")) as call:
            assert call.response().content == b"/parsed"
        for number in range(threads.KNOWN_URLS + 1):
            pool._read(f"{peer.url}/{number}")
        assert len(pool._urls) <= threads.KNOWN_URLS
        assert peer.report.connections == 1


# Threads


@pytest.mark.parametrize("http1", PROTOCOLS)
def test_D13_threads_share_connections_and_each_gets_its_own_answer(http1: bool) -> None:
    """8 threads × 50 requests, on one connection of HTTP/2, or on four of HTTP/1.1."""
    limits = calamint.Limits(max_connections=4)
    with ScriptedPeer(by_target) as peer, calamint.Pool(http1=http1, limits=limits) as pool:

        def run(number: int) -> None:
            for place in range(50):
                assert fetch(pool, f"{peer.url}/{number}/{place}") == f"/{number}/{place}".encode()

        in_threads(8, run)
        report = peer.report
        assert len(report.requests) == 400
        assert report.connections == 1 if not http1 else report.connections <= 4
        assert report.protocol_errors == ()
        at_rest(pool)


def test_one_leads_and_the_lead_is_handed_on() -> None:
    """The leader's answer comes first: then another thread waits in the selector, and nobody is forgotten."""
    script = [delay(0.02 * number, answer()) for number in range(6)]
    with ScriptedPeer(script) as peer, calamint.Pool(http1=False) as pool:
        calls = [pool.request("GET", peer.url) for _ in script]

        def run(number: int) -> None:
            assert calls[number].response().status == 200

        in_threads(6, run)
        assert (pool._hub.leader, pool._hub.followers, pool._hub.conditions) == (None, {}, {})


def test_the_leader_is_woken_for_what_is_due_earlier() -> None:
    """It waits for long; another thread's request with a short limit, on a new connection, is ended in time all the same."""
    with ScriptedPeer([forget()]) as peer, ScriptedPeer([forget()]) as other, calamint.Pool(http1=False) as pool:
        call = pool.request("GET", peer.url)

        def lead() -> None:
            with suppress(calamint.StreamClosed):
                call.receive()

        leader = threading.Thread(target=lead)
        leader.start()
        wait_until(lambda: pool._hub.asleep)
        began = time.monotonic()
        with pytest.raises(calamint.DeadlineExceeded):
            pool.request("GET", other.url, timeout=0.05).response()
        assert time.monotonic() - began < 1.0
        call.cancel()
        leader.join(LIMIT)
        assert not leader.is_alive()


@pytest.mark.parametrize("http1", PROTOCOLS)
def test_between_calls_nothing_happens_and_a_request_makes_up_for_it(http1: bool) -> None:
    """What is due is done then, and what has come by then is read first: an answer that was there in time is no failure."""

    def script(request: Request) -> Action:
        return forget() if request.target == "/stuck" else answer()

    with ScriptedPeer(script) as peer, calamint.Pool(http1=http1) as pool, ExitStack() as stack:
        both = [stack.enter_context(pool.request("GET", peer.url)) for _ in range(2)]
        assert [call.response().status for call in both] == [200, 200]
        answered = stack.enter_context(pool.request("GET", peer.url, clocks=calamint.Clocks(head=0.02)))
        stuck = stack.enter_context(pool.request("GET", f"{peer.url}/stuck", clocks=calamint.Clocks(head=0.02)))
        peer.wait_for(lambda report: len(report.requests) == 4)
        threading.Event().wait(0.05)
        assert not answered.is_over and not stuck.is_over
        stack.enter_context(pool.request("GET", f"{peer.url}/stuck"))
        assert answered.is_over and stuck.is_over
        assert answered.response().content == b"ok"
        with pytest.raises(calamint.ReadTimeout):
            stuck.response()


@pytest.mark.parametrize("http1", PROTOCOLS)
def test_a_system_that_has_select_alone(http1: bool) -> None:
    """As Windows: who waits in it sees nothing of what changes meanwhile, and is woken for it; a socket of its set may be
    closed by another thread."""
    script = [answer(), *[forget()] * 8, answer()]
    with ScriptedPeer(script) as peer, calamint.Pool(http1=http1) as pool:
        pool._hub.open(SelectSelector())
        assert fetch(pool, peer.url) == b"ok"
        calls = [pool.request("GET", peer.url) for _ in range(8)]

        def wait(number: int) -> None:
            with pytest.raises(calamint.StreamClosed):
                calls[number].response()

        def cancel() -> None:
            peer.wait_for(lambda report: len(report.requests) == 9)
            wait_until(lambda: pool._hub.asleep and len(pool._hub.followers) == 7)
            for call in calls:
                call.cancel()

        canceller = threading.Thread(target=cancel)
        canceller.start()
        in_threads(8, wait)
        canceller.join()
        in_threads(8, lambda number: fetch(pool, peer.url))
        at_rest(pool)


def test_D14_waiting_costs_no_processor() -> None:
    """Half a second of it in three threads of each protocol, while content that the peer does not take waits too."""
    with ExitStack() as stack:
        urls: list[tuple[calamint.Pool, str]] = []
        stuck: list[calamint.Call] = []
        for http1 in (True, False):
            peer = stack.enter_context(ScriptedPeer([answer(), stop_reading()]))
            other = stack.enter_context(ScriptedPeer([answer(), delay(0.5, answer())]))
            pool = stack.enter_context(calamint.Pool(http1=http1))
            assert (fetch(pool, peer.url), fetch(pool, other.url)) == (b"ok", b"ok")
            stuck.append(stack.enter_context(pool.request("POST", peer.url, content=bytes(20_000_000))))
            urls.append((pool, other.url))
        before = time.process_time()
        in_threads(6, lambda number: fetch(*urls[number % 2]))
        assert time.process_time() - before < 0.25
        assert [call.is_over for call in stuck] == [False, False]


def test_B9_unread_responses_stop_nobody() -> None:
    """12 that are never read, and 80 that are, on one connection."""
    settings = calamint.Settings(stream_window=65_535, connection_window=16 * 65_535)
    with (
        ScriptedPeer([answer(content=LARGE[:200_000])], max_streams=100) as peer,
        calamint.Pool(http1=False, settings=settings) as pool,
    ):
        unread = [pool.request("GET", peer.url) for _ in range(12)]
        assert [isinstance(call.receive(), core.ResponseReceived) for call in unread] == [True] * 12

        def run(number: int) -> None:
            for _ in range(20):
                assert fetch(pool, peer.url) == LARGE[:200_000]

        in_threads(4, run)
        assert [call._box.unread for call in unread] == [65_535] * 12
        for call in unread:
            call.cancel()
        assert peer.report.connections == 1
        at_rest(pool)


def test_an_unread_response_of_HTTP_1_is_not_read_beyond_the_window() -> None:
    """Nor does it stop another, on another connection; when it is read at last, all of it comes."""
    size = 16 * 1024 * 1024

    def handle(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
        sock.sendall(bytes(size))
        no_answer(sock)

    settings = calamint.Settings(stream_window=65_535)
    with ThreadServer(handle) as server, ScriptedPeer() as peer, calamint.Pool(settings=settings) as pool:
        unread = pool.request("GET", server.url)
        assert isinstance(unread.receive(), core.ResponseReceived)
        while not pool._hub.paused:
            assert fetch(pool, peer.url) == b"ok"
        held = unread._box.unread
        for _ in range(5):
            assert fetch(pool, peer.url) == b"ok"
        assert unread._box.unread == held < 65_535 + 256 * 1024
        seen = 0
        while events := unread.receive_all():
            seen += sum([len(event.data) for event in events if isinstance(event, core.DataReceived)])
        assert seen == size
        at_rest(pool)


# Idle connections


def is_readable(pool: calamint.Pool) -> bool:
    """Whether something has come on each connection that the pool holds."""
    socks = [channel.wire.sock for channel in pool._hub.channels.values()]
    return len(select.select(socks, [], [], 0)[0]) == len(socks)


@pytest.mark.parametrize("when", ["in one segment", "later"])
def test_D8_bytes_on_an_idle_connection_are_nobody_s_answer(when: str) -> None:
    """Two responses to one request: the second request goes out on a connection of its own."""
    go_on = threading.Event()

    def handle(sock: socket.socket) -> None:
        first = read_head(sock).split()[1] == b"/first"
        if first and when == "in one segment":
            sock.sendall(HELLO + HELLO.replace(b"hello", b"wrong"))
        else:
            sock.sendall(HELLO)
        if first and when == "later":
            assert go_on.wait(LIMIT)
            sock.sendall(HELLO.replace(b"hello", b"wrong"))
        with suppress(OSError):
            no_answer(sock)

    with ThreadServer(handle, connections=2) as server, calamint.Pool() as pool:
        assert fetch(pool, f"{server.url}/first") == b"hello"
        go_on.set()
        wait_until(lambda: is_readable(pool))
        assert fetch(pool, f"{server.url}/second") == b"hello"
        assert pool.stats().dials == 2


@pytest.mark.parametrize("http1", PROTOCOLS)
def test_D5_a_connection_that_its_server_has_ended_is_replaced(http1: bool) -> None:
    """While it is idle: closed, or on HTTP/2 by GOAWAY. The next request, a POST, is sent once; our end is closed."""
    script = [answer() + (close() if http1 else goaway()), answer()]
    with ScriptedPeer(script) as peer, calamint.Pool(http1=http1) as pool:
        assert fetch(pool, peer.url) == b"ok"
        wait_until(lambda: is_readable(pool))
        threading.Event().wait(2 * hub.FRESH)
        assert fetch(pool, peer.url, "POST") == b"ok"
        report = peer.wait_for(lambda report: report.connections_open == 1)
        assert (report.connections, len(report.requests)) == (2, 2)
        assert pool.stats().replays == 0


def test_D15_a_request_looks_at_one_idle_connection() -> None:
    """What a request does does not grow with the number of idle connections."""
    limits = calamint.Limits(max_connections=150, max_keepalive_connections=150)
    with ScriptedPeer() as peer, calamint.Pool(limits=limits) as pool:
        before = min([count_calls(pool, peer.url) for _ in range(5)])  # in one of them something may be due
        with ExitStack() as stack:
            calls = [stack.enter_context(pool.request("GET", peer.url)) for _ in range(150)]
            assert [call.response().status for call in calls] == [200] * 150
        assert pool.stats().idle >= 100  # those that were dialled when it was their turn
        assert min([count_calls(pool, peer.url) for _ in range(5)]) <= before


def count_calls(pool: calamint.Pool, url: str) -> int:
    """How many functions a request calls until it is sent, on a connection that is idle."""
    fetch(pool, url)
    seen = [0]

    def count(frame: FrameType, event: str, argument: object) -> None:
        seen[0] += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        call = pool.request("GET", url)
    finally:
        sys.setprofile(None)
    call.response()
    return seen[0]


# Calls that nobody holds any more


@pytest.mark.parametrize("http1", PROTOCOLS)
def test_a_dropped_call_gives_its_slot_back(http1: bool) -> None:
    """On the pool's next turn, and with a warning that names the request; whether it has been sent or waits."""
    limits = calamint.Limits(max_connections=1)
    script = [forget(), answer()]
    with ScriptedPeer(script, max_streams=1) as peer, calamint.Pool(http1=http1, limits=limits) as pool:
        calls = [pool.request("GET", f"{peer.url}/dropped") for _ in range(2)]
        assert pool.stats().waiting == 2
        with pytest.raises(calamint.DeadlineExceeded):
            fetch(pool, peer.url, timeout=0.05)
        assert (pool.stats().running, pool.stats().waiting) == (1, 1)
        with pytest.warns(ResourceWarning, match="a request was dropped unclosed: GET /dropped"):
            del calls[:]
            gc.collect()
        assert fetch(pool, peer.url) == b"ok"
        at_rest(pool)
        assert len(peer.report.requests) == 2


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("http1", PROTOCOLS)
def test_a_dropped_call_gives_its_slot_to_who_waits_already(http1: bool, waits: bool) -> None:
    """Whether that one is in the selector by then or not: nobody has to ask for anything."""
    limits = calamint.Limits(max_connections=1)

    def script(request: Request) -> Action:
        return forget() if request.target == "/dropped" else answer()

    with ScriptedPeer(script, max_streams=1) as peer, calamint.Pool(http1=http1, limits=limits) as pool:
        assert fetch(pool, peer.url) == b"ok"  # its SETTINGS are known
        calls = [pool.request("GET", f"{peer.url}/dropped")]
        waiting = pool.request("GET", peer.url, pool=LIMIT)
        assert (pool.stats().running, pool.stats().waiting) == (1, 1)

        def drop() -> None:
            if waits:
                wait_until(lambda: pool._hub.asleep)
            with pytest.warns(ResourceWarning, match="a request was dropped unclosed: GET /dropped"):
                del calls[:]
                gc.collect()

        dropper = threading.Thread(target=drop)
        dropper.start()
        if not waits:
            dropper.join()
        assert waiting.response().content == b"ok"
        dropper.join()
        at_rest(pool)


def test_a_call_that_is_over_may_be_dropped() -> None:
    with ScriptedPeer() as peer, calamint.Pool() as pool, warnings.catch_warnings():
        warnings.simplefilter("error")
        pool.request("GET", peer.url).response()
        call = pool.request("GET", peer.url)
        while not call.is_over:
            call.receive()
        del call
        gc.collect()


# What is told


def test_a_tracer_is_told_what_happens(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[Report] = []
    tell = seen.append
    tracer = calamint.Tracer(
        request=tell, dial=tell, reset=tell, goaway=tell, replay=tell, timeout=tell, condemned=tell
    )
    script = [answer(), refuse(), answer(), forget(), answer() + goaway(), garbage(b"nonsense" * 10), answer()]
    with ScriptedPeer(script) as peer, calamint.Pool(http1=False, tracer=tracer) as pool:
        assert fetch(pool, peer.url) == b"ok"
        assert [report.kind for report in seen] == ["dial", "request"]
        assert (seen[0].text, seen[1].code, seen[1].origin) == ("h2", 200, peer.url)
        del seen[:]
        assert fetch(pool, peer.url) == b"ok"
        assert [report.kind for report in seen if report.kind != "reset"] == ["replay", "request"]
        del seen[:]
        with pytest.raises(calamint.DeadlineExceeded):
            fetch(pool, peer.url, timeout=0.02)
        assert {"timeout", "request", "reset"} == {report.kind for report in seen}
        assert dict(pool.stats().timeouts) == {"total": 1}
        assert fetch(pool, peer.url) == b"ok"
        wait_until(lambda: is_readable(pool))
        with pytest.raises(calamint.RemoteProtocolError):
            fetch(pool, peer.url, "POST")
        assert {"goaway", "condemned"} <= {report.kind for report in seen}
    warned = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [record.name for record in warned] == ["calamint"]
    assert warned[0].getMessage().startswith("condemned: http://127.0.0.1")


def test_a_request_is_logged_for_who_debugs(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "calamint")
    with ScriptedPeer() as peer, calamint.Pool() as pool:
        fetch(pool, f"{peer.url}/logged")
    assert "GET /logged: 200" in caplog.text


def test_a_tracer_may_use_the_pool_itself() -> None:
    """It runs in the thread that leads, outside of every lock."""
    inner: list[bytes] = []

    def tell(report: Report) -> None:
        if not inner:
            inner.append(b"")
            inner[0] = fetch(pool, f"{peer.url}/inner")

    with ScriptedPeer(by_target) as peer, calamint.Pool(http1=False, tracer=calamint.Tracer(dial=tell)) as pool:
        assert fetch(pool, f"{peer.url}/outer") == b"/outer"
        assert inner == [b"/inner"]


def test_a_snapshot_says_who_waits_for_what() -> None:
    with ScriptedPeer([forget()]) as peer, calamint.Pool(limits=calamint.Limits(max_connections=1)) as pool:
        with pool.request("GET", f"{peer.url}/first"), pool.request("GET", f"{peer.url}/second"):
            peer.wait_for(lambda report: report.connections)
            with pytest.raises(calamint.DeadlineExceeded):
                fetch(pool, peer.url, timeout=0.02)
            words = pool.snapshot().describe()
            assert "/first" in words and f"GET {peer.url}/second" in words
            assert (pool.stats().running, pool.stats().waiting) == (1, 1)
        assert pool.snapshot().describe() == "no connections"


# The end


def test_close_fails_what_runs_and_what_waits() -> None:
    """In whatever thread it is waited for; and nothing new is taken."""
    with ScriptedPeer([forget()], max_streams=2) as peer:
        pool = calamint.Pool(http1=False, limits=calamint.Limits(max_connections=1))
        calls = [pool.request("GET", peer.url) for _ in range(4)]

        def run(number: int) -> None:
            with pytest.raises(calamint.StreamClosed, match="closed"):
                calls[number].response()

        def end() -> None:
            peer.wait_for(lambda report: len(report.requests) == 2)
            wait_until(lambda: len(pool._hub.followers) == 3)
            pool.close()

        closer = threading.Thread(target=end)
        closer.start()
        in_threads(4, run)
        closer.join()
        pool.close()
        with pytest.raises(calamint.LocalProtocolError, match="is closing"):
            pool.request("GET", peer.url)
        report = peer.wait_for(lambda report: not report.connections_open)
        assert report.goaways
        assert pool._hub.selector is None


@pytest.mark.parametrize("http1", PROTOCOLS)
def test_close_with_grace_lets_what_runs_end(http1: bool) -> None:
    """Read by who closes, or by who waits for it; what takes longer is reset."""
    with ScriptedPeer([answer(), answer(), delay(0.02, answer(content=b"late")), forget()]) as peer:
        pool = calamint.Pool(http1=http1)
        both = [pool.request("GET", peer.url) for _ in range(2)]
        assert [call.response().content for call in both] == [b"ok", b"ok"]
        call = pool.request("GET", peer.url)
        peer.wait_for(lambda report: len(report.requests) == 3)
        stuck = pool.request("GET", peer.url)
        began = time.monotonic()
        pool.close(0.15)
        assert 0.14 < time.monotonic() - began < 1.0
        assert call.response().content == b"late"
        with pytest.raises(calamint.StreamClosed):
            stuck.response()


def test_a_second_close_may_be_less_patient() -> None:
    with ScriptedPeer([answer(), forget()]) as peer:
        pool = calamint.Pool(http1=False)
        assert fetch(pool, peer.url) == b"ok"
        call = pool.request("GET", peer.url)
        closer = threading.Thread(target=pool.close, args=(LIMIT,))
        closer.start()
        wait_until(lambda: pool._hub.asleep)
        pool.close()
        closer.join(LIMIT)
        assert not closer.is_alive()
        with pytest.raises(calamint.StreamClosed):
            call.receive()


def test_D10_close_waits_for_no_answer(private_ca: PrivateCa) -> None:
    """Not for a close_notify of a peer that neither reads nor ends."""
    go_on = threading.Event()

    def handle(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(HELLO)
        assert go_on.wait(LIMIT)

    context = server_context(private_ca)
    with ThreadServer(handle, tls=context) as server, calamint.Pool(verify=str(private_ca.ca_file)) as pool:
        assert fetch(pool, server.url) == b"hello"
        began = time.monotonic()
        pool.close()
        assert time.monotonic() - began < 0.2
        go_on.set()


def test_a_pool_that_was_never_used_closes() -> None:
    with calamint.Pool() as pool:
        assert pool.stats().connections == 0
    pool.close(1.0)


# Another process


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("http1", PROTOCOLS)
def test_D11_a_forked_child_starts_with_nothing(http1: bool) -> None:
    """Both sides go on, at the same time, and each gets its own answers; the child says so once, in the log."""
    with ScriptedPeer(by_target) as peer, calamint.Pool(http1=http1) as pool:
        assert fetch(pool, f"{peer.url}/warm") == b"/warm"
        running = pool.request("GET", f"{peer.url}/running")
        child = os.fork()
        if not child:
            os._exit(run_child(pool, peer.url, running))
        for number in range(100):
            assert fetch(pool, f"{peer.url}/parent/{number}") == b"/parent/%d" % number
        assert running.response().content == b"/running"
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert peer.report.connections <= 4
        assert peer.report.protocol_errors == ()
        assert [request.target for request in peer.report.requests].count("/running") == 1


def run_child(pool: calamint.Pool, url: str, running: calamint.Call) -> int:
    """0 when all is as it should be."""
    records: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: records.append(record.getMessage())  # type: ignore[method-assign]  # nothing else is left to close
    logging.getLogger("calamint").addHandler(handler)
    try:
        files = descriptors()
        if pool._hub.channels or pool.stats().connections:
            return 1
        try:
            running.receive()
            return 2
        except calamint.ReadError as error:
            if "forked" not in str(error):
                return 3
        for number in range(100):
            if fetch(pool, f"{url}/child/{number}") != b"/child/%d" % number:
                return 4
        pool.close()
        return 0 if len(records) == 1 and descriptors() <= files else 5
    except BaseException:
        return 6
