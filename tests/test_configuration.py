"""Configurations: defaults of the released checkpoints, parts that may be absent, and sizes that must agree."""

import re
from pathlib import Path

import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError
from transformers import (
    AutoConfig,
    Blip2QFormerConfig,
    Blip2VisionConfig,
    CLIPTextConfig,
    CLIPVisionConfig,
    Dinov2Config,
    LlamaConfig,
    PreTrainedConfig,
    VJEPA2Config,
)

from transformers_videollama import (
    VideoLlamaAudioConfig,
    VideoLlamaAudioVisionConfig,
    VideoLlamaConfig,
    VideoLlamaForConditionalGeneration,
    VideoLlamaResamplerConfig,
)


README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
LLAMA_13B = {"hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 40, "num_attention_heads": 40}


def meta_model(**kwargs) -> VideoLlamaForConditionalGeneration:
    with torch.device("meta"):
        return VideoLlamaForConditionalGeneration(VideoLlamaConfig(**kwargs))


@pytest.mark.parametrize("values", ({}, {"audio_config": {}}, {"audio_config": {}, "audio_vision_config": {}}))
def test_saved_and_loaded_unchanged(tmp_path, values):
    config = VideoLlamaConfig(**values)
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert isinstance(loaded, VideoLlamaConfig)
    assert loaded.to_dict() == config.to_dict() | {"_name_or_path": loaded._name_or_path}
    assert VideoLlamaConfig.from_dict(config.to_dict()).to_dict() == config.to_dict()


def test_parts_may_be_dicts_or_objects():
    vision = {"hidden_size": 64, "num_hidden_layers": 1}
    sizes = {"qformer_config": {"encoder_hidden_size": 64}}
    as_dict = VideoLlamaConfig(vision_config=vision, **sizes)
    as_object = VideoLlamaConfig(vision_config=Blip2VisionConfig(**vision), **sizes)
    assert as_dict.to_dict() == as_object.to_dict()
    assert vision == {"hidden_size": 64, "num_hidden_layers": 1}


@pytest.mark.parametrize("as_dict", (False, True), ids=("object", "dict"))
@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("vision_config", Dinov2Config(hidden_size=1408)),
        ("vision_config", CLIPVisionConfig(hidden_size=1408, num_attention_heads=16)),
        ("vision_config", VJEPA2Config(hidden_size=1408, num_attention_heads=16)),
        ("qformer_config", Blip2VisionConfig()),
        ("qformer_config", VideoLlamaResamplerConfig(encoder_hidden_size=1408)),  # a subclass, with other fields
        ("video_resampler_config", Blip2QFormerConfig(encoder_hidden_size=768)),
        ("audio_config", VideoLlamaAudioVisionConfig()),
        ("audio_vision_config", VideoLlamaAudioConfig()),
        ("audio_resampler_config", Blip2QFormerConfig(encoder_hidden_size=1024)),
        ("text_config", Dinov2Config()),
        ("text_config", CLIPTextConfig()),
        ("text_config", VideoLlamaConfig()),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_parts_of_another_kind_are_refused(name: str, wrong: PreTrainedConfig, as_dict: bool):
    given = {"audio_config": {}, name: wrong.to_dict() if as_dict else wrong}
    with pytest.raises(ValueError, match=f"^{name} must be .* got a .*{wrong.model_type}'"):
        VideoLlamaConfig(**given)


def test_audio_branch_is_absent_unless_asked_for():
    assert VideoLlamaConfig().audio_config is VideoLlamaConfig().audio_resampler_config is None
    config = VideoLlamaConfig(audio_config={}, audio_resampler_config={"num_query_tokens": 4})
    assert (config.audio_resampler_config.num_query_tokens, config.audio_config.max_source_positions) == (4, 4)
    assert config.audio_resampler_config.max_position_embeddings == 8
    assert VideoLlamaAudioConfig().max_source_positions == 8


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"qformer_config": {"encoder_hidden_size": 3}}, r"qformer_config.encoder_hidden_size is 3, but .* is 1408"),
        ({"video_resampler_config": {"encoder_hidden_size": 3}}, r"is 3, but qformer_config.hidden_size is 768"),
        ({"audio_config": {"projection_dim": 3}}, r"is 1024, but audio_config.projection_dim is 3"),
        ({"audio_vision_config": {}}, "there is no branch to train"),
        ({"encode_batch_size": 0}, "must be 1 or more, got 0"),
        ({"image_token_id": 32001}, r"three different placeholder ids, got \(32001, 32001, 32002\)"),
        ({"text_config": {"model_type": "llama", "vocab_size": 32002}}, "which has 32002; resize"),
    ],
)
def test_sizes_that_do_not_agree(values, message):
    with pytest.raises(StrictDataclassClassValidationError, match=message):
        VideoLlamaConfig(**values)


@pytest.mark.parametrize(("name", "llama"), (("7B", {}), ("13B", LLAMA_13B)))
def test_memory_that_readme_states(name, llama):
    """GiB of parameters by dtype; NF4 keeps 4 bits a value, and one float32 scale for 64 values."""
    model = meta_model(audio_config={}, text_config=LlamaConfig(vocab_size=32064, **llama))
    total = sum(parameter.numel() for parameter in model.parameters())
    layers = model.model.language_model.layers
    quantised = sum(module.weight.numel() for module in layers.modules() if isinstance(module, torch.nn.Linear))
    rest = 2 * (total - quantised)
    expected = [4 * total, 2 * total, rest + quantised, rest + quantised * (0.5 + 4 / 64)]
    row = re.search(rf"^\| {name} \|(.*)\|$", README, flags=re.MULTILINE)[1]
    assert [float(cell) for cell in row.split("|")] == [round(size / 2**30, 1) for size in expected]
    assert f"{total / 1e9:.2f}" in README


def test_imagebind_vision_trunk_that_readme_states():
    model = meta_model(
        audio_config={}, audio_vision_config={}, text_config=LlamaConfig(num_hidden_layers=1, vocab_size=32064)
    )
    trunk = sum(parameter.numel() for parameter in model.model.audio_vision_tower.parameters())
    assert f"adds {trunk / 1e9:.2f} billion parameters" in README
