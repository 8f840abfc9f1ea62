"""
The one form of messages and of their blocks, for conversations, datasets and servers; and the one table of the model's
arguments that items become.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .block_keys import SOURCE_KEYS, check_block_keys, check_source_keys
from .media.checks import shown
from .media.options import check_options


__all__ = [
    "ITEM_ARGUMENTS",
    "MEDIA_ARGUMENTS",
    "MEDIA_INPUTS",
    "SOURCE_KEYS",
    "Block",
    "EncodedMedia",
    "MediaInput",
    "Message",
    "group_inputs",
    "parse_block",
    "parse_message",
]


@dataclass(frozen=True)
class MediaInput:
    """
    An argument of the model that holds items.

    Attributes:
        name (`str`): The argument's name.
        modality (`str`): "image", "video" or "audio": whose placeholders it fills.
        mask (`str`, *optional*): The argument that says which steps are real; `None` if an item has one step.
        kinds (`tuple[str, ...]`): The kinds of blocks whose items it can be made of.
    """

    name: str
    modality: str
    mask: str | None
    kinds: tuple[str, ...]


# A call takes at most one of those of one modality
MEDIA_INPUTS = (
    MediaInput("pixel_values", "image", None, ("image",)),
    MediaInput("image_frame_features", "image", None, ("image",)),
    MediaInput("pixel_values_videos", "video", "video_frame_mask", ("video",)),
    MediaInput("video_frame_features", "video", "video_frame_mask", ("video",)),
    MediaInput("input_features", "audio", "audio_clip_mask", ("audio",)),
    MediaInput("audio_pixel_values", "audio", "audio_clip_mask", ("image", "video")),  # frames as sound
    MediaInput("audio_clip_features", "audio", "audio_clip_mask", ("audio", "image", "video")),
)
# "image", "video", "audio" -> the arguments that hold its items, and those with their masks
ITEM_ARGUMENTS = {kind: tuple(row.name for row in MEDIA_INPUTS if row.modality == kind) for kind in SOURCE_KEYS}
MEDIA_ARGUMENTS = {
    kind: (*names, *sorted({row.mask for row in MEDIA_INPUTS if row.modality == kind and row.mask}))
    for kind, names in ITEM_ARGUMENTS.items()
}


def group_inputs(inputs: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """
    Arguments of the model, grouped by modality: "image", "video", "audio" -> arguments of `get_*_features`, for the
    modalities that have items. A mask alone is no item.
    """
    return {
        modality: {name: inputs.get(name) for name in MEDIA_ARGUMENTS[modality]}
        for modality, names in ITEM_ARGUMENTS.items()
        if any(inputs.get(name) is not None for name in names)
    }


@dataclass(frozen=True, eq=False)
class EncodedMedia:
    """
    The frozen encoders' features of an item, computed before. It can stand wherever an image, a video or a sound can.

    Attributes:
        features (`torch.Tensor`, float): `(T, Q, D)` from [`~VideoLlamaModel.get_frame_features`] for the frames of a
            video or an image (T = 1), or `(T, D)`, the `pooler_output` of one of ImageBind's trunks for the clips of
            a sound, or for frames that stand in for a sound.
        timestamps (`tuple[float, ...]`, *optional*): Seconds, one for each frame of a video.
        sound (`torch.Tensor`, float, *optional*): `(T, D)`, the features of the sound of a video.
    """

    features: torch.Tensor
    timestamps: tuple[float, ...] | None = None
    sound: torch.Tensor | None = None


@dataclass(frozen=True, eq=False)
class Block:
    """
    A part of a message.

    Attributes:
        kind (`str`): "text", "image", "video", "audio", or another type that a chat template knows.
        fields (`dict`): Its keys other than its type and its source, without those that are `None`: the `text` of a
            text, `num_frames` of a video, ...
        source (`Any`): The source that its item is read from; `None` for a bare placeholder, and for a block without
            an item.
        source_keys (`tuple[str, ...]`): The keys of the block that held a source.
    """

    kind: str
    fields: dict[str, Any]
    source: Any = None
    source_keys: tuple[str, ...] = ()

    @property
    def is_item(self) -> bool:
        return self.kind in SOURCE_KEYS

    def as_dict(self, **fields: Any) -> dict[str, Any]:
        """The block without its source, and with `fields`."""
        return {"type": self.kind, **self.fields, **fields}


@dataclass(frozen=True, eq=False)
class Message:
    """
    Attributes:
        role (`str`)
        content (`str` or `list` of [`Block`])
        fields (`dict`): Its other keys, without those that are `None`.
    """

    role: str
    content: str | list[Block]
    fields: dict[str, Any]


def parse_message(message: Any, where: str = "the message") -> Message:
    """
    Args:
        message (`Mapping`, dataclass or Pydantic model): `{"role": ..., "content": text or a list of blocks}`.
        where (`str`): Its name in errors.

    Raises:
        ValueError: for anything else; the message says where and what.
    """
    message = _as_mapping(message)
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        raise ValueError(f"{where}: got the message {shown(message)}, expected a dict with 'role' and 'content'")
    fields = {key: value for key, value in message.items() if value is not None and key not in ("role", "content")}
    content = message.get("content")
    content = "" if content is None else content
    if isinstance(content, str):
        return Message(message["role"], content, fields)
    if not isinstance(content, Sequence):
        raise ValueError(f"{where}: got the content {shown(content)}, expected a string or a list of blocks")
    blocks = [parse_block(block, f"{where}, block {i}") for i, block in enumerate(content)]
    return Message(message["role"], blocks, fields)


def parse_block(block: Any, where: str = "the block") -> Block:
    """
    Args:
        block (`Mapping`, dataclass or Pydantic model): `{"type": "text", "text": ...}`, or
            `{"type": "image", "image": ...}` and so on, with the source under one of `SOURCE_KEYS`. OpenAI's names
            are taken too: `image_url`, `video_url`, `audio_url`, `input_audio`. A value that is `None` counts as
            absent: Arrow gives every block the keys of all blocks.
        where (`str`): Its name in errors.

    Raises:
        ValueError: for another form, for a key that its kind does not have (the message names the nearest that it
            has), and for an option with a value that it cannot have. Nothing checks here whether a source exists;
            opening it does.
    """
    block = _as_mapping(block)
    if not isinstance(block, Mapping) or not isinstance(block.get("type"), str):
        raise ValueError(f"{where}: got the block {shown(block)}, expected a dict with 'type'")
    kind = {"input_audio": "audio"}.get(block["type"], block["type"].removesuffix("_url"))
    fields = _present(block)
    fields.pop("type")
    check_block_keys(kind, fields, where)
    if kind == "text" and not isinstance(fields.get("text"), str):
        raise ValueError(f"{where}: got the text {shown(block.get('text'))}, expected a string")
    if kind in SOURCE_KEYS:
        fields = check_options(fields, f"{where}: ")
    keys = tuple(key for key in SOURCE_KEYS.get(kind, ()) if key in fields)
    values = [fields.pop(key) for key in keys]
    source = _source(kind, keys[0], values[0], where) if keys else None
    return Block(kind, fields, source, keys)


def _present(values: Mapping) -> dict[str, Any]:
    """Arrow gives every block the keys of all, with `None`, or a dict of `None`, for what it has not."""
    return {name: value for name, value in values.items() if not _is_absent(value)}


def _is_absent(value: Any) -> bool:
    return value is None or (isinstance(value, Mapping) and bool(value) and all(v is None for v in value.values()))


def _as_mapping(value: Any) -> Any:
    """A message or a block as a mapping, which clients of servers have as objects; what is no such object stays."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return value.model_dump() if hasattr(value, "model_dump") else value


def _source(kind: str, key: str, value: Any, where: str) -> Any:
    """The source of an item; OpenAI's `{"url": ...}` and `{"data": base64, "format": ...}` become addresses."""
    of_openai = key.endswith(("_url", "input_audio"))
    value = _as_mapping(value) if of_openai else value
    if isinstance(value, Mapping):
        given = _present(value)
        is_cell = not of_openai and bool(given.keys() & {"bytes", "path", "array"})  # of `datasets`
        if not ("url" in given or {"data", "format"} <= given.keys() or is_cell):
            cells = "" if of_openai else ", 'bytes' or 'path', or 'array' and 'sampling_rate'"
            raise ValueError(
                f"{where}: got {shown(value)}, expected a dict with 'url', or with 'data' and 'format'{cells}"
            )
        check_source_keys(kind, key, given, where)
        if "url" in given:
            return given["url"]
        return value if is_cell else f"data:audio/{given['format']};base64,{given['data']}"
    if key == "base64":
        if not isinstance(value, str):
            raise ValueError(f"{where}: got base64 of {type(value).__name__}, expected a string")
        return value if value.startswith("data:") else f"data:image/*;base64,{value}"
    return value
