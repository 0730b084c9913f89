"""Array types of the gallery. This module does not import torch, so a gallery opens without it."""

import numpy as np
from numpy.typing import NDArray

Features = NDArray[np.float32]  # (N, D)
Indices = NDArray[np.int64]  # row numbers
Mask = NDArray[np.bool_]  # (N,), of rows
