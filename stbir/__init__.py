"""Fine-grained image retrieval from a sketch plus a short text (STBIR, arXiv 2604.15735).

A library: no Ray, HTTP, argument parsing or environment variables belong here.
"""
