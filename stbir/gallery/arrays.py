"""The arrays that pass between the parts of retrieval; apart, so that a gallery is opened without torch."""

import numpy as np
from numpy.typing import NDArray

Features = NDArray[np.float32]  # (N, D)
Index = NDArray[np.int64]
