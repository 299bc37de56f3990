"""How a finding words its remedy: the code for the training script, and the command for the model at hand."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from pathlib import PurePath

from bncheck.facts import remedies
from bncheck.facts.formats import FileKind
from bncheck.facts.layers import Facts
from bncheck.facts.wording import percent
from bncheck.rules.shared.modes import eval_is_better

_PYTORCH = "pytorch"
"""As torch.onnx names itself in the models that it writes."""
_KERAS_ENDINGS = (".weights.h5", ".keras", ".h5", ".hdf5")


def of_pytorch(model: Facts) -> bool:
    """Whether a model was made with PyTorch: by its format, or by what exported it."""
    return model.format.is_pytorch or (model.graph is not None and model.graph.producer == _PYTORCH)


def repair(model: Facts, *, debias: str | None = None) -> str:
    """The command that gives this checkpoint new statistics; without one at hand, with words in its place.

    From data, or with `debias` the words that make it undo the init share without any. Of PyTorch's files, which
    bncheck does not write, PyTorch's own line of code.
    """
    if of_pytorch(model):
        return remedies.UPDATE_BN
    if model.format.kind is FileKind.FLAX:
        return remedies.ESTIMATE_IN_FLAX
    if model.format.inspected_only:
        return "# repair the model that this was exported from, and export it again"
    here = model.run.keys is not None or model.run.values
    target = [
        "bncheck",
        "repair",
        model.path if here else "CHECKPOINT",
        "-o",
        f"fixed{_ending(model)}" if here else "OUT",
    ]
    if debias is not None:
        return f"{shlex.join([*target, *model.given.reading])} {debias}"
    return shlex.join([*target, "--data", _data(model), *model.given.reading, *model.given.running])


def compare(model: Facts, *more: str, command: str = "compare train-vs-eval") -> str:
    """The command that runs the model as it was run, with those of `more` (option, value, ...) not given yet."""
    given = (*model.given.reading, *model.given.running, *model.given.training)
    named = {word.partition("=")[0] for word in given if word.startswith("--")}
    pairs = zip(more[::2], more[1::2], strict=True)
    new = [word for pair in pairs if pair[0] not in named for word in pair]
    return shlex.join(["bncheck", *command.split(), model.path, "--data", _data(model), *given, *new])


def without(model: Facts, option: str) -> Facts:
    """The model as if an option, with its value, had not been given: another is recommended."""
    kept, words = [], iter(model.given.running)
    for word in words:
        if word == option:
            next(words, None)
        elif word.partition("=")[0] != option:
            kept.append(word)
    return replace(model, given=replace(model.given, running=tuple(kept)))


def _data(model: Facts) -> str:
    return model.given.data or "images/"


_COMMAND = re.compile(r"`?(bncheck (repair|compare [a-z-]+|gate) PATH[^`\n]*)`?")


_OWN_PART = re.compile(r"^In (PyTorch|Flax):", re.MULTILINE)


def filled(text: str, model: Facts) -> str:
    """A rule's own remedy with its commands on lines of their own, for the model at hand instead of for PATH.

    What follows `In PyTorch:` or `In Flax:` is for their files alone, where there is such a part, and the rest for all
    others.
    """
    others, *parts = _OWN_PART.split(text)
    own = dict(zip(parts[::2], parts[1::2], strict=True))
    framework = "PyTorch" if of_pytorch(model) else "Flax" if model.format.kind is FileKind.FLAX else ""
    text = own.get(framework, others).strip("\n ")
    text = text[:1].upper() + text[1:]
    found = []
    for line in text.splitlines():
        command = _COMMAND.search(line)
        if command is None:
            found.append(line)
            continue
        before, after = line[: command.start()].rstrip(), line[command.end() :].lstrip(" .,;:")
        found += [before] if before else []
        found += [indented(_for(model, command[1]))]
        found += [after] if after else []
    return "\n".join(found)


def _for(model: Facts, command: str) -> str:
    words = shlex.split(command)
    if words[1] == "repair" and keeps_its_statistics(model):
        return keeps_its_statistics(model)
    if words[1] == "repair":
        return repair(model, debias="--debias" if "--debias" in words else None)
    options = words[words.index("PATH") + 1 :]
    if "--data" in options:
        place = options.index("--data")
        options = options[:place] + options[place + 2 :]
    return compare(model, *options, command=" ".join(words[1 : words.index("PATH")]))


def _ending(model: Facts) -> str:
    """Of the repaired copy: a Keras file keeps its own, which tells Keras how to load it; a SavedModel is a folder."""
    name = PurePath(model.path).name
    if model.format.kind is FileKind.KERAS:
        return next((end for end in _KERAS_ENDINGS if name.endswith(end)), ".keras")
    return "_model" if model.format.kind is FileKind.SAVED_MODEL else ".ckpt"


def training_code(*code: str, note: str = "") -> str:
    """The first half of most remedies: what to change before the next run."""
    head = "In the training code" + (f" ({note}):" if note else ":")
    return "\n".join((head, *(indented(block) for block in code)))


def training_code_and_repair(model: Facts, *code: str, note: str = "") -> str:
    """What to change before the next run, and how to save what was trained already."""
    return f"{training_code(*code, note=note)}\n{this_checkpoint(model)}"


def keeps_its_statistics(model: Facts) -> str:
    """Why the stored statistics must stay as they are; empty where nothing measured says so."""
    if model.comparison is None or not eval_is_better(model.comparison):
        return ""
    train, stored = model.comparison.accuracy.train or 0.0, model.comparison.accuracy.eval or 0.0
    return (
        f"Keep its statistics: eval mode is more accurate ({percent(stored)}; train mode {percent(train)}), so the "
        f"weights belong to them."
    )


def this_checkpoint(model: Facts) -> str:
    """The other half: how to save what was trained."""
    kept = keeps_its_statistics(model)
    if kept:
        return f"This checkpoint:\n{indented(kept)}"
    return f"This checkpoint, without retraining:\n{indented(repair(model))}"


def from_other_data(fix: str) -> str:
    """A remedy as it reads where the data at hand are unlike the training's: it does not repair from them.

    One that says so itself stays as it is.
    """
    return fix if "BN304" in fix else _REPAIR_FROM_DATA.sub(r"\g<1>Repair it from data like the training data.", fix)


_REPAIR_FROM_DATA = re.compile(r"^( *)bncheck repair .*--data.*$", re.MULTILINE)


def repaired(model: Facts) -> str:
    """How bncheck itself gave the model its statistics, as the rest of a sentence; empty where it did not."""
    found = model.repaired
    return found.told if found is not None and found.confirmed else ""


def training_part(fix: str) -> str:
    """A remedy without the half that repairs what was trained: it is repaired."""
    return fix.partition("\nThis checkpoint, without retraining:")[0]


def indented(code: str) -> str:
    """Four spaces before every line, as code stands in reports and pages."""
    return "\n".join(f"    {line}" if line else "" for line in code.splitlines())
