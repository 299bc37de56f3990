"""BN3xx: train mode against eval mode, measured."""
