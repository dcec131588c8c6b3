"""What a caller of a soak does: one plan after the other, drawn from a seed, and what may come of it."""

import random
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import calamint
from calamint.net.dial import Address
from tests.soak.fates import UNASKED, content_of

OUTCOMES: Final = ("answered", "left", "timed out", "failed")
"""How a request ends: with a complete response, by its caller's will, by a clock, by anything else that its peer did."""

DOMAIN: Final = ".soak.test"
CONNECTIONS: Final = 12
PER_ORIGIN: Final = 3
STREAMS: Final = 10  # on a connection, as the server announces them
LIMITS: Final = calamint.Limits(
    max_connections=CONNECTIONS,
    max_per_origin=PER_ORIGIN,
    max_keepalive_connections=6,
    keepalive_expiry=1.0,
    max_age=20.0,
)
SETTINGS: Final = calamint.Settings(
    stream_window=65_536, connection_window=262_144, first_streams=STREAMS, keepalive=0.4
)
CLOCKS: Final = calamint.Clocks(head=0.8, idle=0.5, write=0.8, reader=1.0, expect=0.2)

ORIGINS: Final = {"http1": 20, "tls": 35, "tls1": 15, "h2c": 40, "flaky": 6, "mute": 2, "closed": 2}
CONDUCTS: Final = {
    "whole": 50,  # waits for the whole response
    "events": 18,  # takes it as it comes
    "head": 8,  # has seen enough with the first event
    "pause": 8,  # stops reading for a while, and goes on
    "cancel": 9,  # changes its mind after a while
    "drop": 4,  # forgets the call, unclosed
}
SIZES: Final = (0, 1, 100, 1000, 1000, 10_000, 70_000, 200_000)


@dataclass(frozen=True, slots=True)
class Plan:
    """One request, and what its caller does meanwhile. Times in seconds."""

    prior: bool  # HTTP/2 by prior knowledge, which is for another pool
    method: str
    url: str
    target: str
    headers: tuple[tuple[str, str], ...]
    content: bytes | None
    pieces: int  # of content that follow
    abandons: bool  # … and never end
    timeout: float | None
    conduct: str
    after: float  # until the conduct changes


class Planner:
    """Draws plans for one caller."""

    def __init__(self, seed: str, ports: dict[str, int]) -> None:
        self.dice = random.Random(seed)
        self.ports = ports
        self.number = self.dice.randrange(1_000_000)

    def draw(self) -> Plan:
        """The next one."""
        dice = self.dice
        self.number += 1
        origin = dice.choices(list(ORIGINS), list(ORIGINS.values()))[0]
        host = (
            "soak" if dice.random() < 0.96 or origin in ("flaky", "mute", "closed") else f"new{dice.getrandbits(40):x}"
        )
        size = dice.choice(SIZES)
        target = f"/soak/{self.number}/{size}"
        method = dice.choices(["GET", "POST", "PUT", "HEAD", "DELETE"], [60, 25, 8, 4, 3])[0]
        uploads = method in ("POST", "PUT")
        pieces = dice.choice([0, 0, 1, 3, 10]) if uploads else 0
        content = bytes(dice.choice([0, 10, 5000, 120_000])) if uploads else None
        expects = bool(content) and dice.random() < 0.2
        scheme = "https" if origin.startswith("tls") else "http"
        return Plan(
            origin == "h2c",
            method,
            f"{scheme}://{host}{DOMAIN}:{self.ports[origin]}{target}",
            target,
            (("user-agent", "soak"), ("x-unique", f"{dice.getrandbits(64):x}"), *EXPECT[expects]),
            content,
            pieces,
            pieces > 0 and dice.random() < 0.15,
            dice.choices([3.0, dice.uniform(0.0, 0.1), dice.uniform(0.1, 1.0), None], [50, 10, 20, 20])[0],
            dice.choices(list(CONDUCTS), list(CONDUCTS.values()))[0],
            dice.choice([0.0, dice.uniform(0.0, 0.02), dice.uniform(0.0, 0.3)]),
        )


EXPECT: Final = {False: (), True: (("expect", "100-continue"),)}


def check(plan: Plan, status: int, target: str, content: bytes) -> str:
    """What is wrong about a response that is complete, or nothing."""
    if target == UNASKED:  # it came after the request had left
        return ""
    if target != plan.target:
        return f"{plan.method} {plan.target} was answered with {target or 'nothing that says a target'}"
    expected = content_of(plan.target) if status == 200 and plan.method != "HEAD" else b""
    if content != expected:
        return f"{plan.method} {plan.target}: {status} with {len(content)} bytes, not the {len(expected)} that were asked for"
    return ""


class Resolver:
    """Every name is this host; now and then it is slow, fails, or knows a dead address as well, until it is to be `kind`."""

    def __init__(self, seed: str) -> None:
        self.dice = random.Random(seed)
        self.kind = False

    def __call__(self, host: str, port: int) -> Sequence[Address]:
        luck = 1.0 if self.kind else self.dice.random()
        if luck < 0.02:
            raise socket.gaierror(socket.EAI_AGAIN, "try again")
        if luck < 0.06:
            time.sleep(0.3)
        place = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", port))
        dead = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.2", 9))
        return (dead, place) if luck < 0.1 else (place,)
