"""What the drivers of a pool tell: the logger `calamint`, and the callables of whoever wants to know."""

import logging
from collections.abc import Callable
from typing import Final

from calamint.core.errors import ENHANCE_YOUR_CALM
from calamint.core.pool_state import Report

logger: Final = logging.getLogger("calamint")

Listener = Callable[[Report], None]


class Tracer:
    """Plain callables, each told of one kind of thing with a `Report`; None for what does not matter.

    They run in the thread or task that saw it happen, outside of every lock, and so must not block; what one of them
    raises is logged, and harms nobody.
    """

    def __init__(
        self,
        *,
        request: Listener | None = None,
        dial: Listener | None = None,
        reset: Listener | None = None,
        goaway: Listener | None = None,
        replay: Listener | None = None,
        timeout: Listener | None = None,
        stall: Listener | None = None,
        condemned: Listener | None = None,
    ) -> None:
        self.request = request
        self.dial = dial
        self.reset = reset
        self.goaway = goaway
        self.replay = replay
        self.timeout = timeout
        self.stall = stall
        self.condemned = condemned


def is_wanted(tracer: Tracer | None) -> bool:
    """Whether a pool should tell more than what is wrong."""
    return tracer is not None or logger.isEnabledFor(logging.DEBUG)


def tell(tracer: Tracer | None, report: Report) -> None:
    """Logs a report, a warning where something is wrong, and calls who listens for it."""
    calm = report.kind == "goaway" and report.code == ENHANCE_YOUR_CALM
    level = logging.WARNING if calm or report.kind == "condemned" else logging.DEBUG
    if logger.isEnabledFor(level):
        words = (report.kind, report.origin, report.id, report.text, report.seconds)
        logger.log(level, "%s: %s, connection %d: %s (%.3f s)", *words)
    listener: Listener | None = None if tracer is None else getattr(tracer, report.kind)
    if listener is not None:
        try:
            listener(report)
        except Exception:
            logger.exception("a tracer raised; it was told %r", report)
