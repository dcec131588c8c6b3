"""What the peer does with a request: an action is a short program of steps, a value that can be kept and joined.

    answer(content=b"hello")                    a response
    delay(0.2, answer())                        the same, later
    answer() + close()                          one action after the other, on the same request
    reset(CANCEL, after=b"half of it")          content, then RST_STREAM

The program of a request begins when the request is complete, or with `early=True` when its head is here. Whatever
HTTP/1.1 has no words for (RST_STREAM, GOAWAY) is done there with what it has: closing the connection.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

from calamint.core.errors import NO_ERROR, REFUSED_STREAM
from calamint.core.value import Fields


@final
@dataclass(frozen=True, slots=True)
class Request:
    """A request as a script sees it.

    `number` counts the requests of the whole server and `connection` its connections, from 0. `stream_id` is 0 on
    HTTP/1.1. `authority`: Host or :authority. `content`: what has come of it so far, all of it if `complete`.
    """

    number: int
    connection: int
    stream_id: int
    method: str
    target: str
    authority: str
    fields: Fields
    content: bytes
    complete: bool


@final
@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing, for so many seconds."""

    seconds: float


@final
@dataclass(frozen=True, slots=True)
class Head:
    """A response head, final or interim. `length`, if known, becomes a content-length unless `fields` has one."""

    status: int
    fields: Fields = ()
    length: int | None = None
    end: bool = False


@final
@dataclass(frozen=True, slots=True)
class Data:
    """Content. The next step waits until the client's windows have let all of it through."""

    content: bytes
    end: bool = False


@final
@dataclass(frozen=True, slots=True)
class Drip:
    """Content from `start` on, `piece` bytes every so many seconds."""

    content: bytes
    piece: int
    every: float
    end: bool
    start: int = 0


@final
@dataclass(frozen=True, slots=True)
class Trailers:
    """Trailer fields, and with them the end."""

    fields: Fields


@final
@dataclass(frozen=True, slots=True)
class Reset:
    """RST_STREAM; on HTTP/1.1 the connection is closed."""

    code: int


@final
@dataclass(frozen=True, slots=True)
class GoAway:
    """GOAWAY with this last stream id, or this stream's; on HTTP/1.1 the response, if any, says `connection: close`."""

    code: int
    last: int | None
    debug: bytes


@final
@dataclass(frozen=True, slots=True)
class StopReading:
    """The connection reads no more, and so gives no window credit and acknowledges nothing."""


@final
@dataclass(frozen=True, slots=True)
class Close:
    """The TCP connection is closed; `abort`: with a TCP RST, so that what was on its way may be lost."""

    abort: bool = False


@final
@dataclass(frozen=True, slots=True)
class Raw:
    """These bytes, whatever they mean, on the connection."""

    data: bytes


Step = Wait | Head | Data | Drip | Trailers | Reset | GoAway | StopReading | Close | Raw


@final
@dataclass(frozen=True, slots=True)
class Action:
    """The steps that are done for one request, one after the other; `early`: from its head on."""

    steps: tuple[Step, ...]
    early: bool = False

    def __add__(self, other: "Action") -> "Action":
        """The one, then the other; the first says whether it is early."""
        return Action(self.steps + other.steps, self.early)


Script = Sequence[Action] | Callable[[Request], Action]
"""The n-th request gets the n-th action and the last one repeats; or a function of the request.

A function is asked when the head is here; unless its action is early, it is asked again when the content is complete,
and the first answer is forgotten. So let it depend on nothing but the request.
"""


def answer(
    status: int = 200,
    fields: Fields = (),
    content: bytes = b"ok",
    trailers: Fields = (),
    interim: Sequence[tuple[int, Fields]] = (),
    early: bool = False,
) -> Action:
    """A response; before it the interim ones, as pairs of status and fields.

    A content-length is added unless `fields` says something else about the length or there are trailers.
    """
    if status < 200 or status in (204, 304):
        content = b""
    length = None if trailers or status < 200 or status in (204, 304) else len(content)
    steps: list[Step] = [Head(number, more) for number, more in interim]
    steps.append(Head(status, fields, length, end=not content and not trailers))
    if content:
        steps.append(Data(content, end=not trailers))
    if trailers:
        steps.append(Trailers(trailers))
    return Action(tuple(steps), early)


def delay(seconds: float, action: Action) -> Action:
    """The action, so many seconds later; early if the action is."""
    return Action((Wait(seconds), *action.steps), action.early)


def forget() -> Action:
    """Nothing at all: the request is read and never answered. PINGs and SETTINGS still are."""
    return Action(())


def drip(
    content: bytes,
    piece: int = 1,
    every: float = 0.1,
    status: int = 200,
    fields: Fields = (),
    end: bool = True,
    early: bool = False,
) -> Action:
    """A response whose content comes in pieces, one every so many seconds; `end=False`: its end never comes."""
    if piece < 1:
        raise ValueError(f"piece={piece}: allowed are 1 or more")
    return Action((Head(status, fields), Drip(content, piece, every, end)), early)


def reset(
    code: int, after: bytes = b"", head: bool = False, status: int = 200, fields: Fields = (), early: bool = False
) -> Action:
    """RST_STREAM with this code: at once, or after a head, or after a head and some content."""
    return Action((*begin(after, head, status, fields), Reset(code)), early)


def refuse(early: bool = False) -> Action:
    """RST_STREAM with REFUSED_STREAM: the request was not processed (RFC 9113 §8.7)."""
    return Action((Reset(REFUSED_STREAM),), early)


def goaway(
    code: int = NO_ERROR, last: int | None = None, then: Action | None = None, debug: bytes = b"", early: bool = False
) -> Action:
    """GOAWAY, `last` being this stream unless it says something else; then this action, or nothing.

    Streams above `last` are dropped, those that come later too, and the connection is closed when none is left: with an
    error code as soon as this program is over.
    """
    return Action((GoAway(code, last, debug), *(then.steps if then else ())), early)


def stop_reading(then: Action | None = None, early: bool = True) -> Action:
    """The connection reads no more, gives no window credit and answers no PING; then this action, or nothing.

    Early, since the rest of the content would never come.
    """
    return Action((StopReading(), *(then.steps if then else ())), early)


def close(
    after: bytes = b"",
    head: bool = False,
    status: int = 200,
    fields: Fields = (),
    abort: bool = False,
    early: bool = False,
) -> Action:
    """The TCP connection is closed: at once, or in the middle of a response; `abort`: with a TCP RST."""
    return Action((*begin(after, head, status, fields), Close(abort)), early)


def garbage(data: bytes, early: bool = False) -> Action:
    """These bytes on the connection, whatever they mean: nonsense, or frames made by hand."""
    return Action((Raw(data),), early)


def begin(content: bytes, head: bool, status: int, fields: Fields) -> tuple[Step, ...]:
    """A response that is not going to end."""
    if content:
        return Head(status, fields), Data(content)
    return (Head(status, fields),) if head else ()


def choose(script: Script, request: Request) -> Action:
    """What is done with this request."""
    if callable(script):
        action = script(request)
        if not isinstance(action, Action):
            raise TypeError(f"the script gave {action!r} for request {request.number}, not an Action")
        return action
    return script[min(request.number, len(script) - 1)] if script else answer()
