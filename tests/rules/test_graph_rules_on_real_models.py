"""The rules on coverage, wiring, modes and configuration against models that strangers trained."""

from __future__ import annotations

from pathlib import Path

import pytest

from bncheck.facts.findings import Evidence, Severity
from bncheck.recognise import recognise
from bncheck.rules import RULES
from bncheck.settings.options import Options
from bncheck.sources import open_model

ROOT = Path(__file__).parents[2]
REAL = ROOT.parent / "shared" / "real"
MINE = tuple(rule for rule in RULES if rule.code.startswith(("BN0", "BN2")))
pytestmark = pytest.mark.skipif(not REAL.is_dir(), reason="the real models are not beside this checkout")


def found(path: Path) -> list[tuple[str, Severity, Evidence]]:
    """(code, severity, evidence) of all that the rules say of the model there."""
    model = recognise(open_model(path), Options())
    return [(rule.code, e.severity or rule.severity, e) for rule in MINE for e in rule.check(model)]


@pytest.mark.parametrize(
    "name",
    [
        "chiron_dna/final.ckpt-158301",
        "chiron_dna/final.ckpt-158301.meta",
        "unetcoreograph_meta/model.ckpt",
        "unetcoreograph_meta/model.ckpt.meta",
        "handtracking_meta/model.ckpt",
        "handtracking_meta/model.ckpt.meta",
        "basic_pitch/nmp",
        "basic_pitch/nmp.tflite",
        "mlperf_tiny_kws/kws_ref_model",
        "mlperf_tiny_vww/vww_96.h5",
        "fer_emotion/emotion_model.hdf5",
        "eegnet/EEGNet-8-2-weights.h5",
    ],
)
def test_healthy_models_get_notes_at_most(name: str) -> None:
    """Healthy, clean and correct models: nothing above a note, in the graph alone or with its checkpoint."""
    assert [code for code, severity, _ in found(REAL / name) if severity is not Severity.INFO] == []


@pytest.mark.parametrize(("name", "layers"), [("2stems", 24), ("4stems", 48), ("5stems", 60)])
def test_spleeter_leaves_its_switch_open(name: str, layers: int) -> None:
    """The learning phase is a placeholder of default False in a predict graph without a train op: BN206, not BN201."""
    codes = {code: (severity, e) for code, severity, e in found(REAL / "spleeter_meta" / name / "model")}
    severity, evidence = codes["BN206"]
    assert severity is Severity.ERROR
    assert len(evidence.layers) == layers
    assert "`keras_learning_phase` switches" in evidence.message
    assert f"{layers} of {layers} layers never moved" in evidence.message
    assert not {"BN201", "BN202", "BN203", "BN204", "BN005"} & set(codes)
