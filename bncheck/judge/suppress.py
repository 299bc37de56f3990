"""What takes findings out of the verdict: code selection, ignores with a reason, the baseline.

Nothing is lost: what was taken out stands in the report, and an ignore that no longer holds or matches is said.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from fnmatch import fnmatchcase

from bncheck.facts.errors import ConfigError
from bncheck.facts.findings import Finding, Suppressed
from bncheck.facts.record import Record
from bncheck.settings.config import Ignore, Known, Settings

BASELINE = "baseline"
BEFORE = "the earlier model has it too"
_RANK = ("error", "warning", "info")

Fingerprint = Callable[[Finding], str]


class Sorted(Record):
    """Findings after selection, ignores and baseline."""

    kept: tuple[Finding, ...]
    suppressed: tuple[Suppressed, ...]
    notes: tuple[str, ...]
    """Ignores that expired or matched nothing, baseline entries that no longer occur."""


def selected(code: str, settings: Settings) -> bool:
    """Whether the rule of this code takes part: `select` lets in, `ignore` then leaves out."""
    return (not settings.select or code.startswith(settings.select)) and not code.startswith(settings.ignore)


def refuse_unknown_codes(settings: Settings, known: Sequence[str]) -> None:
    """Raises ConfigError for a code or prefix that no rule has: a typo would leave a fault unreported."""
    given = [*settings.select, *settings.ignore, *(code for i in settings.ignores for code in i.codes)]
    for code in given:
        if not any(k.startswith(code) for k in known):
            import difflib  # noqa: PLC0415 - start-up

            near = difflib.get_close_matches(code, known, n=3)
            hint = f"did you mean {', '.join(near)}?" if near else "`bncheck rules` lists them"
            raise ConfigError(f"no rule's code starts with {code!r}: {hint}")


def sort_out(
    findings: Iterable[Finding],
    settings: Settings,
    *,
    ran: Sequence[str],
    fingerprint: Fingerprint,
    worse: Mapping[str, Sequence[str]],
) -> Sorted:
    """Takes out what the baseline knows, then what the ignores and the earlier model accept, layer by layer.

    `ran` are the codes that were judged: an ignore of a rule that did not run is not called unused. `fingerprint`
    marks the parts of a finding of which only some layers are ignored; `worse` has, for each code, those of the same
    fault to a higher degree: who had these is not worse now.
    """
    today = settings.today or datetime.now(timezone.utc).date()
    expired = [i for i in settings.ignores if i.expires is not None and i.expires < today]
    active = [i for i in settings.ignores if i not in expired]
    baseline = settings.baseline or frozenset()
    kept: list[Finding] = []
    suppressed: list[Suppressed] = []
    used: set[int] = set()
    for finding in findings:
        rest: Finding | None = finding
        if finding.fingerprint not in baseline:
            rest, taken = _ignore_layers(finding, active, fingerprint)
            suppressed += [Suppressed(finding=part, by=active[number].reason) for number, part in taken]
            used |= {number for number, _ in taken}
        if rest is not None and rest.fingerprint in baseline:
            suppressed.append(Suppressed(finding=rest, by=BASELINE))
            rest = None
        if rest is not None:
            rest, before = _without_known(rest, settings.known, fingerprint, worse.get(rest.code, ()))
            suppressed += [] if before is None else [Suppressed(finding=before, by=BEFORE)]
        if rest is not None:
            kept.append(rest)
    unused = [i for n, i in enumerate(active) if n not in used and any(c.startswith(i.codes) for c in ran)]
    notes = (
        *(f"{_named(i)} expired on {i.expires}: it no longer applies" for i in expired),
        *(f"{_named(i)} matched nothing: remove it" for i in unused),
        *_gone(baseline, suppressed),
    )
    return Sorted(kept=tuple(kept), suppressed=tuple(suppressed), notes=notes)


def _ignore_layers(
    finding: Finding, ignores: Sequence[Ignore], fingerprint: Fingerprint
) -> tuple[Finding | None, list[tuple[int, Finding]]]:
    """(what is left of the finding, [(number of the ignore, the part it takes)]); the first matching ignore takes."""
    taken: dict[int, list[str]] = {}
    left: list[str] = []
    for layer in finding.layers or ("",):
        numbers = (n for n, i in enumerate(ignores) if finding.code.startswith(i.codes) and fnmatchcase(layer, i.layer))
        number = next(numbers, None)
        (left if number is None else taken.setdefault(number, [])).append(layer)
    if not taken:
        return finding, []
    parts = [(n, _part(finding, layers, fingerprint)) for n, layers in taken.items()]
    if not left:
        return None, parts
    count = len(finding.layers) - len(left)
    message = f"{finding.message} ({count} of these {len(finding.layers)} layers ignored by configuration)"
    return replace(_part(finding, left, fingerprint), message=message), parts


def _without_known(
    finding: Finding, known: Sequence[Known], fingerprint: Fingerprint, worse: Sequence[str]
) -> tuple[Finding | None, Finding | None]:
    """(what is new of the finding, what the earlier model had of it)."""
    rank = _RANK.index(finding.severity.value)
    codes = (finding.code, *worse)
    same = [k for k in known if k.code in codes and _RANK.index(k.severity) <= rank]
    if not finding.layers:
        had = any(not k.layers and k.location == finding.location for k in same)
        return (None, finding) if had else (finding, None)
    before = frozenset[str]().union(*(k.layers for k in same))
    new = [layer for layer in finding.layers if layer not in before]
    old = [layer for layer in finding.layers if layer in before]
    if not old or not new:
        return (None, finding) if old else (finding, None)
    message = f"{finding.message} ({len(old)} of these {len(finding.layers)} layers had it in the earlier model)"
    return replace(_part(finding, new, fingerprint), message=message), _part(finding, old, fingerprint)


def _part(finding: Finding, layers: list[str], fingerprint: Fingerprint) -> Finding:
    part = replace(finding, layers=tuple(layer for layer in layers if layer))
    return replace(part, fingerprint=fingerprint(part))


def _named(ignore: Ignore) -> str:
    return f"ignore of {', '.join(ignore.codes)} on {ignore.layer!r}"


def _gone(baseline: frozenset[str], suppressed: Sequence[Suppressed]) -> tuple[str, ...]:
    seen = {s.finding.fingerprint for s in suppressed if s.by == BASELINE}
    gone = len(baseline - seen)
    return (f"{gone} of {len(baseline)} findings of the baseline no longer occur: write it again",) if gone else ()
