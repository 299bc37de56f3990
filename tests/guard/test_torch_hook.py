"""The guard in PyTorch: a loop in eval mode is stopped; a right one or frozen layers never are."""

from __future__ import annotations

from typing import Any

import pytest

from bncheck import guard
from bncheck.facts.errors import UsageError

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
pytestmark = pytest.mark.torch
nn = torch.nn


def model() -> Any:
    """Two layers of batch norm, one of instance norm that has running averages too."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.InstanceNorm2d(4, affine=True, track_running_stats=True),
        nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.LazyLinear(2),
    )  # fmt: skip


def steps(net: Any, count: int) -> None:
    """So many steps of training."""
    for _ in range(count):
        loss = net(torch.randn(4, 3, 8, 8)).square().mean()
        if loss.requires_grad:
            loss.backward()


def test_a_right_loop_passes() -> None:
    """And the hook is gone after its one check."""
    net = model()
    guard.assert_running_statistics_move(net, first_steps=3)
    steps(net, 3)
    net.eval()
    steps(net, 5)
    assert not net._forward_hooks


def test_eval_mode_is_stopped_at_the_step_that_was_asked_for() -> None:
    """All layers of batch norm are named; validation without gradients does not count."""
    net = model().eval()
    guard.assert_running_statistics_move(net, first_steps=3)
    with torch.no_grad():
        steps(net, 5)
    steps(net, 2)
    with pytest.raises(guard.StatisticsNotMoving) as caught:
        steps(net, 1)
    assert (caught.value.layers, caught.value.steps) == (("1", "4"), 3)
    assert "model.train()" in str(caught.value)


def test_the_one_layer_that_stands_still_is_named() -> None:
    """Others move."""
    net = model()
    net[4].eval()
    guard.assert_running_statistics_move(net, first_steps=2)
    with pytest.raises(guard.StatisticsNotMoving) as caught:
        steps(net, 2)
    assert caught.value.layers == ("4",)


def test_frozen_layers_are_left_out() -> None:
    """In eval mode with weights that are not trained, by intent."""
    net = model()
    net[4].eval().requires_grad_(requires_grad=False)
    guard.assert_running_statistics_move(net, first_steps=2)
    steps(net, 4)


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_lazy_layers_are_watched_from_their_first_call(mode: str) -> None:
    """They have no statistics before."""
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.LazyBatchNorm2d(), nn.ReLU())
    getattr(net, mode)()
    guard.assert_running_statistics_move(net, first_steps=3)
    if mode == "train":
        steps(net, 4)
        return
    with pytest.raises(guard.StatisticsNotMoving):
        steps(net, 4)


def test_no_steps_are_refused() -> None:
    """As by the other guards."""
    with pytest.raises(UsageError):
        guard.assert_running_statistics_move(model(), first_steps=0)
