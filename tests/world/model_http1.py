"""An HTTP/1.1 model server, written from RFC 9112: reads requests strictly, answers them in order, and misbehaves by plan.

A pure object without I/O, like `Http2Model`.
"""

from collections import Counter, deque
from heapq import heappop, heappush
from random import Random

from tests.world.plans import INFINITY, Habits, Plan, Served, draw_plan, pattern, request_key

_TOKEN = frozenset(b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
_REASONS = {200: "OK", 204: "No Content", 304: "Not Modified", 404: "Not Found", 413: "Too Large", 500: "Oops", 417: ""}
_BAD_HEADS = (
    b"HTTP/1.1 20 OK\r\n\r\n",
    b"HTTP/2 200 OK\r\ncontent-length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\ncontent-length: +5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nx y: 1\r\ncontent-length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nx : 1\r\ncontent-length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabcde\r\n",
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n-1\r\n",
    b"HTTP/1.1 200 OK\ncontent-length: 0\n\n",
    b"HTTP/1.1 200 OK\r\nx: a\0b\r\ncontent-length: 0\r\n\r\n",
    b"\x00\x00\x00\x04\x00\x00\x00\x00\x00",
    b"220 mail.test ESMTP\r\n",
    b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 5000 + b"\r\n",
    b"HTTP/1.1 200 " + b"O" * 70_000,
)


class Http1Model:
    def __init__(self, rng: Random, habits: Habits, now: float = 0.0) -> None:
        self.seed = rng.getrandbits(30)
        self.habits = habits
        self.violations: list[str] = []
        self.crimes: list[str] = []
        self.requests: dict[int, Served] = {}
        self.received = Counter[str]()
        self.sent = Counter[str]()
        self.reading = True
        self.closing = False  # wants to close once what is pending is gone
        self.broken = False  # wants the connection to die at once, what is pending included
        self.forgotten = False
        self.now = now
        self.client_ended = False
        self._input = bytearray()
        self.out = bytearray()
        self._state = "head"
        self._left = 0  # of the content or chunk that is being read
        self._reading: Served | None = None
        self._waiting: deque[Served] = deque()  # not yet answered; the first is next
        self._stage = ""  # of the answer to the first: "", wait, content
        self._chunked = False
        self._content_left = 0
        self._last = False  # of this connection
        self._client_close = False  # the client said that it will send no more
        self._served = 0
        self._agenda: list[tuple[float, int, str, int]] = []
        self._agenda_count = 0

    # --- what the world tells

    def note_sent(self, size: int, delivered: int, before: int, now: float) -> None:
        """HTTP/1.1 needs to know nothing of that."""

    def end(self, now: float) -> None:
        """The client's half ended: what came whole is still answered."""
        self.client_ended = True
        if self._state != "head" or self._input:
            self._reading = None
        self._last = True
        if not self._waiting:
            self.closing = True

    def complain(self, what: str) -> None:
        self.violations.append(what)

    # --- time

    def later(self, time: float, action: str, key: int = -1) -> None:
        self._agenda_count += 1
        heappush(self._agenda, (time, self._agenda_count, action, key))

    def next_timeout(self) -> float:
        return self._agenda[0][0] if self._agenda else INFINITY

    def tick(self, now: float) -> None:
        self.now = now
        while self._agenda and self._agenda[0][0] <= now:
            _, _, action, key = heappop(self._agenda)
            if action == "read":
                self.reading = True
            elif self._waiting and self._waiting[0].key == key and not self.closing:
                served = self._waiting[0]
                if action == "answer" and self._stage == "wait":
                    self._answer(served)
                elif action == "piece" and self._stage == "content":
                    self._piece(served)
                elif action == "continue" and self._stage in ("", "wait"):
                    self._interim(served, 100)

    # --- output

    def take(self, room: int) -> bytes:
        while len(self.out) < room and self._stage == "content" and self._waiting and not self.closing:
            served = self._waiting[0]
            plan = served.plan
            if plan is None or plan.pause:
                break
            self._content(served, min(self._content_left, max(1, room - len(self.out)), 16384))
        data = bytes(self.out[:room])
        del self.out[:room]
        return data

    @property
    def pending(self) -> bool:
        return bool(self.out)

    # --- input

    def receive(self, data: bytes, now: float) -> None:
        self.now = now
        self._input += data
        while self._input and not self.closing:
            if self._state == "head":
                done = self._read_head()
            elif self._state == "content":
                done = self._read_content(self._left)
            elif self._state == "tunnel":
                done = self._read_content(len(self._input))
            else:
                done = self._read_chunked()
            if not done:
                return

    def _read_head(self) -> bool:
        end = self._input.find(b"\r\n\r\n")
        if end < 0:
            if len(self._input) > 200_000:
                self.complain("a head without end")
            return False
        head = bytes(self._input[:end])
        del self._input[: end + 4]
        line, *lines = head.split(b"\r\n")
        if b"\n" in head.replace(b"\r\n", b"") or b"\r" in head.replace(b"\r\n", b""):
            self.complain("a bare CR or LF in the head")
        method, _, rest = line.partition(b" ")
        target, _, version = rest.partition(b" ")
        if not method or set(method) - _TOKEN or version != b"HTTP/1.1" or not target or b" " in target:
            self.complain(f"request line {line!r}")
        fields: dict[bytes, list[bytes]] = {}
        for each in lines:
            name, colon, value = each.partition(b":")
            if not colon or not name or set(name) - _TOKEN:
                self.complain(f"field line {each!r}")
            fields.setdefault(name.lower(), []).append(value.strip(b" \t"))
        if len(fields.get(b"host", [])) != 1:
            self.complain(f"host fields: {fields.get(b'host')}")
        if self._client_close:
            self.complain("a request after one with `connection: close`")
        self._begin(method.decode(), target.decode(), fields)
        return True

    def _begin(self, method: str, target: str, fields: dict[bytes, list[bytes]]) -> None:
        key = request_key(target)
        served = Served(-1 if key is None else key, self._served, method, self.now)
        self._served += 1
        self.received[method] += 1
        if served.key in self.requests:
            self.complain(f"request {served.key} came twice")
        self.requests[served.key] = served
        misled = (
            "garbage" in self.crimes or "unasked" in self.crimes
        )  # it was taken for a response, or for a part of one
        if not misled and any(
            each.method in ("POST", "PATCH", "CONNECT") or not each.complete for each in self._waiting
        ):
            self.complain("pipelined behind a request that is not idempotent, or not complete (RFC 9112 §9.3.2)")
        plan = served.plan = draw_plan(self.seed, served.key, self.habits)
        lengths, codings = fields.get(b"content-length", []), fields.get(b"transfer-encoding", [])
        served.tunnel = method == "CONNECT" or (b"upgrade" in fields and plan.status == 200 and plan.fault % 2 == 0)
        if lengths and codings or len(lengths) > 1:
            self.complain(f"framing: {lengths} {codings}")
        if any(b"close" in value.lower() for value in fields.get(b"connection", [])):
            self._client_close = self._last = True
        if plan.close or (self.habits.requests_per_connection and self._served >= self.habits.requests_per_connection):
            self._last = True
        self._reading = served
        self._waiting.append(served)
        if codings:
            if codings != [b"chunked"]:
                self.complain(f"transfer-encoding {codings}")
            self._state = "size"
        elif lengths and (not lengths[0].isdigit() or int(lengths[0])):
            if not lengths[0].isdigit():
                self.complain(f"content-length {lengths[0]!r}")
            self._state, self._left = "content", int(lengths[0])
        else:
            self._request_ends()
        if b"expect" in fields and not served.complete:
            self._expected(served, plan)
        elif plan.early and not served.complete and self._waiting[0] is served:
            self._schedule(served)

    def _expected(self, served: Served, plan: Plan) -> None:
        if plan.continue_ == "send":
            self.later(self.now + plan.delay, "continue", served.key)
        elif plan.continue_ == "refuse":
            plan.status, plan.size, plan.then, plan.interim, plan.trailers = 417, 0, "", 0, False
            if self._waiting[0] is served:
                self._schedule(served)
        if plan.continue_ == "send" and self._waiting[0] is not served:
            plan.continue_ = "ignore"

    def _read_content(self, most: int) -> bool:
        served = self._reading
        piece = bytes(self._input[:most])
        del self._input[: len(piece)]
        if served is not None:
            if piece != pattern(served.key, served.received, len(piece)):
                self.complain(f"content of {served.key} differs from what was given, at {served.received}")
            served.received += len(piece)
        self._left -= len(piece)
        if self._state == "content" and not self._left:
            self._request_ends()
        return True

    def _read_chunked(self) -> bool:
        if self._state == "chunk":
            if self._left:
                piece = min(self._left, len(self._input))
                self._read_content(piece)
                return True
            if len(self._input) < 2:
                return False
            if self._input[:2] != b"\r\n":
                self.complain(f"after a chunk: {bytes(self._input[:2])!r}")
            del self._input[:2]
            self._state = "size"
            return True
        end = self._input.find(b"\r\n")
        if end < 0:
            return False
        line = bytes(self._input[:end])
        del self._input[: end + 2]
        if self._state == "trailers":
            if not line:
                self._request_ends()
            elif b":" not in line:
                self.complain(f"trailer {line!r}")
            return True
        try:
            self._left = int(line, 16)
        except ValueError:
            self.complain(f"chunk size {line!r}")
            self.closing = True
            return False
        self._state = "chunk" if self._left else "trailers"
        return True

    def _request_ends(self) -> None:
        served = self._reading
        self._reading = None
        self._state = "head"
        if served is None:
            return
        served.complete = True
        if served.tunnel:
            self._state, self._reading = "tunnel", served
        if self._waiting and self._waiting[0] is served and self._stage == "":
            self._schedule(served)
        elif served not in self._waiting:
            self._between(served)

    # --- the answers, in order

    def _schedule(self, served: Served) -> None:
        plan = served.plan
        assert plan is not None
        if self.forgotten:
            return
        self._stage = "wait"
        self.later(self.now + plan.delay, "answer", served.key)

    def _interim(self, served: Served, status: int) -> None:
        served.acted = True
        served.interims += 1
        self.sent[str(status)] += 1
        self.out += b"HTTP/1.1 %d Interim\r\nx-some: 1\r\n\r\n" % status

    def _answer(self, served: Served) -> None:
        plan = served.plan
        assert plan is not None
        served.acted = True
        if plan.then == "refuse":
            plan.then = ""
        if plan.then and plan.at == "start":
            self._fault(served, plan)
            return
        for number in range(plan.interim):
            self._interim(served, 103 if number % 2 else 102)
        if plan.then and plan.at == "interim":
            self._fault(served, plan)
            return
        self._head(served, plan)
        without = served.method == "HEAD" or plan.status in (204, 304)
        if without or (plan.stated and not plan.size and not served.tunnel):
            self._finish(served, plan, without)
            return
        if plan.then and plan.at == "head":
            self._fault(served, plan)
            return
        self._content_left = plan.stop if plan.then else plan.size
        self._stage = "content"
        if not self._content_left and not plan.then:
            self._finish(served, plan, False)
        elif plan.pause:
            self.later(self.now + plan.pause, "piece", served.key)
        elif not self._content_left:
            self._fault(served, plan)

    def _head(self, served: Served, plan: Plan) -> None:
        fields: list[tuple[bytes, bytes]] = [(b"server", b"model/1"), (b"x-key", str(served.key).encode())]
        self._chunked = False
        status = plan.status
        without = served.method == "HEAD" or status in (204, 304)
        if served.method == "CONNECT":
            status = plan.status = 200 if status < 400 else status
            served.tunnel = status == 200
        elif served.tunnel:
            status = 101
            fields += [(b"connection", b"upgrade"), (b"upgrade", b"echo")]
        if served.tunnel:
            self._last = True
        elif plan.stated or (plan.status == 417):
            if status != 204:
                fields.append((b"content-length", str(plan.size).encode()))
        elif not without and (plan.fault % 4 or plan.trailers):
            fields.append((b"transfer-encoding", b"chunked"))
            self._chunked = True
        elif not without:
            self._last = True  # read until close
        if self._reading is served and not served.tunnel:
            self._last = True  # answered early: the rest of the request is not waited for
        if self._last and not served.tunnel:
            fields.append((b"connection", b"close"))
        elif self.habits.keep_alive:
            fields.append((b"keep-alive", b"max=100, timeout=%d" % self.habits.keep_alive))
        served.status, served.fields = status, tuple(fields)
        self.sent[str(status)] += 1
        lines = [b"HTTP/1.1 %d %s" % (status, _REASONS.get(status, "").encode())]
        lines += [name + b": " + value for name, value in fields]
        self.out += b"\r\n".join(lines) + b"\r\n\r\n"

    def _content(self, served: Served, size: int) -> None:
        plan = served.plan
        assert plan is not None
        size = min(size, self._content_left)
        if size > 0:
            data = pattern(served.key, served.sent, size)
            served.sent += size
            self._content_left -= size
            if self._chunked:
                extension = b";a=b" if plan.padding else b""
                self.out += b"%x%s\r\n%s\r\n" % (size, extension, data)
            else:
                self.out += data
        if not self._content_left:
            if plan.then:
                self._fault(served, plan)
            else:
                self._finish(served, plan, False)

    def _piece(self, served: Served) -> None:
        plan = served.plan
        assert plan is not None
        self._content(served, plan.piece or 1000)
        if self._stage == "content" and self._waiting and self._waiting[0] is served:
            self.later(self.now + plan.pause, "piece", served.key)

    def _finish(self, served: Served, plan: Plan, without: bool) -> None:
        if self._chunked and not without:
            self.out += b"0\r\n"
            if plan.trailers:
                served.trailers = ((b"x-sum", str(served.sent).encode()),)
                self.out += b"x-sum: %d\r\n" % served.sent
            self.out += b"\r\n"
        served.ended = True
        self._stage = "done"
        if self._reading is not served or served.tunnel or self._last:
            self._between(served)

    def _between(self, served: Served) -> None:
        """One exchange is over; the next may already be there."""
        if self._waiting and self._waiting[0] is served:
            self._waiting.popleft()
        self._stage = ""
        if self._last:
            self.closing = True
            return
        if self._waiting:
            following = self._waiting[0]
            if following.complete or (following.plan is not None and following.plan.early):
                self._schedule(following)

    def _fault(self, served: Served, plan: Plan) -> None:
        self._stage = "fault"
        if plan.then == "reset":
            self.broken = plan.fault % 2 == 0
            self.closing = True
            served.crime = "the connection ended"
            self.crimes.append("closed")
        elif plan.then == "malformed" and not served.tunnel:
            served.crime = "malformed"
            self.crimes.append("malformed")
            if served.status:
                self.out += b"\r\nx" if self._chunked else b""
                self.closing = True
            else:
                self.out += _BAD_HEADS[plan.fault % len(_BAD_HEADS)]

    def unsettled(self, now: float) -> list[str]:
        return ["a request that did not come whole"] if self._input and self._state == "head" else []


def misbehave(model: Http1Model, name: str, value: int, now: float) -> None:
    """By name, as scripts do."""
    match name:
        case "close":
            model.crimes.append("closed")
            model.closing = True
        case "garbage":
            model.crimes.append("garbage")
            model.out += Random(value).randbytes(1 + value % 300)
        case "unasked":
            model.crimes.append("unasked")
            model.out += b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            model.closing = True
        case "stop_reading":
            model.reading = False
            model.later(now + value, "read")
        case "forget_all":
            model.forgotten = True
        case "break":
            model.crimes.append("closed")
            model.broken = model.closing = True
