# Copyright 2026 The transformers_videollama authors. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""What the fields of a configuration can be, so that a damaged file is an error before a network is built of it."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from transformers.activations import ACT2FN

from .media.checks import Check, check_value, flag, number, optional, whole


__all__ = ["check_fields", "check_grid", "check_heads", "check_text"]

# Twice the widest and deepest language model, so that no damaged number makes tables that fill a machine
WIDTH, LAYERS, VOCABULARY = whole(1, 2**15), whole(1, 256), whole(1, 2**21)
POSITIONS = 2**16  # of patches, and rows of a table

# The library's own tests set an epsilon of 1
EPSILON, SHARE = number(least=1e-15, most=1), number(least=0, below=1)
TOKEN = optional(whole(-1, 2**21))  # -1 is LLaMA's old word for none
NEVER = Check("False, since nothing here is so", lambda value: value is False)


def _is_float_type(value: Any) -> bool:
    value = getattr(torch, value, None) if isinstance(value, str) else value
    return isinstance(value, torch.dtype) and value.is_floating_point


def _is_activation(value: Any) -> bool:
    return isinstance(value, str) and value in ACT2FN


def _are_labels(value: Any) -> bool:
    return isinstance(value, Mapping) and len(value) <= POSITIONS and all(str(key).isdecimal() for key in value)


DTYPE = Check("the name of a type of floating point numbers, such as 'float16'", _is_float_type)
# Of the parts of every kind. A field that is not here, such as those of language models other than LLaMA, is left to
# the class of its configuration, which checks the types of all.
FIELDS = {
    "hidden_size": WIDTH,
    "encoder_hidden_size": WIDTH,
    "projection_dim": WIDTH,
    "intermediate_size": whole(1, 2**18),
    "num_hidden_layers": LAYERS,
    "cross_attention_frequency": LAYERS,
    "num_attention_heads": whole(1, 1024),
    "num_key_value_heads": optional(whole(1, 1024)),
    "head_dim": optional(whole(1, 4096)),
    "vocab_size": VOCABULARY,
    "num_query_tokens": whole(1, 4096),
    "image_size": whole(1, 4096),
    "patch_size": whole(1, 4096),
    "patch_stride": whole(1, 4096),
    "num_mel_bins": whole(1, 1024),
    "num_mel_frames": whole(1, POSITIONS),
    "hidden_act": Check("the name of an activation function of the library", _is_activation),
    "layer_norm_eps": EPSILON,
    "stem_layer_norm_eps": EPSILON,
    "rms_norm_eps": EPSILON,
    "attention_dropout": optional(SHARE),
    "hidden_dropout_prob": SHARE,
    "attention_probs_dropout_prob": SHARE,
    "initializer_range": number(least=0, most=1),
    "logit_scale": number(least=1e-3, most=1e4),
    "chunk_size_feed_forward": whole(0, 2**20),
    "image_token_id": whole(0, 2**21),
    "video_token_id": whole(0, 2**21),
    "audio_token_id": whole(0, 2**21),
    "output_vocab_size": optional(VOCABULARY),
    "pad_token_id": TOKEN,
    "bos_token_id": TOKEN,
    "is_encoder_decoder": NEVER,
    "use_qformer_text_input": NEVER,
    "tie_word_embeddings": optional(flag),
    "dtype": optional(DTYPE),
    "torch_dtype": optional(DTYPE),
    "num_labels": optional(whole(0, POSITIONS)),
    "id2label": optional(Check("a dict of labels by their numbers", _are_labels)),
    "factor": optional(number(above=0, most=1e6)),  # of a rotary embedding, as the next
    "rope_theta": optional(number(least=1, most=1e12)),
}
TABLE_ROWS = {"max_position_embeddings": whole(1, POSITIONS)}  # learned positions; a language model's are computed
LONGEST_TEXT = {"max_position_embeddings": whole(1, 2**24)}


def check_fields(values: Mapping[str, Any], part: str = "") -> None:
    """
    Args:
        values (`Mapping`): Fields and values of a part's configuration, as a file has them.
        part (`str`, *optional*): The field of [`VideoLlamaConfig`] that holds it; its own fields by default.

    Raises:
        ValueError: for a value that a field cannot have; the message has part, field and value.
    """
    checks = FIELDS | (LONGEST_TEXT if part.startswith("text_config") else TABLE_ROWS)
    where = f"{part}: " if part else ""
    for name, value in values.items():
        if name in checks:
            check_value(name, value, checks[name], where)
        elif name in ("rope_parameters", "rope_scaling") and isinstance(value, Mapping):
            check_fields(value, f"{part}.{name}")
            for inner in value.values():  # some language models have one set for each type of layer
                check_fields(inner if isinstance(inner, Mapping) else {}, f"{part}.{name}")


def check_heads(config: Any, part: str) -> None:
    """Sees to it that the heads of attention divide the width."""
    if config.hidden_size % config.num_attention_heads:
        raise ValueError(
            f"{part}.num_attention_heads is {config.num_attention_heads}, which does not divide hidden_size, "
            f"{config.hidden_size}"
        )


def check_grid(config: Any, part: str, sides: tuple[str, str], stride: int) -> None:
    """Sees to it that a picture or a spectrogram has patches, and no more than a table of positions can have rows."""
    patch, lengths = config.patch_size, [getattr(config, side) for side in sides]
    of_what = " and ".join(dict.fromkeys(f"{side} {length}" for side, length in zip(sides, lengths, strict=True)))
    if patch > min(lengths):
        raise ValueError(f"{part}.patch_size is {patch}, which is more than {of_what}")
    count = math.prod((length - patch) // stride + 1 for length in lengths)
    if count > POSITIONS:
        raise ValueError(f"{part} makes {count} patches of {of_what}, expected at most {POSITIONS}")


def check_text(config: Any, output_vocab_size: int | None) -> None:
    """Sees to it that ids are rows of the language model's tables, and that its groups of heads are whole."""
    rows, padding = config.vocab_size, getattr(config, "pad_token_id", None)
    if padding is not None and padding >= rows:
        raise ValueError(f"text_config.pad_token_id is {padding}, but its vocabulary has {rows} rows")
    if output_vocab_size is not None and output_vocab_size > rows:
        raise ValueError(f"output_vocab_size is {output_vocab_size}, but text_config.vocab_size is {rows}")
    heads, groups = (getattr(config, name, None) for name in ("num_attention_heads", "num_key_value_heads"))
    if isinstance(heads, int) and isinstance(groups, int) and heads % groups:
        raise ValueError(
            f"text_config.num_key_value_heads is {groups}, which does not divide num_attention_heads, {heads}"
        )
