"""Opens files, addresses, bytes and arrays and says what is in them: pixels, times, sound.

PyAV decodes videos and sound, Pillow images. A cut or damaged file or a missing stream is a `MediaError`: never fewer
frames or silence. With `media_files`, `media_frames` and `media_sound` this is all of the package that decodes.

Limits: damage that a codec conceals without saying so is not seen.
"""

import contextlib
import math
import os
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image

from .media_files import (
    ARRAYS,
    MediaError,
    MediaFile,
    about,
    as_numpy,
    is_cover_art,
    is_folder,
    local_file,
    open_container,
    span_within,
)
from .media_frames import MAX_FRAME_BYTES, VideoFile
from .media_sound import Sound, load_sound


__all__ = [
    "DEFAULT_NUM_FRAMES",
    "MAX_FRAME_BYTES",
    "MediaError",
    "Sampling",
    "Sound",
    "Video",
    "load_image",
    "load_sound",
    "load_video",
    "media_kind",
    "sample_indices",
]

Sampling = Literal["uniform", "headtail"]

DEFAULT_NUM_FRAMES = 8

_IMAGE_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
_ANIMATED_FORMATS = {"AVIF", "GIF", "PNG", "WEBP"}  # not MPO and TIFF, which hold several stills
_IMAGE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)


def sample_indices(
    total_num_frames: int,
    num_frames: int | None = None,
    *,
    video_fps: float | None = None,
    fps: float | None = None,
    sampling: Sampling = "uniform",
    start: float | None = None,
    end: float | None = None,
    generator: np.random.Generator | int | None = None,
) -> list[int]:
    """Choose the frames of a video: a pure function of its length, without I/O.

    Args:
        total_num_frames (`int`): length of the video.
        num_frames (`int`, defaults to 8 where `fps` is not given): frames wanted; a shorter video gives all it has.
        video_fps (`float`, *optional*): frames per second of the video; `fps`, `start` and `end` need it.
        fps (`float`, *optional*): take a frame every `1 / fps` seconds instead of `num_frames` frames; above
            `video_fps`, every frame once.
        sampling (`"uniform"` or `"headtail"`): evenly spread from the first frame on, as the original does for
            inference, or drawn at random, half from each half of the video (the odd one from the second), as it does
            for training.
        start, end (`float` seconds, *optional*): only frames at `start <= time < end`; an `end` behind the video is
            its end.
        generator (`np.random.Generator` or seed, *optional*): of "headtail". `None` is seed 0, the same frames on
            every call: training passes a generator.

    Returns:
        `list[int]`: ascending frame numbers, each once.

    Raises:
        ValueError: options that contradict each other.
        MediaError: a span without frames, or a frame rate is needed and unknown.
    """
    if fps is not None and (num_frames is not None or sampling != "uniform"):
        raise ValueError(f"got fps={fps} with num_frames={num_frames}, sampling={sampling!r}; fps stands alone")
    if sampling not in ("uniform", "headtail"):
        raise ValueError(f"got sampling={sampling!r}, expected 'uniform' or 'headtail'")
    for option, value in {"num_frames": num_frames, "fps": fps, "video_fps": video_fps}.items():
        if value is not None and not 0 < value < math.inf:
            raise ValueError(f"got {option}={value}, expected a positive number")
    first, stop = _frames_between(total_num_frames, video_fps, start, end)
    span = stop - first
    if fps is not None:
        if video_fps is None:
            raise MediaError(f"fps={fps} needs the frame rate of the video, which is unknown; pass video_fps")
        step = max(video_fps / fps, 1.0)
        count = math.ceil(span / step - 1e-9)
    else:
        count = min(DEFAULT_NUM_FRAMES if num_frames is None else num_frames, span)
        step = span / count
    if sampling == "uniform":
        # The float step of the original's floor(arange(0, total, total / n)), whose rounding an integer step misses;
        # not arange itself, which gives n + 1 entries for some n.
        return [first + int(i * step) for i in range(count)]
    rng = np.random.default_rng(0 if generator is None else generator)
    head, from_head = span // 2, count // 2
    picks = [*rng.choice(head, from_head, replace=False)]
    picks += [*(head + rng.choice(span - head, count - from_head, replace=False))]
    return sorted(first + int(pick) for pick in picks)


def _frames_between(total: int, fps: float | None, start: float | None, end: float | None) -> tuple[int, int]:
    """The frames `[first, stop)` of a span in seconds."""
    if total < 1:
        raise MediaError(f"got a video of {total} frames, expected at least 1")
    if start is None and end is None:
        return 0, total
    if fps is None:
        raise MediaError("start and end need the frame rate of the video, which is unknown; pass video_fps")
    start, end = span_within(start, end, total / fps)
    first, stop = (min(math.ceil(seconds * fps - 1e-6), total) for seconds in (start, end))
    if first >= stop:
        raise MediaError(f"no frame lies between {start} and {end} s; frames are {1 / fps:.3f} s apart")
    return first, stop


@dataclass(frozen=True, eq=False)
class Video:
    """Decoded frames of a video and what is known about the rest of it.

    Attributes:
        frames (`np.ndarray` of shape (T, height, width, 3), uint8): RGB.
        indices (`tuple[int]` of length T): which frames of the video they are.
        timestamps (`tuple[float]` of length T, or `None`): seconds, `index / fps` as in the original and not the
            container's own; `None` where no frame rate is known.
        fps (`float` or `None`): frames per second of the video.
        total_num_frames (`int`): length of the video.
        sound (`Sound` or `None`): of the same span; `None` exactly when the container has no sound stream.
        name (`str`): what messages call it.
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


def load_image(source: Any, *, timeout: float | None = None) -> Image.Image:
    """Load one image as 8-bit RGB.

    Args:
        source: a path, http(s) URL, `file:` or base64 `data:` URI, bytes, a PIL image, or an array or tensor of shape
            (H, W), (H, W, C) or (C, H, W) with 1, 3 or 4 channels, uint8 or float in 0..1.
        timeout (`float`, *optional*): seconds for a download; `media_files.DOWNLOAD_TIMEOUT`, 60, by default.

    Returns:
        `PIL.Image.Image`: a new image. Alpha is dropped and the EXIF orientation not applied, as in the original;
        16-bit grey is scaled to 8 bits.

    Raises:
        MediaError: no image, a damaged one, or one beyond Pillow's limit (178 million pixels).
    """
    if isinstance(source, ARRAYS):
        return Image.fromarray(_pixels(source[None])[0])
    if isinstance(source, Image.Image):
        with about("image"), _image_errors():
            return _rgb(source)
    return _image_of(local_file(source, timeout))


def _image_of(file: MediaFile) -> Image.Image:
    with about(file.name), _image_errors(), Image.open(file.path) as image:
        return _rgb(image)


@contextlib.contextmanager
def _image_errors() -> Iterator[None]:
    try:
        yield
    except MediaError:
        raise
    except _IMAGE_ERRORS as error:
        raise MediaError(f"cannot be read as an image: {error}") from error


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey, which convert("RGB") would clip at 255
        image = Image.fromarray((np.asarray(image).clip(0, 65535) / 257).round().astype(np.uint8))
    if image.mode == "F":
        return Image.fromarray(_pixels(np.asarray(image)[None])[0])
    return image.convert("RGB")


def _pixels(array: np.ndarray | torch.Tensor) -> np.ndarray:
    """uint8 RGB of shape (N, H, W, 3) of N images; grey ones may lack the channel axis."""
    axes = (-3, -1) if isinstance(array, torch.Tensor) else (-1, -3)  # the more usual place of channels first
    pixels = as_numpy(array)
    got = f"got {pixels.dtype} images of shape {pixels.shape[1:]}"
    pixels = pixels[..., None] if pixels.ndim == 3 else pixels
    found = [axis for size in (3, 4, 1) for axis in axes if pixels.ndim == 4 and pixels.shape[axis] == size]
    if not found or not pixels.size:
        raise MediaError(f"{got}, expected (H, W), (H, W, C) or (C, H, W) with 1, 3 or 4 channels")
    pixels = np.moveaxis(pixels, found[0], -1)
    if pixels.dtype.kind == "f" and pixels.min() > -1e-3 and pixels.max() < 1.001:  # false for NaN
        pixels = (pixels.clip(0, 1) * 255).round().astype(np.uint8)
    if pixels.dtype != np.uint8:
        raise MediaError(f"{got}, expected uint8, or float from 0 to 1")
    return np.ascontiguousarray(np.broadcast_to(pixels[..., :3], (*pixels.shape[:3], 3)))


def _is_still(file: MediaFile) -> bool:
    try:
        with Image.open(file.path) as image:
            return not (image.format in _ANIMATED_FORMATS and getattr(image, "is_animated", False))
    except _IMAGE_ERRORS as error:
        return isinstance(error, Image.DecompressionBombError)


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
            original, or bilinearly with antialiasing where they come decoded. Without it they keep their size.
        video_fps (`float`, *optional*): frame rate of frames that come decoded; a file has its own.
        timeout (`float`, *optional*): seconds for a download; `media_files.DOWNLOAD_TIMEOUT`, 60, by default.

    Raises:
        MediaError: the source, or a wanted frame of it, cannot be read.
    """
    if isinstance(source, Video):
        return source
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
        frames = reader.read(indices)
    timestamps = None if rate is None else tuple(index / rate for index in indices)
    sound = reader.sound and reader.sound.cut(start, end)
    return Video(frames, tuple(indices), timestamps, rate, total, sound, reader.name)


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
    if _is_still(file):
        return _DecodedFrames([_image_of(file)], file.name, size, fps, timeout)
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
    """Frames that come one by one, of which only those read are opened."""

    sound = None

    def __init__(self, source: Any, name: str, size: tuple[int, int] | None, fps: float | None, timeout: float | None):
        self.source, self.name, self.size, self.fps, self.timeout = source, name, size, fps, timeout
        self.total = len(source)

    def read(self, indices: Sequence[int]) -> np.ndarray:
        if isinstance(self.source, ARRAYS):
            frames = [Image.fromarray(frame) for frame in _pixels(self.source[indices])]
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

    A folder is a video, of frames.

    Raises:
        MediaError: none of these, or unreadable.
    """
    if is_folder(source):
        return "video"
    file = local_file(source, timeout)
    if _is_still(file):
        return "image"
    with about(file.name), open_container(file) as container:
        if any(stream.type == "video" and not is_cover_art(stream) for stream in container.streams):
            return "video"
        if container.streams.audio:
            return "audio"
        raise MediaError("holds no image, video or sound")
