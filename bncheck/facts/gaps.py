"""What recognition saw and could not resolve: a part of the answer, never a pass."""

from __future__ import annotations

from enum import Enum

from bncheck.facts.record import Record


class GapKind(Enum):
    """Why something could not be understood or read."""

    LAYER = "layer not understood"
    MODE = "mode unknown"
    STATISTICS = "statistics unread"
    TRAIN_OP = "train op not found"


class Gap(Record):
    """Something that recognition saw and could not resolve."""

    kind: GapKind
    where: str
    why: str
    how: str = ""
