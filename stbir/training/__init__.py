"""What makes the vectors of the three modalities agree."""
