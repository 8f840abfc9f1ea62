"""The configuration, read from the shapes of the checkpoints."""

import copy
import math
from collections.abc import Mapping
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedConfig

from ..configuration_video_llama import VideoLlamaConfig
from .errors import ConversionError
from .headers import Headers
from .surgery import Vocabulary


__all__ = ["read_config"]

# Shapes cannot tell attention heads. By section of the configuration and width of the released checkpoints.
KNOWN_HEADS = {
    "vision_config": {1408: 16},
    "qformer_config": {768: 12},
    "video_resampler_config": {768: 12},
    "audio_config": {768: 12},
    "audio_vision_config": {1280: 16},
    "audio_resampler_config": {768: 12},
}

# Video-LLaMA was trained on top of these. A checkpoint of the released width must also have the other released values,
# in which other members of the BLIP-2 family differ (364 pixels, 32 queries for another language model, 40 blocks).
RELEASED = {
    "vision_config": {
        "hidden_size": 1408,
        "num_hidden_layers": 39,
        "image_size": 224,
        "patch_size": 14,
        "intermediate_size": 6144,
    },
    "qformer_config": {
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "cross_attention_frequency": 2,
        "intermediate_size": 3072,
    },
}

# These fields are taken from the configuration of a BLIP-2 checkpoint in the library's format.
LIBRARY_FIELDS = {
    "vision_config": (*RELEASED["vision_config"], "num_attention_heads", "hidden_act", "layer_norm_eps"),
    "qformer_config": (
        *RELEASED["qformer_config"],
        "num_attention_heads",
        "encoder_hidden_size",
        "hidden_act",
        "layer_norm_eps",
    ),
}

Sections = dict[str, dict[str, Any]]


def read_config(
    headers: Headers,
    text_config: PreTrainedConfig,
    vocabulary: Vocabulary,
    *,
    tied: bool,
    with_imagebind_vision: bool = False,
    blip2_config: PreTrainedConfig | None = None,
    logit_scale: float | None = None,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
) -> VideoLlamaConfig:
    """
    Args:
        headers ([`Headers`]): Shapes of all files. Without "imagebind" and "audio_branch" the model has no audio.
        text_config (`PreTrainedConfig`): The language model's, as it was before its tables grew. Not changed.
        vocabulary ([`Vocabulary`]): Rows before and after.
        tied (`bool`): whether the converted model's head is its embeddings.
        with_imagebind_vision (`bool`): whether ImageBind's vision trunk is converted too.
        blip2_config (`Blip2Config`, *optional*): of a BLIP-2 checkpoint in the library's format, if it is one.
        logit_scale (`float`, *optional*): Norm of ImageBind's embeddings of sound; that of the configuration by
            default.
        overrides (`Mapping`, *optional*): section -> field -> value, for what shapes cannot tell.

    Raises:
        ConversionError: if sizes do not fit together, or heads are unknown.
    """
    sections = _library_sections(blip2_config) if blip2_config is not None else _original_sections(headers)
    sections["video_resampler_config"] = _resampler_section(
        headers, "video_branch", "video_Qformer", "video_query_tokens", "video_frame_position_embedding.weight"
    )
    if "imagebind" in headers:
        sections["audio_config"] = _audio_section(headers, logit_scale)
        sections["audio_resampler_config"] = _resampler_section(
            headers, "audio_branch", "audio_Qformer", "audio_query_tokens", "audio_position_embedding.weight"
        )
    if with_imagebind_vision:
        sections["audio_vision_config"] = _audio_vision_section(headers)
    _merge(sections, overrides or {})
    _fill_heads(sections)
    _check_released(sections)
    values: dict[str, Any] = {
        **sections,
        "text_config": _grown(text_config, vocabulary, tied),
        "num_query_tokens": headers.size("blip2", ("query_tokens", 1)),
        "image_token_id": vocabulary.first_placeholder_id,
        "video_token_id": vocabulary.first_placeholder_id + 1,
        "audio_token_id": vocabulary.first_placeholder_id + 2,
        "output_vocab_size": vocabulary.rows,
        "tie_word_embeddings": tied,
    }
    try:
        return VideoLlamaConfig(**values)
    except (StrictDataclassError, ValueError) as error:
        raise ConversionError(f"the files do not fit together: {_last_line(error)}") from error


def _grown(text_config: PreTrainedConfig, vocabulary: Vocabulary, tied: bool) -> PreTrainedConfig:
    config = copy.deepcopy(text_config)
    config.vocab_size = vocabulary.grown_rows
    config.tie_word_embeddings = tied
    # The folder it came from and the class that its weights were saved from are not those of the converted model.
    config.name_or_path = ""
    config.architectures = None
    return config


def _original_sections(headers: Headers) -> Sections:
    patch_size = headers.size("vision", ("patch_embed.proj.weight", -1), ("patch_embed.proj.weight", -2))
    positions = headers.size("vision", ("pos_embed", 1))
    blocks = headers.count_layers("vision", "blocks.{}.**")
    width = headers.size(
        "vision", ("cls_token", -1), ("pos_embed", -1), ("patch_embed.proj.bias", 0), ("blocks.0.norm1.weight", 0)
    )
    released = RELEASED["vision_config"]
    depth = released["num_hidden_layers"]
    vision = {
        "hidden_size": width,
        "intermediate_size": headers.size("vision", ("blocks.0.mlp.fc1.weight", 0), ("blocks.0.mlp.fc2.weight", 1)),
        # The original runs all blocks but the last, which a file may have been rid of.
        "num_hidden_layers": blocks if (width, blocks) == (released["hidden_size"], depth) else blocks - 1,
        "patch_size": patch_size,
        "image_size": math.isqrt(max(positions - 1, 0)) * patch_size,
    }
    return {"vision_config": vision, "qformer_config": _qformer_section(headers, "blip2", "Qformer", "query_tokens")}


def _library_sections(blip2_config: PreTrainedConfig) -> Sections:
    width, text = blip2_config.vision_config.hidden_size, blip2_config.text_config
    found = (text.model_type, getattr(text, "d_model", None))
    if width == RELEASED["vision_config"]["hidden_size"] and found != ("t5", 4096):
        raise ConversionError(
            f"--blip2: this BLIP-2 was trained for the language model {found[0]} (d_model {found[1]}), expected "
            "flan-t5-xxl (t5, d_model 4096): Video-LLaMA was trained on top of that Q-Former, which is in "
            "Salesforce/blip2-flan-t5-xxl"
        )
    return {
        section: {field: getattr(getattr(blip2_config, section), field) for field in fields}
        for section, fields in LIBRARY_FIELDS.items()
    }


def _qformer_section(headers: Headers, kind: str, name: str, queries: str) -> dict[str, Any]:
    layer = f"{name}.bert.encoder.layer"
    crossing = headers.layers(kind, f"{layer}.{{}}.crossattention.**")
    return {
        "hidden_size": headers.size(kind, (queries, -1), (f"{name}.bert.embeddings.LayerNorm.weight", 0)),
        "num_hidden_layers": headers.count_layers(kind, f"{layer}.{{}}.**"),
        "intermediate_size": headers.size(
            kind, (f"{layer}.0.intermediate_query.dense.weight", 0), (f"{layer}.0.output_query.dense.weight", 1)
        ),
        "encoder_hidden_size": headers.size(
            kind, (f"{layer}.0.crossattention.self.key.weight", 1), (f"{layer}.0.crossattention.self.value.weight", 1)
        ),
        "cross_attention_frequency": crossing[1] - crossing[0] if len(crossing) > 1 else 1,
    }


def _resampler_section(headers: Headers, kind: str, name: str, queries: str, positions: str) -> dict[str, Any]:
    return _qformer_section(headers, kind, name, queries) | {
        "num_query_tokens": headers.size(kind, (queries, 1)),
        "max_position_embeddings": headers.size(kind, (positions, 0)),
    }


def _trunk_section(headers: Headers, modality: str) -> dict[str, Any]:
    preprocessor, blocks = f"modality_preprocessors.{modality}", f"modality_trunks.{modality}.blocks"
    kind = "imagebind"
    return {
        "hidden_size": headers.size(
            kind, (f"{preprocessor}.cls_token", -1), (f"{preprocessor}.pos_embedding_helper.pos_embed", -1)
        ),
        "intermediate_size": headers.size(kind, (f"{blocks}.0.mlp.fc1.weight", 0), (f"{blocks}.0.mlp.fc2.weight", 1)),
        "num_hidden_layers": headers.count_layers(kind, f"{blocks}.{{}}.**"),
        "projection_dim": headers.size(kind, (f"modality_heads.{modality}.2.weight", 0)),
        "add_bias_kv": bool(headers.layers(kind, f"{blocks}.{{}}.attn.bias_*")),
    }


def _audio_section(headers: Headers, logit_scale: float | None) -> dict[str, Any]:
    stem = "modality_preprocessors.audio.rgbt_stem.proj.weight"
    section = _trunk_section(headers, "audio")
    section["patch_size"] = headers.size("imagebind", (stem, -1), (stem, -2))
    if logit_scale is not None:
        section["logit_scale"] = logit_scale
    return section


def _audio_vision_section(headers: Headers) -> dict[str, Any]:
    stem = "modality_preprocessors.vision.rgbt_stem.proj.1.weight"
    patch_size = headers.size("imagebind", (stem, -1), (stem, -2))
    positions = headers.size("imagebind", ("modality_preprocessors.vision.pos_embedding_helper.pos_embed", 1))
    return _trunk_section(headers, "vision") | {
        "patch_size": patch_size,
        "image_size": math.isqrt(max(positions - 1, 0)) * patch_size,
    }


def _merge(sections: Sections, overrides: Mapping[str, Mapping[str, Any]]) -> None:
    """Sections of parts that are not converted are left aside, so that one file of values serves every choice."""
    for name, values in overrides.items():
        if name not in KNOWN_HEADS:
            raise ConversionError(f"--config: unknown section {name!r}; expected one of {', '.join(KNOWN_HEADS)}")
        fields = VideoLlamaConfig.sub_configs[name]().to_dict()
        unknown = sorted(values.keys() - fields.keys())
        if unknown:
            raise ConversionError(f"--config: {name} has no field {unknown[0]!r}")
        if name in sections:
            sections[name].update(values)


def _fill_heads(sections: Sections) -> None:
    for name, section in sections.items():
        if "num_attention_heads" in section:
            continue
        width = section["hidden_size"]
        if width not in KNOWN_HEADS[name]:
            known = ", ".join(map(str, KNOWN_HEADS[name]))
            raise ConversionError(
                f"{name}: {width} is not a released width ({known}), and shapes do not tell the number of attention "
                f'heads; pass --config with {{"{name}": {{"num_attention_heads": ...}}}}'
            )
        section["num_attention_heads"] = KNOWN_HEADS[name][width]


def _check_released(sections: Sections) -> None:
    for name, expected in RELEASED.items():
        found = sections[name]
        if found["hidden_size"] != expected["hidden_size"]:
            continue
        for field, value in expected.items():
            if found[field] != value:
                raise ConversionError(
                    f"{name}.{field} is {found[field]}, expected {value}, which Video-LLaMA was trained on"
                )


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1].strip()
