"""TLS for both drivers: a context from a few words, and TLS over memory BIOs, so that one read drains many records."""

import os
import ssl
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Final

READ_SIZE: Final = 256 * 1024
RECORD_SIZE: Final = (
    16 * 1024
)  # the most that a record holds (RFC 8446 §5.1): room for more is made and given back in vain

Verify = bool | str | os.PathLike[str] | ssl.SSLContext
Cert = str | os.PathLike[str] | tuple[str, str] | tuple[str, str, str]


def make_context(
    verify: Verify = True, cert: Cert | None = None, alpn: Sequence[str] = ("h2", "http/1.1")
) -> ssl.SSLContext:
    """A client's TLS context: TLS 1.2 or later, certificates checked against the system's trust store.

    `verify`: True; a file or directory of CA certificates (PEM) to trust instead; False, written out, to check nothing;
    or a context of your own, which is used as it is but for its ALPN protocols. `cert`: a client certificate (PEM), or
    (certificate, key) or (certificate, key, password). SSL_CERT_FILE and SSL_CERT_DIR replace the system's store, and
    SSLKEYLOGFILE names a file for the secrets, where the environment sets them. Raises OSError where a file cannot be
    read, and its subclass ssl.SSLError where it is not what it should be.
    """
    if isinstance(verify, ssl.SSLContext):
        context = verify
    elif verify is True:
        context = default_context()
    elif verify is False:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif isinstance(verify, str | os.PathLike) and os.fspath(verify):
        context = ssl.create_default_context(capath=verify) if os.path.isdir(verify) else trust_file(os.fspath(verify))
    else:
        raise TypeError(f"verify={verify!r}: write True, False, a path of CA certificates, or an ssl.SSLContext")
    if context is not verify:
        context.minimum_version = ssl.TLSVersion.TLSv1_2
    if cert is not None:
        parts = cert if isinstance(cert, tuple) else (cert,)
        try:
            context.load_cert_chain(*parts)
        except OSError as error:
            raise named(error, " with ".join([os.fspath(part) for part in parts[:2]])) from None
    context.set_alpn_protocols(list(alpn))
    return context


def trust_file(path: str) -> ssl.SSLContext:
    """A context that trusts the CA certificates in this file alone."""
    try:
        return ssl.create_default_context(cafile=path)
    except OSError as error:
        raise named(error, path) from None


def named(error: OSError, path: str) -> OSError:
    """The same error, with the file that it is about: the ssl module does not say."""
    if isinstance(error, ssl.SSLError):
        return ssl.SSLError(error.errno, f"{path}: {error.strerror}")
    return OSError(error.errno, error.strerror, path)


def default_context() -> ssl.SSLContext:
    """Certificates checked against the system's own store: OpenSSL's paths on Linux, the platform's service elsewhere."""
    if sys.platform == "linux" or "SSL_CERT_FILE" in os.environ or "SSL_CERT_DIR" in os.environ:
        return ssl.create_default_context()
    # By its name, since it is installed where it is needed only, and type checkers look for it everywhere.
    context: ssl.SSLContext = import_module("truststore").SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if "SSLKEYLOGFILE" in os.environ:
        context.keylog_filename = os.environ["SSLKEYLOGFILE"]
    return context


def make_buffer() -> bytearray:
    """What to read into. Content comes and goes in pieces of this size, a few at a time, and the C library is to keep that
    memory, or every piece costs page faults: glibc keeps twice the largest block that it was ever given back."""
    bytes(4 * READ_SIZE)  # given back at once, untouched
    return bytearray(READ_SIZE)


class TLSPipe:
    """TLS without a socket: what came in goes to `feed`, what has to go out is taken from `sealed`."""

    def __init__(self, context: ssl.SSLContext, server_hostname: str, session: ssl.SSLSession | None = None) -> None:
        """`server_hostname`: for SNI and the certificate, in neither of which stand a trailing dot or an address's zone.
        `session`: one of this context to be resumed (RFC 8446 §2.2), if the server agrees."""
        self.incoming = ssl.MemoryBIO()
        self.outgoing = ssl.MemoryBIO()
        self.ended = False  # nothing more can be read
        self.clean = False  # … because the peer said so (close_notify), and not because the transport broke
        self.reason = ""  # … or why else
        name = server_hostname.partition("%")[0].rstrip(".")
        self.object = context.wrap_bio(self.incoming, self.outgoing, server_hostname=name, session=session)

    def feed(self, data: bytes | memoryview) -> None:
        """Bytes from the transport; none means that it ended."""
        if data:
            self.incoming.write(data)
        else:
            self.incoming.write_eof()
            self.reason = "no close_notify"  # or it would have been read before

    def sealed(self) -> bytes:
        """Bytes for the transport."""
        return self.outgoing.read()

    def handshake(self) -> bool:
        """Goes on with the handshake; True when it is done. Raises ssl.SSLError, then `sealed` holds the alert."""
        try:
            self.object.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def open(self) -> bytes:
        """All the plaintext that has come."""
        parts: list[bytes] = []
        try:
            while part := self.object.read(RECORD_SIZE):
                parts.append(part)
            self.ended = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.ended = True
        except ssl.SSLError as error:  # a bad record, an alert
            self.ended = True
            self.reason = self.reason or str(error.strerror or error)
        self.clean = self.ended and not self.reason  # OpenSSL itself does not tell: see OP_IGNORE_UNEXPECTED_EOF
        return b"".join(parts)

    def seal(self, data: bytes) -> int:
        """Encrypts `data`, for `sealed`; returns how much of it."""
        return self.object.write(data)

    def end(self) -> None:
        """Says close_notify; what the peer answers is not waited for."""
        try:
            self.object.unwrap()
        except ssl.SSLError:
            pass
