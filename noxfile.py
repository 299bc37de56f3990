"""The versions that bncheck promises to work with: `nox` runs all, `nox --list` shows them, `nox -s "static-3.12"` one.

Each session makes an environment of its own; interpreters that are not there are skipped.
"""

from __future__ import annotations

import nox

nox.options.error_on_missing_interpreters = False
nox.options.reuse_existing_virtualenvs = True

OLDEST = {
    "3.10": ("numpy==1.23.0", "protobuf==4.25.0", "h5py==3.8.0", "click==8.1.0", "rich==13.0.0", "pathspec==0.12.0"),
    "3.11": ("numpy==1.23.2", "protobuf==4.25.0", "h5py==3.8.0"),
    "3.12": ("numpy==1.26.0", "protobuf==5.26.1"),
    "3.13": ("numpy==2.1.0", "protobuf==6.30.0"),
}
"""Python -> the oldest of what has wheels for it: protobuf 4, 5, 6, and 7 by the sessions with the newest."""
TENSORFLOW = (("3.10", "2.12"), ("3.11", "2.15"), ("3.11", "2.18"), ("3.12", "2.19"), ("3.13", "2.21"))
"""(Python, TensorFlow): the oldest and newest, and three between; tf-keras 2.18 does not work on Python 3.12."""
OF_TENSORFLOW = (
    "tests/sources/graph/test_protos.py",
    "tests/sources/bundle/test_checkpoint_oracle.py",
    "tests/sources/keras/test_keras_oracle.py",
    "tests/compare/litert/test_interpreter.py",
    "tests/commands/test_compare.py",
    "tests/test_guard.py",
    "tests/test_demo.py",
)
"""What meets most of TensorFlow: its formats, a model run in both modes, converted, trained, repaired, guarded."""
FAST = ("python", "-m", "pytest", "-m", "not tensorflow and not browser and not slow", "-n", "2", "-q")
REAL = ("python", "-m", "pytest", "-m", "tensorflow and not slow", "-n", "2", "-q", "--dist", "loadfile")
ENDS = (("3.10", "oldest"), ("3.13", "newest"))
"""Where all fast tests run; between them those of `OF_VERSIONS`."""
OF_VERSIONS = (
    "tests/sources",
    "tests/recognise",
    "tests/numerics",
    "tests/rules",
    "tests/report",
    "tests/cli",
    "tests/test_fixtures.py",
    "tests/test_pytest_plugin.py",
)
"""What meets numpy, protobuf, h5py and Python itself: readers, numbers, rules, reports, the command line."""
OLD = ("-W", "default::DeprecationWarning", "-W", "default::FutureWarning")
"""Of old packages on newer ones: no fault of ours, and as errors they break protobuf 5.26 on Python 3.12."""


@nox.session(python=list(OLDEST))
@nox.parametrize("versions", ["oldest", "newest"])
def static(session: nox.Session, versions: str) -> None:
    """Fast tests, without TensorFlow, with the oldest or the newest packages; those that follow `--`."""
    session.install(".[test]")
    if versions == "oldest":
        session.install(*OLDEST[str(session.python)])
    chosen = session.posargs or (() if (session.python, versions) in ENDS else OF_VERSIONS)
    session.run(*FAST, *(OLD if versions == "oldest" else ()), *chosen)


@nox.session
@nox.parametrize(("python", "tensorflow"), TENSORFLOW)
def real(session: nox.Session, tensorflow: str) -> None:
    """Tests against real TensorFlow, TF-slim and LiteRT: a choice of them, or those that follow `--`."""
    wanted = [f"tensorflow=={tensorflow}.*", "tf-slim>=1.1", "scikit-learn>=1.3", "pillow>=9"]
    # before 2.15 Keras 2 was TensorFlow's own, and so was the interpreter of TFLite files
    wanted += [] if tensorflow < "2.15" else [f"tf-keras=={tensorflow}.*", "ai-edge-litert>=1.2"]
    session.install(".[test]", *wanted)
    session.run(*REAL, *OLD, *(session.posargs or OF_TENSORFLOW))


@nox.session(python="3.12")
def pytorch(session: nox.Session) -> None:
    """Tests against real PyTorch, safetensors, ONNX and onnxruntime, or those that follow `--`."""
    session.install(".[torch]")
    session.run("python", "-m", "pytest", "-m", "torch", "-n", "2", "-q", "--dist", "loadfile", *OLD, *session.posargs)


@nox.session(python="3.12")
def docs(session: nox.Session) -> None:
    """The documentation as a site, in `build/docs`; every warning is an error."""
    session.install(".[docs]")
    session.run("python", "-m", "sphinx", "-W", "--keep-going", "docs", "build/docs")
