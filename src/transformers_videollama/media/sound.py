"""Sound of files and arrays. Only the windows that are read are decoded, and they are resampled as in the whole track.

Windows equal those of the whole track, to the sample. The exception is AAC with noise substitution: its noise depends
on where decoding began. MP3 and raw AAC have no index: their packets are walked once, not decoded.
"""

import functools
import itertools
import math
import threading
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from .containers import SLACK, declared_seconds, ffmpeg_errors, open_container, open_unguarded
from .errors import MediaError, about
from .images import ARRAYS, as_numpy
from .options import check_options
from .resampling import filter_width, resample
from .sampling import span_within
from .sources import MediaFile, local_file


__all__ = ["Sound", "load_sound", "sound_of"]

_PREROLL = 1.0  # seconds decoded and dropped before a window of sound: lossy codecs need what came before


@dataclass(frozen=True, eq=False)
class Sound:
    """A sound track or a span of one, decoded where it is read.

    Attributes:
        name (`str`): its name in messages.
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
            whole track has there after `torchaudio.functional.resample`; fewer if the span ends before the window.

        Raises:
            MediaError: the window lies outside, or samples of it are missing, damaged, NaN or infinite.
        """
        with about(self.name):
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
        margin = math.ceil(filter_width(old, new) / old) + 1
        period = max(0, first // new - margin)
        native = self.track.read(period * old, (math.ceil(stop / new) + margin) * old)
        return resample(native, old, new)[:, first - period * new : stop - period * new]

    def cut(self, start: float | None, end: float | None) -> "Sound":
        """The part of this sound in the span `[start, end)`, in seconds; it may be empty."""
        start, end = start or 0.0, self.duration if end is None else min(end, self.duration)
        return replace(self, offset=self.offset + start, duration=max(0.0, end - start))


def load_sound(
    source: Any,
    *,
    sampling_rate: int | None = None,
    start: float | None = None,
    end: float | None = None,
    timeout: float | None = None,
) -> Sound:
    """Open a sound, or the sound of a video; `Sound.read` decodes it.

    Args:
        source: a path, http(s) URL, `file:` or base64 `data:` URI or bytes; an array or tensor of shape (samples,) or
            (channels, samples), float in -1..1 or int16; a `Sound`.
        sampling_rate (`int`, *optional*): of samples that come decoded, 16000 by default; a file has its own.
        start, end (`float` seconds, *optional*): the span to open; an `end` after the sound's end is the sound's end.
        timeout (`float`, *optional*): seconds for a download; `media.sources.DOWNLOAD_TIMEOUT`, 60, by default.

    Raises:
        MediaError: no sound stream, no samples, or a `sampling_rate` that is not the source's.
        ValueError: an option has a value that it cannot have.
    """
    given = check_options({"sampling_rate": sampling_rate, "start": start, "end": end})
    sampling_rate, start, end = given.values()
    if isinstance(source, Sound):
        sound = source
    elif isinstance(source, ARRAYS):
        sound = _sound_of_samples(as_numpy(source), sampling_rate or 16_000)
    else:
        sound = _sound_of_source(source, timeout)
    with about(sound.name):
        if sampling_rate not in (None, sound.sampling_rate):
            raise MediaError(f"wrong sampling rate given, {sampling_rate} Hz; it has {sound.sampling_rate} Hz")
        if start is None and end is None:
            return sound
        return sound.cut(*span_within(start, end, sound.duration))


def _sound_of_source(source: Any, timeout: float | None) -> Sound:
    file = local_file(source, timeout)
    with about(file.name), open_container(file) as container:
        sound = sound_of(container, file)
        if sound is None:
            raise MediaError(f"has no sound stream (streams: {[stream.type for stream in container.streams]})")
    sound.read(0.0, 0.1, 16_000)  # whether it can be decoded at all
    return sound


def _sound_of_samples(samples: np.ndarray, sampling_rate: int) -> Sound:
    name = f"{samples.dtype} samples of shape {samples.shape}"
    samples = samples[None] if samples.ndim == 1 else samples
    with about(name):
        if samples.ndim != 2 or not samples.size or len(samples) > samples.shape[1]:
            raise MediaError("expected shape (samples,) or (channels, samples), with at least one sample")
        if samples.dtype != np.int16 and not (samples.dtype.kind == "f" and np.abs(samples).max() < 100):
            raise MediaError("expected float from -1 to 1 without NaN, or int16")
    return Sound(name, sampling_rate, len(samples), samples.shape[1] / sampling_rate, _ArrayTrack(samples))


def sound_of(container: Any, file: MediaFile) -> Sound | None:
    """The sound of an open container, not yet decoded; `None` if it has no sound stream."""
    stream = container.streams.best("audio")
    if stream is None:
        return None
    declared = declared_seconds(container, stream)
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
    return guessed if abs(guessed - measured) < SLACK else measured


class _ArrayTrack:
    def __init__(self, samples: np.ndarray):
        self.samples = samples

    def read(self, first: int, stop: int) -> np.ndarray:
        return _as_float(self.samples[:, first:stop])


class _FileTrack:
    """A sound stream of a file."""

    def __init__(self, file: MediaFile, index: int, rate: int, channels: int, declared_seconds: float | None):
        self.file, self.index, self.rate, self.channels = file, index, rate, channels
        self.declared_seconds = declared_seconds
        self._lock = threading.Lock()
        self._kept: Any = None  # the open container: opening again would parse its index again, long in a long file

    def __reduce__(self):
        return type(self), (self.file, self.index, self.rate, self.channels, self.declared_seconds)

    def read(self, first: int, stop: int) -> np.ndarray:
        """Samples `[first, stop)` of the track as float32 (channels, samples), fewer if the track ends before."""
        with self._lock, ffmpeg_errors():
            pieces = self._decode(first, stop, seek=True) if first > _PREROLL * self.rate else None
            pieces = self._decode(first, stop, seek=False) if pieces is None else pieces
        samples = np.concatenate([np.zeros((self.channels, 0), np.float32), *(pieces or [])], axis=1)
        end, promised = (first + samples.shape[1]) / self.rate, (self.declared_seconds or 0.0) - SLACK
        if end < min(stop / self.rate, promised):
            raise MediaError(f"is cut or damaged: its sound breaks off near {end:.2f} s; fetch it again")
        return samples

    def _decode(self, first: int, stop: int, seek: bool) -> list[np.ndarray] | None:
        """The parts of the window in order; `None` if a seek does not land before it."""
        pieces = []
        container, self._kept = self._kept if seek and self._kept else open_unguarded(self.file), None
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
        with open_container(self.file) as container:
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


def _samples(frame: Any) -> np.ndarray:
    """float32 (channels, samples) of a PyAV frame, which has (1, samples * channels) if it is not planar."""
    samples = frame.to_ndarray()
    return _as_float(samples if frame.format.is_planar else samples.reshape(-1, frame.layout.nb_channels).T)


def _as_float(samples: np.ndarray) -> np.ndarray:
    """float32 from -1 to 1."""
    if samples.dtype.kind == "f":
        return samples.astype(np.float32)
    zero, scale = (128, 128) if samples.dtype == np.uint8 else (0, 2.0 ** (8 * samples.itemsize - 1))
    return ((samples - np.float64(zero)) / scale).astype(np.float32)
