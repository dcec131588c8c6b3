"""What all servers serve and the certificates that they show."""

import functools
import hashlib
import os
import random
import ssl
from collections.abc import Iterator
from pathlib import Path

import trustme

SMALL = b"hello"
CHUNK = 1024 * 1024
MEDIUM_SIZE = CHUNK
LARGE_SIZE = 100 * CHUNK
SEED = 20200202
# Constant file times make ETag and Last-Modified the same in every run, so that recordings can be compared.
MODIFIED = 1580601600


def content(size: int) -> Iterator[bytes]:
    """Pseudo-random bytes in whole chunks: incompressible, the same in every run."""
    source = random.Random(SEED)
    for _ in range(size // CHUNK):
        yield source.randbytes(CHUNK)


def _sha256(size: int) -> str:
    digest = hashlib.sha256()
    for chunk in content(size):
        digest.update(chunk)
    return digest.hexdigest()


@functools.cache
def large_sha256() -> str:
    """What the body of ``/large`` must hash to."""
    return _sha256(LARGE_SIZE)


@functools.cache
def medium_sha256() -> str:
    """What the bodies of ``/medium`` and ``/chunked`` must hash to."""
    return _sha256(MEDIUM_SIZE)


def write_docroot(directory: Path) -> Path:
    """Write the files ``small``, ``medium`` and ``large``; returns the directory.

    A server that starts as root reads them as another user, so the directory and all above it must let others in.
    """
    directory.mkdir(exist_ok=True)
    (directory / "small").write_bytes(SMALL)
    for name, size in (("medium", MEDIUM_SIZE), ("large", LARGE_SIZE)):
        with (directory / name).open("wb") as file:
            file.writelines(content(size))
    for path in directory.iterdir():
        path.chmod(0o644)
        os.utime(path, (MODIFIED, MODIFIED))
    directory.chmod(0o755)
    return directory


class PrivateCa:
    """A certificate authority of this run alone and one server certificate for every name of the loopback host."""

    def __init__(self, directory: Path) -> None:
        self.authority = trustme.CA()
        self.ca_file = directory / "ca.pem"
        self.cert_file = directory / "server.pem"
        self.key_file = directory / "server.key"
        certificate = self.authority.issue_cert("localhost", "127.0.0.1", "::1")
        self.authority.cert_pem.write_to_path(str(self.ca_file))
        certificate.private_key_pem.write_to_path(str(self.key_file))
        for blob in certificate.cert_chain_pems:
            blob.write_to_path(str(self.cert_file), append=True)

    def client_context(self, *alpn: str) -> ssl.SSLContext:
        """A verifying client context that trusts nothing but this authority."""
        context = ssl.create_default_context(cafile=str(self.ca_file))
        if alpn:
            context.set_alpn_protocols(list(alpn))
        return context
