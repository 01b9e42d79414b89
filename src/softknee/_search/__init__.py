"""Searches for the activation that suits a model and its data, and proves what it found by training."""
