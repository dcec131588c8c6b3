"""Ways to reach the real servers: through `calamint.connect`, or with the verbs and a socket."""

import socket
import ssl
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

import calamint
from calamint import core
from calamint.core.value import Fields
from calamint.net.sync import Tap
from tests import servers

SECONDS = 20.0  # for what a server here does at once
FULL = ("nginx", "apache", "node", "h2o", "haproxy", "hypercorn")  # what speaks both protocols
KEYS = (("http1", "http/1.1"), ("https", "http/1.1"), ("https", "h2"), ("h2c", "h2"))

E = TypeVar("E", bound=core.Event)


@dataclass(frozen=True)
class Way:
    """A server, the key of its url, and the protocol to ask for."""

    server: servers.Server
    key: str
    protocol: str

    @property
    def url(self) -> str:
        return self.server.urls[self.key].replace("127.0.0.1", "localhost")

    def dial(self, settings: core.Settings | None = None, tap: Tap | None = None) -> calamint.Connection:
        """A connection, of the protocol asked for."""
        verify = str(self.server.ca_file) if self.key == "https" else True
        http2 = self.protocol == "h2"
        settings = core.Settings() if settings is None else settings
        return calamint.connect(self.url, http1=not http2, http2=http2, verify=verify, settings=settings, tap=tap)

    def loop(self, settings: core.Settings | None = None, reading: bool = True) -> "Loop":
        """The verbs over a socket; on HTTP/2 the server's SETTINGS have come."""
        return Loop(self, core.Settings() if settings is None else settings, reading)


class Loop:
    """The smallest driver: one value, one blocking socket. It serves where `calamint.connect` does not reach.

    What has come is in `events`. Where `reading` is false, content does not count as consumed.
    """

    def __init__(self, way: Way, settings: core.Settings, reading: bool) -> None:
        scheme, host, port = way.url.replace("://", ":").split(":")
        self.sock = socket.create_connection((host, int(port)), timeout=SECONDS)
        if scheme == "https":
            context = ssl.create_default_context(cafile=str(way.server.ca_file))
            context.set_alpn_protocols([way.protocol])
            self.sock = context.wrap_socket(self.sock, server_hostname=host)
        self.events: list[core.Event] = []
        self.reading = reading
        self.value, data = core.connect(way.protocol, core.Origin(scheme, host, int(port)), settings, time.monotonic())
        self.put(self.value, data)
        if way.protocol == "h2":
            self.until(core.SettingsReceived)

    def __enter__(self) -> "Loop":
        return self

    def __exit__(self, *reason: object) -> None:
        self.sock.close()

    def request(self, method: str, target: str, fields: Fields = (), end: bool = True, protocol: str = "") -> int:
        """A request without content; its ref."""
        value, data, ref = core.request(
            self.value, method, target, fields, None, time.monotonic(), end=end, protocol=protocol
        )
        self.put(value, data)
        return ref

    def send(self, ref: int, data: bytes, end: bool = False) -> None:
        """Content, or what goes into a tunnel."""
        self.put(*core.send_data(self.value, ref, data, time.monotonic(), end=end))

    def put(self, value: core.Connection, data: bytes, events: Iterable[core.Event] = ()) -> None:
        """Takes what a verb gave, and writes."""
        self.sock.sendall(data)
        self.value, more, after = core.flush(value, time.monotonic())
        self.events += [*events, *after]
        if more:
            self.put(self.value, more)

    def turn(self) -> None:
        """One read."""
        data = self.sock.recv(65536)
        known = len(self.events)
        if data:
            self.put(*core.receive(self.value, data, time.monotonic()))
        else:
            self.value, events = core.closed(self.value, time.monotonic(), clean=True)
            self.events += events
        for event in self.events[known:]:
            if self.reading and isinstance(event, core.DataReceived):
                self.put(*core.consume(self.value, event.ref, len(event.data), time.monotonic()))

    def until(self, kind: type[E], ref: int = 0) -> E:
        """The first event of this kind, of this request if one is given; reads until it is there."""
        while True:
            for event in self.events:
                if isinstance(event, kind) and ref in (0, getattr(event, "ref", 0)):
                    return event
            assert not core.is_closed(self.value), self.events
            self.turn()

    def content(self, ref: int, size: int) -> bytes:
        """What has come of a request's content, or through its tunnel, when it is at least this much."""
        while len(content := self.received(ref)) < size:
            assert core.is_live(self.value, ref), self.events
            self.turn()
        return content

    def received(self, ref: int) -> bytes:
        return b"".join([item.data for item in self.events if isinstance(item, core.DataReceived) and item.ref == ref])

    def round_trip(self) -> None:
        """Whatever the server had to say before the answer to this has come."""
        before = self.count(core.PingAcknowledged)
        self.put(*core.ping(self.value, time.monotonic()))
        while self.count(core.PingAcknowledged) == before:
            assert not core.is_closed(self.value), self.events
            self.turn()

    def count(self, kind: type[core.Event]) -> int:
        return len([event for event in self.events if isinstance(event, kind)])


def ways(names: Iterable[str], protocol: str = "") -> list[tuple[str, str, str]]:
    """How these servers can be reached, for `parametrize("way", …, indirect=True)`; nghttpd speaks HTTP/2 alone."""
    pairs = [(name, *pair) for name in names for pair in KEYS]
    return [each for each in pairs if protocol in ("", each[2]) and (each[0] != "nghttpd" or each[2] == "h2")]


def settle(conn: calamint.Connection) -> core.Snapshot:
    """The snapshot after all requests are over: no slot is taken, and nothing waits."""
    snapshot = conn.snapshot()
    assert snapshot.requests == snapshot.unsent == snapshot.unconfirmed == ()
    assert snapshot.unflushed == 0
    return snapshot
