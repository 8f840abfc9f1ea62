"""Stands in for a module of the library's repository: media of the kinds that its tests name by URL, rendered here."""

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

import av
from PIL import Image

from examples.render_clip import render_clip


@cache
def url_to_local_path(url: str) -> str:
    """A file of the type that `url` ends in: a picture, a sound, or a clip with sound."""
    path = _folder() / url.rsplit("/", 1)[-1]
    if path.suffix in (".png", ".jpg"):
        Image.effect_mandelbrot((320, 240), (-2, -1, 1, 1), 50).convert("RGB").save(path)
    else:
        length = {"seconds": 11 / 30, "fps": 30} if path.stem.startswith("tiny") else {"seconds": 10}
        clip = render_clip(path if path.suffix == ".mp4" else _folder() / "sound.mp4", **length)
        if path.suffix != ".mp4":
            _save_sound(clip, path)
    return str(path)


@cache
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    return folder


def _save_sound(clip: Path, path: Path) -> None:
    with av.open(clip) as source, av.open(path, "w") as target:
        stream = target.add_stream({".mp3": "mp3", ".wav": "pcm_s16le"}[path.suffix], rate=44_100, layout="mono")
        for frame in source.decode(audio=0):
            target.mux(stream.encode(frame))
        target.mux(stream.encode())
