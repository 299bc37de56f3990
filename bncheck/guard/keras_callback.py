"""Keras 3 and tf-keras: a callback that stops a run whose statistics stand still."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bncheck.guard.watch import FIRST_STEPS, LOG, SHARE, Watch, check_first_steps, tell_share

_FIX_KERAS = """\
Fix: call the layers in training mode, and let Keras or your train_step run their updates:
    y = model(x, training=True)                  # in a loop of one's own
    BatchNormalization()(x)                      # not BatchNormalization()(x, training=False)
Frozen on purpose? Set layer.trainable = False, and it is left out."""


class StatisticsMoveCallback:
    """A callback for Keras 3 and tf-keras that raises StatisticsNotMoving where statistics stand still.

    Watches every batch norm layer that is trainable; checks once, after the first steps of `fit`. Warns (UserWarning)
    at the start where the run is too short for the momentum: more than `share` of the initial values will be left.
    """

    # what tf-keras asks of a callback; the base classes of the two Keras differ, so this one has neither
    _supports_tf_logs = True
    _chief_worker_only = None

    def __init__(self, first_steps: int = FIRST_STEPS, *, share: float = SHARE) -> None:
        self._watch = Watch(first_steps=check_first_steps(first_steps), share=share)
        self._seen = self._epoch = 0
        self.model: Any = None
        self.params: Mapping[str, Any] = {}
        self.validation_data = None

    def __getattr__(self, name: str) -> Callable[..., None]:
        """Any other hook of a callback: nothing to do."""
        if name.startswith("on_"):
            return _nothing
        raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r}")

    def set_params(self, params: Mapping[str, Any] | None) -> None:
        """Keeps steps and epochs of the run."""
        self.params = params or {}

    def set_model(self, model: Any) -> None:
        """Keeps the model."""
        self.model = model

    def on_train_begin(self, logs: Any = None) -> None:  # noqa: ARG002 - Keras's signature
        """Reads where the run starts."""
        self._watch.start.clear()
        self._watch.done, self._seen, self._epoch = False, 0, 0
        self._watch.begin(self._values())
        steps, epochs = self.params.get("steps"), self.params.get("epochs")
        momenta = [float(layer.momentum) for _, layer in _batch_norms(self.model)]
        tell_share(momenta, self._watch.share, steps * epochs if steps and epochs else None)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002 - Keras's signature
        """Counts steps over epochs."""
        self._seen += self._epoch
        self._epoch = 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002 - Keras's signature
        """Checks once, after the first steps; layers built by the first one are compared with what it left."""
        self._epoch = batch + 1
        if self._watch.done:
            return
        steps = self._seen + self._epoch
        if not self._watch.start:
            self._watch.begin(self._values())
        elif steps >= self._watch.first_steps:
            self._watch.check(self._values(), steps, _FIX_KERAS)

    def on_train_end(self, logs: Any = None) -> None:  # noqa: ARG002 - Keras's signature
        """Says so where the run was too short to be checked."""
        if self._watch.start and not self._watch.done:
            LOG.warning("the run ended before %d steps: bncheck.guard did not check it", self._watch.first_steps)

    def _values(self) -> dict[str, tuple[NDArray[Any], ...]]:
        # under JAX, variables follow the training step only when asked to
        getattr(self.model, "jax_state_sync", _nothing)()
        return {name: _statistics(layer) for name, layer in _batch_norms(self.model)}

    def _implements_train_batch_hooks(self) -> bool:
        return True

    def _implements_test_batch_hooks(self) -> bool:
        return False

    def _implements_predict_batch_hooks(self) -> bool:
        return False


def _nothing(*_: Any, **__: Any) -> None:
    """What a hook does that is not needed."""


_nothing._is_default = True  # type: ignore[attr-defined]  # Keras 3 need not wait for hooks that are so marked


def _batch_norms(model: Any) -> Iterator[tuple[str, Any]]:
    """(name, layer) of every batch norm of a model that is built, trainable, and takes moving averages."""
    names: dict[str, int] = {}
    # private, yet the only way through nested models that both Keras have
    for layer in model._flatten_layers(include_self=False, recursive=True):
        built = getattr(layer, "moving_mean", None) is not None and getattr(layer, "moving_variance", None) is not None
        if built and layer.trainable and getattr(layer, "momentum", 1.0) < 1:
            count = names[layer.name] = names.get(layer.name, 0) + 1
            yield (layer.name if count == 1 else f"{layer.name} ({count})"), layer


def _statistics(layer: Any) -> tuple[NDArray[Any], ...]:
    """Moving mean and variance; through `get_weights`, which works in graph mode too."""
    wanted = (id(layer.moving_mean), id(layer.moving_variance))
    values = dict(zip([id(weight) for weight in layer.weights], layer.get_weights(), strict=True))
    return tuple(np.array(values[key]) for key in wanted)
