"""Catalogues: photos to embed from a folder, table, WebDataset or shards, and their encoded bytes.

Never decoding or the gallery: those are in `stbir.embedding` and `stbir.gallery`.
"""
