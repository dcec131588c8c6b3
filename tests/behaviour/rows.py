"""The behaviours: what is done to a client, what is seen, and what is right."""

import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final, NamedTuple

from tests.behaviour.peer import HEADERS, PING, WINDOW_UPDATE, Connection, Peer
from tests.behaviour.subjects import Column, Subject
from tests.net.thread_server import ThreadServer, read_head

MIB: Final = 2**20
CODES: Final = {0: "NO_ERROR", 5: "STREAM_CLOSED", 7: "REFUSED_STREAM", 8: "CANCEL"}

Measure = Callable[[Column], str]


class Row(NamedTuple):
    """A behaviour. `right`: whether this is what a column of ours should say."""

    what: str
    measure: Measure
    right: Callable[[Column, str], bool]


@contextmanager
def opened(column: Column, http2: bool = True) -> Iterator[Subject]:
    """A client of this column."""
    subject = column.open(http2)
    try:
        yield subject
    finally:
        subject.close()


def tried(column: Column, work: Callable[[], object], fine: str = "yes") -> str:
    """What came of it: `fine`, or the client's own error, or one that is not its own."""
    try:
        work()
    except column.errors as error:
        return f"no ({type(error).__name__})"
    except Exception as error:
        return f"no (foreign: {type(error).__module__.partition('.')[0]}.{type(error).__name__})"
    return fine


def by_path(conn: Connection, stream: int, path: str) -> None:
    """/wait is not answered, /<number> with so many bytes, all else with two."""
    name = path.removeprefix("/")
    if name != "wait":
        conn.answer(stream, int(name) if name.isdigit() else 2)


def said_resets(peer: Peer, seconds: float = 0.5) -> str:
    """Whether RST_STREAM came, with which code, and how many more than one."""
    peer.wait(lambda: peer.resets, seconds)
    if not peer.resets:
        return "no"
    extra = f", +{len(peer.resets) - 1}" if len(peer.resets) > 1 else ""
    return f"yes ({CODES.get(peer.resets[0][1], str(peer.resets[0][1]))}{extra})"


# Streams


def given_up(column: Column) -> str:
    with Peer(by_path) as peer, opened(column) as subject:
        subject.give_up(f"{peer.url}/wait", lambda: peer.wait(lambda: peer.paths("/wait")))
        return subject.rest(lambda: said_resets(peer))


def abandoned(column: Column) -> str:
    with Peer(by_path) as peer, opened(column) as subject:
        subject.abandon(f"{peer.url}/{20 * MIB}", 100_000)
        return subject.rest(lambda: said_resets(peer))


def after_abandoned(column: Column) -> str:
    """Eight of them: more than any connection's window, even where each leaves but a part of it behind."""
    with Peer(by_path) as peer, opened(column) as subject:
        for _ in range(8):
            subject.abandon(f"{peer.url}/{20 * MIB}", 100_000)
        # The first ones may still come among what is left of them, which then takes the rest of the window away.
        return tried(column, lambda: [subject.get(f"{peer.url}/100000", timeout=1.0) for _ in range(20)])


def exhausted(column: Column) -> str:
    """Three requests that are given up where the peer allows three streams, and refuses what is more; the next one."""

    def act(conn: Connection, stream: int, path: str) -> None:
        if path != "/wait":
            if peer.paths("/wait") - len(peer.resets) < 3:
                conn.answer(stream)
            else:
                conn.reset(stream, 7)

    def given(count: int) -> None:
        peer.wait(lambda: peer.paths("/wait") == count)

    with Peer(act, streams=3) as peer, opened(column) as subject:
        for count in (1, 2, 3):
            subject.give_up(f"{peer.url}/wait", partial(given, count))
        said = tried(column, lambda: subject.get(peer.url, timeout=2.0))
        return said if len(peer.connections) == 1 else "no (another connection)"


def beside(column: Column) -> str:
    """A limit of 0.3 s for a silent stream, beside one that is lively for 1 s."""

    def act(conn: Connection, stream: int, path: str) -> None:
        if path == "/lively":
            conn.head(stream)
            for number in range(1, 20):
                conn.later(number / 20, lambda: conn.send(0, 0, stream, b"x"))
            conn.later(1.0, lambda: conn.send(0, 1, stream, b"x"))

    seen: list[tuple[float, bytes]] = []
    with Peer(act) as peer, opened(column) as subject:
        urls = (f"{peer.url}/silent", f"{peer.url}/lively")
        said = tried(column, lambda: seen.append(subject.beside(*urls, 0.3)))
    if not seen:
        return f"ends both{said.removeprefix('no')}"
    return f"at {seen[0][0]:.1f} s, the other {'whole' if len(seen[0][1]) == 20 else 'broken'}"


def pushed(column: Column) -> str:
    """What the peer could send until it had to stop for 0.3 s."""

    def stalled() -> None:
        seen, since = -1, time.monotonic()
        while time.monotonic() - since < 0.3:
            if peer.sent != seen:
                seen, since = peer.sent, time.monotonic()
            peer.wait(lambda: False, 0.02)

    with Peer(by_path) as peer, opened(column) as subject:
        subject.hold(f"{peer.url}/{64 * MIB}", stalled)
        return f"{peer.sent / MIB:.1f} MiB"


# Ends of connections


def graceful(column: Column) -> str:
    """GOAWAY that names the running stream, whose response comes later."""

    def act(conn: Connection, stream: int, path: str) -> None:
        conn.goaway(stream)
        conn.later(0.1, lambda: conn.answer(stream, 1000))

    with Peer(act) as peer, opened(column) as subject:
        return tried(column, lambda: subject.get(peer.url))


def above(last: int) -> Measure:
    """GOAWAY with this last stream id, to a request above it."""

    def act(conn: Connection, stream: int, path: str) -> None:
        if path == "/above" and conn.number == 0:
            conn.goaway(last)
        else:
            conn.answer(stream)

    def measure(column: Column) -> str:
        with Peer(act) as peer, opened(column) as subject:
            subject.get(f"{peer.url}/first")
            return tried(column, lambda: subject.get(f"{peer.url}/above"))

    return measure


def refused(column: Column) -> str:
    def act(conn: Connection, stream: int, path: str) -> None:
        if len(peer.requests) == 1:
            conn.reset(stream, 7)
        else:
            conn.answer(stream)

    with Peer(act) as peer, opened(column) as subject:
        return tried(column, lambda: subject.get(peer.url))


# Responses


def short(column: Column) -> str:
    """content-length 10, and 5 bytes."""

    def act(conn: Connection, stream: int, path: str) -> None:
        conn.head(stream, ("content-length", "10"))
        conn.content(stream, 5)

    with Peer(act) as peer, opened(column) as subject:
        return tried(column, lambda: subject.get(peer.url), "taken")


def bomb(column: Column) -> str:
    """A field of 4,000 bytes, and 2,000 references to it: 8 MB of fields in 6 kB (RFC 7541 §6.1). Two references are fine."""

    def act(conn: Connection, stream: int, path: str) -> None:
        length = b"\x7f\xa1\x1e"  # 127 + 3873, not Huffman coded
        conn.send(HEADERS, 5, stream, b"\x88\x40\x01x" + length + b"v" * 4000 + b"\xbe" * int(path.removeprefix("/")))

    with Peer(act) as peer, opened(column) as subject:
        assert subject.get(f"{peer.url}/2") == b""
        return tried(column, lambda: subject.get(f"{peer.url}/2000"), "taken")


def late_update(column: Column) -> str:
    """WINDOW_UPDATE on a stream after its end; the next request shows whether the connection has taken it."""

    def act(conn: Connection, stream: int, path: str) -> None:
        conn.head(stream, end=True)
        conn.send(WINDOW_UPDATE, 0, stream, struct.pack(">I", 1000))

    with Peer(act) as peer, opened(column) as subject:

        def twice() -> None:
            subject.get(peer.url)
            subject.get(peer.url)

        said = tried(column, twice)
        return said if len(peer.connections) == 1 else "no (another connection)"


def ping_at_rest(column: Column) -> str:
    """A PING while no request runs."""
    with Peer(by_path) as peer, opened(column) as subject:
        subject.get(peer.url)
        conn = peer.connections[0]
        with peer.changed:
            conn.send(PING, 0, 0, bytes(8))
        if subject.rest(lambda: peer.wait(lambda: conn.acknowledged, 0.5)):
            return "yes"
        subject.get(peer.url)
        return "with the next request" if peer.wait(lambda: conn.acknowledged, 0.5) else "no"


# Requests


def injected(http2: bool) -> Measure:
    """A field value with CR LF in it."""
    evil = {"x-value": "a\r\nx-evil: 1"}

    def measure(column: Column) -> str:
        if http2:
            with Peer(by_path) as peer, opened(column) as subject:
                said = tried(column, lambda: subject.get(peer.url, headers=evil))
                return "reaches the wire" if peer.requests else f"refused{said.removeprefix('no')}"
        wire: list[bytes] = []

        def handle(sock: socket.socket) -> None:
            sock.settimeout(0.5)
            try:
                wire.append(sock.recv(65_536))
                sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            except TimeoutError:
                pass

        with ThreadServer(handle) as server, opened(column, http2=False) as subject:
            said = tried(column, lambda: subject.get(server.url, headers=evil))
            if said.startswith("no"):
                socket.create_connection(("127.0.0.1", server.port)).close()
        return "reaches the wire" if b"x-evil" in b"".join(wire) else f"refused{said.removeprefix('no')}"

    return measure


def deadline(http2: bool) -> Measure:
    """0.5 s in all, and a response that drips for 2 s."""

    def act(conn: Connection, stream: int, path: str) -> None:
        conn.head(stream)
        for number in range(20):
            conn.later(number / 10, lambda: conn.send(0, 0, stream, b"x"))
        conn.later(2.0, lambda: conn.send(0, 1, stream))

    def handle(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\n")
        try:
            for _ in range(20):
                time.sleep(0.1)  # what it does: it drips
                sock.sendall(b"x")
        except OSError:  # the client has gone
            pass

    def measure(column: Column) -> str:
        with opened(column, http2) as subject:
            if http2:
                with Peer(act) as peer:
                    return timed(column, lambda: subject.get(peer.url, total=0.5))
            with ThreadServer(handle) as server:
                return timed(column, lambda: subject.get(server.url, total=0.5))

    return measure


def timed(column: Column, work: Callable[[], object]) -> str:
    """When it was over, by an error or by its own end."""
    began = time.monotonic()
    said = tried(column, work)
    seconds = time.monotonic() - began
    return f"at {seconds:.1f} s" if said.startswith("no") else f"no, ran {seconds:.1f} s"


def early(http2: bool, reset: bool = False) -> Measure:
    """413 to an upload of 40 MB, of which the server reads nothing; it closes after 1 s. `reset`: it says that it wants no
    more by RST_STREAM(NO_ERROR) (RFC 9113 §8.1), and reads on."""

    def act(conn: Connection, stream: int, path: str) -> None:
        conn.head(stream, ("content-length", "0"), status=413, end=True)
        if reset:
            conn.reset(stream, 0)
            return
        conn.reads = False
        conn.later(1.0, conn.close)

    def handle(sock: socket.socket) -> None:
        while b"\r\n\r\n" not in sock.recv(65_536):
            pass
        sock.sendall(b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 0\r\n\r\n")
        time.sleep(1.0)  # what it does: it reads nothing more, and closes only then

    def measure(column: Column) -> str:
        seen: list[tuple[int, float]] = []

        def upload(url: str) -> None:
            began = time.monotonic()
            seen.append((subject.post(url, 40 * MIB), time.monotonic() - began))

        with opened(column, http2) as subject:
            if http2:
                with Peer(act) as peer:
                    said = tried(column, lambda: upload(peer.url))
            else:
                with ThreadServer(handle) as server:
                    said = tried(column, lambda: upload(server.url))
        if not seen:
            return f"lost{said.removeprefix('no')}"
        status, took = seen[0]
        return str(status) if status != 413 else "at once" if took < 0.8 else f"after {took:.1f} s"

    return measure


def announced(column: Column) -> str:
    """The first SETTINGS, and the connection's window."""
    with Peer(by_path) as peer, opened(column) as subject:
        subject.get(peer.url)
        conn = peer.connections[0]
        assert peer.wait(lambda: conn.windows[0] + peer.sent > 65_535, 0.5) or conn.initial
        stream, connection = conn.initial, conn.windows[0] + peer.sent
    push = "off" if conn.settings.get(2) == 0 else "on"
    return f"stream {stream / MIB:.3g} MiB, connection {connection / MIB:.3g} MiB, push {push}"


def says(*words: str) -> Callable[[Column, str], bool]:
    """One of these."""
    return lambda column, said: said in words


def begins(*words: str) -> Callable[[Column, str], bool]:
    """Begins with one of these, and names no foreign error."""
    return lambda column, said: said.startswith(words) and "foreign" not in said


ROWS: Final = (
    Row("a request is left before its head came: RST_STREAM?", given_up, says("yes (CANCEL)")),
    Row("a response is left after 100 kB: RST_STREAM?", abandoned, says("yes (CANCEL)")),
    Row("100 kB responses afterwards", after_abandoned, says("yes")),
    Row("three left where three streams are allowed: the next", exhausted, says("yes")),
    Row(
        "a limit of 0.3 s beside a lively stream",
        beside,
        says(*[f"at {seconds} s, the other whole" for seconds in (0.3, 0.4, 0.5, 0.6, 0.7)]),
    ),
    Row("sent to a reader who reads nothing", pushed, lambda column, said: float(said.split()[0]) <= 2.1),
    Row("GOAWAY that names the running stream: does it end?", graceful, says("yes")),
    Row("GOAWAY with id 0: is the request sent again?", above(0), says("yes")),
    Row("GOAWAY with id 1, request above it: sent again?", above(1), says("yes")),
    Row("REFUSED_STREAM: is the request sent again?", refused, says("yes")),
    Row("content-length 10, 5 bytes", short, says("no (RemoteProtocolError)")),
    Row("8 MB of fields out of 6 kB of HPACK", bomb, says("no (RemoteProtocolError)")),
    Row("WINDOW_UPDATE after END_STREAM: taken?", late_update, says("yes")),
    Row(
        "PING while no request runs: answered?",
        ping_at_rest,
        lambda column, said: said == ("yes" if column.runs_alone else "with the next request"),
    ),
    Row("a field value with CR LF, HTTP/2", injected(True), says("refused (LocalProtocolError)")),
    Row("a field value with CR LF, HTTP/1.1", injected(False), says("refused (LocalProtocolError)")),
    Row("0.5 s in all while content drips, HTTP/2", deadline(True), begins("at 0.5", "at 0.6", "at 0.7", "at 0.8")),
    Row("0.5 s in all while content drips, HTTP/1.1", deadline(False), begins("at 0.5", "at 0.6", "at 0.7", "at 0.8")),
    Row("413 while 40 MB go out, HTTP/2: seen?", early(True), says("at once")),
    Row("413 and RST_STREAM(NO_ERROR) while 40 MB go out: seen?", early(True, reset=True), says("at once")),
    Row("413 while 40 MB go out, HTTP/1.1: seen?", early(False), says("at once")),
    Row("what is announced", announced, says("stream 2 MiB, connection 16 MiB, push off")),
)
