"""Held-out questions about mp4 files, through the processor's front door and `generate`."""

from collections import defaultdict
from pathlib import Path

import numpy as np
import torch

from . import world


@torch.no_grad()
def ask(model, processor, questions: list[tuple[Path, str]], batch_size: int = 32, **options) -> list[str]:
    """Greedy answers to questions about files; `options` are those of `apply_chat_template`."""
    answers = []
    for first in range(0, len(questions), batch_size):
        chats = [
            [{"role": "user", "content": [{"type": "video", "path": str(path)}, {"type": "text", "text": text}]}]
            for path, text in questions[first : first + batch_size]
        ]
        inputs = processor.apply_chat_template(
            chats, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt", **options
        )
        generated = model.generate(**inputs, do_sample=False, max_new_tokens=60)
        new = generated[:, inputs["input_ids"].shape[1] :]
        answers += [text.strip() for text in processor.post_process_image_text_to_text(new)]
    return answers


def evaluate(
    model, processor, clips: list[tuple[Path, world.Scene]], seed: int, *, kinds=tuple(world.QUESTIONS), **options
) -> dict:
    """
    Ask a question of every kind about every clip; what is about one thing, about one drawn by chance.

    Returns:
        `dict`: `accuracy` and `number` by "kind, things[, sound]", and `wrong`, examples of wrong answers.
    """
    rng = np.random.default_rng(seed)
    asked = [
        (path, scene, question)
        for path, scene in clips
        for question in _one_of_each_kind(scene, rng)
        if question.kind in kinds
    ]
    # Those with sound and those without have other prompts, of other lengths
    asked.sort(key=lambda row: row[1].sound is not None)
    answers = ask(model, processor, [(path, question.text) for path, _, question in asked], **options)
    right, wrong = defaultdict(list), []
    for (path, scene, question), answer in zip(asked, answers, strict=True):
        right[group_of(question, scene)].append(answer == question.answer)
        if answer != question.answer:
            wrong.append([path.name, question.text, question.answer, answer])
    return {
        "accuracy": {name: sum(row) / len(row) for name, row in sorted(right.items())},
        "number": {name: len(row) for name, row in sorted(right.items())},
        "wrong": wrong[:20],
    }


def group_of(question: world.Question, scene: world.Scene) -> str:
    sound = "sound" if scene.sound else "silent"
    return f"{question.kind}, {len(scene.things or ())}, {sound}"


def _one_of_each_kind(scene: world.Scene, rng: np.random.Generator) -> list[world.Question]:
    asked = world.questions(scene, rng)
    order = rng.permutation(len(asked))
    return list({asked[i].kind: asked[i] for i in order}.values())
