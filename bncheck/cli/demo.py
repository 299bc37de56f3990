"""`bncheck demo`: where its files go, and its progress on standard error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import click

from bncheck.cli.progress import progress_shown
from bncheck.facts.errors import UsageError


@click.command()
@click.option(
    "--keep", type=click.Path(path_type=Path), metavar="DIR", help="Keep checkpoints and data in DIR; must not exist."
)
@click.option("--steps", type=click.IntRange(1), default=300, metavar="N", help="Training steps [300].")
@click.option("--static", is_flag=True, help="Judge a sample model by its files: no TensorFlow, no training.")
def demo(keep: Path | None, steps: int, static: bool) -> None:  # noqa: FBT001 - click gives it by name
    """Train, lose and repair a MobileNetV2 on digits.

    What forgotten updates do, live, in under a minute. TensorFlow and scikit-learn are needed, except with --static.
    """
    if static:
        _static()
        return
    from bncheck.cli.output import emit  # noqa: PLC0415 - start-up
    from bncheck.demo import tell  # noqa: PLC0415 - start-up

    with _folder(keep) as folder:

        def to(stream: TextIO) -> None:
            tell(folder, stream, steps=steps, stage=_stage)
            if keep is not None:
                stream.write(f"\nKept in {keep}: model.ckpt-{steps}, fixed.ckpt, train.npz, test.npz\n")

        emit(None, to)


SAMPLE = Path(__file__).parents[1] / "sample" / "model.ckpt-100"
"""A small TF-slim network with the fault of the demo (`python -m fixtures.make_sample`)."""


def _static() -> None:
    from bncheck import check  # noqa: PLC0415 - start-up
    from bncheck.cli.output import emit  # noqa: PLC0415 - start-up
    from bncheck.report.text import text  # noqa: PLC0415 - start-up

    report = check(SAMPLE)

    def to(stream: TextIO) -> None:
        stream.write(
            "A small TF-slim network, trained for 100 steps on handwritten digits.\nThe training script forgot"
            f" UPDATE_OPS. This is what its files tell:\n\n$ bncheck check {SAMPLE}\n"
        )
        text.write(report, stream)
        stream.write("\nTo see a model lose its accuracy and get it back: bncheck demo (needs TensorFlow)\n")

    emit(None, to)


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is None:
        import tempfile  # noqa: PLC0415 - start-up

        with tempfile.TemporaryDirectory(prefix="bncheck-demo-") as folder:
            yield Path(folder)
        return
    try:
        keep.mkdir(parents=True)
    except FileExistsError:
        raise UsageError(f"{keep} already exists: give --keep a new folder") from None
    except OSError as error:
        raise UsageError(f"{keep} cannot be created: {error.strerror}") from error
    yield keep


@contextmanager
def _stage(name: str, of: int) -> Iterator[Callable[[int], None]]:
    """A bar with the time left while a stage runs, gone when it ends, where standard error is a terminal."""
    with progress_shown() as hear:
        yield lambda done: hear(name, done, of)
