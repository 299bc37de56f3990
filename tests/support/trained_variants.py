"""The MobileNetV2 checkpoints of `fixtures/mobilenet_v2`, each trained in another way, and the digits they know."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from fixtures.digits import Digits

ROOT = Path(__file__).parents[2]
VARIANTS = ROOT / "fixtures" / "mobilenet_v2"


def checkpoint(variant: str) -> str:
    """Prefix of a fixture."""
    return str(VARIANTS / variant / "model.ckpt-300")


@cache
def trained_digits() -> Digits:
    """Both splits; a test that asks for them is skipped where scikit-learn, which has them, is not installed."""
    pytest.importorskip("sklearn")
    sys.path.insert(0, str(ROOT))
    try:
        from fixtures.digits import digits as load

        return load()
    finally:
        sys.path.remove(str(ROOT))
