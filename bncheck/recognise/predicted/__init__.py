"""What the weights predict to arrive at each batch norm: by the graph, or by a Keras configuration."""
