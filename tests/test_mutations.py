"""Files of every format, damaged at random, through the whole of `inspect`: a named error or a report, and no lies.

Where a format has checksums (checkpoints, Keras archives), whatever is still read must be what was written. Elsewhere a
flipped bit inside a number is another number, which nothing can tell; but damage to the structure has a name.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import mutations
import pytest

SAMPLE = 8
MANY = 500
"""Of each of the kinds: 6,000 in all."""


def run(first: int, last: int, *names: str) -> Counter[str]:
    """How often each outcome came, of these cases in a process of their own. Fails at the first that is none."""
    command = [sys.executable, mutations.__file__, str(first), str(last), *names]
    limit = 60 + (last - first) * len(names)
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
        output, end = done.stdout, ""
        if done.returncode:
            end = f"ended with code {done.returncode}: {done.stderr[-2000:]}"
    except subprocess.TimeoutExpired as expired:
        output, end = (expired.stdout or b"").decode(), f"did not end within {limit} s"
    lines = [json.loads(line) for line in output.splitlines() if line.endswith("]")]
    assert not end, f"{lines[-1:]} {end}"
    outcomes = [(name, number, outcome) for name, number, outcome in lines if outcome != "begun"]
    bugs = [f"{name} {number} {outcome}" for name, number, outcome in outcomes if outcome.startswith("bug")]
    assert not bugs, f"{len(bugs)} of {len(outcomes)} cases:\n" + "\n".join(bugs[:5])
    assert len(outcomes) == (last - first) * len(names)
    return Counter(outcome for _, _, outcome in outcomes)


def test_a_few_mutations_of_every_format() -> None:
    """A sample of each kind: both outcomes come, and nothing else."""
    outcomes = run(0, SAMPLE, *mutations.KINDS)
    assert sum(count for outcome, count in outcomes.items() if outcome.startswith("error ")) > SAMPLE
    assert outcomes["report"] > 1


@pytest.mark.slow
@pytest.mark.parametrize("name", mutations.KINDS)
def test_many_mutations(name: str) -> None:
    """Hundreds of each kind."""
    outcomes = run(SAMPLE, SAMPLE + MANY, name)
    assert len(outcomes) > 1


@pytest.mark.parametrize("name", mutations.KINDS)
def test_every_kind_has_examples(name: str) -> None:
    """The fixtures hold files of every kind, and undamaged they are read."""
    kind = mutations.KINDS[name]
    examples = [path for path in kind.examples() if mutations.FIXTURES in path.parents]
    assert examples
    assert kind.inspect(str(examples[0])).target.path


def test_damage_is_the_same_each_time_and_no_two_alike() -> None:
    """A case can be repeated by its number, and a thousand numbers are nearly a thousand cases."""
    content = bytes(range(256)) * 16
    damaged = [mutations.damage(content, random.Random(number)) for number in range(1000)]  # noqa: S311 - reproducible
    again = [mutations.damage(content, random.Random(number)) for number in range(1000)]  # noqa: S311 - reproducible
    assert damaged == again
    assert len(set(damaged)) > 950
    assert damaged.count(content) < 50


def test_the_watchdog_sees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that dies, and a report with other facts than were written, are failures."""
    script = tmp_path / "dies.py"
    script.write_text('import os\nprint(\'["bundle", 3, "begun"]\', flush=True)\nos.abort()\n')
    monkeypatch.setattr(mutations, "__file__", str(script))
    with pytest.raises(AssertionError, match=r"'bundle', 3, 'begun'.* ended with code -6"):
        run(3, 4, "bundle")
    script.write_text('print(\'["bundle", 3, "bug: other facts"]\')\n')
    with pytest.raises(AssertionError, match="bundle 3 bug: other facts"):
        run(3, 4, "bundle")
