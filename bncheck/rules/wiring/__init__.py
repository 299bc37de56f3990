"""BN2xx: graph and configuration."""
