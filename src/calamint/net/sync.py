"""A blocking connection: a socket and the current value, for one thread at a time.

No thread runs here and no clock ticks between calls: every call looks at the clock, and a call that waits wakes up for
`next_timeout`. Whatever the peer sends is read while we write, and the other way round, so that neither starves.
"""

import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType

from calamint import core
from calamint.core.errors import CloseError, ConnectError, InvalidURL, StreamClosed, UnsupportedProtocol
from calamint.core.exchange import CLOCKS, SETTINGS
from calamint.core.value import INFINITY
from calamint.net.dial import LONGEST, Resolver, look_up, open_tcp, open_unix, read_url, reason, set_options
from calamint.net.handshake import Layers, stages
from calamint.net.proxy import Proxy, absolute_form
from calamint.net.response import Headers, Response, assemble, is_end, to_fields
from calamint.net.route import Route
from calamint.net.tls import Cert, Verify
from calamint.net.wire import Waiter, Wire, shake_hands

Tap = Callable[[str, bytes], None]
"""Is called with ">" and every piece of output, and with "<" and every piece of input, TLS taken off."""

INTERRUPTED = "an interrupt (a signal?) came between bytes and their record"


class Connection:
    """A blocking connection: requests go out, events come in. See `calamint.connect`.

    It owns its socket; `value` is the current value, which can be kept, compared, pickled and forked. One thread at a
    time may use it. Content counts as consumed when its event is taken.
    """

    def __init__(
        self, wire: Wire, value: core.Connection, data: bytes, tap: Tap | None = None, forwarder: Proxy | None = None
    ) -> None:
        """`forwarder`: the proxy at the other end, where requests are for it to send on."""
        self._wire = wire
        self._forwarder = forwarder
        self._waiter = Waiter(wire.sock)
        self._tap = tap
        self._state: tuple[core.Connection, bytes] = (value, data)  # replaced by one assignment
        self._inbox: deque[core.Event] = deque()
        self._taken: deque[core.Event] = deque()  # consumed, and not returned yet: no interrupt may lose them
        self._marked = False  # something has moved and is not recorded yet: whatever interrupts that condemns us
        self._corked = False
        self._ended = ""  # why, once it is over

    # What it is

    @property
    def value(self) -> core.Connection:
        """The connection as a value."""
        return self._state[0]

    @property
    def protocol(self) -> str:
        """ "h2" or "http/1.1"."""
        return core.protocol(self._state[0])

    @property
    def is_closed(self) -> bool:
        """Whether nothing more can be sent or received."""
        return bool(self._ended)

    @property
    def capacity(self) -> int:
        """How many more requests may be sent now."""
        return 0 if self._ended else core.capacity(self._state[0])

    def snapshot(self) -> core.Snapshot:
        """The connection at this moment; `print(connection.snapshot().describe())` says what waits for what."""
        return core.snapshot(self._state[0], time.monotonic())

    # What a caller does

    def request(
        self,
        method: str,
        target: str,
        headers: Headers = (),
        content: bytes | str | None = None,
        *,
        end: bool = True,
        timeout: float | None = None,
        clocks: core.Clocks = CLOCKS,
    ) -> int:
        """Sends a request and returns its ref; what it says comes as events, or all at once from `response(ref)`.

        `content`: all of it, or its beginning with `end=False` and `send_data` for the rest. `timeout`: seconds in all, None
        for no limit; silence is bounded by `clocks`. Raises AtCapacity, LocalProtocolError, or CloseError when it is over.
        """
        now = time.monotonic()
        deadline = INFINITY if timeout is None else now + timeout
        data = content.encode() if isinstance(content, str) else content
        fields = to_fields(headers)
        if self._forwarder is not None:
            target, fields = absolute_form(self._state[0].setup.origin, target), fields + self._forwarder.fields
        self._check(unprocessed=True)
        self._look()
        self._check(unprocessed=True)
        value, out, ref = core.request(
            self._state[0], method, target, fields, data, now, end=end, deadline=deadline, clocks=clocks
        )
        self._step(value, out, ())
        self._push()
        return ref

    def send_data(self, ref: int, data: bytes, *, end: bool = False, trailers: Headers = ()) -> bool:
        """More of a request's content; False where the peer has ended the request already, and its events say how.

        Returns when no more than the output budget waits; reading goes on meanwhile. It does not wait either while half a
        window of the response is unread: the peer may go on only after the reader does.
        """
        fields = to_fields(trailers)
        self._settle()
        if any([is_end(event, ref) for event in (*self._taken, *self._inbox)]):
            return False
        self._check()
        self._step(*core.send_data(self._state[0], ref, data, time.monotonic(), end=end, trailers=fields), ())
        self._push()
        most = self._state[0].setup.settings.stream_window // 2
        while not self._ended and core.queued(self._state[0], ref) > 0 and self._unread(ref) <= most:
            self._wait(INFINITY)
        return core.is_live(self._state[0], ref)

    def cancel(self, ref: int) -> None:
        """The caller wants no more of it: RST_STREAM on HTTP/2; on HTTP/1.1 the connection ends. A no-op when it is over."""
        self._settle()
        if not self._ended:
            self._step(*core.cancel(self._state[0], ref, time.monotonic()))
            self._push()
        self._inbox = deque([event for event in self._inbox if getattr(event, "ref", 0) != ref])
        self._taken = deque([event for event in self._taken if getattr(event, "ref", 0) != ref])

    def cork(self) -> "Cork":
        """Within `with connection.cork():` nothing is written unless a call waits; at its end everything is, in one go."""
        return Cork(self)

    def receive(self, timeout: float | None = None) -> list[core.Event]:
        """The events that are there, or the next ones that come within `timeout` seconds; empty where none came.

        Raises CloseError when the connection is over and its last event has been taken.
        """
        deadline = INFINITY if timeout is None else time.monotonic() + timeout
        self._settle()
        while not self._inbox and not self._taken:
            self._check()
            if not self._wait(deadline):
                break
        return self._take_all()

    def events(self) -> Iterator[core.Event]:
        """Events as they come, until no request is in flight."""
        while True:
            self._settle()
            self._take()
            while self._taken:
                event = self._taken[0]
                del self._taken[0]
                yield event
            if self._inbox:
                continue
            if self._ended or not core.in_flight(self._state[0]):
                return
            self._wait(INFINITY)

    def response(self, ref: int) -> Response:
        """The whole response to a request. Raises what failed it. Events of other requests stay for later."""
        self._settle()
        over = any([is_end(event, ref) for event in self._taken])  # left there by one that was interrupted
        while not over and not self._take(ref):
            if self._ended or not core.is_live(self._state[0], ref):
                raise StreamClosed(f"request {ref} is over, and its events have been taken")
            if not core.wants_read(self._state[0]):
                self._take()  # HTTP/1.1, and the responses before this one are in its way
            self._wait(INFINITY)
        mine = [event for event in self._taken if getattr(event, "ref", 0) == ref]
        self._taken = deque([event for event in self._taken if getattr(event, "ref", 0) != ref])
        return assemble(mine)

    def close(self) -> None:
        """Ends the connection: requests in flight fail. A no-op when it is closed."""
        self._settle()
        if not self._ended:
            self._step(*core.close(self._state[0], time.monotonic()))
        self._wire.sock.close()

    def __enter__(self) -> "Connection":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # For a selector loop of the caller's own

    def fileno(self) -> int:
        """The socket's descriptor, for a selector; -1 when it is closed."""
        return self._wire.sock.fileno()

    @property
    def wants_write(self) -> bool:
        """Whether bytes wait for the socket to become writable."""
        return not self._ended and not self._wire.deaf and bool(self._state[1] or self._wire.sealed)

    def next_timeout(self) -> float | None:
        """When `on_timeout` has to be called, by time.monotonic(); None for never."""
        wake = INFINITY if self._ended else core.next_timeout(self._state[0])
        return None if wake == INFINITY else wake

    def on_readable(self) -> list[core.Event]:
        """The socket can be read: what came, without waiting."""
        self._settle()
        if not self._ended:
            self._read()
            self._write()
        return self._take_all()

    def on_writable(self) -> list[core.Event]:
        """The socket can be written."""
        self._settle()
        self._write()
        return self._take_all()

    def on_timeout(self) -> list[core.Event]:
        """A clock may have run out. What has come by then is read first: it may be what was waited for."""
        self._settle()
        if not self._ended and core.wants_read(self._state[0]):
            self._read()
        if not self._ended:
            self._tick()
        return self._take_all()

    # The turn: receive, write what came out, deliver

    def _settle(self) -> None:
        """Where an interrupt came between two steps, the connection cannot be trusted any more: it is over."""
        if self._marked and not self._ended:
            self._wire.held = 0
            self._state = (self._state[0], b"")  # what has left is not known: nothing counts as unsent
            self._end(False, INTERRUPTED)

    def _check(self, unprocessed: bool = False) -> None:
        """Raises where the connection is over."""
        self._settle()
        if self._ended:
            raise CloseError(f"the connection is over: {self._ended}", unprocessed=unprocessed)

    def _look(self) -> None:
        """Before a request: what has come over HTTP/1.1 while nothing was asked is no answer to it (RFC 9112 §9.2)."""
        if not core.in_flight(self._state[0]) and core.protocol(self._state[0]) != "h2":
            self._read()

    def _step(self, value: core.Connection, out: bytes, events: Iterable[core.Event]) -> None:
        """A verb's result is recorded, all of it or, if that is interrupted, with a mark."""
        self._marked = True
        self._record(value, out, events)
        self._marked = False

    def _record(self, value: core.Connection, out: bytes, events: Iterable[core.Event]) -> None:
        """Within a mark: the next value, its output, and what happened."""
        waiting = self._state[1]
        self._state = (value, waiting + out if out else waiting)
        if out and self._tap is not None:
            self._tap(">", out)
        self._inbox.extend(events)
        if core.is_closed(value):
            self._hang_up(b"" if waiting else out)

    def _push(self) -> None:
        """Writes, unless the caller will do more first."""
        if not self._corked:
            self._write()

    def _begin(self, leftover: bytes) -> None:
        """Says what comes first, and hears what has come already with the end of the handshake."""
        self._write()
        if leftover and not self._ended:
            if self._tap is not None:
                self._tap("<", leftover)
            self._step(*core.receive(self._state[0], leftover, time.monotonic()))
            self._write()
        if self._wire.tls is not None and not self._ended:
            self._read()

    def _write(self) -> None:
        """Writes what the kernel takes, and asks the core for more as long as it takes all."""
        wire = self._wire
        while not self._ended and not wire.deaf:
            value, out = self._state
            if out or wire.sealed:
                self._marked = True
                sent = wire.send(out)
                self._state = (value, out[sent:])
                self._marked = False
                if sent < len(out) or wire.sealed:
                    left = len(out) - sent + len(wire.sealed)
                    self._step(
                        *core.flush(value, time.monotonic(), min(left, value.written))
                    )  # the clocks want to know
                    return
            self._step(*core.flush(value, time.monotonic()))
            if not self._state[1]:
                if core.wants_shutdown(value):
                    wire.shut_down()
                return

    def _wait(self, deadline: float) -> bool:
        """One turn: waits for the socket or for a clock, until `deadline`; False where that has passed."""
        now = time.monotonic()
        value = self._state[0]
        until = min(core.next_timeout(value), deadline, now + LONGEST)
        readable, writable = self._waiter.wait(core.wants_read(value), self.wants_write, until - now)
        if readable:
            self._read()
        if writable or self._state[1]:
            self._write()
        now = time.monotonic()
        if now >= core.next_timeout(self._state[0]):
            self._tick()
        return now < deadline or bool(self._inbox)

    def _read(self) -> None:
        """One read of the socket, and one `receive` of the core."""
        wire = self._wire
        self._marked = True
        try:
            data = wire.receive()
        except OSError as error:
            self._end(False, error.strerror or str(error))
            return
        if data:
            if self._tap is not None:
                self._tap("<", data)
            self._record(*core.receive(self._state[0], data, time.monotonic()))
        if wire.ended:
            self._end(wire.clean, wire.reason)
        self._marked = False

    def _tick(self) -> None:
        """Lets the core end what its clocks say."""
        self._step(*core.handle_timeout(self._state[0], time.monotonic()))
        self._write()

    def _take(self, ref: int = 0) -> bool:
        """What has come of a request, or (0) of all: consumed, and kept until it is returned. Whether it ends there."""
        mine: list[core.Event] = []
        rest: deque[core.Event] = deque()
        sizes: dict[int, int] = {}
        for event in self._inbox:
            if ref and getattr(event, "ref", 0) != ref:
                rest.append(event)
                continue
            mine.append(event)
            if isinstance(event, core.DataReceived):
                sizes[event.ref] = sizes.get(event.ref, 0) + len(event.data)
        if not mine:
            return False
        self._marked = True
        self._inbox = rest
        self._taken.extend(mine)
        now = time.monotonic()
        for each, size in sizes.items():
            value, out, events = core.consume(self._state[0], each, size, now)
            if value is not self._state[0]:  # it is, where the request is over
                self._record(value, out, events)
        self._marked = False
        if self._state[1]:
            self._push()
        return is_end(mine[-1], ref)

    def _take_all(self) -> list[core.Event]:
        """Everything that has come, consumed."""
        self._take()
        events = list(self._taken)
        self._taken = deque()
        return events

    def _unread(self, ref: int) -> int:
        """Bytes of a request's content that nobody has taken."""
        return sum([len(item.data) for item in self._inbox if isinstance(item, core.DataReceived) and item.ref == ref])

    def _hang_up(self, words: bytes) -> None:
        """The core ended the connection: its last words are sent if they can be, and the socket is closed."""
        if self._ended:
            return
        last = self._inbox[-1] if self._inbox else None
        failure = last.failure if isinstance(last, core.ConnectionClosed) else None
        self._ended = "it was ended in order" if failure is None else failure.message
        if words and not self._wire.sealed and not self._wire.deaf:
            self._wire.send(words)
        self._wire.close()

    def _end(self, clean: bool, reason: str) -> None:
        """The transport ended."""
        if self._ended:
            return
        value, out = self._state
        unsent = len(out) + self._wire.held
        value, events = core.closed(value, time.monotonic(), unsent=unsent, clean=clean, reason=reason)
        self._state = (value, b"")
        self._inbox.extend(events)
        self._ended = reason or ("the peer closed it" if clean else "it broke")
        self._wire.sock.close()
        self._marked = False


class Cork:
    """See `Connection.cork`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._outer = False

    def __enter__(self) -> None:
        self._outer = self._connection._corked
        self._connection._corked = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection._corked = self._outer
        self._connection._settle()
        self._connection._push()


def connect(
    url: str,
    *,
    http1: bool = True,
    http2: bool = True,
    verify: Verify = True,
    cert: Cert | None = None,
    timeout: float | None = 10.0,
    uds: str | None = None,
    sock: socket.socket | None = None,
    server_hostname: str | None = None,
    settings: core.Settings = SETTINGS,
    tap: Tap | None = None,
    resolver: Resolver = look_up,
    proxy: str | Proxy | None = None,
) -> Connection:
    """A connection to the URL's origin; its path is not used. Blocks for at most `timeout` seconds: DNS, TCP, TLS, proxy.

    https asks by ALPN for what `http1` and `http2` allow; http is HTTP/1.1, or HTTP/2 by prior knowledge with `http1=False`
    (RFC 9113 §3.3). `verify` and `cert`: see `calamint.net.tls.make_context`. `uds`: a Unix domain socket to connect to
    instead; `sock`: a connected socket to use. `server_hostname`: the name in the certificate, if not the URL's host. `tap`:
    is called with ">" and every piece of output, with "<" and every piece of input, TLS taken off. `resolver`: from host
    and port to addresses, as socket.getaddrinfo gives them. `proxy`: to be reached through it; requests of an http URL are
    sent to an HTTP proxy itself, in absolute form.
    Raises InvalidURL, UnsupportedProtocol, ConnectError, ConnectTimeout, ProxyError, RemoteProtocolError where the peer speaks
    HTTP/1.1 before it is asked, OSError for a file that cannot be read, and ValueError for a proxy with `uds`.
    """
    origin = read_url(url).origin
    wanted = [name for name, allowed in (("h2", http2), ("http/1.1", http1)) if allowed]
    if not wanted:
        raise UnsupportedProtocol("http1=False and http2=False leave no protocol")
    if proxy is not None and uds is not None:
        raise ValueError("uds= and proxy= both say where to connect to: choose one of them")
    deadline = INFINITY if timeout is None else time.monotonic() + timeout
    way = Proxy(proxy) if isinstance(proxy, str) else proxy
    forwarder = way if way is not None and way.forwards(origin) else None
    if origin.scheme == "http":
        wanted = wanted[-1:] if forwarder is None else ["http/1.1"]
    route = Route(verify, cert, resolver, uds, None, server_hostname, way, forwarder is not None)
    layers = make_layers(route, origin, wanted)
    if sock is None:
        until = min(deadline, time.monotonic() + LONGEST)
        sock = open_unix(uds, until) if uds is not None else open_tcp(*route.address(origin), until, resolver)
    else:
        take_over(sock)
    try:
        shake_hands(sock, layers, deadline)
        protocol = route.spoken(origin, wanted, layers)
        value, data = core.connect(protocol, origin, settings, time.monotonic())
        if tap is not None:
            tap(">", data)
        connection = Connection(Wire(sock, layers.pipe), value, data, tap, forwarder)
        connection._begin(layers.leftover)
    except BaseException:
        sock.close()
        raise
    return connection


def take_over(sock: socket.socket) -> None:
    """Sets the options of the caller's own socket. Raises ConnectError, and then it is closed."""
    try:
        set_options(sock)
    except OSError as error:
        sock.close()
        raise ConnectError(f"the socket that was given is of no use: {reason(error)}", unprocessed=True) from error


def make_layers(route: Route, origin: core.Origin, wanted: Sequence[str]) -> Layers:
    """The handshakes on the way. Raises as `connect` does, before anything is dialled."""
    try:
        return Layers(
            stages(route.proxy, origin, route.start_tls(origin, wanted) if origin.scheme == "https" else None)
        )
    except ValueError as error:
        raise InvalidURL(f"{route.server_hostname or origin.host!r} is no name for a certificate: {error}") from None
