"""GGUF files, written with llama.cpp's own package."""

from collections.abc import Sequence
from pathlib import Path

import gguf
import sentencepiece
import torch
from gguf import GGMLQuantizationType as Kind
from gguf import TokenType
from tiny_conversions import LLAMA
from transformers import LlamaConfig, LlamaForCausalLM


__all__ = ["write", "write_tokenizer"]


def write_tokenizer(path: Path, model: Path, merges: Sequence[str] = ()) -> Path:
    """A file without tensors."""
    writer = gguf.GGUFWriter(path, "llama")
    add_sizes(writer, LlamaConfig(num_hidden_layers=1))
    add_tokenizer(writer, model)
    if merges:
        writer.add_token_merges(merges)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


def write(path: Path, model: LlamaForCausalLM, kind: Kind = Kind.F32, architecture: str = "llama") -> Path:
    """As llama.cpp's converter writes a LLaMA of the library."""
    writer = gguf.GGUFWriter(path, architecture)
    add_sizes(writer, model.config)
    add_tokenizer(writer)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, model.config.num_hidden_layers)
    for key, tensor in model.state_dict().items():
        if model.config.tie_word_embeddings and key == "lm_head.weight":
            continue
        values = neighbours(key, tensor, model.config).float().numpy()
        stored = Kind.F32 if values.ndim == 1 else kind
        name = names.get_name(key.removesuffix(".weight")) + ".weight"
        writer.add_tensor(name, gguf.quantize(values, stored), raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add_sizes(writer: gguf.GGUFWriter, config: LlamaConfig) -> None:
    writer.add_name("tiny")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)


def add_tokenizer(writer: gguf.GGUFWriter, model: Path = LLAMA / "tokenizer.model") -> None:
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(model))
    ids = range(pieces.get_piece_size())
    kinds = {
        i: TokenType.UNKNOWN
        if pieces.is_unknown(i)
        else TokenType.CONTROL
        if pieces.is_control(i)
        else TokenType.BYTE
        if pieces.is_byte(i)
        else TokenType.NORMAL
        for i in ids
    }
    writer.add_tokenizer_model("llama")
    writer.add_token_list([pieces.id_to_piece(i) for i in ids])
    writer.add_token_scores([pieces.get_score(i) for i in ids])
    writer.add_token_types([kinds[i] for i in ids])
    writer.add_bos_token_id(pieces.bos_id())
    writer.add_eos_token_id(pieces.eos_id())
    writer.add_unk_token_id(pieces.unk_id())
    writer.add_add_bos_token(True)


def neighbours(key: str, tensor: torch.Tensor, config: LlamaConfig) -> torch.Tensor:
    """The rows of queries and keys in the order of GGUF files: a rotation turns neighbours."""
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(key.split(".")[-2])
    if heads is None:
        return tensor
    rows = torch.arange(len(tensor)).view(heads, 2, -1)
    return tensor[rows.permute(0, 2, 1).flatten()].contiguous()
