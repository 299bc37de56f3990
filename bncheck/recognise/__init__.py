"""Raw tensors and graphs -> facts: by graph structure first, by configuration, by name where there is neither."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from bncheck.facts.layers import Facts
from bncheck.recognise.lengths import with_fitting_vectors
from bncheck.recognise.zero_start import with_zero_start
from bncheck.settings.options import Options
from bncheck.sources.raw import RawModel

if TYPE_CHECKING:
    from bncheck.recognise.graph.read_again import SharedGraph


def recognise(raw: RawModel, hints: Options) -> Facts:
    """Facts of one target; raises ReadError where what it holds is damaged."""
    facts = with_fitting_vectors(_recognised(raw, hints))
    return facts if raw.repaired is None else replace(facts, repaired=raw.repaired)


def _recognised(raw: RawModel, hints: Options) -> Facts:
    """Each way of recognition is imported only where it is used: a bare checkpoint pays for no graph."""
    if raw.graphs:
        from bncheck.recognise.graph.by_graph import recognise_graph  # noqa: PLC0415 - see docstring

        if len(raw.graphs) == 1:
            return with_zero_start(recognise_graph(raw, hints))
        from bncheck.recognise.metagraphs import recognise_metagraphs  # noqa: PLC0415 - see docstring

        return with_zero_start(recognise_metagraphs(raw, hints))
    if raw.onnx is not None:
        from bncheck.recognise.onnx.by_onnx import recognise_onnx  # noqa: PLC0415 - see docstring

        return recognise_onnx(raw, hints)
    if raw.lite is not None:
        from bncheck.recognise.lite.by_lite import recognise_lite  # noqa: PLC0415 - see docstring

        return recognise_lite(raw, hints)
    if raw.keras is not None:
        from bncheck.recognise.named.by_config import recognise_config  # noqa: PLC0415 - see docstring

        return recognise_config(raw, hints)
    from bncheck.recognise.named.by_name import recognise_names  # noqa: PLC0415 - see docstring

    return with_zero_start(recognise_names(raw, hints))


class RunRecogniser:
    """Recognises checkpoints one after the other: a graph that several have is recognised once.

    The last two are kept, for where a run is resumed with another graph, checkpoints are asked for to and fro.
    """

    def __init__(self, hints: Options) -> None:
        self._hints = hints
        self._shared: list[tuple[object, SharedGraph]] = []

    def recognise(self, raw: RawModel, *, kernels: bool = True) -> Facts:
        """As `recognise`, with the same facts; without `kernels`, where the graph is known, but for what they tell."""
        if len(raw.graphs) != 1 or raw.object_graph is not None or raw.repaired is not None or not raw.tensors:
            return recognise(raw, self._hints)
        graph = raw.graphs[0].graph_def
        shared = next((known for of, known in self._shared if of is graph), None)
        if shared is None:
            from bncheck.recognise.graph.read_again import SharedGraph  # noqa: PLC0415 - runs alone need it

            shared = SharedGraph(raw, self._hints)
            self._shared = [*self._shared[-1:], (graph, shared)]
        return with_fitting_vectors(with_zero_start(shared.facts(raw, kernels=kernels)))
