"""`bncheck`, and `python -m bncheck`: what is met before the command line is imported."""

from __future__ import annotations

import os
import sys


def run() -> int:
    """Runs one command and returns its exit code; an interrupt that comes while it still starts is no traceback."""
    try:
        from bncheck.cli.main import main  # noqa: PLC0415 - its import is most of what an early interrupt meets

        return main()
    except KeyboardInterrupt:
        os.write(2, b"bncheck: interrupted\n")
        return 130


if __name__ == "__main__":
    sys.exit(run())
