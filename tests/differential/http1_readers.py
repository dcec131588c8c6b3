"""Three readers of HTTP/1.1 responses behind one function each: calamint, `h11`, and llhttp by way of `httptools`.

Each is given a response, byte by byte where it does not say how many bytes it took, and then the end of the connection. It
says whether the response was complete, what was in it, and how many bytes that took.
"""

from typing import Final, NamedTuple

import h11
import httptools

from calamint.core import http1
from calamint.core.events import (
    DataReceived,
    InterimReceived,
    RequestFailed,
    ResponseEnded,
    ResponseReceived,
    TrailersReceived,
    Upgraded,
)
from calamint.core.exchange import SETTINGS
from calamint.core.url import Origin
from calamint.core.value import Fields

UNTIL_CLOSE: Final = -1


class Reading(NamedTuple):
    """What a reader made of it. `taken`: bytes of the response, or UNTIL_CLOSE; `why`: what was wrong, in its own words."""

    complete: bool
    heads: tuple[tuple[int, Fields], ...] = ()
    content: bytes = b""
    trailers: Fields = ()
    taken: int = 0
    why: str = ""


def read_calamint(data: bytes, method: str) -> Reading:
    """By the code under test."""
    conn, _ = http1.connect(Origin("http", "localhost", 80), SETTINGS, 0.0)
    target = "localhost:80" if method == "CONNECT" else "/"
    conn, _, _ = http1.request(conn, method, target, (), None, 0.0, method != "CONNECT")
    heads: list[tuple[int, Fields]] = []
    content: list[bytes] = []
    trailers: Fields = ()
    for place in range(len(data) + 1):
        if place < len(data):
            conn, _, events = http1.receive(conn, data[place : place + 1], 0.0)
        else:
            conn, events = http1.closed(conn, 0.0, 0, True)
        for event in events:
            if isinstance(event, InterimReceived | ResponseReceived):
                heads.append((event.status, event.fields))
            elif isinstance(event, DataReceived):
                content.append(event.data)
            elif isinstance(event, TrailersReceived):
                trailers = event.fields
            elif isinstance(event, RequestFailed):
                return Reading(False, tuple(heads), b"".join(content), why=event.failure.message)
            elif isinstance(event, ResponseEnded | Upgraded):
                taken = place + 1 if place < len(data) else UNTIL_CLOSE
                return Reading(True, tuple(heads), b"".join(content), trailers, taken)
    raise AssertionError("neither complete nor failed")


def read_h11(data: bytes, method: str) -> Reading:
    """By `h11`."""
    conn = h11.Connection(h11.CLIENT)
    target = "localhost:80" if method == "CONNECT" else "/"
    conn.send(h11.Request(method=method, target=target, headers=[("Host", "localhost")]))
    conn.send(h11.EndOfMessage())
    heads: list[tuple[int, Fields]] = []
    content: list[bytes] = []
    try:
        for piece in (data, b""):  # and then the end
            conn.receive_data(piece)
            while (event := conn.next_event()) is not h11.NEED_DATA:
                if event is h11.PAUSED:  # what follows the head is a tunnel's
                    taken = len(data) - len(conn.trailing_data[0])
                    return Reading(True, tuple(heads), b"".join(content), (), taken)
                if isinstance(event, h11.InformationalResponse | h11.Response):
                    heads.append((event.status_code, tuple([(name, value) for name, value in event.headers])))
                elif isinstance(event, h11.Data):
                    content.append(bytes(event.data))
                elif isinstance(event, h11.EndOfMessage):
                    trailers = tuple([(name, value) for name, value in event.headers])
                    taken = len(data) - len(conn.trailing_data[0]) if piece else UNTIL_CLOSE
                    return Reading(True, tuple(heads), b"".join(content), trailers, taken)
                elif isinstance(event, h11.ConnectionClosed):
                    return Reading(False, tuple(heads), b"".join(content), why="closed")
    except h11.RemoteProtocolError as error:
        return Reading(False, tuple(heads), b"".join(content), why=str(error))
    return Reading(False, tuple(heads), b"".join(content), why="cut short")


class Protocol:
    """What llhttp calls."""

    def __init__(self) -> None:
        self.fields: list[tuple[bytes, bytes]] = []
        self.statuses: list[tuple[int, Fields]] = []
        self.content: list[bytes] = []
        self.parser: httptools.HttpResponseParser | None = None
        self.headed = False
        self.done = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name.lower(), value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        assert self.parser is not None
        status = self.parser.get_status_code()
        self.statuses.append((status, tuple(self.fields)))
        self.fields = []
        self.headed = status >= 200

    def on_body(self, data: bytes) -> None:
        self.content.append(data)

    def on_message_complete(self) -> None:
        self.done = self.headed


def read_llhttp(data: bytes) -> Reading:
    """By llhttp, as strict as it can be. It is not told the method, and not the end of the connection: what is neither
    wrong nor complete then ends with the connection, or was cut short."""
    protocol = Protocol()
    parser = protocol.parser = httptools.HttpResponseParser(protocol)
    for place in range(len(data)):
        try:
            parser.feed_data(data[place : place + 1])
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            return Reading(False, tuple(protocol.statuses), b"".join(protocol.content), why=f"{error!r}")
        if protocol.done:
            content = b"".join(protocol.content)
            return Reading(True, tuple(protocol.statuses), content, tuple(protocol.fields), place + 1)
    return Reading(protocol.headed, tuple(protocol.statuses), b"".join(protocol.content), (), UNTIL_CLOSE)
