"""Sound of files and arrays. Only the windows that are read are decoded, and they are resampled as in the whole track.

Windows equal those of the whole track, to the sample. The exception is AAC with noise substitution: its noise depends
on where decoding began. MP3 and raw AAC have no index: their packets are walked once, not decoded.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from .access import MediaAccess, access_for
from .channels import channel_names
from .containers import chosen_stream, open_container
from .errors import MediaError, about
from .images import ARRAYS, as_numpy
from .options import Downmix, check_options
from .readers import given_samples
from .resampling import filter_width, resample
from .sampling import span_within
from .sound_lengths import Measured, length_of
from .sources import MediaFile, local_file
from .tracks import ArrayTrack, FileTrack
from .workers import in_worker


__all__ = ["Sound", "load_sound", "sound_of"]

_SHORTEST = 0.025  # seconds, the window of a spectrogram: in a span with less sound there is nothing to be heard


@dataclass(frozen=True, eq=False)
class Sound:
    """A sound track or a span of one, decoded where it is read.

    Attributes:
        name (`str`): its name in messages.
        sampling_rate (`int`): of the track, in Hz.
        num_channels (`int`): of the track.
        duration (`float`): of the span, in seconds.
        channels (`tuple[str]` of length num_channels): FFmpeg's names of the channels, as "FL"; empty if unknown.
        downmix (`"mean"`, `"first"` or `None`): how its channels become one; `None`: as the feature extractor says.
    """

    name: str
    sampling_rate: int
    num_channels: int
    duration: float
    track: Any = field(repr=False)  # has read(windows), of samples at its own rate
    offset: float = field(default=0.0, repr=False)  # of the span in the track, in seconds; silence is around the track
    channels: tuple[str, ...] = field(default=(), repr=False)
    downmix: Downmix | None = field(default=None, repr=False)
    zero: float | None = field(default=None, repr=False)  # the container's time 0 of the video; None: the first sample

    def read(self, start: float, end: float, sampling_rate: int) -> np.ndarray:
        """Read the window `[start, end)`, in seconds of the span; the cost does not grow with the track.

        Returns:
            `np.ndarray` of shape (channels, round((end - start) * sampling_rate)), float32: the samples that the
            whole track has there after `torchaudio.functional.resample`; fewer if the span ends before the window.

        Raises:
            MediaError: the window lies outside, or samples of it are missing, damaged, NaN or infinite.
        """
        return self.read_windows([(start, end)], sampling_rate)[0]

    def read_windows(self, windows: Sequence[tuple[float, float]], sampling_rate: int) -> list[np.ndarray]:
        """Read several windows as `read` does; a worker, where there are some, opens the file once for all.

        Args:
            windows (`Sequence[tuple[float, float]]`): start and end of each, in seconds of the span.
            sampling_rate (`int`): of the samples that are returned, in Hz.

        Returns:
            `list[np.ndarray]`, each of shape (channels, samples), float32.
        """
        with about(self.name):
            if self.duration <= 0 or self.sampling_rate < 1:
                reason = "holds no samples" if self.sampling_rate else "has a codec that is not supported"
                raise MediaError(f"its sound {reason}")
            heard = self._heard([self._samples_of(*window, sampling_rate) for window in windows], sampling_rate)
            for samples, (start, end) in zip(heard, windows, strict=True):
                if samples.shape[1] == 0 or not np.isfinite(samples).all():
                    reason = "NaN or infinite" if samples.size else "no"
                    raise MediaError(f"{reason} samples between {start} and {end} s")
            return heard

    def _samples_of(self, start: float, end: float, sampling_rate: int) -> tuple[int, int]:
        """The samples `[first, stop)` of the resampled track that a window has."""
        if not (0 <= start < end and start < self.duration):
            raise MediaError(f"got the window {start} to {end} s of {self.duration:.3f} s of sound")
        first = round((self.offset + start) * sampling_rate)
        end_of_span = math.ceil((self.offset + self.duration) * sampling_rate - 1e-6)
        return first, min(first + round((end - start) * sampling_rate), end_of_span)

    def _heard(self, spans: list[tuple[int, int]], sampling_rate: int) -> list[np.ndarray]:
        """Samples `[first, stop)` of the resampled track, with silence where a span reaches beyond the track."""
        track_end = math.ceil(self.track.seconds * sampling_rate - 1e-6)
        played = [(max(first, 0), min(stop, track_end)) for first, stop in spans]
        decoded = iter(self._resampled([(begin, end) for begin, end in played if begin < end], sampling_rate))
        heard = []
        for (first, stop), (begin, end) in zip(spans, played, strict=True):
            samples = next(decoded) if begin < end else np.zeros((self.num_channels, 0), np.float32)
            if first < 0 or self.offset + self.duration > self.track.seconds:
                before = min(begin, stop) - first
                samples = np.pad(samples, ((0, 0), (before, stop - first - before - samples.shape[1])))
            heard.append(samples)
        return heard

    def _resampled(self, spans: list[tuple[int, int]], sampling_rate: int) -> list[np.ndarray]:
        """Samples `[first, stop)` of the resampled track.

        The filter repeats after `old` native samples, which make `new` samples. The native window starts at such a
        period, with so many more on both sides that the filter sees what it would see in the whole track.
        """
        divisor = math.gcd(self.sampling_rate, sampling_rate)
        old, new = self.sampling_rate // divisor, sampling_rate // divisor
        margin = math.ceil(filter_width(old, new) / old) + 1
        periods = [max(0, first // new - margin) for first, _ in spans]
        ends = [math.ceil(stop / new) + margin for _, stop in spans]
        natives = self.track.read([(period * old, end * old) for period, end in zip(periods, ends, strict=True)])
        return [
            resample(native, old, new)[:, first - period * new : stop - period * new]
            for native, period, (first, stop) in zip(natives, periods, spans, strict=True)
        ]

    def cut(self, start: float | None, end: float | None) -> "Sound | None":
        """What is heard in the span `[start, end)` of the video whose sound this is.

        Args:
            start, end (`float` seconds, *optional*): on the video's clock; an end that is not given is the sound's.
                Without both, it is the whole sound, from its own first sample.

        Returns:
            `Sound` of that span, with silence where the track does not play; `None` if less than 25 ms of it play.
        """
        if start is None and end is None:
            return self if self.duration > _SHORTEST - 1e-9 else None
        try:
            begin = self._begin
        except MediaError:
            return self  # what is wrong is said where the sound is read: the pictures may be right
        start, end_of_sound = start or 0.0, begin + self.duration
        end = end_of_sound if end is None else end
        heard = min(end, end_of_sound) - max(start, begin)
        return self._part(start - begin, end - begin) if heard > _SHORTEST - 1e-9 else None

    @property
    def _begin(self) -> float:
        """When the first sample plays, on the video's clock."""
        return 0.0 if self.zero is None or not self.sampling_rate else self.track.begin + self.offset - self.zero

    def _part(self, start: float, end: float) -> "Sound":
        """The span `[start, end)` in seconds from the first sample; it may reach beyond the track."""
        return replace(self, offset=self.offset + start, duration=end - start)


def load_sound(
    source: Any,
    *,
    sampling_rate: int | None = None,
    start: float | None = None,
    end: float | None = None,
    audio_stream: int | str | None = None,
    timeout: float | None = None,
    access: MediaAccess | None = None,
) -> Sound:
    """Open a sound, or the sound of a video; `Sound.read` decodes it.

    Args:
        source: a path, http(s) URL, `file:` or base64 `data:` URI, address of fsspec, bytes, or an object with
            `read`; an array or tensor of shape (samples,) or (channels, samples), float in -1..1 or int16; a cell of
            `datasets`, `{"bytes", "path"}` or `{"array", "sampling_rate"}`; torchcodec's `AudioDecoder`, all of whose
            samples are taken; a `Sound`.
        sampling_rate (`int`, *optional*): of samples that come decoded, 16000 by default; a file has its own.
        start, end (`float` seconds, *optional*): the span to open, counted from the sound's first sample; an `end`
            after the sound's end is the sound's end.
        audio_stream (`int` or `str`, *optional*): the track of a file with several: its number among all streams of
            the file, from 0, or its language as the file has it, such as "ger". By default FFmpeg chooses.
        timeout (`float`, *optional*): seconds for a download; `download_timeout` of `access`, 60, by default.
        access (`MediaAccess`, *optional*): what may be opened, and how much work it may be; what
            `restrict_media_access` has set for the process by default.

    Raises:
        ValueError: an `audio_stream` of what is no file.
        MediaError: no sound stream, no samples, or a `sampling_rate` that is not the source's.
        ValueError: an option has a value that it cannot have.
    """
    options = {"sampling_rate": sampling_rate, "start": start, "end": end, "audio_stream": audio_stream}
    sampling_rate, start, end, audio_stream = check_options(options).values()
    if audio_stream is not None and isinstance(source, (Sound, *ARRAYS)):
        raise ValueError(f"got audio_stream={audio_stream!r} for {type(source).__name__}, which has one track")
    if isinstance(source, Sound):
        sound = source
    elif isinstance(source, ARRAYS):
        sound = _sound_of_samples(as_numpy(source), sampling_rate or 16_000)
    elif (decoded := given_samples(source, access_for(access, timeout))) is not None:
        sound = _sound_of_samples(as_numpy(decoded[0]), decoded[1])
    else:
        sound = _sound_of_source(source, audio_stream, access_for(access, timeout))
    with about(sound.name):
        if sampling_rate not in (None, sound.sampling_rate):
            raise MediaError(f"wrong sampling rate given, {sampling_rate} Hz; it has {sound.sampling_rate} Hz")
        if start is None and end is None:
            return sound
        return sound._part(*span_within(start, end, sound.duration))


def _sound_of_source(source: Any, audio_stream: int | str | None, access: MediaAccess) -> Sound:
    file = local_file(source, access)
    with about(file.name):
        sound = in_worker(file, _sound_of_file, file, audio_stream)
    sound.read(0.0, 0.1, 16_000)  # whether it can be decoded at all
    return sound


def _sound_of_file(file: MediaFile, audio_stream: int | str | None) -> Sound:
    with open_container(file) as container:
        sound = sound_of(container, file, stream=audio_stream)
        if sound is None:
            if container.streams.audio:
                raise MediaError("its sound holds no samples")
            raise MediaError(f"has no sound stream (streams: {[stream.type for stream in container.streams]})")
    return sound


def _sound_of_samples(samples: np.ndarray, sampling_rate: int) -> Sound:
    name = f"{samples.dtype} samples of shape {samples.shape}"
    samples = samples[None] if samples.ndim == 1 else samples
    with about(name):
        if samples.ndim != 2 or not samples.size or len(samples) > samples.shape[1]:
            raise MediaError("expected shape (samples,) or (channels, samples), with at least one sample")
        if samples.dtype != np.int16 and not (samples.dtype.kind == "f" and np.abs(samples).max() < 100):
            raise MediaError("expected float from -1 to 1 without NaN, or int16")
    seconds = samples.shape[1] / sampling_rate
    return Sound(name, sampling_rate, len(samples), seconds, ArrayTrack(samples, seconds))


def sound_of(
    container: Any,
    file: MediaFile,
    *,
    zero: float | None = None,
    stream: int | str | None = None,
    measured: Measured | None = None,
) -> Sound | None:
    """The sound of an open container, not yet decoded; the container is left where it was.

    Args:
        container: PyAV's, of `file`.
        zero (`float`, *optional*): the container's time, in seconds, at which the video's clock begins. Without it
            the clock begins with the sound.
        stream (`int` or `str`, *optional*): see `audio_stream` of `load_sound`.
        measured (`Measured`, *optional*): what somebody who has read the packets knows of sounds.

    Returns:
        `Sound`; `None` if the container has no sound stream, or one without a packet.

    Raises:
        MediaError: the container does not have that `stream`, or is damaged.
    """
    chosen = chosen_stream(container, "audio", stream)
    if chosen is None:
        return None
    context = chosen.codec_context  # None for an unknown codec, which is an error where the sound is read
    rate, channels = (context.sample_rate, channel_names(context)) if context else (0, ())
    seconds, promised = length_of(container, file, chosen, measured or {})
    if not seconds:
        return None
    track = FileTrack(file, chosen.index, rate, len(channels), seconds, promised)
    return Sound(file.name, rate, len(channels), seconds, track, channels=channels, zero=zero)
