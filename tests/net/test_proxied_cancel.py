"""What comes in between on the way through a proxy: cancellation at every suspension of a dial on asyncio, and an interrupt
before any of its lines in a thread. Afterwards the slot serves, and nothing is left."""

import asyncio
import signal
import ssl
import sys
import warnings
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

import pytest

import calamint
from calamint.net import approach, dial, handshake, hub, route, socks, tls
from calamint.net.aio import Pool
from calamint.net.aio_link import Approach
from calamint.net.proxy import Proxy
from calamint.testing import ScriptedPeer
from tests.net.aio_run import LIMIT, LOOPS, CancelledAt, Place, cancelled_at
from tests.net.pool_help import at_rest
from tests.net.proxied import ONE, PASSWORD, USER, LoopProxy
from tests.net.proxied import socks as speaks_socks
from tests.net.test_threads_interrupts import interrupt_at, is_locked, places
from tests.servers import PrivateCa

pytestmark = pytest.mark.usefixtures("nothing_left")
AUTH: Final = (USER, PASSWORD)
WAYS: Final = ["https", "http", "socks5", "forward"]
OURS: Final = frozenset(str(module.__file__) for module in (approach, dial, handshake, hub, route, socks, tls))


class Course:
    """An origin behind a proxy of one kind: TLS in TLS, TLS in a tunnel, TLS behind SOCKS, or what is forwarded in TLS."""

    def __init__(self, way: str, peer: ScriptedPeer, loop: LoopProxy, ca: PrivateCa) -> None:
        self.peer = peer
        self.loop = loop
        scheme = "https" if way == "forward" else way
        self.proxy = Proxy(loop.url(scheme), auth=AUTH, ssl=ca.ca_file)
        self.url = "http://one.test/" if way == "forward" else f"https://localhost:{peer.port}/"


@contextmanager
def course(way: str, ca: PrivateCa) -> Iterator[Course]:
    """Both servers."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(ca.cert_file, ca.key_file)
    handle = speaks_socks(AUTH) if way == "socks5" else None
    with ScriptedPeer(tls=context) as peer:
        with LoopProxy(handle, context if way in ("https", "forward") else None) as loop:
            yield Course(way, peer, loop, ca)


Strike = Callable[[], None]


class Struck(CancelledAt):
    """Does something at the so-many-th suspension of some work; `late`: when what that waits for is there."""

    def __init__(self, work: Coroutine[object, None, object], point: int, late: bool, act: Strike | None) -> None:
        super().__init__(work, point, late)
        self.act = act

    def strike(self, waits_for: object) -> None:
        act = self.act
        if act is None:
            super().strike(waits_for)
        elif self.late and isinstance(waits_for, asyncio.Future):
            waits_for.add_done_callback(lambda _: act())
        else:
            act()


class Dials:
    """A loop's task factory that strikes at the suspensions of the first dial; `count`: how many it had."""

    def __init__(self, point: int, late: bool, act: Strike | None = None) -> None:
        self.point = point
        self.late = late
        self.act = act
        self.stepper: Struck | None = None

    def __call__(self, loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> "asyncio.Task[Any]":
        if self.stepper is None and coro.cr_code is Approach.run.__code__:
            self.stepper = Struck(coro, self.point, self.late, self.act)
            coro = await_it(self.stepper)
        return asyncio.Task(coro, loop=loop, **options)

    @property
    def count(self) -> int:
        return 0 if self.stepper is None else self.stepper.count


class Closing:
    """Closes a pool, in a task."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.tasks: list[asyncio.Task[None]] = []

    def __call__(self) -> None:
        self.tasks.append(asyncio.ensure_future(self.pool.aclose()))


async def await_it(stepper: Struck) -> None:
    await stepper


async def get(pool: Pool, it: Course) -> bytes:
    async with pool.request("GET", it.url, proxy=it.proxy, timeout=LIMIT) as call:
        return (await call.response()).content


async def check_after(pool: Pool, it: Course) -> None:
    """The slot serves; then nothing is left, on either side of the proxy."""
    assert await get(pool, it) == b"ok"
    stats = pool.stats()
    assert (stats.running, stats.waiting, stats.dialling, stats.connections) == (0, 0, 0, 1)
    await pool.aclose()


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("loop", LOOPS)
def test_F1_a_dial_is_cancelled_at_each_of_its_suspensions(
    loop: str, way: str, late: bool, private_ca: PrivateCa
) -> None:
    """Whoever does that: the caller gets a ConnectError, or his answer where the dial was over."""

    async def work() -> int:
        point, count, failures = 0, 0, 0
        while point <= count:
            dials = Dials(point, late)
            asyncio.get_running_loop().set_task_factory(dials)
            pool = Pool(limits=ONE, verify=private_ca.ca_file)
            try:
                assert await get(pool, it) == b"ok"
            except (calamint.ConnectError, calamint.ReadError) as error:
                # in the last turn of all the connection is made, and asyncio closes it again
                assert "the attempt to connect was cancelled" in str(error) or "its transport was closed" in str(error)
                failures += 1
            count = max(count, dials.count)
            await check_after(pool, it)
            point += 1
        assert failures
        return count

    with course(way, private_ca) as it:
        count = Place(loop, "tls", private_ca).run(work())
    # an address, a connection, a handshake or two, a tunnel, a transport; what comes at once takes no suspension
    assert count >= 3


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("loop", LOOPS)
def test_F1_a_pool_is_closed_at_each_suspension_of_a_dial(
    loop: str, way: str, late: bool, private_ca: PrivateCa
) -> None:
    """And waits for nothing: the caller is told."""

    async def work() -> None:
        point, count = 1, 1
        while point <= count:
            pool = Pool(limits=ONE, verify=private_ca.ca_file)
            closing = Closing(pool)
            dials = Dials(point, late, closing)
            asyncio.get_running_loop().set_task_factory(dials)
            with suppress(calamint.TransportError, calamint.StreamClosed):
                assert await get(pool, it) == b"ok"
            count = max(count, dials.count)
            await asyncio.gather(*closing.tasks)
            await pool.aclose()  # a dial that was quicker this time did not get that far
            assert pool.snapshot().describe() == "no connections"
            point += 1

    with course(way, private_ca) as it:
        Place(loop, "tls", private_ca).run(work())


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("loop", LOOPS)
def test_F1_the_caller_is_cancelled_at_each_suspension(loop: str, way: str, late: bool, private_ca: PrivateCa) -> None:
    """The dial goes on without him, and serves the next."""

    async def work() -> None:
        point, count = 0, 0
        while point <= count:
            pool = Pool(limits=ONE, verify=private_ca.ca_file)
            count = max(count, await cancelled_at(get_and_close(pool, it), point, late))
            if not pool._closed:
                await check_after(pool, it)
            await pool.aclose()
            point += 1
        assert count >= 2

    async def get_and_close(pool: Pool, it: Course) -> None:
        assert await get(pool, it) == b"ok"
        await pool.aclose()

    with course(way, private_ca) as it:
        Place(loop, "tls", private_ca).run(work())


# Interrupts


def interrupt_everywhere(way: str, ca: PrivateCa, step: int) -> None:
    """At each `step`-th line on the way of a cold request. No lock is held then, nobody leads, and the slot serves."""

    def get(pool: calamint.Pool, it: Course) -> bytes:
        with pool.request("GET", it.url, proxy=it.proxy, timeout=LIMIT) as call:
            return call.response().content

    with course(way, ca) as it, warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "a request was dropped unclosed")  # by what came before its `with` block
        warnings.filterwarnings("ignore", "unclosed <socket")  # between a socket's birth and its record it has no owner
        with calamint.Pool(limits=ONE, verify=ca.ca_file) as pool:
            found = places(lambda: check(get(pool, it)), pool, OURS)
        assert len(found) > 200
        reached = 0
        for place in found[::step]:
            with calamint.Pool(limits=ONE, verify=ca.ca_file) as pool:
                reached += interrupt_at(place, lambda pool=pool: check(get(pool, it)), pool)  # type: ignore[misc]  # default
                assert not is_locked(pool), place
                assert get(pool, it) == b"ok", place
                assert (pool._hub.leader, pool._hub.followers, pool._hub.conditions) == (None, {}, {}), place
                at_rest(pool)
        assert reached > 0.5 * len(found[::step])


def check(content: bytes) -> None:
    assert content == b"ok"


@pytest.fixture
def interruptible() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
    sys.settrace(None)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("way", WAYS)
def test_an_interrupt_on_many_lines_of_the_way(way: str, private_ca: PrivateCa) -> None:
    interrupt_everywhere(way, private_ca, 37)


@pytest.mark.slow
@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("way", WAYS)
def test_an_interrupt_on_any_line_of_the_way(way: str, private_ca: PrivateCa) -> None:
    interrupt_everywhere(way, private_ca, 1)
