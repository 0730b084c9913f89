"""Encoders applied to data: images, sketches and texts become feature vectors and gallery queries.

No training and no storage of vectors: those belong to `stbir.training` and `stbir.gallery`.
"""
