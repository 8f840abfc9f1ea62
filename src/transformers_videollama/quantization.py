"""Loading the language model in 8 or 4 bit."""

from typing import Literal

import torch
from transformers import BitsAndBytesConfig


__all__ = ["quantization_config"]

# They stay as they are: small beside the language model, and sensitive
NOT_QUANTISED = ("vision_tower", "qformer", "video_resampler", "audio_tower", "audio_vision_tower", "audio_resampler")


def quantization_config(
    kind: Literal["8bit", "4bit"], compute_dtype: torch.dtype = torch.bfloat16
) -> BitsAndBytesConfig:
    """
    What `from_pretrained` takes as `quantization_config` to quantise the language model alone, with bitsandbytes.

    Args:
        kind (`str`): "8bit", or "4bit" (NF4).
        compute_dtype (`torch.dtype`, defaults to `torch.bfloat16`): Of the products in 4 bit.
    """
    skip = [*(f"model.{name}" for name in NOT_QUANTISED), "lm_head"]
    if kind == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=skip)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_compute_dtype=compute_dtype,
        bnb_4bit_quant_type="nf4",
        llm_int8_skip_modules=skip,
    )
