# Copyright 2026 The transformers_videollama authors. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""Conversations, text and media -> the inputs of Video-LLaMA."""

import bisect
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import torch
from jinja2 import TemplateError
from transformers.feature_extraction_utils import BatchFeature
from transformers.processing_utils import MultiModalData, ProcessingKwargs, ProcessorMixin
from transformers.tokenization_utils_base import BatchEncoding
from transformers.utils import logging
from transformers.utils.chat_template_utils import render_jinja_template

from .block_keys import check_foreign_names
from .conversations import OpenedMedia
from .feature_extraction_video_llama import Downmix, as_list_of_sounds
from .image_processing_video_llama import check_settings
from .media import MediaAccess, load_image, media_access
from .media.checks import Check, flag, optional, whole
from .media.options import check_options
from .messages import EncodedMedia
from .video_processing_video_llama import VideoLlamaVideoProcessorKwargs, as_list_of_videos, pad_steps


__all__ = ["VideoLlamaProcessor", "VideoLlamaProcessorKwargs"]

logger = logging.get_logger(__name__)
PLACEHOLDER_TOKENS = {"image": "<image>", "video": "<video>", "audio": "<audio>"}
SETTINGS = {
    "num_video_tokens": whole(1, 4096),
    "num_audio_tokens": whole(0, 4096),
    "load_audio_from_video": flag,
    "add_timestamps": flag,
    "stop_string": optional(Check("text that is not empty", lambda value: isinstance(value, str) and bool(value))),
}


class VideoLlamaProcessorVideosKwargs(VideoLlamaVideoProcessorKwargs, total=False):
    """
    In addition to those of the video processor:

    Attributes:
        frames_as_sound (`bool`, *optional*, defaults to `False`): Whether the frames of videos stand in for sound, as
            in the training of the audio branch: they take a sound's placeholders, as `audio_pixel_values`.
    """

    frames_as_sound: bool


class VideoLlamaAudioKwargs(TypedDict, total=False):
    """
    Attributes:
        sampling_rate (`int`, *optional*): Hz of sounds that are given as arrays; must be the feature extractor's.
        downmix (`str`, *optional*): "mean" or "first", how channels become one.
        num_clips (`int`, *optional*): Clips of a sound.
        access ([`MediaAccess`], *optional*): What may be opened, and how much work it may be.
    """

    sampling_rate: int | None
    downmix: Downmix | None
    num_clips: int | None
    access: MediaAccess | None
    return_tensors: Any


class VideoLlamaProcessorKwargs(ProcessingKwargs, total=False):
    videos_kwargs: VideoLlamaProcessorVideosKwargs
    audio_kwargs: VideoLlamaAudioKwargs
    _defaults = {"text_kwargs": {"padding": True}}


class VideoLlamaProcessor(ProcessorMixin):
    """
    Everything between a conversation and the model. [`~VideoLlamaProcessor.apply_chat_template`] is the front door;
    calling the processor takes text that holds one placeholder (`<image>`, `<video>`, `<audio>`) for each item. There,
    tokens in the text are taken as tokens; in a conversation, what a user types is text.

    Args:
        image_processor: Scales images to 224x224 (bicubic) and normalises them.
        video_processor ([`VideoLlamaVideoProcessor`])
        feature_extractor ([`VideoLlamaFeatureExtractor`])
        tokenizer: A fast tokenizer that has the three placeholders.
        chat_template (`str`, *optional*): See `load_chat_template`.
        num_video_tokens (`int`, defaults to 32): Tokens that an image or a video takes.
        num_audio_tokens (`int`, defaults to 8): Tokens that a sound takes; 0 for a checkpoint without audio branch.
        load_audio_from_video (`bool`, defaults to `True`): Whether the sound of a video is heard if the call does not
            say. `False` for a checkpoint without audio branch.
        stop_string (`str`, *optional*): The text that ends an answer in the prompt style, such as "###", in addition
            to the end token.
        add_timestamps (`bool`, defaults to `True`): Whether the sentence about the times of its frames follows a
            video without sound if the call does not say.
    """

    valid_processor_kwargs = VideoLlamaProcessorKwargs

    def __init__(
        self,
        image_processor=None,
        video_processor=None,
        feature_extractor=None,
        tokenizer=None,
        chat_template: str | None = None,
        num_video_tokens: int = 32,
        num_audio_tokens: int = 8,
        load_audio_from_video: bool = True,
        stop_string: str | None = None,
        add_timestamps: bool = True,
    ):
        self.num_video_tokens = num_video_tokens
        self.num_audio_tokens = num_audio_tokens
        self.load_audio_from_video = load_audio_from_video
        self.stop_string = stop_string
        self.add_timestamps = add_timestamps
        check_settings(self, SETTINGS)
        super().__init__(image_processor, video_processor, feature_extractor, tokenizer, chat_template=chat_template)
        self.image_token, self.video_token, self.audio_token = PLACEHOLDER_TOKENS.values()
        for modality, token in PLACEHOLDER_TOKENS.items():
            setattr(self, f"{modality}_token_id", tokenizer.convert_tokens_to_ids(token))

    def __call__(self, images=None, text=None, videos=None, audio=None, **kwargs) -> BatchFeature:
        """
        Args:
            images, text, videos, audio (*optional*): One item or a list of items of a kind; text with a placeholder
                for each of the others.
            kwargs: Options of [`VideoLlamaProcessorKwargs`], by themselves or in `videos_kwargs`, `audio_kwargs`, ...

        Returns:
            [`BatchFeature`]: as [`~VideoLlamaProcessor.apply_chat_template`].

        Raises:
            MediaError (a `ValueError`): for an item that cannot be read.
            ValueError: for an option that cannot have its value, or has the name that another library gives it.
        """
        return super().__call__(images=images, text=text, videos=videos, audio=audio, **_checked(kwargs))

    def apply_chat_template(
        self,
        conversation: Sequence,
        chat_template: str | None = None,
        *,
        tools: list | None = None,
        documents: list | None = None,
        add_generation_prompt: bool = False,
        continue_final_message: bool | str = False,
        return_assistant_tokens_mask: bool = False,
        tokenize: bool = False,
        return_dict: bool = False,
        return_tensors: str | None = None,
        load_audio_from_video: bool | None = None,
        add_timestamps: bool | None = None,
        processor_kwargs: dict | None = None,
        access: MediaAccess | None = None,
        **kwargs,
    ) -> str | list[str] | list | BatchFeature:
        """
        Turns one conversation, or a batch of them, into text or into the inputs of the model. Every item of the
        conversation is opened once, before anything is computed; the conversation itself is not changed.

        Args:
            conversation (`list` of messages, or `list` of conversations): `{"role": ..., "content": ...}`, where the
                content is text or a list of blocks: `{"type": "text", "text": ...}`, and for "image", "video" and
                "audio" `{"type": "image", "image": ...}`. `"path"` and `"url"` do as well; `load_image`, `load_video`
                and `load_sound` say what a source can be. A video block may also hold `num_frames`, `fps`,
                `sampling`, `start`, `end`, `video_stream`, `audio_stream`, `on_damage`, `decoder` and, for decoded
                frames, `video_metadata` (`{"fps": ...}`); an audio block `start`, `end` and, for samples,
                `sampling_rate`. A sound that stands right before a video is taken as the video's own. A block without
                a source is a bare placeholder.
            chat_template (`str`, *optional*): The processor's own by default.
            tools, documents (`list`, *optional*): Given to the template, where those of this package have no use for
                them.
            add_generation_prompt (`bool`, defaults to `False`): Whether to open the answer.
            continue_final_message (`bool` or `str`, defaults to `False`): Whether the last message is to be continued.
            return_assistant_tokens_mask (`bool`, defaults to `False`): Whether `assistant_masks` are returned, too:
                1 for the tokens of answers.
            tokenize (`bool`, defaults to `False`): Whether to return tokens and media, or the text with placeholders.
            return_dict (`bool`, defaults to `False`): Whether to return all inputs, or the token ids alone.
            return_tensors (`str`, *optional*): "pt" or "np".
            load_audio_from_video (`bool`, *optional*): Whether the sound of a video that has some is heard; the
                processor's own setting by default. A checkpoint without audio branch says once that it leaves it out.
            add_timestamps (`bool`, *optional*): Whether the sentence about the times of its frames follows a video
                without sound, if they are known; the processor's own setting by default.
            processor_kwargs (`dict`, *optional*): Arguments of the processor's call, such as `num_frames`, `fps`,
                `downmix`, `padding`. `load_audio_from_video` and `add_timestamps` may stand here as well, and then go
                before the arguments of that name, of which the library's server always gives the first.
            access ([`MediaAccess`], *optional*): What may be opened, and how much work one item and all of them may
                be; what `restrict_media_access` has set for the process by default.
            kwargs: Variables of the template; the rest is taken as `processor_kwargs`.

        Returns:
            `str`, `list[str]`, token ids, or [`BatchFeature`] with `input_ids`, `attention_mask` and, if there are
            such items, `pixel_values`, `pixel_values_videos`, `video_frame_mask`, `input_features`, `audio_clip_mask`.

        Raises:
            MediaError (a `ValueError`): for an item that cannot be read; the message names it.
            ValueError: for arguments that do not go together.
        """
        if continue_final_message and (add_generation_prompt or return_assistant_tokens_mask):
            raise ValueError(
                "continue_final_message goes with neither add_generation_prompt nor return_assistant_tokens_mask"
            )
        options = _checked({**kwargs, **(processor_kwargs or {})})
        conversations, is_batched = _as_batch(conversation)
        opened = self._opened_media(options, load_audio_from_video, add_timestamps, access)
        prompts, answer_spans = self._render(
            opened.open_conversations(conversations),
            self.named_template(chat_template),
            tools=tools,
            documents=documents,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
            return_assistant_tokens_mask=return_assistant_tokens_mask,
            **{**self.tokenizer.special_tokens_map, **kwargs},
        )
        if not tokenize:
            return prompts if is_batched else prompts[0]
        if return_assistant_tokens_mask:
            options |= {"return_offsets_mapping": True, "return_text_replacement_offsets": True}
        inputs = self(
            text=prompts,
            images=opened.images or None,
            videos=opened.videos or None,
            audio=opened.sounds or None,
            **{"add_special_tokens": False, **options},
            return_tensors=None if return_assistant_tokens_mask else return_tensors,
        )
        if return_assistant_tokens_mask:
            inputs["assistant_masks"] = _assistant_masks(inputs, answer_spans)
            inputs = inputs.convert_to_tensors(return_tensors)
        return inputs if return_dict else inputs["input_ids"]

    def open_media(
        self,
        messages: Sequence[Mapping],
        *,
        load_audio_from_video: bool | None = None,
        add_timestamps: bool | None = None,
        processor_kwargs: dict | None = None,
        access: MediaAccess | None = None,
    ) -> tuple[list[dict], BatchFeature]:
        """
        Takes the items out of messages, so that they need not be opened again for another question.

        Args:
            messages (`list`), load_audio_from_video, add_timestamps, processor_kwargs, access: as in
                [`~VideoLlamaProcessor.apply_chat_template`].

        Returns:
            `tuple`: the messages with bare placeholders in the places of items, for
            [`~VideoLlamaProcessor.tokenize_opened`]; and the items, as tensors of the model's inputs.

        Raises:
            MediaError, ValueError: as [`~VideoLlamaProcessor.apply_chat_template`].
        """
        options = _checked(processor_kwargs or {})
        opened = self._opened_media(options, load_audio_from_video, add_timestamps, access)
        bare = opened.open_conversation(messages)
        items = {"images": opened.images, "videos": opened.videos, "audio": opened.sounds}
        given = {name: values for name, values in items.items() if values}
        return bare, self(**given, **options, return_tensors="pt") if given else BatchFeature({})

    def tokenize_opened(
        self,
        conversation: Sequence,
        *,
        add_generation_prompt: bool = False,
        padding: bool = True,
        return_tensors: str | None = None,
    ) -> BatchEncoding:
        """
        Tokens of one conversation, or of a batch of them, whose items have been taken out by
        [`~VideoLlamaProcessor.open_media`]: the same as with the items, which the model gets as `mm_encoder_outputs`.

        Args:
            conversation (`list` of messages, or `list` of conversations), add_generation_prompt: as in
                [`~VideoLlamaProcessor.apply_chat_template`].
            padding (`bool`, defaults to `True`): Whether a batch is padded to the longest.
            return_tensors (`str`, *optional*): "pt" or "np".

        Returns:
            `BatchEncoding` with `input_ids` and `attention_mask`.
        """
        # The sound of a video has a placeholder of its own by now
        text = self.apply_chat_template(
            conversation, add_generation_prompt=add_generation_prompt, load_audio_from_video=False
        )
        prompts = [text] if isinstance(text, str) else text
        for modality, token in PLACEHOLDER_TOKENS.items():
            tokens = getattr(self, f"replace_{modality}_token")({}, 0)
            prompts = [prompt.replace(token, tokens) for prompt in prompts]
        return self.tokenizer(prompts, add_special_tokens=False, padding=padding, return_tensors=return_tensors)

    def _frame_limit(self, frames_as_sound: bool) -> dict[str, int]:
        """Frames that stand in for sound go through the audio branch, which has positions of its own."""
        limit = self.feature_extractor.model_max_clips if frames_as_sound else None
        return {} if limit is None else {"model_max_frames": limit}

    def _opened_media(
        self,
        options: dict,
        load_audio_from_video: bool | None,
        add_timestamps: bool | None,
        access: MediaAccess | None,
    ) -> OpenedMedia:
        hear = self._setting("load_audio_from_video", load_audio_from_video, options)
        tell = self._setting("add_timestamps", add_timestamps, options)
        if hear and not self.num_audio_tokens:  # the library's server asks for it of any model
            logger.warning_once("the sound of videos is left out: this checkpoint has no audio branch")
            hear = False
        as_sound = {**options, **options.get("videos_kwargs", {})}.get("frames_as_sound", False)
        options = {**options, **self._frame_limit(as_sound)}
        access = media_access() if access is None else access
        return OpenedMedia(self.video_processor, options, hear=hear, add_timestamps=tell, access=access)

    def _setting(self, name: str, given: bool | None, options: dict) -> bool:
        """What the options of a call say, which no longer hold it then, or its argument, or the processor itself."""
        check_options({name: given})
        said = options.pop(name, None)
        given = given if said is None else said
        return getattr(self, name) if given is None else given

    def prepare_inputs_layout(self, images=None, text=None, videos=None, audio=None, **kwargs):
        """Flat lists of items, in the order of the placeholders; the library's hook before `validate_inputs`."""
        if text is not None:
            text = [text] if isinstance(text, str) else list(text)
        if images is not None:
            access = {**kwargs, **kwargs.get("images_kwargs", {})}.get("access")
            images = [
                image if isinstance(image, EncodedMedia) else load_image(image, access=access)
                for image in _as_list_of_images(images)
            ]
        videos = None if videos is None else as_list_of_videos(videos)
        audio = None if audio is None else as_list_of_sounds(audio)
        return images, text, videos, audio

    def validate_inputs(self, images=None, text=None, videos=None, audio=None, **kwargs) -> None:
        """
        Compares placeholders with items, before any item is decoded.

        Raises:
            ValueError: if they are not equally many, if there is nothing at all, or if there is sound for a checkpoint
                without audio branch.
        """
        if text is None and images is None and videos is None and audio is None:
            raise ValueError("got no text, images, videos or audio; give at least one")
        as_sound = {**kwargs, **kwargs.get("videos_kwargs", {})}.get("frames_as_sound", False)
        if as_sound and (audio or images):
            raise ValueError(
                f"with frames_as_sound, videos take the places of sounds: got {len(audio or [])} sounds and "
                f"{len(images or [])} images, too; leave sounds out, and give images as videos of one frame"
            )
        sounds = (videos if as_sound else audio) or []
        if sounds and not self.num_audio_tokens:
            raise ValueError(
                f"got {len(sounds)} sounds, but this checkpoint has no audio branch; leave them out, or convert the "
                "original with its AL_*.pth and imagebind_huge.pth, and without --no-audio"
            )
        if text is None:
            return
        for i, prompt in enumerate(text):
            if not isinstance(prompt, str):
                raise ValueError(f"text must be a string or a list of strings, but item {i} is {type(prompt)}")
        given = (("images", self.image_token, images), ("videos", self.video_token, videos))
        for name, token, items in (*given, ("sounds", self.audio_token, audio)):
            counts = [prompt.count(token) for prompt in text]
            if sum(counts) != len(items or []):
                raise ValueError(
                    f"the number of {token} tokens in the prompts should be the same as the number of {name}, but the "
                    f"prompts have {counts} of them, {sum(counts)} in all, and {len(items or [])} {name} were passed"
                )

    def _process_images(self, images, **kwargs):
        features = _encoded_features(images)
        if features is None:
            return super()._process_images(images, **kwargs)
        processed = BatchFeature({"image_frame_features": torch.cat(features)}, kwargs.get("return_tensors"))
        return processed, [self.replace_image_token(processed, i) for i in range(len(images))]

    def _process_videos(self, videos, frames_as_sound: bool = False, **kwargs):
        features = _encoded_features(videos)
        if features is None:
            processed = self.video_processor(videos, **{**kwargs, **self._frame_limit(frames_as_sound)})
            names = {"pixel_values_videos": "audio_pixel_values", "video_frame_mask": "audio_clip_mask"}
        else:
            processed = _padded_features(features, "video_frame_features", "video_frame_mask", **kwargs)
            names = {"video_frame_features": "audio_clip_features", "video_frame_mask": "audio_clip_mask"}
        if not frames_as_sound:
            return processed, [self.replace_video_token(processed, i) for i in range(len(videos))]
        processed = BatchFeature({names.get(name, name): value for name, value in processed.items()})
        return processed, [self.replace_audio_token(processed, i) for i in range(len(videos))]

    def _process_audio(self, audio, **kwargs):
        features = _encoded_features(audio)
        if features is None:
            return super()._process_audio(audio, **kwargs)
        processed = _padded_features(features, "audio_clip_features", "audio_clip_mask", **kwargs)
        return processed, [self.replace_audio_token(processed, i) for i in range(len(audio))]

    def replace_image_token(self, image_inputs: dict, image_idx: int, **kwargs) -> str:
        """The placeholders that an image takes, the same number for each; the library's hook."""
        return self.image_token * self.num_video_tokens

    def replace_video_token(self, video_inputs: dict, video_idx: int, **kwargs) -> str:
        """The placeholders that a video takes, the same number for each; the library's hook."""
        return self.video_token * self.num_video_tokens

    def replace_audio_token(self, audio_inputs: dict, audio_idx: int, **kwargs) -> str:
        """The placeholders that a sound takes, the same number for each; the library's hook."""
        return self.audio_token * self.num_audio_tokens

    def _get_num_multimodal_tokens(self, image_sizes=None, video_sizes=None, audio_lengths=None, **kwargs):
        """
        Tokens that items take, which does not depend on their sizes; serving engines ask for it.

        Args:
            image_sizes, video_sizes, audio_lengths (`list`, *optional*): one entry for each item.

        Returns:
            [`MultiModalData`]
        """
        data = {}
        if image_sizes is not None:
            data["num_image_tokens"] = [self.num_video_tokens] * len(image_sizes)
            data["num_image_patches"] = [1] * len(image_sizes)
        if video_sizes is not None:
            data["num_video_tokens"] = [self.num_video_tokens] * len(video_sizes)
        if audio_lengths is not None:
            data["num_audio_tokens"] = [self.num_audio_tokens] * len(audio_lengths)
        return MultiModalData(**data)

    def post_process_image_text_to_text(self, generated_outputs, skip_special_tokens: bool = True, **kwargs):
        """
        Decodes what `generate` returned, with or without the prompt.

        Args:
            generated_outputs (`torch.Tensor` of shape `(B, S)`)
            skip_special_tokens (`bool`, defaults to `True`): Whether to leave out end token and placeholders.

        Returns:
            `list[str]`: the texts, without the prompt style's stop string at their end.
        """
        texts = self.batch_decode(generated_outputs, skip_special_tokens=skip_special_tokens, **kwargs)
        return [text.removesuffix(self.stop_string or "") for text in texts]

    @staticmethod
    def _render(conversations: list, chat_template: str, **kwargs) -> tuple[list[str], list]:
        """Prompts, and the places of the answers in each of them."""
        rendered: Any
        try:
            rendered = render_jinja_template(conversations=conversations, chat_template=chat_template, **kwargs)
        except TemplateError as error:
            raise ValueError(f"the chat template refuses the conversation: {error}") from error
        return rendered

    def named_template(self, chat_template: str | None) -> str:
        """
        Args:
            chat_template (`str`, *optional*): The name of one of the processor's templates, the default one for
                `None`, or a template itself.

        Returns:
            `str`, the Jinja template.

        Raises:
            ValueError: if the processor has none of that name.
        """
        named = self.chat_template if isinstance(self.chat_template, dict) else {"default": self.chat_template}
        template = named.get(chat_template or "default", chat_template)
        if template is None:
            raise ValueError(f"this processor has no default chat template, but {sorted(named)}; pass chat_template")
        return template


def _checked(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a call, those for one kind of item in a dict of their own."""
    check_foreign_names(options)
    nested = {
        name: _checked(values)
        for name, values in options.items()
        if name in ("videos_kwargs", "audio_kwargs") and isinstance(values, Mapping)
    }
    return check_options({**options, **nested})


def _as_batch(conversation: Sequence) -> tuple[list, bool]:
    """A conversation or a batch of them, plain or as the pipelines' `Chat`, -> (conversations, whether a batch)."""
    conversation = getattr(conversation, "messages", conversation)
    if not conversation:
        raise ValueError("got an empty conversation; give at least one message")
    if not isinstance(conversation, Sequence) or _is_message(conversation[0]):
        conversations = [conversation]
    else:
        conversations = [getattr(chat, "messages", chat) for chat in conversation]
    for chat in conversations:
        if isinstance(chat, str) or not isinstance(chat, Sequence):
            raise ValueError(f"got the conversation {str(chat)[:80]}, expected a list of messages")
    return conversations, conversations[0] is not conversation


def _is_message(value: Any) -> bool:
    return isinstance(value, Mapping) or hasattr(value, "role")


def _as_list_of_images(images: Any) -> list:
    """One image, a list of images, or a list of lists of images (one for each prompt) -> a flat list of images."""
    if not isinstance(images, (list, tuple)):
        return [images]
    return [image for item in images for image in _as_list_of_images(item)]


def _encoded_features(items: list) -> list[torch.Tensor] | None:
    """Features of items that are encoded already; `None` if none is."""
    encoded = [item.features for item in items if isinstance(item, EncodedMedia)]
    if encoded and len(encoded) < len(items):
        raise ValueError(
            f"got {len(encoded)} encoded items among {len(items)} of one kind; encode all of them, or none"
        )
    return encoded or None


def _padded_features(
    features: list[torch.Tensor], name: str, mask_name: str, return_tensors: Any = None, **kwargs
) -> BatchFeature:
    """Features (T, ...) of each item -> one tensor (items, longest T, ...) and the mask of real steps"""
    steps, mask = pad_steps(features)
    return BatchFeature({name: steps, mask_name: mask}, return_tensors)


def _assistant_masks(inputs: BatchFeature, answer_spans: list[list[tuple[int, int]]]) -> list[list[int]]:
    """
    Marks the tokens of answers. The spans count characters before the placeholders were replaced, so they are moved by
    the length that the replacements before them have added.
    """
    token_offsets, replacements = inputs.pop("offset_mapping"), inputs.pop("text_replacement_offsets")
    masks = []
    for i, offsets in enumerate(token_offsets):
        ends = [replaced["span"][1] for replaced in replacements[i]]
        gains = [0] + [replaced["new_span"][1] - replaced["span"][1] for replaced in replacements[i]]
        spans = [tuple(char + gains[bisect.bisect_right(ends, char)] for char in span) for span in answer_spans[i]]
        masks.append([int(any(start < last and end > first for first, last in spans)) for start, end in offsets])
    return masks
