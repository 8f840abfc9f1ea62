"""The items of conversations: what is read from the blocks of messages."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from .media import load_image, load_sound
from .media.parallel import in_parallel
from .messages import SOURCE_KEYS, EncodedMedia, block_kind, block_source, check_block
from .video_processing_video_llama import SAMPLING_OPTIONS, VideoLlamaVideoProcessor, as_list_of_metadata


__all__ = ["OpenedMedia"]


class OpenedMedia:
    """Opens the items of conversations, once and in their order, and says in the conversation what is in them."""

    def __init__(self, video_processor: VideoLlamaVideoProcessor, options: dict, *, hear: bool, add_timestamps: bool):
        self.video_processor = video_processor
        given = {**options, **options.get("videos_kwargs", {})}
        names = (*SAMPLING_OPTIONS, "size", "do_resize")
        self.video_options = {name: given[name] for name in names if name in given}
        # Of the videos in their order; that there is one for each is checked when all are processed
        self.video_metadata = iter(as_list_of_metadata(given["video_metadata"]) if "video_metadata" in given else ())
        self.in_order = "video_metadata" in given
        self.hear = hear
        self.add_timestamps = add_timestamps
        self.images: list = []
        self.videos: list = []
        self.sounds: list = []

    def open_conversations(self, conversations: Sequence[Sequence[Mapping]]) -> list[list[dict]]:
        """All at once, unless what is known of videos has to be dealt out in their order."""
        if self.in_order:
            return [self.open_conversation(messages) for messages in conversations]
        parts = in_parallel(self._open_apart, conversations)
        for part, _ in parts:
            self.images += part.images
            self.videos += part.videos
            self.sounds += part.sounds
        return [messages for _, messages in parts]

    def _open_apart(self, messages: Sequence[Mapping]) -> "tuple[OpenedMedia, list[dict]]":
        part = copy.copy(self)
        part.images, part.videos, part.sounds = [], [], []
        return part, part.open_conversation(messages)

    def open_conversation(self, messages: Sequence[Mapping]) -> list[dict]:
        return [self._open_message(message) for message in messages]

    def _open_message(self, message: Mapping) -> dict:
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise ValueError(f"got the message {str(message)[:80]}, expected a dict with 'role' and 'content'")
        message = {key: value for key, value in message.items() if value is not None}
        content = message.get("content", "")
        if isinstance(content, str):
            return {**message, "content": content}
        if not isinstance(content, Sequence):
            raise ValueError(f"got the content {str(content)[:80]}, expected a string or a list of blocks")
        blocks: list[dict] = []
        for block in content:
            check_block(block)
            # Datasets in Arrow's format give every block the keys of all blocks, with None for what it lacks
            block = {key: value for key, value in block.items() if value is not None}
            follows_video = bool(blocks) and blocks[-1]["type"] == "video"
            if block["type"] == "audio" and self.hear and follows_video and block_source(block) is None:
                continue  # the library's way to ask for the sound of the video in front, which is there already
            blocks.extend(self._open_block(block))
        return {**message, "content": blocks}

    def _open_block(self, block: dict) -> list[dict]:
        kind = block_kind(block)
        if kind not in SOURCE_KEYS:
            return [block]
        source = block_source(block)
        if source is None:
            told = "timestamps" in block and self.add_timestamps
            return [{"type": kind, "timestamps": block["timestamps"]} if told else {"type": kind}]
        if kind == "image":
            self.images.append(source if isinstance(source, EncodedMedia) else load_image(source))
            return [{"type": "image"}]
        if kind == "audio":
            options = {name: block[name] for name in ("sampling_rate", "start", "end") if name in block}
            self.sounds.append(source if isinstance(source, EncodedMedia) else load_sound(source, **options))
            return [{"type": "audio"}]
        return self._open_video(source, block)

    def _open_video(self, source: Any, block: dict) -> list[dict]:
        if isinstance(source, EncodedMedia):
            self.videos.append(source)
            return [{"type": "video"}]
        own = {name: block[name] for name in (*SAMPLING_OPTIONS, "video_metadata") if name in block}
        shared = {**self.video_options, "video_metadata": next(self.video_metadata, None)}
        if "num_frames" in own or "fps" in own:
            shared.pop("num_frames", None)
            shared.pop("fps", None)
        (video,) = self.video_processor.open_videos([source], **{**shared, **own})
        self.videos.append(video)
        opened: dict[str, Any] = {"type": "video"}
        if self.add_timestamps and video.timestamps is not None:
            opened["timestamps"] = list(video.timestamps)
        if self.hear and video.sound is not None:
            self.sounds.append(video.sound)
            return [{"type": "audio"}, opened]
        return [opened]
