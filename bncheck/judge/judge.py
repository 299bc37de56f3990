"""Facts become findings, findings become a verdict. Pure; knows no file and prints nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bncheck.facts.findings import (
    Evidence,
    ExitCode,
    Finding,
    Meaning,
    Report,
    RuleInfo,
    Severity,
    StageName,
    TargetInfo,
    Verdict,
    fails,
    leaves_open,
)
from bncheck.facts.formats import FileKind
from bncheck.facts.layers import Facts, Layer, Mode, Origin, Purpose
from bncheck.facts.wording import many, many_are
from bncheck.judge.not_checked import not_checked, unjudged_layers
from bncheck.judge.suppress import refuse_unknown_codes, selected, sort_out
from bncheck.rules import RULES
from bncheck.rules.registry import Registry
from bncheck.rules.rule import Needs, Rule, causes
from bncheck.rules.shared import fixes
from bncheck.rules.shared.modes import FEWEST_SAMPLES
from bncheck.settings.config import Settings

if TYPE_CHECKING:
    from bncheck.facts.measurements import QuantizedComparison

_DEFAULT = Settings()
_RANK = {Severity.ERROR: 0, Severity.WARNING: 1, Severity.INFO: 2}
_MOST_UNREAD = 0.5
"""Share of the layers whose statistics may be unread in what passes; a guess: what was judged should be most of it."""
_STEP = re.compile(r"-\d+(?=(\.[A-Za-z]\w*)?$)")


def judge(
    facts: Facts, *, settings: Settings = _DEFAULT, rules: Registry = RULES, silent: frozenset[str] = frozenset()
) -> Report:
    """Runs the rules over facts that are already at hand. Raises ConfigError for codes that no rule has.

    `silent` are the rules of which it is known that they find nothing here (`bncheck.judge.blind`).
    """
    refuse_unknown_codes(settings, rules.codes)
    chosen = [code for code in rules.codes if selected(code, settings)]
    known = at_hand(facts)
    lacking = [(code, rules.lacking(code, known)) for code in chosen]
    ran = [rules.rule(code) for code, lacks in lacking if not lacks]
    infos = [rule.info for rule in ran]
    asked = ((rule, info) for rule, info in zip(ran, infos, strict=True) if rule.code not in silent)
    seen = [(evidence, info) for rule, info in asked for evidence in rule.check(facts)]
    found = [_finding(evidence, info, facts) for evidence, info in _without_included(seen)]
    outcome = sort_out(
        found,
        settings,
        ran=[rule.code for rule in ran],
        fingerprint=lambda f: _fingerprint(f, facts),
        worse={rule.code: rule.milder_than for rule in ran},
    )
    findings = _of_these_data(sorted(_join_causes(outcome.kept, ran), key=_worst_first))
    verdict, headline = _verdict(facts, findings, settings, any_rule_ran=bool(ran))
    return Report(
        target=_target(facts, outcome.notes),
        verdict=verdict,
        exit_code=exit_code(verdict, settings),
        layers=facts.layers,
        findings=findings,
        suppressed=tuple(sorted(outcome.suppressed, key=lambda s: _worst_first(s.finding))),
        not_checked=not_checked(
            facts,
            [(code, lacks) for code, lacks in lacking if lacks],
            [code for code in rules.codes if code not in chosen],
        ),
        checked=_checked(facts, known),
        rules=tuple(infos),
        headline=headline,
        fail_on=settings.fail_on.value,
        folded=None if facts.lite is None or facts.layers else len(facts.lite.folded),
        lite=facts.lite,
        comparison=facts.comparison,
        quantized=facts.quantized,
        fold=facts.fold,
    )


def wiring_faults(facts: Facts) -> tuple[Finding, ...]:
    """Errors that say that training leaves statistics as they are; no other rule is asked."""
    asked = Registry([rule for rule in RULES if Meaning.STATISTICS_STAY in rule.meaning])
    return tuple(finding for finding in judge(facts, rules=asked).findings if finding.severity is Severity.ERROR)


def exit_code(verdict: Verdict, settings: Settings) -> ExitCode:
    """A pass, a failure, or nothing to judge, which may be allowed."""
    if verdict is Verdict.INCONCLUSIVE and not settings.allow_empty:
        return ExitCode.NOTHING
    return ExitCode.FAIL if verdict is Verdict.FAIL else ExitCode.PASS


def at_hand(facts: Facts) -> Needs:
    """The evidence that rules may ask for, as far as it is there."""
    decided = any(v.constant_checked for layer in facts.layers for v in layer.statistics)
    evidence = (
        (Needs.VALUES, facts.run.values or decided),
        (Needs.GRAPH, facts.graph is not None),
        (Needs.SITES, any(layer.sites for layer in facts.layers)),
        (Needs.PREDICTIONS, any(layer.predicted is not None for layer in facts.layers)),
        (Needs.LITE, facts.lite is not None),
        (Needs.CONVERTED, facts.lite is not None or facts.format.kind is FileKind.ONNX),
        (Needs.REFERENCE, facts.reference is not None),
        (Needs.COMPARISON, facts.comparison is not None),
        (Needs.QUANTIZED, facts.quantized is not None),
        (Needs.FOLD, facts.fold is not None),
        (Needs.BEFORE, facts.before is not None and (facts.comparison is not None or facts.quantized is not None)),
    )
    needs = Needs.NOTHING
    for need, met in evidence:
        needs |= need if met else Needs.NOTHING
    return needs


def _finding(evidence: Evidence, info: RuleInfo, facts: Facts) -> Finding:
    finding = Finding(
        rule=info,
        code=info.code,
        slug=info.slug,
        severity=evidence.severity or info.severity,
        confidence=evidence.confidence or info.confidence,
        layers=evidence.layers,
        location=evidence.location,
        message=evidence.message,
        why=evidence.why or _first_paragraph(info.sections.get("Why it matters", "")),
        fix=evidence.fix or fixes.filled(info.sections.get("Fix", ""), facts),
        evidence=evidence.measurements,
        fingerprint="",
        ends_gate_for=evidence.ends_gate_for,
    )
    return replace(finding, fingerprint=_fingerprint(finding, facts))


def _without_included(seen: Sequence[tuple[Evidence, RuleInfo]]) -> list[tuple[Evidence, RuleInfo]]:
    """Leaves out what other evidence tells in full, for all of its layers."""
    told = {(code, layer) for evidence, _ in seen for code in evidence.includes for layer in evidence.layers}
    return [
        (evidence, info)
        for evidence, info in seen
        if not evidence.layers or not told.issuperset((info.code, layer) for layer in evidence.layers)
    ]


def _first_paragraph(text: str) -> str:
    return " ".join(text.strip().split("\n\n", maxsplit=1)[0].split())


def _fingerprint(finding: Finding, facts: Facts) -> str:
    """SHA-256 of code, target name without folder and step, location and layers: the same on every machine."""
    target = _STEP.sub("", Path(facts.path).absolute().name)
    parts = (finding.code, target, finding.location, *finding.layers)
    import hashlib  # noqa: PLC0415 - it loads OpenSSL, and a healthy model has no finding

    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()


def _join_causes(findings: Sequence[Finding], rules: Sequence[Rule]) -> list[Finding]:
    """Gives each finding the code that explains it: declared by its rule, found, and about the same layers."""
    found = {finding.code for finding in findings}
    declared = {rule.code: causes(rule, rules) for rule in rules if rule.code in found}
    explained: dict[str, str] = {}
    joined: list[Finding] = []
    for finding in findings:
        explaining = (
            other.code
            for code in declared[finding.code]
            for other in findings
            if other.code == code
            and _same_layers(other, finding)
            and not _leads_to(other.code, finding.code, explained)
        )
        cause = next(explaining, None)
        if cause is not None:
            explained[finding.code] = cause
        joined.append(replace(finding, caused_by=cause))
    return joined


def _of_these_data(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Without the advice to repair from the data at hand where these are found to be no data for it."""
    other = any(Meaning.OTHER_DATA in f.rule.meaning and f.severity is not Severity.INFO for f in findings)
    return tuple(replace(f, fix=fixes.from_other_data(f.fix)) if other else f for f in findings)


def _same_layers(one: Finding, other: Finding) -> bool:
    return not one.layers or not other.layers or not set(one.layers).isdisjoint(other.layers)


def _leads_to(code: str, end: str, explained: Mapping[str, str]) -> bool:
    """Whether `end` is among the causes of `code`: two findings must not explain each other."""
    step: str | None = code
    while step is not None:
        if step == end:
            return True
        step = explained.get(step)
    return False


def _worst_first(finding: Finding) -> tuple[int, str]:
    return _RANK[finding.severity], finding.code


def _verdict(
    facts: Facts, findings: Sequence[Finding], settings: Settings, *, any_rule_ran: bool
) -> tuple[Verdict, str]:
    if any(fails(finding, settings.fail_on.value) for finding in findings):
        return Verdict.FAIL, ""
    unjudged = next((f.message for f in findings if leaves_open(f)), "")
    reason = _too_little(facts) or unjudged or _made_up(facts)
    if not reason and not any_rule_ran:
        reason = "none of the selected rules could run on what was given"
    return (Verdict.INCONCLUSIVE, reason) if reason else (Verdict.PASS, "")


def _too_little(facts: Facts) -> str:
    """Why there is nothing to judge; empty where there is."""
    unproved = _unproved(facts) or _no_output(facts) or _nothing_rounded(facts.quantized)
    if unproved:
        return unproved
    if facts.lite is not None and not facts.layers:
        compared = facts.fold is not None or facts.quantized is not None
        held = facts.lite.shows_batch_norm(compared=compared)
        return _too_few(facts.quantized) if held else "no batch norm was found"
    if not facts.layers and facts.fold is None:
        left = facts.graph is not None and any(leftover.named for leftover in facts.graph.leftovers)
        return "batch norm was written out without its statistics" if left else "no batch norm was found"
    if not facts.layers:
        return ""
    if not any(map(_judged, facts.layers)):
        return "no statistic, mode or update of its batch norm could be judged"
    unread, measured = len(unjudged_layers(facts)), (facts.comparison, facts.quantized, facts.fold)
    if unread > _MOST_UNREAD * len(facts.layers) and not any(measured):
        return f"the statistics of {unread} of {many(len(facts.layers), 'layer')} could not be read"
    values = any(v.constant_checked for layer in facts.layers for v in layer.statistics)
    graph = facts.graph
    if not values and graph is not None and graph.purpose is Purpose.TRAINING and not graph.train_ops:
        return "neither a train op nor checkpoint values were given, so whether updates run is unknown"
    return ""


def _made_up(facts: Facts) -> str:
    """That the model was run on made-up data, where running it was asked for; empty where it was not, or on others."""
    asked = {"eval mode": facts.comparison, "the quantized model": facts.quantized}
    run = [what for what, measured in asked.items() if measured is not None and measured.data.synthetic]
    if not run:
        return ""
    return f"the data are synthetic noise, which cannot tell whether {' or '.join(run)} is junk: give real data"


def _unproved(facts: Facts) -> str:
    """Why the proof of what was folded is none, where it is all that was asked for; empty where it is one."""
    if facts.fold is None or facts.quantized is not None:
        return ""
    layers = facts.fold.layers
    missing = sum(layer.folded == "unmatched" for layer in layers)
    if not layers:
        return f"no batch norm was found in {facts.fold.source}, so nothing can be proved of {facts.fold.path}"
    if missing == len(layers):
        return f"nothing of {facts.fold.source} was found in {facts.fold.path}: {layers[0].why}"
    were = "was" if missing == 1 else "were"
    return f"{missing} of {many(len(layers), 'layer')} {were} not found in {facts.fold.path}" if missing else ""


def _no_output(facts: Facts) -> str:
    """That float and quantized have no output in common, by which they could be judged; empty where they have."""
    measured = facts.quantized
    if measured is None or measured.outputs:
        return ""
    sizes = measured.apart
    other = sizes is not None and sizes[0] != sizes[1]
    counts = f": it tells {sizes[1]} classes, the model {sizes[0]}" if sizes is not None and other else ""
    name = measured.quantized or measured.scheme
    return f"{name} has none of the model's outputs, so what it answers was not judged{counts}"


def _nothing_rounded(measured: QuantizedComparison | None) -> str:
    """That bncheck's own conversion left all as it was, so that nothing was compared; a given file may be float."""
    rounded = None if measured is None or measured.was_given else measured.rounded
    if measured is None or rounded is None or not rounded.nothing:
        return ""
    return (
        f"{measured.scheme} quantizes nothing of this model: {many_are(rounded.of_kernels, 'kernel')} left in float32, "
        "so nothing tells what quantizing costs"
    )


def _too_few(measured: QuantizedComparison | None) -> str:
    """Why two TFLite files, for which there is no train mode, were run on too little; empty where they were not."""
    if measured is None or measured.data.synthetic or measured.data.samples >= FEWEST_SAMPLES:
        return ""
    return f"{many_are(measured.data.samples, 'sample')} too few to compare on: {FEWEST_SAMPLES} or more are needed"


def _judged(layer: Layer) -> bool:
    values = any(v.constant_checked for v in layer.statistics)
    return values or bool(layer.updates) or any(site.mode is not Mode.UNKNOWN for site in layer.sites)


def _checked(facts: Facts, known: Needs) -> tuple[str, ...]:
    values = "checksums of the values" if facts.run.index_only else "values"
    names = (
        (values, bool(facts.layers) and Needs.VALUES in known),
        ("graph", facts.graph is not None),
        ("configuration", any(layer.origin is Origin.CONFIG for layer in facts.layers)),
        ("folded weights", facts.lite is not None),
        ("reference", facts.reference is not None),
        (StageName.MODES.value, facts.comparison is not None),
        (StageName.QUANTIZED.value, facts.quantized is not None),
        ("what was folded", facts.fold is not None),
    )
    return tuple(name for name, was in names if was)


def _target(facts: Facts, notes: tuple[str, ...]) -> TargetInfo:
    graph = facts.graph if facts.graph is not None and facts.graph.path != facts.path else None
    both = graph is not None and graph.format.kind is not facts.format.kind
    return TargetInfo(
        path=facts.path,
        format=f"{facts.format} + {graph.format}" if graph is not None and both else facts.format.label,
        graph_path=None if graph is None else graph.path,
        step=facts.run.global_step,
        updates=facts.run.updates,
        updates_from=facts.run.updates_from,
        notes=(*facts.notes, *notes),
    )
