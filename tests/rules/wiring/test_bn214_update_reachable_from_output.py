"""BN214 update-reachable-from-output."""

from __future__ import annotations

from dataclasses import replace

import pytest
from one_evidence import only

from bncheck.facts.findings import Severity
from bncheck.facts.layers import Mode
from bncheck.rules.wiring import (
    bn214_update_reachable_from_output,
)
from bncheck.testing import (
    batch_norm,
    served,
    serving,
    switch,
    updates,
)

OUTPUT = bn214_update_reachable_from_output.check


@pytest.mark.parametrize(
    ("facts_of_updates", "severity"),
    [
        ({}, Severity.ERROR),
        ({"branch": switch()}, Severity.WARNING),
        ({"decay_when_off": 1.0}, Severity.WARNING),
        ({"decay_when_off": 0.9}, Severity.ERROR),
    ],
)
def test_serving_that_writes_is_weighed_by_its_guard(facts_of_updates: dict[str, object], severity: Severity) -> None:
    """Unguarded updates change the model at each request; guarded ones only stop converters."""
    layer = served(batch_norm("bn"), Mode.SWITCHED)
    layer = replace(layer, updates=updates("bn", outputs=("serving_default/logits",), **facts_of_updates))
    assert only(OUTPUT, serving(layer)).severity is severity


def test_training_signatures_write_on_purpose() -> None:
    """On-device training exports a signature `train`; only other outputs count, and only they are named."""
    layer = replace(served(batch_norm("bn")), updates=updates("bn", outputs=("train/loss", "infer/logits")))
    found = only(OUTPUT, serving(layer))
    assert "`infer/logits`" in found.message
    assert "train/loss" not in found.message
