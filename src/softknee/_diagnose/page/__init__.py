"""A diagnosis in words and as a page, made from its dictionary alone."""
