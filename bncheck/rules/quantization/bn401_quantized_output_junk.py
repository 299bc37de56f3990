"""BN401 quantized-output-junk."""

from __future__ import annotations

from collections.abc import Iterator

from bncheck.facts.findings import Confidence, Evidence, Measurement, Severity
from bncheck.facts.layers import Facts
from bncheck.facts.measurements import GIVEN, QuantizedComparison
from bncheck.facts.wording import percent
from bncheck.rules.rule import Needs, rule
from bncheck.rules.shared.quantized import judged_quantized, losing
from bncheck.testing.quantized import attributed, operator_loss, quantized, quantized_classes, quantized_features

COLLAPSED = 1.0
"""NMSE (0 dB) from which an output of zeros would be as near."""


@rule(
    "BN401",
    "quantized-output-junk",
    severity=Severity.ERROR,
    needs=Needs.QUANTIZED,
    explained_by=("BN407", "BN405", "BN402", "BN403", "BN404", "BN406"),
    sees="G02",
)
def check(model: Facts) -> Iterator[Evidence]:
    """The quantized model does worse than in float with the same statistics.

    What it detects
    ---------------
    Outputs that quantization itself changes: accuracy falls, classes change, features are off, the statistics being
    the same on both sides.

    Why it matters
    --------------
    The quantized file is what runs on the device; a correct float model does not help there.

    How it decides
    --------------
    By the best measure available, over all samples. With labels that the float model meets: accuracy more than 3.5
    points lower. Without: more than 15 % of the samples change their top class, while the output's error is above 0.05
    of its energy (13 dB; below, the classes were a toss-up). Outputs that are no classes: an error above 0.1 of the
    signal's energy (10 dB) is a warning, above 0.3 (5 dB) an error. A loss must also exceed two standard errors of so
    many samples. Healthy int8: 99 % of the digits, 97 % of visual wake words keep their class. On synthetic data only a
    collapse counts, as a warning of medium confidence: an error of the signal's whole energy (0 dB), in a model that
    was calibrated on the same data.

    Not detected
    ------------
    What quantization adds to a model that was junk before (BN408), unless its re-estimated statistics were quantized
    too. On synthetic data anything but a collapse.

    Fix
    ---
    Fix the layers that BN402 names; without one, calibrate on more data like those served:

        bncheck compare float-vs-quantized PATH --data images/ --calibration-batches 32

    One scale per channel is the converter's default; int8 weights with 16-bit activations lose least:

        {QUANTIZE_16X8}

    References
    ----------
    arXiv 1806.08342, arXiv 1906.04721, tensorflow#28000, tensorflow#23253. Failure modes G02, G07.
    """
    found, measured = judged_quantized(model), model.quantized
    if measured is not None and measured.data.synthetic and not measured.was_given:
        yield from _collapse(measured)
    if found is None or measured is None or not found.lost.junk:
        return
    culprits = losing(measured)
    blamed = "" if culprits else " No operator loses much by itself: small errors add up."
    scheme = "The given file" if measured.was_given else measured.scheme
    yield Evidence(
        layers=(),
        message=f"{scheme} breaks the model: {found.lost.told}.{blamed}",
        severity=None if found.ruin else Severity.WARNING,
        confidence=Confidence.HIGH if found.certain else Confidence.MEDIUM,
        location=measured.outputs[0].name if len(measured.outputs) == 1 else "",
        measurements=(Measurement(name=found.lost.name, value=found.lost.value, limit=found.lost.limit),),
    )


def _collapse(measured: QuantizedComparison) -> Iterator[Evidence]:
    """An output further from the float one than zeros are, on the very data it was calibrated on."""
    for output in measured.outputs[:1]:
        if output.nmse < COLLAPSED:
            continue
        kept = f", {percent(output.agreement)} agreement" if output.agreement is not None else ""
        yield Evidence(
            layers=(),
            message=f"{measured.scheme} breaks the model: {output.name} is off by {percent(output.nmse)}{kept}. "
            "The data are noise, but it was calibrated on the same noise, so no other data would fit its ranges "
            "better.",
            severity=Severity.WARNING,
            confidence=Confidence.MEDIUM,
            location=output.name,
            measurements=(Measurement(name=f"NMSE of {output.name}", value=output.nmse, limit=COLLAPSED),),
        )


def clean() -> tuple[Facts, ...]:
    """Two points lost; a toss-up of classes; features at 13 dB; noise made up; junk before that quantizes well."""
    layer = operator_loss()
    return (
        quantized(layer, accuracy=(0.966, 0.946), train=(0.949, 0.95)),
        quantized(layer, accuracy=(0.966, 0.961), output=quantized_classes(0.8, 0.2)),
        quantized(layer),
        quantized(layer, output=quantized_classes(0.8, 0.01)),
        quantized(layer, output=quantized_features(0.05)),
        quantized(layer, output=quantized_classes(0.1), synthetic=True),
        quantized(layer, output=quantized_classes(0.1, 1.5), synthetic=True, scheme=GIVEN),
        quantized(
            layer,
            output=quantized_classes(0.5),
            accuracy=(0.103, 0.101),
            train=(0.909, 0.1),
            attribution=attributed(0.806, 0.002, repaired=(0.904, 0.90)),
        ),
    )


def broken() -> tuple[Facts, ...]:
    """Collapse, with labels, without, without a train mode; features."""
    sick = operator_loss(local=0.4, rmse=2.0)
    return (
        quantized(sick, output=quantized_classes(0.12), accuracy=(0.966, 0.10), train=(0.949, 0.95)),
        quantized(sick, output=quantized_classes(0.5)),
        quantized(operator_loss(), output=quantized_classes(0.5), scheme=GIVEN),
        quantized(sick, output=quantized_features(0.5)),
        quantized(operator_loss(), output=quantized_features(float("nan"))),
        quantized(sick, output=quantized_classes(0.12, 1.48), synthetic=True),
    )
