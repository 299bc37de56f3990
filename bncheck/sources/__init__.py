"""Bytes -> raw tensors and graphs. Knows formats, knows nothing of batch norm, never imports TensorFlow."""
