"""From a seed to the script of a pool's world: the keys and what they speak, limits, dials, requests, and what goes wrong."""

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from tests.world.model_acts import KIND
from tests.world.script import VALUES, Ask, Op, Scene, Script, bound, draw_ask, draw_link, draw_settings


@dataclass(slots=True)
class PoolAsk(Ask):
    """One request of the workload, as it is asked of a pool."""

    place: int = 0
    queue: float | None = 30.0
    connect: float | None = 10.0
    replay: bool = True


@dataclass(slots=True)
class Place:
    """A key: what may be spoken, and what its servers speak."""

    protocols: tuple[str, ...]
    speaks: str
    fickle: float = 0.0  # the chance, per connection, of another protocol


BOTH = ("h2", "http/1.1")
PLACES = (
    Place(BOTH, "h2"),
    Place(BOTH, "http/1.1"),
    Place(("http/1.1",), "http/1.1"),
    Place(("h2",), "h2"),
    Place(BOTH, "h2", 0.3),
)


@dataclass(slots=True)
class PoolScene(Scene):
    places: tuple[Place, ...] = PLACES[:3]
    limits: dict[str, float | None] = field(default_factory=dict)
    dial_times: tuple[float, ...] = (0.0, 0.01, 0.1)
    dial_fails: float = 0.0  # chances, per dial
    dial_hangs: float = 0.0
    dial_late: float = 0.0  # that it is reported although the pool has given it up
    tires: tuple[float, ...] = ()  # seconds after which a server closes a connection that is idle
    impatient: float = 0.0  # chance of short limits for queue and dial
    hasty: bool = False  # whoever cancels does so at once, or nearly
    once: float = 0.1  # chance of replay=False
    mistakes: int = 2  # calls that are wrong
    closes: float = 0.2  # chance that the pool is closed while requests run


# What a caller may get wrong; each has to raise and to change nothing.
MISTAKES = ("method", "target", "field", "length", "over", "twice", "consume", "queue", "connect", "closing")
_ROUGH: dict[str, tuple[float, ...]] = {
    "reset_some": (0, 1, 2, 7, 7, 8, 13),
    "settings_concurrent": (0, 0, 1, 2, 5, 100),
}


def _calm(rng: Random, s: PoolScene) -> None:
    s.habits.interim, s.habits.trailers, s.habits.delay = 0.1, 0.1, rng.choice((0.0, 0.02, 0.3))
    s.places = PLACES[:4]


def _small(rng: Random, s: PoolScene) -> None:
    """Limits that bind."""
    s.limits = {
        "max_connections": rng.choice((1, 1, 2, 3, 5)),
        "max_per_origin": rng.choice((1, 1, 2, 3)),
        "max_keepalive_connections": rng.choice((0, 1, 1, 2, 20)),
        "keepalive_expiry": rng.choice((None, 0.0, 0.05, 0.3, 2.0)),
        "max_age": rng.choice((None, None, 0.05, 0.4, 3.0)),
    }
    s.settings["max_streams"] = rng.choice((1, 2, 5, 100))
    s.settings["first_streams"] = rng.choice((1, 2, 100))
    s.habits.settings = {3: rng.choice((1, 2, 3, 100))}


def _tight(rng: Random, s: PoolScene) -> None:
    _small(rng, s)
    s.places = rng.choice((PLACES[:2], PLACES[:4], (PLACES[2],), (PLACES[0],)))
    s.habits.delay, s.spread = rng.choice((0.02, 0.2, 1.0)), rng.choice((0.5, 2.0, 10.0))
    s.habits.keep_alive, s.burst = rng.choice((0, 0, 1, 3)), rng.random() < 0.2
    s.impatient, s.cancels = rng.choice((0.0, 0.3)), rng.choice((0.0, 0.2))


def _cold(rng: Random, s: PoolScene) -> None:
    """Dials that fail, hang, come late; callers who do not wait for them."""
    if rng.random() < 0.5:
        _small(rng, s)
    s.dial_times = rng.choice(((0.0, 0.1), (0.01, 1.0, 9.0), (0.05, 5.0, 15.0)))
    s.dial_fails, s.dial_hangs, s.dial_late = (
        rng.choice((0.1, 0.4)),
        rng.choice((0.0, 0.1, 0.4)),
        rng.choice((0.0, 0.5, 1.0)),
    )
    s.impatient, s.cancels, s.spread = rng.choice((0.1, 0.6)), 0.2, rng.choice((0.5, 5.0, 30.0))
    s.habits.requests_per_connection = rng.choice((0, 0, 1, 3))
    s.acts, s.act_count = ("goaway", "goaway_warn", "close"), rng.choice((0, 2))


def _goaway(rng: Random, s: PoolScene) -> None:
    draw_link(rng, s)
    s.acts, s.act_count = ("goaway_warn", "goaway", "goaway", "goaway_error", "reset_some", "restart", "close"), 5
    s.habits.delay, s.habits.refuse = rng.choice((0.1, 0.5)), rng.choice((0.0, 0.1))
    if rng.random() < 0.3:
        _small(rng, s)


def _streams(rng: Random, s: PoolScene) -> None:
    """Limits of the peer that fall to 0 and rise."""
    s.places = (PLACES[0], PLACES[3])
    s.limits = {"max_per_origin": rng.choice((1, 1, 2)), "max_connections": rng.choice((1, 2, 100))}
    s.settings["max_streams"], s.settings["first_streams"] = rng.choice((2, 10, 100)), rng.choice((1, 10, 100))
    s.habits.settings = {3: rng.choice((0, 1, 2, 10))}
    s.acts, s.act_count, s.spread = ("settings_concurrent",), 15, rng.choice((1.0, 5.0))
    s.habits.refuse, s.habits.settings_pause = rng.choice((0.0, 0.1)), rng.choice((0.0, 0.0, 0.3))


def _http1(rng: Random, s: PoolScene) -> None:
    if rng.random() < 0.6:
        _small(rng, s)
    s.places = (PLACES[1], PLACES[2])
    h = s.habits
    h.close, h.reset, h.keep_alive = rng.choice((0.0, 0.1)), rng.choice((0.0, 0.05, 0.2)), rng.choice((0, 0, 1, 5))
    h.requests_per_connection, h.early, h.drip = rng.choice((0, 0, 1, 2)), 0.05, 0.1
    s.tires = rng.choice(((), (0.0, 0.001, 0.02), (0.3, 2.0)))
    s.acts, s.act_count = ("close", "garbage", "unasked", "break", "stop_reading"), rng.choice((0, 2, 5))
    s.spread, s.uploads, s.down.latency = rng.choice((0.5, 3.0)), 0.3, rng.choice((0.001, 0.03))
    s.down.cut, s.down.largest = rng.choice((0.0, 0.6)), 40
    s.faults, s.fault_count = ("break", "end", "stall_up"), rng.choice((0, 4))
    if rng.random() < 0.3:  # so little fits that requests do not leave at once
        s.up.capacity, s.fault_count, h.reset, s.tires = 300, 12, 0.3, (0.0, 0.01)
    s.dial_fails, s.impatient, s.timeouts = rng.choice((0.0, 0.0, 0.3)), rng.choice((0.0, 0.3)), rng.choice((0.2, 0.6))


def _unkind(rng: Random, s: PoolScene) -> None:
    draw_settings(rng, s)
    h = s.habits
    h.reset, h.refuse, h.forget, h.malformed = 0.1, rng.choice((0.1, 0.3)), 0.03, rng.choice((0.0, 0.1))
    h.dynamic, h.drip, h.early = 0.4, 0.1, 0.2
    s.acts, s.act_count = ("reset_some", "reset_some", "forget_some", "goaway", "forget_all"), 3
    s.timeouts, s.hurry = 0.3, 0.3


def _link(rng: Random, s: PoolScene) -> None:
    draw_link(rng, s)
    if rng.random() < 0.5:
        _small(rng, s)
    s.faults, s.fault_count = ("stall_up", "stall_down", "break", "end", "half", "die"), rng.choice((2, 6))
    s.tires, s.dial_fails = rng.choice(((), (0.01, 1.0))), rng.choice((0.0, 0.1))
    s.habits.sizes, s.upload_sizes = (0, 100, 5000, 30_000), (1, 3000, 70_000)


def _uploads(rng: Random, s: PoolScene) -> None:
    """Content that comes while its request waits, and afterwards."""
    draw_settings(rng, s)
    if rng.random() < 0.5:
        _small(rng, s)
    s.uploads, s.upload_sizes, s.requests = 0.9, (0, 1, 2000, 30_000), 25
    s.dial_times = (0.0, 0.05, 0.5)
    s.habits.credit, s.habits.early = rng.choice(("eager", "lazy", "tiny", "slow")), 0.1
    s.habits.refuse, s.habits.reset = 0.1, 0.1


def _cancels(rng: Random, s: PoolScene) -> None:
    if rng.random() < 0.7:
        _small(rng, s)
    s.cancels, s.dial_times, s.spread = 0.7, (0.0, 0.05, 1.0), rng.choice((0.2, 2.0))
    s.habits.delay, s.habits.late, s.tunnels = rng.choice((0.05, 1.0)), 0.3, rng.choice((0.0, 0.1))


def _burden(rng: Random, s: PoolScene) -> None:
    """More resets than the pacer lets through at once: a connection whose slots they hold takes nothing new."""
    s.places, s.requests, s.cancels, s.uploads, s.spread = (PLACES[0],), 640, 0.99, 0.02, rng.choice((0.2, 0.5))
    s.settings.update(max_streams=rng.choice((20, 50, 100)), first_streams=100)
    s.habits.delay, s.habits.long_delay, s.readers, s.mistakes = 1.0, 0.0, ("eager",), 0
    s.limits, s.hasty = {"max_per_origin": rng.choice((1, 2))}, True


def _old(rng: Random, s: PoolScene) -> None:
    """Servers of two minds: another protocol at each connection, HTTP_1_1_REQUIRED."""
    if rng.random() < 0.3:
        _small(rng, s)
    else:
        s.habits.settings, s.limits = {3: rng.choice((1, 2, 10))}, {"keepalive_expiry": rng.choice((None, 1.0))}
    s.places = rng.choice(((PLACES[4], PLACES[3]), (PLACES[0],), (PLACES[4],)))
    s.habits.reset, s.habits.refuse, s.habits.delay = rng.choice((0.0, 0.1)), 0.05, rng.choice((0.02, 0.3))
    s.acts, s.act_count = ("reset_some", "reset_some", "goaway"), 4
    s.dial_fails, s.dial_times = rng.choice((0.0, 0.1)), rng.choice(((0.0, 0.01), (0.1, 0.5)))


def _crimes(rng: Random, s: PoolScene) -> None:
    from tests.world.model_acts import CRIMES

    s.acts, s.act_count = (*CRIMES, *KIND, "garbage", "unasked", "break"), 4
    s.habits.malformed = 0.1


def _all(rng: Random, s: PoolScene) -> None:
    """Everything at once, in any mixture."""
    if rng.random() < 0.5:
        draw_link(rng, s)
    if rng.random() < 0.5:
        draw_settings(rng, s)
    if rng.random() < 0.6:
        _small(rng, s)
    s.places = tuple(rng.sample(PLACES, rng.choice((1, 2, 4))))
    h = s.habits
    h.forget, h.reset, h.refuse, h.malformed = [rng.choice((0.0, 0.0, 0.05, 0.15)) for _ in range(4)]
    h.early, h.drip, h.interim, h.trailers = [rng.choice((0.0, 0.1, 0.3)) for _ in range(4)]
    h.close, h.requests_per_connection, h.keep_alive = (
        rng.choice((0.0, 0.1)),
        rng.choice((0, 0, 2)),
        rng.choice((0, 0, 1)),
    )
    h.long_delay, h.dynamic, h.late = rng.choice((0.0, 0.05)), rng.choice((0.0, 0.5)), rng.choice((0.0, 0.3))
    s.tires, s.dial_late = rng.choice(((), (0.0, 0.01, 1.0))), rng.choice((0.0, 1.0))
    s.dial_fails, s.dial_hangs = rng.choice((0.0, 0.0, 0.1)), rng.choice((0.0, 0.0, 0.05))
    s.readers = rng.choice((("eager",), ("eager", "slow"), ("eager", "slow", "never", "half")))
    s.cancels, s.uploads, s.hurry = rng.choice((0.0, 0.1, 0.5)), rng.choice((0.1, 0.5)), rng.choice((0.0, 0.3))
    s.impatient, s.tunnels = rng.choice((0.0, 0.2)), rng.choice((0.0, 0.0, 0.1))
    s.acts = (
        "settings_concurrent",
        "reset_some",
        "goaway",
        "goaway_warn",
        "restart",
        "close",
        "unasked",
        "stop_reading",
    )
    s.act_count = rng.choice((0, 3, 12))
    s.faults, s.fault_count = ("stall_up", "stall_down", "break", "end", "die"), rng.choice((0, 2))
    s.spread = rng.choice((0.2, 2.0, 20.0))


POOL_SCENARIOS: dict[str, Callable[[Random, PoolScene], None]] = {
    "pool_calm": _calm,
    "pool_tight": _tight,
    "pool_cold": _cold,
    "pool_goaway": _goaway,
    "pool_streams": _streams,
    "pool_http1": _http1,
    "pool_unkind": _unkind,
    "pool_link": _link,
    "pool_uploads": _uploads,
    "pool_cancels": _cancels,
    "pool_burden": _burden,
    "pool_old": _old,
    "pool_crimes": _crimes,
    "pool_all": _all,
}


@dataclass(slots=True)
class PoolScript(Script):
    scene: PoolScene


def draw_pool_script(name: str, seed: int) -> PoolScript:
    rng = Random(seed)
    scene = PoolScene()
    POOL_SCENARIOS[name](rng, scene)
    bound(scene)
    ops = []
    for number in range(scene.requests):
        time = 0.0 if scene.burst else rng.random() * scene.spread
        ops.append(Op(time, "request", ask=_ask(Random(seed * 7_368_787 + number), number, scene)))
    for _ in range(scene.act_count):
        act = rng.choice(scene.acts)
        value = rng.choice(_ROUGH.get(act) or VALUES.get(act, (1, 7, 77)))
        ops.append(Op(rng.random() * scene.spread * 1.2, "act", act, value))
    if "settings_concurrent" in scene.acts:  # what was closed is opened again, at last
        ops += [Op(scene.spread * 1.3, "open", value=1000)]
    for _ in range(scene.fault_count):
        ops.append(Op(rng.random() * scene.spread, rng.choice(scene.faults), value=rng.choice((0.3, 3.0, 8.0, 30.0))))
    for _ in range(rng.randrange(scene.mistakes + 1)):
        ops.append(Op(rng.random() * scene.spread * 1.2, "mistake", rng.choice(MISTAKES)))
    if rng.random() < scene.closes:
        ops.append(Op(rng.random() * scene.spread * 1.5, "close", value=rng.choice((0.0, 0.01, 0.5, 5.0))))
    ops.sort(key=lambda op: op.time)
    return PoolScript(name, seed, scene, ops)


def _ask(rng: Random, key: int, scene: PoolScene) -> PoolAsk:
    ask = PoolAsk(key)
    draw_ask(rng, ask, scene)
    ask.fields = tuple([pair for pair in ask.fields if pair[0] != b"te"])  # it would name a hop over HTTP/1.1
    ask.place = rng.randrange(len(scene.places))
    if rng.random() < scene.impatient:
        ask.queue = rng.choice((0.0, 0.01, 0.2, 1.0, None))
        ask.connect = rng.choice((0.0, 0.01, 0.2, 1.0, None))
    ask.replay = rng.random() >= scene.once
    if scene.hasty and ask.cancel:
        ask.cancel, ask.cancel_after = "time", rng.choice((0.0, 0.005, 0.02))
    return ask
