"""Loading the language model in 8 or 4 bit, with bitsandbytes or torchao."""

from collections.abc import Iterator
from typing import Literal

import torch
from torch.utils._python_dispatch import is_traceable_wrapper_subclass
from transformers import BitsAndBytesConfig, PreTrainedModel, TorchAoConfig
from transformers.utils.quantization_config import QuantizationConfigMixin


__all__ = ["KINDS", "loading_dtype", "quantization_config", "stored_bytes"]

KINDS = ("4bit", "8bit", "int4", "int8")

# They stay as they are: they are small next to the language model, and sensitive
NOT_QUANTISED = ("vision_tower", "qformer", "video_resampler", "audio_tower", "audio_vision_tower", "audio_resampler")


def quantization_config(
    kind: Literal["4bit", "8bit", "int4", "int8"],
    compute_dtype: torch.dtype = torch.bfloat16,
    device: str | torch.device | None = None,
) -> QuantizationConfigMixin:
    """
    The `quantization_config` with which `from_pretrained` quantises only the linear layers of the language model.
    [`loading_dtype`] says which `dtype` goes with it.

    Args:
        kind (`str`):
            - "4bit": bitsandbytes, NF4, a float32 scale for 64 values.
            - "8bit": bitsandbytes, LLM.int8(), a float32 scale for a row.
            - "int4": torchao, weights only, a scale and a zero point for 128 values; fast for small batches, with
              `torch.compile` above all. The model must be loaded in bfloat16, on a CPU in any dtype.
            - "int8": torchao, weights only, a scale for a row. The model must be loaded in bfloat16 or float32.
        compute_dtype (`torch.dtype`, defaults to `torch.bfloat16`): The dtype of the products in "4bit".
        device (`str` or `torch.device`, *optional*): The model's device, for "int4", whose values are packed for one
            kind of device. By default and for "auto", "cuda" if there is one, otherwise "cpu".

    Raises:
        ImportError: if the package of `kind` is not installed.
        ValueError: for another kind.
    """
    skip = [*(f"model.{name}" for name in NOT_QUANTISED), "lm_head"]
    if kind == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=skip)
    if kind == "4bit":
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_compute_dtype=compute_dtype,
            bnb_4bit_quant_type="nf4",
            llm_int8_skip_modules=skip,
        )
    if kind in ("int4", "int8"):
        return TorchAoConfig(_torchao_config(kind, device), modules_to_not_convert=skip)
    raise ValueError(f"kind of quantisation must be one of {', '.join(KINDS)}, got {kind!r}")


def loading_dtype(kind: str, dtype: str = "auto", device: str | torch.device | None = None) -> str:
    """
    What `from_pretrained` takes as `dtype` of a model that is quantised.

    Args:
        kind (`str`): as in [`quantization_config`].
        dtype (`str`, defaults to "auto"): What is wished for: "float32", "bfloat16", "float16", or "auto", which is
            that of the checkpoint with bitsandbytes, and "bfloat16" with torchao, whose two kinds work in that.
        device (`str` or `torch.device`, *optional*): as in [`quantization_config`].

    Raises:
        ValueError: for a dtype that `kind` gives no answers in.
    """
    if kind in ("int4", "int8") and dtype == "auto":
        return "bfloat16"
    if kind == "int8" and dtype == "float16":
        # The product is computed with the integers, up to 127 times as large as the weights, and scaled afterwards
        raise ValueError("int8 weights overflow in float16; load the model in bfloat16 or float32, or take 8bit")
    if kind == "int4" and dtype != "bfloat16" and _device_type(device) != "cpu":
        raise ValueError(f"int4 weights need bfloat16 on {_device_type(device)}, got {dtype}; or take 4bit")
    return dtype


def _device_type(device: str | torch.device | None) -> str:
    if device in (None, "auto"):
        return "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(device).type


def _torchao_config(kind: str, device: str | torch.device | None):
    try:
        from torchao.prototype.quantization.int4 import PrototypeInt4WeightOnlyConfig
        from torchao.quantization import Int4WeightOnlyConfig, Int8WeightOnlyConfig
    except ImportError as error:
        raise ImportError(f"quantisation to {kind} needs torchao 0.18: `pip install -U torchao` ({error})") from error
    if kind == "int8":
        return Int8WeightOnlyConfig()
    if _device_type(device) == "cpu":  # torchao may still change it
        return PrototypeInt4WeightOnlyConfig()
    # The one form whose product is in torch itself
    return Int4WeightOnlyConfig(int4_packing_format="tile_packed_to_4d")


def stored_bytes(model: PreTrainedModel) -> int:
    """
    Bytes of a model's parameters and buffers as they are stored, with the scales of quantised ones. (The library's
    `get_memory_footprint` leaves scales out, and counts torchao's weights as if they were not quantised.)
    """
    tensors = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    return sum(part.nbytes for tensor in tensors.values() for part in _parts(tensor))


def _parts(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    if is_traceable_wrapper_subclass(tensor):  # torchao's
        for name in tensor.__tensor_flatten__()[0]:
            yield from _parts(getattr(tensor, name))
        return
    yield tensor
    # bitsandbytes' in 8 and in 4 bit
    scales = getattr(tensor, "SCB", None)
    state = getattr(tensor, "quant_state", None)
    if scales is not None:
        yield scales
    if state is not None:
        yield from (value for value in state.as_dict().values() if isinstance(value, torch.Tensor))
