"""What is wrong with data and the options about them, as far as it shows without running anything: no TensorFlow."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bncheck.compare.data.arrays import look_at_arrays
from bncheck.compare.data.data import KINDS, check_amounts, open_data
from bncheck.compare.data.folder import look_at_folder
from bncheck.compare.data.preprocess import check_name
from bncheck.compare.data.records import first_record, is_records
from bncheck.compare.data.samples import InputSpec, ModelInput
from bncheck.compare.data.synthetic import check_labels
from bncheck.facts.errors import NotFound, UnknownFormat
from bncheck.settings.options import SYNTHETIC, Options
from bncheck.sources.files import require_file
from bncheck.sources.raw import RawModel

ARRAYS = (".npy", ".npz")


def look_at(options: Options, entry: ModelInput | None = None) -> None:
    """Raises UsageError or ReadError for data that no model, or not the one with this only input, can be run on."""
    check_name(options.preprocess)
    check_amounts(options)
    if options.data is None:
        return
    if str(options.data) == SYNTHETIC:
        check_labels(options.labels)
        return
    path = Path(options.data)
    if "*" in path.name:
        first_record(sorted(path.parent.glob(path.name)), str(path))
    elif not path.exists():
        raise NotFound(path, "no such file or folder", hint=f"--data takes {KINDS}")
    elif path.is_dir():
        look_at_folder(path, None if entry is None else _spec(entry, options), options.labels)
    elif require_file(path) and path.suffix.lower() in ARRAYS:
        if entry is None:
            look_at_arrays(path, options.labels)
        else:
            open_data(path, [entry], options)
    elif is_records(path):
        first_record([path], str(path))
    else:
        raise UnknownFormat(path, f"no samples that bncheck can read: --data takes {KINDS}")


def keras_input(raw: RawModel) -> ModelInput | None:
    """The only input of a Keras file, as its configuration has it; None where it has several, or does not tell."""
    layers = () if raw.keras is None else raw.keras.layers
    entries = [layer for layer in layers if layer.class_name == "InputLayer"]
    dtype = entries[0].config.get("dtype", "float32") if len(entries) == 1 else None
    if not isinstance(dtype, str) or dtype not in np.sctypeDict or entries[0].input_shape is None:
        return None
    return ModelInput(shape=entries[0].input_shape, dtype=np.dtype(dtype))


def _spec(entry: ModelInput, options: Options) -> InputSpec:
    shape = entry.shape
    return InputSpec(shape=None if shape is None else shape[1:], dtype=entry.dtype, batch_size=1, size=options.size)
