"""A scripted peer: a server that misbehaves on purpose, to test clients with.

    with ScriptedPeer([answer(), forget()], max_streams=20) as peer:
        …  # a client talks to peer.url

`ScriptedPeer` runs on a socket, `PeerConnection` in memory with the caller's clock. In pytest, the fixture
`scripted_peer` starts peers that end with the test. Names are loaded when they are first used, so that pytest, which
imports the plugin in every run, does not wait for the rest.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from calamint.testing.machine import Options
    from calamint.testing.peer import PeerConnection
    from calamint.testing.report import Journal, Report, SeenRequest
    from calamint.testing.script import (
        Action,
        Request,
        Script,
        answer,
        close,
        delay,
        drip,
        forget,
        garbage,
        goaway,
        refuse,
        reset,
        stop_reading,
    )
    from calamint.testing.server import ScriptedPeer

HOMES = {
    "calamint.testing.machine": "Options",
    "calamint.testing.peer": "PeerConnection",
    "calamint.testing.report": "Journal Report SeenRequest",
    "calamint.testing.script": (
        "Action Request Script answer close delay drip forget garbage goaway refuse reset stop_reading"
    ),
    "calamint.testing.server": "ScriptedPeer",
}

__all__ = [
    "Action",
    "Journal",
    "Options",
    "PeerConnection",
    "Report",
    "Request",
    "Script",
    "ScriptedPeer",
    "SeenRequest",
    "answer",
    "close",
    "delay",
    "drip",
    "forget",
    "garbage",
    "goaway",
    "refuse",
    "reset",
    "stop_reading",
]


def __getattr__(name: str) -> object:
    for home, names in HOMES.items():
        if name in names.split():
            return getattr(import_module(home), name)
    raise AttributeError(f"module 'calamint.testing' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
