"""Evidence, findings and the report: what rules say, what the pipeline makes of it, what reporters print."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field
from enum import Enum, Flag, IntEnum, auto
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from bncheck.facts.record import Record

if TYPE_CHECKING:
    from bncheck.facts.layers import Layer
    from bncheck.facts.lite import LiteFacts
    from bncheck.facts.measurements import Comparison, FoldProof, QuantizedComparison


class Severity(Enum):
    """How bad it is if true."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


class Confidence(Enum):
    """How sure bncheck is that it is true."""

    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


class Verdict(Enum):
    """The answer for one target."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


class RuleFamily(Enum):
    """What a rule looks at: the first digit of its code."""

    COVERAGE = 0
    """What could not be seen: no fault."""
    STATISTICS = 1
    WIRING = 2
    MODES = 3
    QUANTIZATION = 4
    GATE = 5


class Meaning(Flag):
    """What a finding means beyond its text: to the verdict, to other findings, to commands, and where reports mark it.

    A rule declares it, so that nobody else knows a rule by its code.
    """

    NONE = 0
    NO_BATCH_NORM = auto()
    """None was found: the verdict is inconclusive, never a failure."""
    UNDECIDED = auto()
    """The data are too few, or of another kind: the verdict is inconclusive unless something else fails."""
    OTHER_DATA = auto()
    """The data are unlike those of the training: new statistics of them are no remedy, for whatever is found."""

    WIRING_FAULT = auto()
    """A fault of the graph that makes the modes differ: told together with what it did."""
    VALUES_FAULT = auto()
    """The same of the values."""
    FITS_NO_DATA = auto()
    """An error explains statistics that fit no data: the data are not suspected."""

    STATISTICS_STAY = auto()
    """An error says that training leaves statistics as they are: `bncheck.guard` stops it."""
    BY_COUNTERS = auto()
    """Reckons what is left of the initial values by the counters, which know nothing of a repair."""

    OUTPUT_DIFFERS = auto()
    """Eval mode's output is off, in doubt as well."""
    LAYER_DIFFERS = auto()
    """Names the layers that go wrong by themselves between the modes; a note names some that are right all the same."""
    OPERATOR_LOSES = auto()
    """Names the operators that lose precision by themselves."""
    INITIAL_VALUES = auto()
    """Names layers whose statistics are, in good part, still their initial values."""
    FOLDED_RANGES = auto()
    """Names layers whose folded channels suit no common scale."""


class ExitCode(IntEnum):
    """How a command ends; printed as the number that it is."""

    __repr__ = int.__repr__
    __str__ = int.__repr__

    PASS = 0
    FAIL = 1
    """Findings at or above `--fail-on`."""
    ERROR = 2
    """Usage, configuration or unreadable input."""
    NOTHING = 3
    """Nothing to judge."""
    INTERRUPTED = 130


class Measurement(Record):
    """One number behind a finding; it stays a number until a reporter prints it."""

    name: str
    value: float | int | str | bool
    limit: float | int | None = None
    unit: str = ""


class Evidence(Record):
    """What a rule yields: one root cause with all layers it holds for, in forward order."""

    layers: tuple[str, ...]
    message: str
    """One or two sentences: what was seen, with its numbers."""
    severity: Severity | None = None
    """None: the rule's own."""
    confidence: Confidence | None = None
    """None: the rule's own."""
    location: str = ""
    """Op or variable that shows it, where that is not the layer itself."""
    fix: str = ""
    """Empty: the rule's own fix. May hold code, in lines of its own."""
    why: str = ""
    """Why it matters here; empty: the rule's own words."""
    measurements: tuple[Measurement, ...] = ()
    ends_gate_for: tuple[str, ...] | None = None
    """Layers for which the rule's `ends_gate` holds; None: all."""
    includes: tuple[str, ...] = ()
    """Codes of findings on these layers that this one tells in full, with another meaning: they are left out."""


class RuleInfo(Record, eq=False):
    """What a report tells of a rule that ran."""

    code: str
    slug: str
    severity: Severity
    confidence: Confidence
    family: RuleFamily
    meaning: Meaning
    measured: bool
    """Seen by running the model, not by reading its files."""
    ends_gate: str
    """Why running the model would tell nothing more where an error is found, as the rest of a sentence; else empty."""
    refuses_repair: str
    """Why new statistics are no remedy where an error or warning is found, as the rest of a sentence; else empty."""
    page: Callable[[], tuple[str, Mapping[str, str]]]
    """Reads (title, sections) from the rule's docstring, which is for those that found something or print pages."""

    @property
    def title(self) -> str:
        """One sentence."""
        return self._read[0]

    @property
    def sections(self) -> Mapping[str, str]:
        """Heading ("What it detects", "Why it matters", ... as in `bncheck.rules.rule.HEADINGS`) -> text."""
        return self._read[1]

    @cached_property
    def _read(self) -> tuple[str, Mapping[str, str]]:
        return self.page()


class Finding(Record):
    """Evidence with the rule's name, its standing, and what explains it."""

    rule: RuleInfo = field(repr=False)
    code: str
    slug: str
    severity: Severity
    confidence: Confidence
    layers: tuple[str, ...]
    location: str
    message: str
    why: str
    fix: str
    evidence: tuple[Measurement, ...]
    fingerprint: str
    """Stable over runs and machines: of code, target name and layers."""
    caused_by: str | None = None
    """Code of the finding that explains this one; reporters tell the two as one story."""
    ends_gate_for: tuple[str, ...] | None = None
    """As in the evidence."""

    @property
    def layer(self) -> str:
        """The first layer, empty where a finding is about the whole model."""
        return self.layers[0] if self.layers else ""


def leaves_open(finding: Finding) -> bool:
    """Whether no verdict can be given on the output because of it; a note only says so."""
    return Meaning.UNDECIDED in finding.rule.meaning and finding.severity is not Severity.INFO


def fails(finding: Finding, fail_on: str) -> bool:
    """Whether a finding makes the verdict fail; `fail_on` is "error", "warning" or "never"."""
    bad = {"error": (Severity.ERROR,), "warning": (Severity.ERROR, Severity.WARNING), "never": ()}[fail_on]
    return finding.severity in bad and not finding.rule.meaning & (Meaning.NO_BATCH_NORM | Meaning.UNDECIDED)


class StageName(str, Enum):
    """What may be judged of a model, in the order in which a gate does it; the value is how reports name it."""

    STATIC = "static"
    MODES = "train vs eval"
    QUANTIZED = "float vs quantized"
    AGAINST = "against the earlier model"

    __str__ = str.__str__


class NotChecked(Record):
    """Something that would have been judged had the evidence been there."""

    what: str
    stage: StageName | None = None
    """The stage that would have judged it; None: none runs the model for it."""
    why: str
    how: str = ""
    """What a user can do to have it checked."""
    codes: tuple[str, ...] = ()


KERNELS = "what depends on kernels"
"""`NotChecked.what` of a checkpoint in a long run whose kernels were left unread."""


def not_run(stage: StageName, why: str, how: str = "", codes: tuple[str, ...] = ()) -> NotChecked:
    """A stage of which nothing is known."""
    return NotChecked(what=stage.value, stage=stage, why=why, how=how, codes=codes)


class Suppressed(Record):
    """A finding that an ignore or the baseline took out of the verdict."""

    finding: Finding
    by: str
    """"baseline" or the ignore's reason."""


class StageState(Enum):
    """How a stage of a gate ended."""

    DONE = "done"
    LEFT_OUT = "left out"
    """Not asked for, or there is no such thing for this kind of model."""
    STOPPED = "stopped early"
    """A fault that was found before decides the verdict and leaves nothing to run."""
    IMPOSSIBLE = "could not run"
    OVER_BUDGET = "over budget"


class Stage(Record):
    """One stage of a gate."""

    name: StageName
    state: StageState
    why: str = ""
    """Why it was not done."""
    how: str = ""
    """What a user can do to have it done."""
    seconds: float | None = None


class Gate(Record):
    """What a gate did."""

    stages: tuple[Stage, ...]
    """In the order in which they run."""
    against: str | None = None
    """The earlier model, or the report of one, that this one must not be worse than."""
    max_time: float | None = None
    """Seconds."""
    max_memory: float | None = None
    """Megabytes (10**6 bytes)."""
    seconds: float = 0.0
    peak_memory: float | None = None
    """Megabytes that the process which ran the model had at most; None where none ran."""


class TargetInfo(Record):
    """What was looked at."""

    path: str
    format: str
    graph_path: str | None = None
    step: int | None = None
    updates: int | None = None
    """How often the statistics were updated, as far as the files or the user tell."""
    updates_from: str = ""
    """Where `updates` comes from."""
    notes: tuple[str, ...] = ()


class Report(Record, eq=False):
    """The whole answer for one target; reporters need nothing else."""

    target: TargetInfo
    verdict: Verdict
    exit_code: ExitCode
    layers: tuple[Layer, ...]
    findings: tuple[Finding, ...]
    suppressed: tuple[Suppressed, ...]
    not_checked: tuple[NotChecked, ...]
    checked: tuple[str, ...]
    """Short names of what was judged: "values", "graph", "configuration", "folded weights"."""
    rules: tuple[RuleInfo, ...]
    """All rules that ran, in code order, whether they found something or not."""
    timing: Mapping[str, float] = field(default_factory=dict)
    """Seconds by stage: "read", "recognise", "rules"."""
    headline: str = ""
    """Why the verdict is inconclusive, else empty."""
    fail_on: str = "error"
    """Severity from which a finding makes the verdict fail: "error", "warning" or "never"."""

    folded: int | None = None
    """Operators of a TFLite file into which batch norm may have been folded; None for any other target."""
    lite: LiteFacts | None = None
    """Operators, leftovers and their scales, of a TFLite file."""
    comparison: Comparison | None = None
    """What comparing measured, where two modes were compared."""
    quantized: QuantizedComparison | None = None
    """What comparing measured, where float was compared with quantized."""
    fold: FoldProof | None = None
    """Which statistics a TFLite file holds, where it was held against its source."""
    gate: Gate | None = None
    """Stages and budgets, where the report is a gate's."""
    run: str | None = None
    """The folder of the training run whose checkpoints were inspected together, this one among them."""
    configuration: Path | None = None
    """The configuration file that had a say in it, where there was one."""

    @property
    def unreadable(self) -> bool:
        """Whether the target could not be read: it is one of several, and `headline` says why."""
        return self.exit_code == ExitCode.ERROR

    def __repr__(self) -> str:
        """One line: verdict, target, how many layers, codes."""
        codes = ", ".join(dict.fromkeys(finding.code for finding in self.findings)) or "no findings"
        layers = len(self.layers)
        told = f"{self.target.format}, {layers} layer{'' if layers == 1 else 's'}, {codes}"
        return f"<Report {self.verdict.value}: {self.target.path!r}, {told}>"

    def to_json(self) -> str:
        """The report as JSON, version 1 (its schema: `bncheck/report/json_v1.schema.json`)."""
        from bncheck.report.wire.json_v1 import dumps  # noqa: PLC0415 - a report knows no reporter until asked for one

        return dumps(self)

    def _repr_html_(self) -> str:
        """The HTML report in a frame, for notebooks; the text report where the extra `html` is not installed."""
        from bncheck.report.html.html import notebook  # noqa: PLC0415 - as above

        return notebook(self)
