"""The tiny reproduction: its world, its clips, the text its language model learns from, and a run of everything."""

import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from examples.tiny import language, world
from examples.tiny.data import make_clips, read_index
from examples.tiny.model import load_tokenizer, new_model, train_tokenizer
from examples.tiny.render import NUM_FRAMES, ThingsInMotion, render
from examples.tiny.sounds import SAMPLING_RATE, synthesise


@pytest.fixture(scope="module")
def processor(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(language.sentences_for_tokenizer(100), folder)
    return new_model(load_tokenizer(folder), seed=0)[1]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_splits_share_no_combination():
    held_out = {thing for thing in world.THINGS if thing.held_out}
    for split in (False, True):
        drawn = {thing for seed in range(100) for thing in world.random_things(rng(seed), 3, held_out=split)}
        assert drawn
        assert all((thing in held_out) == split for thing in drawn)
    for part in ("shape", "colour", "motion"):  # nothing that is asked about is new in itself
        assert {getattr(t, part) for t in held_out} == {getattr(t, part) for t in set(world.THINGS) - held_out}


@pytest.mark.parametrize("number", [1, 2, 3])
def test_answers_follow_from_the_scene(number):
    scene = world.Scene(world.random_things(rng(), number, held_out=True), "rain")
    asked = world.questions(scene, rng())
    assert {question.kind for question in asked} == set(world.QUESTIONS)
    for question in asked:
        if question.kind in world.ABOUT_A_THING:
            (thing,) = [t for t in scene.things if _names(question.text, t) or len(scene.things) == 1]
            said = {"colour": thing.colour, "shape": thing.shape, "motion": world.MOTIONS[thing.motion]}[question.kind]
            assert question.answer.endswith(f"{said}.")
    answers = {question.kind: question.answer for question in asked}
    assert world.NUMBERS[number] in answers["count"]
    assert answers["hear"] == "I hear the rain."
    assert all(f"a {t.colour} {t.shape} that {world.MOTIONS[t.motion]}" in answers["see"] for t in scene.things)


def _names(question: str, thing: world.Thing) -> bool:
    return any(name in question for name in (f" {thing.shape}", f"{thing.colour} object"))


def test_what_is_silent_is_not_heard():
    scene = world.Scene(world.random_things(rng(), 1, held_out=False))
    answers = {question.kind: question.answer for question in world.questions(scene, rng())}
    assert answers["hear"] == "I hear nothing."
    assert answers["see and hear"].endswith("and I hear nothing.")


@pytest.mark.parametrize("sound", [None, "bell"])
def test_clips_have_their_streams(sound, tmp_path):
    path = render(world.Scene(world.random_things(rng(), 2, held_out=False), sound), tmp_path / "clip.mp4", rng())
    with av.open(str(path)) as container:
        assert [stream.codec_context.name for stream in container.streams.video] == ["h264"]
        assert [stream.codec_context.name for stream in container.streams.audio] == (["aac"] if sound else [])
        assert sum(1 for _ in container.decode(video=0)) == NUM_FRAMES


def test_things_move_as_they_should():
    for motion, (axis, sign) in {"left": (0, -1), "right": (0, 1), "up": (1, -1), "down": (1, 1)}.items():
        (path,) = ThingsInMotion((world.Thing("circle", "red", motion),), rng()).paths
        travelled = path[-1] - path[0]
        assert sign * travelled[axis] >= 32
        assert travelled[1 - axis] == 0


@pytest.mark.parametrize("kind", world.SOUNDS)
def test_sounds_are_deterministic_and_vary(kind):
    first, again, other = (synthesise(kind, 1.5, rng(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.05
    assert first.shape == (round(1.5 * SAMPLING_RATE),)
    assert 0.05 < np.abs(first).max() <= 1


def test_clips_are_the_same_for_the_same_seed(tmp_path):
    for folder in ("first", "again"):
        make_clips(tmp_path / folder, "held_out", 6, seed=3)
    first, again = (read_index(tmp_path / folder, "held_out") for folder in ("first", "again"))
    assert [scene for _, scene in first] == [scene for _, scene in again]
    assert all(path.read_bytes() == other.read_bytes() for (path, _), (other, _) in zip(first, again, strict=True))


@pytest.mark.parametrize("form", language.FORMS)
def test_text_has_the_tokens_of_the_prompts(form, processor):
    """Where media will stand there is a description, and what is said follows from it."""
    text = language.TextOfTheWorld(processor, rng(), held_out=True)
    scene = text.scene(form, number=2)
    packed = text.pack(form, scene, world.questions(scene, text.rng))
    spoken = processor.tokenizer.decode([label for label in packed.labels if label != -100])
    placeholders = {processor.video_token_id, processor.audio_token_id}
    assert placeholders.isdisjoint(packed.ids)
    described = [i for i in packed.ids if i > language.FIRST_DESCRIPTION]
    assert described == [
        text.tokens[what] for what in ([scene.sound] if scene.sound else []) + [*(scene.things or ())]
    ]
    words = [processor.tokenizer.decode(text.words[i - language.FIRST_DESCRIPTION]) for i in described]
    assert all(f"{thing.colour} {thing.shape} {thing.motion}" in words for thing in scene.things or ())
    if "sound" in form:
        assert world.SOUNDS[scene.sound] in spoken
    assert all(thing.colour in spoken and thing.shape in spoken for thing in scene.things or ())


def test_packed_conversations_do_not_see_each_other(processor):
    """A row of conversations that share their beginning gives the logits of each conversation alone."""
    model, _ = new_model(processor.tokenizer, seed=0)
    rows = [[1, 5, 9, 7, 11, 12, 13], [1, 5, 9, 8, 11, 14, 15, 16]]
    together = language.predict_answers(model, [[0]], language.collate([language.pack(rows, answer_start=11)]))[0]
    alone = [
        model.lm_head(model.model.language_model(input_ids=torch.tensor([row])).last_hidden_state)[0, 4:-1]
        for row in rows
    ]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_smoke_run(tmp_path):
    """All phases, in little; a second run finds every phase complete."""
    command = [sys.executable, "-m", "examples.tiny", str(tmp_path), "--smoke"]
    for _ in range(2):
        subprocess.run(command, cwd=Path(__file__).parents[1], check=True, capture_output=True, timeout=300)
    made = {path.name for path in tmp_path.iterdir()}
    assert {"model", "results.json", "results.md", "losses.png", "accuracy.png"} <= made
    assert (tmp_path / "model" / "processor_config.json").exists()
    assert sum(path.stat().st_size for path in (tmp_path / "model").rglob("*")) < 10_000_000
