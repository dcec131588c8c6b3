"""An HTTP/2 model server: answers, forgets, drips, resets, refuses, as its plans say; `misbehave` is in model_acts.py.

A pure object without I/O: `receive(data, now)`, `tick(now)`, `next_timeout()`, `take(room)`. Written from RFC 9113.
"""

from random import Random

from tests.world import model_frames as f
from tests.world.model_ledger import Ledger
from tests.world.plans import Habits, Plan, Stream, draw_plan, pattern

_NO_CONTENT = (204, 304)
_BAD_HEADS: tuple[tuple[str, f.Fields], ...] = (
    ("upper case", ((b":status", b"200"), (b"X-Upper", b"1"))),
    ("connection field", ((b":status", b"200"), (b"connection", b"close"))),
    ("transfer-encoding", ((b":status", b"200"), (b"transfer-encoding", b"chunked"))),
    ("no status", ((b"server", b"model"),)),
    ("two statuses", ((b":status", b"200"), (b":status", b"200"))),
    ("pseudo-field after regular", ((b"server", b"model"), (b":status", b"200"))),
    ("short status", ((b":status", b"20"),)),
    ("status with letters", ((b":status", b"2x0"),)),
    ("101 over HTTP/2", ((b":status", b"101"),)),
    ("leading space", ((b":status", b"200"), (b"server", b" model"))),
    ("NUL in a value", ((b":status", b"200"), (b"server", b"mo\0del"))),
    ("CR LF in a value", ((b":status", b"200"), (b"server", b"mo\r\ndel: x"))),
    ("two lengths", ((b":status", b"200"), (b"content-length", b"1"), (b"content-length", b"2"))),
    ("signed length", ((b":status", b"200"), (b"content-length", b"+5"))),
    ("unknown pseudo-field", ((b":status", b"200"), (b":sort", b"5"))),
    ("request pseudo-field", ((b":status", b"200"), (b":path", b"/"))),
    ("empty name", ((b":status", b"200"), (b"", b"5"))),
)


class Http2Model(Ledger):
    def __init__(self, rng: Random, habits: Habits, now: float = 0.0) -> None:
        super().__init__(rng, habits)
        self.sending: list[Stream] = []  # with content to send
        self.forgotten = False  # nobody gets an answer any more
        self._turn = 0
        self._next_push = 2
        self._mute = habits.settings_pause > 0  # what it has to say waits, and SETTINGS are the first of it
        if "settings" in habits.withhold:
            self.crimes.append("no SETTINGS")
        else:
            self.announce(habits.settings)
        if self._mute:
            self.later(now + habits.settings_pause, "settings")

    # --- output

    def take(self, room: int) -> bytes:
        """What goes out now, at most `room` bytes."""
        if self._mute:
            return b""
        while len(self.out) < room and self.sending and self._send_some(room - len(self.out)):
            pass
        if len(self.out) <= room:
            data = bytes(self.out)
            self.out.clear()
            return data
        data = bytes(self.out[:room])
        del self.out[:room]
        return data

    def announce(self, values: dict[int, int]) -> None:
        self.settings_sent = True
        self.unacknowledged.append(dict(values))
        self.emit(f.frame(f.SETTINGS, 0, 0, f.encode_settings(values)))

    def announced(self, setting: int, default: int) -> int:
        """The value that the client will go by once it has read all that was sent."""
        value = self.ours.get(setting, default)
        for values in self.unacknowledged:
            value = values.get(setting, value)
        return value

    # --- the agenda

    def act(self, action: str, number: int, now: float) -> None:
        if action == "settings":
            self._mute = False
            return
        if action == "read":
            self.reading = True
            return
        stream = self.streams.get(number)
        if stream is None or action in ("credit", "ack"):
            super().act(action, number, now)
        elif action == "after":
            self._after(stream)
        elif action == "late":
            self._late(stream)
        elif stream.open and stream.server_open and not stream.forgotten:
            stream.served.acted = True
            if action == "answer":
                self._answer(stream, now)
            elif action == "continue":
                self._head(stream, ((b":status", b"100"),), False)
                stream.served.interims += 1
            elif action == "refusal":
                self._refusal(stream, now)
            elif action == "piece":
                self._piece(stream, now)

    # --- a request

    def on_request(self, stream: Stream, fields: list[tuple[bytes, bytes]], now: float) -> None:
        served = stream.served
        plan = served.plan = draw_plan(self.seed, served.key, self.habits)
        if plan.then == "refuse":
            self.reset(stream, f.REFUSED_STREAM, now)
            return
        if self.forgotten:
            return
        expects = any(name == b"expect" for name, _ in fields)
        if expects and plan.continue_ == "send":
            self.later(now + plan.delay, "continue", stream.id)
        elif expects and plan.continue_ == "refuse":
            self.later(now + plan.delay, "refusal", stream.id)
            return
        if plan.push and self.client[f.ENABLE_PUSH]:
            served.acted = True
            for _ in range(plan.push):
                self.push(stream, now)
        if plan.early or served.tunnel:
            self.later(now + plan.delay, "answer", stream.id)
            plan.early = True

    def on_end(self, stream: Stream, now: float) -> None:
        plan = stream.served.plan
        if plan is not None and not plan.early and not self.forgotten and stream.actions == 0 and stream.server_open:
            self.later(now + plan.delay, "answer", stream.id)
        elif plan is not None and not plan.early and not self.forgotten and stream.server_open:
            self.later(now + plan.delay * 2, "answer", stream.id)  # after a 100 that is still to come

    def on_reset(self, stream: Stream, now: float) -> None:
        plan = stream.served.plan
        if plan is not None and plan.late and stream.server_open:
            self.later(now + plan.delay / 2, "late", stream.id)

    def on_window(self, now: float) -> None: ...

    # --- a response

    def _answer(self, stream: Stream, now: float) -> None:
        if stream.head_sent:
            return
        served, plan = stream.served, stream.served.plan
        assert plan is not None
        if plan.then and plan.at == "start":
            self._fault(stream, plan, now)
            return
        for number in range(plan.interim):
            fields: f.Fields = ((b":status", b"103"), (b"link", b"</a>")) if number % 2 else ((b":status", b"102"),)
            self._head(stream, fields, False)
            served.interims += 1
        if plan.then and plan.at == "interim":
            self._fault(stream, plan, now)
            return
        self._final_head(stream, plan, now)
        if plan.then and plan.at == "head" and stream.server_open:
            self._fault(stream, plan, now)
            return
        if stream.server_open:
            stream.left = plan.stop if plan.then else plan.size
            self._go_on(stream, plan, now)

    def _final_head(self, stream: Stream, plan: Plan, now: float) -> None:
        served = stream.served
        if served.tunnel:
            plan.status = 200 if plan.status < 400 else plan.status
            served.tunnel = plan.status == 200
        fields = [(b":status", str(plan.status).encode())]
        without = served.method == "HEAD" or plan.status in _NO_CONTENT
        if plan.stated and not served.tunnel and plan.status != 204:
            stream.stated = plan.size
            fields.append((b"content-length", str(plan.size).encode()))
        if plan.dynamic:
            fields.append((b"x-key", f"{served.key}-{plan.fault}".encode()))
            fields.append((b"server", b"model/2"))
            fields.append((b"x-some", f"v{plan.fault % 7}".encode()))
        ends = without or (not plan.size and not plan.trailers and plan.fault % 2 == 0)
        if served.tunnel:
            ends = False
        served.status = plan.status
        served.fields = tuple(fields)
        self._head(stream, served.fields, ends)
        stream.head_sent = True
        if ends:
            self._ended(stream, now)

    def _refusal(self, stream: Stream, now: float) -> None:
        if stream.head_sent:
            return
        stream.served.status = 417
        stream.served.fields = ((b":status", b"417"),)
        stream.head_sent = True
        self._head(stream, stream.served.fields, True)
        self._ended(stream, now)

    def _head(self, stream: Stream, fields: f.Fields, ends: bool) -> None:
        plan = stream.served.plan
        assert plan is not None
        if plan.dynamic:
            block = bytes(self.encoder.encode(list(fields), huffman=plan.fault % 3 == 0))
        else:
            # A change of the table size has to be told at the beginning of the next block, whichever it is.
            block = b"".join([self.encoder.encode([], huffman=False), f.plain_block(fields)])
        flags = f.END_STREAM if ends else 0
        prefix = b""
        if plan.padding and plan.fault % 2:
            flags |= f.PADDED
            prefix = bytes((plan.padding,))
            frame = f.frame(f.HEADERS, flags | f.END_HEADERS, stream.id, prefix + block + bytes(plan.padding))
            if len(frame) <= self.client[f.MAX_FRAME]:
                self.emit(frame)
                return
            flags &= ~f.PADDED
        self.emit(f.block_frames(f.HEADERS, flags, stream.id, block, plan.split, self.client[f.MAX_FRAME]))

    def _go_on(self, stream: Stream, plan: Plan, now: float) -> None:
        """Content is sent as it fits, or piece by piece."""
        if plan.pause and plan.piece and stream.left > plan.piece:
            self.later(now + plan.pause, "piece", stream.id)
        elif stream not in self.sending:
            self.sending.append(stream)

    def _piece(self, stream: Stream, now: float) -> None:
        plan = stream.served.plan
        assert plan is not None
        if stream.left > plan.piece and self._content(stream, plan, plan.piece):
            self.later(now + plan.pause, "piece", stream.id)
        elif stream not in self.sending:
            self.sending.append(stream)

    def _send_some(self, room: int) -> bool:
        """One frame of each stream that has something to send and a window for it. False when none could."""
        any_sent = False
        room = max(room, 1000)
        for stream in list(self.sending):
            plan = stream.served.plan
            if plan is None or not stream.open or not stream.server_open or stream.forgotten:
                self.sending.remove(stream)
                continue
            if stream.left:
                any_sent = self._content(stream, plan, min(room, stream.left)) > 0 or any_sent
            if stream.left == 0 and stream.open and stream.server_open and plan is not None:
                self.sending.remove(stream)
                any_sent = True
                if plan.then:
                    self._fault(stream, plan, self.now)
                else:
                    self._end(stream, plan)
        return any_sent

    def _content(self, stream: Stream, plan: Plan, size: int) -> int:
        """DATA of at most `size` bytes of content, as the windows allow."""
        size = min(size, self.client[f.MAX_FRAME] - 300)
        extra = plan.padding + 1 if plan.padding else 0
        window = min(self.send_window, stream.send_window)
        if window <= extra:
            extra = 0
        size = min(size, window - extra)
        if size <= 0:
            return 0
        content = pattern(stream.served.key, stream.served.sent, size)
        stream.left -= size
        stream.served.sent += size
        self.send_window -= size + extra
        stream.send_window -= size + extra
        last = not stream.left and not plan.trailers and not plan.then and plan.fault % 2 == 0
        flags = f.END_STREAM if last else 0
        if extra:
            content = bytes((plan.padding,)) + content + bytes(plan.padding)
            flags |= f.PADDED
        self.emit(f.frame(f.DATA, flags, stream.id, content))
        if last:
            self.sending = [each for each in self.sending if each is not stream]
            self._ended(stream, self.now)
        return size

    def _end(self, stream: Stream, plan: Plan) -> None:
        if plan.trailers and stream.served.method != "HEAD" and not stream.served.tunnel:
            stream.served.trailers = ((b"x-sum", str(stream.served.sent).encode()),)
            self._head(stream, stream.served.trailers, True)
        else:
            self.emit(f.frame(f.DATA, f.END_STREAM, stream.id))
        self._ended(stream, self.now)

    def _ended(self, stream: Stream, now: float) -> None:
        """The response went out whole."""
        plan = stream.served.plan
        stream.server_open = False
        stream.served.ended = True
        stream.over_at = self.put
        self._forget_if_over(stream)
        if plan is None:
            return
        if stream.client_open and plan.fault % 3 == 0 and not stream.served.tunnel:
            self.reset(stream, f.NO_ERROR, now)  # RFC 9113 §8.1: the rest of the request is not needed
        elif plan.after:
            self.later(now + plan.delay + 0.001, "after", stream.id)

    def reset(self, stream: Stream, code: int, now: float) -> None:
        if not stream.open:
            return
        stream.reset_by = "server"
        stream.served.code = code
        self.emit(f.rst_stream(stream.id, code))
        if stream.over_at < 0:
            stream.over_at = self.put
        self._forget_if_over(stream)

    # --- what is wrong, or merely unkind

    def _fault(self, stream: Stream, plan: Plan, now: float) -> None:
        if plan.then == "reset":
            self.reset(stream, plan.code, now)
        elif plan.then == "malformed" and not stream.served.tunnel:
            if stream.head_sent:
                self._bad_rest(stream, plan)
            else:
                self._bad_head(stream, plan)
        else:
            stream.forgotten = True

    def _bad_head(self, stream: Stream, plan: Plan) -> None:
        which = plan.fault % (len(_BAD_HEADS) + 2)
        stream.head_sent = True
        if which < len(_BAD_HEADS):
            stream.served.crime, fields = _BAD_HEADS[which]
            self._head(stream, fields, plan.fault % 2 == 0)
        elif which == len(_BAD_HEADS):
            stream.served.crime = "content before the head"
            if stream.pushed:
                self.crimes.append("DATA on a reserved stream")  # RFC 9113 §5.1: a connection error
            if min(self.send_window, stream.send_window) < 1:
                self.emit(f.window_update(stream.id, 0))
                return
            self.send_window -= 1
            stream.send_window -= 1
            self.emit(f.frame(f.DATA, 0, stream.id, b"x"))
        else:
            stream.served.crime = "an interim response that ends the stream"
            self._head(stream, ((b":status", b"103"),), True)

    def _bad_rest(self, stream: Stream, plan: Plan) -> None:
        served = stream.served
        which = plan.fault % 5
        if which == 0:
            served.crime = "trailers without END_STREAM"
            self._head(stream, ((b"x-sum", b"1"),), False)
        elif which == 1:
            served.crime = "pseudo-field in trailers"
            self._head(stream, ((b":status", b"200"),), True)
        elif which == 2 and stream.stated > served.sent and served.method != "HEAD":
            served.crime = "shorter than stated"
            self.emit(f.frame(f.DATA, f.END_STREAM, stream.id))
        elif which == 3:
            served.crime = "stream window overflows"
            self.emit(f.window_update(stream.id, f.MAX_WINDOW) * 2)  # one is lawful while the window is negative
        else:
            served.crime = "WINDOW_UPDATE of 0"
            self.emit(f.window_update(stream.id, 0))

    def _late(self, stream: Stream) -> None:
        """The client has reset it, and we go on as if its RST_STREAM had not come yet."""
        plan = stream.served.plan
        assert plan is not None
        if stream.served.crime:
            return
        if not stream.head_sent:
            fields = ((b":status", b"200"), (b"x-late", str(stream.id).encode()))
            stream.head_sent = True
            self._head(stream, fields, False)
        for _ in range(plan.fault % 6):
            size = min(1 + plan.fault, self.send_window, stream.send_window)
            if size > 0:
                self.send_window -= size
                stream.send_window -= size
                self.emit(f.frame(f.DATA, 0, stream.id, bytes(size)))
        if plan.fault % 5 == 0:
            self.emit(f.window_update(stream.id, 1000))
        if plan.fault % 2:
            self.emit(f.rst_stream(stream.id, f.CANCEL))
        else:
            self._head(stream, ((b"x-sum", str(stream.id).encode()),), True)

    def _after(self, stream: Stream) -> None:
        """Frames that may arrive on a stream after its end, and mean nothing (RFC 9113 §5.1)."""
        plan = stream.served.plan
        assert plan is not None
        if plan.fault % 3 == 0:
            self.emit(f.window_update(stream.id, 1 + plan.fault))
        if plan.fault % 3 == 1 and not stream.client_open:
            self.emit(f.rst_stream(stream.id, f.NO_ERROR))
        self.emit(f.frame(f.PRIORITY, 0, stream.id, bytes(5)))

    # --- push

    def push(self, stream: Stream, now: float) -> None:
        """PUSH_PROMISE and its response, where the client wants such things."""
        plan = stream.served.plan
        assert plan is not None
        if not stream.open or not stream.server_open:
            return
        number = self._next_push
        self._next_push += 2
        key = 1_000_000 + number
        request = (
            (b":method", b"GET"),
            (b":scheme", b"https"),
            (b":path", f"/{key}".encode()),
            (b":authority", b"model.test"),
        )
        if plan.dynamic:
            block = bytes(self.encoder.encode(list(request), huffman=False))
        else:
            block = bytes(self.encoder.encode([])) + f.plain_block(request)
        most = self.client[f.MAX_FRAME]
        self.emit(f.block_frames(f.PUSH_PROMISE, 0, stream.id, block, plan.split, most, number.to_bytes(4, "big")))
        served = type(stream.served)(key, number, "GET", now, acted=True, complete=True)
        pushed = Stream(number, served, self.client[f.INITIAL_WINDOW], 0)
        pushed.pushed, pushed.client_open = True, False
        served.plan = draw_plan(self.seed, key, self.habits)
        served.plan.push = 0
        if served.plan.then == "refuse":
            served.plan.then = ""
        self.streams[number] = self.live[number] = pushed
        self.requests[key] = served
        self.later(now + served.plan.delay, "answer", number)

    # --- the ledger at rest

    def unsettled(self, now: float) -> list[str]:
        """What is still due from the client, with nothing on the way in either direction."""
        due = []
        if self.unacknowledged and self.settings_sent:
            due.append(f"{len(self.unacknowledged)} SETTINGS unacknowledged")
        if self.pings:
            due.append(f"{len(self.pings)} PINGs unanswered")
        if self._block is not None:
            due.append("a field block without END_HEADERS")
        if self._input:
            due.append(f"{len(self._input)} bytes of a frame that did not come whole")
        return due
