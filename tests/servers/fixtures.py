"""Fixtures: the real servers, one of each per test session, and what they serve (``conftest.py`` shows them).

Those that are named like a server yield a ``servers.Server``; a server whose program is missing is a skip that says
which package has it, and a failure where the environment says ``CI=true``.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import pytest

from tests import servers
from tests.servers import proxies


def run(context: AbstractContextManager[servers.Server]) -> Iterator[servers.Server]:
    """The body of a server's fixture."""
    with ExitStack() as stack:
        try:
            server = stack.enter_context(context)
        except servers.MissingServer as error:
            if os.environ.get("CI") == "true":
                pytest.fail(str(error))
            pytest.skip(str(error))
        yield server


@pytest.fixture(scope="session")
def private_ca(tmp_path_factory: pytest.TempPathFactory) -> servers.PrivateCa:
    """The authority that signed the certificate of every server here."""
    return servers.PrivateCa(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="session")
def large_file() -> Iterator[Path]:
    """The 100 MiB file behind ``/large``; its directory is the document root of all servers.

    It is not under pytest's temporary directory, which only its owner may enter (Apache does not serve as root) and
    which is kept for several runs.
    """
    with tempfile.TemporaryDirectory(prefix="docroot-") as directory:
        yield servers.write_docroot(Path(directory)) / "large"


@pytest.fixture(scope="session")
def node(
    tmp_path_factory: pytest.TempPathFactory, large_file: Path, private_ca: servers.PrivateCa
) -> Iterator[servers.Server]:
    """Node.js: every route, over clear HTTP/1.1, h2c, and TLS with either."""
    yield from run(servers.node(tmp_path_factory.mktemp("node"), large_file.parent, private_ca))


@pytest.fixture(scope="session")
def nginx(
    tmp_path_factory: pytest.TempPathFactory, large_file: Path, private_ca: servers.PrivateCa, node: servers.Server
) -> Iterator[servers.Server]:
    """nginx, with node behind it for the routes that need a program; also on a Unix-domain socket."""
    yield from run(servers.nginx(tmp_path_factory.mktemp("nginx"), large_file.parent, private_ca, node))


@pytest.fixture(scope="session")
def apache(
    tmp_path_factory: pytest.TempPathFactory, large_file: Path, private_ca: servers.PrivateCa, node: servers.Server
) -> Iterator[servers.Server]:
    """Apache httpd, with node behind it for the routes that need a program."""
    yield from run(servers.apache(tmp_path_factory.mktemp("apache"), large_file.parent, private_ca, node))


@pytest.fixture(scope="session")
def nghttpd(
    tmp_path_factory: pytest.TempPathFactory, large_file: Path, private_ca: servers.PrivateCa
) -> Iterator[servers.Server]:
    """nghttpd: HTTP/2 only, static files and echoed uploads."""
    yield from run(servers.nghttpd(tmp_path_factory.mktemp("nghttpd"), large_file.parent, private_ca))


@pytest.fixture(scope="session")
def h2o(
    tmp_path_factory: pytest.TempPathFactory, large_file: Path, private_ca: servers.PrivateCa, node: servers.Server
) -> Iterator[servers.Server]:
    """h2o, with node behind it for the routes that need a program."""
    yield from run(servers.h2o(tmp_path_factory.mktemp("h2o"), large_file.parent, private_ca, node))


@pytest.fixture(scope="session")
def haproxy(
    tmp_path_factory: pytest.TempPathFactory, private_ca: servers.PrivateCa, node: servers.Server
) -> Iterator[servers.Server]:
    """HAProxy, with node behind it for every route."""
    yield from run(servers.haproxy(tmp_path_factory.mktemp("haproxy"), private_ca, node))


@pytest.fixture(scope="session")
def hypercorn(
    tmp_path_factory: pytest.TempPathFactory, large_file: Path, private_ca: servers.PrivateCa
) -> Iterator[servers.Server]:
    """hypercorn: every route, by an ASGI application."""
    yield from run(servers.hypercorn(tmp_path_factory.mktemp("hypercorn"), large_file.parent, private_ca))


@pytest.fixture(scope="session")
def squid(private_ca: servers.PrivateCa) -> Iterator[servers.Server]:
    """squid: a proxy over HTTP, clear and TLS. Like ``large_file``, its directory is one that others may enter."""
    with tempfile.TemporaryDirectory(prefix="squid-") as directory:
        Path(directory).chmod(0o755)
        yield from run(proxies.squid(Path(directory), private_ca))


@pytest.fixture(scope="session")
def tinyproxy(tmp_path_factory: pytest.TempPathFactory, private_ca: servers.PrivateCa) -> Iterator[servers.Server]:
    """tinyproxy: a proxy over HTTP, clear and TLS."""
    yield from run(proxies.tinyproxy(tmp_path_factory.mktemp("tinyproxy"), private_ca))


@pytest.fixture(scope="session")
def microsocks(tmp_path_factory: pytest.TempPathFactory, private_ca: servers.PrivateCa) -> Iterator[servers.Server]:
    """microsocks: a SOCKS proxy."""
    yield from run(proxies.microsocks(tmp_path_factory.mktemp("microsocks"), private_ca))
