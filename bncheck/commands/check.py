"""`bncheck check`: any path becomes a report, whatever lies there; a folder becomes one for each model in it."""

from __future__ import annotations

from pathlib import Path

from bncheck.commands.inspect import judged
from bncheck.commands.target import read_target, unreadable
from bncheck.facts.errors import ReadError, UnknownFormat, UsageError
from bncheck.facts.findings import Report
from bncheck.settings.keywords import takes
from bncheck.settings.options import CommandName, Options
from bncheck.sources.models_in import Found, models_in


@takes(Options, CommandName.CHECK)
def check(path: str | Path, options: Options) -> Report:
    """Judges a model by its files, whatever it is: checkpoint, graph, SavedModel, Keras, TFLite or NumPy file.

    The report is that of `inspect_checkpoint`, `inspect_graph` or `inspect_model`, and so are the options. A folder may
    be given that holds one model. Raises ReadError where a file cannot be read (NoModel: nothing there), UsageError for
    a folder of several models: `check_all` judges those.
    """
    found = models_in([str(path)])
    if len(found) > 1:
        raise UsageError(
            f"{path} holds {len(found)} models: `bncheck check {path}` and bncheck.check_all judge all of them"
        )
    return _report(found[0].path, options)


@takes(Options, CommandName.CHECK)
def check_all(path: str | Path, options: Options) -> tuple[Report, ...]:
    """One report for each model in a folder and the folders in it, or that a glob matches.

    Those of one folder come in the order of their steps. One that cannot be read gives an inconclusive report with exit
    code 2 and the reason. Raises NoModel where there is none, UsageError as `check_found`.
    """
    return check_found(models_in([str(path)]), options)


def check_found(found: list[Found], options: Options) -> tuple[Report, ...]:
    """One report for each; of several, a file that cannot be read must not hide what is wrong with the others.

    What was found in a folder and is no model after all is left out. Raises UsageError for options of a single model,
    ReadError where there is just one and it cannot be read.
    """
    if len(found) == 1:
        return (_report(found[0].path, options),)
    for name in ("graph", "steps"):
        if getattr(options, name) is not None:
            raise UsageError(f"--{name} applies to one model, but {len(found)} were found: give one PATH")
    return tuple(report for one in found if (report := _one_of_several(one, options)) is not None)


def _report(path: Path, options: Options) -> Report:
    return judged(read_target(path, options))


def _one_of_several(one: Found, options: Options) -> Report | None:
    try:
        return _report(one.path, options)
    except ReadError as error:
        if isinstance(error, UnknownFormat) and not one.named:
            return None
        return unreadable(one.path, error, options.settings)
