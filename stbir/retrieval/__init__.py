"""What finds the photo."""
