"""Every Python example of the README and of these pages runs as it stands, against a server on loopback."""

import inspect
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

import calamint
from calamint.core.pool_state import Stats
from calamint.testing import Action, Request, ScriptedPeer, answer, delay
from tests import servers
from tests.net.test_tls import server_context
from tests.transports.test_sdks import ANTHROPIC, END, OPENAI, event

ROOT: Final = Path(__file__).parents[1]
PAGES: Final = (
    "README.md",
    "docs/start.md",
    "docs/clients.md",
    "docs/pools.md",
    "docs/httpx.md",
    "docs/httpx2.md",
    "docs/requests.md",
)
BLOCK: Final = re.compile(r"```python\n(.*?)```", re.DOTALL)
EXAMPLES: Final = [
    (page, number, text)
    for page in PAGES
    for number, text in enumerate(BLOCK.findall((ROOT / page).read_text(encoding="utf-8")))
]
LIMIT: Final = 30.0
STREAMS: Final = {"/v1/chat/completions": OPENAI + event("[DONE]"), "/v1/messages": ANTHROPIC + END}


def script(request: Request) -> Action:
    """What the examples ask for."""
    path = request.target.partition("?")[0]
    if path == "/events":
        return answer(content=b"one\ntwo\n", fields=((b"content-type", b"text/event-stream"),))
    if path == "/slow":
        return delay(5.0, answer())
    if path == "/large":
        return answer(content=bytes(300_000), fields=((b"content-length", b"300000"),))
    if path == "/old":
        return answer(301, fields=((b"location", b"/new"),))
    if path == "/hints":
        return answer(content=b"x", interim=((103, ((b"link", b"</a>"),)),), trailers=((b"x-sum", b"1"),))
    if path in STREAMS:
        return answer(content=STREAMS[path], fields=((b"content-type", b"text/event-stream"),))
    if request.method == "POST":
        return answer(content=request.content, fields=((b"content-type", b"application/json"),))
    return answer(content=b"hello", fields=((b"content-type", b"text/plain"),))


@pytest.fixture(scope="module")
def place(private_ca: servers.PrivateCa) -> Iterator[tuple[str, str, Path]]:
    """URLs of a server with TLS and of one without, and the certificate authority's file."""
    context = server_context(private_ca)
    context.set_alpn_protocols(["h2", "http/1.1"])
    with ScriptedPeer(script, tls=context) as secure, ScriptedPeer(script) as plain:
        yield secure.url, plain.url, private_ca.ca_file


@pytest.mark.parametrize(("page", "number", "text"), EXAMPLES, ids=[f"{page}-{number}" for page, number, _ in EXAMPLES])
def test_example(page: str, number: int, text: str, place: tuple[str, str, Path], tmp_path: Path) -> None:
    secure, plain, ca = place
    for name, url in (
        ("https://api.example", secure),
        ("https://private.example", secure),
        ("http://user:secret@proxy.example:3128", plain.replace("http://", "http://user:secret@")),
    ):
        text = text.replace(name, url)
    (tmp_path / "ca.pem").write_bytes(ca.read_bytes())
    environment = {**os.environ, "SSL_CERT_FILE": str(ca), "REQUESTS_CA_BUNDLE": str(ca), "NO_PROXY": "*"}
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", text],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout or "print(" not in text or "stderr" in text
    assert time.monotonic() - began < LIMIT


def test_the_page_on_pools_is_complete() -> None:
    """Every limit, every number and every kind of report."""
    text = (ROOT / "docs" / "pools.md").read_text(encoding="utf-8")
    kinds = inspect.signature(calamint.Tracer).parameters
    names = [*calamint.Limits.__match_args__, *Stats.__match_args__, *kinds]
    assert [name for name in names if f"`{name}`" not in text] == []
