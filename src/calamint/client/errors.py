"""What a response itself is raised for; all other exceptions are the core's."""

from typing import TYPE_CHECKING

from calamint.core.errors import CalamintError

if TYPE_CHECKING:
    from calamint.client.message import Request, Response


class HTTPStatusError(CalamintError):
    """The response's status is not 2xx, and `raise_for_status` was asked. `request`, `response`: which they were."""

    def __init__(self, message: str, request: "Request", response: "Response") -> None:
        super().__init__(message, request, response)
        self.message: str = message
        self.request: Request = request
        self.response: Response = response

    def __str__(self) -> str:
        return self.message
