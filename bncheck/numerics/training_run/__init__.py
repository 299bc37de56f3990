"""The checkpoints of one run held against each other: when updates ran, when channels died, what jumped."""
