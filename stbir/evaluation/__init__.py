"""Evaluation: retrieval metrics, robustness, comparison of recipes, and the pages that report them.

Never training, and never embedding beyond a call of `stbir.embedding`.
"""
