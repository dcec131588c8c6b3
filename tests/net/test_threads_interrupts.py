"""Ctrl-C at any moment in a pool for threads: outside of marks it ends one call; where something was half done it costs the
pool its connections, never its slots, its locks, or another request's answer."""

import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Collection, Iterator
from linecache import getline
from types import FrameType
from typing import Any

import pytest

import calamint
from calamint import core
from calamint.net import hub, threads, wire
from calamint.testing import Action, Request, ScriptedPeer, answer, delay, forget
from tests.net.pool_help import at_rest, fetch, in_threads, nothing_left, wait_until
from tests.net.thread_server import LIMIT

CONTENT = bytes(range(256)) * 1200  # above the output budget, and above the first windows of HTTP/2
PROTOCOLS = [pytest.param(True, id="http1"), pytest.param(False, id="h2")]
OURS = {threads.__file__, hub.__file__, wire.__file__}
Place = tuple[str, int, int]
"""A file, a line in it, and which time it is executed."""


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with nothing_left():
        yield
    signal.signal(signal.SIGINT, before)


def script(request: Request) -> Action:
    """Back what came, or `small`."""
    return answer(content=request.content if request.target.endswith("/echo") else b"small")


# A real signal


@pytest.mark.skipif(os.name == "nt", reason="no pthread_kill here")
@pytest.mark.parametrize("place", ["leader", "follower"])
def test_a_signal_while_waiting_ends_one_call(place: str) -> None:
    """And if that led, another thread does from then on."""
    with ScriptedPeer([answer(), forget(), delay(0.15, answer(content=b"late"))]) as peer:
        with calamint.Pool(http1=False) as pool:
            assert fetch(pool, peer.url) == b"ok"
            call, other = pool.request("GET", peer.url), pool.request("GET", peer.url)
            contents: list[bytes] = []
            thread = threading.Thread(target=lambda: contents.append(other.response().content))
            main = threading.get_ident()

            def interrupt() -> None:
                wait_until(lambda: pool._hub.asleep)
                if place == "leader":
                    thread.start()
                wait_until(lambda: pool._hub.followers)
                signal.pthread_kill(main, signal.SIGINT)

            interrupter = threading.Thread(target=interrupt)
            if place == "follower":
                thread.start()
                wait_until(lambda: pool._hub.asleep)
            interrupter.start()
            with pytest.raises(KeyboardInterrupt), call:
                call.receive()
            interrupter.join()
            thread.join(LIMIT)
            assert contents == [b"late"]
            at_rest(pool)
            assert peer.wait_for(lambda report: report.resets).connections == 1


# Any line


def traced(run: Callable[[], object], visit: Callable[[FrameType], None], files: Collection[str] = OURS) -> None:
    """Calls `visit` before each line of these files that `run` executes in this thread."""

    def local(frame: FrameType, event: str, argument: object) -> Any:
        if event == "line":
            visit(frame)
        return local

    def enter(frame: FrameType, event: str, argument: object) -> Any:
        code = frame.f_code
        return (
            local if code.co_filename in files and code.co_name != "__del__" else None
        )  # what that raises, Python drops

    before = sys.gettrace()
    sys.settrace(enter)
    try:
        run()
    finally:
        sys.settrace(before)


def is_exit(pool: calamint.Pool, frame: FrameType) -> bool:
    """Whether this line event comes between the end of a block `with self._lock:` and its `__exit__`. No signal does: the
    interpreter looks for them after calls and on its way back in loops."""
    return is_locked(pool) and "with self._lock:" in getline(frame.f_code.co_filename, frame.f_lineno)


def is_locked(pool: calamint.Pool) -> bool:
    """Whether this thread holds the pool's lock."""
    return bool(pool._lock._is_owned())  # type: ignore[attr-defined]  # typeshed leaves it out


class Scenario:
    """An upload that is sent back, one that is cancelled, and a download that is read as events."""

    def __init__(self, pool: calamint.Pool, url: str) -> None:
        self.pool = pool
        self.url = url

    def run(self) -> None:
        """What is interrupted."""
        pool = self.pool
        with pool.request("POST", f"{self.url}/echo", end=False, timeout=LIMIT) as call:
            for at in range(0, len(CONTENT), 100_000):
                call.send_data(CONTENT[at : at + 100_000], end=at + 100_000 >= len(CONTENT))
            assert call.response().content == CONTENT
        with pool.request("GET", f"{self.url}/cancelled", timeout=LIMIT) as call:
            call.cancel()
        with pool.request("GET", f"{self.url}/small", timeout=LIMIT) as call:
            parts: list[bytes] = []
            while not call.is_over:
                parts += [event.data for event in call.receive_all() if isinstance(event, core.DataReceived)]
            while (event := call.receive()) is not None:
                parts += [event.data] if isinstance(event, core.DataReceived) else []
            assert b"".join(parts) == b"small"


def places(run: Callable[[], None], pool: calamint.Pool, files: Collection[str] = OURS) -> list[Place]:
    """Every line of these files that it executes: the first time, one in the middle, and the last."""
    counts: dict[tuple[str, int], int] = {}

    def visit(frame: FrameType) -> None:
        if not is_exit(pool, frame):
            place = (frame.f_code.co_filename, frame.f_lineno)
            counts[place] = counts.get(place, 0) + 1

    traced(run, visit, files)
    return [(*place, time) for place, count in counts.items() for time in sorted({1, (count + 1) // 2, count})]


def interrupt_at(place: Place, run: Callable[[], None], pool: calamint.Pool) -> bool:
    """Runs it, with KeyboardInterrupt at this place; whether it got that far."""
    file, line, left = place

    def visit(frame: FrameType) -> None:
        nonlocal left
        if frame.f_lineno == line and frame.f_code.co_filename == file and not is_exit(pool, frame):
            left -= 1
            if left == 0:
                raise KeyboardInterrupt

    try:
        traced(run, visit, {file})
    except KeyboardInterrupt:
        return True
    return False


def interrupt_everywhere(http1: bool, cold: bool, step: int) -> None:
    """At each `step`-th place. Afterwards no lock is held, nobody leads, all slots serve, and every answer is the right one."""
    limits = calamint.Limits(max_connections=1)
    with ScriptedPeer(script, max_streams=2) as peer, warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "a request was dropped unclosed")  # by what came before its `with` block
        with calamint.Pool(http1=http1, limits=limits) as pool:
            found = places(Scenario(pool, peer.url).run, pool)
        assert len(found) > 150
        condemned = reached = 0
        for number, place in enumerate(found[::step], 1):
            with calamint.Pool(http1=http1, limits=limits) as pool:
                scenario = Scenario(pool, f"{peer.url}/{number}")
                if not cold:
                    assert fetch(pool, f"{peer.url}/warm") == b"small"
                before = pool._hub
                reached += interrupt_at(place, scenario.run, pool)
                assert not is_locked(pool), place
                for _ in range(2):
                    assert fetch(pool, f"{peer.url}/after") == b"small", place
                condemned += pool._hub is not before
                assert (pool._hub.leader, pool._hub.followers, pool._hub.conditions) == (None, {}, {}), place
                at_rest(pool)
            seen = [it for it in peer.report.requests if it.target.startswith(f"/{number}/")]
            assert len({it.target for it in seen}) == len(seen), place
            assert all([CONTENT.startswith(it.content) for it in seen]), place
        assert reached > 0.5 * number
        assert 0.05 * number < condemned < 0.9 * number  # of all places 0.71; few of them are looked at
        assert peer.report.protocol_errors == ()


@pytest.mark.parametrize("http1", PROTOCOLS)
def test_an_interrupt_before_many_lines(http1: bool) -> None:
    interrupt_everywhere(http1, cold=True, step=31)


@pytest.mark.slow
@pytest.mark.parametrize("http1", PROTOCOLS)
@pytest.mark.parametrize("cold", [False, True], ids=["warm", "cold"])
def test_an_interrupt_before_any_line(http1: bool, cold: bool) -> None:
    interrupt_everywhere(http1, cold, step=1)


def test_an_interrupt_half_way_fails_what_runs_and_starts_over() -> None:
    """In one thread, while others wait: all of them are told; and the next request is served."""
    with ScriptedPeer(lambda request: forget() if request.target == "/stuck" else answer()) as peer:
        with calamint.Pool(http1=False) as pool:
            assert fetch(pool, peer.url) == b"ok"
            failures: list[str] = []

            def wait(number: int) -> None:
                with pytest.raises(calamint.ReadError) as caught:
                    fetch(pool, f"{peer.url}/stuck")
                failures.append(str(caught.value))

            def spoil() -> None:
                wait_until(lambda: len(pool._hub.followers) == 2)
                old = pool._hub
                with pytest.raises(KeyboardInterrupt):
                    interrupt_in("carry_out", lambda: fetch(pool, peer.url))
                assert pool._hub is not old

            spoiler = threading.Thread(target=spoil)
            spoiler.start()
            in_threads(3, wait)
            spoiler.join()
            assert failures == [threads.INTERRUPTED] * 3
            assert fetch(pool, peer.url) == b"ok"
            report = peer.wait_for(lambda report: report.connections_open == 1)
            assert report.connections == 2


def test_who_gives_up_meanwhile_does_not_keep_the_news_from_others() -> None:
    """One whose time to wait is over when the pool starts over, and who would be the next to be told."""
    with ScriptedPeer([forget()]) as peer, calamint.Pool(http1=False) as pool:
        failures: list[BaseException] = []

        def wait(seconds: float | None) -> None:
            with pytest.raises((calamint.ReadError, TimeoutError)) as caught, pool.request("GET", peer.url) as call:
                call.receive(seconds)
            failures.append(caught.value)

        waiters = [threading.Thread(target=wait, args=[seconds], daemon=True) for seconds in (None, None, 0.3)]
        for number, waiter in enumerate(waiters):
            waiter.start()
            wait_until(lambda number=number: pool._hub.asleep and len(pool._hub.followers) == number)  # type: ignore[misc]
        with pool._lock:
            pool._hub.marked = True
            pool._enter()
            waiters[-1].join(0.5)  # its time is over
        for waiter in waiters:
            waiter.join(LIMIT)
        assert not [waiter for waiter in waiters if waiter.is_alive()]
        assert len(failures) == 3


def interrupt_in(function: str, run: Callable[[], object]) -> None:
    """Runs it, with KeyboardInterrupt at the first line of this function."""

    def visit(frame: FrameType) -> None:
        if frame.f_code.co_name == function:
            sys.settrace(None)
            raise KeyboardInterrupt

    traced(run, visit)


def test_a_mark_that_is_left_behind_is_found_by_the_next_caller() -> None:
    """Whatever it calls; a pool that was closing stays closed."""
    with ScriptedPeer() as peer, calamint.Pool(http1=False) as pool:
        for look in (pool.stats, pool.snapshot):
            assert fetch(pool, peer.url) == b"ok"
            pool._hub.marked = True
            look()
            assert pool.stats().connections == 0
        call = pool.request("GET", peer.url)
        pool._hub.marked = True
        call.cancel()
        with pytest.raises(calamint.ReadError, match="an interrupt"):
            call.receive()
        pool.close()
        pool._hub.marked = True
        with pytest.raises(calamint.LocalProtocolError, match="is closing"):
            pool.request("GET", peer.url)


@pytest.mark.skipif(os.name == "nt", reason="no pthread_kill here")
def test_two_interrupts_do_not_take_the_lead_away() -> None:
    """The second one comes as the first ends the wait."""
    seen: list[str] = []

    def enter(frame: FrameType, event: str, argument: object) -> None:
        if frame.f_code.co_name == "_go":
            sys.settrace(None)
            seen.append("second")
            raise KeyboardInterrupt

    def handle(number: int, frame: FrameType | None) -> None:
        seen.append("first")
        sys.settrace(enter)
        raise KeyboardInterrupt

    main = threading.get_ident()
    with ScriptedPeer([answer(), forget(), answer()]) as peer, calamint.Pool(http1=False) as pool:
        assert fetch(pool, peer.url) == b"ok"
        signal.signal(signal.SIGINT, handle)

        def interrupt() -> None:
            wait_until(lambda: pool._hub.asleep)
            signal.pthread_kill(main, signal.SIGINT)

        interrupter = threading.Thread(target=interrupt)
        with pool.request("GET", peer.url) as call:
            interrupter.start()
            with pytest.raises(KeyboardInterrupt):
                call.receive()
        interrupter.join()
        assert seen == ["first", "second"]
        assert pool._hub.leader is None
        assert fetch(pool, peer.url) == b"ok"
        at_rest(pool)


# A handler that uses the pool itself


def handle_at(place: Place, run: Callable[[], None], pool: calamint.Pool, handler: Callable[[bool], None]) -> bool:
    """Runs it, and the handler at this place, which is told whether the pool is being changed; whether it got that far."""
    file, line, left = place
    reached = False

    def visit(frame: FrameType) -> None:
        nonlocal left, reached
        if frame.f_lineno == line and frame.f_code.co_filename == file:
            left -= 1
            if left == 0:
                reached = True
                handler(is_locked(pool))

    traced(run, visit, {file})
    return reached


def handle_everywhere(http1: bool, step: int) -> None:
    """At each `step`-th place: a handler's request is served or, where this thread is changing the pool, refused, and what
    was interrupted goes on as if nothing had been."""
    limits = calamint.Limits(max_connections=2)
    with ScriptedPeer(script, max_streams=4) as peer, calamint.Pool(http1=http1, limits=limits) as pool:
        served = refused = reached = 0

        def handler(locked: bool) -> None:
            nonlocal served, refused
            if not locked:
                assert fetch(pool, f"{peer.url}/handler") == b"small"
                served += 1
                return
            for use in (lambda: fetch(pool, peer.url), pool.stats, pool.snapshot, pool.close):
                with pytest.raises(RuntimeError, match="in the middle of a change"):
                    use()
            refused += 1

        found = places(Scenario(pool, peer.url).run, pool)
        before = pool._hub
        for number, place in enumerate(found[::step], 1):
            reached += handle_at(place, Scenario(pool, f"{peer.url}/{number}").run, pool, handler)
            assert pool._hub is before and not is_locked(pool), place
            assert (before.leader, before.followers, before.conditions) == (None, {}, {}), place
            at_rest(pool)
        assert reached > 0.5 * number and served + refused == reached
        assert served > 0.1 * number and refused > 0.1 * number
        assert peer.report.protocol_errors == ()


@pytest.mark.parametrize("http1", PROTOCOLS)
def test_a_handler_uses_the_pool_at_many_lines(http1: bool) -> None:
    handle_everywhere(http1, step=23)


@pytest.mark.slow
@pytest.mark.parametrize("http1", PROTOCOLS)
def test_a_handler_uses_the_pool_at_any_line(http1: bool) -> None:
    handle_everywhere(http1, step=1)


def handled(handler: Callable[[], None], when: Callable[[], object]) -> threading.Thread:
    """Starts a thread that sends this one a signal at that moment, and then the handler runs here."""
    main = threading.get_ident()
    signal.signal(signal.SIGINT, lambda number, frame: handler())

    def interrupt() -> None:
        wait_until(when)
        signal.pthread_kill(main, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    return thread


@pytest.mark.skipif(os.name == "nt", reason="no pthread_kill here")
def test_who_led_leads_again_after_a_handler() -> None:
    """And hears what comes for it, though another thread waits as well."""
    go_on = threading.Event()

    def script(request: Request) -> Action:
        if request.target == "/mine":
            assert go_on.wait(LIMIT)
        return forget() if request.target == "/never" else answer(content=request.target.encode())

    with ScriptedPeer(script) as mine, ScriptedPeer(script) as others, calamint.Pool(http1=False) as pool:
        stuck = pool.request("GET", f"{others.url}/never")
        seen: list[object] = []

        def follow() -> None:
            with pytest.raises(calamint.StreamClosed):
                stuck.receive()

        follower = threading.Thread(target=follow)

        def both_wait() -> bool:
            wait_until(lambda: pool._hub.asleep)
            follower.start()
            wait_until(lambda: pool._hub.followers)
            return True

        def handler() -> None:
            assert fetch(pool, f"{others.url}/handler") == b"/handler"
            seen.append(pool._hub.leader)
            go_on.set()

        with pool.request("GET", f"{mine.url}/mine", timeout=LIMIT) as call:
            thread = handled(handler, both_wait)
            began = time.monotonic()
            assert call.response().content == b"/mine"
            assert time.monotonic() - began < LIMIT / 2
            assert seen == [call._box]
        thread.join()
        stuck.cancel()
        follower.join(LIMIT)
        assert not follower.is_alive()
        at_rest(pool)


@pytest.mark.skipif(os.name == "nt", reason="no pthread_kill here")
def test_a_handler_leads_where_what_it_interrupted_followed() -> None:
    """The lead is not handed to who cannot take it before the handler has ended."""
    asked, left = threading.Event(), threading.Event()

    def first(request: Request) -> Action:
        assert asked.wait(LIMIT)
        return answer(content=b"first")

    def second(request: Request) -> Action:
        if request.target == "/handler":
            asked.set()
            assert left.wait(LIMIT)
        return answer(content=request.target.encode())

    with ScriptedPeer(first) as one, ScriptedPeer(second) as two, calamint.Pool(http1=False) as pool:

        def lead() -> None:
            assert fetch(pool, f"{one.url}/") == b"first"
            left.set()

        leader = threading.Thread(target=lead)
        leader.start()
        wait_until(lambda: pool._hub.asleep)
        with pool.request("GET", f"{one.url}/mine", timeout=LIMIT) as call:
            contents: list[bytes] = []

            def handler() -> None:
                contents.append(fetch(pool, f"{two.url}/handler"))

            thread = handled(handler, lambda: pool._hub.followers)
            assert call.response().content == b"first"
            assert contents == [b"/handler"]
        thread.join()
        leader.join()
        at_rest(pool)
