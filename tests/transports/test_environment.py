"""What the environment says is heard with the one-line swap: proxies, and whose certificates to trust."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest

import calamint
from calamint.testing import ScriptedPeer, answer
from calamint.transports.shared import built_in_context, to_proxy
from tests import servers
from tests.net.test_tls import server_context
from tests.transports.kit import Kit

LIMIT = 30.0
PROGRAM = """
import asyncio, sys
import {library} as library
from calamint.transports.{library} import AsyncTransport, Transport

async def main():
    async with library.AsyncClient(transport=AsyncTransport({options})) as client:
        return await client.get(sys.argv[1])

try:
    if {asynchronous}:
        response = asyncio.run(main())
    else:
        with library.Client(transport=Transport({options})) as client:
            response = client.get(sys.argv[1])
    print(response.text, response.http_version)
except library.TransportError as error:
    print(type(error).__name__, error)
"""


class Relay:
    """An HTTP proxy that makes tunnels, and remembers whereto."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.asked: list[bytes] = []
        self.stack = ExitStack()
        self.threads = [threading.Thread(target=self.serve)]
        self.threads[0].start()

    def serve(self) -> None:
        with suppress(OSError):
            while True:
                client = self.stack.enter_context(self.listener.accept()[0])
                head = client.recv(65_536).split(b"\r\n")[0]
                self.asked.append(head)
                host, port = head.split()[1].decode().split(":")
                origin = self.stack.enter_context(socket.create_connection((host, int(port))))
                client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                for one, other in ((client, origin), (origin, client)):
                    self.threads.append(threading.Thread(target=self.copy, args=(one, other)))
                    self.threads[-1].start()

    def copy(self, one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(65_536):
                other.sendall(data)
            other.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        with suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.threads[0].join(LIMIT)
        for thread in self.threads[1:]:
            thread.join(LIMIT)
        self.stack.close()
        self.listener.close()


@pytest.fixture
def relay() -> Iterator[Relay]:
    relay = Relay()
    yield relay
    relay.close()


def run(kit: Kit, url: str, options: str = "", **variables: str) -> str:
    """What a program prints that knows nothing but the environment."""
    code = PROGRAM.format(library=kit.name, options=options, asynchronous=kit.asynchronous)
    kept = {name: value for name, value in os.environ.items() if "PROXY" not in name.upper()}
    command = [sys.executable, "-W", "error", "-c", code, url]
    done = subprocess.run(command, env=kept | variables, capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.slow
def test_proxies_and_certificates(kit: Kit, relay: Relay, private_ca: servers.PrivateCa) -> None:
    trust = {"SSL_CERT_FILE": str(private_ca.ca_file)}
    with ScriptedPeer([answer(content=b"here")], tls=server_context(private_ca)) as peer:
        assert run(kit, peer.url, HTTPS_PROXY=relay.url, **trust) == "here HTTP/2"
        assert relay.asked == [f"CONNECT 127.0.0.1:{peer.port} HTTP/1.1".encode()]
        assert run(kit, peer.url, HTTPS_PROXY=relay.url, NO_PROXY="127.0.0.1", **trust) == "here HTTP/2"
        assert "certificate" in run(kit, peer.url, NO_PROXY="*")
        assert "certificate" in run(kit, peer.url, "trust_env=False", HTTPS_PROXY=relay.url, **trust)
        assert len(relay.asked) == 1
        ours = f"trust_env=False, verify={str(private_ca.ca_file)!r}"
        assert run(kit, peer.url, ours, HTTPS_PROXY=relay.url) == "here HTTP/2"
        assert len(relay.asked) == 1
        assert run(kit, peer.url, f"proxy={relay.url!r}", **trust) == "here HTTP/2"
        assert len(relay.asked) == 2


def test_a_context_that_no_variable_changes(private_ca: servers.PrivateCa) -> None:
    context = built_in_context()
    assert context.check_hostname and context.verify_mode.name == "CERT_REQUIRED"
    assert private_ca.ca_file.exists()


@pytest.mark.parametrize("name", ["httpx", "httpx2"])
def test_proxies_of_the_library(name: str) -> None:
    """Theirs, ours, and URLs."""
    library = Kit(name, False).library
    theirs = library.Proxy("http://user:secret@proxy.example:3128", headers={"x-one": "1"})
    proxy = to_proxy(theirs)
    assert isinstance(proxy, calamint.Proxy)
    assert (proxy.url, proxy.auth) == ("http://proxy.example:3128", ("user", "secret"))
    assert [(key.lower(), value) for key, value in proxy.headers] == [(b"x-one", b"1")]
    context = built_in_context()
    proxy = to_proxy(library.Proxy("https://proxy.example", ssl_context=context))
    assert proxy is not None and proxy.ssl is context
    assert to_proxy(proxy) is proxy
    found = to_proxy(library.URL("http://proxy.example:1"))
    assert found is not None and found.url == "http://proxy.example:1"
    assert to_proxy(None) is None
    with pytest.raises(calamint.InvalidURL):
        to_proxy("gopher://proxy.example")
