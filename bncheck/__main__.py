"""`python -m bncheck`."""

from __future__ import annotations

import sys

from bncheck.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
