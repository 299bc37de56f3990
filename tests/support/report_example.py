"""One report for the tests of all formats, made by rules of its own, so that no real rule's wording is held fast."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import bncheck
from bncheck.facts.findings import Evidence, Measurement, Report, Severity
from bncheck.facts.formats import FileKind, Format
from bncheck.facts.layers import Facts, RunFacts
from bncheck.judge.judge import judge
from bncheck.rules.registry import Registry
from bncheck.rules.rule import Needs, Rule, rule
from bncheck.settings.config import Ignore, Settings
from bncheck.testing import batch_norm, untouched, unwired, with_graph

GOLDEN = Path(__file__).parents[1] / "report" / "golden"
NAMES = ("net/conv1/BatchNorm", "net/conv2/BatchNorm", "net/conv3/BatchNorm")

HOSTILE = "a\nb\r\x1b[31m[bold]x[/bold]::error::y%0A]]><script>alert(1)</script>|`*_\u202e\x00\x85@me ://z {0} \\"
"""A layer's name with what each format must not let through."""


@rule("BN101", "never-moved", severity=Severity.ERROR, needs=Needs.VALUES, explained_by=("BN201",))
def never_moved(model: Facts) -> Iterator[Evidence]:
    """The statistics never moved.

    Why it matters
    --------------
    The stored statistics are not the model's.

    Fix
    ---
    Run the updates.
    """
    names = tuple(layer.name for layer in model.layers if layer.moved is False)
    if names:
        yield Evidence(layers=names, message=f"every moving_mean is exactly 0 in {len(names)} layers")


@rule("BN107", "dead-channels", severity=Severity.WARNING, needs=Needs.VALUES)
def dead_channels(model: Facts) -> Iterator[Evidence]:
    """Channels are dead.

    Why it matters
    --------------
    Harmless in float.

    Second paragraph, which reports leave out.

    Fix
    ---
    Prune them.
    """
    for layer in model.layers[1:]:
        yield Evidence(
            layers=(layer.name,),
            location=layer.variance.name,
            message=f"2 of 4 channels of {layer.name} have a variance below epsilon",
            measurements=(
                Measurement(name="dead channels", value=2, limit=0, unit="channels"),
                Measurement(name="smallest variance", value=float("nan"), limit=1e-5),
            ),
        )


@rule("BN201", "update-not-wired", severity=Severity.ERROR, needs=Needs.GRAPH)
def not_wired(model: Facts) -> Iterator[Evidence]:
    """The updates are not wired.

    What it detects
    ---------------
    Updates that no train op
    runs.

    Why it matters
    --------------
    With is_training=False each layer normalises with mean 0, variance 1: junk.

    Fix
    ---
    The training code, before the next run:

        update_ops = tf.get_collection(tf.GraphKeys.UPDATE_OPS)
        with tf.control_dependencies(update_ops):
            train_op = optimizer.minimize(loss, global_step)

    This checkpoint, without retraining: see `bncheck repair`.
    """
    names = tuple(layer.name for layer in model.layers)
    yield Evidence(layers=names, message="None of the 6 update ops is run by the train op `Adam`.")


@rule("BN218", "redundant-bias", severity=Severity.INFO, needs=Needs.SITES)
def redundant_bias(model: Facts) -> Iterator[Evidence]:
    """A bias before batch norm is of no use."""
    yield Evidence(layers=(model.layers[0].name,), message="batch norm cancels the bias before it")


@rule("BN405", "bias-saturated", severity=Severity.ERROR, needs=Needs.LITE)
def saturated(model: Facts) -> Iterator[Evidence]:
    """Never runs on a checkpoint."""
    yield Evidence(layers=(), message=str(model.lite))


RULES: tuple[Rule, ...] = (never_moved, dead_channels, not_wired, redundant_bias, saturated)


def example_facts(names: tuple[str, ...] = NAMES) -> Facts:
    """Three layers whose updates nobody runs, trained for 300 steps."""
    first, second, third = names
    model = with_graph(
        unwired(untouched(first, decay=0.99)), unwired(untouched(second, decay=0.99)), unwired(batch_norm(third))
    )
    run = RunFacts(values=True, global_step=300, updates=300, updates_from="global_step")
    return replace(model, path="runs/model.ckpt-300", format=Format(FileKind.TF1_CHECKPOINT), run=run)


def example(names: tuple[str, ...] = NAMES, **settings: Any) -> Report:
    """The shared report: an error that explains another, a warning, a note, a suppressed warning."""
    known = {
        "ignores": (Ignore(layer=names[2], codes=("BN107",), reason="pruned before export"),),
        "today": date(2026, 1, 1),
    }
    report = judge(example_facts(names), settings=Settings(**(known | settings)), rules=Registry(RULES))
    return replace(report, timing={"read": 0.012, "recognise": 0.025, "rules": 0.003})


def hostile() -> Report:
    """The same with names that attack each format, in the message, the path and the notes as well."""
    report = example((HOSTILE, "net/conv2", "net/conv3"), ignores=())
    target = replace(report.target, path=f"runs/{HOSTILE}", notes=(HOSTILE,))
    findings = tuple(
        replace(f, message=f"{f.message} {HOSTILE}", location=HOSTILE, fix=f"{f.fix}\n    {HOSTILE}")
        for f in report.findings
    )
    return replace(report, target=target, findings=findings)


def assert_golden(name: str, text: str) -> None:
    """Compares with tests/report/golden/NAME; BNCHECK_UPDATE_GOLDEN=1 writes it instead, for review."""
    text = text.replace(bncheck.__version__, "@VERSION@")
    path = GOLDEN / name
    if os.environ.get("BNCHECK_UPDATE_GOLDEN"):
        path.write_text(text, encoding="utf-8")
    wanted = path.read_text(encoding="utf-8")
    diff = difflib.unified_diff(wanted.splitlines(), text.splitlines(), "golden", "now", lineterm="")
    assert text == wanted, "\n".join(diff)
