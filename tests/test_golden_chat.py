"""Conversations against the original code: prompt, token ids, logits and greedy answers of every kind and style."""

import numpy as np
import pytest
import torch
from tiny_conversions import STYLES
from transformers import GenerationConfig


NAMES = [
    f"chat/{style}/{kind}/{turns}"
    for style in STYLES
    for kind in ("text", "image", "video", "video_audio")
    for turns in (1, 2)
]
QUESTIONS = ("What is the dog doing?", "Which colour is it, and what can you hear?")
ANSWER = "The dog is riding a skateboard."
TOKENS = {"image": "<image>", "video": "<video>", "audio": "<audio>"}
# Stand-ins for the media: the golden pixels are random numbers, which no file gives, and take their place below.
# 8 frames of a video of 10 seconds are 1.25 s apart.
BLOCKS = {
    "image": {"type": "image", "image": np.zeros((30, 40, 3), dtype=np.uint8)},
    "video": {"type": "video", "video": np.zeros((8, 30, 40, 3), dtype=np.uint8), "video_metadata": {"fps": 0.8}},
    "audio": {"type": "audio", "audio": np.ones(40000, dtype=np.float32)},
}


@pytest.fixture(params=NAMES)
def case(request, cases):
    return next(case for case in cases["cases"]["chat"] if case["name"] == request.param)


@pytest.fixture
def processor(case, processors):
    return processors[STYLES[case["style"]]]


def messages_of(case: dict) -> list[dict]:
    media = [BLOCKS[kind] for kind, _ in case["media"]]
    messages = [{"role": "user", "content": [*media, {"type": "text", "text": QUESTIONS[0]}]}]
    if case["turns"] == 2:
        messages.append({"role": "assistant", "content": [{"type": "text", "text": ANSWER}]})
        messages.append({"role": "user", "content": [{"type": "text", "text": QUESTIONS[1]}]})
    return messages


def expected_ids(case: dict, processor) -> list[int]:
    count = {"image": processor.num_video_tokens, "video": processor.num_video_tokens}
    ids = list(case["segment_ids"][0])
    for (kind, _), segment in zip(case["media"], case["segment_ids"][1:], strict=True):
        ids += [getattr(processor, f"{kind}_token_id")] * count.get(kind, processor.num_audio_tokens) + segment
    return ids


def golden_inputs(case: dict, processor, seeded_randn) -> dict:
    inputs = processor.apply_chat_template(
        messages_of(case), add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    for kind, seed in case["media"]:
        if kind == "image":
            inputs["pixel_values"] = seeded_randn(1, 3, 1, 224, 224, seed=seed)[:, :, 0]
        elif kind == "video":
            inputs["pixel_values_videos"] = seeded_randn(1, 3, 8, 224, 224, seed=seed).transpose(1, 2)
        else:
            inputs["input_features"] = seeded_randn(1, 8, 1, 128, 204, seed=seed).squeeze(2)
    return inputs


def test_prompt(case, processor):
    expected = case["prompt"]
    for kind, _ in case["media"]:
        expected = expected.replace("<ImageHere>", TOKENS[kind], 1)
    prompt = processor.apply_chat_template(messages_of(case), add_generation_prompt=True)
    assert prompt == processor.tokenizer.bos_token + expected


def test_token_ids(case, processor):
    inputs = processor.apply_chat_template(
        messages_of(case), add_generation_prompt=True, tokenize=True, return_dict=True
    )
    assert inputs["input_ids"] == [expected_ids(case, processor)]


def test_last_logits_and_greedy_answer(case, processor, any_attention_model, golden, seeded_randn):
    inputs = golden_inputs(case, processor, seeded_randn)
    vocabulary = any_attention_model.config.output_vocab_size
    logits = any_attention_model(**inputs, logits_to_keep=1).logits[0, 0, :vocabulary]
    torch.testing.assert_close(logits, golden[f"{case['name']}/last_logits"], rtol=0, atol=1e-4)
    settings = GenerationConfig(max_new_tokens=12, do_sample=False, pad_token_id=0)
    answer = any_attention_model.generate(**inputs, generation_config=settings)[0, inputs["input_ids"].shape[1] :]
    assert answer.tolist() == case["generated_ids"]
