"""`sources/keras*.py` on files that are cut, flipped, mutated, or made to do harm: a named error or the same facts."""

from __future__ import annotations

import io
import json
import random
import struct
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from keras_writer import (
    archive,
    batch_norm,
    bn_values,
    conv,
    functional,
    h5_file,
    inputs,
    scoped,
    sequential,
    vars_bytes,
)

from bncheck.facts.errors import (
    BadChecksum,
    Malformed,
    NoModel,
    ReadError,
    TooLarge,
    Truncated,
    Unreadable,
    Unsupported,
)
from bncheck.recognise.named.by_config import recognise_config
from bncheck.settings.options import Options
from bncheck.sources import zips
from bncheck.sources.content import Content
from bncheck.sources.keras import archive as keras_archive
from bncheck.sources.keras.keras import read_keras

GROUPS = {"layers/batch_normalization": ("bn", list(bn_values().values()))}
MODEL = sequential(conv("c"), batch_norm("bn"))


def small_h5(path: Path, **options: Any) -> Path:
    """A model of a convolution and a batch norm."""
    kernel = np.ones((3, 3, 3, 4), np.float32)
    return h5_file(path, MODEL, {"c": {"c/kernel:0": kernel}, "bn": scoped("bn", bn_values())}, **options)


def everything(path: Path) -> list[tuple[str, float | None, bytes | None]]:
    """What is recognised, after every tensor was read."""
    model = read_keras(path)
    for tensor in model.tensors.values():
        if tensor.unavailable is None:
            tensor.read()
    with np.errstate(invalid="ignore"):
        layers = recognise_config(model, Options()).layers
    return [(one.name, one.epsilon, None if one.mean.values is None else one.mean.values.tobytes()) for one in layers]


@pytest.mark.parametrize("kind", ["h5", "h5-latest", "keras", "weights.h5"])
def test_a_file_cut_anywhere_ends_in_a_named_error(tmp_path: Path, kind: str) -> None:
    """Truncated at many offsets, no file is read as if it were whole."""
    whole = written(tmp_path, kind)
    content = whole.read_bytes()
    path = tmp_path / f"cut.{kind}"
    for length in sorted({*range(1, 200, 7), *range(200, len(content), max(1, len(content) // 60)), len(content) - 1}):
        path.write_bytes(content[:length])
        with pytest.raises(ReadError):
            everything(path)


@pytest.mark.parametrize("kind", ["h5", "h5-latest", "keras", "weights.h5"])
def test_mutated_files_end_in_a_named_error_or_in_facts(tmp_path: Path, kind: str) -> None:
    """60 random mutations a format: no other exception, none slow; an archive never gives other facts."""
    mutate(tmp_path, kind, range(60))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["h5", "h5-latest", "keras", "weights.h5"])
def test_many_mutated_files(tmp_path: Path, kind: str) -> None:
    """1000 random mutations a format."""
    mutate(tmp_path, kind, range(1000, 2000))


def mutate(tmp_path: Path, kind: str, seeds: range) -> None:
    """Reads mutations of a small file of this kind."""
    whole = written(tmp_path, kind)
    expected, content = everything(whole), whole.read_bytes()
    path = tmp_path / f"mutated.{kind}"
    for seed in seeds:
        rng = random.Random(seed)  # noqa: S311 -- seeded on purpose
        damaged = bytearray(content)
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(len(damaged) - 8)
            words = (b"\xff" * 8, bytes(8), rng.randbytes(8), struct.pack("<Q", rng.randrange(len(damaged))))
            if rng.random() < 0.5:
                damaged[at] ^= 1 << rng.randrange(8)
            else:
                damaged[at : at + 8] = rng.choice(words)
        path.write_bytes(damaged)
        started = time.perf_counter()
        try:
            found = everything(path)
        except ReadError as error:
            assert str(error).startswith(str(path)), seed  # noqa: PT017 -- either outcome is right
        else:
            assert kind != "keras" or found == expected, seed
        assert time.perf_counter() - started < 5, seed


def written(tmp_path: Path, kind: str) -> Path:
    """A small file of this kind."""
    path = tmp_path / f"whole.{kind}"
    if kind == "keras":
        return archive(path, MODEL, GROUPS)
    if kind == "weights.h5":
        path.write_bytes(vars_bytes(GROUPS))
        return path
    return small_h5(path, libver="latest") if kind == "h5-latest" else small_h5(path)


def _soft(group: Any) -> None:
    group["bn/gamma:0"] = h5py.SoftLink("/elsewhere")


def _external(group: Any) -> None:
    group["bn/gamma:0"] = h5py.ExternalLink("/etc/passwd", "/")


def _raw_file(group: Any) -> None:
    group.create_dataset("bn/gamma:0", shape=(4,), dtype="f4", external=[("/etc/passwd", 0, 16)])


def _virtual(group: Any) -> None:
    layout = h5py.VirtualLayout(shape=(4,), dtype="f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", shape=(4,))
    group.create_virtual_dataset("bn/gamma:0", layout)


@pytest.mark.parametrize("plant", [_soft, _external, _raw_file, _virtual])
def test_never_follows_a_path_out_of_the_file(tmp_path: Path, plant: Callable[[Any], None]) -> None:
    """Soft and external links, external storage and virtual datasets are refused by name."""
    path = small_h5(tmp_path / "m.h5")
    with h5py.File(path, "a") as file:
        group = file["model_weights/bn"]
        del group["bn/gamma:0"]
        plant(group)
    with pytest.raises(Unsupported, match=r"gamma.*never follows"):
        read_keras(path)


def test_a_group_that_holds_itself_is_walked_once(tmp_path: Path) -> None:
    """Hard links may form a circle."""
    path = tmp_path / "m.weights.h5"
    path.write_bytes(vars_bytes(GROUPS))
    with h5py.File(path, "a") as file:
        file["layers/again"] = file["layers"]
    assert [name for name, _, _ in everything(path)] == ["bn"]


def test_sizes_are_checked_before_memory_is_taken(tmp_path: Path) -> None:
    """A tensor of 4 TiB that stores nothing, or a few zeros compressed, costs no memory."""
    path = tmp_path / "m.weights.h5"
    with h5py.File(path, "w") as file:
        group = file.create_group("layers/batch_normalization/vars")
        group.create_dataset("0", shape=(1 << 40,), dtype="f4", chunks=(1 << 20,), compression="gzip")
        group.create_dataset("1", shape=(1 << 20,), dtype="f4", chunks=(1 << 20,), compression="gzip")
        group.create_dataset("2", shape=(1 << 20,), dtype="f4")
        group.create_dataset("3", shape=(4,), dtype="f4", chunks=(1 << 29,), maxshape=(None,))
    tensors = read_keras(path).tensors
    tracemalloc.start()
    try:
        for key, error in (("0", TooLarge), ("1", TooLarge), ("2", Malformed), ("3", TooLarge)):
            with pytest.raises(error, match="declares"):
                tensors[f"batch_normalization/vars/{key}"].read()
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_text_longer_than_the_file_is_refused_without_reading_it(tmp_path: Path) -> None:
    """One flipped bit in a text's length would make HDF5 clear 2 GiB."""
    path = small_h5(tmp_path / "m.h5")
    content = bytearray(path.read_bytes())
    text = json.dumps(MODEL).encode()
    at = content.find(struct.pack("<I", len(text)), content.find(b"model_config"))
    content[at + 3] ^= 0x80
    path.write_bytes(content)
    started = time.perf_counter()
    with pytest.raises(Malformed, match=r"attribute 'model_config' is damaged.*holds no text"):
        read_keras(path)
    assert time.perf_counter() - started < 1


def test_a_config_nested_beyond_reason_is_refused(tmp_path: Path) -> None:
    """Models in models, JSON in JSON, and calls that double with each level end before the stack or memory does."""
    deep = batch_norm("bn")
    for level in range(80):
        deep = sequential(deep, name=f"s{level}")
    with pytest.raises(Malformed, match="nested more than 64"):
        read_keras(archive(tmp_path / "deep.keras", deep, GROUPS))
    with zipfile.ZipFile(tmp_path / "json.keras", "w") as file:
        file.writestr("config.json", '{"config":' * 100_000 + "1" + "}" * 100_000)
        file.writestr("model.weights.h5", vars_bytes(GROUPS))
    with pytest.raises(Malformed, match="not JSON"):
        read_keras(tmp_path / "json.keras")
    twice = batch_norm("bn0", feeds=["in"])
    for level in range(1, 40):
        inner = functional(inputs("in"), twice, outputs=[twice["config"]["name"]], name=f"m{level}")
        twice = inner | {"name": f"m{level}", "inbound_nodes": [[["in", 0, 0, {}]], [[f"m{level}", 1, 0, {}]]]}
        twice["config"]["output_layers"] = [[twice["config"]["layers"][1]["config"]["name"], 0, 0]]
    outer = functional(inputs("in"), twice, outputs=["m39"])
    outer["config"]["output_layers"] = [["m39", 2, 0]]
    with pytest.raises(TooLarge, match="applications of layers"):
        read_keras(archive(tmp_path / "twice.keras", outer, GROUPS))


@pytest.mark.parametrize("config", [{}, [], {"class_name": "Sequential"}, {"class_name": 1, "config": {}}, "x", None])
def test_a_config_that_names_no_model_is_malformed(tmp_path: Path, config: Any) -> None:
    """JSON of another shape is refused, not searched."""
    with pytest.raises(Malformed, match="names no model class"):
        read_keras(archive(tmp_path / "m.keras", config, GROUPS))


def test_two_layers_of_one_name_are_malformed(tmp_path: Path) -> None:
    """Keras forbids it, and nothing could be told apart."""
    with pytest.raises(Malformed, match="same name"):
        read_keras(archive(tmp_path / "m.keras", sequential(batch_norm("a"), batch_norm("a")), GROUPS))


def test_layers_that_are_listed_must_be_there(tmp_path: Path) -> None:
    """`layer_names` and `weight_names` are held against the groups and datasets."""
    path = small_h5(tmp_path / "m.h5")
    with h5py.File(path, "a") as file:
        del file["model_weights/bn/bn/gamma:0"]
    with pytest.raises(Malformed, match=r"weight 'bn/gamma:0' is listed"):
        read_keras(path)
    with h5py.File(path, "a") as file:
        del file["model_weights/bn"]
    with pytest.raises(Malformed, match="layer 'bn' is listed"):
        read_keras(path)


def rewritten(tmp_path: Path, change: Callable[[bytearray], None]) -> Path:
    """An archive with changed bytes."""
    path = archive(tmp_path / "m.keras", MODEL, GROUPS)
    content = bytearray(path.read_bytes())
    change(content)
    path.write_bytes(content)
    return path


def test_an_archive_is_held_against_its_checksums(tmp_path: Path) -> None:
    """One bit of a weight flipped: BadChecksum; without the CRC it would be another number."""

    def flip(content: bytearray) -> None:
        content[content.find(bn_values()["moving_mean"].tobytes())] ^= 1

    with pytest.raises(BadChecksum, match=r"'model\.weights\.h5' does not match its CRC-32"):
        read_keras(rewritten(tmp_path, flip))


def test_an_encrypted_member_is_named(tmp_path: Path) -> None:
    """The flag in the directory says so."""

    def encrypt(content: bytearray) -> None:
        at = -1
        while (at := content.find(b"PK\x01\x02", at + 1)) >= 0:
            content[at + 8] |= 1

    with pytest.raises(Unsupported, match=r"'config\.json' is encrypted"):
        read_keras(rewritten(tmp_path, encrypt))


@pytest.mark.parametrize("absent", ["config.json", "model.weights.h5"])
def test_an_absent_member_is_named(tmp_path: Path, absent: str) -> None:
    """Without configuration or weights there is no model."""
    path = archive(tmp_path / "m.keras", MODEL, GROUPS)
    without = tmp_path / "w.keras"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(without, "w") as target:
        for name in source.namelist():
            if name != absent:
                target.writestr(name, source.read(name))
    with pytest.raises(NoModel, match=rf"no '{absent}'"):
        read_keras(without)


def test_a_member_twice_is_malformed(tmp_path: Path) -> None:
    """Readers differ in which of the two they take."""
    path = archive(tmp_path / "m.keras", MODEL, GROUPS)
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "a") as file:
        file.writestr("config.json", "{}")
    with pytest.raises(Malformed, match=r"2 members called 'config\.json'"):
        read_keras(path)


def test_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By declared size and by ratio, before anything is unpacked."""
    path = archive(tmp_path / "m.keras", MODEL, GROUPS, compression=zipfile.ZIP_DEFLATED)
    monkeypatch.setattr(keras_archive, "MAX_TEXT_BYTES", 100)
    with pytest.raises(TooLarge, match=r"'config\.json' declares"):
        read_keras(path)
    monkeypatch.setattr(keras_archive, "MAX_TEXT_BYTES", 1 << 20)
    monkeypatch.setattr(keras_archive, "MAX_UNPACKED_BYTES", 100)
    with pytest.raises(TooLarge, match="unpacks to"):
        read_keras(path)
    monkeypatch.setattr(zips, "MAX_EXPANSION", 1)
    with pytest.raises(TooLarge, match="packed"):
        read_keras(path)


def test_members_are_read_by_name_and_never_extracted(tmp_path: Path) -> None:
    """A member that would land outside is simply not looked at."""
    path = archive(tmp_path / "m.keras", MODEL, GROUPS)
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("../escaped", "x")
    before = sorted(tmp_path.iterdir())
    assert [name for name, _, _ in everything(path)] == ["bn"]
    assert sorted(tmp_path.iterdir()) == before


def test_a_shard_map_stays_in_its_directory(tmp_path: Path) -> None:
    """Shards are named by file name alone."""
    path = tmp_path / "m.weights.json"
    path.write_text(json.dumps({"weight_map": {"/vars": "../m_00000.weights.h5"}}))
    with pytest.raises(Malformed, match="not a file name"):
        read_keras(path)


def test_what_is_no_file_is_named(tmp_path: Path) -> None:
    """Empty files and Git LFS pointers are told from damage."""
    (tmp_path / "empty.h5").touch()
    with pytest.raises(Truncated, match="empty"):
        read_keras(tmp_path / "empty.h5")
    (tmp_path / "lfs.h5").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(ReadError, match="Git LFS"):
        read_keras(tmp_path / "lfs.h5")
    with pytest.raises((Unreadable, NoModel)):
        read_keras(tmp_path)


def test_a_window_never_gives_a_short_read() -> None:
    """h5py takes a short read for a full one."""
    from bncheck.sources.keras.h5 import Window

    window = Window(Content.over(Path("x"), b"0123456789"))
    assert window.seek(-4, io.SEEK_END) == 6
    assert window.read(4) == b"6789"
    window.seek(8)
    with pytest.raises(OSError, match="eof = 10"):
        window.readinto(bytearray(3))


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "a\\b", "a\0b", "a\nb", "\ud800", "x" * 300, 5, None, ["x"], {"a": 1}, True]
)
def test_odd_names_of_shards(tmp_path: Path, name: Any) -> None:
    """What is no name of a file beside the map is refused with the map's path, alone and in a list."""
    path = tmp_path / "s.weights.json"
    for entry in ([name], name):
        path.write_text(json.dumps({"weight_map": {"layer": entry}}))
        if entry == ["x"]:
            continue
        with pytest.raises(Malformed, match="is not a file name") as caught:
            read_keras(path)
        assert caught.value.path == str(path)


@pytest.mark.parametrize("depth", [200, 600, 1500])
@pytest.mark.parametrize("key", ["inbound_nodes", "config", "build_config"])
def test_configurations_nested_without_end(tmp_path: Path, depth: int, key: str) -> None:
    """Lists and mappings in one another, to any depth: facts, or a named error."""
    deep = "[" * depth + "]" * depth if key == "inbound_nodes" else '{"a":' * depth + "1" + "}" * depth
    entry = batch_norm("bn", feeds=["in"])
    entry["build_config"] = None
    text = json.dumps(functional(inputs("in"), entry | {key: "DEEP"}, outputs=["bn"]))
    path = tmp_path / "m.keras"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("metadata.json", "{}")
        file.writestr("config.json", text.replace('"DEEP"', deep))
        file.writestr("model.weights.h5", vars_bytes(GROUPS))
    try:
        found = read_keras(path).keras
    except Malformed as error:
        found, said = None, str(error)
    assert found is not None or (str(path) in said and "nested deeper" in said)


@pytest.mark.parametrize("filler", ["[],", "0,", '{"a":0},'])
def test_packed_configurations_are_held_against_the_file(tmp_path: Path, filler: str) -> None:
    """A configuration of millions of values in a few kilobytes of archive is refused before it is parsed."""
    path = tmp_path / "m.keras"
    text = json.dumps(MODEL | {"more": "MORE"}).replace('"MORE"', f"[{filler * 1_200_000}0]")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("metadata.json", "{}")
        file.writestr("config.json", text)
        file.writestr("model.weights.h5", vars_bytes(GROUPS))
    assert path.stat().st_size < 100_000
    tracemalloc.start()
    with pytest.raises(TooLarge, match=r"m\.keras: the model configuration has \d,\d{3},\d{3} values"):
        read_keras(path)
    assert tracemalloc.get_traced_memory()[1] < 100_000_000
    tracemalloc.stop()


def test_an_open_file_keeps_no_dataset_open(tmp_path: Path) -> None:
    """HDF5 takes 20 KB for each dataset that is open: those of a file that was read are opened anew when asked for."""
    groups = {f"layers/batch_normalization_{n}": (f"bn{n}", list(bn_values().values())) for n in range(50)}
    (tmp_path / "m.weights.h5").write_bytes(vars_bytes(groups))
    before = h5py.h5f.get_obj_count(h5py.h5f.OBJ_ALL, h5py.h5f.OBJ_DATASET)
    model = read_keras(tmp_path / "m.weights.h5")
    assert h5py.h5f.get_obj_count(h5py.h5f.OBJ_ALL, h5py.h5f.OBJ_DATASET) == before
    assert all(tensor.read().size for tensor in model.tensors.values())
