"""Every cell of ours in the table of `tests.transports.behaviour` is right."""

import pytest

from tests.transports.behaviour import measure


@pytest.mark.slow
@pytest.mark.parametrize("name", ["httpx", "httpx2"])
def test_behaviour(name: str) -> None:
    subjects, table = measure([name], ours_only=True)
    assert [subject.ours for subject in subjects] == [True]
    wrong = {what: cells[0].text for what, cells in table.items() if not cells[0].right}
    assert len(table) == 16 and wrong == {}
