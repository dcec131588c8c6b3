"""What `-v` shows: frames, heads and events, with their times, in colour on a terminal."""

import os
import sys
import time

from calamint import core
from calamint.core import frames
from calamint.core.errors import error_name
from calamint.core.value import SECRET_FIELDS, Fields

COLOURS = {">": "36", "<": "32", "*": "33", "!": "31"}
FLAGS = ((frames.END_STREAM, "END_STREAM"), (frames.END_HEADERS, "END_HEADERS"), (frames.PADDED, "PADDED"))


class Verbose:
    """Writes a line for each frame, and for each event, on stderr."""

    def __init__(self, started: float) -> None:
        self.started = started
        self.protocol = ""
        self.buffers = {">": b"", "<": b""}
        self.begun = False  # the connection preface, or the request's head, has been shown
        self.colour = sys.stderr.isatty() and not os.environ.get("NO_COLOR")

    def line(self, mark: str, text: str) -> None:
        """One line: its time in seconds since the start, who spoke, and what; nothing in it that a terminal obeys."""
        shown = "".join([sign if sign.isprintable() else f"\\x{ord(sign):02x}" for sign in text])
        line = f"{time.monotonic() - self.started:8.3f} {mark} {shown}"
        sys.stderr.write(f"\x1b[{COLOURS[mark]}m{line}\x1b[0m\n" if self.colour else f"{line}\n")

    def connected(self, protocol: str) -> None:
        """The protocol is known now, and so is what has moved already."""
        self.protocol = protocol
        self.line("*", f"connected: {protocol}")
        for mark in self.buffers:
            self.tap(mark, b"")

    def request(self, method: str, target: str, fields: Fields) -> None:
        """What is asked for; HTTP/1.1 shows that by itself."""
        if self.protocol == "h2":
            self.line(">", f"{method} {target}")
            self.fields(">", fields)

    def tap(self, mark: str, data: bytes) -> None:
        """Bytes as they went out or came in, cut anywhere."""
        data = self.buffers[mark] + data
        self.buffers[mark] = b""
        if not self.protocol:
            self.buffers[mark] = data
        elif self.protocol == "h2":
            self.buffers[mark] = self.show_frames(mark, data)
        elif mark == "<" or self.begun:
            self.count(mark, data)
        elif b"\r\n\r\n" in data:
            self.begun = True
            head, _, content = data.partition(b"\r\n\r\n")
            first, *lines = head.split(b"\r\n")
            self.line(mark, first.decode("latin-1"))
            pairs = [line.partition(b":") for line in lines]
            self.fields(mark, tuple([(name, value.strip()) for name, _, value in pairs]))
            self.count(mark, content)
        else:
            self.buffers[mark] = data

    def count(self, mark: str, data: bytes) -> None:
        """Bytes of HTTP/1.1 by their number: the events say what they mean."""
        if data:
            self.line(mark, f"{len(data)} bytes{' of content' if mark == '>' else ''}")

    def show_frames(self, mark: str, data: bytes) -> bytes:
        """A line for each complete frame; returns the rest."""
        at = 0
        if mark == ">" and not self.begun:
            if len(data) < len(frames.PREFACE):
                return data
            self.begun = True
            self.line(mark, "connection preface")
            at = len(frames.PREFACE)
        while len(data) - at >= frames.HEADER_SIZE:
            high, low, kind, flags, ref = frames.HEADER.unpack_from(data, at)
            length = high << 8 | low
            end = at + frames.HEADER_SIZE + length
            if end > len(data):
                break
            words = describe(kind, flags, data[at + frames.HEADER_SIZE : end])
            self.line(mark, f"{frames.frame_name(kind):<13} stream {ref}, {length} bytes{words}")
            at = end
        return data[at:]

    def event(self, event: core.Event) -> None:
        """What the connection made of it."""
        if isinstance(event, core.ResponseReceived):
            self.line("<", f"{event.status} {event.reason.decode('latin-1')}".rstrip())
            self.fields("<", event.fields)
        elif isinstance(event, core.InterimReceived):
            self.line("<", f"{event.status} (interim)")
            self.fields("<", event.fields)
        elif isinstance(event, core.TrailersReceived):
            self.line("<", "trailers")
            self.fields("<", event.fields)
        elif isinstance(event, core.RequestFailed):
            self.line("!", f"request {event.ref} failed: {event.failure.message}")
        elif isinstance(event, core.ResponseEnded):
            self.line("*", f"response {event.ref} ended")
        elif isinstance(event, core.ConnectionClosed):
            self.line("*", "connection closed" if event.failure is None else f"closed: {event.failure.message}")

    def fields(self, mark: str, fields: Fields) -> None:
        """A field section; secrets by their length only."""
        for name, value in fields:
            shown = f"<{len(value)} bytes>" if name.lower() in SECRET_FIELDS else value.decode("latin-1")
            self.line(mark, f"  {name.decode('latin-1')}: {shown}")


def describe(kind: int, flags: int, payload: bytes) -> str:
    """What a frame says besides its type, stream and length."""
    words = ""
    if kind in (frames.DATA, frames.HEADERS, frames.CONTINUATION):
        names = [name for flag, name in FLAGS if flags & flag]
        words = ", ".join(names)
    elif kind in (frames.SETTINGS, frames.PING) and flags & frames.ACK:
        words = "ACK"
    elif kind == frames.SETTINGS and len(payload) % 6 == 0:
        pairs = frames.decode_settings(payload)
        words = ", ".join([f"{frames.SETTING_NAMES.get(name, hex(name))}={number}" for name, number in pairs])
    elif kind == frames.WINDOW_UPDATE and len(payload) == 4:
        words = f"+{frames.LONG.unpack(payload)[0]}"
    elif kind == frames.RST_STREAM and len(payload) == 4:
        words = error_name(frames.LONG.unpack(payload)[0])
    elif kind == frames.GOAWAY and len(payload) >= 8:
        last, code = frames.TWO_LONGS.unpack_from(payload)
        words = f"last stream {last}, {error_name(code)}"
    return f", {words}" if words else ""
