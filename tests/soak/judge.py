"""From samples to a verdict: what has to stay flat, and what flat means."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

Sample = dict[str, float]

WARM_UP: Final = 1 / 3
"""Of a run: in it caches fill (1,024 URLs and keys, 256 TLS sessions, the codecs' tables), and the heap finds its size."""

SHORTEST: Final = 60.0
"""Seconds: what runs for less has not filled its caches, and only its end is judged."""


@dataclass(frozen=True)
class Measure:
    """Something that has to stay flat. `growth`: how far the fitted line may rise over all of the time that is judged;
    `spread`: how far the highest and the lowest value may lie apart. In the unit that is shown, `scale` of a sample's."""

    key: str
    name: str
    unit: str
    scale: float
    growth: float
    spread: float


@dataclass(frozen=True)
class Trend:
    """A line through the samples after the warm-up: its value at their begin and end, and how far they lie apart."""

    measure: Measure
    begin: float  # seconds
    end: float
    first: float
    last: float
    spread: float

    @property
    def per_minute(self) -> float:
        """How much it rises."""
        return (self.last - self.first) * 60 / (self.end - self.begin)

    def complaint(self) -> str:
        """Why this is not flat, or nothing."""
        measure = self.measure
        if self.last - self.first > measure.growth:
            words = f"rises by {self.per_minute:.3g} {measure.unit} a minute, {self.last - self.first:.3g} in all"
            return f"{measure.name} {words} (allowed: {measure.growth:g})"
        if self.spread > measure.spread:
            return f"{measure.name} varies by {self.spread:.3g} {measure.unit} (allowed: {measure.spread:g})"
        return ""

    def describe(self) -> str:
        """In a line."""
        measure = self.measure
        sign = "+" if self.last >= self.first else "−"
        rise = f"{sign}{abs(self.per_minute):.3g} {measure.unit} a minute"
        return f"{measure.name}: {self.first:.4g} → {self.last:.4g} {measure.unit} ({rise}), within {self.spread:.3g}"


def fit(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The line of least squares: its value at 0, and its slope."""
    count = len(points)
    mean_x = math.fsum([x for x, _ in points]) / count
    mean_y = math.fsum([y for _, y in points]) / count
    square = math.fsum([(x - mean_x) ** 2 for x, _ in points])
    slope = math.fsum([(x - mean_x) * (y - mean_y) for x, y in points]) / square if square else 0.0
    return mean_y - slope * mean_x, slope


def trend(samples: Sequence[Sample], measure: Measure) -> Trend:
    """Of the samples after the warm-up, of which there must be two."""
    begin = samples[0]["time"] + (samples[-1]["time"] - samples[0]["time"]) * WARM_UP
    points = [(it["time"], it[measure.key] * measure.scale) for it in samples if it["time"] >= begin]
    start, slope = fit(points)
    first, last = points[0][0], points[-1][0]
    values = [value for _, value in points]
    return Trend(measure, first, last, start + slope * first, start + slope * last, max(values) - min(values))
