"""RFC 9112 §2 to §7: request heads, status lines, field lines, chunk-size lines, and where a response's content ends.

One strict grammar; a line ends with CRLF and nothing else. What breaks it raises ConnectionFault: whoever cannot read
one message does not know where the next begins. A fault and its words follow from the bytes alone, however they are cut.
"""

import re
from typing import ClassVar, Final, final

from calamint.core.errors import ConnectionFault, LocalProtocolError
from calamint.core.fields import (
    EDGES,
    TOKEN,
    authority_of,
    check_fields,
    check_method,
    check_target,
    expects_continue,
    find_length,
    parse_length,
)
from calamint.core.value import SECRET_FIELDS, Fields, Value

CRLF: Final = b"\r\n"
STATUS_LIMIT: Final = 8192  # bytes of a status line, its reason included
CHUNK_LIMIT: Final = 256  # bytes of a chunk-size line, its extensions included
CHUNK_DIGITS: Final = 16

# The SP after the code is the sender's duty, but "recipients MAY instead parse on whitespace-delimited word boundaries"
# (§4), and many a server that gives no reason leaves it out: the one liberty that is taken here.
STATUS_LINE: Final = re.compile(rb"HTTP/1\.([0-9]) ([1-9][0-9]{2})(?: ([\t\x20-\x7e\x80-\xff]*))?\r\n")
QUOTED: Final = rb'"(?:[\t\x20\x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*"'  # RFC 9110 §5.6.4
CHUNK_LINE: Final = re.compile(
    rb"([0-9A-Fa-f]{1,%d})(?:[ \t]*;[ \t]*%b(?:[ \t]*=[ \t]*(?:%b|%b))?)*\r\n"
    % (CHUNK_DIGITS, TOKEN.pattern, TOKEN.pattern, QUOTED)
)

FRAMING: Final = frozenset({b"content-length", b"transfer-encoding", b"connection"})
"""Fields that say where a message or its connection ends."""

# What Transfer-Encoding says (§6.1, §7).
NO_CODING: Final = 0
CHUNKED: Final = 1  # `chunked` is the last coding, and the only one of its kind
OTHER_CODING: Final = 2  # the last coding is another one
BAD_CODING: Final = 3

# Where the content of a response ends (§6.3), unless its length is known.
IN_CHUNKS: Final = -1
WITH_CONNECTION: Final = -2

STATUS_MEMO: Final = 256
LINE_MEMO: Final = 1024
NAME_SIZE: Final = 64  # longer names are not remembered
LINE_SIZE: Final = 256  # nor are longer lines
REQUEST_MEMO: Final = 256
HEAD_MEMO: Final = 512
HEAD_SIZE: Final = 2048  # nor are longer heads
MEMO_FIELDS: Final = 64  # or of more lines
MEMO_SECTION: Final = HEAD_SIZE + 32 * MEMO_FIELDS  # whoever allows this much allows all that is remembered


@final
class StatusLine(Value):
    """A status line (§4): the minor version, the status code, the reason phrase."""

    __slots__ = ("minor", "status", "reason")
    __match_args__: ClassVar[tuple[str, ...]] = ("minor", "status", "reason")

    def __init__(self, minor: int, status: int, reason: bytes) -> None:
        self.minor: Final = minor
        self.status: Final = status
        self.reason: Final = reason


def find_framing(status: int, length: int, coding: int) -> int:
    """Where the content of a response ends, but for HEAD: the rules of §6.3 in their order."""
    if status < 200 or status == 204 or status == 304:
        return 0
    if coding == CHUNKED:
        return IN_CHUNKS
    return WITH_CONNECTION if coding == OTHER_CODING or length < 0 else length


@final
class ResponseHead(Value):
    """A response's head, read: `length` is its content-length or -1, `coding` what its transfer-encoding says, `closes`
    whether the connection ends with it (§9.3), `minor` the version, `framing` where its content ends, but after HEAD."""

    __slots__ = ("status", "reason", "fields", "length", "coding", "closes", "minor", "framing")
    __match_args__: ClassVar[tuple[str, ...]] = ("status", "reason", "fields", "length", "coding", "closes", "minor")

    def __init__(
        self, status: int, reason: bytes, fields: Fields, length: int, coding: int, closes: bool, minor: int = 1
    ) -> None:
        self.status: Final = status
        self.reason: Final = reason
        self.fields: Final = fields
        self.length: Final = length
        self.coding: Final = coding
        self.closes: Final = closes
        self.minor: Final = minor
        self.framing: Final = find_framing(status, length, coding)


@final
class RequestHead(Value):
    """A request's head: what stands before and after its target, the content-length that it declares or -1, whether its
    content is chunked, whether the connection ends with it, whether it expects 100 or asks for another protocol."""

    __match_args__: ClassVar[tuple[str, ...]] = (
        "before",
        "after",
        "length",
        "chunked",
        "closes",
        "expects",
        "upgrades",
    )
    __slots__ = __match_args__

    def __init__(
        self, before: bytes, after: bytes, length: int, chunked: bool, closes: bool, expects: bool, upgrades: bool
    ) -> None:
        self.before: Final = before
        self.after: Final = after
        self.length: Final = length
        self.chunked: Final = chunked
        self.closes: Final = closes
        self.expects: Final = expects
        self.upgrades: Final = upgrades


UNKNOWN: Final = ResponseHead(0, b"", (), -1, NO_CODING, False)
SEEN: Final = ResponseHead(0, b"seen once", (), -1, NO_CODING, False)

# Caches of pure functions, without secrets; those that fill with what is said only once are in two generations.
requests: dict[tuple[str, bytes, Fields], RequestHead] = {}  # by method, host and fields
old_requests: dict[tuple[str, bytes, Fields], RequestHead] = {}
wholes: dict[tuple[str, str, bytes, Fields], tuple[bytes, RequestHead]] = {}  # and by target; b"" for: seen once
statuses: dict[bytes, StatusLine] = {}
names: dict[bytes, bytes] = {}
lines: dict[bytes, tuple[bytes, bytes]] = {}
old_lines: dict[bytes, tuple[bytes, bytes]] = {}
heads: dict[bytes, ResponseHead] = {}  # once they have come twice
old_heads: dict[bytes, ResponseHead] = {}


def fault(reason: str) -> ConnectionFault:
    """What to raise for what the peer did: there is no error code in HTTP/1.1."""
    return ConnectionFault(-1, reason)


def check_section(size: int, count: int, limit: int, most: int) -> None:
    """Raises for a field section above our limits, in the same words however much of it has come."""
    if size + 32 * count > limit or count > most:
        raise fault(f"a field section above our limits: allowed are {limit} bytes (32 a field) and {most} fields")


# §3 request line, and the fields that go with it


def encode_request(
    method: str, target: str, host: bytes, fields: Fields, size: int, end: bool
) -> tuple[bytes, int, RequestHead]:
    """A request's head, the length of its content or -1 for chunks, and what else its fields say (§3, §6).

    `size` bytes of content are known, -1 for none, and with `end` they are all. Where the caller's fields do not say how
    the content is framed, one more does.
    """
    global wholes
    bare = end and size < 0  # all of it is the head: what recurs is remembered, once it has recurred
    if bare:
        known = wholes.get((method, target, host, fields))
        if known is not None and known[0]:
            return known[0], 0, known[1]
    if not target.startswith("/"):
        check_target(method, target, True)
        if named := authority_of(method, target):
            host = named  # "identical to that authority component" (§3.2)
            for name, value in fields:
                if name.lower() == b"host" and value != host:
                    raise LocalProtocolError(f"host {value!r} is not the target's, {host!r} (RFC 9112 §3.2)")
    head = encode_around(method, host, fields)
    check_target(method, target, True)
    length = head.length
    framing = CRLF
    if method == "CONNECT":
        if size >= 0 or length >= 0 or head.chunked or head.expects:
            raise LocalProtocolError(
                "CONNECT has no content: what goes through the tunnel comes later (RFC 9110 §9.3.6)"
            )
        length = 0
    elif length < 0 and not head.chunked:
        if not end:
            framing = b"Transfer-Encoding: chunked\r\n\r\n"
        elif size >= 0:
            framing = b"Content-Length: %d\r\n\r\n" % size
            length = size
        else:
            length = 0
    if head.upgrades and (head.chunked or not end):
        raise LocalProtocolError(
            "a request for another protocol is complete: its content may not be left open (RFC 9110 §7.8)"
        )
    if head.expects and end and size <= 0:
        raise LocalProtocolError("expect: 100-continue without content (RFC 9110 §10.1.1)")
    data = b"".join((head.before, target.encode("ascii"), head.after, framing))
    if (
        bare
        and target.startswith("/")
        and head is requests.get((method, host, fields))
        and head.length < 0
        and not head.chunked
    ):
        if len(wholes) >= REQUEST_MEMO:
            wholes = {}
        wholes[(method, target, host, fields)] = (b"" if known is None else data, head)
    return data, length, head


def encode_around(method: str, host: bytes, fields: Fields) -> RequestHead:
    """A request's head but for its target, checked: nothing that is passed here can end it early. What recurs is kept."""
    global requests, old_requests
    key = (method, host, fields)
    head = requests.get(key)
    if head is None:
        head = old_requests.get(key)
        if head is None:
            check_method(method)
            head = encode_fields(method.encode("ascii") + b" ", (b"Host", host), fields)
        if len(head.after) <= HEAD_SIZE and SECRET_FIELDS.isdisjoint([name.lower() for name, _ in fields]):
            if len(requests) >= REQUEST_MEMO:
                old_requests = requests
                requests = {}
            requests[key] = head
    return head


def encode_fields(before: bytes, given: tuple[bytes, bytes], fields: Fields) -> RequestHead:
    """`Host` first (RFC 9110 §7.2), then the fields as they were written; what says the same twice goes out once."""
    host = given
    check_fields((host, *fields))
    length = find_length(fields)
    codings: list[bytes] = []
    options: list[bytes] = []
    kept: list[tuple[bytes, bytes]] = []
    seen: set[bytes] = set()
    for field in fields:
        name = field[0].lower()
        if name == b"host":
            if name in seen and field[1] != host[1]:
                raise LocalProtocolError(f"two host fields that differ: {host[1]!r} and {field[1]!r} (RFC 9112 §3.2)")
            host = field
        elif name != b"content-length" or name not in seen:
            kept.append(field)
        if name == b"transfer-encoding":
            codings.append(field[1])
        elif name == b"connection":
            options += decode_options(field[1])
        seen.add(name)
    if b"upgrade" in seen and b"upgrade" not in options:  # "MUST also send" it as a connection option (RFC 9110 §7.8)
        raise LocalProtocolError("the field upgrade without upgrade in connection (RFC 9110 §7.6.1)")
    if b"te" in seen:
        check_te(fields)
        if b"te" not in options:  # likewise (RFC 9110 §10.1.4); who does not know the protocol cannot say it, so we do
            kept.append((b"Connection", b"TE"))
    if codings and length >= 0:
        raise LocalProtocolError("transfer-encoding together with content-length (RFC 9112 §6.2)")
    if codings and decode_codings(b",".join(codings)) != CHUNKED:
        # "the sender MUST apply chunked as the final transfer coding", and "MUST NOT apply [it] more than once" (§6.1)
        raise LocalProtocolError(f"transfer-encoding {b', '.join(codings)!r} must end in one chunked (RFC 9112 §6.1)")
    after = [b" HTTP/1.1\r\n", *[b"%b: %b\r\n" % field for field in (host, *kept)]]
    expects = b"expect" in seen and expects_continue(fields)
    closes = b"close" in options
    return RequestHead(before, b"".join(after), length, bool(codings), closes, expects, b"upgrade" in seen)


def check_te(fields: Fields) -> None:
    """Raises LocalProtocolError where TE names chunked: "always acceptable for HTTP/1.1 recipients" (§7.4)."""
    for name, value in fields:
        if name.lower() == b"te":
            for coding in value.lower().split(b","):
                if coding.partition(b";")[0].strip(EDGES) == b"chunked":
                    raise LocalProtocolError("te names chunked, which goes without saying (RFC 9112 §7.4)")


# §4 status line


def check_status_line(data: bytes, searched: int) -> int:
    """Where the field section begins, once the status line at the start of `data` is complete and good; 0 before that.

    `searched` bytes are known to have no LF. An empty line before it is not skipped: only a server should (§2.2).
    """
    end = data.find(b"\n", searched, STATUS_LIMIT + 2)
    if end >= 0:
        decode_status_line(data[: end + 1])
    elif len(data) >= 7 and not data.startswith(b"HTTP/1."):
        raise bad_beginning(data)
    elif len(data) >= STATUS_LIMIT + 2:
        raise fault(f"a status line above our limit: allowed are {STATUS_LIMIT} bytes (RFC 9112 §4)")
    return end + 1


def decode_status_line(line: bytes) -> StatusLine:
    """A status line with its CRLF (§4). A minor version that we do not know is read as the highest (RFC 9110 §2.5)."""
    global statuses
    known = statuses.get(line)
    if known is not None:
        return known
    match = STATUS_LINE.fullmatch(line)
    if match is None:
        if not line.startswith(b"HTTP/1."):
            raise bad_beginning(line)
        form = "HTTP/1.x, a status code from 100 to 999, a reason, CRLF"
        raise fault(f"the status line {line[:80]!r} is not of the form: {form} (RFC 9112 §4)")
    first = StatusLine(int(match[1]), int(match[2]), match[3] or b"")
    if len(line) <= LINE_SIZE:
        if len(statuses) >= STATUS_MEMO:
            statuses = {}
        statuses[line] = first
    return first


def bad_beginning(data: bytes) -> ConnectionFault:
    """Whoever speaks another protocol is told apart by the first seven bytes, CRLF not among them."""
    return fault(f"the response begins with {data[:7].partition(CRLF)[0]!r}, not with HTTP/1. (RFC 9112 §2.3)")


# §5 field lines


def decode_fields(section: bytes, limit: int, most: int) -> Fields:
    """A field section, each line with its CRLF (§5): names lowered, values without white space at their ends."""
    parts = section.split(CRLF)
    parts.pop()
    check_section(len(section), len(parts), limit, most)
    fields: list[tuple[bytes, bytes]] = []
    known = lines
    for line in parts:
        field = known.get(line)
        if field is None:
            field = decode_line(line, fields)
        fields.append(field)
    return tuple(fields)


def decode_line(line: bytes, fields: list[tuple[bytes, bytes]]) -> tuple[bytes, bytes]:
    """The next field by its line without CRLF (§5.1): remembered unless that is long, secret, or goes on with the last."""
    global lines, old_lines
    field = old_lines.get(line)
    if field is None:
        if b"\0" in line or b"\r" in line or b"\n" in line:
            # "a sender MUST NOT generate a bare CR" (§2.2), and RFC 9110 §5.5 calls all three "invalid and dangerous"
            raise fault("a bare CR, a bare LF or a NUL in a field line (RFC 9112 §2.2, RFC 9110 §5.5)")
        written, colon, value = line.partition(b":")
        name = names.get(written)
        if name is None or not colon:
            if line[:1] in (b" ", b"\t"):
                return unfold(line, fields)
            name = decode_name(written, colon)
        field = (name, value.strip(EDGES))
    if len(line) <= LINE_SIZE and field[0] not in SECRET_FIELDS:
        if len(lines) >= LINE_MEMO:
            old_lines = lines
            lines = {}
        lines[line] = field
    return field


def decode_name(written: bytes, colon: bytes) -> bytes:
    """A field name in lower case. "No whitespace is allowed between the field name and colon." (§5.1)"""
    global names
    if not colon:
        raise fault(f"the field line {written[:40]!r} has no colon (RFC 9112 §5)")
    if TOKEN.fullmatch(written) is None:
        raise fault(f"the field name {written[:80]!r} is not a token (RFC 9112 §5.1)")
    name = written.lower()
    if len(name) <= NAME_SIZE:
        if len(names) >= LINE_MEMO:
            names = {}
        names[written] = name
    return name


def unfold(line: bytes, fields: list[tuple[bytes, bytes]]) -> tuple[bytes, bytes]:
    """The last of these fields, taken out and continued: "replace each … obs-fold with one or more SP" (§5.2)."""
    if not fields or fields[-1][0] in FRAMING:
        after = fields[-1][0] if fields else b"the status line"
        raise fault(f"a folded line after {after!r}, where none is allowed (RFC 9112 §5.2)")
    name, value = fields.pop()
    return name, (value + b" " + line.strip(EDGES)).strip(EDGES)


# §6 message body


def decode_head(data: bytes, limit: int, most: int, connects: bool = False) -> ResponseHead:
    """A response's head, each line with its CRLF and without the empty line (§2.1); `connects`: the answer to CONNECT."""
    global heads, old_heads
    remembers = not connects and limit >= MEMO_SECTION and most >= MEMO_FIELDS and len(data) <= HEAD_SIZE
    known = UNKNOWN
    if remembers:
        known = heads.get(data, UNKNOWN)
        if known is UNKNOWN:
            known = old_heads.get(data, UNKNOWN)
        if known.status:
            return known
    section = check_status_line(data, 0)
    fields = decode_fields(data[section:], limit, most)
    named = dict(fields)
    first = decode_status_line(data[:section])
    if (
        connects and 200 <= first.status < 300
    ):  # "MUST ignore any Content-Length or Transfer-Encoding" (RFC 9110 §9.3.6)
        return ResponseHead(first.status, first.reason, fields, -1, NO_CODING, False)
    head = decode_framing(first, fields, named)
    if remembers and data.count(CRLF) <= MEMO_FIELDS and SECRET_FIELDS.isdisjoint(named):
        if len(heads) >= HEAD_MEMO:
            old_heads = heads
            heads = {}
        heads[data] = SEEN if known is UNKNOWN else head
    return head


def decode_framing(first: StatusLine, fields: Fields, named: dict[bytes, bytes]) -> ResponseHead:
    """What a head says about where the message (§6.1, §6.2) and the connection (§9.3) end; `named` are its last values."""
    length = -1
    coding = NO_CODING
    options = decode_options(join(fields, named, b"connection")) if b"connection" in named else []
    if b"content-length" in named:
        value = join(fields, named, b"content-length")
        length = parse_length(value)
        if length < 0:
            value = decode_lengths(value)
            length = parse_length(value)
            fields = collapse(fields, value)
    if b"transfer-encoding" in named:
        codings = join(fields, named, b"transfer-encoding")
        coding = decode_codings(codings)
        if coding == BAD_CODING:
            raise fault(f"transfer-encoding {codings[:80]!r} is no list of codings with one chunked (RFC 9112 §6.1)")
        if length >= 0:
            raise fault("transfer-encoding together with content-length (RFC 9112 §6.3)")
        if not first.minor:
            # "MUST treat the message as if the framing is faulty, even if a Content-Length is present" (§6.1)
            raise fault("transfer-encoding in an HTTP/1.0 response (RFC 9112 §6.1)")
    closes = b"close" in options or (not first.minor and b"keep-alive" not in options)
    return ResponseHead(first.status, first.reason, fields, length, coding, closes, first.minor)


def join(fields: Fields, named: dict[bytes, bytes], wanted: bytes) -> bytes:
    """The values of a field as one list, in their order (RFC 9110 §5.3)."""
    if len(named) == len(fields):  # no name stands twice
        return named[wanted]
    return b",".join([value for name, value in fields if name == wanted])


def decode_lengths(value: bytes) -> bytes:
    """A content-length that is said more than once: "all values in the list are valid, and … are the same" (§6.3)."""
    parts = [part.strip(EDGES) for part in value.split(b",")]
    if parse_length(parts[0]) < 0 or parts.count(parts[0]) != len(parts):
        raise fault(f"content-length {value[:80]!r} is not one number (RFC 9112 §6.3)")
    return parts[0]


def collapse(fields: Fields, value: bytes) -> Fields:
    """The fields with one content-length, where the first stood: "replace that invalid field value" (RFC 9110 §8.6)."""
    kept: list[tuple[bytes, bytes]] = []
    done = False
    for field in fields:
        if field[0] != b"content-length":
            kept.append(field)
        elif not done:
            kept.append((b"content-length", value))
            done = True
    return tuple(kept)


def decode_options(value: bytes) -> list[bytes]:
    """The connection options of a Connection field, in lower case (RFC 9110 §7.6.1)."""
    return [option.strip(EDGES) for option in value.lower().split(b",")]


def decode_codings(value: bytes) -> int:
    """Which coding a Transfer-Encoding names last (§6.1). `chunked` has no parameters and stands once (§7.1)."""
    codings: list[bytes] = []
    plain = True
    for part in value.lower().split(b","):
        name, semicolon, _ = part.partition(b";")
        name = name.strip(EDGES)
        if name or semicolon:  # "MUST parse and ignore a reasonable number of empty list elements" (RFC 9110 §5.6.1.2)
            plain = plain and TOKEN.fullmatch(name) is not None and not (semicolon and name == b"chunked")
            codings.append(name)
    # A quoted parameter could hide a comma; no coding that is registered has one.
    if not codings or not plain or b'"' in value or codings.count(b"chunked") > 1:
        return BAD_CODING
    return CHUNKED if codings[-1] == b"chunked" else OTHER_CODING


def body_framing(method: str, head: ResponseHead) -> int:
    """The length of the content of this response to `method`, or how else it ends (§6.3)."""
    return 0 if method == "HEAD" else head.framing  # "regardless of the header fields present in the message"


# §7.1 chunks


def decode_chunk_size(line: bytes) -> int:
    """A chunk-size line with its CRLF (§7.1): its extensions must be well formed and are ignored (§7.1.1)."""
    match = CHUNK_LINE.fullmatch(line)
    if match is None:
        form = f"1 to {CHUNK_DIGITS} hex digits, extensions, CRLF"
        raise fault(f"the chunk-size line {line[:80]!r} is not of the form: {form} (RFC 9112 §7.1)")
    return int(match[1], 16)
