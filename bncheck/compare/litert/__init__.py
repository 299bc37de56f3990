"""Converts a model to TFLite, runs it in LiteRT and matches its tensors with those of the source."""
