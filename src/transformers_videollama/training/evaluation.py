"""Answers that a model gives while it trains, and how right they are."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from transformers import Trainer, TrainerCallback
from transformers.utils import logging

from ..files import appearing
from .collator import CAPTION_END, Prompt, VideoLlamaDataCollator
from .scores import exact_match, token_f1
from .sharding import is_sharded


__all__ = ["AnswerCallback", "AskedAnswer"]

logger = logging.get_logger(__name__)

SCORES = ("exact_match", "token_f1")


@dataclass(frozen=True)
class AskedAnswer:
    """
    Attributes:
        row (`int`): The row of the data, counted from 0.
        question (`str`): The texts of the user's last message before the answer.
        wanted, got (`str`): The answer in the data, and the model's.
        exact_match, token_f1 (`float`): from 0.0 to 1.0, see [`scores`].
        kind (`str`, *optional*): That of the row.
    """

    row: int
    question: str
    wanted: str
    got: str
    exact_match: float
    token_f1: float
    kind: str | None = None


@dataclass(frozen=True)
class _Asked:
    """A question that waits for its answer."""

    row: int
    kind: str | None
    prompt: Prompt

    def answered(self, got: str) -> AskedAnswer:
        question, wanted = self.prompt.question, self.prompt.wanted
        return AskedAnswer(self.row, question, wanted, got, exact_match(wanted, got), token_f1(wanted, got), self.kind)


class AnswerCallback(TrainerCallback):
    """
    Lets the model answer the questions of held-out rows at each evaluation of a `Trainer`, from prompts alone, with
    the prompt that its collator trains. A conversation of several answers is asked for each of them, behind the
    answers in the data to the questions before.

    The scores join the metrics of the evaluation: `eval_exact_match`, `eval_token_f1`, and for rows with a `kind`
    `eval_exact_match_{kind}` and `eval_token_f1_{kind}`. They are logged to where the `Trainer` reports, and
    `metric_for_best_model` can name one. `answers-{step}.jsonl` in the output folder has all questions, with the
    wanted answer and the given one.

    Add it once the `Trainer` is there: `trainer.add_callback(AnswerCallback(trainer, rows))`. Processes share the rows
    out; if they share the model out, each of them asks all rows, so that they stay in step.

    Args:
        trainer (`Trainer`): Its collator is a [`VideoLlamaDataCollator`].
        rows (`Sequence`): As [`load_messages`] or [`load_features`] gives them, perhaps with a column `kind` (`str`).
        max_rows (`int`, *optional*): Rows that are asked, the first ones; all by default.
        batch_size (`int`, defaults to 8): Questions that are asked at once.
        generate_kwargs: For `generate`. By default the likeliest tokens are taken, up to 64.

    Raises:
        ValueError: for another collator, and for numbers below 1.
    """

    def __init__(
        self,
        trainer: Trainer,
        rows: Sequence[dict],
        *,
        max_rows: int | None = None,
        batch_size: int = 8,
        **generate_kwargs: Any,
    ):
        if not isinstance(trainer.data_collator, VideoLlamaDataCollator):
            raise ValueError(
                f"the Trainer has the collator {type(trainer.data_collator).__name__}, expected a "
                "VideoLlamaDataCollator, which makes the prompts"
            )
        if batch_size < 1 or (max_rows is not None and max_rows < 1):
            raise ValueError(f"got max_rows={max_rows} and batch_size={batch_size}, expected at least 1")
        self.trainer, self.rows = trainer, rows
        self.collator: VideoLlamaDataCollator = trainer.data_collator
        self.num_rows = len(rows) if max_rows is None else min(max_rows, len(rows))
        self.batch_size = batch_size
        likeliest: dict[str, Any] = {"do_sample": False, "top_p": None, "temperature": None, "max_new_tokens": 64}
        if self.collator.text == "caption":
            likeliest |= {"stop_strings": CAPTION_END, "tokenizer": self.collator.processor.tokenizer}
        self.generate_kwargs = {**likeliest, **generate_kwargs}

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        answers, unreadable = self.ask()
        scores = {f"eval_{name}": value for name, value in scores_of(answers).items()}
        scores["eval_unreadable_rows"] = float(unreadable)
        metrics.update(scores)
        self.trainer.log(dict(scores))
        if state.is_world_process_zero:
            with appearing(Path(args.output_dir, f"answers-{state.global_step}.jsonl")) as partial:
                lines = [json.dumps(asdict(answer), ensure_ascii=False) for answer in answers]
                partial.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")

    def ask(self) -> tuple[list[AskedAnswer], int]:
        """The answers to all questions in their order, and how many rows could not be read. For all processes."""
        accelerator = self.trainer.accelerator
        model = accelerator.unwrap_model(self.trainer.model_wrapped)
        together = is_sharded(model)  # then a step of one process needs all others
        mine = range(self.num_rows)
        if not together:
            mine = mine[accelerator.process_index :: accelerator.num_processes]
        training = model.training
        model.eval()
        try:
            answers, unreadable = self._ask_rows(model, mine)
        finally:
            model.train(training)
        if accelerator.num_processes > 1 and not together:
            answers, unreadable = gather_object(answers), sum(gather_object([unreadable]))
        return sorted(answers, key=lambda answer: answer.row), unreadable

    def _ask_rows(self, model: Any, rows: Sequence[int]) -> tuple[list[AskedAnswer], int]:
        answers: list[AskedAnswer] = []
        waiting: list[_Asked] = []
        unreadable = 0
        for row in rows:
            example = self.rows[row]
            try:
                prompts = self.collator.encode_prompts(example)
            except ValueError as error:  # MediaError is one
                unreadable += 1
                logger.warning(f"row {row} cannot be asked: {error}")
                continue
            waiting += [_Asked(row, example.get("kind"), prompt) for prompt in prompts]
            while len(waiting) >= self.batch_size:
                answers += self._answer(model, waiting[: self.batch_size])
                waiting = waiting[self.batch_size :]
        return answers + (self._answer(model, waiting) if waiting else []), unreadable

    @torch.no_grad()
    def _answer(self, model: Any, asked: Sequence[_Asked]) -> list[AskedAnswer]:
        batch = self.collator.batch_prompts([one.prompt.inputs for one in asked])
        batch = {name: tensor.to(self.trainer.args.device) for name, tensor in batch.items()}
        with self.trainer.autocast_smart_context_manager():
            sequences = model.generate(**batch, synced_gpus=is_sharded(model), **self.generate_kwargs)
        texts = self.collator.processor.post_process_image_text_to_text(sequences[:, batch["input_ids"].shape[1] :])
        return [one.answered(self._cleaned(text)) for one, text in zip(asked, texts, strict=True)]

    def _cleaned(self, text: str) -> str:
        end = CAPTION_END if self.collator.text == "caption" else ""
        return text.strip().removesuffix(end).strip()


def scores_of(answers: Sequence[AskedAnswer]) -> dict[str, float]:
    """The mean of each score, over all answers and over those of each kind; none without answers."""
    scores = {}
    for kind in (None, *sorted({answer.kind for answer in answers if answer.kind is not None})):
        of_kind = [answer for answer in answers if kind in (None, answer.kind)]
        for name in SCORES if of_kind else ():
            values = [getattr(answer, name) for answer in of_kind]
            scores[name if kind is None else f"{name}_{kind}"] = sum(values) / len(values)
    return scores
