"""Drawn objects whose shape shows only in the sketch, and whose colour and material only in the text."""
