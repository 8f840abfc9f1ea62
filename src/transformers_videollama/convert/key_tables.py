"""
Names of the original -> names of `VideoLlamaForConditionalGeneration`, as data.

In a pattern, `{}` stands for the number of a layer, `*` for one word (weight or bias), `**` for anything. The name of
the model gets the same words there as the name of the original has. Rules are tried from the top. Every key of a file
must be a source of a rule or be on the list of ignored names.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch

from . import surgery


__all__ = [
    "AUDIO_BRANCH",
    "BLIP2",
    "BLIP2_LIBRARY",
    "LOGIT_SCALE",
    "TRAINING_STATE",
    "VIDEO_BRANCH",
    "Ignored",
    "KeyTable",
    "Rule",
    "fill",
    "imagebind_table",
    "match",
    "vision_table",
]

Surgery = Callable[..., torch.Tensor]
WILDCARDS = {"{}": r"(\d+)", "**": r"(.+)", "*": r"([^.]+)"}


@dataclass(frozen=True)
class Rule:
    """`sources` (in one file), put through `surgery` if there is one, are `target`."""

    sources: str | tuple[str, ...]
    target: str
    surgery: Surgery | None = None

    def keys_for(self, name: str) -> tuple[str, ...] | None:
        """The keys that the model's tensor `name` is made of; `None` if the rule is not about `name`."""
        words = match(self.target, name)
        if words is None:
            return None
        sources = (self.sources,) if isinstance(self.sources, str) else self.sources
        return tuple(fill(source, words) for source in sources)


@dataclass(frozen=True)
class Ignored:
    """Keys that are not converted, and why."""

    pattern: str
    reason: str


@dataclass(frozen=True)
class KeyTable:
    """
    All keys of one kind of file.

    Args:
        rules, ignored: see [`Rule`] and [`Ignored`].
        unread (`tuple` of `str`): regular expressions by which the library knows the buffers of old checkpoints.
    """

    rules: tuple[Rule, ...]
    ignored: tuple[Ignored, ...] = ()
    unread: tuple[str, ...] = ()

    def reason_to_ignore(self, key: str) -> str | None:
        if any(re.search(expression, key) for expression in self.unread):
            return "buffers that the library does not read"
        return next((entry.reason for entry in self.ignored if match(entry.pattern, key) is not None), None)


def match(pattern: str, name: str) -> tuple[str, ...] | None:
    """The words of `name` in the places of the wildcards of `pattern`; `None` if they do not match."""
    found = _compiled(pattern).fullmatch(name)
    return None if found is None else found.groups()


def fill(pattern: str, words: tuple[str, ...]) -> str:
    """`pattern` with `words` in the place of its wildcards."""
    remaining = iter(words)
    return re.sub(r"\{\}|\*\*|\*", lambda _: next(remaining), pattern)


@cache
def _compiled(pattern: str) -> re.Pattern:
    pieces = re.split(r"(\{\}|\*\*|\*)", pattern)
    return re.compile("".join(WILDCARDS.get(piece, re.escape(piece)) for piece in pieces))


def _qformer(source: str, target: str) -> tuple[Rule, ...]:
    """BERT of the original's Q-Formers -> the library's BLIP-2 Q-Former."""
    layer, new_layer = f"{source}.bert.encoder.layer.{{}}", f"{target}.encoder.layer.{{}}"
    return (
        Rule(f"{source}.bert.embeddings.LayerNorm.*", f"{target}.layernorm.*"),
        Rule(f"{layer}.attention.self.query.*", f"{new_layer}.attention.attention.query.*"),
        Rule(f"{layer}.attention.self.key.*", f"{new_layer}.attention.attention.key.*"),
        Rule(f"{layer}.attention.self.value.*", f"{new_layer}.attention.attention.value.*"),
        Rule(f"{layer}.attention.output.dense.*", f"{new_layer}.attention.output.dense.*"),
        Rule(f"{layer}.attention.output.LayerNorm.*", f"{new_layer}.attention.output.LayerNorm.*"),
        Rule(f"{layer}.crossattention.self.query.*", f"{new_layer}.crossattention.attention.query.*"),
        Rule(f"{layer}.crossattention.self.key.*", f"{new_layer}.crossattention.attention.key.*"),
        Rule(f"{layer}.crossattention.self.value.*", f"{new_layer}.crossattention.attention.value.*"),
        Rule(f"{layer}.crossattention.output.dense.*", f"{new_layer}.crossattention.output.dense.*"),
        Rule(f"{layer}.crossattention.output.LayerNorm.*", f"{new_layer}.crossattention.output.LayerNorm.*"),
        Rule(f"{layer}.intermediate_query.dense.*", f"{new_layer}.intermediate_query.dense.*"),
        Rule(f"{layer}.output_query.dense.*", f"{new_layer}.output_query.dense.*"),
        Rule(f"{layer}.output_query.LayerNorm.*", f"{new_layer}.output_query.LayerNorm.*"),
    )


# Entries of released files next to "model", which are no weights.
TRAINING_STATE = ("optimizer", "scaler", "config", "epoch")

BUFFERS = (
    Ignored("**.position_ids", "position numbers, which the model counts itself"),
    Ignored("**.rotary_emb.inv_freq", "rotary frequencies, which the language model computes itself"),
    Ignored("**.rotary_emb.cos_cached", "rotary tables, which the language model computes itself"),
    Ignored("**.rotary_emb.sin_cached", "rotary tables, which the language model computes itself"),
)

# The text half of BERT. The original deletes it; the released files lack it, but files saved from BLIP-2's first
# stage, or by code that does not delete it, have it.
_TEXT_HALF = "the text half of a Q-Former, which Video-LLaMA does not use"
TEXT_HALF = (
    Ignored("**.bert.embeddings.word_embeddings.*", _TEXT_HALF),
    Ignored("**.bert.embeddings.position_embeddings.*", _TEXT_HALF),
    Ignored("**.bert.encoder.layer.{}.intermediate.dense.*", _TEXT_HALF),
    Ignored("**.bert.encoder.layer.{}.output.dense.*", _TEXT_HALF),
    Ignored("**.bert.encoder.layer.{}.output.LayerNorm.*", _TEXT_HALF),
    Ignored("Qformer.cls.**", _TEXT_HALF),
    Ignored("video_Qformer.cls.**", _TEXT_HALF),
    Ignored("audio_Qformer.cls.**", _TEXT_HALF),
)


def vision_table(num_layers: int) -> KeyTable:
    """`eva_vit_g.pth`: its first `num_layers` blocks are used."""
    block, layer = "blocks.{}", "model.vision_tower.encoder.layers.{}"
    unused_norm = "EVA's own last norm and head; BLIP-2's ln_vision stands in their place"
    return KeyTable(
        rules=(
            Rule("cls_token", "model.vision_tower.embeddings.class_embedding"),
            Rule("pos_embed", "model.vision_tower.embeddings.position_embedding"),
            Rule("patch_embed.proj.*", "model.vision_tower.embeddings.patch_embedding.*"),
            Rule(f"{block}.norm1.*", f"{layer}.layer_norm1.*"),
            Rule(f"{block}.attn.qkv.weight", f"{layer}.self_attn.qkv.weight"),
            Rule((f"{block}.attn.q_bias", f"{block}.attn.v_bias"), f"{layer}.self_attn.qkv.bias", surgery.qkv_bias),
            Rule(f"{block}.attn.proj.*", f"{layer}.self_attn.projection.*"),
            Rule(f"{block}.norm2.*", f"{layer}.layer_norm2.*"),
            Rule(f"{block}.mlp.fc1.*", f"{layer}.mlp.fc1.*"),
            Rule(f"{block}.mlp.fc2.*", f"{layer}.mlp.fc2.*"),
        ),
        ignored=(
            Ignored(f"blocks.{num_layers}.**", "the last block of EVA, which BLIP-2 and Video-LLaMA do not run"),
            Ignored("norm.*", unused_norm),
            Ignored("fc_norm.*", unused_norm),
            Ignored("head.*", unused_norm),
        ),
    )


BLIP2 = KeyTable(
    rules=(
        Rule("query_tokens", "model.query_tokens"),
        Rule("ln_vision.*", "model.vision_tower.post_layernorm.*"),
        *_qformer("Qformer", "model.qformer"),
    ),
    ignored=(
        Ignored("t5_proj.*", "BLIP-2's projection into its own language model"),
        *TEXT_HALF,
        *BUFFERS,
    ),
)

# BLIP-2 in the library's format, whose blocks our model is made of.
BLIP2_LIBRARY = KeyTable(
    rules=(
        Rule("query_tokens", "model.query_tokens"),
        Rule("vision_model.**", "model.vision_tower.**"),
        Rule("qformer.**", "model.qformer.**"),
    ),
    ignored=(
        Ignored("language_model.**", "BLIP-2's own language model"),
        Ignored("language_projection.*", "BLIP-2's projection into its own language model"),
        *BUFFERS,
    ),
)

VIDEO_BRANCH = KeyTable(
    rules=(
        Rule("video_query_tokens", "model.video_resampler.query_tokens"),
        Rule("video_frame_position_embedding.weight", "model.video_resampler.position_embedding.weight"),
        Rule("llama_proj.*", "model.video_resampler.projection.*"),
        *_qformer("video_Qformer", "model.video_resampler.qformer"),
    ),
    ignored=(*TEXT_HALF, *BUFFERS),
)

AUDIO_BRANCH = KeyTable(
    rules=(
        Rule("audio_query_tokens", "model.audio_resampler.query_tokens"),
        Rule("audio_position_embedding.weight", "model.audio_resampler.position_embedding.weight"),
        Rule("audio_llama_proj.*", "model.audio_resampler.projection.*"),
        *_qformer("audio_Qformer", "model.audio_resampler.qformer"),
    ),
    ignored=(*TEXT_HALF, *BUFFERS),
)

LOGIT_SCALE = "modality_postprocessors.audio.1.log_logit_scale"
OTHER_MODALITIES = ("text", "depth", "thermal", "imu")


def _imagebind_trunk(modality: str, tower: str) -> tuple[Rule, ...]:
    """The rules that ImageBind's trunks have in common."""
    block, layer = f"modality_trunks.{modality}.blocks.{{}}", f"{tower}.layers.{{}}"
    preprocessor, head = f"modality_preprocessors.{modality}", f"modality_heads.{modality}"
    return (
        Rule(f"{preprocessor}.cls_token", f"{tower}.class_embedding"),
        Rule(f"{preprocessor}.pos_embedding_helper.pos_embed", f"{tower}.position_embedding"),
        Rule(f"{block}.norm_1.*", f"{layer}.layer_norm1.*"),
        Rule(f"{block}.attn.in_proj_weight", f"{layer}.self_attn.q_proj.weight", surgery.query_third),
        Rule(f"{block}.attn.in_proj_weight", f"{layer}.self_attn.k_proj.weight", surgery.key_third),
        Rule(f"{block}.attn.in_proj_weight", f"{layer}.self_attn.v_proj.weight", surgery.value_third),
        Rule(f"{block}.attn.in_proj_bias", f"{layer}.self_attn.q_proj.bias", surgery.query_third),
        Rule(f"{block}.attn.in_proj_bias", f"{layer}.self_attn.k_proj.bias", surgery.key_third),
        Rule(f"{block}.attn.in_proj_bias", f"{layer}.self_attn.v_proj.bias", surgery.value_third),
        Rule(f"{block}.attn.bias_k", f"{layer}.self_attn.bias_k"),
        Rule(f"{block}.attn.bias_v", f"{layer}.self_attn.bias_v"),
        Rule(f"{block}.attn.out_proj.*", f"{layer}.self_attn.out_proj.*"),
        Rule(f"{block}.norm_2.*", f"{layer}.layer_norm2.*"),
        Rule(f"{block}.mlp.fc1.*", f"{layer}.mlp.fc1.*"),
        Rule(f"{block}.mlp.fc2.*", f"{layer}.mlp.fc2.*"),
        Rule(f"{head}.0.*", f"{tower}.post_layernorm.*"),
        Rule(f"{head}.2.weight", f"{tower}.projection.weight"),
    )


def _without(modality: str, reason: str) -> tuple[Ignored, ...]:
    places = ("modality_preprocessors", "modality_trunks", "modality_heads", "modality_postprocessors")
    return tuple(Ignored(f"{place}.{modality}.**", reason) for place in places)


def imagebind_table(with_vision: bool) -> KeyTable:
    """`imagebind_huge.pth`: the audio trunk is used, and the vision trunk if it is asked for."""
    audio, vision = "modality_preprocessors.audio", "modality_preprocessors.vision"
    rules = (
        Rule(f"{audio}.rgbt_stem.proj.weight", "model.audio_tower.patch_embedding.weight"),
        Rule(f"{audio}.rgbt_stem.norm_layer.*", "model.audio_tower.stem_layernorm.*"),
        *_imagebind_trunk("audio", "model.audio_tower"),
    )
    ignored = [Ignored(LOGIT_SCALE, "kept in the configuration, as audio_config.logit_scale")]
    for modality in OTHER_MODALITIES:
        ignored += _without(modality, "ImageBind's other modalities: text, depth, thermal, motion")
    if with_vision:
        rules += (
            Rule(
                f"{vision}.rgbt_stem.proj.1.weight",
                "model.audio_vision_tower.patch_embedding.weight",
                surgery.sum_temporal_halves,
            ),
            Rule("modality_trunks.vision.pre_transformer_layer.0.*", "model.audio_vision_tower.pre_layernorm.*"),
            *_imagebind_trunk("vision", "model.audio_vision_tower"),
        )
    else:
        ignored += _without("vision", "ImageBind's vision trunk, which --with-imagebind-vision converts")
    return KeyTable(rules, tuple(ignored))
