"""Distributed training on Ray Train and Ray Data: ingest, workers, checkpoints, logs, profiling.

Never losses, models or the command line: those are in `stbir` and `ray_jobs/train.py`.
"""
