"""How a pool reaches an origin, and whom it takes it to be: what its connections may be shared by."""

import itertools
import ssl
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Final

from calamint.core.errors import ConnectError, Failure, RemoteProtocolError
from calamint.core.pool_state import H1, Key
from calamint.core.url import Origin
from calamint.core.value import NEVER
from calamint.net.dial import Race, Resolver, SocketOption, look_up
from calamint.net.handshake import Layers, Refused, stages
from calamint.net.proxy import Proxy
from calamint.net.socks import make_request
from calamint.net.tls import Cert, TLSPipe, Verify, make_context

SESSIONS: Final = 256  # TLS sessions that a route keeps
LEAKS: Final = sys.version_info < (3, 12, 8) or sys.version_info[:3] == (3, 13, 0)
"""Whether CPython loses a copy of a TLS session, some six KiB that nothing can free, each time that it is asked for one."""

REFRESH: Final = 600.0  # seconds for which one is used then before it is asked for again
ASKED: Final = 3  # how often meanwhile, where there was no ticket yet
MOST: Final = 512  # how often in all: however many origins there are, no more than some 3 MiB are lost
KNOWN: Final = 1024  # origins whose keys are remembered
SHOWN: Final = 40  # bytes of what should not have come that a message shows

numbers: Final = itertools.count(1)


class Shared:
    """What the ways of one trust have in common: TLS contexts by protocols, and how often a session was asked for, since the
    beginning, where that leaks."""

    def __init__(self) -> None:
        self.contexts: dict[tuple[str, ...], ssl.SSLContext] = {}
        self.asks = 0


class Route:
    """The way to origins, and the trust in them: all that two requests must agree on to share a connection.

    `verify` and `cert`: see `calamint.net.tls.make_context`. `resolver`: from host and port to addresses, as
    socket.getaddrinfo gives them; it may block. `uds`: a Unix domain socket instead of the host. `local_address`: of this
    host, to connect from. `server_hostname`: the name in the certificate, if not the origin's host. `proxy`: what is between;
    `forward`: it is sent the requests themselves, and so is the origin of its connections, instead of asked for tunnels.
    `socket_options`: for socket.setsockopt, before each socket is connected.
    """

    def __init__(
        self,
        verify: Verify = True,
        cert: Cert | None = None,
        resolver: Resolver = look_up,
        uds: str | None = None,
        local_address: str | None = None,
        server_hostname: str | None = None,
        proxy: Proxy | None = None,
        forward: bool = False,
        socket_options: Sequence[SocketOption] = (),
    ) -> None:
        self.name = f"route {next(numbers)}"  # what stands for it in a key of the pool
        self.verify = verify
        self.cert = cert
        self.resolver = resolver
        self.uds = uds
        self.local_address = local_address
        self.server_hostname = server_hostname
        self.proxy = proxy
        self.forward = forward
        self.socket_options = socket_options
        self._shared = Shared()
        self._sessions: dict[tuple[Origin, tuple[str, ...]], ssl.SSLSession] = {}
        self._asked: dict[
            tuple[Origin, tuple[str, ...]], tuple[float, int]
        ] = {}  # since when, and how often, for a session

    def beside(self, proxy: Proxy | None, forward: bool, server_hostname: str | None) -> "Route":
        """Another way with the same trust, and so with the same TLS contexts; sessions are its own."""
        name = server_hostname or self.server_hostname
        uds = self.uds if proxy is None else None
        more = (self.local_address, name, proxy, forward, self.socket_options)
        route = Route(self.verify, self.cert, self.resolver, uds, *more)
        route._shared = self._shared
        return route

    def start_tls(self, origin: Origin, protocols: Sequence[str]) -> TLSPipe:
        """TLS with an origin, its handshake still to be made; it asks for these protocols and resumes the last session.

        Raises OSError where a file cannot be read, and ValueError where the host is no name for a certificate.
        """
        alpn = tuple(protocols)
        context = self._shared.contexts.get(alpn)
        if context is None:
            context = make_context(self.verify, self.cert, alpn)
            self._shared.contexts[alpn] = context
        if context is self.verify:  # the caller's own, and so the same one for all protocols
            context.set_alpn_protocols(list(alpn))
        return TLSPipe(context, self.server_hostname or origin.host, self._sessions.get((origin, alpn)))

    def address(self, origin: Origin) -> tuple[str, int]:
        """Host and port to connect to."""
        place = origin if self.proxy is None else self.proxy.origin
        return place.host, place.port

    def layers(self, origin: Origin, protocols: Sequence[str]) -> Layers:
        """What has to be made on a connected socket before HTTP can begin. Raises Refused where it cannot even begin."""
        try:
            if self.forward and self.proxy is not None:
                return Layers(stages(self.proxy, Origin("http", origin.host, origin.port), None))
            tls = self.start_tls(origin, protocols) if origin.scheme == "https" else None
            return Layers(stages(self.proxy, origin, tls))
        except (OSError, TypeError) as error:
            what = f"no TLS with {origin.host}: {error}"
        except ValueError as error:
            what = f"{(self.server_hostname or origin.host)!r} is no name for a certificate: {error}"
        raise Refused(Failure("ConnectError", -1, what, 0, True)) from None

    def overdue(self, origin: Origin, race: Race | None, layers: Layers | None) -> Failure:
        """What to say when the time for a connection is over: what it waited for, an address, an answer, or a handshake."""
        if layers is not None:
            return layers.overdue()
        what = f"no address for {self.address(origin)[0]}" if race is None else f"{race.tried()},"
        return Failure("ConnectTimeout", -1, f"{what} within the connect limit", 0, True, -1, "connect")

    def spoken(self, origin: Origin, protocols: Sequence[str], layers: Layers) -> str:
        """What is spoken on a connection that has been made. Raises ConnectError where it is not what was asked for, and
        RemoteProtocolError where something has come over HTTP/1.1 already: it is no response to what will be asked."""
        tls = layers.pipe
        chosen = protocols[0]
        if tls is not None and origin.scheme == "https" and not self.forward:
            chosen = tls.object.selected_alpn_protocol() or H1
        if chosen not in protocols:
            what = f"the server speaks {chosen} where {' or '.join(protocols)} was asked for"
            raise ConnectError(what, unprocessed=True)
        if chosen == H1 and layers.leftover:  # a server of HTTP/2 may speak first
            what = f"the peer sent {len(layers.leftover)} bytes before it was asked for anything (RFC 9112 §9.2): "
            raise RemoteProtocolError(f"{what}{layers.leftover[:SHOWN]!r}", unprocessed=True)
        return chosen

    def keep_session(self, origin: Origin, protocols: Sequence[str], tls: TLSPipe) -> None:
        """Remembers the session of a connection that has received something: the server's tickets come after the
        handshake (RFC 8446 §4.6.1). The oldest gives way."""
        key = (origin, tuple(protocols))
        if self.forward or (LEAKS and not self._may_ask(key)):
            return
        session = tls.object.session
        if session is not None and session.has_ticket:
            self._sessions.pop(key, None)
            self._sessions[key] = session
            if len(self._sessions) > SESSIONS:
                del self._sessions[next(iter(self._sessions))]

    def _may_ask(self, key: tuple[Origin, tuple[str, ...]]) -> bool:
        """Whether it is time to ask for a session again, where that costs memory for ever."""
        now = time.monotonic()
        since, asked = self._asked.get(key, (NEVER, 0))
        if self._shared.asks >= MOST or now - since < REFRESH and (asked >= ASKED or key in self._sessions):
            return False
        self._shared.asks += 1
        self._asked.pop(key, None)
        self._asked[key] = (now, 1) if now - since >= REFRESH else (since, asked + 1)
        if len(self._asked) > SESSIONS:
            del self._asked[next(iter(self._asked))]
        return True


class Routes:
    """The ways of a pool: its own, and one through each proxy that a request has named. `protocols`: what may be spoken,
    by scheme."""

    def __init__(self, own: Route, protocols: dict[str, tuple[str, ...]]) -> None:
        self.own = own
        self.protocols = protocols
        self.named: dict[str, Route] = {own.name: own}
        self._others: dict[tuple[Proxy | None, bool, str | None], Route] = {}
        self._keys: dict[tuple[Origin, Proxy | None, str | None, bool], Key] = {}
        self._most = KNOWN  # others, until those that are not used are forgotten

    def aim(
        self, origin: Origin, proxy: Proxy | None, server_hostname: str | None, only_http1: bool, used: Iterable[Key]
    ) -> Key:
        """What a connection for this origin may be shared by. `server_hostname`: the name in the certificate, if not the
        route's. `only_http1`: where that may be spoken. `used`: the keys that something in the pool has, whose ways are kept.
        Raises InvalidURL for a host that the proxy cannot be told, and ValueError for a proxy where there is a Unix domain
        socket."""
        if proxy is not None and self.own.uds is not None:
            raise ValueError("uds= and proxy= both say where to connect to: choose one of them")
        wanted = (origin, proxy, server_hostname, only_http1)
        key = self._keys.get(wanted)
        if key is None:
            if len(self._others) >= self._most:
                self._forget(used)
            if len(self._keys) >= KNOWN:
                self._keys = {}
            key = self._keys[wanted] = self._make_key(*wanted)
        return key

    def of(self, key: Key) -> Route:
        """The way that a key stands for."""
        return self.named[key.trust]

    def _make_key(self, origin: Origin, proxy: Proxy | None, server_hostname: str | None, only_http1: bool) -> Key:
        if proxy is not None and proxy.is_socks:
            make_request(origin.host, origin.port)  # what cannot be asked for is known before anything is dialled
        forward = proxy is not None and proxy.forwards(origin)
        route = self._route(proxy, forward, server_hostname)
        if proxy is not None and forward:
            return Key(proxy.origin, route.name, (H1,))
        protocols = self.protocols[origin.scheme]
        return Key(origin, route.name, (H1,) if only_http1 and H1 in protocols else protocols)

    def _route(self, proxy: Proxy | None, forward: bool, server_hostname: str | None) -> Route:
        if proxy is None and server_hostname is None:
            return self.own
        route = self._others.get((proxy, forward, server_hostname))
        if route is None:
            route = self.own.beside(proxy, forward, server_hostname)
            self._others[(proxy, forward, server_hostname)] = self.named[route.name] = route
        return route

    def _forget(self, used: Iterable[Key]) -> None:
        """There are many, as where each request has a proxy or credentials of its own: those that nobody uses go."""
        names = {key.trust for key in used}
        self._others = {wanted: route for wanted, route in self._others.items() if route.name in names}
        self.named = {route.name: route for route in (self.own, *self._others.values())}
        self._keys = {}
        self._most = max(KNOWN, 2 * len(self._others))  # not again at once where all are used
