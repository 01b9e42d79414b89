"""Charts, tables and pages from plain data; knows nothing about activations and needs no torch."""
