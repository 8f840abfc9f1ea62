"""Sound -> log-mel spectrograms: Kaldi's filter bank, as ImageBind calls it."""

import functools
import logging
import math
from collections.abc import Callable

import torch


__all__ = ["log_mel_spectrogram", "window_length"]

logger = logging.getLogger(__name__)

WINDOW_MILLISECONDS, SHIFT_MILLISECONDS = 25, 10
PREEMPHASIS = 0.97
LOWEST_HZ = 20.0
LOG_FLOOR = torch.finfo(torch.float32).eps  # Kaldi's floor under the logarithm


def window_length(sampling_rate: int) -> int:
    """Samples of a window, the shortest sound that has a spectrogram."""
    return sampling_rate * WINDOW_MILLISECONDS // 1000


def log_mel_spectrogram(samples: torch.Tensor, sampling_rate: int, num_mel_bins: int) -> torch.Tensor:
    """
    Windows of 25 ms every 10 ms, each without its mean, pre-emphasised and under a Hann window; the power of their
    frequencies in triangular filters from 20 Hz to half the sampling rate; the logarithm of that.

    Args:
        samples (`torch.Tensor` of shape `(samples,)`, float32, on the CPU): At least [`window_length`] of them.
        sampling_rate (`int`): Hz.
        num_mel_bins (`int`): Filters, spread evenly on the mel scale.

    Returns:
        `torch.Tensor` of shape `(num_mel_bins, windows)`, float32. torchaudio computes it where it can be imported,
        otherwise torch does, with the same bits.

    Raises:
        ValueError: for fewer than 4 filters, which torchaudio refuses.
    """
    if num_mel_bins < 4:
        raise ValueError(f"got {num_mel_bins} mel bins for a spectrogram, expected at least 4")
    return (_torchaudio_spectrogram() or _torch_spectrogram)(samples, sampling_rate, num_mel_bins)


@functools.cache
def _torchaudio_spectrogram() -> Callable[[torch.Tensor, int, int], torch.Tensor] | None:
    try:
        from torchaudio.compliance.kaldi import fbank
    except (ImportError, OSError, RuntimeError) as error:  # the last two from a wheel that was built for another torch
        logger.info("torchaudio cannot be imported, so torch computes spectrograms, with the same bits: %s", error)
        return None

    def spectrogram(samples: torch.Tensor, sampling_rate: int, num_mel_bins: int) -> torch.Tensor:
        return fbank(
            samples.unsqueeze(0),
            htk_compat=True,
            sample_frequency=sampling_rate,
            use_energy=False,
            window_type="hanning",
            num_mel_bins=num_mel_bins,
            dither=0.0,
            frame_length=WINDOW_MILLISECONDS,
            frame_shift=SHIFT_MILLISECONDS,
            preemphasis_coefficient=PREEMPHASIS,
            low_freq=LOWEST_HZ,
        ).T

    return spectrogram


def _torch_spectrogram(samples: torch.Tensor, sampling_rate: int, num_mel_bins: int) -> torch.Tensor:
    """The operations are torchaudio's, in its order, since float32 rounds after each."""
    length = window_length(sampling_rate)
    windows = samples.unfold(0, length, sampling_rate * SHIFT_MILLISECONDS // 1000)
    windows = windows - windows.mean(dim=1, keepdim=True)
    previous = torch.cat((windows[:, :1], windows[:, :-1]), dim=1)  # the first sample stands before itself
    windows = (windows - PREEMPHASIS * previous) * _hann_window(length)
    fft_length = 1 << (length - 1).bit_length()
    power = torch.fft.rfft(windows, n=fft_length).abs().pow(2.0)
    return torch.mm(power, _mel_filters(sampling_rate, num_mel_bins, fft_length)).clamp(min=LOG_FLOOR).log().T


@functools.lru_cache(maxsize=16)
def _hann_window(length: int) -> torch.Tensor:
    return torch.hann_window(length, periodic=False, dtype=torch.float32, device="cpu")


@functools.lru_cache(maxsize=16)
def _mel_filters(sampling_rate: int, num_mel_bins: int, fft_length: int) -> torch.Tensor:
    """
    Weights of shape (fft_length // 2 + 1, num_mel_bins): triangles in mel, of which each begins and ends at the
    peaks of its neighbours. The lowest of 128 may lie between two frequencies, and are empty; in Kaldi they are too.
    """
    lowest, highest = (1127.0 * math.log(1.0 + hz / 700.0) for hz in (LOWEST_HZ, sampling_rate / 2))
    step = (highest - lowest) / (num_mel_bins + 1)
    filters = torch.arange(num_mel_bins, dtype=torch.float32, device="cpu")[:, None]
    begin, peak, end = (lowest + (filters + i) * step for i in (0.0, 1.0, 2.0))
    frequencies = torch.arange(fft_length // 2, dtype=torch.float32, device="cpu") * (sampling_rate / fft_length)
    mel = 1127.0 * (1.0 + frequencies / 700.0).log()
    weights = torch.minimum((mel - begin) / (peak - begin), (end - mel) / (end - peak)).clamp(min=0)
    return torch.nn.functional.pad(weights, (0, 1)).T  # Kaldi leaves the highest frequency out
