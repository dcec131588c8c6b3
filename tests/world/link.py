"""The virtual clock, and one direction of a link: latency, bandwidth, stalls, half-close, death, any cutting and joining."""

from collections import deque
from dataclasses import dataclass
from random import Random

from tests.world.plans import INFINITY


class Clock:
    """Time stands still until somebody moves it; it never goes back."""

    __slots__ = ("now",)

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def advance(self, time: float) -> None:
        if time > self.now:
            self.now = time


@dataclass(slots=True)
class Path:
    """What a direction of a link is like."""

    latency: float = 0.005
    bandwidth: float = 10e6  # bytes a second
    capacity: int = 1 << 20  # bytes on the way, after which the sender has to wait
    cut: float = 0.0  # the chance that what arrived comes in pieces
    smallest: int = 0  # with it, the sizes of the pieces are between this and `largest`
    largest: int = 4096


class Pipe:
    """Bytes from one end to the other. `write` takes what fits; `read` gives what has arrived."""

    def __init__(self, path: Path, rng: Random) -> None:
        self.path = path
        self.rng = rng
        self.held = 0  # bytes on the way
        self.written = 0
        self.delivered = 0
        self.finished = False  # the writer's end: nothing follows
        self.dead = False  # what is written vanishes, and nothing arrives
        self.broken = False  # both ends have been told so (a TCP reset)
        self._chunks: deque[tuple[float, bytes]] = deque()  # (arrival, bytes)
        self._line_free = 0.0
        self._stalled_until = 0.0
        self._last_arrival = 0.0

    @property
    def room(self) -> int:
        if self.dead:
            return 0 if self.held >= self.path.capacity else self.path.capacity - self.held
        return self.path.capacity - self.held

    def write(self, data: bytes, now: float) -> int:
        """Put as much as fits on the way, and say how much that was."""
        room = self.room
        if room <= 0 or not data:
            return 0
        if len(data) > room:
            data = data[:room]
        size = len(data)
        self.held += size
        self.written += size
        if self.dead:
            return size
        self._line_free = max(now, self._line_free) + size / self.path.bandwidth
        self._last_arrival = max(self._last_arrival, self._line_free + self.path.latency)
        self._chunks.append((self._last_arrival, data))
        return size

    def next_arrival(self) -> float:
        if self.dead or not self._chunks:
            return INFINITY
        return max(self._chunks[0][0], self._stalled_until)

    def end_arrival(self) -> float:
        """When the end of the stream can be read; INFINITY while bytes come first, or no end was written."""
        if not self.finished or self.dead or self._chunks:
            return INFINITY
        return max(self._last_arrival, self._stalled_until)

    def read(self, now: float, most: int) -> bytes:
        """What has arrived by now, joined, or cut where the dice fall; the rest stays for the next read."""
        if self.dead or now < self._stalled_until or not self._chunks or self._chunks[0][0] > now:
            return b""
        if self.path.cut and self.rng.random() < self.path.cut:
            most = min(most, self.rng.randint(max(1, self.path.smallest), self.path.largest))
        taken: list[bytes] = []
        size = 0
        while self._chunks and self._chunks[0][0] <= now and size < most:
            arrival, chunk = self._chunks.popleft()
            if size + len(chunk) > most:
                keep = most - size
                self._chunks.appendleft((arrival, chunk[keep:]))
                chunk = chunk[:keep]
            taken.append(chunk)
            size += len(chunk)
        self.held -= size
        self.delivered += size
        return taken[0] if len(taken) == 1 else b"".join(taken)

    def stall(self, until: float) -> None:
        self._stalled_until = max(self._stalled_until, until)

    def finish(self, now: float) -> None:
        """The writer's half is closed: its end arrives after its bytes."""
        self.finished = True
        self._last_arrival = max(self._last_arrival, now + self.path.latency)

    def die(self) -> None:
        """Silently: from now on nothing arrives, and the sender notices nothing but a full buffer."""
        self.dead = True
        self._chunks.clear()

    def break_(self) -> None:
        """A reset: what was on the way is lost, and both ends know."""
        self.broken = True
        self._chunks.clear()
        self.held = 0

    @property
    def empty(self) -> bool:
        return not self._chunks
