"""BN219 dropout-before-batch-norm."""

from __future__ import annotations

from dataclasses import replace

from one_evidence import only

from bncheck.facts.findings import Severity
from bncheck.rules.wiring import (
    bn219_dropout_before_batch_norm,
)
from bncheck.testing import (
    batch_norm,
    wired,
    with_graph,
)

DROPOUT = bn219_dropout_before_batch_norm.check


def test_dropout_is_a_note_that_names_it() -> None:
    """EEGNet does it and is correct, so it is never more than a note."""
    layer = wired(batch_norm("bn"))
    layer = replace(layer, sites=tuple(replace(s, dropout="dropout/mul") for s in layer.sites))
    found = only(DROPOUT, with_graph(layer, wired(batch_norm("other"))))
    assert (found.severity or DROPOUT.severity) is Severity.INFO
    assert "`dropout/mul`" in found.message
    assert found.layers == ("bn",)
