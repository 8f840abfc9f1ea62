# Copyright 2026 The transformers_videollama authors. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""Sound -> the log-mel spectrograms of ImageBind's audio trunk."""

import math
from typing import Any

import numpy as np
import torch
from transformers.feature_extraction_sequence_utils import SequenceFeatureExtractor
from transformers.feature_extraction_utils import BatchFeature
from transformers.utils import TensorType

from .image_processing_video_llama import check_settings
from .media import MediaAccess, MediaError, Sound, load_sound
from .media.channels import to_mono
from .media.checks import number, one_of, optional, whole
from .media.options import OPTIONS, Downmix, check_options
from .media.parallel import in_parallel
from .media.spectrograms import log_mel_spectrogram, window_length


__all__ = ["VideoLlamaFeatureExtractor"]

MAX_VALUES = 2**28  # of the spectrograms of one sound: 1 GiB
SETTINGS = {
    "feature_size": whole(1, 1024),
    "sampling_rate": whole(1000, 384_000),
    "padding_value": number(least=-1e6, most=1e6),
    "padding_side": one_of("left", "right"),
    "num_clips": OPTIONS["num_clips"],
    "clip_seconds": number(least=0.025, most=600),
    "num_mel_frames": whole(1, 2**16),
    "mean": number(least=-1e6, most=1e6),
    "std": number(least=1e-4, most=1e6),
    "downmix": OPTIONS["downmix"],
    "model_max_clips": optional(whole(1)),
}


class VideoLlamaFeatureExtractor(SequenceFeatureExtractor):
    """
    Cuts a sound track into clips at starts that are spread evenly, and computes each clip's log-mel spectrogram, as
    ImageBind (arXiv 2305.05665) does for the original Video-LLaMA. Only the clips of a file are read.

    Args:
        feature_size (`int`, defaults to 128): Mel bins.
        sampling_rate (`int`, defaults to 16000): Hz that the sound is resampled to.
        padding_value (`float`, defaults to 0.0): The value that fills up a spectrogram shorter than `num_mel_frames`,
            before normalisation.
        num_clips (`int`, defaults to 8): Clips of a sound.
        clip_seconds (`float`, defaults to 2.0): Length of a clip. A shorter sound gives `num_clips` times itself.
        num_mel_frames (`int`, defaults to 204): Width that spectrograms are filled up or cut to.
        mean, std (`float`, default -4.268 and 9.138): ImageBind's normalisation, `(x - mean) / std`.
        downmix (`str`, defaults to "mean"): How channels become one: their "mean", or the "first", which is what the
            original takes. More than two whose places are known, as in 5.1, are weighed as FFmpeg does (ITU-R
            BS.775): the front sides at -3 dB and those behind at -6 dB of the center, without the bass channel.
        model_max_clips (`int`, *optional*): Clips of one sound that the model has positions for. More are refused
            before they are read; `None`: it is not known.
    """

    model_input_names = ["input_features", "audio_clip_mask"]

    def __init__(
        self,
        feature_size: int = 128,
        sampling_rate: int = 16000,
        padding_value: float = 0.0,
        num_clips: int = 8,
        clip_seconds: float = 2.0,
        num_mel_frames: int = 204,
        mean: float = -4.268,
        std: float = 9.138,
        downmix: Downmix = "mean",
        model_max_clips: int | None = None,
        **kwargs,
    ):
        # Sounds are never padded here; pipelines only batch if this agrees with the tokenizer's padding side
        kwargs.setdefault("padding_side", "left")
        super().__init__(feature_size=feature_size, sampling_rate=sampling_rate, padding_value=padding_value, **kwargs)
        self.num_clips = num_clips
        self.clip_seconds = clip_seconds
        self.num_mel_frames = num_mel_frames
        self.mean = mean
        self.std = std
        self.downmix = downmix
        self.model_max_clips = model_max_clips
        check_settings(self, SETTINGS)
        values = num_clips * feature_size * num_mel_frames
        if values > MAX_VALUES:
            raise ValueError(
                f"num_clips {num_clips} x feature_size {feature_size} x num_mel_frames {num_mel_frames} are {values} "
                f"values of one sound, expected at most {MAX_VALUES}"
            )

    def __call__(
        self,
        raw_speech: Any,
        sampling_rate: int | None = None,
        downmix: Downmix | None = None,
        num_clips: int | None = None,
        return_tensors: str | TensorType | None = None,
        access: MediaAccess | None = None,
    ) -> BatchFeature:
        """
        Args:
            raw_speech: One sound or a list of sounds. A sound is whatever [`load_sound`] takes: a path, URL, bytes, a
                loaded [`Sound`], or samples: numpy or torch of shape `(samples,)` or `(channels, samples)`, float in
                [-1, 1] or int16. A list of floats is one sound.
            sampling_rate (`int`, *optional*): Hz of samples that are given as arrays; must be the extractor's.
            downmix (`str`, *optional*): Overrides the extractor's.
            num_clips (`int`, *optional*): Overrides the extractor's.
            return_tensors (`str`, *optional*): "pt" or "np"; lists by default.
            access ([`MediaAccess`], *optional*): What may be opened, and how much work it may be; what
                `restrict_media_access` has set for the process by default.

        Returns:
            [`BatchFeature`]: `input_features` (sounds, num_clips, feature_size, num_mel_frames), float32, and
            `audio_clip_mask` (sounds, num_clips), bool, all true.

        Raises:
            MediaError (a `ValueError`): for sound that cannot be read, is empty or not finite, or shorter than one
                window of 25 ms, and for another sampling rate than the extractor's.
        """
        if sampling_rate is not None and sampling_rate != self.sampling_rate:
            raise MediaError(
                f"sampling_rate is {sampling_rate} Hz, but this feature extractor takes {self.sampling_rate} Hz; "
                f"resample the samples, or open them with load_sound(samples, sampling_rate={sampling_rate})"
            )
        given = check_options({"downmix": downmix, "num_clips": num_clips})
        downmix = self.downmix if downmix is None else downmix
        num_clips = self.num_clips if num_clips is None else given["num_clips"]
        if self.model_max_clips is not None and num_clips > self.model_max_clips:
            raise ValueError(
                f"got num_clips={num_clips}, but the model takes at most {self.model_max_clips} clips of a sound"
            )
        sounds = self.fetch_audio(raw_speech, access=access)
        features = torch.stack(in_parallel(lambda sound: self._sound_features(sound, downmix, num_clips), sounds))
        mask = torch.ones(features.shape[:2], dtype=torch.bool)
        data = {"input_features": features, "audio_clip_mask": mask}
        if return_tensors is None:
            data = {name: tensor.tolist() for name, tensor in data.items()}
        return BatchFeature(data, tensor_type=return_tensors)

    def fetch_audio(
        self, audio: Any, sampling_rate: int | None = None, *, access: MediaAccess | None = None
    ) -> list[Sound]:
        """
        Opens sounds, as the library's pipelines ask of a feature extractor.

        Args:
            audio: One sound or a list of them; what a source can be is said at [`load_sound`].
            sampling_rate (`int`, *optional*): The rate that the library wants them at. It is not needed, because
                sounds are resampled when they are read.
            access ([`MediaAccess`], *optional*): As in a call.
        """
        return [load_sound(item, access=access, **self._rate_of(item)) for item in as_list_of_sounds(audio)]

    def clip_starts(self, num_samples: int, num_clips: int | None = None) -> list[int]:
        """
        First samples of the clips of a sound, `i * (duration - clip_seconds) / num_clips`.

        Args:
            num_samples (`int`): Length of the sound at the extractor's sampling rate.
            num_clips (`int`, *optional*): Overrides the extractor's.

        Returns:
            `list[int]` of `num_clips` starts; all 0 for a sound shorter than a clip.
        """
        num_clips = self.num_clips if num_clips is None else num_clips
        last = max(num_samples / self.sampling_rate - self.clip_seconds, 0.0)
        return [int(i * (last / num_clips) * self.sampling_rate) for i in range(num_clips)]

    def _rate_of(self, item: Any) -> dict[str, int]:
        """The rate that `load_sound` is told: files and loaded sounds know their own, arrays have the extractor's."""
        return {"sampling_rate": self.sampling_rate} if isinstance(item, (np.ndarray, torch.Tensor, list)) else {}

    def _sound_features(self, sound: Sound, downmix: Downmix, num_clips: int) -> torch.Tensor:
        """-> (num_clips, feature_size, num_mel_frames)"""
        rate = self.sampling_rate
        num_samples = math.ceil(sound.duration * rate - 1e-6)  # as many as resampling the whole track gives
        length = min(round(self.clip_seconds * rate), num_samples)
        if length < window_length(rate):
            raise MediaError(
                f"{sound.name}: got {sound.duration:.4f} s of sound, expected at least one window of "
                f"{window_length(rate) / rate:.4g} s; leave this sound out"
            )
        spectrograms: dict[int, torch.Tensor] = {}
        starts = self.clip_starts(num_samples, num_clips)
        different = sorted(set(starts))  # a short sound gives the same clip every time
        windows = [(start / rate, (start + length) / rate) for start in different]
        for start, channels in zip(different, sound.read_windows(windows, rate), strict=True):
            mono = channels[0] if (sound.downmix or downmix) == "first" else to_mono(channels, sound.channels)
            spectrograms[start] = self._log_mel(torch.from_numpy(mono))
        clips = torch.stack([spectrograms[start] for start in starts])
        return (clips - self.mean) / self.std

    def _log_mel(self, samples: torch.Tensor) -> torch.Tensor:
        """(samples,) -> (feature_size, num_mel_frames); filled up after the logarithm, as ImageBind does."""
        mel = log_mel_spectrogram(samples - samples.mean(), self.sampling_rate, self.feature_size)
        mel = mel[:, : self.num_mel_frames]
        missing = self.num_mel_frames - mel.shape[1]
        return torch.nn.functional.pad(mel, (0, missing), value=self.padding_value)


def as_list_of_sounds(sounds: Any) -> list:
    """One sound, a list of sounds, or a list of lists of sounds (one for each prompt) -> a flat list of sounds."""
    if not isinstance(sounds, (list, tuple)):
        return [sounds]
    if sounds and all(isinstance(item, (int, float)) for item in sounds):
        return [np.asarray(sounds, dtype=np.float32)]
    return [sound for item in sounds for sound in as_list_of_sounds(item)]
