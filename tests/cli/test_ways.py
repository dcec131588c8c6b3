"""The command through proxies, after redirects, with credentials and with codings; and what it shows on a terminal."""

import gzip
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

import pytest

from calamint.testing import Action, Request, ScriptedPeer, answer, close, drip
from tests.cli.test_command import TIMEOUT, Seen, command, echo, environment, fails, ok, run, server_context
from tests.cli.test_verbose import lines_of
from tests.net.proxied import BASIC, PASSWORD, USER, LoopProxy, refuses, socks
from tests.net.test_real_proxies import PROXIES
from tests.net.thread_server import LIMIT, ThreadServer, read_head
from tests.servers import SMALL, PrivateCa, Server

pytestmark = pytest.mark.slow  # as test_command: processes
PROXY_VALUE = BASIC.partition(b": ")[2].decode()


# Proxies


@pytest.mark.parametrize("option", ["-x", "--proxy"])
def test_what_is_forwarded(option: str) -> None:
    with ScriptedPeer([answer(content=b"by the proxy")]) as peer:
        for url in (peer.url, peer.url.removeprefix("http://")):
            assert ok(option, url.replace("127", "me:secret@127", 1), "http://one.test/a") == b"by the proxy"
        for seen in peer.report.requests:
            assert seen.target == "http://one.test/a"
            assert PROXY_VALUE.encode() in [value for _, value in seen.fields]


def test_tunnels(private_ca: PrivateCa) -> None:
    """TLS in TLS too; the proxy's certificate is another matter than the origin's."""
    tls = server_context(private_ca)
    ca = str(private_ca.ca_file)
    with ScriptedPeer(tls=tls) as peer, LoopProxy(tls=tls) as secure, LoopProxy() as clear:
        url = peer.url.replace("127.0.0.1", "localhost")
        assert ok("-x", clear.url(), "--cacert", ca, url) == b"ok"
        assert ok("-x", secure.url(), "--cacert", ca, "--proxy-cacert", ca, url) == b"ok"
        assert ok("-x", secure.url(), "-k", "--proxy-insecure", url) == b"ok"
        fails(60, "-x", secure.url(), "-k", url, words="no TLS with the proxy localhost:")
        fails(60, "-x", secure.url(), "--proxy-insecure", url, words=f"no TLS with localhost:{peer.port}: ")


def test_socks() -> None:
    with ScriptedPeer() as peer, LoopProxy(socks((USER, PASSWORD))) as loop:
        proxy = loop.url("socks5").replace("//", f"//{USER}:{PASSWORD}@")
        assert ok("-x", proxy, f"http://name.test:{peer.port}/") == b"ok"
        fails(97, "-x", loop.url("socks5"), "http://name.test/", words="through the SOCKS proxy")


def test_refusals() -> None:
    with LoopProxy(refuses(b"HTTP/1.1 407 No\r\nproxy-authenticate: Basic\r\ncontent-length: 4\r\n\r\nfor ")) as loop:
        fails(56, "-x", loop.url(), "https://one.test/", words="no tunnel to one.test:443: the proxy refuses: 407 No")
        assert ok("-x", loop.url(), "http://one.test/") == b"for "
        fails(56, "-x", loop.url(), "https://one.test/", words=f"; through the proxy {loop.url()}\n")
    with LoopProxy(refuses(b"nonsense\r\n\r\n")) as loop:
        fails(97, "-x", loop.url(), "https://one.test/", words="no tunnel to one.test:443: ")
    fails(3, "-x", "ftp://localhost", "http://one.test/", words="the scheme 'ftp' is none of a proxy")
    fails(2, "-x", "http://a%0Ab:secret@localhost", "http://one.test/", words="control character")


def test_the_environment() -> None:
    """As the clients read it; -x and --noproxy win over it, and an empty -x is none."""
    with ScriptedPeer([answer(content=b"env")]) as env, ScriptedPeer([answer(content=b"direct")]) as direct:
        with ScriptedPeer([answer(content=b"given")]) as given:
            for options, bypass, expected in (
                ((), "", b"env"),
                ((), "127.0.0.1", b"direct"),
                (("-x", given.url), "*", b"given"),
                (("-x", given.url, "--noproxy", "127.0.0.0/8"), "", b"direct"),
                (("--noproxy", "127.0.0.1"), "", b"direct"),
                (("--noproxy", "one.test"), "*", b"env"),
                (("-x", ""), "", b"direct"),
            ):
                found = run(*options, direct.url, HTTP_PROXY=env.url, NO_PROXY=bypass)
                assert found == (0, expected, ""), options
            code, _, err = run(direct.url, HTTP_PROXY="ftp://me:secret@host")
            assert (code, "HTTP_PROXY in the environment" in err, "secret" in err) == (3, True, False)


def test_a_unix_domain_socket(tmp_path: Path) -> None:
    """Needs no proxy of the environment, and contradicts one that is given."""
    path = str(tmp_path / "socket")

    def handle(sock: object) -> None:
        read_head(sock)  # type: ignore[arg-type]  # a socket
        sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nlocal")  # type: ignore[attr-defined]  # a socket

    with ThreadServer(handle, path=path):
        found = run("--unix-socket", path, "http://one.test/", HTTP_PROXY="http://127.0.0.1:1")
        assert found == (0, b"local", "")
    code, _, err = run("--unix-socket", path, "-x", "localhost:1", "http://one.test/")
    assert code == 2 and "both say where to connect to" in err


def test_verbose_through_a_proxy(private_ca: PrivateCa) -> None:
    """Where it goes, without credentials; frames are those of the origin."""
    with ScriptedPeer(tls=server_context(private_ca)) as peer, LoopProxy() as loop:
        proxy = loop.url().replace("//", "//me:hunter2@")
        code, out, err = run("-v", "-k", "-x", proxy, peer.url)
    assert (code, out) == (0, b"ok")
    assert lines_of(err)[:2] == [f"* through the proxy {loop.url()}", "* connected: h2"]
    assert "hunter2" not in err


@pytest.mark.server
@pytest.mark.parametrize(("name", "key"), [way for way in PROXIES if way[1] != "open"])
def test_real_proxies(request: pytest.FixtureRequest, node: Server, name: str, key: str) -> None:
    server: Server = request.getfixturevalue(name)
    proxy = server.urls[key].replace("//", f"//{USER}:{PASSWORD}@")
    trust = ["--cacert", str(node.ca_file), "--proxy-cacert", str(server.ca_file)]
    for scheme in ("http1", "https"):
        assert ok("-x", proxy, *trust, node.urls[scheme] + "/small") == SMALL


# Redirects


def redirects(request: Request) -> Action:
    """/N leads to /N-1, and /0 is where it ends; /to/STATUS leads to /0 with this status."""
    where = request.target.strip("/")
    if where == "0":
        return echo(request)
    status, number = (int(where[3:]), 1) if where.startswith("to/") else (302, int(where))
    return answer(status, ((b"location", b"/%d" % (number - 1)),), content=b"not this")


def test_location() -> None:
    with ScriptedPeer(redirects) as peer:
        assert ok(f"{peer.url}/2") == b"not this"
        assert json.loads(ok("-L", f"{peer.url}/2"))["target"] == "/0"
        assert [seen.target for seen in peer.report.requests] == ["/2", "/2", "/1", "/0"]
        heads = ok("-L", "-I", f"{peer.url}/1").decode()
        assert re.findall(r"HTTP/1.1 (\d+)", heads) == ["302", "200"]
        assert ok("-L", "-i", f"{peer.url}/1").startswith(b"HTTP/1.1 302 Found\r\n")


def test_exit_47_too_many() -> None:
    with ScriptedPeer(redirects) as peer:
        assert Seen(peer, "-L", "--max-redirs", "3", path="/3").target == "/0"
        fails(47, "-L", "--max-redirs", "3", f"{peer.url}/4", words="more than 3 redirects")
        fails(47, "-L", "--max-redirs", "0", f"{peer.url}/1", words="more than 0 redirects")
        assert Seen(peer, "-L", path="/50").target == "/0"
        fails(47, "-L", f"{peer.url}/51", words="more than 50 redirects")
        assert Seen(peer, "-L", "--max-redirs", "-1", path="/60").target == "/0"


AFTER = [(301, "GET", ""), (302, "GET", ""), (303, "GET", ""), (307, "POST", "a=1"), (308, "POST", "a=1")]


@pytest.mark.parametrize(("status", "method", "content"), AFTER)
def test_methods_after_redirects(status: int, method: str, content: str) -> None:
    """RFC 9110 §15.4: content goes along where the method stays."""
    with ScriptedPeer(redirects) as peer:
        seen = Seen(peer, "-L", "-d", "a=1", path=f"/to/{status}")
        assert (seen.method, seen.content) == (method, content)
        assert bool(seen.get("content-type")) is (method == "POST")


def test_G15_credentials_stay_with_their_origin() -> None:
    """And do not come back on the way."""
    with ScriptedPeer(echo) as last:
        with ScriptedPeer(lambda request: answer(302, ((b"location", last.url.encode()),))) as other:

            def act(request: Request) -> Action:
                place = b"/second" if request.target == "/first" else other.url.encode()
                return answer(302, ((b"location", place),))

            with ScriptedPeer(act) as first:
                options = ("-L", "-u", "me:secret", "-H", "Cookie: a=1", "-H", "X-A: 1")
                seen = json.loads(ok(*options, f"{first.url}/first"))
                names = [name for name, _ in seen["fields"]]
                assert "x-a" in names and not {"authorization", "cookie"} & set(names)
                for request in first.report.requests:
                    assert {b"authorization", b"cookie"} <= {name.lower() for name, _ in request.fields}
                assert len(first.report.requests) == 2
        others = {name.lower() for name, _ in other.report.requests[0].fields}
        assert not {b"authorization", b"cookie"} & others


def test_a_redirect_that_leads_nowhere() -> None:
    for place in (b"ftp://one.test/", b"http://[", b"http://a b/"):
        with ScriptedPeer([answer(302, ((b"location", place),))]) as peer:
            fails(8, "-L", peer.url, words="leads nowhere")
    with ScriptedPeer([answer(302, content=b"no place")]) as peer:
        assert ok("-L", peer.url) == b"no place"


def test_one_limit_for_all_redirects() -> None:
    """--max-time is not begun again; and a redirect's content, which may never end, is not waited for."""
    slow = drip(b"x" * 100_000, 1, 1.0, status=302, fields=((b"location", b"/"),))
    with ScriptedPeer(lambda request: slow) as peer:
        began = time.monotonic()
        fails(28, "-L", "--max-redirs", "-1", "--max-time", "0.5", peer.url)
        assert time.monotonic() - began < 5
        assert len(peer.report.requests) > 3


def test_verbose_redirects() -> None:
    with ScriptedPeer(redirects) as peer:
        lines = lines_of(run("-v", "-L", f"{peer.url}/1")[2])
        assert f"* redirected to {peer.url}/0" in lines
        assert lines.count("* connected: http/1.1") == 2


# Credentials


def test_user() -> None:
    with ScriptedPeer(echo) as peer:
        basic = "Basic bWU6c2VjcmV0"
        assert Seen(peer, "-u", "me:secret").get("authorization") == [basic]
        assert Seen(peer, "--user", "me:secret").get("authorization") == [basic]
        assert Seen(peer, "-u", "me:").get("authorization") == ["Basic bWU6"]
        assert Seen(peer, "-u", "me:secret", "-H", "Authorization: mine").get("authorization") == ["mine"]
        found = json.loads(ok("-u", "me:secret", peer.url.replace("//", "//other:one@")))
        assert ["authorization", basic] in found["fields"]


def on_terminal(*arguments: str, say: bytes = b"", term: str = "xterm") -> tuple[int, str, str]:
    """Exit code, stdout, and what a terminal shows that is stdin, stderr and the one of the process; `say` is typed there."""
    import pty

    main, other = pty.openpty()
    program = (
        "import os, sys; os.setsid(); os.close(os.open(os.ttyname(0), os.O_RDWR)); os.execv(sys.argv[1], sys.argv[1:])"
    )
    wrapped = [sys.executable, "-c", program, *[str(word) for word in command(*arguments)]]
    try:
        variables = environment(TERM=term, COLUMNS="100")
        with (
            tempfile.TemporaryFile() as file,
            subprocess.Popen(wrapped, stdin=other, stdout=file, stderr=other, env=variables) as process,
        ):
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
                if say and b"Password of" in shown:
                    os.write(main, say)
                    say = b""
            code = process.wait(LIMIT)
            file.seek(0)
            out = file.read()
    finally:
        os.close(main)
        if other >= 0:
            os.close(other)
    return code, out.decode("latin-1"), shown.decode()


@pytest.mark.skipif(os.name == "nt", reason="no terminals of this kind here")
def test_a_password_that_is_asked_for() -> None:
    """It is not shown as it is typed."""
    with ScriptedPeer(echo) as peer:
        code, out, shown = on_terminal("-u", "me", peer.url, say=b"secret\n")
    assert (code, "secret" in shown, "Password of me: " in shown) == (0, False, True)
    assert ["authorization", "Basic bWU6c2VjcmV0"] in json.loads(out)["fields"]


@pytest.mark.skipif(os.name == "nt", reason="no sessions here")
def test_nobody_to_ask_for_a_password() -> None:
    with ScriptedPeer() as peer:
        done = subprocess.run(
            command("-u", "me", peer.url),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT,
            env=environment(),
            start_new_session=True,
        )
        assert (done.returncode, done.stdout) == (2, b"")
        assert done.stderr.startswith(b"calamint: -u USER: no terminal to ask for the password on")
        assert peer.report.requests == ()


# Codings


CONTENT = b"thyme " * 10_000


CODED = [("gzip", gzip.compress(CONTENT)), ("deflate", zlib.compress(CONTENT)), ("", CONTENT)]


@pytest.mark.parametrize(("coding", "coded"), CODED)
def test_compressed(coding: str, coded: bytes) -> None:
    """Asked for and undone with the option only; of a coding that nobody knows, content stays as it is."""
    fields = ((b"content-encoding", coding.encode()),) if coding else ()
    with ScriptedPeer([answer(fields=fields, content=coded)]) as peer:
        assert ok("--compressed", peer.url) == CONTENT
        assert ok(peer.url) == coded
        assert ok("--compressed", "-I", peer.url).startswith(b"HTTP/1.1 200")
        asked = [dict(seen.fields).get(b"accept-encoding", b"") for seen in peer.report.requests]
        assert asked[0].startswith(b"gzip, deflate") and asked[1] == b""


def test_exit_61_a_content_coding() -> None:
    fields = ((b"content-encoding", b"gzip"),)
    with ScriptedPeer([answer(fields=fields, content=b"no gzip at all")]) as peer:
        fails(61, "--compressed", peer.url, words="DecodingError")
    with ScriptedPeer([answer(fields=fields, content=gzip.compress(CONTENT)[:-5])]) as peer:
        code, out, err = run("--compressed", peer.url)
        assert (code, out) == (61, CONTENT) and "the content ended inside its coding gzip" in err


# Progress


@pytest.mark.skipif(os.name == "nt", reason="no terminals of this kind here")
@pytest.mark.parametrize("dumb", [False, True])
def test_progress(tmp_path: Path, dumb: bool) -> None:
    """On a terminal and into a file only; of rich where that can be shown, else a line of text."""
    file = tmp_path / "out"
    term = "dumb" if dumb else "xterm"
    with ScriptedPeer([answer(content=bytes(2_000_000))]) as peer:
        code, _, shown = on_terminal("-o", str(file), peer.url, term=term)
        assert (code, file.stat().st_size) == (0, 2_000_000)
        assert "2,000,000 of 2,000,000 bytes, 100 %" in shown if dumb else "2.0/2.0 MB" in shown
        assert ("\x1b" in shown) is not dumb
        for options in ((), ("-o", "-"), ("-I", "-o", str(file))):
            assert on_terminal(*options, peer.url, term=term)[2] == ""
        assert "MB/s" not in on_terminal("-v", "-o", str(file), peer.url, term=term)[2]
        assert run("-o", str(file), peer.url) == (0, b"", "")


@pytest.mark.skipif(os.name == "nt", reason="no terminals of this kind here")
def test_progress_of_what_has_no_length_and_of_what_breaks(tmp_path: Path) -> None:
    file = tmp_path / "out"
    with ScriptedPeer([drip(bytes(3000), 1000, 0.01)]) as peer:
        code, _, shown = on_terminal("-o", str(file), peer.url, term="dumb")
        assert code == 0 and "\r3,000 bytes, " in shown
    with ScriptedPeer([close(after=b"half", fields=((b"content-length", b"8"),))]) as peer:
        code, _, shown = on_terminal("-o", str(file), peer.url, term="dumb")
    assert code == 56 and file.read_bytes() == b"half"
    *_, before, last = shown.splitlines()
    assert before.endswith("4 of 8 bytes, 50 %, 0.0 MB/s ") and last.startswith("calamint: ReadError")
