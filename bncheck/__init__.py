"""bncheck: tells whether a TensorFlow model's batch norm will turn it into junk, why, and how to repair it.

>>> import bncheck
>>> report = bncheck.inspect_checkpoint("model.ckpt-300")  # doctest: +SKIP
>>> report.verdict, [finding.code for finding in report.findings]  # doctest: +SKIP
(<Verdict.FAIL: 'fail'>, ['BN101', 'BN201'])
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bncheck.check import inspect_checkpoint, inspect_graph, inspect_model, inspect_run
    from bncheck.compare.run import compare_float_vs_quantized, compare_train_vs_eval
    from bncheck.config import FailOn, Ignore, Settings
    from bncheck.finding import Finding, Report, Severity, Verdict
    from bncheck.gating.run import gate

__version__ = "0.1.0"

__all__ = [
    "FailOn",
    "Finding",
    "Ignore",
    "Report",
    "Settings",
    "Severity",
    "Verdict",
    "__version__",
    "compare_float_vs_quantized",
    "compare_train_vs_eval",
    "gate",
    "inspect_checkpoint",
    "inspect_graph",
    "inspect_model",
    "inspect_run",
]

_HOME = {
    "FailOn": "bncheck.config",
    "Finding": "bncheck.finding",
    "Ignore": "bncheck.config",
    "Report": "bncheck.finding",
    "Settings": "bncheck.config",
    "Severity": "bncheck.finding",
    "Verdict": "bncheck.finding",
    "compare_float_vs_quantized": "bncheck.compare.run",
    "compare_train_vs_eval": "bncheck.compare.run",
    "gate": "bncheck.gating.run",
    "inspect_checkpoint": "bncheck.check",
    "inspect_graph": "bncheck.check",
    "inspect_model": "bncheck.check",
    "inspect_run": "bncheck.check",
}


def __getattr__(name: str) -> object:
    """Loads a public name where it is first used, so that `import bncheck` costs nothing (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module 'bncheck' has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - only where a name is used

    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
