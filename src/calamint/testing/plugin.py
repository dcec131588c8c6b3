"""The pytest plugin: the fixture `scripted_peer`, which starts peers that end with the test.

def test_a_timeout(scripted_peer):
    peer = scripted_peer([forget()], max_streams=1)
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, ParamSpec

if TYPE_CHECKING:
    import pytest

    from calamint.testing.server import ScriptedPeer

P = ParamSpec("P")


def entering(stack: ExitStack, make: "Callable[P, ScriptedPeer]") -> "Callable[P, ScriptedPeer]":
    """The same, started, and ended with the stack."""

    def start(*args: P.args, **kwargs: P.kwargs) -> "ScriptedPeer":
        return stack.enter_context(make(*args, **kwargs))

    return start


def pytest_configure(config: "pytest.Config") -> None:
    """Brings the fixtures; here, so that importing this module imports neither pytest nor the peer."""
    import pytest

    class Fixtures:
        @pytest.fixture
        def scripted_peer(self) -> "Iterator[Callable[..., ScriptedPeer]]":
            """Call it like ScriptedPeer: it gives a running one, which ends with the test."""
            from calamint.testing.server import ScriptedPeer

            with ExitStack() as stack:
                yield entering(stack, ScriptedPeer)

    config.pluginmanager.register(Fixtures(), "calamint-fixtures")
