"""Array types, and the actions whose probabilities the ranker predicts."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I16 = npt.NDArray[np.int16]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
U32 = npt.NDArray[np.uint32]
Bool = npt.NDArray[np.bool_]

ACTIONS: tuple[str, ...] = ("play", "complete", "like", "dislike")
"""The actions that a ranker predicts, in the order of the columns of every `p` [N, A]."""
