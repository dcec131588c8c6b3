"""The clients under test. A column is a name and a function that opens one; all that a row does with it stands in `Subject`.

The two classes here fit whatever has httpx's methods: calamint, httpx, httpx2, and those over another transport.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, Final, NamedTuple, Protocol, TypeVar

import httpx

import calamint
from calamint.transports.httpx import AsyncTransport, Transport

T = TypeVar("T")
LIMIT: Final = 10.0  # seconds, after which a client that hangs is left
PIECE: Final = bytes(65_536)


class Subject(Protocol):
    """A client that is open. Everything here blocks; errors are the client's own."""

    def get(self, url: str, timeout: float = LIMIT, headers: dict[str, str] | None = None) -> bytes:
        """The content of a response."""

    def post(self, url: str, size: int) -> int:
        """The status of the response to so many bytes, from a generator."""

    def give_up(self, url: str, when: Callable[[], object]) -> None:
        """Leaves a request, of which nothing has come, once `when` has returned."""

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

    def __init__(self, client: Any) -> None:
        self.client = client

    def get(self, url: str, timeout: float = LIMIT, headers: dict[str, str] | None = None) -> bytes:
        content: bytes = self.client.get(url, timeout=timeout, headers=headers).content
        return content

    def post(self, url: str, size: int) -> int:
        def pieces() -> Iterator[bytes]:
            for _ in range(size // len(PIECE)):
                yield PIECE

        status: int = self.client.post(url, content=pieces(), timeout=LIMIT).status_code
        return status

    def give_up(self, url: str, when: Callable[[], object]) -> None:
        with contextlib.suppress(calamint.TimeoutException, httpx.TimeoutException):
            self.client.get(url, timeout=0.3)
        when()

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

    def __init__(self, make: Callable[[], Any]) -> None:
        self.runner = asyncio.Runner()
        self.client = self.run(awaited(make))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        async def bounded() -> T:
            async with asyncio.timeout(2 * LIMIT):
                return await work

        return self.runner.run(bounded())

    def get(self, url: str, timeout: float = LIMIT, headers: dict[str, str] | None = None) -> bytes:
        content: bytes = self.run(self.client.get(url, timeout=timeout, headers=headers)).content
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


def ours(name: str, kind: Callable[[bool], Subject], alone: bool) -> Column:
    return Column(name, kind, (calamint.CalamintError,), True, alone)


COLUMNS: Final[dict[str, Column]] = {
    column.name: column
    for column in (
        ours("Client", lambda http2: Blocking(calamint.Client(**options(http2))), False),
        ours("AsyncClient", lambda http2: Asynchronous(lambda: calamint.AsyncClient(**options(http2))), True),
        Column(
            "httpx.Client", lambda http2: Blocking(httpx.Client(**options(http2))), (httpx.HTTPError,), False, False
        ),
        Column(
            "httpx.AsyncClient",
            lambda http2: Asynchronous(lambda: httpx.AsyncClient(**options(http2))),
            (httpx.HTTPError,),
        ),
        Column(
            "httpx.Client+calamint",
            lambda http2: Blocking(httpx.Client(transport=Transport(**options(http2)))),
            (httpx.HTTPError,),
            False,
            False,
        ),
        Column(
            "httpx.AsyncClient+calamint",
            lambda http2: Asynchronous(lambda: httpx.AsyncClient(transport=AsyncTransport(**options(http2)))),
            (httpx.HTTPError,),
        ),
    )
}
