"""What several formats show in the same way."""
