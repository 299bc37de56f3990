"""Graph twins, data and metrics: measurements without verdicts. Runs the model (TensorFlow, LiteRT)."""
