"""Report -> text. One reporter a file, each `(Report, TextIO) -> None`, each with its own versioned wire form."""
