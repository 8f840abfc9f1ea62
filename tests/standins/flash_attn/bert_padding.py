"""What the library takes from here: padding away from a batch, and back."""

import torch
from torch.nn import functional


__all__ = ["pad_input", "unpad_input"]


def unpad_input(hidden_states: torch.Tensor, attention_mask: torch.Tensor):
    """(B, S, ...) -> the real rows, their places in (B * S), where each sequence begins, the longest, the lengths"""
    lengths = attention_mask.sum(dim=1, dtype=torch.int32)
    indices = attention_mask.flatten().nonzero().flatten()
    begins = functional.pad(lengths.cumsum(0, dtype=torch.int32), (1, 0))
    return hidden_states.flatten(0, 1)[indices], indices, begins, int(lengths.max()), lengths


def pad_input(hidden_states: torch.Tensor, indices: torch.Tensor, batch: int, seqlen: int) -> torch.Tensor:
    """The inverse, with zeros in the padding."""
    padded = hidden_states.new_zeros(batch * seqlen, *hidden_states.shape[1:])
    padded[indices] = hidden_states
    return padded.unflatten(0, (batch, seqlen))
