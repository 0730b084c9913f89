"""The version of the client, which its package and its requests carry."""

__version__ = "0.1.0"
