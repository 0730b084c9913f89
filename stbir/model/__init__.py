"""What turns a sample into a vector."""
