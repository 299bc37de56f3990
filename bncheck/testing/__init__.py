"""Builders of facts in memory, for the examples of rules, for tests, and for authors of new rules."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bncheck.facts.formats import FileKind, Format
from bncheck.facts.layers import (
    DecaySource,
    Facts,
    GraphFacts,
    Layer,
    Mode,
    Origin,
    PerChannel,
    Presence,
    Purpose,
    Role,
    RunFacts,
    Saver,
    Site,
    Switch,
    TrainOp,
    Update,
    Vector,
)

if TYPE_CHECKING:
    from bncheck.facts.lite import FoldedOperator, Leftover
    from bncheck.facts.measurements import Accuracy, DataFacts, FoldedLayer, LayerDifference, OutputDifference

Numbers = float | list[float] | np.ndarray[Any, Any]


def vector(role: Role, values: Numbers | None, *, channels: int = 4, name: str = "", **facts_of_it: Any) -> Vector:
    """A PRESENT vector of these values (a number fills all channels); None: ABSENT by design."""
    if values is None:
        return Vector(role=role, presence=Presence.ABSENT, name=name, **facts_of_it)
    array = (np.full(channels, values) if np.isscalar(values) else np.asarray(values)).astype(np.float64)
    array.setflags(write=False)
    constant = float(array[0]) if bool(np.all(array == array[0])) else None
    known: dict[str, Any] = {
        "presence": Presence.PRESENT,
        "shape": array.shape,
        "dtype": "float32",
        "values": array,
        "constant_checked": True,
        "constant": constant,
    }
    return Vector(role=role, name=name, **(known | facts_of_it))


def batch_norm(
    name: str = "bn",
    *,
    mean: Numbers | None = 0.5,
    variance: Numbers | None = 2.0,
    gamma: Numbers | None = 0.9,
    beta: Numbers | None = 0.1,
    channels: int = 4,
    **facts_of_it: Any,
) -> Layer:
    """A healthy layer of 4 channels unless told otherwise; further keywords are fields of `Layer`."""
    known: dict[str, Any] = {"origin": Origin.GRAPH, "epsilon": 1e-3, "channels": channels}
    return Layer(
        name=name,
        mean=vector(Role.MEAN, mean, channels=channels, name=f"{name}/moving_mean"),
        variance=vector(Role.VARIANCE, variance, channels=channels, name=f"{name}/moving_variance"),
        gamma=vector(Role.GAMMA, gamma, channels=channels, name=f"{name}/gamma"),
        beta=vector(Role.BETA, beta, channels=channels, name=f"{name}/beta"),
        **(known | facts_of_it),
    )


def untouched(name: str = "bn", *, channels: int = 4, **facts_of_it: Any) -> Layer:
    """A layer whose gamma and beta were trained while its statistics are still exactly 0 and 1."""
    return batch_norm(name, mean=0.0, variance=1.0, channels=channels, **facts_of_it)


def facts(*layers: Layer, **facts_of_it: Any) -> Facts:
    """A model of these layers, its values at hand; further keywords are fields of `Facts`."""
    known: dict[str, Any] = {
        "path": "model.ckpt",
        "format": Format(FileKind.TF1_CHECKPOINT),
        "run": RunFacts(values=True, global_step=1000, updates=1000, updates_from="global_step"),
    }
    return Facts(layers=layers, **(known | facts_of_it))


def folded(
    name: str = "conv",
    *,
    kind: str = "CONV_2D",
    channels: int = 4,
    weight_scales: Numbers | None = None,
    bias: list[int] | None = None,
    bias_scales: Numbers | None = None,
    **facts_of_it: Any,
) -> FoldedOperator:
    """A TFLite operator that batch norm was folded into: float unless scales are given; a bias is int32."""
    from bncheck.facts.lite import FoldedOperator  # noqa: PLC0415 - start-up

    known: dict[str, Any] = {
        "channel_max": _scales(np.full(channels, 0.5)),
        "bias_bits": None if bias is None else 32,
    }
    return FoldedOperator(
        name=name,
        kind=kind,
        channels=channels,
        weight_scales=None if weight_scales is None else _scales(weight_scales),
        bias=None if bias is None else np.array(bias, np.int64),
        bias_scales=None if bias_scales is None else _scales(bias_scales),
        **(known | facts_of_it),
    )


def leftover(
    name: str = "model/batch_normalization/FusedBatchNormV3",
    *,
    multiplier: Numbers | tuple[float, ...] | None = (0.5, 2.0, 1.5, 0.7),
    addend: Numbers | tuple[float, ...] | None = (0.1, -0.4, 0.0, 0.3),
    **facts_of_it: Any,
) -> Leftover:
    """A batch norm of 4 channels that stayed behind an activation; further keywords are fields of `Leftover`."""
    from bncheck.facts.lite import Leftover  # noqa: PLC0415 - start-up

    steps = ("MUL",) if addend is None else ("MUL", "ADD")
    known: dict[str, Any] = {
        "operators": steps,
        "channels": 4 if multiplier is None else _scales(multiplier).size,
        "after": "CONV_2D + RELU",
        "feeds": "CONV_2D",
    }
    return Leftover(
        name=name,
        multiplier=None if multiplier is None else _scales(multiplier),
        addend=None if addend is None else _scales(addend),
        **(known | facts_of_it),
    )


def lite(*operators: FoldedOperator, leftovers: tuple[Leftover, ...] = (), **facts_of_it: Any) -> Facts:
    """A TFLite file of these operators; further keywords are fields of `Facts`."""
    from bncheck.facts.lite import LiteFacts  # noqa: PLC0415 - start-up

    held = LiteFacts(
        folded=operators,
        leftovers=leftovers,
        integer=any(operator.weight_scales is not None for operator in operators),
        operators=len(operators) + sum(len(left.operators) for left in leftovers),
    )
    known: dict[str, Any] = {"path": "model.tflite", "format": Format(FileKind.TFLITE), "lite": held}
    return Facts(**(known | facts_of_it))


def _scales(values: Numbers | tuple[float, ...]) -> PerChannel:
    array: PerChannel = np.atleast_1d(np.asarray(values, np.float64)).copy()
    array.setflags(write=False)
    return array


def site(name: str = "bn/FusedBatchNormV3", mode: Mode = Mode.TRAIN, **facts_of_it: Any) -> Site:
    """A fused NHWC site fed by the placeholder `images`; further keywords are fields of `Site`."""
    known: dict[str, Any] = {
        "form": "FusedBatchNormV3",
        "epsilon": 1e-3,
        "axis": -1,
        "rank": 4,
        "inputs": ("images",),
        "switch": switch() if mode is Mode.SWITCHED else None,
    }
    return Site(name=name, mode=mode, **(known | facts_of_it))


def switch(predicate: str = "is_training", kind: str = "placeholder", **facts_of_it: Any) -> Switch:
    """A placeholder that must be fed and selects batch statistics when True, unless told otherwise."""
    return Switch(predicate=predicate, kind=kind, **facts_of_it)


def update(layer: str = "bn", role: Role = Role.MEAN, **facts_of_it: Any) -> Update:
    """An update in UPDATE_OPS, decay 0.99, which no train op runs; further keywords are fields of `Update`."""
    mean = role is Role.MEAN
    known: dict[str, Any] = {
        "name": f"{layer}/AssignMovingAvg{'' if mean else '_1'}",
        "op": "AssignSubVariableOp",
        "variable": f"{layer}/moving_{'mean' if mean else 'variance'}",
        "decay": 0.99,
        "in_collection": True,
        "site": f"{layer}/FusedBatchNormV3",
        "inputs": ("images",),
    }
    return Update(role=role, **(known | facts_of_it))


def updates(layer: str = "bn", **facts_of_both: Any) -> tuple[Update, Update]:
    """The update of the moving mean and that of the moving variance."""
    return update(layer, Role.MEAN, **facts_of_both), update(layer, Role.VARIANCE, **facts_of_both)


def unwired(layer: Layer, train_op: str = "Adam", mode: Mode = Mode.TRAIN, **facts_of_updates: Any) -> Layer:
    """`layer` with one site and two updates; `train_op` optimises it and does not run the updates."""
    return replace(
        layer,
        sites=(site(f"{layer.name}/FusedBatchNormV3", mode, train_ops=(train_op,)),),
        updates=updates(layer.name, **facts_of_updates),
        trained_by=(train_op,),
        trainable=True,
        decay=facts_of_updates.get("decay", 0.99),
        decay_from=DecaySource.GRAPH,
    )


def wired(layer: Layer, train_op: str = "Adam", mode: Mode = Mode.TRAIN, **facts_of_updates: Any) -> Layer:
    """`layer` with one site and two updates, optimised and updated by `train_op`."""
    return unwired(layer, train_op, mode, **({"train_ops": (train_op,)} | facts_of_updates))


def served(layer: Layer, mode: Mode = Mode.EVAL, **facts_of_site: Any) -> Layer:
    """`layer` with one site, on which the serving output depends."""
    known: dict[str, Any] = {"outputs": ("serving_default/logits",)}
    return replace(layer, sites=(site(f"{layer.name}/FusedBatchNormV3", mode, **(known | facts_of_site)),))


def train_op(name: str = "Adam", variables: Iterable[str] = (), **facts_of_it: Any) -> TrainOp:
    """A train op from the `train_op` collection."""
    return TrainOp(name=name, variables=tuple(variables), **({"found_by": "collection"} | facts_of_it))


def saver(*layers: Layer, without: Iterable[str] = (), name: str = "save/SaveV2") -> Saver:
    """A Saver of all variables of these layers, but those whose name ends with one of `without`."""
    kept = frozenset(name for name in _shapes(layers) if not name.endswith(tuple(without)))
    return Saver(name=name, keys=kept, variables=kept)


def graph_facts(*layers: Layer, **facts_of_it: Any) -> GraphFacts:
    """The MetaGraph that these layers imply: train ops, collections, optimised variables, one Saver of everything."""
    ops = sorted({op for layer in layers for op in _train_ops(layer)})
    optimized = {
        vector.name: tuple(f"{op}/update_{vector.name}" for op in layer.trained_by)
        for layer in layers
        for vector in (layer.gamma, layer.beta)
        if layer.trained_by and vector.presence is not Presence.ABSENT
    }
    written = {op: [name for name, by in optimized.items() if any(o.startswith(op) for o in by)] for op in ops}
    known: dict[str, Any] = {
        "path": "model.ckpt.meta",
        "format": Format(FileKind.META_GRAPH),
        "nodes": 100 * len(layers),
        "purpose": Purpose.TRAINING if ops else Purpose.INFERENCE,
        "train_ops": tuple(train_op(op, written[op]) for op in ops),
        "savers": (saver(*layers),),
        "update_collection": tuple(u.name for layer in layers for u in layer.updates if u.in_collection),
        "trainable": frozenset(optimized),
        "optimized": optimized,
        "variables": _shapes(layers),
    }
    return GraphFacts(**(known | facts_of_it))


def with_graph(*layers: Layer, **facts_of_graph: Any) -> Facts:
    """A checkpoint of these layers together with the MetaGraph they imply; keywords are fields of `GraphFacts`."""
    return facts(*layers, graph=graph_facts(*layers, **facts_of_graph))


def serving(*layers: Layer, **facts_of_graph: Any) -> Facts:
    """A SavedModel of these layers."""
    form = Format(FileKind.SAVED_MODEL)
    known: dict[str, Any] = {"format": form, "path": "saved_model.pb", "serving": True, "savers": ()}
    return facts(*layers, path="saved_model", format=form, graph=graph_facts(*layers, **(known | facts_of_graph)))


def keras_file(*layers: Layer) -> Facts:
    """A Keras file: values and configuration, no graph."""
    return facts(*layers, path="model.keras", format=Format(FileKind.KERAS, "Keras 3 archive"))


def unread(layer: Layer, reason: str = "no checkpoint given") -> Layer:
    """`layer` without its values."""
    vectors = {name: getattr(layer, name) for name in ("mean", "variance", "gamma", "beta")}
    lost = {"presence": Presence.UNREAD, "values": None, "constant_checked": False, "constant": None, "reason": reason}
    held = {name: vector for name, vector in vectors.items() if vector.presence is not Presence.ABSENT}
    return replace(layer, **{name: replace(vector, **lost) for name, vector in held.items()})


def _shapes(layers: Iterable[Layer]) -> dict[str, tuple[int, ...] | None]:
    vectors = (v for layer in layers for v in (layer.mean, layer.variance, layer.gamma, layer.beta))
    return {v.name: v.shape for v in vectors if v.presence is not Presence.ABSENT}


def _train_ops(layer: Layer) -> tuple[str, ...]:
    return (
        *layer.trained_by,
        *(op for s in layer.sites for op in s.train_ops),
        *(op for u in layer.updates for op in u.train_ops),
    )


def difference(name: str = "bn", *, local: float = 1e-3, channels: int = 4, **facts_of_it: Any) -> LayerDifference:
    """A layer, measured on batches of 32 images, that loses the part `local` of its signal; healthy unless told."""
    from bncheck.facts.measurements import LayerDifference  # noqa: PLC0415 - start-up

    known: dict[str, Any] = {
        "samples": 2048,
        "mean_shift": np.full(channels, 0.02),
        "log_variance_ratio": np.linspace(-0.05, 0.05, channels),
        "local_floor": 7e-4,
        "cumulative_nmse": max(local, 1e-2),
        "cumulative_cosine": 1 - local / 2,
        "worst_channels": (0,),
    }
    return LayerDifference(layer=name, local_nmse=local, **(known | facts_of_it))


def classes_compared(agreement: float = 0.95, **facts_of_it: Any) -> OutputDifference:
    """An output of 10 classes, on which train mode agrees with itself for 97 % of the samples."""
    from bncheck.facts.measurements import OutputDifference  # noqa: PLC0415 - start-up

    known: dict[str, Any] = {
        "nmse": 0.09 if agreement > 0.9 else 0.9,
        "cosine": 0.95,
        "floor": 0.06,
        "classes": 10,
        "agreement_floor": 0.97,
        "probability_drift": 1 - agreement,
    }
    return OutputDifference(name="logits", agreement=agreement, **(known | facts_of_it))


def features_compared(nmse: float = 0.05, **facts_of_it: Any) -> OutputDifference:
    """An output that is no classes, which batch noise alone changes by 4 % of its energy."""
    from bncheck.facts.measurements import OutputDifference  # noqa: PLC0415 - start-up

    return OutputDifference(name="features", nmse=nmse, **({"cosine": 1 - nmse / 2, "floor": 0.04} | facts_of_it))


def images(samples: int, *, synthetic: bool = False, labelled: bool = False) -> DataFacts:
    """Data that a model was compared on, in batches of 32."""
    from bncheck.facts.measurements import DataFacts  # noqa: PLC0415 - start-up

    return DataFacts(
        description="images.npz, 360 samples of 64x64x3",
        samples=samples,
        batch_size=min(samples, 32),
        batches=max(1, samples // 32),
        synthetic=synthetic,
        labelled=labelled,
    )


def compared(
    *differences: LayerDifference,
    output: OutputDifference | None = None,
    accuracy: tuple[float, float] | Accuracy | None = None,
    samples: int = 352,
    synthetic: bool = False,
    layers: Iterable[Layer] | None = None,
    **facts_of_it: Any,
) -> Facts:
    """A model of healthy layers, and what comparing measured; `accuracy` is (train, eval) where there are labels."""
    from bncheck.facts.measurements import Accuracy, Comparison  # noqa: PLC0415 - start-up

    data = images(samples, synthetic=synthetic, labelled=accuracy is not None)
    known: dict[str, Any] = {
        "accuracy": Accuracy(train=accuracy[0], eval=accuracy[1])
        if isinstance(accuracy, tuple)
        else accuracy or Accuracy(),
        "outputs": (output or classes_compared(),),
    }
    measured = Comparison(
        mode="train-vs-eval", data=data, input="images", layers=tuple(differences), **(known | facts_of_it)
    )
    held = [batch_norm(one.layer) for one in differences] if layers is None else layers
    return facts(*held, comparison=measured)


def folded_layer(name: str = "bn", folded: str = "stored", **facts_of_it: Any) -> FoldedLayer:
    """A layer that a float TFLite file holds as it is stored; further keywords are fields of `FoldedLayer`."""
    from bncheck.facts.measurements import FoldedLayer  # noqa: PLC0415 - start-up

    known: dict[str, Any] = {
        "operator": f"{name}/Conv2D",
        "error": 1e-7 if folded == "stored" else 0.4,
        "tolerance": 1e-6,
        "epsilon": 1e-3,
        "epsilon_known": 1e-3,
    }
    return FoldedLayer(layer=name, folded=folded, **(known | facts_of_it))


def proved(*layers: FoldedLayer, **facts_of_it: Any) -> Facts:
    """A TFLite file held against the model that it was converted from; further keywords are fields of `Facts`."""
    from bncheck.facts.measurements import FoldProof  # noqa: PLC0415 - start-up

    return lite(folded(), fold=FoldProof(path="model.tflite", source="model.h5", layers=layers), **facts_of_it)
