"""ONNX: layers by the nodes of the graph."""
