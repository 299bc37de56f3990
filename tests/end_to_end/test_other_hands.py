"""What people report, in other hands: each kind of fault and its healthy twin, written in at least three ways."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.tensorflow, pytest.mark.filterwarnings("ignore")]


def test_other_hands(tmp_path: Path) -> None:
    """In every variant the root causes are found, and nothing else is said."""
    import other_hands

    wrong = {}
    count = 0
    for count, variant in enumerate(other_hands.variants(), 1):
        folder = tmp_path / str(count)
        folder.mkdir()
        found, report = other_hands.causes(variant, folder)
        if found != set(variant.codes.split()):
            wrong[variant.name] = [f"{f.code} {f.severity.value}: {f.message}" for f in report.findings]
    assert not wrong
    assert count >= 75


def test_the_printed_copy_of_statistics_mends_a_target_network(tmp_path: Path) -> None:
    """Pasted behind the step that copies the weights, the code of BN203 leaves nothing to find."""
    import other_hands
    from training_scripts import code_of

    variants = (v for v in other_hands.variants() if "target network" in v.name and v.codes)
    variant = next(variants)
    _, report = other_hands.causes(variant, tmp_path)
    (found,) = [f for f in report.findings if f.code == "BN203"]
    assert "copied from `online/bn`" in found.message
    code = code_of(found.fix)

    def with_fix() -> other_hands.Script:
        script = variant.build()
        copies, run = code.rsplit("session.run", 1)
        assert run.startswith("(copy_statistics)")
        names: dict[str, Any] = {"tf": other_hands.v1}
        with other_hands.tf.control_dependencies([script.train]):
            exec(copies, names)  # noqa: S102 - what bncheck printed
        script.train = names["copy_statistics"]
        return script

    mended, _ = other_hands.causes(replace(variant, build=with_fix), tmp_path)
    assert mended == set()
