"""Own data: a table of captions and folders of photos and sketches, joined by file name.

Never a fixed layout: those of published data sets are sources of their own.
"""
