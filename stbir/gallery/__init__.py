"""The gallery: photo embeddings in a store of vectors (Lance or Milvus), their index, versions and search.

No model, torch or Ray belongs here: vectors come in as NumPy arrays from `stbir.embedding`.
"""
