"""The kinds of files that people have: the right frames, the right times, the right sound."""

import math
from pathlib import Path

import numpy as np
import pytest

from transformers_videollama.media import MediaError, Sound, Video, load_video, sample_indices

from .kinds import KINDS, PENDING, Kind
from .making import make
from .signals import corners_of, is_silent, number_of, second_of_samples


RATE = 16_000
CLOCK = 0.0011  # seconds by which a time may be off: Matroska and FLV count milliseconds
PITCH = 0.005  # and a second of sound
SHORTEST = 0.025  # seconds of sound that have a spectrogram
# Parts of the pictures' length
WINDOWS = {"whole": (None, None), "middle": (0.31, 0.72), "last": (0.77, None)}


def cases() -> list:
    """One for each kind and window; those that are wrong today have to fail."""
    return [
        pytest.param(
            name,
            window,
            id=f"{name}-{window}",
            marks=[pytest.mark.xfail(strict=True, reason=PENDING[name, window])] if (name, window) in PENDING else [],
        )
        for name in KINDS
        for window in WINDOWS
    ]


@pytest.fixture(scope="session")
def file_of(tmp_path_factory):
    """Name of a kind -> its file, which is made once."""
    folder, made = tmp_path_factory.mktemp("field"), {}

    def file_of(name: str) -> Path:
        if name not in made:
            recipe = KINDS[name].recipe
            made[name] = make(recipe, folder / f"{len(made)}.{recipe.suffix}")
        return made[name]

    return file_of


def span_of(kind: Kind, window: str) -> tuple[float | None, float | None]:
    """Start and end of a window, in seconds."""
    length = kind.length
    return tuple(None if part is None else round(part * length, 2) for part in WINDOWS[window])


@pytest.mark.parametrize(("name", "window"), cases())
def test_frames_times_and_sound(file_of, name, window):
    kind = KINDS[name]
    start, end = span_of(kind, window)
    path = file_of(name)
    if kind.error:
        with pytest.raises(MediaError, match=f"{path}.*{kind.error}"):
            load_video(path, start=start, end=end, **kind.options)
        return
    video = load_video(path, start=start, end=end, **kind.options)
    check_frames(video, kind, start, end)
    check_sound(video.sound, kind, start, end)


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if not kind.error])
def test_every_frame(file_of, name):
    kind = KINDS[name]
    video = load_video(file_of(name), num_frames=len(kind.numbers))
    assert [number_of(frame) for frame in video.frames] == list(kind.numbers)
    np.testing.assert_allclose(video.timestamps, kind.shown_at, atol=CLOCK)


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
        assert heard.shape[0] == sound.num_channels == kind.channels
        check_seconds(heard, 0.0, stop - begin, first)
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
    check_seconds(heard, from_ - start, to - start, first + from_ - begin)


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
