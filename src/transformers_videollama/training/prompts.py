"""Rows with a prompt, as trainers of preferences and rewards have them -> tokens, and the items of the prompt."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from ..messages import parse_message
from ..processing_video_llama import VideoLlamaProcessor
from .collator import items_of, join_items
from .media_columns import messages_of


__all__ = ["OpenedPrompt", "VideoLlamaPreferenceCollator", "open_prompt", "prompt_of"]

ANSWERS = ("chosen", "rejected")
REFERENCES = ("ref_chosen_logps", "ref_rejected_logps")  # which TRL adds to the rows, where it computes them ahead


@dataclass(frozen=True, eq=False)
class OpenedPrompt:
    """
    Attributes:
        messages (`list[dict]`): The prompt with bare placeholders where its items were.
        input_ids (`list[int]`): Its tokens, up to where the answer begins.
        media (`dict`): The items, as arguments of the model: `pixel_values_videos` of shape (videos, T, 3, H, W),
            `video_frame_mask`, `input_features`, ...; empty for text alone.
    """

    messages: list[dict]
    input_ids: list[int]
    media: dict[str, torch.Tensor]


def prompt_of(row: Mapping) -> list:
    """
    Args:
        row (`Mapping`): `prompt`, a list of messages; its media in blocks, or in the columns `images`, `videos` and
            `audios` with marks in the text.

    Returns:
        `list`: the messages, with all media in blocks.

    Raises:
        ValueError: for a row without such a prompt, and one with media that would not be read.
    """
    prompt = row.get("prompt")
    if not isinstance(prompt, list | tuple) or not prompt:
        raise ValueError(f"has 'prompt': {prompt!r:.80}, expected a list of messages; keys: {sorted(row)}")
    rest = {name: value for name, value in row.items() if name not in ("prompt", "messages", *ANSWERS)}
    return messages_of({**rest, "messages": prompt})


def open_prompt(processor: VideoLlamaProcessor, messages: Sequence[Mapping], **options: Any) -> OpenedPrompt:
    """
    Opens the items of a prompt, once, as the processor does when it is asked the same.

    Args:
        processor ([`VideoLlamaProcessor`])
        messages (`Sequence[Mapping]`)
        options: `load_audio_from_video`, `add_timestamps`, `processor_kwargs` of
            [`~VideoLlamaProcessor.apply_chat_template`].

    Raises:
        MediaError (a `ValueError`): for an item that cannot be read.
    """
    bare, items = processor.open_media(messages, **options)
    (ids,) = processor.tokenize_opened([bare], add_generation_prompt=True)["input_ids"]
    return OpenedPrompt(bare, ids, items_of(items))


class VideoLlamaPreferenceCollator:
    """
    Makes a batch of rows `{"prompt", "chosen", "rejected"}` for TRL's `DPOTrainer`. All three are lists of messages;
    the prompt has the media. They are opened once for both answers, as the processor opens them when it is asked.

    Args:
        processor ([`VideoLlamaProcessor`])
        max_length (`int`, *optional*): Tokens of a prompt with an answer; a longer one is cut at its end.
        options: `load_audio_from_video`, `add_timestamps`, `processor_kwargs` of
            [`~VideoLlamaProcessor.apply_chat_template`].
    """

    def __init__(self, processor: VideoLlamaProcessor, *, max_length: int | None = None, **options: Any):
        self.processor = processor
        self.max_length = max_length
        self.options = options

    def __call__(self, examples: Sequence[Mapping]) -> dict[str, torch.Tensor]:
        """
        Args:
            examples (`Sequence[Mapping]`): B rows.

        Returns:
            `dict`: `input_ids`, `attention_mask`, `completion_mask` (2B, S), int64, padded on the right: the prompts
            with the answers that were chosen, then those with the rejected ones. The items of all of them, as
            arguments of the model. `ref_chosen_logps` and `ref_rejected_logps` (B,), if the rows have them.

        Raises:
            ValueError: for a row that cannot be used, with its place in the batch. No row is left out: TRL counts on
                the log probabilities of all.
        """
        pairs = [self._pair(example, i) for i, example in enumerate(examples)]
        rows = [pair[answer] for answer in ANSWERS for pair in pairs]
        batch = {
            name: pad_sequence([row[name] for row in rows], batch_first=True, padding_value=value)
            for name, value in (
                ("input_ids", self.processor.tokenizer.pad_token_id),
                ("attention_mask", 0),
                ("completion_mask", 0),
            )
        }
        batch |= join_items(rows)
        known = [name for name in REFERENCES if name in examples[0]]
        return batch | {name: torch.tensor([example[name] for example in examples]) for name in known}

    def _pair(self, example: Mapping, index: int) -> dict[str, dict[str, torch.Tensor]]:
        """The rows of both answers."""
        try:
            prompt = open_prompt(self.processor, prompt_of(example), **self.options)
            texts = [[*prompt.messages, *_answer(example, name)] for name in ANSWERS]
            ids = self.processor.tokenize_opened(texts, padding=False)["input_ids"]
            # The answers begin where the texts part from the prompt that is asked with
            start = _length_of_common_start([prompt.input_ids, *ids])
            return {name: self._row(input_ids, start, prompt) for name, input_ids in zip(ANSWERS, ids, strict=True)}
        except ValueError as error:  # MediaError is one
            raise ValueError(f"row {index} of the batch cannot be used: {error}") from error

    def _row(self, ids: list[int], start: int, prompt: OpenedPrompt) -> dict[str, torch.Tensor]:
        input_ids = torch.tensor(ids[: self.max_length])
        if len(input_ids) <= start:
            raise ValueError(
                f"the prompt takes {start} tokens, so that max_length={self.max_length} leaves nothing of the answer"
            )
        completed = (torch.arange(len(input_ids)) >= start).long()
        return {
            "input_ids": input_ids,
            "attention_mask": torch.ones_like(input_ids),
            "completion_mask": completed,
            **prompt.media,
        }


def _answer(example: Mapping, name: str) -> Any:
    """The messages of an answer, which are text."""
    answer = example.get(name)
    if not isinstance(answer, list | tuple) or not answer:
        raise ValueError(f"has {name!r}: {answer!r:.80}, expected a list of messages; keys: {sorted(example)}")
    for i, message in enumerate(answer):
        content = parse_message(message, f"message {i} of {name!r}").content
        if not isinstance(content, str) and any(block.is_item for block in content):
            raise ValueError(f"message {i} of {name!r} has media, expected text; put media into 'prompt'")
    return answer


def _length_of_common_start(texts: Sequence[Sequence[int]]) -> int:
    columns = zip(*texts, strict=False)
    return sum(1 for _ in itertools.takewhile(lambda tokens: len(set(tokens)) == 1, columns))
