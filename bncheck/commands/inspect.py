"""The pipeline: a path becomes facts, facts become findings, findings become a verdict. Pure; prints nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bncheck.commands.target import Target, read_target, timed
from bncheck.facts.errors import NoModel, UsageError
from bncheck.facts.findings import Report
from bncheck.settings.keywords import takes
from bncheck.settings.options import CommandName, Options
from bncheck.sources import is_model_folder, run_dir
from bncheck.sources.raw import RawModel
from bncheck.sources.remote import located

if TYPE_CHECKING:
    from bncheck.facts.measurements import FoldProof


@takes(Options, CommandName.CHECKPOINT)
def inspect_checkpoint(path: str | Path, options: Options) -> Report:
    """Judges a checkpoint, together with the graph of the same prefix or the one given.

    `decay` (0 to 1, TensorFlow's) and `steps` (updates of the statistics) supply what the files do not say,
    `train_ops` names the ops that train, `reference` a checkpoint to compare the statistics with. Raises ReadError
    where a file cannot be read (NoModel: nothing there), UsageError where `path` is no checkpoint.
    """
    target = read_target(path, options)
    if not target.raw.tensors:
        kind = "graph" if target.raw.graphs else "model"
        raise UsageError(f"{path}: {target.raw.format}, not a checkpoint: use `bncheck inspect {kind} {path}`")
    return judged(target)


@takes(Options, CommandName.GRAPH)
def inspect_graph(path: str | Path, options: Options) -> Report:
    """Judges a graph: `.meta`, `.pb`, `.pbtxt`, a SavedModel, or a folder of one. Raises as `inspect_checkpoint`."""
    target = read_target(_graph_of(located(path)) if str(path) else path, options, alone=True)
    if not target.raw.graphs:
        kind = "checkpoint" if target.raw.tensors and target.raw.keras is None else "model"
        raise UsageError(f"{path}: {target.raw.format}, which holds no graph: use `bncheck inspect {kind} {path}`")
    return target.judged()


def _graph_of(path: Path) -> Path:
    """The path, or, of a folder that holds no model but the file of a graph, that file."""
    if not path.is_dir():
        return path
    from bncheck.sources.graph.beside import graph_in  # noqa: PLC0415 - only for folders

    try:
        run_dir(path)
    except NoModel:
        return (None if is_model_folder(path) else graph_in(path)) or path
    return path


@takes(Options, CommandName.MODEL)
def inspect_model(path: str | Path, options: Options) -> Report:
    """Judges a whole model: SavedModel, `.keras`, `.h5`, `.tflite`, frozen graph. Raises as `inspect_checkpoint`.

    For a TFLite or ONNX file `reference` is what it was converted from: whose statistics it has folded in is then
    proved.
    """
    return judged(read_target(path, options, alone=True))


@takes(Options, CommandName.RUN)
def inspect_run(directory: str | Path, options: Options) -> tuple[Report, ...]:
    """One report for each checkpoint in a training run's folder and below, or each Keras file, in the order of steps.

    Folders with several checkpoints are runs of their own, one after the other (`Report.run`); where each folder has
    one, all are one run. A file that cannot be read, such as one being written, gives an inconclusive report with exit
    code 2 and the reason. Raises NoModel where the folder holds none.
    """
    if not str(directory):
        raise UsageError("the path is empty: name the folder of a training run")
    from bncheck.commands.training_run import judged_runs  # noqa: PLC0415 - nothing else needs it

    return judged_runs(located(directory), options)


def judged(target: Target) -> Report:
    """The report on a target, held against the reference where one is given."""
    if target.options.reference is None:
        return target.judged()
    reference, facts = located(target.options.reference), target.facts
    with timed(target.seconds, "recognise"):
        if target.raw.lite is not None or target.raw.onnx is not None:
            facts = replace(facts, fold=_fold_proof(target.raw, reference))
        else:
            from bncheck.commands.reference import against  # noqa: PLC0415 - nothing else needs it

            facts = against(read_target(reference, Options()).facts, facts, repaired=target.raw.repaired is not None)
    return target.judged(facts)


def _fold_proof(converted: RawModel, path: Path) -> FoldProof:
    """The TFLite or ONNX file against what it was converted from."""
    from bncheck.foldproof.prove import prove  # noqa: PLC0415 - nothing else needs it

    return prove(read_target(path, Options()).raw, converted)
