"""A proxy, as a caller names it: where it is, who we are to it, and whom we take it to be."""

import base64
import hashlib
import itertools
import os
from ssl import SSLContext
from typing import Final
from urllib.parse import unquote

from calamint.core.errors import InvalidURL, LocalProtocolError
from calamint.core.fields import check_fields
from calamint.core.url import DEFAULT_PORTS, URL, Origin, parse_url
from calamint.core.value import Fields
from calamint.net.dial import to_ascii
from calamint.net.response import Headers, to_fields
from calamint.net.socks import check_installed
from calamint.net.tls import TLSPipe, Verify, make_context

PORTS: Final = {**DEFAULT_PORTS, "socks5": 1080, "socks5h": 1080}
SOCKS_LIMIT: Final = 255  # bytes of a name or a password (RFC 1929 §2)
OURS: Final = frozenset(b"connection content-length expect host te trailer transfer-encoding upgrade".split())
SALT: Final = os.urandom(16)  # so that a key says nothing about a password outside this process

numbers: Final = itertools.count(1)


class Proxy:
    """A proxy: `http://` or `https://` for one that is asked in HTTP/1.1, `socks5://` for SOCKS (RFC 1928).

    `url`: where it is; a path says nothing. Credentials in it, percent-decoded, are the same as `auth`. SOCKS is told the
    host's name and looks it up; `socks5h://` says so, and means the same. `auth`: user and password, for Basic (RFC 7617) or
    RFC 1929. `headers`: fields for the proxy alone; SOCKS has none. `ssl`: whom an `https://` proxy is trusted to be, as
    `verify` says it for origins (see `calamint.net.tls.make_context`).

    Raises InvalidURL where the URL is none, or its scheme another one; TypeError where `auth` is no pair; ValueError where
    `auth` or `headers` cannot be said or contradict the URL; and ImportError for SOCKS without its extra. Two proxies are
    equal where a connection may be shared.
    """

    def __init__(
        self, url: str, *, auth: tuple[str, str] | None = None, headers: Headers = (), ssl: Verify = True
    ) -> None:
        parsed = read_proxy_url(url)
        self.origin: Final[Origin] = parsed.origin
        self.is_socks: Final = self.origin.scheme.startswith("socks")
        if parsed.userinfo:
            if auth is not None:
                raise ValueError("credentials both in the proxy's URL and in auth=: write them once")
            auth = read_userinfo(parsed.userinfo)
        pair = isinstance(auth, tuple) and len(auth) == 2 and all([isinstance(part, str) for part in auth])
        if auth is not None and not pair:
            raise TypeError(f"auth is of type {type(auth).__name__}: give a pair of user and password, both text")
        self.auth: Final = auth
        self.headers: Final = to_fields(headers)
        self.ssl: Final = ssl
        if self.is_socks:
            check_installed()
        self.fields: Final = make_fields(self)
        self.key: Final = make_key(self)
        self._context: SSLContext | None = None

    @property
    def url(self) -> str:
        """Where it is, without credentials."""
        zone = self.origin.host.partition("%")[2]  # what no field says, but what tells two link-local addresses apart
        authority = self.origin.authority()
        return f"{self.origin.scheme}://{authority.replace(']', f'%{zone}]') if zone else authority}"

    def __eq__(self, other: object) -> bool:
        return self.key == other.key if isinstance(other, Proxy) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.key)

    def __repr__(self) -> str:
        auth = f", auth=({self.auth[0]!r}, '********')" if self.auth else ""
        headers = f", headers: {', '.join([name.decode() for name, _ in self.headers])}" if self.headers else ""
        return f"Proxy({self.url!r}{auth}{headers})"

    def forwards(self, origin: Origin) -> bool:
        """Whether it is sent the requests for this origin themselves (RFC 9112 §3.2.2), and not asked for a tunnel."""
        return origin.scheme == "http" and not self.is_socks

    def start_tls(self) -> TLSPipe:
        """TLS with the proxy itself, its handshake still to be made. Raises OSError where a file cannot be read, and
        ValueError where its host is no name for a certificate."""
        if self._context is None or self._context is self.ssl:  # the caller's own may have been used for something else
            self._context = make_context(self.ssl, alpn=("http/1.1",))
        return TLSPipe(self._context, self.origin.host)


def as_sent(proxy: Proxy | None, url: URL, fields: Fields) -> tuple[str, Fields]:
    """The target and the fields of a request: a proxy that forwards it is told where to, and what is for the proxy alone."""
    if proxy is None or not proxy.forwards(url.origin):
        return url.target, fields
    return absolute_form(url.origin, url.target), fields + proxy.fields


def absolute_form(origin: Origin, target: str) -> str:
    """The target of a request that is forwarded (RFC 9112 §3.2.2); the one of a server as a whole has no path (§3.2.4)."""
    return f"{origin.scheme}://{origin.authority()}{'' if target == '*' else target}"


def read_proxy_url(text: str) -> URL:
    """A proxy's URL. Raises InvalidURL, which shows nothing of its credentials, nor of what may be a part of them."""
    if not isinstance(text, str):
        raise TypeError(f"the URL of a proxy is of type {type(text).__name__}: give text")
    scheme, found, rest = text.partition("://")
    if found and scheme.lower() not in PORTS:
        raise InvalidURL(f"the scheme {scheme!r} is none of a proxy: there are {', '.join(PORTS)}")
    try:
        return parse_url(text, to_ascii, PORTS)
    except InvalidURL as error:
        if "@" not in rest:
            raise InvalidURL(f"not the URL of a proxy: {error}") from None
    shown = f"{scheme}://…@{rest.rpartition('@')[2]}"
    raise InvalidURL(f"not the URL of a proxy: {shown!r}; in its credentials write %40 for @, %2F for /, and so on")


def read_userinfo(userinfo: str) -> tuple[str, str]:
    """User and password (RFC 3986 §3.2.1), percent-decoded."""
    user, _, password = userinfo.partition(":")
    try:
        return unquote(user, errors="strict"), unquote(password, errors="strict")
    except UnicodeDecodeError:
        raise InvalidURL("the credentials in the proxy's URL are not UTF-8, percent-encoded") from None


def make_fields(proxy: Proxy) -> Fields:
    """What is sent to an HTTP proxy with a CONNECT or with each request: its fields and Basic credentials (RFC 7617 §2)."""
    names = {name.lower() for name, _ in proxy.headers}
    if proxy.is_socks and names:
        raise ValueError("headers for a SOCKS proxy: there is no place for them")
    if bad := sorted(names & OURS):
        raise ValueError(f"the field {bad[0].decode()} is not for a proxy alone: it belongs to each message")
    try:
        check_fields(proxy.headers)
    except LocalProtocolError as error:
        raise ValueError(f"headers for a proxy: {error}") from None
    if proxy.auth is None:
        return proxy.headers
    user, password = check_auth(proxy)
    if proxy.is_socks:
        return ()
    if b"proxy-authorization" in names:
        raise ValueError("the proxy has credentials, and proxy-authorization among its headers: write them once")
    return (*proxy.headers, (b"Proxy-Authorization", b"Basic " + base64.b64encode(b"%b:%b" % (user, password))))


def check_auth(proxy: Proxy) -> tuple[bytes, bytes]:
    """User and password as bytes. Raises ValueError, which does not show them, where they cannot be said."""
    assert proxy.auth is not None
    for part in proxy.auth:
        if any(letter < " " or letter == "\x7f" for letter in part):
            raise ValueError("a control character in the proxy's credentials (RFC 7617 §2)")
        if proxy.is_socks and not (part.isascii() and 0 < len(part) <= SOCKS_LIMIT):
            raise ValueError(
                f"credentials for SOCKS: allowed are 1 to {SOCKS_LIMIT} ASCII characters each (RFC 1929 §2)"
            )
    if ":" in proxy.auth[0] and not proxy.is_socks:
        raise ValueError("a colon in the user's name for the proxy: there can be none (RFC 7617 §2)")
    try:
        return proxy.auth[0].encode("utf-8"), proxy.auth[1].encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("the proxy's credentials have characters that UTF-8 has not") from None


def make_key(proxy: Proxy) -> str:
    """What stands for it in a key of the pool: all that affects whom we talk to and who we are. It shows no secret. A context
    of the caller's own has no name, and so is another one for each proxy."""
    trust = repr(os.fspath(proxy.ssl)) if isinstance(proxy.ssl, str | os.PathLike) else str(proxy.ssl)
    if not isinstance(proxy.ssl, bool | str | os.PathLike):
        trust = f"context {next(numbers)}"
    told = repr((proxy.auth, proxy.headers, trust)).encode("utf-8", "surrogatepass")
    return f"{proxy.url} {hashlib.blake2b(told, digest_size=16, key=SALT).hexdigest()}"
