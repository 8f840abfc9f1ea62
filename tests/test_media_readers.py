"""Readers of other libraries: their own frames, times and samples; torchcodec by a stand-in with its interface."""

from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image
from render_clip import render_clip
from torchcodec_stand_in import AudioDecoder, VideoDecoder

from transformers_videollama.media import MediaAccess, MediaError, load_image, load_sound, load_video, media_kind
from transformers_videollama.media.readers import reader_of


decord = pytest.importorskip("decord", reason="decord is not installed; the extra test dependencies have it")
TICKS = (0, 6000, 12_000, 12_020, 12_040, 12_060)  # of 1/600 s, in which two frames are shown for 10 s each


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return render_clip(tmp_path_factory.mktemp("readers") / "clip.mp4", seconds=2.0, size=(64, 48))


@pytest.fixture(scope="module")
def uneven(tmp_path_factory):
    """A video of a varying frame rate, whose first frame is not at 0; each frame is of one grey."""
    path = tmp_path_factory.mktemp("readers") / "uneven.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=30, options={"slicecrc": "1"})
        stream.width, stream.height, stream.pix_fmt = 32, 32, "bgr0"
        stream.codec_context.time_base = stream.time_base = Fraction(1, 600)
        for number, ticks in enumerate(TICKS):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 20 * number, np.uint8), format="rgb24")
            frame.pts, frame.time_base = ticks + 1200, stream.codec_context.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


READERS = {
    "decord": lambda path: decord.VideoReader(str(path)),
    "torchcodec": VideoDecoder,
    "torchcodec, channels last": lambda path: VideoDecoder(path, "NHWC"),
    "torchcodec, no header": lambda path: VideoDecoder(path, header=False),
}


@pytest.mark.parametrize("kind", READERS)
def test_frames_and_times_of_a_reader(clip, kind):
    frames = reader_of(READERS[kind](clip), None, MediaAccess())
    pixels = frames.read([0, 10, 49])
    everything = np.stack([frame.to_ndarray(format="rgb24") for frame in av.open(str(clip)).decode(video=0)])
    assert frames.total == len(everything) == 50
    assert frames.sound is None
    for index in (0, 10, 49):
        np.testing.assert_allclose(pixels[index], everything[index], atol=4 if kind == "decord" else 0)
    np.testing.assert_allclose(frames.times[:], np.arange(51) / 25, atol=1e-3)
    assert frames.fps == pytest.approx(25)


@pytest.mark.parametrize("kind", ("decord", "torchcodec"))
def test_times_of_a_varying_rate(uneven, kind):
    frames = reader_of(READERS[kind](uneven), None, MediaAccess())
    np.testing.assert_allclose(frames.times[: len(TICKS)], np.array(TICKS) / 600, atol=2e-3)
    pixels = frames.read(range(len(TICKS)))
    assert [int(pixels[index].mean().round()) for index in pixels] == [20 * index for index in range(len(TICKS))]


def test_only_the_frames_that_are_needed_are_decoded(clip):
    source = VideoDecoder(clip)
    frames = reader_of(source, None, MediaAccess())
    frames.read([5, 30])
    assert frames.times[30] == pytest.approx(1.2)
    assert sorted(source.decoded) == [0, 5, 30]  # the first for the zero of the clock


@pytest.mark.parametrize("kind", READERS)
def test_a_video_of_a_reader(clip, kind):
    video = load_video(READERS[kind](clip), num_frames=4, size=(24, 32))
    by_path = load_video(clip, num_frames=4)
    assert video.indices == by_path.indices
    assert video.sound is None
    np.testing.assert_allclose(video.timestamps, by_path.timestamps, atol=1e-3)
    scaled = [Image.fromarray(frame).resize((32, 24), Image.Resampling.BILINEAR) for frame in by_path.frames]
    np.testing.assert_allclose(video.frames, np.stack(scaled), atol=4)


@pytest.mark.parametrize("kind", ("decord", "torchcodec"))
def test_a_reader_in_a_conversation(processor, clip, kind):
    content = [{"type": "video", "video": READERS[kind](clip)}, {"type": "text", "text": "What is it?"}]
    given = {"tokenize": True, "return_dict": True, "return_tensors": "pt"}
    inputs = processor.apply_chat_template([{"role": "user", "content": content}], **given)
    assert inputs["pixel_values_videos"].shape[:2] == (1, 8)
    assert "input_features" not in inputs


def test_decord_with_torch_as_its_bridge(clip):
    decord.bridge.set_bridge("torch")
    try:
        frames = reader_of(decord.VideoReader(str(clip)), None, MediaAccess()).read([3])
    finally:
        decord.bridge.reset_bridge()
    assert frames[3].shape == (48, 64, 3)


@pytest.mark.parametrize(
    ("limits", "message"),
    (
        ({"max_frame_pixels": 3071}, "is 64 x 48, 3072 pixels, more than 3071"),
        ({"max_request_bytes": 4 * 3072 * 3 - 1}, "4 frames of .*max_request_bytes"),
    ),
)
@pytest.mark.parametrize("kind", ("decord", "torchcodec"))
def test_limits_hold_for_readers(clip, kind, limits, message):
    with pytest.raises(MediaError, match=message):
        load_video(READERS[kind](clip), num_frames=4, access=MediaAccess(**limits))


class Failing(VideoDecoder):
    def get_frames_at(self, indices):
        raise RuntimeError("no key frame found")


def test_errors_of_a_reader_are_errors_of_the_medium(clip, tmp_path):
    with pytest.raises(MediaError, match=r"its reader fails: no key frame found"):
        load_video(Failing(clip))
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(clip.read_bytes())
    reader = decord.VideoReader(str(cut))
    with pytest.raises(MediaError, match=r"its reader fails: "):
        reader_of(reader, None, MediaAccess()).read([999])


@pytest.mark.parametrize("channels", (1, 2))
def test_samples_of_a_reader(channels):
    samples = np.sin(np.arange(channels * 8000) / 20).astype(np.float32).reshape(channels, -1)
    sound = load_sound(AudioDecoder(samples, 8000))
    assert (sound.sampling_rate, sound.num_channels, sound.duration) == (8000, channels, 1.0)
    np.testing.assert_array_equal(sound.read(0.25, 0.5, 8000), samples[:, 2000:4000])
    assert load_sound(AudioDecoder(samples, 8000), start=0.5).duration == 0.5
    with pytest.raises(MediaError, match=r"AudioDecoder: its samples are \d+ bytes, more than 1000"):
        load_sound(AudioDecoder(samples, 8000), access=MediaAccess(max_request_bytes=1000))


def test_a_reader_of_sound_in_a_conversation(processor):
    samples = np.sin(np.arange(16_000) / 20).astype(np.float32)[None]
    given = {"tokenize": True, "return_dict": True, "return_tensors": "pt"}
    read, array = (
        processor.apply_chat_template([{"role": "user", "content": [{"type": "audio", "audio": sound}]}], **given)
        for sound in (AudioDecoder(samples, 16_000), samples)
    )
    np.testing.assert_array_equal(read["input_features"], array["input_features"])


@pytest.mark.parametrize(
    ("load", "message"),
    (
        (lambda clip: load_image(VideoDecoder(clip)), "got VideoDecoder, expected a path"),
        (lambda clip: load_sound(VideoDecoder(clip)), "got VideoDecoder, expected a path"),
        (lambda clip: load_video(AudioDecoder(np.zeros((1, 9), np.float32), 8)), "got AudioDecoder, expected a path"),
    ),
)
def test_a_reader_where_none_is_taken(clip, load, message):
    with pytest.raises(MediaError, match=message):
        load(clip)


def test_the_kind_of_a_reader(clip):
    assert media_kind(VideoDecoder(clip)) == "video"
    assert media_kind(AudioDecoder(np.zeros((1, 9), np.float32), 8)) == "audio"
    assert media_kind({"array": np.zeros(9), "sampling_rate": 8}) == "audio"
