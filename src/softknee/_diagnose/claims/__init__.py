"""Claims about activations that are often written, and what holds."""
