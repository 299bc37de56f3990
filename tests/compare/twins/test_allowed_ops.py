"""Ops that touch files, the terminal or Python, or that wait, never run untrusted, wherever in a graph they hide."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bncheck
from bncheck.compare.twins.allowed_ops import allowed
from bncheck.facts.errors import BncheckError
from bncheck.sources.graph import protos

pytestmark = [pytest.mark.tensorflow, pytest.mark.filterwarnings("ignore")]


class _TensorFlow:
    """The module, imported when the first test asks: collecting tests must not."""

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module("tensorflow"), name)


tf: Any = _TensorFlow()
Attack = Callable[[Any, str], Any]
"""(features (samples, 3), path of a file that must not come to be) -> features that depend on more than numbers."""


def _written(x: Any, path: str) -> Any:
    with tf.control_dependencies([tf.raw_ops.WriteFile(filename=path, contents="it ran")]):
        return tf.identity(x)


def _while(x: Any, path: str) -> Any:
    return tf.while_loop(lambda i, _: i < 2, lambda i, v: (i + 1, _written(v, path)), (tf.constant(0), x))[1]


def _printed_in_loop(x: Any, _: str) -> Any:
    def body(i: Any, v: Any) -> Any:
        with tf.control_dependencies([tf.raw_ops.PrintV2(input=tf.constant("\033[2J"))]):
            return i + 1, tf.identity(v)

    return tf.while_loop(lambda i, _: i < 2, body, (tf.constant(0), x))[1]


def _in_branch(x: Any, path: str) -> Any:
    def body(i: Any, v: Any) -> Any:
        return i + 1, tf.cond(tf.reduce_sum(v) < 1e9, lambda: _written(v, path), lambda: v)

    return tf.while_loop(lambda i, _: i < 2, body, (tf.constant(0), x))[1]


def _in_case(x: Any, path: str) -> Any:
    def body(i: Any, v: Any) -> Any:
        return i + 1, tf.switch_case(i, [lambda: v, lambda: _in_branch(v, path)])

    return tf.while_loop(lambda i, _: i < 2, body, (tf.constant(0), x))[1]


def _mapped(x: Any, path: str) -> Any:
    data = tf.data.Dataset.from_tensors(x).map(lambda v: _written(v, path))
    return data.reduce(tf.zeros_like(x), lambda _, v: v)


def _reduced(x: Any, path: str) -> Any:
    return tf.data.Dataset.from_tensors(x).reduce(tf.zeros_like(x), lambda _, v: _written(v, path))


def _defun(x: Any, path: str) -> Any:
    row = tf.function(lambda v: _written(v, path)).get_concrete_function(tf.TensorSpec([3], tf.float32))
    row.add_to_graph()
    (got,) = tf.raw_ops.MapDefun(
        arguments=[x],
        captured_inputs=[],
        output_types=[tf.float32],
        output_shapes=[[3]],
        f=row,
        max_intra_op_parallelism=1,
    )
    return tf.reshape(got, [-1, 3])


def _batched(x: Any, path: str) -> Any:
    return tf.nondifferentiable_batch_function(1, 8, 10)(lambda v: _written(v, path))(x)


def _files_read(x: Any, path: str, data: Callable[[], Any]) -> Any:
    Path(path).with_name("read.txt").write_text("1\n2\n")
    count = data().reduce(np.int64(0), lambda n, _: n + 1)
    return x + tf.cast(count, tf.float32)


def _lines(x: Any, path: str) -> Any:
    return _files_read(x, path, lambda: tf.data.TextLineDataset(str(Path(path).with_name("read.txt"))))


def _csv(x: Any, path: str) -> Any:
    at = str(Path(path).with_name("read.txt"))
    return _files_read(x, path, lambda: tf.data.experimental.CsvDataset(at, [tf.float32]))


def _records(x: Any, path: str) -> Any:
    at = str(Path(path).with_name("read.txt"))
    return _files_read(x, path, lambda: tf.data.FixedLengthRecordDataset(at, 1))


def _cached(x: Any, path: str) -> Any:
    return tf.data.Dataset.from_tensors(x).cache(path).reduce(tf.zeros_like(x), lambda _, v: v)


def _snapshot(x: Any, path: str) -> Any:
    return tf.data.Dataset.from_tensors(x).snapshot(path).reduce(tf.zeros_like(x), lambda _, v: v)


def _unstaged(x: Any, _: str) -> Any:
    (got,) = tf.raw_ops.Unstage(dtypes=[tf.float32])
    return x + tf.reshape(got, [1, 3])


def _looped_unstaged(x: Any, path: str) -> Any:
    return tf.while_loop(lambda i, _: i < 1, lambda i, v: (i + 1, _unstaged(v, path)), (tf.constant(0), x))[1]


ATTACKS: Mapping[str, Attack] = {
    "ReadFile": lambda x, path: x + tf.cast(tf.strings.length(tf.io.read_file(path)), tf.float32),
    "RestoreSlice": lambda x, path: (
        x + tf.raw_ops.RestoreSlice(file_pattern=path, tensor_name="a", shape_and_slice="1 0,1", dt=tf.float32)
    ),
    "RestoreV2": lambda x, path: (
        x + tf.raw_ops.RestoreV2(prefix=path, tensor_names=["a"], shape_and_slices=[""], dtypes=[tf.float32])[0]
    ),
    "ImmutableConst": lambda x, path: (
        x + tf.raw_ops.ImmutableConst(dtype=tf.float32, shape=[1, 3], memory_region_name=path)
    ),
    "DebugIdentity": lambda x, path: tf.raw_ops.DebugIdentity(input=x, debug_urls=[f"file://{path}"]),
    "DebugIdentityV2": lambda x, path: tf.raw_ops.DebugIdentityV2(input=x, debug_urls=[f"file://{path}"]),
    "Print": lambda x, _: tf.raw_ops.Print(input=x, data=[x], message="\033[2J"),
    "EagerPyFunc": lambda x, path: tf.py_function(lambda v: (Path(path).write_text("it ran"), v)[1], [x], tf.float32),
    "PyFuncStateless": lambda x, path: tf.numpy_function(
        lambda v: (Path(path).write_text("it ran"), v)[1], [x], tf.float32, stateful=False
    ),
    "WriteFile in While": _while,
    "PrintV2 in While": _printed_in_loop,
    "WriteFile in If in While": _in_branch,
    "WriteFile in Case in If in While": _in_case,
    "MapDataset": _mapped,
    "ReduceDataset": _reduced,
    "MapDefun": _defun,
    "BatchFunction": _batched,
    "TextLineDataset": _lines,
    "CSVDataset": _csv,
    "FixedLengthRecordDatasetV2": _records,
    "CacheDataset": _cached,
    "SnapshotDataset": _snapshot,
    "Unstage": _unstaged,
    "Unstage in While": _looped_unstaged,
}
"""Where it hides -> how it is built in."""


def saved(folder: Path, attack: Attack | None, path: str) -> Path:
    """A checkpoint with a MetaGraph: features behind batch norm, through the attack, to "scores"."""
    v1 = tf.compat.v1
    with tf.Graph().as_default():
        images = v1.placeholder(tf.float32, [None, 4, 4, 3], name="images")
        vectors = [
            v1.get_variable(f"bn/{name}", [3], tf.float32, v1.initializers.constant(value))
            for name, value in (("gamma", 1), ("beta", 0), ("moving_mean", 0.1), ("moving_variance", 0.9))
        ]
        net, *_ = v1.nn.fused_batch_norm(images, *vectors, is_training=False)
        net = tf.reduce_mean(net, [1, 2])
        net = net if attack is None else attack(net, path)
        tf.multiply(tf.nn.relu(net), tf.ones([3]), name="scores")
        with v1.Session() as session:
            session.run(v1.global_variables_initializer())
            v1.train.Saver(vectors).save(session, str(folder / "model.ckpt"))
    return folder / "model.ckpt"


def compare(model: Path, **options: Any) -> Any:
    """Train against eval mode at "scores"."""
    data = model.with_name("images.npy")
    np.save(data, np.random.default_rng(0).normal(size=(8, 4, 4, 3)).astype(np.float32))
    return bncheck.compare_train_vs_eval(model, data=data, outputs=("scores",), **options)


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_touches_more_than_numbers_is_refused_by_name(
    tmp_path: Path, attack: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """In the main graph, in bodies of loops, in branches, in functions of data pipelines; none of them runs."""
    written = tmp_path / "written.txt"
    model = saved(tmp_path, ATTACKS[attack], str(written))
    with pytest.raises(BncheckError, match=r" is the op (?P<op>\w+), not one of the ops .*--trust-model"):
        compare(model)
    assert not list(tmp_path.glob("written*"))
    assert "\033" not in "".join(capfd.readouterr())


def test_a_trusted_model_runs_them(tmp_path: Path) -> None:
    """What is refused is refused for its ops alone, and `--trust-model` lifts that."""
    written = tmp_path / "written.txt"
    model = saved(tmp_path, _while, str(written))
    assert compare(model, trust_model=True).comparison is not None
    assert written.read_text() == "it ran"


def test_a_function_in_the_name_of_an_op_runs_for_its_values_alone(tmp_path: Path) -> None:
    """TensorFlow takes a function of the library called Relu for the op Relu."""
    written = tmp_path / "written.txt"
    model = saved(tmp_path, None, "")
    at = Path(f"{model}.meta")
    meta = protos.MetaGraphDef.FromString(at.read_bytes())

    def evil(x: Any) -> Any:
        return _written(x, str(written))

    concrete = tf.function(evil).get_concrete_function(tf.TensorSpec(None, tf.float32))
    function = meta.graph_def.library.function.add()
    function.ParseFromString(concrete.function_def.SerializeToString())
    function.signature.name = "Relu"
    at.write_bytes(meta.SerializeToString())
    compare(model)  # as a call its values are those of its body; what it does beside them falls away
    assert not written.exists()


def test_functions_that_nothing_reaches_do_not_matter(tmp_path: Path) -> None:
    """A training graph holds its input pipeline too: it is left out, with all that it would read and write."""
    pipeline = tf.function(lambda x: _written(x, str(tmp_path / "written.txt")))

    def beside(x: Any, _: str) -> Any:
        pipeline(tf.constant(1.0))
        return x

    assert compare(saved(tmp_path, beside, "")).comparison is not None
    assert not (tmp_path / "written.txt").exists()


@pytest.mark.parametrize(
    "op",
    "Conv2D FusedBatchNormV3 MatMul Relu6 While StatelessIf Switch Merge TensorListStack Einsum ResizeBilinear RFFT "
    "StatelessRandomUniformV2 FakeQuantWithMinMaxVars CudnnRNNV3 PartitionedCall TensorArrayGatherV3 Roll".split(),
)
def test_ops_of_mathematics_arrays_and_control_flow_run(op: str) -> None:
    """A sample of each kind."""
    assert allowed(op)


@pytest.mark.parametrize(
    "op",
    "WriteFile ReadFile SaveV2 RestoreV2 PyFunc EagerPyFunc PyFuncStateless Print PrintV2 ImmutableConst Abort "
    "RemoteCall _Send _Recv Unstage QueueDequeue QueueDequeueV2 Barrier MapDataset GeneratorDataset DecodeProtoV2 "
    "XlaCallModule LookupTableFindV2 AssertNext Timestamp mine>Op Mine __class__ cast abs".split(),
)
def test_other_ops_do_not(op: str) -> None:
    """Files, checkpoints, Python, terminal, processes, waiting, custom ops; nor what is no op but is called so."""
    assert not allowed(op)


def test_every_op_of_the_real_models_is_allowed() -> None:
    """Ops that the serving paths of public models need."""
    folder = Path(__file__).parents[4] / "shared" / "real"
    models = [file.parent for file in sorted(folder.rglob("saved_model.pb"))]
    if not models:
        pytest.skip("../shared/real is not here")
    for model in models:
        report = bncheck.compare_train_vs_eval(model, data="synthetic", batches=1)
        assert report.comparison is not None, model
