"""ONNX: the model as a protobuf message, weights inside or in files beside it."""
