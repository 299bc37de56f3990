"""Where work that falls into independent shards is done: in this process, in others, on other machines."""
