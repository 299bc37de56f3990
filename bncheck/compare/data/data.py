"""What a comparison runs on: any of five kinds of source, as batches of one shape and type, memory flat."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

from bncheck.compare.data.arrays import array_shape, open_arrays, open_named_arrays
from bncheck.compare.data.folder import open_folder
from bncheck.compare.data.preprocess import check_name
from bncheck.compare.data.records import is_records, open_records
from bncheck.compare.data.samples import Batch, InputSpec, ModelInput, Samples
from bncheck.compare.data.synthetic import open_synthetic
from bncheck.facts.errors import NotFound, UnknownFormat, UsageError
from bncheck.facts.measurements import DataFacts
from bncheck.settings.options import SYNTHETIC, Options
from bncheck.sources.files import require_file

SYNTHETIC_SAMPLES = 64
"""At most, where nobody says how many: noise judges nothing, and more of it no better."""
BATCH_SIZE = 32
_DEFAULT = Options()
_LESS_KNOWN = ("bfloat16",)
KINDS = "a folder of images, .npy, .npz, a TFRecord of tf.Example, or the word synthetic"


@dataclass(frozen=True, kw_only=True, eq=False)
class Data:
    """Batches that can be gone through as often as wanted, always the same ones in the same order."""

    description: str
    batch_size: int
    batches: int | None
    """As many at most; None: as many as there are."""
    synthetic: bool
    labelled: bool
    samples: int | None
    """In all batches together; None where only reading tells."""
    open: Callable[[int], Iterator[Batch]]
    """From a batch on, the first being 0."""

    def __iter__(self) -> Iterator[Batch]:
        """(images (batch_size, ...), labels (batch_size,) or None); only a source smaller than a batch gives less."""
        return self.block(0)

    def block(self, first: int, count: int | None = None) -> Iterator[Batch]:
        """At most `count` batches from `first` on, the first of all being 0; without a count all that follow."""
        ends = [end for end in (self.batches, None if count is None else first + count) if end is not None]
        return islice(self.open(first), max(0, min(ends) - first) if ends else None)

    def facts(self, samples: int, _batch_size: int, batches: int) -> DataFacts:
        """What reports tell, with what was really run: `describe` of the functions that measure."""
        return DataFacts(
            description=self.description,
            samples=samples,
            batch_size=self.batch_size,
            batches=batches,
            synthetic=self.synthetic,
            labelled=self.labelled,
        )


def open_data(spec: str | Path, inputs: Sequence[ModelInput], options: Options = _DEFAULT) -> Data:
    """Opens a source of samples for a model's inputs. Of several each has a field of the batches, as named arrays.

    The size of a batch is that of the graph where nobody says and it has one of its own, else 32; a graph declared for
    single samples is tried with 32 too, for there is nothing to learn from one.
    Samples come in an order shuffled with a fixed seed: those of a sorted source would fill each batch with one class,
    and batch statistics would be that class's. A last incomplete batch is left out.

    Raises UsageError or ReadError, one sentence each, for what does not fit together or cannot be read.
    """
    check_name(options.preprocess)
    for entry in inputs:
        if entry.dtype.kind not in "biuf" and entry.dtype.name not in _LESS_KNOWN:
            raise UsageError(
                f"the model takes strings at {entry.names[0]}, such as encoded images: name the tensor of numbers "
                "that it decodes them to with --inputs"
            )
    shape = inputs[0].shape
    own = shape[0] if shape else None
    of_the_graph = options.batch_size is None and own is not None and own > 1
    batch_size = options.batch_size
    if batch_size is None:
        batch_size = own if own is not None and own > 1 else BATCH_SIZE
    check_amounts(options)
    batches = options.batches
    wanted = InputSpec(
        shape=None if shape is None else shape[1:],
        dtype=inputs[0].dtype,
        batch_size=batch_size,
        preprocess=options.preprocess,
        labels=options.labels,
        channel_order=options.channel_order,
        size=options.size,
    )
    if len(inputs) > 1:
        samples = _open_named(spec, wanted, inputs)
    elif str(spec) == SYNTHETIC:
        batches = batches or max(1, SYNTHETIC_SAMPLES // batch_size)
        samples = open_synthetic(wanted, batches)
    else:
        samples = _open_path(Path(spec), wanted)
    held = None if samples.count is None else min(samples.count, _whole(samples.count, batch_size, batches))
    if held == 0:
        raise UsageError(f"{spec}: holds no samples")
    return Data(
        description=samples.description + (f", in batches of {batch_size} as the graph has it" if of_the_graph else ""),
        batch_size=batch_size if held is None else min(batch_size, held),
        batches=batches,
        synthetic=samples.synthetic,
        labelled=samples.labelled,
        samples=held,
        open=partial(_whole_batches, samples, batch_size),
    )


def check_amounts(options: Options) -> None:
    """Raises UsageError for batches of nothing, or none at all."""
    for name, value in (("batch-size", options.batch_size), ("batches", options.batches)):
        if value is not None and value < 1:
            raise UsageError(f"--{name} is {value}: it must be 1 or more")


def _open_named(spec: str | Path, wanted: InputSpec, inputs: Sequence[ModelInput]) -> Samples:
    path, names = Path(spec), ", ".join(entry.names[0] for entry in inputs)
    if path.suffix.lower() != ".npz" or not path.is_file():
        raise UsageError(
            f"the model takes {len(inputs)} inputs ({names}): give --data FILE.npz with an array for each, by these "
            "names, or choose one input with --inputs and outputs that depend on it alone with --outputs"
        )
    return open_named_arrays(path, wanted, inputs)


def sample_shape(spec: str | Path, size: tuple[int, int] | None = None) -> tuple[int | None, ...] | None:
    """Shape of one sample, as far as the source itself or `size` tells: for models that are built for their data."""
    if size is not None:
        return (*size, None)
    path = Path(spec)
    if path.suffix.lower() in (".npy", ".npz") and path.is_file():
        return array_shape(path)
    return None


def _whole(count: int, batch_size: int, batches: int | None) -> int:
    """Samples in whole batches; all where there is not one whole batch."""
    if count < batch_size:
        return count
    found = count // batch_size
    return batch_size * (found if batches is None else min(found, batches))


def _whole_batches(samples: Samples, batch_size: int, first: int) -> Iterator[Batch]:
    for number, (images, labels) in enumerate(samples.open(first), first):
        if len(images) == batch_size or not number:
            yield images, labels


def _open_path(path: Path, wanted: InputSpec) -> Samples:
    if path.is_dir():
        return open_folder(path, wanted)
    if "*" in path.name:
        return open_records(sorted(path.parent.glob(path.name)), str(path), wanted)
    if not path.exists():
        raise NotFound(path, "no such file or folder", hint=f"--data takes {KINDS}")
    require_file(path)
    if path.suffix.lower() in (".npy", ".npz"):
        return open_arrays(path, wanted)
    if is_records(path):
        return open_records([path], str(path), wanted)
    raise UnknownFormat(path, f"no samples that bncheck can read: --data takes {KINDS}")
