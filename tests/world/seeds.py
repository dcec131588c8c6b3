"""Worlds that once broke a law, or that showed something worth keeping: scenario, seed, what it was."""

SEEDS: tuple[tuple[str, int, str], ...] = ()
