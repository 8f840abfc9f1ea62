"""A conversation computes nothing twice, and answers what the model answers to the whole of it."""

from unittest import mock

import numpy as np
import pytest
import torch
from render_clip import render_clip

from transformers_videollama import MediaError, VideoLlamaConversation, video_processing_video_llama
from transformers_videollama.media import sources


GREEDY = {"max_new_tokens": 6, "do_sample": False, "top_p": None}
QUESTIONS = ("What is it?", "Are you sure?", "And what do you hear?")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return str(render_clip(tmp_path_factory.mktemp("clips") / "clip.mp4", seconds=2.5))


def text(question: str) -> dict:
    return {"type": "text", "text": question}


def contents(clip: str) -> dict[str, list]:
    """Names of conversations -> what the user says in each turn."""
    video, sound = {"type": "video", "path": clip}, {"type": "audio", "path": clip}
    image = {"type": "image", "image": np.full((30, 40, 3), 80, dtype=np.uint8)}
    silent = {"type": "video", "video": np.zeros((9, 30, 40, 3), dtype=np.uint8), "video_metadata": {"fps": 2}}
    return {
        "one video": [[video, text(QUESTIONS[0])], *QUESTIONS[1:]],
        "text alone": list(QUESTIONS),
        "another item in every turn": [[video, text(QUESTIONS[0])], [sound, text(QUESTIONS[1])], [silent, video]],
        "an item that changes the beginning": [
            QUESTIONS[0],
            [image, text(QUESTIONS[1])],
            [silent, text(QUESTIONS[2])],
        ],
        "several at once": [
            [image, silent, video, text(QUESTIONS[0])],
            QUESTIONS[1],
            [video, image, text(QUESTIONS[2])],
        ],
    }


def answer_of_the_whole(model, processor, messages: list[dict], options: dict) -> str:
    inputs = processor.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt", **options
    )
    new = model.generate(**inputs, **GREEDY)[:, inputs["input_ids"].shape[1] :]
    return processor.post_process_image_text_to_text(new)[0].strip()


@pytest.mark.parametrize("style", ("llama-2", "vicuna"))
@pytest.mark.parametrize("options", ({}, {"load_audio_from_video": False}, {"processor_kwargs": {"num_frames": 3}}))
@pytest.mark.parametrize("name", contents(""))
def test_answers_are_those_to_the_whole_conversation(model, processors, clip, name, style, options):
    processor = processors[style]
    conversation = VideoLlamaConversation(model, processor, **options)
    messages: list[dict] = []
    for content in contents(clip)[name]:
        messages.append({"role": "user", "content": content})
        expected = answer_of_the_whole(model, processor, messages, options)
        answer = conversation.ask(content, **GREEDY)
        assert str(answer) == expected
        assert 0 < answer.answer_tokens <= 6
        messages.append({"role": "assistant", "content": expected})
    assert [message["role"] for message in conversation.messages] == ["user", "assistant"] * 3


def test_a_second_question_computes_only_its_own_tokens(model, processor, clip):
    conversation = VideoLlamaConversation(model, processor)
    first = conversation.ask([{"type": "video", "path": clip}, text("What is it?")], **GREEDY)
    assert first.reused_tokens == 0
    lengths: list[int] = []
    record = model.model.language_model.register_forward_pre_hook(
        lambda module, args, kwargs: lengths.append(kwargs["inputs_embeds"].shape[1]), with_kwargs=True
    )
    with (
        record,
        mock.patch.object(video_processing_video_llama, "load_video", side_effect=AssertionError("opened again")),
        mock.patch.object(sources, "MediaFile", side_effect=AssertionError("opened again")),
        mock.patch.object(model.model, "get_video_features", side_effect=AssertionError("encoded again")),
        mock.patch.object(model.model, "get_audio_features", side_effect=AssertionError("encoded again")),
    ):
        second = conversation.ask("Are you sure?", **GREEDY)
    assert second.reused_tokens >= first.prompt_tokens
    assert lengths[0] == second.prompt_tokens - second.reused_tokens
    assert lengths[0] < 40 < first.prompt_tokens
    assert set(lengths[1:]) == {1}


def test_a_question_that_fails_leaves_the_conversation_as_it_was(model, processor, clip, tmp_path):
    undisturbed = VideoLlamaConversation(model, processor)
    conversation = VideoLlamaConversation(model, processor)
    question = [{"type": "video", "path": clip}, text("What is it?")]
    assert conversation.ask(question, **GREEDY) == undisturbed.ask(question, **GREEDY)
    before = list(conversation.messages)
    (tmp_path / "broken.mp4").write_bytes(b"nonsense")
    with pytest.raises(MediaError, match=r"broken\.mp4"):
        conversation.ask([{"type": "video", "path": str(tmp_path / "broken.mp4")}])

    streamer = mock.Mock(put=mock.Mock(side_effect=[None, None, KeyboardInterrupt]))
    with pytest.raises(KeyboardInterrupt):
        conversation.ask([{"type": "audio", "path": clip}], streamer=streamer, **GREEDY)
    with invalid_logits(model), pytest.raises(ValueError, match="NaN or infinite logits"):
        conversation.ask([{"type": "audio", "path": clip}], **GREEDY)
    assert conversation.messages == before
    assert str(conversation.ask("Are you sure?", **GREEDY)) == str(undisturbed.ask("Are you sure?", **GREEDY))


def invalid_logits(model):
    return model.lm_head.register_forward_hook(lambda module, args, logits: logits * torch.nan)


@pytest.mark.parametrize("options", ({"num_beams": 2}, {"num_return_sequences": 2, "do_sample": True}))
def test_there_is_one_answer(model, processor, options):
    conversation = VideoLlamaConversation(model, processor)
    with pytest.raises(ValueError, match="one answer"):
        conversation.ask("What is it?", **{**GREEDY, **options})


def test_sampling_and_what_the_caller_gave_are_left_alone(model, processor, clip):
    content = [{"type": "video", "path": clip}, text("What is it?")]
    copy = [dict(block) for block in content]
    torch.manual_seed(1)
    one = VideoLlamaConversation(model, processor).ask(content, max_new_tokens=5)
    torch.manual_seed(1)
    assert VideoLlamaConversation(model, processor).ask(content, max_new_tokens=5) == one
    assert content == copy
