"""TensorFlow checkpoints: the table of the index and the tensors of the data files."""
