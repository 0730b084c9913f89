"""The Ray cluster of a job: connection, placement, preflight checks, Prometheus metrics.

Never a job: what it needs comes in as arguments.
"""
