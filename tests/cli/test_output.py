"""Where reports go: several formats in one run, each file whole or not there at all."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import TextIO

import pytest

from bncheck.cli.output import Output, check_format, emit, outputs
from bncheck.facts.errors import UsageError


@pytest.mark.parametrize(
    ("wanted", "places"),
    [
        ([], [("text", None)]),
        (["r.txt"], [("text", "r.txt")]),
        (["-"], [("text", None)]),
        (["json=r.json"], [("text", None), ("json", "r.json")]),
        (["json=r.json", "sarif=a=b.sarif"], [("text", None), ("json", "r.json"), ("sarif", "a=b.sarif")]),
        (["json=-"], [("json", None)]),
        (["json=-", "r.txt"], [("json", None), ("text", "r.txt")]),
        (["./a=b"], [("text", "a=b")]),
        (["model-explorer=n.json"], [("text", None), ("model-explorer", "n.json")]),
    ],
)
def test_places(wanted: list[str], places: list[tuple[str, str | None]]) -> None:
    """Standard output keeps the default format unless an output claims it or takes the format elsewhere."""
    expected = tuple(Output(format=f, path=None if p is None else Path(p)) for f, p in places)
    assert outputs(wanted, "text") == expected


def test_files_of_a_configuration_lie_beside_it(tmp_path: Path) -> None:
    """Relative files are taken from the configuration's folder."""
    assert outputs(["json=out/r.json"], "text", tmp_path)[1].path == tmp_path / "out" / "r.json"


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        (["sarfi=x"], "no format 'sarfi': did you mean sarif?"),
        (["zzz=x"], "no format 'zzz': there are text, json"),
        (["htm=x"], "no format 'htm': did you mean html?"),
        (["json="], "no file is named"),
        (["json=a", "sarif=a"], "two reports would be written to a"),
        (["json=-", "sarif=-"], "two reports would be written to standard output"),
    ],
)
def test_what_is_refused(wanted: list[str], says: str) -> None:
    """A mistyped format is no file name; one place takes one report."""
    with pytest.raises(UsageError) as error:
        outputs(wanted, "text")
    assert says in str(error.value)


def test_check_format() -> None:
    """A format that is offered is given back."""
    assert check_format("junit") == "junit"


def test_file_appears_whole(tmp_path: Path) -> None:
    """UTF-8, line ends as written, usual permissions, nothing left beside it."""
    path = tmp_path / "r.txt"
    emit(path, lambda stream: _write(stream, "é\n"))
    assert path.read_bytes() == "é\n".encode()
    assert list(tmp_path.iterdir()) == [path]
    plain = tmp_path / "plain"
    plain.touch()
    assert path.stat().st_mode == plain.stat().st_mode


def test_failure_leaves_the_old_file(tmp_path: Path) -> None:
    """A reporter that fails half way changes nothing and leaves nothing."""
    path = tmp_path / "r.txt"
    path.write_text("old")

    def fail(stream: TextIO) -> None:
        stream.write("half")
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError):
        emit(path, fail)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_existing_file_keeps_its_permissions_and_links(tmp_path: Path) -> None:
    """A link is followed, not replaced; the file behind it keeps its mode."""
    path, link = tmp_path / "r.txt", tmp_path / "link"
    path.write_text("old")
    path.chmod(0o600)
    link.symlink_to(path)
    emit(link, lambda stream: _write(stream, "new"))
    assert (path.read_text(), link.is_symlink(), stat.S_IMODE(path.stat().st_mode)) == ("new", True, 0o600)


def test_devices_are_written_to() -> None:
    """/dev/null stays a device."""
    null = Path("/dev/null")
    if not null.is_char_device():
        pytest.skip("no /dev/null here")
    emit(null, lambda stream: _write(stream, "x"))
    assert null.is_char_device()


@pytest.mark.parametrize("name", ["", "no/such/folder/r.txt"])
def test_unwritable_is_one_sentence(name: str, tmp_path: Path) -> None:
    """A folder in the way, or none to write into: the path and the system's reason."""
    with pytest.raises(UsageError, match="cannot be written"):
        emit(tmp_path / name, lambda stream: _write(stream, "x"))


def _write(stream: TextIO, text: str) -> None:
    stream.write(text)
