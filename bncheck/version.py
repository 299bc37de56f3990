"""The version of the package and its home, the only place where they stand."""

__version__ = "0.1.0"
HOME = "https://github.com/OWNER/bncheck"
"""The repository; OWNER stands for its place until it has a public one. pyproject.toml repeats it."""
