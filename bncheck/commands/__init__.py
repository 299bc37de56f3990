"""One pipeline a command: a path and options become a report. Nothing here prints."""
