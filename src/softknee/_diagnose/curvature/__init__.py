"""What the loss and the outputs do around the weights: Hessian, landscape, tangent kernel."""
