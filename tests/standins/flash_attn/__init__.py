"""
A stand-in for the package `flash_attn`, whose kernels need a GPU: the functions that the library calls, with the same
arguments, and attention as its definition says. Tests put this folder on the path of an interpreter of their own.

Like the kernels it refuses float32, and whatever else they refuse, except within [`taking_float32`], where results can
be compared closely. What the library can ask for and no test does is `NotImplementedError`.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import torch


__all__ = ["CALLS", "flash_attn_func", "flash_attn_varlen_func", "flash_attn_with_kvcache", "taking_float32"]

__version__ = "2.8.3"

CALLS: Counter[str] = Counter()  # how often each function was called
DTYPES = [torch.float16, torch.bfloat16]
NO_WINDOW = (-1, -1)
MAX_HEAD_DIM = 256


@contextmanager
def taking_float32() -> Iterator[None]:
    """Lets float32 through, which the kernels do not have, for close comparisons."""
    DTYPES.append(torch.float32)
    try:
        yield
    finally:
        DTYPES.remove(torch.float32)


def flash_attn_func(
    q: torch.Tensor,  # (B, queries, heads, head_dim)
    k: torch.Tensor,  # (B, keys, heads of keys, head_dim)
    v: torch.Tensor,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = NO_WINDOW,
    deterministic: bool = False,
) -> torch.Tensor:
    """Attention of queries to keys; `causal` is aligned at the end: the last query attends to every key."""
    CALLS["flash_attn_func"] += 1
    _check(q, k, v, window_size)
    if q.ndim != 4 or len(q) != len(k):
        raise RuntimeError(f"expected (batch, length, heads, head_dim) of one batch, got {q.shape} and {k.shape}")
    return _attention(q, k, v, dropout_p, softmax_scale, causal)


def flash_attn_varlen_func(
    q: torch.Tensor,  # (queries of all sequences, heads, head_dim)
    k: torch.Tensor,
    v: torch.Tensor,
    cu_seqlens_q: torch.Tensor,  # (sequences + 1,), where each begins
    cu_seqlens_k: torch.Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = NO_WINDOW,
    deterministic: bool = False,
) -> torch.Tensor:
    """The same for sequences of several lengths that stand one behind the other."""
    CALLS["flash_attn_varlen_func"] += 1
    _check(q, k, v, window_size)
    lengths_q = _lengths(cu_seqlens_q, q, max_seqlen_q)
    lengths_k = _lengths(cu_seqlens_k, k, max_seqlen_k)
    if len(lengths_q) != len(lengths_k):
        raise RuntimeError(f"cu_seqlens_q has {len(lengths_q)} sequences, cu_seqlens_k {len(lengths_k)}")
    sequences = zip(q.split(lengths_q), k.split(lengths_k), v.split(lengths_k), strict=True)
    return torch.cat([_attention(*(part[None] for part in s), dropout_p, softmax_scale, causal)[0] for s in sequences])


def flash_attn_with_kvcache(*args, **kwargs):
    """Imported by the library next to the others, for paged caches."""
    raise NotImplementedError("the stand-in for flash_attn has no paged caches")


def _check(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, window_size: tuple[int, int]) -> None:
    if q.dtype not in DTYPES or k.dtype != q.dtype or v.dtype != q.dtype:
        raise RuntimeError(f"FlashAttention only support fp16 and bf16 data type, got {q.dtype}, {k.dtype}, {v.dtype}")
    if any(states.stride(-1) != 1 for states in (q, k, v)):
        raise RuntimeError("Input tensor must have contiguous last dimension")
    if k.shape != v.shape or q.shape[-1] != k.shape[-1] or q.shape[-2] % k.shape[-2] or q.shape[-1] > MAX_HEAD_DIM:
        raise RuntimeError(f"shapes do not fit together: {q.shape}, {k.shape}, {v.shape}")
    if tuple(window_size) != NO_WINDOW:
        raise NotImplementedError("the stand-in for flash_attn has no windows")


def _lengths(cu_seqlens: torch.Tensor, states: torch.Tensor, longest: int) -> list[int]:
    if cu_seqlens.dtype != torch.int32:
        raise RuntimeError(f"cu_seqlens must have dtype int32, got {cu_seqlens.dtype}")
    lengths = cu_seqlens.diff().tolist()
    if cu_seqlens[0] != 0 or sum(lengths) != len(states) or min(lengths) < 0 or max(lengths) > longest:
        raise RuntimeError(f"{cu_seqlens.tolist()} are no sequences of {len(states)} rows, up to {longest} long")
    return lengths


def _attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, dropout_p: float, softmax_scale: float | None, causal: bool
) -> torch.Tensor:
    scale = q.shape[-1] ** -0.5 if softmax_scale is None else softmax_scale
    k, v = (states.float().repeat_interleave(q.shape[-2] // k.shape[-2], dim=-2) for states in (k, v))
    scores = torch.einsum("bqhd,bkhd->bhqk", q.float(), k) * scale
    if causal:
        allowed = torch.ones(scores.shape[-2:], dtype=torch.bool).tril(scores.shape[-1] - scores.shape[-2])
        scores = scores.masked_fill(~allowed, torch.finfo(scores.dtype).min)
        weights = scores.softmax(-1) * allowed  # a query without a key gets zeros
    else:
        weights = scores.softmax(-1)
    weights = torch.nn.functional.dropout(weights, dropout_p)
    return torch.einsum("bhqk,bkhd->bqhd", weights, v).to(q.dtype)
