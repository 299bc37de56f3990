"""Where rules are looked up: by code, in order, each file imported when its rule is first needed."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from importlib import import_module

from bncheck.rules.rule import Needs, Rule


class Registry(Collection[Rule]):
    """Rules in code order. Codes and names are known without importing a rule: its file is named after them."""

    def __init__(self, rules: Sequence[str | Rule], *, needs: Mapping[str, Needs] | None = None) -> None:
        """`rules` are files below `bncheck.rules` ("wiring.bn201_update_not_wired"), or rules themselves.

        `needs` repeats, by codes and prefixes, what those rules need that a plain inspection has not: there they are
        told as not checked, and not imported.
        """
        self._listed = {_names(listed)[0]: listed for listed in rules}
        self._needs = needs or {}
        self._lacking: dict[tuple[str, Needs], Needs] = {}
        self.slugs: dict[str, str] = dict(map(_names, rules))
        """Code -> name: "BN201" -> "update-not-wired"."""

    @property
    def codes(self) -> tuple[str, ...]:
        """All codes, in order."""
        return tuple(self._listed)

    def rule(self, code: str) -> Rule:
        """The rule of this code. Raises KeyError where there is none."""
        listed = self._listed[code]
        if isinstance(listed, str):
            listed = self._listed[code] = import_module(f"bncheck.rules.{listed}").check
        return listed

    def __iter__(self) -> Iterator[Rule]:
        """All rules, in order."""
        return map(self.rule, self.codes)

    def __contains__(self, rule: object) -> bool:
        return isinstance(rule, Rule) and rule.code in self._listed and self.rule(rule.code) is rule

    def __len__(self) -> int:
        return len(self._listed)

    def lacking(self, code: str, at_hand: Needs) -> Needs:
        """The evidence that this rule needs and that is missing."""
        if (code, at_hand) not in self._lacking:
            known = next((needs for prefix, needs in self._needs.items() if code.startswith(prefix)), Needs.NOTHING)
            self._lacking[code, at_hand] = known & ~at_hand or self.rule(code).needs & ~at_hand
        return self._lacking[code, at_hand]


def _names(listed: str | Rule) -> tuple[str, str]:
    """(code, name) of a rule or of its file."""
    if isinstance(listed, str):
        code, _, slug = listed.rpartition(".")[2].partition("_")
        return code.upper(), slug.replace("_", "-")
    return listed.code, listed.slug
