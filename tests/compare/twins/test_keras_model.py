"""Names of a Keras file's layers for those of the graph that Keras makes of it."""

from __future__ import annotations

from bncheck.compare.twins.keras_model import named_as_in
from bncheck.testing import batch_norm


def test_a_layer_called_twice_keeps_its_name() -> None:
    """In the frozen graph each call has constants of its own, with the same numbers: one layer, two places."""
    file = (batch_norm("encoder/bn", variance=[1.5, 0.5, 0.3, 2.0]), batch_norm("bn", variance=0.7))
    graph = (
        batch_norm("model/encoder/bn/Cast", variance=[1.5, 0.5, 0.3, 2.0]),
        batch_norm("model/encoder/bn_1/Cast", variance=[1.5, 0.5, 0.3, 2.0]),
        batch_norm("model/bn/Cast", variance=0.7),
        batch_norm("model/other/Cast", variance=9.0),
    )
    assert [layer.name for layer in named_as_in(file, graph)] == ["encoder/bn", "encoder/bn", "bn", "model/other/Cast"]


def test_layers_with_the_same_numbers_are_told_by_their_order() -> None:
    """As where nothing ever moved."""
    file = (batch_norm("first"), batch_norm("second"))
    graph = (batch_norm("a"), batch_norm("b"))
    assert [layer.name for layer in named_as_in(file, graph)] == ["first", "second"]
