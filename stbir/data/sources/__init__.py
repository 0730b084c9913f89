"""Sources: each lists the photos of one data set layout and reads one image at a time.

Never validation or Parquet: those are in `stbir.data`.
"""
