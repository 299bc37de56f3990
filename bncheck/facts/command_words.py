"""What the user said besides the path: commands that are recommended repeat it."""

from __future__ import annotations

from bncheck.facts.record import Record


class Given(Record):
    """What the user gave besides the path, as words of a command line: commands that are recommended repeat it."""

    data: str | None = None
    reading: tuple[str, ...] = ()
    """What the files do not tell: ("--graph", "a.meta", "--decay", "0.99")."""
    running: tuple[str, ...] = ()
    """How the model is run: ("--model", "mobilenet_v2", "--preprocess", "-1..1")."""
    training: tuple[str, ...] = ()
    """What trains it: ("--train-op", "train"), which is of no use to a repair."""
    use_graph: bool = True
    """Whether the graph beside a checkpoint might be read."""
