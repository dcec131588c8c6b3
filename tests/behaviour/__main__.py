"""`python -m tests.behaviour [NAME …]`: the table, and 1 where a cell of ours is not what it should be."""

import argparse
import sys
from collections.abc import Callable, Sequence

from tests.behaviour.rows import ROWS, Row
from tests.behaviour.subjects import COLUMNS, SHOWN, Column


def show(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join([cell.ljust(width) for cell, width in zip(cells, widths, strict=True)]).rstrip() + "\n"


def table(rows: Sequence[Row], columns: Sequence[Column], write: Callable[[str], object]) -> int:
    """Measures and writes all of it; how many cells of ours are not what they should be. What others do is never wrong."""
    widths = [max([len(row.what) for row in rows]), *[max(28, len(column.name)) for column in columns]]
    write(show(["", *[column.name for column in columns]], widths))
    wrong = 0
    for row in rows:
        cells: list[str] = []
        for column in columns:
            said = row.measure(column)
            is_wrong = column.is_ours and not row.right(column, said)
            wrong += is_wrong
            cells.append(f"{said} WRONG" if is_wrong else said)
        write(show([row.what, *cells], widths))
    if wrong:
        write(f"{wrong} cells of ours are not what they should be\n")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.behaviour", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"columns: {', '.join(COLUMNS)} (default: no httpx.…)")
    options = parser.parse_args()
    if unknown := set(options.names) - set(COLUMNS):
        parser.error(f"no such column: {', '.join(sorted(unknown))}")
    names = options.names or SHOWN

    def write(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    return 1 if table(ROWS, [COLUMNS[name] for name in names], write) else 0


if __name__ == "__main__":
    sys.exit(main())
