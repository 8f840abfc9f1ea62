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

"""Frames -> pixels of the vision tower."""

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers.feature_extraction_utils import BatchFeature
from transformers.image_processing_utils import get_size_dict
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD, PILImageResampling, is_pil_image
from transformers.processing_utils import Unpack, VideosKwargs
from transformers.utils import TensorType
from transformers.video_processing_utils import BaseVideoProcessor
from transformers.video_utils import VideoMetadata

from .image_processing_video_llama import PICTURE_SETTINGS, check_settings, check_sizes
from .media import DEFAULT_NUM_FRAMES, Decoder, MediaAccess, OnDamage, Sampling, Video, load_video
from .media.checks import flag, optional, whole
from .media.options import OPTIONS
from .media.parallel import in_parallel
from .media.video import check_frame_count


__all__ = ["VideoLlamaVideoProcessor", "VideoLlamaVideoProcessorKwargs"]

# The options that choose the frames of a video, and its tracks
SAMPLING_OPTIONS = ("num_frames", "fps", "sampling", "start", "end", "do_sample_frames")
SAMPLING_OPTIONS += ("video_stream", "audio_stream", "on_damage", "decoder")

SAMPLING_SETTINGS = {
    "num_frames": optional(OPTIONS["num_frames"]),
    "on_damage": OPTIONS["on_damage"],
    "decoder": OPTIONS["decoder"],
    "fps": optional(OPTIONS["fps"]),
    "sampling": OPTIONS["sampling"],
    "do_sample_frames": flag,
    "return_metadata": flag,
    "model_max_frames": optional(whole(1)),
}


class VideoLlamaVideoProcessorKwargs(VideosKwargs, total=False):
    """
    In addition to those of the library:

    Attributes:
        sampling (`str`, *optional*, defaults to "uniform"): "uniform", evenly over the frames; "time", evenly over the
            seconds, which differs where the frame rate varies; or "headtail", the random frames of training.
        start, end (`float`, *optional*): Span of the video in seconds that frames are sampled from.
        access ([`MediaAccess`], *optional*): What may be opened, and how much work it may be.
        model_max_frames (`int`, *optional*): Frames of one video that the model has positions for. More are refused
            before they are decoded; `None`: it is not known.
        video_stream, audio_stream (`int` or `str`, *optional*): Which of several tracks: the index among all streams
            of the file, or the language, such as "eng".
        on_damage (`str`, *optional*, defaults to "raise"): What happens to chosen frames that cannot be decoded:
            "raise", or "skip", which leaves them out with a warning that counts.
        decoder (`str`, *optional*, defaults to "pyav"): What decodes the frames of video files: "pyav", "decord" or
            "torchcodec", which decodes on `device`, by default on a GPU where there is one.
    """

    sampling: Sampling
    model_max_frames: int | None
    start: int | float | None
    end: int | float | None
    access: MediaAccess | None
    video_stream: int | str | None
    audio_stream: int | str | None
    on_damage: OnDamage
    decoder: Decoder


class VideoLlamaVideoProcessor(BaseVideoProcessor):
    """
    Samples frames (8, evenly, by default), scales them to 224x224 without cropping or keeping the aspect ratio,
    and normalises them with CLIP's statistics, as the original Video-LLaMA does. Frames of files are scaled by the
    decoder, as in the original; decoded frames by a bilinear filter with antialiasing, the nearest match to it.
    """

    valid_kwargs = VideoLlamaVideoProcessorKwargs
    model_input_names = ["pixel_values_videos", "video_frame_mask"]
    resample = PILImageResampling.BILINEAR
    size = {"height": 224, "width": 224}
    image_mean = OPENAI_CLIP_MEAN
    image_std = OPENAI_CLIP_STD
    do_resize = True
    do_rescale = True
    do_normalize = True
    do_convert_rgb = True
    do_sample_frames = True
    num_frames = DEFAULT_NUM_FRAMES
    fps = None
    sampling = "uniform"
    on_damage = "raise"
    decoder = "pyav"
    model_max_frames = None

    def __init__(self, **kwargs: Unpack[VideoLlamaVideoProcessorKwargs]):
        check_sizes(kwargs)
        super().__init__(**kwargs)
        check_settings(self, PICTURE_SETTINGS | SAMPLING_SETTINGS)

    def preprocess(self, videos: Any, **kwargs: Unpack[VideoLlamaVideoProcessorKwargs]) -> BatchFeature:
        """
        Args:
            videos: One video or a list of videos. A video is whatever [`load_video`] takes (a path, URL, bytes, numpy
                or torch of shape `(T, H, W, 3)` or `(T, 3, H, W)`, a list of PIL images), or a loaded [`Video`]. In a
                list, a path is a video, and a list of pictures is one video.
            kwargs: see [`VideoLlamaVideoProcessorKwargs`]: `num_frames`, `fps`, `sampling`, `start`, `end`,
                `video_stream`, `audio_stream`, `on_damage`, `decoder`, `video_metadata` (`{"fps": ...}` for each video
                that is given as frames), `return_tensors`, `return_metadata`, ...

        Returns:
            [`BatchFeature`]: `pixel_values_videos` (videos, T, 3, height, width), float32, and `video_frame_mask`
            (videos, T), bool: T is the length of the longest video, others are padded with zeros after their frames.

        Raises:
            MediaError (a `ValueError`): for a video that cannot be read, or has no frames.
        """
        names = (*SAMPLING_OPTIONS, "video_metadata", "access")
        opening = {name: kwargs.pop(name) for name in names if name in kwargs}
        opening |= {name: kwargs.get(name) for name in ("size", "do_resize", "model_max_frames", "device")}
        opened = self.open_videos(as_list_of_videos(videos), **opening)
        for video in opened:  # those that came opened, too
            check_frame_count(video.name, len(video.indices), opening["model_max_frames"] or self.model_max_frames)
        return super().preprocess(
            [video.frames for video in opened],
            video_metadata=[_metadata(video) for video in opened],
            do_sample_frames=False,
            **kwargs,
        )

    def open_videos(
        self,
        sources: list,
        *,
        num_frames: int | None = None,
        fps: float | None = None,
        sampling: Sampling | None = None,
        start: float | None = None,
        end: float | None = None,
        video_stream: int | str | None = None,
        audio_stream: int | str | None = None,
        on_damage: OnDamage | None = None,
        decoder: Decoder | None = None,
        video_metadata: Any = None,
        do_sample_frames: bool | None = None,
        size: Any = None,
        do_resize: bool | None = None,
        model_max_frames: int | None = None,
        device: "str | torch.device | None" = None,
        generator: np.random.Generator | None = None,
        access: MediaAccess | None = None,
    ) -> list[Video]:
        """
        Decodes the frames that `preprocess` would take. A video that is loaded already is left as it is.

        Args:
            sources (`list`): One entry for each video, whatever [`load_video`] takes.
            num_frames, fps, sampling, start, end, video_stream, audio_stream, on_damage, decoder, video_metadata,
                do_sample_frames, size, do_resize (*optional*): As for `preprocess`; the processor's own by default.
            model_max_frames (`int`, *optional*): As the processor's own, which it is by default.
            device (`str` or `torch.device`, *optional*): Where torchcodec decodes; other decoders do not read it.
            generator (`np.random.Generator`, *optional*): The generator that "headtail" draws from.
            access ([`MediaAccess`], *optional*): What may be opened, and how much work it may be; what
                `restrict_media_access` has set for the process by default.

        Returns:
            `list[Video]`, in the order given.

        Raises:
            MediaError (a `ValueError`): for a video that cannot be read, or has no frames.
            ValueError: for an option that cannot have its value, and for more frames than `model_max_frames`.
        """
        if num_frames is None and fps is None:
            num_frames, fps = (self.num_frames if self.fps is None else None), self.fps
        if not (self.do_sample_frames if do_sample_frames is None else do_sample_frames):
            num_frames, fps = sys.maxsize, None
        if not (self.do_resize if do_resize is None else do_resize):
            height_width = None
        else:
            size = get_size_dict(dict(self.size if size is None else size))
            height_width = (size["height"], size["width"])
        decoder = self.decoder if decoder is None else decoder
        load = partial(
            load_video,
            num_frames=num_frames,
            fps=fps,
            sampling=self.sampling if sampling is None else sampling,
            start=start,
            end=end,
            video_stream=video_stream,
            audio_stream=audio_stream,
            on_damage=self.on_damage if on_damage is None else on_damage,
            decoder=decoder,
            device=device if decoder == "torchcodec" else None,
            size=height_width,
            max_frames=self.model_max_frames if model_max_frames is None else model_max_frames,
            generator=generator,
            access=access,
        )
        known = _metadata_of_each(video_metadata, len(sources))
        pairs = zip(sources, known, strict=True)
        if generator is not None:  # which is drawn from in the order of the videos
            return [load(source, video_fps=of_it.get("fps")) for source, of_it in pairs]
        return in_parallel(lambda pair: load(pair[0], video_fps=pair[1].get("fps")), pairs)

    def _preprocess(
        self, videos: list[torch.Tensor], return_tensors: str | TensorType | None = None, **kwargs
    ) -> BatchFeature:
        videos = super()._preprocess(videos, return_tensors=None, **kwargs)["pixel_values_videos"]
        pixels, mask = pad_steps(videos)
        return BatchFeature({"pixel_values_videos": pixels, "video_frame_mask": mask}, tensor_type=return_tensors)


def pad_steps(items: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Items (T, ...) -> all of them (items, longest T, ...), padded by zeros, and the mask (items, T) of real steps"""
    lengths = torch.tensor([len(steps) for steps in items])
    mask = torch.arange(int(lengths.max())) < lengths[:, None]
    return pad_sequence(list(items), batch_first=True), mask


def as_list_of_videos(videos: Any) -> list:
    """One video, a list of videos, or a list of lists of videos (one for each prompt) -> a flat list of videos."""
    if not isinstance(videos, (list, tuple)) or (videos and all(_is_picture(item) for item in videos)):
        return [videos]
    return [video for item in videos for video in as_list_of_videos(item)]


def _is_picture(item: Any) -> bool:
    return is_pil_image(item) or (isinstance(item, (np.ndarray, torch.Tensor)) and item.ndim in (2, 3))


def as_list_of_metadata(metadata: Any) -> list[Mapping]:
    """Metadata of one video, of each of a list, or of a list of lists (one for each prompt) -> a flat list."""
    if metadata is None or isinstance(metadata, Mapping):
        return [metadata or {}]
    return [entry for item in metadata for entry in as_list_of_metadata(item)]


def _metadata_of_each(metadata: Any, num_videos: int) -> list[Mapping]:
    """The caller's metadata of each video; only the frame rate of decoded frames is used."""
    if metadata is None:
        return [{}] * num_videos
    known = as_list_of_metadata(metadata)
    if len(known) != num_videos:
        raise ValueError(f"got video_metadata for {len(known)} videos, but {num_videos} videos; give one for each")
    return known


def _metadata(video: Video) -> VideoMetadata:
    return VideoMetadata(
        total_num_frames=video.total_num_frames,
        fps=video.fps,
        height=video.frames.shape[1],
        width=video.frames.shape[2],
        duration=video.total_num_frames / video.fps if video.fps else None,
        frames_indices=list(video.indices),
    )
