"""Opens files, addresses, bytes and arrays and says what is in them: pixels, times, sound.

PyAV decodes videos and sound, Pillow images. A cut or damaged file or a missing stream is a `MediaError`: never fewer
frames or silence.

Limits: damage that a codec conceals without saying so is not seen.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from .containers import is_cover_art, open_container
from .errors import MediaError, about
from .frames import VideoFile
from .images import ARRAYS, image_of, is_still, load_image, rgb_pixels
from .options import check_options
from .sampling import Sampling, sample_indices
from .sound import Sound
from .sources import is_folder, local_file


__all__ = ["Video", "check_frame_count", "load_video", "media_kind"]

_IMAGE_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}


@dataclass(frozen=True, eq=False)
class Video:
    """Decoded frames of a video and what is known about the rest of it.

    Attributes:
        frames (`np.ndarray` of shape (T, height, width, 3), uint8): RGB.
        indices (`tuple[int]` of length T): which frames of the video they are.
        timestamps (`tuple[float]` of length T, or `None`): seconds, `index / fps` as in the original and not the
            container's own; `None` if no frame rate is known.
        fps (`float` or `None`): frames per second of the video.
        total_num_frames (`int`): length of the video.
        sound (`Sound` or `None`): of the same span; `None` exactly when the container has no sound stream.
        name (`str`): its name in messages.
    """

    frames: np.ndarray
    indices: tuple[int, ...]
    timestamps: tuple[float, ...] | None
    fps: float | None
    total_num_frames: int
    sound: Sound | None
    name: str

    def __post_init__(self):
        frames, times = self.frames, self.indices if self.timestamps is None else self.timestamps
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or not frames.size:
            raise MediaError(f"{self.name}: got frames {frames.dtype} {frames.shape}, expected uint8 (T, H, W, 3)")
        if not len(frames) == len(self.indices) == len(times):
            raise MediaError(f"{self.name}: {len(frames)} frames, {len(self.indices)} indices, {len(times)} times")
        if (self.fps is None) != (self.timestamps is None):
            raise MediaError(f"{self.name}: got fps={self.fps} with timestamps={self.timestamps}")
        if not 0 <= min(self.indices) <= max(self.indices) < self.total_num_frames:
            raise MediaError(f"{self.name}: got indices {self.indices} of {self.total_num_frames} frames")

    def __repr__(self) -> str:
        return (
            f"Video(name={self.name!r}, frames={self.frames.shape}, indices={self.indices}, fps={self.fps}, "
            f"total_num_frames={self.total_num_frames}, sound={self.sound})"
        )


def load_video(
    source: Any,
    *,
    num_frames: int | None = None,
    fps: float | None = None,
    sampling: Sampling = "uniform",
    start: float | None = None,
    end: float | None = None,
    size: tuple[int, int] | None = None,
    video_fps: float | None = None,
    max_frames: int | None = None,
    generator: np.random.Generator | int | None = None,
    timeout: float | None = None,
) -> Video:
    """Load the chosen frames of a video; its sound, if it has any, is decoded later, by `Sound.read`.

    Args:
        source: a path, http(s) URL, `file:` or base64 `data:` URI or bytes of a video, an animated GIF or an image (a
            video of one frame); a folder of frame files, in natural order, or a list of images; an array or tensor of
            shape (T, H, W, C) or (T, C, H, W), uint8 or float in 0..1; a `Video`, which is returned as it is.
        num_frames, fps, sampling, start, end, generator: see `sample_indices`; the span holds for the sound, too.
        size (`tuple[int, int]`, *optional*): (height, width) that frames are scaled to: while decoding, as in the
            original, or bilinearly with antialiasing if they come decoded. Without it they keep their size.
        video_fps (`float`, *optional*): frame rate of frames that come decoded; a file has its own.
        max_frames (`int`, *optional*): frames that are taken at most; more are an error, before one is decoded.
        timeout (`float`, *optional*): seconds for a download; `media.sources.DOWNLOAD_TIMEOUT`, 60, by default.

    Raises:
        MediaError: the source, or a wanted frame of it, cannot be read.
        ValueError: an option has a value that it cannot have, or more than `max_frames` frames are asked for.
    """
    if isinstance(source, Video):
        return source
    given = {"num_frames": num_frames, "fps": fps, "sampling": sampling, "start": start, "end": end}
    num_frames, fps, sampling, start, end, video_fps = check_options({**given, "video_fps": video_fps}).values()
    if size is not None and not (len(size) == 2 and min(size) >= 1):
        raise ValueError(f"got size={size}, expected (height, width)")
    reader = _frame_reader(source, size, video_fps, timeout)
    rate, total = reader.fps, reader.total
    with about(reader.name):
        if video_fps is not None and (rate is None or abs(rate - video_fps) > 0.01 * rate):
            raise MediaError(f"has {rate} frames per second, got video_fps={video_fps}; leave it out for files")
        indices = sample_indices(
            total,
            num_frames,
            video_fps=rate,
            fps=fps,
            sampling=sampling,
            start=start,
            end=end,
            generator=generator,
        )
        check_frame_count(reader.name, len(indices), max_frames)
        frames = reader.read(indices)
    timestamps = None if rate is None else tuple(index / rate for index in indices)
    sound = reader.sound and reader.sound.cut(start, end)
    return Video(frames, tuple(indices), timestamps, rate, total, sound, reader.name)


def check_frame_count(name: str, count: int, most: int | None) -> None:
    """A `ValueError` for more frames than the model takes; `None` is any number."""
    if most is not None and count > most:
        raise ValueError(
            f"{name}: {count} frames are asked for, but the model takes at most {most}; ask for fewer, "
            "with num_frames, a lower fps, or start and end"
        )


def _frame_reader(
    source: Any, size: tuple[int, int] | None, fps: float | None, timeout: float | None
) -> "_DecodedFrames | VideoFile":
    if isinstance(source, Image.Image):
        source = [source]
    if isinstance(source, ARRAYS) and source.ndim != 4:
        raise MediaError(f"got an array of shape {tuple(source.shape)}, expected (T, H, W, C) or (T, C, H, W)")
    if isinstance(source, (list, tuple, *ARRAYS)):
        return _DecodedFrames(source, f"{type(source).__name__} of {len(source)} frames", size, fps, timeout)
    if is_folder(source):
        return _DecodedFrames(_frame_files(Path(source)), os.fspath(source), size, fps, timeout)
    file = local_file(source, timeout)
    if is_still(file):
        return _DecodedFrames([image_of(file)], file.name, size, fps, timeout)
    with about(file.name):
        return VideoFile(file, size)


def _frame_files(folder: Path) -> list[Path]:
    """The images of a folder, 'frame 2' before 'frame 10'."""

    def natural(path: Path) -> list:
        return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", path.name)]

    files = sorted((path for path in folder.iterdir() if path.suffix.lower() in _IMAGE_SUFFIXES), key=natural)
    if not files:
        raise MediaError(f"{folder}: is a folder without frames ({', '.join(sorted(_IMAGE_SUFFIXES))})")
    return files


class _DecodedFrames:
    """Frames that come one by one; only those that are read are opened."""

    sound = None

    def __init__(self, source: Any, name: str, size: tuple[int, int] | None, fps: float | None, timeout: float | None):
        self.source, self.name, self.size, self.fps, self.timeout = source, name, size, fps, timeout
        self.total = len(source)

    def read(self, indices: Sequence[int]) -> np.ndarray:
        if isinstance(self.source, ARRAYS):
            frames = [Image.fromarray(frame) for frame in rgb_pixels(self.source[indices])]
        else:
            frames = [self._load(index) for index in indices]
        if self.size is not None:
            frames = [frame.resize(self.size[::-1], Image.Resampling.BILINEAR) for frame in frames]
        if len(sizes := {frame.size for frame in frames}) > 1:
            raise MediaError(f"frames differ in size, (width, height) {sorted(sizes)[:3]}; pass size")
        return np.stack([np.asarray(frame) for frame in frames])

    def _load(self, index: int) -> Image.Image:
        with about(f"frame {index}"):
            return load_image(self.source[index], timeout=self.timeout)


def media_kind(source: Any, *, timeout: float | None = None) -> Literal["image", "video", "audio"]:
    """Say what a path, URL or bytes hold, by the content: an animated image is a video, a song with cover art audio.

    A folder is a video of frames.

    Raises:
        MediaError: none of these, or unreadable.
    """
    if is_folder(source):
        return "video"
    file = local_file(source, timeout)
    if is_still(file):
        return "image"
    with about(file.name), open_container(file) as container:
        if any(stream.type == "video" and not is_cover_art(stream) for stream in container.streams):
            return "video"
        if container.streams.audio:
            return "audio"
        raise MediaError("holds no image, video or sound")
