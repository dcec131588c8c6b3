"""Exceptions, failures and error codes: RFC 9113 §7 and §5.4."""

import copy
import pickle
from typing import Final

import pytest
from h2.errors import ErrorCodes

import calamint
import calamint.core.value
from calamint.core import errors
from calamint.core.errors import (
    EXCEPTIONS,
    CalamintError,
    ConnectionFault,
    Failure,
    StreamFault,
    TransportError,
    error_name,
    to_exception,
)
from calamint.core.pool_state import PoolSnapshot

COMPILED: Final = not (calamint.core.value.__file__ or "").endswith(".py")

# Every public exception and the one above it.
TREE: Final[dict[type[Exception], type[Exception]]] = {
    errors.CalamintError: Exception,
    errors.LocalProtocolError: errors.CalamintError,
    errors.AtCapacity: errors.LocalProtocolError,
    errors.InvalidURL: errors.CalamintError,
    errors.UnsupportedProtocol: errors.CalamintError,
    errors.StreamError: errors.CalamintError,
    errors.StreamClosed: errors.StreamError,
    errors.StreamConsumed: errors.StreamError,
    errors.ResponseNotRead: errors.StreamError,
    errors.TooManyRedirects: errors.CalamintError,
    errors.DecodingError: errors.CalamintError,
    errors.TransportError: errors.CalamintError,
    errors.TimeoutException: errors.TransportError,
    errors.ConnectTimeout: errors.TimeoutException,
    errors.ReadTimeout: errors.TimeoutException,
    errors.WriteTimeout: errors.TimeoutException,
    errors.PoolTimeout: errors.TimeoutException,
    errors.DeadlineExceeded: errors.TimeoutException,
    errors.NetworkError: errors.TransportError,
    errors.ConnectError: errors.NetworkError,
    errors.ReadError: errors.NetworkError,
    errors.WriteError: errors.NetworkError,
    errors.CloseError: errors.NetworkError,
    errors.RemoteProtocolError: errors.TransportError,
    errors.StreamReset: errors.RemoteProtocolError,
    errors.ConnectionTerminated: errors.RemoteProtocolError,
    errors.ProxyError: errors.TransportError,
}
TRANSPORT: Final = [kind for kind in TREE if issubclass(kind, TransportError)]
SIMPLE: Final = [kind for kind in TREE if not issubclass(kind, TransportError)]


def test_codes_have_the_numbers_and_names_of_the_rfc() -> None:
    """RFC 9113 §7, as h2 has it."""
    for code in ErrorCodes:
        assert getattr(errors, code.name) == code.value
        assert error_name(code.value) == code.name
    assert len(errors.ERROR_NAMES) == len(ErrorCodes)


def test_unknown_codes_are_shown_in_hex() -> None:
    """RFC 9113 §7: "Unknown or unsupported error codes MUST NOT trigger any special behavior"."""
    assert error_name(0xD) == "HTTP_1_1_REQUIRED"
    assert error_name(0xE) == "error code 0xe"
    assert error_name(2**32 - 1) == "error code 0xffffffff"


def test_no_code_has_no_name() -> None:
    """Failure: "`code` the HTTP/2 error code or -1"."""
    assert error_name(-1) not in errors.ERROR_NAMES


def test_tree() -> None:
    for kind, parent in TREE.items():
        assert kind.__bases__ == (parent,)
        assert kind.__doc__ or COMPILED  # mypyc drops docstrings
    public = {item for item in vars(errors).values() if isinstance(item, type) and issubclass(item, CalamintError)}
    assert public == set(TREE)


def test_faults_are_private() -> None:
    """RFC 9113 §5.4: connection error and stream error; a caller who catches CalamintError never sees one."""
    for kind in (ConnectionFault, StreamFault):
        assert kind.__bases__ == (Exception,)
    fatal = ConnectionFault(errors.PROTOCOL_ERROR, "bad")
    assert (fatal.code, fatal.reason, fatal.args) == (1, "bad", (1, "bad"))
    fault = StreamFault(5, errors.CANCEL, "bad")
    assert (fault.ref, fault.code, fault.reason, fault.args) == (5, 8, "bad", (5, 8, "bad"))


@pytest.mark.parametrize("kind", SIMPLE)
def test_simple_exceptions_carry_a_message_and_pickle(kind: type[Exception]) -> None:
    error = kind("what was seen, what was allowed")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert str(again) == str(error) == "what was seen, what was allowed"


@pytest.mark.parametrize("kind", [errors.TooManyRedirects, errors.DecodingError])
def test_errors_of_a_client_keep_their_request(kind: type[errors.TooManyRedirects | errors.DecodingError]) -> None:
    error = kind("too much")
    assert error.request is None
    error.request = calamint.Request("GET", "http://a.test/")
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert (type(again), str(again)) == (kind, "too much")
        assert again.request is not None and (again.request.method, str(again.request.url)) == ("GET", "http://a.test/")


@pytest.mark.parametrize("kind", TRANSPORT)
def test_transport_errors_keep_what_they_know_when_pickled(kind: type[TransportError]) -> None:
    error = kind("gone", True, 7, errors.CANCEL)
    error.attempts = 3
    error.last_stream_id = 5
    error.snapshot = PoolSnapshot((), (), (("https://a.test", 2.0),))
    error.request = calamint.Request("GET", "http://a.test/")
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(again) is kind
        assert str(again) == again.message == "gone"
        assert again.args == error.args
        assert (again.unprocessed, again.ref, again.code, again.attempts) == (True, 7, errors.CANCEL, 3)
        assert (again.last_stream_id, again.snapshot) == (5, error.snapshot)
        assert again.request is not None and (again.request.method, str(again.request.url)) == ("GET", "http://a.test/")


def test_transport_errors_begin_with_nothing_claimed() -> None:
    error = TransportError("gone")
    assert str(error) == "gone"
    assert (error.unprocessed, error.ref, error.code, error.attempts) == (False, None, None, 1)
    assert (error.last_stream_id, error.snapshot) == (-1, None)


@pytest.mark.parametrize("name", EXCEPTIONS)
def test_a_failure_becomes_the_exception_that_it_names(name: str) -> None:
    error = to_exception(Failure(name, errors.REFUSED_STREAM, "refused", 9, True, 7))
    assert type(error) is getattr(errors, name)
    assert isinstance(error, TransportError)
    assert str(error) == "refused"
    assert (error.code, error.ref, error.unprocessed, error.last_stream_id) == (7, 9, True, 7)


def test_a_proxys_answer_is_kept() -> None:
    fields = ((b"proxy-authenticate", b"Basic"),)
    error = to_exception(Failure("ProxyError", -1, "refused", 0, True, -1, "", 407, fields))
    assert isinstance(error, errors.ProxyError)
    error.attempts = 2
    for again in (error, pickle.loads(pickle.dumps(error)), copy.deepcopy(error)):
        assert (again.status, again.fields, again.unprocessed, again.attempts) == (407, fields, True, 2)


def test_a_proxy_that_did_not_answer_has_no_status() -> None:
    for error in (errors.ProxyError("gone"), to_exception(Failure("ProxyError", -1, "gone"))):
        assert isinstance(error, errors.ProxyError)
        assert (error.status, error.fields) == (None, ())


def test_no_code_and_no_request_become_none() -> None:
    error = to_exception(Failure("ReadError", -1, "gone"))
    assert isinstance(error, TransportError)
    assert (error.code, error.ref, error.unprocessed, error.last_stream_id) == (None, None, False, -1)
    error = to_exception(Failure("StreamReset", errors.NO_ERROR, "reset", 1))
    assert isinstance(error, TransportError)
    assert (error.code, error.ref) == (0, 1)


def test_what_this_side_ended_is_no_transport_error() -> None:
    mistake = to_exception(Failure("LocalProtocolError", -1, "HTTP/1.1 has no extended CONNECT"))
    assert type(mistake) is errors.LocalProtocolError and str(mistake) == "HTTP/1.1 has no extended CONNECT"
    error = to_exception(Failure("StreamClosed", -1, "cancelled by its caller", 3))
    assert type(error) is errors.StreamClosed
    assert str(error) == "cancelled by its caller"


def test_each_exception_is_fresh() -> None:
    """One failure may be raised in several threads: no traceback may be shared."""
    for kind in ("StreamClosed", "ReadError"):
        failure = Failure(kind, -1, "gone")
        assert to_exception(failure) is not to_exception(failure)


def test_an_unknown_kind_is_our_own_mistake() -> None:
    with pytest.raises(KeyError, match="Unheard"):
        to_exception(Failure("Unheard", -1, "gone"))
