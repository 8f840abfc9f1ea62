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

"""
The needs of `generate` in addition to the network: encoding ahead, expansion for beams, stop sequences, valid logits.
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import torch
from torch import nn
from transformers.cache_utils import Cache
from transformers.generation import (
    GenerationConfig,
    GenerationMixin,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)
from transformers.masking_utils import create_masks_for_generate
from transformers.modeling_outputs import BaseModelOutputWithPast, BaseModelOutputWithPooling

from .configuration_video_llama import VideoLlamaConfig
from .messages import MEDIA_ARGUMENTS, group_inputs


__all__ = ["CACHE_NAME", "TokenSequenceCriteria", "VideoLlamaGenerationMixin", "begins_text", "named_cache"]

# What the installed version of the library calls the cache of keys and values, in outputs and arguments
CACHE_NAME = "cache" if "cache" in {field.name for field in fields(BaseModelOutputWithPast)} else "past_key_values"


def named_cache(past_key_values: Cache | None = None, cache: Cache | None = None) -> dict[str, Any]:
    """
    The cache under the name that the library's models know it by.

    Raises:
        ValueError: where it is given under both names.
    """
    if past_key_values is not None and cache is not None:
        raise ValueError("cache and past_key_values are two names of one argument, but both were given; give one")
    return {CACHE_NAME: past_key_values if cache is None else cache}


def begins_text(input_ids: torch.Tensor, cache: Any) -> bool:
    """
    Whether nothing stands before these tokens (B, S): no step of decoding, and nothing behind a cached prefix. A cache
    that is not the library's `Cache` is that of an engine, which places items itself.
    """
    return cache is None or (input_ids.shape[1] > 1 and isinstance(cache, Cache) and not cache.get_seq_length())


class TokenSequenceCriteria(StoppingCriteria):
    """Ends a sequence whose newest tokens are one of the given runs, such as the two ways to tokenise "###"."""

    def __init__(self, sequences: list[list[int]]):
        self.sequences = sequences

    def __call__(self, input_ids: torch.LongTensor, scores: torch.Tensor, **kwargs) -> torch.Tensor:
        done = torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
        for sequence in self.sequences:
            end = torch.tensor(sequence, device=input_ids.device)
            done |= (input_ids[:, -len(sequence) :] == end).all(dim=1)
        return done


class InvalidLogits(LogitsProcessor):
    """
    Notes the rows whose logits are NaN or +inf, of one call of `generate`, on the device and without waiting for it.
    Such a row gets token 0, since sampling from it would end a process on a GPU. (-inf only excludes a token.)
    """

    def __init__(self):
        self.rows: torch.Tensor | None = None  # (rows,), bool

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        invalid = ~(scores.amax(dim=-1, keepdim=True) < torch.inf)  # the maximum of what has a NaN is NaN
        self.rows = invalid[:, 0] if self.rows is None else self.rows | invalid[:, 0]
        scores.masked_fill_(invalid, -torch.inf)  # in place, since nobody will get these rows
        scores[:, :1].masked_fill_(invalid, 0.0)
        return scores

    def check(self, dtype: torch.dtype) -> None:
        """Raises a `ValueError` where rows have been noted; `dtype` is that of the model."""
        rows = [] if self.rows is None else self.rows.nonzero().flatten().tolist()
        if not rows:
            return
        advice = "look for NaN in the weights of the model and in what it is given"
        if dtype == torch.float16:  # which ends at 65504
            advice = 'float16 overflows beyond 65504: load the model with dtype="bfloat16" (--dtype bfloat16)'
        raise ValueError(
            f"got NaN or infinite logits from the model in {dtype}, in rows {rows} of {len(self.rows)}, expected "
            f"finite ones; {advice}"
        )


class InvalidLogitsCriteria(StoppingCriteria):
    """Ends all sequences when one has invalid logits: there is no answer to go on to."""

    def __init__(self, invalid: InvalidLogits):
        self.invalid = invalid

    def __call__(self, input_ids: torch.LongTensor, scores: torch.Tensor, **kwargs) -> torch.Tensor:
        done = torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
        return done if self.invalid.rows is None else done | self.invalid.rows.any()


class VideoLlamaGenerationMixin(GenerationMixin):
    """The library's, for prompts with any number of items of every modality."""

    config: VideoLlamaConfig
    dtype: torch.dtype
    model: Any

    @staticmethod
    def create_masks_for_generate(config: VideoLlamaConfig, attention_mask: torch.Tensor | None = None, **kwargs):
        """
        As the library's, which `generate` calls ahead of time for static caches. The library takes the result for a
        tensor. A mask of flex attention is none, so it is left to the forward pass.
        """
        if config.get_text_config()._attn_implementation == "flex_attention":
            return attention_mask
        return create_masks_for_generate(config=config, attention_mask=attention_mask, **kwargs)

    def generate(
        self,
        inputs: torch.Tensor | None = None,
        generation_config: GenerationConfig | None = None,
        logits_processor: LogitsProcessorList | None = None,
        stopping_criteria: StoppingCriteriaList | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """
        As the library's, and never an answer made of invalid logits.

        Raises:
            ValueError: where logits are NaN or +inf; with `remove_invalid_values=True` the library replaces them.
        """
        invalid = InvalidLogits()
        outputs = super().generate(
            inputs,
            generation_config,
            LogitsProcessorList([invalid, *(logits_processor or ())]),
            StoppingCriteriaList([InvalidLogitsCriteria(invalid), *(stopping_criteria or ())]),
            *args,
            **kwargs,
        )
        invalid.check(self.dtype)
        return outputs

    def prepare_inputs_for_generation(
        self, input_ids: torch.Tensor, *args: Any, inputs_embeds: torch.Tensor | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """
        As the library's, which looks for the name `inputs_embeds` among the arguments. It gives an assistant model no
        items, since they may be encoded for a model of another width. The assistant drafts from the embeddings of the
        text, which may hold placeholders; tokens may not.
        """
        inputs = super().prepare_inputs_for_generation(input_ids, *args, inputs_embeds=inputs_embeds, **kwargs)
        left_out = kwargs.get("mm_encoder_outputs") and inputs.get("mm_encoder_outputs") is None
        text = inputs.get("input_ids")
        if not left_out or text is None or not begins_text(text, inputs.get(CACHE_NAME)):
            return inputs
        return {**inputs, "input_ids": None, "inputs_embeds": self.model.get_input_embeddings()(text)}

    def compute_transition_scores(self, sequences, scores, *args, **kwargs) -> torch.Tensor:
        """As the library's, which counts on a score for every row of the vocabulary."""
        missing = self.config.text_config.vocab_size - scores[0].shape[-1]
        scores = tuple(nn.functional.pad(score, (0, missing), value=-torch.inf) for score in scores)
        return super().compute_transition_scores(sequences, scores, *args, **kwargs)

    def encode_media(self, inputs: Mapping[str, Any]) -> dict[str, BaseModelOutputWithPooling]:
        """
        Encodes all items of the model's inputs, so that several calls of `generate` or `forward` can share the result.

        Args:
            inputs (`dict`): Arguments of `forward`: `pixel_values`, `pixel_values_videos`, `video_frame_mask`,
                `input_features`, ... Others are ignored, and nothing is changed.

        Returns:
            `dict` from "image", "video" and "audio" to the outputs of `get_*_features`, for the modalities that have
            items: the `mm_encoder_outputs` of `forward` and `generate`.

        Raises:
            ValueError: as the `get_*_features`.
        """
        return {
            modality: getattr(self, f"get_{modality}_features")(**given, return_dict=True)
            for modality, given in group_inputs(inputs).items()
        }

    def _prepare_multimodal_encoder_kwargs_for_generation(self, model_kwargs: dict) -> dict:
        """Encodes all items before the prefill; the library's own knows neither sound nor features of frames."""
        computed = model_kwargs.get("mm_encoder_outputs") or {}
        given = {name: model_kwargs.pop(name, None) for names in MEDIA_ARGUMENTS.values() for name in names}
        encoded = self.encode_media(given)
        for modality in encoded:
            if computed.get(modality) is not None:
                raise ValueError(f"raw {modality} inputs and mm_encoder_outputs[{modality!r}] cannot both be given")
        model_kwargs["mm_encoder_outputs"] = {**computed, **encoded}
        return model_kwargs

    def _expand_multimodal_outputs(self, input_ids, mm_encoder_output, expand_size=1, inputs_embeds=None) -> dict:
        """
        Repeats the features for `expand_size` copies of every prompt (beams, several answers): prompts may hold any
        number of items of every modality, so each copy gets all items of its prompt, in their order.
        """
        if input_ids is not None and input_ids.numel() == 0:  # how generation begins from embeddings
            input_ids = None
        expanded = {}
        for modality, outputs in mm_encoder_output.items():
            features = torch.stack(list(outputs.pooler_output))
            mask = self.model.get_placeholder_mask(input_ids, inputs_embeds, features, modality)
            items = (mask.sum(dim=(1, 2)) // features.shape[1]).tolist()
            groups = features.split(items)
            copies = torch.cat([group for group in groups for _ in range(expand_size)])
            expanded[modality] = BaseModelOutputWithPooling(pooler_output=copies)
        return expanded

    def _get_stopping_criteria(self, generation_config, *args, **kwargs) -> StoppingCriteriaList:
        """Adds `generation_config.stop_sequences`, a list of runs of token ids that end an answer."""
        criteria = super()._get_stopping_criteria(generation_config, *args, **kwargs)
        sequences = getattr(generation_config, "stop_sequences", None)
        if sequences:
            criteria.append(TokenSequenceCriteria(sequences))
        return criteria
