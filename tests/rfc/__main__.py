"""Prints each section with its requirements and their tests; exits with 1 where a requirement has none."""

import argparse
import subprocess
import sys
from collections import Counter

from tests.core.test_grid import TABLE
from tests.rfc.requirements import ROOT, Document, Requirement, find_tests, read_documents


def show(document: Document, tests: dict[str, list[str]], broken: dict[str, list[str]]) -> list[Requirement]:
    """Prints a document; returns what has no test, and no reason for that."""
    missing: list[Requirement] = []
    print(document.title)
    for section in document.sections:
        nothing = "" if section.requirements else "  (nothing that binds a client)"
        print(f"\n  §{section.number} {section.title}{nothing}")
        for requirement in section.requirements:
            print(f"    {requirement.id} {requirement.keyword}, {requirement.binds}: {requirement.text}")
            for test in tests.get(requirement.id, []):
                print(f"        {test}")
            for test in broken.get(requirement.id, []):
                print(f"        {test} FAILS, as is known")
            if requirement.design:
                print(f"        by design: {requirement.design}")
            elif requirement.id not in tests and requirement.id not in broken:
                print("        NO TEST")
                missing.append(requirement)
    print()
    return missing


def summary(document: Document, tests: dict[str, list[str]], broken: dict[str, list[str]]) -> str:
    """One line."""
    all_of_it = document.requirements()
    held = [requirement.id for requirement in all_of_it if requirement.id in tests]
    names = {name for id in held for name in tests[id]}
    design = [requirement.id for requirement in all_of_it if requirement.design]
    broke = [requirement.id for requirement in all_of_it if requirement.id in broken and requirement.id not in tests]
    left = len(all_of_it) - len({*held, *design, *broke})
    counts = (
        f"{len(held)} held by {len(names)} tests, {len(design)} by design, {len(broke)} broken, {left} without a test"
    )
    return f"{document.title}: {len(document.sections)} sections, {len(all_of_it)} requirements: {counts}"


def main(arguments: list[str]) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.rfc", description=__doc__)
    parser.add_argument("--run", action="store_true", help="run these tests, too")
    options = parser.parse_args(arguments)
    documents = read_documents()
    tests = find_tests()
    broken = find_tests(broken=True)
    missing = [requirement for document in documents for requirement in show(document, tests, broken)]
    cells = Counter([cell.section for cell in TABLE])
    sections = ", ".join([f"{section} ({count})" for section, count in sorted(cells.items())])
    print(
        f"The grid of stream states: {len(TABLE)} cells, each with its section, of RFC 9113 if of no other: {sections}\n"
    )
    for document in documents:
        print(summary(document, tests, broken))
    if broken:
        print(f"\nWith a test that is known to fail: {', '.join(broken)}")
    if missing:
        print(f"\nWithout a test: {', '.join([requirement.id for requirement in missing])}")
    code = 1 if missing else 0
    if options.run:
        grid = "tests/core/test_grid.py"
        names = sorted({name for names in tests.values() for name in names if not name.startswith(grid)})
        code = subprocess.run([sys.executable, "-m", "pytest", "-q", grid, *names], cwd=ROOT).returncode or code
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
