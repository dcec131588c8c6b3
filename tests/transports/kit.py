"""One way to use the four transports for httpx and httpx2: blocking or not, each test is written once."""

import asyncio
import importlib
from collections.abc import AsyncIterator, Callable, Iterator
from types import ModuleType, TracebackType
from typing import Any

LIMIT = 10.0  # seconds that anything here may take


class Kit:
    """A library, and whether its asynchronous client is meant."""

    def __init__(self, name: str, asynchronous: bool) -> None:
        self.name = name
        self.asynchronous = asynchronous
        self.library: ModuleType = importlib.import_module(name)
        self.network: ModuleType = importlib.import_module(name.replace("httpx", "httpcore"))
        self.module: ModuleType = importlib.import_module(f"calamint.transports.{name}")

    def transport(self, **options: object) -> Any:
        """A transport of ours."""
        return (self.module.AsyncTransport if self.asynchronous else self.module.Transport)(**options)

    def client(self, timeout: object = LIMIT, trust_env: bool = True, **options: object) -> "Caller":
        """A client of theirs over a transport of ours with these options."""
        return Caller(self, self.transport(trust_env=trust_env, **options), timeout)

    def pieces(
        self, *pieces: bytes, error: Exception | None = None, after: Callable[[], object] | None = None
    ) -> object:
        """Content that comes piece by piece, and perhaps fails at the end."""

        def blocking() -> Iterator[bytes]:
            yield from pieces
            if after is not None:
                after()
            if error is not None:
                raise error

        async def asynchronous() -> AsyncIterator[bytes]:
            for piece in blocking():
                yield piece

        return asynchronous() if self.asynchronous else blocking()

    def tracer(self, seen: list[tuple[str, dict[str, Any]]]) -> object:
        """What puts trace events there."""

        async def asynchronous(name: str, info: dict[str, Any]) -> None:
            seen.append((name, info))

        return asynchronous if self.asynchronous else lambda name, info: seen.append((name, info))


class Caller:
    """A client whose calls wait for their end, whatever kind it is of: between calls, no event loop runs."""

    def __init__(self, kit: Kit, transport: Any, timeout: object) -> None:
        self.kit = kit
        self.transport = transport
        self.runner = asyncio.Runner(debug=True)
        make = kit.library.AsyncClient if kit.asynchronous else kit.library.Client
        self.client = make(transport=transport, timeout=timeout)
        self.pool = transport.pool

    def run(self, result: Any) -> Any:
        """What a method of the client gave, awaited where that is needed."""
        if not self.kit.asynchronous:
            return result
        return self.runner.run(bounded(result))

    def request(self, method: str, url: str, **options: object) -> Any:
        """A response with its content."""
        return self.run(self.client.request(method, url, **options))

    def get(self, url: str, **options: object) -> Any:
        """A response to GET, with its content."""
        return self.request("GET", url, **options)

    def begin(self, method: str, url: str, **options: object) -> "Streamed":
        """A response without its content."""
        request = self.client.build_request(method, url, **options)
        return Streamed(self, self.run(self.client.send(request, stream=True)))

    def close(self) -> None:
        """The client, and with it the transport."""
        self.run(self.client.aclose() if self.kit.asynchronous else self.client.close())

    def __enter__(self) -> "Caller":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        self.runner.close()


class Streamed:
    """A response whose content is taken piece by piece."""

    def __init__(self, caller: Caller, response: Any) -> None:
        self.caller = caller
        self.response = response
        self.pieces = response.aiter_raw() if caller.kit.asynchronous else response.iter_raw()

    def next(self) -> bytes:
        """The next piece; nothing at the end."""
        if self.caller.kit.asynchronous:
            piece: bytes = self.caller.run(anext(self.pieces, b""))
            return piece
        return next(self.pieces, b"")

    def close(self) -> None:
        """The rest is not wanted."""
        self.caller.run(self.response.aclose() if self.caller.kit.asynchronous else self.response.close())


async def bounded(work: Any) -> Any:
    """The same, within the limit."""
    async with asyncio.timeout(3 * LIMIT):
        return await work
