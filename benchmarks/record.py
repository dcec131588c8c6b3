"""Record what real servers send on one clear HTTP/2 connection, for `micro.py`.

    python -m benchmarks.record [--rounds N] [--requests N]

Starts the servers of ``tests/servers``, so it needs ``trustme`` as the tests do. A recording suits every client
engine that opens streams 1, 3, 5, ... in order, asks for nothing but the path, and sends these two SETTINGS: nothing
else that a client says changes what comes back. Frames are written by hand rather than by a client engine in order
not to send more than that; HEADER_TABLE_SIZE, for instance, would make nghttp2 answer with a table size update.
"""

import argparse
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from hpack import Encoder
from hyperframe.frame import Frame, HeadersFrame, SettingsFrame, WindowUpdateFrame

from benchmarks.micro import CONNECTION_WINDOW, DEFAULT_WINDOW, STREAM_WINDOW, Recording, request_fields, save
from tests import servers

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
READ_SIZE = 256 * 1024
FRAME_HEADER = 9
DATA, HEADERS, SETTINGS = 0, 1, 4
END_STREAM = ACK = 1
TIMEOUT = 30.0
SCENARIOS = {"repeated": "/small", "unique": "/unique"}
WANTED = (("nghttpd", "repeated"), ("nginx", "repeated"), ("nginx", "unique"), ("node", "unique"))
VERSION_ARGUMENT = {"nginx": "-v", "nghttpd": "--version", "node": "--version"}


class Wire:
    """A connection that keeps what it reads and knows just enough of frames to see streams end."""

    def __init__(self, connection: socket.socket, path: str) -> None:
        self.connection = connection
        self.fields = request_fields(path)
        self.encoder = Encoder()
        self.next_stream = 1
        self.rest = b""
        values = {SettingsFrame.ENABLE_PUSH: 0, SettingsFrame.INITIAL_WINDOW_SIZE: STREAM_WINDOW}
        settings = SettingsFrame(settings=values)
        window = WindowUpdateFrame(0, window_increment=CONNECTION_WINDOW - DEFAULT_WINDOW)
        self.connection.sendall(PREFACE + settings.serialize() + window.serialize())

    def round(self, requests: int) -> tuple[bytes, ...]:
        """Send concurrent requests in one write; the chunks read until all have ended."""
        self.connection.sendall(b"".join(self._request() for _ in range(requests)))
        chunks = []
        while requests > 0:
            chunk = self.connection.recv(READ_SIZE)
            if not chunk:
                raise ConnectionError(f"the server closed the connection with {requests} requests open")
            chunks.append(chunk)
            requests -= sum(self._note(kind, flags) for kind, flags in self._frames(chunk))
        return tuple(chunks)

    def _request(self) -> bytes:
        frame: Frame = HeadersFrame(
            self.next_stream, self.encoder.encode(self.fields), flags=["END_STREAM", "END_HEADERS"]
        )
        self.next_stream += 2
        return frame.serialize()

    def _frames(self, chunk: bytes) -> Iterator[tuple[int, int]]:
        """Type and flags of each frame that the chunk completes."""
        self.rest += chunk
        while len(self.rest) >= FRAME_HEADER:
            end = FRAME_HEADER + int.from_bytes(self.rest[:3], "big")
            if len(self.rest) < end:
                return
            kind, flags = self.rest[3], self.rest[4]
            self.rest = self.rest[end:]
            yield kind, flags

    def _note(self, kind: int, flags: int) -> bool:
        """Acknowledge SETTINGS; True for a frame that ends a stream; anything unusual would spoil the recording."""
        if kind == SETTINGS:
            if not flags & ACK:
                self.connection.sendall(SettingsFrame(flags=["ACK"]).serialize())
            return False
        if kind in (DATA, HEADERS):
            return bool(flags & END_STREAM)
        if kind != WindowUpdateFrame.type:
            raise ConnectionError(f"unexpected frame of type {kind}")
        return False


def version(name: str) -> str:
    """The server's version number, and that of nghttp2 within node."""
    command = [servers.find_binary(name, name), VERSION_ARGUMENT[name]]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    match = re.search(r"\d+\.\d+\.\d+", done.stdout)
    if match is None:
        raise ValueError(f"no version in {done.stdout!r}")
    if name != "node":
        return match[0]
    command = [command[0], "--print", "process.versions.nghttp2"]
    library = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    return f"{match[0]} (nghttp2 {library})"


def record(server: servers.Server, scenario: str, requests: int, rounds: int) -> Recording:
    """Talk to a server over one connection."""
    url, path = urlsplit(server.urls["h2c"]), SCENARIOS[scenario]
    with socket.create_connection((url.hostname, url.port), timeout=TIMEOUT) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        wire = Wire(connection, path)
        turns = tuple(wire.round(requests) for _ in range(rounds))
    name = f"{server.name}-{scenario}"
    return Recording(name, server.name, version(server.name), scenario, path, requests, turns)


@contextmanager
def started() -> Iterator[dict[str, servers.Server]]:
    """All servers that are to be recorded."""
    with tempfile.TemporaryDirectory() as top, ExitStack() as stack:
        base = Path(top)
        for name in ("ca", "nginx", "nghttpd", "node"):
            (base / name).mkdir()
        docroot, ca = servers.write_docroot(base / "docroot"), servers.PrivateCa(base / "ca")
        node = stack.enter_context(servers.node(base / "node", docroot, ca))
        nginx = stack.enter_context(servers.nginx(base / "nginx", docroot, ca, node))
        nghttpd = stack.enter_context(servers.nghttpd(base / "nghttpd", docroot, ca))
        yield {"node": node, "nginx": nginx, "nghttpd": nghttpd}


def main(arguments: Sequence[str] | None = None) -> None:
    """Write all recordings anew."""
    parser = argparse.ArgumentParser(description="Record what real servers send over HTTP/2.")
    parser.add_argument("--rounds", type=int, default=5, help="rounds per connection (default: %(default)s)")
    parser.add_argument("--requests", type=int, default=100, help="requests per round (default: %(default)s)")
    options = parser.parse_args(arguments)
    with started() as running:
        for name, scenario in WANTED:
            path = save(record(running[name], scenario, options.requests, options.rounds))
            sys.stdout.write(f"{path.name}: {path.stat().st_size} bytes\n")


if __name__ == "__main__":
    main()
