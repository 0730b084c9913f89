"""Captions by a vision-language model: prompt, answers and their checks, estimate, agreement, review sheet.
Never the calls to a model: those are in `ray_jobs.captioning`.
"""
