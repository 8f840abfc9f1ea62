"""Tracks of sound: the samples of an array or of a stream of a file, decoded where they are read."""

import functools
import itertools
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from .access import Deadline
from .channels import as_float, channel_names, samples_of
from .containers import SLACK, ffmpeg_errors, open_unguarded
from .errors import MediaError, import_or_explain
from .sources import MediaFile
from .workers import in_worker


__all__ = ["ArrayTrack", "FileTrack"]

_PREROLL = 1.0  # seconds, and frames, decoded and dropped before a window: lossy codecs need what came before
_PREROLL_FRAMES = 2


class ArrayTrack:
    def __init__(self, samples: np.ndarray, seconds: float):
        self.samples, self.seconds = samples, seconds

    def read(self, windows: Sequence[tuple[int, int]]) -> list[np.ndarray]:
        return [as_float(self.samples[:, first:stop]) for first, stop in windows]


class FileTrack:
    """
    A sound stream of a file.

    Args:
        file ([`MediaFile`])
        index (`int`): Of the stream, among all of the file.
        rate (`int`): Hz.
        channels (`int`): How many.
        seconds (`float`): Its length.
        promised (`bool`): Whether the container says so, and the file is cut if it has less.
    """

    def __init__(self, file: MediaFile, index: int, rate: int, channels: int, seconds: float, promised: bool):
        self.file, self.index, self.rate, self.channels = file, index, rate, channels
        self.seconds, self.promised = seconds, promised
        self._lock = threading.Lock()
        self._kept: Any = None  # the open container: opening again would parse its index again, long in a long file

    def __reduce__(self):
        return type(self), (self.file, self.index, self.rate, self.channels, self.seconds, self.promised)

    def read(self, windows: Sequence[tuple[int, int]]) -> list[np.ndarray]:
        """Samples `[first, stop)` of the track as float32 (channels, samples), fewer if the track ends before."""
        return in_worker(self.file, self._read, windows)

    def _read(self, windows: Sequence[tuple[int, int]]) -> list[np.ndarray]:
        return [self._read_window(first, stop) for first, stop in windows]

    def _read_window(self, first: int, stop: int) -> np.ndarray:
        with self._lock, ffmpeg_errors():
            deadline = self.file.access.deadline()
            seek = first > self._preroll * self.rate
            pieces = self._decode(first, stop, deadline, seek=True) if seek else None
            pieces = self._decode(first, stop, deadline, seek=False) if pieces is None else pieces
        samples = np.concatenate([np.zeros((self.channels, 0), np.float32), *(pieces or [])], axis=1)
        end, promised = (first + samples.shape[1]) / self.rate, self.seconds - SLACK if self.promised else 0.0
        if end < min(stop / self.rate, promised):
            raise MediaError(f"is cut or damaged: its sound breaks off near {end:.2f} s; fetch it again")
        return samples

    def _decode(self, first: int, stop: int, deadline: Deadline, seek: bool) -> list[np.ndarray] | None:
        """The parts of the window in order; `None` if a seek does not land before it."""
        pieces = []
        container, self._kept = self._kept if seek and self._kept else self._open(), None
        stream = container.streams[self.index]
        if seek:
            container.seek(
                int((self._second[0] + first / self.rate - self._preroll) / stream.time_base), stream=stream
            )
        frames = _frames(container, stream, seek)
        position = None if seek and next(frames, None) else 0  # some decoders trim the first frame after a seek
        for frame in frames:
            deadline.check()
            begin = self._begin(frame)
            if position is None:
                if begin is None or begin > first:
                    return None
                position = begin
            self._check(frame, begin, position)
            if seek and begin is not None and begin + frame.samples <= first:
                position = begin  # MPEG program streams give the frame that a seek lands in the time of the next
            pieces.append(samples_of(frame)[:, max(0, first - position) : max(0, stop - position)])
            position += frame.samples
            if position >= stop:
                break
        self._kept = container  # not after an error
        return pieces

    def _open(self) -> Any:
        container = open_unguarded(self.file)
        channel_names(container.streams[self.index].codec_context)  # makes its layout safe to be decoded with
        return container

    @functools.cached_property
    def begin(self) -> float:
        """When the first sample that is decoded plays, by the container, whose header may not know the decoder."""
        time, number = self._second
        return time - number / self.rate

    @property
    def _preroll(self) -> float:
        return max(_PREROLL, _PREROLL_FRAMES * self._second[1] / self.rate)

    @functools.cached_property
    def _second(self) -> tuple[float, int]:
        """Time and number of the first sample of the second frame: the first may be trimmed, or before a gap."""
        return in_worker(self.file, self._find_second)

    def _find_second(self) -> tuple[float, int]:
        with ffmpeg_errors(), self._open() as container:
            frames = list(itertools.islice(container.decode(container.streams[self.index]), 2))
        if not frames:
            raise MediaError("its sound holds no samples")
        return (frames[-1].time or 0.0) + (len(frames) == 1) * frames[0].samples / self.rate, frames[0].samples

    def _begin(self, frame: Any) -> int | None:
        """Number of the first sample of a frame, if the frame has a time.

        If the clock is coarser than samples, it is the nearest whole number of frames after the second.
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
        if begin is not None and position and abs(begin - position) > SLACK * self.rate:
            raise MediaError(
                f"is damaged: its sound jumps from {position / self.rate:.2f} to {begin / self.rate:.2f} s"
            )


def _frames(container: Any, stream: Any, after_seek: bool) -> Iterator[Any]:
    """Decoded frames. A seek may land within a frame: what cannot be decoded before the first whole one is dropped."""
    av = import_or_explain("av", "av")
    begun = not after_seek
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except av.InvalidDataError:
            if begun:
                raise
            continue
        begun = begun or bool(frames)
        yield from frames
