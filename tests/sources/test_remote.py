"""Checkpoints on other machines: judged as those of this one, from a hundredth of their bytes."""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundle_writer import chunk, entry, number, serialized, table

import bncheck
from bncheck.cli.main import main
from bncheck.facts.errors import NotFound, ReadError, UsageError
from bncheck.facts.findings import Report, Verdict
from bncheck.sources import remote
from bncheck.sources.files import names, read_head
from bncheck.sources.remote import RemotePath, located

fsspec = pytest.importorskip("fsspec", reason="the extra remote is not installed")

FIXTURES = Path(__file__).parents[2] / "fixtures"
WITH_GRAPH = FIXTURES / "tiny" / "bn101_never_moved" / "broken_with_graph"
GIB = 1 << 30


class _Server(ThreadingHTTPServer):
    """Serves a folder by ranges, and counts the bytes of all bodies."""

    sent = 0

    @property
    def address(self) -> str:
        """Without a path."""
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(SimpleHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        path = Path(self.translate_path(self.path))
        if asked is None or not path.is_file():
            super().do_GET()
            return
        with path.open("rb") as file:
            file.seek(int(asked[1]))
            body = file.read(int(asked[2]) + 1 - int(asked[1]))
        self.send_response(HTTPStatus.PARTIAL_CONTENT)
        self.send_header("Content-Range", f"bytes {asked[1]}-{asked[2]}/{path.stat().st_size}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.server.sent += len(body)

    def copyfile(self, source: Any, outputfile: Any) -> None:
        content = source.read()
        self.server.sent += len(content)
        outputfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


@pytest.fixture(autouse=True)
def _nothing_remembered() -> None:
    remote._ANSWERS.clear()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[_Server]:
    """Of the test's own folder."""
    pytest.importorskip("aiohttp", reason="the extra remote is not installed")
    with _Server(("127.0.0.1", 0), partial(_Handler, directory=str(tmp_path))) as found:
        thread = threading.Thread(target=found.serve_forever, daemon=True)
        thread.start()
        yield found
        found.shutdown()
        thread.join()


@pytest.fixture
def memory() -> Iterator[Any]:
    """The file system of `memory://`, empty before and after."""
    system = fsspec.filesystem("memory")
    yield system
    system.store.clear()
    system.pseudo_dirs[:] = [""]


def test_memory(memory: Any) -> None:
    """The report of a checkpoint with its graph, but for its place: a prefix, its folder, and the `.index`."""
    memory.put(str(WITH_GRAPH), "/run", recursive=True)
    here = bncheck.inspect_checkpoint(WITH_GRAPH / "model.ckpt-80")
    for place in ("memory://run/model.ckpt-80", "memory://run/model.ckpt-80.index", "memory://run"):
        there = bncheck.inspect_checkpoint(place)
        assert there.target.path == "memory://run/model.ckpt-80"
        assert there.target.graph_path == "memory://run/model.ckpt-80.meta"
        assert there.verdict is here.verdict is Verdict.FAIL
        assert [finding.code for finding in there.findings] == [finding.code for finding in here.findings]
        _same_layers(there, here)


def test_a_gibibyte_over_http(server: _Server, tmp_path: Path) -> None:
    """Of a checkpoint of 1 GiB, less than a hundredth is fetched; its statistics are those that it holds."""
    _write_sparse(tmp_path / "m-7", GIB)
    report = bncheck.inspect_checkpoint(f"{server.address}/m-7")
    assert (tmp_path / "m-7.data-00000-of-00001").stat().st_size > GIB
    assert 0 < server.sent < GIB / 100
    here = bncheck.inspect_checkpoint(tmp_path / "m-7")
    assert [finding.code for finding in report.findings] == [finding.code for finding in here.findings]
    assert len(report.layers) == 40
    _same_layers(report, here)


def test_a_run_over_http(server: _Server, tmp_path: Path) -> None:
    """Folders are listed, checkpoints put in the order of their steps, and all judged as those of this machine."""
    for step in (30, 4):
        _write_sparse(tmp_path / "run" / "inner" / f"m-{step}", 1 << 20, step=step)
    there = bncheck.inspect_run(f"{server.address}/run")
    here = bncheck.inspect_run(tmp_path / "run")
    assert [report.target.step for report in there] == [report.target.step for report in here] == [4, 30]
    assert [report.verdict for report in there] == [report.verdict for report in here]
    assert there[0].target.path == f"{server.address}/run/inner/m-4"


def test_a_damaged_one_is_told(memory: Any, tmp_path: Path) -> None:
    """With its address, as any damaged file; the command ends with 2."""
    _write_sparse(tmp_path / "m-1", 1 << 16)
    memory.put(str(tmp_path), "/bad", recursive=True)
    index = bytearray(memory.cat_file("/bad/m-1.index"))
    index[5] ^= 1
    memory.pipe_file("/bad/m-1.index", bytes(index))
    with pytest.raises(ReadError, match=re.escape("memory://bad/m-1.index")):
        bncheck.inspect_checkpoint("memory://bad/m-1")
    assert main(["inspect", "checkpoint", "memory://bad/m-1"]) == 2


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("memory://nowhere/m-1", "no such file"),
        ("nosuchprotocol://a/b", "nosuchprotocol"),
        ("memory://a::http://127.0.0.1/b", "one protocol"),
        ("http://127.0.0.1:9/m-1", "cannot be reached"),
    ],
)
def test_what_is_not_there(memory: Any, address: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A sentence, and exit code 2."""
    assert not memory.store
    assert main(["inspect", "checkpoint", address]) == 2
    assert told in capsys.readouterr().err


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """What to install, and exit code 2."""
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    assert main(["inspect", "checkpoint", "gs://bucket/model.ckpt-1"]) == 2
    assert "pip install" in capsys.readouterr().err


def test_names_stay_in_the_folder(memory: Any) -> None:
    """A `checkpoint` file that names another folder leads to no file there."""
    _put_tiny(memory, "/secret/m-1")
    memory.pipe_file("/run/checkpoint", b'model_checkpoint_path: "../secret/m-1"\n')
    with pytest.raises(NotFound):
        bncheck.inspect_checkpoint("memory://run")


def test_a_server_without_ranges(server: _Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is told, and nothing else is taken for the range."""
    monkeypatch.setattr(_Handler, "do_GET", SimpleHTTPRequestHandler.do_GET)
    _write_sparse(tmp_path / "m-1", 1 << 20)
    with pytest.raises(ReadError, match="ranges"):
        bncheck.inspect_checkpoint(f"{server.address}/m-1")


def test_paths() -> None:
    """Addresses keep their form; files of this machine are paths as ever, whatever they look like."""
    path = located("gs://bucket/run")
    assert isinstance(path, RemotePath)
    assert str(path / "model.ckpt-3.index") == "gs://bucket/run/model.ckpt-3.index"
    assert str(path.with_name("other")) == "gs://bucket/other"
    assert str(path.parent) == "gs://bucket"
    assert not isinstance(located("file:///etc/passwd"), RemotePath)
    assert not isinstance(located("run/model.ckpt"), RemotePath)
    assert located(path) is path
    with pytest.raises(UsageError, match="no address"):
        read_head(path / "/etc/passwd")


def test_listing(memory: Any) -> None:
    """Names alone, sorted."""
    _put_tiny(memory, "/run/m-1")
    memory.pipe_file("/run/inner/x", b"")
    assert names(RemotePath("memory://run")) == ["inner", "m-1.data-00000-of-00001", "m-1.index"]
    assert RemotePath("memory://run/inner").is_dir()


def _put_tiny(memory: Any, prefix: str) -> None:
    for path in (FIXTURES / "tiny" / "bn105_non_finite").rglob("*"):
        for suffix in (".index", ".data-00000-of-00001"):
            if path.name.endswith(suffix):
                memory.pipe_file(prefix + suffix, path.read_bytes())


def _write_sparse(prefix: Path, size: int, *, step: int = 7) -> None:
    """40 batch norms between embeddings of `size` bytes in all, which are holes: they take no room on disk."""
    prefix.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(step)
    entries = {b"": number(1, 1) + chunk(3, number(1, 1))}
    end = 0
    with Path(f"{prefix}.data-00000-of-00001").open("wb") as file:
        for layer in range(40):
            for name in ("beta", "gamma", "moving_mean", "moving_variance"):
                kind, shape, stored, checksum = serialized(random.uniform(0.5, 2, 64).astype(np.float32))
                file.seek(end)
                file.write(stored)
                key = f"block_{layer:02}/BatchNorm/{name}".encode()
                entries[key] = entry(kind, shape, shard=0, offset=end, size=len(stored), checksum=checksum)
                hole = size // 160 // 4 * 4
                end += len(stored) + hole
                entries[f"embedding_{layer:02}_{name}/table".encode()] = entry(
                    1, (hole // 4,), shard=0, offset=end - hole, size=hole, checksum=0
                )
        kind, shape, stored, checksum = serialized(np.array(step, np.int64))
        file.seek(end)
        file.write(stored)
        entries[b"global_step"] = entry(kind, shape, shard=0, offset=end, size=len(stored), checksum=checksum)
    Path(f"{prefix}.index").write_bytes(table(sorted(entries.items())))


def _same_layers(one: Report, other: Report) -> None:
    for there, here in zip(one.layers, other.layers, strict=True):
        assert (there.name, there.decay, len(there.updates)) == (here.name, here.decay, len(here.updates))
        for mine, theirs in zip(there.statistics, here.statistics, strict=True):
            assert mine.values is not None
            assert theirs.values is not None
            assert np.array_equal(mine.values, theirs.values)
