"""A blocking connection: a socket and the current value, for one thread at a time.

No thread runs here and no clock ticks between calls: every call looks at the clock, and a call that waits wakes up for
`next_timeout`. Whatever the peer sends is read while we write, and the other way round, so that neither starves.
"""

import socket
import ssl
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Final

from calamint import core
from calamint.core.errors import (
    CalamintError,
    CloseError,
    ConnectError,
    ConnectTimeout,
    StreamClosed,
    UnsupportedProtocol,
    to_exception,
)
from calamint.core.exchange import CLOCKS, SETTINGS
from calamint.core.value import INFINITY, Fields
from calamint.net.dial import LONGEST, Waiter, open_tcp, open_unix, read_url, set_options
from calamint.net.tls import Cert, TLSPipe, Verify, make_context

READ_SIZE: Final = 256 * 1024
SEAL_SIZE: Final = 64 * 1024  # plaintext encrypted at a time: what has not left is known to that grain

Tap = Callable[[str, bytes], None]
"""Is called with ">" and every piece of output, and with "<" and every piece of input, TLS taken off."""

Headers = Mapping[str, str] | Iterable[tuple[str | bytes, str | bytes]]


class Response:
    """A whole response, as `Connection.response` gives it: status, fields, content, trailers, interim responses."""

    def __init__(self, status: int, reason: bytes, fields: Fields) -> None:
        self.status = status
        self.reason = reason
        self.fields = fields
        self.content = b""
        self.trailers: Fields = ()
        self.interim: list[core.InterimReceived] = []

    def __repr__(self) -> str:
        return f"<Response {self.status}, {len(self.fields)} fields, {len(self.content)} bytes>"

    def get(self, name: str, default: str | None = None) -> str | None:
        """The first field with this name, in any case of letters."""
        wanted = name.lower().encode("ascii")
        for key, value in self.fields:
            if key.lower() == wanted:
                return value.decode("latin-1")
        return default


class Wire:
    """A socket, with TLS on it or not: takes bytes of the core's output, gives bytes for its input."""

    def __init__(self, sock: socket.socket, tls: TLSPipe | None) -> None:
        self.sock = sock
        self.tls = tls
        self.buffer = bytearray(READ_SIZE)
        self.view = memoryview(self.buffer)
        self.sealed = b""  # ciphertext that the kernel has not taken
        self.held = 0  # plaintext of it of which no byte has left
        self.clean = False  # the peer ended its side in an orderly way
        self.waiter = Waiter(sock)
        sock.setblocking(False)

    def send(self, data: bytes) -> int:
        """Writes without waiting; returns how much of `data` it has taken. Raises OSError, BlockingIOError for: later."""
        if self.tls is None:
            return self.sock.send(data) if data else 0
        taken = 0
        if not self.sealed and data:
            taken = min(len(data), SEAL_SIZE)
            self.tls.seal(data[:taken])
            self.sealed = self.tls.sealed()
            self.held = taken
        if self.sealed:
            try:
                sent = self.sock.send(self.sealed)
            except BlockingIOError:
                sent = 0
            if sent:
                self.sealed = self.sealed[sent:]
                self.held = 0
        return taken

    def receive(self) -> bytes | None:
        """What there is; empty at the end, None where it means nothing yet. Raises OSError, BlockingIOError for: later."""
        size = self.sock.recv_into(self.buffer)
        if self.tls is None:
            self.clean = size == 0
            return bytes(self.view[:size])
        self.tls.feed(self.view[:size])
        data = self.tls.open()
        self.sealed += self.tls.sealed()  # key updates and such
        self.clean = self.tls.clean
        if data or self.tls.ended:
            return data
        return None

    def close(self) -> None:
        """Says what can be said without waiting, and closes."""
        try:
            if self.tls is not None and not self.sealed:
                self.tls.end()
                self.sock.send(self.tls.sealed())
        except OSError:
            pass
        finally:
            self.sock.close()


class Connection:
    """A blocking connection: requests go out, events come in. See `calamint.connect`.

    It owns its socket; `value` is the current value, which can be kept, compared, pickled and forked. One thread at a
    time may use it. Content counts as consumed when its event is taken.
    """

    def __init__(self, wire: Wire, value: core.Connection, data: bytes, tap: Tap | None = None) -> None:
        self._wire = wire
        self._tap = tap
        self._state: tuple[core.Connection, bytes] = (value, data)  # replaced by one assignment
        self._inbox: deque[core.Event] = deque()
        self._marked = False  # bytes have moved and are not recorded yet: whatever interrupts that condemns us
        self._deaf = False  # the peer takes no more bytes; what it sent before can still be read
        self._corked = False
        self._ended = False

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
        return self._ended

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
        for no limit; silence is bounded by `clocks`. Raises AtCapacity, LocalProtocolError, and the error that closed it.
        """
        now = time.monotonic()
        deadline = INFINITY if timeout is None else now + timeout
        data = content.encode() if isinstance(content, str) else content
        fields = to_fields(headers)
        self._begin()
        try:
            value, out, ref = core.request(
                self._state[0], method, target, fields, data, now, end=end, deadline=deadline, clocks=clocks
            )
        except CalamintError:
            self._marked = False
            raise
        self._step(value, out, ())
        self._write()
        return ref

    def send_data(self, ref: int, data: bytes, *, end: bool = False, trailers: Headers = ()) -> None:
        """More of a request's content. Returns when no more than the output budget waits: reading goes on meanwhile."""
        fields = to_fields(trailers)
        self._begin()
        try:
            value, out = core.send_data(self._state[0], ref, data, time.monotonic(), end=end, trailers=fields)
        except CalamintError:
            self._marked = False
            raise
        self._step(value, out, ())
        self._write()
        while not self._ended and core.queued(self._state[0], ref) > 0:
            self._wait(None)

    def cancel(self, ref: int) -> None:
        """The caller wants no more of it: RST_STREAM on HTTP/2; on HTTP/1.1 the connection ends."""
        self._begin()
        self._step(*core.cancel(self._state[0], ref, time.monotonic()))
        self._inbox = deque([event for event in self._inbox if getattr(event, "ref", None) != ref])
        self._write()

    def cork(self) -> "Cork":
        """Within `with connection.cork():` nothing is written; at its end everything is, in one go."""
        return Cork(self)

    def receive(self, timeout: float | None = None) -> list[core.Event]:
        """The events that are there, or the next ones that come within `timeout` seconds; empty where none came."""
        deadline = INFINITY if timeout is None else time.monotonic() + timeout
        while not self._inbox and not self._ended:
            if not self._wait(deadline):
                break
        return self._take_all()

    def events(self) -> Iterator[core.Event]:
        """Events as they come, until no request is in flight."""
        while True:
            while self._inbox:
                event = self._inbox.popleft()
                yield event
                if isinstance(event, core.DataReceived):
                    self._consume(event.ref, len(event.data))
            if self._ended or not core.in_flight(self._state[0]):
                return
            self._wait(None)

    def response(self, ref: int) -> Response:
        """The whole response to a request. Raises what failed it. Events of other requests stay for later."""
        response = Response(0, b"", ())
        parts: list[bytes] = []
        while True:
            others: deque[core.Event] = deque()
            mine: list[core.Event] = []
            for event in self._inbox:
                if isinstance(event, PER_REQUEST) and event.ref == ref:
                    mine.append(event)
                else:
                    others.append(event)
            self._inbox = others
            for event in mine:
                if isinstance(event, core.DataReceived):
                    parts.append(event.data)
                    self._consume(ref, len(event.data))
                elif isinstance(event, core.ResponseReceived):
                    response.status, response.fields, response.reason = event.status, event.fields, event.reason
                elif isinstance(event, core.InterimReceived):
                    response.interim.append(event)
                elif isinstance(event, core.TrailersReceived):
                    response.trailers = event.fields
                elif isinstance(event, core.RequestFailed):
                    raise to_exception(event.failure)
                elif isinstance(event, core.ResponseEnded):
                    response.content = b"".join(parts)
                    return response
            if self._ended or not core.is_live(self._state[0], ref):
                raise StreamClosed(f"request {ref} is over, and its events have been taken")
            self._wait(None)

    def close(self) -> None:
        """Ends the connection: requests in flight fail. A no-op when it is closed."""
        if self._ended:
            return
        self._ended = True
        value, out, events = core.close(self._state[0], time.monotonic())
        self._state = (value, self._state[1] + out)
        self._inbox.extend(events)
        try:
            self._wire.send(self._state[1])
        except OSError:
            pass
        self._wire.close()

    def __enter__(self) -> "Connection":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # For a selector loop of the caller's own

    def fileno(self) -> int:
        """The socket's descriptor, for a selector."""
        return self._wire.sock.fileno()

    @property
    def wants_write(self) -> bool:
        """Whether bytes wait for the socket to become writable."""
        return not self._ended and not self._deaf and bool(self._state[1] or self._wire.sealed)

    def next_timeout(self) -> float | None:
        """When `on_timeout` has to be called, by time.monotonic(); None for never."""
        wake = INFINITY if self._ended else core.next_timeout(self._state[0])
        return None if wake == INFINITY else wake

    def on_readable(self) -> list[core.Event]:
        """The socket can be read: what came, without waiting."""
        self._read()
        self._write()
        return self._take_all()

    def on_writable(self) -> list[core.Event]:
        """The socket can be written."""
        self._write()
        return self._take_all()

    def on_timeout(self) -> list[core.Event]:
        """A clock may have run out."""
        self._tick()
        return self._take_all()

    # The turn: receive, write what came out, deliver

    def _begin(self) -> None:
        """Marks the beginning of what must not be interrupted; raises where the connection is over."""
        if self._marked:
            self._condemn()
        if self._ended:
            raise CloseError("the connection is closed")
        self._marked = True

    def _condemn(self) -> None:
        """A signal came between bytes and their record: the connection cannot be trusted any more."""
        self._marked = False
        if not self._ended:
            self._end(False, "an interrupt came between two steps")
            raise CloseError("the connection was interrupted between two steps (a signal?) and is closed")

    def _step(self, value: core.Connection, out: bytes, events: Iterable[core.Event]) -> None:
        """A verb's result is recorded, and the mark taken away."""
        self._state = (value, self._state[1] + out if out else self._state[1])
        if out and self._tap is not None:
            self._tap(">", out)
        self._inbox.extend(events)
        self._marked = False

    def _write(self) -> None:
        """Writes what the kernel takes, and asks the core for more as long as it takes all."""
        if self._corked or self._ended or self._deaf:
            return
        wire = self._wire
        while True:
            self._begin()
            value, out = self._state
            if not out and not wire.sealed:
                self._step(*core.flush(value, time.monotonic()))
                if not self._state[1]:
                    return
                continue
            try:
                sent = wire.send(out)
            except BlockingIOError:
                self._marked = False
                return
            except OSError:
                self._deaf = True  # the response may have come before the end did: it is read first
                self._marked = False
                return
            self._state = (value, out[sent:])
            self._marked = False
            if wire.sealed or (sent < len(out) and wire.tls is None):
                return

    def _wait(self, deadline: float | None) -> bool:
        """One turn: waits for the socket or for a clock, until `deadline`; False where that has passed."""
        now = time.monotonic()
        limit = INFINITY if deadline is None else deadline
        until = min(core.next_timeout(self._state[0]), limit, now + LONGEST)
        reading = core.wants_read(self._state[0])
        readable, writable = self._wire.waiter.wait(reading, self.wants_write, until - now)
        if readable:
            self._read()
        if writable or self._state[1]:
            self._write()
        now = time.monotonic()
        if now >= core.next_timeout(self._state[0]):
            self._tick()
        return now < limit or bool(self._inbox)

    def _read(self) -> None:
        """One read of the socket, and one `receive` of the core."""
        self._begin()
        wire = self._wire
        try:
            data = wire.receive()
        except BlockingIOError:
            self._marked = False
            return
        except OSError as error:
            self._end(False, error.strerror or str(error))
            return
        if data:
            if self._tap is not None:
                self._tap("<", data)
            self._step(*core.receive(self._state[0], data, time.monotonic()))
            if core.is_closed(self._state[0]):
                self._hang_up()
        self._marked = False
        if data == b"" or (wire.tls is not None and wire.tls.ended):
            self._end(wire.clean, "")

    def _tick(self) -> None:
        """Lets the core end what its clocks say."""
        self._begin()
        self._step(*core.handle_timeout(self._state[0], time.monotonic()))
        if core.is_closed(self._state[0]):
            self._hang_up()
        self._write()

    def _consume(self, ref: int, size: int) -> None:
        """The reader has this much: window credit."""
        if self._ended:
            return
        self._begin()
        self._step(*core.consume(self._state[0], ref, size, time.monotonic()))
        if self._state[1]:
            self._write()

    def _take_all(self) -> list[core.Event]:
        """Everything that has come, consumed."""
        events = list(self._inbox)
        self._inbox.clear()
        for event in events:
            if isinstance(event, core.DataReceived):
                self._consume(event.ref, len(event.data))
        return events

    def _hang_up(self) -> None:
        """The core ended the connection: its last words are sent if they can be, and the socket is closed."""
        self._marked = False
        self._write()
        self._ended = True
        self._wire.close()

    def _end(self, clean: bool, reason: str) -> None:
        """The transport ended."""
        if self._ended:
            return
        unsent = len(self._state[1]) + self._wire.held
        value, events = core.closed(self._state[0], time.monotonic(), unsent=unsent, clean=clean, reason=reason)
        self._state = (value, b"")
        self._inbox.extend(events)
        self._marked = False
        self._ended = True
        self._wire.sock.close()


PER_REQUEST: Final = (
    core.InterimReceived,
    core.ResponseReceived,
    core.DataReceived,
    core.TrailersReceived,
    core.ResponseEnded,
    core.RequestFailed,
    core.WindowOpened,
)


class Cork:
    """See `Connection.cork`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection._corked = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection._corked = False
        self._connection._write()


def to_fields(headers: Headers) -> Fields:
    """Fields as the core takes them: bytes, in their order."""
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    return tuple([(to_bytes(name), to_bytes(value)) for name, value in pairs])


def to_bytes(text: str | bytes) -> bytes:
    """Field text as it goes on the wire: what Latin-1 cannot say goes as UTF-8."""
    if isinstance(text, bytes):
        return text
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return text.encode("utf-8")


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
) -> Connection:
    """A connection to the URL's origin; its path is not used. Blocks for at most `timeout` seconds: DNS, TCP and TLS.

    https asks by ALPN for what `http1` and `http2` allow; http is HTTP/1.1, or HTTP/2 by prior knowledge with `http1=False`
    (RFC 9113 §3.3). `verify` and `cert`: see `calamint.net.tls.make_context`. `uds`: a Unix domain socket to connect to
    instead; `sock`: a connected socket to use. `server_hostname`: the name in the certificate, if not the URL's host. `tap`:
    is called with ">" and every piece of output, with "<" and every piece of input, TLS taken off.
    Raises InvalidURL, UnsupportedProtocol, ConnectError, ConnectTimeout.
    """
    origin = read_url(url).origin
    wanted = [name for name, allowed in (("h2", http2), ("http/1.1", http1)) if allowed]
    if not wanted:
        raise UnsupportedProtocol("http1=False and http2=False leave no protocol")
    deadline = INFINITY if timeout is None else time.monotonic() + timeout
    context = make_context(verify, cert, wanted) if origin.scheme == "https" else None
    if sock is None:
        until = min(deadline, time.monotonic() + LONGEST)
        sock = open_unix(uds, until) if uds is not None else open_tcp(origin.host, origin.port, until)
    elif sock.family in (socket.AF_INET, socket.AF_INET6):
        set_options(sock)
    try:
        tls = None
        protocol = wanted[-1]
        if context is not None:
            tls = start_tls(sock, context, server_hostname or origin.host, deadline)
            protocol = tls.object.selected_alpn_protocol() or "http/1.1"
            if protocol not in wanted:
                raise ConnectError(f"the server speaks {protocol} where {' or '.join(wanted)} was asked for")
        value, data = core.connect(protocol, origin, settings, time.monotonic())
        if tap is not None:
            tap(">", data)
        connection = Connection(Wire(sock, tls), value, data, tap)
        connection._write()
    except BaseException:
        sock.close()
        raise
    return connection


def start_tls(sock: socket.socket, context: ssl.SSLContext, server_hostname: str, deadline: float) -> TLSPipe:
    """TLS on a connected socket, its handshake done."""
    tls = TLSPipe(context, server_hostname)
    try:
        done = False
        while not done:
            try:
                done = tls.handshake()
            finally:
                sealed = tls.sealed()
                if sealed:
                    sock.settimeout(min(LONGEST, max(0.001, deadline - time.monotonic())))
                    sock.sendall(sealed)
            if not done:
                sock.settimeout(min(LONGEST, max(0.001, deadline - time.monotonic())))
                tls.feed(sock.recv(READ_SIZE))
    except TimeoutError:
        raise ConnectTimeout(f"no TLS with {server_hostname} within the connect limit", unprocessed=True) from None
    except ssl.SSLError as error:
        raise ConnectError(f"no TLS with {server_hostname}: {error.strerror or error}", unprocessed=True) from error
    except OSError as error:
        what = error.strerror or error
        raise ConnectError(f"the connection broke in the TLS handshake: {what}", unprocessed=True) from error
    return tls
