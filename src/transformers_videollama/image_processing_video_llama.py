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
