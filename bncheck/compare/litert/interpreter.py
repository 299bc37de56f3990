"""Runs TFLite files with LiteRT's own kernels, batches at a time, with any tensor at hand."""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bncheck.backbones import quiet_tensorflow
from bncheck.compare.litert.edit import SERVING, check, exchanged, free_batch
from bncheck.compare.litert.native_output import silence
from bncheck.facts.errors import BncheckError, Unsupported
from bncheck.facts.extras import install
from bncheck.recognise.lite.by_lite import without_weights
from bncheck.sources.raw import RawLite, RawLiteSubgraph, RawLiteTensor, RawModel
from bncheck.sources.tflite.tflite import parse_lite

ACTIVATIONS = frozenset({"float32", "float16", "int8", "uint8", "int16"})
"""Types of tensors that stand for real numbers; integers of 32 bits and more are shapes and indices."""
_SELECTED = "Flex"
"""What the names of TensorFlow's own operators start with in a TFLite file."""
_INTERPRETERS = ("ai_edge_litert.interpreter", "tensorflow.lite.python.interpreter")


@dataclass(frozen=True, kw_only=True, eq=False)
class LiteFile:
    """A TFLite file, read and checked."""

    path: str
    content: bytes
    size: int
    """Bytes of the file."""
    raw: RawModel
    """The file as it was parsed."""
    graph: RawLiteSubgraph
    """The subgraph that serves, which is the first of `content`."""

    names: tuple[str, ...]
    """Of the inputs, in the graph's order: those of the signature, else of the tensors."""
    fields: tuple[int, ...]
    """Of each input, which field of a batch it takes: their order in the model that the batches are made for."""

    @property
    def input(self) -> RawLiteTensor:
        """The first input, nearly always the only one."""
        return self.inputs[0]

    @property
    def inputs(self) -> tuple[RawLiteTensor, ...]:
        """All of them."""
        return tuple(self.graph.tensors[number] for number in self.graph.inputs)

    @property
    def batch(self) -> int:
        """Samples that an invocation takes by the file's own word, -1 any number; the least of all inputs."""
        return min((entry.shape_signature or entry.shape or (0,))[0] for entry in self.inputs)


def read_file(content: bytes, path: str | Path = "the converted model") -> LiteFile:
    """Reads and checks a TFLite file; raises ReadError for a damaged one, and for one that cannot be run here."""
    raw, size = parse_lite(Path(path), memoryview(content)), len(content)
    lite = _lite(raw)
    check(content, path)
    served = _served(lite)
    signature = next((one for one in lite.signatures if one.graph == served), None)
    if served:
        content = exchanged(content, served)
        lite = _lite(parse_lite(Path(path), memoryview(content)))
    graph = lite.subgraphs[0]
    if not graph.inputs or not graph.outputs or min(graph.inputs) < 0:
        raise Unsupported(path, f"{len(graph.inputs)} inputs, {len(graph.outputs)} outputs: nothing to run")
    lacking = without_weights(lite)
    if lacking:
        raise Unsupported(path, lacking)
    kinds = {operator.kind for subgraph in lite.subgraphs for operator in subgraph.operators}
    selected = sorted(kind.removeprefix(_SELECTED) for kind in kinds if kind.startswith(_SELECTED))
    if selected:
        more = "" if len(selected) <= 3 else f" and {len(selected) - 3} more"
        why = f"it was converted with SELECT_TF_OPS and needs TensorFlow's own {', '.join(selected[:3])}{more}"
        raise Unsupported(path, f"{why}, for which LiteRT has no kernels: convert it with TFLite's own operators")
    called = {} if signature is None else {number: name for name, number in signature.inputs.items()}
    return LiteFile(
        path=str(path),
        content=content,
        size=size,
        raw=raw,
        graph=graph,
        names=tuple(called.get(number) or graph.tensors[number].name for number in graph.inputs),
        fields=tuple(range(len(graph.inputs))),
    )


def _served(lite: RawLite) -> int:
    """The subgraph that serves: of the signature "serving_default", else of the one with the most operators."""
    sizes = {one.graph: len(lite.subgraphs[one.graph].operators) for one in lite.signatures}
    if len(sizes) < 2:
        return 0
    default = next((one.graph for one in lite.signatures if one.key == SERVING), None)
    return max(sizes, key=lambda number: sizes[number]) if default is None else default


def _lite(raw: RawModel) -> RawLite:
    assert raw.lite is not None
    return raw.lite


@dataclass(frozen=True, kw_only=True)
class IntegerScale:
    """How a type stands for real numbers: `scale * (stored - zero_point)`, `low` to `high` at most."""

    scale: float
    zero_point: int
    dtype: str

    @property
    def low(self) -> float:
        """Smallest real number that the type holds."""
        return self.scale * float(np.iinfo(self.dtype).min - self.zero_point)

    @property
    def high(self) -> float:
        """Largest one."""
        return self.scale * float(np.iinfo(self.dtype).max - self.zero_point)

    def stored(self, values: NDArray[Any]) -> NDArray[Any]:
        """Rounded to the nearest, ties to even, and held to the type's range; NaN becomes the zero point."""
        limits = np.iinfo(self.dtype)
        steps = np.multiply(values, np.float32(1 / self.scale), dtype=np.float32)
        np.rint(steps, out=steps)
        steps += np.float32(self.zero_point)
        np.clip(steps, limits.min, limits.max, out=steps)
        if np.isnan(np.min(steps, initial=0)):
            np.nan_to_num(steps, copy=False, nan=self.zero_point)
        stored: NDArray[Any] = steps.astype(self.dtype)
        return stored

    def real(self, stored: NDArray[Any]) -> NDArray[np.float32]:
        """The numbers that are meant, as float32."""
        steps = stored.astype(np.float32)
        steps -= np.float32(self.zero_point)
        steps *= np.float32(self.scale)
        return steps


def affine(tensor: RawLiteTensor) -> IntegerScale | None:
    """Of an integer activation; None for float, and for integers that stand for themselves."""
    quantization = tensor.quantization
    if quantization is None or tensor.dtype not in ("int8", "uint8", "int16") or quantization.scales.size != 1:
        return None
    scale = float(quantization.scales[0])
    if not scale > 0:
        return None
    return IntegerScale(scale=scale, zero_point=int(quantization.zero_points[0]), dtype=tensor.dtype)


def scheme_of(file: LiteFile) -> str:
    """How a file was quantized: "float", or the name of the scheme in `compare.convert` that gives the like."""
    tensors = file.graph.tensors
    kinds = {tensor.dtype for tensor in tensors if tensor.data is None and affine(tensor) is not None}
    kernels = [t for t in tensors if t.data is not None and len(t.shape) > 1 and t.quantization is not None]
    if "int16" in kinds:
        return "int16x8"
    if kinds:
        several = any(t.quantization is not None and t.quantization.scales.size > 1 for t in kernels)
        return "int8" if several or not kernels else "int8-per-tensor"
    if kernels:
        return "dynamic"
    return "float16" if any(t.dtype == "float16" and t.data is not None for t in tensors) else "float"


def real_values(tensor: RawLiteTensor, values: NDArray[Any]) -> NDArray[Any]:
    """What the values of a tensor stand for."""
    how = affine(tensor)
    if how is not None:
        return how.real(values)
    return values if values.dtype in (np.float32, np.float64) else values.astype(np.float32)


class Runner:
    """A file in LiteRT's interpreter. Shapes follow what is fed."""

    def __init__(self, content: bytes, path: str) -> None:
        self._path = path
        self._content = content
        self._delegates = True
        self._shapes: dict[int, tuple[int, ...]] = {}
        self._asked: dict[int, tuple[int, ...]] = {}
        self._interpreter = _open(content, path, delegates=True)

    def run(self, feeds: Mapping[int, NDArray[Any]]) -> None:
        """One invocation with tensor number -> values; raises BncheckError where LiteRT refuses."""
        self.shape({number: values.shape for number, values in feeds.items()})
        for number, values in feeds.items():
            self._interpreter.set_tensor(number, values)
        self.invoke()

    def shape(self, shapes: Mapping[int, tuple[int, ...]]) -> None:
        """Makes the inputs, by tensor number, of these shapes, so that they can be written to."""
        if shapes == self._shapes:
            return
        self._asked = dict(shapes)
        try:
            self._resize(shapes)
        except (RuntimeError, ValueError) as error:
            self._without_delegates(error)
            self._shapes = {}
            try:
                self._resize(shapes)
            except (RuntimeError, ValueError) as again:
                raise self._refused(again) from again

    def invoke(self) -> None:
        """Runs on what the inputs hold."""
        try:
            self._interpreter.reset_all_variables()
            self._interpreter.invoke()
        except (RuntimeError, ValueError) as error:
            held = {number: np.array(self.tensor(number)) for number in self._shapes}
            self._without_delegates(error)
            self._shapes = {}
            try:
                self._resize({number: values.shape for number, values in held.items()})
                for number, values in held.items():
                    self._interpreter.set_tensor(number, values)
                self._interpreter.invoke()
            except (RuntimeError, ValueError) as again:
                raise self._refused(again) from again

    def _resize(self, shapes: Mapping[int, tuple[int, ...]]) -> None:
        with silence():
            for number, shape in shapes.items():
                if self._shapes.get(number) != shape:
                    self._interpreter.resize_tensor_input(number, shape, strict=False)
            self._interpreter.allocate_tensors()
        self._shapes = dict(shapes)

    def _without_delegates(self, error: Exception) -> None:
        """A delegate may refuse what the kernels that come with the interpreter run."""
        if not self._delegates:
            raise self._refused(error) from error
        self._delegates = False
        self._interpreter = _open(self._content, self._path, delegates=False)

    def tensor(self, number: int) -> NDArray[Any]:
        """Values of a tensor after a run: a view of the interpreter's memory, to be let go before the next run."""
        return np.asarray(self._interpreter.tensor(number)())

    def _refused(self, error: Exception) -> BncheckError:
        shapes = ", ".join(str(list(shape)) for shape in list(self._asked.values())[:3])
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:300]
        return BncheckError(f"{self._path}: LiteRT rejects an input of shape {shapes}: {reason}")


def _open(content: bytes, path: str, *, delegates: bool) -> Any:
    module = _interpreters()
    kinds = module.OpResolverType
    kind = kinds.AUTO if delegates else kinds.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    try:
        with quiet_tensorflow.without_warnings(), silence():
            return module.Interpreter(
                model_content=content, num_threads=os.cpu_count() or 1, experimental_op_resolver_type=kind
            )
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0][:300]
        raise BncheckError(f"{path}: LiteRT cannot run this file: {reason}") from error


def _interpreters() -> Any:
    for name in _INTERPRETERS:
        if importlib.util.find_spec(name.partition(".")[0]) is not None:
            return importlib.import_module(name)
    raise BncheckError(f"neither ai-edge-litert nor tensorflow is installed: {install('tf')}")


def feeds_of(file: LiteFile, images: NDArray[Any]) -> dict[int, NDArray[Any]]:
    """Input tensor -> values of a batch, which for several inputs has a field for each, in the model's order."""
    names = images.dtype.names
    return {
        number: _input_values(entry, images if names is None else images[names[field]])
        for number, entry, field in zip(file.graph.inputs, file.inputs, file.fields, strict=True)
    }


def _input_values(entry: RawLiteTensor, images: NDArray[Any]) -> NDArray[Any]:
    """Images as an input takes them: rounded by its scale where it has one, else in its type."""
    how = affine(entry)
    if how is not None and images.dtype != np.dtype(how.dtype):
        return how.stored(images)
    return np.ascontiguousarray(images, dtype=entry.dtype)


@dataclass(frozen=True, kw_only=True, eq=False)
class Batching:
    """How a file takes many samples at once."""

    content: bytes
    """The file, its shapes opened where that was needed."""
    size: int | None
    """Samples an invocation must have; None: any number."""


def batching(file: LiteFile, images: NDArray[Any]) -> Batching:
    """Whether the file gives the same for a batch as for its samples one by one; tried, not assumed.

    Of a file that is declared for any number only where a RESHAPE may say otherwise: ai-edge-quantizer writes those
    around its rotations for single samples.
    """
    sizes = {entry.shape[0] if entry.shape else 1 for entry in file.inputs}
    size = sizes.pop() if len(sizes) == 1 else 1
    declared = all((entry.shape_signature or entry.shape or (0,))[0] == -1 for entry in file.inputs)
    if declared and not any(operator.kind == "RESHAPE" for operator in file.graph.operators):
        return Batching(content=file.content, size=None)
    if not declared and size != 1:
        return Batching(content=file.content, size=size or 1)
    if len(images) < 2:
        return Batching(content=file.content, size=1)
    if declared and _runs(file, file.content, images):
        return Batching(content=file.content, size=None)
    opened = free_batch(file.content)
    return Batching(content=opened, size=None) if _alike_alone(file, opened, images) else _one_by_one(file)


def _one_by_one(file: LiteFile) -> Batching:
    return Batching(content=file.content, size=1)


def _runs(file: LiteFile, content: bytes, images: NDArray[Any]) -> bool:
    try:
        Runner(content, file.path).run(feeds_of(file, images[:2]))
    except BncheckError:
        return False
    return True


def _alike_alone(file: LiteFile, opened: bytes, images: NDArray[Any]) -> bool:
    """Whether two samples together give what each gives by itself to the file as it is."""
    pair = images[:2]
    single = Runner(file.content, file.path)
    try:
        both = Runner(opened, file.path)
        both.run(feeds_of(file, pair))
        for sample in range(2):
            single.run(feeds_of(file, pair[sample : sample + 1]))
            for output in file.graph.outputs:
                if not _same_sample(single.tensor(output), both.tensor(output), sample):
                    return False
    except BncheckError:
        return False
    return True


def _same_sample(alone: NDArray[Any], both: NDArray[Any], sample: int) -> bool:
    return both.shape == (2, *alone.shape[1:]) and _alike(alone[0], both[sample])


def _alike(one: NDArray[Any], other: NDArray[Any]) -> bool:
    if np.issubdtype(one.dtype, np.integer):
        return bool(np.max(np.abs(one.astype(np.int64) - other), initial=0) <= 1)
    return bool(np.allclose(one, other, rtol=1e-4, atol=1e-5, equal_nan=True))


def portions(images: NDArray[Any], size: int) -> Iterator[slice]:
    """The batch in parts of at most `size` samples, as even as can be, so that shapes seldom change."""
    if not len(images):
        return
    parts = -(-len(images) // size)
    step = -(-len(images) // parts)
    for start in range(0, len(images), step):
        yield slice(start, min(start + step, len(images)))
