"""Which statistics a TFLite file has folded into its kernels."""
