from collections.abc import Callable


def sabotage(seed: int, jobs: int, say: Callable[[str], None]) -> int:
    return 0
