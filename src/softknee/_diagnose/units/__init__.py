"""How the units of activations do, over one sample or while a model trains."""
