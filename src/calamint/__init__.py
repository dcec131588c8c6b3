"""calamint: an HTTP/1.1 and HTTP/2 client whose connections are immutable values.

Names are loaded when they are first used: importing calamint loads neither ssl nor asyncio.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from calamint.core.errors import (
        AtCapacity,
        CalamintError,
        CloseError,
        ConnectError,
        ConnectionTerminated,
        ConnectTimeout,
        DeadlineExceeded,
        InvalidURL,
        LocalProtocolError,
        NetworkError,
        PoolTimeout,
        ProxyError,
        ReadError,
        ReadTimeout,
        RemoteProtocolError,
        StreamClosed,
        StreamError,
        StreamReset,
        TimeoutException,
        TransportError,
        UnsupportedProtocol,
        WriteError,
        WriteTimeout,
    )
    from calamint.core.exchange import Clocks, Settings
    from calamint.core.pool_state import Limits
    from calamint.net.aio import Call as AsyncCall
    from calamint.net.aio import Pool as AsyncPool
    from calamint.net.response import Response
    from calamint.net.sync import Connection, connect
    from calamint.net.threads import Call, Pool
    from calamint.net.trace import Tracer

HOMES = {
    "calamint.core.errors": (
        "AtCapacity CalamintError CloseError ConnectError ConnectionTerminated ConnectTimeout DeadlineExceeded InvalidURL "
        "LocalProtocolError NetworkError PoolTimeout ProxyError ReadError ReadTimeout RemoteProtocolError StreamClosed "
        "StreamError StreamReset TimeoutException TransportError UnsupportedProtocol WriteError WriteTimeout"
    ),
    "calamint.core.exchange": "Clocks Settings",
    "calamint.core.pool_state": "Limits",
    "calamint.net.aio": "AsyncCall AsyncPool",
    "calamint.net.response": "Response",
    "calamint.net.sync": "Connection connect",
    "calamint.net.threads": "Call Pool",
    "calamint.net.trace": "Tracer",
}

ALIASES = {"AsyncCall": "Call", "AsyncPool": "Pool"}  # what some are called at home

__all__ = [
    "AsyncCall",
    "AsyncPool",
    "AtCapacity",
    "CalamintError",
    "Call",
    "Clocks",
    "CloseError",
    "ConnectError",
    "ConnectTimeout",
    "Connection",
    "ConnectionTerminated",
    "DeadlineExceeded",
    "InvalidURL",
    "Limits",
    "LocalProtocolError",
    "NetworkError",
    "Pool",
    "PoolTimeout",
    "ProxyError",
    "ReadError",
    "ReadTimeout",
    "RemoteProtocolError",
    "Response",
    "Settings",
    "StreamClosed",
    "StreamError",
    "StreamReset",
    "TimeoutException",
    "Tracer",
    "TransportError",
    "UnsupportedProtocol",
    "WriteError",
    "WriteTimeout",
    "connect",
]


def __getattr__(name: str) -> object:
    if name == "__version__":
        return import_module("importlib.metadata").version("calamint")
    for home, names in HOMES.items():
        if name in names.split():
            return getattr(import_module(home), ALIASES.get(name, name))
    raise AttributeError(f"module 'calamint' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
