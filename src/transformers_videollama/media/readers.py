"""What other libraries have opened: their own frames, times and samples, by what their objects can do.

None of these libraries is imported here. Known are `decord.VideoReader`, torchcodec's `VideoDecoder` and
`AudioDecoder`, and the cells of samples of `datasets`.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from PIL import Image

from .access import MediaAccess
from .errors import MediaError
from .images import ARRAYS, rgb_pixels
from .objects import lock_of


__all__ = [
    "ReaderFrames",
    "ReaderTimes",
    "given_samples",
    "kind_of_reader",
    "reader_errors",
    "reader_of",
]

Resample = Literal["bilinear", "bicubic"]
_BATCH = 16  # frames that are asked for at once: they come in their own size


class ReaderTimes(Sequence[float]):
    """
    When each frame is shown, in seconds from the first, and when the last one ends; the reader is asked as needed.

    Args:
        total (`int`): frames.
        shown (`Callable`): number of a frame -> seconds on the reader's own clock.
        end (`float`): seconds on that clock.
    """

    def __init__(self, total: int, shown: Callable[[int], float], end: float):
        self.total, self.shown, self.end = total, shown, end
        self.known: dict[int, float] = {}

    def __len__(self) -> int:
        return self.total + 1

    def __getitem__(self, number: Any) -> Any:
        if isinstance(number, slice):
            return [self[at] for at in range(*number.indices(len(self)))]
        number = range(len(self))[number]
        return (self.end if number == self.total else self.on_own_clock(number)) - self.on_own_clock(0)

    def on_own_clock(self, number: int) -> float:
        """When a frame is shown, in seconds on the reader's own clock."""
        if number not in self.known:
            self.known[number] = self.shown(number)
        return self.known[number]


class ReaderFrames:
    """
    The frames of a reader.

    Args:
        source: the reader.
        size (`tuple[int, int]`, *optional*): (height, width) that frames are scaled to.
        access ([`MediaAccess`])
        resample (`str`, defaults to "bilinear"): The filter that scales them, with antialiasing; or "bicubic".

    Attributes:
        total (`int`), fps (`float`, *optional*), times ([`ReaderTimes`]), sound (`None`): as of a file.
    """

    sound = None  # these readers have the pictures alone

    def __init__(
        self, source: Any, size: tuple[int, int] | None, access: MediaAccess, resample: Resample = "bilinear"
    ):
        self.source, self.size, self.access, self.resample = source, size, access, resample
        with self._asking():
            self.total = len(source)
            self.name = f"{type(source).__name__} of {self.total} frames"
            self.fps, self.times = self._clock()

    def read(self, indices: Sequence[int]) -> dict[int, Any]:
        """
        Args:
            indices (`Sequence[int]`): of frames.

        Returns:
            `dict`: index -> pixels (height, width, 3), uint8: an array, or a tensor that stays on the GPU that decoded
            it.

        Raises:
            MediaError: if the reader cannot read one of them.
        """
        frames: dict[int, Any] = {}
        wanted, deadline = sorted(set(indices)), self.access.deadline()
        for at in range(0, len(wanted), _BATCH):
            deadline.check()
            numbers = wanted[at : at + _BATCH]
            with self._asking():
                pixels = _pixels_of(self._frames(numbers))
            if at == 0:
                self.access.check_pixels(*pixels.shape[1:3])
                self.access.take_bytes(len(wanted), *(self.size or pixels.shape[1:3]))
            frames |= dict(zip(numbers, self._scaled(pixels), strict=True))
        return frames

    def _scaled(self, pixels: Any) -> Any:
        """(T, height, width, 3) -> T frames of the reader's size"""
        return pixels if self.size in (None, tuple(pixels.shape[1:3])) else _scaled(pixels, self.size, self.resample)

    @contextlib.contextmanager
    def _asking(self) -> Iterator[None]:
        """Readers are no work for two threads at once, and have errors of their own."""
        with lock_of(self.source), reader_errors():
            yield

    def _clock(self) -> tuple[float | None, ReaderTimes]:
        raise NotImplementedError

    def _frames(self, numbers: list[int]) -> Any:
        """(T, height, width, 3) or (T, 3, height, width), an array or a tensor"""
        raise NotImplementedError


class _DecordFrames(ReaderFrames):
    def _clock(self) -> tuple[float | None, ReaderTimes]:
        seconds = np.asarray(self.source.get_frame_timestamp(list(range(self.total))), np.float64)  # (T, 2)
        shown = seconds[:, 0]
        fps = float(self.source.get_avg_fps())
        return fps if fps > 0 else None, ReaderTimes(self.total, lambda number: float(shown[number]), seconds[-1, 1])

    def _frames(self, numbers: list[int]) -> Any:
        batch = self.source.get_batch(numbers)  # decord's own array, or that of its bridge
        if isinstance(batch, ARRAYS):
            return batch
        return batch.asnumpy() if hasattr(batch, "asnumpy") else np.asarray(batch)


class _TorchcodecFrames(ReaderFrames):
    def _clock(self) -> tuple[float | None, ReaderTimes]:
        metadata, end = self.source.metadata, self.source.metadata.end_stream_seconds
        if end is None:
            last = self.source.get_frame_at(self.total - 1)
            end = last.pts_seconds + last.duration_seconds
        fps = metadata.average_fps or self.total / (end - self.source.get_frame_at(0).pts_seconds)
        return float(fps), ReaderTimes(self.total, self._shown, float(end))

    def _shown(self, number: int) -> float:
        with self._asking():
            return float(self.source.get_frame_at(number).pts_seconds)

    def _frames(self, numbers: list[int]) -> Any:
        batch = self.source.get_frames_at(numbers)
        self.times.known |= dict(zip(numbers, batch.pts_seconds.tolist(), strict=True))
        return batch.data


def kind_of_reader(source: Any) -> Literal["video", "audio"] | None:
    """What another library's reader, or a cell of samples, holds; `None` for anything else."""
    if _frames_class(source) is not None:
        return "video"
    return "audio" if _reads_sound(source) or _holds_samples(source) else None


def reader_of(
    source: Any, size: tuple[int, int] | None, access: MediaAccess, resample: Resample = "bilinear"
) -> ReaderFrames | None:
    """The frames of another library's reader of a video, as of [`ReaderFrames`]; `None` for anything else.

    Raises:
        MediaError: for a reader without frames, or that fails.
    """
    frames_class = _frames_class(source)
    if frames_class is None:
        return None
    reader = frames_class(source, size, access, resample)
    if reader.total < 1:
        raise MediaError(f"{reader.name}: has no frames")
    return reader


def given_samples(source: Any, access: MediaAccess) -> tuple[Any, int] | None:
    """The samples of another library's reader of a sound, or of a cell of samples, and their rate in Hz.

    Args:
        source: torchcodec's `AudioDecoder`, or `{"array", "sampling_rate"}`.
        access ([`MediaAccess`])

    Returns:
        `tuple`, *optional*: an array or tensor (samples,) or (channels, samples); `None` for anything else.

    Raises:
        MediaError: for a cell without a rate, and a reader that fails or has too many samples.
    """
    if _holds_samples(source):
        rate = source.get("sampling_rate")
        if isinstance(rate, bool) or not isinstance(rate, int) or rate < 1:
            raise MediaError(f"got a dict with 'array' and sampling_rate={rate!r}, expected the rate in Hz")
        samples = source["array"]
        return (samples if isinstance(samples, ARRAYS) else np.asarray(samples, np.float32)), rate
    if not _reads_sound(source):
        return None
    metadata = source.metadata
    num_bytes = 4 * int((metadata.duration_seconds or 0) * (metadata.sample_rate or 0) * (metadata.num_channels or 1))
    if num_bytes > access.max_request_bytes:
        raise MediaError(
            f"{type(source).__name__}: its samples are {num_bytes} bytes, more than {access.max_request_bytes} "
            "(max_request_bytes of MediaAccess); give its file"
        )
    with lock_of(source), reader_errors():
        samples = source.get_all_samples()
    return samples.data, int(samples.sample_rate)


@contextlib.contextmanager
def reader_errors() -> Iterator[None]:
    """What readers raise, as a `MediaError`; decord's own class is there where its reader is."""
    own = getattr(sys.modules.get("decord"), "DECORDError", RuntimeError)
    try:
        yield
    except MediaError:
        raise
    except (RuntimeError, ValueError, IndexError, OSError, own) as error:
        first_line = str(error).partition("\n")[0]  # the trace of a library in C++ follows
        raise MediaError(f"its reader fails: {first_line}") from error


def _pixels_of(frames: Any) -> Any:
    """uint8 RGB of shape (T, height, width, 3); what a GPU has decoded stays there."""
    if isinstance(frames, np.ndarray) or frames.device.type == "cpu":
        return rgb_pixels(frames)
    frames = frames if frames.shape[-1] == 3 else frames.movedim(1, -1)
    if str(frames.dtype) != "torch.uint8" or frames.shape[-1] != 3:
        raise MediaError(f"got {frames.dtype} frames of shape {tuple(frames.shape)}, expected RGB in uint8")
    return frames


def _scaled(pixels: Any, size: tuple[int, int], resample: Resample) -> Any:
    """uint8 (T, height, width, 3) -> T frames of another (height, width); those of a tensor stay where it is."""
    if isinstance(pixels, np.ndarray):
        resampling = Image.Resampling[resample.upper()]
        return [np.asarray(Image.fromarray(frame).resize(size[::-1], resampling)) for frame in pixels]
    import torch  # which media do without otherwise

    planes = (frame.movedim(-1, 0)[None].float() for frame in pixels)  # one by one: floats take four times the memory
    scaled = [torch.nn.functional.interpolate(plane, size, mode=resample, antialias=True)[0] for plane in planes]
    return [frame.round().clamp(0, 255).to(pixels.dtype).movedim(0, -1) for frame in scaled]


def _frames_class(source: Any) -> type[ReaderFrames] | None:
    if _has(source, "get_batch", "get_frame_timestamp", "get_avg_fps", "__len__"):
        return _DecordFrames
    return _TorchcodecFrames if _has(source, "get_frames_at", "get_frame_at", "__len__") else None


def _holds_samples(source: Any) -> bool:
    return isinstance(source, Mapping) and source.get("array") is not None


def _reads_sound(source: Any) -> bool:
    return _has(source, "get_all_samples", "get_samples_played_in_range")


def _has(source: Any, *methods: str) -> bool:
    return all(callable(getattr(type(source), method, None)) for method in methods)
