"""Activations of whole models: where they act, replacing them, and matching weights to them."""
