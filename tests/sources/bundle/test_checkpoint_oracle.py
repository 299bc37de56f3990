"""Checkpoints that TensorFlow writes, read by bncheck and by TensorFlow's own reader: the same, to the bit."""

from __future__ import annotations

import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundle_writer import BFloat16, Partitioned, write_bundle
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bncheck.sources import run_dir
from bncheck.sources.bundle.checkpoint import read_checkpoint

tf = pytest.importorskip("tensorflow")
pytestmark = pytest.mark.tensorflow

KINDS = "float16 float32 float64 int8 int16 int32 int64 uint8 uint16 uint32 uint64 bool complex64 complex128".split()
NAMES = st.text(
    st.characters(min_codepoint=33, max_codepoint=0x2FFF, exclude_categories=("Cs",)), min_size=1, max_size=40
)


@st.composite
def arrays(draw: st.DrawFn) -> Any:
    """An array of any dtype and small shape: NaN, infinities and denormals included, strings of any bytes."""
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
    kind = draw(st.sampled_from([*KINDS, "string", "bfloat16"]))
    if kind == "string":
        texts = draw(st.lists(st.binary(max_size=200), min_size=int(np.prod(shape)), max_size=int(np.prod(shape))))
        array = np.empty(len(texts), object)
        array[:] = texts
        return array.reshape(shape)
    if kind == "bfloat16":
        return tf.cast(draw(hnp.arrays(np.float32, shape)), tf.bfloat16)
    return draw(hnp.arrays(kind, shape))


@st.composite
def partitioned(draw: st.DrawFn) -> tuple[np.ndarray, int, list[int]]:
    """An array, an axis, and where it is cut along that axis."""
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=90))
    axis = draw(st.integers(0, len(shape) - 1))
    cuts = draw(st.lists(st.integers(1, max(1, shape[axis] - 1)), max_size=3, unique=True)) if shape[axis] > 1 else []
    array = np.arange(np.prod(shape), dtype=draw(st.sampled_from(["float32", "int64"]))).reshape(shape)
    return array, axis, sorted(cuts)


def pieces(name: str, whole: np.ndarray, axis: int, cuts: list[int]) -> list[tuple[str, str, np.ndarray]]:
    """(name, shape and slice as SaveV2 takes it, values) of every piece."""
    ends = [0, *cuts, whole.shape[axis]]
    found = []
    for start, stop in pairwise(ends):
        spec = ":".join(f"{start},{stop - start}" if a == axis else "-" for a in range(whole.ndim))
        found.append((name, f"{' '.join(map(str, whole.shape))} {spec}", whole.take(range(start, stop), axis)))
    return found


def save(prefix: str, saved: list[tuple[str, str, Any]], shards: int) -> None:
    """Writes with TensorFlow; over several shards by MergeV2Checkpoints, as a sharded Saver does."""
    parts = [prefix] if shards == 1 else [f"{prefix}_temp/part-{n:05d}-of-{shards:05d}" for n in range(shards)]
    for number, part in enumerate(parts):
        own = saved[number::shards]
        tf.raw_ops.SaveV2(
            prefix=part,
            tensor_names=[name for name, _, _ in own],
            shape_and_slices=[spec for _, spec, _ in own],
            tensors=[tf.constant(value) if isinstance(value, np.ndarray) else value for _, _, value in own],
        )
    if shards > 1:
        tf.raw_ops.MergeV2Checkpoints(checkpoint_prefixes=parts, destination_prefix=prefix)


def same(prefix: str) -> int:
    """Holds every tensor against TensorFlow's reader; gives their number."""
    reader = tf.train.load_checkpoint(prefix)
    shapes, types = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
    tensors = read_checkpoint(Path(prefix)).tensors
    assert set(tensors) == set(shapes)
    for name, tensor in tensors.items():
        assert list(tensor.shape) == shapes[name]
        assert tensor.dtype == types[name].name
        ours, theirs = tensor.read(), reader.get_tensor(name)
        if tensor.dtype == "bfloat16":
            assert ours.dtype == np.float32
            theirs = theirs.astype(np.float32)
        if tensor.dtype == "string":
            assert ours.tolist() == np.asarray(theirs, object).tolist()
        else:
            assert ours.dtype == theirs.dtype
            assert ours.tobytes() == theirs.tobytes()
    return len(tensors)


def check(tensors: dict[str, Any], sliced: dict[str, Any], shards: int) -> None:
    """One bundle, written by TensorFlow and read by both."""
    saved = [(name, "", value) for name, value in tensors.items()]
    for name, (whole, axis, cuts) in sliced.items():
        if name not in tensors:
            saved += pieces(name, whole, axis, cuts)
    shards = min(shards, len(saved))
    with tempfile.TemporaryDirectory() as folder:
        save(f"{folder}/m", saved, shards)
        assert same(f"{folder}/m") == len({name for name, _, _ in saved})


BUNDLES = given(
    st.dictionaries(NAMES, arrays(), min_size=1, max_size=8),
    st.dictionaries(NAMES, partitioned(), max_size=2),
    st.integers(1, 3),
)
QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]


@BUNDLES
@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=QUIET, database=None)
def test_bundles(tensors: dict[str, Any], sliced: dict[str, Any], shards: int) -> None:
    """150 bundles of any types, shapes, names, slices and shards read the same."""
    check(tensors, sliced, shards)


@pytest.mark.slow
@BUNDLES
@settings(max_examples=2000, deadline=None, suppress_health_check=QUIET, database=None)
def test_two_thousand_bundles(tensors: dict[str, Any], sliced: dict[str, Any], shards: int) -> None:
    """2,000 bundles, other ones every time."""
    check(tensors, sliced, shards)


@pytest.mark.parametrize("start", [0, 1, 63, 64, 127, 8191, 8192, 2**20 - 1, 2**20, 2**27, 2**34])
def test_slice_keys(tmp_path: Path, start: int) -> None:
    """Starts of every length of the key's encoding are found under TensorFlow's key."""
    length = start + 3
    tf.raw_ops.SaveV2(
        prefix=str(tmp_path / "m"),
        tensor_names=["a/é\x01z"],
        shape_and_slices=[f"{length} 2 {start},3:-"],
        tensors=[tf.ones([3, 2])],
    )
    tensors = read_checkpoint(tmp_path / "m").tensors
    assert list(tensors) == ["a/é\x01z"]
    assert tensors["a/é\x01z"].shape == (length, 2)


@pytest.mark.parametrize(
    "options", [{}, {"shards": 3}, {"big_endian": True}, {"block_size": 1}, {"restart_interval": 1}]
)
def test_our_writer(tmp_path: Path, options: dict[str, Any]) -> None:
    """What the tests' own writer writes, TensorFlow reads: the two halves of the tests hold each other."""
    rng = np.random.default_rng(1)
    tensors: dict[str, Any] = {kind: rng.integers(0, 2, (2, 3)).astype(kind) for kind in KINDS}
    tensors |= {"text": np.array([b"", b"x" * 300, b"\0"], object), "half": BFloat16(np.float32([1, -3]))}
    tensors |= {"rows": Partitioned(rng.normal(size=(200, 3)), 0, (3, 100)), "empty": np.zeros((0, 2), np.float32)}
    write_bundle(tmp_path / "m", tensors, **options)
    assert same(str(tmp_path / "m")) == len(tensors)


def saver_checkpoint(folder: Path, **options: Any) -> str:
    """A checkpoint of a TF1 graph with a partitioned variable and Adam, by tf.train.Saver."""
    v1 = tf.compat.v1
    with tf.Graph().as_default():
        with v1.variable_scope("net", partitioner=v1.fixed_size_partitioner(3)):
            weights = v1.get_variable("weights", [7, 4])
        v1.get_variable("bn/moving_mean", initializer=np.float32([1, 2, 3]), trainable=False)
        step = v1.train.get_or_create_global_step()
        train = v1.train.AdamOptimizer(0.1).minimize(tf.reduce_sum(tf.concat(list(weights), 0) ** 2), step)
        saver = v1.train.Saver(**options)
        with v1.Session() as session:
            session.run(v1.global_variables_initializer())
            for _ in range(4):
                session.run(train)
            return str(saver.save(session, str(folder / "model.ckpt"), global_step=step))


@pytest.mark.parametrize("sharded", [False, True])
def test_saver(tmp_path: Path, *, sharded: bool) -> None:
    """tf.train.Saver's checkpoints, sharded or not, with a partitioned variable and its slots."""
    prefix = saver_checkpoint(tmp_path, sharded=sharded)
    assert same(prefix) == 7
    assert read_checkpoint(tmp_path).path == Path(prefix)


@pytest.mark.parametrize("sharded", [False, True])
def test_saver_v1(tmp_path: Path, *, sharded: bool) -> None:
    """A real V1 checkpoint, one file or sharded, with a partitioned variable: TensorFlow reads the same values."""
    prefix = saver_checkpoint(tmp_path, sharded=sharded, write_version=tf.compat.v1.train.SaverDef.V1)
    found = read_checkpoint(Path(prefix))
    assert len(found.tensors) == 7
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        for name, tensor in found.tensors.items():
            kind = tf.as_dtype(tensor.dtype)
            theirs = tf.raw_ops.RestoreSlice(file_pattern=prefix, tensor_name=name, shape_and_slice="", dt=kind)
            np.testing.assert_array_equal(tensor.read(), session.run(theirs))
    assert found.path == tmp_path / Path(prefix).name.partition("-?")[0]
    assert read_checkpoint(tmp_path).path == found.path
    assert run_dir(tmp_path) == [found.path]


@pytest.mark.parametrize("dtype", ["float64", "float16", "int32", "int64", "uint8", "int8", "bool"])
def test_types_of_v1(tmp_path: Path, dtype: str) -> None:
    """Each type is listed in another field of the tensor."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.compat.v1.get_variable("v", initializer=tf.cast([[0, 1, 3]], dtype))
        session.run(tf.compat.v1.global_variables_initializer())
        saver = tf.compat.v1.train.Saver(write_version=tf.compat.v1.train.SaverDef.V1)
        prefix = saver.save(session, str(tmp_path / "m.ckpt"))
    tensor = read_checkpoint(Path(prefix)).tensors["v"]
    assert tensor.dtype == dtype
    assert tensor.read().astype(int).tolist() == [[0, 1, 1 if dtype == "bool" else 3]]


def test_object_checkpoint(tmp_path: Path) -> None:
    """tf.train.Checkpoint: the object graph links each variable's key to its own name."""

    class Block(tf.Module):
        def __init__(self) -> None:
            super().__init__(name="block")
            self.moving_mean = tf.Variable([1.0, 2.0], name="bn/moving_mean")
            self.inner = [tf.Variable(3, name="counter")]

    prefix = tf.train.Checkpoint(block=Block()).write(str(tmp_path / "ck"))
    assert same(prefix) == 3
    model = read_checkpoint(Path(prefix))
    assert model.format.label == "TF2 checkpoint"
    own = {a.checkpoint_key: a.full_name for node in model.object_graph.nodes for a in node.attributes}
    assert own["block/moving_mean/.ATTRIBUTES/VARIABLE_VALUE"] == "bn/moving_mean"
    assert set(own) == set(model.tensors) - {"_CHECKPOINTABLE_OBJECT_GRAPH"}


def test_snappy_index(tmp_path: Path) -> None:
    """TensorFlow reads an index whose blocks are compressed, and so does bncheck: the same names and values."""
    pytest.importorskip("cramjam")
    values = {f"layer_{n:02d}/BatchNorm/moving_mean": np.arange(8, dtype=np.float32) + n for n in range(40)}
    write_bundle(tmp_path / "model.ckpt", values, compression=1)
    theirs = tf.train.load_checkpoint(str(tmp_path / "model.ckpt"))
    ours = read_checkpoint(tmp_path / "model.ckpt").tensors
    assert sorted(theirs.get_variable_to_shape_map()) == sorted(ours) == sorted(values)
    for name, value in values.items():
        assert np.array_equal(theirs.get_tensor(name), value)
        assert np.array_equal(ours[name].read(), value)
