"""Origins and request targets (RFC 9110 §4, RFC 9112 §3, RFC 3986). Hosts arrive here as A-labels or addresses."""

import re
from collections.abc import Callable, Mapping
from typing import ClassVar, Final, final

from calamint.core.errors import InvalidURL, UnsupportedProtocol
from calamint.core.value import Value

DEFAULT_PORTS: Final[dict[str, int]] = {"http": 80, "https": 443}
NAME: Final = re.compile(r"[A-Za-z0-9\-._~!$&'()*+,;=]+")  # reg-name, RFC 3986 §3.2.2; nothing percent-encoded
ZONE: Final = re.compile(r"[A-Za-z0-9\-._~]+")  # RFC 9844 §6
GROUP: Final = re.compile(r"[0-9A-Fa-f]{1,4}")
OCTET: Final = re.compile(r"0|[1-9][0-9]{0,2}")
UNSAFE: Final = re.compile(r"[^A-Za-z0-9\-._~!$&'()*+,;=:@/?%]|%(?![0-9A-Fa-f]{2})")  # in a target: RFC 3986 §3.3, §3.4


@final
class Origin(Value):
    """Scheme, host and port (RFC 9110 §4.3.1); an IPv6 host stands here without its brackets."""

    __match_args__: ClassVar[tuple[str, ...]] = ("scheme", "host", "port")
    __slots__ = ("hashed", *__match_args__)

    def __init__(self, scheme: str, host: str, port: int) -> None:
        self.scheme: Final = scheme
        self.host: Final = host
        self.port: Final = port
        self.hashed: Final = hash((scheme, host, port))  # once: a request asks for it more than once

    def __hash__(self) -> int:
        return self.hashed

    def authority(self) -> str:
        """What `Host` and `:authority` say: the port only where it is not the scheme's own (RFC 9110 §7.2)."""
        host = f"[{self.host.partition('%')[0]}]" if ":" in self.host else self.host  # a zone says something only here
        return host if DEFAULT_PORTS.get(self.scheme) == self.port else f"{host}:{self.port}"


@final
class URL(Value):
    """An absolute http or https URL in its parts; `target` is what the request line carries (RFC 9112 §3.2.1)."""

    __slots__ = ("origin", "target", "userinfo", "fragment")
    __match_args__: ClassVar[tuple[str, ...]] = ("origin", "target", "userinfo", "fragment")

    def __init__(self, origin: Origin, target: str, userinfo: str, fragment: str) -> None:
        self.origin: Final = origin
        self.target: Final = target
        self.userinfo: Final = userinfo
        self.fragment: Final = fragment

    def __repr__(self) -> str:
        userinfo = f"<{len(self.userinfo)} characters>"  # it may hold a password
        return f"URL(origin={self.origin!r}, target={self.target!r}, userinfo={userinfo}, fragment={self.fragment!r})"


def parse_url(text: str, to_ascii: Callable[[str], str] | None = None, ports: Mapping[str, int] = DEFAULT_PORTS) -> URL:
    """An absolute URL; raises InvalidURL or UnsupportedProtocol, saying what was seen, but no password.

    Characters that may not stand in a target are percent-encoded as UTF-8; what is encoded already stays (RFC 3986 §2.4).
    `to_ascii` makes A-labels of a host that has other characters than ASCII; without it such a host is refused. `ports`: the
    schemes that are taken, each with its port.
    """
    scheme, found, rest = text.partition("://")
    scheme = scheme.lower()
    if not found:
        raise InvalidURL(f"{text.rpartition('@')[2]!r} has no scheme: write http://… or https://…")
    rest, _, fragment = rest.partition("#")
    cut = min([place for place in (rest.find("/"), rest.find("?")) if place >= 0], default=len(rest))
    target = rest[cut:]
    userinfo, _, address = rest[:cut].rpartition("@")
    shown = f"{scheme}://{address}{target}"
    if scheme not in ports:
        raise UnsupportedProtocol(f"{shown!r}: the scheme {scheme!r} is not {' or '.join(ports)}")
    if "\\" in userinfo:
        raise InvalidURL(f"{shown!r}: a backslash may not stand before the host")
    host, digits = split_address(address, shown)
    port = ports[scheme]
    if digits:
        if not (digits.isascii() and digits.isdigit() and len(digits) <= 5 and int(digits) <= 65_535):
            if "@" in target or "@" in fragment:  # perhaps a password with a character that ends the authority
                shown = f"{scheme}://…@{text.rpartition('@')[2]}"
                raise InvalidURL(f"{shown!r}: in credentials write %2F for /, %3F for ?, and %23 for #")
            raise InvalidURL(f"{shown!r}: the port {digits!r} is not a number from 0 to 65535")
        port = int(digits)
    if not host:
        raise InvalidURL(f"{shown!r} has no host")
    if not host.isascii() and to_ascii is not None:
        host = to_ascii(host)
    if not address.startswith("[") and NAME.fullmatch(host) is None:
        raise InvalidURL(f"{shown!r}: the host {host!r} has characters that no host has")
    plain, percent, zone = host.partition("%")  # a zone is an interface's name, whose case counts
    origin = Origin(scheme, plain.lower() + percent + zone, port)
    return URL(origin, quote(target if target.startswith("/") else "/" + target), userinfo, fragment)


def split_address(address: str, shown: str) -> tuple[str, str]:
    """Host and port of an authority without userinfo (RFC 3986 §3.2); the brackets of an IPv6 address taken off."""
    if not address.startswith("["):
        host, _, digits = address.partition(":")
        return host, digits
    host, closed, tail = address[1:].partition("]")
    if not closed or not is_ipv6(host) or (tail and not tail.startswith(":")):
        raise InvalidURL(f"{shown!r}: {address!r} is not an IPv6 address in brackets with an optional port")
    return host, tail[1:]


def is_ipv6(host: str) -> bool:
    """Whether it is an IPv6 address, perhaps with its zone (RFC 3986 §3.2.2, RFC 9844 §6)."""
    address, percent, zone = host.partition("%")
    if percent and ZONE.fullmatch(zone) is None:
        return False
    left, shortened, right = address.partition("::")
    groups = (left.split(":") if left else []) + (right.split(":") if right else [])
    size = len(groups)
    if groups and "." in groups[-1] and (right or not shortened):
        octets = groups.pop().split(".")
        if len(octets) != 4 or not all([OCTET.fullmatch(octet) and int(octet) < 256 for octet in octets]):
            return False
        size += 1
    return all([GROUP.fullmatch(group) for group in groups]) and (size < 8 if shortened else size == 8)


def quote(target: str) -> str:
    """A target with everything percent-encoded that may not stand in it (RFC 3986 §2.1)."""
    parts: list[str] = []
    start = 0
    for found in UNSAFE.finditer(target):
        parts.append(target[start : found.start()])
        parts.extend([f"%{byte:02X}" for byte in found.group().encode("utf-8", "surrogatepass")])
        start = found.end()
    return "".join([*parts, target[start:]]) if parts else target
