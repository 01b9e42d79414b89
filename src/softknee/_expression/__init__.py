"""A small safe language for formulas: text to tree, tree to function, text and symbolic form."""
