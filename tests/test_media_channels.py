"""Sound of many channels: their samples, in whatever order they are, and the one channel that is made of them."""

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from interpreters import run_python

from transformers_videollama import VideoLlamaFeatureExtractor, load_sound
from transformers_videollama.media.channels import to_mono


RATE = 48_000
# FFmpeg's layouts that are weighed, but for 22.2, of which it leaves out some of the sides
LAYOUTS = (
    *("mono", "stereo", "2.1", "3.0", "3.0(back)", "4.0", "quad", "quad(side)", "3.1", "5.0", "5.0(side)", "4.1"),
    *("5.1", "5.1(side)", "6.0", "6.0(front)", "hexagonal", "6.1", "6.1(back)", "6.1(front)", "7.0", "7.0(front)"),
    *("7.1", "7.1(wide)", "7.1(wide-side)", "octagonal", "3.1.2", "5.1.2", "5.1.4", "7.1.2", "7.1.4", "7.2.3"),
    *("9.1.4", "9.1.6", "cube", "hexadecagonal"),
)
# Files of many channels: name, encoder, layout or number of channels
MANY = (
    ("aac 7.1.mp4", "aac", "7.1"),
    ("aac 16.mp4", "aac", "hexadecagonal"),
    ("opus 7.1.webm", "libopus", "7.1"),
    ("flac 7.1.flac", "flac", "7.1"),
    ("pcm 12.mov", "pcm_s16le", "7.2.3"),
    ("unusual order.mov", "pcm_s16le", "7.2.3"),
    *((f"pcm {channels}.wav", "pcm_s16le", channels) for channels in (1, 7, 8, 9, 16, 127)),
)
# Tells the pitch of each channel of each file, as long as the process lives
READ = """
    import sys
    import numpy as np
    from transformers_videollama.media import load_sound

    for path in sys.argv[1:]:
        sound = load_sound(path)
        samples = sound.read(0.5, 1.5, sound.sampling_rate)
        pitches = np.abs(np.fft.rfft(samples * np.hanning(samples.shape[1]))).argmax(axis=1)
        print(path, *sound.channels[:2], *pitches, sep="|", flush=True)
"""


def pitch(channel: int) -> int:
    """Hz of a channel's tone."""
    return 200 + 40 * channel


def frames_of(samples: np.ndarray, layout: str) -> list[av.AudioFrame]:
    """Packed: PyAV cannot make planar ones of eight channels or more."""
    frames = []
    for begin in range(0, samples.shape[1], 1024):
        piece = np.ascontiguousarray(samples[:, begin : begin + 1024].T, np.float32).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(piece, format="flt", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = RATE, begin, Fraction(1, RATE)
        frames.append(frame)
    return frames


def encode_tones(path: Path, codec: str, layout: str, **options: str) -> Path:
    """Two seconds of a tone of its own in each channel."""
    channels = av.AudioLayout(layout).nb_channels
    time = np.arange(2 * RATE) / RATE
    tones = np.stack([0.3 * np.sin(2 * np.pi * pitch(channel) * time) for channel in range(channels)])
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=RATE, layout=layout, options=options)
        for frame in (*frames_of(tones, layout), None):
            container.mux(stream.encode(frame))
    return path


def write_wav(path: Path, channels: int) -> Path:
    """As `encode_tones`, for numbers of channels that FFmpeg has no layout for."""
    time = np.arange(2 * RATE) / RATE
    tones = np.stack([8000 * np.sin(2 * np.pi * pitch(channel) * time) for channel in range(channels)])
    data = np.ascontiguousarray(tones.T, "<i2").tobytes()
    form = struct.pack("<HHIIHH", 1, channels, RATE, RATE * channels * 2, channels * 2, 16)
    chunks = b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", len(data)) + data
    path.write_bytes(b"RIFF" + struct.pack("<I", len(chunks)) + chunks)
    return path


@pytest.fixture(scope="module")
def heard(tmp_path_factory) -> dict[str, list[str]]:
    """Names of the first channels and pitches of all, as an interpreter of its own reads them: it may end with it."""
    folder = tmp_path_factory.mktemp("channels")
    paths = []
    for name, codec, layout in MANY:
        path = folder / name
        paths.append(write_wav(path, layout) if isinstance(layout, int) else encode_tones(path, codec, layout))
    # A MOV file that names its channels one by one, right before left, as editing programs write it
    path = folder / "unusual order.mov"
    data = bytearray(path.read_bytes())
    names = data.index(b"chan") + 4 + 16
    data[names : names + 4], data[names + 20 : names + 24] = data[names + 20 : names + 24], data[names : names + 4]
    path.write_bytes(data)
    lines = [line.split("|") for line in run_python(READ, *map(str, paths)).stdout.splitlines()]
    return {Path(path).name: told for path, *told in lines}


@pytest.mark.parametrize(("name", "codec", "layout"), MANY)
def test_any_number_of_channels_is_heard(heard, name, codec, layout):
    channels = layout if isinstance(layout, int) else av.AudioLayout(layout).nb_channels
    expected = [str(pitch(channel)) for channel in range(channels)]
    got = heard[name][min(channels, 2) :]
    if layout == "7.1" and codec != "flac":
        expected[3] = got[3]  # lossy coders leave nothing of a tone in the bass channel
    assert got == expected


def test_channels_in_an_unusual_order_have_their_names(heard):
    assert heard["pcm 12.mov"][:2] == ["FL", "FR"]
    assert heard["unusual order.mov"][:2] == ["FR", "FL"]


@pytest.mark.parametrize("codec", ("vorbis", "pcm_s64le", "wavpack", "alac", "tta", "pcm_f64le"))
def test_formats_of_samples_are_read(tmp_path, codec):
    """Planar and packed ones, of 16 to 64 bits."""
    suffix = {"vorbis": "ogg", "wavpack": "wv", "alac": "mov", "tta": "tta"}.get(codec, "wav")
    sound = load_sound(encode_tones(tmp_path / f"sound.{suffix}", codec, "stereo", strict="experimental"))
    samples = sound.read(0.5, 1.5, RATE)
    assert np.sqrt(np.square(samples).mean()) == pytest.approx(0.3 * 0.5**0.5, abs=0.02)
    assert [int(np.abs(np.fft.rfft(channel)).argmax()) for channel in samples] == [pitch(0), pitch(1)]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_one_channel_is_made_as_ffmpeg_makes_it(layout):
    names = tuple(channel.name for channel in av.AudioLayout(layout).channels)
    samples = np.random.default_rng(0).uniform(-1, 1, (len(names), 1000)).astype(np.float32)
    # As for an output of whole numbers, which is what `-ac 1` to a WAV file is: the sum of the weights is 1
    resampler = av.AudioResampler(format="flt", layout="mono", options={"rematrix_maxval": "1"})
    pieces = [piece for frame in (*frames_of(samples, layout), None) for piece in resampler.resample(frame)]
    expected = np.concatenate([piece.to_ndarray()[0] for piece in pieces])
    np.testing.assert_allclose(to_mono(samples, names), expected, atol=1e-6)


@pytest.mark.parametrize("names", ((), ("FL", "FR"), ("NONE",) * 2, ("BL", "AMBI0"), ("FL", "BIL")))
def test_two_channels_and_unknown_ones_are_averaged(names):
    samples = np.random.default_rng(0).uniform(-1, 1, (2, 100)).astype(np.float32)
    np.testing.assert_array_equal(to_mono(samples, names), samples.mean(axis=0))


def test_the_voice_of_a_film_is_heard_above_the_rest(tmp_path):
    """In 5.1, the center is a third of the sum, not a sixth, and the bass is left out."""
    path = encode_tones(tmp_path / "sound.flac", "flac", "5.1")
    extract = VideoLlamaFeatureExtractor()
    samples = load_sound(path).read(0, 2, 16_000)
    weights = np.array([0.5**0.5, 0.5**0.5, 1, 0, 0.5, 0.5], np.float32)
    expected = extract((weights / weights.sum()) @ samples, return_tensors="np")["input_features"]
    np.testing.assert_allclose(extract(path, return_tensors="np")["input_features"], expected, atol=1e-4)
    first = extract(samples[0], return_tensors="np")["input_features"]
    np.testing.assert_array_equal(extract(path, downmix="first", return_tensors="np")["input_features"], first)
