"""Models that several processes share out, with FSDP2 or DeepSpeed's ZeRO-3."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext

import torch
from transformers.utils.generic import is_flash_attention_requested

from ..modeling_video_llama import VideoLlamaResampler
from .collator import VideoLlamaDataCollator


__all__ = ["check_same_parts", "full", "is_sharded", "whole"]


def is_sharded(model: torch.nn.Module) -> bool:
    """Whether processes share the parameters out, with FSDP2 or DeepSpeed's ZeRO-3."""
    return any(hasattr(parameter, "full_tensor") for parameter in model.parameters()) or _by_zero(model)


def _by_zero(model: torch.nn.Module) -> bool:
    return any(hasattr(parameter, "ds_id") for parameter in model.parameters())


def full(tensor: torch.Tensor) -> torch.Tensor:
    """FSDP2 keeps a share of a tensor elsewhere; this is all of it (then every process must call this)."""
    tensor = tensor.detach()
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def whole(parameters: Iterable[torch.nn.Parameter], *, changed: bool = False) -> AbstractContextManager:
    """DeepSpeed's ZeRO-3 keeps a share of every parameter elsewhere, and puts the whole in its place in here."""
    shared_out = [parameter for parameter in parameters if hasattr(parameter, "ds_id")]
    if not shared_out:
        return nullcontext()
    import deepspeed

    return deepspeed.zero.GatheredParameters(shared_out, modifier_rank=0 if changed else None)


def check_same_parts(model: torch.nn.Module, collator: Callable | None) -> None:
    """
    ZeRO-3 gathers the weights of a part when the part runs, in all processes together, and aborts or hangs where they
    run different parts.

    Args:
        model: as it trains, wrapped or not.
        collator: that of the batches.

    Raises:
        ValueError: if ZeRO-3 shares the model out and batches of the processes may run different parts.
    """
    if not _by_zero(model):
        return
    if isinstance(collator, VideoLlamaDataCollator) and not collator.every_kind:
        raise ValueError(
            "with DeepSpeed's ZeRO-3 all processes must run the same parts in every step, but the collator has "
            "every_kind=False; make it after the TrainingArguments, pass every_kind=True, or train with FSDP2"
        )
    configs = [part.config for part in model.modules() if isinstance(part, VideoLlamaResampler)]
    if any(map(is_flash_attention_requested, configs)):
        raise ValueError(
            "with DeepSpeed's ZeRO-3 all processes must run the same parts in every step, but flash attention runs a "
            'branch once for each length of video; load the model with attn_implementation="sdpa", or train with FSDP2'
        )
