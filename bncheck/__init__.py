"""bncheck: tells whether a TensorFlow model's batch norm will turn it into junk, why, and how to repair it.

>>> import bncheck
>>> report = bncheck.check("model.ckpt-300")  # doctest: +SKIP
>>> report.verdict, [finding.code for finding in report.findings]  # doctest: +SKIP
(<Verdict.FAIL: 'fail'>, ['BN101', 'BN201'])
"""

from __future__ import annotations

from bncheck.version import __version__

TYPE_CHECKING = False
"""As type checkers read it; importing `typing` for it would be most of the import of this package."""

if TYPE_CHECKING:
    from bncheck.commands.check import check, check_all
    from bncheck.commands.compare import compare_float_vs_quantized, compare_train_vs_eval
    from bncheck.commands.diff import diff
    from bncheck.commands.gate.gate import gate
    from bncheck.commands.inspect import inspect_checkpoint, inspect_graph, inspect_model, inspect_run
    from bncheck.facts.findings import Finding, Report, Severity, Verdict
    from bncheck.numerics.difference import Difference
    from bncheck.settings.config import FailOn, Ignore, Settings

__all__ = [
    "Difference",
    "FailOn",
    "Finding",
    "Ignore",
    "Report",
    "Settings",
    "Severity",
    "Verdict",
    "__version__",
    "check",
    "check_all",
    "compare_float_vs_quantized",
    "compare_train_vs_eval",
    "diff",
    "gate",
    "inspect_checkpoint",
    "inspect_graph",
    "inspect_model",
    "inspect_run",
]

_HOME = {
    "Difference": "bncheck.numerics.difference",
    "FailOn": "bncheck.settings.config",
    "Finding": "bncheck.facts.findings",
    "Ignore": "bncheck.settings.config",
    "Report": "bncheck.facts.findings",
    "Settings": "bncheck.settings.config",
    "Severity": "bncheck.facts.findings",
    "Verdict": "bncheck.facts.findings",
    "check": "bncheck.commands.check",
    "check_all": "bncheck.commands.check",
    "compare_float_vs_quantized": "bncheck.commands.compare",
    "compare_train_vs_eval": "bncheck.commands.compare",
    "diff": "bncheck.commands.diff",
    "gate": "bncheck.commands.gate.gate",
    "inspect_checkpoint": "bncheck.commands.inspect",
    "inspect_graph": "bncheck.commands.inspect",
    "inspect_model": "bncheck.commands.inspect",
    "inspect_run": "bncheck.commands.inspect",
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
