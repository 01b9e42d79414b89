"""Measures how the activations of one model do on its data, and says what to do about it."""
