"""Captions by a vision-language model: the question, what an answer must be, how it reads, how good it is."""
