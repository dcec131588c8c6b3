"""Responses of HTTP/1.1: calamint against `h11` and against llhttp."""

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calamint.core.value import Fields
from tests.differential.differences import Difference, explain
from tests.differential.http1_messages import messages
from tests.differential.http1_readers import UNTIL_CLOSE, Reading, read_calamint, read_h11, read_llhttp


class Case(NamedTuple):
    """A response and what two readers made of it."""

    data: bytes
    ours: Reading
    theirs: Reading
    method: str = "GET"

    def has(self, pattern: bytes) -> bool:
        """Whether this stands in the response; a line begins and ends at CRLF or LF."""
        return re.search(pattern, self.data, re.IGNORECASE | re.MULTILINE) is not None

    def we_refuse(self, words: str) -> bool:
        """We do not take it, they do."""
        return not self.ours.complete and self.theirs.complete and words in self.ours.why

    def they_refuse(self, *words: str) -> bool:
        """They do not take it, we do."""
        return self.ours.complete and not self.theirs.complete and any([part in self.theirs.why for part in words])

    def odd_codings(self) -> bool:
        """Whether its transfer codings are no list of tokens in which `chunked` stands once at most and without parameters."""
        values = re.findall(rb"^transfer-encoding:([^\r\n]*)", self.data, re.IGNORECASE | re.MULTILINE)
        codings = [coding.strip(b" \t") for coding in b",".join(values).lower().split(b",")]
        codings = [coding for coding in codings if coding]
        bad = [re.fullmatch(rb"[!#$%&'*+.^_`|~0-9a-z-]+([ \t]*;[^\"]*)?", coding) is None for coding in codings]
        many = [coding for coding in codings if coding.partition(b";")[0].strip(b" \t") == b"chunked"]
        return any(bad) or len(many) > 1 or any([b";" in coding for coding in many]) or not codings


RESPONSE: Final = b"HTTP/1.1 200 OK\r\n"
CHUNKED: Final = RESPONSE + b"Transfer-Encoding: chunked\r\n\r\n"
SIZED: Final = b"Content-Length: 5\r\n\r\nhello"
CODING: Final = rb"^transfer-encoding:"

SHARED: Final[tuple[Difference[Case], ...]] = (
    Difference(
        "a version other than HTTP/1.x",
        "RFC 9112 §2.3: HTTP-version is HTTP/1.x here; a higher major version has another syntax",
        lambda case: case.we_refuse("not with HTTP/1.") and case.has(rb"^HTTP/[02-9]\."),
        b"HTTP/2.0 200 OK\r\n" + SIZED,
    ),
    Difference(
        "control characters in a reason phrase",
        "RFC 9112 §4: reason-phrase is of HTAB, SP, VCHAR and obs-text",
        lambda case: (
            case.we_refuse("the status line")
            and case.has(rb"^HTTP/1\.\d \d{3} [^\n]*([\0-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n))")
        ),
        b"HTTP/1.1 200 a\x01b\r\n" + SIZED,
    ),
    Difference(
        "transfer-encoding in an HTTP/1.0 response",
        "RFC 9112 §6.1: must be treated as if the framing is faulty",
        lambda case: case.we_refuse("in an HTTP/1.0 response") and case.has(CODING) and case.has(rb"^HTTP/1\.0 "),
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    Difference(
        "more than sixteen digits of a chunk size",
        "RFC 9112 §7.1: recipients must anticipate large numerals; ours has a limit, which zeros count for",
        lambda case: case.we_refuse("the chunk-size line") and case.has(rb"^[0-9a-f]{17,}"),
        CHUNKED + b"00000000000000005\r\nhello\r\n0\r\n\r\n",
    ),
    Difference(
        "malformed chunk extensions",
        "RFC 9112 §7.1.1: chunk-ext is *( BWS ; BWS name [ BWS = BWS value ] )",
        lambda case: case.we_refuse("the chunk-size line") and case.has(rb"^[0-9a-f]+[ \t;]"),
        CHUNKED + b"5;a=\r\nhello\r\n0\r\n\r\n",
    ),
    Difference(
        "framing fields in trailers",
        "RFC 9110 §6.5.1: they are not merged into the header section, and frame nothing; whoever reads them decides",
        lambda case: (
            case.they_refuse("Content-Length", "Transfer-Encoding")
            and not {b"content-length", b"transfer-encoding"}.isdisjoint([name for name, _ in case.ours.trailers])
        ),
        CHUNKED + b"0\r\nContent-Length: x\r\n\r\n",
    ),
)

TUNNEL: Final = Difference[Case](
    "framing fields in a 2xx to CONNECT",
    "RFC 9110 §9.3.6: a client must ignore them; h11 reads them, refuses them, and collapses them",
    lambda case: (
        case.method == "CONNECT"
        and case.ours.complete
        and 200 <= case.ours.heads[-1][0] < 300
        and not {b"content-length", b"transfer-encoding"}.isdisjoint([name for name, _ in case.ours.heads[-1][1]])
    ),
    RESPONSE + b"Content-Length: 5, 5\r\n\r\n",
)
H11: Final[tuple[Difference[Case], ...]] = (
    TUNNEL,
    *SHARED,
    Difference(
        "transfer-encoding together with content-length",
        "RFC 9112 §6.3: it ought to be handled as an error, an attempt at splitting responses",
        lambda case: case.we_refuse("together with") and case.has(CODING) and case.has(rb"^content-length:"),
        RESPONSE + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    Difference(
        "codings other than one chunked",
        "RFC 9112 §6.1, §6.3: read in chunks or until the end; h11 knows `chunked` only",
        lambda case: case.they_refuse("Only Transfer-Encoding", "multiple Transfer-Encoding") and case.has(CODING),
        RESPONSE + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    ),
    Difference(
        "a folded line after a field that frames",
        "RFC 9112 §5.2: it may be refused in general, and here it could hide where the content ends",
        lambda case: case.we_refuse("a folded line after") and case.has(rb"\n[ \t]"),
        RESPONSE + b"Content-Length: 5\r\n \r\n\r\nhello",
    ),
    Difference(
        "a bare LF",
        "RFC 9112 §2.2: a recipient may take it as the end of a line; we do not",
        lambda case: not case.ours.complete and case.theirs.complete and case.has(rb"(?<!\r)\n"),
        RESPONSE + b"Server: a\nContent-Length: 5\r\n\r\nhello",
    ),
    Difference(
        "VT and FF in a value",
        "RFC 9110 §5.5: recipients may retain other control characters than CR, LF and NUL",
        lambda case: case.they_refuse("illegal header line") and case.has(rb"[\x0b\x0c]"),
        RESPONSE + b"X-Tab: \x0b\r\n" + SIZED,
    ),
    Difference(
        "white space before a chunk extension",
        "RFC 9112 §7.1.1: it is BWS, which must be taken",
        lambda case: case.they_refuse("illegal chunk header") and case.has(rb"^[0-9a-f]+[ \t]+;"),
        CHUNKED + b"5 ;a\r\nhello\r\n0\r\n\r\n",
    ),
    Difference(
        "twenty digits of a content-length",
        "RFC 9110 §8.6: recipients must anticipate large numerals; our limit is nineteen",
        lambda case: case.we_refuse("is not one number") and case.has(rb"^content-length:.*\d{20}"),
        RESPONSE + b"Content-Length: 00000000000000000005\r\n\r\nhello",
    ),
)

LLHTTP: Final[tuple[Difference[Case], ...]] = (
    *SHARED,
    Difference(
        "transfer codings that are no list with one chunked",
        "RFC 9112 §6.1: chunked must not be applied twice and has no parameters; llhttp looks at the end of each line",
        lambda case: case.we_refuse("is no list of codings") and case.odd_codings(),
        RESPONSE + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    ),
    Difference(
        "an empty element after chunked",
        "RFC 9110 §5.6.1.2: it must be ignored; llhttp reads such a response until the end of the connection",
        lambda case: case.theirs.taken == UNTIL_CLOSE and case.has(CODING + rb".*chunked[ \t]*,[ \t,]*\r"),
        RESPONSE + b"Transfer-Encoding: chunked,\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ),
    Difference(
        "an empty transfer-encoding beside another",
        "RFC 9110 §5.6.1.2: empty elements of a list must be ignored",
        lambda case: case.they_refuse("Empty Transfer-Encoding") and case.has(CODING + rb"[ \t]*\r"),
        RESPONSE + b"Transfer-Encoding: \r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    Difference(
        "folded lines",
        "RFC 9112 §5.2: a user agent must replace them with spaces",
        lambda case: (
            case.they_refuse("Unexpected whitespace after header value", "Invalid header value char")
            and case.has(rb"\r\n[ \t]")
        ),
        RESPONSE + b"X-Folded: a\r\n b\r\n" + SIZED,
    ),
    Difference(
        "a content-length said more than once",
        "RFC 9112 §6.3: if all values are the same the recipient may use it",
        lambda case: (
            case.they_refuse("Duplicate Content-Length", "Invalid character in Content-Length")
            and (case.has(rb"^content-length:.*,") or case.has(rb"^content-length:(.|\r\n)*^content-length:"))
        ),
        RESPONSE + b"Content-Length: 5, 5\r\n\r\nhello",
    ),
    Difference(
        "control characters in a value",
        "RFC 9110 §5.5: recipients may retain other control characters than CR, LF and NUL",
        lambda case: case.they_refuse("Invalid header value char") and case.has(rb"[\x01-\x08\x0b\x0c\x0e-\x1f\x7f]"),
        RESPONSE + b"X-Control: a\x01b\r\n" + SIZED,
    ),
    Difference(
        "white space in chunk extensions",
        "RFC 9112 §7.1.1: it is BWS, which must be taken",
        lambda case: (
            case.they_refuse("in chunk extensions", "in chunk size", "after chunk size")
            and case.has(rb"^[0-9a-f]+[^\r\n]*[ \t]")
        ),
        CHUNKED + b"5; a=b\r\nhello\r\n0\r\n\r\n",
    ),
    Difference(
        "an interim response that closes",
        "RFC 9110 §15.2: the final response follows it all the same",
        lambda case: case.they_refuse("Data after `Connection: close`") and len(case.ours.heads) > 1,
        b"HTTP/1.0 100 Continue\r\n\r\n" + RESPONSE + SIZED,
    ),
    Difference(
        "empty lines before the status line",
        "RFC 9112 §2.2: a server should pass over them before a request; for a client nothing of the kind is said",
        lambda case: case.we_refuse("the response begins with") and case.has(rb"(\A|\n)\r*\n|\A\r"),
        b"\r\n" + RESPONSE + SIZED,
    ),
    Difference(
        "a status code below 100",
        "RFC 9110 §15: invalid; a client should treat it as a 5xx. We refuse it, llhttp takes it for an interim one",
        lambda case: case.we_refuse("the status line") and case.has(rb"^HTTP/1\.\d 0\d\d"),
        b"HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n" + RESPONSE + SIZED,
    ),
    Difference(
        "more than nineteen digits of a content-length",
        "RFC 9110 §8.6: recipients must anticipate large numerals; our limit is nineteen",
        lambda case: case.we_refuse("is not one number") and case.has(rb"^content-length:.*\d{20}"),
        RESPONSE + b"Content-Length: 000000000000000000000005\r\n\r\nhello",
    ),
)


def canonical(reading: Reading, data: bytes) -> Reading:
    """A reading without what may be said in two ways: the spaces of a fold (RFC 9112 §5.2), the case of a coding (§7)."""
    folded = re.search(rb"\n[ \t]", data) is not None

    def plain(fields: Fields) -> Fields:
        lowered = [(name, value.lower() if name == b"transfer-encoding" else value) for name, value in fields]
        return tuple([(name, re.sub(rb"[ \t]+", b" ", value) if folded else value) for name, value in lowered])

    heads = tuple([(status, plain(fields)) for status, fields in reading.heads])
    return reading._replace(heads=heads, trailers=plain(reading.trailers), why="")


def differ(case: Case) -> bool:
    """Whether they disagree: about whether the response is complete, and if it is about what it says and where it ends."""
    ours, theirs = case.ours, case.theirs
    if not ours.complete and not theirs.complete:
        return False
    return canonical(ours, case.data) != canonical(theirs, case.data)


def compare_h11(data: bytes, method: str) -> Case:
    return Case(data, read_calamint(data, method), read_h11(data, method), method)


def compare_llhttp(data: bytes) -> Case:
    """llhttp does not know the end of the connection: what is cut short there it does not call complete or wrong."""
    case = Case(data, read_calamint(data, "GET"), read_llhttp(data))
    if case.theirs.taken == UNTIL_CLOSE and "the peer closed the connection" in case.ours.why:
        return case._replace(theirs=case.theirs._replace(complete=False))
    return case


def check_h11(data: bytes, method: str) -> None:
    case = compare_h11(data, method)
    if differ(case):
        explain(case, H11)


def check_llhttp(data: bytes) -> None:
    case = compare_llhttp(data)
    if differ(case):
        explain(case, LLHTTP)


METHODS: Final = ("GET", "GET", "HEAD", "POST", "CONNECT")


@given(data=messages(), method=st.sampled_from(METHODS))
@settings(max_examples=500, deadline=None)
def test_h11_reads_the_same(data: bytes, method: str) -> None:
    check_h11(data, method)


@given(data=messages())
@settings(max_examples=500, deadline=None)
def test_llhttp_reads_the_same(data: bytes) -> None:
    check_llhttp(data)


@pytest.mark.slow
@pytest.mark.timeout(300)
@given(data=messages(), method=st.sampled_from(METHODS))
@settings(max_examples=1500, deadline=None)
def test_both_read_the_same_for_longer(data: bytes, method: str) -> None:
    check_h11(data, method)
    check_llhttp(data)


@pytest.mark.parametrize("difference", H11, ids=lambda difference: difference.name)
def test_every_difference_from_h11_exists(difference: Difference[Case]) -> None:
    check_example(compare_h11(difference.example, "CONNECT" if difference is TUNNEL else "GET"), difference, H11)


@pytest.mark.parametrize("difference", LLHTTP, ids=lambda difference: difference.name)
def test_every_difference_from_llhttp_exists(difference: Difference[Case]) -> None:
    check_example(compare_llhttp(difference.example), difference, LLHTTP)


def check_example(case: Case, difference: Difference[Case], known: Sequence[Difference[Case]]) -> None:
    assert differ(case), case
    assert explain(case, known) == difference.name
    assert re.search(r"RFC \d{4} §\d", difference.why)
