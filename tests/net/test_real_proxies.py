"""Real proxies, through the stages: tunnels with TLS in them and around them, SOCKS, and requests that are forwarded."""

import socket
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

import pytest

from calamint import core
from calamint.core.errors import ProxyError, to_exception
from calamint.core.exchange import SETTINGS
from calamint.core.url import Origin
from calamint.net.handshake import Layers, Nested, stages
from calamint.net.proxy import Proxy, absolute_form
from calamint.net.response import Response
from calamint.net.sync import Connection
from calamint.net.tls import TLSPipe, make_context
from calamint.net.wire import Wire
from tests.net.live import SECONDS
from tests.servers import SMALL, Server
from tests.servers.proxies import PASSWORD, USER

pytestmark = pytest.mark.server

HTTP_PROXIES = [("squid", "http"), ("squid", "https"), ("squid", "open"), ("tinyproxy", "http"), ("tinyproxy", "https")]
PROXIES = [*HTTP_PROXIES, ("microsocks", "socks5")]


@dataclass
class Path:
    """A way to node through a proxy."""

    server: Server
    key: str
    node: Server

    def proxy(self, password: str = PASSWORD) -> Proxy:
        return Proxy(self.server.urls[self.key], auth=(USER, password), ssl=self.server.ca_file)

    def origin(self, key: str) -> Origin:
        url = urlsplit(self.node.urls[key])
        assert url.port is not None
        return Origin(url.scheme, "localhost", url.port)

    def shake(self, sock: socket.socket, proxy: Proxy, origin: Origin, protocol: str) -> Layers:
        """All handshakes, or a failure."""
        tls = None
        if origin.scheme == "https":
            tls = TLSPipe(make_context(self.node.ca_file, alpn=(protocol,)), origin.host)
        layers = Layers(stages(proxy, origin, tls))
        sock.sendall(layers.start(time.monotonic()))
        while not layers.done and layers.failure is None:
            sock.sendall(layers.feed(sock.recv(65_536), time.monotonic()))
        return layers

    def dial(self) -> socket.socket:
        proxy = self.proxy()
        return socket.create_connection((proxy.origin.host, proxy.origin.port), SECONDS)

    def fetch(self, key: str, protocol: str, *targets: str) -> tuple[Layers, list[Response]]:
        """Responses, one after the other on one connection."""
        proxy, origin = self.proxy(), self.origin(key)
        with self.dial() as sock:
            layers = self.shake(sock, proxy, origin, protocol)
            assert layers.done and layers.failure is None and layers.leftover == b""
            conn, data = core.connect(protocol, origin, SETTINGS, time.monotonic())
            connection = Connection(Wire(sock, layers.pipe), conn, data)
            responses: list[Response] = []
            for target in targets:
                fields = proxy.fields if proxy.forwards(origin) else ()
                form = absolute_form(origin, target) if proxy.forwards(origin) else target
                responses.append(connection.response(connection.request("GET", form, fields)))
            connection.close()
        return layers, responses


@pytest.fixture
def path(request: pytest.FixtureRequest, node: Server) -> Path:
    name, key = request.param
    return Path(request.getfixturevalue(name), key, node)


@pytest.mark.parametrize("protocol", ["h2", "http/1.1"])
@pytest.mark.parametrize("path", PROXIES, indirect=True)
def test_https_through_a_tunnel(path: Path, protocol: str) -> None:
    layers, (small, medium) = path.fetch("https", protocol, "/small", "/medium")
    assert isinstance(layers.pipe, Nested) is (path.key == "https")
    assert layers.pipe is not None and layers.pipe.object.selected_alpn_protocol() == protocol
    assert (small.status, small.content, medium.status, len(medium.content)) == (200, SMALL, 200, 1024 * 1024)


@pytest.mark.parametrize("path", PROXIES, indirect=True)
def test_http_is_forwarded_or_goes_through_socks(path: Path) -> None:
    """One connection each: tinyproxy closes after every response, and does not say so."""
    _, (small,) = path.fetch("http1", "http/1.1", "/small")
    layers, (medium,) = path.fetch("http1", "http/1.1", "/medium")
    assert (layers.pipe is not None) is (path.key == "https")
    assert (small.status, small.content, medium.status, len(medium.content)) == (200, SMALL, 200, 1024 * 1024)
    via = small.get("via") or ""
    assert ("squid" in via or "tinyproxy" in via) is (path.key != "socks5")


@pytest.mark.parametrize("path", [way for way in PROXIES if way[1] != "open"], indirect=True)
def test_wrong_credentials(path: Path) -> None:
    with path.dial() as sock:
        layers = path.shake(sock, path.proxy("wrong"), path.origin("https"), "h2")
    assert layers.failure is not None
    error = to_exception(layers.failure)
    assert isinstance(error, ProxyError) and error.unprocessed
    if path.key == "socks5":
        assert error.status is None and "Username and password authentication failure" in str(error)
    else:
        assert error.status in (401, 407) and f"the proxy refuses: {error.status} " in str(error)
        assert {b"proxy-authenticate", b"www-authenticate"} & {name for name, _ in error.fields}


@pytest.mark.parametrize("path", PROXIES, indirect=True)
def test_nobody_listens_at_the_far_end(path: Path) -> None:
    """A port that is bound, and on which nobody listens."""
    with path.dial() as sock, socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        layers = path.shake(sock, path.proxy(), Origin("https", "127.0.0.1", bound.getsockname()[1]), "h2")
    assert layers.failure is not None and layers.failure.kind == "ProxyError"
    assert layers.failure.status in ((0,) if path.key == "socks5" else (500, 502, 503))
    assert layers.failure.message.startswith("no ")
