"""What the peer saw: a journal that every connection writes into, and reports, which are snapshots of it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final, final

from calamint.core.value import Fields
from calamint.testing.script import Request

KEPT_CONTENT: Final = 64 * 1024


@final
@dataclass(frozen=True, slots=True)
class SeenRequest:
    """A request as it came. `content` is its first 64 KiB; `length` and `sha256` (hexadecimal) are of all of it."""

    number: int
    connection: int
    stream_id: int
    method: str
    target: str
    authority: str
    fields: Fields
    content: bytes
    length: int
    sha256: str
    trailers: Fields
    complete: bool


@final
@dataclass(frozen=True, slots=True)
class Report:
    """What a server has seen so far.

    `connections`: accepted, and `connections_open` now. `streams_open`: now, on all connections; `streams_peak`: the
    most at once on one. On HTTP/1.1 a request that is not answered counts as a stream. `refused`: streams above
    MAX_CONCURRENT_STREAMS, which are not among `requests`.

    What the clients sent, each entry beginning with the number of its connection: `resets` (stream, code) of every
    RST_STREAM, `goaways` (last stream id, code), `settings` (the pairs), `window_updates` (stream, increment). `pings`:
    how many. `protocol_errors`: what clients did wrong, in words; `script_errors`: what the script raised.
    """

    connections: int
    connections_open: int
    requests: tuple[SeenRequest, ...]
    streams_open: int
    streams_peak: int
    refused: int
    resets: tuple[tuple[int, int, int], ...]
    goaways: tuple[tuple[int, int, int], ...]
    settings: tuple[tuple[int, tuple[tuple[int, int], ...]], ...]
    window_updates: tuple[tuple[int, int, int], ...]
    pings: int
    bytes_in: int
    bytes_out: int
    protocol_errors: tuple[str, ...]
    script_errors: tuple[Exception, ...]


@final
class Seen:
    """A request that is coming in."""

    def __init__(
        self,
        number: int,
        connection: int,
        stream_id: int,
        method: str,
        target: str,
        authority: str,
        fields: Fields,
        complete: bool,
    ) -> None:
        self.number: Final = number
        self.connection: Final = connection
        self.stream_id: Final = stream_id
        self.method: Final = method
        self.target: Final = target
        self.authority: Final = authority
        self.fields: Final = fields
        self.content = bytearray()
        self.length = 0
        self.digest = sha256()
        self.trailers: Fields = ()
        self.complete = complete
        self.frozen: SeenRequest | None = None

    def field(self, name: bytes) -> bytes:
        """The first value of this field, in lower case, or nothing."""
        return next((value.lower() for key, value in self.fields if key.lower() == name), b"")

    def add(self, data: bytes) -> None:
        """A piece of content."""
        self.content += data
        self.length += len(data)
        self.digest.update(data)

    def request(self) -> Request:
        """As a script sees it."""
        return Request(
            self.number,
            self.connection,
            self.stream_id,
            self.method,
            self.target,
            self.authority,
            self.fields,
            bytes(self.content),
            self.complete,
        )

    def finish(self) -> None:
        """The script has seen it: from here on the beginning of the content is enough."""
        del self.content[KEPT_CONTENT:]

    def freeze(self) -> SeenRequest:
        """As a report shows it."""
        if self.frozen is not None:
            return self.frozen
        seen = SeenRequest(
            self.number,
            self.connection,
            self.stream_id,
            self.method,
            self.target,
            self.authority,
            self.fields,
            bytes(self.content[:KEPT_CONTENT]),
            self.length,
            self.digest.hexdigest(),
            self.trailers,
            self.complete,
        )
        if self.complete:
            self.frozen = seen
        return seen


@final
@dataclass(slots=True)
class Journal:
    """What the connections of one server write into. Not thread-safe: the server has a lock around it."""

    connections: int = 0
    open: dict[int, Callable[[], int]] = field(default_factory=dict)  # connection → how many streams are open on it
    requests: list[Seen] = field(default_factory=list)
    streams_peak: int = 0
    refused: int = 0
    resets: list[tuple[int, int, int]] = field(default_factory=list)
    goaways: list[tuple[int, int, int]] = field(default_factory=list)
    settings: list[tuple[int, tuple[tuple[int, int], ...]]] = field(default_factory=list)
    window_updates: list[tuple[int, int, int]] = field(default_factory=list)
    pings: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    protocol_errors: list[str] = field(default_factory=list)
    script_errors: list[Exception] = field(default_factory=list)

    def enter(self, open_streams: Callable[[], int]) -> int:
        """Another connection: its number."""
        number = self.connections
        self.connections += 1
        self.open[number] = open_streams
        return number

    def see(
        self, connection: int, stream_id: int, method: str, target: str, authority: str, fields: Fields, complete: bool
    ) -> Seen:
        """Another request."""
        seen = Seen(len(self.requests), connection, stream_id, method, target, authority, fields, complete)
        self.requests.append(seen)
        return seen

    def blame(self, connection: int, what: str) -> None:
        """A client did something wrong."""
        self.protocol_errors.append(f"connection {connection}: {what}")

    def report(self) -> Report:
        """All of it, as it stands now."""
        return Report(
            self.connections,
            len(self.open),
            tuple([seen.freeze() for seen in self.requests]),
            sum([count() for count in self.open.values()]),
            self.streams_peak,
            self.refused,
            tuple(self.resets),
            tuple(self.goaways),
            tuple(self.settings),
            tuple(self.window_updates),
            self.pings,
            self.bytes_in,
            self.bytes_out,
            tuple(self.protocol_errors),
            tuple(self.script_errors),
        )
