"""Frames and clips through an encoder, some at a time."""

from collections.abc import Callable

import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling


__all__ = ["encode_steps"]


def encode_steps(
    encode: Callable[[torch.Tensor], BaseModelOutputWithPooling],
    steps: torch.Tensor,
    step_mask: torch.Tensor | None,
    batch_size: int | None,
) -> BaseModelOutputWithPooling:
    """
    Runs `encode` on the real steps of (B, T, ...), `batch_size` of them at once (all for `None`), and returns the
    outputs that are kept, with a `pooler_output` (B, T, ...) that has zeros in the padding. Sizes may not depend on
    values while compiling, so there the padding is encoded like the rest and ignored later.
    """
    flat = steps.flatten(0, 1)
    real = None if step_mask is None or torch.compiler.is_compiling() else step_mask.flatten().bool()
    steps_to_encode = flat if real is None else flat[real]
    batches = steps_to_encode.split(batch_size or len(steps_to_encode))
    encoded = _joined([_kept(encode(batch)) for batch in batches])
    features = encoded.pooler_output
    if real is not None:
        features = encoded.pooler_output.new_zeros(len(real), *encoded.pooler_output.shape[1:])
        features[real.to(features.device)] = encoded.pooler_output
    encoded.pooler_output = features.unflatten(0, steps.shape[:2])
    return encoded


def _kept(output: BaseModelOutputWithPooling) -> BaseModelOutputWithPooling:
    """The output without the states of the last layer, which are larger than all that is used."""
    recorded = {name: output[name] for name in ("hidden_states", "attentions") if output.get(name) is not None}
    return BaseModelOutputWithPooling(pooler_output=output.pooler_output, **recorded)


def _joined(outputs: list[BaseModelOutputWithPooling]) -> BaseModelOutputWithPooling:
    """One output for a batch that was encoded in parts."""
    joined = BaseModelOutputWithPooling(pooler_output=torch.cat([output.pooler_output for output in outputs]))
    for name in ("hidden_states", "attentions"):
        if name in outputs[0]:
            layers = zip(*(output[name] for output in outputs), strict=True)
            # Layers that were not chosen are there as `None`
            joined[name] = tuple(None if parts[0] is None else torch.cat(parts) for parts in layers)
    return joined
