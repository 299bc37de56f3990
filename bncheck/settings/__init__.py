"""Options of a run and the configuration file."""
