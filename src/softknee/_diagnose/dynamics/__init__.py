"""How one weight moves under noise: for teaching."""
