"""TensorFlow without its greetings: four lines that it writes past Python, and past its own TF_CPP_MIN_LOG_LEVEL."""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_STDERR = 2


def load_tensorflow() -> Any:
    """The module. What its libraries write to standard error while they load is shown only where loading fails.

    Raises ModuleNotFoundError where it is not installed.
    """
    if "tensorflow" in sys.modules:
        return sys.modules["tensorflow"]
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with _standard_error_held():
        import tensorflow  # noqa: ICN001, PLC0415 - held while it loads
    tensorflow.get_logger().setLevel("ERROR")
    return tensorflow


@contextmanager
def without_warnings() -> Iterator[None]:
    """TF-slim and Keras warn of each other's age; nobody who runs bncheck can act on it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _standard_error_held() -> Iterator[None]:
    """Keeps what is written to the descriptor inside the block, and lets it out if the block raises."""
    sys.stderr.flush()
    try:
        kept = os.dup(_STDERR)
    except OSError:  # closed: there is nothing to keep quiet
        yield
        return
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), _STDERR)
        try:
            yield
        except BaseException:  # an interrupt too lets out what was said before it
            held.seek(0)
            os.write(kept, held.read())
            raise
        finally:
            os.dup2(kept, _STDERR)
            os.close(kept)
