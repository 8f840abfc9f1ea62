"""Good files of every kind, small, which are then damaged."""

import io
import wave
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from field.making import Recipe, make
from PIL import Image

from examples.render_clip import render_clip, strike_bell


__all__ = ["PICTURES", "SOUNDS", "VIDEOS"]

SMALL = {"frames": 12, "rate": 12, "size": (64, 48), "sampling_rate": 16_000}
VORBIS = {"sound": "vorbis", "sound_options": {"strict": "experimental"}, "layout": "stereo"}


def _clip(folder: Path) -> bytes:
    return render_clip(folder / "clip.mp4", seconds=1.0, size=(64, 48)).read_bytes()


def _made(folder: Path, suffix: str, video: str | None, sound: str | None = None, **options) -> bytes:
    recipe = Recipe(suffix, video, sound, **{**SMALL, **options})
    return make(recipe, folder / f"made.{suffix}").read_bytes()


def _wav(folder: Path) -> bytes:
    target = io.BytesIO()
    with wave.open(target, "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes((strike_bell(0.5, np.random.default_rng(0))[0, ::5] * 32767).astype("<i2").tobytes())
    return target.getvalue()


def _picture(folder: Path, format: str, mode: str = "RGB", **options) -> bytes:
    target = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (24, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(target, format, **options)
    return target.getvalue()


Maker = Callable[[Path], bytes]
# Kind -> what makes it. A further kind is a further line.
VIDEOS: dict[str, Maker] = {
    "mp4": _clip,
    "fragmented mp4": partial(
        _made, suffix="mp4", video="libx264", sound="aac", options={"movflags": "frag_keyframe"}
    ),
    "hevc mov": partial(_made, suffix="mov", video="libx265", video_options={"x265-params": "log-level=none"}),
    "mkv": partial(_made, suffix="mkv", video="libx264", sound="flac"),
    "webm": partial(_made, suffix="webm", video="libvpx-vp9", sound="libopus"),
    "vp8 webm": partial(_made, suffix="webm", video="libvpx", **VORBIS),
    "av1 mp4": partial(_made, suffix="mp4", video="libsvtav1", video_options={"preset": "10"}),
    "avi": partial(_made, suffix="avi", video="mjpeg", sound="pcm_s16le", pixels="yuvj420p"),
    "divx avi": partial(_made, suffix="avi", video="mpeg4", sound="libmp3lame"),
    "ts": partial(_made, suffix="ts", video="libx264", sound="aac"),
    "mpg": partial(_made, suffix="mpg", video="mpeg2video", sound="mp2", rate=25),
    "flv": partial(_made, suffix="flv", video="flv", sound="libmp3lame", sampling_rate=44_100),
    "wmv": partial(_made, suffix="wmv", video="wmv2", sound="wmav2"),
    "ogv": partial(_made, suffix="ogv", video="libvpx", **VORBIS),
    "gif": partial(_made, suffix="gif", video=None),
    "apng": partial(_made, suffix="apng", video=None),
    "webp": partial(_made, suffix="webp", video=None),
    "8 channels": partial(_made, suffix="mp4", video="libx264", sound="aac", sampling_rate=48_000, layout="7.1"),
}
SOUNDS: dict[str, Maker] = {
    "wav": _wav,
    "flac": partial(_made, suffix="flac", video=None, sound="flac"),
    "ogg": partial(_made, suffix="ogg", video=None, **VORBIS),
    "opus": partial(_made, suffix="opus", video=None, sound="libopus"),
    "mp3": partial(_made, suffix="mp3", video=None, sound="libmp3lame"),
    "aac": partial(_made, suffix="adts", video=None, sound="aac"),
}
PICTURES: dict[str, Maker] = {
    "png": partial(_picture, format="PNG"),
    "jpeg": partial(_picture, format="JPEG"),
    "still webp": partial(_picture, format="WEBP"),
    "avif": partial(_picture, format="AVIF"),
    "jpeg 2000": partial(_picture, format="JPEG2000"),
    "dds": partial(_picture, format="DDS"),
    "dxt dds": partial(_picture, format="DDS", mode="RGBA", pixel_format="DXT5"),
    "tiff": partial(_picture, format="TIFF", compression="tiff_lzw"),
    "jpeg tiff": partial(_picture, format="TIFF", compression="jpeg"),
    "bmp": partial(_picture, format="BMP"),
    "ico": partial(_picture, format="ICO"),
    "icns": partial(_picture, format="ICNS"),
    "tga": partial(_picture, format="TGA", compression="tga_rle"),
    "ppm": partial(_picture, format="PPM"),
    "qoi": partial(_picture, format="QOI"),
    "sgi": partial(_picture, format="SGI"),
    "pcx": partial(_picture, format="PCX"),
}
