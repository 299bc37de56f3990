"""Statistics of the data through a real graph: the same for every way to cut them into batches and shards."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bncheck.compare.prepared import prepare
from bncheck.repair.population import Population, population
from bncheck.repair.train_twin import open_train_twin
from bncheck.settings.options import Options
from bncheck.sources import open_model

pytestmark = [pytest.mark.tensorflow, pytest.mark.filterwarnings("ignore")]

IMAGES = np.random.default_rng(0).normal(0, 1, (96, 5, 5, 4)).astype(np.float32)
IMAGES += np.array([1e4, 0, -1e4, 3e2], np.float32)


@pytest.fixture(params=["fused", "unfused", "channels first", "dense"])
def twin(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """A model whose batch norm sees the data as they are; the train twin of its checkpoint, and the axes."""
    styles = importlib.import_module("graph_styles")
    tf, v1 = styles.tf, styles.v1
    with tf.Graph().as_default():
        x = styles.images(None, 5, 5, 4) if request.param != "dense" else styles.images(None, 4)
        if request.param == "channels first":
            layers = styles.slim_compat.load_tf_layers()
            first = tf.transpose(x, [0, 3, 1, 2])
            y = tf.transpose(layers.batch_normalization(first, axis=1, training=True, fused=False), [0, 2, 3, 1])
        else:
            y = styles.slim.batch_norm(x, is_training=True, fused=request.param == "fused")
        kernel = v1.get_variable("head", [4, 3])
        tf.matmul(tf.reduce_mean(y, [1, 2]) if len(x.shape) == 4 else y, kernel, name="logits")
        with v1.Session() as session:
            session.run(v1.global_variables_initializer())
            v1.train.Saver().save(session, str(tmp_path / "model.ckpt"))
    prepared = prepare(open_model(tmp_path / "model.ckpt"), Options())
    data = IMAGES if request.param != "dense" else IMAGES.reshape(-1, 4)[:960]
    with open_train_twin(prepared.forward) as opened:
        yield opened, data


def of(model: Any, data: Any, size: int) -> Population:
    """The population, in batches of one size."""
    batches = [(data[start : start + size], None) for start in range(0, len(data), size)]
    return population(model, batches, tolerance=0)


def test_any_split_gives_the_same(twin: Any) -> None:
    """Batches of 2 to all, shards in another order, means of 1e4 with deviation 1: the same to 1e-9, and true."""
    model, data = twin
    exact = np.asarray(data, np.float64).reshape(-1, 4)
    order = np.random.default_rng(1).permutation(len(data))
    for size, held in ((2, data), (6, data), (32, data), (len(data), data), (32, data[order])):
        (found,) = of(model, held, size).moments.values()
        np.testing.assert_allclose(found.mean, exact.mean(0), rtol=1e-9)
        np.testing.assert_allclose(found.variance, exact.var(0), rtol=1e-9)


def test_nan_in_nan_out(twin: Any) -> None:
    """One NaN makes its channel's statistics NaN, and no other's."""
    model, data = twin
    spoilt = np.array(data)
    spoilt[7, ..., 2] = np.nan
    (found,) = of(model, spoilt, 32).moments.values()
    assert np.isnan(found.mean).tolist() == [False, False, True, False]
    assert np.isnan(found.variance).tolist() == [False, False, True, False]
