"""PyTorch's checkpoints and models (`.pt`, `.pth`, `.ckpt`, `.bin`): state dicts, whole modules, TorchScript."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

from bncheck.facts.errors import Malformed, ReadError, Unsupported
from bncheck.facts.formats import FileKind, Format
from bncheck.sources.files import names
from bncheck.sources.pytorch.archive import is_pickle, is_program, read_archive
from bncheck.sources.pytorch.named_tensors import held_by, plain_attributes
from bncheck.sources.pytorch.script import fixed_by_code
from bncheck.sources.pytorch.stream import is_stream, read_stream
from bncheck.sources.pytorch.tensors import StoredBytes, raw_tensor
from bncheck.sources.pytorch.values import Strided
from bncheck.sources.raw import RawModel, RawTensor
from bncheck.sources.shards import MAP, of_shards
from bncheck.sources.zips import ZIP_MAGIC, member_names

_SUFFIXES = (".pt", ".pth")
_DISTRIBUTED = ".distcp"
_SHARDS = (f".bin{MAP}", f".pt{MAP}", f".pth{MAP}")


def matches(path: Path, head: bytes) -> bool:
    """Whether a file is what PyTorch's `save` functions write, or, damaged, is called so, or a map of shards."""
    if path.name.endswith(_SHARDS):
        return head.lstrip()[:1] == b"{"
    if head.startswith(ZIP_MAGIC):
        try:
            return any(is_pickle(name) or is_program(name) for name in member_names(path))
        except ReadError:
            return path.suffix in _SUFFIXES
    return is_stream(head)


def read_pytorch(path: Path) -> RawModel:
    """All tensors of the file, or of all files that a map of shards names. Raises ReadError; Unsupported for a folder.

    The pickle is read, not executed; storages are read on demand.
    """
    if path.is_dir():
        refuse_distributed(path)
    if not path.name.endswith(_SHARDS):
        return _whole(path)
    tensors = of_shards(path, lambda shard: _whole(shard).tensors)
    return RawModel(path=path, format=Format(FileKind.PYTORCH), tensors=tensors)


def is_distributed(folder: Path) -> bool:
    """Whether a folder is a checkpoint of torch.distributed."""
    return any(name.endswith(_DISTRIBUTED) for name in names(folder))


def refuse_distributed(folder: Path) -> NoReturn:
    """Each process writes its parts of the tensors. Raises Unsupported."""
    raise Unsupported(
        folder,
        "a checkpoint of torch.distributed, whose format is not read",
        hint=f"make one file of it: python -m torch.distributed.checkpoint.format_utils dcp_to_torch {folder} model.pt",
    )


def _whole(path: Path) -> RawModel:
    with path.open("rb") as file:
        saved, places = (read_stream if is_stream(file.read(16)) else read_archive)(path)
    held = held_by(saved)
    tensors = {name: _raw(path, name, tensor, places) for name, tensor in held.tensors.items()}
    fixed = fixed_by_code(path, {module.of for module in held.modules.values()})
    modules = {
        name: {**plain_attributes(of), **fixed.get(of.of, {}), "class": of.of} for name, of in held.modules.items()
    }
    return RawModel(path=path, format=Format(FileKind.PYTORCH), tensors=tensors, modules=modules)


def _raw(path: Path, name: str, tensor: Strided, places: dict[str, StoredBytes]) -> RawTensor:
    if tensor.storage.key not in places:
        raise Malformed(path, f"{name} lies in storage {tensor.storage.key!r}, which the file has not")
    return raw_tensor(name, tensor, places[tensor.storage.key])
