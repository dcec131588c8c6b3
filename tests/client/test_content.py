"""What a caller gives as content and parameters. httpx is the judge of forms, JSON and queries."""

import array
import asyncio
import gzip
import io
import json
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calamint.client.content import (
    FILE_PIECE,
    AsyncPieces,
    Content,
    FilePieces,
    Form,
    Params,
    Pieces,
    Primitive,
    RequestContent,
    encode_content,
    encode_params,
    merge_params,
)
from calamint.core.errors import StreamConsumed

FORM_TYPE: Final = (b"content-type", b"application/x-www-form-urlencoded")
JSON_TYPE: Final = (b"content-type", b"application/json")

TEXT: Final = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
VALUES: Final = st.one_of(TEXT, st.integers(), st.floats(), st.booleans(), st.none())
NAMES: Final = st.one_of(st.sampled_from("abc"), TEXT)
FORMS: Final = st.dictionaries(NAMES, st.one_of(VALUES, st.lists(VALUES, max_size=4)), max_size=5)
PAIRS: Final = st.lists(st.tuples(NAMES, VALUES), max_size=6)
QUERIES: Final = st.one_of(TEXT, st.text(st.sampled_from("ab=&+%20;é?#"), max_size=20))
PARAMS: Final = st.one_of(FORMS, PAIRS, QUERIES, QUERIES.map(lambda text: text.encode("ascii", "ignore")))
JSON: Final = st.recursive(
    st.one_of(st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)),
)


def sync_pieces(result: Content) -> Pieces | FilePieces:
    assert isinstance(result.parts, Pieces | FilePieces)
    assert result.whole is None
    return result.parts


# The whole content


@pytest.mark.parametrize(
    ("content", "whole"),
    [
        (b"bytes", b"bytes"),
        (b"", b""),
        ("", b""),
        ("text é €", b"text \xc3\xa9 \xe2\x82\xac"),
        (bytearray(b"array"), b"array"),
        (memoryview(b"a view")[2:], b"view"),
        (memoryview(b"every other")[::2], b"eeyohr"),
        (memoryview(array.array("H", [1, 2])), array.array("H", [1, 2]).tobytes()),
    ],
)
def test_content_as_it_is(content: RequestContent, whole: bytes) -> None:
    result = encode_content(content)
    assert result == Content((), whole, None)
    assert type(result.whole) is bytes


def test_no_content() -> None:
    assert encode_content() == Content((), None, None)


def test_what_can_change_is_copied() -> None:
    content = bytearray(b"before")
    result = encode_content(content)
    content[:] = b"after!"
    assert result.whole == b"before"


def test_text_that_is_no_unicode() -> None:
    with pytest.raises(ValueError, match="surrogates"):
        encode_content("\ud800")
    with pytest.raises(ValueError, match="surrogates"):
        encode_content(json="\ud800")


@given(JSON)
def test_json_as_httpx_writes_it(value: object) -> None:
    request = httpx.Request("POST", "http://localhost/", json=value)
    assert encode_content(json=value) == Content((JSON_TYPE,), request.content, None)
    assert request.headers["content-type"].encode() == JSON_TYPE[1]
    assert json.loads(request.content) == value


def test_json_is_short_and_unicode() -> None:
    assert encode_content(json={"é": [1, 2.5, None, False]}).whole == '{"é":[1,2.5,null,false]}'.encode()
    values: tuple[object, ...] = (0, False, "", [], {})
    for value in values:
        assert encode_content(json=value).whole == json.dumps(value).encode()


def test_what_json_cannot_say() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        encode_content(json=[float("nan")])
    with pytest.raises(TypeError, match="not JSON serializable"):
        encode_content(json={1, 2})


@given(FORMS)
def test_a_form_as_httpx_writes_it(form: Form) -> None:
    # httpx sends a form in which no name is left, all lists being empty, as one of no length; so do we.
    request = httpx.Request("POST", "http://localhost/", data=dict(form))
    fields = (FORM_TYPE,) if "content-type" in request.headers else ()
    assert encode_content(data=form) == Content(fields, request.content if fields else None, None)
    assert bool(fields) == bool(form)


def test_a_form() -> None:
    form: Form = {"a": "1 & 2", "b": [1, "zwei", None], "c": True, "d": None, "é": "€", "e": (), "f": 2.5}
    assert encode_content(data=form) == Content(
        (FORM_TYPE,), b"a=1+%26+2&b=1&b=zwei&b=&c=true&d=&%C3%A9=%E2%82%AC&f=2.5", None
    )


@pytest.mark.parametrize("data", ["a=1", b"a=1", [("a", "1")], 5, io.BytesIO(b"a=1")])
def test_data_that_is_no_form(data: Form) -> None:
    with pytest.raises(
        TypeError, match="data is of type .*: give a mapping of a form's fields, or all else as content"
    ):
        encode_content(data=data)


@pytest.mark.parametrize(
    "value", [b"bytes", bytearray(), memoryview(b""), {"b": 1}, {1}, frozenset(), [[1]], [b"x"], [{}]]
)
def test_a_value_that_has_no_text(value: Primitive) -> None:
    for use in (lambda: encode_content(data={"a": value}), lambda: encode_params({"a": value})):
        with pytest.raises(TypeError, match=r"the value of 'a' is of type \w+: give text, a number, or a list of them"):
            use()
    with pytest.raises(TypeError, match="the value of 'a'"):
        encode_params([("a", value)])


@pytest.mark.parametrize(
    ("names", "make"),
    [
        ("content and data", lambda: encode_content(b"", {})),
        ("content and json", lambda: encode_content(b"", json=0)),
        ("data and json", lambda: encode_content(data={}, json=False)),
        ("content and data and json", lambda: encode_content("a", {"a": "b"}, {})),
    ],
)
def test_a_request_has_one_content(names: str, make: Callable[[], Content]) -> None:
    with pytest.raises(TypeError, match=f"^{names} are given: a request has one content"):
        make()


def test_a_field_that_the_caller_gave_is_not_added(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    with path.open("rb") as file:
        for given_fields, added in ([b"content-type"], True), ([b"content-length", b"accept"], False):
            assert encode_content(json=1, given=given_fields).fields == (() if added else (JSON_TYPE,))
            assert encode_content(data={"a": 1}, given=given_fields).fields == (() if added else (FORM_TYPE,))
            assert encode_content(file, given=given_fields).fields == (((b"content-length", b"5"),) if added else ())


# In pieces


def letters() -> Iterator[bytes]:
    yield from (b"a", b"", b"b")


def test_pieces_of_bytes() -> None:
    for source in ([b"a", b"", b"b"], (bytearray(b"a"), memoryview(b"xbx")[1:2]), letters()):
        parts = sync_pieces(encode_content(source))
        assert b"".join(parts) == b"ab"
    assert encode_content(letters()).fields == ()
    assert all(type(piece) is bytes for piece in sync_pieces(encode_content([bytearray(b"a")])))


def test_what_can_be_sent_again_and_what_cannot() -> None:
    again = sync_pieces(encode_content([b"a", b"b"]))
    assert again.replayable
    assert list(again) == list(again) == [b"a", b"b"]
    once = sync_pieces(encode_content(letters()))
    assert not once.replayable
    assert list(once) == [b"a", b"", b"b"]
    with pytest.raises(StreamConsumed, match="has been sent: it cannot be sent again"):
        list(once)


def test_a_generator_is_closed_when_sending_ends_early() -> None:
    closed: list[bool] = []

    def produce() -> Iterator[bytes]:
        try:
            yield b"a"
            yield b"b"
        finally:
            closed.append(True)

    source = produce()
    pieces = iter(sync_pieces(encode_content(source)))
    assert next(pieces) == b"a"
    assert isinstance(pieces, Iterator) and hasattr(pieces, "close")
    pieces.close()
    assert closed == [True]
    with pytest.raises(StopIteration):
        next(source)


def test_text_among_the_pieces_is_an_error() -> None:
    """Of a list before anything is sent; of a generator when it comes."""
    with pytest.raises(TypeError, match="of type str: give bytes"):
        encode_content(["a"])  # type: ignore[list-item]  # what the test is about
    texts: Iterable[str] = iter(["a"])
    parts = sync_pieces(encode_content(texts))  # type: ignore[arg-type]  # what the test is about
    with pytest.raises(TypeError, match="of type str: give bytes"):
        next(iter(parts))


@pytest.mark.parametrize("content", [5, {"a": "b"}, object(), 1.5])
def test_what_is_no_content(content: RequestContent) -> None:
    with pytest.raises(
        TypeError, match=r"content is of type \w+: give bytes, text, a file or pieces of bytes; a form as"
    ):
        encode_content(content)


def test_numbers_are_no_pieces() -> None:
    with pytest.raises(TypeError, match="of type int"):
        encode_content(range(3))  # type: ignore[arg-type]  # what the test is about


class Endless:
    """Can be iterated again and again."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        return async_letters([])


async def async_letters(closed: list[bool]) -> AsyncIterator[bytes]:
    try:
        yield b"a"
        yield bytearray(b"b")  # type: ignore[misc]  # more than the annotation says
    finally:
        closed.append(True)


def async_pieces(result: Content) -> AsyncPieces:
    assert isinstance(result.parts, AsyncPieces)
    assert result.whole is None and result.fields == ()
    return result.parts


def test_asynchronous_pieces() -> None:
    async def run() -> None:
        closed: list[bool] = []
        once = async_pieces(encode_content(async_letters(closed)))
        assert not once.replayable
        assert [type(piece) for piece in [piece async for piece in once]] == [bytes, bytes]
        assert closed == [True]
        with pytest.raises(StreamConsumed):
            [piece async for piece in once]
        again = async_pieces(encode_content(Endless()))
        assert again.replayable
        for _ in range(2):
            assert [piece async for piece in again] == [b"a", b"b"]

    asyncio.run(run())


def test_an_asynchronous_generator_is_closed_when_sending_ends_early() -> None:
    async def run() -> None:
        closed: list[bool] = []
        pieces = aiter(async_pieces(encode_content(async_letters(closed))))
        assert await anext(pieces) == b"a"
        assert hasattr(pieces, "aclose")
        await pieces.aclose()
        assert closed == [True]

    asyncio.run(run())


def test_asynchronous_text_is_an_error() -> None:
    async def texts() -> AsyncIterator[str]:
        yield "a"

    async def run() -> None:
        pieces = async_pieces(encode_content(texts()))  # type: ignore[arg-type]  # what the test is about
        with pytest.raises(TypeError, match="of type str"):
            await anext(aiter(pieces))

    asyncio.run(run())


# Files


def sent_length(result: Content) -> int | None:
    return int(result.fields[0][1]) if result.fields else None


@pytest.mark.parametrize("size", [0, 1, FILE_PIECE, FILE_PIECE + 1, 3 * FILE_PIECE])
def test_a_file_tells_its_length(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    path = tmp_path / "file"
    path.write_bytes(data)
    with path.open("rb") as file, path.open("rb", buffering=0) as raw, tempfile.NamedTemporaryFile() as named:
        named.write(data)
        named.seek(0)
        for content in (file, raw, named, io.BytesIO(data)):
            result = encode_content(content)
            assert result.fields == ((b"content-length", b"%d" % size),)
            parts = sync_pieces(result)
            assert parts.replayable
            for _ in range(2):
                pieces = list(parts)
                assert b"".join(pieces) == data
                assert all(0 < len(piece) <= FILE_PIECE for piece in pieces)


def test_a_file_is_sent_from_where_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    with path.open("rb") as file:
        file.read(4)
        result = encode_content(file)
        assert sent_length(result) == 6
        assert [b"".join(sync_pieces(result)) for _ in range(2)] == [b"456789"] * 2
        file.seek(20)
        assert (sent_length(encode_content(file)), list(sync_pieces(encode_content(file)))) == (0, [])


def test_what_is_appended_meanwhile_stays_out(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    with path.open("rb") as file, path.open("ab") as more:
        result = encode_content(file)
        more.write(b"more")
        more.flush()
        assert b"".join(sync_pieces(result)) == b"0123456789"


def test_a_file_that_became_shorter_ends(tmp_path: Path) -> None:
    """Then fewer bytes come than its length said, which the connection refuses."""
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    with path.open("rb") as file:
        result = encode_content(file)
        os.truncate(path, 5)
        assert (sent_length(result), b"".join(sync_pieces(result))) == (10, b"01234")


def test_a_compressed_file_has_the_length_of_what_is_read(tmp_path: Path) -> None:
    path = tmp_path / "file.gz"
    path.write_bytes(gzip.compress(bytes(1000)))
    with gzip.open(path) as file:
        result = encode_content(file)
        assert (sent_length(result), b"".join(sync_pieces(result))) == (1000, bytes(1000))


def test_a_pipe_has_no_length_and_is_sent_once() -> None:
    reading, writing = os.pipe()
    with open(reading, "rb") as file, open(writing, "wb") as pipe:
        pipe.write(b"through a pipe")
        pipe.close()
        result = encode_content(file)
        assert result.fields == ()
        parts = sync_pieces(result)
        assert not parts.replayable
        assert b"".join(parts) == b"through a pipe"
        with pytest.raises(StreamConsumed):
            list(parts)


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="only Linux has such files")
def test_a_file_whose_end_says_nothing_has_no_length() -> None:
    """The size of a file in /proc is 0, and so is that of a device, and yet there is something to read."""
    with open("/proc/self/mounts", "rb") as file, open("/dev/zero", "rb") as device:
        content = file.read()
        file.seek(0)
        result = encode_content(file)
        assert result.fields == ()
        assert b"".join(sync_pieces(result)) == content != b""
        zeros = encode_content(device)
        assert zeros.fields == ()
        assert next(iter(sync_pieces(zeros))) == bytes(FILE_PIECE)


class OnlyRead:
    """What can be read, and nothing else."""

    def __init__(self, data: bytes) -> None:
        self.left = data

    def read(self, size: int, /) -> bytes:
        data, self.left = self.left[: min(size, 3)], self.left[min(size, 3) :]
        return data


def test_what_can_only_be_read() -> None:
    result = encode_content(OnlyRead(b"12345678"))
    assert result.fields == ()
    assert list(sync_pieces(result)) == [b"123", b"456", b"78"]
    assert not sync_pieces(result).replayable


def test_a_file_of_text_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("text")
    with path.open() as file, tempfile.NamedTemporaryFile("w+") as named:
        for text in (file, io.StringIO("text")):
            with pytest.raises(TypeError, match="opened as text: open it with mode 'rb'"):
                encode_content(text)  # type: ignore[arg-type]  # what the test is about
        named.write("text")
        named.seek(0)
        with pytest.raises(TypeError, match="of type str"):
            list(sync_pieces(encode_content(named)))


# Parameters


def test_parameters() -> None:
    assert (
        encode_params({"a": "1 & 2", "b": [True, None, 2.5], "c": (), "é": "~"}) == "a=1+%26+2&b=true&b=&b=2.5&%C3%A9=~"
    )
    assert encode_params([("a", 1), ("b", False), ("a", 2)]) == "a=1&a=2&b=false"
    assert encode_params("a=1&b&c=%20+é") == encode_params(b"a=1&b=&c=++%C3%A9") == "a=1&b=&c=++%C3%A9"
    assert encode_params(None) == encode_params({}) == encode_params("") == ""


def test_merged_parameters() -> None:
    """As those of a client with those of a request."""
    assert merge_params({"a": [1, 2], "b": 3}, {"a": 4, "c": 5}) == "a=4&b=3&c=5"
    assert merge_params({"a": 1, "b": 2}, {"a": []}) == "b=2"
    assert merge_params("a=1", None) == merge_params(None, "a=1") == "a=1"
    assert merge_params(None, None) == ""


def judge(params: Params) -> httpx.QueryParams:
    return httpx.QueryParams(params if isinstance(params, str | bytes | Mapping) else list(params))


@given(PARAMS)
def test_parameters_as_httpx_writes_them(params: Params) -> None:
    expected = str(judge(params))
    assert encode_params(params) == expected
    assert httpx.URL("http://localhost/", params=judge(params)).query.decode() == expected


@given(PARAMS, PARAMS)
def test_parameters_are_merged_as_httpx_does(params: Params, others: Params) -> None:
    assert merge_params(params, others) == str(judge(params).merge(judge(others)))


@pytest.mark.parametrize("params", [5, {1}, iter([("a", 1)])])
def test_what_are_no_parameters(params: Params) -> None:
    with pytest.raises(TypeError, match=r"parameters are of type \w+: give a mapping, a list of pairs, or a query"):
        encode_params(params)


def test_a_query_in_bytes_is_ascii() -> None:
    with pytest.raises(ValueError, match="ascii"):
        encode_params("é".encode())
