"""A model made ready to be run in both modes: its layers found, its twins made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from bncheck.compare.data.first_look import keras_input, look_at
from bncheck.compare.outputs import Kind, place_of
from bncheck.compare.twins.endpoints import find_input, find_outputs
from bncheck.compare.twins.forward import Forward, declared_input, forward
from bncheck.compare.twins.keras_model import frozen_graph, named_as_in
from bncheck.compare.twins.plain import refuse_other_kinds
from bncheck.compare.twins.reach import inputs_beside
from bncheck.facts.errors import BncheckError
from bncheck.facts.layers import Facts, Layer
from bncheck.recognise import recognise
from bncheck.recognise.graph.by_graph import facts_of_view
from bncheck.recognise.graph.flat import node_of
from bncheck.recognise.graph.view import view_graph
from bncheck.settings.options import Options
from bncheck.sources.raw import RawModel

_DEFAULT = Options()


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """A model ready to be run in both modes."""

    facts: Facts
    layers: tuple[Layer, ...]
    """As the twins hold them; the names are those of `facts`."""
    forward: Forward
    input: str
    outputs: tuple[str, ...]
    kinds: tuple[Kind, ...]
    """What the graph says of each output."""
    labels_output: int | None = None
    """The place of the output that the user says the labels belong to."""


def prepare(raw: RawModel, options: Options = _DEFAULT) -> Prepared:
    """Recognises a model with a graph and makes its twins. Raises ReadError, UsageError or BncheckError."""
    masks: Mapping[str, str] = {}
    keras_names: Mapping[str, str] = {}
    if raw.keras is not None:
        facts = recognise(raw, options)
        refuse_other_kinds(facts.layers)
        look_at(options, keras_input(raw))
        frozen = frozen_graph(raw, trusted=options.trust_model)
        raw, masks, keras_names = frozen.raw, frozen.masks, frozen.outputs
        view = view_graph(raw, options)
        layers = named_as_in(facts.layers, facts_of_view(raw, view, options).layers)
    elif raw.graphs:
        view = view_graph(raw, options)
        facts = replace(facts_of_view(raw, view, options), repaired=raw.repaired)
        layers = facts.layers
    elif raw.format.inspected_only:
        raise BncheckError(f"{raw.path} is a {raw.format}, which bncheck inspects but does not run")
    else:
        raise BncheckError(f"{raw.path} is a {raw.format} without a graph: give --graph, --model or --builder")
    if not layers:
        raise BncheckError(f"{raw.path}: no batch norm was found to compare")
    refuse_other_kinds(layers)
    entry = find_input(view, options.inputs)
    exits = find_outputs(view, entry, tuple(keras_names.get(name, name) for name in options.outputs))
    labelled = place_of(options.labels_output, [e.name for e in exits], keras_names)
    if not inputs_beside(view, entry):
        look_at(options, declared_input(view, entry))
    names = view.flat.names
    return Prepared(
        facts=facts,
        layers=layers,
        forward=forward(view, layers, entry, [e.edge for e in exits], trusted=options.trust_model, masks=masks),
        input=names[node_of(entry)],
        outputs=tuple(e.name for e in exits),
        kinds=tuple(e.kind for e in exits),
        labels_output=labelled,
    )
