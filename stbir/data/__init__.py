"""Training samples: sources, shards, validation, the photo index, sampling and batches.

Never models, losses or Ray: those are in `model`, `training` and `ray_jobs`.
"""
