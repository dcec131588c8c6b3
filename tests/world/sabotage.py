"""The test of the test: small mutations of core/, each of which a law of the world must notice within some thousand requests.

A mutation is text in a temporary copy of the package that a process of its own imports; nothing is patched.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import calamint

PACKAGE = Path(calamint.__file__).parent
ROOT = Path(__file__).parents[2]


class Mutation(NamedTuple):
    name: str
    module: str  # of core/
    old: str  # exactly once in it
    new: str
    within: int = 4000  # requests


MUTATIONS = (
    Mutation(
        "a slot is free before its reset is handed out",
        "http2.py",
        "return conn.live - len(control.pushes) + len(control.unsent) + len(control.unconfirmed)",
        "return conn.live - len(control.pushes) + len(control.unconfirmed)",
    ),
    Mutation(
        "a cancelled stream stays live",
        "http2.py",
        "    draft.reset(stream, CANCEL)\n    failure",
        "    draft.own_control().unsent[ref] = (CANCEL, stream.mark, True)\n    draft.pace_resets()\n    failure",
    ),
    Mutation(
        "a cancelled stream is not reset",
        "http2.py",
        "    draft.reset(stream, CANCEL)\n    failure",
        "    draft.leave(stream)\n    failure",
    ),
    Mutation(
        "a request that timed out is not reset",
        "http2.py",
        "            draft.reset(stream, CANCEL)\n            draft.events",
        "            draft.leave(stream)\n            draft.events",
    ),
    Mutation(
        "every reset is sent twice",
        "http2_state.py",
        "            del control.unsent[ref]\n            self.out.append(frames.encode_reset(ref, code))",
        "            del control.unsent[ref]\n            self.out.append(frames.encode_reset(ref, code) * 2)",
    ),
    Mutation(
        "a reset answers a reset",
        "http2_receive.py",
        "    stream = draft.find(ref, RECV_RESET)\n",
        "    stream = draft.find(ref, RECV_RESET)\n    if stream is not None:\n"
        "        draft.out.append(frames.encode_reset(ref, code))\n",
    ),
    Mutation(
        "a reset that waits is sent though the peer has reset",
        "http2_state.py",
        "            if both or not ours_open:",
        "            if False:",
        20_000,
    ),
    Mutation(
        "resets are not paced", "http2_state.py", "RESET_BURST: Final = 500.0", "RESET_BURST: Final = 5000.0", 20_000
    ),
    Mutation(
        "the timer forgets the resets that wait",
        "http2.py",
        "    if draft.control.unsent:\n        draft.pace_resets()\n",
        "",
        20_000,
    ),
    Mutation(
        "DATA of dead streams is not counted",
        "http2_receive.py",
        "    draft.recv_window = window\n",
        "    if find_stream(draft.streams, ref) is not None:\n        draft.recv_window = window\n",
    ),
    Mutation(
        "DATA of dead streams is not credited",
        "http2_receive.py",
        "    if credit >= window:  # half of it has been used\n",
        "    if credit >= window and find_stream(draft.streams, ref) is not None:\n",
        20_000,
    ),
    Mutation("padding is not given back", "http2_receive.py", "stream.credit += length - left", "stream.credit += 0"),
    Mutation(
        "the connection's credit is one short",
        "http2_receive.py",
        "encode_window_update(0, credit)",
        "encode_window_update(0, credit - 1)",
    ),
    Mutation(
        "a stream's credit is one short",
        "http2_state.py",
        "encode_window_update(stream.ref, stream.credit)",
        "encode_window_update(stream.ref, stream.credit - 1)",
    ),
    Mutation("a stream's credit is due too late", "flow.py", "credit * 2 >= window", "credit > window"),
    Mutation(
        "a stream's send window is one too large",
        "http2_send.py",
        "stream.send_window -= len(piece)",
        "stream.send_window -= len(piece) - 1",
    ),
    Mutation(
        "the connection's send window is not charged",
        "http2_send.py",
        "draft.send_window -= len(piece)",
        "draft.send_window -= 0",
    ),
    Mutation(
        "a larger INITIAL_WINDOW_SIZE wakes nobody",
        "http2_receive.py",
        "        draft.reopen_windows(highest)\n",
        "        pass\n",
    ),
    Mutation(
        "a WINDOW_UPDATE wakes nobody",
        "http2_receive.py",
        "        if upload.queued and may_send(stream):\n            draft.make_ready(ref)",
        "        if upload.queued and not may_send(stream):\n            draft.make_ready(ref)",
    ),
    Mutation(
        "HPACK is skipped for dead streams",
        "http2_receive.py",
        "    head = decode_head(draft, block)\n",
        "    if find_stream(draft.streams, ref) is None:\n        return\n    head = decode_head(draft, block)\n",
    ),
    Mutation(
        "a new table size is not announced",
        "http2_settings.py",
        "        draft.encoder = hpack.resize(draft.encoder, number)\n",
        "        pass\n",
    ),
    Mutation(
        "the timer is not armed again",
        "http2.py",
        "        if due > draft.now:\n            draft.wake = min(draft.wake, due)\n",
        "        if due > draft.now:\n            pass\n",
    ),
    Mutation(
        "a stream that changes does not arm the timer",
        "http2_state.py",
        "        if wake < self.wake:\n            self.wake = wake\n        return twin",
        "        return twin",
    ),
    Mutation(
        "a deadline does not arm the timer",
        "http2.py",
        "    draft.wake = min(draft.wake, wake, deadline)\n",
        "    draft.wake = min(draft.wake, wake)\n",
    ),
    Mutation(
        "GOAWAY spares one above its last id",
        "http2_receive.py",
        "        if stream.ref > last and stream.ref & 1:",
        "        if stream.ref > last + 2 and stream.ref & 1:",
        20_000,
    ),
    Mutation(
        "GOAWAY takes the last id with it",
        "http2_receive.py",
        "        if stream.ref > last and stream.ref & 1:",
        "        if stream.ref >= last and stream.ref & 1:",
        20_000,
    ),
    Mutation("GOAWAY does not stop new requests", "http2_receive.py", "    draft.status = DRAINING\n", "", 20_000),
    Mutation(
        "a reset by the peer counts as unprocessed",
        "http2_receive.py",
        "refused = code == REFUSED_STREAM and stream.head_at == NEVER",
        "refused = True",
    ),
    Mutation(
        "what had left counts as unprocessed",
        "http2_state.py",
        "stream.head_offset > sent",
        "stream.head_offset > 0",
        20_000,
    ),
    Mutation(
        "content of a dead stream stays in turn",
        "http2_state.py",
        "        if stream.upload is not None and stream.ref in self.ready:",
        "        if stream.upload is None and stream.ref in self.ready:",
    ),
    Mutation(
        "SETTINGS are not acknowledged", "http2_receive.py", "    draft.out.append(frames.encode_settings_ack())\n", ""
    ),
    Mutation(
        "every other PING is not answered",
        "http2_receive.py",
        "        draft.out.append(frames.encode_ping(payload, frames.ACK))\n",
        "        if payload[7] & 1:\n            draft.out.append(frames.encode_ping(payload, frames.ACK))\n",
    ),
    Mutation(
        "the answer to a PING is not noticed",
        "http2_receive.py",
        "        control.ping_at = NEVER\n",
        "        pass\n",
    ),
    Mutation(
        "MAX_CONCURRENT_STREAMS of 0 is taken for 1",
        "http2_settings.py",
        "limit=min(number, draft.setup.settings.max_streams)",
        "limit=min(number or 1, draft.setup.settings.max_streams)",
    ),
    Mutation(
        "MAX_CONCURRENT_STREAMS only falls",
        "http2_settings.py",
        "limit=min(number, draft.setup.settings.max_streams)",
        "limit=min(number, peer.limit)",
    ),
    Mutation(
        "an empty leaf of the map stays",
        "http2_state.py",
        "            if before == 1:\n",
        "            if before == 0:\n",
    ),
    Mutation(
        "life does not confirm resets",
        "http2.py",
        "            draft.own_control().unconfirmed = {}\n",
        "            pass\n",
    ),
    Mutation(
        "a record is written without a copy",
        "http2_state.py",
        "        twin = stream.copy(owner)\n",
        "        twin = stream\n        twin.owner = owner\n",
    ),
    Mutation(
        "a copy shares what waits", "http2_state.py", "            self.unsent.copy(),\n", "            self.unsent,\n"
    ),
    Mutation(
        "a short response is complete",
        "http2_receive.py",
        "    if stream.expected > 0:\n",
        "    if stream.expected > 1_000_000_000:\n",
    ),
    Mutation(
        "a HEAD waits for its content-length",
        "http2_receive.py",
        'stream.expected = 0 if head.bare or stream.method == "HEAD" else head.length',
        "stream.expected = 0 if head.bare else head.length",
    ),
    Mutation(
        "a cut frame loses its END_STREAM",
        "http2_receive.py",
        "    draft.partial = None if complete else (ref, left, padding, end)\n",
        "    draft.partial = None if complete else (ref, left, padding, 0)\n",
    ),
    Mutation(
        "a stream error ends a request twice",
        "http2_state.py",
        "            self.reset(stream, fault.code)\n",
        "            self.reset(stream, fault.code)\n            self.events.append(RequestFailed(fault.ref, failure))\n",
    ),
    Mutation(
        "frames without progress cost nothing",
        "http2_state.py",
        "        self.spent += 1.0\n",
        "        self.spent += 0.0\n",
        20_000,
    ),
    Mutation(
        "a reset that nobody may have seen frees its slot",
        "http2.py",
        "    stream.mark = draft.frames\n",
        "    stream.mark = -1\n",
    ),
    Mutation(
        "the expectation's clock is not armed",
        "http2.py",
        "            draft.wake = min(draft.wake, draft.now + clocks.expect)\n",
        "            pass\n",
        20_000,
    ),
    Mutation(
        "a push takes a slot of ours",
        "http2.py",
        "return conn.live - len(control.pushes) + len(control.unsent) + len(control.unconfirmed)",
        "return conn.live + len(control.unsent) + len(control.unconfirmed)",
    ),
    Mutation(
        "HTTP/1.1: the timer is not armed again",
        "http1.py",
        "            draft.wake = min(draft.wake, due)\n",
        "            pass\n",
    ),
    Mutation(
        "HTTP/1.1: what was read stays unread",
        "http1.py",
        "    record.unread -= size\n",
        "    record.unread -= 0\n",
    ),
    Mutation(
        "HTTP/1.1: a request follows one that is not idempotent",
        "http1.py",
        "        if last.method not in IDEMPOTENT or (last.state",
        "        if last.method is None or (last.state",
    ),
    Mutation(
        "HTTP/1.1: content runs into the next head",
        "http1_receive.py",
        "piece = data[pos : pos + record.expected]",
        "piece = data[pos : pos + record.expected + 1]",
        20_000,
    ),
    Mutation(
        "HTTP/1.1: the end of a chunk is content",
        "http1_receive.py",
        "        if not draft.left:\n            draft.reading = CHUNK_END\n",
        "        if not draft.left:\n            draft.reading = CHUNK_SIZE\n",
    ),
)


class Verdict(NamedTuple):
    mutation: str
    law: str  # that noticed it, or "-"
    requests: int
    within: int


def mutate(mutation: Mutation | None, directory: str) -> None:
    """A copy of the package, with the mutation in it."""
    copy = Path(directory, "calamint")
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    if mutation is not None:
        module = copy / "core" / mutation.module
        text = module.read_text()
        if text.count(mutation.old) != 1:
            raise ValueError(f"{mutation.name}: its text stands {text.count(mutation.old)} times in {mutation.module}")
        module.write_text(text.replace(mutation.old, mutation.new))


def run(mutation: Mutation | None, seed: int, within: int, *flags: str) -> Verdict:
    """The worlds of this seed against a copy of the package."""
    with tempfile.TemporaryDirectory() as directory:
        mutate(mutation, directory)
        command = [sys.executable, "-m", "tests.world", "--terse", "--requests", str(within), "--seed", str(seed)]
        paths = os.pathsep.join([directory, str(ROOT)])
        done = subprocess.run(
            [*command, "--source", directory, *flags],
            env={**os.environ, "PYTHONPATH": paths},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=600,
        )
        if done.returncode not in (0, 1) or not done.stdout:
            raise RuntimeError(f"{command} ended with {done.returncode}: {done.stderr[-2000:]}")
        requests, law = done.stdout.split(" ", 1)
        return Verdict(mutation.name if mutation else "nothing changed", law.strip(), int(requests), within)


def sabotage(
    seed: int, jobs: int, say: Callable[[str], None], mutations: tuple[Mutation, ...] = MUTATIONS, *flags: str
) -> int:
    """Every mutation, and the package as it is; prints the table."""
    say(f"seed {seed}")
    most = max(mutation.within for mutation in mutations)
    missed = 0
    say(f"{'mutation':56} {'caught by the law of':16} {'requests':>8} {'within':>7}")
    with ThreadPoolExecutor(max(1, jobs)) as pool:
        plain = pool.submit(run, None, seed, most, *flags)
        runs = [pool.submit(run, mutation, seed, mutation.within, *flags) for mutation in mutations]
        for each in runs:
            verdict = each.result()
            missed += verdict.law == "-"
            say(f"{verdict.mutation:56} {verdict.law:16} {verdict.requests:8,} {verdict.within:7,}")
        sound = plain.result()
    say(f"{sound.mutation:56} {sound.law:16} {sound.requests:8,} {sound.within:7,}")
    say(f"{len(mutations) - missed} of {len(mutations)} caught")
    return 1 if missed or sound.law != "-" else 0
