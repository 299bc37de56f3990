"""BN103: what init share does harm, and when counters are not to be believed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bncheck.facts.findings import Confidence, Evidence, Measurement, Severity
from bncheck.facts.formats import FileKind, Format
from bncheck.facts.layers import DecaySource, Facts, Layer, Mode, Origin, RunFacts, Site
from bncheck.facts.measurements import OutputDifference
from bncheck.recognise import recognise
from bncheck.rules.shared.init_share_fix import shorter_decay
from bncheck.rules.statistics.bn103_init_share_too_high import check
from bncheck.settings.options import Options
from bncheck.sources import open_model
from bncheck.testing import batch_norm, classes_compared, compared, difference, facts, unread, untouched, wired


def found(model: Facts) -> list[Evidence]:
    """What the rule yields."""
    return list(check.check(model))


def run(updates: int | None) -> RunFacts:
    """A run of that many updates."""
    return RunFacts(values=True, global_step=updates, updates=updates)


def diluted(true: list[float], decay: float, count: int) -> list[float]:
    """Variances as stored after `count` updates from 1."""
    share = decay**count
    return [share + (1 - share) * value for value in true]


def measured(evidence: Evidence, name: str) -> Measurement:
    """The measurement of that name."""
    return next(item for item in evidence.measurements if item.name == name)


def test_the_story() -> None:
    """Decay 0.9997 after 300 updates: an error that says 91.4 % and holds 0.914 as a number."""
    (evidence,) = found(
        facts(batch_norm("bn", variance=diluted([0.02, 0.3, 1, 4], 0.9997, 300), decay=0.9997), run=run(300))
    )
    assert evidence.message.startswith("91.4 % of the statistics")
    assert "300 updates" in evidence.message
    assert measured(evidence, "init share").value == pytest.approx(0.914, abs=5e-4)
    assert (evidence.severity, evidence.confidence) == (Severity.ERROR, Confidence.HIGH)


@pytest.mark.parametrize(
    ("output", "accuracy", "severity"),
    [
        (classes_compared(0.97, nmse=0.03), (0.95, 0.93), Severity.WARNING),
        (classes_compared(0.97, nmse=0.7), (0.95, 0.93), Severity.ERROR),
        (classes_compared(0.6, nmse=0.03), (0.95, 0.6), Severity.ERROR),
    ],
)
def test_an_output_that_bears_it(output: OutputDifference, accuracy: tuple[float, float], severity: Severity) -> None:
    """A third of the variance is initial, a layer shows it: an error unless the output is measured and good."""
    layer = batch_norm("bn", variance=diluted([0.02] * 4, 0.99, 300), decay=0.99)
    model = compared(difference("bn", local=0.04), output=output, accuracy=accuracy, layers=[layer])
    (evidence,) = found(replace(model, run=run(300)))
    assert evidence.severity is severity
    assert ("output is unaffected" in evidence.message) is (severity is Severity.WARNING)


def test_what_cannot_be_told_names_the_commands() -> None:
    """Where decay or steps are unknown, the fix can be pasted: it names the model, with images and without."""
    crowd = np.linspace(0.914, 1.2, 64)
    model = facts(batch_norm("bn", variance=crowd, channels=64), run=RunFacts(values=True))
    (evidence,) = found(replace(model, path="export/1", format=Format(FileKind.SAVED_MODEL)))
    assert evidence.severity is Severity.INFO
    assert "bncheck repair export/1 -o fixed_model --data images/" in evidence.fix
    assert "bncheck repair export/1 -o fixed_model --debias --decay DECAY --steps STEPS" in evidence.fix


def test_five_percent_are_fatal_where_variances_are_small() -> None:
    """Decay 0.99: 4.9 % of everything, 73 % of the variance."""
    (evidence,) = found(facts(batch_norm("bn", variance=diluted([0.02] * 4, 0.99, 300), decay=0.99), run=run(300)))
    assert evidence.severity is Severity.ERROR
    assert evidence.message.startswith("4.9 %")
    assert measured(evidence, "init contribution, median channel of the worst layer").value == pytest.approx(
        0.72, abs=0.02
    )


def test_five_percent_are_harmless_where_variances_are_large() -> None:
    """The same share in a layer with variances around 20 is no finding."""
    assert found(facts(batch_norm("bn", variance=diluted([20, 9, 30, 14], 0.99, 300), decay=0.99), run=run(300))) == []


@pytest.mark.parametrize(
    ("true", "severity"),
    [(0.35, Severity.WARNING), (0.156, Severity.WARNING), (0.153, Severity.ERROR), (1.2, None)],
)
def test_limits_of_the_median(true: float, severity: Severity | None) -> None:
    """One layer, share 4.9 %: a warning up to a quarter of what it divides by, an error beyond, nothing below 5 %."""
    seen = found(
        facts(batch_norm("bn", variance=diluted([true] * 4, 0.99, 300), decay=0.99, epsilon=0.0), run=run(300))
    )
    assert [evidence.severity for evidence in seen] == ([severity] if severity else [])


@pytest.mark.parametrize(("layers", "severity"), [(1, None), (10, Severity.WARNING), (40, Severity.ERROR)])
def test_depth_multiplies(layers: int, severity: Severity | None) -> None:
    """4 % in one layer is nothing, in ten layers a factor of 1.2, in forty one of 2.3."""
    share = 0.99**690
    stored = share / 0.04
    some = [batch_norm(f"bn{n}", variance=stored, decay=0.99, epsilon=0.0) for n in range(layers)]
    small = batch_norm("small", variance=[share * 1.5, 1.0, 1.0, 1.0], decay=0.99)
    seen = found(facts(*some, small, run=run(690)))
    assert [evidence.severity for evidence in seen] == ([severity] if severity else [])


def test_wired_with_a_short_memory_is_fine() -> None:
    """Decay 0.9 after 300 updates keeps 2e-14."""
    assert found(facts(batch_norm("bn", variance=[1e-3, 0.02, 0.5, 2.0], decay=0.9), run=run(300))) == []


def test_counter_that_was_reset() -> None:
    """A variance below the counted share proves more updates: silence, in all layers of that decay."""
    reset = [batch_norm("a", variance=2.0, decay=0.9997), batch_norm("b", variance=[0.3, 1, 1, 1], decay=0.9997)]
    assert found(facts(*reset, run=run(300))) == []


def test_counter_that_lags_by_one() -> None:
    """A channel constant from the start lies at decay**(n + 1) if the counter is one behind: still an error."""
    stored = [0.99**301, 0.06, 0.07, 0.06]
    assert [e.severity for e in found(facts(batch_norm("bn", variance=stored, decay=0.99), run=run(300)))] == [
        Severity.ERROR
    ]


def test_large_variances_leave_a_doubt() -> None:
    """A share of 91 % with no variance anywhere near it may be a reset counter: a note."""
    (evidence,) = found(facts(batch_norm("bn", variance=[40.0, 60, 90, 30], decay=0.9997), run=run(300)))
    assert (evidence.severity, evidence.confidence) == (Severity.INFO, Confidence.LOW)
    assert "reset" in evidence.message


def test_dead_channels_are_not_init_share() -> None:
    """Channels that decay towards zero with the share itself do no harm below epsilon, even if most of a layer."""
    stored = [0.99**1500] * 3 + [2.0]
    assert found(facts(batch_norm("bn", variance=stored, decay=0.99), run=run(1500))) == []


@pytest.mark.parametrize(
    ("decay", "severity"), [(0.9997, Severity.ERROR), (0.997, Severity.WARNING), (0.99, None), (0.9, None)]
)
def test_unread_values(decay: float, severity: Severity | None) -> None:
    """Without values the share alone decides: 91 % is an error, 41 % a warning, 4.9 % nothing."""
    seen = found(facts(unread(batch_norm("bn", decay=decay)), run=run(300)))
    assert [evidence.severity for evidence in seen] == ([severity] if severity else [])


def test_untouched_layers_are_anothers() -> None:
    """What never moved is BN101's, whatever its share."""
    assert found(facts(untouched("bn", decay=0.9997), run=run(300))) == []


@pytest.mark.parametrize(("lowest", "channels", "speaks"), [(0.914, 64, True), (0.914, 63, False), (0.49, 64, False)])
def test_nothing_known(lowest: float, channels: int, speaks: bool) -> None:  # noqa: FBT001 - the table's third column
    """Without decay a note, if even the smallest of many variances is large and others crowd above it."""
    variance = np.linspace(lowest, 1.3, channels)
    seen = found(facts(batch_norm("bn", variance=variance, channels=channels), run=run(300)))
    assert [evidence.severity for evidence in seen] == ([Severity.INFO] if speaks else [])


def test_nothing_known_and_spread_out() -> None:
    """Large variances that do not crowd above the smallest are those of unscaled inputs: silence."""
    variance = np.geomspace(0.8, 4000, 200)
    assert found(facts(batch_norm("bn", variance=variance, channels=200), run=run(None))) == []


@pytest.mark.parametrize(("updates", "decay"), [(300, 0.95), (1000, 0.99), (10_000, 0.999), (10, 0.9), (10**6, 0.9997)])
def test_decay_that_is_recommended(updates: int, decay: float) -> None:
    """It leaves less than 0.01 % in a run of that length, and is not the one that just failed."""
    assert shorter_decay(updates) == decay


def test_fix_names_this_checkpoint() -> None:
    """The remedy is written for this run: another decay, and both commands with the path."""
    (evidence,) = found(facts(batch_norm("bn", variance=diluted([0.02] * 4, 0.99, 300), decay=0.99), run=run(300)))
    assert "momentum=0.95" in evidence.fix
    assert "bncheck repair model.ckpt -o fixed.ckpt --debias" in evidence.fix
    assert "bncheck repair model.ckpt -o fixed.ckpt --data images/" in evidence.fix


def test_fix_of_a_short_decay_is_to_train_on() -> None:
    """Where no usual decay is shorter than the one in use, the remedy is no decay but the length of the run."""
    (evidence,) = found(facts(batch_norm("bn", variance=diluted([0.1] * 4, 0.9, 20), decay=0.9), run=run(20)))
    assert "decay=" not in evidence.fix
    assert "with decay 0.9, less than 0.01 % is left after 88 updates" in evidence.fix


def test_training_on_takes_small_variances_into_account() -> None:
    """0.0027 % is a third of variances of 8e-05: 88 updates, which leave 0.01 %, would not do, and 100 did not."""
    layer = batch_norm("bn", variance=diluted([5e-5] * 4, 0.9, 100), decay=0.9, epsilon=1e-5)
    (evidence,) = found(facts(layer, run=run(100)))
    assert "does no harm after 133 updates" in evidence.fix


@pytest.mark.parametrize(
    ("count", "epsilon", "severity"),
    [
        (100, 1e-5, Severity.ERROR),
        (100, None, Severity.WARNING),
        (100, 1e-3, None),
        (140, None, None),
        (60, None, Severity.ERROR),
    ],
)
def test_an_epsilon_that_no_file_tells(count: int, epsilon: float | None, severity: Severity | None) -> None:
    """PyTorch's default is small, many models' own is not: what either makes an error is one."""
    values = diluted([5e-5] * 4, 0.9, count)
    layer = batch_norm("bn", variance=values, decay=0.9, epsilon=epsilon, default_epsilon=1e-5)
    evidence = found(facts(layer, run=run(count)))
    assert [one.severity for one in evidence] == ([] if severity is None else [severity])
    assert all(("1e-05, is assumed" in one.message) == (severity is Severity.WARNING) for one in evidence)


def test_a_counter_that_fine_tuning_reset_is_a_note() -> None:
    """Statistics of a trained network after 40 counted updates at 0.9997: no batch could have moved them so far."""
    trained = [4.9, 2.2, 3.7, 6.1]
    (evidence,) = found(facts(batch_norm("bn", variance=trained, decay=0.9997), run=run(40)))
    assert (evidence.severity, evidence.confidence) == (Severity.INFO, Confidence.LOW)
    assert evidence.message.endswith("was the counter reset?")


def test_a_decay_that_rises_has_no_counted_share() -> None:
    """`min(decay, (1 + n) / (10 + n))` forgets the initial value within a few steps, whatever `decay**n` says."""
    layer = wired(batch_norm("bn", variance=[0.5, 1.1, 0.7, 2.0], decay=0.999), decay=0.999, decay_rises=True)
    assert found(facts(layer, run=run(60))) == []


@pytest.mark.parametrize(("count", "severity"), [(60, Severity.ERROR), (3000, None)])
def test_averages_that_start_at_zero(count: int, severity: Severity | None) -> None:
    """The average of a tensor starts at 0, so early in a run the variance is too small by the share, not too large."""
    share = 0.99**count
    layer = batch_norm("bn", variance=[(1 - share) * true for true in (0.5, 2.0, 1.1, 0.7)], decay=0.99)
    layer = replace(layer, variance=replace(layer.variance, initial=0.0))
    evidence = found(facts(layer, run=run(count)))
    assert [item.severity for item in evidence] == ([] if severity is None else [severity])
    assert all("it is 0, so bn divides" in item.message for item in evidence)


@pytest.mark.parametrize(
    ("local", "agreement", "synthetic", "severity"),
    [
        (0.001, 0.99, False, Severity.INFO),
        (0.5, 0.99, False, Severity.ERROR),
        (0.001, 0.2, False, Severity.ERROR),
        (0.001, 0.99, True, Severity.ERROR),
    ],
)
def test_measurements_go_before_counters(
    *, local: float, agreement: float, synthetic: bool, severity: Severity
) -> None:
    """Updates that ran without a step are not counted: where both modes agree on real data, the share is a note."""
    model = compared(
        difference("bn", local=local),
        output=classes_compared(agreement),
        synthetic=synthetic,
        layers=[batch_norm("bn", variance=diluted([0.02] * 4, 0.99, 300), decay=0.99)],
    )
    (evidence,) = found(replace(model, run=run(300)))
    assert evidence.severity is severity


def crowding(share: float, seed: int = 0) -> list[Layer]:
    """Four layers of 128 channels, each holding that share of its initial value."""
    rng = np.random.default_rng(seed)
    return [
        batch_norm(f"bn{i}", variance=share + (1 - share) * rng.lognormal(-2, 1.5, 128), channels=128, mean=0.01)
        for i in range(4)
    ]


@pytest.mark.parametrize(
    ("share", "updates", "severity"),
    [
        (0.9997**300, 300, Severity.ERROR),
        (0.999**300, 300, Severity.ERROR),
        (0.9997**300, None, Severity.WARNING),
        (0.9997**300, 8, Severity.WARNING),
    ],
)
def test_a_floor_that_layers_share(share: float, updates: int | None, severity: Severity) -> None:
    """Decay unknown: the smallest variances of all layers meet at the share; a usual decay that leaves it is named."""
    (evidence,) = found(facts(*crowding(share), run=run(updates)))
    assert evidence.severity is severity
    error = severity is Severity.ERROR
    assert (f"after {updates} updates" in evidence.message) is error
    assert (f"--debias --decay {share ** (1 / 300):.4g}\n" in evidence.fix) is error


@pytest.mark.parametrize(("smallest", "severity"), [(0.07, Severity.ERROR), (0.3, Severity.WARNING)])
def test_a_floor_above_the_share(smallest: float, severity: Severity) -> None:
    """By what the smallest batch variances added: 0.99 leaves 67 % after 40 updates; far above, another does."""
    share, spread = 0.99**40, np.random.default_rng(0).lognormal(-3, 0.5, (4, 64))
    layers = [
        batch_norm(f"bn{i}", variance=share + (1 - share) * (smallest + each), channels=64, mean=0.01)
        for i, each in enumerate(spread)
    ]
    (evidence,) = found(facts(*layers, run=run(40)))
    assert evidence.severity is severity


def test_variances_without_a_common_floor() -> None:
    """Spread, large or few variances are no floor, and neither is one that running the model refutes."""
    rng = np.random.default_rng(0)
    spread = [batch_norm(f"bn{i}", variance=rng.uniform(0.5, 1.5, 128), channels=128, mean=0.01) for i in range(4)]
    large = [batch_norm(f"bn{i}", variance=rng.uniform(3, 3.1, 128), channels=128, mean=0.01) for i in range(4)]
    for layers in (spread, large, crowding(0.9)[:2]):
        assert all(evidence.severity is Severity.INFO for evidence in found(facts(*layers, run=run(300))))
    layers = crowding(0.9997**300)
    measured_good = compared(
        *(difference(layer.name, local=0.001) for layer in layers), output=classes_compared(0.99), layers=layers
    )
    (evidence,) = found(replace(measured_good, run=run(300)))
    assert evidence.severity is Severity.INFO


def test_keras_updates_a_shared_layer_wherever_it_is_called() -> None:
    """Twice a step in a siamese network: 0.998 leaves 72.0 % after 82 steps."""
    values = diluted([0.01, 0.05, 0.3, 0.02], 0.998, 164)
    sites = tuple(Site(name=name, form="BatchNormalization", mode=Mode.SWITCHED) for name in ("bn", "bn:1"))
    shared = batch_norm("bn", variance=values, decay=0.998, origin=Origin.CONFIG, sites=sites)
    (evidence,) = found(facts(shared, run=run(82)))
    assert evidence.message.startswith("72.0 % of the statistics is still initial value after 82 steps of 2 updates")
    assert evidence.severity is Severity.ERROR


@pytest.mark.parametrize("share", [0.0, 0.05, 0.2])
def test_a_floor_that_the_weights_contradict(share: float) -> None:
    """MobileNetV2 on digits, a share mixed into it and no counter at hand: an error; without it nothing."""
    prefix = Path(__file__).parents[3] / "fixtures" / "mobilenet_v2" / "wired" / "model.ckpt-300"
    healthy = recognise(open_model(prefix), Options())

    def mixed(layer: Layer) -> Layer:
        mean, variance = layer.mean.values, layer.variance.values
        assert mean is not None
        assert variance is not None
        return replace(
            layer,
            decay=None,
            updates=(),
            mean=replace(layer.mean, values=(1 - share) * mean),
            variance=replace(layer.variance, values=(1 - share) * variance + share),
        )

    layers = tuple(mixed(layer) for layer in healthy.layers)
    told = found(replace(healthy, layers=layers, graph=None, run=RunFacts(values=True)))
    if share == 0:
        assert told == []
        return
    assert told[0].severity is Severity.ERROR
    assert told[0].measurements[0].value == pytest.approx(share, rel=0.1)


@pytest.mark.parametrize(("decay", "true", "codes"), [(0.999, 0.02, 1), (0.999, 3.0, 0), (0.9, 0.02, 0)])
def test_another_momentum_than_pytorchs(decay: float, true: float, codes: int) -> None:
    """60 updates that only momentum 0.001 explains are an error, though 0.1 is assumed; what 0.1 explains is none."""
    variances = diluted(list(np.linspace(true, true + 0.5, 40)), decay, 60)
    layers = [
        batch_norm(
            f"bn{n}",
            variance=variances,
            channels=40,
            mean=0.01,
            decay=0.9,
            decay_from=DecaySource.PYTORCH_DEFAULT,
            counted=60,
        )
        for n in range(4)
    ]
    evidence = found(facts(*layers, run=run(60)))
    assert len(evidence) == codes
    if codes:
        assert (evidence[0].severity, evidence[0].confidence) == (Severity.ERROR, Confidence.MEDIUM)
        assert "decay 0.999" in evidence[0].message
