"""The codec of HTTP/1.1: RFC 9112 §3 to §7, and what RFC 9110 says of fields."""

import string
import time
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calamint.core import http1_parse
from calamint.core.errors import ConnectionFault, LocalProtocolError
from calamint.core.http1_parse import (
    CHUNKED,
    HEAD_MEMO,
    IN_CHUNKS,
    LINE_MEMO,
    NO_CODING,
    OTHER_CODING,
    REQUEST_MEMO,
    STATUS_MEMO,
    WITH_CONNECTION,
    RequestHead,
    ResponseHead,
    StatusLine,
    body_framing,
    check_section,
    check_status_line,
    decode_chunk_size,
    decode_fields,
    decode_head,
    decode_status_line,
    encode_request,
)
from calamint.core.value import Fields

LIMIT: Final = 65_536
MOST: Final = 128
TCHAR: Final = set(("!#$%&'*+-.^_`|~" + string.digits + string.ascii_letters).encode())  # RFC 9110 §5.6.2
BYTES: Final = [bytes((number,)) for number in range(256)]


def fields_of(section: bytes) -> Fields:
    return decode_fields(section, LIMIT, MOST)


def head_of(*lines: bytes, first: bytes = b"HTTP/1.1 200 OK") -> ResponseHead:
    """Decoded three times: from the bytes, once it has been seen, and from memory."""
    data = b"".join([line + b"\r\n" for line in (first, *lines)])
    head = decode_head(data, LIMIT, MOST)
    assert decode_head(data, LIMIT, MOST) == head
    assert decode_head(data, LIMIT, MOST) == head
    return head


def refusal(*lines: bytes, first: bytes = b"HTTP/1.1 200 OK") -> str:
    """Why this head is refused, each time in the same words."""
    data = b"".join([line + b"\r\n" for line in (first, *lines)])
    reasons: set[str] = set()
    for _ in range(3):
        with pytest.raises(ConnectionFault) as caught:
            decode_head(data, LIMIT, MOST)
        assert caught.value.code == -1
        reasons.add(caught.value.reason)
    (reason,) = reasons
    assert "RFC 9112 §" in reason or "above our limits" in reason
    return reason


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"HTTP/1.1 200 OK", StatusLine(1, 200, b"OK")),
        (b"HTTP/1.1 200 ", StatusLine(1, 200, b"")),
        (b"HTTP/1.1 200", StatusLine(1, 200, b"")),  # §4: "recipients MAY instead parse on … word boundaries"
        (b"HTTP/1.1 404 Not  Found\t", StatusLine(1, 404, b"Not  Found\t")),
        (b"HTTP/1.1 404 pas trouv\xe9", StatusLine(1, 404, b"pas trouv\xe9")),
        (b"HTTP/1.0 100 x", StatusLine(0, 100, b"x")),
        (b"HTTP/1.9 999 x", StatusLine(9, 999, b"x")),
    ],
)
@pytest.mark.rfc("9112-4-1", "9110-6.2-1", "9112-2.3-1")
def test_status_line(line: bytes, expected: StatusLine) -> None:
    assert decode_status_line(line + b"\r\n") == expected
    assert decode_status_line(line + b"\r\n") == expected
    assert check_status_line(line + b"\r\n", 0) == len(line) + 2
    assert check_status_line(line + b"\r\nServer: x", 0) == len(line) + 2
    for size in range(len(line) + 2):
        assert check_status_line(line[:size], 0) == 0


@pytest.mark.parametrize(
    "line",
    [
        *[b"HTTP/1.1 20 OK", b"HTTP/1.1 2000 OK", b"HTTP/1.1 099 OK", b"HTTP/1.1 2x0 OK", b"HTTP/1.1 +20 OK"],
        *[b"HTTP/1.1  200 OK", b"HTTP/1.1\t200 OK", b"HTTP/1.1 200\tOK", b"HTTP/1.10 200 OK", b"HTTP/1. 200 OK"],
        *[b"HTTP/1.x 200 OK", b"HTTP/1.1 200 O\rK", b"HTTP/1.1 200 O\0K", b"HTTP/1.1 200 O\x7fK", b"HTTP/1.1"],
    ],
)
@pytest.mark.rfc("9112-4-1")
def test_status_line_that_is_refused(line: bytes) -> None:
    with pytest.raises(ConnectionFault, match=r"is not of the form: .* \(RFC 9112 §4\)") as caught:
        check_status_line(line + b"\r\n", 0)
    assert repr(line + b"\r\n") in caught.value.reason


@pytest.mark.rfc("9112-2.1-1")
def test_a_status_line_ends_with_crlf() -> None:
    with pytest.raises(ConnectionFault, match="not of the form"):
        check_status_line(b"HTTP/1.1 200 OK\n", 0)
    assert "not of the form" in refusal(first=b"HTTP/1.1 200 OK\nServer: x")


@pytest.mark.parametrize(
    ("data", "seen"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", b"SSH-2.0"),
        (b"HTTP/2 200 OK\r\n", b"HTTP/2 "),
        (b"HTTP/2.0 200 OK\r\n", b"HTTP/2."),
        (b"http/1.1 200 OK\r\n", b"http/1."),
        (b"\0\0\x12\x04\0\0\0\0\0", b"\0\0\x12\x04\0\0\0"),
        (b"\r\nHTTP/1.1 200 OK\r\n", b""),  # only a server should pass over empty lines (§2.2)
        (b"abcd\r\n\r\nHTTP", b"abcd"),
        (b"abc\nHTTP/1.1", b"abc\n"),
        (b"\nHTTP/1.1 200 OK", b"\n"),
    ],
)
@pytest.mark.rfc("9112-2.3-1")
def test_another_protocol_is_told_at_once(data: bytes, seen: bytes) -> None:
    """The words do not depend on how much has come."""
    reasons: set[str] = set()
    for size in range(len(data) + 1):
        try:
            assert check_status_line(data[:size], 0) == 0
            assert size < 7 and b"\n" not in data[:size]
        except ConnectionFault as wrong:
            reasons.add(wrong.reason)
    assert reasons == {f"the response begins with {seen!r}, not with HTTP/1. (RFC 9112 §2.3)"}


def test_status_line_limit() -> None:
    """8 KiB without the CRLF; one byte more is seen before the line ends, and alike when it has."""
    line = b"HTTP/1.1 200 " + b"x" * (8192 - 13)
    assert check_status_line(line + b"\r\n", 0) == 8194
    assert check_status_line(line + b"\r", 8190) == 0
    for data in (line + b"xx", line + b"x\r\n", line + b"x" * 100_000 + b"\r\n"):
        with pytest.raises(ConnectionFault, match="allowed are 8192 bytes"):
            check_status_line(data, 0)
    assert "allowed are 8192 bytes" in refusal(first=line + b"x")


@pytest.mark.rfc("9112-5-1", "9112-5.1-2", "9110-5.5-1", "9110-5.3-2")
def test_field_lines() -> None:
    assert fields_of(b"") == ()
    section = (
        b"Server: nginx\r\nX-Empty:\r\nX-Blank: \t \r\nx:y\r\nSet-Cookie: \t a=1; b \xe9\x01 \t\r\nSET-COOKIE: c:d\r\n"
    )
    expected = (
        *((b"server", b"nginx"), (b"x-empty", b""), (b"x-blank", b""), (b"x", b"y")),
        *((b"set-cookie", b"a=1; b \xe9\x01"), (b"set-cookie", b"c:d")),
    )
    assert fields_of(section) == expected
    assert fields_of(section) == expected
    assert fields_of(b"x" * 100 + b": 1\r\n") == ((b"x" * 100, b"1"),)
    assert fields_of(b"Long: " + b"y" * 1000 + b"\r\n") == ((b"long", b"y" * 1000),)


@pytest.mark.rfc("9112-5.1-1", "9110-5.1-1", "9110-5.6.2-1")
def test_field_names_are_tokens() -> None:
    """RFC 9110 §5.1; and "No whitespace is allowed between the field name and colon." (RFC 9112 §5.1)"""
    for byte in BYTES:
        line = b"a" + byte + b"b: c\r\n"
        if byte[0] in TCHAR:
            assert fields_of(line) == (((b"a" + byte + b"b").lower(), b"c"),)
        elif byte == b":":
            assert fields_of(line) == ((b"a", b"b: c"),)
        else:
            with pytest.raises(ConnectionFault, match="not a token|bare CR, a bare LF or a NUL"):
                fields_of(line)
    for line in (b": c\r\n", b"a : c\r\n", b"a\t: c\r\n"):
        with pytest.raises(ConnectionFault, match=r"is not a token \(RFC 9112 §5.1\)"):
            fields_of(line)


@pytest.mark.rfc("9112-2.2-1", "9112-2.2-3", "9110-5.5-2", "9110-5.5-3")
def test_field_values_have_no_cr_lf_nul() -> None:
    """RFC 9110 §5.5; other control characters are kept, as it allows."""
    for byte in BYTES:
        line = b"a: b" + byte + b"c\r\n"
        if byte in (b"\r", b"\n", b"\0"):
            with pytest.raises(ConnectionFault, match="a bare CR, a bare LF or a NUL"):
                fields_of(line)
        else:
            assert fields_of(line) == ((b"a", b"b" + byte + b"c"),)


def test_a_line_without_colon() -> None:
    assert fields_of(b"Server: x\r\n") == ((b"server", b"x"),)
    for line in (b"Server", b"a b c", b"x" * 500):
        with pytest.raises(ConnectionFault, match=r"has no colon \(RFC 9112 §5\)"):
            fields_of(line + b"\r\n")


@pytest.mark.rfc("9112-5.2-2", "9112-2.2-7")
def test_folded_lines() -> None:
    """§5.2: a user agent "MUST replace each received obs-fold with one or more SP octets"."""
    assert fields_of(b"A: b\r\n c\r\n\t d \t\r\nE: f\r\n") == ((b"a", b"b c d"), (b"e", b"f"))
    assert fields_of(b"A:\r\n \t\r\n b\r\n \r\n") == ((b"a", b"b"),)
    assert fields_of(b"Set-Cookie: a\r\n E: f\r\n") == ((b"set-cookie", b"a E: f"),)
    for name in (b"Content-Length", b"Transfer-Encoding", b"Connection"):
        reason = refusal(name + b": 5", b" 5")
        assert reason == f"a folded line after {name.lower()!r}, where none is allowed (RFC 9112 §5.2)"
        assert refusal(b"A: b", name + b": 5", b" 5") == reason
    assert head_of(b"Content-Length: 5", b"A: b", b" c").fields == ((b"content-length", b"5"), (b"a", b"b c"))
    assert "after b'the status line'" in refusal(b" a: b", b"c: d")
    assert "NUL" in refusal(b"A: b", b" c\0")


def test_section_limits() -> None:
    """Its bytes and 32 for each line, and lines: both also of folded ones."""
    section = b"a: b\r\nc: d\r\n e\r\n"
    assert decode_fields(section, len(section) + 96, 3) == ((b"a", b"b"), (b"c", b"d e"))
    words = "above our limits: allowed are"
    with pytest.raises(ConnectionFault, match=f"{words} {len(section) + 95} bytes .32 a field. and 3 fields"):
        decode_fields(section, len(section) + 95, 3)
    with pytest.raises(ConnectionFault, match=f"{words} 1000 bytes .32 a field. and 2 fields"):
        decode_fields(section, 1000, 2)
    check_section(1000, 0, 1000, 1)
    with pytest.raises(ConnectionFault, match=f"{words} 1000 bytes"):
        check_section(1001, 0, 1000, 1)


@pytest.mark.rfc("9112-6.3-6", "9110-8.6-3", "9110-8.6-5")
def test_content_length() -> None:
    assert head_of().length == -1
    assert head_of(b"Content-Length: 5").length == 5
    assert head_of(b"content-length:0").length == 0
    assert head_of(b"Content-Length: 9999999999999999999").length == 9_999_999_999_999_999_999
    for value in (b"", b"+5", b"-1", b"0x5", b"1 2", b"5,", b",5", b"5,6", b"5;5", b"1_0", b"1.0", b"five", b"1" * 20):
        reason = refusal(b"Content-Length: " + value)
        assert reason == f"content-length {value!r} is not one number (RFC 9112 §6.3)"
    assert "b'5,6'" in refusal(b"Content-Length: 5", b"A: b", b"Content-Length: 6")
    assert "b'5,'" in refusal(b"Content-Length: 5", b"Content-Length:")


@pytest.mark.rfc("9112-6.3-7", "9110-8.6-5")
def test_a_repeated_content_length_is_replaced_by_one() -> None:
    """RFC 9110 §8.6; the first keeps its place."""
    for lines in (
        (b"Content-Length: 5, 5", b"A: b"),
        (b"Content-Length: 5", b"A: b", b"content-length: 5"),
        (b"Content-Length: 5,5 ,\t5", b"A: b", b"CONTENT-LENGTH: 5"),
    ):
        head = head_of(*lines)
        assert head.length == 5
        assert head.fields == ((b"content-length", b"5"), (b"a", b"b"))
    assert head_of(b"Content-Length: 0, 0").fields == ((b"content-length", b"0"),)
    assert "is not one number" in refusal(b"Content-Length: 05, 5")


@pytest.mark.parametrize(
    ("values", "coding"),
    [
        ([b"chunked"], CHUNKED),
        ([b"Chunked"], CHUNKED),
        ([b" , ,chunked,, "], CHUNKED),
        ([b"gzip, chunked"], CHUNKED),
        ([b"gzip", b"chunked"], CHUNKED),
        ([b"gzip;level=9 , chunked"], CHUNKED),
        ([b"chunked, gzip"], OTHER_CODING),
        ([b"gzip"], OTHER_CODING),
        ([b"identity"], OTHER_CODING),
        ([b"xchunked"], OTHER_CODING),
    ],
)
@pytest.mark.rfc("9112-7-1", "9110-5.6.1.2-1", "9110-5.2-1")
def test_transfer_encoding(values: list[bytes], coding: int) -> None:
    head = head_of(*[b"Transfer-Encoding: " + value for value in values])
    assert head.coding == coding
    assert head.fields == tuple([(b"transfer-encoding", value.strip()) for value in values])


@pytest.mark.parametrize(
    "value",
    [
        *[b"", b",", b"chunked chunked", b"chunked, chunked", b"chunked, gzip, chunked", b"chunked;a=b", b"chunked;"],
        *[b'gzip;a="b", chunked', b"(chunked)", b"\x0bchunked", b";a=b, chunked", b"chunk\xe9d", b"chunked\0"],
    ],
)
@pytest.mark.rfc("9112-7.1-3")
def test_transfer_encoding_that_is_refused(value: bytes) -> None:
    assert "transfer-encoding" in refusal(b"Transfer-Encoding: " + value) or value.endswith(b"\0")


@pytest.mark.rfc("9112-6.3-3", "9112-6.1-5")
def test_transfer_encoding_with_content_length_or_in_http_1_0() -> None:
    for lines in (
        (b"Transfer-Encoding: chunked", b"Content-Length: 5"),
        (b"Content-Length: 0", b"Transfer-Encoding: gzip"),
    ):
        assert refusal(*lines) == "transfer-encoding together with content-length (RFC 9112 §6.3)"
    reason = refusal(b"Transfer-Encoding: chunked", first=b"HTTP/1.0 200 OK")
    assert reason == "transfer-encoding in an HTTP/1.0 response (RFC 9112 §6.1)"
    assert head_of(b"Transfer-Encoding: chunked", first=b"HTTP/1.2 200 OK").coding == CHUNKED


@pytest.mark.parametrize(
    ("first", "values", "closes"),
    [
        (b"HTTP/1.1 200 OK", [], False),
        (b"HTTP/1.1 200 OK", [b"keep-alive"], False),
        (b"HTTP/1.1 200 OK", [b"close"], True),
        (b"HTTP/1.1 200 OK", [b"X, \tClose ,"], True),
        (b"HTTP/1.1 200 OK", [b"keep-alive", b"close"], True),
        (b"HTTP/1.1 200 OK", [b"closed, enclose"], False),
        (b"HTTP/1.7 200 OK", [], False),
        (b"HTTP/1.0 200 OK", [], True),
        (b"HTTP/1.0 200 OK", [b"Keep-Alive"], False),
        (b"HTTP/1.0 200 OK", [b"keep-alive, close"], True),
    ],
)
@pytest.mark.rfc("9112-9.3-2", "9110-5.6.1.2-1")
def test_persistence(first: bytes, values: list[bytes], closes: bool) -> None:
    """§9.3, its rules in their order."""
    assert head_of(*[b"Connection: " + value for value in values], first=first).closes is closes


@pytest.mark.rfc("9112-6.3-1", "9112-6.3-4", "9112-6.3-5", "9112-6.3-9", "9110-6.4.1-1", "9110-6-1")
def test_body_framing() -> None:
    """§6.3: the method and the status first, "regardless of the header fields present in the message"."""
    for status in (100, 103, 199, 200, 204, 205, 206, 304, 404, 500):
        for coding, length, otherwise in (
            *((CHUNKED, -1, IN_CHUNKS), (OTHER_CODING, -1, WITH_CONNECTION)),
            *((NO_CODING, 5, 5), (NO_CODING, 0, 0), (NO_CODING, -1, WITH_CONNECTION)),
        ):
            head = ResponseHead(status, b"", (), length, coding, False)
            none = status < 200 or status in (204, 304)
            assert body_framing("HEAD", head) == 0
            for method in ("GET", "POST", "head"):
                assert body_framing(method, head) == (0 if none else otherwise)


@pytest.mark.parametrize(
    ("line", "size"),
    [
        *[(b"0", 0), (b"5", 5), (b"aBcD", 0xABCD), (b"0" * 15 + b"5", 5), (b"f" * 16, 2**64 - 1)],
        *[(b"5;a", 5), (b"5 ; a=b", 5), (b'5;a="b;\\"c\xe9";d\t=\te', 5), (b'5;a=""', 5)],
    ],
)
@pytest.mark.rfc("9112-7.1-2", "9112-7.1.1-1")
def test_chunk_size(line: bytes, size: int) -> None:
    assert decode_chunk_size(line + b"\r\n") == size


@pytest.mark.parametrize(
    "line",
    [
        *[b"", b"+5", b"-0", b"0x5", b"5 ", b" 5", b"5 5", b"5_0", b"g", b"5\r\r", b"5\0", b"0" * 17, b"5;", b"5;;a"],
        *[
            b"5;=b",
            b"5;a=",
            b'5;a="',
            b'5;a="b',
            b'5;a="b"c',
            b'5;a="\x01"',
            b"5,a",
            b"5;a b",
            b"5;a\n",
            b"5\n",
            b"\xb2",
        ],
    ],
)
@pytest.mark.rfc("9112-7.1-2")
def test_chunk_size_that_is_refused(line: bytes) -> None:
    with pytest.raises(
        ConnectionFault, match=r"the chunk-size line .* 1 to 16 hex digits, extensions, CRLF \(RFC 9112 §7.1\)"
    ):
        decode_chunk_size(line + b"\r\n")
    with pytest.raises(ConnectionFault):
        decode_chunk_size(line + b"\n")


def test_no_line_is_slow_to_refuse() -> None:
    """Whatever 256 bytes a peer makes up, the grammar of chunk-size lines does not go back and forth in them."""
    for line in (
        b"5" + b";a=b" * 60,
        b"5" + b" " * 250,
        b"5;a" + b" \t" * 120,
        b'5;a="' + b"\\" * 250,
        b"5;" + b"a" * 250,
    ):
        start = time.perf_counter()
        with pytest.raises(ConnectionFault):
            decode_chunk_size(line + b"\0\r\n")
        assert time.perf_counter() - start < 0.05


def test_memory_is_bounded_and_keeps_no_secrets() -> None:
    secret = b"Set-Cookie: sid=0123456789"
    for number in range(3000):
        unique = b"X-Number: %d" % number
        for _ in range(2):
            assert decode_head(b"HTTP/1.1 200 %d\r\n%b\r\n" % (number, unique), LIMIT, MOST).status == 200
        assert fields_of(b"X-%d: y\r\n" % number) == ((b"x-%d" % number, b"y"),)
        encode_request("GET", "/", b"example.org", ((b"x-number", b"%d" % number),), -1, True)
    for _ in range(3):
        head = decode_head(b"HTTP/1.1 200 OK\r\n" + secret + b"\r\n", LIMIT, MOST)
        assert head.fields == ((b"set-cookie", b"sid=0123456789"),)
        encode_request("GET", "/", b"example.org", ((b"Cookie", b"sid=0123456789"),), -1, True)
    assert len(http1_parse.statuses) <= STATUS_MEMO
    assert len(http1_parse.names) <= LINE_MEMO
    assert max(len(http1_parse.lines), len(http1_parse.old_lines)) <= LINE_MEMO
    assert max(len(http1_parse.heads), len(http1_parse.old_heads)) <= HEAD_MEMO
    assert max(len(http1_parse.requests), len(http1_parse.old_requests)) <= REQUEST_MEMO
    known = (
        *(http1_parse.lines, http1_parse.old_lines, http1_parse.heads, http1_parse.old_heads),
        *(http1_parse.requests, http1_parse.old_requests),
    )
    assert "sid=0123456789" not in " ".join([str(memo) for memo in known])


def test_what_recurs_is_remembered() -> None:
    """From the second time on; a head that comes once takes no more than its bytes."""
    data = b"HTTP/1.1 200 OK\r\nX-Recurs: yes\r\n"
    once, twice, thrice = [decode_head(data, LIMIT, MOST) for _ in range(3)]
    assert once is not twice
    assert twice is thrice


def test_both_generations_are_looked_up() -> None:
    """What is turned out of the first is still found in the second."""
    lines = [b"X-Old-%d: y" % number for number in range(LINE_MEMO + HEAD_MEMO)]
    for _ in range(3):
        for line in lines[:600]:
            assert decode_head(b"HTTP/1.1 200 OK\r\n" + line + b"\r\n", LIMIT, MOST).length == -1
        for line in lines[:400]:
            encode_request("GET", "/", b"example.org", ((line.partition(b":")[0], b"y"),), -1, True)
        for line in lines:
            assert fields_of(line + b"\r\n") == ((line.partition(b":")[0].lower(), b"y"),)


def test_what_is_remembered_does_not_change_what_is_allowed() -> None:
    """A head that one connection remembers is refused by another with lower limits, and the other way round."""
    data = b"HTTP/1.1 200 OK\r\n" + b"".join([b"x-%d: y\r\n" % number for number in range(60)])
    folded = b"HTTP/1.1 200 OK\r\nA: b\r\n" + b" c\r\n" * 100
    for _ in range(3):
        assert len(decode_head(data, LIMIT, MOST).fields) == 60
        assert len(decode_head(folded, LIMIT, MOST).fields) == 1
        for limit, most in ((1000, MOST), (LIMIT, 59)):
            with pytest.raises(ConnectionFault, match=f"allowed are {limit} bytes .32 a field. and {most} fields"):
                decode_head(data, limit, most)
        with pytest.raises(ConnectionFault, match="and 64 fields"):
            decode_head(folded, LIMIT, 64)
        assert len(decode_head(data, 3000, 60).fields) == 60
    large = b"HTTP/1.1 200 OK\r\nA: " + b"b" * 3000 + b"\r\n"
    assert decode_head(large, LIMIT, MOST) == decode_head(large, LIMIT, MOST)


# Requests


def sent(
    fields: Fields = (), size: int = -1, end: bool = True, method: str = "GET", target: str = "/"
) -> tuple[bytes, int, bool]:
    """From what is remembered too."""
    data, length, head = encode_request(method, target, b"example.org", fields, size, end)
    assert encode_request(method, target, b"example.org", fields, size, end) == (data, length, head)
    return data, length, head.closes


@pytest.mark.rfc(
    "9112-3-1", "9112-3.1-1", "9112-2.1-1", "9112-2.2-4", "9112-2.2-6", "9112-3.2-2", "9112-6-1", "9112-6.3-10"
)
def test_a_request_head() -> None:
    assert sent() == (b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n", 0, False)
    fields = ((b"Accept", b"*/*"), (b"x-Y", b""), (b"connection", b"Close"))
    head = b"POST /a?b HTTP/1.1\r\nHost: example.org\r\nAccept: */*\r\nx-Y: \r\nconnection: Close\r\n"
    assert sent(fields, 0, True, "POST", "/a?b") == (head + b"Content-Length: 0\r\n\r\n", 0, True)
    assert sent(fields, 7, True, "POST", "/a?b") == (head + b"Content-Length: 7\r\n\r\n", 7, True)
    chunks = b"Transfer-Encoding: chunked\r\n\r\n"
    assert sent(fields, -1, False, "POST", "/a?b") == (head + chunks, -1, True)
    assert sent(fields, 7, False, "POST", "/a?b") == (head + chunks, -1, True)
    large = ((b"x", b"y" * 5000),)
    assert sent(large)[0].endswith(b"x: " + b"y" * 5000 + b"\r\n\r\n")


@pytest.mark.rfc("9112-3.2-2", "9112-3.2-3")
def test_host_comes_first_and_once() -> None:
    """RFC 9110 §7.2, RFC 9112 §3.2: the caller's own goes before the origin's."""
    head = b"GET / HTTP/1.1\r\nhOST: other\r\na: b\r\n\r\n"
    assert sent(((b"a", b"b"), (b"hOST", b"other")))[0] == head
    assert sent(((b"HOST", b"other"), (b"a", b"b"), (b"hOST", b"other")))[0] == head
    with pytest.raises(LocalProtocolError, match=r"b'other' and b'another' \(RFC 9112 §3.2\)"):
        sent(((b"Host", b"other"), (b"host", b"another")))
    with pytest.raises(LocalProtocolError, match="CR, LF or NUL"):
        encode_request("GET", "/", b"a\r\nb: c", (), -1, True)


@pytest.mark.rfc("9112-3.2.2-1", "9112-3.2.2-2", "9112-3.2-3")
def test_the_absolute_form_names_the_host() -> None:
    """RFC 9112 §3.2.2: what a proxy is sent. Host is the target's authority, whatever the connection's origin is."""
    head = b"GET http://a.test:81/b?c HTTP/1.1\r\n"
    assert sent(target="http://a.test:81/b?c")[0] == head + b"Host: a.test:81\r\n\r\n"
    fields = ((b"x", b"y"), (b"hOST", b"a.test:81"))
    assert sent(fields, target="http://a.test:81/b?c")[0] == head + b"hOST: a.test:81\r\nx: y\r\n\r\n"
    assert (
        sent(method="OPTIONS", target="http://a.test")[0] == b"OPTIONS http://a.test HTTP/1.1\r\nHost: a.test\r\n\r\n"
    )
    with pytest.raises(LocalProtocolError, match="b'a.test' is not the target's, b'a.test:81'"):
        sent(((b"Host", b"a.test"),), target="http://a.test:81/")
    with pytest.raises(LocalProtocolError, match="must be a path"):
        sent(target="http://a.test")


@pytest.mark.rfc("9112-6.1-2", "9112-6.1-3", "9112-6.2-1")
def test_a_callers_own_framing() -> None:
    assert sent(((b"content-length", b"5"),), 5) == (
        b"GET / HTTP/1.1\r\nHost: example.org\r\ncontent-length: 5\r\n\r\n",
        5,
        False,
    )
    twice = sent(((b"Content-Length", b"5"), (b"content-length", b"5")), -1, False)
    assert twice == (b"GET / HTTP/1.1\r\nHost: example.org\r\nContent-Length: 5\r\n\r\n", 5, False)
    for values in ((b"Chunked",), (b"gzip, chunked",), (b"gzip", b"chunked")):
        fields = tuple([(b"TE-Not", b"x"), *[(b"Transfer-Encoding", value) for value in values]])
        written = b"".join([b"Transfer-Encoding: " + value + b"\r\n" for value in values])
        assert sent(fields, 5) == (
            b"GET / HTTP/1.1\r\nHost: example.org\r\nTE-Not: x\r\n" + written + b"\r\n",
            -1,
            False,
        )
    for value in (b"gzip", b"chunked, gzip", b"chunked, chunked", b"chunked;a=b", b""):
        with pytest.raises(LocalProtocolError, match=r"must end in one chunked \(RFC 9112 §6.1\)"):
            sent(((b"Transfer-Encoding", value),))
    for length in (b"5", b"0"):
        with pytest.raises(LocalProtocolError, match="together with content-length"):
            sent(((b"Transfer-Encoding", b"chunked"), (b"Content-Length", length)))
    with pytest.raises(LocalProtocolError, match="is not one number"):
        sent(((b"Content-Length", b"+5"),))


@pytest.mark.rfc("9112-3.2-1", "9112-5.2-1")
def test_what_may_not_be_sent() -> None:
    with pytest.raises(LocalProtocolError, match="not a token"):
        sent(method="GET /")
    with pytest.raises(LocalProtocolError, match="must be a host and a port"):
        sent(method="CONNECT", target="/")
    with pytest.raises(LocalProtocolError, match="printable ASCII"):
        sent(target="/ HTTP/1.1\r\n")
    with pytest.raises(LocalProtocolError, match="not a token"):
        sent(((b"a b", b"c"),))


def test_values_of_the_codec_can_be_compared() -> None:
    assert RequestHead(b"GET ", b"", -1, False, True, False, True) == RequestHead(
        b"GET ", b"", -1, False, True, False, True
    )
    assert StatusLine(1, 200, b"") != StatusLine(1, 200, b"OK")


# Properties

TOKENS: Final = st.text("".join(map(chr, sorted(TCHAR))), min_size=1, max_size=12).map(str.encode)
VALUES: Final = st.binary(max_size=20).map(lambda value: value.translate(None, b"\0\r\n").strip(b" \t"))
EDGES: Final = st.text(" \t", max_size=3).map(str.encode)


@given(st.lists(st.tuples(TOKENS, EDGES, VALUES, EDGES), max_size=8))
def test_whatever_is_a_field_section_is_read(section: list[tuple[bytes, bytes, bytes, bytes]]) -> None:
    lines = [name + b":" + before + value + after + b"\r\n" for name, before, value, after in section]
    assert fields_of(b"".join(lines)) == tuple([(name.lower(), value) for name, _, value, _ in section])


@given(st.binary(max_size=60), st.sampled_from([b"", b"HTTP/1.1 ", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0 200 OK\r\na: "]))
def test_nothing_but_a_fault_is_raised(data: bytes, start: bytes) -> None:
    data = start + data.replace(b"\r\n\r\n", b"") + b"\r\n"
    verdicts: list[object] = []
    for _ in range(3):
        try:
            verdicts.append(decode_head(data, LIMIT, MOST))
        except ConnectionFault as wrong:
            verdicts.append(wrong.reason)
    assert verdicts[0] == verdicts[1] == verdicts[2]
    try:
        assert 0 <= decode_chunk_size(data) < 2**64
    except ConnectionFault as wrong:
        assert "chunk-size line" in wrong.reason
