"""A connection at one moment, as values that can be read, saved and put into words."""

from typing import ClassVar, Final, final

from calamint.core.exchange import STATE_NAMES, Exchange
from calamint.core.value import INFINITY, NEVER, Value


@final
class RequestSnapshot(Value):
    """One request: where it stands, what it waits for, for how long, and which clock runs. Times in seconds."""

    __match_args__: ClassVar[tuple[str, ...]] = tuple(
        (
            "ref method target state waits_for age silence clock left status received unread sent queued "
            "send_window recv_window"
        ).split()
    )
    __slots__ = __match_args__

    def __init__(
        self,
        ref: int,
        method: str,
        target: str,
        state: str,
        waits_for: str,
        age: float,
        silence: float,
        clock: str,
        left: float,
        status: int,
        received: int,
        unread: int,
        sent: int,
        queued: int,
        send_window: int | None,
        recv_window: int | None,
    ) -> None:
        self.ref: Final = ref
        self.method: Final = method
        self.target: Final = target
        self.state: Final = state
        self.waits_for: Final = waits_for
        self.age: Final = age  # since its head was handed out
        self.silence: Final = silence  # since the peer last did anything about it, or since it began
        self.clock: Final = clock  # the name of the clock that runs
        self.left: Final = left  # until that clock runs out; INFINITY where it is off
        self.status: Final = status
        self.received: Final = received
        self.unread: Final = unread
        self.sent: Final = sent
        self.queued: Final = queued
        self.send_window: Final = send_window  # None on HTTP/1.1
        self.recv_window: Final = recv_window


@final
class Snapshot(Value):
    """One connection: its requests, its slots, its windows, and how long the peer has been silent. Times in seconds."""

    __match_args__: ClassVar[tuple[str, ...]] = tuple(
        (
            "protocol origin status requests unsent unconfirmed limit capacity silence ping send_window "
            "recv_window unflushed written"
        ).split()
    )
    __slots__ = __match_args__

    def __init__(
        self,
        protocol: str,
        origin: str,
        status: str,
        requests: tuple[RequestSnapshot, ...],
        unsent: tuple[int, ...],
        unconfirmed: tuple[int, ...],
        limit: int,
        capacity: int,
        silence: float,
        ping: float | None,
        send_window: int | None,
        recv_window: int | None,
        unflushed: int,
        written: int,
    ) -> None:
        self.protocol: Final = protocol
        self.origin: Final = origin
        self.status: Final = status
        self.requests: Final = requests  # live
        self.unsent: Final = unsent  # failed, their RST_STREAM waits for the pacer
        self.unconfirmed: Final = unconfirmed  # reset, and the peer has shown no life since they were opened
        self.limit: Final = limit  # requests at once
        self.capacity: Final = capacity  # of them free
        self.silence: Final = silence  # since the peer was last heard of; INFINITY for never
        self.ping: Final = ping  # since the PING in flight left, or None
        self.send_window: Final = send_window  # the connection's; None on HTTP/1.1
        self.recv_window: Final = recv_window
        self.unflushed: Final = unflushed  # bytes of content handed out that are not in the kernel
        self.written: Final = written  # bytes handed out in all

    def describe(self) -> str:
        """In words, one line for the connection and one for each request."""
        used = len(self.requests) + len(self.unsent) + len(self.unconfirmed)
        heard = (
            "the peer was never heard of" if self.silence == INFINITY else f"the peer silent for {self.silence:.2f} s"
        )
        ping = "no PING in flight" if self.ping is None else f"a PING unanswered for {self.ping:.2f} s"
        lines = [
            f"{self.protocol} to {self.origin}, {self.status}: {used} of {self.limit} slots taken, {heard}, {ping}"
        ]
        for request in self.requests:
            clock = "no clock runs" if request.left == INFINITY else f"{request.clock} runs out in {request.left:.2f} s"
            lines.append(
                f"  {request.ref:>5} {request.method} {request.target}: {request.state}; waits for {request.waits_for}; "
                f"age {request.age:.2f} s, silent {request.silence:.2f} s; {clock}"
            )
        lines.extend([f"  {ref:>5} failed; its RST_STREAM waits for the pacer" for ref in self.unsent])
        lines.extend([f"  {ref:>5} reset; the peer has shown no life since it was opened" for ref in self.unconfirmed])
        return "\n".join(lines)


def snap_request(
    exchange: Exchange,
    now: float,
    send_window: int | None,
    recv_window: int | None,
    flushed: tuple[int, float, bool] = (0, NEVER, False),
) -> RequestSnapshot:
    """One request's record as a snapshot."""
    upload = exchange.upload
    due, clock = exchange.running_clock(flushed)
    heard = exchange.heard_at()
    return RequestSnapshot(
        exchange.ref,
        exchange.method,
        exchange.target,
        STATE_NAMES[exchange.state],
        exchange.waits_for(),
        now - exchange.opened_at,
        now - (exchange.opened_at if heard == NEVER else heard),
        clock,
        due - now,
        exchange.status,
        exchange.received,
        exchange.unread,
        0 if upload is None else upload.sent,
        0 if upload is None else upload.queued,
        send_window,
        recv_window,
    )
