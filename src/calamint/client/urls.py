"""URLs as callers write and read them: absolute or relative, joined, with parameters."""

import re
from typing import Final, final
from urllib.parse import unquote, urljoin

from calamint.client.content import Params, encode_params
from calamint.core.errors import InvalidURL
from calamint.core.url import DEFAULT_PORTS
from calamint.core.url import URL as Parsed
from calamint.net.dial import read_url

ABSOLUTE: Final = re.compile(r"[^/?#]*://")  # another URL may stand within a path, a query or a fragment


@final
class URL:
    """An absolute http or https URL, never changed. `str(url)` is what it was made from, percent-encoded where it must be.

    Raises InvalidURL, UnsupportedProtocol, and TypeError for what is neither text nor a URL.
    """

    __slots__ = ("parsed",)

    def __init__(self, url: "str | URL | Parsed", params: Params | None = None) -> None:
        """`params`: appended to the query, if it has one."""
        parsed = url.parsed if isinstance(url, URL) else read_url(url) if isinstance(url, str) else url
        if not isinstance(parsed, Parsed):
            raise TypeError(f"a URL is of type {type(url).__name__}: give text, or a calamint.URL")
        query = encode_params(params)
        if query:
            joint = "&" if "?" in parsed.target else "?"
            parsed = Parsed(parsed.origin, f"{parsed.target}{joint}{query}", parsed.userinfo, parsed.fragment)
        self.parsed: Parsed = parsed

    @property
    def scheme(self) -> str:
        return self.parsed.origin.scheme

    @property
    def host(self) -> str:
        """The host, as A-labels; an IPv6 address without its brackets."""
        return self.parsed.origin.host

    @property
    def port(self) -> int | None:
        """The port, None where it is the scheme's own."""
        port = self.parsed.origin.port
        return None if DEFAULT_PORTS[self.scheme] == port else port

    @property
    def netloc(self) -> str:
        """Host and port, as the field Host says them."""
        return self.parsed.origin.authority()

    @property
    def path(self) -> str:
        """The path, percent-decoded."""
        return unquote(self.parsed.target.partition("?")[0])

    @property
    def query(self) -> str:
        """The query as it is sent, without its "?"."""
        return self.parsed.target.partition("?")[2]

    @property
    def target(self) -> str:
        """Path and query, as they are sent (RFC 9112 §3.2.1)."""
        return self.parsed.target

    @property
    def fragment(self) -> str:
        return self.parsed.fragment

    @property
    def username(self) -> str:
        return unquote(self.parsed.userinfo.partition(":")[0])

    @property
    def password(self) -> str:
        return unquote(self.parsed.userinfo.partition(":")[2])

    def bare(self) -> "URL":
        """The same without user and password."""
        parsed = self.parsed
        return URL(Parsed(parsed.origin, parsed.target, "", parsed.fragment)) if parsed.userinfo else self

    def join(self, reference: "str | URL") -> "URL":
        """Where a reference leads from here (RFC 3986 §5); this URL's fragment goes along where it has none."""
        if isinstance(reference, URL):
            return reference
        here = self.parsed
        try:
            found = read_url(urljoin(write(Parsed(here.origin, here.target, "", "")), reference))
        except ValueError as error:  # urljoin's, of brackets that hold no address
            raise InvalidURL(f"{reference.rpartition('@')[2]!r}: {error}") from None
        return URL(Parsed(found.origin, found.target, found.userinfo, found.fragment or here.fragment))

    def __str__(self) -> str:
        return write(self.parsed)

    def __repr__(self) -> str:
        user, colon, _ = self.parsed.userinfo.partition(":")
        shown = f"{user}:********" if colon else user
        return f"URL({write(Parsed(self.parsed.origin, self.parsed.target, shown, self.parsed.fragment))!r})"

    def __eq__(self, other: object) -> bool:
        return str(self) == str(other) if isinstance(other, URL | str) else NotImplemented

    def __hash__(self) -> int:
        return hash(str(self))


def write(parsed: Parsed) -> str:
    """The URL in full."""
    userinfo = f"{parsed.userinfo}@" if parsed.userinfo else ""
    fragment = f"#{parsed.fragment}" if parsed.fragment else ""
    zone = parsed.origin.host.partition("%")[2]
    authority = parsed.origin.authority()
    if zone:  # what Host does not say, a URL does
        authority = authority.replace("]", f"%{zone}]", 1)
    return f"{parsed.origin.scheme}://{userinfo}{authority}{parsed.target}{fragment}"


def merge(base: str, url: str) -> str:
    """A client's `base_url` with what a request says; an absolute URL stands alone, anything else goes below the base."""
    if not base or ABSOLUTE.match(url):
        return url
    if not url or url.startswith("?"):
        return base + url
    return f"{base.rstrip('/')}/{url.lstrip('/')}"
