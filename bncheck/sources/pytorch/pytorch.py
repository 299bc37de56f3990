"""PyTorch's checkpoints and models (`.pt`, `.pth`, `.ckpt`, `.bin`): state dicts, whole modules, TorchScript."""

from __future__ import annotations

from pathlib import Path

from bncheck.facts.errors import Malformed, ReadError
from bncheck.facts.formats import FileKind, Format
from bncheck.sources.pytorch.archive import is_pickle, read_archive
from bncheck.sources.pytorch.named_tensors import held_by
from bncheck.sources.pytorch.stream import is_stream, read_stream
from bncheck.sources.pytorch.tensors import StoredBytes, raw_tensor
from bncheck.sources.pytorch.values import Strided
from bncheck.sources.raw import RawModel, RawTensor
from bncheck.sources.zips import ZIP_MAGIC, member_names

_SUFFIXES = (".pt", ".pth")


def matches(path: Path, head: bytes) -> bool:
    """Whether a file is what `torch.save` or `torch.jit.save` writes, or, damaged, is called as one."""
    if head.startswith(ZIP_MAGIC):
        try:
            return any(map(is_pickle, member_names(path)))
        except ReadError:
            return path.suffix in _SUFFIXES
    return is_stream(head)


def read_pytorch(path: Path) -> RawModel:
    """All tensors of the file: the pickle is read, not executed; storages are read on demand. Raises ReadError."""
    with path.open("rb") as file:
        saved, places = (read_stream if is_stream(file.read(16)) else read_archive)(path)
    held = held_by(saved)
    tensors = {name: _raw(path, name, tensor, places) for name, tensor in held.tensors.items()}
    return RawModel(path=path, format=Format(FileKind.PYTORCH), tensors=tensors, modules=held.modules)


def _raw(path: Path, name: str, tensor: Strided, places: dict[str, StoredBytes]) -> RawTensor:
    if tensor.storage.key not in places:
        raise Malformed(path, f"{name} lies in storage {tensor.storage.key!r}, which the file has not")
    return raw_tensor(name, tensor, places[tensor.storage.key])
