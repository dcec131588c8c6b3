"""How long a request may take, and how long it may be silent: `Timeout`."""

from typing import Final, final

from calamint.core.exchange import CLOCKS, Clocks, check_seconds
from calamint.core.value import INFINITY


@final
class Unset:
    """The type of `UNSET`."""

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Final = Unset()
"""What stands for a parameter that was not given, where None means something."""


@final
class Timeout:
    """The limits of a request, in seconds; None for no limit.

    `Timeout(5)`, like `timeout=5`, is `total=5`: all of it, from the call to the last byte of the response, redirects
    included. The others bound what happens meanwhile: `pool` in the queue for a slot (never raised while a connection is
    made for the request); `connect` for DNS, TCP, TLS and proxies; `write` without progress while content is unsent; `head`
    from the last byte of the request to the final response's head, begun again by an interim response; `idle` of silence
    within a response; `reader` in which content waits unread; `expect` for 100 (Continue). `read` stands for `head` and
    `idle`. `timeout=None` sets no limit at all.
    """

    __slots__ = ("total", "connect", "pool", "clocks")

    def __init__(
        self,
        total: "float | Timeout | None" = None,
        *,
        connect: float | None | Unset = UNSET,
        read: float | None | Unset = UNSET,
        write: float | None | Unset = UNSET,
        pool: float | None | Unset = UNSET,
        head: float | None | Unset = UNSET,
        idle: float | None | Unset = UNSET,
        reader: float | None | Unset = UNSET,
        expect: float | None | Unset = UNSET,
    ) -> None:
        known = total if isinstance(total, Timeout) else None
        old = CLOCKS if known is None else known.clocks
        self.total: float | None = total.total if isinstance(total, Timeout) else limit("total", total)
        self.connect: float | None = pick("connect", connect, 10.0 if known is None else known.connect)
        self.pool: float | None = pick("pool", pool, 30.0 if known is None else known.pool)
        self.clocks: Clocks = Clocks(
            pick("head", read if isinstance(head, Unset) else head, limit("head", old.head)),
            pick("idle", read if isinstance(idle, Unset) else idle, limit("idle", old.idle)),
            pick("write", write, limit("write", old.write)),
            pick("reader", reader, limit("reader", old.reader)),
            pick("expect", expect, limit("expect", old.expect)),
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Timeout) and parts(self) == parts(other)

    def __hash__(self) -> int:
        return hash(parts(self))

    def __repr__(self) -> str:
        names = ("total", "connect", "pool", "head", "idle", "write", "reader", "expect")
        return f"Timeout({', '.join([f'{name}={value}' for name, value in zip(names, parts(self), strict=True)])})"


def parts(timeout: Timeout) -> tuple[float | None, ...]:
    """All of its limits, in the order of its repr."""
    clocks = timeout.clocks
    running = (clocks.head, clocks.idle, clocks.write, clocks.reader, clocks.expect)
    return (timeout.total, timeout.connect, timeout.pool, *[limit("clock", value) for value in running])


def limit(name: str, seconds: float | None) -> float | None:
    """The seconds, None for no limit. Raises TypeError and ValueError, naming the parameter."""
    if seconds is not None and not isinstance(seconds, int | float):
        raise TypeError(f"{name}={seconds!r}: write seconds, None for no limit, or a calamint.Timeout")
    return None if check_seconds(name, seconds) == INFINITY else seconds


def pick(name: str, seconds: float | None | Unset, default: float | None) -> float | None:
    """What was given, or the default."""
    return default if isinstance(seconds, Unset) else limit(name, seconds)


OFF: Final = Timeout(None, connect=None, read=None, write=None, pool=None, reader=None, expect=None)
DEFAULT: Final = Timeout()


def to_timeout(timeout: float | Timeout | None) -> Timeout:
    """A caller's `timeout` in full."""
    if timeout is None:
        return OFF
    return timeout if isinstance(timeout, Timeout) else Timeout(timeout)
