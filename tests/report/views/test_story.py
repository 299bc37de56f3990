"""How findings are counted and told."""

from __future__ import annotations

from dataclasses import replace

from bncheck.judge.judge import judge
from bncheck.report.views.story import how_many
from bncheck.testing import batch_norm, facts, folded_layer, proved


def test_layers_of_the_model_and_of_its_source() -> None:
    """A file that is held against its source is counted by the source's layers, however many it has itself."""
    proof = proved(folded_layer("a"), folded_layer("b", folded="initial")).fold
    report = judge(replace(facts(*(batch_norm(name) for name in "xyz")), fold=proof))
    (finding,) = [one for one in report.findings if one.code == "BN407"]
    assert how_many(finding, report) == "1 of 2 layers"
    assert how_many(replace(finding, layers=("x",)), report) == "1 of 3 layers"
    assert how_many(replace(finding, layers=("elsewhere",)), report) == "1 place"
    assert not how_many(replace(finding, layers=()), report)
