"""What TorchScript's code tells of its batch norms; the code is as PyTorch 2.14 writes it."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from pytorch_writer import Call, Name, batch_norm, pickled, tensor

import bncheck
from bncheck.facts.errors import TooLarge
from bncheck.sources.pytorch import script
from bncheck.sources.pytorch.pytorch import read_pytorch

CLASS = "___torch_mangle_36"
MODULE = f"__torch__.torch.nn.modules.batchnorm.{CLASS}"
HEAD = """class BatchNorm2d(Module):
  __parameters__ = ["weight", "bias", ]
  training : bool
"""
TRACE = HEAD + (
    """  def forward(self: __torch__.torch.nn.modules.batchnorm.___torch_mangle_36.BatchNorm2d,
    argument_1: Tensor) -> Tensor:
    input = torch.batch_norm((conv).forward(x, ), weight, bias, running_mean, running_var, MODE, 0.1, 0.001, True)
    return input
"""
)
SCRIPT = HEAD + (
    """  eps : Final[float] = 1.0000000000000001e-05
  momentum : Final[float] = 0.01
  def forward(self: __torch__.torch.nn.modules.batchnorm.___torch_mangle_36.BatchNorm2d,
    input: Tensor) -> Tensor:
    _3 = _0(input, running_mean, running_var, weight, bias, bn_training, 0.01, 1.0000000000000001e-05, )
    return _3
"""
)


def saved(path: Path, code: str, *, training: bool = True) -> Path:
    """An archive of one module with one batch norm of this code."""
    arrays = {name.removeprefix("bn."): array for name, array in batch_norm("bn").items()}
    state = {name: tensor(str(i), array) for i, (name, array) in enumerate(arrays.items())} | {"training": training}
    norm = Call(Name(MODULE, "BatchNorm2d"), (), state)
    root = Call(Name("__torch__", "Net"), (), {"bn": norm})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/data.pkl", pickled(root))
        for i, array in enumerate(arrays.values()):
            archive.writestr(f"m/data/{i}", array.tobytes())
        member = f"m/code/__torch__/torch/nn/modules/batchnorm/{CLASS}.py"
        archive.writestr(member, code, compress_type=zipfile.ZIP_DEFLATED)
    return path


@pytest.mark.parametrize(
    ("code", "known"),
    [
        (TRACE.replace("MODE", "True"), {"eps": 1e-3, "traced_in_train_mode": True}),
        (TRACE.replace("MODE", "False"), {"eps": 1e-3, "traced_in_train_mode": False}),
        (SCRIPT, {"eps": 1e-5, "momentum": 0.01}),
        (SCRIPT.replace("Final[float] = 0.01", "Final[NoneType] = None"), {"eps": 1e-5, "momentum": None}),
        (TRACE.replace("MODE", "True") + TRACE.replace("MODE", "False"), {"eps": 1e-3, "traced_in_train_mode": True}),
        (TRACE.replace("MODE", "True").replace("class BatchNorm2d", "class Other"), {}),
        ("", {}),
    ],
)
def test_what_is_fixed(tmp_path: Path, code: str, known: dict[str, object]) -> None:
    """Mode and epsilon of a trace, epsilon and momentum of a script; nothing of another class."""
    (module,) = read_pytorch(saved(tmp_path / "m.pt", code)).modules.values()
    assert module == {"training": True, "scripted": True, "class": f"{MODULE}.BatchNorm2d", **known}


def test_two_calls_that_differ_tell_nothing(tmp_path: Path) -> None:
    """A module that is applied in both modes."""
    call = TRACE[TRACE.index("    input =") : TRACE.index("    return")]
    code = TRACE.replace("MODE", "True").replace("    return", call.replace("MODE", "False") + "    return")
    assert "traced_in_train_mode" not in read_pytorch(saved(tmp_path / "m.pt", code)).modules["bn"]


def test_traced_in_train_mode(tmp_path: Path) -> None:
    """Whatever runs the file stays in it; a script is loaded in it; in eval mode nothing is found."""
    report = bncheck.check(saved(tmp_path / "m.pt", TRACE.replace("MODE", "True")))
    assert [(finding.code, finding.severity.value, finding.layers) for finding in report.findings] == [
        ("BN205", "error", ("bn",))
    ]
    assert not bncheck.check(saved(tmp_path / "m.pt", TRACE.replace("MODE", "False"))).findings
    (warning,) = bncheck.check(saved(tmp_path / "m.pt", SCRIPT)).findings
    assert (warning.code, warning.severity.value) == ("BN205", "warning")
    assert not bncheck.check(saved(tmp_path / "m.pt", SCRIPT, training=False)).findings


def test_endless_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is not read."""
    monkeypatch.setattr(script, "_MAX_CODE", 1 << 10)
    with pytest.raises(TooLarge, match="bytes of code"):
        read_pytorch(saved(tmp_path / "m.pt", SCRIPT + "#" * (1 << 11)))
