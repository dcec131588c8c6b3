"""TLS as a caller meets it: whom it trusts, what it says about itself, how it ends, and what its errors tell."""

import contextlib
import datetime
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

import calamint
from calamint import core
from calamint.core import frames
from calamint.core.url import Origin
from calamint.net import tls
from calamint.net.route import LEAKS, MOST, Route
from calamint.testing import ScriptedPeer, answer
from tests.net.thread_server import LIMIT, ThreadServer, no_answer, read_head
from tests.servers import PrivateCa

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def server_context(ca: PrivateCa, *names: str, alpn: tuple[str, ...] = ()) -> ssl.SSLContext:
    """A server's context, with a certificate of this authority for these names."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.authority.issue_cert(*(names or ("localhost", "127.0.0.1", "::1"))).configure_cert(context)
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


def serve_one(sock: socket.socket) -> None:
    """One response over HTTP/1.1, and then whatever the client does."""
    read_head(sock)
    sock.sendall(OK)
    with contextlib.suppress(OSError):
        no_answer(sock)


def fetch(connection: calamint.Connection) -> bytes:
    with connection:
        return connection.response(connection.request("GET", "/")).content


def to_loopback(name: str, port: int) -> list[tuple[int, int, int, str, tuple[str, int]]]:
    """A resolver for which every name is this host."""
    return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", port))]


# Whom it trusts


@pytest.mark.parametrize("kind", [str, Path])
def test_a_file_of_certificates(private_ca: PrivateCa, kind: type[str | Path]) -> None:
    with ScriptedPeer(tls=server_context(private_ca)) as peer:
        assert fetch(calamint.connect(peer.url, verify=kind(private_ca.ca_file))) == b"ok"


def test_a_directory_of_certificates(private_ca: PrivateCa, tmp_path: Path) -> None:
    """Files named by the hash of the authority's name, as `openssl rehash` names them; others are not looked at."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no program openssl")
    command = [openssl, "x509", "-noout", "-hash", "-in", str(private_ca.ca_file)]
    name = subprocess.run(command, capture_output=True, check=True, text=True, timeout=LIMIT).stdout.strip()
    (tmp_path / "other").mkdir()
    shutil.copy(private_ca.ca_file, tmp_path / "other" / "ca.pem")
    shutil.copy(private_ca.ca_file, tmp_path / f"{name}.0")
    with ScriptedPeer(tls=server_context(private_ca)) as peer:
        assert fetch(calamint.connect(peer.url, verify=tmp_path)) == b"ok"
        with pytest.raises(calamint.ConnectError, match="unable to get local issuer certificate"):
            calamint.connect(peer.url, verify=str(tmp_path / "other"))


def test_a_context_of_the_callers_own(private_ca: PrivateCa) -> None:
    """It is used as it is: only the ALPN protocols are ours to say."""
    context = private_ca.client_context("http/1.1")
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    with ScriptedPeer(tls=server_context(private_ca)) as peer:
        with calamint.connect(peer.url, verify=context) as connection:
            assert connection.protocol == "h2"
            assert connection.response(connection.request("GET", "/")).content == b"ok"
    assert context.minimum_version == ssl.TLSVersion.TLSv1_3


@pytest.mark.parametrize("verify", [None, "", 0, 1, b"ca.pem", ()])
def test_what_verify_may_not_be(verify: object) -> None:
    """Nothing that is merely false turns the checks off: only False does, written out."""
    with pytest.raises(
        TypeError, match=r"verify=.*: write True, False, a path of CA certificates, or an ssl.SSLContext"
    ):
        calamint.connect("https://localhost", verify=verify)  # type: ignore[arg-type]


def test_verify_false_checks_nothing(private_ca: PrivateCa) -> None:
    with ScriptedPeer(tls=server_context(private_ca, "elsewhere.example")) as peer:
        assert fetch(calamint.connect(peer.url, verify=False)) == b"ok"


def refused(private_ca: PrivateCa, context: ssl.SSLContext, **options: object) -> tuple[calamint.ConnectError, str]:
    """The error that a client raises, and what the server saw of it."""
    with ThreadServer(no_answer, context) as server:
        arguments = {"verify": str(private_ca.ca_file), **options}
        with pytest.raises(calamint.ConnectError) as caught:
            calamint.connect(server.url, **arguments)  # type: ignore[arg-type]
    assert caught.value.unprocessed
    return caught.value, " ".join(map(str, server.refused))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("www.example", "Hostname mismatch, certificate is not valid for 'www.example'"),
        ("127.0.0.2", "IP address mismatch, certificate is not valid for '127.0.0.2'"),
    ],
)
def test_the_wrong_name(private_ca: PrivateCa, name: str, words: str) -> None:
    error, seen = refused(private_ca, server_context(private_ca), server_hostname=name)
    assert words in str(error) and str(error).startswith("no TLS with 127.0.0.1:")
    assert isinstance(error.__cause__, ssl.SSLCertVerificationError)
    assert "ALERT_BAD_CERTIFICATE" in seen  # the server is told why


def test_an_unknown_authority(private_ca: PrivateCa) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    error, seen = refused(private_ca, context)
    assert "unable to get local issuer certificate" in str(error)
    assert str(error).endswith(
        '; a CA of your own is trusted with verify="ca.pem", by the command with --cacert ca.pem'
    )
    assert "ALERT_UNKNOWN_CA" in seen
    error, _ = refused(private_ca, server_context(private_ca), verify=True)  # nor does the system know our own
    assert isinstance(error.__cause__, ssl.SSLCertVerificationError)


def test_an_expired_certificate(private_ca: PrivateCa) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    now = datetime.datetime.now(datetime.UTC)
    before, after = now - datetime.timedelta(days=9), now - datetime.timedelta(days=1)
    private_ca.authority.issue_cert("127.0.0.1", not_before=before, not_after=after).configure_cert(context)
    error, seen = refused(private_ca, context)
    assert "certificate has expired" in str(error) and "a CA of your own" not in str(error)
    assert "ALERT_CERTIFICATE_EXPIRED" in seen


@pytest.mark.parametrize("option", ["verify", "cert"])
def test_files_that_are_none(tmp_path: Path, option: str) -> None:
    """The error names the file, which the ssl module does not."""
    path = str(tmp_path / "absent.pem")
    with pytest.raises(FileNotFoundError) as caught:
        calamint.connect("https://localhost", **{option: path})  # type: ignore[arg-type]
    assert caught.value.filename == path
    (tmp_path / "absent.pem").write_text("no certificate\n")
    with pytest.raises(ssl.SSLError, match="absent.pem"):
        calamint.connect("https://localhost", **{option: path})  # type: ignore[arg-type]


# Client certificates


@pytest.fixture
def client_cert(private_ca: PrivateCa, tmp_path: Path) -> Path:
    """A directory with a client's certificate in every form."""
    leaf = private_ca.authority.issue_cert("client@example.org")
    leaf.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "both.pem"))
    leaf.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    leaf.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    key = serialization.load_pem_private_key(leaf.private_key_pem.bytes(), None)
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8)
    (tmp_path / "locked.pem").write_bytes(key.private_bytes(*form, serialization.BestAvailableEncryption(b"secret")))
    return tmp_path


def demanding(ca: PrivateCa) -> ssl.SSLContext:
    """A server's context that asks for a certificate of this authority."""
    context = server_context(ca)
    context.load_verify_locations(ca.ca_file)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


@pytest.mark.parametrize("form", ["both.pem", "cert.pem key.pem", "cert.pem locked.pem secret"])
def test_client_certificates(private_ca: PrivateCa, client_cert: Path, form: str) -> None:
    words = form.split()
    parts = [str(client_cert / word) for word in words[:2]] + words[2:]
    seen: list[object] = []

    def handle(sock: socket.socket) -> None:
        assert isinstance(sock, ssl.SSLSocket)
        certificate = sock.getpeercert() or {}
        seen.append(certificate["subjectAltName"])
        serve_one(sock)

    with ThreadServer(handle, demanding(private_ca)) as server:
        cert = parts[0] if len(parts) == 1 else tuple(parts)
        assert fetch(calamint.connect(server.url, verify=private_ca.ca_file, cert=cert)) == b"ok"  # type: ignore[arg-type]
    assert seen == [(("email", "client@example.org"),)]


def test_a_key_that_is_not_the_certificates(client_cert: Path, private_ca: PrivateCa) -> None:
    with pytest.raises(ssl.SSLError, match="cert.pem with .*server.key"):
        calamint.connect("https://localhost", cert=(str(client_cert / "cert.pem"), str(private_ca.key_file)))


def test_no_certificate_where_one_is_asked_for(private_ca: PrivateCa) -> None:
    """With TLS 1.3 the server's refusal comes after the client's handshake is done: the error has its words all the same."""
    context = demanding(private_ca)
    with ThreadServer(no_answer, context) as server:
        with calamint.connect(server.url, verify=private_ca.ca_file) as connection:
            with pytest.raises(calamint.NetworkError, match="certificate required"):
                connection.response(connection.request("GET", "/"))
    assert "PEER_DID_NOT_RETURN_A_CERTIFICATE" in str(server.refused)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    error, _ = refused(private_ca, context)
    assert "handshake failure" in str(error)


# Versions, and what the environment says


def old_context(context: ssl.SSLContext) -> ssl.SSLContext:
    """The same, for TLS 1.1 and nothing else."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    return context


def test_tls_before_1_2_is_refused(private_ca: PrivateCa) -> None:
    context = old_context(server_context(private_ca))
    with ThreadServer(serve_one, context) as server:  # it does speak TLS 1.1, to a caller who insists
        assert fetch(calamint.connect(server.url, verify=old_context(private_ca.client_context()))) == b"ok"
    error, _ = refused(private_ca, context)
    assert "protocol" in str(error)
    error, _ = refused(private_ca, context, verify=False)
    assert "protocol" in str(error)


def run_with(environment: dict[str, str], url: str) -> int:
    """The exit code of a process that makes one request."""
    code = "import sys, calamint\nwith calamint.connect(sys.argv[1]) as c: print(c.response(c.request('GET', '/')).content)"
    names = ("SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE")
    inherited = {name: value for name, value in os.environ.items() if name not in names}
    command = [sys.executable, "-c", code, url]
    done = subprocess.run(command, env=inherited | environment, capture_output=True, timeout=30, text=True)
    assert (done.stdout == "b'ok'\n") is (done.returncode == 0), done.stderr
    assert done.returncode == 0 or "CERTIFICATE_VERIFY_FAILED" in done.stderr
    return done.returncode


def test_the_environment(private_ca: PrivateCa, tmp_path: Path) -> None:
    """SSL_CERT_FILE replaces the system's store; SSLKEYLOGFILE gets the secrets."""
    log = tmp_path / "keys"
    with ScriptedPeer(tls=server_context(private_ca)) as peer:
        assert run_with({"SSL_CERT_FILE": str(private_ca.ca_file), "SSLKEYLOGFILE": str(log)}, peer.url) == 0
        assert run_with({}, peer.url) == 1
    assert "CLIENT_TRAFFIC_SECRET_0 " in log.read_text()


# Names


@pytest.mark.parametrize(
    ("host", "sni"),
    [
        ("localhost", "localhost"),
        ("LOCALHOST", "localhost"),
        ("localhost.", "localhost"),
        ("www.example", "www.example"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("127.0.0.1", None),
        ("[::1]", None),
    ],
)
def test_server_name_indication(private_ca: PrivateCa, host: str, sni: str | None) -> None:
    """RFC 6066 §3: names as they stand in certificates; addresses never."""
    if host == "[::1]" and not has_ipv6():
        pytest.skip("no IPv6 here")
    context = server_context(private_ca, "localhost", "127.0.0.1", "::1", "www.example", "xn--bcher-kva.example")
    seen: list[str | None] = []
    context.sni_callback = lambda sock, name, context: seen.append(name)
    with ThreadServer(serve_one, context, host="::1" if host == "[::1]" else "127.0.0.1") as server:
        url = f"https://{host}:{server.port}"
        assert fetch(calamint.connect(url, verify=private_ca.ca_file, resolver=to_loopback)) == b"ok"
    assert seen == [sni]


def has_ipv6() -> bool:
    """Whether this host can talk to itself over IPv6."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


def test_the_zone_of_an_address_is_nobodys_business() -> None:
    pipe = tls.TLSPipe(tls.make_context(False), "fe80::1%eth0")
    assert not pipe.handshake()
    hello = pipe.sealed()
    assert hello and b"eth0" not in hello and b"fe80" not in hello


def test_a_name_that_no_certificate_has(private_ca: PrivateCa) -> None:
    here, there = socket.socketpair()
    with here, there, pytest.raises(calamint.InvalidURL, match="is no name for a certificate"):
        calamint.connect("https://localhost", sock=here, server_hostname=".")


# ALPN


@pytest.mark.parametrize(
    ("offered", "options", "protocol"),
    [
        (("h2", "http/1.1"), {}, "h2"),
        (("http/1.1",), {}, "http/1.1"),
        (("h2", "http/1.1"), {"http2": False}, "http/1.1"),
        (("h2", "http/1.1"), {"http1": False}, "h2"),
        ((), {}, "http/1.1"),  # a server that knows no ALPN
    ],
)
@pytest.mark.rfc("9113-3.2-1", "9113-3.2-2", "9113-3.3-1", "9112-9.7-1")
def test_alpn(private_ca: PrivateCa, offered: tuple[str, ...], options: dict[str, bool], protocol: str) -> None:
    with ScriptedPeer(tls=server_context(private_ca), alpn=offered) as peer:
        with calamint.connect(peer.url, verify=str(private_ca.ca_file), **options) as connection:  # type: ignore[arg-type]
            assert connection.protocol == protocol
            assert connection.response(connection.request("GET", "/")).content == b"ok"
        assert peer.report.protocol_errors == ()


@pytest.mark.parametrize("offered", [(), ("http/1.1",)])
@pytest.mark.rfc("9113-3.3-1")
def test_a_server_that_does_not_speak_what_was_asked_for(private_ca: PrivateCa, offered: tuple[str, ...]) -> None:
    context = server_context(private_ca, alpn=offered)
    with ThreadServer(no_answer, context) as server:
        with pytest.raises(calamint.ConnectError, match="speaks http/1.1 where h2 was asked for") as caught:
            calamint.connect(server.url, verify=private_ca.ca_file, http1=False)
    assert caught.value.unprocessed


def test_a_server_that_refuses_by_alert() -> None:
    """no_application_protocol (RFC 7301 §3.2)."""

    def handle(sock: socket.socket) -> None:
        sock.recv(65_536)
        sock.sendall(b"\x15\x03\x03\x00\x02\x02\x78")
        no_answer(sock)

    with ThreadServer(handle) as server:
        with pytest.raises(calamint.ConnectError, match="no application protocol"):
            calamint.connect(f"https://127.0.0.1:{server.port}", verify=False)


def test_neither_protocol_is_refused_before_anything_is_dialled() -> None:
    with pytest.raises(calamint.UnsupportedProtocol, match="leave no protocol"):
        calamint.connect("https://localhost:1", http1=False, http2=False)


def test_over_a_socket_that_is_there(private_ca: PrivateCa) -> None:
    with ScriptedPeer(tls=server_context(private_ca)) as peer:
        sock = socket.create_connection((peer.host, peer.port), timeout=LIMIT)
        assert fetch(calamint.connect("https://localhost", sock=sock, verify=str(private_ca.ca_file))) == b"ok"
        assert sock.fileno() == -1  # it belonged to the connection


# How it ends


@pytest.mark.parametrize("polite", [True, False])
@pytest.mark.rfc("9112-8-4", "9112-9.8-2")
def test_only_close_notify_completes_a_response_that_ends_with_the_connection(
    private_ca: PrivateCa, polite: bool
) -> None:
    """RFC 9112 §9.8: without it, the content may have been cut by anybody."""

    def handle(sock: socket.socket) -> None:
        assert isinstance(sock, ssl.SSLSocket)
        read_head(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\n\r\nall of it?")
        if polite:
            with contextlib.suppress(OSError):  # the client closes without an answer
                sock.unwrap()
        else:
            sock.shutdown(socket.SHUT_WR)
            no_answer(sock)

    with ThreadServer(handle, server_context(private_ca)) as server:
        with calamint.connect(server.url, verify=private_ca.ca_file) as connection:
            ref = connection.request("GET", "/")
            if polite:
                assert connection.response(ref).content == b"all of it?"
            else:
                with pytest.raises(calamint.ReadError, match="only an orderly end completes.*no close_notify"):
                    connection.response(ref)
            assert connection.is_closed


@pytest.mark.rfc("9112-9.8-3")
def test_we_say_close_notify(private_ca: PrivateCa) -> None:
    ends: list[bytes] = []

    def handle(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(OK)
        ends.append(sock.recv(100))  # raises ssl.SSLEOFError without close_notify

    context = server_context(private_ca)
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
    with ThreadServer(handle, context) as server:
        assert fetch(calamint.connect(server.url, verify=private_ca.ca_file)) == b"ok"
    assert ends == [b""]


def test_a_handshake_that_stalls() -> None:
    began = time.monotonic()
    with ThreadServer(no_answer) as server:
        with pytest.raises(
            calamint.ConnectTimeout, match="no TLS with 127.0.0.1:[0-9]+ within the connect limit"
        ) as caught:
            calamint.connect(f"https://127.0.0.1:{server.port}", verify=False, timeout=0.2)
    assert 0.2 <= time.monotonic() - began < 5.0
    assert caught.value.unprocessed


def test_a_handshake_that_drips() -> None:
    """A byte now and then is no progress: the limit is for all of it."""
    over = threading.Event()

    def handle(sock: socket.socket) -> None:
        sock.sendall(b"\x16\x03\x03\x40\x00")  # a record of 16 KiB
        with contextlib.suppress(OSError):
            while not over.wait(0.01):
                sock.sendall(b"\x00")

    began = time.monotonic()
    with ThreadServer(handle) as server:
        with pytest.raises(calamint.ConnectTimeout):
            calamint.connect(f"https://127.0.0.1:{server.port}", verify=False, timeout=0.2)
        assert 0.2 <= time.monotonic() - began < 5.0
        over.set()


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_a_server_without_tls(said: bytes) -> None:
    def handle(sock: socket.socket) -> None:
        sock.recv(65_536)
        sock.sendall(said)

    with ThreadServer(handle) as server:
        with pytest.raises(
            calamint.ConnectError, match="no TLS with 127.0.0.1:[0-9]+: .*(WRONG_VERSION|closed|UNEXPECTED)"
        ) as caught:
            calamint.connect(f"https://127.0.0.1:{server.port}", verify=False)
    assert caught.value.unprocessed
    assert ("does its URL begin with http://?" in str(caught.value)) == (said != b"")


def test_a_reset_in_the_handshake() -> None:
    def handle(sock: socket.socket) -> None:
        sock.recv(65_536)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")

    with ThreadServer(handle) as server:
        words = "no TLS with 127.0.0.1:[0-9]+: the connection broke: Connection reset by peer"
        with pytest.raises(calamint.ConnectError, match=words) as caught:
            calamint.connect(f"https://127.0.0.1:{server.port}", verify=False)
    assert caught.value.unprocessed


# TLSPipe, in memory


class Pair:
    """A TLSPipe and a server, their bytes carried between them in pieces of `size`."""

    def __init__(self, ca: PrivateCa, size: int, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> None:
        self.size = size
        self.client = tls.TLSPipe(tls.make_context(str(ca.ca_file)), "localhost")
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = server_context(ca, alpn=("h2",))
        context.maximum_version = version
        self.server = context.wrap_bio(self.incoming, self.outgoing, server_side=True)

    def to_server(self) -> None:
        self.incoming.write(self.client.sealed())

    def to_client(self, more: bytes = b"") -> bytes:
        """Carries what the server has to say; returns what the client makes of it."""
        data = self.outgoing.read() + more
        opened = b""
        for at in range(0, len(data), self.size):
            self.client.feed(memoryview(data)[at : at + self.size])
            opened += self.client.open()
        return opened

    def shake_hands(self) -> None:
        done = answered = False
        while not (done and answered):
            data = self.outgoing.read()
            for at in range(0, max(1, len(data)), self.size):
                if data:
                    self.client.feed(data[at : at + self.size])
                done = done or self.client.handshake()
            self.to_server()
            if not answered:
                with contextlib.suppress(ssl.SSLWantReadError):
                    self.server.do_handshake()
                    answered = True


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_bytes_cut_anywhere(private_ca: PrivateCa, size: int, version: ssl.TLSVersion) -> None:
    pair = Pair(private_ca, size, version)
    pair.shake_hands()
    assert pair.client.object.selected_alpn_protocol() == "h2"
    content = bytes(range(256)) * 128  # two records
    pair.server.write(content)
    assert pair.to_client() == content
    assert pair.client.seal(content) == len(content)
    pair.to_server()
    assert pair.server.read(100_000) + pair.server.read(100_000) == content
    assert not pair.client.ended
    with contextlib.suppress(ssl.SSLWantReadError):
        pair.server.unwrap()
    assert pair.to_client() == b""
    assert (pair.client.ended, pair.client.clean, pair.client.reason) == (True, True, "")
    pair.client.end()
    pair.to_server()
    pair.server.unwrap()  # our close_notify has come


def test_an_end_without_close_notify(private_ca: PrivateCa) -> None:
    pair = Pair(private_ca, 100_000)
    pair.shake_hands()
    pair.server.write(b"content")
    assert pair.to_client() == b"content"
    pair.client.feed(b"")
    assert pair.client.open() == b""
    assert (pair.client.ended, pair.client.clean, pair.client.reason) == (True, False, "no close_notify")


def test_a_record_that_was_changed(private_ca: PrivateCa) -> None:
    """What came before it is kept."""
    pair = Pair(private_ca, 100_000)
    pair.shake_hands()
    pair.server.write(b"good")
    assert pair.to_client(b"\x17\x03\x03\x00\x20" + bytes(32)) == b"good"
    assert (pair.client.ended, pair.client.clean) == (True, False)
    assert "BAD_RECORD_MAC" in pair.client.reason.upper().replace(" ", "_")


def test_what_comes_with_the_end_of_the_handshake(private_ca: PrivateCa) -> None:
    """With TLS 1.2 the server has the last word: its SETTINGS may come in one packet with it, and nothing after them."""
    context = server_context(private_ca, alpn=("h2",))
    context.maximum_version = ssl.TLSVersion.TLSv1_2

    def handle(sock: socket.socket) -> None:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        server = context.wrap_bio(incoming, outgoing, server_side=True)
        done = False
        while not done:
            with contextlib.suppress(ssl.SSLWantReadError):
                server.do_handshake()
                server.write(frames.encode_settings(((frames.MAX_CONCURRENT_STREAMS, 7),)))
                done = True
            sock.sendall(outgoing.read())
            if not done:
                incoming.write(sock.recv(65_536))
        no_answer(sock)

    with ThreadServer(handle) as server:
        url = f"https://127.0.0.1:{server.port}"
        with calamint.connect(url, verify=private_ca.ca_file) as connection:
            assert connection.capacity == 7
            assert [type(event) for event in connection.receive(0.0)] == [core.SettingsReceived]


def test_the_default_context() -> None:
    context = tls.make_context()
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    context = tls.make_context(False)
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_NONE, False)
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2


def test_answers_in_order_over_tls(private_ca: PrivateCa) -> None:
    """Content of more than one record, in both directions."""
    content = bytes(range(256)) * 1024
    with ScriptedPeer(lambda request: answer(content=request.content), tls=server_context(private_ca)) as peer:
        for options in ({"http1": False}, {"http2": False}):
            with calamint.connect(peer.url, verify=str(private_ca.ca_file), **options) as connection:  # type: ignore[arg-type]
                for _ in range(2):
                    assert connection.response(connection.request("POST", "/", (), content)).content == content


@pytest.mark.skipif(not LEAKS, reason="this Python gives it back, and so it is asked for each time")
def test_a_session_is_asked_for_rarely(private_ca: PrivateCa) -> None:
    """Each time costs kilobytes that Python does not give back; so one is used for ten minutes, however many handshakes."""
    origin, protocols = Origin("https", "localhost", 443), ("http/1.1",)
    route = Route(private_ca.ca_file)
    with ThreadServer(serve_one, tls=server_context(private_ca), connections=3) as server:
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", server.port), LIMIT) as sock:
                pipe = route.start_tls(origin, protocols)
                while not pipe.handshake():
                    sock.sendall(pipe.sealed())
                    pipe.feed(sock.recv(65_536))
                pipe.seal(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
                sock.sendall(pipe.sealed())
                while not pipe.open():
                    pipe.feed(sock.recv(65_536))
                for _ in range(5):
                    route.keep_session(origin, protocols, pipe)
    ((_, asked),) = route._asked.values()
    assert asked == 1 and len(route._sessions) == 1
    others = [Origin("https", f"{number}.test", 443) for number in range(MOST)]  # with the first one, one too many
    for other in others:
        route.keep_session(other, protocols, pipe)
    assert (others[-2], protocols) in route._sessions
    assert (others[-1], protocols) not in route._sessions
