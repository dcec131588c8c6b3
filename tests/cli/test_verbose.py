"""What -v shows of bytes, however they are cut."""

import re

import pytest

from calamint.cli.verbose import Verbose
from calamint.core import frames


def lines_of(err: str) -> list[str]:
    """The lines of -v, their times taken off."""
    found = [re.fullmatch(r" *\d+\.\d{3} ([<>*!] .*)", line) for line in err.splitlines()]
    assert all(found), err
    return [line[1] for line in found if line is not None]


def shown_by(
    capsys: pytest.CaptureFixture[str], protocol: str, pieces: list[tuple[str, bytes]], late: int = 0
) -> list[str]:
    """The lines for these pieces, of which the first `late` come before the protocol is known."""
    verbose = Verbose(0.0)
    for mark, data in pieces[:late]:
        verbose.tap(mark, data)
    verbose.connected(protocol)
    for mark, data in pieces[late:]:
        verbose.tap(mark, data)
    return lines_of(capsys.readouterr().err)


SENT = (
    frames.PREFACE
    + frames.encode_settings(((frames.ENABLE_PUSH, 0), (0xABCD, 1)))
    + frames.encode_head(1, b"\x82\x86", False, 16_384)
    + frames.encode_header(5, frames.DATA, frames.END_STREAM, 1)
    + b"PRI *"
    + frames.encode_reset(1, 8)
    + frames.encode_window_update(0, 1000)
    + frames.encode_goaway(0, 0, b"debug")
)
SHOWN = [
    "* connected: h2",
    "> connection preface",
    "> SETTINGS      stream 0, 12 bytes, ENABLE_PUSH=0, 0xabcd=1",
    "> HEADERS       stream 1, 2 bytes, END_HEADERS",
    "> DATA          stream 1, 5 bytes, END_STREAM",
    "> RST_STREAM    stream 1, 4 bytes, CANCEL",
    "> WINDOW_UPDATE stream 0, 4 bytes, +1000",
    "> GOAWAY        stream 0, 13 bytes, last stream 0, NO_ERROR",
]


def test_frames_cut_anywhere(capsys: pytest.CaptureFixture[str]) -> None:
    for cut in range(len(SENT) + 1):
        for late in (0, 1, 2):
            assert shown_by(capsys, "h2", [(">", SENT[:cut]), (">", SENT[cut:])], late) == SHOWN
    assert shown_by(capsys, "h2", [(">", SENT[at : at + 1]) for at in range(len(SENT))]) == SHOWN


def test_directions_do_not_mix(capsys: pytest.CaptureFixture[str]) -> None:
    came = frames.encode_settings(()) + frames.encode_ping(bytes(8), frames.ACK)
    pieces = [(">", SENT[:30]), ("<", came[:5]), (">", SENT[30:]), ("<", came[5:])]
    for late in range(5):
        lines = shown_by(capsys, "h2", pieces, late)
        assert [line for line in lines if line[0] != "<"] == SHOWN
        assert [line for line in lines if line[0] == "<"] == [
            "< SETTINGS      stream 0, 0 bytes",
            "< PING          stream 0, 8 bytes, ACK",
        ]


def test_heads_cut_anywhere(capsys: pytest.CaptureFixture[str]) -> None:
    """What looks like a head in the content is content."""
    head = b"POST / HTTP/1.1\r\nHost: a\r\nCookie: hunter2\r\n\r\n"
    shown = ["* connected: http/1.1", "> POST / HTTP/1.1", ">   Host: a", ">   Cookie: <7 bytes>"]
    content = b"GET / HTTP/1.1\r\nauthorization: hunter2\r\n\r\n"
    for cut in range(1, len(head) + 1):
        pieces = [(">", head[:cut]), (">", head[cut:]), (">", content)]
        assert shown_by(capsys, "http/1.1", pieces) == [*shown, f"> {len(content)} bytes of content"]
    assert shown_by(capsys, "http/1.1", [(">", head + b"four"), ("<", b"HTTP/1.1 200 OK\r\n\r\n")], 1) == [
        *shown,
        "> 4 bytes of content",
        "< 19 bytes",
    ]
