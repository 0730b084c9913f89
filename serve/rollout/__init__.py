"""Releases: resolve a checkpoint and a gallery version, load them, switch to them without downtime.
Never the answering of requests (`serve.deployments`).
"""
