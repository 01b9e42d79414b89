"""Which activations are worth a try, and short paired trainings that tell."""
