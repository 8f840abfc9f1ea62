"""The wanted frames of a video file: PyAV seeks to the key frames before them, and decodes from there."""

import contextlib
import itertools
import logging
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from .access import Deadline
from .containers import chosen_stream, open_container
from .errors import MediaError, import_or_explain
from .frame_index import FrameTimes, Way, frame_index_of, packets_from
from .options import OnDamage
from .orientation import orientation_at_start
from .parallel import num_threads
from .pixels import FrameConverter
from .sound import sound_of
from .sources import MediaFile


__all__ = ["MAX_THREADS", "VideoFile", "open_video"]

MAX_THREADS = 4  # of a decoder: each holds some frames, of 12 MB at 4K
logger = logging.getLogger(__name__)


@contextlib.contextmanager
def open_video(
    file: MediaFile,
    size: tuple[int, int] | None = None,
    *,
    video_stream: int | str | None = None,
    audio_stream: int | str | None = None,
    on_damage: OnDamage = "raise",
) -> "Iterator[VideoFile]":
    """
    Args:
        file ([`MediaFile`])
        size (`tuple[int, int]`, *optional*): (height, width) that frames are scaled to; by default they keep theirs.
        video_stream, audio_stream, on_damage (*optional*): as [`load_video`] takes them.

    Raises:
        MediaError: for a file without a video stream, or that is cut.
    """
    with open_container(file, must_be_whole=on_damage == "raise") as container:
        stream = _video_stream(container, video_stream)
        yield VideoFile(container, stream, file, size, audio_stream, on_damage)


class VideoFile:
    """
    The video stream of an open file.

    Attributes:
        total (`int`): How many frames are shown.
        fps (`float`, *optional*): How many are shown a second, on average.
        times ([`FrameTimes`], *optional*): When they are shown; `None` if the file does not say.
        zero (`float`, *optional*): When the first is shown by the container, in seconds.
        sound ([`Sound`], *optional*)
    """

    def __init__(
        self,
        container: Any,
        stream: Any,
        file: MediaFile,
        size: tuple[int, int] | None,
        audio_stream: int | str | None,
        on_damage: OnDamage,
    ):
        self.container, self.stream, self.name, self.size = container, stream, file.name, size
        self.access = file.access
        self.skips_damage = on_damage == "skip"
        stream.thread_type = "AUTO"
        stream.codec_context.thread_count = min(MAX_THREADS, num_threads())
        stream.codec_context.options = {"max_pixels": str(file.access.max_frame_pixels)}  # the header may be wrong
        self.index = frame_index_of(container, stream, file, must_be_whole=not self.skips_damage)
        self.total = self.index.total
        self.times = FrameTimes(self.index, stream.time_base) if self.index.has_times else None
        self.fps = self._average_rate()
        if self.fps is None:
            self.times = None  # of a single frame, too, of which nobody says how long it is shown
        self.zero = float(self.index.time(0) * stream.time_base) if self.index.has_times else None
        self.sound = sound_of(container, file, zero=self.zero, stream=audio_stream, measured=self.index.sounds)
        self.orientation = orientation_at_start(container, stream)

    def _average_rate(self) -> float | None:
        """The container's, unless the times of frames say another."""
        if self.times is None:
            return None
        declared, seconds = self.stream.average_rate, self.times[self.total]
        if declared and abs(float(declared) * seconds / self.total - 1) < 0.01:
            return float(declared)
        if not seconds:
            return float(declared) if declared else None
        return self.total / seconds

    def first_frame(self) -> Any:
        """
        The first that can be decoded (`av.VideoFrame`): what it says of colours and orientation holds for the others.

        Raises:
            MediaError: if there is none.
        """
        way = self.index.way_to([0], 0)
        for _, frame in self._decode(way, _Trust(way), self.access.deadline()):
            return frame
        raise MediaError("has no frame that can be decoded: the file is cut or damaged")

    def read(self, indices: Sequence[int]) -> dict[int, np.ndarray]:
        """
        Args:
            indices (`Sequence[int]`): of frames, in the order in which they are shown.

        Returns:
            `dict`: index -> pixels (height, width, 3), uint8; of those that can be decoded, if damage is skipped.

        Raises:
            MediaError: if one of them cannot be decoded, or, if damage is skipped, if none can.
        """
        convert = FrameConverter(self.size, self.orientation)
        frames: dict[int, np.ndarray] = {}
        wanted, lost, further_back = sorted(set(indices)), list[int](), 0
        self.access.check_pixels(self.stream.height, self.stream.width)
        self.access.take_bytes(len(wanted), *(self.size or (self.stream.height, self.stream.width)))
        deadline = self.access.deadline()
        while wanted:
            way = self.index.way_to(wanted, further_back)
            trust = self._follow(way, convert, frames, deadline)
            missing = [index for index in way.targets.values() if index not in frames]
            if missing and not trust.entered and not way.is_first:
                # Streams without key frames are refreshed bit by bit behind what is called one: begin before it
                further_back = 2 * further_back + 1
                continue
            if missing and not self.skips_damage:
                self._refuse(missing[0], trust)
            lost += missing
            wanted = [index for index in wanted if index not in frames and index not in missing]
            further_back = 0
        if lost:
            logger.warning("%s: left out %d of %d frames, which cannot be decoded", self.name, len(lost), len(indices))
        if not frames:
            raise MediaError(f"none of the frames {sorted(lost)} can be decoded: the file is cut or damaged")
        return frames

    def _follow(
        self, way: Way, convert: FrameConverter, frames: dict[int, np.ndarray], deadline: Deadline
    ) -> "_Trust":
        """Decodes what `way` leads to, as far as it can be trusted."""
        missing, last, trust = dict(way.targets), max(way.targets), _Trust(way)
        for mark, frame in self._decode(way, trust, deadline):
            trusted = trust.holds_for(frame, mark)
            if trusted:
                convert.notice(frame)
            if trusted and mark in missing:
                frames[missing.pop(mark)] = convert(frame)
            if not missing or mark > last or (mark in missing and not self.skips_damage):
                break
        return trust

    def _decode(self, way: Way, trust: "_Trust", deadline: Deadline) -> Iterator[tuple[int, Any]]:
        """The marks of the frames on a way, and the frames."""
        av = import_or_explain("av", "av")
        count = itertools.count()
        for sent, packet in enumerate(packets_from(self.container, self.stream, way.key)):
            deadline.check()
            mark = sent if way.counts else packet.pts
            try:
                decoded = packet.decode()
            except av.FFmpegError as error:
                trust.end_at(mark, error)
                continue
            for frame in decoded:
                mark = next(count) if way.counts else frame.pts
                if mark is not None:
                    yield mark, frame

    def _refuse(self, index: int, trust: "_Trust") -> None:
        if trust.error is not None:
            raise trust.error
        raise MediaError(
            f"frame {index} cannot be decoded: the file is cut or damaged; if a player shows it, re-encode it (ffmpeg "
            "-i INPUT -c:v libx264 OUTPUT.mp4)"
        )


class _Trust:
    """
    Whether frames are what was filmed: behind damage, a decoder guesses until the next key frame, and seldom says so.
    Where what is called a key frame does not come, as it only begins to refresh the picture, all is fresh at the next.

    Attributes:
        entered (`bool`): Whether the key frame came that decoding begins at.
        error (`Exception`, *optional*): The decoder's first.
    """

    def __init__(self, way: Way):
        self.way, self.entered = way, False
        self.error: Exception | None = None
        self.ended_at: float | None = None

    def end_at(self, mark: int | None, error: Exception | None = None) -> None:
        """At a packet or a frame; the frames that come out before may be from behind it in the file."""
        self.ended_at = math.inf if mark is None else max(mark, self.ended_at or mark)
        self.error = self.error or error

    def holds_for(self, frame: Any, mark: int) -> bool:
        if frame.is_corrupt:
            self.end_at(mark)
        elif self.ended_at is not None and frame.key_frame and mark > self.ended_at:
            self.ended_at = None
        self.entered |= mark == self.way.key and self.ended_at is None
        fresh = self.entered or self.way.is_first or mark >= self.way.next_key
        return fresh and self.ended_at is None


def _video_stream(container: Any, choice: int | str | None) -> Any:
    """The stream with the pictures."""
    stream = chosen_stream(container, "video", choice)
    if stream is None:
        raise MediaError(f"has no video stream (streams: {[stream.type for stream in container.streams]})")
    if stream.codec_context is None:
        raise MediaError("has a video codec that is not supported; re-encode it, for example as H.264")
    return stream
