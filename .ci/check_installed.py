"""Checks an installed wheel from outside the source tree: what it holds, that TensorFlow is absent, what it says.

python -I .ci/check_installed.py WHEEL
"""

import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from importlib.metadata import requires
from importlib.util import find_spec
from pathlib import Path

MODELS = Path(__file__).resolve().parents[1] / "fixtures" / "mobilenet_v2"
EXPECTED = {"forgotten": (1, {"BN101", "BN201"}), "wired": (0, set())}


def check_contents(wheel: Path) -> None:
    """The package with its data, and nothing else."""
    names = zipfile.ZipFile(wheel).namelist()
    assets = {f"bncheck/report/assets/page.{kind}" for kind in ("css", "js", "html.j2")}
    schemas = {"bncheck/report/json_v1.schema.json", "bncheck/settings/config.schema.json"}
    sample = {f"bncheck/sample/model.ckpt-100.{part}" for part in ("index", "meta", "data-00000-of-00001")}
    assert {"bncheck/py.typed", *schemas, *assets, *sample} <= set(names), names
    foreign = [name for name in names if not name.startswith(("bncheck/", "bncheck-"))]
    assert not foreign, foreign
    core = [line for line in requires("bncheck") or [] if "extra ==" not in line]
    assert not any("tensorflow" in line for line in core), core


def check_commands(folder: str) -> None:
    """The console script judges the committed models as it should."""
    script = Path(sysconfig.get_path("scripts")) / "bncheck"
    for name, (code, codes) in EXPECTED.items():
        for words in (["inspect", "checkpoint"], ["check"], [], ["gate"]):
            command = [script, *words, MODELS / name / "model.ckpt-300", "--format", "json"]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
            assert done.returncode == code, (name, done)
            assert {finding["code"] for finding in json.loads(done.stdout)["findings"]} == codes, (name, done.stdout)
        print(f"{name}: exit {code}, {', '.join(sorted(codes)) or 'nothing found'}")
    done = subprocess.run([script, "demo", "--static"], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done
    assert "BN201 update-not-wired" in done.stdout, done


if __name__ == "__main__":
    import bncheck

    assert Path(bncheck.__file__).is_relative_to(sysconfig.get_path("purelib")), bncheck.__file__
    assert find_spec("tensorflow") is None, "TensorFlow is installed here, so that its absence is not tested"
    os.environ["PYTHONSAFEPATH"] = "1"
    check_contents(Path(sys.argv[1]))
    with tempfile.TemporaryDirectory() as elsewhere:
        check_commands(elsewhere)
