"""What C++ libraries write past Python is held back: greetings, and the long form of errors told in one sentence."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator

_KEPT = 20_000
"""Characters of the end that are told."""


@contextlib.contextmanager
def silence() -> Iterator[Callable[[], str]]:
    """Holds what is written to the descriptors of standard output and error; gives a function that tells it so far."""
    sys.stdout.flush()
    sys.stderr.flush()
    with tempfile.TemporaryFile() as held, contextlib.ExitStack() as restore:
        for descriptor in (1, 2):
            try:
                kept = os.dup(descriptor)
            except OSError:  # closed: there is nothing to keep quiet
                continue
            restore.callback(os.close, kept)
            restore.callback(os.dup2, kept, descriptor)
            os.dup2(held.fileno(), descriptor)

        def said() -> str:
            held.seek(0)
            return held.read()[-_KEPT:].decode(errors="replace")

        yield said
        sys.stdout.flush()
        sys.stderr.flush()
