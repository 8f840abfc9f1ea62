"""What the model sees and hears against the original code: pixels, spectrograms, sampled frames and their times."""

import numpy as np
import pytest
import torch
from optional import import_torchaudio
from PIL import Image
from tiny_conversions import REFERENCE

from transformers_videollama import (
    Video,
    VideoLlamaFeatureExtractor,
    VideoLlamaVideoProcessor,
    load_sound,
    sample_indices,
)
from transformers_videollama.media import spectrograms


SOUNDS = ("tone_1s_16k", "sweep_3.7s_44k", "noise_9s_16k", "stereo_5s_22k", "exact_2s_16k")


@pytest.fixture(params=("torchaudio", "torch"))
def front_end(request, monkeypatch):
    """Both ways to compute spectrograms."""
    if request.param == "torchaudio":
        import_torchaudio()
    else:
        monkeypatch.setattr(spectrograms, "_torchaudio_spectrogram", lambda: None)


def features_of(name: str, **kwargs) -> torch.Tensor:
    path = REFERENCE / "audio" / f"{name}.wav"
    return VideoLlamaFeatureExtractor()(path, downmix="first", return_tensors="pt", **kwargs)["input_features"][0]


@pytest.mark.parametrize("name", SOUNDS)
def test_spectrograms(cases, golden, front_end, name):
    case = next(case for case in cases["cases"]["fbank"] if case["file"].endswith(f"{name}.wav"))
    features = features_of(name)
    assert [len(features), 1, *features.shape[1:]] == case["shape"]
    clips = features[case["golden_clips"]].unsqueeze(1)
    torch.testing.assert_close(clips, golden[f"fbank_clean/{name}"], rtol=0, atol=1e-3)
    assert (clips - golden[f"fbank/{name}"]).abs().mean() < 1e-4  # the original disturbs overlapping clips


@pytest.mark.parametrize("name", SOUNDS)
def test_clip_starts(cases, name):
    case = next(case for case in cases["cases"]["fbank"] if case["file"].endswith(f"{name}.wav"))
    sound = load_sound(REFERENCE / "audio" / f"{name}.wav")
    starts = VideoLlamaFeatureExtractor().clip_starts(round(sound.duration * 16000))
    assert np.allclose(np.array(starts) / 16000, [start for start, _ in case["clip_seconds"]], atol=1 / 16000)


def test_downmix_averages_channels_by_default():
    left, right = np.sin(np.arange(32000) / 7).astype(np.float32), np.zeros(32000, dtype=np.float32)
    extract = VideoLlamaFeatureExtractor()
    stereo, mean = np.stack((left, right)), left / 2
    by_default = extract(stereo, return_tensors="pt")["input_features"]
    torch.testing.assert_close(by_default, extract(mean, return_tensors="pt")["input_features"])
    first = extract(stereo, downmix="first", return_tensors="pt")["input_features"]
    torch.testing.assert_close(first, extract(left, return_tensors="pt")["input_features"])


def test_frame_sampling(cases):
    for case in cases["cases"]["frame_sampling"]:
        indices = sample_indices(case["num_video_frames"], case["num_frames"])
        assert indices == case["indices"], case


def test_sentence_about_times(cases, processor):
    for case in cases["cases"]["frame_sampling"]:
        total, fps = case["num_video_frames"], case["fps"]
        indices = tuple(sample_indices(total, case["num_frames"]))
        times = tuple(index / fps for index in indices)
        video = Video(np.zeros((len(indices), 2, 2, 3), np.uint8), indices, times, fps, total, None, "video")
        message = {"role": "user", "content": [{"type": "video", "video": video}]}
        assert case["message"] in processor.apply_chat_template([message])


def test_pixels_of_frames(golden):
    frames = golden["pixels/frames_uint8"].numpy()
    pixels = VideoLlamaVideoProcessor()(frames, return_tensors="pt")["pixel_values_videos"][0]
    torch.testing.assert_close(pixels.transpose(0, 1), golden["pixels/frames_normalized"], rtol=0, atol=1e-6)


def test_pixels_of_images(golden, processor):
    image = Image.fromarray(golden["pixels/image_uint8"].numpy())
    pixels = processor(text="<image>", images=image, return_tensors="pt")["pixel_values"][0]
    torch.testing.assert_close(pixels, golden["pixels/image_normalized"], rtol=0, atol=1e-6)
