"""What a sample is: sources, shards, decoding, corruption, order."""
