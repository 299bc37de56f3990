"""The errors that bncheck raises, where users import them from: `bncheck.facts.errors`."""

from bncheck.facts.errors import *  # noqa: F403 - the public door of that module
