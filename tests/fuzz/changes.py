"""Changes that reach behind a format's own guards: checksums recomputed, lengths put right, offsets led astray."""

from __future__ import annotations

import io
import json
import pickletools
import random
import re
import tempfile
import warnings
import zipfile
from pathlib import Path

from bundle_writer import table
from mutations import damage

from bncheck.sources.bundle.sstable import entries, open_table

EXTREMES = (0, 1, 2, 127, 128, 255, 1 << 15, 1 << 16, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 40, (1 << 63) - 1)
_HDF5 = re.compile(rb"OHDR|OCHK|TREE|HEAP|SNOD|GCOL|FRHP|FHDB|FHIB|BTHD|BTLF|\x89HDF\r\n\x1a\n")
_ZIP = re.compile(rb"PK\x01\x02|PK\x03\x04|PK\x05\x06")


def bundle_index(content: bytes, random_: random.Random) -> bytes:
    """A checkpoint's index with an entry's message changed, lost or doubled under another key; all checksums hold."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.index"
        path.write_bytes(content)
        listed = {entry.key: entry.value for entry in entries(open_table(path))}
    for _ in range(random_.choice((1, 1, 2, 4))):
        key, other = random_.choice(sorted(listed)), random_.choice(sorted(listed))
        match random_.randrange(6):
            case 0 if key:
                del listed[key]
            case 1:
                listed[key] = listed[other]
            case 2:
                listed[key + random_.choice((b"", b"\0", b"\xff", b"/moving_mean", b":0"))] = listed[other]
            case _:
                listed[key] = protobuf(listed[key], random_)
    return table(sorted(listed.items()))


def protobuf(content: bytes, random_: random.Random, depth: int = 0) -> bytes:
    """A message with one field changed, lost, doubled or moved, at any depth; the lengths around it are put right."""
    fields = _fields(content)
    if not fields or (depth and random_.random() < 0.3):
        return damage(content, random_)
    place = random_.randrange(len(fields))
    number, wire, value = fields[place]
    if wire == 2 and random_.random() < 0.8:
        fields[place] = (number, wire, protobuf(value, random_, depth + 1) if value else random_.randbytes(3))
    else:
        match random_.randrange(5):
            case 0:
                del fields[place]
            case 1:
                fields.insert(random_.randrange(len(fields) + 1), fields[place])
            case 2:
                fields[place] = (random_.randrange(1, 40), wire, value)
            case 3 if wire == 0:
                fields[place] = (number, wire, _varint(random_.choice((*EXTREMES, (1 << 64) - 1))))
            case _:
                random_.shuffle(fields)
    return b"".join(_field(*field) for field in fields)


def _fields(content: bytes) -> list[tuple[int, int, bytes]]:
    """(number, wire type, bytes of the value) of a message; empty for what is none."""
    found, at = [], 0
    try:
        while at < len(content):
            tag, at = _read(content, at)
            wire, start = tag & 7, at
            if wire == 0:
                _, at = _read(content, at)
            elif wire == 2:
                length, at = _read(content, at)
                start, at = at, at + length
            elif wire in (1, 5):
                at += 8 if wire == 1 else 4
            else:
                return []
            if at > len(content) or not tag >> 3:
                return []
            found.append((tag >> 3, wire, content[start:at]))
    except IndexError:
        return []
    return found


def _read(content: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def _varint(value: int) -> bytes:
    coded = bytearray()
    while value > 127:
        coded.append(value & 127 | 128)
        value >>= 7
    return bytes([*coded, value])


def _field(number: int, wire: int, value: bytes) -> bytes:
    return _varint(number << 3 | wire) + (_varint(len(value)) if wire == 2 else b"") + value


def flatbuffer(content: bytes, random_: random.Random) -> bytes:
    """Offsets, lengths and vtables of a flatbuffer changed: words that lead to a place within the file, or count."""
    data = bytearray(content)
    for _ in range(random_.choice((1, 1, 2, 3))):
        words = range(0, len(data) - 8, 4)
        likely = [at for at in random_.sample(words, min(200, len(words))) if 0 < _word(data, at) < len(data)]
        at = random_.choice(likely or [4])
        if random_.random() < 0.3:
            data[at : at + 2] = random_.choice((0, 2, 3, 4, 6, 8, 12, 0xFFFF)).to_bytes(2, "little")
        else:
            word = random_.choice((*EXTREMES, len(data) - at, _word(data, at) + 4, _word(data, random_.choice(words))))
            data[at : at + 4] = (word & 0xFFFFFFFF).to_bytes(4, "little")
    return bytes(data)


def _word(data: bytearray, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "little")


def hdf5(content: bytes, random_: random.Random) -> bytes:
    """Bytes of HDF5's own structures changed: superblock, object headers, trees, heaps, of which few have checksums."""
    return _near(content, _HDF5, 96, random_)


def zip_directory(content: bytes, random_: random.Random) -> bytes:
    """Fields of a zip archive's headers and directory changed: sizes, offsets, names, flags, counts."""
    return _near(content, _ZIP, 46, random_)


def _near(content: bytes, structure: re.Pattern[bytes], reach: int, random_: random.Random) -> bytes:
    data = bytearray(content)
    places = [found.start() for found in structure.finditer(content)]
    for _ in range(random_.choice((1, 1, 2, 3)) if places else 0):
        at = min(random_.choice(places) + random_.randrange(4, reach), len(data) - 1)
        width = random_.choice((1, 2, 4, 8))
        values = (
            *EXTREMES,
            at,
            len(data),
            int.from_bytes(data[at : at + width], "little") ^ (1 << random_.randrange(8)),
        )
        data[at : at + width] = (random_.choice(values) % (1 << 8 * width)).to_bytes(width, "little")[: len(data) - at]
    return bytes(data)


def zip_members(content: bytes, random_: random.Random) -> bytes:
    """A sound archive of which one member is changed, lost, renamed or doubled; its CRC-32 is that of what it holds."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    place = random_.randrange(len(members))
    name, held = members[place]
    match random_.randrange(8):
        case 0:
            del members[place]
        case 1:
            members.append((name, members[random_.randrange(len(members))][1]))
        case 2:
            named = damage(name.encode(), random_).decode("latin-1").partition("\0")[0]  # zipfile would cut it there
            members[place] = (named or "empty", held)
        case _:
            change = hdf5 if held[1:4] == b"HDF" and random_.random() < 0.7 else damage
            members[place] = (name, change(held, random_))
    packed = random_.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    made = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(made, "w", packed) as archive:
        warnings.simplefilter("ignore")
        for member, value in members:
            archive.writestr(member, value)
    return made.getvalue()


def pickled_member(content: bytes, random_: random.Random) -> bytes:
    """PyTorch's archive with opcodes of its pickle lost, doubled, exchanged or damaged; the archive is sound."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    name = next(name for name in members if name.endswith("/data.pkl"))
    members[name] = _opcodes(members[name], random_)[0]
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for member, value in members.items():
            archive.writestr(member, value)
    return made.getvalue()


def pickled_stream(content: bytes, random_: random.Random) -> bytes:
    """PyTorch's older file with opcodes of one of its pickles changed."""
    before = b""
    for _ in range(random_.randrange(5)):
        behind = _opcodes(content, random_)[1]
        before, content = before + content[:behind], content[behind:]
    changed, behind = _opcodes(content, random_)
    return before + changed + content[behind:]


def _opcodes(content: bytes, random_: random.Random) -> tuple[bytes, int]:
    """(a pickle with one to four opcodes changed, bytes that it had before)."""
    stream = io.BytesIO(content)
    starts = [place or 0 for _, _, place in pickletools.genops(stream)]
    ends = [*starts[1:], stream.tell()]
    codes = [content[start:end] for start, end in zip(starts, ends, strict=True)]
    for _ in range(random_.choice((1, 1, 2, 4))):
        one, other = random_.randrange(len(codes)), random_.randrange(len(codes))
        match random_.randrange(5):
            case 0 if len(codes) > 1:
                del codes[one]
            case 1:
                codes[one], codes[other] = codes[other], codes[one]
            case 2:
                codes.insert(one, codes[other])
            case 3:
                codes[one] = codes[one][:1] + damage(codes[one][1:], random_)
            case _:
                codes[one] = random_.choice(pickletools.opcodes).code.encode("latin-1") + codes[one][1:]
    return b"".join(codes), stream.tell()


def json_header(content: bytes, random_: random.Random) -> bytes:
    """A safetensors file with values of its header changed, lost or absurd; the header's length is right."""
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    for _ in range(random_.choice((1, 1, 2, 4))):
        tensor = random_.choice(sorted(header))
        match random_.randrange(4):
            case 0:
                header.pop(tensor, None)
            case 1:
                header[f"{tensor}2"] = header[tensor]
            case 2 if header[tensor]:
                header[tensor][random_.choice(sorted(header[tensor]))] = random_.choice(
                    (None, -1, [], [0], [0, 1 << 60], [1 << 31, 1 << 31], "F64", "F8_E4M3", {}, [[[]]], True)
                )
            case _:
                offsets = header[tensor].get("data_offsets") if isinstance(header[tensor], dict) else None
                start = offsets[0] if isinstance(offsets, list) and offsets else 0
                header[tensor] = {"dtype": "F32", "shape": [random_.choice(EXTREMES)], "data_offsets": [start, start]}
        header = header or {"a": {}}
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + content[8 + size :]


def lines(content: bytes, random_: random.Random) -> bytes:
    """A text with lines lost, doubled, exchanged or nested, and words of one line put into another."""
    text = content.split(b"\n")
    for _ in range(random_.choice((1, 2, 4))):
        one, other = random_.randrange(len(text)), random_.randrange(len(text))
        match random_.randrange(5):
            case 0:
                del text[one : one + random_.choice((1, 1, 5))]
            case 1:
                text[one], text[other] = text[other], text[one]
            case 2:
                text.insert(one, text[other])
            case 3:
                text.insert(one, b"attr { value { func { " * random_.choice((1, 50, 400)))
            case _:
                text[one] = re.sub(rb"[0-9]+|\"[^\"]*\"", str(random_.choice(EXTREMES)).encode(), text[one])
        text = text or [b""]
    return b"\n".join(text)
