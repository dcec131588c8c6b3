"""RFC 9112 from a server's side: requests are parsed strictly, answered one after the other, and framed by hand."""

import re
from http import HTTPStatus
from typing import Final, final

from calamint.core.value import Fields
from calamint.testing.machine import Exchange, Machine, Options
from calamint.testing.report import Journal
from calamint.testing.script import Data, GoAway, Head, Script

REQUEST_LINE: Final = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([\x21-\x7e]+) HTTP/1\.([01])")  # §3
FIELD_LINE: Final = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):([\t\x20-\x7e\x80-\xff]*)")  # §5
CHUNK_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?")  # §7.1
MAX_HEAD: Final = 256 * 1024

# What is read next.
HEAD: Final = 0
CONTENT: Final = 1  # `left` bytes of it
CHUNK: Final = 2  # a chunk's line
CHUNK_DATA: Final = 3
CHUNK_END: Final = 4
TRAILERS: Final = 5

# How a response's content ends.
BY_LENGTH: Final = 0  # or there is none
BY_CHUNKS: Final = 1
BY_CLOSE: Final = 2


class Malformed(Exception):
    """The client's request is not HTTP/1.1."""


@final
class Http1(Machine):
    """An HTTP/1.1 connection. A pipelined request is looked at when the one before it has been answered."""

    def __init__(self, script: Script, options: Options, journal: Journal, number: int) -> None:
        super().__init__(script, options, journal, number)
        self.current: Exchange | None = None
        self.buffer = bytearray()
        self.state = HEAD
        self.left = 0
        self.framing = BY_LENGTH
        self.old = False  # the request is HTTP/1.0
        self.closing = False  # after this response
        self.leaving = False  # after this program, response or not

    def count(self) -> int:
        """How many requests are not over."""
        return int(self.current is not None and not self.is_closed)

    def receive(self, data: bytes) -> None:
        """Takes what arrived."""
        self.buffer += data

    def run(self) -> None:
        """Does everything that is due."""
        try:
            while self.play_all() or self.read():
                pass
        except Malformed as error:
            self.blame(str(error))
            self.out.append(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            self.close()
        exchange = self.current
        over = exchange is None or exchange.answered or (self.leaving and not exchange.begun)
        if self.closing and over and not self.programs and not self.is_closed:
            self.close()

    # Requests

    def read(self) -> bool:
        """The next piece of a request; whether there was one."""
        if not self.is_reading or self.is_closed or not self.buffer:
            return False
        exchange = self.current
        if self.state == HEAD:
            return exchange is None and not self.closing and self.read_head()
        if exchange is None:
            return False
        if self.state in (CONTENT, CHUNK_DATA):
            return self.read_content(exchange)
        return self.read_line(exchange)

    def read_head(self) -> bool:
        """The request line and the fields (§3, §5)."""
        if self.buffer.startswith(b"\r\n"):  # "SHOULD ignore at least one empty line" (§2.2)
            del self.buffer[:2]
            return True
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self.buffer) > MAX_HEAD:
                raise Malformed(f"a head of more than {MAX_HEAD} bytes")
            return False
        first, *lines = bytes(self.buffer[:end]).split(b"\r\n")
        del self.buffer[: end + 4]
        found = REQUEST_LINE.fullmatch(first)
        if found is None:
            raise Malformed(f"the request line {first[:80]!r} (RFC 9112 §3)")
        method, target, minor = found.groups()
        fields = tuple([parse_field(line) for line in lines])
        self.old = minor == b"0"
        hosts = find_all(fields, b"host")
        if len(hosts) != 1 and (hosts or not self.old):
            raise Malformed(f"{len(hosts)} Host fields, allowed is one (RFC 9112 §3.2)")
        self.read_framing(fields)
        authority = hosts[0].decode("latin-1") if hosts else ""
        complete = self.state == HEAD
        seen = self.journal.see(self.number, 0, method.decode(), target.decode(), authority, fields, complete)
        options = [option.strip().lower() for value in find_all(fields, b"connection") for option in value.split(b",")]
        if b"close" in options or (self.old and b"keep-alive" not in options):
            self.closing = True
        self.current = Exchange(seen)
        self.journal.streams_peak = max(self.journal.streams_peak, 1)
        self.begin(self.current)
        return True

    def read_framing(self, fields: Fields) -> None:
        """How long the content is (§6.3)."""
        lengths = find_all(fields, b"content-length")
        codings = find_all(fields, b"transfer-encoding")
        self.state = HEAD
        if codings:
            if lengths or self.old or [coding.lower() for coding in codings] != [b"chunked"]:
                raise Malformed(f"Transfer-Encoding {codings!r}, Content-Length {lengths!r} (RFC 9112 §6)")
            self.state = CHUNK
        elif lengths:
            if len(lengths) > 1 or not lengths[0].isdigit():
                raise Malformed(f"Content-Length {lengths!r} (RFC 9112 §6.2)")
            self.left = int(lengths[0])
            self.state = CONTENT if self.left else HEAD

    def read_content(self, exchange: Exchange) -> bool:
        """Content, or a chunk of it."""
        piece = bytes(self.buffer[: self.left])
        del self.buffer[: len(piece)]
        self.left -= len(piece)
        exchange.seen.add(piece)
        if self.left == 0:
            if self.state == CHUNK_DATA:
                self.state = CHUNK_END
            else:
                self.end_request(exchange)
        return True

    def read_line(self, exchange: Exchange) -> bool:
        """A line of the chunked coding (§7.1)."""
        end = self.buffer.find(b"\r\n")
        if end < 0:
            if len(self.buffer) > MAX_HEAD:
                raise Malformed(f"a line of more than {MAX_HEAD} bytes in the chunked coding")
            return False
        line = bytes(self.buffer[:end])
        del self.buffer[: end + 2]
        if self.state == CHUNK:
            found = CHUNK_LINE.fullmatch(line)
            if found is None:
                raise Malformed(f"the chunk line {line[:80]!r} (RFC 9112 §7.1)")
            self.left = int(found[1], 16)
            self.state = CHUNK_DATA if self.left else TRAILERS
        elif self.state == CHUNK_END:
            if line:
                raise Malformed(f"{line[:80]!r} after the data of a chunk (RFC 9112 §7.1)")
            self.state = CHUNK
        elif line:
            exchange.seen.trailers += (parse_field(line),)
        else:
            self.end_request(exchange)
        return True

    def end_request(self, exchange: Exchange) -> None:
        """The request is complete."""
        self.state = HEAD
        self.complete(exchange)
        exchange.seen.finish()
        self.settle(exchange)

    # Responses

    def send_head(self, exchange: Exchange, head: Head) -> None:
        """A response head (§4), with the framing that its fields do not have yet (§6)."""
        lines = list(head.fields)
        names = {name.lower() for name, _ in head.fields}
        if head.status >= 200:
            exchange.begun = True
            exchange.silent = exchange.silent or head.status in (204, 304)
            self.framing = BY_LENGTH
            if head.length is not None and not names & {b"content-length", b"transfer-encoding"}:
                lines.append((b"content-length", b"%d" % head.length))
            elif not exchange.silent and not head.end and not names & {b"content-length", b"transfer-encoding"}:
                self.framing = BY_CLOSE if self.old else BY_CHUNKS
                if not self.old:
                    lines.append((b"transfer-encoding", b"chunked"))
            if b"close" in find_all(head.fields, b"connection") or self.framing == BY_CLOSE:
                self.closing = True
            if self.closing and b"connection" not in names:
                lines.append((b"connection", b"close"))
        parts = [b"HTTP/1.1 %d %s\r\n" % (head.status, find_reason(head.status))]
        parts += [b"%s: %s\r\n" % field for field in lines]
        self.out.append(b"".join(parts) + b"\r\n")
        if head.end:
            self.end_response(exchange)

    def send_data(self, exchange: Exchange, data: Data) -> None:
        """Content, in a chunk where it is chunked (§7.1)."""
        if self.framing == BY_CHUNKS and data.content:
            self.out.append(b"%x\r\n%s\r\n" % (len(data.content), data.content))
        else:
            self.out.append(data.content)
        if data.end:
            self.send_trailers(exchange, ())

    def send_trailers(self, exchange: Exchange, fields: Fields) -> None:
        """The end of the content, with trailers where it is chunked (§7.1.2)."""
        if self.framing == BY_CHUNKS:
            self.out.append(b"0\r\n%s\r\n" % b"".join([b"%s: %s\r\n" % field for field in fields]))
        self.end_response(exchange)

    def send_reset(self, exchange: Exchange, code: int) -> None:
        """There is no RST_STREAM here: the connection is closed."""
        self.close()

    def send_goaway(self, exchange: Exchange, step: GoAway) -> None:
        """There is no GOAWAY here: the response says `connection: close`, and without one it is closed."""
        self.closing = self.leaving = True

    def end_response(self, exchange: Exchange) -> None:
        """The response is complete."""
        exchange.answered = True
        self.settle(exchange)

    def settle(self, exchange: Exchange) -> None:
        """If both sides are complete, the next request may come."""
        if exchange.answered and exchange.seen.complete and exchange is self.current:
            self.current = None


def parse_field(line: bytes) -> tuple[bytes, bytes]:
    """A field line (§5). Folded lines are refused."""
    found = FIELD_LINE.fullmatch(line)
    if found is None:
        raise Malformed(f"the field line {line[:80]!r} (RFC 9112 §5)")
    name, value = found.groups()
    return name, value.strip(b" \t")


def find_all(fields: Fields, wanted: bytes) -> list[bytes]:
    """The values of every field with this name."""
    return [value for name, value in fields if name.lower() == wanted]


def find_reason(status: int) -> bytes:
    """The usual reason phrase."""
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b"Unknown"
