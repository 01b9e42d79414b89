"""Intervals and tests for scores of several seeds on the same test examples; plain numbers in, dataclasses out."""
