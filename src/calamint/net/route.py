"""How a pool reaches an origin, and whom it takes it to be: what its connections may be shared by."""

import itertools
import ssl
from collections.abc import Sequence
from typing import Final

from calamint.core.url import Origin
from calamint.net.dial import Resolver, look_up
from calamint.net.tls import Cert, TLSPipe, Verify, make_context

SESSIONS: Final = 256  # TLS sessions that a route keeps

numbers: Final = itertools.count(1)


class Route:
    """The way to origins, and the trust in them: all that two requests must agree on to share a connection.

    `verify` and `cert`: see `calamint.net.tls.make_context`. `resolver`: from host and port to addresses, as
    socket.getaddrinfo gives them; it may block. `uds`: a Unix domain socket instead of the host. `local_address`: of this
    host, to connect from. `server_hostname`: the name in the certificate, if not the origin's host.
    """

    def __init__(
        self,
        verify: Verify = True,
        cert: Cert | None = None,
        resolver: Resolver = look_up,
        uds: str | None = None,
        local_address: str | None = None,
        server_hostname: str | None = None,
    ) -> None:
        self.name = f"route {next(numbers)}"  # what stands for it in a key of the pool
        self.verify = verify
        self.cert = cert
        self.resolver = resolver
        self.uds = uds
        self.local_address = local_address
        self.server_hostname = server_hostname
        self._contexts: dict[tuple[str, ...], ssl.SSLContext] = {}
        self._sessions: dict[tuple[Origin, tuple[str, ...]], ssl.SSLSession] = {}

    def start_tls(self, origin: Origin, protocols: Sequence[str]) -> TLSPipe:
        """TLS with an origin, its handshake still to be made; it asks for these protocols and resumes the last session.

        Raises OSError where a file cannot be read, and ValueError where the host is no name for a certificate.
        """
        alpn = tuple(protocols)
        context = self._contexts.get(alpn)
        if context is None:
            context = make_context(self.verify, self.cert, alpn)
            self._contexts[alpn] = context
        if context is self.verify:  # the caller's own, and so the same one for all protocols
            context.set_alpn_protocols(list(alpn))
        return TLSPipe(context, self.server_hostname or origin.host, self._sessions.get((origin, alpn)))

    def keep_session(self, origin: Origin, protocols: Sequence[str], tls: TLSPipe) -> None:
        """Remembers the session of a connection that has received something: the server's tickets come after the
        handshake (RFC 8446 §4.6.1). The oldest gives way."""
        session = tls.object.session
        if session is not None and session.has_ticket:
            key = (origin, tuple(protocols))
            self._sessions.pop(key, None)
            self._sessions[key] = session
            if len(self._sessions) > SESSIONS:
                del self._sessions[next(iter(self._sessions))]
