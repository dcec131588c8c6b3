"""What may answer instead of the network: the shape of a transport, and one whose answers a function gives, for tests."""

from collections.abc import Awaitable, Callable
from inspect import isawaitable
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
    """For tests: `handler` takes a Request and gives back, or for an AsyncClient perhaps awaits, a Response."""

    def __init__(self, handler: "Callable[[Request], Response | Awaitable[Response]]") -> None:
        self.handler = handler

    def handle_request(self, request: Request) -> Response:
        """What the handler says."""
        response = self.handler(request)
        if not isinstance(response, Response):
            raise TypeError(f"the handler gave back {type(response).__name__}, and a Client takes a Response")
        return response

    async def handle_async_request(self, request: Request) -> Response:
        """What the handler says."""
        response = self.handler(request)
        return await response if isawaitable(response) else response
