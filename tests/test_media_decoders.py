"""Other decoders than PyAV: how one is chosen, what it may not do, and where its frames lie."""

import json
import sys
from types import ModuleType

import numpy as np
import pytest
import torch
import torchcodec_stand_in
from render_clip import render_clip

from transformers_videollama import TINY_CHECKPOINT, VideoLlamaVideoProcessor
from transformers_videollama.cli import main
from transformers_videollama.media import MediaError, load_video, opening_in_workers
from transformers_videollama.media.orientation import is_quarter_turn


pytest.importorskip("decord", reason="decord is not installed; the extra test dependencies have it")
DECODERS = ("decord", "torchcodec")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return render_clip(tmp_path_factory.mktemp("decoders") / "clip.mp4", seconds=2.0, size=(64, 48))


@pytest.fixture
def opened(monkeypatch) -> list:
    """The stand-in is what `import torchcodec` finds; the arguments of its decoders are noted."""
    noted = []

    class VideoDecoder(torchcodec_stand_in.VideoDecoder):
        def __init__(self, source, **options):
            noted.append(options)
            super().__init__(source, **options)

    package, module = ModuleType("torchcodec"), ModuleType("torchcodec.decoders")
    package.decoders, module.VideoDecoder = module, VideoDecoder
    monkeypatch.setitem(sys.modules, "torchcodec", package)
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", module)
    return noted


@pytest.mark.usefixtures("opened")
@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("options", ({}, {"start": 0.5, "end": 1.5}, {"fps": 2.0}, {"sampling": "time"}))
def test_frames_times_and_sound_are_those_of_pyav(clip, decoder, options):
    video, expected = (load_video(clip, decoder=name, **options) for name in (decoder, "pyav"))
    np.testing.assert_array_equal(video.frames, expected.frames)
    assert (video.indices, video.timestamps) == (expected.indices, expected.timestamps)
    assert (video.fps, video.total_num_frames) == (expected.fps, expected.total_num_frames)
    np.testing.assert_array_equal(video.sound.read(0.0, 1.0, 16_000), expected.sound.read(0.0, 1.0, 16_000))


@pytest.mark.usefixtures("opened")
@pytest.mark.parametrize(("decoder", "largest", "mean"), (("decord", 0, 0), ("torchcodec", 90, 4)))
def test_frames_of_another_size(clip, decoder, largest, mean):
    """decord scales while it converts colours, as PyAV's filters do; torchcodec's frames are scaled in RGB."""
    video, expected = (load_video(clip, decoder=name, size=(28, 28)) for name in (decoder, "pyav"))
    difference = np.abs(video.frames.astype(int) - expected.frames)
    assert difference.max() <= largest
    assert difference.mean() <= mean


@pytest.mark.usefixtures("opened")
@pytest.mark.parametrize("decoder", DECODERS)
def test_bytes_and_objects(clip, decoder):
    expected = load_video(clip).frames
    with open(clip, "rb") as file:
        for source in (clip.read_bytes(), file):
            np.testing.assert_array_equal(load_video(source, decoder=decoder).frames, expected)


def test_decord_in_a_worker(clip):
    with opening_in_workers(1):
        video = load_video(clip, decoder="decord")
    np.testing.assert_array_equal(video.frames, load_video(clip).frames)


def test_torchcodec_decodes_where_it_is_told(clip, opened):
    """`meta` stands for a GPU: no pixel of it can come to the CPU, so that what stays there is known to stay."""
    video = load_video(clip, num_frames=4, size=(28, 28), decoder="torchcodec", device="meta")
    assert (video.frames.device.type, video.frames.dtype, video.frames.shape) == ("meta", torch.uint8, (4, 28, 28, 3))
    processor = VideoLlamaVideoProcessor(decoder="torchcodec", size={"height": 28, "width": 28})
    pixels = processor(clip, num_frames=4, device="meta", return_tensors="pt")["pixel_values_videos"]
    assert (pixels.device.type, pixels.shape) == ("meta", (1, 4, 3, 28, 28))
    assert [options["device"] for options in opened] == ["meta", "meta"]


@pytest.mark.parametrize(("has_gpu", "device"), ((True, "cuda"), (False, "cpu")))
def test_torchcodec_decodes_on_a_gpu_where_there_is_one(clip, opened, monkeypatch, has_gpu, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    monkeypatch.setattr(torchcodec_stand_in.VideoDecoder, "__init__", _refuse)
    with pytest.raises(MediaError, match="no such decoder here"):
        load_video(clip, decoder="torchcodec")
    assert opened[-1]["device"] == device


def _refuse(*args, **options):
    raise RuntimeError("no such decoder here")


@pytest.mark.parametrize(
    ("options", "message"),
    (
        ({"decoder": "opencv"}, "decoder='opencv', expected 'pyav' or 'decord' or 'torchcodec'"),
        ({"device": "cpu"}, "device='cpu' with decoder='pyav', expected it with 'torchcodec' alone"),
        ({"decoder": "decord", "device": "cuda"}, "device='cuda' with decoder='decord'"),
        ({"decoder": "decord", "on_damage": "skip"}, "on_damage='skip' with decoder='decord', which does not say"),
    ),
)
def test_options_that_a_decoder_does_not_have(clip, options, message):
    with pytest.raises(ValueError, match=message):
        load_video(clip, **options)


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_decoder_that_is_not_installed(clip, decoder, monkeypatch):
    monkeypatch.setitem(sys.modules, decoder, None)
    with pytest.raises(
        ImportError, match=rf"{decoder} is needed .*pip install 'transformers-videollama\[{decoder}\]'"
    ):
        load_video(clip, decoder=decoder)


def test_torchcodec_without_the_libraries_of_ffmpeg(clip, opened, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    with pytest.raises(ImportError, match=r"torchcodec finds no shared libraries of FFmpeg.*install FFmpeg"):
        load_video(clip, decoder="torchcodec")


@pytest.mark.parametrize(
    ("changes", "message"),
    (
        ({"__len__": lambda self: 49}, "finds 49 frames, and the file has 50; try decoder='pyav'"),
        ({"_shift": 1.0}, r"says frame 0 is shown at 1\.000 s, and the file says 0\.000 s; try decoder='pyav'"),
        ({"_shift": float("nan")}, "says frame 0 is shown at nan s"),
    ),
)
def test_a_decoder_that_counts_or_times_frames_otherwise_is_refused(clip, opened, monkeypatch, changes, message):
    for name, value in changes.items():
        monkeypatch.setattr(torchcodec_stand_in.VideoDecoder, name, value)
    with pytest.raises(MediaError, match=rf"clip\.mp4: decoder='torchcodec': {message}"):
        load_video(clip, decoder="torchcodec")


@pytest.mark.parametrize("decoder", DECODERS)
def test_as_a_setting_a_call_and_a_block(processor, clip, opened, tmp_path, decoder):
    """torchcodec's arguments are noted; decord's frames are PyAV's, so that it is known by what it refuses."""
    setting = VideoLlamaVideoProcessor(decoder=decoder)
    setting.save_pretrained(tmp_path)
    assert VideoLlamaVideoProcessor.from_pretrained(tmp_path).decoder == decoder
    block = {"type": "video", "video": clip, "on_damage": "skip"}
    given = {"tokenize": True, "return_dict": True, "return_tensors": "pt"}
    refused = f"on_damage='skip' with decoder='{decoder}'"
    with pytest.raises(ValueError, match=refused):
        setting(clip, on_damage="skip")
    with pytest.raises(ValueError, match=refused):
        processor.apply_chat_template([{"role": "user", "content": [block]}], decoder=decoder, **given)
    with pytest.raises(ValueError, match=refused):
        processor.apply_chat_template([{"role": "user", "content": [{**block, "decoder": decoder}]}], **given)
    assert not opened


def test_ask(clip, opened, capsys):
    arguments = ["ask", "--model", TINY_CHECKPOINT, "--json", "--greedy", str(clip), "What do you see?"]
    assert main([*arguments, "--decoder", "torchcodec"]) == 0
    answer = json.loads(capsys.readouterr().out)["answer"]
    assert answer
    assert len(opened) == 1
    assert main([*arguments, "--decoder", "pyav"]) == 0
    assert json.loads(capsys.readouterr().out)["answer"] == answer


@pytest.mark.parametrize(
    ("matrix", "expected"),
    (
        (None, True),
        ((1.0, 0.0, 0.0, 1.0), True),
        ((0.0, 1.0, -1.0, 0.0), True),
        ((-1.0, 0.0, 0.0, -1.0), True),
        ((0.0, -1.0, 1.0, 0.0), True),
        ((-1.0, 0.0, 0.0, 1.0), False),
        ((0.0, 1.0, 1.0, 0.0), False),
        ((0.8, 0.6, -0.6, 0.8), False),
    ),
)
def test_quarter_turns(matrix, expected):
    assert is_quarter_turn(matrix) is expected
