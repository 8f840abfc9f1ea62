"""Renders a short clip to try things on: a coloured ball that swings over a plain ground, and a bell.

python examples/render_clip.py OUT.mp4
"""

import argparse
import colorsys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np


SAMPLING_RATE = 44_100


def draw_frames(num_frames: int, fps: int, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """(num_frames, height, width, 3) uint8: a ball of one colour that swings from side to side every four seconds."""
    width, height = size
    hue = rng.uniform()
    ball, ground = (np.multiply(colorsys.hsv_to_rgb(*hsv), 255) for hsv in ((hue, 0.9, 0.9), (hue + 0.5, 0.3, 0.5)))
    seconds = np.arange(num_frames)[:, None, None] / fps
    x = width * (0.5 - 0.35 * np.cos(np.pi / 2 * seconds))
    y = height * rng.uniform(0.35, 0.65)
    rows, columns = np.mgrid[:height, :width]
    inside = np.hypot(columns - x, rows - y) < 0.2 * min(size)
    return np.where(inside[..., None], ball, ground).astype(np.uint8)


def strike_bell(seconds: float, rng: np.random.Generator) -> np.ndarray:
    """(1, samples) float32 at 44.1 kHz: a bell, struck once a second."""
    time = np.arange(round(seconds * SAMPLING_RATE)) / SAMPLING_RATE
    since_strike = time % 1.0
    pitch = rng.uniform(300, 600)
    partials = [
        loudness * np.sin(2 * np.pi * pitch * ratio * since_strike)
        for ratio, loudness in ((1, 0.4), (2.4, 0.2), (3, 0.1))
    ]
    return (sum(partials) * np.exp(-4 * since_strike))[None].astype(np.float32)


def render_clip(
    path: str | Path,
    *,
    seconds: float = 3.0,
    fps: int = 25,
    size: tuple[int, int] = (320, 240),
    sound: bool = True,
    seed: int = 0,
    keyframe_interval: int = 25,
    index_first: bool = False,
) -> Path:
    """Render `seconds` of video of `size` (width, height), H.264 and AAC in MP4; the same `seed` gives the same clip.

    A key frame stands every `keyframe_interval` frames; `index_first` puts the index before the data (faststart).
    """
    rng = np.random.default_rng(seed)
    with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"} if index_first else {}) as container:
        video = container.add_stream("h264", rate=fps, options={"g": str(keyframe_interval)})
        video.width, video.height = size
        video.pix_fmt = "yuv444p" if size[0] % 2 or size[1] % 2 else "yuv420p"
        # Without noise substitution the decoder gives the same samples wherever it starts.
        audio = (
            container.add_stream("aac", rate=SAMPLING_RATE, layout="mono", options={"aac_pns": "0"}) if sound else None
        )
        for number, pixels in enumerate(draw_frames(max(1, round(seconds * fps)), fps, size, rng)):
            picture = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            picture.pts, picture.time_base = number, Fraction(1, fps)
            container.mux(video.encode(picture))
        container.mux(video.encode())
        if audio is not None:
            piece = av.AudioFrame.from_ndarray(strike_bell(seconds, rng), format="fltp", layout="mono")
            piece.sample_rate = SAMPLING_RATE
            container.mux(audio.encode(piece))
            container.mux(audio.encode())
    return Path(path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", metavar="OUT.mp4", help="the file to write")
    parser.add_argument("--seconds", type=float, default=3.0, help="length (default: %(default)s)")
    parser.add_argument("--silent", action="store_true", help="without a sound stream")
    parser.add_argument("--seed", type=int, default=0, help="another colour, height and pitch (default: %(default)s)")
    arguments = parser.parse_args()
    render_clip(arguments.path, seconds=arguments.seconds, sound=not arguments.silent, seed=arguments.seed)
