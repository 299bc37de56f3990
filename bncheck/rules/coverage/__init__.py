"""BN0xx: what could not be judged."""
