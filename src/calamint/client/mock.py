"""What may answer instead of the network: the shape of a transport, and one whose answers a function gives, for tests."""

from collections.abc import Awaitable, Callable
from inspect import isawaitable, iscoroutine
from typing import final

from calamint.client.message import Request, Response


class BaseTransport:
    """Answers the requests of a `Client`; to be derived from."""

    def handle_request(self, request: Request) -> Response:
        """The response, perhaps with a stream as its content."""
        raise NotImplementedError("a transport has a method `handle_request`")

    def close(self) -> None:
        """The client is closed."""


class AsyncBaseTransport:
    """Answers the requests of an `AsyncClient`; to be derived from."""

    async def handle_async_request(self, request: Request) -> Response:
        """The response, perhaps with a stream as its content."""
        raise NotImplementedError("a transport has a method `handle_async_request`")

    async def aclose(self) -> None:
        """The client is closed."""


@final
class MockTransport(BaseTransport, AsyncBaseTransport):
    """For tests: `handler` takes a Request, whose content has been read, and gives a Response; for an AsyncClient it may be a
    coroutine function."""

    def __init__(self, handler: "Callable[[Request], Response | Awaitable[Response]]") -> None:
        self.handler = handler

    def handle_request(self, request: Request) -> Response:
        """What the handler says. Raises TypeError where that is no Response."""
        request.read()
        return checked(self.handler(request))

    async def handle_async_request(self, request: Request) -> Response:
        """What the handler says. Raises TypeError where that is no Response."""
        await request.aread()
        response = self.handler(request)
        return checked(await response if isawaitable(response) else response)


def checked(response: object) -> Response:
    """It, if it is a response."""
    if not isinstance(response, Response):
        if iscoroutine(response):
            response.close()  # it will never be awaited
        raise TypeError(f"the handler gave {type(response).__name__}, not a Response")
    return response
