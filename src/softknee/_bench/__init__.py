"""Runs and studies: a fair comparison of activations under a frozen protocol."""
