"""Layers told by names and configuration, where there is no graph."""
