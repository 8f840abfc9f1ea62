"""Opens files, addresses, bytes and arrays and says what is in them: pixels, times, sound.

PyAV decodes videos and sound, unless another decoder of videos is chosen, and Pillow images. A cut or damaged file or
a missing stream is a `MediaError`: never fewer frames or silence.

Limits: damage that a codec conceals without saying so is not seen.
"""

import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image

from .access import MediaAccess, access_for
from .animations import Animation, is_animated_webp
from .containers import is_cover_art, open_container
from .decoders import default_device, open_video_with
from .errors import MediaError, about
from .images import ARRAYS, image_of, is_still, load_image, rgb_pixels
from .options import Decoder, OnDamage, check_options
from .readers import ReaderFrames, kind_of_reader, reader_of
from .sampling import Sampling, sample_indices, span_within
from .sound import Sound
from .sources import MediaFile, folder_of, local_file
from .workers import in_worker


if TYPE_CHECKING:
    import torch

__all__ = ["Video", "check_frame_count", "load_video", "media_kind"]

_IMAGE_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}


@dataclass(frozen=True, eq=False)
class Video:
    """Decoded frames of a video and what is known about the rest of it.

    Attributes:
        frames (`np.ndarray` of shape (T, height, width, 3), uint8): RGB; a `torch.Tensor` of this shape on the GPU
            that decoded them, where one did.
        indices (`tuple[int]` of length T): which frames of the video they are.
        timestamps (`tuple[float]` of length T, or `None`): when they are shown, in seconds after the first frame of
            the video, as the container says; of frames that come decoded, `index / fps`. `None` if it is not known.
        fps (`float` or `None`): frames per second of the video, on average.
        total_num_frames (`int`): length of the video.
        sound (`Sound` or `None`): of the same span; `None` exactly when the container has no sound stream.
        name (`str`): its name in messages.
    """

    frames: "np.ndarray | torch.Tensor"
    indices: tuple[int, ...]
    timestamps: tuple[float, ...] | None
    fps: float | None
    total_num_frames: int
    sound: Sound | None
    name: str

    def __post_init__(self):
        frames, times = self.frames, self.indices if self.timestamps is None else self.timestamps
        dtype, shape = str(frames.dtype).removeprefix("torch."), tuple(frames.shape)
        if dtype != "uint8" or len(shape) != 4 or shape[-1] != 3 or 0 in shape:
            raise MediaError(f"{self.name}: got frames {dtype} {shape}, expected uint8 (T, H, W, 3)")
        if not len(frames) == len(self.indices) == len(times):
            raise MediaError(f"{self.name}: {len(frames)} frames, {len(self.indices)} indices, {len(times)} times")
        if (self.fps is None) != (self.timestamps is None):
            raise MediaError(f"{self.name}: got fps={self.fps} with timestamps={self.timestamps}")
        if not 0 <= min(self.indices) <= max(self.indices) < self.total_num_frames:
            raise MediaError(f"{self.name}: got indices {self.indices} of {self.total_num_frames} frames")

    def __repr__(self) -> str:
        return (
            f"Video(name={self.name!r}, frames={tuple(self.frames.shape)}, indices={self.indices}, fps={self.fps}, "
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
    video_stream: int | str | None = None,
    audio_stream: int | str | None = None,
    on_damage: OnDamage = "raise",
    decoder: Decoder = "pyav",
    device: "str | torch.device | None" = None,
    timeout: float | None = None,
    access: MediaAccess | None = None,
) -> Video:
    """Load the chosen frames of a video; its sound, if it has any, is decoded later, by `Sound.read`.

    Args:
        source: a path, http(s) URL, `file:` or base64 `data:` URI, address of fsspec (`s3://`, `hf://`), or bytes of a
            video, an animated GIF or an image (a video of one frame), an object with `read`, or a cell of `datasets`
            (`{"bytes", "path"}`); a folder of frame files, in natural order, or a list of images; an array or tensor
            of shape (T, H, W, C) or (T, C, H, W), uint8 or float in 0..1; `decord.VideoReader` or torchcodec's
            `VideoDecoder`, whose own frames and times are taken, without sound; a `Video`, which is returned as it is.
            An object that can seek is read from its beginning, as far as needed, and its position is put back; it has
            to stay open until the sound is read. Another is copied to a temporary file.
        num_frames, fps, sampling, start, end, generator: see `sample_indices`; the span holds for the sound, too.
        size (`tuple[int, int]`, *optional*): (height, width) that frames are scaled to: while decoding, as in the
            original, or bilinearly with antialiasing if they come decoded. Without it they keep their size.
        video_fps (`float`, *optional*): frame rate of frames that come decoded, and of raw streams (`.h264`), which
            have no times; another file has its own.
        max_frames (`int`, *optional*): frames that are taken at most; more are an error, before one is decoded.
        video_stream, audio_stream (`int` or `str`, *optional*): which of several tracks of a file: the index among all
            its streams, or the language, such as "eng". By default the one that FFmpeg's programs take.
        on_damage (`"raise"` or `"skip"`): whether a chosen frame that cannot be decoded is an error, or is left out
            with a warning that counts.
        decoder (`"pyav"`, `"decord"` or `"torchcodec"`): what decodes the frames of a video file; what comes decoded,
            and what Pillow decodes, takes none. Choice, times and sound of the frames are PyAV's with any of them. See
            docs/media.md for where frames differ.
        device (`str` or `torch.device`, *optional*): where torchcodec decodes; by default on a GPU where there is one,
            but in the processes of a `DataLoader`. Frames of a GPU stay there, as a tensor.
        timeout (`float`, *optional*): seconds for a download; `download_timeout` of `access`, 60, by default.
        access (`MediaAccess`, *optional*): what may be opened, and how much work it may be; what
            `restrict_media_access` has set for the process by default.

    Raises:
        MediaError: the source, or a wanted frame of it, cannot be read.
        ValueError: an option has a value that it cannot have, or more than `max_frames` frames are asked for.
        ImportError: the decoder is not installed; the message says what to install.
    """
    if isinstance(source, Video):
        return source
    given: dict[str, Any] = {"num_frames": num_frames, "fps": fps, "sampling": sampling, "start": start, "end": end}
    given |= {"video_fps": video_fps, "video_stream": video_stream, "audio_stream": audio_stream}
    given = check_options({**given, "on_damage": on_damage, "decoder": decoder})
    given["device"] = default_device() if device is None and decoder == "torchcodec" else device
    if size is not None and not (len(size) == 2 and min(size) >= 1):
        raise ValueError(f"got size={size}, expected (height, width)")
    found = _frames_or_file(source, size, given["video_fps"], access_for(access, timeout).for_request())
    with about(found.name):
        if isinstance(found, MediaFile) and not isinstance(generator, np.random.Generator):
            return in_worker(found, _read, found, size, given, max_frames, generator)
        return _read(found, size, given, max_frames, generator)  # a generator is the caller's, to be drawn from here


def _read(
    found: "_DecodedFrames | ReaderFrames | MediaFile",
    size: tuple[int, int] | None,
    given: dict[str, Any],
    max_frames: int | None,
    generator: np.random.Generator | int | None,
) -> Video:
    """The chosen frames; `given` are the other options of `load_video`."""
    video_fps, start, end = (given[name] for name in ("video_fps", "start", "end"))
    with _reader_of(found, size, given) as reader:
        rate = reader.fps
        if video_fps is not None and rate is not None and abs(rate - video_fps) > 0.01 * rate:
            raise MediaError(f"has {rate} frames per second, got video_fps={video_fps}; leave it out for files")
        rate = video_fps if rate is None else rate
        indices = sample_indices(
            reader.total,
            given["num_frames"],
            video_fps=rate,
            fps=given["fps"],
            sampling=given["sampling"],
            start=start,
            end=end,
            generator=generator,
            times=reader.times,
        )
        check_frame_count(found.name, len(indices), max_frames)
        frames = reader.read(indices)
        indices = [index for index in indices if index in frames]
        timestamps = _times_of(indices, reader.times, rate)
        sound = reader.sound and _sound_of_span(reader.sound, start, end, reader.times)
        pixels = _stacked([frames[index] for index in indices])
    return Video(pixels, tuple(indices), timestamps, rate, reader.total, sound, found.name)


def _sound_of_span(
    sound: Sound, start: float | None, end: float | None, times: Sequence[float] | None
) -> Sound | None:
    """What plays with the frames of a span, which ends with the video; without a span, the whole sound."""
    if times is None or (start is None and end is None):
        return sound.cut(start, end)
    return sound.cut(*span_within(start, end, times[-1]))


def _reader_of(found: Any, size: tuple[int, int] | None, given: dict[str, Any]) -> Any:
    """What reads the frames, within a `with`."""
    if not isinstance(found, MediaFile):
        return contextlib.nullcontext(found)
    if is_still(found):
        frames = _DecodedFrames([image_of(found)], found.name, size, given["video_fps"], found.access)
        return contextlib.nullcontext(frames)
    if is_animated_webp(found):
        return contextlib.nullcontext(Animation(found, size))
    names = ("decoder", "device", "video_stream", "audio_stream", "on_damage")
    return open_video_with(found, size, **{name: given[name] for name in names})


def check_frame_count(name: str, count: int, most: int | None) -> None:
    """A `ValueError` for more frames than the model takes; `None` is any number."""
    if most is not None and count > most:
        raise ValueError(
            f"{name}: {count} frames are asked for, but the model takes at most {most}; ask for fewer, "
            "with num_frames, a lower fps, or start and end"
        )


def _stacked(frames: list) -> "np.ndarray | torch.Tensor":
    if isinstance(frames[0], np.ndarray):
        return np.stack(frames)
    import torch  # which nothing but a GPU's decoder needs here

    return torch.stack(frames)


def _times_of(indices: list[int], times: Sequence[float] | None, rate: float | None) -> tuple[float, ...] | None:
    if times is not None:
        return tuple(times[index] for index in indices)
    return None if rate is None else tuple(index / rate for index in indices)


def _frames_or_file(
    source: Any, size: tuple[int, int] | None, fps: float | None, access: MediaAccess
) -> "_DecodedFrames | ReaderFrames | MediaFile":
    """What holds the frames; a file is yet to be opened."""
    if (reader := reader_of(source, size, access)) is not None:
        return reader
    if isinstance(source, Image.Image):
        source = [source]
    if isinstance(source, ARRAYS) and source.ndim != 4:
        raise MediaError(f"got an array of shape {tuple(source.shape)}, expected (T, H, W, C) or (T, C, H, W)")
    if isinstance(source, (list, tuple, ARRAYS)):
        return _DecodedFrames(source, f"{type(source).__name__} of {len(source)} frames", size, fps, access)
    if (folder := folder_of(source, access)) is not None:
        return _DecodedFrames(_frame_files(folder), str(folder), size, fps, access)
    return local_file(source, access)


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

    sound = times = None

    def __init__(self, source: Any, name: str, size: tuple[int, int] | None, fps: float | None, access: MediaAccess):
        self.source, self.name, self.size, self.fps, self.access = source, name, size, fps, access
        self.total = len(source)

    def read(self, indices: Sequence[int]) -> dict[int, np.ndarray]:
        if isinstance(self.source, ARRAYS):
            frames = [Image.fromarray(frame) for frame in rgb_pixels(self.source[indices])]
        else:
            frames = [self._load(index) for index in indices]
        if self.size is not None:
            frames = [frame.resize(self.size[::-1], Image.Resampling.BILINEAR) for frame in frames]
        if len(sizes := {frame.size for frame in frames}) > 1:
            raise MediaError(f"frames differ in size, (width, height) {sorted(sizes)[:3]}; pass size")
        return {index: np.asarray(frame) for index, frame in zip(indices, frames, strict=True)}

    def _load(self, index: int) -> Image.Image:
        with about(f"frame {index}"):
            return load_image(self.source[index], access=self.access)


def media_kind(
    source: Any, *, timeout: float | None = None, access: MediaAccess | None = None
) -> Literal["image", "video", "audio"]:
    """Say what a path, URL or bytes hold, by the content: an animated image is a video, a song with cover art audio.

    A folder is a video of frames. `timeout` and `access` are those of `load_video`.

    Raises:
        MediaError: none of these, or unreadable.
    """
    access = access_for(access, timeout)
    if (kind := kind_of_reader(source)) is not None:
        return kind
    if folder_of(source, access) is not None:
        return "video"
    file = local_file(source, access)
    with about(file.name):
        return in_worker(file, _kind_of, file)


def _kind_of(file: MediaFile) -> Literal["image", "video", "audio"]:
    if is_still(file):
        return "image"
    if is_animated_webp(file):
        return "video"
    with open_container(file) as container:
        if any(stream.type == "video" and not is_cover_art(stream) for stream in container.streams):
            return "video"
        if container.streams.audio:
            return "audio"
        raise MediaError("holds no image, video or sound")
