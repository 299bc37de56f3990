"""How long the parts of the test suite take on 2 cores.

python -m tests.bench.suite

Budget: the fast part under a minute, the one with TensorFlow under ten.
"""

from __future__ import annotations

import sys

from tests.bench._measure import Figure, run, table

FAST, HEAVY = "not tensorflow and not browser and not slow", "tensorflow and not slow"
MOST = {FAST: 60, HEAVY: 600}


def figures(*, quick: bool) -> list[Figure]:
    """The two budgets of DESIGN, section 9; quick: the fast part alone."""
    taken = main([FAST] if quick else [FAST, HEAVY])
    return [
        Figure(f"tests, {marks!r}, 2 workers", f"{MOST[marks]} s", f"{seconds:.0f} s", seconds <= MOST[marks])
        for marks, seconds in taken.items()
    ]


def main(parts: list[str] | None = None) -> dict[str, float]:
    """Prints one table, and gives the seconds by the marks of the part."""
    pytest = [sys.executable, "-m", "pytest", "-q", "-n", "2", "-m"]
    taken = {marks: run([*pytest, marks]).wall for marks in parts or (FAST, HEAVY)}
    table(("tests", "wall s"), [(marks, f"{seconds:.0f}") for marks, seconds in taken.items()])
    return taken


if __name__ == "__main__":
    main()
