"""Which readers and extras are usable in this environment. Looks packages up; imports none of the heavy ones."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

import bncheck
from bncheck.facts.extras import install


@dataclass(frozen=True, kw_only=True)
class Package:
    """A package that bncheck uses, and what for."""

    distribution: str
    module: str
    use: str
    core: bool = True
    extra: str = "tf"
    """Which of bncheck's extras brings it, if it is not core."""
    also: tuple[str, ...] = ()
    """Other distributions that provide the same module."""


PACKAGES = (
    Package(distribution="numpy", module="numpy", use="all numbers"),
    Package(distribution="protobuf", module="google.protobuf", use="checkpoints, MetaGraphs, SavedModels"),
    Package(distribution="cramjam", module="cramjam", use="compressed indexes of checkpoints"),
    Package(distribution="google-crc32c", module="google_crc32c", use="checksums of checkpoints"),
    Package(distribution="h5py", module="h5py", use="Keras files"),
    Package(distribution="msgpack", module="msgpack", use="Flax files"),
    Package(distribution="click", module="click", use="command line"),
    Package(distribution="rich", module="rich", use="colour on a terminal"),
    Package(
        distribution="tensorflow",
        module="tensorflow",
        use="compare, repair, gate --data, demo",
        core=False,
        also=("tensorflow-cpu", "tensorflow-macos", "tf-nightly"),
    ),
    Package(distribution="tf-slim", module="tf_slim", use="built-in backbones", core=False),
    Package(distribution="tf-keras", module="tf_keras", use="built-in backbones", core=False),
    Package(distribution="ai-edge-litert", module="ai_edge_litert", use="compare float-vs-quantized", core=False),
    Package(
        distribution="ai-edge-quantizer", module="ai_edge_quantizer", use="--scheme aeq:RECIPE", core=False, extra="aeq"
    ),
    Package(distribution="scikit-learn", module="sklearn", use="demo", core=False, extra="demo"),
    Package(distribution="altair", module="altair", use="--format html", core=False, extra="html"),
    Package(distribution="vl-convert-python", module="vl_convert", use="--format html", core=False, extra="html"),
    Package(distribution="jinja2", module="jinja2", use="--format html", core=False, extra="html"),
    Package(distribution="distributed", module="distributed", use="--engine dask://", core=False, extra="dask"),
    Package(distribution="fsspec", module="fsspec", use="gs://, s3://, hf://, http://", core=False, extra="remote"),
    Package(distribution="aiohttp", module="aiohttp", use="http://", core=False, extra="remote"),
)


def diagnosis() -> tuple[str, bool]:
    """(what to print, whether all that `inspect` needs is there)."""
    lines = [f"bncheck {bncheck.__version__}, Python {platform.python_version()}, {platform.system()}", ""]
    lacking = []
    for package in PACKAGES:
        found = _version(package)
        if found is None and package.core:
            lacking.append(package.distribution)
        state = found or ("MISSING" if package.core else "not installed")
        lines.append(f"  {package.distribution:<18}{state:<16}{package.use}")
    lines += ["", *_notes(lacking)]
    return "\n".join(lines) + "\n", not lacking


def _version(package: Package) -> str | None:
    """The version, "unknown" for a module without one, None where it is not there."""
    try:
        if find_spec(package.module) is None:
            return None
    except ModuleNotFoundError:
        return None
    names = (_distribution_version(name) for name in (package.distribution, *package.also))
    return next((name for name in names if name is not None), "unknown")


def _distribution_version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _notes(lacking: list[str]) -> list[str]:
    if lacking:
        return [f"inspect cannot work: pip install {' '.join(lacking)}"]
    notes = [
        "inspect, explain, rules: ready (no TensorFlow needed)",
        "PyTorch, safetensors, ONNX and Flax files: inspected, without any of these installed",
    ]
    for extra, use in (
        ("tf", "compare and repair"),
        ("aeq", "--scheme aeq:RECIPE"),
        ("demo", "the demo"),
        ("html", "--format html"),
        ("dask", "--engine dask://"),
        ("remote", "gs://, s3://, hf:// and http://"),
    ):
        optional = [package for package in PACKAGES if not package.core and package.extra == extra]
        absent = [package.distribution for package in optional if _version(package) is None]
        if absent:
            notes.append(f"for {use}, later: {install(extra)} (lacking: {', '.join(absent)})")
    notes += _slow_checksums()
    return notes


def _slow_checksums() -> list[str]:
    import google_crc32c  # noqa: PLC0415 - only once it is known to be there

    if google_crc32c.implementation == "c":
        return []
    return ["google-crc32c runs in pure Python here: checksums of large files will be slow"]
