"""One request's record: which clock runs, what it waits for, and the content that waits in it."""

from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calamint.core.errors import Failure
from calamint.core.exchange import (
    CLOCKS,
    CONNECTING,
    ENDED,
    EXPECTING,
    IDLE,
    LOCAL_AWAITING,
    LOCAL_RECEIVING,
    OPEN_AWAITING,
    OPEN_RECEIVING,
    REFUSED,
    REMOTE,
    RESERVED,
    RESET_BY_PEER,
    RESET_BY_US,
    SETTINGS,
    STATE_NAMES,
    TUNNEL,
    TUNNEL_LOCAL,
    Clocks,
    Exchange,
    Settings,
    Upload,
    check_range,
)
from calamint.core.value import INFINITY, NEVER

FOUR: Final = Clocks(head=10, idle=20, write=30, reader=400)
PIECE: Final = 16_384  # pieces are joined up to here


def make(
    state: int,
    *,
    clocks: Clocks = FOUR,
    deadline: float = INFINITY,
    upload: Upload | None = None,
    unread: int = 0,
    sent_at: float = NEVER,
    interim_at: float = NEVER,
    head_at: float = NEVER,
    last_data_at: float = NEVER,
    unread_at: float = NEVER,
    reader_at: float = NEVER,
    recv_window: int = 1,
) -> Exchange:
    """Request 5, opened at 100."""
    return Exchange(
        *(5, "GET", "/a?b", state, clocks, deadline, 0, upload, -1, 0, 0, unread, 100.0, sent_at),
        interim_at=interim_at,
        head_at=head_at,
        last_data_at=last_data_at,
        unread_at=unread_at,
        reader_at=reader_at,
        recv_window=recv_window,
    )


def waiting(moved_at: float, shut_at: float = NEVER, reopened_at: float = NEVER) -> Upload:
    """Seven bytes that wait since `moved_at`."""
    return Upload((b"content",), 0, 7, False, (), -1, 0, moved_at, shut_at, reopened_at)


def copy_with(item: Exchange, clocks: Clocks, deadline: float) -> Exchange:
    twin = item.copy(None)
    twin.clocks = clocks
    twin.deadline = deadline
    return twin


# What runs: the record, when its clock runs out, and the clock's name.
RUNNING: Final[list[tuple[Exchange, float, str]]] = [
    # content left open by the caller: only ourselves to blame, since we last did something or the peer did
    (make(OPEN_AWAITING), 500, "reader"),
    (make(OPEN_AWAITING, reader_at=150), 550, "reader"),
    (make(OPEN_AWAITING, interim_at=160, reader_at=150), 560, "reader"),
    (make(OPEN_AWAITING, upload=Upload()), 500, "reader"),
    (make(OPEN_AWAITING, upload=Upload(moved_at=120, reopened_at=170)), 570, "reader"),
    (make(OPEN_RECEIVING, head_at=110), 510, "reader"),
    (make(OPEN_RECEIVING, head_at=110, last_data_at=115), 515, "reader"),
    # content queued: the peer or the network takes it
    (make(OPEN_AWAITING, upload=waiting(120)), 150, "write"),
    (make(OPEN_AWAITING, upload=waiting(120), reader_at=149), 150, "write"),
    (make(OPEN_RECEIVING, upload=waiting(120), head_at=135), 150, "write"),
    (make(OPEN_RECEIVING, upload=waiting(120), head_at=125), 145, "idle"),
    (make(OPEN_RECEIVING, upload=waiting(120), head_at=110, unread=1, unread_at=110), 150, "write"),
    # all sent, no head: from the last byte of the request, begun again by an interim response
    (make(LOCAL_AWAITING, sent_at=105), 115, "head"),
    (make(LOCAL_AWAITING, sent_at=105, interim_at=109), 119, "head"),
    (make(LOCAL_AWAITING, sent_at=105, interim_at=103), 115, "head"),
    (make(LOCAL_AWAITING, sent_at=105, reader_at=114), 115, "head"),
    # content arrives: silence in which we waited
    (make(LOCAL_RECEIVING, sent_at=100, head_at=110), 130, "idle"),
    (make(LOCAL_RECEIVING, sent_at=100, head_at=110, last_data_at=115), 135, "idle"),
    (make(LOCAL_RECEIVING, sent_at=100, head_at=110, last_data_at=115, reader_at=118), 138, "idle"),
    # content waits unread: the reader's time
    (make(LOCAL_RECEIVING, sent_at=100, head_at=110, unread=1, unread_at=112), 512, "reader"),
    (make(LOCAL_RECEIVING, sent_at=100, head_at=110, unread=1, unread_at=112, last_data_at=500), 512, "reader"),
    (make(LOCAL_RECEIVING, sent_at=100, head_at=110, unread=1, unread_at=112, reader_at=120), 520, "reader"),
    (make(OPEN_RECEIVING, head_at=130, unread=1, unread_at=110), 510, "reader"),
]


@pytest.mark.parametrize(("item", "due", "name"), RUNNING)
def test_running_clock(item: Exchange, due: float, name: str) -> None:
    assert item.running_clock() == (due, name)
    assert item.running_clock()[0] == due


@pytest.mark.parametrize(("item", "due", "name"), RUNNING)
def test_total_runs_beside_every_clock(item: Exchange, due: float, name: str) -> None:
    assert copy_with(item, FOUR, due + 0.5).running_clock() == (due, name)
    assert copy_with(item, FOUR, due - 0.5).running_clock() == (due - 0.5, "total")


@pytest.mark.parametrize("state", [IDLE, REMOTE, ENDED, RESET_BY_US, RESET_BY_PEER])
def test_only_total_runs_where_nothing_is_awaited(state: int) -> None:
    assert make(state, sent_at=100, head_at=100).running_clock() == (INFINITY, "total")
    assert make(state, sent_at=100, head_at=100, deadline=105).running_clock() == (105, "total")


def test_of_two_clocks_the_earlier_one_and_total_if_they_are_equal() -> None:
    assert make(LOCAL_AWAITING, sent_at=105, deadline=114.5).running_clock() == (114.5, "total")
    assert make(LOCAL_AWAITING, sent_at=105, deadline=115).running_clock() == (115, "total")
    assert make(LOCAL_AWAITING, sent_at=105, deadline=115.5).running_clock() == (115, "head")
    busy = make(OPEN_RECEIVING, upload=waiting(120), unread=1, unread_at=110, head_at=110, clocks=Clocks(1, 1, 30, 39))
    assert busy.running_clock() == (149, "reader")
    assert copy_with(busy, Clocks(1, 1, 30, 40), INFINITY).running_clock() == (150, "write")
    assert copy_with(busy, Clocks(1, 1, 30, 41), INFINITY).running_clock() == (150, "write")


@pytest.mark.parametrize(
    "item",
    [
        make(OPEN_AWAITING, clocks=Clocks(1, 1, 1, None)),
        make(OPEN_AWAITING, clocks=Clocks(1, 1, None, 1), upload=waiting(100)),
        make(LOCAL_AWAITING, clocks=Clocks(None, 1, 1, 1), sent_at=100),
        make(LOCAL_RECEIVING, clocks=Clocks(1, None, 1, 1), sent_at=100, head_at=100),
        make(LOCAL_RECEIVING, clocks=Clocks(1, 1, 1, None), sent_at=100, head_at=100, unread=1, unread_at=100),
        make(OPEN_RECEIVING, clocks=Clocks(1, None, None, 1), head_at=100, upload=waiting(100)),
    ],
)
def test_a_clock_that_is_off_never_runs_out(item: Exchange) -> None:
    assert item.running_clock() == (INFINITY, "total")
    assert copy_with(item, item.clocks, 1000).running_clock() == (1000, "total")


@pytest.mark.parametrize(("clocks", "deadline"), [(Clocks(10, 20, 30, None), INFINITY), (FOUR, 505), (FOUR, 510)])
def test_idle_never_runs_while_content_is_left_open(clocks: Clocks, deadline: float) -> None:
    """No limit blames the peer for time in which we were the one to move, whatever the other clocks are set to."""
    item = make(OPEN_RECEIVING, head_at=110, clocks=clocks, deadline=deadline)
    assert item.running_clock() == (deadline, "total")


def test_idle_does_not_run_out_while_content_moves() -> None:
    """An early response head, then a long upload through a window so large that no WINDOW_UPDATE is needed; or HTTP/1.1."""
    item = make(OPEN_RECEIVING, head_at=110, upload=waiting(200))
    assert item.running_clock()[0] >= 200 + FOUR.idle


def test_idle_begins_no_earlier_than_the_end_of_the_request() -> None:
    """The head came at 110, the last byte of the request left at 200: the peer may now be silent for `idle` seconds."""
    item = make(LOCAL_RECEIVING, head_at=110, sent_at=200, reader_at=105)
    assert item.running_clock() == (200 + FOUR.idle, "idle")


def test_heard_at_is_the_latest_sign_of_the_peer() -> None:
    assert make(LOCAL_AWAITING).heard_at() == NEVER
    assert make(LOCAL_AWAITING, interim_at=1).heard_at() == 1
    assert make(LOCAL_AWAITING, interim_at=1, head_at=2).heard_at() == 2
    assert make(LOCAL_AWAITING, interim_at=1, head_at=2, last_data_at=3).heard_at() == 3
    assert make(OPEN_AWAITING, interim_at=1, head_at=2, last_data_at=3, upload=Upload()).heard_at() == 3
    assert make(OPEN_AWAITING, last_data_at=3, upload=waiting(9, 9, 4)).heard_at() == 4


# What is said when it has run out: the record, now, the failure's kind, and what must stand in its message.
OVERDUE: Final[list[tuple[Exchange, float, str, tuple[str, ...]]]] = [
    (
        make(LOCAL_AWAITING, sent_at=105),
        115.25,
        "ReadTimeout",
        ("GET /a?b", "no response head", "10.25 s", "(head=10)"),
    ),
    (make(LOCAL_AWAITING, sent_at=105, interim_at=109), 119.5, "ReadTimeout", ("10.50 s", "(head=10)")),
    (
        make(LOCAL_RECEIVING, sent_at=100, head_at=110, last_data_at=115),
        136,
        "ReadTimeout",
        ("GET /a?b", "21.00 s of silence", "(idle=20)"),
    ),
    (make(LOCAL_RECEIVING, sent_at=100, head_at=110, reader_at=118), 138, "ReadTimeout", ("20.00 s of silence",)),
    (
        make(OPEN_AWAITING, upload=waiting(120)),
        151,
        "WriteTimeout",
        ("GET /a?b", "7 bytes of content unsent", "none moved for 31.00 s", "(write=30)"),
    ),
    (
        make(LOCAL_RECEIVING, sent_at=100, head_at=110, unread=1234, unread_at=112),
        512,
        "ReadTimeout",
        ("GET /a?b", "1234 bytes of content wait unread", "read or cancel", "(reader=400)"),
    ),
    (
        make(OPEN_AWAITING),
        500,
        "ReadTimeout",
        ("GET /a?b", "content was left open", "end it or cancel", "(reader=400)"),
    ),
    (
        make(LOCAL_AWAITING, deadline=105.5, sent_at=100),
        105.75,
        "DeadlineExceeded",
        ("GET /a?b: its deadline (total) came 5.75 s after it was sent, the peer never answered", "idle"),
    ),
    (
        make(LOCAL_RECEIVING, deadline=105.5, sent_at=100, head_at=104),
        105.75,
        "DeadlineExceeded",
        ("its deadline (total) came 5.75 s after it was sent, the peer was last heard of 1.75 s ago",),
    ),
    (make(IDLE, deadline=86_500), 86_501, "DeadlineExceeded", ("86401.00 s after it was sent",)),
]


@pytest.mark.parametrize(("item", "now", "kind", "parts"), OVERDUE)
def test_overdue_says_what_was_seen_and_what_was_allowed(
    item: Exchange, now: float, kind: str, parts: tuple[str, ...]
) -> None:
    assert item.running_clock()[0] <= now
    failure = item.overdue(now)
    assert failure.kind == kind
    assert failure.code == -1
    assert failure.unprocessed is False
    for part in parts:
        assert part in failure.message


def test_overdue_names_its_request() -> None:
    """Failure: "`ref` the request or 0 for a connection"."""
    assert [item.overdue(now).ref for item, now, _, _ in OVERDUE] == [5] * len(OVERDUE)


@pytest.mark.parametrize(
    ("item", "who"),
    [
        (make(OPEN_AWAITING, upload=waiting(120, shut_at=121)), "the peer's window"),
        (make(OPEN_AWAITING, upload=waiting(120, shut_at=119)), "room in the output"),
        (make(OPEN_RECEIVING, upload=waiting(120), unread=1), "room in the output"),
        (make(OPEN_AWAITING), "its caller: content left open"),
        (make(OPEN_RECEIVING, upload=Upload(moved_at=1, shut_at=2)), "its caller: content left open"),
        (make(LOCAL_RECEIVING, unread=1), "its reader: content unread"),
        (make(LOCAL_AWAITING), "the response's head"),
        (make(LOCAL_RECEIVING, upload=Upload()), "the rest of the response"),
    ],
)
def test_waits_for(item: Exchange, who: str) -> None:
    assert item.waits_for() == who


def test_waits_for_the_window_that_shut_in_the_call_that_sent() -> None:
    """One verb has one `now`: what fits goes out and the window shuts at the same time."""
    upload = Upload()
    upload.add(b"x" * 100, 120)
    assert upload.take(60, 120) == b"x" * 60
    upload.shut_at = 120
    assert make(OPEN_AWAITING, upload=upload).waits_for() == "the peer's window"


def test_waits_for_room_once_the_window_is_open_again() -> None:
    assert make(OPEN_AWAITING, upload=waiting(120, shut_at=121, reopened_at=122)).waits_for() == "room in the output"


def test_states_have_names() -> None:
    states = (
        *(IDLE, EXPECTING, CONNECTING, OPEN_AWAITING, OPEN_RECEIVING, REFUSED, TUNNEL),
        *(LOCAL_AWAITING, LOCAL_RECEIVING, TUNNEL_LOCAL, RESERVED, REMOTE, ENDED, RESET_BY_US, RESET_BY_PEER),
    )
    assert sorted(states) == list(range(len(STATE_NAMES)))
    assert STATE_NAMES[IDLE] == "idle"
    assert STATE_NAMES[LOCAL_AWAITING] == "half-closed (local), awaiting the response"
    assert STATE_NAMES[REMOTE] == "half-closed (remote)"
    assert len(set(STATE_NAMES)) == len(STATE_NAMES)


def test_a_copy_is_equal_and_owned_and_shares_nothing_that_changes() -> None:
    owner = object()
    item = make(OPEN_AWAITING, upload=waiting(120), reader_at=3)
    item.send_window, item.recv_window, item.credit, item.mark = 1, 2, 3, 4
    twin = item.copy(owner)
    assert twin == item
    assert (twin.owner, item.owner) == (owner, None)
    assert twin.upload is not None
    assert item.upload is not None
    assert twin.upload.take(3, 130) == b"con"
    twin.state = RESET_BY_US
    assert item == make_again(item)
    assert (item.upload.queued, item.upload.taken, item.state) == (7, 0, OPEN_AWAITING)
    assert make(IDLE).copy(owner) == make(IDLE)


def make_again(item: Exchange) -> Exchange:
    return Exchange(*[getattr(item, name) for name in item.__match_args__])


def test_clocks_default_and_the_shortest() -> None:
    assert (CLOCKS.head, CLOCKS.idle, CLOCKS.write, CLOCKS.reader) == (60, 60, 60, 600)
    assert CLOCKS.shortest == 60
    assert [Clocks(*times).shortest for times in ((1, 2, 3, 4), (2, 1, 3, 4), (3, 2, 1, 4), (4, 3, 2, 1))] == [1] * 4
    off = Clocks(None, None, None, None)
    assert (off.head, off.idle, off.write, off.reader, off.shortest) == (INFINITY,) * 5


@pytest.mark.parametrize("name", ["head", "idle", "write", "reader"])
@pytest.mark.parametrize("seconds", [float("nan"), -1.0])
def test_clocks_that_are_no_time_are_refused(name: str, seconds: float) -> None:
    """Nothing is earlier than NaN: such a request would never end, whatever its other clocks say."""
    with pytest.raises(ValueError, match=f"^{name}={seconds}"):
        Clocks(**{name: seconds})


# Every limit of Settings: what is allowed, both ends included.
RANGES: Final = [
    ("stream_window", 1, 2**31 - 1),  # RFC 9113 §6.9.1; not 0, or nothing ever arrives
    ("connection_window", 65_535, 2**31 - 1),  # RFC 9113 §6.9.2: it cannot be made smaller
    ("max_frame_size", 16_384, 16_777_215),  # RFC 9113 §6.5.2
    ("header_table_size", 0, 65_536),
    ("max_field_section", 1, 2**31 - 1),
    ("max_fields", 1, 2**31 - 1),
    ("max_streams", 1, 2**31 - 1),
    ("first_streams", 1, 2**31 - 1),
    ("output_budget", 1, 2**31 - 1),
    ("max_pushes", 0, 2**31 - 1),
    ("pipeline", 1, 1000),
]


@pytest.mark.parametrize(("name", "low", "high"), RANGES)
def test_settings_take_both_ends_of_a_range(name: str, low: int, high: int) -> None:
    for number in (low, high):
        assert getattr(Settings(**{name: number}), name) == number


@pytest.mark.parametrize(("name", "low", "high"), RANGES)
@pytest.mark.rfc("9113-6.5.2-7")
def test_settings_refuse_what_is_outside_of_a_range(name: str, low: int, high: int) -> None:
    for number in (low - 1, high + 1):
        with pytest.raises(ValueError, match=f"^{name}={number}: allowed are {low} to {high}$"):
            Settings(**{name: number})


def test_settings_defaults() -> None:
    assert {name for name, _, _ in RANGES} | {"keepalive"} == set(Settings.__match_args__)
    assert (SETTINGS.stream_window, SETTINGS.connection_window) == (2 << 20, 16 << 20)
    assert (SETTINGS.max_frame_size, SETTINGS.header_table_size) == (16_384, 4096)
    assert (SETTINGS.max_field_section, SETTINGS.max_fields) == (64 << 10, 128)
    assert (SETTINGS.max_streams, SETTINGS.first_streams, SETTINGS.output_budget) == (100, 100, 256 << 10)
    assert (SETTINGS.keepalive, SETTINGS.max_pushes, SETTINGS.pipeline) == (30.0, 0, 1)


def test_check_range_accepts_what_is_in_it() -> None:
    check_range("n", 3, 3, 3)
    with pytest.raises(ValueError, match="^n=4: allowed are 3 to 3$"):
        check_range("n", 4, 3, 3)


def test_take_both_sides_of_the_first_piece() -> None:
    for limit, pieces in ((9, [b"0123456789"[:9], b"9"]), (10, [b"0123456789"]), (11, [b"0123456789"])):
        upload = Upload()
        upload.add(b"0123456789", 1)
        taken = [upload.take(limit, 2)]
        while upload.queued:
            taken.append(upload.take(limit, 3))
        assert taken == pieces
        assert (upload.queue, upload.taken, upload.sent) == ((), 0, 10)


def test_pieces_are_joined_up_to_a_limit() -> None:
    upload = Upload()
    upload.add(b"a" * (PIECE - 1), 1)
    upload.add(b"b", 1)
    assert [len(piece) for piece in upload.queue] == [PIECE]
    upload.add(b"c", 1)
    assert [len(piece) for piece in upload.queue] == [PIECE, 1]


def test_adding_nothing_queues_nothing() -> None:
    upload = Upload()
    upload.add(b"", 1)
    assert (upload.queue, upload.queued) == ((), 0)
    upload.add(b"x" * PIECE, 1)
    upload.add(b"", 1)
    assert (len(upload.queue), upload.queued) == (1, PIECE)


def test_content_begins_to_wait_once_and_moves_when_taken() -> None:
    upload = Upload()
    upload.add(b"ab", 1)
    upload.add(b"cd", 2)
    assert upload.moved_at == 1
    upload.take(1, 3)
    assert upload.moved_at == 3
    upload.add(b"ef", 4)
    assert upload.moved_at == 3
    upload.take(9, 5)
    upload.add(b"gh", 6)
    assert upload.moved_at == 6


STEPS: Final = st.one_of(
    st.binary(max_size=40),
    st.integers(0, 3 * PIECE).map(bytes),
    st.integers(1, 60),
    st.integers(1, 3 * PIECE),
)


@given(st.lists(STEPS, max_size=60))
def test_upload_is_a_queue(steps: list[bytes | int]) -> None:
    """First in, first out; nothing lost; never more than asked for; many small pieces cost no more than a few."""
    upload = Upload()
    model = bytearray()
    sent = 0
    for now, step in enumerate(steps):
        kept = upload.copy()
        before = bytes(model)
        if isinstance(step, bytes):
            upload.add(step, now)
            model += step
        elif model:
            piece = upload.take(step, now)
            assert 0 < len(piece) <= step
            assert model.startswith(piece)
            del model[: len(piece)]
            sent += len(piece)
        assert (upload.queued, upload.sent) == (len(model), sent)
        assert b"".join(upload.queue)[upload.taken :] == model
        assert b"".join(kept.queue)[kept.taken :] == before
        sizes = [len(piece) for piece in upload.queue]
        assert all([first + second > PIECE for first, second in zip(sizes, sizes[1:], strict=False)])


def test_failures_of_clocks_are_values() -> None:
    failure = make(LOCAL_AWAITING, sent_at=105).overdue(115)
    assert isinstance(failure, Failure)
    assert failure == make(LOCAL_AWAITING, sent_at=105).overdue(115)


def test_reader_begins_when_what_was_given_has_gone() -> None:
    """Only then is it the caller's turn; and a clock that began earlier would run out before anybody wakes up for it."""
    item = make(OPEN_AWAITING, reader_at=110, upload=Upload(sent=5, moved_at=150))
    assert item.running_clock() == (150 + FOUR.reader, "reader")


def test_write_does_not_blame_a_peer_that_our_reader_holds_up() -> None:
    """Its window is full of what nobody reads, and it may not take more before that: the reader's clock runs."""
    shut = make(OPEN_RECEIVING, upload=waiting(120), head_at=110, unread=1, unread_at=110, recv_window=0)
    assert shut.running_clock() == (510, "reader")
    opened = make(OPEN_RECEIVING, upload=waiting(120), head_at=110, unread=1, unread_at=110, recv_window=1)
    assert opened.running_clock() == (150, "write")


def test_what_the_kernel_has_not_taken_has_not_been_sent() -> None:
    """While some of the output is held back, a head behind it is not waited for, and progress counts."""
    late = make(LOCAL_AWAITING, sent_at=105)
    late.head_offset = 500
    assert late.running_clock((400, 120.0, True)) == (130, "head")
    assert late.running_clock((500, 120.0, True)) == (115, "head")
    assert late.running_clock((400, 120.0, False)) == (115, "head")


def test_what_can_change_is_not_kept_as_it_is() -> None:
    upload = Upload()
    data = bytearray(b"abc")
    upload.add(bytes(data), 0.0)
    data[0] = 0
    assert upload.queue == (b"abc",)
