"""Start a server process, wait until it accepts connections, stop it with all its children."""

import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path

HOST = "127.0.0.1"
READY_SECONDS = 30.0
STOP_SECONDS = 10.0
POLL_SECONDS = 0.02
PORT_ATTEMPTS = 5


class MissingServer(Exception):
    """The server's program is not installed; the message names the Debian package that has it."""


class StartError(RuntimeError):
    """The server did not come up; the message ends with the last lines of its log."""


@dataclass(frozen=True)
class Server:
    """A running server.

    ``urls`` has "http1" (clear HTTP/1.1), "https" (TLS) and "h2c" (clear HTTP/2 by prior knowledge), each only if
    the server offers it. The certificate is also good for ``localhost``. ``alpn`` is what "https" negotiates.
    """

    name: str
    urls: dict[str, str]
    ca_file: Path
    log_file: Path
    pids: tuple[int, ...]
    alpn: tuple[str, ...] = ("h2", "http/1.1")
    unix_socket: Path | None = None

    @property
    def pid(self) -> int:
        """The main process (nghttpd has one more, for TLS: see ``pids``)."""
        return self.pids[0]


def find_binary(name: str, package: str) -> str:
    """The path of a server's program, also where users other than root have no PATH to."""
    path = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"]))
    if path is None:
        raise MissingServer(f"no program {name!r} was found: install the Debian package {package}")
    return path


def free_ports(count: int) -> list[int]:
    """Distinct ports that nobody listens on at this moment (another process may still take one: then retry)."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(closing(socket.socket())) for _ in range(count)]
        for each in sockets:
            each.bind((HOST, 0))
        return [each.getsockname()[1] for each in sockets]


def accepts(port: int) -> bool:
    """Whether a TCP connection to the port succeeds now."""
    try:
        socket.create_connection((HOST, port), timeout=1.0).close()
    except OSError:
        return False
    return True


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Poll until the condition holds; False when the deadline passed first."""
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not condition():
        if time.monotonic() > deadline:
            return False
        pause.wait(POLL_SECONDS)
    return True


def stop(process: subprocess.Popen[bytes]) -> None:
    """End the process group: politely first; then whatever is left of it, such as workers of a dead master."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)


def log_tail(log_file: Path, lines: int = 20) -> str:
    """The end of a log, for error messages."""
    return "\n".join(log_file.read_text(errors="replace").splitlines()[-lines:])


def start(
    stack: ExitStack,
    port_count: int,
    command: Callable[[list[int]], list[str]],
    log_file: Path,
    announced: Callable[[], bool],
) -> tuple[subprocess.Popen[bytes], list[int]]:
    """Run ``command(ports)`` until it is ready; the stack stops it.

    Ready means that the server said so itself (``announced``), which it does only after it bound its ports, if it does
    at all, and that the ports accept connections: a connection alone could be to a stranger who took the port just
    before. A server that exits instead is tried again on other ports.
    """
    for _ in range(PORT_ATTEMPTS):
        with ExitStack() as attempt:
            ports = free_ports(port_count)
            process = _spawn(command(ports), log_file)
            attempt.callback(stop, process)
            if _is_ready(process, ports, announced):
                stack.enter_context(attempt.pop_all())
                return process, ports
            if process.poll() is None:
                raise StartError(f"{process.args!r} was not ready in {READY_SECONDS} s\n{log_tail(log_file)}")
    raise StartError(f"{process.args!r} exited {PORT_ATTEMPTS} times at start\n{log_tail(log_file)}")


def _spawn(command: list[str], log_file: Path) -> subprocess.Popen[bytes]:
    log_file.unlink(missing_ok=True)
    with log_file.open("ab") as log:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=log_file.parent, process_group=0
        )


def _is_ready(process: subprocess.Popen[bytes], ports: list[int], announced: Callable[[], bool]) -> bool:
    def settled() -> bool:
        return process.poll() is not None or (announced() and all(map(accepts, ports)))

    return wait_until(settled, READY_SECONDS) and process.poll() is None
