"""Images, arrays, records and noise become batches."""
