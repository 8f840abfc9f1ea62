"""Sound of files as people have them: where it begins, how long it is, which track, and what a span hears."""

import copy
import pickle
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from transformers_videollama import MediaError, Sound, VideoLlamaFeatureExtractor, load_sound, load_video
from transformers_videollama.media import tracks
from transformers_videollama.media.containers import open_container
from transformers_videollama.media.sound import sound_of
from transformers_videollama.media.sources import local_file


RATE, SECONDS = 48_000, 4
# Suffix -> FFmpeg's name of the container, encoders of pictures and sound, its options
CONTAINERS = {
    "mp4": ("mp4", "mpeg4", "aac", {}),
    "fragments.mp4": ("mp4", "mpeg4", "aac", {"movflags": "frag_keyframe+delay_moov"}),
    "mov": ("mov", "mpeg4", "pcm_s16le", {}),
    "mkv": ("matroska", "mpeg4", "aac", {}),
    "webm": ("webm", "libvpx", "libopus", {}),
    "recorded.webm": ("webm", "libvpx", "libopus", {"live": "1"}),
    "flv": ("flv", "flv", "libmp3lame", {}),
    "mpg": ("mpeg", "mpeg2video", "mp2", {}),
    "vob": ("vob", "mpeg2video", "ac3", {}),
    "ts": ("mpegts", "mpeg2video", "aac", {}),
    "wmv": ("asf", "wmv2", "wmav2", {}),
    "avi": ("avi", "mpeg4", "pcm_s16le", {}),
}
HOLDS_OFFSETS = tuple(name for name in CONTAINERS if name != "avi")


def noise(seconds: float) -> np.ndarray:
    return (np.random.default_rng(0).standard_normal(round(seconds * RATE)) * 0.2).astype(np.float32)


def record(path: Path, *, at: float = 0.0, begins_at: float = 0.0, seconds: float = SECONDS, tracks: int = 1) -> Path:
    """Pictures of `SECONDS`, and noise that begins `at` seconds later: in every track, but turned in each second."""
    form, pictures, sound, options = CONTAINERS[path.name.partition(".")[2]]
    rate = 44_100 if form == "flv" else RATE
    with av.open(str(path), "w", format=form, options=options) as container:
        video = container.add_stream(pictures, rate=25, width=32, height=32, pix_fmt="yuv420p")
        audios = [container.add_stream(sound, rate=rate, layout="mono") for _ in range(tracks)]
        for audio, language in zip(audios, ("ger", "fre", "eng"), strict=False):
            audio.bit_rate = 128_000  # the encoder of WMV has no default
            audio.metadata["language"] = language
        container.start_encoding()
        packets = []
        for number in range(25 * SECONDS):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), number, np.uint8), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            packets += moved(video.encode(frame), begins_at)
        packets += moved(video.encode(), begins_at)
        for number, audio in enumerate(audios):
            packets += moved(encode(audio, noise(seconds) * (-1) ** number, rate), begins_at + at)
        container.mux(sorted(packets, key=lambda packet: packet.dts * packet.time_base))
    return path


def encode(stream, samples: np.ndarray, rate: int) -> list:
    resampler = av.AudioResampler(format=stream.codec_context.format, layout="mono", rate=rate)
    packets = []
    for begin in range(0, len(samples), 1024):
        frame = av.AudioFrame.from_ndarray(samples[None, begin : begin + 1024], format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = rate, begin, Fraction(1, rate)
        for piece in resampler.resample(frame):
            packets += stream.encode(piece)
    return [*packets, *stream.encode(None)]


def moved(packets: list, seconds: float) -> list:
    for packet in packets:
        packet.pts += round(seconds / packet.time_base)
        packet.dts += round(seconds / packet.time_base)
    return packets


def sound_of_video(path: Path, **options) -> Sound | None:
    """On the clock of its pictures."""
    with av.open(str(path)) as container:
        zero = next(container.decode(video=0)).time
    file = local_file(path)
    with open_container(file) as container:
        return sound_of(container, file, zero=zero, **options)


def decoded(path: Path) -> tuple[np.ndarray, int]:
    with av.open(str(path)) as container:
        frames = list(container.decode(audio=0))
    return np.concatenate([tracks.samples_of(frame) for frame in frames], axis=1)[0], frames[0].sample_rate


def lag(samples: np.ndarray, rate: int, wanted: np.ndarray) -> float:
    """By how many seconds `samples` play later than `wanted`, which have about the same noise."""
    size = 1 << (len(samples) + len(wanted)).bit_length()
    product = np.fft.irfft(np.fft.rfft(samples, size) * np.conj(np.fft.rfft(wanted, size)), size)
    at = int(product.argmax())
    return (at if at < size // 2 else at - size) / rate


# ------------------------------------------------------------------------------------------------------ a span's sound


@pytest.mark.parametrize("at", (-2.0, -0.3, 0.0, 0.3, 3.0))
@pytest.mark.parametrize("name", HOLDS_OFFSETS)
def test_a_span_hears_what_plays_with_its_pictures(tmp_path, name, at):
    path = record(tmp_path / f"clip.{name}", at=at)
    rate = 44_100 if name == "flv" else RATE
    whole = np.zeros(10 * rate, np.float32)  # from 2 s before the pictures on
    whole[round((2 + at) * rate) :][: SECONDS * rate] = noise(SECONDS)[: SECONDS * rate]
    if "mp4" in name or name == "mov":
        whole[: 2 * rate] = 0  # an edit list takes away what plays before the pictures
    sound = sound_of_video(path)
    for start, end in ((0.0, 1.0), (1.0, 2.0), (3.2, 4.0)):
        wanted = whole[round((2 + start) * rate) : round((2 + end) * rate)]
        cut = sound.cut(start, end)
        if np.count_nonzero(wanted) < 0.1 * rate:
            assert cut is None or np.abs(cut.read(0, end - start, rate)).mean() < 0.05
            continue
        assert cut.duration == pytest.approx(end - start)
        samples = cut.read(0, end - start, rate)[0]
        assert len(samples) == len(wanted)
        assert lag(samples, rate, wanted) == pytest.approx(0, abs=0.002)


@pytest.mark.parametrize("name", ("mkv", "webm", "ts", "mp4"))
def test_a_file_that_does_not_begin_at_zero_is_whole(tmp_path, name):
    path = record(tmp_path / f"clip.{name}", begins_at=5.0)
    sound = sound_of_video(path)
    assert sound.duration == pytest.approx(SECONDS, abs=0.05)
    assert load_sound(path).read(3.5, SECONDS, RATE).shape == (1, RATE // 2)
    assert lag(sound.cut(3.0, 3.9).read(0, 0.9, RATE)[0], RATE, noise(4)[3 * RATE :]) == pytest.approx(0, abs=0.002)


@pytest.mark.parametrize("name", CONTAINERS)
def test_windows_in_the_middle_are_those_of_the_decoded_track(tmp_path, name):
    """Also where a seek lands in the middle of a frame, as in program streams."""
    path = record(tmp_path / f"clip.{name}")
    whole, rate = decoded(path)
    sound = load_sound(path)
    assert sound.duration == pytest.approx(len(whole) / rate, abs=0.05)
    for start in (0.0, 1.3, 2.0, 2.7, 3.1):
        samples = sound.read(start, start + 0.5, rate)[0]
        assert lag(samples, rate, whole[round(start * rate) :][: rate // 2]) == 0


def test_silence_fills_what_the_track_does_not_play():
    sound = load_sound(np.ones(16_000, np.float32), sampling_rate=16_000)
    span = sound.cut(0.5, 3.0)
    assert (span.duration, sound.duration) == (2.5, 1.0)
    samples = span.read(0.0, 2.5, 16_000)[0]
    assert samples.shape == (40_000,)
    assert samples[:8000].all()
    assert not samples[8000:].any()
    assert not span.read(1.0, 2.0, 16_000).any()


@pytest.mark.parametrize(("end", "heard"), ((0.0249, False), (0.025, True), (1.0, True)))
def test_a_span_with_less_than_a_window_of_sound_has_none(end, heard):
    sound = load_sound(np.ones(16_000, np.float32), sampling_rate=16_000)
    assert (sound.cut(0.0, end) is not None) == heard
    assert (sound.cut(1.0 - end, 9.0) is not None) == heard
    assert sound.cut(1.0, 9.0) is None
    whole = load_sound(np.ones(round(end * 16_000), np.float32), sampling_rate=16_000)
    assert (whole.cut(None, None) is whole) == heard


@pytest.mark.parametrize(("seconds", "end"), ((3.0, None), (3.0, 1e6), (8.0, None), (8.0, 5.0)))
def test_the_sound_of_a_span_ends_with_the_video(tmp_path, seconds, end):
    """Clips lie where frames do, be the sound shorter or longer, and the wanted end after the video's."""
    video = load_video(record(tmp_path / "clip.mkv", seconds=seconds), start=2.0, end=end)
    assert video.sound.duration == pytest.approx(SECONDS - 2, abs=0.05)
    samples = video.sound.read(0, 2, RATE)[0]
    assert np.abs(samples[: RATE // 2]).mean() > 0.05
    assert (np.abs(samples[round(1.2 * RATE) : round(1.9 * RATE)]).mean() > 0.05) == (seconds > SECONDS)


def test_clips_of_a_span_are_spread_over_the_whole_span():
    sound = load_sound(noise(3)[None], sampling_rate=16_000)
    features = VideoLlamaFeatureExtractor()(sound.cut(5.0, 12.0), return_tensors="np")["input_features"][0]
    assert features.shape[0] == 8
    silent = [bool(np.ptp(clip[:, :198]) < 1e-5) for clip in features]
    assert silent == [False] * 7 + [True]  # clips of 2 s begin every 0.625 s, and the sound ends 4 s after the start


@pytest.mark.parametrize("duplicate", (copy.deepcopy, lambda sound: pickle.loads(pickle.dumps(sound))))
def test_sounds_of_videos_can_be_copied(tmp_path, duplicate):
    sound = sound_of_video(record(tmp_path / "clip.mkv", at=0.3))
    span = sound.cut(0.0, 1.0)
    for one in (sound, span):
        np.testing.assert_array_equal(duplicate(one).read(0.1, 0.9, RATE), one.read(0.1, 0.9, RATE))
    np.testing.assert_array_equal(duplicate(sound).cut(0.0, 1.0).read(0, 1, RATE), span.read(0, 1, RATE))


# ------------------------------------------------------------------------------------------------------------- lengths


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_container_is_left_where_it_was(tmp_path, name):
    path = record(tmp_path / f"clip.{name}")
    file = local_file(path)
    with open_container(file) as container:
        packets = container.demux(video=0)
        next(packets)
        sound_of(container, file)
        assert sum(packet.pts is not None for packet in packets) == 25 * SECONDS - 1


@pytest.mark.parametrize("name", ("mp4", "fragments.mp4", "mkv", "ts"))
def test_aac_is_as_long_as_it_decodes_to(tmp_path, name):
    path = record(tmp_path / f"clip.{name}", seconds=3.33)
    whole, rate = decoded(path)
    tolerance = 1 if "mp4" in name else 50  # times of the others are rounded
    assert abs(load_sound(path).duration * rate - len(whole)) <= tolerance


def test_gaps_between_packets_of_aac_are_no_sound(tmp_path):
    """As in the clips of the original's examples: the first packet is said to take 80 ms more than it decodes to."""
    path = tmp_path / "gap.mp4"
    options = {"movflags": "frag_keyframe+empty_moov"}
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream("aac", rate=RATE, layout="mono")
        packets = encode(stream, noise(3), RATE)
        for packet in packets[1:]:
            packet.pts += 3840
            packet.dts += 3840
        container.mux(packets)
    whole, _ = decoded(path)
    assert abs(load_sound(path).duration * RATE - len(whole)) <= 1


@pytest.mark.parametrize("name", ("mkv", "webm", "recorded.webm", "avi"))
def test_a_track_without_a_packet_is_no_sound(tmp_path, name):
    path = record(tmp_path / f"clip.{name}", seconds=0)
    with av.open(str(path)) as container:
        assert len(container.streams.audio) == 1
    assert sound_of_video(path) is None
    with pytest.raises(MediaError, match=r"its sound holds no samples"):
        load_sound(path)


def test_sound_that_cannot_be_decoded_does_not_hide_the_pictures_of_a_span(tmp_path):
    path = record(tmp_path / "clip.mov")
    path.write_bytes(path.read_bytes().replace(b"sowt", b"zzzz"))
    span = sound_of_video(path).cut(1.0, 2.0)
    with pytest.raises(MediaError, match=r"clip.mov: its sound has a codec that is not supported"):
        span.read(0, 1, RATE)


# -------------------------------------------------------------------------------------------------------------- tracks


@pytest.mark.parametrize(
    ("name", "choice", "turned"),
    (("mkv", "ger", 1), ("mkv", "fre", -1), ("mp4", 1, 1), ("mp4", 2, -1), ("ts", "fre", -1)),
)
def test_a_track_is_chosen_by_number_or_language(tmp_path, name, choice, turned):
    path = record(tmp_path / f"clip.{name}", tracks=2)
    wanted = noise(SECONDS)[RATE : 2 * RATE]
    video = sound_of_video(path, stream=choice).cut(1.0, 2.0).read(0, 1, RATE)[0]
    assert lag(video * turned, RATE, wanted) == pytest.approx(0, abs=0.002)
    alone = load_sound(path, audio_stream=choice).read(1.0, 2.0, RATE)[0]
    assert lag(alone * turned, RATE, wanted) == pytest.approx(0, abs=0.03)  # it may begin with the encoder's delay


@pytest.mark.parametrize("choice", (0, 3, "eng"))
def test_a_track_that_is_not_there_is_an_error_that_lists_them(tmp_path, choice):
    path = record(tmp_path / "clip.mkv", tracks=2)
    with pytest.raises(MediaError, match=r"has no (sound|audio) stream .*1:? audio ger.*2:? audio fre"):
        load_sound(path, audio_stream=choice)


def test_only_files_have_tracks_to_choose(tmp_path):
    samples = np.zeros(800, np.float32)
    for source in (samples, load_sound(samples)):
        with pytest.raises(ValueError, match=r"audio_stream=1 for \w+, which has one track"):
            load_sound(source, audio_stream=1)
