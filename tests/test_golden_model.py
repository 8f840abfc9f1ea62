"""The network against the original code: features of every route, and training losses."""

import pytest
import torch
from golden_cases import LOSSES, as_frames, branch_inputs, golden_input, training_cases


FEATURES = {"rtol": 0, "atol": 1e-5}
# The stream of residuals in front of the last norm reaches 31, and float32 rounds in the order in which a CPU sums:
# the golden values are up to 2.1e-5 away from those of float64. The norm behind it gives the features.
RESIDUALS = {"rtol": 8 * torch.finfo(torch.float32).eps, "atol": 1e-5}


@pytest.mark.parametrize("name", ("video", "image", "video_max"))
def test_vision_features(any_attention_model, cases, golden, name):
    frames = as_frames(golden_input(cases["cases"][f"vision/{name}"]))
    outputs = any_attention_model.get_video_features(frames)
    torch.testing.assert_close(outputs.pooler_output, golden[f"vision/{name}/embeds"], **FEATURES)
    torch.testing.assert_close(outputs.last_hidden_state, golden[f"vision/{name}/video_qformer"], **FEATURES)


def test_image_features(any_attention_model, cases, golden):
    images = golden_input(cases["cases"]["vision/image"])[:, :, 0]
    features = any_attention_model.get_image_features(images).pooler_output
    torch.testing.assert_close(features, golden["vision/image/embeds"], **FEATURES)


@pytest.mark.parametrize("name", ("video", "image"))
def test_frame_features(any_attention_model, cases, golden, name):
    frames = as_frames(golden_input(cases["cases"][f"vision/{name}"])).flatten(0, 1)
    base = any_attention_model.model
    vision = base.vision_tower(frames, output_hidden_states=True)
    torch.testing.assert_close(vision.hidden_states[-1][:, :8], golden[f"vision/{name}/vit"], **RESIDUALS)
    torch.testing.assert_close(vision.last_hidden_state[:, :8], golden[f"vision/{name}/ln_vision"], **FEATURES)
    queries = base.query_tokens.expand(len(frames), -1, -1)
    fused = base.qformer(query_embeds=queries, encoder_hidden_states=vision.last_hidden_state).last_hidden_state
    torch.testing.assert_close(fused, golden[f"vision/{name}/qformer"], **FEATURES)


@pytest.mark.parametrize("name", ("audio8", "audio3"))
def test_audio_features(any_attention_model, cases, golden, name):
    clips = golden_input(cases["cases"][f"audio/{name}"]).squeeze(2)
    embeddings = any_attention_model.model.audio_tower(clips.flatten(0, 1)).pooler_output.unflatten(0, clips.shape[:2])
    torch.testing.assert_close(embeddings, golden[f"audio/{name}/imagebind"], **FEATURES)
    outputs = any_attention_model.get_audio_features(clips)
    torch.testing.assert_close(outputs.last_hidden_state, golden[f"audio/{name}/audio_qformer"], **FEATURES)
    torch.testing.assert_close(outputs.pooler_output, golden[f"audio/{name}/embeds"], **FEATURES)


def test_frames_through_the_audio_branch(any_attention_model, cases, golden):
    frames = golden_input(cases["cases"]["audio/imagebind_vision"])
    tower = any_attention_model.model.audio_vision_tower
    embeddings = tower(frames.flatten(0, 1)).pooler_output.unflatten(0, frames.shape[:2])
    torch.testing.assert_close(embeddings, golden["audio/imagebind_vision/imagebind"], **FEATURES)
    outputs = any_attention_model.get_audio_features(audio_pixel_values=frames)
    torch.testing.assert_close(outputs.last_hidden_state, golden["audio/imagebind_vision/audio_qformer"], **FEATURES)
    torch.testing.assert_close(outputs.pooler_output, golden["audio/imagebind_vision/embeds"], **FEATURES)


@pytest.mark.parametrize("name", training_cases("instruct"))
def test_instruction_losses(any_attention_model, cases, golden, name):
    case = next(case for case in cases["cases"]["training"] if case["name"] == name)
    input_ids = golden[f"{name}/input_ids"].clone()
    placeholder = getattr(any_attention_model.config, f"{case['branch']}_token_id")
    attention_mask = (input_ids != 0).long()
    input_ids[input_ids == case["placeholder_id"]] = placeholder
    outputs = any_attention_model(
        input_ids=input_ids, attention_mask=attention_mask, labels=golden[f"{name}/labels"], **branch_inputs(case)
    )
    torch.testing.assert_close(outputs.loss, torch.tensor(case["loss"]), **LOSSES)


@pytest.mark.parametrize("name", training_cases("caption"))
def test_caption_losses(any_attention_model, processor, cases, name):
    """BOS, prompt with media (the media alone without a prompt), caption and end symbol; loss on the latter two."""
    case = next(case for case in cases["cases"]["training"] if case["name"] == name)
    tokenizer = processor.tokenizer
    token = {"video": processor.video_token, "audio": processor.audio_token}[case["branch"]]
    count = {"video": processor.num_video_tokens, "audio": processor.num_audio_tokens}[case["branch"]]
    prompt = (case["prompt"] or "<ImageHere>").replace("<ImageHere>", token * count)
    prompt_ids = tokenizer(prompt, add_special_tokens=True)["input_ids"]
    captions = [tokenizer(text + case["end_sym"], add_special_tokens=False)["input_ids"] for text in case["captions"]]
    longest = max(map(len, captions))
    rows = [(ids, longest - len(ids)) for ids in captions]
    outputs = any_attention_model(
        input_ids=torch.tensor([prompt_ids + ids + [0] * missing for ids, missing in rows]),
        attention_mask=torch.tensor([[1] * (len(prompt_ids) + len(ids)) + [0] * missing for ids, missing in rows]),
        labels=torch.tensor([[-100] * len(prompt_ids) + ids + [-100] * missing for ids, missing in rows]),
        **branch_inputs(case),
    )
    torch.testing.assert_close(outputs.loss, torch.tensor(case["loss"]), **LOSSES)
