"""What the transports for httpx and httpx2 have in common, without I/O: options, requests, errors, trace events.

The two libraries are alike but for their names, and share no class: what is theirs comes in as the library's module.
"""

import inspect
import os
import ssl
import sys
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from importlib import import_module
from types import ModuleType
from typing import Final, NamedTuple, Protocol, runtime_checkable

from calamint.client.base import VERSIONS, Beginning
from calamint.core.errors import CalamintError, LocalProtocolError, UnsupportedProtocol
from calamint.core.exchange import Clocks
from calamint.core.pool_state import LIMITS, Limits
from calamint.core.url import URL, Origin
from calamint.core.value import Fields
from calamint.net.dial import SocketOption, read_url
from calamint.net.environment import ProxyMap, proxies_from_environment
from calamint.net.proxy import Proxy
from calamint.net.tls import Cert, Verify, make_context

SCHEMES: Final = {b"http": "http", b"https": "https", b"ws": "http", b"wss": "https"}
OF_THE_CONNECTION: Final = frozenset((b"connection", b"keep-alive", b"proxy-connection", b"upgrade"))
NO_LIMIT: Final = 2**31 - 1
KNOWN: Final = 512  # origins, and sets of limits, that are remembered

# Our errors whose names the libraries do not have; all others are called the same there.
NAMES: Final = {
    "AtCapacity": "LocalProtocolError",
    "ConnectionTerminated": "RemoteProtocolError",
    "DeadlineExceeded": "TimeoutException",
    "InvalidURL": "ConnectError",  # a host or port that none can have: the library has taken it for a URL
    "StreamClosed": "ReadError",  # the pool was closed while the request ran
    "StreamReset": "RemoteProtocolError",
}


class URLLike(Protocol):
    """A URL of either library."""

    @property
    def raw_scheme(self) -> bytes: ...
    @property
    def raw_host(self) -> bytes: ...
    @property
    def port(self) -> int | None: ...
    @property
    def raw_path(self) -> bytes: ...


class HeadersLike(Protocol):
    """Headers of either library."""

    @property
    def raw(self) -> list[tuple[bytes, bytes]]: ...


class RequestLike(Protocol):
    """A request of either library."""

    @property
    def method(self) -> str: ...
    @property
    def url(self) -> URLLike: ...
    @property
    def headers(self) -> HeadersLike: ...
    @property
    def stream(self) -> object: ...
    @property
    def extensions(self) -> Mapping[str, object]: ...


@runtime_checkable
class LimitsLike(Protocol):
    """Limits of either library: None for no limit."""

    @property
    def max_connections(self) -> int | None: ...
    @property
    def max_keepalive_connections(self) -> int | None: ...
    @property
    def keepalive_expiry(self) -> float | None: ...


@runtime_checkable
class ProxyLike(Protocol):
    """A proxy of either library; its URL has no credentials any more."""

    @property
    def url(self) -> object: ...
    @property
    def auth(self) -> tuple[str, str] | None: ...
    @property
    def headers(self) -> HeadersLike: ...
    @property
    def ssl_context(self) -> ssl.SSLContext | None: ...


def to_limits(limits: LimitsLike | None) -> Limits:
    """A pool's limits, from ours or from a library's; None for ours."""
    if limits is None or isinstance(limits, Limits):
        return LIMITS if limits is None else limits
    most, kept = limits.max_connections, limits.max_keepalive_connections
    return Limits(
        NO_LIMIT if most is None else most,
        max_keepalive_connections=NO_LIMIT if kept is None else kept,
        keepalive_expiry=limits.keepalive_expiry,
    )


def to_proxy(proxy: object) -> Proxy | None:
    """A proxy, from a URL, or from one of ours or of a library's. Raises InvalidURL, ValueError, ImportError."""
    if proxy is None or isinstance(proxy, Proxy):
        return proxy
    if isinstance(proxy, ProxyLike) and proxy.ssl_context is not None:
        return Proxy(str(proxy.url), auth=proxy.auth, headers=proxy.headers.raw, ssl=proxy.ssl_context)
    if isinstance(proxy, ProxyLike):
        return Proxy(str(proxy.url), auth=proxy.auth, headers=proxy.headers.raw)
    return Proxy(str(proxy))


def to_verify(verify: Verify, cert: Cert | None, trust_env: bool) -> Verify:
    """Whom to trust: with `trust_env=False` without SSL_CERT_FILE and SSL_CERT_DIR. Raises OSError where a file that is
    named cannot be read: here, and not with the first request."""
    if verify is True and not trust_env and not {"SSL_CERT_FILE", "SSL_CERT_DIR"}.isdisjoint(os.environ):
        verify = built_in_context()
    if cert is not None or isinstance(verify, str | os.PathLike):
        make_context(verify, cert)
    return verify


def built_in_context() -> ssl.SSLContext:
    """The system's trust store, whatever the environment says."""
    if sys.platform != "linux":
        import truststore

        return truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    paths = ssl.get_default_verify_paths()
    file, directory = paths.openssl_cafile, paths.openssl_capath
    context.load_verify_locations(
        file if os.path.isfile(file) else None, directory if os.path.isdir(directory) else None
    )
    return context


class Outgoing(NamedTuple):
    """A request as a pool takes it."""

    url: URL
    fields: Fields
    total: float | None
    clocks: Clocks
    pool: float | None
    connect: float | None
    proxy: Proxy | None
    server_hostname: str | None
    only_http1: bool


class Translator:
    """From a library's requests to what a pool takes."""

    def __init__(
        self, proxy: object = None, trust_env: bool = False, http1: bool = True, uds: str | None = None
    ) -> None:
        """With `uds` there is a way already, and the environment's proxies are none. Raises ValueError for both."""
        self.proxy: Final = to_proxy(proxy)
        self.http1: Final = http1
        self.proxies: ProxyMap | None = None
        if self.proxy is not None and uds is not None:
            raise ValueError("uds= and proxy= both say where to connect to: choose one of them")
        if self.proxy is None and trust_env and uds is None:
            self.proxies = proxies_from_environment(os.environ)
        self.origins: dict[tuple[bytes, bytes, int | None], Origin] = {}
        self.clocks: dict[tuple[object, ...], Clocks] = {}

    def translate(self, request: RequestLike) -> Outgoing:
        """A request, without its content. Raises InvalidURL, UnsupportedProtocol, LocalProtocolError, and ValueError for
        seconds that are none."""
        extensions = request.extensions
        target = extensions.get("target", request.url.raw_path)
        if not isinstance(target, bytes):
            raise TypeError(f"extensions['target'] is {type(target).__name__}, not bytes")
        try:
            url = URL(self.origin(request.url), target.decode("ascii"), "", "")
        except UnicodeDecodeError:
            raise LocalProtocolError(f"the target {target!r} has other characters than ASCII") from None
        fields, upgrades = self.fields(request.headers.raw, url.origin.scheme == "https" or not self.http1)
        if request.method == "CONNECT":  # whose target it is, and not the URL that led here (RFC 9112 §3.2.3)
            fields = tuple([field for field in fields if field[0].lower() != b"host"])
        limits = extensions.get("timeout")
        if not isinstance(limits, Mapping):
            limits = {}
        proxy = self.proxy if self.proxies is None else self.proxies.choose(url)
        name = extensions.get("sni_hostname")
        return Outgoing(
            url,
            fields,
            limits.get("total"),
            self.to_clocks(limits),
            limits.get("pool"),
            limits.get("connect"),
            proxy,
            name.decode("ascii") if isinstance(name, bytes) else name if isinstance(name, str) else None,
            upgrades,
        )

    def origin(self, url: URLLike) -> Origin:
        """The URL's origin. Raises InvalidURL, UnsupportedProtocol."""
        key = (url.raw_scheme, url.raw_host, url.port)
        origin = self.origins.get(key)
        if origin is None:
            scheme = SCHEMES.get(key[0])
            if scheme is None:
                raise UnsupportedProtocol(f"the scheme {key[0].decode('ascii')!r} is not http or https")
            host = key[1].decode("ascii")
            host = f"[{host}]" if ":" in host else host
            origin = read_url(f"{scheme}://{host}" if key[2] is None else f"{scheme}://{host}:{key[2]}").origin
            if len(self.origins) >= KNOWN:
                self.origins = {}
            self.origins[key] = origin
        return origin

    def fields(self, raw: Iterable[tuple[bytes, bytes]], perhaps_http2: bool) -> tuple[Fields, bool]:
        """A request's fields, and whether they ask for an upgrade, which only HTTP/1.1 has.

        How content is delimited is not the caller's business. What speaks of the connection has no meaning in HTTP/2
        (RFC 9113 §8.2.2), and goes where that may be spoken, as libraries do that do not know either.
        """
        kept: list[tuple[bytes, bytes]] = []
        of_connection = 0
        upgrades = False
        for field in raw:
            name = field[0].lower()
            if name == b"transfer-encoding":
                continue
            if name in OF_THE_CONNECTION:
                of_connection += 1
                upgrades = upgrades or name == b"upgrade"
            elif name == b"te" and perhaps_http2 and field[1].lower() != b"trailers":
                continue
            kept.append(field)
        if of_connection and perhaps_http2 and not upgrades:
            kept = [field for field in kept if field[0].lower() not in OF_THE_CONNECTION]
        return tuple(kept), upgrades

    def to_clocks(self, limits: Mapping[str, object]) -> Clocks:
        """A library's `read` bounds the silence before the head and within the content; `reader` is off unless said."""
        key = (limits.get("read"), limits.get("write"), limits.get("reader"))
        clocks = self.clocks.get(key)
        if clocks is None:
            read, write, reader = [check_number(value) for value in key]
            clocks = Clocks(read, read, write, reader)
            if len(self.clocks) >= KNOWN:
                self.clocks = {}
            self.clocks[key] = clocks
        return clocks


def check_number(seconds: object) -> float | None:
    """Seconds. Raises TypeError for what is no number."""
    if seconds is not None and not isinstance(seconds, int | float):
        raise TypeError(f"a limit of {seconds!r}: write seconds, or None for no limit")
    return seconds


def to_library(error: CalamintError, library: ModuleType, request: RequestLike) -> Exception:
    """An error as the library's users know it: its class, with the request; ours is to be its cause."""
    name = type(error).__name__
    made: Exception = getattr(library, NAMES.get(name, name))(str(error), request=request)
    return made


def to_core_request(request: RequestLike, core: ModuleType) -> object:
    """The same as a request of httpcore's: bytes, and fields in pairs. Its content is not shown."""
    url = request.url
    where = core.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
    made: object = core.Request(request.method, where, headers=request.headers.raw, extensions=dict(request.extensions))
    return made


def is_tunnel(request: RequestLike, status: int) -> bool:
    """Whether what follows the head is no content (RFC 9110 §9.3.6, §7.8)."""
    return status == 101 or (request.method == "CONNECT" and 200 <= status < 300)


def make_extensions(beginning: Beginning, protocol: str, trailers: list[tuple[bytes, bytes]]) -> dict[str, object]:
    """What the library's response says besides status, fields and content. `trailers` fills when the content has ended."""
    head = beginning.head
    assert head is not None
    extensions: dict[str, object] = {"http_version": VERSIONS.get(protocol, b"HTTP/1.1"), "trailers": trailers}
    if protocol == "h2":
        extensions["stream_id"] = head.ref
    else:
        extensions["reason_phrase"] = head.reason
    extensions["interim"] = [(event.status, list(event.fields)) for event in beginning.interim]
    return extensions


class Trace:
    """The extension `trace`: a callable that is told of each step with httpcore's name for it, and what it is about."""

    def __init__(self, callback: object, request: RequestLike, network: str) -> None:
        """`network`: the library's httpcore, whose requests are what such callables know."""
        if not callable(callback):
            raise TypeError(f"extensions['trace'] is {type(callback).__name__}, which cannot be called")
        self.callback = callback
        self.request = to_core_request(request, import_module(network))
        self.prefix = ""

    def spoken(self, protocol: str) -> None:
        """What the names of the next steps begin with."""
        self.prefix = "http2." if protocol == "h2" else "http11."

    def tell(self, name: str, info: dict[str, object]) -> None:
        """One event."""
        if inspect.iscoroutine(found := self.callback(name, info)):
            found.close()
            raise TypeError("the trace of a blocking client is a function, not a coroutine function")

    async def atell(self, name: str, info: dict[str, object]) -> None:
        """One event."""
        if not inspect.isawaitable(found := self.callback(name, info)):
            raise TypeError("the trace of an asynchronous client is a coroutine function (async def)")
        await found

    @contextmanager
    def step(self, name: str, info: dict[str, object] | None = None) -> Iterator[dict[str, object]]:
        """A step: begun, and then complete or failed. What is put into the dict is what `complete` tells."""
        name = name if "." in name else self.prefix + name
        self.tell(f"{name}.started", {"request": self.request} if info is None else info)
        result: dict[str, object] = {"return_value": None}
        try:
            yield result
        except BaseException as error:
            self.tell(f"{name}.failed", {"exception": error})
            raise
        self.tell(f"{name}.complete", result)

    @asynccontextmanager
    async def astep(self, name: str, info: dict[str, object] | None = None) -> AsyncIterator[dict[str, object]]:
        """The same, asynchronous."""
        name = name if "." in name else self.prefix + name
        await self.atell(f"{name}.started", {"request": self.request} if info is None else info)
        result: dict[str, object] = {"return_value": None}
        try:
            yield result
        except BaseException as error:
            await self.atell(f"{name}.failed", {"exception": error})
            raise
        await self.atell(f"{name}.complete", result)


def told_head(beginning: Beginning, protocol: str) -> tuple[object, ...]:
    """What httpcore's `receive_response_headers.complete` returns."""
    head = beginning.head
    assert head is not None
    fields = list(head.fields)
    return (head.status, fields) if protocol == "h2" else (b"HTTP/1.1", head.status, head.reason, fields)


class Way(NamedTuple):
    """How the connections of a transport are made."""

    uds: str | None
    local_address: str | None
    socket_options: Sequence[SocketOption]


def told_dial(out: Outgoing, way: Way) -> tuple[str, dict[str, object]]:
    """httpcore's name for the making of a connection, and what it tells of it."""
    limits = {"timeout": out.connect, "socket_options": way.socket_options or None}
    if way.uds is not None:
        return "connection.connect_unix_socket", {"path": way.uds, **limits}
    origin = out.url.origin if out.proxy is None else out.proxy.origin
    name = "socks.connect_tcp" if out.proxy is not None and out.proxy.is_socks else "connection.connect_tcp"
    return name, {"host": origin.host, "port": origin.port, "local_address": way.local_address, **limits}


def told_handshakes(out: Outgoing, stream: object) -> list[tuple[str, dict[str, object]]]:
    """The same for what stands between a connected socket and HTTP."""
    origin, proxy = out.url.origin, out.proxy
    steps: list[tuple[str, dict[str, object]]] = []
    room = "connection"
    if proxy is not None and proxy.is_socks:
        room = "socks"
        asked = {"stream": stream, "host": origin.host, "port": origin.port, "auth": proxy.auth}
        steps.append(("socks.setup_socks5_connection", asked))
    elif proxy is not None:
        room = "proxy"
        if proxy.origin.scheme == "https":
            steps.append(("connection.start_tls", {"server_hostname": proxy.origin.host, "timeout": out.connect}))
    if origin.scheme == "https":
        name = out.server_hostname or origin.host
        steps.append((f"{room}.start_tls", {"server_hostname": name, "timeout": out.connect}))
    return steps
