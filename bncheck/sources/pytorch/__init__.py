"""PyTorch's files: pickles read without executing them, and the storages beside them."""
