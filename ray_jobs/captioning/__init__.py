"""A captioning run: requests to an endpoint or to vLLM in the cluster, its Ray tasks, counts and options.
Never the prompt, nor the rules for answers: those are in `stbir.captioning`.
"""
