"""What stands between a connected socket and an origin: TLS with a proxy, a tunnel through it, TLS with the origin inside.

Each is a stage: bytes in, bytes out, time as an argument, and no I/O. `Layers` runs one after the other, so that a driver
sees one handshake, and then one `TLSPipe`, however many layers of TLS there are.
"""

import ssl
from collections import deque
from collections.abc import Iterable
from typing import Final, Protocol

from calamint.core import tunnel
from calamint.core.errors import CalamintError, ConnectError, Failure, LocalProtocolError, RemoteProtocolError
from calamint.core.url import Origin
from calamint.core.value import Fields
from calamint.net.proxy import Proxy
from calamint.net.socks import Socks
from calamint.net.tls import TLSPipe

UNKNOWN_ISSUER: Final = frozenset((2, 18, 19, 20, 21))
"""OpenSSL's codes for certificates whose issuer it does not know, themselves among them (X509_V_ERR_…)."""

OF_ORIGIN: Final = 'verify="ca.pem", by the command with --cacert ca.pem'
OF_PROXY: Final = 'Proxy(…, ssl="ca.pem"), by the command with --proxy-cacert ca.pem'


class Refused(CalamintError):
    """A dial has failed, for a reason that is there as a value."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure)
        self.failure = failure


def to_failure(error: BaseException) -> Failure:
    """What a dial has failed of, whatever was raised."""
    if isinstance(error, Refused):
        return error.failure
    if isinstance(error, ConnectError | LocalProtocolError | RemoteProtocolError):
        return Failure(type(error).__name__, -1, str(error), 0, True)
    return Failure("ConnectError", -1, f"{type(error).__name__}: {error}", 0, True)


class Stage(Protocol):
    """One handshake. `what`: in words, after "no". `kind`: the name of the exception when it fails. `done`: it has been made, and
    what came behind it is `leftover`. `failure`: why it will never be made; `cause`: what was raised then, if anything was.
    `pipe`: what it leaves around all that follows.
    """

    what: str
    kind: str
    done: bool
    leftover: bytes
    failure: Failure | None
    cause: Exception | None
    pipe: TLSPipe | None

    def start(self, now: float) -> bytes:
        """The first bytes to send."""

    def feed(self, data: bytes, now: float) -> bytes:
        """Takes what came, none where the other end has closed; returns what is to be sent, with a failure too."""


class Connect:
    """A tunnel through an HTTP proxy, asked for with CONNECT."""

    kind = "ProxyError"
    cause: Exception | None = None
    pipe: TLSPipe | None = None

    def __init__(self, host: str, port: int, fields: Fields) -> None:
        self.host = host
        self.port = port
        self.fields = fields
        self.what = f"tunnel to {tunnel.target_of(host, port)}"
        self.done = False
        self.leftover = b""
        self.failure: Failure | None = None
        self.value: tunnel.Tunnel

    def start(self, now: float) -> bytes:
        """The request. Raises LocalProtocolError where a field or the host may not stand in it."""
        self.value, data = tunnel.begin(self.host, self.port, self.fields, now)
        return data

    def feed(self, data: bytes, now: float) -> bytes:
        """Takes what the proxy says."""
        if data:
            self.value, self.done, self.leftover, self.failure = tunnel.receive(self.value, data, now)
        else:
            self.failure = tunnel.ended(self.value, now)
        return b""


class Secure:
    """The handshake of TLS (RFC 8446 §2)."""

    kind = "ConnectError"

    def __init__(self, pipe: TLSPipe, name: str, trust: str) -> None:
        """`name`: of the other end, in words. `trust`: how to trust another CA with it."""
        self.pipe: TLSPipe | None = pipe
        self.tls = pipe
        self.trust = trust
        self.what = f"TLS with {name}"
        self.done = False
        self.leftover = b""
        self.failure: Failure | None = None
        self.cause: Exception | None = None

    def start(self, now: float) -> bytes:
        """The ClientHello."""
        return self.step()

    def feed(self, data: bytes, now: float) -> bytes:
        """Takes records; what may have come behind the handshake is plaintext then."""
        if not data:
            words = "the other end closed the connection"
            self.cause = ssl.SSLEOFError(ssl.SSL_ERROR_EOF, words)
            return self.fail(words)
        self.tls.feed(data)
        return self.step()

    def step(self) -> bytes:
        """Goes on."""
        try:
            self.done = self.tls.handshake()
        except ssl.SSLError as error:
            self.cause = error
            return self.fail(f"{error.strerror or error}{self.advise(error)}")
        if self.done:
            self.leftover = self.tls.open()
        return self.tls.sealed()

    def advise(self, error: ssl.SSLError) -> str:
        """What to do, where most who come here have to do the same."""
        if isinstance(error, ssl.SSLCertVerificationError) and error.verify_code in UNKNOWN_ISSUER:
            return f"; a CA of your own is trusted with {self.trust}"
        if error.reason == "WRONG_VERSION_NUMBER":
            return "; what came is no TLS: does its URL begin with http://?"
        return ""

    def fail(self, why: str) -> bytes:
        """It will never be made. There may be an alert to send."""
        self.failure = Failure(self.kind, -1, f"no {self.what}: {why}", 0, True)
        return self.tls.sealed()


class Nested(TLSPipe):
    """TLS inside TLS, both handshakes done: what one seals is sealed once more by the one below it."""

    def __init__(self, below: TLSPipe, above: TLSPipe) -> None:
        self.below = below
        self.incoming, self.outgoing, self.object = above.incoming, above.outgoing, above.object
        self.ended, self.clean, self.reason = above.ended, above.clean, above.reason
        self.unsealed = b""  # what the upper one has sealed, and the lower one not yet

    def feed(self, data: bytes | memoryview) -> None:
        """Bytes from the transport; none means that it ended."""
        self.below.feed(data)

    def open(self) -> bytes:
        """All the plaintext that has come."""
        if records := self.below.open():
            super().feed(records)
        data = super().open()
        if self.below.ended and not self.ended:
            super().feed(b"")
            self.reason = self.below.reason or self.reason
            data += super().open()
        return data

    def sealed(self) -> bytes:
        """Bytes for the transport."""
        self.push()
        return self.below.sealed()

    def push(self) -> None:
        """What one has sealed goes to the other."""
        self.unsealed += super().sealed()
        try:
            while self.unsealed:
                self.unsealed = self.unsealed[self.below.seal(self.unsealed) :]
        except ssl.SSLWantReadError:  # the one below has to hear something first
            pass
        except ssl.SSLError:
            if not self.below.ended:
                raise
            self.unsealed = b""  # it is broken, as `open` has told

    def end(self) -> None:
        """Says close_notify in both: the transport is over for both."""
        super().end()
        self.push()
        self.below.end()


class Layers:
    """Stages, one after the other and one inside the other, as one handshake.

    `start` it, send what it returns, `feed` it what comes and send that, until it is `done` or there is a `failure` (what
    `feed` returned then is still to be sent: an alert). Then `pipe` is what is around everything, or None where there is no
    TLS, and `leftover` is the first of what came from the origin: TLS has been taken off, and it is not in `pipe`.
    """

    def __init__(self, stages: Iterable[Stage]) -> None:
        self.stages = deque(stages)
        self.pipe: TLSPipe | None = None
        self.leftover = b""
        self.failure: Failure | None = None
        self.cause: Exception | None = None

    @property
    def done(self) -> bool:
        """Whether all stages have been made."""
        return not self.stages

    def start(self, now: float) -> bytes:
        """The first bytes to send."""
        return self.stages[0].start(now) if self.stages else b""

    def feed(self, data: bytes, now: float) -> bytes:
        """Takes what came from the transport, none where it ended; returns the bytes to send."""
        ended = not data
        if self.pipe is not None:
            self.pipe.feed(data)
            data = self.pipe.open()
        out = self.run(data, now) if data else b""
        if self.pipe is not None:
            ended = self.pipe.ended
        if ended and self.stages and self.failure is None:
            out += self.run(b"", now)
        return out

    def run(self, data: bytes, now: float) -> bytes:
        """Gives data to the stage that runs, and what came behind it to the next one."""
        stage = self.stages[0]
        out = self.seal(stage.feed(data, now))
        while stage.done:
            self.stages.popleft()
            if stage.pipe is not None:
                self.pipe = stage.pipe if self.pipe is None else Nested(self.pipe, stage.pipe)
            self.leftover = stage.leftover
            if not self.stages:
                break
            stage = self.stages[0]
            out += self.seal(stage.start(now))
            if self.leftover:
                out += self.seal(stage.feed(self.leftover, now))
        self.failure, self.cause = stage.failure, stage.cause
        return out

    def seal(self, data: bytes) -> bytes:
        """What a stage says, as it goes to the transport."""
        if self.pipe is None:
            return data
        if self.pipe.ended:  # nobody answers any more, and it may be broken
            return b""
        while data:
            data = data[self.pipe.seal(data) :]
        return self.pipe.sealed()

    def overdue(self) -> Failure:
        """What to say when the time for it is over."""
        return Failure("ConnectTimeout", -1, f"no {self.what} within the connect limit", 0, True, -1, "connect")

    def broken(self, reason: str) -> Failure:
        """What to say when the transport broke, and not in an orderly way, which `feed` is told."""
        kind = self.stages[0].kind if self.stages else "ConnectError"
        return Failure(kind, -1, f"no {self.what}: the connection broke: {reason}", 0, True)

    @property
    def what(self) -> str:
        """The stage that runs, in words."""
        return self.stages[0].what if self.stages else "connection"


def stages(proxy: Proxy | None, origin: Origin, tls: TLSPipe | None) -> list[Stage]:
    """What has to be made on a connected socket, to the proxy if there is one, before the origin can be spoken to, or before
    requests for it can be sent to the proxy itself (see `Proxy.forwards`).

    `tls`: with the origin, None for http. Raises as `Proxy.start_tls` does, and InvalidURL where SOCKS cannot say the host.
    """
    found: list[Stage] = []
    if proxy is not None:
        if proxy.origin.scheme == "https":
            found.append(Secure(proxy.start_tls(), f"the proxy {proxy.origin.authority()}", OF_PROXY))
        if proxy.is_socks:
            found.append(Socks(origin.host, origin.port, proxy.auth))
        elif not proxy.forwards(origin):
            found.append(Connect(origin.host, origin.port, proxy.fields))
    if tls is not None:
        found.append(Secure(tls, origin.authority(), OF_ORIGIN))
    return found
