"""The gallery: a Lance table of photo embeddings with its index, versions, filters and search.

No model, torch or Ray belongs here: vectors come in as NumPy arrays from `stbir.embedding`.
"""
