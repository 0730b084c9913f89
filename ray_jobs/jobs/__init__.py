"""The orchestration of each command, imported after its arguments are parsed.

Never command lines (`ray_jobs/NAME.py`), and nothing that two commands share.
"""
