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

from transformers import BlipImageProcessorPil
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD, PILImageResampling


__all__ = ["VideoLlamaImageProcessor"]


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
