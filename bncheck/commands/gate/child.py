"""The process that runs the model for a gate: asked on standard input, it tells on standard output what it measured.

Both sides are bncheck's own: what they exchange is pickled, one message after the other. The one that asks may end
this process at any time; when it is gone itself, so is this process.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import BinaryIO

from bncheck.commands.shown import Shown
from bncheck.facts.errors import BncheckError, ConfigError, ReadError, UsageError
from bncheck.settings.options import Options


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to run."""

    path: str
    options: Options
    """With data; `quantize`: float against quantized too, not train mode against eval mode alone."""


@dataclass(frozen=True, kw_only=True)
class SamplesDone:
    """Message: samples done, and how many there will be; None unknown."""

    done: int
    total: int | None


@dataclass(frozen=True, kw_only=True)
class TimeExpected:
    """Message: about how many seconds made-up samples will take, before they are run."""

    seconds: float


@dataclass(frozen=True, kw_only=True)
class Failed:
    """Message: the sentence that says why nothing more was measured."""

    sentence: str
    usage: bool
    """Whether the call or a file is at fault, rather than what the model or this machine can do."""


Message = SamplesDone | TimeExpected | Shown | Failed | None
"""None: everything was measured."""


def main() -> None:
    """Serves one request: standard output is for messages, whatever prints there goes to standard error instead."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the other side ends this one, without a traceback
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    request: Request = pickle.load(sys.stdin.buffer)  # noqa: S301 - written by the process that started this one
    threading.Thread(target=_end_with_the_other_side, daemon=True).start()
    serve(request, lambda message: _tell(out, message))


def serve(request: Request, tell: Callable[[Message], None]) -> None:
    """Measures, and tells of each step; a failure is a message too."""

    def progress(done: int, total: int | None) -> None:
        tell(SamplesDone(done=done, total=total))

    try:
        from bncheck.commands.measure import measure_all  # noqa: PLC0415 - only where a model is run
        from bncheck.commands.target import read_runnable  # noqa: PLC0415 - as above
        from bncheck.compare.quantization import wanted  # noqa: PLC0415 - as above

        other = wanted(request.options) if request.options.quantize else None
        options = replace(request.options, expected=lambda seconds: tell(TimeExpected(seconds=seconds)))
        measure_all(read_runnable(request.path, options), other, progress, found=tell)
    except BncheckError as error:
        tell(Failed(sentence=str(error), usage=isinstance(error, (UsageError, ConfigError, ReadError))))
    except MemoryError:
        tell(Failed(sentence="there is not enough memory to run the model", usage=False))
    except Exception as error:  # whatever else escapes is a bug in bncheck: it must not take the files' verdict along
        if os.environ.get("BNCHECK_DEBUG"):
            raise
        tell(Failed(sentence=f"internal error, a bug in bncheck: {type(error).__name__}: {error}", usage=False))
    else:
        tell(None)


def _tell(out: BinaryIO, message: Message) -> None:
    pickle.dump(message, out)
    out.flush()


def _end_with_the_other_side() -> None:
    os.read(0, 1)  # not through the stream, whose lock would keep the interpreter from ending
    os._exit(1)
