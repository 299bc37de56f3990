"""What CONTRIBUTING answers to "how do I ...": each is done in a copy of the package, in three files at most."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "fixtures" / "mobilenet_v2" / "forgotten" / "model.ckpt-300"
HEALTHY = ROOT / "fixtures" / "tiny" / "healthy" / "control_dependencies" / "model.ckpt-80"
MOST_FILES = 3

READER = '''"""A format of one's own: lines of names and numbers."""

from functools import partial
from pathlib import Path

import numpy as np

from bncheck.facts.formats import FileKind, Format
from bncheck.sources.raw import RawModel, RawTensor


def matches(path: Path, head: bytes) -> bool:
    """By its first line."""
    return head.startswith(b"TOY")


def read_toy(path: Path) -> RawModel:
    """All numbers of a line are one tensor."""
    rows = [line.split() for line in path.read_text().splitlines()[1:]]
    values = {row[0]: np.array(row[1:], np.float32) for row in rows}
    tensors = {
        name: RawTensor(name=name, dtype="float32", shape=array.shape, read=partial(np.asarray, array))
        for name, array in values.items()
    }
    return RawModel(path=path, format=Format(FileKind.TOY), tensors=tensors)
'''
REPORTER = '''"""Codes alone."""


def write(report, stream):
    """One line."""
    stream.write("codes: " + ",".join(finding.code for finding in report.findings) + "\\n")


def write_run(reports, stream):
    """One line each."""
    for report in reports:
        write(report, stream)
'''
SAMPLES = '''"""Text files of numbers, a sample a line."""

import numpy as np

from bncheck.compare.data.samples import Samples


def open_lines(path, wanted):
    """All in one batch."""
    rows = np.loadtxt(path, dtype=np.float32, ndmin=2)
    batches = [(rows, None)]
    return Samples(
        description=f"{path}, lines", count=len(rows), labelled=False, open=lambda first: iter(batches[first:])
    )
'''
LOADS = """
import sys
import numpy as np
from bncheck.compare.data.data import open_data
from bncheck.compare.data.samples import ModelInput
data = open_data(sys.argv[1], [ModelInput(shape=(None, 2), dtype=np.dtype(np.float32))])
print("samples", [images.shape for images, _ in data])
"""


class Copy:
    """The package in a place of its own, and which of its files were changed or added."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.changed: set[str] = set()
        shutil.copytree(ROOT / "bncheck", folder / "bncheck", ignore=shutil.ignore_patterns("__pycache__"))

    def add(self, name: str, text: str) -> None:
        """A new file."""
        self.changed.add(name)
        (self.folder / "bncheck" / name).write_text(text, encoding="utf-8")

    def edit(self, name: str, old: str, new: str) -> None:
        """One place of a file."""
        path = self.folder / "bncheck" / name
        text = path.read_text(encoding="utf-8")
        assert text.count(old) >= 1, f"{name} has changed: {old!r}"
        self.changed.add(name)
        path.write_text(text.replace(old, new, 1), encoding="utf-8")

    def run(self, *arguments: str) -> str:
        """What the copy prints on both streams."""
        environment = {**os.environ, "PYTHONPATH": str(self.folder), "COLUMNS": "200"}
        command = [sys.executable, *arguments]
        done = subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False, timeout=300
        )
        return f"{done.stdout}{done.stderr}exit {done.returncode}"


def _format(copy: Copy) -> str:
    copy.add("sources/toy.py", READER)
    copy.edit("sources/__init__.py", "_READERS = {\n", '_READERS = {\n    "toy": "read_toy",\n')
    copy.edit("facts/formats.py", "    TFLITE =", '    TOY = "toy"\n    TFLITE =')
    file = copy.folder / "model.toy"
    names = ("gamma", "beta", "moving_mean", "moving_variance")
    rows = ["TOY", *(f"bn/{name} " + " ".join(map(str, np.arange(1, 5) / 10)) for name in names)]
    file.write_text("\n".join(rows))
    return copy.run("-m", "bncheck", "inspect", "model", str(file))


def _scheme(copy: Copy) -> str:
    copy.edit("settings/schemes.py", '    "dynamic":', '    "float8": "as nobody has it",\n    "dynamic":')
    copy.edit("compare/litert/convert.py", '    elif scheme == "float16":', '    elif scheme in ("float16", "float8"):')
    return copy.run("-m", "bncheck", "compare", "float-vs-quantized", "--help")


def _reporter(copy: Copy) -> str:
    copy.add("report/wire/codes.py", REPORTER)
    copy.edit("report/__init__.py", "_MODULES = {\n", '_MODULES = {\n    "codes": "bncheck.report.wire.codes",\n')
    return copy.run("-m", "bncheck", "inspect", "checkpoint", str(MODEL), "--format", "codes")


def _data(copy: Copy) -> str:
    copy.add("compare/data/lines.py", SAMPLES)
    copy.edit(
        "compare/data/data.py",
        "    if is_records(path):",
        '    if path.suffix == ".txt":\n        return open_lines(path, wanted)\n    if is_records(path):',
    )
    copy.edit(
        "compare/data/data.py",
        "from bncheck.compare.data.preprocess",
        "from bncheck.compare.data.lines import open_lines\nfrom bncheck.compare.data.preprocess",
    )
    lines = copy.folder / "samples.txt"
    lines.write_text("1 2\n3 4\n5 6\n")
    return copy.run("-c", LOADS, str(lines))


def _wording(copy: Copy) -> str:
    copy.edit("facts/remedies.py", "after the whole model is built", "behind the whole model")
    return copy.run("-m", "bncheck", "inspect", "checkpoint", str(MODEL))


def _exit_code(copy: Copy) -> str:
    copy.edit("facts/findings.py", "    INTERRUPTED = 130", "    QUIET = 7\n    INTERRUPTED = 130")
    copy.edit("cli/main.py", "    return ExitCode.PASS if ready else ExitCode.ERROR", "    return ExitCode.QUIET")
    return copy.run("-m", "bncheck", "doctor")


def _column(copy: Copy) -> str:
    copy.edit("report/views/layers.py", '"moved", "mean",', '"moved", "eps", "mean",')
    copy.edit("report/views/layers.py", "        moved,\n", '        moved,\n        f"{layer.epsilon or 0:g}",\n')
    copy.edit("report/views/layers.py", "range(8) if n == 0", "range(9) if n == 0")
    copy.edit("report/views/layers.py", "for n in range(8)]", "for n in range(9)]")
    return copy.run("-m", "bncheck", "inspect", "checkpoint", str(HEALTHY), "--verbose")


TRIED: Mapping[str, tuple[Callable[[Copy], str], str]] = {
    "read another format": (_format, "toy · 1 batch norm layer"),
    "add a quantization scheme": (_scheme, "float8"),
    "add a format of reports": (_reporter, "codes: BN101,BN201"),
    "read data from elsewhere": (_data, "samples [(3, 2)]"),
    "change a wording": (_wording, "behind the whole model"),
    "add an exit code": (_exit_code, "exit 7"),
    "add a column to the table of layers": (_column, "  eps  "),
}


@pytest.mark.parametrize("question", TRIED)
def test_the_answer_holds(question: str, tmp_path: Path) -> None:
    """Done in a copy, it works, and no more files than the answer names were touched."""
    do, seen = TRIED[question]
    copy = Copy(tmp_path)
    assert seen in do(copy)
    assert len(copy.changed) <= MOST_FILES


def test_contributing_asks_what_is_tried() -> None:
    """Each question stands in the table, with its files."""
    table = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for question in (*TRIED, "add a rule", "add an option of a run", "change a threshold"):
        (row,) = [line for line in table.splitlines() if line.startswith(f"| {question} |")]
        assert 1 <= row.split("|")[2].count("`") // 2 <= 6
