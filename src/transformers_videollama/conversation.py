"""A conversation that goes on from its cache and its features."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import BatchFeature, DynamicCache
from transformers.modeling_outputs import BaseModelOutputWithPooling

from .generation_video_llama import named_cache
from .modeling_video_llama import VideoLlamaForConditionalGeneration
from .processing_video_llama import VideoLlamaProcessor


__all__ = ["ConversationAnswer", "VideoLlamaConversation"]


@dataclass(frozen=True)
class ConversationAnswer:
    """
    Attributes:
        text (`str`): The answer; `str` gives the same.
        prompt_tokens (`int`): Tokens of the whole conversation up to the answer, placeholders included.
        reused_tokens (`int`): How many of them were in the cache, and so were not computed.
        answer_tokens (`int`)
    """

    text: str
    prompt_tokens: int
    reused_tokens: int
    answer_tokens: int

    def __str__(self) -> str:
        return self.text


class VideoLlamaConversation:
    """
    Questions, one after another, about the same videos, images and sounds. An item is opened, decoded and encoded
    once, and tokens in the cache of keys and values are not computed again. The answers are those that the model
    gives to the whole conversation.

    Args:
        model ([`VideoLlamaForConditionalGeneration`])
        processor ([`VideoLlamaProcessor`])
        load_audio_from_video (`bool`, *optional*), processor_kwargs (`dict`, *optional*): as in
            [`~VideoLlamaProcessor.apply_chat_template`].

    Attributes:
        messages (`list` of `dict`): The conversation so far, with bare placeholders in the places of items.

    Example:

    ```python
    conversation = VideoLlamaConversation(model, processor)
    print(conversation.ask([{"type": "video", "path": "clip.mp4"}, {"type": "text", "text": "What do you see?"}]))
    print(conversation.ask("And what do you hear?"))
    ```
    """

    def __init__(
        self,
        model: VideoLlamaForConditionalGeneration,
        processor: VideoLlamaProcessor,
        *,
        load_audio_from_video: bool | None = None,
        processor_kwargs: dict | None = None,
    ):
        self.model = model
        self.processor = processor
        self.messages: list[dict[str, Any]] = []
        self._opening: dict[str, Any] = {
            "load_audio_from_video": load_audio_from_video,
            "processor_kwargs": processor_kwargs,
        }
        self._features: dict[str, torch.Tensor] = {}  # of all items: (items, queries, text hidden size)
        self._cache = DynamicCache(config=model.config.get_text_config())
        self._cached_ids: list[int] = []

    @torch.no_grad()
    def ask(self, content: str | Sequence[dict], **generate_kwargs: Any) -> ConversationAnswer:
        """
        Args:
            content (`str` or `list` of blocks): of the user's message, as in
                [`~VideoLlamaProcessor.apply_chat_template`].
            generate_kwargs: For `generate`: `max_new_tokens`, `do_sample`, `streamer`, ..., for one answer without
                beams.

        Returns:
            [`ConversationAnswer`]

        Raises:
            MediaError (a `ValueError`): for an item that cannot be read.
            ValueError: for content of another form, and as `generate`. The conversation stays as it was.
        """
        for name in ("num_beams", "num_return_sequences"):
            number = generate_kwargs.get(name, getattr(self.model.generation_config, name, None))
            if number not in (None, 1):
                raise ValueError(f"a conversation goes on from one answer, but got {name}={number}; expected 1")
        said, media = self.processor.open_media([{"role": "user", "content": content}], **self._opening)
        messages = [*self.messages, *said]
        features = self._with_new(media)
        (ids,) = self.processor.tokenize_opened(messages, add_generation_prompt=True)["input_ids"]
        reused = self._reuse(ids)
        prompt = torch.tensor([ids], device=self.model.device)
        sequence = self.model.generate(
            input_ids=prompt,
            attention_mask=torch.ones_like(prompt),
            mm_encoder_outputs=self._features_of(ids[reused:], features),
            **named_cache(self._cache),
            **generate_kwargs,
        )
        (text,) = self.processor.post_process_image_text_to_text(sequence[:, len(ids) :])
        answer = {"role": "assistant", "content": [{"type": "text", "text": text.strip()}]}
        self.messages, self._features = [*messages, answer], features
        self._cached_ids = sequence[0, : self._cache.get_seq_length()].tolist()
        return ConversationAnswer(text.strip(), len(ids), reused, sequence.shape[1] - len(ids))

    def _with_new(self, media: BatchFeature) -> dict[str, torch.Tensor]:
        """The features of all items, with those that a message brings."""
        new: dict[str, Any] = self.model.encode_media(media.to(self.model.device, self.model.dtype))
        features = dict(self._features)
        for modality, output in new.items():
            known = [features[modality]] if modality in features else []
            features[modality] = torch.cat([*known, output.pooler_output])
        return features

    def _reuse(self, ids: list[int]) -> int:
        """
        Leaves the beginning of `ids` in the cache, as far as it is there, and returns its length. That is nearly
        everything as a rule. It is less if an answer is written with other tokens than it was generated with, or if
        a later item changes the prompt's beginning. The last token is left out, since its logits are needed.
        """
        length = 0
        for token, known in zip(ids[:-1], self._cached_ids, strict=False):
            if token != known:
                break
            length += 1
        self._cached_ids = self._cached_ids[:length]
        if surplus := self._cache.get_seq_length() - length:
            self._cache.crop(-surplus)
        return length

    def _features_of(self, ids: list[int], features: dict[str, torch.Tensor]) -> dict[str, BaseModelOutputWithPooling]:
        """The features of the items whose placeholders are in `ids`, which are the last ones."""
        outputs = {}
        for modality, known in features.items():
            items = ids.count(getattr(self.processor, f"{modality}_token_id")) // known.shape[1]
            if items:
                outputs[modality] = BaseModelOutputWithPooling(pooler_output=known[-items:])
        return outputs
