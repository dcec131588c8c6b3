"""Every fault that pools promise against has a test, and every test names faults that there are."""

import re
from collections import Counter
from pathlib import Path

import pytest

from tests.faults.__main__ import main, read_report
from tests.faults.rows import REQUIRED, ROOT, find_tests, keepers, read_table

ROWS = {row.id: row for section in read_table() for row in section.rows}


def test_no_promise_of_the_pools_is_without_a_test() -> None:
    assert [id for id in ROWS if id[0] in REQUIRED and not keepers(id)] == []


def test_every_name_is_a_row() -> None:
    assert sorted({id for test in find_tests() for id in test.ids} - set(ROWS)) == []


def test_every_mark_is_seen() -> None:
    """They are read from the source, so each must be a decorator of a test, written out."""
    written = 0
    for path in (ROOT / "tests").rglob("test_*.py"):
        text = path.read_text(encoding="utf-8")
        for call in re.findall(r"^@pytest\.mark\.fault\(([^)]*)\)$", text, re.MULTILINE):
            written += len(re.findall(r'"[^"]*"', call))
        for name in re.findall(r"^def test_((?:[A-I]\d+_)+)", text, re.MULTILINE):
            written += name.count("_")
    assert sum([len(test.ids) for test in find_tests()]) == written > 100


def test_a_line_that_is_no_row_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "table.txt"
    for line in ("A2 | a | b", "A1 | a", "A1 | a | b | c", "A1 | a | ", "a row"):
        path.write_text(f"Title\n\nA Streams\n{line}\n", encoding="utf-8")
        with pytest.raises(ValueError, match=r"^table\.txt:4: "):
            read_table(path)


def test_a_report_is_read(tmp_path: Path) -> None:
    path = tmp_path / "report.xml"
    cases = (
        '<testcase classname="tests.net.test_aio" name="test_D1_x[a]"/>',
        '<testcase classname="tests.net.test_aio" name="test_D1_x[b]"><failure/></testcase>',
        '<testcase classname="tests.net.test_aio" name="test_D1_x[c]"><skipped/></testcase>',
        '<testcase classname="tests.net.test_aio" name="test_D2_y"><error/></testcase>',
    )
    path.write_text(f"<testsuites><testsuite>{''.join(cases)}</testsuite></testsuites>", encoding="utf-8")
    assert read_report(path) == {
        "tests/net/test_aio.py::test_D1_x": Counter(passed=1, failed=1, skipped=1),
        "tests/net/test_aio.py::test_D2_y": Counter(failed=1),
    }


def test_the_command(capfd: pytest.CaptureFixture[str]) -> None:
    """It runs the tests of the rows that it is asked for."""
    assert main(["A17"]) == 0
    out = capfd.readouterr().out
    assert ROWS["A17"].promise in out and "1 faults" in out
    assert re.search(r"test_normal_requests_are_never_reset: \d passed", out)
    assert main(["--list", "A"]) == 0
    assert "not run" in capfd.readouterr().out
