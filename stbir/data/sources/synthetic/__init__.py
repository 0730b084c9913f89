"""A rendered data set: sketches show only the shape, texts describe only colour, material and pattern.

Never real images: those come from the other sources.
"""
