"""`sources/tflite.py`: every field that is used, every way a file can be wrong."""

from __future__ import annotations

import random
import struct
import time
import tracemalloc
from pathlib import Path
from typing import Any

import lite_writer
import numpy as np
import pytest
from lite_writer import Faults, G, Op, T, constant, lite_bytes

from bncheck.facts.errors import Malformed, NotFound, ReadError, TooLarge, Truncated, Unreadable, Unsupported
from bncheck.recognise.lite.by_lite import recognise_lite
from bncheck.recognise.lite.values import KnownValues, largest_by_channel, real, rounding
from bncheck.rules.quantization import bn405_bias_saturated, bn406_not_folded
from bncheck.settings.options import Options
from bncheck.sources.raw import RawLiteTensor, RawModel
from bncheck.sources.tflite import schema
from bncheck.sources.tflite.tflite import matches, read_lite

REAL = Path(__file__).parents[3].parent / "shared" / "real"

KERNEL = np.arange(-12, 12, dtype=np.int8).reshape(2, 2, 2, 3)
BIAS = np.array([7, -(2**31) + 1], np.int32)


def small() -> bytes:
    """A quantized convolution, a ReLU, a per-channel MUL and ADD, a string and a second subgraph."""
    tensors = (
        T(name="in", dtype="int8", shape=(1, 4, 4, 3), scales=[0.5], points=[-1], signature=(-1, 4, 4, 3)),
        constant("w", KERNEL, scales=[0.25, 0.125]),
        constant("b", BIAS, scales=[0.125, 0.0625]),
        T(name="mid", dtype="int8", shape=(1, 3, 3, 2), scales=[0.1], points=[3]),
        constant("m", np.array([1, 127], np.int8), scales=[0.01]),
        T(name="out1", dtype="int8", shape=(1, 3, 3, 2), scales=[0.1]),
        constant("a", np.array([1.5, -2.5], np.float32)),
        T(name="out2", dtype="int8", shape=(1, 3, 3, 2), scales=[0.1]),
        T(name="state", dtype="float32", shape=(2,), variable=True),
        T(name="words", dtype="string", shape=(2,), data=struct.pack("<4i", 2, 16, 18, 21) + b"abcde"),
    )
    operators = (
        Op(kind="CONV_2D", inputs=(0, 1, 2), outputs=(3,), activation="RELU6"),
        Op(kind="MUL", inputs=(3, 4), outputs=(5,)),
        Op(kind="ADD", inputs=(5, 6), outputs=(7,)),
    )
    second = G(tensors=(T(name="x", shape=(1,)),), operators=(), outputs=(0,), name="other")
    return lite_bytes(
        G(tensors=tensors, operators=operators, outputs=(7,)), second, faults=Faults(metadata=("min_runtime_version",))
    )


def read(tmp_path: Path, content: bytes) -> RawModel:
    """The content as a file, read."""
    path = tmp_path / "model.tflite"
    path.write_bytes(content)
    return read_lite(path)


def one(tmp_path: Path, tensor: T) -> RawLiteTensor:
    """The tensor read back from a file that holds it alone."""
    lite = read(tmp_path, lite_bytes(G(tensors=(tensor,), operators=()))).lite
    assert lite is not None
    return lite.subgraphs[0].tensors[0]


def everything(path: Path) -> None:
    """Reads the structure, all data and the facts, and judges them."""
    raw = read_lite(path)
    assert raw.lite is not None
    for subgraph in raw.lite.subgraphs:
        for tensor in subgraph.tensors:
            if tensor.data is not None and tensor.data.unavailable is None:
                tensor.data.read()
    facts = recognise_lite(raw, Options())
    for rule in (bn405_bias_saturated.check, bn406_not_folded.check):
        assert all(found.message for found in rule.check(facts))


def refusal(path: Path) -> ReadError | None:
    """The error with which the file is refused, None where all of it is read; anything else is a crash."""
    try:
        everything(path)
    except ReadError as error:
        return error
    return None


def test_reads_all_of_a_file(tmp_path: Path) -> None:
    """Names, shapes, types, data, quantization, operators, activations and subgraphs come out as they went in."""
    raw = read(tmp_path, small())
    lite = raw.lite
    assert lite is not None
    assert (raw.format.label, lite.version, lite.description) == ("TFLite", 3, "made by a test")
    assert lite.metadata == ("min_runtime_version",)
    assert [subgraph.name for subgraph in lite.subgraphs] == ["main", "other"]
    main = lite.subgraphs[0]
    assert [op.kind for op in main.operators] == ["CONV_2D", "MUL", "ADD"]
    assert [op.activation for op in main.operators] == ["RELU6", "NONE", "NONE"]
    assert (main.operators[0].inputs, main.operators[0].outputs) == ((0, 1, 2), (3,))
    assert (main.inputs, main.outputs) == ((0,), (7,))
    first, kernel, bias = main.tensors[:3]
    assert first.data is None
    assert (first.shape, first.shape_signature) == ((1, 4, 4, 3), (-1, 4, 4, 3))
    assert first.quantization is not None
    assert (first.quantization.scales.tolist(), first.quantization.zero_points.tolist()) == ([0.5], [-1])
    assert kernel.data is not None
    assert bias.data is not None
    assert kernel.quantization is not None
    assert np.array_equal(kernel.data.read(), KERNEL)
    assert kernel.data.read().dtype == np.int8
    assert kernel.quantization.scales.tolist() == [0.25, 0.125]
    assert bias.data.read().tolist() == BIAS.tolist()
    assert main.tensors[8].is_variable
    words = main.tensors[9].data
    assert words is not None
    assert words.read().tolist() == [b"ab", b"cde"]


def test_data_is_read_only(tmp_path: Path) -> None:
    """Nobody can write into the mapped file."""
    data = one(tmp_path, constant("w", KERNEL)).data
    assert data is not None
    assert not data.read().flags.writeable


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "uint8", "int16", "int32", "int64", "bool"])
def test_plain_types(tmp_path: Path, dtype: str) -> None:
    """Every type that numpy knows is read in its own dtype."""
    values = np.array([[0, 1, 2], [3, 4, 5]]).astype(dtype)
    data = one(tmp_path, constant("x", values)).data
    assert data is not None
    assert np.array_equal(data.read(), values)
    assert data.read().dtype == values.dtype


def test_bfloat16_is_widened(tmp_path: Path) -> None:
    """bfloat16 is the upper half of a float32."""
    values = np.array([1.5, -2.0, 0.0078125], np.float32)
    half = (values.view(np.uint32) >> 16).astype(np.uint16).tobytes()
    data = one(tmp_path, T(name="x", dtype="bfloat16", shape=(3,), data=half)).data
    assert data is not None
    assert data.read().tolist() == values.tolist()


@pytest.mark.parametrize(
    ("dtype", "stored", "values"),
    [
        ("int4", bytes([0x71, 0x8F, 0x0C]), [1, 7, -1, -8, -4]),
        ("uint4", bytes([0x71, 0x8F, 0x0C]), [1, 7, 15, 8, 12]),
        ("int2", bytes([0b11_10_01_00, 0b01]), [0, 1, -2, -1, 1]),
    ],
)
def test_packed_types(tmp_path: Path, dtype: str, stored: bytes, values: list[int]) -> None:
    """Elements that share a byte are unpacked from its lowest bits on, an odd count included."""
    data = one(tmp_path, T(name="x", dtype=dtype, shape=(5,), data=stored)).data
    assert data is not None
    assert data.read().tolist() == values


def test_shared_buffers_share_their_reader(tmp_path: Path) -> None:
    """Tensors of one buffer, type and shape have one `read`, so that weights shared by subgraphs are read once."""
    shared = [T(name="b", dtype="int8", shape=shape, buffer=1) for shape in ((2, 2, 2, 3), (2, 2, 2, 3), (24,))]
    graph = G(tensors=(constant("a", KERNEL), *shared), operators=())
    lite = read(tmp_path, lite_bytes(graph)).lite
    assert lite is not None
    first, second, third, flat = (tensor.data for tensor in lite.subgraphs[0].tensors)
    assert first is not None
    assert second is not None
    assert third is not None
    assert flat is not None
    assert first.read is second.read is third.read
    assert np.array_equal(flat.read(), KERNEL.reshape(-1))


def test_operator_codes(tmp_path: Path) -> None:
    """The higher of both code fields counts; custom operators go by their code, unknown ones by their number."""
    tensors = (T(name="x", shape=(1,)), T(name="y", shape=(1,)))
    operators = [Op(kind=kind, inputs=(0, -1), outputs=(1,)) for kind in ("GELU", "CUSTOM", "NEW")]
    content = lite_bytes(G(tensors=tensors, operators=operators), faults=Faults(code_number={"NEW": 999}))
    lite = read(tmp_path, content).lite
    assert lite is not None
    assert [op.kind for op in lite.subgraphs[0].operators] == ["GELU", "MyOp", "BUILTIN_999"]
    assert lite.subgraphs[0].operators[0].inputs == (0, -1)


def test_data_behind_the_flatbuffer(tmp_path: Path) -> None:
    """Above 2 GB constants stand behind the flatbuffer, found by offset and size."""
    other = np.array([3, 1, 4, 1, 5], np.int64)
    graph = G(tensors=(constant("w", KERNEL), constant("o", other)), operators=())
    content = lite_bytes(graph, faults=Faults(outside=True))
    lite = read(tmp_path, content).lite
    assert lite is not None
    found = [tensor.data for tensor in lite.subgraphs[0].tensors]
    assert found[0] is not None
    assert found[1] is not None
    assert np.array_equal(found[0].read(), KERNEL)
    assert np.array_equal(found[1].read(), other)
    with pytest.raises(Truncated):
        read(tmp_path, content[:-16])


@pytest.mark.parametrize(
    ("tensor", "reason"),
    [
        (constant("w", KERNEL, sparse=True), "sparse"),
        (constant("w", KERNEL, external=1), "another file"),
        (T(name="w", dtype="float8_e4m3fn", shape=(2,), data=b"ab"), "float8_e4m3fn"),
        (T(name="w", dtype="resource", shape=(), data=b"ab"), "resource"),
        (T(name="w", dtype="not known", shape=(2,), data=b"ab"), "type 99"),
    ],
)
def test_what_is_not_read_says_so(tmp_path: Path, tensor: T, reason: str) -> None:
    """Data in a form that is not read is declared, listed and refused, never guessed."""
    raw = read(tmp_path, lite_bytes(G(tensors=(tensor,), operators=())))
    assert raw.lite is not None
    data = raw.lite.subgraphs[0].tensors[0].data
    assert data is not None
    assert data.unavailable is not None
    assert reason in data.unavailable
    assert any(reason in note for note in raw.notes)
    with pytest.raises(Unsupported, match=reason):
        data.read()


def test_blockwise_scales(tmp_path: Path) -> None:
    """Every 2 elements of a row have a scale of their own, which another tensor holds in half precision."""
    values = np.array([[1, -2, 3, 4], [5, 6, -7, 8]], np.int8)
    scales = np.array([[0.5, 2], [0.25, 1]], np.float16)
    kernel = constant("w", values, details=2, blocks=(1, -1, 2))
    lite = read(tmp_path, lite_bytes(G(tensors=(kernel, constant("s", scales)), operators=()))).lite
    assert lite is not None
    found = lite.subgraphs[0].tensors[0]
    assert found.quantization is not None
    wanted = values * np.repeat(scales.astype(float), 2, axis=1)
    assert np.array_equal(real(found), wanted)
    assert np.array_equal(np.squeeze(largest_by_channel(found, 0, KnownValues())), np.abs(wanted).max(axis=1))
    halves = rounding(found, np.abs(wanted))
    assert np.all(halves >= np.repeat(scales.astype(float), 2, axis=1) / 2)


@pytest.mark.parametrize(
    ("blocks", "message"),
    [((9, -1, 2), "tensor 9 of 2"), ((-7, -1, 2), "tensor -7"), ((1, -1, 3), "do not fit"), ((1, -1, 1), "do not fit")],
)
def test_hostile_blockwise_scales(tmp_path: Path, blocks: tuple[int, int, int], message: str) -> None:
    """Scales that are not there or are too few are named, whoever wrote the file."""
    kernel = constant("w", np.ones((2, 4), np.int8), details=2, blocks=blocks)
    with pytest.raises(Malformed, match=message):
        read(tmp_path, lite_bytes(G(tensors=(kernel, constant("s", np.ones((2, 2), np.float16))), operators=())))


def test_signatures(tmp_path: Path) -> None:
    """Names of inputs and outputs by tensor, as the converter writes them."""
    graph = G(tensors=(T(name="a", shape=(1,)), T(name="b", shape=(1,))), operators=(), inputs=(0,), outputs=(1,))
    faults = Faults(signatures=(("serving_default", 0, {"left": 0}, {"scores": 1}),))
    lite = read(tmp_path, lite_bytes(graph, faults=faults)).lite
    assert lite is not None
    (found,) = lite.signatures
    assert (found.key, found.graph, found.inputs, found.outputs) == ("serving_default", 0, {"left": 0}, {"scores": 1})


@pytest.mark.parametrize(
    ("signature", "message"),
    [
        (("s", 3, {}, {}), "subgraph 3 of 1"),
        (("s", 0, {"x": 7}, {}), "tensor 7 of 1"),
        (("s", 0, {}, {"x": 1}), "of 1"),
    ],
)
def test_hostile_signatures(tmp_path: Path, signature: Any, message: str) -> None:
    """Subgraphs and tensors that there are not are named."""
    graph = G(tensors=(T(name="a", shape=(1,)),), operators=())
    with pytest.raises(Malformed, match=message):
        read(tmp_path, lite_bytes(graph, faults=Faults(signatures=(signature,))))


def test_other_quantization_is_none(tmp_path: Path) -> None:
    """Custom quantization carries no affine scale, nor does a blockwise one of no size: none is reported."""
    assert one(tmp_path, constant("w", KERNEL, scales=[0.5], details=2)).quantization is None
    assert one(tmp_path, constant("w", KERNEL, scales=[0.5], details=1)).quantization is None
    assert one(tmp_path, constant("w", KERNEL)).quantization is None


@pytest.mark.parametrize(
    ("tensor", "reason"),
    [
        (T(name="w", shape=(3,), data=bytes(8)), "takes 12 bytes, stored are 8"),
        (T(name="w", shape=(-1,), data=bytes(8)), "stored are 8"),
        (T(name="w", dtype="int4", shape=(5,), data=bytes(2)), "takes 3 bytes"),
        (T(name="w", shape=(-2,)), "shape"),
        (T(name="w", shape=(1,) * 65), "65"),
        (T(name="w", shape=(2**31 - 1, 2**31 - 1, 2**31 - 1), data=bytes(8)), "stored are 8"),
        (constant("w", KERNEL, scales=[0.5, 0.5, 0.5]), "3 scales along axis 0"),
        (constant("w", KERNEL, scales=[0.5, 0.5], axis=7), "axis 7"),
        (constant("w", KERNEL, scales=[0.5, 0.5], axis=-1), "axis -1"),
        (constant("w", KERNEL, scales=[0.5, 0.5], points=[1]), "1 zero points"),
        (T(name="w", buffer=7), "buffer 7 of 1"),
    ],
)
def test_contradictions_are_named(tmp_path: Path, tensor: T, reason: str) -> None:
    """Sizes, scales and numbers that contradict one another are refused with the place."""
    with pytest.raises((Malformed, TooLarge), match=reason) as caught:
        one(tmp_path, tensor)
    assert caught.value.offset is not None


@pytest.mark.parametrize(
    "stored",
    [b"", b"\1", struct.pack("<i", -1), struct.pack("<4i", 2, 16, 15, 17) + b"a", struct.pack("<4i", 2, 0, 1, 2)],
)
def test_strings_are_checked(tmp_path: Path, stored: bytes) -> None:
    """String offsets must ascend within the tensor's own bytes."""
    data = one(tmp_path, T(name="s", dtype="string", shape=(2,), data=stored)).data
    if not stored:
        assert data is None
        return
    assert data is not None
    with pytest.raises(Malformed):
        data.read()


def test_operand_out_of_range(tmp_path: Path) -> None:
    """An operator may not name a tensor that does not exist."""
    graph = G(tensors=(T(name="x"),), operators=(Op(kind="RELU", inputs=(1,), outputs=(0,)),))
    with pytest.raises(Malformed, match="name tensor 1 of 1"):
        read(tmp_path, lite_bytes(graph))


def test_wrong_files(tmp_path: Path) -> None:
    """No file, a folder, too little, another format, another schema and no subgraph are told apart."""
    graph = G(tensors=(), operators=(), inputs=())
    with pytest.raises(NotFound):
        read_lite(tmp_path / "absent.tflite")
    with pytest.raises(Unreadable):
        read_lite(tmp_path)
    for content in (b"", b"\x1c\0\0\0TFL"):
        with pytest.raises(Truncated, match="too few"):
            read(tmp_path, content)
    with pytest.raises(Malformed, match="TFL3"):
        read(tmp_path, b"PK\3\4 this is a zip archive")
    with pytest.raises(Unsupported, match="schema version 2"):
        read(tmp_path, lite_bytes(graph, faults=Faults(version=2)))
    with pytest.raises(Malformed, match="no subgraph"):
        read(tmp_path, lite_bytes())


def test_matches_by_content(tmp_path: Path) -> None:
    """The identifier at byte 4 decides, not the suffix."""
    assert matches(tmp_path / "x.bin", small()[:64])
    assert not matches(tmp_path / "x.tflite", b"\x89HDF\r\n\x1a\n")
    assert not matches(tmp_path / "x.tflite", b"")


def test_text_that_is_no_utf8(tmp_path: Path) -> None:
    """A name that is not UTF-8 is refused at its byte."""
    content = lite_bytes(G(tensors=(T(name="plain"),), operators=()))
    damaged = content.replace(b"plain", b"pl\xffin")
    with pytest.raises(Malformed, match="UTF-8") as caught:
        read(tmp_path, damaged)
    assert caught.value.offset == content.index(b"plain") + 2


def test_shared_structure_is_capped(tmp_path: Path) -> None:
    """A small file whose offsets all lead to one big vector ends in an error, not in gigabytes."""
    operands, entries = 40_000, 5_000
    operator = Op(kind="RELU", inputs=(0,) * operands, outputs=(0,))
    # The subgraph's name stands before its operators in the file: its room takes the vector that repeats one.
    room = "n" * (4 * entries)
    content = bytearray(lite_bytes(G(tensors=(T(name="x"),), operators=(operator,), name=room)))
    vector = content.index(room.encode()) - 4
    subgraph = _follow(content, _follow(content, _field(content, _follow(content, 0), 2)) + 4)
    operators = _field(content, subgraph, 3)
    target = _follow(content, _follow(content, operators) + 4)
    struct.pack_into("<I", content, vector, entries)
    for place in range(vector + 4, vector + 4 + 4 * entries, 4):
        struct.pack_into("<I", content, place, target - place)
    struct.pack_into("<I", content, operators, vector - operators)
    assert len(content) < 1 << 18
    tracemalloc.start()
    try:
        began = time.perf_counter()
        with pytest.raises(TooLarge, match="times its own size"):
            read(tmp_path, bytes(content))
        assert time.perf_counter() - began < 5
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()


def _field(content: bytearray, table: int, number: int) -> int:
    vtable = table - struct.unpack_from("<i", content, table)[0]
    return table + int(struct.unpack_from("<H", content, vtable + 4 + 2 * number)[0])


def _follow(content: bytearray, place: int) -> int:
    return place + int(struct.unpack_from("<I", content, place)[0])


def test_truncated_at_every_offset(tmp_path: Path) -> None:
    """Cut off anywhere, a file ends in a named error with its path; only padding at the end may go."""
    content = small()
    path = tmp_path / "cut.tflite"
    errors = []
    for size in range(len(content)):
        path.write_bytes(content[:size])
        errors.append(refusal(path))
    assert sum(error is None for error in errors) <= 8
    assert all(str(path) in str(error) for error in errors if error is not None)


def flipped_bits(tmp_path: Path, step: int) -> int:
    """How many files with a flipped bit, every `step`th, are refused; the others are read."""
    content = bytearray(small())
    path = tmp_path / "flipped.tflite"
    refused = 0
    for bit in range(0, 8 * len(content), step):
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        content[bit // 8] ^= 1 << bit % 8
        refused += refusal(path) is not None
    return refused


def test_flipped_bits(tmp_path: Path) -> None:
    """With a single bit flipped, a file is read or ends in a named error: each byte, each position of a bit."""
    assert flipped_bits(tmp_path, 11) > 300


@pytest.mark.slow
def test_every_flipped_bit(tmp_path: Path) -> None:
    """The same for every single bit of the file."""
    assert flipped_bits(tmp_path, 1) > 3500


def mutated(content: bytes, number: int) -> bytes:
    """One to eight bytes overwritten, words set to extremes, pieces cut or repeated; the same for a number."""
    random_ = random.Random(number)  # noqa: S311 - reproducible, not secret
    data = bytearray(content)
    for _ in range(random_.randint(1, 8)):
        place = random_.randrange(len(data))
        choice = random_.randrange(4)
        if choice == 0:
            data[place] = random_.randrange(256)
        elif choice == 1:
            word = random_.choice([0, 1, 2**31 - 1, 2**31, 2**32 - 1, len(data), 0xFFFF, 4])
            data[place : place + 4] = struct.pack("<I", word)
        elif choice == 2:
            del data[place : place + random_.randint(1, 16)]
        else:
            data[place:place] = data[place : place + random_.randint(1, 16)]
    return bytes(data)


def hold(content: bytes, path: Path, numbers: range) -> None:
    """Each mutation is read or ends in a named error, within time and memory."""
    tracemalloc.start()
    try:
        for number in numbers:
            path.write_bytes(mutated(content, number))
            tracemalloc.reset_peak()
            began = time.perf_counter()
            refusal(path)
            assert time.perf_counter() - began < 5, number
            assert tracemalloc.get_traced_memory()[1] < 64 << 20, number
    finally:
        tracemalloc.stop()


def test_mutations(tmp_path: Path) -> None:
    """Random damage never crashes, hangs or takes much memory."""
    hold(small(), tmp_path / "mutated.tflite", range(150))


@pytest.mark.slow
def test_many_mutations_of_a_real_file(tmp_path: Path) -> None:
    """The same for a thousand mutations of a real file."""
    path = REAL / "mlperf_tiny_kws" / "kws_ref_model.tflite"
    if not path.is_file():
        pytest.skip(f"{path} is not here")
    hold(path.read_bytes(), tmp_path / "mutated.tflite", range(1000, 2000))


def test_writer_and_schema_agree() -> None:
    """The tests' own numbers of types and operators are those of the schema."""
    for name, number in lite_writer.TYPES.items():
        assert schema.TENSOR_TYPES[number] == name
    for name, number in lite_writer.CODES.items():
        assert schema.BUILTIN_OPERATORS[number] == name
