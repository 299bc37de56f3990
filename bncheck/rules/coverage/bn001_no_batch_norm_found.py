"""BN001 no-batch-norm-found."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import replace

from bncheck.facts.findings import Evidence, Meaning, Measurement, Severity
from bncheck.facts.formats import FileKind
from bncheck.facts.gaps import Gap, GapKind
from bncheck.facts.layers import Facts
from bncheck.facts.wording import many, quoted
from bncheck.rules.rule import Needs, rule
from bncheck.testing import batch_norm, facts, folded, graph_facts, leftover, lite


@rule(
    "BN001",
    "no-batch-norm-found",
    severity=Severity.WARNING,
    needs=Needs.NOTHING,
    meaning=Meaning.NO_BATCH_NORM,
    sees="F08",
)
def check(model: Facts) -> Iterator[Evidence]:
    """No batch norm was found, so nothing was judged.

    What it detects
    ---------------
    A target in which not one batch norm layer was recognised: by the structure of its graph, by its configuration, by
    the names of its variables, or as a folded operator of a TFLite file. In an ONNX file folded batch norm leaves no
    trace; `--reference` with the model that it was exported from proves it.

    Why it matters
    --------------
    Finding nothing is not the same as finding nothing wrong. A check that passes what it cannot see would also pass a
    renamed, exported or wrong file, so this ends with exit code 3, or 0 with `--allow-empty`.

    How it decides
    --------------
    No layer, and in a TFLite file no MUL/ADD left over, nor a convolution or dense operator that could have taken one
    in with a name of batch norm anywhere, which converters keep of what they fuse. Places that looked like batch norm
    and were not understood are named here (see BN002).

    Not detected
    ------------
    Whether the model was meant to have batch norm: layer norm, group norm, instance norm and Keras `Normalization`
    also store or compute statistics and are none.

    Fix
    ---
    If the model has batch norm, give bncheck more to look at:

        # hand-rolled variable names
        bncheck inspect checkpoint model.ckpt-300 --graph model.ckpt-300.meta
        # Keras: the folder, not a shard
        bncheck inspect model saved_model/

    TF-slim, tf.layers: save with a Saver of all global variables, so that the statistics are in the file (BN209).
    If it has none, leave it out of the check, or use `--allow-empty`.

    References
    ----------
    Failure mode F08 (Keras 3 `export()` decomposes batch norm; name-based checks pass vacuously). P12.
    """
    compared = model.fold is not None or model.quantized is not None
    if model.layers or (model.lite is not None and model.lite.shows_batch_norm(compared=compared)):
        return
    if model.fold is not None and model.fold.layers:
        return
    if model.graph is not None and any(leftover.named for leftover in model.graph.leftovers):
        return
    unclear = [gap for gap in model.gaps if gap.kind is GapKind.LAYER]
    looked = [
        many(model.graph.nodes, "graph node") if model.graph is not None else "",
        many(len(model.run.keys), "variable") if model.run.keys is not None else "",
        many(model.lite.operators, "operator") if model.lite is not None else "",
    ]
    where = " and ".join(part for part in looked if part)
    seen = (
        f" {many(len(unclear), 'place')} looked like it but could not be recognised: "
        f"{quoted(gap.where for gap in unclear)}."
        if unclear
        else ""
    )
    nameless = model.format.kind is FileKind.ONNX or (model.lite is not None and bool(model.lite.folded))
    if nameless:
        seen = " Some may be folded into them without a trace; `--reference` with the source model would prove it."
    yield Evidence(
        layers=(),
        message=f"No batch norm was found{f' among {where}' if where else ''}: nothing was judged.{seen}",
        fix=_prove(model) if nameless else _SAVE.get(model.format.kind, ""),
        measurements=(Measurement(name="layers", value=0, limit=1, unit="layers"),),
    )


def _prove(model: Facts) -> str:
    source = "model.pt" if model.format.kind is FileKind.ONNX else "saved_model/"
    return f"""\
If the model has batch norm, name the model it was converted from:
    bncheck inspect model {shlex.quote(model.path)} --reference {source}
If it has none, leave it out of the check, or use `--allow-empty`."""


_OF_PYTORCH = """\
If the model has batch norm, save its buffers with its parameters:
    torch.save(model.state_dict(), "model.pt")
If it has none, leave it out of the check, or use `--allow-empty`."""
_SAVE = {
    FileKind.PYTORCH: _OF_PYTORCH,
    FileKind.SAFETENSORS: _OF_PYTORCH,
    FileKind.FLAX: """\
If the model has batch norm, save its `batch_stats` with its `params`:
    flax.serialization.to_bytes({"params": state.params, "batch_stats": state.batch_stats})
If it has none, leave it out of the check, or use `--allow-empty`.""",
}
"""Kind of file -> what to do; for TensorFlow's the docstring says it."""


def clean() -> tuple[Facts, ...]:
    """A layer; a TFLite file with folded operators; one with a batch norm left over."""
    return (facts(batch_norm("bn")), lite(folded("conv")), lite(leftovers=(leftover(),)))


def broken() -> tuple[Facts, ...]:
    """A graph and a checkpoint without batch norm, TFLite without weights, or names; a place not understood."""
    nameless = lite(folded("conv"))
    assert nameless.lite is not None
    nameless = replace(nameless, lite=replace(nameless.lite, named=False))
    unclear = Gap(kind=GapKind.LAYER, where="norm/mul_1", why="normalises over axes that the graph computes")
    return (facts(graph=graph_facts()), facts(), lite(), nameless, facts(gaps=(unclear,)))
