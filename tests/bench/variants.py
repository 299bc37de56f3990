"""Trains MobileNetV2 0.35 on digits in nineteen ways, and holds verdicts and repairs against measured accuracies.

python -m tests.bench.variants [--cache DIR] [--size 64] [--only NAME,...] [--no-repair]

Verdicts are held against accuracies measured in a plain session: fail wherever eval mode is more than 5 points below
train mode, pass wherever it is within 2. Then every variant is repaired from training images, and without data where
that can be; what comes out is measured the same way. Trained variants are kept in DIR and found again, so that a run
that was stopped goes on where it was. Exits 1 where a verdict is wrong or a repair falls short.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import warnings
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import numpy as np
import tensorflow as tf

import bncheck
from bncheck.facts.errors import BncheckError
from bncheck.repair import DataOptions, repair
from tests.bench._variants import BATCH, MODEL, VARIANTS, Made, Split, accuracy, made, splits

CALIBRATION = 640
"""Training images to repair with."""
REPAIRED_WITHIN = 0.015
"""Of train mode's accuracy, for `repair --data`."""


@dataclass(kw_only=True)
class Row:
    """What became of one variant."""

    made: Made
    with_meta: str = ""
    """Verdict and codes of the comparison from checkpoint and MetaGraph."""
    by_name: str = ""
    """The same from the checkpoint alone and the backbone's name."""
    repaired: float | None = None
    debiased: float | str | None = None
    """Accuracy in eval mode after the repair, or why there is none."""
    wrong: list[str] = field(default_factory=list)


def main() -> int:
    """Prints the table of the README."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "bncheck-variants")
    parser.add_argument("--size", type=int, default=64, help="height and width of the images [64]")
    parser.add_argument("--only", default="", help="names of variants, comma-separated")
    parser.add_argument("--no-repair", action="store_true")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    tf.get_logger().setLevel("ERROR")
    folder = asked.cache / str(asked.size)
    wanted = [v for v in VARIANTS if not asked.only or v.name in asked.only.split(",")]
    training, test = splits(asked.size)
    folder.mkdir(parents=True, exist_ok=True)
    data = {"train": folder / "train.npz", "test": folder / "test.npz"}
    np.savez(data["train"], images=training.images[:CALIBRATION], labels=training.labels[:CALIBRATION])
    np.savez(data["test"], images=test.images, labels=test.labels)
    rows = []
    for variant in wanted:
        row = Row(made=made(variant, folder / variant.name, asked.size, training, test))
        compare(row, data["test"])
        if not asked.no_repair:
            mend(row, data["train"], asked.size, test)
        print(f"{variant.name}: {_line(row)}", file=sys.stderr, flush=True)
        rows.append(row)
    print(table(rows))
    wrong = [f"{row.made.variant.name}: {what}" for row in rows for what in row.wrong]
    print("\n".join(wrong) if wrong else f"\nall {len(rows)} as they should be")
    return 1 if wrong else 0


def compare(row: Row, test: Path) -> None:
    """Both ways to say what the network is; each verdict is held against the measured loss."""
    row.with_meta = _verdict(row, test, None)
    row.by_name = _verdict(row, test, MODEL)


def _verdict(row: Row, test: Path, model: str | None) -> str:
    how = "from the MetaGraph" if model is None else "by name"
    try:
        report = bncheck.compare_train_vs_eval(row.made.prefix, data=test, batch_size=BATCH, model=model)
    except BncheckError as error:
        if row.made.expected:
            row.wrong.append(f"{how}: no verdict, should be {row.made.expected}: {error}")
        return f"refused: {error}"
    verdict = report.verdict.value
    if row.made.expected and verdict != row.made.expected:
        row.wrong.append(f"{how}: {verdict}, should be {row.made.expected}")
    found = report.comparison.accuracy if report.comparison is not None else None
    if found is not None and found.train is not None and found.eval is not None:
        drift = max(abs(found.train - row.made.train_mode), abs(found.eval - row.made.eval_mode))
        if drift > 0.02:
            row.wrong.append(f"{how}: accuracies {found.train:.1%} and {found.eval:.1%} are not those of a session")
    codes = sorted({f.code for f in report.findings if f.severity.value == "error"})
    return f"{verdict} {' '.join(codes)}".strip()


def mend(row: Row, training: Path, size: int, test: Split) -> None:
    """From data and without, each into a place of its own that is measured and thrown away."""
    row.repaired = _mended(row, size, test, training)
    row.debiased = _mended(row, size, test, None)
    if row.repaired is None or row.repaired < row.made.train_mode - REPAIRED_WITHIN:
        row.wrong.append(f"repaired from data to {_share(row.repaired)}, train mode has {row.made.train_mode:.1%}")
    least = {"decay_0.99_300": 0.80, "decay_0.9997_300": 0.60}.get(row.made.variant.name)
    if least is not None and not (isinstance(row.debiased, float) and row.debiased >= least):
        row.wrong.append(f"debiased to {_share(row.debiased)}, should be {least:.0%}")


def _mended(row: Row, size: int, test: Split, data: Path | None) -> float | None:
    folder = Path(tempfile.mkdtemp(prefix="bncheck-mended-"))
    try:
        options = DataOptions(batch_size=BATCH, compare=False)
        report = repair(row.made.prefix, folder / "fixed.ckpt", data=data, debias=data is None, options=options)
        return accuracy(Path(report.output), size, test, is_training=False)
    except BncheckError as error:
        print(f"  {row.made.variant.name}: {error}", file=sys.stderr)
        return None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def table(rows: list[Row]) -> str:
    """Markdown."""
    head = "| trained | decay | steps | train mode | eval mode | verdict | by name | `--data` | `--debias` |"
    lines = [head, "|---|---|---|---|---|---|---|---|---|"]
    for row in rows:
        variant = row.made.variant
        lines.append(f"| {variant.story} | {variant.decay:g} | {variant.steps} | {_line(row)} |")
    return "\n".join(lines)


def _line(row: Row) -> str:
    shares = (row.made.train_mode, row.made.eval_mode)
    after = (_share(row.repaired), _share(row.debiased))
    return " | ".join((*(f"{share:.1%}" for share in shares), row.with_meta, row.by_name, *after))


def _share(found: float | str | None) -> str:
    return f"{found:.1%}" if isinstance(found, float) else "-"


if __name__ == "__main__":
    raise SystemExit(main())
