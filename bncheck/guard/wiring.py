"""TF1 graphs, before the first step: whether the train op runs the updates of every batch norm it trains."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bncheck.facts.errors import BncheckError, UsageError
from bncheck.facts.findings import Finding
from bncheck.facts.layers import Facts
from bncheck.facts.wording import listing
from bncheck.guard.watch import NAMED
from bncheck.settings.options import Options


class UpdatesNotWired(BncheckError):
    """The train op leaves statistics of batch norm as they are; `findings` says which, why, and what to change."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        self.findings = tuple(findings)
        super().__init__("\n\n".join(_told(finding) for finding in findings))

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of all layers concerned, in forward order."""
        return tuple(dict.fromkeys(layer for finding in self.findings for layer in finding.layers))


def assert_updates_wired(train_op: Any, *, graph: Any = None) -> None:
    """Raises UpdatesNotWired unless running `train_op` also updates the statistics of every batch norm it trains.

    `train_op` is what `session.run` gets: an op, a tensor, or any nest of them (two optimizers of a GAN, say). Looks at
    the graph as it is now, so call it when it is complete, before the session. Raises UsageError in eager mode, and
    where `train_op` is none of this graph. Warns (UserWarning) where it finds no batch norm, or no optimizer in
    `train_op`, for then it guards nothing.
    """
    operations = _operations(train_op)
    found = graph if graph is not None else operations[0].graph
    stranger = next((operation.name for operation in operations if operation.graph is not found), None)
    if stranger is not None:
        raise UsageError(f"{stranger} is not an op of the graph that is judged")
    names = tuple(dict.fromkeys(operation.name for operation in operations))
    facts = facts_of(found, Options(train_ops=names))
    if not facts.layers:
        warnings.warn("bncheck.guard found no batch norm in this graph, so it guards nothing", stacklevel=2)
        return
    known = facts.graph.train_ops if facts.graph is not None else ()
    if not any(op.variables for op in known):
        warnings.warn(
            f"{', '.join(names)} runs no optimizer that bncheck.guard knows, so it guards nothing", stacklevel=2
        )
        return
    from bncheck.judge.judge import wiring_faults  # noqa: PLC0415 - a training script starts without it

    faults = wiring_faults(facts)
    if faults:
        raise UpdatesNotWired(faults)


def _operations(train_op: Any) -> list[Any]:
    """The ops of a nest of ops and tensors."""
    flat: list[Any] = []
    pending = [train_op]
    while pending:
        item = pending.pop(0)
        if isinstance(item, Mapping):
            pending[:0] = list(item.values())
        elif isinstance(item, (list, tuple)):
            pending[:0] = list(item)
        elif item is not None:
            flat.append(item)
    if not flat:
        raise UsageError("train_op is None: give what session.run gets")
    return [_operation(item) for item in flat]


def _operation(item: Any) -> Any:
    try:
        operation = getattr(item, "op", item)
        graph = operation.graph
    except (AttributeError, NotImplementedError, TypeError):
        graph = None
    if graph is None or not hasattr(graph, "as_graph_def"):
        raise UsageError(
            f"train_op holds a {type(item).__name__}, no op of a TF1 graph: in eager mode and for Keras use "
            "bncheck.guard.StatisticsMoveCallback"
        )
    return operation


def facts_of(graph: Any, hints: Options) -> Facts:
    """What bncheck recognises in a live graph."""
    from bncheck.facts.formats import FileKind, Format  # noqa: PLC0415 - as below
    from bncheck.recognise import recognise  # noqa: PLC0415 - a training script starts without it
    from bncheck.sources.graph import protos  # noqa: PLC0415 - as above
    from bncheck.sources.graph.graphs import meta_graph  # noqa: PLC0415 - as above
    from bncheck.sources.raw import RawModel  # noqa: PLC0415 - as above

    path = Path("graph")
    with graph.as_default():  # TensorFlow 2 exports no graph while it runs eagerly
        exported = loaded_tensorflow().compat.v1.train.export_meta_graph(graph=graph)
    message = protos.MetaGraphDef.FromString(exported.SerializeToString())
    form = Format(FileKind.META_GRAPH, "graph")
    return recognise(RawModel(path=path, format=form, graphs=(meta_graph(path, message),)), hints)


def loaded_tensorflow() -> Any:
    """The module that the script has loaded."""
    import tensorflow  # noqa: ICN001, PLC0415 - the script has loaded it; this module must not

    return tensorflow


def _told(finding: Finding) -> str:
    layers = f" Layers: {listing(finding.layers, NAMED)}." if finding.layers else ""
    return f"{finding.code} {finding.slug}: {finding.message}{layers}\n{finding.fix}"
