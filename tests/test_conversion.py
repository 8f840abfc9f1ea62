"""The conversion of the tiny checkpoints that the original code made, compared with what that code computes."""

import json
import re
import shutil
import stat
import weakref

import pytest
import torch
from golden_cases import golden_input
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_conversions import CHECKPOINTS, HEADS, LLAMA, OVERRIDES, REFERENCE, copy_llama, load, run, weights_of
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoImageProcessor,
    AutoModelForCausalLM,
    AutoProcessor,
    AutoTokenizer,
    AutoVideoProcessor,
    Blip2Config,
    Blip2ForConditionalGeneration,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
)

from transformers_videollama.convert import original_branch_state, weights
from transformers_videollama.convert.command import main


CASES = json.loads((REFERENCE / "cases.json").read_text())["cases"]
GOLDEN = load_file(REFERENCE / "golden.safetensors")
TOLERANCE = {"atol": 1e-5, "rtol": 0}
PLACEHOLDERS = slice(1000, 1003)  # the tiny LLaMA has 1000 tokens
PADDING = slice(1003, 1024)


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """Both routes into the audio branch, in several shards, in a folder whose parent does not exist."""
    output = tmp_path_factory.mktemp("converted") / "new" / "model"
    run(output, with_imagebind_vision=True, max_shard_size=500_000)
    return output


@pytest.fixture(scope="module")
def model(converted):
    return load(converted)


@pytest.mark.parametrize("name", ["video", "image", "video_max"])
@torch.no_grad()
def test_vision_features_are_the_originals(model, name):
    case = f"vision/{name}"
    videos = golden_input(CASES[case]).transpose(1, 2)  # the original has channels before frames
    frames = videos.flatten(0, 1)
    patches = model.model.vision_tower(frames).last_hidden_state
    queries = model.model.query_tokens.expand(len(frames), -1, -1)
    features = model.get_video_features(videos)
    stages = {
        "ln_vision": patches[:, :8],
        "qformer": model.model.qformer(query_embeds=queries, encoder_hidden_states=patches).last_hidden_state,
        "video_qformer": features.last_hidden_state,
        "embeds": features.pooler_output,
    }
    compared = {stage for stage in stages if f"{case}/{stage}" in GOLDEN}
    assert {"video_qformer", "embeds"} <= compared
    for stage in compared:
        torch.testing.assert_close(stages[stage], GOLDEN[f"{case}/{stage}"], **TOLERANCE)


@pytest.mark.parametrize("name", ["audio8", "audio3"])
@torch.no_grad()
def test_sound_features_are_the_originals(model, name):
    case = f"audio/{name}"
    clips = golden_input(CASES[case]).squeeze(2)
    features = model.get_audio_features(clips)
    torch.testing.assert_close(features.last_hidden_state, GOLDEN[f"{case}/audio_qformer"], **TOLERANCE)
    torch.testing.assert_close(features.pooler_output, GOLDEN[f"{case}/embeds"], **TOLERANCE)
    imagebind = model.model.audio_tower(clips.flatten(0, 1)).pooler_output.unflatten(0, clips.shape[:2])
    torch.testing.assert_close(imagebind, GOLDEN[f"{case}/imagebind"], **TOLERANCE)


@torch.no_grad()
def test_frames_through_the_audio_branch_are_the_originals(model):
    case = "audio/imagebind_vision"
    frames = golden_input(CASES[case])
    features = model.get_audio_features(audio_pixel_values=frames)
    torch.testing.assert_close(features.pooler_output, GOLDEN[f"{case}/embeds"], **TOLERANCE)
    imagebind = model.model.audio_vision_tower(frames.flatten(0, 1)).pooler_output.unflatten(0, frames.shape[:2])
    torch.testing.assert_close(imagebind, GOLDEN[f"{case}/imagebind"], **TOLERANCE)


@torch.no_grad()
def test_language_model_is_the_originals(model):
    """Logits over the original vocabulary, and none for the rows that were added."""
    original = AutoModelForCausalLM.from_pretrained(LLAMA)
    ids = torch.arange(2, 40)[None]
    logits = model(input_ids=ids).logits
    torch.testing.assert_close(logits, original(input_ids=ids).logits, atol=1e-4, rtol=0)
    assert logits.shape[-1] == 1000


def test_configuration_tells_the_sizes_of_the_files(converted):
    sizes = json.loads((REFERENCE / "cases.json").read_text())["sizes"]
    config = AutoConfig.from_pretrained(converted)
    raw = json.loads((converted / "config.json").read_text())
    assert raw["architectures"] == ["VideoLlamaForConditionalGeneration"]
    assert raw["dtype"] == raw["text_config"]["dtype"] == raw["vision_config"]["dtype"] == "float32"
    assert str(LLAMA) not in json.dumps(raw)
    assert (config.image_token_id, config.video_token_id, config.audio_token_id) == (1000, 1001, 1002)
    assert (config.output_vocab_size, config.text_config.vocab_size) == (1000, 1024)
    assert config.vision_config.num_hidden_layers == sizes["v_depth"]
    assert config.num_query_tokens == sizes["q_tokens"]
    assert config.video_resampler_config.max_position_embeddings == sizes["max_frame_pos"]
    assert config.audio_config.logit_scale == 20.0
    assert config.audio_config.max_source_positions == sizes["aq_tokens"]


def test_folder_holds_all_that_a_user_loads(converted):
    assert AutoTokenizer.from_pretrained(converted).convert_tokens_to_ids("<audio>") == 1002
    assert type(AutoProcessor.from_pretrained(converted)).__name__ == "VideoLlamaProcessor"
    assert type(AutoVideoProcessor.from_pretrained(converted)).__name__ == "VideoLlamaVideoProcessor"
    assert type(AutoImageProcessor.from_pretrained(converted)).__name__ == "VideoLlamaImageProcessor"
    assert type(AutoFeatureExtractor.from_pretrained(converted)).__name__ == "VideoLlamaFeatureExtractor"
    assert GenerationConfig.from_pretrained(converted).suppress_tokens == list(range(1000, 1024))
    assert (converted / "chat_template.jinja").exists()
    video = json.loads((converted / "video_preprocessor_config.json").read_text())
    assert video["video_processor_type"] == "VideoLlamaVideoProcessor"  # where vLLM looks for it


def test_weights_are_sharded_as_the_library_does(converted):
    files = sorted(converted.glob("*.safetensors"))
    index = json.loads((converted / "model.safetensors.index.json").read_text())
    assert [file.name for file in files] == [f"model-{n:05d}-of-00005.safetensors" for n in range(1, 6)]
    tensors = weights_of(converted)
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in tensors.values())
    assert index["metadata"]["total_parameters"] == sum(tensor.numel() for tensor in tensors.values())
    for file in files:
        assert stat.S_IMODE(file.stat().st_mode) == stat.S_IMODE((converted / "config.json").stat().st_mode)
        with safe_open(file, "pt") as opened:
            assert opened.metadata() == {"format": "pt"}
            assert all(index["weight_map"][key] == file.name for key in opened.keys())  # noqa: SIM118


def test_new_rows_can_be_told_apart(model):
    """Where only embeddings are known, the model finds placeholders by them."""
    embeddings, head = model.get_input_embeddings().weight, model.lm_head.weight
    placeholders = embeddings[PLACEHOLDERS]
    same = (placeholders[:, None] == embeddings[None]).all(-1)
    assert same.sum() == 3
    ratio = placeholders.std() / embeddings[:1000].std()
    assert 0.7 < ratio < 1.3
    assert not embeddings[PADDING].any()
    assert not head[1000:].any()


def test_conversion_is_reproducible(converted, tmp_path):
    run(tmp_path / "again", with_imagebind_vision=True, max_shard_size=500_000)
    for file in sorted(path.name for path in converted.iterdir()):
        assert (tmp_path / "again" / file).read_bytes() == (converted / file).read_bytes(), file


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_dtype_is_that_of_all_weights(tmp_path, dtype):
    summary = run(tmp_path / "out", dtype=dtype)
    assert {str(tensor.dtype) for tensor in weights_of(tmp_path / "out").values()} == {f"torch.{dtype}"}
    assert load(tmp_path / "out").dtype == summary.dtype == getattr(torch, dtype)


def test_memory_holds_one_shard(tmp_path, monkeypatch):
    """A cast makes new tensors; those of a shard are gone when the next one is written."""
    written = []

    def save(tensors, path, metadata):
        assert all(reference() is None for references in written for reference in references)
        written.append([weakref.ref(tensor) for tensor in tensors.values()])
        assert sum(tensor.nbytes for tensor in tensors.values()) <= 150_000 or len(tensors) == 1
        save_file(tensors, path, metadata=metadata)

    monkeypatch.setattr(weights, "save_file", save)
    run(tmp_path / "out", dtype="float16", max_shard_size=150_000)
    assert len(written) > 5


def test_without_audio_no_audio_file_is_needed(tmp_path):
    for name in ("eva_vit_g.pth", "blip2_pretrained_flant5xxl.pth", "VL_LLaMA_2_7B_Finetuned.pth", LLAMA.name):
        (tmp_path / name).symlink_to(CHECKPOINTS / name)  # a linked folder is found, too
    run(tmp_path / "out", source=tmp_path, audio=False)
    model = load(tmp_path / "out")
    assert model.config.audio_config is None
    with pytest.raises(ValueError, match="no audio branch"):
        model.get_audio_features(torch.zeros(1, 8, 128, 204))


@pytest.mark.parametrize("branch", ["video", "audio"])
def test_branches_go_back_to_the_originals_layout(model, branch):
    """Exact, and complete but for the buffers."""
    file = CHECKPOINTS / f"{'VL' if branch == 'video' else 'AL'}_LLaMA_2_7B_Finetuned.pth"
    original = torch.load(file, weights_only=True)["model"]
    back = original_branch_state(model.state_dict(), branch)["model"]
    assert original.keys() - back.keys() == {key for key in original if "position_ids" in key or "inv_freq" in key}
    for key, tensor in back.items():
        assert torch.equal(tensor, original[key]), key


def test_going_back_needs_the_branch():
    with pytest.raises(ValueError, match=r"no audio branch among the 1 names; .* model\.audio_resampler"):
        original_branch_state({"lm_head.weight": torch.zeros(1)}, "audio")


@pytest.mark.parametrize("layout", ["safetensors", "sharded safetensors", "sharded bin", "legacy bin"])
def test_language_model_may_be_stored_in_any_way(converted, tmp_path, layout):
    folder = copy_llama(tmp_path / "llama")
    if "safetensors" in layout:
        sizes = {"max_shard_size": "100KB"} if "sharded" in layout else {}
        LlamaForCausalLM.from_pretrained(LLAMA).save_pretrained(folder, **sizes)
    else:
        shutil.copyfile(LLAMA / "config.json", folder / "config.json")
        state = torch.load(LLAMA / "pytorch_model.bin", weights_only=True)
        if layout == "legacy bin":
            torch.save(state, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)
        else:
            names = {key: f"pytorch_model-0000{1 + ('layers.1' in key)}-of-00002.bin" for key in state}
            for name in set(names.values()):
                torch.save({key: state[key] for key in state if names[key] == name}, folder / name)
            index = {"metadata": {}, "weight_map": names}
            (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    run(tmp_path / "out", files={"llama": str(folder)}, audio=False)
    expected = weights_of(converted)
    for key, tensor in weights_of(tmp_path / "out").items():
        assert torch.equal(tensor, expected[key]), key


def test_tied_embeddings_stay_tied(tmp_path):
    folder = copy_llama(tmp_path / "llama")
    config = LlamaConfig.from_pretrained(LLAMA, tie_word_embeddings=True)
    LlamaForCausalLM(config).save_pretrained(folder)
    run(tmp_path / "out", files={"llama": str(folder)}, audio=False)
    assert "lm_head.weight" not in weights_of(tmp_path / "out")
    model = load(tmp_path / "out")
    assert model.lm_head.weight is model.get_input_embeddings().weight


def test_vision_may_come_from_a_blip2_of_the_library(converted, model, tmp_path):
    """Its ViT has no spare block; its heads stand in its config.json."""
    config = Blip2Config(
        vision_config=model.config.vision_config.to_dict(),
        qformer_config=model.config.qformer_config.to_dict(),
        text_config={"model_type": "opt", "vocab_size": 8, "hidden_size": 8, "num_hidden_layers": 1, "ffn_dim": 8}
        | {"num_attention_heads": 2, "word_embed_proj_dim": 8},
        num_query_tokens=model.config.num_query_tokens,
    )
    blip2 = Blip2ForConditionalGeneration(config)
    blip2.vision_model.load_state_dict(model.model.vision_tower.state_dict())
    blip2.qformer.load_state_dict(model.model.qformer.state_dict())
    blip2.query_tokens.data.copy_(model.model.query_tokens)
    blip2.save_pretrained(tmp_path / "blip2", max_shard_size="100KB")
    # Shards without anything of vision are not even opened
    index = json.loads((tmp_path / "blip2" / "model.safetensors.index.json").read_text())["weight_map"]
    needed = {file for key, file in index.items() if not key.startswith("language_")}
    for file in set(index.values()) - needed:
        (tmp_path / "blip2" / file).unlink()
    overrides = {name: values for name, values in OVERRIDES.items() if name not in ("vision_config", "qformer_config")}
    run(tmp_path / "out", files={"blip2": str(tmp_path / "blip2")}, with_imagebind_vision=True, overrides=overrides)
    expected = weights_of(converted)
    found = weights_of(tmp_path / "out")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in found)


def test_vicuna_is_base_and_delta(tmp_path):
    """
    Vicuna v0 has one token more than LLaMA; as in FastChat 0.1.x its row of the base is zeros, so that the delta
    holds it. Sums are those of half precision, in which the deltas were made and are applied.
    """
    base, delta = copy_llama(tmp_path / "base"), copy_llama(tmp_path / "delta")
    torch.manual_seed(0)
    small = LlamaForCausalLM(LlamaConfig.from_pretrained(LLAMA, dtype=torch.float16)).half()
    small.save_pretrained(base)
    large = LlamaForCausalLM(LlamaConfig.from_pretrained(LLAMA, vocab_size=1001, dtype=torch.float16)).half()
    large.save_pretrained(delta, max_shard_size="100KB")
    (delta / "added_tokens.json").write_text('{"[PAD]": 1000}')
    summary = run(tmp_path / "out", vicuna_delta=str(delta), base_llama=str(base), audio=False)

    assert (summary.style, summary.dtype) == ("vicuna", torch.float16)
    config = load(tmp_path / "out").config
    assert (config.output_vocab_size, config.image_token_id, config.text_config.vocab_size) == (1001, 1001, 1024)
    found = weights_of(tmp_path / "out")
    for key, difference in large.state_dict().items():
        expected = difference.clone()
        expected[: len(small.state_dict()[key])] += small.state_dict()[key]
        name = key if key.startswith("lm_head") else f"model.language_model.{key.removeprefix('model.')}"
        assert torch.equal(found[name][: len(expected)], expected), key


@pytest.mark.parametrize(
    ("name", "style"),
    [
        ("VL_LLaMA_2_7B_Finetuned.pth", "llama-2"),
        ("finetune-vicuna7b-v2.pth", "vicuna"),
        ("pretrain_vicuna7b-v2.pth", "vicuna"),
    ],
)
def test_style_follows_the_era_of_the_branch(tmp_path, name, style):
    file = tmp_path / name
    file.symlink_to(CHECKPOINTS / "VL_LLaMA_2_7B_Finetuned.pth")
    output = tmp_path / "out"
    assert run(output, files={"video_branch": str(file)}, dry_run=True).style == style
    assert run(output, files={"video_branch": str(file)}, dry_run=True, style="vicuna").style == "vicuna"


def test_command_says_what_it_did(tmp_path, capsys):
    output = tmp_path / "out"
    assert main([str(CHECKPOINTS), str(output), "--config", str(HEADS), "--max-shard-size", "1MB"]) == 0
    said = capsys.readouterr().out
    assert f"wrote {output}, weights in 2 files" in said
    assert re.search(r"language model +213,312", said)
    assert "1,837,000 bytes in torch.float32, prompt style llama-2" in said
    assert "ignored 2 keys, such as t5_proj.weight: BLIP-2's projection into its own language model" in said


def test_dry_run_writes_nothing(tmp_path, capsys):
    output = tmp_path / "new" / "out"
    assert main([str(CHECKPOINTS), str(output), "--config", str(HEADS), "--dry-run"]) == 0
    assert f"dry run: all names and shapes fit; {output} was not written" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
