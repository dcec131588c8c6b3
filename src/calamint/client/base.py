"""What both clients do without I/O: a request from what the caller and the client say, a response from events, redirects."""

import os
import sys
import time
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from importlib import metadata
from typing import Final, NamedTuple

from calamint.client.codings import CodingLimits, supported
from calamint.client.content import Form, Params, RequestContent, merge_params
from calamint.client.headers import Headers, HeadersInit
from calamint.client.message import NOTHING, Request, Response
from calamint.client.timeout import UNSET, Timeout, Unset, to_timeout
from calamint.client.urls import URL, merge
from calamint.core.errors import (
    CalamintError,
    ConnectError,
    ConnectTimeout,
    DeadlineExceeded,
    DecodingError,
    InvalidURL,
    ProxyError,
    RemoteProtocolError,
    StreamConsumed,
    TooManyRedirects,
    TransportError,
    UnsupportedProtocol,
)
from calamint.core.events import DataReceived, Event, InterimReceived, ResponseReceived, TrailersReceived
from calamint.core.url import URL as Parsed
from calamint.core.value import Fields
from calamint.net.environment import ProxyMap, proxies_from_environment
from calamint.net.proxy import Proxy
from calamint.net.response import Response as Arrived

Auth = tuple[str | bytes, str | bytes]

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
            raise DeadlineExceeded("its time was over before it was sent", unprocessed=True)
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
        coding_limits: CodingLimits,
        direct: bool,
    ) -> None:
        """`direct`: no proxy of the environment is on the way."""
        if retries not in (0, 1):
            raise ValueError(f"retries={retries}: 1, once more what was provably not processed, or 0, nothing")
        if proxy is not None and uds is not None:
            raise ValueError("uds= and proxy= both say where to connect to: choose one of them")
        self.auth = auth
        self.params = params
        self.follow_redirects = follow_redirects
        self.max_redirects = max_redirects
        self.trust_env = trust_env
        self.default_encoding = default_encoding
        self.is_closed = False
        self._base = check_base(str(base_url))
        self._retries = retries
        self._coding_limits = coding_limits
        self.timeout = timeout
        self._plain: Fields = ()  # of the last request that asks for no tunnel, so that the next with the same is not read
        self._headers = default_headers()
        self._headers.update(headers)
        self._urls: dict[str, URL] = {}
        self._proxy = Proxy(proxy) if isinstance(proxy, str) else proxy
        if self._proxy is not None and not isinstance(self._proxy, Proxy):
            raise TypeError(f"proxy is of type {type(proxy).__name__}: give a URL, as text, or a calamint.Proxy")
        if direct:  # it is not asked
            self._proxy = None
        self._proxies: ProxyMap | None = None
        if self._proxy is None and trust_env and not direct:
            found = proxies_from_environment(os.environ)
            self._proxies = found if found.proxies else None

    @property
    def base_url(self) -> str:
        """What stands before every URL that is not absolute."""
        return self._base

    @property
    def headers(self) -> Headers:
        """Sent with every request, unless it says otherwise."""
        return self._headers

    @headers.setter
    def headers(self, headers: HeadersInit) -> None:
        fresh = default_headers()
        fresh.update(headers)
        self._headers = fresh

    @property
    def timeout(self) -> Timeout:
        """The limits of every request that says nothing else."""
        return self._timeout

    @timeout.setter
    def timeout(self, timeout: float | Timeout | None) -> None:
        self._timeout = to_timeout(timeout)
        self._timeless = Settled(self._timeout, None) if self._timeout.total is None else None

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
        """A request with all that this client adds. Its `params`, and those of the client with other names, are appended to
        the URL's query. Raises InvalidURL, UnsupportedProtocol, TypeError."""
        merged = self._headers  # which the request copies
        if headers is not None:
            merged = merged.copy()
            merged.update(headers)
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
            known = URL(merge(self._base, url) if isinstance(url, str) else url)  # or it says what it is not
            if len(self._urls) >= KNOWN_URLS:
                self._urls = {}
            self._urls[url] = known
        return URL(known, params) if params else known

    def _authorize(self, request: Request, auth: Auth | None | Unset) -> None:
        """Basic credentials (RFC 7617): those of the call, of the URL, or of the client, in this order. None are left in the
        URL, where they would be shown."""
        url = request.url
        if not isinstance(auth, Unset):
            chosen = auth
        elif url.parsed.userinfo:
            chosen = (url.username, url.password)
        else:
            chosen = None if self.auth is None or "authorization" in request.headers else self.auth
        if chosen is not None:
            request.headers["Authorization"] = basic(chosen)
        if url.parsed.userinfo:
            request.url = url.bare()

    def _limits(self, request: Request) -> Settled:
        """The limits of this request; its time begins now."""
        said = request.extensions.get("timeout", UNSET) if request.extensions else UNSET
        if said is UNSET:
            if self._timeless is not None:
                return self._timeless
            timeout = self._timeout
        elif isinstance(said, Mapping):
            timeout = Timeout(**said)
        elif said is None or isinstance(said, float | int | Timeout):
            timeout = to_timeout(said)
        else:
            raise TypeError(
                f"extensions['timeout'] is of type {type(said).__name__}: give seconds or a calamint.Timeout"
            )
        total = timeout.total
        return Settled(timeout, None if total is None else time.monotonic() + total)

    def _asks_for_a_tunnel(self, request: Request) -> bool:
        """Whether what it asks for may have no end: a tunnel, or another protocol (RFC 9110 §9.3.6, §7.8)."""
        fields = request.headers.fields
        if fields is not self._plain:
            if any([len(name) == 7 and name.lower() == b"upgrade" for name, _ in fields]):
                return True
            self._plain = fields
        return request.method == "CONNECT"

    def _aim(self, request: Request) -> Parsed:
        """Where a request goes; another target may be among its extensions."""
        parsed = request.url.parsed
        if not request.extensions or (target := request.extensions.get("target")) is None:
            return parsed
        if not isinstance(target, bytes):
            raise TypeError(f"extensions['target'] is of type {type(target).__name__}: give bytes")
        return Parsed(parsed.origin, target.decode("ascii"), "", "")

    def _certified(self, request: Request) -> str | None:
        """The name that the server's certificate must have, where it is not the URL's host."""
        if not request.extensions or (name := request.extensions.get("sni_hostname")) is None:
            return None
        if not isinstance(name, str):
            raise TypeError(f"extensions['sni_hostname'] is of type {type(name).__name__}: give a str")
        return name

    def _choose_proxy(self, url: URL) -> Proxy | None:
        """The proxy for this URL."""
        if self._proxy is not None or self._proxies is None:
            return self._proxy
        return self._proxies.choose(url.parsed)

    def _next_request(self, request: Request, response: Response) -> Request | None:
        """Where a redirect sends whoever follows it, None where nobody can go."""
        try:
            return self._redirect(request, response)
        except RemoteProtocolError:
            return None

    def _redirect(self, request: Request, response: Response) -> Request:
        """The request that a redirect asks for (RFC 9110 §15.4). Raises RemoteProtocolError where nobody can go there.

        Credentials go to no other origin than the one that they were meant for, and do not come back later in the chain.
        """
        url = follow(request.url, response.headers.get_list("location"))
        method = method_after(response.status_code, request.method)
        same_method, same_origin = method == request.method, url.parsed.origin == request.url.parsed.origin
        fields = [(name, value) for name, value in request.headers.raw if keeps(name.lower(), same_origin, same_method)]
        own = ("target",) if same_origin else ("target", "sni_hostname")
        extensions = {name: value for name, value in request.extensions.items() if name not in own}
        following = Request(method, url, headers=fields, extensions=extensions)
        following.body = request.body if same_method else NOTHING
        return following

    def _follow(self, request: Request, response: Response, history: list[Response]) -> Request:
        """As `_redirect`. Raises also TooManyRedirects, and StreamConsumed for content that cannot be sent again."""
        if len(history) >= self.max_redirects:
            raise TooManyRedirects(f"more than {self.max_redirects} redirects (max_redirects={self.max_redirects})")
        following = self._redirect(request, response)
        parts = following.body.parts
        if parts is not None and not parts.replayable:
            raise StreamConsumed(
                "a redirect asks for the content again, which came from a generator: give bytes, or follow it yourself"
            )
        return following

    def _whole(self, request: Request, arrived: Arrived, protocol: str, began: float) -> Response:
        """A response of which everything is here."""
        response = self._head(request, arrived.status, arrived.reason, arrived.ref, protocol)
        response._headers = arrived.fields
        response._raw = arrived.content
        response.num_bytes_downloaded = len(arrived.content)
        response._elapsed = time.perf_counter() - began
        if arrived.trailers:
            response._trailers = Headers(arrived.trailers)
        if arrived.interim:
            response.interim = tuple(arrived.interim)
        return response

    def _streamed(self, request: Request, beginning: "Beginning", protocol: str, began: float) -> Response:
        """A response whose content is still to come."""
        head = beginning.head
        assert head is not None
        response = self._head(request, head.status, head.reason, head.ref, protocol)
        response._headers = head.fields
        response._raw = None
        response._began = began
        response.interim = tuple(beginning.interim)
        response.is_closed = response.is_stream_consumed = False
        return response

    def _head(self, request: Request, status: int, reason: bytes, ref: int, protocol: str) -> Response:
        """A response without its content."""
        extensions: dict[str, object] = {"http_version": VERSIONS.get(protocol, b"HTTP/1.1")}
        if protocol == "h2":
            extensions["stream_id"] = ref
        else:
            extensions["reason_phrase"] = reason
        response = Response(
            status, request=request, default_encoding=self.default_encoding, coding_limits=self._coding_limits
        )
        response.extensions = extensions
        return response


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


def note(trailers: Headers, events: Iterable[Event]) -> list[bytes]:
    """The pieces of content among these events; trailer fields go to the others."""
    pieces: list[bytes] = []
    for event in events:
        if isinstance(event, DataReceived):
            pieces.append(event.data)
        elif isinstance(event, TrailersReceived):
            trailers.update(event.fields)
    return pieces


def is_tunnel(request: Request, response: Response) -> bool:
    """Whether it got that, and what follows the head is no content."""
    return response.status_code == 101 or (request.method == "CONNECT" and response.is_success)


def explain(error: CalamintError, request: Request, timeout: Timeout, proxy: Proxy | None = None) -> None:
    """An error says which request it is about, and that of a deadline how it was set. `proxy`: what is on the way."""
    if isinstance(error, TransportError | TooManyRedirects | DecodingError) and error.request is None:
        error.request = request
        name_proxy(error, proxy)
        if isinstance(error, DeadlineExceeded) and timeout.total is not None:
            error.message += f"; timeout={timeout.total:.10g} is for all of a request, redirects included"


def name_proxy(error: CalamintError, proxy: Proxy | None) -> None:
    """Where there is no way to an origin, the error says through what: the environment may have named it."""
    if proxy is not None and isinstance(error, ConnectError | ConnectTimeout | ProxyError):
        error.message += f"; through the proxy {proxy.url}"


def caller() -> str:
    """File and line of who called, outside of this package."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in (
        "calamint",
        "contextlib",
    ):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


@cache
def agent() -> str:
    """What user-agent says."""
    return f"calamint/{metadata.version('calamint')}"


def default_headers() -> Headers:
    """What every client sends."""
    return Headers([("Accept", "*/*"), ("Accept-Encoding", supported()), ("User-Agent", agent())])


def check_base(base: str) -> str:
    """A client's `base_url`. Raises InvalidURL and UnsupportedProtocol."""
    if base:
        shown = str(URL(base).bare())
        if "?" in base or "#" in base:
            raise InvalidURL(f"base_url={shown!r}: it has no query and no fragment; write params= for the one")
    return base


def basic(auth: Auth) -> str:
    """Basic credentials (RFC 7617 §2). Raises TypeError for what is no pair, ValueError for a user with a colon."""
    if not isinstance(auth, tuple) or len(auth) != 2 or not all([isinstance(part, str | bytes) for part in auth]):
        raise TypeError(f"auth is of type {type(auth).__name__}: give a pair of user and password; more is not here")
    user, password = [part if isinstance(part, bytes) else part.encode() for part in auth]
    if b":" in user:
        raise ValueError("a colon in the user's name: Basic credentials have no place for it (RFC 7617 §2)")
    return "Basic " + b64encode(user + b":" + password).decode("ascii")


def method_after(status: int, method: str) -> str:
    """The method of the request that a redirect asks for (RFC 9110 §15.4): some turn a POST, or anything, into a GET."""
    return "GET" if (status == 303 and method != "HEAD") or (status in (301, 302) and method == "POST") else method


def keeps(name: bytes, same_origin: bool, same_method: bool) -> bool:
    """Whether a field goes along with a redirect."""
    if name in OF_CONTENT and not same_method:
        return False
    return same_origin or (name != b"host" and name not in CREDENTIALS and not name.startswith(b"proxy-"))


def follow(url: URL, locations: list[str]) -> URL:
    """Where a Location leads; credentials in it are the server's, and are not used."""
    if len(set(locations)) > 1:
        raise RemoteProtocolError(f"a redirect of {url} leads to {len(locations)} places")
    try:
        return url.join(locations[0]).bare()
    except (InvalidURL, UnsupportedProtocol) as error:
        raise RemoteProtocolError(f"a redirect of {url} leads nowhere: {error}") from None
