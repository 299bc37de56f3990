"""The documentation's table of verdicts, walked row by row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bncheck.facts.findings import Report
from bncheck.facts.layers import DecaySource, Facts, Origin, Purpose, RunFacts
from bncheck.facts.measurements import Rounded
from bncheck.facts.predicted import Predicted
from bncheck.judge.judge import judge
from bncheck.report.views.story import verdict_told
from bncheck.settings.config import FailOn, Settings
from bncheck.testing import (
    batch_norm,
    classes_compared,
    compared,
    difference,
    facts,
    folded,
    graph_facts,
    lite,
    unread,
    untouched,
    wired,
)
from bncheck.testing.quantized import operator_loss, quantized, quantized_classes

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "verdicts.md"
SETTINGS = {
    "--fail-on warning": Settings(fail_on=FailOn.WARNING),
    "--fail-on never": Settings(fail_on=FailOn.NEVER),
    "--allow-empty": Settings(allow_empty=True),
}


def _all_float() -> Facts:
    model = quantized(operator_loss(), accuracy=(0.95, 0.95), train=(0.95, 1.0))
    assert model.quantized is not None
    left = Rounded(kernels=0, of_kernels=1, operators=0, of_operators=3)
    return replace(model, quantized=replace(model.quantized, rounded=left))


def _nameless() -> Facts:
    model = lite(folded())
    assert model.lite is not None
    return replace(model, lite=replace(model.lite, named=False))


def _healthy() -> Facts:
    return facts(batch_norm("a", decay=0.9), batch_norm("b", decay=0.9))


def _sharp(*layers: float, **measured: object) -> Facts:
    return compared(*(difference(f"bn{n}", local=loss) for n, loss in enumerate(layers)), **measured)  # type: ignore[arg-type]


EXAMPLES: Mapping[str, Facts] = {
    "nothing": _healthy(),
    "nothing, where no file tells how much of the statistics is initial value: listed as not checked": facts(
        batch_norm("a"), batch_norm("b"), run=RunFacts(values=True)
    ),
    "nothing, where no statistics could be held against the weights: listed as not checked": _healthy(),
    "a warning": facts(batch_norm("a"), batch_norm("b", variance=4e9, mean=3.0), batch_norm("c")),
    "a variance of 2e14": facts(batch_norm("a", variance=[2e14, 1.0, 2.0, 0.3], decay=0.9)),
    "an error": facts(untouched("a")),
    "no batch norm": facts(graph=graph_facts()),
    "a TFLite file in which nothing tells of batch norm, not even a name": _nameless(),
    "a training graph without train op, and no values": facts(
        unread(replace(wired(batch_norm()), trained_by=(), updates=(), sites=wired(batch_norm()).sites)),
        graph=graph_facts(purpose=Purpose.TRAINING),
        run=RunFacts(),
    ),
    "the statistics of at most half of the layers could not be read: listed as not checked": facts(
        batch_norm("a"), unread(wired(batch_norm("b")))
    ),
    "the statistics of more than half of the layers could not be read": facts(
        batch_norm("a"), *(replace(unread(wired(batch_norm(name))), updates=()) for name in "bc")
    ),
    "by labels, eval mode is as good as train mode, whatever the layers' statistics": _sharp(
        0.3, 0.4, accuracy=(0.997, 0.995)
    ),
    "by labels, eval mode is better than train mode: the weights belong to the statistics": _sharp(
        0.3, 0.4, accuracy=(0.569, 0.935), output=classes_compared(0.5)
    ),
    "by labels, eval mode is worse than train mode": _sharp(
        0.002, 0.4, accuracy=(0.949, 0.898), output=classes_compared(0.87)
    ),
    "by labels, neither mode knows the classes": _sharp(0.002, 0.4, accuracy=(0.08, 0.09)),
    "without labels, eval mode disagrees with train mode, and layers are off from the second on": _sharp(
        0.002, 0.4, output=classes_compared(0.4)
    ),
    "without labels, eval mode disagrees with train mode, and the data may be at fault": _sharp(
        0.3, 0.4, output=classes_compared(0.4)
    ),
    "data in another range than the first layer was trained on, however bad eval mode is": compared(
        difference("a", local=0.7, log_variance_ratio=np.full(4, np.log(49.0)), mean_shift=np.full(4, 2.0)),
        accuracy=(0.95, 0.1),
        output=classes_compared(0.1),
    ),
    "8 samples": _sharp(0.002, samples=8),
    "data made up (`--data synthetic`)": compared(difference("a"), synthetic=True),
    "a `--scheme` that leaves the whole model in float": _all_float(),
    "by labels, the quantized model is worse than the float one": quantized(
        operator_loss(local=0.4, rmse=2.0),
        output=quantized_classes(0.12),
        accuracy=(0.966, 0.10),
        train=(0.949, 0.95),
    ),
}


def rows() -> list[tuple[str, str, int]]:
    """(what was found, verdict, exit code) of each row of the table."""
    text = PAGE.read_text(encoding="utf-8")
    table = text.partition("| What was found | Verdict | Exit code |\n")[2].partition("\n\n")[0]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[1:]]
    return [(found, verdict, int(code)) for found, verdict, code in cells]


def _judged(found: str) -> Report:
    what, _, option = found.partition(", with ")
    return judge(EXAMPLES[what], settings=SETTINGS[option.strip("`")] if option else Settings())


@pytest.mark.parametrize(("found", "verdict", "code"), rows())
def test_each_row(found: str, verdict: str, code: int) -> None:
    """The headline and the exit code are those that the table tells."""
    report = _judged(found)
    assert (verdict_told(report), report.exit_code) == (verdict, code)


def test_every_example_stands_in_the_table() -> None:
    """And none of them twice."""
    told = [found.partition(", with ")[0] for found, _, _ in rows()]
    assert set(told) == set(EXAMPLES)


def test_what_was_not_read_is_not_checked() -> None:
    """It is said of how many layers; nothing is, where a measurement or a proof has judged the model."""
    lost = facts(batch_norm("a"), *(unread(batch_norm(name)) for name in "bc"))
    assert "statistics of 2 of 3 layers" in [entry.what for entry in judge(lost).not_checked]
    measured = replace(lost, comparison=compared(difference("a")).comparison)
    assert judge(measured).verdict.value == "pass"


def test_an_unknown_init_share_is_not_checked() -> None:
    """It is said to be unknown, and what would tell it; not where decay and count are known, or a run showed it."""

    def said(model: Facts) -> list[str]:
        return [entry.how for entry in judge(model).not_checked if entry.what == "init share"]

    bare = facts(batch_norm("a"), run=RunFacts(values=True))
    assert said(bare) == ["--decay D --steps N"]
    assert said(facts(batch_norm("a"))) == ["--decay D"]
    assert said(_healthy()) == []
    assert said(facts(untouched("a"), run=RunFacts(values=True))) == []
    assert said(replace(compared(difference("a")), run=RunFacts(values=True))) == []


def test_statistics_that_no_weights_predict_are_not_checked_against_them() -> None:
    """It is said why; not where one layer's are, where none moved, or where both modes were run."""

    def said(model: Facts) -> list[tuple[str, tuple[str, ...]]]:
        return [(entry.why, entry.codes) for entry in judge(model).not_checked if entry.what == "weights"]

    ((why, codes),) = said(facts(batch_norm("a", origin=Origin.NAME)))
    assert "no file" in why
    assert codes == ("BN119",)
    ((why, _),) = said(facts(wired(batch_norm("a")), graph=graph_facts()))
    assert "predict no" in why
    predicted = Predicted(mean=np.zeros(4), variance=np.ones(4))
    assert said(facts(batch_norm("a", predicted=predicted), batch_norm("b"))) == []
    assert said(facts(untouched("a"))) == []
    assert said(compared(difference("a"))) == []


def test_an_init_share_by_an_assumed_decay_is_not_checked() -> None:
    """Unless the smallest variance leaves no room for a share with another decay, or the file told it."""

    def said(smallest: float, source: DecaySource) -> list[str]:
        layer = batch_norm("a", variance=[smallest, 1.0, 2.0, 3.0], decay=0.9, decay_from=source)
        model = facts(layer, run=RunFacts(values=True, updates=600))
        return [entry.why for entry in judge(model).not_checked if entry.what == "init share"]

    (why,) = said(0.64, DecaySource.PYTORCH_DEFAULT)
    assert "64.0 %" in why
    assert said(0.01, DecaySource.PYTORCH_DEFAULT) == []
    assert said(0.64, DecaySource.GRAPH) == []
