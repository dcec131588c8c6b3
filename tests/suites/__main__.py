"""Run the tests of httpx and requests over our transports, and say what came of each.

    python -m tests.suites [httpx] [httpx2] [requests]

Each suite comes from the library's source distribution, which pip downloads into build/suites, and runs twice in a venv
there: as it is, and with the transport of the library's own clients swapped for ours. What fails as it is says nothing;
what sends no request through our transport says little, and is counted apart. httpx2 ships no tests: those of httpx are run
with the names of httpx2.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[2]
PLACE = ROOT / "build" / "suites"
TOOLS = ("pytest>=8,<9", "pytest-timeout", "trustme", "idna", "python-socks>=2.4.4,<4")
HTTPX_NEEDS = ("uvicorn", "chardet<6", "trio", "certifi", "zstandard")
COUNT = """\
import pytest

USED = [0]


def counted(method):
    def count(*arguments, **options):
        USED[0] += 1
        return method(*arguments, **options)

    return count


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    before = USED[0]
    try:
        return (yield)
    finally:
        item.user_properties.append(("requests", USED[0] - before))


"""
SWAP_HTTPX = (
    COUNT
    + """\
import {name}._client
from calamint.transports.{name} import AsyncTransport, Transport

Transport.handle_request = counted(Transport.handle_request)
AsyncTransport.handle_async_request = counted(AsyncTransport.handle_async_request)
{name}._client.HTTPTransport = Transport
{name}._client.AsyncHTTPTransport = AsyncTransport
"""
)
SWAP_REQUESTS = (
    COUNT
    + """\
import requests.sessions
from calamint.transports.requests import Adapter

Adapter.send = counted(Adapter.send)
requests.sessions.HTTPAdapter = Adapter
"""
)
# Tests that cannot apply: by their names and by the words they fail with, so that nothing else hides behind the reason.
OF_HTTPX = (
    (
        r"\[trio\b",
        "no asyncio event loop is running here",
        "asyncio and uvloop are what our pool runs in; another loop gets a clear error",
    ),
    (
        r"test_proxies::test_(proxies_environ|socks_proxy)",
        "has no attribute '_pool'|isinstance",
        "looks into the transport for httpcore's own pool",
    ),
    (r"test_httpcore_lazy_loading", "in sys.modules", "about when httpcore is imported"),
    (
        r"test_main::",
        "'transfer-encoding: chunked' != 'Transfer-Encoding: chunked'",
        "the case in which the server writes the name of a "
        "field in HTTP/1.1 is not kept: names are lower case, as in HTTP/2 (RFC 9113 §8.2)",
    ),
    (r"test_main::test_errors", "the scheme 'invalid' is not http or https", "the words of a message"),
    (
        r"test_timeouts::test_connect_timeout",
        "ConnectError|DID NOT RAISE",
        "asks for 10.255.255.1 within a microsecond: that nothing leads there, or that something answers, may come first",
    ),
    (
        r"test_pool_timeout\[asyncio\]",
        "DID NOT RAISE",
        "a short response is here before it is read, and its connection free for the next",
    ),
)
OF_REQUESTS = (
    (
        r"test_chunked_encoding_error",
        "within the head of the response",
        "a head that breaks off is a ConnectionError: there is no response yet",
    ),
    (
        r"test_conflicting_content_lengths",
        "is not one number",
        "a response with two lengths is a ConnectionError: the header is not ours",
    ),
    (
        r"test_invalid_(ca_certificate_path|ssl_certificate_files)",
        "No such file or directory: '/garbage'",
        "the words of a message",
    ),
    (r"", "'Adapter' object has no attribute", "needs attributes of HTTPAdapter that no other adapter has"),
    (r"test_stream_timeout", "'str' object has no attribute 'args'", "looks into the error for urllib3's"),
)


@dataclass(frozen=True)
class Suite:
    """A library's tests: where they come from, what they need, how ours comes in, and what cannot apply."""

    source: str
    needs: tuple[str, ...]
    swap: str
    excluded: tuple[tuple[str, str, str], ...]
    renamed: str = ""


SUITES = {
    "httpx": Suite(
        "httpx==0.28.1",
        (*HTTPX_NEEDS, "httpx[http2,brotli,zstd,cli,socks]==0.28.1"),
        SWAP_HTTPX.format(name="httpx"),
        OF_HTTPX,
    ),
    "httpx2": Suite(
        "httpx==0.28.1",
        (*HTTPX_NEEDS, "httpx2[http2,brotli,zstd,cli,socks]==2.16.2"),
        SWAP_HTTPX.format(name="httpx2"),
        OF_HTTPX,
        renamed="httpx2",
    ),
    "requests": Suite(
        "requests==2.34.2",
        ("requests[socks]==2.34.2", "pytest-httpbin", "httpbin", "pytest-mock"),
        SWAP_REQUESTS,
        OF_REQUESTS,
    ),
}


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def run(*command: str | Path, cwd: Path = ROOT, check: bool = True, **variables: str) -> None:
    """A command, to its end; what it printed is shown where it fails and must not."""
    environment = {**os.environ, **variables}
    done = subprocess.run(
        command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if check and done.returncode:
        sys.exit(f"{done.stdout}\nsuites: {' '.join(map(str, command))} failed")


def fetch(name: str, suite: Suite) -> tuple[Path, Path]:
    """The unpacked source, and a python with all that its tests need."""
    place = PLACE / name
    python = place / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
    if not (place / "ready").exists():
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        say(f"{name}: downloading {suite.source} and making a venv in {place.relative_to(ROOT)}")
        run(sys.executable, "-m", "venv", place / "venv")
        pip = (python, "-m", "pip", "--quiet", "--disable-pip-version-check")
        run(*pip, "install", *TOOLS, *suite.needs)
        library = suite.source.partition("=")[0]
        run(*pip, "download", "--no-deps", "--no-binary", library, "--dest", place, suite.source)
        with tarfile.open(next(place.glob("*.tar.gz"))) as archive:
            archive.extractall(place, filter="data")
        (place / "ready").touch()
    source = next(path for path in place.iterdir() if path.name != "work" and (path / "tests").is_dir())
    return source, python


def arrange(name: str, suite: Suite, source: Path) -> Path:
    """The tests without the library beside them, so that what is installed is what is tested; with the swap as a plugin."""
    work = PLACE / name / "work"
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(source / "tests", work / "tests")
    for extra in ("README.md", "pyproject.toml", "CHANGELOG.md", "requirements-dev.txt"):  # some tests read them
        if (source / extra).exists():
            shutil.copy(source / extra, work)
    (work / "swap_transport.py").write_text(suite.swap, encoding="utf-8")
    if suite.renamed:
        for path in work.rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            text = re.sub(r"\bhttp(x|core)\b", r"http\g<1>2", text)
            path.write_text(text, encoding="utf-8")
    return work


def play(work: Path, python: Path, *arguments: str) -> tuple[dict[str, str], set[str]]:
    """What each test has come to, by its name: passed, skipped, or what it failed with; and those that used ours."""
    report = work / "report.xml"
    report.unlink(missing_ok=True)
    run(
        *(python, "-m", "pytest", "-q", "--timeout", "60", "-p", "no:cacheprovider", f"--junitxml={report}"),
        *("-W", "default", "--continue-on-collection-errors", *arguments, "tests"),
        cwd=work,
        check=False,
        PYTHONPATH=f"{ROOT / 'src'}{os.pathsep}{work}",
    )
    results: dict[str, str] = {}
    used: set[str] = set()
    for case in ElementTree.parse(report).iter("testcase"):
        kinds = {child.tag for child in case}
        said = [f"failed: {child.get('message')}\n{child.text}" for child in case if child.tag in ("failure", "error")]
        state = said[0] if said else "skipped" if "skipped" in kinds else "passed"
        test = f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name')}"
        results[test] = state
        if any([value != "0" for value in sent(case)]):
            used.add(test)
    return results, used


def sent(case: ElementTree.Element) -> list[str]:
    """How many requests a test has sent through our transport."""
    return [it.get("value", "0") for it in case.iterfind("properties/property[@name='requests']")]


def judge(name: str, suite: Suite, before: dict[str, str], after: dict[str, str], used: set[str]) -> int:
    """The table of one suite; how many tests fail that should not."""
    applies = [test for test, state in before.items() if state == "passed"]
    failing = [test for test in applies if after.get(test) != "passed"]
    others = [test for test in applies if test not in used and test not in failing]
    excluded: dict[str, list[str]] = {reason: [] for _, _, reason in suite.excluded}
    wrong: list[str] = []
    for test in failing:
        why = after.get(test, "it was not run")
        reasons = [reason for name, words, reason in suite.excluded if re.search(name, test) and re.search(words, why)]
        (excluded[reasons[0]] if reasons else wrong).append(test)
    hidden = sum([len(tests) for tests in excluded.values()])
    say(f"\n{name}: {suite.source}{f' with the names of {suite.renamed}' if suite.renamed else ''}")
    say(f"  {len(before):5} tests, of which {len(applies)} pass as it is")
    say(f"  {len([test for test in applies if test in used]):5} of these send requests through our transport")
    say(
        f"  {len([test for test in applies if test in used and test not in failing]):5} pass, and of the others {len(others)}"
    )
    for reason, tests in excluded.items():
        if tests:
            say(f"  {len(tests):5} excluded: {reason}")
    say(f"  {len(wrong):5} fail" + "".join([f"\n        {test}" for test in wrong]))
    assert len(applies) == len(applies) - len(failing) + hidden + len(wrong)
    return len(wrong)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(SUITES)} (default: all)")
    names = parser.parse_args(arguments).names or list(SUITES)
    if unknown := set(names) - set(SUITES):
        parser.error(f"no such suite: {', '.join(sorted(unknown))}")
    wrong = 0
    for name in names:
        began = time.monotonic()
        suite = SUITES[name]
        source, python = fetch(name, suite)
        work = arrange(name, suite, source)
        before, _ = play(work, python)
        wrong += judge(name, suite, before, *play(work, python, "-p", "swap_transport"))
        say(f"  {time.monotonic() - began:.0f} s")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
