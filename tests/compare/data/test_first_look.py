"""What is wrong with data, options or paths is said before TensorFlow is loaded."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[3]
WIRED = ROOT / "fixtures" / "mobilenet_v2" / "wired" / "model.ckpt-300"
TINY = ROOT / "fixtures" / "tiny"
KERAS = TINY / "bn101_never_moved" / "clean_keras" / "model.keras"
LITE = TINY / "bn406_not_folded" / "clean" / "model.tflite"

DATA = {
    "none.npz": "none.npz: no such file",
    "none-*.tfrecord": "no such files",
    "images": "holds no images",
    "text.xyz": "no samples that bncheck can read",
    "cut.npz": "cannot be read as arrays",
    "objects.npy": "objects.npy",
    "words.npy": "holds an array of type",
    "empty.npz": "holds no samples",
    "labels.npz": "3 labels",
    "size.npz": "10x10x3",
    "rank.npz": "shape 7",
    "ok.npz --labels none.txt": "--labels none.txt",
    "ok.npz --preprocess frob": "frob",
    "ok.npz --batch-size 0": "batch-size",
    "ok.npz --size 64xx": "64xx",
    "pictures --labels folders": "subfolder",
    "bytes.npz": "--preprocess",
    "notes": "notes/a.png: not an image",
    "synthetic --labels labels.npy": "synthetic data",
}
"""What follows --data -> a part of what is said."""
OPTIONS = {
    "{wired} --inputs frob": "frob",
    "{wired} --outputs frob": "frob",
    "{wired} --labels-output frob": "frob",
    "{wired} --graph none.meta": "none.meta",
    "{wired} --weights ema": "--weights raw",
    "{wired} --model mobilenet_v2 --graph x.meta": "exclude each other",
    "bare.ckpt --model mobilenet": "did you mean mobilenet_v",
    "bare.ckpt --model mobilenet_v2:frob=1": "frob",
    "bare.ckpt --model mobilenet_v2:depth_multiplier=x": "depth_multiplier",
    "bare.ckpt --builder frob": "frob",
    "bare.ckpt --builder no_such_module:function": "no_such_module",
    "bare.ckpt --builder json:frob": "frob",
    "bare.ckpt --model mobilenet_v2 --builder json:load": "exclude each other",
    "none.ckpt": "none.ckpt",
    "{keras} --size 1x": "1x",
}
"""Model and options, with data that are right -> a part of what is said."""
QUANTIZING = {
    "{wired} --scheme int9": "int8",
    "{wired} --quantized none.tflite": "none.tflite",
    "{wired} --quantized {keras}": "--quantized",
    "{wired} --quantized {lite} --scheme int8": "--scheme",
    "{wired} --calibration-batches 0": "calibration-batches",
}
GATING = {
    "{wired} --against none.json": "none.json",
    "{wired} --max-time -3": "max-time",
    "{wired} --no-quantize --scheme int8": "--no-quantize",
}
REPAIRING = {
    "{wired} -o out --debias --data ok.npz": "--data and --debias",
    "{wired} -o out": "none was given",
    "{wired} -o taken.ckpt --data ok.npz": "taken.ckpt",
    "{wired} -o {wired} --data ok.npz": "model.ckpt-300",
    "{wired} -o no/such/folder/out --data ok.npz": "folder",
    "{wired} -o out --data synthetic": "synthetic",
    "{lite} -o out --data ok.npz": "TFLite",
    "bare.ckpt -o out --debias": "decay",
    "{wired} --data ok.npz": "-o OUT",
}
OF_THE_GRAPH = {
    *(f"{{wired}} --data {name}.npz" for name in ("size", "rank", "bytes")),
    *(f"{{wired}} --{name} frob --data ok.npz" for name in ("inputs", "outputs", "labels-output")),
    *(f"bare.ckpt --builder {name} --data ok.npz" for name in ("frob", "no_such_module:function", "json:frob")),
    "{wired} --quantized {lite} --scheme int8 --data ok.npz",
}
"""What a gate leaves to the process that is to run the model, which says it as `compare` does: before TensorFlow."""
RUN = """
import contextlib, io, json, shlex, sys
from bncheck.cli.main import main
told = []
for line in json.load(sys.stdin):
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        code = main(shlex.split(line))
    loaded = [name for name in ("tensorflow", "bncheck.commands.gate.parent") if sys.modules.pop(name, None)]
    told.append((code, said.getvalue(), loaded))
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data with a fault each, and a checkpoint without a graph."""
    place = tmp_path_factory.mktemp("early")
    images = np.zeros((64, 64, 64, 3), np.float32)
    np.savez(place / "ok.npz", images=images, labels=np.zeros(64, np.int64))
    np.savez(place / "labels.npz", images=images, labels=np.zeros(3, np.int64))
    np.savez(place / "size.npz", images=images[:, :10, :10])
    np.savez(place / "rank.npz", images=images[:, 0, :7, 0])
    np.savez(place / "empty.npz", images=images[:0])
    np.savez(place / "bytes.npz", images=images.astype(np.uint8))
    np.save(place / "objects.npy", np.array([{}], object), allow_pickle=True)
    np.save(place / "words.npy", np.array(["a"]))
    (place / "cut.npz").write_bytes((place / "ok.npz").read_bytes()[:5000])
    (place / "text.xyz").write_text("hello")
    (place / "images").mkdir()
    (place / "pictures").mkdir()
    (place / "pictures" / "a.png").write_bytes(b"not looked into")
    (place / "notes").mkdir()
    (place / "notes" / "a.png").write_text("no image")
    (place / "taken.ckpt.index").write_text("x")
    for file in WIRED.parent.glob("model.ckpt-300.[di]*"):
        shutil.copy(file, place / file.name.replace("model.ckpt-300", "bare.ckpt"))
    return place


def said(folder: Path, lines: list[str]) -> list[tuple[int, str, list[str]]]:
    """(exit code, what was printed, what was loaded until then) of command lines, one after the other."""
    named = {name: shlex.quote(str(path)) for name, path in (("wired", WIRED), ("keras", KERAS), ("lite", LITE))}
    done = subprocess.run(
        [sys.executable, "-c", RUN],
        input=json.dumps([line.format(**named) for line in lines]),
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("command", ["compare train-vs-eval", "compare float-vs-quantized", "gate", "repair"])
def test_before_tensorflow(command: str, folder: Path) -> None:
    """Exit code 2, a sentence that names what is wrong, and nothing was loaded or started to run a model."""
    out = " -o out" if command == "repair" else ""
    cases = {f"{command} {{wired}}{out} --data {data}": told for data, told in DATA.items()}
    cases |= {f"{command} {rest}{out} --data ok.npz": told for rest, told in OPTIONS.items()}
    if command in ("gate", "compare float-vs-quantized"):
        cases |= {f"{command} {rest} --data ok.npz": told for rest, told in QUANTIZING.items()}
    if command == "gate":
        cases |= {f"{command} {rest} --data ok.npz": told for rest, told in GATING.items()}
    if command == "repair":
        cases |= {f"{command} {rest}": told for rest, told in REPAIRING.items()}
    wrong = [
        (line, code, text.strip().splitlines()[-1:], loaded)
        for (line, told), (code, text, loaded) in zip(cases.items(), said(folder, list(cases)), strict=True)
        if code != 2 or told not in text or (loaded and line.removeprefix("gate ") not in OF_THE_GRAPH)
    ]
    assert not wrong, "\n".join(map(str, wrong))
