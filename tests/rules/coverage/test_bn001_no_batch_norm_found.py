"""BN001 no-batch-norm-found."""

from __future__ import annotations

from one_evidence import only

from bncheck.facts.formats import FileKind, Format
from bncheck.facts.gaps import Gap, GapKind
from bncheck.facts.layers import RunFacts
from bncheck.rules.coverage import (
    bn001_no_batch_norm_found,
)
from bncheck.testing import facts, lite

NOTHING = bn001_no_batch_norm_found.check


def test_nothing_found_says_where_it_looked_and_what_it_did_not_understand() -> None:
    """The message counts the variables looked through and names the places that looked like batch norm."""
    gap = Gap(kind=GapKind.LAYER, where="norm/mul_1", why="normalises over axes that the graph computes")
    model = facts(run=RunFacts(values=True, keys=frozenset({"w", "b"})), gaps=(gap,))
    message = only(NOTHING, model).message
    assert "among 2 variables" in message
    assert "1 place looked like it" in message


def test_a_lite_file_without_weights_holds_nothing() -> None:
    """A TFLite file is judged by its folded operators; without any there is nothing."""
    assert "0 operators" in only(NOTHING, lite()).message


def test_the_fix_speaks_of_what_the_file_was_made_with() -> None:
    """Of no checkpoint of TensorFlow where PyTorch or Flax wrote it; the command for ONNX names the file."""
    words = {FileKind.PYTORCH: "state_dict()", FileKind.SAFETENSORS: "state_dict()", FileKind.FLAX: "batch_stats"}
    for kind, word in words.items():
        assert word in only(NOTHING, facts(format=Format(kind))).fix
    fix = only(NOTHING, facts(format=Format(FileKind.ONNX), path="a b.onnx")).fix
    assert "bncheck inspect model 'a b.onnx' --reference model.pt" in fix
