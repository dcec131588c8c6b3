"""What the environment says about proxies: HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY, in both cases of letters.

Nothing else is asked: neither the registry of Windows nor the system settings of macOS.
"""

import ipaddress
import re
from collections.abc import Mapping
from typing import Final

from calamint.core.errors import InvalidURL
from calamint.core.url import DEFAULT_PORTS, URL, Origin
from calamint.net.dial import read_url, to_ascii
from calamint.net.proxy import Proxy
from calamint.net.tls import Verify

SEPARATORS: Final = re.compile(r"[\s,]+")
PORT: Final = re.compile(r"[0-9]{1,5}")
ANY_PORT: Final = -1

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Target = str | Network
"""Hosts that need no proxy: a name with all that ends in it, or the addresses of a network."""


class ProxyMap:
    """Which proxy an origin is reached through: one for each scheme, and the origins that need none."""

    def __init__(self, proxies: Mapping[str, Proxy], no_proxy: str = "") -> None:
        """`proxies`: by "http" and "https". `no_proxy`: as NO_PROXY has it; see `Bypass`."""
        self.proxies: Final = dict(proxies)
        self.bypass: Final = Bypass(no_proxy)

    def choose(self, url: str | URL) -> Proxy | None:
        """The proxy for a URL, or None for none. Raises InvalidURL and UnsupportedProtocol where it is no URL."""
        origin = (read_url(url) if isinstance(url, str) else url).origin
        proxy = self.proxies.get(origin.scheme)
        return None if proxy is None or self.bypass.covers(origin) else proxy


class Bypass:
    """The origins that need no proxy, read from NO_PROXY: names and addresses, with commas or white space between them.

    `*`: all. `example.com`, `.example.com` or `*.example.com`: that host and all below it, in any case of letters, with or
    without a dot at the end, and as U-labels or as A-labels. `192.0.2.7`, `2001:db8::7`, `192.0.2.0/24`: an address, or all
    of a network; a name is not looked up for it. A port restricts any of them: `example.com:8080`, `[2001:db8::7]:443`.
    What is none of these covers nothing, so that what other programs understand does no harm here.
    """

    def __init__(self, text: str) -> None:
        entries = [entry for entry in SEPARATORS.split(text) if entry]
        self.all: Final = "*" in entries
        self.targets: Final[list[tuple[Target, int]]] = [
            found for entry in entries if (found := read_entry(entry)) is not None
        ]

    def covers(self, origin: Origin) -> bool:
        """Whether this origin needs no proxy."""
        if self.all:
            return True
        host = origin.host.partition("%")[0].rstrip(".").lower()
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            address = None
        for target, port in self.targets:
            if port not in (ANY_PORT, origin.port):
                continue
            if isinstance(target, str):
                if address is None and (host == target or host.endswith("." + target)):
                    return True
            elif address is not None and address in target:
                return True
        return False


def read_entry(entry: str) -> tuple[Target, int] | None:
    """One of NO_PROXY: hosts and a port, or None where it says nothing."""
    if (network := read_network(entry)) is not None:
        return network, ANY_PORT
    host, colon, digits = entry.rpartition(":")
    if not colon:
        host, digits = entry, str(ANY_PORT)
    elif PORT.fullmatch(digits) is None:
        return None
    if (network := read_network(host)) is not None:
        return network, int(digits)
    name = host.removeprefix("*").strip(".").lower()
    try:
        name = name if name.isascii() else to_ascii(name)
    except InvalidURL:
        return None
    return (name, int(digits)) if name else None


def read_network(text: str) -> Network | None:
    """An address or a network; an IPv6 address perhaps in brackets, or with its zone, which says nothing here."""
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1]
    address, slash, length = text.partition("/")
    try:
        return ipaddress.ip_network(address.partition("%")[0] + slash + length, strict=False)
    except ValueError:
        return None


def proxies_from_environment(environ: Mapping[str, str], ssl: Verify = True) -> ProxyMap:
    """The proxies that variables name: HTTP_PROXY and HTTPS_PROXY, or ALL_PROXY for both, but not for what NO_PROXY says.

    A name in lower case wins over the same in upper case, also where it is empty, which means none. HTTP_PROXY in upper case
    is not looked at where REQUEST_METHOD is set: in a CGI program (RFC 3875 §4.1.18) a request's field `Proxy` would set it.
    A value without a scheme is an `http://` proxy. `ssl`: whom an `https://` one is taken to be. Raises InvalidURL, naming the
    variable, where a value is no proxy's URL, and ImportError where it is one of SOCKS without its extra.
    """
    known = dict(environ)  # os.environ of Windows finds names in any case of letters
    proxies: dict[str, Proxy] = {}
    for scheme in DEFAULT_PORTS:
        for name in (f"{scheme}_proxy", "all_proxy"):
            variable = name if name in known else name.upper()
            if variable == "HTTP_PROXY" and "REQUEST_METHOD" in known:
                continue
            if value := known.get(variable, "").strip():
                proxies[scheme] = read_proxy(variable, value, ssl)
                break
    return ProxyMap(proxies, known.get("no_proxy", known.get("NO_PROXY", "")))


def read_proxy(variable: str, value: str, ssl: Verify) -> Proxy:
    """The proxy that a variable names."""
    try:
        return Proxy(value if "://" in value else f"http://{value}", ssl=ssl)
    except (InvalidURL, ValueError) as error:
        raise InvalidURL(f"{variable} in the environment: {error}") from None
