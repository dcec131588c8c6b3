"""Every requirement that binds a client has a test, every test names requirements that there are, and every choice a test."""

import re
from typing import Final

import pytest

from tests.core.test_grid import TABLE
from tests.rfc.requirements import ROOT, Document, find_tests, read_document, read_documents, read_tests

DOCUMENTS: Final = read_documents()
CHOICES: Final = ROOT / "docs" / "choices.md"
TEST: Final = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: f"RFC {document.name}")
def test_no_requirement_is_without_a_test(document: Document) -> None:
    tests = {*find_tests(), *find_tests(broken=True)}
    assert [
        f"{requirement.id}: {requirement.text}"
        for requirement in document.requirements()
        if not requirement.design and requirement.id not in tests
    ] == []


def test_every_mark_names_a_requirement() -> None:
    known = {requirement.id for document in DOCUMENTS for requirement in document.requirements()}
    assert sorted({*find_tests(), *find_tests(broken=True)} - known) == []


def test_every_mark_is_seen() -> None:
    """They are read from the source, so each must be a decorator of a test, written out."""
    seen = sum([len(tests) for found in (find_tests(), find_tests(broken=True)) for tests in found.values()])
    written = 0
    for path in (ROOT / "tests").rglob("test_*.py"):
        for call in re.findall(r"^@pytest\.mark\.rfc\(([^)]*)\)$", path.read_text(encoding="utf-8"), re.MULTILINE):
            written += len(re.findall(r'"[^"]*"', call))
    assert seen == written > 0


def test_every_cell_of_the_grid_names_a_section() -> None:
    numbers = {document.name: {section.number for section in document.sections} for document in DOCUMENTS}
    for cell in TABLE:
        other, _, number = cell.section.removeprefix("RFC ").rpartition(" ")  # without a name it is of RFC 9113
        assert number in numbers[other or "9113"], cell


def test_a_line_that_is_no_requirement_is_refused(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("rfc") / "rfc1.txt"
    for line in (
        "1 | MUST | client",
        "2 | MUST | client | is",
        "1 | MAY | client | is",
        "1 | MUST | client | is | why",
    ):
        path.write_text(f"RFC 1\n\n§2 Words\n{line}\n", encoding="utf-8")
        with pytest.raises(ValueError, match=r"^rfc1\.txt:4: .* is not requirement 1 of §2$"):
            read_document(path)


def test_every_choice_names_tests_that_there_are() -> None:
    rows = [line for line in CHOICES.read_text(encoding="utf-8").splitlines() if line.startswith("| §")]
    assert len(rows) > 50
    names = {path: {function.name for function in read_tests(ROOT / path)} for path in set(paths(rows))}
    for row in rows:
        found = TEST.findall(row.split("|")[-2])
        assert found, f"without a test: {row}"
        assert [test for test in found if test[1] not in names[test[0]]] == [], row


def paths(rows: list[str]) -> list[str]:
    """The files that they name."""
    return [path for row in rows for path, _ in TEST.findall(row)]
