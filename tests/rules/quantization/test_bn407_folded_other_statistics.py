"""BN407: what it makes of a fold proof, how severe, and what becomes of the verdict."""

from __future__ import annotations

import io
import json
from typing import Any

import jsonschema
import pytest

from bncheck.facts.findings import Evidence, Severity, Verdict
from bncheck.facts.measurements import FoldedLayer
from bncheck.judge.judge import judge
from bncheck.report import FORMATS, reporter
from bncheck.report.text import text
from bncheck.report.wire import json_v1
from bncheck.rules.quantization.bn407_folded_other_statistics import broken, check, clean
from bncheck.testing import batch_norm, folded_layer, proved

GOOD = folded_layer("net/a/bn")
HOSTILE = "net/\x1b[31m`|<b>\n/bn"


def run(*layers: FoldedLayer) -> list[Evidence]:
    """What the rule yields on a proof of these layers."""
    return list(check.check(proved(*layers)))


def test_examples() -> None:
    """The rule is silent on its clean examples and speaks once on each broken one."""
    assert [list(check.check(model)) for model in clean()] == [[]] * len(clean())
    assert [len(list(check.check(model))) for model in broken()] == [1] * len(broken())


@pytest.mark.parametrize(
    ("layer", "severity", "told"),
    [
        ({"folded": "initial"}, None, "1 of 2 layers holds the initial statistics"),
        ({"folded": "reference"}, None, "holds the statistics of the reference, not the stored ones"),
        ({"folded": "shadow"}, Severity.WARNING, "holds averages of the statistics, not the stored ones: b."),
        ({"folded": "shadow", "weights": "shadow"}, Severity.INFO, "together with averaged weights"),
        ({"folded": "other", "why": "the statistics of c fit"}, None, "b (the statistics of c fit)"),
        ({"folded": "other", "weights": "other"}, None, "The weights of 1 of 2 layers are not those of model.h5"),
        ({"folded": "reference", "weights": "reference"}, None, "The weights of 1 of 2 layers are the reference's"),
        ({"epsilon": 1e-5}, Severity.WARNING, "was folded with another epsilon, 1e-05 instead of 0.001"),
        ({"never_moved": True}, Severity.WARNING, "the model was broken before"),
        (
            {"folded": "unmatched", "why": "its kernel is stored sparse"},
            Severity.WARNING,
            "b: its kernel is stored sparse.",
        ),
    ],
)
def test_kinds(layer: dict[str, Any], severity: Severity | None, told: str) -> None:
    """Each kind of finding names the layer and says what was folded; None is the rule's own severity, an error."""
    (found,) = run(GOOD, folded_layer("b", **layer))
    assert (found.layers, found.severity) == (("b",), severity)
    assert told in found.message


def test_several_kinds_are_several_findings() -> None:
    """Layers with different causes are told apart, each cause with all its layers."""
    layers = [folded_layer(name, folded=kind) for name, kind in zip("abcd", ("initial", "other") * 2, strict=True)]
    assert [found.layers for found in run(*layers)] == [("a", "c"), ("b", "d")]


@pytest.mark.parametrize(
    ("layers", "verdict", "exit_code", "headline"),
    [
        ((GOOD,), Verdict.PASS, 0, ""),
        ((GOOD, folded_layer("b", folded="shadow", weights="shadow")), Verdict.PASS, 0, ""),
        ((GOOD, folded_layer("b", folded="initial")), Verdict.FAIL, 1, ""),
        ((GOOD, folded_layer("b", folded="unmatched")), Verdict.INCONCLUSIVE, 3, "1 of 2 layers was not found"),
        ((folded_layer("b", folded="unmatched", why="no values"),), Verdict.INCONCLUSIVE, 3, "model.tflite: no values"),
        ((folded_layer("a", folded="other"), folded_layer("b", folded="unmatched")), Verdict.FAIL, 1, ""),
        ((), Verdict.INCONCLUSIVE, 3, "no batch norm was found in model.h5"),
    ],
)
def test_verdicts(layers: tuple[FoldedLayer, ...], verdict: Verdict, exit_code: int, headline: str) -> None:
    """Only a proof of all layers passes; what was not found makes it inconclusive, what is wrong a failure."""
    report = judge(proved(*layers))
    assert (report.verdict, report.exit_code) == (verdict, exit_code)
    assert headline in report.headline
    assert "what was folded" in report.checked


def test_the_models_own_fault_explains_a_faithful_fold() -> None:
    """Held against a model whose statistics never moved, BN101 is the cause and BN407 what follows."""
    untouched = batch_norm("net/a/bn", mean=0.0, variance=1.0)
    report = judge(proved(folded_layer("net/a/bn", never_moved=True), layers=(untouched,)))
    causes = {finding.code: finding.caused_by for finding in report.findings}
    assert causes["BN407"] in ("BN101", "BN102")


def test_text() -> None:
    """The report counts what the layers hold, and lists those that are not confirmed; with --verbose all, and why."""
    layers = [folded_layer(f"net/{n}/bn", why="times 0.5: taken in" if n == 0 else "") for n in range(10)]
    wrong = folded_layer("net/10/bn", folded="other", why="the statistics of net/3/bn fit")
    report = judge(proved(*layers, wrong))
    short, long = io.StringIO(), io.StringIO()
    text.write(report, short)
    text.write(report, long, verbose=True)
    assert "10 of 11 hold the stored statistics, 1 of 11 hold something else" in short.getvalue()
    assert "net/10/bn" in short.getvalue()
    assert "net/4/bn" not in short.getvalue()
    assert "net/4/bn" in long.getvalue()
    assert "times 0.5: taken in" in long.getvalue()


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_takes_any_proof(name: str) -> None:
    """Hostile names, numbers that are none, nothing at all."""
    odd = folded_layer(HOSTILE, folded="unmatched", error=float("nan"), tolerance=float("nan"), why=HOSTILE)
    for layers in ((GOOD, odd, folded_layer("c", folded="other", error=float("inf"), weights="other")), ()):
        stream = io.StringIO()
        reporter(name).write(judge(proved(*layers)), stream)
        assert "\x1b[31m" not in stream.getvalue()


def test_json() -> None:
    """The proof as JSON, held against the schema, with the numbers as numbers."""
    found = json.loads(judge(proved(GOOD, folded_layer("b", folded="unmatched", error=float("nan")))).to_json())
    jsonschema.Draft202012Validator(json_v1.schema()).validate(found)
    first, second = found["fold"]["layers"]
    assert (first["name"], first["folded"], first["error"], first["epsilon"]) == ("net/a/bn", "stored", 1e-7, 1e-3)
    assert (second["folded"], second["error"], second["scale_ratio"]) == ("unmatched", "NaN", None)
