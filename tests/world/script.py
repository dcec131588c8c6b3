"""From a seed to a script: what kind of world it is, and everything that the caller, the server and the link will do in it.

Operations carry their own dice, so that leaving some out (that is how a script is minimised) changes nothing in the others.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from tests.world.link import Path
from tests.world.plans import INFINITY, Habits

Fields = tuple[tuple[bytes, bytes], ...]


@dataclass(slots=True)
class Ask:
    """One request of the workload."""

    key: int
    method: str = "GET"
    size: int = 0  # of its content
    style: str = (
        "whole"  # whole; declared, pieces (chunked), trailers: piece by piece; open: never ended; tunnel, upgrade
    )
    pieces: int = 1
    pause: float = 0.0  # between the pieces; with 0 they wait for WindowOpened
    fields: Fields = ()
    clocks: tuple[float | None, float | None, float | None, float | None] = (60.0, 60.0, 60.0, 600.0)
    timeout: float = INFINITY
    reader: str = "eager"  # eager, slow, never, half (what is left at the end it never gives back)
    reader_pause: float = 0.1
    expect: bool = False
    cancel: str = ""  # now, time, events
    cancel_after: float = 0.0


@dataclass(slots=True)
class Op:
    """Something that happens at a time: `request` with its Ask; `act` of the model; `stall`, `die`, `break`, `end` of the link;
    `close` by the caller; `check`, which uses the connection in ways that must change nothing."""

    time: float
    kind: str
    name: str = ""
    value: float = 0.0
    ask: Ask | None = None


@dataclass(slots=True)
class Scene:
    protocol: str = "h2"
    habits: Habits = field(default_factory=Habits)
    up: Path = field(default_factory=Path)
    down: Path = field(default_factory=Path)
    settings: dict[str, int] = field(default_factory=dict)
    requests: int = 40
    spread: float = 2.0  # seconds in which they are asked for
    acts: tuple[str, ...] = ()
    act_count: int = 0
    faults: tuple[str, ...] = ()  # of the link
    fault_count: int = 0
    uploads: float = 0.3  # chances, per request
    upload_sizes: tuple[int, ...] = (1, 50, 3000, 40000)
    cancels: float = 0.1
    timeouts: float = 0.2
    hurry: float = 0.1  # chance of clocks of a second or so
    endless: float = 0.02  # chance of clocks of None
    readers: tuple[str, ...] = ("eager", "eager", "eager", "slow")
    burst: bool = False  # all at once
    tunnels: float = 0.0
    uses: tuple[str, ...] = ()  # of the connection, besides requests
    use_count: int = 0
    wide: bool = False  # every request has fields of its own


@dataclass(slots=True)
class Script:
    name: str
    seed: int
    scene: Scene
    ops: list[Op]


_CONCURRENT = (1000, 100, 10, 2, 1, 0, 0, 1000, 100)
VALUES: dict[str, tuple[float, ...]] = {
    "settings_concurrent": _CONCURRENT,
    "settings_window": (0, 1000, 10_000, 65_535, 1_000_000, 2**30),
    "settings_table": (0, 0, 30, 100, 4096, 65_536),
    "settings_frame": (16_384, 16_385, 100_000, 2**24 - 1),
    "settings_several": (70_000, 123_456, 4097),
    "ping": (1, 1, 3, 40),
    "unknown": (1, 5, 40),
    "priority": (1, 5, 40),
    "extra_window": (1, 1000, 100_000),
    "goaway": (0, 1),
    "reset_some": (0, 1, 2, 5, 8, 11, 30),
    "forget_some": (1, 2, 10),
    "stop_reading": (0.5, 5.0, 45.0, 100.0),
}


_USES = ("ping", "prioritize", "grow_window", "put_settings", "put_settings")
_SETTINGS: tuple[tuple[str, tuple[float, ...]], ...] = (
    ("stream_window", (100.0, 5000.0, 65_535.0, 500_000.0)),
    ("connection_window", (65_535.0, 300_000.0, 30_000_000.0)),
    ("header_table_size", (0.0, 64.0, 4096.0, 30_000.0)),
    ("max_frame_size", (16_384.0, 60_000.0)),
    ("keepalive", (0.5, 5.0)),
    ("output_budget", (1.0, 5000.0)),
)


def draw_link(rng: Random, scene: Scene, cuts: float = 0.3) -> None:
    for path in (scene.up, scene.down):
        path.latency = rng.choice((0.0, 0.001, 0.02, 0.15))
        path.bandwidth = rng.choice((1e5, 1e6, 1e7, 1e9))
        path.capacity = rng.choice((3000, 30_000, 200_000, 1 << 20))
        path.cut = rng.choice((0.0, cuts, 0.9))
        path.largest = rng.choice((300, 1000, 5000, 20_000))


def draw_settings(rng: Random, scene: Scene) -> None:
    if rng.random() < 0.6:
        scene.settings["stream_window"] = rng.choice((1, 10, 1000, 20_000, 65_535, 2 * 1024 * 1024))
        scene.settings["connection_window"] = rng.choice((65_535, 65_535, 70_000, 200_000, 16 * 1024 * 1024))
        scene.settings["output_budget"] = rng.choice((1, 1000, 20_000, 256 * 1024))
        scene.settings["max_streams"] = rng.choice((1, 3, 20, 100, 1000))
        scene.settings["first_streams"] = rng.choice((1, 10, 100))
        scene.settings["header_table_size"] = rng.choice((0, 100, 4096, 4096, 20_000))
        scene.settings["max_frame_size"] = rng.choice((16_384, 16_384, 100_000))
    if rng.random() < 0.5:
        scene.habits.settings = {3: rng.choice((1, 2, 10, 100, 250)), 4: rng.choice((0, 1000, 5000, 65_535, 200_000))}
        if rng.random() < 0.3:
            scene.habits.settings[1] = rng.choice((0, 50, 4096, 65_536))
        if rng.random() < 0.3:
            scene.habits.settings[5] = rng.choice((16_384, 50_000))
    scene.habits.credit = rng.choice(("eager", "eager", "lazy", "tiny", "slow"))
    scene.habits.settings_pause = rng.choice((0.0, 0.0, 0.0, 0.3))
    scene.habits.ack_pause = rng.choice((0.0, 0.0, 0.05))


def _calm(rng: Random, s: Scene) -> None:
    s.habits.sizes = (0, 1, 100, 2000, 20_000, 300_000)
    s.habits.interim, s.habits.trailers, s.habits.padding, s.habits.split = 0.1, 0.1, 0.1, 0.1


def _whole(rng: Random, s: Scene) -> None:
    """Everything that the protocol has: tunnels, pushes, expectations, settings of ours in flight."""
    draw_settings(rng, s)
    draw_link(rng, s)
    s.tunnels, s.habits.push, s.habits.interim = 0.2, 0.4, 0.2
    s.settings["max_pushes"] = rng.choice((0, 1, 3, 50))
    s.habits.settings[8] = 1
    s.uses, s.use_count, s.uploads, s.habits.early = _USES, 10, 0.5, 0.2
    s.acts, s.act_count = ("settings_window", "settings_concurrent", "reset_some", "forget_some", "ping"), 4
    s.habits.dynamic, s.habits.refuse, s.habits.malformed = 0.6, 0.05, 0.05


def _forgetful(rng: Random, s: Scene) -> None:
    s.habits.forget, s.timeouts, s.hurry, s.habits.long_delay = 0.3, 0.5, 0.3, 0.05
    s.settings["max_streams"] = rng.choice((3, 10, 100))


def _unkind(rng: Random, s: Scene) -> None:
    draw_settings(rng, s)
    s.habits.reset, s.habits.refuse, s.habits.forget, s.habits.malformed = 0.2, 0.1, 0.05, 0.2
    s.habits.dynamic, s.habits.drip, s.habits.early = 0.5, 0.2, 0.2
    s.acts, s.act_count = ("reset_some", "forget_some"), 3


def _settings_storm(rng: Random, s: Scene) -> None:
    draw_settings(rng, s)
    s.acts = ("settings_concurrent", "settings_concurrent", "settings_window", "settings_table", "settings_frame")
    s.acts += ("settings_several", "extra_window")
    s.act_count, s.uploads, s.timeouts, s.wide = 25, 0.5, 0.4, rng.random() < 0.5
    s.habits.dynamic = 0.6


def _goaway(rng: Random, s: Scene) -> None:
    draw_link(rng, s)
    s.acts, s.act_count = ("goaway_warn", "goaway", "goaway", "goaway_error", "reset_some", "close"), 2
    s.habits.delay, s.habits.refuse = 0.5, 0.1


def _storm(rng: Random, s: Scene) -> None:
    """More resets than the pacer lets through at once."""
    s.burst, s.requests, s.cancels, s.uploads = True, rng.choice((100, 650, 700, 800)), 0.97, 0.05
    s.settings.update(max_streams=1000, first_streams=1000)
    s.habits.settings = {3: rng.choice((40, 1000, 1000, 1000))}
    s.habits.delay, s.habits.late, s.habits.after = 1.0, 0.1, 0.1
    s.readers, s.spread = ("eager",), 0.5


def _uploads(rng: Random, s: Scene) -> None:
    draw_link(rng, s, 0.2)
    draw_settings(rng, s)
    s.uploads, s.upload_sizes, s.requests = 0.9, (0, 1, 2000, 30_000, 70_000, 150_000), 25
    s.habits.credit = rng.choice(("eager", "lazy", "tiny", "slow", "never"))
    s.habits.early, s.habits.refuse, s.habits.reset = 0.2, 0.1, 0.1
    s.acts, s.act_count = ("settings_window", "extra_window", "settings_frame"), 5
    s.hurry = 0.2


def _readers(rng: Random, s: Scene) -> None:
    draw_settings(rng, s)
    s.settings["stream_window"] = rng.choice((1000, 20_000, 65_535))
    s.readers = ("slow", "slow", "never", "half", "eager")
    s.habits.sizes, s.requests, s.uploads = (0, 500, 20_000, 90_000), 30, 0.1
    s.habits.padding, s.cancels = 0.4, 0.3


def _late(rng: Random, s: Scene) -> None:
    draw_link(rng, s)
    s.habits.late, s.habits.after, s.habits.dynamic, s.habits.padding = 0.9, 0.5, 0.9, 0.3
    s.cancels, s.habits.split, s.habits.sizes = 0.6, 0.3, (0, 1000, 30_000)
    s.settings["connection_window"] = rng.choice((65_535, 200_000))


def _silent(rng: Random, s: Scene) -> None:
    draw_link(rng, s)
    s.acts, s.act_count = ("stop_reading", "forget_all", "forget_some", "remember"), 4
    s.faults, s.fault_count = ("stall_up", "stall_down", "die"), 2
    s.habits.withhold = frozenset(rng.choice(((), (), ("ping_ack",), ("settings_ack",), ("settings",))))
    s.hurry, s.timeouts, s.cancels, s.spread = 0.4, 0.3, 0.2, 30.0


def _crimes(rng: Random, s: Scene) -> None:
    from tests.world.model_acts import CRIMES, FLOODS, KIND

    draw_settings(rng, s)
    s.habits.malformed, s.habits.dynamic = 0.1, 0.5
    s.acts, s.act_count = rng.choice(((*CRIMES, *KIND), (*FLOODS, *KIND))), 4
    s.requests = 50


def _chatter(rng: Random, s: Scene) -> None:
    """Every kind of frame that means nothing."""
    draw_settings(rng, s)
    s.acts, s.act_count = ("ping", "unknown", "priority", "extra_window", "settings_several"), 15
    s.habits.after, s.habits.interim, s.habits.late, s.cancels = 0.5, 0.4, 0.5, 0.3


def _cuts(rng: Random, s: Scene) -> None:
    """Everything arrives in the smallest of pieces."""
    draw_settings(rng, s)
    for path in (s.up, s.down):
        path.cut, path.largest = 1.0, rng.choice((1, 9, 40, 40))
    s.requests, s.habits.sizes, s.upload_sizes = 15, (0, 1, 100, 300), (1, 50, 300)
    s.habits.split, s.habits.padding, s.habits.dynamic, s.habits.trailers = 0.4, 0.4, 0.5, 0.3
    s.cancels, s.habits.late = 0.3, 0.3


def _broken(rng: Random, s: Scene) -> None:
    draw_link(rng, s)
    draw_settings(rng, s)
    s.faults, s.fault_count = ("stall_up", "stall_down", "break", "end", "half"), 3
    s.uploads, s.habits.drip = 0.4, 0.2


def _mixed(rng: Random, s: Scene) -> None:
    draw_link(rng, s)
    draw_settings(rng, s)
    h = s.habits
    h.forget, h.reset, h.refuse, h.malformed = [rng.choice((0.0, 0.0, 0.05, 0.15)) for _ in range(4)]
    h.early, h.drip, h.interim, h.trailers = [rng.choice((0.0, 0.1, 0.3)) for _ in range(4)]
    h.padding, h.dynamic, h.split, h.late = [rng.choice((0.0, 0.1, 0.5, 0.9)) for _ in range(4)]
    h.after, h.long_delay = rng.choice((0.0, 0.3)), rng.choice((0.0, 0.05))
    s.readers = rng.choice((("eager",), ("eager", "slow"), ("eager", "slow", "never", "half")))
    s.cancels, s.uploads, s.hurry = rng.choice((0.0, 0.1, 0.5)), rng.choice((0.1, 0.5)), rng.choice((0.0, 0.3))
    s.acts = ("settings_concurrent", "settings_window", "settings_table", "ping", "reset_some", "forget_some")
    s.acts += ("extra_window", "stop_reading", "unknown")
    s.act_count = rng.choice((0, 3, 12))
    s.faults, s.fault_count = ("stall_up", "stall_down"), rng.choice((0, 2))
    s.wide = rng.random() < 0.3


def _all(rng: Random, s: Scene) -> None:
    """Everything at once, in any mixture."""
    _mixed(rng, s)
    s.acts += ("settings_table", "settings_frame", "settings_several", "priority", "goaway_warn", "goaway")
    s.uses, s.use_count = _USES, rng.choice((0, 5, 20))
    s.tunnels, s.habits.push = rng.choice((0.0, 0.1, 0.3)), rng.choice((0.0, 0.3))
    s.settings["max_pushes"] = rng.choice((0, 1, 5, 50))
    if rng.random() < 0.5:
        s.habits.settings[8] = 1
    s.faults += ("break", "end", "die")
    s.burst, s.spread = rng.random() < 0.2, rng.choice((0.2, 2.0, 60.0))
    s.timeouts, s.endless = rng.choice((0.0, 0.2, 0.6)), rng.choice((0.0, 0.1))


def _http1(rng: Random, s: Scene) -> None:
    s.protocol, s.uploads, s.requests, s.spread = "http/1.1", 0.3, 30, 1.0
    s.settings["pipeline"] = rng.choice((1, 1, 3, 10))
    s.tunnels = rng.choice((0.0, 0.1))
    s.habits.delay = rng.choice((0.0, 0.0, 0.02))
    s.down.cut, s.down.largest, s.burst = rng.choice((0.0, 0.5)), 3000, rng.choice((False, True))
    s.habits.interim, s.habits.trailers, s.habits.padding = 0.1, 0.2, 0.1
    s.habits.close = rng.choice((0.0, 0.05))


def _http1_pipeline(rng: Random, s: Scene) -> None:
    """Many responses on their way at once, cut anywhere."""
    _http1(rng, s)
    s.settings["pipeline"] = rng.choice((3, 10, 30))
    s.requests, s.burst, s.uploads, s.cancels, s.timeouts, s.hurry, s.tunnels = 40, True, 0.05, 0.02, 0.05, 0.0, 0.02
    s.habits.delay, s.habits.close, s.habits.sizes = 0.0, 0.02, (0, 100, 2000, 6000)
    s.down.cut, s.down.largest = 0.7, 4000
    s.habits.drip, s.faults, s.fault_count = rng.choice((0.0, 0.1)), ("stall_down", "end", "break"), rng.choice((0, 1))


def _http1_unkind(rng: Random, s: Scene) -> None:
    _http1(rng, s)
    draw_settings(rng, s)
    h = s.habits
    h.forget, h.reset, h.malformed, h.early, h.drip, h.close = 0.04, 0.05, 0.05, 0.1, 0.2, 0.1
    s.cancels, s.timeouts, s.hurry = 0.1, 0.3, 0.2
    s.acts, s.act_count = ("close", "garbage", "unasked", "stop_reading", "forget_all", "break"), 2
    s.readers = ("eager", "slow", "never", "half")


def _http1_link(rng: Random, s: Scene) -> None:
    _http1_unkind(rng, s)
    draw_link(rng, s)
    s.faults, s.fault_count = ("stall_up", "stall_down", "break", "end", "half", "die"), 2
    s.upload_sizes = (1, 3000, 70_000, 300_000)


SCENARIOS: dict[str, Callable[[Random, Scene], None]] = {
    "calm": _calm,
    "whole": _whole,
    "forgetful": _forgetful,
    "unkind": _unkind,
    "settings": _settings_storm,
    "goaway": _goaway,
    "storm": _storm,
    "uploads": _uploads,
    "readers": _readers,
    "late": _late,
    "silent": _silent,
    "crimes": _crimes,
    "chatter": _chatter,
    "cuts": _cuts,
    "broken": _broken,
    "mixed": _mixed,
    "all": _all,
    "http1": _http1,
    "http1_pipeline": _http1_pipeline,
    "http1_unkind": _http1_unkind,
    "http1_link": _http1_link,
}


def draw_script(name: str, seed: int) -> Script:
    rng = Random(seed)
    scene = Scene()
    SCENARIOS[name](rng, scene)
    bound(scene)
    ops = []
    for number in range(scene.requests):
        time = 0.0 if scene.burst else rng.random() * scene.spread
        ops.append(Op(time, "request", ask=draw_ask(Random(seed * 7_368_787 + number), Ask(number), scene)))
    for _ in range(scene.act_count):
        act = rng.choice(scene.acts)
        value = rng.choice(VALUES.get(act, (1, 7, 77)))
        ops.append(Op(rng.random() * scene.spread * 1.2, "act", act, value))
    if "settings_concurrent" in scene.acts:  # what was closed is opened again, at last
        ops.append(Op(scene.spread * 1.3, "act", "settings_concurrent", 1000))
    for _ in range(scene.fault_count):
        fault = rng.choice(scene.faults)
        ops.append(Op(rng.random() * scene.spread, fault, value=rng.choice((0.3, 3.0, 8.0, 30.0))))
    for _ in range(scene.use_count):
        use = rng.choice(scene.uses)
        setting = ""
        values: tuple[float, ...] = (0.0, 5.0, 100_000.0, 3_000_000.0)
        if use == "put_settings":
            setting, values = rng.choice(_SETTINGS)
        ops.append(Op(rng.random() * scene.spread, use, setting, rng.choice(values)))
    if rng.random() < 0.1:
        ops.append(Op(rng.random() * scene.spread, "close"))
    ops.sort(key=lambda op: op.time)
    return Script(name, seed, scene, ops)


def bound(scene: Scene) -> None:
    """Content is not so large that a tiny window turns it into thousands of frames: a world is many small stories."""
    most = 25 * scene.settings.get("stream_window", 1 << 20)
    if scene.down.cut > 0.5:
        most = min(most, 40 * scene.down.largest)
    scene.habits.sizes = tuple([min(size, most) for size in scene.habits.sizes])
    most = 25 * max(1000, scene.habits.settings.get(4, 65_535))
    if scene.up.cut > 0.5:
        most = min(most, 40 * scene.up.largest)
    scene.upload_sizes = tuple([min(size, most) for size in scene.upload_sizes])


_FIELDS: tuple[Fields, ...] = (
    (),
    ((b"accept", b"*/*"),),
    ((b"user-agent", b"world/1"), (b"accept", b"*/*"), (b"accept-encoding", b"gzip")),
    ((b"authorization", b"Basic dTpw"), (b"x-one", b"1")),
    ((b"cookie", b"a=b; c=d"), (b"te", b"trailers")),
    ((b"X-Long", b"y" * 3000),),
)


def draw_ask(rng: Random, ask: Ask, scene: Scene) -> Ask:
    """What is asked for, drawn into `ask`."""
    chance = rng.random
    ask.fields = rng.choice(_FIELDS) if chance() < 0.9 else _FIELDS[5]
    if scene.wide:
        ask.fields = (
            *ask.fields,
            (f"x-{rng.randrange(9)}".encode(), f"{rng.randrange(50)}".encode() * rng.randrange(40)),
        )
    ask.method = rng.choice(("GET", "GET", "GET", "HEAD", "DELETE", "OPTIONS"))
    if chance() < scene.uploads:
        ask.method = rng.choice(("POST", "PUT", "PATCH"))
        ask.size = rng.choice(scene.upload_sizes)
        ask.style = rng.choice(("whole", "whole", "declared", "pieces", "trailers", "pieces", "open"))
        ask.pieces = rng.choice((1, 2, 5, 20))
        ask.pause = rng.choice((0.0, 0.0, 0.01, 0.3))
        ask.expect = chance() < 0.2
        if ask.style == "open" and chance() < 0.7:
            ask.style = "pieces"
    if scene.tunnels and chance() < scene.tunnels:
        ask.style = "upgrade" if scene.protocol != "h2" and chance() < 0.5 else "tunnel"
        ask.method, ask.size, ask.expect = "GET", rng.choice((0, 10, 5000)), False
        ask.timeout = rng.choice((0.5, 3.0, INFINITY))
    elif chance() < scene.timeouts:
        ask.timeout = rng.choice((0.0, 0.01, 0.1, 1.0, 5.0, 30.0))
    if chance() < scene.hurry:
        ask.clocks = (rng.choice((0.2, 2.0)), rng.choice((0.3, 1.0)), rng.choice((0.5, 2.0)), rng.choice((1.0, 5.0)))
    elif chance() < scene.endless:
        ask.clocks = (None, None, None, None)
    ask.reader = rng.choice(scene.readers)
    ask.reader_pause = rng.choice((0.001, 0.05, 1.0))
    if chance() < scene.cancels:
        ask.cancel = rng.choice(("now", "time", "time", "events"))
        ask.cancel_after = rng.choice((0.0, 0.005, 0.05, 0.6)) if ask.cancel == "time" else float(rng.randrange(5))
    return ask
