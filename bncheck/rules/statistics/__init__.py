"""BN1xx: the values of the statistics."""
