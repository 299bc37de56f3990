"""Gamma and beta that training writes over those of another layer."""

from __future__ import annotations

from bncheck.facts.record import Record


class Copied(Record):
    """Where a layer's gamma or beta comes from, by assignment."""

    source: str
    """Name of the layer that is trained."""
    averaged: bool
    """Mixed with what was there (soft target updates, EMA, SWA); False: replaced."""
    statistics: bool
    """Whether the moving mean and variance are written from those of the same layer too."""
