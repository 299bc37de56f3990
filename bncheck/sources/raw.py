"""What a file says, uninterpreted: tensors, graphs, Keras configurations, TFLite operators. Frozen, read lazily."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from bncheck.facts.formats import Format
from bncheck.facts.provenance import Provenance
from bncheck.facts.record import Record
from bncheck.sources.stamps import Stamps


class RawTensor(Record, eq=False):
    """One stored tensor. Nothing is read before `read()`, which verifies bounds and checksum and raises ReadError."""

    name: str
    dtype: str
    """numpy's name ("float32"), or "bfloat16", "string", "resource" and the like where numpy has none."""
    shape: tuple[int, ...]
    read: Callable[[], NDArray[Any]]
    """The tensor in its own dtype (bfloat16 widened to float32), read-only; strings as an object array of bytes."""
    crc32c: int | None = None
    """CRC-32C (unmasked) of the little-endian bytes as the format records it; None where it records none (slices)."""
    unavailable: str | None = None
    """Why `read()` will fail although the file declares the tensor, such as an absent data shard; None if readable."""
    far: bool = False
    """Whether its bytes come over a network, so that only what is small is worth reading."""
    location: tuple[Path, str] | None = None
    """HDF5 file (or the archive that holds it) and path of the dataset inside; None for other formats."""


@runtime_checkable
class ReadsTogether(Protocol):
    """Tensors of a file in which many of them are best read at once."""

    def read_all(self, keys: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Key -> its tensor, as each one's `read` gives it. Raises ReadError."""


class RawSignature(Record):
    """One serving signature: argument name -> tensor name, in each direction."""

    name: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


class RawGraph(Record, eq=False):
    """One MetaGraph, or a bare GraphDef. `graph_def` is a message of `sources/protos.py`."""

    path: Path
    format: Format
    graph_def: Any
    tags: tuple[str, ...] = ()
    tf_version: str = ""
    collections: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Collections of node or tensor names; those of variables hold the variables' names."""
    initializers: Mapping[str, str] = field(default_factory=dict)
    """Variable name -> name of its initialiser op, from the `variables` collections."""
    signatures: tuple[RawSignature, ...] = ()
    object_graph: Any | None = None
    """SavedObjectGraph of a TF2 SavedModel, else None."""

    @property
    def served(self) -> tuple[RawSignature, ...]:
        """Its signatures without TensorFlow's own (`__saved_model_init_op`)."""
        return tuple(signature for signature in self.signatures if not signature.name.startswith("__saved_model"))


class RawKerasLayer(Record, eq=False):
    """One layer of a Keras model, nested models flattened: `path` is "/"-joined from the outermost model."""

    path: str
    class_name: str
    config: Mapping[str, Any]
    weights: tuple[RawTensor, ...]
    """In the order of the file (Keras: gamma, beta, moving_mean, moving_variance, as far as they exist)."""
    inbound: tuple[str, ...] = ()
    """Paths of the layers that feed this one; empty where the configuration does not tell."""
    input_shape: tuple[int | None, ...] | None = None
    """Shape that the layer was built for, batch first, None a free dimension; None where the file does not tell."""


class RawKerasCall(Record, eq=False):
    """One application of a layer in a Keras model, nested models resolved down to their layers."""

    name: str
    """The layer's path; from the second application on with ":1", ":2", ..."""
    layer: str
    """Path of the layer."""
    inbound: tuple[str, ...] = ()
    """Names of the calls whose outputs it takes, in order; empty for inputs and where the wiring is unknown."""
    training: bool | None = None
    """`training=` baked into this call or the innermost enclosing one that has it; None: decided by the caller."""
    number: float | None = None
    """What an operator of tf.keras, such as `x + 3`, takes beside its input, where that is a number."""


class RawKeras(Record, eq=False):
    """A Keras file: its layers in the order of the configuration, or, weights only, of the file."""

    keras_version: str
    has_config: bool
    layers: tuple[RawKerasLayer, ...]
    training_config: Mapping[str, Any] | None = None
    optimizer_weights: tuple[RawTensor, ...] = ()
    """Slots and iteration counter as far as the file holds them."""
    calls: tuple[RawKerasCall, ...] = ()
    """Applications of layers in forward order; empty without a configuration."""
    configuration: str | bytes = ""
    """The JSON that the layers were read from, as the file holds it; empty without one."""


class RawQuantization(Record, eq=False):
    """Affine quantization: real = scale * (stored - zero_point), per tensor (one scale) or along `axis`.

    Blockwise, elements that follow one another along the last axis share a scale.
    """

    scales: NDArray[np.float32]
    """(1,), (channels,), or blockwise the tensor's shape but for its last axis, which has an entry a block."""
    zero_points: NDArray[np.int64]
    """Of the same shape."""
    axis: int
    block: int = 0
    """Elements that share a scale; 0: not blockwise."""

    def spread(self, shape: tuple[int, ...]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """(scales, zero points) as they broadcast against the tensor, which is of this shape."""
        scales, points = self.scales.astype(np.float64), self.zero_points
        if self.block:
            return np.repeat(scales, self.block, axis=-1), np.repeat(points, self.block, axis=-1)
        if scales.size == 1:
            return scales.reshape([1] * len(shape)), points.reshape([1] * len(shape))
        along = [1] * len(shape)
        along[self.axis] = scales.size
        return scales.reshape(along), points.reshape(along)


class RawLiteTensor(Record, eq=False):
    """One tensor of a TFLite subgraph; `data` is None for activations."""

    index: int
    name: str
    dtype: str
    shape: tuple[int, ...]
    data: RawTensor | None
    quantization: RawQuantization | None
    shape_signature: tuple[int, ...] | None = None
    """The shape with -1 where it is only known at run time; None where the file gives none."""
    is_variable: bool = False
    """Keeps its value between runs (state of a recurrent layer)."""


class RawLiteOperator(Record):
    """One operator of a TFLite subgraph, in execution order; -1 marks an absent optional input."""

    index: int
    kind: str
    """Builtin name ("CONV_2D") or the custom code."""
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    activation: str
    """Fused activation ("NONE", "RELU", "RELU6", ...)."""
    shuffled: bool = False
    """FULLY_CONNECTED whose kernel is stored in blocks of another order (SHUFFLED4x16INT8)."""


class RawLiteSignature(Record):
    """One way to call a TFLite file: names of the inputs and outputs of a subgraph."""

    key: str
    """"serving_default", unless the file says otherwise."""
    graph: int
    """Which subgraph."""
    inputs: Mapping[str, int]
    """Name -> tensor of that subgraph."""
    outputs: Mapping[str, int]


class RawLite(Record, eq=False):
    """A TFLite file: one entry a subgraph."""

    version: int
    description: str
    subgraphs: tuple[RawLiteSubgraph, ...]
    metadata: tuple[str, ...] = ()
    """Names of the metadata entries ("min_runtime_version", "TFLITE_METADATA", ...)."""
    signatures: tuple[RawLiteSignature, ...] = ()


class RawLiteSubgraph(Record, eq=False):
    """Tensors and operators of one TFLite subgraph."""

    name: str
    tensors: tuple[RawLiteTensor, ...]
    operators: tuple[RawLiteOperator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


PROVENANCE = ".bncheck.json"
"""What a repaired file's provenance adds to its name."""


class RawModel(Record, eq=False):
    """Everything one target holds. A format fills what it has and leaves the rest empty."""

    path: Path
    format: Format
    tensors: Mapping[str, RawTensor] = field(default_factory=dict)
    """Checkpoint key -> tensor; for Keras "<layer path>/<weight>"."""
    graphs: tuple[RawGraph, ...] = ()
    keras: RawKeras | None = None
    lite: RawLite | None = None
    onnx: Any | None = None
    """ModelProto of `sources/onnx/messages.py`, else None."""
    object_graph: Any | None = None
    """TrackableObjectGraph of a TF2 checkpoint (`_CHECKPOINTABLE_OBJECT_GRAPH`), else None."""
    modules: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Path of a pickled PyTorch module with running statistics -> its plain attributes ("momentum", "eps").

    Also "class", its name, and of TorchScript "traced_in_train_mode", where its code tells the mode.
    """
    notes: tuple[str, ...] = ()
    """What the reader left aside and a user would want to know, such as "data shard 1 of 2 is absent"."""
    repaired: Provenance | None = None
    """bncheck's provenance where it lies beside the model: its statistics then are not what its counters counted."""
    stamps: Stamps = frozenset()
    """Its files as they were right before they were read."""
