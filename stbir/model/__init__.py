"""The model: image and text encoders, fusion, hubness correction, pretrained weights, checkpoints.

Never losses, optimizers or search: those are in `training` and `gallery`.
"""
