"""Which formats bncheck reads: told apart by `FileKind`, named to people by `label`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class FileKind(Enum):
    """What decides how a target is read, judged and written; the value names it where nothing more is known."""

    TF1_CHECKPOINT = "TF1 checkpoint"
    TF2_CHECKPOINT = "TF2 checkpoint"
    NETWORK = "checkpoint + network"
    """A checkpoint's tensors in the graph of a backbone or of a user's builder."""
    META_GRAPH = "MetaGraph"
    GRAPH_DEF = "GraphDef"
    SAVED_MODEL = "SavedModel"
    KERAS = "Keras"
    TFLITE = "TFLite"
    ARRAYS = "NumPy archive"
    PYTORCH = "PyTorch file"
    SAFETENSORS = "safetensors file"
    ONNX = "ONNX model"
    FLAX = "Flax file"


_CHECKPOINTS = frozenset({FileKind.TF1_CHECKPOINT, FileKind.TF2_CHECKPOINT, FileKind.NETWORK})


_OF_PYTORCH = frozenset({FileKind.PYTORCH, FileKind.SAFETENSORS})


@dataclass(frozen=True)
class Format:
    """The format of a target, or of one graph in it."""

    kind: FileKind
    named: str = ""
    """As a user would name it, where that is more than the kind: "Keras 3 archive", "MetaGraph (text)"."""

    @property
    def label(self) -> str:
        """For messages and reports."""
        return self.named or self.kind.value

    @property
    def is_checkpoint(self) -> bool:
        """Of TensorFlow, of whatever version; a SavedModel's variables are none."""
        return self.kind in _CHECKPOINTS

    @property
    def is_pytorch(self) -> bool:
        """What PyTorch's users save weights in."""
        return self.kind in _OF_PYTORCH

    @property
    def inspected_only(self) -> bool:
        """Read, but neither run nor written."""
        return self.is_pytorch or self.kind in (FileKind.ONNX, FileKind.FLAX)

    def __str__(self) -> str:
        return self.label
