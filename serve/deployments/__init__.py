"""The Ray Serve deployments: the ingress, two encoders, and fusion with the gallery; batching and coalescing.
Never HTTP parsing (`serve.http`) or the choice of a release (`serve.rollout`).
"""
