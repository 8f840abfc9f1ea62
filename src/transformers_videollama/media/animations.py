"""Animated WebP as a video. FFmpeg cannot decode it, Pillow can; a frame's header says how long it is shown."""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

from .errors import MediaError, about
from .images import open_picture, picture_errors, rgb_image
from .sources import MediaFile


__all__ = ["Animation", "is_animated_webp"]

SHORTEST = 0.011  # seconds; what claims to be shown for less is shown for `USUAL`, as in browsers
USUAL = 0.1


class Animation:
    """
    The frames of an animated WebP file, of one turn of its loop.

    Args:
        file ([`MediaFile`])
        size (`tuple[int, int]`, *optional*): (height, width) that frames are scaled to; by default they keep theirs.

    Attributes:
        total (`int`): How many frames there are.
        times (`list[float]`): When each is shown, in seconds from the first, and when the last one ends.
        fps (`float`): Frames per second, on average.
        sound (`None`)

    Raises:
        MediaError: for a file without frames.
    """

    sound = None

    def __init__(self, file: MediaFile, size: tuple[int, int] | None):
        self.file, self.name, self.size = file, file.name, size
        delays = [delay if delay >= SHORTEST else USUAL for delay in _delays(file)]
        if not delays:
            raise MediaError("is an animation without frames")
        self.times = list(itertools.accumulate(delays, initial=0.0))
        self.total, self.fps = len(delays), len(delays) / self.times[-1]

    def read(self, indices: Sequence[int]) -> dict[int, np.ndarray]:
        """
        Args:
            indices (`Sequence[int]`): of frames, in the order in which they are shown.

        Returns:
            `dict`: index -> pixels (height, width, 3), uint8: over white where they are transparent.

        Raises:
            MediaError: if one of them cannot be decoded.
        """
        frames = {}
        wanted = sorted(set(indices))
        with open_picture(self.file) as image:
            self.file.access.take_bytes(len(wanted), *(self.size or (image.height, image.width)))
            for index in wanted:
                with about(f"frame {index}"):
                    with picture_errors():
                        image.seek(index)
                    frame = rgb_image(image)
                if self.size is not None:
                    frame = frame.resize(self.size[::-1], Image.Resampling.BILINEAR)
                frames[index] = np.asarray(frame)
        return frames


def is_animated_webp(file: MediaFile) -> bool:
    with about(file.name):
        return any(name == b"ANMF" for name, _ in _chunks(file))


def _delays(file: MediaFile) -> list[float]:
    """Seconds that each frame is shown for."""
    return [int.from_bytes(head[12:15], "little") / 1000 for name, head in _chunks(file) if name == b"ANMF"]


def _chunks(file: MediaFile) -> Iterator[tuple[bytes, bytes]]:
    """The chunks of a WebP file: names, and the first 16 bytes of what they hold."""
    with file.reader() as opened:
        head = opened.read(12)
        if head[:4] != b"RIFF" or head[8:] != b"WEBP":
            return
        while len(start := opened.read(8)) == 8:
            length = int.from_bytes(start[4:], "little")
            place = opened.tell()
            yield start[:4], opened.read(min(length, 16))
            opened.seek(place + length + length % 2)
