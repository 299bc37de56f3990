"""Layers, sites, updates and train ops of a graph, told by its structure."""
