"""Chat messages -> batches to train on: the loss is on the answers alone."""

import copy
import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers.integrations import is_deepspeed_zero3_enabled

from ..chat_templates import load_chat_template
from ..media import Video, load_image
from ..messages import ITEM_ARGUMENTS, MEDIA_ARGUMENTS, MEDIA_INPUTS, SOURCE_KEYS, Block, EncodedMedia, parse_message
from ..processing_video_llama import VideoLlamaProcessor
from ..video_processing_video_llama import SAMPLING_OPTIONS
from .augmentation import random_crop
from .media_columns import messages_of
from .unreadable import UnreadableRows


__all__ = ["VideoLlamaDataCollator", "items_of", "join_items"]

IGNORE_INDEX = -100  # of the library's losses
CAPTION_END = "###"  # the original's end symbol of pre-training, whatever the language model
ENCODED_ARGUMENTS = {"image": "image_frame_features", "video": "video_frame_features", "audio": "audio_clip_features"}
ANSWER_MARK = re.compile(r"\{%[-+]?\s*generation\s*[-+]?%\}")
TEMPLATE_COMMENT = re.compile(r"\{#.*?#\}", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Prompt:
    """
    What stands before an answer.

    Attributes:
        question (`str`): The texts of the user's last message.
        wanted (`str`): The answer.
        inputs (`dict`): `input_ids` (S,), int64, and the items as arguments of the model.
    """

    question: str
    wanted: str
    inputs: dict[str, torch.Tensor]


class VideoLlamaDataCollator:
    """
    Makes a batch of rows `{"messages": [...]}`, which have the form that [`~VideoLlamaProcessor.apply_chat_template`]
    takes, or media in columns, as [`load_messages`] reads them. A row that cannot be used, such as one whose file is
    damaged, is left out of its batch and logged with the reason. Training stops when there are too many of them. Rows
    of an [`AugmentedDataset`] get the random frames and the random crop of training; others get the frames of
    inference.

    Every batch runs every branch of `branches`, which training with sharded parameters needs: a batch that has no
    item for one gets a further row, of a blank item, that has no loss. With `every_kind`, every batch has an item of
    each kind.

    Args:
        processor ([`VideoLlamaProcessor`])
        text (`str`, defaults to "chat"): "chat": the conversation in `chat_template`, and the loss on all that the
            template marks as answers; "caption": items, a prompt if there is one, and a caption, on which the loss is.
        chat_template (`str`, *optional*): of "chat"; by default the processor's own.
        frames_as_sound (`bool`, defaults to `False`): Whether frames stand in for sound: images and videos take the
            places of sounds, and go through ImageBind's vision trunk. This is how the audio branch is trained.
        load_audio_from_video (`bool`, *optional*): Whether the sound of videos is heard, too; by default what the
            processor says, as when the model is asked, and `False` if frames stand in for sound.
        add_timestamps (`bool`, *optional*): Whether the sentence about the times of frames is written; by default as
            above. The original leaves sound and sentence out in training.
        branches (`Sequence[str]`, defaults to `("video",)`): "video", "audio": the branches that run in every batch.
        every_kind (`bool`, *optional*): Whether every batch has an image, a video and a sound, if the processor takes
            sounds, blank ones where there are no others. DeepSpeed's ZeRO-3 needs this: it gathers the weights of each
            part when the part runs, and all processes must do so together. By default when ZeRO-3 is used, as
            `TrainingArguments` set it up; so they must be made before the collator.
        max_length (`int`, *optional*): Tokens of a row; a longer row is cut at its end.
        max_unreadable (`int`, defaults to 100): Rows that may be left out. Processes that load data for one training
            process count together, training processes apart.
        max_unreadable_share (`float`, defaults to 0.05): The share of rows that may be left out, from 0 to 1. A call
            allows five more, since a few rows say little about a share; an [`UnreadableRowsCallback`] does not.

    Raises:
        ValueError: for a chat template that marks no answers, and options that cannot have their values.
        UnreadableDataError (a `ValueError`): on a call, when more rows were left out; the message has the last
            reasons.
    """

    def __init__(
        self,
        processor: VideoLlamaProcessor,
        *,
        text: Literal["chat", "caption"] = "chat",
        chat_template: str | None = None,
        frames_as_sound: bool = False,
        load_audio_from_video: bool | None = None,
        add_timestamps: bool | None = None,
        branches: Sequence[Literal["video", "audio"]] = ("video",),
        every_kind: bool | None = None,
        max_length: int | None = None,
        max_unreadable: int = 100,
        max_unreadable_share: float = 0.05,
    ):
        if text not in ("chat", "caption"):
            raise ValueError(f'text must be "chat" or "caption", got {text!r}')
        if unknown := set(branches) - {"video", "audio"}:
            raise ValueError(f'branches can be "video" and "audio", got {sorted(unknown)}')
        self.processor = processor
        self.text = text
        self.chat_template = chat_template
        self.frames_as_sound = frames_as_sound
        self.load_audio_from_video = self._setting("load_audio_from_video", load_audio_from_video)
        self.add_timestamps = self._setting("add_timestamps", add_timestamps)
        self.branches = tuple(branches)
        self.every_kind = is_deepspeed_zero3_enabled() if every_kind is None else every_kind
        self.max_length = max_length
        self.unreadable = UnreadableRows(max_unreadable, max_unreadable_share)
        if text == "chat":
            self._check_template()

    def __call__(self, examples: Sequence[Mapping]) -> dict[str, torch.Tensor]:
        """
        Args:
            examples (`Sequence[Mapping]`): rows with `messages`; `augmentation_seed` (`int`) if frames and crop are to
                be drawn; `blank_features` of a [`FeatureDataset`].

        Returns:
            `dict`: `input_ids`, `attention_mask`, `labels` (B, S), padded on the right, int64, with -100 for tokens
            without loss, and the arguments of the model for the items of all rows, in their order.
        """
        rows = []
        for example in examples:
            try:
                rows.append(self.encode(example))
            except ValueError as error:  # MediaError is one
                self.unreadable.leave_out(error)
            else:
                self.unreadable.read()
        blank_features: Mapping = next((row["blank_features"] for row in examples if "blank_features" in row), {})
        rows.extend([self._blank_row(kind, blank_features.get(kind)) for kind in self._missing_kinds(rows)])
        paddings = {"input_ids": self.processor.tokenizer.pad_token_id, "labels": IGNORE_INDEX}
        return self._batch(rows, paddings, padding_side="right")

    def encode(self, example: Mapping) -> dict[str, torch.Tensor]:
        """
        Encodes one row.

        Returns:
            `dict`: `input_ids`, `labels` (S,), int64, and the row's items as arguments of the model.

        Raises:
            MediaError (a `ValueError`): for an item that cannot be read.
            ValueError: for a conversation without an answer, or whose items reach beyond `max_length`.
        """
        messages = self.open_media(example)
        inputs = self._encode_caption(messages) if self.text == "caption" else self._encode_chat(messages)
        row = {name: inputs[name] for name in ("input_ids", "labels")} | items_of(inputs)
        self._cut(row)
        if not (row["labels"] != IGNORE_INDEX).any():
            raise ValueError("the conversation has no answer to learn from within max_length")
        return row

    def processor_as_trained(self) -> VideoLlamaProcessor:
        """
        The processor to save with the model, so that it is asked as these batches train it.

        Returns:
            [`VideoLlamaProcessor`]: a copy with `load_audio_from_video`, `add_timestamps` and, of "chat", the chat
            template of the batches. If frames stand in for sound the copy is as the processor is, since the branch is
            trained for real sound.
        """
        processor = copy.copy(self.processor)
        if self.frames_as_sound:
            return processor
        processor.load_audio_from_video = self.load_audio_from_video
        processor.add_timestamps = self.add_timestamps
        if self.text == "chat" and self.chat_template is not None:
            template = processor.named_template(self.chat_template)
            several = processor.chat_template if isinstance(processor.chat_template, dict) else None
            processor.chat_template = template if several is None else {**several, "default": template}
        return processor

    def _setting(self, name: str, given: bool | None) -> bool:
        return (getattr(self.processor, name) and not self.frames_as_sound) if given is None else given

    def encode_prompts(self, example: Mapping) -> list[Prompt]:
        """
        Encodes what stands before each answer of a row, so that the model can be asked for it: the prompt of the
        batches, and no answer but those to the questions before.

        Returns:
            `list[Prompt]`: one for each answer.

        Raises:
            MediaError (a `ValueError`): for an item that cannot be read.
            ValueError: for a conversation without an answer.
        """
        messages = self.open_media(example)
        if self.text == "caption":
            _check_caption(messages)
        prompts = []
        for i, message in enumerate(messages):
            if message["role"] == "assistant":
                prompt = self._encode_prompt(messages[:i])
                inputs = {"input_ids": prompt["input_ids"][0]} | items_of(prompt)
                asked = [said for said in messages[:i] if said["role"] == "user"]
                question = _text(asked[-1]["content"]) if asked else ""
                prompts.append(Prompt(question.strip(), _text(message["content"]).strip(), inputs))
        if not prompts:
            raise ValueError("the conversation has no answer to ask for")
        return prompts

    def batch_prompts(self, prompts: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        """
        Makes a batch for `generate` of the `inputs` of prompts: `input_ids`, `attention_mask` (B, S), int64, padded on
        the left, and the arguments of the model for all items.
        """
        return self._batch(prompts, {"input_ids": self.processor.tokenizer.pad_token_id}, padding_side="left")

    def _encode_prompt(self, messages: list[dict]) -> dict[str, Any]:
        if self.text == "caption":
            return self._apply_template(messages, load_chat_template("caption"))
        return self._apply_template(messages, self.chat_template, add_generation_prompt=True)

    def _check_template(self) -> None:
        """Without marks no token would have a loss."""
        template = self.processor.named_template(self.chat_template)
        if not ANSWER_MARK.search(TEMPLATE_COMMENT.sub("", template)):
            raise ValueError(
                "the chat template does not mark the answers, so that there is nothing to learn; put {% generation %} "
                "before what it writes for the content of an assistant's message and {% endgeneration %} behind its "
                "end symbol, as in {% generation %}{{ message['content'] + eos_token }}{% endgeneration %}"
            )

    def _encode_chat(self, messages: list[dict]) -> dict[str, Any]:
        inputs = self._apply_template(messages, self.chat_template, return_assistant_tokens_mask=True)
        (input_ids,), (answered,) = inputs["input_ids"], inputs["assistant_masks"].bool()
        return {**inputs, "input_ids": input_ids, "labels": input_ids.masked_fill(~answered, IGNORE_INDEX)}

    def _encode_caption(self, messages: list[dict]) -> dict[str, Any]:
        """The caption is tokenised apart from the text before it, as in the original."""
        _check_caption(messages)
        inputs = self._encode_prompt(messages[:1])
        caption_ids = self.processor.tokenizer(
            _text(messages[1]["content"]).strip() + CAPTION_END, add_special_tokens=False, return_tensors="pt"
        )["input_ids"][0]
        prompt_ids = inputs["input_ids"][0]
        return {
            **inputs,
            "input_ids": torch.cat((prompt_ids, caption_ids)),
            "labels": torch.cat((torch.full_like(prompt_ids, IGNORE_INDEX), caption_ids)),
        }

    def _apply_template(self, messages: list[dict], chat_template: str | None, **kwargs) -> Any:
        return self.processor.apply_chat_template(
            messages,
            chat_template,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            load_audio_from_video=self.load_audio_from_video,
            add_timestamps=self.add_timestamps,
            processor_kwargs={"frames_as_sound": True} if self.frames_as_sound else None,
            **kwargs,
        )

    def open_media(self, example: Mapping) -> list[dict]:
        """The messages of a row with its images and videos opened, and augmented if the row says so."""
        if "messages" not in example and "conversations" not in example:
            raise ValueError(f"a row must have the column 'messages', got {sorted(example)}")
        seed = example.get("augmentation_seed")
        draw = None if seed is None else np.random.default_rng(seed)
        opened = []
        for i, message in enumerate(messages_of(example)):
            parsed = parse_message(message, f"message {i}")
            content = parsed.content
            if not isinstance(content, str):
                content = [self._open_block(block, draw) for block in content]
            opened.append({"role": parsed.role, **parsed.fields, "content": content})
        return opened

    def _open_block(self, block: Block, draw: np.random.Generator | None) -> dict:
        source = block.source
        if source is None:
            return block.as_dict()
        kind = block.kind
        if kind in ("image", "video") and not isinstance(source, EncodedMedia):
            if kind == "image" and not self.frames_as_sound:
                source = self._open_image(source, draw)
            else:
                source = self._open_video([load_image(source)] if kind == "image" else source, block.fields, draw)
        kind = "video" if self.frames_as_sound and kind == "image" else kind
        return {"type": kind, **block.fields, kind: source}

    def _open_image(self, source: Any, draw: np.random.Generator | None):
        image = load_image(source)
        size = self.processor.image_processor.size
        return image if draw is None else random_crop(image, (size["height"], size["width"]), draw)

    def _open_video(self, source: Any, fields: Mapping, draw: np.random.Generator | None) -> Video:
        options = {name: fields[name] for name in (*SAMPLING_OPTIONS, "video_metadata") if name in fields}
        if draw is not None and "fps" not in options:
            options = {"sampling": "headtail", **options}
        (video,) = self.processor.video_processor.open_videos([source], generator=draw, **options)
        if draw is None:
            return video
        frames = torch.from_numpy(video.frames).permute(0, 3, 1, 2)
        cropped = random_crop(frames, frames.shape[2:], draw)
        return dataclasses.replace(video, frames=cropped.permute(0, 2, 3, 1).numpy())

    def _cut(self, row: dict[str, torch.Tensor]) -> None:
        """Cuts a row at `max_length`, if none of its items stands beyond."""
        if self.max_length is None or len(row["input_ids"]) <= self.max_length:
            return
        beyond = row["input_ids"][self.max_length :]
        placeholders = torch.tensor([getattr(self.processor, f"{kind}_token_id") for kind in SOURCE_KEYS])
        if torch.isin(beyond, placeholders).any():
            raise ValueError(
                f"the conversation has {len(row['input_ids'])} tokens, and items beyond max_length={self.max_length}"
            )
        row |= {name: row[name][: self.max_length] for name in ("input_ids", "labels")}

    def _missing_kinds(self, rows: Sequence[Mapping]) -> list[str]:
        """The kinds of items that a batch of these rows lacks."""
        there = {kind for kind, names in ITEM_ARGUMENTS.items() if any(name in row for row in rows for name in names)}
        if not self.every_kind:
            there |= {"video"} if "image" in there else set()  # images are videos of one frame
            return [branch for branch in self.branches if branch not in there]
        if self.frames_as_sound:
            return [kind for kind in ("audio",) if kind not in there]
        kinds = SOURCE_KEYS if self.processor.feature_extractor is not None else ("image", "video")
        return [kind for kind in kinds if kind not in there]

    def _blank_row(self, kind: str, features: torch.Tensor | None) -> dict[str, torch.Tensor]:
        """A blank item of one step, encoded before if there are `features` (1, ...) of one, and no loss."""
        processor = self.processor
        count = processor.num_audio_tokens if kind == "audio" else processor.num_video_tokens
        ids = [getattr(processor, f"{kind}_token_id")] * count
        if processor.tokenizer.bos_token_id is not None:
            ids = [processor.tokenizer.bos_token_id, *ids]
        row = {"input_ids": torch.tensor(ids), "labels": torch.full((len(ids),), IGNORE_INDEX)}
        name, step = self._blank_step(kind) if features is None else (ENCODED_ARGUMENTS[kind], features)
        if kind == "image":
            return {**row, name: step}
        mask = "audio_clip_mask" if kind == "audio" else "video_frame_mask"
        return {**row, name: step[None], mask: torch.ones(1, 1, dtype=torch.bool)}

    def _blank_step(self, kind: str) -> tuple[str, torch.Tensor]:
        """The argument of an item, and one step (1, ...) of a blank one."""
        processor = self.processor
        if kind == "audio" and not self.frames_as_sound:
            extractor = processor.feature_extractor
            return "input_features", torch.zeros(1, extractor.feature_size, extractor.num_mel_frames)
        size = (processor.image_processor if kind == "image" else processor.video_processor).size
        names = {"image": "pixel_values", "video": "pixel_values_videos", "audio": "audio_pixel_values"}
        return names[kind], torch.zeros(1, 3, size["height"], size["width"])

    def _batch(
        self, rows: Sequence[Mapping[str, torch.Tensor]], paddings: dict[str, int], padding_side: str
    ) -> dict[str, torch.Tensor]:
        rows = [{**row, "attention_mask": torch.ones_like(row["input_ids"])} for row in rows]
        batch = {
            name: pad_sequence([row[name] for row in rows], True, value, padding_side)
            for name, value in {**paddings, "attention_mask": 0}.items()
        }
        return batch | join_items(rows)


def items_of(inputs: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The arguments of the model that are of items."""
    return {name: inputs[name] for names in MEDIA_ARGUMENTS.values() for name in names if name in inputs}


def _text(content: str | Sequence[Mapping]) -> str:
    """The texts of a message."""
    return content if isinstance(content, str) else "".join(block.get("text") or "" for block in content)


def _check_caption(messages: Sequence[Mapping]) -> None:
    if [message["role"] for message in messages] != ["user", "assistant"]:
        raise ValueError(
            f"expected a user's message with an item and a caption as answer, got messages of "
            f"{[message['role'] for message in messages]}"
        )


def join_items(rows: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """
    Args:
        rows (`Sequence[Mapping]`): arguments of the model for the items of each row; others are not read.

    Returns:
        `dict`: the arguments for the items of all rows, in their order, padded to the longest.

    Raises:
        ValueError: for items of one modality that are given in several ways.
    """
    present = [given for given in MEDIA_INPUTS if any(given.name in row for row in rows)]
    for modality in SOURCE_KEYS:
        names = [given.name for given in present if given.modality == modality]
        if len(names) > 1:
            raise ValueError(
                f"a batch has {' and '.join(names)}, which exclude each other; train on rows that are all "
                "encoded before or all read from files, and whose sounds are all real or all frames"
            )
    joined: dict[str, torch.Tensor] = {}
    for given in present:
        joined |= _joined(rows, given.name, given.mask)
    return joined


def _joined(rows: Sequence[Mapping], name: str, mask_name: str | None) -> dict[str, torch.Tensor]:
    """Items (items, T, ...) of the rows -> one tensor of all, padded to the longest T, and the mask of real steps"""
    rows = [row for row in rows if name in row]
    if mask_name is None:
        return {name: torch.cat([row[name] for row in rows])}
    longest = max(row[name].shape[1] for row in rows)
    joined = {}
    for key in (name, mask_name):
        items = [row[key] for row in rows]
        padding = [item.new_zeros(len(item), longest - item.shape[1], *item.shape[2:]) for item in items]
        joined[key] = torch.cat([torch.cat(pair, dim=1) for pair in zip(items, padding, strict=True)])
    return joined
