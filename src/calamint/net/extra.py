"""What can be told of the transport below a connection."""

import socket

from calamint.net.tls import TLSPipe
from calamint.net.wire import Waiter


def extra(sock: socket.socket, tls: TLSPipe | None, name: str) -> object:
    """One thing by its name, None where it cannot be had, such as an address when the connection is closed.

    "socket"; "ssl_object": an ssl.SSLObject, None without TLS; "client_addr" and "server_addr": our end's and the peer's
    address as the socket module has them, of the proxy where there is one; "is_readable": whether something waits in the
    kernel, or the connection has ended.
    """
    if name == "socket":
        return sock
    if name == "ssl_object":
        return None if tls is None else tls.object
    if name == "is_readable":
        return sock.fileno() < 0 or Waiter(sock).wait(True, False, 0.0)[0]
    try:
        if name == "client_addr":
            return sock.getsockname()
        return sock.getpeername() if name == "server_addr" else None
    except OSError:
        return None
