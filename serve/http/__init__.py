"""The HTTP interface: routes, request parsing, authentication, admission control, logging, the sketch pad.
Never Ray, torch or Lance: it runs on any object with the methods of `search_backend.SearchBackend`.
"""
