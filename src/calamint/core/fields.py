"""RFC 9110 §5 and §6.5: field names and values, what may not cross into HTTP/2, and content-length.

What a caller passes is checked here, alike for both protocols, right before it is serialised: nothing they pass can put a
second message on the wire. What a peer sends over HTTP/2 is checked by `read_head` (RFC 9113 §8.1.1, §8.2, §8.3).
"""

import re
from typing import ClassVar, Final, final

from calamint.core.errors import LocalProtocolError
from calamint.core.value import Fields, Value

TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110 §5.6.2
METHOD: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
LOWER_TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")  # RFC 9113 §8.2.1
HOST: Final = re.compile(rb"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9\-._~!$&'()*+,;=%]*)(:[0-9]*)?")  # RFC 3986 §3.2
AUTHORITY: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9\-._~!$&'()*+,;=%]+):[0-9]{1,5}")  # RFC 9112 §3.2.3
ABSOLUTE: Final = re.compile(  # RFC 9112 §3.2.2
    r"http://((?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9\-._~!$&'()*+,;=%]+)(?::[0-9]{1,5})?)(/.*)?"
)
SHOWN: Final = 60  # bytes of a name or value that an error shows
BAD_IN_VALUE: Final = b"\0\r\n"
CONTROLS: Final = bytes([*range(9), *range(10, 32), 127])
EDGES: Final = b" \t"
EDGE: Final = (b" ", b"\t")

CONNECTION_FIELDS: Final = frozenset(
    {b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"}
)
"""Fields that concern one hop only and have no meaning in HTTP/2 (RFC 9113 §8.2.2)."""

FORBIDDEN_TRAILERS: Final = CONNECTION_FIELDS.union(
    b"authorization content-encoding content-length content-range content-type host te trailer".split()
)
"""Fields that frame, route or authenticate a message, and so come too late in its trailers (RFC 9110 §6.5.1)."""

NAME_MEMO: Final = 1024
good_names: set[bytes] = set()
"""Names of responses that have been checked: a cache of a pure function."""


def check_method(method: str) -> None:
    """Raises LocalProtocolError unless the method is a token (RFC 9110 §9.1)."""
    if METHOD.fullmatch(method) is None:
        raise LocalProtocolError(f"the method {method!r} is not a token (RFC 9110 §9.1)")


def check_target(method: str, target: str, absolute: bool = False) -> None:
    """Raises LocalProtocolError unless the target is a path in printable ASCII, or * for OPTIONS, or, for CONNECT, a host
    and a port (RFC 9112 §3.2, RFC 9110 §9.3.6); or else, with `absolute`, an http URL, as a proxy is sent it (§3.2.2)."""
    if not is_visible(target):
        raise LocalProtocolError(f"the target {target!r} must be printable ASCII without spaces or '#': quote it first")
    if method == "CONNECT":
        if AUTHORITY.fullmatch(target) is None:
            raise LocalProtocolError(f"the target {target!r} of CONNECT must be a host and a port (RFC 9110 §9.3.6)")
    elif not target.startswith("/") and (target != "*" or method != "OPTIONS"):
        found = ABSOLUTE.fullmatch(target) if absolute else None
        if found is not None and (found[2] or method == "OPTIONS"):  # that of a server as a whole has no path (§3.2.4)
            return
        raise LocalProtocolError(f"the target {target!r} must be a path that begins with '/', or '*' for OPTIONS")


def authority_of(method: str, target: str) -> bytes:
    """The authority that a target names: that of CONNECT, and of an absolute form; nothing for any other."""
    found = ABSOLUTE.fullmatch(target)
    return (target if method == "CONNECT" else str(found[1]) if found is not None else "").encode("ascii")


def is_visible(target: str) -> bool:
    """Whether it has nothing but what a target may have somewhere: visible ASCII, and no fragment (RFC 9112 §3.2)."""
    return target != "" and target.isascii() and target.isprintable() and " " not in target and "#" not in target


def check_fields(fields: Fields) -> None:
    """Raises LocalProtocolError unless every name is a token and every value has no CR, LF, NUL or white space at its ends."""
    for name, value in fields:
        if TOKEN.fullmatch(name) is None:
            raise LocalProtocolError(f"the field name {name!r} is not a token (RFC 9110 §5.1)")
        if len(value.translate(None, BAD_IN_VALUE)) != len(value):
            raise LocalProtocolError(f"the value of {name!r} has a CR, LF or NUL (RFC 9110 §5.5)")
        if len(value.translate(None, CONTROLS)) != len(value):
            raise LocalProtocolError(f"the value of {name!r} has a control character (RFC 9110 §5.5)")
        if value.strip(EDGES) != value:
            raise LocalProtocolError(f"the value of {name!r} begins or ends with white space (RFC 9110 §5.5)")
        if name.lower() == b"host" and HOST.fullmatch(value) is None:
            raise LocalProtocolError(
                "host is not a host with an optional port (RFC 9110 §7.2): userinfo has no place there"
            )


def parse_length(value: bytes) -> int:
    """A content-length: digits only (RFC 9110 §8.6), or -1 where it is not one."""
    return int(value) if value.isdigit() and len(value) <= 19 else -1


def find_length(fields: Fields) -> int:
    """The content-length that a caller declares, or -1. Raises LocalProtocolError where it is not a number or not one."""
    length = -1
    for name, value in fields:
        if name.lower() == b"content-length":
            number = parse_length(value)
            if number < 0 or (length >= 0 and number != length):
                raise LocalProtocolError(f"content-length {value!r} is not one number (RFC 9110 §8.6)")
            length = number
    return length


def for_http2(fields: Fields, authority: bytes) -> tuple[bytes, Fields]:
    """A request's fields as HTTP/2 sends them, checked: names lowered, `host` become the authority (RFC 9113 §8.2, §8.3.1)."""
    check_fields(fields)
    kept: list[tuple[bytes, bytes]] = []
    host = b""
    for written, value in fields:
        name = written.lower()
        if name == b"host":
            if host and host != value:
                raise LocalProtocolError(f"two host fields that differ: {host!r} and {value!r} (RFC 9110 §7.2)")
            host = value
        elif name in CONNECTION_FIELDS or (name == b"te" and value.lower() != b"trailers"):
            raise LocalProtocolError(f"the field {name!r} has no meaning in HTTP/2 (RFC 9113 §8.2.2)")
        else:
            kept.append((name, value))
    return host or authority, tuple(kept)


BAD_LENGTH: Final = -2


@final
class Head(Value):
    """A response's field section, read: status 0 for trailers, `length` its content-length or -1, `fault` why it is
    malformed; with BAD_LENGTH that is all that is wrong."""

    __match_args__: ClassVar[tuple[str, ...]] = ("status", "fields", "length", "fault")
    __slots__ = ("bare", *__match_args__)

    def __init__(self, status: int, fields: Fields, length: int, fault: str = "") -> None:
        self.status: Final = status
        self.fields: Final = fields
        self.length: Final = length
        self.fault: Final = fault
        self.bare: Final = status == 204 or status == 304  # no content, whatever its length says (RFC 9110 §6.4.1)


def read_head(section: Fields) -> Head:
    """An HTTP/2 response's or trailer section's fields (RFC 9113 §8.1.1, §8.2.1, §8.2.2, §8.3.2)."""
    status = 0
    length = -1
    start = 0
    if section and section[0][0] == b":status":
        start = 1
        value = section[0][1]
        if len(value) != 3 or not value.isdigit() or value < b"100":
            return Head(0, (), -1, f":status {value[:SHOWN]!r} is not three digits from 100")
        status = int(value)
        if status == 101:
            return Head(0, (), -1, "101 has no meaning in HTTP/2 (RFC 9113 §8.6)")
    fields = section[start:] if start else section
    if not fields:
        return Head(status, (), -1)
    names: tuple[bytes, ...]
    values: tuple[bytes, ...]
    names, values = zip(*fields, strict=True)
    if not good_names.issuperset(names):
        for name in names:
            if name not in good_names and not check_name(name):
                return Head(0, (), -1, f"the field name {name[:SHOWN]!r} is not allowed in an HTTP/2 response")
    if not are_clean(values):
        bad = [name for name, value in fields if not are_clean((value,))]
        return Head(0, (), -1, f"the value of {bad[0][:SHOWN]!r} has a CR, LF, NUL, or white space at its ends")
    if b"content-length" in names:
        for name, value in fields:
            if name == b"content-length":
                number = parse_length(value)
                if number < 0 or (length >= 0 and number != length):
                    return Head(status, fields, BAD_LENGTH, f"content-length {value[:SHOWN]!r} is not one number")
                length = number
    return Head(status, fields, length)


@final
class Promise(Value):
    """A pushed request, read; `fault` why it is not one that we take (RFC 9113 §8.4.1)."""

    __slots__ = ("method", "target", "fields", "fault")
    __match_args__: ClassVar[tuple[str, ...]] = ("method", "target", "fields", "fault")

    def __init__(self, method: str, target: str, fields: Fields, fault: str = "") -> None:
        self.method: Final = method
        self.target: Final = target
        self.fields: Final = fields
        self.fault: Final = fault


PROMISED: Final = (b":method", b":scheme", b":authority", b":path")


def read_promise(section: Fields, scheme: bytes, authority: bytes) -> Promise:
    """A pushed request's fields: safe, cacheable, without content, and for this very origin (RFC 9113 §8.4, §8.3.1)."""
    pseudo = dict(section[: len(PROMISED)])
    if sorted(pseudo) != sorted(PROMISED):
        return Promise(
            "", "", (), "a pushed request has :method, :scheme, :authority and :path, once each, before its fields"
        )
    rest = read_head(section[len(PROMISED) :])
    if rest.fault or rest.status:
        return Promise("", "", (), rest.fault or "a pushed request with :status")
    target = pseudo[b":path"]
    if pseudo[b":method"] not in (b"GET", b"HEAD") or rest.length > 0:
        return Promise("", "", (), "a pushed request is safe, cacheable and without content")
    if pseudo[b":scheme"] != scheme or pseudo[b":authority"] != authority:
        return Promise("", "", (), "a pushed request for another origin, for which the server has no authority")
    if not target.startswith(b"/") or not is_visible(target.decode("latin-1")):
        return Promise("", "", (), f"a pushed request whose :path {target[:SHOWN]!r} is none")
    return Promise(pseudo[b":method"].decode(), target.decode(), rest.fields)


def are_clean(values: tuple[bytes, ...]) -> bool:
    """Whether no value has a CR, LF or NUL or white space at its ends (RFC 9113 §8.2.1): all in one go, which is faster."""
    lines = b"\n".join(values)
    if len(lines.translate(None, BAD_IN_VALUE)) + len(values) - 1 != len(lines):
        return not values
    if lines[:1] in EDGE or lines[-1:] in EDGE:
        return False
    return b"\n " not in lines and b" \n" not in lines and b"\n\t" not in lines and b"\t\n" not in lines


def check_name(name: bytes) -> bool:
    """Whether a response may have this name: a token in lower case that is not about the connection (§8.2.1, §8.2.2)."""
    global good_names
    if LOWER_TOKEN.fullmatch(name) is None or name in CONNECTION_FIELDS or name == b"te":
        return False
    if len(name) <= 64:
        if len(good_names) >= NAME_MEMO:
            good_names = set()
        good_names.add(name)
    return True


def expects_continue(fields: Fields) -> bool:
    """Whether the request waits for 100 (Continue) before its content (RFC 9110 §10.1.1)."""
    for name, value in fields:
        if name.lower() == b"expect" and value.lower() == b"100-continue":
            return True
    return False


def check_trailers(fields: Fields) -> None:
    """Raises LocalProtocolError unless these fields may stand in a trailer section (RFC 9110 §6.5.1)."""
    check_fields(fields)
    for name, _ in fields:
        if name.lower() in FORBIDDEN_TRAILERS:
            raise LocalProtocolError(f"the field {name!r} may not stand in trailers (RFC 9110 §6.5.1)")


def find_keepalive(fields: Fields) -> int:
    """For how many seconds the peer keeps an idle connection, where it says so (`Keep-Alive: timeout=5`), or -1."""
    found = -1
    for name, value in fields:
        if name == b"keep-alive":
            for part in value.lower().split(b","):
                parameter, _, seconds = part.strip().partition(b"=")
                if parameter == b"timeout" and seconds.isdigit() and len(seconds) < 9:
                    found = int(seconds)
    return found
