"""How long static commands take to start, beside a bare Python and one that imports numpy.

python -m tests.bench.startup [ROUNDS]

Budget: a fifth of a second.
"""

from __future__ import annotations

import sys

from tests.bench._measure import REPOSITORY, in_turn, inspect, table


def main(rounds: int = 11) -> None:
    """Prints one table."""
    bncheck = [sys.executable, "-m", "bncheck"]
    forgotten = str(REPOSITORY / "fixtures" / "mobilenet_v2" / "forgotten" / "model.ckpt-300")
    costs = in_turn(
        {
            "python -c pass": [sys.executable, "-c", "pass"],
            "python -c 'import numpy'": [sys.executable, "-c", "import numpy"],
            "bncheck --help": [*bncheck, "--help"],
            "bncheck rules": [*bncheck, "rules"],
            "bncheck explain BN201": [*bncheck, "explain", "BN201"],
            "inspect checkpoint --no-graph": inspect("checkpoint", forgotten, "--no-graph"),
            "inspect checkpoint --no-graph --format json": inspect(
                "checkpoint", forgotten, "--no-graph", "--format", "json"
            ),
            "inspect checkpoint, 1.5 MB of MetaGraph": inspect("checkpoint", forgotten),
        },
        rounds=rounds,
    )
    rows = [(name, f"{1e3 * c.wall:.0f}", f"{1e3 * c.cpu:.0f}", f"{c.peak:.0f}") for name, c in costs.items()]
    table(("whole process, medians", "wall ms", "cpu ms", "peak MiB"), rows)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
