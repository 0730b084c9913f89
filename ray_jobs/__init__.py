"""The commands, one module each, and `cli`; their code is in `jobs` and the other subpackages.

Never algorithms: those are in `stbir`. Never HTTP: that is in `serve`.
"""
