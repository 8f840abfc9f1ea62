"""Log-mel spectrograms: torchaudio's where there is one, and the same bits from torch where there is none."""

import logging
import math
import sys

import pytest
import torch
from optional import import_torchaudio

from transformers_videollama import VideoLlamaFeatureExtractor
from transformers_videollama.media import spectrograms
from transformers_videollama.media.spectrograms import log_mel_spectrogram, window_length


@pytest.fixture
def choose_anew():
    """The choice is made once for a process."""
    spectrograms._torchaudio_spectrogram.cache_clear()
    yield
    spectrograms._torchaudio_spectrogram.cache_clear()


def signal(kind: str, length: int, rate: int) -> torch.Tensor:
    seconds = torch.arange(length) / rate
    return {
        "noise": lambda: torch.randn(length),
        "faint noise": lambda: 1e-6 * torch.randn(length),
        "16 bit": lambda: torch.randint(-(2**15), 2**15, (length,)) / 2**15,
        "tone": lambda: torch.sin(2 * math.pi * 440 * seconds),
        "chirp": lambda: torch.sin(2 * math.pi * (50 + 1000 * seconds) * seconds),
        "constant": lambda: torch.full((length,), 0.5),
        "silence": lambda: torch.zeros(length),
    }[kind]()


@pytest.mark.parametrize("rate", (8_000, 11_025, 16_000, 22_050, 44_100, 48_000))
@pytest.mark.parametrize("kind", ("noise", "faint noise", "16 bit", "tone", "chirp", "constant", "silence"))
def test_torch_gives_the_bits_of_torchaudio(kind, rate):
    import_torchaudio("torchaudio.compliance.kaldi")
    with_torchaudio = spectrograms._torchaudio_spectrogram()
    window = window_length(rate)
    for length in (window, window + 1, 12_345, 2 * rate - 1, 2 * rate, 2 * rate + 1):
        samples = signal(kind, length, rate)
        for num_mel_bins in (4, 80, 128):
            expected = with_torchaudio(samples, rate, num_mel_bins)
            assert torch.equal(spectrograms._torch_spectrogram(samples, rate, num_mel_bins), expected)


def test_features_of_a_batch_are_the_same_bits_in_both_ways(monkeypatch):
    import_torchaudio("torchaudio.compliance.kaldi")
    extract = VideoLlamaFeatureExtractor()
    sounds = [signal("noise", 50_001, 16_000).numpy(), signal("chirp", 9_999, 16_000).numpy()]
    expected = extract(sounds, return_tensors="pt")["input_features"]
    monkeypatch.setattr(spectrograms, "_torchaudio_spectrogram", lambda: None)
    assert torch.equal(extract(sounds, return_tensors="pt")["input_features"], expected)


def test_a_tone_lies_in_its_filter():
    """The definition, computed another way: the peaks of filters are spread evenly on the mel scale."""
    mel = 1127 * torch.log1p(torch.tensor([20.0, 8_000.0, 440.0]) / 700)
    nearest = (mel[2] - mel[0]) / (mel[1] - mel[0]) * 129 - 1
    spectrogram = log_mel_spectrogram(signal("tone", 32_000, 16_000), 16_000, 128)
    assert spectrogram.shape == (128, 1 + (32_000 - 400) // 160)
    assert (spectrogram.argmax(dim=0) - nearest).abs().max() <= 1


def test_silence_is_the_floor():
    silence = log_mel_spectrogram(torch.zeros(400), 16_000, 128)
    assert silence.unique().tolist() == pytest.approx([math.log(2**-23)])


@pytest.mark.usefixtures("choose_anew")
def test_torchaudio_computes_where_it_can_be_imported(monkeypatch):
    kaldi = import_torchaudio("torchaudio.compliance.kaldi")
    monkeypatch.setattr(kaldi, "fbank", lambda samples, **options: torch.full((1, 4), 7.0))
    assert log_mel_spectrogram(torch.zeros(400), 16_000, 4).tolist() == [[7.0]] * 4


@pytest.mark.usefixtures("choose_anew")
@pytest.mark.parametrize("error", (ImportError, OSError, RuntimeError))
def test_torch_computes_where_torchaudio_is_missing_or_broken(monkeypatch, tmp_path, caplog, error):
    (tmp_path / "torchaudio.py").write_text(f"raise {error.__name__}('undefined symbol')\n", encoding="utf-8")
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchaudio"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    with caplog.at_level(logging.INFO, logger=spectrograms.__name__):
        for _ in range(2):
            assert log_mel_spectrogram(torch.zeros(400), 16_000, 128).shape == (128, 1)
    assert [(record.levelname, record.message.endswith("undefined symbol")) for record in caplog.records] == [
        ("INFO", True)
    ]


def test_three_filters_are_refused_in_both_ways():
    with pytest.raises(ValueError, match=r"got 3 mel bins for a spectrogram, expected at least 4"):
        log_mel_spectrogram(torch.zeros(400), 16_000, 3)
