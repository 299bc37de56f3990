"""PyTorch: a hook on the model that stops a run whose running statistics stand still."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bncheck.guard.watch import FIRST_STEPS, SHARE, Values, Watch, check_first_steps, tell_share

_FIX_TORCH = """\
Fix: put the model into training mode before every epoch; eval() is for validation alone:
    model.train()
Frozen on purpose? Freeze its weights too, and it is left out:
    layer.eval().requires_grad_(False)"""


def assert_running_statistics_move(model: Any, first_steps: int = FIRST_STEPS, *, share: float = SHARE) -> None:
    """Watches a `torch.nn.Module`: a later call of it raises StatisticsNotMoving where statistics stand still.

    Checks once, after so many calls with gradients, every batch norm that takes running averages and is trained; then
    it is gone. The model that the loop calls is the one to give. Raises UsageError for a number of steps below 1.
    """
    watch = Watch(first_steps=check_first_steps(first_steps), share=share)
    watch.begin(running_statistics(model))
    tell_share(decays(model), share, None)
    calls = 0

    def after_a_call(*_: Any) -> None:
        nonlocal calls
        calls += _with_gradients()
        if calls == 1:
            watch.begin(running_statistics(model))  # lazy layers have statistics only now
        if calls >= watch.first_steps:
            handle.remove()
            watch.check(running_statistics(model), calls, _FIX_TORCH)

    handle = model.register_forward_hook(after_a_call)


def _with_gradients() -> bool:
    import torch  # noqa: PLC0415 - the script has loaded it

    return bool(torch.is_grad_enabled())


def _batch_norms(model: Any) -> Iterator[tuple[str, Any]]:
    """(name, layer) of every batch norm that takes running averages and has weights that are trained.

    Of instance norm, which may have running averages too, training mode normalises each sample: it is none.
    """
    for name, layer in model.named_modules():
        if getattr(layer, "num_batches_tracked", None) is None or "InstanceNorm" in type(layer).__name__:
            continue
        weights = list(layer.parameters(recurse=False))
        if layer.momentum != 0 and (any(weight.requires_grad for weight in weights) if weights else layer.training):
            yield name, layer


def decays(model: Any) -> list[float]:
    """Of its batch norms that are trained: 1 - momentum; those that take plain averages have none."""
    return [1 - layer.momentum for _, layer in _batch_norms(model) if layer.momentum is not None]


def running_statistics(model: Any) -> Values:
    """Running mean and variance of its batch norms that are trained, as they are now; lazy ones may have none yet."""
    return {
        name: tuple(vector.detach().float().cpu().numpy().copy() for vector in (layer.running_mean, layer.running_var))
        for name, layer in _batch_norms(model)
        if not _is_lazy(layer.running_mean)
    }


def _is_lazy(vector: Any) -> bool:
    return type(vector).__name__ == "UninitializedBuffer"
