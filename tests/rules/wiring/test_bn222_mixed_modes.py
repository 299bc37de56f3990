"""BN222 mixed-modes."""

from __future__ import annotations

from dataclasses import replace

from one_evidence import only

from bncheck.facts.layers import Layer, Mode
from bncheck.rules.wiring.bn222_mixed_modes import check
from bncheck.testing import batch_norm, served, serving, site, unwired, wired, with_graph


def chain(*modes: Mode) -> tuple[Layer, ...]:
    """Trained layers in a row, named a, b, ..."""
    layers = [wired(batch_norm("abcdef"[number]), mode=mode) for number, mode in enumerate(modes)]
    names = [layer.sites[0].name for layer in layers]
    return tuple(
        replace(layer, sites=(replace(layer.sites[0], before=tuple(names[:number])),))
        for number, layer in enumerate(layers)
    )


def test_only_the_fixed_layers_are_accused() -> None:
    """Wherever in the pass they stand; what the others follow is named."""
    evidence = only(check, with_graph(*chain(Mode.SWITCHED, Mode.TRAIN, Mode.SWITCHED)))
    assert evidence.layers == ("b",)
    assert "2 layers of the same forward pass follow `is_training` (a, c)" in evidence.message


def test_a_frozen_backbone_under_a_trained_head_is_no_fault() -> None:
    """Eval and train in a pass that is trained: fine-tuning."""
    assert not list(check.check(with_graph(*chain(Mode.EVAL, Mode.EVAL, Mode.TRAIN))))


def test_two_networks_side_by_side_are_no_pass() -> None:
    """Neither lies before the other."""
    assert not list(check.check(with_graph(wired(batch_norm("a")), wired(batch_norm("b"), mode=Mode.SWITCHED))))


def test_a_validation_tower_in_two_modes() -> None:
    """The training tower is all in train mode; of the tower beside it, which nothing trains, one layer forgot."""
    a, b = wired(batch_norm("a")), wired(batch_norm("b"))
    a = replace(a, sites=(*a.sites, site("val/a", Mode.TRAIN)))
    b = replace(b, sites=(replace(b.sites[0], before=(a.sites[0].name,)), site("val/b", Mode.EVAL, before=("val/a",))))
    evidence = only(check, with_graph(a, b))
    assert evidence.layers == ("a",)
    assert evidence.location == "val/a"


def test_a_discriminator_behind_a_switched_generator_is_no_fault() -> None:
    """It is trained in a pass of its own, all in train mode."""
    g, d = unwired(batch_norm("g"), "g_adam", Mode.SWITCHED), wired(batch_norm("d"), "d_adam")
    fake = site("fake/d", train_ops=("g_adam", "d_adam"), before=(g.sites[0].name,))
    assert not list(check.check(with_graph(g, replace(d, sites=(*d.sites, fake)))))


def test_a_served_model_in_two_modes() -> None:
    """One story with BN205."""
    a, b = served(batch_norm("a"), Mode.TRAIN), served(batch_norm("b"))
    assert only(check, serving(a, replace(b, sites=(replace(b.sites[0], before=(a.sites[0].name,)),)))).layers == ("a",)
