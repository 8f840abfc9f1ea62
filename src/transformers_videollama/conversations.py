"""The items of conversations, read from the blocks of messages."""

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from .block_keys import BLOCK_OPTIONS
from .media import MediaAccess, Sound, Video, load_image, load_sound
from .media.options import Downmix
from .media.parallel import in_parallel
from .messages import Block, EncodedMedia, Message, parse_message
from .video_processing_video_llama import SAMPLING_OPTIONS, VideoLlamaVideoProcessor, as_list_of_metadata


__all__ = ["OpenedMedia"]


class OpenedMedia:
    """Opens the items of conversations, once and in their order, and says in the conversation what is in them."""

    def __init__(
        self,
        video_processor: VideoLlamaVideoProcessor,
        options: dict,
        *,
        hear: bool,
        add_timestamps: bool,
        access: MediaAccess,
    ):
        self.video_processor = video_processor
        self.access = access.for_request()
        given = {**options, **options.get("videos_kwargs", {})}
        names = (*SAMPLING_OPTIONS, "size", "do_resize", "model_max_frames", "device")
        self.video_options = {name: given[name] for name in names if name in given}
        # In the order of the videos; a check that each has one follows when all are processed
        self.video_metadata = iter(as_list_of_metadata(given["video_metadata"]) if "video_metadata" in given else ())
        self.in_order = "video_metadata" in given
        self.hear = hear
        self.add_timestamps = add_timestamps
        self.images: list = []
        self.videos: list = []
        self.sounds: list = []

    def open_conversations(self, conversations: Sequence[Sequence[Mapping]]) -> list[list[dict]]:
        """Opens all at once, unless the metadata of videos has to be dealt out in their order."""
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
        return [self._open_message(parse_message(message, f"message {i}")) for i, message in enumerate(messages)]

    def _open_message(self, message: Message) -> dict:
        if isinstance(message.content, str):
            return {"role": message.role, **message.fields, "content": message.content}
        blocks: list[dict] = []
        for block in message.content:
            follows_video = bool(blocks) and blocks[-1]["type"] == "video"
            if block.kind == "audio" and self.hear and follows_video and block.source is None:
                continue  # the library's way to ask for the sound of the video before it, which is there already
            blocks.extend(self._open_block(block))
        return {"role": message.role, **message.fields, "content": blocks}

    def _open_block(self, block: Block) -> list[dict]:
        if not block.is_item:
            return [block.as_dict()]
        kind, source, fields = block.kind, block.source, block.fields
        if source is None:
            told = "timestamps" in fields and self.add_timestamps
            return [{"type": kind, "timestamps": fields["timestamps"]} if told else {"type": kind}]
        if kind == "image":
            self.images.append(source if isinstance(source, EncodedMedia) else load_image(source, access=self.access))
            return [{"type": "image"}]
        if kind == "audio":
            if not isinstance(source, EncodedMedia):
                options = {name: fields[name] for name in BLOCK_OPTIONS["audio"] if name in fields}
                downmix = options.pop("downmix", None)
                source = _with_downmix(load_sound(source, access=self.access, **options), downmix)
            self.sounds.append(source)
            return [{"type": "audio"}]
        return self._open_video(source, fields)

    def _open_video(self, source: Any, fields: Mapping[str, Any]) -> list[dict]:
        if isinstance(source, EncodedMedia):
            sound = None if source.sound is None else EncodedMedia(source.sound)
            return self._video_blocks(source, sound)
        own = {name: fields[name] for name in BLOCK_OPTIONS["video"] if name in fields}
        downmix = own.pop("downmix", None)
        shared = {**self.video_options, "video_metadata": next(self.video_metadata, None), "access": self.access}
        if "num_frames" in own or "fps" in own:
            shared.pop("num_frames", None)
            shared.pop("fps", None)
        (video,) = self.video_processor.open_videos([source], **{**shared, **own})
        return self._video_blocks(video, None if video.sound is None else _with_downmix(video.sound, downmix))

    def _video_blocks(self, video: Video | EncodedMedia, sound: Sound | EncodedMedia | None) -> list[dict]:
        self.videos.append(video)
        opened: dict[str, Any] = {"type": "video"}
        if self.add_timestamps and video.timestamps is not None:
            opened["timestamps"] = list(video.timestamps)
        if self.hear and sound is not None:
            self.sounds.append(sound)
            return [{"type": "audio"}, opened]
        return [opened]


def _with_downmix(sound: Sound, downmix: Downmix | None) -> Sound:
    """What a block says of its sound goes before what a call, and the feature extractor, say of all."""
    return sound if downmix is None else dataclasses.replace(sound, downmix=downmix)
