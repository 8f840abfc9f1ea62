"""A language model in one GGUF file, as llama.cpp and its relatives use them: unpacked, under the library's names."""

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from .checkpoints import UNREADABLE, Checkpoint
from .errors import ConversionError
from .sentence_pieces import SentencePieces


if TYPE_CHECKING:
    from gguf import GGUFReader


__all__ = ["GgufCheckpoint"]

# GGUF files of other models have other names and other permutations
ARCHITECTURE = "llama"
SENTENCE_PIECES = "llama"  # what GGUF files call a tokenizer of SentencePiece's kind


class GgufCheckpoint(Checkpoint):
    """
    Weights are unpacked one by one, to the float32 values that their blocks stand for.

    Args:
        path (`Path`)

    Attributes:
        num_tokens (`int`): of the vocabulary that the file has, too.

    Raises:
        ConversionError: for a file that is damaged or of another model than LLaMA, and without the package `gguf`.
    """

    def __init__(self, path: Path):
        self.path = path
        reader = self._reader
        architecture = self._field("general.architecture")
        if architecture != ARCHITECTURE:
            raise ConversionError(f"{path}: holds a model of type {architecture!r}, expected {ARCHITECTURE!r}")
        heads = self._field("llama.attention.head_count")
        self._heads = {"q_proj": heads, "k_proj": self._field("llama.attention.head_count_kv", heads)}
        self.num_tokens = len(self._field("tokenizer.ggml.tokens", ()))
        library_names = _library_names(self._field("llama.block_count"))
        # A tensor of another name keeps it, for the conversion to complain about
        self._gguf_names = {library_names.get(tensor.name, tensor.name): tensor.name for tensor in reader.tensors}
        sizes = {tensor.name: tuple(int(size) for size in reversed(tensor.shape)) for tensor in reader.tensors}
        self.shapes = {key: sizes[name] for key, name in self._gguf_names.items()}

    @property
    def sentence_pieces(self) -> SentencePieces | None:
        """The vocabulary, where it is one of SentencePiece, as LLaMA-2's is and LLaMA-3's is not."""
        if self._field("tokenizer.ggml.model") != SENTENCE_PIECES:
            return None
        pieces = self._field("tokenizer.ggml.tokens")
        scores, kinds = self._field("tokenizer.ggml.scores"), self._field("tokenizer.ggml.token_type")
        if not len(pieces) == len(scores) == len(kinds):
            raise ConversionError(
                f"{self.path}: has {len(pieces)} tokens, {len(scores)} scores and {len(kinds)} types of tokens, "
                "expected as many of each"
            )
        space = self._field("tokenizer.ggml.add_space_prefix", True)
        return SentencePieces.of_parts(self.path, pieces, scores, kinds, add_dummy_prefix=space)

    def special_token(self, name: str) -> str | None:
        """The text of "bos", "eos", "unknown" or "padding", where the file names such a token."""
        number = self._field(f"tokenizer.ggml.{name}_token_id", -1)
        return None if number < 0 else self._field("tokenizer.ggml.tokens")[number]

    @property
    def merges(self) -> list[tuple[str, str]]:
        """Those that the file lists, which may be none: its scores say the same."""
        left_and_right = (merge.partition(" ") for merge in self._field("tokenizer.ggml.merges", ()))
        return [(left, right) for left, _, right in left_and_right]

    def file_of(self, key: str) -> str:
        return str(self.path)

    def read(self, key: str) -> torch.Tensor:
        import gguf

        stored = self._tensor(key)
        values = torch.tensor(gguf.dequantize(stored.data, stored.tensor_type)).reshape(self.shapes[key])
        heads = self._heads.get(key.split(".")[-2])
        return values if heads is None else _halves_of_heads(values, heads)

    def dtype(self, key: str) -> torch.dtype:
        """The dtype of the values before they were quantised, as far as the file tells."""
        kind = self._tensor(key).tensor_type.name
        return {"F32": torch.float32, "BF16": torch.bfloat16}.get(kind, torch.float16)

    def close(self) -> None:
        self.__dict__.pop("_reader", None)

    def forget_pages(self) -> None:
        self.close()

    @cached_property
    def _reader(self) -> "GGUFReader":
        """Its tensors are mapped, not read."""
        try:
            from gguf import GGUFReader
        except ImportError as error:
            raise ConversionError(
                f"{self.path}: needs the package gguf to be read: `pip install 'transformers-videollama[convert]'`"
            ) from error
        try:
            return GGUFReader(self.path)
        except UNREADABLE as error:
            raise ConversionError(f"{self.path}: is incomplete, damaged or no GGUF file: {error}") from error

    def _tensor(self, key: str):
        return next(tensor for tensor in self._reader.tensors if tensor.name == self._gguf_names[key])

    def _field(self, name: str, default: Any = None) -> Any:
        field = self._reader.get_field(name)
        if field is None and default is None:
            raise ConversionError(f"{self.path}: has no entry {name!r}")
        return default if field is None else field.contents()


def _library_names(num_layers: int) -> dict[str, str]:
    """Names in GGUF files -> names of the library's LLaMA."""
    from gguf import MODEL_ARCH, get_tensor_name_map

    with torch.device("meta"):
        keys = LlamaForCausalLM(LlamaConfig(num_hidden_layers=num_layers)).state_dict()
    names = get_tensor_name_map(MODEL_ARCH.LLAMA, num_layers)
    return {f"{names.get_name(key.removesuffix('.weight'))}.weight": key for key in keys}


def _halves_of_heads(matrix: torch.Tensor, heads: int) -> torch.Tensor:
    """
    The two numbers that a rotation turns are neighbours in GGUF files, as in Meta's, and half a head apart in the
    library. (heads * d, width), where row 2 i + j of a head becomes row j * d / 2 + i.
    """
    return matrix.unflatten(0, (heads, -1, 2)).transpose(1, 2).reshape(matrix.shape)
