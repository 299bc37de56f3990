"""Gamma and beta that are made of those of another layer."""

from __future__ import annotations

from bncheck.facts.record import Record


class Copied(Record):
    """Where a layer's gamma or beta comes from, by assignment, or by its place in a file that holds an average."""

    source: str
    """Name of the layer that is trained."""
    averaged: bool
    """Mixed with what was there (soft target updates, EMA, SWA); False: replaced."""
    statistics: bool
    """Whether the moving mean and variance are written from those of the same layer too; in a file, are those."""
    kernel_apart: float | None = None
    """How far the kernel before it lies from the source's, over the source's norm; None where they were not read."""
