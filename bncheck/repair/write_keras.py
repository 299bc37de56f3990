"""A Keras file with other values in some weights: the file copied, the datasets rewritten in the copy."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bncheck.facts.errors import BncheckError, Unsupported
from bncheck.facts.layers import PerChannel
from bncheck.repair.publish import copy
from bncheck.repair.write_checkpoint import encoded
from bncheck.sources.keras.archive import WEIGHTS
from bncheck.sources.keras.keras import read_keras
from bncheck.sources.raw import RawModel
from bncheck.sources.zips import ZIP_MAGIC

_COPY_BYTES = 1 << 22


def write_keras(raw: RawModel, target: Path, replaced: Mapping[str, PerChannel]) -> None:
    """Writes the `.keras`, `.h5` or `.weights.h5` file of `raw` anew as `target`.

    All other weights stay bit-identical, and so do the other members of an archive; both are read back and compared.
    Raises Unsupported for a weight whose place the reader does not know, ReadError where the source is damaged.
    """
    datasets = {_dataset(raw, key): (key, vector) for key, vector in replaced.items()}
    with raw.path.open("rb") as file:
        archived = file.read(len(ZIP_MAGIC)) == ZIP_MAGIC
    if archived:
        _write_archive(raw.path, target, datasets)
    else:
        copy(raw.path, target)
        _write_datasets(target, datasets)
    _verify(raw, target, replaced)


def _dataset(raw: RawModel, key: str) -> str:
    location = raw.tensors[key].location
    if location is None:
        raise Unsupported(raw.path, f"where {key} lies in the file is unknown")
    return location[1]


def _write_datasets(path: Path, datasets: Mapping[str, tuple[str, PerChannel]]) -> None:
    import h5py  # noqa: PLC0415 - takes 0.15 s

    with h5py.File(path, "r+") as file:
        for place, (key, vector) in datasets.items():
            dataset = file[place]
            values: Any
            if dataset.dtype.kind == "V":
                content = encoded(vector, "bfloat16", key=key)
                values = np.frombuffer(content, "V2").reshape(dataset.shape)
            else:
                order = ">" if dataset.dtype.byteorder == ">" else "<"
                content = encoded(vector, dataset.dtype.newbyteorder("=").name, key=key, order=order)
                values = np.frombuffer(content, dataset.dtype).reshape(dataset.shape)
            dataset[...] = values


def _write_archive(source: Path, target: Path, datasets: Mapping[str, tuple[str, PerChannel]]) -> None:
    """The archive member by member; each keeps its name, date, attributes and kind of packing."""
    weights = target.with_name(f"{target.name}.{WEIGHTS}")
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        new.comment = old.comment
        for info in old.infolist():
            plain = zipfile.ZipInfo(info.filename, info.date_time)
            plain.compress_type, plain.external_attr = info.compress_type, info.external_attr
            plain.create_system, plain.comment = info.create_system, info.comment
            plain.file_size = info.file_size
            if info.filename == WEIGHTS:
                with old.open(info) as member, weights.open("wb") as file:
                    shutil.copyfileobj(member, file, _COPY_BYTES)
                _write_datasets(weights, datasets)
                plain.file_size = weights.stat().st_size
                with weights.open("rb") as changed, new.open(plain, "w") as out:
                    shutil.copyfileobj(changed, out, _COPY_BYTES)
                weights.unlink()
            else:
                with old.open(info) as member, new.open(plain, "w") as out:
                    shutil.copyfileobj(member, out, _COPY_BYTES)


def _verify(raw: RawModel, target: Path, replaced: Mapping[str, PerChannel]) -> None:
    """Reads the copy with bncheck's own reader. Raises BncheckError where it is not the source but for `replaced`."""
    written = read_keras(target).tensors
    for key, tensor in raw.tensors.items():
        if tensor.unavailable is not None:
            continue
        found = written[key].read()
        expected = (
            encoded(replaced[key], tensor.dtype, key=key)
            if key in replaced
            else encoded(tensor.read(), tensor.dtype, key=key)
            if tensor.dtype == "bfloat16"
            else tensor.read().tobytes()
        )
        got = encoded(found, tensor.dtype, key=key) if tensor.dtype == "bfloat16" else found.tobytes()
        if got != expected:
            raise BncheckError(f"{target}: {key} was not written correctly: a disk fault, or a bug")
