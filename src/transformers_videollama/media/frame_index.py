"""Where the frames of a video stream are: how many are shown, when, and from which key frame each is decoded.

An MP4 file says in its header where its frames are, so that an hour costs what a minute costs. All packets of other
files are read once, without being decoded.
"""

import bisect
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType
from typing import Any

from .containers import NO_TIMES, declared_seconds, read_to_the_end, rewind
from .errors import MediaError
from .sound_lengths import Measured, PacketTimes, is_measured
from .sources import MediaFile


__all__ = ["FrameIndex", "FrameTimes", "Way", "frame_index_of", "packets_from"]

# Seconds before a key frame that are sought, too: a transport stream is sought by times of decoding, which are
# earlier, and gives the packets behind the place
SEEK_EARLIER = (1, 10)
SHOWN_IN_VP8 = 0x10  # bit of a frame's first byte (RFC 6386, 9.1); other frames are references alone


@dataclass(frozen=True)
class Way:
    """
    How to come to some frames.

    Attributes:
        key (`int`, *optional*): The key frame to begin at, by when it is shown, in the stream's time base; `None` is
            the beginning of the file.
        targets (`dict`): Mark -> number of a wanted frame. The mark is the time at which the frame is shown.
        next_key (`float`): When the key frame behind it is shown; infinity if that is behind the wanted frames.
        is_first (`bool`): Whether no key frame is before it.
        counts (`bool`): Whether the mark is the number of frames that the decoder gives before it, for want of times.
    """

    key: int | None
    targets: dict[int, int]
    next_key: float
    is_first: bool
    counts: bool = False


class FrameIndex:
    """
    The frames of a stream, in the order in which they are shown.

    Attributes:
        total (`int`): How many are shown.
        has_times (`bool`): Whether the file says when; `time` and `end` are not to be asked otherwise.
        sounds ([`Measured`]): What was measured of the sounds of the file when it was read for the frames.
    """

    total: int
    has_times = True
    sounds: Measured = MappingProxyType({})

    def time(self, number: int) -> int:
        """When a frame is shown, in the stream's time base."""
        raise NotImplementedError

    def end(self) -> int:
        """When the last one ends."""
        raise NotImplementedError

    def way_to(self, wanted: list[int], further_back: int) -> Way:
        """
        Args:
            wanted (`list[int]`): Numbers of frames, ascending. The way leads to the first, and to others near it.
            further_back (`int`): How many key frames before the right one to begin: for streams that need it.
        """
        raise NotImplementedError


def frame_index_of(container: Any, stream: Any, file: MediaFile, *, must_be_whole: bool) -> FrameIndex:
    """
    Raises:
        MediaError: if there are no frames, or if the file must be whole and is cut.
    """
    return _HeaderIndex.of(container, stream) or _PacketIndex(container, stream, file, must_be_whole)


class FrameTimes(Sequence[float]):
    """When each frame is shown, in seconds from the first, and when the last one ends; looked up when asked for."""

    def __init__(self, frames: FrameIndex, time_base: Fraction):
        self.frames, self.time_base = frames, time_base

    def __len__(self) -> int:
        return self.frames.total + 1

    def __getitem__(self, number: Any) -> Any:
        if isinstance(number, slice):
            return [self[at] for at in range(*number.indices(len(self)))]
        number = range(len(self))[number]
        time = self.frames.time(number) if number < self.frames.total else self.frames.end()
        return float((time - self.frames.time(0)) * self.time_base)


class _HeaderIndex(FrameIndex):
    """
    The header of an MP4 file: decoding times, key frames, and which frames an edit list hides.

    The order in which frames are shown is not their order in the file. But no frame is shown before the key frame that
    comes before it in the file, unless it comes right after the next one ("open" groups of pictures). So the frames
    between two key frames of the file, a group, are shown one after the other. When, their packets say.
    """

    def __init__(self, container: Any, stream: Any, keys: list[tuple[int, float]], total: int):
        self.container, self.stream, self.total = container, stream, total
        # Of a key frame: shown frames before it in the file, and its dts. The last is for what is behind the last one
        self.keys = keys
        self.groups: dict[int, _Group] = {}

    @classmethod
    def of(cls, container: Any, stream: Any) -> "_HeaderIndex | None":
        """`None` if the header does not have all frames."""
        entries = stream.index_entries
        if "mp4" not in container.format.name or not 0 < len(entries) == stream.frames:
            return None
        keys: list[tuple[int, float]] = []
        shown, end, size = 0, math.inf, container.size
        is_cut = entries[-1].pos + entries[-1].size > size  # and may be
        for entry in entries:
            if is_cut and entry.pos + entry.size > size:
                end = entry.timestamp
                break
            if entry.is_keyframe:
                keys.append((shown, entry.timestamp))
            shown += not entry.is_discard
        return cls(container, stream, [*keys, (shown, end)], shown) if shown and keys[0][0] == 0 else None

    def time(self, number: int) -> int:
        group = self._group(self._number_of_group(number))
        return group.shown[number - group.first][0]

    def end(self) -> int:
        time, duration = self._group(self._number_of_group(self.total - 1)).shown[-1]
        return time + duration

    def way_to(self, wanted: list[int], further_back: int) -> Way:
        number = self._number_of_group(wanted[0])
        group = self._group(number)
        near = _before(wanted, group.first + len(group.shown))
        targets = {group.shown[index - group.first][0]: index for index in near}
        # A frame that is shown before the key frame refers to frames that come before that in the file
        begin = max(0, number - (min(targets) < group.key_time) - further_back)
        next_key = self._group(begin + 1).key_time if begin < number else math.inf
        return Way(self._group(begin).key_time, targets, next_key, is_first=begin == 0)

    def _number_of_group(self, index: int) -> int:
        return bisect.bisect_right(self.keys, index, hi=len(self.keys) - 1, key=lambda key: key[0]) - 1

    def _group(self, number: int) -> "_Group":
        if number not in self.groups:
            self.groups[number] = self._read_group(number)
        return self.groups[number]

    def _read_group(self, number: int) -> "_Group":
        (first, dts), (next_first, next_dts) = self.keys[number : number + 2]
        key_time, shown = None, []
        for packet in packets_from(self.container, self.stream, int(dts), clock="dts"):
            if packet.pts is None or packet.dts >= next_dts:
                break
            key_time = packet.pts if key_time is None else key_time
            if not packet.is_discard:
                shown.append((packet.pts, packet.duration or 0))
        if key_time is None or len(shown) != next_first - first:
            raise MediaError("is cut: frames that its header names are missing; fetch it again")
        return _Group(first, key_time, sorted(shown))


@dataclass(frozen=True)
class _Group:
    """
    A key frame, and the frames up to the next in the file.

    Attributes:
        first (`int`): Shown frames before it in the file.
        key_time (`int`): When the key frame is shown.
        shown (`list[tuple[int, int]]`): When its frames are shown, and for how long, in this order.
    """

    first: int
    key_time: int
    shown: list[tuple[int, int]]


class _PacketIndex(FrameIndex):
    """The packets of a file, all of which are read: the times of frames, and which are key frames."""

    def __init__(self, container: Any, stream: Any, file: MediaFile, must_be_whole: bool):
        keys: list[int] = []
        shown: list[tuple[int, int]] = []
        before_keys: list[tuple[int, int]] = []  # cannot be decoded, unless no packet is said to be a key frame
        untimed = ends = 0
        sounds = {sound: PacketTimes() for sound in container.streams.audio if is_measured(container, sound)}
        for packet in read_to_the_end(file, container, stream, *sounds):
            if packet.stream is not stream:
                sounds[packet.stream].notice(packet)
                continue
            if not packet.size or packet.is_discard or _is_hidden(packet, stream):
                continue
            if packet.pts is None:
                untimed += 1
                continue
            ends = (packet.dts or 0) + (packet.duration or 0)
            if packet.is_keyframe:
                keys.append(packet.pts)
            (shown if keys else before_keys).append((packet.pts, packet.duration or 0))
        self.sounds = {sound.index: times.seconds(sound) for sound, times in sounds.items()}
        self.keys, self.shown = sorted(keys), sorted(shown if keys else before_keys)
        self.has_times = bool(self.shown) and not container.format.flags & NO_TIMES
        self.total = len(self.shown) or untimed
        if not self.total:
            raise MediaError("its video has no frames that can be decoded; re-encode it, for example as H.264 in MP4")
        # In AVI files FFmpeg guesses the times of H.264, and not that frames are shown in another order
        guessed = container.format.name == "avi" and stream.codec_context.has_b_frames and shown == self.shown
        self.counts = guessed or not self.shown
        if must_be_whole:
            _check_completeness(container, stream, self.shown, ends)

    def time(self, number: int) -> int:
        return self.shown[number][0]

    def end(self) -> int:
        time, duration = self.shown[-1]
        return time + (duration or (time - self.shown[0][0]) // max(self.total - 1, 1))

    def way_to(self, wanted: list[int], further_back: int) -> Way:
        if self.counts:
            targets = {index: index for index in wanted}
            return Way(self.keys[0] if self.keys else None, targets, math.inf, is_first=True, counts=True)
        number = bisect.bisect_right(self.keys, self.time(wanted[0]))
        end = self.keys[number] if number < len(self.keys) else math.inf
        near = _before(wanted, bisect.bisect_left(self.shown, (end,)))
        begin = max(number - 1 - further_back, 0)
        key = self.keys[begin] if self.keys else None
        next_key = self.keys[begin + 1] if begin < number - 1 else math.inf
        return Way(key, {self.time(index): index for index in near}, next_key, is_first=begin == 0)


def _before(wanted: list[int], end: int) -> list[int]:
    """The first, and those of the others that are before `end`."""
    return [wanted[0], *(index for index in wanted[1:] if index < end)]


def packets_from(container: Any, stream: Any, time: int | None, clock: str = "pts") -> Iterator[Any]:
    """
    The packets from a key frame on; if no seek lands before it, the file is read from its beginning.

    Args:
        time (`int`, *optional*): When the key frame is shown ("pts") or decoded ("dts"), in the stream's time base.
            `None` is the beginning of the file.
        clock (`str`): "pts" or "dts".
    """
    # Files are sought by the times at which frames are shown, which are later than those of decoding
    delay = (stream.start_time or 0) - stream.index_entries[0].timestamp if clock == "dts" else 0
    if time is None:
        rewind(container, stream)
        yield from container.demux(stream)
        return
    earlier = [time + delay - round(seconds / stream.time_base) for seconds in SEEK_EARLIER]
    for place in (time + delay, *(place for place in earlier if place > (stream.start_time or 0)), None):
        if place is None:
            rewind(container, stream)
        else:
            container.seek(place, stream=stream)
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


def _check_completeness(container: Any, stream: Any, shown: list[tuple[int, int]], last_dts_end: int) -> None:
    """Whether the packets reach the end that the header declares."""
    if shown and "matroska" in container.format.name:
        time, duration = shown[-1]
        declared, end = declared_seconds(container, stream) or 0.0, float((time + duration) * stream.time_base)
        if end < declared - 1:
            raise MediaError(f"is cut: its frames end at {end:.2f} s of {declared:.2f} s; fetch it again")
    # AVI counts in frames, also those that were dropped, for which there are empty chunks
    places = last_dts_end if container.format.name == "avi" else len(shown)
    if places < stream.frames < container.size:  # more frames than bytes are a header that was never completed
        raise MediaError(f"is cut: it has {len(shown)} of {stream.frames} frames; fetch it again")
