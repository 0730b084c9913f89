"""Random noise and corruption of sketches, photos and captions, for training and robustness tests.
Never decides when to apply them: the curriculum is in `training`, the severities in `evaluation`.
"""
