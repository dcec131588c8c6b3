"""The command as a user runs it: a process, its options, its exit codes, what it writes where."""

import base64
import hashlib
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from calamint.cli import EPILOG
from calamint.testing import Action, Request, ScriptedPeer, answer, close, forget, garbage, goaway, reset
from tests import servers
from tests.cli.test_verbose import lines_of
from tests.net.thread_server import LIMIT, ThreadServer, full_listener, read_head

pytestmark = pytest.mark.slow  # a hundred processes, of a tenth of a second and more

TIMEOUT = 60.0
TAKEN_AWAY = ("no_color", "ssl_cert_file", "ssl_cert_dir", "sslkeylogfile", "pythonwarnings", "request_method")


def environment(**more: str) -> dict[str, str]:
    known = os.environ.items()
    return {
        name: value for name, value in known if name.lower() not in TAKEN_AWAY and not name.lower().endswith("_proxy")
    } | more


def command(*arguments: str | bytes) -> list[str | bytes]:
    return [sys.executable, "-W", "error", "-m", "calamint", *arguments]


def run(*arguments: str | bytes, stdin: bytes = b"", **more: str) -> tuple[int, bytes, str]:
    """Exit code, stdout and stderr."""
    done = subprocess.run(
        command(*arguments), input=stdin, capture_output=True, timeout=TIMEOUT, env=environment(**more)
    )
    return done.returncode, done.stdout, done.stderr.decode()


def ok(*arguments: str | bytes, stdin: bytes = b"") -> bytes:
    """The stdout of a command that does what it should, and says nothing about it."""
    code, out, err = run(*arguments, stdin=stdin)
    assert (code, err) == (0, "")
    return out


def fails(code: int, *arguments: str | bytes, words: str = "") -> None:
    """The command ends with this code and one line on stderr, no traceback."""
    found, out, err = run(*arguments)
    assert (found, out) == (code, b""), err
    assert re.fullmatch(r"calamint: .+\n", err), err
    assert words in err, err


def echo(request: Request) -> Action:
    """What the peer saw, as JSON."""
    fields = [(name.decode().lower(), value.decode("latin-1")) for name, value in request.fields]
    seen = {"method": request.method, "target": request.target, "fields": fields, "stream": request.stream_id}
    return answer(content=json.dumps({**seen, "content": request.content.decode("latin-1")}).encode())


class Seen:
    """A request as the peer saw it."""

    def __init__(self, peer: ScriptedPeer, *arguments: str | bytes, stdin: bytes = b"", path: str = "/") -> None:
        found = json.loads(ok(*arguments, peer.url + path, stdin=stdin))
        self.method: str = found["method"]
        self.target: str = found["target"]
        self.stream: int = found["stream"]
        self.content: str = found["content"]
        self.fields: list[tuple[str, str]] = [(name, value) for name, value in found["fields"]]

    def get(self, name: str) -> list[str]:
        return [value for key, value in self.fields if key == name]


# What is asked for


def test_a_request_as_simple_as_it_gets() -> None:
    with ScriptedPeer(echo) as peer:
        seen = Seen(peer, path="/path?query#fragment")
        assert (seen.method, seen.target, seen.content, seen.stream) == ("GET", "/path?query", "", 0)
        assert re.fullmatch(r"calamint/[0-9.]+", seen.get("user-agent")[0])
        assert seen.get("accept") == ["*/*"]
        assert seen.get("host") == [peer.url.removeprefix("http://")]
        assert {name for name, _ in seen.fields} == {"host", "user-agent", "accept"}


@pytest.mark.parametrize("path", ["", "/", "/a?next=http://elsewhere/"])
def test_a_url_without_a_scheme(path: str) -> None:
    with ScriptedPeer([answer(content=b"here")]) as peer:
        assert ok(peer.url.removeprefix("http://") + path) == b"here"
        assert peer.report.requests[0].target == (path or "/")


def test_the_method() -> None:
    with ScriptedPeer(echo) as peer:
        assert Seen(peer, "-X", "OPTIONS").method == "OPTIONS"
        assert Seen(peer, "-X", "PUT", "-d", "x").method == "PUT"
        assert Seen(peer, "--request", "DELETE").method == "DELETE"
        assert Seen(peer, "-d", "").method == "POST"


FORM = "application/x-www-form-urlencoded"


@pytest.mark.parametrize(
    ("arguments", "kind", "content"),
    [
        (["-d", "a=1"], FORM, "a=1"),
        (["-d", "a=1", "--data", "b=2"], FORM, "a=1&b=2"),
        (["-d", ""], FORM, ""),
        (["-d", "@FILE"], FORM, "line 1line 2"),
        (["-d", "@-"], FORM, "stdin"),
        (["--data-binary", "@FILE"], FORM, "line 1\r\nline 2\n"),
        (["--data-binary", "@-"], FORM, "stdin\n"),
        (["--data-binary", "a\nb"], FORM, "a\nb"),
        (["-d", "a", "--data-binary", "b"], FORM, "a&b"),
        (["--json", '{"a": 1}'], "application/json", '{"a": 1}'),
        (["--json", "@FILE"], "application/json", "line 1\r\nline 2\n"),
        (["-d", "x", "-H", "Content-Type: text/plain"], "text/plain", "x"),
    ],
)
def test_content(tmp_path: Path, arguments: list[str], kind: str, content: str) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"line 1\r\nline 2\n")
    with ScriptedPeer(echo) as peer:
        seen = Seen(peer, *[word.replace("FILE", str(file)) for word in arguments], stdin=b"stdin\n")
    assert (seen.method, seen.content, seen.get("content-type")) == ("POST", content, [kind])
    assert seen.get("accept") == ["application/json" if kind == "application/json" else "*/*"]


def test_fields() -> None:
    with ScriptedPeer(echo) as peer:
        seen = Seen(peer, "-H", "X-A:  one ", "-H", "x-a:two", "--header", "X-Empty;", "-H", "X-None:")
        assert (seen.get("x-a"), seen.get("x-empty"), seen.get("x-none")) == (["one", "two"], [""], [])
        assert Seen(peer, "-H", "User-Agent: mine", "-H", "ACCEPT:").fields[1:] == [("user-agent", "mine")]
        assert Seen(peer, "-H", "Host: elsewhere").get("host") == ["elsewhere"]
        utf8 = "Grüße".encode()
        for value in (utf8, b"\xff"):  # as they were typed, whatever they mean
            assert Seen(peer, "-H", b"X-Bytes: " + value).get("x-bytes") == [value.decode("latin-1")]


@pytest.mark.parametrize(
    ("userinfo", "secret"), [("us%40er:p%3Ass", b"us@er:p:ss"), ("user", b"user:"), (":token", b":token")]
)
def test_a_user_in_the_url(userinfo: str, secret: bytes) -> None:
    """RFC 7617 §2: user, colon, password; percent-encoding is of the URL (RFC 3986 §3.2.1)."""
    with ScriptedPeer(echo) as peer:
        url = peer.url.replace("//", f"//{userinfo}@")
        seen = json.loads(ok(url))
        assert ["authorization", "Basic " + base64.b64encode(secret).decode()] in seen["fields"]
        seen = json.loads(ok("-H", "Authorization: mine", url))
        assert [value for name, value in seen["fields"] if name == "authorization"] == ["mine"]


# What comes out


@pytest.mark.parametrize(("prior", "version"), [(False, "HTTP/1.1 200 OK"), (True, "HTTP/2 200 ")])
def test_the_head(prior: bool, version: str) -> None:
    options = ["--http2-prior-knowledge"] if prior else []
    with ScriptedPeer([answer(fields=((b"x-a", b"1"),), content=b"content\n")]) as peer:
        head = f"{version}\r\nx-a: 1\r\ncontent-length: 8\r\n\r\n".encode()
        assert ok(*options, peer.url) == b"content\n"
        assert ok(*options, "-i", peer.url) == head + b"content\n"
        assert ok(*options, "-I", peer.url) == head
        assert [item.method for item in peer.report.requests] == ["GET", "GET", "HEAD"]


def test_a_status_is_no_failure() -> None:
    with ScriptedPeer([answer(404, content=b"not here")]) as peer:
        assert ok(peer.url) == b"not here"


def test_a_file_for_the_output(tmp_path: Path) -> None:
    file = tmp_path / "out"
    content = bytes(range(256)) * 4096
    with ScriptedPeer([answer(content=content)]) as peer:
        assert ok("-o", str(file), peer.url) == b""
        assert file.read_bytes() == content
        assert ok("-o", str(file), "-i", peer.url) == b""
        assert file.read_bytes().startswith(b"HTTP/1.1 200 OK\r\n")
        assert ok("-o", "-", peer.url) == content


def test_version_and_help() -> None:
    assert re.fullmatch(rb"calamint [0-9.]+\n", ok("--version"))
    out = ok("--help").decode()
    assert EPILOG in out
    for option in ("-X", "-H", "-d", "--data-binary", "--json", "-o", "-i", "-I", "-v", "--http1.1", "--unix-socket"):
        assert option in out


# Where it connects, and how


def server_context(ca: servers.PrivateCa, *alpn: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(ca.cert_file, ca.key_file)
    context.set_alpn_protocols(list(alpn))
    return context


@pytest.mark.parametrize(
    ("options", "stream"), [([], 1), (["--http1.1"], 0), (["--http2"], 1), (["--http2-prior-knowledge"], 1)]
)
def test_versions_of_http_over_tls(private_ca: servers.PrivateCa, options: list[str], stream: int) -> None:
    with ScriptedPeer(echo, tls=server_context(private_ca)) as peer:
        assert Seen(peer, "--cacert", str(private_ca.ca_file), *options).stream == stream
        assert Seen(peer, "-k", *options).stream == stream


@pytest.mark.parametrize(
    ("options", "stream"), [([], 0), (["--http1.1"], 0), (["--http2"], 0), (["--http2-prior-knowledge"], 1)]
)
def test_versions_of_http_in_the_clear(options: list[str], stream: int) -> None:
    with ScriptedPeer(echo) as peer:
        assert Seen(peer, *options).stream == stream


def serve_one(sock: socket.socket) -> None:
    read_head(sock)
    sock.sendall(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok")


@pytest.mark.parametrize("files", [1, 2])
def test_a_certificate_of_the_clients_own(private_ca: servers.PrivateCa, tmp_path: Path, files: int) -> None:
    leaf = private_ca.authority.issue_cert("client@example.org")
    leaf.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "both.pem"))
    leaf.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    leaf.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    context = server_context(private_ca, "http/1.1")
    context.load_verify_locations(private_ca.ca_file)
    context.verify_mode = ssl.CERT_REQUIRED
    names = {1: ["--cert", "both.pem"], 2: ["--cert", "cert.pem", "--key", "key.pem"]}[files]
    options = [str(tmp_path / word) if word.endswith(".pem") else word for word in names]
    with ThreadServer(serve_one, context) as server:
        assert ok("--cacert", str(private_ca.ca_file), *options, server.url) == b"ok"


def test_a_unix_domain_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with ThreadServer(serve_one, path=path):
        assert ok("--unix-socket", path, "http://localhost/") == b"ok"


# Exit codes: every one of those in the help text


def test_the_help_names_the_exit_codes_that_are_tested() -> None:
    codes = re.findall(r"(?:[:;,]|and)\s(\d+)\s", EPILOG)
    assert [int(code) for code in codes] == [0, 1, 2, 3, 6, 7, 8, 23, 26, 28, 35, 43, 47, 56, 58, 60, 61, 92, 97, 130]


def test_exit_1_protocol() -> None:
    fails(1, "ftp://localhost/", words="'ftp' is not http or https")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--max-time", "0", "localhost"],
        ["--max-time", "soon", "localhost"],
        ["--connect-timeout", "inf", "localhost"],
        ["--connect-timeout", "nan", "localhost"],
        ["--http1.1", "--http2", "localhost"],
        ["--json", "{}", "-d", "x", "localhost"],
        ["--key", "key.pem", "localhost"],
        ["--cacert", "", "localhost"],
        ["--cert", "", "localhost"],
        ["--no-such-option", "localhost"],
        ["one", "two"],
    ],
)
def test_exit_2_usage(arguments: list[str]) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, b"")
    assert err.startswith("usage: calamint [options] URL") and "error: " in err.splitlines()[-1]


@pytest.mark.parametrize(
    "url", ["http://", "", "localhost:port", "http://a b/", "https://[::1", "http://user:secret@:80/"]
)
def test_exit_3_url(url: str) -> None:
    fails(3, url, words="InvalidURL")
    assert "secret" not in run(url)[2]


def test_exit_6_no_address() -> None:
    fails(6, "http://[fe80::1%nosuchdevice]/", words="no address for fe80::1%nosuchdevice")
    fails(6, f"http://{'x' * 64}.example/", words="no address for xxx")


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def test_exit_7_no_connection(tmp_path: Path) -> None:
    fails(7, f"http://127.0.0.1:{closed_port()}/", words="refused")
    fails(7, "--unix-socket", str(tmp_path / "absent"), "localhost", words="No such file")


def test_exit_8_the_peer_broke_http() -> None:
    with ScriptedPeer([garbage(b"SSH-2.0-OpenSSH\r\n\r\n")]) as peer:
        fails(8, peer.url, words="RemoteProtocolError: the response begins with b'SSH-2.0'")
    with ScriptedPeer([goaway(code=11, last=0)]) as peer:
        fails(8, "--http2-prior-knowledge", peer.url, words="ENHANCE_YOUR_CALM")


def test_exit_23_output(tmp_path: Path) -> None:
    with ScriptedPeer([answer(content=bytes(100_000))]) as peer:
        fails(23, "-o", str(tmp_path / "absent" / "file"), peer.url, words="No such file")
        fails(23, "-o", str(tmp_path), peer.url, words="Is a directory")
        if os.path.exists("/dev/full"):
            fails(23, "-o", "/dev/full", peer.url, words="/dev/full: No space left")
            with open("/dev/full", "wb") as full:
                arguments = command(peer.url)
                done = subprocess.run(
                    arguments, stdout=full, stderr=subprocess.PIPE, timeout=TIMEOUT, env=environment()
                )
            assert (done.returncode, done.stderr) == (23, b"calamint: stdout: No space left on device\n")


@pytest.mark.skipif(os.name == "nt", reason="no shell here")
def test_exit_23_without_stdout() -> None:
    with ScriptedPeer() as peer:
        arguments = ["sh", "-c", 'exec "$@" >&-', "sh", *command(peer.url)]
        done = subprocess.run(arguments, stderr=subprocess.PIPE, timeout=TIMEOUT, env=environment())
    assert (done.returncode, done.stderr) == (23, b"calamint: stdout: it is closed\n")


@pytest.mark.parametrize("option", ["-d", "--data-binary", "--json"])
def test_exit_26_a_file_that_is_not_there(tmp_path: Path, option: str) -> None:
    """Before anything is dialled."""
    path = str(tmp_path / "absent")
    fails(26, option, f"@{path}", "http://127.0.0.1:1/", words=f"{path}: No such file or directory")
    fails(26, option, f"@{tmp_path}", "http://127.0.0.1:1/", words="Is a directory")


@pytest.mark.parametrize("option", ["--cacert", "--cert"])
def test_exit_26_and_58_certificates(tmp_path: Path, option: str) -> None:
    path = tmp_path / "file.pem"
    fails(26, option, str(path), "https://127.0.0.1:1/", words=f"{path}: No such file or directory")
    path.write_text("no certificate\n")
    fails(58, option, str(path), "https://127.0.0.1:1/", words=str(path))


def test_exit_28_time() -> None:
    with ScriptedPeer([forget()]) as peer:
        fails(28, "--max-time", "0.2", peer.url, words="DeadlineExceeded: GET /: ")
        fails(28, "--max-time", "0.2", "--http2-prior-knowledge", peer.url, words="set the idle clock (--max-time)")


@pytest.mark.skipif(sys.platform != "linux", reason="how a full queue answers differs between systems")
def test_exit_28_time_to_connect() -> None:
    with full_listener() as (host, port):
        fails(28, "--connect-timeout", "0.2", f"http://{host}:{port}/", words="ConnectTimeout: could not connect")
        fails(28, "--max-time", "0.2", f"http://{host}:{port}/", words="ConnectTimeout: could not connect")


def test_exit_35_no_tls() -> None:
    def handle(sock: socket.socket) -> None:
        sock.recv(65_536)
        sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with ThreadServer(handle) as server:
        fails(35, server.url.replace("http:", "https:"), words="no TLS with 127.0.0.1")


@pytest.mark.parametrize(
    "arguments",
    [
        ["-X", "G ET"],
        ["-X", "GÉT"],
        ["-H", "no colon"],
        ["-H", "bad name: x"],
        ["-H", ": x"],
        ["-H", "x: a\r\nb: c"],
        ["-H", "content-length: 3", "-d", "four"],
    ],
)
def test_exit_43_what_http_does_not_allow(arguments: list[str]) -> None:
    with ScriptedPeer() as peer:
        fails(43, *arguments, peer.url, words="LocalProtocolError")
        assert peer.report.requests == ()


def test_exit_56_the_connection_broke() -> None:
    with ScriptedPeer([close(head=True, fields=((b"content-length", b"10"),))]) as peer:
        fails(56, peer.url, words="ReadError: the peer closed the connection 10 bytes short of its content-length")
        fails(56, "--http2-prior-knowledge", peer.url, words="ReadError")


def test_what_came_before_it_broke_is_kept() -> None:
    with ScriptedPeer([close(after=b"half", fields=((b"content-length", b"8"),))]) as peer:
        code, out, err = run(peer.url)
    assert (code, out) == (56, b"half")
    assert "4 bytes short" in err


def test_exit_60_the_servers_certificate(private_ca: servers.PrivateCa) -> None:
    with ScriptedPeer(tls=server_context(private_ca)) as peer:
        fails(60, peer.url, words="certificate verify failed")


def test_exit_92_reset() -> None:
    with ScriptedPeer([reset(2)]) as peer:
        fails(92, "--http2-prior-knowledge", peer.url, words="INTERNAL_ERROR")


@pytest.mark.skipif(os.name == "nt", reason="no SIGINT for a process here")
def test_exit_130_interrupted() -> None:
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\nfrom calamint.cli import main\n"
    )
    with ScriptedPeer([forget()]) as peer:
        arguments = [sys.executable, "-c", f"{code}sys.exit(main(sys.argv[1:]))", peer.url]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()) as process:
            try:
                peer.wait_for(lambda report: report.requests, LIMIT)
                process.send_signal(signal.SIGINT)
                out, err = process.communicate(timeout=LIMIT)
            finally:
                process.kill()
    assert (process.returncode, out, err) == (130, b"", b"")


def test_a_pipe_that_nobody_reads_any_more() -> None:
    """As in `calamint URL | head`: the end, and not a word."""
    with ScriptedPeer([answer(content=bytes(4_000_000))]) as peer:
        with subprocess.Popen(
            command(peer.url), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
        ) as process:
            try:
                assert process.stdout is not None and process.stderr is not None
                assert process.stdout.read(10) == bytes(10)
                process.stdout.close()
                assert process.stderr.read() == b""
                assert process.wait(LIMIT) == 23
            finally:
                process.kill()


# -v


SECRETS = ["-H", "authorization: Bearer hunter2", "-H", "Cookie: a=hunter2"]


def test_verbose_http1() -> None:
    script = [answer(fields=((b"set-cookie", b"hunter2"),), content=b"hello", interim=[(103, ((b"link", b"</a>"),))])]
    with ScriptedPeer(script) as peer:
        code, out, err = run("-v", *SECRETS, "-d", "hunter2", peer.url)
    assert (code, out) == (0, b"hello")
    assert "hunter2" not in err
    lines = lines_of(err)
    assert lines[:2] == ["* connected: http/1.1", "> POST / HTTP/1.1"]
    assert {">   authorization: <14 bytes>", ">   Cookie: <9 bytes>", "> 7 bytes of content"} <= set(lines)
    at = lines.index("< 103 (interim)")
    assert lines[at : at + 6] == [
        "< 103 (interim)",
        "<   link: </a>",
        "< 200 OK",
        "<   set-cookie: <7 bytes>",
        "<   content-length: 5",
        "* response 1 ended",
    ]


def test_verbose_http2() -> None:
    trailers = ((b"x-sum", b"1"),)
    script = [answer(fields=((b"set-cookie", b"hunter2"),), content=b"hello", trailers=trailers)]
    with ScriptedPeer(script) as peer:
        code, out, err = run("-v", *SECRETS, "-d", "hunter2", "--http2-prior-knowledge", f"{peer.url}/path")
    assert (code, out) == (0, b"hello")
    assert "hunter2" not in err
    lines = lines_of(err)
    assert lines[:2] == ["* connected: h2", "> connection preface"]
    assert lines[2].startswith("> SETTINGS      stream 0, ") and "ENABLE_PUSH=0" in lines[2]
    for line in (
        "> POST /path",
        ">   authorization: <14 bytes>",
        "> DATA          stream 1, 7 bytes, END_STREAM",
        "< DATA          stream 1, 5 bytes",
        "< SETTINGS      stream 0, 0 bytes, ACK",
        "< 200",
        "<   set-cookie: <7 bytes>",
        "< trailers",
        "<   x-sum: 1",
        "* response 1 ended",
    ):
        assert line in lines, lines
    assert [line for line in lines if line.startswith("> HEADERS       stream 1, ") and line.endswith("END_HEADERS")]


def test_verbose_of_a_failure() -> None:
    with ScriptedPeer([reset(11)]) as peer:
        code, out, err = run("-v", "--http2-prior-knowledge", peer.url)
    assert (code, out) == (92, b"")
    *lines, last = err.splitlines()
    assert last.startswith("calamint: StreamReset: ")
    shown = lines_of("\n".join(lines))
    assert "< RST_STREAM    stream 1, 4 bytes, ENHANCE_YOUR_CALM" in shown
    assert [line for line in shown if line.startswith("! request 1 failed: ")]


def test_verbose_over_tls(private_ca: servers.PrivateCa) -> None:
    with ScriptedPeer(tls=server_context(private_ca)) as peer:
        code, out, err = run("-v", "-k", peer.url)
    assert (code, out) == (0, b"ok")
    assert "< DATA          stream 1, 2 bytes, END_STREAM" in lines_of(err)


def test_nothing_that_the_peer_says_is_obeyed_by_a_terminal() -> None:
    fields = ((b"x-title", b"\x1b]0;owned\x07\x9b2J"),)
    with ScriptedPeer([garbage(b"HTTP/1.1 200 \x1b[31m\r\nx: \x9b1m\r\ncontent-length: 0\r\n\r\n")]) as peer:
        err = run("-v", peer.url)[2]
    assert "\x1b" not in err and "\x9b" not in err
    with ScriptedPeer([answer(fields=fields)]) as peer:
        err = run("-v", "--http2-prior-knowledge", peer.url)[2]
    assert "\x1b" not in err and "\x07" not in err and "\x9b" not in err


def on_terminal(arguments: Sequence[str], **more: str) -> str:
    """What the command shows where stderr is a terminal."""
    import pty

    main, other = pty.openpty()
    try:
        with subprocess.Popen(
            command(*arguments), stdout=subprocess.PIPE, stderr=other, env=environment(**more)
        ) as process:
            os.close(other)
            other = -1
            shown = b""
            while True:
                try:
                    piece = os.read(main, 65_536)
                except OSError:  # Linux says the end of a terminal so
                    piece = b""
                if not piece:
                    break
                shown += piece
            assert process.wait(LIMIT) == 0
    finally:
        os.close(main)
        if other >= 0:
            os.close(other)
    return shown.decode()


@pytest.mark.skipif(os.name == "nt", reason="no terminals of this kind here")
def test_colour() -> None:
    """On a terminal, unless NO_COLOR is set to something (no-color.org); never in a file."""
    with ScriptedPeer() as peer:
        shown = on_terminal(["-v", peer.url])
        assert "\x1b[32m" in shown and "\x1b[36m" in shown and shown.count("\x1b[0m") == shown.count("\r\n")
        assert "\x1b[32m" in on_terminal(["-v", peer.url], NO_COLOR="")
        assert "\x1b" not in on_terminal(["-v", peer.url], NO_COLOR="1")
        assert "\x1b" not in run("-v", peer.url)[2]


# Against real servers


@pytest.mark.server
@pytest.mark.parametrize("name", ["nginx", "node"])
@pytest.mark.parametrize(
    ("key", "options"),
    [
        ("http1", []),
        ("https", []),
        ("https", ["--http1.1"]),
        ("https", ["--http2"]),
        ("h2c", ["--http2-prior-knowledge"]),
    ],
)
def test_real_servers(request: pytest.FixtureRequest, name: str, key: str, options: list[str]) -> None:
    server: servers.Server = request.getfixturevalue(name)
    options = [*options, "--cacert", str(server.ca_file)]
    url = server.urls[key]
    assert ok(*options, f"{url}/small") == servers.SMALL
    assert hashlib.sha256(ok(*options, f"{url}/medium")).hexdigest() == servers.medium_sha256()
    content = bytes(range(256)) * 1000
    assert ok(*options, "--data-binary", "@-", f"{url}/echo", stdin=content) == content
    version = b"HTTP/1.1 200 " if key == "http1" or "--http1.1" in options else b"HTTP/2 200 "
    assert ok(*options, "-I", f"{url}/small").startswith(version)


@pytest.mark.server
def test_real_servers_time_and_places(node: servers.Server, nginx: servers.Server) -> None:
    assert ok("--unix-socket", str(nginx.unix_socket), "http://localhost/small") == servers.SMALL
    assert ok("--max-time", "30", f"{node.urls['http1']}/slow?ms=20") == b"slow\n"
    fails(28, "--max-time", "0.3", f"{node.urls['http1']}/never", words="DeadlineExceeded: GET /never: ")
    assert ok(f"{node.urls['http1']}/until-close") == b"until close\n"
