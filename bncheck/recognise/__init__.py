"""Raw tensors and graphs -> facts: by graph structure first, by configuration, by name where there is neither."""
