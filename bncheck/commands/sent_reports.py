"""Reports as bytes, for processes that judge for another: rules are sent by their codes."""

from __future__ import annotations

import io
import pickle
from collections.abc import Sequence
from typing import Any

from bncheck.facts.findings import Report
from bncheck.rules import RULES
from bncheck.rules.rule import Rule


def packed(reports: Sequence[Report]) -> bytes:
    """As `unpacked` takes them, on a machine with the same bncheck."""
    stream = io.BytesIO()
    _Pickler(stream, protocol=5).dump(list(reports))
    return stream.getvalue()


def unpacked(sent: bytes) -> list[Report]:
    """Only for bytes of a process that this one started, or of a cluster that the user named."""
    found: list[Report] = pickle.loads(sent)  # noqa: S301 - see above
    return found


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        """A rule's function is known to its registry alone."""
        return (_rule, (value.code,)) if isinstance(value, Rule) else NotImplemented


def _rule(code: str) -> Rule:
    return RULES.rule(code)
