"""Value: equality, hash, repr and pickle by field, and the one form that all values of the core have."""

import copy
import importlib
import inspect
import pickle
import pkgutil
from typing import Final

import pytest

import calamint.core
import calamint.core.value
from calamint.core import events, frames, http2
from calamint.core.errors import CANCEL, REFUSED_STREAM, Failure
from calamint.core.exchange import ENDED, LOCAL_AWAITING, SETTINGS, Clocks, Exchange, Settings, Upload
from calamint.core.fields import Head, Promise
from calamint.core.hpack import Block, DecoderTable, EncoderTable
from calamint.core.snapshot import RequestSnapshot, Snapshot
from calamint.core.url import URL, Origin
from calamint.core.value import INFINITY, NEVER, SECRET_FIELDS, SHOWN_BYTES, SHOWN_ITEMS, Value, show

COMPILED: Final = not (calamint.core.value.__file__ or "").endswith(".py")

# What a class has beside its fields: derived, remembered or a draft's token, and so outside equality, repr and pickle.
EXTRAS: Final[dict[str, set[str]]] = {
    "exchange.Clocks": {"shortest"},
    "exchange.Exchange": {"owner"},
    "fields.Head": {"bare"},
    "hpack.DecoderTable": {"memo"},
    "hpack.EncoderTable": {"around", "blocks"},
    "http1_parse.ResponseHead": {"framing"},
    "http1_state.Setup": {"host"},
    "http2_state.Control": {"owner"},
    "http2_state.Setup": {"authority", "keepalive", "remembers", "scheme"},
    "pool_state.Key": {"hashed"},
    "url.Origin": {"hashed"},
}
MUTABLE: Final = {Exchange, Upload}  # while a draft owns them
MACHINES: Final = (
    "http",
    "tunnel",
    "verbs",
    "record",
    "explain",
    "pool",
)  # their values are made by verbs and tested there

ONE: Final = Failure("ReadError", -1, "gone", 1, False, -1)
TWO: Final = Failure("StreamReset", CANCEL, "reset", 3, True, 7, "head", 407, ((b"a", b"b"),))
TABLE: Final = DecoderTable(((b"a", b"b"),), 34, 100, 4096, False)
OTHER_TABLE: Final = DecoderTable((), 0, 4096, 8192, True)
UPLOADS: Final = (
    Upload((b"abc", b"d"), 1, 3, False, (), 9, 5, 1.0, 2.0, 3.0, 7),
    Upload((b"x",), 0, 1, True, ((b"t", b"u"),), -1, 6, 1.5, 2.5, 3.5, 8),
)
EXCHANGES: Final = (
    Exchange(
        *(1, "GET", "/", LOCAL_AWAITING, Clocks(1, 2, 3, 4), 9.0, 100, None, -1, 0, 0, 0, 1.0, 2.0),
        *(3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9, 10, 11, 12),
    ),
    Exchange(
        *(3, "PUT", "/x", ENDED, Clocks(), 9.5, 200, UPLOADS[0], 5, 200, 7, 8, 1.5, 2.5),
        *(3.5, 4.5, 5.5, 6.5, 7.5, 8.5, 19, 20, 21, 22),
    ),
)
REQUESTS: Final = (
    RequestSnapshot(1, "GET", "/", "open", "us", 1.0, 2.0, "head", 3.0, 0, 4, 5, 6, 7, 8, 9),
    RequestSnapshot(3, "PUT", "/x", "idle", "them", 1.5, 2.5, "idle", 3.5, 200, 14, 15, 16, 17, None, None),
)

# Two of each class that differ in every field.
PAIRS: Final[tuple[tuple[Value, Value], ...]] = (
    (ONE, TWO),
    (events.InterimReceived(1, 103, ()), events.InterimReceived(3, 100, ((b"a", b"b"),))),
    (events.ResponseReceived(1, 200, (), b"OK"), events.ResponseReceived(3, 404, ((b"a", b"b"),), b"")),
    (events.DataReceived(1, b"a"), events.DataReceived(3, b"b")),
    (events.TrailersReceived(1, ()), events.TrailersReceived(3, ((b"a", b"b"),))),
    (events.ResponseEnded(1), events.ResponseEnded(3)),
    (events.RequestFailed(1, ONE), events.RequestFailed(3, TWO)),
    (events.Upgraded(1), events.Upgraded(3)),
    (events.PushPromised(1, 2, "GET", "/", ()), events.PushPromised(3, 4, "HEAD", "/x", ((b"a", b"b"),))),
    (events.WindowOpened(1), events.WindowOpened(3)),
    (events.PingAcknowledged(b"12345678", 0.5), events.PingAcknowledged(b"abcdefgh", 1.5)),
    (events.SettingsReceived(()), events.SettingsReceived(((1, 4096),))),
    (events.GoAwayReceived(1, 0, b""), events.GoAwayReceived(3, REFUSED_STREAM, b"bye")),
    (events.ConnectionClosed(None), events.ConnectionClosed(ONE)),
    (Clocks(1.0, 2.0, 3.0, 4.0, 5.0), Clocks(None, None, None, None, None)),
    (Settings(), Settings(1, 65_535, 16_385, 0, 1, 1, 1, 1, 1, None, 1, 2)),
    UPLOADS,
    EXCHANGES,
    (Head(200, (), 5, ""), Head(0, ((b"a", b"b"),), -1, "bad")),
    (Promise("GET", "/", (), ""), Promise("", "/x", ((b"a", b"b"),), "bad")),
    (TABLE, OTHER_TABLE),
    (
        Block((), TABLE, (), False, False, False),
        Block(((b"a", b"b"),), OTHER_TABLE, ((b"a", b"b"),), True, True, True),
    ),
    (EncoderTable({}, {}, 0, 4096, ()), EncoderTable({(b"a", b"b"): 0}, {b"a": 0}, 34, 100, (0, 100))),
    REQUESTS,
    (
        Snapshot("HTTP/2", "https://a", "open", (), (), (), 100, 99, 1.0, None, None, None, 0, 24),
        Snapshot("HTTP/1.1", "http://b", "closed", REQUESTS, (5,), (7,), 1, 0, INFINITY, 2.0, 3, 4, 5, 6),
    ),
    (Origin("https", "a", 443), Origin("http", "b", 80)),
    (URL(Origin("https", "a", 443), "/", "", ""), URL(Origin("http", "b", 80), "/x", "me", "top")),
)
OTHER: Final = "other"  # an attribute that no value has
VALUES: Final = [value for pair in PAIRS for value in pair]


def classes() -> list[type[Value]]:
    """Every class of the core that is built on Value."""
    names = [module.name for module in pkgutil.iter_modules(calamint.core.__path__, "calamint.core.")]
    found = [item for name in names for item in vars(importlib.import_module(name)).values() if inspect.isclass(item)]
    return sorted({item for item in found if issubclass(item, Value) and item is not Value}, key=full_name)


def module_name(kind: type[Value]) -> str:
    return kind.__module__.rpartition(".")[2]


def full_name(kind: type[Value]) -> str:
    return f"{module_name(kind)}.{kind.__name__}"


def extras(kind: type[Value]) -> set[str]:
    return set().union(*[EXTRAS.get(full_name(part), set()) for part in kind.__mro__])


def parts(value: Value) -> list[object]:
    return [getattr(value, name) for name in value.__match_args__]


def test_every_class_has_an_example() -> None:
    codecs = [kind for kind in classes() if not module_name(kind).startswith(MACHINES)]
    assert {type(value) for value in VALUES} == set(codecs)


def test_attributes_are_the_fields_and_the_documented_extras() -> None:
    for kind in classes():
        found = [item for part in kind.__mro__ for item in vars(part).items() if inspect.isdatadescriptor(item[1])]
        own = {name for name, _ in found if not name.startswith("__")}
        assert own == set(kind.__match_args__) | extras(kind), kind
        assert len(set(kind.__match_args__)) == len(kind.__match_args__), kind


@pytest.mark.skipif(COMPILED, reason="mypyc drops __slots__, and the signatures whose defaults are no literals")
def test_slots_and_parameters_stand_in_the_order_of_the_fields() -> None:
    for kind in classes():
        slots = [name for part in reversed(kind.__mro__) for name in vars(part).get("__slots__", ())]
        assert [name for name in slots if name not in extras(kind)] == list(kind.__match_args__), kind
        assert list(inspect.signature(kind).parameters) == list(kind.__match_args__), kind


def test_one_inheritance_line_and_no_instance_dict() -> None:
    for kind in classes():
        assert len(kind.__bases__) == 1, kind
        assert kind.__dictoffset__ == 0, kind


@pytest.mark.parametrize(("one", "two"), PAIRS, ids=lambda value: type(value).__name__)
def test_made_again_from_its_fields(one: Value, two: Value) -> None:
    for value in (one, two):
        again = type(value)(*parts(value))
        assert again == value
        assert parts(again) == parts(value)
        assert repr(again) == repr(value)


@pytest.mark.parametrize(("one", "two"), PAIRS, ids=lambda value: type(value).__name__)
def test_each_field_alone_makes_a_difference(one: Value, two: Value) -> None:
    for place in range(len(one.__match_args__)):
        mixed = parts(one)
        mixed[place] = parts(two)[place]
        other = type(one)(*mixed)
        assert other != one
        assert not other == one
        assert repr(other) != repr(one)


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_pickle_and_copies_are_equal(value: Value) -> None:
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        again = pickle.loads(pickle.dumps(value, protocol))
        assert type(again) is type(value)
        assert again == value
        assert repr(again) == repr(value)
    assert copy.copy(value) == value
    assert copy.deepcopy(value) == value


def test_what_is_remembered_or_owned_is_not_compared_shown_or_pickled() -> None:
    table = DecoderTable(((b"a", b"b"),), 34, 100, 4096)
    table.memo[b"\x88"] = Head(200, (), -1)
    assert table == TABLE
    assert repr(table) == repr(TABLE)
    assert pickle.loads(pickle.dumps(table)).memo == {}
    mine, fresh = EncoderTable({}, {}), EncoderTable({}, {})
    mine.blocks["GET", "/", ()] = b""
    mine.around["GET", ()] = (b"", b"")
    assert mine == fresh
    assert pickle.loads(pickle.dumps(mine)).blocks == {}
    assert pickle.loads(pickle.dumps(mine)).around == {}
    owned = EXCHANGES[0].copy(object())
    assert owned == EXCHANGES[0]
    assert pickle.loads(pickle.dumps(owned)).owner is None


def test_equal_to_itself_even_with_a_field_that_is_not() -> None:
    event = events.PingAcknowledged(b"", float("nan"))
    assert event == event
    assert event != events.PingAcknowledged(b"", float("inf") - float("inf"))


def test_unequal_to_other_classes() -> None:
    assert events.ResponseEnded(1) != events.WindowOpened(1)
    assert events.ResponseEnded(1) != 1
    assert (events.ResponseEnded(1) == (1,)) is False


def test_hash_goes_with_equality() -> None:
    seen = {events.ResponseEnded(1), events.ResponseEnded(1), events.WindowOpened(1), events.ResponseEnded(3)}
    assert len(seen) == 3
    for value in VALUES:
        if not isinstance(value, EncoderTable):  # it holds dicts
            assert hash(type(value)(*parts(value))) == hash(value)


def test_hash_of_what_holds_a_dict_is_refused() -> None:
    with pytest.raises(TypeError, match="unhashable"):
        hash(EncoderTable({}, {}))


@pytest.mark.skipif(not COMPILED, reason="interpreted, Final is only mypy's word")
def test_compiled_fields_cannot_be_assigned() -> None:
    for value in [value for value in VALUES if type(value) not in MUTABLE]:
        for name in value.__match_args__:
            with pytest.raises(AttributeError):
                setattr(value, name, getattr(value, name))


@pytest.mark.skipif(not COMPILED, reason="interpreted, types are only mypy's word")
def test_compiled_values_refuse_wrong_types() -> None:
    for kind, arguments in (
        (events.ResponseEnded, ("1",)),
        (events.DataReceived, (1, bytearray())),
        (Origin, (b"", "", 1)),
    ):
        with pytest.raises(TypeError):
            kind(*arguments)


def test_no_other_attributes() -> None:
    for value in VALUES:
        with pytest.raises(AttributeError):
            setattr(value, OTHER, 1)


def test_repr_names_the_fields() -> None:
    assert repr(events.ResponseEnded(1)) == "ResponseEnded(ref=1)"
    assert repr(events.ConnectionClosed(None)) == "ConnectionClosed(failure=None)"
    shown = "ResponseReceived(ref=1, status=200, fields=((b'a', b'b'),), reason=b'OK')"
    assert repr(events.ResponseReceived(1, 200, ((b"a", b"b"),), b"OK")) == shown
    shown = "SettingsReceived(settings=((1, 4096), (2, 0)))"
    assert repr(events.SettingsReceived(((1, 4096), (2, 0)))) == shown
    assert repr(EncoderTable({}, {b"a": 0})).startswith("EncoderTable(indices={}, names={b'a': 0}, size=0,")


def test_repr_shows_short_content_and_only_the_length_of_long() -> None:
    assert repr(events.DataReceived(1, b"x" * SHOWN_BYTES)).endswith(f"data=b'{'x' * SHOWN_BYTES}')")
    assert (
        repr(events.DataReceived(1, b"x" * (SHOWN_BYTES + 1))) == f"DataReceived(ref=1, data=<{SHOWN_BYTES + 1} bytes>)"
    )
    long = ((b"a", b"x" * (SHOWN_BYTES + 1)),)
    assert (
        repr(events.TrailersReceived(1, long))
        == f"TrailersReceived(ref=1, fields=((b'a', <{SHOWN_BYTES + 1} bytes>),))"
    )


def test_repr_shows_the_first_items_of_long_collections() -> None:
    some = tuple([(number, 0) for number in range(SHOWN_ITEMS)])
    assert "in all" not in repr(events.SettingsReceived(some))
    assert f"({SHOWN_ITEMS - 1}, 0))" in repr(events.SettingsReceived(some))
    more = (*some, (99, 0))
    assert repr(events.SettingsReceived(more)).endswith(f"({SHOWN_ITEMS - 1}, 0), … {SHOWN_ITEMS + 1} in all))")
    assert "99" not in repr(events.SettingsReceived(more))
    names = {b"%d" % number: number for number in range(SHOWN_ITEMS)}
    assert "in all" not in repr(EncoderTable({}, names))
    assert f", … {SHOWN_ITEMS + 1} in all}}" in repr(EncoderTable({}, {**names, b"z": 99}))


@pytest.mark.parametrize("name", sorted(SECRET_FIELDS | {b"Authorization", b"COOKIE"}))
def test_repr_hides_secrets(name: bytes) -> None:
    """RFC 7541 §7.1.3 names such fields; here they are shown by their length."""
    fields = ((b"a", b"b"), (name, b"hunter2"))
    table = DecoderTable(fields, 100, 4096, 4096)
    for value in (
        events.ResponseReceived(1, 200, fields),
        events.InterimReceived(1, 103, fields),
        events.TrailersReceived(1, fields),
        Head(200, fields, -1),
        table,
        Block(fields, table, fields, True, True, False),
        Upload(trailers=fields),
    ):
        assert "hunter2" not in repr(value)
        assert f"({name!r}, <7 bytes>)" in repr(value)


def test_show_hides_secrets_at_any_depth() -> None:
    """A fence against endless nesting must not become a hole."""
    item: object = ((b"cookie", b"hunter2"), b"x" * 1000)
    for _ in range(8):
        item = (item,)
        assert "hunter2" not in show(item, 0)
        assert len(show(item, 0)) < 1000


def test_show_hides_secrets_in_keys() -> None:
    """The encoder's table is keyed by fields."""
    assert "hunter2" not in show({(b"cookie", b"hunter2"): 0}, 0)
    assert len(show({(b"a", b"x" * 1000): 0}, 0)) < 1000


def test_url_hides_its_password() -> None:
    """RFC 3986 §3.2.1: "should not render as clear text any data after the first colon … within a userinfo"."""
    assert "hunter2" not in repr(URL(Origin("https", "a", 443), "/", "me:hunter2", ""))


def test_repr_hides_what_stands_on_the_wire() -> None:
    """The beginning of a field block, or of a frame, may hold a secret in clear text."""
    conn, _ = http2.connect(Origin("https", "a", 443), SETTINGS, 0.0)
    conn, _, ref = http2.request(conn, "GET", "/", (), None, 0.0)
    block = b"\x88\x00\x0aset-cookie\x07hunter2"
    head = frames.encode_settings(()) + frames.encode_header(len(block), frames.HEADERS, 0, ref) + block
    within_a_block = http2.receive(conn, head, 1.0)[0]
    within_a_frame = http2.receive(conn, head[:-1], 1.0)[0]
    for value in (within_a_block, within_a_frame):
        assert b"hunter" in pickle.dumps(value)
        assert "hunter" not in repr(value)
        assert len(repr(value)) < 3000


def test_show_does_not_take_other_pairs_for_fields() -> None:
    assert show((b"cookie", 1), 0) == "(b'cookie', 1)"
    assert show((1, b"x"), 0) == "(1, b'x')"
    assert show((b"a", b"b", b"c"), 0) == "(b'a', b'b', b'c')"
    assert show((), 0) == "()"
    assert show("x", 0) == "'x'"


def test_times() -> None:
    assert NEVER < -1e300 < 1e300 < INFINITY
