"""
Changes to tensors that are not merely renamed: one function per rule of the key tables. Each also takes tensors on the
meta device: in this way shapes are checked before anything is read.
"""

from dataclasses import dataclass

import torch

from ..processing_video_llama import PLACEHOLDER_TOKENS
from .errors import ConversionError


__all__ = [
    "Vocabulary",
    "grow_embeddings",
    "grow_head",
    "key_third",
    "qkv_bias",
    "query_third",
    "sum_temporal_halves",
    "value_third",
]

NUM_PLACEHOLDERS = len(PLACEHOLDER_TOKENS)
ROW_MULTIPLE = 64
PLACEHOLDER_SEED = 2306
ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class Vocabulary:
    """
    Rows of the language model's tables before and after the placeholders were added.

    Args:
        rows (`int`): Rows that the language model has.
        tokens (`int`): Ids that its tokenizer uses, which may be more or fewer.
    """

    rows: int
    tokens: int

    @property
    def first_placeholder_id(self) -> int:
        return max(self.rows, self.tokens)

    @property
    def grown_rows(self) -> int:
        needed = self.first_placeholder_id + NUM_PLACEHOLDERS
        return -(-needed // ROW_MULTIPLE) * ROW_MULTIPLE


def qkv_bias(q_bias: torch.Tensor, v_bias: torch.Tensor) -> torch.Tensor:
    """EVA's attention has no bias for keys; the library's has one bias for all three."""
    return torch.cat((q_bias, torch.zeros_like(v_bias), v_bias))


def query_third(in_proj: torch.Tensor) -> torch.Tensor:
    """The query rows of `nn.MultiheadAttention`'s joint projection, weight or bias."""
    return _third(in_proj, 0)


def key_third(in_proj: torch.Tensor) -> torch.Tensor:
    """As [`query_third`], for keys."""
    return _third(in_proj, 1)


def value_third(in_proj: torch.Tensor) -> torch.Tensor:
    """As [`query_third`], for values."""
    return _third(in_proj, 2)


def _third(in_proj: torch.Tensor, number: int) -> torch.Tensor:
    if in_proj.ndim == 0 or in_proj.shape[0] % 3:
        raise ConversionError(f"has shape {tuple(in_proj.shape)}, expected rows for query, key and value")
    return in_proj.chunk(3)[number]


def sum_temporal_halves(kernel: torch.Tensor) -> torch.Tensor:
    """
    (D, 3, 2, H, W) -> (D, 3, H, W). ImageBind repeats an image to two frames, so both halves of the kernel see the
    same picture and their sum, on one frame, is the same. Added in float32, as half precision would round once more.
    """
    if kernel.ndim != 5 or kernel.shape[2] != 2:
        raise ConversionError(f"has shape {tuple(kernel.shape)}, expected (width, 3, 2, patch, patch)")
    return kernel.float().sum(dim=2).to(kernel.dtype)


def grow_embeddings(table: torch.Tensor, vocabulary: Vocabulary) -> torch.Tensor:
    """
    Adds the rows of the placeholders and of the padding. Features replace the placeholders' embeddings. But if only
    embeddings are known, the model finds placeholders by them, so they are random, each unlike every other row. They
    have the table's spread, which keeps quantisation of the table as it was. Padding rows are zeros.
    """
    grown = _with_new_rows(table, vocabulary)
    generator = torch.Generator().manual_seed(PLACEHOLDER_SEED)
    noise = torch.randn(NUM_PLACEHOLDERS, table.shape[1], generator=generator).to(table.device)
    first = vocabulary.first_placeholder_id
    grown[first : first + NUM_PLACEHOLDERS] = noise * _standard_deviation(table)
    return grown


def grow_head(table: torch.Tensor, vocabulary: Vocabulary) -> torch.Tensor:
    """Adds rows of zeros: the logits of new rows are masked, so their values make no difference."""
    return _with_new_rows(table, vocabulary)


def _with_new_rows(table: torch.Tensor, vocabulary: Vocabulary) -> torch.Tensor:
    if table.ndim != 2 or table.shape[0] != vocabulary.rows:
        raise ConversionError(f"has shape {tuple(table.shape)}, expected {vocabulary.rows} rows, one for each token")
    grown = table.new_zeros(vocabulary.grown_rows, table.shape[1])
    grown[: len(table)] = table
    return grown


def _standard_deviation(table: torch.Tensor) -> torch.Tensor:
    """In float32 and in blocks of rows, so that a table in half precision is not copied as a whole."""
    blocks = table.split(ROWS_AT_ONCE)
    mean = torch.stack([block.float().sum() for block in blocks]).sum() / table.numel()
    squares = torch.stack([(block.float() - mean).square().sum() for block in blocks]).sum()
    return (squares / table.numel()).sqrt()
