"""How far a download is, on a terminal."""

import sys
import time
from typing import TYPE_CHECKING, Final, Protocol, final

if TYPE_CHECKING:
    from rich.console import Console

INTERVAL: Final = 0.1  # seconds between two pictures


class Progress(Protocol):
    """What shows it."""

    def advance(self, size: int) -> None:
        """So many bytes more."""

    def close(self) -> None:
        """Nothing more comes: the last picture stays."""


@final
class Counter:
    """One line of text, written over again and again."""

    def __init__(self, total: int | None) -> None:
        self.total = total
        self.size = 0
        self.began = time.monotonic()
        self.next_at = 0.0

    def advance(self, size: int) -> None:
        """So many bytes more."""
        self.size += size
        if time.monotonic() >= self.next_at:
            self.next_at = time.monotonic() + INTERVAL
            self.show()

    def close(self) -> None:
        """The last picture stays."""
        self.show()
        sys.stderr.write("\n")

    def show(self) -> None:
        """Bytes so far, of how many, and how fast they come."""
        speed = self.size / max(0.001, time.monotonic() - self.began) / 1e6
        known = f" of {self.total:,} bytes, {100 * self.size // self.total} %" if self.total else " bytes"
        sys.stderr.write(f"\r{self.size:,}{known}, {speed:.1f} MB/s ")
        sys.stderr.flush()


@final
class Bar:
    """A live bar, with rich."""

    def __init__(self, console: "Console", total: int | None) -> None:
        from rich import progress

        columns = (
            progress.BarColumn(),
            progress.DownloadColumn(),
            progress.TransferSpeedColumn(),
            progress.TimeRemainingColumn(),
        )
        self.live: Final = progress.Progress(*columns, console=console, auto_refresh=False)
        self.task: Final = self.live.add_task("", total=total)
        self.next_at = 0.0
        self.live.start()

    def advance(self, size: int) -> None:
        """So many bytes more."""
        self.live.advance(self.task, size)
        if time.monotonic() >= self.next_at:
            self.next_at = time.monotonic() + INTERVAL
            self.live.refresh()

    def close(self) -> None:
        """The last picture stays."""
        self.live.refresh()
        self.live.stop()


def open_progress(total: int | None) -> Progress | None:
    """What shows a download of so many bytes, if that is known; None where nobody looks."""
    if sys.stderr is None or not sys.stderr.isatty():
        return None
    try:
        from rich.console import Console
    except ImportError:
        return Counter(total)
    console = Console(stderr=True)
    return Counter(total) if console.is_dumb_terminal else Bar(console, total)
