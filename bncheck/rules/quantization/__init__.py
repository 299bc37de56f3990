"""BN4xx and BN5xx: folding, quantization, and an earlier model."""
