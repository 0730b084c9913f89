"""The retrieval endpoint: an ingress and three replicas on Ray Serve."""
