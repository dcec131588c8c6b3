"""Both clients behind one face, so that a test says once what has to be true of each."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final, Protocol, TypeVar

import calamint
from calamint.core.pool_state import PoolSnapshot, Stats

T = TypeVar("T")
LIMIT: Final = 20.0  # seconds that anything here may take


class Face(Protocol):
    """A client, whose methods block. Parameters are those of the clients."""

    @property
    def pool(self) -> "Pool": ...
    def request(self, method: str, url: str, **options: Any) -> calamint.Response: ...
    def send(self, request: calamint.Request, **options: Any) -> calamint.Response: ...
    def build_request(self, method: str, url: str, **options: Any) -> calamint.Request: ...
    def stream(self, method: str, url: str, **options: Any) -> AbstractContextManager[calamint.Response]: ...
    def read(self, response: calamint.Response) -> bytes: ...
    def shut(self, response: calamint.Response) -> None: ...
    def pieces(self, response: calamint.Response, form: str, size: int | None = None) -> Iterator[Any]: ...
    def upload(self, pieces: Iterable[bytes], closed: list[bool] | None = None) -> Any: ...
    def together(self, jobs: "list[Job]") -> "list[calamint.Response | Exception]": ...
    def close(self) -> None: ...


Job = tuple[str, dict[str, Any]]  # a URL and options of a request; its method is GET, or POST with content


def method_of(options: dict[str, Any]) -> str:
    return "POST" if "content" in options else "GET"


class Pool(Protocol):
    def snapshot(self) -> PoolSnapshot: ...
    def stats(self) -> Stats: ...


class Blocking:
    """`calamint.Client`."""

    def __init__(self, **options: Any) -> None:
        self.client = calamint.Client(**options)
        self.pool = self.client.pool

    def request(self, method: str, url: str, **options: Any) -> calamint.Response:
        return self.client.request(method, url, **options)

    def send(self, request: calamint.Request, **options: Any) -> calamint.Response:
        return self.client.send(request, **options)

    def build_request(self, method: str, url: str, **options: Any) -> calamint.Request:
        return self.client.build_request(method, url, **options)

    def stream(self, method: str, url: str, **options: Any) -> AbstractContextManager[calamint.Response]:
        return self.client.stream(method, url, **options)

    def together(self, jobs: list[Job]) -> list[calamint.Response | Exception]:
        """What comes of these requests, each in a thread of its own."""

        def one(job: Job) -> calamint.Response | Exception:
            try:
                return self.client.request(method_of(job[1]), job[0], **job[1])
            except Exception as error:
                return error

        with ThreadPoolExecutor(len(jobs)) as threads:
            return list(threads.map(one, jobs))

    def close(self) -> None:
        self.client.close()

    def read(self, response: calamint.Response) -> bytes:
        return response.read()

    def shut(self, response: calamint.Response) -> None:
        response.close()

    def pieces(self, response: calamint.Response, form: str, size: int | None = None) -> Iterator[Any]:
        """As `iter_bytes` and the like have them."""
        method = getattr(response, f"iter_{form}")
        yield from method() if form == "lines" else method(size)

    def upload(self, pieces: Iterable[bytes], closed: list[bool] | None = None) -> Any:
        """A generator of them, which says when it is closed."""
        try:
            yield from pieces
        finally:
            if closed is not None:
                closed.append(True)


class Asynchronous:
    """`calamint.AsyncClient`, in an event loop that runs while something is waited for."""

    def __init__(self, **options: Any) -> None:
        self.runner = asyncio.Runner(debug=True)
        self.client = calamint.AsyncClient(**options)
        self.pool = self.client.pool

    def build_request(self, method: str, url: str, **options: Any) -> calamint.Request:
        return self.client.build_request(method, url, **options)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        async def bounded() -> T:
            async with asyncio.timeout(LIMIT):
                return await work

        return self.runner.run(bounded())

    def request(self, method: str, url: str, **options: Any) -> calamint.Response:
        return self.run(self.client.request(method, url, **options))

    def send(self, request: calamint.Request, **options: Any) -> calamint.Response:
        return self.run(self.client.send(request, **options))

    @contextmanager
    def stream(self, method: str, url: str, **options: Any) -> Iterator[calamint.Response]:
        context = self.client.stream(method, url, **options)
        response = self.run(context.__aenter__())
        try:
            yield response
        finally:
            self.run(context.__aexit__(None, None, None))

    def read(self, response: calamint.Response) -> bytes:
        return self.run(response.aread())

    def shut(self, response: calamint.Response) -> None:
        self.run(response.aclose())

    def pieces(self, response: calamint.Response, form: str, size: int | None = None) -> Iterator[Any]:
        """As `aiter_bytes` and the like have them."""
        method = getattr(response, f"aiter_{form}")
        source: AsyncIterator[Any] = method() if form == "lines" else method(size)
        nothing = object()

        async def following() -> Any:
            return await anext(source, nothing)

        while (piece := self.run(following())) is not nothing:
            yield piece

    async def upload(self, pieces: Iterable[bytes], closed: list[bool] | None = None) -> Any:
        """An asynchronous generator of them, which says when it is closed."""
        try:
            for piece in pieces:
                yield piece
        finally:
            if closed is not None:
                closed.append(True)

    def together(self, jobs: list[Job]) -> list[calamint.Response | Exception]:
        """What comes of these requests, each in a task of its own."""

        async def all_of_them() -> list[calamint.Response | BaseException]:
            work = [self.client.request(method_of(options), url, **options) for url, options in jobs]
            return await asyncio.gather(*work, return_exceptions=True)

        return [each for each in self.run(all_of_them()) if isinstance(each, calamint.Response | Exception)]

    def close(self) -> None:
        self.run(self.client.aclose())
        self.runner.close()


Kind = Callable[..., Face]
KINDS: Final[dict[str, Kind]] = {"Client": Blocking, "AsyncClient": Asynchronous}
WAYS: Final = {"http1": {"http1": True, "http2": False}, "h2": {"http1": False, "http2": True}}


@contextmanager
def open_face(kind: str, way: str = "http1", **options: Any) -> Iterator[Face]:
    """A client of this kind, that speaks this way to loopback, and what is left of it is nothing."""
    face = KINDS[kind](**{"trust_env": False, **WAYS[way], **options})
    try:
        yield face
    finally:
        face.close()
    assert face.pool.snapshot().describe() == "no connections"
