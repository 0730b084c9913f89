"""Training: losses, negatives, stages, gradients, the loop.

Never Ray, files or the saving of checkpoints: those are in `ray_jobs.training`.
"""
