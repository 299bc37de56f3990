"""bncheck: tells whether a TensorFlow model's batch norm will turn it into junk, why, and how to repair it."""

__version__ = "0.1.0"
