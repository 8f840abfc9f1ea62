"""The trained tiny model of the package: it answers right, through every door that a user takes."""

import json
import re
import string
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForMultimodalLM, QuantizedCache, pipeline

from examples.tiny import world
from examples.tiny.card import CARD
from examples.tiny.evaluate import ask
from examples.tiny.render import render
from transformers_videollama import TINY_CHECKPOINT
from transformers_videollama.cli import main


QUESTION = "What do you see and hear?"


@pytest.fixture(scope="module")
def model():
    return AutoModelForMultimodalLM.from_pretrained(TINY_CHECKPOINT, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Clips of things that no clip of the training has, one or two in each, with each of the sounds and without."""
    folder, rng = tmp_path_factory.mktemp("clips"), np.random.default_rng(8)
    scenes = []
    for number, sound in enumerate([*world.SOUNDS, None, None, None, None]):
        things = world.random_things(rng, 1 + number % 2, held_out=True)
        scenes.append(world.Scene(things, sound))
    return [(render(scene, folder / f"{i}.mp4", rng), scene) for i, scene in enumerate(scenes)]


def test_it_is_small_and_says_how_it_was_made(model):
    assert model.num_parameters() <= 6_000_000
    assert sum(path.stat().st_size for path in Path(TINY_CHECKPOINT).iterdir() if path.is_file()) <= 10_000_000
    card = (Path(TINY_CHECKPOINT) / "README.md").read_text()
    assert re.search(r"^python -m examples.tiny demo/tiny --seed \d+$", card, flags=re.MULTILINE)
    # All that card.py writes stands in it; between these pieces are the values of the run
    assert not [piece for piece, *_ in string.Formatter().parse(CARD) if piece not in card]


@pytest.mark.slow
def test_it_is_right_with_a_quantised_cache(model, tiny_processor, bell_clip):
    chat = [{"role": "user", "content": [{"type": "video", "path": bell_clip}, {"type": "text", "text": QUESTION}]}]
    inputs = tiny_processor.apply_chat_template(
        chat, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    # Of the last 8 tokens alone, keys and values stay as they are
    options = {"backend": "quanto", "nbits": 4, "residual_length": 8, "q_group_size": 32}
    output = model.generate(
        **inputs,
        max_new_tokens=30,
        do_sample=False,
        cache_implementation="quantized",
        cache_config=options,
        return_dict_in_generate=True,
    )
    assert isinstance(output.past_key_values, QuantizedCache)
    answer = tiny_processor.post_process_image_text_to_text(output.sequences[:, inputs["input_ids"].shape[1] :])[0]
    assert answer.strip() == "I see a red circle that moves left and I hear a bell."


@pytest.mark.parametrize("kind", world.QUESTIONS)
def test_it_is_right_about_clips_that_it_has_not_seen(kind, model, tiny_processor, clips):
    """To the letter: four of five about one thing, seven of ten about one of two, six of ten that describe both."""
    rng = np.random.default_rng(9)
    asked = [
        (path, len(scene.things), question)
        for path, scene in sorted(clips, key=lambda row: row[1].sound is None)
        for question in world.questions(scene, rng)
        if question.kind == kind
    ]
    answers = ask(model, tiny_processor, [(path, question.text) for path, _, question in asked])
    right = {1: [], 2: []}
    for (_, number, question), answer in zip(asked, answers, strict=True):
        right[number].append(answer == question.answer)
    assert np.mean(right[1]) >= 0.8
    assert np.mean(right[2]) >= (0.6 if kind.startswith("see") else 0.7)


def test_what_is_heard_is_in_the_sound(model, tiny_processor, clips):
    """Without the sound, the same clips are silent."""
    questions = [(path, "What do you hear?") for path, _ in clips]
    answers = ask(model, tiny_processor, questions, load_audio_from_video=False)
    assert set(answers) == {"I hear nothing."}


def test_pipeline(bell_clip):
    content = [{"type": "video", "path": bell_clip}, {"type": "text", "text": QUESTION}]
    chat = [{"role": "user", "content": content}]
    answer = pipeline("any-to-any", model=TINY_CHECKPOINT)(text=chat, return_full_text=False)[0]["generated_text"]
    assert answer.strip() == "I see a red circle that moves left and I hear a bell."


def test_command_without_a_model(capsys, bell_clip):
    assert main(["ask", bell_clip, "What do you hear?"]) == 0
    output = capsys.readouterr()
    assert output.out == "I hear a bell.\n"
    assert "tiny model" in output.err
    assert (
        main(["ask", bell_clip, "What color is the circle?", "--json", "--no-audio", "--model", TINY_CHECKPOINT]) == 0
    )
    output = capsys.readouterr()
    assert json.loads(output.out)["answer"] == "The circle is red."
    assert "tiny model" not in output.err
