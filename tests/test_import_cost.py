"""What an import or a static command loads: no TensorFlow ever, and nothing heavy before it is needed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from bundle_writer import write_bundle

from bncheck.report import FORMATS

GRAPH = Path(__file__).parents[1] / "fixtures" / "mobilenet_v2" / "wired" / "model.ckpt-300"
HEAVY = ("tensorflow", "keras", "tf_slim", "h5py", "rich", "numpy", "google.protobuf", "click", "jsonschema")
NEVER = ("tensorflow", "keras", "tf_keras", "tf_slim", "ai_edge_litert", "sklearn", "jsonschema")


def _loaded(code: str, *arguments: str) -> set[str]:
    """Modules that a fresh interpreter has loaded after this code."""
    report = "import sys, json; print('\\n' + json.dumps(sorted(sys.modules)))"
    command = [sys.executable, "-c", f"{code}\n{report}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    names: list[str] = json.loads(done.stdout.splitlines()[-1])
    return set(names)


def _commands(*commands: str) -> set[str]:
    """Modules loaded after these commands, one after the other in one interpreter."""
    code = "import sys\nfrom bncheck.cli.main import main\nfor line in sys.argv[1:]: main(line.split())"
    return _loaded(code, *commands)


def test_import_of_the_package_is_cheap() -> None:
    """`import bncheck` loads nothing of weight, not even its own pipeline."""
    loaded = _loaded("import bncheck; bncheck.__version__")
    assert loaded.isdisjoint(HEAVY)
    assert {m for m in loaded if m.startswith("bncheck.")} == {"bncheck.version"}


def test_public_names_load_on_use() -> None:
    """A name of the public API loads what it needs, and no TensorFlow."""
    loaded = _loaded("import bncheck; [getattr(bncheck, name) for name in bncheck.__all__]")
    assert "bncheck.commands.inspect" in loaded
    assert loaded.isdisjoint({*NEVER, "h5py", "rich", "click"})


def test_help_loads_no_numbers() -> None:
    """Help needs click and nothing else of weight."""
    loaded = _commands("--help", "--version", "inspect --help", "inspect graph -h")
    assert "click" in loaded
    assert loaded.isdisjoint({*NEVER, "h5py", "rich", "numpy", "google.protobuf"})


def test_static_commands_load_no_tensorflow() -> None:
    """No static command loads TensorFlow, nor h5py or rich where none is needed."""
    loaded = _commands("rules", "explain BN101", "doctor", "inspect model none")
    assert {"bncheck.explain", "bncheck.doctor", "bncheck.sources"} <= loaded
    assert loaded.isdisjoint({*NEVER, "h5py", "rich"})


def test_inspection_loads_no_tensorflow(tmp_path: Path) -> None:
    """A checkpoint is judged and reported in every format without TensorFlow, h5py, rich or masked arrays."""
    inspect = f"inspect checkpoint {_checkpoint(tmp_path)} --format"
    loaded = _commands(*(f"{inspect} {name}" for name in FORMATS if name != "html"))
    assert {"bncheck.sources.bundle.checkpoint", "bncheck.report.wire.sarif", "bncheck.report.text.text"} <= loaded
    loaded -= _loaded("import numpy")
    assert loaded.isdisjoint({*NEVER, "h5py", "rich", "flatbuffers", "numpy.ma", "altair", "jinja2"})


def test_inspection_loads_what_it_needs(tmp_path: Path) -> None:
    """Nothing of what running a model or reading a TFLite file gives: no facts, rules or tables of it."""
    loaded = _commands(f"inspect checkpoint {_checkpoint(tmp_path)}")
    mine = {name.removeprefix("bncheck.") for name in loaded if name.startswith("bncheck.")}
    assert {"rules.statistics.bn101_never_moved", "rules.wiring.bn211_decay_suspicious", "report.text.text"} <= mine
    measured = {"facts.measurements", "facts.lite", "facts.repairs", "testing.quantized", "rules.shared.precision_fix"}
    other = {"cli.compare", "cli.demo", "cli.gate", "cli.repair", "report.text.comparison", "report.text.quantized"}
    assert mine.isdisjoint({*measured, *other, "report.views.comparison", "report.views.fold", "report.views.gate"})
    rules = {name.rpartition(".")[2][:5] for name in mine if name.startswith("rules.")}
    assert {code for code in rules if code.startswith(("bn3", "bn4", "bn5"))} == {"bn403", "bn404", "bn410"}


def test_inspection_of_a_graph_loads_what_it_needs() -> None:
    """A graph that rounds nothing pays for no quantization-aware training, nor for what only running a model gives."""
    loaded = _commands(f"inspect checkpoint {GRAPH}")
    mine = {name.removeprefix("bncheck.") for name in loaded if name.startswith("bncheck.")}
    assert {"recognise.graph.by_graph", "rules.wiring.bn201_update_not_wired", "report.text.text"} <= mine
    measured = {"facts.measurements", "numerics.share_from_data", "rules.shared.quantized", "numerics.spread"}
    rounding = {"facts.fake_quant", "numerics.fake_quant", "recognise.graph.fake_quant", "recognise.graph.folded"}
    formats = {"sources.keras", "sources.tflite", "sources.graph.saved_model", "sources.arrays", "sources.provenance"}
    assert mine.isdisjoint({*measured, *rounding, *formats, "facts.lite"})
    assert loaded.isdisjoint({*NEVER, "h5py", "rich", "difflib"})


def test_charts_load_no_tensorflow(tmp_path: Path) -> None:
    """The HTML report loads its plotting library, and still no TensorFlow."""
    loaded = _commands(f"inspect checkpoint {_checkpoint(tmp_path)} --format html")
    assert "altair" in loaded
    assert loaded.isdisjoint({*NEVER, "h5py", "rich", "pandas"} - {"jsonschema"})


def test_gate_without_data_loads_what_inspect_loads(tmp_path: Path) -> None:
    """No TensorFlow, nothing to run a model with, no proof of what was folded; with an earlier model neither."""
    checkpoint = _checkpoint(tmp_path)
    loaded = _commands(f"gate {checkpoint} -q", f"gate {checkpoint} -q --against {checkpoint}")
    assert {"bncheck.commands.gate.gate", "bncheck.commands.gate.earlier_model"} <= loaded
    loaded -= _loaded("import numpy")
    assert loaded.isdisjoint({*NEVER, "h5py", "rich", "subprocess"})
    assert loaded.isdisjoint({"bncheck.commands.gate.parent", "bncheck.commands.gate.child", "bncheck.foldproof.prove"})
    assert not any(name.startswith("bncheck.compare") for name in loaded)


def test_the_test_can_fail() -> None:
    """What is imported is seen."""
    assert "h5py" in _loaded("import h5py")
    assert "numpy" in _loaded("import bncheck; bncheck.inspect_model")


def _checkpoint(folder: Path) -> Path:
    channels = np.arange(1, 5, dtype=np.float32)
    names = ("gamma", "beta", "moving_mean", "moving_variance")
    write_bundle(folder / "model.ckpt-7", {f"conv/BatchNorm/{name}": channels for name in names})
    return folder / "model.ckpt-7"
