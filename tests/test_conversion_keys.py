"""The key tables, from names and shapes alone: at the tiny sizes, and at the full ones of the released files."""

import json
import re
from functools import cache

import pytest
import torch
from tiny_conversions import CHECKPOINTS, LLAMA, OVERRIDES, REFERENCE
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, Qwen2Config

from transformers_videollama import VideoLlamaConfig
from transformers_videollama.convert import ConversionError, plan_conversion
from transformers_videollama.convert import plan as planning
from transformers_videollama.convert.checkpoints import FileCheckpoint, FolderCheckpoint
from transformers_videollama.convert.headers import Headers
from transformers_videollama.convert.key_tables import (
    AUDIO_BRANCH,
    BLIP2,
    BLIP2_LIBRARY,
    VIDEO_BRANCH,
    fill,
    imagebind_table,
    match,
    vision_table,
)
from transformers_videollama.convert.surgery import (
    Vocabulary,
    grow_embeddings,
    qkv_bias,
    sum_temporal_halves,
    value_third,
)


FILES = {
    "vision": "eva_vit_g.pth",
    "blip2": "blip2_pretrained_flant5xxl.pth",
    "video_branch": "VL_LLaMA_2_7B_Finetuned.pth",
    "imagebind": "imagebind_huge.pth",
    "audio_branch": "AL_LLaMA_2_7B_Finetuned.pth",
}
LLAMA_7B = LlamaConfig(dtype="float16")
LLAMA_13B = LlamaConfig(hidden_size=5120, intermediate_size=13824, num_hidden_layers=40, num_attention_heads=40)


@cache
def tiny_shapes():
    shapes = {kind: FileCheckpoint(CHECKPOINTS / file).shapes for kind, file in FILES.items()}
    return shapes | {"llama": FolderCheckpoint(LLAMA).shapes}


def plan_tiny(changes=None, **options):
    """`changes`: kind -> key -> another shape, or `None` to leave the key out."""
    shapes = {kind: dict(keys) for kind, keys in tiny_shapes().items()}
    for kind, keys in (changes or {}).items():
        shapes[kind] |= keys
        shapes[kind] = {key: shape for key, shape in shapes[kind].items() if shape is not None}
    headers = Headers(shapes, lambda kind, key: FILES.get(kind, "pytorch_model.bin"))
    options = {"overrides": OVERRIDES, "with_imagebind_vision": True} | options
    return plan_conversion(headers, LlamaConfig.from_pretrained(LLAMA), 1000, **options)


def language_model_shapes(config):
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    return {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}


def full_size_shapes(config):
    """The released files, with branches for the width of the language model `config`."""
    kinds = {file: kind for kind, file in FILES.items()}
    shapes = {kind: {} for kind in FILES}
    for line in (REFERENCE / "original_keys.tsv").read_text().splitlines()[1:]:
        file, key, text = line.split("\t")
        shape = () if text == "scalar" else tuple(int(size) for size in text.split("x"))
        if "llama_proj." in key:
            shape = (config.hidden_size, *shape[1:])
        shapes[kinds[file]][key.removeprefix("model/")] = shape
    return shapes | {"llama": language_model_shapes(config)}


def used_keys(kind):
    """Those of the last layer stand for the others."""
    keys = [key for entry in plan_tiny().entries if entry.kind == kind for key in entry.keys]
    return {re.sub(r"\.\d+\.", ".{}.", key): key for key in keys}.values()


@pytest.fixture
def quick(monkeypatch):
    """The model's names and shapes are worked out once for each configuration."""
    shapes = {}

    def target_shapes(config):
        key = config.to_json_string()
        if key not in shapes:
            shapes[key] = original(config)
        return shapes[key]

    original = planning._target_shapes
    monkeypatch.setattr(planning, "_target_shapes", target_shapes)


@pytest.mark.parametrize(("config", "hidden_size"), [(LLAMA_7B, 4096), (LLAMA_13B, 5120)])
def test_full_size_files_fit(config, hidden_size):
    plan = plan_conversion(full_size_shapes(config), config, 32000, with_imagebind_vision=True)
    expected = VideoLlamaConfig(audio_config={}, audio_vision_config={}).to_dict()
    found = plan.config.to_dict()
    for section in expected:
        if section not in ("text_config", "transformers_version"):
            assert found[section] == expected[section], section
    assert (found["text_config"]["hidden_size"], found["text_config"]["vocab_size"]) == (hidden_size, 32064)


def test_full_size_7b_counts_its_parameters():
    """The default configuration's, which is that of the released 7B, and every key of the files is accounted for."""
    shapes = full_size_shapes(LLAMA_7B)
    plan = plan_conversion(shapes, LLAMA_7B, 32000, with_imagebind_vision=True)
    assert sum(torch.Size(entry.shape).numel() for entry in plan.entries) == 8_593_326_592
    used = {(entry.kind, key) for entry in plan.entries for key in entry.keys}
    ignored = {key for keys in plan.ignored.values() for key in keys}
    assert len(used) + len(ignored) == sum(map(len, shapes.values()))


def test_branch_for_another_language_model_is_named():
    shapes = full_size_shapes(LLAMA_7B) | {"llama": language_model_shapes(LLAMA_13B)}
    message = r"video_branch: 'llama_proj.weight' has shape \(4096, 768\), expected \(5120, 768\) \(as the language"
    with pytest.raises(ConversionError, match=message):
        plan_conversion(shapes, LLAMA_13B, 32000)


def test_vision_file_may_be_cut_to_the_blocks_that_run():
    shapes = full_size_shapes(LLAMA_7B)
    shapes["vision"] = {key: shape for key, shape in shapes["vision"].items() if not key.startswith("blocks.39.")}
    assert plan_conversion(shapes, LLAMA_7B, 32000).config.vision_config.num_hidden_layers == 39


def test_vision_file_of_another_depth_is_refused():
    shapes = full_size_shapes(LLAMA_7B)
    shapes["vision"] |= {key.replace(".39.", ".40."): shape for key, shape in shapes["vision"].items()}
    with pytest.raises(ConversionError, match=r"vision_config.num_hidden_layers is 40, expected 39"):
        plan_conversion(shapes, LLAMA_7B, 32000)


@pytest.mark.parametrize(
    ("table", "target", "keys"),
    [
        (
            vision_table(39),
            "model.vision_tower.encoder.layers.38.self_attn.qkv.bias",
            ("blocks.38.attn.q_bias", "blocks.38.attn.v_bias"),
        ),
        (vision_table(39), "model.vision_tower.embeddings.position_embedding", ("pos_embed",)),
        (BLIP2, "model.vision_tower.post_layernorm.weight", ("ln_vision.weight",)),
        (
            BLIP2,
            "model.qformer.encoder.layer.10.crossattention.attention.key.weight",
            ("Qformer.bert.encoder.layer.10.crossattention.self.key.weight",),
        ),
        (BLIP2_LIBRARY, "model.vision_tower.post_layernorm.bias", ("vision_model.post_layernorm.bias",)),
        (VIDEO_BRANCH, "model.video_resampler.projection.bias", ("llama_proj.bias",)),
        (
            VIDEO_BRANCH,
            "model.video_resampler.position_embedding.weight",
            ("video_frame_position_embedding.weight",),
        ),
        (AUDIO_BRANCH, "model.audio_resampler.query_tokens", ("audio_query_tokens",)),
        (
            AUDIO_BRANCH,
            "model.audio_resampler.qformer.encoder.layer.1.output_query.LayerNorm.weight",
            ("audio_Qformer.bert.encoder.layer.1.output_query.LayerNorm.weight",),
        ),
        (
            imagebind_table(with_vision=True),
            "model.audio_tower.layers.11.self_attn.v_proj.weight",
            ("modality_trunks.audio.blocks.11.attn.in_proj_weight",),
        ),
        (
            imagebind_table(with_vision=True),
            "model.audio_vision_tower.projection.weight",
            ("modality_heads.vision.2.weight",),
        ),
    ],
)
def test_well_known_names(table, target, keys):
    """A rename in the model or in a table fails here."""
    assert next(filter(None, (rule.keys_for(target) for rule in table.rules))) == keys


@pytest.mark.parametrize("table", [VIDEO_BRANCH, AUDIO_BRANCH])
def test_branch_tables_can_be_read_backwards(table):
    """One key each, no surgery, and no two rules for one key."""
    for rule in table.rules:
        assert isinstance(rule.sources, str)
        assert rule.surgery is None
        words = ("1",) * ("{}" in rule.target) + ("weight",) * rule.target.endswith("*")
        key = fill(rule.sources, words)
        assert [other for other in table.rules if match(other.sources, key) is not None] == [rule]


@pytest.mark.parametrize("kind", [*FILES, "llama"])
def test_every_missing_key_is_named(quick, kind):
    file = FILES.get(kind, "pytorch_model.bin")
    for key in used_keys(kind):
        with pytest.raises(ConversionError) as error:
            plan_tiny({kind: {key: None}})
        assert repr(key) in str(error.value), key
        assert file in str(error.value)


@pytest.mark.parametrize("kind", [*FILES, "llama"])
def test_every_mis_shaped_key_is_named(quick, kind):
    """With what was found and what was expected."""
    for key in used_keys(kind):
        got = (*tiny_shapes()[kind][key], 2)
        with pytest.raises(ConversionError, match=r"expected|cannot become") as error:
            plan_tiny({kind: {key: got}})
        assert repr(key) in str(error.value), key
        assert str(got) in str(error.value)
        assert FILES.get(kind, "pytorch_model.bin") in str(error.value)


@pytest.mark.parametrize("kind", [*FILES, "llama"])
@pytest.mark.parametrize("key", ["surprise", "visual_encoder.blocks.0.norm1.weight", "opt_proj.weight"])
def test_extra_keys_are_named(kind, key):
    with pytest.raises(ConversionError, match=rf"unexpected key '{key}' of shape \(3, 4\), expected no such key"):
        plan_tiny({kind: {key: (3, 4)}})


@pytest.mark.parametrize(
    ("kind", "key", "reason"),
    [
        ("vision", "fc_norm.weight", "EVA's own last norm"),
        ("vision", "blocks.2.attn.qkv.weight", "the last block of EVA"),
        ("blip2", "t5_proj.weight", "own language model"),
        ("blip2", "Qformer.cls.predictions.bias", "text half"),
        ("blip2", "Qformer.bert.embeddings.word_embeddings.weight", "text half"),
        ("blip2", "Qformer.bert.encoder.layer.3.intermediate.dense.weight", "text half"),
        ("video_branch", "video_Qformer.bert.encoder.layer.0.output.LayerNorm.bias", "text half"),
        ("video_branch", "llama_model.model.layers.31.self_attn.rotary_emb.inv_freq", "rotary"),
        ("audio_branch", "video_Qformer.bert.embeddings.position_ids", "position numbers"),
        ("imagebind", "modality_trunks.depth.blocks.0.norm_1.weight", "other modalities"),
        ("imagebind", "modality_postprocessors.audio.1.log_logit_scale", "kept in the configuration"),
        ("llama", "model.layers.0.self_attn.rotary_emb.cos_cached", "rotary"),
    ],
)
def test_keys_are_ignored_for_a_reason(kind, key, reason):
    plan = plan_tiny({kind: {key: tiny_shapes()[kind].get(key, (2,))}})
    found = [why for why, keys in plan.ignored.items() if (FILES.get(kind, "pytorch_model.bin"), key) in keys]
    assert len(found) == 1
    assert reason in found[0]


def test_imagebinds_vision_trunk_is_left_out_by_default():
    plan = plan_tiny(with_imagebind_vision=False)
    assert plan.config.audio_vision_config is None
    reasons = [reason for reason in plan.ignored if "--with-imagebind-vision" in reason]
    assert len(plan.ignored[reasons[0]]) == 32


@pytest.mark.parametrize("section", list(OVERRIDES))
def test_unknown_width_needs_the_number_of_heads(section):
    others = {name: values for name, values in OVERRIDES.items() if name != section}
    with pytest.raises(ConversionError, match=rf"{section}: \d+ is not a released width .* pass --config"):
        plan_tiny(overrides=others)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"text_config": {"num_attention_heads": 4}}, "unknown section 'text_config'; expected one of vision_config"),
        ({"vision_config": {"heads": 4}}, "vision_config has no field 'heads'"),
        (
            {"vision_config": {"num_attention_heads": 5}},
            "num_attention_heads is 5, which does not divide hidden_size, 48",
        ),
        (
            {"vision_config": {"hidden_size": 64, "num_attention_heads": 4}},
            "qformer_config.encoder_hidden_size is 48, but vision_config",
        ),
    ],
)
def test_wrong_overrides_are_named(overrides, message):
    with pytest.raises(ConversionError, match=message):
        plan_tiny(overrides=OVERRIDES | overrides)


def test_rows_of_the_language_model_are_those_of_its_configuration():
    with pytest.raises(
        ConversionError, match=r"'model.embed_tokens.weight' has shape \(999, 64\), expected 1000 rows"
    ):
        plan_tiny({"llama": {"model.embed_tokens.weight": (999, 64)}})


@pytest.mark.parametrize(
    ("rows", "tokens", "first", "grown"),
    [(32000, 32000, 32000, 32064), (32001, 32001, 32001, 32064), (32000, 32061, 32061, 32064), (61, 10, 61, 64)],
)
def test_placeholders_stand_behind_all_tokens(rows, tokens, first, grown):
    vocabulary = Vocabulary(rows, tokens)
    assert (vocabulary.first_placeholder_id, vocabulary.grown_rows) == (first, grown)


SMALL = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}


@pytest.mark.parametrize(
    ("config", "tied"),
    [
        (Qwen2Config(num_key_value_heads=2, tie_word_embeddings=True, **SMALL), True),
        # The model ties no table of another name than embed_tokens, so this one is written twice
        (GPT2Config(n_embd=64, n_layer=1, n_head=4), False),
    ],
)
def test_other_language_models_convert(config, tied):
    shapes = tiny_shapes() | {"llama": language_model_shapes(config)}
    plan = plan_conversion(shapes, config, config.vocab_size, overrides=OVERRIDES)
    head = [entry for entry in plan.entries if entry.target == "lm_head.weight"]
    assert len(head) == (not tied)
    assert plan.config.tie_word_embeddings is plan.config.text_config.tie_word_embeddings is tied


def test_plan_changes_nothing_of_the_caller():
    config = LlamaConfig.from_pretrained(LLAMA)
    before, shapes = config.to_dict(), json.dumps(tiny_shapes())
    plan_conversion(tiny_shapes(), config, 1000, overrides=OVERRIDES)
    assert config.to_dict() == before
    assert json.dumps(tiny_shapes()) == shapes


def test_bias_of_keys_is_zero():
    assert qkv_bias(torch.ones(2), torch.full((2,), 3.0)).tolist() == [1, 1, 0, 0, 3, 3]


def test_third_of_a_joint_projection():
    assert value_third(torch.arange(6)).tolist() == [4, 5]


def test_summed_kernel_sees_a_still_picture_alike():
    kernel, picture = torch.randn(4, 3, 2, 14, 14), torch.randn(1, 3, 14, 14)
    twice = torch.nn.functional.conv3d(picture.unsqueeze(2).expand(-1, -1, 2, -1, -1), kernel)
    once = torch.nn.functional.conv2d(picture, sum_temporal_halves(kernel))
    torch.testing.assert_close(once, twice.squeeze(2), atol=1e-4, rtol=0)


def test_embeddings_have_the_spread_of_the_table():
    """Also where it is long, off zero and in half precision."""
    table = (torch.randn(9000, 8) * 0.02 + 0.5).half()
    grown = grow_embeddings(table, Vocabulary(9000, 9000))
    assert torch.equal(grown[:9000], table)
    assert 0.01 < grown[9000:9003].float().std() < 0.04
