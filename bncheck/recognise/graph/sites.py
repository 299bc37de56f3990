"""Finds every place in a flat graph that applies batch norm, by its arithmetic and not by its names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from bncheck.facts.layers import Mode
from bncheck.facts.record import Record
from bncheck.recognise.graph.control_flow import Contexts
from bncheck.recognise.graph.decomposed_norm import Match, inverse_deviations, match_around
from bncheck.recognise.graph.flat import FlatGraph, node_of
from bncheck.recognise.graph.operands import FUSED, Operand, classify
from bncheck.recognise.graph.trace import declared_shape
from bncheck.recognise.graph.upstream import is_raw, leading_one_reshape

if TYPE_CHECKING:
    from bncheck.recognise.graph.folded import Fold

_FUSED_EPSILON = 1e-4
"""The op's own default for `epsilon` (nn_ops.cc)."""


class FoundSite(Record, eq=False):
    """One normalisation, with edges into the graph."""

    node: int
    """The op whose output is the normalised value."""
    form: str
    mode: Mode
    mean: Operand
    variance: Operand
    x: int | None
    gamma: int | None = None
    beta: int | None = None
    epsilon: float | None = None
    axis: int | None = None
    rank: int | None = None
    fold: Fold | None = None
    """Where the graph folds it into the weights before it; `node` is then the folded bias, and there is no `x`."""

    @property
    def switch(self) -> tuple[int, bool] | None:
        """(predicate node, value that selects batch statistics)."""
        return self.variance.switch or self.mean.switch


def find_sites(graph: FlatGraph, contexts: Contexts) -> tuple[list[FoundSite], list[int]]:
    """(sites, nodes that look like batch norm but could not be resolved)."""
    sites = [site for op in sorted(FUSED) for node in graph.by_op.get(op, ()) for site in _fused(graph, contexts, node)]
    sites += [
        _global_normalization(graph, contexts, node) for node in graph.by_op.get("BatchNormWithGlobalNormalization", ())
    ]
    unclear: list[int] = []
    for inverse, variance, epsilon in inverse_deviations(graph):
        found = _decomposed(graph, contexts, inverse, variance, epsilon)
        if isinstance(found, int):
            unclear.append(found)
        elif found is not None:
            sites.append(found)
    return sites, unclear


def _fused(graph: FlatGraph, contexts: Contexts, node: int) -> Iterator[FoundSite]:
    data = graph.data[node]
    if len(data) < 5:
        return
    training = graph.attr(node, "is_training")
    is_training = True if training is None else bool(training.b)
    if is_training and leading_one_reshape(graph, data[0]):
        return
    mean, variance = classify(graph, contexts, data[3]), classify(graph, contexts, data[4])
    mode = Mode.TRAIN if is_training else _mode(mean, variance, stored_otherwise=True)
    data_format = graph.attr(node, "data_format")
    layout = data_format.s.decode("ascii", "replace") if data_format is not None and data_format.s else "NHWC"
    epsilon = graph.attr(node, "epsilon")
    yield FoundSite(
        node=node,
        form=graph.ops[node],
        mode=mode,
        mean=mean,
        variance=variance,
        x=data[0],
        gamma=data[1],
        beta=data[2],
        epsilon=_FUSED_EPSILON if epsilon is None else float(f"{epsilon.f:.6g}"),
        axis=1 if layout.startswith("NC") else -1,
        rank=len(layout),
    )


def _global_normalization(graph: FlatGraph, contexts: Contexts, node: int) -> FoundSite:
    data = graph.data[node]
    mean, variance = classify(graph, contexts, data[1]), classify(graph, contexts, data[2])
    epsilon, scaled = graph.attr(node, "variance_epsilon"), graph.attr(node, "scale_after_normalization")
    return FoundSite(
        node=node,
        form="BatchNormWithGlobalNormalization",
        mode=_mode(mean, variance),
        mean=mean,
        variance=variance,
        x=data[0],
        gamma=data[4] if scaled is not None and scaled.b else None,
        beta=data[3],
        epsilon=None if epsilon is None else float(f"{epsilon.f:.6g}"),
        axis=-1,
        rank=4,
    )


def _mode(mean: Operand, variance: Operand, *, stored_otherwise: bool = False) -> Mode:
    """Statistics stored, from the batch, or chosen between; unknown where both arrive and nothing chooses."""
    if variance.switch is not None or mean.switch is not None:
        return Mode.SWITCHED
    if variance.chooses or mean.chooses:
        return Mode.UNKNOWN
    if variance.moments:
        return Mode.TRAIN
    if variance.stored or stored_otherwise:
        return Mode.EVAL
    return Mode.UNKNOWN


def _decomposed(
    graph: FlatGraph, contexts: Contexts, inverse: int, variance_edge: int, epsilon: float
) -> FoundSite | int | None:
    """The site around one 1/sqrt(v + eps); None where it is no batch norm; a node where it may be one."""
    variance = classify(graph, contexts, variance_edge)
    if not (variance.stored or variance.moments):
        return None
    match = match_around(graph, contexts, inverse)
    if match is None:
        return None
    mean = classify(graph, contexts, match.mean)
    if variance.unclear_axes and not variance.stored:
        return match.output
    if not _is_batch_norm(graph, variance, mean, match):
        return None
    if _standardises_input(graph, variance, mean, match):
        return None
    return FoundSite(
        node=match.output,
        form="decomposed",
        mode=_mode(mean, variance),
        mean=mean,
        variance=variance,
        x=match.x,
        gamma=match.gamma,
        beta=match.beta,
        epsilon=epsilon,
        axis=_axis(variance, rank := _rank(graph, match.x)),
        rank=rank,
        fold=None if match.x is not None else _fold(graph, contexts, match.output),
    )


def _fold(graph: FlatGraph, contexts: Contexts, bias: int) -> Fold | None:
    from bncheck.recognise.graph.folded import fold_around  # noqa: PLC0415 - start-up

    return fold_around(graph, contexts, bias)


def _is_batch_norm(graph: FlatGraph, variance: Operand, mean: Operand, match: Match) -> bool:
    """Stored vectors, or batch moments that keep a channel axis; whitening by one scalar is no batch norm."""
    if variance.other and not variance.stored and not variance.moments:
        return False
    if not (mean.stored or mean.moments):
        return False
    if variance.stored or mean.stored:
        return True
    affine = match.gamma is not None or match.beta is not None
    rank = _rank(graph, match.x)
    if rank is not None:
        return len(variance.axes) < rank
    return affine or variance.axes in ((0,), (0, 1, 2), (0, 2, 3), (0, 1, 2, 3))


def _standardises_input(graph: FlatGraph, variance: Operand, mean: Operand, match: Match) -> bool:
    """Whether what is fed is brought to a stored mean and deviation, without gamma and beta: no layer."""
    plain = match.gamma is None and match.beta is None and not variance.moments and not mean.moments
    return plain and match.x is not None and is_raw(graph, match.x)


def _axis(variance: Operand, rank: int | None) -> int | None:
    if variance.axes and rank is not None and rank - 1 not in {axis % rank for axis in variance.axes}:
        return -1  # whatever else is kept: ghost batches
    if variance.axes:
        return 1 if 1 not in variance.axes and len(variance.axes) > 1 and 2 in variance.axes else -1
    shape = variance.reshaped
    if len(shape) > 1:
        wide = [number for number, size in enumerate(shape) if size != 1]
        if len(wide) == 1:
            return -1 if wide[0] == len(shape) - 1 else wide[0]
        return None
    return -1 if variance.stored else None


def _rank(graph: FlatGraph, x: int | None) -> int | None:
    if x is None:
        return None
    shape = declared_shape(graph, node_of(x))
    return None if shape is None else len(shape)
