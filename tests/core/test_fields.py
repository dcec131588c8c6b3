"""Field names and values: RFC 9110 §5 and §8.6, RFC 9113 §8.2 and §8.3."""

import string
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calamint.core import fields
from calamint.core.errors import LocalProtocolError
from calamint.core.fields import (
    BAD_LENGTH,
    Head,
    check_fields,
    check_method,
    check_target,
    find_length,
    for_http2,
    parse_length,
    read_head,
)
from calamint.core.value import Fields

TCHAR: Final = set(("!#$%&'*+-.^_`|~" + string.digits + string.ascii_letters).encode())  # RFC 9110 §5.6.2
STATUS: Final = (b":status", b"200")
BYTES: Final = [bytes((number,)) for number in range(256)]


def refused(section: Fields) -> str:
    """The fault of a section that is malformed; nothing of it is handed on, unless only its length is bad."""
    head = read_head(section)
    assert (head.status, head.fields, head.length) == (0, (), -1) or head.length == BAD_LENGTH
    assert head.fault.startswith("content-length") == (head.length == BAD_LENGTH)
    assert head.fault
    return head.fault


@pytest.mark.fault("G14")
@pytest.mark.rfc("9110-9.1-1", "9110-5.6.2-1", "9112-3.1-1")
def test_method_is_a_token() -> None:
    """RFC 9110 §9.1: "method = token"."""
    for number in range(0x180):
        for method in (chr(number), f"G{chr(number)}T"):
            if number in TCHAR:
                check_method(method)
            else:
                with pytest.raises(LocalProtocolError, match="is not a token") as caught:
                    check_method(method)
                assert repr(method) in str(caught.value)
    with pytest.raises(LocalProtocolError, match="method '' is not a token"):
        check_method("")
    with pytest.raises(LocalProtocolError, match="not a token"):
        check_method("GET\n")


@pytest.mark.fault("G14")
@pytest.mark.rfc("9112-3.2-1")
def test_target_is_printable_ascii_without_space_or_fragment() -> None:
    """RFC 9112 §3.2: "No whitespace is allowed in the request-target"."""
    for number in range(0x180):
        target = f"/a{chr(number)}b"
        if 0x20 < number < 0x7F and number != ord("#"):
            check_target("GET", target)
        else:
            with pytest.raises(LocalProtocolError, match="must be printable ASCII without spaces or '#'") as caught:
                check_target("GET", target)
            assert repr(target) in str(caught.value)
    with pytest.raises(LocalProtocolError, match="target ''"):
        check_target("GET", "")


def test_target_is_a_path_or_an_asterisk_for_options() -> None:
    """RFC 9112 §3.2.1, §3.2.4; RFC 9113 §8.3.1: ":path" is not empty and begins with "/", or is "*" for OPTIONS."""
    for method, target in (("GET", "/"), ("OPTIONS", "/"), ("OPTIONS", "*"), ("GET", "/*"), ("GET", "//a?b")):
        check_target(method, target)
    wrong = ["a", "*a", "?a", "example.org:443", "http://a/b", ":path"]
    for method, target in [("GET", "*"), ("options", "*"), *[("GET", target) for target in wrong], ("OPTIONS", "**")]:
        with pytest.raises(
            LocalProtocolError, match="must be a path that begins with '/', or '\\*' for OPTIONS"
        ) as caught:
            check_target(method, target)
        assert repr(target) in str(caught.value)


def test_target_is_an_http_url_where_that_is_asked_for() -> None:
    """RFC 9112 §3.2.2: "the absolute-form", which has a path, but for OPTIONS of a server as a whole (§3.2.4)."""
    good = [("GET", "http://a.test/"), ("PUT", "http://[::1]:8080/x?y"), ("OPTIONS", "http://a.test:80"), ("GET", "/")]
    bad = [
        ("GET", target) for target in ("http://a.test", "http://a.test?x", "http://u:p@a.test/", "http:///", "a.test/")
    ]
    bad += [("GET", "https://a.test/"), ("GET", "http://a.test:123456/"), ("options", "http://a.test"), ("GET", "*")]
    for method, target in good:
        check_target(method, target, True)
    for method, target in bad:
        with pytest.raises(LocalProtocolError, match="must be a path"):
            check_target(method, target, True)
    for target in ("http://a.test/ x", "http://a.test/#", "http://a.test/\r\nX: y"):
        with pytest.raises(LocalProtocolError, match="must be printable ASCII"):
            check_target("GET", target, True)


@pytest.mark.fault("G14")
@pytest.mark.rfc("9110-5.1-1", "9110-5.6.2-1", "9113-8.2.1-6")
def test_field_name_is_a_token() -> None:
    """RFC 9110 §5.1: "field-name = token"."""
    for byte in BYTES:
        for name in (byte, b"x" + byte + b"y"):
            if byte[0] in TCHAR:
                check_fields(((name, b""),))
            else:
                with pytest.raises(LocalProtocolError, match="is not a token") as caught:
                    check_fields(((b"a", b"b"), (name, b"")))
                assert repr(name) in str(caught.value)
    with pytest.raises(LocalProtocolError, match="name b'' is not a token"):
        check_fields(((b"", b"x"),))


@pytest.mark.fault("G14")
@pytest.mark.rfc("9112-2.2-2", "9112-5.2-1")
def test_field_value_has_no_cr_lf_or_nul() -> None:
    """RFC 9110 §5.5: "Field values containing CR, LF, or NUL characters are invalid and dangerous"."""
    for bad in (b"\r", b"\n", b"\0"):
        for value in (bad, b"a" + bad, bad + b"a", b"a" + bad + b"b"):
            with pytest.raises(LocalProtocolError, match="the value of b'x' has a CR, LF or NUL"):
                check_fields(((b"x", value),))


@pytest.mark.rfc("9110-5.5-4")
def test_field_value_has_no_other_control_characters() -> None:
    """RFC 9110 §5.5: "other CTL characters are also invalid"; §2.2: a sender MUST NOT generate what breaks the grammar."""
    controls = [byte for byte in BYTES if byte < b" " or byte == b"\x7f"]
    taken: list[bytes] = []
    for byte in controls:
        if byte != b"\t":
            try:
                check_fields(((b"x", b"a" + byte + b"b"),))
            except LocalProtocolError:
                continue
            taken.append(byte)
    assert taken == []


def test_field_value_may_have_everything_else_inside() -> None:
    """RFC 9110 §5.5: VCHAR, obs-text, and SP or HTAB between them."""
    for byte in BYTES:
        if byte in (b"\t", b" ") or 0x20 < byte[0] < 0x7F or byte[0] >= 0x80:
            check_fields(((b"x", b"a" + byte + b"b"),))
    check_fields(((b"x", b""),))
    check_fields(())


def test_field_value_has_no_white_space_at_its_ends() -> None:
    """RFC 9110 §5.5: "Field values are … without leading or trailing whitespace"."""
    for value in (b" a", b"a ", b"\ta", b"a\t", b" ", b"\t"):
        with pytest.raises(LocalProtocolError, match="the value of b'x' begins or ends with white space"):
            check_fields(((b"x", value),))


def test_a_message_never_shows_a_value() -> None:
    """It may be a secret."""
    for value in (b"hunter2\r", b" hunter2"):
        with pytest.raises(LocalProtocolError) as caught:
            check_fields(((b"authorization", value),))
        assert "hunter2" not in str(caught.value)


@pytest.mark.rfc("9110-8.6-5", "9110-8.6-3")
def test_content_length_is_digits_only() -> None:
    """RFC 9110 §8.6: "Content-Length = 1*DIGIT"."""
    assert parse_length(b"0") == 0
    assert parse_length(b"007") == 7
    assert parse_length(b"9" * 19) == 10**19 - 1
    for value in (
        b"",
        b"9" * 20,
        b"+1",
        b"-1",
        b" 1",
        b"1 ",
        b"1_0",
        b"0x1",
        b"1.0",
        b"1,1",
        b"1, 1",
        "٣".encode(),
        b"\xb2",
    ):
        assert parse_length(value) == -1


def test_a_callers_content_length() -> None:
    assert find_length(()) == -1
    assert find_length(((b"a", b"b"),)) == -1
    assert find_length(((b"a", b"b"), (b"Content-Length", b"12"))) == 12
    assert find_length(((b"content-length", b"0"), (b"CONTENT-LENGTH", b"0"))) == 0
    assert find_length(((b"content-length", b"12"), (b"content-length", b"012"))) == 12
    for values in ((b"x",), (b"",), (b"12", b"13"), (b"0", b"1"), (b"12", b"x")):
        section = tuple([(b"content-length", value) for value in values])
        with pytest.raises(LocalProtocolError, match="is not one number") as caught:
            find_length(section)
        assert repr(values[-1]) in str(caught.value)


@pytest.mark.rfc("9113-8.2-1")
def test_names_are_lowered_for_http2() -> None:
    """RFC 9113 §8.2: "Field names MUST be converted to lowercase when constructing an HTTP/2 message"."""
    given_fields = ((b"X-One", b"A"), (b"accept", b"B"), (b"X-ONE", b"C"))
    assert for_http2(given_fields, b"a") == (b"a", ((b"x-one", b"A"), (b"accept", b"B"), (b"x-one", b"C")))
    assert for_http2((), b"a") == (b"a", ())


@pytest.mark.rfc("9113-8.3.1-2")
def test_host_becomes_the_authority() -> None:
    """RFC 9113 §8.3.1: "Clients MUST NOT generate a request with a Host header field that differs"."""
    assert for_http2(((b"Host", b"other"), (b"a", b"b")), b"mine") == (b"other", ((b"a", b"b"),))
    assert for_http2(((b"host", b"other"), (b"HOST", b"other")), b"mine") == (b"other", ())
    assert for_http2(((b"host", b""),), b"mine") == (b"mine", ())
    with pytest.raises(LocalProtocolError, match="two host fields that differ: b'one' and b'two'"):
        for_http2(((b"host", b"one"), (b"host", b"two")), b"mine")


@pytest.mark.parametrize("host", [b"user:hunter2@a", b"user@a", b"a/b", b"a b", b"a?b", b"a,b c"])
@pytest.mark.rfc("9113-8.3.1-3", "9112-3.2-3")
def test_host_is_an_authority_without_userinfo(host: bytes) -> None:
    """RFC 9113 §8.3.1: ":authority" MUST NOT include userinfo; RFC 9110 §7.2: Host = uri-host [ ":" port ]."""
    with pytest.raises(LocalProtocolError) as caught:
        for_http2(((b"host", host),), b"mine")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "host", [b"a", b"a:80", b"127.0.0.1:1", b"[::1]", b"[::1]:8080", b"xn--bcher-kva.example", b"a_b~c"]
)
def test_host_of_every_kind(host: bytes) -> None:
    assert for_http2(((b"host", host),), b"mine") == (host, ())


@pytest.mark.parametrize("name", [b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"])
def test_connection_fields_do_not_cross_into_http2(name: bytes) -> None:
    """RFC 9113 §8.2.2: "An endpoint MUST NOT generate an HTTP/2 message containing connection-specific header fields"."""
    for written in (name, name.upper(), name.title()):
        with pytest.raises(LocalProtocolError, match="has no meaning in HTTP/2") as caught:
            for_http2(((written, b"x"),), b"a")
        assert repr(name) in str(caught.value)
    assert repr(name) in refused((STATUS, (name, b"x")))
    assert repr(name) in refused(((name, b"x"),))


def test_te_says_trailers_or_nothing() -> None:
    """RFC 9113 §8.2.2: "it MUST NOT contain any value other than 'trailers'"."""
    assert for_http2(((b"TE", b"trailers"),), b"a")[1] == ((b"te", b"trailers"),)
    assert for_http2(((b"te", b"Trailers"),), b"a")[1] == ((b"te", b"Trailers"),)
    for value in (b"", b"gzip", b"trailers, gzip", b"trailers;q=1"):
        with pytest.raises(LocalProtocolError, match="b'te' has no meaning in HTTP/2"):
            for_http2(((b"te", value),), b"a")


def test_what_is_not_valid_anywhere_is_not_valid_in_http2() -> None:
    for bad in ((b":path", b"/"), (b"", b"x"), (b"a b", b"x"), (b"a", b"x\r\nb: c"), (b"a", b" x")):
        with pytest.raises(LocalProtocolError):
            for_http2((bad,), b"a")


def test_read_a_response() -> None:
    section = (STATUS, (b"content-length", b"5"), (b"set-cookie", b"a"), (b"set-cookie", b"b"), (b"empty", b""))
    assert read_head(section) == Head(200, section[1:], 5)
    assert read_head((STATUS,)) == Head(200, (), -1)
    assert read_head(((b":status", b"103"), (b"link", b"x"))) == Head(103, ((b"link", b"x"),), -1)


def test_read_trailers() -> None:
    """RFC 9113 §8.1: "Trailers MUST NOT include pseudo-header fields"; so a section without :status is read as trailers."""
    assert read_head(((b"grpc-status", b"0"),)) == Head(0, ((b"grpc-status", b"0"),), -1)
    assert read_head(()) == Head(0, (), -1)


def test_status_is_three_digits_from_100() -> None:
    """RFC 9110 §15: "a three-digit integer code"; below 100 it would have no class."""
    for status in (100, 199, 200, 599, 600, 999):
        assert read_head(((b":status", b"%d" % status),)).status == status
    for value in (b"099", b"000", b"99", b"1000", b"", b"2 0", b"+20", b"-20", b" 200", b"20x", "20٣".encode(), b"2.0"):
        assert repr(value) in refused(((b":status", value),))
        assert "three digits from 100" in refused(((b":status", value),))


def test_pseudo_fields_stand_first_and_once() -> None:
    """RFC 9113 §8.3: "All pseudo-header fields MUST appear in a field block before all regular field lines"."""
    assert "b':status'" in refused(((b"a", b"b"), STATUS))
    assert "b':status'" in refused((STATUS, STATUS))
    assert "b':status'" in refused((STATUS, (b"a", b"b"), STATUS))


@pytest.mark.parametrize("name", [b":path", b":method", b":scheme", b":authority", b":protocol", b":other", b":"])
def test_a_response_has_no_other_pseudo_fields(name: bytes) -> None:
    """RFC 9113 §8.3: "Pseudo-header fields defined for requests MUST NOT appear in responses"."""
    assert repr(name) in refused((STATUS, (name, b"x")))
    assert repr(name) in refused(((name, b"x"), STATUS))
    assert repr(name) in refused(((name, b"x"),))


def test_names_in_a_response_are_tokens_in_lower_case() -> None:
    """RFC 9113 §8.2.1: "A field name MUST NOT contain characters in the ranges 0x00-0x20, 0x41-0x5a, or 0x7f-0xff"."""
    for byte in BYTES:
        for name in (byte, b"x" + byte, byte + b"x"):
            if byte[0] in TCHAR and byte == byte.lower():
                assert read_head((STATUS, (name, b"v"))) == Head(200, ((name, b"v"),), -1)
                assert read_head((STATUS, (name, b"v"))) == Head(200, ((name, b"v"),), -1)
            else:
                assert repr(name) in refused((STATUS, (name, b"v")))
                assert repr(name) in refused((STATUS, (name, b"v")))
    assert "b''" in refused((STATUS, (b"", b"v")))


VALUES: Final = st.lists(st.binary(max_size=3) | st.text("a \t\r\n\0é", max_size=3).map(str.encode), max_size=5)


@given(VALUES)
def test_values_in_a_response(values: list[bytes]) -> None:
    """RFC 9113 §8.2.1: no NUL, LF or CR at any position, no SP or HTAB at the ends."""
    section = tuple([(b"x%d" % number, value) for number, value in enumerate(values)])
    clean = all([not set(value) & {0, 10, 13} and value == value.strip(b" \t") for value in values])
    for start in ((STATUS,), ()):
        head = read_head((*start, *section))
        if clean:
            assert head == Head(200 if start else 0, section, -1)
        else:
            assert head == Head(0, (), -1, head.fault)
            assert "CR, LF, NUL, or white space at its ends" in head.fault


def test_a_bad_value_is_reported_under_its_name_and_never_shown() -> None:
    for value in (b"hunter2\r", b"hunter2\n", b"\0hunter2", b"hunter2 ", b"\thunter2"):
        fault = refused((STATUS, (b"a", b"b"), (b"set-cookie", value), (b"c", b"d")))
        assert "hunter2" not in fault
        assert "b'set-cookie'" in fault


def test_content_length_of_a_response_is_one_number() -> None:
    """RFC 9110 §8.6: identical duplicates may collapse; RFC 9113 §8.1.1: an invalid one is malformed."""
    twice = ((b"content-length", b"5"), (b"content-length", b"5"))
    assert read_head((STATUS, *twice)) == Head(200, twice, 5)
    for values in ((b"5", b"6"), (b"0", b"1"), (b"x",), (b"5, 5",), (b"",), (b"-1",), (b"9" * 20,)):
        fault = refused((STATUS, *[(b"content-length", value) for value in values]))
        assert repr(values[-1]) in fault
        assert "is not one number" in fault


def test_a_fault_is_short_whatever_the_peer_sent() -> None:
    """It goes into an exception's message, and from there into logs."""
    long = b"\xff" * 60_000
    for section in (
        (STATUS, (long, b"v")),
        ((b":status", long),),
        (STATUS, (b"content-length", long)),
        (STATUS, (b"n" * 60_000, b"\r")),
    ):
        assert len(refused(section)) < 500


def test_responses_that_have_no_content() -> None:
    """RFC 9110 §6.4.1: 204 and 304."""
    assert [status for status in (*range(100, 600), 999) if Head(status, (), -1).bare] == [204, 304]


def test_names_are_remembered_within_a_bound() -> None:
    for number in range(10_000):
        name = b"name-%d" % number
        assert read_head((STATUS, (name, b"v"))) == Head(200, ((name, b"v"),), -1)
        assert len(fields.good_names) <= fields.NAME_MEMO
    assert b"name-9999" in fields.good_names
    read_head((STATUS, (b"a" * 64, b"v"), (b"b" * 65, b"v")))
    assert b"a" * 64 in fields.good_names
    assert b"b" * 65 not in fields.good_names
    for bad in (b"Upper-Case", b"connection", b"a b"):
        assert refused((STATUS, (bad, b"v"))) == refused((STATUS, (bad, b"v")))
        assert bad not in fields.good_names


def test_a_response_does_not_switch_protocols() -> None:
    """RFC 9113 §8.6: HTTP/2 "removes support for the 101 (Switching Protocols) informational status code"."""
    assert "101" in refused(((b":status", b"101"),))
    assert read_head(((b":status", b"103"),)) == Head(103, (), -1)


@pytest.mark.parametrize(
    ("values", "seconds"),
    [
        ((), -1),
        ((b"timeout=5",), 5),
        ((b"max=100, Timeout=7",), 7),
        ((b"timeout=x", b"timeout=-1", b"timeout=123456789", b"timeout"), -1),
        ((b"timeout=5", b"timeout=9"), 9),
    ],
)
def test_how_long_an_idle_connection_is_kept(values: tuple[bytes, ...], seconds: int) -> None:
    given_fields = ((b"x", b"timeout=1"), *[(b"keep-alive", value) for value in values])
    assert fields.find_keepalive(given_fields) == seconds
