"""Running averages of batch moments, in the forms that people write."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from tensorflow.python.training import moving_averages

from .recipe import OF_OBJECTS, Recipe

v1 = tf.compat.v1
DECAY = 0.8
NAMES = {"moving": ("moving_mean", "moving_variance"), "population": ("pop_mean", "pop_var"), "short": ("m", "v")}


class Average:
    """The stored statistics of one layer: made once, updated once, read anywhere."""

    def __init__(self, recipe: Recipe, shape: list[int], phase: Any) -> None:
        self.recipe, self.shape, self.phase = recipe, shape, phase
        self.pair: tuple[Any, Any] | None = None
        self.average: Any = None
        self.names: tuple[str, str] = ("", "")
        """Of the variables that hold mean and variance."""
        if recipe.average == "object_of_assigned":
            self.last = self._variables()
        elif recipe.average not in OF_OBJECTS:
            self.pair = self._variables()
            self.names = (self.pair[0].op.name, self.pair[1].op.name)
        if recipe.average in (*OF_OBJECTS, "object_of_assigned"):
            keywords: dict[str, Any] = {"zero_debias": True} if recipe.average == "ema_debias" else {}
            if recipe.average == "ema_num_updates":
                keywords["num_updates"] = v1.train.get_or_create_global_step()
            self.average = v1.train.ExponentialMovingAverage(DECAY, **keywords)

    def _variables(self) -> tuple[Any, Any]:
        """[C] each, or a row of [T, C] each."""
        names = NAMES.get(self.recipe.names)
        initials = (v1.zeros_initializer(), v1.ones_initializer())
        shape = [3, *self.shape] if self.recipe.average == "by_index" else self.shape
        if names is None:
            scope = v1.get_variable_scope().name
            names = (f"Variable_{len(scope)}", f"Variable_{len(scope) + 1}")
        mean, variance = (
            v1.get_variable(name, shape, initializer=initial, trainable=False)
            for name, initial in zip(names, initials, strict=True)
        )
        return mean, variance

    def stored(self) -> tuple[Any, Any]:
        """What evaluation reads."""
        assert self.pair is not None
        if self.recipe.average == "by_index":
            return tf.gather(self.pair[0], 1), tf.gather(self.pair[1], 1)
        return self.pair

    def update(self, batch: tuple[Any, Any]) -> list[Any]:
        """Ops that bring the statistics one batch further."""
        kind = self.recipe.average
        if kind == "never":
            return []
        if kind == "object_of_assigned":
            assigned = [v1.assign(variable, value) for variable, value in zip(self.last, batch, strict=True)]
            with tf.control_dependencies(assigned):
                op = self.average.apply(list(self.last))
            self._averages_of(self.last)
            return [op]
        if self.average is not None:
            op = self.average.apply(list(batch))
            self._averages_of(batch)
            return [op]
        if kind == "ema_of_assigned":
            return self._at_one_remove(batch)
        if kind == "unbiased":
            batch = (batch[0], batch[1] * (64.0 / 63.0))
        if kind == "cumulative":
            return self._cumulative(batch)
        assert self.pair is not None
        return [self._one(variable, value) for variable, value in zip(self.pair, batch, strict=True)]

    def _averages_of(self, pair: tuple[Any, Any]) -> None:
        """The variables that the average's object has made for these."""
        self.pair = (self.average.average(pair[0]), self.average.average(pair[1]))
        self.names = (self.pair[0].op.name, self.pair[1].op.name)

    def _decay(self) -> Any:
        decay: Any = DECAY
        if self.recipe.average == "decay_variable":
            decay = v1.get_variable("decay", [], initializer=v1.constant_initializer(DECAY), trainable=False)
        if self.recipe.average == "decay_schedule":
            step = tf.cast(v1.train.get_or_create_global_step(), tf.float32)
            decay = tf.minimum(DECAY, (1.0 + step) / (10.0 + step))
        if self.recipe.updating == "decay_off":
            decay = tf.where(self.phase, decay, 1.0)
        return decay

    def _one(self, variable: Any, value: Any) -> Any:
        kind, decay = self.recipe.average, self._decay()
        if kind == "assign_add":
            return v1.assign_add(variable, (value - variable) * (1.0 - decay))
        if kind == "assign_mix":
            return v1.assign(variable, variable * decay + value * (1.0 - decay))
        if kind == "assign_lerp":
            return v1.assign(variable, variable + (1.0 - decay) * (value - variable))
        if kind == "moving_average":
            return moving_averages.assign_moving_average(variable, value, decay, zero_debias=False)
        if kind == "moving_average_debias":
            return moving_averages.assign_moving_average(variable, value, decay, zero_debias=True)
        if kind == "by_index":
            row = tf.gather(variable, 1)
            return v1.scatter_update(variable, 1, row * decay + value * (1.0 - decay))
        return v1.assign_sub(variable, (variable - value) * (1.0 - decay))

    def _cumulative(self, batch: tuple[Any, Any]) -> list[Any]:
        """The plain mean over all batches so far."""
        assert self.pair is not None
        seen = v1.get_variable("seen", [], initializer=v1.zeros_initializer(), trainable=False)
        with tf.control_dependencies([v1.assign_add(seen, 1.0)]):
            count = self._fresh(seen)
        return [v1.assign_add(s, (b - s) / count) for s, b in zip(self.pair, batch, strict=True)]

    def _fresh(self, variable: Any) -> Any:
        """Its value after what the block waits for."""
        return variable.read_value() if self.recipe.resource == "yes" else variable + 0.0

    def _at_one_remove(self, batch: tuple[Any, Any]) -> list[Any]:
        """Batch moments are assigned to variables; an average of those is kept."""
        assert self.pair is not None
        last = [
            v1.get_variable(name, self.shape, initializer=initial, trainable=False)
            for name, initial in (("last_mean", v1.zeros_initializer()), ("last_variance", v1.ones_initializer()))
        ]
        assigned = [v1.assign(variable, value) for variable, value in zip(last, batch, strict=True)]
        with tf.control_dependencies(assigned):
            return [
                v1.assign(stored, stored * DECAY + self._fresh(batch_value) * (1.0 - DECAY))
                for stored, batch_value in zip(self.pair, last, strict=True)
            ]
