"""One graph in two modes: the forward part is cut out, batch norm switched, both run on one input."""
