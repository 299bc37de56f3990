"""Benchmarks: ratios measured side by side in one run. Scripts, not tests; README.md tells what they gave."""
