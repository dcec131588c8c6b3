"""SOCKS version 5 (RFC 1928, RFC 1929) as a stage on the way to an origin. Its messages are made and read by python-socks,
whose own connectors would open the socket, look up the name and wait by themselves."""

import importlib.util
from typing import TYPE_CHECKING, Final

from calamint.core.errors import Failure, InvalidURL
from calamint.core.tunnel import target_of
from calamint.net.tls import TLSPipe

if TYPE_CHECKING:
    from python_socks._protocols.socks5 import ConnectRequest

SHORT: Final = (
    2  # bytes of the replies that choose a way to authenticate and say what came of it (RFC 1928 §3, RFC 1929 §2)
)
GRANTED: Final = b"\5\0\0"  # version, reply, reserved: how a good reply to the request begins (RFC 1928 §6)
ADDRESSES: Final = {1: 4, 4: 16}  # bytes of an address, by the type that stands before it; those of a name are counted
NAME: Final = 3
PORT: Final = 2


def check_installed() -> None:
    """Raises ImportError, which says what to do, where python-socks is not there."""
    if importlib.util.find_spec("python_socks") is None:
        raise ImportError("SOCKS proxies need the package python-socks: pip install 'calamint[socks]'")


def make_request(host: str, port: int) -> "ConnectRequest":
    """What asks for a connection (RFC 1928 §4). Raises InvalidURL where SOCKS has no way to say the host."""
    from python_socks._protocols import socks5

    request = socks5.ConnectRequest(host.partition("%")[0], port)
    try:
        request.dumps()
    except ValueError as error:
        raise InvalidURL(f"{host!r} is no host that can be told to a SOCKS proxy: {error}") from None
    return request


class Socks:
    """Asks a SOCKS proxy for a connection to a host: see `calamint.net.handshake.Stage`."""

    kind = "ProxyError"
    cause: Exception | None = None
    pipe: TLSPipe | None = None

    def __init__(self, host: str, port: int, auth: tuple[str, str] | None) -> None:
        """`host`: an A-label, which the proxy looks up, or an address without brackets; `auth`: as `Proxy` has checked it.
        Raises InvalidURL where SOCKS has no way to say the host."""
        from python_socks._protocols import errors, socks5

        self.what = f"connection to {target_of(host, port)} through the SOCKS proxy"
        self.done = False
        self.leftover = b""
        self.failure: Failure | None = None
        self.buffer = b""
        self.asked = False  # for the connection: its reply is the last
        self.protocol = socks5.Connection()
        self.refusal: Final = errors.ReplyError
        user, password = auth or (None, None)
        self.methods: Final = socks5.AuthMethodsRequest(user, password)
        self.credentials: Final = socks5.AuthRequest(user or "", password or "")
        self.request: Final = make_request(host, port)

    def start(self, now: float) -> bytes:
        """Says which ways to authenticate there are (RFC 1928 §3)."""
        return self.protocol.send(self.methods)

    def feed(self, data: bytes, now: float) -> bytes:
        """Takes what came; no bytes mean that the proxy has closed. Returns what is to be said next."""
        if not data:
            self.fail("the proxy closed the connection before it had answered")
        self.buffer += data
        out = b""
        try:
            while not self.done and self.failure is None and len(self.buffer) >= (size := self.expected()):
                message, self.buffer = self.buffer[:size], self.buffer[size:]
                out += self.answer(message)
        except self.refusal as error:
            self.fail(f"the proxy refuses: {error}")
        except ValueError as error:  # of a name that is not text
            self.fail(f"the proxy's reply is malformed: {error}")
        if self.done:
            self.leftover, self.buffer = self.buffer, b""
        return out

    def expected(self) -> int:
        """How long the next reply is, as far as its beginning tells; of one that is no good, enough to say why."""
        if not self.asked:
            return SHORT
        head = len(GRANTED)
        if not self.buffer.startswith(GRANTED):
            return head
        if len(self.buffer) < head + 2:  # the type of the address, and what may be the length of a name
            return head + 2
        kind, first = self.buffer[head : head + 2]
        size = 1 + first if kind == NAME else ADDRESSES.get(kind, 0)
        return head + 1 + size + PORT if size else head + 1

    def answer(self, reply: bytes) -> bytes:
        """Takes one whole reply. Returns what is to be said next."""
        from python_socks._protocols import socks5

        message = self.protocol.receive(reply)
        if isinstance(message, socks5.ConnectReply):
            self.done = True
            return b""
        if isinstance(message, socks5.AuthMethodReply) and message.method == socks5.AuthMethod.USERNAME_PASSWORD:
            return self.protocol.send(self.credentials)
        self.asked = True
        return self.protocol.send(self.request)

    def fail(self, why: str) -> None:
        """The connection will never be made: no request has been sent through it."""
        self.failure = Failure(self.kind, -1, f"no {self.what}: {why}", 0, True)
