"""The command line: one file a command; arguments become one call, reports become files, verdicts become exit codes."""
