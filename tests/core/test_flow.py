"""Window arithmetic: RFC 9113 §5.2 and §6.9."""

from hypothesis import given
from hypothesis import strategies as st

from calamint.core.flow import DEFAULT_WINDOW, MAX_WINDOW, is_due, overflows


def test_windows_of_the_rfc() -> None:
    """§6.9.1: "a flow-control window MUST NOT exceed 2^31-1 octets"; §6.9.2: it begins with 65,535."""
    assert MAX_WINDOW == 2_147_483_647
    assert DEFAULT_WINDOW == 65_535


def test_overflow_both_sides() -> None:
    assert not overflows(0, 2**31 - 1)
    assert overflows(1, 2**31 - 1)
    assert not overflows(2**31 - 2, 1)
    assert overflows(2**31 - 1, 1)


def test_a_negative_window_takes_more() -> None:
    """§6.9.2: "A change to SETTINGS_INITIAL_WINDOW_SIZE can cause the available space … to become negative"."""
    assert not overflows(-1, 2**31 - 1)
    assert not overflows(-65_535, 2**31 - 1)


def test_credit_is_due_at_half_a_window_both_sides() -> None:
    assert not is_due(499, 1000)
    assert is_due(500, 1000)
    assert is_due(501, 1000)
    assert not is_due(500, 1001)
    assert is_due(501, 1001)
    assert is_due(1, 1)


def test_an_increment_is_never_zero() -> None:
    """§6.9: "an increment of 0 MUST be treated as a stream error"."""
    assert not is_due(0, 0)
    assert not is_due(0, 1)
    assert is_due(1, 0)


@given(st.integers(0, MAX_WINDOW), st.integers(1, MAX_WINDOW))
def test_credit_is_due_from_half_a_window_on(credit: int, window: int) -> None:
    assert is_due(credit, window) == (credit > 0 and credit >= window - credit)
