"""Events: what each one carries, and that the union names them all."""

import inspect
from typing import Final, get_args

import calamint.core.value
from calamint.core import events
from calamint.core.errors import Failure
from calamint.core.value import Fields, Value

COMPILED: Final = not (calamint.core.value.__file__ or "").endswith(".py")
FIELDS: Final[Fields] = ((b"a", b"b"),)
FAILURE: Final = Failure("ReadError", -1, "gone")


def test_what_they_carry() -> None:
    interim = events.InterimReceived(1, 103, FIELDS)
    assert (interim.ref, interim.status, interim.fields) == (1, 103, FIELDS)
    response = events.ResponseReceived(3, 200, FIELDS, b"OK")
    assert (response.ref, response.status, response.fields, response.reason) == (3, 200, FIELDS, b"OK")
    data = events.DataReceived(5, b"abc")
    assert (data.ref, data.data) == (5, b"abc")
    trailers = events.TrailersReceived(7, FIELDS)
    assert (trailers.ref, trailers.fields) == (7, FIELDS)
    assert events.ResponseEnded(9).ref == 9
    failed = events.RequestFailed(11, FAILURE)
    assert (failed.ref, failed.failure) == (11, FAILURE)
    assert events.WindowOpened(13).ref == 13
    pong = events.PingAcknowledged(b"12345678", 0.25)
    assert (pong.payload, pong.seconds) == (b"12345678", 0.25)
    assert events.SettingsReceived(((3, 100), (3, 50))).settings == ((3, 100), (3, 50))
    goaway = events.GoAwayReceived(15, 2, b"why")
    assert (goaway.last_stream_id, goaway.code, goaway.debug) == (15, 2, b"why")
    assert events.ConnectionClosed(FAILURE).failure == FAILURE
    assert events.ConnectionClosed(None).failure is None


def test_http2_has_no_reason_phrase() -> None:
    """RFC 9113 §8.3.2: "HTTP/2 does not define a way to carry the version or reason phrase"."""
    assert events.ResponseReceived(1, 200, ()).reason == b""


def test_pieces_of_one_content_are_joined() -> None:
    """Those that follow each other, and no others; everything else stays where it was."""
    a, b, c = [events.DataReceived(1, data) for data in (b"a", b"b", b"c")]
    other, end = events.DataReceived(3, b"x"), events.ResponseEnded(1)
    assert events.join_data([]) == []
    assert events.join_data([a, end]) == [a, end]
    assert events.join_data([a, b, other, c]) == [events.DataReceived(1, b"ab"), other, c]
    assert events.join_data([end, a, b, c]) == [end, events.DataReceived(1, b"abc")]
    assert events.join_data([a, b, end, other]) == [events.DataReceived(1, b"ab"), end, other]


def test_the_union_names_every_event() -> None:
    classes = [item for item in vars(events).values() if inspect.isclass(item) and issubclass(item, Value)]
    assert set(get_args(events.Event)) == set(classes) - {Value, Failure}


def test_names_are_in_the_past_tense_and_documented() -> None:
    for kind in get_args(events.Event):
        assert kind.__name__.endswith(
            ("Received", "Ended", "Failed", "Opened", "Acknowledged", "Closed", "Upgraded", "Promised")
        )
        assert kind.__doc__ or COMPILED  # mypyc drops docstrings
