"""The facts: what was recognised in one target. Frozen; knows no file format and passes no judgement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from enum import Enum
from functools import cached_property
from typing import TYPE_CHECKING, Any

from bncheck.facts.arrays import PerChannel as PerChannel  # noqa: PLC0414 - everybody takes it from here
from bncheck.facts.command_words import Given as Given  # noqa: PLC0414 - as above
from bncheck.facts.copies import Copied
from bncheck.facts.formats import Format
from bncheck.facts.gaps import Gap
from bncheck.facts.norm_kinds import NormKind
from bncheck.facts.provenance import Provenance
from bncheck.facts.record import Record
from bncheck.facts.training_ops import Saver as Saver  # noqa: PLC0414 - as above
from bncheck.facts.training_ops import TrainOp as TrainOp  # noqa: PLC0414 - as above

if TYPE_CHECKING:
    from bncheck.facts.fake_quant import FakeQuantFacts
    from bncheck.facts.lite import Leftover, LiteFacts
    from bncheck.facts.measurements import Before, Comparison, FoldProof, QuantizedComparison
    from bncheck.facts.predicted import Predicted


class Origin(Enum):
    """What a layer was recognised by; findings say it."""

    GRAPH = "graph"
    CONFIG = "configuration"
    OBJECT_GRAPH = "object graph"
    NAME = "name"


class DecaySource(Enum):
    """What told the decay."""

    GRAPH = "graph"
    CONFIGURATION = "configuration"
    OPTION = "--decay"
    PYTORCH_DEFAULT = "PyTorch's default"
    FLAX_DEFAULT = "Flax's default"


class Role(Enum):
    """The four per-channel vectors of a batch norm, and the value each starts at by convention."""

    MEAN = "mean"
    VARIANCE = "variance"
    GAMMA = "gamma"
    BETA = "beta"

    @property
    def conventional_initial(self) -> float:
        """TensorFlow's default initial value: variance and gamma 1, mean and beta 0."""
        return 1.0 if self in (Role.VARIANCE, Role.GAMMA) else 0.0


class Presence(Enum):
    """Absent by design, missing by fault and unread are three different things."""

    PRESENT = "present"
    """Values are at hand."""
    ABSENT = "absent"
    """The layer has none by design (`scale=False`, `center=False`, or batch moments only)."""
    MISSING = "missing"
    """The layer has it, the file that should hold it does not."""
    UNREAD = "unread"
    """It exists, but its values are not at hand (no checkpoint given, data shard absent)."""


class Vector(Record, eq=False):
    """One per-channel variable of a layer."""

    role: Role
    presence: Presence
    name: str = ""
    """Name of the variable in the graph, else its key in the file."""
    key: str = ""
    """Key of the stored tensor that it was read from, among `RawModel.tensors`; empty where there is none."""
    shape: tuple[int, ...] | None = None
    dtype: str = ""
    values: PerChannel | None = None
    """Only when PRESENT."""
    constant_checked: bool = False
    """Whether `constant` was decided, by values or by the checksum of an index."""
    constant: float | None = None
    """The value that every channel has bit-exactly, if `constant_checked` and there is one."""
    initial: float | None = None
    """The constant that the graph initialises it with; None: by convention (`role.conventional_initial`)."""
    reason: str = ""
    """Why it is absent, missing or unread."""

    @cached_property
    def bounds(self) -> tuple[float, float] | None:
        """(lowest, highest) value, both NaN where one value is; None without values. Few rules need more of most."""
        if self.values is None or not self.values.size:
            return None
        return float(self.values.min()), float(self.values.max())

    @property
    def starts_at(self) -> float:
        """The initial value, from the graph where it tells, else TensorFlow's default."""
        return self.role.conventional_initial if self.initial is None else self.initial

    @cached_property
    def moved(self) -> bool | None:
        """Whether any channel left the initial value; None where that could not be decided."""
        return None if not self.constant_checked else self.constant != self.starts_at


class Mode(Enum):
    """With which statistics a site normalises."""

    TRAIN = "train"
    EVAL = "eval"
    SWITCHED = "switched"
    UNKNOWN = "unknown"


class Switch(Record):
    """What decides the mode of a switched site, or guards an update."""

    predicate: str
    """The tensor that decides, traced to its source: a placeholder, variable or op."""
    kind: str
    """"placeholder", "placeholder-with-default", "constant", "variable", "computed"."""
    default: bool | None = None
    """The placeholder's default, the constant's value, what the checkpoint has of a variable; None else."""
    made_of: str = ""
    """A comparison in words, where it is computed by one: "keep_prob < 1"."""
    turned_on_by: tuple[str, float | str] | None = None
    """Placeholder in that comparison and a value of it that selects batch statistics."""
    train_when: bool | None = True
    """Value of the predicate that selects batch statistics; None unknown."""


class Linear(Record, eq=False):
    """The convolution or dense layer right before a site, into which batch norm is folded."""

    name: str
    op: str
    """"Conv2D", "DepthwiseConv2dNative", "MatMul", or the Keras class ("SeparableConv2D")."""
    kernel: str
    """Variable or key of the kernel."""
    channel_max: PerChannel | None = None
    """max |w| per output channel; None where it was not read, `reason` says why."""
    channel_rms: PerChannel | None = None
    channel_mean: PerChannel | None = None
    """Root mean square of w, and mean of |w|, per output channel; None likewise."""
    reason: str = ""


class Site(Record, eq=False):
    """One place in a graph that applies a layer."""

    name: str
    """The op that normalises; in functions "call/op"."""
    form: str
    """"FusedBatchNormV3", "BatchNormWithGlobalNormalization", "decomposed"; for Keras files the class name."""
    mode: Mode
    switch: Switch | None = None
    epsilon: float | None = None
    axis: int | None = None
    """Channel axis, negative from the end (-1), or positive (1); None unknown."""
    rank: int | None = None
    linear: Linear | None = None
    linear_axis: int | None = None
    """Channel axis of the upstream convolution's data format (3 or -1 for NHWC, 1 for NCHW), None unknown."""
    bias: str | None = None
    """Variable added per channel right before the site, which batch norm cancels."""
    dropout: str | None = None
    """Dropout between the previous batch norm and this one with only linear ops after it."""
    inputs: tuple[str, ...] = ()
    """Placeholders, iterators and queues that feed it, sorted."""
    reduced: tuple[int, ...] | None = None
    """Sizes of the axes that its batch moments average, the batch first, -1 unknown; None: not even how many."""
    moments: tuple[str, str] | None = None
    """Tensors of its batch mean and batch variance; None: not two tensors, or inside a condition, loop or function."""
    before: tuple[str, ...] = ()
    """Sites whose output reaches it as activations; looked for only where a layer has two, or modes differ."""
    row: int | None = None
    """Row of its statistics, where those of several time steps lie in one variable and the graph names the row."""
    train_ops: tuple[str, ...] = ()
    """Train ops that depend on it."""
    outputs: tuple[str, ...] = ()
    """Serving outputs that depend on it: "signature/output" or the frozen graph's sinks."""
    backpropagated: bool | None = None
    """Whether gradients flow from it: it is an ancestor of an optimizer op by data alone, as no site of a mere
    validation tower is, even where its update hangs on the train op by control; None unknown."""
    order: int = 0
    """Forward position."""
    node: int | None = None
    """Its op's place among the nodes of the file's main graph, from 0; None in functions and configurations."""


class Update(Record, eq=False):
    """One op that writes a statistics variable from batch moments (initialisers and restores are not updates)."""

    name: str
    op: str
    """"AssignSub", "AssignVariableOp", ..."""
    role: Role
    variable: str
    row: int | None = None
    """The one row that it writes, as `Site.row`; None: all, or not told."""
    decay: float | None = None
    decay_rises: bool = False
    """Whether `decay` is only what it rises to (`num_updates`, a schedule), so that decay**n is too much."""
    stuck_counter: str = ""
    """Variable that the decay is meant to rise with, 0 and never written, so that it stays at `decay`."""
    decay_when_off: float | None = None
    """Decay while the switch says eval (1.0 in tf.layers: it then writes what was there); None: no such form."""
    resource: bool = True
    """Resource variable (reads before all writes of a step); False: reference variable (a race)."""
    in_collection: bool = False
    """Listed in `UPDATE_OPS`."""
    collections: tuple[str, ...] = ()
    """Other collections that list it, by their names."""
    train_ops: tuple[str, ...] = ()
    """Train ops whose run also runs it."""
    outputs: tuple[str, ...] = ()
    """Serving outputs whose run also runs it."""
    runs_with_site: bool | None = None
    """Whether computing its site's output runs it too (`updates_collections=None`, B01); None unknown."""
    waited_for_by: tuple[str, ...] = ()
    """Ops outside the train op that wait for it (an identity of the loss, a group nobody runs); a few names."""
    site: str | None = None
    """Site whose batch moments feed it."""
    inputs: tuple[str, ...] = ()
    """Placeholders, iterators and queues that feed the moments, sorted."""
    branch: Switch | None = None
    """The condition under which it runs; None: always. `train_when` is the value on which it runs."""
    in_loop: bool = False
    """Lives in a while loop's frame or body."""
    collected_in_branch: bool = False
    """In UPDATE_OPS although it lives in a conditional branch or loop (A14, A15)."""
    debiased: bool = False
    """Written with zero-debias."""

    @property
    def by_row(self) -> bool:
        """Whether it writes a row of the variable, such as the statistics of one time step."""
        return "Scatter" in self.op or "StridedSlice" in self.op


class Debias(Record):
    """Auxiliary variables of zero-debias found for a layer."""

    mean: bool
    variance: bool


class Layer(Record, eq=False):
    """One batch norm, identified by its statistics variables (or, without any, by its site)."""

    name: str
    origin: Origin
    mean: Vector
    variance: Vector
    gamma: Vector
    beta: Vector
    channels: int | None = None
    epsilon: float | None = None  # of the eval site where sites differ (BN212)
    default_epsilon: float | None = None
    """What its framework gives a layer where no file tells it; None: as TensorFlow."""
    decay: float | None = None  # of its updates or configuration; None unknown
    decay_from: DecaySource | None = None
    counted: int | None = None
    """Updates of its statistics that a counter of its own counted (`num_batches_tracked`); None without one."""
    sites: tuple[Site, ...] = ()
    updates: tuple[Update, ...] = ()
    linear: Linear | None = None
    """Of the eval site where there is one."""
    predicted: Predicted | None = None
    """What the weights before it let expect; None where they do not tell, or it was not asked."""
    trained_by: tuple[str, ...] = ()
    """Train ops that write gamma or beta."""
    trainable: bool | None = None
    """The configuration's flag, or whether gamma/beta stand in `trainable_variables`; None unknown."""
    debias: Debias | None = None
    copied: Copied | None = None
    averaged: Mapping[str, str] = field(default_factory=dict)
    """Role value ("gamma") or "kernel" -> key of its weight-averaging shadow (`.../ExponentialMovingAverage`)."""
    shadow_statistics: Mapping[str, Vector] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    """Keras configuration, where there is one."""
    kind: NormKind = NormKind.PLAIN
    order: int = 0

    @property
    def statistics(self) -> tuple[Vector, Vector]:
        """Moving mean and moving variance."""
        return (self.mean, self.variance)

    @property
    def moved(self) -> bool | None:
        """Whether any of the two statistics left its initial value; None where neither could be decided."""
        known = [v.moved for v in self.statistics if v.moved is not None]
        return any(known) if known else None

    @property
    def affine_moved(self) -> bool | None:
        """Whether gamma or beta left its initial value; None where neither exists or could be decided."""
        known = [v.moved for v in (self.gamma, self.beta) if v.moved is not None]
        return any(known) if known else None


class Purpose(Enum):
    """What a graph is for, as its ops tell."""

    TRAINING = "training"
    """Holds an optimizer."""
    INFERENCE = "inference"
    """Exported or frozen: no optimizer."""


class GraphFacts(Record, eq=False):
    """The graph as a whole."""

    path: str
    format: Format
    nodes: int
    purpose: Purpose
    tf_version: str = ""
    producer: str = ""  # of an ONNX model: "pytorch", "tf2onnx"
    serving: bool = False
    """Meant to be served: SavedModel signature or frozen graph (variables are constants)."""
    train_ops: tuple[TrainOp, ...] = ()
    savers: tuple[Saver, ...] = ()
    restores: tuple[Saver, ...] = ()
    """What each RestoreV2 op reads, and the variables it goes to."""
    signature_inputs: frozenset[str] | None = None
    """Ops that signatures take values for; None where there are no signatures."""
    model_variables: frozenset[str] = frozenset()
    """The collection that TF-slim and tf.contrib keep their layers' variables in."""
    update_collection: tuple[str, ...] = ()
    """Contents of UPDATE_OPS."""
    trainable: frozenset[str] = frozenset()
    """Variables in `trainable_variables`."""
    optimized: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Variable -> optimizer ops (Apply*) that write it."""
    regularised: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Variable -> L2Loss-like ops on it."""
    variables: Mapping[str, tuple[int, ...] | None] = field(default_factory=dict)  # -> shape, None unknown
    leftovers: tuple[Leftover, ...] = ()  # of an ONNX model


class RunFacts(Record, eq=False):
    """How far training went, as the values tell."""

    global_step: int | None = None
    updates: int | None = None
    """How often the statistics were updated: --steps, else optimizer iterations, Adam's beta power, global step."""
    updates_from: str = ""
    """Where `updates` comes from."""
    optimizer_slots: tuple[int, int] | None = None
    """(slot variables with a value other than zero, slot variables), None where there are none."""
    biases_moved: bool | None = None
    """Whether a bias differs between its channels, as none does before training; None where none was read."""
    keys: frozenset[str] | None = None
    """Keys of the checkpoint; None without a checkpoint."""
    values: bool = False
    """Whether tensor data (or checksums that decide) was at hand."""
    index_only: bool = False


class Facts(Record, eq=False):
    """Everything rules may look at."""

    path: str
    format: Format
    layers: tuple[Layer, ...] = ()
    """In forward order where a graph or configuration tells it, else in the file's."""
    graph: GraphFacts | None = None
    run: RunFacts = field(default_factory=RunFacts)
    lite: LiteFacts | None = None
    fake_quant: FakeQuantFacts | None = None
    gaps: tuple[Gap, ...] = ()
    reference: Mapping[str, tuple[PerChannel, PerChannel]] | None = None
    """Layer name -> (mean, variance) of the checkpoint given with `--reference`."""
    reference_weights: Mapping[str, bool] = field(default_factory=dict)
    """Layer name -> whether its gamma, beta and kernel are all bit for bit the reference's, where any is at hand."""
    comparison: Comparison | None = None
    """What running the model in two modes measured."""
    quantized: QuantizedComparison | None = None
    """What running it in float and quantized measured."""
    fold: FoldProof | None = None
    """What a TFLite file has folded in, held against the model's own statistics."""
    before: Before | None = None
    """What an earlier model came to."""
    notes: tuple[str, ...] = ()
    like: object = None
    """Facts with the same object here have one graph and one layout: they differ in values alone."""
    repaired: Provenance | None = None
    """What bncheck's own file beside it says of a repair; None where there is none."""
    given: Given = field(default_factory=Given)
