"""
Text of the world, and the language model that is trained on it and then frozen.

Descriptions stand in the place of media. In a video's block of tokens stands one for each thing, the sum of the
embeddings of its three words ("red circle left"), in a sound's one for its name; full stops fill the blocks up, at
random places. So the model learns to answer from what stands there, in the exact prompts of the chat template, before
it has seen or heard anything. As a language model knows more than what will be shown to it, the text has all
combinations, those held out for the test of what is seen, too.
"""

import re
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from transformers.utils.chat_template_utils import render_jinja_template

from transformers_videollama.chat_templates import load_chat_template

from . import world
from .model import AUDIO_TOKENS, NUM_FRAMES, PLACEHOLDERS, VIDEO_TOKENS, VOCABULARY
from .training import Schedule


# Prompts, and how often they are drawn
FORMS = {
    "video": 0.36,
    "sound and video": 0.36,
    "sound": 0.12,
    "caption of a video": 0.1,
    "caption of a sound": 0.06,
}

BATCH_SIZE = 16  # scenes
FIRST_DESCRIPTION = VOCABULARY + PLACEHOLDERS  # id of what fills the blocks up; those of what is described follow


@dataclass
class Packed:
    """Conversations that begin alike, side by side: each sees the common beginning and itself, as if it were alone."""

    ids: list[int]
    positions: list[int]
    segments: list[int]  # 0 for the beginning, n for the nth conversation
    labels: list[int]


class TextOfTheWorld:
    """Draws scenes, and writes about them in the forms of the chat templates."""

    def __init__(self, processor, rng: np.random.Generator, *, held_out: bool | None = None):
        self.processor, self.rng, self.held_out = processor, rng, held_out
        self.filler = self.ids(".")[-1]
        self.answer_start = self.ids("x [/INST]")[-1]  # what stands in front of every answer
        # Tokens of descriptions, which have their ids behind those of the vocabulary, and the words of each
        texts = {thing: world.clause(thing).rstrip(".") for thing in world.THINGS} | {s: s for s in world.SOUNDS}
        self.words = [[self.filler], *(self.ids(text) for text in texts.values())]
        self.tokens = {what: FIRST_DESCRIPTION + i for i, what in enumerate(texts, start=1)}

    def ids(self, text: str) -> list[int]:
        return self.processor.tokenizer(text, add_special_tokens=False)["input_ids"]

    def conversations(self) -> Packed:
        """All questions about a scene, in a form drawn by chance."""
        form = str(self.rng.choice(list(FORMS), p=list(FORMS.values())))
        scene = self.scene(form)
        return self.pack(form, scene, world.questions(scene, self.rng))

    def scene(self, form: str, number: int | None = None) -> world.Scene:
        things = sound = None
        if form not in ("sound", "caption of a sound"):
            number = int(self.rng.choice((1, 2, 3), p=(0.15, 0.5, 0.35))) if number is None else number
            things = world.random_things(self.rng, number, held_out=self.held_out)
        if "sound" in form:
            sound = str(self.rng.choice(list(world.SOUNDS)))
        return world.Scene(things, sound)

    def pack(self, form: str, scene: world.Scene, asked: list[world.Question]) -> Packed:
        if form.startswith("caption"):
            return self._caption(scene)
        return pack(self._with_descriptions(self._render(form, scene, asked), scene), self.answer_start)

    def _caption(self, scene: world.Scene) -> Packed:
        """As in the first stage of a branch: the item, then its caption, which is tokenised apart."""
        item = {"type": "video" if scene.things else "audio"}
        beginning = self.processor.tokenizer.apply_chat_template(
            [{"role": "user", "content": [item]}], chat_template=load_chat_template("caption"), tokenize=False
        )
        (row,) = self._with_descriptions([beginning], scene)
        caption = self.ids(world.caption(scene) + "###")
        length = len(row) + len(caption)
        return Packed(row + caption, list(range(length)), [0] * length, [-100] * len(row) + caption)

    def _render(self, form: str, scene: world.Scene, asked: list[world.Question]) -> list[str]:
        """One conversation for each question, as text with one placeholder for each item."""
        video = {"type": "video"}
        if self.rng.random() < 0.7:
            seconds = self.rng.uniform(1, 5) if self.rng.random() < 0.7 else self.rng.uniform(5, 20)
            video["timestamps"] = list(np.arange(NUM_FRAMES) * seconds / NUM_FRAMES)
        items = {
            "video": [video],
            "sound and video": [{"type": "audio"}, video],
            "sound": [{"type": "audio"}],
        }[form]
        messages = [
            {"role": "user", "content": [*items, {"type": "text", "text": "QUESTION"}]},
            {"role": "assistant", "content": "ANSWER"},
        ]
        text = self.processor.tokenizer.apply_chat_template(
            messages, chat_template=self.processor.chat_template, tokenize=False
        )
        return [text.replace("QUESTION", one.text).replace("ANSWER", one.answer) for one in asked]

    def _with_descriptions(self, texts: list[str], scene: world.Scene) -> list[list[int]]:
        """Token ids with the scene's description in the place of media."""
        processor = self.processor
        blocks = {
            processor.video_token: self._block(scene.things or (), VIDEO_TOKENS),
            processor.audio_token: self._block((scene.sound,) if scene.sound else (), AUDIO_TOKENS),
        }
        for token, block in blocks.items():
            texts = [text.replace(token, token * len(block)) for text in texts]
        rows = processor.tokenizer(texts, add_special_tokens=False)["input_ids"]
        for row in rows:
            for token, block in blocks.items():
                placeholder = processor.tokenizer.convert_tokens_to_ids(token)
                if placeholder in row:
                    first = row.index(placeholder)
                    row[first : first + len(block)] = block
        return rows

    def _block(self, described: tuple, length: int) -> list[int]:
        """One token for each that is described, in their order, at random places, and full stops everywhere else."""
        block = [FIRST_DESCRIPTION] * length
        places = np.sort(self.rng.choice(length, size=len(described), replace=False))
        for place, what in zip(places, described, strict=True):
            block[place] = self.tokens[what]
        return block


def sentences_for_tokenizer(number: int = 400) -> list[str]:
    """What the tokenizer is trained on: prompts, questions, answers and clauses, as pieces of text between media."""
    rng = np.random.default_rng(0)
    template = load_chat_template("llama-2")
    sentences = []
    for _ in range(number):
        things = world.random_things(rng, int(rng.integers(1, world.MAX_OBJECTS + 1)), held_out=None)
        scene = world.Scene(things, str(rng.choice(list(world.SOUNDS))))
        sentences += [world.clause(thing) for thing in things] + [f"{scene.sound}."]
        for question in world.questions(scene, rng):
            video = {"type": "video", "timestamps": list(np.arange(NUM_FRAMES) * rng.uniform(1, 8) / NUM_FRAMES)}
            items = ([video], [{"type": "audio"}, video], [{"type": "audio"}], [])[int(rng.integers(4))]
            messages = [
                {"role": "user", "content": [*items, {"type": "text", "text": question.text}]},
                {"role": "assistant", "content": question.answer},
            ]
            (text,), _ = render_jinja_template([messages], chat_template=template, bos_token="<s>", eos_token="</s>")
            sentences += [piece for piece in re.split("<s>|</s>|<video>|<audio>|\n", text) if piece.strip()]
    return sentences


def pack(rows: list[list[int]], answer_start: int) -> Packed:
    """Conversations that begin alike -> one row in which the common beginning stands once."""
    shared = 0
    while len({row[shared] for row in rows}) == 1:
        shared += 1
    ids, positions, segments, labels = rows[0][:shared], list(range(shared)), [0] * shared, [-100] * shared
    for number, row in enumerate(rows, start=1):
        first = len(row) - row[::-1].index(answer_start)  # token of the answer
        ids += row[shared:]
        positions += range(shared, len(row))
        segments += [number] * (len(row) - shared)
        labels += [-100] * (first - shared) + row[first:]
    return Packed(ids, positions, segments, labels)


def collate(batch: list[Packed]) -> dict[str, torch.Tensor]:
    """-> ids, positions, segments, labels (B, S), and mask (B, 1, S, S) of what each token sees"""
    length = max(len(packed.ids) for packed in batch)

    def padded(name: str, fill: int) -> torch.Tensor:
        return torch.tensor([getattr(packed, name) + [fill] * (length - len(packed.ids)) for packed in batch])

    segments = padded("segments", -1)
    queries, keys = segments[:, :, None], segments[:, None, :]
    sees = ((keys == 0) | (keys == queries)) & torch.ones(length, length, dtype=torch.bool).tril()
    ids, positions, labels = padded("ids", 0), padded("positions", 0), padded("labels", -100)
    return {
        "ids": ids,
        "positions": positions,
        "segments": segments,
        "labels": labels,
        "mask": sees[:, None],
    }


def predict_answers(
    model, words: list[list[int]], batch: dict[str, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """
    -> logits (N, V) of the N tokens that have a label, their labels (N,), and their rows in the batch (N,). `words`
    are those of each description.
    """
    table = model.model.language_model.embed_tokens.weight
    offsets = torch.tensor([0, *np.cumsum([len(row) for row in words[:-1]])])
    sums = nn.functional.embedding_bag(torch.tensor(np.concatenate(words)), table, offsets, mode="sum")
    states = model.model.language_model(
        inputs_embeds=nn.functional.embedding(batch["ids"], torch.cat((table, sums))),
        position_ids=batch["positions"],
        attention_mask=batch["mask"],
    ).last_hidden_state
    rows, columns = (batch["labels"][:, 1:] != -100).nonzero(as_tuple=True)
    return model.lm_head(states[rows, columns]), batch["labels"][rows, columns + 1], rows


def train_language_model(model, processor, schedule: Schedule) -> None:
    """Train on the answers to all questions about random scenes, and on captions."""
    text = TextOfTheWorld(processor, schedule.rng)
    for step in schedule.steps(model.model.language_model, model.lm_head):
        batch = collate([text.conversations() for _ in range(BATCH_SIZE)])
        logits, labels, _ = predict_answers(model, text.words, batch)
        step.backward(nn.functional.cross_entropy(logits.float(), labels))


@torch.no_grad()
def grade(model, processor, num_scenes: int, seed: int = 0) -> dict[str, float]:
    """Share of answers that are right in every token, on text of held-out combinations, by form, kind and things."""
    text = TextOfTheWorld(processor, np.random.default_rng(seed), held_out=True)
    right = defaultdict(list)
    for number in range(num_scenes):
        form = ("video", "sound and video", "sound")[number % 3]
        scene = text.scene(form, number=1 + number // 3 % world.MAX_OBJECTS)
        asked = world.questions(scene, text.rng)
        batch = collate([text.pack(form, scene, asked)])
        logits, labels, _ = predict_answers(model, text.words, batch)
        wrong = set(batch["segments"][batch["labels"] != -100][logits.argmax(-1) != labels].tolist())
        for i, question in enumerate(asked, start=1):
            right[f"{form}: {question.kind}, {len(scene.things or ())}"].append(i not in wrong)
    return {name: float(np.mean(row)) for name, row in sorted(right.items())}
