"""Artifacts at any fsspec URI: folders, tables, manifests, the writer lock, retries, the access check.
Never the content of an artifact: shards, checkpoints and galleries define their own files.
"""
