"""Batch norm as a test of your own: a pytest plugin, on wherever bncheck is installed, that loads nothing until used.

    from bncheck.pytest_plugin import assert_batch_norm_healthy

    def test_release():
        assert_batch_norm_healthy("models/model.ckpt-300", data="data/test.npz")

    def test_int8(bncheck_model):
        report = bncheck_model("models/model.ckpt-300", data="data/test.npz")
        assert report.quantized.outputs[0].agreement > 0.97

Both take the arguments of `bncheck.gate`, and what `[tool.bncheck]` says where an argument is not given.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from bncheck.facts.findings import Report


def assert_batch_norm_healthy(model: str | Path | Report, **options: Any) -> Report:
    """Fails with the whole story unless the gate passes; gives the report where it does.

    `model` is a path, or a report that is at hand; `options` are arguments of `bncheck.gate`. A verdict that is
    inconclusive is no pass either, unless `allow-empty` is configured. Raises AssertionError, and BncheckError for
    what cannot be read.
    """
    __tracebackhide__ = True
    report = _judged(model, Path.cwd(), options) if isinstance(model, (str, Path)) else model
    if report.exit_code:
        raise AssertionError(_story(report))
    return report


@pytest.fixture(scope="session")
def bncheck_model(pytestconfig: pytest.Config) -> Callable[..., Report]:
    """`bncheck_model(path, **options)` gives the report of `bncheck.gate`; the same call is answered once a session."""
    reports: dict[str, Report] = {}

    def report(path: str | Path, **options: Any) -> Report:
        key = repr((str(path), sorted(options.items())))
        if key not in reports:
            reports[key] = _judged(path, pytestconfig.rootpath, options)
        return reports[key]

    return report


def _judged(path: str | Path, folder: Path, options: dict[str, Any]) -> Report:
    """The gate's report, with the configuration that is nearest to the folder."""
    __tracebackhide__ = True
    import bncheck  # noqa: PLC0415 - nothing is loaded before it is used
    from bncheck.facts.errors import BncheckError  # noqa: PLC0415 - as above
    from bncheck.settings.config_file import Config, find_config, load_config, settings_of  # noqa: PLC0415 - as above
    from bncheck.settings.options import CommandName  # noqa: PLC0415 - as above

    try:
        found = find_config(folder)
        config = Config() if found is None else load_config(found)
        configured = config.of_command(CommandName.GATE)
        return bncheck.gate(path, **{"settings": settings_of(config), **configured, **options})
    except BncheckError as error:  # its sentence says all: where bncheck raised it is nobody's concern
        raise error.with_traceback(None) from None


def _story(report: Report) -> str:
    from io import StringIO  # noqa: PLC0415 - as above

    from bncheck.report.text import text  # noqa: PLC0415 - as above

    stream = StringIO()
    text.write(report, stream)
    return stream.getvalue()
