"""Responses of HTTP/1.1 for the comparison of readers: from a grammar whose parts are right or nearly so, then mutated."""

from collections.abc import Sequence
from typing import Final

from hypothesis import strategies as st

STATUS_LINES: Final = (
    *(b"HTTP/1.1 200 OK\r\n",) * 12,
    b"HTTP/1.1 204 No Content\r\n",
    b"HTTP/1.1 304 Not Modified\r\n",
    b"HTTP/1.1 404 Not Found\r\n",
    b"HTTP/1.1 599 \r\n",
    b"HTTP/1.1 200\r\n",
    b"HTTP/1.0 200 OK\r\n",
    b"HTTP/1.1 200 \xe4 \x01\r\n",
    b"HTTP/1.1  200 OK\r\n",
    b"HTTP/1.1 2000 OK\r\n",
    b"HTTP/1.1 099 OK\r\n",
    b"HTTP/1.1 999 OK\r\n",
    b"HTTP/2.0 200 OK\r\n",
    b"HTTP/1.10 200 OK\r\n",
    b"http/1.1 200 OK\r\n",
    b"HTTP/1.1 200 OK\n",
    b"HTTP/1.1 200 OK\r\r\n",
    b"\r\nHTTP/1.1 200 OK\r\n",
    b"ICY 200 OK\r\n",
)
INTERIM: Final = (
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n",
    b"HTTP/1.1 102 Processing\r\nContent-Length: 5\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    b"HTTP/1.0 100 Continue\r\n\r\n",
)
LENGTHS: Final = (
    *(b"5", b"5", b"5", b"5", b"0", b"3", b"9", b"05", b"5, 5", b"5,5", b"5, 6", b"5,", b",5", b"+5", b"-5", b"0x5"),
    *(
        b"5 5",
        b"5;",
        b"",
        b"five",
        b"5.0",
        b"99999999999999999999999",
        b"\xd9\xa5",
        b'"5"',
        b"000000000000000000000005",
    ),
)
CODINGS: Final = (
    *(b"chunked", b"chunked", b"chunked", b"chunked", b"Chunked", b"gzip, chunked", b"gzip", b"chunked, gzip"),
    *(
        b"chunked, chunked",
        b"chunked,",
        b", chunked",
        b"chunked;q=1",
        b"identity",
        b"xchunked",
        b"chunked x",
        b'"chunked"',
    ),
    *(b"", b"gzip,chunked", b"chun\tked", b"gzip;a=b, chunked"),
)
LINES: Final = (
    *(b"Server: test\r\n", b"Set-Cookie: a=b\r\n", b"Set-Cookie: c=d\r\n", b"X-Empty:\r\n", b"X-Space: \t a b \t\r\n"),
    *(
        b"Connection: close\r\n",
        b"Connection: keep-alive\r\n",
        b"Connection: Close, x\r\n",
        b"Keep-Alive: timeout=5\r\n",
    ),
    *(b"X-Folded: a\r\n b\r\n", b"X-Folded: a \r\n\t \tb\r\n  c\r\n", b"X-Folded:\r\n a\r\n", b" X-First: a\r\n"),
    *(b"X Space: a\r\n", b"X-Space : a\r\n", b"X\tTab: a\r\n", b": a\r\n", b"no colon\r\n", b"X-\xe4: a\r\n"),
    *(b"X-Text: \xe4\xf6\r\n", b"X-Control: a\x01b\r\n", b"X-Nul: a\x00b\r\n", b"X-Cr: a\rb\r\n", b"X-Lf: a\nb\r\n"),
    *(b"X-Tab: \x0b\x0c\r\n", b"Trailer: X-Sum\r\n", b"Upgrade: h2c\r\n", b"X-Del: a\x7fb\r\n"),
)
CHUNKS: Final = (
    *(
        b"5\r\nhello\r\n",
        b"5\r\nhello\r\n",
        b"5\r\nhello\r\n",
        b"1\r\nx\r\n",
        b"A\r\n0123456789\r\n",
        b"0a\r\n0123456789\r\n",
    ),
    *(
        b"5;a=b\r\nhello\r\n",
        b"5; a=b\r\nhello\r\n",
        b'5;a="b;\\"c"\r\nhello\r\n',
        b"5;\r\nhello\r\n",
        b"5 ;a\r\nhello\r\n",
    ),
    *(b"5 \r\nhello\r\n", b" 5\r\nhello\r\n", b"0x5\r\nhello\r\n", b"+5\r\nhello\r\n", b"5\nhello\n", b"5\r\nhello\n"),
    *(
        b"5\r\nhello",
        b"4\r\nhello\r\n",
        b"6\r\nhello\r\n",
        b"\r\nhello\r\n",
        b"g\r\n",
        b"5;a\x00\r\nhello\r\n",
        b"5;a=\r\nhello\r\n",
    ),
    *(
        b"00000000000000005\r\nhello\r\n",
        b"000000000000000000000005\r\nhello\r\n",
        b"5;a\nb\r\nhello\r\n",
        b"5;=b\r\nhello\r\n",
    ),
    *(b"FFFFFFFFFFFFFFFF\r\nhello\r\n", b"5\r\r\nhello\r\n", b"5;a b\r\nhello\r\n", b"5;a=b;c\r\nhello\r\n"),
)
LAST: Final = (
    *(b"0\r\n\r\n",) * 6,
    *(
        b"0\r\nX-Sum: 1\r\n\r\n",
        b"0\r\nX-Sum: 1\r\nX-More: 2\r\n\r\n",
        b"000\r\n\r\n",
        b"0;a\r\n\r\n",
        b"0\r\n\n",
        b"0\n\n",
    ),
    *(b"0\r\nContent-Length: 7\r\n\r\n", b"0\r\nTransfer-Encoding: gzip\r\n\r\n", b"0\r\nX-Folded: a\r\n b\r\n\r\n"),
    *(b"0\r\n", b"", b"0\r\nno colon\r\n\r\n", b"0\r\n X: y\r\n\r\n", b"0\r\nContent-Length: x\r\n\r\n"),
)
GOOD_CHUNKS: Final = CHUNKS[:9]
GOOD_LINES: Final = LINES[:12]
INTERESTING: Final = b'\r\n\t \x00\x01\x0b\x7f\x80\xff:;,="0159aAfFgx/.'


def usual(draw: st.DrawFn, good: Sequence[bytes], all_of_them: Sequence[bytes]) -> bytes:
    """One of the good ones, or now and then one of all."""
    return draw(st.sampled_from(all_of_them if draw(st.integers(0, 5)) == 0 else good))


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """A response, mostly right; then perhaps a few bytes of it changed, and perhaps another response after it."""
    parts = [usual(draw, INTERIM[:2], INTERIM) for _ in range(draw(st.sampled_from((0, 0, 0, 1, 2))))]
    parts.append(usual(draw, STATUS_LINES[:1], STATUS_LINES))
    lines = [usual(draw, GOOD_LINES, LINES) for _ in range(draw(st.sampled_from((0, 0, 1, 3))))]
    sized, chunked = draw(st.sampled_from(((1, 0), (1, 0), (2, 0), (0, 1), (0, 1), (0, 1), (0, 2), (0, 0), (1, 1))))
    for _ in range(sized):
        name = draw(st.sampled_from((b"Content-Length: ", b"content-length:", b"CONTENT-LENGTH: \t")))
        lines.append(
            name + usual(draw, LENGTHS[:4], LENGTHS) + usual(draw, (b"\r\n",), (b"\r\n", b" \r\n", b"\r\n \r\n"))
        )
    for _ in range(chunked):
        name = draw(st.sampled_from((b"Transfer-Encoding: ", b"Transfer-Encoding: ", b"transfer-encoding:")))
        lines.append(name + usual(draw, CODINGS[:4], CODINGS) + b"\r\n")
    parts += draw(st.permutations(lines))
    parts.append(b"\r\n")
    if chunked:
        parts += [usual(draw, GOOD_CHUNKS, CHUNKS) for _ in range(draw(st.integers(0, 3)))]
        parts.append(usual(draw, LAST[:8], LAST))
    else:
        parts.append(draw(st.sampled_from((b"hello", b"hello", b"hello", b"hel", b"", b"hello hello"))))
    if draw(st.booleans()):
        parts.append(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    return mutated(draw, b"".join(parts))


def mutated(draw: st.DrawFn, data: bytes) -> bytes:
    """Bytes changed, put in, or taken out; pieces said twice."""
    for _ in range(draw(st.sampled_from((0, 0, 0, 0, 1, 1, 3)))):
        place = draw(st.integers(0, len(data)))
        how = draw(st.integers(0, 4))
        byte = bytes((draw(st.sampled_from(INTERESTING)),)) if how != 4 else draw(st.binary(min_size=1, max_size=1))
        size = draw(st.integers(1, 6))
        if how == 0:
            data = data[:place] + data[place + size :]
        elif how == 1:
            data = data[:place] + data[place : place + size] * 2 + data[place + size :]
        elif how == 2:
            data = data[:place] + byte + data[place:]
        else:
            data = data[:place] + byte + data[place + 1 :]
    return data
