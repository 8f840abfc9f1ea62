"""Times of frames are the container's, and files whose headers say little, or not the truth, give their frames."""

import logging
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from transformers_videollama.media import MediaError, load_sound, load_video, sample_indices


UNEVEN = (0.0, 10.0, *(20 + number / 30 for number in range(18)))
TICK = Fraction(1, 600)
REFRESH = {"x264-params": "intra-refresh=1:keyint=8:bframes=0"}


class Pipe:
    """What a muxer writes to and cannot go back in."""

    def __init__(self, path: Path):
        self.file = path.open("wb")

    def write(self, data: bytes) -> int:
        return self.file.write(data)


def shade(number: int) -> np.ndarray:
    """A frame that shows its number: a bright square at one of 48 places, on noise."""
    pixels = np.random.default_rng(0).integers(60, 100, (48, 64, 3), dtype=np.uint8)
    row, column = divmod(number, 8)
    pixels[row * 8 : row * 8 + 8, column * 8 : column * 8 + 8] = 235
    return pixels


def numbers(frames: np.ndarray) -> list[int]:
    squares = frames.mean(axis=-1).reshape(len(frames), 6, 8, 8, 8).mean(axis=(2, 4))
    return [int(square.argmax()) for square in squares]


def write(
    path: Path,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    *,
    times: tuple[float, ...] = tuple(number / 10 for number in range(20)),
    sounds: tuple[str, ...] = (),
    begins_at: float = 0.0,
    piped: bool = False,
    format: str | None = None,
    drop: tuple[int, ...] = (),
    damage: tuple[int, ...] = (),
    container_options: dict[str, str] | None = None,
) -> Path:
    """Frames at `times`, and sound tracks in these languages; packets may be dropped or filled with noise."""
    target = Pipe(path) if piped else str(path)
    with av.open(target, "w", format=format, options=container_options or {}) as container:
        rate = 25 if codec == "mpeg2video" else 10
        stream = container.add_stream(codec, rate=rate, options={"g": "5"} if options is None else options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p" if codec == "mjpeg" else "yuv420p"
        if times == UNEVEN:
            stream.codec_context.time_base = TICK
        tracks = [container.add_stream("pcm_s16le", rate=8000, layout="mono") for _ in sounds]
        for track, language in zip(tracks, sounds, strict=True):
            track.metadata["language"] = language
        packets: list[Any] = []
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(shade(number), format="rgb24")
            frame.time_base = TICK if times == UNEVEN else Fraction(1, rate)
            frame.pts = round(time / frame.time_base) if rate == 10 else number
            packets += stream.encode(frame)
        packets += stream.encode()
        packets = [damaged(packet) if n in damage else packet for n, packet in enumerate(packets) if n not in drop]
        for number, track in enumerate(tracks):
            samples = np.full((1, 8000 * 2), 1000 * (number + 1), np.int16)
            frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
            frame.sample_rate, frame.pts = 8000, 0
            packets += [*track.encode(frame), *track.encode(None)]
        for packet in packets:
            packet.pts += round(begins_at / packet.time_base)
            packet.dts += round(begins_at / packet.time_base)
        container.mux(sorted(packets, key=lambda packet: packet.dts * packet.time_base))
    return path


def damaged(packet: Any) -> Any:
    content = bytes(packet)
    noisy = av.Packet(content[:8] + np.random.default_rng(0).bytes(len(content) - 8))
    for name in ("stream", "pts", "dts", "time_base", "duration", "is_keyframe"):
        setattr(noisy, name, getattr(packet, name))
    return noisy


# ------------------------------------------------------------------------------------------------------ choosing


def spaced(*times: float) -> dict:
    return {"total_num_frames": len(times) - 1, "times": times}


@pytest.mark.parametrize(
    ("options", "indices"),
    (
        ({}, [0, 1, 2, 3, 4]),
        ({"start": 0, "end": 2.5}, [0, 1]),
        ({"start": 0.5}, [1, 2, 3, 4]),
        ({"start": 2.9995, "end": 3.2}, [2, 3]),  # the clocks of many containers count milliseconds
        ({"start": 4, "end": 6}, [4]),  # the frame that is shown all along
        ({"start": 9.9, "end": 99}, [4]),
        ({"end": 0.0001}, [0]),
        ({"fps": 1}, [0, 1, 2, 4]),
        ({"fps": 1e9}, [0, 1, 2, 3, 4]),
        ({"fps": 0.5, "start": 2}, [2, 4]),
        ({"sampling": "time", "num_frames": 2}, [0, 4]),
        ({"sampling": "time", "num_frames": 10}, [0, 1, 2, 4]),
        ({"sampling": "time", "num_frames": 1 << 62}, [0, 1, 2, 3, 4]),
        ({"sampling": "time", "num_frames": 3, "end": 3}, [0, 1]),
        ({"sampling": "headtail", "num_frames": 5}, [0, 1, 2, 3, 4]),
    ),
)
def test_given_times_choose_frames(options, indices):
    assert sample_indices(**spaced(0, 1, 3, 3.1, 3.4, 10), **options) == indices


@pytest.mark.parametrize("fps", (1e-12, 1e-300, 5e-324))
def test_the_lowest_rates_give_the_first_frame(fps):
    assert sample_indices(100, video_fps=25, fps=fps) == [0]
    assert sample_indices(**spaced(0, 1, 3, 3.1, 3.4, 10), fps=fps) == [0]


@pytest.mark.parametrize("options", ({"start": 10}, {"start": 2, "end": 2}))
def test_spans_outside_of_given_times_are_refused(options):
    with pytest.raises(MediaError, match=r"expected one within 0 to 10\.000 s"):
        sample_indices(**spaced(0, 1, 3, 3.1, 3.4, 10), **options)


@pytest.mark.parametrize("rate", (10, 24, 25, 30, 60))
@pytest.mark.parametrize(
    "options", ({}, {"fps": 1}, {"fps": 2.5}, {"fps": 999}, {"start": 1, "end": 3}, {"start": 0.5, "fps": 2})
)
def test_evenly_spaced_times_choose_what_their_rate_chooses(rate, options):
    """Also if they are rounded to milliseconds."""
    times = [round(number / rate, 3) for number in range(301)]
    assert sample_indices(300, times=times, **options) == sample_indices(300, video_fps=rate, **options)
    assert sample_indices(300, 8, sampling="time", times=times) == sample_indices(300, 8, sampling="time")


def test_only_the_times_that_are_needed_are_looked_up():
    class Times(list):
        asked = 0

        def __getitem__(self, number):
            self.asked += 1
            return super().__getitem__(number)

    times = Times(number / 25 for number in range(90_001))
    assert len(sample_indices(90_000, times=times)) == 8
    assert times.asked == 0
    sample_indices(90_000, times=times, start=60, end=90)
    sample_indices(90_000, times=times, sampling="time")
    assert times.asked < 400


def test_numbers_of_frames_are_whole():
    assert sample_indices(100, 4.0) == [0, 25, 50, 75]
    with pytest.raises(ValueError, match=r"num_frames=7.5, expected a positive whole number"):
        sample_indices(100, 7.5)


# -------------------------------------------------------------------------------------------------------- frames


@pytest.mark.parametrize("suffix", ("mp4", "mkv", "flv", "ts"))
@pytest.mark.parametrize("options", ({"g": "5", "bf": "2"}, {"g": "5", "bf": "0"}))
def test_frames_that_are_not_evenly_spaced(tmp_path, suffix, options):
    path = write(tmp_path / f"clip.{suffix}", options=options, times=UNEVEN)
    video = load_video(path, num_frames=1000)
    assert numbers(video.frames) == list(video.indices) == list(range(20))
    np.testing.assert_allclose(video.timestamps, UNEVEN, atol=0.001)
    assert load_video(path, start=0, end=10).indices == (0,)
    assert load_video(path, start=12, end=15).indices == (1,)
    assert load_video(path, start=20.1, end=20.2).indices == (5, 6, 7)
    assert load_video(path, fps=0.1).indices == (0, 1, 2)
    assert load_video(path, num_frames=4, sampling="time").indices == (0, 1)
    assert load_video(path, num_frames=4).indices == (0, 5, 10, 15)  # by number, as in the original


@pytest.mark.parametrize(
    ("name", "made"),
    (
        ("piped.mkv", {"piped": True, "format": "matroska"}),
        ("recorded.mkv", {"piped": True, "format": "matroska", "container_options": {"live": "1"}}),
        ("camera.avi", {"codec": "mjpeg", "options": {}}),
        ("late.mkv", {"begins_at": 10.0}),
        ("late.mov", {"begins_at": 10.0}),
    ),
)
@pytest.mark.parametrize("sounds", ((), ("eng",)))
def test_files_that_say_no_length_or_begin_late(tmp_path, name, made, sounds):
    path = write(tmp_path / name, **made, sounds=sounds)
    video = load_video(path, num_frames=1000)
    assert numbers(video.frames) == list(range(20))
    np.testing.assert_allclose(video.timestamps, np.arange(20) / 10, atol=0.001)
    assert load_video(path, start=1, end=1.2).timestamps == pytest.approx((1.0, 1.1))
    if sounds:
        assert video.sound.duration == pytest.approx(2.0, abs=0.01)
        assert video.sound.read(0, 1, 8000).shape == (1, 8000)


def test_dropped_frames_of_avi_are_not_missing(tmp_path):
    path = write(tmp_path / "clip.avi", "mjpeg", {}, drop=(3, 4, 11))
    video = load_video(path, num_frames=1000)
    kept = [number for number in range(20) if number not in (3, 4, 11)]
    assert numbers(video.frames) == kept
    assert video.timestamps == pytest.approx([number / 10 for number in kept])
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(MediaError, match=r"is cut: it should have \d+ bytes and has \d+"):
        load_video(path)


@pytest.mark.parametrize("suffix", ("mp4", "mkv", "ts", "avi"))
def test_frames_behind_what_is_no_key_frame(tmp_path, suffix):
    """Where pictures are refreshed bit by bit, decoding begins at an earlier point, in the end at the first."""
    path = write(tmp_path / f"clip.{suffix}", options=REFRESH)
    for index in (0, 7, 8, 9, 15, 16, 19):
        assert numbers(load_video(path, start=index / 10, end=index / 10 + 0.05).frames) == [index]
    assert numbers(load_video(path).frames) == sample_indices(20)


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    (
        ("clip.h264", "libx264", {"g": "5", "bf": "2"}),
        ("clip.hevc", "libx265", {"x265-params": "log-level=none:keyint=5"}),
        ("clip.m4v", "mpeg4", {"g": "5"}),
    ),
)
def test_raw_streams_have_frames_without_times(tmp_path, name, codec, options):
    path = write(tmp_path / name, codec, options, format=Path(name).suffix[1:])
    video = load_video(path, num_frames=1000)
    assert numbers(video.frames) == list(range(20))
    assert (video.fps, video.timestamps) == (None, None)
    assert numbers(load_video(path, num_frames=3).frames) == sample_indices(20, 3)
    with pytest.raises(MediaError, match=r"start and end need the frame rate of the video.*pass video_fps"):
        load_video(path, start=1)
    video = load_video(path, start=1, end=1.2, video_fps=10)
    assert (numbers(video.frames), video.timestamps) == ([10, 11], (1.0, 1.1))


def test_a_rate_that_is_not_the_frames_own_is_not_taken(tmp_path):
    path = write(tmp_path / "clip.mkv", times=UNEVEN)  # whose header says 10
    assert load_video(path).fps == pytest.approx(20 / (UNEVEN[-1] + 0.1), rel=0.01)


# ---------------------------------------------------------------------------------------------- tracks and damage


def test_tracks_are_chosen_by_number_or_language(tmp_path):
    path = write(tmp_path / "dubbed.mkv", sounds=("eng", "ger"))

    def loudness(**options):
        return round(float(load_video(path, num_frames=1, **options).sound.read(0, 1, 8000).mean()) * 32768)

    assert [loudness(audio_stream=choice) for choice in (1, 2, "eng", "ger", "deu", "GER")] == [
        *(1000, 2000, 1000, 2000, 2000, 2000)
    ]
    assert numbers(load_video(path, video_stream=0).frames) == sample_indices(20)
    assert load_sound(path, audio_stream="deu").read(0, 1, 8000).mean() == pytest.approx(2000 / 32768, rel=0.01)
    for choice in (7, 0, "fre"):
        with pytest.raises(MediaError, match=rf"has no sound stream {choice!r}; its streams are .*2 audio ger"):
            load_video(path, audio_stream=choice)
    with pytest.raises(MediaError, match=r"has no video stream 1; its streams are .*0 video"):
        load_video(path, video_stream=1)
    for choice in (True, 1.5):
        with pytest.raises(ValueError, match=r"video_stream=.*, expected the index of a stream"):
            load_video(path, video_stream=choice)


@pytest.mark.parametrize("suffix", ("mp4", "mkv", "ts"))
def test_damaged_frames_are_an_error_or_left_out_and_counted(tmp_path, suffix, caplog):
    path = write(tmp_path / f"clip.{suffix}", options={"g": "5", "bf": "0"}, damage=(6, 7))
    with pytest.raises(MediaError, match=r"(is damaged|frame \d cannot be decoded)"):
        load_video(path, num_frames=20)
    with caplog.at_level(logging.WARNING):
        video = load_video(path, num_frames=20, on_damage="skip")
    assert numbers(video.frames) == list(video.indices) == [*range(6), *range(10, 20)]
    assert video.timestamps == pytest.approx([number / 10 for number in video.indices], abs=0.001)
    assert "left out 4 of 20 frames, which cannot be decoded" in caplog.text
    assert load_video(path, start=1.0, end=1.5).indices == (10, 11, 12, 13, 14)  # nothing is damaged there
    with pytest.raises(MediaError, match=r"none of the frames \[7, 8\] can be decoded"):
        load_video(path, start=0.7, end=0.9, on_damage="skip")


@pytest.mark.parametrize("name", ("clip.mp4", "clip.mkv"))
def test_a_file_that_is_cut_has_frames_before_the_cut(tmp_path, name):
    path = write(tmp_path / name, options={"g": "5"}, container_options={"movflags": "faststart"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(MediaError, match=r"is cut"):
        load_video(path)
    video = load_video(path, num_frames=1000, on_damage="skip")
    assert 0 < len(video.frames) < 12
    assert numbers(video.frames) == list(video.indices) == list(range(len(video.frames)))


def test_what_happens_at_damage_is_one_of_two(tmp_path):
    with pytest.raises(ValueError, match=r"on_damage='ignore', expected 'raise' or 'skip'"):
        load_video(tmp_path / "clip.mp4", on_damage="ignore")
