"""What is known about one function."""
