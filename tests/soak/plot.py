"""A soak as a picture: an SVG written by hand, four panels over one time axis."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final
from xml.sax.saxutils import escape

from tests.soak.judge import WARM_UP, Sample, Trend

WIDTH: Final = 1000
LEFT: Final = 74
RIGHT: Final = 190  # where the lines are named
TOP: Final = 92
HEIGHT: Final = 150  # of a panel
GAP: Final = 50
BOTTOM: Final = 52
POINTS: Final = (
    240  # of a line: more samples than that are drawn as their mean, in a band from the lowest to the highest
)

COLOURS: Final = {"threads": "#0065a3", "asyncio": "#c2410c"}
OUTCOMES: Final = {"answered": "#2f855a", "left": "#a0aec0", "timed out": "#d69e2e", "failed": "#9b2c2c"}
MEANINGS: Final = {
    "answered": "complete and right",
    "left": "cancelled, dropped",
    "timed out": "a clock ran out",
    "failed": "the server's doing",
}

Point = tuple[float, float]
Band = tuple[float, float, float, float]  # time, mean, lowest, highest


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers from at most `low` to at least `high`."""
    span = max(high - low, 1e-9)
    power = 10.0 ** math.floor(math.log10(span / most))
    step = next(power * factor for factor in (1, 2, 5, 10) if span / (power * factor) <= most)
    first = math.floor(low / step)
    count = math.ceil(high / step - first - 1e-9)
    return [(first + number) * step for number in range(count + 1)]


def thin(points: Sequence[Point]) -> list[Band]:
    """At most POINTS of them."""
    size = max(1, math.ceil(len(points) / POINTS))
    bands: list[Band] = []
    for start in range(0, len(points), size):
        group = points[start : start + size]
        values = [value for _, value in group]
        middle = math.fsum([time for time, _ in group]) / len(group)
        bands.append((middle, math.fsum(values) / len(values), min(values), max(values)))
    return bands


def rates(samples: Sequence[Sample], name: str) -> list[Point]:
    """How many a second, between one sample and the next."""
    pairs = zip(samples, samples[1:], strict=False)
    return [(b["time"], (b[name] - a[name]) / max(b["time"] - a["time"], 1e-9)) for a, b in pairs]


class Panel:
    """A frame with a time axis from 0 to `seconds` and a value axis that holds `low` and `high`."""

    def __init__(self, number: int, title: str, unit: str, seconds: float, low: float, high: float) -> None:
        self.top = TOP + number * (HEIGHT + GAP)
        self.seconds = seconds
        self.ticks = ticks(low, high)
        self.parts: list[str] = []
        self.labels: list[tuple[float, str, str, str]] = []  # where, colour, text, a second line
        self.grid(title, unit)

    def x(self, time: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * time / self.seconds

    def y(self, value: float) -> float:
        low, high = self.ticks[0], self.ticks[-1]
        return self.top + HEIGHT * (1 - (value - low) / (high - low))

    def text(self, x: float, y: float, words: str, kind: str, more: str = "") -> None:
        self.parts.append(f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}"{more}>{escape(words)}</text>')

    def grid(self, title: str, unit: str) -> None:
        """The frame, the ticks and the warm-up."""
        right, bottom = WIDTH - RIGHT, self.top + HEIGHT
        width = self.x(self.seconds * WARM_UP) - LEFT
        self.parts.append(f'<rect class="warm" x="{LEFT}" y="{self.top}" width="{width:.1f}" height="{HEIGHT}"/>')
        self.text(LEFT, self.top - 10, title, "title")
        self.text(LEFT - 52, self.top + HEIGHT / 2, unit, "axis", rotate(LEFT - 52, self.top + HEIGHT / 2))
        for value in self.ticks:
            y = self.y(value)
            kind = "base" if value == self.ticks[0] else "line"
            self.parts.append(f'<path class="{kind}" d="M{LEFT} {y:.1f}H{right}"/>')
            self.text(LEFT - 8, y + 4, f"{value:g}", "number")
        scale = 60.0 if self.seconds >= 180 else 1.0
        for value in ticks(0, self.seconds / scale, 10):
            if value * scale <= self.seconds * 1.001:
                x = self.x(value * scale)
                self.parts.append(f'<path class="base" d="M{x:.1f} {bottom}v4"/>')
                self.text(x, bottom + 17, f"{value:g}", "tick")

    def line(self, points: Sequence[Point], colour: str, name: str, more: str = "") -> None:
        """A line, with its name at its end."""
        bands = thin(points)
        there = " ".join([f"{self.x(time):.1f},{self.y(high):.1f}" for time, _, _, high in bands])
        back = " ".join([f"{self.x(time):.1f},{self.y(low):.1f}" for time, _, low, _ in reversed(bands)])
        middle = " ".join([f"{self.x(time):.1f},{self.y(mean):.1f}" for time, mean, _, _ in bands])
        self.parts.append(f'<polygon points="{there} {back}" fill="{colour}" opacity="0.16"/>')
        self.parts.append(f'<polyline class="curve" points="{middle}" stroke="{colour}"/>')
        self.labels.append((self.y(bands[-1][1]), colour, name, more))

    def fitted(self, trend: Trend, colour: str) -> None:
        """The line through the samples that are judged."""
        start, end = self.x(trend.begin), self.x(trend.end)
        first, last = self.y(trend.first), self.y(trend.last)
        self.parts.append(f'<path class="fit" d="M{start:.1f} {first:.1f}L{end:.1f} {last:.1f}" stroke="{colour}"/>')

    def stack(self, layers: Sequence[tuple[str, Sequence[Point]]]) -> None:
        """Areas, one on the other."""
        below = [0.0] * POINTS
        for name, points in layers:
            bands = thin(points)
            above = [low + mean for low, (_, mean, _, _) in zip(below, bands, strict=False)]
            there = " ".join([f"{self.x(it[0]):.1f},{self.y(top):.1f}" for it, top in zip(bands, above, strict=True)])
            low = zip(reversed(bands), reversed(below[: len(bands)]), strict=True)
            back = " ".join([f"{self.x(it[0]):.1f},{self.y(bottom):.1f}" for it, bottom in low])
            self.parts.append(f'<polygon points="{there} {back}" fill="{OUTCOMES[name]}" opacity="0.85"/>')
            self.labels.append((self.y((above[-1] + below[len(bands) - 1]) / 2), OUTCOMES[name], name, MEANINGS[name]))
            below = above

    def draw(self) -> str:
        """All of it; the names keep apart from each other."""
        lowest = math.inf
        for y, colour, name, more in sorted(self.labels, reverse=True):
            place = min(y + 4, lowest - (29 if more else 16), self.top + HEIGHT - (13 if more else 0))
            lowest = place
            self.text(WIDTH - RIGHT + 12, place, name, "name", f' style="fill:{colour}"')
            self.text(WIDTH - RIGHT + 12, place + 13, more, "more")
        return "\n".join(self.parts)


def rotate(x: float, y: float) -> str:
    return f' transform="rotate(-90 {x:.1f} {y:.1f})"'


STYLE: Final = """
text { fill: #4a5568; font: 12px "Helvetica Neue", Helvetica, Arial, "Liberation Sans", "DejaVu Sans", sans-serif }
.head { font-size: 20px; font-weight: 600; fill: #1a202c } .sub { font-size: 13px }
.title { font-size: 13px; font-weight: 600; fill: #1a202c } .axis, .tick { text-anchor: middle }
.number { text-anchor: end } .name { font-weight: 600 } .more { font-size: 11px; fill: #718096 }
.warm { fill: #f1f4f8 } .line { stroke: #e2e8f0; fill: none } .base { stroke: #94a3b8; fill: none }
.curve { fill: none; stroke-width: 1.6; stroke-linejoin: round } .fit { fill: none; stroke-dasharray: 5 4; stroke-width: 1.4 }
"""


def draw(runs: Mapping[str, Sequence[Sample]], trends: Mapping[str, Sequence[Trend]], head: str, sub: str) -> str:
    """The picture; `runs` and `trends` by driver."""
    seconds = max([samples[-1]["time"] for samples in runs.values()])
    panels = [
        draw_lines(0, "Memory of the client process", "MiB", runs, trends, "memory", seconds, lambda it: it / 2**20),
        draw_lines(1, "Open descriptors", "descriptors", runs, trends, "descriptors", seconds),
        draw_workers(2, runs, seconds),
        draw_outcomes(3, runs, seconds),
    ]
    height = TOP + 4 * (HEIGHT + GAP) - GAP + BOTTOM
    unit = "minutes" if seconds >= 180 else "seconds"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">',
            f'<style>{STYLE}</style><rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
            f'<text class="head" x="{LEFT}" y="32">{escape(head)}</text>',
            f'<text class="sub" x="{LEFT}" y="54">{escape(sub)}</text>',
            *panels,
            f'<text class="axis" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{height - 12}">{unit} since the start; '
            "grey: the warm-up, which is not judged; dashed: the line that is fitted to the rest</text>",
            "</svg>\n",
        ]
    )


def draw_lines(
    number: int,
    title: str,
    unit: str,
    runs: Mapping[str, Sequence[Sample]],
    trends: Mapping[str, Sequence[Trend]],
    key: str,
    seconds: float,
    scale: Callable[[float], float] = lambda it: it,
) -> str:
    """A line for each driver, with its trend."""
    lines = {driver: [(it["time"], scale(it[key])) for it in samples] for driver, samples in runs.items()}
    values = [value for points in lines.values() for _, value in points]
    panel = Panel(number, title, unit, seconds, 0 if key != "memory" else min(values) - 1, max(values) + 1)
    for driver, points in lines.items():
        more = ""
        for trend in trends.get(driver, ()):
            if trend.measure.key == key:
                panel.fitted(trend, COLOURS[driver])
                sign = "+" if trend.per_minute >= 0 else "−"
                more = f"{sign}{abs(trend.per_minute):.2g} {unit if key == 'memory' else ''} a minute".replace(
                    "  ", " "
                )
        panel.line(points, COLOURS[driver], driver, more)
    return panel.draw()


def draw_workers(number: int, runs: Mapping[str, Sequence[Sample]], seconds: float) -> str:
    """The threads of each process, and the tasks of the one that has some."""
    lines: list[tuple[str, str, list[Point], str]] = []
    for driver, samples in runs.items():
        lines.append(("threads", COLOURS[driver], [(it["time"], it["threads"]) for it in samples], f"of {driver}"))
        if driver == "asyncio":
            lines.append(("tasks", "#7c3aed", [(it["time"], it["tasks"]) for it in samples], f"of {driver}"))
    highest = max([value for _, _, points, _ in lines for _, value in points])
    panel = Panel(number, "Threads and asyncio tasks", "count", seconds, 0, highest + 1)
    for name, colour, points, more in lines:
        panel.line(points, colour, name, more)
    return panel.draw()


def draw_outcomes(number: int, runs: Mapping[str, Sequence[Sample]], seconds: float) -> str:
    """Requests a second of all drivers together, by how they ended."""
    layers: list[tuple[str, list[Point]]] = []
    for name in OUTCOMES:
        each = [rates(samples, name) for samples in runs.values()]
        together = zip(*each, strict=False)
        layers.append((name, [(points[0][0], math.fsum([value for _, value in points])) for points in together]))
    sums = [math.fsum(values) for values in zip(*[[value for _, value in points] for _, points in layers], strict=True)]
    panel = Panel(number, "Requests, by how they ended", "a second", seconds, 0, max(sums, default=1.0))
    panel.stack(layers)
    return panel.draw()
