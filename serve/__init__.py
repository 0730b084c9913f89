"""The retrieval endpoint on Ray Serve: wiring, settings, messages between deployments, problem details.
Never training or embedding jobs; routes belong to `serve.http`, replicas to `serve.deployments`.
"""
