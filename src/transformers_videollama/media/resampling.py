"""Sound at another sampling rate: windowed-sinc interpolation with the numbers of `torchaudio.functional.resample`."""

import functools
import math
from typing import TYPE_CHECKING

import numpy as np

from .errors import MediaError


if TYPE_CHECKING:
    import torch

__all__ = ["filter_width", "resample"]

_FILTER_ZEROS = 6  # of resampling, as _FILTER_ROLLOFF torchaudio's default
_FILTER_ROLLOFF = 0.99
_MAX_FILTER_SIZE = 1 << 24  # weights of a resampling filter; 44.1 to 16 kHz has 76,000


def filter_width(old: int, new: int) -> int:
    """Half the width of the resampling filter, in native samples."""
    return 0 if old == new else math.ceil(_FILTER_ZEROS * old / (min(old, new) * _FILTER_ROLLOFF))


@functools.lru_cache(maxsize=16)
def _resampling_filter(old: int, new: int) -> "torch.Tensor":
    """Weights of shape (new, 1, 2 * width + old): of the native samples around each of `new` samples."""
    import torch  # which takes long, and which a process that only decodes has no other use for

    width, cutoff = filter_width(old, new), min(old, new) * _FILTER_ROLLOFF
    if new * (2 * width + old) > _MAX_FILTER_SIZE:
        raise MediaError(f"cannot resample at the ratio {old}:{new}; convert it to a usual sampling rate")
    # In float32, as torchaudio has it: in float64 the result would differ by up to 2e-5.
    native = torch.arange(-width, width + old, dtype=torch.float32, device="cpu") / old
    wanted = torch.arange(new, dtype=torch.float32, device="cpu")[:, None] / new
    times = ((native - wanted) * cutoff).clamp(-_FILTER_ZEROS, _FILTER_ZEROS)
    hann = torch.cos(times * math.pi / _FILTER_ZEROS / 2) ** 2
    return (torch.sinc(times) * hann * (cutoff / old))[:, None]


def resample(samples: np.ndarray, old: int, new: int) -> np.ndarray:
    """Windowed-sinc resampling of (channels, samples), the same numbers as `torchaudio.functional.resample`.

    Not torchaudio itself: its wheels are tied to one torch build each, and numbers would depend on what is installed.
    """
    if old == new:
        return samples
    import torch

    width = filter_width(old, new)
    padded = torch.nn.functional.pad(torch.from_numpy(np.ascontiguousarray(samples)), (width, width + old))
    resampled = torch.nn.functional.conv1d(padded[:, None], _resampling_filter(old, new), stride=old)
    return resampled.transpose(1, 2).flatten(1)[:, : math.ceil(new * samples.shape[1] / old)].numpy()
