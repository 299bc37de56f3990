"""The guard in Lightning's real Trainer: a model in eval mode is stopped; right ones and frozen layers never are."""

from __future__ import annotations

import pickle
import warnings
from typing import Any

import pytest

from bncheck import guard
from bncheck.facts.errors import UsageError

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    lightning = pytest.importorskip("lightning.pytorch", reason="Lightning is not installed")
pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("default")]
nn = torch.nn
BATCHES, STEPS = 6, 3


class Module(lightning.LightningModule):  # type: ignore[misc]
    """Two layers of batch norm."""

    def __init__(self, momentum: float = 0.1) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, momentum=momentum), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)
        )

    def training_step(self, batch: Any, _number: int) -> Any:
        """A loss."""
        return self.net(batch).square().mean()

    def validation_step(self, batch: Any, _number: int) -> None:
        """In eval mode, as the Trainer sees to it."""
        self.net(batch)

    def configure_optimizers(self) -> Any:
        """Plain."""
        return torch.optim.SGD(self.parameters(), 0.01)


def run(model: Any, watch: Any, epochs: int = 1) -> None:
    """A run with validation before it and after each epoch."""
    trainer = lightning.Trainer(
        max_epochs=epochs, accelerator="cpu", callbacks=watch, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    images = torch.utils.data.DataLoader(torch.randn(2 * BATCHES, 3, 8, 8), batch_size=2)
    trainer.fit(model, images, images)


def callback(first_steps: int = STEPS, share: float = 0.9) -> Any:
    """The callback, whose share every run here reaches."""
    return guard.LightningStatisticsMoveCallback(first_steps, share=share)


def test_a_right_run_passes_and_may_be_followed_by_another() -> None:
    """The callback is as new at the start of each; one that is no list is taken, too."""
    watch = callback()
    run(Module(), watch)
    assert watch._watch.done
    run(Module(), watch)
    with pytest.raises(guard.StatisticsNotMoving):
        run(Module().eval(), watch)


def test_eval_mode_is_stopped_at_the_step_that_was_asked_for() -> None:
    """The Trainer leaves modes as they are, so every layer is named."""
    with pytest.raises(guard.StatisticsNotMoving) as caught:
        run(Module().eval(), [callback()])
    assert (caught.value.layers, caught.value.steps) == (("net.1", "net.4"), STEPS)
    assert "trainer.fit" in str(caught.value)


def test_the_one_layer_that_stands_still_is_named_and_a_frozen_one_is_not() -> None:
    """Whether its weights are trained decides."""
    model = Module()
    model.net[4].eval()
    with pytest.raises(guard.StatisticsNotMoving) as caught:
        run(model, [callback()])
    assert caught.value.layers == ("net.4",)
    model.net[4].requires_grad_(requires_grad=False)
    run(model, [callback()])


def test_a_run_too_short_for_the_momentum_is_told() -> None:
    """Its batches are those of all epochs."""
    with pytest.warns(UserWarning, match=f"this run has {2 * BATCHES}"):
        run(Module(momentum=0.001), [callback(share=0.05)], epochs=2)


def test_a_run_shorter_than_the_check_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """It was not guarded."""
    run(Module(), [callback(first_steps=BATCHES + 1)])
    assert "did not check" in caplog.text


def test_no_steps_are_refused() -> None:
    """As by the other guards."""
    with pytest.raises(UsageError):
        callback(first_steps=0)


def test_it_travels_to_spawned_processes() -> None:
    """Lightning pickles callbacks for some strategies."""
    assert isinstance(pickle.loads(pickle.dumps(callback())), lightning.Callback)  # noqa: S301 - made here
