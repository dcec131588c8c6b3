"""Prints each fault, what is promised, the tests that keep the promise, and how they end; exits with 1 where one of sections
A, D, E, F, H has no test, and where any test fails."""

import argparse
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from pathlib import Path
from xml.etree import ElementTree

from tests.faults.rows import REQUIRED, ROOT, Section, Test, find_tests, keepers, read_table

Results = dict[str, Counter[str]]  # of a test: how many of its cases ended how
QUICK = "not server and not slow"


def run(tests: list[Test], everything: bool) -> tuple[Results, int]:
    """How they end, and pytest's exit code."""
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory, "report.xml")
        command = [sys.executable, "-m", "pytest", "-q", f"--junitxml={report}", *([] if everything else ["-m", QUICK])]
        code = subprocess.run([*command, *sorted({test.name for test in tests})], cwd=ROOT).returncode
        return (read_report(report) if report.exists() else {}), code


def read_report(path: Path) -> Results:
    """A JUnit report, by the names that the tests have here."""
    results: Results = defaultdict(Counter)
    for case in ElementTree.parse(path).iter("testcase"):
        module, name = case.get("classname", ""), case.get("name", "").partition("[")[0]
        ends = {child.tag for child in case}
        end = "failed" if ends & {"failure", "error"} else "skipped" if "skipped" in ends else "passed"
        results[f"{module.replace('.', '/')}.py::{name}"][end] += 1
    return results


def show(section: Section, results: Results) -> None:
    """Prints a section."""
    print(f"\n{section.letter}. {section.title}")
    for row in section.rows:
        print(f"  {row.id} {row.failure}.\n      Promised: {row.promise}.")
        tests = keepers(row.id)
        for test in tests:
            counts = results.get(test.name)
            words = "not run: slow, or needs a server" if test.slow else "not run"
            print(f"        {test.name}: {', '.join([f'{n} {end}' for end, n in counts.items()]) if counts else words}")
        if not tests:
            print("        NO TEST" if section.letter in REQUIRED else "        no test of its own")


def main(arguments: list[str]) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--all", action="store_true", help="slow tests, too, and those that need a server")
    parser.add_argument("--list", action="store_true", help="run nothing")
    parser.add_argument("ids", nargs="*", metavar="ID", help="only these rows or sections, such as A1 or F")
    options = parser.parse_args(arguments)
    sections = [
        section._replace(
            rows=tuple(row for row in section.rows if not options.ids or {row.id, section.letter} & {*options.ids})
        )
        for section in read_table()
    ]
    rows = [(section.letter, row) for section in sections for row in section.rows]
    if not rows:
        parser.error(f"no such row: {', '.join(options.ids)}")
    wanted = {row.id for _, row in rows}
    tests = [test for test in find_tests() if wanted & {*test.ids}]
    results, code = ({}, 0) if options.list or not tests else run(tests, options.all)
    for section in sections:
        if section.rows:
            show(section, results)
    missing = [row.id for letter, row in rows if letter in REQUIRED and not keepers(row.id)]
    others = [row.id for letter, row in rows if letter not in REQUIRED and not keepers(row.id)]
    failing = [
        row.id for _, row in rows if any([results.get(test.name, Counter())["failed"] for test in keepers(row.id)])
    ]
    ends = sum(results.values(), Counter[str]())
    print(
        f"\n{len(rows)} faults, {len(tests)} tests: {', '.join([f'{n} {end}' for end, n in ends.items()]) or 'not run'}"
    )
    for ids, words in ((others, "Without a test of their own"), (missing, "WITHOUT A TEST"), (failing, "FAILING")):
        if ids:
            print(f"{words}: {', '.join(ids)}")
    return 1 if missing or failing or code else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
