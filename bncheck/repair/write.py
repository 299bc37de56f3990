"""Where a repaired model goes, and what is written there: one function a format, all of them atomic.

Nothing is ever overwritten, and the source is only read. What becomes visible last is what makes the output one: the
`.index` of a checkpoint (without it TensorFlow sees no checkpoint), the folder of a SavedModel, the file of a Keras
model. A process killed before leaves no such name; killed between the provenance, which is named first, and that
(microseconds, for all files are finished by then) it leaves complete files that nothing reads, and that the same repair
takes over.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from bncheck.facts import remedies
from bncheck.facts.errors import BncheckError, Unreadable, Unsupported, UsageError
from bncheck.facts.formats import FileKind
from bncheck.facts.layers import PerChannel
from bncheck.repair.provenance import beside, interrupted
from bncheck.repair.publish import copy, publish, publish_directory, taken, workshop
from bncheck.repair.write_checkpoint import state_file, write_checkpoint
from bncheck.repair.write_keras import write_keras
from bncheck.sources import beside as meta_beside
from bncheck.sources.bundle.locate import Place, find
from bncheck.sources.files import is_file, names, require_inside
from bncheck.sources.raw import RawModel
from bncheck.sources.stamps import changed, stamps

_VARIABLES = "variables"
_FINGERPRINT = "fingerprint.pb"


Vectors: TypeAlias = Mapping[str, PerChannel]
"""Key of a tensor -> its new values."""


@dataclass(frozen=True, kw_only=True)
class Written:
    """What there is now that was not there before."""

    files: tuple[Path, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Destination:
    """A place that was found free, and how to fill it."""

    path: Path
    """What the user opens: a checkpoint's prefix, a SavedModel's folder, a Keras file."""
    hashed: tuple[Path, ...]
    """Files of the source by which it can be told again."""
    can_add: bool
    """Whether tensors that the source lacks can be added."""
    write: Callable[[Vectors, Vectors, str], Written]
    """(replaced, added, text of the provenance) -> what was written."""


def destination(raw: RawModel, output: Path) -> Destination:
    """Checks that a repaired copy of `raw` can be written to `output`.

    Raises UsageError where the place is the source itself or taken, Unsupported for formats whose statistics are folded
    or frozen into constants.
    """
    if raw.lite is not None:
        raise Unsupported(
            raw.path,
            "batch norm is folded into the weights of a TFLite file and cannot be changed",
            hint="repair the checkpoint or Keras model that it was converted from, and convert again",
        )
    if not raw.tensors:
        raise Unsupported(
            raw.path,
            f"a {raw.format} with no stored statistics to replace: they are constants, or in a checkpoint elsewhere",
            hint="repair the checkpoint, then freeze or export again",
        )
    if raw.keras is not None:
        return _keras(raw, output)
    if raw.format.kind is FileKind.SAVED_MODEL:
        return _saved_model(raw, output)
    if raw.format.is_checkpoint:
        return _checkpoint(raw, output)
    hint = f"in PyTorch: {remedies.UPDATE_BN}" if raw.format.is_pytorch else "repair the checkpoint or Keras model"
    raise Unsupported(raw.path, f"bncheck cannot write a {raw.format}", hint=hint)


def _checkpoint(raw: RawModel, output: Path) -> Destination:
    place = find(raw.path)
    assert place is not None
    if place.slices:
        hint = "restore it in TensorFlow and save it with tf.compat.v1.train.Saver(), which writes V2"
        raise Unsupported(raw.path, "a V1 checkpoint: bncheck repairs V2 ones", hint=hint)
    target = _target(output, place)
    if target.index.resolve() == place.index.resolve():
        raise in_place(output)
    _check_folder(target.directory)
    present = names(target.directory)
    resumed = interrupted(target.prefix)
    own = (f"{target.stem}.index", f"{target.stem}.meta", f"{target.stem}.bncheck.json")
    for name in present:
        if (name in own or name.startswith(f"{target.stem}.data-")) and (name == own[0] or not resumed):
            raise _taken(target, name, present)
    meta = meta_beside(place.prefix)
    if not is_file(meta) and raw.graphs:
        meta = raw.graphs[0].path

    def write(replaced: Vectors, added: Vectors, text: str) -> Written:
        with workshop(target.prefix) as folder:
            with _of_one_source(raw):
                made = write_checkpoint(place, Place(directory=folder, stem=target.stem), replaced, added)
            beside_it = []
            if is_file(meta):
                beside_it.append(folder / f"{target.stem}.meta")
                copy(meta, beside_it[0])
            note = beside(folder / target.stem)
            note.write_text(text, encoding="utf-8")
            # the provenance first, by which a run that is ended here is known, the index last: it makes the checkpoint
            files = [note, *made[:-1], *beside_it, made[-1]]
            _renew(target.prefix)
            named = [target.directory / file.name for file in files]
            publish(list(zip(files, named, strict=True)))
            state = _state(target, folder)
            notes = () if state else (_STATE_LEFT.format(target.directory),)
            return Written(files=(*named, *state), notes=notes)

    return Destination(
        path=target.prefix,
        hashed=(place.index,),
        can_add=raw.format.kind is FileKind.TF1_CHECKPOINT,
        write=write,
    )


_STATE_LEFT = "{}/checkpoint already names another checkpoint and was not changed: restore by prefix"


def _state(target: Place, folder: Path) -> tuple[Path, ...]:
    """The `checkpoint` file, where the directory has none yet: a training run's own is never touched."""
    state = target.directory / "checkpoint"
    made = folder / "checkpoint"
    made.write_text(state_file(target.stem), encoding="utf-8")
    try:
        publish([(made, state)])
    except UsageError:
        return ()
    return (state,)


def _target(output: Path, source: Place) -> Place:
    """`-o` as a prefix; a folder (or a path that ends in "/") gets the source's own basename."""
    if output.is_dir():
        return Place(directory=output, stem=source.stem)
    stem = output.name.removesuffix(".index").removesuffix(".meta")
    return Place(directory=output.parent, stem=stem)


def _taken(target: Place, name: str, present: list[str]) -> UsageError:
    if f"{target.stem}.index" in present:
        return taken(target.directory / f"{target.stem}.index")
    return UsageError(
        f"{target.directory / name} exists without an index, left by an interrupted run or copy: delete "
        "it, or choose another name"
    )


def _saved_model(raw: RawModel, output: Path) -> Destination:
    source = raw.path if raw.path.is_dir() else raw.path.parent
    _check_free(source, output)
    place = Place(directory=source / _VARIABLES, stem=_VARIABLES)

    def write(replaced: Vectors, added: Vectors, text: str) -> Written:
        with workshop(output) as folder:
            copied = folder / output.name
            # links within are followed, so that the copy stands alone; the variables are written anew
            shutil.copytree(source, copied, ignore=lambda where, held: _left_out(Path(where), held, source))
            variables = copied / _VARIABLES
            variables.mkdir(exist_ok=True)
            with _of_one_source(raw):
                write_checkpoint(place, Place(directory=variables, stem=_VARIABLES), replaced, added)
            note = beside(folder / output.name)
            note.write_text(text, encoding="utf-8")
            _renew(output)
            publish([(note, beside(output))])
            publish_directory(copied, output)
        stale = is_file(source / _FINGERPRINT)
        notes = (f"{_FINGERPRINT} was not copied: it names the old variables",) if stale else ()
        return Written(files=(output, beside(output)), notes=notes)

    graph = next((source / name for name in ("saved_model.pb", "saved_model.pbtxt") if is_file(source / name)), None)
    return Destination(
        path=output, hashed=tuple(path for path in (graph, place.index) if path), can_add=False, write=write
    )


def _left_out(folder: Path, held: Iterable[str], source: Path) -> list[str]:
    """What of a folder is not copied. Raises Unreadable for what is no regular file of the source."""
    for name in held:
        path = folder / name
        if path.is_symlink() or not path.is_dir():
            require_inside(path, source)
    if folder == source:
        return [_FINGERPRINT]
    if folder == source / _VARIABLES:
        return [name for name in names(folder) if name.startswith(f"{_VARIABLES}.")]
    return []


def _keras(raw: RawModel, output: Path) -> Destination:
    source = raw.path
    if source.is_dir():
        raise Unsupported(source, "an unpacked Keras archive", hint="repair the .keras file, or zip the folder first")
    files = {tensor.location[0] for tensor in raw.tensors.values() if tensor.location is not None}
    if files != {source}:
        raise Unsupported(source, "weights in shards", hint="save them as one file and repair that")
    if output.is_dir():
        output /= source.name
    _check_free(source, output)
    ending = ".weights.h5" if source.name.endswith(".weights.h5") else source.suffix
    if not output.name.endswith(ending):
        raise UsageError(f"{output}: the copy of a {ending} file must end in {ending} for Keras to load it")

    def write(replaced: Vectors, added: Vectors, text: str) -> Written:
        assert not added
        with workshop(output) as folder:
            made, note = folder / output.name, beside(folder / output.name)
            with _of_one_source(raw):
                write_keras(raw, made, replaced)
            note.write_text(text, encoding="utf-8")
            _renew(output)
            publish([(note, beside(output)), (made, output)])
        return Written(files=(output, beside(output)))

    return Destination(path=output, hashed=(source,), can_add=False, write=write)


def _check_free(source: Path, output: Path) -> None:
    """Raises UsageError unless nothing is at `output`, and there is a folder to write it to."""
    if output.resolve() == source.resolve():
        raise in_place(output)
    _check_folder(output.parent)
    for path in (output, *(() if interrupted(output) else (beside(output),))):
        if path.exists() or path.is_symlink():
            raise taken(path)
    if source.is_dir() and output.resolve().is_relative_to(source.resolve()):
        raise UsageError(f"{output} lies inside {source}, which bncheck does not change: choose a place outside it")


@contextmanager
def _of_one_source(raw: RawModel) -> Iterator[None]:
    """Raises Unreadable where a file of the source is no longer what was read: the copy would be of two models."""
    error: BncheckError | None = None
    try:
        yield
    except BncheckError as found:
        error = found
    file = changed(raw.stamps, stamps(raw.path)) if raw.stamps else None
    if file is not None:
        hint = "repair it once it is saved"
        raise Unreadable(file, "it changed during the repair: nothing was written", hint=hint) from error
    if error is not None:
        raise error


def _renew(output: Path) -> None:
    """Takes away the provenance that an interrupted run left of an output that it never wrote."""
    if interrupted(output):
        beside(output).unlink()


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder: create it first")


def in_place(path: Path) -> UsageError:
    """The error for a repair of a file by itself."""
    return UsageError(f"{path}: is the source itself, which bncheck never changes: choose another place with -o")
