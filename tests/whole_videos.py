"""Videos decoded in the simple way, to compare with."""

from pathlib import Path

import av
import numpy as np


__all__ = ["decode_all"]


def decode_all(path: Path) -> np.ndarray:
    """Every frame from first to last: the simple way."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
