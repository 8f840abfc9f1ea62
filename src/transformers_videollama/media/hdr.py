"""High dynamic range (BT.2100: PQ and HLG) -> 8-bit RGB of BT.709."""

import numpy as np


__all__ = ["HDR_TRANSFERS", "standard_range"]

PQ, HLG = 16, 18  # transfer characteristics as H.273 numbers them, and FFmpeg
HDR_TRANSFERS = (PQ, HLG)
PEAK = 1000.0  # cd/m2: what HLG assumes and most of what is graded in PQ; brighter light is cut off
WHITE = 203.0  # cd/m2 that become white: the reference white of BT.2408
DISPLAY_GAMMA = 2.4  # BT.1886
BAND = 1 << 19  # pixels at a time
# Linear RGB of other primaries (H.273) -> of BT.709. Those of HDR are BT.2020's where nothing is said
FROM_BT2020 = ((1.6605, -0.5876, -0.0728), (-0.1246, 1.1329, -0.0083), (-0.0182, -0.1006, 1.1187))
FROM_P3 = ((1.2249, -0.2249, 0.0), (-0.0421, 1.0421, 0.0), (-0.0196, -0.0786, 1.0983))
TO_BT709 = {1: np.eye(3), 12: FROM_P3}
LUMINANCE = np.array((0.2627, 0.6780, 0.0593), np.float32)  # of BT.2020


def standard_range(pixels: np.ndarray, transfer: int, primaries: int) -> np.ndarray:
    """
    Tone-map as BT.2390 (EETF): up to half of the range of PQ light is kept, and brighter light is compressed.

    Args:
        pixels (`np.ndarray` of shape `(height, width, 3)`, uint16): Full-range R'G'B'.
        transfer (`int`): One of `HDR_TRANSFERS`.
        primaries (`int`): Of H.273.

    Returns:
        `np.ndarray` of shape `(height, width, 3)`, uint8.
    """
    matrix = np.asarray(TO_BT709.get(primaries, FROM_BT2020), np.float32)
    light_of = _light_of_pq if transfer == PQ else _light_of_hlg
    result = np.empty(pixels.shape, np.uint8)
    rows = max(BAND // pixels.shape[1], 1)
    for top in range(0, len(pixels), rows):
        light = light_of(pixels[top : top + rows].astype(np.float32) / 65535)
        brightest = light.max(-1, keepdims=True)  # one gain for the three keeps the hue
        light *= _compress(brightest) / np.maximum(brightest, 1e-6) / WHITE
        shown = (light @ matrix.T).clip(0, 1) ** np.float32(1 / DISPLAY_GAMMA)
        result[top : top + rows] = (shown * 255).round()
    return result


def _compress(light: np.ndarray) -> np.ndarray:
    """Light of up to `PEAK` -> of up to `WHITE`, by a curve in the domain of PQ (BT.2390-10, 5.4.1)."""
    peak, white = _pq(np.array((PEAK, WHITE), np.float32))
    signal, top = (_pq(light) / peak).clip(0, 1), white / peak
    knee = 1.5 * top - 0.5
    t = (signal - knee) / (1 - knee)
    bent = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (3 * t**2 - 2 * t**3) * top
    return _light_of_pq(np.where(signal < knee, signal, bent) * peak)


M1, M2 = 2610 / 16384, 2523 / 32  # constants of PQ
C1, C2, C3 = 3424 / 4096, 2413 / 128, 2392 / 128


def _light_of_pq(signal: np.ndarray) -> np.ndarray:
    """Signal from 0 to 1 -> cd/m2 from 0 to 10,000."""
    power = signal ** (1 / M2)
    return 10_000 * ((power - C1).clip(0) / (C2 - C3 * power)) ** (1 / M1)


def _pq(light: np.ndarray) -> np.ndarray:
    power = (light / 10_000) ** M1
    return ((C1 + C2 * power) / (1 + C3 * power)) ** M2


def _light_of_hlg(signal: np.ndarray) -> np.ndarray:
    """Signal from 0 to 1 -> cd/m2 of a display of `PEAK`, whose gamma is 1.2."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    return PEAK * scene * (scene @ LUMINANCE)[..., None] ** 0.2
