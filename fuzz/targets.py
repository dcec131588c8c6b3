"""The targets: each takes bytes and raises where calamint does what it must not do."""

import gzip
import sys
import zlib
from collections.abc import Callable
from importlib import import_module
from typing import Final

import brotli

from calamint import core
from calamint.client.codings import CodingLimits, Decoder, decoder_for
from calamint.core import hpack
from calamint.core.errors import ConnectionFault, DecodingError, Failure, InvalidURL, UnsupportedProtocol
from calamint.core.url import Origin, parse_url
from calamint.net.environment import Bypass, ProxyMap, proxies_from_environment
from calamint.net.handshake import Connect, Layers, Stage
from calamint.net.proxy import Proxy
from calamint.net.socks import Socks
from fuzz.world import Source, World
from tests.core import http2_peer as wire

# HTTP/1.1

HTTP1_SETTINGS: Final = (
    core.Settings(max_field_section=400, max_fields=6, output_budget=30_000),
    core.Settings(max_field_section=2000, max_fields=64, stream_window=1000, pipeline=3),
    core.Settings(),
)
HTTP1_PARTS: Final = (
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.0 200 OK\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 103\r\nLink: </x>\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    b"Content-Length: 5\r\n",
    b"Content-Length: 5, 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: gzip, chunked\r\n",
    b"Transfer-Encoding: gzip\r\n",
    b"Connection: close\r\n",
    b"Connection: keep-alive, x\r\n",
    b"X-Folded: a\r\n b\r\n",
    b"Set-Cookie: secret\r\n",
    b"\r\n",
    b"hello",
    b"5\r\nhello\r\n",
    b'5;a=b;c="d"\r\nhello\r\n',
    b"0\r\n\r\n",
    b"0\r\nX-Sum: 1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
)


def fuzz_http1(data: bytes) -> None:
    """A connection of HTTP/1.1: one request after another, what a server might answer, and time."""
    source = Source(data)
    world = World("http/1.1", source.pick(HTTP1_SETTINGS), source)
    world.request()
    while source.more() and not core.is_closed(world.conn):
        step_http1(world, source)
    world.finish()


def step_http1(world: World, source: Source) -> None:
    """One thing that happens."""
    what = source.byte() % 16
    if what < 5:
        world.receive(source.pick(HTTP1_PARTS))
    elif what < 8:
        world.receive(source.take(1 + source.byte() % 64))
    elif what == 8:
        size = source.byte()
        world.receive(source.take(1) * (1 + size * size))  # what never ends
    elif what == 9:
        world.receive(source.take(1 + source.byte() % 16) * (1 + source.byte() % 32))
    elif not caller(world, what - 10):
        world.request()


def caller(world: World, what: int) -> bool:
    """What a caller does, and the clock and the transport; False where the number says nothing of that."""
    verbs = (world.time, world.consume, world.flush, world.send_data, world.rare)
    if what < len(verbs):
        verbs[what]()
    return what < len(verbs)


# HTTP/2

HTTP2_SETTINGS: Final = (
    core.Settings(stream_window=400, connection_window=65_535, max_streams=6, max_field_section=300, max_fields=6),
    core.Settings(stream_window=20_000, connection_window=100_000, output_budget=1, header_table_size=0),
    core.Settings(
        stream_window=65_535, output_budget=20_000, header_table_size=200, max_frame_size=20_000, max_pushes=2
    ),
    core.Settings(),
)
BLOCKS: Final = (
    b"\x88",
    b"\x89",
    b"\x88\x5c\x015",
    b"\x88" + wire.literals((b"content-length", b"5"), (b"server", b"test")),
    wire.literals((b":status", b"103"), (b"link", b"</x>")),
    wire.literals((b":status", b"100")),
    wire.literals((b"x-sum", b"1")),
    wire.literals((b":status", b"200"), (b"set-cookie", b"secret")),
    wire.literals((b":status", b"304"), (b"content-length", b"9")),
    wire.literals((b"X", b"y")),
    wire.literals((b"connection", b"close"), (b":status", b"200")),
    b"\x88\x40\x01a\x01b\xbe\xbe",
    b"\x88\xbe\xbf\xc0",
    b"\x3f\x45\x88",
    b"\x20\x3f\x45\x88\x40\x01c\x01d",
    b"\x20\x88",
    b"\x88" + 8 * b"\x58\x82\xae\xc3",
    b"",
    b"\xff\xff\xff\xff\x0f",
)
PROMISES: Final = (
    b"\x82\x86\x84" + wire.literals((b":authority", b"localhost:8080")),
    b"\x83\x86\x84" + wire.literals((b":authority", b"localhost:8080")),
    b"\x82",
)
ENABLE_CONNECT_PROTOCOL: Final = 8
PAIRS: Final[tuple[tuple[wire.Setting, ...], ...]] = (
    (),
    ((wire.INITIAL_WINDOW_SIZE, 0),),
    ((wire.INITIAL_WINDOW_SIZE, 70_000), (wire.MAX_FRAME_SIZE, 20_000)),
    ((wire.INITIAL_WINDOW_SIZE, wire.MAX_WINDOW),),
    ((wire.INITIAL_WINDOW_SIZE, wire.MAX_WINDOW + 1),),
    ((wire.MAX_CONCURRENT_STREAMS, 2), (wire.HEADER_TABLE_SIZE, 0)),
    ((wire.MAX_CONCURRENT_STREAMS, 1000), (wire.HEADER_TABLE_SIZE, 100), (wire.HEADER_TABLE_SIZE, 4096)),
    ((wire.ENABLE_PUSH, 1),),
    ((ENABLE_CONNECT_PROTOCOL, 1),),
    ((ENABLE_CONNECT_PROTOCOL, 0), (wire.NO_RFC7540_PRIORITIES, 1)),
    ((wire.MAX_HEADER_LIST_SIZE, 10), (0x55, 7)),
)
NUMBERS: Final = (0, 1, 5, 100, 16_384, 65_535, 2**20, wire.MAX_WINDOW - 65_535, wire.MAX_WINDOW)
REFS: Final = (0, 2, 1, 3, 5, 7, 9, 99, 2**31 - 1)
SIZES: Final = (0, 1, 5, 99, 400, 16_000)


def fuzz_http2(data: bytes) -> None:
    """A connection of HTTP/2: several requests, frames of all kinds, raw bytes, and time."""
    source = Source(data)
    world = World("h2", source.pick(HTTP2_SETTINGS), source)
    begin = source.byte()
    if begin & 1:  # else what comes first is the fuzzer's
        world.receive(wire.settings(*source.pick(PAIRS)) + (wire.settings_ack() if begin & 2 else b""))
    for _ in range(1 + (begin >> 2) % 4):
        world.request()
    while source.more() and not core.is_closed(world.conn):
        step_http2(world, source)
    world.finish()


def step_http2(world: World, source: Source) -> None:
    """One thing that happens."""
    what = source.byte() % 20
    if what < 12:
        world.receive(a_frame(world, source, what))
    elif what == 12:
        world.receive(source.take(1 + source.byte() % 64))
    elif what == 13:
        world.receive(b"".join([a_frame(world, source, source.byte() % 12) for _ in range(2 + source.byte() % 6)]))
    elif not caller(world, what - 14):
        world.request()


def a_frame(world: World, source: Source, kind: int) -> bytes:
    """One frame with a header that is right, or a few that belong together."""
    number = source.byte()
    ref = world.refs[number % len(world.refs)] if world.refs and number < 224 else REFS[number % len(REFS)]
    shape = source.byte()
    if kind <= 1:
        return wire.headers_frame(ref, source.pick(BLOCKS), end=bool(shape & 1))
    if kind <= 3:
        padding = None if shape & 6 != 6 else shape >> 3
        return wire.data_frame(ref, bytes(source.pick(SIZES)), bool(shape & 1), padding)
    if kind == 4:
        block = source.pick(BLOCKS)
        parts = [wire.continuation(ref, b"", done=False)] * ((shape >> 1) % 80)
        return wire.headers_frame(ref, block[:1], bool(shape & 1), done=False) + b"".join(
            [*parts, wire.continuation(ref, block[1:])]
        )
    if kind == 5:
        return wire.headers_frame(ref, source.take(shape % 40), end=bool(shape & 64), done=not shape & 128)
    if kind == 6:
        return wire.window_update(0 if shape & 1 else ref, source.pick(NUMBERS))
    if kind == 7:
        return wire.settings_ack() if shape & 1 else wire.settings(*source.pick(PAIRS))
    if kind == 8:
        return wire.ping((shape >> 1).to_bytes(8, "big"), ack=bool(shape & 1))
    if kind == 9:
        return wire.rst_stream(ref, shape % 15)
    if kind == 10 and shape % 4 == 0:
        return wire.goaway(source.pick((*REFS, *world.refs)), shape % 15, b"debug")
    if kind == 10 and shape % 4 == 1:
        return wire.push_promise(ref, 2 * (1 + (shape >> 2) % 8), source.pick(PROMISES))
    return wire.frame(source.byte() % 17, source.byte(), ref, source.take(shape % 40))


# HPACK

LIMITS: Final = (4096, 0, 64, 200)


def fuzz_hpack(data: bytes) -> None:
    """Field blocks one after the other, with our limit changing between them."""
    source = Source(data)
    limit = source.pick(LIMITS)
    table = hpack.DecoderTable((), 0, min(limit, 4096), limit)
    most, section = source.pick((128, 2)), source.pick((65_536, 100))
    while source.more():
        size = source.byte()
        if size == 255:
            table = hpack.allow(table, source.pick(LIMITS))
            continue
        block = source.take(size)
        before = hpack.DecoderTable(table.entries, table.size, table.max_size, table.limit, table.must_update)
        outcomes = [decode_once(table, block, section, most) for _ in range(3)]
        assert outcomes[0] == outcomes[1] == outcomes[2], "what is remembered changes what is decoded"
        assert table == before, "the old table was changed"
        decoded = outcomes[0]
        if isinstance(decoded, str):
            return
        table = decoded.table
        assert table.size == sum([len(name) + len(value) + 32 for name, value in table.entries])
        assert table.size <= table.max_size <= table.limit and not table.must_update
        measured = sum([len(name) + len(value) + 32 for name, value in decoded.fields])
        assert measured <= section and len(decoded.fields) <= most
        assert not (decoded.oversize and decoded.fields)


def decode_once(table: hpack.DecoderTable, block: bytes, section: int, most: int) -> hpack.Block | str:
    """What comes of it, or why it is an error."""
    try:
        return hpack.decode(table, block, section, most)
    except ConnectionFault as fault:
        assert fault.code == wire.COMPRESSION_ERROR
        return fault.reason


# URLs


def fuzz_url(data: bytes) -> None:
    """Any text; what is taken says the same when it is read again, and makes a request."""
    text = data.decode("utf-8", "surrogateescape")
    for each in (text, "http://" + text, "https://user:pa55word@" + text):
        try_url(each)


def try_url(text: str) -> None:
    """Raises where it breaks."""
    try:
        url = parse_url(text)
    except (InvalidURL, UnsupportedProtocol) as error:
        assert "pa55word" not in str(error), "a password in a message"
        return
    assert "pa55word" not in repr(url)
    origin, target = url.origin, url.target
    assert origin.scheme in ("http", "https") and 0 <= origin.port <= 65_535 and origin.host
    assert target.startswith("/") and target.isascii() and target.isprintable() and " " not in target
    authority = origin.authority()
    assert authority.isascii() and authority.isprintable() and not set(authority) & set(" @/?#\\")
    again = parse_url(f"{origin.scheme}://{authority}{target}")
    assert again.target == target and not again.userinfo and not again.fragment
    if "%" not in origin.host:  # a zone does not leave this side
        assert again.origin == origin
    conn, _ = core.connect("http/1.1", origin)
    _, out, _ = core.request(conn, "GET", target, (), None, 0.0)
    assert out == f"GET {target} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode("ascii")


# Content codings

ZSTD: Final = import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")
CODING_FIELDS: Final = ("gzip", "deflate", "br", "zstd", "gzip, gzip", "zstd, br", "br, zstd", "deflate, gzip", "")
CODING_LIMITS: Final = (
    CodingLimits(step=1, ratio=2),
    CodingLimits(step=100, total=1000),
    CodingLimits(step=5000, ratio=1),
    CodingLimits(),
)
ENCODERS: Final[dict[str, Callable[[bytes], bytes]]] = {
    "gzip": lambda data: gzip.compress(data, mtime=0),
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": ZSTD.compress,
}


def fuzz_codings(data: bytes) -> None:
    """Content that was coded and then broken, in any pieces."""
    source = Source(data)
    field, limits, size = source.pick(CODING_FIELDS), source.pick(CODING_LIMITS), 1 + source.byte()
    parts: list[bytes] = []
    while source.more():
        part, what = source.take(source.byte()), source.byte()
        part *= 1 + (what >> 3) ** 2 if what & 4 else 1
        names = [] if what & 3 == 3 else field.split(", ")
        for name in [name for name in names if name]:
            part = ENCODERS[name](part)
        if what & 3 == 2:
            part = part[: source.byte()]
        parts.append(part)
    coded = b"".join(parts)
    whole, refusal = decode_pieces(decoder_for(field, limits), [coded])
    pieces, again = decode_pieces(
        decoder_for(field, limits), [coded[place : place + size] for place in range(0, len(coded), size)]
    )
    assert bool(refusal) == bool(again), "the split of the content changes the verdict"
    assert whole.startswith(pieces) or pieces.startswith(whole)
    assert refusal or whole == pieces
    assert len(refusal) < 300
    assert limits.total is None or len(whole) <= limits.total
    assert limits.ratio is None or not field or len(whole) <= limits.ratio * (len(coded) + 16_384)
    assert field or coded.startswith(whole)


def decode_pieces(decoder: Decoder, pieces: list[bytes]) -> tuple[bytes, str]:
    """What comes of it, and why it is refused, if it is."""
    parts: list[bytes] = []
    try:
        for piece in pieces:
            decoder.feed(piece)
            while part := decoder.take():
                assert len(part) <= decoder.limits.step
                parts.append(part)
        decoder.end()
    except DecodingError as error:
        return b"".join(parts), str(error)
    return b"".join(parts), ""


# The environment

VARIABLES: Final = ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "NO_PROXY", "no_proxy")
VISITED: Final = (
    "http://a.test",
    "https://x.a.test:8443/",
    "http://192.0.2.1",
    "https://[2001:db8::1]",
    "http://localhost",
)


def fuzz_environment(data: bytes) -> None:
    """Any text in any variable; a proxy that is taken says the same when it is written again."""
    text = data.decode("utf-8", "surrogateescape")
    parts = text.split("\n")
    environ = dict(zip(VARIABLES, parts, strict=False))
    environ["all_proxy"] = f"http://user:pa55word@{parts[0]}"
    secret = "\0" if "pa55word" in text.lower() else "pa55word"  # it may be a host, and then it is shown
    try:
        chooser = proxies_from_environment(environ)
    except InvalidURL as error:
        assert secret not in str(error), "a password in a message"
        assert any([str(error).startswith(f"{name} in the environment: ") for name in environ])
        chooser = ProxyMap({scheme: Proxy("http://proxy.test") for scheme in ("http", "https")}, text)
    for scheme, proxy in chooser.proxies.items():
        assert scheme in ("http", "https") and secret not in repr(proxy) + proxy.key + proxy.url
        again = Proxy(proxy.url, auth=proxy.auth)
        assert again == proxy and again.fields == proxy.fields
    for url in VISITED:
        assert chooser.choose(url) in (None, *chooser.proxies.values())
    for entry in (text, *parts):
        assert Bypass(f"{entry},a.test").covers(Origin("http", "x.a.test", 80))


# The way through proxies

HANDSHAKE_PARTS: Final = (
    b"HTTP/1.1 200 Connection established\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 103\r\nLink: </x>\r\n\r\n",
    b"HTTP/1.1 407 No\r\nProxy-Authenticate: Basic\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    b"HTTP/1.",
    b"\5\0",  # SOCKS: no credentials, credentials, none that would do
    b"\5\2",
    b"\5\xff",
    b"\1\0",  # the credentials are good
    b"\5\0\0\1\x7f\0\0\1\x04\x38",  # it is connected, from an address of either kind, and from a name
    b"\5\0\0\4" + bytes(18),
    b"\5\0\0\3\1x\0\0",
    b"\5\1\0",
)


def fuzz_handshake(data: bytes) -> None:
    """What a proxy of either kind may say, or two of them one behind the other, in any pieces; and perhaps it ends."""
    source = Source(data)
    kind, size, ends = source.byte() % 4, 1 + source.byte(), source.byte() % 2 == 0
    parts: list[bytes] = []
    while source.more():
        what = source.byte()
        parts.append(HANDSHAKE_PARTS[what] if what < len(HANDSHAKE_PARTS) else source.take(what))
    said = b"".join(parts)
    whole = shake(kind, [said] if said else [], ends)
    pieces = shake(kind, [said[place : place + size] for place in range(0, len(said), size)], ends)
    assert whole == pieces, "the split of what came changes what comes of it"
    done, failure, leftover, _ = whole
    assert not (done and failure) and (done or failure or not ends) and said.endswith(leftover)
    assert done or not leftover


def shake(kind: int, pieces: list[bytes], ends: bool) -> tuple[bool, Failure | None, bytes, bytes]:
    """What comes of it: whether it is made, why not, what came behind it, and what was said."""
    stages: list[list[Stage]] = [
        [Connect("a.test", 443, ())],
        [Socks("a.test", 443, None)],
        [Socks("a.test", 443, ("me", "pa55word"))],
        [Socks("b.test", 3128, None), Connect("a.test", 443, ())],
    ]
    layers = Layers(stages[kind])
    out, behind = layers.start(0.0), b""
    for piece in [*pieces, *([b""] if ends else [])]:
        if layers.done:
            behind += piece
        elif layers.failure is None:
            out += layers.feed(piece, 0.0)
    return layers.done, layers.failure, layers.leftover + behind if layers.done else b"", out


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    "http1": fuzz_http1,
    "http2": fuzz_http2,
    "hpack": fuzz_hpack,
    "url": fuzz_url,
    "codings": fuzz_codings,
    "environment": fuzz_environment,
    "handshake": fuzz_handshake,
}
