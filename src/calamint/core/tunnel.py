"""RFC 9110 §9.3.6: a tunnel through a proxy of HTTP/1.1 that is being made, as a value.

`begin` asks for it, `receive` takes what the proxy says until it is made or refused. What goes through it then is for
somebody else to read.
"""

from typing import ClassVar, Final, final

from calamint.core import http1
from calamint.core.errors import Failure
from calamint.core.events import DataReceived, RequestFailed, ResponseReceived, Upgraded
from calamint.core.exchange import SETTINGS
from calamint.core.http1_state import HTTP1Connection
from calamint.core.url import Origin
from calamint.core.value import Fields, Value

PROXY_AUTHENTICATION_REQUIRED: Final = 407  # RFC 9110 §15.5.8


@final
class Tunnel(Value):
    """A tunnel that is being made: the authority of its far end, and the connection to the proxy."""

    __slots__ = ("target", "conn")
    __match_args__: ClassVar[tuple[str, ...]] = ("target", "conn")

    def __init__(self, target: str, conn: HTTP1Connection) -> None:
        self.target: Final = target
        self.conn: Final = conn


def target_of(host: str, port: int) -> str:
    """What the request line says: a host and always a port (RFC 9112 §3.2.3). A zone says something on this host only."""
    return f"[{host.partition('%')[0]}]:{port}" if ":" in host else f"{host}:{port}"


def begin(host: str, port: int, fields: Fields, now: float) -> tuple[Tunnel, bytes]:
    """Asks a proxy for a tunnel to this host, an A-label or an address without brackets. Returns the bytes for the proxy.

    `fields`: what is meant for the proxy; nothing of a request that is to go through the tunnel. Raises LocalProtocolError
    where they, or the host, may not stand in a CONNECT.
    """
    target = target_of(host, port)
    conn, _ = http1.connect(Origin("http", host, port), SETTINGS, now)
    conn, data, _ = http1.request(conn, "CONNECT", target, fields, None, now, False)
    return Tunnel(target, conn), data


def receive(tunnel: Tunnel, data: bytes, now: float) -> tuple[Tunnel, bool, bytes, Failure | None]:
    """Takes what came from the proxy. Returns whether the tunnel is made, the bytes that came through it already, and why
    it will never be made. Once either is known there is nothing more to receive here.

    A refusal is known by its head: its content, which may never end, is not waited for.
    """
    conn, _, events = http1.receive(tunnel.conn, data, now)
    tunnel = Tunnel(tunnel.target, conn)
    done = False
    through: list[bytes] = []
    head: ResponseReceived | None = None
    for event in events:
        if isinstance(event, ResponseReceived):
            head = event
        elif isinstance(event, Upgraded):
            done = True
        elif isinstance(event, DataReceived):
            through.append(event.data)
        elif isinstance(event, RequestFailed) and head is None:
            return tunnel, False, b"", fail(tunnel, event.failure.message)
    if head is None or done:
        return tunnel, done, b"".join(through), None
    said = f"the proxy refuses: {head.status} {head.reason.decode('latin-1')}".rstrip()
    if head.status == PROXY_AUTHENTICATION_REQUIRED:
        said += "; credentials for it are written http://user:password@proxy"
    return tunnel, False, b"", fail(tunnel, said, head.status, head.fields)


def ended(tunnel: Tunnel, now: float) -> Failure:
    """What to say when the proxy has closed the connection before the tunnel was made."""
    _, events = http1.closed(tunnel.conn, now, 0, True)
    reasons = [event.failure.message for event in events if isinstance(event, RequestFailed)]
    return fail(tunnel, "".join(reasons))


def fail(tunnel: Tunnel, why: str, status: int = 0, fields: Fields = ()) -> Failure:
    """The failure of a tunnel: no request has been sent through it."""
    return Failure("ProxyError", -1, f"no tunnel to {tunnel.target}: {why}", 0, True, -1, "", status, fields)
