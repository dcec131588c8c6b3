"""What both clients do without I/O: a request from what the caller and the client say, a response from events, redirects."""

import os
import time
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping
from importlib import metadata
from typing import Final, NamedTuple

from calamint.client.codings import supported
from calamint.client.content import Content, Form, Params, RequestContent, merge_params
from calamint.client.headers import Headers
from calamint.client.message import NOTHING, REDIRECTS, Request, Response
from calamint.client.timeout import UNSET, Timeout, Unset, to_timeout
from calamint.client.urls import URL, merge
from calamint.core.errors import (
    DeadlineExceeded,
    RemoteProtocolError,
    StreamConsumed,
    TooManyRedirects,
    TransportError,
)
from calamint.core.events import DataReceived, Event, InterimReceived, ResponseReceived, TrailersReceived
from calamint.core.url import Origin
from calamint.net.environment import ProxyMap, proxies_from_environment
from calamint.net.proxy import Proxy
from calamint.net.response import Response as Arrived
from calamint.net.response import to_bytes

Auth = tuple[str | bytes, str | bytes]
HeadersInit = Headers | Mapping[str, str] | Iterable[tuple[str | bytes, str | bytes]]

KNOWN_URLS: Final = 512
DRAINED: Final = 64 * 1024  # bytes of a redirect's content that are read so that its connection can be used again
CREDENTIALS: Final = frozenset((b"authorization", b"cookie", b"www-authenticate"))  # and all that begins with "proxy-"
OF_CONTENT: Final = frozenset(
    (
        *(b"content-length", b"content-type", b"content-encoding", b"content-language", b"content-location"),
        *(b"transfer-encoding", b"digest", b"last-modified", b"expect"),
    )
)
VERSIONS: Final = {"h2": b"HTTP/2", "http/1.1": b"HTTP/1.1"}


class Settled(NamedTuple):
    """A request's limits: all of them, and when it must be over, by time.monotonic()."""

    timeout: Timeout
    deadline: float | None

    def left(self) -> float | None:
        """Seconds until then. Raises DeadlineExceeded when there are none."""
        if self.deadline is None:
            return None
        seconds = self.deadline - time.monotonic()
        if seconds <= 0:
            total = self.timeout.total
            raise DeadlineExceeded(f"the redirects took longer than total={total} seconds", unprocessed=True)
        return seconds


class BaseClient:
    """The configuration of a client, and what follows from it."""

    def __init__(
        self,
        *,
        auth: Auth | None,
        params: Params | None,
        headers: HeadersInit | None,
        proxy: str | Proxy | None,
        timeout: float | Timeout | None,
        follow_redirects: bool,
        max_redirects: int,
        base_url: str | URL,
        trust_env: bool,
        uds: str | None,
        default_encoding: str | Callable[[bytes], str],
        retries: int,
    ) -> None:
        if retries not in (0, 1):
            raise ValueError(f"retries={retries}: 1, once more what was provably not processed, or 0, nothing")
        if proxy is not None and uds is not None:
            raise ValueError("uds= and proxy= both say where to connect to: choose one of them")
        base = str(base_url)
        if base:
            URL(base)  # raises InvalidURL
        self.auth = auth
        self.params = params
        self.follow_redirects = follow_redirects
        self.max_redirects = max_redirects
        self.trust_env = trust_env
        self.default_encoding = default_encoding
        self.is_closed = False
        self._base = base
        self._retries = retries
        self._timeout = to_timeout(timeout)
        self._headers = default_headers()
        self._headers.merge(headers)
        self._urls: dict[str, URL] = {}
        self._proxy = Proxy(proxy) if isinstance(proxy, str) else proxy
        self._proxies: ProxyMap | None = None
        if self._proxy is None and trust_env and uds is None:
            found = proxies_from_environment(os.environ)
            self._proxies = found if found.proxies else None

    @property
    def base_url(self) -> str:
        """Before every URL that is not absolute."""
        return self._base

    @property
    def headers(self) -> Headers:
        """Sent with every request, unless it says otherwise."""
        return self._headers

    @headers.setter
    def headers(self, headers: HeadersInit) -> None:
        fresh = default_headers()
        fresh.merge(headers)
        self._headers = fresh

    @property
    def timeout(self) -> Timeout:
        """The limits of every request that says nothing else."""
        return self._timeout

    @timeout.setter
    def timeout(self, timeout: float | Timeout | None) -> None:
        self._timeout = to_timeout(timeout)

    def build_request(
        self,
        method: str,
        url: str | URL,
        *,
        content: RequestContent | None = None,
        data: Form | None = None,
        json: object = None,
        params: Params | None = None,
        headers: HeadersInit | None = None,
        timeout: float | Timeout | None | Unset = UNSET,
        extensions: Mapping[str, object] | None = None,
    ) -> Request:
        """A request with all that this client adds. Raises InvalidURL, UnsupportedProtocol, TypeError."""
        merged = self._headers.copy()
        if headers is not None:
            merged.merge(headers)
        request = Request(
            method, self._url(url, params), headers=merged, content=content, data=data, json=json, extensions=extensions
        )
        if not isinstance(timeout, Unset):
            request.extensions["timeout"] = to_timeout(timeout)
        return request

    def _url(self, url: str | URL, params: Params | None) -> URL:
        """The whole URL."""
        if self.params is not None:
            params = merge_params(self.params, params)
        if isinstance(url, URL):
            return URL(url, params) if params else url
        known = self._urls.get(url)
        if known is None:
            known = URL(merge(self._base, url))
            if len(self._urls) >= KNOWN_URLS:
                self._urls = {}
            self._urls[url] = known
        return URL(known, params) if params else known

    def _authorize(self, request: Request, auth: Auth | None | Unset) -> None:
        """Basic credentials (RFC 7617): those of the call, of the URL, or of the client, in this order."""
        chosen: Auth | None
        if not isinstance(auth, Unset):
            chosen = auth
        elif request.url.parsed.userinfo:
            chosen = (request.url.username, request.url.password)
        else:
            chosen = None if self.auth is None or "authorization" in request.headers else self.auth
        if chosen is not None:
            request.headers["Authorization"] = basic(chosen)

    def _limits(self, request: Request) -> Settled:
        """The limits of this request; its time begins now."""
        said = request.extensions.get("timeout", UNSET)
        if isinstance(said, Unset):
            timeout = self._timeout
        elif isinstance(said, Mapping):
            timeout = Timeout(**said)
        elif said is None or isinstance(said, float | int | Timeout):
            timeout = to_timeout(said)
        else:
            raise TypeError(f"extensions['timeout'] is of type {type(said).__name__}: give seconds or a Timeout")
        total = timeout.total
        return Settled(timeout, None if total is None else time.monotonic() + total)

    def _choose_proxy(self, url: URL) -> Proxy | None:
        """The proxy for this URL."""
        if self._proxy is not None or self._proxies is None:
            return self._proxy
        return self._proxies.choose(url.parsed)

    def _redirect(self, request: Request, response: Response) -> Request | None:
        """Where a response sends the client (RFC 9110 §15.4), or None. Raises RemoteProtocolError for where it cannot go.

        Credentials go to no other origin than the one that they were meant for, and do not come back later in the chain.
        """
        if response.status_code not in REDIRECTS:
            return None
        location = response.headers.get("location")
        if location is None:
            return None
        url = follow(request.url, location)
        method = request.method
        status = response.status_code
        if (status == 303 and method != "HEAD") or (status in (301, 302) and method == "POST"):
            method = "GET"
        body: Content = request.body if method == request.method else NOTHING
        fields = [
            (name, value)
            for name, value in request.headers.raw
            if keeps(name.lower(), url.parsed.origin == request.url.parsed.origin, method == request.method)
        ]
        following = Request(method, url, headers=fields, extensions=request.extensions)
        following.body = body
        return following

    def _check_redirect(self, history: list[Response], following: Request) -> None:
        """Raises TooManyRedirects, and StreamConsumed for content that cannot be sent again."""
        if len(history) >= self.max_redirects:
            raise TooManyRedirects(f"more than {self.max_redirects} redirects (max_redirects={self.max_redirects})")
        parts = following.body.parts
        if parts is not None and not parts.replayable:
            raise StreamConsumed(
                "a redirect asks for the content again, which came from a generator: give bytes, or follow it yourself"
            )

    def _whole(self, request: Request, arrived: Arrived, protocol: str, began: float) -> Response:
        """A response of which everything is here."""
        response = self._head(request, arrived.status, arrived.reason, arrived.ref, protocol)
        response._headers = arrived.fields
        response._raw = arrived.content
        response.num_bytes_downloaded = len(arrived.content)
        response._elapsed = time.perf_counter() - began
        if arrived.trailers:
            response.trailers = Headers(arrived.trailers)
        if arrived.interim:
            response.interim = tuple(arrived.interim)
        return response

    def _head(self, request: Request, status: int, reason: bytes, ref: int, protocol: str) -> Response:
        """A response without its content."""
        extensions: dict[str, object] = {"http_version": VERSIONS.get(protocol, b"HTTP/1.1")}
        if protocol == "h2":
            extensions["stream_id"] = ref
        else:
            extensions["reason_phrase"] = reason
        return Response(status, request=request, extensions=extensions, default_encoding=self.default_encoding)


class Beginning:
    """The beginning of a response that is streamed: what came with its head."""

    def __init__(self) -> None:
        self.interim: list[InterimReceived] = []
        self.head: ResponseReceived | None = None
        self.rest: list[Event] = []

    def take(self, events: Iterable[Event]) -> bool:
        """Whether the head is here."""
        for event in events:
            if self.head is not None:
                self.rest.append(event)
            elif isinstance(event, ResponseReceived):
                self.head = event
            elif isinstance(event, InterimReceived):
                self.interim.append(event)
        return self.head is not None


def note(response: Response, events: Iterable[Event]) -> list[bytes]:
    """The pieces of content among these events; trailers go to the response."""
    pieces: list[bytes] = []
    for event in events:
        if isinstance(event, DataReceived):
            pieces.append(event.data)
        elif isinstance(event, TrailersReceived):
            response.trailers = Headers(event.fields)
    return pieces


def named(error: TransportError, request: Request) -> TransportError:
    """The error, with the request that it is about."""
    error.request = request
    return error


def default_headers() -> Headers:
    """What every client sends."""
    agent = f"calamint/{metadata.version('calamint')}"
    return Headers([("Accept", "*/*"), ("Accept-Encoding", supported()), ("User-Agent", agent)])


def basic(auth: Auth) -> str:
    """Basic credentials (RFC 7617 §2)."""
    user, password = [to_bytes(part) if isinstance(part, bytes) else part.encode() for part in auth]
    return "Basic " + b64encode(user + b":" + password).decode("ascii")


def keeps(name: bytes, same_origin: bool, same_method: bool) -> bool:
    """Whether a field goes along with a redirect."""
    if name == b"host" or (not same_method and name in OF_CONTENT):
        return False
    return same_origin or (name not in CREDENTIALS and not name.startswith(b"proxy-"))


def follow(url: URL, location: str) -> URL:
    """Where a Location leads; credentials in it are the server's, and are not used."""
    try:
        found = url.join(location)
    except Exception as error:
        raise RemoteProtocolError(f"a redirect of {url} leads nowhere: {error}") from None
    parsed = found.parsed
    return (
        URL(
            type(parsed)(
                Origin(parsed.origin.scheme, parsed.origin.host, parsed.origin.port), parsed.target, "", parsed.fragment
            )
        )
        if parsed.userinfo
        else found
    )
