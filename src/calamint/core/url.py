"""Origins and request targets (RFC 9110 §4, RFC 9112 §3, RFC 3986). Hosts arrive here as A-labels or addresses."""

from typing import ClassVar, Final, final

from calamint.core.errors import InvalidURL, UnsupportedProtocol
from calamint.core.value import Value

DEFAULT_PORTS: Final[dict[str, int]] = {"http": 80, "https": 443}
UNSAFE: Final = frozenset(' "<>\\^`{|}')


@final
class Origin(Value):
    """Scheme, host and port (RFC 9110 §4.3.1); an IPv6 host stands here without its brackets."""

    __slots__ = ("scheme", "host", "port")
    __match_args__: ClassVar[tuple[str, ...]] = ("scheme", "host", "port")

    def __init__(self, scheme: str, host: str, port: int) -> None:
        self.scheme: Final = scheme
        self.host: Final = host
        self.port: Final = port

    def authority(self) -> str:
        """What `Host` and `:authority` say: the port only where it is not the scheme's own (RFC 9110 §7.2)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
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


def parse_url(text: str) -> URL:
    """An absolute URL; raises InvalidURL or UnsupportedProtocol, saying what was seen.

    Characters that may not stand in a target are percent-encoded as UTF-8; what is encoded already stays (RFC 3986 §2.4).
    """
    scheme, found, rest = text.partition("://")
    scheme = scheme.lower()
    if not found:
        raise InvalidURL(f"{text!r} has no scheme: write http://… or https://…")
    if scheme not in DEFAULT_PORTS:
        raise UnsupportedProtocol(f"{text!r}: the scheme {scheme!r} is not http or https")
    rest, _, fragment = rest.partition("#")
    cut = len(rest)
    for mark in "/?":
        place = rest.find(mark)
        if 0 <= place < cut:
            cut = place
    authority = rest[:cut]
    target = rest[cut:]
    if not target.startswith("/"):
        target = "/" + target
    userinfo, _, address = authority.rpartition("@")
    host, port = parse_authority(address, DEFAULT_PORTS[scheme], text)
    return URL(Origin(scheme, host, port), quote(target), userinfo, fragment)


def parse_authority(authority: str, port: int, text: str) -> tuple[str, int]:
    """Host in lower case, and port, of an authority without userinfo (RFC 3986 §3.2)."""
    if authority.startswith("["):
        host, closed, tail = authority[1:].partition("]")
        if not closed or ":" not in host or (tail and not tail.startswith(":")):
            raise InvalidURL(f"{text!r}: {authority!r} is not an IPv6 address in brackets with an optional port")
        digits = tail[1:]
    else:
        host, _, digits = authority.partition(":")
    if digits:
        if not (digits.isascii() and digits.isdigit() and len(digits) <= 5 and int(digits) <= 65_535):
            raise InvalidURL(f"{text!r}: the port {digits!r} is not a number from 0 to 65535")
        port = int(digits)
    if not host:
        raise InvalidURL(f"{text!r} has no host")
    if not host.isprintable() or any(
        [character in UNSAFE or character in "%/?#@[]" for character in host.split("%")[0]]
    ):
        raise InvalidURL(f"{text!r}: the host {host!r} has characters that no host has")
    return host.lower(), port


def quote(target: str) -> str:
    """A target with everything percent-encoded that may not stand in it (RFC 3986 §2.1)."""
    if target.isascii() and target.isprintable() and not any([character in UNSAFE for character in target]):
        return target
    return "".join(
        [
            character
            if character.isascii() and character.isprintable() and character not in UNSAFE
            else "".join([f"%{byte:02X}" for byte in character.encode("utf-8", "surrogatepass")])
            for character in target
        ]
    )
