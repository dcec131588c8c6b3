"""The requirements, one a line in `rfc*.txt`, and the tests that bear `@pytest.mark.rfc` with their ids.

A section is a line with § and its number; every section of the chapters that bind a client is there, those too that ask
nothing of one. A requirement is a line `number | keyword | who | what`, in our own words; its id is RFC, section and number,
like 9113-6.5.2-3. The keyword is the RFC's own, or RULE where a sentence without one decides what is right. A fifth part says
why this client cannot break it, whatever it is passed and whatever it receives.
"""

import ast
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

HERE: Final = Path(__file__).resolve().parent
ROOT: Final = HERE.parents[1]
KEYWORDS: Final = ("MUST", "MUST NOT", "SHOULD", "SHOULD NOT", "RULE")
BY_DESIGN: Final = "by design: "


class Requirement(NamedTuple):
    """One sentence that binds us; `design` is the reason why it needs no test, or empty."""

    id: str
    keyword: str
    binds: str
    text: str
    design: str


class Section(NamedTuple):
    """A section and what it asks of a client."""

    number: str
    title: str
    requirements: tuple[Requirement, ...]


class Document(NamedTuple):
    """An RFC."""

    name: str
    title: str
    sections: tuple[Section, ...]

    def requirements(self) -> list[Requirement]:
        return [requirement for section in self.sections for requirement in section.requirements]


def read_document(path: Path) -> Document:
    """One file. Raises ValueError, with the line, where it is not of the form."""
    title, *lines = path.read_text(encoding="utf-8").splitlines()
    name = title.split()[1]
    sections: list[Section] = []
    for place, line in enumerate(lines, 2):
        if line.startswith("§"):
            number, _, heading = line[1:].partition(" ")
            sections.append(Section(number, heading, ()))
        elif line:
            parts = [part.strip() for part in line.split("|")]
            design = parts[4].removeprefix(BY_DESIGN) if len(parts) == 5 else ""
            last = sections[-1]
            expected = str(len(last.requirements) + 1)
            formed = len(parts) == 4 or (len(parts) == 5 and parts[4].startswith(BY_DESIGN))
            if not formed or parts[0] != expected or parts[1] not in KEYWORDS:
                raise ValueError(f"{path.name}:{place}: {line!r} is not requirement {expected} of §{last.number}")
            requirement = Requirement(f"{name}-{last.number}-{parts[0]}", parts[1], parts[2], parts[3], design)
            sections[-1] = last._replace(requirements=(*last.requirements, requirement))
    return Document(name, title, tuple(sections))


def read_documents() -> list[Document]:
    """All of them; first those of which every chapter is here."""
    order = ("rfc9113", "rfc9112", "rfc7541")
    files = sorted(HERE.glob("rfc*.txt"), key=lambda path: (path.stem not in order, path.stem))
    files[: len(order)] = [HERE / f"{name}.txt" for name in order]
    return [read_document(path) for path in files]


def read_tests(path: Path) -> Iterator[ast.FunctionDef]:
    """The tests of a file."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            yield node


def marks(function: ast.FunctionDef) -> list[str]:
    """What its `@pytest.mark.rfc(…)` names."""
    ids: list[str] = []
    for decorator in function.decorator_list:
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.rfc":
            ids += [str(ast.literal_eval(argument)) for argument in decorator.args]
    return ids


def is_broken(function: ast.FunctionDef) -> bool:
    """Whether it is known to fail, all of it: it names a requirement, and shows that this is not held yet."""
    return any([ast.unparse(decorator).startswith("pytest.mark.xfail") for decorator in function.decorator_list])


@functools.cache
def read_marked() -> tuple[tuple[str, tuple[str, ...], bool], ...]:
    """Every test that names requirements: its name, what it names, whether it is known to fail."""
    marked: list[tuple[str, tuple[str, ...], bool]] = []
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        if "@pytest.mark.rfc(" in path.read_text(encoding="utf-8"):
            for function in read_tests(path):
                name = f"{path.relative_to(ROOT).as_posix()}::{function.name}"
                marked.append((name, tuple(marks(function)), is_broken(function)))
    return tuple(marked)


def find_tests(broken: bool = False) -> dict[str, list[str]]:
    """The tests of each requirement, by its id; or those of them that are known to fail."""
    found: dict[str, list[str]] = {}
    for name, ids, fails in read_marked():
        for id in ids if fails == broken else ():
            found.setdefault(id, []).append(name)
    return found
