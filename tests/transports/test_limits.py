"""How long things may take: the limits of httpx and httpx2 as ours."""

import threading
import time
from collections import Counter
from collections.abc import Sequence

import anthropic
import openai
import pytest

import calamint
from calamint.core import pool
from calamint.core.events import DataReceived, Event, RequestFailed, ResponseEnded, ResponseReceived
from calamint.core.pool_state import Action, Deliver, Dial, Key, Pool, Shut, Write
from calamint.core.url import Origin
from calamint.net.dial import Address
from calamint.testing import Journal, Options, PeerConnection, ScriptedPeer, answer, delay, drip, forget, stop_reading
from calamint.transports.shared import Translator, to_limits
from tests.net.pool_help import at_rest
from tests.transports.kit import Kit
from tests.transports.test_httpx import ways

SILENCE = 180.0  # before the head
PAUSE = 90.0  # between events
SDK: dict[str, float | None] = openai.DEFAULT_TIMEOUT.as_dict()


class World:
    """A pool and its peers without sockets, on a clock of their own."""

    def __init__(self, protocol: str = "h2") -> None:
        self.now = 1000.0
        self.protocol = protocol
        self.pool = Pool(to_limits(openai.DEFAULT_CONNECTION_LIMITS))
        self.journal = Journal()
        self.peers: dict[int, PeerConnection] = {}
        self.events: dict[int, list[Event]] = {}
        self.script = [delay(SILENCE, drip(b"onetwotri", 3, PAUSE))]

    def carry_out(self, actions: Sequence[Action]) -> None:
        """What the pool asks for; every byte is there at once."""
        waiting = list(actions)
        while waiting:
            action = waiting.pop(0)
            if isinstance(action, Dial):
                self.peers[action.id] = PeerConnection(self.script, Options(), self.now, self.journal)
                waiting += pool.connected(self.pool, action.id, self.protocol, self.now)
            elif isinstance(action, Write):
                said = self.peers[action.id].receive(action.data, self.now)
                waiting += pool.flushed(self.pool, action.id, self.now)
                waiting += pool.received(self.pool, action.id, said, self.now) if said else []
            elif isinstance(action, Shut):
                del self.peers[action.id]
            elif isinstance(action, Deliver):
                self.events[action.ticket].append(action.event)
                if isinstance(action.event, DataReceived):
                    waiting += pool.consume(self.pool, action.ticket, len(action.event.data), self.now)

    def submit(self, limits: dict[str, float | None]) -> None:
        """A request with these limits of the library's."""
        clocks = Translator().to_clocks(limits)
        origin = Key(Origin("https", "host", 443))
        asked = (self.pool, origin, "POST", "/", (), b"x", self.now, True)
        ticket, actions = pool.submit(*asked, clocks=clocks, queue=limits["pool"], connect=limits["connect"])
        self.events[ticket] = []
        self.carry_out(actions)

    def run(self) -> None:
        """Until all requests are over."""
        while self.pool.jobs:
            self.now = min([self.pool.wake, *[peer.next_timeout() for peer in self.peers.values()]])
            for id, peer in list(self.peers.items()):
                if peer.next_timeout() <= self.now:
                    said = peer.handle_timeout(self.now)
                    self.carry_out(pool.received(self.pool, id, said, self.now))
            self.carry_out(pool.handle_timeout(self.pool, self.now))


@pytest.mark.parametrize("protocol", ["h2", "http/1.1"])
@pytest.mark.parametrize(("read", "cut"), [(600.0, 0), (179.0, 1000), (181.0, 0), (None, 0)])
def test_a_thousand_silent_requests(read: float | None, cut: int, protocol: str) -> None:
    """Under the limits of an SDK none is cut that its own transport would not have cut: `read` bounds each silence."""
    world = World(protocol)
    for _ in range(1000):
        world.submit(SDK | {"read": read})
    assert len(world.pool.jobs) == 1000
    assert len(world.pool.held) == (10 if protocol == "h2" else 1000)  # of 100 streams, or of one request
    began = world.now
    world.run()
    ends = Counter(type(events[-1]) for events in world.events.values())
    assert ends == Counter({RequestFailed if cut else ResponseEnded: 1000})
    assert world.now - began == (179.0 if cut else SILENCE + 2 * PAUSE)
    assert not world.pool.waiting


@pytest.mark.parametrize(("read", "cut"), [(89.0, True), (91.0, False)])
def test_silence_between_events(read: float, cut: bool) -> None:
    world = World()
    world.script = [drip(b"onetwotri", 3, PAUSE)]
    world.submit(SDK | {"read": read})
    began = world.now
    world.run()
    (events,) = world.events.values()
    assert isinstance(events[0], ResponseReceived)
    assert isinstance(events[-1], RequestFailed) is cut
    assert world.now - began == (89.0 if cut else 2 * PAUSE)


def test_nobody_is_hurried_who_reads_slowly_unless_asked() -> None:
    """Our own limit for content that waits unread is off, as the libraries have none."""
    world = World()
    translator = Translator()
    assert translator.to_clocks(SDK).reader == float("inf")
    assert translator.to_clocks(SDK | {"reader": 7.0}).reader == 7.0
    assert translator.to_clocks({}) == calamint.Clocks(None, None, None, None)
    assert translator.to_clocks(SDK) is translator.to_clocks(dict(SDK))
    with pytest.raises(TypeError, match="write seconds"):
        translator.to_clocks({"read": "soon"})
    with pytest.raises(ValueError, match="allowed are seconds"):
        translator.to_clocks({"read": -1})
    assert world.pool.jobs == {}


def test_the_limits_of_the_sdks() -> None:
    """Both have the same ones."""
    assert SDK == {"connect": 5.0, "read": 600.0, "write": 600.0, "pool": 600.0}
    assert anthropic.DEFAULT_TIMEOUT.as_dict() == SDK
    assert anthropic.DEFAULT_CONNECTION_LIMITS == openai.DEFAULT_CONNECTION_LIMITS
    assert to_limits(openai.DEFAULT_CONNECTION_LIMITS).max_connections == 1000


def took(began: float, least: float, most: float = 5.0) -> bool:
    return least <= time.monotonic() - began < most


def test_read(kit: Kit, h2: bool) -> None:
    """Before the head, and between pieces: the time begins again with each."""
    with ScriptedPeer([forget(), drip(b"abcd", 1, 0.1), drip(b"ab", 1, 0.05, end=False)]) as peer:
        with kit.client(**ways(h2)) as client:
            began = time.monotonic()
            with pytest.raises(kit.library.ReadTimeout, match="head=0.3"):
                client.get(peer.url, timeout=0.3)
            assert took(began, 0.3)
            assert client.get(peer.url, timeout=0.3).content == b"abcd"
            began = time.monotonic()
            with pytest.raises(kit.library.ReadTimeout, match="idle=0.3"):
                client.get(peer.url, timeout=0.3)
            assert took(began, 0.3)
            at_rest(client.pool)


def test_write(kit: Kit, h2: bool) -> None:
    """Content that the peer does not take; the silence of a peer that takes it all is no matter of `write`."""
    with ScriptedPeer([stop_reading()]) as peer, kit.client(**ways(h2)) as client:
        began = time.monotonic()
        timeout = kit.library.Timeout(None, write=0.3)
        with pytest.raises(kit.library.WriteTimeout, match="write=0.3"):
            client.request("PUT", peer.url, content=bytes(20_000_000), timeout=timeout)
        assert took(began, 0.3)
        at_rest(client.pool)
    with ScriptedPeer([delay(0.3, answer())]) as peer, kit.client(**ways(h2)) as client:
        timeout = kit.library.Timeout(None, write=0.1)
        assert client.request("PUT", peer.url, content=b"x", timeout=timeout).status_code == 200


def test_connect(kit: Kit) -> None:
    """DNS, TCP, TLS and proxies together."""
    asked = threading.Event()

    def slow(host: str, port: int) -> list[Address]:
        asked.wait(10.0)
        return []

    with kit.client(resolver=slow) as client:
        began = time.monotonic()
        with pytest.raises(kit.library.ConnectTimeout) as caught:
            client.get("http://somewhere.example/", timeout=kit.library.Timeout(None, connect=0.2))
        assert took(began, 0.2)
        assert caught.value.request.url == "http://somewhere.example/"
        began = time.monotonic()
        with pytest.raises(kit.library.ConnectTimeout):
            client.get("http://somewhere.example/", timeout=kit.library.Timeout(None, connect=0.3, pool=0.1))
        assert took(began, 0.3)  # `pool` is for a slot, and there is one
        asked.set()


def test_pool(kit: Kit) -> None:
    limits = calamint.Limits(max_connections=1)
    with ScriptedPeer([drip(b"ab", 1, 0.05, end=False)]) as peer, kit.client(limits=limits, **ways(False)) as client:
        streamed = client.begin("GET", peer.url)
        began = time.monotonic()
        with pytest.raises(kit.library.PoolTimeout, match="1 taken by: GET /"):
            client.get(peer.url, timeout=kit.library.Timeout(None, pool=0.2))
        assert took(began, 0.2)
        streamed.close()
        at_rest(client.pool)


def test_total(kit: Kit, h2: bool) -> None:
    """Ours, for who asks for it: all of the request, however lively its peer is."""
    with ScriptedPeer([drip(b"x" * 30, 1, 0.02)]) as peer, kit.client(**ways(h2)) as client:
        began = time.monotonic()
        with pytest.raises(kit.library.TimeoutException, match=r"\(total\) came 0\.") as caught:
            client.get(peer.url, extensions={"timeout": {"total": 0.2}})
        assert took(began, 0.2, 0.55)
        assert isinstance(caught.value.__cause__, calamint.DeadlineExceeded)
        assert client.get(peer.url, extensions={"timeout": {"total": 30.0, "read": 5.0}}).content == b"x" * 30
        at_rest(client.pool)
