"""Repair end to end on real models: MobileNetV2 trained wrongly on digits, small TF1 graphs, both Keras."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bncheck.cli.main import main
from bncheck.commands.compare import compare_train_vs_eval
from bncheck.commands.gate.gate import gate
from bncheck.commands.inspect import inspect_checkpoint
from bncheck.facts.errors import UsageError
from bncheck.facts.findings import Verdict
from bncheck.facts.repairs import RepairReport, RepairVerdict
from bncheck.repair import DataOptions, repair
from bncheck.repair.write import destination
from bncheck.sources import open_model

FIXTURES = Path(__file__).parents[2] / "fixtures"
NETS = FIXTURES / "mobilenet_v2"
OUTSIDE = 0.015
"""How far below train mode eval mode may be after --data."""


def source(variant: str) -> Path:
    """Prefix of one variant's checkpoint."""
    return NETS / variant / "model.ckpt-300"


def test_debias_needs_neither_data_nor_tensorflow(tmp_path: Path) -> None:
    """All 52 layers of the decay 0.99 checkpoint: inspected before and after, source unchanged, provenance complete."""
    before = {path.name: path.read_bytes() for path in source("decay_0.99").parent.iterdir()}
    report = repair(source("decay_0.99"), tmp_path / "fixed", debias=True)
    assert len(report.repaired) == 52
    assert report.left == ()
    assert [finding.code for finding in report.before.findings] == ["BN103"]
    assert report.after.findings == ()
    assert (report.before.exit_code, report.after.exit_code) == (1, 0)
    predicted = [layer.from_weights for layer in report.repaired if layer.from_weights is not None]
    assert len(predicted) == 51
    assert max(predicted) < 0.5
    assert (report.verdict, report.exit_code) == (RepairVerdict.UNVERIFIED, 3)
    assert {path.name: path.read_bytes() for path in source("decay_0.99").parent.iterdir()} == before
    told = json.loads(Path(report.provenance).read_text())
    assert told["method"] == "debias"
    assert (told["decay"], told["steps"]) == (pytest.approx(0.99), 300)
    index = before["model.ckpt-300.index"]
    assert told["source"]["sha256"] == {"model.ckpt-300.index": hashlib.sha256(index).hexdigest()}
    assert len(told["layers"]) == 52
    assert json.loads(report.to_json())["after"]["verdict"] == "pass"


def test_a_repair_says_what_to_do_with_what(tmp_path: Path) -> None:
    """Neither way, both ways, data that tell nothing."""
    with pytest.raises(UsageError, match="one of --data, --debias and --rescue"):
        repair(source("wired"), tmp_path / "out")
    with pytest.raises(UsageError, match="one of --data, --debias and --rescue"):
        repair(source("wired"), tmp_path / "out", debias=True, data="images")
    assert list(tmp_path.iterdir()) == []


def _data_at_hand(folder: Path) -> Path:
    """Images beside a folder."""
    path = folder.parent / f"{folder.name}_data.npz"
    np.savez(path, allow_pickle=False, images=np.zeros((4, 4, 4, 3), np.float32))
    return path


@pytest.mark.parametrize(
    ("case", "code"),
    [("bn109_vectors_swapped", "BN109"), ("bn115_checkpoint_graph_mismatch", "BN115")],
)
def test_statistics_that_are_not_the_fault_are_refused(case: str, code: str, tmp_path: Path) -> None:
    """Before anything is computed: their own gamma and beta could be overwritten."""
    folder = FIXTURES / "tiny" / case / "broken"
    graph = next(iter(folder.glob("*.meta")), None)
    report = repair(folder / "model.ckpt-80", tmp_path / "fixed", data=_data_at_hand(tmp_path), graph=graph)
    assert (report.verdict, report.exit_code) == (RepairVerdict.REFUSED, 1)
    assert report.judgement.reasons[0].startswith(code)
    assert list(tmp_path.iterdir()) == []


def test_the_command_prints_before_and_after(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Text for people, JSON for machines, exit code of the copy; refusals in one sentence with exit code 2."""
    path = str(source("decay_0.9997"))
    assert main(["repair", path, "-o", str(tmp_path / "a"), "--debias"]) == 3
    text = capsys.readouterr().out
    assert "52 of 52 batch norm layers" in text
    assert "FAIL  BN103 init-share-too-high (error, 52 layers)" in text
    assert "PASS  no findings" in text
    assert "UNVERIFIED" in text
    assert main(["repair", path, "-o", str(tmp_path / "b"), "--debias", "--format", "json", "--allow-unverified"]) == 0
    assert json.loads(capsys.readouterr().out)["before"]["findings"][0]["code"] == "BN103"
    for arguments, reason in (
        (["-o", str(tmp_path / "a"), "--debias"], "not overwritten"),
        (["-o", path, "--debias"], "is the source itself"),
        (["--in-place", "--debias"], "in place"),
        (["--debias"], "-o OUT"),
        (["-o", str(tmp_path / "c")], "one of --data, --debias and --rescue"),
        (["-o", str(tmp_path / "c"), "--debias", "--size", "big"], "HEIGHTxWIDTH"),
    ):
        assert main(["repair", path, *arguments]) == 2
        assert reason in capsys.readouterr().err
    assert main(["repair", str(source("forgotten")), "-o", str(tmp_path / "c"), "--debias"]) == 2
    assert "never moved" in capsys.readouterr().err


# --- with TensorFlow ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits() -> Any:
    """The digits that the fixtures were trained and tested on."""
    pytest.importorskip("tensorflow")
    from fixtures.digits import digits as load

    return load()


@pytest.fixture(scope="module")
def data(digits: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The training images as a file."""
    path = tmp_path_factory.mktemp("digits") / "train.npz"
    np.savez(path, images=digits.train_images[:960], labels=digits.train_labels[:960])
    return path


@pytest.fixture(scope="module")
def repaired(data: Path, tmp_path_factory: pytest.TempPathFactory) -> RepairReport:
    """The checkpoint whose updates were forgotten, repaired from the training images."""
    return repair(source("forgotten"), tmp_path_factory.mktemp("repaired") / "fixed", data=data)


def accuracy(prefix: Path, digits: Any, *, is_training: bool = False) -> float:
    """On the test split, in the graph that TF-slim builds for evaluation, restored by TensorFlow's Saver."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from fixtures.make_mobilenet_v2 import accuracy as measured

        return measured(str(prefix), digits, is_training=is_training)


@pytest.mark.tensorflow
@pytest.mark.parametrize(("variant", "least"), [("decay_0.99", 0.92), ("decay_0.9997", 0.85)])
def test_debias_brings_accuracy_back(variant: str, least: float, digits: Any, tmp_path: Path) -> None:
    """From chance to above 92 % and 85 %, without an image: with means that the weights predict."""
    repair(source(variant), tmp_path / "fixed", debias=True)
    assert accuracy(source(variant), digits) < 0.2
    assert accuracy(tmp_path / "fixed", digits) > least


@pytest.mark.tensorflow
def test_data_bring_forgotten_updates_back(digits: Any, repaired: RepairReport) -> None:
    """To within 1.5 points of train mode, from checkpoint and MetaGraph alone; compared before and after."""
    report, train = repaired, accuracy(source("forgotten"), digits, is_training=True)
    assert accuracy(source("forgotten"), digits) < 0.2
    assert accuracy(Path(report.output), digits) >= train - OUTSIDE
    before, after = report.compared_before, report.compared_after
    assert before is not None
    assert after is not None
    assert before.accuracy.train == after.accuracy.train
    assert before.accuracy.eval is not None
    assert before.accuracy.eval < 0.2
    assert after.accuracy.eval is not None
    assert after.accuracy.train is not None
    assert after.accuracy.eval >= after.accuracy.train - OUTSIDE
    assert (report.before.exit_code, report.exit_code) == (1, 0)


@pytest.mark.tensorflow
def test_what_only_running_shows_is_told(data: Path, tmp_path: Path) -> None:
    """Statistics of which the files alone say nothing wrong, and eval mode that fails: before is told as a failure."""
    raw, spoilt = open_model(source("wired")), tmp_path / "spoilt.ckpt"
    four_times = {key: 4 * held.read() for key, held in raw.tensors.items() if key.endswith("moving_variance")}
    destination(raw, spoilt).write(four_times, {}, "{}")
    assert inspect_checkpoint(spoilt).exit_code == 0
    report = repair(spoilt, tmp_path / "fixed", data=data)
    assert (report.before.exit_code, report.exit_code) == (1, 0)
    assert {"BN301", "BN302"} <= {finding.code for finding in report.before.findings}


@pytest.mark.tensorflow
def test_other_tensors_are_bit_identical_for_tensorflow(data: Path, tmp_path: Path) -> None:
    """TensorFlow's reader: 104 statistics are new, 160 other tensors are what they were."""
    tf = pytest.importorskip("tensorflow")
    report = repair(source("too_early"), tmp_path / "fixed", data=data, options=DataOptions(batches=2, compare=False))
    changed = {key for layer in report.repaired for key in (layer.mean, layer.variance)}
    old, new = (tf.train.load_checkpoint(str(path)) for path in (source("too_early"), tmp_path / "fixed"))
    keys = set(old.get_variable_to_shape_map())
    assert set(new.get_variable_to_shape_map()) == keys
    assert len(changed) == 104
    for key in keys:
        same = old.get_tensor(key).tobytes() == new.get_tensor(key).tobytes()
        assert same == (key not in changed)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Any]:
    """A TF1 graph in the making with one batch norm layer that two inputs share; gives (v1, apply, save)."""
    tf = pytest.importorskip("tensorflow")
    v1 = tf.compat.v1
    with tf.Graph().as_default() as graph:
        yield v1, graph, tmp_path / "small"


def handmade(v1: Any, values: Any) -> Any:
    """Batch norm by hand: fused, training, statistics beside it, moved by nobody."""
    with v1.variable_scope("bn", reuse=v1.AUTO_REUSE):
        gamma = v1.get_variable("gamma", [3], initializer=v1.ones_initializer())
        beta = v1.get_variable("beta", [3], initializer=v1.zeros_initializer())
        mean = v1.get_variable("moving_mean", [3], initializer=v1.zeros_initializer(), trainable=False)
        variance = v1.get_variable("moving_variance", [3], initializer=v1.ones_initializer(), trainable=False)
        found, batch_mean, batch_variance = v1.nn.fused_batch_norm(values, gamma, beta, is_training=True)
        updates = [
            v1.assign_sub(mean, (mean - batch_mean) * 0.1),
            v1.assign_sub(variance, (variance - batch_variance) * 0.1),
        ]
    return found, updates, (mean, variance)


@pytest.mark.tensorflow
def test_missing_statistics_are_added(small: Any) -> None:
    """A Saver that left them out (BN209): --data computes and adds them, and the training graph restores the copy."""
    v1, graph, prefix = small
    images = v1.placeholder("float32", [None, 4, 4, 3], name="images")
    out, _, statistics = handmade(v1, images)
    logits = v1.reduce_mean(out * v1.get_variable("w", [3]), [1, 2], name="logits")
    loss = v1.reduce_mean(v1.square(logits - v1.placeholder("float32", [None], name="targets")))
    v1.train.GradientDescentOptimizer(0.1).minimize(loss, name="train")
    kept = [v for v in v1.global_variables() if "moving" not in v.name]
    with v1.Session(graph=graph) as session:
        session.run(v1.global_variables_initializer())
        v1.train.Saver(kept).save(session, str(prefix))
    samples = np.random.default_rng(0).normal(5.0, 3.0, (320, 4, 4, 3)).astype(np.float32)
    np.save(prefix.with_name("data.npy"), samples)
    report = repair(prefix, prefix.with_name("fixed"), data=prefix.with_name("data.npy"))
    assert [layer.added for layer in report.repaired] == [("bn/moving_mean", "bn/moving_variance")]
    assert "BN108" in {finding.code for finding in report.before.findings}
    assert "BN108" not in {finding.code for finding in report.after.findings}
    with graph.as_default(), v1.Session(graph=graph) as session:
        v1.train.Saver([*kept, *statistics]).restore(session, str(prefix.with_name("fixed")))
        mean, variance = session.run(statistics)
    rows = samples.reshape(-1, 3).astype(np.float64)
    np.testing.assert_allclose(mean, rows.mean(0), rtol=1e-4)
    np.testing.assert_allclose(variance, rows.var(0), rtol=1e-4)


@pytest.mark.tensorflow
def test_what_trained_in_eval_mode_is_refused(small: Any) -> None:
    """Its graph tells that the weights fit the stored 0 and 1: nothing is computed, and nothing is written."""
    v1, graph, prefix = small
    images = v1.placeholder("float32", [None, 4, 4, 3], name="images")
    gamma, beta = v1.get_variable("bn/gamma", [3]), v1.get_variable("bn/beta", [3])
    mean = v1.get_variable("bn/moving_mean", [3], initializer=v1.zeros_initializer(), trainable=False)
    variance = v1.get_variable("bn/moving_variance", [3], initializer=v1.ones_initializer(), trainable=False)
    out, _, _ = v1.nn.fused_batch_norm(images, gamma, beta, mean, variance, is_training=False)
    v1.train.GradientDescentOptimizer(0.1).minimize(v1.reduce_mean(v1.square(out - 1.0)), name="train")
    with v1.Session(graph=graph) as session:
        session.run(v1.global_variables_initializer())
        for _ in range(3):
            session.run("train", {images: np.ones((2, 4, 4, 3), np.float32)})
        v1.train.Saver().save(session, str(prefix))
    report = repair(prefix, prefix.with_name("fixed"), data=_data_at_hand(prefix.parent))
    assert (report.verdict, report.exit_code) == (RepairVerdict.REFUSED, 1)
    assert report.judgement.reasons[0].startswith("BN204")
    assert not list(prefix.parent.glob("fixed*"))


@pytest.mark.tensorflow
def test_nan_in_the_weights_is_refused(small: Any) -> None:
    """Statistics of NaN activations would be NaN: nothing is written, and the weights are blamed."""
    v1, graph, prefix = small
    images = v1.placeholder("float32", [None, 4, 4, 3], name="images")
    out, updates, _ = handmade(v1, images * v1.get_variable("scale", initializer=[1.0, float("nan"), 1.0]))
    logits = v1.reduce_mean(out * v1.get_variable("w", [3]), [1, 2], name="logits")
    loss = v1.reduce_mean(v1.square(logits - v1.placeholder("float32", [None], name="targets")))
    with v1.control_dependencies(updates):
        v1.train.GradientDescentOptimizer(0.1).minimize(loss, name="train")
    with v1.Session(graph=graph) as session:
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, str(prefix))
    np.save(prefix.with_name("data.npy"), np.ones((64, 4, 4, 3), np.float32))
    with pytest.raises(UsageError, match="NaN or infinity reaches it"):
        repair(prefix, prefix.with_name("fixed"), data=prefix.with_name("data.npy"))
    assert not list(prefix.parent.glob("fixed*"))


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", ["keras", "tf_keras"])
@pytest.mark.parametrize("ending", [".keras", ".h5"])
def test_keras_files_are_repaired(name: str, ending: str, tmp_path: Path) -> None:
    """Layers that never moved, of equal size, one nested, called in another order than built: each gets its own."""
    keras = pytest.importorskip(name)
    keras.utils.set_random_seed(0)
    layers = keras.layers
    last, first = layers.BatchNormalization(name="last"), layers.BatchNormalization(name="first")
    inner_input = keras.Input((4,))
    inner = keras.Model(inner_input, layers.BatchNormalization(name="inside")(layers.Dense(4)(inner_input)), name="b")
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(3)(last(layers.Dense(4, "relu")(inner(first(inputs))))))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save(tmp_path / f"m{ending}")
    samples = np.random.default_rng(0).normal([3.0, -1.0, 0.0, 8.0], [1.0, 2.0, 0.1, 5.0], (640, 4)).astype(np.float32)
    np.save(tmp_path / "data.npy", samples)
    before = (tmp_path / f"m{ending}").read_bytes()
    report = repair(
        tmp_path / f"m{ending}",
        tmp_path / f"fixed{ending}",
        data=tmp_path / "data.npy",
        options=DataOptions(batch_size=64, tolerance=0),
    )
    assert {layer.layer for layer in report.repaired} == {"first", "b/inside", "last"}
    fixed = keras.models.load_model(tmp_path / f"fixed{ending}", compile=False)
    np.testing.assert_allclose(fixed.get_layer("first").moving_mean.numpy(), samples.mean(0), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(fixed.get_layer("first").moving_variance.numpy(), samples.var(0), rtol=1e-3)
    train, evaluated = (np.asarray(m(samples, training=t)) for m, t in ((model, True), (fixed, False)))
    assert np.sum((train - evaluated) ** 2) < 1e-2 * np.sum(train**2)
    assert (tmp_path / f"m{ending}").read_bytes() == before


@pytest.fixture(scope="module")
def bad_data(digits: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Data that must not earn a pass: name -> file."""
    images, labels = digits.train_images[:64], digits.train_labels[:64]
    noise = np.random.default_rng(0).normal(size=images.shape).astype(np.float32)
    made = {
        "one": (images[:1], labels[:1]),
        "noise": (noise, labels),
        "range": ((images + 1) / 2, labels),
        "class": (digits.train_images[digits.train_labels == 3][:64], np.full(64, 3)),
    }
    folder = tmp_path_factory.mktemp("bad")
    for name, (values, known) in made.items():
        np.savez(folder / f"{name}.npz", images=values, labels=known[: len(values)])
    return {name: folder / f"{name}.npz" for name in made}


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("variant", "name", "verdict"),
    [
        ("forgotten", "one", RepairVerdict.UNVERIFIED),
        ("forgotten", "noise", RepairVerdict.REFUSED),
        ("forgotten", "range", RepairVerdict.UNVERIFIED),
        ("forgotten", "class", RepairVerdict.UNVERIFIED),
        ("decay_0.99", "range", RepairVerdict.REFUSED),
    ],
)
def test_data_that_confirm_nothing_earn_no_pass(
    variant: str, name: str, verdict: RepairVerdict, bad_data: dict[str, Path], tmp_path: Path
) -> None:
    """Written with its doubts and exit code 3, or not written at all, exit code 1."""
    report = repair(source(variant), tmp_path / "fixed", data=bad_data[name], compare=False)
    assert report.verdict is verdict
    refused = verdict is RepairVerdict.REFUSED
    assert report.exit_code == (1 if refused else 3)
    assert report.judgement.reasons
    assert bool(list(tmp_path.iterdir())) is not refused


@pytest.mark.tensorflow
def test_settled_data_pass_and_are_told(repaired: RepairReport, data: Path, tmp_path: Path) -> None:
    """Labelled digits that every half was judged on; the copy's provenance says for which input it holds, to which
    `compare` and `gate` hold later data.
    """
    assert (repaired.verdict, repaired.exit_code) == (RepairVerdict.PASS, 0)
    told = json.loads(Path(repaired.provenance).read_text())
    assert told["verdict"] == "pass"
    assert "-1 and 1" in told["assumes"]
    assert told["holds_for"]["low"] == pytest.approx(-1.0)
    again = inspect_checkpoint(repaired.output)
    (found,) = again.findings
    assert (found.code, found.severity.value) == ("BN201", "info")
    assert "repaired by bncheck from" in found.message
    assert "bncheck repair" not in found.fix
    for offset, factor, codes in ((0.0, 1.0, []), (1.0, 0.5, ["BN304"])):
        with np.load(data) as arrays:
            other = {"images": (arrays["images"] + offset) * factor, "labels": arrays["labels"]}
        np.savez(tmp_path / "other.npz", **other)
        compared = compare_train_vs_eval(repaired.output, data=tmp_path / "other.npz")
        assert [finding.code for finding in compared.findings if finding.rule.family.name == "MODES"] == codes
        assert ("input between -1 and 1" in "".join(f.message for f in compared.findings)) is bool(codes)
    gated = gate(repaired.output, data=tmp_path / "other.npz")
    assert [finding.code for finding in gated.findings if finding.rule.family.name == "MODES"] == ["BN304"]
    assert (gated.verdict, gated.exit_code) == (Verdict.INCONCLUSIVE, 3)
    assert all(layer.mean_noise is not None and layer.mean_noise < 0.2 for layer in repaired.repaired)
