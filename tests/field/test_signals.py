"""What is drawn and what is played can be read again, as exactly as the readers say."""

import numpy as np
import pytest
import torch
from PIL import Image

from transformers_videollama.media.spectrograms import log_mel_spectrogram

from .changes import ORIENTATIONS
from .signals import chirp, corners_of, draw, is_silent, number_of, patches_of, second_of_mel, second_of_samples


RATE = 16_000
SECONDS = (0.0, 0.1, 1.23, 4.0, 9.99)


@pytest.mark.parametrize("size", ((160, 120), (64, 48), (161, 121), (112, 112), (224, 224)))
def test_every_number_is_read_after_scaling(size):
    for number in (0, 1, 2, 341, 682, 1022, 1023, *range(3, 1020, 97)):
        image = Image.fromarray(draw(number)).resize(size, Image.Resampling.BILINEAR)
        assert number_of(np.asarray(image)) == number


def test_a_frame_that_is_blended_with_another_has_no_number():
    blended = (draw(1).astype(int) + draw(2)) // 2
    with pytest.raises(ValueError, match="bar 8 of the frame has a lightness of 125, expected 16 or 235"):
        number_of(blended)


def test_corners_and_patches_tell_orientations_apart():
    lying = {name: lies(draw(5)) for name, (lies, _) in ORIENTATIONS.items()}
    assert corners_of(lying["upright"]) == "RGBW"
    assert len({corners_of(pixels) for pixels in lying.values()}) == 8
    np.testing.assert_array_equal(patches_of(draw(5)), patches_of(draw(6)))


@pytest.mark.parametrize("second", SECONDS)
@pytest.mark.parametrize("rate", (8_000, 16_000, 48_000))
def test_samples_tell_the_second_within_two_milliseconds(second, rate):
    samples = chirp(0.5, rate, first=second)
    noise = np.random.default_rng(0).normal(0, 0.02, len(samples))
    assert second_of_samples(samples, rate) == pytest.approx(second, abs=0.0002)
    assert second_of_samples(samples + noise, rate) == pytest.approx(second, abs=0.002)
    late = np.concatenate([np.zeros(round(0.02 * rate)), samples])  # as much as a coder may put before
    assert second_of_samples(late, rate) == pytest.approx(second - 0.02, abs=0.002)


@pytest.mark.parametrize("second", SECONDS)
@pytest.mark.parametrize("num_mel_bins", (64, 128))
def test_spectrograms_tell_the_second_within_fifty_milliseconds(second, num_mel_bins):
    samples = torch.from_numpy(chirp(1.0, RATE, first=second))
    noise = torch.randn(len(samples), generator=torch.Generator().manual_seed(0)) * 0.005
    for heard in (samples, samples + noise, samples * 0.5):
        features = log_mel_spectrogram(heard, RATE, num_mel_bins)
        assert second_of_mel(features) == pytest.approx(second, abs=0.05)


def test_silence_and_noise_have_no_second():
    noise = np.random.default_rng(0).normal(0, 0.1, RATE)
    assert is_silent(np.zeros(RATE))
    assert not is_silent(chirp(1.0, RATE))
    for samples in (np.zeros(RATE), noise):
        with pytest.raises(ValueError, match="expected a chirp"):
            second_of_samples(samples, RATE)
