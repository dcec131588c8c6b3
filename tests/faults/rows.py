"""The rows of `table.txt`, and the tests that keep their promises.

A section is a line with its letter and its title; a row is `id | what fails | what is promised`, in our own words. A test
names its rows in its own name, `test_A1_A2_…`, or by `@pytest.mark.fault("A1", …)`.
"""

import ast
import functools
import re
from pathlib import Path
from typing import Final, NamedTuple

HERE: Final = Path(__file__).resolve().parent
ROOT: Final = HERE.parents[1]
TABLE: Final = HERE / "table.txt"
REQUIRED: Final = "ADEFH"
"""The sections of which no row may be without a test: what pools and their drivers promise. The others are held, beyond what
stands here, by the tests of the core, by the RFC's requirements, and by the world."""

NAME: Final = re.compile(r"test_((?:[A-I]\d+_)+)")


class Row(NamedTuple):
    """One failure, and what is promised instead."""

    id: str
    failure: str
    promise: str


class Section(NamedTuple):
    """Rows of one letter."""

    letter: str
    title: str
    rows: tuple[Row, ...]


class Test(NamedTuple):
    """A test function, `path::name`, the rows that it names, and whether it is slow or needs a server, all of it."""

    name: str
    ids: tuple[str, ...]
    slow: bool


def read_table(path: Path = TABLE) -> list[Section]:
    """All sections. Raises ValueError, with the line, where it is not of the form."""
    _, *lines = path.read_text(encoding="utf-8").splitlines()
    sections: list[Section] = []
    for place, line in enumerate(lines, 2):
        parts = [part.strip() for part in line.split("|")]
        if len(parts) == 3 and all(parts) and sections:
            last = sections[-1]
            expected = f"{last.letter}{len(last.rows) + 1}"
            if parts[0] != expected:
                raise ValueError(f"{path.name}:{place}: {line!r} is not row {expected}")
            sections[-1] = last._replace(rows=(*last.rows, Row(*parts)))
        elif re.match(r"[A-Z] \S", line) and len(parts) == 1:
            sections.append(Section(line[0], line[2:], ()))
        elif line:
            raise ValueError(f"{path.name}:{place}: {line!r} is no row and no section")
    return sections


def ids_of(function: ast.FunctionDef) -> tuple[str, ...]:
    """The rows that a test names."""
    match = NAME.match(function.name)
    ids = match[1].rstrip("_").split("_") if match else []
    for decorator in function.decorator_list:
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.fault":
            ids += [str(ast.literal_eval(argument)) for argument in decorator.args]
    return tuple(ids)


def is_slow(function: ast.FunctionDef, module: ast.Module) -> bool:
    """Whether none of it runs among the quick tests: it, or its module, is marked so."""
    marks = {ast.unparse(decorator) for decorator in function.decorator_list}
    for node in module.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark":
            marks |= {ast.unparse(it) for it in (node.value.elts if isinstance(node.value, ast.List) else [node.value])}
    return bool(marks & {"pytest.mark.slow", "pytest.mark.server"})


@functools.cache
def find_tests() -> tuple[Test, ...]:
    """Every test that names a row."""
    found: list[Test] = []
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        module = ast.parse(path.read_text(encoding="utf-8"))
        for node in module.body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_") and (ids := ids_of(node)):
                name = f"{path.relative_to(ROOT).as_posix()}::{node.name}"
                found.append(Test(name, ids, is_slow(node, module)))
    return tuple(found)


def keepers(id: str) -> list[Test]:
    """Those of one row."""
    return [test for test in find_tests() if id in test.ids]
