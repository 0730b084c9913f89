"""A gallery on a Milvus server: a collection for each version, an alias for each tag (decision 63).

Only `store` is imported from outside. Nothing here holds the rows of a gallery in memory.
"""
