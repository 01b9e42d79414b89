"""The atlas: a static site of the whole catalogue, made from the specs alone."""
