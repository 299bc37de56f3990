"""MobileNetV2 as a detector's backbone: SSDLite's targets, its variables, and what bncheck says of it."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.filterwarnings("ignore:.*deprecated:UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

SCOPE = "mobilenet_v2:scope=FeatureExtractor/MobilenetV2"


@pytest.fixture(scope="module")
def ssd() -> ModuleType:
    """The fixture's module, imported where what it needs is there."""
    pytest.importorskip("tf_slim")
    pytest.importorskip("sklearn")
    from fixtures import ssdlite

    return ssdlite


@pytest.fixture(scope="module")
def forgotten(ssd: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of 12 steps without updates, and images beside it."""
    folder = tmp_path_factory.mktemp("forgotten")
    prefix = ssd.make(folder, wired=False, steps=12, count=64)
    np.savez(folder / "scenes.npz", images=ssd.scenes(64, 9).images)
    assert isinstance(prefix, Path)
    return prefix


def test_targets_decode_to_the_boxes(ssd: ModuleType) -> None:
    """Each digit has an anchor; what a matched anchor is to say, taken from its place, is the digit's box again."""
    boxes = np.array([[44, 40, 32, 32], [20, 70, 24, 24]], np.float32)
    encoded, classes = ssd.targets(boxes, np.array([3, 5]))
    anchors = ssd.anchors()
    assert len(anchors) == 6 * 6 * 2 + 3 * 3 * 2
    assert set(classes[classes > 0]) == {3, 5}
    for anchor in np.flatnonzero(classes):
        code = encoded[anchor] / ssd.SCALES
        decoded = np.concatenate(
            [code[:2] * anchors[anchor, 2:] + anchors[anchor, :2], np.exp(code[2:]) * anchors[anchor, 2:]]
        )
        np.testing.assert_allclose(decoded, boxes[0 if classes[anchor] == 3 else 1], rtol=1e-4)
    assert not encoded[classes == 0].any()


def test_a_forgotten_detector_is_found_out(forgotten: Path, ssd: ModuleType) -> None:
    """All 56 layers, those of the predictors included, are named as never updated."""
    from bncheck import inspect_checkpoint

    report = inspect_checkpoint(forgotten)
    assert len(report.layers) == ssd.BATCH_NORMS == 56
    (finding,) = [f for f in report.findings if f.code == "BN201"]
    assert len(finding.layers) == 56
    assert any(layer.startswith("BoxPredictor_1/ClassPredictor_depthwise") for layer in finding.layers)


def test_both_outputs_are_compared_from_the_files_alone(forgotten: Path) -> None:
    """Boxes and classes of the training graph, cut at its images; boxes are not taken for scores of classes."""
    from bncheck import compare_train_vs_eval

    report = compare_train_vs_eval(
        forgotten,
        data=forgotten.parent / "scenes.npz",
        batch_size=16,
        batches=2,
        outputs=("box_encodings", "class_predictions_with_background"),
    )
    assert report.comparison is not None
    assert [output.name for output in report.comparison.outputs] == [
        "box_encodings",
        "class_predictions_with_background",
    ]
    assert report.comparison.outputs[0].agreement is None
    assert len(report.comparison.layers) == 56
    assert report.comparison.outputs[0].nmse > 0.1


def test_the_backbone_alone_is_compared_by_name(forgotten: Path) -> None:
    """In its scope, up to layer_19, the head left out and told."""
    from bncheck.backbones.build import build
    from bncheck.backbones.registry import parse
    from bncheck.recognise import recognise
    from bncheck.settings.options import Options
    from bncheck.sources import open_model

    model = build(parse(SCOPE), open_model(forgotten, use_graph=False).tensors, input_shape=(96, 96, 3))
    assert len(recognise(model, Options()).layers) == 52
    assert any("BoxPredictor_0/" in note for note in model.notes)
    assert dict(model.graphs[0].signatures[0].outputs) == {"layer_19": "layer_19:0"}


@pytest.mark.slow
def test_trained_to_the_end_only_the_forgotten_one_loses_its_boxes(ssd: ModuleType, tmp_path: Path) -> None:
    """Wired, both modes place boxes alike; forgotten, eval mode does not know where they are."""
    found = {}
    for wired in (True, False):
        folder = tmp_path / str(wired)
        folder.mkdir()
        prefix = ssd.make(folder, wired=wired)
        found[wired] = [ssd.scores(prefix, is_training=mode).box_error for mode in (True, False)]
    assert abs(found[True][1] - found[True][0]) < 0.1
    assert found[False][1] > found[False][0] + 0.3
