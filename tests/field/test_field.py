"""The kinds of files that people have: the right frames, the right times, the right sound."""

import math
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest

from transformers_videollama.media import MediaError, Sound, Video, load_sound, load_video, sample_indices

from .changes import damage
from .kinds import KINDS, SOUNDS, Kind
from .making import Recipe, make
from .signals import corners_of, is_silent, number_of, second_of_samples


RATE = 16_000
CLOCK = 0.0011  # seconds by which a time may be off: Matroska and FLV count milliseconds
PITCH = 0.005  # and a second of sound
SHORTEST = 0.025  # seconds of sound that have a spectrogram
# Parts of the pictures' length
WINDOWS = {"whole": (None, None), "middle": (0.31, 0.72), "last": (0.77, None)}


def cases(kinds: dict[str, Kind], windows: Iterable[str]) -> list:
    """One for each kind and window."""
    return [pytest.param(name, window, id=f"{name}-{window}") for name in kinds for window in windows]


def span_of(kind: Kind, window: str) -> tuple[float | None, float | None]:
    """Start and end of a window, in seconds."""
    length = kind.length
    return tuple(None if part is None else round(part * length, 2) for part in WINDOWS[window])


@pytest.mark.parametrize(("name", "window"), cases(KINDS, WINDOWS))
def test_frames_times_and_sound(file_of, name, window):
    kind = KINDS[name]
    start, end = span_of(kind, window)
    path = file_of(name)
    if kind.error is not None:
        with pytest.raises(MediaError, match=f"{path}.*{kind.error}"):
            load_video(path, start=start, end=end, **kind.options)
        return
    video = load_video(path, start=start, end=end, **kind.options)
    check_frames(video, kind, start, end)
    check_sound(video.sound, kind, start, end)


@pytest.mark.parametrize(
    ("name", "_"), cases({n: kind for n, kind in KINDS.items() if kind.error is None}, ("every",))
)
def test_every_frame(file_of, name, _):
    kind = KINDS[name]
    video = load_video(file_of(name), num_frames=len(kind.numbers), **kind.options)
    assert [number_of(frame) for frame in video.frames] == list(kind.numbers)
    np.testing.assert_allclose(video.timestamps, kind.shown_at, atol=CLOCK)


@pytest.mark.parametrize(("name", "window"), cases(SOUNDS, WINDOWS))
def test_sound_alone(file_of, name, window):
    kind = SOUNDS[name]
    path = file_of(name)
    begin, stop, second = kind.plays
    start, end = (None if part is None else round(part * (stop - begin), 2) for part in WINDOWS[window])
    if kind.error is not None:
        with pytest.raises(MediaError, match=f"{path}.*{kind.error}"):
            load_sound(path, start=start, end=end).read(0.0, 4.0, RATE)
        return
    sound = load_sound(path, start=start, end=end)
    length = (stop - begin if end is None else end) - (start or 0.0)
    assert sound.duration == pytest.approx(length, abs=0.1)
    heard = sound.read(0.0, length, RATE)
    check_seconds(heard[kind.whole_channels], 0.0, length, second + (start or 0.0))


@pytest.mark.parametrize("suffix", ("mp4", "mkv", "ts", "avi", "flv"))
def test_a_damaged_group_of_pictures(tmp_path, caplog, suffix):
    """Frames 10 to 19 are noise."""
    recipe = Recipe(suffix, video_options={"g": "10", "bf": "0"}, change_packets=damage(10, 20))
    path = make(recipe, tmp_path / f"damaged.{suffix}")
    for start, end, numbers in ((None, 0.95, range(10)), (2.05, None, range(21, 40))):
        video = load_video(path, start=start, end=end, num_frames=len(numbers))
        assert [number_of(frame) for frame in video.frames] == list(numbers)
    with pytest.raises(MediaError, match=f"{path}.*damaged"):
        load_video(path, num_frames=40)
    video = load_video(path, num_frames=40, on_damage="skip")
    assert [number_of(frame) for frame in video.frames] == [*range(10), *range(20, 40)]
    assert video.timestamps[10] == pytest.approx(2.0, abs=CLOCK)
    lost = video.total_num_frames - 30  # MPEG's transport stream does not even have packets of all that are noise
    assert f"left out {lost} of {lost + 30} frames" in caplog.text
    assert lost == 10 or suffix == "ts"


@pytest.mark.parametrize("name", ("uneven mp4", "uneven mkv", "uneven gif", "mp4, silent", "ts, sound"))
@pytest.mark.parametrize("options", ({"sampling": "time", "num_frames": 6}, {"fps": 2.0}))
def test_frames_evenly_in_time(file_of, name, options):
    """At each of the moments the frame is taken that is shown then; one that is shown for longer is taken once."""
    kind = KINDS[name]
    step = kind.length / options["num_frames"] if "num_frames" in options else 1 / options["fps"]
    moments = np.arange(0.0, kind.length - 1e-3, step)
    shown = np.unique(np.searchsorted(np.array(kind.shown_at) - CLOCK, moments, side="right") - 1)
    video = load_video(file_of(name), **options)
    assert [number_of(frame) for frame in video.frames] == list(shown) == list(video.indices)


@pytest.mark.parametrize(
    "suffix", ("mp4", "mov", "mkv", "webm", "avi", "ts", "mpg", "wmv", "flv", "ogv", "nut", "gif", "webp", "apng")
)
@pytest.mark.parametrize("frames", (1, 2))
def test_a_few_frames(tmp_path, suffix, frames):
    base = KINDS[f"{suffix}, silent"].recipe
    path = make(replace(base, frames=frames), tmp_path / f"few.{suffix}")
    video = load_video(path)
    assert [number_of(frame) for frame in video.frames] == list(range(frames))
    assert [corners_of(frame) for frame in video.frames] == ["RGBW"] * frames


def check_frames(video: Video, kind: Kind, start: float | None, end: float | None) -> None:
    """The frames that are chosen by their index, of those that are shown within the span."""
    begin, stop = start or 0.0, math.inf if end is None else end
    within = [index for index, time in enumerate(kind.shown_at) if begin <= time < stop]
    indices = [within[index] for index in sample_indices(len(within))]
    assert video.total_num_frames == len(kind.numbers)
    assert list(video.indices) == indices
    assert [number_of(frame) for frame in video.frames] == [kind.numbers[index] for index in indices]
    assert {corners_of(frame) for frame in video.frames} == {kind.corners}
    np.testing.assert_allclose(video.timestamps, [kind.shown_at[index] for index in indices], atol=CLOCK)


def check_sound(sound: Sound | None, kind: Kind, start: float | None, end: float | None) -> None:
    if kind.plays is None:
        assert sound is None
    elif start is None:
        begin, stop, first = kind.plays
        assert sound.duration == pytest.approx(stop - begin, abs=0.1)
        heard = sound.read(0.0, stop - begin, RATE)
        assert len(heard) == sound.num_channels == len(kind.whole_channels)
        check_seconds(heard[kind.whole_channels], 0.0, stop - begin, first)
    else:
        check_span(sound, kind, start, kind.length if end is None else end)


def check_span(sound: Sound | None, kind: Kind, start: float, end: float) -> None:
    """On the clock of the pictures: silence, then what plays, then silence."""
    begin, stop, first = kind.plays
    from_, to = max(start, begin), min(end, stop)
    if to - from_ < SHORTEST:
        assert sound is None
        return
    heard = sound.read(0.0, end - start, RATE)
    check_seconds(heard[kind.whole_channels], from_ - start, to - start, first + from_ - begin)


def check_seconds(heard: np.ndarray, begin: float, end: float, second: float) -> None:
    """
    Whether `heard`, of shape (channels, samples), is silent before `begin`, has `second` there and goes on until
    `end`, and is silent then.
    """
    edge = 0.03  # which coders blur
    for channel in heard:
        before, after = channel[: max(0, round((begin - edge) * RATE))], channel[round((end + edge) * RATE) :]
        assert not before.size or is_silent(before)
        assert not after.size or is_silent(after)
        at = math.ceil(begin * RATE)
        assert second_of_samples(channel[at:], RATE) == pytest.approx(second, abs=PITCH)
        late = round((end - 0.3) * RATE)
        assert second_of_samples(channel[late:], RATE) == pytest.approx(second + (late - at) / RATE, abs=PITCH)
