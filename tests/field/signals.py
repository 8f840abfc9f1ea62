"""Frames that carry their number, and sound that carries its time: how they are drawn, and how they are read.

A frame has the bits of its number as ten bars across the middle, patches of colour below, and a mark in each corner:
red, green, blue and white, from top left to bottom right. Sound is a chirp, whose pitch says which second plays.
"""

import numpy as np
import torch

from transformers_videollama.media.spectrograms import log_mel_spectrogram


__all__ = ["chirp", "corners_of", "draw", "is_silent", "number_of", "second_of_mel", "second_of_samples"]

BITS = 10
DARK, BRIGHT = 16, 235
CORNERS = {"R": (220, 20, 20), "G": (20, 220, 20), "B": (20, 20, 220), "W": (235, 235, 235)}
PATCHES = ((192, 32, 64), (32, 160, 48), (48, 64, 192), (208, 192, 32), (32, 176, 176), (144, 112, 96))
GROUND = 128
# Top and bottom, as parts of the height
BARS, PATCH_ROW = (0.36, 0.62), (0.66, 0.76)
CORNER = (0.22, 0.16)  # height and width of a mark

FIRST_HZ, HZ_PER_SECOND = 300.0, 100.0
LOUDNESS = 0.4
SILENCE = 0.01  # root mean square below which nothing plays; the chirp has 0.28
LISTENED = 0.25  # seconds from which the second is told


def draw(number: int, size: tuple[int, int] = (160, 120)) -> np.ndarray:
    """The frame `number` (below 1024) of `size` (width, height): uint8 RGB of shape (height, width, 3)."""
    width, height = size
    pixels = np.full((height, width, 3), GROUND, np.uint8)
    for bit in range(BITS):
        pixels[_rows(BARS, height), _columns(bit, BITS, width)] = BRIGHT if number >> (BITS - 1 - bit) & 1 else DARK
    for place, colour in enumerate(PATCHES):
        pixels[_rows(PATCH_ROW, height), _columns(place, len(PATCHES), width)] = colour
    tall, wide = round(CORNER[0] * height), round(CORNER[1] * width)
    for colour, (rows, columns) in zip(CORNERS.values(), _corners(tall, wide), strict=True):
        pixels[rows, columns] = colour
    return pixels


def number_of(pixels: np.ndarray) -> int:
    """
    The number that an upright frame carries.

    Raises:
        ValueError: if a bar is neither dark nor bright, as in a frame that is damaged or blended with another.
    """
    height, width = pixels.shape[:2]
    inner = (BARS[0] + (BARS[1] - BARS[0]) * 0.25, BARS[0] + (BARS[1] - BARS[0]) * 0.75)
    number = 0
    for bit in range(BITS):
        light = float(pixels[_rows(inner, height), _columns(bit, BITS, width, inset=0.25)].mean())
        if DARK + 70 < light < BRIGHT - 70:
            raise ValueError(f"bar {bit} of the frame has a lightness of {light:.0f}, expected {DARK} or {BRIGHT}")
        number = number * 2 + (light > GROUND)
    return number


def corners_of(pixels: np.ndarray) -> str:
    """The marks from top left to bottom right: "RGBW" for a frame that is upright, "GRWB" for a mirrored one."""
    height, width = pixels.shape[:2]
    tall, wide = round(CORNER[0] / 2 * min(height, width)), round(CORNER[1] / 2 * min(height, width))
    found = ""
    for rows, columns in _corners(tall, wide):
        mean = pixels[rows, columns].reshape(-1, 3).mean(axis=0)
        found += min(CORNERS, key=lambda name: np.abs(mean - CORNERS[name]).sum())
    return found


def chirp(seconds: float, rate: int, first: float = 0.0) -> np.ndarray:
    """
    Sound whose pitch at second t is 300 + 100 t Hz.

    Args:
        seconds (`float`): Length.
        rate (`int`): Hz.
        first (`float`): The second that plays first.

    Returns:
        `np.ndarray` of shape `(round(seconds * rate),)`, float32.
    """
    time = first + np.arange(round(seconds * rate)) / rate
    return (LOUDNESS * np.sin(2 * np.pi * (FIRST_HZ * time + HZ_PER_SECOND / 2 * time**2))).astype(np.float32)


def second_of_samples(samples: np.ndarray, rate: int) -> float:
    """
    The second of a chirp that plays at the beginning of `samples`, of shape (samples,) with a quarter of a second or
    more; right within 2 ms, after lossy coding, too.

    Raises:
        ValueError: for silence, or what is no chirp.
    """
    heard = samples[: round(LISTENED * rate)].astype(np.float64)
    time = np.arange(len(heard)) / rate
    # A chirp that is turned back by its own slope is a tone, of the pitch at the beginning
    tone = heard * np.hanning(len(heard)) * np.exp(-1j * np.pi * HZ_PER_SECOND * time**2)
    size = 1 << 18
    power = np.abs(np.fft.fft(tone, size)[: size // 8]) ** 2
    peak = int(power[1:-1].argmax()) + 1
    near = round(12 / LISTENED * size / rate / 2)
    if is_silent(heard) or power[max(0, peak - near) : peak + near].sum() < 0.5 * power.sum():
        raise ValueError("expected a chirp, got silence or another sound")
    before, at, after = np.log(power[peak - 1 : peak + 2])
    between = 0.5 * (before - after) / (before - 2 * at + after)
    return float(((peak + between) * rate / size - FIRST_HZ) / HZ_PER_SECOND)


def second_of_mel(features: np.ndarray | torch.Tensor) -> float:
    """
    The second of a chirp that plays at the beginning of a log-mel spectrogram of 128 bins from 16 kHz, of shape
    (128, windows) and not normalised; right within 50 ms.
    """
    windows = 10
    heard = torch.as_tensor(features)[:, :windows].float()
    seconds = torch.arange(-0.2, 20.0, 0.01)
    rate = 16_000
    whole = log_mel_spectrogram(torch.from_numpy(chirp(20.5, rate, first=-0.2)), rate, len(heard))
    candidates = whole.unfold(1, windows, 1)[:, : len(seconds)].transpose(0, 1)
    # What is much softer than the pitch is the coder's noise
    heard, candidates = (x.clamp(min=float(x.max()) - 4) - x.amax() for x in (heard, candidates))
    distances = (candidates - heard).abs().mean(dim=(1, 2))
    return float(seconds[distances.argmin()])


def is_silent(samples: np.ndarray) -> bool:
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))) < SILENCE


def _rows(parts: tuple[float, float], height: int) -> slice:
    return slice(round(parts[0] * height), round(parts[1] * height))


def _columns(place: int, places: int, width: int, inset: float = 0.0) -> slice:
    return slice(round((place + inset) * width / places), round((place + 1 - inset) * width / places))


def _corners(tall: int, wide: int) -> list[tuple[slice, slice]]:
    top, bottom, left, right = slice(0, tall), slice(-tall, None), slice(0, wide), slice(-wide, None)
    return [(top, left), (top, right), (bottom, left), (bottom, right)]
