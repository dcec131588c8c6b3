"""Window arithmetic (RFC 9113 §5.2, §6.9): windows are signed, credit is given at half a window."""

from typing import Final

MAX_WINDOW: Final = 2**31 - 1
DEFAULT_WINDOW: Final = 65_535


def overflows(window: int, increment: int) -> bool:
    """Whether a WINDOW_UPDATE would lift a window above 2^31-1 (§6.9.1)."""
    return window + increment > MAX_WINDOW


def is_due(credit: int, window: int) -> bool:
    """Whether enough has been consumed to tell the peer: half of the window, and never an increment of 0 (§6.9)."""
    return credit > 0 and credit * 2 >= window
