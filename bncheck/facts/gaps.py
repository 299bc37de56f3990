"""What recognition saw and could not resolve: a part of the answer, never a pass."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class GapKind(Enum):
    """Why something could not be understood or read."""

    LAYER = "layer not understood"
    MODE = "mode unknown"
    STATISTICS = "statistics unread"
    TRAIN_OP = "train op not found"


@dataclass(frozen=True, kw_only=True)
class Gap:
    """Something that recognition saw and could not resolve."""

    kind: GapKind
    where: str
    why: str
    how: str = ""
