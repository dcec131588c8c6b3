"""calamint under requests: `session.mount("https://", Adapter())`."""

import io
import os
import threading
from collections.abc import Generator, Iterable, Iterator, Mapping
from http.client import HTTPMessage
from typing import Any, Final, final

import requests
import urllib3
from requests.adapters import BaseAdapter
from requests.cookies import extract_cookies_to_jar
from requests.structures import CaseInsensitiveDict
from requests.utils import get_encoding_from_headers, select_proxy

from calamint.client.base import Beginning
from calamint.core.errors import CalamintError, TimeoutException
from calamint.core.events import DataReceived
from calamint.core.exchange import SETTINGS, Clocks, Settings
from calamint.core.pool_state import LIMITS, Limits
from calamint.core.url import URL
from calamint.net.dial import Resolver, look_up, read_url
from calamint.net.proxy import Proxy
from calamint.net.threads import Call, Pool
from calamint.net.tls import Cert, Verify, make_context
from calamint.net.trace import Tracer
from calamint.transports.blocking import receive, upload
from calamint.transports.shared import Translator

PIECE: Final = 64 * 1024  # bytes of a file that are read at a time
VERSIONS: Final = {"h2": (20, "HTTP/2"), "http/1.1": (11, "HTTP/1.1")}

# Our errors as the users of requests know them, the most special first.
KINDS: Final = {
    "ConnectTimeout": requests.ConnectTimeout,
    "ReadTimeout": requests.ReadTimeout,
    "WriteTimeout": requests.ReadTimeout,
    "DeadlineExceeded": requests.ReadTimeout,
    "ProxyError": requests.exceptions.ProxyError,
    "InvalidURL": requests.exceptions.InvalidURL,
    "UnsupportedProtocol": requests.exceptions.InvalidSchema,
    "LocalProtocolError": requests.exceptions.InvalidHeader,
}

CertLike = bytes | str | tuple[bytes | str, bytes | str] | None
TimeoutLike = float | tuple[float | None, float | None] | urllib3.Timeout | None


@final
class Adapter(BaseAdapter):
    """For `requests.Session.mount`; may be shared by threads, as a session may not.

    What a session says with each request counts: `verify`, `cert`, `proxies`, `timeout`. `limits`: how many connections there
    may be, with each combination of `verify` and `cert`. `retries`: 1, what was provably not processed is sent once more, or
    0. `total`: seconds that a request may take in all, the content included. `http1`, `http2`, `resolver`, `settings`, `tracer`:
    as in `calamint.Client`. Raises ValueError and UnsupportedProtocol for what is none of these.
    """

    def __init__(
        self,
        *,
        limits: Limits = LIMITS,
        http1: bool = True,
        http2: bool = True,
        retries: int = 1,
        total: float | None = None,
        resolver: Resolver = look_up,
        settings: Settings = SETTINGS,
        tracer: Tracer | None = None,
    ) -> None:
        super().__init__()
        if retries not in (0, 1):
            raise ValueError(f"retries={retries}: 1, once more what was provably not processed, or 0, nothing")
        self._options: dict[str, Any] = {
            "limits": limits,
            "http1": http1,
            "http2": http2,
            "retries": retries,
            "total": total,
            "resolver": resolver,
            "settings": settings,
            "tracer": tracer,
        }
        self._lock = threading.Lock()
        self._proxies: dict[str, Proxy] = {}
        self.pools: dict[tuple[Verify, Cert | None], Pool] = {}
        self._retired: set[Pool] = set()  # closed, but for responses that are still being read
        self._translator = Translator(http1=http1)
        self._make_pool(True, None)  # raises what is wrong with the options

    def __reduce__(self) -> tuple[object, ...]:
        return rebuild, (self._options,)

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: TimeoutLike = None,
        verify: bool | str | None = True,
        cert: CertLike = None,
        proxies: Mapping[str, str] | None = None,
    ) -> requests.Response:
        """A response, whose content is still to come with `stream`. Raises the errors of requests."""
        call: Call | None = None
        proxy = self._proxy(request, dict(proxies or {}))
        try:
            url = read_url(str(request.url))
            secure = url.origin.scheme == "https"
            pool = (
                self._pool(verify is not False and (verify or True), to_cert(cert))
                if secure
                else self._pool(True, None)
            )
            call = self._begin(request, url, pool, timeout, proxy)
            return self._answer(request, call, receive(call), pool)
        except BaseException as error:
            if call is not None:
                call.cancel()
            if isinstance(error, CalamintError):
                raise to_requests(error, request, proxy is not None) from error
            raise

    def close(self) -> None:
        """Ends every connection, those of responses that are still read when they have been, as a session's users expect.
        The adapter may be used again, and then begins with nothing."""
        with self._lock:
            pools, self.pools = self.pools, {}
            self._retired |= set(pools.values())
        for pool in pools.values():
            self.release(pool)

    def release(self, pool: Pool) -> None:
        """A response has been read."""
        with self._lock:
            if pool not in self._retired or pool.stats().running:
                return
            self._retired.discard(pool)
        pool.close()

    def _begin(
        self, request: requests.PreparedRequest, url: URL, pool: Pool, timeout: TimeoutLike, proxy: Proxy | None
    ) -> Call:
        """The request is under way, and with it its content."""
        connect, read = to_seconds(timeout)
        body = request.body
        whole = body is None or isinstance(body, bytes | str)
        content = body.encode() if isinstance(body, str) else body if isinstance(body, bytes) else None
        raw = [(to_latin(name), to_latin(value)) for name, value in request.headers.items()]
        fields, upgrades = self._translator.fields(raw, url.origin.scheme == "https" or not self._options["http1"])
        call = pool.request(
            str(request.method),
            url,
            fields,
            content or None,
            end=whole,
            timeout=self._options["total"],
            clocks=Clocks(read, read, read, None),
            pool=None,
            connect=connect,
            replay=self._options["retries"] > 0,
            proxy=proxy,
            only_http1=upgrades,
        )
        if not whole:
            try:
                upload(call, pieces(body))
            except BaseException:
                call.cancel()
                raise
        return call

    def _pool(self, verify: Verify, cert: Cert | None) -> Pool:
        """The connections of those who trust and are this. Raises OSError for a file that cannot be read."""
        with self._lock:
            pool = self.pools.get((verify, cert))
            if pool is None:
                if verify is not True and verify is not False or cert is not None:
                    make_context(verify, cert)
                pool = self.pools[(verify, cert)] = self._make_pool(verify, cert)
            return pool

    def _make_pool(self, verify: Verify, cert: Cert | None) -> Pool:
        names = ("limits", "http1", "http2", "resolver", "settings", "tracer")
        return Pool(verify=verify, cert=cert, **{name: self._options[name] for name in names})

    def _proxy(self, request: requests.PreparedRequest, proxies: dict[str, str]) -> Proxy | None:
        """The proxy for this request. Raises InvalidProxyURL, and InvalidSchema for SOCKS without its extra."""
        url = select_proxy(str(request.url), proxies)
        if not url:
            return None
        proxy = self._proxies.get(url)
        if proxy is None:
            try:
                proxy = self._proxies[url] = Proxy(url if ":/" in url else f"http://{url}")
            except (CalamintError, ValueError) as error:
                raise requests.exceptions.InvalidProxyURL(str(error), request=request) from error
            except ImportError as error:
                raise requests.exceptions.InvalidSchema(str(error), request=request) from error
        return proxy

    def _answer(
        self, request: requests.PreparedRequest, call: Call, beginning: Beginning, pool: Pool
    ) -> requests.Response:
        """The head has come."""
        head = beginning.head
        assert head is not None
        headers = urllib3.HTTPHeaderDict()
        message = HTTPMessage()
        for name, value in head.fields:
            headers.add(name.decode("latin-1"), value.decode("latin-1"))
            message[name.decode("latin-1")] = value.decode("latin-1")
        version, words = VERSIONS[call.protocol]
        raw = Raw(
            body=Content(self, pool, call),
            headers=headers,
            status=head.status,
            version=version,
            version_string=words,
            reason=head.reason.decode("latin-1"),
            preload_content=False,
            decode_content=False,
            original_response=Original(message),  # type: ignore[arg-type]  # as much of one as cookies need
            request_method=request.method,
            request_url=request.url,
        )
        response = requests.Response()
        response.status_code = head.status
        response.headers = CaseInsensitiveDict(headers)
        response.encoding = get_encoding_from_headers(response.headers)
        response.raw = raw
        response.reason = raw.reason or ""
        response.url = str(request.url)
        response.request = request
        response.connection = self  # type: ignore[assignment]  # an adapter, if not theirs
        extract_cookies_to_jar(response.cookies, request, raw)  # type: ignore[no-untyped-call]  # they have no types for it
        return response


def rebuild(options: dict[str, Any]) -> Adapter:
    """An adapter, from its pickle."""
    return Adapter(**options)


@final
class Raw(urllib3.HTTPResponse):
    """urllib3's response over our content. What has come is handed out at once: a stream of events waits for no full chunk."""

    def stream(self, amt: int | None = PIECE, decode_content: bool | None = None) -> Generator[bytes, None, None]:
        """The content in pieces of at most `amt` bytes, as it comes."""
        while piece := self.read1(amt, decode_content=decode_content):
            yield piece


@final
class Original:
    """What takes the place of http.client's response for those who look for cookies there."""

    def __init__(self, message: HTTPMessage) -> None:
        self.msg: Final = message

    def isclosed(self) -> bool:
        """Whether a connection is to be given back to urllib3: none is."""
        return False

    def close(self) -> None:
        """There is nothing to close."""


@final
class Content(io.RawIOBase):
    """The content of a response as a file. Raises TimeoutError and ConnectionError, as a socket does."""

    def __init__(self, adapter: Adapter, pool: Pool, call: Call) -> None:
        super().__init__()
        self._adapter = adapter
        self._pool = pool
        self._call = call
        self._data = b""

    def readable(self) -> bool:
        """It can be read."""
        return True

    def read(self, size: int | None = -1) -> bytes:
        """So much of it, less only at its end."""
        if size is None or size < 0:
            return b"".join(iter(self.read1, b""))
        parts: list[bytes] = []
        while size and (piece := self.read1(size)):
            parts.append(piece)
            size -= len(piece)
        return b"".join(parts)

    def read1(self, size: int = -1) -> bytes:
        """What is here, or comes next; nothing at its end."""
        while not self._data:
            try:
                event = None if self.closed else self._call.receive()
            except TimeoutException as error:
                raise TimeoutError(str(error)) from error
            except CalamintError as error:
                raise ConnectionError(str(error)) from error
            if event is None:
                self.close()  # urllib3 looks at that
                return b""
            if isinstance(event, DataReceived):
                self._data = event.data
        cut = len(self._data) if size is None or size < 0 else size
        data, self._data = self._data[:cut], self._data[cut:]
        return data

    def readinto(self, buffer: Any) -> int:
        """As much as fits and has come."""
        data = self.read1(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """What has not come is not wanted any more."""
        if not self.closed:
            self._call.cancel()
            self._adapter.release(self._pool)
        super().close()


def pieces(body: object) -> Iterator[bytes]:
    """Content from a file or any iterable."""
    read = getattr(body, "read", None)
    if callable(read):
        while piece := read(PIECE):
            yield piece.encode() if isinstance(piece, str) else piece
    elif isinstance(body, Iterable):
        for piece in body:
            yield piece.encode() if isinstance(piece, str) else piece


def to_cert(cert: CertLike) -> Cert | None:
    """A client certificate, and perhaps its key."""
    if isinstance(cert, tuple):
        return os.fsdecode(cert[0]), os.fsdecode(cert[1])
    return None if not cert else os.fsdecode(cert)


def to_latin(text: str | bytes) -> bytes:
    """Field text, which requests has checked."""
    return text.encode("latin-1", "replace") if isinstance(text, str) else text


def to_seconds(timeout: TimeoutLike) -> tuple[float | None, float | None]:
    """Limits for the connection and for silence. Raises ValueError for what is neither."""
    if isinstance(timeout, tuple):
        if len(timeout) != 2:
            raise ValueError(f"timeout={timeout}: write seconds, or a tuple (connect, read)")
        timeout = urllib3.Timeout(connect=timeout[0], read=timeout[1])
    elif not isinstance(timeout, urllib3.Timeout):
        timeout = urllib3.Timeout(connect=timeout, read=timeout)
    connect, read = timeout.connect_timeout, timeout.read_timeout
    return connect if isinstance(connect, int | float) else None, read if isinstance(read, int | float) else None


def to_requests(error: CalamintError, request: requests.PreparedRequest, proxied: bool) -> requests.RequestException:
    """An error as the users of requests know it; ours is to be its cause."""
    kind = KINDS.get(type(error).__name__, requests.ConnectionError)
    if type(error).__name__ == "ConnectError" and "no TLS with" in str(error):
        kind = requests.exceptions.SSLError
    elif type(error).__name__ == "ConnectError" and proxied:
        kind = requests.exceptions.ProxyError
    return kind(str(error), request=request)
