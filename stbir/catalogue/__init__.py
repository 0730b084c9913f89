"""Catalogues: photos to embed, wherever they lie."""
