"""The Python interface that `import stbir` offers: models, galleries and hits, for use in one process.

No algorithm belongs here: each function calls the packages below. Ray is reached by the command line only.
"""
