"""The stages of an embedding job on Ray: decode, encode, write, index, publish, report progress.

No command line belongs here: see `ray_jobs.jobs.embed_gallery` and `ray_jobs.jobs.gallery`.
"""
