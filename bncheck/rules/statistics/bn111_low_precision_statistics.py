"""BN111 low-precision-statistics."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from bncheck.facts.findings import Evidence, Measurement, Severity
from bncheck.facts.layers import Facts, Layer, PerChannel, RunFacts, Vector
from bncheck.facts.wording import listing, many
from bncheck.numerics.channels import finite, names, values_of
from bncheck.rules.rule import Needs, rule
from bncheck.rules.shared.fixes import of_pytorch
from bncheck.testing import batch_norm, facts

STEP = {"float16": 2.0**-11, "bfloat16": 2.0**-8}
"""Half the spacing of numbers near 1: a relative change below it is rounded away."""
LARGEST = {"float16": 65504.0, "bfloat16": float(np.finfo(np.float32).max)}
"""Largest finite number of the type."""
ENOUGH = 16
"""Distinct values that all lie on a coarse grid; by chance each does with 2**-13."""


@rule("BN111", "low-precision-statistics", severity=Severity.WARNING, needs=Needs.NOTHING, sees="C08")
def check(model: Facts) -> Iterator[Evidence]:
    """Moving statistics are kept in float16 or bfloat16, or were rounded to it.

    What it detects
    ---------------
    Statistics whose variable is half precision, and float32 ones all of whose values are half-precision numbers.

    Why it matters
    --------------
    An update moves the average by (1 - decay) of a difference. bfloat16 rounds changes below 0.4 % away, float16 below
    0.05 %: the average stops long before it converges. float16 overflows at 65,504.

    How it decides
    --------------
    The type of the variables: a warning, and an error where a value is infinite or at the type's largest. A note in
    files of PyTorch whose gamma and beta are half precision too: its mixed precision keeps all of batch norm in
    float32, so that such a model was halved as a whole, as one is for serving. float32
    values that all lie on the grid of a half-precision type (at least 16 distinct ones): a note, since an export in
    half precision does that on purpose. Statistics that were quantized to 8 bits and back are coarse, but on no such
    grid.

    Not detected
    ------------
    Statistics accumulated in half precision and stored in float32 at the end of each step.

    Fix
    ---
    Keep batch norm in float32:

        # not set_floatx("float16")
        tf.keras.mixed_precision.set_global_policy("mixed_float16")
        # TF-slim, tf.layers: cast before, and back
        slim.batch_norm(tf.cast(net, tf.float32))

    In PyTorch: train under autocast instead of halving the model, and halve only what is served:

        with torch.autocast("cuda", dtype=torch.float16):
            loss = loss_fn(model(images), labels)

    In Flax: compute in half precision, but keep the variables in float32:

        nn.BatchNorm(use_running_average=not train, dtype=jnp.bfloat16, param_dtype=jnp.float32)

    References
    ----------
    keras#9582, keras#11605, keras-core#412, tensorflow-directml-plugin#321. Failure mode C08.
    """
    half = list(filter(_is_half, model.layers))
    if half:
        full = sum(_at_limit(vector) for layer in half for vector in layer.statistics)
        kind = next(vector.dtype for vector in half[0].statistics if vector.dtype in STEP)
        stuck = sum(layer.decay is not None and 1 - layer.decay < STEP[kind] for layer in half)
        notes = f" {many(full, 'value').capitalize()} at the largest number of the type or infinite." if full else ""
        notes += f" In {stuck} of them rounding swallows a single update." if stuck else ""
        yield Evidence(
            layers=names(half),
            message=f"The moving statistics of {many(len(half), 'layer')} are {kind}: {listing(names(half))}.{notes}",
            severity=Severity.ERROR if full else Severity.INFO if _halved(model, half) else Severity.WARNING,
            location=half[0].variance.name,
            measurements=(
                Measurement(name="layers in half precision", value=len(half), limit=0, unit="layers"),
                Measurement(name="values at the type's largest", value=full, limit=0, unit="channels"),
                Measurement(name="half a rounding step, relative", value=STEP[kind]),
            ),
        )
    wide = [layer for layer in model.layers if not _is_half(layer)]
    for kind, on_grid in (("bfloat16", _on_bfloat16), ("float16", _on_float16)):
        # one layer off the grid ends it, which is looked at before its values are counted
        if all(_on(on_grid, layer) or not _rich(layer) for layer in wide) and (rounded := list(filter(_rich, wide))):
            yield Evidence(
                layers=names(rounded),
                message=(
                    f"The moving statistics of {many(len(rounded), 'layer')} are float32, but every value is a {kind} "
                    "number: they were stored or trained in half precision."
                ),
                severity=Severity.INFO,
                location=rounded[0].variance.name,
                measurements=(Measurement(name=f"layers on the {kind} grid", value=len(rounded), unit="layers"),),
            )
            return


def _halved(model: Facts, half: list[Layer]) -> bool:
    """Whether PyTorch's model was halved as a whole, not trained with statistics in half precision."""
    vectors = [vector for layer in half for vector in (layer.gamma, layer.beta) if vector.dtype]
    return of_pytorch(model) and len(half) == len(model.layers) and all(vector.dtype in STEP for vector in vectors)


def _is_half(layer: Layer) -> bool:
    return any(vector.dtype in STEP for vector in layer.statistics)


def _on(on_grid: Callable[[PerChannel], bool], layer: Layer) -> bool:
    return all(on_grid(_values(vector)) for vector in layer.statistics)


def _at_limit(vector: Vector) -> int:
    """Values that are infinite or the largest of their half-precision type."""
    values = values_of(vector)
    return 0 if values is None or vector.dtype not in STEP else int((np.abs(values) >= LARGEST[vector.dtype]).sum())


def _values(vector: Vector) -> PerChannel:
    values = values_of(vector)
    return np.zeros(0) if values is None else values


def _rich(layer: Layer) -> bool:
    return len(set(finite(_values(layer.variance)).tolist())) >= ENOUGH


def _on_float16(values: PerChannel) -> bool:
    with np.errstate(over="ignore"):
        return bool(np.array_equal(values.astype(np.float16).astype(np.float64), values))


def _on_bfloat16(values: PerChannel) -> bool:
    with np.errstate(over="ignore"):
        bits = values.astype(np.float32).view(np.uint32)
    return not bool(np.any(bits & 0xFFFF))


_FINE = np.linspace(0.3, 2.9, 20) ** 1.7


def clean() -> tuple[Facts, ...]:
    """float32 values; too few values to tell; statistics that were 8-bit numbers (no half-precision grid)."""
    eight_bits = 0.0138 + 0.02713 * np.arange(20)
    return (
        facts(batch_norm("bn", mean=_FINE, variance=_FINE, channels=20)),
        facts(batch_norm("bn", mean=0.5, variance=[1.0, 2.0, 4.0, 0.5])),
        facts(batch_norm("bn", mean=eight_bits - 0.1, variance=eight_bits, channels=20)),
    )


def broken() -> tuple[Facts, ...]:
    """float16 variables; one at the type's largest; float32 that was rounded to float16 (a note)."""
    long = RunFacts(values=True, global_step=100_000, updates=100_000)
    halves = _FINE.astype(np.float16).astype(np.float64)
    return (
        facts(_typed("bfloat16", [0.5, 2.0, 1.5, 0.75]), run=long),
        facts(_typed("float16", [0.5, 65504.0, 1.5, 0.75]), run=long),
        facts(batch_norm("bn", mean=halves, variance=halves, channels=20)),
    )


def _typed(dtype: str, variance: list[float]) -> Layer:
    layer = batch_norm("bn", variance=variance, decay=0.999)
    return replace(layer, mean=replace(layer.mean, dtype=dtype), variance=replace(layer.variance, dtype=dtype))
