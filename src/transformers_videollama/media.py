"""Opens files, URLs, bytes and arrays and says what is in them: pixels, times, sound. The only module that decodes.

decord decodes the frames of a video, PyAV sound, Pillow images; PyAV also says which streams a container has. Every
fault of a medium is one exception, `MediaError`, which names the item. A cut or damaged file, a slow server or a
missing stream is an error: never an endless wait, fewer frames or silence.

Limits: damage that a codec conceals without an error is not seen. Beside the key frames of an open-GOP stream decord
can be off by a frame. Windows of sound equal those of the whole track, to the sample, but for AAC with noise
substitution, whose noise depends on where decoding began. MP3 and raw AAC have no index: their packets are walked
once, not decoded; of all other sound only the windows are read. Needs PyAV 17, which shows a container's index.
"""

import base64
import concurrent.futures
import contextlib
import functools
import http.client
import importlib
import itertools
import math
import os
import re
import struct
import tempfile
import threading
import urllib.parse
import urllib.request
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image


__all__ = [
    "DEFAULT_NUM_FRAMES",
    "DOWNLOAD_TIMEOUT",
    "MAX_DOWNLOAD_BYTES",
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
DOWNLOAD_TIMEOUT = 60.0  # seconds for a whole download, from looking up the name to the last byte
MAX_DOWNLOAD_BYTES = 2 << 30
MAX_FRAME_BYTES = 4 << 30  # of the decoded frames of one video; 32 frames of 8K are 3 GiB

_ARRAYS = (np.ndarray, torch.Tensor)
_IMAGE_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
_ANIMATED_FORMATS = {"AVIF", "GIF", "PNG", "WEBP"}  # not MPO and TIFF, which hold several stills
_IMAGE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)
_DOWNLOAD_ERRORS = (OSError, ValueError, http.client.HTTPException)
_PREROLL = 1.0  # seconds decoded and dropped before a window of sound: lossy codecs need what came before
_SLACK = 0.25  # seconds by which a container may be wrong about a time
_FILTER_ZEROS, _FILTER_ROLLOFF = 6, 0.99  # of resampling, torchaudio's defaults
_MAX_FILTER_SIZE = 1 << 24  # weights of a resampling filter; 44.1 to 16 kHz has 76,000


class MediaError(ValueError):
    """A video, an image or a sound that cannot be used; the message names it, the reason and the way out."""


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
    start, end = _span_within(start, end, total / fps)
    first, stop = (min(math.ceil(seconds * fps - 1e-6), total) for seconds in (start, end))
    if first >= stop:
        raise MediaError(f"no frame lies between {start} and {end} s; frames are {1 / fps:.3f} s apart")
    return first, stop


def _span_within(start: float | None, end: float | None, duration: float) -> tuple[float, float]:
    """The part of `[start, end)` that a medium of `duration` seconds has."""
    start, end = 0.0 if start is None else start, duration if end is None else end
    if not (0 <= start < duration and start < end):
        raise MediaError(f"got the span from {start} to {end} s, expected one within 0 to {duration:.3f} s")
    return start, min(end, duration)


@dataclass(frozen=True, eq=False)
class Sound:
    """A sound track or a span of one, decoded where it is read.

    Attributes:
        name (`str`): what messages call it.
        sampling_rate (`int`): of the track, in Hz.
        num_channels (`int`): of the track.
        duration (`float`): of the span, in seconds.
    """

    name: str
    sampling_rate: int
    num_channels: int
    duration: float
    track: Any = field(repr=False)  # has read(first, stop) -> float32 (channels, samples) at the track's own rate
    offset: float = field(default=0.0, repr=False)  # of the span in the track, in seconds

    def read(self, start: float, end: float, sampling_rate: int) -> np.ndarray:
        """Read the window `[start, end)`, in seconds of the span; the cost does not grow with the track.

        Returns:
            `np.ndarray` of shape (channels, round((end - start) * sampling_rate)), float32: the samples that the
            whole track has there after `torchaudio.functional.resample`; fewer where the span ends before the window.

        Raises:
            MediaError: the window lies outside, or samples of it are missing, damaged, NaN or infinite.
        """
        with _about(self.name):
            if self.duration <= 0 or self.sampling_rate < 1:
                reason = "holds no samples" if self.sampling_rate else "has a codec that is not supported"
                raise MediaError(f"its sound {reason}")
            if not (0 <= start < end and start < self.duration):
                raise MediaError(f"got the window {start} to {end} s of {self.duration:.3f} s of sound")
            first = round((self.offset + start) * sampling_rate)
            end_of_span = math.ceil((self.offset + self.duration) * sampling_rate - 1e-6)
            stop = min(first + round((end - start) * sampling_rate), end_of_span)
            samples = self._resampled(first, stop, sampling_rate)
            if samples.shape[1] == 0 or not np.isfinite(samples).all():
                reason = "NaN or infinite" if samples.size else "no"
                raise MediaError(f"{reason} samples between {start} and {end} s")
            return samples

    def _resampled(self, first: int, stop: int, sampling_rate: int) -> np.ndarray:
        """Samples `[first, stop)` of the resampled track.

        The filter repeats after `old` native samples, which make `new` samples. The native window starts at such a
        period, with so many more on both sides that the filter sees what it would see in the whole track.
        """
        divisor = math.gcd(self.sampling_rate, sampling_rate)
        old, new = self.sampling_rate // divisor, sampling_rate // divisor
        margin = math.ceil(_filter_width(old, new) / old) + 1
        period = max(0, first // new - margin)
        native = self.track.read(period * old, (math.ceil(stop / new) + margin) * old)
        return _resample(native, old, new)[:, first - period * new : stop - period * new]

    def cut(self, start: float | None, end: float | None) -> "Sound":
        """What this sound has of the span `[start, end)`, in seconds; possibly nothing."""
        start, end = start or 0.0, self.duration if end is None else min(end, self.duration)
        return replace(self, offset=self.offset + start, duration=max(0.0, end - start))


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


# ---------------------------------------------------------------------------------------------------------- sources


@contextlib.contextmanager
def _about(name: str) -> Iterator[None]:
    """Put the name of the item before the message of a `MediaError`."""
    try:
        yield
    except MediaError as error:
        raise MediaError(f"{name}: {error}") from error


def _import(module: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"{module} is needed to decode this: pip install {package}") from error


class _File:
    """A local file and what messages call it; a temporary one is removed with its last user."""

    def __init__(self, name: str, path: str | None = None):
        self.name, self.path = name, path or ""
        if path is None:
            descriptor, self.path = tempfile.mkstemp(prefix="videollama-")
            os.close(descriptor)
            weakref.finalize(self, Path(self.path).unlink, missing_ok=True)

    def __deepcopy__(self, memo: dict) -> "_File":
        return self  # a copy would not keep a temporary file


def _local_file(source: Any, timeout: float) -> _File:
    """The file that `source` names, or a temporary one with what it holds."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _file_of_bytes(source, f"<{len(source)} bytes>")
    if not isinstance(source, (str, os.PathLike)):
        raise MediaError(f"got {type(source).__name__}, expected a path, a URL, bytes, an array or decoded media")
    text = os.fsdecode(source)
    scheme = text.partition(":")[0].lower()
    if scheme in ("http", "https"):
        return _download(text, timeout)
    if scheme == "data":
        return _file_of_data_uri(text)
    path = urllib.request.url2pathname(urllib.parse.urlsplit(text).path) if scheme == "file" else text
    file = _File(text[:200], os.path.abspath(path))  # absolute: FFmpeg would take "a:b.mp4" for a protocol
    with _about(file.name):
        if os.path.isdir(path):
            raise MediaError("is a folder, expected a file; only a video can be a folder, of frames")
        if not os.path.isfile(path):
            raise MediaError("does not exist, or is not a regular file")
        if os.path.getsize(path) == 0:
            raise MediaError("is empty (0 bytes)")
    return file


def _file_of_bytes(data: bytes | bytearray | memoryview, name: str) -> _File:
    if not data:
        raise MediaError(f"{name}: holds no bytes")
    file = _File(name)
    Path(file.path).write_bytes(data)
    return file


def _file_of_data_uri(uri: str) -> _File:
    header, _, payload = uri.partition(",")
    try:
        if not header.endswith(";base64"):
            raise ValueError("expected 'data:<type>;base64,<data>'")
        return _file_of_bytes(base64.b64decode(payload, validate=True), header[:40])
    except ValueError as error:
        raise MediaError(f"the data URI {header[:40]!r} cannot be decoded: {error}") from error


def _download(url: str, timeout: float) -> _File:
    """Fetch `url` within `timeout` seconds.

    A thread fetches, so that the deadline also holds while the name is looked up and while headers drip in, where
    sockets know no deadline.
    """
    file = _File(url.partition("?")[0])  # a query often holds a signature
    path = file.path  # the thread may outlive the file
    done: concurrent.futures.Future = concurrent.futures.Future()
    given_up = threading.Event()

    def fetch() -> None:
        try:
            _fetch(url, path, timeout + 1, given_up)  # + 1: the deadline below is the first to pass
            done.set_result(None)
        except _DOWNLOAD_ERRORS as error:
            done.set_exception(error)

    threading.Thread(target=fetch, daemon=True).start()
    try:
        done.result(timeout)
    except (TimeoutError, concurrent.futures.TimeoutError) as error:
        raise MediaError(f"{file.name}: not here after {timeout} s; download it first, or raise timeout") from error
    except _DOWNLOAD_ERRORS as error:
        raise MediaError(f"{file.name}: cannot be downloaded: {error}") from error
    finally:
        given_up.set()
    return file


def _fetch(url: str, path: str, timeout: float, given_up: threading.Event) -> None:
    request = urllib.request.Request(url, headers={"User-Agent": "transformers-videollama"})
    with open(path, "wb") as target, urllib.request.urlopen(request, timeout=timeout) as response:
        expected, received = response.length or 1, 0
        while max(received, expected) <= MAX_DOWNLOAD_BYTES and not given_up.is_set():
            if not (chunk := response.read1(1 << 16)):
                break
            received += target.write(chunk)
    if max(received, expected) > MAX_DOWNLOAD_BYTES:
        raise ValueError(f"it has more than {MAX_DOWNLOAD_BYTES} bytes (MAX_DOWNLOAD_BYTES)")
    if received < expected:
        raise ValueError(f"the connection ended after {received} of {expected} bytes")


# ----------------------------------------------------------------------------------------------------------- images


def load_image(source: Any, *, timeout: float = DOWNLOAD_TIMEOUT) -> Image.Image:
    """Load one image as 8-bit RGB.

    Args:
        source: a path, http(s) URL, `file:` or base64 `data:` URI, bytes, a PIL image, or an array or tensor of shape
            (H, W), (H, W, C) or (C, H, W) with 1, 3 or 4 channels, uint8 or float in 0..1.
        timeout (`float`, defaults to 60): seconds for a download.

    Returns:
        `PIL.Image.Image`: a new image. Alpha is dropped and the EXIF orientation not applied, as in the original;
        16-bit grey is scaled to 8 bits.

    Raises:
        MediaError: no image, a damaged one, or one beyond Pillow's limit (178 million pixels).
    """
    if isinstance(source, _ARRAYS):
        return Image.fromarray(_pixels(source[None])[0])
    if isinstance(source, Image.Image):
        with _about("image"), _image_errors():
            return _rgb(source)
    return _image_of(_local_file(source, timeout))


def _image_of(file: _File) -> Image.Image:
    with _about(file.name), _image_errors(), Image.open(file.path) as image:
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
    pixels = _numpy(array)
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


def _numpy(array: np.ndarray | torch.Tensor) -> np.ndarray:
    if isinstance(array, np.ndarray):
        return array
    array = array.detach().cpu()
    return (array.float() if array.is_floating_point() else array).numpy()  # NumPy has no bfloat16


def _is_still(file: _File) -> bool:
    try:
        with Image.open(file.path) as image:
            return not (image.format in _ANIMATED_FORMATS and getattr(image, "is_animated", False))
    except _IMAGE_ERRORS as error:
        return isinstance(error, Image.DecompressionBombError)


# ----------------------------------------------------------------------------------------------------------- videos


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
    timeout: float = DOWNLOAD_TIMEOUT,
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
        timeout (`float`, defaults to 60): seconds for a download.

    Raises:
        MediaError: the source, or a wanted frame of it, cannot be read.
    """
    if isinstance(source, Video):
        return source
    if size is not None and not (len(size) == 2 and min(size) >= 1):
        raise ValueError(f"got size={size}, expected (height, width)")
    reader = _frame_reader(source, size, video_fps, timeout)
    rate, total = reader.fps, reader.total
    with _about(reader.name):
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
    source: Any, size: tuple[int, int] | None, fps: float | None, timeout: float
) -> "_DecodedFrames | _VideoFile":
    if isinstance(source, Image.Image):
        source = [source]
    if isinstance(source, _ARRAYS) and source.ndim != 4:
        raise MediaError(f"got an array of shape {tuple(source.shape)}, expected (T, H, W, C) or (T, C, H, W)")
    if isinstance(source, (list, tuple, *_ARRAYS)):
        return _DecodedFrames(source, f"{type(source).__name__} of {len(source)} frames", size, fps, timeout)
    if isinstance(source, (str, os.PathLike)) and os.path.isdir(source):
        return _DecodedFrames(_frame_files(Path(source)), os.fspath(source), size, fps, timeout)
    file = _local_file(source, timeout)
    if _is_still(file):
        return _DecodedFrames([_image_of(file)], file.name, size, fps, timeout)
    with _about(file.name):
        return _VideoFile(file, size)


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

    def __init__(self, source: Any, name: str, size: tuple[int, int] | None, fps: float | None, timeout: float):
        self.source, self.name, self.size, self.fps, self.timeout = source, name, size, fps, timeout
        self.total = len(source)

    def read(self, indices: Sequence[int]) -> np.ndarray:
        if isinstance(self.source, _ARRAYS):
            frames = [Image.fromarray(frame) for frame in _pixels(self.source[indices])]
        else:
            frames = [self._load(index) for index in indices]
        if self.size is not None:
            frames = [frame.resize(self.size[::-1], Image.Resampling.BILINEAR) for frame in frames]
        if len(sizes := {frame.size for frame in frames}) > 1:
            raise MediaError(f"frames differ in size, (width, height) {sorted(sizes)[:3]}; pass size")
        return np.stack([np.asarray(frame) for frame in frames])

    def _load(self, index: int) -> Image.Image:
        with _about(f"frame {index}"):
            return load_image(self.source[index], timeout=self.timeout)


class _VideoFile:
    """The video stream of a file: PyAV looks at the container, decord decodes."""

    def __init__(self, file: _File, size: tuple[int, int] | None):
        self.file, self.name = file, file.name
        with _container(file) as container:
            stream = _video_stream(container, os.path.getsize(file.path))
            self.hidden = _hidden_frames(stream)
            self.size = size or (stream.height, stream.width)
            self.sound = _sound_of(container, file)
            in_matroska, in_mp4 = ("matroska" in container.format.name), ("mp4" in container.format.name)
            declared_end = (_declared_seconds(container, stream) or 0.0) if in_matroska else 0.0
            declared_frames = 0 if in_mp4 else stream.frames  # MP4 counts frames that an edit list removes
        if size is None and _decord_width(self.size[1]) != self.size[1]:
            raise MediaError(f"decord cannot decode to a width of {self.size[1]}; pass size=(height, width)")
        height, width = (size[0], _decord_width(size[1])) if size else (-1, -1)  # -1: as it is, and turned upright
        with _decord() as decord:
            # By default decord repeats the last frame for one it cannot decode; with fault_tol the first is an error.
            self.decoder = decord.VideoReader(file.path, width=width, height=height, fault_tol=1e-9)
            self.total = len(self.decoder) - sum(self.hidden)
            fps = self.decoder.get_avg_fps()
            self.fps = float(fps) if 0 < fps < math.inf else None
            end = self.decoder.get_frame_timestamp([len(self.decoder) - 1])[0, 1]
        if declared_end and end < declared_end - 1:
            raise MediaError(f"is cut: its frames end at {end:.2f} s of {declared_end:.2f} s; fetch it again")
        if len(self.decoder) < declared_frames:
            raise MediaError(f"is cut: it has {len(self.decoder)} of {declared_frames} frames; fetch it again")

    def read(self, indices: Sequence[int]) -> np.ndarray:
        num_bytes = 3 * len(indices) * math.prod(self.size)
        if num_bytes > MAX_FRAME_BYTES:
            raise MediaError(
                f"{len(indices)} frames of {self.size} are {num_bytes} bytes, more than {MAX_FRAME_BYTES} "
                "(MAX_FRAME_BYTES); ask for fewer frames or a smaller size"
            )
        with _decord():
            # decord counts the frames that an edit list hides at the start, which its decoder drops: before the
            # second key frame it finds frame i as i, from there on, where it seeks by time, as i + hidden.
            second_key = (self.decoder.get_key_indices()[1:2] or [math.inf])[0]
            hidden = self.hidden[0]
            batch = self.decoder.get_batch([i if i + hidden < second_key else i + hidden for i in indices])
        frames = batch.asnumpy() if hasattr(batch, "asnumpy") else np.asarray(batch)  # decord.bridge may say torch
        times_wider = _decord_width(self.size[1]) // self.size[1]
        if times_wider == 1:
            return frames
        return frames.reshape(*frames.shape[:2], -1, times_wider, 3).mean(3).round().astype(np.uint8)


def _decord_width(width: int) -> int:
    """The least width from `width` on, by doubling, that decord can decode to.

    decord takes rows whose padded length (to 64 pixels) is a multiple of the width for pixels of more than 3 bytes.
    """
    while width % 64 and math.ceil(width / 64) * 64 * 3 % width == 0:
        width *= 2
    return width


@contextlib.contextmanager
def _decord() -> Iterator[Any]:
    decord = _import("decord", "decord2")
    decord.logging.set_level(decord.logging.QUIET)  # FFmpeg would print what the exception says
    try:
        yield decord
    except (decord.DECORDError, decord.DECORDLimitReachedError, RuntimeError, AssertionError, UnicodeError) as error:
        raise MediaError(
            "decord cannot decode the wanted frames: the file is damaged, its codec unusual or size over 60 times "
            "smaller; if a player shows it, re-encode it (ffmpeg -i INPUT -c:v libx264 OUTPUT.mp4)"
        ) from error
    finally:
        decord.logging.set_level(decord.logging.ERROR)  # the level that decord sets at import


# ------------------------------------------------------------------------------------------------------- containers


def media_kind(source: Any, *, timeout: float = DOWNLOAD_TIMEOUT) -> Literal["image", "video", "audio"]:
    """Say what a path, URL or bytes hold, by the content: an animated image is a video, a song with cover art audio.

    Raises:
        MediaError: none of these, or unreadable.
    """
    file = _local_file(source, timeout)
    if _is_still(file):
        return "image"
    with _about(file.name), _container(file) as container:
        if any(stream.type == "video" and not _is_cover_art(stream) for stream in container.streams):
            return "video"
        if container.streams.audio:
            return "audio"
        raise MediaError("holds no image, video or sound")


@contextlib.contextmanager
def _container(file: _File) -> Iterator[Any]:
    with _ffmpeg_errors(), _open(file) as container:
        yield container


@contextlib.contextmanager
def _ffmpeg_errors() -> Iterator[None]:
    av = _import("av", "av")
    try:
        yield
    except av.FFmpegError as error:
        raise MediaError(f"is damaged, cut, or no video or sound: {error.strerror}") from error


def _open(file: _File) -> Any:
    container = _import("av", "av").open(file.path, metadata_errors="ignore")
    if "mp4" in container.format.name:
        _check_index(container, os.path.getsize(file.path))
    return container


def _check_index(container: Any, size: int) -> None:
    """Whether an MP4 file has the bytes that its index names; decord would count only the frames that are there."""
    for stream in container.streams:
        last = stream.index_entries[-1] if len(stream.index_entries) else None
        if last is not None and last.pos + last.size > size:
            raise MediaError(f"is cut: it should have {last.pos + last.size} bytes and has {size}; fetch it again")


def _video_stream(container: Any, size: int) -> Any:
    """The stream with the pictures, unless the header tells that decord would not survive it or do it wrong."""
    stream = container.streams.best("video")
    if stream is None or _is_cover_art(stream):
        raise MediaError(f"has no video stream (streams: {[stream.type for stream in container.streams]})")
    if stream.codec_context is None:
        raise MediaError("has a video codec that is not supported; re-encode it, for example as H.264")
    if container.format.name in ("mpeg", "mpegts"):  # wrong frames from the one, none from the other
        raise MediaError("decord cannot seek in MPEG streams; remux it (ffmpeg -i INPUT -c copy OUTPUT.mp4)")
    # decord reserves memory for as many frames as the header claims, and ends the process where there is not so much.
    claimed = stream.frames or float(stream.average_rate or 0) * (container.duration or 0) / 1e6
    if claimed > size:
        raise MediaError(f"is damaged: its header claims {claimed:.0f} frames in {size} bytes")
    return stream


def _hidden_frames(stream: Any) -> tuple[int, int]:
    """How many frames an edit list hides at the start and the end, as in a clip trimmed without encoding."""
    is_hidden = [entry.is_discard for entry in stream.index_entries]
    shown = [position for position, hidden in enumerate(is_hidden) if not hidden]
    middle = shown[len(shown) // 2] if shown else 0
    return sum(is_hidden[:middle]), sum(is_hidden[middle:])


def _is_cover_art(stream: Any) -> bool:
    return bool(stream.disposition & type(stream.disposition).attached_pic)


def _declared_seconds(container: Any, stream: Any) -> float | None:
    """How long a stream is by the container; for MP3 and raw AAC that is only FFmpeg's guess from the bit rate."""
    if container.format.name in ("mp3", "aac"):
        return None
    if stream.duration:
        return float(stream.duration * stream.time_base)
    if tag := re.fullmatch(r"(\d+):(\d+):(\d+\.\d+)", stream.metadata.get("DURATION", "")):  # Matroska
        return int(tag[1]) * 3600 + int(tag[2]) * 60 + float(tag[3])
    return container.duration / 1e6 if container.duration and len(container.streams) == 1 else None


# ------------------------------------------------------------------------------------------------------------ sound


def load_sound(
    source: Any,
    *,
    sampling_rate: int | None = None,
    start: float | None = None,
    end: float | None = None,
    timeout: float = DOWNLOAD_TIMEOUT,
) -> Sound:
    """Open a sound, or the sound of a video; `Sound.read` decodes it.

    Args:
        source: a path, http(s) URL, `file:` or base64 `data:` URI or bytes; an array or tensor of shape (samples,) or
            (channels, samples), float in -1..1 or int16; a `Sound`.
        sampling_rate (`int`, *optional*): of samples that come decoded, 16000 by default; a file has its own.
        start, end (`float` seconds, *optional*): the span to open; an `end` behind the sound is its end.
        timeout (`float`, defaults to 60): seconds for a download.

    Raises:
        MediaError: no sound stream, no samples, or a `sampling_rate` that is not the source's.
    """
    if isinstance(source, Sound):
        sound = source
    elif isinstance(source, _ARRAYS):
        sound = _sound_of_samples(_numpy(source), sampling_rate or 16_000)
    else:
        sound = _sound_of_source(source, timeout)
    with _about(sound.name):
        if sampling_rate not in (None, sound.sampling_rate):
            raise MediaError(f"wrong sampling rate given, {sampling_rate} Hz; it has {sound.sampling_rate} Hz")
        if start is None and end is None:
            return sound
        return sound.cut(*_span_within(start, end, sound.duration))


def _sound_of_source(source: Any, timeout: float) -> Sound:
    file = _local_file(source, timeout)
    with _about(file.name), _container(file) as container:
        sound = _sound_of(container, file)
        if sound is None:
            raise MediaError(f"has no sound stream (streams: {[stream.type for stream in container.streams]})")
    sound.read(0.0, 0.1, 16_000)  # whether it can be decoded at all
    return sound


def _sound_of_samples(samples: np.ndarray, sampling_rate: int) -> Sound:
    name = f"{samples.dtype} samples of shape {samples.shape}"
    samples = samples[None] if samples.ndim == 1 else samples
    with _about(name):
        if samples.ndim != 2 or not samples.size or len(samples) > samples.shape[1]:
            raise MediaError("expected shape (samples,) or (channels, samples), with at least one sample")
        if samples.dtype != np.int16 and not (samples.dtype.kind == "f" and np.abs(samples).max() < 100):
            raise MediaError("expected float from -1 to 1 without NaN, or int16")
    return Sound(name, sampling_rate, len(samples), samples.shape[1] / sampling_rate, _ArrayTrack(samples))


def _sound_of(container: Any, file: _File) -> Sound | None:
    """The sound of an open container, not yet decoded; `None` where it has no sound stream."""
    stream = container.streams.best("audio")
    if stream is None:
        return None
    declared = _declared_seconds(container, stream)
    duration = _measured_seconds(container, stream) if declared is None else declared
    context = stream.codec_context  # None for an unknown codec, which is an error where the sound is read
    rate, channels = (context.sample_rate, context.layout.nb_channels) if context else (0, 0)
    return Sound(file.name, rate, channels, duration, _FileTrack(file, stream.index, rate, channels, declared))


def _measured_seconds(container: Any, stream: Any) -> float:
    """The end of the last packet, unless FFmpeg's guess is near: that may know of the encoder's delay and padding."""
    first, last = None, 0
    for packet in container.demux(stream):
        if packet.pts is not None:
            first = packet.pts if first is None else first
            last = packet.pts + (packet.duration or 0)
    measured, guessed = (float(ticks * stream.time_base) for ticks in (last - (first or 0), stream.duration or 0))
    return guessed if abs(guessed - measured) < _SLACK else measured


class _ArrayTrack:
    def __init__(self, samples: np.ndarray):
        self.samples = samples

    def read(self, first: int, stop: int) -> np.ndarray:
        return _as_float(self.samples[:, first:stop])


class _FileTrack:
    """A sound stream of a file."""

    def __init__(self, file: _File, index: int, rate: int, channels: int, declared_seconds: float | None):
        self.file, self.index, self.rate, self.channels = file, index, rate, channels
        self.declared_seconds = declared_seconds
        self._lock = threading.Lock()
        self._kept: Any = None  # the open container: opening again would parse its index again, long in a long file

    def __reduce__(self):
        return type(self), (self.file, self.index, self.rate, self.channels, self.declared_seconds)

    def read(self, first: int, stop: int) -> np.ndarray:
        """Samples `[first, stop)` of the track as float32 (channels, samples), fewer where the track ends before."""
        with self._lock, _ffmpeg_errors():
            pieces = self._decode(first, stop, seek=True) if first > _PREROLL * self.rate else None
            pieces = self._decode(first, stop, seek=False) if pieces is None else pieces
        samples = np.concatenate([np.zeros((self.channels, 0), np.float32), *(pieces or [])], axis=1)
        end, promised = (first + samples.shape[1]) / self.rate, (self.declared_seconds or 0.0) - _SLACK
        if end < min(stop / self.rate, promised):
            raise MediaError(f"is cut or damaged: its sound breaks off near {end:.2f} s; fetch it again")
        return samples

    def _decode(self, first: int, stop: int, seek: bool) -> list[np.ndarray] | None:
        """The parts of the window in order; `None` where a seek does not land before it."""
        pieces = []
        container, self._kept = self._kept if seek and self._kept else _open(self.file), None
        stream = container.streams[self.index]
        if seek:
            container.seek(int((self._second[0] + first / self.rate - _PREROLL) / stream.time_base), stream=stream)
        frames = container.decode(stream)
        position = None if seek and next(frames, None) else 0  # some decoders trim the first frame after a seek
        for frame in frames:
            begin = self._begin(frame)
            if position is None:
                if begin is None or begin > first:
                    return None
                position = begin
            self._check(frame, begin, position)
            pieces.append(_samples(frame)[:, max(0, first - position) : max(0, stop - position)])
            position += frame.samples
            if position >= stop:
                break
        self._kept = container  # not after an error
        return pieces

    @functools.cached_property
    def _second(self) -> tuple[float, int]:
        """Time and number of the first sample of the second frame: the first may be trimmed, or before a gap."""
        with _container(self.file) as container:
            frames = list(itertools.islice(container.decode(container.streams[self.index]), 2))
        if not frames:
            raise MediaError("its sound holds no samples")
        return (frames[-1].time or 0.0) + (len(frames) == 1) * frames[0].samples / self.rate, frames[0].samples

    def _begin(self, frame: Any) -> int | None:
        """Number of the first sample of a frame, where it has a time.

        Where the clock is coarser than samples, it is the nearest whole number of frames after the second.
        """
        if frame.time is None:
            return None
        time, number = self._second
        begin = number + round((frame.time - time) * self.rate)
        whole = number + round((begin - number) / frame.samples) * frame.samples
        return whole if abs(whole - begin) < frame.time_base * self.rate else begin

    def _check(self, frame: Any, begin: int | None, position: int) -> None:
        got, expected = (frame.sample_rate, frame.layout.nb_channels), (self.rate, self.channels)
        if got != expected:
            raise MediaError(f"(rate, channels) of its sound change from {expected} to {got}; convert it")
        if begin is not None and position and abs(begin - position) > _SLACK * self.rate:
            raise MediaError(
                f"is damaged: its sound jumps from {position / self.rate:.2f} to {begin / self.rate:.2f} s"
            )


def _samples(frame: Any) -> np.ndarray:
    """float32 (channels, samples) of a PyAV frame, which has (1, samples * channels) where it is not planar."""
    samples = frame.to_ndarray()
    return _as_float(samples if frame.format.is_planar else samples.reshape(-1, frame.layout.nb_channels).T)


def _as_float(samples: np.ndarray) -> np.ndarray:
    """float32 from -1 to 1."""
    if samples.dtype.kind == "f":
        return samples.astype(np.float32)
    zero, scale = (128, 128) if samples.dtype == np.uint8 else (0, 2.0 ** (8 * samples.itemsize - 1))
    return ((samples - np.float64(zero)) / scale).astype(np.float32)


def _filter_width(old: int, new: int) -> int:
    """Half the width of the resampling filter, in native samples."""
    return 0 if old == new else math.ceil(_FILTER_ZEROS * old / (min(old, new) * _FILTER_ROLLOFF))


@functools.lru_cache(maxsize=16)
def _resampling_filter(old: int, new: int) -> torch.Tensor:
    """Weights of shape (new, 1, 2 * width + old): of the native samples around each of `new` samples."""
    width, cutoff = _filter_width(old, new), min(old, new) * _FILTER_ROLLOFF
    if new * (2 * width + old) > _MAX_FILTER_SIZE:
        raise MediaError(f"cannot resample at the ratio {old}:{new}; convert it to a usual sampling rate")
    # In float32, as torchaudio has it: in float64 the result would differ by up to 2e-5.
    native = torch.arange(-width, width + old, dtype=torch.float32, device="cpu") / old
    wanted = torch.arange(new, dtype=torch.float32, device="cpu")[:, None] / new
    times = ((native - wanted) * cutoff).clamp(-_FILTER_ZEROS, _FILTER_ZEROS)
    hann = torch.cos(times * math.pi / _FILTER_ZEROS / 2) ** 2
    return (torch.sinc(times) * hann * (cutoff / old))[:, None]


def _resample(samples: np.ndarray, old: int, new: int) -> np.ndarray:
    """Windowed-sinc resampling of (channels, samples), the same numbers as `torchaudio.functional.resample`.

    Not torchaudio itself: its wheels are tied to one torch build each, and numbers would depend on what is installed.
    """
    if old == new:
        return samples
    width = _filter_width(old, new)
    padded = torch.nn.functional.pad(torch.from_numpy(np.ascontiguousarray(samples)), (width, width + old))
    resampled = torch.nn.functional.conv1d(padded[:, None], _resampling_filter(old, new), stride=old)
    return resampled.transpose(1, 2).flatten(1)[:, : math.ceil(new * samples.shape[1] / old)].numpy()
