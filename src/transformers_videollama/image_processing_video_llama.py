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

"""Images -> pixels of the vision tower."""

from collections.abc import Mapping
from typing import Any

from transformers import BlipImageProcessorPil
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD, PILImageResampling

from .media.checks import Check, check_value, check_values, flag, number, optional, several, whole


__all__ = ["PICTURE_SETTINGS", "VideoLlamaImageProcessor", "check_settings", "check_sizes"]

MAX_SIDE = 4096
SIDE = whole(1, MAX_SIDE)


def _is_size(value: Any) -> bool:
    """As the library takes it: a dict, its own class for one, two sides, or one for both."""
    if isinstance(value, Mapping) or hasattr(value, "shortest_edge"):
        sides = dict(value)
        return sides.keys() == {"height", "width"} and several(SIDE, 2).accepts(list(sides.values()))
    return SIDE.accepts(value) or several(SIDE, 2).accepts(value)


SIZE = Check(f"height and width, each from 1 to {MAX_SIDE}", _is_size)
RESCALE = Check(
    "a number from -1 to 1 that is not 0",  # the library's own tests set -1
    lambda value: number(least=-1, most=1).accepts(value) and abs(value) >= 1e-6,
)
SIZES = ("crop_size", "pad_size")
PICTURE_SETTINGS = {
    "size": SIZE,
    **dict.fromkeys(SIZES, optional(SIZE)),
    "resample": whole(0, 5),
    "rescale_factor": RESCALE,
    "image_mean": several(number(least=-1e4, most=1e4), 3),
    "image_std": several(number(least=1e-4, most=1e4), 3),
    # None is no, as in the library
    **dict.fromkeys(
        ("do_resize", "do_rescale", "do_normalize", "do_convert_rgb", "do_center_crop", "do_pad"), optional(flag)
    ),
}


def check_sizes(settings: Mapping[str, Any]) -> None:
    """As [`check_settings`], for sizes as they are given, of which the library makes its own class."""
    check_values(settings, {name: PICTURE_SETTINGS[name] for name in SIZES})
    if "size" in settings:
        check_value("size", settings["size"], SIZE)


def check_settings(processor: Any, checks: Mapping[str, Check]) -> None:
    """
    Sees to it that a processor, as a file may have described it, can process.

    Raises:
        ValueError: for a setting with a value that it cannot have; the message has the class, both and what to expect.
    """
    for name, check in checks.items():
        check_value(name, getattr(processor, name, None), check, f"{type(processor).__name__}: ")


class VideoLlamaImageProcessor(BlipImageProcessorPil):
    """
    Scales images to 224x224 with PIL's bicubic filter, without cropping or keeping the aspect ratio, and normalises
    them with CLIP's statistics, as the original Video-LLaMA does. There is no torchvision variant on purpose: its
    bicubic filter rounds single values differently, by up to 1/255.
    """

    size = {"height": 224, "width": 224}
    resample = PILImageResampling.BICUBIC
    image_mean = OPENAI_CLIP_MEAN
    image_std = OPENAI_CLIP_STD
    do_resize = True
    do_rescale = True
    do_normalize = True
    do_convert_rgb = True

    def __init__(self, **kwargs):
        check_sizes(kwargs)
        super().__init__(**kwargs)
        check_settings(self, PICTURE_SETTINGS)
