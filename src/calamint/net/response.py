"""What the drivers have in common about messages: fields as callers write them, and a whole response from its events."""

from collections.abc import Iterable, Mapping
from typing import TypeGuard

from calamint import core
from calamint.core.errors import StreamClosed, to_exception
from calamint.core.value import Fields

Headers = Mapping[str, str] | Iterable[tuple[str | bytes, str | bytes]]


class Response:
    """A whole response, as `Connection.response` gives it: status, fields, content, trailers, interim responses."""

    def __init__(self, status: int, reason: bytes, fields: Fields) -> None:
        self.status = status
        self.reason = reason
        self.fields = fields
        self.content = b""
        self.trailers: Fields = ()
        self.interim: list[core.InterimReceived] = []
        self.ref = 0  # the request on its connection

    def __repr__(self) -> str:
        return f"<Response {self.status}, {len(self.fields)} fields, {len(self.content)} bytes>"

    def get(self, name: str, default: str | None = None) -> str | None:
        """The first field with this name, in any case of letters."""
        wanted = name.lower().encode("ascii")
        for key, value in self.fields:
            if key.lower() == wanted:
                return value.decode("latin-1")
        return default


def is_end(event: core.Event, ref: int) -> bool:
    """Whether this is the last event of a request."""
    return isinstance(event, core.ResponseEnded | core.RequestFailed) and event.ref == ref


def assemble(events: Iterable[core.Event]) -> Response:
    """A response from all of its events. Raises what failed it."""
    response = Response(0, b"", ())
    parts: list[bytes] = []
    for event in events:
        if isinstance(event, core.DataReceived):
            parts.append(event.data)
        elif isinstance(event, core.ResponseReceived):
            response.status, response.fields, response.reason = event.status, event.fields, event.reason
            response.ref = event.ref
        elif isinstance(event, core.InterimReceived):
            response.interim.append(event)
        elif isinstance(event, core.TrailersReceived):
            response.trailers = event.fields
        elif isinstance(event, core.RequestFailed):
            raise to_exception(event.failure)
    if not response.status:
        raise StreamClosed("the beginning of the response has been taken as events: the rest is no response")
    response.content = b"".join(parts)
    return response


def to_fields(headers: Headers) -> Fields:
    """Fields as the core takes them: bytes, in their order."""
    if are_fields(headers):
        return headers
    pairs = headers.items() if isinstance(headers, dict) or isinstance(headers, Mapping) else headers
    return tuple([(to_bytes(name), to_bytes(value)) for name, value in pairs])


def are_fields(headers: Headers) -> TypeGuard[Fields]:
    """Whether they are as the core takes them already."""
    if type(headers) is not tuple:
        return False
    for pair in headers:
        if type(pair) is not tuple or len(pair) != 2 or type(pair[0]) is not bytes or type(pair[1]) is not bytes:
            return False
    return True


def to_bytes(text: str | bytes) -> bytes:
    """Field text as it goes on the wire: what Latin-1 cannot say goes as UTF-8."""
    if not isinstance(text, str):
        return text
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return text.encode("utf-8")
