"""The rules on statistics against models that strangers trained, and against the genuine MobileNetV2 of the story."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

from bncheck.facts.findings import Evidence, Severity
from bncheck.facts.layers import Facts, Linear
from bncheck.recognise import recognise
from bncheck.rules import RULES
from bncheck.settings.options import Options
from bncheck.sources import open_model
from bncheck.testing import batch_norm, facts

ROOT = Path(__file__).parents[2]
REAL = ROOT.parent / "shared" / "real"
TRAINED = ROOT / "fixtures" / "mobilenet_v2"
real = pytest.mark.skipif(not REAL.is_dir(), reason="the real models are not beside this checkout")
MINE = tuple(rule for rule in RULES if rule.code.startswith("BN1") or rule.code in ("BN403", "BN404"))


@lru_cache(maxsize=4)
def model(path: Path) -> Facts:
    """What is recognised there."""
    return recognise(open_model(path), Options())


def found(path: Path) -> dict[str, Evidence]:
    """Code -> the first piece of evidence of the rules on statistics and folded ranges."""
    return {rule.code: evidence for rule in reversed(MINE) for evidence in reversed(list(rule.check(model(path))))}


def numbers(evidence: Evidence) -> dict[str, object]:
    """Measurement name -> value."""
    return {item.name: item.value for item in evidence.measurements}


def errors(path: Path) -> list[str]:
    """Codes of errors."""
    return [
        rule.code
        for rule in MINE
        for evidence in rule.check(model(path))
        if (evidence.severity or rule.severity) is Severity.ERROR
    ]


@real
@pytest.mark.parametrize(
    "name",
    [
        "basic_pitch/nmp",
        "basic_pitch/nmp.tflite",
        "mlperf_tiny_kws/kws_ref_model",
        "mlperf_tiny_kws/kws_ref_model.tflite",
        "mlperf_tiny_kws/kws_ref_model_float32.tflite",
        "mlperf_tiny_vww/vww_96_float.tflite",
        "mlperf_tiny_vww/vww_96_int8.tflite",
        "eegnet/EEGNet-8-2-weights.h5",
        "unetcoreograph_meta/model.ckpt",
        "handtracking_meta/model.ckpt",
    ],
)
def test_clean_models_are_clean(name: str) -> None:
    """Nothing is said of the statistics of models that are fine: EEGNet's small variances, functions of Keras 2."""
    assert found(REAL / name) == {}


@real
@pytest.mark.parametrize(
    ("name", "dead", "channels", "zero"),
    [
        ("chiron_dna/final.ckpt-158301", 20, 2560, 0),
        ("fer_emotion/emotion_model.hdf5", 2, 736, 0),
        ("mlperf_tiny_vww/vww_96.h5", 1558, 2736, 23),
    ],
)
def test_dead_channels(name: str, dead: int, channels: int, zero: int) -> None:
    """The published counts, by one criterion, and never more than a warning."""
    values = numbers(found(REAL / name)["BN107"])
    assert (values["dead channels"], values["channels"], values["variances of exactly 0"]) == (dead, channels, zero)
    assert errors(REAL / name) == []


@real
def test_decay_of_mini_xception() -> None:
    """Two channels at 1.17e-36 tell the decay that the configuration names: 0.99."""
    assert numbers(found(REAL / "fer_emotion/emotion_model.hdf5")["BN107"])["decay told by the floor"] == 0.99


@real
def test_dead_channels_of_a_dequantized_mobilenet() -> None:
    """NSFWJS, weights that went through 8 bits: 505 of 17,056; its depthwise kernels are what BN404 is about."""
    with np.load(REAL / "nsfwjs_mobilenetv2.npz") as archive:
        arrays = dict(archive)
    layers = []
    for key in sorted(arrays):
        if not key.endswith("/moving_variance"):
            continue
        name = key.rpartition("/")[0]
        kernel = arrays.get(f"{name.removesuffix('_BN')}/depthwise_kernel")
        largest = None if kernel is None else np.abs(kernel).max((0, 1)).reshape(-1).astype(np.float64)
        layers.append(
            batch_norm(
                name,
                mean=arrays[f"{name}/moving_mean"],
                variance=arrays[key],
                gamma=arrays[f"{name}/gamma"],
                beta=arrays[f"{name}/beta"],
                channels=arrays[key].size,
                linear=Linear(name=name, op="DepthwiseConv2dNative", kernel="w", channel_max=largest),
            )
        )
    said = {rule.code: evidence for rule in MINE for evidence in rule.check(facts(*layers))}
    assert sorted(said) == ["BN107", "BN403", "BN404"]
    assert numbers(said["BN107"])["dead channels"] == 505
    assert numbers(said["BN107"])["channels"] == 17056
    assert "block_16_depthwise_BN" in said["BN404"].layers
    assert said["BN404"].severity is Severity.WARNING


@real
@pytest.mark.parametrize(("stems", "layers", "betas"), [(2, 24, 22), (4, 48, 44), (5, 60, 55)])
def test_spleeter_never_moved(stems: int, layers: int, betas: int) -> None:
    """Without its data, at step 0: the checksums show that nothing moved but the betas, in all layers."""
    seen = found(REAL / f"spleeter_meta/{stems}stems/model")
    assert list(seen) == ["BN101"]
    assert seen["BN101"].severity is Severity.ERROR
    assert f"in {layers} of {layers} layers, while {betas} of {layers} betas have moved" in seen["BN101"].message


@pytest.mark.parametrize(
    ("variant", "code", "layers"),
    [
        ("forgotten", "BN101", 52),
        ("too_early", "BN102", 25),
        ("decay_0.9997", "BN103", 52),
        ("decay_0.99", "BN103", 52),
        ("wired", None, 0),
    ],
)
def test_mobilenet_v2_of_the_story(variant: str, code: str | None, layers: int) -> None:
    """Five genuine MobileNetV2 of 300 steps: each broken one is an error of its own rule, the right one silent."""
    seen = found(TRAINED / variant / "model.ckpt-300")
    assert list(seen) == ([code] if code else [])
    assert errors(TRAINED / variant / "model.ckpt-300") == ([code] if code else [])
    if code:
        assert len(seen[code].layers) == layers


@pytest.mark.parametrize(("variant", "share"), [("decay_0.9997", "91.4 %"), ("decay_0.99", "4.9 %")])
def test_shares_of_the_story(variant: str, share: str) -> None:
    """The init share is printed as the story has it, and its number kept."""
    evidence = found(TRAINED / variant / "model.ckpt-300")["BN103"]
    assert evidence.message.startswith(share)
    assert f"{100 * float(str(numbers(evidence)['init share'])):.1f} %" == share


@pytest.mark.parametrize(
    ("share", "severity"),
    [(1e-4, None), (3e-4, None), (1e-3, Severity.WARNING), (2e-3, Severity.ERROR), (5e-3, Severity.ERROR)],
)
def test_limits_lie_where_accuracy_falls(share: float, severity: Severity | None) -> None:
    """The right checkpoint, its statistics diluted by a share of initial value.

    Measured accuracy on digits, 94.4 % undiluted: 93.9 % at 1e-4, 92.8 % at 3e-4, 88.1 % at 1e-3, 78.3 % at 2e-3,
    31.9 % at 5e-3.
    """
    updates = 1000
    layers = [
        batch_norm(
            layer.name,
            mean=(1 - share) * layer.mean.values,
            variance=share + (1 - share) * layer.variance.values,
            channels=layer.variance.values.size,
            decay=share ** (1 / updates),
        )
        for layer in model(TRAINED / "wired" / "model.ckpt-300").layers
        if layer.mean.values is not None and layer.variance.values is not None
    ]
    assert len(layers) == 52
    said = [e.severity for rule in MINE if rule.code == "BN103" for e in rule.check(facts(*layers))]
    assert said == ([severity] if severity else [])
