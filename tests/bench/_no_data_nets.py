"""Six nets trained right on digits and crops of photographs, kept in a folder: what `no_data` corrupts."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_sample_images

from bncheck.backbones.slim_compat import load_net, load_slim
from fixtures.digits import digits

DECAY = 0.9
EARLY = 0.4
"""Part of the training after which statistics are kept to stand in for those that stayed behind."""
BATCH = 16
UNSEEN = 480
"""Images that no net was trained on."""
SIDE = 64

Images = NDArray[np.float32]
Labels = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Samples:
    """Images (count, SIDE, SIDE, 3) in -1..1 and what they show: a class each, or one a pixel."""

    train: Images
    labels: Labels
    unseen: Images
    unseen_labels: Labels


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainedNet:
    """A model file and the samples of its kind."""

    name: str
    path: Path
    samples: Samples
    earlier: Mapping[str, NDArray[np.float32]]
    """Variable -> what it was after EARLY of the training."""


def handwriting() -> Samples:
    """Scikit-learn's digits."""
    made = digits()
    return Samples(
        train=made.train_images, labels=made.train_labels, unseen=made.test_images, unseen_labels=made.test_labels
    )


def photographs() -> Samples:
    """Crops of two photographs; the class is which one, and which quarter of it."""
    random = np.random.default_rng(0)
    photos = load_sample_images().images
    images, labels = [], []
    for _ in range(2400):
        photo, quarter = random.integers(2), random.integers(4)
        height, width = photos[photo].shape[0] // 2, photos[photo].shape[1] // 2
        top = quarter // 2 * height + random.integers(height - SIDE)
        left = quarter % 2 * width + random.integers(width - SIDE)
        images.append(photos[photo][top : top + SIDE, left : left + SIDE])
        labels.append(4 * photo + quarter)
    return _cut(np.float32(images) / 127.5 - 1, np.array(labels, np.int64))


def digits_to_cut_out() -> Samples:
    """Digits on noise; the class of a pixel is its digit, or none."""
    random, made = np.random.default_rng(0), digits()
    every = np.concatenate([made.train_images, made.test_images])
    known = np.concatenate([made.train_labels, made.test_labels])
    labels = np.where(every[..., 0] > 0, known[:, None, None] + 1, 0).astype(np.int64)
    return _cut(np.clip(every + random.normal(0, 0.3, every.shape), -1, 1).astype(np.float32), labels)


def _cut(images: Images, labels: Labels) -> Samples:
    return Samples(
        train=images[:-UNSEEN], labels=labels[:-UNSEEN], unseen=images[-UNSEEN:], unseen_labels=labels[-UNSEEN:]
    )


def _mobilenet_v2(images: Any, classes: int, *, depth: float) -> Any:
    from bncheck.backbones.mobilenet_v2 import mobilenet, training_scope

    with load_slim().arg_scope(training_scope(is_training=True, bn_decay=DECAY)):
        return mobilenet(images, classes, depth_multiplier=depth, finegrain_classification_mode=False)[0]


def _resnet(images: Any, classes: int) -> Any:
    slim, made, utils = load_slim(), load_net("resnet_v1"), load_net("resnet_utils")
    blocks = [
        made.resnet_v1_block(f"block{number}", base_depth=16 * number, num_units=2, stride=1 if number == 4 else 2)
        for number in range(1, 5)
    ]
    with slim.arg_scope(utils.resnet_arg_scope(batch_norm_decay=DECAY)):
        logits, _ = made.resnet_v1(images, blocks, classes, is_training=True, include_root_block=True)
    return logits[:, 0, 0]


def _inception(images: Any, classes: int) -> Any:
    import tensorflow as tf

    slim, made = load_slim(), load_net("inception_v3")
    normal = {"decay": DECAY, "epsilon": 1e-3, "is_training": True}
    with (
        slim.arg_scope([slim.conv2d], activation_fn=tf.nn.relu, normalizer_fn=slim.batch_norm),
        slim.arg_scope([slim.conv2d], normalizer_params=normal),
    ):
        larger = tf.image.resize(images, (80, 80))
        net, _ = made.inception_v3_base(larger, depth_multiplier=0.25)
    return slim.fully_connected(tf.reduce_mean(net, [1, 2]), classes, activation_fn=None, scope="Logits")


def _slim(path: Path, build: Callable[[Any, int], Any], samples: Samples, steps: int) -> None:
    import tensorflow as tf

    v1 = tf.compat.v1
    with tf.Graph().as_default():
        v1.set_random_seed(0)
        images = v1.placeholder(tf.float32, (None, *samples.train.shape[1:]), name="images")
        wanted = v1.placeholder(tf.int64, (None,), name="labels")
        logits = build(images, int(samples.labels.max()) + 1)
        loss = v1.losses.sparse_softmax_cross_entropy(wanted, logits)
        step = v1.train.get_or_create_global_step()
        with tf.control_dependencies(v1.get_collection(v1.GraphKeys.UPDATE_OPS)):
            train = v1.train.AdamOptimizer(2e-3).minimize(loss, step)
        with v1.Session(config=_one_thread(v1)) as session:
            session.run(v1.global_variables_initializer())
            moving = {v.op.name: v for v in v1.global_variables() if "/moving_" in v.op.name}
            for number, some in _batches(samples, steps):
                session.run(train, {images: samples.train[some], wanted: samples.labels[some]})
                if number == int(EARLY * steps):
                    np.savez(path.parent / "earlier.npz", **session.run(moving))
            v1.train.Saver().save(session, str(path))


def _one_thread(v1: Any) -> Any:
    return v1.ConfigProto(intra_op_parallelism_threads=1, inter_op_parallelism_threads=1)


def _batches(samples: Samples, steps: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
    return enumerate(np.random.default_rng(1).integers(len(samples.train), size=(steps, BATCH)))


def _mobilenet_v3(keras: Any, classes: int) -> Any:
    make = keras.applications.MobileNetV3Small
    return make((SIDE, SIDE, 3), weights=None, classes=classes, include_preprocessing=False, dropout_rate=0.0)


def _u_net(keras: Any, classes: int) -> Any:
    layers = keras.layers

    def twice(x: Any, channels: int) -> Any:
        for _ in range(2):
            x = layers.Conv2D(channels, 3, padding="same", use_bias=False)(x)
            x = layers.ReLU()(layers.BatchNormalization()(x))
        return x

    net = image = layers.Input((SIDE, SIDE, 3))
    passed = []
    for channels in (16, 24, 32):
        passed.append(twice(net, channels))
        net = layers.MaxPooling2D()(passed[-1])
    net = twice(net, 48)
    for channels, other in zip((32, 24, 16), reversed(passed), strict=True):
        net = twice(layers.Concatenate()([layers.UpSampling2D()(net), other]), channels)
    return keras.Model(image, layers.Conv2D(classes, 1, activation="softmax")(net))


def _keras(path: Path, build: Callable[[Any, int], Any], samples: Samples, steps: int) -> None:
    import tf_keras

    tf_keras.utils.set_random_seed(0)
    model = build(tf_keras, int(samples.labels.max()) + 1)
    for layer in model.layers:
        if isinstance(layer, tf_keras.layers.BatchNormalization):
            layer.momentum = DECAY
    model.compile(tf_keras.optimizers.Adam(2e-3), "sparse_categorical_crossentropy")
    for number, some in _batches(samples, steps):
        model.train_on_batch(samples.train[some], samples.labels[some])
        if number == int(EARLY * steps):
            moving = {v.name.split(":")[0]: v.numpy() for v in model.weights if "/moving_" in v.name}
            np.savez(path.parent / "earlier.npz", **moving)
    model.save(path)


_SLIM: dict[str, tuple[str, Callable[[Any, int], Any], Callable[[], Samples], int]] = {
    "mobilenet_v2_0.35": ("MobileNetV2 0.35, digits", partial(_mobilenet_v2, depth=0.35), handwriting, 300),
    "mobilenet_v2": ("MobileNetV2 1.0, photographs", partial(_mobilenet_v2, depth=1.0), photographs, 300),
    "resnet": ("ResNet of 26 layers, photographs", _resnet, photographs, 300),
    "inception": ("Inception V3 0.25, digits", _inception, handwriting, 300),
}
_KERAS: dict[str, tuple[str, Callable[[Any, int], Any], Callable[[], Samples], int]] = {
    "mobilenet_v3": ("MobileNetV3 small (Keras), digits", _mobilenet_v3, handwriting, 400),
    "u_net": ("U-Net (Keras), digits to cut out", _u_net, digits_to_cut_out, 200),
}
NETS = (*_SLIM, *_KERAS)


def trained(name: str, cache: Path) -> TrainedNet:
    """One of NETS, trained on the first call and kept in `cache`."""
    folder = cache / name
    title, build, make, steps = (_SLIM | _KERAS)[name]
    samples = make()
    path = folder / ("model.ckpt" if name in _SLIM else "model.keras")
    if not (folder / "done").exists():
        folder.mkdir(parents=True, exist_ok=True)
        (_slim if name in _SLIM else _keras)(path, build, samples, steps)
        (folder / "done").touch()
    with np.load(folder / "earlier.npz") as archive:
        earlier = {key: archive[key] for key in archive.files}
    return TrainedNet(name=title, path=path, samples=samples, earlier=earlier)
