"""The clients under test. A column is a name and a function that opens one; all that a row does with it stands in `Subject`.

The two classes here fit whatever has httpx's methods: calamint, httpx, httpx2, and those over another transport.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any, Final, NamedTuple, Protocol, TypeVar

import httpx
import httpx2

import calamint
from calamint.transports import httpx as over_httpx
from calamint.transports import httpx2 as over_httpx2

T = TypeVar("T")
LIMIT: Final = 10.0  # seconds, after which a client that hangs is left
PIECE: Final = bytes(65_536)
TIMEOUTS: Final = (calamint.TimeoutException, httpx.TimeoutException, httpx2.TimeoutException)

InAll = Callable[[float], dict[str, Any]]
"""The options of a request that may take so many seconds in all."""


class Subject(Protocol):
    """A client that is open. Everything here blocks; errors are the client's own."""

    def get(
        self, url: str, timeout: float = LIMIT, headers: dict[str, str] | None = None, total: float | None = None
    ) -> bytes:
        """The content of a response. `total`: seconds for all of it, as far as the client knows such a thing."""

    def post(self, url: str, size: int) -> int:
        """The status of the response to so many bytes, from a generator."""

    def give_up(self, url: str, when: Callable[[], object]) -> None:
        """Leaves a request, of which nothing has come, once `when` has returned."""

    def beside(self, silent: str, lively: str, timeout: float) -> tuple[float, bytes]:
        """Asks for two at the same time, with this limit for the silent one: when that was over, and the content of the other."""

    def abandon(self, url: str, size: int) -> None:
        """Leaves a response after so many bytes of content."""

    def hold(self, url: str, until: Callable[[], object]) -> None:
        """Has the head of a response, and reads nothing of its content, until this has returned; then leaves it."""

    def rest(self, until: Callable[[], T]) -> T:
        """Does nothing at all until this has returned; what it gives."""

    def close(self) -> None:
        """Ends the client."""


class Column(NamedTuple):
    """A client under test: `open` takes whether it speaks HTTP/2, by prior knowledge. `errors`: its own exceptions."""

    name: str
    open: Callable[[bool], Subject]
    errors: tuple[type[Exception], ...]
    is_ours: bool = False
    runs_alone: bool = True  # something of it runs while nobody calls it: an event loop


class Blocking:
    """A client for threads. It cannot be cancelled: its caller gives up by a limit of its own."""

    def __init__(self, client: Any, in_all: InAll) -> None:
        self.client = client
        self.in_all = in_all

    def get(
        self, url: str, timeout: float = LIMIT, headers: dict[str, str] | None = None, total: float | None = None
    ) -> bytes:
        limit = {"timeout": timeout} if total is None else self.in_all(total)
        content: bytes = self.client.get(url, headers=headers, **limit).content
        return content

    def post(self, url: str, size: int) -> int:
        def pieces() -> Iterator[bytes]:
            for _ in range(size // len(PIECE)):
                yield PIECE

        status: int = self.client.post(url, content=pieces(), timeout=LIMIT).status_code
        return status

    def give_up(self, url: str, when: Callable[[], object]) -> None:
        with contextlib.suppress(*TIMEOUTS):
            self.client.get(url, timeout=0.3)
        when()

    def beside(self, silent: str, lively: str, timeout: float) -> tuple[float, bytes]:
        with ThreadPoolExecutor(1) as executor:
            other = executor.submit(self.get, lively)
            began = time.monotonic()
            with contextlib.suppress(*TIMEOUTS):
                self.client.get(silent, timeout=timeout)
            return time.monotonic() - began, other.result(LIMIT)

    def abandon(self, url: str, size: int) -> None:
        with self.client.stream("GET", url, timeout=LIMIT) as response:
            for piece in response.iter_raw():
                size -= len(piece)
                if size <= 0:
                    break

    def hold(self, url: str, until: Callable[[], object]) -> None:
        with self.client.stream("GET", url, timeout=LIMIT):
            until()

    def rest(self, until: Callable[[], T]) -> T:
        return until()

    def close(self) -> None:
        self.client.close()


class Asynchronous:
    """A client for asyncio. Its event loop runs whatever the caller waits for."""

    def __init__(self, make: Callable[[], Any], in_all: InAll) -> None:
        self.runner = asyncio.Runner()
        self.client = self.run(awaited(make))
        self.in_all = in_all

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        async def bounded() -> T:
            async with asyncio.timeout(2 * LIMIT):
                return await work

        return self.runner.run(bounded())

    def get(
        self, url: str, timeout: float = LIMIT, headers: dict[str, str] | None = None, total: float | None = None
    ) -> bytes:
        limit = {"timeout": timeout} if total is None else self.in_all(total)
        content: bytes = self.run(self.client.get(url, headers=headers, **limit)).content
        return content

    def post(self, url: str, size: int) -> int:
        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(size // len(PIECE)):
                yield PIECE

        status: int = self.run(self.client.post(url, content=pieces(), timeout=LIMIT)).status_code
        return status

    def give_up(self, url: str, when: Callable[[], object]) -> None:
        async def work() -> None:
            task = asyncio.create_task(self.client.get(url, timeout=LIMIT))
            await asyncio.to_thread(when)
            task.cancel()
            await asyncio.wait([task])

        self.run(work())

    def beside(self, silent: str, lively: str, timeout: float) -> tuple[float, bytes]:
        async def work() -> tuple[float, bytes]:
            other = asyncio.create_task(self.client.get(lively, timeout=LIMIT))
            began = time.monotonic()
            with contextlib.suppress(*TIMEOUTS):
                await self.client.get(silent, timeout=timeout)
            took = time.monotonic() - began
            return took, (await other).content

        return self.run(work())

    def abandon(self, url: str, size: int) -> None:
        async def work() -> None:
            left = size
            async with self.client.stream("GET", url, timeout=LIMIT) as response:
                async for piece in response.aiter_raw():
                    left -= len(piece)
                    if left <= 0:
                        break

        self.run(work())

    def hold(self, url: str, until: Callable[[], object]) -> None:
        async def work() -> None:
            async with self.client.stream("GET", url, timeout=LIMIT):
                await asyncio.to_thread(until)

        self.run(work())

    def rest(self, until: Callable[[], T]) -> T:
        return self.run(asyncio.to_thread(until))

    def close(self) -> None:
        self.run(self.client.aclose())
        self.runner.close()


async def awaited(make: Callable[[], Any]) -> Any:
    """A client that is made while its event loop runs."""
    return make()


def options(http2: bool) -> dict[str, Any]:
    return {"http1": not http2, "http2": http2, "trust_env": False}


def plain(seconds: float) -> dict[str, Any]:
    """The limit that a user writes first."""
    return {"timeout": seconds}


def extended(seconds: float) -> dict[str, Any]:
    """How a transport of ours is told."""
    return {"extensions": {"timeout": {"total": seconds}}}


def ours() -> list[Column]:
    """The clients of calamint."""
    errors = (calamint.CalamintError,)
    return [
        Column("Client", lambda http2: Blocking(calamint.Client(**options(http2)), plain), errors, True, False),
        Column(
            "AsyncClient",
            lambda http2: Asynchronous(lambda: calamint.AsyncClient(**options(http2)), plain),
            errors,
            True,
        ),
    ]


def theirs(library: ModuleType, module: ModuleType) -> list[Column]:
    """The clients of httpx or httpx2, as shipped and over our transports in this module."""
    name, errors = library.__name__, (library.HTTPError,)
    return [
        Column(
            f"{name}.Client", lambda http2: Blocking(library.Client(**options(http2)), plain), errors, runs_alone=False
        ),
        Column(
            f"{name}.Client+calamint",
            lambda http2: Blocking(library.Client(transport=module.Transport(**options(http2))), extended),
            errors,
            True,
            False,
        ),
        Column(
            f"{name}.AsyncClient",
            lambda http2: Asynchronous(lambda: library.AsyncClient(**options(http2)), plain),
            errors,
        ),
        Column(
            f"{name}.AsyncClient+calamint",
            lambda http2: Asynchronous(
                lambda: library.AsyncClient(transport=module.AsyncTransport(**options(http2))), extended
            ),
            errors,
            True,
        ),
    ]


COLUMNS: Final[dict[str, Column]] = {
    column.name: column for column in (*ours(), *theirs(httpx2, over_httpx2), *theirs(httpx, over_httpx))
}
SHOWN: Final = [name for name in COLUMNS if not name.startswith("httpx.")]
