"""How signal and gradients go from layer to layer, and what outputs, ranks and trained activations are like."""
