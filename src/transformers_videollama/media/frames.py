"""The wanted frames of a video file: PyAV seeks to the key frames before them, and decodes from there.

An MP4 file says in its header where its frames are, so that an hour costs what a minute costs. All packets of other
files are read once, without being decoded.
"""

import bisect
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from .containers import declared_seconds, is_cover_art, open_container
from .errors import MediaError
from .orientation import orientation_at_start
from .pixels import FrameConverter
from .sound import sound_of
from .sources import MediaFile


__all__ = ["MAX_FRAME_BYTES", "VideoFile"]

MAX_FRAME_BYTES = 4 << 30  # of the decoded frames of one video; 32 frames of 8K are 3 GiB
MAX_THREADS = 4  # of a decoder: each holds some frames, of 12 MB at 4K
SHOWN_IN_VP8 = 0x10  # bit of a frame's first byte (RFC 6386, 9.1); other frames are references alone


class VideoFile:
    """
    The video stream of a file.

    Args:
        file ([`MediaFile`])
        size (`tuple[int, int]`, *optional*): (height, width) that frames are scaled to; by default they keep theirs.

    Attributes:
        total (`int`): How many frames are shown.
        fps (`float`, *optional*)
        sound ([`Sound`], *optional*)

    Raises:
        MediaError: for a file without a video stream, or that is cut.
    """

    def __init__(self, file: MediaFile, size: tuple[int, int] | None):
        self.file, self.name, self.size = file, file.name, size
        with open_container(file) as container:
            stream = _video_stream(container)
            self.stream_index = stream.index
            self.fps = float(stream.average_rate) if stream.average_rate else None
            self.sound = sound_of(container, file)
            self.index = _HeaderIndex.of(container, stream) or _PacketIndex(container, stream)
            self.orientation = orientation_at_start(container, stream)
        self.total = self.index.total

    def read(self, indices: Sequence[int]) -> np.ndarray:
        """
        Args:
            indices (`Sequence[int]`): of frames, in the order in which they are shown.

        Returns:
            `np.ndarray` of shape `(len(indices), height, width, 3)`, uint8.

        Raises:
            MediaError: if one of them cannot be decoded.
        """
        convert, frames = FrameConverter(self.size, self.orientation), {}
        wanted = sorted(set(indices))
        with open_container(self.file) as container:
            stream = container.streams[self.stream_index]
            stream.thread_type = "AUTO"
            stream.codec_context.thread_count = min(MAX_THREADS, torch.get_num_threads())
            _check_bytes(len(wanted), self.size or (stream.height, stream.width))
            while wanted:
                way = self.index.way_to(wanted, container, stream)
                for index, frame in self._decode(container, stream, way, convert.notice):
                    frames[index] = convert(frame)
                wanted = [index for index in wanted if index not in frames]
        return np.stack([frames[index] for index in indices])

    def _decode(
        self, container: Any, stream: Any, way: "Way", notice: Callable[[Any], None]
    ) -> Iterator[tuple[int, Any]]:
        """The frames that `way` leads to, with their numbers; all that are decoded are noticed."""
        missing = set(way.targets)
        count = itertools.count()
        for packet in _packets_from(container, stream, way.key):
            for frame in packet.decode():
                if frame.is_corrupt:
                    continue
                notice(frame)
                mark = next(count) if way.counts else frame.pts
                if mark in missing:
                    missing.remove(mark)
                    yield way.targets[mark], frame
                if not missing:
                    return
        raise MediaError(
            f"frame {min(way.targets[mark] for mark in missing)} cannot be decoded: the file is cut or damaged; if a "
            "player shows it, re-encode it (ffmpeg -i INPUT -c:v libx264 OUTPUT.mp4)"
        )


@dataclass(frozen=True)
class Way:
    """
    How to come to some frames.

    Attributes:
        key (`tuple[str, int]`): The key frame to begin at: "pts" or "dts", and its value in the stream's time base.
        targets (`dict`): Mark -> number of a wanted frame. The mark is the time at which the frame is shown.
        counts (`bool`): Whether the mark is the number of frames that the decoder gives before it, for want of times.
    """

    key: tuple[str, int]
    targets: dict[int, int]
    counts: bool = False


class _HeaderIndex:
    """
    The header of an MP4 file: decoding times, key frames, and which frames an edit list hides.

    The order in which frames are shown is not their order in the file. But no frame is shown before the key frame that
    comes before it in the file, unless it comes right after the next one ("open" groups of pictures).
    """

    def __init__(self, keys: list[tuple[int, int]], total: int):
        self.keys, self.total = keys, total  # of a key frame: shown frames before it in the file, and its dts

    @classmethod
    def of(cls, container: Any, stream: Any) -> "_HeaderIndex | None":
        """`None` if the header does not have all frames."""
        entries = stream.index_entries
        if "mp4" not in container.format.name or not 0 < len(entries) == stream.frames:
            return None
        keys, shown = [], 0
        for entry in entries:
            if entry.is_keyframe:
                keys.append((shown, entry.timestamp))
            shown += not entry.is_discard
        return cls(keys, shown) if keys and keys[0][0] == 0 else None

    def way_to(self, wanted: list[int], container: Any, stream: Any) -> Way:
        number = bisect.bisect_right(self.keys, wanted[0], key=lambda key: key[0]) - 1
        near = _before(wanted, self.keys[number + 1][0] if number + 1 < len(self.keys) else self.total)
        while True:
            position, dts = self.keys[number]
            key_time, times = _times_behind(container, stream, dts, near[-1] - position + 1)
            # A frame that is shown before the key frame refers to frames that come before that in the file
            if number == 0 or times[near[0] - position] >= key_time:
                return Way(("pts", key_time), {times[index - position]: index for index in near})
            number, near = number - 1, near[:1]


class _PacketIndex:
    """The packets of a file, all of which are read: the times of frames, and which are key frames."""

    def __init__(self, container: Any, stream: Any):
        keys, times = [], []
        for packet in container.demux(stream):
            if packet.pts is None or packet.is_discard or _is_hidden(packet, stream):
                continue
            if packet.is_keyframe:
                keys.append(packet.pts)
            if keys:  # those before the first cannot be decoded
                times.append(packet.pts)
        if not times:
            raise MediaError("its video has no frames that can be decoded; re-encode it, for example as H.264 in MP4")
        # In AVI files FFmpeg guesses the times of H.264, and not that frames are shown in another order
        self.counts = container.format.name == "avi" and stream.codec_context.has_b_frames and times == sorted(times)
        self.keys, self.times, self.total = sorted(keys), sorted(times), len(times)
        _check_completeness(container, stream, self.times)

    def way_to(self, wanted: list[int], container: Any, stream: Any) -> Way:
        if self.counts:
            return Way(("pts", self.keys[0]), {index: index for index in wanted}, counts=True)
        number = bisect.bisect_right(self.keys, self.times[wanted[0]])
        end = self.keys[number] if number < len(self.keys) else math.inf
        near = _before(wanted, bisect.bisect_left(self.times, end))
        return Way(("pts", self.keys[max(number - 1, 0)]), {self.times[index]: index for index in near})


def _before(wanted: list[int], end: int) -> list[int]:
    """The first, and those of the others that are before `end`."""
    return [wanted[0], *(index for index in wanted[1:] if index < end)]


def _times_behind(container: Any, stream: Any, key_dts: int, number: int) -> tuple[int, list[int]]:
    """When a key frame is shown, and when the first `number` frames are, of it and what follows it in the file."""
    times: list[int] = []
    key_time = None
    for packet in _packets_from(container, stream, ("dts", key_dts)):
        if packet.pts is None:
            continue
        key_time = packet.pts if key_time is None else key_time
        # Later packets are shown when they are decoded, or later
        if len(times) >= number and packet.dts is not None and packet.dts > times[number - 1]:
            break
        if not packet.is_discard:
            bisect.insort(times, packet.pts)
    if key_time is None or len(times) < number:
        raise MediaError("is cut: frames that its header names are missing; fetch it again")
    return key_time, times


def _packets_from(container: Any, stream: Any, key: tuple[str, int]) -> Iterator[Any]:
    """The packets from a key frame on; if a seek does not land before it, the file is read from its beginning."""
    clock, time = key
    # Files are sought by the times at which frames are shown, which are later than those of decoding
    delay = (stream.start_time or 0) - stream.index_entries[0].timestamp if clock == "dts" else 0
    for seek_to in (time + delay, -(1 << 40)):
        container.seek(seek_to, stream=stream)
        packets = container.demux(stream)
        for packet in packets:
            at = getattr(packet, clock)
            if at == time and packet.is_keyframe:
                yield from itertools.chain([packet], packets)
                return
            if at is not None and at > time and packet.is_keyframe:
                break


def _is_hidden(packet: Any, stream: Any) -> bool:
    return stream.codec_context.name == "vp8" and not memoryview(packet)[0] & SHOWN_IN_VP8


def _video_stream(container: Any) -> Any:
    """The stream with the pictures."""
    stream = container.streams.best("video")
    if stream is None or is_cover_art(stream):
        raise MediaError(f"has no video stream (streams: {[stream.type for stream in container.streams]})")
    if stream.codec_context is None:
        raise MediaError("has a video codec that is not supported; re-encode it, for example as H.264")
    return stream


def _check_completeness(container: Any, stream: Any, times: list[int]) -> None:
    """Whether the packets reach the end that the header declares."""
    if "matroska" in container.format.name:
        declared, end = declared_seconds(container, stream) or 0.0, float(times[-1] * stream.time_base)
        if end < declared - 1:
            raise MediaError(f"is cut: its frames end at {end:.2f} s of {declared:.2f} s; fetch it again")
    if len(times) < stream.frames:
        raise MediaError(f"is cut: it has {len(times)} of {stream.frames} frames; fetch it again")


def _check_bytes(num_frames: int, size: tuple[int, int]) -> None:
    num_bytes = 3 * num_frames * math.prod(size)
    if num_bytes > MAX_FRAME_BYTES:
        raise MediaError(
            f"{num_frames} frames of {size} are {num_bytes} bytes, more than {MAX_FRAME_BYTES} (MAX_FRAME_BYTES); ask "
            "for fewer frames or a smaller size"
        )
