"""A model is asked as it was trained: the prompts of training and of every door are the same, token by token."""

import copy
import json
import shutil

import numpy as np
import pytest
import torch
from render_clip import render_clip
from transformers import AutoProcessor

from transformers_videollama import VideoLlamaConversation
from transformers_videollama.cli import main
from transformers_videollama.serving.transformers_server import template_options
from transformers_videollama.training import STAGES, FeatureCacheError, load_features, load_messages


TENSORS = {"tokenize": True, "return_dict": True, "return_tensors": "pt"}
STYLES = ("llama-2", "vicuna")
SETTINGS = [(hear, tell) for hear in (False, True) for tell in (False, True)]


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("clips")
    return {
        "sound": str(render_clip(folder / "sound.mp4", seconds=2, size=(96, 64))),
        "silent": str(render_clip(folder / "silent.mp4", seconds=2, size=(96, 64), sound=False)),
    }


def question(clip: str) -> list[dict]:
    return [
        {"role": "user", "content": [{"type": "video", "path": clip}, {"type": "text", "text": "What moves?"}]},
    ]


def row(clip: str) -> dict:
    return {"messages": [*question(clip), {"role": "assistant", "content": [{"type": "text", "text": "A ball."}]}]}


def with_settings(processor, hear: bool, tell: bool):
    processor = copy.copy(processor)
    processor.load_audio_from_video, processor.add_timestamps = hear, tell
    return processor


def saved(processor, folder):
    processor.save_pretrained(folder)
    return AutoProcessor.from_pretrained(folder)


def assert_asked_as_trained(processor, batch: dict[str, torch.Tensor], chat: list[dict], **options) -> str:
    """That the trained row begins with the prompt, and has its items; returns the prompt."""
    asked = processor.apply_chat_template(chat, add_generation_prompt=True, **TENSORS, **options)
    length = asked["input_ids"].shape[1]
    assert torch.equal(batch["input_ids"][:, :length], asked["input_ids"])
    assert (batch["labels"][:, :length] == -100).all()
    assert batch["labels"][0, length] != -100
    items = set(asked) - {"input_ids", "attention_mask"}
    assert items == set(batch) - {"input_ids", "attention_mask", "labels"}
    assert all(torch.equal(batch[name], asked[name]) for name in items)
    return processor.tokenizer.decode(asked["input_ids"][0])


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("clip", ("sound", "silent"))
@pytest.mark.parametrize(("hear", "tell"), SETTINGS)
def test_training_follows_the_processor(processors, clips, style, clip, hear, tell):
    processor = with_settings(processors[style], hear, tell)
    batch = STAGES["vl2"].collator(processor)([row(clips[clip])])
    text = assert_asked_as_trained(processor, batch, question(clips[clip]))
    assert ("<audio>" in text) == (hear and clip == "sound")
    assert ("frames sampled at" in text) == (tell and not (hear and clip == "sound"))


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("clip", ("sound", "silent"))
def test_the_recipe_of_the_paper_is_saved_with_the_processor(processors, clips, tmp_path, style, clip):
    collator = STAGES["vl2"].collator(processors[style], recipe="paper")
    processor = saved(collator.processor_as_trained(), tmp_path)
    text = assert_asked_as_trained(processor, collator([row(clips[clip])]), question(clips[clip]))
    assert "<audio>" not in text
    assert "frames sampled at" not in text
    assert processors[style].load_audio_from_video
    assert processors[style].add_timestamps


@pytest.mark.parametrize("options", ({"load_audio_from_video": False}, {"add_timestamps": False}))
def test_options_of_the_collator_are_saved(processors, clips, tmp_path, options):
    collator = STAGES["vl2"].collator(processors["llama-2"], **options)
    processor = saved(collator.processor_as_trained(), tmp_path)
    for clip in clips.values():
        assert_asked_as_trained(processor, collator([row(clip)]), question(clip))


def test_one_of_several_templates_is_saved_as_the_default(processors, tmp_path):
    processor = copy.copy(processors["llama-2"])
    other = processor.chat_template.replace("[INST]", "[ASK]")
    processor.chat_template = {"default": processor.chat_template, "other": other}
    collator = STAGES["vl2"].collator(processor, chat_template="other")
    again = saved(collator.processor_as_trained(), tmp_path)
    assert again.named_template(None) == again.named_template("other") == other


@pytest.mark.parametrize("name", ("al1", "al2"))
@pytest.mark.parametrize("recipe", ("asked", "paper"))
def test_frames_that_stand_in_for_sound_leave_the_processor_as_it_was(processor, clips, name, recipe):
    """Sound has no sentence of times, and the branch is trained to hear."""
    collator = STAGES[name].collator(processor, recipe=recipe)
    batch = collator([row(clip) for clip in clips.values()])
    assert batch["audio_pixel_values"].shape[0] == 2
    assert "frames sampled at" not in processor.tokenizer.decode(batch["input_ids"].flatten())
    assert collator.processor_as_trained().to_dict() == processor.to_dict()


def test_a_model_without_audio_branch_is_trained_and_asked_without_sound(processors, clips):
    processor = with_settings(processors["llama-2"], False, True)
    processor.num_audio_tokens = 0
    collator = STAGES["vl2"].collator(processor)
    text = assert_asked_as_trained(
        collator.processor_as_trained(), collator([row(clips["sound"])]), question(clips["sound"])
    )
    assert "frames sampled at" in text


# Doors


@pytest.mark.parametrize(("hear", "tell"), SETTINGS)
@pytest.mark.parametrize("clip", ("sound", "silent"))
def test_options_of_a_call_win(processor, clips, hear, tell, clip):
    expected = with_settings(processor, hear, tell).apply_chat_template(question(clips[clip]))
    other = with_settings(processor, not hear, not tell)
    said = {"load_audio_from_video": hear, "add_timestamps": tell}
    contrary = {"load_audio_from_video": not hear, "add_timestamps": not tell}
    assert other.apply_chat_template(question(clips[clip]), **said) == expected
    assert other.apply_chat_template(question(clips[clip]), processor_kwargs=said, **contrary) == expected
    other.apply_chat_template(question(clips[clip]), processor_kwargs=said, **TENSORS)
    bare, _ = other.open_media(question(clips[clip]), **said)
    assert other.apply_chat_template(bare, **said) == expected


def test_a_setting_that_is_no_flag_is_refused(processor, clips):
    for options in ({"add_timestamps": "no"}, {"processor_kwargs": {"add_timestamps": "no"}}):
        with pytest.raises(ValueError, match="add_timestamps"):
            processor.apply_chat_template(question(clips["silent"]), **options)


@pytest.mark.parametrize(("hear", "tell"), SETTINGS)
def test_conversations_and_servers_follow_the_processor(model, processor, clips, hear, tell):
    processor = with_settings(processor, hear, tell)
    served = template_options(processor)
    assert json.loads(json.dumps(served)) == served
    for clip in clips.values():
        chat = question(clip)
        prompt = processor.apply_chat_template(chat, add_generation_prompt=True, **TENSORS)["input_ids"]
        conversation = VideoLlamaConversation(model, processor)
        answer = conversation.ask(chat[0]["content"], max_new_tokens=1, do_sample=False)
        assert answer.prompt_tokens == prompt.shape[1]
        # As the library's server calls it, for a model of this kind
        options = {"add_generation_prompt": True, "load_audio_from_video": True, **TENSORS}
        assert torch.equal(processor.apply_chat_template(chat, **options, **served)["input_ids"], prompt)


# Features


@pytest.fixture(scope="module")
def features(tmp_path_factory, clips, checkpoint):
    """Rows about a clip with sound and one without, and their features with the sound and without."""
    folder = tmp_path_factory.mktemp("features")
    (folder / "rows.json").write_text(json.dumps([row(clip) for clip in clips.values()]))
    arguments = ["precompute", str(folder / "rows.json")]
    options = ["--model", str(checkpoint)]
    main([*arguments, str(folder / "sound"), *options])
    main([*arguments, str(folder / "silent"), *options, "--no-audio"])
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ("asked", "paper"))
@pytest.mark.parametrize("text", ("chat", "caption"))
def test_features_give_the_prompts_and_losses_of_files(model, processor, features, recipe, text):
    pytest.importorskip("datasets", reason="the extra transformers-videollama[train] is not installed")
    collator = STAGES["vl2"].collator(processor, recipe=recipe, text=text)
    rows = load_messages(features / "rows.json")
    cached = load_features(features / "sound", model, collator.processor_as_trained())
    for i in range(2):
        expected, found = collator([rows[i]]), collator([cached[i]])
        assert torch.equal(found["input_ids"], expected["input_ids"])
        with torch.no_grad():
            losses = [float(model(**batch).loss) for batch in (found, expected)]
        np.testing.assert_allclose(*losses, rtol=0, atol=1e-5)
        assert ("audio_clip_features" in found) == (recipe == "asked" and i == 0) == ("input_features" in expected)


def test_features_without_sound_train_no_model_that_hears(model, processor, features):
    with pytest.raises(FeatureCacheError, match=r"without the sound of videos, .*--no-audio .*--recipe paper"):
        load_features(features / "silent", model, processor)
    collator = STAGES["vl2"].collator(processor, recipe="paper")
    cached = load_features(features / "silent", model, collator.processor_as_trained())
    assert "audio_clip_features" not in collator([cached[0], cached[1]])
    with_times = STAGES["vl2"].collator(processor, load_audio_from_video=False)
    text = processor.tokenizer.decode(with_times([cached[0]])["input_ids"][0])
    assert "The video contains 8 frames sampled at 0.0" in text


def test_features_of_an_earlier_version_are_refused(model, processor, features, tmp_path):
    shutil.copytree(features / "sound", tmp_path / "earlier")
    header = tmp_path / "earlier" / "features.json"
    header.write_text(header.read_text().replace('"version": 2', '"version": 1'))
    with pytest.raises(
        FeatureCacheError, match=r"is of version 1, expected 2; compute the features again into another"
    ):
        load_features(tmp_path / "earlier", model, processor)
