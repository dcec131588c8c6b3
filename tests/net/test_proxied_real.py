"""Real proxies before real servers, through both pools: squid, tinyproxy (HAProxy takes TLS off for it), and microsocks."""

import pytest

import calamint
from calamint.core.errors import ProxyError
from calamint.net.proxy import Proxy
from tests.net.proxied import ONE, Make
from tests.net.test_real_proxies import PROXIES
from tests.servers import MEDIUM_SIZE, SMALL, Server
from tests.servers.proxies import PASSWORD, USER

pytestmark = [pytest.mark.server, pytest.mark.usefixtures("nothing_left")]


class Way:
    """A proxy and how to reach it."""

    def __init__(self, server: Server, key: str) -> None:
        self.server = server
        self.key = key

    def proxy(self, password: str = PASSWORD) -> Proxy:
        return Proxy(self.server.urls[self.key], auth=(USER, password), ssl=self.server.ca_file)


@pytest.fixture(params=PROXIES, ids="-".join)
def through(request: pytest.FixtureRequest) -> Way:
    name, key = request.param
    return Way(request.getfixturevalue(name), key)


def localhost(url: str) -> str:
    return url.replace("127.0.0.1", "localhost")


@pytest.mark.parametrize("http2", [True, False])
def test_https(make: Make, through: Way, node: Server, nginx: Server, http2: bool) -> None:
    """Two origins, each through a tunnel of its own that is used again, content both ways."""
    content = bytes(range(256)) * 1000
    with make(http2=http2) as driver:
        for origin in (node, nginx):
            url = localhost(origin.urls["https"])
            assert driver.fetch(f"{url}/small", through.proxy()) == SMALL
            assert len(driver.fetch(f"{url}/medium", through.proxy())) == MEDIUM_SIZE
            assert driver.request(f"{url}/echo", through.proxy(), "POST", content=content).content == content
        assert driver.stats().dials == 2
        names = {connection.protocol for connection in driver.snapshot().connections}
        assert names == {"HTTP/2" if http2 else "HTTP/1.1"}


def test_http(make: Make, through: Way, node: Server, nginx: Server) -> None:
    """Several origins share what squid keeps open; tinyproxy closes after each response, and every GET is answered."""
    content = bytes(range(256)) * 100
    with make(limits=ONE) as driver:
        for _ in range(5):
            for origin in (node, nginx):
                url = localhost(origin.urls["http1"])
                assert driver.fetch(f"{url}/small", through.proxy()) == SMALL
        for _ in range(5):
            try:
                response = driver.request(f"{url}/echo", through.proxy(), "POST", content=content)
            except calamint.TransportError as error:  # of HTTP's own doing: it was not known to be over
                assert through.server.name == "tinyproxy" and isinstance(error, calamint.NetworkError)
            else:
                assert response.content == content
        dials = driver.stats().dials
        assert dials == 1 if through.server.name == "squid" else dials >= 1


def test_wrong_credentials(make: Make, through: Way, node: Server) -> None:
    if through.key == "open":
        pytest.skip("this one asks nobody")
    with make(limits=ONE) as driver:
        for _ in range(3):
            error = driver.refuse(localhost(node.urls["https"]), through.proxy("wrong"))
            assert isinstance(error, ProxyError) and error.unprocessed
            if through.key != "socks5":
                assert error.status in (401, 407)
                assert {b"proxy-authenticate", b"www-authenticate"} & {name.lower() for name, _ in error.fields}
        if through.key != "socks5":
            response = driver.request(localhost(node.urls["http1"]), through.proxy("wrong"))
            assert response.status in (401, 407)


def test_what_the_origin_hears(make: Make, through: Way, node: Server) -> None:
    """Nothing of the credentials for the proxy; in the clear, squid and tinyproxy take them away themselves."""
    with make() as driver:
        for key in ("https", "http1"):
            response = driver.request(f"{localhost(node.urls[key])}/unique", through.proxy())
            assert response.status == 200 and PASSWORD.encode() not in response.content


def test_an_origin_that_nobody_reaches(make: Make, through: Way) -> None:
    with make(limits=ONE) as driver:
        for _ in range(2):
            error = driver.refuse("https://127.0.0.1:9/", through.proxy())
            assert isinstance(error, ProxyError)
            assert error.status in ((None,) if through.key == "socks5" else (500, 502, 503))
