"""Findings as lines of text: the cause, what it explains, the layers, the fix; evidence and effect on request."""

from __future__ import annotations

import re
from collections.abc import Iterator

from bncheck.facts.findings import Finding, Report, RuleFamily
from bncheck.report.escape import visible, visible_lines
from bncheck.report.text.layout import Line, cells, hanging, indented, wrap
from bncheck.report.views.story import Story, how_many, standing

LAYERS_NAMED = 3
"""Layers of a finding that are named without --verbose."""
MESSAGE_LINES = 2
"""Lines of a message that are shown without --verbose, as far as whole sentences fit in; its first always does."""
FIX_LINES = 12
"""Lines of a fix that are shown without --verbose."""
_CODE = " " * 6
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z`\d])")

_SEEN = {
    RuleFamily.STATISTICS: "Seen in the values too",
    RuleFamily.WIRING: "Seen in the graph too",
    RuleFamily.MODES: "Measured",
    RuleFamily.QUANTIZATION: "Seen in the fold too",
}


def story_lines(story: Story, report: Report, width: int, *, verbose: bool) -> Iterator[Line]:
    """One root cause: title, message, what it causes, layers, fix; with `verbose` all that is known of it."""
    cause = story.cause
    yield from _title(story, report, width)
    yield from indented(visible(cause.message) if verbose else _beginning(visible(cause.message), width - 2), width, 2)
    if verbose:
        yield from _evidence(story, width)
    elif story.explained:
        yield from hanging("Causes", _caused(story), width)
    yield from _named_layers(story, report, width, verbose=verbose)
    if verbose:
        yield from _measurements(story, width)
        if cause.why:
            yield from hanging("Effect", visible(cause.why), width)
    yield from _fix(cause, width, verbose=verbose)


def sentence_lines(story: Story, report: Report, width: int) -> Iterator[Line]:
    """A finding in its first sentence, whole, and the command that repairs it where there is one."""
    cause = story.cause
    sentence = _SENTENCE.split(visible(cause.message))[0]
    first, *rest = wrap(f"{cause.code} {cause.slug} · {standing(story)}{of_layers(cause, report)}: {sentence}", width)
    yield (first[: len(cause.code)], story.severity.value), (first[len(cause.code) :], "")
    yield from indented(" ".join(rest), width, 2) if rest else ()
    command = next((line.strip() for line in visible_lines(cause.fix) if line.startswith("    bncheck ")), "")
    if command:
        yield ((_CODE + command, "code"),)


def of_layers(finding: Finding, report: Report) -> str:
    """How many of the layers it is about, as the rest of a title; empty where it is about none."""
    told = how_many(finding, report)
    return f" · {told}" if told else ""


def _title(story: Story, report: Report, width: int) -> Iterator[Line]:
    finding = story.cause
    rest = of_layers(finding, report)
    doubt = "" if finding.confidence.value == "high" else f" · {finding.confidence.value} confidence"
    name, severity, style = f"{finding.code} {finding.slug}", standing(story), story.severity.value
    if cells(f"{name} · {severity}{rest}{doubt}") <= width:
        yield (name, "label"), (" · ", ""), (severity, style), (rest + doubt, "")
        return
    yield ((name, "label"),)
    yield ("  ", ""), (severity, style), (rest, "")
    if doubt:
        yield from indented(doubt.removeprefix(" · "), width, 2)


def _beginning(message: str, width: int) -> str:
    """The sentences that fit into MESSAGE_LINES, the first one in any case."""
    shown, *more = _SENTENCE.split(message)
    for sentence in more:
        if len(wrap(f"{shown} {sentence}", width)) > MESSAGE_LINES:
            break
        shown = f"{shown} {sentence}"
    return shown


def _caused(story: Story) -> str:
    own = story.cause.severity
    names = [f"{f.code} {f.slug}" + ("" if f.severity is own else f" ({f.severity.value})") for f in story.explained]
    return ", ".join(dict.fromkeys(names))


def _evidence(story: Story, width: int) -> Iterator[Line]:
    cause = story.cause
    for finding in story.explained:
        severity = "" if finding.severity is cause.severity else f", {finding.severity.value}"
        opening = f"{_seen(cause, finding)} ({finding.code} {finding.slug}{severity}): "
        yield from indented(opening + visible(finding.message), width, 2)
    alone = len(cause.layers) <= 1 and cause.location not in cause.layers
    if cause.location and alone and cause.location not in cause.message:
        yield from hanging("At", visible(cause.location), width)


def _seen(cause: Finding, finding: Finding) -> str:
    family = finding.rule.family
    if family is RuleFamily.QUANTIZATION and finding.rule.measured:
        return "Measured, quantized"
    return "With it" if family is cause.rule.family else _SEEN.get(family, "Seen too")


def _named_layers(story: Story, report: Report, width: int, *, verbose: bool) -> Iterator[Line]:
    finding = story.cause
    names = [visible(name) for name in finding.layers]
    if not names or (len(names) == len(report.layers) and not verbose and len(names) > LAYERS_NAMED):
        return
    shown = names if verbose or len(names) <= LAYERS_NAMED + 1 else names[:LAYERS_NAMED]
    told = visible(" ".join(f.message for f in (finding, *story.explained)))
    if all(name in (told if verbose else _beginning(visible(finding.message), width - 2)) for name in shown):
        return
    more = f" and {len(names) - len(shown)} more" if len(shown) < len(names) else ""
    yield from hanging("Layers" if len(names) > 1 else "Layer", ", ".join(shown) + more, width)


def _measurements(story: Story, width: int) -> Iterator[Line]:
    for finding in (story.cause, *story.explained):
        for m in finding.evidence:
            value = f"{m.value:.6g}" if isinstance(m.value, float) else visible(str(m.value))
            limit = "" if m.limit is None else f" (limit {m.limit:.6g})"
            text = f"{visible(m.name)} = {value}{' ' + m.unit if m.unit else ''}{limit}"
            yield from hanging(finding.code, text, width)


def _fix(finding: Finding, width: int, *, verbose: bool) -> Iterator[Line]:
    """Prose wrapped, code and commands (lines that are indented) as they are, each on one line."""
    lines = list(_fix_lines(f"Fix: {fix}", width - 2)) if (fix := finding.fix.strip("\n")) else []
    lines = [line for line in lines if line[0]] if not verbose else lines
    shown = lines if verbose or len(lines) <= FIX_LINES + 2 else lines[:FIX_LINES]
    while shown and not shown[-1][0]:
        shown = shown[:-1]
    for number, (text, style) in enumerate(shown):
        label = "  Fix:" if number == 0 else ""
        yield (label, "label"), (f"  {text}".removeprefix(label), style)
    if len(shown) < sum(bool(text) for text, _ in lines) and not verbose:
        yield ((f"{_CODE}... the rest: --verbose", "dim"),)


def _fix_lines(fix: str, width: int) -> Iterator[tuple[str, str]]:
    prose: list[str] = []
    lines = visible_lines(fix)
    # an empty line between a sentence that ends in a colon and its code costs a screen its last lines
    kept = [line for n, line in enumerate(lines) if line.strip() or not lines[n - 1].endswith(":")]
    for line in [*kept, ""]:
        if line[:1].isspace() or not line:
            if prose:
                yield from ((text, "") for text in wrap(" ".join(prose), width))
                prose = []
            yield (line.rstrip(), "code")
        else:
            prose.append(line)
