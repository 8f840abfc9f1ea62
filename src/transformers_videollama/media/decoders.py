"""Other decoders of video files than PyAV: decord and torchcodec.

They decode the frames that PyAV's index names: how many there are, when each is shown and what is heard is the same
with any decoder. A file that a decoder counts, times, turns or colours in another way is an error.
"""

import contextlib
import importlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from .errors import MediaError, import_or_explain
from .frames import MAX_THREADS, VideoFile, open_video
from .hdr import HDR_TRANSFERS
from .options import Decoder, OnDamage
from .orientation import is_quarter_turn, matrix_of
from .parallel import num_threads
from .readers import ReaderFrames, reader_errors, reader_of
from .sources import MediaFile
from .workers import media_workers


if TYPE_CHECKING:
    import torch

__all__ = ["default_device", "open_video_with"]

# Where decord gives other frames than it says, because it seeks past the key frame (decord2 3.4.0)
DECORD_MISSES_IN = {"mpegts": "a transport stream", "mpeg": "an MPEG program stream"}


@contextlib.contextmanager
def open_video_with(
    file: MediaFile,
    size: tuple[int, int] | None = None,
    *,
    decoder: Decoder = "pyav",
    device: "str | torch.device | None" = None,
    video_stream: int | str | None = None,
    audio_stream: int | str | None = None,
    on_damage: OnDamage = "raise",
) -> "Iterator[VideoFile | _OtherFrames]":
    """
    Args:
        file ([`MediaFile`])
        size (`tuple[int, int]`, *optional*): (height, width) that frames are scaled to; by default they keep theirs.
        decoder, device, video_stream, audio_stream, on_damage (*optional*): as [`load_video`] takes them.

    Raises:
        MediaError: for a file without a video stream, or that is cut.
        ValueError: for an option that the decoder has not.
    """
    if device is not None and decoder != "torchcodec":
        raise ValueError(f"got device={device!r} with decoder={decoder!r}, expected it with 'torchcodec' alone")
    if on_damage == "skip" and decoder != "pyav":
        raise ValueError(
            f"got on_damage='skip' with decoder={decoder!r}, which does not say what is damaged; expected 'pyav'"
        )
    with open_video(file, size, video_stream=video_stream, audio_stream=audio_stream, on_damage=on_damage) as video:
        yield video if decoder == "pyav" else _OtherFrames(video, file, decoder, device)


class _OtherFrames:
    """
    The frames of a file, decoded by another library.

    Attributes:
        total, fps, times, sound: as of [`VideoFile`], which has read the file's index.
    """

    def __init__(self, video: VideoFile, file: MediaFile, decoder: Decoder, device: "str | torch.device | None"):
        self.video, self.file, self.decoder, self.device = video, file, decoder, device
        self.total, self.fps, self.times, self.sound = video.total, video.fps, video.times, video.sound

    def read(self, indices: Sequence[int]) -> dict[int, Any]:
        """
        Args:
            indices (`Sequence[int]`): of frames, in the order in which they are shown.

        Returns:
            `dict`: index -> pixels (height, width, 3), uint8: an array, or a tensor on the GPU that decoded it.

        Raises:
            MediaError: if the decoder cannot read one of them, or is known to show them otherwise.
            ImportError: if the decoder is not installed.
        """
        try:
            return self._read(indices)
        except MediaError as error:
            raise MediaError(f"decoder={self.decoder!r}: {error}; try decoder='pyav'") from error

    def _read(self, indices: Sequence[int]) -> dict[int, Any]:
        self._refuse_what_is_shown_otherwise()
        with reader_errors():
            source = _OPENERS[self.decoder](self.video, self.file, self.device)
        reader = reader_of(source, self.video.size, self.file.access, "bicubic")
        assert reader is not None  # known by its methods
        if reader.total != self.total:
            raise MediaError(f"finds {reader.total} frames, and the file has {self.total}")
        frames = reader.read(indices)
        self._check_times(reader, indices)
        return frames

    def _refuse_what_is_shown_otherwise(self) -> None:
        frame = self.video.first_frame()
        if frame.color_trc in HDR_TRANSFERS:
            raise MediaError("does not map high dynamic range to the usual one")
        if any(component.is_alpha for component in frame.format.components):
            raise MediaError("does not show what may be transparent over white")
        if self.video.orientation is not None or not is_quarter_turn(matrix_of(frame)):
            raise MediaError("does not mirror frames, or turn them in the way that this file says")

    def _check_times(self, reader: ReaderFrames, indices: Sequence[int]) -> None:
        """The time of a frame says which it is; decoders may differ in its last digits."""
        if self.times is None or self.fps is None or self.video.zero is None:
            return
        # decord counts from the first frame, torchcodec as the container does
        zero = reader.times.on_own_clock(0) if self.decoder == "decord" else self.video.zero
        for index in indices:
            theirs, ours = reader.times.on_own_clock(index) - zero, self.times[index]
            if not abs(theirs - ours) < 0.5 / self.fps:  # also for NaN
                raise MediaError(f"says frame {index} is shown at {theirs:.3f} s, and the file says {ours:.3f} s")


def _decord_reader(video: VideoFile, file: MediaFile, device: "str | torch.device | None") -> Any:
    chosen = video.container.streams.best("video").index
    if video.stream.index != chosen:
        raise MediaError(f"reads stream {chosen} alone, got video_stream={video.stream.index}")
    if (kind := DECORD_MISSES_IN.get(video.container.format.name)) is not None:
        raise MediaError(f"does not find the frames of {kind} that are asked for")
    if video.stream.frames > 2 * video.total + 1000:  # it takes memory for them, and may end the process over it
        raise MediaError(f"believes the header, which counts {video.stream.frames} frames; there are {video.total}")
    decord = import_or_explain("decord", "'transformers-videollama[decord]'")
    height, width = video.size or (-1, -1)
    return decord.VideoReader(file.open(), height=height, width=width, num_threads=_num_threads())


def _torchcodec_reader(video: VideoFile, file: MediaFile, device: "str | torch.device | None") -> Any:
    decoders = _torchcodec_decoders()
    return decoders.VideoDecoder(
        file.open(),
        stream_index=video.stream.index,
        dimension_order="NHWC",
        num_ffmpeg_threads=_num_threads(),
        device=device,
    )


def _torchcodec_decoders() -> Any:
    torch = import_or_explain("torch", "torch")
    import_or_explain("torchcodec", "'transformers-videollama[torchcodec]'")
    try:
        return importlib.import_module("torchcodec.decoders")
    except (ImportError, OSError, RuntimeError) as error:  # a page long
        raise ImportError(
            f"torchcodec finds no shared libraries of FFmpeg, or is not made for torch {torch.__version__}: install "
            "FFmpeg (apt install ffmpeg, or conda install ffmpeg) and the release of torchcodec that fits this torch"
        ) from error


_OPENERS: dict[str, Callable[[VideoFile, MediaFile, Any], Any]] = {
    "decord": _decord_reader,
    "torchcodec": _torchcodec_reader,
}


def _num_threads() -> int:
    return min(MAX_THREADS, num_threads())


def default_device() -> str:
    """
    Where torchcodec decodes: on a GPU where there is one, but for processes that are forked, which cannot use it, and
    for those of media, whose frames come to this one through a pipe.
    """
    import torch  # which media do without otherwise

    elsewhere = torch.utils.data.get_worker_info() is not None or media_workers() is not None
    return "cuda" if torch.cuda.is_available() and not elsewhere else "cpu"
