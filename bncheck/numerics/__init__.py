"""Each formula once: init share, fold and forecast, moments, error metrics, channel statistics."""
