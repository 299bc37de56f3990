"""MetaGraphs, frozen graphs and SavedModels."""
