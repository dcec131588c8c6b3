"""What both protocols have in common on the peer's side: requests, the programs played for them, and their timers."""

from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass
from typing import Final, final

from calamint.core.value import INFINITY, Fields
from calamint.testing.report import Journal, Seen
from calamint.testing.script import (
    Action,
    Close,
    Data,
    Drip,
    GoAway,
    Head,
    Raw,
    Reset,
    Script,
    Step,
    StopReading,
    Trailers,
    Wait,
    answer,
    choose,
)


@final
@dataclass(frozen=True, slots=True)
class Options:
    """What the peer announces and grants over HTTP/2 (RFC 9113 §6.5.2).

    `max_streams`: None announces and enforces no limit. `connection_window`: at least 65535. `credit`: whether the
    client gets its windows back for the content that it sends. `settings`: more (identifier, value) pairs.
    """

    max_streams: int | None = 100
    initial_window: int = 65_535
    connection_window: int = 65_535
    max_frame_size: int = 16_384
    header_table_size: int = 4096
    credit: bool = True
    settings: tuple[tuple[int, int], ...] = ()


OPTIONS: Final = Options()


class Exchange:
    """One request, and what is left of the program that is played for it."""

    def __init__(self, seen: Seen) -> None:
        self.seen: Final = seen
        self.action = Action(())
        self.started = False
        self.steps: deque[Step] = deque()
        self.at = INFINITY  # when the next step is due
        self.silent = seen.method == "HEAD"  # the response has no content, whatever the script says (RFC 9110 §6.4.1)
        self.begun = False  # the final head has been sent
        self.answered = False  # our side has ended
        self.waiting: Data | None = None  # content that waits for the client's windows
        self.since = 0.0  # when it began to
        self.offset = 0  # what of it is through


class Machine(ABC):
    """One connection's protocol: bytes in, and `out` fills with bytes."""

    def __init__(self, script: Script, options: Options, journal: Journal, number: int) -> None:
        self.script: Final = script
        self.options: Final = options
        self.journal: Final = journal
        self.number: Final = number  # of the connection
        self.now = 0.0
        self.out: list[bytes] = []
        self.programs: dict[int, Exchange] = {}  # number of the request → what is not played to its end
        self.is_reading = True
        self.is_closed = False
        self.is_aborted = False

    @abstractmethod
    def count(self) -> int:
        """How many streams are open."""

    @abstractmethod
    def receive(self, data: bytes) -> None:
        """Takes what arrived."""

    @abstractmethod
    def run(self) -> None:
        """Does everything that is due."""

    @abstractmethod
    def send_head(self, exchange: Exchange, head: Head) -> None:
        """A response head."""

    @abstractmethod
    def send_data(self, exchange: Exchange, data: Data) -> None:
        """Content, at once or when the client's windows let it through."""

    @abstractmethod
    def send_trailers(self, exchange: Exchange, fields: Fields) -> None:
        """Trailer fields, and the end."""

    @abstractmethod
    def send_reset(self, exchange: Exchange, code: int) -> None:
        """The end of the stream."""

    @abstractmethod
    def send_goaway(self, exchange: Exchange, step: GoAway) -> None:
        """The beginning of the connection's end."""

    def begin(self, exchange: Exchange) -> None:
        """A request's head is here: what is done is decided, and begins now unless it waits for the content."""
        exchange.action = self.ask(exchange.seen)
        if exchange.action.early or exchange.seen.complete:
            self.start(exchange)
        elif exchange.seen.field(b"expect") == b"100-continue":
            self.send_head(exchange, Head(100))

    def complete(self, exchange: Exchange) -> None:
        """A request's content is here, all of it."""
        exchange.seen.complete = True
        if not exchange.started:
            if callable(self.script):
                exchange.action = self.ask(exchange.seen)
            self.start(exchange)

    def ask(self, seen: Seen) -> Action:
        """What the script says. An error in it is answered with a 500 and kept for whoever wrote it."""
        try:
            return choose(self.script, seen.request())
        except Exception as error:
            self.journal.script_errors.append(error)
            return answer(500, content=f"the script failed: {error!r}\n".encode())

    def start(self, exchange: Exchange) -> None:
        """The program begins."""
        exchange.started = True
        exchange.steps.extend(exchange.action.steps)
        exchange.at = self.now
        self.programs[exchange.seen.number] = exchange

    def play(self, exchange: Exchange) -> bool:
        """Does the steps that are due; whether there was one."""
        moved = False
        while exchange.steps and exchange.at <= self.now and exchange.waiting is None and not self.is_closed:
            moved = True
            self.perform(exchange, exchange.steps.popleft())
        if not exchange.steps:
            self.programs.pop(exchange.seen.number, None)
        return moved

    def play_all(self) -> bool:
        """Plays every program as far as it goes now; whether there was anything to do."""
        return any([self.play(exchange) for exchange in list(self.programs.values())])

    def perform(self, exchange: Exchange, step: Step) -> None:
        """One step. What has been ended already is not ended again: those steps do nothing."""
        match step:
            case Wait():
                exchange.at += step.seconds  # not from now: late timers must not add up
            case Drip():
                end = step.start + step.piece
                last = end >= len(step.content)
                exchange.steps.appendleft(Data(step.content[step.start : end], end=last and step.end))
                if not last:
                    rest = Drip(step.content, step.piece, step.every, step.end, end)
                    exchange.steps.insert(1, Wait(step.every))
                    exchange.steps.insert(2, rest)
            case Raw():
                self.out.append(step.data)
            case StopReading():
                self.is_reading = False
            case Close():
                self.close(step.abort)
            case Reset():
                self.send_reset(exchange, step.code)
            case GoAway():
                self.send_goaway(exchange, step)
            case Head() if not exchange.answered:
                self.send_head(exchange, step)
            case Data() if not exchange.answered:
                self.send_data(exchange, Data(b"", step.end) if exchange.silent else step)
            case Trailers() if not exchange.answered:
                self.send_trailers(exchange, step.fields)

    def blame(self, what: str) -> None:
        """The client did something wrong."""
        self.journal.blame(self.number, what)

    def close(self, abort: bool = False) -> None:
        """Nothing more is read or sent."""
        self.is_closed = True
        self.is_aborted = abort
        self.is_reading = False
        self.programs.clear()

    def next_timeout(self) -> float:
        """When the next step of a program is due."""
        return min([item.at for item in self.programs.values() if item.waiting is None], default=INFINITY)
