"""calamint: an HTTP/1.1 and HTTP/2 client whose connections are immutable values.

Names are loaded when they are first used: importing calamint loads neither ssl nor asyncio.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from calamint.client.aio import AsyncClient
    from calamint.client.api import (
        delete,
        get,
        head,
        options,
        patch,
        post,
        put,
        request,
        stream,
    )
    from calamint.client.codings import CodingLimits
    from calamint.client.errors import HTTPStatusError
    from calamint.client.headers import Headers
    from calamint.client.message import Request, Response
    from calamint.client.mock import AsyncBaseTransport, BaseTransport, MockTransport
    from calamint.client.sync import Client
    from calamint.client.timeout import Timeout
    from calamint.client.urls import URL
    from calamint.core.errors import (
        AtCapacity,
        CalamintError,
        CloseError,
        ConnectError,
        ConnectionTerminated,
        ConnectTimeout,
        DeadlineExceeded,
        DecodingError,
        InvalidURL,
        LocalProtocolError,
        NetworkError,
        PoolTimeout,
        ProxyError,
        ReadError,
        ReadTimeout,
        RemoteProtocolError,
        ResponseNotRead,
        StreamClosed,
        StreamConsumed,
        StreamError,
        StreamReset,
        TimeoutException,
        TooManyRedirects,
        TransportError,
        UnsupportedProtocol,
        WriteError,
        WriteTimeout,
    )
    from calamint.core.exchange import Clocks, Settings
    from calamint.core.pool_state import Limits
    from calamint.net.aio import Call as AsyncCall
    from calamint.net.aio import Pool as AsyncPool
    from calamint.net.proxy import Proxy
    from calamint.net.sync import Connection, connect
    from calamint.net.threads import Call, Pool
    from calamint.net.trace import Tracer

HOMES = {
    "calamint.client.aio": "AsyncClient",
    "calamint.client.api": "delete get head options patch post put request stream",
    "calamint.client.codings": "CodingLimits",
    "calamint.client.errors": "HTTPStatusError",
    "calamint.client.headers": "Headers",
    "calamint.client.message": "Request Response",
    "calamint.client.mock": "AsyncBaseTransport BaseTransport MockTransport",
    "calamint.client.sync": "Client",
    "calamint.client.timeout": "Timeout",
    "calamint.client.urls": "URL",
    "calamint.core.errors": (
        "AtCapacity CalamintError CloseError ConnectError ConnectionTerminated ConnectTimeout "
        "DeadlineExceeded DecodingError InvalidURL LocalProtocolError NetworkError "
        "PoolTimeout ProxyError ReadError ReadTimeout RemoteProtocolError ResponseNotRead StreamClosed "
        "StreamConsumed StreamError StreamReset TimeoutException TooManyRedirects TransportError "
        "UnsupportedProtocol WriteError WriteTimeout"
    ),
    "calamint.core.exchange": "Clocks Settings",
    "calamint.core.pool_state": "Limits",
    "calamint.net.aio": "AsyncCall AsyncPool",
    "calamint.net.proxy": "Proxy",
    "calamint.net.sync": "Connection connect",
    "calamint.net.threads": "Call Pool",
    "calamint.net.trace": "Tracer",
}

ALIASES = {"AsyncCall": "Call", "AsyncPool": "Pool"}  # what some are called at home

__all__ = [
    "AsyncBaseTransport",
    "AsyncCall",
    "AsyncClient",
    "AsyncPool",
    "AtCapacity",
    "BaseTransport",
    "CalamintError",
    "Call",
    "Client",
    "Clocks",
    "CloseError",
    "CodingLimits",
    "ConnectError",
    "ConnectTimeout",
    "Connection",
    "ConnectionTerminated",
    "DeadlineExceeded",
    "DecodingError",
    "HTTPStatusError",
    "Headers",
    "InvalidURL",
    "Limits",
    "LocalProtocolError",
    "MockTransport",
    "NetworkError",
    "Pool",
    "PoolTimeout",
    "Proxy",
    "ProxyError",
    "ReadError",
    "ReadTimeout",
    "RemoteProtocolError",
    "Request",
    "Response",
    "ResponseNotRead",
    "Settings",
    "StreamClosed",
    "StreamConsumed",
    "StreamError",
    "StreamReset",
    "Timeout",
    "TimeoutException",
    "TooManyRedirects",
    "Tracer",
    "TransportError",
    "URL",
    "UnsupportedProtocol",
    "WriteError",
    "WriteTimeout",
    "connect",
    "delete",
    "get",
    "head",
    "options",
    "patch",
    "post",
    "put",
    "request",
    "stream",
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
