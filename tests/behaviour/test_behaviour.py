"""Our columns of the behaviour table, cell by cell; and that a wrong cell would be seen."""

import pytest

from tests.behaviour.__main__ import table
from tests.behaviour.rows import ROWS, Row, said_resets
from tests.behaviour.subjects import COLUMNS, Column

OURS = [name for name, column in COLUMNS.items() if column.is_ours]


@pytest.mark.slow
@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("row", ROWS, ids=[row.what for row in ROWS])
def test_cell(row: Row, name: str) -> None:
    said = row.measure(COLUMNS[name])
    assert row.right(COLUMNS[name], said), said


def test_one_cell_of_each() -> None:
    """Fast ones: the way from a row to a verdict, for ours and for a client of somebody else."""
    rows = [row for row in ROWS if row.what.startswith(("REFUSED_STREAM", "a field value with CR LF, HTTP/2"))]
    lines: list[str] = []
    assert table(rows, [COLUMNS["Client"], COLUMNS["AsyncClient"], COLUMNS["httpx.Client"]], lines.append) == 0
    assert [line.split()[:1] for line in lines[1:]] == [["REFUSED_STREAM:"], ["a"]]
    assert lines[1].split()[-4:-2] == ["yes", "yes"] or lines[1].count("yes") == 2


def test_a_wrong_cell_is_counted() -> None:
    """Of ours; what another client does is nobody's fault."""
    row = Row("what is said", lambda column: "no", lambda column, said: said == "yes")
    other = Column("other", COLUMNS["Client"].open, ())
    lines: list[str] = []
    assert table([row], [COLUMNS["Client"], other], lines.append) == 1
    assert "no WRONG" in lines[1] and lines[1].count("WRONG") == 1 and lines[2].startswith("1 cells of ours")
    assert table([row], [other], lines.append) == 0


def test_what_resets_say() -> None:
    from tests.behaviour.peer import Peer

    with Peer(lambda conn, stream, path: None) as peer:
        assert said_resets(peer, 0.01) == "no"
        peer.resets.append((1, 8))
        assert said_resets(peer) == "yes (CANCEL)"
        peer.resets.append((1, 5))
        assert said_resets(peer) == "yes (CANCEL, +1)"
