"""`bncheck init`: a configuration to begin with, and what a CI needs for the models that lie in the folder."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TextIO

import click

from bncheck.cli.help import Command, examples
from bncheck.facts.errors import NoModel, ReadError, UsageError
from bncheck.version import Home, home

_MODELS_SHOWN = 5
_TO_FILL_IN = Home("https://github.com/OWNER/bncheck", "main")

_GITHUB = """\
jobs:
  batch-norm:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v4
      - uses: actions/setup-python@v5
        with:
          python-version: "3.12"
      - uses: {action}@{revision}
        with:
          path: |
{models}
"""
_GITLAB = """\
batch-norm:
  image: python:3.12
  script:
    - pip install "bncheck @ git+{home}@{revision}"
    - bncheck gate {words} --output bncheck.xml --output bncheck.json
  artifacts:
    when: always
    paths:
      - bncheck.json
    reports:
      junit: bncheck.xml
"""
_PRE_COMMIT = """\
repos:
  - repo: {home}
    rev: {revision}
    hooks:
      - id: bncheck
"""
_PLACES = {
    ".gitlab-ci.yml": ("GitLab, for .gitlab-ci.yml", _GITLAB),
    ".pre-commit-config.yaml": ("pre-commit, for .pre-commit-config.yaml", _PRE_COMMIT),
    ".github": ("GitHub, for .github/workflows/bncheck.yml", "on: [push, pull_request]\n" + _GITHUB),
}
"""What lies in a project that uses a CI -> (what for, the snippet)."""


@click.command(cls=Command, epilog=examples("init", "init --schema"))
@click.option("--schema", is_flag=True, help="Print the JSON schema of the configuration, for editors; write nothing.")
def init(schema: bool) -> None:  # noqa: FBT001 - click gives it by name
    """Write a configuration file, print a CI snippet.

    All keys are written, commented out: into pyproject.toml where there is one, else into bncheck.toml. The snippet is
    for the CI whose files lie here, and names the models that do.
    """
    from bncheck.cli.output import emit  # noqa: PLC0415 - start-up
    from bncheck.settings.template import schema_text  # noqa: PLC0415 - start-up

    if schema:
        emit(None, lambda stream: _write(schema_text(), stream))
        return
    written = write_configuration(Path())
    text = f"Wrote {written}: every key is there, commented out.\n\n{snippets(Path())}"
    emit(None, lambda stream: _write(text, stream))


def write_configuration(folder: Path) -> Path:
    """Adds a commented `[tool.bncheck]` to pyproject.toml, or writes bncheck.toml. Raises UsageError where one is."""
    from bncheck.cli.output import emit  # noqa: PLC0415 - start-up
    from bncheck.settings.config_file import FILE_NAME, find_config  # noqa: PLC0415 - start-up
    from bncheck.settings.template import starting_file  # noqa: PLC0415 - start-up

    own, project = folder / FILE_NAME, folder / "pyproject.toml"
    there = next((path for path in (own, project) if path.is_file() and find_config(folder) == path), None)
    if there is not None:
        raise UsageError(f"{there} already configures bncheck: nothing was written")
    if not project.is_file():
        emit(own, lambda stream: _write(starting_file(in_project=False), stream))
        return own
    before = project.read_text(encoding="utf-8").rstrip("\n")
    text = f"{before}\n\n{starting_file(in_project=True)}".lstrip("\n")
    emit(project, lambda stream: _write(text, stream))
    return project


def snippets(folder: Path) -> str:
    """What to copy into the CI whose files lie in a folder, GitHub's where there are none."""
    models = _models(folder)
    there = [name for name in _PLACES if (folder / name).exists()] or [".github"]
    copy = home() or _TO_FILL_IN
    parts = []
    for name in there:
        what, text = _PLACES[name]
        filled = text.format(
            home=copy.address,
            action=copy.address.removeprefix("https://github.com/"),
            revision=copy.revision,
            words=shlex.join(models),
            models="\n".join(f"            {model}" for model in models),
        )
        parts.append(f"# {what}\n{filled}")
    if copy is _TO_FILL_IN:
        parts.append("# OWNER stands for where you keep bncheck's repository.\n")
    return "\n".join(parts)


def _models(folder: Path) -> list[str]:
    """The models in a folder, a placeholder where there are none."""
    from bncheck.sources.models_in import models_in  # noqa: PLC0415 - start-up

    try:
        found = [one.path.as_posix() for one in models_in([str(folder)])]
    except (NoModel, ReadError):
        found = []
    return found[:_MODELS_SHOWN] or ["models/model.ckpt-300"]


def _write(text: str, stream: TextIO) -> None:
    from bncheck.report.escape import encodable  # noqa: PLC0415 - start-up

    stream.write(encodable(text, stream.encoding))
