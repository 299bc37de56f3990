"""Pickles as data: nothing is imported, nothing called, whatever they name."""

from __future__ import annotations

import io
import marshal
import os
import pickle
import pickletools
import warnings
import zipfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytorch_writer import Call, Name, Persistent, batch_norm, pickled, state_of, write_archive, write_stream

import bncheck
from bncheck.facts.errors import Malformed, ReadError
from bncheck.sources.pytorch.pickles import read_pickle
from bncheck.sources.pytorch.values import Built, Storage, Strided, Symbol

PLACE = Path("some.pt")


def read(data: bytes) -> Any:
    """What a pickle describes."""
    return read_pickle(io.BytesIO(data), PLACE).value


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(st.text() | st.integers(), inner, max_size=5)
    ),
    max_leaves=20,
)


@given(PLAIN, st.integers(0, 5))
def test_plain_values_are_what_python_reads(value: Any, protocol: int) -> None:
    """Of every protocol."""
    assert read(pickle.dumps(value, protocol)) == value


class _Runs:
    """An object whose pickle runs a command."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self._made = (function, arguments)

    def __reduce__(self) -> Any:
        return self._made


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("function", [os.system, eval, exec, __import__, open, getattr])
def test_nothing_that_a_pickle_names_is_called(function: Any, protocol: int, tmp_path: Path) -> None:
    """The functions of known attacks end as names."""
    victim = tmp_path / "written"
    data = pickle.dumps({"model": _Runs(function, f"touch {victim}")}, protocol)
    found = read(data)["model"]
    assert isinstance(found, Built)
    assert found.of.rpartition(".")[2] in (function.__name__, "system")
    assert not victim.exists()


@pytest.mark.parametrize(
    "attack",
    [
        b"(S'touch pwned'\nios\nsystem\n.",  # INST
        b"(cos\nsystem\nS'touch pwned'\no.",  # OBJ
        b"\x80\x02cos\nsystem\nX\x05\x00\x00\x00touch\x85R.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x05touch\x85R.",  # STACK_GLOBAL
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\ncos\nsystem\n\x85R.",  # too few arguments
        b"\x80\x02ctorch._tensor\n_rebuild_from_type_v2\n(cos\nsystem\nN(X\x05\x00\x00\x00touchtNtR.",
        b"\x80\x02cbuiltins\ngetattr\n(cos\nsystem\nX\x04\x00\x00\x00nametR.",
        b"\x80\x02\x82\x01.",  # the registry of extensions
        b"\x80\x02cos\nsystem\n)\x81}X\x01\x00\x00\x00aK\x01sb.",  # NEWOBJ, BUILD
        b"\x80\x02(Q.",
    ],
)
def test_attacks_are_inert_or_refused(attack: bytes) -> None:
    """Every opcode that makes an object of a class or function."""
    try:
        found = read(attack)
    except ReadError:
        return
    assert isinstance(found, Built | Symbol)


def _fails(data: bytes) -> bool:
    try:
        read(data)
    except ReadError:
        return True
    return False


@given(st.binary(max_size=200))
def test_any_bytes_are_a_value_or_a_named_error(data: bytes) -> None:
    """No other exception."""
    with pytest.raises(ReadError, match=r"some\.pt") if _fails(b"\x80\x02" + data) else nullcontext():
        read(b"\x80\x02" + data)


@given(st.integers(0, 300), st.integers(0, 255))
def test_a_changed_byte_is_a_value_or_a_named_error(place: int, byte: int) -> None:
    """In a pickle of tensors."""
    storage = ("storage", Name("torch", "FloatStorage"), "0", "cpu", 4)
    view = Call(Name("torch._utils", "_rebuild_tensor_v2"), (Persistent(storage), 0, (2, 2), (2, 1), False, {}))
    data = bytearray(pickled({"a": view, "b": [1, 2, (3,)]}))
    data[place % len(data)] = byte
    with pytest.raises(ReadError, match=r"some\.pt") if _fails(bytes(data)) else nullcontext():
        read(bytes(data))


def test_escapes_that_mean_nothing() -> None:
    """Are texts as they stand: Python 3.12 warns of them."""
    assert read(b"S'a\\ob'\n.") == "a\\ob"


def test_a_pickle_may_hold_itself() -> None:
    """Through its memo."""
    within: list[Any] = []
    within.append(within)
    found = read(pickle.dumps(within))
    assert found[0] is found


def test_deep_nesting_is_no_crash() -> None:
    """Tuples of many levels, also as keys, where hashing them would go down all of them."""
    deep = b"\x80\x02)" + b"\x85" * 100_000
    assert isinstance(read(deep + b"."), tuple)
    assert read(b"\x80\x02}" + deep[2:] + b"K\x01s.") == {}


def test_tensors_views_and_what_torch_wraps_them_in() -> None:
    """Parameters are their tensors, a storage's view starts where it says."""
    storage = ("storage", Name("torch.cuda", "HalfStorage"), "7", "cuda:0", 10)
    view = Call(Name("torch._utils", "_rebuild_tensor_v2"), (Persistent(storage), 2, (3,), (1,), True, {}))
    found = read(pickled(Call(Name("torch._utils", "_rebuild_parameter"), (view, True, {}))))
    assert isinstance(found, Strided)
    assert (found.storage, found.offset, found.shape) == (Storage("7", "float16", 0, 10), 2, (3,))
    older = ("storage", Name("torch", "FloatStorage"), "7", "cpu", 10, ("7a", 4, 6))
    assert read(pickled(Persistent(older))) == Storage("7", "float32", 4, 6)
    typed = (Persistent(("storage", Name("torch.storage", "UntypedStorage"), "1", "cpu", 8)), 0, (4,), (1,), False, {})
    third = Call(Name("torch._utils", "_rebuild_tensor_v3"), (*typed, Name("torch", "uint16")))
    assert read(pickled(third)).dtype == "uint16"


@pytest.mark.parametrize(
    "view",
    [(-1, (2,), (1,)), (0, (2,), (1, 1)), (0, (-2,), (1,)), (0, (2,), (-1,)), (0, [2], [1]), (True, (2,), (1,))],
)
def test_impossible_views_are_no_tensors(view: tuple[Any, ...]) -> None:
    """Of negative offsets, sizes and strides, or of ranks that differ."""
    storage = Persistent(("storage", Name("torch", "FloatStorage"), "0", "cpu", 4))
    made = Call(Name("torch._utils", "_rebuild_tensor_v2"), (storage, *view, False, {}))
    assert isinstance(read(pickled(made)), Built)


def test_objects_of_other_classes_keep_their_state() -> None:
    """A whole module is read by its state."""
    module = Call(Name("torch.nn.modules.batchnorm", "BatchNorm2d"), (), {"training": False})
    found = read(pickled(module))
    assert (found.of, found.state) == ("torch.nn.modules.batchnorm.BatchNorm2d", {"training": False})


def test_errors_tell_the_place() -> None:
    """Byte of the file, not of the pickle."""
    stream = io.BytesIO(b"....\x80\x02K\x01.")
    stream.seek(4)
    assert read_pickle(stream, PLACE).value == 1
    with pytest.raises(Malformed, match=r"some\.pt, byte 104"):
        read_pickle(io.BytesIO(b"\x80\x02h\x05."), PLACE, base=102)


def test_every_opcode_is_known() -> None:
    """Of the standard library's list, but for buffers that are outside the file."""
    from bncheck.sources.pytorch import pickles

    known = {*pickles._PUSHES, *pickles._IGNORED, *pickles._CONSTANTS, *pickles._ACTS}
    assert {code.name for code in pickletools.opcodes} - known == {"NEXT_BUFFER"}


def _attacks(victim: Path) -> dict[str, Call]:
    """Ways to have a pickle write a file, after fickling's and picklescan's lists of unsafe imports."""
    command, code = f"touch {victim}", f"open({str(victim)!r}, 'w').close()"
    of_os = Call(Name("builtins", "__import__"), ("os",))
    compiled = Call(Name("marshal", "loads"), (marshal.dumps(compile(code, "", "exec")),))
    return {
        "os.system": Call(Name("os", "system"), (command,)),
        "posix.system": Call(Name("posix", "system"), (command,)),
        "subprocess": Call(Name("subprocess", "check_output"), (command.split(),)),
        "exec": Call(Name("builtins", "exec"), (code,)),
        "eval": Call(Name("builtins", "eval"), (code,)),
        "eval of Python 2's name": Call(Name("__builtin__", "eval"), (code,)),
        "shutil": Call(Name("shutil", "copyfile"), ("/dev/null", str(victim))),
        "runpy": Call(Name("runpy", "_run_code"), (code, {})),
        "timeit": Call(Name("timeit", "timeit"), ("0", code)),
        "getattr of a module": Call(Call(Name("builtins", "getattr"), (of_os, "system")), (command,)),
        "methodcaller": Call(Call(Name("operator", "methodcaller"), ("system", command)), (of_os,)),
        "partial": Call(Call(Name("functools", "partial"), (Name("os", "system"), command)), ()),
        "marshal": Call(Call(Name("types", "FunctionType"), (compiled, {})), ()),
        "a pickle within": Call(Name("pickle", "loads"), (pickled(Call(Name("os", "system"), (command,))),)),
    }


def _infected(path: Path, way: str, payload: Call, layer: dict[str, Any]) -> Path:
    """A file of one layer, the payload where fickling would put it."""
    storages = {str(place): array.tobytes() for place, array in enumerate(layer.values())}
    clean = state_of(layer)
    first = b"\x80\x02" + pickled(payload)[2:-1] + b"0" + pickled(clean)[2:]  # made, thrown away, then the model
    if way == "before the model":
        return write_archive(path, None, storages, pickle_of=first)
    if way == "behind the model":
        return write_archive(path, None, storages, pickle_of=pickled(clean) + pickled(payload))
    if way == "as a member of the model":
        return write_archive(path, {"model": clean, "hook": payload}, storages)
    if way == "in the stream's model":
        counted = {key: (len(content) // 4, content) for key, content in storages.items()}
        return write_stream(path, {"model": clean, "hook": payload}, counted)
    write_archive(path, clean, storages)
    with zipfile.ZipFile(path, "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive.writestr("archive/data.pkl", first)  # a second member of that name
    return path


@pytest.mark.parametrize(
    "way",
    ["before the model", "behind the model", "as a member of the model", "in the stream's model", "in a second member"],
)
def test_infected_files_run_nothing(way: str, tmp_path: Path) -> None:
    """Each attack writes a file when Python loads it, none when bncheck reads it; a second pickle is refused."""
    victim = tmp_path / "written"
    layer = {name: array for name, array in batch_norm("bn").items() if array.dtype == np.float32}
    for name, payload in _attacks(victim).items():
        pickle.loads(pickled(payload))  # noqa: S301 - shows that the attack is one
        assert victim.exists(), name
        victim.unlink()
        path = _infected(tmp_path / "m.pt", way, payload, layer)
        refused = way == "in a second member"
        with pytest.raises(ReadError, match=r"m\.pt") if refused else nullcontext():
            (found,) = bncheck.inspect_model(path).layers
        if not refused:
            assert found.mean.values.tolist() == layer["bn.running_mean"].tolist(), name
        assert not victim.exists(), name
