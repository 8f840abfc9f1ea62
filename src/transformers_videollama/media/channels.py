"""Channels of sound: their samples in a decoded frame, and the one channel that is made of them."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .errors import import_or_explain


__all__ = ["as_float", "channel_names", "samples_of", "to_mono"]

_DTYPES = {"u8": "u1", "s16": "i2", "s32": "i4", "s64": "i8", "flt": "f4", "dbl": "f8"}  # FFmpeg's names
# ITU-R BS.775 and what FFmpeg makes of it: the sides in front at -3 dB, what is behind at -6 dB; the bass, and most of
# what is above, not at all
_FRONT, _BEHIND = math.sqrt(0.5), 0.5
_WEIGHTS = {
    "FC": 1.0,
    **dict.fromkeys(("FL", "FR", "FLC", "FRC", "TFL", "TFR"), _FRONT),
    **dict.fromkeys(("BL", "BR", "BC", "SL", "SR"), _BEHIND),
    **dict.fromkeys(("LFE", "LFE2", "WL", "WR", "TC", "TFC", "TBL", "TBC", "TBR", "TSL", "TSR"), 0.0),
    **dict.fromkeys(("BFL", "BFC", "BFR"), 0.0),
}


def samples_of(frame: Any) -> np.ndarray:
    """float32 (channels, samples), from -1 to 1, of PyAV's frame.

    Planes are taken by their number: `frame.planes` looks for the end of a list that has none from eight planes on,
    and reads what is not there.
    """
    plane_of = import_or_explain("av.audio.plane", "av").AudioPlane
    channels, dtype = frame.layout.nb_channels, np.dtype(_DTYPES[frame.format.name.removesuffix("p")])
    if frame.format.is_planar:
        planes = [np.frombuffer(plane_of(frame, i), dtype, frame.samples) for i in range(channels)]
        return as_float(np.stack(planes))
    samples = np.frombuffer(plane_of(frame, 0), dtype, frame.samples * channels)
    return as_float(samples.reshape(-1, channels).T)


def as_float(samples: np.ndarray) -> np.ndarray:
    """float32 from -1 to 1."""
    if samples.dtype.kind == "f":
        return samples.astype(np.float32)
    zero, scale = (128, 128) if samples.dtype == np.uint8 else (0, 2.0 ** (8 * samples.itemsize - 1))
    return ((samples - np.float64(zero)) / scale).astype(np.float32)


def channel_names(context: Any) -> tuple[str, ...]:
    """The names of the channels of PyAV's codec context that is not open yet, as "FL"; "NONE" if FFmpeg knows no name.

    A layout in an unusual order holds memory, which PyAV's `AudioLayout` shares with the context, and frees. So the
    context is given one that holds none, of as many channels, before it is opened. Its frames would do the same.
    """
    layout = context.layout
    names = tuple(channel.name for channel in layout.channels)
    if layout.name.startswith(f"{len(names)} channels ("):
        context.layout = f"{len(names)} channels"
    return names


def to_mono(samples: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """One channel of several: their mean for one, for two and for unknown ones, else weighed as FFmpeg does.

    Args:
        samples (`np.ndarray` of shape (channels, samples), float32)
        names (`Sequence[str]` of length channels): by `channel_names`; empty if unknown.

    Returns:
        `np.ndarray` of shape (samples,), float32: within -1 to 1 if the samples are.
    """
    weights = np.array([_WEIGHTS.get(name, math.nan) for name in names], np.float32)
    if len(set(weights.tolist())) < 2 or np.isnan(weights).any():
        return samples.mean(axis=0)
    return weights / weights.sum() @ samples
