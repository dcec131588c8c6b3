"""Requests and responses without a network: content, text, lines, states. httpx is the judge where both have it."""

import asyncio
import pickle
import zlib
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

import httpx
import pytest
from httpx._decoders import LineDecoder
from hypothesis import given
from hypothesis import strategies as st

import calamint
from calamint import CodingLimits, Request, Response
from calamint.client.pieces import Cutter, Lines

TEXT: Final = st.text(st.sampled_from("ab\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029é"), max_size=12)
REQUEST: Final = Request("GET", "http://user:hush@example.com/x")


class Source:
    """A stream that gives these pieces, one way or the other, and knows when it was closed."""

    def __init__(self, *pieces: bytes, error: BaseException | None = None) -> None:
        self.pieces = pieces
        self.error = error
        self.closed = 0

    def next_pieces(self) -> Iterator[bytes]:
        yield from self.pieces
        if self.error is not None:
            raise self.error


class Blocking(Source):
    def __iter__(self) -> Iterator[bytes]:
        return self.next_pieces()

    def close(self) -> None:
        self.closed += 1


class Asynchronous(Source):
    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self.next_pieces():
            yield piece

    async def aclose(self) -> None:
        self.closed += 1


Made = tuple[Response, Source]


def make(kind: str, *pieces: bytes, error: BaseException | None = None, **options: Any) -> Made:
    """A response with such a stream."""
    source = Blocking(*pieces, error=error) if kind == "Client" else Asynchronous(*pieces, error=error)
    return Response(200, stream=source, request=REQUEST, **options), source


def take(response: Response, form: str, *size: int) -> list[Any]:
    """All that one of the iterators gives, blocking or not."""
    if isinstance(response.stream, Blocking):
        return list(getattr(response, f"iter_{form}")(*size))

    async def collect() -> list[Any]:
        return [piece async for piece in getattr(response, f"aiter_{form}")(*size)]

    return asyncio.run(collect())


def read(response: Response) -> bytes:
    return response.read() if isinstance(response.stream, Blocking) else asyncio.run(response.aread())


# Lines and pieces


@given(st.lists(TEXT, max_size=6))
def test_lines_are_those_of_httpx(pieces: list[str]) -> None:
    ours, theirs = Lines(), LineDecoder()
    for piece in pieces:
        assert ours.feed(piece) == theirs.decode(piece)
    assert ours.flush() == theirs.flush()


@given(st.lists(TEXT, max_size=6))
def test_lines_are_those_of_splitlines(pieces: list[str]) -> None:
    lines = Lines()
    assert [line for piece in pieces for line in lines.feed(piece)] + lines.flush() == "".join(pieces).splitlines()


@given(st.lists(st.binary(max_size=9), max_size=6), st.integers(1, 7))
def test_pieces_of_one_size(pieces: list[bytes], size: int) -> None:
    for kind in (Cutter(size, b""), Cutter(size, "")):
        whole = b"".join(pieces)
        cutter: Any = kind
        parts = [piece.decode("latin-1") for piece in pieces] if kind.nothing == "" else pieces
        got = [part for piece in parts for part in cutter.feed(piece)] + list(cutter.flush())
        joined = kind.nothing.join(got)
        assert joined == (whole.decode("latin-1") if kind.nothing == "" else whole)
        assert all(len(part) == size for part in got[:-1]) and all(got)


@pytest.mark.parametrize("size", [0, -1])
def test_a_size_that_is_none(size: int) -> None:
    with pytest.raises(ValueError, match=f"chunk_size={size}"):
        list(Response(200, content=b"x").iter_bytes(size))


@given(st.binary(max_size=40), st.integers(1, 9), st.sampled_from([None, 1, 3, 100]))
def test_a_stream_is_what_httpx_makes_of_it(data: bytes, cut: int, size: int | None) -> None:
    """Bytes, text, lines and all of it, with the same encoding and the same coding."""
    coded = zlib.compress(data)
    pieces = [coded[at : at + cut] for at in range(0, len(coded), cut)]
    fields = {"Content-Encoding": "deflate", "Content-Type": "text/plain; charset=utf-8"}

    def theirs() -> httpx.Response:
        return httpx.Response(200, headers=fields, content=iter(pieces))

    def ours() -> Response:
        return make("Client", *pieces, headers=fields)[0]

    assert b"".join(ours().iter_bytes(size)) == b"".join(theirs().iter_bytes(size)) == data
    assert "".join(ours().iter_text(size)) == "".join(theirs().iter_text(size))
    assert list(ours().iter_lines()) == list(theirs().iter_lines())
    assert b"".join(ours().iter_raw(size)) == coded
    if size is not None:
        assert list(ours().iter_bytes(size)) == list(theirs().iter_bytes(size))
        assert list(ours().iter_text(size)) == list(theirs().iter_text(size))


# Encodings


@pytest.mark.parametrize(
    "kind",
    [
        *("", "text/plain", "text/plain; charset=utf-8", "text/plain; charset=latin-1", 'text/plain; charset="utf-16"'),
        *("text/plain; Charset=ISO-8859-15", "text/plain; charset=nonsense"),
        *("text/plain; charset=", "application/json", "text/plain; boundary=x; charset=cp1252"),
    ],
)
def test_the_encoding_is_httpxs(kind: str) -> None:
    content = "aé€".encode("utf-16") if "16" in kind else b"a\xe9\xa4\xff"
    fields = {"content-type": kind} if kind else {}
    for default in ("utf-8", "cp1252", lambda data: "latin-1" if b"\xe9" in data else "ascii"):
        ours = Response(200, headers=fields, content=content, default_encoding=default)
        theirs = httpx.Response(200, headers=fields, content=content, default_encoding=default)
        assert (ours.text, ours.encoding) == (theirs.text, theirs.encoding)


@pytest.mark.parametrize(
    "said",
    ["hex", "punycode", "Punycode", "idna", "unicode_escape", "unicode-escape", "Raw_Unicode_Escape", "undefined"],
)
def test_a_charset_that_is_none_of_text(said: str) -> None:
    """Python has them beside the charsets. One of them takes half a minute for a megabyte, another one warns."""
    response = Response(200, headers={"content-type": f"text/plain; charset={said}"}, content=b"61\\d")
    assert (response.charset_encoding, response.encoding, response.text) == (said.lower(), "utf-8", "61\\d")
    assert "".join(Response(200, headers=response.headers, content=b"61\\d").iter_text()) == "61\\d"


def test_an_encoding_may_be_set_before_text() -> None:
    response = Response(200, content=b"\xe9")
    response.encoding = "latin-1"
    assert response.text == "é"
    with pytest.raises(ValueError, match="has been decoded"):
        response.encoding = "utf-8"


def test_content_of_every_kind_for_whoever_makes_a_response() -> None:
    assert Response(200).content == b"" and Response(200).text == ""
    assert Response(200, text="é").headers["content-type"] == "text/plain; charset=utf-8"
    assert Response(200, html="<p>").headers["content-type"] == "text/html; charset=utf-8"
    response = Response(200, json={"a": [1, "é"]})
    assert response.json() == {"a": [1, "é"]} and response.headers["content-length"] == str(len(response.content))
    assert response.json(parse_int=float) == {"a": [1.0, "é"]}
    assert Response(200, content="é", headers={"transfer-encoding": "chunked"}).headers.get("content-length") is None
    with pytest.raises(TypeError, match="give bytes or text, or pieces as stream="):
        Response(200, content=[b"x"])  # type: ignore[arg-type]  # that is the point
    with pytest.raises(ValueError):
        Response(200, text="no json").json()


# States


def test_a_stream_is_read_once(kind: str) -> None:
    response, source = make(kind, b"one", b"two")
    with pytest.raises(calamint.ResponseNotRead, match="still to come"):
        assert response.content
    assert read(response) == b"onetwo" == response.content == read(response)
    assert (source.closed, response.is_closed, response.is_stream_consumed) == (1, True, True)
    assert response.num_bytes_downloaded == 6
    assert take(response, "bytes", 4) == [b"onet", b"wo"] and take(response, "lines") == ["onetwo"]
    with pytest.raises(calamint.StreamConsumed):
        take(response, "raw")


@pytest.mark.parametrize("form", ["bytes", "raw", "text", "lines"])
def test_a_stream_that_was_iterated_is_not_kept(kind: str, form: str) -> None:
    response, source = make(kind, b"one")
    assert take(response, form) == [b"one" if form in ("bytes", "raw") else "one"]
    with pytest.raises(calamint.StreamConsumed):
        take(response, "bytes")
    with pytest.raises(calamint.ResponseNotRead, match="was iterated over"):
        assert response.text
    assert source.closed == 1


def test_a_closed_response_gives_nothing(kind: str) -> None:
    response, source = make(kind, b"one")
    for _ in range(2):
        if kind == "Client":
            response.close()
        else:
            asyncio.run(response.aclose())
    with pytest.raises(calamint.StreamClosed):
        read(response)
    with pytest.raises(calamint.ResponseNotRead, match="was closed before its content was read"):
        assert response.content
    assert source.closed == 1


def test_the_other_kind_of_client() -> None:
    response, _ = make("Client", b"one")
    for work in (response.aread, response.aclose):
        with pytest.raises(RuntimeError, match="belongs to a Client"):
            asyncio.run(work())
    assert response.read() == b"one"
    response, _ = make("AsyncClient", b"one")
    for other in (response.read, response.close):
        with pytest.raises(RuntimeError, match="belongs to an AsyncClient"):
            other()
    assert read(response) == b"one"


def test_left_in_the_middle_it_is_still_open() -> None:
    """As in httpx: when an iterator is collected is no matter of the response."""
    response, source = make("Client", b"one", b"two")
    pieces = response.iter_bytes()
    assert next(pieces) == b"one"
    del pieces
    assert (source.closed, response.is_closed) == (0, False)
    response.close()
    assert source.closed == 1


def test_what_fails_closes(kind: str) -> None:
    response, source = make(kind, b"one", error=calamint.ReadError("gone"))
    with pytest.raises(calamint.ReadError):
        read(response)
    assert (source.closed, response.is_closed) == (1, True)


@pytest.mark.parametrize(
    ("coding", "content"), [("gzip", b"nonsense"), ("deflate", zlib.compress(b"x" * 99)[:-3]), ("gzip,gzip,gzip", b"x")]
)
def test_a_broken_coding_closes_and_names_the_request(kind: str, coding: str, content: bytes) -> None:
    response, source = make(kind, content, headers={"content-encoding": coding})
    with pytest.raises(calamint.DecodingError) as caught:
        read(response)
    assert caught.value.request is REQUEST
    assert (source.closed, response.is_closed) == (1, True)


@pytest.mark.parametrize("coding", ["", "deflate"])
@pytest.mark.parametrize("allowed", [99, 100])
def test_the_total_holds_for_every_content(kind: str, coding: str, allowed: int) -> None:
    """Coded or not; as a stream, and where it is whole."""
    data = bytes(100)
    content = zlib.compress(data) if coding else data
    fields, limits = {"content-encoding": coding}, CodingLimits(total=allowed)
    response, _ = make(kind, content, headers=fields, coding_limits=limits)
    whole = Response(200, content=content, headers=fields, coding_limits=limits)
    if allowed == 100:
        assert read(response) == whole.content == data
    else:
        with pytest.raises(calamint.DecodingError, match=r"CodingLimits\(total=99\)"):
            read(response)
        with pytest.raises(calamint.DecodingError, match=r"CodingLimits\(total=99\)"):
            whole.read()


# The head


def test_words_for_what_it_is() -> None:
    for status in (102, 204, 304, 404, 503, 999):
        ours, theirs = Response(status), httpx.Response(status)
        for name in ("informational", "success", "redirect", "client_error", "server_error", "error"):
            assert getattr(ours, f"is_{name}") == getattr(theirs, f"is_{name}")
        assert ours.reason_phrase == theirs.reason_phrase
    assert repr(Response(404)) == repr(httpx.Response(404)) == "<Response [404 Not Found]>"
    response = Response(200, extensions={"http_version": b"HTTP/2", "reason_phrase": b"Fine"})
    assert (response.http_version, response.reason_phrase) == ("HTTP/2", "Fine")
    for status, there in ((301, True), (300, False), (304, False)):
        fields = {"location": "/x"}
        assert Response(status, headers=fields).has_redirect_location == there
        assert httpx.Response(status, headers=fields).has_redirect_location == there


@pytest.mark.parametrize(
    ("status", "words"), [(404, "Client error"), (500, "Server error"), (302, "Redirect"), (199, "Info")]
)
def test_raise_for_status(status: int, words: str) -> None:
    response = Response(status, request=REQUEST, headers={"location": "/there"})
    with pytest.raises(calamint.HTTPStatusError, match=f"^{words}.* '{status} .*example.com/x'") as caught:
        response.raise_for_status()
    error = caught.value
    assert error.request.url.host == "example.com" and error.response.status_code == status  # typed, for mypy's users
    assert "hush" not in str(error)
    assert ("Redirect location: '/there'" in str(error)) == (status == 302)


def test_raise_for_status_of_a_success() -> None:
    response = Response(204, request=REQUEST)
    assert response.raise_for_status() is response and response.url == REQUEST.url
    for failing in (Response(200).raise_for_status, lambda: Response(200).request, lambda: Response(200).elapsed):
        with pytest.raises(RuntimeError):
            failing()


# Pickle


def test_a_response_pickles_with_what_was_read(kind: str) -> None:
    response, _ = make(kind, b"one", headers={"X": "1"}, extensions={"http_version": b"HTTP/2", "odd": lambda: 1})
    unread = pickle.loads(pickle.dumps(response))
    with pytest.raises(calamint.StreamClosed):
        unread.read()
    read(response)
    again = pickle.loads(pickle.dumps(response))
    assert (again.content, again.headers, again.http_version) == (b"one", response.headers, "HTTP/2")
    assert again.request.url == REQUEST.url and again.is_closed


def test_a_status_error_pickles() -> None:
    response = Response(404, request=Request("POST", "http://h/x", content=iter([b"a"])), content=b"no")
    with pytest.raises(calamint.HTTPStatusError) as caught:
        response.raise_for_status()
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value) and again.response.content == b"no" and again.request.method == "POST"
    with pytest.raises(calamint.StreamConsumed):
        again.request.read()
    assert caught.value.request.read() == b"a"


def test_a_transport_error_pickles_with_its_request() -> None:
    error = calamint.ReadTimeout("slow")
    error.request = Request("GET", "http://h/x", extensions={"timeout": calamint.Timeout(1), "trace": print})
    again = pickle.loads(pickle.dumps(error))
    assert isinstance(again.request, Request) and again.request.url == "http://h/x"


# Requests


def test_content_is_read_from_pieces() -> None:
    request = Request("POST", "http://h", content=iter([b"a", b"b"]))
    with pytest.raises(calamint.StreamConsumed):
        assert request.content
    assert request.read() == b"ab" == request.content == asyncio.run(request.aread())

    async def later() -> AsyncIterator[bytes]:
        yield b"later"

    request = Request("POST", "http://h", content=later())
    with pytest.raises(RuntimeError, match="use `aread`"):
        request.read()
    assert asyncio.run(request.aread()) == b"later" == request.content


def test_a_request_does_not_change_what_it_is_given() -> None:
    headers, extensions = calamint.Headers({"X": "1"}), {"timeout": 5}
    request = Request("post", "http://h", headers=headers, json={"a": 1}, extensions=extensions)
    request.extensions["more"] = 1
    assert headers.raw == [(b"X", b"1")] and extensions == {"timeout": 5}
    assert request.method == "POST" and request.headers["content-type"] == "application/json"
    assert repr(request) == "<Request('POST', 'http://h/')>"
