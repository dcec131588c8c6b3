"""The public names: a name comes, goes or changes only together with this list. And that the right build is tested."""

import importlib
import inspect
import os
from pathlib import Path
from typing import Final

import pytest

# What `from calamint import …` offers, in alphabetical order.
CALAMINT: Final[tuple[str, ...]] = (
    "AsyncBaseTransport",
    "AsyncCall",
    "AsyncClient",
    "AsyncPool",
    "AtCapacity",
    "BaseTransport",
    "CalamintError",
    "Call",
    "Client",
    "Clocks",
    "CloseError",
    "CodingLimits",
    "ConnectError",
    "ConnectTimeout",
    "Connection",
    "ConnectionTerminated",
    "DeadlineExceeded",
    "DecodingError",
    "HTTPStatusError",
    "Headers",
    "InvalidURL",
    "Limits",
    "LocalProtocolError",
    "MockTransport",
    "NetworkError",
    "Pool",
    "PoolTimeout",
    "Proxy",
    "ProxyError",
    "ReadError",
    "ReadTimeout",
    "RemoteProtocolError",
    "Request",
    "Response",
    "ResponseNotRead",
    "Settings",
    "StreamClosed",
    "StreamConsumed",
    "StreamError",
    "StreamReset",
    "Timeout",
    "TimeoutException",
    "TooManyRedirects",
    "Tracer",
    "TransportError",
    "URL",
    "UnsupportedProtocol",
    "WriteError",
    "WriteTimeout",
    "connect",
    "delete",
    "get",
    "head",
    "options",
    "patch",
    "post",
    "put",
    "request",
    "stream",
)

# What `calamint.core` offers, in alphabetical order.
CORE: Final[tuple[str, ...]] = (
    "Clocks",
    "Connection",
    "ConnectionClosed",
    "DataReceived",
    "Event",
    "Failure",
    "GoAwayReceived",
    "InterimReceived",
    "Origin",
    "PingAcknowledged",
    "PushPromised",
    "RequestFailed",
    "RequestSnapshot",
    "ResponseEnded",
    "ResponseReceived",
    "Settings",
    "SettingsReceived",
    "Snapshot",
    "TrailersReceived",
    "Upgraded",
    "WindowOpened",
    "cancel",
    "capacity",
    "close",
    "closed",
    "connect",
    "consume",
    "flush",
    "grow_window",
    "handle_timeout",
    "in_flight",
    "is_closed",
    "is_draining",
    "is_live",
    "next_timeout",
    "ping",
    "prioritize",
    "protocol",
    "put_settings",
    "queued",
    "receive",
    "request",
    "send_data",
    "snapshot",
    "wants_read",
    "wants_shutdown",
)

SURFACES: Final = [("calamint", CALAMINT), ("calamint.core", CORE)]
SOURCE: Final = Path(__file__).parents[1] / "src"
BUILD: Final = os.environ.get("CALAMINT_BUILD", "")  # set by ./check: pure or compiled


@pytest.mark.parametrize(("module", "names"), SURFACES)
def test_public_names(module: str, names: tuple[str, ...]) -> None:
    assert len(set(names)) == len(names)
    assert frozenset(getattr(importlib.import_module(module), "__all__", ())) == frozenset(names)


@pytest.mark.parametrize(("module", "names"), SURFACES)
def test_every_public_name_has_a_docstring(module: str, names: tuple[str, ...]) -> None:
    """Constants and type aliases have no room for one."""
    public = importlib.import_module(module)
    documented = [name for name in names if inspect.isclass(it := getattr(public, name)) or inspect.isroutine(it)]
    assert [name for name in documented if not getattr(public, name).__doc__] == []


@pytest.mark.skipif(not BUILD, reason="only ./check says which build it means")
def test_build() -> None:
    """The code under test is the build that ./check means: the sources of this tree, or the compiled wheel."""
    path = importlib.import_module("calamint.core.value").__file__ or ""
    assert path.endswith(".py") == (BUILD == "pure"), path
    assert Path(path).is_relative_to(SOURCE) == (BUILD == "pure"), path
